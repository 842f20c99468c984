/* SPDX-License-Identifier: MIT */
#include "tail_rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "layout.h"
#include "log_index.h"
#include "tail_zip.h"

#define BUFFER_BYTES ((size_t)1 << 18)

struct pass {
	const struct tail_rewrite *r;
	struct log_scan scan;
	char name[LOG_NAME_BYTES], fresh[LOG_NAME_BYTES];
	int fd;
	struct tail_zip *zip; /* or, without: */
	char *buf;
	size_t used;
	uint64_t seed;
	uint64_t hole_seq, hole; /* what was dropped last, and is not written yet */
};

/* ---- the new file ---------------------------------------------------- */

static int put(struct pass *p, const void *data, size_t bytes)
{
	int error = 0;

	if (p->zip)
		return tail_zip_add(p->zip, data, bytes);
	if (p->used + bytes > BUFFER_BYTES) {
		error = shmq__log_write(p->fd, p->buf, p->used);
		p->used = 0;
	}
	if (error || bytes > BUFFER_BYTES)
		return error ? error : shmq__log_write(p->fd, data, bytes);
	memcpy(p->buf + p->used, data, bytes);
	p->used += bytes;
	return 0;
}

static int put_header(struct pass *p)
{
	struct log_segment_header h;
	ssize_t n = shmq__log_segment_read(&p->scan.seg, &h, sizeof(h), 0);

	if (n != (ssize_t)sizeof(h))
		return n < 0 ? (int)n : SHMQ_ECORRUPT;
	if (p->r->edit) {
		if (getrandom(&h.seed, sizeof(h.seed), 0) != (ssize_t)sizeof(h.seed))
			return -EIO;
		h.checksum = 0;
		h.checksum = shmq__log_sum(0, &h, sizeof(h));
	}
	p->seed = h.seed;
	return put(p, &h, sizeof(h));
}

static int put_record(struct pass *p, struct log_record head, const char *body)
{
	static const char zeros[LOG_ALIGN];
	struct iovec piece = { (void *)(uintptr_t)body, head.body_bytes };
	int error;

	head.checksum = shmq__log_record_sum(p->seed, &head, &piece, head.body_bytes ? 1 : 0);
	error = put(p, &head, sizeof(head));
	if (!error && body)
		error = put(p, body, head.body_bytes);
	return error ? error : put(p, zeros, -(size_t)head.body_bytes % LOG_ALIGN);
}

static int put_hole(struct pass *p)
{
	struct log_record head = {
		.seq = p->hole_seq, .tag = p->hole, .flags = LOG_HOLE_SUPERSEDED, .kind = LOG_HOLE
	};

	if (!p->hole)
		return 0;
	p->hole = 0;
	return put_record(p, head, NULL);
}

static int edit(struct pass *p, struct log_record *head, const char *body)
{
	enum tail_edit what = p->r->edit(p->r->arg, head, body);
	int error;

	/* One dropped earlier, which goes on. */
	if (what == TAIL_DROP || (head->kind == LOG_HOLE && head->flags == LOG_HOLE_SUPERSEDED)) {
		if (!p->hole)
			p->hole_seq = head->seq;
		p->hole += log_record_count(head);
		return 0;
	}
	error = put_hole(p);
	if (error)
		return error;
	if (what == TAIL_UNBATCH) {
		head->flags &= (uint16_t)~SHMQ_MSG_BATCH;
		head->body_bytes -= (uint32_t)sizeof(struct lay_batch);
		body += sizeof(struct lay_batch);
	}
	return put_record(p, *head, body);
}

/* Of one segment; *end is its END.  Only what is whole up to that is written anew. */
static int copy_records(struct pass *p, struct log_record *end)
{
	struct log_record head;
	uint64_t turn = TAIL_TURN_BYTES;
	const char *body;
	int rc, error = 0;

	while (!error && (rc = shmq__log_scan_next(&p->scan, &head, &body)) == 1) {
		error = p->r->edit ? edit(p, &head, body) :
				     put(p, body - sizeof(head), log_record_bytes(head.body_bytes));
		if (!error && log_scan_off(&p->scan) >= turn) {
			error = p->r->turn.give(p->r->turn.arg, &p->r->first_seq);
			turn = log_scan_off(&p->scan) + TAIL_TURN_BYTES;
		}
	}
	if (error || rc < 0)
		return error ? error : rc;
	*end = head;
	return head.kind == LOG_END ? 0 : SHMQ_ECORRUPT;
}

