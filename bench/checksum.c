/* SPDX-License-Identifier: MIT */
/* Before anything else is included. */
#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2")
#endif

#include "checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

void checksum_key(uint64_t seed, struct checksum_key *out)
{
	out->seed = seed;
	XXH3_generateSecret_fromSeed(out->secret, seed);
}

uint32_t checksum_wide(const struct checksum_key *key, const void *data, size_t bytes)
{
	return (uint32_t)XXH3_64bits_withSecretandSeed(data, bytes, key->secret,
						       sizeof(key->secret), key->seed);
}
