/* SPDX-License-Identifier: MIT */
#include "arena.h"
#include "mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void shmq__arena_init(struct shmq__arena *a, void *mem, uint64_t bytes, uint32_t id, uint32_t gen)
{
	*a = (struct shmq__arena){ .mem = mem, .bytes = bytes, .id = id, .gen = gen };
}

static void put(struct arena_piece *piece, unsigned capacity)
{
	shmq__mem_put(piece, capacity * sizeof(*piece));
}

void shmq__arena_fini(struct shmq__arena *a)
{
	put(a->piece, a->capacity);
	*a = (struct shmq__arena){ 0 };
}

int shmq__arena_grow(struct shmq__arena *a)
{
	unsigned capacity = a->capacity ? 2 * a->capacity : 64, i;
	struct arena_piece *fresh;

	fresh = shmq__mem_get(capacity * sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	for (i = 0; i < a->count; i++)
		fresh[i] = *arena_at(a, i);
	put(a->piece, a->capacity);
	a->piece = fresh;
	a->first = 0;
	a->capacity = capacity;
	return 0;
}

int shmq__arena_adopt(struct shmq__arena *a, const struct arena_piece *p)
{
	if (p->off >= a->bytes || p->bytes > a->bytes - p->off)
		return 0;
	if (a->count == a->capacity && shmq__arena_grow(a))
		return -ENOMEM;
	*arena_at(a, a->count++) = *p;
	return 0;
}

static int by_offset(const void *x, const void *y)
{
	const struct arena_piece *a = x, *b = y;

	return a->off < b->off ? -1 : a->off > b->off;
}

/* Continue behind the message published last, as its publisher would have. */
void shmq__arena_adopt_done(struct shmq__arena *a)
{
	unsigned i, newest = 0;
	struct arena_piece *turned;

	if (!a->count)
		return;
	qsort(a->piece, a->count, sizeof(*a->piece), by_offset);
	for (i = 1; i < a->count; i++)
		if (seq_diff(a->piece[i].seq, a->piece[newest].seq) > 0)
			newest = i;
	a->pos = a->piece[newest].off + arena_lines(a->piece[newest].bytes);
	if (a->pos > a->bytes)
		a->pos = a->bytes;
	turned = shmq__mem_get(a->capacity * sizeof(*turned));
	if (!turned) { /* start over at the front: only the order suffers */
		a->pos = 0;
		return;
	}
	for (i = 0; i < a->count; i++)
		turned[i] = a->piece[(newest + 1 + i) % a->count];
	put(a->piece, a->capacity);
	a->piece = turned;
}

struct arena_piece *shmq__arena_last(struct shmq__arena *a)
{
	return arena_at(a, a->count - 1);
}

void shmq__arena_give_back(struct shmq__arena *a)
{
	a->pos = shmq__arena_last(a)->off;
	a->count--;
}
