/* SPDX-License-Identifier: MIT
 *
 * pool: a stretch of a slab from which small ranges are handed out warm.
 *
 * Its first `warm` bytes are populated, a chunk at a time, so that what it
 * hands out never faults for want of memory and costs no process each.  When
 * half a chunk is left, a child begins with the next one, so that nobody waits
 * for it in general.  Who does have to is told to ask again (POOL_COMING),
 * once there is a loop that can tell him when.  Freed ranges stay warm; the
 * end is given back when a lot of it is free.  4 KiB pages only.
 */
#ifndef SHMQ_POOL_H
#define SHMQ_POOL_H

#include "error.h"
#include "extent.h"
#include "loop.h"
#include "place.h"

/* No error, and nothing has changed: memory is on its way, ask again. */
#define POOL_COMING 2

struct pool {
	struct place *place;
	int fd;
	uint64_t base; /* where it starts in the slab */
	uint64_t bytes;
	uint64_t chunk; /* populate so much at a time */
	uint64_t warm;  /* [base, base + warm) is populated */
	uint64_t freed; /* since the end was last given back */
	uint64_t high;  /* end of the highest range handed out */
	pid_t child;    /* populates [warm, ahead), 0 none */
	int result_fd;
	uint64_t ahead;
	int error; /* what the last child for [warm, ahead) failed with */
	struct shmq__why why;
	struct extent *ranges; /* NULL for a table, which only grows */

	struct loop *loop; /* NULL: whoever needs more waits for it */
	struct source source;
	void (*grown)(void *arg);
	void *arg;
};

enum pool_kind { POOL_RANGES, POOL_TABLE };

int pool_open(struct pool *p, enum pool_kind kind, struct place *place, int fd, uint64_t base,
	      uint64_t bytes, uint64_t chunk);
void pool_close(struct pool *p);

/* Begin to populate the first chunk. */
void pool_prepare(struct pool *p);

/* From now on nobody waits inside a call: `grown` is called from the loop
 * after each POOL_COMING, whether it came or failed. */
void pool_serve(struct pool *p, struct loop *loop, void (*grown)(void *arg), void *arg);

/* Table: populate its first `bytes`.  0, POOL_COMING, or as place_plan and
 * place_populate. */
int pool_reach(struct pool *p, uint64_t bytes, struct shmq__why *why);

/* Ranges: *off is an offset in the slab, populated; what is there is left
 * from before.  0, SHMQ_ELIMIT when the stretch is full, or as pool_reach. */
int pool_alloc(struct pool *p, uint64_t bytes, uint64_t align, uint64_t *off,
	       struct shmq__why *why);
void pool_free(struct pool *p, uint64_t off, uint64_t bytes);

/* By how much it would grow, ahead of need included, if that much were
 * allocated; of a table, if its first `bytes` were reached. */
uint64_t pool_growth(struct pool *p, uint64_t bytes, uint64_t align);

/* Give back some of the end if a lot of it is free: 1 if there is more to
 * give, 0 if not. */
int pool_trim(struct pool *p);

/* Adoption: say what is in use (-EEXIST or -EINVAL if that cannot be), then
 * give back everything after it.  For a table, `bytes` in use. */
int pool_take(struct pool *p, uint64_t off, uint64_t bytes);
void pool_settle(struct pool *p, uint64_t table_bytes);

#endif
