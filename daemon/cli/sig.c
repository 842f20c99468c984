/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Waits on the bus end with a signal by themselves.  A read, write or sleep that had not
 * begun when it came is interrupted that much later. */
#define AGAIN_US 30000

static volatile sig_atomic_t stopped;
static shmq_bus *volatile bus;

static void interrupt_again(void)
{
	const struct itimerval again = { .it_value.tv_usec = AGAIN_US };

	setitimer(ITIMER_REAL, &again, NULL);
}

static void on_stop(int signal)
{
	int saved = errno;

	if (stopped) /* somebody insists */
		_exit(128 + signal);
	stopped = signal;
	if (bus)
		shmq_bus_interrupt(bus);
	interrupt_again();
	errno = saved;
}

static void on_again(int signal)
{
	int saved = errno;

	(void)signal;
	interrupt_again();
	errno = saved;
}

/* What the parent had ignored stays ignored (nohup, background jobs). */
static void catch_one(int number, void (*handler)(int))
{
	struct sigaction old, action = { .sa_handler = handler };

	if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
		return;
	sigemptyset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

void sig_catch(shmq_bus *waited_on)
{
	bus = waited_on;
	signal(SIGALRM, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	catch_one(SIGALRM, on_again);
	catch_one(SIGINT, on_stop);
	catch_one(SIGTERM, on_stop);
	catch_one(SIGHUP, on_stop);
}

void sig_forget_bus(void)
{
	bus = NULL;
}

int sig_stopped(void)
{
	return stopped;
}

void sig_sleep_until(int64_t monotonic_ns)
{
	struct timespec until = {
		.tv_sec = monotonic_ns / 1000000000,
		.tv_nsec = monotonic_ns % 1000000000,
	};

	if (!stopped)
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}
