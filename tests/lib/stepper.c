/* SPDX-License-Identifier: MIT */
#include "stepper.h"

#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)

static int try_to_be_traced(void *arg)
{
	(void)arg;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return errno;
	return 0;
}

void stepper_need(void)
{
	int error = test_join(test_spawn(try_to_be_traced, NULL));

	if (error)
		SKIP("no process may be traced here: ptrace: %s", strerror(error));
}

struct birth {
	int (*fn)(void *arg);
	void *arg;
	int wait, has_threads;
};

/* Which thread is to be stepped: the child tells. */
static _Atomic pid_t *taken;

static int live(void *arg)
{
	struct birth *birth = arg;
	char byte;

	if (read(birth->wait, &byte, 1) != 1)
		return EXIT_FAILURE;
	close(birth->wait);
	if (!birth->has_threads && ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return EXIT_FAILURE;
	return birth->fn(birth->arg);
}

void stepper_take_over(void)
{
	CHECK_EQ(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
	atomic_store(taken, gettid());
}

static cpu_set_t allowed;
static int is_bound;

/* On one processor: the two never run at the same time, and a switch costs a
 * tenth of a wake on another. */
static void stay_here(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	is_bound = is_bound || !sched_getaffinity(0, sizeof(allowed), &allowed);
	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* Until the next: another test may have bound itself to the same. */
static void may_move(void)
{
	if (is_bound)
		sched_setaffinity(0, sizeof(allowed), &allowed);
	is_bound = 0;
}

static void be_born(struct stepper *s, struct birth birth)
{
	int pair[2];

	CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
	stay_here();
	birth.wait = pair[0];
	*s = (struct stepper){ .pid = test_spawn(live, &birth), .go = pair[1] };
	close(pair[0]);
}

void stepper_fork(struct stepper *s, int (*fn)(void *arg), void *arg)
{
	be_born(s, (struct birth){ fn, arg, -1, 0 });
}

void stepper_fork_threads(struct stepper *s, int (*fn)(void *arg), void *arg)
{
	if (!taken)
		taken = mmap(NULL, sizeof(*taken), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(taken != MAP_FAILED);
	atomic_store(taken, 0);
	be_born(s, (struct birth){ fn, arg, -1, 1 });
	s->leader = s->pid;
}

static int is_taken(void *arg)
{
	return atomic_load(taken) != 0;
}

static enum stepper_at judge(struct stepper *s, int status)
{
	siginfo_t info;

	if (!WIFSTOPPED(status)) {
		s->ended = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		s->pid = 0;
		return STEPPER_ENDED;
	}
	if (WSTOPSIG(status) != SIGTRAP) {
		s->signal = WSTOPSIG(status);
		return STEPPER_STEP;
	}
	CHECK_EQ(ptrace(PTRACE_GETSIGINFO, s->pid, NULL, &info), 0);
	if (info.si_code != SI_KERNEL) { /* which is what a mark ends with */
		s->steps++;
		return STEPPER_STEP;
	}
	s->steps = 0;
	return STEPPER_MARKED;
}

static enum stepper_at await_stop(struct stepper *s)
{
	int status;

	while (waitpid(s->pid, &status, 0) < 0)
		CHECK_EQ(errno, EINTR);
	return judge(s, status);
}

static void resume(struct stepper *s, int how)
{
	int sig = s->signal;

	s->signal = 0;
	CHECK_EQ(ptrace(how, s->pid, NULL, (void *)(intptr_t)sig), 0);
}

void stepper_go(struct stepper *s)
{
	enum stepper_at at;

	if (s->go >= 0) {
		CHECK_EQ(write(s->go, "", 1), 1);
		close(s->go);
		s->go = -1;
		if (s->leader) {
			CHECK(test_wait_until(is_taken, NULL, 60000));
			s->pid = atomic_load(taken);
		}
	} else {
		resume(s, PTRACE_CONT);
	}
	while ((at = await_stop(s)) == STEPPER_STEP)
		resume(s, PTRACE_CONT);
	if (at == STEPPER_ENDED)
		FAIL("the process that is traced ended before its mark: %d", s->ended);
	CHECK_EQ(at, STEPPER_MARKED);
}

/* Its next instruction is a system call, so it may stay away. */
static int is_at_syscall(const struct stepper *s)
{
	long rip = ptrace(PTRACE_PEEKUSER, s->pid, offsetof(struct user_regs_struct, rip), NULL);
	long text = ptrace(PTRACE_PEEKTEXT, s->pid, rip, NULL);

	return (text & 0xffff) == 0x050f;
}

static int is_asleep(pid_t pid)
{
	char path[40], text[128], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n < 0 ? 0 : n] = 0;
	at = strrchr(text, ')');
	return at && at[1] && at[2] == 'S';
}

enum stepper_at stepper_step(struct stepper *s)
{
	int may_sleep = is_at_syscall(s), looks, status;

	s->was_syscall = may_sleep;
	resume(s, PTRACE_SINGLESTEP);
	if (!may_sleep)
		return await_stop(s);
	for (looks = 0;; looks++) {
		pid_t pid = waitpid(s->pid, &status, WNOHANG);

		if (pid == s->pid)
			return judge(s, status);
		/* Twice, as it may have been on its way out of one. */
		if (looks > 20 && is_asleep(s->pid) && (test_sleep_ms(1), is_asleep(s->pid)))
			return STEPPER_ASLEEP;
		usleep(20);
	}
}

enum stepper_at stepper_await(struct stepper *s)
{
	return await_stop(s);
}

enum stepper_at stepper_syscall(struct stepper *s)
{
	resume(s, PTRACE_SYSCALL);
	return await_stop(s);
}

int stepper_finish(struct stepper *s)
{
	while (s->pid) {
		resume(s, PTRACE_CONT);
		await_stop(s);
	}
	return s->ended;
}

void stepper_kill(struct stepper *s)
{
	int status;

	if (s->go >= 0)
		close(s->go);
	s->go = -1;
	kill(s->leader ? s->leader : s->pid, SIGKILL);
	/* A stop that was on its way comes first. */
	while (waitpid(s->pid, &status, __WALL) == s->pid && WIFSTOPPED(status))
		;
	if (s->leader)
		waitpid(s->leader, &status, 0);
	s->pid = s->leader = 0;
	may_move();
}

void stepper_leave_stopped(struct stepper *s)
{
	siginfo_t info;

	CHECK_EQ(ptrace(PTRACE_DETACH, s->pid, NULL, SIGSTOP), 0);
	while (waitid(P_PID, (id_t)s->pid, &info, WSTOPPED | WNOWAIT) < 0)
		CHECK_EQ(errno, EINTR);
	may_move();
}

#else

void stepper_need(void)
{
	SKIP("single steps need an x86-64 processor");
}

void stepper_fork(struct stepper *s, int (*fn)(void *arg), void *arg)
{
	(void)fn;
	(void)arg;
	*s = (struct stepper){ .go = -1 };
	stepper_need();
}

void stepper_fork_threads(struct stepper *s, int (*fn)(void *arg), void *arg)
{
	stepper_fork(s, fn, arg);
}

void stepper_take_over(void)
{
}

void stepper_go(struct stepper *s)
{
	(void)s;
}

enum stepper_at stepper_step(struct stepper *s)
{
	(void)s;
	return STEPPER_ENDED;
}

enum stepper_at stepper_await(struct stepper *s)
{
	return stepper_step(s);
}

enum stepper_at stepper_syscall(struct stepper *s)
{
	return stepper_step(s);
}

int stepper_finish(struct stepper *s)
{
	return s->ended;
}

void stepper_kill(struct stepper *s)
{
	(void)s;
}

void stepper_leave_stopped(struct stepper *s)
{
	(void)s;
}

#endif
