/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "shmem.h"
#include "slabs.h"
#include "tap.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static int memory(uint64_t bytes)
{
	int fd = shmq__shmem_create("shmq-test", bytes, 12);

	CHECK_GE(fd, 0);
	return fd;
}

/* A registry's descriptor with that header. */
static int registry(uint64_t magic, uint32_t version)
{
	struct lay_registry head = { .magic = magic, .version = version };
	int fd = memory(LAY_REGISTRY_BYTES);

	CHECK_EQ(pwrite(fd, &head, sizeof(head), 0), sizeof(head));
	return fd;
}

static struct shmq__slabs *set_up(void)
{
	struct shmq__slabs *s;
	struct lay_registry *r;

	CHECK_OK(shmq__slabs_create(&s));
	CHECK(!shmq__slabs_registry(s));
	CHECK_OK(
		shmq__slabs_add(s, 0, registry(LAY_MAGIC_REGISTRY, LAY_VERSION), SHMQ__SLAB_WRITE));
	r = shmq__slabs_registry(s);
	CHECK(r);
	store_relaxed(&r->slab_count, 10);
	return s;
}

static void describe(struct shmq__slabs *s, unsigned id, enum lay_slab_kind kind, uint64_t bytes)
{
	struct lay_slab *rec = shmq__slabs_slab(s, id);

	CHECK(rec);
	rec->kind = kind;
	rec->page_shift = 12;
	rec->bytes = bytes;
}

