/* SPDX-License-Identifier: MIT
 *
 * attach: how a client comes to its supervisor, and back to it.
 *
 * It connects, says hello, and takes over the segments.  A supervisor
 * that has gone is looked for: one that took its place resumes this
 * client by its nonce; where all of it was killed, the next start is
 * offered what we hold, or a start is made here.  bus->lock is held,
 * but while the bus is opened.
 */
#ifndef SHMQ_ATTACH_H
#define SHMQ_ATTACH_H

#include "bus.h"

/* Attach, starting a supervisor if that is asked for, until deadline.
 * 0, SHMQ_ENODAEMON if nobody is there, SHMQ_EDAEMON, SHMQ_EVERSION,
 * SHMQ_ELOST, SHMQ_ELIMIT, SHMQ_EPROTO, SHMQ_ECORRUPT, -errno, or what
 * the supervisor refused us with. */
int shmq__attach_until(struct shmq_bus *bus, uint64_t deadline, struct shmq__why *why);

/* The supervisor has gone: carry on alone and try to come back, again
 * at *retry_at unless that is 0.  Wakes that are due are not kept
 * waiting for it.  Takes the lock.  0 if it is there, or an error of
 * shmq__attach_until(). */
int shmq__attach_come_back(struct shmq_bus *bus, uint64_t *retry_at);

/* Queue a GOODBYE on the connection there is, and wait for nothing: we were taken in,
 * or may have been, but do not stay. */
void shmq__attach_say_goodbye(struct shmq_bus *bus, int sock);

/* The connection is gone, and the supervisor may not know that we leave, whom it may take
 * for one that comes back, as long as another bus of this process has the same maps: say
 * hello and goodbye, and wait for nothing. */
void shmq__attach_leave(struct shmq_bus *bus);

/* Whether an error of a socket means that nobody is at its other end. */
int shmq__attach_is_away(int error);

#endif
