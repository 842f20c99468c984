/* SPDX-License-Identifier: MIT
 *
 * create: topics come and go.
 *
 *   (none) -> CREATING -> LIVE -> ENDED -> (none)
 *
 * CREATING lasts while a child populates the rings; a failure leads back.
 * ENDED lasts until the last handle is closed.
 */
#ifndef SHMQ_CREATE_H
#define SHMQ_CREATE_H

#include "control.h"

/* place_plan(); POOL_COMING if it says that there is not enough while some is
 * on its way back. */
int create_plan(struct exchange *x, struct place_ask *ask, struct place_answer *answer);

/* Where the pages of a warm range are. */
int create_read_node(void *mem, uint64_t bytes);

/* The slab that rings of that topic come from; its bells have one as well.  0,
 * POOL_COMING, or an error with x->why. */
int create_find_slabs(struct exchange *x, const char *topic, unsigned page_shift, unsigned *rings);

#endif
