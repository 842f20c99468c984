/* SPDX-License-Identifier: MIT
 *
 * listener: callbacks for what a subscriber receives, on a thread of the library's or
 * on the caller's pool.
 *
 * A listener with a thread of its own waits as its subscriber does.  Those of a pool
 * are waited for by one thread of the bus, through their descriptors: one that is
 * readable is handed to the pool and not looked at again before its run there ends.
 */
#ifndef SHMQ_LISTENER_H
#define SHMQ_LISTENER_H

#include "bus.h"

/* What a subscriber returns that is to stop (sub_priv.h). */
#define SHMQ__SUB_INTERRUPTED 3

/* The subscriber closes: stop as shmq_listener_stop(). */
void shmq__listener_forget(struct shmq_listener *l);

/* The bus closes, and has no listeners any more: its waiting thread ends. */
void shmq__listener_end(struct shmq_bus *bus);

#endif
