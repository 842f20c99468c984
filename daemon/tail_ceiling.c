/* SPDX-License-Identifier: MIT */
#include "tail_ceiling.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log_record.h"

struct tail_ceiling {
	struct tail_op op;
	struct tail_io *io;
	int fd, error;
	int is_busy;   /* `block` is on its way */
	int is_wanted; /* `wanted` is to follow it */
	uint64_t synced;
	uint32_t partition;
	struct log_ceiling wanted;
	union {
		struct log_ceiling ceiling;
		char bytes[LOG_BLOCK];
	} block;
};

static void on_done(struct tail_op *op, int error);

static void seal(struct log_ceiling *c, uint32_t partition)
{
	c->checksum = shmq__log_sum(partition, c, offsetof(struct log_ceiling, checksum));
}

static void write_wanted(struct tail_ceiling *c)
{
	c->is_wanted = 0;
	c->is_busy = 1;
	seal(&c->wanted, c->partition);
	c->block.ceiling = c->wanted;
	tail_io_write_sync(c->io, &c->op, c->fd, &c->block, LOG_BLOCK,
			   c->wanted.serial % 2 * LOG_BLOCK);
}

static void on_done(struct tail_op *op, int error)
{
	struct tail_ceiling *c = (struct tail_ceiling *)op;

	c->is_busy = 0;
	c->error = error;
	/* After a failure the same block is written anew: the other one may be
	 * the only good one.  So a sync that follows means something again. */
	if (!error) {
		c->synced = c->block.ceiling.seq;
		c->wanted.serial++;
		if (c->is_wanted)
			write_wanted(c);
	}
}

/* The directory is synced if it is new there. */
static int open_file(int dir, int *fd)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;

	*fd = openat(dir, "ceiling", flags);
	if (*fd >= 0 || errno != ENOENT)
		return *fd < 0 ? -errno : 0;
	*fd = openat(dir, "ceiling", flags | O_CREAT, 0600);
	return *fd < 0 || fsync(dir) ? -errno : 0;
}

int tail_ceiling_open(struct tail_io *io, int dir, const struct log_owner *owner, uint64_t serial,
		      struct tail_ceiling **out)
{
	struct tail_ceiling *c = calloc(1, sizeof(*c));
	int error;

	if (!c)
		return -ENOMEM;
	c->io = io;
	c->op.done = on_done;
	c->wanted.magic = LOG_MAGIC_CEILING;
	c->wanted.serial = serial + 1;
	c->partition = owner->partition;
	memcpy(c->wanted.log_id, owner->log_id, sizeof(c->wanted.log_id));
	error = open_file(dir, &c->fd);
	if (error) {
		tail_ceiling_close(c);
		return error;
	}
	*out = c;
	return 0;
}

int tail_ceiling_make(int dir, const struct log_owner *owner, uint64_t seq)
{
	union {
		struct log_ceiling ceiling;
		char bytes[LOG_BLOCK];
	} block[2] = { 0 };
	struct log_ceiling *c = &block[1].ceiling; /* where the first one belongs */
	int fd = openat(dir, "ceiling",
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600),
	    error;

	if (fd < 0)
		return -errno;
	*c = (struct log_ceiling){ .magic = LOG_MAGIC_CEILING, .serial = 1, .seq = seq };
	memcpy(c->log_id, owner->log_id, sizeof(c->log_id));
	seal(c, owner->partition);
	error = shmq__log_write(fd, block, sizeof(block));
	if (!error) /* begun here, it needs no commit of a journal of its own */
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	close(fd);
	return error;
}

void tail_ceiling_close(struct tail_ceiling *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

void tail_ceiling_set(struct tail_ceiling *c, uint64_t seq, enum tail_ceiling_end end)
{
	c->wanted.seq = seq;
	c->wanted.is_clean = end == TAIL_CEILING_CLEAN;
	c->is_wanted = 1;
	if (!c->is_busy)
		write_wanted(c);
}

uint64_t tail_ceiling_seq(const struct tail_ceiling *c)
{
	return c->synced;
}

int tail_ceiling_error(const struct tail_ceiling *c)
{
	return c->error;
}

void tail_ceiling_retry(struct tail_ceiling *c)
{
	if (c->error && !c->is_busy)
		write_wanted(c);
}

int tail_ceiling_is_idle(const struct tail_ceiling *c)
{
	return !c->is_busy;
}
