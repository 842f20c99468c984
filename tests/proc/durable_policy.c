/* SPDX-License-Identifier: MIT
 *
 * Topics with a log whose tailer does not keep up, or has no room: who waits,
 * who goes on, and what is told.
 */
#include "logged.h"
#include "raw.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/stat.h>

enum { MIB = 1 << 20 };

/* ---- a tailer that stands still ------------------------------------------- */

TEST(publishers_wait_for_a_stopped_tailer_and_go_on_with_it)
{
	struct flow flow = { .topic = "t", .to = 100000 };
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;
	uint64_t at;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	child = test_spawn(publish_flow, &flow);
	await_written(bus, "t", 5000);
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	/* It was asleep before, too, until what was being written was. */
	while ((at = head(bus, "t")) != written(bus, "t") + DEPTH)
		test_sleep_ms(1);
	CHECK_LT(at, flow.to);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	CHECK_EQ(test_join(child), 0);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, flow.to);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(publishers_pass_a_stopped_tailer_where_the_log_may_have_gaps_and_each_is_told_once)
{
	uint64_t next = 0, lost = 0, stop, from = 0;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int rc, gaps = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_GAP);
	pub = open_pub(bus, "t");
	for (int round = 0; round < 3; round++) {
		publish(pub, from, from + DEPTH / 2);
		await_written(bus, "t", from + DEPTH / 2);
		CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
		publish(pub, from + DEPTH / 2, from + 10 * DEPTH);
		CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
		from += 10 * DEPTH;
		await_written(bus, "t", from);
	}
	stop = from;
	for (int round = 0; round < 2; round++) {
		sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
		for (next = 0, lost = 0, gaps = 0; next < stop;) {
			rc = shmq_receive(sub, &msg, PATIENCE);
			if (rc == SHMQ_EOVERRUN) {
				CHECK_GT(msg.lost, 0);
				CHECK_EQ(msg.lost_is_bound, 0);
				next += msg.lost;
				lost += msg.lost;
				gaps++;
				continue;
			}
			CHECK_OK(rc);
			CHECK_EQ(msg.seq, next);
			CHECK(is_filled(msg.data, BYTES, next));
			next++;
		}
		CHECK_EQ(gaps, 3);
		/* What the ring had when the tailer went on it could still get. */
		CHECK_LE(lost, 3 * (9 * DEPTH + DEPTH / 2));
		CHECK_GE(lost, 3 * (8 * DEPTH));
		CHECK_EQ(sub_stats(sub).lost, lost);
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		shmq_sub_close(sub);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Holes and messages in turn, more of each than the ring remembers of holes. */
static uint64_t make_holes(shmq_bus *bus)
{
	struct raw raw;
	uint64_t sent = 0, seq;
	char buf[BYTES];

	raw_open(&raw, bus, "t");
	raw.w.limit = raw.w.next + 4 * DEPTH;
	for (seq = 0; seq < 2 * DEPTH; seq++) {
		uint64_t at = raw_claim(&raw);

		fill(buf, BYTES, at);
		raw_write(&raw, at, buf, BYTES, NULL);
		if (seq % 2)
			raw_commit(&raw, at);
		else
			CHECK_EQ(shmq__ring_void(raw.w.mem, &raw.w.geo, at,
						 LAY_CTRL(lay_lap(&raw.w.geo, at), raw.w.owner,
							  LAY_CLAIMED)),
				 1);
		sent += seq % 2;
	}
	raw_ring(&raw);
	raw_close(&raw);
	return sent;
}

TEST(a_gap_with_more_holes_than_the_ring_remembers_is_told_as_a_bound)
{
	uint64_t sent, got = 0, next = 10, lost;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .log = SHMQ_LOG_GAP);
	pub = open_pub(bus, "t");
	publish(pub, 0, 10);
	await_written(bus, "t", 10);
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	sent = make_holes(bus);
	publish(pub, 10 + 2 * DEPTH, 10 + 2 * DEPTH + 100);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	await_written(bus, "t", 10 + 2 * DEPTH + 100);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 10);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EOVERRUN);
	CHECK_EQ(msg.lost_is_bound, 1);
	lost = msg.lost;
	while (next < 10 + 2 * DEPTH + 99) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK(is_filled(msg.data, BYTES, msg.seq));
		next = msg.seq;
		got++;
	}
	CHECK_GE(got + lost, sent + 100);
	CHECK_EQ(sub_stats(sub).lost_is_bound, 1);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

