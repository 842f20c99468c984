#!/bin/sh
# The harness of the C tests reports what it must: a test that cannot fail is
# a bug, and so is a harness that lets one pass.
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cat >"$dir/t.c" <<'END'
#include "tap.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static int fails(void *arg) { CHECK(arg == NULL + 1); return 0; }
static int gives_3(void *arg) { return 3; }
static int sleeps(void *arg) { return pause(); }
static void *in_thread(void *arg) { FAIL("in a thread"); }
TEST(passes) { CHECK(1); CHECK_EQ(2, 2); CHECK_STR("a", "a"); CHECK_OK(0); }
TEST(check_fails) { CHECK(0); }
TEST(check_eq_fails) { CHECK_EQ(5 + 1, 7); }
TEST(check_str_fails) { CHECK_STR("a", NULL); }
TEST(check_ok_fails) { CHECK_OK(-5); }
TEST(thread_fails)
{
	pthread_t t;
	pthread_create(&t, NULL, in_thread, NULL);
	pthread_join(t, NULL);
}
TEST(child_fails) { CHECK_EQ(test_join(test_spawn(fails, NULL)), 0); }
TEST(child_code_is_seen) { CHECK_EQ(test_join(test_spawn(gives_3, NULL)), 3); }
TEST(child_kill_is_seen) { CHECK_EQ(test_kill_wait(test_spawn(sleeps, NULL), SIGKILL), 137); }
TEST(kill_of_nobody_fails) { kill(0, SIGKILL); }
TEST(crash_fails) { raise(SIGSEGV); }
TEST(exit_fails) { exit(0); }
TEST(skip_skips) { SKIP("because of %d", 42); }
TEST(descriptor_leak_fails) { CHECK(open("/dev/null", O_RDONLY) >= 0); }
TEST(child_leak_fails) { test_spawn(sleeps, NULL); }
TEST(orphan_leak_fails)
{
	if (!fork()) {
		setsid();
		if (!fork())
			pause();
		_exit(0);
	}
	CHECK_GT(wait(NULL), 0);
}
TEST_WITHIN(hang_fails, 1) { pause(); }
TEST(stdout_is_not_tap) { printf("ok 99 - forged\n"); fflush(stdout); }
END
cat >"$dir/want" <<'END'
1..18
ok 1 - passes
not ok 2 - check_fails
not ok 3 - check_eq_fails
not ok 4 - check_str_fails
not ok 5 - check_ok_fails
not ok 6 - thread_fails
not ok 7 - child_fails
ok 8 - child_code_is_seen
ok 9 - child_kill_is_seen
not ok 10 - kill_of_nobody_fails
not ok 11 - crash_fails
not ok 12 - exit_fails
ok 13 - skip_skips # SKIP because of 42
not ok 14 - descriptor_leak_fails
not ok 15 - child_leak_fails
not ok 16 - orphan_leak_fails
not ok 17 - hang_fails
ok 18 - stdout_is_not_tap
END
n=0 failed=0
check() { # name, command...
	name=$1 n=$((n + 1))
	shift
	if "$@" >&2; then echo "ok $n - $name"; else failed=1 && echo "not ok $n - $name"; fi
}
says() { grep -qF "$1" "$dir/said"; }

echo 1..9
${CC:-cc} -std=gnu11 -D_GNU_SOURCE= -Itests/lib -Wl,--wrap=kill -o "$dir/t" "$dir/t.c" tests/lib/tap.c -pthread >&2
mkdir "$dir/tmp"
export TMPDIR="$dir/tmp"
"$dir/t" >"$dir/got" 2>"$dir/said"
check a_failing_program_exits_non_zero [ $? -eq 1 ]
check every_failure_is_reported diff "$dir/want" "$dir/got"
check both_values_are_printed says 'got 6 (0x6), want 7 (0x7)'
check the_leaked_descriptor_is_named says '/dev/null'
check the_leaked_process_is_named says '(t) was left behind'
"$dir/t" passes >"$dir/got" 2>"$dir/said"
check a_chosen_test_runs_alone grep -qx 1..1 "$dir/got"
cat >"$dir/reports" <<'END'
#!/bin/sh
echo found >"${ASAN_OPTIONS##*log_path=}.1"
END
chmod +x "$dir/reports"
SHMQ_SANITIZED=address tests/run "$dir/reports" 2>"$dir/said"
check a_sanitizers_report_fails_who_succeeded [ $? -eq 1 ]
check the_report_is_shown says found
check nothing_is_left_in_tmpdir rmdir "$dir/tmp"
exit $failed
