/* SPDX-License-Identifier: MIT */
#include "log_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomics.h"

#define ENTRIES 4096u /* that are read and written at a time */

static uint32_t sum_of(const struct log_segment *s, const struct log_index_entry *e)
{
	return shmq__log_sum(s->seed, e, offsetof(struct log_index_entry, checksum));
}

/* ---- checking -------------------------------------------------------- */

static int check_header(int fd, const struct log_segment *s)
{
	struct log_index_header h;

	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.magic != LOG_MAGIC_INDEX ||
	    h.version != LOG_VERSION || h.entry_bytes != sizeof(struct log_index_entry) ||
	    h.seed != s->seed || h.first_seq != s->first_seq)
		return SHMQ_ECORRUPT;
	return 0;
}

static int follows(const struct log_segment *s, const struct log_index_entry *e,
		   const struct log_index_entry *last)
{
	return e->checksum == sum_of(s, e) && seq_diff(e->seq, last->seq) >= 0 &&
	       e->max_ts >= last->max_ts && e->off > last->off;
}

static int check_entries(int fd, const struct log_segment *s, struct log_index_entry *buf,
			 struct log_index_entry *last)
{
	off_t off = sizeof(struct log_index_header);
	ssize_t n, i;

	for (;;) {
		n = pread(fd, buf, ENTRIES * sizeof(*buf), off);
		if (n < 0)
			return -errno;
		if (n % (ssize_t)sizeof(*buf))
			return SHMQ_ECORRUPT;
		if (!n)
			return 0;
		off += n;
		n /= (ssize_t)sizeof(*buf);
		for (i = 0; i < n; i++) {
			if (!follows(s, &buf[i], last))
				return SHMQ_ECORRUPT;
			*last = buf[i];
		}
	}
}

/* A writer keeps some entries back: not before so much of the segment lies behind
 * the last one is the index not as it should be.  A record may be larger. */
#define BEHIND_BYTES (512 * (uint64_t)LOG_INDEX_BYTES)

static int reaches_end(const struct log_segment *s, const struct log_index_entry *last)
{
	struct log_record head;
	uint64_t off = last->off, bytes = 0;
	int64_t size = shmq__log_segment_bytes(s);

	if (size < 0)
		return 1;
	while (off - last->off <= BEHIND_BYTES + bytes) {
		if (off + sizeof(head) > (uint64_t)size ||
		    shmq__log_segment_read(s, &head, sizeof(head), off) != (ssize_t)sizeof(head) ||
		    (head.kind != LOG_MESSAGE && head.kind != LOG_HOLE && head.kind != LOG_GAP))
			return 1;
		bytes = log_record_bytes(head.body_bytes);
		off += bytes;
	}
	return 0;
}

int shmq__log_index_check(int dir, const struct log_segment *s)
{
	struct log_index_entry *buf, last = { .seq = s->first_seq, .max_ts = s->base_ts };
	char name[LOG_NAME_BYTES];
	int fd, error;

	shmq__log_name(s->first_seq, "idx", name);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? SHMQ_EEMPTY : errno == ELOOP ? SHMQ_ECORRUPT : -errno;
	buf = malloc(ENTRIES * sizeof(*buf));
	error = buf ? check_header(fd, s) : -ENOMEM;
	if (!error)
		error = check_entries(fd, s, buf, &last);
	if (!error && !last.off)
		last.off = LOG_BLOCK;
	if (!error && !reaches_end(s, &last))
		error = SHMQ_ECORRUPT;
	free(buf);
	close(fd);
	return error;
}

/* ---- making ---------------------------------------------------------- */

static int write_entries(FILE *to, struct log_scan *scan)
{
	struct log_index_entry e = { .max_ts = scan->seg.base_ts };
	uint64_t next_off = 0;
	struct log_record head;
	const char *body;
	int rc;

	for (;;) {
		e.off = log_scan_off(scan);
		e.seq = scan->next;
		rc = shmq__log_scan_next(scan, &head, &body);
		if (rc != 1)
			return rc == SHMQ_ECORRUPT ? 0 : rc;
		if (e.off >= next_off) {
			e.checksum = sum_of(&scan->seg, &e);
			if (fwrite(&e, sizeof(e), 1, to) != 1)
				return -errno;
			next_off = e.off + LOG_INDEX_BYTES;
		}
		if (head.kind == LOG_MESSAGE && head.ts > e.max_ts)
			e.max_ts = head.ts;
	}
}

static int write_index(int fd, struct log_scan *scan)
{
	struct log_index_header h = { .magic = LOG_MAGIC_INDEX,
				      .version = LOG_VERSION,
				      .entry_bytes = sizeof(struct log_index_entry),
				      .seed = scan->seg.seed,
				      .first_seq = scan->seg.first_seq };
	FILE *to = fdopen(fd, "w");
	int error;

	if (!to) {
		error = -errno;
		close(fd);
		return error;
	}
	error = fwrite(&h, sizeof(h), 1, to) == 1 ? write_entries(to, scan) : -errno;
	if (!error && (fflush(to) || fdatasync(fd)))
		error = -errno;
	if (fclose(to) && !error)
		error = -errno;
	return error;
}

int shmq__log_index_rebuild(int dir, struct log_segment *s)
{
	char name[LOG_NAME_BYTES], fresh[LOG_NAME_BYTES];
	struct log_scan scan;
	int fd, error = shmq__log_scan_init(&scan);

	if (error) {
		shmq__log_segment_close(s);
		return error;
	}
	shmq__log_scan_start(&scan, s, LOG_BLOCK, s->first_seq);
	s->fd = -1; /* whose it was closes it no more */
	s->zip = NULL;
	shmq__log_name(s->first_seq, "idx", name);
	shmq__log_name(s->first_seq, "idx.new", fresh);
	fd = openat(dir, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		    0600);
	if (fd >= 0)
		shmq__log_give(dir, fd);
	error = fd < 0 ? -errno : write_index(fd, &scan);
	if (!error && renameat(dir, fresh, dir, name))
		error = -errno;
	if (error && fd >= 0)
		unlinkat(dir, fresh, 0);
	shmq__log_scan_fini(&scan);
	return error;
}
