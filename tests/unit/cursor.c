/* SPDX-License-Identifier: MIT */
#include "log_cursor.h"
#include "helpers.h"
#include "logdir.h"

#define T0 UINT64_C(1000)
#define PLACE(...) \
	(&(struct shmq_cursor_place){ .size = sizeof(struct shmq_cursor_place), ##__VA_ARGS__ })

static char path[PATH_MAX];

/* Three partitions; in each 100 messages, from seq 1000 on, one every 10 ns. */
static void make(struct logdir *log)
{
	struct logpart part;
	unsigned p, i;

	snprintf(path, sizeof(path), "%s/log", test_tmpdir());
	logdir_open(log, path, "prices", 3, SHMQ_TOPIC_TIME);
	for (p = 0; p < 3; p++) {
		logpart_open(&part, log, p, 1000);
		for (i = 0; i < 100; i++)
			logpart_message(&part, &(struct shmq_msg){ .ts_ns = T0 + 10 * i,
								   .data = "x",
								   .len = 1 });
		logpart_close(&part);
	}
}

struct seen {
	unsigned count;
	struct shmq_cursor_info info[8];
};

static int see(void *arg, const struct shmq_cursor_info *info)
{
	struct seen *seen = arg;

	CHECK_LT(seen->count, COUNT(seen->info));
	seen->info[seen->count++] = *info;
	return 0;
}

static struct seen list(void)
{
	struct seen seen = { 0 };

	CHECK_OK(shmq_cursor_each(path, see, &seen));
	return seen;
}

static void is_at(uint64_t seq)
{
	struct seen seen = list();
	unsigned i;

	CHECK_EQ(seen.count, 3);
	for (i = 0; i < 3; i++) {
		CHECK_STR(seen.info[i].name, "mine");
		CHECK_EQ(seen.info[i].partition, i);
		CHECK_EQ(seen.info[i].error, 0);
		CHECK_EQ(seen.info[i].seq, seq);
		CHECK(!seen.info[i].is_held);
	}
}

TEST(cursors_are_set_to_the_end_the_beginning_and_a_time)
{
	struct logdir log;

	make(&log);
	CHECK_EQ(list().count, 0);
	CHECK_OK(shmq_cursor_set(path, "mine", NULL));
	is_at(1100);
	CHECK_OK(shmq_cursor_set(path, "mine", PLACE(.from = SHMQ_FROM_OLDEST)));
	is_at(1000);
	CHECK_OK(shmq_cursor_set(path, "mine", PLACE(.from = SHMQ_FROM_TIME, .ts_ns = T0 + 491)));
	is_at(1050);
	CHECK_OK(shmq_cursor_set(path, "mine", PLACE(.from = SHMQ_FROM_LATEST)));
	is_at(1100);
	logdir_close(&log);
}

TEST(a_seq_is_set_in_one_partition_and_others_are_left_alone)
{
	struct logdir log;
	struct seen seen;

	make(&log);
	CHECK_ERROR(shmq_cursor_set(path, "mine", PLACE(.from = SHMQ_FROM_SEQ, .seq = 5)),
		    SHMQ_EOPTION);
	check_says("3 partitions");
	CHECK_OK(shmq_cursor_set(path, "mine",
				 PLACE(.from = SHMQ_FROM_SEQ, .seq = 1007, .partition_plus1 = 2)));
	seen = list();
	CHECK_EQ(seen.count, 1);
	CHECK_EQ(seen.info[0].partition, 1);
	CHECK_EQ(seen.info[0].seq, 1007);
	CHECK_ERROR(shmq_cursor_set(path, "mine", PLACE(.partition_plus1 = 4)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_cursor_set(path, "mine", PLACE(.from = SHMQ_FROM_CURSOR)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_cursor_set(path, "../mine", NULL), SHMQ_EOPTION);
	check_says("cursor name");
	logdir_close(&log);
}

TEST(what_cannot_be_used_is_listed_with_the_reason_and_can_be_set_anew)
{
	static const uint8_t other[16] = "another log";
	struct log_cursor last = { .partition = 1 }, next;
	struct log_cursor_file f;
	struct logdir log;
	struct seen seen;

	make(&log);
	CHECK_OK(shmq__log_cursor_hold(log.fd, "mine", other, 1, 1, &f, NULL));
	CHECK_OK(shmq__log_cursor_put(&f, &last, 12, &next));
	seen = list();
	CHECK_EQ(seen.count, 1);
	CHECK_EQ(seen.info[0].error, -ESTALE);
	CHECK_EQ(seen.info[0].partition, 1);
	CHECK(seen.info[0].is_held);
	CHECK_ERROR(shmq_cursor_set(path, "mine", NULL), SHMQ_EINUSE);
	CHECK_ERROR(shmq_cursor_remove(path, "mine"), SHMQ_EINUSE);
	check_says("another subscriber");
	shmq__log_cursor_close(&f);
	CHECK_OK(shmq_cursor_set(path, "mine", NULL));
	is_at(1100);
	CHECK_OK(shmq_cursor_remove(path, "mine"));
	CHECK_ERROR(shmq_cursor_remove(path, "mine"), -ENOENT);
	CHECK_EQ(list().count, 0);
	CHECK_EQ(mkdirat(log.fd, "cursors/mine", 0700), 0);
	seen = list();
	CHECK_EQ(seen.count, 1);
	CHECK_EQ(seen.info[0].error, SHMQ_ECORRUPT);
	logdir_close(&log);
}

TEST(a_directory_that_is_no_log_has_no_cursors)
{
	struct seen seen = { 0 };

	CHECK_ERROR(shmq_cursor_each("/nonexistent", see, &seen), -ENOENT);
	check_says("/nonexistent");
	CHECK_ERROR(shmq_cursor_set(test_tmpdir(), "mine", NULL), -ENOENT);
	CHECK_ERROR(shmq_cursor_remove(test_tmpdir(), "mine"), -ENOENT);
}
