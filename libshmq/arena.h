/* SPDX-License-Identifier: MIT
 *
 * arena: a publisher's own memory for payloads larger than a slot.
 *
 * Space is handed out round the arena.  Before bytes are reused, the
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
	uint64_t pos; /* where the next piece starts */
	uint32_t id, gen;
	/* Pieces in the order of their offsets, oldest first: a ring buffer. */
	struct arena_piece *piece;
	unsigned first, count, capacity;
};

void shmq__arena_init(struct shmq__arena *a, void *mem, uint64_t bytes, uint32_t id, uint32_t gen);
void shmq__arena_fini(struct shmq__arena *a);

/* Note a message found in a slot; call for each, then once
 * shmq__arena_adopt_done().  Pieces out of bounds are ignored. */
int shmq__arena_adopt(struct shmq__arena *a, const struct arena_piece *piece);
void shmq__arena_adopt_done(struct shmq__arena *a);

/* The oldest piece that stands in the way of `bytes` more, or NULL if they
 * are free (then shmq__arena_take() succeeds).  The caller marks it GONE and
 * calls shmq__arena_drop(), or waits. */
struct arena_piece *shmq__arena_in_the_way(struct shmq__arena *a, uint64_t bytes);
void shmq__arena_drop(struct shmq__arena *a);

/* Take `bytes` (1 to a->bytes); the piece's seq and word are filled by the
 * caller after commit.  NULL if out of memory for the book. */
struct arena_piece *shmq__arena_take(struct shmq__arena *a, uint64_t bytes);

/* Undo the last take. */
void shmq__arena_give_back(struct shmq__arena *a);

/* The piece taken last. */
struct arena_piece *shmq__arena_last(struct shmq__arena *a);

#endif
