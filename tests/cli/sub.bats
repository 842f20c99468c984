# SPDX-License-Identifier: MIT
load helper

@test "sub_prints_what_is_published_from_then_on" {
	shmq create t -q
	echo before | shmq pub t
	start reader sub t --count 2
	await '[ "$(subscribers t)" = 1 ]'
	printf 'one\ntwo\n' | shmq pub t
	finish reader
	[ "$(cat reader.out)" = "$(printf 'one\ntwo')" ]
}

@test "each_message_is_put_out_when_it_comes" {
	mkfifo input
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	"$BIN/shmq" pub t <input 3>&- &
	STARTED+=($!)
	exec 9>input
	echo one >&9
	await '[ "$(cat reader.out)" = one ]'
	echo two >&9
	await '[ "$(cat reader.out)" = "$(printf "one\ntwo")" ]'
	exec 9>&-
}

@test "from_oldest_prints_what_is_in_the_ring" {
	shmq create t -q
	seq 5 | shmq pub t
	[ "$(shmq sub t --from oldest --count 5)" = "$(seq 5)" ]
	shmq create full -q --depth 1024
	seq 5000 | shmq pub full
	shmq sub full --from oldest --timeout 0 >out 2>/dev/null || :
	[ "$(tail -n 1 out)" = 5000 ]
	[ "$(wc -l <out)" -le 1024 ]
	[ "$(wc -l <out)" -ge 512 ]
}

@test "from_seq_starts_there" {
	shmq create t -q
	seq 0 9 | shmq pub t
	first=$(shmq sub t --from oldest --count 1 --json | json '$_->{seq}')
	[ "$(shmq sub t --from $((first + 7)) --count 3)" = "$(seq 7 9)" ]
}

@test "from_seq_on_several_partitions_needs_one" {
	shmq create t -q --partitions 2
	run -2 shmq sub t --from 0
	is_said_well "$output"
	has "$output" --partition
	seq 4 | shmq pub t --partition 1
	[ "$(shmq sub t --from oldest --partition 1 --count 4)" = "$(seq 4)" ]
}

@test "partition_reads_only_that_one" {
	shmq create t -q --partitions 3
	for p in 0 1 2; do echo $p | shmq pub t --partition $p; done
	run -3 --separate-stderr shmq sub t --from oldest --partition 1 --timeout 0
	[ "$output" = 1 ]
	run -2 shmq sub t --partition 3
}

@test "timeout_is_exit_3" {
	shmq create t -q
	run -3 --separate-stderr shmq sub t --timeout 50ms
	[ -z "$output" ]
	is_said_well "$stderr"
	echo x | shmq pub t
	run -3 --separate-stderr shmq sub t --from oldest --timeout 50ms
	[ "$output" = x ]
}

@test "timeout_0_takes_what_is_there" {
	shmq create t -q
	seq 100 | shmq pub t
	run -3 --separate-stderr shmq sub t --from oldest --timeout 0
	[ "$output" = "$(seq 100)" ]
}

@test "count_reached_is_exit_0_whatever_the_timeout" {
	shmq create t -q
	seq 3 | shmq pub t
	run -0 shmq sub t --from oldest --count 3 --timeout 10ms
}

@test "end_ends_with_the_publishers" {
	shmq create t -q
	start reader sub t --end
	await '[ "$(subscribers t)" = 1 ]'
	seq 1000 | shmq pub t
	finish reader
	[ "$(cat reader.out)" = "$(seq 1000)" ]
}

@test "format_hex" {
	shmq create t -q
	printf '\001\377az\n\n' | shmq pub t
	[ "$(shmq sub t --from oldest --count 2 --format hex)" = "$(printf '01ff617a\n')" ]
}

@test "format_raw_puts_out_only_the_bytes" {
	shmq create t -q
	printf 'one\ntwo\n' | shmq pub t
	[ "$(shmq sub t --from oldest --count 2 --format raw)" = onetwo ]
}

