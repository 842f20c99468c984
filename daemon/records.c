/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "registry.h"

/* Ids rest before they are given out again, so that logs stay readable. */
#define IDS_RESTING 64u
#define HUGE_ALIGN (UINT64_C(2) << 20)

/* ---- ranges --------------------------------------------------------------- */

int registry_take_range(struct registry *r, uint32_t kind, unsigned page_shift, int node,
			uint64_t bytes, struct registry_range *out, struct shmq__why *why)
{
	struct pool *pool = kind == LAY_SLAB_RING ? &r->small_rings : &r->small_arenas;
	int slab = registry_find_slab(r, kind, page_shift), error;
	uint64_t off, align = UINT64_C(1) << page_shift;

	if (slab < 0)
		return shmq__fail(why, SHMQ_ENOHUGE, "this bus has no slab of %llu KiB pages",
				  (unsigned long long)(align >> 10));
	out->bytes = bytes;
	out->is_warm = page_shift == 12 && node == SHMQ_NODE_ANY && bytes <= REGISTRY_SMALL_BYTES;
	if (out->is_warm) {
		error = pool_alloc(pool, bytes, align, &off, why);
	} else {
		error = extent_alloc(r->big[slab], bytes, align < HUGE_ALIGN ? HUGE_ALIGN : align, &off);
		if (error == -ENOSPC)
			error = shmq__fail(why, SHMQ_ELIMIT, "the slab of %llu KiB pages is full",
					   (unsigned long long)(align >> 10));
	}
	out->ref = LAY_REF(slab, off);
	return error;
}

struct registry_range registry_range_at(const struct registry *r, lay_ref ref, uint64_t bytes)
{
	(void)r;
	return (struct registry_range){ .ref = ref,
					.bytes = bytes,
					.is_warm = LAY_REF_OFF(ref) < REGISTRY_BIG_BASE };
}

void registry_free_range(struct registry *r, const struct registry_range *range)
{
	unsigned slab = LAY_REF_SLAB(range->ref);
	struct pool *pool =
		r->slab[slab].kind == LAY_SLAB_RING ? &r->small_rings : &r->small_arenas;

	if (range->is_warm)
		pool_free(pool, LAY_REF_OFF(range->ref), range->bytes);
	else
		extent_free(r->big[slab], LAY_REF_OFF(range->ref), range->bytes);
}

/* ---- names ------------------------------------------------------------------ */

static uint32_t hash_of(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h;
}

struct topic *registry_find(const struct registry *r, const char *name)
{
	uint32_t h = hash_of(name);
	struct topic *t;

	for (t = r->chain[h & r->chain_mask]; t; t = t->next)
		if (t->hash == h && !strcmp(t->rec->name, name))
			return t;
	return NULL;
}

/* A table that cannot grow is only slower. */
static void widen_chains(struct registry *r)
{
	uint32_t mask = r->chain_mask * 2 + 1, i;
	struct topic **wide = calloc((size_t)mask + 1, sizeof(struct topic *)), *t;

	if (!wide)
		return;
	for (i = 0; i <= r->chain_mask; i++)
		while ((t = r->chain[i])) {
			r->chain[i] = t->next;
			t->next = wide[t->hash & mask];
			wide[t->hash & mask] = t;
		}
	free(r->chain);
	r->chain = wide;
	r->chain_mask = mask;
}

static void chain_name(struct registry *r, struct topic *t)
{
	if (r->topic_count > r->chain_mask)
		widen_chains(r);
	t->hash = hash_of(t->rec->name);
	t->next = r->chain[t->hash & r->chain_mask];
	r->chain[t->hash & r->chain_mask] = t;
}

static void count_topic(struct registry *r, struct topic *t, int is_counted)
{
	if (t->is_counted == is_counted)
		return;
	t->is_counted = is_counted;
	store_relaxed(&r->head->topics_live,
		      load_relaxed(&r->head->topics_live) + (is_counted ? 1u : UINT32_MAX));
}

void registry_forget_name(struct registry *r, struct topic *t)
{
	struct topic **link;

	for (link = &r->chain[t->hash & r->chain_mask]; *link; link = &(*link)->next)
		if (*link == t) {
			*link = t->next;
			break;
		}
	count_topic(r, t, 0);
}

/* ---- topics ------------------------------------------------------------------ */

/* Room in the tables that go with the records, so that nothing after it can
 * fail for want of memory. */
