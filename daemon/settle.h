/* SPDX-License-Identifier: MIT
 *
 * settle: a topic that asks for the node of its first publisher is made
 * where the kernel likes.  Its pages are moved when that publisher opens it,
 * before it begins: what is in the rings, and who has them open, stays.
 * Where they cannot go they stay, too, and the topic's note says why.
 * Of several that open it at once the first decides; one that is refused
 * was none.
 */
#ifndef SHMQ_SETTLE_H
#define SHMQ_SETTLE_H

#include "create.h"

/* For a publisher that is about to open t: 0, or POOL_COMING while its pages
 * are under way.  Nothing is decided by that: it may still be refused. */
int settle_topic(struct exchange *x, struct topic *t);

/* A publisher has opened t: if it is the first, its node is t's from now on. */
void settle_fix(struct control *c, struct topic *t);

/* create_plan() on the node that memory of this topic belongs on.  One that is
 * only the publisher's is let go, with an event and in the answer's note, where
 * there is none left, be it now or when it is populated (conn_answer_later()). */
int settle_plan(struct exchange *x, const struct topic *t, struct place_ask *ask,
		struct place_answer *answer);

#endif
