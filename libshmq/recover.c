/* SPDX-License-Identifier: MIT
 *
 * Edges
 *   V1 owner proved dead -> V2 word (acquire) -> V3 registry generation
 *      -> V4 compare-and-swap (release) of exactly that word to VOID
 *      A word read at V2 that still stands at V4 was written by the
 *      generation that V3 saw as current or by one before it; ids are
 *      handed out again only after the generation moved and after every
 *      claim of the old one was voided, so V4 never hits a new owner's.
 *   V5 the void list entry stands before V4 (ring.c).
 *   V6 the bells ring after V4: a void is a commit.
 *
 * What the dead stored is behind V1, whose edge is the kernel's: of it everything is
 * loaded relaxed.
 */
#include "recover.h"
#include "probe.h"
#include "ring.h"

#include <stdlib.h>
#include <string.h>

static int is_current(const struct shmq__topic *t, unsigned client, uint64_t gen)
{
	struct lay_client *c = shmq__slabs_client(t->slabs, client);

	return c && load_relaxed(&c->gen) == gen; /* V3 */
}

int shmq__recover_slot(struct shmq__topic *t, uint32_t p, uint64_t seq, uint64_t seen, uint64_t gen)
{
	struct shmq__ring *r = &t->ring[p];

	if (LAY_CTRL_STATE(seen) != LAY_CLAIMED || !is_current(t, LAY_CTRL_OWNER(seen), gen))
		return 0;
	if (!shmq__ring_void(r->mem, &r->geo, seq, seen)) /* V4, V5 */
		return 0;
	bell_look(&r->bells->data, SHMQ__FENCE_FULL); /* V6 */
	bell_look(&r->bells->credit, SHMQ__FENCE_FULL);
	return 1;
}

/* A committed member of an atomic batch whose first message its owner never
 * committed: readers still stand before it.  The first is voided last, so
 * it tells for as long as it matters. */
static int is_unfinished(const struct shmq__ring *r, uint64_t seq, uint64_t w, unsigned client)
{
	const struct lay_slot *s = lay_slot_at(r->mem, &r->geo, seq);
	struct lay_batch batch;
	uint64_t first;

	if (LAY_CTRL_STATE(w) != LAY_COMMITTED || !(s->flags & SHMQ_MSG_BATCH))
		return 0;
	memcpy(&batch, (const char *)s + r->geo.payload_off, sizeof(batch));
	if (seq_diff(seq, batch.first_seq) <= 0 || seq - batch.first_seq >= r->geo.depth)
		return 0;
	first = load_relaxed(&lay_slot_at(r->mem, &r->geo, batch.first_seq)->ctrl);
	return first == LAY_CTRL(lay_lap(&r->geo, batch.first_seq), client, LAY_CLAIMED);
}

/* Shared: walk from the dead one's lower bound to the first slot that
 * nobody has claimed, then void its claims, and what it had committed of an
 * unfinished batch, from the last to the first: readers that stand at the
 * first see none of it. */
static unsigned void_claims(struct shmq__topic *t, uint32_t p, uint64_t from, unsigned client,
			    uint64_t gen)
{
	struct shmq__ring *r = &t->ring[p];
	uint64_t head = shmq__topic_head(r), n;
	unsigned voided = 0;

	/* A bound that is mad, on either side, costs a look at all slots. */
	if (head - from > r->geo.depth)
		from = head - r->geo.depth;
	for (n = head; n != from; n--) {
		/* V2 is the walk to the head: whoever claimed behind it had seen it, and
		 * so have we, with the generation of its owner. */
		uint64_t w = load_relaxed(&lay_slot_at(r->mem, &r->geo, n - 1)->ctrl);

		if (LAY_CTRL_OWNER(w) != client || LAY_CTRL_LAP(w) != lay_lap(&r->geo, n - 1))
			continue;
		if (LAY_CTRL_STATE(w) == LAY_CLAIMED)
			voided += (unsigned)shmq__recover_slot(t, p, n - 1, w, gen);
		else if (is_unfinished(r, n - 1, w, client) && is_current(t, client, gen))
			voided += (unsigned)shmq__ring_void(r->mem, &r->geo, n - 1, w);
	}
	return voided;
}

/* The owner moves its bound once in so many messages. */
static int sees_claim(const struct shmq__ring *r, uint64_t from, unsigned client)
{
	uint64_t n;

	for (n = from; n != from + RING_HINT_EVERY; n++) {
		uint64_t w = load_relaxed(&lay_slot_at(r->mem, &r->geo, n)->ctrl);

		if (lay_lap_diff(LAY_CTRL_LAP(w), lay_lap(&r->geo, n)) < 0)
			return 0;
		if (LAY_CTRL_STATE(w) == LAY_CLAIMED && LAY_CTRL_OWNER(w) == client)
			return 1;
	}
	return 0;
}

int shmq__recover_sees_claim(const struct shmq__topic *t, const struct lay_member *m)
{
	uint32_t p;

	for (p = 0; p < t->geo.partitions; p++) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);

		if (e && sees_claim(&t->ring[p], load_relaxed(&e->pos), m->client))
			return 1;
	}
	return 0;
}

