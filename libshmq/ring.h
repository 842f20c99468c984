/* SPDX-License-Identifier: MIT
 *
 * ring: claim, commit and read one ring.
 *
 * Edges
 *   R1 payload -> commit (release)      A1 control word (acquire) -> payload
 *      A reader that sees COMMITTED sees the whole message.
 *   R2 CLAIMED, AHEAD or GONE -> release fence -> payload or arena bytes
 *      A2 payload -> acquire fence -> control word again
 *      A reader that copied one byte of what came later sees another word
 *      the second time.  Without R2's fence a new byte could be visible
 *      under the old word.
 *   R3 payload reads -> cursor (release)   A3 cursor (acquire) -> payload
 *      A publisher writes over a message only after its gating readers
 *      have finished reading it (credit.c).
 *   R4 claim by compare-and-swap (acquire): the previous owner's stores
 *      happened before ours, so ours are not overwritten by them.
 *   R5 the tail hint is relaxed: any seq at or before the first unclaimed
 *      one is right, because everyone walks forward from it by control
 *      words; a stale hint costs steps, never correctness.
 *   R6 what was claimed below it was committed -> the owner's lower bound
 *      (entry.pos); where its batch ends -> what it stores there.  They are for
 *      who has proof of its death, and sees all that it stored (recover.c): the
 *      compiler is held, and no processor has to be.
 */
#ifndef SHMQ_RING_H
#define SHMQ_RING_H

#include "layout.h"

#include <string.h>

/* How far ahead an exclusive publisher gives up old slots where readers do
 * not gate, and how far the next line is fetched for writing. */
#define RING_AHEAD 8u
#ifndef RING_PREFETCH /* tests/weave has rings of less */
#define RING_PREFETCH 4u
#endif
#define RING_LONG_BYTES 256u /* from here on all lines are asked for */
/* The tail hint and the lower bound move once in so many messages. */
#define RING_HINT_EVERY 32u

/* Lengths below it are short; end is what all are below. */
static inline uint32_t ring_short_end(size_t end)
{
	return end > RING_LONG_BYTES ? RING_LONG_BYTES + 1 : (uint32_t)end;
}

/* One partition as its publisher holds it. */
struct ring_writer {
	struct lay_ring *mem;
	struct lay_geometry geo;
	uint64_t next;  /* exclusive: the next seq; shared: where to look */
	uint64_t limit; /* seqs below it may be written */
	uint64_t ahead; /* exclusive, readers may be lapped: slots below it are
			   AHEAD at their lap */
	uint64_t room;  /* exclusive: seqs below it may be written without a
			   look at limit or ahead; shared: none */
	unsigned owner; /* client id */
	struct ring_run {
		uint64_t last;  /* exclusive: seqs from next to it are below room, of one
				   lap, and so are the slots fetched ahead of theirs */
		uint64_t word;  /* of that lap: a committed control word, */
		uintptr_t base; /* and slot seq is seq * slot_bytes from here */
	} run;
};

/* A position among readers. */
struct ring_reader {
	const struct lay_ring *mem;
	struct lay_geometry geo;
	uint64_t next;
};

enum ring_look {
	RING_NOTHING = 0, /* not published yet */
	RING_CLAIMED,     /* about to come */
	RING_MESSAGE,
	RING_VOID,   /* a hole: step over it */
	RING_GONE,   /* lost: its bytes were reused */
	RING_LAPPED, /* lost, and more with it */
};

/* What is at reader->next now; *word is what was seen. */
static inline enum ring_look ring_look(const struct ring_reader *r, uint64_t *word)
{
	const struct lay_slot *s = lay_slot_at(r->mem, &r->geo, r->next);
	uint64_t w = load_acquire(&((struct lay_slot *)(uintptr_t)s)->ctrl); /* A1 */
	uint64_t lap = lay_lap(&r->geo, r->next);
	int64_t d;

	*word = w;
	if (likely(LAY_CTRL_SANS_OWNER(w) == LAY_CTRL(lap, 0, LAY_COMMITTED)))
		return RING_MESSAGE;
	d = lay_lap_diff(LAY_CTRL_LAP(w), lap);
	if (d < 0)
		return RING_NOTHING;
	if (d > 0)
		return RING_LAPPED;
	switch (LAY_CTRL_STATE(w)) {
	case LAY_CLAIMED:
		return RING_CLAIMED;
	case LAY_VOID:
		return RING_VOID;
	case LAY_GONE:
		return RING_GONE;
	default:
		return RING_NOTHING;
	}
}

