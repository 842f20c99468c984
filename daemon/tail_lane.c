/* SPDX-License-Identifier: MIT
 *
 * Edges
 *   L1 records in the file -> log_written (release); pairs with L2 of
 *      sub_replay.c and with A3 of credit.c: what is before it may be read
 *      from the file, and written over in the ring.
 */
#include "tail_lane.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "durable.h"
#include "futex.h"
#include "log.h"
#include "log_batch.h"
#include "log_recover.h"
#include "sub.h"

#define PUMP_MESSAGES 4096u /* before others have their turn */
/* So long a message may wait for others that are written with it. */
#define GATHER_NS UINT64_C(200000)
#define GROUP_PART 2u   /* of a sync: so long it waits for those it was for last */
#define GROUP_RESTS 63u /* syncs at most that wait for nobody, after waits in vain */
#define CLOCK_EVERY 64u /* messages: reading the clock takes longer than one */
#define BATCH_BYTES (UINT64_C(1) << 20)
#define RETRY_NS UINT64_C(1000000000)
#define LOSS_NS UINT64_C(1000000) /* longer than it takes to find where to go on */
#define LOSS_PART 10u

struct tail_lane {
	struct tail_lane_options o;
	char name[SHMQ_NAME_MAX + 1];
	int dir; /* of the partition */
	struct log_owner owner;
	shmq_sub *sub;
	struct tail_writer *writer;
	struct tail_kept *kept;
	uint64_t next; /* seq of the next record */
	uint64_t lost; /* reported, but not yet known where */
	unsigned gap_flags;
	uint64_t now_ts; /* the time of messages that carry none */
	int has_msg;     /* `msg` is in hand and not appended yet */
	struct shmq_msg msg;
	int is_copied; /* it points to `copy`: it might be written over */
	char *copy;
	size_t copy_bytes;
	int ended;         /* SHMQ_EENDED, SHMQ_EMOVED, or 0 */
	int is_left;       /* no publisher is there any more, and all they sent was read */
	int is_last;       /* the topic has other rings: what is here ends */
	uint64_t last_seq; /* ... before that, at the latest */
	int told;          /* what ailed the subscriber last */

	struct log_batches batches; /* of which not all members are appended yet */
	uint64_t rests_to;          /* up to there may be rests of some that began before */

	uint64_t bytes;         /* appended so far */
	uint64_t flushed_bytes; /* of them, asked to be written */
	uint64_t synced_bytes;  /* ... and to be synced */
	uint64_t first_ns;      /* since when something waits to be written, 0 nothing */
	uint64_t unsynced_ns;   /* ... to be synced */
	uint64_t sync_seq;      /* a sync up to there is under way, or was the last */
	uint64_t sync_ns;       /* since when it is under way, 0 it is not */
	uint64_t group_seq;     /* the next is worth while with all before that, */
	uint64_t group_ns;      /* ... or at this time */
	unsigned group_rest;    /* so many do not wait for them, 0: this one does; */
	unsigned group_rests;   /* ... and so many when that began */
	int has_told;           /* of the marks, at least once */
	uint64_t ceiling;       /* asked for */
	uint64_t retry_ns;      /* after an error: when to try again */
	uint64_t rest_ns;       /* others have their turn until then, 0 it has */
	int was_slow;           /* the last loss was */
};

shmq_sub *tail_lane_sub(struct tail_lane *l)
{
	return l->sub;
}

/* ---- opening --------------------------------------------------------- */

static void found(void *arg, const char *line)
{
	struct tail_lane *l = arg;

	log_warn("log of \"%s\", partition %u: %s", l->name, l->o.partition, line);
}

static int open_sub(struct tail_lane *l, const struct log_state *state, struct shmq__why *why)
{
	struct shmq_sub_options o = {
		.size = sizeof(o),
		.from = state->has_next ? SHMQ_FROM_SEQ : SHMQ_FROM_OLDEST,
		.seq = state->next,
		.partition_plus1 = (int32_t)l->o.partition + 1,
		.wait = SHMQ_WAIT_SLEEP,
		.flags = SHMQ_SUB_OBSERVE | SHMQ_SUB_RING_ONLY,
	};
	int error = shmq_sub_open(l->o.bus, l->name, &o, &l->sub);

	if (error)
		return shmq__fail(why, error, "reading \"%s\": %s", l->name,
				  *shmq_bus_error(l->o.bus) ? shmq_bus_error(l->o.bus) :
							      shmq_strerror(error));
	if (l->o.topic->log == SHMQ_LOG_BLOCK)
		shmq__sub_trust_log(l->sub);
	return 0;
}

