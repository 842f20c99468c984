#!/bin/sh
# What builds share, in memory, over sockets and on disk, is what is on record, and
# changes with its version alone.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
change() { # of a fresh copy: file and sed script, as often as there are
	rm -rf "$dir/tree" && mkdir -p "$dir/tree/daemon" && cp -r include "$dir/tree" || return 1
	cp daemon/link.h "$dir/tree/daemon"
	mkdir "$dir/tree/libshmq" && cp libshmq/*.h libshmq/abi libshmq/shared.abi "$dir/tree/libshmq"
	while [ $# -gt 0 ]; do
		sed -i "$2" "$dir/tree/$1"
		! cmp -s "$1" "$dir/tree/$1" || return 1
		shift 2
	done
}
abi() { (cd "$dir/tree" && libshmq/abi "$1" --shared >"$dir/said" 2>&1); }
refused() { # as change; the record stays as it is, so it is refused for ever
	change "$@" && ! abi --renew && grep -q 'raise LAY_VERSION' "$dir/said" &&
		cmp -s libshmq/shared.abi "$dir/tree/libshmq/shared.abi"
}
noticed() { # as change; it is new on record, and right then
	change "$@" && ! abi --check && grep -q 'run .make abi' "$dir/said" && abi --renew
}
raise() { echo "s/^#define $1_VERSION (*1u/&1/;s/1u1/2u/"; }

echo 1..10
check it_is_what_is_on_record libshmq/abi --check --shared
check what_moves_in_memory_is_refused refused libshmq/layout.h 's/^	shmq_au32 word;.*/	uint32_t other;\n&/;s/pad\[10\]/pad[9]/'
check what_moves_in_messages_and_logs_and_between_supervisors_is_refused refused \
	libshmq/proto.h 's/^	int32_t pid;/	int32_t other;\n&/' \
	libshmq/log_format.h 's/^	uint16_t type;/	uint8_t type;/' \
	daemon/link.h 's/LINK_STOP,/LINK_OTHER,\n&/'
check each_of_these_is_named sh -c "grep -q 'proto_event.pid' '$dir/said' && grep -q 'log_record.type' '$dir/said' && grep -q LINK_STOP '$dir/said'"
check where_the_bits_of_a_word_are_is_refused refused libshmq/layout.h 's/(w) >> 17/(w) >> 16/'
check what_requests_and_replies_begin_with_is_refused refused libshmq/reply.h 's/^	uint64_t requester;.*/	uint32_t requester, other;/'
check what_moves_under_the_version_of_another_is_refused refused libshmq/layout.h 's/LAY_COMMITTED = 2/LAY_COMMITTED = 6/' \
	libshmq/proto.h "$(raise PROTO)"
check what_all_carry_is_refused_under_the_version_of_one refused include/shmq.h 's/SHMQ_LOSSY,/SHMQ_LOSSY = 77,/' \
	libshmq/layout.h "$(raise LAY)"
check what_moves_under_its_version_is_taken noticed libshmq/layout.h "s/LAY_COMMITTED = 2/LAY_COMMITTED = 6/;$(raise LAY)"
check what_comes_where_nothing_was_is_taken noticed libshmq/layout.h 's/^	uint32_t pad\[10\];/	uint32_t other, pad[9];/'
exit $failed
