/* SPDX-License-Identifier: MIT */
#include "tap.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shmq.h"
#include "tail_io.h"

#define KIB 1024
#define SMALL (16 * KIB) /* bytes of a buffer */

/* Plain calls that misbehave when a test wants it: these stand before libc's
 * for the code under test. */
static struct {
	size_t most;     /* bytes of a pwrite */
	int interrupts;  /* so many calls are interrupted first */
	int write_error; /* of every pwrite */
	int sync_error;  /* of every sync */
	int writes, dsyncs, datasyncs, syncs;
} plain;

static int is_interrupted(void)
{
	if (!plain.interrupts)
		return 0;
	plain.interrupts--;
	errno = EINTR;
	return 1;
}

ssize_t pwritev2(int fd, const struct iovec *data, int count, off_t off, int flags)
{
	CHECK_EQ(count, 1);
	CHECK_EQ(flags, RWF_DSYNC);
	plain.dsyncs++;
	return pwrite(fd, data->iov_base, data->iov_len, off);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t off)
{
	plain.writes++;
	if (is_interrupted())
		return -1;
	if (plain.write_error) {
		errno = plain.write_error;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, data,
		       plain.most && plain.most < bytes ? plain.most : bytes, off);
}

static int sync_or_fail(void)
{
	if (is_interrupted())
		return -1;
	errno = plain.sync_error;
	return plain.sync_error ? -1 : 0;
}

int fdatasync(int fd)
{
	plain.datasyncs++;
	return sync_or_fail();
}

int fsync(int fd)
{
	plain.syncs++;
	return sync_or_fail();
}

/* Writes that the ring is to sync: seen on their way to the kernel. */
static int ring_dsyncs;
static struct io_uring *last_ring;

int io_uring_submit(struct io_uring *ring)
{
	static int (*submit)(struct io_uring * ring);
	unsigned i;

	last_ring = ring;
	for (i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++)
		ring_dsyncs += ring->sq.sqes[i & *ring->sq.kring_mask].rw_flags == RWF_DSYNC &&
			       ring->sq.sqes[i & *ring->sq.kring_mask].opcode != IORING_OP_FSYNC;
	if (!submit)
		*(void **)&submit = dlsym(RTLD_NEXT, "io_uring_submit");
	return submit(ring);
}

/* ---- what the tests share ---------------------------------------------- */

/* An operation that counts its ends. */
struct counted {
	struct tail_op op;
	int count, error;
};

static void count_end(struct tail_op *op, int error)
{
	struct counted *c = (struct counted *)op;

	c->count++;
	c->error = error;
}

static struct tail_io *make(enum tail_io_kind kind, unsigned count)
{
	struct tail_io_options options = { count, SMALL, kind };
	struct tail_io *io;
	int error = tail_io_create(&options, &io);

	if (error && kind == TAIL_IO_URING)
		SKIP("no io_uring here: %s", shmq_strerror(error));
	CHECK_OK(error);
	CHECK_EQ(tail_io_kind(io), kind);
	return io;
}

static int make_file(const char *name)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0);
	return fd;
}

static void reap_all(struct tail_io *io)
{
	while (tail_io_under_way(io))
		tail_io_reap(io, SHMQ_FOREVER);
}

static void check_file(int fd, size_t off, const void *want, size_t bytes)
{
	char *got = malloc(bytes);

	CHECK_EQ(pread(fd, got, bytes, (off_t)off), (ssize_t)bytes);
	CHECK_MEM(got, want, bytes);
	free(got);
}

/* ---- pool ------------------------------------------------------------------ */

TEST(buffers_are_aligned_and_are_as_many_as_asked_for)
{
	struct tail_io *io = make(TAIL_IO_PLAIN, 3);
	char *buffer[3];
	int i;

	CHECK_EQ(tail_io_buffer_count(io), 3);
	CHECK_EQ(tail_io_buffer_bytes(io), SMALL);
	for (i = 0; i < 3; i++) {
		CHECK_EQ(tail_io_free_count(io), 3 - i);
		buffer[i] = tail_io_take(io, NULL);
		CHECK(buffer[i]);
		CHECK_EQ((uintptr_t)buffer[i] % 4096, 0);
		memset(buffer[i], i, SMALL);
	}
	CHECK(!tail_io_take(io, NULL));
	for (i = 0; i < 3; i++)
		CHECK_EQ(buffer[i][SMALL - 1], i);
	tail_io_give(io, buffer[1]);
	CHECK(tail_io_take(io, NULL) == buffer[1]);
	tail_io_destroy(io);
}

