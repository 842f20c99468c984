/* SPDX-License-Identifier: MIT */
#include "log_cursor.h"
#include "helpers.h"
#include "log_record.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>

static const uint8_t ours[16] = "the log that is", other[16] = "another of them";

static int make_dir(void)
{
	char path[PATH_MAX];
	int dir;

	snprintf(path, sizeof(path), "%s/log", test_tmpdir());
	CHECK_EQ(mkdir(path, 0700), 0);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(dir >= 0);
	return dir;
}

static struct log_cursor_file hold(int dir, const char *name)
{
	struct log_cursor_file f;
	struct shmq__why why = { "" };

	if (shmq__log_cursor_hold(dir, name, ours, 0, LOG_CURSOR_ALL, &f, &why))
		FAIL("%s", why.text);
	return f;
}

/* Store seq behind what is there. */
static void store(const struct log_cursor_file *f, uint32_t partition, uint64_t seq)
{
	struct log_cursor last = { .partition = partition }, next;

	if (shmq__log_cursor_get(f, partition, &last, NULL))
		last = (struct log_cursor){ .partition = partition };
	CHECK_OK(shmq__log_cursor_put(f, &last, seq, &next));
	CHECK_OK(shmq__log_cursor_sync(f));
	CHECK_EQ(next.serial, last.serial + 1);
}

static void is_stored(const struct log_cursor_file *f, uint32_t partition, uint64_t seq)
{
	struct log_cursor c;

	CHECK_OK(shmq__log_cursor_get(f, partition, &c, NULL));
	CHECK_EQ(c.seq, seq);
	CHECK_EQ(c.partition, partition);
	CHECK_GT(c.stored_ns, 0);
}

static void is_refused(const struct log_cursor_file *f, uint32_t partition, int error,
		       const char *text)
{
	struct shmq__why why = { "" };
	struct log_cursor c;

	CHECK_ERROR(shmq__log_cursor_get(f, partition, &c, &why), error);
	if (!strstr(why.text, text))
		FAIL("\"%s\" does not say \"%s\"", why.text, text);
}

/* ---- golden file ----------------------------------------------------------- */

static void read_golden(void *to, size_t bytes, off_t at)
{
	int fd = open("tests/log/golden/cursors/reader", O_RDONLY | O_CLOEXEC);

	CHECK_GE(fd, 0);
	CHECK_EQ(pread(fd, to, bytes, at), (ssize_t)bytes);
	close(fd);
}

