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
 *
 * Where publishers do not wait, batches may interleave for longer than a ring.  Then
 * there is no place to cut the log at that would not cost more than what it mends: it
 * is left as it is, said to be written up to the first that is not whole, and the
 * rest of those that are not is taken from the ring.  If that is gone, too, readers
 * are told of a gap.  Who only saw the end of it all sees that, too.
 */
#ifndef SHMQ_LOG_BATCH_H
#define SHMQ_LOG_BATCH_H

#include "log_reader.h"

/* As many as the smallest ring has room for.  Of more at once the oldest is not waited for. */
#define LOG_BATCHES_MAX 1024u

struct log_batch {
	uint64_t first_seq;
	uint32_t count;
	uint32_t left;     /* members that are still to come, not 0 */
	uint32_t is_known; /* its first member has passed */
};

struct log_batches {
	uint64_t left;     /* of all that are known; 0: none is open */
	uint64_t seq;      /* of the first of those that are open together */
	uint32_t is_older; /* ... but they go back to one of which that was not seen */
	uint32_t count;
	uint64_t first;                 /* none that is open began before that */
	uint32_t oldest;                /* where that of those that are known is, if any is */
	uint16_t hint[LOG_BATCHES_MAX]; /* where one that began there, cut to this, was last */
	struct log_batch open[LOG_BATCHES_MAX];
};

static inline void log_batches_clear(struct log_batches *o)
{
	o->left = o->count = 0;
}

/* Which of those that are known, or of all, began first; o->count: none. */
static inline uint32_t log_batches_oldest(const struct log_batches *o, uint32_t is_known)
{
	uint32_t i, at = o->count;

	for (i = 0; i < o->count; i++)
		if (o->open[i].is_known >= is_known &&
		    (at == o->count || seq_diff(o->open[i].first_seq, o->open[at].first_seq) < 0))
			at = i;
	return at;
}

static inline void log_batches_remove(struct log_batches *o, uint32_t i)
{
	uint32_t last = --o->count;

	if (o->open[i].is_known)
		o->left -= o->open[i].left;
	o->open[i] = o->open[last];
	if (o->oldest == i)
		o->oldest = log_batches_oldest(o, 1);
	else if (o->oldest == last)
		o->oldest = i;
}

static inline void log_batches_add(struct log_batches *o, struct log_batch b)
{
	if (!b.left)
		return;
	if (o->count == LOG_BATCHES_MAX)
		log_batches_remove(o, log_batches_oldest(o, 0));
	if (!o->count) {
		o->seq = o->first = b.first_seq;
		o->is_older = 0;
	}
	if (seq_diff(b.first_seq, o->first) < 0)
		o->first = b.first_seq;
	o->is_older |= !b.is_known;
	if (b.is_known && !o->left) /* they come in order */
		o->oldest = o->count;
	o->left += b.is_known ? b.left : 0;
	o->open[o->count++] = b;
}

/* Where the one that began with that seq is; o->count: nowhere. */
static inline uint32_t log_batches_find(struct log_batches *o, uint64_t first_seq)
{
	uint16_t *hint = &o->hint[first_seq % LOG_BATCHES_MAX];
	uint32_t i = *hint;

	if (i < o->count && o->open[i].first_seq == first_seq)
		return i;
	for (i = 0; i < o->count && o->open[i].first_seq != first_seq; i++)
		;
	*hint = (uint16_t)i;
	return i;
}

/* A member passes.  0: its batch began where nobody looked, or this is not the next one
 * of it, which only who is mad says. */
static inline int log_batches_note(struct log_batches *o, const struct lay_batch *b, uint64_t seq)
{
	int is_known;
	uint32_t i;

	if (!b->index) {
		log_batches_add(o, (struct log_batch){ seq, b->count, b->count - 1, 1 });
		return 1;
	}
	if (seq_diff(b->first_seq, seq) >= 0)
		return 0;
	i = log_batches_find(o, b->first_seq);
	if (i < o->count) {
		if (o->open[i].count != b->count || o->open[i].count - o->open[i].left != b->index)
			return 0;
		is_known = (int)o->open[i].is_known;
		o->left -= (uint64_t)is_known;
		if (!--o->open[i].left)
			log_batches_remove(o, i);
		return is_known;
	}
	if (b->index < b->count)
		log_batches_add(o, (struct log_batch){ b->first_seq, b->count,
						       b->count - 1 - b->index, 0 });
	return 0;
}

/* `next` is what comes next. */
static inline void log_batches_expire(struct log_batches *o, uint64_t next, uint64_t depth)
{
	uint64_t first = next;
	uint32_t i = 0;

	if (!o->count || next - o->first < depth)
		return;
	while (i < o->count) {
		if (next - o->open[i].first_seq >= depth) {
			log_batches_remove(o, i);
			continue;
		}
		if (seq_diff(o->open[i].first_seq, first) < 0)
			first = o->open[i].first_seq;
		i++;
	}
	o->first = first;
}

/* Those that are open together have been so for longer than a ring. */
static inline int log_batches_are_long(const struct log_batches *o, uint64_t next, uint64_t depth)
{
	return o->is_older || next - o->seq >= depth;
}

/* How far a log that goes to `next` may be said to be written.  0: all of it. */
static inline int log_batches_hold(const struct log_batches *o, uint64_t next, uint64_t depth,
				   uint64_t *seq)
{
	if (!o->left)
		return 0;
	*seq = log_batches_are_long(o, next, depth) ? o->open[o->oldest].first_seq : o->seq;
	return 1;
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
		log_batches_clear(o);
}

#endif
