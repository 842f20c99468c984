/* SPDX-License-Identifier: MIT */
#include "logfile.h"

#include "helpers.h"

#include <fcntl.h>
#include <inttypes.h>

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#define BLOCK 4096
#define HEAD 40

const struct log_owner logfile_owner = {
	.log_id = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
	.partition = 3,
};

static void put(void *mem, size_t off, const void *from, size_t bytes)
{
	memcpy((char *)mem + off, from, bytes);
}

static void put8(void *mem, size_t off, uint64_t value)
{
	put(mem, off, &value, 8);
}

static void put4(void *mem, size_t off, uint32_t value)
{
	put(mem, off, &value, 4);
}

static void put2(void *mem, size_t off, uint16_t value)
{
	put(mem, off, &value, 2);
}

static uint32_t sum(uint64_t seed, const void *mem, size_t bytes)
{
	return (uint32_t)XXH3_64bits_withSeed(mem, bytes, seed);
}

/* n more bytes, which are 0. */
static char *grow(struct logfile *f, size_t n)
{
	if (f->bytes + n > f->capacity) {
		f->capacity = 2 * (f->bytes + n);
		f->mem = realloc(f->mem, f->capacity);
		CHECK(f->mem);
	}
	memset(f->mem + f->bytes, 0, n);
	f->bytes += n;
	return f->mem + f->bytes - n;
}

void logfile_begin(struct logfile *f, uint64_t first_seq, uint64_t base_ts)
{
	*f = (struct logfile){ .owner = logfile_owner,
			       .first_seq = first_seq,
			       .seed = mix(first_seq),
			       .base_ts = base_ts,
			       .seq = first_seq,
			       .max_ts = base_ts,
			       .index_every = 16384,
			       .index_at = BLOCK };
	grow(f, BLOCK);
	put(f->mem, 0, "SHMQseg1", 8);
	put4(f->mem, 8, 1);
	put(f->mem, 16, f->owner.log_id, 16);
	put8(f->mem, 32, f->seed);
	put8(f->mem, 40, first_seq);
	put8(f->mem, 48, base_ts);
	put8(f->mem, 56, 1234567890);
	put4(f->mem, 64, f->owner.partition);
	put(f->mem, 72, "prices", 6);
	logfile_sum_header(f);
	f->index = calloc(1, 64);
	CHECK(f->index);
	f->index_bytes = 64;
	put(f->index, 0, "SHMQidx1", 8);
	put4(f->index, 8, 1);
	put4(f->index, 12, 32);
	put8(f->index, 16, f->seed);
	put8(f->index, 24, first_seq);
}

void logfile_free(struct logfile *f)
{
	free(f->mem);
	free(f->index);
	*f = (struct logfile){ 0 };
}

void logfile_sum_header(struct logfile *f)
{
	put4(f->mem, 12, 0);
	put4(f->mem, 12, sum(0, f->mem, BLOCK));
}

void logfile_sum_record(struct logfile *f, size_t off)
{
	uint32_t body_bytes;

	memcpy(&body_bytes, f->mem + off + 4, 4);
	put4(f->mem, off, sum(f->seed, f->mem + off + 4, HEAD - 4 + (size_t)body_bytes));
}

static void note_in_index(struct logfile *f, uint64_t seq)
{
	char *e;

	if (!f->index_every || f->bytes < f->index_at)
		return;
	f->index_at = f->bytes + f->index_every;
	f->index = realloc(f->index, f->index_bytes + 32);
	CHECK(f->index);
	e = f->index + f->index_bytes;
	f->index_bytes += 32;
	put8(e, 0, seq);
	put8(e, 8, f->max_ts);
	put8(e, 16, f->bytes);
	put4(e, 24, sum(f->seed, e, 24));
	put4(e, 28, 0);
}

void logfile_record(struct logfile *f, struct log_record head, const void *body)
{
	size_t off = f->bytes;
	char *mem;

	note_in_index(f, head.seq);
	mem = grow(f, (HEAD + (size_t)head.body_bytes + 7) / 8 * 8);
	put4(mem, 4, head.body_bytes);
	put8(mem, 8, head.seq);
	put8(mem, 16, head.ts);
	put8(mem, 24, head.tag);
	put2(mem, 32, head.type);
	put2(mem, 34, head.flags);
	mem[36] = (char)head.kind;
	if (head.body_bytes)
		put(mem, HEAD, body, head.body_bytes);
	logfile_sum_record(f, off);
	f->seq = head.seq + (head.kind == 1 ? 1 : head.kind == 4 ? 0 : head.tag);
	if (head.kind == 1 && head.ts > f->max_ts)
		f->max_ts = head.ts;
}

