/* SPDX-License-Identifier: MIT
 *
 * sub_batch: atomic batches where readers may be lapped: their members are
 * copied, so that all or none are handed out.
 */
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void free_kept(struct kept *k)
{
	uint32_t i;

	for (i = 0; i < k->count; i++)
		free(k->member[i].bytes);
	free(k);
}

void shmq__sub_free_kept(struct rlane *l)
{
	struct kept *k;

	while ((k = l->kept)) {
		l->kept = k->other;
		free_kept(k);
	}
}

/* And those that were read past: of two that had a member in common, which no
 * honest ones have, one is left over. */
void shmq__sub_drop_read_batches(struct rlane *l)
{
	struct kept **at = &l->kept, *k;

	while ((k = *at)) {
		if (k->next < k->count && seq_diff(k->member[k->next].msg.seq, l->r.next) > 0) {
			at = &k->other;
			continue;
		}
		*at = k->other;
		free_kept(k);
	}
}

struct kept *shmq__sub_find_kept(const struct rlane *l, uint64_t seq)
{
	struct kept *k;

	for (k = l->kept; k; k = k->other)
		if (k->next < k->count && k->member[k->next].msg.seq == seq)
			return k;
	return NULL;
}

/* Members that share their bytes would take memory without end: copies are no
 * more than publishers can have at a time.  Batches that interleave are each
 * another publisher's, and begin within a lap of each other. */
static int is_too_much(const struct shmq_sub *sub, const struct rlane *l, const struct kept *k)
{
	uint64_t bytes = k->bytes, most = 2 * l->r.geo.ring_bytes;
	uint32_t i;

	for (k = l->kept; k; k = k->other)
		bytes += k->bytes;
	for (i = 0; i < sub->arena_count && bytes > most; i++)
		if (sub->arena[i].mem)
			most += sub->arena[i].bytes;
	return bytes > most;
}

/* Copy the member at l->r.next.  1 done, 0 lapped, negative error. */
static int keep_member(const struct shmq_sub *sub, struct rlane *l, struct kept *k, uint64_t word,
		       const struct shmq_msg *msg)
{
	struct kept_msg *m = &k->member[k->count];

	k->bytes += sub_whole_bytes(msg);
	if (is_too_much(sub, l, k))
		return SHMQ_ECORRUPT;
	m->bytes = malloc(sub_whole_bytes(msg) + 1);
	if (!m->bytes)
		return -ENOMEM;
	k->count++;
	m->msg = *msg;
	shmq__sub_copy_out(&m->msg, m->bytes);
	return ring_still(&l->r, l->r.next, word);
}

/* Is the message at l->r.next the next member of that batch?  Keep it.  1 to
 * go on, 0 lapped, negative error. */
static int keep_if_member(struct shmq_sub *sub, struct rlane *l, struct kept *k, uint64_t first,
			  uint64_t word)
{
	struct lay_batch batch;
	struct shmq_msg msg;
	int rc = shmq__sub_decode(sub, l, &msg, &batch);

	if (!ring_still(&l->r, l->r.next, word))
		return 0;
	if (rc)
		return rc;
	if (!(msg.flags & SHMQ_MSG_BATCH) || batch.first_seq != first || batch.index != k->count)
		return 1;
	return keep_member(sub, l, k, word, &msg);
}

/* At member 0 of a batch: copy all of it.  1 kept, 0 some of it is lost. */
static int keep_batch(struct shmq_sub *sub, struct rlane *l, const struct lay_batch *batch)
{
	uint64_t at = l->r.next, end = at + l->r.geo.depth, word;
	struct kept *k;
	int rc = 1;

	if (!batch->count || batch->count > l->r.geo.depth / 4 || batch->first_seq != at)
		return SHMQ_ECORRUPT;
	k = calloc(1, sizeof(*k) + batch->count * sizeof(k->member[0]));
	if (!k)
		return -ENOMEM;
	k->capacity = batch->count;
	for (; rc > 0 && k->count < k->capacity && seq_diff(l->r.next, end) < 0; l->r.next++) {
		enum ring_look look = ring_look(&l->r, &word);

		if (look == RING_MESSAGE)
			rc = keep_if_member(sub, l, k, batch->first_seq, word);
		else if (look == RING_LAPPED || look == RING_GONE || look == RING_NOTHING)
			rc = 0;
	}
	l->r.next = at;
	if (k->count == k->capacity && rc > 0) {
		k->other = l->kept;
		l->kept = k;
		sub_judge(sub);
		return 1;
	}
	free_kept(k);
	return rc < 0 ? rc : 0;
}

