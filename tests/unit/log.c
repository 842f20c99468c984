/* SPDX-License-Identifier: MIT
 *
 * A log is read, looked at, verified and repaired without its bus.
 */
#include "helpers.h"
#include "logdir.h"

#include <sys/file.h>

#define T0 UINT64_C(1000000000000)

static char *path_of(const char *name)
{
	static char path[4][PATH_MAX];
	static int turn;
	char *to = path[turn++ % 4];

	snprintf(to, PATH_MAX, "%s/%s", test_tmpdir(), name);
	return to;
}

static void message(struct logpart *p, const char *key, const char *data)
{
	struct shmq_msg msg = { .ts_ns = T0 + p->seq * 100,
				.tag = p->seq % 3,
				.type = (uint16_t)p->seq,
				.key = key,
				.key_len = key ? strlen(key) : 0,
				.data = data,
				.len = strlen(data) };

	logpart_message(p, &msg);
}

static void messages(struct logpart *p, unsigned n)
{
	char data[32];

	while (n--) {
		snprintf(data, sizeof(data), "message %" PRIu64, p->seq);
		message(p, p->seq % 2 ? "odd" : NULL, data);
	}
}

/* Two partitions.  0: 100..109, a hole of 5, 115..119, another segment, a gap of
 * 10, 130..139.  1: 7..9. */
static const char *make(void)
{
	const char *path = path_of("prices");
	struct logdir log;
	struct logpart p;

	logdir_open(&log, path, "prices", 2, SHMQ_TOPIC_TAG);
	logpart_open(&p, &log, 0, 100);
	messages(&p, 10);
	logpart_skip(&p, LOG_HOLE, 5);
	messages(&p, 5);
	logpart_roll(&p);
	logpart_skip(&p, LOG_GAP, 10);
	messages(&p, 10);
	logpart_close(&p);
	logpart_open(&p, &log, 1, 7);
	messages(&p, 3);
	logpart_close(&p);
	logdir_close(&log);
	return path;
}

static shmq_log_reader *open_log(const char *path)
{
	shmq_log_reader *log;
	int rc = shmq_log_open(path, &log);

	if (rc)
		FAIL("opening %s: %s: %s", path, shmq_errname(rc), shmq_bus_error(NULL));
	return log;
}

static void expect(shmq_log_reader *log, int32_t partition, uint64_t seq)
{
	struct shmq_msg msg;
	char data[32];

	CHECK_OK(shmq_log_next(log, &msg));
	snprintf(data, sizeof(data), "message %" PRIu64, seq);
	CHECK_EQ(msg.partition, partition);
	CHECK_EQ(msg.seq, seq);
	CHECK_EQ(msg.ts_ns, T0 + seq * 100);
	CHECK_EQ(msg.tag, seq % 3);
	CHECK_EQ(msg.type, seq);
	CHECK_EQ(msg.len, strlen(data));
	CHECK_MEM(msg.data, data, msg.len);
	CHECK_EQ(msg.key_len, seq % 2 ? 3u : 0u);
}

static void expect_all(shmq_log_reader *log, int32_t partition, uint64_t from, uint64_t to)
{
	for (; from < to; from++)
		expect(log, partition, from);
}

/* 1: that many at most. */
static uint32_t expect_gap(shmq_log_reader *log, uint64_t last, uint64_t lost)
{
	struct shmq_msg msg;

	CHECK_ERROR(shmq_log_next(log, &msg), SHMQ_EOVERRUN);
	CHECK_EQ(msg.seq, last);
	CHECK_EQ(msg.lost, lost);
	CHECK_EQ(msg.partition, 0);
	return msg.lost_is_bound;
}

static void expect_end(shmq_log_reader *log)
{
	struct shmq_msg msg;

	CHECK_ERROR(shmq_log_next(log, &msg), SHMQ_EENDED);
	CHECK_ERROR(shmq_log_next(log, &msg), SHMQ_EENDED);
}

