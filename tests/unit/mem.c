/* SPDX-License-Identifier: MIT */
#include "mem.h"

#include "memory.h"
#include "tap.h"

#include <stdlib.h>

TEST(memory_is_zeroed_and_as_large_as_asked)
{
	enum { BYTES = 10000 };
	char *mem = shmq__mem_get(BYTES);

	CHECK(mem);
	for (int i = 0; i < BYTES; i++)
		CHECK_EQ(mem[i], 0);
	memset(mem, 1, BYTES);
	shmq__mem_put(mem, BYTES);
	shmq__mem_put(NULL, BYTES);
}

TEST(what_stands_apart_shares_no_line)
{
	enum { APART = 128, N = 16 };
	char *mem[N];
	int i, k;

	for (i = 0; i < N; i++) {
		mem[i] = shmq__mem_apart(APART + 1, APART);
		CHECK(mem[i] && (uintptr_t)mem[i] % APART == 0);
		for (k = 0; k < 2 * APART; k++)
			CHECK_EQ(mem[i][k], 0);
		memset(mem[i], 1, 2 * APART);
	}
	for (i = 0; i < N; i++)
		free(mem[i]);
}

TEST(a_shortage_is_told)
{
	scarce_begin(1);
	CHECK(!shmq__mem_get(4096));
	CHECK(scarce_end());
	scarce_begin(1);
	CHECK(!shmq__mem_apart(1, 128));
	CHECK(scarce_end());
}
