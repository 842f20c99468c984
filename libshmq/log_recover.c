/* SPDX-License-Identifier: MIT */
#include "log_recover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "layout.h"
#include "log_batch.h"
#include "log_reader.h"

#define COPY_BYTES ((size_t)1 << 20)
#define PAGE_BYTES ((size_t)1 << 16) /* the largest there are */

struct recovery {
	int dir;
	const struct log_owner *owner;
	uint64_t depth;
	int is_unjudged; /* batches that began before the last segment */
	struct log_state *out;
	shmq__log_found *found;
	void *arg;
	struct log_scan scan;
	char *copy;
};

static void say(const struct recovery *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void say(const struct recovery *r, const char *format, ...)
{
	char line[SHMQ_WHY_BYTES];
	va_list ap;

	if (!r->found)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	r->found(r->arg, line);
}

/* ---- setting aside --------------------------------------------------- */

static int open_cut(const struct recovery *r)
{
	int fd = mkdirat(r->dir, "cut", 0700) && errno != EEXIST ?
			 -1 :
			 openat(r->dir, "cut", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0) {
		int error = -errno;

		say(r, "the directory cut, for what is cut off, is not to be had: %s",
		    shmq_strerror(error));
		return error;
	}
	shmq__log_give(r->dir, fd);
	return fd;
}

/* A name in cut/ that is not taken. */
static int new_cut(int cut, const char *name, char path[64])
{
	unsigned i;
	int fd;

	for (i = 0;; i++) {
		snprintf(path, 64, "%.48s.%u", name, i);
		fd = openat(cut, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0)
			shmq__log_give(cut, fd);
		if (fd >= 0 || errno != EEXIST)
			return fd < 0 ? -errno : fd;
	}
}

/* A whole file, or whatever it is, that is not ours to go on with. */
static int set_aside(const struct recovery *r, const char *name)
{
	int cut = open_cut(r), error = cut < 0 ? cut : -EEXIST;
	char path[64];
	unsigned i;

	for (i = 0; error == -EEXIST; i++) {
		snprintf(path, sizeof(path), "%.48s.%u", name, i);
		error = renameat2(r->dir, name, cut, path, RENAME_NOREPLACE) ? -errno : 0;
	}
	if (!error && (fsync(cut) || fsync(r->dir)))
		error = -errno;
	if (cut >= 0)
		close(cut);
	if (!error)
		say(r, "%s was moved to cut/%s", name, path);
	return error;
}

static int copy_range(struct recovery *r, int from, uint64_t off, uint64_t end, int to)
{
	ssize_t n;
	int error;

	while (off < end) {
		n = pread(from, r->copy, end - off < COPY_BYTES ? end - off : COPY_BYTES,
			  (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		off += (uint64_t)n;
		error = shmq__log_write(to, r->copy, (size_t)n);
		if (error)
			return error;
	}
	return fsync(to) ? -errno : 0;
}

/* ---- the end of a segment -------------------------------------------- */

/* Just behind the last byte at or after `off` that is not 0, or off. */
static int find_end(struct recovery *r, int fd, uint64_t off, uint64_t *end)
{
	uint64_t at = off;
	ssize_t n, i;
	off_t data;

	*end = off;
	/* What was only reserved need not be read.  But pages of it that were read pass for
	 * data: so nothing is read ahead, nor a part of a page, whose rest would be next; and
	 * what others had read ahead, which goes on where we come to it, is dropped. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (;;) {
		posix_fadvise(fd, (off_t)at, 0, POSIX_FADV_DONTNEED);
		data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		at = (uint64_t)data;
		n = pread(fd, r->copy, COPY_BYTES - at % PAGE_BYTES, data);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		for (i = n; i && !r->copy[i - 1];)
			i--;
		if (i)
			*end = at + (uint64_t)i;
		at += (uint64_t)n;
	}
}

static int truncate_at(const struct recovery *r, const char *name, uint64_t off)
{
	int fd = openat(r->dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), error = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)off) || fdatasync(fd))
		error = -errno;
	close(fd);
	return error;
}

/* Everything from `off` on goes; what is not zero is kept in cut/. */
static int cut_at(struct recovery *r, const struct log_segment *seg, uint64_t off)
{
	char name[LOG_NAME_BYTES], kept[64], path[64];
	uint64_t end;
	int cut, fd, error = find_end(r, seg->fd, off, &end);

	shmq__log_name(seg->first_seq, "log", name);
	if (!error && end > off) {
		cut = open_cut(r);
		snprintf(kept, sizeof(kept), "%.24s-%" PRIu64, name, off);
		fd = cut < 0 ? cut : new_cut(cut, kept, path);
		error = fd < 0 ? fd : copy_range(r, seg->fd, off, end, fd);
		if (fd >= 0)
			close(fd);
		if (!error && (fsync(cut) || fsync(r->dir)))
			error = -errno;
		if (cut >= 0)
			close(cut);
		if (error)
			return error;
		r->out->cut_bytes += end - off;
		say(r,
		    "%s: no good record at offset %" PRIu64 ", %" PRIu64
		    " bytes from there on were moved to cut/%s",
		    name, off, end - off, path);
	}
	if (!error)
		error = truncate_at(r, name, off);
	return error ? error : shmq__log_index_cut(r->dir, seg, off);
}

/* ---- atomic batches -------------------------------------------------- */

/* What is open, and where the log goes on without it. */
struct open_batches {
	struct log_batches batches;
	uint64_t off;    /* of the first member of the first */
	uint64_t max_ts; /* before it */
};

/* A batch that began where it was not read, or of which a gap told that a part
 * is missing, is not judged. */
static void note_record(const struct recovery *r, struct open_batches *o,
			const struct log_record *head, const char *body, uint64_t off,
			uint64_t max_ts)
{
	log_batches_expire(&o->batches, head->seq, r->depth);
	if (!o->batches.count) {
		o->off = off;
		o->max_ts = max_ts;
	}
	log_batches_pass(&o->batches, r->depth, head, body);
}

/* Those that are open where the segment that begins with `seq` does.  All of one
 * is within a ring, so no more than that has to be read. */
static int judge_before(struct recovery *r, uint64_t seq, struct open_batches *o,
			struct shmq__why *why)
{
	struct log_reader *reader;
	struct log_record head;
	const char *body;
	int rc = shmq__log_reader_open(r->dir, r->owner, &reader, why);

	if (!rc)
		rc = shmq__log_reader_seek(reader, seq - r->depth, why);
	while (!rc && (rc = shmq__log_reader_next(reader, &seq, &head, &body, why)) == 1) {
		note_record(r, o, &head, body, 0, 0);
		rc = 0;
	}
	shmq__log_reader_close(reader);
	/* Of what is damaged nobody can tell, and readers are told. */
	if (rc == SHMQ_ECORRUPT)
		log_batches_clear(&o->batches);
	return rc == SHMQ_ECORRUPT ? 0 : rc;
}

/* ---- the last segment ------------------------------------------------ */

/* Go through the segment; out tells where its good part ends, *open what batches
 * are open there. */
static int read_segment(struct recovery *r, const struct log_segment *seg,
			struct open_batches *open)
{
	struct log_state *out = r->out;
	struct log_record head;
	const char *body;
	uint64_t off = LOG_BLOCK;
	int rc;

	shmq__log_scan_start(&r->scan, seg, off, seg->first_seq);
	out->max_ts = seg->base_ts;
	while ((rc = shmq__log_scan_next(&r->scan, &head, &body)) == 1) {
		note_record(r, open, &head, body, off, out->max_ts);
		if (head.kind == LOG_MESSAGE && head.ts > out->max_ts)
			out->max_ts = head.ts;
		off = log_scan_off(&r->scan);
	}
	log_batches_expire(&open->batches, r->scan.next, r->depth);
	out->off = off;
	out->next = r->scan.next;
	out->has_segment = 1;
	out->has_next = 1;
	out->first_seq = seg->first_seq;
	out->seed = seg->seed;
	if (rc < 0 && rc != SHMQ_ECORRUPT)
		return rc;
	/* Complete, and the next one was not begun yet. */
	if (rc == 0 && head.kind == LOG_END) {
		out->has_segment = 0;
		out->off += log_record_bytes(0);
	}
	return 0;
}

/* Find the record `seq` of the segment: the place of it, and the time before it,
 * are where the log goes on.  0, or SHMQ_ECORRUPT: none begins there. */
static int find_record(struct recovery *r, const struct log_segment *seg, uint64_t seq)
{
	uint64_t from = seq;
	struct log_index_entry e;
	struct log_record head;
	const char *body;
	int rc = 1;

	shmq__log_scan_start(&r->scan, seg, LOG_BLOCK, seg->first_seq);
	do {
		shmq__log_index_find(r->dir, seg, LOG_BY_SEQ, from, &e);
		shmq__log_scan_move(&r->scan, e.off, e.seq);
		from = e.seq - 1;
	} while (e.off > LOG_BLOCK && shmq__log_scan_peek(&r->scan) != 1);
	while (rc == 1 && seq_diff(r->scan.next, seq) < 0) {
		rc = shmq__log_scan_next(&r->scan, &head, &body);
		if (rc == 1 && head.kind == LOG_MESSAGE && head.ts > e.max_ts)
			e.max_ts = head.ts;
	}
	if (rc < 0 || r->scan.next != seq)
		return rc < 0 ? rc : SHMQ_ECORRUPT;
	r->out->has_segment = 1;
	r->out->first_seq = seg->first_seq;
	r->out->seed = seg->seed;
	r->out->off = log_scan_off(&r->scan);
	r->out->next = seq;
	r->out->max_ts = e.max_ts;
	return 0;
}

/* Of a compressed segment, what is before `off` becomes a plain one that can be
 * gone on with; the whole goes to cut/. */
static int unzip_before(struct recovery *r, const struct log_segment *seg, uint64_t off)
{
	char name[LOG_NAME_BYTES], made[LOG_NAME_BYTES], zip[LOG_NAME_BYTES];
	uint64_t at = 0;
	ssize_t n;
	int fd, error = 0;

	shmq__log_name(seg->first_seq, "log", name);
	shmq__log_name(seg->first_seq, "log.new", made);
	shmq__log_name(seg->first_seq, "zst", zip);
	fd = openat(r->dir, made,
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	shmq__log_give(r->dir, fd);
	while (!error && at < off) {
		n = shmq__log_segment_read(seg, r->copy,
					   off - at < COPY_BYTES ? off - at : COPY_BYTES, at);
		error = n > 0 ? shmq__log_write(fd, r->copy, (size_t)n) :
			n     ? (int)n :
				SHMQ_ECORRUPT;
		at += n > 0 ? (uint64_t)n : 0;
	}
	if (!error && (fsync(fd) || renameat(r->dir, made, r->dir, name)))
		error = -errno;
	close(fd);
	if (error)
		return error;
	r->out->cut_bytes += shmq__log_zip_bytes(seg->zip) - off;
	error = set_aside(r, zip);
	return error ? error : shmq__log_index_cut(r->dir, seg, off);
}

/* A batch that is not whole began with `seq`, before the last of these segments
 * or in it although that is complete: all from there on goes to cut/, the last
 * first, so that an end in between leaves what can be judged again. */
static int cut_before(struct recovery *r, const uint64_t *first, unsigned count, uint64_t seq,
		      struct shmq__why *why)
{
	char name[LOG_NAME_BYTES];
	struct log_segment seg;
	struct stat st;
	unsigned at = count - 1;
	int error;

	while (at && seq_diff(first[at], seq) > 0)
		at--;
	error = shmq__log_segment_open(r->dir, first[at], r->owner, &seg, why);
	if (!error)
		error = find_record(r, &seg, seq); /* takes it over */
	if (error)
		return error;
	say(r, "the atomic batch from seq %" PRIu64 " on is not whole: the log ends before it",
	    seq);
	for (; !error && count - 1 > at; count--) {
		shmq__log_segment_name(r->dir, first[count - 1], name);
		if (!fstatat(r->dir, name, &st, AT_SYMLINK_NOFOLLOW))
			r->out->cut_bytes += (uint64_t)st.st_size;
		error = set_aside(r, name);
		shmq__log_name(first[count - 1], "idx", name);
		if (!error && unlinkat(r->dir, name, 0) && errno != ENOENT)
			error = -errno;
	}
	if (error)
		return error;
	return r->scan.seg.zip ? unzip_before(r, &r->scan.seg, r->out->off) :
				 cut_at(r, &r->scan.seg, r->out->off);
}

/* ---- half-made files --------------------------------------------------- */

static int ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n > m && !strcmp(name + n - m, end);
}

/* Something that was written beside what it is to replace, and is not whole. */
static int is_left_over(const char *name)
{
	return ends_in(name, ".log.new") || ends_in(name, ".zst.new") || ends_in(name, ".idx.new");
}

static int remove_left_over(const struct recovery *r, const char *name)
{
	if (!unlinkat(r->dir, name, 0))
		say(r, "%.40s was not finished, and was removed", name);
	else if (errno != EISDIR) /* no file of ours */
		return -errno;
	return 0;
}

/* How far a segment is one: not to its end, to that of the file, or to END.  Or
 * -errno, or SHMQ_EVERSION. */
enum wholeness { IS_DAMAGED, IS_RIGHT, IS_WHOLE };

static int how_whole(struct recovery *r, const char *name, uint64_t first_seq)
{
	struct log_record head;
	struct log_segment seg;
	struct shmq__why why;
	const char *body;
	int rc = shmq__log_segment_open_file(r->dir, name, first_seq, r->owner, &seg, &why);

	if (rc)
		return rc == SHMQ_ECORRUPT ? IS_DAMAGED : rc;
	shmq__log_scan_start(&r->scan, &seg, LOG_BLOCK, seg.first_seq);
	while ((rc = shmq__log_scan_next(&r->scan, &head, &body)) == 1)
		;
	if (rc)
		return rc == SHMQ_ECORRUPT ? IS_DAMAGED : rc;
	return head.kind == LOG_END ? IS_WHOLE : IS_RIGHT;
}

static int is_last(const struct recovery *r, uint64_t first_seq)
{
	uint64_t *first;
	unsigned count;
	int result =
		!shmq__log_list(r->dir, &first, &count) && count && first[count - 1] == first_seq;

	free(first);
	return result;
}

/* A segment is there plain and compressed.  What became of it by either way is whole in
 * both, or the plain one is what was left of it where the log was cut, and so the last.
 * A plain one that is anything else was spoilt since. */
static int judge_pair(struct recovery *r, uint64_t first_seq, const char *plain, const char *zip)
{
	int rc = how_whole(r, plain, first_seq), other;

	if (rc == IS_WHOLE)
		return remove_left_over(r, zip);
	if (rc == IS_RIGHT && is_last(r, first_seq))
		return set_aside(r, zip);
	other = rc < 0 ? rc : how_whole(r, zip, first_seq);
	if (other < 0)
		return other == SHMQ_EVERSION ? 0 : other;
	say(r, "%s is not whole, %s", plain,
	    other == IS_WHOLE ? "but is compressed beside it: that one counts" :
				"nor is it compressed beside it");
	return set_aside(r, other == IS_WHOLE ? plain : zip);
}

static int clean_up_name(struct recovery *r, const char *name)
{
	char plain[LOG_NAME_BYTES], zip[LOG_NAME_BYTES];
	uint64_t first_seq;

	if (is_left_over(name))
		return remove_left_over(r, name);
	if (!shmq__log_read_name(name, &first_seq) || !ends_in(name, ".zst"))
		return 0;
	shmq__log_name(first_seq, "log", plain);
	shmq__log_name(first_seq, "zst", zip);
	if (faccessat(r->dir, plain, F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	return judge_pair(r, first_seq, plain, zip);
}

/* What a crash left of making one file out of another. */
static int clean_up(struct recovery *r)
{
	int fd = openat(r->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		error = -errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	while (!error && (e = readdir(d)))
		error = clean_up_name(r, e->d_name);
	closedir(d);
	return error;
}

/* The last segment was read.  An atomic batch of which a part is missing is
 * none: no confirmation passed its first member.  1: look again. */
static int cut_last(struct recovery *r, const uint64_t *first, unsigned count,
		    const struct open_batches *open, struct shmq__why *why)
{
	struct log_state *out = r->out;
	uint64_t seq = open->batches.seq;
	int error, is_to_cut = open->batches.left &&
			       !log_batches_are_long(&open->batches, out->next, r->depth);

	if (is_to_cut &&
	    (!out->has_segment || r->scan.seg.zip || seq_diff(seq, out->first_seq) < 0)) {
		error = cut_before(r, first, count, seq, why);
		if (error && (error != SHMQ_ECORRUPT || r->is_unjudged))
			return error;
		/* Where it began cannot be found again: better it than all since. */
		r->is_unjudged |= error == SHMQ_ECORRUPT;
		return 1;
	}
	/* One that was compressed was complete, so only what came behind it can be
	 * missing.  What is damaged in it readers find. */
	if (r->scan.seg.zip) {
		out->has_segment = 0;
		return 0;
	}
	if (is_to_cut) {
		out->off = open->off;
		out->next = seq;
		out->max_ts = open->max_ts;
	}
	return cut_at(r, &r->scan.seg, out->off);
}

static int recover_last(struct recovery *r, uint64_t *first, unsigned count, struct shmq__why *why)
{
	struct open_batches open = { 0 };
	struct log_segment seg;
	char name[LOG_NAME_BYTES];
	int rc;

	for (; count; count--) {
		shmq__log_segment_name(r->dir, first[count - 1], name);
		rc = shmq__log_segment_open(r->dir, first[count - 1], r->owner, &seg, why);
		/* An older or newer shmq, or another machine, can read it. */
		if (rc && rc != SHMQ_ECORRUPT)
			return rc;
		if (!rc)
			break;
		say(r, "%s", why->text);
		rc = set_aside(r, name);
		if (rc)
			return shmq__fail(why, rc, "moving %s to cut/: %s", name,
					  shmq_strerror(rc));
	}
	if (!count)
		return 0;
	rc = count > 1 && !r->is_unjudged ? judge_before(r, seg.first_seq, &open, why) : 0;
	if (rc)
		shmq__log_segment_close(&seg);
	else
		rc = read_segment(r, &seg, &open); /* takes it over */
	if (!rc)
		rc = cut_last(r, first, count, &open, why);
	return rc < 0 ? shmq__fail(why, rc, "recovering %s: %s", name, shmq_strerror(rc)) : rc;
}

/* No record is there, or not so far as somebody may have seen. */
static int heed_ceiling(struct recovery *r, struct shmq__why *why)
{
	struct log_state *out = r->out;
	struct log_ceiling c;
	int error = shmq__log_ceiling_read(r->dir, r->owner, &c);

	out->resume = out->has_next ? out->next : 0;
	out->ceiling_serial = error ? 0 : c.serial;
	if (error == SHMQ_ECORRUPT)
		say(r,
		    "ceiling is damaged, or of another partition or log: seqs that were given out last may be given again");
	else if (error && error != SHMQ_EEMPTY)
		return shmq__fail(why, error, "reading ceiling: %s", shmq_strerror(error));
	if (error || (out->has_next && seq_diff(c.seq, out->next) <= 0))
		return 0;
	out->resume = c.seq;
	if (c.is_clean && out->has_next)
		say(r, "the log ends with seq %" PRIu64 ", but was stopped in order at %" PRIu64,
		    out->next - 1, c.seq);
	return 0;
}

int shmq__log_recover(int dir, const struct log_owner *owner, uint64_t depth, struct log_state *out,
		      shmq__log_found *found, void *arg, struct shmq__why *why)
{
	struct recovery r = {
		.dir = dir, .owner = owner, .depth = depth, .out = out, .found = found, .arg = arg
	};
	uint64_t *first = NULL;
	unsigned count = 0;
	int error;

	memset(out, 0, sizeof(*out));
	r.copy = malloc(COPY_BYTES);
	error = shmq__log_scan_init(&r.scan);
	if (!error && !r.copy)
		error = -ENOMEM;
	if (!error)
		error = clean_up(&r);
	if (error)
		shmq__fail(why, error, "recovering a log: %s", shmq_strerror(error));
	while (!error) {
		free(first);
		error = shmq__log_list(dir, &first, &count);
		if (error) {
			shmq__fail(why, error, "listing the segments: %s", shmq_strerror(error));
			break;
		}
		error = recover_last(&r, first, count, why);
		if (error != 1)
			break;
		error = 0;
	}
	if (!error)
		error = heed_ceiling(&r, why);
	shmq__log_scan_fini(&r.scan);
	free(r.copy);
	free(first);
	return error;
}

int shmq__log_ceiling_read(int dir, const struct log_owner *owner, struct log_ceiling *out)
{
	struct log_ceiling c;
	/* A pipe has nothing to read, and is not waited for. */
	int fd = openat(dir, "ceiling", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int i, found = 0;

	if (fd < 0 && (errno == ELOOP || errno == ENXIO)) /* a link; a socket */
		return SHMQ_ECORRUPT;
	if (fd < 0)
		return errno == ENOENT ? SHMQ_EEMPTY : -errno;
	for (i = 0; i < 2; i++) {
		if (pread(fd, &c, sizeof(c), (off_t)i * LOG_BLOCK) != (ssize_t)sizeof(c) ||
		    c.magic != LOG_MAGIC_CEILING ||
		    c.checksum != shmq__log_sum(owner->partition, &c,
						offsetof(struct log_ceiling, checksum)) ||
		    memcmp(c.log_id, owner->log_id, sizeof(c.log_id)) != 0)
			continue;
		if (!found || c.serial > out->serial)
			*out = c;
		found = 1;
	}
	close(fd);
	return found ? 0 : SHMQ_ECORRUPT;
}

/* ---- verifying ------------------------------------------------------- */

#define SETTLE_LOOKS 40u
#define SETTLE_NS 5000000

/* Who writes it has it locked. */
int shmq__log_is_written(int log_dir)
{
	if (log_dir < 0)
		return 0;
	if (flock(log_dir, LOCK_SH | LOCK_NB))
		return errno == EWOULDBLOCK;
	flock(log_dir, LOCK_UN);
	return 0;
}

int shmq__log_next_settled(struct log_reader *r, int log_dir, struct log_record *head,
			   const char **body, struct shmq__why *why)
{
	static const struct timespec nap = { .tv_nsec = SETTLE_NS };
	int rc = shmq__log_reader_next(r, NULL, head, body, why);
	unsigned n;

	if (rc != SHMQ_ECORRUPT || !shmq__log_is_written(log_dir))
		return rc;
	for (n = 0; rc == SHMQ_ECORRUPT && n < SETTLE_LOOKS; n++) {
		nanosleep(&nap, NULL);
		rc = shmq__log_reader_seek(r, shmq__log_reader_seq(r), why);
		if (!rc)
			rc = shmq__log_reader_next(r, NULL, head, body, why);
	}
	return rc;
}

/* Removed since it was listed, or not begun yet by who writes it. */
static int is_no_matter(int dir, int log_dir, uint64_t first_seq, int is_last, int error)
{
	return error == -ENOENT || (is_last && !shmq__log_segment_has_begun(dir, first_seq) &&
				    shmq__log_is_written(log_dir));
}

#define PROGRESS_BYTES (UINT64_C(64) << 20)

static void judge(const struct recovery *r, struct log_verdict *out, const struct log_record *head,
		  const char *body)
{
	struct lay_batch batch;
	struct shmq_msg msg;

	/* A gap that the reader made is no record. */
	if (head->kind != LOG_GAP || !(head->flags & LOG_GAP_DAMAGE)) {
		out->records++;
		out->bytes += log_record_bytes(head->body_bytes);
	}
	if (head->kind == LOG_MESSAGE && shmq__log_decode(head, body, &msg, &batch)) {
		out->damaged++;
		say(r, "seq %" PRIu64 ": key and properties are longer than the record", head->seq);
	}
	if (head->kind != LOG_GAP)
		return;
	if (!(head->flags & LOG_GAP_DAMAGE)) {
		out->gaps += head->tag;
		return;
	}
	out->damaged++;
	out->missing += head->tag;
	say(r, "seqs %" PRIu64 " to %" PRIu64 " are missing", head->seq, head->seq + head->tag - 1);
}

int shmq__log_verify(int dir, int log_dir, const struct log_owner *owner, struct log_verdict *out,
		     shmq__log_found *found, int (*progress)(void *arg, uint64_t bytes), void *arg,
		     struct shmq__why *why)
{
	struct recovery r = { .dir = dir, .found = found, .arg = arg };
	uint64_t *first, told = 0;
	struct log_reader *reader;
	struct log_record head;
	const char *body;
	unsigned count, i;
	int rc = shmq__log_list(dir, &first, &count);

	memset(out, 0, sizeof(*out));
	if (rc)
		return shmq__fail(why, rc, "listing the segments: %s", shmq_strerror(rc));
	out->segments = count;
	out->first = count ? first[0] : 0;
	/* Those whose headers are bad a reader passes. */
	for (i = 0; i < count; i++) {
		struct log_segment seg;

		rc = shmq__log_segment_open(dir, first[i], owner, &seg, why);
		if (!rc)
			shmq__log_segment_close(&seg);
		if (!rc || is_no_matter(dir, log_dir, first[i], i + 1 == count, rc))
			continue;
		out->damaged++;
		say(&r, "%s", why->text);
	}
	free(first);
	if (!count)
		return 0;
	rc = shmq__log_reader_open(dir, owner, &reader, why);
	if (rc)
		return rc == SHMQ_ECORRUPT ? 0 : rc;
	while ((rc = shmq__log_next_settled(reader, log_dir, &head, &body, why)) == 1) {
		judge(&r, out, &head, body);
		if (!progress || out->bytes - told < PROGRESS_BYTES)
			continue;
		told = out->bytes;
		rc = progress(arg, out->bytes);
		if (rc)
			break;
	}
	out->next = shmq__log_reader_seq(reader);
	shmq__log_reader_close(reader);
	if (rc != SHMQ_ECORRUPT)
		return rc;
	out->damaged++;
	say(&r, "%s", why->text);
	return 0;
}