static int reserve_topic(struct registry *r, uint32_t index)
{
	uint32_t capacity = r->topic_capacity ? r->topic_capacity : 64;
	struct topic **topics;
	uint32_t *free_list;

	if (index < r->topic_capacity)
		return 0;
	while (capacity <= index)
		capacity *= 2;
	free_list = reallocarray(r->free_topic, capacity, sizeof(free_list[0]));
	if (!free_list)
		return -ENOMEM;
	r->free_topic = free_list;
	topics = reallocarray(r->topic, capacity, sizeof(struct topic *));
	if (!topics)
		return -ENOMEM;
	memset(topics + r->topic_capacity, 0, (capacity - r->topic_capacity) * sizeof(struct topic *));
	r->topic = topics;
	r->topic_capacity = capacity;
	return 0;
}

static struct lay_topic *record_at(const struct registry *r, uint32_t index)
{
	return (struct lay_topic *)(void *)((char *)r->head + LAY_TOPICS_OFF) + index;
}

static int choose_index(struct registry *r, uint32_t *index, struct shmq__why *why)
{
	uint32_t count = load_relaxed(&r->head->topic_count);
	int error;

	if (r->free_topic_count) {
		*index = r->free_topic[r->free_topic_count - 1];
		return 0;
	}
	if (count == LAY_TOPICS_MAX)
		return shmq__fail(why, SHMQ_ELIMIT, "a bus has at most %u topics: remove some",
				  LAY_TOPICS_MAX);
	error = reserve_topic(r, count);
	if (!error)
		error = pool_reach(&r->topics, (count + UINT64_C(1)) * sizeof(struct lay_topic), why);
	*index = count;
	return error;
}

static struct topic *new_topic(struct registry *r, uint32_t index)
{
	struct topic *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->index = index;
	t->rec = record_at(r, index);
	r->topic[index] = t;
	r->topic_count++;
	return t;
}

static void fill_partitions(struct registry *r, const struct lay_topic *shape, uint64_t array,
			    uint64_t bells, const struct registry_range *ring)
{
	struct lay_partition *part = (void *)((char *)r->head + array);
	uint32_t p, count = shape->partitions;

	memset(shmq__slabs_at(r->slabs, LAY_REF(1, bells), count * sizeof(struct lay_bells)), 0,
	       count * sizeof(struct lay_bells));
	memset(part, 0, count * sizeof(*part));
	for (p = 0; p < count; p++) {
		part[p].ring = ring->ref + (count - 1 - p) * shape->ring_bytes;
		part[p].bells = LAY_REF(1, bells + p * sizeof(struct lay_bells));
		part[p].base_seq = ring->base_seq;
	}
}

int registry_add_topic(struct registry *r, const struct lay_topic *shape, const char *name,
		       const struct registry_range *ring, struct topic **out, struct shmq__why *why)
{
	uint64_t array_bytes = shape->partitions * sizeof(struct lay_partition), array, bells;
	uint64_t id = load_relaxed(&r->head->next_topic_id);
	struct lay_topic *rec;
	struct topic *t;
	uint32_t index = 0;
	int error;

	error = choose_index(r, &index, why);
	if (error)
		return error;
	error = pool_alloc(&r->heap, array_bytes, LAY_LINE, &array, why);
	if (error)
		return error;
	error = pool_alloc(&r->bells, shape->partitions * sizeof(struct lay_bells),
			   sizeof(struct lay_bells), &bells, why);
	if (error)
		goto free_array;
	t = new_topic(r, index);
	if (!t) {
		error = -ENOMEM;
		goto free_bells;
	}
	if (r->free_topic_count && r->free_topic[r->free_topic_count - 1] == index)
		r->free_topic_count--;
	store_relaxed(&r->head->next_topic_id, id + 1);
	fill_partitions(r, shape, array, bells, ring);
	/* Whoever still waits on the epoch of a predecessor sees it go on. */
	rec = t->rec;
	memcpy((char *)rec + offsetof(struct lay_topic, id), &shape->id,
	       sizeof(*rec) - offsetof(struct lay_topic, id));
	rec->id = id;
	rec->partition_array = LAY_REF(0, array);
	rec->roster = 0;
	memset(rec->name, 0, sizeof(rec->name));
	memcpy(rec->name, name, strnlen(name, SHMQ_NAME_MAX));
	store_release(&rec->state, LAY_TOPIC_CREATING);
	if (index == load_relaxed(&r->head->topic_count))
		store_release(&r->head->topic_count, index + 1);
	chain_name(r, t);
	*out = t;
	return 0;
free_bells:
	pool_free(&r->bells, bells, shape->partitions * sizeof(struct lay_bells));
free_array:
	pool_free(&r->heap, array, array_bytes);
	return error;
}

