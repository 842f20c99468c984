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
#include "ring.h"
#include "topic.h"

static inline int serve_goes_by_slots(const struct shmq__handle *h)
{
	return h->topic->geo.mode == SHMQ_EXCLUSIVE && h->topic->geo.partitions == 1;
}

/* Nothing has been sent, and what others have sent is not ours to wake for. */
static inline void serve_begin(struct shmq__handle *h)
{
	h->woken_for = serve_goes_by_slots(h) ? load_relaxed(&h->entry->pos) : 0;
}

/* Where one ring is exclusive: is anything there that was not at the last look?  The
 * next slot tells, which whoever sleeps does not look at, and not the count, whose line
 * the publisher would have to take back for the next message.  Acquire, so it is there
 * (W1) before the bell is looked at (W3).  What the publisher has passed for certain is
 * not walked. */
static inline int serve_finds_sent(struct shmq__handle *h)
{
	struct ring_reader at = { h->topic->ring[0].mem, h->topic->geo, h->woken_for };
	uint64_t word, most = 2 * RING_HINT_EVERY, pos = load_relaxed(&h->entry->pos);

	if (ring_look(&at, &word) < RING_MESSAGE)
		return 0;
	if (seq_diff(pos, at.next) > 0)
		at.next = pos;
	while (most-- && ring_look(&at, &word) >= RING_MESSAGE)
		at.next++;
	h->woken_for = at.next;
	return 1;
}

/* The same by the counts, where others send too, or to several rings.  The count is
 * stored after the commit (release), so what it counts is there (W1) before the bell is
 * looked at (W3): relaxed, as the full fence of that look acquires it. */
static inline int serve_counts_sent(struct shmq__handle *h)
{
	uint64_t sent = 0;
	uint32_t p;

	for (p = 0; p < h->topic->geo.partitions; p++)
		sent += load_relaxed(&h->entry[p].count);
	if (sent == h->woken_for)
		return 0;
	h->woken_for = sent;
	return 1;
}

/* Look at the bells of a publisher that has sent since the last look; how many woke
 * somebody.  Who went to sleep after that look has seen what was sent before: to wake it
 * for nothing would have it arm again, and be woken again, for ever. */
static inline int serve_wake_for(struct shmq__handle *h)
{
	int wakes = 0;
	uint32_t p;

	if (!(serve_goes_by_slots(h) ? serve_finds_sent(h) : serve_counts_sent(h)))
		return 0;
	for (p = 0; p < h->topic->geo.partitions; p++) {
		if (!bell_look(&h->topic->ring[p].bells->data, SHMQ__FENCE_FULL))
			continue;
		wakes++;
		store_relaxed(&h->entry[p].late_wakes, load_relaxed(&h->entry[p].late_wakes) + 1);
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
