# SPDX-License-Identifier: MIT
load helper

# What promtool would say: each family is announced, once, and whole; each line is a
# name, labels and a number; no two lines have the same labels.
check_format() {
	perl -ne '
		if (/^# HELP (\w+) .+\.$/) { $help{$1}++ and die "HELP $1 twice"; next }
		if (/^# TYPE (\w+) (counter|gauge)$/) {
			$type{$1}++ and die "TYPE $1 twice";
			$help{$1} or die "$1 without HELP";
			($now, $kind) = ($1, $2);
			next;
		}
		/^(\w+)\{((?:\w+="(?:[^"\\\n]|\\[\\"n])*",?)+)\} (\d+)$/ or die "not a sample: $_";
		my ($name, $labels) = ($1, $2);
		$name eq $now or die "$name outside of its family";
		($name =~ /_total$/) == ($kind eq "counter") or die "$name is a $kind";
		$seen{"$name $labels"}++ and die "twice: $name $labels";
		END { keys %type > 20 or die "few families" }' "$1"
}

value() { # FILE FAMILY LABELS: of the line that has them
	sed -n "s/^shmq_$2{.*$3.*} //p" "$1"
}

fetch() { # URL, or unix:PATH
	case $1 in
	unix:*) python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1][5:])
s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
print(b"".join(iter(lambda: s.recv(65536), b"")).decode().split("\r\n\r\n", 1)[1], end="")' "$1" ;;
	*) python3 -c '
import sys, urllib.request
r = urllib.request.urlopen(sys.argv[1], timeout=30)
assert r.headers["Content-Type"].startswith("text/plain; version=0.0.4"), r.headers
print(r.read().decode(), end="")' "$1" ;;
	esac
}

@test "metrics_are_well_formed_and_right" {
	shmq create t -q
	shmq create 'durable' --log block -q
	start reader sub t --name 'a"b\c'
	await '[ "$(subscribers t)" = 1 ]'
	seq 100 | shmq pub t
	await '[ "$(wc -l <reader.out)" = 100 ]'
	shmq metrics >text
	check_format text
	[ "$(value text topic_messages_total 'topic="t"')" = 100 ]
	[ "$(value text topic_subscribers 'topic="t"')" = 1 ]
	[ "$(value text topic_ring_bytes 'topic="t"')" -gt 0 ]
	[ "$(value text topic_lost_total 'topic="t"')" = 0 ]
	[ "$(value text subscriber_received_total 'topic="t".*name="a')" = 100 ]
	grep -qF 'name="a?b\\c",client=' text
	[ "$(value text log_stands 'topic="durable"')" = 0 ]
	[ -z "$(value text log_stands 'topic="t"')" ]
	[ "$(value text bus_worker_starts_total bus)" = 1 ]
}

@test "metrics_are_served_and_a_scraper_that_hangs_is_in_nobodys_way" {
	shmq create t -q
	start server metrics --listen 127.0.0.1:0
	await '[ -s server.out ]'
	python3 -c '
import socket, sys, time
port = int(sys.argv[1])
kept = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
kept[0].sendall(b"GET /metrics HTTP/1.1\r\nHost:")
open("hanging", "w").close()
time.sleep(60)' "$(sed 's/.*:\([0-9]*\).*/\1/' server.out)" 3>&- &
	STARTED+=($!)
	await '[ -e hanging ]'
	fetch "$(cat server.out)" >text
	check_format text
	shmq create other -q
	fetch "$(cat server.out)" | grep -q 'topic="other"'
	run -1 fetch "$(sed 's/metrics$/else/' server.out)"
	has "$output" 404
	kill "$(pid_of server)"
	finish server
}

# Of what goes on meanwhile two looks see different numbers.
@test "metrics_of_many_who_ask_at_once_are_one_look_a_second" {
	shmq create t -q --policy lossy
	yes 3>&- | "$BIN/shmq" pub t 3>&- & # until it is over
	STARTED+=($!)
	start server metrics --listen 127.0.0.1:0
	await '[ -s server.out ]'
	run -0 timeout 120 python3 -c '
import re, socket, sys, time
port = int(sys.argv[1])
def ask(n):
    s = socket.create_connection(("127.0.0.1", port), timeout=60)
    s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * n +
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    got = b"".join(iter(lambda: s.recv(65536), b""))
    return re.findall(rb"topic_messages_total.bus=\"[^\"]*\",topic=\"t\". (\d+)", got)
while int(ask(0)[0]) == 0: time.sleep(0.01)
while len(set(ask(1))) == 1: pass # who sends may not have run in between
crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(9)]
for _ in range(100): # a second may end in between
    first, second = ask(1)
    if first == second: break
assert first == second
while ask(0)[0] == first: time.sleep(0.1)' "$(sed 's/.*:\([0-9]*\).*/\1/' server.out)"
	kill "$(pid_of server)"
	finish server
}

