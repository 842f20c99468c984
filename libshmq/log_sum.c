/* SPDX-License-Identifier: MIT */
/* Before anything else is included: what follows is compiled for vectors of
 * 32 bytes, and called where there are some. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2")
#endif

#include "log_sum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t shmq__log_sum_wide(uint64_t seed, const void *data, size_t bytes)
{
	return XXH3_64bits_withSeed(data, bytes, seed);
}

__attribute__((flatten)) uint64_t shmq__log_sum_wide_by(const struct log_key *key, const void *data,
							size_t bytes)
{
	return XXH3_64bits_withSecretandSeed(data, bytes, key->secret, sizeof(key->secret),
					     key->seed);
}
