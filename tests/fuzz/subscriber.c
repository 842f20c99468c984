/* SPDX-License-Identifier: MIT
 *
 * A subscriber whose publishers write whatever they like into ring, void list,
 * bells, arenas and their entries, before it reads and while it does.
 */
#include "scene.h"

#include "../../libshmq/sub_priv.h"

#include <stdlib.h>

const unsigned fuzz_runs = 3000;

enum { OPS_MAX = 48 };

static struct scene *c;
static shmq_sub *sub;
static shmq_waitset *set;
static struct ring_writer writer;

static void check_result(int rc)
{
	static const int expected[] = { 0,
					SHMQ_EEMPTY,
					SHMQ_ETIMEOUT,
					SHMQ_EOVERRUN,
					SHMQ_EEVICTED,
					SHMQ_ECORRUPT,
					SHMQ_ESTALLED,
					SHMQ_EENDED,
					SHMQ_EMOVED };
	unsigned i;

	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (rc == expected[i])
			return;
	FAIL("a subscriber is told %s", shmq_errname(rc));
}

static void check_message(const struct shmq_msg *m)
{
	const struct lay_geometry *g = &c->f->geo;

	CHECK_LE(m->len + m->key_len + m->properties_len, g->max_bytes);
	CHECK(m->partition >= 0 && (uint32_t)m->partition < g->partitions);
	fuzz_touch(m->data, m->len);
	fuzz_touch(m->key, m->key_len);
	fuzz_touch(m->properties, m->properties_len);
}

static int handle(void *arg, const struct shmq_msg *m)
{
	check_message(m);
	return 0;
}

static int receive(int64_t timeout_ns)
{
	struct shmq_msg m = { 0 };
	int rc = WITHIN(SCENE_STEPS, shmq_receive(sub, &m, timeout_ns));

	check_result(rc);
	if (!rc)
		check_message(&m);
	return rc;
}

/* A buffer for the largest message is enough for all. */
static void receive_copy(void)
{
	size_t room = c->f->geo.max_bytes;
	char *buf = malloc(room);
	struct shmq_msg m = { 0 };
	int rc;

	CHECK(buf);
	rc = WITHIN(SCENE_STEPS, shmq_receive_copy(sub, buf, room, &m, SHMQ_NOWAIT));
	check_result(rc);
	if (!rc) {
		CHECK((char *)m.data >= buf && (char *)m.data + m.len <= buf + room);
		check_message(&m);
	}
	free(buf);
}

static void poll_some(void)
{
	ssize_t rc = WITHIN(8 * SCENE_STEPS, shmq_poll(sub, handle, NULL, 8, SHMQ_NOWAIT));

	if (rc < 0)
		check_result((int)rc);
	CHECK_LE(rc, 8);
}

/* What it asks of the message in its hand, which it writes then. */
static void ask_as_tailer(const struct shmq_msg *m)
{
	uint64_t base = sub->lane[0].ring->part->base_seq;
	struct lay_batch batch;
	int rc;

	shmq__sub_go_on(sub);
	rc = WITHIN(SCENE_STEPS, shmq__sub_is_sent(sub, m));
	CHECK(rc == 0 || rc == 1 || rc == SHMQ__SUB_TORN || rc == SHMQ_EEMPTY);
	if (m->flags & SHMQ_MSG_BATCH)
		shmq__sub_get_batch(sub, &batch);
	CHECK_LE(shmq__sub_moved_seq(sub) - base, shmq__sub_cursor(sub) - base);
	check_message(m);
}

static void check_view(void)
{
	struct shmq_msg m = { 0 };

	if (WITHIN(SCENE_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)))
		return;
	check_message(&m);
	WITHIN(SCENE_STEPS, shmq_view_check(sub, &m));
	ask_as_tailer(&m);
	WITHIN(SCENE_STEPS, shmq_release(sub));
}

static void ask_for_state(void)
{
	struct shmq_sub_stats stats;
	shmq_sub *ready;

	fuzz_begin("shmq_sub_get_stats()", SCENE_STEPS);
	shmq_sub_get_stats(sub, &stats);
	fuzz_end();
	WITHIN(SCENE_STEPS, shmq_waitset_wait(set, &ready, 1, SHMQ_NOWAIT));
}

static void publish_honestly(struct bites *in)
{
	unsigned n = (unsigned)bite_below(in, 64);

	writer.limit = writer.next + 1024;
	while (n--)
		fake_publish(&writer, n);
}

/* Nobody writes any more: there is an end to what it is told. */
static void read_to_the_end(void)
{
	uint64_t left = (4 * c->f->geo.depth + LAY_VOIDS) * c->f->geo.partitions;
	int rc;

	noise_between_steps(NULL, 0, 0);
	do {
		rc = receive(SHMQ_NOWAIT);
		CHECK_GT(left--, 0);
	} while (rc == 0 || rc == SHMQ_EOVERRUN || rc == SHMQ_ECORRUPT);
}

