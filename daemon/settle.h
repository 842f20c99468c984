/* SPDX-License-Identifier: MIT
 *
 * settle: a topic that asks for the node of its first publisher is made
 * where the kernel likes.  Its pages are moved when that publisher opens it,
 * before it begins: what is in the rings, and who has them open, stays.
 * Where they cannot go they stay, too, and the topic's note says why.
 */
#ifndef SHMQ_SETTLE_H
#define SHMQ_SETTLE_H

#include "create.h"

/* For a publisher that is about to open t: 0, or POOL_COMING while its pages
 * are under way. */
int settle_topic(struct exchange *x, struct topic *t);

/* create_plan() on the node that memory of this topic belongs on; one that
 * is only the publisher's is let go where there is none left. */
int settle_plan(struct exchange *x, const struct lay_topic *rec, struct place_ask *ask,
		struct place_answer *answer);

#endif
