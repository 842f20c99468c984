# SPDX-License-Identifier: MIT
load helper

# A subscriber that is attached and does not read, on TOPIC.
start_stuck() {
	start stuck sub "$1" --end
	await "[ \"\$(subscribers $1)\" = 1 ]"
	kill -STOP "$PID_stuck"
}

received() { # what stands in the ring, as JSON lines
	shmq sub "$1" --from oldest --timeout 0 --format json 2>/dev/null || :
}

@test "pub_publishes_lines" {
	shmq create t -q
	printf 'one\ntwo\n\nlast without newline' | shmq pub t
	[ "$(received t | json '$_->{data}')" = "$(printf 'one\ntwo\n\nlast without newline')" ]
}

@test "operands_are_messages" {
	shmq create t --tag -q
	seq 3 | shmq pub t one 'and two' '' -- --three
	[ "$(shmq sub t --from oldest -t 0 || :)" = $'one\nand two\n\n--three' ]
	shmq pub t AAPL=1 MSFT --key-sep = --tag 7
	[ "$(shmq sub t --from 4 -c 2 --print-key)" = $'AAPL\t1\n\tMSFT' ]
	run -1 shmq pub t "$(printf '%096d' 0)" "$(printf '%0200d' 0)" "$(printf '%096d' 0)"
	has "$output" 'message 2 has 200 bytes'
	[ "$(head_of t)" = 7 ]
}

@test "pub_of_nothing_publishes_nothing" {
	shmq create t -q
	shmq pub t </dev/null
	[ "$(head_of t)" = 0 ]
}

@test "pub_takes_lines_of_any_length" {
	shmq create t -q --max 4M
	perl -e 'print "x" x 3000000, "\n", "y" x 700000, "\n"' >lines
	shmq pub t <lines
	shmq sub t --from oldest --count 2 >out
	cmp lines out
}

@test "pub_lines_may_hold_any_byte" {
	shmq create t -q
	perl -e 'print join "", map { chr } 0..9, 11..31, 127, 128, 200..255' >line
	shmq pub t <line
	shmq sub t --from oldest --count 1 --format raw >out
	cmp line out
}

@test "pub_publishes_each_line_when_it_comes" {
	mkfifo input
	shmq create t -q
	"$BIN/shmq" pub t <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	echo one >&9
	await '[ "$(head_of t)" = 1 ]'
	echo two >&9
	await '[ "$(head_of t)" = 2 ]'
	exec 9>&-
	finish pub
}

@test "frames_go_through_unchanged" {
	shmq create t -q --max 300k
	perl -e 'srand 7; for (0..99, 4096, 70000, 300000) {
		my $d = join "", map { chr int rand 256 } 1..$_; print pack("V", length $d), $d }' >frames
	shmq pub t --frames <frames
	shmq sub t --from oldest --count 103 --format frames >out
	cmp frames out
}

@test "input_that_ends_inside_a_frame_is_exit_1" {
	shmq create t -q
	printf '\003\000\000\000abc\005\000\000\000ab' >cut
	run -1 shmq pub t --frames <cut
	is_said_well "$output"
	has "$output" "frame 2"
	[ "$(received t | json '$_->{data}')" = abc ]
	printf '\003\000' >cut
	run -1 shmq pub t --frames <cut
}

@test "files_are_one_message_each" {
	shmq create t -q --max 6M
	head -c 5000000 /dev/urandom >big
	printf 'with\nnewlines\n' >small
	: >empty
	printf 'from stdin\n' >input
	shmq pub t --file big small - empty <input
	shmq sub t --from oldest --count 4 --format frames >out
	perl -e 'local $/; for (@ARGV) { open F, "<", $_; my $d = <F> // ""; print pack("V", length $d), $d }' \
		big small input empty >want
	cmp want out
}

@test "a_file_that_is_missing_is_exit_1" {
	shmq create t -q
	run -1 shmq pub t --file nothing
	is_said_well "$output"
	has "$output" '"nothing"'
	run -1 shmq pub t --file .
	is_said_well "$output"
}

