# SPDX-License-Identifier: MIT
load helper

@test "trace_tells_when_a_message_came_and_from_whom" {
	mkfifo input
	shmq create t -q --policy lossy --time
	start tracer trace t --count 2
	await '[ "$(subscribers t)" = 1 ]'
	"$BIN/shmq" pub t --name writer --key AAPL --type 7 <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	printf 'hello\nworld!\n' >&9
	finish tracer
	exec 9>&-
	finish pub
	[ "$(wc -l <tracer.out)" = 3 ]
	head -n 1 tracer.out | grep -Eq '^PUBLISHED +RECEIVED +DELTA +PART:SEQ +TYPE +LENGTH +PUBLISHER +KEY$'
	time='[0-9:]{8}\.[0-9]{9}Z'
	sed -n 2p tracer.out | grep -Eq "^$time +$time +[0-9.]+ [num]?s +0:0 +7 +5 +writer\($PID_pub\) +AAPL$"
	sed -n 3p tracer.out | grep -Eq "^$time +$time +[0-9.]+ [num]?s +0:1 +7 +6 +writer\($PID_pub\) +AAPL$"
}

@test "trace_as_json" {
	shmq create t -q --policy lossy --time
	shmq create plain -q --policy lossy
	start tracer trace t --json --count 1
	await '[ "$(subscribers t)" = 1 ]'
	echo hello | shmq pub t
	finish tracer
	[ "$(json 'join " ", sort keys %$_' <tracer.out)" = \
		"delta_ns key length lost partition published_ns publisher received_ns seq topic type" ]
	[ "$(json '$_->{received_ns} - $_->{published_ns} == $_->{delta_ns} ? 1 : 0' <tracer.out)" = 1 ]
	[ "$(json '"@{$_}{qw(topic partition seq length type lost)}"' <tracer.out)" = "t 0 0 5 0 0" ]
	[ "$(json '$_->{key} // "null"' <tracer.out)" = null ]
	[ "$(json '$_->{publisher}{client} > 0 ? 1 : 0' <tracer.out)" = 1 ]
	start tracer trace plain --json --count 1
	await '[ "$(subscribers plain)" = 1 ]'
	echo hello | shmq pub plain
	finish tracer
	[ "$(json '($_->{published_ns} // "null") . ($_->{delta_ns} // "null")' <tracer.out)" = nullnull ]
}

@test "trace_holds_no_publisher_and_tells_what_it_lost" {
	shmq create t -q --policy lossy --depth 1024
	start tracer trace t
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$PID_tracer"
	seq 5000 | shmq pub t --timeout 10s
	[ "$(head_of t)" = 5000 ]
	kill -CONT "$PID_tracer"
	await 'grep -q " 0:4999 " tracer.out'
	kill -TERM "$PID_tracer"
	finish tracer 4
	grep -q 'shmq: tracing "t": lost ' tracer.err
}

@test "trace_ends_as_it_is_asked_to" {
	shmq create t -q --policy lossy
	run --separate-stderr -3 shmq trace t --timeout 0
	is_said_well "$stderr"
	run --separate-stderr -3 shmq trace t --timeout 10ms
	seq 3 | shmq pub t
	run --separate-stderr -3 shmq trace t --from oldest --timeout 0
	[ "${#lines[@]}" = 4 ]
	run --separate-stderr -5 shmq trace missing
	run --separate-stderr -2 shmq trace
	has "$stderr" "trace takes one topic, not 0"
	start tracer trace t
	await '[ "$(asleep t)" = 1 ]'
	kill -TERM "$PID_tracer"
	finish tracer 0
}

@test "trace_gates_publishers_only_if_it_is_told_to" {
	shmq create t -q
	run --separate-stderr -2 shmq trace t
	has "$stderr" "--gate has publishers wait for it instead"
	start tracer trace t --gate --count 3
	await '[ "$(subscribers t)" = 1 ]'
	seq 3 | shmq pub t
	finish tracer
	[ "$(wc -l <tracer.out)" = 4 ]
}

@test "trace_names_the_topic_of_each_message_of_a_pattern" {
	shmq create md.a -q --policy lossy
	shmq create md.b -q --policy evict
	shmq pub md.a x
	shmq pub md.b y
	run --separate-stderr -3 shmq trace 'md.*' --from oldest --timeout 0
	grep -Eq ' PUBLISHER +TOPIC +KEY$' <<<"$output"
	grep -Eq ' md\.a +-$' <<<"$output"
	grep -Eq ' md\.b +-$' <<<"$output"
	shmq trace 'md.*' --from oldest --count 2 --json >out
	[ "$(json '$_->{topic}' <out | sort | tr '\n' ' ')" = "md.a md.b " ]
}

@test "trace_hints_at_what_it_was_refused_for" {
	shmq create t -q --policy lossy --partitions 2
	run --separate-stderr -2 shmq trace t --from 5
	has "$stderr" "a seq counts in one partition: name it with --partition"
	run --separate-stderr -2 shmq trace t --partition 7
	[[ $stderr != *--gate* ]]
	shmq create blocks -q
	run --separate-stderr -2 shmq sub blocks --latency
	has "$stderr" "(hint: create it with --time)"
	run --separate-stderr -2 shmq sub 'bloc.#' --latency
	has "$stderr" "(hint: name its topics)"
}

# Ids of clients are given out again, once 64 have rested.
@test "trace_takes_no_publisher_for_the_one_who_had_his_id_before" {
	mkfifo input
	shmq create t -q --policy lossy
	start tracer trace t --json --count 2
	await '[ "$(asleep t)" = 1 ]'
	for i in {1..64}; do shmq ls; done >/dev/null
	"$BIN/shmq" pub t --name first <input 3>&- &
	STARTED+=($!)
	exec 9>input
	echo x >&9
	await '[ "$(wc -l <tracer.out)" = 1 ]'
	exec 9>&-
	wait $!
	for i in {1..63}; do shmq ls; done >/dev/null
	"$BIN/shmq" pub t --name second <input 3>&- &
	STARTED+=($!)
	exec 9>input
	echo x >&9
	finish tracer
	exec 9>&-
	[ "$(json '$_->{publisher}{client}' <tracer.out | uniq | wc -l)" = 1 ]
	[ "$(json '$_->{publisher}{name}' <tracer.out | tr '\n' ' ')" = 'first second ' ]
}
