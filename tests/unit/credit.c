/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "tap.h"

#include "proc.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define EIGHTH (FAKE_DEPTH / 8)

static const uint64_t bases[] = FAKE_BASES;

/* A topic with one publisher and its credit. */
struct scene {
	struct fake *f;
	unsigned client;
	struct lay_member *pub;
	struct lay_entry *own;
	struct shmq__credit credit;
	uint64_t base;
};

static struct scene set_up(uint64_t base)
{
	struct scene s = { .base = base };

	s.f = fake_new(&(struct fake_options){ .base_seq = base, .mode = SHMQ_SHARED });
	s.client = fake_client(s.f, getpid());
	s.pub = fake_publisher(s.f, s.client);
	s.own = fake_entry(s.f, s.pub, 0);
	return s;
}

/* Not in set_up(), which returns a copy: credit keeps no pointer to itself,
 * but the topic's address must be final. */
static void start(struct scene *s)
{
	shmq__credit_init(&s->credit, s->f->topic, 0, s->own);
}

static void tear_down(struct scene *s)
{
	shmq__credit_fini(&s->credit);
	fake_free(s->f);
}

/* 0 means "none yet", so others are told one more. */
static uint64_t told(uint64_t limit)
{
	return limit ? limit : 1;
}

static uint64_t refresh(struct scene *s, uint64_t next, uint64_t want)
{
	int error;
	uint64_t limit = shmq__credit_refresh(&s->credit, next, want, &error);

	CHECK_OK(error);
	CHECK_EQ(load_relaxed(&s->own->limit), told(limit));
	return limit;
}

/* A subscriber that stands at `at`. */
static struct lay_entry *subscriber(struct scene *s, uint64_t at)
{
	struct lay_member *m = fake_member(s->f, s->client, -1);
	struct lay_entry *e = fake_entry(s->f, m, 0);

	store_relaxed(&e->pos, at);
	shmq__topic_publish_member(s->f->topic, m, LAY_MEMBER_SUBSCRIBER);
	return e;
}

TEST(without_subscribers_an_eighth_of_the_ring_is_given_at_a_time)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene s = set_up(bases[i]);
		uint64_t base = s.base;

		start(&s);
		CHECK_EQ(load_relaxed(&s.own->limit), 0);
		CHECK_EQ(refresh(&s, base, 0), base + EIGHTH);
		CHECK_EQ(refresh(&s, base, 0), base + EIGHTH);
		CHECK_EQ(refresh(&s, base + 5, 0), base + EIGHTH + 5);
		CHECK_EQ(shmq__credit_gaters(&s.credit), 0);
		CHECK(!shmq__credit_holder(&s.credit));
		tear_down(&s);
	}
}

TEST(without_subscribers_a_batch_gets_what_it_wants_up_to_the_ring)
{
	struct scene s = set_up(100);

	start(&s);
	CHECK_EQ(refresh(&s, 100, 100 + 300), 400);
	CHECK_EQ(refresh(&s, 101, 100 + 301), 401);
	CHECK_EQ(refresh(&s, 102, 103), 401); /* never less than before */
	CHECK_EQ(refresh(&s, 500, 500 + FAKE_DEPTH), 500 + FAKE_DEPTH);
	CHECK_EQ(refresh(&s, 2000, 2000 + FAKE_DEPTH + 1), 2000 + EIGHTH);
	tear_down(&s);
}

TEST(the_slowest_subscriber_gates)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene s = set_up(bases[i]);
		uint64_t base = s.base;
		struct lay_entry *a = subscriber(&s, base), *b = subscriber(&s, base);

		start(&s);
		CHECK_EQ(refresh(&s, base, 0), base + FAKE_DEPTH);
		store_release(&a->pos, base + 200);
		CHECK_EQ(refresh(&s, base + 500, 0), base + FAKE_DEPTH);
		store_release(&b->pos, base + 50);
		CHECK_EQ(refresh(&s, base + 500, 0), base + FAKE_DEPTH + 50);
		CHECK(shmq__credit_holder(&s.credit)->entry == b);
		store_release(&b->pos, base + 300);
		CHECK_EQ(refresh(&s, base + 500, 0), base + FAKE_DEPTH + 200);
		CHECK(shmq__credit_holder(&s.credit)->entry == a);
		CHECK_EQ(shmq__credit_gaters(&s.credit), 2);
		tear_down(&s);
	}
}

