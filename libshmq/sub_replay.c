/* SPDX-License-Identifier: MIT
 *
 * sub_replay: a lane that reads its topic's log, because what comes next is
 * no longer in the ring, or may not be.
 *
 * Seqs are the same in both, so a lane goes from one to the other at any
 * message.  It goes into the log where it is lapped, and back as soon as
 * what it wants is well inside the ring.  As long as any lane is in the log
 * publishers do not wait for the subscriber; if the topic's policy wants it
 * to gate, it joins when all of them have come to their rings.  The start
 * the supervisor gives it then may lie behind where it is: up to there it
 * reads the log once more, while publishers cannot pass the start.
 *
 * An atomic batch is read whole in one place: who has read a part of one in
 * the log does not leave it, and what was copied of one in the ring comes from
 * the copy although its lane reads the log meanwhile.
 *
 * Edges
 *   L2 log_written (acquire) -> records before it; pairs with L1 of the
 *      tailer, which stores it when they are in the file.
 */
#include "clock.h"
#include "log_batch.h"
#include "log_identity.h"
#include "log_reader.h"
#include "sub_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_EVERY 64u /* records, whether the ring has what comes next */
#define JOIN_AGAIN_NS 100000000

struct replay {
	struct log_reader *reader;
	struct log_record head; /* read last; */
	const char *body;
	int has_msg;      /* ... it is a message, and was handed out */
	uint64_t from_ts; /* 0, or what is older is passed */
	uint64_t began;   /* a batch that began before that is not ours */
	unsigned records;
	uint64_t limit;             /* before it there are records, as of the last look in full */
	struct log_batches batches; /* atomic, of which a part was read */
	int is_unjudged;            /* and which are open at a stored cursor is not known yet */
	int is_gone;                /* the ring has lost the message gone_seq */
	uint64_t gone_seq;
	uint64_t stuck_since; /* nothing comes of a topic that ended: monotonic, or 0 */
};

static uint64_t written(const struct rlane *l)
{
	return load_acquire(&l->ring->part->log_written); /* L2 */
}

int shmq__sub_open_log(const struct shmq_sub *sub, struct shmq__why *why)
{
	const struct lay_registry *r = shmq__slabs_registry(sub->h.bus->slabs);
	char path[sizeof(r->data_dir) + SHMQ_NAME_MAX + 2];
	int dir, error;

	snprintf(path, sizeof(path), "%.*s/%.*s", (int)sizeof(r->data_dir) - 1, r->data_dir,
		 SHMQ_NAME_MAX, sub->h.topic->rec->name);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* it may lead to another disk */
	if (dir >= 0)
		return dir;
	error = -errno;
	return shmq__fail(why, error, "opening the log in %.200s: %s", path, shmq_strerror(error));
}

/* The directory of its partition, and the log it has to be of. */
static int open_dir(const struct shmq_sub *sub, const struct rlane *l, struct log_owner *owner,
		    struct shmq__why *why)
{
	const char *topic = sub->h.topic->rec->name;
	struct shmq__why what = { "" };
	struct log_identity id;
	int log = shmq__sub_open_log(sub, why), fd = -1, error;
	char name[16];

