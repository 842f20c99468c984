/* SPDX-License-Identifier: MIT */
#include "mem.h"

#include "memory.h"
#include "tap.h"

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

TEST(a_shortage_is_told)
{
	scarce_begin(1);
	CHECK(!shmq__mem_get(4096));
	CHECK(scarce_end());
}
