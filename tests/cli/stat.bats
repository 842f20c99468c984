# SPDX-License-Identifier: MIT
load helper

@test "stat_shows_the_bus" {
	shmq create md.a -q
	shmq create md.b -q --policy lossy --shared
	run -0 shmq stat
	has "${lines[0]}" "bus $SHMQ_BUS: supervisor pid "
	has "${lines[1]}" "2 topics"
	[[ ${lines[2]} == TOPIC*POLICY*HEAD*SUBS*LAG*"HELD BACK BY" ]]
	[[ ${lines[3]} == md.a*block*exclusive* ]]
	[[ ${lines[4]} == md.b*lossy*shared* ]]
}

@test "stat_of_the_bus_as_json" {
	shmq create t -q
	shmq stat --json >bus
	[ "$(json 'join " ", sort keys %$_' <bus)" = "bus disks topics" ]
	[ "$(json 'join " ", sort keys %{$_->{bus}}' <bus)" = \
		"bytes clients daemon_pid epoch layout_version name parent_pid started_ns topics" ]
	[ "$(json '"$_->{bus}{topics} $_->{topics}[0]{name}"' <bus)" = "1 t" ]
	[ "$(json '$_->{topics}[0]{rate} // "null"' <bus)" = null ]
	kill -0 "$(json '$_->{bus}{parent_pid}' <bus)"
	kill -0 "$(json '$_->{bus}{daemon_pid}' <bus)"
}

@test "stat_shows_a_topic" {
	shmq create t -q --depth 2048 --partitions 2 --time
	seq 10 | shmq pub t --partition 1
	run -0 shmq stat t
	has "${lines[0]}" "topic t (id "
	for text in 'policy       block' '2 partitions of 2048 slots of 128 bytes' 'stamps       time' \
		'4 KiB pages' 'head         10' 'exclusive'; do
		has "$output" "$text"
	done
	grep -Eq 'memory .* KiB pages, node ([0-9]+|mixed) \(asked any\), (not )?locked' <<<"$output"
	grep -Eq '^ +0 +0 +' <<<"$output"
	grep -Eq '^ +1 +10 +0 +0 +' <<<"$output"
}

@test "stat_of_a_topic_as_json" {
	shmq create t -q
	start reader sub t --name reader
	await '[ "$(asleep t)" = 1 ]'
	shmq stat t --json >t
	[ "$(json 'scalar @{$_->{partition_list}}' <t)" = 1 ]
	[ "$(json 'scalar @{$_->{publisher_list}}' <t)" = 0 ]
	[ "$(json 'scalar @{$_->{subscriber_list}}' <t)" = 1 ]
	[ "$(json 'join " ", sort keys %{$_->{subscriber_list}[0]}' <t)" = \
		"bytes client evicted gating lag latency lost name opened_ns partition pid received sleeping sleeps uid wakes" ]
	[ "$(json '$_->{subscriber_list}[0]{pid}' <t)" = "$PID_reader" ]
	[ "$(json '$_->{subscriber_list}[0]{name}' <t)" = reader ]
	[ "$(json '$_->{subscriber_list}[0]{gating}' <t)" = true ]
	[ "$(json '$_->{subscriber_list}[0]{sleeping}' <t)" = true ]
	[ "$(json '$_->{subscriber_list}[0]{uid}' <t)" = "$(id -u)" ]
	[ "$(json 'join " ", sort keys %{$_->{partition_list}[0]}' <t)" = \
		"claim head log oldest partition rate slowest voids" ]
}

