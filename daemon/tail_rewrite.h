/* SPDX-License-Identifier: MIT
 *
 * tail_rewrite: a complete segment, written anew in its place: compressed, or
 * without what was superseded; or what is left of several that follow one another, as
 * one in the place of the first.
 *
 * Whatever happens, the segment is there, as it was or as it will be: the new
 * file is whole and synced before it takes its name, and that is before the old
 * one goes.  Readers that have the old one open read that to its end.  Those behind
 * the first are removed last: until then what they hold is there twice.
 */
#ifndef SHMQ_TAIL_REWRITE_H
#define SHMQ_TAIL_REWRITE_H

#include "log_segment.h"

enum tail_edit {
	TAIL_KEEP,
	TAIL_DROP,   /* a message: its seq becomes part of a hole */
	TAIL_UNBATCH /* a message: it is kept, but is of no atomic batch any more */
};

/* For each segment, and after each megabyte: others have their turn.  rewriting: first seq of the
 * segment that must stay where it is meanwhile, or NULL.  0 to go on; else that is the end. */
struct tail_turn {
	int (*give)(void *arg, const uint64_t *rewriting);
	void *arg;
};
#define TAIL_TURN_BYTES ((uint64_t)1 << 20)

struct tail_rewrite {
	int dir; /* of the partition */
	const struct log_owner *owner;
	uint64_t first_seq;
	const uint64_t *more; /* first seqs of those that follow, and become part of it */
	unsigned more_count;
	int level; /* of zstd; 0: not compressed */
	/* What becomes of a record; NULL: all are kept, byte for byte. */
	enum tail_edit (*edit)(void *arg, const struct log_record *head, const char *body);
	void *arg;
	struct tail_turn turn;
};

/* 0, and the segment is the new one.  Else it is the old one: SHMQ_ECORRUPT: it is
 * not whole, or one does not go on where the one before ends, and so all stay as they
 * are; what `turn` returned; or -errno; with why. */
int tail_rewrite(const struct tail_rewrite *r, struct shmq__why *why);

/* Remove a segment and its index, for good.  0 or -errno. */
int tail_remove(int dir, uint64_t first_seq);

#endif