TEST(a_limit_that_comes_to_zero_is_not_taken_for_none)
{
	struct scene s = set_up(UINT64_C(0) - FAKE_DEPTH);

	start(&s);
	CHECK_EQ(refresh(&s, UINT64_C(0) - EIGHTH, 0), 0);
	subscriber(&s, UINT64_C(0) - FAKE_DEPTH);
	CHECK_EQ(refresh(&s, UINT64_C(0) - EIGHTH, 0), 0);
	CHECK_EQ(refresh(&s, 0, 0), 0);
	shmq__credit_holder(&s.credit)->absent = 1;
	CHECK_EQ(refresh(&s, 0, 0), EIGHTH);
	tear_down(&s);
}

/* Another process of the uid may write the page. */
TEST(what_others_write_into_the_page_gives_a_publisher_no_credit)
{
	struct scene s = set_up(0);
	struct lay_entry *e = subscriber(&s, 0);

	start(&s);
	CHECK_EQ(refresh(&s, 0, 0), FAKE_DEPTH);
	store_release(&s.own->limit, 3 * FAKE_DEPTH);
	store_release(&e->pos, 1);
	CHECK_EQ(refresh(&s, 1, 0), FAKE_DEPTH + 1);
	tear_down(&s);
}

TEST(a_limit_never_goes_back)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene s = set_up(bases[i]);
		uint64_t base = s.base, limit;
		struct lay_entry *e = subscriber(&s, base + 100);

		start(&s);
		limit = refresh(&s, base + 500, 0);
		CHECK_EQ(limit, base + FAKE_DEPTH + 100);
		store_release(&e->pos, base);
		CHECK_EQ(refresh(&s, base + 500, 0), limit);
		subscriber(&s, base); /* joins at its lowest */
		CHECK_EQ(refresh(&s, base + 500, 0), limit);
		CHECK_EQ(shmq__credit_gaters(&s.credit), 2);
		tear_down(&s);
	}
}

TEST(a_cursor_in_the_future_counts_as_one_that_has_read_everything)
{
	static const uint64_t ahead[] = { 1, 5000, UINT64_C(1) << 40, UINT64_C(1) << 62 };

	for (size_t i = 0; i < COUNT(ahead); i++) {
		struct scene s = set_up(1000);
		struct lay_entry *mad = subscriber(&s, 1500 + ahead[i]);

		start(&s);
		CHECK_EQ(refresh(&s, 1500, 0), 1500 + FAKE_DEPTH);
		(void)mad;
		tear_down(&s);
	}
}

TEST(a_cursor_in_the_past_only_looks_slow)
{
	static const uint64_t behind[] = { 5000, UINT64_C(1) << 40, UINT64_C(1) << 62,
					   (UINT64_C(1) << 63) - 10000 };

	for (size_t i = 0; i < COUNT(behind); i++) {
		struct scene s = set_up(1000);
		struct lay_entry *mad = subscriber(&s, 1000);
		uint64_t limit;

		start(&s);
		limit = refresh(&s, 1500, 0);
		CHECK_EQ(limit, 1000 + FAKE_DEPTH);
		store_release(&mad->pos, 1000 - behind[i]);
		CHECK_EQ(refresh(&s, 1500, 0), limit);
		CHECK(shmq__credit_holder(&s.credit)->entry == mad);
		/* With it out of the way everything goes on. */
		shmq__credit_holder(&s.credit)->absent = 1;
		CHECK_EQ(shmq__credit_gaters(&s.credit), 0);
		CHECK_EQ(refresh(&s, 2000, 0), 2000 + EIGHTH);
		tear_down(&s);
	}
}

