/* SPDX-License-Identifier: MIT
 *
 * adopt: what a new worker does with the registry of its predecessor,
 * which may have been killed between any two of its stores.
 */
#include <errno.h>
#include <stdlib.h>

#include "log.h"
#include "registry.h"
#include "shmem.h"

/* What a walk needs besides the registry: topics by id, and which arenas
 * are some member's. */
struct walk {
	struct registry *r;
	struct registry_found *found;
	struct topic **by_id;
	uint32_t by_id_count;
	uint8_t *arena_used;
	uint32_t arena_count;
};

/* ---- clients --------------------------------------------------------- */

static int adopt_clients(struct walk *w)
{
	unsigned count = load_relaxed(&w->r->head->client_count), id;
	struct peer *p;
	int error;

	for (id = 1; id < count; id++) {
		struct lay_client *rec = shmq__slabs_client(w->r->slabs, id);
		uint32_t state = load_relaxed(&rec->state);

		if (state == LAY_CLIENT_FREE) {
			registry_adopt_peer(w->r, id, NULL);
			continue;
		}
		error = registry_adopt_peer(w->r, id, &p);
		if (error)
			return error;
		w->found->clients++;
	}
	return 0;
}

/* ---- topics ---------------------------------------------------------- */

static int take(struct registry *r, const struct registry_range *range)
{
	unsigned slab = LAY_REF_SLAB(range->ref);

	if (slab >= LINK_SLABS_MAX || !r->big[slab] || (range->is_warm && !r->pool[slab]))
		return SHMQ_ECORRUPT;
	if (range->is_warm)
		return pool_take(r->pool[slab], LAY_REF_OFF(range->ref), range->bytes);
	return extent_take(r->big[slab], LAY_REF_OFF(range->ref), range->bytes);
}

static int take_topic_memory(struct registry *r, const struct lay_topic *rec)
{
	uint64_t array_bytes = rec->partitions * sizeof(struct lay_partition);
	const struct lay_partition *part = NULL;
	struct registry_range ring;
	unsigned bells;
	lay_ref at;
	int error;

	if (rec->partitions && rec->partitions <= LAY_PARTITIONS_MAX)
		part = shmq__slabs_at(r->slabs, rec->partition_array, array_bytes);
	if (!part || LAY_REF_SLAB(rec->partition_array) != 0)
		return SHMQ_ECORRUPT;
	bells = LAY_REF_SLAB(part[0].bells);
	if (bells >= LINK_SLABS_MAX || !r->pool[bells] || r->slab[bells].kind != LAY_SLAB_BELL)
		return SHMQ_ECORRUPT;
	ring = registry_rings_of(r, rec);
	error = pool_take(&r->heap, LAY_REF_OFF(rec->partition_array), array_bytes);
	if (!error)
		error = pool_take(r->pool[bells], LAY_REF_OFF(part[0].bells),
				  rec->partitions * sizeof(struct lay_bells));
	if (!error)
		error = take(r, &ring);
	for (at = rec->roster; at && !error;) {
		struct lay_roster *chunk = shmq__slabs_at(r->slabs, at, sizeof(*chunk));

		error = chunk ? pool_take(&r->heap, LAY_REF_OFF(at), sizeof(*chunk)) :
				SHMQ_ECORRUPT;
		if (!error)
			at = load_relaxed(&chunk->next);
	}
	return error;
}

/* Two of one name: a worker was killed while it moved the older one. */
static void end_older(struct registry *r, struct lay_topic *rec)
{
	struct topic *other = registry_find(r, rec->name);

	if (!other)
		return;
	if (other->rec->id > rec->id) {
		store_release(&rec->state, LAY_TOPIC_ENDED);
		return;
	}
	registry_forget_name(r, other);
	store_release(&other->rec->state, LAY_TOPIC_ENDED);
}

