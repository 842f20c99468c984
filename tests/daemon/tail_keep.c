/* SPDX-License-Identifier: MIT
 *
 * What the keeper removes by age while the clock is stepped, and how it goes on with a
 * compaction that another one left.
 */
#include "tail_keep.h"
#include "tap.h"

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "helpers.h"
#include "log_recover.h"
#include "logfile.h"
#include "tail_clean.h"

#define HOUR (3600 * (uint64_t)SECOND)
#define DAY (24 * HOUR)

/* ---- clocks ---------------------------------------------------------------- */

static _Atomic int64_t realtime_step, boottime_step;

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int64_t step = id == CLOCK_REALTIME ? realtime_step :
		       id == CLOCK_BOOTTIME ? boottime_step :
					      0;
	int rc = (int)syscall(SYS_clock_gettime, id, ts);

	/* The keeper waits for a second by that clock: it looks a hundred times as often. */
	if (id == CLOCK_MONOTONIC)
		step = -990 * MILLISECOND;
	step += ts->tv_nsec;
	ts->tv_sec += step / SECOND;
	ts->tv_nsec = step % SECOND;
	if (ts->tv_nsec < 0) {
		ts->tv_sec--;
		ts->tv_nsec += SECOND;
	}
	return rc;
}

/* Time goes by, on all clocks. */
static void pass_time(uint64_t ns)
{
	realtime_step += (int64_t)ns;
	boottime_step += (int64_t)ns;
}

/* ---- a keeper --------------------------------------------------------------- */

struct kept {
	int log_dir, dir;
	struct lay_partition part;
	struct tail_keep *keep;
	struct tail_kept *kept;
};

static void keep(struct kept *k, const struct shmq_topic_info *topic)
{
	static const char *dir[1];
	struct tail_kept_options o = { .topic = topic,
				       .owner = logfile_owner,
				       .dir = k->dir,
				       .log_dir = k->log_dir,
				       .part = &k->part,
				       .has_open = 1 };

	dir[0] = test_tmpdir();
	CHECK_OK(tail_keep_create(dir, 1, &k->keep));
	CHECK_OK(tail_keep_add(k->keep, &o, &k->kept));
}

static void leave(struct kept *k)
{
	tail_keep_remove(k->kept);
	tail_keep_destroy(k->keep);
}

static unsigned count(const struct kept *k)
{
	uint64_t *first;
	unsigned n;

	CHECK_OK(shmq__log_list(k->dir, &first, &n));
	free(first);
	return n;
}

static unsigned wanted;

static int has_as_many(void *k)
{
	return count(k) == wanted;
}

static void await_count(struct kept *k, unsigned n)
{
	wanted = n;
	if (!test_wait_until(has_as_many, k, 60000))
		FAIL("%u segments, want %u", count(k), n);
}

/* Until the keeper has looked twice more: what it would do at once is done. */
static void await_looks(struct kept *k)
{
	struct shmq_topic_info topic = { .retain_bytes = 1, .segment_bytes = 1 << 20 };
	struct kept probe = { .log_dir = logfile_dir(), .keep = k->keep };
	struct logfile f;
	unsigned i;

	for (i = 0; i < 2; i++) {
		struct tail_kept_options o = {
			.topic = &topic, .owner = logfile_owner, .part = &probe.part, .has_open = 1
		};

		probe.dir = logfile_dir();
		o.dir = probe.dir;
		o.log_dir = probe.log_dir;
		logfile_begin(&f, 1, 0);
		logfile_message(&f, 1, 10);
		logfile_end(&f);
		logfile_write(&f, probe.dir);
		logfile_free(&f);
		logfile_begin(&f, 2, 1);
		logfile_write(&f, probe.dir);
		logfile_free(&f);
		CHECK_OK(tail_keep_add(k->keep, &o, &probe.kept));
		await_count(&probe, 1);
		tail_keep_remove(probe.kept);
		close(probe.dir);
	}
	close(probe.log_dir);
}

