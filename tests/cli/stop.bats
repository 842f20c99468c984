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
	[ "$output" = "shmq: stopping bus \"$SHMQ_BUS\": no supervisor is running on this bus (hint: --if-running takes that for done)" ]
	[ ! -e "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.sock" ]
}

@test "that_none_runs_is_fine_to_who_says_so" {
	run -0 shmq stop --if-running
	[ -z "$output" ]
	[ "$(shmq stop --if-running --json)" = "{\"bus\":\"$SHMQ_BUS\",\"stopped\":false}" ]
	shmq create t -q
	[ "$(shmq stop --if-running --json | json '$_->{stopped}')" = true ]
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

@test "a_bus_that_ended_in_order_leaves_nothing_behind" {
	shmq create t -q
	[ -s "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.log" ]
	shmq stop
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
}

@test "a_log_with_a_warning_in_it_stays" {
	shmq create t -q
	kill -KILL "$(shmq stat --json | json '$_->{bus}{daemon_pid}')"
	shmq create u -q
	shmq stop
	grep -q ' warn parent: control worker .* killed' "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.log"
	[ "$(ls -A "$SHMQ_RUNTIME_DIR")" = "$SHMQ_BUS.log" ]
}

@test "a_log_that_was_asked_for_stays" {
	"$BIN/shmqd" --bus "$SHMQ_BUS" --log "$DIR/asked.log" 3>&-
	shmq stop
	grep -q 'has ended' "$DIR/asked.log"
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
}

# What happens to a start that comes while the last supervisor ends.
@test "a_start_whose_log_is_removed_while_it_waits_has_one_all_the_same" {
	log=$SHMQ_RUNTIME_DIR/$SHMQ_BUS.log
	exec 8>"$SHMQ_RUNTIME_DIR/$SHMQ_BUS.lock"
	flock 8
	"$BIN/shmqd" --bus "$SHMQ_BUS" 3>&- 8>&- &
	STARTED+=($!)
	await '[ -e "$log" ]'
	rm "$log"
	exec 8>&-
	wait "${STARTED[0]}"
	grep -q 'serving bus' "$log"
}

@test "a_stopped_bus_starts_afresh" {
	shmq create t -q
	shmq stop
	[ -z "$(shmq ls)" ]
}

# pause N: milliseconds from the Nth start of another process to the next.
pause() {
	local times
	times=($(sed -n 's/Z warn .*starting another.*//p' "$DIR/log" | sed -n "$1,$(($1 + 1))p"))
	echo $(($(date -d "${times[1]}Z" +%s%3N) - $(date -d "${times[0]}Z" +%s%3N)))
}

# Each of its workers ends before it comes to wait as it was told.
@test "workers_that_cannot_start_are_not_started_without_pause" {
	"$BIN/shmqd" --bus "$SHMQ_BUS" --log "$DIR/log" 3>&-
	pid=$(shmq stat --json | json '$_->{bus}{parent_pid}')
	worker=$(shmq stat --json | json '$_->{bus}{daemon_pid}')
	rm -r "$SHMQ_RUNTIME_DIR"
	touch "$SHMQ_RUNTIME_DIR" # else it would be made again
	kill -KILL "$worker"
	await '[ "$(grep -c "starting another" "$DIR/log")" -ge 5 ]'
	kill -KILL "$pid"
	rm "$SHMQ_RUNTIME_DIR"
	mkdir -m 700 "$SHMQ_RUNTIME_DIR"
	[ "$(pause 4)" -ge 90 ]
	grep -q 'worker .*: starting another in 1000 ms' "$DIR/log"
}

@test "parents_that_cannot_start_are_not_started_without_pause" {
	"$BIN/shmqd" --bus "$SHMQ_BUS" --log "$DIR/log" 3>&-
	pid=$(shmq stat --json | json '$_->{bus}{parent_pid}')
	worker=$(shmq stat --json | json '$_->{bus}{daemon_pid}')
	rm -r "$SHMQ_RUNTIME_DIR"
	touch "$SHMQ_RUNTIME_DIR" # else it would be made again
	kill -KILL "$pid"
	await '[ "$(grep -c "starting another" "$DIR/log")" -ge 5 ]'
	kill "$worker"
	rm "$SHMQ_RUNTIME_DIR"
	mkdir -m 700 "$SHMQ_RUNTIME_DIR"
	[ "$(pause 4)" -ge 900 ]
	grep -q 'parent is gone: starting another in 1000 ms' "$DIR/log"
}

@test "a_bus_without_descriptors_is_not_started_and_the_limit_is_named" {
	run -1 bash -c 'ulimit -n 63; exec "$0" --bus "$1"' "$BIN/shmqd" "$SHMQ_BUS"
	[[ "$output" == *"RLIMIT_NOFILE is 63"*"ulimit -n"* ]]
	[ -z "$(ls -A "$SHMQ_RUNTIME_DIR")" ]
	bash -c 'ulimit -n 64; exec "$0" --bus "$1"' "$BIN/shmqd" "$SHMQ_BUS" 3>&-
	shmq create t -q
	shmq stop
}

@test "a_cleaner_of_tmp_spares_the_directories_of_buses" {
	command -v systemd-tmpfiles >/dev/null || skip 'systemd-tmpfiles is missing'
	mkdir -p tmp/shmq-1 tmp/other
	touch tmp/shmq-1/default.lock
	echo "d $DIR/tmp 0700 - - 0" >rules.conf
	sed -n "s|^x /tmp|x $DIR/tmp|p" "$BATS_TEST_DIRNAME/../../daemon/systemd/tmpfiles.conf" >>rules.conf
	systemd-tmpfiles --clean "$DIR/rules.conf"
	[ ! -e tmp/other ] || fail 'nothing was cleaned'
	[ -e tmp/shmq-1/default.lock ]
}
