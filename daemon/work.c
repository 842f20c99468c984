/* SPDX-License-Identifier: MIT */
#include "work.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "log.h"
#include "shmem.h"

#define PAGES_AT_ONCE 1024u

struct item {
	TAILQ_ENTRY(item) link;
	struct topic *topic; /* to lock; NULL to punch */
	struct registry_range range;
	void *mem; /* to unmap before it is punched, or NULL */
	uint64_t done_bytes;
	void (*done)(void *arg, struct topic *t, int error, const struct shmq__why *why);
	void *arg;
};

struct work {
	struct loop *loop;
	struct registry *r;
	TAILQ_HEAD(item_queue, item) items;
	uint64_t freed_count;
	void (*freed)(void *arg);
	void *arg;
};

static uint64_t slice_bytes(const struct work *w, const struct item *item)
{
	unsigned shift = w->r->slab[LAY_REF_SLAB(item->range.ref)].page_shift;
	uint64_t bytes = (uint64_t)PAGES_AT_ONCE << shift,
		 left = item->range.bytes - item->done_bytes;

	return bytes < left ? bytes : left;
}

static void drop(struct work *w, struct item *item)
{
	TAILQ_REMOVE(&w->items, item, link);
	free(item);
}

static void punch_slice(struct work *w, struct item *item)
{
	uint64_t bytes = slice_bytes(w, item),
		 off = LAY_REF_OFF(item->range.ref) + item->done_bytes;
	int fd = registry_slab_fd(w->r, LAY_REF_SLAB(item->range.ref));
	int error;

	/* Undoing a locked map of a gigabyte takes as long as freeing it. */
	if (item->mem)
		shmq__shmem_unmap((char *)item->mem + item->done_bytes, bytes);
	error = shmq__shmem_punch(fd, off, bytes);
	if (error)
		log_warn("giving memory back: %s", shmq_strerror(error));
	item->done_bytes += bytes;
	if (item->done_bytes < item->range.bytes)
		return;
	registry_free_range(w->r, &item->range);
	registry_count_bytes(w->r);
	drop(w, item);
	w->freed_count++;
	if (w->freed)
		w->freed(w->arg);
}

static void unlock(struct work *w, struct topic *t, const struct registry_range *range)
{
	if (!t->locked)
		return;
	if (registry_is_shared_map(w->r, t->locked))
		munlock(t->locked, range->bytes);
	registry_unmap(w->r, range, t->locked);
	t->locked = NULL;
}

static void lock_slice(struct work *w, struct item *item)
{
	uint64_t bytes = slice_bytes(w, item);
	struct topic *t = item->topic;
	struct shmq__why why = { "" };
	int error = 0;

	if (!t->locked)
		error = registry_map(w->r, &item->range, &t->locked);
	if (!error)
		error = place_lock((char *)t->locked + item->done_bytes, bytes, &why);
	item->done_bytes += bytes;
	if (!error && item->done_bytes < item->range.bytes)
		return;
	if (error)
		unlock(w, t, &item->range);
	/* done() may forget the topic: it must not find this item. */
	TAILQ_REMOVE(&w->items, item, link);
	item->done(item->arg, t, error, &why);
	free(item);
}

/* 1 if there is more to do. */
static int trim(struct registry *r)
{
	int more = 0;
	struct pool *pool;
	unsigned i;

	for (i = 0; (pool = registry_next_pool(r, &i));)
		if (pool->ranges)
			more |= pool_trim(pool);
	if (!more)
		registry_count_bytes(r);
	return more;
}

static int do_slice(void *arg)
{
	struct work *w = arg;
	struct item *item = TAILQ_FIRST(&w->items);

	/* In turn: nobody waits for another's gigabyte. */
	if (item) {
		TAILQ_REMOVE(&w->items, item, link);
		TAILQ_INSERT_TAIL(&w->items, item, link);
	}
	if (item && item->topic)
		lock_slice(w, item);
	else if (item)
		punch_slice(w, item);
	return !TAILQ_EMPTY(&w->items) || trim(w->r);
}

int work_create(struct loop *loop, struct registry *r, struct work **out)
{
	struct work *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->loop = loop;
	w->r = r;
	TAILQ_INIT(&w->items);
	loop_set_idle(loop, do_slice, w);
	*out = w;
	return 0;
}

void work_destroy(struct work *w)
{
	if (!w)
		return;
	while (!TAILQ_EMPTY(&w->items))
		drop(w, TAILQ_FIRST(&w->items));
	free(w);
}

void work_free(struct work *w, const struct registry_range *range, void *mem)
{
	struct item *item;

	if (range->is_warm) {
		registry_free_range(w->r, range);
		registry_unmap(w->r, range, mem);
		loop_wake_idle(w->loop);
		return;
	}
	item = calloc(1, sizeof(*item));
	if (!item) {
		/* The next worker finds that nobody refers to it. */
		log_warn("out of memory: %llu bytes stay taken", (unsigned long long)range->bytes);
		return;
	}
	item->range = *range;
	item->mem = mem;
	TAILQ_INSERT_TAIL(&w->items, item, link);
	loop_wake_idle(w->loop);
}

static int is_huge(const struct work *w, const struct item *item)
{
	return w->r->slab[LAY_REF_SLAB(item->range.ref)].page_shift > 12;
}

unsigned work_freeing(const struct work *w, enum work_pages pages)
{
	const struct item *item;
	unsigned count = 0;

	TAILQ_FOREACH (item, &w->items, link)
		count += !item->topic && (pages == WORK_ALL_PAGES || is_huge(w, item));
	return count;
}

uint64_t work_freed(const struct work *w)
{
	return w->freed_count;
}

void work_on_freed(struct work *w, void (*freed)(void *arg), void *arg)
{
	w->freed = freed;
	w->arg = arg;
}

void work_lock(struct work *w, struct topic *t, enum work_when when,
	       void (*done)(void *arg, struct topic *t, int error, const struct shmq__why *why),
	       void *arg)
{
	struct item *item = calloc(1, sizeof(*item));
	struct shmq__why why = { "" };

	if (!item) {
		done(arg, t, -ENOMEM, &why);
		return;
	}
	item->topic = t;
	item->range = registry_rings_of(w->r, t->rec);
	item->done = done;
	item->arg = arg;
	TAILQ_INSERT_HEAD(&w->items, item, link);
	if (when == WORK_HURRY && slice_bytes(w, item) == item->range.bytes)
		lock_slice(w, item);
	else
		loop_wake_idle(w->loop);
}

void *work_forget(struct work *w, struct topic *t)
{
	struct registry_range range = registry_rings_of(w->r, t->rec);
	struct item *item, *next;
	void *mem = t->locked;

	for (item = TAILQ_FIRST(&w->items); item; item = next) {
		next = TAILQ_NEXT(item, link);
		if (item->topic == t)
			drop(w, item);
	}
	t->locked = NULL;
	if (!mem || !registry_is_shared_map(w->r, mem))
		return mem;
	munlock(mem, range.bytes);
	return NULL;
}
