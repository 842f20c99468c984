/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "registry.h"

#define PER_PAGE ((uint32_t)LAY_ENTRIES_PER_PAGE)

_Static_assert(LAY_ENTRIES_PER_PAGE == 32, "entry_run.used has a bit for each");

/* ---- entries --------------------------------------------------------- */

static uint32_t bits(uint32_t first, uint64_t count)
{
	return (count >= 32 ? UINT32_MAX : (1u << count) - 1) << first;
}

static struct entry_run *new_run(struct peer *p, uint64_t off, uint32_t pages)
{
	struct entry_run *run = calloc(1, sizeof(*run));

	if (!run)
		return NULL;
	run->off = off;
	run->pages = pages;
	LIST_INSERT_HEAD(&p->runs, run, link);
	return run;
}

static int find_room(struct peer *p, uint64_t count, uint64_t *off)
{
	uint32_t pages = (uint32_t)((count + PER_PAGE - 1) / PER_PAGE), i;
	struct entry_run *run;

	LIST_FOREACH (run, &p->runs, link) {
		if (pages > 1 || run->pages > 1) {
			if (run->pages < pages || run->used || pages == 1)
				continue;
			run->used = UINT32_MAX;
			*off = run->off;
			return 1;
		}
		for (i = 0; i + count <= PER_PAGE; i++) {
			if (run->used & bits(i, count))
				continue;
			run->used |= bits(i, count);
			*off = run->off + i * sizeof(struct lay_entry);
			return 1;
		}
	}
	return 0;
}

/* Pages stay with their client until it goes: it may have them mapped. */
static int take_entries(struct registry *r, struct peer *p, uint64_t count, uint64_t *off,
			struct shmq__why *why)
{
	uint32_t pages = (uint32_t)((count + PER_PAGE - 1) / PER_PAGE);
	int error;

	if (find_room(p, count, off))
		return 0;
	error = pool_alloc(r->pool[p->entries], pages * LAY_PAGE, LAY_PAGE, off, why);
	if (error)
		return error;
	if (!new_run(p, *off, pages)) {
		pool_free(r->pool[p->entries], *off, pages * LAY_PAGE);
		return -ENOMEM;
	}
	return find_room(p, count, off) ? 0 : -ENOMEM;
}

static void free_entries(struct peer *p, uint64_t off, uint64_t count)
{
	struct entry_run *run;

	LIST_FOREACH (run, &p->runs, link) {
		if (off < run->off || off >= run->off + run->pages * LAY_PAGE)
			continue;
		run->used = run->pages > 1 ? 0 :
					     run->used & ~bits((uint32_t)((off - run->off) /
									  sizeof(struct lay_entry)),
							       count);
		return;
	}
}

static int adopt_entries(struct registry *r, struct peer *p, uint64_t off, uint64_t count)
{
	uint32_t pages = (uint32_t)((count + PER_PAGE - 1) / PER_PAGE), first;
	uint64_t page = off - off % LAY_PAGE;
	struct entry_run *run;
	int error;

	first = (uint32_t)((off - page) / sizeof(struct lay_entry));
	if (off % sizeof(struct lay_entry) || (pages > 1 ? first : first + count > PER_PAGE))
		return SHMQ_ECORRUPT;
	LIST_FOREACH (run, &p->runs, link)
		if (run->off == page && run->pages == 1 && pages == 1)
			break;
	if (!run) {
		error = pool_take(r->pool[p->entries], page, pages * LAY_PAGE);
		if (error)
			return error;
		run = new_run(p, page, pages);
		if (!run)
			return -ENOMEM;
	}
	run->used |= pages > 1 ? UINT32_MAX : bits(first, count);
	return 0;
}

void registry_drop_entries(struct registry *r, struct peer *p)
{
	struct entry_run *run;

	while ((run = LIST_FIRST(&p->runs))) {
		LIST_REMOVE(run, link);
		pool_free(r->pool[p->entries], run->off, run->pages * LAY_PAGE);
		free(run);
	}
}

uint64_t registry_entry_count(const struct topic *t, const struct lay_member *m)
{
	return m->partition >= 0 ? 1 : t->rec->partitions;
}

/* ---- members --------------------------------------------------------- */

static struct lay_member *free_member(struct lay_roster *chunk, lay_ref ref, lay_ref *out)
{
	unsigned i;

	for (i = 0; i < LAY_ROSTER_MEMBERS; i++)
		if (load_relaxed(&chunk->member[i].state) == LAY_MEMBER_FREE) {
			*out = ref + offsetof(struct lay_roster, member) +
			       i * sizeof(chunk->member[0]);
			return &chunk->member[i];
		}
	return NULL;
}

/* A slot of the roster; a chunk more if all are taken. */
static int take_member(struct registry *r, struct topic *t, struct lay_member **out, lay_ref *ref,
		       struct shmq__why *why)
{
	struct lay_roster *chunk = NULL, *fresh;
	lay_ref at = t->rec->roster;
	uint64_t off;
	int error;

