/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "proc.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_for_end(void *arg)
{
	(void)arg;
	pause();
	return 0;
}

static int is_zombie(void *arg)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, (id_t) * (pid_t *)arg, &info, WEXITED | WNOWAIT | WNOHANG) &&
	       info.si_pid;
}

TEST(this_process_is_identified_and_alive)
{
	struct shmq__proc_id id, again;
	struct stat st;

	CHECK_OK(shmq__proc_identify(getpid(), &id));
	CHECK_OK(shmq__proc_identify(getpid(), &again));
	CHECK_EQ(id.pid, getpid());
	CHECK_GT(id.start_time, 0);
	CHECK_EQ(id.start_time, again.start_time);
	CHECK_OK(stat("/proc/self/ns/pid", &st));
	CHECK_EQ((uint32_t)id.pidns, st.st_ino);
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
}

TEST(a_process_is_dead_from_its_end_on_not_from_its_burial)
{
	pid_t pid = test_spawn(wait_for_end, NULL);
	struct shmq__proc_id id;

	CHECK_OK(shmq__proc_identify(pid, &id));
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	kill(pid, SIGKILL);
	CHECK(test_wait_until(is_zombie, &pid, 10000));
	CHECK_EQ(shmq__proc_is_dead(&id), 1);
	test_join(pid);
	CHECK_EQ(shmq__proc_is_dead(&id), 1);
	CHECK_EQ(shmq__proc_identify(pid, &id), -ESRCH);
}

static int is_stopped(void *arg)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, (id_t) * (pid_t *)arg, &info, WSTOPPED | WNOWAIT | WNOHANG) &&
	       info.si_pid;
}

TEST(a_stopped_process_is_not_dead)
{
	pid_t pid = test_spawn(wait_for_end, NULL);
	struct shmq__proc_id id;

	CHECK_OK(shmq__proc_identify(pid, &id));
	kill(pid, SIGSTOP);
	CHECK(test_wait_until(is_stopped, &pid, 10000));
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	test_kill_wait(pid, SIGKILL);
}

static int execute_when_continued(void *arg)
{
	(void)arg;
	raise(SIGSTOP);
	execl("/bin/sleep", "sleep", "60", NULL);
	return 1;
}

struct wish {
	pid_t pid;
	uint64_t image;
};

static int has_other_image(void *arg)
{
	struct wish *w = arg;
	struct shmq__proc_id id;

	return !shmq__proc_identify(w->pid, &id) && id.image != w->image;
}

TEST(a_process_that_executes_another_program_has_another_image)
{
	pid_t pid = test_spawn(execute_when_continued, NULL);
	struct wish w = { .pid = pid };
	struct shmq__proc_id id;

	CHECK(test_wait_until(is_stopped, &pid, 10000));
	CHECK_OK(shmq__proc_identify(pid, &id));
	w.image = id.image;
	CHECK_EQ(has_other_image(&w), 0);
	kill(pid, SIGCONT);
	CHECK(test_wait_until(has_other_image, &w, 10000));
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	test_kill_wait(pid, SIGKILL);
}

TEST(another_process_of_the_same_number_proves_the_first_dead)
{
	struct shmq__proc_id id;

	CHECK_OK(shmq__proc_identify(getpid(), &id));
	id.start_time--;
	CHECK_EQ(shmq__proc_is_dead(&id), 1);
}

TEST(where_nothing_can_be_known_nobody_is_dead)
{
	struct shmq__proc_id id = { 0 };

	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	CHECK_OK(shmq__proc_identify(getpid(), &id));
	id.start_time--; /* would be proof */
	id.pidns++;      /* but not of a process elsewhere */
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	id.pidns = 0;
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	id = (struct shmq__proc_id){ .pid = -1, .pidns = 1 };
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
}

/* A process lives until its last thread ends: one whose main thread ended
 * first shows as a zombie, and was taken for dead while it still wrote. */
static void *linger(void *arg)
{
	(void)arg;
	pause();
	return NULL;
}

