#!/bin/sh
# The hot path does not grow unseen: a call takes as many instructions as
# tests/bench/instructions says, give or take 3 %.
counted=$(mktemp) || exit 1
trap 'rm -f "$counted"' EXIT
figures=$(sed -n 's/^\([a-z]*\.[a-z_]*\)  *\([0-9]*\)$/\1=\2/p' tests/bench/instructions)
compiler=$(sed -n 's/^compiler //p' tests/bench/instructions)
used=$(readelf --debug-dump=info "$SHMQ_BUILD/libshmq.a" 2>/dev/null |
	sed -n 's/.*DW_AT_producer.*: \(GNU .*\)/\1/p' | sort -u)

why_not() { # prints why the figures say nothing here
	case $used in
	$compiler) ;;
	*) echo "the figures are not of a library compiled by ${used:-another compiler, or without -g}" && return ;;
	esac
	sed -n "s/^distrust counts.instructions //p" "$counted"
}
is_as_checked_in() { # name, figure
	got=$(sed -n "s/^figure counts.instructions.$1 \([0-9]*\) .*/\1/p" "$counted")
	[ "$got" ] && [ $((got * 100)) -le $(($2 * 103)) ] && [ $((got * 100)) -ge $(($2 * 97)) ] && return
	echo "$1 takes ${got:-no} instructions, tests/bench/instructions says $2" >&2
	return 1
}

[ "$figures" ] || exit 1
echo "1..$(($(echo "$figures" | wc -l) + 1))"
n=1 failed=0
if "$SHMQ_BUILD/bench/counts" --smoke >"$counted"; then
	echo "ok 1 - counting_succeeds"
else
	failed=1 && echo "not ok 1 - counting_succeeds"
fi
why=$(why_not)
for figure in $figures; do
	n=$((n + 1)) name=$(echo "${figure%=*}" | tr . _)_takes_what_is_checked_in
	if [ "$why" ]; then
		echo "ok $n - $name # SKIP $why"
	elif is_as_checked_in "${figure%=*}" "${figure#*=}"; then
		echo "ok $n - $name"
	else
		failed=1 && echo "not ok $n - $name"
	fi
done
exit $failed
