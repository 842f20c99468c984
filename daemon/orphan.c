/* SPDX-License-Identifier: MIT
 *
 * orphan: an arena whose publisher left is kept for as long as a message
 * in it can be read, or until a successor on the same topic takes it over.
 *
 * A reader that was overrun may still look at a message that no slot refers to
 * any more.  The bytes may change under it, but they must be there: a hugepage
 * that was given back and then taken by others is a SIGBUS.  So an arena that
 * nothing refers to is kept until each reader has come to where the heads were
 * when that was found: what it looks at then stands behind all of it.
 *
 * Nobody writes to an orphan's topic with its id, so a slot that does not
 * refer to it never will again: the search for references is resumed
 * where the last one was found, and costs one pass in all.
 */
#include <errno.h>
#include <stdlib.h>

#include "clock.h"
#include "control.h"
#include "ring.h"

#define FIRST_LOOK_NS UINT64_C(1000000000)
#define LAST_LOOK_NS UINT64_C(64000000000)
#define NEXT_SLICE_NS UINT64_C(1000000)
/* In one turn of the loop, for all orphans together; mapping a topic and
 * looking at nothing costs about as much as so many slots. */
#define SLOTS_AT_ONCE 65536u
#define SLOTS_PER_LOOK 2048u

struct orphan {
	LIST_ENTRY(orphan) link, of_topic;
	struct topic *topic;
	uint32_t id;
	uint64_t gen, bytes;
	uint32_t partition; /* before it, nothing refers to the arena */
	uint64_t slot;      /* ... nor in it before this one */
	uint64_t *head;     /* of each partition when nothing did; NULL: something may */
	uint64_t due_ns, pause_ns;
};

static void look_at_all(struct timer *timer);

static void set_timer(struct control *c, uint64_t soonest_ns)
{
	uint64_t due = UINT64_MAX;
	struct orphan *o;

	LIST_FOREACH (o, &c->orphans, link)
		if (o->due_ns < due)
			due = o->due_ns;
	if (due != UINT64_MAX)
		loop_set_timer(c->loop, &c->orphan_timer, due > soonest_ns ? due : soonest_ns,
			       look_at_all);
}

/* Whether the message at `slot` has its payload in the arena. */
static int refers(const struct orphan *o, const struct shmq__ring *ring, uint64_t slot)
{
	struct lay_arena_ref ref;
	struct lay_slot head;

	return shmq__ring_arena_ref(ring->mem, &ring->geo, slot, &head, &ref) && ref.id == o->id &&
	       ref.gen == (uint32_t)o->gen;
}

enum need { NEED_NONE, NEED_FOUND, NEED_LOOK_ON };

/* From where the last look ended, at *left slots at most. */
static enum need look_on(struct orphan *o, const struct shmq__topic *t, unsigned *left)
{
	for (; o->partition < t->geo.partitions; o->partition++, o->slot = 0)
		for (; o->slot < t->geo.depth; o->slot++) {
			if (!*left)
				return NEED_LOOK_ON;
			--*left;
			if (refers(o, &t->ring[o->partition], o->slot))
				return NEED_FOUND;
		}
	return NEED_NONE;
}

/* A reader that may look at something in it, though nothing refers to it. */
static int is_held(struct orphan *o, const struct shmq__topic *t)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;
	uint32_t p;

	if (!o->head) {
		o->head = calloc(t->geo.partitions, sizeof(*o->head));
		if (!o->head)
			return 1;
		for (p = 0; p < t->geo.partitions; p++)
			o->head[p] = shmq__topic_head(&t->ring[p]);
	}
	while ((m = shmq__topic_next_member(t, &it))) {
		if (load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER)
			continue;
		for (p = 0; p < t->geo.partitions; p++) {
			struct lay_entry *e = shmq__topic_entry(t, m, p);

			if (e && seq_diff(load_relaxed(&e->pos), o->head[p]) < 0)
				return 1;
		}
	}
	return 0;
}

static enum need look(struct control *c, struct orphan *o, unsigned *left)
{
	struct topic *t = o->topic;
	struct shmq__why why = { "" };
	enum need need;

	*left -= *left < SLOTS_PER_LOOK ? *left : SLOTS_PER_LOOK;
	if (registry_attach(c->reg, t, &why))
		return NEED_FOUND;
	need = look_on(o, t->attached, left);
	if (need == NEED_NONE && is_held(o, t->attached))
		need = NEED_FOUND;
	if (LIST_EMPTY(&t->handles))
		registry_detach(c->reg, t);
	return need;
}

static void forget(struct orphan *o)
{
	LIST_REMOVE(o, link);
	LIST_REMOVE(o, of_topic);
	free(o->head);
	free(o);
}

