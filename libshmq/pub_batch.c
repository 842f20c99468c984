/* SPDX-License-Identifier: MIT
 *
 * pub_batch: several messages at once, atomic or not.
 */
#include "pub.h"
#include "clock.h"
#include "mem.h"
#include "probe.h"

#include <errno.h>

static int grow_pending(struct shmq_pub *pub, size_t n)
{
	struct pending *more;

	if (n <= pub->pending_capacity)
		return 0;
	more = shmq__mem_get(n * sizeof(*more));
	if (!more)
		return -ENOMEM;
	shmq__mem_put(pub->pending, pub->pending_capacity * sizeof(*more));
	pub->pending = more;
	pub->pending_capacity = n;
	return 0;
}

/* Give back n claims, last to first.  Who slept at one may have messages of others
 * behind it, so it is woken here, however this publisher wakes: the library's
 * thread goes by what was sent, and this is nothing. */
static void void_pending(struct shmq_pub *pub, struct lane *l, size_t n)
{
	int may_wake = n && pub->sleeps;

	while (n--) {
		uint64_t seq = pub->pending[n].seq;

		shmq__ring_void(l->w.mem, &l->w.geo, seq,
				LAY_CTRL(lay_lap(&l->w.geo, seq), l->w.owner, LAY_CLAIMED));
	}
	if (may_wake && unlikely(bell_look(&l->bells->data, pub->look)))
		pub_note_wake(pub, l);
}

/* Claim n slots, or none: whoever would have to wait while it holds claims
 * voids them first, so that two batches never wait for each other. */
static int claim_batch(struct shmq_pub *pub, struct lane *l, size_t n)
{
	uint64_t word = 0;
	size_t i = 0;
	int error;

	if (l->w.geo.mode == SHMQ_EXCLUSIVE) {
		error = pub_have_credit(pub, l, n);
		if (error)
			return error;
		/* R6: recovery looks for the rest of a batch up to here; too far
		 * does no harm. */
		store_relaxed(&l->entry->batch_end, l->w.next + n);
		fence_light();
		ring_make_room(&l->w, n, pub->invalidates);
		for (i = 0; i < n; i++)
			pub->pending[i].seq = l->w.next + i;
		return 0;
	}
	while (i < n) {
		enum ring_claim rc;

		if (i == 0 && pub->gates && seq_diff(l->w.limit, l->w.next + n) < 0) {
			error = shmq__pub_wait_for_credit(pub, l, l->w.next + n);
			if (error)
				return error;
		}
		rc = shmq__ring_claim(&l->w, &pub->pending[i].seq, &word);
		if (rc == RING_CLAIM_OK) {
			i++;
			continue;
		}
		void_pending(pub, l, i);
		i = 0;
		if (rc == RING_CLAIM_NO_CREDIT)
			error = shmq__pub_wait_for_credit(pub, l, l->w.next + n);
		else if (rc == RING_CLAIM_HELD)
			error = shmq__pub_wait_for_claim(pub, l, l->w.next, word);
		else
			error = SHMQ_ECORRUPT;
		if (error)
			return error;
	}
	return 0;
}

static int publish_atomic(struct shmq_pub *pub, struct shmq_msg *msgs, size_t n)
{
	uint64_t now = pub->stamps & SHMQ_TOPIC_TIME ? shmq__clock_realtime_ns() : 0;
	size_t i, stowed = 0;
	struct lane *l;
	int error = shmq__pub_choose_lane(pub, &msgs[0], &l);

	if (error)
		return error;
	if (n > pub->h.topic->geo.depth / 4)
		return SHMQ_EBATCH;
	error = grow_pending(pub, n);
	if (error)
		return error;
	for (i = 0; i < n; i++) {
		struct pending *q = &pub->pending[i];
		struct shmq_msg *m = &msgs[i];

		if (now && !m->ts_ns)
			m->ts_ns = now;
		q->iov =
			(struct iovec){ .iov_base = (void *)(uintptr_t)m->data, .iov_len = m->len };
		error = shmq__pub_make_parcel(pub, m, &q->iov, 1, SHMQ_MSG_BATCH, &q->parcel);
		if (!error)
			error = shmq__pub_stow(pub, &q->parcel);
		if (error)
			goto out;
		stowed += !!(q->parcel.flags & SHMQ_MSG_ARENA);
	}
	error = claim_batch(pub, l, n);
	if (error)
		goto out;
	for (i = 0; i < n; i++) {
		struct pending *q = &pub->pending[i];

		q->parcel.batch = (struct lay_batch){ .first_seq = pub->pending[0].seq,
						      .index = (uint32_t)i,
						      .count = (uint32_t)n };
		shmq__pub_write_slot(pub, l, q->seq, &q->parcel);
	}
	for (i = n; i-- > 0;) { /* last to first: at the first, all are there */
		struct pending *q = &pub->pending[i];

		ring_commit(&l->w, lay_slot_at(l->w.mem, &l->w.geo, q->seq), q->seq);
		PROBE3(publish, l->w.mem, q->seq, q->parcel.bytes);
		if (q->parcel.flags & SHMQ_MSG_ARENA)
			shmq__pub_settle_arena(pub, l, q->seq, q->parcel.where.off);
	}
	for (i = 0; i < n; i++) {
		msgs[i].seq = pub->pending[i].seq;
		msgs[i].partition = (int32_t)(l - pub->lane);
		lane_account(l, msgs[i].seq, pub->pending[i].parcel.data_bytes, l->w.geo.mode);
	}
	pub_look_at_bell(pub, l);
	return lane_has_ended(l);
out:
	while (stowed--)
		shmq__arena_give_back(&pub->arena);
	lane_note_refused(l, error);
	return error;
}

SHMQ_EXPORT ssize_t shmq_publish_batch(shmq_pub *pub, struct shmq_msg *msgs, size_t n,
				       unsigned flags)
{
	uint64_t now;
	struct lane *l = NULL;
	size_t i, run;
	int error = pub_check(pub);

	if (error)
		return error;
	if (flags & ~SHMQ_ATOMIC)
		return SHMQ_EOPTION;
	if (!n)
		return 0;
	if (flags & SHMQ_ATOMIC) {
		error = publish_atomic(pub, msgs, n);
		return error ? error : (ssize_t)n;
	}
	now = pub->stamps & SHMQ_TOPIC_TIME ? shmq__clock_realtime_ns() : 0;
	for (i = 0; i < n; i += run) {
		struct iovec iov = { .iov_base = (void *)(uintptr_t)msgs[i].data,
				     .iov_len = msgs[i].len };
		struct lane *used = &pub->lane[0];

		run = shmq__pub_send_run(pub, &msgs[i], n - i);
		if (!run) {
			if (now && !msgs[i].ts_ns)
				msgs[i].ts_ns = now;
			error = shmq__pub_send(pub, &msgs[i], &iov, 1, BELL_LATER, &used);
			if (error)
				break;
			run = 1;
		}
		if (l && l != used)
			pub_look_at_bell(pub, l);
		l = used;
	}
	if (!l)
		return error;
	pub_look_at_bell(pub, l);
	error = lane_has_ended(l);
	return error ? error : (ssize_t)i;
}
