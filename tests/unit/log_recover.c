/* SPDX-License-Identifier: MIT */
#include "log_recover.h"
#include "log_reader.h"
#include "logfile.h"
#include "tap.h"

#include "helpers.h"
#include "memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST (UINT64_C(0) - 5)
#define NAME "18446744073709551611" /* FIRST */
#define DEPTH 16
#define TS(seq) (1000 + 10 * ((seq)-FIRST))

/* ---- what is said -------------------------------------------------------- */

struct said {
	unsigned lines;
	char text[4096];
};

static void hear(void *arg, const char *line)
{
	struct said *s = arg;

	s->lines++;
	strncat(s->text, line, sizeof(s->text) - strlen(s->text) - 2);
	strcat(s->text, "\n");
}

static void check_said(const struct said *s, const char *text)
{
	if (!strstr(s->text, text))
		FAIL("\"%s\" does not say \"%s\"", s->text, text);
}

static struct log_state recover(int dir, struct said *said)
{
	struct log_state state;
	struct shmq__why why;
	int rc;

	*said = (struct said){ 0 };
	rc = shmq__log_recover(dir, &logfile_owner, DEPTH, &state, hear, said, &why);
	if (rc)
		FAIL("recovering: %s: %s", shmq_errname(rc), why.text);
	return state;
}

/* Once more: nothing is left to do. */
static void check_twice_is_once(int dir, const struct log_state *once)
{
	struct said said;
	struct log_state twice = recover(dir, &said);

	CHECK_EQ(twice.has_segment, once->has_segment);
	CHECK_EQ(twice.first_seq, once->first_seq);
	CHECK_EQ(twice.off, once->off);
	CHECK_EQ(twice.seed, once->seed);
	CHECK_EQ(twice.next, once->next);
	CHECK_EQ(twice.max_ts, once->max_ts);
	CHECK_EQ(twice.has_next, once->has_next);
	CHECK_EQ(twice.resume, once->resume);
	CHECK_EQ(twice.cut_bytes, 0);
	if (strstr(said.text, "cut/"))
		FAIL("again: %s", said.text);
}

/* All that is left of the log is good. */
static void check_readable(int dir, uint64_t first, uint64_t next)
{
	struct logfile_tally t;
	struct log_reader *r;

	CHECK_OK(shmq__log_reader_open(dir, &logfile_owner, &r, NULL));
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.lost, 0);
	CHECK_EQ(t.first, first);
	CHECK_EQ(t.next, next);
	shmq__log_reader_close(r);
}

static unsigned count_cut(int dir)
{
	int fd = openat(dir, "cut", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += *e->d_name != '.';
	if (d)
		closedir(d);
	return n;
}

static void forget_cut(int dir)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/cut", dir);
	test_remove_tree(path);
}

static int size_of(int dir, const char *name)
{
	struct stat st;

	CHECK_EQ(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return (int)st.st_size;
}

/* ---- the last segment ------------------------------------------------------ */

#define RECORDS 8

/* Eight messages; end[i] is the offset behind i of them. */
static struct logfile eight(size_t end[RECORDS + 1])
{
	struct logfile f;
	unsigned i;

	logfile_begin(&f, FIRST, 900);
	f.index_every = 150;
	end[0] = f.bytes;
	for (i = 1; i <= RECORDS; i++) {
		logfile_message(&f, TS(f.seq), 20 + 3 * (size_t)i);
		end[i] = f.bytes;
	}
	return f;
}

TEST(where_there_is_no_log_there_is_nothing_to_recover)
{
	int dir = logfile_dir();
	struct said said;
	struct log_state s = recover(dir, &said);

	CHECK(!s.has_segment && !s.has_next && !s.resume && !s.cut_bytes && !said.lines);
	close(dir);
}

TEST(a_log_in_order_is_left_as_it_is)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	int dir = logfile_dir();
	struct said said;
	struct log_state s;

	logfile_write(&f, dir);
	s = recover(dir, &said);
	CHECK_EQ(said.lines, 0);
	CHECK_EQ(s.has_segment, 1);
	CHECK_EQ(s.first_seq, FIRST);
	CHECK_EQ(s.seed, f.seed);
	CHECK_EQ(s.off, f.bytes);
	CHECK_EQ(s.next, FIRST + RECORDS);
	CHECK_EQ(s.resume, FIRST + RECORDS);
	CHECK_EQ(s.max_ts, TS(FIRST + RECORDS - 1));
	CHECK_EQ(s.cut_bytes, 0);
	CHECK_EQ(count_cut(dir), 0);
	CHECK_EQ(size_of(dir, NAME ".log"), f.bytes);
	CHECK_EQ(size_of(dir, NAME ".idx"), f.index_bytes);
	check_twice_is_once(dir, &s);
	check_readable(dir, FIRST, s.next);
	logfile_free(&f);
	close(dir);
}

TEST(what_was_only_reserved_is_given_back_and_not_kept)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	int dir = logfile_dir(), fd;
	struct said said;
	struct log_state s;

	logfile_write(&f, dir);
	fd = openat(dir, NAME ".log", O_WRONLY | O_CLOEXEC);
	CHECK_EQ(ftruncate(fd, (off_t)1 << 30), 0);
	close(fd);
	s = recover(dir, &said);
	CHECK_EQ(said.lines, 0);
	CHECK_EQ(s.off, f.bytes);
	CHECK_EQ(size_of(dir, NAME ".log"), f.bytes);
	CHECK_EQ(count_cut(dir), 0);
	logfile_free(&f);
	close(dir);
}

