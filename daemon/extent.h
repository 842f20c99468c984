/* SPDX-License-Identifier: MIT
 *
 * extent: which byte ranges of a sparse slab are free.  Only bookkeeping:
 * no memory is touched, so a set can be rebuilt from the registry by taking
 * what it says is in use.  One thread.
 */
#ifndef SHMQ_EXTENT_H
#define SHMQ_EXTENT_H

#include <stdint.h>

struct extent;

/* A set in which [0, bytes) is free.  0, -EINVAL (no bytes) or -ENOMEM. */
int extent_create(uint64_t bytes, struct extent **out);
void extent_destroy(struct extent *e);

/* First fit from the start: take `bytes` at a multiple of `align` (a power
 * of two; 0 is 1) and say where.  0, -ENOSPC, -EINVAL, or -ENOMEM; nothing has
 * changed on failure. */
int extent_alloc(struct extent *e, uint64_t bytes, uint64_t align, uint64_t *off);

/* Take exactly [off, off + bytes).  0; -EEXIST if any byte of it is in use;
 * -EINVAL if it is empty or leaves the slab; -ENOMEM. */
int extent_take(struct extent *e, uint64_t off, uint64_t bytes);

/* Give [off, off + bytes) back.  0; -EEXIST if any byte of it is free already;
 * -EINVAL if it is empty or leaves the slab; never -ENOMEM as long as what
 * is given back is something that was taken whole. */
int extent_free(struct extent *e, uint64_t off, uint64_t bytes);

/* Call fn for each free range, lowest first; it must not change the set. */
void extent_each_free(const struct extent *e, void (*fn)(uint64_t off, uint64_t bytes, void *arg),
		      void *arg);

uint64_t extent_bytes(const struct extent *e);      /* of the slab */
uint64_t extent_free_bytes(const struct extent *e); /* in all free ranges */

#endif
