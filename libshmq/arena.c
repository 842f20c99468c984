/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void shmq__arena_init(struct shmq__arena *a, void *mem, uint64_t bytes, uint32_t id, uint32_t gen)
{
	*a = (struct shmq__arena){ .mem = mem, .bytes = bytes, .id = id, .gen = gen };
}

void shmq__arena_fini(struct shmq__arena *a)
{
	free(a->piece);
	*a = (struct shmq__arena){ 0 };
}

static uint64_t whole_lines(uint64_t bytes)
{
	return (bytes + LAY_LINE - 1) & ~(uint64_t)(LAY_LINE - 1);
}

static struct arena_piece *piece_at(struct shmq__arena *a, unsigned i)
{
	return &a->piece[(a->first + i) % a->capacity];
}

static int reserve(struct shmq__arena *a)
{
	unsigned capacity = a->capacity ? 2 * a->capacity : 64, i;
	struct arena_piece *fresh;

	if (a->count < a->capacity)
		return 0;
	fresh = malloc(capacity * sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	for (i = 0; i < a->count; i++)
		fresh[i] = *piece_at(a, i);
	free(a->piece);
	a->piece = fresh;
	a->first = 0;
	a->capacity = capacity;
	return 0;
}

int shmq__arena_adopt(struct shmq__arena *a, const struct arena_piece *p)
{
	if (p->off >= a->bytes || p->bytes > a->bytes - p->off)
		return 0;
	if (reserve(a))
		return -ENOMEM;
	a->piece[(a->first + a->count++) % a->capacity] = *p;
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
	a->pos = a->piece[newest].off + whole_lines(a->piece[newest].bytes);
	if (a->pos > a->bytes)
		a->pos = a->bytes;
	turned = malloc(a->capacity * sizeof(*turned));
	if (!turned) { /* start over at the front: only the order suffers */
		a->pos = 0;
		return;
	}
	for (i = 0; i < a->count; i++)
		turned[i] = a->piece[(newest + 1 + i) % a->count];
	free(a->piece);
	a->piece = turned;
}

struct arena_piece *shmq__arena_in_the_way(struct shmq__arena *a, uint64_t bytes)
{
	struct arena_piece *p;

	bytes = whole_lines(bytes);
	if (a->pos + bytes > a->bytes) {
		/* Whatever lies between here and the end goes first, then we
		 * start at the front. */
		p = a->count ? piece_at(a, 0) : NULL;
		if (p && p->off >= a->pos)
			return p;
		a->pos = 0;
	}
	if (!a->count)
		return NULL;
	p = piece_at(a, 0);
	return p->off < a->pos + bytes && p->off + whole_lines(p->bytes) > a->pos ? p : NULL;
}

void shmq__arena_drop(struct shmq__arena *a)
{
	a->first = (a->first + 1) % a->capacity;
	a->count--;
}

struct arena_piece *shmq__arena_take(struct shmq__arena *a, uint64_t bytes)
{
	struct arena_piece *p;

	if (reserve(a))
		return NULL;
	p = piece_at(a, a->count++);
	*p = (struct arena_piece){ .off = a->pos, .bytes = bytes };
	a->pos += whole_lines(bytes);
	return p;
}

struct arena_piece *shmq__arena_last(struct shmq__arena *a)
{
	return piece_at(a, a->count - 1);
}

void shmq__arena_give_back(struct shmq__arena *a)
{
	a->pos = shmq__arena_last(a)->off;
	a->count--;
}
