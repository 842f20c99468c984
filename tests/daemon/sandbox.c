/* SPDX-License-Identifier: MIT
 *
 * The filters of system calls, call by call, and in each process.
 */
#include "sandbox.h"

#include "../lib/bus.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int end_of_call(long number)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (sandbox_enter(SANDBOX_BUS))
			_exit(99);
		syscall(number, -1, -1, -1, -1, -1, -1);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

TEST(who_makes_a_call_that_is_refused_is_killed_by_sigsys)
{
	unsigned i;
	int status = end_of_call(SYS_getpid);

	if (status == 99 << 8)
		SKIP("no filters here");
	CHECK_EQ(status, 0);
	for (i = 0; i < sandbox_count(); i++) {
		status = end_of_call(sandbox_call(i));
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			FAIL("call %d ended with %#x", sandbox_call(i), (unsigned)status);
	}
#ifdef __x86_64__
	status = end_of_call(0x40000000 + SYS_getpid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
#endif
}

/* ---- what is on no list ---------------------------------------------- */

#define BUS (1U << SANDBOX_BUS)
#define TAILER (1U << SANDBOX_TAILER)
#define FILES (1U << SANDBOX_FILES)
#define MEMORY (1U << SANDBOX_MEMORY)
#define METRICS (1U << SANDBOX_METRICS)
#define ALL (BUS | TAILER | FILES | MEMORY | METRICS)
#define WX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static const struct call {
	unsigned kinds;
	int error; /* 0: it is made, whatever becomes of it */
	long number, argument[4];
} calls[] = {
	{ ALL, ENOSYS, SYS_clone3, { 0 } },
	{ ALL, ENOSYS, SYS_personality, { 0xffffffff } },
	{ ALL, ENOSYS, SYS_shmget, { 0 } },
	{ ALL, ENOSYS, SYS_fchownat, { 0 } },
	{ ALL, ENOSYS, SYS_inotify_init1, { 0 } },
	{ ALL, ENOSYS, SYS_setuid, { 4711 } },
	{ ALL, ENOSYS, SYS_linkat, { 0 } },
	{ TAILER | MEMORY, ENOSYS, SYS_symlinkat, { 0 } },
	{ ALL, EPERM, SYS_ioctl, { 0, TIOCSTI, 0 } },
	{ ALL, EPERM, SYS_mmap, { 0, 4096, WX, ANONYMOUS } },
	{ BUS, EPERM, SYS_prctl, { PR_SET_DUMPABLE, 1 } },
	{ BUS, EPERM, SYS_clone, { CLONE_NEWUSER | SIGCHLD, 0 } },
	{ BUS | TAILER, EPERM, SYS_socket, { AF_INET, SOCK_STREAM } },
	{ BUS | TAILER, EPERM, SYS_socket, { AF_NETLINK, SOCK_RAW } },
	{ BUS | TAILER, 0, SYS_socket, { AF_UNIX, SOCK_STREAM } },
	{ BUS, 0, SYS_execve, { 0 } },
	{ BUS, 0, SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC, ANONYMOUS } },
	{ TAILER | FILES | MEMORY, EPERM, SYS_mmap, { 0, 4096, PROT_EXEC, ANONYMOUS } },
	{ TAILER | FILES | MEMORY, ENOSYS, SYS_execve, { 0 } },
	{ TAILER | FILES | MEMORY, ENOSYS, SYS_execveat, { -1 } },
	{ TAILER | FILES | MEMORY, ENOSYS, SYS_kill, { 0, 0 } },
	{ TAILER | FILES | MEMORY, ENOSYS, SYS_bind, { -1 } },
	{ TAILER | FILES | MEMORY, ENOSYS, SYS_io_uring_setup, { 1 } },
	{ TAILER | FILES | MEMORY, ENOSYS, SYS_memfd_create, { 0 } },
	{ TAILER | FILES | MEMORY, EPERM, SYS_tgkill, { 1, 1, 0 } },
	{ TAILER, EPERM, SYS_clone, { SIGCHLD, 0 } },
	{ TAILER | FILES, 0, SYS_unlinkat, { -1 } },
	{ METRICS, EPERM, SYS_mmap, { 0, 4096, PROT_EXEC, ANONYMOUS } },
	{ METRICS, EPERM, SYS_clone, { SIGCHLD, 0 } },
	{ METRICS, EPERM, SYS_socket, { AF_INET, SOCK_STREAM } },
	{ METRICS, EPERM, SYS_kill, { 0, SIGKILL } },
	{ METRICS, 0, SYS_kill, { 0, 0 } },
	{ METRICS, 0, SYS_accept4, { -1 } },
	{ METRICS, ENOSYS, SYS_execve, { 0 } },
	{ METRICS, ENOSYS, SYS_bind, { -1 } },
	{ METRICS, ENOSYS, SYS_listen, { -1 } },
	{ METRICS, ENOSYS, SYS_memfd_create, { 0 } },
	{ METRICS, ENOSYS, SYS_mkdirat, { -1 } },
	{ METRICS, ENOSYS, SYS_renameat2, { -1 } },
	{ METRICS, ENOSYS, SYS_pidfd_send_signal, { -1 } },
	{ FILES | MEMORY, ENOSYS, SYS_clone, { SIGCHLD, 0 } },
	{ FILES | MEMORY, ENOSYS, SYS_socket, { AF_UNIX, SOCK_STREAM } },
	{ FILES | MEMORY, ENOSYS, SYS_connect, { -1 } },
	{ FILES | MEMORY, ENOSYS, SYS_sendmsg, { -1 } },
	{ MEMORY, EPERM, SYS_openat, { -1, 0, O_WRONLY } },
	{ MEMORY, EPERM, SYS_openat, { -1, 0, O_RDONLY | O_CREAT } },
	{ MEMORY, EPERM, SYS_openat, { -1, 0, O_RDONLY | O_TRUNC } },
	{ MEMORY, 0, SYS_openat, { -1, 0, O_RDONLY | O_CLOEXEC } },
	{ FILES, 0, SYS_openat, { -1, 0, O_WRONLY | O_CREAT } },
	{ MEMORY, ENOSYS, SYS_unlinkat, { -1 } },
	{ MEMORY, ENOSYS, SYS_mkdirat, { -1 } },
	{ MEMORY, ENOSYS, SYS_ftruncate, { -1 } },
	{ MEMORY, ENOSYS, SYS_pwrite64, { -1 } },
};

