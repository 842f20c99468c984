/* SPDX-License-Identifier: MIT
 *
 * event: what happens on the bus, from the supervisor or from here,
 * until shmq_bus_event() takes it.
 *
 * The last BUS_EVENTS are kept under bus->event_lock; older ones that
 * nobody took are counted as missed.
 */
#ifndef SHMQ_EVENT_H
#define SHMQ_EVENT_H

#include "bus.h"

/* An event of the library's own. */
void shmq__event_push(struct shmq_bus *bus, enum shmq_event_kind kind);

/* Who waits for one looks whether waits are over. */
void shmq__event_wake(struct shmq_bus *bus);

/* Read what the event socket has.  Returns events taken, -EPIPE when
 * the supervisor has gone, or what it gave us is no such socket. */
int shmq__event_read(struct shmq_bus *bus);

#endif
