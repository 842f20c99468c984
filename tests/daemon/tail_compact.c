/* SPDX-License-Identifier: MIT
 *
 * Passes over a log of many small segments: what they drop, what they make one of, and
 * how one goes on that did not end.
 */
#include "tail_compact.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "helpers.h"
#include "log_reader.h"
#include "log_recover.h"
#include "logfile.h"

#define FIRST (UINT64_C(0) - 100) /* across the wrap */
#define KEEP_TIME INT64_C(1000000)

enum { SEGMENTS = 12, EACH = 40, KEYS = 5 };

struct pass {
	uint64_t first[SEGMENTS + 1];
	struct tail_compact c;
	struct tail_compacted out;
	int turns, turns_max; /* then it is broken off */
	int removes_at;       /* at that turn, if not 0, retention takes the first segment */
};

static int give(void *arg, const uint64_t *rewriting)
{
	struct pass *p = arg;

	++p->turns;
	if (p->turns == p->removes_at && !(rewriting && *rewriting == p->first[0]))
		CHECK_OK(tail_remove(p->c.dir, p->first[0]));
	return p->turns > p->turns_max ? -ECANCELED : 0;
}

static struct pass pass_of(int dir)
{
	uint64_t *first;
	unsigned count;
	struct pass p = { .turns_max = INT32_MAX,
			  .c = { .dir = dir,
				 .owner = &logfile_owner,
				 .merge_bytes = UINT64_C(1) << 20,
				 .key_bytes = 1 << 20,
				 .now_ns = 1,
				 .tombstone_ns = KEEP_TIME } };

	CHECK_OK(shmq__log_list(dir, &first, &count));
	CHECK_GE(count, 2);
	CHECK_LE(count, SEGMENTS + 1);
	memcpy(p.first, first, count * sizeof(*first));
	free(first);
	p.c.count = count - 1; /* the last one is in use */
	p.c.keep_from = p.first[p.c.count];
	return p;
}

static int run(struct pass *p)
{
	struct shmq__why why = { "" };
	int error;

	p->c.first = p->first;
	p->c.turn = (struct tail_turn){ give, p };
	error = tail_compact(&p->c, &p->out, &why);
	if (error && error != -ECANCELED)
		FAIL("%s: %s", shmq_errname(error), why.text);
	return error;
}

/* ---- a log ---------------------------------------------------------------- */

static int key_of(uint64_t seq)
{
	return seq % 10 == 4 ? -1 : (int)(mix(seq) % KEYS);
}

/* Deletes its key. */
static int is_tombstone(uint64_t seq)
{
	if (key_of(seq) == 0 && seq - FIRST > SEGMENTS * EACH / 2)
		return 1;
	return key_of(seq) >= 0 && mix(seq + 1) % 9 == 0;
}

static void put_keyed(struct logfile *f, int key, int is_empty)
{
	struct log_record head = { .seq = f->seq, .ts = f->seq - FIRST, .kind = LOG_MESSAGE };
	char body[200];
	uint16_t meta[2] = { 2, 0 };

	memset(body, 'x', sizeof(body));
	head.body_bytes = sizeof(body);
	if (key >= 0) {
		head.flags = SHMQ_MSG_META;
		memcpy(body, meta, 4);
		body[4] = 'k';
		body[5] = (char)('0' + key);
		head.body_bytes = is_empty ? 6 : sizeof(body);
	}
	logfile_record(f, head, body);
}

static int make_log(void)
{
	int dir = logfile_dir();
	struct logfile f;
	unsigned i, k;
	uint64_t seq = FIRST, ts = 0;

	for (i = 0; i <= SEGMENTS; i++) {
		logfile_begin(&f, seq, ts);
		f.index_every = 1000;
		for (k = 0; k < EACH && i < SEGMENTS; k++)
			put_keyed(&f, key_of(f.seq), is_tombstone(f.seq));
		if (i < SEGMENTS)
			logfile_end(&f);
		seq = f.seq;
		ts = f.max_ts;
		logfile_write(&f, dir);
		logfile_free(&f);
	}
	return dir;
}

static struct log_reader *reader_of(int dir)
{
	struct log_reader *r;

	CHECK_OK(shmq__log_reader_open(dir, &logfile_owner, &r, NULL));
	return r;
}

/* Whoever reads on from seq `from` has every message without a key, the last one of each
 * key that has come there or later, and no gap.  How many messages there were. */
