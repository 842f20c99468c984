/* SPDX-License-Identifier: MIT
 *
 * A publisher dies before any of its accesses, two recover what it left, others
 * publish and read meanwhile; and atomic batches, whole or not at all.
 */
#include "tap.h"
#include "recover.h"
#include "world.h"

enum { MORTAL, LIVE };

static shmq_pub *pub[3];
static struct world_reader reader;
static unsigned messages;

/* What fibers say of themselves; each writes its own, check() reads. */
struct said {
	uint64_t pad0[8];
	uint64_t voided[3][8], got[8], lost[8];
	uint64_t held[8]; /* a seq, and 1 */
};
static struct said *said;

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

static void publish_batch(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, i, k;
	uint64_t words[2][WORLD_WORDS];
	struct shmq_msg m[2];

	for (i = 0; i < 2; i++) {
		for (k = 0; k < WORLD_WORDS; k++)
			words[i][k] = world_value(who, i);
		m[i] = (struct shmq_msg){ .data = words[i],
					  .len = sizeof(words[i]),
					  .partition = SHMQ_ANY_PARTITION };
	}
	WANT_EQ(shmq_publish_batch(pub[who], m, 2, SHMQ_ATOMIC), 2);
}

/* With proof of its death. */
static void recover(void *arg)
{
	uint64_t *voided = said->voided[(uintptr_t)arg];

	if (weave_join(MORTAL))
		*voided = shmq__recover_publisher(world->topic, world_member(&pub[MORTAL]->h));
}

static void look(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 2);
	said->got[0] = r.got;
	said->lost[0] = r.lost;
	weave_tell("got %u, lost %u", (unsigned)r.got, (unsigned)r.lost);
}

/* One look while the first member of a batch was received and the second was not:
 * it is there, or another publisher's claim is between the two. */
static void look_for_second(struct world_reader *r)
{
	int rc = world_receive(r, SHMQ_NOWAIT);

	if (!rc)
		return;
	WANT_EQ(rc, SHMQ_EEMPTY);
	WANT_EQ(LAY_CTRL_OWNER(world_word(r->seq + 1)), LIVE + 1);
	weave_idle();
}

/* All or none of a batch of the first: once its first member was there, so was
 * the other. */
static void look_whole(void *arg)
{
	struct world_reader r = reader;
	unsigned looks = 3, last = 0;
	int rc;

	for (;;) {
		unsigned before = r.next[MORTAL];

		rc = world_receive(&r, SHMQ_NOWAIT);
		WANT(!rc || rc == SHMQ_EEMPTY);
		if (!rc && before == 0 && r.next[MORTAL] == 1) {
			while (r.next[MORTAL] == 1)
				look_for_second(&r);
			continue;
		}
		if (!rc)
			continue;
		if (looks)
			looks--;
		else if (last)
			break;
		else
			last = !weave_idle();
	}
	said->got[0] = r.got;
}

static void set_up(const struct world_options *o, void (*first)(void *arg),
		   void (*second)(void *arg), void (*read)(void *arg))
{
	unsigned live = second != NULL;

	world_new(o);
	said = weave_alloc(sizeof(*said));
	weave_name(said, "said");
	weave_spawn("mortal", first, (void *)(uintptr_t)MORTAL);
	weave_mortal(MORTAL);
	if (live)
		weave_spawn("live", second, (void *)(uintptr_t)LIVE);
	weave_spawn("reader", read, NULL);
	weave_spawn("recoverer", recover, (void *)(uintptr_t)0);
	weave_spawn("another", recover, (void *)(uintptr_t)1);
	pub[MORTAL] = world_pub(MORTAL);
	if (live)
		pub[LIVE] = world_pub(LIVE);
	reader = (struct world_reader){ .sub = world_sub(1 + (int)live, SHMQ_FROM_LATEST),
					.may_lose = o->policy == SHMQ_LOSSY };
}

