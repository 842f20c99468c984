/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "tap.h"

#include "recover.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <unistd.h>
#include <urcu/urcu-bp.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ENDLESS (UINT64_C(1) << 62)

static const uint64_t bases[] = FAKE_BASES;

struct scene {
	struct fake *f;
	struct shmq__ring *ring;
	struct lay_member *dead, *live;
	struct ring_writer d, l;
};

static struct scene set_up(const struct fake_options *o)
{
	struct scene s = { .f = fake_new(o) };

	s.ring = &s.f->topic->ring[0];
	s.dead = fake_publisher(s.f, fake_client(s.f, getpid()));
	s.live = fake_publisher(s.f, fake_client(s.f, getpid()));
	s.d = fake_writer(s.f, s.dead, 0);
	s.l = fake_writer(s.f, s.live, 0);
	s.d.limit = s.l.limit = s.d.next + ENDLESS;
	return s;
}

static struct scene shared_at(uint64_t base)
{
	return set_up(&(struct fake_options){ .base_seq = base, .mode = SHMQ_SHARED });
}

static struct scene exclusive_at(uint64_t base, enum shmq_policy policy)
{
	return set_up(&(struct fake_options){ .base_seq = base, .policy = policy });
}

static void tear_down(struct scene *s)
{
	fake_free(s->f);
}

static uint64_t claim(struct ring_writer *w)
{
	uint64_t seq = 0, word;

	CHECK_EQ(shmq__ring_claim(w, &seq, &word), RING_CLAIM_OK);
	return seq;
}

static void publish(struct ring_writer *w, unsigned count)
{
	while (count--)
		fake_put(w, claim(w), 0);
}

static uint64_t word_at(struct scene *s, uint64_t seq)
{
	return load_relaxed(fake_ctrl(s->ring->mem, &s->ring->geo, seq));
}

static enum ring_look look(struct scene *s, uint64_t seq)
{
	struct ring_reader r = fake_reader(s->f, 0, seq);
	uint64_t word;

	return ring_look(&r, &word);
}

static uint64_t voids(struct scene *s, uint64_t from, uint64_t to)
{
	uint32_t is_bound = 0;
	uint64_t n = shmq__ring_voids_between(s->ring->mem, from, to, &is_bound);

	CHECK_EQ(is_bound, 0);
	return n;
}

/* ---- shared ------------------------------------------------------------- */

TEST(the_claim_of_a_dead_publisher_is_voided)
{
	for (size_t i = 0; i < COUNT(bases) - 1; i++) {
		struct scene s = shared_at(bases[i]);
		uint64_t at;

		publish(&s.d, 3);
		at = claim(&s.d);
		publish(&s.l, 5);
		CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
		CHECK_EQ(look(&s, at), RING_VOID);
		CHECK_EQ(LAY_CTRL_OWNER(word_at(&s, at)), s.dead->client);
		CHECK_EQ(voids(&s, bases[i], bases[i] + 9), 1);
		for (uint64_t n = bases[i]; n != bases[i] + 9; n++)
			if (n != at)
				CHECK_EQ(look(&s, n), RING_MESSAGE);
		tear_down(&s);
	}
}

TEST(a_claim_that_holds_others_a_lap_on_is_voided)
{
	for (size_t i = 0; i < COUNT(bases) - 1; i++) {
		struct scene s = shared_at(bases[i]);
		uint64_t at = claim(&s.d), seq, word;

		publish(&s.l, FAKE_DEPTH - 1);
		CHECK_EQ(shmq__ring_claim(&s.l, &seq, &word), RING_CLAIM_HELD);
		CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
		CHECK_EQ(look(&s, at), RING_VOID);
		CHECK_EQ(claim(&s.l), at + FAKE_DEPTH);
		tear_down(&s);
	}
}