	if (log < 0)
		return log;
	error = shmq__log_identify_of(log, topic, &id, &what);
	if (!error) {
		memcpy(owner->log_id, id.log_id, sizeof(owner->log_id));
		owner->partition = l->partition;
		snprintf(name, sizeof(name), "%u", l->partition);
		fd = openat(log, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		error = fd < 0 ? -errno : 0;
	}
	close(log);
	if (!error)
		return fd;
	return shmq__fail(why, error, "opening partition %u of the log of \"%.80s\": %.120s",
			  l->partition, topic, *what.text ? what.text : shmq_strerror(error));
}

static int open_reader(struct shmq_sub *sub, struct rlane *l, struct shmq__why *why)
{
	struct log_owner owner;
	int dir, error;

	if (l->replay)
		return 0;
	dir = open_dir(sub, l, &owner, why);
	if (dir < 0)
		return dir;
	l->replay = calloc(1, sizeof(*l->replay));
	if (l->replay)
		l->replay->began = l->start;
	error = l->replay ? shmq__log_reader_open(dir, &owner, &l->replay->reader, why) : -ENOMEM;
	close(dir);
	if (error)
		shmq__sub_replay_close(l);
	else if (sub->flags & SHMQ_SUB_IN_PLACE)
		shmq__log_reader_map(l->replay->reader);
	return error;
}

void shmq__sub_replay_close(struct rlane *l)
{
	if (!l->replay)
		return;
	shmq__log_reader_close(l->replay->reader);
	free(l->replay);
	l->replay = NULL;
	l->in_log = 0;
}

/* Go to l->r.next in the log. */
static int enter_log(struct shmq_sub *sub, struct rlane *l, struct shmq__why *why)
{
	int error = open_reader(sub, l, why);

	if (!error)
		error = shmq__log_reader_seek(l->replay->reader, l->r.next, why);
	if (error)
		return error;
	l->replay->has_msg = 0;
	l->replay->limit = l->r.next;
	log_batches_clear(&l->replay->batches);
	l->replay->stuck_since = 0;
	l->in_log = 1;
	sub_judge(sub);
	return 0;
}

/* ---- back to the ring ------------------------------------------------ */

int shmq__sub_replay_join(struct shmq_sub *sub)
{
	uint64_t now = shmq__clock_monotonic_ns();
	struct proto_request req;
	struct shmq__why why;
	uint32_t i;
	int error;

	if (now < sub->join_at_ns || sub_is_in_log(sub))
		return 0;
	shmq__bus_prepare(sub->h.bus, &req, PROTO_JOIN, sub->h.topic->rec->name);
	req.close.handle = sub->h.token;
	for (i = 0; i < sub->lanes; i++)
		store_release(&sub->lane[i].entry->pos, sub->lane[i].r.next);
	error = shmq__bus_notify(sub->h.bus, &req);
	if (error) {
		sub->join_at_ns = now + JOIN_AGAIN_NS;
		return 0;
	}
	sub->is_to_join = 0;
	sub_set_gating(sub, 1);
	for (i = 0; i < sub->lanes && !error; i++) {
		struct rlane *l = &sub->lane[i];

		l->start = load_acquire(&l->entry->pos);
		if (seq_diff(l->start, l->r.next) > 0)
			error = enter_log(sub, l, &why);
	}
	return error;
}

static void leave_log(struct shmq_sub *sub, struct rlane *l)
{
	l->in_log = 0;
	l->replay->has_msg = 0;
	l->start = l->r.next; /* no batch is open here */
	sub->run_start = sub->far = sub->look_further_at = l->r.next;
	sub_judge(sub);
}

/* Its slot may be there long after its bytes in an arena were reused. */
static int is_gone(const struct rlane *l)
{
	return l->replay->is_gone && l->r.next == l->replay->gone_seq;
}

/* Does the ring have what comes next, and will it for a while? */
static int is_in_ring(const struct shmq_sub *sub, const struct rlane *l)
{
	uint64_t depth = l->r.geo.depth;
	int64_t behind;

	log_batches_expire(&l->replay->batches, l->r.next, depth);
	/* The ring does not say how old a message is. */
	if (l->replay->batches.left || l->replay->is_unjudged || l->replay->from_ts || is_gone(l))
		return 0;
	if (sub->gates)
		return seq_diff(l->r.next, l->start) >= 0;
	if (seq_diff(l->r.next, l->r.mem->base_seq) < 0)
		return 0;
	behind = seq_diff(shmq__topic_head(l->ring), l->r.next);
	return behind >= 0 && behind < (int64_t)(depth - depth / 4);
}

/* ---- looking --------------------------------------------------------- */

/* The message that was read last, field by field: it is not copied from another one. */
static int decode(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg,
		  struct lay_batch *batch)
{
	const struct replay *rp = l->replay;

