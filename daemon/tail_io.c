/* SPDX-License-Identifier: MIT */
#include "tail_io.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "log_format.h"
#include "shmq.h"

#define DEFAULT_COUNT 8
#define DEFAULT_BYTES ((size_t)1 << 20)
#define HUGE_BYTES ((size_t)2 << 20)
#define PAGE_BYTES 4096

/* No call writes more than 2 GiB at once. */
#define WRITE_MAX ((size_t)1 << 30)

/* What the submission queue holds; the completion queue, which is twice
 * that, never overflows, as no more is under way in the kernel. */
#define QUEUE_ENTRIES 128u

enum { WRITE = 1, DATASYNC = 2, SYNC = 4 };

STAILQ_HEAD(op_list, tail_op);

struct tail_io {
	enum tail_io_kind kind;
	size_t buffer_bytes;
	unsigned buffer_count, free_count;
	char *pool, **free;
	const void *turn;       /* whose it is, or NULL */
	int is_awaited;         /* and was given no buffer when he asked */
	int is_registered;      /* the kernel has the pool mapped */
	unsigned entries;       /* of the queue, taken by what is under way */
	unsigned count;         /* of operations, started and not reported */
	uint64_t written;       /* bytes */
	struct op_list waiting; /* for room in the queue */
	struct op_list ended;   /* not reported yet */
	struct io_uring ring;
};

/* ---- pool -------------------------------------------------------------- */

static int make_pool(struct tail_io *io)
{
	size_t bytes = io->buffer_bytes * io->buffer_count;
	unsigned i;
	void *mem;

	io->free = calloc(io->buffer_count, sizeof(*io->free));
	if (!io->free)
		return -ENOMEM;
	if (posix_memalign(&mem, bytes >= HUGE_BYTES ? HUGE_BYTES : PAGE_BYTES, bytes))
		return -ENOMEM;
	/* Only for fewer translations: without is as good. */
	if (bytes >= HUGE_BYTES)
		madvise(mem, bytes, MADV_HUGEPAGE);
	io->pool = mem;
	/* The lowest are taken first, so that they stay in the caches. */
	for (i = 0; i < io->buffer_count; i++)
		io->free[i] = io->pool + (io->buffer_count - 1 - i) * io->buffer_bytes;
	io->free_count = io->buffer_count;
	return 0;
}

char *tail_io_take(struct tail_io *io, const void *user)
{
	int has_turn = io->turn && user == io->turn;

	if (io->is_awaited && !has_turn)
		return NULL;
	if (has_turn)
		io->is_awaited = !io->free_count;
	return io->free_count ? io->free[--io->free_count] : NULL;
}

int tail_io_take_turn(struct tail_io *io, const void *user)
{
	if (!io->turn)
		io->turn = user;
	return io->turn == user;
}

void tail_io_end_turn(struct tail_io *io, const void *user)
{
	if (io->turn != user)
		return;
	io->turn = NULL;
	io->is_awaited = 0;
}

void tail_io_give(struct tail_io *io, char *buffer)
{
	io->free[io->free_count++] = buffer;
}

unsigned tail_io_free_count(const struct tail_io *io)
{
	return io->free_count;
}

size_t tail_io_buffer_bytes(const struct tail_io *io)
{
	return io->buffer_bytes;
}

unsigned tail_io_buffer_count(const struct tail_io *io)
{
	return io->buffer_count;
}

/* ---- create ------------------------------------------------------------ */

/* What a ring is asked for passes no filter of system calls, so it is told to do
 * what is done here and no more: it neither opens files nor connects anywhere. */
static int restrict_ring(struct io_uring *ring)
{
	static const uint8_t ops[] = { IORING_OP_WRITE, IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
				       IORING_OP_TIMEOUT };
	struct io_uring_restriction may[sizeof(ops)] = { 0 };
	unsigned i;
	int error;

	for (i = 0; i < sizeof(ops); i++) {
		may[i].opcode = IORING_RESTRICTION_SQE_OP;
		may[i].sqe_op = ops[i];
	}
	/* liburing 2.3 exports no calls of its own for these. */
	error = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, may,
				  sizeof(ops));
	return error ? error :
		       io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS,
					 NULL, 0);
}