TEST(who_has_the_turn_is_given_the_next_buffer)
{
	struct tail_io *io = make(TAIL_IO_PLAIN, 2);
	char *a = tail_io_take(io, "a"), *b = tail_io_take(io, "b");
	const char *who = "c";

	CHECK(tail_io_take_turn(io, who));
	CHECK(tail_io_take_turn(io, who));
	CHECK(!tail_io_take_turn(io, b));
	/* As long as he has not asked there is no more for him than for others. */
	tail_io_give(io, a);
	CHECK(tail_io_take(io, b) == a);
	CHECK(!tail_io_take(io, who));
	tail_io_give(io, a);
	CHECK(!tail_io_take(io, b));
	CHECK(tail_io_take(io, who) == a);
	CHECK(!tail_io_take(io, who));
	tail_io_give(io, a);
	tail_io_end_turn(io, b);
	CHECK(!tail_io_take(io, b));
	tail_io_end_turn(io, who);
	CHECK(tail_io_take(io, b) == a);
	CHECK(tail_io_take_turn(io, b));
	tail_io_destroy(io);
}

TEST(what_makes_no_pool_is_refused)
{
	struct tail_io_options options = { 1, SMALL, TAIL_IO_PLAIN };
	struct tail_io *io;

	CHECK_EQ(tail_io_create(&options, &io), -EINVAL);
	options = (struct tail_io_options){ 4, 1000, TAIL_IO_PLAIN };
	CHECK_EQ(tail_io_create(&options, &io), -EINVAL);
	options = (struct tail_io_options){ 4, (size_t)2 << 30, TAIL_IO_PLAIN };
	CHECK_EQ(tail_io_create(&options, &io), -EINVAL);
	tail_io_destroy(NULL);
}

TEST(nothing_chosen_is_eight_buffers_of_a_mebibyte)
{
	struct tail_io_options options = { 0 };
	struct tail_io *io;

	CHECK_OK(tail_io_create(&options, &io));
	CHECK_EQ(tail_io_buffer_count(io), 8);
	CHECK_EQ(tail_io_buffer_bytes(io), KIB * KIB);
	CHECK_NE(tail_io_kind(io), TAIL_IO_AUTO);
	tail_io_destroy(io);
}

/* No descriptor is left for the ring. */
TEST(where_the_ring_is_refused_plain_calls_are_made)
{
	struct tail_io_options options = { 2, SMALL, TAIL_IO_AUTO };
	struct rlimit none, before;
	struct tail_io *io;

	getrlimit(RLIMIT_NOFILE, &before);
	none = (struct rlimit){ 0, before.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	CHECK_OK(tail_io_create(&options, &io));
	CHECK_EQ(tail_io_kind(io), TAIL_IO_PLAIN);
	CHECK_EQ(tail_io_poll_fd(io), -1);
	tail_io_destroy(io);
	options.kind = TAIL_IO_URING;
	CHECK_LT(tail_io_create(&options, &io), 0);
	setrlimit(RLIMIT_NOFILE, &before);
}

/* Past the filter of system calls nothing else is to be had from it. */
TEST(the_ring_writes_and_syncs_and_does_nothing_else)
{
	struct tail_io *io = make(TAIL_IO_URING, 2);
	struct counted sync = { .op.done = count_end };
	int fd = make_file("file"), i;

	tail_io_datasync(io, &sync.op, fd);
	reap_all(io);
	CHECK_OK(sync.error);
	for (i = 0; i < 3; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(last_ring);
		struct io_uring_cqe *cqe;

		if (i == 0)
			io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY | O_CLOEXEC, 0);
		else if (i == 1)
			io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0);
		else
			io_uring_prep_read(sqe, fd, &(char){ 0 }, 1, 0);
		CHECK_EQ(io_uring_submit_and_wait(last_ring, 1), 1);
		CHECK_OK(io_uring_wait_cqe(last_ring, &cqe));
		CHECK_EQ(cqe->res, -EACCES);
		io_uring_cqe_seen(last_ring, cqe);
	}
	CHECK_LT(io_uring_register_files(last_ring, &fd, 1), 0);
	close(fd);
	tail_io_destroy(io);
}

/* ---- both kinds ------------------------------------------------------------ */

