/* SPDX-License-Identifier: MIT */
#include "log_reader.h"
#include "logfile.h"
#include "tap.h"

#include "fake.h"
#include "helpers.h"
#include "memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define FIRST (UINT64_C(0) - 60) /* the second of three segments wraps */
#define EACH 40                  /* seqs of a segment */
#define END (FIRST + 3 * EACH)
#define TS(seq) (5000 + 10 * ((seq)-FIRST))

/* ---- a log of three segments --------------------------------------------- */

/* Forty seqs from `first`, a hole and a gap among them. */
static struct logfile segment(uint64_t first)
{
	struct logfile f;
	unsigned i;

	logfile_begin(&f, first, first == FIRST ? 0 : TS(first - 1));
	f.index_every = 512;
	for (i = 0; i < EACH;) {
		if (i == 10) {
			logfile_skip(&f, LOG_HOLE, 4, 0);
			i += 4;
		} else if (i == 20) {
			logfile_skip(&f, LOG_GAP, 5, LOG_GAP_OVERRUN);
			i += 5;
		} else {
			logfile_message(&f, TS(f.seq), 30 + i);
			i++;
		}
	}
	return f;
}

static void put_segment(int dir, unsigned i)
{
	struct logfile f = segment(FIRST + i * EACH);

	if (i < 2)
		logfile_end(&f);
	logfile_write(&f, dir);
	logfile_free(&f);
}

static int three_segments(void)
{
	int dir = logfile_dir();
	unsigned i;

	for (i = 0; i < 3; i++)
		put_segment(dir, i);
	return dir;
}

static void name_of(char *name, unsigned i, const char *suffix)
{
	shmq__log_name(FIRST + i * EACH, suffix, name);
}

static void take_away(int dir, unsigned i)
{
	char name[LOG_NAME_BYTES];

	name_of(name, i, "log");
	CHECK_EQ(unlinkat(dir, name, 0), 0);
}

static struct log_reader *open_reader(int dir)
{
	struct log_reader *r;
	struct shmq__why why;
	int rc = shmq__log_reader_open(dir, &logfile_owner, &r, &why);

	if (rc)
		FAIL("opening: %s: %s", shmq_errname(rc), why.text);
	return r;
}

static void check_next(struct log_reader *r, enum log_kind kind, uint64_t seq, uint64_t count)
{
	struct log_record head;
	struct shmq__why why = { "" };
	const char *body;
	int rc = shmq__log_reader_next(r, NULL, &head, &body, &why);

	if (rc != 1)
		FAIL("next: %s: %s", shmq_errname(rc), why.text);
	CHECK_EQ(head.kind, kind);
	CHECK_EQ(head.seq, seq);
	CHECK_EQ(log_record_count(&head), count);
	if (kind == LOG_MESSAGE)
		CHECK(logfile_is_right(&head, body));
}

static void check_next_is(struct log_reader *r, int want, const uint64_t *limit, const char *text)
{
	struct log_record head;
	struct shmq__why why = { "" };
	const char *body;

	CHECK_ERROR(shmq__log_reader_next(r, limit, &head, &body, &why), want);
	if (!strstr(why.text, text))
		FAIL("\"%s\" does not say \"%s\"", why.text, text);
}

/* ---- reading on ------------------------------------------------------------ */

TEST(segments_are_one_sequence_across_the_wrap)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	struct logfile_tally t = logfile_tally(r, NULL);

	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.first, FIRST);
	CHECK_EQ(t.next, END);
	CHECK_EQ(t.messages, 3 * (EACH - 4 - 5));
	CHECK_EQ(t.holes, 3);
	CHECK_EQ(t.gaps, 15);
	CHECK_EQ(t.lost, 0);
	CHECK_EQ(logfile_tally(r, NULL).rc, 0); /* and again nothing */
	shmq__log_reader_close(r);
	shmq__log_reader_close(NULL);
	close(dir);
}

TEST(the_oldest_seq_is_that_of_the_first_segment_there_is_now)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	uint64_t oldest;

	CHECK_OK(shmq__log_reader_oldest(r, &oldest));
	CHECK_EQ(oldest, FIRST);
	take_away(dir, 0);
	CHECK_OK(shmq__log_reader_oldest(r, &oldest));
	CHECK_EQ(oldest, FIRST + EACH);
	take_away(dir, 1);
	take_away(dir, 2);
	CHECK_EQ(shmq__log_reader_oldest(r, &oldest), SHMQ_EEMPTY);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_reader_keeps_a_directory_of_its_own)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);

	close(dir);
	CHECK_EQ(logfile_tally(r, NULL).next, END);
	shmq__log_reader_close(r);
}

