/* SPDX-License-Identifier: MIT
 *
 * orphan: an arena whose publisher left is kept for as long as a message
 * in it can be read, or until a successor on the same topic takes it over.
 *
 * Nobody writes to an orphan's topic with its id, so a slot that does not
 * refer to it never will again: the search for references is resumed
 * where the last one was found, and costs one pass in all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "control.h"

#define FIRST_LOOK_NS UINT64_C(1000000000)
#define LAST_LOOK_NS UINT64_C(64000000000)
#define NEXT_SLICE_NS UINT64_C(1000000)
#define SLOTS_AT_ONCE 65536u

struct orphan {
	LIST_ENTRY(orphan) link;
	uint32_t id, topic_index;
	uint64_t topic_id, gen, bytes;
	uint32_t partition; /* before it, nothing refers to the arena */
	uint64_t slot;      /* ... nor in it before this one */
	uint64_t due_ns, pause_ns;
};

static void look_at_all(struct timer *timer);

static void set_timer(struct control *c)
{
	uint64_t due = UINT64_MAX;
	struct orphan *o;

	LIST_FOREACH (o, &c->orphans, link)
		if (o->due_ns < due)
			due = o->due_ns;
	if (due != UINT64_MAX)
		loop_set_timer(c->loop, &c->orphan_timer, due, look_at_all);
	else
		loop_clear_timer(&c->orphan_timer);
}

static struct topic *topic_of(struct control *c, const struct orphan *o)
{
	struct topic *t =
		o->topic_index < c->reg->topic_capacity ? c->reg->topic[o->topic_index] : NULL;

	return t && t->rec->id == o->topic_id ? t : NULL;
}

/* Whether the message at `slot` has its payload in the arena.  What changes
 * while it is looked at is being overwritten, by somebody else. */
static int refers(const struct orphan *o, const struct shmq__ring *ring, uint64_t slot)
{
	struct lay_slot *s = lay_slot_at(ring->mem, &ring->geo, slot);
	uint64_t word = load_acquire(&s->ctrl);
	const char *payload = (const char *)s + ring->geo.payload_off;
	struct lay_arena_ref ref;
	uint16_t flags = s->flags;

	if (LAY_CTRL_STATE(word) != LAY_COMMITTED || !(flags & SHMQ_MSG_ARENA))
		return 0;
	memcpy(&ref, payload + (flags & SHMQ_MSG_BATCH ? sizeof(struct lay_batch) : 0),
	       sizeof(ref));
	fence_acquire();
	return load_relaxed(&s->ctrl) == word && ref.id == o->id && ref.gen == (uint32_t)o->gen;
}

enum need { NEED_NONE, NEED_FOUND, NEED_LOOK_ON };

/* From where the last look ended. */
static enum need look_on(struct orphan *o, const struct shmq__topic *t)
{
	unsigned looked = 0;

	for (; o->partition < t->geo.partitions; o->partition++, o->slot = 0)
		for (; o->slot < t->geo.depth; o->slot++) {
			if (looked++ == SLOTS_AT_ONCE)
				return NEED_LOOK_ON;
			if (refers(o, &t->ring[o->partition], o->slot))
				return NEED_FOUND;
		}
	return NEED_NONE;
}

static enum need look(struct control *c, struct orphan *o)
{
	struct topic *t = topic_of(c, o);
	struct shmq__why why = { "" };
	enum need need;

	if (!t)
		return NEED_NONE;
	if (registry_attach(c->reg, t, &why))
		return NEED_FOUND;
	need = look_on(o, t->attached);
	if (LIST_EMPTY(&t->handles))
		registry_detach(c->reg, t);
	return need;
}

static void drop(struct control *c, struct orphan *o)
{
	struct registry_range range;

	registry_drop_arena(c->reg, o->id, &range);
	work_free(c->work, &range, NULL);
	LIST_REMOVE(o, link);
	free(o);
}

static void look_at_all(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, orphan_timer);
	uint64_t now = shmq__clock_monotonic_ns();
	struct orphan *o, *next;

	for (o = LIST_FIRST(&c->orphans); o; o = next) {
		next = LIST_NEXT(o, link);
		if (o->due_ns > now)
			continue;
		switch (look(c, o)) {
		case NEED_NONE:
			log_debug("arena %u is free: no message is left in it", o->id);
			drop(c, o);
			break;
		case NEED_LOOK_ON:
			o->due_ns = now + NEXT_SLICE_NS;
			break;
		case NEED_FOUND:
			o->due_ns = now + o->pause_ns;
			if (o->pause_ns < LAST_LOOK_NS)
				o->pause_ns *= 2;
			break;
		}
	}
	set_timer(c);
}

/* An orphan that is waited for already: an adopting worker comes by twice,
 * once with the death of its publisher and once with the list of orphans. */
static int is_known(const struct control *c, uint32_t id)
{
	struct orphan *o;

	LIST_FOREACH (o, &c->orphans, link)
		if (o->id == id)
			return 1;
	return 0;
}

void orphan_begin(struct control *c, const struct topic *t, uint32_t id)
{
	struct lay_arena *a = shmq__slabs_arena(c->reg->slabs, id);
	struct orphan *o;

	store_release(&a->state, LAY_ARENA_ORPHAN);
	if (is_known(c, id))
		return;
	o = calloc(1, sizeof(*o));
	if (!o)
		return; /* the next worker finds it */
	o->id = id;
	o->gen = load_relaxed(&a->gen);
	o->bytes = a->bytes;
	o->topic_id = a->topic_id;
	o->topic_index = t->index;
	o->pause_ns = FIRST_LOOK_NS;
	o->due_ns = shmq__clock_monotonic_ns() + FIRST_LOOK_NS;
	LIST_INSERT_HEAD(&c->orphans, o, link);
	set_timer(c);
}

uint32_t orphan_find(struct control *c, struct topic *t, uint64_t bytes)
{
	struct orphan *o;
	uint32_t id;

	LIST_FOREACH (o, &c->orphans, link)
		if (o->topic_id == t->rec->id && o->bytes >= bytes)
			break;
	if (!o)
		return UINT32_MAX;
	id = o->id;
	LIST_REMOVE(o, link);
	free(o);
	return id;
}

void orphan_free_topic(struct control *c, uint64_t topic_id)
{
	struct orphan *o, *next;

	for (o = LIST_FIRST(&c->orphans); o; o = next) {
		next = LIST_NEXT(o, link);
		if (o->topic_id == topic_id)
			drop(c, o);
	}
}

static struct topic *find_topic(struct control *c, uint64_t id)
{
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i] && c->reg->topic[i]->rec->id == id)
			return c->reg->topic[i];
	return NULL;
}

void orphan_adopt(struct control *c)
{
	uint32_t count = load_relaxed(&c->reg->head->arena_count), id;

	for (id = 0; id < count; id++) {
		struct lay_arena *a = shmq__slabs_arena(c->reg->slabs, id);
		struct topic *t;

		if (load_relaxed(&a->state) != LAY_ARENA_ORPHAN)
			continue;
		t = find_topic(c, a->topic_id);
		if (t)
			orphan_begin(c, t, id);
	}
}
