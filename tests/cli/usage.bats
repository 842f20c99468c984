# SPDX-License-Identifier: MIT
# Help, versions, shared options, and what exit code 2 is for.
load helper

@test "help_lists_commands_options_and_exit_codes" {
	run -0 shmq --help
	for word in create rm move ls stat pub sub stop version --bus --runtime-dir --no-start; do
		has "$output" "$word"
	done
	for code in 0 1 2 3 4 5 6 7; do
		grep -q "^  $code  " <<<"$output"
	done
}

every_command() {
	shmq ${1-} --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

@test "set_user_id_programs_start_no_supervisor_that_their_caller_chose" {
	[ "$(id -u)" = 0 ] || skip 'only root can be two users'
	for installed in /usr/bin/shmqd /usr/local/bin/shmqd; do
		[ ! -e $installed ] || skip "$installed would be started"
	done
	chmod 755 "$DIR"
	mkdir -p far/from/it evil
	mkdir -m 700 run4711
	chown 4711 run4711
	cp "$BIN/shmq" far/from/it/
	chown 4711 far/from/it/shmq
	chmod 4755 far/from/it/shmq
	printf '#!/bin/sh\necho executed >%s/said\n' "$DIR" >evil/shmqd
	chmod 755 evil/shmqd
	install -m 666 /dev/null said
	local as_other=(setpriv --reuid 4712 --regid 4712 --clear-groups env -u SHMQ_DAEMON PATH="$DIR/evil:$PATH")
	[ "$("${as_other[@]}" far/from/it/shmq version >/dev/null && echo runs)" = runs ] || skip 'another user cannot run it from here'
	run "${as_other[@]}" timeout 60 far/from/it/shmq --runtime-dir "$DIR/run4711" create t
	[ ! -s said ] || fail "$output"
	has "$output" 'starting /usr/bin/shmqd: '
}

@test "errors_tell_no_terminal_what_to_do" {
	shmq create t -q
	run -1 shmq pub t --file $'x\e]0;y\a'
	has "$output" 'opening "x?]0;y?"'
	run -2 shmq metrics $'x\e]0;y\a'
	has "$output" 'not "x?]0;y?"'
	run -2 shmq sub $'x\e]0;y\a'
	[[ $output != *$'\e'* ]]
}

@test "help_of_each_command_begins_with_its_usage" {
	for command in $(every_command); do
		run -0 shmq $command --help
		[[ ${lines[0]} == "usage: shmq [OPTION]... $command"* ]]
		run -0 shmq help $command
		[[ ${lines[0]} == "usage: shmq [OPTION]... $command"* ]]
	done
	for command in "log verify" "cursor set"; do
		run -0 shmq help $command
		[[ ${lines[0]} == "usage: shmq [OPTION]... $command "* ]]
	done
	run -2 --separate-stderr shmq help log bogus
	has "$stderr" 'unknown command "log bogus"'
}

# Those that go on until a signal comes are let go on for a while.
@test "the_examples_of_help_are_true" {
	PATH=$BIN:$PATH
	unset SHMQ_BUS
	examples() { shmq $1 --help | sed -n '/^\(Examples\|To begin with\):/,/^$/s/^  //p'; }
	has "$(every_command)" version
	for command in "" $(every_command) "log "{ls,dump,verify,export,import,repair} "cursor "{ls,set,rm}; do
		examples "$command" >"examples.${command// /-}"
		case $command in log | cursor) ;; *) [ -s "examples.${command// /-}" ] || fail "none of $command" ;; esac
	done
	[ "$(timeout 20 bash -ec "$(cat examples.); wait" | tail -n 1)" = hello ]
	shmq stop --force
	shmq create svc.upper --shared -q
	bash -c "exec $(cat examples.reply)" >replies 3>&- &
	STARTED+=($!)
	mv examples.reload reload
	for command in create pub request; do
		bash -e "examples.$command"
	done >out
	has "$(tail -n 1 out)" HELLO
	printf 'AAPL\nMSFT\n' | shmq pub md.trades
	sed -i 's/$/ --once --interval 0.1/' examples.top
	sed -i 's/ --watch --interval 2s/ --watch --interval 0.1 --count 1/; s/:9464/:0/' examples.{stat,metrics}
	cat examples.{trace,stat,top,events,metrics,sub} >looks
	try() { # SECONDS CODE LINE
		local code=0 said
		said=$(timeout -k 5 "$1" bash -ec "$3" 2>&1 >/dev/null </dev/null) || code=$?
		[ "$code" = 0 ] || [ "$code" = "$2" ] || echo "$3: $code $said"
	}
	while read -r line; do
		case $line in
		*events* | *listen* | *print-topic*) try 1 124 "$line" & ;;
		*) try 60 0 "$line" ;;
		esac
	done <looks >wrong 3>&-
	cat examples.{version,ls,clients,buses,replay,log-{ls,dump,verify,export,import},cursor-{ls,set,rm},config,move} \
		reload >others
	bash -ex others >out 2>err || fail "$(tail -n 3 err)"
	bash -e examples.doctor >out || [ $? = 1 ]
	wait $(jobs -p | grep -vx "$STARTED") || :
	[ ! -s wrong ] || fail "$(cat wrong)"
	kill "$STARTED"
	await '! shmq clients | grep -q "shmq [^c]"'
	bash -e examples.log-repair
	shmq create md.trades -q
	bash -e examples.rm
	bash -e examples.stop
	run -5 shmq --no-start ls
}

