/* SPDX-License-Identifier: MIT */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "helpers.h"
#include "log_record.h"
#include "shmq.h"
#include "tail_priv.h"

#define KIB 1024
#define BUFFER (16 * KIB)
#define FIRST_SEQ 1000
#define OTHER_SEQ 3000 /* of a second log beside it */
#define LOG_ID "sixteen bytes id"

/* ---- a disk that fails, and loses its power ------------------------------ */

/* Plain calls go through here. */
static struct {
	int write_error, sync_error, open_error; /* if not 0 */
	int is_one_of_two; /* the log that begins with FIRST_SEQ is on it, others are not */
	int64_t room;      /* bytes that may still be written to logs, if limited */
	int is_limited;
	int refuses_direct, direct_writes_fail;
	int dsyncs, datasyncs, syncs;
	int zero_error, zeros; /* writes of zeros behind the log */
	off_t zero_end;
	const struct tail_segment *zeroed; /* nothing is written to where zeros go */
	int fresh;                         /* synced writes to where nothing was written before */
} disk;

/* What a loss of power would leave, if it left nothing that it need not: of
 * each log, by its first seq, what was synced; once its name is. */
enum { FILES = 4096 };
static struct {
	char *mem;
	size_t bytes;
	int is_made, is_named;
} stable[FILES];

static int first_seq_of(int fd)
{
	char link[64], path[512] = "";
	int seq;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (readlink(link, path, sizeof(path) - 1) < 0 || strlen(path) < 24 ||
	    strcmp(path + strlen(path) - 4, ".log") != 0)
		return -1;
	seq = atoi(path + strlen(path) - 24);
	CHECK_LT(seq, FILES);
	return seq;
}

/* No record and no header begins with so many. */
static int is_zero(const char *data, size_t bytes)
{
	return bytes >= 64 && !*data && !memcmp(data, data + 1, bytes - 1);
}

static int fails_by(int error)
{
	errno = error;
	return -1;
}

static void keep(int seq, const void *data, size_t bytes, size_t off)
{
	if (off + bytes > stable[seq].bytes) {
		stable[seq].mem = realloc(stable[seq].mem, off + bytes);
		memset(stable[seq].mem + stable[seq].bytes, 0, off + bytes - stable[seq].bytes);
		stable[seq].bytes = off + bytes;
	}
	memcpy(stable[seq].mem + off, data, bytes);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t off)
{
	int seq = first_seq_of(fd);

	if (seq < 0)
		return syscall(SYS_pwrite64, fd, data, bytes, off);
	stable[seq].is_made = 1;
	if (disk.write_error && (!disk.is_one_of_two || seq == FIRST_SEQ))
		return fails_by(disk.write_error);
	if (disk.direct_writes_fail && fcntl(fd, F_GETFL) & O_DIRECT)
		return fails_by(EINVAL);
	if (disk.zeroed && disk.zeroed->is_zeroing && !is_zero(data, bytes))
		CHECK_LE((uint64_t)off + bytes, disk.zeroed->zero_end);
	if (is_zero(data, bytes) && disk.zero_error)
		return fails_by(disk.zero_error);
	if (is_zero(data, bytes)) {
		disk.zeros++;
		disk.zero_end = off + (off_t)bytes;
	}
	if (disk.is_limited) {
		if (disk.room < (int64_t)bytes)
			bytes = (size_t)disk.room;
		if (!bytes)
			return fails_by(ENOSPC);
		disk.room -= (int64_t)bytes;
	}
	return syscall(SYS_pwrite64, fd, data, bytes, off);
}

ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t off, int flags)
{
	ssize_t n = pwrite(fd, data->iov_base, data->iov_len, off);

	CHECK_EQ(count, 1);
	CHECK_EQ(flags, RWF_DSYNC);
	disk.dsyncs++;
	if (!off) /* another segment */
		disk.zero_end = 0;
	disk.fresh += off + n > disk.zero_end;
	if (n > 0 && first_seq_of(fd) >= 0)
		keep(first_seq_of(fd), data->iov_base, (size_t)n, (size_t)off);
	return n;
}

int fdatasync(int fd)
{
	int seq = first_seq_of(fd);
	struct stat st;
	char *mem;

	disk.datasyncs++;
	if (seq < 0)
		return 0;
	if (disk.sync_error)
		return fails_by(disk.sync_error);
	CHECK_OK(fstat(fd, &st));
	/* The writer's descriptor may want that aligned. */
	mem = aligned_alloc(LOG_BLOCK, ((size_t)st.st_size / LOG_BLOCK + 1) * LOG_BLOCK);
	CHECK_EQ(pread(fd, mem, ((size_t)st.st_size / LOG_BLOCK + 1) * LOG_BLOCK, 0), st.st_size);
	keep(seq, mem, (size_t)st.st_size, 0);
	free(mem);
	return 0;
}

int fsync(int fd)
{
	int i;

	(void)fd;
	disk.syncs++;
	for (i = 0; i < FILES; i++)
		stable[i].is_named |= stable[i].is_made;
	return 0;
}

int openat(int dir, const char *name, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	if (disk.open_error && strstr(name, ".log"))
		return fails_by(disk.open_error);
	if (flags & O_CREAT && strstr(name, ".log"))
		stable[atoi(name)].is_made = 1;
	return (int)syscall(SYS_openat, dir, name, flags, mode);
}

int fcntl(int fd, int command, ...)
{
	va_list args;
	long arg;

	va_start(args, command);
	arg = va_arg(args, long);
	va_end(args);
	if (command == F_SETFL && arg & O_DIRECT && disk.refuses_direct)
		return fails_by(EINVAL);
	return (int)syscall(SYS_fcntl, fd, command, arg);
}

/* ---- a log being written ----------------------------------------------- */

struct log {
	struct tail_io *io;
	struct tail_writer *w;
	struct tail_layout layout;
	int dir;
};

#define LAYOUT(...) ((struct tail_layout){ __VA_ARGS__ })
#define RESUME(...) (&(struct tail_resume){ __VA_ARGS__ })
#define ANEW RESUME(.next_seq = FIRST_SEQ)

static void open_writer(struct log *log, const struct tail_resume *resume)
{
	CHECK_OK(tail_writer_open(log->io, &log->layout, resume, &log->w));
}

static struct log open_log_with(enum tail_io_kind kind, unsigned buffers, struct tail_layout layout)
{
	struct tail_io_options options = { buffers, BUFFER, kind };
	struct log log = { .layout = layout };
	int error = tail_io_create(&options, &log.io);

	if (error && kind == TAIL_IO_URING)
		SKIP("no io_uring here: %s", shmq_strerror(error));
	CHECK_OK(error);
	log.dir = open(test_tmpdir(), O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	log.layout.dir = log.dir;
	log.layout.partition = 7;
	memcpy(log.layout.log_id, LOG_ID, 16);
	strcpy(log.layout.topic, "md.trades");
	return log;
}

static struct log open_log(enum tail_io_kind kind, unsigned buffers, struct tail_layout layout)
{
	struct log log = open_log_with(kind, buffers, layout);

