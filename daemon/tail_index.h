/* SPDX-License-Identifier: MIT
 *
 * tail_index: the sparse index beside a segment, as it grows.  Nothing
 * depends on it, so nothing that fails here is an error: an entry that
 * could not be written is missing, and the log is searched a little longer.
 */
#ifndef SHMQ_TAIL_INDEX_H
#define SHMQ_TAIL_INDEX_H

#include <stdint.h>

struct tail_index;

/* The index of segment first_seq in directory `dir`.  If it is there and
 * its own, entries before `off` are kept and others cut off.  -ENOMEM. */
int tail_index_open(int dir, uint64_t first_seq, uint64_t seed, uint64_t off,
		    struct tail_index **out);

/* Write what is pending, and close. */
void tail_index_close(struct tail_index *index);

/* The least offset of a record that is to have the next entry. */
uint64_t tail_index_next(const struct tail_index *index);

/* The record at off begins with seq; the highest ts before it. */
void tail_index_add(struct tail_index *index, uint64_t seq, uint64_t max_ts, uint64_t off);

/* The record at off is none any more, if it had the last entry. */
void tail_index_take_back(struct tail_index *index, uint64_t off);

/* Write what is pending if it has become much. */
void tail_index_flush(struct tail_index *index);

#endif