@test "metrics_answer_who_posts" {
	start server metrics --listen 127.0.0.1:0
	await '[ -s server.out ]'
	run -0 timeout 60 python3 -c '
import sys, urllib.request, urllib.error
try:
    urllib.request.urlopen(sys.argv[1], data=b"abc", timeout=30)
except urllib.error.HTTPError as e:
    print(e.code, e.read().decode(), end="")' "$(cat server.out)"
	[ "$output" = '405 only GET is answered' ]
	kill "$(pid_of server)"
	finish server
}

# Each says a byte now and then, so that none is idle.
@test "metrics_are_served_whoever_is_slow" {
	shmq create t -q
	start server metrics --listen 127.0.0.1:0
	await '[ -s server.out ]'
	python3 -c '
import socket, sys, time
port, kept = int(sys.argv[1]), []
for i in range(100):
    kept.append(socket.create_connection(("127.0.0.1", port)))
    kept[-1].sendall(b"GET /metr")
open("slow", "w").close()
kept[0].settimeout(30)
try:
    end = kept[0].recv(1)
except ConnectionError:
    end = b""
assert end == b""
open("cut", "w").close()
while True:
    for s in kept[-20:]:
        s.sendall(b"i")
    time.sleep(0.1)' "$(sed 's/.*:\([0-9]*\).*/\1/' server.out)" 3>&- &
	STARTED+=($!)
	await '[ -e slow ]'
	fetch "$(cat server.out)" >text
	check_format text
	await '[ -e cut ]'
	kill "$(pid_of server)"
	finish server
}

@test "metrics_that_end_leave_a_socket_that_is_another_ones_by_now" {
	start first metrics --listen "unix:m.sock"
	await '[ -s first.out ]'
	rm m.sock
	start second metrics --listen "unix:m.sock"
	await '[ -s second.out ]'
	kill "$(pid_of first)"
	finish first
	fetch unix:m.sock | grep -q shmq_bus_clients
	kill "$(pid_of second)"
	finish second
	[ ! -e m.sock ]
}

has_open() { # PROCESS FILE
	find "/proc/$1/fd" -lname "$2" 2>/dev/null | grep -q .
}

@test "metrics_that_come_two_at_once_to_a_dead_ones_socket_do_not_both_take_it" {
	shmq create t -q # the bus is there
	python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("m.sock")'
	flock . sh -c 'touch held; while [ -e held ]; do sleep 0.01; done' 3>&- &
	STARTED+=($!)
	await '[ -e held ]'
	start first metrics --listen "unix:m.sock"
	start second metrics --listen "unix:m.sock"
	await 'has_open $(pid_of first) "$PWD" && has_open $(pid_of second) "$PWD"'
	rm held # each waits for it, to look
	await '[ "$(cat first.out second.out | wc -l)" = 1 ] && [ "$(cat first.err second.err | wc -l)" = 1 ]'
	grep -qh 'Address already in use' first.err second.err
	fetch unix:m.sock | grep -q shmq_bus_clients
}

@test "metrics_have_a_filter_of_system_calls_once_they_are_served" {
	grep -q '^Seccomp_filters' /proc/self/status || skip "this kernel does not count filters"
	shmq create t -q
	start server metrics --listen "unix:metrics.sock"
	await '[ -s server.out ]'
	fetch "unix:$DIR/metrics.sock" >text
	outside=$(sed -n 's/^Seccomp_filters:[[:space:]]*//p' /proc/$$/status)
	[ "$(sed -n 's/^Seccomp_filters:[[:space:]]*//p' "/proc/$(pid_of server)/status")" = $((outside + 1)) ]
	kill "$(pid_of server)"
	finish server
	[ ! -e metrics.sock ]
}

@test "metrics_go_on_while_the_supervisor_is_away" {
	shmq create t -q
	start server metrics --listen "unix:$DIR/metrics.sock"
	await '[ -s server.out ]'
	[ "$(stat -c %a metrics.sock)" = 600 ]
	kill -STOP $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR" | grep -vx "$(pid_of server)")
	fetch "unix:$DIR/metrics.sock" >text
	kill -CONT $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR")
	check_format text
	[ "$(value text topic_messages_total 'topic="t"')" = 0 ]
	kill "$(pid_of server)"
	finish server
	[ ! -e metrics.sock ]
}

@test "metrics_are_of_the_bus_that_is_there_and_of_none_that_has_ended" {
	shmq create t -q
	start server metrics --listen 127.0.0.1:0
	await '[ -s server.out ]'
	shmq stop --force
	run -1 fetch "$(cat server.out)"
	has "$output" 503
	shmq create other -q
	fetch "$(cat server.out)" >text
	check_format text
	[ "$(value text topic_messages_total 'topic="other"')" = 0 ]
	[ -z "$(value text topic_messages_total 'topic="t"')" ]
	kill "$(pid_of server)"
	finish server
}

@test "metrics_listen_to_this_machine_only" {
	for address in 0.0.0.0:0 192.0.2.1:9 '[::]:0' 9464 127.0.0.1:99999 127.0.0.1:x localhost: nonsense; do
		run -2 shmq metrics --listen "$address"
	done
	run -2 shmq metrics t
}