void logfile_message(struct logfile *f, uint64_t ts, size_t bytes)
{
	struct log_record head = { .body_bytes = (uint32_t)bytes,
				   .seq = f->seq,
				   .ts = ts,
				   .tag = mix(f->seq) ^ bytes,
				   .type = (uint16_t)f->seq,
				   .kind = 1 };
	char *body = malloc(bytes + 1);

	CHECK(body);
	fill(body, bytes, f->seq ^ mix(ts));
	logfile_record(f, head, body);
	free(body);
}

int logfile_is_right(const struct log_record *head, const char *body)
{
	return head->kind == 1 && !head->flags && head->type == (uint16_t)head->seq &&
	       head->tag == (mix(head->seq) ^ head->body_bytes) &&
	       is_filled(body, head->body_bytes, head->seq ^ mix(head->ts));
}

/* By the short way where that leads on, as subscribers read. */
static int next_record(struct log_reader *reader, const uint64_t *limit, struct log_record *head,
		       const char **body)
{
	uint64_t seq = shmq__log_reader_seq(reader);
	struct shmq__why why;

	if ((!limit || seq_diff(seq, *limit) < 0) &&
	    shmq__log_reader_plain(reader, seq, head, body)) {
		CHECK_EQ(head->kind, LOG_MESSAGE);
		CHECK_EQ(head->flags, 0);
		return 1;
	}
	return shmq__log_reader_next(reader, limit, head, body, &why);
}

struct logfile_tally logfile_tally(struct log_reader *reader, const uint64_t *limit)
{
	struct logfile_tally t = { .first = shmq__log_reader_seq(reader) };
	struct log_record head;
	const char *body;

	t.next = t.first;
	while ((t.rc = next_record(reader, limit, &head, &body)) == 1) {
		CHECK_EQ(head.seq, t.next);
		t.next += log_record_count(&head);
		CHECK_EQ(shmq__log_reader_seq(reader), t.next);
		if (head.kind == LOG_MESSAGE) {
			t.messages++;
			CHECK(head.flags || logfile_is_right(&head, body));
		} else if (head.kind == LOG_HOLE) {
			t.holes++;
		} else if (head.flags & LOG_GAP_DAMAGE) {
			t.lost += head.tag;
		} else {
			CHECK_EQ(head.kind, LOG_GAP);
			t.gaps += head.tag;
		}
	}
	return t;
}

void logfile_skip(struct logfile *f, enum log_kind kind, uint64_t count, uint16_t flags)
{
	logfile_record(f,
		       (struct log_record){ .seq = f->seq,
					    .ts = f->max_ts,
					    .tag = count,
					    .flags = flags,
					    .kind = kind },
		       "");
}

void logfile_end(struct logfile *f)
{
	logfile_record(f, (struct log_record){ .seq = f->seq, .ts = f->max_ts, .kind = 4 }, "");
}

void logfile_member(struct logfile *f, uint64_t first_seq, uint32_t index, uint32_t count)
{
	struct log_record head = {
		.body_bytes = 16, .seq = f->seq, .ts = f->max_ts, .flags = SHMQ_MSG_BATCH, .kind = 1
	};
	char body[16];

	put8(body, 0, first_seq);
	put4(body, 8, index);
	put4(body, 12, count);
	logfile_record(f, head, body);
}

void logfile_put(int dir, const char *name, const void *mem, size_t bytes)
{
	/* Not cut to nothing first: some filesystems would sync it then. */
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK_GE(fd, 0);
	CHECK_EQ(write(fd, mem, bytes), (ssize_t)bytes);
	CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

char *logfile_get(int dir, const char *name, size_t *bytes)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char *mem;
	off_t end;

	if (fd < 0)
		FAIL("%s: %s", name, strerror(errno));
	end = lseek(fd, 0, SEEK_END);
	CHECK_GE(end, 0);
	*bytes = (size_t)end;
	mem = malloc(*bytes + 1);
	CHECK(mem);
	CHECK_EQ(pread(fd, mem, *bytes, 0), end);
	close(fd);
	return mem;
}

