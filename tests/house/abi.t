#!/bin/sh
# The interface is the one on record, and a change of it is noticed.
library=$(ls "${SHMQ_BUILD:-build}"/libshmq.so)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
fresh() {
	rm -rf "$dir/tree" && mkdir -p "$dir/tree/include" "$dir/tree/libshmq"
	cp include/shmq.h "$dir/tree/include"
	cp libshmq/abi libshmq/libshmq.abi "$dir/tree/libshmq"
}
change() { # sed script of the header
	fresh
	sed -i "$1" "$dir/tree/include/shmq.h"
	! cmp -s include/shmq.h "$dir/tree/include/shmq.h"
}
abi() { (cd "$dir/tree" && libshmq/abi "$1" "$library" >"$dir/said" 2>&1); }
library=$(realpath "$library")
noticed() { # sed script, what is said
	change "$1" && ! abi --check && grep -q "$2" "$dir/said"
}
release() { (cd "$dir/tree" && git init -q && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m t && git tag v"$(sed -n 's/^version //p' libshmq/libshmq.abi)"); }

echo 1..8
check it_is_the_one_on_record libshmq/abi --check "$library"
check a_member_that_moves_is_noticed noticed 's/^struct shmq_msg {/&\n\tint other;/' 'breaks programs'
check an_enumerator_that_changes_is_noticed noticed 's/SHMQ_LOSSY,/SHMQ_LOSSY = 77,/' 'breaks programs'
check a_prototype_that_changes_is_noticed noticed 's/^int shmq_bus_stop(shmq_bus \*bus, unsigned flags)/int shmq_bus_stop(shmq_bus *bus)/' 'breaks programs'
check what_is_new_is_noticed noticed 's/^int shmq_bus_stop(/int shmq_bus_new(void);\n&/' '^abi: .*run .make abi'
change 's/^struct shmq_msg {/&\n\tint other;/'
check it_can_be_renewed_before_a_release abi --renew
fresh
release
check what_breaks_nothing_can_be_renewed_after_one sh -c "cd '$dir/tree' && sed -i 's/^int shmq_bus_stop(/int shmq_bus_new(void);\n&/' include/shmq.h && libshmq/abi --renew '$library'"
change 's/^struct shmq_msg {/&\n\tint other;/'
release
check what_breaks_programs_can_not sh -c "cd '$dir/tree' && ! libshmq/abi --renew '$library' && cmp libshmq/libshmq.abi '$PWD/libshmq/libshmq.abi'"
exit $failed
