/* SPDX-License-Identifier: MIT
 *
 * start: a client starts the supervisor of its bus, where the options
 * of the bus say SHMQ_START_ON_DEMAND.
 */
#ifndef SHMQ_START_H
#define SHMQ_START_H

#include "bus.h"

/* Start it and wait until its socket accepts; not waited for where the
 * program reaps its children itself.  Only in a runtime directory of the caller's
 * own.  0 or SHMQ_ENODAEMON. */
int shmq__start_daemon(struct shmq_bus *bus, struct shmq__why *why);

/* Our supervisor has gone.  Of one that ended in order no lock is left,
 * and one that only lost its parent, or its worker, comes back by
 * itself; where all of it was killed, start another.  Not waited for:
 * it will want to be offered what we hold.  Locked. */
void shmq__start_again(struct shmq_bus *bus);

/* Collect the one that was not waited for. */
void shmq__start_reap(struct shmq_bus *bus, int patience_ms);

#endif