int shmq__sub_hand_out_kept(struct shmq_sub *sub, struct rlane *l, struct kept *k,
			    struct shmq_msg *msg)
{
	*msg = k->member[k->next++].msg;
	return sub_hand_out(sub, l, 0, msg);
}

/* A member of a batch that is not to be delivered: it began before we
 * joined (not ours), or some of it was lost (then all of it is). */
static int skip_member(struct shmq_sub *sub, struct rlane *l, uint64_t first_seq,
		       struct shmq_msg *msg)
{
	int lost = seq_diff(first_seq, l->start) >= 0;

	if (lost)
		shmq__sub_count_lost(l, 1, msg);
	sub_move_to(sub, l, l->r.next + 1);
	return lost ? SHMQ_EOVERRUN : SHMQ_EEMPTY;
}

int shmq__sub_take_member(struct shmq_sub *sub, struct rlane *l, uint64_t word,
			  const struct lay_batch *batch, struct shmq_msg *msg)
{
	int rc;

	if (sub->gates && seq_diff(batch->first_seq, l->start) >= 0)
		return sub_hand_out(sub, l, word, msg);
	if (sub->takes_rests && seq_diff(batch->first_seq, l->start) < 0)
		return sub_hand_out(sub, l, word, msg);
	if (sub->gates || batch->index)
		return skip_member(sub, l, batch->first_seq, msg);
	rc = keep_batch(sub, l, batch);
	if (rc == SHMQ_ECORRUPT)
		return shmq__sub_pass_corrupt(sub, l, msg);
	if (rc || !ring_still(&l->r, l->r.next, word))
		return rc < 0 ? rc : SHMQ_EEMPTY;
	return skip_member(sub, l, batch->first_seq, msg);
}

/* What the slot at *r says of a batch.  No more of it is decoded: what of an arena is
 * mapped stays so, for who has a message in hand. */
static int is_member(const struct ring_reader *r, struct lay_batch *batch)
{
	const char *s = (const char *)lay_slot_at(r->mem, &r->geo, r->next);
	struct lay_slot head;

	shmq__copy_racy(&head, s, sizeof(head));
	shmq__copy_racy(batch, s + r->geo.payload_off, sizeof(*batch));
	return head.flags & SHMQ_MSG_BATCH;
}

/* Whether the last member of the batch of the one at l->r.next stands before `end`.  Nobody
 * writes there any more who is not told so. */
static int find_last(const struct rlane *l, const struct lay_batch *member, uint64_t end)
{
	struct ring_reader r = l->r;
	struct lay_batch batch;
	uint64_t word;

	for (; seq_diff(r.next, end) < 0; r.next++)
		if (ring_look(&r, &word) == RING_MESSAGE && is_member(&r, &batch) &&
		    batch.first_seq == member->first_seq && batch.index == member->count - 1 &&
		    batch.count == member->count)
			return 1;
	return 0;
}

int shmq__sub_is_whole(struct shmq_sub *sub, uint64_t end)
{
	struct rlane *l = &sub->lane[0];
	struct lay_batch batch;
	const struct kept *k;

	shmq__sub_get_batch(sub, &batch);
	if (batch.index + 1 == batch.count)
		return 1;
	for (k = l->kept; k; k = k->other)
		if (k->count && k->member[0].msg.seq == batch.first_seq)
			return seq_diff(k->member[k->count - 1].msg.seq, end) < 0;
	if (end - l->r.next > l->r.geo.depth)
		end = l->r.next + l->r.geo.depth;
	return find_last(l, &batch, end);
}
