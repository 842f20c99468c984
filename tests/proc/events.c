/* SPDX-License-Identifier: MIT
 *
 * What happens on a bus is told by its topic $sys.events: each kind, who may
 * read it, and that nobody waits for who does.
 */
#include <fcntl.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "logged.h"
#include "raw.h"

/* ---- reading ----------------------------------------------------------- */

static shmq_sub *open_events(shmq_bus *bus)
{
	return open_sub(bus, SHMQ_EVENTS_TOPIC, .from = SHMQ_FROM_OLDEST);
}

/* The next event of that type with the text in it; what it says. */
static const char *await_sys(shmq_sub *sub, enum shmq_sys_event type, const char *text)
{
	static char said[2048];
	struct shmq_msg msg;

	for (;;) {
		CHECK_OK(shmq_receive_copy(sub, said, sizeof(said) - 1, &msg, PATIENCE));
		said[msg.len] = 0;
		CHECK_GT(msg.ts_ns, 0);
		if (msg.type == type && strstr(said, text))
			return said;
	}
}

static void check_says_of(const char *said, const char *event, unsigned client, pid_t pid)
{
	char text[128];

	snprintf(text, sizeof(text), "{\"event\":\"%s\",", event);
	CHECK(!strncmp(said, text, strlen(text)));
	snprintf(text, sizeof(text), "\"client\":%u,\"pid\":%d,", client, (int)pid);
	CHECK(strstr(said, text) != NULL);
	CHECK(said[strlen(said) - 1] == '}');
}

/* ---- clients ----------------------------------------------------------- */

struct child {
	_Atomic int at;
	_Atomic unsigned client;
};

static int hold_a_claim(void *arg)
{
	struct child *child = arg;
	shmq_bus *bus = test_bus_open();
	struct raw raw;

	atomic_store(&child->client, shmq_bus_client_id(bus));
	raw_open(&raw, bus, "t");
	raw_claim(&raw);
	reach(&child->at, 1);
	while (atomic_load(&child->at) == 1)
		pause();
	return 0;
}

TEST(coming_going_death_and_repair_are_told)
{
	struct child *child = shared_memory(sizeof(*child));
	shmq_bus *bus, *other;
	shmq_sub *sub;
	const char *said;
	unsigned id;
	pid_t pid;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_events(bus);
	/* What was before the topic is in it. */
	check_says_of(await_sys(sub, SHMQ_SYS_ATTACH, "joined"), "attach", shmq_bus_client_id(bus),
		      getpid());
	CHECK_OK(shmq_bus_open(test_bus_name(), BUS_OPTIONS(.client_name = "a\"b\\c\n\xff"),
			       &other));
	id = shmq_bus_client_id(other);
	said = await_sys(sub, SHMQ_SYS_ATTACH, "joined");
	check_says_of(said, "attach", id, getpid());
	CHECK(strstr(said, "\"name\":\"a?b\\\\c??\"") != NULL);
	shmq_bus_close(other);
	check_says_of(await_sys(sub, SHMQ_SYS_DETACH, "left"), "detach", id, getpid());
	pid = test_spawn(hold_a_claim, child);
	await(&child->at, 1);
	id = atomic_load(&child->client);
	CHECK_EQ(test_kill_wait(pid, SIGKILL), 128 + SIGKILL);
	check_says_of(await_sys(sub, SHMQ_SYS_DEATH, ""), "death", id, pid);
	check_says_of(await_sys(sub, SHMQ_SYS_RECOVERY, "1 claims voided, 1 handles closed"),
		      "recovery", id, pid);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_stalled_publisher_is_told)
{
	struct child *child = shared_memory(sizeof(*child));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub, *stuck;
	const char *said;
	pid_t pid;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	sub = open_events(bus);
	stuck = open_sub(bus, "t");
	pid = test_spawn(hold_a_claim, child);
	await(&child->at, 1);
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_ERROR(shmq_receive(stuck, &msg, PATIENCE), SHMQ_ESTALLED);
	said = await_sys(sub, SHMQ_SYS_STALL, "others wait for it");
	check_says_of(said, "stall", atomic_load(&child->client), pid);
	CHECK(strstr(said, "\"topic\":\"t\"") != NULL);
	test_kill_wait(pid, SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_eviction_is_told)
{
	shmq_bus *bus;
	shmq_sub *sub, *slow;
	shmq_pub *pub;
	const char *said;
	uint64_t n;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_EVICT, .evict_ns = MILLISECOND);
	sub = open_events(bus);
	slow = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (n = 0; n < 2 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	said = await_sys(sub, SHMQ_SYS_EVICTION, "held publishers back");
	check_says_of(said, "eviction", shmq_bus_client_id(bus), getpid());
	CHECK(strstr(said, "\"topic\":\"t\"") != NULL);
	shmq_sub_close(slow);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- resources --------------------------------------------------------- */

TEST(refusals_and_fall_backs_are_told)
{
	struct shmq_topic_info info;
	shmq_bus *bus;
	shmq_sub *sub;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	sub = open_events(bus);
	rc = shmq_topic_create(bus, "vast",
			       TOPIC_OPTIONS(.depth = UINT64_C(1) << 26, .slot_bytes = 4096), NULL);
	CHECK_LT(rc, 0);
	CHECK(strstr(await_sys(sub, SHMQ_SYS_REFUSAL, "\"topic\":\"vast\""), "\"text\":\"") !=
	      NULL);
	/* On a machine with hugepages for it there is no fall-back. */
	create(bus, "large", .depth = 32768, .slot_bytes = 256);
	info = topic_info(bus, "large");
	if (!*info.note)
		SKIP("what was asked for is there");
	CHECK(strstr(await_sys(sub, SHMQ_SYS_FALLBACK, "\"topic\":\"large\""), info.note) != NULL);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(a_log_that_stands_is_told_and_that_it_goes_on, 60)
{
	struct flow flow = { .topic = "t", .to = 60000 };
	static char zeros[65536];
	char path[PATH_MAX];
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;
	int fd;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		SKIP("no mounts of its own: %s", strerror(errno));
	test_bus_prepare();
	CHECK(!mkdir(getenv("SHMQ_DATA_DIR"), 0700));
	if (mount("none", getenv("SHMQ_DATA_DIR"), "tmpfs", 0, "size=16m"))
		SKIP("no file system of its own: %s", strerror(errno));
	test_bus_restart();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 1 << 20);
	sub = open_events(bus);
	snprintf(path, sizeof(path), "%s/other", getenv("SHMQ_DATA_DIR"));
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (off_t at = 0; pwrite(fd, zeros, sizeof(zeros), at) > 0; at += (off_t)sizeof(zeros))
		;
	close(fd);
	child = test_spawn(publish_flow, &flow);
	await_sys(sub, SHMQ_SYS_DISK, "\"topic\":\"t\",\"text\":\"its log stands: ");
	CHECK(!unlink(path));
	await_sys(sub, SHMQ_SYS_DISK, "its log goes on");
	await_sys(sub, SHMQ_SYS_DISK, "its disk has room again");
	CHECK_EQ(test_join(child), 0);
	CHECK_OK(shmq_bus_stop(bus, SHMQ_FORCE));
	shmq_bus_close(bus);
	test_bus_await_end();
	CHECK(!umount2(getenv("SHMQ_DATA_DIR"), MNT_DETACH));
	test_bus_stop();
}

/* ---- the supervisor ---------------------------------------------------- */

TEST(events_go_on_where_they_were_when_the_supervisor_dies)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	uint64_t seq;

	test_bus_start();
	bus = test_bus_open();
	sub = open_events(bus);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	seq = msg.seq;
	CHECK_OK(shmq_release(sub));
	for (int k = 0; k < 3; k++) {
		CHECK_GE(test_bus_kill("control"), 1);
		await_sys(sub, SHMQ_SYS_RECOVERY, "a new control worker");
		await_sys(sub, SHMQ_SYS_ATTACH, "is back");
	}
	CHECK_GE(test_bus_kill("parent"), 1);
	await_sys(sub, SHMQ_SYS_DEATH, "the parent of the bus died");
	await_sys(sub, SHMQ_SYS_RECOVERY, "has taken over");
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_GE(sub_stats(sub).received, 9);
	CHECK_EQ(seq, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(who_reads_too_slowly_holds_up_nobody_and_is_told_what_it_lost)
{
	struct shmq_msg msg;
	shmq_bus *bus, *other;
	shmq_sub *sub;
	uint64_t got = 0;
	int rc, n;

	test_bus_start();
	bus = test_bus_open();
	sub = open_events(bus);
	for (n = 0; n < 700; n++) {
		other = test_bus_open();
		shmq_bus_close(other);
	}
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) == 0)
		got++;
	CHECK_ERROR(rc, SHMQ_EOVERRUN);
	got += msg.lost;
	while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) == 0)
		got++;
	CHECK_ERROR(rc, SHMQ_EEMPTY);
	CHECK_EQ(got, 1 + 2 * 700);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int seen;

