/* SPDX-License-Identifier: MIT */
#include "tail_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmq.h"
#include "tail_ceiling.h"

#define DEFAULT_SEGMENT_BYTES (UINT64_C(1) << 30)
#define HEAD_BYTES sizeof(struct log_record)

enum run_state { RUN_FILLING, RUN_FULL, RUN_SENT, RUN_DONE, RUN_FAILED };

struct run {
	struct tail_op op;
	struct tail_writer *w;
	struct tail_segment *segment;
	enum run_state state;
	int is_direct; /* the file was, when it was sent */
	int has_sync;  /* and is_syncing of its segment is its own */
	int overlaps;  /* its first block is the last one of the run before */
	char *mem;
	size_t used;
	uint64_t number;  /* one more than that of the run before */
	uint64_t off;     /* of mem[0] in the file: a multiple of LOG_BLOCK */
	uint64_t end_seq; /* every seq below is in this run or before it */
	TAILQ_ENTRY(run) link;
};

TAILQ_HEAD(run_list, run);
TAILQ_HEAD(segment_list, tail_segment);

struct tail_writer {
	struct tail_op naming; /* sync of the directory */
	struct tail_io *io;
	struct tail_layout layout;
	struct tail_ceiling *ceiling;
	struct segment_list segments;  /* oldest first; those before `segment` are ended */
	struct tail_segment *segment;  /* that is appended to; NULL: one is to be made */
	struct run_list runs, spare;   /* in the order of the log */
	struct run *run, *all;         /* that fills, the last one, or NULL; their memory */
	uint64_t numbers, written_run; /* of runs: the last one, the last one written */
	unsigned unsent;               /* runs that are FULL */

	uint64_t off, next_seq, max_ts; /* where the next byte goes; of the next record */
	uint64_t ended_seq;             /* end_seq of the last run that fills no more */
	uint64_t written, synced;
	uint64_t flush_seq;           /* what is below is to be written */
	uint64_t sync_seq, sync_last; /* ... synced: the first, the last to be wanted; or 0 */
	int error, make_error, sync_error;
	int is_naming;
	unsigned syncing; /* segments whose sync is under way */

	/* A record that its run has no room for.  The run that it begins in is
	 * held until the checksum is known, which is of what was copied. */
	struct {
		struct run *held; /* or NULL */
		struct log_record head;
		struct log_record *copied; /* its first 8 bytes: they are in one run */
		uint64_t off, at, bytes;   /* of it, how much of it there is */
	} big;
	struct log_summer *summer;

	/* How it was before the last record. */
	struct {
		struct run *run;
		size_t used;
		uint64_t number, off, next_seq, max_ts, ended_seq;
	} before;
	int can_take_back;

	/* What the next run begins with: the block that off is in, as far as it
	 * is full, or a header. */
	size_t rest_bytes;
	char rest[LOG_BLOCK];
};

static void settle(struct tail_writer *w);

/* ---- runs ---------------------------------------------------------------- */

static size_t room(const struct tail_writer *w)
{
	return w->run ? tail_io_buffer_bytes(w->io) - w->run->used : 0;
}

static void on_written(struct tail_op *op, int error);

static struct run *begin_run(struct tail_writer *w)
{
	struct run *run = TAILQ_FIRST(&w->spare);
	char *mem = run ? tail_io_take(w->io) : NULL;

	if (!mem)
		return NULL;
	TAILQ_REMOVE(&w->spare, run, link);
	TAILQ_INSERT_TAIL(&w->runs, run, link);
	*run = (struct run){
		.op.done = on_written,
		.w = w,
		.segment = w->segment,
		.state = RUN_FILLING,
		.overlaps = w->rest_bytes % LOG_BLOCK != 0,
		.mem = mem,
		.used = w->rest_bytes,
		.number = ++w->numbers,
		.off = w->off - w->rest_bytes,
		.link = run->link,
	};
	memcpy(mem, w->rest, w->rest_bytes);
	w->segment->run_count++;
	w->run = run;
	return run;
}

/* Nothing more comes into the run that fills; the next one begins with the
 * block that this one does not fill. */
static void end_run(struct tail_writer *w)
{
	struct run *run = w->run;

	w->rest_bytes = run->used % LOG_BLOCK;
	memcpy(w->rest, run->mem + run->used - w->rest_bytes, w->rest_bytes);
	run->end_seq = w->ended_seq = w->next_seq;
	run->state = RUN_FULL;
	w->unsent++;
	w->run = NULL;
}