static unsigned check_reader(struct log_reader *r, uint64_t from)
{
	uint64_t end = FIRST + SEGMENTS * EACH, next = from, seq, want[KEYS] = { 0 },
		 got[KEYS] = { 0 };
	unsigned plain = 0, plain_want = 0, all = 0;
	struct log_record head;
	const char *body;
	int key;

	for (seq = from; seq != end; seq++) {
		key = key_of(seq);
		plain_want += key < 0;
		if (key >= 0)
			want[key] = is_tombstone(seq) ? 1 : seq;
	}
	while (shmq__log_reader_next(r, NULL, &head, &body, NULL) == 1) {
		CHECK_EQ(head.seq, next);
		next += log_record_count(&head);
		CHECK_NE(head.kind, LOG_GAP);
		if (head.kind == LOG_HOLE)
			CHECK_EQ(head.flags, LOG_HOLE_SUPERSEDED);
		if (head.kind != LOG_MESSAGE)
			continue;
		all++;
		key = head.flags ? body[5] - '0' : -1;
		CHECK_EQ(key, key_of(head.seq));
		plain += key < 0;
		if (key >= 0)
			got[key] = head.body_bytes == 6 ? 1 : head.seq;
	}
	CHECK_EQ(next, end);
	CHECK_EQ(plain, plain_want);
	CHECK_MEM(got, want, sizeof(want));
	return all;
}

static unsigned check_log(int dir)
{
	struct log_reader *r = reader_of(dir);
	struct log_verdict v;
	struct shmq__why why;
	unsigned n = check_reader(r, FIRST);

	shmq__log_reader_close(r);
	CHECK_OK(shmq__log_verify(dir, -1, &logfile_owner, &v, NULL, NULL, NULL, &why));
	CHECK_EQ(v.damaged + v.missing + v.gaps, 0);
	return n;
}

static unsigned count_segments(int dir)
{
	uint64_t *first;
	unsigned count;

	CHECK_OK(shmq__log_list(dir, &first, &count));
	free(first);
	return count;
}

/* ---- one of many ----------------------------------------------------------- */

/* Readers that stand anywhere, in files that are gone, or come later. */
static void check_merging(int level)
{
	struct log_reader *at[SEGMENTS];
	int dir = make_log();
	struct pass p = pass_of(dir);
	struct log_record head;
	const char *body;
	unsigned i;

	for (i = 0; i < SEGMENTS; i++) {
		at[i] = reader_of(dir);
		CHECK_OK(shmq__log_reader_seek(at[i], FIRST + i * EACH + 7, NULL));
		CHECK_EQ(shmq__log_reader_next(at[i], NULL, &head, &body, NULL), 1);
	}
	p.c.level = level;
	CHECK_OK(run(&p));
	CHECK_EQ(p.out.done, SEGMENTS);
	CHECK_EQ(p.out.merged, SEGMENTS - 1);
	CHECK_EQ(p.out.end_seq, FIRST + SEGMENTS * EACH);
	CHECK_EQ(count_segments(dir), 2);
	CHECK_LE(check_log(dir), SEGMENTS * EACH / 10 + KEYS);
	for (i = 0; i < SEGMENTS; i++) {
		check_reader(at[i], FIRST + i * EACH + 8);
		CHECK_OK(shmq__log_reader_seek(at[i], FIRST + i * EACH + 3, NULL));
		check_reader(at[i], FIRST + i * EACH + 3);
		shmq__log_reader_close(at[i]);
	}
	close(dir);
}

TEST(what_is_left_of_many_segments_becomes_one_and_readers_anywhere_notice_nothing)
{
	check_merging(0);
}

TEST(likewise_of_segments_that_are_compressed)
{
	check_merging(1);
}

TEST(no_more_becomes_one_than_a_segment_holds)
{
	enum { LIMIT = 4096 + 6000 };
	char name[LOG_NAME_BYTES];
	struct log_segment seg;
	int dir = make_log();
	struct pass p = pass_of(dir);
	unsigned i, n;

	p.c.merge_bytes = LIMIT;
	CHECK_OK(run(&p));
	check_log(dir);
	n = count_segments(dir);
	CHECK_GT(n, 3);
	CHECK_LT(n, SEGMENTS / 2);
	p = pass_of(dir);
	for (i = 0; i < p.c.count; i++) {
		CHECK_OK(shmq__log_segment_open(dir, p.first[i], &logfile_owner, &seg, NULL));
		CHECK_LE(shmq__log_segment_bytes(&seg), LIMIT);
		shmq__log_segment_close(&seg);
		shmq__log_name(p.first[i], "idx", name);
		CHECK_EQ(faccessat(dir, name, F_OK, 0), 0);
	}
	/* Holes that meet become one, so there may be room for more; then there is not. */
	for (i = 0; i < 3; i++) {
		p = pass_of(dir);
		CHECK_OK(run(&p));
		CHECK_EQ(p.out.dropped, 0);
	}
	CHECK_EQ(p.out.rewritten + p.out.merged, 0);
	close(dir);
}

