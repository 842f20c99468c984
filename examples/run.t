#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs every example on a bus of its own and holds its output and exit code
# against what it promises.
set -u

build=${SHMQ_BUILD:-build}
source=$(dirname "$0")
SHMQ_DAEMON=${SHMQ_DAEMON:-$build/shmqd}
shmq=${SHMQ:-$build/shmq}
dir=$(mktemp -d)
SHMQ_RUNTIME_DIR=$dir/bus
SHMQ_DATA_DIR=$dir/data
export SHMQ_DAEMON SHMQ_RUNTIME_DIR SHMQ_DATA_DIR
mkdir -m 700 "$SHMQ_RUNTIME_DIR"
trap 'rm -rf "$dir"' EXIT

count=0
failed=0

# result NAME: a TAP line from the exit code before.
result() {
	if [ $? -eq 0 ]; then
		verdict=ok
	else
		verdict='not ok'
		failed=1
	fi
	count=$((count + 1))
	echo "$verdict $count - $1"
}

# same FILE: whether FILE has the lines of stdin; shows the difference if not.
same() {
	cat >"$dir/wanted"
	diff -u "$dir/wanted" "$1" >&2
}

run() {
	timeout -k 1 30 "$@"
}

# Lines that are neither blank, nor comment, nor a lone brace.
code_lines() {
	sed -e '/^\/\*/,/\*\/$/d' -e '/^[[:space:]]*[{}]*$/d' "$1" | wc -l
}

all_have_20() {
	for example; do
		[ "$(code_lines "$example")" -eq 20 ] || {
			echo "# $example has $(code_lines "$example") lines of code" >&2
			return 1
		}
	done
}

# bus_gone: whether the supervisor leaves, now that its bus is empty.
bus_gone() {
	for _ in $(seq 100); do
		grep -qs "$SHMQ_RUNTIME_DIR" /proc/[0-9]*/environ || return 0
		sleep 0.1
	done
	grep -ls "$SHMQ_RUNTIME_DIR" /proc/[0-9]*/environ | sed 's/^/# still there: /' >&2
	return 1
}

sed -n '/^```c$/,/^```$/p' "$source/../README.md" | sed '/^```/d' >"$dir/readme.c"
all_have_20 "$source/publisher.c" "$source/subscriber.c" "$dir/readme.c"
result the_examples_of_twenty_lines_have_twenty_lines_of_code

grep -q '^## Twenty lines of code$' "$source/../README.md" && ${CC:-cc} -Wall -Wextra -Werror \
	-fsyntax-only -I"$source/../include" "$dir/readme.c"
result the_example_of_the_readme_compiles

# as_hello: whether it is what the command line says of it that is true.
as_hello() {
	[ ! "${SHMQ_SANITIZED-}" ] || return 0
	${CC:-cc} -I"$source/../include" -o "$dir/hello" "$dir/readme.c" -L"$build" -lshmq &&
		LD_LIBRARY_PATH=$build run "$dir/hello" >"$dir/out" && echo 'hello, seq 0' | same "$dir/out" &&
		run "$shmq" rm md.equities.AAPL
}
as_hello
result the_example_of_the_readme_runs

# compiles NAME: whether the compile line on top of an example is true.
compiles() {
	grep -qF "cc -o $1 $1.c \$(pkg-config --cflags --libs shmq)" "$source/$1.c" &&
		${CC:-cc} -Wall -Wextra -Werror -fsyntax-only -I"$source/../include" "$source/$1.c"
}

