/* SPDX-License-Identifier: MIT */
#include "histogram.h"

#include <math.h>
#include <stdio.h>

#define POINTS_PER_DECADE 8
#define DECADES 4 /* the last point is 99.99 */

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	unsigned i;

	if (!from->count)
		return;
	if (!into->count || from->least < into->least)
		into->least = from->least;
	if (from->most > into->most)
		into->most = from->most;
	into->count += from->count;
	for (i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

/* The middle of bucket i. */
static uint64_t middle(unsigned i)
{
	unsigned s = i < 2 * HISTOGRAM_STEPS ? 0 : i / HISTOGRAM_STEPS - 1;

	return ((uint64_t)(i - s * HISTOGRAM_STEPS) << s) + (UINT64_C(1) << s) / 2;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
	uint64_t rank = (uint64_t)(q * (double)h->count), v;
	unsigned i;

	if (!h->count || !rank)
		return h->least;
	if (rank >= h->count)
		return h->most;
	for (i = 0; rank >= h->bucket[i]; i++)
		rank -= h->bucket[i];
	v = middle(i);
	return v < h->least ? h->least : v > h->most ? h->most : v;
}

void histogram_print(const struct histogram *h, const char *name, double ns_per_unit)
{
	int i;

	for (i = 0; i <= POINTS_PER_DECADE * DECADES; i++) {
		double q = 1 - pow(10, -(double)i / POINTS_PER_DECADE);

		printf("curve %s %.6g %.6g\n", name, 100 * q,
		       ns_per_unit * (double)histogram_quantile(h, q));
	}
	printf("curve %s 100 %.6g\n", name, ns_per_unit * (double)h->most);
}
