/* SPDX-License-Identifier: MIT */
#include "ready.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

struct report {
	int32_t code;
	char text[SHMQ_ERROR_TEXT_MAX];
};

_Noreturn static void wait_for_report(int fd, const char *log)
{
	struct report r;
	ssize_t n;

	do
		n = read(fd, &r, sizeof(r));
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(r)) {
		fprintf(stderr, "shmqd: the supervisor ended while starting: see %s\n", log);
		_exit(EXIT_FAILED);
	}
	r.text[sizeof(r.text) - 1] = 0;
	if (*r.text)
		fprintf(stderr, "shmqd: %s\n", r.text);
	_exit(r.code);
}

static int redirect(const char *log)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	int error = null < 0 || out < 0 ? -errno : 0;

	if (!error && (dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
		       dup2(out, STDERR_FILENO) < 0))
		error = -errno;
	if (null > STDERR_FILENO)
		close(null);
	if (out > STDERR_FILENO)
		close(out);
	return error;
}

int ready_daemonise(const char *log, int *fd)
{
	int ends[2], error;
	char text[512];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0) {
		error = -errno;
		close(ends[0]);
		close(ends[1]);
		return error;
	}
	if (pid) {
		close(ends[1]);
		wait_for_report(ends[0], log);
	}
	close(ends[0]);
	*fd = ends[1];
	setsid();
	error = redirect(log);
	if (error) {
		snprintf(text, sizeof(text), "opening the log %s: %s", log, files_strerror(error));
		ready_report(fd, EXIT_FAILED, text);
		_exit(EXIT_FAILED);
	}
	return chdir("/") ? -errno : 0;
}

void ready_report(int *fd, enum exit_code code, const char *text)
{
	struct report r = { .code = code };
	ssize_t n;

	if (*fd < 0)
		return;
	if (text)
		snprintf(r.text, sizeof(r.text), "%s", text);
	/* Nobody may be waiting any more. */
	n = write(*fd, &r, sizeof(r));
	(void)n;
	close(*fd);
	*fd = -1;
}
