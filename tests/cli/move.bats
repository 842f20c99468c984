# SPDX-License-Identifier: MIT
load helper

@test "move_gives_a_topic_fresh_rings_that_go_on_with_the_next_seq" {
	shmq create t -q
	echo one | shmq pub t
	run -0 shmq move t
	[ -z "$output" ]
	[ "$(shmq ls)" = t ]
	[ "$(shmq stat t --json | json '$_->{partition_list}[0]{head}')" = 1 ]
}

@test "move_as_json" {
	shmq create t -q
	[ "$(shmq move t --json)" = '{"topic":"t","moved":true}' ]
	run -5 --separate-stderr shmq move nothing --json
	[ -z "$output" ]
}

@test "move_tells_who_has_the_topic_open" {
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	shmq move t
	finish reader 1
	has "$(cat reader.err)" 'moved'
}

@test "move_of_a_missing_topic_is_exit_5" {
	run -5 shmq move nothing
	is_said_well "$output"
}

@test "move_takes_one_topic" {
	run -2 shmq move
	run -2 shmq move a b
	run -0 shmq move --help
	has "$output" 'move TOPIC'
}
