# SPDX-License-Identifier: MIT
# Options that no other test has a use for, and that there is a test of each.
load helper

@test "each_option_of_each_command_is_in_a_test" {
	local command words line out=
	cat "$BATS_TEST_DIRNAME"/*.bats | sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' |
		sed 's/\bserve /shmq reply svc /; s/\bdurable /shmq create /' >tests
	while read -r command; do
		grep -E "(shmq|start [a-z]+|BIN/shmq\")( -[^ ]+( [^ ]+)?)? $command " tests >lines || fail "no test of $command"
		shmq $command --help | sed '/^Options of all/,$d' |
			sed -n 's/^  \(-\(.\), \|    \)--\([a-z-]*\).*/\3 \2/p' >options
		while read -r words letter; do
			grep -Eq -e "--$words\b${letter:+| -[a-z]*$letter}" lines || out+="$command --$words; "
		done <options
	done < <(for c in $(shmq --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
		case $c in
		log | cursor) shmq $c --help | sed -n "/^Commands:/,/^\$/s/^  \([a-z]*\) .*/$c \1/p" ;;
		*) echo $c ;;
		esac
	done)
	[ -z "$out" ] || fail "$out"
}

@test "what_is_read_is_of_one_partition_or_until_publishers_leave" {
	shmq create t -q --partitions 2 --log block --time
	printf 'a\nb\nc\nd\n' | shmq pub t --lines
	one=$(shmq trace t --from oldest --partition 1 --timeout 0 --json | json '"$_->{partition}:$_->{seq}"' | paste -sd' ') || :
	[ "$one" = "1:0 1:1" ] || fail "$one"
	[ "$(shmq replay t --partition 0 --to now --speed flat | paste -sd' ')" = "a c" ]
	run -0 --separate-stderr shmq replay t --end --speed flat --verbose
	[ ${#lines[@]} = 4 ]
	has "$stderr" '4 messages, 0 lost'
	run -2 shmq trace t --partition 2
	run -2 --separate-stderr shmq replay t --partition 2 --to now
	is_said_well "$stderr"
}

@test "logs_and_cursors_are_where_they_are_said_to_be" {
	shmq create t -q --partitions 2 --log block --tag
	printf 'k one\nother two\n' | shmq pub t --key-sep ' ' --confirm written
	shmq pub t three --tag 7 --partition 1 --confirm written
	shmq stop
	mv data elsewhere
	said=$(shmq log dump t --data-dir elsewhere --key k --json | json '$_->{data}')
	[ "$said" = one ] || fail "$said"
	[ "$(shmq log export t --data-dir elsewhere --key k | json '$_->{data}')" = one ]
	[ "$(shmq log dump t -d elsewhere --tag 7 --json | json '$_->{data}')" = three ]
	[ "$(shmq log dump t -d elsewhere --count 2 --json | wc -l)" = 2 ]
	shmq log dump t -d elsewhere --partition 1 --from 0 --to 1 --json >out
	[ "$(json '"$_->{partition} $_->{seq}"' <out)" = "1 0" ] || fail "$(cat out)"
	shmq log verify t --data-dir elsewhere
	run -0 shmq log repair t --data-dir elsewhere --partition 0 --quiet
	[ -z "$output" ]
	shmq cursor set t risk --data-dir elsewhere --from oldest
	shmq cursor ls --data-dir elsewhere | grep -q risk
	shmq cursor rm t risk --data-dir elsewhere
	! shmq cursor ls --data-dir elsewhere | grep -q risk
	run -5 shmq log dump t
	run -5 shmq cursor rm t risk --data-dir elsewhere
}

@test "what_was_imported_is_told_of" {
	shmq create t -q
	printf '{"data":"a"}\n{"data":"b"}\n{"data":"c"}\n' >three
	run -0 --separate-stderr shmq log import t three --batch 2 --verbose
	has "$stderr" '3 sent, 0 dropped'
	[ "$(head_of t)" = 3 ]
}

@test "what_became_of_requests_is_told_as_json" {
	shmq create svc -q --shared
	start server reply svc --exec 'grep -v no' --json --count 2
	await '[ "$(subscribers svc)" = 1 ]'
	[ "$(shmq request svc yes --format hex)" = 7965730a ]
	run -1 shmq request svc no
	finish server
	[ "$(json 'ref' <server.out | paste -sd' ')" = "HASH HASH" ] || fail "$(cat server.out)"
}

@test "a_supervisor_that_does_not_end_in_time_is_exit_3" {
	shmq create t -q
	parent=$(shmq stat --json | json '$_->{bus}{parent_pid}')
	kill -STOP "$parent"
	run -3 --separate-stderr shmq stop --timeout 50ms
	is_said_well "$stderr"
	kill -CONT "$parent"
	await '! pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"'
}

@test "placement_is_decided_as_for_another_machine" {
	"$BIN/shmqd" --bus "$SHMQ_BUS" --topology 'synthetic:node:2 pu:1' 2>daemon.err 3>&- &
	await 'shmq --no-start ls 2>/dev/null'
	shmq create t -q --node 1 --dry-run
	run -7 --separate-stderr shmq create t --node 2
	has "$stderr" 'choose from 0'
	shmq stop
	wait
	run -1 --separate-stderr "$BIN/shmqd" --bus "$SHMQ_BUS" --topology nonsense
	has "$stderr" 'topology nonsense: it takes'
}