TEST(segments_between_which_one_is_missing_stay_apart)
{
	char name[LOG_NAME_BYTES];
	int dir = make_log();
	struct pass p;

	shmq__log_name(FIRST + 4 * EACH, "log", name);
	CHECK_EQ(unlinkat(dir, name, 0), 0);
	p = pass_of(dir);
	CHECK_OK(run(&p));
	p = pass_of(dir);
	CHECK_EQ(p.c.count, 2);
	CHECK_EQ(p.first[1], FIRST + 5 * EACH);
	close(dir);
}

TEST(a_segment_that_became_part_of_one_and_is_still_there_goes_later)
{
	char name[LOG_NAME_BYTES];
	int dir = make_log();
	struct pass p = pass_of(dir);
	size_t bytes;
	char *mem;

	shmq__log_name(FIRST + 6 * EACH, "log", name);
	mem = logfile_get(dir, name, &bytes);
	CHECK_OK(run(&p));
	logfile_put(dir, name, mem, bytes);
	free(mem);
	CHECK_EQ(count_segments(dir), 3);
	check_log(dir);
	p = pass_of(dir);
	CHECK_OK(run(&p));
	CHECK_EQ(p.out.merged, 1);
	CHECK_EQ(count_segments(dir), 2);
	check_log(dir);
	close(dir);
}

/* In one file the batch would look as if it had been judged with all others; but what
 * it deletes may still be there. */
TEST(segments_that_an_atomic_batch_joins_stay_apart)
{
	static const uint16_t meta[2] = { 2, 0 };
	struct log_record member = { .body_bytes = 22,
				     .flags = SHMQ_MSG_BATCH | SHMQ_MSG_META,
				     .kind = LOG_MESSAGE };
	int dir = logfile_dir();
	struct logfile f;
	char body[22];
	uint32_t two[2] = { 0, 2 };
	uint64_t seq = 100, begin = 100 + 2;
	struct pass p;
	unsigned i;

	for (i = 0; i < 3; i++) {
		logfile_begin(&f, seq, 0);
		if (i == 1) {
			two[0] = 1;
			memcpy(body, &begin, 8);
			memcpy(body + 8, two, 8);
			memcpy(body + 16, meta, 4);
			memcpy(body + 20, "k1", 2);
			member.seq = f.seq;
			logfile_record(&f, member, body);
		} else {
			put_keyed(&f, 1, 0);
			put_keyed(&f, -1, 0);
		}
		if (i == 0) {
			memcpy(body, &begin, 8);
			memcpy(body + 8, two, 8);
			memcpy(body + 16, meta, 4);
			memcpy(body + 20, "k2", 2);
			member.seq = f.seq;
			logfile_record(&f, member, body);
		}
		if (i < 2)
			logfile_end(&f);
		seq = f.seq;
		logfile_write(&f, dir);
		logfile_free(&f);
	}
	p = pass_of(dir);
	p.c.now_ns = KEEP_TIME * 10;
	CHECK_OK(run(&p));
	CHECK_EQ(p.out.dropped + p.out.merged, 0);
	p = pass_of(dir);
	p.c.now_ns = KEEP_TIME * 10;
	p.c.clean = 2;
	CHECK_OK(run(&p));
	CHECK_EQ(p.out.dropped + p.out.merged, 0);
	CHECK_EQ(count_segments(dir), 3);
	close(dir);
}

/* ---- one that does not end -------------------------------------------------- */

TEST(a_pass_that_is_broken_off_anywhere_is_gone_on_with_and_ends)
{
	unsigned whole, want, k;
	int dir = make_log(), turns;
	struct pass p = pass_of(dir);

	CHECK_OK(run(&p));
	want = check_log(dir);
	turns = p.turns;
	close(dir);
	for (k = 1; k < (unsigned)turns; k += 7) {
		uint64_t passed = FIRST, end;
		unsigned lives;

		dir = make_log();
		p = pass_of(dir);
		p.turns_max = (int)k;
		CHECK_ERROR(run(&p), -ECANCELED);
		check_log(dir);
		end = FIRST + SEGMENTS * EACH;
		/* As many turns as it takes to learn, and a few more: always further. */
		for (lives = 0; passed != end; lives++) {
			if (p.out.has_passed) {
				CHECK_EQ(p.out.end_seq, end);
				CHECK_GE((int64_t)(p.out.passed_seq - passed), 0);
				passed = p.out.passed_seq;
			}
			CHECK_LT(lives, 3 * SEGMENTS);
			p = pass_of(dir);
			while (p.c.passed < p.c.count &&
			       (int64_t)(p.first[p.c.passed] - passed) < 0)
				p.c.passed++;
			p.c.keeps_tombstones = 1;
			whole = 2 * p.c.count + 2 * SEGMENTS;
			p.turns_max = (int)whole;
			if (!run(&p))
				passed = end;
			check_log(dir);
		}
		p = pass_of(dir);
		CHECK_OK(run(&p));
		CHECK_EQ(check_log(dir), want);
		close(dir);
	}
}

