/* SPDX-License-Identifier: MIT
 *
 * Topics with a log, and deaths: of publishers inside claims, of the control
 * worker, the parent and the tailer, alone and together, and of everything.
 * What was published is in the log once, in its order.
 */
#include "log_reader.h"
#include "logged.h"
#include "raw.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

/* ---- publishers that die ------------------------------------------------- */

struct claimer {
	const char *topic;
	_Atomic int stage;
};

/* Claims two, sends the first and writes half of the second. */
static int claim_and_wait(void *arg)
{
	struct claimer *c = arg;
	char buf[BYTES];
	struct raw raw;
	uint64_t seq;

	raw_open(&raw, test_bus_open(), c->topic);
	fill(buf, BYTES, 0);
	seq = raw_claim(&raw);
	raw_write(&raw, seq, buf, BYTES, NULL);
	raw_commit(&raw, seq);
	seq = raw_claim(&raw);
	raw_write(&raw, seq, buf, BYTES / 2, NULL);
	raw_ring(&raw);
	reach(&c->stage, 1);
	await(&c->stage, 2);
	return 1;
}

TEST(a_publisher_killed_inside_a_claim_leaves_a_hole_that_readers_of_the_log_pass)
{
	static const enum shmq_mode modes[] = { SHMQ_EXCLUSIVE, SHMQ_SHARED };
	static const enum shmq_log logs[] = { SHMQ_LOG_BLOCK, SHMQ_LOG_GAP };
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (unsigned k = 0; k < 4; k++) {
		struct claimer *c = shared_memory(sizeof(*c));
		char topic[2] = { (char)('a' + k), 0 };
		char buf[BYTES];
		struct shmq_msg msg = { .data = buf, .len = BYTES };
		shmq_pub *pub;
		shmq_sub *sub;
		uint64_t n;
		pid_t child;

		c->topic = topic;
		create(bus, topic, .depth = DEPTH, .mode = modes[k % 2], .log = logs[k / 2]);
		child = test_spawn(claim_and_wait, c);
		await(&c->stage, 1);
		CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
		while (topic_info(bus, topic).publishers)
			test_sleep_ms(1);
		pub = open_pub(bus, topic);
		fill(buf, BYTES, 1);
		CHECK_OK(shmq_publish_msg(pub, &msg));
		/* Only where others claimed behind it there is a hole. */
		CHECK_EQ(msg.seq, modes[k % 2] == SHMQ_SHARED ? 2 : 1);
		for (n = 2; n < 20 * DEPTH; n += DEPTH / 2) {
			publish(pub, n, n + DEPTH / 2);
			CHECK_OK(shmq_pub_wait_confirm(pub, 0, msg.seq + n + DEPTH / 2 - 2,
						       SHMQ_WRITTEN, PATIENCE));
		}
		sub = open_sub(bus, topic, .from = SHMQ_FROM_OLDEST);
		expect(sub, 0, 0, 1);
		expect(sub, msg.seq - 1, 1, n);
		CHECK_EQ(sub_stats(sub).lost, 0);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- batches --------------------------------------------------------------- */

enum { MEMBERS = 64, EACH = 200 };

struct batches {
	_Atomic uint64_t sent; /* batches */
	_Atomic uint64_t most; /* it waits there; 0: nowhere */
	_Atomic int stop;
	unsigned who;
};

static int publish_batches(void *arg)
{
	struct batches *b = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");
	static char bytes[MEMBERS][BYTES];
	struct shmq_msg m[MEMBERS];

	for (uint64_t n = 0; !atomic_load(&b->stop); n++) {
		if (b->most && n >= atomic_load(&b->most)) {
			test_sleep_ms(1);
			n--;
			continue;
		}
		for (unsigned i = 0; i < MEMBERS; i++) {
			fill(bytes[i], BYTES, n * MEMBERS + i);
			m[i] = (struct shmq_msg){ .data = bytes[i],
						  .len = BYTES,
						  .type = (uint16_t)b->who,
						  .partition = SHMQ_ANY_PARTITION };
		}
		CHECK_EQ(shmq_publish_batch(pub, m, MEMBERS, SHMQ_ATOMIC), MEMBERS);
		atomic_store(&b->sent, n + 1);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

/* Batches come whole, each publisher's in order: so many messages. */
static void expect_batches(shmq_sub *sub, uint64_t count)
{
	uint64_t next[2] = { 0, 0 };
	struct shmq_msg msg;

	for (; count; count--) {
		int rc = shmq_receive(sub, &msg, PATIENCE);

		if (rc)
			FAIL("%s (lost %llu at seq %llu)", shmq_errname(rc),
			     (unsigned long long)msg.lost, (unsigned long long)msg.seq);
		CHECK_LT(msg.type, 2);
		CHECK(msg.flags & SHMQ_MSG_BATCH);
		CHECK(is_filled(msg.data, BYTES, next[msg.type]));
		next[msg.type]++;
	}
}

TEST_WITHIN(a_reader_that_comes_from_the_log_into_the_ring_gets_whole_batches, 60)
{
	struct batches *b[2] = { shared_memory(sizeof(*b[0])), shared_memory(sizeof(*b[0])) };
	shmq_bus *bus;
	pid_t child[2];

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .slot_bytes = 192, .mode = SHMQ_SHARED,
	       .log = SHMQ_LOG_BLOCK);
	b[1]->who = 1;
	b[0]->most = b[1]->most = EACH;
	for (int i = 0; i < 2; i++)
		child[i] = test_spawn(publish_batches, b[i]);
	/* They wait for each round, or who reads more slowly than they send would have twice
	 * as much to read in each. */
	for (unsigned round = 0; round < 10; round++) {
		uint64_t most = (round + 1) * EACH;
		shmq_sub *sub;

		for (int i = 0; i < 2; i++)
			atomic_store(&b[i]->most, most);
		sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST,
			       .flags = round % 2 ? SHMQ_SUB_OBSERVE : 0);
		expect_batches(sub, 2 * most * MEMBERS);
		CHECK_EQ(sub_stats(sub).lost, 0);
		shmq_sub_close(sub);
	}
	for (int i = 0; i < 2; i++) {
		atomic_store(&b[i]->stop, 1);
		CHECK_EQ(test_join(child[i]), 0);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(of_an_atomic_batch_all_or_none_survives_the_death_of_everything, 60)
{
	uint64_t confirmed = 0;

	test_bus_prepare();
	for (int round = 0; round < 5; round++) {
		struct batches *b = shared_memory(sizeof(*b));
		uint64_t got = 0, n = 0;
		struct shmq_msg msg;
		shmq_bus *bus;
		shmq_sub *sub;
		pid_t child;
		int rc;

		test_bus_restart();
		bus = test_bus_open();
		if (!round)
			create(bus, "t", .depth = DEPTH, .slot_bytes = 192, .log = SHMQ_LOG_BLOCK,
			       .segment_bytes = 1 << 20);
		/* Every batch that began is there to its end.  Each life of the bus
		 * had a publisher that began with 0. */
		sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
		while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
			if (rc == SHMQ_EOVERRUN) {
				CHECK_EQ(n % MEMBERS, 0);
				continue;
			}
			CHECK_OK(rc);
			if (n % MEMBERS == 0 && is_filled(msg.data, BYTES, 0))
				n = 0;
			CHECK(is_filled(msg.data, BYTES, n));
			n++;
			got++;
		}
		CHECK_EQ(n % MEMBERS, 0);
		CHECK_GE(got, confirmed);
		shmq_sub_close(sub);
		child = test_spawn(publish_batches, b);
		while (atomic_load(&b->sent) < 200 * (1 + (uint64_t)round % 3))
			test_sleep_ms(1);
		/* All but what was in the ring. */
		confirmed = got + atomic_load(&b->sent) * MEMBERS - 2 * DEPTH;
		test_bus_kill(NULL);
		test_kill_wait(child, SIGKILL);
		shmq_bus_close(bus);
	}
	test_bus_restart();
	test_bus_stop();
}

/* Its file has message `seq`. */
static void await_in_file(uint64_t seq)
{
	char path[PATH_MAX];
	int64_t deadline = test_now_ns() + PATIENCE;
	struct log_reader *reader;
	struct log_record head = { 0 };
	struct shmq__why why = { "" };
	const char *body;
	int dir;

	snprintf(path, sizeof(path), "%s/t/0", test_bus_data());
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK_GE(dir, 0);
	do {
		CHECK_LT(test_now_ns(), deadline);
		test_sleep_ms(1);
		CHECK_OK(shmq__log_reader_open(dir, NULL, &reader, &why));
		while (head.seq != seq &&
		       shmq__log_reader_next(reader, NULL, &head, &body, &why) == 1)
			;
		shmq__log_reader_close(reader);
	} while (head.seq != seq);
	close(dir);
}

/* Of 1 to 4 the odd ones are a batch, and the even ones. */
TEST(nothing_of_a_batch_is_written_before_one_that_interleaves_with_it_is_whole)
{
	struct lay_batch batch[2] = { { 1, 0, 2 }, { 2, 0, 2 } };
	char buf[BYTES];
	struct raw raw;
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .slot_bytes = 192, .mode = SHMQ_SHARED,
	       .log = SHMQ_LOG_BLOCK);
	raw_open(&raw, bus, "t");
	for (uint64_t seq = 0; seq < 5; seq++) {
		struct lay_batch *b = &batch[(seq + 1) % 2];

		CHECK_EQ(raw_claim(&raw), seq);
		fill(buf, BYTES, seq);
		raw_write(&raw, seq, buf, BYTES, seq ? b : NULL);
		b->index += seq > 0;
	}
	raw_commit(&raw, 0);
	raw_commit(&raw, 3);
	raw_commit(&raw, 1);
	raw_commit(&raw, 2);
	raw_ring(&raw);
	await_in_file(3);
	/* All that recovery keeps. */
	await_written(bus, "t", 1);
	CHECK_EQ(written(bus, "t"), 1);
	CHECK_EQ(test_bus_kill("tailer"), 1);
	await_said("no good record at offset");
	CHECK_EQ(written(bus, "t"), 1);
	raw_commit(&raw, 4);
	raw_ring(&raw);
	await_written(bus, "t", 5);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 5);
	shmq_sub_close(sub);
	raw_close(&raw);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- the supervisor's processes -------------------------------------------- */

static int is_parent(void *arg)
{
	return test_bus_pid("parent") != 0;
}

TEST_WITHIN(control_worker_parent_and_tailer_die_in_turn_and_at_once_and_nothing_is_missing, 60)
{
	static const char *const role[] = { "control", "tailer", "parent" };
	struct flow flow = { .topic = "t", .to = 400000 };
	shmq_bus *bus;
	shmq_sub *live, *sub;
	pid_t child;
	unsigned kills = 0;

	flow.stage = shared_memory(sizeof(*flow.stage));
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 8 << 20);
	live = open_sub(bus, "t");
	child = test_spawn(publish_flow, &flow);
	for (uint64_t n = 0; n < flow.to; n += 20000, kills++) {
		/* All but the parent's, who has to be left to start the others: so it
		 * has to be there. */
		test_bus_await_killed();
		CHECK(test_wait_until(is_parent, NULL, 30000));
		if (kills % 4 == 3) {
			test_bus_kill("control");
			test_bus_kill("tailer");
		} else {
			test_bus_kill(role[kills % 4]);
		}
		expect(live, 0, n, n + 20000);
	}
	CHECK_EQ(test_join(child), 0);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, flow.to);
	CHECK_EQ(sub_stats(sub).lost + sub_stats(live).lost, 0);
	shmq_sub_close(sub);
	shmq_sub_close(live);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* A bus with a topic in whose log ten messages are. */
static shmq_pub *start_kept(shmq_bus **bus)
{
	shmq_pub *pub;

	test_bus_start();
	*bus = test_bus_open();
	create(*bus, "kept", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .sync = SHMQ_SYNC_EVERY);
	pub = open_pub(*bus, "kept");
	publish(pub, 0, 10);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 9, SHMQ_SYNCED, PATIENCE));
	return pub;
}