	open_writer(&log, ANEW);
	return log;
}

static void close_log(struct log *log)
{
	CHECK_OK(tail_writer_close(log->w, TAIL_CLOSE_CLEAN));
	CHECK_EQ(tail_io_under_way(log->io), 0);
	tail_io_destroy(log->io);
	close(log->dir);
}

/* The records of a test are all functions of their seq. */
static struct log_record head_of(uint64_t seq, uint32_t bytes)
{
	return (struct log_record){
		.body_bytes = bytes,
		.seq = seq,
		.ts = seq * 10 - seq % 3 * 20,
		.tag = mix(seq),
		.type = (uint16_t)seq,
		.kind = LOG_MESSAGE,
	};
}

static char *body_of(uint64_t seq, uint32_t bytes)
{
	char *body = malloc(bytes + 1);

	fill(body, bytes, seq);
	return body;
}

/* In up to three pieces. */
static int try_append(struct log *log, uint64_t seq, uint32_t bytes)
{
	struct log_record head = head_of(seq, bytes);
	char *body = body_of(seq, bytes);
	uint32_t third = bytes / 3;
	struct iovec piece[3] = { { body, third },
				  { body + third, third },
				  { body + 2 * third, bytes - 2 * third } };
	int rc = seq % 2 ? tail_writer_append(log->w, &head, piece, 3) :
			   tail_writer_append(log->w, &head, &(struct iovec){ body, bytes }, 1);

	free(body);
	return rc;
}

static void append(struct log *log, uint64_t seq, uint32_t bytes)
{
	int rc;

	while ((rc = try_append(log, seq, bytes)) == -EAGAIN)
		CHECK(tail_io_reap(log->io, SHMQ_FOREVER));
	CHECK_OK(rc);
	CHECK_EQ(tail_writer_marks(log->w).next_seq, seq + 1);
}

static void reap_all(struct log *log)
{
	while (tail_io_under_way(log->io))
		tail_io_reap(log->io, SHMQ_FOREVER);
}

static void flush(struct log *log, enum tail_flush how)
{
	tail_writer_flush(log->w, how);
	reap_all(log);
}

/* ---- a log as it is on the disk ------------------------------------------ */

static char *read_file(const char *suffix, uint64_t seq, size_t *bytes)
{
	char path[512];
	struct stat st;
	char *mem;
	int fd;

	snprintf(path, sizeof(path), "%s/%020" PRIu64 ".%s", test_tmpdir(), seq, suffix);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		*bytes = 0;
		return NULL;
	}
	CHECK_OK(fstat(fd, &st));
	*bytes = (size_t)st.st_size;
	mem = malloc(*bytes + 1);
	CHECK_EQ(read(fd, mem, *bytes), (ssize_t)*bytes);
	close(fd);
	return mem;
}

/* What a segment has to be, put together without any of the code under test
 * but the checksum. */
struct expected {
	char *mem;
	size_t bytes;
	uint64_t seed;
};

static void expect_bytes(struct expected *e, const void *data, size_t bytes)
{
	e->mem = realloc(e->mem, e->bytes + bytes + 8);
	memcpy(e->mem + e->bytes, data, bytes);
	e->bytes += bytes;
	memset(e->mem + e->bytes, 0, 8);
	e->bytes = (e->bytes + 7) / 8 * 8;
}

static void expect_record(struct expected *e, struct log_record head, const char *body)
{
	char *whole = malloc(sizeof(head) + head.body_bytes);

	memcpy(whole, &head, sizeof(head));
	memcpy(whole + sizeof(head), body, head.body_bytes);
	head.checksum = shmq__log_sum(e->seed, whole + 4, sizeof(head) - 4 + head.body_bytes);
	memcpy(whole, &head, sizeof(head));
	expect_bytes(e, whole, sizeof(head) + head.body_bytes);
	free(whole);
}

static void expect_message(struct expected *e, uint64_t seq, uint32_t bytes)
{
	char *body = body_of(seq, bytes);

	expect_record(e, head_of(seq, bytes), body);
	free(body);
}

/* Begin with the header that is in the file, once it is known to be right. */
static struct expected expect_segment(uint64_t first_seq, uint64_t base_ts)
{
	struct log_segment_header header, want = { 0 };
	struct expected e = { 0 };
	size_t bytes;
	char *mem = read_file("log", first_seq, &bytes);

	CHECK_GE(bytes, LOG_BLOCK);
	memcpy(&header, mem, sizeof(header));
	free(mem);
	want.magic = LOG_MAGIC_SEGMENT;
	want.version = 1;
	memcpy(want.log_id, LOG_ID, 16);
	want.seed = header.seed;
	want.first_seq = first_seq;
	want.base_ts = base_ts;
	want.created_ns = header.created_ns;
	want.partition = 7;
	strcpy(want.topic, "md.trades");
	want.checksum = shmq__log_sum(0, &want, sizeof(want));
	CHECK_MEM(&header, &want, sizeof(want));
	e.seed = header.seed;
	expect_bytes(&e, &header, sizeof(header));
	return e;
}

/* The file begins with that, and goes on with nothing but zeros. */
static void check_segment(struct expected *e, uint64_t first_seq)
{
	size_t bytes, i;
	char *mem = read_file("log", first_seq, &bytes);

	CHECK_GE(bytes, e->bytes);
	CHECK_MEM(mem, e->mem, e->bytes);
	for (i = e->bytes; i < bytes; i++)
		CHECK_EQ(mem[i], 0);
	free(mem);
}

static void check_exact_segment(struct expected *e, uint64_t first_seq)
{
	size_t bytes;

	check_segment(e, first_seq);
	free(read_file("log", first_seq, &bytes));
	CHECK_EQ(bytes, e->bytes);
	free(e->mem);
}

/* Walk the whole log: messages from seq on, as append() wrote them.
 * Returns the seq at which it ends, whichever way it does. */
static char *read_log(uint64_t seq, size_t *bytes)
{
	return read_file("log", seq, bytes);
}

static char *read_stable(uint64_t seq, size_t *bytes)
{
	char *mem = malloc(stable[seq].bytes + 1);

	*bytes = stable[seq].is_named ? stable[seq].bytes : 0;
	if (*bytes)
		memcpy(mem, stable[seq].mem, *bytes);
	return mem;
}

static uint64_t walk_by(char *(*reader)(uint64_t seq, size_t *bytes), uint64_t seq)
{
	uint64_t first = seq, need;

	for (;;) {
		size_t bytes, off = LOG_BLOCK;
		char *mem = reader(first, &bytes);
		struct log_segment_header header;
		struct log_key key;
		int64_t n = 0;

		if (bytes < LOG_BLOCK) {
			free(mem);
			return seq;
		}
		memcpy(&header, mem, sizeof(header));
		key = shmq__log_key(header.seed);
		while (off < bytes) {
			struct log_record r;

			n = shmq__log_record_check(mem + off, bytes - off, &key, seq, &r, &need);
			if (n <= 0)
				break;
			if (r.kind == LOG_MESSAGE)
				CHECK(is_filled(mem + off + sizeof(r), r.body_bytes, seq));
			seq += log_record_count(&r);
			off += (size_t)n;
			if (r.kind == LOG_END)
				break;
		}
		free(mem);
		if (n <= 0 || seq == first)
			return seq;
		first = seq;
	}
}

static uint64_t walk_from(uint64_t seq)
{
	return walk_by(read_log, seq);
}

static uint64_t walk(void)
{
	return walk_from(FIRST_SEQ);
}

/* ---- bytes ----------------------------------------------------------------- */

static void check_bytes(enum tail_io_kind kind, enum tail_direct direct)
{
	struct log log = open_log(kind, 4, LAYOUT(.direct = direct));
	struct expected e;
	uint64_t seq = FIRST_SEQ;
	uint32_t bytes;

	for (bytes = 0; bytes < 3000; bytes += 7)
		append(&log, seq++, bytes);
	flush(&log, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(log.w).written, seq);
	CHECK_EQ(tail_writer_marks(log.w).synced, seq);
	CHECK_EQ(tail_io_free_count(log.io), 4);
	close_log(&log);
	e = expect_segment(FIRST_SEQ, 0);
	for (seq = FIRST_SEQ, bytes = 0; bytes < 3000; bytes += 7)
		expect_message(&e, seq++, bytes);
	check_exact_segment(&e, FIRST_SEQ);
	CHECK_EQ(walk(), seq);
}

TEST(uring_writes_every_byte_as_the_format_says)
{
	check_bytes(TAIL_IO_URING, TAIL_DIRECT_NO);
}