/* What becomes of its segments is somebody else's business. */
static int open_kept(struct tail_lane *l, const struct log_state *state, struct shmq__why *why)
{
	struct tail_kept_options o = { .topic = l->o.topic,
				       .owner = l->owner,
				       .dir = l->dir,
				       .log_dir = l->o.dir,
				       .part = l->o.part,
				       .has_open = state->has_segment };
	int error = tail_keep_add(l->o.keep, &o, &l->kept);

	return error ? shmq__fail(why, error, "keeping the log of \"%s\": %s", l->name,
				  shmq_strerror(error)) :
		       0;
}

static void on_began(void *arg, uint64_t first_seq, uint64_t base_ts)
{
	const struct tail_lane *l = arg;

	tail_keep_began(l->kept, first_seq, base_ts);
}

static void on_rolled(void *arg, uint64_t first_seq, uint64_t bytes)
{
	const struct tail_lane *l = arg;

	tail_keep_rolled(l->kept, first_seq, bytes);
}

static int has_room(void *arg)
{
	const struct tail_lane *l = arg;

	return tail_keep_has_room(l->kept);
}

static int open_writer(struct tail_lane *l, const struct log_state *state, struct shmq__why *why)
{
	struct tail_layout layout = {
		.dir = l->dir,
		.partition = l->o.partition,
		.segment_bytes = l->o.topic->segment_bytes,
		.preallocates = 1,
		.began = on_began,
		.rolled = on_rolled,
		.has_room = has_room,
		.arg = l,
	};
	struct tail_resume resume = {
		.next_seq = l->next,
		.max_ts = state->max_ts,
		.off = state->has_segment ? state->off : 0,
		.first_seq = state->first_seq,
		.seed = state->seed,
		.ceiling_serial = state->ceiling_serial,
	};
	int error;

	memcpy(layout.log_id, l->o.log_id, sizeof(layout.log_id));
	memcpy(layout.topic, l->name, sizeof(layout.topic));
	error = tail_writer_open(l->o.io, &layout, &resume, &l->writer);
	return error ? shmq__fail(why, error, "writing the log of \"%s\": %s", l->name,
				  shmq_strerror(error)) :
		       0;
}

