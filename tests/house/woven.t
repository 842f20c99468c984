#!/bin/sh
# Every file that orders what it shares runs under the scheduler of tests/weave, or is on
# the list of those that do not, with the reason; and the check of it finds one that is not.
list=tests/weave/unwoven
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
ordering() { # files
	grep -lE '\<(load_acquire|store_release|add_release|add_acqrel|cas_acqrel|fence_(release|acquire|full)|memory_order_[a-z]+)\>' "$@" | sort
}
woven() {
	sed -n '/^WOVEN /,/[^\\]$/p' Makefile | tr -s ' \t\\' '\n' | sed -n 's|^[a-z_]*$|libshmq/&.c|p' | sort
}
listed() { sed -n 's|^\([a-z]*/[a-z_]*\.c\)  *[^ ].*|\1|p' "$1" | sort; }
not_known() { # list, files...
	known=$(listed "$1"; woven)
	shift
	for file in $(ordering "$@"); do
		echo "$known" | grep -qx "$file" || { echo "$file is neither woven nor on $list" >&2; return 0; }
	done
	return 1
}
stale() { # list
	for file in $(listed "$1"); do
		[ -e "$file" ] && [ "$(ordering "$file")" ] && ! woven | grep -qx "$file" || { echo "$file need not be on $list" >&2; return 0; }
	done
	return 1
}
none() { ! "$@"; }
without=$(mktemp) || exit 1
trap 'rm -f "$without"' EXIT
grep -v '^libshmq/notify' $list >"$without"
files='libshmq/*.c daemon/*.c'

echo 1..5
check some_are_woven [ "$(woven | wc -l)" -ge 20 ]
check the_others_are_named_with_a_reason none not_known $list $files
check none_is_named_that_need_not_be none stale $list
check one_that_is_not_named_is_found not_known "$without" $files
echo 'libshmq/error.c    none' >>"$without"
check one_that_is_named_for_nothing_is_found stale "$without"
exit $failed
