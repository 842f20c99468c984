#!/bin/sh
# A benchmark whose messages are lost, doubled or torn on the way says so and
# fails, whatever it measures: each of its runs that sends any, one after the other.
said=$(mktemp) && out=$(mktemp) || exit 1
trap 'rm -f "$said" "$out"' EXIT
n=0 failed=0
# By itself, all of its workloads, in forks of the same process (--mutants).
many='broadcast contended counts latency publish_cost rtt stream'
programs=$(for source in bench/*.c; do
	[ -e "${source%.c}.h" ] || basename "$source" .c
done | grep -vx -e memory -e peer_check) # which send nothing of their own

check() { # name, exit status wanted, program, options...
	name=$1 want=$2 mutant=$SHMQ_BUILD/tests/bench/$3 n=$((n + 1))
	shift 3
	"$mutant" --peers none "$@" >"$out" 2>"$said"
	got=$?
	if [ $got -eq "$want" ] && { [ "$want" -eq 0 ] || grep -q '^bench: ' "$said"; }; then
		echo "ok $n - $name"
	else
		failed=1 && echo "not ok $n - $name" && echo "$name: exit status $got" >&2
		cat "$said" >&2
	fi
}

for program in $programs; do
	unset SHMQ_MUTANT
	case " $many " in *" $program "*)
		check "each_run_of_${program}_fails_on_rings_that_lose_double_and_tear" 0 "$program" --mutants
		continue
		;;
	esac
	check "${program}_succeeds_on_the_ring_as_it_is" 0 "$program" --smoke
	runs=$(sed -n 's/^published //p' "$out")
	for SHMQ_MUTANT_RUN in ${runs:-0}; do
		for SHMQ_MUTANT in lose double tear; do
			export SHMQ_MUTANT SHMQ_MUTANT_RUN
			check "${program}_fails_on_rings_that_${SHMQ_MUTANT}_in_run_$SHMQ_MUTANT_RUN" 1 "$program" --smoke --limit 2
		done
	done
done
echo "1..$n"
exit $failed
