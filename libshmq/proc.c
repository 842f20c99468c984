/* SPDX-License-Identifier: MIT */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct stat_line {
	char state;
	unsigned threads;
	uint64_t utime, stime, start_time, image;
};

/* /proc/pid/stat: "pid (comm) S ppid ..."; comm may hold anything, so the
 * fields are counted from the last ')'. */
static int read_stat(pid_t pid, struct stat_line *out)
{
	char path[32], text[1024], *p, *save = NULL;
	ssize_t n;
	int fd, field;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return n < 0 ? -errno : -ESRCH;
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p)
		return -EPROTO;
	memset(out, 0, sizeof(*out));
	for (field = 3, p = strtok_r(p + 1, " ", &save); p;
	     field++, p = strtok_r(NULL, " ", &save)) {
		if (field == 3)
			out->state = *p;
		else if (field == 14)
			out->utime = strtoull(p, NULL, 10);
		else if (field == 15)
			out->stime = strtoull(p, NULL, 10);
		else if (field == 20)
			out->threads = (unsigned)strtoul(p, NULL, 10);
		else if (field == 22)
			out->start_time = strtoull(p, NULL, 10);
		else if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			out->image =
				(out->image ^ strtoull(p, NULL, 10)) * UINT64_C(0x9e3779b97f4a7c15);
	}
	return field > 22 ? 0 : -EPROTO;
}

static uint64_t inode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : (uint64_t)st.st_ino;
}

/* Pids are numbers of the process's pid namespace; start times are shown
 * as of the time namespace of whoever reads them.  Only an observer that
 * shares both can compare. */
static uint64_t namespaces_of(const char *pid)
{
	char path[64];
	uint64_t ino;

	snprintf(path, sizeof(path), "/proc/%s/ns/pid", pid);
	ino = inode_of(path);
	return ino ? ino | inode_of("/proc/self/ns/time") << 32 : 0;
}

int shmq__proc_identify(pid_t pid, struct shmq__proc_id *out)
{
	struct stat_line line;
	char name[16];
	int rc = read_stat(pid, &line);

	if (rc)
		return rc;
	snprintf(name, sizeof(name), "%d", (int)pid);
	out->pid = pid;
	out->start_time = line.start_time;
	out->image = line.image;
	out->pidns = namespaces_of(name);
	return 0;
}

int shmq__proc_is_dead(const struct shmq__proc_id *id)
{
	struct stat_line line;
	int rc;

	if (id->pid <= 0 || !id->pidns || id->pidns != namespaces_of("self"))
		return 0;
	rc = read_stat(id->pid, &line);
	/* A /proc mounted with hidepid hides other users' live processes. */
	if (rc == -ESRCH)
		return kill(id->pid, 0) && errno == ESRCH;
	if (rc)
		return 0;
	if (line.start_time != id->start_time)
		return 1;
	/* A zombie with threads is one whose main thread ended before others. */
	return (line.state == 'Z' || line.state == 'X') && line.threads <= 1;
}

int64_t shmq__proc_cpu_ticks(pid_t pid)
{
	struct stat_line line;
	int rc = read_stat(pid, &line);

	return rc ? rc : (int64_t)(line.utime + line.stime);
}

int shmq__proc_pidfd(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : (int)fd;
}
