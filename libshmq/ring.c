/* SPDX-License-Identifier: MIT
 *
 * The edges stand in ring.h.
 */
#include "ring.h"

#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread"), noinline)) void shmq__copy_racy(void *to, const void *from,
								      size_t bytes)
{
	const volatile uint8_t *f = from;
	volatile uint8_t *t = to;

	while (bytes--)
		*t++ = *f++;
}
#endif

static uint64_t load_ctrl(const struct lay_ring *ring, const struct lay_geometry *geo, uint64_t seq)
{
	return load_acquire(&lay_slot_at(ring, geo, seq)->ctrl);
}

static int64_t laps_ahead(const struct lay_geometry *geo, uint64_t word, uint64_t seq)
{
	return lay_lap_diff(LAY_CTRL_LAP(word), lay_lap(geo, seq));
}

/* Is this word a claim, or what became of one? */
static int is_taken(uint64_t word)
{
	unsigned state = LAY_CTRL_STATE(word);

	return state == LAY_CLAIMED || state == LAY_COMMITTED || state == LAY_VOID ||
	       state == LAY_GONE;
}

/* R5 makes any seq right whose predecessor was claimed; a publisher gone
 * mad may have stored any other. */
static int is_borne_out(const struct lay_ring *ring, const struct lay_geometry *geo, uint64_t hint)
{
	uint64_t word = load_ctrl(ring, geo, hint - 1);
	int64_t d = laps_ahead(geo, word, hint - 1);

	return hint == ring->base_seq || d > 0 || (d == 0 && is_taken(word));
}

/* Where to walk from if the hint is of no use: the highest seq that any slot
 * speaks of is the last, or, as ring_step() has it, half a ring before it. */
static uint64_t place_by_scan(const struct lay_ring *ring, const struct lay_geometry *geo)
{
	uint64_t base = ring->base_seq, last = base, n;

	for (n = base; n != base + geo->depth; n++) {
		uint64_t word = load_ctrl(ring, geo, n);
		int64_t d = laps_ahead(geo, word, n);

		if (d >= 0 && is_taken(word) && seq_diff(n + (uint64_t)d * geo->depth, last) > 0)
			last = n + (uint64_t)d * geo->depth;
	}
	if (geo->mode != SHMQ_EXCLUSIVE)
		return last;
	return seq_diff(last, base + geo->depth / 2) > 0 ? last - geo->depth / 2 : base;
}

/* Walk to the first seq that is not taken; WALK_TO_CLAIM
 * stops before one that stands CLAIMED too. */
enum walk { WALK_TAKEN, WALK_TO_CLAIM };
static uint64_t walk(const struct lay_ring *ring, const struct lay_geometry *geo, enum walk how)
{
	uint64_t n = load_relaxed(&((struct lay_ring *)(uintptr_t)ring)->tail_hint), steps;

	if (!is_borne_out(ring, geo, n))
		n = place_by_scan(ring, geo);
	for (steps = 0; steps < 2 * geo->depth; steps++) {
		uint64_t word = load_ctrl(ring, geo, n), step = ring_step(geo, n, word);

		if (!step || (how == WALK_TO_CLAIM && LAY_CTRL_STATE(word) == LAY_CLAIMED &&
			      !laps_ahead(geo, word, n)))
			break;
		n += step;
	}
	return n;
}

uint64_t shmq__ring_head(const struct lay_ring *ring, const struct lay_geometry *geo)
{
	return walk(ring, geo, WALK_TAKEN);
}

void shmq__ring_takeover(struct ring_writer *w)
{
	w->next = w->ahead = walk(w->mem, &w->geo, WALK_TO_CLAIM);
	/* Publishers that die young would leave the hint laps behind. */
	store_relaxed(&w->mem->tail_hint, w->next); /* R5 */
}

void shmq__ring_give_up(struct ring_writer *w, uint64_t upto)
{
	uint64_t n;

	if (seq_diff(upto, w->limit) > 0)
		upto = w->limit;
	for (n = w->ahead; seq_diff(n, upto) < 0; n++)
		store_relaxed(&lay_slot_at(w->mem, &w->geo, n)->ctrl,
			      LAY_CTRL(lay_lap(&w->geo, n), w->owner, LAY_AHEAD));
	w->ahead = n;
	fence_release(); /* R2 */
}

#ifndef RING_CONTENDED_STEPS                     /* tests/fuzz has less patience */
#define RING_CONTENDED_STEPS (UINT64_C(1) << 24) /* a second, about */
#endif

enum ring_claim shmq__ring_claim(struct ring_writer *w, uint64_t *seq, uint64_t *seen)
{
	uint64_t n = w->next, steps;

	/* Words that stand still are passed within a few laps, or, if they are
	 * mad, lead on until laps wrap and round again; more steps are those of
	 * others who are faster than we are, and that lasts only until one of
	 * them is interrupted. */
	for (steps = 0; steps < 4 * w->geo.depth + RING_CONTENDED_STEPS; steps++) {
		struct lay_slot *s = lay_slot_at(w->mem, &w->geo, n);
		uint64_t word = load_acquire(&s->ctrl);
		uint64_t lap = lay_lap(&w->geo, n), hint;
		int64_t d = lay_lap_diff(LAY_CTRL_LAP(word), lap);

		if (d >= 0) { /* taken, maybe laps ago */
			if (d > 0 && lay_lap_diff(lap + (uint64_t)d, lay_lap(&w->geo, w->next)) < 0)
				break;
			n += (uint64_t)d * w->geo.depth + 1;
			hint = load_relaxed(&w->mem->tail_hint); /* R5 */
			if (seq_diff(hint, n) > 0 && is_borne_out(w->mem, &w->geo, hint))
				n = hint;
			continue;
		}
		w->next = n;
		w->run.last = n - 1; /* mad words may lead on to where it would seem to go on */
		if (seq_diff(n, w->limit) >= 0)
			return RING_CLAIM_NO_CREDIT;
		if (LAY_CTRL_STATE(word) == LAY_CLAIMED) {
			*seen = word;
			return RING_CLAIM_HELD;
		}
		if (d != -1)
			return RING_CLAIM_CORRUPT;
		if (cas_acqrel(&s->ctrl, &word, LAY_CTRL(lap, w->owner, LAY_CLAIMED))) { /* R4 */
			fence_release();                                                 /* R2 */
			ring_fetch_ahead(w, n);
			*seq = n;
			w->next = n + 1;
			return RING_CLAIM_OK;
		}
		/* Somebody took it, or voided the claim before it: look again. */
	}
	return RING_CLAIM_CORRUPT;
}

