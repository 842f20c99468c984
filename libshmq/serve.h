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

#include "bell.h"
#include "bus.h"

/* Look at the bells of a publisher that has sent since the last look; how many woke
 * somebody.  Who went to sleep after that look has seen what was sent before: to wake it
 * for nothing would have it arm again, and be woken again, for ever.  The count is
 * stored after the commit (release), so what it counts is there (W1) before the bell is
 * looked at (W3): relaxed, as the full fence of that look acquires it. */
static inline int serve_wake_for(struct shmq__handle *h)
{
	uint64_t sent = 0;
	int wakes = 0;
	uint32_t p;

	for (p = 0; p < h->topic->geo.partitions; p++)
		sent += load_relaxed(&h->entry[p].count);
	if (sent == h->woken_for)
		return 0;
	h->woken_for = sent;
	for (p = 0; p < h->topic->geo.partitions; p++) {
		if (!bell_look(&h->topic->ring[p].bells->data, SHMQ__FENCE_FULL))
			continue;
		wakes++;
		add_relaxed(&h->entry[p].wakes, 1);
	}
	return wakes;
}

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
