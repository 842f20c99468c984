/* SPDX-License-Identifier: MIT
 *
 * arena: a publisher's own memory for payloads larger than a slot.
 *
 * Space is handed out round the arena, or from its front again.  Before bytes are reused, the
 * message that had them is marked GONE in its slot (R2 of ring.h), so the
 * control word is the one version stamp of slot and payload.  Where
 * readers gate, a message is only reused once every one of them is past it
 * (seq < limit - depth), which the caller decides.
 *
 * The book of what lies where is the publisher's private memory; after its
 * death a successor rebuilds it from the slots.
 */
#ifndef SHMQ_ARENA_H
#define SHMQ_ARENA_H

#include "ring.h"

/* One message in the arena. */
struct arena_piece {
	uint64_t off, bytes;
	uint64_t seq;
	uint64_t word; /* its control word; 0 while not committed */
	uint32_t partition;
};

struct shmq__arena {
	char *mem; /* NULL: the topic's payloads are all inline */
	uint64_t bytes;
	uint64_t pos;      /* where the next piece starts */
	uint64_t free_end; /* nothing lies from pos up to here; may be before pos */
	uint32_t id, gen;
	/* Pieces in the order of their offsets, oldest first: a ring buffer.
	 * capacity is a power of two, or 0; first runs freely. */
	struct arena_piece *piece;
	unsigned first, count, capacity;
};

/* Piece i, counted from the oldest. */
static inline struct arena_piece *arena_at(const struct shmq__arena *a, unsigned i)
{
	return &a->piece[(a->first + i) & (a->capacity - 1)];
}

void shmq__arena_init(struct shmq__arena *a, void *mem, uint64_t bytes, uint32_t id, uint32_t gen);
void shmq__arena_fini(struct shmq__arena *a);

/* Note a message found in a slot; call for each, then once
 * shmq__arena_adopt_done().  Pieces out of bounds are ignored. */
int shmq__arena_adopt(struct shmq__arena *a, const struct arena_piece *piece);
void shmq__arena_adopt_done(struct shmq__arena *a);

/* Bytes in whole lines: pieces share none. */
static inline uint64_t arena_lines(uint64_t bytes)
{
	return (bytes + LAY_LINE - 1) & ~(uint64_t)(LAY_LINE - 1);
}

/* Where the next piece of that size would lie. */
static inline uint64_t arena_place(const struct shmq__arena *a, uint64_t bytes)
{
	return a->pos + arena_lines(bytes) > a->bytes ? 0 : a->pos;
}

/* The oldest piece that stands in the way of `bytes` more, or NULL if they
 * are free (then arena_take() succeeds).  The caller marks it GONE and calls
 * arena_drop(), or waits. */
static inline struct arena_piece *arena_in_the_way(const struct shmq__arena *a, uint64_t bytes)
{
	uint64_t pos = arena_place(a, bytes);
	struct arena_piece *p;

	if (!a->count)
		return NULL;
	p = arena_at(a, 0);
	/* Whatever lies between here and the end goes first, then we start at
	 * the front. */
	if (pos != a->pos && p->off >= a->pos)
		return p;
	return p->off < pos + arena_lines(bytes) && p->off + arena_lines(p->bytes) > pos ? p : NULL;
}

static inline void arena_drop(struct shmq__arena *a)
{
	a->first++;
	a->count--;
}

/* The next piece goes to the front, as after the last that fits: the only piece that
 * is left lies behind it. */
static inline void arena_rewind(struct shmq__arena *a)
{
	a->pos = 0;
	a->free_end = 0;
}

/* More room in the book of pieces.  0 or -ENOMEM. */
int shmq__arena_grow(struct shmq__arena *a);

/* Take `bytes` (1 to a->bytes); the piece's seq and word are filled by the
 * caller after commit.  NULL if out of memory for the book. */
static inline struct arena_piece *arena_take(struct shmq__arena *a, uint64_t bytes)
{
	struct arena_piece *p;

	if (unlikely(a->count == a->capacity && shmq__arena_grow(a)))
		return NULL;
	p = arena_at(a, a->count++);
	p->off = arena_place(a, bytes);
	p->bytes = bytes;
	p->word = 0;
	if (p->off != a->pos) /* what was known is behind us */
		a->free_end = 0;
	a->pos = p->off + arena_lines(bytes);
	return p;
}

/* Find out now, when nobody waits, that `bytes` are free. */
static inline void arena_look_ahead(struct shmq__arena *a, uint64_t bytes)
{
	if (bytes > a->bytes || arena_in_the_way(a, bytes))
		return;
	a->pos = arena_place(a, bytes);
	a->free_end = a->pos + arena_lines(bytes);
}

/* Bytes that are known to be free, or NULL. */
static inline struct arena_piece *arena_take_known(struct shmq__arena *a, uint64_t bytes)
{
	if (unlikely(a->pos + bytes > a->free_end || a->count == a->capacity))
		return NULL;
	return arena_take(a, bytes);
}

/* Undo the last take. */
void shmq__arena_give_back(struct shmq__arena *a);

/* The piece taken last. */
struct arena_piece *shmq__arena_last(struct shmq__arena *a);

#endif