static size_t bytes_read;
static int followed_dir = -1; /* somebody follows its log, as we read it */

static ssize_t read_at(int fd, void *to, size_t bytes, off_t off)
{
	return syscall(SYS_pread64, fd, to, bytes, off);
}

/* For whom the kernel reads ahead. */
static void follow(int dir, off_t from)
{
	int fd = openat(dir, NAME ".log", O_RDONLY | O_CLOEXEC);
	static char buf[64 << 10];

	CHECK_GE(fd, 0);
	for (unsigned i = 0; i < 64 && read_at(fd, buf, sizeof(buf), from) > 0; i++)
		from += (off_t)sizeof(buf);
	close(fd);
}

ssize_t pread(int fd, void *to, size_t bytes, off_t off)
{
	bytes_read += bytes;
	if (followed_dir >= 0 && bytes > 4096)
		follow(followed_dir, off);
	return read_at(fd, to, bytes, off);
}

static void check_reserved(int is_followed)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	int dir = logfile_dir(), fd;
	struct said said;

	logfile_write(&f, dir);
	fd = openat(dir, NAME ".log", O_WRONLY | O_CLOEXEC);
	if (fallocate(fd, 0, 0, 256 << 20))
		SKIP("nothing can be reserved here: %s", strerror(errno));
	close(fd);
	followed_dir = is_followed ? dir : -1;
	bytes_read = 0;
	CHECK_EQ(recover(dir, &said).off, f.bytes);
	followed_dir = -1;
	CHECK_LT(bytes_read, 16 << 20);
	logfile_free(&f);
	close(dir);
}

TEST(what_was_only_reserved_is_not_read)
{
	check_reserved(0);
}

TEST(what_was_only_reserved_is_not_read_where_somebody_follows_the_log)
{
	check_reserved(1);
}

static void check_cut(const struct logfile *f, int dir, size_t from, size_t to,
		      const struct log_state *s)
{
	char name[64];
	size_t bytes;
	char *mem;

	while (to > from && !f->mem[to - 1])
		to--;
	CHECK_EQ(s->cut_bytes, to - from);
	CHECK_EQ(count_cut(dir), to > from);
	if (to == from)
		return;
	snprintf(name, sizeof(name), "cut/" NAME ".log-%zu.0", from);
	mem = logfile_get(dir, name, &bytes);
	CHECK_EQ(bytes, to - from);
	CHECK_MEM(mem, f->mem + from, bytes);
	free(mem);
}

TEST_WITHIN(a_segment_cut_at_any_byte_keeps_every_whole_record, 120)
{
	size_t end[RECORDS + 1], n;
	struct logfile f = eight(end);
	unsigned whole = 0;
	struct log_state s;
	struct said said;
	int dir = logfile_dir();

	for (n = LOG_BLOCK; n <= f.bytes; n++) {
		if (whole < RECORDS && n == end[whole + 1])
			whole++;
		logfile_write(&f, dir); /* with its index */
		logfile_write_cut(&f, dir, n);
		s = recover(dir, &said);
		CHECK_EQ(s.next, FIRST + whole);
		CHECK_EQ(s.off, end[whole]);
		CHECK_EQ(s.max_ts, whole ? TS(FIRST + whole - 1) : 900);
		CHECK_EQ(size_of(dir, NAME ".log"), end[whole]);
		CHECK_LE((size_of(dir, NAME ".idx") - 64) / 32, whole);
		check_cut(&f, dir, end[whole], n, &s);
		check_twice_is_once(dir, &s);
		check_readable(dir, FIRST, s.next);
		forget_cut(dir);
	}
	logfile_free(&f);
	close(dir);
}

TEST_WITHIN(a_flipped_bit_costs_nothing_before_it_and_all_from_it_on_is_kept, 120)
{
	size_t end[RECORDS + 1], i;
	struct logfile f = eight(end);
	unsigned hit = 0;
	struct log_state s;
	struct said said;
	int dir = logfile_dir();

	for (i = LOG_BLOCK; i < f.bytes; i++) {
		if (i == end[hit + 1])
			hit++;
		if (i >= end[hit] + 40 + 23 + 3 * (size_t)hit)
			continue; /* padding holds nothing */
		f.mem[i] ^= (char)(1 << i % 8);
		logfile_write(&f, dir);
		s = recover(dir, &said);
		CHECK_EQ(said.lines, 1);
		check_said(&said, NAME ".log: no good record at offset ");
		check_said(&said, "cut/");
		CHECK_EQ(s.next, FIRST + hit);
		CHECK_EQ(s.off, end[hit]);
		check_cut(&f, dir, end[hit], f.bytes, &s);
		check_twice_is_once(dir, &s);
		check_readable(dir, FIRST, s.next);
		forget_cut(dir);
		f.mem[i] ^= (char)(1 << i % 8);
	}
	CHECK_EQ(hit, RECORDS - 1);
	logfile_free(&f);
	close(dir);
}

TEST(what_was_cut_before_is_not_overwritten)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	struct log_state s;
	struct said said;
	unsigned i;
	int dir = logfile_dir();

	f.mem[end[3] + 8] ^= 1;
	for (i = 0; i < 3; i++) {
		logfile_write(&f, dir);
		s = recover(dir, &said);
		CHECK_EQ(s.next, FIRST + 3);
		CHECK_EQ(count_cut(dir), i + 1);
	}
	check_said(&said, ".log-" /* offset */);
	check_said(&said, ".2");
	logfile_free(&f);
	close(dir);
}