TEST(claims_of_the_living_are_left_alone)
{
	struct scene s = shared_at(100);
	uint64_t a = claim(&s.l), b = claim(&s.d), c = claim(&s.l);

	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
	CHECK_EQ(look(&s, a), RING_CLAIMED);
	CHECK_EQ(look(&s, b), RING_VOID);
	CHECK_EQ(look(&s, c), RING_CLAIMED);
	fake_put(&s.l, a, 1);
	fake_put(&s.l, c, 1);
	tear_down(&s);
}

TEST(recovery_that_runs_twice_changes_nothing_more)
{
	struct scene s = shared_at(100);
	uint64_t a = claim(&s.d), b = claim(&s.d), words[2];

	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 2);
	words[0] = word_at(&s, a);
	words[1] = word_at(&s, b);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(word_at(&s, a), words[0]);
	CHECK_EQ(word_at(&s, b), words[1]);
	CHECK_EQ(load_relaxed(&s.ring->mem->void_count), 2);
	tear_down(&s);
}

/* The first recoverer died between the list entry and the slot. */
TEST(recovery_completes_what_a_dead_recoverer_began)
{
	struct scene s = shared_at(100);
	uint64_t a = claim(&s.d);

	store_relaxed(&s.ring->mem->voids[0], a + 1);
	store_relaxed(&s.ring->mem->void_count, 1);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
	CHECK_EQ(look(&s, a), RING_VOID);
	CHECK_EQ(voids(&s, 100, 200), 1);
	tear_down(&s);
}

TEST(nothing_is_voided_once_the_generation_moved_on)
{
	struct scene s = shared_at(100);
	uint64_t a = claim(&s.d), gen = s.dead->client_gen, word = word_at(&s, a);

	add_relaxed(&fake_client_record(s.f, s.dead->client)->gen, 1);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, word, gen), 0);
	CHECK_EQ(word_at(&s, a), word);
	CHECK_EQ(load_relaxed(&s.ring->mem->void_count), 0);
	tear_down(&s);
}

TEST(one_slot_is_voided_only_while_it_says_exactly_what_was_seen)
{
	struct scene s = shared_at(100);
	uint64_t a = claim(&s.d), word = word_at(&s, a), gen = s.dead->client_gen;

	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, word, gen + 1), 0);
	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, LAY_CTRL(0, s.dead->client, LAY_COMMITTED),
				    gen),
		 0);
	CHECK_EQ(word_at(&s, a), word);
	fake_put(&s.d, a, 0); /* it was alive after all */
	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, word, gen), 0);
	CHECK_EQ(look(&s, a), RING_MESSAGE);
	a = claim(&s.d);
	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, word_at(&s, a), gen), 1);
	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, word_at(&s, a), gen), 0);
	tear_down(&s);
}

TEST(a_void_rings_both_bells)
{
	struct scene s = shared_at(0);
	uint64_t a = claim(&s.d);
	struct lay_bells *bells = s.ring->bells;

	shmq__bell_arm(&bells->data, SHMQ__FENCE_FULL);
	shmq__bell_arm(&bells->credit, SHMQ__FENCE_FULL);
	CHECK_EQ(shmq__recover_slot(s.f->topic, 0, a, word_at(&s, a), s.dead->client_gen), 1);
	CHECK_EQ(load_relaxed(&bells->data.word), 1);
	CHECK_EQ(load_relaxed(&bells->credit.word), 1);
	tear_down(&s);
}

/* A waker may have died between its commit and its bell. */
TEST(recovery_rings_every_bell_although_there_is_nothing_to_void)
{
	struct scene s = set_up(
		&(struct fake_options){ .mode = SHMQ_SHARED, .partitions = 3, .base_seq = 7 });

	for (uint32_t p = 0; p < 3; p++) {
		shmq__bell_arm(&s.f->topic->ring[p].bells->data, SHMQ__FENCE_FULL);
		shmq__bell_arm(&s.f->topic->ring[p].bells->credit, SHMQ__FENCE_FULL);
	}
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	for (uint32_t p = 0; p < 3; p++) {
		CHECK_EQ(load_relaxed(&s.f->topic->ring[p].bells->data.word), 1);
		CHECK_EQ(load_relaxed(&s.f->topic->ring[p].bells->credit.word), 1);
	}
	tear_down(&s);
}