/* Written by another program: partition 0 was stored twice, 1 once. */
TEST(the_golden_cursor_is_read_and_written_byte_by_byte)
{
	static const uint8_t id[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	char golden[3 * LOG_BLOCK + 56], got[sizeof(golden)];
	struct log_cursor_file f;
	struct log_cursor c, last = { .partition = 0 };
	int dir = open("tests/log/golden", O_RDONLY | O_DIRECTORY | O_CLOEXEC), made = make_dir();
	unsigned block;

	if (__BYTE_ORDER != __LITTLE_ENDIAN)
		SKIP("the golden files are of the other byte order");
	CHECK_OK(shmq__log_cursor_open(dir, "reader", id, &f, NULL));
	is_stored(&f, 0, UINT64_MAX - 1);
	is_stored(&f, 1, 7);
	CHECK_OK(shmq__log_cursor_get(&f, 1, &c, NULL));
	CHECK_EQ(c.stored_ns, 1700000000000000002);
	CHECK_EQ(c.serial, 1);
	is_refused(&f, 2, SHMQ_EEMPTY, "partition 2");
	shmq__log_cursor_close(&f);
	CHECK_OK(shmq__log_cursor_hold(made, "reader", id, 0, 2, &f, NULL));
	CHECK_OK(shmq__log_cursor_put(&f, &last, 5, &c));
	CHECK_OK(shmq__log_cursor_put(&f, &c, UINT64_MAX - 1, &last));
	last = (struct log_cursor){ .partition = 1 };
	CHECK_OK(shmq__log_cursor_put(&f, &last, 7, &c));
	read_golden(golden, sizeof(golden), 0);
	CHECK_EQ(pread(f.fd, got, sizeof(got), 0), (ssize_t)sizeof(got));
	for (block = 0; block < 4; block++) { /* but for when, and what follows from that */
		char *b = got + (size_t)block * LOG_BLOCK;
		uint32_t sum = shmq__log_sum(0, b, 52);

		if (block != 2)
			CHECK_MEM(b + 52, &sum, 4);
		memcpy(b + 40, golden + (size_t)block * LOG_BLOCK + 40, 8);
		memcpy(b + 52, golden + (size_t)block * LOG_BLOCK + 52, 4);
	}
	CHECK_MEM(got, golden, sizeof(golden));
	shmq__log_cursor_close(&f);
	close(made);
	close(dir);
}

/* ---- storing --------------------------------------------------------------- */

TEST(what_was_stored_is_read_again_partition_by_partition)
{
	int dir = make_dir();
	struct log_cursor_file f = hold(dir, "a.reader-1");

	is_refused(&f, 0, SHMQ_EEMPTY, "a.reader-1");
	store(&f, 0, 42);
	store(&f, 3, UINT64_MAX);
	store(&f, 3, 5);
	shmq__log_cursor_close(&f);
	CHECK_OK(shmq__log_cursor_open(dir, "a.reader-1", ours, &f, NULL));
	is_stored(&f, 0, 42);
	is_stored(&f, 3, 5);
	is_refused(&f, 1, SHMQ_EEMPTY, "partition 1");
	is_refused(&f, 4, SHMQ_EEMPTY, "partition 4");
	shmq__log_cursor_close(&f);
	shmq__log_cursor_close(&f);
	close(dir);
}

TEST(a_block_that_is_torn_anywhere_leaves_the_one_before)
{
	int dir = make_dir();
	struct log_cursor_file f = hold(dir, "c");
	size_t at;
	char byte;

	store(&f, 1, 1);
	store(&f, 1, 2);
	store(&f, 1, 3); /* in the second block of its pair */
	for (at = 0; at < sizeof(struct log_cursor); at++) {
		off_t place = 3 * LOG_BLOCK + (off_t)at;

		CHECK_EQ(pread(f.fd, &byte, 1, place), 1);
		byte ^= 0x10;
		CHECK_EQ(pwrite(f.fd, &byte, 1, place), 1);
		is_stored(&f, 1, 2);
		byte ^= 0x10;
		CHECK_EQ(pwrite(f.fd, &byte, 1, place), 1);
		is_stored(&f, 1, 3);
	}
	shmq__log_cursor_close(&f);
	close(dir);
}

TEST(a_first_one_that_is_torn_was_never_stored_and_two_that_are_are_damage)
{
	int dir = make_dir();
	struct log_cursor_file f = hold(dir, "c");

	store(&f, 0, 1);
	CHECK_EQ(pwrite(f.fd, "x", 1, LOG_BLOCK + 20), 1);
	is_refused(&f, 0, SHMQ_EEMPTY, "nothing stored");
	store(&f, 0, 1);
	store(&f, 0, 2);
	CHECK_EQ(pwrite(f.fd, "x", 1, LOG_BLOCK + 20), 1);
	is_stored(&f, 0, 2);
	CHECK_EQ(pwrite(f.fd, "x", 1, 20), 1);
	is_refused(&f, 0, SHMQ_ECORRUPT, "damaged in partition 0");
	store(&f, 0, 7);
	is_stored(&f, 0, 7);
	CHECK_EQ(ftruncate(f.fd, LOG_BLOCK + 30), 0);
	is_refused(&f, 0, SHMQ_ECORRUPT, "damaged");
	shmq__log_cursor_close(&f);
	close(dir);
}

static void forge(const struct log_cursor_file *f, struct log_cursor c)
{
	c.checksum = shmq__log_sum(0, &c, offsetof(struct log_cursor, checksum));
	CHECK_EQ(pwrite(f->fd, &c, sizeof(c), (off_t)(c.serial % 2) * LOG_BLOCK),
		 (ssize_t)sizeof(c));
}

TEST(what_is_of_another_log_byte_order_partition_or_place_is_refused)
{
	struct log_cursor good = {
		.magic = LOG_MAGIC_CURSOR, .serial = 2, .seq = 9, .stored_ns = 1
	};
	struct log_cursor bad;
	int dir = make_dir();
	struct log_cursor_file f = hold(dir, "mine");

	memcpy(good.log_id, ours, sizeof(ours));
	bad = good;
	memcpy(bad.log_id, other, sizeof(other));
	forge(&f, bad);
	is_refused(&f, 0, -ESTALE, "\"mine\" is of another log");
	bad = good;
	bad.magic = __builtin_bswap64(bad.magic);
	forge(&f, bad);
	is_refused(&f, 0, SHMQ_EVERSION, "byte order");
	bad = good;
	bad.partition = 1;
	forge(&f, bad);
	is_refused(&f, 0, SHMQ_ECORRUPT, "damaged");
	CHECK_EQ(ftruncate(f.fd, 0), 0);
	bad = good; /* in the other's place */
	bad.serial = 3;
	bad.checksum = shmq__log_sum(0, &bad, offsetof(struct log_cursor, checksum));
	CHECK_EQ(pwrite(f.fd, &bad, sizeof(bad), 0), (ssize_t)sizeof(bad));
	is_refused(&f, 0, SHMQ_ECORRUPT, "damaged");
	forge(&f, good);
	is_stored(&f, 0, 9);
	shmq__log_cursor_close(&f);
	close(dir);
}

/* ---- holding --------------------------------------------------------------- */

static int holds_until_killed(void *arg)
{
	struct log_cursor_file f;
	_Atomic int *stage = arg;

	CHECK_OK(shmq__log_cursor_hold(*(int *)(stage + 1), "c", ours, 0, 1, &f, NULL));
	reach(stage, 1);
	while (f.fd >= 0)
		pause();
	return 1;
}

TEST(one_holds_a_partition_until_he_closes_or_dies)
{
	_Atomic int *stage = shared_memory(2 * sizeof(*stage));
	struct log_cursor_file a, b;
	struct shmq__why why;
	int dir = make_dir();
	pid_t child;

	CHECK_OK(shmq__log_cursor_hold(dir, "c", ours, 1, 2, &a, NULL));
	CHECK_ERROR(shmq__log_cursor_hold(dir, "c", ours, 0, LOG_CURSOR_ALL, &b, &why),
		    SHMQ_EINUSE);
	CHECK(strstr(why.text, "\"c\""));
	CHECK_ERROR(shmq__log_cursor_hold(dir, "c", ours, 2, 1, &b, NULL), SHMQ_EINUSE);
	CHECK_EQ(b.fd, -1);
	CHECK_OK(shmq__log_cursor_hold(dir, "c", ours, 3, 1, &b, NULL));
	CHECK_ERROR(shmq__log_cursor_remove(dir, "c", &why), SHMQ_EINUSE);
	shmq__log_cursor_close(&b);
	CHECK_OK(shmq__log_cursor_open(dir, "c", ours, &b, NULL));
	CHECK(!shmq__log_cursor_is_held(&b, 0));
	CHECK(shmq__log_cursor_is_held(&b, 1));
	CHECK(shmq__log_cursor_is_held(&b, 2));
	CHECK(!shmq__log_cursor_is_held(&b, 3));
	shmq__log_cursor_close(&a);
	CHECK(!shmq__log_cursor_is_held(&b, 1));

	*(int *)(stage + 1) = dir;
	child = test_spawn(holds_until_killed, stage);
	await(stage, 1);
	CHECK_ERROR(shmq__log_cursor_hold(dir, "c", ours, 0, 1, &a, NULL), SHMQ_EINUSE);
	kill(child, SIGKILL);
	CHECK_EQ(test_join(child), 128 + SIGKILL);
	CHECK_OK(shmq__log_cursor_hold(dir, "c", ours, 0, 1, &a, NULL));
	shmq__log_cursor_close(&a);
	shmq__log_cursor_close(&b);
	close(dir);
}

/* ---- the lowest ------------------------------------------------------------ */

static int lowest(int dir, uint32_t partition, uint64_t *seq, char *name)
{
	struct shmq__why why = { "" };
	int rc = shmq__log_cursor_lowest(dir, ours, partition, seq, name, &why);

	if (rc && rc != SHMQ_EEMPTY)
		CHECK(strstr(why.text, "\"bad\""));
	return rc;
}

static void put(int dir, const char *name, uint32_t partition, uint64_t seq)
{
	struct log_cursor_file f = hold(dir, name);

	store(&f, partition, seq);
	shmq__log_cursor_close(&f);
}

TEST(the_lowest_of_a_partition_is_found_across_the_wrap_and_damage_is_told)
{
	char name[SHMQ_NAME_MAX + 1];
	int dir = make_dir();
	struct log_cursor_file f;
	struct log_cursor next;
	uint64_t seq;

	CHECK_ERROR(lowest(dir, 0, &seq, name), SHMQ_EEMPTY);
	put(dir, "a", 0, 5);
	put(dir, "b", 0, UINT64_MAX - 5);
	put(dir, "c", 0, 3);
	put(dir, "c", 1, 9);
	CHECK_OK(lowest(dir, 0, &seq, name));
	CHECK_EQ(seq, UINT64_MAX - 5);
	CHECK_STR(name, "b");
	CHECK_OK(lowest(dir, 1, &seq, name));
	CHECK_EQ(seq, 9);
	CHECK_STR(name, "c");
	CHECK_ERROR(lowest(dir, 2, &seq, name), SHMQ_EEMPTY);
	CHECK_OK(shmq__log_cursor_hold(dir, "foreign", other, 1, 1, &f, NULL));
	CHECK_OK(shmq__log_cursor_put(&f, &(struct log_cursor){ .partition = 1 }, 1, &next));
	shmq__log_cursor_close(&f);
	CHECK_OK(lowest(dir, 1, &seq, name));
	CHECK_EQ(seq, 9);
	f = hold(dir, "bad");
	store(&f, 1, 1);
	store(&f, 1, 2);
	CHECK_EQ(pwrite(f.fd, "xxxxxxxx", 8, 2 * LOG_BLOCK), 8);
	CHECK_EQ(pwrite(f.fd, "xxxxxxxx", 8, 3 * LOG_BLOCK), 8);
	shmq__log_cursor_close(&f);
	CHECK_ERROR(lowest(dir, 1, &seq, name), SHMQ_ECORRUPT);
	CHECK_OK(lowest(dir, 0, &seq, name));
	CHECK_OK(shmq__log_cursor_remove(dir, "bad", NULL));
	CHECK_EQ(mkdirat(dir, "cursors/bad", 0700), 0);
	CHECK_ERROR(lowest(dir, 1, &seq, name), SHMQ_ECORRUPT);
	close(dir);
}

/* ---- files ------------------------------------------------------------------ */

static int count(void *arg, const char *name)
{
	unsigned *n = arg;

	CHECK(!strcmp(name, "a") || !strcmp(name, "b.c"));
	return ++*n == 5;
}

TEST(cursors_are_listed_and_removed)
{
	struct log_cursor_file f;
	int dir = make_dir();
	unsigned n = 0;

	CHECK_OK(shmq__log_cursor_each(dir, count, &n));
	CHECK_ERROR(shmq__log_cursor_open(dir, "a", ours, &f, NULL), -ENOENT);
	CHECK_ERROR(shmq__log_cursor_remove(dir, "a", NULL), -ENOENT);
	f = hold(dir, "a");
	shmq__log_cursor_close(&f);
	f = hold(dir, "b.c");
	shmq__log_cursor_close(&f);
	CHECK_EQ(mkdirat(dir, "cursors/.hidden", 0700), 0);
	CHECK_OK(shmq__log_cursor_each(dir, count, &n));
	CHECK_EQ(n, 2);
	n = 4;
	CHECK_EQ(shmq__log_cursor_each(dir, count, &n), 1);
	CHECK_OK(shmq__log_cursor_remove(dir, "a", NULL));
	CHECK_ERROR(shmq__log_cursor_open(dir, "a", ours, &f, NULL), -ENOENT);
	n = 0;
	CHECK_OK(shmq__log_cursor_each(dir, count, &n));
	CHECK_EQ(n, 1);
	close(dir);
}

TEST(what_is_no_name_or_no_file_is_not_opened)
{
	static const char *const bad[] = { "",     ".",  "..", "../topic", "a/b",
					   "a..b", ".a", "a.", "$a" };
	struct log_cursor_file f;
	struct shmq__why why;
	int dir = make_dir();
	size_t i;

	f = hold(dir, "c");
	shmq__log_cursor_close(&f);
	for (i = 0; i < COUNT(bad); i++) {
		CHECK_ERROR(shmq__log_cursor_hold(dir, bad[i], ours, 0, 1, &f, &why), SHMQ_EOPTION);
		CHECK_ERROR(shmq__log_cursor_open(dir, bad[i], ours, &f, &why), SHMQ_EOPTION);
		CHECK_ERROR(shmq__log_cursor_remove(dir, bad[i], &why), SHMQ_EOPTION);
		CHECK(strstr(why.text, "cursor name"));
	}
	CHECK_EQ(mkfifoat(dir, "cursors/pipe", 0600), 0);
	CHECK_ERROR(shmq__log_cursor_hold(dir, "pipe", ours, 0, 1, &f, &why), SHMQ_ECORRUPT);
	CHECK(strstr(why.text, "no regular file"));
	CHECK_EQ(symlinkat("c", dir, "cursors/link"), 0);
	CHECK_ERROR(shmq__log_cursor_hold(dir, "link", ours, 0, 1, &f, &why), -ELOOP);
	CHECK_ERROR(shmq__log_cursor_open(dir, "link", ours, &f, &why), -ELOOP);
	CHECK_OK(shmq__log_cursor_remove(dir, "link", &why));
	close(dir);
}
