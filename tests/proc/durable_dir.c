/* SPDX-License-Identifier: MIT
 *
 * The directory of a topic's log: what is there that should not be, what is
 * not there that should, whose it is, and where seqs wrap.
 */
#include "logged.h"

#include <fcntl.h>
#include <sys/stat.h>

static const char *path_of(const char *what)
{
	static char path[PATH_MAX * 2];

	snprintf(path, sizeof(path), "%s/%s", test_bus_data(), what);
	return path;
}

static void swap(const char *a, const char *b)
{
	char first[PATH_MAX * 2], second[PATH_MAX * 2];

	snprintf(first, sizeof(first), "%s", path_of(a));
	snprintf(second, sizeof(second), "%s", path_of(b));
	CHECK(!renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE));
}

/* A bus whose topic "t" has 5000 messages in its log, and went down. */
static void make_log(void)
{
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	create(bus, "u", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5000);
	await_written(bus, "t", 5000);
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	test_bus_await_end();
}

TEST(a_data_directory_that_cannot_be_written_refuses_topics_with_logs_and_no_others)
{
	shmq_bus *bus;
	int fd;

	test_bus_prepare();
	fd = open(getenv("SHMQ_DATA_DIR"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0); /* a file: that stops root, too */
	close(fd);
	test_bus_restart();
	bus = test_bus_open();
	CHECK_ERROR(shmq_topic_create(bus, "t", TOPIC_OPTIONS(.log = SHMQ_LOG_BLOCK), NULL),
		    -ENOTDIR);
	check_says("making the log in");
	create(bus, "plain");
	CHECK(!unlink(getenv("SHMQ_DATA_DIR")));
	create(bus, "t", .log = SHMQ_LOG_BLOCK);
	shmq_bus_close(bus);
	test_bus_stop();
}

static void put(const char *what, const char *text)
{
	int fd = open(path_of(what), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK_GE(fd, 0);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

TEST(a_log_that_was_not_finished_when_its_maker_died_is_made_again)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "other", .log = SHMQ_LOG_BLOCK);
	CHECK(!mkdir(path_of("t"), 0700));
	CHECK(!mkdir(path_of("t/0"), 0700));
	put("t/topic.new", "half of");
	put("t/0/ceiling", "a");
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	CHECK(access(path_of("t/topic.new"), F_OK));
	pub = open_pub(bus, "t");
	publish(pub, 0, 3 * DEPTH);
	await_written(bus, "t", 3 * DEPTH);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_kill(NULL);
	test_bus_restart();
	bus = test_bus_open();
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 3 * DEPTH);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static void put_pipe(const char *what)
{
	unlink(path_of(what));
	CHECK(!mkfifo(path_of(what), 0600));
}

/* Opened as files are, they would wait for ever for somebody at their other end. */
TEST(pipes_in_the_place_of_a_logs_files_hold_nobody_up)
{
	static const char *const made[] = { "t/topic.new", "t/0/ceiling" };
	shmq_bus *bus;
	shmq_pub *pub;

	make_log();
	put_pipe("lock");
	put_pipe("u/0/compacted");
	put_pipe("u/0/compacted.new");
	put_pipe("u/topic");
	test_bus_restart();
	bus = test_bus_open();
	pub = open_pub(bus, "t");
	publish(pub, 5000, 6000);
	await_written(bus, "t", 6000);
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	CHECK(!mkdir(path_of("t"), 0700));
	CHECK(!mkdir(path_of("t/0"), 0700));
	for (size_t i = 0; i < COUNT(made); i++) {
		put_pipe(made[i]);
		CHECK_ERROR(shmq_topic_create(bus, "t", TOPIC_OPTIONS(.log = SHMQ_LOG_BLOCK), NULL),
			    -ENXIO);
		check_says("making the log in");
		CHECK(!unlink(path_of(made[i])));
	}
	create(bus, "t", .log = SHMQ_LOG_BLOCK);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_log_that_is_removed_under_its_readers_is_named_to_who_opens_and_the_bus_goes_on)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	create(bus, "u", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5000);
	test_remove_tree(path_of("t"));
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.from = SHMQ_FROM_OLDEST), &sub), -ENOENT);
	check_says("opening the log in");
	/* What it writes to is there as long as it writes. */
	publish(pub, 5000, 10000);
	shmq_pub_close(pub);
	pub = open_pub(bus, "u");
	publish(pub, 0, 5000);
	sub = open_sub(bus, "u", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 5000);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(logs_that_were_swapped_are_neither_read_nor_written)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	create(bus, "u", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5000);
	await_written(bus, "t", 5000);
	swap("t", "u");
	CHECK_ERROR(shmq_sub_open(bus, "u", SUB_OPTIONS(.from = SHMQ_FROM_OLDEST), &sub),
		    SHMQ_ECORRUPT);
	check_says("it is the log of \"t\"");
	CHECK_EQ(test_bus_kill("tailer"), 1);
	await_said("the log of \"u\" is not kept: it is the log of \"t\"");
	swap("t", "u");
	/* As soon as they are right again both go on. */
	publish(pub, 5000, 10000);
	await_written(bus, "t", 10000);
	sub = open_sub(bus, "u", .from = SHMQ_FROM_OLDEST);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 10000);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_comes_up_with_what_is_good_of_a_damaged_log_and_says_what_it_cut)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	struct stat st;
	int fd;

	make_log();
	fd = open(path_of("t/0/00000000000000000000.log"), O_RDWR | O_CLOEXEC);
	CHECK_GE(fd, 0);
	CHECK(!fstat(fd, &st));
	CHECK_EQ(pwrite(fd, "damage", 6, st.st_size / 2), 6);
	close(fd);
	fd = open(path_of("t/0/00000000000000009999.log"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0);
	CHECK_EQ(write(fd, "foreign", 7), 7);
	close(fd);
	test_bus_restart();
	await_said("00000000000000009999.log was moved to cut/");
	await_said("bytes from there on were moved to cut/");
	bus = test_bus_open();
	/* What was cut off is not given again, but told. */
	CHECK_EQ(head(bus, "t"), 5000);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (uint64_t n = 0;; n++) {
		int rc = shmq_receive(sub, &msg, PATIENCE);

		if (rc == SHMQ_EOVERRUN) {
			CHECK_EQ(n + msg.lost, 5000);
			break;
		}
		CHECK_OK(rc);
		CHECK(is_filled(msg.data, BYTES, n));
	}
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_second_bus_with_the_data_directory_of_a_first_is_refused_by_name)
{
	char other[PATH_MAX];
	shmq_bus *bus, *second;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 5000);
	await_written(bus, "t", 5000);
	/* One of the same name, of another runtime directory. */
	snprintf(other, sizeof(other), "%s/other", test_tmpdir());
	CHECK(!mkdir(other, 0700));
	child = fork();
	CHECK_GE(child, 0);
	if (!child) {
		execl(test_bus_daemon(), "shmqd", "--foreground", "--bus", test_bus_name(),
		      "--runtime-dir", other, (char *)NULL);
		_exit(127);
	}
	do
		rc = shmq_bus_open(test_bus_name(), BUS_OPTIONS(.runtime_dir = other), &second);
	while (rc == SHMQ_ENODAEMON);
	CHECK_OK(rc);
	CHECK_ERROR(shmq_topic_create(second, "t", TOPIC_OPTIONS(.log = SHMQ_LOG_BLOCK), NULL),
		    SHMQ_EINUSE);
	check_says("another bus keeps the log of \"t\"");
	CHECK_OK(shmq_bus_stop(second, 0));
	shmq_bus_close(second);
	CHECK_EQ(test_join(child), 0);
	publish(pub, 5000, 10000);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, 0, 0, 10000);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static const char *write_config(const char *data_dir)
{
	static char path[PATH_MAX];
	FILE *out;

	snprintf(path, sizeof(path), "%s/bus.conf", test_tmpdir());
	out = fopen(path, "w");
	CHECK(out);
	fprintf(out, "data-dir = \"%s/%s\"\n", test_tmpdir(), data_dir);
	CHECK_OK(fclose(out));
	return path;
}

