/* SPDX-License-Identifier: MIT
 *
 * What is there, handed to a function.
 */
#include "clock.h"
#include "subscriber.h"
#include "sub_priv.h"

TEST(poll_hands_out_until_told_to_stop_and_holds_what_went_wrong_for_the_next_call)
{
	struct scene c = set_up(NULL, NULL);
	struct seen seen = { .c = &c, .stop_at = 2 };
	struct shmq_msg m;

	CHECK_EQ(shmq_poll(c.sub, see, &seen, 0, SHMQ_NOWAIT), 0);
	CHECK_ERROR(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_poll(c.sub, see, &seen, 9, 1), SHMQ_ETIMEOUT);
	publish(&c, 8);
	for (uint64_t n = 4; n < 7; n++)
		set_state(&c, n, LAY_GONE);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 2);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 1, SHMQ_NOWAIT), 1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1); /* up to the gap */
	CHECK_EQ(seen.count, 4);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(m.lost, 3);
	CHECK_EQ(sub_stats(c.sub).lost, 3);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1);
	CHECK_EQ(seen.number[4], 7);
	check_none(&c);
	tear_down(&c);
}

TEST(poll_gives_handlers_copies_where_messages_may_be_overwritten)
{
	struct scene c = set_up(&lossy, NULL);
	struct seen seen = { .c = &c, .overwrite_at = 2 };
	struct shmq_msg m;
	int met;

	publish(&c, 5);
	scarce_begin(1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), -ENOMEM);
	met = scarce_end();
	CHECK(met);
	CHECK_EQ(sub_stats(c.sub).received, 0);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 2);
	CHECK_EQ(seen.number[0], 0);
	CHECK_EQ(seen.number[1], 1);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(c.sub).received, 2);
	CHECK_EQ(sub_stats(c.sub).lost, m.lost);
	tear_down(&c);
}

TEST(poll_that_runs_out_of_memory_after_some_says_how_many)
{
	struct scene c = set_up(&lossy, NULL);
	struct seen seen = { .c = &c };
	int met;

	publish(&c, 1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1); /* has room for 8 bytes */
	publish(&c, 1);
	memset(write_slot(&c, 0, 48), 0, 48);
	commit(&c);
	scarce_begin(1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1);
	met = scarce_end();
	CHECK(met);
	CHECK_EQ(sub_stats(c.sub).received, 2);
	CHECK_EQ(sub_stats(c.sub).lag, 1); /* it stays */
	tear_down(&c);
}

/* ---- runs ------------------------------------------------------------------- */

/* Any number of messages, of which it knows what it is to see. */
struct run {
	const struct scene *c;
	uint64_t next, stop_at; /* counted from base */
	int gives_back;
};

static shmq_au64 *cursor(const struct scene *c)
{
	return &c->sub->lane[0].entry->pos;
}

static int see_run(void *arg, const struct shmq_msg *m)
{
	struct run *r = arg;
	unsigned client;

	CHECK_EQ(m->seq, r->c->f->base_seq + r->next);
	CHECK_EQ(number(m), r->next);
	CHECK(!m->key && !m->properties && !m->flags && !m->lost && !m->ts_ns);
	/* What was before it is given back, and it is not. */
	CHECK_EQ(load_relaxed(cursor(r->c)), m->seq);
	CHECK_OK(shmq_view_check(r->c->sub, m));
	CHECK_OK(shmq_sub_get_publisher(r->c->sub, &client));
	if (r->gives_back)
		CHECK_OK(shmq_release(r->c->sub));
	return ++r->next == r->stop_at;
}

TEST(runs_go_over_the_end_of_the_ring_and_are_counted)
{
	for (size_t k = 0; k < COUNT(bases); k++) {
		struct fake_options o = { .base_seq = bases[k], .slot_bytes = k % 2 ? 192 : 128 };
		struct scene c = set_up(&o, NULL);
		struct run r = { .c = &c };
		uint64_t sent = 0;

		for (unsigned n = 1; n < 2 * FAKE_DEPTH; n += n / 3 + 1) {
			unsigned some = n < FAKE_DEPTH ? n : FAKE_DEPTH;

			publish(&c, some);
			sent += some;
			r.gives_back = n % 2;
			CHECK_EQ(shmq_poll(c.sub, see_run, &r, some - some / 2, SHMQ_NOWAIT),
				 some - some / 2);
			CHECK_EQ(load_relaxed(cursor(&c)), o.base_seq + r.next - !r.gives_back);
			if (some > 4) {
				r.stop_at = r.next + 2;
				CHECK_EQ(shmq_poll(c.sub, see_run, &r, some, SHMQ_FOREVER), 2);
			}
			while (r.next < sent)
				CHECK_GE(shmq_poll(c.sub, see_run, &r, some, SHMQ_FOREVER), 1);
			CHECK_EQ(sub_stats(c.sub).received, sent);
			CHECK_EQ(sub_stats(c.sub).received_bytes, sent * sizeof(sent));
			CHECK_ERROR(shmq_poll(c.sub, see_run, &r, some, SHMQ_NOWAIT), SHMQ_EEMPTY);
			CHECK_EQ(load_relaxed(cursor(&c)), o.base_seq + sent);
		}
		tear_down(&c);
	}
}