@test "stat_counts_what_publishers_and_subscribers_did" {
	mkfifo input
	shmq create t -q
	start reader sub t
	await '[ "$(subscribers t)" = 1 ]'
	"$BIN/shmq" pub t --name writer <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	exec 9>input
	seq 10 >&9
	await '[ "$(wc -l <reader.out)" = 10 ]'
	shmq stat t --json >t
	[ "$(json '"@{$_->{publisher_list}[0]}{qw(name pid sent bytes dropped)}"' <t)" = \
		"writer $PID_pub 10 11 0" ]
	[ "$(json 'join " ", sort keys %{$_->{publisher_list}[0]}' <t)" = \
		"arena_bytes arena_node blocked bytes client dropped in_claim name opened_ns partition pid sent uid waiting wakes" ]
	[ "$(json '"@{$_->{subscriber_list}[0]}{qw(received bytes lost lag)}"' <t)" = "10 11 0 0" ]
	run -0 shmq stat t
	grep -Eq "^ +PUBLISHER +PID" <<<"$output"
	grep -Eq "^ +[0-9]+ +$PID_pub +[0-9]+ +writer +all +10 +11 +0 +-$" <<<"$output"
	grep -Eq "^ +[0-9]+ +$PID_reader +.* 10 +11 +0 +0 +gating" <<<"$output"
	exec 9>&-
	finish pub
}

@test "stat_counts_go_on_when_those_who_were_counted_have_left" {
	shmq create t -q
	start reader sub t --count 10
	await '[ "$(subscribers t)" = 1 ]'
	seq 10 | shmq pub t
	finish reader
	shmq stat t --json >t
	[ "$(json '"@{$_->{stats}}{qw(sent sent_bytes dropped received received_bytes lost evictions)}"' <t)" = \
		"10 11 0 10 11 0 0" ]
	[ "$(json 'join " ", sort keys %{$_->{stats}}' <t)" = \
		"blocked dropped evictions lost received received_bytes sent sent_bytes sleeps wakes" ]
	[ "$(json '$_->{stats}{sleeps}' <t)" -ge 1 ]
	[ "$(json '$_->{stats}{wakes}' <t)" -ge 1 ]
	run -0 shmq stat t
	has "$output" "sent         10, 11 B, 0 dropped, blocked 0 times"
	has "$output" "received     10, 11 B, 0 lost, 0 evictions"
}

@test "what_writes_the_log_counts_as_no_reader" {
	export SHMQ_DATA_DIR=$DIR/data
	shmq create t -q --log block
	seq 10 | shmq pub t --confirm written
	await "shmq stat t | grep -q '[$]tailer .* asleep'"
	run -0 shmq stat t
	has "$output" "subscribers  0, 0 asleep"
	has "$output" "received     0, 0 B, 0 lost"
	has "$output" "sleep        0 times"
	kill -KILL "$(shmq clients --json | json '(grep { $_->{name} eq q($tailer) } @$_)[0]->{pid}')"
	await "shmq stat t | grep -q 'subscribers  0, 0 asleep'"
	[ "$(shmq stat t --json | json '$_->{stats}{received}')" = 0 ]
}

@test "latency_is_measured_where_it_is_asked_for_and_shown_by_stat" {
	shmq create t -q --time
	shmq create plain -q
	start reader sub t --latency --name reader --count 20
	await '[ "$(asleep t)" = 1 ]'
	start other sub t --name other --count 20
	await '[ "$(asleep t)" = 2 ]'
	seq 10 | shmq pub t
	await '[ "$(wc -l <reader.out)$(wc -l <other.out)" = 1010 ]'
	await '[ "$(asleep t)" = 2 ]'
	shmq stat t --json >t
	[ "$(json '$_->{subscriber_list}[1]{latency} // "null"' <t)" = null ]
	[ "$(json '$_->{subscriber_list}[0]{latency}{p50_ns} > 0 ? "yes" : "no"' <t)" = yes ]
	[ "$(json '$_->{subscriber_list}[0]{latency}{most_ns} >= $_->{subscriber_list}[0]{latency}{p99_ns} ? "yes" : "no"' <t)" = yes ]
	run -0 shmq stat t
	grep -Eq "LATENCY OF +NAME +P50 +P99 +P99.9 +LONGEST" <<<"$output"
	seq 10 | shmq pub t
	finish reader
	finish other
	grep -Eq '^shmq: latency of "t": 20 measured, p50 [0-9.]+ [a-z]+, p99 .*, p99.9 .*, longest ' reader.err
	[ ! -s other.err ]
	run --separate-stderr -2 shmq sub plain --latency
	has "$stderr" "create it with --time"
}