static int make_calls(void *arg)
{
	enum sandbox_kind kind = *(const enum sandbox_kind *)arg;
	unsigned i;

	if (sandbox_enter(kind))
		return 99;
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const long *a = calls[i].argument;
		long rc;

		if (!(calls[i].kinds & 1U << kind))
			continue;
		errno = 0;
		rc = syscall(calls[i].number, a[0], a[1], a[2], a[3], -1, 0);
		if (calls[i].error ? rc != -1 || errno != calls[i].error :
				     errno == ENOSYS || errno == EPERM)
			FAIL("kind %u: call %ld (%lx ...) returned %ld, errno %d", kind,
			     calls[i].number, (unsigned long)a[0], rc, errno);
	}
	_exit(0);
}

TEST(what_is_on_no_list_fails_and_kills_nobody)
{
	enum sandbox_kind kind;
	int code;

#if defined(SHMQ_SANITIZE) || defined(SANDBOX_STRICT)
	SKIP("the lists are not in force in this build, or kill");
#endif
	for (kind = SANDBOX_BUS; kind <= SANDBOX_METRICS; kind++) {
		code = test_join(test_spawn(make_calls, &kind));
		if (code == 99)
			SKIP("no filters here");
		CHECK_EQ(code, 0);
	}
}

static void *do_nothing(void *arg)
{
	return arg;
}

static int start_thread_and_abort(void *arg)
{
	pthread_t thread;

	if (sandbox_enter(SANDBOX_TAILER))
		_exit(99);
	CHECK_OK(pthread_create(&thread, NULL, do_nothing, arg));
	CHECK_OK(pthread_join(thread, NULL));
	signal(SIGABRT, SIG_DFL);
	abort();
}

TEST(the_tailer_starts_threads_and_may_abort)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(start_thread_and_abort(NULL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (status == 99 << 8)
		SKIP("no filters here");
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGABRT);
}

/* ---- files ----------------------------------------------------------- */

/* In a child that may write below the directory `own` and one that is not there yet. */
static int write_around(void *arg)
{
	const char *dir = test_tmpdir();
	char own[256], missing[256], path[300], other[300];
	const char *const may[] = { own, missing };
	int fd;

	(void)arg;
	snprintf(own, sizeof(own), "%s/own", dir);
	snprintf(missing, sizeof(missing), "%s/own/logs/bus", dir);
	CHECK_OK(mkdir(own, 0700));
	if (sandbox_limit_files(may, 2, NULL) == -ENOSYS)
		return 99;
	snprintf(path, sizeof(path), "%s/logs", own);
	CHECK_OK(mkdir(path, 0700));
	CHECK_OK(mkdir(missing, 0700));
	snprintf(path, sizeof(path), "%s/file", own);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0);
	close(fd);
	snprintf(other, sizeof(other), "%s/file", missing);
	CHECK_OK(rename(path, other));
	CHECK_OK(truncate(other, 10));
	CHECK_OK(unlink(other));
	snprintf(path, sizeof(path), "%s/file", dir);
	CHECK_LT(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), 0);
	CHECK_EQ(errno, EACCES);
	CHECK_LT(mkdir(path, 0700), 0);
	CHECK_LT(open("/dev/null", O_WRONLY | O_CLOEXEC), 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK_GE(fd, 0);
	close(fd);
	/* Memory is no file. */
	fd = memfd_create("any", MFD_CLOEXEC);
	CHECK_OK(ftruncate(fd, 4096));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_GE(open(path, O_RDWR | O_CLOEXEC), 0);
	_exit(0);
}