static int make_ring(struct tail_io *io)
{
	struct iovec pool = { io->pool, io->buffer_bytes * io->buffer_count };
	int error = io_uring_queue_init(QUEUE_ENTRIES, &io->ring, IORING_SETUP_R_DISABLED);
	int is_restricted = error != -EINVAL; /* from Linux 5.10 on */

	if (!is_restricted)
		error = io_uring_queue_init(QUEUE_ENTRIES, &io->ring, 0);
	if (error)
		return error;
	io->is_registered = !io_uring_register_buffers(&io->ring, &pool, 1);
	error = is_restricted ? restrict_ring(&io->ring) : 0;
	if (error) {
		io_uring_queue_exit(&io->ring);
		return error;
	}
	io->kind = TAIL_IO_URING;
	return 0;
}

static int is_sane(const struct tail_io *io)
{
	return io->buffer_count >= 2 && io->buffer_bytes % LOG_BLOCK == 0 &&
	       io->buffer_bytes <= WRITE_MAX && io->buffer_count <= SIZE_MAX / io->buffer_bytes;
}

int tail_io_create(const struct tail_io_options *options, struct tail_io **out)
{
	struct tail_io *io;
	int error;

	io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->buffer_count = options->buffer_count ? options->buffer_count : DEFAULT_COUNT;
	io->buffer_bytes = options->buffer_bytes ? options->buffer_bytes : DEFAULT_BYTES;
	io->kind = TAIL_IO_PLAIN;
	STAILQ_INIT(&io->waiting);
	STAILQ_INIT(&io->ended);
	error = is_sane(io) ? make_pool(io) : -EINVAL;
	if (!error && options->kind != TAIL_IO_PLAIN) {
		error = make_ring(io);
		/* Forbidden, not compiled in, or no memory may be locked. */
		if (options->kind == TAIL_IO_AUTO)
			error = 0;
	}
	if (error) {
		tail_io_destroy(io);
		return error;
	}
	*out = io;
	return 0;
}

void tail_io_destroy(struct tail_io *io)
{
	if (!io)
		return;
	if (io->kind == TAIL_IO_URING)
		io_uring_queue_exit(&io->ring);
	free(io->pool);
	free(io->free);
	free(io);
}

enum tail_io_kind tail_io_kind(const struct tail_io *io)
{
	return io->kind;
}

unsigned tail_io_under_way(const struct tail_io *io)
{
	return io->count;
}

uint64_t tail_io_written(const struct tail_io *io)
{
	return io->written;
}

int tail_io_poll_fd(const struct tail_io *io)
{
	return io->kind == TAIL_IO_URING ? io->ring.ring_fd : -1;
}

/* ---- progress of one operation ----------------------------------------- */

static void end(struct tail_io *io, struct tail_op *op, int error)
{
	op->error = error;
	STAILQ_INSERT_TAIL(&io->ended, op, link);
}

/* A write returned `result`: 1 if it, or what is left of it, is to be started
 * again; 0 if all is written; -errno. */
static int advance(struct tail_io *io, struct tail_op *op, long long result)
{
	if (result == -EINTR || result == -EAGAIN)
		return 1;
	if (result < 0)
		return (int)result;
	/* Nothing is written and nothing is wrong: no such file is known. */
	if (!result && op->bytes)
		return -EIO;
	io->written += (uint64_t)result;
	op->data += result;
	op->off += (uint64_t)result;
	op->bytes -= (size_t)result;
	return op->bytes ? 1 : 0;
}

/* ---- plain calls ------------------------------------------------------- */

static ssize_t write_once(const struct tail_op *op)
{
	struct iovec data = { (void *)op->data, op->bytes };

	if (op->what == (WRITE | DATASYNC))
		return pwritev2(op->fd, &data, 1, (off_t)op->off, RWF_DSYNC);
	return pwrite(op->fd, op->data, op->bytes, (off_t)op->off);
}

static int write_plainly(struct tail_io *io, struct tail_op *op)
{
	int error;

	do {
		ssize_t n = write_once(op);

		error = advance(io, op, n < 0 ? -errno : n);
	} while (error > 0);
	return error;
}

static int sync_plainly(const struct tail_op *op)
{
	int failed;

	do
		failed = op->what & SYNC ? fsync(op->fd) : fdatasync(op->fd);
	while (failed && errno == EINTR);
	return failed ? -errno : 0;
}

/* ---- io_uring ---------------------------------------------------------- */

static int is_pooled(const struct tail_io *io, const struct tail_op *op)
{
	return op->data >= io->pool && op->data < io->pool + io->buffer_bytes * io->buffer_count;
}

/* A write that is to be synced is one with RWF_DSYNC: a linked fdatasync
 * goes by way of another thread of the kernel, and takes half as long again. */