TEST(plain_calls_write_every_byte_as_the_format_says)
{
	check_bytes(TAIL_IO_PLAIN, TAIL_DIRECT_NO);
}

TEST(uring_writes_the_same_bytes_past_the_page_cache)
{
	check_bytes(TAIL_IO_URING, TAIL_DIRECT_AUTO);
}

TEST(plain_calls_write_the_same_bytes_past_the_page_cache)
{
	check_bytes(TAIL_IO_PLAIN, TAIL_DIRECT_AUTO);
}

TEST(where_the_page_cache_cannot_be_passed_it_is_used)
{
	disk.refuses_direct = 1;
	check_bytes(TAIL_IO_PLAIN, TAIL_DIRECT_AUTO);
}

TEST(where_only_the_flag_is_taken_the_page_cache_is_used)
{
	disk.direct_writes_fail = 1;
	check_bytes(TAIL_IO_PLAIN, TAIL_DIRECT_AUTO);
}

TEST(direct_or_nothing_is_nothing_where_it_is_refused)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT(.direct = TAIL_DIRECT_YES));
	size_t bytes;

	disk.refuses_direct = 1;
	CHECK_EQ(try_append(&log, FIRST_SEQ, 100), -EINVAL);
	CHECK_EQ(tail_writer_marks(log.w).error, -EINVAL);
	CHECK(!read_file("log", FIRST_SEQ, &bytes));
	disk.refuses_direct = 0;
	append(&log, FIRST_SEQ, 100);
	CHECK_EQ(tail_writer_marks(log.w).error, 0);
	close_log(&log);
}

/* After each step the file is what an independent writer would have
 * written by then. */
static void check_partial_flushes(enum tail_io_kind kind)
{
	struct log log = open_log(kind, 4, LAYOUT(.direct = TAIL_DIRECT_AUTO));
	struct expected e = { 0 };
	uint64_t seq = FIRST_SEQ;
	int step;

	for (step = 0; step < 60; step++) {
		uint64_t from = seq;
		int n = 1 + (int)(mix((uint64_t)step) % 9);

		while (n--) {
			append(&log, seq, (uint32_t)(mix(seq + 1) % 1500));
			seq++;
		}
		flush(&log, step % 3 ? TAIL_WRITE : TAIL_SYNC);
		CHECK_EQ(tail_writer_marks(log.w).written, seq);
		CHECK_EQ(tail_io_free_count(log.io), 4);
		if (!e.mem)
			e = expect_segment(FIRST_SEQ, 0);
		for (; from < seq; from++)
			expect_message(&e, from, (uint32_t)(mix(from + 1) % 1500));
		check_segment(&e, FIRST_SEQ);
	}
	close_log(&log);
	check_exact_segment(&e, FIRST_SEQ);
}

TEST(uring_flushes_blocks_that_are_not_full)
{
	check_partial_flushes(TAIL_IO_URING);
}

TEST(plain_calls_flush_blocks_that_are_not_full)
{
	check_partial_flushes(TAIL_IO_PLAIN);
}

/* No two writes of one block are under way at once: the second flush waits,
 * and takes along what came meanwhile. */
TEST(a_run_that_shares_a_block_waits_and_fills)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());

	append(&log, FIRST_SEQ, 10);
	tail_writer_flush(log.w, TAIL_WRITE);
	append(&log, FIRST_SEQ + 1, 10);
	tail_writer_flush(log.w, TAIL_WRITE);
	CHECK_EQ(tail_io_under_way(log.io), 2); /* the directory's sync is one */
	append(&log, FIRST_SEQ + 2, 10);
	CHECK_EQ(tail_io_reap(log.io, 0), 2);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ + 1);
	CHECK_EQ(tail_io_under_way(log.io), 1);
	reap_all(&log);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ + 3);
	close_log(&log);
	CHECK_EQ(walk(), FIRST_SEQ + 3);
}

/* ---- large records ----------------------------------------------------------- */

/* Every place in a buffer where a record can begin and end. */
static void check_crossing(enum tail_io_kind kind)
{
	struct log log = open_log(kind, 3, LAYOUT(.direct = TAIL_DIRECT_AUTO));
	struct expected e;
	uint64_t seq = FIRST_SEQ;
	int i;

	for (i = 0; i < 600; i++, seq++)
		append(&log, seq, (uint32_t)(BUFFER - 40 - 400 + i));
	close_log(&log);
	e = expect_segment(FIRST_SEQ, 0);
	for (i = 0, seq = FIRST_SEQ; i < 600; i++, seq++)
		expect_message(&e, seq, (uint32_t)(BUFFER - 40 - 400 + i));
	check_exact_segment(&e, FIRST_SEQ);
}

TEST(records_across_buffers_come_whole_by_uring)
{
	check_crossing(TAIL_IO_URING);
}

TEST(records_across_buffers_come_whole_by_plain_calls)
{
	check_crossing(TAIL_IO_PLAIN);
}

static void check_larger_than_all(enum tail_io_kind kind)
{
	static const uint32_t bytes[] = { 5, 3 * BUFFER + 1, 17 * BUFFER - 40, 100,
					  9 * BUFFER + 13 };
	struct log log = open_log(kind, 2, LAYOUT());
	struct expected e;
	unsigned i;

	for (i = 0; i < COUNT(bytes); i++)
		append(&log, FIRST_SEQ + i, bytes[i]);
	close_log(&log);
	e = expect_segment(FIRST_SEQ, 0);
	for (i = 0; i < COUNT(bytes); i++)
		expect_message(&e, FIRST_SEQ + i, bytes[i]);
	check_exact_segment(&e, FIRST_SEQ);
}

TEST(bodies_larger_than_all_buffers_go_through_them_by_uring)
{
	check_larger_than_all(TAIL_IO_URING);
}

TEST(bodies_larger_than_all_buffers_go_through_them_by_plain_calls)
{
	check_larger_than_all(TAIL_IO_PLAIN);
}

/* Whoever changes his message while it is copied spoils that one. */
TEST(a_body_that_changes_meanwhile_does_not_break_the_log)
{
	struct log log = open_log(TAIL_IO_PLAIN, 2, LAYOUT());
	uint32_t bytes = 9 * BUFFER;
	struct log_record head = head_of(FIRST_SEQ, bytes), r;
	char *body = body_of(1, bytes), *mem;
	struct iovec piece = { body, bytes };
	struct log_key key;
	uint64_t need, seed;
	size_t size;
	int rc, again = 0;

	while ((rc = tail_writer_append(log.w, &head, &piece, 1)) == -EAGAIN) {
		again++;
		memset(body, again, bytes);
		tail_io_reap(log.io, SHMQ_FOREVER);
	}
	CHECK_OK(rc);
	CHECK_GT(again, 3);
	append(&log, FIRST_SEQ + 1, 10);
	close_log(&log);
	mem = read_file("log", FIRST_SEQ, &size);
	memcpy(&seed, mem + offsetof(struct log_segment_header, seed), sizeof(seed));
	key = shmq__log_key(seed);
	CHECK_EQ(shmq__log_record_check(mem + LOG_BLOCK, size - LOG_BLOCK, &key, FIRST_SEQ, &r,
					&need),
		 log_record_bytes(bytes));
	memcpy(&r, mem + LOG_BLOCK + log_record_bytes(bytes), sizeof(r));
	CHECK_EQ(r.seq, FIRST_SEQ + 1);
	free(mem);
	free(body);
}

TEST(without_a_free_buffer_nothing_is_appended)
{
	struct log log = open_log(TAIL_IO_PLAIN, 2, LAYOUT());
	char *taken[2] = { tail_io_take(log.io, NULL), tail_io_take(log.io, NULL) };

	CHECK_EQ(try_append(&log, FIRST_SEQ, 10), -EAGAIN);
	CHECK_EQ(tail_writer_marks(log.w).next_seq, FIRST_SEQ);
	tail_io_give(log.io, taken[0]);
	append(&log, FIRST_SEQ, 10);
	tail_io_give(log.io, taken[1]);
	close_log(&log);
	CHECK_EQ(walk(), FIRST_SEQ + 1);
}