/* Each slot is a message or a hole, and all messages were received or counted. */
static void check(void)
{
	uint64_t base = world->ring->base_seq, head, n,
		 holes = said->voided[0][0] + said->voided[1][0] + said->voided[2][0];

	head = shmq__topic_head(&world->topic->ring[0]);
	for (n = head - base > world->geo.depth ? head - world->geo.depth : base; n != head; n++) {
		unsigned state = LAY_CTRL_STATE(world_word(n));

		WANT(state == LAY_COMMITTED || state == LAY_VOID);
	}
	WANT_EQ(said->got[0] + said->lost[0] + holes, head - base);
}

static void set_up_claim(void)
{
	messages = 1;
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, publish,
	       publish, look);
}
SCENARIO(dead_in_a_claim, set_up_claim, check);

static void set_up_claims(void)
{
	messages = 3;
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, publish,
	       publish, look);
}
SCENARIO(dead_among_claims, set_up_claims, check);

/* Holes in the distance that a reader was lapped by are not counted. */
static void set_up_lapped(void)
{
	messages = 3;
	set_up(&(struct world_options){ .depth = 2,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.policy = SHMQ_LOSSY },
	       publish, publish, look);
}
SCENARIO(dead_and_lapped, set_up_lapped, check);

static void set_up_batch(void)
{
	messages = 2;
	set_up(&(struct world_options){ .depth = 8, .base_seq = 3, .mode = SHMQ_SHARED },
	       publish_batch, publish, look_whole);
}
SCENARIO(dead_in_a_batch, set_up_batch, check);

static void set_up_own_batch(void)
{
	set_up(&(struct world_options){ .depth = 8, .base_seq = 3 }, publish_batch, NULL,
	       look_whole);
}
SCENARIO(dead_in_an_exclusive_batch, set_up_own_batch, NULL);

/* ---- exclusive: a successor ----------------------------------------- */

static void succeed(void *arg)
{
	unsigned n;

	if (!weave_join(MORTAL))
		return;
	shmq__recover_publisher(world->topic, world_member(&pub[MORTAL]->h));
	store_release(&world->client[MORTAL + 1].gen, 2);
	pub[LIVE] = world_pub(LIVE);
	for (n = 0; n < 2; n++)
		WANT_EQ(world_publish(pub[LIVE], LIVE, n), 0);
}

static void set_up_successor(const struct world_options *o, void (*first)(void *arg),
			     unsigned before)
{
	unsigned n;

	world_new(o);
	said = weave_alloc(sizeof(*said));
	weave_spawn("mortal", first, (void *)(uintptr_t)MORTAL);
	weave_mortal(MORTAL);
	weave_spawn("successor", succeed, NULL);
	weave_spawn("reader", look, NULL);
	weave_spawn("another", recover, (void *)(uintptr_t)1);
	pub[MORTAL] = world_pub(MORTAL);
	reader = (struct world_reader){ .sub = world_sub(2, SHMQ_FROM_LATEST),
					.may_lose = o->policy == SHMQ_LOSSY };
	for (n = 0; n < before; n++)
		WANT_EQ(world_publish(pub[MORTAL], MORTAL, n), 0);
	reader.next[MORTAL] = 0;
}

static void set_up_takeover(void)
{
	messages = 2;
	set_up_successor(&(struct world_options){ .depth = 4, .base_seq = 3 }, publish, 0);
}
SCENARIO(takeover, set_up_takeover, NULL);

static void set_up_takeover_batch(void)
{
	set_up_successor(&(struct world_options){ .depth = 8, .base_seq = 3 }, publish_batch, 0);
}
SCENARIO(takeover_in_a_batch, set_up_takeover_batch, NULL);

static void set_up_takeover_over(void)
{
	messages = 3;
	set_up_successor(&(struct world_options){ .depth = 2, .base_seq = 3 }, publish, 0);
}
SCENARIO(takeover_of_used_slots, set_up_takeover_over, NULL);

/* ---- the id is given out again -------------------------------------- */

/* The supervisor: recovers, moves the generation, and a new client with that
 * id publishes. */
static void give_id_again(void *arg)
{
	struct lay_client *c = &world->client[MORTAL + 1];
	unsigned n;

	if (!weave_join(MORTAL))
		return;
	said->voided[2][0] = shmq__recover_publisher(world->topic, world_member(&pub[MORTAL]->h));
	store_release(&c->gen, 2);
	pub[LIVE] = world_pub(MORTAL);
	for (n = 0; n < 2; n++)
		WANT_EQ(world_publish(pub[LIVE], LIVE, n), 0);
}