TEST(a_log_of_another_owner_is_not_opened)
{
	struct log_owner other = logfile_owner;
	struct log_reader *r;
	struct shmq__why why;
	int dir = three_segments();

	other.partition++;
	CHECK_EQ(shmq__log_reader_open(dir, &other, &r, &why), SHMQ_ECORRUPT);
	CHECK(strstr(why.text, "partition"));
	CHECK(!r);
	CHECK_OK(shmq__log_reader_open(dir, NULL, &r, &why));
	CHECK_EQ(logfile_tally(r, NULL).lost, 0);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(nothing_is_read_at_or_behind_the_limit)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	struct logfile_tally t;
	uint64_t limit, last = FIRST;

	for (limit = FIRST - 2; limit != END + 1; limit++) {
		t = logfile_tally(r, &limit);
		if (limit != END)
			CHECK_EQ(t.rc, 0);
		CHECK_EQ(t.first, last);
		CHECK(seq_diff(limit, FIRST) <= 0 ? t.next == FIRST : seq_diff(t.next, limit) >= 0);
		CHECK_LE(seq_diff(t.next, limit), seq_diff(limit, FIRST) <= 0 ? 2 : 4);
		last = t.next;
	}
	CHECK_EQ(last, END);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_log_that_is_shorter_than_its_limit_ends_before_it)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	uint64_t limit = END + 1;
	unsigned i;

	CHECK_EQ(logfile_tally(r, &limit).rc, 0);
	CHECK_EQ(shmq__log_reader_seq(r), END);
	for (i = 0; i < 3; i++)
		take_away(dir, i);
	CHECK_OK(shmq__log_reader_seek(r, END, NULL));
	check_next_is(r, 0, &limit, "");
	CHECK_EQ(shmq__log_reader_seq(r), END);
	shmq__log_reader_close(r);
	close(dir);
}

/* ---- seeking ----------------------------------------------------------------- */

/* The record that covers seq. */
static void check_at(struct log_reader *r, uint64_t seq)
{
	uint64_t i = (seq - FIRST) % EACH;

	CHECK_EQ(shmq__log_reader_seq(r), seq);
	if (i >= 10 && i < 14)
		check_next(r, LOG_HOLE, seq, 14 - i);
	else if (i >= 20 && i < 25)
		check_next(r, LOG_GAP, seq, 25 - i);
	else
		check_next(r, LOG_MESSAGE, seq, 1);
}

TEST(every_seq_is_gone_to_and_gaps_and_holes_are_trimmed)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	struct logfile_tally t;
	uint64_t seq;

	for (seq = FIRST; seq != END; seq++) {
		CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
		check_at(r, seq);
		CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
		t = logfile_tally(r, NULL);
		CHECK_EQ(t.first, seq);
		CHECK_EQ(t.next, END);
		CHECK_EQ(t.lost, 0);
	}
	shmq__log_reader_close(r);
	close(dir);
}

TEST(what_lies_before_the_log_is_not_missing_from_it)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	struct logfile_tally t;

	CHECK_OK(shmq__log_reader_seek(r, FIRST - 1000, NULL));
	CHECK_EQ(shmq__log_reader_seq(r), FIRST);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.first, FIRST);
	CHECK_EQ(t.lost, 0);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_seq_that_is_not_there_yet_comes)
{
	int dir = logfile_dir();
	struct log_reader *r;

	put_segment(dir, 0);
	r = open_reader(dir);
	CHECK_OK(shmq__log_reader_seek(r, FIRST + EACH + 3, NULL));
	check_next_is(r, 0, NULL, "");
	CHECK_EQ(shmq__log_reader_seq(r), FIRST + EACH + 3);
	put_segment(dir, 1);
	check_at(r, FIRST + EACH + 3);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_reader_of_an_empty_directory_begins_where_the_log_does)
{
	int dir = logfile_dir(), i;
	struct log_reader *r;
	uint64_t limit = END;

	for (i = 0; i < 2; i++) {
		r = open_reader(dir);
		check_next_is(r, 0, NULL, "");
		check_next_is(r, 0, &limit, "");
		if (i) /* for what comes first, whenever it was */
			CHECK_OK(shmq__log_reader_seek_time(r, TS(FIRST + 5), NULL));
		put_segment(dir, 0);
		check_next(r, LOG_MESSAGE, FIRST, 1);
		CHECK_EQ(logfile_tally(r, NULL).next, FIRST + EACH);
		shmq__log_reader_close(r);
		take_away(dir, 0);
	}
	close(dir);
}

/* ---- seeking by time ------------------------------------------------------------ */

/* Two segments in which the clock steps back, by more than one of them holds. */
static int stepping(uint64_t ts[2 * EACH])
{
	struct logfile f;
	int dir = logfile_dir();
	unsigned i;

	logfile_begin(&f, FIRST, 0);
	f.index_every = 256;
	for (i = 0; i < 2 * EACH; i++) {
		ts[i] = 1000 + 20 * i - (i >= 13 && i < 19 ? 150 : 0) -
			(i >= 35 && i < 60 ? 1300 : 0) + (i == 70 ? 500 : 0);
		if (i == EACH) {
			uint64_t base = f.max_ts;

			logfile_end(&f);
			logfile_write(&f, dir);
			logfile_free(&f);
			logfile_begin(&f, FIRST + EACH, base);
			f.index_every = 256;
		}
		logfile_message(&f, ts[i], 50);
	}
	logfile_write(&f, dir);
	logfile_free(&f);
	return dir;
}