TEST(claims_in_every_partition_are_voided)
{
	struct scene s = set_up(
		&(struct fake_options){ .mode = SHMQ_SHARED, .partitions = 3, .base_seq = 7 });

	for (uint32_t p = 0; p < 3; p++) {
		struct ring_writer w = fake_writer(s.f, s.dead, p);

		w.limit = w.next + ENDLESS;
		publish(&w, 10 * p);
		claim(&w);
	}
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 3);
	tear_down(&s);
}

/* The page belonged to the dead: a bound that cannot be is not believed. */
TEST(a_lower_bound_outside_the_ring_hides_no_claim)
{
	static const uint64_t mad[] = { 0, 1, UINT64_MAX, UINT64_C(1) << 63, 5000, 3000, 100000 };

	for (size_t i = 0; i < COUNT(mad); i++) {
		struct scene s = shared_at(1000);
		uint64_t at;

		publish(&s.l, 2000);
		at = claim(&s.d);
		publish(&s.l, 50);
		CHECK_LT(at, 3001);
		store_relaxed(&fake_entry(s.f, s.dead, 0)->pos, mad[i]);
		CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
		CHECK_EQ(look(&s, at), RING_VOID);
		tear_down(&s);
	}
}

TEST(an_entry_of_another_generation_hides_no_claim)
{
	struct scene s = shared_at(1000);
	uint64_t at;

	publish(&s.l, 3000);
	at = claim(&s.d);
	add_relaxed(&fake_entry(s.f, s.dead, 0)->gen, 1);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
	CHECK_EQ(look(&s, at), RING_VOID);
	tear_down(&s);
}

/* What is to be voided before all else is seen by a few looks. */
TEST(a_claim_is_seen_behind_the_lower_bound_and_nothing_else_is)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene s = shared_at(bases[i]);
		struct lay_entry *e = fake_entry(s.f, s.dead, 0);

		publish(&s.d, 5);
		claim(&s.l);
		CHECK_EQ(shmq__recover_sees_claim(s.f->topic, s.dead), 0);
		CHECK_EQ(shmq__recover_sees_claim(s.f->topic, s.live), 1);
		claim(&s.d);
		publish(&s.l, 5);
		CHECK_EQ(shmq__recover_sees_claim(s.f->topic, s.dead), 1);
		CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 1);
		CHECK_EQ(shmq__recover_sees_claim(s.f->topic, s.dead), 0);
		/* A mad bound is a look somewhere else. */
		store_relaxed(&e->pos, bases[i] + (UINT64_C(1) << 63));
		CHECK_EQ(shmq__recover_sees_claim(s.f->topic, s.dead), 0);
		tear_down(&s);
	}
}

/* ---- batches -------------------------------------------------------------- */

/* Readers that stand at the first of a batch while it is voided: they never
 * see a later member VOID before the first is, or they would pass the first
 * as CLAIMED and find part of it. */
struct watcher {
	struct scene *s;
	uint64_t first;
	unsigned count;
	_Atomic int looking, done;
};

static void *watch_batch(void *arg)
{
	struct watcher *w = arg;

	for (;;) {
		int done = load_acquire(&w->done);

		if (look(w->s, w->first) == RING_VOID) {
			for (unsigned i = 1; i < w->count; i++)
				CHECK_EQ(look(w->s, w->first + i), RING_VOID);
			return NULL;
		}
		CHECK(!done);
		store_release(&w->looking, 1);
	}
}

