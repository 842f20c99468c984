/* SPDX-License-Identifier: MIT */
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
int __lsan_do_recoverable_leak_check(void);
#endif

enum { EXIT_SKIPPED = 77, FD_MAX = 4096, LOG_LINES = 40 };

/* What a test tells the harness without a descriptor that could be counted. */
struct report {
	int done; /* the test function returned and its checks were made */
	char reason[256];
};

static struct tap_test *first, **last = &first;
static struct report *report;
static char tmpdir[PATH_MAX];
static volatile sig_atomic_t ending;

void tap_register(struct tap_test *test)
{
	*last = test;
	last = &test->next;
}

/* ---- in the test ----------------------------------------------------- */

/* One write, so that lines of several processes do not mix. */
static void diagnose(const char *format, va_list args, const char *prefix)
{
	char line[2048];
	int n = snprintf(line, sizeof(line), "# %s", prefix);

	n += vsnprintf(line + n, sizeof(line) - 1 - n, format, args);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

void tap_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	diagnose(format, args, "");
	va_end(args);
}

void tap_fail(const char *file, int line, const char *format, ...)
{
	char prefix[PATH_MAX + 32];
	va_list args;

	snprintf(prefix, sizeof(prefix), "%s:%d: ", file, line);
	va_start(args, format);
	diagnose(format, args, prefix);
	va_end(args);
	_exit(EXIT_FAILURE);
}

void tap_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (report)
		vsnprintf(report->reason, sizeof(report->reason), format, args);
	va_end(args);
	_exit(EXIT_SKIPPED);
}

void tap_check_str(const char *file, int line, const char *what, const char *got, const char *want)
{
	if (!got || !want ? got == want : strcmp(got, want) == 0)
		return;
	tap_fail(file, line, "%s: got %s%s%s, want %s%s%s", what, got ? "\"" : "",
		 got ? got : "NULL", got ? "\"" : "", want ? "\"" : "", want ? want : "NULL",
		 want ? "\"" : "");
}

void tap_check_mem(const char *file, int line, const char *what, const void *got, const void *want,
		   size_t bytes)
{
	const unsigned char *g = got, *w = want;

	for (size_t i = 0; i < bytes; i++)
		if (g[i] != w[i])
			tap_fail(file, line, "%s: byte %zu of %zu: got %#x, want %#x", what, i,
				 bytes, g[i], w[i]);
}

/* Units of the lowest layers do without the library's error texts. */
const char *shmq_strerror(int error) __attribute__((weak));

void tap_check_ok(const char *file, int line, const char *what, long long result)
{
	if (result >= 0)
		return;
	tap_fail(file, line, "%s: %lld (%s)", what, result,
		 shmq_strerror ? shmq_strerror((int)result) : "an error");
}