TEST(an_ended_segment_is_gone_on_with_in_the_next)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	struct log_state s;
	struct said said;
	int dir = logfile_dir();

	logfile_end(&f);
	logfile_write(&f, dir);
	s = recover(dir, &said);
	CHECK_EQ(s.has_segment, 0);
	CHECK_EQ(s.has_next, 1);
	CHECK_EQ(s.next, FIRST + RECORDS);
	CHECK_EQ(s.max_ts, TS(FIRST + RECORDS - 1));
	CHECK_EQ(size_of(dir, NAME ".log"), f.bytes);
	check_twice_is_once(dir, &s);
	logfile_free(&f);
	close(dir);
}

TEST(only_the_last_segment_is_looked_through)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end), g;
	struct log_state s;
	struct said said;
	size_t bytes;
	char *mem;
	int dir = logfile_dir();

	f.mem[end[2] + 8] ^= 1;
	logfile_end(&f);
	logfile_write(&f, dir);
	logfile_begin(&g, f.seq, f.max_ts);
	logfile_message(&g, 5, 10);
	logfile_write(&g, dir);
	s = recover(dir, &said);
	CHECK_EQ(said.lines, 0);
	CHECK_EQ(s.first_seq, g.first_seq);
	CHECK_EQ(s.next, g.seq);
	CHECK_EQ(s.max_ts, f.max_ts);
	mem = logfile_get(dir, NAME ".log", &bytes);
	CHECK_MEM(mem, f.mem, f.bytes);
	free(mem);
	logfile_free(&f);
	logfile_free(&g);
	close(dir);
}

TEST(a_last_segment_that_is_none_of_ours_is_set_aside_whole)
{
	char name[LOG_NAME_BYTES], kept[64];
	size_t end[RECORDS + 1];
	struct logfile f = eight(end), g;
	struct log_state s;
	struct said said;
	unsigned how;
	int dir = logfile_dir();

	logfile_end(&f);
	shmq__log_name(f.seq, "log", name);
	for (how = 0; how < 6; how++) {
		logfile_write(&f, dir);
		logfile_begin(&g, f.seq, f.max_ts);
		logfile_message(&g, 5, 10);
		if (how == 0) {
			g.mem[100] ^= 1; /* damaged */
			logfile_write(&g, dir);
		} else if (how == 1) {
			g.mem[16] ^= 1; /* of another log */
			logfile_sum_header(&g);
			logfile_write(&g, dir);
		} else if (how == 2) {
			g.mem[64] ^= 1; /* of another partition */
			logfile_sum_header(&g);
			logfile_write(&g, dir);
		} else if (how == 3) {
			CHECK_EQ(mkfifoat(dir, name, 0600), 0);
		} else if (how == 4) {
			CHECK_EQ(mkdirat(dir, name, 0700), 0);
		} else {
			CHECK_EQ(symlinkat("nowhere", dir, name), 0);
		}
		s = recover(dir, &said);
		CHECK_EQ(said.lines, 2);
		check_said(&said, "was moved to cut/");
		CHECK_EQ(s.has_segment, 0);
		CHECK_EQ(s.next, f.seq);
		snprintf(kept, sizeof(kept), "cut/%s.0", name);
		size_of(dir, kept);
		CHECK_LT(faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW), 0);
		check_twice_is_once(dir, &s);
		check_readable(dir, FIRST, s.next);
		forget_cut(dir);
		logfile_free(&g);
	}
	logfile_free(&f);
	close(dir);
}

/* ---- plain and compressed ------------------------------------------------- */

enum spoilt { GARBAGE, EMPTY, HEADER, RECORD, TORN, SHORT, FIFO, DIRECTORY, LINK, SPOILT };

/* The file NAME.log, as it was or not. */
static void put_plain(int dir, struct logfile *f, const size_t *end, enum spoilt how)
{
	size_t flipped = how == HEADER ? 200 : end[3] + 50;

	if (how == GARBAGE)
		logfile_put(dir, NAME ".log", "what is this", 12);
	else if (how == EMPTY)
		logfile_put(dir, NAME ".log", "", 0);
	else if (how == TORN || how == SHORT)
		logfile_write_cut(f, dir, end[4] + (how == TORN ? 16 : 0));
	else if (how == FIFO)
		CHECK_EQ(mkfifoat(dir, NAME ".log", 0600), 0);
	else if (how == DIRECTORY)
		CHECK_EQ(mkdirat(dir, NAME ".log", 0700), 0);
	else if (how == LINK)
		CHECK_EQ(symlinkat("nowhere", dir, NAME ".log"), 0);
	if (how != HEADER && how != RECORD)
		return;
	f->mem[flipped] ^= 4;
	logfile_write_cut(f, dir, f->bytes);
	f->mem[flipped] ^= 4;
}

