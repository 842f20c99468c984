/* SPDX-License-Identifier: MIT
 *
 * Topics whose logs are on several devices: each where it was asked for, found by who
 * does not know of that, and none delayed by another's disk.
 */
#include "logged.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { MIB = 1 << 20 };

static char one[PATH_MAX], two[PATH_MAX];

static void mount_disk(char path[PATH_MAX], const char *name, const char *how)
{
	snprintf(path, PATH_MAX, "%s/%s", test_tmpdir(), name);
	CHECK(!mkdir(path, 0700));
	if (mount("none", path, "tmpfs", 0, how))
		SKIP("no file system of its own: %s", strerror(errno));
}

/* Two that are small, besides that of the data directory. */
static shmq_bus *start_on_disks(void)
{
	static char dirs[2 * PATH_MAX + 2];

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		SKIP("no mounts of its own: %s", strerror(errno));
	mount_disk(one, "one", "size=64m");
	mount_disk(two, "two", "size=8m");
	snprintf(dirs, sizeof(dirs), "%s:%s", one, two);
	test_bus_prepare();
	test_bus_restart_args((const char *const[]){ "--log-dirs", dirs, NULL });
	return test_bus_open();
}

static void end_on_disks(shmq_bus *bus)
{
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	test_bus_await_end();
	CHECK(!umount2(one, MNT_DETACH));
	CHECK(!umount2(two, MNT_DETACH));
	test_bus_stop();
}

static int is_there(const char *disk, const char *what)
{
	char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/%s", disk, test_bus_name(), what);
	return !access(path, F_OK);
}

static void send(shmq_bus *bus, const char *topic, uint64_t from, uint64_t to)
{
	shmq_pub *pub = open_pub(bus, topic);

	publish(pub, from, to);
	await_written(bus, topic, to);
	shmq_pub_close(pub);
}

/* The seqs below the ceiling were skipped: it went down. */
static void send_on(shmq_bus *bus, const char *topic, uint64_t from, uint64_t to)
{
	uint64_t next = written(bus, topic);
	shmq_pub *pub = open_pub(bus, topic);

	publish(pub, from, to);
	await_written(bus, topic, next + to - from);
	shmq_pub_close(pub);
}

static void read_all(shmq_bus *bus, const char *topic, uint64_t to)
{
	shmq_sub *sub = open_sub(bus, topic, .from = SHMQ_FROM_OLDEST);

	expect(sub, 0, 0, to);
	shmq_sub_close(sub);
}

struct disks {
	unsigned count;
	struct shmq_disk_info all[8];
};

static int keep_disk(void *arg, const struct shmq_disk_info *disk)
{
	struct disks *to = arg;

	to->all[to->count++] = *disk;
	return 0;
}

/* What was written on the disk that `path` is on. */
static uint64_t bytes_on(shmq_bus *bus, const char *path)
{
	struct disks disks = { 0 };
	struct stat st;
	unsigned i;

	CHECK(!stat(path, &st));
	CHECK_OK(shmq_disk_each(bus, keep_disk, &disks));
	CHECK_EQ(disks.count, 3);
	for (i = 0; i < disks.count; i++)
		if (disks.all[i].device == st.st_dev) {
			CHECK(!strncmp(disks.all[i].dir, path, strlen(path)));
			return disks.all[i].written_bytes;
		}
	FAIL("%s is on none of them", path);
}

TEST_WITHIN(a_log_is_on_the_disk_that_its_topic_says_and_is_found_there_again, 60)
{
	static const char *const topic[] = { "here", "first", "second" };
	shmq_bus *bus = start_on_disks();
	struct shmq_log_verdict verdict;
	char path[PATH_MAX];
	unsigned i;

	create(bus, "here", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	create(bus, "first", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .log_dir = one);
	create(bus, "second", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .log_dir = two);
	for (i = 0; i < 3; i++)
		send(bus, topic[i], 0, 5000);
	CHECK(is_there(one, "first/0"));
	CHECK(is_there(two, "second/0"));
	CHECK(!is_there(one, "second") && !is_there(one, "here") && !is_there(two, "here"));
	for (i = 0; i < 3; i++)
		read_all(bus, topic[i], 5000);
	while (bytes_on(bus, one) < 5000 * BYTES || bytes_on(bus, two) < 5000 * BYTES ||
	       bytes_on(bus, test_bus_data()) < 5000 * BYTES)
		test_sleep_ms(1);
	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", test_bus_data(), topic[i]);
		CHECK_ERROR(shmq_log_repair(path, NULL, &verdict), SHMQ_EINUSE);
	}
	CHECK_EQ(test_bus_kill("tailer"), 1);
	for (i = 0; i < 3; i++)
		send(bus, topic[i], 5000, 10000);
	while (bytes_on(bus, one) < 10000 * BYTES)
		test_sleep_ms(1);
	test_bus_kill(NULL);
	test_bus_restart_args((const char *const[]){ "--log-dirs", one, NULL });
	/* One that is not named any more is read and written all the same. */
	for (i = 0; i < 3; i++)
		read_all(bus, topic[i], 10000);
	send_on(bus, "second", 10000, 12000);
	CHECK_OK(shmq_topic_remove(bus, "second", 0));
	CHECK(!is_there(two, "second"));
	end_on_disks(bus);
}

