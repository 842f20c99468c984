/* SPDX-License-Identifier: MIT
 *
 * tail_clean: how far compaction of a partition has come, on disk, so that a tailer
 * that ends early does not begin anew.
 *
 * It is a hint: what was superseded and is not dropped only takes room.  But what
 * deletes a key must not go on its word, since segments may have been put back by
 * hand that hold what it deleted.
 */
#ifndef SHMQ_TAIL_CLEAN_H
#define SHMQ_TAIL_CLEAN_H

#include "log_segment.h"

struct tail_clean {
	uint64_t clean_seq;           /* what comes before supersedes nothing any more */
	uint64_t end_seq, passed_seq; /* of a pass that did not end: log_format.h */
	uint64_t tombstone_ns;        /* CLOCK_REALTIME, UINT64_MAX: none */
};

/* What is in directory dir, of a partition.  0; SHMQ_EEMPTY: nothing that is whole and
 * of this partition of this log. */
int tail_clean_read(int dir, const struct log_owner *owner, struct tail_clean *out);

/* In the place of what was there.  It is not synced: what it tells of is.  0 or -errno. */
int tail_clean_write(int dir, const struct log_owner *owner, const struct tail_clean *c);

#endif
