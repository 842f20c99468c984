#!/bin/sh
# A benchmark whose messages are lost, doubled or torn on the way says so and
# fails, whatever it measures.
said=$(mktemp) || exit 1
trap 'rm -f "$said"' EXIT
n=0 failed=0
programs=$(for source in bench/*.c; do
	[ -e "${source%.c}.h" ] || basename "$source" .c
done | grep -vx -e memory -e peer_check) # which send nothing of their own

check() { # name, exit status wanted, program, options...
	name=$1 want=$2 mutant=$SHMQ_BUILD/tests/bench/$3 n=$((n + 1))
	shift 3
	"$mutant" --smoke --peers none "$@" >/dev/null 2>"$said"
	got=$?
	if [ $got -eq "$want" ] && { [ "$want" -eq 0 ] || grep -q '^bench: ' "$said"; }; then
		echo "ok $n - $name"
	else
		failed=1 && echo "not ok $n - $name" && echo "$name: exit status $got" >&2
		cat "$said" >&2
	fi
}

echo "1..$(($(echo "$programs" | wc -l) * 4))"
for program in $programs; do
	unset SHMQ_MUTANT
	check "${program}_succeeds_on_the_ring_as_it_is" 0 "$program"
	for SHMQ_MUTANT in lose double tear; do
		export SHMQ_MUTANT
		check "${program}_fails_on_rings_that_$SHMQ_MUTANT" 1 "$program" --limit 2
	done
done
exit $failed
