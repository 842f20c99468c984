#!/bin/sh
# No file includes a higher layer, and the check of it does find one.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
refuses() { # file, line
	rm -rf "$dir/top"
	mkdir -p "$dir/top/libshmq" "$dir/top/daemon/cli" "$dir/top/include" "$dir/top/examples"
	touch "$dir/top/libshmq/ring.h" "$dir/top/libshmq/topic.h" "$dir/top/daemon/control.h"
	echo "$2" >"$dir/top/$1"
	! tests/lint/layers "$dir/top" 2>/dev/null
}

echo 1..6
check the_source_keeps_its_layers tests/lint/layers
check a_higher_layer_is_refused refuses libshmq/ring.c '#include "topic.h"'
check a_lower_layer_is_allowed eval '! refuses libshmq/topic.c "#include \"ring.h\""'
check the_library_may_not_use_the_daemon refuses libshmq/topic.c '#include "control.h"'
check the_command_line_may_not_use_the_library refuses daemon/cli/main.c '#include "ring.h"'
check an_example_may_not_use_the_library refuses examples/a.c '#include "../libshmq/ring.h"'
exit $failed