int64_t test_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void test_sleep_ms(int ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

int test_slowdown(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(SHMQ_SANITIZE)
	return 4;
#else
	return 1;
#endif
}

int test_is_shadowed(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return 1;
#else
	return 0;
#endif
}

const char *test_tmpdir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

int test_wait_until(int (*fn)(void *arg), void *arg, int timeout_ms)
{
	int64_t deadline = test_now_ns() + INT64_C(1000000) * timeout_ms * test_slowdown();

	while (!fn(arg)) {
		if (test_now_ns() > deadline)
			return fn(arg) != 0;
		test_sleep_ms(1);
	}
	return 1;
}

unsigned long test_sleeps_of_main(void)
{
	static const char word[] = "\nvoluntary_ctxt_switches:";
	char text[4096], *at;
	FILE *file = fopen("/proc/self/status", "re");
	size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;

	if (file)
		fclose(file);
	text[n] = 0;
	at = strstr(text, word);
	if (!at)
		FAIL("/proc/self/status does not say how often who sleeps");
	return strtoul(at + strlen(word), NULL, 10);
}

pid_t test_spawn(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		FAIL("fork: %s", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	_exit(fn(arg));
}

/* In the place of kill().  0 and -1 are many: what a bus shows of a process that
 * is not there, or a call that failed, ends no others. */
int __wrap_kill(pid_t pid, int sig);
__typeof__(kill) __real_kill __attribute__((weak));

int __wrap_kill(pid_t pid, int sig)
{
	if (pid >= -1 && pid <= 1)
		FAIL("signal %d for process %d: there is none of the test's", sig, (int)pid);
	return __real_kill(pid, sig);
}

int test_join(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			FAIL("waiting for child %d: %s", (int)pid, strerror(errno));
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int test_kill_wait(pid_t pid, int sig)
{
	if (kill(pid, sig) < 0)
		FAIL("kill(%d, %d): %s", (int)pid, sig, strerror(errno));
	return test_join(pid);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path), 0;
}

void test_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- descriptors ----------------------------------------------------- */

static int list_fds(unsigned char open[FD_MAX])
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int count = 0;

	memset(open, 0, FD_MAX);
	while (dir && (entry = readdir(dir))) {
		int fd = entry->d_name[0] == '.' ? -1 : atoi(entry->d_name);

		if (fd < 0 || fd == dirfd(dir))
			continue;
		count++;
		if (fd < FD_MAX)
			open[fd] = 1;
	}
	if (dir)
		closedir(dir);
	return count;
}

int test_fd_count(void)
{
	unsigned char open[FD_MAX];

	return list_fds(open);
}

static int leaked_fds(const unsigned char before[FD_MAX])
{
	unsigned char after[FD_MAX];
	int leaked = 0;

	list_fds(after);
	for (int fd = 0; fd < FD_MAX; fd++) {
		char link[64], target[PATH_MAX];
		ssize_t n;

		if (!after[fd] || before[fd])
			continue;
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		tap_note("descriptor %d was left open: %s", fd, target);
		leaked++;
	}
	return leaked;
}

/* ---- processes ------------------------------------------------------- */

/* Children of this process, those adopted as subreaper included. */
static int list_children(pid_t *pids, int max)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	while (dir && (entry = readdir(dir)) && count < max) {
		char path[280], line[512], *after;
		FILE *file;
		int ppid = 0;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		if (!(file = fopen(path, "re")))
			continue;
		if (fgets(line, sizeof(line), file) && (after = strrchr(line, ')')) &&
		    sscanf(after, ") %*c %d", &ppid) == 1 && ppid == getpid())
			pids[count++] = atoi(entry->d_name);
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return count;
}

static void reap(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int no_children_left(void *arg)
{
	(void)arg;
	reap();
	return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

/* Whatever is below us dies; orphans come up to us, so go on until nobody is
 * left. */
static void kill_everybody(pid_t group)
{
	for (int round = 0; round < 1000 && !no_children_left(NULL); round++) {
		pid_t pids[256];
		int count = list_children(pids, 256);

		kill(-group, SIGKILL);
		for (int i = 0; i < count; i++)
			kill(pids[i], SIGKILL);
		test_sleep_ms(2);
	}
}

static int leaked_processes(void)
{
	pid_t pids[256];
	int count;

	/* A process that was told to end, but waited for by nobody because
	 * its parent ended first, gets a moment to go. */
	if (test_wait_until(no_children_left, NULL, 1000))
		return 0;
	count = list_children(pids, 256);
	for (int i = 0; i < count; i++) {
		char path[64], comm[64] = "?";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/comm", (int)pids[i]);
		if ((file = fopen(path, "re"))) {
			if (fgets(comm, sizeof(comm), file))
				comm[strcspn(comm, "\n")] = 0;
			fclose(file);
		}
		tap_note("process %d (%s) was left behind", (int)pids[i], comm);
	}
	return count;
}

/* ---- forks under AddressSanitizer ---------------------------------------- */

#ifdef __SANITIZE_ADDRESS__

/* The C library hands a forked child an allocator that no other thread was
 * in.  The sanitizer's own does that from LLVM 17 on; before, a child of
 * a process whose other thread allocates or starts just then waits for
 * ever for a lock of that thread's.  So these locks are taken around each
 * fork, in the order in which later versions do it.  What leak detection
 * stops the world with has no C name, and is there only in the static
 * run-time; where it is missing, the run-time has to do this itself. */
void lock_threads(void) __asm__("_ZN6__lsan18LockThreadRegistryEv") __attribute__((weak));
void unlock_threads(void) __asm__("_ZN6__lsan20UnlockThreadRegistryEv") __attribute__((weak));
void lock_allocator(void) __asm__("_ZN6__lsan13LockAllocatorEv") __attribute__((weak));
void unlock_allocator(void) __asm__("_ZN6__lsan15UnlockAllocatorEv") __attribute__((weak));
void lock_stacks(void) __asm__("_ZN11__sanitizer17StackDepotLockAllEv") __attribute__((weak));
void unlock_stacks(void) __asm__("_ZN11__sanitizer19StackDepotUnlockAllEv") __attribute__((weak));

static void before_fork(void)
{
	lock_threads();
	lock_allocator();
	lock_stacks();
}

static void after_fork(void)
{
	unlock_stacks();
	unlock_allocator();
	unlock_threads();
}

/* Early, so that what others do before a fork comes before and may
 * allocate. */
__attribute__((constructor(101))) static void watch_forks(void)
{
	if (lock_threads && unlock_threads && lock_allocator && unlock_allocator && lock_stacks &&
	    unlock_stacks)
		pthread_atfork(before_fork, after_fork, after_fork);
}

#endif

/* ---- the harness ----------------------------------------------------- */

static int show_log(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	const char *dot = strrchr(path + ftw->base, '.');
	char line[1024];
	int lines = 0;
	FILE *file;

	(void)st;
	/* Logs of supervisors, not of topics. */
	if (kind != FTW_F || !dot || strcmp(dot, ".log") || ftw->level > 1 ||
	    !(file = fopen(path, "re")))
		return 0;
	while (fgets(line, sizeof(line), file))
		lines++;
	rewind(file);
	for (int i = 0; fgets(line, sizeof(line), file); i++)
		if (i >= lines - LOG_LINES)
			tap_note("%s: %.*s", path + ftw->base, (int)strcspn(line, "\n"), line);
	fclose(file);
	return 0;
}

static void run_here(const struct tap_test *test)
{
	unsigned char before[FD_MAX];
	pid_t children[1];

	list_fds(before);
	test->run();
	reap();
	if (list_children(children, 1)) {
		tap_note("child %d was left behind", (int)children[0]);
		_exit(EXIT_FAILURE);
	}
	if (leaked_fds(before))
		_exit(EXIT_FAILURE);
#ifdef __SANITIZE_ADDRESS__
	if (__lsan_do_recoverable_leak_check())
		_exit(EXIT_FAILURE);
#endif
	report->done = 1;
	_exit(EXIT_SUCCESS);
}

static void run_child(const struct tap_test *test, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	setpgid(0, 0);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	dup2(null, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	close(null);
	setenv("TMPDIR", tmpdir, 1);
	run_here(test);
}

/* Whoever gives the program more time than a test asks for (tests/run) has it do
 * more: the test gets that. */
static int limit_of(const struct tap_test *test)
{
	const char *given = getenv("SHMQ_TEST_LIMIT");
	int limit = test->timeout_s * test_slowdown(), more = given ? atoi(given) : 0;

	return more > limit ? more : limit;
}

/* The test's exit status, or -1 if the watchdog or a signal to us ended it. */
static int watch(pid_t pid, int limit_s)
{
	int64_t deadline = test_now_ns() + INT64_C(1000000000) * limit_s;
	int status;
	pid_t gone;

	for (int pause_ms = 0;; pause_ms += pause_ms < 10) {
		while ((gone = waitpid(-1, &status, WNOHANG)) > 0)
			if (gone == pid)
				return status;
		if (ending || test_now_ns() > deadline)
			return -1;
		test_sleep_ms(pause_ms);
	}
}

static int run(const struct tap_test *test, int number)
{
	const char *base = getenv("TMPDIR");
	pid_t self = getpid(), pid;
	int status, ok;

	memset(report, 0, sizeof(*report));
	snprintf(tmpdir, sizeof(tmpdir), "%s/shmq-test-XXXXXX", base && *base ? base : "/tmp");
	if (!mkdtemp(tmpdir)) {
		tap_note("%s: %s", tmpdir, strerror(errno));
		printf("not ok %d - %s\n", number, test->name);
		return 0;
	}
	fflush(NULL);
	pid = fork();
	if (!pid)
		run_child(test, self);
	setpgid(pid, pid);
	status = watch(pid, limit_of(test));
	ok = status >= 0 && WIFEXITED(status) && !WEXITSTATUS(status) && report->done;
	if (status < 0 && !ending)
		tap_note("%s: still running after %d s", test->name, limit_of(test));
	else if (status >= 0 && WIFSIGNALED(status))
		tap_note("%s: ended by signal %d (%s)", test->name, WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (status == 0 && !report->done)
		tap_note("%s: the process ended by itself", test->name);
	if (ok && leaked_processes())
		ok = 0;
	kill_everybody(pid);
	if (status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
		printf("ok %d - %s # SKIP %s\n", number, test->name, report->reason);
		ok = 1;
	} else {
		printf("%sok %d - %s\n", ok ? "" : "not ", number, test->name);
	}
	fflush(stdout);
	if (!ok)
		nftw(tmpdir, show_log, 16, FTW_PHYS);
	test_remove_tree(tmpdir);
	return ok;
}

static int chosen(const struct tap_test *test, char **patterns)
{
	if (!*patterns)
		return 1;
	for (; *patterns; patterns++)
		if (strstr(test->name, *patterns))
			return 1;
	return 0;
}

static void on_signal(int sig)
{
	ending = sig;
}

/* Weak, so that a program with another idea of main may have its own. */
__attribute__((weak)) int main(int argc, char **argv)
{
	char **patterns = argv + 1;
	int count = 0, number = 0, failed = 0, list = 0, here = 0;

	for (; *patterns && **patterns == '-'; patterns++) {
		list |= !strcmp(*patterns, "-l");
		here |= !strcmp(*patterns, "-g");
	}
	(void)argc;
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED)
		return EXIT_FAILURE;
	for (struct tap_test *test = first; test; test = test->next)
		count += chosen(test, patterns);
	if (!list)
		printf(count ? "1..%d\n" : "1..%d # SKIP no such test\n", count);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	for (struct tap_test *test = first; test && !ending; test = test->next) {
		if (!chosen(test, patterns))
			continue;
		if (list)
			puts(test->name);
		else if (here)
			run_here(test);
		else
			failed += !run(test, ++number);
	}
	return failed || ending ? EXIT_FAILURE : EXIT_SUCCESS;
}
