/* SPDX-License-Identifier: MIT */
#include "watch.h"

#include "tap.h"

#include <stdio.h>
#include <stdlib.h>

struct watch_range *watch_add(struct watch *w, enum watch_kind kind, void *mem, size_t bytes,
			      uint64_t at, const struct lay_geometry *geo)
{
	struct watch_range *r = &w->range[w->count++];

	CHECK_LE(w->count, sizeof(w->range) / sizeof(w->range[0]));
	*r = (struct watch_range){
		.kind = kind, .mem = mem, .bytes = bytes, .seen = malloc(bytes), .at = at
	};
	if (geo)
		r->geo = *geo;
	CHECK(r->seen);
	memcpy(r->seen, mem, bytes);
	return r;
}

void watch_free(struct watch *w)
{
	while (w->count)
		free(w->range[--w->count].seen);
}

/* ---- labels ---------------------------------------------------------------- */

#define NAME(type, field) \
	{ \
		offsetof(struct type, field), sizeof(((struct type *)0)->field), #field \
	}

struct name {
	size_t off, bytes;
	const char *text;
};

static const struct name ring_names[] = {
	NAME(lay_ring, magic),      NAME(lay_ring, state),
	NAME(lay_ring, tail_hint),  NAME(lay_ring, owner),
	NAME(lay_ring, void_count), NAME(lay_ring, void_forgotten),
	NAME(lay_ring, voids),      { 0 },
};
static const struct name entry_names[] = {
	NAME(lay_entry, gen),       NAME(lay_entry, pos),   NAME(lay_entry, limit),
	NAME(lay_entry, count),     NAME(lay_entry, bytes), NAME(lay_entry, lost),
	NAME(lay_entry, asleep),    NAME(lay_entry, flags), NAME(lay_entry, waits),
	NAME(lay_entry, batch_end), NAME(lay_entry, need),  { 0 },
};
static const struct name bell_names[] = {
	NAME(lay_bell, armed),
	NAME(lay_bell, served),
	NAME(lay_bell, word),
	{ 0 },
};
static const struct name registry_names[] = {
	{ LAY_HEAP_OFF, 1 << 20, "heap" },
	{ LAY_TOPICS_OFF, LAY_HEAP_OFF - LAY_TOPICS_OFF, "topic" },
	{ LAY_ARENAS_OFF, LAY_TOPICS_OFF - LAY_ARENAS_OFF, "arena" },
	{ LAY_SLABS_OFF, LAY_ARENAS_OFF - LAY_SLABS_OFF, "slab" },
	{ LAY_CLIENTS_OFF, LAY_SLABS_OFF - LAY_CLIENTS_OFF, "client" },
	{ 0, LAY_CLIENTS_OFF, "head" },
	{ 0 },
};

static const char *find(const struct name *names, size_t off)
{
	for (; names->text; names++)
		if (off >= names->off && off - names->off < names->bytes)
			return names->text;
	return "rest";
}

static const char *state_name(uint64_t word)
{
	static const char *const names[] = { "none", "CLAIMED", "COMMITTED", "VOID",
					     "GONE", "AHEAD",   "bad",       "bad" };

	return names[LAY_CTRL_STATE(word)];
}

static void label(struct watch *w, const struct watch_range *r, size_t off)
{
	size_t in_slot;
	uint64_t word;

	switch (r->kind) {
	case WATCH_RING:
		if (off < LAY_RING_HEADER_BYTES) {
			snprintf(w->label, sizeof(w->label), "ring.%s", find(ring_names, off));
			return;
		}
		in_slot = (off - LAY_RING_HEADER_BYTES) & (r->geo.slot_bytes - 1);
		memcpy(&word, r->mem + off, sizeof(word));
		if (!in_slot)
			snprintf(w->label, sizeof(w->label), "slot.ctrl=%s", state_name(word));
		else
			snprintf(w->label, sizeof(w->label), "slot.%s",
				 in_slot < sizeof(struct lay_slot) ? "header" : "payload");
		return;
	case WATCH_ENTRIES:
		snprintf(w->label, sizeof(w->label), "entry.%s",
			 find(entry_names, off % sizeof(struct lay_entry)));
		return;
	case WATCH_BELLS:
		snprintf(w->label, sizeof(w->label), "bell.%s.%s",
			 off % sizeof(struct lay_bells) < sizeof(struct lay_bell) ? "data" :
										    "credit",
			 find(bell_names, off % sizeof(struct lay_bell)));
		return;
	case WATCH_ARENA:
		snprintf(w->label, sizeof(w->label), "arena bytes");
		return;
	case WATCH_REGISTRY:
		snprintf(w->label, sizeof(w->label), "registry.%s",
			 find(registry_names, r->at + off));
		return;
	}
}

/* ---- looking ----------------------------------------------------------------- */

/* Take over what changed in [off, off + bytes); 1 if it was labelled. */
static int take(struct watch *w, struct watch_range *r, size_t off, size_t bytes)
{
	int labelled = 0;
	size_t at;

	for (at = off; at < off + bytes; at += sizeof(uint64_t)) {
		if (!memcmp(r->mem + at, r->seen + at, sizeof(uint64_t)))
			continue;
		memcpy(r->seen + at, r->mem + at, sizeof(uint64_t));
		if (!labelled)
			label(w, r, at);
		labelled = 1;
	}
	return labelled;
}

int watch_look(struct watch *w)
{
	int changed = 0;
	unsigned i;
	size_t at;

	for (i = 0; i < w->count; i++) {
		struct watch_range *r = &w->range[i];

		if (!memcmp(r->mem, r->seen, r->bytes))
			continue;
		for (at = 0; at < r->bytes; at += LAY_LINE)
			if (memcmp(r->mem + at, r->seen + at, LAY_LINE))
				changed |= take(w, r, at, LAY_LINE);
	}
	return changed;
}
