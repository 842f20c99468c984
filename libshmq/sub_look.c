/* SPDX-License-Identifier: MIT
 *
 * sub_look: what a lane has at its cursor: a message, nothing yet, a gap that
 * is counted, a claim that lasts, or the end.
 */
#include "sub_priv.h"
#include "clock.h"

#define STUCK_PASS_NS 1000000000
#define STUCK_AGAIN_NS 1000000000 /* a report may be lost with the supervisor */

void shmq__sub_count_lost(struct rlane *l, uint64_t n, struct shmq_msg *msg)
{
	sub_add(&l->entry->lost, n);
	msg->lost = n;
	msg->lost_is_bound = 0;
	msg->partition = (int32_t)l->partition;
	msg->seq = l->r.next;
}

void shmq__sub_count_bound(struct rlane *l, uint64_t n, struct shmq_msg *msg)
{
	shmq__sub_count_lost(l, n, msg);
	msg->lost_is_bound = 1;
	store_relaxed(&l->entry->flags, load_relaxed(&l->entry->flags) | LAY_ENTRY_LOST_BOUND);
}

int shmq__sub_pass_corrupt(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	shmq__sub_count_lost(l, 1, msg);
	sub_move_to(sub, l, l->r.next + 1);
	return SHMQ_ECORRUPT;
}

/* Overrun: find where to go on, with room to breathe but never past a
 * claim whose outcome is open, and count exactly what was missed.  The holes among it
 * are in the list by V5: of slots that were taken again, for who walks to the head after
 * they were seen to be; of others, for who acquires their words. */
static uint64_t jump(struct rlane *l, uint32_t *is_bound)
{
	uint64_t from = l->r.next, depth = l->r.geo.depth;
	uint64_t target = shmq__topic_oldest(l->ring, from + 1);
	uint64_t head = shmq__topic_head(l->ring), room = head - depth + depth / 8, lost, steps;
	struct kept *k;

	for (steps = 0; steps < depth && seq_diff(target, room) < 0; steps++, target++) {
		uint64_t w = load_acquire(&lay_slot_at(l->r.mem, &l->r.geo, target)->ctrl);

		if (LAY_CTRL_LAP(w) == lay_lap(&l->r.geo, target) &&
		    LAY_CTRL_STATE(w) == LAY_CLAIMED)
			break;
	}
	for (k = l->kept; k; k = k->other) /* what we copied is not lost */
		if (k->next < k->count && seq_diff(k->member[k->next].msg.seq, target) < 0)
			target = k->member[k->next].msg.seq;
	/* Honest slots lead on.  What mad ones lead back to is not gone to. */
	if (seq_diff(target, from) <= 0)
		target = from + 1;
	lost = target - from - shmq__ring_voids_between(l->r.mem, from, target, is_bound);
	l->r.next = target;
	return lost;
}

static int overrun(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint32_t is_bound = 0;
	uint64_t lost;

	if (sub->may_replay && shmq__sub_replay_enter(sub, l))
		return 0;
	lost = jump(l, &is_bound);
	if (is_bound)
		shmq__sub_count_bound(l, lost, msg);
	else
		shmq__sub_count_lost(l, lost, msg);
	sub_move_to(sub, l, l->r.next);
	if (!sub->evicts || l->kept) /* what we copied of a batch comes first */
		return lost ? SHMQ_EOVERRUN : 0;
	sub->evicted = 1;
	sub_judge(sub);
	store_relaxed(&l->entry->flags, load_relaxed(&l->entry->flags) | LAY_ENTRY_EVICTED);
	return SHMQ_EEVICTED;
}

/* A message is there.  0 handed out; SHMQ_EEMPTY: look again. */
static inline int take_message(struct shmq_sub *sub, struct rlane *l, uint64_t word,
			       struct shmq_msg *msg)
{
	struct lay_batch batch;
	int rc = shmq__sub_decode(sub, l, msg, &batch);

	if (unlikely(!sub->gates) && !ring_still(&l->r, l->r.next, word)) /* A2 */
		return SHMQ_EEMPTY;
	if (unlikely(rc))
		return rc == SHMQ_ECORRUPT ? shmq__sub_pass_corrupt(sub, l, msg) : rc;
	if (unlikely(msg->flags & SHMQ_MSG_BATCH))
		return shmq__sub_take_member(sub, l, word, &batch, msg);
	return sub_hand_out(sub, l, word, msg);
}

