# SPDX-License-Identifier: MIT
load helper

@test "events_follows_who_comes_and_goes" {
	shmq create t -q
	start log events --json --count 3
	await '[ "$(shmq stat "\$sys.events" --no-start --json 2>/dev/null | json "\$_->{subscribers}")" = 1 ]'
	shmq pub t </dev/null
	shmq pub t </dev/null
	finish log
	[ "$(wc -l <log.out)" = 3 ]
	grep -q '"event":"attach","type":1,.*"name":"shmq \(stat\|pub\)"' log.out
	json '$_->{time_ns} > 0 && defined $_->{seq} ? "ok" : "no"' <log.out | uniq | grep -qx ok
}

@test "events_begins_with_what_was_before_it_and_filters" {
	shmq create t -q
	run -3 shmq events --timeout 0.01
	has "$output" 'reading "$sys.events": timed out: nothing happened for 10 ms (hint: '
	run -3 shmq events --from oldest --timeout 0 --kind attach,death
	[[ ${lines[0]} == 20*Z\ \ attach\ *"shmq create (pid "*"): joined" ]]
	! grep -q detach <<<"$output"
	run -0 shmq events --from oldest --kind detach --count 1
	has "$output" "  detach "
}

@test "events_are_hidden_unless_asked_for" {
	shmq create t -q
	shmq events --from oldest --count 1 >/dev/null
	[ "$(shmq ls)" = t ]
	[ "$(shmq ls '*')" = t ]
	[ "$(shmq ls --all)" = "$(printf '%s\n' '$sys.events' t)" ]
	[ "$(shmq ls '$sys')" = '$sys.events' ]
	[ "$(shmq stat --json | json 'scalar @{$_->{topics}}')" = 1 ]
}

@test "events_refuses_wrong_usage_and_publishers" {
	run -2 shmq events --kind nonsense
	has "$output" '--kind takes attach|detach|'
	run -2 shmq events t
	run -1 shmq pub '$sys.events' </dev/null
	[[ $output == *"$"* ]]
}

@test "an_idle_bus_started_on_demand_ends_although_it_has_events" {
	# By who follows events, so that it is not gone before they are asked for.
	mkdir -p "$XDG_CONFIG_HOME/shmq"
	echo 'linger = 300ms' >"$XDG_CONFIG_HOME/shmq/$SHMQ_BUS.conf"
	shmq events --from oldest --count 1 >/dev/null 3>&-
	await '! pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"'
}

@test "who_waits_and_is_ended_by_a_signal_has_left_and_not_died" {
	shmq create t -q --policy lossy
	shmq create svc -q --shared
	start one sub t --name one
	start two sub 't.#' --name two
	start three trace t --name three
	start four events --name four
	start five reply svc --echo --name five
	start six replay t --speed flat --name six
	await '[ "$(shmq clients --json | json "scalar grep { \$_->{name} =~ /^(one|two|three|four|five|six)\$/ && \$_->{subscribers} + \$_->{patterns} } @\$_")" = 6 ]'
	shmq create full -q --depth 1024
	"$BIN/shmq" sub full >stuck.out 3>&- &
	STARTED+=($!) PID_stuck=$!
	await '[ "$(subscribers full)" = 1 ]'
	kill -STOP "$PID_stuck"
	seq 2000 >lines
	"$BIN/shmq" pub full --name seven <lines 2>seven.err 3>&- &
	STARTED+=($!) PID_seven=$!
	await '[ "$(head_of full)" = 1024 ]'
	start eight pub t x --wait-subscribers 9 --name eight
	shmq create nobody.answers -q --shared
	start nine request nobody.answers x --timeout 60s --name nine
	shmq create slow -q --shared
	start sleeper reply slow --exec 'echo >taken; exec sleep 60'
	start ten request slow x --timeout 60s --json --name ten
	await '[ -e taken ]'
	await '[ "$(shmq clients --json | json "scalar grep { \$_->{name} =~ /^(eight|nine|ten)\$/ && \$_->{publishers} } @\$_")" = 3 ]'
	for name in one two three four five six seven eight nine ten; do
		kill -TERM "$(pid_of $name)"
	done
	for name in one two three four five six; do
		finish $name
	done
	for name in seven eight nine ten; do
		finish $name 1
	done
	has "$(cat seven.err)" "interrupted after 1024 messages"
	has "$(cat eight.err)" "interrupted after 0 messages"
	has "$(cat nine.err)" "interrupted before"
	has "$(cat ten.out)" '"outcome":"interrupted"'
	kill -CONT "$PID_stuck"
	kill "$PID_stuck" "$(pid_of sleeper)"
	await '[ "$(shmq events --from oldest --timeout 0 --kind detach | grep -c ", \(one\|two\|three\|four\|five\|six\|seven\|eight\|nine\|ten\) ")" = 10 ]'
	! shmq events --from oldest --timeout 0 --kind death | grep -q death
}