struct large {
	_Atomic int stop;
	_Atomic uint64_t sent;
};

enum { LARGE = 1500000 };

static int publish_large(void *arg)
{
	struct large *l = arg;
	char *buf = malloc(LARGE);
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	for (uint64_t n = 0; !atomic_load(&l->stop); n++) {
		size_t len = n % 3 ? LARGE : 700000;

		memset(buf, (int)(n % 251), len);
		memcpy(buf, &n, sizeof(n));
		CHECK_OK(shmq_publish(pub, buf, len));
		atomic_store(&l->sent, n + 1);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	free(buf);
	return 0;
}

static void check_large(const struct shmq_msg *msg)
{
	const char *at = msg->data;
	uint64_t n;

	memcpy(&n, at, sizeof(n));
	CHECK_EQ(n, msg->seq);
	for (size_t i = sizeof(n); i < msg->len; i++)
		if (at[i] != (char)(n % 251))
			FAIL("message %llu is joined of two, at byte %zu", (unsigned long long)n,
			     i);
}

TEST_WITHIN(a_large_message_that_was_written_over_meanwhile_is_a_gap_and_never_half_of_two, 60)
{
	struct large *l = shared_memory(sizeof(*l));
	struct shmq_msg msg;
	uint64_t next = 0;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;
	int rc, messages = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 4, .max_message_bytes = LARGE, .log = SHMQ_LOG_GAP);
	child = test_spawn(publish_large, l);
	while (atomic_load(&l->sent) < 300)
		test_sleep_ms(1);
	atomic_store(&l->stop, 1);
	CHECK_EQ(test_join(child), 0);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	while (next < atomic_load(&l->sent)) {
		rc = shmq_receive(sub, &msg, PATIENCE);
		if (rc == SHMQ_EOVERRUN) {
			next += msg.lost;
			continue;
		}
		CHECK_OK(rc);
		CHECK_EQ(msg.seq, next);
		check_large(&msg);
		next++;
		messages++;
	}
	CHECK_GT(messages, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- policies --------------------------------------------------------------- */

TEST(whoever_a_policy_would_let_lose_messages_loses_none_with_a_log)
{
	static const enum shmq_policy policies[] = { SHMQ_EVICT, SHMQ_LOSSY };
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (unsigned k = 0; k < COUNT(policies); k++) {
		char topic[2] = { (char)('a' + k), 0 };
		shmq_pub *pub;
		shmq_sub *sub;
		uint64_t n;

		create(bus, topic, .depth = DEPTH, .policy = policies[k], .evict_ns = MILLISECOND,
		       .log = policies[k] == SHMQ_LOSSY ? SHMQ_LOG_GAP : SHMQ_LOG_BLOCK);
		pub = open_pub(bus, topic);
		sub = open_sub(bus, topic);
		for (n = 0; n < 20 * DEPTH; n += DEPTH / 4) {
			publish(pub, n, n + DEPTH / 4);
			CHECK_OK(shmq_pub_wait_confirm(pub, 0, n + DEPTH / 4 - 1, SHMQ_WRITTEN,
						       PATIENCE));
		}
		expect(sub, 0, 0, n);
		publish(pub, n, n + 10);
		expect(sub, 0, n, n + 10);
		CHECK_EQ(sub_stats(sub).lost, 0);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(what_is_dropped_because_the_ring_is_full_is_in_no_log)
{
	char buf[BYTES];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t n = 0;
	int rc, refused = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .policy = SHMQ_DROP_NEW, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, n, 1);
	await_written(bus, "t", 1);
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	for (n = 1; refused < 10;) {
		fill(buf, BYTES, n);
		rc = shmq_publish(pub, buf, BYTES);
		n += !rc;
		refused += rc == SHMQ_EFULL;
		CHECK(!rc || rc == SHMQ_EFULL);
	}
	CHECK_EQ(n, 1 + DEPTH);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	await_written(bus, "t", n);
	publish(pub, n, n + 10);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, n + 10);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- a topic that is moved ---------------------------------------------------- */

TEST(a_topic_that_is_moved_has_one_log)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	char buf[BYTES];
	uint64_t n = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	for (int round = 0; round < 4; round++) {
		pub = open_pub(bus, "t");
		publish(pub, n, n + 3 * DEPTH);
		n += 3 * DEPTH;
		/* A tailer that comes late finds behind the end what was refused. */
		if (round % 2)
			test_bus_signal("tailer", SIGSTOP);
		CHECK_OK(shmq_topic_move(bus, "t"));
		fill(buf, BYTES, 12345678);
		CHECK_ERROR(shmq_publish(pub, buf, BYTES), SHMQ_EMOVED);
		if (round % 2)
			test_bus_signal("tailer", SIGCONT);
		/* By the handle on the old ring, too. */
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, n - 1, SHMQ_WRITTEN, PATIENCE));
		shmq_pub_close(pub);
	}
	/* Nor are fresh rings taken up before the old ones are read. */
	CHECK(!test_bus_log_has("is not kept"));
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, n);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* It has fallen behind by more than what they hold: that is no madness of theirs. */
TEST(a_tailer_that_lags_when_a_topic_is_moved_takes_what_the_old_rings_have)
{
	uint64_t lost = 0, next = 0;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_GAP);
	pub = open_pub(bus, "t");
	publish(pub, 0, 1);
	await_written(bus, "t", 1);
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	publish(pub, 1, 3 * DEPTH);
	CHECK_OK(shmq_topic_move(bus, "t"));
	shmq_pub_close(pub);
	pub = open_pub(bus, "t");
	publish(pub, 3 * DEPTH, 3 * DEPTH + 1);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	await_written(bus, "t", 3 * DEPTH + 1);
	CHECK(!test_bus_log_has("do not end"));
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (; next <= 3 * DEPTH; next = msg.seq + 1) {
		int rc = shmq_receive(sub, &msg, PATIENCE);

		if (rc == SHMQ_EOVERRUN) {
			lost += msg.lost;
			continue;
		}
		CHECK_OK(rc);
	}
	CHECK_LT(lost, 3 * DEPTH - DEPTH / 2); /* of the oldest some are left alone */
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(no_seq_is_given_twice_after_a_topic_was_moved_or_its_parent_died_and_then_everything)
{
	static const char *const role[] = { NULL, "parent" };

	for (unsigned k = 0; k < COUNT(role); k++) {
		shmq_bus *bus;
		shmq_pub *pub;

		test_bus_start();
		bus = test_bus_open();
		create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_GAP);
		pub = open_pub(bus, "t");
		publish(pub, 0, 100);
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, 99, SHMQ_WRITTEN, PATIENCE));
		if (role[k]) {
			CHECK_EQ(test_bus_kill(role[k]), 1);
			/* The tailer leaves with its parent; another comes. */
			await_said("has taken over");
		} else {
			CHECK_OK(shmq_topic_move(bus, "t"));
			CHECK_OK(shmq_pub_wait_confirm(pub, 0, 99, SHMQ_SYNCED, PATIENCE));
			shmq_pub_close(pub);
			pub = open_pub(bus, "t");
		}
		test_bus_signal("tailer", SIGSTOP);
		publish(pub, 100, 300);
		test_bus_kill(NULL);
		shmq_bus_close(bus);
		test_bus_restart();
		bus = test_bus_open();
		CHECK_GE(head(bus, "t"), 300);
		shmq_bus_close(bus);
		test_bus_stop();
	}
}

