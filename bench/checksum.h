/* SPDX-License-Identifier: MIT
 *
 * checksum: that which a record of a log has (shmq_log(5)), made as fast as the
 * library makes it.
 */
#ifndef BENCH_CHECKSUM_H
#define BENCH_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

struct checksum_key {
	uint64_t seed;
	unsigned char secret[192];
};

void checksum_key(uint64_t seed, struct checksum_key *out);

/* By vectors of 32 bytes; only where there are some. */
uint32_t checksum_wide(const struct checksum_key *key, const void *data, size_t bytes);

#endif
