/* SPDX-License-Identifier: MIT
 *
 * tail_io: writes and syncs of one tailer thread, in the background.
 *
 * By io_uring, or, where that is not to be had, by plain calls that take
 * their time at once; their ends are reported by tail_io_reap() all the
 * same.  A pool of equal buffers, registered with the ring if the limit of
 * locked memory allows, is shared by all who write through it.
 *
 * One thread.  A `done` may start further operations, this one again too.
 */
#ifndef SHMQ_TAIL_IO_H
#define SHMQ_TAIL_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct tail_io;

enum tail_io_kind { TAIL_IO_AUTO, TAIL_IO_URING, TAIL_IO_PLAIN };

/* Zero means default. */
struct tail_io_options {
	unsigned buffer_count; /* 8; at least 2 */
	size_t buffer_bytes;   /* 1 MiB; a multiple of LOG_BLOCK */
	enum tail_io_kind kind;
};

/* 0, -EINVAL, -ENOMEM; with TAIL_IO_URING what the kernel said if it has no
 * ring for us, while TAIL_IO_AUTO does without then. */
int tail_io_create(const struct tail_io_options *options, struct tail_io **out);

/* When nothing is under way. */
void tail_io_destroy(struct tail_io *io);

enum tail_io_kind tail_io_kind(const struct tail_io *io); /* never AUTO */
size_t tail_io_buffer_bytes(const struct tail_io *io);
unsigned tail_io_buffer_count(const struct tail_io *io);

/* A buffer, aligned to pages, of any content; or NULL: all are taken, or the next is
 * for who has the turn. */
char *tail_io_take(struct tail_io *io, const void *user);
void tail_io_give(struct tail_io *io, char *buffer);
unsigned tail_io_free_count(const struct tail_io *io); /* of the buffers */

/* Who gives none back before he has been given more takes the turn first: 1, he has it
 * until he ends it; 0, another one has.  So not all buffers are held by those who wait
 * for one. */
int tail_io_take_turn(struct tail_io *io, const void *user);
void tail_io_end_turn(struct tail_io *io, const void *user);

/* One operation.  It belongs to its user, who sets `done`, and is not
 * touched between a start and its done(). */
struct tail_op {
	void (*done)(struct tail_op *op, int error);

	/* The rest is tail_io's. */
	int what, fd, error;
	const char *data;
	uint64_t off;
	size_t bytes;
	STAILQ_ENTRY(tail_op) link;
};

/* Start: write data[0, bytes) at `off` of fd; write it so that it is on the
 * disk at the end, with what is needed to read it, but nothing of what was
 * written before (as RWF_DSYNC); fdatasync of what was; fsync, which a directory needs.  The
 * end is 0 or -errno: short writes, EINTR and EAGAIN are gone on with.  A
 * sync covers the writes whose done() came before it was started.  `data` stays
 * until then; alignment for an fd with O_DIRECT is the caller's business. */
void tail_io_write(struct tail_io *io, struct tail_op *op, int fd, const void *data, size_t bytes,
		   uint64_t off);
void tail_io_write_sync(struct tail_io *io, struct tail_op *op, int fd, const void *data,
			size_t bytes, uint64_t off);
void tail_io_datasync(struct tail_io *io, struct tail_op *op, int fd);
void tail_io_sync(struct tail_io *io, struct tail_op *op, int fd);

/* Report what has ended: how many it was.  If nothing has, wait for it until
 * timeout_ns is over (0: not at all, SHMQ_FOREVER), or a signal comes; not if
 * nothing is under way. */
int tail_io_reap(struct tail_io *io, int64_t timeout_ns);

unsigned tail_io_under_way(const struct tail_io *io); /* started and not reported */

uint64_t tail_io_written(const struct tail_io *io); /* bytes, so far */

/* A descriptor for poll(2), readable when there is something to reap that was
 * not when tail_io_reap() returned; -1: there never is (plain calls). */
int tail_io_poll_fd(const struct tail_io *io);

#endif
