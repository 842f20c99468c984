#!/bin/sh
# Every test that SECURITY.md names exists, each line of it names one, and the checks of
# that find what does not.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
# "file test" or "fuzz/target", each between backquotes.  A fuzz target is itself
# a test.
reference='`(unit|proc|daemon|fuzz|cli)/[a-z_]+( [a-z0-9_]+)?`'
references() { # document
	grep -oE "$reference" "$1" | tr -d '`'
}
# Lines of lists, with what belongs to them, that name none, but for what is not there.
without() { # document
	awk -v reference="$reference" '
	function close_it() { if (line != "" && line !~ reference && line !~ /not there yet/) print line; line = "" }
	/^- / { close_it(); line = $0; next }
	line != "" && /^  / { line = line $0; next }
	{ close_it() }
	END { close_it() }' "$1"
}
each_names_one() { # document
	without "$1" >"$dir/without"
	[ ! -s "$dir/without" ] || { cat "$dir/without" >&2; return 1; }
}
is_in() { # file, test
	grep -qE "^TEST(_WITHIN)?\($2[,)]" "tests/$1.c"
}
all_exist() { # document
	references "$1" | while read -r file test; do
		case $file in
		cli/*) [ "$test" ] && grep -q "^@test \"$test\"" "tests/$file.bats" ;;
		fuzz/*) [ -e "tests/$file.c" ] && [ -d "tests/fuzz/corpus/${file#fuzz/}" ] && { [ -z "$test" ] || is_in "$file" "$test"; } ;;
		*) [ "$test" ] && is_in "$file" "$test" ;;
		esac || {
			echo "$1 names $file $test, which does not exist" >&2
			exit 1
		}
	done
}
refuses() { # line
	echo "$1" >"$dir/document"
	! all_exist "$dir/document" 2>/dev/null
}

echo 1..8
check tests_are_named [ "$(references SECURITY.md | wc -l)" -ge 40 ]
check all_of_them_exist all_exist SECURITY.md
check each_line_names_one each_names_one SECURITY.md
printf -- '- is shown\n  by `fuzz/publisher`\n- is not\n  shown\n\ntext\n' >"$dir/lines"
check a_line_that_names_none_is_found [ "$(without "$dir/lines")" = '- is not  shown' ]
check a_test_that_is_not_there_is_found refuses '`proc/hostile nobody_can_do_anything`'
check a_test_in_another_file_is_found refuses '`proc/api a_mad_cursor_can_only_look_slow`'
check a_target_that_is_not_there_is_found refuses '`fuzz/nothing`'
check a_test_that_a_target_does_not_have_is_found refuses '`fuzz/publisher nobody_can_do_anything`'
exit $failed
