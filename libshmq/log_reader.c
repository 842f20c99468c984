/* SPDX-License-Identifier: MIT */
#include "log_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

struct log_reader {
	int dir;
	int has_owner; /* all segments of a log are of one */
	struct log_owner owner;
	uint64_t *first; /* of all segments, in order */
	unsigned count;
	struct log_scan scan;  /* at no segment: scan.seg.fd is -1 */
	uint64_t oldest;       /* from there on records are handed out */
	int has_place;         /* 0: oldest is the first there will be */
	int begins_with_a_gap; /* from oldest to scan.next */
	int began_in_hole;     /* that record, which the next goes on with */
	int maps;              /* complete segments */
};

/* The newest is there by name before anything is in it: until then it is to
 * come. */
static int list(struct log_reader *r)
{
	uint64_t *first;
	unsigned count;
	int error = shmq__log_list(r->dir, &first, &count);

	if (error)
		return error;
	free(r->first);
	r->first = first;
	r->count = count;
	if (count && !shmq__log_segment_has_begun(r->dir, first[count - 1]))
		r->count--;
	return 0;
}

/* Go over to a segment that was opened. */
static void enter(struct log_reader *r, const struct log_segment *seg, uint64_t off, uint64_t seq)
{
	r->owner = seg->owner;
	r->has_owner = 1;
	shmq__log_scan_start(&r->scan, seg, off, seq);
	if (r->maps && seg->first_seq != r->first[r->count - 1])
		shmq__log_scan_map(&r->scan);
	posix_fadvise(seg->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

/* -ENOENT: it is not there any more, or, the last one, was begun anew since it was
 * listed and has no header yet. */
static int open_at(const struct log_reader *r, unsigned at, struct log_segment *seg,
		   struct shmq__why *why)
{
	const struct log_owner *owner = r->has_owner ? &r->owner : NULL;
	int error = shmq__log_segment_open(r->dir, r->first[at], owner, seg, why);

	if (error != SHMQ_ECORRUPT || at + 1 < r->count)
		return error;
	if (!shmq__log_segment_has_begun(r->dir, r->first[at]))
		return -ENOENT;
	/* The header may have been written while we looked. */
	return shmq__log_segment_open(r->dir, r->first[at], owner, seg, why);
}

/* The first from `at` on that is one; what retention has just removed, or what
 * is damaged, is not.  0, SHMQ_EEMPTY, or what went wrong. */
static int open_from(const struct log_reader *r, unsigned at, struct log_segment *seg,
		     struct shmq__why *why)
{
	int error, result = SHMQ_EEMPTY;

	for (; at < r->count; at++) {
		error = open_at(r, at, seg, why);
		if (error == SHMQ_ECORRUPT)
			result = error;
		else if (error != -ENOENT)
			return error;
	}
	return result;
}

/* Enter the segment number `at`; where it is damaged the last good one before
 * it, from which on all that is damaged comes as gaps; else the first good
 * one. */
static int enter_near(struct log_reader *r, unsigned at, struct shmq__why *why)
{
	struct log_segment seg;
	unsigned i = at;
	int error, later;

	do
		error = open_at(r, i, &seg, why);
	while (error == SHMQ_ECORRUPT && i--);
	if (error == SHMQ_ECORRUPT) {
		later = open_from(r, at + 1, &seg, why);
		error = later == SHMQ_EEMPTY ? error : later;
	}
	if (!error)
		enter(r, &seg, LOG_BLOCK, seg.first_seq);
	return error;
}

int shmq__log_reader_open(int dir, const struct log_owner *owner, struct log_reader **out,
			  struct shmq__why *why)
{
	struct log_reader *r = calloc(1, sizeof(*r));
	int error = r ? shmq__log_scan_init(&r->scan) : -ENOMEM;

	*out = NULL;
	if (error) {
		free(r);
		return shmq__fail(why, error, "reading a log: %s", shmq_strerror(error));
	}
	if (owner) {
		r->owner = *owner;
		r->has_owner = 1;
	}
	r->dir = fcntl(dir, F_DUPFD_CLOEXEC, 3);
	error = r->dir < 0 ? -errno : list(r);
	if (error)
		error = shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
	else if (r->count)
		error = shmq__log_reader_seek(r, r->first[0], why);
	if (error) {
		shmq__log_reader_close(r);
		return error;
	}
	*out = r;
	return 0;
}

void shmq__log_reader_close(struct log_reader *r)
{
	if (!r)
		return;
	shmq__log_scan_fini(&r->scan);
	if (r->dir >= 0)
		close(r->dir);
	free(r->first);
	free(r);
}

void shmq__log_reader_map(struct log_reader *r)
{
	r->maps = 1;
}

int shmq__log_reader_oldest(struct log_reader *r, uint64_t *seq)
{
	int error = list(r);

	if (error)
		return error;
	if (!r->count)
		return SHMQ_EEMPTY;
	*seq = r->first[0];
	return 0;
}

uint64_t shmq__log_reader_seq(const struct log_reader *r)
{
	if (r->begins_with_a_gap || seq_diff(r->oldest, r->scan.next) > 0)
		return r->oldest;
	return r->scan.next;
}

/* The segment that seq is in, or would be: the last one that does not begin
 * after it, else the first.  There is one. */
static unsigned find(const struct log_reader *r, uint64_t seq)
{
	unsigned low = 0, high = r->count, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (seq_diff(r->first[mid], seq) <= 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low ? low - 1 : 0;
}

/* Stand at a place of the index in the segment that was entered, at one that
 * leads to a record. */
static void start_at(struct log_reader *r, enum log_by by, uint64_t target)
{
	struct log_index_entry e;

	do {
		shmq__log_index_find(r->dir, &r->scan.seg, by, target, &e);
		shmq__log_scan_move(&r->scan, e.off, e.seq);
		target = by == LOG_BY_SEQ ? e.seq - 1 : e.max_ts;
	} while (e.off > LOG_BLOCK && shmq__log_scan_peek(&r->scan) != 1);
}

/* ---- damage ---------------------------------------------------------- */

/* Seqs from the cursor to `to` are not in the log. */
static int make_gap(struct log_reader *r, uint64_t to, struct log_record *head)
{
	*head = (struct log_record){ .seq = r->scan.next,
				     .tag = to - r->scan.next,
				     .flags = LOG_GAP_DAMAGE,
				     .kind = LOG_GAP };
	r->scan.next = to;
	return 1;
}

/* Where there are records again, behind the cursor. */
struct onward {
	struct log_segment seg; /* fd -1: the same one */
	uint64_t off, seq;
};

/* In the same segment, as the index says and the record there confirms. */
static int find_in_segment(struct log_reader *r, struct onward *to)
{
	uint64_t next = r->scan.next, off = log_scan_off(&r->scan);
	struct log_index_entry e;
	int found = 0;

	for (e.off = off; !found && !shmq__log_index_after(r->dir, &r->scan.seg, e.off, &e);) {
		if (seq_diff(e.seq, next) < 0)
			continue;
		shmq__log_scan_move(&r->scan, e.off, e.seq);
		found = shmq__log_scan_peek(&r->scan) == 1;
	}
	shmq__log_scan_move(&r->scan, off, next);
	if (found) {
		to->off = e.off;
		to->seq = e.seq;
	}
	return found;
}

/* What should come next is missing: it may have become part of a segment before it
 * since this one was opened, be it the same by name. */
static void find_merged(struct log_reader *r, struct onward *to, struct shmq__why *why)
{
	struct log_segment seg;

	if (list(r) || !r->count || open_at(r, find(r, r->scan.next), &seg, why))
		return;
	if (seg.first_seq == r->scan.seg.first_seq && seg.seed == r->scan.seg.seed) {
		shmq__log_segment_close(&seg);
		return;
	}
	shmq__log_segment_close(&to->seg);
	*to = (struct onward){ seg, LOG_BLOCK, seg.first_seq };
}

/* 0, SHMQ_EEMPTY: nowhere, or what went wrong. */
static int find_onward(struct log_reader *r, struct onward *to, struct shmq__why *why)
{
	unsigned at = 0;
	int error;

	to->seg.fd = -1;
	if (find_in_segment(r, to))
		return 0;
	error = list(r);
	if (error)
		return shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
	while (at < r->count && seq_diff(r->first[at], r->scan.seg.first_seq) <= 0)
		at++;
	error = open_from(r, at, &to->seg, why);
	if (error)
		return error;
	to->off = LOG_BLOCK;
	to->seq = to->seg.first_seq;
	if (seq_diff(to->seq, r->scan.next) > 0)
		find_merged(r, to, why);
	return 0;
}

/* Go there; 1 with a gap if seqs are missing in between. */
static int go_on(struct log_reader *r, const struct onward *to, struct log_record *head)
{
	uint64_t next = r->scan.next;

	if (to->seg.fd < 0)
		shmq__log_scan_move(&r->scan, to->off, to->seq);
	else
		enter(r, &to->seg, to->off, to->seq);
	if (seq_diff(to->seq, next) > 0) {
		r->scan.next = next;
		return make_gap(r, to->seq, head);
	}
	/* What both have is handed out once. */
	if (seq_diff(next, r->oldest) > 0)
		r->oldest = next;
	if (to->seg.fd >= 0 && seq_diff(to->seq, next) < 0)
		start_at(r, LOG_BY_SEQ, next);
	return 0;
}

/* ---- going on -------------------------------------------------------- */

static int begin_with_gap(struct log_reader *r, struct log_record *head, const char **body)
{
	uint64_t to = r->scan.next;

	r->begins_with_a_gap = 0;
	r->scan.next = r->oldest;
	*body = NULL;
	return make_gap(r, to, head);
}

/* Where the scan says rc, not 1. */
static __attribute__((noinline)) int go_past(struct log_reader *r, int rc, struct log_record *head,
					     const char **body, struct shmq__why *why)
{
	char name[LOG_NAME_BYTES];
	struct onward to;
	int error;

	for (;; rc = shmq__log_scan_next(&r->scan, head, body)) {
		if (rc == 1 || (rc < 0 && rc != SHMQ_ECORRUPT))
			break;
		error = find_onward(r, &to, why);
		if (error == SHMQ_EEMPTY)
			break;
		if (error)
			return error;
		/* Before what was found was written, this may have been, since
		 * we looked. */
		if (shmq__log_scan_peek(&r->scan) == 1) {
			shmq__log_segment_close(&to.seg);
			continue;
		}
		if (go_on(r, &to, head)) {
			*body = NULL;
			return 1;
		}
	}
	if (rc >= 0)
		return rc;
	shmq__log_segment_name(r->dir, r->scan.seg.first_seq, name);
	if (rc == SHMQ_ECORRUPT)
		return shmq__fail(why, rc,
				  "%s is damaged at offset %" PRIu64 ", where seq %" PRIu64
				  " should be",
				  name, log_scan_off(&r->scan), r->scan.next);
	return shmq__fail(why, rc, "reading %s: %s", name, shmq_strerror(rc));
}

static inline int next_record(struct log_reader *r, struct log_record *head, const char **body,
			      struct shmq__why *why)
{
	int rc;

	if (unlikely(r->begins_with_a_gap))
		return begin_with_gap(r, head, body);
	rc = shmq__log_scan_next(&r->scan, head, body);
	return likely(rc == 1) ? rc : go_past(r, rc, head, body, why);
}

/* A gap or hole that reaches across the place that was asked for.  Where in a gap,
 * with the hole before it, there were messages nobody knows. */
static void trim(struct log_reader *r, struct log_record *head)
{
	int64_t before = seq_diff(r->oldest, head->seq);

	if (head->kind == LOG_GAP && (before > 0 || r->began_in_hole))
		head->flags |= LOG_GAP_BOUND;
	r->began_in_hole = head->kind == LOG_HOLE && before > 0;
	if (before <= 0)
		return;
	head->seq += (uint64_t)before;
	head->tag -= (uint64_t)before;
}

/* Segments have come, or not yet.  1, 0 or an error. */
static int enter_first(struct log_reader *r, struct shmq__why *why)
{
	int error = list(r);

	if (error)
		return shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
	if (!r->count)
		return 0;
	error = shmq__log_reader_seek(r, r->has_place ? r->oldest : r->first[0], why);
	return error ? error : 1;
}

int shmq__log_reader_plain(struct log_reader *r, uint64_t seq, struct log_record *head,
			   const char **body)
{
	if (unlikely(r->scan.next != seq || r->begins_with_a_gap || seq_diff(seq, r->oldest) < 0 ||
		     !log_scan_plain(&r->scan, head, body)))
		return 0;
	r->began_in_hole = 0;
	return 1;
}

int shmq__log_reader_next(struct log_reader *r, const uint64_t *limit, struct log_record *head,
			  const char **body, struct shmq__why *why)
{
	int rc = r->scan.seg.fd < 0 ? enter_first(r, why) : 1;

	if (rc < 0)
		return rc;
	if (limit && (!r->has_place || seq_diff(shmq__log_reader_seq(r), *limit) >= 0))
		return 0;
	while (rc == 1) {
		rc = next_record(r, head, body, why);
		if (seq_diff(r->scan.next, r->oldest) > 0)
			break;
	}
	if (rc == 1 && head->kind != LOG_MESSAGE)
		trim(r, head);
	else if (rc == 1)
		r->began_in_hole = 0;
	return rc;
}

/* ---- seeking --------------------------------------------------------- */

int shmq__log_reader_seek(struct log_reader *r, uint64_t seq, struct shmq__why *why)
{
	unsigned at;
	int error;

	r->has_place = 1;
	r->begins_with_a_gap = 0;
	do {
		error = list(r);
		if (error)
			return shmq__fail(why, error, "listing the segments: %s",
					  shmq_strerror(error));
		r->oldest = seq;
		if (!r->count) {
			shmq__log_segment_close(&r->scan.seg);
			r->scan.next = seq;
			return 0;
		}
		at = find(r, seq);
		/* What lies before the log is not missing from it. */
		if (seq_diff(r->first[at], seq) > 0)
			r->oldest = r->first[at];
		error = enter_near(r, at, why);
	} while (error == -ENOENT); /* removed since it was listed */
	if (error)
		return error;
	r->begins_with_a_gap = seq_diff(r->scan.next, r->oldest) > 0;
	if (!r->begins_with_a_gap)
		start_at(r, LOG_BY_SEQ, r->oldest);
	return 0;
}

/* The last segment before which all is older, or an earlier one. */
static unsigned find_time(const struct log_reader *r, uint64_t ts, struct shmq__why *why)
{
	unsigned low = 0, high = r->count, mid;
	struct log_segment seg;
	int is_before;

	while (high - low > 1) {
		mid = low + (high - low) / 2;
		is_before = !open_at(r, mid, &seg, why);
		if (is_before) {
			is_before = seg.base_ts < ts;
			shmq__log_segment_close(&seg);
		}
		if (is_before)
			low = mid;
		else
			high = mid;
	}
	return low;
}

int shmq__log_reader_seek_time(struct log_reader *r, uint64_t ts, struct shmq__why *why)
{
	struct log_record head;
	const char *body;
	uint64_t seq;
	unsigned at;
	int error, rc;

	r->begins_with_a_gap = 0;
	do {
		error = list(r);
		if (error)
			return shmq__fail(why, error, "listing the segments: %s",
					  shmq_strerror(error));
		if (!r->count) {
			shmq__log_segment_close(&r->scan.seg);
			r->has_place = 0;
			return 0;
		}
		at = find_time(r, ts, why);
		error = enter_near(r, at, why);
	} while (error == -ENOENT);
	if (error)
		return error;
	/* Behind the last message that is older: in what is missing there may
	 * have been one that is not. */
	seq = r->first[at];
	if (seq_diff(r->scan.next, seq) <= 0) {
		start_at(r, LOG_BY_TIME, ts);
		seq = r->scan.next;
	}
	r->oldest = seq;
	while ((rc = next_record(r, &head, &body, why)) == 1) {
		if (head.kind != LOG_MESSAGE)
			continue;
		if (head.ts >= ts)
			break;
		seq = r->scan.next;
	}
	/* Where it goes on with what is no record next() will say so. */
	if (rc < 0 && rc != SHMQ_ECORRUPT)
		return rc;
	return shmq__log_reader_seek(r, seq, why);
}

/* ---- what a record holds --------------------------------------------- */

int shmq__log_decode(const struct log_record *head, const char *body, struct shmq_msg *msg,
		     struct lay_batch *batch)
{
	uint64_t left = head->body_bytes, names;
	struct lay_meta meta;

	msg->seq = head->seq;
	msg->ts_ns = head->ts;
	msg->tag = head->tag;
	msg->type = head->type;
	msg->flags = head->flags;
	msg->key = msg->properties = NULL;
	msg->key_len = msg->properties_len = 0;
	if (head->flags & SHMQ_MSG_BATCH) {
		if (left < sizeof(*batch))
			return SHMQ_ECORRUPT;
		memcpy(batch, body, sizeof(*batch));
		body += sizeof(*batch);
		left -= sizeof(*batch);
		if (batch->index >= batch->count)
			return SHMQ_ECORRUPT;
	}
	if (head->flags & SHMQ_MSG_META) {
		if (left < sizeof(meta))
			return SHMQ_ECORRUPT;
		memcpy(&meta, body, sizeof(meta));
		names = sizeof(meta) + meta.key_bytes + meta.properties_bytes;
		if (left < names)
			return SHMQ_ECORRUPT;
		msg->key = body + sizeof(meta);
		msg->key_len = meta.key_bytes;
		msg->properties = body + sizeof(meta) + meta.key_bytes;
		msg->properties_len = meta.properties_bytes;
		body += names;
		left -= names;
	}
	msg->data = body;
	msg->len = left;
	return 0;
}