TEST(every_time_is_gone_to_though_the_clock_steps_back)
{
	uint64_t ts[2 * EACH], t;
	int dir = stepping(ts);
	struct log_reader *r = open_reader(dir);
	unsigned i;

	for (t = 0; t < 3300; t++) {
		if (t && t < 600)
			t = 600;
		for (i = 0; i < 2 * EACH && ts[i] < t;)
			i++;
		CHECK_OK(shmq__log_reader_seek_time(r, t, NULL));
		CHECK_EQ(shmq__log_reader_seq(r), FIRST + i);
		if (i < 2 * EACH)
			check_next(r, LOG_MESSAGE, FIRST + i, 1);
		else
			check_next_is(r, 0, NULL, "");
	}
	CHECK_OK(shmq__log_reader_seek_time(r, UINT64_MAX, NULL));
	CHECK_EQ(shmq__log_reader_seq(r), FIRST + 2 * EACH);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_time_is_found_though_headers_are_damaged)
{
	char name[LOG_NAME_BYTES];
	struct log_reader *r;
	unsigned i;
	int dir;

	for (i = 0; i < 3; i++) {
		dir = three_segments();
		name_of(name, i, "log");
		logfile_put(dir, name, "damage", 6);
		r = open_reader(dir);
		CHECK_OK(shmq__log_reader_seek_time(r, TS(FIRST + EACH + 3), NULL));
		/* It may be in what is missing. */
		CHECK_EQ(shmq__log_reader_seq(r), FIRST + EACH + (i == 1 ? 0 : 3));
		CHECK_OK(shmq__log_reader_seek_time(r, TS(FIRST + 3), NULL));
		CHECK_EQ(shmq__log_reader_seq(r), FIRST + (i == 0 ? 0 : 3));
		CHECK_OK(shmq__log_reader_seek_time(r, UINT64_MAX, NULL));
		shmq__log_reader_close(r);
		close(dir);
	}
}

/* ---- missing and damaged ------------------------------------------------------- */

TEST(a_segment_that_is_missing_comes_as_a_gap)
{
	int dir = three_segments();
	struct log_reader *r;
	struct logfile_tally t;
	uint64_t seq;

	take_away(dir, 1);
	r = open_reader(dir);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.next, END);
	CHECK_EQ(t.lost, EACH);
	for (seq = FIRST + EACH; seq != FIRST + 2 * EACH; seq++) {
		CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
		check_next(r, LOG_GAP, seq, FIRST + 2 * EACH - seq);
	}
	shmq__log_reader_close(r);
	close(dir);
}

TEST(what_retention_removes_under_a_reader_comes_as_a_gap)
{
	int dir = three_segments();
	struct log_reader *r = open_reader(dir);
	struct logfile_tally t;

	check_next(r, LOG_MESSAGE, FIRST, 1);
	take_away(dir, 0);
	take_away(dir, 1);
	t = logfile_tally(r, NULL); /* what is open is still there */
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.first, FIRST + 1);
	CHECK_EQ(t.next, END);
	CHECK_EQ(t.lost, EACH);
	CHECK_OK(shmq__log_reader_seek(r, FIRST, NULL));
	CHECK_EQ(shmq__log_reader_seq(r), FIRST + 2 * EACH);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(what_is_no_segment_comes_as_a_gap)
{
	char name[LOG_NAME_BYTES];
	struct logfile_tally t;
	struct log_reader *r;
	struct logfile f;
	unsigned how;
	int dir = three_segments();

	name_of(name, 1, "log");
	for (how = 0; how < 5; how++) {
		CHECK_EQ(unlinkat(dir, name, how == 2 ? AT_REMOVEDIR : 0), 0);
		if (how == 0) {
			CHECK_EQ(mkfifoat(dir, name, 0600), 0);
		} else if (how == 1) {
			CHECK_EQ(mkdirat(dir, name, 0700), 0);
		} else if (how == 2) {
			CHECK_EQ(symlinkat("/dev/zero", dir, name), 0);
		} else if (how == 3) {
			logfile_put(dir, name, "", 0);
		} else {
			f = segment(FIRST + EACH); /* of another partition */
			f.mem[64]++;
			logfile_sum_header(&f);
			logfile_write(&f, dir);
			logfile_free(&f);
		}
		r = open_reader(dir);
		t = logfile_tally(r, NULL);
		CHECK_EQ(t.rc, 0);
		CHECK_EQ(t.next, END);
		CHECK_EQ(t.lost, EACH);
		shmq__log_reader_close(r);
	}
	close(dir);
}

TEST(a_foreign_segment_between_two_is_passed)
{
	int dir = three_segments();
	struct log_reader *r;
	struct logfile_tally t;
	struct logfile f;
	uint64_t seq;

	logfile_begin(&f, FIRST + EACH + 7, 0);
	f.mem[16] ^= 1;
	logfile_sum_header(&f);
	logfile_message(&f, 0, 10);
	logfile_write(&f, dir);
	logfile_free(&f);
	r = open_reader(dir);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.next, END);
	CHECK_EQ(t.lost, 0);
	for (seq = FIRST; seq != END; seq++) {
		CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
		check_at(r, seq);
	}
	shmq__log_reader_close(r);
	close(dir);
}

