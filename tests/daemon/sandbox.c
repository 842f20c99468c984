/* SPDX-License-Identifier: MIT
 *
 * The filter of system calls, call by call, and in each process.
 */
#include "sandbox.h"

#include "../lib/bus.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int end_of_call(long number)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (sandbox_enter())
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
	if (sandbox_limit_writes(may, 2) == -ENOSYS)
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

/* Of the process that serves and its parent: 0 no filter, 2 one. */
static int mode_of(pid_t pid)
{
	char path[64], line[256];
	FILE *status;
	int mode = -1;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	status = fopen(path, "re");
	while (status && fgets(line, sizeof(line), status))
		if (!strncmp(line, "Seccomp:", 8))
			mode = atoi(line + 8);
	if (status)
		fclose(status);
	return mode;
}

TEST(each_process_is_under_the_filter_unless_it_is_off)
{
	int outside = mode_of(getpid());
	shmq_bus *bus;

	if (end_of_call(SYS_getpid) == 99 << 8)
		SKIP("no filters here");
	test_bus_start("--sandbox", "require");
	bus = test_bus_open();
	CHECK_EQ(mode_of(test_bus_parent_pid(bus)), 2);
	CHECK_EQ(mode_of(test_bus_worker_pid(bus)), 2);
	shmq_bus_close(bus);
	test_bus_stop();
	test_bus_start("--sandbox", "off");
	bus = test_bus_open();
	CHECK_EQ(mode_of(test_bus_parent_pid(bus)), outside);
	CHECK_EQ(mode_of(test_bus_worker_pid(bus)), outside);
	shmq_bus_close(bus);
	test_bus_stop();
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
