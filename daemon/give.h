/* SPDX-License-Identifier: MIT
 *
 * give: which memory there is, and which of it a client is given.
 *
 * Topics that the same callers may publish and subscribe share slabs, others
 * do not; entries and arenas are one uid's.  The owner's slabs are there from
 * the start, the others are made when they are needed, and used once the
 * parent holds them as well.
 *
 *   slab       given for writing to              for reading to
 *   registry                                     everybody
 *   entries    whose uid it is                   everybody
 *   bells      who has a topic of the list open
 *   rings      publishers of the list            subscribers of the list
 *   arenas     publishers of the list, of the    subscribers of the list
 *              uid whose it is
 *
 * A new arena's slab is pushed to the subscribers before its publisher has it;
 * who misses that asks (PROTO_SLABS).
 */
#ifndef SHMQ_GIVE_H
#define SHMQ_GIVE_H

#include "control.h"

/* The slab of that kind for one list and uid; made if there is none.  0,
 * POOL_COMING, or an error with why. */
int give_find(struct control *c, uint32_t kind, unsigned page_shift, uint64_t list, uint32_t uid,
	      unsigned *id, struct shmq__why *why);
/* The parent holds that one, or all. */
#define GIVE_ALL UINT32_MAX
void give_is_held(struct control *c, uint32_t id);

uint64_t give_list_of(const struct control *c, const struct topic *t);

/* What a greeting brings, and an open handle on t. */
void give_greeting(struct exchange *x);
void give_topic(struct conn *conn, struct proto_reply *reply, int *fds, unsigned *fd_count,
		const struct topic *t, enum shmq_role role);
/* One more, for writing. */
void give_slab(struct conn *conn, struct proto_reply *reply, int *fds, unsigned *fd_count,
	       unsigned id);
int give_request(struct exchange *x);

#endif
