#!/bin/sh
# Every file and every function of the library has its test, and the check of
# it finds one that has none.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
make_house() { # what the unit test says
	rm -rf "$dir/top"
	mkdir -p "$dir/top/libshmq" "$dir/top/include" "$dir/top/tests/unit" "$dir/top/tests/proc" \
		"$dir/top/tests/lib"
	touch "$dir/top/libshmq/ring.c" "$dir/top/tests/proc/api.c" "$dir/top/tests/lib/helpers.h"
	echo 'int shmq_publish(void);' >"$dir/top/include/shmq.h"
	echo "$1" >"$dir/top/tests/unit/ring.c"
}
refuses() { # file
	touch "$dir/top/$1"
	! tests/lint/tested "$dir/top" 2>/dev/null
}

echo 1..4
check everything_is_tested tests/lint/tested
make_house 'shmq_publish();'
check what_is_tested_passes tests/lint/tested "$dir/top"
check a_file_without_unit_test_is_found refuses libshmq/arena.c
make_house 'shmq_publish_msg(); the_shmq_publish();'
check a_function_without_test_is_found refuses libshmq/ring.c
exit $failed