	while (at) {
		chunk = shmq__slabs_at(r->slabs, at, sizeof(*chunk));
		*out = free_member(chunk, at, ref);
		if (*out)
			return 0;
		at = load_relaxed(&chunk->next);
	}
	error = pool_alloc(&r->heap, sizeof(*fresh), LAY_PAGE, &off, why);
	if (error)
		return error;
	at = LAY_REF(0, off);
	fresh = shmq__slabs_at(r->slabs, at, sizeof(*fresh));
	memset(fresh, 0, sizeof(*fresh));
	if (chunk)
		store_release(&chunk->next, at);
	else
		__atomic_store_n(&t->rec->roster, at, __ATOMIC_RELEASE);
	*out = free_member(fresh, at, ref);
	return 0;
}

static void fill_entries(struct registry *r, struct topic *t, const struct lay_member *m)
{
	uint64_t count = registry_entry_count(t, m), i;
	struct lay_entry *e = shmq__slabs_at(r->slabs, m->entry, count * sizeof(*e));
	const struct lay_partition *part = shmq__slabs_at(r->slabs, t->rec->partition_array,
							  t->rec->partitions * sizeof(*part));

	memset(e, 0, count * sizeof(*e));
	for (i = 0; i < count; i++) {
		store_relaxed(&e[i].pos,
			      part[m->partition >= 0 ? (uint64_t)m->partition : i].base_seq);
		store_release(&e[i].gen, m->entry_gen);
	}
}

static struct handle_chain *chain_of(const struct registry *r, const struct peer *p, uint64_t token)
{
	uint64_t h = (token + ((uint64_t)p->id << 32)) * UINT64_C(0x9e3779b97f4a7c15);

	return &r->handle[(uint32_t)(h >> 32) & r->handle_mask];
}

/* A table that cannot grow is only slower. */
static void widen_chains(struct registry *r)
{
	struct handle_chain *old = r->handle;
	uint32_t old_mask = r->handle_mask, mask = old_mask * 2 + 1, i;
	struct handle_chain *wide = calloc((size_t)mask + 1, sizeof(wide[0]));
	struct handle *h;

	if (!wide)
		return;
	r->handle = wide;
	r->handle_mask = mask;
	for (i = 0; i <= old_mask; i++)
		while ((h = LIST_FIRST(&old[i]))) {
			LIST_REMOVE(h, of_chain);
			LIST_INSERT_HEAD(chain_of(r, h->peer, h->token), h, of_chain);
		}
	free(old);
}

static struct handle *new_handle(struct registry *r, struct topic *t, struct peer *p,
				 struct lay_member *m, lay_ref ref, uint64_t token)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->peer = p;
	h->topic = t;
	h->member = m;
	h->ref = ref;
	h->token = token;
	if (r->handle_count++ > r->handle_mask)
		widen_chains(r);
	LIST_INSERT_HEAD(chain_of(r, p, token), h, of_chain);
	LIST_INSERT_HEAD(&p->handles, h, of_peer);
	LIST_INSERT_HEAD(&t->handles, h, of_topic);
	return h;
}

int registry_add_handle(struct registry *r, struct topic *t, struct peer *p,
			const struct registry_member *what, struct handle **out,
			struct shmq__why *why)
{
	uint64_t count = what->partition >= 0 ? 1 : t->rec->partitions, off, gen;
	struct lay_member *m;
	struct handle *h;
	lay_ref ref = 0;
	int error = take_member(r, t, &m, &ref, why);

	if (!error)
		error = take_entries(r, p, count, &off, why);
	if (error)
		return error;
	h = new_handle(r, t, p, m, ref, what->token);
	if (!h) {
		free_entries(p, off, count);
		return -ENOMEM;
	}
	h->role = what->role;
	gen = load_relaxed(&r->head->next_entry_gen);
	store_relaxed(&r->head->next_entry_gen, gen + 1);
	m->client = (uint16_t)p->id;
	m->flags = 0;
	m->client_gen = p->gen;
	m->token = what->token;
	m->entry = LAY_REF(p->entries, off);
	m->entry_gen = gen;
	m->partition = what->partition;
	m->arena = what->arena;
	m->start = 0;
	m->opened_ns = 0;
	fill_entries(r, t, m);
	*out = h;
	return 0;
}

void registry_drop_handle(struct registry *r, struct handle *h)
{
	free_entries(h->peer, LAY_REF_OFF(h->member->entry),
		     registry_entry_count(h->topic, h->member));
	LIST_REMOVE(h, of_peer);
	LIST_REMOVE(h, of_topic);
	LIST_REMOVE(h, of_chain);
	r->handle_count--;
	free(h);
}

struct handle *registry_find_handle(const struct registry *r, const struct peer *p, uint64_t token)
{
	struct handle *h;

	LIST_FOREACH (h, chain_of(r, p, token), of_chain)
		if (h->peer == p && h->token == token)
			return h;
	return NULL;
}

int registry_adopt_handle(struct registry *r, struct topic *t, struct peer *p, struct lay_member *m,
			  lay_ref ref)
{
	struct handle *h;
	int error;

	if (LAY_REF_SLAB(m->entry) != p->entries || m->partition >= (int32_t)t->rec->partitions)
		return SHMQ_ECORRUPT;
	error = adopt_entries(r, p, LAY_REF_OFF(m->entry), registry_entry_count(t, m));
	if (error)
		return error;
	h = new_handle(r, t, p, m, ref, m->token);
	if (!h)
		return -ENOMEM;
	h->role = load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER ? SHMQ_ROLE_PUBLISHER :
								    SHMQ_ROLE_SUBSCRIBER;
	return 0;
}