static int read_around(void *arg)
{
	char path[300];
	int fd;

	(void)arg;
	if (sandbox_limit_files(NULL, 0, "/proc") == -ENOSYS)
		return 99;
	fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	CHECK_GE(fd, 0);
	close(fd);
	CHECK_LT(open("/etc/passwd", O_RDONLY | O_CLOEXEC), 0);
	CHECK_EQ(errno, EACCES);
	CHECK_LT(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
	snprintf(path, sizeof(path), "%s/file", test_tmpdir());
	CHECK_LT(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), 0);
	execl("/bin/true", "true", (char *)NULL);
	CHECK_EQ(errno, EACCES);
	_exit(0);
}

TEST(files_are_read_below_what_is_named_and_nowhere_else)
{
	int code = test_join(test_spawn(read_around, NULL));

#ifdef SHMQ_SANITIZE
	SKIP("a sanitizer's reports are files anywhere");
#endif
	if (code == 99)
		SKIP("no landlock here, or none that lets files be renamed");
	CHECK_EQ(code, 0);
}

TEST(files_are_written_below_what_is_named_and_nowhere_else)
{
	int code;

#ifdef SHMQ_SANITIZE
	SKIP("sanitizers write reports anywhere");
#endif
	code = test_join(test_spawn(write_around, NULL));
	if (code == 99)
		SKIP("no landlock here");
	CHECK_EQ(code, 0);
}

/* ---- processes -------------------------------------------------------- */

/* How many are in force; -1: the kernel does not say. */
static int filters_of(pid_t pid)
{
	static const char name[] = "Seccomp_filters:";
	char path[64], line[256];
	FILE *status;
	int count = -1;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	status = fopen(path, "re");
	while (status && fgets(line, sizeof(line), status))
		if (!strncmp(line, name, sizeof(name) - 1))
			count = atoi(line + sizeof(name) - 1);
	if (status)
		fclose(status);
	return count;
}

struct expected {
	const char *role;
	int filters;
};

static int has_filters(void *arg)
{
	const struct expected *e = arg;
	pid_t pid = test_bus_pid(e->role);

	return pid && filters_of(pid) == e->filters;
}

static void check_filters(const char *role, int filters)
{
	struct expected e = { role, filters };

	if (!test_wait_until(has_filters, &e, 10000))
		FAIL("the %s has %d filters in place of %d", role, filters_of(test_bus_pid(role)),
		     filters);
}

TEST(each_process_is_under_its_filters_unless_they_are_off)
{
	struct shmq_topic_options logged = { .size = sizeof(logged), .log = SHMQ_LOG_BLOCK };
	int outside = filters_of(getpid()), on;
	shmq_bus *bus;

	if (outside < 0 || end_of_call(SYS_getpid) == 99 << 8)
		SKIP("no filters here, or they are not told");
	for (on = 1; on >= 0; on--) {
		test_bus_start("--sandbox", on ? "require" : "off");
		bus = test_bus_open();
		CHECK_OK(shmq_topic_create(bus, "t", &logged, NULL));
		check_filters("parent", outside + on);
		check_filters("control", outside + on);
		check_filters("tailer", outside + 2 * on);
		/* Those that are started by a survivor. */
		CHECK_EQ(test_bus_kill("parent"), 1);
		test_bus_await_killed();
		check_filters("parent", outside + on);
		check_filters("tailer", outside + 2 * on);
		shmq_bus_close(bus);
		test_bus_stop();
	}
}

/* As a container does that lets nobody have one. */
static void deny_filters(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

TEST(where_filters_are_denied_the_log_says_so_and_require_fails)
{
	shmq_bus *bus;
	int status;
	pid_t pid;

	if (end_of_call(SYS_getpid) == 99 << 8)
		SKIP("no filters here");
	deny_filters();
	test_bus_start();
	bus = test_bus_open();
	CHECK(test_bus_log_has("no filter of system calls here"));
	shmq_bus_close(bus);
	test_bus_stop();
	test_bus_prepare();
	pid = fork();
	if (!pid) {
		execl(test_bus_daemon(), "shmqd", "--foreground", "--sandbox", "require", NULL);
		_exit(98);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 1 << 8);
	test_bus_stop();
}

struct wish {
	shmq_bus *bus;
	pid_t not ;
};

static int has_other_worker(void *arg)
{
	const struct wish *w = arg;
	pid_t pid = test_bus_worker_pid(w->bus);

	return pid && pid != w->not ;
}

TEST(a_worker_that_the_filter_killed_is_named_and_another_serves)
{
	shmq_bus *bus;
	struct wish w;

	test_bus_start();
	bus = test_bus_open();
	w = (struct wish){ bus, test_bus_worker_pid(bus) };
	CHECK_OK(kill(w.not, SIGSYS));
	if (!test_wait_until(has_other_worker, &w, 10000))
		FAIL("no other worker came");
	CHECK(test_bus_log_has("SIGSYS"));
	CHECK_OK(shmq_topic_create(bus, "t", NULL, NULL));
	shmq_bus_close(bus);
	test_bus_stop();
}