TEST(an_entry_of_another_generation_does_not_gate)
{
	struct scene s = set_up(0);
	struct lay_entry *stale = subscriber(&s, 0), *live = subscriber(&s, 0);

	start(&s);
	CHECK_EQ(refresh(&s, 500, 0), FAKE_DEPTH);
	store_release(&live->pos, 400);
	CHECK_EQ(refresh(&s, 500, 0), FAKE_DEPTH);
	add_relaxed(&stale->gen, 1); /* listed, but the entry is another's now */
	CHECK_EQ(refresh(&s, 500, 0), FAKE_DEPTH + 400);
	CHECK(shmq__credit_holder(&s.credit)->entry == live);
	tear_down(&s);
}

TEST(a_member_whose_client_died_and_left_does_not_gate)
{
	struct scene s = set_up(0);
	unsigned dead = fake_client(s.f, getpid());
	struct lay_member *m = fake_subscriber(s.f, dead, SHMQ_FROM_LATEST, 0);

	start(&s);
	CHECK_EQ(refresh(&s, 900, 0), FAKE_DEPTH);
	add_relaxed(&fake_client_record(s.f, dead)->gen, 1);
	shmq__topic_remove_member(s.f->topic, m);
	CHECK_EQ(refresh(&s, 950, 0), 950 + EIGHTH);
	CHECK_EQ(shmq__credit_gaters(&s.credit), 0);
	tear_down(&s);
}

TEST(an_evicted_subscriber_and_other_publishers_do_not_gate)
{
	struct scene s = set_up(0);
	struct lay_member *m = fake_subscriber(s.f, s.client, SHMQ_FROM_LATEST, 0);

	fake_publisher(s.f, s.client);
	start(&s);
	CHECK_EQ(refresh(&s, 900, 0), FAKE_DEPTH);
	CHECK_EQ(shmq__credit_gaters(&s.credit), 1);
	shmq__topic_publish_member(s.f->topic, m, LAY_MEMBER_EVICTED);
	CHECK_EQ(refresh(&s, 950, 0), 950 + EIGHTH);
	CHECK_EQ(shmq__credit_gaters(&s.credit), 0);
	tear_down(&s);
}

TEST(what_a_publisher_knows_to_be_absent_survives_a_change_of_the_roster)
{
	struct scene s = set_up(0);
	struct lay_entry *slow = subscriber(&s, 0), *other;

	start(&s);
	CHECK_EQ(refresh(&s, 900, 0), FAKE_DEPTH);
	shmq__credit_holder(&s.credit)->absent = 1;
	other = subscriber(&s, 800);
	CHECK_EQ(refresh(&s, 900, 0), FAKE_DEPTH + 800);
	CHECK(shmq__credit_holder(&s.credit)->entry == other);
	(void)slow;
	tear_down(&s);
}

TEST(a_subscriber_bound_to_another_partition_does_not_gate)
{
	struct fake *f = fake_new(&(struct fake_options){ .partitions = 2 });
	unsigned client = fake_client(f, getpid());
	struct lay_member *pub = fake_publisher(f, client), *bound = fake_member(f, client, 1);
	struct shmq__credit c[2];
	int error;

	shmq__topic_publish_member(f->topic, bound, LAY_MEMBER_SUBSCRIBER);
	for (uint32_t p = 0; p < 2; p++) {
		shmq__credit_init(&c[p], f->topic, p, fake_entry(f, pub, p));
		CHECK_EQ(shmq__credit_gaters(&c[p]), p);
	}
	CHECK_EQ(shmq__credit_refresh(&c[0], 990, 0, &error), 990 + EIGHTH);
	CHECK_EQ(shmq__credit_refresh(&c[1], 990, 0, &error), FAKE_DEPTH);
	shmq__credit_fini(&c[0]);
	shmq__credit_fini(&c[1]);
	fake_free(f);
}

/* ---- the dead ------------------------------------------------------------- */

static int wait_for_end(void *arg)
{
	(void)arg;
	pause();
	return 0;
}

static int is_zombie(void *arg)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, (id_t) * (pid_t *)arg, &info, WEXITED | WNOWAIT | WNOHANG) &&
	       info.si_pid;
}

