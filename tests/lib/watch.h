/* SPDX-License-Identifier: MIT
 *
 * watch: whether memory that others write has changed, and what in it did.
 *
 * What changed last is the label of a step: so every store of a protocol
 * that another process can see has a name, without any cost in the code that
 * makes it.
 */
#ifndef WATCH_H
#define WATCH_H

#include "layout.h"

enum watch_kind {
	WATCH_RING, /* header and slots */
	WATCH_BELLS,
	WATCH_ENTRIES,
	WATCH_ARENA,
	WATCH_REGISTRY,
};

struct watch_range {
	enum watch_kind kind;
	char *mem;
	size_t bytes;
	char *seen;              /* its content when it was looked at last */
	uint64_t at;             /* where it is in its slab, for labels */
	struct lay_geometry geo; /* of a ring */
};

struct watch {
	struct watch_range range[64];
	unsigned count;
	char label[64]; /* of the last change */
};

/* From now on this is looked at, too; its content now is what was seen.  geo
 * is NULL but for rings. */
struct watch_range *watch_add(struct watch *w, enum watch_kind kind, void *mem, size_t bytes,
			      uint64_t at, const struct lay_geometry *geo);
void watch_free(struct watch *w);

/* 1 if anything is not as it was seen last; then it is from now on. */
int watch_look(struct watch *w);

#endif