/* A writer makes the file, reserves its space, and writes a header then. */
TEST(a_segment_that_is_only_a_name_yet_is_to_come)
{
	static const char zeros[2 * LOG_BLOCK];
	struct log_reader *r, *at_roll;
	struct shmq__why why = { "" };
	struct log_record head;
	int dir = logfile_dir();
	const char *body;
	char name[LOG_NAME_BYTES];
	size_t bytes[] = { 0, 7, LOG_BLOCK, sizeof(zeros) };
	unsigned i, k;

	for (k = 0; k < COUNT(bytes); k++) {
		shmq__log_name(FIRST, "log", name);
		logfile_put(dir, name, zeros, bytes[k]);
		CHECK_OK(shmq__log_reader_open(dir, NULL, &r, &why));
		CHECK_OK(shmq__log_reader_seek(r, FIRST, &why));
		CHECK_EQ(shmq__log_reader_next(r, NULL, &head, &body, &why), 0);
		put_segment(dir, 0);
		CHECK_EQ(shmq__log_reader_next(r, NULL, &head, &body, &why), 1);
		CHECK_EQ(head.seq, FIRST);
		shmq__log_reader_close(r);

		CHECK_OK(shmq__log_reader_open(dir, NULL, &at_roll, &why));
		for (i = 0; shmq__log_reader_next(at_roll, NULL, &head, &body, &why) == 1;)
			i++;
		shmq__log_name(FIRST + EACH, "log", name);
		logfile_put(dir, name, zeros, bytes[k]);
		CHECK_EQ(shmq__log_reader_next(at_roll, NULL, &head, &body, &why), 0);
		put_segment(dir, 1);
		CHECK_EQ(shmq__log_reader_next(at_roll, NULL, &head, &body, &why), 1);
		CHECK_EQ(head.seq, FIRST + EACH);
		shmq__log_reader_close(at_roll);
		CHECK_EQ(unlinkat(dir, name, 0), 0);
	}
	close(dir);
}

TEST(what_two_segments_have_both_is_handed_out_once)
{
	int dir = three_segments();
	struct log_reader *r;
	struct logfile_tally t;
	struct logfile f;
	uint64_t ts = TS(FIRST + 2 * EACH - 5);

	logfile_begin(&f, FIRST + 2 * EACH - 5, 0);
	while (f.seq != FIRST + 2 * EACH)
		logfile_message(&f, ts, 10);
	logfile_end(&f);
	logfile_write(&f, dir);
	logfile_free(&f);
	r = open_reader(dir);
	t = logfile_tally(r, NULL);
	CHECK_EQ(t.rc, 0);
	CHECK_EQ(t.next, END);
	CHECK_EQ(t.lost, 0);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_log_whose_first_segments_are_damaged_begins_with_a_gap)
{
	char name[LOG_NAME_BYTES];
	int dir = three_segments();
	struct log_reader *r;
	uint64_t limit = FIRST + 7;

	name_of(name, 0, "log");
	logfile_put(dir, name, "damage", 6);
	name_of(name, 1, "log");
	logfile_put(dir, name, "damage", 6);
	r = open_reader(dir);
	CHECK_EQ(shmq__log_reader_seq(r), FIRST);
	CHECK_EQ(logfile_tally(r, &limit).lost, 2 * EACH);
	check_at(r, FIRST + 2 * EACH);
	CHECK_OK(shmq__log_reader_seek(r, FIRST + 7, NULL));
	CHECK_EQ(shmq__log_reader_seq(r), FIRST + 7);
	check_next_is(r, 0, &limit, "");
	check_next(r, LOG_GAP, FIRST + 7, 2 * EACH - 7);
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_log_that_ends_with_a_damaged_segment_says_so)
{
	char name[LOG_NAME_BYTES];
	int dir = three_segments();
	struct log_reader *r;
	struct shmq__why why;
	unsigned i;

	name_of(name, 2, "log");
	logfile_put(dir, name, "damage", 6);
	r = open_reader(dir);
	CHECK_EQ(logfile_tally(r, NULL).rc, SHMQ_ECORRUPT);
	CHECK_EQ(shmq__log_reader_seq(r), FIRST + 2 * EACH);
	check_next_is(r, SHMQ_ECORRUPT, NULL, name);
	put_segment(dir, 2); /* mended */
	CHECK_EQ(logfile_tally(r, NULL).next, END);
	shmq__log_reader_close(r);
	for (i = 0; i < 3; i++) {
		name_of(name, i, "log");
		logfile_put(dir, name, "damage", 6);
	}
	CHECK_EQ(shmq__log_reader_open(dir, NULL, &r, &why), SHMQ_ECORRUPT);
	close(dir);
}

/* Read all of it, whatever was done to segment `hit`: everything is accounted
 * for.  What lies outside it is there. */
static struct logfile_tally read_damaged(int dir, unsigned hit)
{
	struct log_reader *r;
	struct logfile_tally t;
	struct shmq__why why;
	int rc = shmq__log_reader_open(dir, &logfile_owner, &r, &why);

	if (hit == 0 && rc == SHMQ_EVERSION)
		return (struct logfile_tally){ .rc = rc };
	CHECK_OK(rc);
	t = logfile_tally(r, NULL);
	shmq__log_reader_close(r);
	CHECK_EQ(t.first, FIRST);
	if (t.rc == SHMQ_EVERSION) { /* said, and not passed */
		CHECK_EQ(t.next, FIRST + hit * EACH);
		return t;
	}
	if (hit < 2)
		CHECK_EQ(t.rc, 0);
	if (t.rc)
		CHECK_EQ(t.rc, SHMQ_ECORRUPT);
	else
		CHECK_EQ(t.next, END);
	CHECK_LE(t.lost, EACH);
	CHECK_GE(t.messages + t.lost, (uint64_t)(hit < 2 || !t.rc ? 3 : 2) * (EACH - 9));
	return t;
}

