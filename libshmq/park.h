/* SPDX-License-Identifier: MIT
 *
 * park: sleep on any number of bells.
 *
 * Up to 127 go to the kernel in one futex_waitv.  Beyond that, or on a
 * kernel without it, threads of this set wait on the rest and relay: each
 * sleeps on its share and, when woken, wakes the caller through a word of
 * this process.  They are made when first needed and kept.  One caller at
 * a time.
 */
#ifndef SHMQ_PARK_H
#define SHMQ_PARK_H

#include "bell.h"

struct shmq__park;

/* n bells, whose list the caller keeps until shmq__park_free(), and a word that
 * whoever changes it wakes always, or NULL. */
int shmq__park_create(struct lay_bell *const *bell, unsigned n, const shmq_au32 *also,
		      enum shmq__fence fence, struct shmq__park **out);
void shmq__park_free(struct shmq__park *park);

/* S1 to S3 on all bells with one membarrier. */
void shmq__park_arm(struct shmq__park *park);

/* S5; as shmq__bell_sleep(). */
int shmq__park_sleep(struct shmq__park *park, uint64_t deadline, const shmq_au32 *interrupt);

#endif
