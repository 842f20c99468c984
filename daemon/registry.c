/* SPDX-License-Identifier: MIT */
#include "registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "futex.h"
#include "shmem.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)

/* What is populated at a time.  Small enough to be a pause of a millisecond
 * or two, large enough that thousands of topics share one child. */
#define TABLE_CHUNK (64 * KIB)
#define TOPICS_CHUNK (256 * KIB)
#define HEAP_CHUNK (256 * KIB)
#define BELLS_CHUNK (64 * KIB)
#define ENTRIES_CHUNK (256 * KIB)
#define RINGS_CHUNK (4 * MIB)

#define SLAB_TABLE_BYTES LAY_PAGE
_Static_assert(LINK_SLABS_MAX * sizeof(struct lay_slab) <= SLAB_TABLE_BYTES, "slab records");

static int machine_has_pages(unsigned page_shift)
{
	char path[80];

	if (page_shift == 12)
		return 1;
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB",
		 (1ULL << page_shift) / KIB);
	return !access(path, F_OK);
}

unsigned registry_slabs_wanted(struct link_slab slab[LINK_SLABS_MAX])
{
	static const unsigned shifts[] = { 12, 21, 30 };
	unsigned n = 0, i;

	slab[n++] = (struct link_slab){ -1, LAY_SLAB_REGISTRY, 12, LAY_REGISTRY_BYTES };
	slab[n++] = (struct link_slab){ -1, LAY_SLAB_BELL, 12, LAY_BELL_SLAB_BYTES };
	slab[n++] = (struct link_slab){ -1, LAY_SLAB_ENTRY, 12, LAY_ENTRY_SLAB_BYTES };
	for (i = 0; i < sizeof(shifts) / sizeof(shifts[0]); i++) {
		if (!machine_has_pages(shifts[i]))
			continue;
		slab[n++] = (struct link_slab){ -1, LAY_SLAB_RING, shifts[i], LAY_BULK_SLAB_BYTES };
		slab[n++] =
			(struct link_slab){ -1, LAY_SLAB_ARENA, shifts[i], LAY_BULK_SLAB_BYTES };
	}
	for (i = n; i < LINK_SLABS_MAX; i++)
		slab[i] = (struct link_slab){ -1, 0, 0, 0 };
	return n;
}

int registry_make_slab(unsigned id, const struct link_slab *slab)
{
	static const char *const names[] = {
		[LAY_SLAB_REGISTRY] = "registry", [LAY_SLAB_BELL] = "bell",
		[LAY_SLAB_ENTRY] = "entry",       [LAY_SLAB_RING] = "ring",
		[LAY_SLAB_ARENA] = "arena",
	};
	char name[40];

	snprintf(name, sizeof(name), "shmq-%s-%u", names[slab->kind], id);
	return shmq__shmem_create(name, slab->bytes, slab->page_shift);
}

/* ---- formatting ------------------------------------------------------ */

static uint64_t random_nonce(void)
{
	uint64_t n = 0;

	while (!n)
		if (getrandom(&n, sizeof(n), 0) != sizeof(n))
			n = shmq__clock_realtime_ns() ^ (uint64_t)getpid() << 40;
	return n;
}

static void describe_slabs(void *base, const struct link_slab *slab)
{
	struct lay_registry *head = base;
	struct lay_slab *rec = (struct lay_slab *)(void *)((char *)base + LAY_SLABS_OFF);
	unsigned i, count = 0;
	struct stat st;

	for (i = 0; i < LINK_SLABS_MAX; i++) {
		if (slab[i].fd < 0 || fstat(slab[i].fd, &st))
			continue;
		rec[i] = (struct lay_slab){ .kind = slab[i].kind,
					    .page_shift = slab[i].page_shift,
					    .uid = geteuid(),
					    .bytes = slab[i].bytes,
					    .dev = st.st_dev,
					    .ino = st.st_ino };
		count = i + 1;
	}
	store_release(&head->slab_count, count);
}

static int format(struct place *place, const struct link_slab *slab, const char *name,
		  struct shmq__why *why)
{
	struct lay_registry *head;
	void *base;
	int error, is_fresh;

	error = shmq__shmem_map(slab[0].fd, 0, LAY_REGISTRY_BYTES, PROT_READ | PROT_WRITE, &base);
	if (error)
		return error;
	head = base;
	is_fresh = load_acquire(&head->magic) != LAY_MAGIC_REGISTRY;
	if (is_fresh)
		error = place_populate(place, slab[0].fd, 0, LAY_PAGE, 12, SHMQ_NODE_ANY, NULL,
				       NULL, NULL, why);
	if (is_fresh && !error)
		error = place_populate(place, slab[0].fd, LAY_SLABS_OFF, SLAB_TABLE_BYTES, 12,
				       SHMQ_NODE_ANY, NULL, NULL, NULL, why);
	if (is_fresh && !error) {
		head->version = LAY_VERSION;
		head->nonce = random_nonce();
		head->started_ns = shmq__clock_realtime_ns();
		store_relaxed(&head->client_count, 1);
		store_relaxed(&head->next_topic_id, 1);
		store_relaxed(&head->next_entry_gen, 1);
		snprintf(head->name, sizeof(head->name), "%s", name);
		describe_slabs(base, slab);
		store_release(&head->magic, LAY_MAGIC_REGISTRY);
	}
	shmq__shmem_unmap(base, LAY_REGISTRY_BYTES);
	return error;
}