/* ---- ages ------------------------------------------------------------------- */

/* Segments of one message each; how old each is. */
static struct kept make_aged(const uint64_t *age, unsigned n)
{
	struct kept k = { .log_dir = logfile_dir(), .dir = logfile_dir() };
	uint64_t now = shmq__clock_realtime_ns(), max_ts = 0;
	struct logfile f;
	unsigned i;

	for (i = 0; i <= n; i++) {
		logfile_begin(&f, 1 + i, max_ts);
		if (i < n) {
			logfile_message(&f, now - age[i], 10);
			logfile_end(&f);
		}
		max_ts = f.max_ts;
		logfile_write(&f, k.dir);
		logfile_free(&f);
	}
	return k;
}

static void close_aged(struct kept *k)
{
	leave(k);
	close(k->dir);
	close(k->log_dir);
}

static const struct shmq_topic_info for_two_hours = { .name = "prices",
						      .partitions = 1,
						      .segment_bytes = 1 << 20,
						      .retain_ns = 2 * (int64_t)HOUR };

TEST(a_clock_stepped_forward_removes_nothing_at_once_and_what_is_old_later)
{
	static const uint64_t ages[] = { 3 * HOUR, HOUR, HOUR / 2, 0 };
	struct kept k = make_aged(ages, 4);

	keep(&k, &for_two_hours);
	await_count(&k, 4);
	realtime_step += DAY; /* wrong */
	await_looks(&k);
	CHECK_EQ(count(&k), 4);
	realtime_step -= DAY; /* and right again */
	await_looks(&k);
	CHECK_EQ(count(&k), 4);
	pass_time(HOUR + HOUR / 60);
	await_count(&k, 3);
	realtime_step += 365 * DAY; /* and this is meant */
	await_looks(&k);
	CHECK_EQ(count(&k), 3);
	pass_time(DAY + HOUR);
	await_count(&k, 1);
	close_aged(&k);
}

TEST(a_step_is_caught_up_with_at_twice_the_speed_of_time)
{
	static const uint64_t ages[] = { HOUR };
	struct kept k = make_aged(ages, 1);

	keep(&k, &for_two_hours);
	await_looks(&k);
	realtime_step += 3 * HOUR;
	await_looks(&k);
	CHECK_EQ(count(&k), 2);
	pass_time(HOUR / 4); /* half an hour older */
	await_looks(&k);
	CHECK_EQ(count(&k), 2);
	pass_time(HOUR / 2);
	await_count(&k, 1);
	close_aged(&k);
}

/* What was written by the clock that was ahead is in the future, and so is, by the
 * highest time before it, what follows. */
TEST(a_clock_stepped_back_removes_later_and_never_earlier)
{
	static const uint64_t ages[] = { 3 * HOUR, HOUR };
	struct kept k = make_aged(ages, 2);

	realtime_step -= DAY;
	keep(&k, &for_two_hours);
	await_looks(&k);
	CHECK_EQ(count(&k), 3);
	pass_time(DAY - HOUR / 60);
	await_count(&k, 2);
	pass_time(HOUR + HOUR / 30);
	await_count(&k, 1);
	close_aged(&k);
}

/* ---- compaction that was left ------------------------------------------------ */

enum { SEGMENTS = 8, EACH = 10 };
#define FIRST UINT64_C(100)

/* The key of segment i's messages: in each pair of segments that of the first is in the
 * second too; all others are not.  Message `tombstone` deletes its key. */
static struct kept make_pairs(uint64_t tombstone)
{
	struct kept k = { .log_dir = logfile_dir(), .dir = logfile_dir() };
	struct log_record head = {
		.body_bytes = 100, .ts = 1, .flags = SHMQ_MSG_META, .kind = LOG_MESSAGE
	};
	char body[100] = { 2 };
	struct logfile f;
	unsigned i, n;