TEST(the_registry_comes_first)
{
	struct shmq__slabs *s;
	int before;

	CHECK_OK(shmq__slabs_create(&s));
	before = test_fd_count();
	CHECK_EQ(shmq__slabs_add(s, 1, memory(LAY_BELL_SLAB_BYTES), SHMQ__SLAB_WRITE),
		 SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_add(s, 0, registry(0, LAY_VERSION), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_add(s, 0, registry(LAY_MAGIC_REGISTRY, LAY_VERSION + 1),
				 SHMQ__SLAB_WRITE),
		 SHMQ_EVERSION);
	CHECK_EQ(shmq__slabs_add(s, 0, memory(4096), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	CHECK_EQ(test_fd_count(), before); /* what is refused is closed */
	CHECK(!shmq__slabs_registry(s));
	CHECK(!shmq__slabs_client(s, 1));
	CHECK(!shmq__slabs_topic(s, 0));
	CHECK(!shmq__slabs_arena(s, 0));
	CHECK(!shmq__slabs_slab(s, 0));
	CHECK(!shmq__slabs_at(s, LAY_REF(0, 8), 8));
	CHECK_OK(shmq__slabs_add(s, 0, registry(LAY_MAGIC_REGISTRY, LAY_VERSION), SHMQ__SLAB_READ));
	CHECK(shmq__slabs_registry(s));
	shmq__slabs_destroy(s);
	shmq__slabs_destroy(NULL);
}

TEST(a_slab_must_be_what_the_registry_says)
{
	struct shmq__slabs *s = set_up();
	int before = test_fd_count(), plain;

	CHECK_EQ(shmq__slabs_add(s, 1, memory(4096), SHMQ__SLAB_WRITE),
		 SHMQ_ECORRUPT); /* no kind */
	CHECK_EQ(shmq__slabs_add(s, 99, memory(4096), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	describe(s, 1, LAY_SLAB_REGISTRY, LAY_REGISTRY_BYTES); /* a second one */
	CHECK_EQ(shmq__slabs_add(s, 1, memory(LAY_REGISTRY_BYTES), SHMQ__SLAB_WRITE),
		 SHMQ_ECORRUPT);
	describe(s, 1, (enum lay_slab_kind)6, 4096);
	CHECK_EQ(shmq__slabs_add(s, 1, memory(4096), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	describe(s, 1, LAY_SLAB_RING, LAY_BULK_SLAB_BYTES * 2);
	CHECK_EQ(shmq__slabs_add(s, 1, memory(4096), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	describe(s, 1, LAY_SLAB_RING, 8192);
	shmq__slabs_slab(s, 1)->page_shift = 11;
	CHECK_EQ(shmq__slabs_add(s, 1, memory(8192), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	shmq__slabs_slab(s, 1)->page_shift = 31;
	CHECK_EQ(shmq__slabs_add(s, 1, memory(8192), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	shmq__slabs_slab(s, 1)->page_shift = 12;
	CHECK_EQ(shmq__slabs_add(s, 1, memory(4096), SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	plain = memfd_create("x", MFD_CLOEXEC);
	CHECK_OK(ftruncate(plain, 8192));
	CHECK_EQ(shmq__slabs_add(s, 1, plain, SHMQ__SLAB_WRITE), SHMQ_ECORRUPT);
	CHECK_EQ(test_fd_count(), before);
	CHECK_EQ(shmq__slabs_fd(s, 1, SHMQ__SLAB_WRITE), -1);
	CHECK_OK(shmq__slabs_add(s, 1, memory(8192), SHMQ__SLAB_WRITE));
	CHECK_EQ(test_fd_count(), before + 1);
	shmq__slabs_destroy(s);
}

TEST(a_slab_that_is_known_is_not_kept_twice)
{
	struct shmq__slabs *s = set_up();
	int first = memory(8192), before;

	describe(s, 3, LAY_SLAB_RING, 8192);
	CHECK_OK(shmq__slabs_add(s, 3, first, SHMQ__SLAB_WRITE));
	before = test_fd_count();
	CHECK_OK(shmq__slabs_add(s, 3, memory(8192), SHMQ__SLAB_WRITE));
	CHECK_EQ(test_fd_count(), before);
	CHECK_EQ(shmq__slabs_fd(s, 3, SHMQ__SLAB_WRITE), first);
	CHECK_EQ(shmq__slabs_fd(s, 3, SHMQ__SLAB_READ), -1);
	CHECK_OK(shmq__slabs_add(s, 3, shmq__shmem_reopen_readonly(first), SHMQ__SLAB_READ));
	CHECK_GE(shmq__slabs_fd(s, 3, SHMQ__SLAB_READ), 0);
	CHECK_EQ(test_fd_count(), before + 1);
	CHECK_EQ(shmq__slabs_fd(s, 77, SHMQ__SLAB_READ), -1);
	shmq__slabs_destroy(s);
}

TEST(references_into_whole_slabs_are_checked)
{
	struct shmq__slabs *s = set_up();
	char *base = (char *)shmq__slabs_registry(s);

	describe(s, 1, LAY_SLAB_BELL, LAY_BELL_SLAB_BYTES);
	describe(s, 2, LAY_SLAB_RING, 8192);
	CHECK_OK(shmq__slabs_add(s, 1, memory(LAY_BELL_SLAB_BYTES), SHMQ__SLAB_WRITE));
	CHECK_OK(shmq__slabs_add(s, 2, memory(8192), SHMQ__SLAB_WRITE));
	CHECK(shmq__slabs_at(s, LAY_REF(0, 4096), 64) == base + 4096);
	CHECK(!shmq__slabs_at(s, 0, 64)); /* none */
	CHECK(!shmq__slabs_at(s, LAY_REF(0, 4100), 64));
	CHECK(!shmq__slabs_at(s, LAY_REF(9, 4096), 64));
	CHECK(!shmq__slabs_at(s, LAY_REF(2, 4096), 64)); /* not mapped whole */
	CHECK(shmq__slabs_at(s, LAY_REF(1, 0), LAY_BELL_SLAB_BYTES));
	CHECK(!shmq__slabs_at(s, LAY_REF(1, 0), LAY_BELL_SLAB_BYTES + 1));
	CHECK(!shmq__slabs_at(s, LAY_REF(1, 8), LAY_BELL_SLAB_BYTES));
	CHECK(shmq__slabs_at(s, LAY_REF(1, LAY_BELL_SLAB_BYTES - 8), 8));
	CHECK(!shmq__slabs_at(s, LAY_REF(1, LAY_BELL_SLAB_BYTES - 8), 16));
	CHECK(!shmq__slabs_at(s, LAY_REF(1, LAY_BELL_SLAB_BYTES), 0));
	CHECK(!shmq__slabs_at(s, LAY_REF(1, 8), UINT64_MAX));
	CHECK(!shmq__slabs_at(s, UINT64_MAX & ~UINT64_C(7), 8));
	CHECK(shmq__slabs_at_writable(s, LAY_REF(1, 64), 64) ==
	      shmq__slabs_at(s, LAY_REF(1, 64), 64));
	CHECK(!shmq__slabs_at_writable(s, LAY_REF(1, LAY_BELL_SLAB_BYTES), 8));
	CHECK(!shmq__slabs_at_writable(s, LAY_REF(9, 4096), 64));
	describe(s, 3, LAY_SLAB_BELL, LAY_BELL_SLAB_BYTES);
	CHECK_OK(shmq__slabs_add(s, 3, memory(LAY_BELL_SLAB_BYTES), SHMQ__SLAB_READ));
	CHECK_OK(shmq__slabs_add(s, 3, memory(LAY_BELL_SLAB_BYTES), SHMQ__SLAB_WRITE));
	CHECK(shmq__slabs_at(s, LAY_REF(3, 64), 64)); /* as it was mapped first */
	CHECK(!shmq__slabs_at_writable(s, LAY_REF(3, 64), 64));
	shmq__slabs_destroy(s);
}

TEST(ranges_are_mapped_by_whole_pages_in_the_mode_held)
{
	struct shmq__slabs *s = set_up();
	char *a, *b;
	void *out = NULL;
	int fd = memory(4 * 4096);

	describe(s, 2, LAY_SLAB_RING, 4 * 4096);
	CHECK_OK(shmq__slabs_add(s, 2, shmq__shmem_reopen_readonly(fd), SHMQ__SLAB_READ));
	CHECK_EQ(shmq__slabs_map(s, LAY_REF(2, 4096), 64, SHMQ__SLAB_WRITE, &out), -EACCES);
	CHECK_OK(shmq__slabs_map(s, LAY_REF(2, 4096 - 64), 128, SHMQ__SLAB_READ, (void **)&b));
	CHECK_OK(shmq__slabs_add(s, 2, fd, SHMQ__SLAB_WRITE));
	CHECK_OK(shmq__slabs_map(s, LAY_REF(2, 4096 - 64), 128, SHMQ__SLAB_WRITE, (void **)&a));
	memset(a, 'x', 128);
	CHECK_MEM(b, a, 128);
	CHECK_LT(mprotect((void *)((uintptr_t)b & ~UINT64_C(4095)), 4096, PROT_READ | PROT_WRITE),
		 0);
	CHECK_EQ(shmq__slabs_map(s, LAY_REF(2, 0), 0, SHMQ__SLAB_READ, &out), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_map(s, 0, 8, SHMQ__SLAB_READ, &out), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_map(s, LAY_REF(2, 4), 8, SHMQ__SLAB_READ, &out), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_map(s, LAY_REF(8, 0), 8, SHMQ__SLAB_READ, &out), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_map(s, LAY_REF(2, 4096), 3 * 4096 + 1, SHMQ__SLAB_READ, &out),
		 SHMQ_ECORRUPT);
	CHECK_EQ(shmq__slabs_map(s, LAY_REF(2, 4096), UINT64_MAX, SHMQ__SLAB_READ, &out),
		 SHMQ_ECORRUPT);
	CHECK(!out);
	shmq__slabs_unmap(s, LAY_REF(2, 4096 - 64), 128, a);
	shmq__slabs_unmap(s, LAY_REF(2, 4096 - 64), 128, b);
	shmq__slabs_unmap(s, LAY_REF(2, 0), 128, NULL);
	shmq__slabs_destroy(s);
}

TEST(a_writable_slab_serves_readers_too)
{
	struct shmq__slabs *s = set_up();
	void *mem;

	describe(s, 2, LAY_SLAB_RING, 4096);
	CHECK_OK(shmq__slabs_add(s, 2, memory(4096), SHMQ__SLAB_WRITE));
	CHECK_OK(shmq__slabs_map(s, LAY_REF(2, 0), 4096, SHMQ__SLAB_READ, &mem));
	CHECK_EQ(*(char *)mem, 0);
	shmq__slabs_unmap(s, LAY_REF(2, 0), 4096, mem);
	shmq__slabs_destroy(s);
}

TEST(an_entry_slab_is_read_whole_and_written_by_page)
{
	struct shmq__slabs *s = set_up();
	int fd = memory(LAY_ENTRY_SLAB_BYTES);
	struct lay_entry *whole;
	void *own;

	describe(s, 4, LAY_SLAB_ENTRY, LAY_ENTRY_SLAB_BYTES);
	CHECK_OK(shmq__slabs_add(s, 4, shmq__shmem_reopen_readonly(fd), SHMQ__SLAB_READ));
	CHECK_OK(shmq__slabs_add(s, 4, fd, SHMQ__SLAB_WRITE));
	whole = shmq__slabs_at(s, LAY_REF(4, 8192 + 128), sizeof(*whole));
	CHECK(whole);
	CHECK_OK(
		shmq__slabs_map(s, LAY_REF(4, 8192 + 128), sizeof(*whole), SHMQ__SLAB_WRITE, &own));
	store_relaxed(&((struct lay_entry *)own)->pos, 4711);
	CHECK_EQ(load_relaxed(&whole->pos), 4711);
	CHECK_LT(mprotect((void *)((uintptr_t)whole & ~UINT64_C(4095)), 4096,
			  PROT_READ | PROT_WRITE),
		 0);
	shmq__slabs_unmap(s, LAY_REF(4, 8192 + 128), sizeof(*whole), own);
	shmq__slabs_destroy(s);
}

TEST(records_out_of_range_are_not_there)
{
	struct shmq__slabs *s = set_up();
	struct lay_registry *r = shmq__slabs_registry(s);

	CHECK(!shmq__slabs_client(s, 0));
	CHECK(shmq__slabs_client(s, 1));
	CHECK(shmq__slabs_client(s, LAY_CLIENT_MAX));
	CHECK(!shmq__slabs_client(s, LAY_CLIENT_MAX + 1));
	CHECK(!shmq__slabs_topic(s, 0));
	store_relaxed(&r->topic_count, 3);
	CHECK(shmq__slabs_topic(s, 2) == shmq__slabs_topic(s, 0) + 2);
	CHECK(!shmq__slabs_topic(s, 3));
	store_relaxed(&r->topic_count, UINT32_MAX); /* gone mad after it was checked */
	CHECK(!shmq__slabs_topic(s, LAY_TOPICS_MAX));
	CHECK(!shmq__slabs_arena(s, 0));
	store_relaxed(&r->arena_count, UINT32_MAX);
	CHECK(shmq__slabs_arena(s, LAY_ARENAS_MAX - 1));
	CHECK(!shmq__slabs_arena(s, LAY_ARENAS_MAX));
	CHECK(!shmq__slabs_slab(s, 10));
	store_relaxed(&r->slab_count, UINT32_MAX);
	CHECK(shmq__slabs_slab(s, LAY_SLABS_MAX - 1));
	CHECK(!shmq__slabs_slab(s, LAY_SLABS_MAX));
	shmq__slabs_destroy(s);
}

TEST(no_address_space_is_a_limit_of_the_system)
{
	struct shmq__slabs *s = set_up();
	struct rlimit old, low;
	void *mem = NULL;
	int rc;

	describe(s, 2, LAY_SLAB_RING, LAY_BULK_SLAB_BYTES);
	CHECK_OK(shmq__slabs_add(s, 2, memory(LAY_BULK_SLAB_BYTES), SHMQ__SLAB_WRITE));
	CHECK_OK(getrlimit(RLIMIT_AS, &old));
	low = old;
	low.rlim_cur = 1 << 20;
	CHECK_OK(setrlimit(RLIMIT_AS, &low));
	rc = shmq__slabs_map(s, LAY_REF(2, 4096), 1 << 20, SHMQ__SLAB_WRITE, &mem);
	CHECK_OK(setrlimit(RLIMIT_AS, &old));
	CHECK_EQ(rc, SHMQ_ELIMIT);
	CHECK(!mem);
	shmq__slabs_destroy(s);
}

/* ---- readers while the table grows --------------------------------------------- */

struct growing {
	struct shmq__slabs *slabs;
	_Atomic int done;
};

enum { GROWN = 200 };

static void *look_while_it_grows(void *arg)
{
	struct growing *g = arg;
	uint64_t state = (uintptr_t)&g;

	while (!load_acquire(&g->done)) {
		unsigned id = 1 + (unsigned)(fake_random(&state) % GROWN);
		int fd = shmq__slabs_fd(g->slabs, id, SHMQ__SLAB_WRITE);
		void *mem;

		if (fd < 0)
			continue;
		CHECK_OK(shmq__slabs_map(g->slabs, LAY_REF(id, 0), 4096, SHMQ__SLAB_READ, &mem));
		CHECK_EQ(*(uint32_t *)mem, id);
		shmq__slabs_unmap(g->slabs, LAY_REF(id, 0), 4096, mem);
	}
	return NULL;
}

TEST(readers_are_safe_while_slabs_are_added)
{
	struct growing g = { .slabs = set_up() };
	pthread_t thread[2];

	store_relaxed(&shmq__slabs_registry(g.slabs)->slab_count, GROWN + 1);
	for (int i = 0; i < 2; i++)
		thread[i] = fake_thread(look_while_it_grows, &g);
	for (unsigned id = 1; id <= GROWN; id++) {
		int fd = memory(4096);

		CHECK_EQ(pwrite(fd, &id, sizeof(id), 0), sizeof(id));
		describe(g.slabs, id, LAY_SLAB_RING, 4096);
		CHECK_OK(shmq__slabs_add(g.slabs, id, fd, SHMQ__SLAB_WRITE));
	}
	store_release(&g.done, 1);
	fake_join(thread[0]);
	fake_join(thread[1]);
	shmq__slabs_destroy(g.slabs);
}
