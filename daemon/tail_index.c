/* SPDX-License-Identifier: MIT */
#include "tail_index.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log_record.h"

/* Entries of 8 MiB of a log: a write of one block then and now. */
#define PENDING 128

struct tail_index {
	int fd;
	unsigned pending;
	uint64_t seed, end, next;
	struct log_index_entry entry[2 * PENDING];
};

static uint32_t sum_of(const struct tail_index *index, const struct log_index_entry *entry)
{
	return shmq__log_sum(index->seed, entry, offsetof(struct log_index_entry, checksum));
}

static uint64_t next_behind(uint64_t off)
{
	return off + LOG_INDEX_BYTES;
}

static int reads(int fd, void *to, size_t bytes, uint64_t off)
{
	return pread(fd, to, bytes, (off_t)off) == (ssize_t)bytes;
}

static int writes(int fd, const void *from, size_t bytes, uint64_t off)
{
	return pwrite(fd, from, bytes, (off_t)off) == (ssize_t)bytes;
}

/* Where the entries before `off` end; 0 if this is not our index. */
static uint64_t find_end(struct tail_index *index, uint64_t first_seq, uint64_t off)
{
	struct log_index_header header;
	struct log_index_entry entry;
	struct stat st;
	uint64_t at;

	if (fstat(index->fd, &st) || !reads(index->fd, &header, sizeof(header), 0) ||
	    header.magic != LOG_MAGIC_INDEX || header.version != LOG_VERSION ||
	    header.entry_bytes != sizeof(entry) || header.seed != index->seed ||
	    header.first_seq != first_seq)
		return 0;
	at = ((uint64_t)st.st_size - sizeof(header)) / sizeof(entry);
	for (; at; at--) {
		uint64_t here = sizeof(header) + (at - 1) * sizeof(entry);

		if (!reads(index->fd, &entry, sizeof(entry), here))
			return 0;
		if (entry.checksum != sum_of(index, &entry) || entry.off >= off)
			continue;
		index->next = next_behind(entry.off);
		return here + sizeof(entry);
	}
	return sizeof(header);
}

static void begin(struct tail_index *index, uint64_t first_seq)
{
	struct log_index_header header = {
		.magic = LOG_MAGIC_INDEX,
		.version = LOG_VERSION,
		.entry_bytes = sizeof(struct log_index_entry),
		.seed = index->seed,
		.first_seq = first_seq,
	};

	if (writes(index->fd, &header, sizeof(header), 0))
		index->end = sizeof(header);
}

int tail_index_open(int dir, uint64_t first_seq, uint64_t seed, uint64_t off,
		    struct tail_index **out)
{
	struct tail_index *index = calloc(1, sizeof(*index));
	char name[LOG_NAME_BYTES];

	if (!index)
		return -ENOMEM;
	snprintf(name, sizeof(name), "%020" PRIu64 ".idx", first_seq);
	index->seed = seed;
	index->fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (index->fd >= 0) {
		index->end = find_end(index, first_seq, off);
		if (ftruncate(index->fd, (off_t)index->end))
			index->end = 0;
		else if (!index->end)
			begin(index, first_seq);
	}
	*out = index;
	return 0;
}

/* What does not fit on the disk is dropped. */
static void write_pending(struct tail_index *index)
{
	size_t bytes = index->pending * sizeof(index->entry[0]);

	if (index->end && writes(index->fd, index->entry, bytes, index->end))
		index->end += bytes;
	index->pending = 0;
}

void tail_index_close(struct tail_index *index)
{
	if (!index)
		return;
	if (index->fd >= 0) {
		write_pending(index);
		close(index->fd);
	}
	free(index);
}

uint64_t tail_index_next(const struct tail_index *index)
{
	return index->next;
}

void tail_index_add(struct tail_index *index, uint64_t seq, uint64_t max_ts, uint64_t off)
{
	struct log_index_entry *entry;

	if (index->pending == 2 * PENDING)
		write_pending(index);
	entry = &index->entry[index->pending++];
	*entry = (struct log_index_entry){ .seq = seq, .max_ts = max_ts, .off = off };
	entry->checksum = sum_of(index, entry);
	index->next = next_behind(off);
}

void tail_index_take_back(struct tail_index *index, uint64_t off)
{
	if (!index->pending || index->entry[index->pending - 1].off != off)
		return;
	index->pending--;
	index->next = off;
}

void tail_index_flush(struct tail_index *index)
{
	if (index->pending >= PENDING)
		write_pending(index);
}
