/* SPDX-License-Identifier: MIT */
#include "shmem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

int shmq__shmem_create(const char *name, uint64_t bytes, unsigned page_shift)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd, error;

	if (page_shift != 12)
		flags |= MFD_HUGETLB | (page_shift << MFD_HUGE_SHIFT);
	fd = memfd_create(name, flags);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600) || ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, SEALS)) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

static int reopen(int fd, int flags)
{
	char path[40];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

int shmq__shmem_reopen_readonly(int fd)
{
	return reopen(fd, O_RDONLY);
}

int shmq__shmem_reopen_writable(int fd)
{
	return reopen(fd, O_RDWR);
}

int shmq__shmem_is_sealed(int fd, uint64_t bytes)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS)
		return 0;
	return !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes;
}

int shmq__shmem_map(int fd, uint64_t off, uint64_t bytes, int prot, void **out)
{
	void *mem = mmap(NULL, bytes, prot, MAP_SHARED, fd, (off_t)off);

	if (mem == MAP_FAILED)
		return -errno;
	if (madvise(mem, bytes, MADV_DONTFORK) || madvise(mem, bytes, MADV_DONTDUMP)) {
		int error = -errno;

		munmap(mem, bytes);
		return error;
	}
	*out = mem;
	return 0;
}

void shmq__shmem_unmap(void *mem, uint64_t bytes)
{
	if (mem)
		munmap(mem, bytes);
}

int shmq__shmem_punch(int fd, uint64_t off, uint64_t bytes)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)bytes))
		return -errno;
	return 0;
}