static void check_writes(enum tail_io_kind kind)
{
	struct tail_io *io = make(kind, 4);
	struct counted write[4] = { 0 }, sync = { .op.done = count_end }, both = sync, own = sync;
	char *buffer[4], outside[100];
	int fd = make_file("file"), i;

	for (i = 0; i < 4; i++) {
		buffer[i] = tail_io_take(io, NULL);
		memset(buffer[i], 'a' + i, SMALL);
		write[i].op.done = count_end;
		tail_io_write(io, &write[i].op, fd, buffer[i], SMALL, (uint64_t)i * SMALL);
		CHECK_EQ(write[i].count, 0);
	}
	CHECK_EQ(tail_io_under_way(io), 4);
	reap_all(io);
	for (i = 0; i < 4; i++) {
		CHECK_EQ(write[i].count, 1);
		CHECK_OK(write[i].error);
		check_file(fd, (size_t)i * SMALL, buffer[i], SMALL);
	}
	tail_io_datasync(io, &sync.op, fd);
	memset(buffer[0], 'z', SMALL);
	tail_io_write_sync(io, &both.op, fd, buffer[0] + 4096, 4096, 4096);
	/* Memory that is none of the pool's. */
	memset(outside, 'o', sizeof(outside));
	tail_io_write(io, &own.op, fd, outside, sizeof(outside), 5 * SMALL);
	reap_all(io);
	CHECK_EQ(sync.count, 1);
	CHECK_OK(sync.error);
	CHECK_EQ(both.count, 1);
	CHECK_OK(both.error);
	check_file(fd, 4096, buffer[0], 4096);
	check_file(fd, 0, "aaaa", 4);
	check_file(fd, 8192, "aaaa", 4);
	check_file(fd, 5 * SMALL, outside, sizeof(outside));
	CHECK_EQ(tail_io_reap(io, SHMQ_FOREVER), 0);
	close(fd);
	tail_io_destroy(io);
}

TEST(uring_writes_and_syncs)
{
	check_writes(TAIL_IO_URING);
	CHECK_EQ(ring_dsyncs, 1);
}

TEST(plain_calls_write_and_sync)
{
	check_writes(TAIL_IO_PLAIN);
	CHECK_EQ(plain.datasyncs, 1);
	CHECK_EQ(plain.dsyncs, 1);
}

static void check_errors(enum tail_io_kind kind)
{
	struct tail_io *io = make(kind, 2);
	struct counted write = { .op.done = count_end }, both = write, sync = write;
	char *buffer = tail_io_take(io, NULL);
	int ends[2];

	CHECK_OK(pipe2(ends, O_CLOEXEC));
	tail_io_write(io, &write.op, -1, buffer, SMALL, 0);
	tail_io_write_sync(io, &both.op, -1, buffer, SMALL, 0);
	tail_io_datasync(io, &sync.op, ends[1]);
	reap_all(io);
	CHECK_EQ(write.error, -EBADF);
	CHECK_EQ(both.error, -EBADF);
	CHECK_EQ(both.count, 1);
	CHECK_EQ(sync.error, -EINVAL);
	close(ends[0]);
	close(ends[1]);
	tail_io_destroy(io);
}

TEST(uring_reports_errors)
{
	check_errors(TAIL_IO_URING);
}

TEST(plain_calls_report_errors)
{
	plain.sync_error = EINVAL;
	check_errors(TAIL_IO_PLAIN);
}

/* What can be written is, then it is known why no more can. */
static void check_limit(enum tail_io_kind kind)
{
	struct rlimit before, limit;
	struct tail_io *io = make(kind, 2);
	struct counted write = { .op.done = count_end }, both = write;
	char *buffer = tail_io_take(io, NULL);
	int fd = make_file("file");
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	limit = (struct rlimit){ 3 * KIB, before.rlim_max };
	setrlimit(RLIMIT_FSIZE, &limit);
	memset(buffer, 'x', SMALL);
	tail_io_write(io, &write.op, fd, buffer, SMALL, 0);
	reap_all(io);
	CHECK_EQ(write.error, -EFBIG);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 3 * KIB);
	CHECK_OK(ftruncate(fd, 0));
	tail_io_write_sync(io, &both.op, fd, buffer, SMALL, 0);
	reap_all(io);
	CHECK_EQ(both.error, -EFBIG);
	CHECK_EQ(both.count, 1);
	setrlimit(RLIMIT_FSIZE, &before);
	/* And with room it is as good as any. */
	tail_io_write_sync(io, &both.op, fd, buffer, SMALL, 0);
	reap_all(io);
	CHECK_EQ(both.count, 2);
	CHECK_OK(both.error);
	check_file(fd, 0, buffer, SMALL);
	close(fd);
	tail_io_destroy(io);
}

TEST(uring_write_ends_where_a_file_may_not_grow)
{
	check_limit(TAIL_IO_URING);
}

TEST(plain_write_ends_where_a_file_may_not_grow)
{
	check_limit(TAIL_IO_PLAIN);
}

/* More than any queue holds, each started by the end of another one. */
struct chain {
	struct tail_op op;
	struct tail_io *io;
	const char *data;
	int fd, left, *ended;
};

