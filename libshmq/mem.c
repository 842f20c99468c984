/* SPDX-License-Identifier: MIT */
#include "mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *shmq__mem_get(size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

void shmq__mem_put(void *mem, size_t bytes)
{
	if (mem)
		munmap(mem, bytes);
}

void *shmq__mem_apart(size_t bytes, size_t apart)
{
	void *mem;

	bytes = (bytes + apart - 1) & ~(apart - 1);
	return posix_memalign(&mem, apart, bytes) ? NULL : memset(mem, 0, bytes);
}