@test "stat_names_who_holds_publishers_back" {
	shmq create t -q --depth 1024
	start slow sub t --name slow
	await '[ "$(subscribers t)" = 1 ]'
	kill -STOP "$PID_slow"
	seq 2000 >lines
	"$BIN/shmq" pub t <lines >pub.out 2>pub.err 3>&- &
	STARTED+=($!) PID_pub=$!
	await '[ "$(head_of t)" = 1024 ]'
	run -0 shmq stat t
	has "$output" "held back by client"
	has "$output" "slow (pid $PID_slow): it is 1024 messages behind"
	run -0 shmq stat
	grep -Eq "^t .* 1024 +slow \(pid $PID_slow\)" <<<"$output"
	shmq stat t --json >t
	[ "$(json '"@{$_->{partition_list}[0]{slowest}}{qw(pid name lag)}"' <t)" = "$PID_slow slow 1024" ]
	[ "$(json '$_->{partition_list}[0]{slowest}{holds_back}' <t)" = true ]
	[ "$(json '$_->{partition_list}[0]{claim} // "null"' <t)" = null ]
	[ "$(json '$_->{publisher_list}[0]{waiting}' <t)" = true ]
	[ "$(json '$_->{publisher_list}[0]{in_claim}' <t)" = false ]
	kill -CONT "$PID_slow"
	finish pub
	await '[ "$(wc -l <slow.out)" = 2000 ]'
	run -0 shmq stat
	[[ "$(grep '^t ' <<<"$output")" == *" -" ]]
}

@test "stat_of_as_many_partitions_as_there_can_be" {
	shmq create t -q --partitions 4096 --depth 1024 --slot 64
	echo x | shmq pub t --partition 4095
	shmq stat t --json >t
	[ "$(json 'scalar @{$_->{partition_list}}' <t)" = 4096 ]
	[ "$(json '"@{$_->{partition_list}[4095]}{qw(partition head)}"' <t)" = "4095 1" ]
	run -0 shmq stat
	grep -q '^t ' <<<"$output"
}

@test "stat_without_terminal_takes_one_look" {
	shmq create t -q
	[ "$(shmq stat t --json | json '$_->{rate} // "null"')" = null ]
	[ "$(shmq stat t --interval 10ms --json | json '$_->{rate}')" = 0 ]
}

@test "stat_measures_the_rate" {
	shmq create t -q --policy lossy
	yes x | "$BIN/shmq" pub t --rate 1000/s 3>&- >/dev/null 2>&1 &
	STARTED+=($!)
	await '[ "$(head_of t)" -gt 10 ]'
	rate=$(shmq stat t --interval 300ms --json | json 'int $_->{rate}')
	[ "$rate" -gt 0 ] # however slow this machine is
	[ "$rate" -lt 2000 ]
	run -0 shmq stat --interval 100ms
	grep -Eq '^t .*/s ' <<<"$output"
}

@test "stat_on_a_terminal_shows_rates" {
	command -v script >/dev/null || skip "no script(1)"
	shmq create t -q
	script -qec "'$BIN/shmq' stat t" screen >/dev/null 3>&-
	grep -q 'head  *0, 0/s' screen
}

@test "watch_reports_again" {
	shmq create t -q
	shmq stat t --watch --interval 10ms --count 3 --json >reports
	[ "$(wc -l <reports)" = 3 ]
	[ "$(json '$_->{rate}' <reports | sort -u)" = 0 ]
}

@test "watch_ends_with_a_signal" {
	shmq create t -q
	start watch stat --watch --interval 10ms
	await '[ -s watch.out ]'
	kill "$PID_watch"
	finish watch
}

@test "watch_ends_when_its_reader_leaves" {
	shmq create t -q
	shmq stat t --watch --interval 10ms 2>err | head -n 1 >out
	[ "${PIPESTATUS[0]}" = 0 ]
	[ ! -s err ]
}

@test "watch_ends_when_the_topic_goes" {
	shmq create t -q
	start watch stat t --watch --interval 10ms
	await '[ -s watch.out ]'
	shmq rm t
	finish watch 5
}

@test "missing_topic_is_exit_5" {
	run -5 shmq stat t
	is_said_well "$output"
	run -2 shmq stat 'bad name'
	is_said_well "$output"
}