static int see_any(void *arg, const struct shmq_msg *m)
{
	unsigned *n = arg;

	CHECK(m->len == 40 || m->len == sizeof(uint64_t) || m->flags & SHMQ_MSG_BATCH);
	CHECK_EQ(m->type, m->len == 40 ? 7 : 0);
	++*n;
	return 0;
}

TEST(what_could_be_lost_before_publishers_waited_says_nothing_of_what_comes_then)
{
	struct scene c = set_up(&lossy, NULL);
	struct run r = { .c = &c, .next = 1 };
	struct shmq_msg m;

	publish(&c, 1);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	sub_set_gating(c.sub, 1); /* as where it leaves a log for the ring */
	while (r.next < 2 * FAKE_DEPTH) {
		publish(&c, FAKE_DEPTH / 2);
		CHECK_GT(shmq_poll(c.sub, see_run, &r, FAKE_DEPTH, SHMQ_NOWAIT), 0);
	}
	CHECK_EQ(sub_stats(c.sub).received, r.next);
	CHECK_EQ(sub_stats(c.sub).lost, 0);
	tear_down(&c);
}

TEST(what_interrupts_a_run_is_handed_out_in_its_turn)
{
	struct scene c = set_up(NULL, NULL);
	unsigned n = 0;

	for (unsigned i = 0; i < 10; i++) {
		publish(&c, 5);
		write_slot(&c, 0, 40);
		slot_of(&c, c.w.next)->type = 7;
		commit(&c);
		set_state(&c, c.w.next++, LAY_VOID);
		publish_member(&c, c.w.next, 0, 2);
		publish_member(&c, c.w.next - 1, 1, 2);
	}
	CHECK_EQ(shmq_poll(c.sub, see_any, &n, 1000, SHMQ_NOWAIT), 80);
	CHECK_EQ(n, 80);
	write_slot(&c, 0, 49); /* more than there is room for */
	commit(&c);
	publish(&c, 1);
	CHECK_ERROR(shmq_poll(c.sub, see_any, &n, 1000, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	CHECK_EQ(shmq_poll(c.sub, see_any, &n, 1000, SHMQ_NOWAIT), 1);
	tear_down(&c);
}

TEST(a_publisher_that_waits_is_woken_by_each_message_that_is_given_back)
{
	struct scene c = set_up(NULL, NULL);
	struct lay_bell *bell = &c.f->topic->ring[0].bells->credit;
	struct run r = { .c = &c, .stop_at = 2 };

	publish(&c, 3);
	add_release(&bell->armed, 1);
	CHECK_EQ(shmq_poll(c.sub, see_run, &r, 9, SHMQ_NOWAIT), 2);
	CHECK_EQ(load_relaxed(&bell->served), load_relaxed(&bell->armed));
	CHECK_EQ(load_relaxed(&bell->word), 1);
	tear_down(&c);
}

static int is_of_type(void *arg, const struct shmq_msg *m)
{
	unsigned *n = arg;

	CHECK_EQ(m->len, 8 + *n % 3);
	CHECK_EQ(m->type, (uint16_t)(*n / 4 * 1000));
	CHECK_EQ(m->flags, 0);
	++*n;
	return 0;
}

TEST(messages_of_a_run_may_be_of_any_types_and_lengths_and_owners)
{
	struct scene c = set_up(NULL, NULL);
	unsigned n, count = 0;

	for (n = 0; n < FAKE_DEPTH; n++) {
		write_slot(&c, 0, 8 + n % 3);
		slot_of(&c, c.w.next)->type = (uint16_t)(n / 4 * 1000);
		c.w.owner += n % 5 ? 0 : 1;
		commit(&c);
	}
	CHECK_EQ(shmq_poll(c.sub, is_of_type, &count, FAKE_DEPTH, SHMQ_NOWAIT), FAKE_DEPTH);
	CHECK_EQ(count, FAKE_DEPTH);
	tear_down(&c);
}

struct waiting {
	struct lay_bell *bell;
	unsigned n;
};

/* Somebody comes to wait while the second is handed out, and the fifth. */
static int waits_meanwhile(void *arg, const struct shmq_msg *m)
{
	struct waiting *w = arg;

	CHECK_EQ(load_relaxed(&w->bell->served), load_relaxed(&w->bell->armed));
	CHECK_EQ(load_relaxed(&w->bell->word), w->n > 4 ? 2 : w->n > 1);
	if (w->n == 1 || w->n == 4)
		add_release(&w->bell->armed, 1);
	w->n++;
	return 0;
}

TEST(a_publisher_that_comes_to_wait_in_a_run_is_woken_by_the_next_message)
{
	struct scene c = set_up(NULL, NULL);
	struct waiting w = { .bell = &c.f->topic->ring[0].bells->credit };

	publish(&c, 8);
	CHECK_EQ(shmq_poll(c.sub, waits_meanwhile, &w, 8, SHMQ_NOWAIT), 8);
	tear_down(&c);
}

/* ---- letting them gather ---------------------------------------------------- */

#define MANY UINT64_C(1000000000)

/* Some come and are read, after so many since it was near last, each of which took
 * at least so many 16ths of a nanosecond.  1 if it let them gather. */
static int read_near(struct scene *c, uint64_t messages, uint64_t took, int64_t timeout_ns)
{
	struct pace *p = &c->sub->pace;
	uint64_t near_ns, next = c->w.next - c->f->base_seq;
	struct run r = { .c = c, .next = next };

	publish(c, 3);
	near_ns = shmq__clock_monotonic_ns() - messages / 16 * took;
	p->look_at = c->w.next - 3;
	p->near_seq = p->look_at - messages;
	p->near_ns = near_ns;
	CHECK_EQ(shmq_poll(c->sub, see_run, &r, 3, timeout_ns), 3);
	CHECK_GT(seq_diff(p->look_at, c->w.next - 3), 0);
	return p->near_ns != near_ns && p->gathers;
}

TEST(messages_gather_as_long_as_that_makes_them_faster)
{
	struct scene c = set_up(NULL, NULL);
	struct pace *p = &c.sub->pace;

	CHECK(!read_near(&c, MANY, 4000, SHMQ_FOREVER)); /* slow anyway */
	CHECK(read_near(&c, MANY, 100, SHMQ_FOREVER));
	CHECK_GE(p->heels, 100);
	p->heels = 1000;
	CHECK(read_near(&c, MANY, 200, SHMQ_FOREVER));
	CHECK(read_near(&c, MANY, 200, SHMQ_FOREVER));
	CHECK(!read_near(&c, MANY, 950, SHMQ_FOREVER)); /* no longer worth while */
	CHECK_GT(seq_diff(p->again_ns, p->near_ns), 0);
	p->again_ns = p->near_ns + MANY * 1000;
	CHECK(!read_near(&c, MANY, 100, SHMQ_FOREVER));
	p->again_ns = p->near_ns;
	CHECK(read_near(&c, MANY, 100, SHMQ_FOREVER));
	CHECK(!read_near(&c, MANY, 4000, SHMQ_FOREVER));
	tear_down(&c);
}

TEST(what_does_not_pay_is_tried_ever_more_seldom)
{
	struct scene c = set_up(NULL, NULL);
	struct pace *p = &c.sub->pace;
	uint64_t before = 0;

	for (int i = 0; i < 20; i++) {
		CHECK(read_near(&c, MANY, 100, SHMQ_FOREVER));
		p->heels = 100;
		CHECK(!read_near(&c, MANY, 200, SHMQ_FOREVER));
		CHECK_EQ(p->again_ns, p->near_ns + p->rest_ns);
		CHECK_GE(p->rest_ns, before);
		before = p->rest_ns;
		p->again_ns = p->near_ns;
	}
	CHECK_EQ(before, 1000000000);
	tear_down(&c);
}

TEST(nothing_gathers_where_nobody_may_wait_or_that_is_not_known_to_be_fast)
{
	struct shmq_sub_options *sleeps = SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP);
	struct scene c = set_up(NULL, NULL);

	CHECK(!read_near(&c, MANY, 100, SHMQ_NOWAIT));
	CHECK(!read_near(&c, MANY, 100, 1000));
	CHECK(!read_near(&c, 255, 0, SHMQ_FOREVER));
	CHECK(read_near(&c, MANY, 100, 1000000));
	tear_down(&c);
	c = set_up(NULL, sleeps);
	CHECK(!read_near(&c, MANY, 100, SHMQ_FOREVER));
	tear_down(&c);
}
