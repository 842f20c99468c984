#!/bin/sh
# The tables of shmq_log(5) and the structs of log_format.h are the same bytes, its
# kinds and flags the same numbers, and the check of it finds a difference.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}

# Every row of a table as an assertion; a name that is too long for its column
# goes on in the next row.
assertions() {
	awk -F '|' '
	{ for (i = 2; i <= 5; i++) gsub(/^ +| +$/, "", $i) }
	$2 == "off" { type = $4; next }
	type ~ /_$/ && $2 == "" && $4 != "" { type = type $4; next }
	$2 ~ /^[0-9]+$/ && $3 ~ /^[0-9]+$/ && $4 ~ /^[a-z_]+$/ {
		printf "_Static_assert(offsetof(struct %s, %s) == %s, \"%s\");\n", type, $4, $2, $4
		printf "_Static_assert(sizeof(((struct %s *)0)->%s) == %s, \"%s\");\n", type, $4, $3, $4
	}' "$1"
}
# Every kind, reason and bit, and the numbers that the text has.
values() {
	awk '
	function same(name, value) {
		printf "_Static_assert(%s == %s, \"%s\");\n", name, value, name
	}
	/^Why a gap is one/ { prefix = "GAP_" }
	/^\.It [A-Z]+ [0-9]+$/ { same("LOG_" prefix $2, $3) }
	/^SUPERSEDED|^With SUPERSEDED/ { same("LOG_HOLE_SUPERSEDED", $3) }
	/^BATCH is [0-9]+ and META is [0-9]+/ {
		same("SHMQ_MSG_BATCH", $3)
		same("SHMQ_MSG_META", $7 + 0)
	}
	/body, of at most [0-9]+ bytes/ { same("LOG_BODY_MAX", $10) }
	/the numbers 0x[0-9a-f]+ and/ { sub(/.*0x/, "0x"); same("LOG_ZIP_SKIPPED", $1) }
	/frame_bytes .*1 to [0-9]+; written/ {
		gsub(/[^0-9 ]/, "")
		same("LOG_ZIP_FRAME_MAX", $4)
		same("LOG_ZIP_FRAME", $5)
	}
	/every [0-9]+ bytes of the segment/ { same("LOG_INDEX_BYTES", $2) }
	' "$1"
}
agrees() { # page
	{
		echo '#include "log_format.h"
#include "proto.h"'
		assertions "$1"
		values "$1"
	} >"$dir/t.c"
	${CC:-cc} -std=gnu11 -Iinclude -Ilibshmq -c -o "$dir/t.o" "$dir/t.c" 2>"$dir/said"
}
# Every field of the header's structs has a row.
complete() {
	fields=$({
		cat libshmq/log_format.h
		sed -n '/^struct proto_options {/,/^};/{s/proto_/log_/;s/, pad;/;/;s/, /;\n	int /g;p}' libshmq/proto.h
	} | sed -n '/^struct log_/,/^};/s/^	[a-z].*[ *]\([a-z_]*\)\(\[.*\]\)*;.*/\1/p' |
		grep -vcxE 'pad|rest')
	[ "$(assertions man/shmq_log.5 | grep -c offsetof)" -eq "$fields" ]
}
refuses() { # what of the page is replaced, by what
	sed "s/$1/$2/" man/shmq_log.5 >"$dir/page"
	! cmp -s "$dir/page" man/shmq_log.5 && ! agrees "$dir/page"
}
magics() { # as text in the page, as numbers in the header
	for magic in $(sed -n 's/.*magic *| "\(SHMQ....\)".*/\1/p' man/shmq_log.5); do
		grep -q "0x$(printf %s "$magic" | rev | od -An -tx1 | tr -d ' \n')).*\"$magic\"" \
			libshmq/log_format.h || return 1
	done
}

numbers() { # all of them are looked at
	[ "$(values man/shmq_log.5 | grep -c assert)" -eq 17 ]
}

echo 1..8
check every_row_is_a_field_at_its_offset agrees man/shmq_log.5
check every_field_has_a_row complete
check every_magic_is_the_headers magics
check a_wrong_offset_is_found refuses '|  24 |    8 | tag ' '|  25 |    8 | tag '
check a_wrong_size_is_found refuses '|  36 |    1 | kind ' '|  36 |    2 | kind '
check every_number_of_the_text_is_the_headers numbers
check a_wrong_kind_is_found refuses 'It HOLE 2' 'It HOLE 3'
check a_wrong_flag_is_found refuses 'It BOUND 8' 'It BOUND 4'
exit $failed