TEST(what_is_no_next_record_is_refused)
{
	struct log log = open_log(TAIL_IO_PLAIN, 2, LAYOUT());
	struct log_record head = head_of(FIRST_SEQ, 10);
	char body[16] = "";
	struct iovec piece[2] = { { body, 5 }, { body, 6 } };

	CHECK_EQ(try_append(&log, FIRST_SEQ + 1, 10), -EINVAL);
	CHECK_EQ(tail_writer_append(log.w, &head, piece, 2), -EINVAL);
	CHECK_EQ(tail_writer_append(log.w, &head, piece, 1), -EINVAL);
	head.kind = LOG_END;
	CHECK_EQ(tail_writer_append(log.w, &head, &(struct iovec){ body, 10 }, 1), -EINVAL);
	CHECK_EQ(tail_writer_marks(log.w).next_seq, FIRST_SEQ);
	close_log(&log);
}

/* ---- taking back --------------------------------------------------------------- */

TEST(the_last_record_can_be_taken_back_until_it_is_on_its_way)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());
	struct log_record gap = {
		.kind = LOG_GAP, .seq = FIRST_SEQ + 1, .tag = 9, .flags = LOG_GAP_OVERRUN
	};
	struct expected e;

	CHECK_EQ(tail_writer_take_back(log.w), -EBUSY);
	append(&log, FIRST_SEQ, 100);
	append(&log, FIRST_SEQ + 1, 5000);
	CHECK_OK(tail_writer_take_back(log.w));
	CHECK_EQ(tail_writer_take_back(log.w), -EBUSY);
	/* One that crosses into other buffers too. */
	append(&log, FIRST_SEQ + 1, 2 * BUFFER);
	CHECK_EQ(tail_io_free_count(log.io), 1);
	CHECK_OK(tail_writer_take_back(log.w));
	CHECK_EQ(tail_io_free_count(log.io), 3);
	CHECK_EQ(tail_writer_marks(log.w).next_seq, FIRST_SEQ + 1);
	CHECK_OK(tail_writer_append(log.w, &gap, NULL, 0));
	append(&log, FIRST_SEQ + 10, 77);
	tail_writer_flush(log.w, TAIL_WRITE);
	CHECK_EQ(tail_writer_take_back(log.w), -EBUSY);
	close_log(&log);
	e = expect_segment(FIRST_SEQ, 0);
	expect_message(&e, FIRST_SEQ, 100);
	expect_record(&e, gap, "");
	expect_message(&e, FIRST_SEQ + 10, 77);
	check_exact_segment(&e, FIRST_SEQ);
}

/* Half of it is in the file, and is cut off. */
TEST(a_record_that_is_not_finished_is_given_up_by_close)
{
	struct log log = open_log(TAIL_IO_PLAIN, 2, LAYOUT());
	struct expected e;

	append(&log, FIRST_SEQ, 100);
	while (tail_io_under_way(log.io) < 2) {
		CHECK_EQ(try_append(&log, FIRST_SEQ + 1, 50 * BUFFER), -EAGAIN);
	}
	tail_io_reap(log.io, SHMQ_FOREVER);
	CHECK_EQ(try_append(&log, FIRST_SEQ + 1, 50 * BUFFER), -EAGAIN);
	CHECK_EQ(tail_writer_take_back(log.w), -EBUSY);
	close_log(&log);
	e = expect_segment(FIRST_SEQ, 0);
	expect_message(&e, FIRST_SEQ, 100);
	check_exact_segment(&e, FIRST_SEQ);
}

/* ---- segments -------------------------------------------------------------------- */

static void check_rolls(enum tail_io_kind kind, int preallocates)
{
	enum { BYTES = 48 * KIB, EACH = 1024 - 40, RECORDS = 500 };
	struct log log = open_log(kind, 3,
				  LAYOUT(.segment_bytes = BYTES, .preallocates = preallocates,
					 .direct = TAIL_DIRECT_AUTO));
	uint64_t seq, first = FIRST_SEQ, max_ts = 0, base_ts = 0;
	struct expected e = { 0 };
	int segments = 0;

	for (seq = FIRST_SEQ; seq < FIRST_SEQ + RECORDS; seq++)
		append(&log, seq, EACH);
	close_log(&log);
	for (seq = FIRST_SEQ; seq < FIRST_SEQ + RECORDS; seq++) {
		struct log_record end = { .kind = LOG_END, .seq = seq, .ts = max_ts };

		if (e.mem && e.bytes + log_record_bytes(EACH) + sizeof(end) > BYTES) {
			expect_record(&e, end, "");
			check_exact_segment(&e, first);
			e.mem = NULL;
		}
		if (!e.mem) {
			first = seq;
			base_ts = max_ts;
			e = expect_segment(first, base_ts);
			segments++;
		}
		expect_message(&e, seq, EACH);
		if (head_of(seq, 0).ts > max_ts)
			max_ts = head_of(seq, 0).ts;
	}
	check_exact_segment(&e, first);
	CHECK_GT(segments, 9);
	CHECK_EQ(walk(), seq);
}

TEST(segments_follow_one_another_by_uring)
{
	check_rolls(TAIL_IO_URING, 0);
}

TEST(segments_follow_one_another_by_plain_calls)
{
	check_rolls(TAIL_IO_PLAIN, 0);
}

TEST(preallocated_segments_end_up_with_their_size_by_uring)
{
	check_rolls(TAIL_IO_URING, 1);
}

TEST(preallocated_segments_end_up_with_their_size_by_plain_calls)
{
	check_rolls(TAIL_IO_PLAIN, 1);
}

/* Each synced by itself, in segments of two reaches of zeros; how many. */
static uint64_t write_short(enum tail_io_kind kind, uint32_t each)
{
	enum { RECORDS = 1000 };
	struct log log = open_log(kind, 4,
				  LAYOUT(.segment_bytes = 512 * KIB, .preallocates = 1,
					 .direct = TAIL_DIRECT_AUTO));
	uint64_t seq;

	for (seq = FIRST_SEQ; seq < FIRST_SEQ + RECORDS; seq++) {
		append(&log, seq, each);
		flush(&log, TAIL_SYNC);
		CHECK_EQ(tail_writer_marks(log.w).synced, seq + 1);
	}
	close_log(&log);
	CHECK_EQ(walk(), seq);
	return seq;
}

static void need_zeros(void)
{
	int fd = open(test_tmpdir(), O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd < 0 || fallocate(fd, 0, 0, 512 * KIB))
		SKIP("this filesystem has no O_DIRECT, or sets nothing aside");
	close(fd);
}

TEST(short_syncs_go_where_zeros_were_written)
{
	need_zeros();
	write_short(TAIL_IO_PLAIN, 1000);
	CHECK_GE(disk.zeros, 4);
	CHECK_LE(disk.fresh, 20); /* where segments begin, of a thousand */
}

TEST(short_syncs_are_the_same_bytes_with_zeros_under_way)
{
	write_short(TAIL_IO_URING, 5000);
}

TEST(where_no_zeros_can_be_written_syncs_go_on_without)
{
	disk.zero_error = EIO;
	write_short(TAIL_IO_PLAIN, 1000);
	CHECK_EQ(disk.zeros, 0);
	CHECK_EQ(disk.fresh, disk.dsyncs);
}

