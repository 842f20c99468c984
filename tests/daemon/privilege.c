/* SPDX-License-Identifier: MIT
 *
 * What the processes of a supervisor may do, as the kernel says.  As root
 * there is something to shed; anybody else has nothing to begin with.
 */
#include "privilege.h"

#include "../lib/bus.h"
#include "place.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIT(capability) (UINT64_C(1) << (capability))
#define MEMORY (BIT(CAP_IPC_LOCK) | BIT(CAP_SYS_NICE))
#define PARENT BIT(CAP_NET_ADMIN)
#define CONTROL (MEMORY | PARENT | BIT(CAP_KILL) | BIT(CAP_SYS_PTRACE))
#define PATIENCE_MS 10000

struct status {
	uint64_t effective, permitted, bounding, no_new_privs;
};

static struct status before; /* what the test itself has */

static uint64_t line_of(const char *text, const char *name, int base)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, base) : UINT64_MAX;
}

/* 0, or it is not there. */
static int read_status(pid_t pid, struct status *out)
{
	char path[64], text[8192];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	*out = (struct status){ line_of(text, "\nCapEff:", 16), line_of(text, "\nCapPrm:", 16),
				line_of(text, "\nCapBnd:", 16),
				line_of(text, "\nNoNewPrivs:", 10) };
	return n > 0 ? 0 : -1;
}

/* The worker of that role below the parent, or 0. */
static pid_t worker(pid_t parent, const char *role)
{
	char path[64], argument[32], words[4096], *word, *rest;
	FILE *children;
	pid_t pid, found = 0;

	snprintf(argument, sizeof(argument), "--role=%s", role);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	children = fopen(path, "re");
	if (!children)
		return 0;
	while (!found && fscanf(children, "%d", &pid) == 1) {
		size_t n;
		FILE *line;

		snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
		line = fopen(path, "re");
		n = line ? fread(words, 1, sizeof(words) - 1, line) : 0;
		if (line)
			fclose(line);
		words[n] = 0;
		for (word = words, rest = words + n; word < rest; word += strlen(word) + 1)
			if (!strcmp(word, argument))
				found = pid;
	}
	fclose(children);
	return found;
}

struct wish {
	pid_t pid;
	struct status want, got;
};

static int has_come_to(void *arg)
{
	struct wish *w = arg;

	return !read_status(w->pid, &w->got) && w->got.effective == w->want.effective &&
	       w->got.permitted == w->want.permitted && w->got.no_new_privs == 1;
}

static void check_kept(pid_t pid, uint64_t effective, uint64_t permitted)
{
	struct wish w = { .pid = pid,
			  .want = { .effective = effective & before.permitted,
				    .permitted = permitted & before.permitted } };

	CHECK_GT(pid, 0);
	if (!test_wait_until(has_come_to, &w, PATIENCE_MS))
		FAIL("process %d has %llx of %llx, no_new_privs %llu", (int)pid,
		     (unsigned long long)w.got.effective, (unsigned long long)w.got.permitted,
		     (unsigned long long)w.got.no_new_privs);
	if (before.effective & BIT(CAP_SETPCAP))
		CHECK_EQ(w.got.bounding & ~CONTROL, 0);
}

struct search {
	shmq_bus *bus;
	pid_t parent, other, found;
	const char *role;
};

static int has_worker(void *arg)
{
	struct search *s = arg;

	s->parent = test_bus_parent_pid(s->bus);
	s->found = s->parent ? worker(s->parent, s->role) : 0;
	return s->found && s->found != s->other;
}

static pid_t await_worker(shmq_bus *bus, const char *role, pid_t other)
{
	struct search s = { .bus = bus, .other = other, .role = role };

	if (!test_wait_until(has_worker, &s, PATIENCE_MS))
		FAIL("no %s worker came", role);
	return s.found;
}

/* That is what the bus says, so that whoever is killed then leaves a whole one. */
static int has_adopted(void *arg)
{
	const struct search *s = arg;

	return test_bus_worker_pid(s->bus) == s->other;
}

static int has_other_parent(void *arg)
{
	const struct search *s = arg;
	pid_t pid = test_bus_parent_pid(s->bus);

	return pid && pid != s->other;
}

TEST(each_process_keeps_what_it_needs_and_its_successors_too)
{
	struct shmq_topic_options logged = { .size = sizeof(logged), .log = SHMQ_LOG_BLOCK };
	struct search s;
	pid_t control, tailer;
	shmq_bus *bus;

	CHECK_OK(read_status(getpid(), &before));
	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_topic_create(bus, "t", &logged, NULL));
	check_kept(test_bus_parent_pid(bus), PARENT, CONTROL);
	control = await_worker(bus, "control", 0);
	check_kept(control, CONTROL, CONTROL);
	tailer = await_worker(bus, "tailer", 0);
	check_kept(tailer, 0, 0);
	/* By the parent that has nothing in force. */
	CHECK_OK(kill(control, SIGKILL));
	s = (struct search){ .bus = bus, .other = await_worker(bus, "control", control) };
	check_kept(s.other, CONTROL, CONTROL);
	if (!test_wait_until(has_adopted, &s, PATIENCE_MS))
		FAIL("no other worker served");
	/* By the worker. */
	s.other = test_bus_parent_pid(bus);
	CHECK_GE(test_bus_kill("parent"), 1);
	if (!test_wait_until(has_other_parent, &s, PATIENCE_MS))
		FAIL("no other parent came");
	check_kept(test_bus_parent_pid(bus), PARENT, CONTROL);
	check_kept(await_worker(bus, "tailer", tailer), 0, 0);
	CHECK_OK(shmq_topic_create(bus, "u", NULL, NULL));
	shmq_bus_close(bus);
	test_bus_stop();
}

static int say(void *arg, struct shmq__why *why)
{
	(void)why;
	return read_status(getpid(), arg);
}

TEST(the_child_that_makes_memory_may_lock_and_place_it_and_no_more)
{
	struct status *got =
		mmap(NULL, sizeof(*got), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct shmq__why why = { "" };
	pid_t child;
	int fd;

	CHECK_OK(read_status(getpid(), &before));
	CHECK(got != MAP_FAILED);
	CHECK_OK(place_run_start(say, got, &child, &fd, &why));
	CHECK_OK(place_populate_finish(child, fd, NULL, &why));
	CHECK_EQ(got->effective, MEMORY & before.permitted);
	CHECK_EQ(got->permitted, MEMORY & before.permitted);
	CHECK_EQ(got->no_new_privs, 1);
	munmap(got, sizeof(*got));
}

/* What stands in /proc is in force. */
TEST(who_has_shed_them_reads_no_file_of_others)
{
	char path[] = "/tmp/shmq-privilege-XXXXXX";
	int fd = mkstemp(path), status;
	pid_t pid;

	if (getuid())
		SKIP("needs root");
	CHECK_OK(fd);
	close(fd);
	CHECK_OK(chown(path, 4711, 4711));
	pid = fork();
	if (!pid) {
		if (privilege_shed(PRIVILEGE_CONTROL))
			_exit(1);
		_exit(open(path, O_RDONLY) >= 0 ? 2 : errno == EACCES ? 0 : 3);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	unlink(path);
	CHECK_EQ(status, 0);
}