/* ---- retention ------------------------------------------------------------------ */

static unsigned segments(const char *topic)
{
	char command[PATH_MAX + 64];
	unsigned n = 0;
	FILE *out;

	snprintf(command, sizeof(command), "ls %s/%s/0/*.log | wc -l", test_bus_data(), topic);
	out = popen(command, "r");
	CHECK(out != NULL);
	CHECK_EQ(fscanf(out, "%u", &n), 1);
	pclose(out);
	return n;
}

TEST_WITHIN(segments_go_when_there_are_too_many_bytes_and_readers_are_told, 60)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *slow, *sub;
	struct shmq_msg msg;
	uint64_t n = 0, first;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .retain_bytes = 3 * MIB);
	pub = open_pub(bus, "t");
	publish(pub, 0, 1000);
	await_written(bus, "t", 1000);
	slow = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(slow, 0, 0, 10);
	for (n = 1000; n < 100000; n += DEPTH)
		publish(pub, n, n + DEPTH);
	/* Some of it may still be written when the keeper looks for the first time. */
	while (!(first = partition_info(bus, "t", 0).log_first) || segments("t") > 5)
		test_sleep_ms(10);
	/* It stands in a segment that is no more, and reads that to its end. */
	for (uint64_t i = 10;; i++) {
		int rc = shmq_receive(slow, &msg, PATIENCE);

		if (rc) {
			CHECK_ERROR(rc, SHMQ_EOVERRUN);
			CHECK_GT(i, 5000);
			first = i + msg.lost;
			break;
		}
		CHECK_EQ(msg.seq, i);
	}
	expect(slow, 0, first, n);
	CHECK_EQ(sub_stats(slow).lost, msg.lost);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_GE(msg.seq, first);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_sub_close(slow);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(segments_go_when_they_are_too_old, 60)
{
	shmq_bus *bus;
	shmq_pub *pub;
	uint64_t n;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .retain_ns = 1);
	create(bus, "kept", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .retain_ns = 3600 * SECOND);
	for (int k = 0; k < 2; k++) {
		pub = open_pub(bus, k ? "kept" : "t");
		for (n = 0; n < 50 * DEPTH; n += DEPTH)
			publish(pub, n, n + DEPTH);
		shmq_pub_close(pub);
	}
	while (segments("t") > 1)
		test_sleep_ms(10);
	CHECK_GE(segments("kept"), 5);
	CHECK_EQ(partition_info(bus, "kept", 0).log_first, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- a disk that is full --------------------------------------------------------- */

/* A data directory of so many bytes. */
static void need_small_disk(int mib)
{
	char how[32];

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		SKIP("no mounts of its own: %s", strerror(errno));
	test_bus_prepare();
	snprintf(how, sizeof(how), "size=%dm", mib);
	CHECK(!mkdir(getenv("SHMQ_DATA_DIR"), 0700));
	if (mount("none", getenv("SHMQ_DATA_DIR"), "tmpfs", 0, how))
		SKIP("no file system of its own: %s", strerror(errno));
}

/* What else is on it. */
static void take_room(int on)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/other", getenv("SHMQ_DATA_DIR"));
	if (!on) {
		CHECK(!unlink(path));
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0);
	for (off_t at = 0;; at += 65536) {
		static char zeros[65536];

		if (pwrite(fd, zeros, sizeof(zeros), at) <= 0)
			break;
	}
	close(fd);
}