TEST(what_goes_where_zeros_go_waits_for_them)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4,
				  LAYOUT(.segment_bytes = 512 * KIB, .preallocates = 1,
					 .direct = TAIL_DIRECT_AUTO));

	append(&log, FIRST_SEQ, 5000);
	tail_writer_flush(log.w, TAIL_SYNC);
	disk.zeroed = log.w->segment;
	append(&log, FIRST_SEQ + 1, 5000);
	flush(&log, TAIL_SYNC);
	disk.zeroed = NULL;
	close_log(&log);
	CHECK_EQ(walk(), FIRST_SEQ + 2);
}

TEST(a_log_is_closed_while_zeros_are_under_way)
{
	struct log log = open_log(TAIL_IO_URING, 4,
				  LAYOUT(.segment_bytes = 512 * KIB, .preallocates = 1,
					 .direct = TAIL_DIRECT_AUTO));

	append(&log, FIRST_SEQ, 100);
	tail_writer_flush(log.w, TAIL_SYNC);
	close_log(&log);
	CHECK_EQ(walk(), FIRST_SEQ + 1);
}

TEST(long_syncs_write_nothing_twice)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4,
				  LAYOUT(.segment_bytes = 512 * KIB, .preallocates = 1,
					 .direct = TAIL_DIRECT_AUTO));
	uint64_t seq;

	for (seq = FIRST_SEQ; seq < FIRST_SEQ + 20; seq++) {
		append(&log, seq, 40000);
		flush(&log, TAIL_SYNC);
	}
	close_log(&log);
	CHECK_EQ(disk.zeros, 0);
}

TEST(a_segment_holds_a_record_however_large)
{
	struct log log = open_log(TAIL_IO_PLAIN, 3, LAYOUT(.segment_bytes = 2 * LOG_BLOCK));
	size_t bytes;
	uint64_t seq;

	for (seq = FIRST_SEQ; seq < FIRST_SEQ + 4; seq++)
		append(&log, seq, 5 * BUFFER);
	close_log(&log);
	CHECK_EQ(walk(), FIRST_SEQ + 4);
	for (seq = FIRST_SEQ; seq < FIRST_SEQ + 4; seq++) {
		char *mem = read_file("log", seq, &bytes);

		CHECK(mem);
		free(mem);
	}
}

/* Recovery looks at the last segment only, and readers pass one that has no header. */
TEST(nothing_is_written_into_a_segment_before_those_before_it_are_synced)
{
	struct log log = open_log(TAIL_IO_PLAIN, 8, LAYOUT(.segment_bytes = 2 * LOG_BLOCK));
	size_t bytes;

	append(&log, FIRST_SEQ, 4000);
	append(&log, FIRST_SEQ + 1, 4000);
	CHECK_EQ(try_append(&log, FIRST_SEQ + 2, 4000), -EAGAIN); /* would begin a third */
	/* What did not begin cannot be given up, nor what came before it for it. */
	CHECK_EQ(tail_writer_take_back(log.w), -EBUSY);
	CHECK_EQ(tail_writer_marks(log.w).next_seq, FIRST_SEQ + 2);
	tail_writer_flush(log.w, TAIL_WRITE);
	tail_io_reap(log.io, 0);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ + 1);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ);
	free(read_log(FIRST_SEQ + 1, &bytes));
	CHECK_EQ(bytes, 0);
	/* Those that have ended are synced without being asked for. */
	reap_all(&log);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ + 2);
	append(&log, FIRST_SEQ + 2, 4000);
	tail_writer_flush(log.w, TAIL_WRITE);
	reap_all(&log);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ + 3);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 2);
	tail_writer_sync(log.w);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 2);
	reap_all(&log);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 3);
	close_log(&log);
}

TEST(a_segment_that_cannot_be_made_is_made_later)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT(.segment_bytes = 2 * LOG_BLOCK));

	append(&log, FIRST_SEQ, 3000);
	disk.open_error = ENOSPC;
	CHECK_EQ(try_append(&log, FIRST_SEQ + 1, 3000), -ENOSPC);
	CHECK_EQ(try_append(&log, FIRST_SEQ + 1, 3000), -ENOSPC);
	CHECK_EQ(tail_writer_marks(log.w).error, -ENOSPC);
	CHECK_EQ(tail_writer_marks(log.w).next_seq, FIRST_SEQ + 1);
	/* What is there goes its way. */
	flush(&log, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 1);
	disk.open_error = 0;
	append(&log, FIRST_SEQ + 1, 3000);
	CHECK_EQ(tail_writer_marks(log.w).error, 0);
	close_log(&log);
	CHECK_EQ(walk(), FIRST_SEQ + 2);
}

TEST(a_file_that_is_there_already_is_not_written_over)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());
	int fd = openat(log.dir, "00000000000000001000.log", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK_EQ(write(fd, "kept", 4), 4);
	close(fd);
	CHECK_EQ(try_append(&log, FIRST_SEQ, 10), -EEXIST);
	close_log(&log);
}

/* ---- going on ---------------------------------------------------------------------- */

static void check_resume(enum tail_io_kind kind, int preallocates)
{
	struct log log =
		open_log_with(kind, 4,
			      LAYOUT(.direct = TAIL_DIRECT_AUTO, .preallocates = preallocates,
				     .segment_bytes = 256 * KIB));
	struct tail_resume resume = { .next_seq = FIRST_SEQ };
	struct expected e = { 0 };
	uint64_t seq = FIRST_SEQ;
	int round, i;

	for (round = 0; round < 8; round++) {
		open_writer(&log, &resume);
		for (i = 0; i < 30; i++, seq++)
			append(&log, seq, (uint32_t)(mix(seq) % 700));
		CHECK_OK(tail_writer_close(log.w, TAIL_CLOSE_CLEAN));
		if (!e.mem)
			e = expect_segment(FIRST_SEQ, 0);
		for (i = 0; i < 30; i++)
			expect_message(&e, seq - 30 + i, (uint32_t)(mix(seq - 30 + i) % 700));
		check_segment(&e, FIRST_SEQ);
		resume = (struct tail_resume){ .next_seq = seq,
					       .max_ts = seq * 10,
					       .off = e.bytes,
					       .first_seq = FIRST_SEQ,
					       .seed = e.seed,
					       .ceiling_serial = (uint64_t)round + 1 };
		if (round % 2 && round < 7) {
			/* The last one was not good after all: it is cut off. */
			seq--;
			resume.next_seq--;
			resume.off = e.bytes -= log_record_bytes((uint32_t)(mix(seq) % 700));
		}
	}
	check_segment(&e, FIRST_SEQ);
	free(e.mem);
	tail_io_destroy(log.io);
	close(log.dir);
}

TEST(a_log_is_gone_on_with_by_uring)
{
	check_resume(TAIL_IO_URING, 0);
}

TEST(a_log_is_gone_on_with_by_plain_calls)
{
	check_resume(TAIL_IO_PLAIN, 1);
}

TEST(behind_what_is_gone_on_with_there_are_zeros)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());
	struct expected e;
	uint64_t seq;

	for (seq = FIRST_SEQ; seq < FIRST_SEQ + 9; seq++)
		append(&log, seq, 3000);
	CHECK_OK(tail_writer_close(log.w, TAIL_CLOSE_CLEAN));
	e = expect_segment(FIRST_SEQ, 0);
	expect_message(&e, FIRST_SEQ, 3000);
	open_writer(&log, RESUME(.next_seq = FIRST_SEQ + 1, .off = e.bytes, .first_seq = FIRST_SEQ,
				 .seed = e.seed));
	append(&log, FIRST_SEQ + 1, 10);
	flush(&log, TAIL_WRITE);
	expect_message(&e, FIRST_SEQ + 1, 10);
	check_segment(&e, FIRST_SEQ);
	free(e.mem);
	close_log(&log);
}