/* Out of the list, for good. */
static void drop_run(struct tail_writer *w, struct run *run)
{
	if (run->mem)
		tail_io_give(w->io, run->mem);
	run->mem = NULL;
	run->segment->run_count--;
	if (run->state == RUN_FULL)
		w->unsent--;
	if (w->run == run)
		w->run = NULL;
	TAILQ_REMOVE(&w->runs, run, link);
	TAILQ_INSERT_HEAD(&w->spare, run, link);
}

/* ---- syncs ----------------------------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int is_ended(const struct tail_segment *s)
{
	return s->end_seq != UINT64_MAX;
}

/* A sync of what is before `seq`, and of all runs up to `run`; unwritten: how
 * many of s come behind. */
static void begin_sync(struct tail_writer *w, struct tail_segment *s, uint64_t seq, uint64_t run,
		       unsigned unwritten)
{
	s->is_syncing = 1;
	s->is_sealing = is_ended(s) && !unwritten;
	s->syncing_seq = least(seq, s->end_seq);
	s->syncing_run = run;
	w->syncing++;
}

static void end_sync(struct tail_writer *w, struct tail_segment *s, int error)
{
	s->is_syncing = 0;
	w->syncing--;
	/* The write that was to be synced failed: both are done again. */
	if (error == -ECANCELED)
		return;
	if (error) {
		w->sync_error = error;
		return;
	}
	s->synced_seq = s->syncing_seq;
	s->synced_run = s->syncing_run;
	s->is_sealed = s->is_sealing;
}

static void on_synced(struct tail_op *op, int error)
{
	struct tail_segment *s = (struct tail_segment *)op;

	end_sync(s->w, s, error);
	settle(s->w);
}

/* One sync of a segment at a time: those who want one meanwhile share the
 * next. */
static void sync_segments(struct tail_writer *w)
{
	struct tail_segment *s;

	TAILQ_FOREACH (s, &w->segments, link) {
		uint64_t want = least(w->sync_seq, s->end_seq),
			 have = least(w->written, s->end_seq);

		if (s->is_syncing || w->sync_error)
			continue;
		if ((s->synced_seq >= want || have < want) &&
		    (s->is_sealed || !is_ended(s) || s->run_count))
			continue;
		begin_sync(w, s, have, w->written_run, s->run_count);
		tail_io_datasync(w->io, &s->sync, s->fd);
	}
}

static void on_named(struct tail_op *op, int error)
{
	struct tail_writer *w = (struct tail_writer *)op;
	struct tail_segment *s;

	w->is_naming = 0;
	if (error)
		w->sync_error = error;
	TAILQ_FOREACH (s, &w->segments, link) {
		s->is_named |= s->is_naming && !error;
		s->is_naming = 0;
	}
	settle(w);
}

/* A file whose name is not on the disk is not there. */
static void name_segments(struct tail_writer *w)
{
	struct tail_segment *s;

	if (w->is_naming || w->sync_error)
		return;
	TAILQ_FOREACH (s, &w->segments, link) {
		s->is_naming = !s->is_named;
		w->is_naming |= s->is_naming;
	}
	if (w->is_naming)
		tail_io_sync(w->io, &w->naming, w->layout.dir);
}

static void close_segment(struct tail_writer *w, struct tail_segment *s)
{
	TAILQ_REMOVE(&w->segments, s, link);
	tail_segment_close(s, s->end_off);
}

/* In the order of the log; and what has ended is closed. */
static void raise_synced(struct tail_writer *w)
{
	struct tail_segment *s, *next;

	while ((s = TAILQ_FIRST(&w->segments)) && s->is_named && !w->sync_error) {
		if (s->synced_seq > w->synced)
			w->synced = s->synced_seq;
		if (!s->is_sealed)
			break;
		close_segment(w, s);
	}
	/* Nothing will be synced any more, and no file waits for it. */
	for (s = TAILQ_FIRST(&w->segments); s && w->sync_error; s = next) {
		next = TAILQ_NEXT(s, link);
		if (is_ended(s) && !s->run_count && !s->is_syncing)
			close_segment(w, s);
	}
	/* What was wanted later waits for as much as was wanted then: what is
	 * wanted all the time would move away from what is written. */
	if (w->synced >= w->sync_seq)
		w->sync_seq = w->sync_last > w->synced ? w->sync_last : 0;
}

