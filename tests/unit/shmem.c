/* SPDX-License-Identifier: MIT */
#include "shmem.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BYTES = 64 * 4096 };

static int create(void)
{
	int fd = shmq__shmem_create("shmq-test", BYTES, 12);

	CHECK_GE(fd, 0);
	return fd;
}

static uint64_t blocks(int fd)
{
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	return (uint64_t)st.st_blocks;
}

TEST(memory_is_sparse_sealed_and_its_owners_alone)
{
	int fd = create();
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, BYTES);
	CHECK_EQ(st.st_blocks, 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_EQ(shmq__shmem_is_sealed(fd, BYTES), 1);
	CHECK_LT(ftruncate(fd, BYTES / 2), 0);
	CHECK_LT(ftruncate(fd, BYTES * 2), 0);
	CHECK_LT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, BYTES);
	close(fd);
}

TEST(what_is_not_sealed_or_of_another_size_is_not_taken)
{
	int sealed = create(), plain = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING), p[2];

	CHECK_EQ(shmq__shmem_is_sealed(sealed, BYTES - 1), 0);
	CHECK_EQ(shmq__shmem_is_sealed(sealed, 0), 0);
	CHECK_OK(ftruncate(plain, BYTES));
	CHECK_EQ(shmq__shmem_is_sealed(plain, BYTES), 0);
	CHECK_OK(fcntl(plain, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL)); /* may still grow */
	CHECK_EQ(shmq__shmem_is_sealed(plain, BYTES), 0);
	CHECK_OK(pipe(p));
	CHECK_EQ(shmq__shmem_is_sealed(p[0], 0), 0);
	CHECK_EQ(shmq__shmem_is_sealed(-1, BYTES), 0);
	close(p[0]);
	close(p[1]);
	close(plain);
	close(sealed);
}

TEST(a_readonly_descriptor_cannot_be_mapped_writable)
{
	int fd = create(), ro = shmq__shmem_reopen_readonly(fd), rw;
	void *mem = NULL, *view;

	CHECK_GE(ro, 0);
	CHECK_EQ(fcntl(ro, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_EQ(shmq__shmem_is_sealed(ro, BYTES), 1);
	CHECK_EQ(shmq__shmem_map(ro, 0, 4096, PROT_READ | PROT_WRITE, &mem), -EACCES);
	CHECK(!mem);
	CHECK_OK(shmq__shmem_map(fd, 4096, 4096, PROT_READ | PROT_WRITE, &mem));
	CHECK_OK(shmq__shmem_map(ro, 4096, 4096, PROT_READ, &view));
	strcpy(mem, "seen by both");
	CHECK_STR(view, "seen by both");
	CHECK_LT(mprotect(view, 4096, PROT_READ | PROT_WRITE), 0);
	rw = shmq__shmem_reopen_writable(ro); /* the supervisor adopts its own */
	CHECK_GE(rw, 0);
	shmq__shmem_unmap(mem, 4096);
	shmq__shmem_unmap(view, 4096);
	CHECK_OK(shmq__shmem_map(rw, 4096, 4096, PROT_READ | PROT_WRITE, &mem));
	CHECK_STR(mem, "seen by both");
	shmq__shmem_unmap(mem, 4096);
	shmq__shmem_unmap(NULL, 4096);
	close(rw);
	close(ro);
	close(fd);
}

static int is_mapped(void *arg)
{
	unsigned char resident;

	return !mincore(arg, 4096, &resident);
}

TEST(maps_are_not_inherited_by_a_forked_child)
{
	int fd = create();
	void *mem;

	CHECK_OK(shmq__shmem_map(fd, 0, 4096, PROT_READ | PROT_WRITE, &mem));
	memset(mem, 1, 4096);
	CHECK(is_mapped(mem));
	CHECK_EQ(test_join(test_spawn(is_mapped, mem)), 0);
	shmq__shmem_unmap(mem, 4096);
	close(fd);
}

TEST(punched_pages_go_back_and_read_as_zeros)
{
	int fd = create(), ro;
	char *mem;

	CHECK_OK(shmq__shmem_map(fd, 0, BYTES, PROT_READ | PROT_WRITE, (void **)&mem));
	memset(mem, 7, 4 * 4096);
	CHECK_EQ(blocks(fd), 4 * 8);
	CHECK_OK(shmq__shmem_punch(fd, 4096, 2 * 4096));
	CHECK_EQ(blocks(fd), 2 * 8);
	CHECK_EQ(mem[4095], 7);
	CHECK_EQ(mem[4096], 0);
	CHECK_EQ(mem[3 * 4096], 7);
	CHECK_EQ(shmq__shmem_is_sealed(fd, BYTES), 1);
	ro = shmq__shmem_reopen_readonly(fd);
	CHECK_EQ(shmq__shmem_punch(ro, 0, 4096), -EBADF);
	CHECK_EQ(mem[0], 7);
	shmq__shmem_unmap(mem, BYTES);
	close(ro);
	close(fd);
}

TEST(what_cannot_be_made_or_mapped_is_an_error)
{
	void *mem = NULL;
	int fd = create();

	CHECK_LT(shmq__shmem_create("x", UINT64_MAX, 12), 0);
	CHECK_LT(shmq__shmem_create("x", 1 << 21, 13), 0); /* no such page */
	CHECK_EQ(shmq__shmem_map(fd, 1, 4096, PROT_READ, &mem), -EINVAL);
	CHECK_EQ(shmq__shmem_map(fd, 0, 0, PROT_READ, &mem), -EINVAL);
	CHECK_EQ(shmq__shmem_map(-1, 0, 4096, PROT_READ, &mem), -EBADF);
	CHECK_EQ(shmq__shmem_reopen_readonly(-1), -ENOENT);
	CHECK(!mem);
	close(fd);
}

TEST(an_enormous_slab_costs_nothing)
{
	int fd = shmq__shmem_create("x", UINT64_C(1) << 46, 12);

	CHECK_GE(fd, 0);
	CHECK_EQ(blocks(fd), 0);
	close(fd);
}
