/* SPDX-License-Identifier: MIT */
#include "log_zip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "log_record.h"
#include "shmq.h"

#define NONE UINT32_MAX
#define HEAD_BYTES 8u /* of the frame that is skipped */

struct log_zip {
	int fd;
	struct log_zip_tail tail;
	struct log_zip_entry *entry;
	uint64_t *off; /* of each frame */
	ZSTD_DCtx *context;
	char *packed, *plain; /* a frame, and what is in it: number `at` */
	uint32_t at;
	size_t packed_max;
};

static int read_whole(int fd, void *buf, size_t bytes, uint64_t off)
{
	ssize_t n;

	do
		n = pread(fd, buf, bytes, (off_t)off);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n == (ssize_t)bytes ? 0 : SHMQ_ECORRUPT;
}

static uint32_t frames_of(const struct log_zip_tail *t)
{
	return (uint32_t)((t->plain_bytes + t->frame_bytes - 1) / t->frame_bytes);
}

/* Bytes of the segment that are in frame i. */
static size_t plain_in(const struct log_zip *z, uint32_t i)
{
	uint64_t left = z->tail.plain_bytes - (uint64_t)i * z->tail.frame_bytes;

	return left < z->tail.frame_bytes ? (size_t)left : z->tail.frame_bytes;
}

static int check_tail(const struct log_zip_tail *t, uint64_t file_bytes)
{
	if (t->magic == __builtin_bswap64(LOG_MAGIC_ZIP))
		return SHMQ_EVERSION;
	if (t->magic != LOG_MAGIC_ZIP ||
	    t->checksum != shmq__log_sum(0, t, offsetof(struct log_zip_tail, checksum)) ||
	    !t->frame_bytes || t->frame_bytes > LOG_ZIP_FRAME_MAX ||
	    t->plain_bytes > (uint64_t)t->frame_bytes * (NONE - 1) || t->frames != frames_of(t) ||
	    t->frames > file_bytes / sizeof(struct log_zip_entry))
		return SHMQ_ECORRUPT;
	return 0;
}

/* The frames fill the file up to what describes them. */
static int check_entries(struct log_zip *z, uint64_t end)
{
	uint64_t off = 0;
	uint32_t i;

	for (i = 0; i < z->tail.frames; i++) {
		z->off[i] = off;
		off += z->entry[i].bytes;
		if (z->entry[i].bytes > z->packed_max)
			z->packed_max = z->entry[i].bytes;
	}
	return off == end && z->packed_max <= ZSTD_compressBound(z->tail.frame_bytes) ?
		       0 :
		       SHMQ_ECORRUPT;
}

static int read_entries(struct log_zip *z, uint64_t file_bytes)
{
	uint64_t bytes = z->tail.frames * sizeof(*z->entry),
		 around = bytes + sizeof(z->tail) + HEAD_BYTES;
	int error;

	if (around > file_bytes)
		return SHMQ_ECORRUPT;
	z->entry = malloc(bytes + 1);
	z->off = malloc(z->tail.frames * sizeof(*z->off) + 1);
	if (!z->entry || !z->off)
		return -ENOMEM;
	error = read_whole(z->fd, z->entry, bytes, file_bytes - sizeof(z->tail) - bytes);
	if (!error && z->tail.entries_sum != shmq__log_sum(0, z->entry, bytes))
		error = SHMQ_ECORRUPT;
	return error ? error : check_entries(z, file_bytes - around);
}

int shmq__log_zip_open(int fd, struct log_zip **out)
{
	struct log_zip *z = calloc(1, sizeof(*z));
	struct stat st;
	int error = 0;

	*out = NULL;
	if (!z)
		return -ENOMEM;
	z->fd = fd;
	z->at = NONE;
	if (fstat(fd, &st))
		error = -errno;
	else if ((uint64_t)st.st_size < sizeof(z->tail))
		error = SHMQ_ECORRUPT;
	else
		error = read_whole(fd, &z->tail, sizeof(z->tail),
				   (uint64_t)st.st_size - sizeof(z->tail));
	if (!error)
		error = check_tail(&z->tail, (uint64_t)st.st_size);
	if (!error)
		error = read_entries(z, (uint64_t)st.st_size);
	if (!error) {
		z->packed = malloc(z->packed_max + 1);
		z->plain = malloc(plain_in(z, 0) + 1);
		z->context = ZSTD_createDCtx();
		error = z->packed && z->plain && z->context ? 0 : -ENOMEM;
	}
	if (error) {
		shmq__log_zip_close(z);
		return error;
	}
	*out = z;
	return 0;
}

void shmq__log_zip_close(struct log_zip *z)
{
	if (!z)
		return;
	ZSTD_freeDCtx(z->context);
	free(z->packed);
	free(z->plain);
	free(z->entry);
	free(z->off);
	free(z);
}

uint64_t shmq__log_zip_bytes(const struct log_zip *z)
{
	return z->tail.plain_bytes;
}

static int undo(struct log_zip *z, uint32_t i)
{
	size_t n;
	int error;

	if (z->at == i)
		return 0;
	z->at = NONE;
	error = read_whole(z->fd, z->packed, z->entry[i].bytes, z->off[i]);
	if (error)
		return error;
	if (z->entry[i].checksum != shmq__log_sum(0, z->packed, z->entry[i].bytes))
		return SHMQ_ECORRUPT;
	/* plain holds the first one, and none has more. */
	n = ZSTD_decompressDCtx(z->context, z->plain, plain_in(z, 0), z->packed, z->entry[i].bytes);
	if (ZSTD_isError(n) || n != plain_in(z, i))
		return SHMQ_ECORRUPT;
	z->at = i;
	return 0;
}

ssize_t shmq__log_zip_read(struct log_zip *z, void *buf, size_t bytes, uint64_t off)
{
	size_t done = 0, from, n;
	uint32_t i;
	int error;

	while (done < bytes && off < z->tail.plain_bytes) {
		i = (uint32_t)(off / z->tail.frame_bytes);
		error = undo(z, i);
		if (error)
			return done ? (ssize_t)done : error;
		from = (size_t)(off % z->tail.frame_bytes);
		n = plain_in(z, i) - from;
		n = n < bytes - done ? n : bytes - done;
		memcpy((char *)buf + done, z->plain + from, n);
		done += n;
		off += n;
	}
	return (ssize_t)done;
}