TEST(claims_of_a_batch_are_voided_last_to_first)
{
	enum { BATCH = FAKE_DEPTH / 4 };

	for (int round = 0; round < 50; round++) {
		struct scene s = shared_at(UINT64_C(1) << 40);
		struct watcher w = { .s = &s, .count = BATCH };
		pthread_t thread;

		publish(&s.l, 100);
		w.first = claim(&s.d);
		for (int i = 1; i < BATCH; i++)
			claim(&s.d);
		thread = fake_thread(watch_batch, &w);
		while (!load_acquire(&w.looking))
			cpu_relax();
		CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), BATCH);
		store_release(&w.done, 1);
		fake_join(thread);
		tear_down(&s);
	}
}

TEST(single_messages_committed_behind_an_open_claim_stay)
{
	struct scene s = shared_at(100);
	uint64_t first = claim(&s.d);

	for (int i = 1; i < 10; i++)
		claim(&s.d);
	for (int i = 9; i > 4; i--)
		fake_put(&s.d, first + (uint64_t)i, 0);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 5);
	for (uint64_t i = 0; i < 10; i++)
		CHECK_EQ(look(&s, first + i), i < 5 ? RING_VOID : RING_MESSAGE);
	tear_down(&s);
}

/* A batch that says so is voided whole, also what was committed of it: all or
 * none.  Batches that were finished, and members of others', are left. */
static void put_member(struct scene *s, struct ring_writer *w, uint64_t seq, uint64_t first,
		       uint32_t count)
{
	struct lay_slot *slot = lay_slot_at(s->ring->mem, &s->ring->geo, seq);
	struct lay_batch batch = { .first_seq = first,
				   .index = (uint32_t)(seq - first),
				   .count = count };

	slot->len = 0;
	slot->flags = SHMQ_MSG_BATCH;
	memcpy((char *)slot + s->ring->geo.payload_off, &batch, sizeof(batch));
	ring_commit(w, slot, seq);
}

TEST(of_an_unfinished_shared_batch_nothing_is_left)
{
	for (size_t i = 0; i < COUNT(bases) - 1; i++) {
		for (uint64_t committed = 0; committed <= 6; committed++) {
			struct scene s = shared_at(bases[i]);
			uint64_t done = claim(&s.d), first, n;

			claim(&s.d);
			put_member(&s, &s.d, done + 1, done, 2);
			put_member(&s, &s.d, done, done, 2);
			first = claim(&s.d);
			for (n = 1; n < 6; n++)
				claim(&s.d);
			publish(&s.l, 3);
			for (n = 6; n-- > 6 - committed;)
				put_member(&s, &s.d, first + n, first, 6);
			CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead),
				 committed == 6 ? 0 : 6);
			CHECK_EQ(look(&s, done), RING_MESSAGE);
			CHECK_EQ(look(&s, done + 1), RING_MESSAGE);
			for (n = 0; n < 6; n++)
				CHECK_EQ(look(&s, first + n),
					 committed == 6 ? RING_MESSAGE : RING_VOID);
			for (; n < 9; n++)
				CHECK_EQ(look(&s, first + n), RING_MESSAGE);
			CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
			tear_down(&s);
		}
	}
}

/* ---- exclusive ---------------------------------------------------------------- */

/* As a publisher does before it writes the first slot of a batch. */
static void begin_batch(struct scene *s, unsigned size)
{
	store_relaxed(&shmq__topic_entry(s->f->topic, s->dead, 0)->batch_end, s->d.next + size);
}

static void unfinished_batch(uint64_t base, enum shmq_policy policy, unsigned size,
			     unsigned committed)
{
	struct scene s = exclusive_at(base, policy);
	uint64_t first, n;

	for (n = 0; n < FAKE_DEPTH + 70; n++) {
		if (policy == SHMQ_LOSSY)
			ring_make_room(&s.d, 1, 1);
		fake_publish(&s.d, n);
	}
	if (policy == SHMQ_LOSSY)
		ring_make_room(&s.d, size, 1);
	store_relaxed(&s.ring->mem->tail_hint, s.d.next - 20);
	first = s.d.next;
	begin_batch(&s, size);
	for (n = size; n-- > size - committed;)
		fake_put(&s.d, first + n, n);
	CHECK_EQ(look(&s, first), RING_NOTHING);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), committed ? size : 0);
	for (n = 0; n < size; n++)
		CHECK_EQ(look(&s, first + n), committed ? RING_VOID : RING_NOTHING);
	CHECK_EQ(voids(&s, base, first + size), committed ? size : 0);
	CHECK_EQ(look(&s, first - 1), RING_MESSAGE);
	CHECK_EQ(shmq__topic_head(s.ring), first + (committed ? size : 0));
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(voids(&s, base, first + size), committed ? size : 0);
	/* And the successor begins behind it. */
	shmq__ring_takeover(&s.l);
	CHECK_EQ(s.l.next, first + (committed ? size : 0));
	tear_down(&s);
}

