# SPDX-License-Identifier: MIT
# Stored cursors: sub goes on where it was; ls, set and rm.
load helper

durable() { # TOPIC OPTION...
	export SHMQ_DATA_DIR=$DIR/data
	shmq create "$1" -q --depth 1024 --log block --time "${@:2}"
}

stored() { # TOPIC NAME [PARTITION]
	shmq cursor ls "$1" --json | json "map { \$_->{seq} } grep {
		\$_->{cursor} eq '$2' && \$_->{partition} == ${3:-0} } @\$_"
}

written() {
	shmq stat "$1" --json | json '$_->{partition_list}[0]{log}{written}'
}

@test "sub_with_a_cursor_goes_on_where_it_was" {
	durable t
	seq 3000 | shmq pub t
	await '[ "$(written t)" = 3000 ]'
	[ "$(shmq sub t --cursor mine -c 10 | tail -n 1)" = 10 ]
	[ "$(stored t mine)" = 10 ]
	[ "$(shmq sub t --cursor mine -c 1500 | sed -n 1p)" = 11 ]
	[ "$(shmq sub t --cursor other -c 1)" = 1 ]
	run -3 --separate-stderr shmq sub t --cursor mine -t 0
	[ "${lines[0]}" = 1511 ]
	[ "${lines[-1]}" = 3000 ]
	[ "$(stored t mine)" = 3000 ]
	[ "$(shmq sub t --from 5 --cursor mine -c 2 | paste -sd' ')" = "6 7" ]
	[ "$(stored t mine)" = 7 ]
}

@test "sub_stores_while_it_waits_and_before_the_end_of_its_range" {
	durable t
	seq 20 | shmq pub t
	await '[ "$(written t)" = 20 ]'
	start reader sub t --cursor mine
	await '[ "$(stored t mine)" = 20 ]'
	[ "$(shmq cursor ls t --json | json '$_->[0]{in_use}')" = true ]
	run -6 shmq sub t --cursor mine -c 1
	is_said_well "$output"
	has "$output" '"mine"'
	run -6 shmq cursor rm t mine
	is_said_well "$output"
	run -6 shmq cursor set t mine
	is_said_well "$output"
	kill -KILL "$(pid_of reader)"
	await 'ended "$(pid_of reader)"'
	[ "$(stored t mine)" = 20 ]
	shmq cursor set t mine --from oldest
	[ "$(shmq sub t --cursor mine --to 12 | tail -n 1)" = 12 ]
	[ "$(stored t mine)" = 12 ]
	run -1 --separate-stderr bash -c '"$1" sub t --cursor mine -c 5 >/dev/full' - "$BIN/shmq"
	[ "$(stored t mine)" = 12 ]
}

@test "cursors_are_set_to_a_place_listed_and_removed_without_a_bus" {
	durable t --partitions 2
	seq 100 | shmq pub t --partition 1
	await '[ "$(shmq stat t --json | json "\$_->{partition_list}[1]{log}{written}")" = 100 ]'
	shmq stop --force
	[ -z "$(shmq cursor ls t)" ]
	[ "$(shmq cursor ls t --json)" = "[]" ]
	shmq cursor set t mine --no-start
	[ "$(stored t mine 0)" = 0 ]
	[ "$(stored t mine 1)" = 100 ]
	shmq cursor set t mine --from 42 --partition 1
	[ "$(stored t mine 1)" = 42 ]
	shmq cursor set t mine --from 2020-01-01
	[ "$(stored t mine 1)" = 0 ]
	shmq cursor set "$SHMQ_BUS/t" mine --from -1s --partition 0
	shmq cursor set "$SHMQ_DATA_DIR/$SHMQ_BUS/t" other --from oldest --partition 1
	run -0 shmq cursor ls t
	[ "${#lines[@]}" = 4 ]
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
	shmq cursor rm t mine other
	[ -z "$(shmq cursor ls t)" ]
	run -5 shmq cursor rm t mine
	is_said_well "$output"
	run -5 shmq cursor ls nothing
	is_said_well "$output"
	run -2 shmq cursor set t mine --from 42
	is_said_well "$output"
	run -2 shmq cursor set t ../mine
	is_said_well "$output"
}

@test "a_cursor_of_another_log_is_refused_and_listed_as_such" {
	durable t
	durable u
	shmq cursor set t mine
	mkdir -p "data/$SHMQ_BUS/u/cursors"
	cp "data/$SHMQ_BUS/t/cursors/mine" "data/$SHMQ_BUS/u/cursors"
	run -1 shmq sub u --cursor mine -c 1
	is_said_well "$output"
	has "$output" '"mine" is of another log'
	shmq cursor ls u --json | json '$_->[0]{error}' | grep -qv null
	shmq cursor set u mine
	run -3 shmq sub u --cursor mine -t 0
	durable plain --log none 2>/dev/null || shmq create plain -q
	run -2 shmq sub plain --cursor mine -c 1
	is_said_well "$output"
}

@test "ls_without_a_log_lists_the_cursors_of_all_and_how_far_behind_they_are" {
	durable t --partitions 2
	durable u
	seq 100 | shmq pub t --partition 1
	seq 20 | shmq pub u
	await '[ "$(shmq stat t --json | json "\$_->{partition_list}[1]{log}{written}")" = 100 ]'
	await '[ "$(written u)" = 20 ]'
	shmq cursor set t zoe --from 42 --partition 1
	shmq cursor set t amy --from 100 --partition 1
	shmq cursor set u bob --from oldest
	run -0 shmq cursor ls
	[ "$(printf '%s\n' "${lines[@]:1}" | awk '{ print $1, $2, $3, $4, $5 }')" = "$SHMQ_BUS/t amy 1 100 0
$SHMQ_BUS/t zoe 1 42 58
$SHMQ_BUS/u bob 0 0 20" ]
	[ "$(SHMQ_BUS='' shmq cursor ls)" = "$output" ]
	[ "$(shmq cursor ls t u | awk '{ print $1 }' | paste -sd' ')" = "LOG t t u" ]
	shmq cursor ls --json | json 'join " ", map { "$_->{log}=$_->{behind}" } @$_' |
		grep -qx "$SHMQ_BUS/t=0 $SHMQ_BUS/t=58 $SHMQ_BUS/u=20"
	run -5 --separate-stderr shmq cursor ls nothing u
	[ "${lines[1]%% *}" = u ]
	is_said_well "$stderr"
	rm "data/$SHMQ_BUS/u/topic"
	printf x >"data/$SHMQ_BUS/t/cursors/amy"
	run shmq cursor ls
	has "$output" zoe
	shmq stop --force
	[ "$(SHMQ_BUS=other shmq cursor ls)" = "" ]
}
