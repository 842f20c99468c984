/* SPDX-License-Identifier: MIT */
#include "log_segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "atomics.h"
#include "clock.h"

/* Where a place was looked for, a read goes as far as the index lets one come
 * close to it; then as far as makes it cost more than its system call. */
#define READ_FIRST ((size_t)LOG_INDEX_BYTES)
#define READ_BYTES ((size_t)1 << 20)

#define LINE 64u /* of the caches */

/* Of a map: aligned so that the kernel may use large pages. */
#define MAP_ALIGN ((uint64_t)2 << 20)
#define MAP_BYTES (4 * MAP_ALIGN)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

void shmq__log_name(uint64_t first_seq, const char *suffix, char name[LOG_NAME_BYTES])
{
	snprintf(name, LOG_NAME_BYTES, "%020" PRIu64 ".%.8s", first_seq, suffix);
}

int shmq__log_read_name(const char *name, uint64_t *first_seq)
{
	char same[LOG_NAME_BYTES], *end;

	errno = 0;
	*first_seq = strtoull(name, &end, 10);
	if (errno || (strcmp(end, ".log") != 0 && strcmp(end, ".zst") != 0))
		return 0;
	shmq__log_name(*first_seq, end + 1, same);
	return !strcmp(name, same);
}

static int by_distance(const void *a, const void *b, void *from)
{
	uint64_t base = *(const uint64_t *)from, x = *(const uint64_t *)a - base,
		 y = *(const uint64_t *)b - base;

	return (x > y) - (x < y);
}

/* Sequences wrap; a log spans less than half of them.  So it begins behind the
 * gap that is more than half. */
static int put_in_order(uint64_t *all, unsigned *count)
{
	unsigned i, n = *count;
	uint64_t begin = 0;

	if (n < 2)
		return 0;
	qsort_r(all, n, sizeof(*all), by_distance, &begin);
	/* For a moment there are both, the segment and what it was compressed to. */
	for (i = *count = 1; i < n; i++)
		if (all[i] != all[i - 1])
			all[(*count)++] = all[i];
	n = *count;
	if (n < 2)
		return 0;
	for (i = 0; i < n; i++)
		if (all[i] - all[i ? i - 1 : n - 1] > INT64_MAX)
			break;
	if (i == n)
		return SHMQ_ECORRUPT;
	begin = all[i];
	qsort_r(all, n, sizeof(*all), by_distance, &begin);
	return 0;
}

/* All of a directory; *out is to be freed in any case. */
static int read_names(DIR *d, uint64_t **out, unsigned *count)
{
	unsigned capacity = 0;
	struct dirent *e;
	uint64_t *more, first;

	for (;;) {
		errno = 0;
		e = readdir(d);
		if (!e)
			return -errno;
		if (!shmq__log_read_name(e->d_name, &first))
			continue;
		if (*count == capacity) {
			capacity = capacity ? 2 * capacity : 64;
			more = realloc(*out, capacity * sizeof(**out));
			if (!more)
				return -ENOMEM;
			*out = more;
		}
		(*out)[(*count)++] = first;
	}
}