static int is_there(int dir, const char *name)
{
	return !faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

/* What is synced is there as long as one of the two files is good. */
static void check_pair(struct logfile *f, const size_t *end, enum spoilt how, unsigned has_next)
{
	struct logfile next;
	struct log_state s;
	struct said said;
	int dir = logfile_dir();

	NOTE("spoilt %u, %s", how, has_next ? "followed" : "last");
	logfile_write_zip(f, dir, 100);
	put_plain(dir, f, end, how);
	logfile_begin(&next, f->seq, f->max_ts);
	logfile_message(&next, 5, 10);
	if (has_next)
		logfile_write(&next, dir);
	s = recover(dir, &said);
	if (how == SHORT && !has_next) { /* cut there on purpose */
		check_said(&said, NAME ".zst was moved to cut/");
		CHECK_EQ(s.next, FIRST + 4);
	} else {
		check_said(&said, NAME ".log is not whole, but is compressed beside it");
		check_said(&said, NAME ".log was moved to cut/");
		CHECK_EQ(s.next, f->seq + has_next);
		CHECK(is_there(dir, NAME ".zst") && !is_there(dir, NAME ".log"));
	}
	CHECK_EQ(count_cut(dir), 1);
	check_twice_is_once(dir, &s);
	check_readable(dir, FIRST, s.next);
	logfile_free(&next);
	close(dir);
}

TEST(of_a_segment_that_is_plain_and_compressed_the_good_one_counts)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	enum spoilt how;

	logfile_end(&f);
	for (how = 0; how < SPOILT; how++) {
		check_pair(&f, end, how, 0);
		check_pair(&f, end, how, 1);
	}
	logfile_free(&f);
}

TEST(of_two_that_are_good_the_plain_one_stays_and_of_two_that_are_not_too)
{
	size_t end[RECORDS + 1], bytes;
	struct logfile f = eight(end);
	struct log_state s;
	struct said said;
	char *zip;
	int dir = logfile_dir();

	logfile_end(&f);
	logfile_write_zip(&f, dir, 100);
	logfile_write_cut(&f, dir, f.bytes);
	s = recover(dir, &said);
	check_said(&said, NAME ".zst was not finished, and was removed");
	CHECK_EQ(count_cut(dir), 0);
	check_readable(dir, FIRST, f.seq);

	zip = logfile_zip(&f, 100, &bytes);
	zip[bytes / 2] ^= 1;
	logfile_put(dir, NAME ".zst", zip, bytes);
	put_plain(dir, &f, end, RECORD);
	s = recover(dir, &said);
	check_said(&said, NAME ".log is not whole, nor is it compressed beside it");
	check_said(&said, NAME ".zst was moved to cut/");
	CHECK_EQ(s.next, FIRST + 3);
	free(zip);
	logfile_free(&f);
	close(dir);
}

TEST(what_was_set_aside_before_is_not_replaced)
{
	struct log_state s;
	struct said said;
	unsigned i;
	int dir = logfile_dir();

	for (i = 0; i < 3; i++) {
		logfile_put(dir, NAME ".log", "damage", i);
		s = recover(dir, &said);
		CHECK(!s.has_next);
		CHECK_EQ(count_cut(dir), i + 1);
	}
	CHECK_EQ(size_of(dir, "cut/" NAME ".log.1"), 1);
	close(dir);
}

TEST(a_segment_of_another_version_or_byte_order_is_not_touched)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	struct log_state s;
	struct shmq__why why;
	int dir = logfile_dir();

	f.mem[8] = 2;
	logfile_sum_header(&f);
	logfile_write(&f, dir);
	CHECK_EQ(shmq__log_recover(dir, &logfile_owner, DEPTH, &s, NULL, NULL, &why),
		 SHMQ_EVERSION);
	CHECK(strstr(why.text, NAME ".log has version 2"));
	memcpy(f.mem, "1gesQMHS", 8);
	logfile_write(&f, dir);
	CHECK_EQ(shmq__log_recover(dir, &logfile_owner, DEPTH, &s, NULL, NULL, &why),
		 SHMQ_EVERSION);
	CHECK(strstr(why.text, "byte order"));
	CHECK_EQ(count_cut(dir), 0);
	logfile_free(&f);
	close(dir);
}

/* ---- atomic batches ---------------------------------------------------------- */

struct member {
	unsigned batch, index, count; /* count 0: a message */
};

/* Where a log of these members ends after recovery. */
static uint64_t recover_members(const struct member *m, unsigned n, unsigned gap_before,
				uint16_t gap)
{
	/* Of one that began before this segment. */
	uint64_t first[4] = { 0, FIRST - 1, FIRST - 1, FIRST - 1 }, next;
	struct logfile f;
	struct log_state s;
	struct said said;
	unsigned i;
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 0);
	for (i = 0; i < n; i++) {
		if (i && i == gap_before)
			logfile_skip(&f, LOG_GAP, 1, gap);
		if (!m[i].index)
			first[m[i].batch] = f.seq;
		if (m[i].count)
			logfile_member(&f, first[m[i].batch], m[i].index, m[i].count);
		else
			logfile_message(&f, TS(f.seq), 10);
	}
	logfile_write(&f, dir);
	s = recover(dir, &said);
	next = s.next - FIRST;
	if (s.next == f.seq)
		CHECK_EQ(said.lines, 0);
	else
		check_cut(&f, dir, (size_t)s.off, f.bytes, &s);
	check_twice_is_once(dir, &s);
	check_readable(dir, FIRST, s.next);
	logfile_free(&f);
	close(dir);
	return next;
}

#define RECOVER(...) RECOVER_GAP(0, 0, __VA_ARGS__)
#define RECOVER_GAP(before, gap, ...) \
	recover_members((const struct member[]){ __VA_ARGS__ }, \
			COUNT(((const struct member[]){ __VA_ARGS__ })), before, gap)

