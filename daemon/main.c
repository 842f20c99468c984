/* SPDX-License-Identifier: MIT
 *
 * shmqd: the supervisor of one bus, a small parent and its control worker.
 * One program in several roles (options.h); only the first is for people.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control.h"
#include "files.h"
#include "options.h"
#include "parent.h"
#include "privilege.h"
#include "ready.h"
#include "sandbox.h"
#include "service.h"
#include "tailer.h"
#include "upgrade.h"

/* A bus takes some 30 for itself and each client three. */
#define DESCRIPTORS_MIN 64u

/* The soft limit is for those who still use select(2).  The limit. */
static rlim_t raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return RLIM_INFINITY;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_max;
}

/* A closed standard descriptor would be given to a slab. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static int log_to(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) {
		fprintf(stderr, "shmqd: opening the log %s: %s\n", path, files_strerror(-errno));
		return EXIT_FAILED;
	}
	close(fd);
	return -1;
}

/* Started from an application that may be pinned to an isolated core, spin
 * at a real-time priority, or ignore its children: none of that is ours. */
static void shed_habits(void)
{
	struct sched_param normal = { 0 };
	cpu_set_t all;
	int i;

	memset(&all, 0xff, sizeof(all));
	sched_setscheduler(0, SCHED_OTHER, &normal);
	sched_setaffinity(0, sizeof(all), &all);
	setpriority(PRIO_PROCESS, 0, 0);
	syscall(SYS_set_mempolicy, 0, NULL, 0);
	for (i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
}

static int start(struct options *o)
{
	struct files files;
	int ready_fd = -1, rc;

	if (o->foreground) {
		rc = o->log ? log_to(o->log) : -1;
		return rc >= 0 ? rc : parent_run(o, -1);
	}
	if (o->on_demand)
		shed_habits();
	service_disown();
	files_name(&files, o->dir, o->bus);
	rc = ready_daemonise(o->log ? o->log : files.log, &ready_fd);
	if (rc) {
		fprintf(stderr, "shmqd: daemonising: %s\n", files_strerror(rc));
		return EXIT_FAILED;
	}
	return parent_run(o, ready_fd);
}

int main(int argc, char **argv)
{
	static struct options o; /* what it points to is reachable to the end */
	rlim_t descriptors;
	int rc, others;

	fill_standard_descriptors();
	rc = options_parse(argc, argv, &o);
	if (rc >= 0)
		return rc;
	/* What the caller had open and forgot to mark would stay open for as
	 * long as the bus lives, and a pipe of it never end. */
	if (o.role == ROLE_START) {
		others = service_begin();
		close_range((unsigned)others, ~0U, 0);
	}
	descriptors = raise_descriptor_limit();
	if (o.role == ROLE_START && descriptors < DESCRIPTORS_MIN) {
		fprintf(stderr,
			"shmqd: RLIMIT_NOFILE is %u, and a bus needs at least %u descriptors: "
			"raise it (ulimit -n, LimitNOFILE=)\n",
			(unsigned)descriptors, DESCRIPTORS_MIN);
		return EXIT_FAILED;
	}
	prctl(PR_SET_NAME, "shmqd"); /* not after how it was executed */
	if (o.fd >= 0)
		fcntl(o.fd, F_SETFD, FD_CLOEXEC);
	/* One that starts has yet to find its files and log. */
	if (o.role != ROLE_START)
		privilege_shed(o.role == ROLE_CONTROL ? PRIVILEGE_CONTROL :
			       o.role == ROLE_TAILER  ? PRIVILEGE_TAILER :
							PRIVILEGE_PARENT);
	if (o.sandbox != SANDBOX_OFF)
		sandbox_let_narrow();
	switch (o.role) {
	case ROLE_CONTROL:
		return control_run(&o);
	case ROLE_PARENT:
		return parent_run(&o, -1);
	case ROLE_TAILER:
		return tailer_run(&o);
	case ROLE_TRIAL:
		return upgrade_trial(&o);
	default:
		return start(&o);
	}
}