static void want_sync(struct tail_writer *w, uint64_t seq)
{
	if (seq <= w->synced)
		return;
	if (!w->sync_seq)
		w->sync_seq = seq;
	w->sync_last = seq > w->sync_last ? seq : w->sync_last;
}

/* ---- writes ---------------------------------------------------------------- */

/* The sync goes with the write, which it covers alone: so if all before is
 * synced, and nothing else of the segment is on its way. */
static int takes_sync_along(const struct tail_writer *w, const struct run *run)
{
	const struct tail_segment *s = run->segment;

	return w->sync_seq > w->written && w->sync_seq <= run->end_seq &&
	       run == TAILQ_FIRST(&w->runs) && s->unsynced_run <= s->synced_run && !s->is_syncing &&
	       !w->sync_error;
}

static void send_run(struct tail_writer *w, struct run *run)
{
	size_t bytes = (run->used + LOG_BLOCK - 1) & ~(size_t)(LOG_BLOCK - 1);
	struct tail_segment *s = run->segment;

	if (run->number >= w->before.number)
		w->can_take_back = 0;
	memset(run->mem + run->used, 0, bytes - run->used);
	run->state = RUN_SENT;
	run->is_direct = s->is_direct;
	run->has_sync = takes_sync_along(w, run);
	w->unsent--;
	if (run->has_sync) {
		begin_sync(w, s, run->end_seq, run->number, s->run_count - 1);
		tail_io_write_sync(w->io, &run->op, s->fd, run->mem, bytes, run->off);
	} else {
		/* One that was held comes behind its successors. */
		if (run->number > s->unsynced_run)
			s->unsynced_run = run->number;
		tail_io_write(w->io, &run->op, s->fd, run->mem, bytes, run->off);
	}
}

/* Send what may be sent by now.  A run that shares a block with the one
 * before waits until that is written, and fills meanwhile. */
static void send_runs(struct tail_writer *w)
{
	struct run *run, *before = NULL;

	for (run = TAILQ_FIRST(&w->runs); run && !w->error; run = TAILQ_NEXT(run, link)) {
		int must_wait = run == w->big.held ||
				(run->overlaps && before && before->number + 1 == run->number &&
				 before->state != RUN_DONE);

		before = run;
		if (must_wait)
			continue;
		if (run == w->run && !w->big.held && (w->flush_seq > w->ended_seq || !room(w)))
			end_run(w);
		if (run->state == RUN_FULL)
			send_run(w, run);
	}
}

static void on_written(struct tail_op *op, int error)
{
	struct run *run = (struct run *)op;
	struct tail_writer *w = run->w;

	if (run->has_sync)
		end_sync(w, run->segment, error ? -ECANCELED : 0);
	run->has_sync = 0;
	if (!error) {
		run->state = RUN_DONE;
		tail_io_give(w->io, run->mem);
		run->mem = NULL;
	} else if (error == -EINVAL && run->is_direct) {
		/* It took the flag, but not for writes of our alignment. */
		tail_segment_undirect(run->segment);
		run->state = RUN_FULL;
		w->unsent++;
	} else {
		run->state = RUN_FAILED;
		w->error = error;
	}
	settle(w);
}

/* Draw the conclusions of whatever has ended, or is wanted. */
static void settle(struct tail_writer *w)
{
	struct run *run, *before = NULL, *next;

	/* One that only goes on with the record of the one before can go before
	 * its turn: there may be more of them than buffers. */
	for (run = TAILQ_FIRST(&w->runs); run; run = next) {
		next = TAILQ_NEXT(run, link);
		if (run->state != RUN_DONE || (before && before->end_seq != run->end_seq)) {
			before = run;
			continue;
		}
		if (!before) {
			w->written = run->end_seq;
			w->written_run = run->number;
		}
		tail_index_flush(run->segment->index);
		drop_run(w, run);
	}
	raise_synced(w);
	send_runs(w);
	sync_segments(w);
	name_segments(w);
}

/* ---- records --------------------------------------------------------------- */

