/* SPDX-License-Identifier: MIT
 *
 * tail_ceiling: the file that says which seqs were never given out.  Two
 * blocks are written in turns, so one of them is whole at any moment.
 */
#ifndef SHMQ_TAIL_CEILING_H
#define SHMQ_TAIL_CEILING_H

#include "log_segment.h"
#include "tail_io.h"

struct tail_ceiling;

/* In the directory `dir`, which is synced if the file is new.  `serial` is the
 * one that counted when it was read last, 0 if there was none. */
int tail_ceiling_open(struct tail_io *io, int dir, const struct log_owner *owner, uint64_t serial,
		      struct tail_ceiling **out);

/* The first one of a log: the file with both its blocks, so that none grows it.  Nothing
 * is synced.  0 or -errno. */
int tail_ceiling_make(int dir, const struct log_owner *owner, uint64_t seq);

/* When it is idle. */
void tail_ceiling_close(struct tail_ceiling *c);

/* Have it written and synced in the background; of several that are asked for
 * meanwhile the last one counts. */
enum tail_ceiling_end { TAIL_CEILING_OPEN, TAIL_CEILING_CLEAN };
void tail_ceiling_set(struct tail_ceiling *c, uint64_t seq, enum tail_ceiling_end end);

/* The ceiling that is on the disk; 0 if none has been written by us. */
uint64_t tail_ceiling_seq(const struct tail_ceiling *c);

/* Why the last one is not; it is tried again by tail_ceiling_retry(). */
int tail_ceiling_error(const struct tail_ceiling *c);
void tail_ceiling_retry(struct tail_ceiling *c);

int tail_ceiling_is_idle(const struct tail_ceiling *c);

#endif