TEST(an_atomic_batch_of_which_a_part_is_missing_is_cut)
{
	CHECK_EQ(RECOVER({ 0 }, { 1, 0, 2 }, { 1, 1, 2 }), 3);
	CHECK_EQ(RECOVER({ 0 }, { 1, 0, 2 }), 1);
	CHECK_EQ(RECOVER({ 0 }, { 1, 0, 3 }, { 1, 1, 3 }), 1);
	CHECK_EQ(RECOVER({ 1, 0, 1 }, { 0 }), 2);
	/* What follows it goes as well: it was never confirmed. */
	CHECK_EQ(RECOVER({ 0 }, { 1, 0, 2 }, { 0 }, { 0 }), 1);
}

TEST(batches_that_interleave_with_one_that_is_not_whole_are_cut_with_it)
{
	CHECK_EQ(RECOVER({ 1, 0, 2 }, { 2, 0, 2 }, { 1, 1, 2 }, { 2, 1, 2 }), 4);
	CHECK_EQ(RECOVER({ 1, 0, 3 }, { 2, 0, 2 }, { 1, 1, 3 }, { 2, 1, 2 }), 0);
	/* Cut at the second, the first would be in pieces. */
	CHECK_EQ(RECOVER({ 1, 0, 2 }, { 2, 0, 3 }, { 1, 1, 2 }, { 2, 1, 3 }), 0);
	CHECK_EQ(RECOVER({ 0 }, { 1, 0, 2 }, { 2, 0, 2 }, { 3, 0, 2 }, { 1, 1, 2 }, { 3, 1, 2 }),
		 1);
	CHECK_EQ(RECOVER({ 1, 0, 2 }, { 1, 1, 2 }, { 0 }, { 2, 0, 2 }, { 3, 0, 1 }), 3);
	CHECK_EQ(RECOVER({ 1, 0, 2 }, { 2, 0, 2 }, { 1, 1, 2 }, { 2, 1, 2 }, { 3, 0, 2 }), 4);
}

TEST(a_batch_of_which_a_gap_has_a_part_is_not_cut)
{
	/* Else all since the gap would go. */
	CHECK_EQ(RECOVER_GAP(2, LOG_GAP_UNKNOWN, { 0 }, { 1, 0, 3 }, { 1, 2, 3 }, { 0 }, { 0 }), 6);
	CHECK_EQ(RECOVER_GAP(1, LOG_GAP_UNKNOWN, { 1, 0, 2 }, { 0 }, { 2, 0, 2 }), 3);
	/* One that a tailer was overrun by holds none of its members. */
	CHECK_EQ(RECOVER_GAP(2, LOG_GAP_OVERRUN, { 0 }, { 1, 0, 2 }, { 1, 1, 2 }, { 0 }), 5);
	CHECK_EQ(RECOVER_GAP(2, LOG_GAP_OVERRUN, { 0 }, { 1, 0, 3 }, { 1, 1, 3 }, { 0 }), 1);
	/* Nor one that has begun in the segment before. */
	CHECK_EQ(RECOVER({ 1, 1, 2 }, { 0 }), 2);
	CHECK_EQ(RECOVER({ 1, 0, 3 }, { 2, 1, 2 }, { 1, 1, 3 }), 0);
}

/* ---- ... in several segments -------------------------------------------------- */

enum { MEMBERS = 12 };

/* Two batches that interleave, one before them, one behind. */
static const struct member spanning[MEMBERS] = {
	{ 0 },       { 1, 0, 2 }, { 1, 1, 2 }, { 2, 0, 4 }, { 2, 1, 4 }, { 3, 0, 2 },
	{ 2, 2, 4 }, { 3, 1, 2 }, { 2, 3, 4 }, { 0 },       { 1, 0, 2 }, { 1, 1, 2 },
};

/* So many records are left: where the log has to end. */
static unsigned end_of(unsigned left)
{
	static const unsigned end[MEMBERS + 1] = { 0, 1, 1, 3, 3, 3, 3, 3, 3, 9, 10, 10, 12 };

	return end[left];
}

/* A bit for each record before which a segment begins, but for the first. */
static void put_spanning(int dir, unsigned rolls, unsigned left, int is_zipped, int is_ended)
{
	uint64_t first[4] = { 0 };
	struct logfile f;
	unsigned i;

	logfile_begin(&f, FIRST, 900);
	f.index_every = 1;
	for (i = 0; i < left; i++) {
		const struct member *m = &spanning[i];

		if (i && rolls & 1u << i) {
			uint64_t seq = f.seq, ts = f.max_ts;

			logfile_end(&f);
			if (is_zipped)
				logfile_write_zip(&f, dir, 4096);
			else
				logfile_write(&f, dir);
			logfile_free(&f);
			logfile_begin(&f, seq, ts);
			f.index_every = 1;
		}
		if (m->count && !m->index)
			first[m->batch] = f.seq;
		if (m->count)
			logfile_member(&f, first[m->batch], m->index, m->count);
		else
			logfile_message(&f, TS(f.seq), 10);
	}
	if (is_ended)
		logfile_end(&f);
	if (is_ended && is_zipped)
		logfile_write_zip(&f, dir, 4096);
	else
		logfile_write(&f, dir);
	logfile_free(&f);
}

static int empty_dir(void)
{
	static unsigned n;
	char name[16];
	int dir = logfile_dir(), fd;

	snprintf(name, sizeof(name), "d%u", n++);
	CHECK_EQ(mkdirat(dir, name, 0700), 0);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	close(dir);
	return fd;
}