	l->r.next = rp->head.seq;
	msg->lost = 0;
	msg->lost_is_bound = 0;
	msg->partition = (int32_t)l->partition;
	if (likely(!shmq__log_decode(&rp->head, rp->body, msg, batch)))
		return 0;
	shmq__sub_count_lost(l, 1, msg);
	shmq__sub_replay_step(sub, l, rp->head.seq + 1);
	return SHMQ_ECORRUPT;
}

/* The record that was read last is no message, or one: 0 and *msg, SHMQ_EOVERRUN, or
 * SHMQ_EEMPTY: look at the next. */
static int take_record(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	struct replay *rp = l->replay;
	const struct log_record *head = &rp->head;
	struct lay_batch batch;

	if (head->kind == LOG_HOLE) {
		shmq__sub_replay_step(sub, l, head->seq + head->tag);
		return SHMQ_EEMPTY;
	}
	if (head->kind == LOG_GAP) {
		if (log_gap_breaks_batches(head))
			log_batches_clear(&rp->batches);
		l->r.next = head->seq + head->tag - 1;
		if (log_gap_is_bound(head))
			shmq__sub_count_bound(l, head->tag, msg);
		else
			shmq__sub_count_lost(l, head->tag, msg);
		shmq__sub_replay_step(sub, l, head->seq + head->tag);
		return SHMQ_EOVERRUN;
	}
	if (head->ts < rp->from_ts) {
		shmq__sub_replay_step(sub, l, head->seq + 1);
		return SHMQ_EEMPTY;
	}
	if (rp->from_ts)
		rp->began = head->seq;
	rp->from_ts = 0;
	if (decode(sub, l, msg, &batch))
		return SHMQ_ECORRUPT;
	/* Of one that began since, what came before it is lost, and so is this. */
	if ((msg->flags & SHMQ_MSG_BATCH) && !log_batches_note(&rp->batches, &batch, head->seq)) {
		int is_lost = seq_diff(batch.first_seq, rp->began) >= 0;

		if (is_lost)
			shmq__sub_count_lost(l, 1, msg);
		shmq__sub_replay_step(sub, l, head->seq + 1);
		return is_lost ? SHMQ_EOVERRUN : SHMQ_EEMPTY;
	}
	rp->has_msg = 1;
	return sub_hand_out(sub, l, 0, msg);
}

/* The topic ended, and its tailer does not write what we lack: there may be
 * none any more, or it has no room. */
static int is_given_up(const struct rlane *l)
{
	uint64_t now = shmq__clock_monotonic_ns();

	if (load_acquire((shmq_au32 *)(uintptr_t)&l->r.mem->state) == LAY_RING_LIVE ||
	    !shmq__sub_replay_lacks(l))
		return 0;
	if (!l->replay->stuck_since)
		l->replay->stuck_since = now;
	return now - l->replay->stuck_since > (uint64_t)SHMQ__LOG_PATIENCE_NS;
}

/* What was before the log's first record has been removed, holes and all. */
static int pass_removed(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint64_t seq = shmq__log_reader_seq(l->replay->reader);
	uint64_t n = seq - l->r.next;

	shmq__sub_count_bound(l, n, msg);
	shmq__sub_replay_step(sub, l, seq);
	return SHMQ_EOVERRUN;
}

/* A cursor may have been stored in the midst of atomic batches, the rest of which is
 * to come: which are open there is seen once the log has come so far. */
static int judge_start(struct rlane *l, struct shmq__why *why)
{
	struct replay *rp = l->replay;
	uint64_t depth = l->r.geo.depth, limit = l->r.next;
	struct log_record head;
	const char *body;
	int rc;

	if (seq_diff(written(l), limit) < 0)
		return 0;
	rp->is_unjudged = 0;
	rc = shmq__log_reader_seek(rp->reader, limit - depth, why);
	while (!rc && (rc = shmq__log_reader_next(rp->reader, &limit, &head, &body, why)) == 1) {
		log_batches_pass(&rp->batches, depth, &head, body);
		rc = 0;
	}
	/* Of what is damaged nobody can tell, and that was told. */
	if (rc == SHMQ_ECORRUPT)
		log_batches_clear(&rp->batches);
	return rc && rc != SHMQ_ECORRUPT ? rc : shmq__log_reader_seek(rp->reader, limit, why);
}

/* For shmq_bus_error(): the caller of a receive. */
static int explain(int error, const struct shmq__why *why)
{
	*shmq__bus_why() = *why;
	return error;
}

int shmq__sub_replay_look(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	struct replay *rp = l->replay;
	struct lay_batch batch;
	struct shmq__why why;
	uint64_t limit, at;
	int rc;

	if (rp->has_msg && rp->head.seq == l->r.next) { /* it was given back unread */
		rc = decode(sub, l, msg, &batch);
		return rc ? rc : sub_hand_out(sub, l, 0, msg);
	}
	rp->has_msg = 0;
	if (unlikely(rp->is_unjudged)) {
		rc = judge_start(l, &why);
		if (rc || rp->is_unjudged)
			return rc ? explain(rc, &why) : SHMQ_EEMPTY;
	}
	/* Copied members of a batch were handed out meanwhile. */
	at = shmq__log_reader_seq(rp->reader);
	if (unlikely(seq_diff(at, l->r.next) < 0)) {
		rc = shmq__log_reader_seek(rp->reader, l->r.next, &why);
		if (rc)
			return explain(rc, &why);
		at = shmq__log_reader_seq(rp->reader);
	}
	for (;; at = shmq__log_reader_seq(rp->reader)) {
		limit = written(l);
		if (sub->gates && !rp->batches.left && !is_gone(l) && seq_diff(limit, l->start) > 0)
			limit = l->start;
		rp->limit = sub->gates && seq_diff(limit, l->start) > 0 ? l->start : limit;
		if ((++rp->records % LOOK_EVERY == 0 || seq_diff(l->r.next, limit) >= 0) &&
		    is_in_ring(sub, l)) {
			leave_log(sub, l);
			return SHMQ__SUB_IN_RING;
		}
		if (seq_diff(at, l->r.next) > 0)
			return pass_removed(sub, l, msg);
		rc = shmq__log_reader_next(rp->reader, &limit, &rp->head, &rp->body, &why);
		if (!rc && is_given_up(l)) {
			sub->may_replay = 0;
			leave_log(sub, l);
			return SHMQ__SUB_IN_RING;
		}
		if (rc != 1)
			return rc ? explain(rc, &why) : SHMQ_EEMPTY;
		rp->stuck_since = 0;
		rc = take_record(sub, l, msg);
		if (rc != SHMQ_EEMPTY)
			return rc;
	}
}

void shmq__sub_replay_step(struct shmq_sub *sub, struct rlane *l, uint64_t seq)
{
	l->r.next = seq;
	if (!sub->gates) /* else publishers are held at our start */
		store_release(&l->entry->pos, seq);
}

/* Nothing but a plain message is next, as far as is known without looking. */
static inline int is_smooth(const struct replay *rp, uint64_t seq)
{
	return seq_diff(seq, rp->limit) < 0 && !rp->is_unjudged && !rp->from_ts &&
	       (rp->records + 1) % LOOK_EVERY && !(rp->has_msg && rp->head.seq == seq);
}

int shmq__sub_replay_receive(struct shmq_sub *sub, struct shmq_msg *msg)
{
	struct rlane *l = &sub->lane[0];
	struct replay *rp = l->replay;

	if (likely(sub->view != NULL))
		shmq__sub_replay_step(sub, l, l->r.next + 1);
	sub->view = NULL;
	if (unlikely(!is_smooth(rp, l->r.next)))
		return shmq__sub_replay_look(sub, l, msg);
	rp->has_msg = shmq__log_reader_plain(rp->reader, l->r.next, &rp->head, &rp->body);
	if (unlikely(!rp->has_msg))
		return shmq__sub_replay_look(sub, l, msg);
	rp->records++;
	sub_fill_ahead(l, l->r.next, msg);
	msg->lost = 0;
	msg->data = rp->body;
	msg->len = rp->head.body_bytes;
	msg->ts_ns = rp->head.ts;
	msg->tag = rp->head.tag;
	msg->type = rp->head.type;
	return sub_hand_out(sub, l, 0, msg);
}

int shmq__sub_replay_enter(struct shmq_sub *sub, struct rlane *l)
{
	struct shmq__why why;

	if (enter_log(sub, l, &why))
		return 0;
	l->replay->is_gone = 1;
	l->replay->gone_seq = l->r.next;
	return 1;
}

int shmq__sub_replay_lacks(const struct rlane *l)
{
	return seq_diff(l->r.next, shmq__topic_head(l->ring)) < 0;
}

int shmq__sub_replay_is_ready(const struct shmq_sub *sub, const struct rlane *l)
{
	uint64_t next = l->r.next + (sub->view == l);

	return seq_diff(next, written(l)) < 0 ||
	       (is_in_ring(sub, l) && seq_diff(next, shmq__topic_head(l->ring)) < 0);
}

/* ---- opening --------------------------------------------------------- */

static int start_lane(struct shmq_sub *sub, struct rlane *l, const struct shmq_sub_options *o,
		      struct shmq__why *why)
{
	struct log_reader *reader;
	uint64_t oldest;
	int error = open_reader(sub, l, why);