	for (i = 0; i <= SEGMENTS; i++) {
		logfile_begin(&f, FIRST + i * EACH, 1);
		f.index_every = 0;
		for (n = 0; n < EACH && i < SEGMENTS; n++) {
			head.seq = f.seq;
			head.body_bytes = f.seq == tombstone ? 6 : 100;
			body[4] = (char)('a' + i / 2);
			body[5] = (char)('0' + n);
			logfile_record(&f, head, body);
		}
		if (i < SEGMENTS)
			logfile_end(&f);
		logfile_write(&f, k.dir);
		logfile_free(&f);
	}
	return k;
}

static enum log_kind kind_at(const struct kept *k, uint64_t seq)
{
	struct log_reader *r;
	struct log_record head;
	const char *body;

	CHECK_OK(shmq__log_reader_open(k->dir, &logfile_owner, &r, NULL));
	CHECK_OK(shmq__log_reader_seek(r, seq, NULL));
	CHECK_EQ(shmq__log_reader_next(r, NULL, &head, &body, NULL), 1);
	CHECK_EQ(head.seq, seq);
	shmq__log_reader_close(r);
	return head.kind;
}

static void check_left(const struct kept *k, const char *want)
{
	char got[SEGMENTS + 1] = { 0 };
	unsigned i;

	for (i = 0; i < SEGMENTS; i++)
		got[i] = kind_at(k, FIRST + i * EACH) == LOG_MESSAGE ? 'x' : '-';
	CHECK_STR(got, want);
}

static uint64_t wanted_seq;

static int is_clean(void *arg)
{
	struct kept *k = arg;
	struct tail_clean c;

	return !tail_clean_read(k->dir, &logfile_owner, &c) && c.end_seq == c.clean_seq &&
	       c.clean_seq == wanted_seq && c.tombstone_ns == UINT64_MAX;
}

/* It ends behind so many segments. */
static void check_pass(const struct tail_clean *from, uint64_t tombstone, unsigned segments,
		       const char *want)
{
	static const struct shmq_topic_info topic = { .name = "prices",
						      .partitions = 1,
						      .segment_bytes = 1 << 20,
						      .tombstone_ns = 3600000000000,
						      .flags = SHMQ_TOPIC_RETAIN_KEYS };
	struct kept k = make_pairs(tombstone);

	if (from)
		CHECK_OK(tail_clean_write(k.dir, &logfile_owner, from));
	wanted_seq = FIRST + segments * EACH;
	keep(&k, &topic);
	if (!test_wait_until(is_clean, &k, 60000))
		FAIL("compaction does not end");
	leave(&k);
	check_left(&k, want);
	if (tombstone)
		CHECK_EQ(kind_at(&k, tombstone), LOG_HOLE);
	close(k.dir);
	close(k.log_dir);
}

TEST(compaction_begins_with_the_oldest_where_none_is_known)
{
	check_pass(NULL, 0, SEGMENTS, "-x-x-x-x");
}

/* The first half supersedes nothing any more, it is said. */
TEST(compaction_goes_on_where_another_tailer_ended)
{
	static const struct tail_clean half = { FIRST + 4 * EACH, FIRST + 4 * EACH,
						FIRST + 4 * EACH, UINT64_MAX };

	check_pass(&half, 0, SEGMENTS, "xxxx-x-x");
}

/* A pass over three quarters had learned the second quarter and gone through the first;
 * what comes behind is
 * less than there is before, and waits. */
TEST(a_pass_goes_on_where_another_tailer_was_ended)
{
	static const struct tail_clean part = { FIRST, FIRST + 6 * EACH, FIRST + 2 * EACH,
						UINT64_MAX };

	check_pass(&part, 0, 6, "xx-x-xxx");
}

/* It must not go on the word of a file. */
TEST(where_something_that_deletes_a_key_is_due_all_is_learned_again)
{
	static const struct tail_clean half = { FIRST + 4 * EACH, FIRST + 4 * EACH,
						FIRST + 4 * EACH, UINT64_MAX };

	check_pass(&half, FIRST + EACH + 5, SEGMENTS, "-x-x-x-x");
}