static uint32_t state_of(const struct rlane *l)
{
	return load_acquire(&((struct lay_ring *)(uintptr_t)l->r.mem)->state); /* N6 */
}

static int is_closed(const struct rlane *l)
{
	return lay_ring_is_closed(state_of(l));
}

static uint64_t said_moved_seq(const struct rlane *l)
{
	return load_relaxed(&((struct lay_ring *)(uintptr_t)l->r.mem)->moved_seq);
}

/* What the ring says, or where we are if that can't be or is to come.  Where it began
 * the registry knows, which no publisher writes. */
static uint64_t moved_seq(const struct rlane *l)
{
	uint64_t seq = said_moved_seq(l), base = l->ring->part->base_seq;

	return seq - base <= l->r.next - base ? seq : l->r.next;
}

uint64_t shmq__sub_moved_seq(const struct shmq_sub *sub)
{
	return moved_seq(&sub->lane[0]);
}

int shmq__sub_is_closed(const struct shmq_sub *sub)
{
	return is_closed(&sub->lane[0]);
}

int shmq__sub_is_sent(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	const struct rlane *l = &sub->lane[0];
	uint32_t state = state_of(l);

	if (!lay_ring_is_left(state))
		return 1;
	if (!lay_ring_is_closed(state))
		return SHMQ_EEMPTY;
	if (seq_diff(l->r.next, said_moved_seq(l)) >= 0)
		return 0;
	return !(msg->flags & SHMQ_MSG_BATCH) || shmq__sub_is_whole(sub, said_moved_seq(l)) ?
		       1 :
		       SHMQ__SUB_TORN;
}

/* With stall = report, or in a ring that ended or was left, the time comes when
 * l's open claim at seq is passed, or said. */
static int is_stalled(const struct rlane *l, uint64_t seq)
{
	return l->stuck_since && l->stuck_seq == seq &&
	       (l->r.geo.stall == SHMQ_STALL_REPORT || is_closed(l)) &&
	       shmq__clock_monotonic_ns() - l->stuck_since >= STUCK_PASS_NS;
}

/* A slot that stays CLAIMED.  In a ring that ended or was left it is a hole,
 * since whoever commits there now is told so, and what stands behind it was sent:
 * 0, look again.  It must stand there still: what was committed before the end may
 * have come since we looked.  Else, with stall = report, readers that do not gate
 * pass it, counted lost; others are told. */
static int at_claim(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint64_t word;

	sub->stands_at_claim = 1;
	if (!is_stalled(l, l->r.next))
		return SHMQ_EEMPTY;
	if (is_closed(l)) {
		if (ring_look(&l->r, &word) == RING_CLAIMED) /* N7 */
			sub_move_to(sub, l, l->r.next + 1);
		return 0;
	}
	if (sub->gates)
		return SHMQ_ESTALLED;
	shmq__sub_count_lost(l, 1, msg);
	sub_move_to(sub, l, l->r.next + 1);
	return SHMQ_EOVERRUN;
}

/* The next message is a member of a batch that we have copied. */
static inline struct kept *is_kept(const struct rlane *l)
{
	return unlikely(l->kept) ? shmq__sub_find_kept(l, l->r.next) : NULL;
}

/* Messages whose arena bytes were reused before their slots: one gap. */
static int pass_gone(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint64_t word, n = 0;

	if (sub->may_replay && shmq__sub_replay_enter(sub, l))
		return 0;
	do {
		l->r.next++;
		n++;
	} while (n < l->r.geo.depth && !is_kept(l) && ring_look(&l->r, &word) == RING_GONE);
	shmq__sub_count_lost(l, n, msg);
	sub_move_to(sub, l, l->r.next);
	return SHMQ_EOVERRUN;
}

