#!/bin/sh
# No cache line goes from one processor to the other unseen: of a round trip each
# message moves as many as its payload and control word are in, and what an arena adds.
# `fetched` are those that the other processor had changed, `taken` those that it had and
# has no more, as bench/trace.h has it; a few that are touched once count as well.
counted=$(mktemp) || exit 1
trap 'rm -f "$counted"' EXIT
failed=0 n=1
figures='rtt.spin.32.fetched=1 rtt.spin.32.taken=1
	rtt.spin.64.fetched=2 rtt.spin.64.taken=2
	zerocopy.rtt.64.fetched=2 zerocopy.rtt.64.taken=2
	zerocopy.rtt.1M.fetched=2.5 zerocopy.rtt.1M.taken=3.5'

echo "1..$(($(echo "$figures" | wc -w) + 1))"
if "$SHMQ_BUILD/bench/rtt" --smoke --peers none >"$counted"; then
	echo "ok 1 - counting_succeeds"
else
	failed=1 && echo "not ok 1 - counting_succeeds"
fi
why=$(sed -n 's/^label rtt \(.*not counted.*\)/\1/p' "$counted")
for figure in $figures; do
	n=$((n + 1)) name=${figure%=*} most=${figure#*=}
	got=$(sed -n "s/^figure ${name%.*}.counted.${name##*.} \([0-9.]*\) .*/\1/p" "$counted")
	sentence=$(echo "$name" | tr . _)_lines_are_what_a_message_is_in
	if [ "$why" ]; then
		echo "ok $n - $sentence # SKIP $why"
	elif [ "$got" ] && echo "$got $most" | awk '{ exit !($1 >= $2 && $1 <= $2 + 0.2) }'; then
		echo "ok $n - $sentence"
	else
		failed=1 && echo "not ok $n - $sentence"
		echo "$name: ${got:-none} for each message, not $most" >&2
	fi
done
exit $failed