/* The record at off is there. */
static void commit(struct tail_writer *w, const struct log_record *head, uint64_t off)
{
	if (off >= tail_index_next(w->segment->index))
		tail_index_add(w->segment->index, head->seq, w->max_ts, off);
	w->next_seq = head->seq + log_record_count(head);
	if (head->ts > w->max_ts)
		w->max_ts = head->ts;
}

static void place(struct tail_writer *w, const struct log_record *head, const struct iovec *piece,
		  int count, size_t bytes)
{
	char *start = w->run->mem + w->run->used, *at = start + HEAD_BYTES;
	int i;

	memcpy(start, head, HEAD_BYTES);
	for (i = 0; i < count; i++) {
		memcpy(at, piece[i].iov_base, piece[i].iov_len);
		at += piece[i].iov_len;
	}
	memset(at, 0, (size_t)(start + bytes - at));
	((struct log_record *)start)->checksum =
		shmq__log_record_sum_whole(w->segment->seed, start);
	w->run->used += bytes;
	w->off += bytes;
	commit(w, head, w->off - bytes);
}

/* Of at least 8 bytes: all is a multiple of that. */
static int make_room(struct tail_writer *w)
{
	if (room(w))
		return 0;
	if (w->run)
		end_run(w);
	if (begin_run(w))
		return 0;
	send_runs(w);
	return -EAGAIN;
}

/* What stands at big.at of a record: how many bytes at *from, or zeros. */
static size_t source(const struct tail_writer *w, const struct iovec *piece, int count,
		     const char **from)
{
	uint64_t at = w->big.at;
	int i;

	if (at < HEAD_BYTES) {
		*from = (const char *)&w->big.head + at;
		return HEAD_BYTES - at;
	}
	at -= HEAD_BYTES;
	for (i = 0; i < count; at -= piece[i++].iov_len) {
		if (at >= piece[i].iov_len)
			continue;
		*from = (const char *)piece[i].iov_base + at;
		return piece[i].iov_len - at;
	}
	*from = NULL;
	return w->big.bytes - w->big.at;
}

static void begin_big(struct tail_writer *w, const struct log_record *head, uint64_t bytes)
{
	w->big.held = w->run;
	w->big.head = *head;
	w->big.copied = (struct log_record *)(w->run->mem + w->run->used);
	w->big.off = w->off;
	w->big.at = 0;
	w->big.bytes = bytes;
	shmq__log_summer_begin(w->summer, w->segment->seed, head);
}

/* As far as there are buffers. */
static int pour(struct tail_writer *w, const struct iovec *piece, int count)
{
	while (w->big.at < w->big.bytes) {
		const char *from;
		char *to;
		size_t n;

		if (make_room(w))
			return -EAGAIN;
		to = w->run->mem + w->run->used;
		n = least(source(w, piece, count, &from), room(w));
		if (!from)
			memset(to, 0, n);
		else
			memcpy(to, from, n);
		if (from && w->big.at >= HEAD_BYTES)
			shmq__log_summer_add(w->summer, to, n);
		w->run->used += n;
		w->off += n;
		w->big.at += n;
	}
	w->big.copied->checksum = shmq__log_summer_sum(w->summer);
	w->big.held = NULL;
	commit(w, &w->big.head, w->big.off);
	return 0;
}

static void remember(struct tail_writer *w)
{
	w->before.run = w->run;
	w->before.used = w->run->used;
	w->before.number = w->run->number;
	w->before.off = w->off;
	w->before.next_seq = w->next_seq;
	w->before.max_ts = w->max_ts;
	w->before.ended_seq = w->ended_seq;
	w->can_take_back = 1;
}

static int put(struct tail_writer *w, const struct log_record *head, const struct iovec *piece,
	       int count)
{
	uint64_t bytes = log_record_bytes(head->body_bytes);

	if (w->big.held)
		return pour(w, piece, count);
	if (make_room(w))
		return -EAGAIN;
	remember(w);
	if (room(w) >= bytes) {
		place(w, head, piece, count, bytes);
		return 0;
	}
	begin_big(w, head, bytes);
	return pour(w, piece, count);
}

/* ---- segments -------------------------------------------------------------- */

static void use_segment(struct tail_writer *w, struct tail_segment *s)
{
	s->w = w;
	s->sync.done = on_synced;
	w->segment = s;
	TAILQ_INSERT_TAIL(&w->segments, s, link);
}

