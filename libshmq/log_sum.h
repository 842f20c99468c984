/* SPDX-License-Identifier: MIT
 *
 * log_sum: the checksum of long records, by vectors as wide as this processor
 * has them.  The value is the same; log_record chooses.
 */
#ifndef SHMQ_LOG_SUM_H
#define SHMQ_LOG_SUM_H

#include <stddef.h>
#include <stdint.h>

/* Up to there it is made without vectors. */
#define LOG_SUM_WIDE_BYTES 241u

static inline int log_sum_has_wide(void)
{
#if defined(__x86_64__)
	return __builtin_cpu_supports("avx2") != 0;
#else
	return 0;
#endif
}

/* A seed, and what XXH3 makes of it before it looks at long data: once for many. */
struct log_key {
	uint64_t seed;
	unsigned char secret[192];
};

/* Where there are some: all of XXH3, 64 bits of it. */
uint64_t shmq__log_sum_wide(uint64_t seed, const void *data, size_t bytes);
uint64_t shmq__log_sum_wide_by(const struct log_key *key, const void *data, size_t bytes);

#endif
