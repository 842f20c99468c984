/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* How long a signal waits for the program to notice it by itself before it
 * looks whether the program is inside a wait. */
#define GRACE_US 30000
/* One that waits for a slice at a time is given longer. */
#define SLICE_NS INT64_C(200000000)
#define SLICE_GRACES 50

static volatile sig_atomic_t stopped, waiting, exit_code, graces;
static char last_words[4096];

static void look_again_soon(void)
{
	const struct itimerval grace = { .it_value.tv_usec = GRACE_US };

	setitimer(ITIMER_REAL, &grace, NULL);
}

static void on_stop(int signal)
{
	int saved = errno;

	if (stopped) /* somebody insists */
		_exit(128 + signal);
	stopped = signal;
	look_again_soon();
	errno = saved;
}

static void on_grace(int signal)
{
	int saved = errno;

	(void)signal;
	if (waiting && --graces < 0) {
		if (last_words[0] && write(STDERR_FILENO, last_words, strlen(last_words)) < 0)
			_exit(CLI_FAILURE);
		_exit(exit_code);
	}
	look_again_soon();
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

void sig_catch(void)
{
	signal(SIGALRM, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	catch_one(SIGALRM, on_grace);
	catch_one(SIGINT, on_stop);
	catch_one(SIGTERM, on_stop);
	catch_one(SIGHUP, on_stop);
}

int sig_stopped(void)
{
	return stopped;
}

void sig_set_exit(int code, const char *words)
{
	exit_code = code;
	snprintf(last_words, sizeof(last_words), "%s", words);
}

int64_t sig_slice(int64_t ns)
{
	graces = SLICE_GRACES;
	return ns == SHMQ_FOREVER || ns > SLICE_NS ? SLICE_NS : ns;
}

int sig_wait_begin(void)
{
	waiting = 1;
	if (!stopped)
		return 0;
	waiting = 0;
	return 1;
}

void sig_wait_end(void)
{
	waiting = 0;
	graces = 0;
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