static void set_up_again(void)
{
	messages = 2;
	world_new(&(struct world_options){ .depth = 4, .base_seq = 3, .mode = SHMQ_SHARED });
	said = weave_alloc(sizeof(*said));
	weave_name(said, "said");
	weave_spawn("mortal", publish, (void *)(uintptr_t)MORTAL);
	weave_mortal(MORTAL);
	weave_spawn("supervisor", give_id_again, NULL);
	weave_spawn("reader", look, NULL);
	weave_spawn("recoverer", recover, (void *)(uintptr_t)0);
	pub[MORTAL] = world_pub(MORTAL);
	reader = (struct world_reader){ .sub = world_sub(2, SHMQ_FROM_LATEST) };
}
SCENARIO(id_given_again, set_up_again, check);

/* The new owner's claim lies before the hint, where a walk for the head does not
 * come by it: a recoverer meets it first when it looks for what to void. */
static void set_up_before_hint(void)
{
	messages = 1;
	world_new(&(struct world_options){ .depth = 4, .base_seq = 3, .mode = SHMQ_SHARED });
	said = weave_alloc(sizeof(*said));
	weave_name(said, "said");
	weave_spawn("mortal", publish, (void *)(uintptr_t)MORTAL);
	weave_mortal(MORTAL);
	weave_spawn("live", publish, (void *)(uintptr_t)2);
	weave_spawn("supervisor", give_id_again, NULL);
	weave_spawn("reader", look, NULL);
	weave_spawn("recoverer", recover, (void *)(uintptr_t)0);
	pub[MORTAL] = world_pub(MORTAL);
	pub[2] = world_pub(1);
	store_relaxed(&pub[2]->lane[0].entry->count, RING_HINT_EVERY - 1);
	reader = (struct world_reader){ .sub = world_sub(3, SHMQ_FROM_LATEST) };
}
SCENARIO(id_given_again_before_hint, set_up_before_hint, check);

/* The heir has its id, and is another process: who waits for a reader that stood at
 * the claim of the dead, and looks after it, does not take the heir for dead, whose
 * claim stands for long. */
enum { HEIR = 1, WAITER, PATIENCE_NS = 20000000, LONG = 20 };

static void live_long(void *arg)
{
	unsigned i;

	for (i = 0; i < 10 * LONG; i++)
		weave_has_died(MORTAL);
}

static void be_impatient(shmq_pub *p)
{
	p->wait = SHMQ_WAIT_SPIN;
	p->block_ns = PATIENCE_NS;
}

static void claim_for_long(void)
{
	struct lane *l = &pub[HEIR]->lane[0];
	uint64_t seq, word;
	unsigned i;

	while (shmq__ring_claim(&l->w, &seq, &word) != RING_CLAIM_OK)
		if (shmq__pub_wait_for_credit(pub[HEIR], l, l->w.next + 1))
			return; /* the reader went too soon */
	said->held[0] = seq + 1;
	for (i = 0; i < LONG; i++)
		weave_has_died(MORTAL);
	ring_commit(&l->w, lay_slot_at(l->w.mem, &l->w.geo, seq), seq);
}

static void inherit(void *arg)
{
	struct lay_client *c = &world->client[MORTAL + 1];

	if (!weave_join(MORTAL))
		return;
	shmq__recover_publisher(world->topic, world_member(&pub[MORTAL]->h));
	shmq__topic_remove_member(world->topic, world_member(&pub[MORTAL]->h));
	store_release(&c->gen, 2);
	store_relaxed(&c->pid, weave_self() + 1);
	pub[HEIR] = world_pub(MORTAL);
	be_impatient(pub[HEIR]);
	claim_for_long();
}

static void publish_in_time(void *arg)
{
	int rc = world_publish(pub[WAITER], WAITER, 1);

	WANT(!rc || rc == SHMQ_ETIMEOUT);
}