static void flip_every_byte(unsigned hit, unsigned from, unsigned step)
{
	struct logfile f = segment(FIRST + hit * EACH);
	int dir = three_segments();
	uint64_t lost = 0, ends = 0;
	struct logfile_tally t;
	size_t i;

	if (hit < 2)
		logfile_end(&f);
	for (i = from; i < f.bytes; i += step) {
		f.mem[i] ^= (char)(1 << i % 8);
		logfile_write_cut(&f, dir, f.bytes);
		t = read_damaged(dir, hit);
		lost += t.lost;
		ends += !!t.rc;
		/* Padding holds nothing, and END no seq. */
		if (i < LOG_BLOCK && !t.rc)
			CHECK_EQ(t.lost, EACH);
		f.mem[i] ^= (char)(1 << i % 8);
	}
	NOTE("%llu seqs in gaps, %llu ends", (unsigned long long)lost, (unsigned long long)ends);
	logfile_free(&f);
	close(dir);
}

TEST_WITHIN(no_flipped_bit_of_a_middle_segment_passes_in_silence, 120)
{
	flip_every_byte(1, LOG_BLOCK, 1);
	flip_every_byte(1, 0, 13);
}

TEST_WITHIN(no_flipped_bit_of_the_first_or_last_segment_passes_in_silence, 120)
{
	flip_every_byte(2, LOG_BLOCK, 3);
	flip_every_byte(2, 0, 97);
	flip_every_byte(0, LOG_BLOCK, 3);
	flip_every_byte(0, 0, 97);
}

TEST(a_flipped_bit_costs_no_more_than_the_index_lets_it)
{
	struct logfile f = segment(FIRST + EACH);
	int dir = three_segments();
	struct logfile_tally t;

	logfile_end(&f);
	f.mem[LOG_BLOCK + 50] ^= 1; /* the first record */
	logfile_write(&f, dir);
	t = read_damaged(dir, 1);
	CHECK_GT(t.lost, 0);
	CHECK_LE(t.lost, 8);
	CHECK_EQ(t.messages + t.lost, 3 * (EACH - 9)); /* what is lost is that */
	logfile_free(&f);
	close(dir);
}

TEST(a_write_that_never_reached_the_disk_comes_as_a_gap)
{
	int dir = three_segments();
	struct logfile_tally t;
	struct logfile f;
	unsigned hit;

	for (hit = 1; hit < 3; hit++) {
		f = segment(FIRST + hit * EACH);
		memset(f.mem + LOG_BLOCK + 600, 0, 700);
		logfile_write(&f, dir);
		t = read_damaged(dir, hit);
		CHECK_EQ(t.rc, 0);
		CHECK_GT(t.lost, 8);
		CHECK_LT(t.lost, 30);
		logfile_free(&f);
		put_segment(dir, hit);
	}
	close(dir);
}

TEST_WITHIN(a_middle_segment_cut_at_any_byte_leaves_a_gap, 120)
{
	struct logfile f = segment(FIRST + EACH);
	int dir = three_segments();
	uint64_t limit = END;
	struct logfile_tally t;
	struct log_reader *r;
	size_t n;

	logfile_end(&f);
	for (n = 0; n < f.bytes; n = n ? n + 1 : LOG_BLOCK - 1) {
		logfile_write_cut(&f, dir, n);
		read_damaged(dir, 1);
		r = open_reader(dir);
		t = logfile_tally(r, &limit);
		CHECK_EQ(t.rc, 0);
		CHECK_EQ(t.next, END);
		CHECK_GE(t.messages + t.lost, (uint64_t)2 * (EACH - 9));
		shmq__log_reader_close(r);
	}
	logfile_free(&f);
	close(dir);
}

TEST_WITHIN(a_last_segment_cut_at_any_byte_is_known_to_be, 120)
{
	struct logfile f = segment(FIRST + 2 * EACH);
	int dir = three_segments();
	uint64_t limit = END;
	struct logfile_tally t;
	struct log_reader *r;
	size_t n;

	for (n = LOG_BLOCK - 1; n < f.bytes; n++) {
		logfile_write_cut(&f, dir, n);
		r = open_reader(dir);
		t = logfile_tally(r, NULL);
		CHECK(t.rc == 0 || t.rc == SHMQ_ECORRUPT);
		CHECK_NE(t.next, END);
		/* Where a record ends nothing tells, except how far it was. */
		CHECK_NE(logfile_tally(r, &limit).next, limit);
		shmq__log_reader_close(r);
	}
	logfile_free(&f);
	close(dir);
}