int registry_check(int fd, uint64_t nonce, struct shmq__why *why)
{
	struct lay_registry *head;
	void *mem;
	int error = shmq__shmem_map(fd, 0, LAY_PAGE, PROT_READ, &mem);

	if (error)
		return shmq__fail(why, error, "mapping the registry: %s", strerror(-error));
	head = mem;
	error = shmq__layout_check_registry(head);
	if (error == SHMQ_EVERSION)
		shmq__fail(why, error, "layout is %u, and shmqd %s serves %u to %u", head->version,
			   shmq_version(), LAY_OLDEST, LAY_VERSION);
	else if (error)
		shmq__fail(why, error, "the registry: %s", shmq_strerror(error));
	else if (head->nonce != nonce)
		error = shmq__fail(why, SHMQ_EPROTO, "the registry is that of another bus");
	else if (!load_relaxed(&head->control_pid))
		error = shmq__fail(why, SHMQ_EENDED, "that bus was ended in order");
	shmq__shmem_unmap(mem, LAY_PAGE);
	return error;
}

/* ---- opening --------------------------------------------------------- */

/* Both descriptions of each slab: ours to write, and one to hand out. */
static int add_slabs(struct registry *r, const struct link_slab *slab)
{
	unsigned i;
	int error, fd;

	for (i = 0; i < LINK_SLABS_MAX; i++) {
		if (slab[i].fd < 0)
			continue;
		error = shmq__slabs_add(r->slabs, i, slab[i].fd, SHMQ__SLAB_WRITE);
		if (error)
			return error;
		fd = shmq__shmem_reopen_readonly(slab[i].fd);
		if (fd < 0)
			return fd;
		error = shmq__slabs_add(r->slabs, i, fd, SHMQ__SLAB_READ);
		if (error)
			return error;
		r->slab[i] = slab[i];
	}
	return 0;
}

/* Where that much address space is not to be had, rings are mapped one by
 * one. */
static void map_warm(struct registry *r, int fd)
{
	void *mem;

	if (!shmq__shmem_map(fd, 0, REGISTRY_WARM_MAP, PROT_READ | PROT_WRITE, &mem))
		r->warm = mem;
}

static int open_pools(struct registry *r)
{
	int ring = registry_find_slab(r, LAY_SLAB_RING, 12);
	int arena = registry_find_slab(r, LAY_SLAB_ARENA, 12), error = 0;
	unsigned i;
	struct {
		struct pool *pool;
		enum pool_kind kind;
		int slab;
		uint64_t base, bytes, chunk;
	} spec[] = {
		{ &r->clients, POOL_TABLE, 0, LAY_CLIENTS_OFF,
		  (LAY_CLIENT_MAX + 1) * sizeof(struct lay_client), TABLE_CHUNK },
		{ &r->arenas, POOL_TABLE, 0, LAY_ARENAS_OFF,
		  LAY_ARENAS_MAX * sizeof(struct lay_arena), TABLE_CHUNK },
		{ &r->topics, POOL_TABLE, 0, LAY_TOPICS_OFF,
		  (uint64_t)LAY_TOPICS_MAX * sizeof(struct lay_topic), TOPICS_CHUNK },
		{ &r->heap, POOL_RANGES, 0, LAY_HEAP_OFF, LAY_REGISTRY_BYTES - LAY_HEAP_OFF,
		  HEAP_CHUNK },
		{ &r->bells, POOL_RANGES, 1, 0, LAY_BELL_SLAB_BYTES, BELLS_CHUNK },
		{ &r->entries, POOL_RANGES, 2, 0, LAY_ENTRY_SLAB_BYTES, ENTRIES_CHUNK },
		{ &r->small_rings, POOL_RANGES, ring, 0, REGISTRY_BIG_BASE, RINGS_CHUNK },
		{ &r->small_arenas, POOL_RANGES, arena, 0, REGISTRY_BIG_BASE, RINGS_CHUNK },
	};

	if (ring < 0 || arena < 0)
		return SHMQ_ECORRUPT;
	for (i = 0; i < sizeof(spec) / sizeof(spec[0]) && !error; i++)
		error = pool_open(spec[i].pool, spec[i].kind, r->place,
				  registry_slab_fd(r, (unsigned)spec[i].slab), spec[i].base,
				  spec[i].bytes, spec[i].chunk);
	for (i = 0; i < LINK_SLABS_MAX && !error; i++)
		if (r->slab[i].kind == LAY_SLAB_RING || r->slab[i].kind == LAY_SLAB_ARENA) {
			error = extent_create(LAY_BULK_SLAB_BYTES, &r->big[i]);
			if (!error)
				error = extent_take(r->big[i], 0, REGISTRY_BIG_BASE);
		}
	if (!error)
		map_warm(r, registry_slab_fd(r, (unsigned)ring));
	return error;
}

