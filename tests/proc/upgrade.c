/* SPDX-License-Identifier: MIT
 *
 * Builds change while a bus lives.  One that serves its layout, which is its
 * own or the one before, takes over in place or by a new start; any other
 * refuses by name and leaves what runs alone; and so it is with clients.
 */
#include "link.h"
#include "traffic.h"

#include <fcntl.h>
#include <sys/stat.h>

/* ---- programs -------------------------------------------------------------- */

struct build {
	char shmqd[PATH_MAX], shmq[PATH_MAX];
};

/* This build with layout 1, one that serves 1 and 2, and one 2 and 3. */
static struct build ours, newer, newest;
static char program[PATH_MAX - 32];

/* Another file under the name, as an installation does it. */
static void install(const char *from)
{
	char fresh[PATH_MAX], buf[65536];
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	ssize_t n;

	snprintf(fresh, sizeof(fresh), "%s.new", program);
	out = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	CHECK_GE(in, 0);
	CHECK_GE(out, 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
	CHECK_OK(rename(fresh, program));
}

static void find(struct build *b, const char *dir, const char *skew)
{
	snprintf(b->shmqd, sizeof(b->shmqd), "%s%s/shmqd", dir, skew);
	snprintf(b->shmq, sizeof(b->shmq), "%s%s/shmq", dir, skew);
}

/* shmqd is run from a place of the test's own. */
static void prepare(const struct build *first)
{
	char dir[PATH_MAX - 32];

	snprintf(dir, sizeof(dir), "%s", test_bus_daemon());
	*strrchr(dir, '/') = 0;
	find(&ours, dir, "");
	find(&newer, dir, "/skew1");
	find(&newest, dir, "/skew2");
	snprintf(program, sizeof(program), "%s/shmqd", test_tmpdir());
	setenv("SHMQ_DAEMON", program, 1);
	install(first->shmqd);
}

static ino_t inode_of(const char *path)
{
	struct stat st;

	CHECK_OK(stat(path, &st));
	return st.st_ino;
}

static int runs_program(pid_t pid)
{
	char exe[40];

	snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
	return inode_of(exe) == inode_of(program);
}

static char said[4096];

/* run(program, argument ...): its exit code; what it says is in said. */
#define run(...) run_words((const char *const[]){ __VA_ARGS__, NULL })

static int run_words(const char *const *words)
{
	const char *argv[16] = { words[0], "--bus", test_bus_name() };
	size_t used = 0;
	int ends[2];
	ssize_t n;
	pid_t pid;

	for (size_t i = 1; words[i]; i++) {
		CHECK_GT(COUNT(argv), i + 3);
		argv[i + 2] = words[i];
	}
	CHECK_OK(pipe(ends));
	pid = fork();
	if (!pid) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		execv(words[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(ends[1]);
	while ((n = read(ends[0], said + used, sizeof(said) - 1 - used)) > 0)
		used += (size_t)n;
	said[used] = 0;
	close(ends[0]);
	return test_join(pid);
}

static void check_said(const char *text)
{
	if (!strstr(said, text))
		FAIL("\"%s\" does not say \"%s\"", said, text);
}

/* ---- what is waited for -------------------------------------------------------- */

static uint64_t epoch_of(shmq_bus *bus)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(bus, &info));
	return info.epoch;
}

static int has_logged(void *text)
{
	return test_bus_log_has(text);
}

static void await_log(const char *text)
{
	if (!test_wait_until(has_logged, (void *)(uintptr_t)text, 20000))
		FAIL("the log does not say \"%s\"", text);
}

/* Of a build of its own, in both directions and beside the traffic. */
static void check_client(const struct build *b, shmq_bus *bus)
{
	shmq_sub *sub;
	shmq_pub *pub;
	struct shmq_msg msg;
	char path[PATH_MAX];
	FILE *out;

	snprintf(path, sizeof(path), "%s/message", test_tmpdir());
	out = fopen(path, "we");
	CHECK(out && fputs("from it", out) >= 0 && !fclose(out));
	CHECK_EQ(run(b->shmq, "create", "probe", "--shared"), 0);
	pub = open_pub(bus, "probe");
	sub = open_sub(bus, "probe");
	CHECK_EQ(run(b->shmq, "pub", "probe", "--file", path), 0);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "from it", 7);
	CHECK_OK(shmq_publish(pub, "to it", 5));
	CHECK_EQ(run(b->shmq, "sub", "probe", "--from", "1", "--count", "1"), 0);
	check_said("to it");
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	CHECK_EQ(run(b->shmq, "rm", "probe"), 0);
}

static void check_layout(shmq_bus *bus, uint32_t version)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.layout_version, version);
}

/* ---- in place ------------------------------------------------------------------ */

static void upgrade_to(const struct build *b, pid_t parent)
{
	install(b->shmqd);
	CHECK(!runs_program(parent));
	CHECK_OK(kill(parent, SIGUSR2));
}

