/* SPDX-License-Identifier: MIT
 *
 * Starting a supervisor: which one is found, and when a dead one is replaced.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

/* The file of that name under the test's own directory. */
static const char *path_of(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	return path;
}

/* A shmqd that notes its arguments, a line each time, and does as told. */
static void install_shmqd(const char *what_then)
{
	FILE *file = fopen(path_of("shmqd"), "we");

	CHECK(file);
	fprintf(file, "#!/bin/sh\necho \"$*\" >>%s\n%s\n", path_of("started"), what_then);
	fclose(file);
	CHECK_EQ(chmod(path_of("shmqd"), 0755), 0);
	CHECK_EQ(setenv("PATH", test_tmpdir(), 1), 0);
	CHECK_EQ(unsetenv("SHMQ_DAEMON"), 0);
}

/* How often it was started; checks with what. */
static int count_starts(void *arg)
{
	FILE *file = fopen(path_of("started"), "re");
	char line[PATH_MAX + 64], want[PATH_MAX + 64];
	int n = 0;

	if (!file)
		return 0;
	snprintf(want, sizeof(want), "--bus fake --runtime-dir %s --on-demand\n", test_tmpdir());
	while (fgets(line, sizeof(line), file)) {
		CHECK_STR(line, want);
		n++;
	}
	fclose(file);
	return n;
}

static int open_on_demand(const char *daemon, shmq_bus **bus)
{
	return shmq_bus_open(STANDIN_BUS,
			     BUS_OPTIONS(.runtime_dir = test_tmpdir(),
					 .start = SHMQ_START_ON_DEMAND, .daemon_path = daemon,
					 .timeout_ns = 20 * MILLISECOND),
			     bus);
}

TEST(the_supervisor_to_start_is_found_by_name_environment_or_path)
{
	shmq_bus *bus;

	install_shmqd("exit 3");
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("shmqd failed to start: see");
	CHECK_EQ(count_starts(NULL), 1);
	setenv("SHMQ_DAEMON", "", 1); /* as if it were not set */
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	CHECK_EQ(count_starts(NULL), 2);
	setenv("SHMQ_DAEMON", "/nonexistent/shmqd", 1);
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("starting /nonexistent/shmqd");
	CHECK_ERROR(open_on_demand(path_of("shmqd"), &bus), SHMQ_ENODAEMON);
	CHECK_EQ(count_starts(NULL), 3);
}

TEST(what_keeps_a_supervisor_from_starting_is_named)
{
	int before = test_fd_count();
	shmq_bus *bus;

	install_shmqd("echo shmqd: no room here >&2\necho more >&2\nexit 1");
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("shmqd failed to start: no room here");
	CHECK(!strstr(shmq_bus_error(NULL), "more"));
	install_shmqd("kill -KILL $$");
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("shmqd failed to start: see");
	CHECK_EQ(test_fd_count(), before);
}

TEST(root_starts_none_in_the_directory_of_another)
{
	shmq_bus *bus;

	if (geteuid() != 0)
		SKIP("not root");
	install_shmqd("exit 0");
	CHECK_EQ(chown(test_tmpdir(), 1, 1), 0);
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("belongs to uid 1, who has to start it");
	CHECK_EQ(count_starts(NULL), 0);
	CHECK_EQ(chown(test_tmpdir(), 0, 0), 0);
}

TEST(a_supervisor_that_says_it_started_but_does_not_listen_is_given_its_time)
{
	shmq_bus *bus;

	install_shmqd("exit 0");
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("nobody listens");
	CHECK_EQ(count_starts(NULL), 1);
	signal(SIGCHLD, SIG_IGN); /* the program reaps its children itself */
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("nobody listens");
	CHECK_EQ(count_starts(NULL), 2);
	signal(SIGCHLD, SIG_DFL);
}

static int open_lock(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK_GE(fd, 0);
	return fd;
}

TEST(of_a_bus_on_demand_the_dead_supervisor_is_replaced_once_its_locks_are_free)
{
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .start = SHMQ_START_ON_DEMAND };
	int lock, control;
	shmq_bus *bus;

	install_shmqd("exit 0");
	CHECK_OK(standin_open(s, &o, &bus));
	bus->timeout_ns = 5 * MILLISECOND;
	standin_leave(s);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* no lock: it ended in order */
	CHECK_EQ(bus->starter, 0);
	lock = open_lock("fake.lock");
	control = open_lock("fake.control");
	CHECK_EQ(flock(lock, LOCK_EX), 0);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* a parent is there */
	CHECK_EQ(flock(lock, LOCK_UN), 0);
	CHECK_EQ(flock(control, LOCK_EX), 0);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* a worker is there */
	CHECK_EQ(bus->next_start_ns, 0);
	CHECK_EQ(count_starts(NULL), 0);
	CHECK_EQ(flock(control, LOCK_UN), 0);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* not again so soon */
	CHECK(test_wait_until(count_starts, NULL, 10000));
	CHECK_NE(bus->next_start_ns, 0);
	standin_return(s);
	bus->timeout_ns = PATIENCE;
	CHECK_OK(ask(bus));
	CHECK_EQ(bus->starter, 0);
	CHECK_EQ(bus->start_pause_ns, 0);
	CHECK_EQ(count_starts(NULL), 1);
	shmq_bus_close(bus);
	close(lock);
	close(control);
	standin_free(s);
}

TEST(a_restart_that_cannot_be_is_tried_again_later_and_harms_nobody)
{
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .start = SHMQ_START_ON_DEMAND,
				      .daemon_path = "/nonexistent/shmqd" };
	shmq_bus *bus;

	CHECK_OK(standin_open(s, &o, &bus));
	bus->timeout_ns = 5 * MILLISECOND;
	close(open_lock("fake.lock"));
	standin_leave(s);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	CHECK_EQ(bus->starter, 0);
	CHECK_GT(bus->start_pause_ns, SECOND);
	shmq_bus_close(bus);
	standin_free(s);
}