TEST_WITHIN(what_was_removed_on_another_disk_is_deleted_and_the_topic_may_come_again, 60)
{
	shmq_bus *bus = start_on_disks();
	struct shmq_topic_options options = {
		.size = sizeof(options), .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB, .log_dir = two
	};
	char path[PATH_MAX];
	int round;

	/* More than would fit beside one another. */
	for (round = 0; round < 6; round++) {
		CHECK_OK(shmq_topic_create(bus, "t", &options, NULL));
		send(bus, "t", 0, 20000);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
		CHECK(!is_there(two, "t"));
	}
	/* What is there already stays there. */
	options.log_dir = NULL;
	CHECK_OK(shmq_topic_create(bus, "u", &options, NULL));
	send(bus, "u", 0, 10);
	snprintf(path, sizeof(path), "%s/kept", test_bus_data());
	CHECK(!mkdir(path, 0700));
	options.log_dir = one;
	CHECK_ERROR(shmq_topic_create(bus, "kept", &options, NULL), SHMQ_EEXISTS);
	check_says("is there");
	snprintf(path, sizeof(path), "%s/gone", test_bus_data());
	CHECK(!symlink("/nowhere/gone", path));
	options.log_dir = NULL;
	CHECK_ERROR(shmq_topic_create(bus, "gone", &options, NULL), -ENOENT);
	check_says("/nowhere/gone, which is not there");
	CHECK(!unlink(path));
	options.log_dir = "/nowhere";
	CHECK_ERROR(shmq_topic_create(bus, "v", &options, NULL), SHMQ_EOPTION);
	check_says("--log-dirs");
	options.log_dir = one;
	options.log = SHMQ_LOG_NONE;
	CHECK_ERROR(shmq_topic_create(bus, "v", &options, NULL), SHMQ_EOPTION);
	end_on_disks(bus);
}

static void fill_disk(void)
{
	static char zeros[65536];
	char path[PATH_MAX + 8];
	int fd;

	snprintf(path, sizeof(path), "%s/other", two);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	close(fd);
}

TEST_WITHIN(a_disk_that_is_full_stops_its_own_topics_and_no_others, 60)
{
	struct flow stopped = { .topic = "second", .to = 20000 };
	shmq_bus *bus = start_on_disks();
	char path[PATH_MAX + 8];
	uint32_t p;
	pid_t child;

	create(bus, "here", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .sync = SHMQ_SYNC_EVERY);
	create(bus, "first", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .log_dir = one);
	create(bus, "second", .depth = DEPTH, .partitions = 8, .log = SHMQ_LOG_BLOCK,
	       .segment_bytes = MIB, .log_dir = two);
	fill_disk();
	child = test_spawn(publish_flow, &stopped);
	for (p = 0; p < 8; p++)
		while (!partition_info(bus, "second", p).log_error)
			test_sleep_ms(1);
	send(bus, "here", 0, 20000);
	send(bus, "first", 0, 20000);
	for (p = 0; p < 8; p++)
		CHECK_EQ(partition_info(bus, "second", p).log_error, -ENOSPC);
	snprintf(path, sizeof(path), "%s/other", two);
	CHECK(!unlink(path));
	CHECK_EQ(test_join(child), 0);
	read_all(bus, "here", 20000);
	read_all(bus, "first", 20000);
	end_on_disks(bus);
}

static int publish_to_the_end(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, arg);
	char buf[BYTES] = { 0 };
	int rc;

	while (!(rc = shmq_publish(pub, buf, sizeof(buf))))
		;
	CHECK_ERROR(rc, SHMQ_EENDED);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static int is_without(void *role)
{
	return !test_bus_pid(role);
}

static void await_without(const char *role)
{
	if (!test_wait_until(is_without, (void *)(uintptr_t)role, (int)(PATIENCE / MILLISECOND)))
		FAIL("the %s is still there", role);
}

/* It waits for room on one disk, and has nothing to write to the others any more. */
TEST_WITHIN(a_tailer_whose_parent_dies_while_it_waits_for_a_full_disk_ends, 120)
{
	static char second[] = "second";
	shmq_bus *bus = start_on_disks();
	pid_t child;

	create(bus, second, .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = MIB,
	       .log_dir = two);
	fill_disk();
	child = test_spawn(publish_to_the_end, second);
	while (!partition_info(bus, second, 0).log_error)
		test_sleep_ms(1);
	CHECK_OK(shmq_bus_stop(bus, SHMQ_FORCE));
	shmq_bus_close(bus);
	CHECK_EQ(test_join(child), 0);
	await_without("control");
	CHECK(test_bus_pid("tailer"));
	CHECK_EQ(test_bus_kill("parent"), 1);
	await_without("tailer");
	CHECK(!umount2(one, MNT_DETACH));
	CHECK(!umount2(two, MNT_DETACH));
	test_bus_stop();
}
