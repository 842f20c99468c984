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

/* place_plan(), once more after giving back what is on its way if it says
 * that there is not enough. */
int create_plan(struct control *c, const struct place_ask *ask, struct place_answer *answer,
		struct shmq__why *why);

/* Where the pages of a warm range are. */
int create_read_node(void *mem, uint64_t bytes);

#endif