@test "key_goes_with_each_message" {
	shmq create t -q
	seq 2 | shmq pub t --key AAPL
	[ "$(received t | json '$_->{key}')" = "$(printf 'AAPL\nAAPL')" ]
}

@test "key_sep_takes_the_key_from_the_line" {
	shmq create t -q
	printf 'a:1\nb:2:3\nnone\n:empty\n' | shmq pub t --key-sep :
	[ "$(received t | json '($_->{key} // "-") . "=" . $_->{data}')" = \
		"$(printf 'a=1\nb=2:3\n-=none\n-=empty')" ]
	printf 'k\tv\n' | shmq pub t --key-sep '\t'
	[ "$(received t | tail -n 1 | json '"$_->{key}=$_->{data}"')" = k=v ]
}

@test "messages_of_one_key_share_a_partition" {
	shmq create t -q --partitions 4
	for i in $(seq 50); do printf '%s:%s\n' $((i % 5)) "$i"; done | shmq pub t --key-sep :
	[ "$(received t | json '"$_->{key} $_->{partition}"' | sort -u | wc -l)" = 5 ]
}

@test "partition_is_where_it_goes" {
	shmq create t -q --partitions 4
	seq 3 | shmq pub t --partition 2
	[ "$(received t | json '$_->{partition}' | sort -u)" = 2 ]
	echo x >x
	run -2 shmq pub t --partition 4 <x
	has "$output" "4 partitions"
	has "$output" "--partition 4"
	is_said_well "$output"
}

@test "without_key_partitions_take_turns" {
	shmq create t -q --partitions 4
	seq 8 | shmq pub t
	[ "$(received t | json '$_->{partition}' | sort | uniq -c | awk '{ print $1 }' | sort -u)" = 2 ]
}

@test "type_and_tag_arrive" {
	shmq create t -q --tag
	echo x | shmq pub t --type 65535 --tag 0xfedcba9876543210
	received t >got
	[ "$(json '$_->{type}' <got)" = 65535 ]
	[ "$(json '$_->{tag}' <got)" = 0xfedcba9876543210 ]
	echo x | shmq pub t --tag 7
	[ "$(received t | tail -n 1 | json '$_->{tag}')" = 0x0000000000000007 ]
}

@test "tag_on_a_topic_without_tags_is_exit_2" {
	shmq create t -q
	echo x >x
	run -2 shmq pub t --tag 7 <x
	is_said_well "$output"
	[ "$(head_of t)" = 0 ]
}

@test "rate_is_kept" {
	shmq create t -q
	seq 21 | shmq pub t --rate 100/s --json >sum
	[ "$(json '$_->{seconds} >= 0.199 ? "slow" : $_->{seconds}' <sum)" = slow ]
	[ "$(json '$_->{sent}' <sum)" = 21 ]
}

@test "every_batch_size_sends_everything_in_order" {
	shmq create t -q --depth 4k
	for batch in 1 2 7 64 1000 65536; do
		seq 3000 | shmq pub t --batch $batch
		[ "$(received t | json '$_->{data}' | tail -n 3000 | cksum)" = "$(seq 3000 | cksum)" ]
	done
}

@test "a_batch_does_not_hold_back_what_is_there" {
	mkfifo input
	shmq create t -q
	"$BIN/shmq" pub t --batch 1000 <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	echo one >&9
	await '[ "$(head_of t)" = 1 ]'
	exec 9>&-
	finish pub
}

@test "json_sums_up" {
	shmq create t -q
	printf 'a\nbcd\n' | shmq pub t --json >sum
	[ "$(json 'join " ", sort keys %$_' <sum)" = "bytes dropped rate seconds sent topic" ]
	[ "$(json '"$_->{topic} $_->{sent} $_->{dropped} $_->{bytes}"' <sum)" = "t 2 0 4" ]
}

@test "verbose_sums_up_on_stderr" {
	shmq create t -q
	run -0 --separate-stderr shmq pub t -v < <(seq 5)
	[ -z "$output" ]
	[[ $stderr == 'shmq: published to "t": 5 sent, 0 dropped, 5 B in '* ]]
	run -0 --separate-stderr shmq pub t < <(seq 5)
	[ -z "$stderr" ]
}