int registry_open(struct place *place, const struct link_slab slab[LINK_SLABS_MAX],
		  const char *name, struct registry **out, struct shmq__why *why)
{
	struct registry *r = calloc(1, sizeof(*r));
	int error = r ? format(place, slab, name, why) : -ENOMEM;
	unsigned i;

	if (error) {
		free(r);
		return error;
	}
	for (i = 0; i < LINK_SLABS_MAX; i++)
		r->slab[i].fd = -1;
	r->place = place;
	r->chain_mask = 1023;
	r->peer = calloc(LAY_CLIENT_MAX + 1, sizeof(struct peer *));
	r->freed_id = calloc(LAY_CLIENT_MAX + 1, sizeof(r->freed_id[0]));
	r->chain = calloc(r->chain_mask + 1, sizeof(struct topic *));
	r->handle_mask = 1023;
	r->handle = calloc(r->handle_mask + 1, sizeof(r->handle[0]));
	TAILQ_INIT(&r->attached);
	error = r->peer && r->freed_id && r->chain && r->handle ? shmq__slabs_create(&r->slabs) :
								  -ENOMEM;
	if (!error)
		error = add_slabs(r, slab);
	if (!error) {
		r->head = shmq__slabs_registry(r->slabs);
		error = open_pools(r);
	}
	if (error) {
		registry_close(r);
		return shmq__fail(why, error, "opening the slabs: %s", shmq_strerror(error));
	}
	*out = r;
	return 0;
}

static void free_objects(struct registry *r)
{
	struct peer *p;
	uint32_t i;

	while ((p = LIST_FIRST(&r->peers))) {
		while (!LIST_EMPTY(&p->handles)) {
			struct handle *h = LIST_FIRST(&p->handles);

			LIST_REMOVE(h, of_peer);
			free(h);
		}
		while (!LIST_EMPTY(&p->runs)) {
			struct entry_run *run = LIST_FIRST(&p->runs);

			LIST_REMOVE(run, link);
			free(run);
		}
		LIST_REMOVE(p, link);
		free(p);
	}
	for (i = 0; i < r->topic_capacity; i++)
		if (r->topic[i]) {
			registry_detach(r, r->topic[i]);
			free(r->topic[i]);
		}
}

/* Every pool; NULL after the last. */
static struct pool *pool_at(struct registry *r, unsigned i)
{
	struct pool *pools[] = { &r->clients, &r->arenas,  &r->topics,      &r->heap,
				 &r->bells,   &r->entries, &r->small_rings, &r->small_arenas };

	return i < sizeof(pools) / sizeof(pools[0]) ? pools[i] : NULL;
}

void registry_close(struct registry *r)
{
	struct pool *pool;
	unsigned i;

	free_objects(r);
	for (i = 0; (pool = pool_at(r, i)); i++)
		pool_close(pool);
	for (i = 0; i < LINK_SLABS_MAX; i++)
		extent_destroy(r->big[i]);
	shmq__slabs_destroy(r->slabs);
	free(r->peer);
	free(r->freed_id);
	free(r->topic);
	free(r->chain);
	free(r->handle);
	shmq__shmem_unmap(r->warm, REGISTRY_WARM_MAP);
	free(r->free_topic);
	free(r->free_arena);
	free(r);
}

void registry_prepare(struct registry *r)
{
	struct pool *pools[] = { &r->clients, &r->topics,  &r->heap,
				 &r->bells,   &r->entries, &r->small_rings };
	unsigned i;

	for (i = 0; i < sizeof(pools) / sizeof(pools[0]); i++)
		pool_prepare(pools[i]);
	registry_count_bytes(r);
}

void registry_serve(struct registry *r, struct loop *loop, void (*grown)(void *arg), void *arg)
{
	struct pool *pool;
	unsigned i;

	for (i = 0; (pool = pool_at(r, i)); i++)
		pool_serve(pool, loop, grown, arg);
}

int registry_find_slab(const struct registry *r, uint32_t kind, unsigned page_shift)
{
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (r->slab[i].fd >= 0 && r->slab[i].kind == kind &&
		    r->slab[i].page_shift == page_shift)
			return (int)i;
	return -1;
}

int registry_slab_fd(const struct registry *r, unsigned id)
{
	return shmq__slabs_fd(r->slabs, id, SHMQ__SLAB_WRITE);
}

/* What is populated, or set apart to be. */
void registry_count_bytes(struct registry *r)
{
	uint64_t bytes = LAY_PAGE + SLAB_TABLE_BYTES;
	struct pool *pool;
	unsigned i;

	for (i = 0; (pool = pool_at(r, i)); i++)
		bytes += pool->child ? pool->ahead : pool->warm;
	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (r->big[i])
			bytes += LAY_BULK_SLAB_BYTES - REGISTRY_BIG_BASE -
				 extent_free_bytes(r->big[i]);
	store_relaxed(&r->head->bytes_used, bytes);
}

void registry_announce(struct registry *r)
{
	atomic_fetch_add_explicit(&r->head->change, 1, memory_order_release);
	shmq__futex_wake(&r->head->change);
}