static void pass_holes(void *arg)
{
	struct ring_reader *at = &reader.sub->lane[0].r;
	uint64_t word;
	unsigned i;

	for (i = 0; i < LONG; i++) {
		enum ring_look look = ring_look(at, &word);

		if (look != RING_MESSAGE && look != RING_VOID)
			continue;
		at->next++;
		store_release(&reader.sub->lane[0].entry->pos, at->next); /* R3 */
		bell_look(&world->bells->credit, SHMQ__FENCE_LIGHT);
	}
}

static void set_up_heir(void)
{
	uint64_t seq, word;

	world_new(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED });
	weave_look_counts(2);
	said = weave_alloc(sizeof(*said));
	weave_name(said, "said");
	weave_spawn("mortal", live_long, NULL);
	weave_mortal(MORTAL);
	weave_spawn("heir", inherit, NULL);
	weave_spawn("waiter", publish_in_time, NULL);
	weave_spawn("reader", pass_holes, NULL);
	pub[MORTAL] = world_pub(MORTAL);
	pub[WAITER] = world_pub(WAITER);
	be_impatient(pub[WAITER]);
	reader = (struct world_reader){ .sub = world_sub(3, SHMQ_FROM_LATEST) };
	WANT_EQ(shmq__pub_raise_limit(&pub[MORTAL]->lane[0], 5), 1);
	WANT_EQ(shmq__ring_claim(&pub[MORTAL]->lane[0].w, &seq, &word), RING_CLAIM_OK);
	WANT_EQ(world_publish(pub[WAITER], WAITER, 0), 0);
}

static void check_heir(void)
{
	uint64_t seq = said->held[0] - 1;
	uint32_t is_bound = 0;

	if (said->held[0])
		WANT_EQ(shmq__ring_voids_between(world->ring, seq, seq + 1, &is_bound), 0);
}
SCENARIO(heir_beside_a_waiter, set_up_heir, check_heir);

/* ---- holes where a lapped reader goes on ------------------------------ */

/* The claim behind the reader's place becomes a hole, and its slot another's message,
 * while the reader looks where to go on. */
enum { LAPS_DEPTH = 8, HOLE = 4 };

static void void_and_go_on(void *arg)
{
	WANT(shmq__ring_void(world->ring, &world->geo, HOLE,
			     LAY_CTRL(lay_lap(&world->geo, HOLE), pub[MORTAL]->lane[0].w.owner,
				      LAY_CLAIMED)));
	WANT_EQ(world_publish(pub[LIVE], LIVE, 0), 0);
}

static void look_behind(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 1);
	WANT_EQ(r.got + r.lost, LAPS_DEPTH + 1);
}

static void set_up_hole(void)
{
	uint64_t seq, word;
	unsigned n;

	world_new(&(struct world_options){ .depth = LAPS_DEPTH,
					   .base_seq = HOLE - 1,
					   .mode = SHMQ_SHARED,
					   .policy = SHMQ_LOSSY });
	weave_spawn("recoverer", void_and_go_on, NULL);
	weave_spawn("reader", look_behind, NULL);
	pub[MORTAL] = world_pub(MORTAL);
	pub[LIVE] = world_pub(LIVE); /* which looks for the next slot from the first on */
	reader = (struct world_reader){ .sub = world_sub(2, SHMQ_FROM_LATEST), .may_lose = 1 };
	WANT_EQ(world_publish(pub[MORTAL], MORTAL, 0), 0);
	WANT_EQ(shmq__ring_claim(&pub[MORTAL]->lane[0].w, &seq, &word), RING_CLAIM_OK);
	WANT_EQ(seq, HOLE);
	for (n = 1; n < LAPS_DEPTH; n++)
		WANT_EQ(world_publish(pub[MORTAL], MORTAL, n), 0);
}
SCENARIO(hole_behind_a_lapped_reader, set_up_hole, NULL);

/* ---- the list of holes is full -------------------------------------- */

/* A reader stands at a hole that is entry 0 of the list.  It is lapped there, while
 * another hole takes that entry's place: it finds the entry, or learns that one
 * may be forgotten. */