@test "progress_is_shown_on_a_terminal_only" {
	command -v script >/dev/null || skip "no script(1)"
	shmq create t -q
	seq 30 | shmq pub t --rate 50/s 2>err
	[ ! -s err ]
	script -qec "seq 30 | '$BIN/shmq' pub t --rate 50/s" screen >/dev/null 3>&-
	grep -q 't: [0-9]* sent, 0 dropped' screen
}

# screen COMMAND: run it on a terminal of its own, which is in the file screen.
screen() {
	command -v script >/dev/null || skip "no script(1)"
	: >screen
	script -qefc "$1" screen >/dev/null </dev/null 3>&- &
	STARTED+=($!) PID_screen=$!
}

@test "progress_says_who_is_waited_for" {
	shmq create t -q --depth 1024
	start_stuck t
	seq 2000 >lines
	screen "'$BIN/shmq' pub t <lines"
	await "grep -q 'waiting for [^;]*(pid $PID_stuck)' screen"
	kill -CONT "$PID_stuck"
	await "ended $PID_screen"
	finish stuck
	screen "'$BIN/shmq' pub t --wait-subscribers 1 <lines"
	await "grep -q 'waiting for subscribers' screen"
}

@test "progress_shows_a_large_file_while_it_is_read" {
	shmq create t -q --max 4M
	mkfifo file
	screen "'$BIN/shmq' pub t --file file </dev/null"
	exec 9>file
	head -c 2M /dev/zero >&9
	await "grep -q '2 MiB of the next read' screen"
	exec 9>&-
	await "ended $PID_screen"
	[ "$(head_of t)" = 1 ]
}

@test "create_makes_a_missing_topic_by_the_options_given" {
	echo 'a longer line' | shmq pub t --create --depth 2048 --max 1k --policy lossy --tag 5
	shmq stat t --json >t
	[ "$(json '"$_->{depth} $_->{max_message_bytes} $_->{policy} $_->{tag}"' <t)" = \
		"2048 1024 lossy 1" ]
	echo again | shmq pub t --create --depth 4096
	[ "$(head_of t)" = 2 ]
}

@test "missing_topic_is_exit_5" {
	run -5 shmq pub t </dev/null
	is_said_well "$output"
	has "$output" --create
}

@test "second_publisher_of_an_exclusive_topic_is_exit_6" {
	mkfifo input
	shmq create t -q
	"$BIN/shmq" pub t <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	echo one >&9
	await '[ "$(head_of t)" = 1 ]'
	run -6 shmq pub t </dev/null
	is_said_well "$output"
	exec 9>&-
	finish pub
	shmq pub t </dev/null
}

@test "shared_topics_take_many_publishers" {
	shmq create t -q --shared
	for i in 1 2 3 4; do
		seq 500 | "$BIN/shmq" pub t --key $i 3>&- &
		STARTED+=($!)
	done
	for pid in "${STARTED[@]}"; do wait "$pid"; done
	received t >got
	[ "$(wc -l <got)" = 2000 ]
	for i in 1 2 3 4; do
		[ "$(json "\$_->{key} == $i ? \$_->{data} : ()" <got | grep . | cksum)" = "$(seq 500 | cksum)" ]
	done
}

@test "message_larger_than_the_topic_is_exit_1_and_named" {
	shmq create t -q
	(echo short && printf 'x%.0s' {1..200} && echo) >lines
	run -1 shmq pub t <lines
	is_said_well "$output"
	has "$output" "line 2"
	has "$output" "112"
	[ "$(head_of t)" = 1 ]
	printf '\377\377\377\377' >frame
	run -1 shmq pub t --frames <frame
	run -1 shmq pub t --file lines
	run -1 shmq pub t </dev/zero
}

@test "full_topic_that_drops_is_exit_4_and_counts" {
	shmq create t -q --depth 1024 --policy drop-new
	start_stuck t
	seq 2000 >lines
	run -4 --separate-stderr shmq pub t --json <lines
	[ "$(json '"$_->{sent} $_->{dropped}"' <<<"$output")" = "1024 976" ]
	has "$stderr" "976 of 2000"
	has "$stderr" "pid $PID_stuck"
	kill -CONT "$PID_stuck"
	finish stuck
	[ "$(cat stuck.out)" = "$(seq 1024)" ]
}