TEST(an_index_that_lies_costs_time_only)
{
	struct logfile f;
	struct log_index_entry *e;
	struct log_reader *r;
	struct logfile_tally t;
	uint64_t seq;
	unsigned how, i, n;
	int dir = three_segments();

	for (how = 0; how < 4; how++) {
		f = segment(FIRST + EACH);
		logfile_end(&f);
		n = (unsigned)((f.index_bytes - 64) / 32);
		for (i = 0; i < n; i++) {
			e = (struct log_index_entry *)(f.index + 64) + i;
			if (how == 0) /* of what it was before a repair */
				e->off += 8;
			else if (how == 1)
				e->seq++;
			else if (how == 2)
				e->off += 1u << 30;
			else if (i % 2)
				e->seq += 3;
			e->checksum = shmq__log_sum(f.seed, e, 24);
		}
		logfile_write(&f, dir);
		logfile_free(&f);
		r = open_reader(dir);
		for (seq = FIRST; seq != END; seq++) {
			CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
			check_at(r, seq);
			CHECK_OK(shmq__log_reader_seek_time(r, TS(seq), NULL));
			CHECK_LE(seq - shmq__log_reader_seq(r), 5); /* a gap */
		}
		CHECK_OK(shmq__log_reader_seek(r, FIRST, NULL));
		t = logfile_tally(r, NULL);
		CHECK_EQ(t.lost, 0);
		CHECK_EQ(t.next, END);
		shmq__log_reader_close(r);
	}
	close(dir);
}

TEST(an_entry_that_lies_does_not_lead_past_damage)
{
	struct logfile f = segment(FIRST + EACH);
	struct log_index_entry *e = (struct log_index_entry *)(f.index + 64) + 1;
	int dir = three_segments();
	struct logfile_tally t;

	logfile_end(&f);
	f.mem[LOG_BLOCK + 50] ^= 1;
	e->seq += 20;
	e->checksum = shmq__log_sum(f.seed, e, 24);
	logfile_write(&f, dir);
	t = read_damaged(dir, 1);
	CHECK_GT(t.lost, 8);
	CHECK_LT(t.lost, 20);
	logfile_free(&f);
	close(dir);
}

TEST(segments_and_indexes_without_the_other_are_no_harm)
{
	char name[LOG_NAME_BYTES];
	int dir = three_segments();
	struct log_reader *r;
	uint64_t seq;
	unsigned i;

	for (i = 0; i < 3; i++) {
		name_of(name, i, "idx");
		CHECK_EQ(unlinkat(dir, name, 0), 0);
	}
	logfile_put(dir, "00000000000000000077.idx", "", 0);
	r = open_reader(dir);
	for (seq = FIRST; seq != END; seq++) {
		CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
		check_at(r, seq);
	}
	shmq__log_reader_close(r);
	close(dir);
}

TEST(a_file_that_shrinks_under_a_reader_just_ends)
{
	struct logfile f = segment(FIRST + 2 * EACH);
	int dir = logfile_dir();
	struct logfile_tally t;
	struct log_reader *r;
	uint64_t limit;

	while (f.bytes < 3u << 20)
		logfile_message(&f, TS(f.seq), 1000);
	logfile_write(&f, dir);
	limit = f.seq;
	r = open_reader(dir);
	check_next(r, LOG_MESSAGE, FIRST + 2 * EACH, 1);
	logfile_write_cut(&f, dir, LOG_BLOCK + 200);
	t = logfile_tally(r, &limit);
	CHECK(t.rc == 0 || t.rc == SHMQ_ECORRUPT);
	CHECK_NE(t.next, limit);
	shmq__log_reader_close(r);
	logfile_free(&f);
	close(dir);
}

/* ---- while it is written ------------------------------------------------------- */

#define WRITTEN 4000u

struct writing {
	_Atomic uint64_t written;
	int dir;
};

/* Appends records in pieces of any size, and goes on to new segments. */
static int write_on(void *arg)
{
	struct writing *w = arg;
	char name[LOG_NAME_BYTES];
	struct logfile f = { 0 };
	uint64_t seq = FIRST;
	size_t at = 0, piece;
	int fd = -1;
	unsigned i;

	for (i = 0; i < WRITTEN; i++) {
		if (i % 500 == 0) {
			if (i)
				logfile_end(&f);
			if (i)
				CHECK_EQ(pwrite(fd, f.mem + at, f.bytes - at, (off_t)at),
					 f.bytes - at);
			close(fd);
			logfile_free(&f);
			logfile_begin(&f, seq, TS(seq - 1));
			shmq__log_name(seq, "log", name);
			/* The header is there as soon as the name is. */
			logfile_put(w->dir, "new", f.mem, f.bytes);
			fd = openat(w->dir, "new", O_WRONLY | O_CLOEXEC);
			CHECK_EQ(renameat(w->dir, "new", w->dir, name), 0);
			at = f.bytes;
		}
		logfile_message(&f, TS(seq), mix(i) % 2000);
		while (at < f.bytes) {
			piece = 1 + mix(at) % 1500;
			piece = piece < f.bytes - at ? piece : f.bytes - at;
			CHECK_EQ(pwrite(fd, f.mem + at, piece, (off_t)at), piece);
			at += piece;
		}
		atomic_store(&w->written, ++seq);
	}
	close(fd);
	logfile_free(&f);
	return 0;
}