all_compile() {
	for example in "$source"/*.c; do
		compiles "$(basename "$example" .c)" || return 1
	done
}

all_compile
result every_example_names_its_compile_line_and_needs_no_more

run "$build/examples/subscriber" >"$dir/out" &
subscriber=$!
run "$build/examples/publisher" 'AAPL 189.70' 'MSFT 411.22' 'NVDA 121.79'
result publisher_starts_the_bus_waits_for_its_subscriber_and_exits_0
wait $subscriber
result subscriber_ends_with_its_publisher_and_exits_0
same "$dir/out" <<'END'
AAPL 189.70
MSFT 411.22
NVDA 121.79
END
result subscriber_prints_every_message_in_order
run "$shmq" rm prices
result topic_is_removed

run "$build/examples/zero_copy" >"$dir/out"
result zero_copy_exits_0
same "$dir/out" <<'END'
frame 0: 1048576 bytes, 1048576 pixels right, in the arena
frame 1: 1048576 bytes, 1048576 pixels right, in the arena
frame 2: 1048576 bytes, 1048576 pixels right, in the arena
frame 3: 1048576 bytes, 1048576 pixels right, in the arena
frame 4: 1048576 bytes, 1048576 pixels right, in the arena
5 of 5 frames received in place
END
result zero_copy_receives_every_frame_in_place

run "$build/examples/survive_crash" >"$dir/out"
result survive_crash_exits_0
same "$dir/out" <<'END'
publisher killed by signal 9
all its messages read without a gap, in it and after its death
its successor took over: 10000 of 10000 messages read in the same handle
END
result survive_crash_goes_on_with_the_successor

run "$build/examples/replay_then_live" >"$dir/out"
result replay_then_live_exits_0
same "$dir/out" <<'END'
10000 messages are past, the ring holds 1024 of them
10000 messages replayed
10000 more as they came, none missing, none twice
END
result replay_then_live_reads_the_past_and_runs_on_without_a_seam

run "$build/examples/confirmed_publish" >"$dir/out"
result confirmed_publish_exits_0
same "$dir/out" <<'END'
order 1 is on the disk
order 2 is on the disk
order 3 is on the disk
orders to 1003 are on the disk, by one wait
the log has 1003 of 1003 orders
END
result confirmed_publish_has_in_the_log_what_was_confirmed

run "$build/examples/pattern" >"$dir/out"
result pattern_exits_0
same "$dir/out" <<'END'
md.nyse.AAPL: 189.70
md.xetra.AAPL: 189.68
END
result pattern_receives_from_every_topic_that_matches
run "$shmq" rm md.nyse.MSFT md.xetra.AAPL
result topics_of_pattern_are_removed

run "$build/examples/event_loop" >"$dir/out"
result event_loop_exits_0
echo 'by an edge' | same "$dir/out"
result event_loop_receives_by_its_descriptor
run "$shmq" rm loop
result topic_of_event_loop_is_removed

run "$build/examples/listener" >"$dir/out"
result listener_exits_0
same "$dir/out" <<'END'
words: one
words: two
words: stop
END
result listener_is_called_until_it_has_enough
run "$shmq" rm words
result topic_of_listener_is_removed

run "$build/examples/conflate" >"$dir/out"
result conflate_exits_0
same "$dir/out" <<'END'
MSFT 29.98
NVDA 29.99
AAPL 30.00
3 shown, 2997 spared, 0 lost
END
result conflate_shows_the_last_price_of_each_symbol
run "$shmq" rm quotes
result topic_of_conflate_is_removed

run "$build/examples/request_reply" >"$dir/out"
result request_reply_exits_0
same "$dir/out" <<'END'
AAPL: 189.70 (replied)
XXXX: no such symbol (the request was refused)
BOOM: - (the peer process is dead)
END
result request_reply_tells_of_each_outcome

run "$build/examples/latency" >"$dir/out" 2>/dev/null
result latency_exits_0
same "$dir/out" <<'END'
1000 of 1000 messages measured, percentiles in order: yes
END
result latency_measures_every_message

# skipped NAME WHY: a TAP line of what cannot be run here.
skipped() {
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}

# What is not built with the library's flags finds it by its name.
with_library() {
	LD_LIBRARY_PATH=$build SHMQ_LIBRARY=$build/libshmq.so PYTHONPATH=$source/../libshmq/python \
		PYTHONDONTWRITEBYTECODE=1 run "$@"
}

# cpp COMPILER: whether it takes header and example as they are, and it runs.
cpp() {
	"$1" -std=c++17 -Wall -Wextra -Wpedantic -Werror -I"$source/../include" -o "$dir/cpp_raii" \
		"$source/cpp_raii.cc" -L"$build" -lshmq && with_library "$dir/cpp_raii" >"$dir/out"
}

for compiler in g++ clang++; do
	name=$(echo $compiler | tr + x)
	if [ "${SHMQ_SANITIZED-}" ]; then
		skipped "cpp_raii_by_$name" 'the library is built for a sanitizer'
	elif ! command -v $compiler >/dev/null 2>&1; then
		skipped "cpp_raii_by_$name" "$compiler is missing"
	else
		cpp $compiler && same "$dir/out" <<'END'
0 from
1 C++
2 without
3 a
4 wrapper
END
		result "cpp_raii_by_$name"
	fi
done

if [ "${SHMQ_SANITIZED-}" ]; then
	skipped python_pubsub 'the library is built for a sanitizer'
elif ! command -v python3 >/dev/null 2>&1; then
	skipped python_pubsub 'python3 is missing'
else
	with_library python3 "$source/python_pubsub.py" >"$dir/out" && same "$dir/out" <<'END'
seq 0: 100000 numbers, the last is 99999.0
seq 1: 1000 numbers, the last is 499.5
END
	result python_pubsub
fi

bus_gone
result supervisor_leaves_the_empty_bus

echo "1..$count"
exit $failed