/* Written by another program. */
TEST(the_golden_file_is_read_and_written_byte_by_byte)
{
	static const struct tail_clean want = { 5, UINT64_MAX, 77, 1700000000000000000 };
	int dir = open("tests/log/golden", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	    ours = logfile_dir();
	struct tail_clean got;
	size_t bytes, our_bytes;
	char *golden, *mem;

	CHECK_GE(dir, 0);
	if (__BYTE_ORDER != __LITTLE_ENDIAN)
		SKIP("the golden files are of the other byte order");
	CHECK_OK(tail_clean_read(dir, &logfile_owner, &got));
	CHECK_MEM(&got, &want, sizeof(want));
	CHECK_OK(tail_clean_write(ours, &logfile_owner, &want));
	golden = logfile_get(dir, "compacted", &bytes);
	mem = logfile_get(ours, "compacted", &our_bytes);
	CHECK_EQ(our_bytes, bytes);
	CHECK_MEM(mem, golden, bytes);
	free(mem);
	free(golden);
	close(ours);
	close(dir);
}

TEST(what_tells_of_another_log_or_is_damaged_counts_for_nothing)
{
	struct log_owner other = logfile_owner;
	struct tail_clean c = { 1, 2, 3, 4 }, got;
	int dir = logfile_dir();
	size_t bytes, i;
	char *mem;

	CHECK_ERROR(tail_clean_read(dir, &logfile_owner, &got), SHMQ_EEMPTY);
	CHECK_OK(tail_clean_write(dir, &logfile_owner, &c));
	CHECK_OK(tail_clean_read(dir, &logfile_owner, &got));
	CHECK_MEM(&got, &c, sizeof(c));
	other.partition++;
	CHECK_ERROR(tail_clean_read(dir, &other, &got), SHMQ_EEMPTY);
	other = logfile_owner;
	other.log_id[0]++;
	CHECK_ERROR(tail_clean_read(dir, &other, &got), SHMQ_EEMPTY);
	mem = logfile_get(dir, "compacted", &bytes);
	CHECK_EQ(bytes, sizeof(struct log_compacted));
	for (i = 0; i < bytes; i++) {
		mem[i] ^= 4;
		logfile_put(dir, "compacted", mem, bytes);
		CHECK_ERROR(tail_clean_read(dir, &logfile_owner, &got), SHMQ_EEMPTY);
		mem[i] ^= 4;
	}
	logfile_put(dir, "compacted", mem, bytes - 1);
	CHECK_ERROR(tail_clean_read(dir, &logfile_owner, &got), SHMQ_EEMPTY);
	free(mem);
	close(dir);
}

/* Ended at any moment, again and again, it comes to its end, and a reader misses
 * nothing at any of them. */
TEST(keepers_that_are_ended_early_get_there_together)
{
	static const struct shmq_topic_info topic = { .name = "prices",
						      .partitions = 1,
						      .segment_bytes = 5000, /* nothing is merged */
						      .tombstone_ns = 3600000000000,
						      .flags = SHMQ_TOPIC_RETAIN_KEYS };
	struct kept k = make_pairs(0);
	struct log_verdict v;
	unsigned i;

	wanted_seq = FIRST + SEGMENTS * EACH;
	for (i = 0; !is_clean(&k); i++) {
		CHECK_LT(i, 1000);
		keep(&k, &topic);
		test_sleep_ms((int)(i % 8));
		leave(&k);
		CHECK_OK(shmq__log_verify(k.dir, -1, &logfile_owner, &v, NULL, NULL, NULL, NULL));
		CHECK_EQ(v.damaged + v.missing, 0);
	}
	NOTE("%u of them", i);
	check_left(&k, "-x-x-x-x");
	close(k.dir);
	close(k.log_dir);
}
