/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include <errno.h>
#include <string.h>

#include "shmem.h"

#define PAGE 4096u
/* Give the end back once so much was freed, and keep that much of it. */
#define TRIM_BYTES (UINT64_C(16) << 20)
#define SLICE_BYTES (UINT64_C(4) << 20)

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

int pool_open(struct pool *p, enum pool_kind kind, struct place *place, int fd, uint64_t base,
	      uint64_t bytes, uint64_t chunk)
{
	memset(p, 0, sizeof(*p));
	p->place = place;
	p->fd = fd;
	p->base = base;
	p->bytes = bytes;
	p->chunk = chunk;
	return kind == POOL_RANGES ? extent_create(bytes, &p->ranges) : 0;
}

/* Wait for the child; what it did not come to populate is given back. */
static void collect(struct pool *p)
{
	if (!p->child)
		return;
	if (p->source.ready)
		loop_remove(p->loop, &p->source);
	p->error = place_populate_finish(p->child, p->result_fd, NULL, &p->why);
	p->child = 0;
	if (p->error)
		shmq__shmem_punch(p->fd, p->base + p->warm, p->ahead - p->warm);
	else
		p->warm = p->ahead;
}

static void child_done(struct source *source, uint32_t events)
{
	struct pool *p = loop_container(source, struct pool, source);

	(void)events;
	collect(p);
	p->grown(p->arg);
}

static int watch_child(struct pool *p)
{
	return loop_add(p->loop, &p->source, p->result_fd, EPOLLIN, child_done);
}

void pool_serve(struct pool *p, struct loop *loop, void (*grown)(void *arg), void *arg)
{
	p->loop = loop;
	p->grown = grown;
	p->arg = arg;
	if (p->child && watch_child(p))
		collect(p);
}

void pool_close(struct pool *p)
{
	collect(p);
	if (p->ranges)
		extent_destroy(p->ranges);
	p->ranges = NULL;
}

static int plan(struct pool *p, uint64_t upto, struct shmq__why *why)
{
	struct place_ask ask = {
		.bytes = upto - p->warm,
		.slab_bytes = p->base + p->bytes,
		.pages = SHMQ_PAGES_4K,
		.lock = SHMQ_LOCK_NEVER,
	};
	struct place_answer answer;

	return place_plan(p->place, &ask, &answer, why);
}

static int populate(struct pool *p, uint64_t upto, struct shmq__why *why)
{
	int error = plan(p, upto, why);

	if (!error)
		error = place_populate(p->place, p->fd, p->base + p->warm, upto - p->warm, 12,
				       SHMQ_NODE_ANY, NULL, NULL, NULL, why);
	if (error)
		shmq__shmem_punch(p->fd, p->base + p->warm, upto - p->warm);
	else
		p->warm = upto;
	return error;
}

static int start(struct pool *p, uint64_t upto, struct shmq__why *why)
{
	int error = plan(p, upto, why);

	p->ahead = upto;
	if (!error)
		error = place_populate_start(p->place, p->fd, p->base + p->warm, upto - p->warm, 12,
					     SHMQ_NODE_ANY, NULL, NULL, &p->child, &p->result_fd,
					     why);
	if (error) {
		p->child = 0;
		return error;
	}
	if (p->loop && watch_child(p))
		collect(p);
	return 0;
}

/* Nothing rests on it: what fails here is refused when it is needed. */
static void begin_ahead(struct pool *p)
{
	uint64_t upto = round_up(p->high + p->chunk / 2, p->chunk);

	if (!p->child && p->warm < upto && upto <= p->bytes)
		start(p, upto, NULL);
}

void pool_prepare(struct pool *p)
{
	begin_ahead(p);
}

static uint64_t chunk_end(const struct pool *p, uint64_t bytes)
{
	uint64_t upto = round_up(bytes, p->chunk);

	return upto < p->bytes ? upto : p->bytes;
}

static int reach_now(struct pool *p, uint64_t bytes, struct shmq__why *why)
{
	collect(p);
	if (bytes <= p->warm || !populate(p, chunk_end(p, bytes), why))
		return 0;
	/* Memory is short: what is needed, and nothing ahead of it. */
	return populate(p, round_up(bytes, PAGE), why);
}

