/* SPDX-License-Identifier: MIT
 *
 * What the command line does and shows where one process holds up others.
 */
#include "raw.h"

#include <fcntl.h>

enum { DEPTH = 1024 };

/* ---- the command ------------------------------------------------------- */

static void path_of(char path[PATH_MAX], const char *name, const char *what)
{
	CHECK_LT(snprintf(path, PATH_MAX, "%s/%s.%s", test_tmpdir(), name, what), PATH_MAX);
}

/* shmq stands beside shmqd. */
static int exec_command(void *arg)
{
	const char **argv = arg;
	char program[PATH_MAX], path[PATH_MAX];
	int fd;

	snprintf(program, sizeof(program), "%s", test_bus_daemon());
	strcpy(strrchr(program, '/'), "/shmq");
	path_of(path, argv[0], "out");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK_EQ(dup2(fd, STDOUT_FILENO), STDOUT_FILENO);
	path_of(path, argv[0], "err");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK_EQ(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	CHECK_OK(setenv("SHMQ_BUS", test_bus_name(), 1));
	execv(program, (char **)argv);
	return 127;
}

/* Start `shmq ARG...`; its output goes to NAME.out and NAME.err. */
#define start(name, ...) \
	test_spawn(exec_command, (const char *[]){ name, "--no-start", ##__VA_ARGS__, NULL })

static const char *read_back(const char *name, const char *what)
{
	static char text[65536];
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	path_of(path, name, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
	return text;
}

static void await_text(const char *name, const char *what, const char *wanted)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (!strstr(read_back(name, what), wanted)) {
		if (test_now_ns() > deadline)
			FAIL("\"%s\" did not come in %s.%s: %s", wanted, name, what,
			     read_back(name, what));
		test_sleep_ms(1);
	}
}

/* ---- a publisher that stops in its claim --------------------------------- */

static int stop_in_a_claim(void *topic)
{
	shmq_bus *bus = test_bus_open();
	struct raw r;
	uint64_t seq;

	raw_open(&r, bus, topic);
	seq = raw_claim(&r);
	raise(SIGSTOP);
	raw_write(&r, seq, "late", 4, NULL);
	raw_commit(&r, seq);
	raw_ring(&r);
	raw_close(&r);
	shmq_bus_close(bus);
	return 0;
}

static pid_t start_stalled(const char *topic)
{
	pid_t pid = test_spawn(stop_in_a_claim, (void *)(uintptr_t)topic);
	int status;

	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	return pid;
}

/* ---- sub ----------------------------------------------------------------- */

static void await_subscribers(shmq_bus *bus, const char *topic, unsigned count)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (topic_info(bus, topic).subscribers < count) {
		if (test_now_ns() > deadline)
			FAIL("no subscriber on \"%s\"", topic);
		test_sleep_ms(1);
	}
}

TEST(sub_goes_on_with_other_topics_while_one_is_stalled)
{
	pid_t stalled, reader;
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "stuck", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	create(bus, "free", .depth = DEPTH);
	reader = start("sub", "sub", "stuck", "free");
	await_subscribers(bus, "stuck", 1);
	await_subscribers(bus, "free", 1);
	stalled = start_stalled("stuck");
	await_text("sub", "err", "receiving from \"stuck\": a live publisher stalled");
	pub = open_pub(bus, "free");
	CHECK_OK(shmq_publish(pub, "on time", 7));
	await_text("sub", "out", "on time\n");
	CHECK_OK(kill(stalled, SIGCONT));
	await_text("sub", "out", "on time\nlate\n");
	CHECK_EQ(test_join(stalled), 0);
	CHECK_EQ(test_kill_wait(reader, SIGTERM), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(sub_times_out_on_a_stalled_topic)
{
	pid_t stalled;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	stalled = start_stalled("t");
	CHECK_EQ(test_join(start("sub", "sub", "t", "--from", "oldest", "--timeout", "2s")), 3);
	CHECK(strstr(read_back("sub", "err"), "timed out") != NULL);
	CHECK_OK(kill(stalled, SIGCONT));
	CHECK_EQ(test_join(stalled), 0);
	CHECK_EQ(test_join(start("sub", "sub", "t", "--from", "oldest", "--timeout", "0")), 3);
	CHECK_STR(read_back("sub", "out"), "late\n");
	shmq_bus_close(bus);
	test_bus_stop();
}