static int go_on(struct pass *p, uint64_t first_seq, struct shmq__why *why)
{
	struct log_segment seg;
	int error;

	if (first_seq != p->scan.next)
		return SHMQ_ECORRUPT;
	error = shmq__log_segment_open(p->r->dir, first_seq, p->r->owner, &seg, why);
	if (!error)
		shmq__log_scan_start(&p->scan, &seg, LOG_BLOCK, first_seq);
	return error;
}

static int copy(struct pass *p, struct shmq__why *why)
{
	struct log_record end;
	unsigned i;
	int error = put_header(p);

	if (!error)
		error = copy_records(p, &end);
	for (i = 0; !error && i < p->r->more_count; i++) {
		error = go_on(p, p->r->more[i], why);
		if (!error)
			error = copy_records(p, &end);
	}
	if (!error)
		error = put_hole(p);
	if (!error)
		error = put_record(p, end, NULL);
	if (error)
		return error;
	error = p->zip ? tail_zip_end(p->zip) : shmq__log_write(p->fd, p->buf, p->used);
	return error ? error : fsync(p->fd) ? -errno : 0;
}

/* ---- taking its place ------------------------------------------------ */

/* Its seed is another one, so what the index of the old one says does not count; the
 * new one does not for the old. */
static int make_index(const struct pass *p, struct shmq__why *why)
{
	struct log_segment seg;
	int error = shmq__log_segment_open_file(p->r->dir, p->fresh, p->r->first_seq, p->r->owner,
						&seg, why);

	return error ? error : shmq__log_index_rebuild(p->r->dir, &seg);
}

int tail_remove(int dir, uint64_t first_seq)
{
	static const char *const suffixes[] = { "idx", "zst", "log" };
	char name[LOG_NAME_BYTES];
	int error = 0;
	size_t i;

	/* The index first: alone it is harmless, and it is never alone. */
	for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		shmq__log_name(first_seq, suffixes[i], name);
		if (unlinkat(dir, name, 0) && errno != ENOENT)
			error = -errno;
	}
	/* Before the next is removed: if that alone were gone after a loss of power, readers
	 * would miss it. */
	return error ? error : fsync(dir) ? -errno : 0;
}

static int replace(const struct pass *p)
{
	char plain[LOG_NAME_BYTES];
	unsigned i;
	int error;

	if (renameat(p->r->dir, p->fresh, p->r->dir, p->name) || fsync(p->r->dir))
		return -errno;
	if (p->zip) {
		shmq__log_name(p->r->first_seq, "log", plain);
		/* Where both are there the other one counts, which ends earlier. */
		if ((unlinkat(p->r->dir, plain, 0) && errno != ENOENT) || fsync(p->r->dir))
			return -errno;
	}
	for (i = 0; i < p->r->more_count; i++) {
		error = tail_remove(p->r->dir, p->r->more[i]);
		if (error)
			return error;
	}
	return 0;
}

static int run(struct pass *p, struct shmq__why *why)
{
	const struct tail_rewrite *r = p->r;
	struct log_segment seg;
	int error = shmq__log_segment_open(r->dir, r->first_seq, r->owner, &seg, why);

	if (error)
		return error;
	shmq__log_scan_start(&p->scan, &seg, LOG_BLOCK, seg.first_seq);
	p->fd = openat(r->dir, p->fresh,
		       O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (p->fd < 0)
		return -errno;
	p->buf = r->level ? NULL : malloc(BUFFER_BYTES);
	error = r->level ? tail_zip_create(p->fd, r->level, &p->zip) : p->buf ? 0 : -ENOMEM;
	if (!error)
		error = copy(p, why);
	if (!error && r->edit)
		error = make_index(p, why);
	if (!error)
		error = replace(p);
	if (error)
		unlinkat(r->dir, p->fresh, 0);
	return error;
}

int tail_rewrite(const struct tail_rewrite *r, struct shmq__why *why)
{
	struct pass p = { .r = r, .fd = -1 };
	int error = shmq__log_scan_init(&p.scan);

	why->text[0] = 0;
	shmq__log_name(r->first_seq, r->level ? "zst" : "log", p.name);
	shmq__log_name(r->first_seq, r->level ? "zst.new" : "log.new", p.fresh);
	if (!error)
		error = run(&p, why);
	if (error && !*why->text)
		shmq__fail(why, error, "%s: %s", p.fresh, shmq_strerror(error));
	tail_zip_destroy(p.zip);
	free(p.buf);
	if (p.fd >= 0)
		close(p.fd);
	shmq__log_scan_fini(&p.scan);
	return error;
}