@test "help_starts_no_supervisor" {
	shmq --help >/dev/null
	shmq pub --help >/dev/null
	shmq version >/dev/null
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
}

@test "version_names_command_and_library" {
	run -0 shmq version
	[[ $output =~ ^shmq\ [0-9.]+,\ libshmq\ [0-9.]+$ ]]
	run -0 shmq --version
	[[ $output =~ ^shmq\ [0-9.]+ ]]
	shmq version --json | json '$_->{libshmq}' | grep -Eq '^[0-9.]+$'
}

@test "wrong_usage_is_exit_2_with_usage_on_stderr" {
	while read -r arguments; do
		run -2 --separate-stderr shmq $arguments
		[ -z "$output" ] || fail "stdout of $arguments: $output"
		has "$stderr" "shmq: "
		has "$stderr" "usage: shmq"
		has "$stderr" "(hint: "
	done <<-'END'

		bogus
		--bogus
		help bogus
		create
		create a b
		create a --bogus
		create a --policy nonsense
		create a --pages 3k
		create a --depth many
		create a --depth 0
		create a --max 1.5.5k
		create a --node -1
		create a --block-timeout 0
		create a --exclusive --shared
		create a --evict-after 1s
		create a --policy lossy --block-timeout 1s
		create a --stall report
		create a --retain-cursors
		create a --log block --retain-cursors
		rm
		move
		move a b
		ls a b
		ls --long=yes
		stat a b
		stat --interval 0
		stat --interval forever
		stat --count 3
		pub
		pub a b --frames
		pub a --rate 0
		pub a --rate fast
		pub a --type 65536
		pub a --batch 0
		pub a --key
		pub a --key-sep ab
		pub a --key k --key-sep :
		pub a --frames --key-sep :
		pub a --frames --file x
		pub a --lines --frames
		pub a --policy lossy
		pub a --shared
		pub a --time --partition 1
		pub a --create --evict-after 1s
		sub
		sub a --from nowhere
		sub a --count 0
		sub a --timeout 5x
		sub a --format xml
		sub a --wait patiently
		sub a --to oldest
		replay
		replay a b
		replay a --speed 0
		replay a --into a
		log
		log nothing
		log ls --tag 1
		log dump
		log dump a b
		log export a --format text
		log export a --from soon
		log verify
		log repair
		log import
		log import a b c
		cursor
		cursor nothing
		cursor ls --frobnicate
		cursor set a
		cursor set a b --from soon
		cursor rm a
		stop now
		version 2
	END
}

@test "what_went_wrong_is_said_once_with_what_to_do" {
	shmq create t -q
	while IFS='|' read -r arguments words; do
		run shmq $arguments
		[[ ${lines[0]} == "shmq: "$words ]] || fail "$arguments: ${lines[0]}"
	done <<-'END'
		create t|creating "t": topic "t" exists already (hint: *)
		stat u|looking at "u": there is no topic "u" (hint: *)
		create a..b|creating "a..b": byte 3 of the topic name ends an empty word: words are separated by single dots
		create a --slot 100|creating "a": slot bytes must be a multiple of 64 up to 4096 (hint: *)
		create a --max 1T|--max may be at most 1G, not 1T
		create a --log block --segment 2k|--segment must be at least 1M, not 2k
		create a --partitions 5k|--partitions may be at most 4096, not 5k
		create a --depth 4G --slot 4096|creating "a": asked for 16.0 TiB, *: ask for less depth or *
		--runtime-dir /proc/x ls|attaching to bus "*": making runtime directory /proc/x: No such file or directory: choose another place *
	END
}

# What was being done, to what, what happened, what to do.
@test "what_the_supervisor_is_refused_is_said_with_what_to_do" {
	while IFS='|' read -r code arguments words; do
		run "$BIN/shmqd" --bus "$SHMQ_BUS" $arguments 3>&-
		[ "$status" = "$code" ] || fail "$arguments: $status"
		[[ ${lines[0]} == "shmqd: "$words ]] || fail "$arguments: ${lines[0]}"
		[ "${#lines[@]}" = 1 ] || fail "$arguments: $output"
	done <<-'END'
		2|--nope|no such option: "--nope": see shmqd --help
		2|--log|a value is missing behind: "--log": see shmqd --help
		2|--foreground=no|there is no value to: "--foreground=no": see shmqd --help
		2|--linger long|--linger wants seconds: "long": see shmqd --help
		2|left over|unexpected argument: "left": see shmqd --help
		1|--runtime-dir /proc/x|making runtime directory /proc/x: No such file or directory: choose another place *
		1|--runtime-dir /dev/null|/dev/null is not a directory: set SHMQ_RUNTIME_DIR to a directory of your own
		2|--config /nope|reading the configuration /nope: No such file or directory: check the path
		1|--log /dev/null/x|opening the log /dev/null/x: Not a directory: check the path
		1|--foreground --log /nope/x|opening the log /nope/x: No such file or directory: check the path
	END
	shmq create t -q
	run -3 "$BIN/shmqd" --bus "$SHMQ_BUS" 3>&-
	[[ $output == "shmqd: bus \"$SHMQ_BUS\" is running already ("*"): use it, or choose another name" ]]
}