static void play(struct bites *in)
{
	unsigned what = (unsigned)bite_below(in, 12);

	if (scene_publisher_lies(c, in, what))
		return;
	switch (what) {
	case 5:
		publish_honestly(in);
		break;
	case 6:
		receive(SHMQ_NOWAIT);
		break;
	case 7:
		receive(2000000000);
		break;
	case 8:
		receive_copy();
		break;
	case 9:
		poll_some();
		break;
	case 10:
		check_view();
		break;
	default:
		ask_for_state();
	}
}

static void begin(struct bites *in)
{
	struct shmq_sub_options o = { .size = sizeof(o) };

	c = scene_begin(in);
	o.wait = (enum shmq_wait)bite_below(in, SHMQ_WAIT_SLEEP + 1);
	CHECK_OK(shmq_sub_open(&c->bus, "fake", &o, &sub));
	CHECK_OK(shmq_waitset_create(&c->bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	writer = fake_writer(c->f, c->peer_pub, 0);
}

static void end(void)
{
	shmq_waitset_destroy(set);
	shmq_sub_close(sub);
	scene_end(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	unsigned ops = 0;

	begin(&in);
	while (in.left && ops++ < OPS_MAX)
		play(&in);
	read_to_the_end();
	end();
	return 0;
}

void fuzz_leave(void)
{
	scene_leave();
}

/* ---- what it found, and what is like it ------------------------------------ */

/* A peer that thinks: it knows where the subscriber stands. */

enum { LOSSY_SHARED = 5, LOSSY_EXCLUSIVE = 4, LAP_STEPS = 64 * FAKE_DEPTH };

static void begin_as(uint8_t key, enum shmq_wait wait)
{
	const uint8_t bytes[] = { key, 0, (uint8_t)wait };

	begin(&(struct bites){ bytes, sizeof(bytes) });
}

static void leave(void)
{
	end();
	scene_leave();
}

static shmq_au64 *ctrl_of(uint64_t seq)
{
	return fake_ctrl(c->f->topic->ring[0].mem, &c->f->geo, seq);
}

static void put(uint64_t seq, unsigned state)
{
	store_release(ctrl_of(seq), LAY_CTRL(lay_lap(&c->f->geo, seq), 2, state));
}

/* What comes next is always such a slot. */
static void stay_ahead(void *state)
{
	uint64_t seq = sub->lane[0].r.next;

	put(seq, *(unsigned *)state);
	put(seq + 1, *(unsigned *)state);
}

TEST(publishers_that_void_as_fast_as_one_looks_hold_nobody_in_a_call)
{
	unsigned state = LAY_VOID;
	struct shmq_msg m = { 0 };

	begin_as(LOSSY_SHARED, SHMQ_WAIT_SPIN);
	strike_between_steps(stay_ahead, &state);
	CHECK_EQ(WITHIN(4 * LAP_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)), SHMQ_EEMPTY);
	state = LAY_GONE;
	CHECK_EQ(WITHIN(4 * LAP_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)), SHMQ_EOVERRUN);
	leave();
}

TEST(who_could_not_look_at_all_of_it_does_not_sleep_and_is_told_of_no_end)
{
	struct lay_ring *ring;
	unsigned state = LAY_VOID, before = fuzz_sleeps();
	struct shmq_msg m = { 0 };

	begin_as(LOSSY_SHARED, SHMQ_WAIT_SLEEP);
	ring = c->f->topic->ring[0].mem;
	strike_between_steps(stay_ahead, &state);
	CHECK_EQ(WITHIN(400 * LAP_STEPS, shmq_receive(sub, &m, 20000000)), SHMQ_ETIMEOUT);
	CHECK_EQ(fuzz_sleeps(), before);
	store_release(&ring->state, LAY_RING_ENDED);
	CHECK_EQ(WITHIN(8 * LAP_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)), SHMQ_EEMPTY);
	strike_between_steps(NULL, NULL);
	put(sub->lane[0].r.next, LAY_COMMITTED);
	CHECK_OK(shmq_receive(sub, &m, SHMQ_NOWAIT));
	leave();
}

/* It is not known where is_ready() looks, but how fast. */
struct pursuit {
	uint64_t next, steps, each;
};

static void stay_half_a_lap_ahead(void *arg)
{
	struct pursuit *p = arg;

	if (++p->steps % p->each == 0)
		put(p->next++, LAY_VOID);
}

static uint64_t steps_to_ask(void)
{
	shmq_sub *ready;

	fuzz_begin("shmq_waitset_wait()", 4 * LAP_STEPS);
	shmq_waitset_wait(set, &ready, 1, SHMQ_NOWAIT);
	return fuzz_end();
}

