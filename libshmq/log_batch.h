/* SPDX-License-Identifier: MIT
 *
 * log_batch: which atomic batches are open at a place of a log.
 *
 * Members pass in the order of their seqs.  Batches that interleave are open
 * together, from the first member of the first to the last of the last: cut
 * anywhere in between, the log would have a part of one.  All of a batch is
 * within a ring; and where publishers wait for the log, which is not said to be
 * written behind the first member, so is all that is open together.  What is
 * not whole a ring later never was a batch: its publisher is mad.
 */
#ifndef SHMQ_LOG_BATCH_H
#define SHMQ_LOG_BATCH_H

#include "log_reader.h"

struct log_batches {
	uint64_t left; /* members that are still to come, of all; 0: none is open */
	uint64_t seq;  /* of the first member of the first */
};

/* A member passes.  0: its batch began where nobody looked. */
static inline int log_batches_note(struct log_batches *o, const struct lay_batch *b, uint64_t seq)
{
	if (!b->index) {
		if (!o->left)
			o->seq = seq;
		o->left += b->count - 1;
		return 1;
	}
	if (!o->left || seq_diff(b->first_seq, o->seq) < 0)
		return 0;
	o->left--;
	return 1;
}

/* `next` is what comes next. */
static inline void log_batches_expire(struct log_batches *o, uint64_t next, uint64_t depth)
{
	if (next - o->seq >= depth)
		o->left = 0;
}

/* A record passes, which may be of a member.  What a gap has a part of is not
 * judged, and what was superseded is not there to be counted. */
static inline void log_batches_pass(struct log_batches *o, uint64_t depth,
				    const struct log_record *head, const char *body)
{
	struct lay_batch batch;
	struct shmq_msg msg;

	log_batches_expire(o, head->seq, depth);
	if (head->kind == LOG_MESSAGE && (head->flags & SHMQ_MSG_BATCH) &&
	    !shmq__log_decode(head, body, &msg, &batch))
		log_batches_note(o, &batch, head->seq);
	if ((head->kind == LOG_GAP && log_gap_breaks_batches(head)) ||
	    (head->kind == LOG_HOLE && (head->flags & LOG_HOLE_SUPERSEDED)))
		o->left = 0;
}

#endif
