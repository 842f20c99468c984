# SPDX-License-Identifier: MIT
load helper

@test "buses_lists_who_runs_and_who_died_and_starts_none" {
	run -0 --separate-stderr shmq buses
	[ -z "$output" ]
	has "$stderr" "no bus is in \"$SHMQ_RUNTIME_DIR\" (hint: "
	[ "$(shmq buses --json)" = '[]' ]
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	shmq --bus second create a -q
	touch "$SHMQ_RUNTIME_DIR"/{left.lock,left.manifest,no.bus.at.all}
	run -0 shmq buses
	[[ ${lines[0]} =~ ^BUS\ +STATE\ +PID\ +CLIENTS\ +TOPICS ]]
	[ ${#lines[@]} = 4 ] || fail "$output"
	grep -Eq "^$SHMQ_BUS +runs +$(shmq stat --json | json '$_->{bus}{parent_pid}') +1 +1 +[0-9.]+ MiB +20.*Z" <<<"$output"
	grep -Eq "^left +died +- .*\(hint: shmq doctor\)" <<<"$output"
	grep -Eq '^second +runs +[0-9]+ +0 +1 ' <<<"$output"
	shmq buses --json >out
	[ "$(json 'map { "$_->{bus} $_->{state} $_->{topics}" } grep { $_->{bus} eq "second" } @$_' <out)" = "second runs 1" ]
	shmq --bus second stop
	[ "$(shmq buses --json | json '"@{[map { $_->{bus} } @$_]}"')" = "$SHMQ_BUS left" ] || fail "$(shmq buses)"
	kill "$(pid_of reader)"
	finish reader
}

@test "buses_says_of_one_that_has_no_supervisor_that_clients_hold_it" {
	shmq create t -q
	start reader --no-start sub t
	await '[ "$(subscribers t)" = 1 ]'
	supervisors=$(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR")
	kill -STOP $supervisors # the worker would start another parent
	kill -KILL $supervisors
	await 'shmq buses | grep -Eq "^$SHMQ_BUS +held +- .*clients go on"'
	kill -KILL "$(pid_of reader)"
	await 'shmq buses | grep -Eq "^$SHMQ_BUS +died"'
}

@test "wrong_usage_of_buses_is_exit_2_and_a_directory_that_is_none_1" {
	run -2 --separate-stderr shmq buses all
	has "$stderr" "takes no operand"
	run -2 --separate-stderr shmq buses --long
	has "$stderr" unknown
	touch file
	run -1 --separate-stderr shmq --runtime-dir "$DIR/file" buses
	is_said_well "$stderr"
}

@test "buses_of_who_became_root_are_roots" {
	[ "$(id -u)" = 0 ] || skip 'only root can be two users'
	mkdir -m 700 xdg xdg/shmq
	chown -R 4711:4711 xdg
	python3 -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind("xdg/shmq/theirs.sock")'
	run -0 env -u SHMQ_RUNTIME_DIR XDG_RUNTIME_DIR="$PWD/xdg" "$BIN/shmq" buses
	[[ $output != *theirs* ]]
	chown -R 0:0 xdg
	run -0 env -u SHMQ_RUNTIME_DIR XDG_RUNTIME_DIR="$PWD/xdg" "$BIN/shmq" buses
	has "$output" theirs
}