static int make_segment(struct tail_writer *w)
{
	struct tail_segment *s;

	w->make_error = tail_segment_create(&w->layout, w->next_seq, w->max_ts, w->rest, &s);
	if (w->make_error)
		return w->make_error;
	w->rest_bytes = w->off = LOG_BLOCK;
	use_segment(w, s);
	name_segments(w);
	return 0;
}

static int end_segment(struct tail_writer *w)
{
	struct log_record end = { .kind = LOG_END, .seq = w->next_seq, .ts = w->max_ts };
	int error = put(w, &end, NULL, 0);

	if (error)
		return error;
	end_run(w);
	w->segment->end_seq = w->next_seq;
	w->segment->end_off = w->off;
	w->segment = NULL;
	w->can_take_back = 0;
	return 0;
}

/* A segment that has room for so many bytes and its end, or is empty. */
static int make_segment_room(struct tail_writer *w, uint64_t bytes)
{
	int error;

	if (w->segment && w->off > LOG_BLOCK &&
	    w->off + bytes + HEAD_BYTES > w->layout.segment_bytes) {
		error = end_segment(w);
		if (error)
			return error;
	}
	return w->segment ? 0 : make_segment(w);
}

/* ---- the contract ---------------------------------------------------------- */

static int is_sane(const struct tail_writer *w, const struct log_record *head,
		   const struct iovec *piece, int count)
{
	uint64_t left = head->body_bytes;
	int i;

	for (i = 0; i < count; i++) {
		if (piece[i].iov_len > left)
			return 0;
		left -= piece[i].iov_len;
	}
	return !left && head->seq == w->next_seq && head->body_bytes <= LOG_BODY_MAX &&
	       head->kind != LOG_END;
}

int tail_writer_append(struct tail_writer *w, const struct log_record *head,
		       const struct iovec *piece, int count)
{
	int error;

	if (!is_sane(w, head, piece, count))
		return -EINVAL;
	if (w->unsent)
		send_runs(w);
	if (w->big.held && w->big.head.kind != LOG_END)
		return w->big.head.body_bytes == head->body_bytes ? pour(w, piece, count) : -EINVAL;
	error = w->big.held ? end_segment(w) : 0;
	if (!error)
		error = make_segment_room(w, log_record_bytes(head->body_bytes));
	return error ? error : put(w, head, piece, count);
}

static void rewind_to_before(struct tail_writer *w)
{
	struct run *run = w->before.run, *last;

	while ((last = TAILQ_LAST(&w->runs, run_list)) != run)
		drop_run(w, last);
	if (run->state == RUN_FULL)
		w->unsent--;
	run->state = RUN_FILLING;
	run->used = w->before.used;
	w->run = run;
	w->numbers = run->number;
	w->off = w->before.off;
	w->next_seq = w->before.next_seq;
	w->max_ts = w->before.max_ts;
	w->ended_seq = w->before.ended_seq;
	w->big.held = NULL;
	w->can_take_back = 0;
	tail_index_take_back(w->segment->index, w->off);
}

int tail_writer_take_back(struct tail_writer *w)
{
	if (!w->can_take_back)
		return -EBUSY;
	rewind_to_before(w);
	return 0;
}

void tail_writer_flush(struct tail_writer *w, enum tail_flush how)
{
	w->flush_seq = w->next_seq;
	if (how == TAIL_SYNC)
		want_sync(w, w->next_seq);
	settle(w);
}

void tail_writer_sync(struct tail_writer *w)
{
	want_sync(w, w->written);
	settle(w);
}

void tail_writer_set_ceiling(struct tail_writer *w, uint64_t seq)
{
	tail_ceiling_set(w->ceiling, seq, TAIL_CEILING_OPEN);
}

struct tail_marks tail_writer_marks(const struct tail_writer *w)
{
	return (struct tail_marks){
		.next_seq = w->next_seq,
		.written = w->written,
		.synced = w->synced,
		.ceiling = tail_ceiling_seq(w->ceiling),
		.error = w->error ? w->error : w->make_error,
		.sync_error = w->sync_error,
		.ceiling_error = tail_ceiling_error(w->ceiling),
	};
}

void tail_writer_retry(struct tail_writer *w)
{
	struct run *run;

	w->error = 0;
	TAILQ_FOREACH (run, &w->runs, link) {
		if (run->state != RUN_FAILED)
			continue;
		run->state = RUN_FULL;
		w->unsent++;
	}
	tail_ceiling_retry(w->ceiling);
	settle(w);
}

