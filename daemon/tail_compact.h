/* SPDX-License-Identifier: MIT
 *
 * tail_compact: of the complete segments of a partition, what was superseded.
 *
 * Keys are learned from the segments that came since, as many as fit in memory, and
 * compared byte by byte; then all segments up to there are written anew, oldest
 * first, without the messages that one of those has superseded.  A message that
 * deletes its key is dropped when it is old enough: what it deletes goes in the same
 * pass, and before it.  What is left of segments that follow one another becomes one,
 * up to the size of a segment.  Members of an atomic batch that is not whole in one segment,
 * which recovery may yet judge, supersede nothing and stay.
 */
#ifndef SHMQ_TAIL_COMPACT_H
#define SHMQ_TAIL_COMPACT_H

#include "tail_rewrite.h"

struct tail_compact {
	int dir; /* of the partition */
	const struct log_owner *owner;
	const uint64_t *first; /* of its complete segments, oldest first */
	unsigned count;
	unsigned clean;       /* so many of them supersede nothing that was not dropped */
	unsigned passed;      /* so many of them were gone through by a pass like this one,
				 which did not end */
	uint64_t keep_from;   /* messages from there on are kept, whatever comes */
	uint64_t merge_bytes; /* of a segment: up to so many, several become one */
	int level;            /* of zstd, 0: not compressed */
	size_t key_bytes;     /* memory for keys; at least one segment is gone through */
	uint64_t now_ns;      /* CLOCK_REALTIME */
	int64_t tombstone_ns;
	int keeps_tombstones; /* 1: all of them: that what they delete is gone is not known */
	struct tail_turn turn;
};

struct tail_compacted {
	unsigned done;       /* so many segments are clean now */
	unsigned rewritten;  /* of them, by this pass */
	unsigned merged;     /* into others: they are gone */
	uint64_t dropped;    /* messages */
	uint64_t end_seq;    /* what comes before was learned, when something is passed */
	uint64_t passed_seq; /* segments before it were gone through: it changes while
				the pass goes on */
	int has_passed;
	uint64_t tombstone_ns; /* when the next is to be dropped: CLOCK_REALTIME, or
				  UINT64_MAX */
};

/* *out is right at each turn too.  A segment that is gone meanwhile is passed.  0, what `turn`
 * returned, or what went wrong, with why: then the log is as good as before. */
int tail_compact(const struct tail_compact *c, struct tail_compacted *out, struct shmq__why *why);

#endif
