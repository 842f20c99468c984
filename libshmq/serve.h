/* SPDX-License-Identifier: MIT
 *
 * serve: what must happen while nobody calls: events are read, a
 * supervisor that went is looked for, deferred wakes are made.  The
 * library's thread does it, or the caller in shmq_bus_serve().
 *
 * shmq__bus_ready(), shmq__bus_defer() and shmq__bus_undefer() of bus.h
 * are here too.
 */
#ifndef SHMQ_SERVE_H
#define SHMQ_SERVE_H

#include "bus.h"

/* Handle what is there, waiting until deadline for the first thing.
 * Returns the number of things done, or -errno. */
int shmq__serve(struct shmq_bus *bus, uint64_t deadline);

/* Start the thread, unless it runs or the caller serves.  Locked. */
void shmq__serve_start(struct shmq_bus *bus);

/* What the first handle of a process needs, while the supervisor makes it: but
 * where threads are, membarrier is registered only if the topic wants it, for it
 * takes 10 ms there.  Locked. */
void shmq__serve_get_ready(struct shmq_bus *bus);

/* Who serves looks again, at bus->stop, the deferred wakes, the
 * connection. */
void shmq__serve_kick(struct shmq_bus *bus);

#endif