void registry_publish_topic(struct registry *r, struct topic *t)
{
	count_topic(r, t, 1);
	store_release(&t->rec->state, LAY_TOPIC_LIVE);
	registry_count_bytes(r);
	registry_announce(r);
}

struct registry_range registry_rings_of(const struct registry *r, const struct lay_topic *rec)
{
	const struct lay_partition *part = shmq__slabs_at(
		r->slabs, rec->partition_array, rec->partitions * sizeof(struct lay_partition));

	return registry_range_at(r, part[rec->partitions - 1].ring, rec->partitions * rec->ring_bytes);
}

static void free_roster(struct registry *r, lay_ref ref)
{
	while (ref) {
		struct lay_roster *chunk = shmq__slabs_at(r->slabs, ref, sizeof(*chunk));
		lay_ref next = load_relaxed(&chunk->next);

		pool_free(&r->heap, LAY_REF_OFF(ref), sizeof(*chunk));
		ref = next;
	}
}

void registry_drop_topic(struct registry *r, struct topic *t, struct registry_range *ring)
{
	struct lay_topic *rec = t->rec;
	struct lay_partition *part = shmq__slabs_at(r->slabs, rec->partition_array,
						    rec->partitions * sizeof(struct lay_partition));

	registry_detach(r, t);
	*ring = registry_rings_of(r, rec);
	store_release(&rec->state, LAY_TOPIC_FREE);
	free_roster(r, rec->roster);
	rec->roster = 0;
	pool_free(&r->bells, LAY_REF_OFF(part[0].bells), rec->partitions * sizeof(struct lay_bells));
	pool_free(&r->heap, LAY_REF_OFF(rec->partition_array), rec->partitions * sizeof(*part));
	r->topic[t->index] = NULL;
	r->topic_count--;
	r->free_topic[r->free_topic_count++] = t->index;
	free(t);
}

/* As shmq__topic_attach(), but all rings by one mapping, or by one that is
 * there already. */
static int attach(struct registry *r, struct topic *t)
{
	struct registry_range range = registry_rings_of(r, t->rec);
	struct shmq__topic *a = calloc(1, sizeof(*a) + t->rec->partitions * sizeof(a->ring[0]));
	struct lay_partition *part = shmq__slabs_at(r->slabs, t->rec->partition_array,
						    t->rec->partitions * sizeof(*part));
	uint32_t count = t->rec->partitions, p;
	void *mem;
	int error = a && part ? shmq__layout_geometry(t->rec, &a->geo) : -ENOMEM;

	if (!error)
		error = registry_map(r, &range, &mem);
	if (error) {
		free(a);
		return error;
	}
	a->slabs = r->slabs;
	a->rec = t->rec;
	a->index = t->index;
	a->id = t->rec->id;
	a->mode = SHMQ__SLAB_WRITE;
	for (p = 0; p < count; p++) {
		struct shmq__ring *ring = &a->ring[p];

		ring->geo = a->geo;
		ring->ref = part[p].ring;
		ring->mem = (void *)((char *)mem + (count - 1 - p) * a->geo.ring_bytes);
		ring->bells = shmq__slabs_at(r->slabs, part[p].bells, sizeof(*ring->bells));
		if (!error)
			error = ring->bells ? shmq__layout_check_ring(ring->mem, &a->geo, a->id, p) :
					      SHMQ_ECORRUPT;
		/* A worker was killed before it had moved the topic: it stays. */
		if (!error && load_relaxed(&t->rec->state) == LAY_TOPIC_LIVE &&
		    load_relaxed(&ring->mem->state) == LAY_RING_MOVED)
			store_release(&ring->mem->state, LAY_RING_LIVE);
	}
	if (!error) {
		t->attached = a;
		return 0;
	}
	registry_unmap(r, &range, mem);
	free(a);
	return error;
}

