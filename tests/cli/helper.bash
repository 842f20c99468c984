# SPDX-License-Identifier: MIT
# What the tests of the command line share.  Each test has a bus of its own in
# a directory of its own, and fails if a process of it is left behind.

bats_require_minimum_version 1.5.0

BIN=${SHMQ_BIN_DIR:-${SHMQ_BUILD:-$BATS_TEST_DIRNAME/../../build}}
BIN=$(cd "$BIN" && pwd)

setup() {
	export SHMQ_DAEMON=$BIN/shmqd
	export SHMQ_RUNTIME_DIR DIR
	DIR=$(mktemp -d)
	SHMQ_RUNTIME_DIR=$DIR/run
	mkdir -m 700 "$SHMQ_RUNTIME_DIR"
	export XDG_CONFIG_HOME=$DIR/config
	export SHMQ_DATA_DIR=$DIR/data
	export SHMQ_BUS=cli-$BATS_TEST_NUMBER-$$
	unset XDG_RUNTIME_DIR
	STARTED=()
	cd "$DIR" || return 1
}

teardown() {
	local pid left
	SHMQ_RUNTIME_DIR=$DIR/run # whatever the test made of it: what is there is ended
	for pid in "${STARTED[@]}"; do
		kill -KILL "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	shmq stop --force >/dev/null 2>&1 || :
	# The last of its processes may still be on their way out.
	for pid in $(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR"); do
		timeout 30 tail -s 0.05 --pid="$pid" -f /dev/null || :
	done
	left=$(pgrep -f -- "--runtime-dir $SHMQ_RUNTIME_DIR" || :)
	[ -z "$left" ] || {
		echo "left behind: $left" >&2
		kill -KILL $left
	}
	cd /
	rm -rf "$DIR"
	[ -z "$left" ]
}

# The watchdog of every command; descriptor 3 is bats' own.
shmq() {
	timeout -k 5 60 "$BIN/shmq" "$@" 3>&-
}

# start NAME ARG...: run shmq in the background, its output in NAME.out and
# NAME.err, its exit code by `finish NAME`.
start() {
	local name=$1
	shift
	"$BIN/shmq" "$@" </dev/null >"$name.out" 2>"$name.err" 3>&- &
	STARTED+=($!)
	eval "PID_$name=$!"
}

pid_of() {
	eval "echo \$PID_$1"
}

# finish NAME [CODE]: wait for its end, compare its exit code.
finish() {
	local code=0 pid
	pid=$(pid_of "$1")
	await "ended $pid" || return 1
	wait "$pid" || code=$?
	[ "$code" = "${2:-0}" ] || {
		echo "$1 ended with $code, not ${2:-0}:" >&2
		cat "$1.err" >&2
		return 1
	}
}

ended() {
	! kill -0 "$1" 2>/dev/null || [ "$(ps -o stat= -p "$1" | cut -c1)" = Z ]
}

# await CONDITION: until the command holds; a test that needs it to be true
# cannot go on without, so there is a limit and no fixed pause.
await() {
	local i
	for ((i = 0; i < 1500; i++)); do
		if eval "$1"; then return 0; fi
		sleep 0.02
	done
	echo "still not: $1" >&2
	return 1
}

# json EXPRESSION: what a Perl expression on $_, the decoded value, gives for
# each line of stdin.
json() {
	perl -MJSON::PP -ne '
		BEGIN { $code = shift; $json = JSON::PP->new->utf8->allow_nonref }
		$_ = $json->decode($_);
		print((map { defined $_ ? ref($_) =~ /Boolean/ ? ($_ ? "true" : "false") : $_ : "null" }
			(eval $code)), "\n");
		die $@ if $@' "$1"
}

subscribers() { # TOPIC: how many are attached
	shmq stat "$1" --json | json '$_->{subscribers}'
}

asleep() { # TOPIC: how many of them sleep
	shmq stat "$1" --json | json '$_->{sleepers}'
}

head_of() {
	shmq stat "$1" --json | json '$_->{head}'
}

fail() {
	echo "$@" >&2
	return 1
}

has() { # TEXT PATTERN
	[[ $1 == *"$2"* ]] || fail "not there: \"$2\", but: $1"
}

# Every error says what to do next, in a hint or, by the bus, behind a colon.
is_said_well() {
	[[ $1 == "shmq: "*": "*"(hint: "*")"* || $1 == "shmq: "*": "*": "* ]] || fail "voice: $1"
}