static int adopt_topics(struct walk *w)
{
	uint32_t count = load_relaxed(&w->r->head->topic_count), i;
	struct topic *t;
	int error;

	for (i = 0; i < count; i++) {
		struct lay_topic *rec = shmq__slabs_topic(w->r->slabs, i);
		uint32_t state = load_relaxed(&rec->state);

		if (state == LAY_TOPIC_FREE || state == LAY_TOPIC_ENDED)
			registry_note_removal(w->r, rec->creator_nonce, rec->creator_token);
		if (state == LAY_TOPIC_LIVE || state == LAY_TOPIC_ENDED) {
			error = take_topic_memory(w->r, rec);
			if (!error) {
				if (state == LAY_TOPIC_LIVE)
					end_older(w->r, rec);
				error = registry_adopt_topic(w->r, i, &t);
				if (error)
					return error;
				w->by_id[w->by_id_count++] = t;
				w->found->topics++;
				continue;
			}
			log_error("topic \"%.255s\" cannot be adopted and is lost: %s", rec->name,
				  shmq_strerror(error));
		}
		if (state != LAY_TOPIC_FREE)
			w->found->discarded++;
		store_release(&rec->state, LAY_TOPIC_FREE);
		error = registry_adopt_topic(w->r, i, NULL);
		if (error)
			return error;
	}
	return 0;
}

static int by_id(const void *a, const void *b)
{
	const struct topic *const *x = a, *const *y = b;

	return (*x)->rec->id < (*y)->rec->id ? -1 : (*x)->rec->id > (*y)->rec->id;
}