TEST(a_data_directory_that_a_reload_names_is_for_the_next_start)
{
	char other[PATH_MAX];
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_prepare();
	CHECK_OK(unsetenv("SHMQ_DATA_DIR"));
	test_bus_restart("--config", write_config("first"));
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	publish(pub, 0, 10);
	await_written(bus, "t", 10);
	write_config("second");
	CHECK_EQ(shmq_bus_reload(bus, NULL, 0), 1);
	CHECK_EQ(test_bus_kill("tailer"), 1);
	publish(pub, 10, 20);
	await_written(bus, "t", 20);
	snprintf(other, sizeof(other), "%s/second", test_tmpdir());
	CHECK_EQ(access(other, F_OK), -1);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(seqs_wrap_in_a_log_as_they_do_in_its_ring)
{
	uint64_t base = (uint64_t)0 - 20000, to = 100000;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start("--first-seq", "18446744073709531616");
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 1 << 20,
	       .sync = SHMQ_SYNC_BATCH);
	pub = open_pub(bus, "t");
	publish(pub, 0, to);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, base + to - 1, SHMQ_SYNCED, PATIENCE));
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	expect(sub, base, 0, to);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = base + 19990);
	expect(sub, base, 19990, to);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_TIME, .ts_ns = 1);
	expect(sub, base, 0, to);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}
