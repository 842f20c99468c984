/* SPDX-License-Identifier: MIT */
#include "log_zip.h"
#include "logfile.h"
#include "tap.h"

#include "helpers.h"
#include "memory.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#define FRAME 1000u

/* A segment of some frames, the last of which is not full. */
static struct logfile segment(void)
{
	struct logfile f;
	unsigned i;

	logfile_begin(&f, 7, 0);
	for (i = 0; i < 40; i++)
		logfile_message(&f, i, 10 * i);
	logfile_end(&f);
	CHECK(f.bytes % FRAME);
	return f;
}

static int file_of(const char *mem, size_t bytes)
{
	int fd = memfd_create("zip", MFD_CLOEXEC);

	CHECK_GE(fd, 0);
	CHECK_EQ(write(fd, mem, bytes), (ssize_t)bytes);
	return fd;
}

static int open_bytes(const char *mem, size_t bytes, struct log_zip **out, int *fd)
{
	*fd = file_of(mem, bytes);
	return shmq__log_zip_open(*fd, out);
}

TEST(any_part_of_a_compressed_segment_is_read_as_it_was)
{
	struct logfile f = segment();
	size_t bytes, n, off;
	char *mem = logfile_zip(&f, FRAME, &bytes), *got = malloc(f.bytes + 1);
	struct log_zip *z;
	int fd;

	CHECK(got);
	CHECK_OK(open_bytes(mem, bytes, &z, &fd));
	CHECK_EQ(shmq__log_zip_bytes(z), f.bytes);
	for (off = 0; off < f.bytes; off += 333)
		for (n = 1; n < f.bytes; n = 2 * n + 1) {
			size_t want = f.bytes - off < n ? f.bytes - off : n;

			CHECK_EQ(shmq__log_zip_read(z, got, n, off), (ssize_t)want);
			CHECK_MEM(got, f.mem + off, want);
		}
	CHECK_EQ(shmq__log_zip_read(z, got, 1, f.bytes), 0);
	CHECK_EQ(shmq__log_zip_read(z, got, 1, UINT64_MAX), 0);
	shmq__log_zip_close(z);
	close(fd);
	free(got);
	free(mem);
	logfile_free(&f);
}

TEST(zstd_alone_undoes_the_whole_file)
{
	struct logfile f = segment();
	size_t bytes;
	char *mem = logfile_zip(&f, FRAME, &bytes), *got = malloc(f.bytes);

	CHECK(got);
	CHECK_EQ(ZSTD_decompress(got, f.bytes, mem, bytes), f.bytes);
	CHECK_MEM(got, f.mem, f.bytes);
	free(got);
	free(mem);
	logfile_free(&f);
}

TEST(a_damaged_frame_is_found_and_those_around_it_are_read)
{
	struct logfile f = segment();
	size_t bytes;
	char *mem = logfile_zip(&f, FRAME, &bytes), *got = malloc(f.bytes);
	struct log_zip *z;
	uint32_t first;
	int fd;

	CHECK(got);
	memcpy(&first, mem + bytes - 32 - 8 * ((f.bytes + FRAME - 1) / FRAME), 4);
	mem[first + 6] ^= 1; /* in the second */
	CHECK_OK(open_bytes(mem, bytes, &z, &fd));
	CHECK_EQ(shmq__log_zip_read(z, got, f.bytes, 0), FRAME);
	CHECK_MEM(got, f.mem, FRAME);
	CHECK_EQ(shmq__log_zip_read(z, got, 10, FRAME), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__log_zip_read(z, got, FRAME, 2 * FRAME), FRAME);
	CHECK_MEM(got, f.mem + 2 * FRAME, FRAME);
	shmq__log_zip_close(z);
	close(fd);
	free(got);
	free(mem);
	logfile_free(&f);
}

TEST(every_byte_of_what_describes_the_frames_counts)
{
	struct logfile f = segment();
	size_t bytes, i, frames = (f.bytes + FRAME - 1) / FRAME;
	char *mem = logfile_zip(&f, FRAME, &bytes);
	struct log_zip *z;
	int fd;

	for (i = bytes - 32 - 8 * frames; i < bytes; i++) {
		mem[i] ^= 4;
		CHECK_EQ(open_bytes(mem, bytes, &z, &fd), SHMQ_ECORRUPT);
		close(fd);
		mem[i] ^= 4;
	}
	for (i = 0; i < 40; i++) {
		CHECK_EQ(open_bytes(mem, i, &z, &fd), SHMQ_ECORRUPT);
		close(fd);
	}
	CHECK_EQ(open_bytes(mem, bytes - 1, &z, &fd), SHMQ_ECORRUPT);
	close(fd);
	free(mem);
	logfile_free(&f);
}

static void put4(char *mem, size_t off, uint32_t value)
{
	memcpy(mem + off, &value, 4);
}

