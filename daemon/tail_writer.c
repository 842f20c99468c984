/* SPDX-License-Identifier: MIT */
#include "tail_priv.h"

#include <errno.h>
#include <string.h>

#define HEAD_BYTES sizeof(struct log_record)

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

	memset(start + bytes - LOG_ALIGN, 0, LOG_ALIGN); /* what is padding of that */
	memcpy(start, head, HEAD_BYTES);
	for (i = 0; i < count; i++) {
		memcpy(at, piece[i].iov_base, piece[i].iov_len);
		at += piece[i].iov_len;
	}
	((struct log_record *)start)->checksum =
		shmq__log_record_sum_whole(&w->segment->key, start);
	w->run->used += bytes;
	w->off += bytes;
	commit(w, head, w->off - bytes);
}

/* What there will be of it. */
static size_t room_to_come(const struct tail_writer *w)
{
	size_t rest = w->run ? 0 : w->rest_bytes;

	return tail_run_room(w) ? tail_run_room(w) : w->buffer_bytes - rest;
}

/* Of at least 8 bytes: all is a multiple of that. */
static int make_room(struct tail_writer *w)
{
	if (tail_run_room(w))
		return 0;
	if (w->run)
		tail_run_end(w);
	if (tail_run_begin(w))
		return 0;
	tail_run_send(w);
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
	shmq__log_summer_begin(w->summer, w->segment->key.seed, head);
}

/* To have a buffer while waiting for others; not for a disk that takes nothing. */
static int take_turn(struct tail_writer *w)
{
	return !w->error && tail_io_take_turn(w->io, w);
}

/* As far as there are buffers. */
static int pour(struct tail_writer *w, const struct iovec *piece, int count)
{
	if (!take_turn(w))
		return -EAGAIN;
	while (w->big.at < w->big.bytes) {
		const char *from;
		char *to;
		size_t n;

		if (make_room(w))
			return -EAGAIN;
		to = w->run->mem + w->run->used;
		n = least(source(w, piece, count, &from), tail_run_room(w));
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
	tail_io_end_turn(w->io, w);
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
	if (unlikely(tail_run_room(w) < bytes)) {
		/* A run that nothing comes into would be flushed by nobody. */
		if (bytes > room_to_come(w) && !take_turn(w))
			return -EAGAIN;
		if (make_room(w)) {
			tail_io_end_turn(w->io, w);
			return -EAGAIN;
		}
	}
	remember(w);
	if (likely(tail_run_room(w) >= bytes)) {
		place(w, head, piece, count, bytes);
		return 0;
	}
	begin_big(w, head, bytes);
	return pour(w, piece, count);
}

/* ---- segments -------------------------------------------------------------- */

static int make_segment(struct tail_writer *w)
{
	struct tail_segment *s;
	int has_room = !w->layout.has_room || w->layout.has_room(w->layout.arg);

	w->make_error =
		has_room ? tail_segment_create(&w->layout, w->next_seq, w->max_ts, w->rest, &s) :
			   -ENOSPC;
	if (w->make_error)
		return w->make_error;
	s->synced_seq = tail_writer_whole(w);
	w->rest_bytes = w->off = LOG_BLOCK;
	if (w->layout.began)
		w->layout.began(w->layout.arg, s->first_seq, w->max_ts);
	tail_sync_adopt(w, s);
	return 0;
}

static int end_segment(struct tail_writer *w)
{
	struct log_record end = { .kind = LOG_END, .seq = w->next_seq, .ts = w->max_ts };
	int error = put(w, &end, NULL, 0);

	if (error)
		return error;
	tail_run_end(w);
	w->segment->end_seq = tail_writer_whole(w);
	w->segment->is_ended = 1;
	w->segment->end_off = w->off;
	w->segment = NULL;
	w->can_take_back = 0;
	return 0;
}

/* A segment that has room for so many bytes and its end, or is empty. */
static int make_segment_room(struct tail_writer *w, uint64_t bytes)
{
	int error;

	uint64_t most = w->layout.segment_bytes << w->is_held;

	if (w->segment && w->off > LOG_BLOCK && w->off + bytes + HEAD_BYTES > most) {
		/* One that may not be written yet is the last: readers pass one file
		 * without a header, and not two. */
		if (w->segment != TAILQ_FIRST(&w->segments)) {
			tail_run_send(w);
			return -EAGAIN;
		}
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
		tail_run_send(w);
	if (w->big.held && w->big.head.kind != LOG_END)
		return w->big.head.body_bytes == head->body_bytes ? pour(w, piece, count) : -EINVAL;
	/* If this one does not begin, the one before is not given up for it. */
	w->can_take_back = 0;
	error = w->big.held ? end_segment(w) : 0;
	if (!error)
		error = make_segment_room(w, log_record_bytes(head->body_bytes));
	return error ? error : put(w, head, piece, count);
}

void tail_writer_rewind(struct tail_writer *w)
{
	struct run *run = w->before.run, *last;

	while ((last = TAILQ_LAST(&w->runs, run_list)) != run)
		tail_run_drop(w, last);
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
	tail_io_end_turn(w->io, w);
	tail_index_take_back(w->segment->index, w->off);
}

int tail_writer_take_back(struct tail_writer *w)
{
	if (!w->can_take_back)
		return -EBUSY;
	tail_writer_rewind(w);
	return 0;
}

void tail_writer_hold(struct tail_writer *w, const uint64_t *seq)
{
	w->is_held = seq != NULL;
	if (seq)
		w->held_seq = *seq;
}

void tail_writer_flush(struct tail_writer *w, enum tail_flush how)
{
	w->flush_seq = w->next_seq;
	if (how == TAIL_SYNC)
		tail_sync_want(w, w->next_seq);
	tail_run_settle(w);
}

void tail_writer_sync(struct tail_writer *w)
{
	tail_sync_want(w, w->written);
	tail_run_settle(w);
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
	tail_run_settle(w);
}