TEST(a_log_is_followed_while_it_is_written)
{
	struct writing *w = shared_memory(sizeof(*w));
	struct logfile_tally t;
	struct log_reader *r;
	uint64_t limit, messages = 0;
	pid_t pid;

	atomic_store(&w->written, FIRST);
	w->dir = logfile_dir();
	r = open_reader(w->dir);
	CHECK_OK(shmq__log_reader_seek(r, FIRST, NULL));
	pid = test_spawn(write_on, w);
	while (messages < WRITTEN) {
		limit = atomic_load(&w->written);
		t = logfile_tally(r, &limit);
		CHECK_EQ(t.rc, 0);
		CHECK_EQ(t.next, limit);
		CHECK_EQ(t.lost, 0);
		messages += t.messages;
	}
	CHECK_EQ(test_join(pid), 0);
	shmq__log_reader_close(r);
	close(w->dir);
	munmap(w, sizeof(*w));
}

TEST(a_follower_who_is_told_no_limit_loses_nothing_either)
{
	struct writing *w = shared_memory(sizeof(*w));
	struct logfile_tally t;
	struct log_reader *r;
	uint64_t messages = 0;
	pid_t pid;

	w->dir = logfile_dir();
	r = open_reader(w->dir);
	CHECK_OK(shmq__log_reader_seek(r, FIRST, NULL));
	pid = test_spawn(write_on, w);
	while (messages < WRITTEN) {
		t = logfile_tally(r, NULL);
		/* What is half written looks damaged, and is looked at again. */
		CHECK(t.rc == 0 || t.rc == SHMQ_ECORRUPT);
		CHECK_EQ(t.lost, 0);
		messages += t.messages;
	}
	CHECK_EQ(test_join(pid), 0);
	CHECK_EQ(shmq__log_reader_seq(r), FIRST + WRITTEN);
	shmq__log_reader_close(r);
	close(w->dir);
	munmap(w, sizeof(*w));
}

/* The last record, END and the next segment. */
static void write_the_rest(void *arg)
{
	int dir = *(int *)arg;

	put_segment(dir, 0);
	put_segment(dir, 1);
}

TEST_WITHIN(what_is_written_at_any_moment_of_a_look_is_no_gap, 120)
{
	int dir = logfile_dir();
	struct log_record head;
	struct shmq__why why;
	struct log_reader *r;
	struct logfile_tally t;
	struct logfile f;
	const char *body;
	unsigned k, n;
	int rc;

	for (k = fake_first_point(200000); k; k = fake_next_point(k)) {
		f = segment(FIRST);
		f.bytes -= log_record_bytes(30 + EACH - 1);
		logfile_write(&f, dir);
		logfile_free(&f);
		r = open_reader(dir);
		n = (unsigned)(logfile_tally(r, NULL).next - FIRST);
		CHECK_EQ(n, EACH - 1);
		fake_step_begin(k, write_the_rest, &dir);
		rc = shmq__log_reader_next(r, NULL, &head, &body, &why);
		fake_step_end();
		if (rc == 1)
			CHECK(head.seq == FIRST + n && logfile_is_right(&head, body));
		else
			CHECK_EQ(rc, 0);
		put_segment(dir, 0); /* if there were not as many points */
		put_segment(dir, 1);
		t = logfile_tally(r, NULL);
		CHECK_EQ(t.lost, 0);
		CHECK_EQ(t.next, FIRST + 2 * EACH);
		shmq__log_reader_close(r);
		take_away(dir, 0);
		take_away(dir, 1);
	}
	close(dir);
}

/* ---- what can fail --------------------------------------------------------------- */

TEST(every_shortage_of_memory_is_survived)
{
	int dir = three_segments(), rc;
	struct log_reader *r;
	struct shmq__why why;
	unsigned k;

	for (k = 1;; k++) {
		scarce_begin(k);
		rc = shmq__log_reader_open(dir, NULL, &r, &why);
		if (!rc)
			rc = shmq__log_reader_seek(r, FIRST + EACH, &why);
		if (!rc)
			rc = shmq__log_reader_seek_time(r, TS(FIRST + EACH), &why);
		if (!scarce_end())
			break;
		CHECK_EQ(rc, -ENOMEM);
		CHECK(strstr(why.text, "memory"));
		if (r)
			CHECK_EQ(logfile_tally(r, NULL).next, END);
		shmq__log_reader_close(r);
	}
	CHECK_OK(rc);
	CHECK_GT(k, 4);
	check_at(r, FIRST + EACH);
	shmq__log_reader_close(r);
	close(dir);
}

/* ---- what a record holds ---------------------------------------------------------- */

static int decode(uint16_t flags, const char *body, uint32_t bytes, struct shmq_msg *msg)
{
	struct log_record head = { .seq = 9,
				   .ts = 8,
				   .tag = 7,
				   .type = 6,
				   .flags = flags,
				   .body_bytes = bytes,
				   .kind = LOG_MESSAGE };
	struct lay_batch batch;
	char *mem = malloc(bytes + 1);
	int rc;

	CHECK(mem);
	memcpy(mem, body, bytes);
	*msg = (struct shmq_msg){ .partition = 5 };
	rc = shmq__log_decode(&head, mem, msg, &batch);
	if (!rc && flags & SHMQ_MSG_BATCH)
		CHECK_LT(batch.index, batch.count);
	if (!rc) {
		CHECK_EQ(msg->seq, 9);
		CHECK_EQ(msg->ts_ns, 8);
		CHECK_EQ(msg->tag, 7);
		CHECK_EQ(msg->type, 6);
		CHECK_EQ(msg->flags, flags);
		CHECK_EQ(msg->partition, 5);
		CHECK_LE((const char *)msg->data + msg->len, mem + bytes);
	}
	free(mem);
	return rc;
}

