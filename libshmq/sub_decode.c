/* SPDX-License-Identifier: MIT
 *
 * sub_decode: what a slot says, which is trusted in nothing, and the arenas of
 * publishers that it refers to.
 */
#include "arena.h"
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Find [where, where + len).  0, SHMQ_ECORRUPT, or why it cannot be mapped. */
static int map_arena(struct shmq_sub *sub, const struct lay_arena_ref *where, uint64_t len,
		     char **out)
{
	struct lay_arena *rec = shmq__slabs_arena(sub->h.bus->slabs, where->id);
	struct arena_map *m;
	void *mem;
	int error;

	*out = sub_in_mapped_arena(sub, where, len);
	if (*out)
		return 0;
	if (!rec)
		return SHMQ_ECORRUPT;
	if (where->id >= sub->arena_count) {
		uint32_t count = where->id + 8;
		struct arena_map *more = realloc(sub->arena, count * sizeof(*more));

		if (!more)
			return -ENOMEM;
		memset(more + sub->arena_count, 0, (count - sub->arena_count) * sizeof(*more));
		sub->arena = more;
		sub->arena_count = count;
	}
	m = &sub->arena[where->id];
	if (m->mem && m->gen != where->gen) {
		shmq__slabs_unmap(sub->h.bus->slabs, m->ref, m->bytes, m->mem);
		m->mem = NULL;
	}
	if (!m->mem) {
		/* Relaxed: A1 brought what was stored before the arena was given out.  What
		 * was stored after that is of another, and then the slot was used again. */
		if ((uint32_t)load_relaxed(&rec->gen) != where->gen)
			return SHMQ_ECORRUPT;
		m->gen = where->gen;
		m->ref = rec->mem;
		m->bytes = rec->bytes;
		error = shmq__bus_reach(sub->h.bus, sub->h.topic, m->ref);
		if (!error)
			error = shmq__slabs_map(sub->h.bus->slabs, m->ref, m->bytes,
						SHMQ__SLAB_READ, &mem);
		if (error)
			return error;
		m->mem = mem;
	}
	if (where->off >= m->bytes || len > m->bytes - where->off)
		return SHMQ_ECORRUPT;
	*out = m->mem + where->off;
	return 0;
}

int shmq__sub_decode(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg,
		     struct lay_batch *batch)
{
	const struct lay_geometry *g = &l->r.geo;
	char *s = (char *)lay_slot_at(l->r.mem, g, l->r.next);
	char *at = s + g->payload_off;
	uint32_t room = g->inline_bytes;
	struct lay_slot head;
	int rc;

	shmq__copy_racy(&head, s, sizeof(head));
	sub_fill_msg(l, l->r.next, &head, at, msg);
	if (g->payload_off > sizeof(head)) {
		struct lay_slot_extra extra;

		shmq__copy_racy(&extra, s + sizeof(head), sizeof(extra));
		sub_fill_stamps(&extra, msg);
	}
	if (likely(!head.flags))
		return likely(head.len <= sub->inline_max) ? 0 : SHMQ_ECORRUPT;
	if (head.len > g->max_bytes)
		return SHMQ_ECORRUPT;
	if (head.flags & SHMQ_MSG_BATCH) {
		shmq__copy_racy(batch, at, sizeof(*batch));
		at += sizeof(*batch);
		room -= (uint32_t)sizeof(*batch);
	}
	if (head.flags & SHMQ_MSG_ARENA) {
		struct lay_arena_ref where;

		shmq__copy_racy(&where, at, sizeof(where));
		rc = map_arena(sub, &where, head.len, &at);
		if (rc)
			return rc;
	} else if (head.len > room) {
		return SHMQ_ECORRUPT;
	}
	if (head.flags & SHMQ_MSG_META) {
		struct lay_meta meta;
		uint32_t names;

		if (head.len < sizeof(meta))
			return SHMQ_ECORRUPT;
		shmq__copy_racy(&meta, at, sizeof(meta));
		names = (uint32_t)sizeof(meta) + meta.key_bytes + meta.properties_bytes;
		if (names > head.len)
			return SHMQ_ECORRUPT;
		msg->key = at + sizeof(meta);
		msg->key_len = meta.key_bytes;
		msg->properties = at + sizeof(meta) + meta.key_bytes;
		msg->properties_len = meta.properties_bytes;
		at += names;
		msg->len = head.len - names;
	}
	msg->data = at;
	return 0;
}