int shmq__log_list(int dir, uint64_t **out, unsigned *count)
{
	/* A descriptor of its own: a duplicate would share its position. */
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	*out = NULL;
	*count = 0;
	if (!d) {
		error = -errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	error = read_names(d, out, count);
	closedir(d);
	if (!error)
		error = put_in_order(*out, count);
	if (error) {
		free(*out);
		*out = NULL;
		*count = 0;
	}
	return error;
}

/* Whole, unless the file ends: bytes read, or -errno. */
static ssize_t read_at(int fd, void *buf, size_t bytes, uint64_t off)
{
	size_t done = 0;
	ssize_t n;

	while (done < bytes) {
		n = pread(fd, (char *)buf + done, bytes - done, (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* What has another name elsewhere is somebody else's by that. */
void shmq__log_give(int dir, int fd)
{
	struct stat of, st;

	if (geteuid() || fstat(dir, &of) || !of.st_uid || fstat(fd, &st) || st.st_uid ||
	    (S_ISREG(st.st_mode) && st.st_nlink != 1))
		return;
	if (fchown(fd, of.st_uid, of.st_gid))
		return; /* it is root's, as it was */
}

int shmq__log_write(int fd, const void *data, size_t bytes)
{
	const char *at = data;
	ssize_t n;

	while (bytes) {
		n = write(fd, at, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int check_header(struct log_segment_header *h, uint64_t first_seq,
			const struct log_owner *owner, const char *name, struct shmq__why *why)
{
	uint32_t sum = h->checksum;

	if (h->magic == __builtin_bswap64(LOG_MAGIC_SEGMENT))
		return shmq__fail(why, SHMQ_EVERSION,
				  "%s was written by a machine of the other byte order", name);
	if (h->magic != LOG_MAGIC_SEGMENT)
		return shmq__fail(why, SHMQ_ECORRUPT, "%s is no segment of a log", name);
	if (h->version != LOG_VERSION)
		return shmq__fail(why, SHMQ_EVERSION, "%s has version %u of the format, not %u",
				  name, h->version, LOG_VERSION);
	h->checksum = 0;
	if (shmq__log_sum(0, h, sizeof(*h)) != sum)
		return shmq__fail(why, SHMQ_ECORRUPT, "the header of %s is damaged", name);
	if (h->first_seq != first_seq)
		return shmq__fail(why, SHMQ_ECORRUPT, "%s begins with seq %" PRIu64, name,
				  h->first_seq);
	if (owner && memcmp(h->log_id, owner->log_id, sizeof(h->log_id)) != 0)
		return shmq__fail(why, SHMQ_ECORRUPT, "%s belongs to another log", name);
	if (owner && h->partition != owner->partition)
		return shmq__fail(why, SHMQ_ECORRUPT, "%s belongs to partition %u, not %u", name,
				  h->partition, owner->partition);
	return 0;
}

static int is_compressed(const char *name)
{
	return strstr(name, ".zst") != NULL;
}

void shmq__log_segment_name(int dir, uint64_t first_seq, char name[LOG_NAME_BYTES])
{
	char compressed[LOG_NAME_BYTES];

	shmq__log_name(first_seq, "log", name);
	shmq__log_name(first_seq, "zst", compressed);
	/* In the order in which one comes and the other goes. */
	if (faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) &&
	    !faccessat(dir, compressed, F_OK, AT_SYMLINK_NOFOLLOW))
		memcpy(name, compressed, LOG_NAME_BYTES);
}

ssize_t shmq__log_segment_read(const struct log_segment *s, void *buf, size_t bytes, uint64_t off)
{
	return s->zip ? shmq__log_zip_read(s->zip, buf, bytes, off) :
			read_at(s->fd, buf, bytes, off);
}

int64_t shmq__log_segment_bytes(const struct log_segment *s)
{
	struct stat st;

	if (s->zip)
		return (int64_t)shmq__log_zip_bytes(s->zip);
	return fstat(s->fd, &st) ? -errno : (int64_t)st.st_size;
}

static int take_file(const char *name, uint64_t first_seq, const struct log_owner *owner,
		     struct log_segment *out, struct shmq__why *why)
{
	struct log_segment_header h;
	struct stat st;
	int error = 0;
	ssize_t n;

	if (fstat(out->fd, &st) || !S_ISREG(st.st_mode))
		return shmq__fail(why, SHMQ_ECORRUPT, "%s is no regular file", name);
	if (is_compressed(name))
		error = shmq__log_zip_open(out->fd, &out->zip);
	if (error)
		return shmq__fail(why, error, "reading the frames of %s: %s", name,
				  shmq_strerror(error));
	n = shmq__log_segment_read(out, &h, sizeof(h), 0);
	if (n < 0)
		return shmq__fail(why, (int)n, "reading %s: %s", name, shmq_strerror((int)n));
	if (n < (ssize_t)sizeof(h))
		return shmq__fail(why, SHMQ_ECORRUPT, "%s is shorter than its header", name);
	error = check_header(&h, first_seq, owner, name, why);
	if (error)
		return error;
	out->first_seq = h.first_seq;
	out->seed = h.seed;
	out->base_ts = h.base_ts;
	memcpy(out->owner.log_id, h.log_id, sizeof(out->owner.log_id));
	out->owner.partition = h.partition;
	return 0;
}

/* Somebody may have put a pipe or a device there. */
static int open_file(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static int take(int fd, const char *name, uint64_t first_seq, const struct log_owner *owner,
		struct log_segment *out, struct shmq__why *why)
{
	int error;

	out->zip = NULL;
	out->fd = fd < 0 ? -1 : fd;
	if (fd == -ELOOP || fd == -ENXIO) /* a link; a socket */
		return shmq__fail(why, SHMQ_ECORRUPT, "%s is no regular file", name);
	if (fd < 0)
		return shmq__fail(why, fd, "opening %s: %s", name, shmq_strerror(fd));
	error = take_file(name, first_seq, owner, out, why);
	if (error)
		shmq__log_segment_close(out);
	return error;
}

int shmq__log_segment_open_file(int dir, const char *name, uint64_t first_seq,
				const struct log_owner *owner, struct log_segment *out,
				struct shmq__why *why)
{
	return take(open_file(dir, name), name, first_seq, owner, out, why);
}

/* In the order in which the one comes and the other goes. */
int shmq__log_segment_open(int dir, uint64_t first_seq, const struct log_owner *owner,
			   struct log_segment *out, struct shmq__why *why)
{
	char name[LOG_NAME_BYTES], zip[LOG_NAME_BYTES];
	int fd;

	shmq__log_name(first_seq, "log", name);
	shmq__log_name(first_seq, "zst", zip);
	fd = open_file(dir, name);
	if (fd == -ENOENT) {
		fd = open_file(dir, zip);
		if (fd != -ENOENT)
			memcpy(name, zip, sizeof(name));
	}
	return take(fd, name, first_seq, owner, out, why);
}

int shmq__log_segment_has_begun(int dir, uint64_t first_seq)
{
	char name[LOG_NAME_BYTES];
	uint64_t magic = 0;
	int fd;

	shmq__log_name(first_seq, "log", name);
	fd = open_file(dir, name);
	if (fd < 0)
		return 1; /* compressed, or it says why when it is opened */
	if (read_at(fd, &magic, sizeof(magic), 0) < 0)
		magic = 1;
	close(fd);
	return magic != 0;
}

void shmq__log_segment_close(struct log_segment *s)
{
	if (s->fd < 0)
		return;
	shmq__log_zip_close(s->zip);
	s->zip = NULL;
	close(s->fd);
	s->fd = -1;
}

/* ---- index ----------------------------------------------------------- */

static int index_open(int dir, const struct log_segment *s, int flags, uint64_t *count)
{
	struct log_index_header h;
	char name[LOG_NAME_BYTES];
	struct stat st;
	int fd;

	shmq__log_name(s->first_seq, "idx", name);
	fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    read_at(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.magic != LOG_MAGIC_INDEX ||
	    h.version != LOG_VERSION || h.entry_bytes != sizeof(struct log_index_entry) ||
	    h.seed != s->seed || h.first_seq != s->first_seq) {
		close(fd);
		return SHMQ_ECORRUPT;
	}
	*count = ((uint64_t)st.st_size - sizeof(h)) / sizeof(struct log_index_entry);
	return fd;
}

static int index_read(int fd, const struct log_segment *s, uint64_t i, struct log_index_entry *e)
{
	uint64_t at = sizeof(struct log_index_header) + i * sizeof(*e);

	return read_at(fd, e, sizeof(*e), at) == (ssize_t)sizeof(*e) &&
	       e->checksum ==
		       shmq__log_sum(s->seed, e, offsetof(struct log_index_entry, checksum)) &&
	       e->off >= LOG_BLOCK && e->off < INT64_MAX && !(e->off % LOG_ALIGN) &&
	       (e->off == LOG_BLOCK ? e->seq == s->first_seq : seq_diff(e->seq, s->first_seq) > 0);
}

static int is_before(const struct log_index_entry *e, enum log_by by, uint64_t target)
{
	return by == LOG_BY_SEQ ? seq_diff(e->seq, target) <= 0 : e->max_ts < target;
}

void shmq__log_index_find(int dir, const struct log_segment *s, enum log_by by, uint64_t target,
			  struct log_index_entry *out)
{
	struct log_index_entry e;
	uint64_t low = 0, high, mid;
	int fd = index_open(dir, s, O_RDONLY, &high);

	*out = (struct log_index_entry){ .seq = s->first_seq,
					 .max_ts = s->base_ts,
					 .off = LOG_BLOCK };
	if (fd < 0)
		return;
	while (low < high) {
		mid = low + (high - low) / 2;
		/* What is damaged leads nowhere: look before it. */
		if (index_read(fd, s, mid, &e) && is_before(&e, by, target)) {
			*out = e;
			low = mid + 1;
		} else {
			high = mid;
		}
	}
	close(fd);
}

/* The number of entries before `off`: all whose place is known to be. */
static uint64_t index_count_before(int fd, const struct log_segment *s, uint64_t count,
				   uint64_t off)
{
	struct log_index_entry e;
	uint64_t low = 0, high = count, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (index_read(fd, s, mid, &e) && e.off < off)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int shmq__log_index_after(int dir, const struct log_segment *s, uint64_t off,
			  struct log_index_entry *out)
{
	uint64_t count, i;
	int fd = index_open(dir, s, O_RDONLY, &count), found = 0;

	if (fd < 0)
		return SHMQ_EEMPTY;
	for (i = index_count_before(fd, s, count, off); i < count && !found; i++)
		found = index_read(fd, s, i, out) && out->off > off;
	close(fd);
	return found ? 0 : SHMQ_EEMPTY;
}

int shmq__log_index_cut(int dir, const struct log_segment *s, uint64_t off)
{
	char name[LOG_NAME_BYTES];
	uint64_t count, keep;
	int fd = index_open(dir, s, O_RDWR, &count), error = 0;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0) { /* not to be used: the segment is scanned, and a new one begun */
		shmq__log_name(s->first_seq, "idx", name);
		unlinkat(dir, name, 0);
		return 0;
	}
	keep = index_count_before(fd, s, count, off);
	if (keep < count && ftruncate(fd, (off_t)(sizeof(struct log_index_header) +
						  keep * sizeof(struct log_index_entry))))
		error = -errno;
	close(fd);
	return error;
}

/* ---- scan ------------------------------------------------------------ */

int shmq__log_scan_init(struct log_scan *s)
{
	*s = (struct log_scan){ .seg.fd = -1, .capacity = READ_BYTES };
	s->buf = s->own = malloc(s->capacity + LINE);
	return s->own ? 0 : -ENOMEM;
}

static void unmap(struct log_scan *s)
{
	if (s->map)
		munmap(s->map, s->map_bytes);
	s->map = NULL;
	s->buf = s->own;
}

void shmq__log_scan_fini(struct log_scan *s)
{
	shmq__log_segment_close(&s->seg);
	unmap(s);
	free(s->own);
	s->buf = s->own = NULL;
}

void shmq__log_scan_map(struct log_scan *s)
{
	s->maps = !s->seg.zip;
}

void shmq__log_scan_move(struct log_scan *s, uint64_t off, uint64_t seq)
{
	s->next = seq;
	s->from = off;
	s->pos = s->have = 0;
	s->run = READ_FIRST;
}

void shmq__log_scan_start(struct log_scan *s, const struct log_segment *seg, uint64_t off,
			  uint64_t seq)
{
	shmq__log_segment_close(&s->seg);
	unmap(s);
	s->maps = 0;
	s->seg = *seg;
	s->key = shmq__log_key(seg->seed);
	shmq__log_scan_move(s, off, seq);
}

static int is_in_memory(int fd, uint64_t off)
{
	char byte;
	struct iovec to = { &byte, 1 };

	return preadv2(fd, &to, 1, (off_t)off, RWF_NOWAIT) == 1;
}

/* Have the next record on in a map of the file, if `need` bytes of it are in memory: what
 * is not is read, as that is told by an error if it cannot be had. */
static int map(struct log_scan *s, uint64_t need)
{
	int64_t size = shmq__log_segment_bytes(&s->seg);
	uint64_t at = s->from & ~(MAP_ALIGN - 1), end = at + MAP_BYTES;
	void *mem;

	if (size < 0 || (uint64_t)size <= s->from)
		return 0;
	end = (uint64_t)size < end ? (uint64_t)size : end;
	if (end - s->from < need || !is_in_memory(s->seg.fd, s->from) ||
	    !is_in_memory(s->seg.fd, end - 1))
		return 0;
	mem = mmap(NULL, end - at, PROT_READ, MAP_SHARED, s->seg.fd, (off_t)at);
	if (mem == MAP_FAILED)
		return 0;
	if (madvise(mem, end - at, MADV_POPULATE_READ) && errno != EINVAL) {
		munmap(mem, end - at);
		return 0;
	}
	s->map = mem;
	s->map_bytes = end - at;
	s->buf = (const char *)mem + (s->from - at);
	s->have = end - s->from;
	return 1;
}

/* Where in `own` to read to from offset `from` on: some processors copy two to five times
 * as slowly to a place that lies less than a line further on in its page. */
static char *place(const struct log_scan *s)
{
	uint64_t further = ((uintptr_t)s->own - s->from) % LOG_BLOCK;

	return further && further < LINE ? s->own + LINE : s->own;
}

/* Read from the next record on, `need` bytes at least if the file has them.
 * What was read before may have been written since. */
static int refill(struct log_scan *s, uint64_t need)
{
	int64_t size;
	char *more, *to;
	ssize_t n;

	s->from += s->pos;
	s->pos = s->have = 0;
	unmap(s);
	if (s->maps && s->run == READ_BYTES && map(s, need))
		return 0;
	if (need > s->capacity) {
		/* Only a head says so, as yet. */
		size = shmq__log_segment_bytes(&s->seg);
		if (size < 0)
			return (int)size;
		if ((uint64_t)size < s->from || (uint64_t)size - s->from < need)
			need = s->run;
	}
	if (need > s->capacity) {
		more = realloc(s->own, need + LINE);
		if (!more)
			return -ENOMEM;
		s->own = more;
		s->capacity = need;
	}
	to = place(s);
	s->buf = to;
	n = shmq__log_segment_read(&s->seg, to, need > s->run ? need : s->run, s->from);
	if (n < 0)
		return (int)n;
	s->have = (size_t)n;
	if (s->run < READ_BYTES)
		s->run *= 2;
	return 0;
}

/* What is left of a file is padding of its last block, or a piece of what was
 * no record yet. */
static int judge_end(const struct log_scan *s)
{
	size_t i;

	for (i = s->pos; i < s->have; i++)
		if (s->buf[i])
			return SHMQ_ECORRUPT;
	return 0;
}

/* *head: as it was checked, wherever it is read from. */
static inline int64_t look(struct log_scan *s, struct log_record *head)
{
	uint64_t need, asked = 0;
	int64_t bytes;
	int error;

	for (;;) {
		head->kind = LOG_NOTHING;
		bytes = shmq__log_record_check(s->buf + s->pos, s->have - s->pos, &s->key, s->next,
					       head, &need);
		if (likely(bytes > 0) || (asked && bytes != -EAGAIN))
			break;
		if (asked && need <= asked) /* the file ends */
			return judge_end(s);
		asked = need;
		error = refill(s, need);
		if (error)
			return error;
	}
	if (bytes > 0 && head->kind == LOG_END)
		return 0;
	return bytes;
}

int shmq__log_scan_peek(struct log_scan *s)
{
	struct log_record head;
	int64_t bytes = look(s, &head);

	return bytes > 0 ? 1 : (int)bytes;
}

int shmq__log_scan_next(struct log_scan *s, struct log_record *head, const char **body)
{
	int64_t bytes = look(s, head);

	if (bytes <= 0) {
		if (bytes || head->kind != LOG_END)
			*head = (struct log_record){ .kind = LOG_NOTHING };
		return (int)bytes;
	}
	*body = s->buf + s->pos + sizeof(*head);
	s->pos += (size_t)bytes;
	s->next += log_record_count(head);
	return 1;
}