/* ---- open and close -------------------------------------------------------- */

static void destroy(struct tail_writer *w, uint64_t off)
{
	struct tail_segment *s;
	struct run *run;

	while ((run = TAILQ_FIRST(&w->runs)))
		drop_run(w, run);
	while ((s = TAILQ_FIRST(&w->segments))) {
		TAILQ_REMOVE(&w->segments, s, link);
		tail_segment_close(s, s == w->segment ? off : TAIL_UNCUT);
	}
	tail_ceiling_close(w->ceiling);
	shmq__log_summer_destroy(w->summer);
	if (w->layout.dir >= 0)
		close(w->layout.dir);
	free(w->all);
	free(w);
}

static int resume_segment(struct tail_writer *w, const struct tail_resume *resume)
{
	struct tail_segment *s;
	int error = tail_segment_resume(&w->layout, resume->first_seq, resume->seed, resume->off,
					w->rest, &s);

	if (error)
		return error;
	w->off = resume->off;
	w->rest_bytes = resume->off % LOG_BLOCK;
	s->synced_seq = resume->next_seq;
	use_segment(w, s);
	return 0;
}

static int prepare(struct tail_writer *w, const struct tail_resume *resume)
{
	unsigned count = tail_io_buffer_count(w->io), i;
	int error;

	w->layout.dir = fcntl(w->layout.dir, F_DUPFD_CLOEXEC, 0);
	if (w->layout.dir < 0)
		return -errno;
	if (w->layout.segment_bytes % LOG_BLOCK ||
	    !memchr(w->layout.topic, 0, sizeof(w->layout.topic)))
		return -EINVAL;
	w->all = calloc(count, sizeof(*w->all));
	w->summer = shmq__log_summer_create();
	if (!w->all || !w->summer)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		TAILQ_INSERT_TAIL(&w->spare, &w->all[i], link);
	error = tail_ceiling_open(w->io, w->layout.dir, w->layout.log_id, resume->ceiling_serial,
				  &w->ceiling);
	if (error || !resume->off)
		return error;
	return resume_segment(w, resume);
}

int tail_writer_open(struct tail_io *io, const struct tail_layout *layout,
		     const struct tail_resume *resume, struct tail_writer **out)
{
	struct tail_writer *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return -ENOMEM;
	w->io = io;
	w->layout = *layout;
	if (!w->layout.segment_bytes)
		w->layout.segment_bytes = DEFAULT_SEGMENT_BYTES;
	w->naming.done = on_named;
	TAILQ_INIT(&w->segments);
	TAILQ_INIT(&w->runs);
	TAILQ_INIT(&w->spare);
	w->next_seq = w->ended_seq = w->written = w->synced = resume->next_seq;
	w->max_ts = resume->max_ts;
	error = prepare(w, resume);
	if (error) {
		destroy(w, TAIL_UNCUT);
		return error;
	}
	*out = w;
	return 0;
}

/* Whether anything of it is under way in the tail_io. */
static int is_busy(const struct tail_writer *w)
{
	const struct run *run;

	TAILQ_FOREACH (run, &w->runs, link)
		if (run->state == RUN_SENT)
			return 1;
	return w->syncing || w->is_naming || !tail_ceiling_is_idle(w->ceiling);
}

static void wait_until_idle(struct tail_writer *w)
{
	while (is_busy(w))
		tail_io_reap(w->io, SHMQ_FOREVER);
}

int tail_writer_close(struct tail_writer *w, enum tail_close how)
{
	int error;

	wait_until_idle(w);
	if (w->big.held)
		rewind_to_before(w);
	/* A header too, even if nothing follows it. */
	if (w->run)
		end_run(w);
	tail_writer_flush(w, TAIL_SYNC);
	wait_until_idle(w);
	error = w->error ? w->error : w->sync_error;
	if (!error && how == TAIL_CLOSE_CLEAN) {
		tail_ceiling_set(w->ceiling, w->next_seq, TAIL_CEILING_CLEAN);
		wait_until_idle(w);
		error = tail_ceiling_error(w->ceiling);
	}
	destroy(w, error ? TAIL_UNCUT : w->off);
	return error;
}
