/* SPDX-License-Identifier: MIT
 *
 * work: what takes long and can wait, done in slices of about 4 MiB between
 * events, so that giving back a gigabyte delays nobody's recovery: punching
 * freed ranges, and locking rings in memory.
 */
#ifndef SHMQ_WORK_H
#define SHMQ_WORK_H

#include "loop.h"
#include "registry.h"

struct work;

int work_create(struct loop *loop, struct registry *r, struct work **out);
void work_destroy(struct work *w);

/* Free a range; big ones are punched first, and can be taken again only
 * then.  `mem` is a map of it to be undone on the way, or NULL. */
void work_free(struct work *w, const struct registry_range *range, void *mem);

/* How many ranges are still to be punched, of all or of hugepages; how many
 * have been; and `freed` is called after each, from the loop.  For who finds
 * memory short. */
enum work_pages { WORK_ALL_PAGES, WORK_HUGEPAGES };
unsigned work_freeing(const struct work *w, enum work_pages pages);
uint64_t work_freed(const struct work *w);
void work_on_freed(struct work *w, void (*freed)(void *arg), void *arg);

/* Lock the rings of t, which stay mapped for it; `done` gets 0 or an error
 * as place_lock(), with why; with WORK_HURRY perhaps before this returns.  One
 * at a time for each topic. */
enum work_when { WORK_LATER, WORK_HURRY };
void work_lock(struct work *w, struct topic *t, enum work_when when,
	       void (*done)(void *arg, struct topic *t, int error, const struct shmq__why *why),
	       void *arg);

/* The topic goes: drop its lock without a call.  Returns what is for
 * work_free() to unmap, or NULL. */
void *work_forget(struct work *w, struct topic *t);

#endif