static void end_small_disk(void)
{
	test_bus_await_end();
	CHECK(!umount2(getenv("SHMQ_DATA_DIR"), MNT_DETACH));
}

TEST_WITHIN(on_a_full_disk_publishers_wait_and_go_on_by_themselves_when_there_is_room, 60)
{
	struct flow flow = { .topic = "t", .to = 100000 };
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	need_small_disk(32);
	test_bus_restart();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB);
	take_room(1);
	child = test_spawn(publish_flow, &flow);
	while (!partition_info(bus, "t", 0).log_error)
		test_sleep_ms(1);
	CHECK_EQ(partition_info(bus, "t", 0).log_error, -ENOSPC);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	await_said("are left on their disk");
	take_room(0);
	CHECK_EQ(test_join(child), 0);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, flow.to);
	CHECK_EQ(partition_info(bus, "t", 0).log_error, 0);
	shmq_sub_close(sub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	end_small_disk();
	test_bus_stop();
}

/* There are as many logs whose writes fail as the tailer has buffers. */
TEST_WITHIN(a_topic_whose_log_is_refused_stops_no_other, 60)
{
	struct flow stopped = { .topic = "stopped", .to = 20000 },
		    flow = { .topic = "t", .to = 100 };
	shmq_bus *bus;
	pid_t child;
	uint32_t p;

	need_small_disk(16);
	test_bus_restart();
	bus = test_bus_open();
	/* What is reserved for it is there when the disk is full. */
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 8 * MIB);
	CHECK_EQ(test_join(test_spawn(publish_flow, &flow)), 0);
	while (written(bus, "t") < flow.to)
		test_sleep_ms(1);
	create(bus, "stopped", .depth = DEPTH, .partitions = 8, .log = SHMQ_LOG_BLOCK,
	       .segment_bytes = MIB);
	take_room(1);
	child = test_spawn(publish_flow, &stopped);
	for (p = 0; p < 8; p++)
		while (!partition_info(bus, "stopped", p).log_error)
			test_sleep_ms(1);
	flow.from = 100;
	flow.to = 30000;
	CHECK_EQ(test_join(test_spawn(publish_flow, &flow)), 0);
	CHECK_EQ(partition_info(bus, "t", 0).log_error, 0);
	CHECK_EQ(partition_info(bus, "stopped", 0).log_error, -ENOSPC);
	take_room(0);
	CHECK_EQ(test_join(child), 0);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	end_small_disk();
	test_bus_stop();
}

