#!/bin/sh
# The probe points are in what is linked: one nop each, with a note of where it is
# and of its arguments; and a tracer that may trace sees them.
header=$(printf '#include <sys/sdt.h>\n' | ${CC:-cc} -E - >/dev/null 2>&1 && echo yes)
library=$SHMQ_BUILD/libshmq.so
notes=$(readelf -n "$library" 2>/dev/null)
echo "1..16"
n=0 failed=0

result() { # code, name, reason for which it is skipped
	n=$((n + 1))
	if [ "$3" ]; then
		echo "ok $n - $2 # SKIP $3"
	elif [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		failed=1 && echo "not ok $n - $2"
	fi
}
why=
[ "$header" ] || why="built without sys/sdt.h"
for probe in publish receive sleep wake recover; do
	printf '%s\n' "$notes" | grep -A1 'Provider: shmq' | grep -q "Name: $probe$"
	result $? "there_is_a_probe_$probe" "$why"
done

# Each place is a nop: byte 90.
places=$(printf '%s\n' "$notes" | sed -n 's/.*Location: 0x\([0-9a-f]*\),.*/\1/p' | sed 's/^0*//')
bad=0
[ "$why" ] || for place in $places; do
	objdump -d --start-address="0x$place" --stop-address=$((0x$place + 1)) "$library" |
		grep -q "$place:.*90.*nop" || bad=1
done
result $bad "each_is_one_nop" "$why"
[ "$why" ] || [ "$(printf '%s\n' "$notes" | grep -c 'Semaphore: 0x0*$')" -ge 5 ]
result $? "none_has_a_counter_to_look_at" "$why"

trace() { # prints how often publish was passed
	timeout 60 bpftrace -e "usdt:$SHMQ_BUILD/tests/proc/messages:shmq:publish { @ = count(); exit(); }" \
		-c "$SHMQ_BUILD/tests/proc/messages" 2>&1
}
tracer=$why
[ "$tracer" ] || command -v bpftrace >/dev/null || tracer="no bpftrace"
[ "$tracer" ] || [ "$(bpftrace -l "usdt:$library:shmq:*" 2>/dev/null | wc -l)" = 5 ]
result $? "a_tracer_lists_all_of_them" "$tracer"
[ "$tracer" ] || [ -e /sys/kernel/tracing/uprobe_events ] || tracer="this kernel has no uprobes"
[ "$tracer" ] || bpftrace -e 'BEGIN { exit(); }' >/dev/null 2>&1 || tracer="this machine lets nobody trace"
[ "$tracer" ] || trace | grep -q '@: [1-9]'
result $? "a_tracer_sees_messages" "$tracer"

# perf finds them in a file by itself; its cache is one of our own.
lister=$why
[ "$lister" ] || command -v perf >/dev/null || lister="no perf"
perf_lists() {
	cache=$(mktemp -d)
	perf --buildid-dir "$cache" buildid-cache --add "$library" >/dev/null 2>&1
	[ "$(perf --buildid-dir "$cache" list sdt 2>/dev/null | grep -c ' sdt_shmq:')" = 5 ]
	found=$?
	rm -rf "$cache"
	return $found
}
[ "$lister" ] || perf_lists
result $? "perf_lists_all_of_them" "$lister"

# What perf and bpftrace have the kernel do: it counts who passes the place of a note.
tracing=/sys/kernel/tracing event=shmq$$
counter=$why
[ "$counter" ] || { echo "p:$event/try $SHMQ_BUILD/shmq:0x1000" && echo "-:$event/try"; } 2>/dev/null >>$tracing/uprobe_events ||
	counter="this machine takes no uprobes"
counted() { # probe, arguments...: how often our copy of the program passes it, which nobody else runs
	places=$(readelf -n "$dir/shmq" 2>/dev/null | grep -A1 "Name: $1$" | sed -n 's/.*Location: 0x0*\([0-9a-f]*\),.*/\1/p')
	shift
	moved=$(($(readelf -lW "$dir/shmq" | awk '$1 == "LOAD" && / R E / { print $2 "-" $3; exit }')))
	for place in $places; do
		printf 'p:%s/%s_%s %s:0x%x\n' $event $event "$place" "$dir/shmq" $((0x$place + moved))
	done >>$tracing/uprobe_events
	mkdir $tracing/instances/$event && echo 1 >$tracing/instances/$event/events/$event/enable && "$dir/shmq" "$@"
	awk -v event=${event}_ 'index($2, event) == 1 { n += $3 } END { print n + 0 }' $tracing/uprobe_profile
	echo 0 >$tracing/instances/$event/events/$event/enable
	rmdir $tracing/instances/$event
	for place in $places; do echo "-:$event/${event}_$place"; done >>$tracing/uprobe_events
}

# A debugger stops at them as a tracer does, and needs no right over the machine.
debugger=$why
[ "$debugger" ] || command -v gdb >/dev/null || debugger="no gdb"
[ "$debugger" ] || DEBUGINFOD_URLS= timeout 60 gdb -nx -q -batch -ex run --args true 2>&1 | grep -q 'exited normally' ||
	debugger="gdb may run no program here"
[ "$debugger" ] || [ ! "$SHMQ_SANITIZED" ] || debugger="a sanitizer's programs are no debugger's"
dir=$(mktemp -d)
mkdir -m 700 "$dir/run"
export SHMQ_RUNTIME_DIR="$dir/run" SHMQ_BUS=probes
shmq() { timeout 60 "$SHMQ_BUILD/shmq" "$@"; }
trap 'shmq stop --force >/dev/null 2>&1; rm -rf "$dir"' EXIT
hits() { # what to print at each, program...: one line per hit: probe, number of arguments, values
	script=$(mktemp "$dir/gdb.XXXXXX")
	# Whoever stops all of the machine's work for a while stops no test.
	printf 'set breakpoint pending on\nhandle SIGSTOP SIGCONT nostop noprint pass\n' >"$script"
	for probe in publish receive sleep wake recover; do
		case $probe in
		publish | receive) values='"%lu %lu\\n", $_probe_arg1, $_probe_arg2' ;;
		sleep) values='"%lu %d\\n", $_probe_arg1, *(unsigned *)$_probe_arg0 > 0' ;;
		wake) values='"%d\\n", *(unsigned *)$_probe_arg0 > 0' ;;
		recover) values='"%lu %lu %lu\\n", $_probe_arg1, $_probe_arg2, $_probe_arg3' ;;
		esac
		printf 'break -probe-stap shmq:%s\ncommands\nsilent\nprintf "probe %s %%d ", $_probe_argc\nprintf %b\ncontinue\nend\n' \
			$probe $probe "$values"
	done >>"$script"
	echo run >>"$script"
	DEBUGINFOD_URLS= timeout 60 gdb -nx -q -batch -x "$script" --args "$@" 2>/dev/null | grep '^probe '
}
asleep() { shmq stat t --json | sed 's/.*"sleepers":\([0-9]*\).*/\1/'; }
are() { [ "$(grep "^probe $1 " "$2" | tr '\n' ';')" = "$3" ]; }
if [ ! "$debugger" ]; then
	printf 'a\nbb\nccc\n' >"$dir/lines"
	shmq create t -q
	hits "$SHMQ_BUILD/shmq" pub t --lines --batch 1 >"$dir/pub" <"$dir/lines"
	hits "$SHMQ_BUILD/shmq" sub t --from oldest --count 3 >"$dir/sub"
	hits "$SHMQ_BUILD/shmq" sub t --count 1 >"$dir/sleeper" </dev/null &
	# Who publishes wakes whom it finds asleep, by its coming too: it is to be there before.
	mkfifo "$dir/input"
	hits "$SHMQ_BUILD/shmq" pub t --lines <"$dir/input" >"$dir/waker" &
	exec 5>"$dir/input"
	tries=0
	until shmq stat t --json | grep -q '"publishers":1' || [ $((tries += 1)) = 3000 ]; do sleep 0.02; done
	until [ "$(asleep)" = 1 ] || [ $((tries += 1)) = 3000 ]; do sleep 0.02; done
	cat "$dir/lines" >&5
	exec 5>&-
	wait
	hits "$SHMQ_BUILD/tests/unit/recover" -g claims_in_every_partition_are_voided >"$dir/recoverer"
