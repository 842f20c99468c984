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

/* ---- stat ---------------------------------------------------------------- */

static struct shmq_partition_info partition_info(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, topic, 0, &info));
	return info;
}

static void check_stat(const char *topic, const char *wanted)
{
	CHECK_EQ(test_join(start("stat", "stat", topic)), 0);
	if (!strstr(read_back("stat", "out"), wanted))
		FAIL("stat does not say \"%s\": %s", wanted, read_back("stat", "out"));
}

static void check_stat_blames(const char *topic, const char *what, pid_t pid)
{
	char wanted[256];

	snprintf(wanted, sizeof(wanted), "%s, held (pid %d): it ", what, (int)pid);
	check_stat(topic, wanted);
}

static int is_waiting(shmq_bus *bus, const char *topic)
{
	return peers_of(bus, topic, SHMQ_ROLE_PUBLISHER).waiting > 0;
}

/* Its subscriber has read nothing; the publisher sleeps with less than a ring
 * published. */
static void check_holder_is_named(int (*publish)(void *))
{
	struct shmq_partition_info part;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = 1 << 20);
	sub = open_sub(bus, "t");
	child = test_spawn(publish, NULL);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	part = partition_info(bus, "t");
	CHECK_LT(part.holder_lag, DEPTH);
	CHECK_EQ(part.holder, (int)shmq_bus_client_id(bus));
	CHECK(part.holds_back);
	CHECK_EQ(part.claimer, -1);
	CHECK(is_waiting(bus, "t"));
	check_stat_blames("t", "held back by client 1", getpid());
	check_stat("t", "  waiting\n");
	shmq_sub_close(sub);
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int fill_the_arena(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .arena_bytes = 2 << 20, .wait = SHMQ_WAIT_SLEEP);
	char *message = calloc(1, 1 << 20);

	(void)arg;
	for (int i = 0; i < 3; i++)
		CHECK_OK(shmq_publish(pub, message, 1 << 20));
	CHECK_EQ(pub_stats(pub).blocked, 1);
	CHECK(!is_waiting(bus, "t"));
	CHECK(!partition_info(bus, "t").holds_back);
	free(message);
	shmq_bus_close(bus);
	return 0;
}

TEST(who_keeps_a_publisher_from_its_arena_is_named)
{
	check_holder_is_named(fill_the_arena);
}

static int fill_with_a_batch(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	struct shmq_msg batch[8] = { { 0 } };

	(void)arg;
	for (int i = 0; i < DEPTH - 4; i++)
		CHECK_OK(shmq_publish(pub, "m", 1));
	CHECK_EQ(shmq_publish_batch(pub, batch, 8, SHMQ_ATOMIC), 8);
	CHECK_EQ(pub_stats(pub).blocked, 1);
	CHECK(!is_waiting(bus, "t"));
	shmq_bus_close(bus);
	return 0;
}

TEST(who_keeps_a_publisher_from_a_batch_is_named)
{
	check_holder_is_named(fill_with_a_batch);
}

TEST(who_stands_in_a_claim_is_named)
{
	struct shmq_partition_info part;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t stalled;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_publish(pub, "before", 6));
	stalled = start_stalled("t");
	CHECK_OK(shmq_publish(pub, "behind", 6));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(partition_info(bus, "t").claimer, -1); /* nobody stands there yet */
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	part = partition_info(bus, "t");
	CHECK_NE(part.claimer, -1);
	CHECK_NE(part.claimer, (int)shmq_bus_client_id(bus));
	CHECK_EQ(part.claim_seq, 1);
	check_stat_blames("t", "stands at the claim of client 2", stalled);
	check_stat("t", "  in claim\n");
	CHECK_EQ(test_join(start("stat", "stat")), 0);
	CHECK(strstr(read_back("stat", "out"), ", in its claim\n") != NULL);
	CHECK_OK(kill(stalled, SIGCONT));
	CHECK_EQ(test_join(stalled), 0);
	CHECK_EQ(partition_info(bus, "t").claimer, -1);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int come_round(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");
	int rc;

	(void)arg;
	while (!(rc = shmq_publish(pub, "m", 1)))
		;
	CHECK_ERROR(rc, SHMQ_ESTALLED);
	CHECK(!is_waiting(bus, "t"));
	shmq_bus_close(bus);
	return 0;
}

static int waits_now(void *bus)
{
	return is_waiting(bus, "t");
}

TEST(a_claim_that_publishers_come_round_to_is_named)
{
	pid_t stalled, child;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT,
	       .policy = SHMQ_LOSSY);
	stalled = start_stalled("t");
	child = test_spawn(come_round, NULL);
	CHECK(test_wait_until(waits_now, bus, 60000));
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(partition_info(bus, "t").claim_seq, 0);
	check_stat_blames("t", "stands at the claim of client 2", stalled);
	CHECK_OK(kill(stalled, SIGCONT));
	CHECK_EQ(test_join(stalled), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
