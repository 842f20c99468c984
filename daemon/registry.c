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

#define SLAB_TABLE_BYTES (LINK_SLABS_MAX * sizeof(struct lay_slab))
_Static_assert(SLAB_TABLE_BYTES % LAY_PAGE == 0, "slab records");

static int machine_has_pages(unsigned page_shift)
{
	char path[80];

	if (page_shift == 12)
		return 1;
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB",
		 (1ULL << page_shift) / KIB);
	return !access(path, F_OK);
}

struct link_slab registry_slab_shape(uint32_t kind, unsigned page_shift)
{
	static const uint64_t bytes[] = {
		[LAY_SLAB_REGISTRY] = LAY_REGISTRY_BYTES, [LAY_SLAB_BELL] = LAY_BELL_SLAB_BYTES,
		[LAY_SLAB_ENTRY] = LAY_ENTRY_SLAB_BYTES,  [LAY_SLAB_RING] = LAY_BULK_SLAB_BYTES,
		[LAY_SLAB_ARENA] = LAY_BULK_SLAB_BYTES,
	};

	return (struct link_slab){
		.fd = -1, .kind = kind, .page_shift = (uint16_t)page_shift, .bytes = bytes[kind]
	};
}

unsigned registry_slabs_wanted(unsigned guests, struct link_slab slab[LINK_SLABS_MAX])
{
	static const unsigned shifts[] = { 12, 21, 30 };
	unsigned n = 0, i;

	slab[n++] = registry_slab_shape(LAY_SLAB_REGISTRY, 12);
	slab[n++] = registry_slab_shape(LAY_SLAB_BELL, 12);
	slab[n++] = registry_slab_shape(LAY_SLAB_ENTRY, 12);
	for (i = 0; i < sizeof(shifts) / sizeof(shifts[0]); i++) {
		if (!machine_has_pages(shifts[i]))
			continue;
		slab[n++] = registry_slab_shape(LAY_SLAB_RING, shifts[i]);
		slab[n++] = registry_slab_shape(LAY_SLAB_ARENA, shifts[i]);
	}
	while (guests-- && n < LINK_SLABS_MAX)
		slab[n++] = registry_slab_shape(LAY_SLAB_ENTRY, 12);
	for (i = n; i < LINK_SLABS_MAX; i++)
		slab[i] = (struct link_slab){ .fd = -1 };
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

static void describe_slab(struct lay_registry *head, unsigned id, const struct link_slab *slab,
			  uint64_t list, uint32_t uid)
{
	struct lay_slab *rec = (struct lay_slab *)(void *)((char *)head + LAY_SLABS_OFF) + id;
	struct stat st;

	if (slab->fd < 0 || fstat(slab->fd, &st))
		return;
	*rec = (struct lay_slab){ .kind = slab->kind,
				  .page_shift = slab->page_shift,
				  .uid = uid,
				  .bytes = slab->bytes,
				  .dev = st.st_dev,
				  .ino = st.st_ino,
				  .list = list };
	if (id >= load_relaxed(&head->slab_count))
		store_release(&head->slab_count, id + 1);
}

/* Entries after the first are for whoever comes. */
static void describe_slabs(struct lay_registry *head, const struct link_slab *slab)
{
	unsigned i, own = 0;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		describe_slab(head, i, &slab[i], 0,
			      slab[i].kind == LAY_SLAB_ENTRY && own++ ? LAY_UID_NONE : geteuid());
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
		describe_slabs(head, slab);
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

/* Both descriptions of a slab: ours to write, and one to hand out. */
static int add_slab(struct registry *r, unsigned id, const struct link_slab *slab)
{
	int error = shmq__slabs_add(r->slabs, id, slab->fd, SHMQ__SLAB_WRITE), fd;

	if (error)
		return error;
	fd = shmq__shmem_reopen_readonly(slab->fd);
	if (fd < 0)
		return fd;
	error = shmq__slabs_add(r->slabs, id, fd, SHMQ__SLAB_READ);
	if (!error)
		r->slab[id] = *slab;
	return error;
}

/* One that the last worker did not come to describe is nobody's. */
static int add_slabs(struct registry *r, const struct link_slab *slab)
{
	unsigned i;
	int error = 0;

	for (i = 0; i < LINK_SLABS_MAX && !error; i++) {
		if (slab[i].fd < 0)
			continue;
		if (i && !registry_slab_record(r, i)->kind)
			describe_slab(shmq__slabs_registry(r->slabs), i, &slab[i], 0, LAY_UID_NONE);
		error = add_slab(r, i, &slab[i]);
	}
	return error;
}

/* Where that much address space is not to be had, rings are mapped one by
 * one. */
static void map_warm(struct registry *r, unsigned ring)
{
	int fd = registry_slab_fd(r, ring);
	void *mem;

	if (!shmq__shmem_map(fd, 0, REGISTRY_WARM_MAP, PROT_READ | PROT_WRITE, &mem))
		r->warm = mem;
	r->warm_slab = ring;
}

static const struct {
	uint64_t bytes, chunk;
} pool_shape[] = {
	[LAY_SLAB_BELL] = { LAY_BELL_SLAB_BYTES, BELLS_CHUNK },
	[LAY_SLAB_ENTRY] = { LAY_ENTRY_SLAB_BYTES, ENTRIES_CHUNK },
	[LAY_SLAB_RING] = { REGISTRY_BIG_BASE, RINGS_CHUNK },
	[LAY_SLAB_ARENA] = { REGISTRY_BIG_BASE, RINGS_CHUNK },
};

/* What is handed out of a slab. */
static int open_ranges(struct registry *r, unsigned id)
{
	uint32_t kind = r->slab[id].kind;
	int error = 0;

	if (r->slab[id].page_shift == 12) {
		r->pool[id] = calloc(1, sizeof(*r->pool[id]));
		error = r->pool[id] ? pool_open(r->pool[id], POOL_RANGES, r->place,
						registry_slab_fd(r, id), 0, pool_shape[kind].bytes,
						pool_shape[kind].chunk) :
				      -ENOMEM;
	}
	if (!error && r->loop && r->pool[id])
		pool_serve(r->pool[id], r->loop, r->grown, r->grown_arg);
	if (error || (kind != LAY_SLAB_RING && kind != LAY_SLAB_ARENA))
		return error;
	error = extent_create(LAY_BULK_SLAB_BYTES, &r->big[id]);
	return error ? error : extent_take(r->big[id], 0, REGISTRY_BIG_BASE);
}

static int open_pools(struct registry *r)
{
	int ring = registry_find_slab(r, LAY_SLAB_RING, 12), error = 0;
	unsigned i;
	struct {
		struct pool *pool;
		enum pool_kind kind;
		uint64_t base, bytes, chunk;
	} spec[] = {
		{ &r->clients, POOL_TABLE, LAY_CLIENTS_OFF,
		  (LAY_CLIENT_MAX + 1) * sizeof(struct lay_client), TABLE_CHUNK },
		{ &r->arenas, POOL_TABLE, LAY_ARENAS_OFF, LAY_ARENAS_MAX * sizeof(struct lay_arena),
		  TABLE_CHUNK },
		{ &r->watches, POOL_TABLE, LAY_WATCHES_OFF,
		  LAY_WATCHES_MAX * sizeof(struct lay_watch), TABLE_CHUNK },
		{ &r->topics, POOL_TABLE, LAY_TOPICS_OFF,
		  (uint64_t)LAY_TOPICS_MAX * sizeof(struct lay_topic), TOPICS_CHUNK },
		{ &r->heap, POOL_RANGES, LAY_HEAP_OFF, LAY_REGISTRY_BYTES - LAY_HEAP_OFF,
		  HEAP_CHUNK },
	};

	if (ring < 0 || registry_find_slab(r, LAY_SLAB_ARENA, 12) < 0)
		return SHMQ_ECORRUPT;
	for (i = 0; i < sizeof(spec) / sizeof(spec[0]) && !error; i++)
		error = pool_open(spec[i].pool, spec[i].kind, r->place, registry_slab_fd(r, 0),
				  spec[i].base, spec[i].bytes, spec[i].chunk);
	for (i = 1; i < LINK_SLABS_MAX && !error; i++)
		if (r->slab[i].fd >= 0)
			error = open_ranges(r, i);
	if (!error)
		map_warm(r, (unsigned)ring);
	return error;
}

int registry_add_slab(struct registry *r, unsigned id, const struct link_slab *slab, uint64_t list,
		      uint32_t uid, struct shmq__why *why)
{
	int error;

	describe_slab(r->head, id, slab, list, uid);
	error = add_slab(r, id, slab);
	if (!error)
		error = open_ranges(r, id);
	return error ? shmq__fail(why, error, "adding a slab: %s", shmq_strerror(error)) : 0;
}

void registry_assign_slab(struct registry *r, unsigned id, uint64_t list, uint32_t uid)
{
	struct lay_slab *rec = shmq__slabs_slab(r->slabs, id);

	rec->list = list;
	__atomic_store_n(&rec->uid, uid, __ATOMIC_RELEASE);
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
	r->uid = geteuid();
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
	struct registry_watch *w;
	struct peer *p;
	uint32_t i;

	while ((w = LIST_FIRST(&r->watches_live))) {
		LIST_REMOVE(w, link);
		free(w);
	}
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

struct pool *registry_next_pool(struct registry *r, unsigned *i)
{
	struct pool *tables[] = { &r->clients, &r->arenas, &r->watches, &r->topics, &r->heap };
	enum { TABLES = sizeof(tables) / sizeof(tables[0]) };

	if (*i < TABLES)
		return tables[(*i)++];
	while (*i < TABLES + LINK_SLABS_MAX)
		if (r->pool[(*i)++ - TABLES])
			return r->pool[*i - 1 - TABLES];
	return NULL;
}

void registry_close(struct registry *r)
{
	struct pool *pool;
	unsigned i;

	free_objects(r);
	for (i = 0; (pool = registry_next_pool(r, &i));)
		pool_close(pool);
	for (i = 0; i < LINK_SLABS_MAX; i++) {
		free(r->pool[i]);
		extent_destroy(r->big[i]);
	}
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
	static const uint32_t kinds[] = { LAY_SLAB_BELL, LAY_SLAB_ENTRY, LAY_SLAB_RING };
	unsigned i;

	pool_prepare(&r->clients);
	pool_prepare(&r->topics);
	pool_prepare(&r->heap);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		pool_prepare(r->pool[registry_find_slab(r, kinds[i], 12)]);
	registry_count_bytes(r);
}

void registry_serve(struct registry *r, struct loop *loop, void (*grown)(void *arg), void *arg)
{
	struct pool *pool;
	unsigned i;

	r->loop = loop;
	r->grown = grown;
	r->grown_arg = arg;
	for (i = 0; (pool = registry_next_pool(r, &i));)
		pool_serve(pool, loop, grown, arg);
}

const struct lay_slab *registry_slab_record(const struct registry *r, unsigned id)
{
	return (struct lay_slab *)(void *)((char *)shmq__slabs_registry(r->slabs) + LAY_SLABS_OFF) +
	       id;
}

int registry_find_slab_of(const struct registry *r, uint32_t kind, unsigned page_shift,
			  uint64_t list, uint32_t uid)
{
	unsigned count = load_relaxed(&shmq__slabs_registry(r->slabs)->slab_count), i;

	for (i = 0; i < count && i < LINK_SLABS_MAX; i++) {
		const struct lay_slab *rec = registry_slab_record(r, i);

		if (r->slab[i].fd >= 0 && r->slab[i].kind == kind &&
		    r->slab[i].page_shift == page_shift && rec->list == list && rec->uid == uid)
			return (int)i;
	}
	return -1;
}

int registry_find_slab(const struct registry *r, uint32_t kind, unsigned page_shift)
{
	return registry_find_slab_of(r, kind, page_shift, 0, r->uid);
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

	for (i = 0; (pool = registry_next_pool(r, &i));)
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
