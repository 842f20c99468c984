/* SPDX-License-Identifier: MIT
 *
 * stepper: another process, one instruction at a time.
 *
 * It is a child that the test traces.  Between two marks that it sets in its
 * code every instruction of it is a step; before and after it runs freely.
 * Whoever looks at memory that both share sees each state that any process
 * could leave behind which was killed there.
 */
#ifndef STEPPER_H
#define STEPPER_H

#include <stdint.h>
#include <sys/types.h>

/* In the child: here the tracer takes over, or lets go. */
#if defined(__x86_64__)
#define STEPPER_MARK() __asm__ volatile("int3" : : : "memory")
#else
#define STEPPER_MARK() ((void)0)
#endif

enum stepper_at {
	STEPPER_STEP,   /* one more instruction was run, or a signal came */
	STEPPER_MARKED, /* it came to a mark */
	STEPPER_ASLEEP, /* it sleeps in a system call: stepper_await() it */
	STEPPER_ENDED,  /* it ended; stepper->ended says how, as test_join() */
};

struct stepper {
	pid_t pid;    /* of the thread that is stepped */
	pid_t leader; /* of its process, where that is another, or 0 */
	int go;       /* descriptor: what it waits for before it runs fn */
	int ended;
	int signal;      /* that it is about to get */
	int was_syscall; /* the last one was, so files may have changed */
	uint64_t steps;  /* so far, since the last mark */
};

/* End the test as skipped, by name, where this cannot be done. */
void stepper_need(void);

/* Fork a child that runs fn(arg) once it is told to go. */
void stepper_fork(struct stepper *s, int (*fn)(void *arg), void *arg);

/* The same, to step a thread that fn makes, or has made: the one that calls
 * stepper_take_over(), before its first mark.  The others run freely. */
void stepper_fork_threads(struct stepper *s, int (*fn)(void *arg), void *arg);
void stepper_take_over(void);

/* Let it run to its next mark; it may not end before. */
void stepper_go(struct stepper *s);

/* One instruction. */
enum stepper_at stepper_step(struct stepper *s);

/* It was asleep, and whatever it waits for has been done: until it is back. */
enum stepper_at stepper_await(struct stepper *s);

/* To where its next system call begins, or the one that it is in ends. */
enum stepper_at stepper_syscall(struct stepper *s);

/* Let it run freely until it ends; how, as test_join(). */
int stepper_finish(struct stepper *s);

/* SIGKILL, and its end. */
void stepper_kill(struct stepper *s);

/* SIGSTOP without a tracer: from now on it is a stopped process like any
 * other. */
void stepper_leave_stopped(struct stepper *s);

#endif
