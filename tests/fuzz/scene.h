/* SPDX-License-Identifier: MIT
 *
 * scene: a fake bus for the targets on shared memory, the same at the start of
 * each input, with a client of the library on it that needs no supervisor:
 * what it would be answered it is given here.
 *
 * Client 1 is the one under test, with one subscriber and one publisher; 2 is
 * the peer that lies, and has one of each, too.
 */
#ifndef SCENE_H
#define SCENE_H

#include "fake.h"
#include "fuzz.h"

#include "../../libshmq/bus.h"

struct scene {
	struct fake *f;
	struct shmq_bus bus;
	struct lay_member *sub, *pub, *peer_sub, *peer_pub;
	uint64_t base;
	/* What the peer can write: as a publisher, and as any client. */
	struct area published[8], shared[8];
	unsigned published_count, shared_count;
	/* What the supervisor alone can. */
	struct area records[8];
	unsigned records_count;
};

/* The scene that the input chooses. */
struct scene *scene_begin(struct bites *in);
void scene_end(struct scene *c);

/* All of them go. */
void scene_leave(void);

/* A slot that is almost right. */
void scene_craft_slot(struct scene *c, struct bites *in);
/* One or a few noises between steps, or none from now on. */
void scene_disturb(struct bites *in, const struct area *areas, unsigned count);

/* What a mad publisher does, if `what` is below 5, which is returned. */
int scene_publisher_lies(struct scene *c, struct bites *in, unsigned what);

/* More than any honest call takes on such a ring: a few laps of it, and the void
 * list against itself for each. */
#define SCENE_STEPS (UINT64_C(1) << 26)

#endif
