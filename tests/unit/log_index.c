/* SPDX-License-Identifier: MIT
 *
 * Indexes are judged as a whole, and made anew as they were.
 */
#include "log_index.h"
#include "helpers.h"
#include "logdir.h"

#define NAME "00000000000000000050.idx"

/* A segment of several entries. */
static int make(unsigned n)
{
	static char data[10000];
	char path[PATH_MAX];
	struct logdir log;
	struct logpart p;
	int dir;

	snprintf(path, sizeof(path), "%s/log", test_tmpdir());
	logdir_open(&log, path, "prices", 1, 0);
	logpart_open(&p, &log, 0, 50);
	while (n--)
		logpart_message(&p, &(struct shmq_msg){ .data = data,
							.len = sizeof(data),
							.ts_ns = p.seq ^ 5 });
	dir = dup(p.dir);
	logpart_close(&p);
	logdir_close(&log);
	return dir;
}

static struct log_segment segment(int dir)
{
	struct log_segment seg;

	CHECK_OK(shmq__log_segment_open(dir, 50, NULL, &seg, NULL));
	return seg;
}

static int check(int dir)
{
	struct log_segment seg = segment(dir);
	int rc = shmq__log_index_check(dir, &seg);

	shmq__log_segment_close(&seg);
	return rc;
}

static size_t get(int dir, char *to, size_t bytes)
{
	int fd = openat(dir, NAME, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, to, bytes);

	CHECK_GE(n, 0);
	close(fd);
	return (size_t)n;
}

TEST(an_index_as_it_was_written_is_good)
{
	int dir = make(100);

	CHECK_OK(check(dir));
	close(dir);
}

TEST(an_index_that_was_changed_anywhere_is_not)
{
	int dir = make(40), fd = openat(dir, NAME, O_RDWR | O_CLOEXEC);
	char was[4096], is;
	size_t n = get(dir, was, sizeof(was)), i;

	CHECK_EQ(n, sizeof(struct log_index_header) + 6 * sizeof(struct log_index_entry));
	for (i = 0; i < n; i++) {
		size_t at = (i - sizeof(struct log_index_header)) % sizeof(struct log_index_entry);

		/* Padding is not looked at. */
		if ((i >= 32 && i < sizeof(struct log_index_header)) ||
		    (i >= sizeof(struct log_index_header) && at >= 28))
			continue;
		is = (char)(was[i] ^ 16);
		logdir_write(fd, &is, 1, i);
		CHECK_ERROR(check(dir), SHMQ_ECORRUPT);
		logdir_write(fd, &was[i], 1, i);
	}
	CHECK_OK(check(dir));
	CHECK_OK(ftruncate(fd, (off_t)n - 1));
	CHECK_ERROR(check(dir), SHMQ_ECORRUPT);
	close(fd);
	CHECK_OK(unlinkat(dir, NAME, 0));
	CHECK_ERROR(check(dir), SHMQ_EEMPTY);
	CHECK_OK(symlinkat("x", dir, NAME));
	CHECK_ERROR(check(dir), SHMQ_ECORRUPT);
	close(dir);
}

/* Entries that are whole, but not in order: index 2 with what it says changed. */
static void forge(int dir, const struct log_index_entry *good, uint64_t seq, uint64_t max_ts,
		  uint64_t off)
{
	struct log_index_entry e = { .seq = seq, .max_ts = max_ts, .off = off };
	struct log_segment seg = segment(dir);
	int fd = openat(dir, NAME, O_RDWR | O_CLOEXEC);
	uint64_t at = sizeof(struct log_index_header) + 2 * sizeof(e);

	e.checksum = shmq__log_sum(seg.seed, &e, offsetof(struct log_index_entry, checksum));
	logdir_write(fd, &e, sizeof(e), at);
	CHECK_ERROR(shmq__log_index_check(dir, &seg), SHMQ_ECORRUPT);
	logdir_write(fd, good, sizeof(*good), at);
	CHECK_OK(shmq__log_index_check(dir, &seg));
	close(fd);
	shmq__log_segment_close(&seg);
}

TEST(an_index_out_of_order_is_not)
{
	int dir = make(40);
	struct log_index_entry e[6];
	char all[4096];

	get(dir, all, sizeof(all));
	memcpy(e, all + sizeof(struct log_index_header), sizeof(e));
	forge(dir, &e[2], e[1].seq - 1, e[2].max_ts, e[2].off);
	forge(dir, &e[2], e[2].seq, e[1].max_ts - 1, e[2].off);
	forge(dir, &e[2], e[2].seq, e[2].max_ts, e[1].off);
	close(dir);
}

TEST(an_index_that_ends_long_before_its_segment_is_not)
{
	int dir = make(4000), fd = openat(dir, NAME, O_RDWR | O_CLOEXEC);

	CHECK_OK(check(dir));
	CHECK_OK(ftruncate(fd,
			   sizeof(struct log_index_header) + 200 * sizeof(struct log_index_entry)));
	CHECK_OK(check(dir));
	CHECK_OK(ftruncate(fd, sizeof(struct log_index_header)));
	CHECK_ERROR(check(dir), SHMQ_ECORRUPT);
	close(fd);
	close(dir);
}

TEST(an_index_made_anew_is_the_one_that_was)
{
	int dir = make(100), twice;
	char was[4096], is[4096];
	size_t n = get(dir, was, sizeof(was));
	struct log_segment seg;

	for (twice = 0; twice < 2; twice++) {
		seg = segment(dir);
		CHECK_OK(shmq__log_index_rebuild(dir, &seg));
		CHECK_EQ(seg.fd, -1);
		CHECK_EQ(get(dir, is, sizeof(is)), n);
		CHECK_MEM(is, was, n);
		CHECK_OK(unlinkat(dir, NAME, 0));
	}
	close(dir);
}

TEST(a_damaged_segment_has_an_index_of_its_good_part)
{
	int dir = make(100), fd = openat(dir, "00000000000000000050.log", O_RDWR | O_CLOEXEC);
	struct log_segment seg = segment(dir);
	char was[4096], is[4096];
	size_t n = get(dir, was, sizeof(was)), m;

	logdir_write(fd, "damage", 6, LOG_BLOCK + 500000);
	close(fd);
	CHECK_OK(shmq__log_index_rebuild(dir, &seg));
	m = get(dir, is, sizeof(is));
	CHECK_LT(m, n);
	CHECK_EQ(m, sizeof(struct log_index_header) + 7 * sizeof(struct log_index_entry));
	CHECK_MEM(is, was, m);
	close(dir);
}
