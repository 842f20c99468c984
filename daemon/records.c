/* SPDX-License-Identifier: MIT
 *
 * records: topics, and their names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"

/* ---- names ----------------------------------------------------------- */

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

/* ---- topics ---------------------------------------------------------- */

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
	memset(topics + r->topic_capacity, 0,
	       (capacity - r->topic_capacity) * sizeof(struct topic *));
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
		error = pool_reach(&r->topics, (count + UINT64_C(1)) * sizeof(struct lay_topic),
				   why);
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
			    lay_ref bells, const struct registry_range *ring)
{
	struct lay_partition *part = (void *)((char *)r->head + array);
	uint32_t p, count = shape->partitions;

	memset(shmq__slabs_at(r->slabs, bells, count * sizeof(struct lay_bells)), 0,
	       count * sizeof(struct lay_bells));
	memset(part, 0, count * sizeof(*part));
	for (p = 0; p < count; p++) {
		part[p].ring = ring->ref + (count - 1 - p) * shape->ring_bytes;
		part[p].bells = bells + p * sizeof(struct lay_bells);
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
	int slab = registry_find_slab_of(r, LAY_SLAB_BELL, 12,
					 registry_slab_record(r, LAY_REF_SLAB(ring->ref))->list,
					 r->uid);
	int error;

	if (slab < 0)
		return SHMQ_ECORRUPT;
	error = choose_index(r, &index, why);
	if (error)
		return error;
	error = pool_alloc(&r->heap, array_bytes, LAY_LINE, &array, why);
	if (error)
		return error;
	error = pool_alloc(r->pool[slab], shape->partitions * sizeof(struct lay_bells),
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
	fill_partitions(r, shape, array, LAY_REF(slab, bells), ring);
	/* Whoever still waits on the epoch of a predecessor sees it go on. */
	rec = t->rec;
	fence_release(); /* F1 of topic.c: the one before is gone */
	memcpy((char *)rec + offsetof(struct lay_topic, depth), &shape->depth,
	       sizeof(*rec) - offsetof(struct lay_topic, depth));
	rec->partition_array = LAY_REF(0, array);
	rec->roster = 0;
	memset(rec->name, 0, sizeof(rec->name));
	memcpy(rec->name, name, strnlen(name, SHMQ_NAME_MAX));
	fence_release(); /* F2 */
	rec->id = id;
	store_release(&rec->state, LAY_TOPIC_CREATING);
	if (index == load_relaxed(&r->head->topic_count))
		store_release(&r->head->topic_count, index + 1);
	chain_name(r, t);
	*out = t;
	return 0;
free_bells:
	pool_free(r->pool[slab], bells, shape->partitions * sizeof(struct lay_bells));
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
	const struct lay_partition *part =
		shmq__slabs_at(r->slabs, rec->partition_array,
			       rec->partitions * sizeof(struct lay_partition));

	return registry_range_at(r, part[rec->partitions - 1].ring,
				 rec->partitions * rec->ring_bytes);
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
	pool_free(r->pool[LAY_REF_SLAB(part[0].bells)], LAY_REF_OFF(part[0].bells),
		  rec->partitions * sizeof(struct lay_bells));
	pool_free(&r->heap, LAY_REF_OFF(rec->partition_array), rec->partitions * sizeof(*part));
	r->topic[t->index] = NULL;
	r->topic_count--;
	r->free_topic[r->free_topic_count++] = t->index;
	free(t->settle_why);
	free(t);
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

/* ---- removals -------------------------------------------------------- */

void registry_note_removal(struct registry *r, uint64_t nonce, uint64_t token)
{
	struct peer *p;

	if (!nonce)
		return;
	LIST_FOREACH (p, &r->peers, link)
		if (load_relaxed(&p->rec->nonce) == nonce && token > p->removed)
			p->removed = token;
}
