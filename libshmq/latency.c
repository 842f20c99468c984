/* SPDX-License-Identifier: MIT */
#include "latency.h"

static uint64_t greatest(unsigned bucket)
{
	return shmq__latency_least(bucket + 1) - 1; /* of the last: UINT64_MAX */
}

unsigned shmq__latency_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns < LATENCY_STEPS)
		return (unsigned)ns;
	shift = 63 - (unsigned)__builtin_clzll(ns) - LATENCY_BITS;
	return shift * LATENCY_STEPS + (unsigned)(ns >> shift);
}

uint64_t shmq__latency_least(unsigned bucket)
{
	unsigned shift;

	if (bucket < LATENCY_STEPS)
		return bucket;
	shift = bucket / LATENCY_STEPS - 1;
	return bucket >= LATENCY_BUCKETS ?
		       0 :
		       (uint64_t)(LATENCY_STEPS + bucket % LATENCY_STEPS) << shift;
}

void shmq__latency_reset(struct shmq__latency *h)
{
	unsigned i;

	store_relaxed(&h->count, 0);
	store_relaxed(&h->sum, 0);
	store_relaxed(&h->least, UINT64_MAX);
	store_relaxed(&h->most, 0);
	for (i = 0; i < LATENCY_BUCKETS; i++)
		store_relaxed(&h->bucket[i], 0);
}

static void add(shmq_au64 *counter, uint64_t n)
{
	store_relaxed(counter, load_relaxed(counter) + n);
}

void shmq__latency_count(struct shmq__latency *h, uint64_t ns)
{
	add(&h->bucket[shmq__latency_bucket(ns)], 1);
	add(&h->sum, ns);
	if (ns < load_relaxed(&h->least))
		store_relaxed(&h->least, ns);
	if (ns > load_relaxed(&h->most))
		store_relaxed(&h->most, ns);
	add(&h->count, 1);
}

/* By the sum of the buckets and not by count, which another thread may find one
 * ahead of them or behind. */
static uint64_t total(const struct shmq__latency *h)
{
	struct shmq__latency *m = (struct shmq__latency *)(uintptr_t)h;
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < LATENCY_BUCKETS; i++)
		sum += load_relaxed(&m->bucket[i]);
	return sum;
}

unsigned shmq__latency_bucket_at(const struct shmq__latency *h, double share)
{
	struct shmq__latency *m = (struct shmq__latency *)(uintptr_t)h;
	double want = share * (double)total(h), seen = 0;
	unsigned i, last = 0;

	for (i = 0; i < LATENCY_BUCKETS; i++) {
		uint64_t n = load_relaxed(&m->bucket[i]);

		if (!n)
			continue;
		seen += (double)n;
		last = i;
		if (seen >= want)
			break;
	}
	return last;
}

uint64_t shmq__latency_at(const struct shmq__latency *h, double share)
{
	struct shmq__latency *m = (struct shmq__latency *)(uintptr_t)h;
	uint64_t most = load_relaxed(&m->most), at;

	if (!load_relaxed(&m->count))
		return 0;
	at = greatest(shmq__latency_bucket_at(h, share));
	return at < most ? at : most; /* nothing was longer than the longest */
}

uint64_t shmq__latency_pack(const struct shmq__latency *h)
{
	static const double shares[] = { 0.5, 0.99, 0.999, 1 };
	struct shmq__latency *m = (struct shmq__latency *)(uintptr_t)h;
	uint64_t word = 0;
	unsigned i;

	for (i = 0; load_relaxed(&m->count) && i < 4; i++)
		word |= (uint64_t)(shmq__latency_bucket_at(h, shares[i]) + 1) << 16 * i;
	return word;
}

void shmq__latency_unpack(uint64_t word, uint64_t ns[4])
{
	unsigned i, bucket;

	for (i = 0; i < 4; i++) {
		bucket = (unsigned)(word >> 16 * i) & 0xffff;
		ns[i] = bucket && bucket <= LATENCY_BUCKETS ? greatest(bucket - 1) : 0;
	}
}