/* Whatever the file says of its sizes, with checksums that are right. */
TEST(sizes_that_do_not_fit_the_file_are_refused_and_take_no_memory)
{
	static const struct {
		size_t off;
		uint32_t value;
	} lies[] = { { 8, UINT32_MAX }, { 12, 1 },          { 12, UINT32_MAX },
		     { 16, 0 },         { 16, UINT32_MAX }, { 16, 1u << 30 },
		     { 20, 0 },         { 20, 1u << 20 },   { 20, UINT32_MAX } };
	struct logfile f = segment();
	size_t bytes, i;
	char *mem, *tail;
	struct log_zip *z;
	int fd;

	for (i = 0; i < COUNT(lies); i++) {
		mem = logfile_zip(&f, FRAME, &bytes);
		tail = mem + bytes - 32;
		put4(tail, lies[i].off, lies[i].value);
		logfile_sum_zip(mem, bytes);
		CHECK_EQ(open_bytes(mem, bytes, &z, &fd), SHMQ_ECORRUPT);
		close(fd);
		free(mem);
	}
	/* A frame that is said to be larger than any can be. */
	mem = logfile_zip(&f, FRAME, &bytes);
	tail = mem + bytes - 32;
	put4(tail, -(size_t)8, UINT32_MAX);
	logfile_sum_zip(mem, bytes);
	CHECK_EQ(open_bytes(mem, bytes, &z, &fd), SHMQ_ECORRUPT);
	close(fd);
	free(mem);
	logfile_free(&f);
}

TEST(a_frame_that_holds_more_or_less_than_it_should_is_damaged)
{
	struct logfile f = segment();
	size_t bytes, whole = f.bytes;
	char *mem = logfile_zip(&f, FRAME, &bytes), got[8];
	struct log_zip *z;
	uint64_t plain;
	int fd;

	plain = whole - 1; /* the last frame has one more */
	memcpy(mem + bytes - 24, &plain, 8);
	logfile_sum_zip(mem, bytes);
	CHECK_OK(open_bytes(mem, bytes, &z, &fd));
	CHECK_EQ(shmq__log_zip_read(z, got, 8, whole - 20), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__log_zip_read(z, got, 8, 0), 8);
	shmq__log_zip_close(z);
	close(fd);
	plain = whole + 1;
	memcpy(mem + bytes - 24, &plain, 8);
	logfile_sum_zip(mem, bytes);
	CHECK_OK(open_bytes(mem, bytes, &z, &fd));
	CHECK_EQ(shmq__log_zip_read(z, got, 8, whole - 20), SHMQ_ECORRUPT);
	shmq__log_zip_close(z);
	close(fd);
	free(mem);
	logfile_free(&f);
}

TEST(the_other_byte_order_is_told_from_damage)
{
	struct logfile f = segment();
	size_t bytes;
	char *mem = logfile_zip(&f, FRAME, &bytes);
	struct log_zip *z;
	uint64_t magic;
	int fd;

	memcpy(&magic, mem + bytes - 32, 8);
	magic = __builtin_bswap64(magic);
	memcpy(mem + bytes - 32, &magic, 8);
	CHECK_EQ(open_bytes(mem, bytes, &z, &fd), SHMQ_EVERSION);
	close(fd);
	free(mem);
	logfile_free(&f);
}

TEST(no_memory_is_an_error)
{
	struct logfile f = segment();
	size_t bytes;
	char *mem = logfile_zip(&f, FRAME, &bytes);
	int fd = file_of(mem, bytes), error, more = 1;
	struct log_zip *z;
	unsigned k;

	for (k = 1; more; k++) {
		scarce_begin(k);
		error = shmq__log_zip_open(fd, &z);
		more = scarce_end();
		CHECK_EQ(error, more ? -ENOMEM : 0);
	}
	CHECK_GE(k, 5);
	shmq__log_zip_close(z);
	shmq__log_zip_close(NULL);
	close(fd);
	free(mem);
	logfile_free(&f);
}

/* Written by another program, of the golden segment beside it. */
TEST(the_golden_file_is_the_golden_segment)
{
	int dir = open("tests/log/golden", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
	size_t bytes, got_bytes;
	struct log_zip *z;
	char *mem, *got;

	CHECK_GE(dir, 0);
	if (__BYTE_ORDER != __LITTLE_ENDIAN)
		SKIP("the golden files are of the other byte order");
	mem = logfile_get(dir, "18446744073709551613.log", &bytes);
	fd = openat(dir, "zip/18446744073709551613.zst", O_RDONLY | O_CLOEXEC);
	CHECK_GE(fd, 0);
	CHECK_OK(shmq__log_zip_open(fd, &z));
	got_bytes = shmq__log_zip_bytes(z);
	CHECK_LE(got_bytes, bytes);
	got = malloc(bytes);
	CHECK(got);
	CHECK_EQ(shmq__log_zip_read(z, got, bytes, 0), (ssize_t)got_bytes);
	CHECK_MEM(got, mem, got_bytes);
	/* What it leaves out is what pads the last block. */
	for (; got_bytes < bytes; got_bytes++)
		CHECK_EQ(mem[got_bytes], 0);
	shmq__log_zip_close(z);
	free(got);
	free(mem);
	close(fd);
	close(dir);
}