TEST(a_dead_subscriber_is_found_by_proof_and_no_other)
{
	struct scene s = set_up(0);
	pid_t doomed = test_spawn(wait_for_end, NULL), alive = test_spawn(wait_for_end, NULL);
	unsigned dead = fake_client(s.f, doomed), living = fake_client(s.f, alive);
	struct lay_member *m = fake_subscriber(s.f, dead, SHMQ_FROM_LATEST, 0);
	struct lay_member *other = fake_subscriber(s.f, living, SHMQ_FROM_LATEST, 0);

	start(&s);
	CHECK_EQ(refresh(&s, 1000, 0), FAKE_DEPTH);
	store_release(&fake_entry(s.f, other, 0)->pos, 700);
	CHECK_EQ(shmq__credit_drop_dead(&s.credit), 0);
	CHECK_EQ(refresh(&s, 1000, 0), FAKE_DEPTH);
	kill(doomed, SIGKILL);
	CHECK(test_wait_until(is_zombie, &doomed, 10000));
	CHECK_EQ(shmq__credit_drop_dead(&s.credit), 1); /* as a zombie already */
	CHECK_EQ(shmq__credit_drop_dead(&s.credit), 0);
	CHECK_EQ(shmq__credit_gaters(&s.credit), 1);
	CHECK_EQ(refresh(&s, 1000, 0), FAKE_DEPTH + 700);
	test_join(doomed);
	/* Another handle of the same dead process, listed after its end. */
	m = fake_member(s.f, dead, -1);
	shmq__topic_publish_member(s.f->topic, m, LAY_MEMBER_SUBSCRIBER);
	CHECK_EQ(shmq__credit_gaters(&s.credit), 2);
	CHECK_EQ(shmq__credit_drop_dead(&s.credit), 1);
	CHECK_EQ(shmq__credit_gaters(&s.credit), 1);
	test_kill_wait(alive, SIGKILL);
	tear_down(&s);
}

TEST(a_subscriber_whose_client_id_was_given_on_counts_as_dead)
{
	struct scene s = set_up(0);
	unsigned reused = fake_client(s.f, getpid());

	fake_subscriber(s.f, reused, SHMQ_FROM_LATEST, 0);
	start(&s);
	CHECK_EQ(refresh(&s, 900, 0), FAKE_DEPTH);
	add_relaxed(&fake_client_record(s.f, reused)->gen, 1);
	CHECK_EQ(shmq__credit_drop_dead(&s.credit), 1);
	CHECK_EQ(refresh(&s, 950, 0), 950 + EIGHTH);
	tear_down(&s);
}

/* ---- joining a running topic ------------------------------------------------ */

/* Publishers run on cached limits while subscribers come, read and go.  What a
 * joiner was given as its start must never be overwritten before it has
 * read it: it sees every message from there, in order, unharmed. */
enum { JOINS = 6000, MAX_PUBLISHERS = 2 };

struct traffic {
	struct fake *f;
	_Atomic int done;
	shmq_au64 published;
};

struct publisher {
	struct traffic *t;
	struct lay_member *m;
	struct shmq__credit credit;
	struct ring_writer w;
};

/* More credit, if there is; a limit never goes back. */
static void raise_limit(struct publisher *me)
{
	int is_limited = me->credit.is_limited, error;
	uint64_t old = me->credit.limit, limit;

	limit = shmq__credit_refresh(&me->credit, me->w.next, me->w.next + 1, &error);
	CHECK_OK(error);
	if (is_limited)
		CHECK_GE(seq_diff(limit, old), 0);
	me->w.limit = limit;
	if (seq_diff(limit, me->w.next) <= 0)
		sched_yield();
}

static void *publish_all_the_time(void *arg)
{
	struct publisher *me = arg;
	struct traffic *t = me->t;
	struct ring_writer *w = &me->w;

	*w = fake_writer(t->f, me->m, 0);
	shmq__credit_init(&me->credit, t->f->topic, 0, fake_entry(t->f, me->m, 0));
	while (!load_relaxed(&t->done)) {
		uint64_t seq = w->next, word;

		if (w->geo.mode == SHMQ_SHARED) {
			enum ring_claim rc = shmq__ring_claim(w, &seq, &word);

			if (rc == RING_CLAIM_HELD)
				sched_yield();
			if (rc == RING_CLAIM_NO_CREDIT)
				raise_limit(me);
			CHECK_NE(rc, RING_CLAIM_CORRUPT);
			if (rc != RING_CLAIM_OK)
				continue;
		} else if (seq_diff(w->limit, w->next) <= 0) {
			raise_limit(me);
			continue;
		}
		fake_put(w, seq, ~seq);
		if (w->geo.mode == SHMQ_EXCLUSIVE)
			w->next = seq + 1;
		if (seq % RING_HINT_EVERY == 0)
			store_relaxed(&w->mem->tail_hint, seq + 1);
		add_relaxed(&t->published, 1);
	}
	shmq__credit_fini(&me->credit);
	return NULL;
}

