/* SPDX-License-Identifier: MIT
 *
 * durable_model: random publishes, confirms, reads, stops and kills of a bus
 * with a log, held against a model of what must be there: every message that
 * was confirmed, or that no death of everything could take, in order and under
 * its seq, whole, and no seq twice.  TEST_SEED repeats a run.
 */
#include "logged.h"

enum { BURST_MAX = 3000, STEPS = 60, SENT_MAX = 2 * STEPS * BURST_MAX };

struct sent {
	uint64_t seq, n;
	int is_sure; /* it must be in the log */
};

struct model {
	shmq_bus *bus;
	struct sent *sent; /* that may be in the log */
	uint64_t count;
	uint64_t open;     /* sent since everything died, and not confirmed: from there on */
	uint64_t next_n;   /* of the next message */
	uint64_t next_seq; /* the lowest that may be given */
	int crashes;
	uint64_t random;
};

static uint64_t draw(struct model *m, uint64_t below)
{
	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return (m->random >> 11) % below;
}

static void send_some(struct model *m, uint64_t count, int confirms)
{
	shmq_pub *pub = open_pub(m->bus, "t");
	char buf[BYTES];

	for (; count; count--) {
		struct shmq_msg msg = { .data = buf, .len = sizeof(buf) };

		fill(buf, sizeof(buf), m->next_n);
		CHECK_OK(shmq_publish_msg(pub, &msg));
		CHECK_GE(msg.seq, m->next_seq);
		CHECK_LT(m->count, (uint64_t)SENT_MAX);
		m->sent[m->count++] = (struct sent){ msg.seq, m->next_n++, 0 };
		m->next_seq = msg.seq + 1;
	}
	if (confirms)
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, m->next_seq - 1, SHMQ_WRITTEN, PATIENCE));
	shmq_pub_close(pub);
}

static void make_sure(struct model *m)
{
	for (; m->open < m->count; m->open++)
		m->sent[m->open].is_sure = 1;
}

/* The next message, past gaps. */
static void receive_next(shmq_sub *sub, struct shmq_msg *msg)
{
	int rc;

	do
		rc = shmq_receive(sub, msg, PATIENCE);
	while (rc == SHMQ_EOVERRUN);
	CHECK_OK(rc);
}

/* All from the oldest on: what is not there of what was not sure never was. */
static void read_all(struct model *m)
{
	shmq_sub *sub = open_sub(m->bus, "t", .from = SHMQ_FROM_OLDEST);
	uint64_t i, kept = 0, before = m->count;
	struct shmq_msg msg;

	for (i = 0; i < before; i++) {
		receive_next(sub, &msg);
		while (i < before && m->sent[i].seq != msg.seq) {
			if (m->sent[i].is_sure)
				FAIL("seq %llu is missing, it was confirmed",
				     (unsigned long long)m->sent[i].seq);
			i++;
		}
		CHECK_LT(i, before);
		CHECK(is_filled(msg.data, msg.len, m->sent[i].n));
		m->sent[kept] = m->sent[i];
		m->sent[kept++].is_sure = 1;
	}
	if (!m->crashes)
		CHECK_EQ(sub_stats(sub).lost, 0);
	m->count = m->open = kept;
	shmq_sub_close(sub);
}

static void read_from_anywhere(struct model *m)
{
	uint64_t from = draw(m, m->count), i;
	shmq_sub *sub = open_sub(m->bus, "t", .from = SHMQ_FROM_SEQ, .seq = m->sent[from].seq);
	struct shmq_msg msg;

	for (i = from; i < m->count; i++) {
		receive_next(sub, &msg);
		CHECK_EQ(msg.seq, m->sent[i].seq);
		CHECK(is_filled(msg.data, msg.len, m->sent[i].n));
	}
	shmq_sub_close(sub);
}

static void check_all(struct model *m)
{
	send_some(m, 1, 1); /* so that there is an end to read to */
	read_all(m);
	read_from_anywhere(m);
}

static void stop_in_order(struct model *m)
{
	/* A tailer that dies while the bus ends leaves what it had not written: that
	 * is said, and is no end in order.  One that is dead is waited for. */
	test_bus_await_killed();
	CHECK_OK(shmq_bus_stop(m->bus, 0));
	shmq_bus_close(m->bus);
	make_sure(m);
	test_bus_await_end();
	test_bus_restart();
	m->bus = test_bus_open();
}

static void kill_everything(struct model *m)
{
	CHECK_GE(test_bus_kill(NULL), 1); /* others may be dead already */
	shmq_bus_close(m->bus);
	m->crashes++;
	m->open = m->count;
	test_bus_restart();
	m->bus = test_bus_open();
}

static void step(struct model *m)
{
	uint64_t burst = 1 + draw(m, BURST_MAX), what = draw(m, 20);

	if (what < 8) {
		send_some(m, burst, 0);
	} else if (what < 12) {
		send_some(m, burst, 1);
		make_sure(m);
	} else if (what < 14) {
		check_all(m);
	} else if (what < 16) {
		test_bus_kill("tailer");
	} else if (what < 18) {
		test_bus_kill("control");
	} else if (what < 19) {
		stop_in_order(m);
	} else {
		send_some(m, burst, 0);
		kill_everything(m);
	}
}

TEST_WITHIN(whatever_is_sent_killed_and_started_again_a_log_is_what_its_model_says, 120)
{
	struct model m = { .random = (uint64_t)test_now_ns() | 1 };
	char *seed = getenv("TEST_SEED");
	int i;

	if (seed)
		m.random = strtoull(seed, NULL, 0);
	fprintf(stderr, "# TEST_SEED=%llu\n", (unsigned long long)m.random);
	m.sent = calloc(SENT_MAX, sizeof(*m.sent));
	CHECK(m.sent != NULL);
	test_bus_start();
	m.bus = test_bus_open();
	create(m.bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 1 << 20);
	for (i = 0; i < STEPS; i++)
		step(&m);
	kill_everything(&m);
	check_all(&m);
	shmq_bus_close(m.bus);
	free(m.sent);
	test_bus_stop();
}