TEST(an_unfinished_exclusive_batch_is_voided)
{
	for (size_t i = 0; i < COUNT(bases) - 1; i++) {
		static const enum shmq_policy policy[] = { SHMQ_BLOCK, SHMQ_LOSSY };

		for (size_t k = 0; k < 2; k++) {
			unfinished_batch(bases[i], policy[k], 10, 0);
			unfinished_batch(bases[i], policy[k], 10, 1);
			unfinished_batch(bases[i], policy[k], 10, 9);
			unfinished_batch(bases[i], policy[k], 2, 1);
			unfinished_batch(bases[i], policy[k], FAKE_DEPTH / 4, 1);
			unfinished_batch(bases[i], policy[k], FAKE_DEPTH / 4, FAKE_DEPTH / 4 - 1);
		}
	}
}

TEST(an_unfinished_exclusive_batch_is_voided_last_to_first)
{
	enum { BATCH = FAKE_DEPTH / 4 };

	for (int round = 0; round < 50; round++) {
		struct scene s = exclusive_at(0, SHMQ_BLOCK);
		struct watcher w = { .s = &s, .count = BATCH };
		pthread_t thread;

		for (int n = 0; n < 10; n++)
			fake_publish(&s.d, 0);
		w.first = s.d.next;
		begin_batch(&s, BATCH);
		for (unsigned n = BATCH; n-- > 1;)
			fake_put(&s.d, w.first + n, 0);
		thread = fake_thread(watch_batch, &w);
		while (!load_acquire(&w.looking))
			cpu_relax();
		CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), BATCH);
		store_release(&w.done, 1);
		fake_join(thread);
		tear_down(&s);
	}
}

TEST(voiding_of_an_exclusive_batch_goes_on_where_a_dead_recoverer_stopped)
{
	struct scene s = exclusive_at(0, SHMQ_BLOCK);

	for (int n = 0; n < 10; n++)
		fake_publish(&s.d, 0);
	begin_batch(&s, 8);
	for (uint64_t n = 17; n > 12; n--) /* a batch of 8 from 10 on, half of it */
		fake_put(&s.d, n, 0);
	for (uint64_t n = 17; n > 14; n--)
		CHECK_EQ(shmq__ring_void(s.ring->mem, &s.ring->geo, n, word_at(&s, n)), 1);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 5);
	for (uint64_t n = 10; n < 18; n++)
		CHECK_EQ(look(&s, n), RING_VOID);
	CHECK_EQ(voids(&s, 0, 100), 8);
	tear_down(&s);
}

TEST(what_a_dead_exclusive_publisher_may_have_half_overwritten_is_given_up)
{
	struct scene s = exclusive_at(0, SHMQ_BLOCK);
	uint64_t next, old;

	for (unsigned n = 0; n < FAKE_DEPTH + 10; n++)
		fake_publish(&s.d, n);
	next = s.d.next;
	old = next - FAKE_DEPTH;
	CHECK_EQ(look(&s, old), RING_MESSAGE);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(look(&s, old), RING_LAPPED);
	CHECK_EQ(look(&s, old + 1), RING_MESSAGE);
	CHECK_EQ(shmq__topic_oldest(s.ring, old), old + 1);
	CHECK_EQ(look(&s, next), RING_NOTHING);
	shmq__ring_takeover(&s.l);
	CHECK_EQ(s.l.next, next);
	tear_down(&s);
}