static uint64_t disk_left(void)
{
	struct statvfs fs;

	CHECK(!statvfs(getenv("SHMQ_DATA_DIR"), &fs));
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

TEST_WITHIN(a_disk_that_is_short_of_room_is_shown_before_any_log_stands, 60)
{
	struct shmq_partition_info info;
	uint64_t next = 0;
	shmq_bus *bus;
	shmq_pub *pub;

	need_small_disk(32);
	test_bus_restart();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB);
	pub = open_pub(bus, "t");
	while (!partition_info(bus, "t", 0).log_left)
		test_sleep_ms(1);
	CHECK_EQ(partition_info(bus, "t", 0).log_is_low, 0);
	for (; disk_left() >= 2 * MIB; next += DEPTH) {
		publish(pub, next, next + DEPTH);
		await_written(bus, "t", next + DEPTH);
	}
	do {
		test_sleep_ms(1);
		info = partition_info(bus, "t", 0);
	} while (!info.log_is_low);
	CHECK_EQ(info.log_error, 0);
	CHECK_LT(info.log_left, 2 * MIB);
	await_said("are left on their disk");
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	end_small_disk();
	test_bus_stop();
}

/* All of it would not fit, and dropping takes room itself. */
TEST_WITHIN(what_is_superseded_makes_room_on_a_disk_that_is_full, 60)
{
	static char body[4000];
	struct shmq_msg msg = { .data = body, .len = sizeof(body), .key_len = 1 };
	char key[] = "abcdefgh";
	shmq_bus *bus;
	shmq_pub *pub;

	need_small_disk(7);
	test_bus_restart();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = sizeof(body) + 64,
	       .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB, .flags = SHMQ_TOPIC_RETAIN_KEYS);
	pub = open_pub(bus, "t");
	for (int i = 0; i < 2500; i++) {
		msg.key = &key[i % 8];
		CHECK_OK(shmq_publish_msg(pub, &msg));
	}
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, msg.seq, SHMQ_WRITTEN, PATIENCE));
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	end_small_disk();
	test_bus_stop();
}