/* It sleeps for ten seconds at a time.  Where the machine is slow our turns are as late
 * as its. */
TEST(a_tailer_that_has_nothing_to_do_ends_as_soon_as_its_parent_has_died)
{
	shmq_bus *bus;
	shmq_pub *pub = start_kept(&bus);
	unsigned turns = 0;
	pid_t tailer;

	shmq_pub_close(pub);
	shmq_bus_close(bus); /* or it has the bus begun again */
	tailer = test_bus_pid("tailer");
	CHECK_EQ(test_bus_kill("parent"), 1);
	while (!kill(tailer, 0) && turns++ < 3000)
		test_sleep_ms(1);
	CHECK_LE(turns, 3000);
	test_bus_stop();
}

/* The one before may have died between a mark and the word that tells of it: by nothing
 * else does who polls learn of it, if nothing more is sent. */
TEST(a_tailer_that_comes_tells_who_polls_of_the_marks_that_are_there)
{
	struct pollfd p = { .events = POLLIN };
	shmq_bus *bus;
	shmq_pub *pub = start_kept(&bus);

	p.fd = shmq_pub_confirm_fd(pub);
	CHECK_EQ(test_bus_kill("tailer"), 1);
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int has_failed(void *unused)
{
	(void)unused;
	return test_bus_log_has("reading \"kept\", partition 0 for its log");
}

/* An arena that cannot be mapped for the moment is no end: it is tried again, and what is
 * sent after that wakes the tailer as before. */
TEST(a_tailer_that_could_not_read_a_message_for_a_while_goes_on_and_is_woken)
{
	static char bytes[4096];
	struct rlimit was, none = { 0 };
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t tailer;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "other", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	create(bus, "kept", .depth = DEPTH, .max_message_bytes = sizeof(bytes),
	       .log = SHMQ_LOG_BLOCK, .sync = SHMQ_SYNC_EVERY);
	pub = open_pub(bus, "kept");
	publish(pub, 0, 1);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_SYNCED, PATIENCE));
	tailer = test_bus_pid("tailer");
	CHECK_OK(prlimit(tailer, RLIMIT_AS, NULL, &was));
	none.rlim_max = was.rlim_max;
	CHECK_OK(prlimit(tailer, RLIMIT_AS, &none, NULL));
	CHECK_OK(shmq_publish(pub, bytes, sizeof(bytes)));
	CHECK(test_wait_until(has_failed, NULL, (int)(PATIENCE / MILLISECOND)));
	CHECK_OK(prlimit(tailer, RLIMIT_AS, &was, NULL));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 1, SHMQ_SYNCED, PATIENCE));
	for (uint64_t n = 2; n < 4; n++) {
		test_sleep_ms(50); /* it sleeps, or will be early */
		publish(pub, n, n + 1);
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, n, SHMQ_SYNCED, 5 * SECOND));
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_is_made_once_whatever_its_control_worker_dies_of)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (unsigned i = 0; i < 10; i++) {
		char topic[8];
		pid_t child;

		snprintf(topic, sizeof(topic), "t%u", i);
		child = fork();
		CHECK_GE(child, 0);
		if (!child) {
			test_bus_kill("control");
			_exit(0);
		}
		create(bus, topic, .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
		CHECK_EQ(test_join(child), 0);
		CHECK_EQ(topic_info(bus, topic).log, SHMQ_LOG_BLOCK);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- a stop ------------------------------------------------------------------ */

struct stopped {
	_Atomic uint64_t sent; /* publish returned 0 for these */
};

static int publish_until_the_end(void *arg)
{
	struct stopped *s = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");
	char buf[BYTES];
	int rc;

	for (uint64_t n = 0;; n++) {
		fill(buf, sizeof(buf), n);
		rc = shmq_publish(pub, buf, sizeof(buf));
		if (rc)
			break;
		atomic_store(&s->sent, n + 1);
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

/* The reader, too, gets all of it before it is told the end. */
static int read_until_the_end(void *arg)
{
	_Atomic uint64_t *got = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST, .flags = SHMQ_SUB_OBSERVE);
	struct shmq_msg msg;
	uint64_t n = 0;
	int rc;

	while (!(rc = shmq_receive(sub, &msg, PATIENCE))) {
		CHECK_EQ(msg.seq, n);
		CHECK(is_filled(msg.data, BYTES, n));
		atomic_store(got, ++n);
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

TEST_WITHIN(what_was_published_before_a_stop_is_in_the_log_and_with_every_reader, 60)
{
	struct stopped *s = shared_memory(sizeof(*s));
	_Atomic uint64_t *got = shared_memory(sizeof(*got));
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t publisher, reader;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	publisher = test_spawn(publish_until_the_end, s);
	while (atomic_load(&s->sent) < 50000)
		test_sleep_ms(1);
	reader = test_spawn(read_until_the_end, got);
	while (atomic_load(got) < 1000)
		test_sleep_ms(1);
	CHECK_OK(shmq_bus_stop(bus, SHMQ_FORCE));
	shmq_bus_close(bus);
	CHECK_EQ(test_join(publisher), 0);
	CHECK_EQ(test_join(reader), 0);
	/* The one that met the end may be there, though its publisher was told of the end. */
	CHECK_GE(atomic_load(got), atomic_load(&s->sent));
	CHECK_LE(atomic_load(got), atomic_load(&s->sent) + 1);
	test_bus_await_end();
	test_bus_restart();
	bus = test_bus_open();
	/* Behind a hole for those who may have met the end. */
	CHECK_GE(head(bus, "t"), atomic_load(got));
	CHECK_LE(head(bus, "t"), atomic_load(got) + DEPTH);
	/* Not the one that met it, if the tailer looked for the last time before. */
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, atomic_load(&s->sent));
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* What a publisher sends that has not seen the end yet, a reader of the ring may get. */
TEST(a_seq_that_was_taken_behind_the_end_is_never_given_again)
{
	static const enum shmq_log logs[] = { SHMQ_LOG_BLOCK, SHMQ_LOG_GAP };

	for (unsigned k = 0; k < COUNT(logs); k++) {
		struct shmq_msg msg;
		char buf[BYTES];
		struct raw raw;
		shmq_bus *bus;
		shmq_sub *sub;
		shmq_pub *pub;

		test_bus_start();
		bus = test_bus_open();
		create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .log = logs[k]);
		sub = open_sub(bus, "t", .flags = SHMQ_SUB_OBSERVE); /* of the ring */
		pub = open_pub(bus, "t");
		publish(pub, 0, 10);
		shmq_pub_close(pub);
		expect(sub, 0, 0, 10);
		raw_open(&raw, bus, "t");
		CHECK_OK(shmq_bus_stop(bus, SHMQ_FORCE));
		test_bus_await_end();
		CHECK_EQ(raw_claim(&raw), 10);
		fill(buf, BYTES, 10);
		raw_write(&raw, 10, buf, BYTES, NULL);
		raw_commit(&raw, 10);
		expect(sub, 0, 10, 11);
		shmq_sub_close(sub);
		raw_close(&raw);
		shmq_bus_close(bus);
		test_bus_restart();
		bus = test_bus_open();
		pub = open_pub(bus, "t");
		fill(buf, BYTES, 11);
		msg = (struct shmq_msg){ .data = buf, .len = BYTES };
		CHECK_OK(shmq_publish_msg(pub, &msg));
		CHECK_GT(msg.seq, 10);
		/* Who went on behind it misses nothing, and nothing was lost. */
		sub = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = 11);
		expect(sub, msg.seq - 11, 11, 12);
		CHECK_EQ(sub_stats(sub).lost, 0);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
		shmq_bus_close(bus);
		test_bus_stop();
	}
}