/* A2: 1 if the slot of `seq` still carries `word`. */
static inline int ring_still(const struct ring_reader *r, uint64_t seq, uint64_t word)
{
	struct lay_slot *s = lay_slot_at(r->mem, &r->geo, seq);

	fence_acquire();
	return load_relaxed(&s->ctrl) == word;
}

/* Copy bytes that a publisher may be overwriting; the result counts only
 * if ring_still() holds afterwards. */
#ifdef __SANITIZE_THREAD__
void shmq__copy_racy(void *to, const void *from, size_t bytes);
#else
static inline void shmq__copy_racy(void *to, const void *from, size_t bytes)
{
	if (bytes) /* a message of none may have no buffer */
		memcpy(to, from, bytes);
	fence_light();
}
#endif

/* Walking forward from the hint to the first seq that nobody has claimed:
 * how far to go on from n, whose slot says `word`; 0 is there.  A slot that
 * is laps further says where the ring is by now.  Under a shared ring all
 * before that seq is claimed.  An exclusive publisher gives slots up early,
 * and commits an atomic batch (depth / 4 at most) last to first: what is
 * half a ring before is certain, and the rest has to be walked. */
static inline uint64_t ring_step(const struct lay_geometry *geo, uint64_t n, uint64_t word)
{
	int64_t d = lay_lap_diff(LAY_CTRL_LAP(word), lay_lap(geo, n));

	if (d < 0 || (d == 0 && LAY_CTRL_STATE(word) == LAY_AHEAD))
		return 0;
	if (d > 0 && geo->mode == SHMQ_EXCLUSIVE)
		return (uint64_t)d * geo->depth - geo->depth / 2;
	return (uint64_t)d * geo->depth + 1;
}

/* First seq that nobody has claimed or committed.  Starts at the tail hint
 * if the slot before it bears it out, else looks at every slot. */
uint64_t shmq__ring_head(const struct lay_ring *ring, const struct lay_geometry *geo);

/* Find the seq to continue at after a predecessor, or where to look first,
 * and leave it as the hint. */
void shmq__ring_takeover(struct ring_writer *w);

/* Exclusive, where a reader could still be looking at old content: give up
 * slots up to `upto`, but none at or beyond w->limit: what they hold may
 * still be read.  Fences (R2). */
void shmq__ring_give_up(struct ring_writer *w, uint64_t upto);

/* Exclusive: see w->run anew, from w->next on: of the lap that this is in, as far as
 * there is room.  There may be none. */
static inline void ring_begin_run(struct ring_writer *w)
{
	uint64_t last = (w->next | w->geo.mask) - RING_PREFETCH;

	w->run.last = seq_diff(w->room, last) > 0 ? last : w->room - 1;
	w->run.word = LAY_CTRL(lay_lap(&w->geo, w->next), w->owner, LAY_COMMITTED);
	w->run.base = (uintptr_t)lay_slot_at(w->mem, &w->geo, w->next) -
		      (uintptr_t)(w->next * w->geo.slot_bytes);
}

static inline int ring_is_in_run(const struct ring_writer *w, uint64_t seq)
{
	return seq_diff(w->run.last, seq) >= 0;
}

static inline struct lay_slot *ring_run_slot(const struct ring_writer *w, uint64_t seq)
{
	return (struct lay_slot *)(w->run.base + (uintptr_t)(seq * w->geo.slot_bytes));
}

/* Exclusive: work out w->room once w->limit allows for n messages.  Slots are
 * given up RING_AHEAD at a time and at least as far ahead, so that the fence
 * is rare and the reader that polls the next slot sees its line change once. */
static inline void ring_make_room(struct ring_writer *w, uint64_t n, int invalidates)
{
	w->room = w->limit;
	if (invalidates) {
		shmq__ring_give_up(w, w->next + n + 2 * RING_AHEAD);
		if (w->ahead != w->limit)
			w->room = w->ahead - RING_AHEAD;
	}
	ring_begin_run(w);
}

static inline int ring_has_room(const struct ring_writer *w, uint64_t n)
{
	return seq_diff(w->room, w->next + n) >= 0;
}