TEST_WITHIN(on_a_full_disk_publishers_go_on_where_the_log_may_have_gaps, 60)
{
	struct shmq_msg msg;
	uint64_t next, lost = 0;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int rc;

	need_small_disk(32);
	test_bus_restart();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_GAP, .segment_bytes = MIB);
	take_room(1);
	pub = open_pub(bus, "t");
	for (next = 0; !partition_info(bus, "t", 0).log_error; next += DEPTH)
		publish(pub, next, next + DEPTH);
	publish(pub, next, next + 200 * DEPTH);
	next += 200 * DEPTH;
	take_room(0);
	await_written(bus, "t", next);
	publish(pub, next, next + 10);
	next += 10;
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (uint64_t at = 0; at < next;) {
		rc = shmq_receive(sub, &msg, PATIENCE);
		if (rc) {
			CHECK_ERROR(rc, SHMQ_EOVERRUN);
			at += msg.lost;
			lost += msg.lost;
			continue;
		}
		CHECK_EQ(msg.seq, at);
		CHECK(is_filled(msg.data, BYTES, at));
		at++;
	}
	CHECK_GT(lost, 0);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	end_small_disk();
	test_bus_stop();
}

/* ---- batches that interleave without end ------------------------------------- */

enum { CHAINED = 64 }; /* bytes of a member, inline */

/* Batches of two, of which each begins before the one before it is whole: the first of
 * number k is 2k, the second 2k + 3. */
static void send_chain(struct raw *r, uint64_t from, uint64_t to)
{
	for (uint64_t seq = from; seq < to; seq++) {
		uint64_t at = raw_claim(r), first = at % 2 ? at - 3 : at;
		struct lay_batch batch = { first, (uint32_t)(at % 2), 2 };
		char buf[CHAINED];

		CHECK_EQ(at, seq);
		fill(buf, sizeof(buf), at);
		raw_write(r, at, buf, sizeof(buf), at == 1 ? NULL : &batch);
	}
}

/* All that are whole, last to first: but for the one before the last. */
static void commit_chain(struct raw *r, uint64_t from, uint64_t to)
{
	raw_commit(r, to - 1);
	for (to -= 2; to > from; to--)
		raw_commit(r, to - 1);
	if (from)
		raw_commit(r, from - 2);
	raw_ring(r);
}

/* Until the files of the log go so far, whatever is said to be written. */
static void await_in_files(const char *topic, uint64_t seq)
{
	int64_t deadline = test_now_ns() + PATIENCE;
	struct shmq_log_partition part = { 0 };
	shmq_log_reader *log;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", test_bus_data(), topic);
	while (part.next != seq) {
		CHECK_LT(test_now_ns(), deadline);
		test_sleep_ms(1);
		CHECK_OK(shmq_log_open(path, &log));
		CHECK_OK(shmq_log_get_partition(log, 0, &part));
		shmq_log_close(log);
	}
}

/* A tailer is killed where the log has the beginning of a batch and the ring the rest, and
 * no place within a ring is in no batch. */
TEST_WITHIN(of_batches_that_interleave_for_longer_than_a_ring_none_is_torn_by_a_killed_tailer, 60)
{
	enum { STEP = 256, END = 5 * DEPTH };
	struct shmq_msg msg;
	struct raw raw;
	shmq_bus *bus;
	shmq_sub *sub;
	uint64_t seq;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .log = SHMQ_LOG_GAP);
	raw_open(&raw, bus, "t");
	raw.w.limit = 2 * END;
	for (seq = 0; seq < END; seq += STEP) {
		send_chain(&raw, seq, seq + STEP);
		commit_chain(&raw, seq, seq + STEP);
		/* It cannot come further: there is the claim. */
		await_in_files("t", seq + STEP - 2);
		if (seq % DEPTH != 2 * STEP)
			continue;
		CHECK_EQ(test_bus_kill("tailer"), 1);
		test_bus_await_killed();
	}
	/* The last one is given up, as one of a dead publisher would be. */
	CHECK_EQ(shmq__ring_void(raw.w.mem, &raw.w.geo, END - 2,
				 LAY_CTRL(lay_lap(&raw.w.geo, END - 2), raw.w.owner, LAY_CLAIMED)),
		 1);
	raw_ring(&raw);
	await_written(bus, "t", END);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (seq = 0; seq < END; seq++) {
		if (seq == END - 2)
			continue;
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, seq);
		CHECK(is_filled(msg.data, CHAINED, seq));
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	raw_close(&raw);
	shmq_bus_close(bus);
	test_bus_stop();
}
