/* SPDX-License-Identifier: MIT
 *
 * A partition on its way into its log, by plain calls, on a disk that fails or takes its
 * time.
 */
#include "helpers.h"
#include "standin.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../../libshmq/bus.h"
#include "clock.h"
#include "futex.h"
#include "log.h"
#include "tail_lane.h"

enum { BUFFER_BYTES = 16 << 10 };
static const struct log_owner owner = { .log_id = "of a test's log" };

/* ---- the disk: plain calls go through here ---------------------------------------- */

static struct {
	int sync_error;
	void (*before_write)(void); /* of what is behind the first message */
} disk;

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t off)
{
	if (disk.before_write)
		disk.before_write();
	return syscall(SYS_pwrite64, fd, data, bytes, off);
}

ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t off, int flags)
{
	(void)count;
	(void)flags;
	return pwrite(fd, data->iov_base, data->iov_len, off);
}

int fdatasync(int fd)
{
	(void)fd;
	errno = disk.sync_error;
	return disk.sync_error ? -1 : 0;
}

/* ---- a lane ------------------------------------------------------------------------ */

static struct {
	struct standin *s;
	struct fake *f;
	shmq_bus *bus;
	shmq_pub *pub;
	struct shmq_topic_info info;
	struct tail_io *io;
	struct tail_keep *keep;
	struct tail_lane *lane;
	struct lay_partition *part;
	int dir;
} t;

static void begin(enum shmq_sync sync, int64_t sync_ns)
{
	const struct fake_options o = { .log = SHMQ_LOG_BLOCK, .mode = SHMQ_SHARED };
	struct shmq__why why = { "" };
	const char *path = test_tmpdir();

	CHECK_GE(t.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0);
	CHECK_OK(mkdirat(t.dir, "0", 0700));
	t.s = standin_new(&o);
	t.f = standin_fake(t.s);
	t.part = &t.f->partition[0];
	t.bus = standin_bus(t.s);
	t.pub = open_pub(t.bus, STANDIN_TOPIC);
	CHECK_OK(shmq__bus_describe_topic(t.bus, 0, &t.info));
	t.info.sync = sync;
	t.info.sync_ns = sync_ns;
	t.info.segment_bytes = LAY_SEGMENT_BYTES_MIN;
	CHECK_OK(tail_io_create(&(struct tail_io_options){ .buffer_count = 3,
							   .buffer_bytes = BUFFER_BYTES,
							   .kind = TAIL_IO_PLAIN },
				&t.io));
	CHECK_OK(tail_keep_create(&path, 1, &t.keep));
	CHECK_OK(tail_lane_open(&(struct tail_lane_options){ .bus = t.bus,
							     .io = t.io,
							     .keep = t.keep,
							     .topic = &t.info,
							     .dir = t.dir,
							     .log_id = owner.log_id,
							     .part = t.part },
				&t.lane, &why));
}

static void end(int error)
{
	CHECK_ERROR(tail_lane_close(t.lane), error);
	shmq_pub_close(t.pub);
	shmq_bus_close(t.bus);
	tail_keep_destroy(t.keep);
	tail_io_destroy(t.io);
	standin_free(t.s);
	close(t.dir);
}

/* So long after now, and when to come again. */
static uint64_t tend(uint64_t later)
{
	uint64_t now = shmq__clock_monotonic_ns() + later, due = tail_lane_tend(t.lane, now);

	return due > now ? due - now : 0;
}

static void publish(void)
{
	CHECK_OK(shmq_publish(t.pub, "x", 1));
	CHECK_EQ(tail_lane_pump(t.lane, 0), 0);
}

static void reap(void)
{
	while (tail_io_reap(t.io, 0))
		;
}

/* Whoever would come again at once would have a processor for himself. */
TEST(a_sync_that_failed_is_not_tried_again_all_the_time)
{
	log_open("test", LOG_ERROR);
	begin(SHMQ_SYNC_INTERVAL, 10 * SECOND);
	publish();
	tend(SECOND); /* is written, */
	reap();
	disk.sync_error = EIO;
	tend(20 * SECOND); /* and to be synced */
	reap();
	publish();
	tend(40 * SECOND);
	reap();
	CHECK_EQ(t.part->log_error, -EIO);
	CHECK_EQ(t.part->log_synced, 0);
	CHECK_GT(tend(60 * SECOND), SECOND);
	CHECK_EQ(t.part->log_written, 2);
	end(-EIO);
}

static _Atomic int awake;

static void await_awake(void)
{
	while (!awake)
		test_sleep_ms(1);
}

/* The first message is synced once the other thread sleeps, and the second one's write
 * takes until that is awake. */
static void *sync_first(void *arg)
{
	unsigned long *sleeps = arg;

	while (test_sleeps_of_main() == *sleeps)
		test_sleep_ms(1);
	tend(SECOND);
	reap();
	publish();
	disk.before_write = await_awake;
	tend(60 * SECOND);
	return NULL;
}

TEST(who_sleeps_until_it_is_synced_does_not_sleep_until_the_next_is)
{
	unsigned long sleeps;
	pthread_t thread;
	uint32_t word;

	begin(SHMQ_SYNC_EVERY, 0);
	tend(0); /* of the marks as they are */
	reap();
	publish();
	sleeps = test_sleeps_of_main();
	CHECK_EQ(pthread_create(&thread, NULL, sync_first, &sleeps), 0);
	while (word = load_acquire(&t.part->log_word), !load_acquire(&t.part->log_synced))
		CHECK_OK(shmq__futex_wait(&t.part->log_word, word, UINT64_MAX));
	awake = 1;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(t.part->log_synced, 1);
	disk.before_write = NULL;
	reap();
	end(0);
}