static void void_another(void *arg)
{
	struct ring_writer *w = &pub[MORTAL]->lane[0].w;
	uint64_t seq, word;

	WANT_EQ(world_publish(pub[MORTAL], MORTAL, 1), 0);
	WANT_EQ(shmq__ring_claim(w, &seq, &word), RING_CLAIM_OK);
	WANT(shmq__ring_void(world->ring, &world->geo, seq,
			     LAY_CTRL(lay_lap(&world->geo, seq), w->owner, LAY_CLAIMED)));
}

static void count_holes(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 1);
	WANT(r.got + r.lost == 2 || (r.is_bound && r.got + r.lost > 2));
}

static void set_up_full_list(void)
{
	struct ring_writer *w;
	uint64_t seq, word;

	world_new(&(struct world_options){
		.depth = 2, .base_seq = 3, .mode = SHMQ_SHARED, .policy = SHMQ_LOSSY });
	weave_spawn("publisher", void_another, NULL);
	weave_spawn("reader", count_holes, NULL);
	pub[MORTAL] = world_pub(0);
	reader = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST),
					.may_lose = 1,
					.may_be_bound = 1 };
	w = &pub[MORTAL]->lane[0].w;
	WANT_EQ(shmq__ring_claim(w, &seq, &word), RING_CLAIM_OK);
	shmq__ring_void(world->ring, &world->geo, seq,
			LAY_CTRL(lay_lap(&world->geo, seq), w->owner, LAY_CLAIMED));
	store_relaxed(&world->ring->void_count, LAY_VOIDS);
	WANT_EQ(world_publish(pub[MORTAL], MORTAL, 0), 0);
}
SCENARIO(full_list_of_holes, set_up_full_list, NULL);

/* ---- tests ---------------------------------------------------------- */

TEST_WITHIN(what_a_dead_publisher_claimed_becomes_a_hole_once, WEAVE_LIMIT_S)
{
	weave_random(&dead_in_a_claim, WEAVE_SC, 2500);
	weave_random(&dead_in_a_claim, WEAVE_WEAK, 5000);
	weave_random(&dead_among_claims, WEAVE_SC, 2500);
	weave_random(&dead_among_claims, WEAVE_WEAK, 5000);
	weave_random(&id_given_again, WEAVE_SC, 2500);
	weave_random(&id_given_again, WEAVE_WEAK, 5000);
	weave_random(&id_given_again_before_hint, WEAVE_SC, 2500);
	weave_random(&id_given_again_before_hint, WEAVE_WEAK, 5000);
	weave_random(&heir_beside_a_waiter, WEAVE_SC, 2500);
	weave_random(&heir_beside_a_waiter, WEAVE_WEAK, 5000);
}

TEST_WITHIN(a_lapped_reader_counts_no_holes, WEAVE_LIMIT_S)
{
	weave_random(&dead_and_lapped, WEAVE_SC, 2500);
	weave_random(&dead_and_lapped, WEAVE_WEAK, 5000);
	weave_random(&full_list_of_holes, WEAVE_SC, 2500);
	weave_random(&full_list_of_holes, WEAVE_WEAK, 5000);
	weave_all(&hole_behind_a_lapped_reader, WEAVE_SC, 100000);
	weave_random(&hole_behind_a_lapped_reader, WEAVE_WEAK, 5000);
}

TEST_WITHIN(an_atomic_batch_is_whole_or_not_there, WEAVE_LIMIT_S)
{
	weave_random(&dead_in_a_batch, WEAVE_SC, 2500);
	weave_random(&dead_in_a_batch, WEAVE_WEAK, 5000);
	weave_random(&dead_in_an_exclusive_batch, WEAVE_SC, 2500);
	weave_random(&dead_in_an_exclusive_batch, WEAVE_WEAK, 5000);
}

TEST_WITHIN(a_successor_goes_on_where_an_exclusive_publisher_died, WEAVE_LIMIT_S)
{
	weave_random(&takeover, WEAVE_SC, 2500);
	weave_random(&takeover, WEAVE_WEAK, 5000);
	weave_random(&takeover_in_a_batch, WEAVE_SC, 2500);
	weave_random(&takeover_in_a_batch, WEAVE_WEAK, 5000);
	weave_random(&takeover_of_used_slots, WEAVE_SC, 2500);
	weave_random(&takeover_of_used_slots, WEAVE_WEAK, 5000);
}
