/* SPDX-License-Identifier: MIT
 *
 * tap: the test harness of the C tests.
 *
 *   #include "tap.h"
 *
 *   TEST(publish_to_full_ring_returns_again)
 *   {
 *           CHECK_EQ(ring_publish(...), SHMQ_EFULL);
 *   }
 *
 * That is a whole program: tests register themselves in the order they are
 * written, and main() is here.  Each test runs in a process and a process
 * group of its own, with a private $TMPDIR and under a watchdog, so a
 * failed check simply ends the process: CHECK and its kin may be used in
 * the test, in its threads and in its forked children alike.  A test also
 * fails if it leaves a descriptor open or a process behind.
 *
 * stdout belongs to TAP; what a test prints there goes to stderr.
 * Arguments of the program choose the tests whose names contain one of
 * them; -l lists, -g runs in this process, for a debugger.
 */
#ifndef TAP_H
#define TAP_H

#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define TAP_TIMEOUT_S 30 /* watchdog of a TEST; four times that under SAN */

/* Define a test; the name is a sentence.  TEST_WITHIN chooses the watchdog,
 * and SHMQ_TEST_LIMIT (seconds) one that is longer. */
#define TEST(name) TEST_WITHIN(name, TAP_TIMEOUT_S)
#define TEST_WITHIN(name, seconds) \
	static void name(void); \
	static struct tap_test tap_test_##name = { #name, name, seconds, NULL }; \
	__attribute__((constructor)) static void tap_register_##name(void) \
	{ \
		tap_register(&tap_test_##name); \
	} \
	static void name(void)

/* End the test as failed, with a message; as skipped, with the reason. */
#define FAIL(...) tap_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) tap_skip(__VA_ARGS__)

/* A line of diagnostics. */
#define NOTE(...) tap_note(__VA_ARGS__)

#define CHECK(condition) \
	do { \
		if (!(condition)) \
			tap_fail(__FILE__, __LINE__, "not true: %s", #condition); \
	} while (0)

/* Both values are printed; they are compared as C compares them. */
#define CHECK_EQ(got, want) TAP_COMPARE(got, ==, want)
#define CHECK_NE(got, want) TAP_COMPARE(got, !=, want)
#define CHECK_LT(got, want) TAP_COMPARE(got, <, want)
#define CHECK_LE(got, want) TAP_COMPARE(got, <=, want)
#define CHECK_GT(got, want) TAP_COMPARE(got, >, want)
#define CHECK_GE(got, want) TAP_COMPARE(got, >=, want)

#define CHECK_STR(got, want) tap_check_str(__FILE__, __LINE__, #got, (got), (want))
#define CHECK_MEM(got, want, bytes) tap_check_mem(__FILE__, __LINE__, #got, (got), (want), (bytes))

/* 0, or the error of the library: for calls that must succeed. */
#define CHECK_OK(call) tap_check_ok(__FILE__, __LINE__, #call, (long long)(call))

/* ---- processes ------------------------------------------------------- */

/* Fork a child that runs fn(arg) and ends with _exit() of what that returns.
 * It dies with the test. */
pid_t test_spawn(int (*fn)(void *arg), void *arg);

/* Wait for a child: its exit code, or 128 + the signal that ended it. */
int test_join(pid_t pid);

/* Send a signal to a child and wait for it as test_join(). */
int test_kill_wait(pid_t pid, int sig);

/* Ask until fn(arg) is not zero: 1, or 0 if that takes over timeout_ms. */
int test_wait_until(int (*fn)(void *arg), void *arg, int timeout_ms);

int test_fd_count(void);       /* descriptors open in this process */
int64_t test_now_ns(void);     /* CLOCK_MONOTONIC */
void test_sleep_ms(int ms);    /* not for waiting: test_wait_until() is */
int test_slowdown(void);       /* factor for deadlines: 1, or 4 under SAN */
int test_is_shadowed(void);    /* a sanitizer watches memory: it maps as it needs */
const char *test_tmpdir(void); /* this test's own directory, emptied later */
void test_remove_tree(const char *path);

/* How often the first thread of this process has gone to sleep. */
unsigned long test_sleeps_of_main(void);

/* ---- behind the macros ----------------------------------------------- */

struct tap_test {
	const char *name;
	void (*run)(void);
	int timeout_s;
	struct tap_test *next;
};

void tap_register(struct tap_test *test);
_Noreturn void tap_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void tap_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tap_check_str(const char *file, int line, const char *what, const char *got, const char *want);
void tap_check_mem(const char *file, int line, const char *what, const void *got, const void *want,
		   size_t bytes);
void tap_check_ok(const char *file, int line, const char *what, long long result);

/* Adding 0 turns a bit-field into a value and drops qualifiers. */
#define TAP_COMPARE(got, op, want) \
	do { \
		_Pragma("GCC diagnostic push"); \
		_Pragma("GCC diagnostic ignored \"-Wsign-compare\""); \
		_Pragma("GCC diagnostic ignored \"-Wpointer-arith\""); \
		__typeof__((got) + 0) tap_got = (got); \
		__typeof__((want) + 0) tap_want = (want); \
		if (!(tap_got op tap_want)) \
			tap_fail(__FILE__, __LINE__, \
				 "%s %s %s: got %lld (%#llx), want %lld (%#llx)", #got, #op, \
				 #want, (long long)tap_got, (unsigned long long)tap_got, \
				 (long long)tap_want, (unsigned long long)tap_want); \
		_Pragma("GCC diagnostic pop"); \
	} while (0)

#endif
