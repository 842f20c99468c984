/* SPDX-License-Identifier: MIT
 *
 * pool: a stretch of a slab from which small ranges are handed out warm.
 *
 * Its first `warm` bytes are populated, a chunk at a time, so that what it
 * hands out never faults for want of memory and costs no process each.  When
 * half a chunk is left, a child begins with the next one, so that nobody waits
 * for it in general.  Freed ranges stay warm; the end is given back when a
 * lot of it is free.  4 KiB pages only.
 */
#ifndef SHMQ_POOL_H
#define SHMQ_POOL_H

#include "extent.h"
#include "place.h"

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
	struct extent *ranges; /* NULL for a table, which only grows */
};

enum pool_kind { POOL_RANGES, POOL_TABLE };

int pool_open(struct pool *p, enum pool_kind kind, struct place *place, int fd, uint64_t base,
	      uint64_t bytes, uint64_t chunk);
void pool_close(struct pool *p);

/* Begin to populate the first chunk. */
void pool_prepare(struct pool *p);

/* Table: populate its first `bytes`.  0 or as place_plan and place_populate. */
int pool_reach(struct pool *p, uint64_t bytes, struct shmq__why *why);

/* Ranges: *off is an offset in the slab, populated; what is there is left
 * from before.  0, SHMQ_ELIMIT when the stretch is full, or as pool_reach. */
int pool_alloc(struct pool *p, uint64_t bytes, uint64_t align, uint64_t *off,
	       struct shmq__why *why);
void pool_free(struct pool *p, uint64_t off, uint64_t bytes);

/* Give back some of the end if a lot of it is free: 1 if there is more to
 * give, 0 if not. */
int pool_trim(struct pool *p);

/* Adoption: say what is in use (-EEXIST or -EINVAL if that cannot be), then
 * give back everything after it.  For a table, `bytes` in use. */
int pool_take(struct pool *p, uint64_t off, uint64_t bytes);
void pool_settle(struct pool *p, uint64_t table_bytes);

#endif