TEST(what_cannot_be_gone_on_with_is_refused)
{
	struct log log = open_log_with(TAIL_IO_PLAIN, 4, LAYOUT());

	CHECK_EQ(tail_writer_open(log.io, &log.layout,
				  RESUME(.next_seq = FIRST_SEQ, .off = 5000,
					 .first_seq = FIRST_SEQ),
				  &log.w),
		 -ENOENT);
	open_writer(&log, ANEW);
	append(&log, FIRST_SEQ, 10);
	CHECK_OK(tail_writer_close(log.w, TAIL_CLOSE_CLEAN));
	CHECK_EQ(tail_writer_open(log.io, &log.layout,
				  RESUME(.next_seq = FIRST_SEQ, .off = 50000,
					 .first_seq = FIRST_SEQ),
				  &log.w),
		 -EINVAL);
	log.layout.segment_bytes = 1000;
	CHECK_EQ(tail_writer_open(log.io, &log.layout, ANEW, &log.w), -EINVAL);
	tail_io_destroy(log.io);
	close(log.dir);
}

/* ---- index --------------------------------------------------------------------------- */

/* Each entry leads to its record; none is further from the last than it
 * must be. */
static unsigned check_index(uint64_t first_seq, uint32_t most_bytes)
{
	struct log_index_header header;
	struct log_index_entry entry;
	size_t bytes, log_bytes, at;
	char *index = read_file("idx", first_seq, &bytes),
	     *mem = read_file("log", first_seq, &log_bytes);
	struct log_key key;
	uint64_t seed, need, last = 0;
	unsigned count = 0;

	if (!index || !mem) {
		FAIL("log or index %" PRIu64 " is missing", first_seq);
		return 0; /* for the analyser, which cannot see that it does not */
	}
	memcpy(&seed, mem + offsetof(struct log_segment_header, seed), sizeof(seed));
	key = shmq__log_key(seed);
	memcpy(&header, index, sizeof(header));
	CHECK_EQ(header.magic, LOG_MAGIC_INDEX);
	CHECK_EQ(header.version, 1);
	CHECK_EQ(header.entry_bytes, 32);
	CHECK_EQ(header.seed, seed);
	CHECK_EQ(header.first_seq, first_seq);
	for (at = sizeof(header); at < bytes; at += sizeof(entry), count++) {
		struct log_record r;
		uint64_t seq, max_ts = 0;

		CHECK_LE(at + sizeof(entry), bytes);
		memcpy(&entry, index + at, sizeof(entry));
		CHECK_EQ(entry.checksum, shmq__log_sum(seed, &entry, 24));
		CHECK_GT(shmq__log_record_check(mem + entry.off, log_bytes - entry.off, &key,
						entry.seq, &r, &need),
			 0);
		for (seq = FIRST_SEQ; seq < entry.seq; seq++)
			if (head_of(seq, 0).ts > max_ts)
				max_ts = head_of(seq, 0).ts;
		CHECK_EQ(entry.max_ts, max_ts);
		if (last) {
			CHECK_GE(entry.off - last, LOG_INDEX_BYTES);
			CHECK_LT(entry.off - last, LOG_INDEX_BYTES + log_record_bytes(most_bytes));
		}
		last = entry.off;
	}
	CHECK_GE(last + LOG_INDEX_BYTES + log_record_bytes(most_bytes), log_bytes);
	free(index);
	free(mem);
	return count;
}

TEST(index_entries_lead_to_records)
{
	struct log log = open_log_with(TAIL_IO_PLAIN, 4, LAYOUT(.segment_bytes = 16 << 20));
	uint64_t seq;

	open_writer(&log, ANEW);
	for (seq = FIRST_SEQ; seq < FIRST_SEQ + 3000; seq++)
		append(&log, seq, 8000);
	close_log(&log);
	CHECK_GT(check_index(FIRST_SEQ, 8000), 200);
	for (seq = FIRST_SEQ + 1; seq < FIRST_SEQ + 3000; seq++) {
		size_t bytes;
		char *mem = read_file("idx", seq, &bytes);

		free(mem);
		if (mem)
			break;
	}
	CHECK_GT(check_index(seq, 8000), 100);
}

TEST(an_index_is_cut_with_its_log_and_gone_on_with)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());
	struct expected e;
	uint64_t seq;

	for (seq = FIRST_SEQ; seq < FIRST_SEQ + 100; seq++)
		append(&log, seq, 8000);
	CHECK_OK(tail_writer_close(log.w, TAIL_CLOSE_CLEAN));
	e = expect_segment(FIRST_SEQ, 0);
	open_writer(&log, RESUME(.next_seq = FIRST_SEQ + 50,
				 .off = LOG_BLOCK + 50 * log_record_bytes(8000),
				 .max_ts = (FIRST_SEQ + 49) * 10 - 40 * (FIRST_SEQ % 3 == 2),
				 .first_seq = FIRST_SEQ, .seed = e.seed));
	free(e.mem);
	for (seq = FIRST_SEQ + 50; seq < FIRST_SEQ + 120; seq++)
		append(&log, seq, 5000);
	close_log(&log);
	CHECK_GT(check_index(FIRST_SEQ, 8000), 10);
	CHECK_EQ(walk(), FIRST_SEQ + 120);
}

TEST(an_index_that_is_foreign_is_begun_anew)
{
	struct log log = open_log_with(TAIL_IO_PLAIN, 4, LAYOUT());
	int fd = openat(log.dir, "00000000000000001000.idx", O_WRONLY | O_CREAT | O_CLOEXEC, 0600),
	    i;

	for (i = 0; i < 100; i++)
		CHECK_EQ(write(fd, "nonsense", 8), 8);
	close(fd);
	open_writer(&log, ANEW);
	append(&log, FIRST_SEQ, 10);
	close_log(&log);
	CHECK_EQ(check_index(FIRST_SEQ, 10), 1);
}

/* ---- trouble --------------------------------------------------------------------------- */

TEST(a_full_disk_loses_nothing_and_is_gone_on_with)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT(.segment_bytes = 64 * KIB));
	uint64_t seq = FIRST_SEQ;
	int rc = 0, round;

	disk.is_limited = 1;
	for (round = 0; round < 20; round++) {
		disk.room = 20000;
		tail_writer_retry(log.w);
		while (!(rc = try_append(&log, seq, 900)))
			seq++;
		/* Everything is refused at last, with nothing under way. */
		while (rc == -EAGAIN && tail_io_under_way(log.io)) {
			tail_io_reap(log.io, 0);
			while (!(rc = try_append(&log, seq, 900)))
				seq++;
		}
		CHECK_EQ(rc, -EAGAIN);
		CHECK_EQ(tail_writer_marks(log.w).error, -ENOSPC);
		CHECK_GE(walk(), tail_writer_marks(log.w).written);
		CHECK_LE(tail_writer_marks(log.w).synced, tail_writer_marks(log.w).written);
	}
	disk.is_limited = 0;
	tail_writer_retry(log.w);
	append(&log, seq++, 900);
	flush(&log, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(log.w).error, 0);
	CHECK_EQ(tail_writer_marks(log.w).written, seq);
	CHECK_EQ(tail_writer_marks(log.w).synced, seq);
	close_log(&log);
	CHECK_EQ(walk(), seq);
}

/* The ring has its errors from the kernel: files may not grow. */
TEST(uring_loses_nothing_where_files_may_not_grow)
{
	struct log log = open_log(TAIL_IO_URING, 4, LAYOUT());
	struct rlimit before, limit;
	uint64_t seq = FIRST_SEQ;
	int rc;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = (struct rlimit){ 5 * BUFFER / 2, before.rlim_max };
	setrlimit(RLIMIT_FSIZE, &limit);
	for (;;) {
		while (!(rc = try_append(&log, seq, 900)))
			seq++;
		CHECK_EQ(rc, -EAGAIN);
		if (!tail_io_under_way(log.io))
			break;
		tail_io_reap(log.io, SHMQ_FOREVER);
	}
	CHECK_EQ(tail_writer_marks(log.w).error, -EFBIG);
	CHECK_LT(tail_writer_marks(log.w).written, seq);
	CHECK_GE(walk(), tail_writer_marks(log.w).written);
	setrlimit(RLIMIT_FSIZE, &before);
	tail_writer_retry(log.w);
	append(&log, seq++, 900);
	flush(&log, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(log.w).error, 0);
	CHECK_EQ(tail_writer_marks(log.w).sync_error, 0);
	CHECK_EQ(tail_writer_marks(log.w).written, seq);
	CHECK_EQ(tail_writer_marks(log.w).synced, seq);
	close_log(&log);
	CHECK_EQ(walk(), seq);
}