@test "timeout_0_drops_where_the_topic_blocks" {
	shmq create t -q --depth 1024
	start_stuck t
	seq 2000 >lines
	run -4 --separate-stderr shmq pub t --timeout 0 --json <lines
	[ "$(json '"$_->{sent} $_->{dropped}"' <<<"$output")" = "1024 976" ]
}

@test "timeout_of_a_publish_is_exit_3_and_names_the_subscriber" {
	shmq create t -q --depth 1024
	start_stuck t
	seq 2000 >lines
	run -3 shmq pub t --timeout 50ms <lines
	is_said_well "$output"
	has "$output" "pid $PID_stuck"
	[ "$(head_of t)" = 1024 ]
}

@test "the_topics_own_timeout_counts_without_option" {
	shmq create t -q --depth 1024 --block-timeout 50ms
	start_stuck t
	seq 2000 >lines
	run -3 shmq pub t <lines
}

@test "block_waits_and_loses_nothing" {
	shmq create t -q --depth 1024
	start_stuck t
	seq 5000 >lines
	"$BIN/shmq" pub t <lines >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	await '[ "$(head_of t)" = 1024 ]'
	kill -CONT "$PID_stuck"
	finish pub
	finish stuck
	cmp lines stuck.out
}

@test "wait_subscribers_begins_when_they_are_there" {
	shmq create t -q
	seq 100 >lines
	"$BIN/shmq" pub t --wait-subscribers 2 <lines >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	start one sub t --end
	start two sub t --end
	finish pub
	finish one
	finish two
	cmp lines one.out
	cmp lines two.out
}

# A subscriber counted before its start was fixed missed what came between.
@test "nothing_published_after_wait_subscribers_is_missed" {
	seq 30000 >lines
	for round in $(seq 20); do
		shmq create t.$round -q --depth 64k
		start reader sub t.$round --end
		shmq pub t.$round --wait-subscribers 1 <lines
		finish reader
		cmp lines reader.out
	done
}

@test "wait_subscribers_that_do_not_come_is_exit_3" {
	shmq create t -q
	echo x >x
	run -3 shmq pub t --wait-subscribers 1 --timeout 50ms <x
	is_said_well "$output"
	[ "$(head_of t)" = 0 ]
}

@test "flush_waits_until_all_is_read" {
	shmq create t -q
	start_stuck t
	seq 10 >lines
	run -3 shmq pub t --flush --timeout 50ms <lines
	is_said_well "$output"
	has "$output" "pid $PID_stuck"
	kill -CONT "$PID_stuck"
	shmq create u -q
	start reader sub u --count 10
	await '[ "$(subscribers u)" = 1 ]'
	shmq pub u --flush <lines
	finish reader
}

@test "flush_without_subscribers_does_not_wait" {
	shmq create t -q
	seq 10 | shmq pub t --flush
}

@test "signal_while_reading_input_ends_in_order" {
	mkfifo input
	shmq create t -q
	"$BIN/shmq" pub t <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	echo one >&9
	await '[ "$(head_of t)" = 1 ]'
	kill "$PID_pub"
	finish pub 1
	exec 9>&-
	has "$(cat pub.err)" "interrupted after 1 message"
}

@test "signal_while_waiting_for_room_ends_it" {
	shmq create t -q --depth 1024
	start_stuck t
	seq 2000 >lines
	"$BIN/shmq" pub t <lines >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	await '[ "$(head_of t)" = 1024 ]'
	kill "$PID_pub"
	finish pub 1
	has "$(cat pub.err)" interrupted
	await '[ "$(shmq stat t --json | json "\$_->{publishers}")" = 0 ]'
}

@test "no_start_is_enough_when_a_supervisor_runs" {
	shmq create t -q
	echo x | shmq --no-start pub t
	[ "$(head_of t)" = 1 ]
}

@test "wait_modes_are_taken" {
	shmq create t -q
	for wait in adaptive spin yield sleep; do
		echo $wait | shmq pub t --wait $wait
	done
	[ "$(head_of t)" = 4 ]
}
