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
	int has_id;
	uint8_t log_id[16];
	uint64_t *first; /* of all segments, in order */
	unsigned count;
	struct log_scan scan; /* at no segment: scan.seg.fd is -1 */
	uint64_t oldest;      /* from there on records are handed out */
};

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
	return 0;
}

/* Stand at the beginning of the segment that begins with `first`. */
static int enter(struct log_reader *r, uint64_t first, struct shmq__why *why)
{
	struct log_segment seg;
	int error = shmq__log_segment_open(r->dir, first, r->has_id ? r->log_id : NULL, &seg, why);

	if (error)
		return error;
	/* All segments of a log are of one log. */
	memcpy(r->log_id, seg.log_id, sizeof(r->log_id));
	r->has_id = 1;
	shmq__log_scan_start(&r->scan, &seg, LOG_BLOCK, first);
	posix_fadvise(seg.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

int shmq__log_reader_open(int dir, const uint8_t *log_id, struct log_reader **out,
			  struct shmq__why *why)
{
	struct log_reader *r = calloc(1, sizeof(*r));
	int error = r ? shmq__log_scan_init(&r->scan) : -ENOMEM;

	*out = NULL;
	if (error) {
		free(r);
		return shmq__fail(why, error, "reading a log: %s", shmq_strerror(error));
	}
	if (log_id) {
		memcpy(r->log_id, log_id, sizeof(r->log_id));
		r->has_id = 1;
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
	return seq_diff(r->oldest, r->scan.next) > 0 ? r->oldest : r->scan.next;
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

/* Enter the first segment from `at` on that is one; what retention has just
 * removed, or what is damaged, is not.  0, SHMQ_EEMPTY, or what went wrong. */
static int enter_from(struct log_reader *r, unsigned at, struct shmq__why *why)
{
	int error;

	for (; at < r->count; at++) {
		error = enter(r, r->first[at], why);
		if (error != -ENOENT && error != SHMQ_ECORRUPT)
			return error;
	}
	return SHMQ_EEMPTY;
}

/* Go on in the segment after this one, whatever is left of this one.  1 with a
 * gap if seqs are missing in between, 0 if none is, SHMQ_EEMPTY: there is no
 * later one. */
static int enter_next(struct log_reader *r, struct log_record *head, struct shmq__why *why)
{
	uint64_t next = r->scan.next, begin;
	unsigned at = 0;
	int error = list(r);

	if (error)
		return shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
	while (at < r->count && seq_diff(r->first[at], r->scan.seg.first_seq) <= 0)
		at++;
	error = enter_from(r, at, why);
	if (error)
		return error;
	begin = r->scan.next;
	if (seq_diff(begin, next) <= 0) {
		r->oldest = next; /* what both have is handed out once */
		return 0;
	}
	r->scan.next = next;
	return make_gap(r, begin, head);
}

/* No record at the cursor.  Where does the index, or the next segment, lead
 * past it?  As enter_next(). */
static int pass_damage(struct log_reader *r, struct log_record *head, struct shmq__why *why)
{
	uint64_t next = r->scan.next, off = log_scan_off(&r->scan);
	struct log_segment seg = r->scan.seg;
	struct log_index_entry e;
	struct log_record record;
	const char *body;

	for (e.off = off; !shmq__log_index_after(r->dir, &seg, e.off, &e);) {
		if (seq_diff(e.seq, next) <= 0)
			continue;
		r->scan.from = e.off;
		r->scan.pos = r->scan.have = 0;
		r->scan.next = e.seq;
		if (shmq__log_scan_next(&r->scan, &record, &body) != 1)
			continue;
		r->scan.from = e.off;
		r->scan.pos = r->scan.have = 0;
		r->scan.next = next;
		return make_gap(r, e.seq, head);
	}
	r->scan.from = off;
	r->scan.pos = r->scan.have = 0;
	r->scan.next = next;
	return enter_next(r, head, why);
}

/* ---- going on -------------------------------------------------------- */

static int next_record(struct log_reader *r, struct log_record *head, const char **body,
		       struct shmq__why *why)
{
	char name[LOG_NAME_BYTES];
	int rc, passed;

	for (;;) {
		rc = shmq__log_scan_next(&r->scan, head, body);
		if (rc == 1 || (rc < 0 && rc != SHMQ_ECORRUPT))
			break;
		passed = rc ? pass_damage(r, head, why) : enter_next(r, head, why);
		if (passed == 1)
			*body = NULL;
		if (passed == SHMQ_EEMPTY)
			break;
		if (passed)
			return passed;
	}
	if (rc >= 0)
		return rc;
	shmq__log_name(r->scan.seg.first_seq, "log", name);
	if (rc == SHMQ_ECORRUPT)
		return shmq__fail(why, rc,
				  "%s is damaged at offset %" PRIu64 ", where seq %" PRIu64
				  " should be",
				  name, log_scan_off(&r->scan), r->scan.next);
	return shmq__fail(why, rc, "reading %s: %s", name, shmq_strerror(rc));
}

/* A gap or hole that reaches across the place that was asked for. */
static void trim(const struct log_reader *r, struct log_record *head)
{
	int64_t before = seq_diff(r->oldest, head->seq);

	if (before <= 0)
		return;
	head->seq += (uint64_t)before;
	head->tag -= (uint64_t)before;
}

int shmq__log_reader_next(struct log_reader *r, const uint64_t *limit, struct log_record *head,
			  const char **body, struct shmq__why *why)
{
	int rc;

	if (r->scan.seg.fd < 0) {
		rc = list(r);
		if (!rc && !r->count)
			return 0;
		rc = rc ? shmq__fail(why, rc, "listing the segments: %s", shmq_strerror(rc)) :
			  shmq__log_reader_seek(r, r->oldest, why);
		if (rc)
			return rc;
	}
	do {
		if (limit && seq_diff(r->scan.next, *limit) >= 0)
			return 0;
		rc = next_record(r, head, body, why);
	} while (rc == 1 && seq_diff(r->scan.next, r->oldest) <= 0);
	if (rc == 1 && head->kind != LOG_MESSAGE)
		trim(r, head);
	return rc;
}

/* ---- seeking --------------------------------------------------------- */

/* Stand at a place of the index in the segment that was entered. */
static void start_at(struct log_reader *r, enum log_by by, uint64_t target)
{
	struct log_index_entry e;

	shmq__log_index_find(r->dir, &r->scan.seg, by, target, &e);
	r->scan.from = e.off;
	r->scan.pos = r->scan.have = 0;
	r->scan.next = e.seq;
}

int shmq__log_reader_seek(struct log_reader *r, uint64_t seq, struct shmq__why *why)
{
	unsigned at;
	int error;

	error = list(r);
	if (error)
		return shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
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
	do
		error = enter(r, r->first[at], why);
	while ((error == -ENOENT || error == SHMQ_ECORRUPT) && at--);
	if (error == -ENOENT || error == SHMQ_ECORRUPT) {
		error = enter_from(r, 0, why);
		r->oldest = r->scan.next;
	}
	if (error)
		return error;
	start_at(r, LOG_BY_SEQ, r->oldest);
	return 0;
}

int shmq__log_reader_seek_time(struct log_reader *r, uint64_t ts, struct shmq__why *why)
{
	unsigned low = 0, high, mid;
	struct log_record head;
	const char *body;
	uint64_t seq;
	int error = list(r), rc;

	if (error)
		return shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
	if (!r->count)
		return shmq__log_reader_seek(r, r->oldest, why);
	/* The last segment before which all is older. */
	for (high = r->count; high - low > 1;) {
		mid = low + (high - low) / 2;
		error = enter(r, r->first[mid], why);
		if (!error && r->scan.seg.base_ts < ts)
			low = mid;
		else
			high = mid;
	}
	r->oldest = r->first[low];
	error = enter(r, r->first[low], why);
	if (error)
		return error;
	start_at(r, LOG_BY_TIME, ts);
	do {
		seq = r->scan.next;
		rc = next_record(r, &head, &body, why);
		if (rc < 0)
			return rc;
	} while (rc == 1 && (head.kind != LOG_MESSAGE || head.ts < ts));
	return shmq__log_reader_seek(r, rc ? seq : r->scan.next, why);
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