/* The same, by one child after the other. */
static int reach_later(struct pool *p, uint64_t bytes, struct shmq__why *why)
{
	uint64_t least = round_up(bytes, PAGE);
	int error = p->error;

	if (p->child)
		return POOL_COMING;
	p->error = 0;
	if (error && p->ahead <= least)
		return shmq__fail(why, error, "%s", p->why.text);
	if (!error)
		error = start(p, chunk_end(p, bytes), why);
	if (error)
		error = start(p, least, why);
	if (!error && !p->child) /* it could not be watched, and is done */
		error = p->error;
	else if (!error)
		error = POOL_COMING;
	return error;
}

int pool_reach(struct pool *p, uint64_t bytes, struct shmq__why *why)
{
	int error = 0;

	if (bytes > p->bytes)
		return shmq__fail(why, SHMQ_ELIMIT,
				  "this bus is full: no more than %llu bytes of its kind",
				  (unsigned long long)p->bytes);
	if (bytes > p->warm)
		error = p->loop ? reach_later(p, bytes, why) : reach_now(p, bytes, why);
	if (error)
		return error;
	if (bytes > p->high)
		p->high = bytes;
	begin_ahead(p);
	return 0;
}

int pool_alloc(struct pool *p, uint64_t bytes, uint64_t align, uint64_t *off, struct shmq__why *why)
{
	uint64_t at;
	int error = extent_alloc(p->ranges, bytes, align, &at);

	if (error == -ENOSPC)
		return shmq__fail(why, SHMQ_ELIMIT,
				  "this bus is full: no more than %llu bytes of its kind",
				  (unsigned long long)p->bytes);
	if (error)
		return error;
	error = pool_reach(p, at + bytes, why);
	if (error) {
		extent_free(p->ranges, at, bytes);
		return error;
	}
	*off = p->base + at;
	return 0;
}

uint64_t pool_growth(struct pool *p, uint64_t bytes, uint64_t align)
{
	uint64_t set_apart = p->child ? p->ahead : p->warm, upto = set_apart, ahead, at;

	if (p->ranges) {
		if (extent_alloc(p->ranges, bytes, align, &at))
			return 0;
		extent_free(p->ranges, at, bytes);
		bytes += at;
	}
	if (p->child && bytes <= p->warm) /* the next child comes another time */
		return 0;
	if (bytes > upto)
		upto = chunk_end(p, bytes);
	ahead = round_up((bytes > p->high ? bytes : p->high) + p->chunk / 2, p->chunk);
	if (ahead > upto && ahead <= p->bytes)
		upto = ahead;
	return upto - set_apart;
}

struct last {
	uint64_t off, end;
};

static void note_last(uint64_t off, uint64_t bytes, void *arg)
{
	struct last *last = arg;

	last->off = off;
	last->end = off + bytes;
}

/* Where the free range at the very end begins. */
static uint64_t used_end(const struct pool *p)
{
	struct last last = { p->bytes, p->bytes };

	extent_each_free(p->ranges, note_last, &last);
	return last.end == p->bytes ? last.off : p->bytes;
}

static void give_back_after(struct pool *p, uint64_t keep)
{
	if (keep >= p->warm)
		return;
	shmq__shmem_punch(p->fd, p->base + keep, p->warm - keep);
	p->warm = keep;
}

void pool_free(struct pool *p, uint64_t off, uint64_t bytes)
{
	if (!extent_free(p->ranges, off - p->base, bytes))
		p->freed += bytes;
}

int pool_trim(struct pool *p)
{
	int is_empty = extent_free_bytes(p->ranges) == p->bytes;
	uint64_t keep, least;

	if (p->child) /* it writes at the end: once it is done */
		return 0;
	if (p->freed < TRIM_BYTES && !(is_empty && p->freed))
		return 0;
	p->high = used_end(p);
	keep = round_up(p->high, p->chunk) + (is_empty ? p->chunk : TRIM_BYTES);
	least = p->warm > SLICE_BYTES ? p->warm - SLICE_BYTES : 0;
	give_back_after(p, keep > least ? keep : least);
	if (p->warm > keep)
		return 1;
	p->freed = 0;
	return 0;
}

int pool_take(struct pool *p, uint64_t off, uint64_t bytes)
{
	if (off < p->base)
		return -EINVAL;
	return extent_take(p->ranges, off - p->base, bytes);
}

/* Everything before the end of what is in use was populated once and never
 * given back, holes included. */
void pool_settle(struct pool *p, uint64_t table_bytes)
{
	uint64_t used = round_up(p->ranges ? used_end(p) : table_bytes, PAGE);

	collect(p);
	p->high = used;
	p->warm = p->bytes;
	give_back_after(p, used);
}
