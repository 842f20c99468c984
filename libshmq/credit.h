/* SPDX-License-Identifier: MIT
 *
 * credit: how far a publisher may write before its gating subscribers
 * have read on.  One per publisher and partition; not thread-safe.
 */
#ifndef SHMQ_CREDIT_H
#define SHMQ_CREDIT_H

#include "topic.h"

struct credit_gater {
	struct lay_entry *entry;
	uint64_t gen; /* of the entry */
	uint64_t client_gen;
	uint64_t token;
	unsigned client;
	int absent; /* evicted, or proved dead, by this publisher */
};

enum { CREDIT_FEW = 4 };

/* It stays where it is once it was asked. */
struct shmq__credit {
	struct shmq__topic *topic;
	struct lay_entry *own; /* where others see the limit; writable */
	uint64_t limit;        /* once there is one */
	int is_limited;
	uint32_t partition;
	uint32_t epoch; /* of the roster when it was listed */
	int listed;
	unsigned count, capacity;
	struct credit_gater *gater; /* here as long as they are few */
	struct credit_gater few[CREDIT_FEW];
};

void shmq__credit_init(struct shmq__credit *c, struct shmq__topic *topic, uint32_t partition,
		       struct lay_entry *own);
void shmq__credit_fini(struct shmq__credit *c);

/* Raise and return the limit, as of now.  `next` is a seq that nobody has
 * claimed: cursors beyond it are mad and taken as next.  `want` is a limit
 * the caller would like where no subscriber stands in the way (0 if it has
 * no wish).  Negative only for -ENOMEM, through *error. */
uint64_t shmq__credit_refresh(struct shmq__credit *c, uint64_t next, uint64_t want, int *error);

/* The gater with the lowest cursor; NULL if there is none, or the log is further
 * behind than any.  Valid until the next call. */
struct credit_gater *shmq__credit_holder(struct shmq__credit *c);

/* Look whether a gater's process is provably dead; those that are count as
 * absent from now on.  Returns how many were found. */
unsigned shmq__credit_drop_dead(struct shmq__credit *c);

/* Number of gating subscribers that read this partition. */
unsigned shmq__credit_gaters(struct shmq__credit *c);

#endif