#define RANGE(...) \
	(&(struct shmq_log_range){ .size = sizeof(struct shmq_log_range), ##__VA_ARGS__ })
#define CHECKS(...) \
	(&(struct shmq_log_checks){ .size = sizeof(struct shmq_log_checks), ##__VA_ARGS__ })

static void choose(shmq_log_reader *log, const struct shmq_log_range *range)
{
	CHECK_OK(shmq_log_read(log, range));
}

/* ---- reading --------------------------------------------------------- */

TEST(all_of_a_log_is_read_partition_by_partition)
{
	shmq_log_reader *log = open_log(make());
	int twice;

	for (twice = 0; twice < 2; twice++) {
		expect_all(log, 0, 100, 110);
		expect_all(log, 0, 115, 120);
		expect_gap(log, 129, 10);
		expect_all(log, 0, 130, 140);
		expect_all(log, 1, 7, 10);
		expect_end(log);
		choose(log, NULL);
	}
	shmq_log_close(log);
	shmq_log_close(NULL);
}

TEST(a_range_of_seqs_is_read_of_one_partition)
{
	shmq_log_reader *log = open_log(make());

	choose(log, RANGE(.partition_plus1 = 1, .from = SHMQ_FROM_SEQ, .seq = 117,
			  .to = SHMQ_TO_SEQ, .to_seq = 132));
	expect_all(log, 0, 117, 120);
	expect_gap(log, 129, 10);
	expect_all(log, 0, 130, 132);
	expect_end(log);
	/* Bounds inside a gap and a hole. */
	choose(log, RANGE(.partition_plus1 = 1, .from = SHMQ_FROM_SEQ, .seq = 112,
			  .to = SHMQ_TO_SEQ, .to_seq = 124));
	expect_all(log, 0, 115, 120);
	expect_gap(log, 123, 4);
	expect_end(log);
	choose(log, RANGE(.partition_plus1 = 1, .from = SHMQ_FROM_SEQ, .seq = 126));
	expect_gap(log, 129, 4);
	expect(log, 0, 130);
	/* Before the first: what is there.  Behind the last: nothing. */
	choose(log, RANGE(.partition_plus1 = 2, .from = SHMQ_FROM_SEQ, .seq = 1));
	expect_all(log, 1, 7, 10);
	expect_end(log);
	choose(log, RANGE(.partition_plus1 = 2, .from = SHMQ_FROM_SEQ, .seq = 10));
	expect_end(log);
	shmq_log_close(log);
}

TEST(a_range_of_times_is_read_of_all_partitions)
{
	shmq_log_reader *log = open_log(make());

	choose(log, RANGE(.from = SHMQ_FROM_TIME, .ts_ns = T0 + 10850, .to = SHMQ_TO_TIME,
			  .to_ts_ns = T0 + 11600));
	expect_all(log, 0, 109, 110);
	expect_all(log, 0, 115, 116);
	expect_end(log);
	choose(log, RANGE(.from = SHMQ_FROM_TIME, .ts_ns = T0 + 13900));
	expect(log, 0, 139);
	expect_end(log);
	choose(log, RANGE(.to = SHMQ_TO_TIME, .to_ts_ns = T0 + 900));
	expect_all(log, 1, 7, 9);
	expect_end(log);
	shmq_log_close(log);
}

TEST(only_what_has_the_key_or_tag_is_handed_out)
{
	shmq_log_reader *log = open_log(make());
	uint64_t seq;

	choose(log, RANGE(.partition_plus1 = 1, .key = "odd", .key_len = 3, .to = SHMQ_TO_SEQ,
			  .to_seq = 110));
	for (seq = 101; seq < 110; seq += 2)
		expect(log, 0, seq);
	expect_end(log);
	choose(log, RANGE(.partition_plus1 = 1, .key = "even", .key_len = 4));
	expect_gap(log, 129, 10);
	expect_end(log);
	choose(log, RANGE(.partition_plus1 = 2, .flags = SHMQ_LOG_TAGGED, .tag = 0));
	expect(log, 1, 9);
	expect_end(log);
	shmq_log_close(log);
}

TEST(ranges_that_mean_nothing_are_refused)
{
	shmq_log_reader *log = open_log(make());

	CHECK_ERROR(shmq_log_read(log, RANGE(.from = SHMQ_FROM_SEQ)), SHMQ_EOPTION);
	check_says("2 partitions");
	CHECK_ERROR(shmq_log_read(log, RANGE(.to = SHMQ_TO_SEQ)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_log_read(log, RANGE(.partition_plus1 = 3)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_log_read(log, RANGE(.partition_plus1 = -1)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_log_read(log, RANGE(.from = SHMQ_FROM_TIME + 1)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_log_read(log, RANGE(.to = SHMQ_TO_TIME + 1)), SHMQ_EOPTION);
	CHECK_ERROR(shmq_log_read(log, RANGE(.flags = 2)), SHMQ_EOPTION);
	expect(log, 0, 100);
	shmq_log_close(log);
}

TEST(what_is_written_meanwhile_is_read_too)
{
	const char *path = path_of("live");
	struct logdir dir;
	struct logpart p;
	shmq_log_reader *log;

	logdir_open(&dir, path, "live", 1, 0);
	logpart_open(&p, &dir, 0, 5);
	messages(&p, 1);
	log = open_log(path);
	expect(log, 0, 5);
	messages(&p, 1);
	logpart_roll(&p);
	messages(&p, 1);
	expect_all(log, 0, 6, 8);
	expect_end(log);
	shmq_log_close(log);
	logpart_close(&p);
	logdir_close(&dir);
}

/* ---- looking --------------------------------------------------------- */

TEST(a_log_and_its_partitions_are_described)
{
	shmq_log_reader *log = open_log(make());
	struct shmq_log_partition part;
	struct shmq_log_info info;

	CHECK_OK(shmq_log_get_info(log, &info));
	CHECK_STR(info.topic, "prices");
	CHECK_EQ(info.created_ns, 1234567890);
	CHECK_EQ(info.is_damaged, 0);
	CHECK_EQ(info.partitions, 2);
	CHECK_EQ(info.segments, 3);
	CHECK_EQ(info.seqs, 43);
	CHECK_GT(info.bytes, 3 * 4096);
	CHECK_EQ(info.first_ts_ns, T0 + 700);
	CHECK_EQ(info.last_ts_ns, T0 + 13900);
	CHECK_EQ(info.options.size, sizeof(info.options));
	CHECK_EQ(info.options.depth, 1024);
	CHECK_EQ(info.options.log, SHMQ_LOG_BLOCK);
	CHECK_EQ(info.options.retain_bytes, 4711);
	CHECK_EQ(info.options.flags, SHMQ_TOPIC_TAG);
	CHECK_OK(shmq_log_get_partition(log, 0, &part));
	CHECK_EQ(part.partition, 0);
	CHECK_EQ(part.first, 100);
	CHECK_EQ(part.next, 140);
	CHECK_EQ(part.segments, 2);
	CHECK_EQ(part.first_ts_ns, T0 + 10000);
	CHECK_EQ(part.last_ts_ns, T0 + 13900);
	CHECK_ERROR(shmq_log_get_partition(log, 2, &part), SHMQ_EOPTION);
	shmq_log_close(log);
}

TEST(the_directory_of_a_log_is_known_without_a_bus)
{
	char out[PATH_MAX];

	setenv("SHMQ_DATA_DIR", "/data", 1);
	CHECK_OK(shmq_log_dir(NULL, "b", "t.u", out, sizeof(out)));
	CHECK_STR(out, "/data/b/t.u");
	CHECK_OK(shmq_log_dir("/x", "b", NULL, out, sizeof(out)));
	CHECK_STR(out, "/x/b");
	CHECK_OK(shmq_log_dir("/x", NULL, NULL, out, sizeof(out)));
	CHECK_STR(out, "/x");
	CHECK_OK(shmq_log_dir("/x", "b", "t", out, 7));
	CHECK_ERROR(shmq_log_dir("/x", "b", "t", out, 6), SHMQ_EOPTION);
	CHECK_ERROR(shmq_log_dir("/x", "a/b", "t", out, sizeof(out)), SHMQ_EBUSNAME);
	CHECK_ERROR(shmq_log_dir("/x", "b", "../t", out, sizeof(out)), SHMQ_ENAME);
	unsetenv("SHMQ_DATA_DIR");
	setenv("XDG_STATE_HOME", "/state", 1);
	CHECK_OK(shmq_log_dir(NULL, NULL, NULL, out, sizeof(out)));
	CHECK_STR(out, geteuid() ? "/state/shmq" : "/var/lib/shmq");
}

TEST(what_is_no_log_is_not_opened)
{
	shmq_log_reader *log;
	char *empty = path_of("empty");

	CHECK_ERROR(shmq_log_open(path_of("nothing"), &log), -ENOENT);
	CHECK(!log);
	CHECK_OK(mkdir(empty, 0700));
	CHECK_ERROR(shmq_log_open(empty, &log), SHMQ_ECORRUPT);
	CHECK(!log);
	check_says("is not the log of a topic");
}

/* ---- damage ---------------------------------------------------------- */

static void put(const char *path, off_t off, const char *bytes)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK_GE(fd, 0);
	CHECK_EQ(pwrite(fd, bytes, strlen(bytes), off), (ssize_t)strlen(bytes));
	close(fd);
}

struct told {
	unsigned lines, steps;
	uint32_t partition;
	char all[2048];
};

static void note(void *arg, uint32_t partition, const char *line)
{
	struct told *told = arg;
	size_t used = strlen(told->all);

	told->lines++;
	told->partition = partition;
	snprintf(told->all + used, sizeof(told->all) - used, "%s\n", line);
}

static int step(void *arg, uint64_t bytes, uint64_t of)
{
	struct told *told = arg;

	CHECK_LE(bytes, of);
	told->steps++;
	return 0;
}

static int stop(void *arg, uint64_t bytes, uint64_t of)
{
	return 17;
}

static void has(const struct told *told, const char *text)
{
	if (!strstr(told->all, text))
		FAIL("\"%s\" does not say \"%s\"", told->all, text);
}

TEST(a_log_is_read_without_its_identity)
{
	const char *path = make();
	struct shmq_log_verdict verdict;
	struct told told = { 0 };
	struct shmq_log_info info;
	shmq_log_reader *log;

	put(path_of("prices/topic"), 100, "damage");
	log = open_log(path);
	CHECK_OK(shmq_log_get_info(log, &info));
	CHECK_EQ(info.is_damaged, 1);
	CHECK_STR(info.topic, "prices");
	CHECK_EQ(info.partitions, 2);
	CHECK_EQ(info.options.partitions, 0);
	expect_all(log, 0, 100, 110);
	CHECK_OK(shmq_log_verify(log, CHECKS(.found = note, .arg = &told), &verdict));
	CHECK_EQ(verdict.damaged, 1);
	has(&told, "\"topic\"");
	shmq_log_close(log);
	CHECK_ERROR(shmq_log_repair(path, NULL, &verdict), SHMQ_ECORRUPT);
	check_says("export");
}

TEST(a_damaged_place_is_passed_as_a_gap_or_said_where_the_log_ends)
{
	shmq_log_reader *log = open_log(make());
	struct shmq_msg msg;

	/* In a segment with a successor, and at the end of the log. */
	put(path_of("prices/0/00000000000000000100.log"), 4096 + 45, "x");
	put(path_of("prices/1/00000000000000000007.log"), 4096 + 45, "x");
	CHECK_EQ(expect_gap(log, 119, 20), 1);
	CHECK_EQ(expect_gap(log, 129, 10), 0);
	expect_all(log, 0, 130, 140);
	CHECK_ERROR(shmq_log_next(log, &msg), SHMQ_ECORRUPT);
	CHECK_EQ(msg.partition, 1);
	check_says("offset 4096");
	expect_end(log);
	shmq_log_close(log);
}

TEST(a_record_that_contradicts_itself_is_said_and_passed)
{
	const char *path = path_of("odd");
	struct iovec byte = { (void *)(uintptr_t) "x", 1 };
	struct shmq_log_verdict verdict;
	struct told told = { 0 };
	shmq_log_reader *log;
	struct shmq_msg msg;
	struct logdir dir;
	struct logpart p;

	logdir_open(&dir, path, "odd", 1, 0);
	logpart_open(&p, &dir, 0, 4);
	messages(&p, 1);
	logpart_record(&p, (struct log_record){ .kind = LOG_MESSAGE, .flags = SHMQ_MSG_META },
		       &byte, 1);
	messages(&p, 1);
	logpart_close(&p);
	logdir_close(&dir);
	log = open_log(path);
	expect(log, 0, 4);
	CHECK_ERROR(shmq_log_next(log, &msg), SHMQ_ECORRUPT);
	CHECK_EQ(msg.seq, 5);
	CHECK_EQ(msg.lost, 1);
	expect(log, 0, 6);
	expect_end(log);
	CHECK_OK(shmq_log_verify(log, CHECKS(.found = note, .arg = &told), &verdict));
	CHECK_EQ(verdict.damaged, 1);
	has(&told, "seq 5");
	shmq_log_close(log);
}

TEST(a_missing_partition_is_said_once)
{
	shmq_log_reader *log = open_log(make());
	struct shmq_log_verdict verdict;
	struct shmq_log_partition part;
	struct told told = { 0 };
	struct shmq_msg msg;

	CHECK_OK(rename(path_of("prices/0"), path_of("away")));
	CHECK_ERROR(shmq_log_next(log, &msg), -ENOENT);
	CHECK_EQ(msg.partition, 0);
	expect_all(log, 1, 7, 10);
	expect_end(log);
	CHECK_OK(shmq_log_get_partition(log, 0, &part));
	CHECK_EQ(part.segments, 0);
	CHECK_OK(shmq_log_verify(log, CHECKS(.found = note, .arg = &told), &verdict));
	CHECK_EQ(verdict.damaged, 1);
	has(&told, "directory is missing");
	shmq_log_close(log);
}

TEST(a_good_log_has_no_findings)
{
	shmq_log_reader *log = open_log(make());
	struct shmq_log_verdict verdict;
	struct told told = { 0 };

	CHECK_OK(shmq_log_verify(log, CHECKS(.found = note, .progress = step, .arg = &told),
				 &verdict));
	CHECK_EQ(told.lines, 0);
	CHECK_EQ(verdict.segments, 3);
	CHECK_EQ(verdict.records, 30);
	CHECK_EQ(verdict.damaged, 0);
	CHECK_EQ(verdict.missing, 0);
	CHECK_EQ(verdict.gaps, 10);
	CHECK_EQ(verdict.indexes, 0);
	CHECK_OK(shmq_log_verify(log, NULL, &verdict));
	CHECK_OK(shmq_log_verify(log, CHECKS(.partition_plus1 = 2), &verdict));
	CHECK_EQ(verdict.segments, 1);
	CHECK_ERROR(shmq_log_verify(log, CHECKS(.partition_plus1 = 3), &verdict), SHMQ_EOPTION);
	shmq_log_close(log);
}

TEST(verify_finds_what_is_damaged_in_which_partition)
{
	shmq_log_reader *log = open_log(make());
	struct shmq_log_verdict verdict;
	struct told told = { 0 };

	put(path_of("prices/1/00000000000000000007.log"), 4096 + 45, "x");
	CHECK_OK(unlink(path_of("prices/1/00000000000000000007.idx")));
	CHECK_OK(shmq_log_verify(log, CHECKS(.found = note, .arg = &told), &verdict));
	CHECK_EQ(verdict.damaged, 1);
	CHECK_EQ(verdict.indexes, 1);
	CHECK_EQ(told.partition, 1);
	has(&told, "offset 4096");
	has(&told, ".idx is missing");
	shmq_log_close(log);
}

/* A file that is there and not written yet, and a record of which a half is. */
TEST(what_is_being_written_is_no_damage_and_what_stays_so_is)
{
	const char *path = make();
	shmq_log_reader *log = open_log(path);
	struct shmq_log_verdict verdict;
	struct shmq_log_partition part;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), file;
	char name[64];

	CHECK_OK(shmq_log_get_partition(log, 1, &part));
	snprintf(name, sizeof(name), "prices/1/%020" PRIu64 ".log", part.next + 5);
	file = open(path_of(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_OK(shmq_log_verify(log, NULL, &verdict));
	CHECK_EQ(verdict.damaged, 1);
	CHECK_OK(flock(fd, LOCK_EX));
	CHECK_OK(shmq_log_verify(log, NULL, &verdict));
	CHECK_EQ(verdict.damaged, 0);
	logdir_write(file, "x", 1, 0);
	CHECK_OK(shmq_log_verify(log, NULL, &verdict));
	CHECK_GT(verdict.damaged, 0);
	close(file);
	close(fd);
	shmq_log_close(log);
}

TEST(verifying_ends_when_progress_says_so)
{
	const char *path = path_of("large");
	static char data[1 << 20];
	struct shmq_log_verdict verdict;
	struct told told = { 0 };
	shmq_log_reader *log;
	struct logdir dir;
	struct logpart p;
	int i;

	logdir_open(&dir, path, "large", 1, 0);
	logpart_open(&p, &dir, 0, 0);
	for (i = 0; i < 70; i++)
		logpart_message(&p, &(struct shmq_msg){ .data = data, .len = sizeof(data) });
	logpart_close(&p);
	logdir_close(&dir);
	log = open_log(path);
	CHECK_EQ(shmq_log_verify(log, CHECKS(.progress = stop), &verdict), 17);
	CHECK_OK(shmq_log_verify(log, CHECKS(.progress = step, .arg = &told), &verdict));
	CHECK_GE(told.steps, 1);
	shmq_log_close(log);
}

/* ---- repair ---------------------------------------------------------- */

TEST(repair_cuts_behind_the_last_good_record_and_makes_indexes_anew)
{
	const char *path = make();
	struct shmq_log_verdict verdict;
	struct told told = { 0 };
	shmq_log_reader *log;

	/* The second record of partition 1: it begins at 56. */
	put(path_of("prices/1/00000000000000000007.log"), 4096 + 56 + 41, "x");
	put(path_of("prices/0/00000000000000000100.idx"), 3, "damage");
	CHECK_OK(shmq_log_repair(path, CHECKS(.found = note, .progress = step, .arg = &told),
				 &verdict));
	has(&told, "cut/");
	has(&told, "made anew");
	CHECK_EQ(verdict.segments, 3);
	CHECK_GT(verdict.cut_bytes, 0);
	CHECK_EQ(verdict.indexes, 1);
	CHECK_EQ(told.steps, 2);
	CHECK_EQ(access(path_of("lock"), F_OK), -1);
	log = open_log(path);
	CHECK_OK(shmq_log_verify(log, NULL, &verdict));
	CHECK_EQ(verdict.damaged, 0);
	CHECK_EQ(verdict.indexes, 0);
	choose(log, RANGE(.partition_plus1 = 2));
	expect(log, 1, 7);
	expect_end(log);
	shmq_log_close(log);
}

TEST(nothing_is_repaired_while_a_supervisor_has_the_lock)
{
	const char *path = make();
	struct shmq_log_verdict verdict;
	int fd = open(path_of("lock"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK_OK(flock(fd, LOCK_EX));
	CHECK_ERROR(shmq_log_repair(path, NULL, &verdict), SHMQ_EINUSE);
	check_says("stop the bus");
	close(fd);
	/* Of one elsewhere the bus's directory is not beside it. */
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK_OK(flock(fd, LOCK_EX));
	CHECK_ERROR(shmq_log_repair(path, NULL, &verdict), SHMQ_EINUSE);
	check_says("stop the bus");
	close(fd);
	CHECK_OK(shmq_log_repair(path, CHECKS(.partition_plus1 = 1), &verdict));
	CHECK_EQ(verdict.segments, 2);
	CHECK_OK(access(path_of("lock"), F_OK));
	CHECK_ERROR(shmq_log_repair(path_of("nothing"), NULL, &verdict), -ENOENT);
	CHECK_ERROR(shmq_log_repair(path, CHECKS(.partition_plus1 = 9), &verdict), SHMQ_EOPTION);
	CHECK_EQ(shmq_log_repair(path, CHECKS(.progress = stop), &verdict), 17);
}