static int wait_for_end(void *arg)
{
	(void)arg;
	pause();
	return 0;
}

/* A reader that its publisher had proved dead, and passed, does not stand in
 * the way of recovery either, although nobody has taken it out yet. */
TEST(a_dead_reader_keeps_no_half_overwritten_slot_in_the_ring)
{
	pid_t doomed = test_spawn(wait_for_end, NULL);
	struct scene s = exclusive_at(0, SHMQ_BLOCK);
	struct lay_member *alive =
		fake_subscriber(s.f, fake_client(s.f, getpid()), SHMQ_FROM_LATEST, 0);
	struct lay_member *gone =
		fake_subscriber(s.f, fake_client(s.f, doomed), SHMQ_FROM_LATEST, 0);
	uint64_t old;

	test_kill_wait(doomed, SIGKILL);
	for (unsigned n = 0; n < FAKE_DEPTH + 10; n++)
		fake_publish(&s.d, n);
	old = s.d.next - FAKE_DEPTH;
	store_relaxed(&fake_entry(s.f, alive, 0)->pos, s.d.next);
	store_relaxed(&fake_entry(s.f, gone, 0)->pos, old - 5);
	memset(lay_slot_at(s.d.mem, &s.d.geo, old) + 1, 0xee, 20); /* it died here */
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(look(&s, old), RING_LAPPED);
	CHECK_EQ(shmq__topic_oldest(s.ring, old), old + 1);
	tear_down(&s);
}

TEST(an_exclusive_batch_is_left_alone_once_the_generation_moved_on)
{
	struct scene s = exclusive_at(0, SHMQ_BLOCK);

	fake_publish(&s.d, 0);
	fake_put(&s.d, 5, 0);
	add_relaxed(&fake_client_record(s.f, s.dead->client)->gen, 1);
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(look(&s, 5), RING_MESSAGE);
	CHECK_EQ(look(&s, 1), RING_NOTHING);
	tear_down(&s);
}

TEST(slots_given_up_early_are_no_claims)
{
	struct scene s = exclusive_at(0, SHMQ_LOSSY);

	for (int n = 0; n < 10; n++) {
		ring_make_room(&s.d, 1, 1);
		fake_publish(&s.d, 0);
	}
	CHECK_EQ(shmq__recover_publisher(s.f->topic, s.dead), 0);
	CHECK_EQ(look(&s, 10), RING_NOTHING);
	shmq__ring_takeover(&s.l);
	CHECK_EQ(s.l.next, 10);
	tear_down(&s);
}

/* ---- death at any instruction -------------------------------------------------- */

static sigjmp_buf out;

static void die(void *arg)
{
	(void)arg;
	siglongjmp(out, 1);
}

/* What a publisher does for one message, or for a batch of three. */
static void publish_shared(struct ring_writer *w, unsigned count)
{
	uint64_t seq[3], word;
	unsigned i;

	for (i = 0; i < count; i++)
		if (shmq__ring_claim(w, &seq[i], &word) != RING_CLAIM_OK)
			return;
	for (i = count; i-- > 0;)
		fake_put(w, seq[i], seq[i]);
}

/* Run it, dead after k instructions. */
static void die_at(unsigned k, void (*fn)(struct scene *, unsigned), struct scene *s,
		   unsigned count)
{
	if (!sigsetjmp(out, 1)) {
		fake_step_begin(k, die, NULL);
		fn(s, count);
		fake_step_end();
	}
	/* The dead hold no read lock of this process. */
	while (urcu_bp_read_ongoing())
		urcu_bp_read_unlock();
}

static void shared_mortal(struct scene *s, unsigned count)
{
	publish_shared(&s->d, count);
}

static void exclusive_mortal(struct scene *s, unsigned count)
{
	uint64_t first = s->d.next;

	begin_batch(s, count);
	ring_make_room(&s->d, count, 1);
	for (unsigned i = count; i-- > 0;)
		fake_put(&s->d, first + i, first + i);
	s->d.next += count;
}

