/* SPDX-License-Identifier: MIT */
#include "extent.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct range {
	uint64_t off, end; /* never empty */
};

/* Free ranges, sorted, never touching each other.  `used` counts what is
 * taken: the gaps between used ranges are at most used + 1, so room for
 * that many is made when something is taken and giving it back cannot
 * fail for want of memory. */
struct extent {
	uint64_t bytes, free_bytes;
	struct range *free;
	size_t count, capacity;
	size_t used;
};

static int reserve(struct extent *e, size_t count)
{
	size_t capacity = e->capacity;
	struct range *grown;

	if (count <= capacity)
		return 0;
	while (capacity < count)
		capacity += capacity / 2 + 16;
	grown = reallocarray(e->free, capacity, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	e->free = grown;
	e->capacity = capacity;
	return 0;
}

static int reserve_one_more(struct extent *e)
{
	size_t most = e->used > e->count ? e->used : e->count;

	return reserve(e, most + 2);
}

static void insert(struct extent *e, size_t at, uint64_t off, uint64_t end)
{
	memmove(&e->free[at + 1], &e->free[at], (e->count - at) * sizeof(*e->free));
	e->free[at] = (struct range){ off, end };
	e->count++;
}

static void drop(struct extent *e, size_t at)
{
	e->count--;
	memmove(&e->free[at], &e->free[at + 1], (e->count - at) * sizeof(*e->free));
}

/* Index of the first free range that ends after `off`, or count. */
static size_t find(const struct extent *e, uint64_t off)
{
	size_t low = 0, high = e->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (e->free[middle].end <= off)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Cut [off, end) out of free range `at`, which holds it; room is reserved. */
static void cut(struct extent *e, size_t at, uint64_t off, uint64_t end)
{
	struct range *r = &e->free[at];
	struct range rest = { end, r->end };

	e->used++;
	e->free_bytes -= end - off;
	if (r->off == off && r->end == end) {
		drop(e, at);
		return;
	}
	if (r->off == off) {
		r->off = end;
		return;
	}
	r->end = off;
	if (rest.off < rest.end)
		insert(e, at + 1, rest.off, rest.end);
}

int extent_create(uint64_t bytes, struct extent **out)
{
	struct extent *e;

	if (!bytes)
		return -EINVAL;
	e = calloc(1, sizeof(*e));
	if (!e || reserve(e, 2)) {
		free(e);
		return -ENOMEM;
	}
	e->bytes = e->free_bytes = bytes;
	insert(e, 0, 0, bytes);
	*out = e;
	return 0;
}

void extent_destroy(struct extent *e)
{
	if (!e)
		return;
	free(e->free);
	free(e);
}

int extent_alloc(struct extent *e, uint64_t bytes, uint64_t align, uint64_t *off)
{
	uint64_t mask = align ? align - 1 : 0;
	size_t i;

	if (!bytes || (align & mask))
		return -EINVAL;
	if (reserve_one_more(e))
		return -ENOMEM;
	for (i = 0; i < e->count; i++) {
		const struct range *r = &e->free[i];
		uint64_t skip = -r->off & mask;

		/* Compared by what is left, so that no sum can wrap. */
		if (r->end - r->off < skip || r->end - r->off - skip < bytes)
			continue;
		*off = r->off + skip;
		cut(e, i, *off, *off + bytes);
		return 0;
	}
	return -ENOSPC;
}

static int is_outside(const struct extent *e, uint64_t off, uint64_t bytes)
{
	return !bytes || off > e->bytes || bytes > e->bytes - off;
}

int extent_take(struct extent *e, uint64_t off, uint64_t bytes)
{
	size_t at;

	if (is_outside(e, off, bytes))
		return -EINVAL;
	at = find(e, off);
	if (at == e->count || e->free[at].off > off || e->free[at].end < off + bytes)
		return -EEXIST;
	if (reserve_one_more(e))
		return -ENOMEM;
	cut(e, at, off, off + bytes);
	return 0;
}

int extent_free(struct extent *e, uint64_t off, uint64_t bytes)
{
	uint64_t end = off + bytes;
	int joins_left, joins_right;
	size_t at;

	if (is_outside(e, off, bytes))
		return -EINVAL;
	at = find(e, off);
	if (at < e->count && e->free[at].off < end)
		return -EEXIST;
	joins_left = at > 0 && e->free[at - 1].end == off;
	joins_right = at < e->count && e->free[at].off == end;
	if (!joins_left && !joins_right) {
		if (reserve(e, e->count + 1))
			return -ENOMEM;
		insert(e, at, off, end);
	} else if (joins_left && joins_right) {
		e->free[at - 1].end = e->free[at].end;
		drop(e, at);
	} else if (joins_left) {
		e->free[at - 1].end = end;
	} else {
		e->free[at].off = off;
	}
	e->free_bytes += bytes;
	if (e->used)
		e->used--;
	return 0;
}

void extent_each_free(const struct extent *e, void (*fn)(uint64_t off, uint64_t bytes, void *arg),
		      void *arg)
{
	size_t i;

	for (i = 0; i < e->count; i++)
		fn(e->free[i].off, e->free[i].end - e->free[i].off, arg);
}

uint64_t extent_bytes(const struct extent *e)
{
	return e->bytes;
}

uint64_t extent_free_bytes(const struct extent *e)
{
	return e->free_bytes;
}