void logfile_write_cut(const struct logfile *f, int dir, size_t bytes)
{
	char name[32];

	snprintf(name, sizeof(name), "%020" PRIu64 ".log", f->first_seq);
	logfile_put(dir, name, f->mem, bytes);
}

void logfile_write(const struct logfile *f, int dir)
{
	size_t padded = (f->bytes + BLOCK - 1) / BLOCK * BLOCK;
	char name[32], *mem = calloc(1, padded);

	CHECK(mem);
	memcpy(mem, f->mem, f->bytes);
	snprintf(name, sizeof(name), "%020" PRIu64 ".log", f->first_seq);
	logfile_put(dir, name, mem, padded);
	free(mem);
	if (!f->index_every)
		return;
	snprintf(name, sizeof(name), "%020" PRIu64 ".idx", f->first_seq);
	logfile_put(dir, name, f->index, f->index_bytes);
}

void logfile_sum_zip(char *mem, size_t bytes)
{
	char *tail = mem + bytes - 32;
	uint32_t frames;

	memcpy(&frames, tail + 20, 4);
	if (frames <= (bytes - 32) / 8)
		put4(tail, 24, sum(0, tail - 8 * (size_t)frames, 8 * (size_t)frames));
	put4(tail, 28, sum(0, tail, 28));
}

char *logfile_zip(const struct logfile *f, size_t frame_bytes, size_t *bytes)
{
	size_t frames = (f->bytes + frame_bytes - 1) / frame_bytes, at = 0, i, n,
	       most = ZSTD_compressBound(frame_bytes);
	char *mem = calloc(1, frames * (most + 8) + 40), *entry = malloc(8 * frames + 1), *tail;

	CHECK(mem && entry);
	for (i = 0; i < frames; i++) {
		n = f->bytes - i * frame_bytes;
		n = ZSTD_compress(mem + at, most, f->mem + i * frame_bytes,
				  n < frame_bytes ? n : frame_bytes, 1);
		CHECK(!ZSTD_isError(n));
		put4(entry, 8 * i, (uint32_t)n);
		put4(entry, 8 * i + 4, sum(0, mem + at, n));
		at += n;
	}
	put(mem, at, "\x5e\x2a\x4d\x18", 4); /* of a frame that zstd skips */
	put4(mem, at + 4, htole32((uint32_t)(8 * frames + 32)));
	put(mem, at + 8, entry, 8 * frames);
	free(entry);
	tail = mem + at + 8 + 8 * frames;
	put(tail, 0, "SHMQzst1", 8);
	put8(tail, 8, f->bytes);
	put4(tail, 16, (uint32_t)frame_bytes);
	put4(tail, 20, (uint32_t)frames);
	*bytes = (size_t)(tail + 32 - mem);
	logfile_sum_zip(mem, *bytes);
	return mem;
}

void logfile_write_zip(const struct logfile *f, int dir, size_t frame_bytes)
{
	size_t bytes;
	char name[32], *mem = logfile_zip(f, frame_bytes, &bytes);

	snprintf(name, sizeof(name), "%020" PRIu64 ".zst", f->first_seq);
	logfile_put(dir, name, mem, bytes);
	free(mem);
	if (!f->index_every)
		return;
	snprintf(name, sizeof(name), "%020" PRIu64 ".idx", f->first_seq);
	logfile_put(dir, name, f->index, f->index_bytes);
}

void logfile_ceiling(int dir, unsigned block, uint64_t serial, uint64_t seq, uint32_t is_clean)
{
	int fd = openat(dir, "ceiling", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char mem[BLOCK] = { 0 };

	put(mem, 0, "SHMQcel1", 8);
	put8(mem, 8, serial);
	put8(mem, 16, seq);
	put(mem, 24, logfile_owner.log_id, 16);
	put4(mem, 40, is_clean);
	put4(mem, 44, sum(logfile_owner.partition, mem, 44));
	CHECK_GE(fd, 0);
	CHECK_EQ(pwrite(fd, mem, BLOCK, (off_t)block * BLOCK), BLOCK);
	close(fd);
}

int logfile_dir(void)
{
	char path[4096];
	int dir;

	snprintf(path, sizeof(path), "%s/log.XXXXXX", test_tmpdir());
	CHECK(mkdtemp(path));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK_GE(dir, 0);
	return dir;
}