/* Nothing is in the way any more: readers come to the head over messages that
 * are whole and voids, and the next publisher goes on there. */
static void everything_moves(struct scene *s, uint64_t base)
{
	uint64_t head = shmq__topic_head(s->ring), n, holes = 0;

	for (n = base; n != head; n++) {
		struct ring_reader r = fake_reader(s->f, 0, n);
		enum ring_look seen = look(s, n);

		if (seen == RING_MESSAGE)
			CHECK_EQ(fake_get(&r), n);
		else
			CHECK_EQ(seen, RING_VOID);
		holes += seen == RING_VOID;
	}
	CHECK_EQ(look(s, n), RING_NOTHING);
	CHECK_EQ(voids(s, base, head), holes);
	if (s->ring->geo.mode == SHMQ_SHARED) {
		CHECK_EQ(claim(&s->l), head);
		return;
	}
	shmq__ring_takeover(&s->l);
	CHECK_EQ(s->l.next, head);
}

static void die_at_any_instruction(enum shmq_mode mode, enum shmq_policy policy, unsigned count)
{
	uint64_t base = (UINT64_C(1) << 32) - 2;

	for (unsigned k = fake_first_point(12000); k; k = fake_next_point(k)) {
		struct scene s = set_up(
			&(struct fake_options){ .base_seq = base, .mode = mode, .policy = policy });

		die_at(k, mode == SHMQ_SHARED ? shared_mortal : exclusive_mortal, &s, count);
		shmq__recover_publisher(s.f->topic, s.dead);
		everything_moves(&s, base);
		tear_down(&s);
	}
}

TEST(a_publisher_may_die_at_any_instruction)
{
	die_at_any_instruction(SHMQ_SHARED, SHMQ_BLOCK, 1);
	die_at_any_instruction(SHMQ_SHARED, SHMQ_BLOCK, 3);
	die_at_any_instruction(SHMQ_EXCLUSIVE, SHMQ_LOSSY, 1);
	die_at_any_instruction(SHMQ_EXCLUSIVE, SHMQ_LOSSY, 3);
}

static void recovering_mortal(struct scene *s, unsigned count)
{
	(void)count;
	shmq__recover_publisher(s->f->topic, s->dead);
}

static void recoverer_dies(enum shmq_mode mode, uint64_t base)
{
	for (unsigned k = fake_first_point(12000); k; k = fake_next_point(k)) {
		struct scene s = set_up(&(struct fake_options){ .base_seq = base, .mode = mode });
		uint64_t first = s.d.next, n;

		if (mode == SHMQ_SHARED)
			for (n = 0; n < 3; n++)
				claim(&s.d);
		else
			for (begin_batch(&s, 3), n = 3; n-- > 1;) /* one without its first */
				fake_put(&s.d, first + n, 0);
		die_at(k, recovering_mortal, &s, 0);
		/* However far it came, a reader that gets past the first gets past all. */
		if (look(&s, first) == RING_VOID) {
			CHECK_EQ(look(&s, first + 1), RING_VOID);
			CHECK_EQ(look(&s, first + 2), RING_VOID);
		}
		shmq__recover_publisher(s.f->topic, s.dead);
		for (n = 0; n < 3; n++)
			CHECK_EQ(look(&s, first + n), RING_VOID);
		everything_moves(&s, base);
		tear_down(&s);
	}
}

TEST(a_recoverer_may_die_at_any_instruction)
{
	recoverer_dies(SHMQ_SHARED, 100);
	recoverer_dies(SHMQ_SHARED, (UINT64_C(1) << 63) - 1);
}

TEST(a_recoverer_of_an_exclusive_batch_may_die_at_any_instruction)
{
	recoverer_dies(SHMQ_EXCLUSIVE, 100);
}

/* Two recoverers, one of which is held up at any instruction of its own. */
static void recover_too(void *arg)
{
	struct scene *s = arg;

	shmq__recover_publisher(s->f->topic, s->dead);
}

