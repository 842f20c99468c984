#!/bin/sh
# A benchmark that is asked for what there is not says so and exits with 2,
# before it measures anything, and a check of nothing is no success.
said=$(mktemp) || exit 1
trap 'rm -f "$said"' EXIT
n=0 failed=0
programs=$(for source in bench/*.c; do
	[ -e "${source%.c}.h" ] || basename "$source" .c
done)

check() { # name, exit status wanted, what it says, program, options...
	name=$1 want=$2 says=$3 file=$SHMQ_BUILD/bench/$4 n=$((n + 1))
	shift 4
	timeout 60 "$file" "$@" >/dev/null 2>"$said"
	got=$?
	if [ $got -eq "$want" ] && grep -q "^bench: .*$says" "$said"; then
		echo "ok $n - $name"
	else
		failed=1 && echo "not ok $n - $name" && echo "$name: exit status $got" >&2
		cat "$said" >&2
	fi
}

echo "1..$(($(echo "$programs" | wc -l) * 2 + 4))"
for program in $programs; do
	check "${program}_takes_no_operands" 2 '"ck"' "$program" --smoke ck
	check "${program}_knows_all_peers" 2 'no peer "kc"' "$program" --smoke --peers ck,kc
done
check a_list_of_no_peer_is_bad_usage 2 'no peer ""' rtt --peers ''
check to_check_no_peer_is_no_success 1 'nothing was checked' peer_check --smoke --peers none
check what_is_no_transport_is_not_checked 1 'nothing was checked' peer_check --smoke --peers lmdb

n=$((n + 1)) commit=$(grep '^[0-9a-f]' bench/commit || git rev-parse HEAD 2>/dev/null)
if [ ! "$commit" ]; then
	echo "ok $n - the_build_says_its_commit # SKIP no repository"
elif grep -q "^commit $commit" "$SHMQ_BUILD/bench/built.txt"; then
	echo "ok $n - the_build_says_its_commit"
else
	failed=1 && echo "not ok $n - the_build_says_its_commit" && cat "$SHMQ_BUILD/bench/built.txt" >&2
fi
exit $failed