static void start_next(struct tail_op *op, int error)
{
	struct chain *c = (struct chain *)op;

	CHECK_OK(error);
	++*c->ended;
	if (c->left--)
		tail_io_write_sync(c->io, op, c->fd, c->data, 512, 0);
}

static void check_many(enum tail_io_kind kind)
{
	enum { CHAINS = 400, LINKS = 5 };
	struct tail_io *io = make(kind, 2);
	struct chain *chain = calloc(CHAINS, sizeof(*chain));
	char *buffer = tail_io_take(io, NULL);
	int fd = make_file("file"), ended = 0, i;

	memset(buffer, 1, SMALL);
	for (i = 0; i < CHAINS; i++) {
		chain[i] = (struct chain){ { .done = start_next }, io, buffer, fd, LINKS, &ended };
		tail_io_write(io, &chain[i].op, fd, buffer, 512, 0);
	}
	reap_all(io);
	CHECK_EQ(ended, CHAINS * (LINKS + 1));
	free(chain);
	close(fd);
	tail_io_destroy(io);
}

TEST(uring_carries_more_than_its_queue_holds)
{
	check_many(TAIL_IO_URING);
}

TEST(plain_calls_carry_any_number)
{
	check_many(TAIL_IO_PLAIN);
}

/* ---- one kind -------------------------------------------------------------- */

TEST(plain_calls_go_on_with_what_was_cut_short_or_interrupted)
{
	struct tail_io *io = make(TAIL_IO_PLAIN, 2);
	struct counted both = { .op.done = count_end };
	char *buffer = tail_io_take(io, NULL);
	int fd = make_file("file"), i;

	for (i = 0; i < SMALL; i++)
		buffer[i] = (char)(i / 7);
	plain.most = 1000;
	plain.interrupts = 3;
	tail_io_write_sync(io, &both.op, fd, buffer, SMALL, 0);
	CHECK_EQ(plain.writes, 3 + (SMALL + 999) / 1000);
	reap_all(io);
	CHECK_OK(both.error);
	plain.interrupts = 2;
	tail_io_sync(io, &both.op, fd);
	CHECK_EQ(plain.syncs, 3);
	CHECK_EQ(plain.datasyncs, 0);
	reap_all(io);
	CHECK_OK(both.error);
	CHECK_EQ(both.count, 2);
	check_file(fd, 0, buffer, SMALL);
	close(fd);
	tail_io_destroy(io);
}

TEST(plain_calls_fail_as_they_are_told)
{
	struct tail_io *io = make(TAIL_IO_PLAIN, 2);
	struct counted write = { .op.done = count_end }, both = write, sync = write, own = write;
	char *buffer = tail_io_take(io, NULL);
	int fd = make_file("file");

	plain.sync_error = EIO;
	plain.write_error = ENOSPC;
	tail_io_write(io, &write.op, fd, buffer, SMALL, 0);
	tail_io_write_sync(io, &both.op, fd, buffer, SMALL, 0);
	tail_io_datasync(io, &sync.op, fd);
	tail_io_sync(io, &own.op, fd);
	reap_all(io);
	CHECK_EQ(write.error, -ENOSPC);
	CHECK_EQ(both.error, -ENOSPC);
	CHECK_EQ(sync.error, -EIO);
	CHECK_EQ(own.error, -EIO);
	close(fd);
	tail_io_destroy(io);
}

/* A write into a full pipe ends when somebody reads. */
TEST(uring_waits_no_longer_than_it_is_told)
{
	struct tail_io *io = make(TAIL_IO_URING, 2);
	struct counted write = { .op.done = count_end };
	struct pollfd ready = { tail_io_poll_fd(io), POLLIN, 0 };
	char *buffer = tail_io_take(io, NULL), got[SMALL];
	int ends[2], i;

	CHECK_OK(pipe2(ends, O_CLOEXEC));
	fcntl(ends[1], F_SETPIPE_SZ, 4096);
	memset(buffer, 'q', SMALL);
	tail_io_write(io, &write.op, ends[1], buffer, SMALL, 0);
	CHECK_EQ(tail_io_reap(io, 0), 0);
	CHECK_EQ(tail_io_reap(io, 1000000), 0);
	CHECK_EQ(poll(&ready, 1, 0), 0);
	/* The last page of it goes in when the last but one is out. */
	for (i = 4096; i < SMALL; i += 4096) {
		CHECK_EQ(write.count, 0);
		CHECK_EQ(read(ends[0], got, 4096), 4096);
		CHECK_EQ(poll(&ready, 1, -1), 1);
		tail_io_reap(io, 0);
	}
	CHECK_EQ(write.count, 1);
	CHECK_OK(write.error);
	close(ends[0]);
	close(ends[1]);
	tail_io_destroy(io);
}
