/* SPDX-License-Identifier: MIT */
#include "tail_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "log_record.h"

static int set_direct(int fd, int on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT))
		return -errno;
	return 0;
}

void tail_segment_undirect(struct tail_segment *s)
{
	s->is_direct = 0;
	set_direct(s->fd, 0);
}

/* Zeros are what the log ends with, so a preallocated file needs no other
 * mark.  Where it cannot be had the file grows by being written, and a full
 * disk is met by the write that it hits. */
static void preallocate(const struct tail_layout *layout, struct tail_segment *s)
{
	uint64_t bytes = (layout->segment_bytes + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1);
	int failed;

	if (!layout->preallocates)
		return;
	do
		failed = fallocate(s->fd, 0, 0, (off_t)bytes);
	while (failed && errno == EINTR);
	s->allocated = failed ? 0 : bytes;
}

static struct tail_segment *allocate(uint64_t first_seq, uint64_t seed)
{
	struct tail_segment *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fd = -1;
	s->first_seq = first_seq;
	s->key = shmq__log_key(seed);
	return s;
}

static int open_file(const struct tail_layout *layout, struct tail_segment *s, int flags)
{
	char name[LOG_NAME_BYTES];

	snprintf(name, sizeof(name), "%020" PRIu64 ".log", s->first_seq);
	s->fd = openat(layout->dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
	return s->fd < 0 ? -errno : 0;
}

static void close_file(struct tail_segment *s)
{
	tail_index_close(s->index);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
}

/* Once what is to be read is read: O_DIRECT would want that aligned. */
static int prepare(const struct tail_layout *layout, struct tail_segment *s, uint64_t off)
{
	int error = tail_index_open(layout->dir, s->first_seq, s->key.seed, off, &s->index);

	if (error)
		return error;
	preallocate(layout, s);
	if (layout->direct == TAIL_DIRECT_NO)
		return 0;
	error = set_direct(s->fd, 1);
	s->is_direct = !error;
	return layout->direct == TAIL_DIRECT_YES ? error : 0;
}

static void fill_header(const struct tail_layout *layout, const struct tail_segment *s,
			uint64_t base_ts, char *block)
{
	struct log_segment_header *header = (struct log_segment_header *)block;

	memset(header, 0, sizeof(*header));
	header->magic = LOG_MAGIC_SEGMENT;
	header->version = LOG_VERSION;
	memcpy(header->log_id, layout->log_id, sizeof(header->log_id));
	header->seed = s->key.seed;
	header->first_seq = s->first_seq;
	header->base_ts = base_ts;
	header->created_ns = shmq__clock_realtime_ns();
	header->partition = layout->partition;
	memcpy(header->topic, layout->topic, sizeof(header->topic));
	header->checksum = shmq__log_sum(0, header, sizeof(*header));
}

/* So that it can be tried again. */
static void unmake(const struct tail_layout *layout, struct tail_segment *s)
{
	char name[LOG_NAME_BYTES];

	snprintf(name, sizeof(name), "%020" PRIu64 ".log", s->first_seq);
	if (s->fd >= 0)
		unlinkat(layout->dir, name, 0);
	close_file(s);
}

int tail_segment_create(const struct tail_layout *layout, uint64_t first_seq, uint64_t base_ts,
			char *block, struct tail_segment **out)
{
	struct tail_segment *s;
	uint64_t seed;
	int error;

	if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		return -EIO;
	s = allocate(first_seq, seed);
	if (!s)
		return -ENOMEM;
	error = open_file(layout, s, O_CREAT | O_EXCL);
	if (!error)
		error = prepare(layout, s, 0);
	if (error) {
		unmake(layout, s);
		return error;
	}
	s->synced_seq = first_seq;
	fill_header(layout, s, base_ts, block);
	*out = s;
	return 0;
}

/* What a write layer may have left behind `off` is cut off first, so that
 * what follows the end is zeros. */
static int read_rest(const struct tail_segment *s, uint64_t off, char *block)
{
	uint64_t bytes = off % LOG_BLOCK;
	ssize_t n;

	if (ftruncate(s->fd, (off_t)off))
		return -errno;
	n = pread(s->fd, block, bytes, (off_t)(off - bytes));
	if (n < 0)
		return -errno;
	return (uint64_t)n == bytes ? 0 : -EIO;
}

int tail_segment_resume(const struct tail_layout *layout, uint64_t first_seq, uint64_t seed,
			uint64_t off, char *block, struct tail_segment **out)
{
	struct tail_segment *s = allocate(first_seq, seed);
	struct stat st;
	int error;

	if (!s)
		return -ENOMEM;
	error = open_file(layout, s, 0);
	if (!error && fstat(s->fd, &st))
		error = -errno;
	if (!error && (off < LOG_BLOCK || off > (uint64_t)st.st_size))
		error = -EINVAL;
	if (!error)
		error = read_rest(s, off, block);
	if (!error)
		error = prepare(layout, s, off);
	if (!error && (fdatasync(s->fd) || fsync(layout->dir)))
		error = -errno;
	if (error) {
		close_file(s);
		return error;
	}
	s->is_named = 1;
	*out = s;
	return 0;
}

void tail_segment_close(struct tail_segment *s, uint64_t off)
{
	if (off != TAIL_UNCUT && ftruncate(s->fd, (off_t)off)) {
		/* Then it is longer, by zeros. */
	}
	close_file(s);
}
