/* SPDX-License-Identifier: MIT
 *
 * world: a fake bus twice: one that a subject lives on, and a copy of it.
 *
 * The subject is another process; what it opens by the standin lies in memory
 * of its own ("below").  The test's own handles are on the copy ("above"): the
 * standin's fake.  So at any of the subject's instructions the copy can be
 * made, the subject declared dead in it, and everything done there that
 * others do about that, while the subject stays where it is.
 */
#ifndef WORLD_H
#define WORLD_H

#include "standin.h"
#include "watch.h"

struct world_range {
	unsigned slab;
	uint64_t off;
	size_t bytes;
	char *below, *above;
};

struct world {
	struct standin *s;
	struct fake *f;
	int fd[FAKE_SLABS]; /* below */
	struct world_range range[64];
	unsigned ranges;
	struct watch watch; /* of what is below */
};

/* What the test opens on world->s until world_open_below() is above. */
struct world *world_new(const struct fake_options *options);
void world_free(struct world *w);

/* Who comes from now on gets what is below, which is a copy of what is above
 * whenever it is given something. */
void world_open_below(struct world *w);
/* Who comes now gets what is above. */
void world_close_below(struct world *w);

/* Who asked for something on what is below, and is held, gets it; what is above
 * is what below was. */
void world_answer(struct world *w);

/* 1 if what is below has changed since the last look; world->watch.label is
 * the last change. */
int world_look(struct world *w);

/* Make above what below was at the last look. */
void world_copy_up(struct world *w);

/* Make below what is above, and wake who sleeps there. */
void world_copy_down(struct world *w);

#endif