static struct topic *find_id(const struct walk *w, uint64_t id)
{
	uint32_t low = 0, high = w->by_id_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (w->by_id[middle]->rec->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < w->by_id_count && w->by_id[low]->rec->id == id ? w->by_id[low] : NULL;
}

/* ---- members --------------------------------------------------------- */

static int adopt_member(struct walk *w, struct topic *t, struct lay_member *m, lay_ref ref)
{
	struct peer *p = m->client <= LAY_CLIENT_MAX ? w->r->peer[m->client] : NULL;
	int error = SHMQ_ECORRUPT;

	if (p && p->gen == m->client_gen)
		error = registry_adopt_handle(w->r, t, p, m, ref);
	if (error == -ENOMEM)
		return error;
	if (error) {
		log_error("a member of \"%s\" (client %u) cannot be adopted", t->rec->name,
			  m->client);
		store_release(&m->state, LAY_MEMBER_FREE);
		return 0;
	}
	if (m->arena && m->arena - 1 < w->arena_count)
		w->arena_used[m->arena - 1] = 1;
	w->found->handles++;
	return 0;
}

/* One of the bus itself is not counted (open.c). */
static int is_own(const struct registry *r, const struct lay_member *m)
{
	const struct lay_client *c = shmq__slabs_client(r->slabs, m->client);

	return c && *c->name == '$';
}

static int adopt_roster(struct walk *w, struct topic *t)
{
	uint32_t publishers = 0, subscribers = 0;
	lay_ref at = t->rec->roster;
	int error;

	while (at) {
		struct lay_roster *chunk = shmq__slabs_at(w->r->slabs, at, sizeof(*chunk));
		lay_ref ref = at + offsetof(struct lay_roster, member);
		unsigned i;

		for (i = 0; i < LAY_ROSTER_MEMBERS; i++, ref += sizeof(chunk->member[0])) {
			struct lay_member *m = &chunk->member[i];

			if (load_relaxed(&m->state) == LAY_MEMBER_FREE)
				continue;
			error = adopt_member(w, t, m, ref);
			if (error)
				return error;
			if (load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER &&
			    !(m->flags & LAY_MEMBER_FENCES))
				t->unfenced++;
			if (is_own(w->r, m))
				continue;
			if (load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER)
				publishers++;
			else if (load_relaxed(&m->state) != LAY_MEMBER_FREE)
				subscribers++;
		}
		at = load_relaxed(&chunk->next);
	}
	store_relaxed(&t->rec->publishers, publishers);
	store_relaxed(&t->rec->subscribers, subscribers);
	return 0;
}

/* The last worker may not have come to tell those who have the topic open of
 * the last change: publishers list the roster again only when its epoch moves,
 * and handles end when their rings say so. */
static void tell(struct registry *r, struct topic *t)
{
	struct shmq__why why = { "" };

	if (LIST_EMPTY(&t->handles))
		return;
	if (load_relaxed(&t->rec->state) != LAY_TOPIC_ENDED)
		shmq__topic_announce(t->rec);
	else if (!registry_attach_to_end(r, t, &why))
		shmq__topic_end(t->attached);
	else
		log_error("%s; its handles are not told that it ended", why.text);
}

/* ---- arenas ---------------------------------------------------------- */

/* One whose topic is gone is free; one that no member has is an orphan, and
 * one that was about to become one when its handle was being closed is not:
 * nobody else is to have it until that is done. */
static void adopt_arenas(struct walk *w)
{
	uint32_t id;

	for (id = 0; id < w->arena_count; id++) {
		struct lay_arena *a = shmq__slabs_arena(w->r->slabs, id);
		struct registry_range range = registry_range_at(w->r, a->mem, a->bytes);

		if (load_relaxed(&a->state) == LAY_ARENA_FREE || !find_id(w, a->topic_id) ||
		    take(w->r, &range)) {
			store_release(&a->state, LAY_ARENA_FREE);
			registry_note_free_arena(w->r, id);
			continue;
		}
		store_release(&a->state, w->arena_used[id] ? LAY_ARENA_OWNED : LAY_ARENA_ORPHAN);
		w->found->arenas++;
	}
}

int registry_adopt(struct registry *r, struct registry_found *found)
{
	struct walk w = { .r = r, .found = found };
	uint32_t i;
	int error = -ENOMEM;

	*found = (struct registry_found){ 0 };
	store_relaxed(&r->head->topics_live, 0);
	store_relaxed(&r->head->clients_live, 0);
	w.arena_count = load_relaxed(&r->head->arena_count);
	w.arena_used = calloc(w.arena_count + 1, 1);
	w.by_id = calloc(load_relaxed(&r->head->topic_count) + 1, sizeof(struct topic *));
	if (w.arena_used && w.by_id)
		error = adopt_clients(&w);
	if (!error)
		error = adopt_topics(&w);
	if (!error)
		qsort(w.by_id, w.by_id_count, sizeof(w.by_id[0]), by_id);
	for (i = 0; i < w.by_id_count && !error; i++) {
		error = adopt_roster(&w, w.by_id[i]);
		tell(r, w.by_id[i]);
	}
	if (!error)
		adopt_arenas(&w);
	free(w.arena_used);
	free(w.by_id);
	return error;
}

/* ---- giving back ----------------------------------------------------- */

struct hole {
	int fd;
};

static void punch(uint64_t off, uint64_t bytes, void *arg)
{
	const struct hole *hole = arg;
	int error = shmq__shmem_punch(hole->fd, off, bytes);

	if (error)
		log_warn("giving %llu free bytes back: %s", (unsigned long long)bytes,
			 shmq_strerror(error));
}

void registry_give_back(struct registry *r)
{
	struct pool *pool;
	unsigned i;

	for (i = 0; (pool = registry_next_pool(r, &i));)
		if (pool->ranges)
			pool_settle(pool, 0);
	pool_settle(&r->clients, load_relaxed(&r->head->client_count) * sizeof(struct lay_client));
	pool_settle(&r->watches, load_relaxed(&r->head->watch_count) * sizeof(struct lay_watch));
	pool_settle(&r->topics, load_relaxed(&r->head->topic_count) * sizeof(struct lay_topic));
	pool_settle(&r->arenas, load_relaxed(&r->head->arena_count) * sizeof(struct lay_arena));
	for (i = 0; i < LINK_SLABS_MAX; i++) {
		struct hole hole = { registry_slab_fd(r, i) };

		if (r->big[i])
			extent_each_free(r->big[i], punch, &hole);
	}
	registry_count_bytes(r);
}