int registry_attach(struct registry *r, struct topic *t, struct shmq__why *why)
{
	int error;

	if (t->attached) {
		TAILQ_REMOVE(&r->attached, t, recent);
		TAILQ_INSERT_TAIL(&r->attached, t, recent);
		return 0;
	}
	error = attach(r, t);
	if (error == SHMQ_ELIMIT)
		return shmq__fail(why, error, "the supervisor cannot map \"%s\": too many maps "
				  "(sysctl vm.max_map_count raises the limit)", t->rec->name);
	if (error)
		return shmq__fail(why, error, "the supervisor cannot map \"%s\": %s", t->rec->name,
				  shmq_strerror(error));
	TAILQ_INSERT_TAIL(&r->attached, t, recent);
	if (++r->attached_count > REGISTRY_ATTACHED)
		registry_detach(r, TAILQ_FIRST(&r->attached));
	return 0;
}

void registry_detach(struct registry *r, struct topic *t)
{
	struct registry_range range;

	if (!t->attached)
		return;
	range = registry_rings_of(r, t->rec);
	registry_unmap(r, &range, t->attached->ring[t->attached->geo.partitions - 1].mem);
	free(t->attached);
	t->attached = NULL;
	TAILQ_REMOVE(&r->attached, t, recent);
	r->attached_count--;
}

int registry_is_shared_map(const struct registry *r, const void *mem)
{
	return r->warm && (const char *)mem >= r->warm && (const char *)mem < r->warm + REGISTRY_WARM_MAP;
}

int registry_map(struct registry *r, const struct registry_range *range, void **out)
{
	if (r->warm && range->is_warm && r->slab[LAY_REF_SLAB(range->ref)].kind == LAY_SLAB_RING &&
	    LAY_REF_OFF(range->ref) + range->bytes <= REGISTRY_WARM_MAP) {
		*out = r->warm + LAY_REF_OFF(range->ref);
		return 0;
	}
	return shmq__slabs_map(r->slabs, range->ref, range->bytes, SHMQ__SLAB_WRITE, out);
}

void registry_unmap(struct registry *r, const struct registry_range *range, void *mem)
{
	if (!registry_is_shared_map(r, mem))
		shmq__slabs_unmap(r->slabs, range->ref, range->bytes, mem);
}

int registry_adopt_topic(struct registry *r, uint32_t index, struct topic **out)
{
	struct topic *t = NULL;
	int error = reserve_topic(r, index);

	if (error)
		return error;
	if (!out) {
		r->free_topic[r->free_topic_count++] = index;
		return 0;
	}
	t = new_topic(r, index);
	if (!t)
		return -ENOMEM;
	if (load_relaxed(&t->rec->state) == LAY_TOPIC_LIVE) {
		chain_name(r, t);
		count_topic(r, t, 1);
	}
	*out = t;
	return 0;
}

/* ---- removals ------------------------------------------------------------------ */

int registry_was_removed(const struct registry *r, uint64_t nonce, uint64_t token)
{
	unsigned i;

	for (i = 0; i < REGISTRY_REMOVED; i++)
		if (r->removed[i].nonce == nonce && r->removed[i].token == token)
			return nonce != 0;
	return 0;
}

void registry_note_removal(struct registry *r, uint64_t nonce, uint64_t token)
{
	r->removed[r->removed_next++ % REGISTRY_REMOVED] = (struct removal){ nonce, token };
}

/* ---- clients --------------------------------------------------------------------- */

static struct peer *new_peer(struct registry *r, unsigned id)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->id = id;
	p->rec = shmq__slabs_client(r->slabs, id);
	LIST_INSERT_HEAD(&r->peers, p, link);
	r->peer[id] = p;
	r->peer_count++;
	store_relaxed(&r->head->clients_live, r->peer_count);
	return p;
}

static int choose_id(struct registry *r, unsigned *id, struct shmq__why *why)
{
	unsigned count = load_relaxed(&r->head->client_count);
	int error = SHMQ_ELIMIT;

	if (r->freed_count < IDS_RESTING && count <= LAY_CLIENT_MAX) {
		error = pool_reach(&r->clients, (count + UINT64_C(1)) * sizeof(struct lay_client), why);
		*id = count;
		if (!error)
			return 0;
	}
	if (r->freed_count) {
		*id = r->freed_id[r->freed_first];
		r->freed_first = (r->freed_first + 1) % (LAY_CLIENT_MAX + 1);
		r->freed_count--;
		return 0;
	}
	if (error == SHMQ_ELIMIT)
		return shmq__fail(why, error, "a bus has at most %u clients at a time", LAY_CLIENT_MAX);
	return error;
}

