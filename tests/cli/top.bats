# SPDX-License-Identifier: MIT
# On a terminal of 80 by 24, which tmux is.
load helper

setup_file() {
	command -v tmux >/dev/null || skip "tmux is missing"
}

# What helper says, and the terminal goes first.
eval "helper_$(declare -f teardown)"
teardown() {
	tm kill-server 2>/dev/null || :
	helper_teardown
}

tm() {
	timeout -k 5 60 tmux -f /dev/null -S "$DIR/tmux" "$@" 3>&-
}

# terminal ARG...: shmq top on it.
terminal() {
	tm new-session -d -x 80 -y 24 -s top \
		"'$BIN/shmq' top $* 2>'$DIR/top.err'; echo ended \$? >'$DIR/ended'; sleep 60"
}

screen() {
	tm capture-pane -p -t top
}

shows() { # PATTERN
	screen | grep -Eq -- "$1"
}

press() {
	tm send-keys -t top "$@"
}

# Two topics with a publisher that waits for its input, and one with a log.
scene() {
	mkfifo input
	shmq create md.a -q --time
	shmq create md.b -q --policy lossy
	start reader sub md.a --name reader --latency
	start idle sub md.b --name idle
	await '[ "$(asleep md.a)$(asleep md.b)" = 11 ]'
	"$BIN/shmq" pub md.a --name writer <input >pub.out 2>pub.err 3>&- &
	STARTED+=($!)
	exec 9>input
	seq 100 >&9
	await '[ "$(wc -l <reader.out)" = 100 ]'
	await '[ "$(asleep md.a)" = 1 ]'
}

@test "top_shows_topics_on_80_by_24" {
	scene
	terminal
	await 'shows "^md.a "'
	screen >picture
	[ "$(wc -l <picture)" = 24 ]
	[ "$(awk 'length > 80' picture | wc -l)" = 0 ]
	grep -Eq "^bus $SHMQ_BUS: 2 topics, [0-9]+ clients, .* shared, 2 asleep" picture
	grep -Eq '^topics: 2, by RATE' picture
	grep -Eq '^TOPIC +RATE +BYTES +LAG +P99 +SLP PUB SUB +MEMORY' picture
	grep -Eq '^md\.a .* 0 +[0-9.]+ [nums]+ +1 +1 +1 +1(\.[0-9])? MiB' picture
	grep -Eq '^md\.b .* - +1 +0 +1 +1(\.[0-9])? MiB' picture
	sed -n 24p picture | grep -q '^t topics p processes l logs'
	press '?'
	await 'shows "q +leave"'
	shows 'MAPPED the rings$'
	shows 'sub --latency\)\.$'
}

@test "top_shows_the_rate_of_what_is_published" {
	scene
	terminal --interval 100ms
	await 'seq 100 >&9; shows "^md.a +[0-9.]+k?/s +[0-9.]+ [KMGi]*B/s"'
}

@test "top_looks_into_a_topic_and_back" {
	scene
	terminal
	await 'shows "^md.a "'
	press Home Enter
	await 'shows "^topic md.a: 2, by LAG"'
	await 'shows "^writer +sends "'
	shows '^reader +gates, slept '
	press BSpace
	await 'shows "^topics: 2"'
	press Down Enter
	await 'shows "^topic md.b: 1"'
	shows '^idle +reads, slept '
}

@test "top_shows_processes_and_what_they_have_open" {
	scene
	terminal
	await 'shows "^md.a "'
	press p
	await 'shows "^writer "'
	shows '^PROCESS +PID +SENDS RECEIVES +LAG SLP OPEN +OWN +MAPPED'
	shows '^processes: 3, by SENDS'
	press / r e a d Enter
	await 'shows "^processes: 1, by SENDS, filter /read"'
	shows "^reader +$(pid_of reader) "
	press Enter
	await 'shows "^process reader: 1, by RATE"'
	shows '^md.a +gates, slept '
}

@test "top_shows_how_far_logs_are_behind" {
	export SHMQ_DATA_DIR=$DIR/data
	shmq create kept -q --log block --sync none
	seq 100 | shmq pub kept
	terminal --view logs
	await 'shows "^kept +0 +[0-9]+ "'
	shows '^LOG OF +BEHIND +UNSYNCED +WRITES +BYTES +ERROR'
	press d
	await "shows '^[^ ]*/data/[^ ]* +[0-9]+:[0-9]+ +[0-9.]+ [KM]?i?B/s +[0-9.]+ [KM]iB'"
	shows '^DISK +DEVICE +BYTES +WRITTEN'
}

# Records, by the rates that were shown.
written_of() {
	sed -nE 's/.*"seconds":([0-9.]+),.*"written_rate":([0-9.]+),.*/\1 \2/p' "$1" | awk '{ n += $1 * $2 } END { printf("%d", n) }'
}

@test "top_shows_what_is_written_whatever_of_it_is_removed" {
	export SHMQ_DATA_DIR=$DIR/data
	shmq create kept -q --log block --sync none --segment 1M --retain 1M --slot 1024
	yes "$(printf '%0500d' 0)" | head -n 20000 >input || :
	"$BIN/shmq" top --view logs --json --interval 100ms >out 3>&- &
	STARTED+=($!)
	await '[ -s out ]'
	shmq pub kept <input
	await '[ "$(shmq stat kept --json | json "\$_->{partition_list}[0]{log}{first}")" -gt 10000 ]'
	# All of it, whatever the seconds in which it was seen.
	await '[ "$(written_of out)" -ge 19990 ]'
	[ "$(written_of out)" -le 20010 ]
}