@test "a_misspelt_word_is_answered_with_the_one_that_is_near" {
	while IFS='|' read -r arguments words; do
		run -2 shmq $arguments
		[[ ${lines[0]} == "shmq: $words" ]] || fail "$arguments: ${lines[0]}"
	done <<-'END'
		pubb|unknown command "pubb": is it pub?
		publish|unknown command "publish": is it pub?
		remove|unknown command "remove": is it rm?
		help stst|unknown command "stst": is it stat?
		frobnicate|unknown command "frobnicate"
		log verfy|unknown command "log verfy": is it verify?
		create a --depht=4k|unknown option "--depht": is it --depth?
		--buss x ls|unknown option "--buss": is it --bus?
		cursor --buss x|unknown option "--buss": is it --bus?
		ls --frobnicate|unknown option "--frobnicate"
		ls -Z|unknown option "-Z"
		create a --retain- 1|ambiguous option "--retain-": is it --retain-for or --retain-cursors or --retain-keys?
	END
	run -2 shmq cursor --frobnicate
	has "$output" "(hint: shmq cursor --help)"
}

# SIZE is counted in powers of 1024, N in powers of 1000.
@test "help_and_manual_agree_on_the_kind_of_each_number" {
	for command in create rm move ls stat pub sub replay stop "log ls" "log dump" "log export" \
		"log verify" "log repair" "log import" "cursor ls" "cursor set" "cursor rm"; do
		shmq $command --help | sed -nE 's/^.*--([a-z-]+) (SIZE|N|TIME)( .*)?$/\1 \2/p'
	done | sort -u >kinds
	grep -qx 'depth SIZE' kinds
	while read -r option kind; do
		grep -Eq -e "^\.It Fl (. , )?-$option Ar ${kind,,}$" "$BATS_TEST_DIRNAME/../../man/shmq.1" ||
			fail "--$option is no ${kind,,} in shmq(1)"
	done <kinds
}

@test "shared_options_work_before_and_behind_the_command" {
	unset SHMQ_BUS
	shmq --bus one create t -q
	shmq create t -q --bus two
	[ "$(shmq ls -b one)" = t ]
	[ "$(shmq -b two ls)" = t ]
	shmq --bus one rm t
	[ -z "$(shmq --bus one ls)" ]
	[ "$(shmq --bus two ls)" = t ]
	shmq --bus one stop --force
	shmq --bus two stop --force
}

@test "the_environment_names_the_bus_and_the_option_wins" {
	shmq create t -q
	[ "$(shmq stat --json | json '$_->{bus}{name}')" = "$SHMQ_BUS" ]
	run -5 shmq --bus other --no-start ls
}

@test "without_a_name_the_bus_is_default" {
	SHMQ_BUS= shmq create t -q
	[ "$(SHMQ_BUS= shmq stat --json | json '$_->{bus}{name}')" = default ]
	[ "$(shmq --bus default ls)" = t ]
	shmq --bus default stop --force
}

@test "runtime_dir_option_names_the_place" {
	mkdir -m 700 other
	shmq --runtime-dir "$DIR/other" create t -q
	[ -S other/$SHMQ_BUS.sock ]
	[ ! -e "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.sock" ]
	shmq --runtime-dir "$DIR/other" stop --force
}

@test "invalid_bus_name_is_exit_2" {
	run -2 shmq --bus 'no/slash' ls
	is_said_well "$output"
	run -2 shmq --bus "$(printf 'x%.0s' {1..64})" ls
}

@test "no_start_without_supervisor_is_exit_5" {
	for command in 'create t' 'rm t' 'move t' ls stat 'pub t' 'sub t' stop; do
		run -5 shmq --no-start $command </dev/null
		is_said_well "$output"
	done
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
}

@test "supervisor_that_cannot_be_started_is_exit_5" {
	SHMQ_DAEMON=/nonexistent/shmqd run -5 shmq ls
	is_said_well "$output"
}

@test "full_output_device_is_exit_1" {
	[ -c /dev/full ] || skip "no /dev/full"
	run -1 sh -c "'$BIN/shmq' --help 2>&1 >/dev/full"
	is_said_well "$output"
}

@test "name_is_what_stat_calls_a_client" {
	shmq create t -q
	start reader sub t --name somebody
	start other sub t
	await '[ "$(subscribers t)" = 2 ]'
	run -0 shmq stat t
	has "$output" somebody
	has "$output" "shmq sub"
}