static void put_name(char *to, size_t bytes, const char *from)
{
	size_t i;

	memset(to, 0, bytes);
	for (i = 0; i + 1 < bytes && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] < 0x7f && from[i] != '"' ? from[i] : '?';
}

int registry_add_peer(struct registry *r, const struct registry_client *client, struct peer **out,
		      struct shmq__why *why)
{
	struct lay_client *rec;
	struct peer *p;
	unsigned id = 0;
	int error = choose_id(r, &id, why);

	if (error)
		return error;
	p = new_peer(r, id);
	if (!p)
		return -ENOMEM;
	rec = p->rec;
	p->gen = load_relaxed(&rec->gen);
	if (!p->gen)
		store_release(&rec->gen, p->gen = 1);
	store_relaxed(&rec->pid, client->pid);
	store_relaxed(&rec->uid, client->uid);
	store_relaxed(&rec->start_time, client->start_time);
	store_relaxed(&rec->pidns, client->pidns);
	store_relaxed(&rec->nonce, client->nonce);
	put_name(rec->name, sizeof(rec->name), client->name);
	store_release(&rec->state, LAY_CLIENT_LIVE);
	if (id >= load_relaxed(&r->head->client_count))
		store_release(&r->head->client_count, id + 1);
	*out = p;
	return 0;
}

static void rest_id(struct registry *r, unsigned id)
{
	r->freed_id[(r->freed_first + r->freed_count++) % (LAY_CLIENT_MAX + 1)] = (uint16_t)id;
}

void registry_drop_peer(struct registry *r, struct peer *p)
{
	registry_drop_entries(r, p);
	store_release(&p->rec->gen, p->gen + 1);
	store_release(&p->rec->state, LAY_CLIENT_FREE);
	r->peer[p->id] = NULL;
	LIST_REMOVE(p, link);
	r->peer_count--;
	store_relaxed(&r->head->clients_live, r->peer_count);
	rest_id(r, p->id);
	free(p);
}

int registry_adopt_peer(struct registry *r, unsigned id, struct peer **out)
{
	struct peer *p;

	if (!out) {
		rest_id(r, id);
		return 0;
	}
	p = new_peer(r, id);
	if (!p)
		return -ENOMEM;
	p->gen = load_relaxed(&p->rec->gen);
	*out = p;
	return 0;
}

/* ---- arenas ----------------------------------------------------------------------- */

int registry_note_free_arena(struct registry *r, uint32_t id)
{
	uint32_t capacity = r->free_arena_capacity ? r->free_arena_capacity * 2 : 64;
	uint32_t *list;

	if (r->free_arena_count == r->free_arena_capacity) {
		list = reallocarray(r->free_arena, capacity, sizeof(list[0]));
		if (!list)
			return -ENOMEM; /* the number rests until the next worker */
		r->free_arena = list;
		r->free_arena_capacity = capacity;
	}
	r->free_arena[r->free_arena_count++] = id;
	return 0;
}

int registry_add_arena(struct registry *r, const struct registry_range *range,
		       const struct topic *topic, const struct peer *owner, uint32_t *id,
		       struct shmq__why *why)
{
	uint32_t count = load_relaxed(&r->head->arena_count);
	struct lay_arena *a;
	int error;

	if (r->free_arena_count) {
		*id = r->free_arena[--r->free_arena_count];
	} else {
		if (count == LAY_ARENAS_MAX)
			return shmq__fail(why, SHMQ_ELIMIT, "a bus has at most %u arenas", LAY_ARENAS_MAX);
		error = pool_reach(&r->arenas, (count + UINT64_C(1)) * sizeof(*a), why);
		if (error)
			return error;
		*id = count;
	}
	a = (struct lay_arena *)(void *)((char *)r->head + LAY_ARENAS_OFF) + *id;
	store_release(&a->gen, load_relaxed(&a->gen) + 1);
	a->mem = range->ref;
	a->bytes = range->bytes;
	a->topic_id = topic->rec->id;
	a->client = owner->id;
	a->client_gen = owner->gen;
	store_release(&a->state, LAY_ARENA_OWNED);
	if (*id == count)
		store_release(&r->head->arena_count, count + 1);
	return 0;
}

void registry_drop_arena(struct registry *r, uint32_t id, struct registry_range *range)
{
	struct lay_arena *a = shmq__slabs_arena(r->slabs, id);

	*range = registry_range_at(r, a->mem, a->bytes);
	store_release(&a->state, LAY_ARENA_FREE);
	registry_note_free_arena(r, id);
}