static void recover_spanning(unsigned rolls, unsigned left, unsigned how)
{
	unsigned end = end_of(left);
	int dir = empty_dir();
	struct log_state s;
	struct said said;

	put_spanning(dir, rolls, left, how & 1, how & 2);
	s = recover(dir, &said);
	CHECK_EQ(s.next, FIRST + end);
	CHECK_EQ(s.max_ts, end < 10 ? TS(FIRST) : TS(FIRST + 9));
	if (end == left)
		CHECK_EQ(said.lines, 0);
	else
		CHECK_GE(count_cut(dir), 1);
	check_twice_is_once(dir, &s);
	check_readable(dir, FIRST, s.next);
	close(dir);
}

TEST_WITHIN(a_batch_in_several_segments_is_there_whole_or_not_at_all, 120)
{
	unsigned left, a, n = 0;

	/* Two or three segments; and one for each record. */
	for (left = 2; left <= MEMBERS; left++) {
		for (a = 1; a < left; a++, n++)
			recover_spanning(1u << a | 1u << (a + 3), left, n % 4);
		recover_spanning(~0u, left, left % 4);
		recover_spanning(~0u, left, (left + 1) % 4);
	}
}

/* Its beginning was cut with all of the ring that may hold it. */
TEST(what_began_more_than_a_ring_before_the_last_segment_is_not_judged)
{
	struct logfile f;
	struct log_state s;
	struct said said;
	int dir = logfile_dir();
	uint64_t seq;

	logfile_begin(&f, FIRST, 0);
	logfile_member(&f, FIRST, 0, 2);
	for (unsigned i = 0; i < DEPTH; i++)
		logfile_message(&f, TS(f.seq), 10);
	seq = f.seq;
	logfile_end(&f);
	logfile_write(&f, dir);
	logfile_free(&f);
	logfile_begin(&f, seq, 0);
	logfile_message(&f, TS(f.seq), 10);
	logfile_write(&f, dir);
	s = recover(dir, &said);
	CHECK_EQ(s.next, f.seq);
	CHECK_EQ(said.lines, 0);
	logfile_free(&f);
	close(dir);
}

/* No header of a mad publisher costs what came behind it. */
TEST(what_is_not_whole_a_ring_later_is_no_batch)
{
	struct logfile f;
	struct log_state s;
	struct said said;
	uint64_t end;
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 0);
	logfile_member(&f, FIRST, 0, UINT32_MAX);
	for (unsigned i = 0; i < DEPTH - 2; i++)
		logfile_message(&f, TS(f.seq), 10);
	logfile_write(&f, dir);
	s = recover(dir, &said);
	CHECK_EQ(s.next, FIRST);
	logfile_message(&f, TS(f.seq), 10);
	logfile_write(&f, dir);
	s = recover(dir, &said);
	CHECK_EQ(s.next, FIRST + DEPTH);
	/* Behind it others are judged again. */
	logfile_member(&f, f.seq, 0, 2);
	end = f.seq;
	logfile_message(&f, TS(f.seq), 10);
	logfile_write(&f, dir);
	s = recover(dir, &said);
	CHECK_EQ(s.next, end - 1);
	logfile_free(&f);
	close(dir);
}

/* Batches of two, of which each begins before the one before it is whole, from FIRST on,
 * in two segments; the last one is not. */
static uint64_t put_chain(int dir, unsigned records, unsigned roll)
{
	struct logfile f;
	uint64_t seq;

	logfile_begin(&f, FIRST, 0);
	for (unsigned i = 0; i < records; i++) {
		if (i == roll) {
			seq = f.seq;
			logfile_end(&f);
			logfile_write(&f, dir);
			logfile_free(&f);
			logfile_begin(&f, seq, 0);
		}
		if (i == 1)
			logfile_message(&f, TS(f.seq), 10);
		else if (i % 2)
			logfile_member(&f, f.seq - 3, 1, 2);
		else
			logfile_member(&f, f.seq, 0, 2);
	}
	logfile_write(&f, dir);
	seq = f.seq;
	logfile_free(&f);
	return seq;
}

/* And whoever reads only the end of them sees that they are. */
TEST(batches_that_interleave_for_longer_than_a_ring_are_not_cut)
{
	static const unsigned roll[] = { 1, DEPTH / 2, DEPTH + 7, 2 * DEPTH, 3 * DEPTH - 2 };
	struct log_state s;
	struct said said;
	uint64_t end;
	int dir;

	for (unsigned i = 0; i < COUNT(roll); i++) {
		dir = empty_dir();
		end = put_chain(dir, 3 * DEPTH, roll[i]);
		s = recover(dir, &said);
		CHECK_EQ(s.next, end);
		CHECK_EQ(said.lines, 0);
		close(dir);
	}
	dir = empty_dir();
	put_chain(dir, DEPTH - 2, DEPTH / 2);
	s = recover(dir, &said);
	CHECK_EQ(s.next, FIRST);
	close(dir);
}

/* ---- the ceiling ---------------------------------------------------------------- */

static uint64_t resume_at(int dir, struct said *said)
{
	struct log_state s = recover(dir, said);

	check_twice_is_once(dir, &s);
	return s.resume;
}

