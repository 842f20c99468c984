/* SPDX-License-Identifier: MIT
 *
 * notify: descriptors that become readable when somebody wakes.
 *
 * Whoever wakes changes a word and wakes those who sleep on it (bell.h, and the
 * words of logs and of the registry).  A thread of the library's sleeps on the
 * words of all descriptors of a bus, as any sleeper does, and makes readable what
 * belongs to a word that has changed.  To who wakes it is nothing new: without an
 * arming there is no wake, and no word changes.
 *
 *   reader                              thread
 *   D1 descriptor emptied, raised = 0   D5 word differs from what was seen
 *   D2 bells armed (S1 to S3)           D6 seen = word; unless raised:
 *   D3 look again (S4)                       raised = 1, descriptor written
 *   D4 nothing: go to poll              D7 FUTEX_WAIT(word, seen)
 *
 * D1 and D6 exclude each other by a lock.  What D3 misses is followed by a change of
 * the word after D2, which the thread has not seen before D1: it finds it at D5, or
 * D7 returns at once, and D6 comes after D1.  So the descriptor is readable when
 * there is something, until a look that finds nothing; it may be when there is not.
 * As long as it is not raised the arming stands, or its wake is on the way to D6:
 * another look that finds nothing has nothing to do.
 *
 * An edge comes with each D6, and the reader's next D1 with the look that finds
 * nothing: who reads on until that sees every edge.
 */
#ifndef SHMQ_NOTIFY_H
#define SHMQ_NOTIFY_H

#include "bus.h"

struct shmq__notify;

enum notify_kind {
	NOTIFY_LEVEL, /* readable until shmq__notify_lower() */
	NOTIFY_COUNT, /* an eventfd that counts, emptied by who reads it */
};

/* A descriptor of the bus, readable at first if it is of the first kind. */
int shmq__notify_open(struct shmq_bus *bus, enum notify_kind kind, struct shmq__notify **out);
/* Before its bus is closed, or after; NULL allowed. */
void shmq__notify_close(struct shmq__notify *n);
int shmq__notify_fd(const struct shmq__notify *n);

/* The words that it stands for, instead of those before.  They stay mapped as long
 * as the bus does.  0, -ENOMEM, -EAGAIN (no thread); then it stands for some. */
int shmq__notify_words(struct shmq__notify *n, const shmq_au32 *const *word, unsigned count);

/* 1 if it is raised; if not, the last arming stands. */
int shmq__notify_is_raised(struct shmq__notify *n);
void shmq__notify_lower(struct shmq__notify *n); /* D1 */
void shmq__notify_raise(struct shmq__notify *n);
/* After D3: it is raised then at the latest, whether anybody wakes or not. */
void shmq__notify_until(struct shmq__notify *n, int64_t ns);

/* The bus closes: what is still open is raised by nobody any more. */
void shmq__notify_end(struct shmq_bus *bus);

#endif