static int see(void *arg, const struct shmq_topic_info *topic)
{
	(void)arg;
	seen += !strcmp(topic->name, SHMQ_EVENTS_TOPIC);
	return 0;
}

TEST(nobody_publishes_events_and_patterns_do_not_mean_them)
{
	struct shmq_msg msg;
	shmq_bus *bus, *other;
	shmq_sub *all, *sys;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	/* Asked for by a pattern, it is made. */
	CHECK_OK(shmq_topic_each(bus, see, NULL));
	CHECK_EQ(seen, 0);
	all = open_sub(bus, "#");
	sys = open_sub(bus, "$sys.#");
	CHECK_ERROR(shmq_pub_open(bus, SHMQ_EVENTS_TOPIC, NULL, &pub), SHMQ_EACCESS);
	other = test_bus_open();
	shmq_bus_close(other);
	CHECK_OK(shmq_receive(sys, &msg, PATIENCE));
	CHECK_ERROR(shmq_receive(all, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_OK(shmq_topic_each(bus, see, NULL));
	CHECK_EQ(seen, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- access ------------------------------------------------------------ */

enum { GUEST = 4711, STRANGER = 4712 };

static int ask_as(void *arg)
{
	uid_t uid = *(uid_t *)arg;
	shmq_bus *bus;
	shmq_sub *sub;

	CHECK_OK(setgroups(0, NULL));
	CHECK_OK(setgid(uid));
	CHECK_OK(setuid(uid));
	bus = test_bus_open();
	if (uid == STRANGER) {
		CHECK_ERROR(shmq_sub_open(bus, SHMQ_EVENTS_TOPIC, NULL, &sub), SHMQ_EACCESS);
	} else {
		sub = open_events(bus);
		await_sys(sub, SHMQ_SYS_ATTACH, "\"uid\":4711");
	}
	shmq_bus_close(bus);
	return 0;
}

TEST(rules_say_who_may_read_events)
{
	static uid_t who[] = { STRANGER, GUEST };

	if (geteuid() != 0)
		SKIP("only root can be two users");
	test_bus_start("--allow", "$sys.events subscribe uid:4711", "--allow", "# all uid:4712");
	CHECK_OK(chmod(test_tmpdir(), 0755));
	CHECK_OK(chmod(test_bus_dir(), 0755));
	for (int i = 0; i < 2; i++)
		CHECK_EQ(test_join(test_spawn(ask_as, &who[i])), 0);
	test_bus_stop();
}
