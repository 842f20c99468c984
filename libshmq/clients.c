/* SPDX-License-Identifier: MIT
 *
 * clients: who is attached to a bus, and with what, as the registry says: one walk
 * over all rosters, in which nothing but the registry and entries is looked into.
 */
#include "bus.h"
#include "name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct walk {
	struct shmq_bus *bus;
	struct shmq_client_info *client; /* by id */
	uint64_t *gen;                   /* of each, when it was described */
	uint64_t *topic;                 /* id of the one in which it was met last */
	uint32_t count;
};

static void describe(struct walk *w, uint32_t id)
{
	struct lay_client *c = shmq__slabs_client(w->bus->slabs, id);
	struct shmq_client_info *out = &w->client[id];
	uint32_t state = c ? load_acquire(&c->state) : LAY_CLIENT_FREE;

	if (state != LAY_CLIENT_LIVE && state != LAY_CLIENT_DEAD)
		return;
	w->gen[id] = load_acquire(&c->gen);
	out->client_id = id;
	out->pid = (pid_t)load_relaxed(&c->pid);
	out->uid = load_relaxed(&c->uid);
	shmq__name_show(out->name, c->name, sizeof(out->name));
	out->is_dead = state == LAY_CLIENT_DEAD;
	out->is_own = *out->name == '$';
}

/* Of whom that is; NULL of one that came or went meanwhile. */
static struct shmq_client_info *client_of(const struct walk *w, unsigned id, uint64_t gen)
{
	return id < w->count && w->client[id].client_id && w->gen[id] == gen ? &w->client[id] :
									       NULL;
}

static void add_member(struct walk *w, const struct shmq__topic *t, const struct lay_member *m)
{
	struct shmq_client_info *c = client_of(w, m->client, m->client_gen);
	int sends = load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER;
	struct lay_arena *arena = m->arena ? shmq__slabs_arena(t->slabs, m->arena - 1) : NULL;
	uint32_t p;

	if (!c)
		return;
	if (w->topic[m->client] != t->id) {
		w->topic[m->client] = t->id;
		c->topics++;
		c->ring_bytes += t->geo.ring_bytes * t->geo.partitions;
	}
	*(sends ? &c->publishers : &c->subscribers) += 1;
	c->arena_bytes += arena ? arena->bytes : 0;
	for (p = 0; p < t->geo.partitions; p++) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);

		if (!e)
			continue;
		c->page_bytes += sizeof(*e);
		*(sends ? &c->sent : &c->received) += load_relaxed(&e->count);
		c->lost += sends ? 0 : load_relaxed(&e->lost);
	}
}

/* Its rings are not attached: a topic has members without them. */
static void walk_topic(struct walk *w, uint32_t index, struct lay_topic *rec)
{
	struct shmq__topic t = { .slabs = w->bus->slabs, .rec = rec, .index = index };
	uint32_t state = shmq__topic_look(rec, &t.id);
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	if ((state != LAY_TOPIC_LIVE && state != LAY_TOPIC_ENDED) ||
	    shmq__layout_geometry(rec, &t.geo) || !shmq__topic_is_still(rec, t.id))
		return;
	while ((m = shmq__topic_next_member(&t, &it)))
		add_member(w, &t, m);
}

static void walk_patterns(struct walk *w)
{
	uint32_t count = load_acquire(&shmq__slabs_registry(w->bus->slabs)->watch_count), i;

	for (i = 0; i < count && i < LAY_WATCHES_MAX; i++) {
		const struct lay_watch *watch =
			shmq__slabs_at(w->bus->slabs,
				       LAY_REF(0, LAY_WATCHES_OFF + i * sizeof(*watch)),
				       sizeof(*watch));
		struct shmq_client_info *c;

		if (!watch ||
		    load_acquire(&((struct lay_watch *)(uintptr_t)watch)->state) != LAY_WATCH_LIVE)
			continue;
		c = client_of(w, watch->client, watch->client_gen);
		if (c)
			c->patterns++;
	}
}

SHMQ_EXPORT int shmq_client_each(shmq_bus *bus,
				 int (*visit)(void *arg, const struct shmq_client_info *client),
				 void *arg)
{
	struct walk w = { .bus = bus };
	struct lay_topic *rec;
	int rc = bus_check(bus);
	uint32_t i;

	if (rc)
		return rc;
	w.count = load_acquire(&shmq__slabs_registry(bus->slabs)->client_count);
	if (w.count > LAY_CLIENT_MAX + 1)
		w.count = LAY_CLIENT_MAX + 1;
	w.client = calloc(w.count, sizeof(*w.client));
	w.gen = calloc(w.count, sizeof(*w.gen));
	w.topic = calloc(w.count, sizeof(*w.topic));
	if (!w.client || !w.gen || !w.topic)
		rc = -ENOMEM;
	for (i = 1; !rc && i < w.count; i++)
		describe(&w, i);
	for (i = 0; !rc && (rec = shmq__slabs_topic(bus->slabs, i)); i++)
		walk_topic(&w, i, rec);
	if (!rc)
		walk_patterns(&w);
	for (i = 1; !rc && i < w.count; i++)
		if (w.client[i].client_id)
			rc = visit(arg, &w.client[i]);
	if (!rc) /* a child that a visitor forked has no bus */
		rc = bus_check(bus);
	free(w.client);
	free(w.gen);
	free(w.topic);
	return rc;
}
