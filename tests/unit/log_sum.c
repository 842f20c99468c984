/* SPDX-License-Identifier: MIT */
#include "log_sum.h"
#include "tap.h"

#include <stdlib.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

static struct log_key key_of(uint64_t seed)
{
	struct log_key key = { .seed = seed };

	XXH3_generateSecret_fromSeed(key.secret, seed);
	return key;
}

TEST(wide_vectors_make_the_same_sum_of_any_length_and_place)
{
	size_t most = (size_t)1 << 16;
	unsigned char *mem = malloc(most + 8);

	if (!log_sum_has_wide()) {
		free(mem);
		SKIP("this processor has none");
	}
	CHECK(mem);
	for (size_t i = 0; i < most + 8; i++)
		mem[i] = (unsigned char)(i * 131 >> 3);
	for (size_t bytes = 0; bytes <= most; bytes += bytes < 2100 ? 1 : 4093)
		for (size_t at = 0; at < 8; at += 3) {
			struct log_key key = key_of(bytes ^ 42);

			CHECK_EQ(shmq__log_sum_wide(bytes ^ 42, mem + at, bytes),
				 XXH3_64bits_withSeed(mem + at, bytes, bytes ^ 42));
			CHECK_EQ(shmq__log_sum_wide_by(&key, mem + at, bytes),
				 XXH3_64bits_withSeed(mem + at, bytes, bytes ^ 42));
		}
	free(mem);
}