/* Read `count` messages from where the join put the cursor. */
static void read_some(struct traffic *t, struct lay_entry *e, uint64_t count)
{
	struct ring_reader r = fake_reader(t->f, 0, load_acquire(&e->pos));

	while (count) {
		uint64_t word;
		enum ring_look seen = ring_look(&r, &word);

		if (seen == RING_NOTHING || seen == RING_CLAIMED) {
			sched_yield();
			continue;
		}
		CHECK_EQ(seen, RING_MESSAGE);
		CHECK_EQ(fake_get(&r), ~r.next);
		CHECK_EQ(load_acquire(fake_ctrl(t->f->topic->ring[0].mem, &r.geo, r.next)), word);
		r.next++;
		count--;
		store_release(&e->pos, r.next); /* R3 */
	}
}

static void join_traffic(enum shmq_mode mode, uint64_t base, unsigned publishers)
{
	struct traffic t = { .f = fake_new(
				     &(struct fake_options){ .base_seq = base, .mode = mode }) };
	struct lay_member *m = fake_member(t.f, fake_client(t.f, getpid()), -1);
	struct lay_entry *e = fake_entry(t.f, m, 0);
	struct publisher p[MAX_PUBLISHERS];
	pthread_t thread[MAX_PUBLISHERS];
	uint64_t state = base + publishers;

	for (unsigned i = 0; i < publishers; i++) {
		p[i] = (struct publisher){ .t = &t,
					   .m = fake_publisher(t.f, fake_client(t.f, getpid())) };
		thread[i] = fake_thread(publish_all_the_time, &p[i]);
	}
	while (!load_relaxed(&t.published))
		sched_yield();
	for (int i = 0; i < JOINS / test_slowdown(); i++) {
		uint64_t dice = fake_random(&state);

		/* They run free a while; then join at any point of a limit, at
		 * which a publisher may be held up. */
		fake_dawdle(dice % 200);
		if (dice & 8192)
			fake_hold_up(thread[dice % publishers], (unsigned)(dice >> 40) % 800);
		store_release(&e->pos, base);
		shmq__topic_publish_member(t.f->topic, m, LAY_MEMBER_SUBSCRIBER);
		shmq__topic_join(t.f->topic, m, dice & 1024 ? SHMQ_FROM_OLDEST : SHMQ_FROM_LATEST,
				 0);
		if (dice & 2048) /* what must not be overwritten has time to be */
			fake_dawdle(fake_random(&state) % 300);
		read_some(&t, e, fake_random(&state) % (dice % 50 ? 40 : 3000));
		shmq__topic_remove_member(t.f->topic, m);
	}
	store_relaxed(&t.done, 1);
	for (unsigned i = 0; i < publishers; i++)
		fake_join(thread[i]);
	fake_free(t.f);
}

TEST(a_joiner_never_loses_what_it_may_read_of_an_exclusive_publisher)
{
	join_traffic(SHMQ_EXCLUSIVE, 0, 1);
}

TEST(a_joiner_never_loses_what_it_may_read_of_shared_publishers)
{
	join_traffic(SHMQ_SHARED, UINT64_C(0) - 20000, 2);
}

TEST(a_joiner_never_loses_what_it_may_read_over_the_wrap_of_the_lap)
{
	join_traffic(SHMQ_EXCLUSIVE, FAKE_LAP_WRAP - 20000, 1);
}

/* Somebody joins at any instruction of a refresh: one of the two sees the other,
 * so nothing at or after the start may be written over. */
struct join_at {
	struct scene *s;
	struct lay_member *m;
	enum shmq_from from;
};

