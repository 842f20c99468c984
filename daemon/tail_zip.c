/* SPDX-License-Identifier: MIT */
#include "tail_zip.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "log_segment.h"

struct tail_zip {
	int fd, level;
	ZSTD_CCtx *context;
	char *plain, *packed; /* a frame, as far as it is full; what becomes of it */
	size_t used, packed_max;
	struct log_zip_tail tail;
	struct log_zip_entry *entry;
	size_t entry_capacity;
};

int tail_zip_create(int fd, int level, struct tail_zip **out)
{
	struct tail_zip *z = calloc(1, sizeof(*z));

	*out = NULL;
	if (!z)
		return -ENOMEM;
	z->fd = fd;
	z->level = level;
	z->packed_max = ZSTD_compressBound(LOG_ZIP_FRAME);
	z->context = ZSTD_createCCtx();
	z->plain = malloc(LOG_ZIP_FRAME);
	z->packed = malloc(z->packed_max);
	if (!z->context || !z->plain || !z->packed) {
		tail_zip_destroy(z);
		return -ENOMEM;
	}
	*out = z;
	return 0;
}

void tail_zip_destroy(struct tail_zip *z)
{
	if (!z)
		return;
	ZSTD_freeCCtx(z->context);
	free(z->plain);
	free(z->packed);
	free(z->entry);
	free(z);
}

static int write_frame(struct tail_zip *z)
{
	struct log_zip_entry *more;
	size_t n;

	if (z->tail.frames == z->entry_capacity) {
		z->entry_capacity = z->entry_capacity ? 2 * z->entry_capacity : 64;
		more = realloc(z->entry, z->entry_capacity * sizeof(*more));
		if (!more)
			return -ENOMEM;
		z->entry = more;
	}
	n = ZSTD_compressCCtx(z->context, z->packed, z->packed_max, z->plain, z->used, z->level);
	if (ZSTD_isError(n))
		return -ENOMEM; /* the only thing that it can lack */
	z->entry[z->tail.frames++] = (struct log_zip_entry){
		.bytes = (uint32_t)n,
		.checksum = shmq__log_sum(0, z->packed, n),
	};
	z->tail.plain_bytes += z->used;
	z->used = 0;
	return shmq__log_write(z->fd, z->packed, n);
}

int tail_zip_add(struct tail_zip *z, const void *data, size_t bytes)
{
	const char *from = data;
	int error = 0;

	while (!error && bytes) {
		size_t room = LOG_ZIP_FRAME - z->used, n = bytes < room ? bytes : room;

		memcpy(z->plain + z->used, from, n);
		z->used += n;
		from += n;
		bytes -= n;
		if (z->used == LOG_ZIP_FRAME)
			error = write_frame(z);
	}
	return error;
}

int tail_zip_end(struct tail_zip *z)
{
	int error = z->used ? write_frame(z) : 0;
	size_t bytes = z->tail.frames * sizeof(*z->entry);
	/* As zstd has them, whatever the machine. */
	uint32_t skipped[2] = { htole32(LOG_ZIP_SKIPPED),
				htole32((uint32_t)(bytes + sizeof(z->tail))) };

	z->tail.magic = LOG_MAGIC_ZIP;
	z->tail.frame_bytes = LOG_ZIP_FRAME;
	z->tail.entries_sum = shmq__log_sum(0, z->entry, bytes);
	z->tail.checksum = shmq__log_sum(0, &z->tail, offsetof(struct log_zip_tail, checksum));
	if (!error)
		error = shmq__log_write(z->fd, skipped, sizeof(skipped));
	if (!error)
		error = shmq__log_write(z->fd, z->entry, bytes);
	return error ? error : shmq__log_write(z->fd, &z->tail, sizeof(z->tail));
}
