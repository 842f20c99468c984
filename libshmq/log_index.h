/* SPDX-License-Identifier: MIT
 *
 * log_index: the index beside a segment, looked at as a whole, and made anew
 * from the segment.  Finding places by it: log_segment.h.
 *
 * An index is made for speed only: one that is not there, or does not reach
 * the end of its segment, makes reading slower and nothing wrong.
 */
#ifndef SHMQ_LOG_INDEX_H
#define SHMQ_LOG_INDEX_H

#include "log_segment.h"

/* Is the index of *s whole, in order, and does it reach so far that no more
 * lies behind it than a writer keeps back?  0 if it is; SHMQ_EEMPTY:
 * there is none; SHMQ_ECORRUPT; -errno. */
int shmq__log_index_check(int dir, const struct log_segment *s);

/* Make it anew from the segment's records, as far as they are good.  Takes as
 * long as reading them.  s is taken over and closed.  0 or -errno: the old one, if
 * there was one, is still there. */
int shmq__log_index_rebuild(int dir, struct log_segment *s);

#endif