static void join_now(void *arg)
{
	struct join_at *j = arg;

	shmq__topic_publish_member(j->s->f->topic, j->m, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(j->s->f->topic, j->m, j->from, 0);
}

static void join_at_any_instruction(uint64_t base, enum shmq_from from)
{
	int reached;

	for (unsigned k = fake_first_point(90000); k; k = fake_next_point(k)) {
		struct scene s = set_up(base);
		struct ring_writer w = fake_writer(s.f, s.pub, 0);
		struct join_at j = { .s = &s, .from = from };
		uint64_t limit = 0, before, seq, word;
		struct lay_entry *e;
		int error;

		start(&s);
		w.limit = base + (UINT64_C(1) << 40);
		while (w.next != base + 2 * FAKE_DEPTH) {
			CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
			fake_put(&w, seq, 0);
		}
		store_relaxed(&w.mem->tail_hint, w.next);
		before = refresh(&s, w.next - 100, 0);
		j.m = fake_member(s.f, s.client, -1);
		e = fake_entry(s.f, j.m, 0);
		fake_step_begin(k, join_now, &j);
		limit = shmq__credit_refresh(&s.credit, w.next, 0, &error);
		reached = fake_step_end();
		CHECK_OK(error);
		CHECK_GE(seq_diff(limit, before), 0);
		CHECK_EQ(told(limit), load_relaxed(&s.own->limit));
		if (reached)
			CHECK_LE(seq_diff(limit, load_relaxed(&e->pos) + FAKE_DEPTH), 0);
		tear_down(&s);
	}
}

TEST(whoever_joins_at_any_instruction_of_a_refresh_is_not_written_over)
{
	join_at_any_instruction(0, SHMQ_FROM_OLDEST);
	join_at_any_instruction(UINT64_C(0) - 2 * FAKE_DEPTH - EIGHTH, SHMQ_FROM_OLDEST);
}

/* And a publisher that raises its limit at any instruction of a join. */
struct raise_at {
	struct scene *s;
	uint64_t next, limit;
};

static void raise_now(void *arg)
{
	struct raise_at *r = arg;
	int error;

	r->limit = shmq__credit_refresh(&r->s->credit, r->next, 0, &error);
}

TEST(a_limit_raised_at_any_instruction_of_a_join_spares_the_joiner)
{
	for (unsigned k = fake_first_point(20000); k; k = fake_next_point(k)) {
		struct scene s = set_up(0);
		struct ring_writer w = fake_writer(s.f, s.pub, 0);
		struct raise_at r = { .s = &s };
		struct lay_member *m;
		uint64_t seq, word;

		start(&s);
		w.limit = UINT64_C(1) << 40;
		while (w.next != 2 * FAKE_DEPTH) {
			CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
			fake_put(&w, seq, 0);
		}
		store_relaxed(&w.mem->tail_hint, w.next);
		r.limit = refresh(&s, w.next - 100, 0);
		r.next = w.next;
		m = fake_member(s.f, s.client, -1);
		shmq__topic_publish_member(s.f->topic, m, LAY_MEMBER_SUBSCRIBER);
		fake_step_begin(k, raise_now, &r);
		shmq__topic_join(s.f->topic, m, SHMQ_FROM_OLDEST, 0);
		fake_step_end();
		CHECK_LE(seq_diff(r.limit, load_relaxed(&fake_entry(s.f, m, 0)->pos) + FAKE_DEPTH),
			 0);
		tear_down(&s);
	}
}

/* One such point by hand: a publisher has listed the roster, then somebody
 * joins. */
TEST(a_publisher_that_scanned_before_a_join_sees_the_joiner_the_second_time)
{
	struct scene s = set_up(0);
	struct lay_entry *e;
	int error;

	start(&s);
	/* It knows nobody, and has listed the roster. */
	CHECK_EQ(refresh(&s, 0, 0), EIGHTH);
	e = subscriber(&s, 0); /* listed at its lowest; has not read limits yet */
	CHECK_EQ(shmq__credit_refresh(&s.credit, EIGHTH, 2 * FAKE_DEPTH, &error), FAKE_DEPTH);
	store_release(&e->pos, 10);
	CHECK_EQ(refresh(&s, 200, 0), FAKE_DEPTH + 10);
	tear_down(&s);
}