TEST(no_seq_below_an_unclean_ceiling_is_given_again)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	struct log_ceiling c;
	struct said said;
	int dir = logfile_dir();

	CHECK_EQ(shmq__log_ceiling_read(dir, &logfile_owner, &c), SHMQ_EEMPTY);
	logfile_ceiling(dir, 0, 2, 100, 0);
	CHECK_EQ(resume_at(dir, &said), 100); /* before any record */
	logfile_write(&f, dir);
	CHECK_EQ(resume_at(dir, &said), 100);
	CHECK_EQ(said.lines, 0);
	logfile_ceiling(dir, 1, 3, FIRST + RECORDS - 2, 0); /* across the wrap */
	CHECK_EQ(resume_at(dir, &said), FIRST + RECORDS);
	CHECK_OK(shmq__log_ceiling_read(dir, &logfile_owner, &c));
	CHECK_EQ(c.serial, 3);
	CHECK_EQ(c.seq, FIRST + RECORDS - 2);
	logfile_free(&f);
	close(dir);
}

TEST(a_log_that_ends_before_a_clean_ceiling_is_told_of)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	struct said said;
	int dir = logfile_dir();

	logfile_write(&f, dir);
	logfile_ceiling(dir, 0, 2, f.seq, 1);
	CHECK_EQ(resume_at(dir, &said), f.seq);
	CHECK_EQ(said.lines, 0);
	logfile_ceiling(dir, 1, 3, f.seq + 4, 1);
	CHECK_EQ(resume_at(dir, &said), f.seq + 4);
	check_said(&said, "the log ends with seq 2, but was stopped in order at 7");
	logfile_free(&f);
	close(dir);
}

TEST(the_newer_of_two_ceilings_counts_and_the_other_one_if_it_is_torn)
{
	struct log_ceiling c;
	struct said said;
	unsigned block, i;
	int dir = logfile_dir(), fd;
	char byte;

	for (block = 0; block < 2; block++) {
		for (i = 0; i < 48; i++) {
			logfile_ceiling(dir, block, 9, 900, i % 2);
			logfile_ceiling(dir, !block, 8, 800, 0);
			CHECK_OK(shmq__log_ceiling_read(dir, &logfile_owner, &c));
			CHECK_EQ(c.serial, 9);
			CHECK_EQ(c.seq, 900);
			CHECK_EQ(c.is_clean, i % 2);
			fd = openat(dir, "ceiling", O_RDWR | O_CLOEXEC);
			CHECK_EQ(pread(fd, &byte, 1, block * LOG_BLOCK + i), 1);
			byte ^= (char)(1 << i % 8);
			CHECK_EQ(pwrite(fd, &byte, 1, block * LOG_BLOCK + i), 1);
			CHECK_OK(shmq__log_ceiling_read(dir, &logfile_owner, &c));
			CHECK_EQ(c.seq, 800);
			CHECK_EQ(pwrite(fd, "x", 1, !block * LOG_BLOCK + i), 1);
			CHECK_EQ(shmq__log_ceiling_read(dir, &logfile_owner, &c), SHMQ_ECORRUPT);
			close(fd);
		}
	}
	CHECK_EQ(resume_at(dir, &said), 0);
	check_said(&said, "ceiling is damaged");
	close(dir);
}

TEST(a_ceiling_that_is_no_file_or_of_another_log_or_partition_counts_for_nothing)
{
	struct log_owner other = logfile_owner;
	struct log_ceiling c;
	struct said said;
	unsigned how;
	int dir = logfile_dir();

	logfile_ceiling(dir, 0, 1, 100, 0);
	other.log_id[0]++;
	CHECK_EQ(shmq__log_ceiling_read(dir, &other, &c), SHMQ_ECORRUPT);
	other = logfile_owner;
	other.partition--;
	CHECK_EQ(shmq__log_ceiling_read(dir, &other, &c), SHMQ_ECORRUPT);
	CHECK_OK(shmq__log_ceiling_read(dir, &logfile_owner, &c));
	for (how = 0; how < 4; how++) {
		CHECK_EQ(unlinkat(dir, "ceiling", how == 2 ? AT_REMOVEDIR : 0), 0);
		if (how == 0)
			CHECK_EQ(mkfifoat(dir, "ceiling", 0600), 0);
		else if (how == 1)
			CHECK_EQ(mkdirat(dir, "ceiling", 0700), 0);
		else if (how == 2)
			CHECK_EQ(symlinkat("nowhere", dir, "ceiling"), 0);
		else
			logfile_put(dir, "ceiling", "SHMQcel1", 8);
		CHECK_EQ(shmq__log_ceiling_read(dir, &logfile_owner, &c), SHMQ_ECORRUPT);
		CHECK_EQ(resume_at(dir, &said), 0);
		check_said(&said, "ceiling is damaged");
	}
	close(dir);
}

TEST(every_shortage_of_memory_stops_recovery_and_spoils_nothing)
{
	size_t end[RECORDS + 1];
	struct logfile f = eight(end);
	struct log_state s;
	struct shmq__why why;
	struct said said;
	unsigned k;
	int dir = logfile_dir(), rc;

	logfile_member(&f, f.seq, 0, 2);
	for (k = 1;; k++) {
		logfile_write(&f, dir);
		scarce_begin(k);
		rc = shmq__log_recover(dir, &logfile_owner, DEPTH, &s, hear, &said, &why);
		if (!scarce_end())
			break;
		CHECK_EQ(rc, -ENOMEM);
		s = recover(dir, &said);
		CHECK_EQ(s.next, FIRST + RECORDS);
		forget_cut(dir);
	}
	CHECK_OK(rc);
	CHECK_GE(k, 4);
	logfile_free(&f);
	close(dir);
}

/* ---- verifying ------------------------------------------------------------------- */