static void drop(struct control *c, struct orphan *o)
{
	struct registry_range range;

	registry_drop_arena(c->reg, o->id, &range);
	work_free(c->work, &range, NULL);
	forget(o);
}

static void look_at_all(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, orphan_timer);
	uint64_t now = shmq__clock_monotonic_ns();
	unsigned left = SLOTS_AT_ONCE;
	struct orphan *o, *next;

	for (o = LIST_FIRST(&c->orphans); o && left; o = next) {
		next = LIST_NEXT(o, link);
		if (o->due_ns > now)
			continue;
		switch (look(c, o, &left)) {
		case NEED_NONE:
			log_debug("arena %u is free: no message is left in it", o->id);
			drop(c, o);
			break;
		case NEED_LOOK_ON:
			break;
		case NEED_FOUND:
			o->due_ns = now + o->pause_ns;
			if (o->pause_ns < LAST_LOOK_NS)
				o->pause_ns *= 2;
			break;
		}
	}
	set_timer(c, now + NEXT_SLICE_NS);
}

/* An orphan that is waited for already: an adopting worker comes by twice,
 * once with the death of its publisher and once with the list of orphans. */
static int is_known(const struct topic *t, uint32_t id)
{
	struct orphan *o;

	LIST_FOREACH (o, &t->orphans, of_topic)
		if (o->id == id)
			return 1;
	return 0;
}

void orphan_begin(struct control *c, struct topic *t, uint32_t id)
{
	struct lay_arena *a = shmq__slabs_arena(c->reg->slabs, id);
	struct orphan *o;

	store_release(&a->state, LAY_ARENA_ORPHAN);
	if (is_known(t, id))
		return;
	o = calloc(1, sizeof(*o));
	if (!o)
		return; /* the next worker finds it */
	o->topic = t;
	o->id = id;
	o->gen = load_relaxed(&a->gen);
	o->bytes = a->bytes;
	o->pause_ns = FIRST_LOOK_NS;
	o->due_ns = shmq__clock_monotonic_ns() + FIRST_LOOK_NS;
	LIST_INSERT_HEAD(&c->orphans, o, link);
	LIST_INSERT_HEAD(&t->orphans, o, of_topic);
	if (!c->orphan_timer.is_set || o->due_ns < c->orphan_timer.due_ns)
		loop_set_timer(c->loop, &c->orphan_timer, o->due_ns, look_at_all);
}

/* Who wrote it may have the descriptor still, and write on. */
static uint32_t writer_of(const struct control *c, const struct orphan *o)
{
	lay_ref mem = shmq__slabs_arena(c->reg->slabs, o->id)->mem;

	return registry_slab_record(c->reg, LAY_REF_SLAB(mem))->uid;
}

uint32_t orphan_find(const struct control *c, struct topic *t, uint64_t bytes, uint32_t uid)
{
	struct orphan *o;
	uint32_t id;

	LIST_FOREACH (o, &t->orphans, of_topic)
		if (o->bytes >= bytes && writer_of(c, o) == uid)
			break;
	if (!o)
		return UINT32_MAX;
	id = o->id;
	forget(o);
	return id;
}

void orphan_free_topic(struct control *c, struct topic *t)
{
	while (!LIST_EMPTY(&t->orphans))
		drop(c, LIST_FIRST(&t->orphans));
}

/* ---- adoption -------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	const struct topic *const *x = a, *const *y = b;

	return (*x)->rec->id < (*y)->rec->id ? -1 : (*x)->rec->id > (*y)->rec->id;
}

static int has_id(const void *key, const void *element)
{
	const uint64_t *id = key;
	const struct topic *const *t = element;

	return *id < (*t)->rec->id ? -1 : *id > (*t)->rec->id;
}

void orphan_adopt(struct control *c)
{
	uint32_t count = load_relaxed(&c->reg->head->arena_count), topics = 0, i;
	struct topic **sorted = calloc(c->reg->topic_count + 1, sizeof(struct topic *)), **t;

	for (i = 0; i < c->reg->topic_capacity && sorted; i++)
		if (c->reg->topic[i])
			sorted[topics++] = c->reg->topic[i];
	if (topics)
		qsort(sorted, topics, sizeof(struct topic *), by_id);
	for (i = 0; i < count && topics; i++) {
		struct lay_arena *a = shmq__slabs_arena(c->reg->slabs, i);

		if (load_relaxed(&a->state) != LAY_ARENA_ORPHAN)
			continue;
		t = bsearch(&a->topic_id, sorted, topics, sizeof(struct topic *), has_id);
		if (t)
			orphan_begin(c, *t, i);
	}
	free(sorted);
}