TEST(what_deletes_a_key_is_kept_where_it_is_not_known_that_all_it_deletes_is_gone)
{
	unsigned kept, left;
	int dir = make_log();
	struct pass p = pass_of(dir);
	uint64_t *due = &p.out.tombstone_ns;

	CHECK_OK(run(&p));
	kept = check_log(dir);
	CHECK_LT(*due, UINT64_MAX);
	p = pass_of(dir);
	p.c.now_ns = 2 * (uint64_t)KEEP_TIME;
	p.c.keeps_tombstones = 1;
	CHECK_OK(run(&p));
	CHECK_EQ(check_log(dir), kept);
	CHECK_LE(*due, p.c.now_ns);
	p.c.keeps_tombstones = 0;
	CHECK_OK(run(&p));
	CHECK_GT(p.out.dropped, 0);
	left = kept - (unsigned)p.out.dropped;
	CHECK_GE(left, SEGMENTS * EACH / 10);
	CHECK_EQ(*due, UINT64_MAX);
	close(dir);
}

/* Two segments that are to become one, a value in each, and what deletes it in the third,
 * for which there is no room. */
static int make_deleted(void)
{
	int dir = logfile_dir();
	struct logfile f;
	uint64_t seq = FIRST;

	for (unsigned i = 0; i < 4; i++) {
		logfile_begin(&f, seq, 0);
		for (unsigned k = 0; k < EACH; k++)
			put_keyed(&f, k || i == 3 ? -1 : 0, i == 2);
		if (i < 3)
			logfile_end(&f);
		seq = f.seq;
		logfile_write(&f, dir);
		logfile_free(&f);
	}
	return dir;
}

static void check_deleted(int dir)
{
	struct log_reader *r = reader_of(dir);
	struct log_record head;
	const char *body;
	int has_value = 0;

	while (shmq__log_reader_next(r, NULL, &head, &body, NULL) == 1)
		if (head.kind == LOG_MESSAGE && head.flags)
			has_value = head.body_bytes > 6;
	CHECK(!has_value);
	shmq__log_reader_close(r);
}

/* A pass over such a log as disturb() has it at 1, 2, and so on, until that is
 * behind its end: 0. */
static void check_deleted_by(int (*disturb)(struct pass *p, int at))
{
	int is_hit = 1;

	for (int at = 1; is_hit; at++) {
		int dir = make_deleted();
		struct pass p = pass_of(dir);

		p.c.merge_bytes = LOG_BLOCK + 5 * EACH / 2 * log_record_bytes(200);
		is_hit = disturb(&p, at);
		check_deleted(dir);
		close(dir);
	}
}

static int remove_at(struct pass *p, int at)
{
	p->c.now_ns = 10 * KEEP_TIME;
	p->removes_at = at;
	CHECK_OK(run(p));
	return p->turns >= at;
}

TEST(what_was_deleted_stays_so_whenever_retention_takes_a_segment_from_under_a_pass)
{
	check_deleted_by(remove_at);
}

static int break_off_at(struct pass *p, int at)
{
	int dir = p->c.dir, is_hit;
	uint64_t passed;

	p->turns_max = at - 1;
	is_hit = run(p) != 0;
	passed = p->out.has_passed ? p->out.passed_seq : FIRST;
	*p = pass_of(dir);
	while (is_hit && p->c.passed < p->c.count && (int64_t)(p->first[p->c.passed] - passed) < 0)
		p->c.passed++;
	p->c.keeps_tombstones = p->c.passed > 0;
	CHECK_OK(run(p));
	*p = pass_of(dir);
	p->c.now_ns = 10 * KEEP_TIME;
	p->c.clean = p->c.count;
	CHECK_OK(run(p));
	CHECK_EQ(p->out.dropped, 1);
	return is_hit;
}

TEST(what_was_deleted_stays_so_wherever_a_pass_is_broken_off_and_gone_on_with)
{
	check_deleted_by(break_off_at);
}