TEST_WITHIN(a_parent_goes_on_as_what_is_on_disk_and_nothing_is_lost, 120)
{
	/* The same, one whose layout is newer by one, and back. */
	const struct build *next[] = { &ours, &newer, &newer, &ours, &newer };
	struct traffic *t;
	struct kept *kept;
	shmq_bus *bus;
	pid_t parent;

	prepare(&ours);
	parent = test_bus_start();
	bus = test_bus_open();
	kept = kept_start(bus);
	t = traffic_start(bus, .at_full_speed = 1);
	traffic_await_flow(t);
	for (int n = 1; n <= (int)COUNT(next); n++) {
		upgrade_to(next[n - 1], parent);
		traffic_await_reattached(t, n);
		CHECK_EQ(epoch_of(bus), n + 1);
		CHECK_EQ(test_bus_parent_pid(bus), parent);
		CHECK(runs_program(parent));
		CHECK(runs_program(test_bus_worker_pid(bus)));
		check_layout(bus, 1);
		CHECK_EQ(run(program, "--foreground"), 3); /* its lock never was free */
		traffic_await_flow(t);
		kept_await_flow(kept);
		CHECK(runs_program(test_bus_pid("tailer")));
		traffic_check_opens(bus);
		check_client(&newer, bus);
	}
	/* A worker that dies is replaced, and so is the parent, by the same. */
	CHECK_GE(test_bus_kill("control"), 1);
	traffic_await_reattached(t, COUNT(next) + 1);
	CHECK_EQ(test_bus_parent_pid(bus), parent);
	CHECK_GE(test_bus_kill("parent"), 1);
	await_log("took over bus");
	traffic_await_flow(t);
	while ((parent = test_bus_parent_pid(bus)) == 0)
		test_sleep_ms(1);
	upgrade_to(&ours, parent); /* its worker is its own parent */
	traffic_await_reattached(t, COUNT(next) + 2);
	CHECK(runs_program(parent));
	CHECK(runs_program(test_bus_worker_pid(bus)));
	traffic_check_opens(bus);
	traffic_stop(t);
	kept_stop(kept, bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

static void refuse(pid_t parent, shmq_bus *bus, struct traffic *t, const char *text)
{
	pid_t worker = test_bus_worker_pid(bus);

	CHECK_OK(kill(parent, SIGUSR2));
	await_log(text);
	traffic_await_flow(t);
	traffic_check_opens(bus);
	CHECK_EQ(test_bus_parent_pid(bus), parent);
	CHECK_EQ(test_bus_worker_pid(bus), worker);
	CHECK_EQ(epoch_of(bus), 1);
	CHECK_EQ(atomic_load(&t->reattached[0]), 0);
	CHECK_EQ(atomic_load(&t->reattached[1]), 0);
}

TEST_WITHIN(a_build_that_cannot_take_over_refuses_by_name_and_what_runs_goes_on, 60)
{
	struct traffic *t;
	shmq_bus *bus;
	pid_t parent;

	prepare(&ours);
	parent = test_bus_start();
	bus = test_bus_open();
	t = traffic_start(bus, .at_full_speed = 1);
	traffic_await_flow(t);
	install(newest.shmqd);
	refuse(parent, bus, t, "its layout is 1, and shmqd ");
	CHECK(test_bus_log_has("goes on"));
	install("/bin/true");
	refuse(parent, bus, t, "does not say whether it can take over");
	CHECK_OK(unlink(program));
	refuse(parent, bus, t, "opening");
	install("/etc/passwd"); /* no program */
	refuse(parent, bus, t, "does not say whether it can take over: it ended");
	upgrade_to(&ours, parent);
	traffic_await_reattached(t, 1);
	CHECK(runs_program(parent));
	traffic_stop(t);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Our own, but for what it begins its messages with. */
static void install_of_another_link(void)
{
	const uint32_t ours_says = 0x4b4e4c50u + LINK_VERSION, says = ours_says + 1;
	struct stat st;
	unsigned found = 0;
	char *bytes;
	int fd;

	install(ours.shmqd);
	fd = open(program, O_RDWR | O_CLOEXEC);
	CHECK_OK(fstat(fd, &st));
	bytes = malloc((size_t)st.st_size);
	CHECK(bytes && read(fd, bytes, (size_t)st.st_size) == st.st_size);
	for (off_t at = 0; at + (off_t)sizeof(says) <= st.st_size; at++)
		if (!memcmp(bytes + at, &ours_says, sizeof(says))) {
			memcpy(bytes + at, &says, sizeof(says));
			found++;
		}
	CHECK_GT(found, 1); /* where it is sent, and where it is checked */
	CHECK_EQ(pwrite(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	free(bytes);
	close(fd);
}

TEST(a_build_that_speaks_otherwise_with_its_processes_refuses_by_name_and_takes_over_by_a_new_start)
{
	struct traffic *t;
	shmq_bus *bus;
	pid_t parent;

	prepare(&ours);
	parent = test_bus_start();
	bus = test_bus_open();
	t = traffic_start(bus, .at_full_speed = 1);
	traffic_await_flow(t);
	install_of_another_link();
	refuse(parent, bus, t,
	       "speaks version 2 of what processes of shmqd say to each other, and");
	CHECK(test_bus_log_has("what runs speaks 1: kill all processes"));
	test_bus_kill(NULL);
	test_bus_restart();
	traffic_await_reattached(t, 1);
	traffic_stop(t);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_older_build_refuses_a_bus_of_a_newer_layout)
{
	pid_t parent;

	prepare(&newer);
	parent = test_bus_start();
	CHECK_EQ(run(newer.shmq, "create", "t"), 0);
	upgrade_to(&ours, parent);
	await_log("its layout is 2, and shmqd ");
	CHECK(!runs_program(parent));
	CHECK_EQ(run(newest.shmq, "ls"), 0);
	check_said("t");
	upgrade_to(&newest, parent);
	await_log("goes on under");
	CHECK(runs_program(parent));
	CHECK_EQ(run(newer.shmq, "ls"), 0);
	check_said("t");
	test_bus_stop();
}

/* ---- by a new start -------------------------------------------------------------- */

/* As `systemctl restart` with RestartKillSignal=SIGKILL. */
TEST_WITHIN(a_start_takes_over_from_clients_if_it_serves_their_layout_and_else_lets_them_be, 120)
{
	const struct build *next[] = { &newer, &ours, &newer };
	struct traffic *t;
	shmq_bus *bus;

	prepare(&ours);
	test_bus_start();
	bus = test_bus_open();
	t = traffic_start(bus, .at_full_speed = 1);
	traffic_await_flow(t);
	for (int n = 1; n <= (int)COUNT(next); n++) {
		test_bus_kill(NULL);
		CHECK_EQ(run(newest.shmqd, "--foreground"), 1);
		check_said("is held by its clients, but its layout is 1");
		CHECK_EQ(run(newest.shmqd, "--on-demand"), 1);
		check_said("is held by its clients, but its layout is 1");
		CHECK(!test_bus_accepts());
		traffic_await_flow(t);
		install(next[n - 1]->shmqd);
		test_bus_restart();
		traffic_await_reattached(t, n);
		traffic_await_flow(t);
		CHECK_EQ(epoch_of(bus), n + 1);
		check_layout(bus, 1);
		traffic_check_opens(bus);
		check_client(&newer, bus);
	}
	traffic_stop(t);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(where_no_client_is_left_a_start_of_another_layout_begins_anew)
{
	shmq_bus *bus;

	prepare(&ours);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	test_bus_kill(NULL);
	shmq_bus_close(bus);
	install(newest.shmqd);
	test_bus_restart();
	CHECK(test_bus_log_has("lost: slab 0 registry"));
	CHECK_EQ(run(newest.shmq, "ls"), 0);
	CHECK_EQ(run(newest.shmq, "create", "t"), 0);
	test_bus_stop();
}

/* ---- clients ------------------------------------------------------------------------ */

TEST(a_client_that_does_not_know_so_old_a_layout_is_refused_by_name)
{
	static const char *const command[][2] = {
		{ "stat", NULL }, { "ls", NULL }, { "create", "u" }, { "pub", "t" }, { "sub", "t" },
	};
	shmq_bus *bus;
	pid_t parent;

	prepare(&ours);
	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	for (size_t i = 0; i < COUNT(command); i++) {
		CHECK_NE(run(newest.shmq, command[i][0], command[i][1]), 0);
		check_said("client knows layouts 2 to 3, this bus has layout 1");
	}
	CHECK_EQ(test_bus_parent_pid(bus), parent);
	CHECK_EQ(topic_info(bus, "t").publishers + topic_info(bus, "t").subscribers, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_client_of_an_older_layout_is_refused_by_name)
{
	static const enum shmq_start_mode mode[] = { SHMQ_START_NEVER, SHMQ_START_ON_DEMAND };
	shmq_bus *bus;

	prepare(&newer);
	test_bus_start();
	for (size_t i = 0; i < COUNT(mode); i++) {
		CHECK_ERROR(shmq_bus_open(test_bus_name(),
					  BUS_OPTIONS(.runtime_dir = test_bus_dir(),
						      .start = mode[i]),
					  &bus),
			    SHMQ_EVERSION);
		check_says("client knows layouts 1 to 1, this bus has layout 2");
	}
	test_bus_stop();
}

TEST(a_client_that_stays_while_its_bus_ends_and_another_layout_begins_is_told)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t parent;

	prepare(&ours);
	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_publish(pub, "last", 4));
	CHECK_OK(kill(parent, SIGTERM));
	CHECK_EQ(test_join(parent), 0);
	install(newer.shmqd);
	test_bus_restart();
	CHECK_ERROR(shmq_topic_create(bus, "u", NULL, NULL), SHMQ_EVERSION);
	check_says("client knows layouts 1 to 1, this bus has layout 2");
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "last", 4);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish(pub, "more", 4), SHMQ_EENDED);
	shmq_bus_close(bus);
	test_bus_stop();
}
