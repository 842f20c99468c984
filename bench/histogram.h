/* SPDX-License-Identifier: MIT
 *
 * histogram: how often which duration was seen, where there are too many to
 * keep each.  Buckets grow with what they hold, 64 of them from any power of
 * two to the next, so what is read is within 0.8 % of what was added.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SHIFT 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_SHIFT)
#define HISTOGRAM_BUCKETS ((65u - HISTOGRAM_SHIFT) * HISTOGRAM_STEPS)

/* All zero is empty. */
struct histogram {
	uint64_t count, least, most;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *h, uint64_t v)
{
	unsigned s = v < HISTOGRAM_STEPS ? 0 : 63 - HISTOGRAM_SHIFT - (unsigned)__builtin_clzll(v);

	h->bucket[s * HISTOGRAM_STEPS + (v >> s)]++;
	if (!h->count++ || v < h->least)
		h->least = v;
	if (v > h->most)
		h->most = v;
}

void histogram_merge(struct histogram *into, const struct histogram *from);

/* The duration that a share q (0 to 1) of all is no longer than. */
uint64_t histogram_quantile(const struct histogram *h, double q);

/* Print the distribution as lines `curve <name> <percentile> <ns>`, with as
 * many points for the last thousandth as for what is before, and the longest
 * as percentile 100. */
void histogram_print(const struct histogram *h, const char *name, double ns_per_unit);

#endif
