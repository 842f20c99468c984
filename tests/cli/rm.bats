# SPDX-License-Identifier: MIT
load helper

@test "rm_removes_topics" {
	for t in a b c; do shmq create $t -q; done
	run -0 shmq rm a c
	[ -z "$output" ]
	[ "$(shmq ls)" = b ]
}

@test "rm_of_a_missing_topic_is_exit_5_and_the_others_go" {
	shmq create a -q
	shmq create b -q
	run -5 shmq rm a nothing b
	is_said_well "$output"
	has "$output" '"nothing"'
	[ -z "$(shmq ls)" ]
}

@test "rm_as_json_tells_of_each_topic" {
	shmq create a -q
	run -5 --separate-stderr shmq rm a nothing --json
	[ "$(json '"$_->{topic} $_->{removed}"' <<<"$output")" = "$(printf 'a 1\nnothing 0')" ]
	[ "$(json 'join " ", sort keys %$_' <<<"${lines[0]}")" = "removed topic" ]
	[ -n "$stderr" ]
}

@test "rm_of_an_invalid_name_is_exit_2" {
	run -2 shmq rm 'a b'
}

@test "rm_of_a_topic_in_use_refuses_with_exit_6" {
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	run -6 shmq rm t
	is_said_well "$output"
	[ "$(shmq ls)" = t ]
	kill "$PID_reader"
	finish reader
	await 'shmq rm t 2>/dev/null'
}

@test "rm_force_ends_the_handles_by_name" {
	shmq create t -q
	shmq create other -q
	start reader sub t
	start content sub t --end
	await '[ "$(subscribers t)" = 2 ]'
	shmq rm t --force
	finish reader 5
	has "$(cat reader.err)" '"t"'
	finish content 0
	[ "$(shmq ls)" = other ]
	shmq create t -q
}

@test "rm_force_ends_a_publisher" {
	mkfifo input
	shmq create t -q
	"$BIN/shmq" pub t <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	echo one >&9
	await '[ "$(head_of t)" = 1 ]'
	shmq rm -f t
	echo two >&9
	exec 9>&-
	finish pub 5
	is_said_well "$(cat pub.err)"
}