static void prepare(struct tail_io *io, struct tail_op *op, struct io_uring_sqe *sqe)
{
	unsigned bytes = (unsigned)op->bytes;

	if (!(op->what & WRITE))
		io_uring_prep_fsync(sqe, op->fd, op->what & SYNC ? 0 : IORING_FSYNC_DATASYNC);
	else if (io->is_registered && is_pooled(io, op))
		io_uring_prep_write_fixed(sqe, op->fd, op->data, bytes, op->off, 0);
	else
		io_uring_prep_write(sqe, op->fd, op->data, bytes, op->off);
	if (op->what == (WRITE | DATASYNC))
		sqe->rw_flags = RWF_DSYNC;
	io_uring_sqe_set_data(sqe, op);
}

/* All that has room goes to the kernel; what it has no memory for now stays
 * in the queue until the next time. */
static void submit(struct tail_io *io)
{
	struct tail_op *op;

	while ((op = STAILQ_FIRST(&io->waiting)) && io->entries < QUEUE_ENTRIES) {
		STAILQ_REMOVE_HEAD(&io->waiting, link);
		prepare(io, op, io_uring_get_sqe(&io->ring));
		io->entries++;
	}
	if (io_uring_sq_ready(&io->ring))
		io_uring_submit(&io->ring);
}

static void on_result(struct tail_io *io, struct tail_op *op, int result)
{
	int error = op->what & WRITE ? advance(io, op, result) : result;

	io->entries--;
	if (error == 1 || error == -EINTR || error == -EAGAIN) {
		STAILQ_INSERT_TAIL(&io->waiting, op, link);
		return;
	}
	end(io, op, error);
}

static void collect(struct tail_io *io)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&io->ring, &cqe)) {
		struct tail_op *op = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&io->ring, cqe);
		on_result(io, op, result);
	}
	submit(io);
}

static int wait_for_one(struct tail_io *io, int64_t timeout_ns)
{
	struct __kernel_timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
	struct io_uring_cqe *cqe;

	return io_uring_submit_and_wait_timeout(&io->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts,
						NULL);
}

/* ---- start and end ----------------------------------------------------- */

static void start(struct tail_io *io, struct tail_op *op, int what, int fd)
{
	op->what = what;
	op->fd = fd;
	op->error = 0;
	io->count++;
	if (io->kind == TAIL_IO_PLAIN) {
		end(io, op, what & WRITE ? write_plainly(io, op) : sync_plainly(op));
		return;
	}
	STAILQ_INSERT_TAIL(&io->waiting, op, link);
	submit(io);
}

static void start_write(struct tail_io *io, struct tail_op *op, int what, int fd, const void *data,
			size_t bytes, uint64_t off)
{
	op->data = data;
	op->bytes = bytes;
	op->off = off;
	start(io, op, what, fd);
}

void tail_io_write(struct tail_io *io, struct tail_op *op, int fd, const void *data, size_t bytes,
		   uint64_t off)
{
	start_write(io, op, WRITE, fd, data, bytes, off);
}

void tail_io_write_sync(struct tail_io *io, struct tail_op *op, int fd, const void *data,
			size_t bytes, uint64_t off)
{
	start_write(io, op, WRITE | DATASYNC, fd, data, bytes, off);
}

void tail_io_datasync(struct tail_io *io, struct tail_op *op, int fd)
{
	start(io, op, DATASYNC, fd);
}

void tail_io_sync(struct tail_io *io, struct tail_op *op, int fd)
{
	start(io, op, SYNC, fd);
}

static int report(struct tail_io *io)
{
	/* What a done() starts and plain calls end at once is for the next
	 * time, so that this ends. */
	struct op_list now = STAILQ_HEAD_INITIALIZER(now);
	struct tail_op *op;
	int count = 0;

	STAILQ_CONCAT(&now, &io->ended);
	while ((op = STAILQ_FIRST(&now))) {
		STAILQ_REMOVE_HEAD(&now, link);
		io->count--;
		count++;
		op->done(op, op->error);
	}
	return count;
}

int tail_io_reap(struct tail_io *io, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);

	if (io->kind == TAIL_IO_PLAIN)
		return report(io);
	collect(io);
	while (STAILQ_EMPTY(&io->ended) && io->count) {
		int64_t left = shmq__clock_left(deadline);
		int result = left ? wait_for_one(io, left) : -ETIME;

		collect(io);
		if (result < 0)
			break;
	}
	return report(io);
}