fi
if [ ! "$counter" ]; then
	shmq create counted -q
	cp "$SHMQ_BUILD/shmq" "$dir"
	sent=$(printf 'a\nbb\nccc\n' | counted publish pub counted)
	taken=$(counted receive sub counted --from oldest --count 3 | tail -n 1)
	[ "$sent $taken" = '3 3' ] || { echo "$sent published, $taken received" >&2 && false; }
fi
result $? "the_kernel_counts_who_passes_them" "$counter"
[ "$debugger" ] || are publish "$dir/pub" 'probe publish 3 0 1;probe publish 3 1 2;probe publish 3 2 3;'
result $? "publish_is_passed_with_seq_and_bytes" "$debugger"
[ "$debugger" ] || are receive "$dir/sub" 'probe receive 3 0 1;probe receive 3 1 2;probe receive 3 2 3;'
result $? "receive_is_passed_with_seq_and_bytes" "$debugger"
[ "$debugger" ] || grep -q '^probe sleep 2 1 ' "$dir/sleeper"
result $? "sleep_is_passed_with_the_word_of_the_bell" "$debugger"
[ "$debugger" ] || are wake "$dir/waker" 'probe wake 1 1;'
result $? "wake_is_passed_once_for_a_sleeper_with_the_word_of_the_bell" "$debugger"
[ "$debugger" ] || are recover "$dir/recoverer" 'probe recover 4 0 1 1;probe recover 4 1 1 1;probe recover 4 2 1 1;'
result $? "recover_is_passed_with_partition_client_and_what_it_voided" "$debugger"
exit $failed