/* What lane l has: 0 and a message, SHMQ_EEMPTY, or what went wrong. */
static inline int look_at(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint64_t word, left = 2 * l->r.geo.depth;
	struct kept *k;
	int rc;

	/* Publishers that void, or write over, as fast as we look would keep us
	 * here: after two laps whoever called looks whether time is up. */
	while (left--) {
		k = is_kept(l);
		if (k)
			return shmq__sub_hand_out_kept(sub, l, k, msg);
		if (unlikely(l->in_log)) {
			rc = shmq__sub_replay_look(sub, l, msg);
			if (rc != SHMQ__SUB_IN_RING)
				return rc;
		}
		switch (ring_look(&l->r, &word)) {
		case RING_MESSAGE:
			rc = take_message(sub, l, word, msg);
			if (rc != SHMQ_EEMPTY)
				return rc;
			continue;
		case RING_NOTHING:
			ring_fetch_far(&l->r, lay_slot_at(l->r.mem, &l->r.geo, l->r.next));
			return SHMQ_EEMPTY;
		case RING_CLAIMED:
			rc = at_claim(sub, l, msg);
			if (rc)
				return rc;
			continue;
		case RING_VOID:
			sub_move_to(sub, l, l->r.next + 1);
			continue;
		case RING_GONE:
			rc = sub->evicts ? overrun(sub, l, msg) : pass_gone(sub, l, msg);
			if (rc)
				return rc;
			continue;
		case RING_LAPPED:
			rc = overrun(sub, l, msg);
			if (rc)
				return rc;
			continue;
		}
	}
	sub->gave_up = 1;
	return SHMQ_EEMPTY;
}

int shmq__sub_look(struct shmq_sub *sub, struct shmq_msg *msg)
{
	uint32_t i;
	int rc;

	if (unlikely(sub->pattern))
		return shmq__pattern_look(sub, msg);
	if (unlikely(sub->evicted))
		return SHMQ_EEVICTED;
	if (unlikely(sub->is_to_join)) {
		rc = shmq__sub_replay_join(sub);
		if (rc)
			return rc;
	}
	if (likely(sub->lanes == 1))
		return look_at(sub, &sub->lane[0], msg);
	for (i = 0; i < sub->lanes; i++) {
		struct rlane *l = &sub->lane[sub->turn];

		if (++sub->turn == sub->lanes)
			sub->turn = 0;
		rc = look_at(sub, l, msg);
		if (rc != SHMQ_EEMPTY)
			return rc;
	}
	return SHMQ_EEMPTY;
}

/* In the ring, or in the log before it. */
static int had_messages(const struct shmq_sub *sub)
{
	uint32_t i;

	for (i = 0; i < sub->lanes; i++)
		if (shmq__topic_head(sub->lane[i].ring) != sub->lane[i].r.mem->base_seq ||
		    load_relaxed(&sub->lane[i].entry->count))
			return 1;
	return 0;
}

/* The tailer has not written yet what a lane is to read. */
static int waits_for_log(const struct shmq_sub *sub)
{
	uint32_t i;

	for (i = 0; i < sub->lanes; i++)
		if (sub->lane[i].in_log && shmq__sub_replay_lacks(&sub->lane[i]))
			return 1;
	return 0;
}

int shmq__sub_is_left(struct shmq_sub *sub)
{
	if (!load_acquire(&sub->h.topic->rec->publishers))
		return sub->saw_publisher || had_messages(sub);
	sub->saw_publisher = 1;
	return 0;
}

static int has_new_members(struct shmq_sub *sub)
{
	uint32_t epoch = load_acquire(&sub->h.topic->rec->epoch); /* M1 of topic.c */

	if (likely(epoch == sub->members))
		return 0;
	sub->members = epoch;
	return 1;
}