@test "format_json_is_one_object_per_line_with_stable_keys" {
	shmq create t -q --tag --time
	printf 'k:text\n' | shmq pub t --key-sep : --type 9
	shmq sub t --from oldest --count 1 --format json >got
	[ "$(wc -l <got)" = 1 ]
	[ "$(json 'join " ", sort keys %$_' <got)" = "data key lost partition seq tag topic ts type" ]
	[ "$(json '"$_->{topic} $_->{partition} $_->{key} $_->{data} $_->{type} $_->{lost}"' <got)" = \
		"t 0 k text 9 0" ]
	[ "$(json '$_->{ts} > 1e18 ? "a time" : $_->{ts}' <got)" = "a time" ]
	json '$_->{tag}' <got | grep -Eq '^0x[0-9a-f]{16}$'
}

@test "format_json_gives_a_seq_beyond_signed_numbers_as_a_string" {
	"$BIN/shmqd" --bus "$SHMQ_BUS" --runtime-dir "$SHMQ_RUNTIME_DIR" \
		--first-seq 9223372036854775807 3>&-
	shmq create t -q
	seq 2 | shmq pub t
	shmq sub t --from oldest --count 2 --json >got
	grep -q '"seq":9223372036854775807,' got
	grep -q '"seq":"9223372036854775808",' got
}

@test "format_json_without_stamps_has_nulls" {
	shmq create t -q
	echo x | shmq pub t
	[ "$(shmq sub t --from oldest --count 1 --json |
		json 'join " ", map { defined $_ ? 1 : 0 } @$_{qw(ts tag key data)}')" = "0 0 0 1" ]
}

@test "format_json_gives_bytes_that_are_no_text_in_base64" {
	shmq create t -q
	printf 'gr\303\274n\n\377\376\n\377\n\377abc\n' | shmq pub t
	shmq sub t --from oldest --count 4 --json >got
	[ "$(json '$_->{data_base64} // "-"' <got)" = "$(printf -- '-\n//4=\n/w==\n/2FiYw==')" ]
	[ "$(head -n 1 got | json 'length $_->{data}')" = 4 ]
	printf '\377:x\n' | shmq pub t --key-sep :
	[ "$(shmq sub t --from oldest --count 5 --json | tail -n 1 | json '$_->{key_base64}')" = /w== ]
}

@test "print_key_and_print_topic_go_before_the_message" {
	shmq create t -q
	echo text | shmq pub t --key K
	[ "$(shmq sub t --from oldest --count 1 --print-key)" = "$(printf 'K\ttext')" ]
	[ "$(shmq sub t --from oldest --count 1 --print-key --print-topic)" = "$(printf 't\tK\ttext')" ]
	[ "$(shmq sub t --from oldest --count 1 --print-topic --format hex)" = "$(printf 't\t74657874')" ]
}

