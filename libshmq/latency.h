/* SPDX-License-Identifier: MIT
 *
 * latency: how long messages took, counted in buckets that grow with what they
 * hold: 32 to each power of two, so that a bucket is at most a thirty-second
 * part of its numbers wide, and below 64 each number has its own.
 *
 * One thread counts; any may read meanwhile: each count is whole, and those of
 * a message that is just being counted may be there or not.
 */
#ifndef SHMQ_LATENCY_H
#define SHMQ_LATENCY_H

#include "atomics.h"

#include <stdint.h>

#define LATENCY_BITS 5
#define LATENCY_STEPS (1u << LATENCY_BITS)
#define LATENCY_BUCKETS ((64 - LATENCY_BITS + 1) * LATENCY_STEPS)

struct shmq__latency {
	shmq_au64 count, sum, least, most; /* of nothing: 0, 0, UINT64_MAX, 0 */
	shmq_au64 bucket[LATENCY_BUCKETS];
};

void shmq__latency_reset(struct shmq__latency *h);
void shmq__latency_count(struct shmq__latency *h, uint64_t ns);

/* Bucket of a number, and the least number of a bucket. */
unsigned shmq__latency_bucket(uint64_t ns);
uint64_t shmq__latency_least(unsigned bucket);

/* The bucket in which the smallest number stands that at least that share (0 to
 * 1) of all do not exceed, and the largest number of it.  0 of nothing. */
unsigned shmq__latency_bucket_at(const struct shmq__latency *h, double share);
uint64_t shmq__latency_at(const struct shmq__latency *h, double share);

/* p50, p99, p99.9 and the longest in one word (struct lay_entry), and back. */
uint64_t shmq__latency_pack(const struct shmq__latency *h);
void shmq__latency_unpack(uint64_t word, uint64_t ns[4]);

#endif