	if (error)
		return error;
	reader = l->replay->reader;
	error = shmq__log_reader_oldest(reader, &oldest);
	if (error == SHMQ_EEMPTY)
		oldest = l->ring->mem->base_seq;
	else if (error)
		return shmq__fail(why, error, "reading the log of \"%s\": %s",
				  sub->h.topic->rec->name, shmq_strerror(error));
	l->r.next = oldest;
	if (o->from == SHMQ_FROM_SEQ && seq_diff(o->seq, oldest) > 0)
		l->r.next = o->seq;
	if (o->from == SHMQ_FROM_SEQ && seq_diff(l->r.next, shmq__topic_head(l->ring)) > 0)
		l->r.next = shmq__topic_head(l->ring);
	if (o->from == SHMQ_FROM_TIME) {
		error = shmq__log_reader_seek_time(reader, o->ts_ns, why);
		if (error)
			return error;
		/* An empty log begins where the ring does. */
		if (seq_diff(shmq__log_reader_seq(reader), oldest) > 0)
			l->r.next = shmq__log_reader_seq(reader);
		l->replay->from_ts = o->ts_ns;
	}
	if (o->from == SHMQ_FROM_CURSOR) {
		error = shmq__sub_store_start(sub, l, &l->r.next, why);
		if (error)
			return error;
	}
	l->replay->began = l->r.next;
	error = enter_log(sub, l, why);
	l->replay->is_unjudged = o->from == SHMQ_FROM_CURSOR;
	if (!error && l->replay->is_unjudged)
		error = judge_start(l, why);
	shmq__sub_replay_step(sub, l, l->r.next);
	return error;
}

int shmq__sub_replay_open(struct shmq_sub *sub, const struct shmq_sub_options *o,
			  struct shmq__why *why)
{
	uint32_t i;
	int error = 0;

	for (i = 0; !error && i < sub->lanes; i++)
		error = start_lane(sub, &sub->lane[i], o, why);
	return error;
}