@test "several_topics_are_read_at_once" {
	for t in a b c; do shmq create $t -q; done
	start reader sub a b c --count 300 --print-topic
	for t in a b c; do await "[ \"\$(subscribers $t)\" = 1 ]"; done
	for t in a b c; do
		seq 100 | "$BIN/shmq" pub $t 3>&- &
		STARTED+=($!)
	done
	finish reader
	for t in a b c; do
		[ "$(sed -n "s/^$t	//p" reader.out)" = "$(seq 100)" ]
	done
}

@test "several_topics_with_end_end_with_the_last" {
	shmq create a -q
	shmq create b -q
	start reader sub a b --end
	await '[ "$(subscribers a)$(subscribers b)" = 11 ]'
	echo 1 | shmq pub a
	await 'grep -q 1 reader.out'
	! ended "$PID_reader"
	echo 2 | shmq pub b
	finish reader
	[ "$(cat reader.out)" = "$(printf '1\n2')" ]
}

@test "missing_topic_is_exit_5" {
	run -5 shmq sub t
	is_said_well "$output"
	shmq create a -q
	run -5 shmq sub a t
	has "$output" '"t"'
}

@test "losses_are_exit_4_and_exact" {
	shmq create t -q --depth 1024 --policy lossy
	start reader sub t --end --json
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$PID_reader"
	seq 5000 | shmq pub t
	kill -CONT "$PID_reader"
	finish reader 4
	lost=$(sed -n 's/^shmq: receiving from "t": lost \([0-9]*\) messages.*/\1/p' reader.err)
	[ "$((lost + $(wc -l <reader.out)))" = 5000 ]
	[ "$(tail -n 1 reader.out | json '$_->{data}')" = 5000 ]
	[ "$(head -n 1 reader.out | json '$_->{lost}')" = "$lost" ]
	grep -q "^shmq: received from \"t\": $(wc -l <reader.out) messages, $lost lost$" reader.err
}

@test "evicted_subscriber_is_exit_4" {
	shmq create t -q --depth 1024 --policy evict --evict-after 20ms
	start reader sub t --end
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$PID_reader"
	seq 5000 | shmq pub t
	kill -CONT "$PID_reader"
	finish reader 4
	has "$(cat reader.err)" evicted
}

@test "removed_topic_is_exit_5" {
	shmq create t -q
	seq 3 | shmq pub t
	start reader sub t --from oldest
	await '[ "$(wc -l <reader.out)" = 3 ]'
	shmq rm --force t
	finish reader 5
	is_said_well "$(cat reader.err)"
}

@test "sigterm_ends_it_in_order" {
	shmq create t -q
	seq 10 | shmq pub t
	start reader sub t --from oldest -v
	await '[ "$(asleep t)" = 1 ]'
	kill "$PID_reader"
	finish reader
	[ "$(cat reader.out)" = "$(seq 10)" ]
	has "$(cat reader.err)" "10 messages"
	await '[ "$(subscribers t)" = 0 ]'
}

# Whole seconds until the futex call in which a child of this shell sleeps ends by itself.
sleeps_for() { # PID
	local timeout
	read -r _ _ _ _ timeout _ <"/proc/$1/syscall" || return 1
	perl -MTime::HiRes=clock_gettime,CLOCK_MONOTONIC -e '
		sysseek(STDIN, hex(shift), 0) && sysread(STDIN, $_, 16) == 16 or exit 1;
		printf("%d\n", unpack("q") - clock_gettime(CLOCK_MONOTONIC))' "$timeout" <"/proc/$1/mem"
}

# Not for a tenth of a second, to look what has become: the back-stop of all that sleep
# comes after seven at least.
@test "who_waits_sleeps_until_something_comes" {
	shmq create t -q
	start reader sub t
	await '[ "$(asleep t)" = 1 ]'
	[ -r "/proc/$PID_reader/syscall" ] && : <"/proc/$PID_reader/mem" || skip "/proc shows no calls"
	await '[ "$(sleeps_for "$PID_reader")" -ge 2 ]'
	kill "$PID_reader"
	finish reader
}

@test "sigint_ends_it_in_order" {
	shmq create t -q
	perl -e '$SIG{INT} = "DEFAULT"; exec @ARGV' "$BIN/shmq" sub t >int.out 2>int.err 3>&- &
	STARTED+=($!) PID_int=$!
	await '[ "$(asleep t)" = 1 ]'
	kill -INT "$PID_int"
	finish int
}

@test "sigterm_after_a_loss_is_exit_4" {
	shmq create t -q --depth 1024 --policy lossy
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$PID_reader"
	seq 5000 | shmq pub t
	kill -CONT "$PID_reader"
	await '[ "$(tail -n 1 reader.out)" = 5000 ]'
	await '[ "$(asleep t)" = 1 ]'
	kill "$PID_reader"
	finish reader 4
	grep -q '^shmq: received from "t": .* lost$' reader.err
}

@test "sigterm_in_a_stream_ends_at_a_whole_message" {
	shmq create t -q --policy lossy
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	yes 0123456789 | "$BIN/shmq" pub t >/dev/null 2>&1 3>&- &
	STARTED+=($!)
	await '[ "$(wc -l <reader.out)" -gt 1000 ]'
	kill "$PID_reader"
	await "ended $PID_reader"
	[ "$(sort -u reader.out)" = 0123456789 ]
}

@test "a_reader_of_its_output_may_leave" {
	shmq create t -q --depth 64k
	seq 50000 | shmq pub t
	shmq sub t --from oldest --count 50000 2>err | head -n 1 >out
	[ "${PIPESTATUS[0]}" = 0 ]
	[ "$(cat out)" = 1 ]
	[ ! -s err ]
}

@test "output_that_cannot_be_written_is_exit_1" {
	[ -c /dev/full ] || skip "no /dev/full"
	shmq create t -q
	seq 10 | shmq pub t
	run -1 sh -c "'$BIN/shmq' sub t --from oldest --count 10 2>&1 >/dev/full"
	is_said_well "$output"
	run -1 sh -c "'$BIN/shmq' sub t --from oldest 2>&1 >/dev/full"
}

@test "verbose_sums_up" {
	shmq create t -q
	seq 10 | shmq pub t
	run -0 --separate-stderr shmq sub t --from oldest --count 10 -v
	[ "$stderr" = 'shmq: received from "t": 10 messages, 0 lost' ]
}

@test "wait_modes_are_taken" {
	shmq create t -q
	for wait in adaptive spin yield sleep; do
		start reader sub t --count 1 --wait $wait
		await '[ "$(subscribers t)" = 1 ]'
		echo $wait | shmq pub t
		finish reader
		[ "$(cat reader.out)" = $wait ]
		await '[ "$(subscribers t)" = 0 ]'
	done
}

@test "messages_of_all_sizes_come_out_of_lossy_topics" {
	shmq create t -q --policy lossy --max 1M
	perl -e 'print "x" x $_, "\n" for 0, 1, 112, 113, 5000, 1000000, 3' >lines
	shmq pub t <lines
	shmq sub t --from oldest --count 7 >out
	cmp lines out
}

@test "a_pattern_reads_topics_that_come_from_their_first_message_on" {
	shmq create md.nyse.AAPL -q
	start reader sub 'md.*.AAPL' --count 4 --print-topic
	await '[ "$(subscribers md.nyse.AAPL)" = 1 ]'
	for topic in md.x.AAPL md.x.MSFT md.x.y.AAPL; do
		shmq create $topic -q
		seq 2 | shmq pub $topic
	done
	await '[ "$(wc -l <reader.out)" = 2 ]'
	shmq rm md.x.AAPL
	seq 3 4 | shmq pub md.nyse.AAPL
	finish reader
	[ "$(cat reader.out)" = "$(printf 'md.x.AAPL\t%s\n' 1 2; printf 'md.nyse.AAPL\t%s\n' 3 4)" ]
}

@test "of_a_pattern_each_topic_has_its_summary" {
	shmq create l.0 -q
	start reader sub 'l.#' --count 15 --verbose --json
	await '[ "$(subscribers l.0)" = 1 ]'
	for topic in l.a l.b.c; do
		shmq create $topic -q
	done
	seq 10 | shmq pub l.a
	seq 5 | shmq pub l.b.c
	finish reader
	grep -qF 'received from "l.a": 10 messages, 0 lost' reader.err
	grep -qF 'received from "l.b.c": 5 messages, 0 lost' reader.err
	[ "$(json '$_->{topic}' <reader.out | sort | uniq -c | xargs)" = "10 l.a 5 l.b.c" ]
}

@test "a_pattern_takes_no_place_of_one_topic" {
	run -2 shmq sub 'a.*' --from 5
	is_said_well "$output"
	run -2 shmq sub 'a.*' --partition 1
	is_said_well "$output"
	run -2 shmq sub 'a.*' --to 5
	is_said_well "$output"
	run -2 shmq sub 'a.b*'
	is_said_well "$output"
	has "$output" "whole words"
}

@test "sub_conflates_by_key" {
	shmq create t -q --depth 64k
	for i in $(seq 2000); do echo "a:$i"; [ $((i % 500)) = 0 ] && echo "b:$i"; done >prices
	start slow sub t --conflate --print-key --end -v
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$(pid_of slow)"
	shmq pub t --key-sep : <prices
	kill -CONT "$(pid_of slow)"
	finish slow
	[ "$(grep -c ^a slow.out)" -lt 2000 ]
	[ "$(grep ^a slow.out | tail -n 1)" = "$(printf 'a\t2000')" ]
	[ "$(grep ^b slow.out | tail -n 1)" = "$(printf 'b\t2000')" ]
	perl -ne '/: (\d+) messages?, 0 lost, (\d+) conflated/ and $1 + $2 == 2004 and $ok = 1;
		END { exit !$ok }' slow.err
	run -2 shmq sub t --conflate --cursor c
}