TEST(publishers_that_void_as_fast_as_one_asks_keep_no_question_from_its_answer)
{
	struct pursuit p = { 0 };
	shmq_sub *ready;

	begin_as(LOSSY_SHARED, SHMQ_WAIT_SPIN);
	p.next = c->base;
	while (p.next != c->base + 100)
		put(p.next++, LAY_VOID);
	p.each = steps_to_ask();
	while (p.next != c->base + FAKE_DEPTH / 2)
		put(p.next++, LAY_VOID);
	p.each = (steps_to_ask() - p.each) / (FAKE_DEPTH / 2 - 100);
	CHECK_GT(p.each, 0);
	CHECK_EQ(WITHIN(LAP_STEPS, shmq_waitset_wait(set, &ready, 1, SHMQ_NOWAIT)), SHMQ_EEMPTY);
	strike_between_steps(stay_half_a_lap_ahead, &p);
	CHECK_EQ(WITHIN(4 * LAP_STEPS, shmq_waitset_wait(set, &ready, 1, SHMQ_NOWAIT)), 1);
	leave();
}

/* As soon as a message is handed out its word changes, and is as good as before. */
static void tear(void *arg)
{
	if (sub->view && sub->view_word == load_relaxed(ctrl_of(sub->lane[0].r.next)))
		store_relaxed(ctrl_of(sub->lane[0].r.next), sub->view_word ^ LAY_CTRL(0, 1, 0));
}

TEST(a_word_that_changes_whenever_it_is_copied_is_corrupt_and_passed)
{
	char buf[48];
	struct shmq_msg m = { 0 };
	unsigned n;

	for (n = 0; n < 4; n++) {
		int is_polled = n & 1;

		begin_as(n & 2 ? LOSSY_SHARED : LOSSY_EXCLUSIVE, SHMQ_WAIT_SPIN);
		writer.limit = writer.next + FAKE_DEPTH;
		fake_publish(&writer, 1);
		fake_publish(&writer, 2);
		strike_between_steps(tear, NULL);
		if (is_polled)
			CHECK_EQ(WITHIN(LAP_STEPS, shmq_poll(sub, handle, NULL, 8, SHMQ_NOWAIT)),
				 SHMQ_ECORRUPT);
		else
			CHECK_EQ(WITHIN(LAP_STEPS,
					shmq_receive_copy(sub, buf, sizeof(buf), &m, SHMQ_NOWAIT)),
				 SHMQ_ECORRUPT);
		strike_between_steps(NULL, NULL);
		CHECK_OK(shmq_receive(sub, &m, SHMQ_NOWAIT));
		CHECK_EQ(m.seq, c->base + 1);
		end();
	}
	scene_leave();
}

/* Once, after so many steps, the ring is said to be far further on. */
static void leap(void *left)
{
	uint64_t far = c->base + (UINT64_C(1) << 40);

	if (!*(unsigned *)left || --*(unsigned *)left)
		return;
	put(far - 1, LAY_COMMITTED);
	store_relaxed(&c->f->topic->ring[0].mem->tail_hint, far);
}

TEST(a_head_that_leaps_while_an_overrun_is_counted_is_not_walked_to)
{
	struct shmq_msg m = { 0 };
	unsigned after, left = 0;

	for (after = 1; !left; after++) {
		begin_as(LOSSY_SHARED, SHMQ_WAIT_SPIN);
		put(c->base, LAY_COMMITTED);
		put(c->base + FAKE_DEPTH, LAY_COMMITTED);
		store_relaxed(&c->f->topic->ring[0].mem->tail_hint, c->base + FAKE_DEPTH + 1);
		left = after;
		strike_between_steps(leap, &left);
		CHECK_EQ(WITHIN(LAP_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)), SHMQ_EOVERRUN);
		end();
	}
	CHECK_GT(after, 10);
	scene_leave();
}

/* Once, after so many steps, the claim is a message and the topic has ended. */
static void commit_and_end(void *left)
{
	if (!*(unsigned *)left || --*(unsigned *)left)
		return;
	put(c->base, LAY_COMMITTED);
	store_release(&c->f->topic->ring[0].mem->state, LAY_RING_ENDED);
}

TEST(what_was_committed_before_the_end_is_no_hole_however_long_it_was_claimed)
{
	struct shmq_msg m = { 0 };
	unsigned after, left = 0;
	int rc;

	for (after = 1; !left; after++) {
		begin_as(LOSSY_SHARED, SHMQ_WAIT_SPIN);
		put(c->base, LAY_CLAIMED);
		sub->lane[0].r.geo.stall = SHMQ_STALL_KILL;
		CHECK_EQ(shmq_receive(sub, &m, 2000000000), SHMQ_ETIMEOUT);
		left = after;
		strike_between_steps(commit_and_end, &left);
		rc = WITHIN(LAP_STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT));
		strike_between_steps(NULL, NULL);
		if (rc == SHMQ_EEMPTY && !left)
			rc = shmq_receive(sub, &m, SHMQ_NOWAIT);
		CHECK_EQ(rc, left ? SHMQ_EEMPTY : 0);
		end();
	}
	CHECK_GT(after, 10);
	scene_leave();
}