/* A write that was to be synced at once has failed: neither is claimed, and
 * both are made up for. */
TEST(a_sync_whose_write_failed_is_made_up_for)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());

	disk.write_error = EIO;
	append(&log, FIRST_SEQ, 100);
	flush(&log, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(log.w).error, -EIO);
	CHECK_EQ(tail_writer_marks(log.w).sync_error, 0);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ);
	disk.write_error = 0;
	disk.dsyncs = 0;
	tail_writer_retry(log.w);
	reap_all(&log);
	CHECK_EQ(disk.dsyncs, 1);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 1);
	close_log(&log);
}

/* Two writers of one pool, the first of which is on a disk that takes nothing. */
struct pair {
	struct log failing, well;
	uint64_t seq; /* of `well` */
};

static struct pair open_pair(void)
{
	struct pair p = { .failing = open_log(TAIL_IO_PLAIN, 2, LAYOUT()), .seq = OTHER_SEQ };

	p.well = p.failing;
	open_writer(&p.well, RESUME(.next_seq = OTHER_SEQ));
	disk.is_one_of_two = 1;
	return p;
}

static void fail_one(struct pair *p, uint32_t bytes, uint64_t *seq)
{
	int rc;

	disk.write_error = ENOSPC;
	do {
		while (!(rc = try_append(&p->failing, *seq, bytes)))
			++*seq;
		CHECK_EQ(rc, -EAGAIN);
		reap_all(&p->failing);
	} while (!tail_writer_marks(p->failing.w).error);
	CHECK_EQ(try_append(&p->failing, *seq, bytes), -EAGAIN);
}

static void other_goes_on(struct pair *p)
{
	uint64_t end = p->seq + 200;
	int rc;

	CHECK_EQ(tail_io_free_count(p->well.io), 2);
	while (p->seq < end) {
		rc = try_append(&p->well, p->seq, 900);
		if (rc) {
			CHECK_EQ(rc, -EAGAIN);
			CHECK(tail_io_under_way(p->well.io));
			reap_all(&p->well);
			continue;
		}
		p->seq++;
	}
	flush(&p->well, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(p->well.w).synced, p->seq);
}

static void mend_pair(struct pair *p, uint32_t bytes, uint64_t seq)
{
	disk.write_error = 0;
	tail_writer_retry(p->failing.w);
	append(&p->failing, seq, bytes);
	append(&p->failing, seq + 1, 77);
	flush(&p->failing, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(p->failing.w).error, 0);
	CHECK_EQ(tail_writer_marks(p->failing.w).synced, seq + 2);
	other_goes_on(p);
	CHECK_OK(tail_writer_close(p->well.w, TAIL_CLOSE_CLEAN));
	close_log(&p->failing);
	CHECK_EQ(walk(), seq + 2);
	CHECK_EQ(walk_from(OTHER_SEQ), p->seq);
}

TEST(a_disk_that_takes_nothing_leaves_the_buffers_to_the_others)
{
	struct pair p = open_pair();
	uint64_t seq = FIRST_SEQ;
	int i;

	for (i = 0; i < 5; i++) {
		fail_one(&p, 900, &seq);
		other_goes_on(&p);
		tail_writer_retry(p.failing.w);
	}
	CHECK_LE(seq, FIRST_SEQ + 3 * BUFFER / 900);
	fail_one(&p, 900, &seq);
	mend_pair(&p, 900, seq);
}

TEST(a_record_in_whose_midst_a_disk_takes_nothing_is_finished_later)
{
	struct pair p = open_pair();
	uint64_t seq = FIRST_SEQ + 2;
	int i;

	append(&p.failing, FIRST_SEQ, 100);
	append(&p.failing, FIRST_SEQ + 1, 5000);
	for (i = 0; i < 5; i++) {
		fail_one(&p, 20 * BUFFER, &seq);
		other_goes_on(&p);
		tail_writer_retry(p.failing.w);
	}
	CHECK_EQ(seq, FIRST_SEQ + 2);
	fail_one(&p, 20 * BUFFER, &seq);
	mend_pair(&p, 20 * BUFFER, seq);
}

TEST(a_record_that_a_full_disk_has_half_of_is_given_up_by_close)
{
	struct pair p = open_pair();
	uint64_t seq = FIRST_SEQ + 1;

	append(&p.failing, FIRST_SEQ, 100);
	fail_one(&p, 20 * BUFFER, &seq);
	CHECK_EQ(tail_writer_close(p.failing.w, TAIL_CLOSE_CLEAN), -ENOSPC);
	other_goes_on(&p);
	close_log(&p.well);
}

TEST(of_two_records_that_want_all_buffers_one_comes_first)
{
	struct pair p = open_pair();
	int a = -EAGAIN, b = try_append(&p.well, OTHER_SEQ, 9 * BUFFER), rounds;

	for (rounds = 0; a || b; rounds++) {
		CHECK_LT(rounds, 1000);
		tail_io_reap(p.well.io, 0);
		if (a)
			a = try_append(&p.failing, FIRST_SEQ, 7 * BUFFER);
		if (b)
			b = try_append(&p.well, OTHER_SEQ, 9 * BUFFER);
		if (!b)
			tail_writer_flush(p.well.w, TAIL_WRITE);
	}
	p.seq++;
	mend_pair(&p, 900, FIRST_SEQ + 1);
}

TEST(a_sync_that_failed_is_never_believed_again)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT(.segment_bytes = 64 * KIB));
	uint64_t seq;

	append(&log, FIRST_SEQ, 100);
	flush(&log, TAIL_SYNC);
	append(&log, FIRST_SEQ + 1, 100);
	disk.sync_error = EIO;
	flush(&log, TAIL_WRITE);
	tail_writer_sync(log.w);
	reap_all(&log);
	CHECK_EQ(tail_writer_marks(log.w).sync_error, -EIO);
	CHECK_EQ(tail_writer_marks(log.w).error, 0);
	CHECK_EQ(tail_writer_marks(log.w).written, FIRST_SEQ + 2);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 1);
	disk.sync_error = 0;
	disk.datasyncs = 0;
	/* It writes on, into further segments too, which does not cost
	 * descriptors. */
	for (seq = FIRST_SEQ + 2; seq < FIRST_SEQ + 2000; seq++)
		append(&log, seq, 1000);
	tail_writer_retry(log.w);
	flush(&log, TAIL_SYNC);
	CHECK_EQ(tail_writer_marks(log.w).written, seq);
	CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + 1);
	CHECK_EQ(disk.datasyncs, 0);
	CHECK_LT(test_fd_count(), 16);
	CHECK_EQ(tail_writer_close(log.w, TAIL_CLOSE_CLEAN), -EIO);
	CHECK_EQ(walk(), seq);
	tail_io_destroy(log.io);
	close(log.dir);
}