/* Have a slot here for writing, by the time it comes. */
static inline void ring_fetch(const void *slot)
{
	prefetch_write(slot);
	prefetch_write((const char *)slot + LAY_LINE); /* or the slot after it */
}

static inline void ring_fetch_ahead(const struct ring_writer *w, uint64_t seq)
{
	ring_fetch(lay_slot_at(w->mem, &w->geo, seq + RING_PREFETCH));
}

/* All lines of the next slot, for payloads of more than a few: no prefetcher of
 * the processor gets far within one, and none knows where the next begins. */
static inline void ring_fetch_long(const struct ring_writer *w, uint64_t seq, size_t bytes)
{
	const char *line = (const char *)lay_slot_at(w->mem, &w->geo, seq + 1), *end = line + bytes;

	for (; line < end; line += LAY_LINE)
		prefetch_write(line);
}

/* A reader asks for the second line of the slot that it polls, if it has one, so
 * that both come over together when they are written, not one after the other. */
static inline void ring_fetch_far(const struct ring_reader *r, const struct lay_slot *s)
{
	if (r->geo.slot_bytes > LAY_LINE)
		prefetch_read((const char *)s + LAY_LINE);
}

/* For a reader of payloads of more than a few lines that knows the next slot to be
 * written: the processor follows by itself from its first line, where it would not
 * have begun by then. */
static inline void ring_read_ahead(const struct ring_reader *r, uint64_t seq)
{
	prefetch_read(lay_slot_at(r->mem, &r->geo, seq + 1));
}

/* Shared: take slot w->next if it is free and credit allows.  1 taken, and
 * w->next is one past it; 0 look properly, by shmq__ring_claim(). */
static inline int ring_claim_next(struct ring_writer *w)
{
	struct lay_slot *s = lay_slot_at(w->mem, &w->geo, w->next);
	uint64_t word = load_relaxed(&s->ctrl), lap = lay_lap(&w->geo, w->next);

	if (unlikely(seq_diff(w->limit, w->next) <= 0 ||
		     LAY_CTRL_LAP(word) != ((lap - 1) & LAY_LAP_MASK) ||
		     LAY_CTRL_STATE(word) == LAY_CLAIMED ||
		     !cas_acqrel(&s->ctrl, &word, LAY_CTRL(lap, w->owner, LAY_CLAIMED)))) /* R4 */
		return 0;
	fence_release(); /* R2 */
	w->next++;
	return 1;
}

enum ring_claim {
	RING_CLAIM_OK = 0,
	RING_CLAIM_NO_CREDIT, /* w->next is the seq that needs it */
	RING_CLAIM_HELD,      /* the previous lap of w->next is still CLAIMED */
	RING_CLAIM_CORRUPT,
};

/* Shared: take the first free slot at or after w->next.  On RING_CLAIM_OK *seq
 * is ours and w->next one past it; on RING_CLAIM_HELD *word is the claim. */
enum ring_claim shmq__ring_claim(struct ring_writer *w, uint64_t *seq, uint64_t *word);

/* R1. */
static inline void ring_commit(struct ring_writer *w, struct lay_slot *s, uint64_t seq)
{
	store_release(&s->ctrl, LAY_CTRL(lay_lap(&w->geo, seq), w->owner, LAY_COMMITTED));
}

/* Give a claim back as a hole: remember it, then void it.  1 if this call
 * did. */
int shmq__ring_void(struct lay_ring *ring, const struct lay_geometry *geo, uint64_t seq,
		    uint64_t seen);

/* 1 if what is committed in the slot of seq, of whatever lap, has its payload in
 * an arena: *head and *ref are its header, control word included, and where.
 * What changes while it is looked at is being overwritten: 0. */
int shmq__ring_arena_ref(const struct lay_ring *ring, const struct lay_geometry *geo, uint64_t seq,
			 struct lay_slot *head, struct lay_arena_ref *ref);

/* Mark a committed message GONE before its arena bytes are reused; `word` is
 * its control word.  Fences. */
void shmq__ring_gone(struct ring_writer *w, uint64_t seq, uint64_t word);

/* Holes remembered in [from, to); *is_bound is set to 1 if some of that range
 * may have been forgotten, else left. */
uint64_t shmq__ring_voids_between(const struct lay_ring *ring, uint64_t from, uint64_t to,
				  uint32_t *is_bound);

#endif