static int end_main_thread(void *arg)
{
	fake_thread(linger, NULL);
	(void)arg;
	pthread_exit(NULL);
}

static int shows_as_zombie(void *arg)
{
	char path[64], line[512], state = 0, *after;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)*(pid_t *)arg);
	if (!(file = fopen(path, "re")))
		return 0;
	if (fgets(line, sizeof(line), file) && (after = strrchr(line, ')')))
		sscanf(after, ") %c", &state);
	fclose(file);
	return state == 'Z';
}

TEST(a_process_whose_main_thread_ended_is_not_dead)
{
	pid_t pid = test_spawn(end_main_thread, NULL);
	struct shmq__proc_id id;

	CHECK(test_wait_until(shows_as_zombie, &pid, 10000));
	CHECK_OK(shmq__proc_identify(pid, &id));
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	kill(pid, SIGKILL);
	CHECK(test_wait_until(is_zombie, &pid, 10000));
	CHECK_EQ(shmq__proc_is_dead(&id), 1);
	test_join(pid);
}

/* Where /proc hides the processes of others, a missing entry proves nothing. */
static int look_from_behind(void *arg)
{
	struct shmq__proc_id *parent = arg;
	char path[64];
	struct stat st;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("proc", "/proc", "proc", 0, "hidepid=2") || setgid(65534) || setuid(65534))
		return 77;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)parent->pid);
	if (!stat(path, &st))
		return 77;
	return shmq__proc_is_dead(parent);
}

TEST(a_process_that_proc_hides_is_not_dead)
{
	struct shmq__proc_id id;
	int rc;

	CHECK_OK(shmq__proc_identify(getpid(), &id));
	rc = test_join(test_spawn(look_from_behind, &id));
	if (rc == 77)
		SKIP("needs root, and a /proc of its own with hidepid");
	CHECK_EQ(rc, 0);
}

static int with_a_name(void *arg)
{
	prctl(PR_SET_NAME, ") R 1 2 (x");
	CHECK_EQ(write(*(int *)arg, "x", 1), 1);
	pause();
	return 0;
}

TEST(a_name_with_brackets_and_blanks_does_not_shift_the_fields)
{
	struct shmq__proc_id id, plain;
	int p[2];
	pid_t pid;
	char c;

	CHECK_OK(pipe(p));
	CHECK_OK(shmq__proc_identify(getpid(), &plain));
	pid = test_spawn(with_a_name, &p[1]);
	CHECK_EQ(read(p[0], &c, 1), 1);
	CHECK_OK(shmq__proc_identify(pid, &id));
	CHECK_GE(id.start_time, plain.start_time);
	CHECK_LT(id.start_time, plain.start_time + 100 * 3600 * 24);
	CHECK_EQ(shmq__proc_is_dead(&id), 0);
	test_kill_wait(pid, SIGKILL);
	close(p[0]);
	close(p[1]);
}

TEST(processor_time_grows_only_with_work)
{
	int64_t first = shmq__proc_cpu_ticks(getpid()), now;
	pid_t pid = test_spawn(wait_for_end, NULL);

	CHECK_GE(first, 0);
	do
		now = shmq__proc_cpu_ticks(getpid());
	while (now == first); /* the watchdog bounds it */
	CHECK_GT(now, first);
	CHECK_GE(shmq__proc_cpu_ticks(pid), 0);
	test_kill_wait(pid, SIGKILL);
	CHECK_EQ(shmq__proc_cpu_ticks(pid), -ESRCH);
}

TEST(a_pidfd_becomes_readable_when_its_process_ends)
{
	pid_t pid = test_spawn(wait_for_end, NULL);
	int fd = shmq__proc_pidfd(pid);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	CHECK_GE(fd, 0);
	CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_EQ(poll(&p, 1, 0), 0);
	kill(pid, SIGKILL);
	CHECK_EQ(poll(&p, 1, -1), 1);
	test_join(pid);
	close(fd);
	CHECK_EQ(shmq__proc_pidfd(pid), -ESRCH);
}
