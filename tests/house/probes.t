#!/bin/sh
# The probe points are in what is linked: one nop each, with a note of where it is
# and of its arguments; and a tracer that may trace sees them.
header=$(printf '#include <sys/sdt.h>\n' | ${CC:-cc} -E - >/dev/null 2>&1 && echo yes)
library=$SHMQ_BUILD/libshmq.so
notes=$(readelf -n "$library" 2>/dev/null)
echo "1..9"
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
exit $failed