static int count_calls(void *arg, uint64_t bytes)
{
	struct said *s = arg;

	CHECK_GE(bytes, UINT64_C(64) << 20);
	s->lines += 1000;
	return s->lines >= 2000 ? 77 : 0;
}

static struct log_verdict verify(int dir, struct said *said)
{
	struct log_verdict v;
	struct shmq__why why;
	int rc;

	*said = (struct said){ 0 };
	rc = shmq__log_verify(dir, -1, &logfile_owner, &v, hear, NULL, said, &why);
	if (rc)
		FAIL("verifying: %s: %s", shmq_errname(rc), why.text);
	return v;
}

/* Two segments; the gap in them is the log's own. */
static void two_segments(int dir, struct logfile *f, struct logfile *g)
{
	size_t end[RECORDS + 1];

	*f = eight(end);
	logfile_skip(f, LOG_GAP, 5, LOG_GAP_UNKNOWN);
	logfile_end(f);
	logfile_begin(g, f->seq, f->max_ts);
	logfile_message(g, 5, 10);
	logfile_skip(g, LOG_HOLE, 3, 0);
	logfile_write(f, dir);
	logfile_write(g, dir);
}

TEST(what_is_as_it_should_be_is_found_so)
{
	struct logfile f, g;
	struct log_verdict v;
	struct said said;
	int dir = logfile_dir();

	v = verify(dir, &said);
	CHECK(!v.segments && !v.records && !v.damaged && !said.lines);
	two_segments(dir, &f, &g);
	v = verify(dir, &said);
	CHECK_EQ(said.lines, 0);
	CHECK_EQ(v.segments, 2);
	CHECK_EQ(v.records, RECORDS + 3);
	CHECK_EQ(v.bytes, f.bytes + g.bytes - 2 * LOG_BLOCK - 40 /* END */);
	CHECK_EQ(v.damaged, 0);
	CHECK_EQ(v.missing, 0);
	CHECK_EQ(v.gaps, 5);
	CHECK_EQ(v.first, FIRST);
	CHECK_EQ(v.next, g.seq);
	CHECK_OK(shmq__log_verify(dir, -1, NULL, &v, NULL, NULL, NULL, NULL));
	logfile_free(&f);
	logfile_free(&g);
	close(dir);
}

TEST(what_is_damaged_or_missing_is_named)
{
	struct logfile f, g;
	struct log_verdict v;
	struct said said;
	int dir = logfile_dir();

	two_segments(dir, &f, &g);
	f.mem[LOG_BLOCK + 8] ^= 1;
	f.index_every = 0; /* nothing leads past it */
	CHECK_EQ(unlinkat(dir, NAME ".idx", 0), 0);
	logfile_write(&f, dir);
	v = verify(dir, &said);
	CHECK_EQ(v.damaged, 1);
	CHECK_EQ(v.missing, RECORDS + 5);
	check_said(&said, "seqs 18446744073709551611 to 7 are missing");
	CHECK_EQ(v.records, 2);

	f.mem[3] ^= 1; /* and its header */
	logfile_write(&f, dir);
	v = verify(dir, &said);
	CHECK_EQ(v.damaged, 2);
	CHECK_EQ(v.missing, RECORDS + 5);
	CHECK_EQ(v.first, FIRST);
	check_said(&said, NAME ".log is no segment of a log");
	check_said(&said, "seqs 18446744073709551611 to 7 are missing");

	g.mem[3] ^= 1; /* all of them */
	logfile_write(&g, dir);
	v = verify(dir, &said);
	CHECK_EQ(v.segments, 2);
	CHECK_EQ(v.damaged, 2);
	CHECK_EQ(v.records, 0);
	logfile_free(&f);
	logfile_free(&g);
	close(dir);
}

TEST(a_torn_end_and_a_body_that_does_not_add_up_are_named)
{
	struct log_record head = { .body_bytes = 4, .flags = SHMQ_MSG_META, .kind = LOG_MESSAGE };
	struct logfile f, g;
	struct log_verdict v;
	struct said said;
	int dir = logfile_dir();

	two_segments(dir, &f, &g);
	head.seq = g.seq;
	logfile_record(&g, head, "\377\0\0\0");
	logfile_write(&g, dir);
	v = verify(dir, &said);
	CHECK_EQ(v.damaged, 1);
	CHECK_EQ(v.missing, 0);
	check_said(&said, "seq 12: key and properties are longer than the record");
	logfile_message(&g, 9, 20);
	g.mem[g.bytes - 5] ^= 1;
	logfile_write(&g, dir);
	v = verify(dir, &said);
	CHECK_EQ(v.damaged, 2);
	check_said(&said, "is damaged at offset");
	CHECK_EQ(v.next, 13);
	logfile_free(&f);
	logfile_free(&g);
	close(dir);
}

TEST(verifying_tells_how_far_it_is_and_ends_when_told_to)
{
	struct logfile f;
	struct log_verdict v;
	struct said said = { 0 };
	int dir = logfile_dir();

	logfile_begin(&f, FIRST, 0);
	while (f.bytes < (size_t)140 << 20)
		logfile_message(&f, 0, 4 << 20);
	logfile_write(&f, dir);
	logfile_free(&f);
	CHECK_EQ(shmq__log_verify(dir, -1, NULL, &v, hear, count_calls, &said, NULL), 77);
	CHECK_EQ(said.lines, 2000);
	CHECK_GE(v.bytes, 128 << 20);
	CHECK_EQ(v.next, FIRST + v.records);
	close(dir);
}