int shmq__sub_end_of_stream(struct shmq_sub *sub, struct shmq_msg *msg)
{
	uint32_t state;
	int end = 0, rc;

	if (unlikely(load_relaxed(&sub->interrupted))) /* whoever stores fences and wakes */
		return SHMQ__SUB_INTERRUPTED;
	if (unlikely(sub->pattern))
		return shmq__pattern_end_of_stream(sub, msg);
	state = state_of(&sub->lane[0]);
	if (state == LAY_RING_MOVED)
		end = SHMQ_EMOVED;
	else if (state == LAY_RING_ENDED)
		end = SHMQ_EENDED;
	else if ((sub->flags & SHMQ_SUB_END_WITH_PUBLISHERS) && shmq__sub_is_left(sub))
		end = SHMQ_EENDED;
	if (!end && unlikely(sub->tells_members) && has_new_members(sub))
		return SHMQ__SUB_MEMBERS;
	if (!end)
		return SHMQ_EEMPTY;
	sub->stands_at_claim = sub->gave_up = 0;
	rc = shmq__sub_look(sub, msg); /* N7 */
	if (rc != SHMQ_EEMPTY || sub->stands_at_claim || sub->gave_up || waits_for_log(sub))
		return rc;
	if (end == SHMQ_EMOVED) {
		msg->seq = moved_seq(&sub->lane[0]);
		msg->partition = (int32_t)sub->lane[0].partition;
	}
	return end;
}

int shmq__sub_look_once(struct shmq_sub *sub, struct shmq_msg *msg)
{
	int rc = shmq__sub_look(sub, msg);

	return likely(rc != SHMQ_EEMPTY) ? rc : shmq__sub_end_of_stream(sub, msg);
}

int64_t shmq__sub_report_stuck(struct shmq_sub *sub)
{
	uint64_t now = shmq__clock_monotonic_ns();
	int open = 0, in_log = 0;
	uint32_t i;

	if (sub->pattern)
		return shmq__pattern_report_stuck(sub);
	sub->stands_at_claim = 0;
	for (i = 0; i < sub->lanes; i++) {
		struct rlane *l = &sub->lane[i];
		struct ring_reader next = l->r;
		struct proto_request req;
		uint64_t word;

		if (l->in_log) {
			in_log = 1;
			continue;
		}
		next.next += sub->view == l; /* handed out counts as read */
		if (ring_look(&next, &word) != RING_CLAIMED) {
			l->stuck_since = 0;
			continue;
		}
		open = 1;
		if (!l->stuck_since || l->stuck_seq != next.next) {
			l->stuck_since = now;
			l->stuck_seq = next.next;
			l->stuck_told = 0;
			continue;
		}
		if (now - l->stuck_since < SHMQ__SUB_STUCK_NS ||
		    now - l->stuck_told < STUCK_AGAIN_NS)
			continue;
		l->stuck_told = now;
		shmq__bus_prepare(sub->h.bus, &req, PROTO_REPORT, sub->h.topic->rec->name);
		req.report.kind = PROTO_REPORT_STUCK;
		req.report.topic_id = sub->h.topic->id;
		req.report.partition = l->partition;
		req.report.seq = next.next;
		req.report.word = word;
		shmq__bus_notify(sub->h.bus, &req);
	}
	return in_log ? SHMQ__SUB_LOG_NS : open ? SHMQ__SUB_STUCK_NS : SHMQ_FOREVER;
}

int shmq__sub_is_ready(struct shmq_sub *sub)
{
	int open = 0;
	uint32_t i;
	uint64_t word;

	if (sub->evicted || sub->held_error || (sub->conflate && shmq__conflate_has_some(sub)))
		return 1;
	if (sub->pattern)
		return shmq__pattern_is_ready(sub);
	for (i = 0; i < sub->lanes; i++) {
		struct rlane *l = &sub->lane[i];
		struct ring_reader next = l->r;
		uint64_t left = l->r.geo.depth;
		enum ring_look look;

		if (l->in_log) {
			if (shmq__sub_replay_is_ready(sub, l))
				return 1;
			open |= shmq__sub_replay_lacks(l);
			continue;
		}
		/* The message handed out counts as read. */
		if (sub->view == l)
			next.next++;
		while ((look = ring_look(&next, &word)) == RING_VOID && left--)
			next.next++;
		if (look == RING_VOID || look == RING_MESSAGE || look == RING_GONE ||
		    look == RING_LAPPED || shmq__sub_find_kept(l, next.next) ||
		    (look == RING_CLAIMED && !sub->told_stalled && is_stalled(l, next.next)))
			return 1;
		open |= look == RING_CLAIMED;
	}
	if (open) /* no end before it is settled */
		return 0;
	if (is_closed(&sub->lane[0]))
		return 1;
	return (sub->flags & SHMQ_SUB_END_WITH_PUBLISHERS) && shmq__sub_is_left(sub);
}
