/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int peer_error(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fprintf(stderr, "%s: ", bench_peer.name);
	vfprintf(stderr, format, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	return -1;
}

int peer_path(const struct peer_channel *channel, unsigned i, char path[PEER_PATH_BYTES])
{
	int n = snprintf(path, PEER_PATH_BYTES, "%s/%s.%u", channel->dir, channel->name, i);

	return n < PEER_PATH_BYTES ? 0 : peer_error("%s: the path is too long", channel->dir);
}

int peer_offer(const struct peer_channel *channel, unsigned i, int fd)
{
	char path[PEER_PATH_BYTES], target[64];

	if (peer_path(channel, i, path))
		return -1;
	snprintf(target, sizeof(target), "/proc/%d/fd/%d", (int)getpid(), fd);
	if (symlink(target, path))
		return peer_error("linking %s: %s", path, strerror(errno));
	return 0;
}

int peer_fetch(const struct peer_channel *channel, unsigned i, int flags)
{
	char path[PEER_PATH_BYTES];
	int fd;

	if (peer_path(channel, i, path))
		return -1;
	while ((fd = open(path, flags | O_CLOEXEC)) < 0 && errno == ENOENT)
		peer_nap();
	return fd >= 0 ? fd : peer_error("opening %s: %s", path, strerror(errno));
}

void peer_withdraw(const struct peer_channel *channel, unsigned i)
{
	char path[PEER_PATH_BYTES];

	if (!peer_path(channel, i, path))
		unlink(path);
}

unsigned peer_depth(const struct peer_channel *channel, unsigned min, unsigned max)
{
	unsigned depth = max;

	while (depth > min && depth * channel->bytes > 4 << 20)
		depth /= 2;
	return depth;
}

void peer_yield(void)
{
	sched_yield();
}

void peer_nap(void)
{
	const struct timespec ms = { 0, 1000000 };

	nanosleep(&ms, NULL);
}

void peer_idle(enum peer_wait wait, struct pollfd *fds, unsigned n, unsigned *polls)
{
	if (wait == PEER_SLEEP)
		poll(fds, n, -1);
	else
		peer_relax(polls);
}

pid_t peer_spawn(const char *file, const char *const argv[], const char *log)
{
	pid_t parent = getpid(), pid = fork();
	int fd;

	if (pid < 0)
		return peer_error("fork: %s", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (getppid() == parent && fd >= 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2)
		execvp(file, (char **)(uintptr_t)argv);
	_exit(127);
}

int peer_alive(pid_t server)
{
	return waitpid(server, NULL, WNOHANG) == 0;
}

void peer_end(pid_t server)
{
	kill(server, SIGTERM);
	while (waitpid(server, NULL, 0) < 0 && errno == EINTR)
		;
}