/* At every moment what the marks say is so. */
static void check_marks(enum tail_io_kind kind)
{
	struct log log = open_log(kind, 4, LAYOUT(.segment_bytes = 96 * KIB));
	uint64_t seq = FIRST_SEQ, random = 1;
	struct tail_marks last = tail_writer_marks(log.w), now;
	int i;

	for (i = 0; i < 3000; i++) {
		random = mix(random);
		append(&log, seq++, (uint32_t)(random % 2000));
		if (random % 31 == 0)
			tail_writer_flush(log.w, random % 2 ? TAIL_WRITE : TAIL_SYNC);
		if (random % 37 == 0)
			tail_writer_sync(log.w);
		if (random % 5 == 0)
			tail_io_reap(log.io, 0);
		now = tail_writer_marks(log.w);
		CHECK_LE(now.synced, now.written);
		CHECK_LE(now.written, now.next_seq);
		CHECK_GE(now.synced, last.synced);
		CHECK_GE(now.written, last.written);
		if (now.written != last.written && i % 16 == 0)
			CHECK_GE(walk(), now.written);
		last = now;
	}
	CHECK_GT(last.synced, FIRST_SEQ);
	close_log(&log);
	CHECK_EQ(walk(), seq);
}

TEST(marks_are_never_ahead_of_the_files_by_uring)
{
	check_marks(TAIL_IO_URING);
}

TEST(marks_are_never_ahead_of_the_files_by_plain_calls)
{
	check_marks(TAIL_IO_PLAIN);
}

/* Whenever the power goes, what was said to be synced is there: small
 * records, large ones, flushes and syncs in any order. */
TEST(what_is_said_to_be_synced_survives_a_loss_of_power)
{
	struct log log = open_log(TAIL_IO_PLAIN, 3, LAYOUT(.segment_bytes = 96 * KIB));
	uint64_t seq = FIRST_SEQ, random = 1, synced = 0;
	int i;

	for (i = 0; i < 2500; i++) {
		struct tail_marks now;

		random = mix(random);
		append(&log, seq++, (uint32_t)(random % (random % 23 ? 300 : 4 * BUFFER)));
		if (random % 3 == 0)
			tail_writer_flush(log.w, random % 4 ? TAIL_SYNC : TAIL_WRITE);
		if (random % 17 == 0)
			tail_writer_sync(log.w);
		if (random % 5 == 0)
			tail_io_reap(log.io, 0);
		now = tail_writer_marks(log.w);
		if (now.synced != synced)
			CHECK_GE(walk_by(read_stable, FIRST_SEQ), now.synced);
		synced = now.synced;
	}
	CHECK_GT(disk.dsyncs, 10);
	CHECK_GT(disk.datasyncs, 10);
	close_log(&log);
	CHECK_EQ(walk_by(read_stable, FIRST_SEQ), seq);
	for (i = 0; i < FILES; i++)
		free(stable[i].mem);
}

TEST(a_flush_that_is_to_be_synced_is_one_operation)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());
	int i;

	append(&log, FIRST_SEQ, 10);
	flush(&log, TAIL_SYNC);
	disk.datasyncs = 0;
	for (i = 1; i <= 10; i++) {
		append(&log, FIRST_SEQ + i, 10);
		tail_writer_flush(log.w, TAIL_SYNC);
		CHECK_EQ(tail_io_under_way(log.io), 1);
		CHECK_EQ(tail_io_reap(log.io, 0), 1);
		CHECK_EQ(tail_writer_marks(log.w).synced, FIRST_SEQ + i + 1);
		CHECK_EQ(tail_io_under_way(log.io), 0);
	}
	CHECK_EQ(disk.datasyncs, 0);
	CHECK_EQ(disk.dsyncs, 11);
	tail_writer_flush(log.w, TAIL_SYNC);
	tail_writer_sync(log.w);
	CHECK_EQ(tail_io_under_way(log.io), 0);
	close_log(&log);
}

TEST(many_writers_share_few_buffers)
{
	enum { WRITERS = 20 };
	struct log log = open_log_with(TAIL_IO_AUTO, 2, LAYOUT());
	struct tail_writer *w[WRITERS];
	struct tail_layout layout = log.layout;
	int i, n;

	for (i = 0; i < WRITERS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		CHECK_OK(mkdirat(log.dir, name, 0700));
		layout.dir = openat(log.dir, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC, 0);
		layout.partition = (uint32_t)i;
		CHECK_OK(tail_writer_open(log.io, &layout, ANEW, &w[i]));
		close(layout.dir);
	}
	for (n = 0; n < 50; n++) {
		for (i = 0; i < WRITERS; i++) {
			log.w = w[i];
			append(&log, (uint64_t)(FIRST_SEQ + n), (uint32_t)(n * 1500));
			tail_writer_flush(log.w, TAIL_WRITE);
		}
	}
	for (i = 0; i < WRITERS; i++) {
		CHECK_OK(tail_writer_close(w[i], TAIL_CLOSE_CLEAN));
	}
	CHECK_EQ(tail_io_free_count(log.io), 2);
	tail_io_destroy(log.io);
	close(log.dir);
}

/* ---- ceiling ------------------------------------------------------------------------- */

static struct log_ceiling read_ceiling(struct log *log, int block)
{
	int fd = openat(log->dir, "ceiling", O_RDONLY | O_CLOEXEC, 0);
	struct log_ceiling c = { 0 };

	CHECK_GE(fd, 0);
	if (pread(fd, &c, sizeof(c), block * LOG_BLOCK) == sizeof(c) && c.magic) {
		CHECK_EQ(c.magic, LOG_MAGIC_CEILING);
		CHECK_MEM(c.log_id, LOG_ID, 16);
		CHECK_EQ(c.checksum, shmq__log_sum(log->layout.partition, &c, 44));
	}
	close(fd);
	return c;
}

TEST(ceilings_alternate_between_two_blocks)
{
	struct log log = open_log_with(TAIL_IO_PLAIN, 4, LAYOUT());
	uint64_t serial;

	open_writer(&log, RESUME(.next_seq = FIRST_SEQ, .ceiling_serial = 41));
	for (serial = 42; serial < 50; serial++) {
		tail_writer_set_ceiling(log.w, serial * 100);
		CHECK_NE(tail_writer_marks(log.w).ceiling, serial * 100);
		reap_all(&log);
		CHECK_EQ(tail_writer_marks(log.w).ceiling, serial * 100);
		CHECK_EQ(read_ceiling(&log, serial % 2).serial, serial);
		CHECK_EQ(read_ceiling(&log, serial % 2).seq, serial * 100);
		CHECK_EQ(read_ceiling(&log, serial % 2).is_clean, 0);
		CHECK_EQ(read_ceiling(&log, (serial + 1) % 2).serial,
			 serial == 42 ? 0 : serial - 1);
	}
	append(&log, FIRST_SEQ, 10);
	CHECK_OK(tail_writer_close(log.w, TAIL_CLOSE_CLEAN));
	CHECK_EQ(read_ceiling(&log, 0).serial, 50);
	CHECK_EQ(read_ceiling(&log, 0).seq, FIRST_SEQ + 1);
	CHECK_EQ(read_ceiling(&log, 0).is_clean, 1);
	CHECK_EQ(read_ceiling(&log, 1).seq, 4900);
	tail_io_destroy(log.io);
	close(log.dir);
}

TEST(of_ceilings_wanted_meanwhile_the_last_one_counts)
{
	struct log log = open_log(TAIL_IO_PLAIN, 4, LAYOUT());

	tail_writer_set_ceiling(log.w, 100);
	tail_writer_set_ceiling(log.w, 200);
	tail_writer_set_ceiling(log.w, 300);
	reap_all(&log);
	CHECK_EQ(tail_writer_marks(log.w).ceiling, 300);
	CHECK_EQ(read_ceiling(&log, 1).seq, 100);
	CHECK_EQ(read_ceiling(&log, 0).seq, 300);
	CHECK_EQ(read_ceiling(&log, 0).serial, 2);
	CHECK_OK(tail_writer_close(log.w, TAIL_CLOSE_OPEN));
	CHECK_EQ(read_ceiling(&log, 0).serial, 2);
	tail_io_destroy(log.io);
	close(log.dir);
}