TEST(a_second_recoverer_at_any_instruction_of_the_first_is_harmless)
{
	for (unsigned k = fake_first_point(12000); k; k = fake_next_point(k)) {
		struct scene s = shared_at(100);

		claim(&s.d);
		publish(&s.l, 2);
		claim(&s.d);
		fake_step_begin(k, recover_too, &s);
		shmq__recover_publisher(s.f->topic, s.dead);
		fake_step_end();
		CHECK_EQ(look(&s, 100), RING_VOID);
		CHECK_EQ(look(&s, 103), RING_VOID);
		CHECK_EQ(voids(&s, 100, 104), 2);
		tear_down(&s);
	}
}

/* ---- by several, while others go on ---------------------------------------------- */

enum { MESSAGES = 20000, MORTALS = 30 };

struct traffic {
	struct fake *f;
	struct lay_member *m;
	_Atomic int done;
	shmq_au64 committed;
	/* The mortal that died last; recoverers take turns at everyone. */
	struct lay_member *_Atomic victim;
	shmq_au64 voided;
};

static void *publish_on(void *arg)
{
	struct traffic *t = arg;
	struct ring_writer w = fake_writer(t->f, t->m, 0);

	w.limit = w.next + ENDLESS;
	for (int i = 0; i < MESSAGES;) {
		uint64_t seq, word;
		enum ring_claim rc = shmq__ring_claim(&w, &seq, &word);

		if (rc == RING_CLAIM_HELD)
			sched_yield(); /* somebody recovers it */
		if (rc != RING_CLAIM_OK)
			continue;
		fake_put(&w, seq, 0);
		add_relaxed(&t->committed, 1);
		i++;
	}
	store_release(&t->done, 1);
	return NULL;
}

static void *recover_on(void *arg)
{
	struct traffic *t = arg;

	while (!load_acquire(&t->done)) {
		struct lay_member *m = load_acquire(&t->victim);

		if (m)
			add_relaxed(&t->voided, shmq__recover_publisher(t->f->topic, m));
	}
	return NULL;
}

TEST(two_recoverers_and_a_live_publisher_do_not_disturb_each_other)
{
	struct traffic t = { .f = fake_new(&(struct fake_options){ .mode = SHMQ_SHARED }) };
	pthread_t publisher, recoverer[2];
	uint64_t claimed = 0, head;

	t.m = fake_publisher(t.f, fake_client(t.f, getpid()));
	publisher = fake_thread(publish_on, &t);
	for (int i = 0; i < 2; i++)
		recoverer[i] = fake_thread(recover_on, &t);
	for (int i = 0; i < MORTALS && !load_acquire(&t.done); i++) {
		struct lay_member *m = fake_publisher(t.f, fake_client(t.f, getpid()));
		struct ring_writer w = fake_writer(t.f, m, 0);
		uint64_t seq, word;

		w.limit = w.next + ENDLESS;
		for (int n = 0; n < 3; n++)
			claimed += shmq__ring_claim(&w, &seq, &word) == RING_CLAIM_OK;
		store_release(&t.victim, m); /* it claims no more: dead */
		while (load_relaxed(&t.voided) != claimed && !load_acquire(&t.done))
			sched_yield();
	}
	fake_join(publisher);
	fake_join(recoverer[0]);
	fake_join(recoverer[1]);
	if (load_acquire(&t.victim))
		add_relaxed(&t.voided,
			    shmq__recover_publisher(t.f->topic, load_relaxed(&t.victim)));
	CHECK_EQ(load_relaxed(&t.voided), claimed);
	CHECK_EQ(load_relaxed(&t.committed), MESSAGES);
	store_relaxed(&t.f->topic->ring[0].mem->tail_hint, 0);
	head = shmq__topic_head(&t.f->topic->ring[0]);
	CHECK_EQ(head, MESSAGES + claimed);
	fake_free(t.f);
}
