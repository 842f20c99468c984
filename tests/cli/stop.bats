# SPDX-License-Identifier: MIT
load helper

@test "stop_ends_the_supervisor_before_it_returns" {
	shmq create t -q
	pid=$(shmq stat --json | json '$_->{bus}{parent_pid}')
	kill -0 "$pid"
	run -0 shmq stop
	[ -z "$output" ]
	ended "$pid"
	run -5 shmq --no-start ls
}

@test "stop_as_json" {
	shmq create t -q
	[ "$(shmq stop --json)" = "{\"bus\":\"$SHMQ_BUS\",\"stopped\":true}" ]
	run -5 --separate-stderr shmq stop --json
	[ -z "$output" ]
}

@test "stop_without_supervisor_is_exit_5_and_starts_none" {
	run -5 shmq stop
	is_said_well "$output"
	[ ! -e "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.sock" ]
}

@test "stop_with_clients_attached_is_exit_6" {
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	run -6 shmq stop
	is_said_well "$output"
	[ "$(shmq ls)" = t ]
}

@test "stop_force_ends_the_streams" {
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	run -0 shmq stop --force
	finish reader 5
	run -5 shmq --no-start ls
}

@test "a_stopped_bus_starts_afresh" {
	shmq create t -q
	shmq stop
	[ -z "$(shmq ls)" ]
}