TEST(a_body_is_batch_meta_and_message_and_nothing_more)
{
	static const char body[] = "\1\0\0\0\0\0\0\0\2\0\0\0\3\0\0\0"
				   "\3\0\2\0keyPPmessage";
	struct shmq_msg m;
	uint32_t n;

	CHECK_OK(decode(0, body, 16, &m));
	CHECK_EQ(m.len, 16);
	CHECK_EQ(m.key_len + m.properties_len, 0);
	CHECK_OK(decode(SHMQ_MSG_META, body + 16, 16, &m));
	CHECK_EQ(m.key_len, 3);
	CHECK_EQ(m.properties_len, 2);
	CHECK_EQ(m.len, 7);
	for (n = 0; n <= 32; n++) {
		CHECK_EQ(decode(SHMQ_MSG_BATCH | SHMQ_MSG_META, body, n, &m),
			 n < 25 ? SHMQ_ECORRUPT : 0);
		CHECK_EQ(decode(SHMQ_MSG_BATCH, body, n, &m), n < 16 ? SHMQ_ECORRUPT : 0);
	}
	CHECK_EQ(m.len, 16);
	CHECK_EQ(decode(SHMQ_MSG_BATCH, "\1\0\0\0\0\0\0\0\3\0\0\0\3\0\0\0", 16, &m),
		 SHMQ_ECORRUPT); /* member 3 of 3 */
	CHECK_EQ(decode(SHMQ_MSG_BATCH, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, &m), SHMQ_ECORRUPT);
	CHECK_EQ(decode(SHMQ_MSG_META, "\xff\xff\xff\xff....", 8, &m), SHMQ_ECORRUPT);
}

/* ---- in place ---------------------------------------------------------------- */

#define LARGE 3000 /* messages of a kilobyte: so many are not read before it is mapped */

static struct logfile large_segment(uint64_t first, unsigned count)
{
	struct logfile f;

	logfile_begin(&f, first, first ? first - 1 : 0);
	while (count--)
		logfile_message(&f, f.seq, 1000);
	return f;
}

/* Two that are complete, and one that is not. */
static int large_segments(void)
{
	int dir = logfile_dir();

	for (unsigned i = 0; i < 3; i++) {
		struct logfile f = large_segment(i * LARGE, LARGE);

		if (i < 2)
			logfile_end(&f);
		logfile_write(&f, dir);
		logfile_free(&f);
	}
	return dir;
}

static int maps_a_segment(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	int found = 0;

	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		found |= strstr(line, ".log") != NULL;
	fclose(maps);
	return found;
}

static struct log_reader *open_in_place(int dir)
{
	struct log_reader *r = open_reader(dir);
	struct shmq__why why;

	shmq__log_reader_map(r);
	CHECK_OK(shmq__log_reader_seek(r, 0, &why));
	return r;
}

/* What is read in place is what is read else. */
static void check_same(int dir)
{
	struct log_reader *r = open_reader(dir), *in_place = open_in_place(dir);
	struct logfile_tally want = logfile_tally(r, NULL), got = logfile_tally(in_place, NULL);

	CHECK_EQ(got.rc, want.rc);
	CHECK_EQ(got.next, want.next);
	CHECK_EQ(got.messages, want.messages);
	CHECK_EQ(got.lost, want.lost);
	shmq__log_reader_close(r);
	shmq__log_reader_close(in_place);
	CHECK(!maps_a_segment());
}

TEST(complete_segments_are_read_in_place_and_the_last_is_not)
{
	int dir = large_segments();
	struct log_reader *r = open_in_place(dir);
	unsigned mapped = 0;
	uint64_t seq;

	for (seq = 0; seq < 3 * LARGE; seq++) {
		check_next(r, LOG_MESSAGE, seq, 1);
		if (seq % LARGE != LARGE - 1)
			continue;
		mapped += maps_a_segment();
		CHECK(seq < 2 * LARGE || !maps_a_segment());
	}
	shmq__log_reader_close(r);
	check_same(dir);
	close(dir);
	if (!mapped)
		SKIP("this filesystem does not say what is in memory");
	CHECK_EQ(mapped, 2);
}

TEST(what_is_damaged_is_told_in_place_too)
{
	struct logfile f = large_segment(0, LARGE);
	int dir = large_segments();
	unsigned i;

	logfile_end(&f);
	for (i = 0; i < 3; i++) {
		f.mem[(2u << 20) + i * 12345] ^= 4;
		logfile_write(&f, dir);
		check_same(dir);
	}
	logfile_write_cut(&f, dir, (2u << 20) + 123); /* within a page */
	check_same(dir);
	logfile_write_cut(&f, dir, 3u << 20);
	check_same(dir);
	logfile_free(&f);
	close(dir);
}

TEST(where_nothing_can_be_mapped_it_is_read)
{
	int dir = large_segments();

	scarce_maps(1);
	check_same(dir);
	scarce_maps(0);
	close(dir);
}
