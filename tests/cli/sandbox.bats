# SPDX-License-Identifier: MIT
load helper

# Filters that are in force in a process; fails if the kernel does not tell.
filters() {
	sed -n 's/^Seccomp_filters:[[:space:]]*//p' "/proc/$1/status" | grep .
}

# serve WHICH...: a bus with those options, and how many filters its two processes have.
serve() {
	"$BIN/shmqd" --bus "$SHMQ_BUS" "$@" 3>&-
	for pid in $(shmq stat --json | json '"$_->{bus}{parent_pid} $_->{bus}{daemon_pid}"'); do
		filters "$pid"
	done
	shmq stop
}

@test "sandbox_is_on_unless_it_is_off_and_may_be_required" {
	outside=$(filters $$) || skip "this kernel does not count filters"
	on=$((outside + 1))
	[ "$(serve --sandbox off)" = "$outside"$'\n'"$outside" ]
	[ "$(serve)" = "$on"$'\n'"$on" ]
	[ "$(serve --sandbox auto)" = "$on"$'\n'"$on" ]
	[ "$(serve --sandbox require)" = "$on"$'\n'"$on" ]
}

@test "sandbox_of_no_such_name_is_exit_2" {
	run -2 --separate-stderr "$BIN/shmqd" --bus "$SHMQ_BUS" --sandbox never
	has "$stderr" "auto, off or require"
	run -2 "$BIN/shmqd" --bus "$SHMQ_BUS" --sandbox
	[ ! -e "$SHMQ_RUNTIME_DIR/$SHMQ_BUS.sock" ]
}

@test "sandbox_is_in_help_and_among_the_options_of_the_manual" {
	has "$("$BIN/shmqd" --help)" "--sandbox WHICH"
	grep -q '^\.It Fl -sandbox Ar which' "$BATS_TEST_DIRNAME/../../man/shmqd.8"
}