int tail_lane_open(const struct tail_lane_options *o, struct tail_lane **out, struct shmq__why *why)
{
	struct tail_lane *l = calloc(1, sizeof(*l));
	struct log_state state;
	char name[16];
	int error;

	*out = NULL;
	if (!l)
		return shmq__fail(why, -ENOMEM, "tailing \"%s\": no memory", o->topic->name);
	l->o = *o;
	memcpy(l->name, o->topic->name, sizeof(l->name));
	memcpy(l->owner.log_id, o->log_id, sizeof(l->owner.log_id));
	l->owner.partition = o->partition;
	snprintf(name, sizeof(name), "%u", o->partition);
	l->dir = openat(o->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	error = l->dir < 0 ? shmq__fail(why, -errno, "opening the log of \"%s\", partition %u: %s",
					l->name, o->partition, shmq_strerror(-errno)) :
			     shmq__log_recover(l->dir, &l->owner, l->o.topic->depth, &state, found,
					       l, why);
	if (!error)
		error = open_sub(l, &state, why);
	if (!error)
		error = open_kept(l, &state, why);
	if (!error) {
		/* A log that is new begins where its rings do, even if publishers
		 * that do not wait have left that behind already, and where its first
		 * ones did, if it moved from them before any of them was written. */
		l->next = state.has_next ? state.next : l->o.part->base_seq;
		if (!state.has_next && seq_diff(load_relaxed(&l->o.part->log_written), l->next) < 0)
			l->next = load_relaxed(&l->o.part->log_written);
		error = open_writer(l, &state, why);
	}
	if (error) {
		tail_lane_close(l);
		return error;
	}
	/* What the ring does not have any more was sent while there was no tailer,
	 * or never: a bus that went down is gone on with at its ceiling. */
	if (seq_diff(shmq__sub_cursor(l->sub), l->next) > 0) {
		l->lost = shmq__sub_cursor(l->sub) - l->next;
		l->gap_flags = LOG_GAP_UNKNOWN;
		if (o->topic->log != SHMQ_LOG_BLOCK)
			shmq__sub_miss_from(l->sub, l->next);
	}
	l->rests_to = l->next;
	if (state.has_next) {
		shmq__sub_go_on(l->sub);
		l->rests_to += o->topic->depth;
	}
	*out = l;
	return 0;
}

/* ---- appending ------------------------------------------------------- */

/* Half an atomic batch is none, so no mark may stand in the midst of one. */
static void hold(struct tail_lane *l)
{
	uint64_t seq;

	tail_writer_hold(l->writer,
			 log_batches_hold(&l->batches, l->next, l->o.topic->depth, &seq) ? &seq :
											   NULL);
}

static int append(struct tail_lane *l, const struct log_record *head, const struct iovec *piece,
		  int count)
{
	int error = tail_writer_append(l->writer, head, piece, count);

	if (error)
		return error;
	if (!l->first_ns)
		l->first_ns = shmq__clock_monotonic_ns();
	if (!l->unsynced_ns)
		l->unsynced_ns = l->first_ns;
	l->bytes += log_record_bytes(head->body_bytes);
	l->next = head->seq + log_record_count(head);
	return 0;
}

/* Account for every seq up to `to`: those that were reported as lost are a gap,
 * the others never were messages. */
static int append_missing(struct tail_lane *l, uint64_t to)
{
	uint64_t n = to - l->next, lost = l->lost < n ? l->lost : n;
	struct log_record head = { .seq = l->next };
	int error = 0;

	if (n > lost) {
		head.kind = LOG_HOLE;
		head.tag = n - lost;
		error = append(l, &head, NULL, 0);
	}
	if (error || !lost)
		return error;
	head = (struct log_record){ .seq = l->next,
				    .tag = lost,
				    .kind = LOG_GAP,
				    .flags = (uint16_t)(l->gap_flags ? l->gap_flags :
								       LOG_GAP_OVERRUN) };
	error = append(l, &head, NULL, 0);
	if (error)
		return error;
	if (log_gap_breaks_batches(&head)) /* then recovery does not judge them */
		log_batches_clear(&l->batches);
	hold(l);
	l->lost -= lost;
	if (!l->lost)
		l->gap_flags = 0;
	log_warn("log of \"%s\", partition %u: %s%" PRIu64 " messages from seq %" PRIu64
		 " on are not in it: %s",
		 l->name, l->o.partition, log_gap_is_bound(&head) ? "up to " : "", lost, head.seq,
		 head.flags & LOG_GAP_UNKNOWN ? "the bus went down, or had no tailer" :
						"the disk was too slow for them, or full");
	return 0;
}

/* What a writer may not be able to take back in one piece is copied before it is
 * appended, where it may be written over meanwhile.  SHMQ_EOVERRUN: it was. */
static int secure(struct tail_lane *l)
{
	struct shmq_msg *m = &l->msg;
	size_t bytes = m->len + m->key_len + m->properties_len;
	char *more;
	int rc;

	if (l->is_copied || l->o.topic->log == SHMQ_LOG_BLOCK ||
	    bytes < tail_io_buffer_bytes(l->o.io) / 2)
		return 0;
	if (bytes > l->copy_bytes) {
		more = realloc(l->copy, bytes);
		if (!more)
			return -ENOMEM;
		l->copy = more;
		l->copy_bytes = bytes;
	}
	shmq__sub_copy_out(m, l->copy);
	rc = shmq_view_check(l->sub, m);
	l->is_copied = !rc;
	return rc;
}

/* The message in hand. */
static int append_message(struct tail_lane *l)
{
	const struct shmq_msg *m = &l->msg;
	struct lay_meta meta = { (uint16_t)m->key_len, (uint16_t)m->properties_len };
	struct log_record head = {
		.seq = m->seq,
		.ts = m->ts_ns ? m->ts_ns : l->now_ts,
		.tag = m->tag,
		.type = m->type,
		.flags = m->flags & (SHMQ_MSG_BATCH | SHMQ_MSG_META),
		.kind = LOG_MESSAGE,
	};
	struct lay_batch batch = { 0 };
	struct iovec piece[5];
	uint64_t bytes = 0;
	int n = 0, i, error;

	if (seq_diff(m->seq, l->next) > 0) {
		error = append_missing(l, m->seq);
		if (error)
			return error;
	}
	error = secure(l);
	if (error) {
		l->lost += error == SHMQ_EOVERRUN;
		return error == SHMQ_EOVERRUN ? 0 : error;
	}
	if (m->flags & SHMQ_MSG_BATCH) {
		shmq__sub_get_batch(l->sub, &batch);
		piece[n++] = (struct iovec){ &batch, sizeof(batch) };
	}
	if (m->flags & SHMQ_MSG_META) {
		piece[n++] = (struct iovec){ &meta, sizeof(meta) };
		piece[n++] = (struct iovec){ (void *)(uintptr_t)m->key, m->key_len };
		piece[n++] = (struct iovec){ (void *)(uintptr_t)m->properties, m->properties_len };
	}
	piece[n++] = (struct iovec){ (void *)(uintptr_t)m->data, m->len };
	for (i = 0; i < n; i++)
		bytes += piece[i].iov_len;
	head.body_bytes = (uint32_t)bytes;
	error = append(l, &head, piece, n);
	if (error) {
		/* A part of what may change would be joined by a part of what is
		 * there then. */
		if (!l->is_copied && l->o.topic->log != SHMQ_LOG_BLOCK)
			tail_writer_take_back(l->writer);
		return error;
	}
	/* It may have been written over while it was copied. */
	if (!l->is_copied && shmq_view_check(l->sub, m)) {
		l->lost++;
		if (!tail_writer_take_back(l->writer)) {
			l->next = m->seq;
			l->bytes -= log_record_bytes(bytes);
		}
		return 0;
	}
	if (m->flags & SHMQ_MSG_BATCH)
		log_batches_note(&l->batches, &batch, m->seq);
	hold(l);
	return 0;
}

/* The message in hand belongs into the log: 1; 0: that is not known yet; SHMQ_EMOVED: the
 * topic has moved, and nobody sent it, nor what is behind it; SHMQ__SUB_TORN: nobody sent
 * it. */
static int is_sent(const struct tail_lane *l)
{
	int rc = shmq__sub_is_sent(l->sub, &l->msg);

	return rc == SHMQ_EEMPTY ? 0 : rc ? rc : SHMQ_EMOVED;
}

/* 1: `msg` is in hand; 0: nothing is there; else why there will be no more. */
static int receive(struct tail_lane *l)
{
	int rc = shmq_receive(l->sub, &l->msg, SHMQ_NOWAIT);

	if (!rc)
		return 1;
	if (rc == SHMQ_EOVERRUN || rc == SHMQ_ECORRUPT) {
		l->lost += l->msg.lost;
		if (l->msg.lost_is_bound)
			l->gap_flags |= LOG_GAP_OVERRUN | LOG_GAP_BOUND;
		if (seq_diff(shmq__sub_cursor(l->sub), l->rests_to) < 0)
			l->gap_flags |= LOG_GAP_UNKNOWN;
		return 2;
	}
	/* A stalled publisher is the supervisor's business; what comes behind it
	 * waits. */
	return rc == SHMQ_EEMPTY || rc == SHMQ_ESTALLED ? 0 : rc;
}

/* A publisher that is still there learns of the end by what it commits behind it.
 * Readers of the ring may get that, though its publisher is told that it was not
 * sent and nobody looks for it here: such seqs are holes, never to be given again.
 * How many there may be is known: who waits for the log goes a ring past it, and
 * nobody past the ceiling. */
static int append_unread(struct tail_lane *l)
{
	struct log_record head = { .seq = l->next, .tag = l->o.topic->depth, .kind = LOG_HOLE };

	if (l->o.topic->log != SHMQ_LOG_BLOCK)
		head.tag = durable_ceiling_room(l->o.topic->log, l->o.topic->depth);
	return append(l, &head, NULL, 0);
}

/* Whoever has gone has sent all that he sends: then there is one more look. */
static int is_settled(struct tail_lane *l)
{
	if (l->is_left || shmq__sub_publishers(l->sub))
		return 1;
	l->is_left = 1;
	return 0;
}

/* Those at the end are passed by now, and nobody may be kept waiting for them.  What is
 * behind the end of rings that were moved is the next ones' business. */
static int append_holes(struct tail_lane *l, int rc)
{
	uint64_t to = rc == SHMQ_EMOVED ? shmq__sub_moved_seq(l->sub) : shmq__sub_cursor(l->sub);

	return seq_diff(to, l->next) > 0 ? append_missing(l, to) : 0;
}

static uint64_t cpu_ns(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Where to go on after a loss is found in no time, but where publishers write what is
 * not so: then all slots are looked at, as often as they like.  Of the time of a disk's
 * topics such a one has a tenth.  Once it seemed to take long, the next is measured by
 * the processor's time, as it may have been another's. */
static int receive_first(struct tail_lane *l)
{
	uint64_t from = l->was_slow ? cpu_ns() : 0, took;
	int rc = receive(l);

	if (rc != 2 || !l->was_slow) {
		l->was_slow = rc == 2 && shmq__clock_realtime_ns() - l->now_ts >= LOSS_NS;
		return rc;
	}
	took = cpu_ns() - from;
	l->was_slow = took >= LOSS_NS;
	if (l->was_slow)
		l->rest_ns = shmq__clock_monotonic_ns() + (LOSS_PART - 1) * took;
	return rc;
}

void tail_lane_leave(struct tail_lane *l, uint64_t next_base)
{
	if (l->is_last)
		return;
	l->is_last = 1;
	l->last_seq = shmq__sub_cursor(l->sub) + l->o.topic->depth;
	/* Of what does not wait for us they may hold what is farther. */
	if (seq_diff(next_base, l->last_seq) > 0)
		l->last_seq = next_base;
}

/* A publisher wrote that these rings live, or goes on with them. */
static int is_mad(const struct tail_lane *l)
{
	return l->is_last && (!shmq__sub_is_closed(l->sub) ||
			      seq_diff(shmq__sub_cursor(l->sub), l->last_seq) > 0);
}

static int fail(struct tail_lane *l, int error)
{
	if (error != l->told)
		log_error("reading \"%s\", partition %u for its log: %s", l->name, l->o.partition,
			  shmq_strerror(error));
	l->told = error;
	return error;
}

int tail_lane_pump(struct tail_lane *l, int is_ending)
{
	unsigned n;
	int rc;

	if (l->ended)
		return l->ended;
	if (is_mad(l)) {
		log_error("log of \"%s\", partition %u: the rings that the topic had before it "
			  "moved do not end: from seq %" PRIu64 " on it is read from those that it "
			  "has now",
			  l->name, l->o.partition, l->next);
		l->ended = SHMQ_EMOVED;
		return l->ended;
	}
	if (l->rest_ns && !is_ending && shmq__clock_monotonic_ns() < l->rest_ns)
		return -EAGAIN;
	l->rest_ns = 0;
	for (n = 0; n < PUMP_MESSAGES; n++) {
		if (n % CLOCK_EVERY == 0)
			l->now_ts = shmq__clock_realtime_ns();
		rc = l->has_msg ? 1 : n ? receive(l) : receive_first(l);
		if (rc == 2)
			return 1;
		if (rc == SHMQ_EENDED && !is_settled(l))
			continue;
		if (rc == 1) {
			l->has_msg = 1;
			rc = is_sent(l);
			if (!rc) /* of which no bell tells */
				return -EAGAIN;
			if (rc == SHMQ__SUB_TORN) {
				l->has_msg = 0;
				continue;
			}
		}
		if (rc != 1) {
			if (append_holes(l, rc))
				return -EAGAIN;
			if (rc == SHMQ_EENDED && !l->is_left && append_unread(l))
				return -EAGAIN;
			if (rc != SHMQ_EENDED && rc != SHMQ_EMOVED)
				return rc ? fail(l, rc) : 0;
			l->ended = rc;
			return rc;
		}
		rc = append_message(l);
		if (rc)
			return -EAGAIN; /* with an error if the marks say so */
		l->has_msg = l->is_copied = 0;
	}
	return 1;
}

/* ---- writing, syncing, telling --------------------------------------- */

static int needs_sync(const struct tail_lane *l, const struct tail_marks *m, uint64_t now)
{
	uint64_t due;

	if (!l->unsynced_ns || m->sync_error ||
	    (l->sync_seq && seq_diff(l->sync_seq, m->synced) > 0))
		return 0;
	if (l->o.topic->sync == SHMQ_SYNC_EVERY)
		return seq_diff(l->next, l->group_seq) >= 0 || now >= l->group_ns;
	if (l->o.topic->sync == SHMQ_SYNC_NONE)
		return 0;
	due = l->unsynced_ns + (uint64_t)l->o.topic->sync_ns;
	return now >= due ||
	       (l->o.topic->sync == SHMQ_SYNC_BATCH && l->bytes - l->synced_bytes >= BATCH_BYTES);
}

/* A sync has ended.  Those whose messages it confirmed send again now, if they
 * have waited for it: the next sync is to be one for them and for those who
 * have sent meanwhile, and not one for the first of them and a second for the
 * others.  It does not wait long for them: they come within a fraction of what
 * it takes, or there are so many of them that their turns take longer than it,
 * and then it goes on beside that for those who are back.  Where that is so it
 * does not wait the next times, and is seen anew now and then. */
static void await_group(struct tail_lane *l, const struct tail_marks *m, uint64_t now)
{
	if (!l->sync_ns || seq_diff(l->sync_seq, m->synced) > 0)
		return;
	l->group_seq = l->next + (m->synced - load_relaxed(&l->o.part->log_synced));
	l->group_ns = now;
	if (!l->group_rest || !--l->group_rest)
		l->group_ns += (now - l->sync_ns) / GROUP_PART;
	l->sync_ns = 0;
}

/* The next sync begins: was it worth while to wait for it? */
static void judge_group(struct tail_lane *l)
{
	if (seq_diff(l->next, l->group_seq) >= 0) {
		l->group_rest = l->group_rests = 0;
		return;
	}
	if (l->group_rest)
		return;
	l->group_rests = l->group_rests < GROUP_RESTS ? 2 * l->group_rests + 1 : GROUP_RESTS;
	l->group_rest = l->group_rests + 1;
}

static void flush(struct tail_lane *l, const struct tail_marks *m, uint64_t now)
{
	uint64_t cursor = l->next, depth = l->o.topic->depth;

	if (needs_sync(l, m, now)) {
		judge_group(l);
		tail_writer_flush(l->writer, TAIL_SYNC);
		l->sync_seq = l->next;
		l->sync_ns = now;
		l->synced_bytes = l->flushed_bytes = l->bytes;
		l->first_ns = l->unsynced_ns = 0;
		return;
	}
	if (!l->first_ns)
		return;
	/* At once where publishers may be short of room. */
	if (now - l->first_ns < GATHER_NS && cursor - m->written < depth / 4 && !l->ended)
		return;
	tail_writer_flush(l->writer, TAIL_WRITE);
	l->flushed_bytes = l->bytes;
	l->first_ns = 0;
}

static void raise_ceiling(struct tail_lane *l)
{
	uint64_t room = durable_ceiling_room(l->o.topic->log, l->o.topic->depth);

	if (l->ceiling && seq_diff(l->ceiling, l->next) > (int64_t)(room / 2))
		return;
	l->ceiling = l->next + room;
	tail_writer_set_ceiling(l->writer, l->ceiling);
}

/* One that is not whole by now never was one, and nobody waits for it. */
static void drop_false_batches(struct tail_lane *l, uint64_t now)
{
	uint64_t before, after;
	int had_any = log_batches_hold(&l->batches, l->next, l->o.topic->depth, &before);

	if (!had_any)
		return;
	log_batches_expire(&l->batches, l->next, l->o.topic->depth);
	if (log_batches_hold(&l->batches, l->next, l->o.topic->depth, &after) && after == before)
		return;
	hold(l);
	l->first_ns = l->unsynced_ns = now; /* what waited for it waits no more */
}

/* A publisher may go a ring past `written`: not where no ceiling is yet. */
static uint64_t limit_written(const struct tail_lane *l, const struct tail_marks *m)
{
	uint64_t written = m->written, depth = l->o.topic->depth;

	if (l->o.topic->log == SHMQ_LOG_BLOCK && !m->ceiling)
		return load_relaxed(&l->o.part->log_written);
	if (l->o.topic->log == SHMQ_LOG_BLOCK && seq_diff(written, m->ceiling - depth) > 0)
		written = m->ceiling - depth;
	return written;
}

static void tell_error(const struct tail_lane *l, const struct tail_marks *m)
{
	if (m->error)
		log_error("log of \"%s\", partition %u stands at seq %" PRIu64
			  ": %s; it goes on by itself when that is over",
			  l->name, l->o.partition, m->written, shmq_strerror(m->error));
	else if (m->sync_error)
		log_error("log of \"%s\", partition %u is written on, but not known to be on the "
			  "disk from seq %" PRIu64
			  " on: a sync failed: %s; see to the disk, then start the bus anew",
			  l->name, l->o.partition, m->synced, shmq_strerror(m->sync_error));
	else
		log_info("log of \"%s\", partition %u goes on", l->name, l->o.partition);
}

/* The marks, for who looks at them: wake() is for who sleeps.  The bits of whom they
 * concern, or 0. */
static uint32_t raise_marks(struct tail_lane *l, const struct tail_marks *m)
{
	struct lay_partition *part = l->o.part;
	uint64_t written = limit_written(l, m), synced = m->synced;
	uint64_t old_written = load_relaxed(&part->log_written),
		 old_synced = load_relaxed(&part->log_synced);
	int error = m->error ? m->error : m->sync_error;

	if (seq_diff(synced, written) > 0)
		synced = written;
	if (part->log_error != error) {
		part->log_error = error;
		tell_error(l, m);
	}
	/* The one before may have died between a mark and telling of it. */
	if (l->has_told && written == old_written && synced == old_synced)
		return 0;
	store_release(&part->log_written, written); /* L1 */
	store_release(&part->log_synced, synced);
	atomic_fetch_add_explicit(&part->log_word, 1, memory_order_release);
	if (!l->has_told)
		return UINT32_MAX;
	return lay_seq_bits(old_written, written) | lay_seq_bits(old_synced, synced);
}

static void wake(struct tail_lane *l, uint32_t bits)
{
	if (!bits)
		return;
	shmq__futex_wake_bits(&l->o.part->log_word, bits);
	l->has_told = 1;
	shmq__sub_ring_credit(l->sub);
}

uint64_t tail_lane_tend(struct tail_lane *l, uint64_t now)
{
	struct tail_marks m = tail_writer_marks(l->writer);
	uint64_t due = UINT64_MAX, at;
	uint32_t bits;

	if (m.error || m.ceiling_error) {
		if (!l->retry_ns || now >= l->retry_ns) {
			if (l->retry_ns)
				tail_writer_retry(l->writer);
			l->retry_ns = now + RETRY_NS;
		}
		due = l->retry_ns;
	} else {
		l->retry_ns = 0;
	}
	drop_false_batches(l, now);
	raise_ceiling(l);
	await_group(l, &m, now);
	/* Who looks goes on while the next sync is started, and that while who sleeps is
	 * woken: each takes microseconds.  Not where it takes as long as the disk. */
	bits = raise_marks(l, &m);
	if (tail_io_kind(l->o.io) == TAIL_IO_PLAIN) {
		wake(l, bits);
		bits = 0;
	}
	flush(l, &m, now);
	wake(l, bits);
	if (l->first_ns)
		due = l->first_ns + GATHER_NS < due ? l->first_ns + GATHER_NS : due;
	if (l->unsynced_ns && l->o.topic->sync != SHMQ_SYNC_NONE && !m.sync_error) {
		at = l->unsynced_ns + (uint64_t)l->o.topic->sync_ns;
		if (l->o.topic->sync == SHMQ_SYNC_EVERY)
			at = l->group_ns;
		due = at < due ? at : due;
	}
	return due;
}

/* ---- closing --------------------------------------------------------- */

int tail_lane_close(struct tail_lane *l)
{
	/* Where it was not the end publishers go on, up to the ceiling. */
	int is_end = l->ended == SHMQ_EENDED;
	struct tail_marks m;
	int error = 0;

	if (l->writer) {
		m = tail_writer_marks(l->writer);
		error = tail_writer_close(l->writer, is_end ? TAIL_CLOSE_CLEAN : TAIL_CLOSE_OPEN);
		if (!error) {
			if (!log_batches_hold(&l->batches, l->next, l->o.topic->depth, &m.written))
				m.written = m.next_seq;
			m.synced = m.written;
			if (is_end)
				m.ceiling = m.next_seq + l->o.topic->depth;
			m.error = m.sync_error = 0;
			wake(l, raise_marks(l, &m));
		}
	}
	tail_keep_remove(l->kept);
	shmq_sub_close(l->sub);
	if (l->dir >= 0)
		close(l->dir);
	free(l->copy);
	free(l);
	return error;
}