/* Relaxed: the release of what is entered or voided next comes after it. */
static void forget(struct lay_ring *r, uint64_t end)
{
	uint64_t high = load_relaxed(&r->void_forgotten);

	while (seq_diff(end, high) > 0 && !cas_relaxed(&r->void_forgotten, &high, end))
		;
}

/* The list entry stands before the slot says VOID, so a reader that was
 * lapped over the hole finds it; an entry whose slot was never voided (we
 * died, or lost the race) is undone by nobody: it names a seq that another
 * recoverer voids, or one whose owner committed after all.  The latter
 * cannot be: only the dead and the owner itself are voided. */
static void remember_void(struct lay_ring *r, uint64_t seq)
{
	uint64_t i = add_relaxed(&r->void_count, 1), old;
	shmq_au64 *entry = &r->voids[i % LAY_VOIDS];

	old = load_relaxed(entry);
	if (old)
		forget(r, old);
	store_release(entry, seq + 1);
}

/* Relaxed: an entry that it overlooks is entered twice, and readers ignore that. */
static int is_remembered(const struct lay_ring *ring, uint64_t seq)
{
	struct lay_ring *r = (struct lay_ring *)(uintptr_t)ring;
	uint64_t count = load_relaxed(&r->void_count), i;

	if (count > LAY_VOIDS)
		count = LAY_VOIDS;
	for (i = 0; i < count; i++)
		if (load_relaxed(&r->voids[i]) == seq + 1)
			return 1;
	return 0;
}

int shmq__ring_void(struct lay_ring *r, const struct lay_geometry *geo, uint64_t seq, uint64_t seen)
{
	struct lay_slot *s = lay_slot_at(r, geo, seq);

	if (seq == UINT64_MAX)
		forget(r, seq + 1);
	else if (!is_remembered(r, seq))
		remember_void(r, seq);
	return cas_acqrel(&s->ctrl, &seen,
			  LAY_CTRL(lay_lap(geo, seq), LAY_CTRL_OWNER(seen), LAY_VOID));
}

void shmq__ring_gone(struct ring_writer *w, uint64_t seq, uint64_t word)
{
	shmq_au64 *ctrl = &lay_slot_at(w->mem, &w->geo, seq)->ctrl;
	uint64_t gone = LAY_CTRL(LAY_CTRL_LAP(word), LAY_CTRL_OWNER(word), LAY_GONE), seen = word;

	/* On a shared ring another may be taking the slot.  Relaxed: what is replaced
	 * was stored by this publisher, and R2 is behind it. */
	if (w->geo.mode != SHMQ_EXCLUSIVE)
		cas_relaxed(ctrl, &seen, gone);
	else if (load_relaxed(ctrl) == word)
		store_relaxed(ctrl, gone);
	fence_release(); /* R2 */
}

int shmq__ring_arena_ref(const struct lay_ring *ring, const struct lay_geometry *geo, uint64_t seq,
			 struct lay_slot *head, struct lay_arena_ref *ref)
{
	struct lay_slot *s = lay_slot_at((struct lay_ring *)(uintptr_t)ring, geo, seq);
	uint64_t word = load_acquire(&s->ctrl); /* A1 */
	const char *at = (const char *)s + geo->payload_off;

	if (LAY_CTRL_STATE(word) != LAY_COMMITTED)
		return 0;
	shmq__copy_racy(head, s, sizeof(*head));
	if (!(head->flags & SHMQ_MSG_ARENA))
		return 0;
	if (head->flags & SHMQ_MSG_BATCH)
		at += sizeof(struct lay_batch);
	shmq__copy_racy(ref, at, sizeof(*ref));
	fence_acquire(); /* A2 */
	store_relaxed(&head->ctrl, word);
	return load_relaxed(&s->ctrl) == word;
}

uint64_t shmq__ring_voids_between(const struct lay_ring *ring, uint64_t from, uint64_t to,
				  uint32_t *is_bound)
{
	struct lay_ring *r = (struct lay_ring *)(uintptr_t)ring;
	/* Relaxed: A1 of the slots that were lapped or passed brought their entries. */
	uint64_t count = load_relaxed(&r->void_count), found = 0, seen[LAY_VOIDS], i, k;

	if (count > LAY_VOIDS)
		count = LAY_VOIDS;
	for (i = 0; i < count; i++) {
		/* Acquire: before void_forgotten, which is raised before an
		 * entry is written over. */
		uint64_t v = load_acquire(&r->voids[i]) - 1;

		if (v == UINT64_MAX || seq_diff(v, from) < 0 || seq_diff(v, to) >= 0)
			continue;
		for (k = 0; k < found && seen[k] != v; k++)
			;
		if (k == found)
			seen[found++] = v;
	}
	if (seq_diff(load_relaxed(&r->void_forgotten), from) > 0)
		*is_bound = 1;
	return found;
}
