/* SPDX-License-Identifier: MIT
 *
 * recover: repair what a dead process left in a topic.
 *
 * May be run by the supervisor or by any attached publisher that has
 * proof of death, by several at once, and again after a recoverer died:
 * every step is a compare-and-swap of exactly the word that was seen.
 */
#ifndef SHMQ_RECOVER_H
#define SHMQ_RECOVER_H

#include "topic.h"

/* Void every claim that client `id` of generation `gen` left in the rings of
 * `topic` from its publisher member `m`, and, where it was the exclusive
 * publisher, the visible rest of an atomic batch it did not finish.  Then
 * ring the bells.  The topic must be attached writable.  Nothing is done
 * once the registry's generation of the id has moved on.  Returns the
 * number of slots voided. */
unsigned shmq__recover_publisher(struct shmq__topic *topic, const struct lay_member *m);

/* 1 if a claim of `m` is seen near its lower bound: by a look at a few slots,
 * so that who recovers much can begin where others are kept waiting.  It
 * proves nothing: more publishers may have taken the claim out of sight. */
int shmq__recover_sees_claim(const struct shmq__topic *topic, const struct lay_member *m);

/* Void what client `id` of the current generation `gen` left in one
 * partition of a shared topic, where no member of the roster tells from
 * which seq on. */
unsigned shmq__recover_claims(struct shmq__topic *topic, uint32_t partition, unsigned client,
			      uint64_t gen);

/* Void the one claim `seen` at seq if its owner is client id/gen.  1 if this
 * call voided it. */
int shmq__recover_slot(struct shmq__topic *topic, uint32_t partition, uint64_t seq, uint64_t seen,
		       uint64_t gen);

#endif