@test "top_sorts_filters_and_turns_the_order" {
	for name in one two three; do shmq create $name -q; done
	seq 30 | shmq pub two
	terminal --sort topic
	await 'shows "^topics: 3, by TOPIC"'
	[ "$(screen | sed -n '4,6s/ .*//p' | xargs)" = "one three two" ]
	press r
	await 'shows "by TOPIC reversed"'
	[ "$(screen | sed -n '4,6s/ .*//p' | xargs)" = "two three one" ]
	press '>'
	await 'shows "by RATE reversed"'
	press / t
	await 'shows "^topics: 2, .*filter /t_"'
	press Escape
	await 'shows "^topics: 3, by RATE reversed$"'
	press '?'
	await 'shows "look into it"'
	press '?'
	await 'shows "^three "'
	shmq events --from oldest --count 1 >/dev/null # makes $sys.events
	press a
	await 'shows "^topics: 4, "'
	press a
	await 'shows "^topics: 3, "'
}

@test "top_shows_more_topics_than_lines" {
	for i in $(seq -w 40); do shmq create t.$i -q --depth 1024 --slot 64; done
	terminal --sort topic
	await 'shows "^t.01 "'
	shows '^t.20 '
	! shows '^t.21 '
	press End
	await 'shows "^t.40 "'
	shows '^t.21 '
	! shows '^t.20 '
	press PPage
	await 'shows "^t.20 "'
	press Home
	await 'shows "^t.01 "'
}

@test "top_leaves_the_terminal_as_it_was" {
	shmq create t -q
	terminal
	await 'shows "^t "'
	press q
	await '[ -s "$DIR/ended" ]'
	[ "$(cat ended)" = "ended 0" ]
	[ ! -s top.err ]
	! shows '^topics:'
}

@test "top_ends_by_a_signal" {
	shmq create t -q
	terminal --interval 50ms
	await 'shows "^t "'
	kill -TERM "$(pgrep -P "$(tm display-message -p -t top '#{pane_pid}')")"
	await '[ -s "$DIR/ended" ]'
	[ "$(cat ended)" = "ended 0" ]
}

@test "top_says_that_the_bus_was_stopped_and_shows_the_next" {
	shmq create t -q
	terminal
	await 'shows "^t "'
	shmq stop --force
	await 'shows "^bus $SHMQ_BUS: stopped"'
	shows '^t '
	shmq create other -q
	await 'shows "^other "'
	shows "^bus $SHMQ_BUS: 1 topic"
	press q
}

@test "top_reports_that_the_bus_was_stopped_with_exit_5" {
	shmq create t -q
	start top top --json --interval 50ms
	await '[ -s top.out ]'
	shmq stop --force
	finish top 5
	has "$(cat top.err)" "nobody listens at"
}

@test "top_once_is_a_table_for_scripts" {
	scene
	run -0 shmq top --once --interval 10ms
	[[ ${lines[0]} == TOPIC*RATE*BYTES*LAG*P99*"HELD BACK BY" ]]
	[ "${#lines[@]}" = 3 ]
	run -0 shmq top --once --interval 10ms --filter md.b
	[ "${#lines[@]}" = 2 ]
	run -0 shmq top -1 -i 10ms --view processes --sort pid --reverse
	[[ ${lines[0]} == PROCESS* ]]
	[ "$(printf '%s\n' "${lines[@]:1}" | awk '{print $2}' | sort -n -c 2>&1)" = "" ]
}

@test "top_json_has_all_views" {
	scene
	shmq top --json --once --interval 10ms >top
	[ "$(json 'join " ", sort keys %$_' <top)" = "bus bytes clients disks logs processes seconds topics" ]
	[ "$(json 'join " ", sort keys %{$_->{topics}[0]}' <top)" = \
		"bytes_rate held_back_by lag lost memory_bytes name p99_ns peers publishers rate sleepers subscribers" ]
	[ "$(json 'join " ", sort map { $_->{name} } @{$_->{topics}}' <top)" = "md.a md.b" ]
	[ "$(json '(grep { $_->{name} eq "reader" } @{$_->{processes}})[0]{pid}' <top)" = "$(pid_of reader)" ]
	[ "$(json '(grep { $_->{name} eq "reader" } @{$_->{processes}})[0]{topics}[0]{name}' <top)" = md.a ]
	[ "$(json '(grep { $_->{name} eq "md.a" } @{$_->{topics}})[0]{p99_ns} > 0 ? 1 : 0' <top)" = 1 ]
	shmq top --json --count 2 --interval 10ms >top
	[ "$(wc -l <top)" = 2 ]
}

@test "top_ends_once_its_terminal_is_gone_though_hangups_are_ignored" {
	shmq create md.a -q
	tm new-session -d -x 80 -y 24 -s top \
		"trap '' HUP; '$BIN/shmq' top 2>'$DIR/top.err'; echo ended \$? >'$DIR/ended'"
	await 'shows "^md.a "'
	tm kill-server
	await '[ "$(cat ended)" = "ended 1" ]'
	has "$(cat top.err)" "it is gone (hint: --json"
}

@test "top_says_what_it_cannot_do" {
	run --separate-stderr -2 shmq top
	has "$stderr" "this is no terminal (hint: --once, or --json)"
	run --separate-stderr -2 shmq top --once --view what
	has "$stderr" 'there is no view "what"'
	run --separate-stderr -2 shmq top --once --sort what
	has "$stderr" 'topics have no column "what"'
	run --separate-stderr -2 shmq top --once md
	has "$stderr" '--filter "md"'
	run --separate-stderr -5 shmq top --once --no-start
}