unsigned shmq__recover_claims(struct shmq__topic *t, uint32_t p, unsigned client, uint64_t gen)
{
	struct shmq__ring *r = &t->ring[p];
	unsigned voided = void_claims(t, p, shmq__topic_head(r) - r->geo.depth, client, gen);

	PROBE4(recover, t->id, p, client, voided);
	shmq__topic_ring_all(t);
	return voided;
}

/* 1 if the log and every gating subscriber have passed seq, or it is dead: that
 * publishers pass on proof, too.  Relaxed: who finds it so gives a slot up, and
 * stores no payload. */
static int is_passed(const struct shmq__topic *t, uint32_t p, uint64_t seq)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	if (shmq__topic_log_gates(&t->geo) &&
	    seq_diff(load_relaxed(&t->ring[p].part->log_written), seq) <= 0)
		return 0;
	while ((m = shmq__topic_next_member(t, &it))) {
		struct lay_entry *e;

		if (load_relaxed(&m->state) != LAY_MEMBER_SUBSCRIBER)
			continue;
		e = shmq__topic_entry(t, m, p);
		if (e && seq_diff(load_relaxed(&e->pos), seq) <= 0 &&
		    !shmq__topic_client_is_dead(t, m->client, m->client_gen))
			return 0;
	}
	return 1;
}

/* Exclusive, and readers gate: the payload of the slots that come next may
 * be half written over, while their words still say what was there a lap
 * ago.  Nobody who gates will look there again, but a joiner from the oldest
 * would: give them up.  Where a gating reader still stands, the publisher
 * had no credit and wrote nothing.  Relaxed: the supervisor alone recovers exclusive
 * rings, and lets nobody join or succeed meanwhile. */
static void give_up_torn(struct shmq__topic *t, uint32_t p, uint64_t from, uint64_t to,
			 unsigned client, uint64_t gen)
{
	struct shmq__ring *r = &t->ring[p];
	uint64_t n;

	for (n = from; seq_diff(n, to) < 0; n++) {
		struct lay_slot *s = lay_slot_at(r->mem, &r->geo, n);
		uint64_t w = load_relaxed(&s->ctrl);

		if (lay_lap_diff(LAY_CTRL_LAP(w), lay_lap(&r->geo, n)) >= 0 ||
		    !is_passed(t, p, n - r->geo.depth) || !is_current(t, client, gen))
			return;
		cas_relaxed(&s->ctrl, &w, LAY_CTRL(lay_lap(&r->geo, n), client, LAY_AHEAD));
	}
}

/* Exclusive: what stands behind the head at its lap belongs to an atomic
 * batch whose first message never came, or was voided by a recoverer that
 * died.  No reader has passed the head, so none of it was seen: void it,
 * last to first, then what is before. */
static unsigned void_unfinished_batch(struct shmq__topic *t, uint32_t p, const struct lay_entry *e,
				      unsigned client, uint64_t gen)
{
	struct shmq__ring *r = &t->ring[p];
	uint64_t head = shmq__topic_head(r), end = head, last = head + r->geo.depth / 4, n;
	uint64_t batch_end =
		e ? load_relaxed(&((struct lay_entry *)(uintptr_t)e)->batch_end) : last;
	unsigned voided = 0;

	/* No further than where its last batch ends, if it ever made one; a
	 * single message it was in the middle of takes one slot. */
	if (e && (!batch_end || seq_diff(batch_end, head) <= 0))
		last = head + 1;
	else if (seq_diff(batch_end, last) < 0)
		last = batch_end;
	for (n = head; n != last; n++) {
		uint64_t w = load_relaxed(&lay_slot_at(r->mem, &r->geo, n)->ctrl);

		if (LAY_CTRL_LAP(w) == lay_lap(&r->geo, n) && LAY_CTRL_STATE(w) != LAY_AHEAD)
			end = n + 1;
	}
	for (n = end; n != head; n--) {
		uint64_t w = load_acquire(&lay_slot_at(r->mem, &r->geo, n - 1)->ctrl); /* V2 */

		if (!is_current(t, client, gen))
			return voided;
		if (LAY_CTRL_SANS_OWNER(w) != LAY_CTRL(lay_lap(&r->geo, n - 1), 0, LAY_VOID))
			voided += (unsigned)shmq__ring_void(r->mem, &r->geo, n - 1, w);
	}
	if (!shmq__topic_laps(r->geo.policy, r->geo.log))
		give_up_torn(t, p, end, last, client, gen);
	return voided;
}

unsigned shmq__recover_publisher(struct shmq__topic *t, const struct lay_member *m)
{
	unsigned client = m->client, voided = 0;
	uint64_t gen = m->client_gen;
	uint32_t p;

	for (p = 0; p < t->geo.partitions; p++) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);
		unsigned n;

		if (t->geo.mode == SHMQ_EXCLUSIVE)
			n = void_unfinished_batch(t, p, e, client, gen);
		else
			n = void_claims(t, p, e ? load_relaxed(&e->pos) : t->ring[p].mem->base_seq,
					client, gen);
		PROBE4(recover, t->id, p, client, n);
		voided += n;
	}
	shmq__topic_ring_all(t);
	return voided;
}
