/* SPDX-License-Identifier: MIT
 *
 * ids: the records that are found by number and carry a generation:
 * clients and arenas.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "name.h"
#include "registry.h"

/* Ids rest before they are given out again, so that logs stay readable. */
#define IDS_RESTING 64u

/* ---- clients --------------------------------------------------------- */

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
		error = pool_reach(&r->clients, (count + UINT64_C(1)) * sizeof(struct lay_client),
				   why);
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
		return shmq__fail(why, error, "a bus has at most %u clients at a time",
				  LAY_CLIENT_MAX);
	return error;
}

void registry_set_identity(struct peer *p, uint64_t start_time, uint64_t pidns)
{
	store_relaxed(&p->rec->start_time, start_time);
	store_release(&p->rec->pidns, pidns);
}

unsigned registry_entries_of(const struct registry *r, uint32_t uid)
{
	int own = registry_find_slab(r, LAY_SLAB_ENTRY, 12),
	    theirs = uid ? registry_find_slab_of(r, LAY_SLAB_ENTRY, 12, 0, uid) : own;

	return (unsigned)(theirs < 0 ? own : theirs);
}

int registry_add_peer(struct registry *r, const struct registry_client *client, struct peer **out,
		      struct shmq__why *why)
{
	struct lay_client *rec;
	struct peer *p;
	char *quote;
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
	p->entries = client->entries;
	store_relaxed(&rec->pid, client->pid);
	store_relaxed(&rec->uid, client->uid);
	registry_set_identity(p, 0, 0);
	store_relaxed(&rec->nonce, client->nonce);
	shmq__name_show(rec->name, client->name, sizeof(rec->name));
	for (quote = rec->name; (quote = strchr(quote, '"'));)
		*quote = '?';
	if (*rec->name == '$' && !client->is_of_bus)
		*rec->name = '?';
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
	p->entries = registry_entries_of(r, load_relaxed(&p->rec->uid));
	p->gen = load_relaxed(&p->rec->gen);
	*out = p;
	return 0;
}

/* ---- arenas ---------------------------------------------------------- */

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
			return shmq__fail(why, SHMQ_ELIMIT, "a bus has at most %u arenas",
					  LAY_ARENAS_MAX);
		error = pool_reach(&r->arenas, (count + UINT64_C(1)) * sizeof(*a), why);
		if (error)
			return error;
		*id = count;
	}
	a = (struct lay_arena *)(void *)((char *)r->head + LAY_ARENAS_OFF) + *id;
	store_release(&a->gen, load_relaxed(&a->gen) + 1);
	a->mem = range->ref;
	a->bytes = range->bytes;
	a->node_actual = range->node;
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
