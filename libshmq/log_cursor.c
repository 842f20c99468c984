/* SPDX-License-Identifier: MIT */
#include "log_cursor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomics.h"
#include "clock.h"
#include "log_record.h"
#include "log_segment.h"
#include "name.h"

#define DIRECTORY "cursors"
#define PAIR_BYTES (2 * (off_t)LOG_BLOCK)

/* ---- files ----------------------------------------------------------- */

/* Somebody may have put a pipe or a device in a file's place. */
#define FLAGS (O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)

static int open_directory(int dir)
{
	int fd = openat(dir, DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int make_directory(int dir)
{
	if (!mkdirat(dir, DIRECTORY, 0700))
		return fsync(dir) ? -errno : 0;
	return errno == EEXIST ? 0 : -errno;
}

/* The file `name`, for reading; or for writing, made if it is missing. */
static int open_file(int dir, const char *name, int mode)
{
	int cursors = mode & O_CREAT ? make_directory(dir) : 0, fd;

	if (!cursors)
		cursors = open_directory(dir);
	if (cursors < 0)
		return cursors;
	if (mode & O_CREAT)
		shmq__log_give(dir, cursors);
	fd = openat(cursors, name, FLAGS | mode, 0600);
	if (fd < 0)
		fd = -errno;
	if (fd >= 0 && mode & O_CREAT)
		shmq__log_give(cursors, fd);
	/* Whoever made it, it is to last. */
	if (fd >= 0 && mode & O_CREAT && fsync(cursors)) {
		close(fd);
		fd = -EIO;
	}
	close(cursors);
	return fd;
}

static int open_cursor(int dir, const char *name, const uint8_t log_id[16], int mode,
		       struct log_cursor_file *out, struct shmq__why *why)
{
	struct stat st;
	int error = shmq__name_check_cursor(name, why);

	out->fd = -1;
	if (error)
		return error;
	error = open_file(dir, name, mode);
	if (error < 0)
		return shmq__fail(why, error, "opening the cursor \"%.100s\": %s", name,
				  shmq_strerror(error));
	out->fd = error;
	memcpy(out->log_id, log_id, sizeof(out->log_id));
	memcpy(out->name, name, strlen(name) + 1);
	if (!fstat(out->fd, &st) && S_ISREG(st.st_mode))
		return 0;
	shmq__log_cursor_close(out);
	return shmq__fail(why, SHMQ_ECORRUPT,
			  "the cursor \"%.100s\" is no regular file: remove it (shmq cursor)",
			  name);
}

int shmq__log_cursor_open(int dir, const char *name, const uint8_t log_id[16],
			  struct log_cursor_file *out, struct shmq__why *why)
{
	return open_cursor(dir, name, log_id, O_RDONLY, out, why);
}

static int lock(int fd, int type, uint32_t first, uint32_t count)
{
	struct flock range = { .l_type = (short)type,
			       .l_whence = SEEK_SET,
			       .l_start = first * PAIR_BYTES,
			       .l_len = count * PAIR_BYTES };

	if (!fcntl(fd, F_OFD_SETLK, &range))
		return 0;
	return errno == EAGAIN || errno == EACCES ? SHMQ_EINUSE : -errno;
}

static int refuse(const char *name, int error, struct shmq__why *why)
{
	if (error == SHMQ_EINUSE)
		return shmq__fail(why, error, "another subscriber has the cursor \"%.100s\" open",
				  name);
	return shmq__fail(why, error, "the cursor \"%.100s\": %s", name, shmq_strerror(error));
}

int shmq__log_cursor_hold(int dir, const char *name, const uint8_t log_id[16], uint32_t first,
			  uint32_t count, struct log_cursor_file *out, struct shmq__why *why)
{
	struct stat st;
	int error;

	for (;;) {
		error = open_cursor(dir, name, log_id, O_RDWR | O_CREAT, out, why);
		if (error)
			return error;
		error = lock(out->fd, F_WRLCK, first, count);
		if (!error && fstat(out->fd, &st))
			error = -errno;
		if (!error && st.st_nlink)
			return 0;
		/* Else it was removed before we held it. */
		shmq__log_cursor_close(out);
		if (error)
			return refuse(name, error, why);
	}
}

void shmq__log_cursor_close(struct log_cursor_file *f)
{
	if (f->fd < 0)
		return;
	/* A forked child may have inherited it, and would hold it on. */
	lock(f->fd, F_UNLCK, 0, LOG_CURSOR_ALL);
	close(f->fd);
	f->fd = -1;
}

int shmq__log_cursor_is_held(const struct log_cursor_file *f, uint32_t partition)
{
	struct flock range = { .l_type = F_WRLCK,
			       .l_whence = SEEK_SET,
			       .l_start = partition * PAIR_BYTES,
			       .l_len = PAIR_BYTES };

	return !fcntl(f->fd, F_OFD_GETLK, &range) && range.l_type != F_UNLCK;
}

/* ---- what is stored -------------------------------------------------- */

static uint32_t sum_of(const struct log_cursor *c)
{
	return shmq__log_sum(0, c, offsetof(struct log_cursor, checksum));
}

static off_t place_of(uint32_t partition, uint64_t serial)
{
	return partition * PAIR_BYTES + (off_t)(serial % 2 * LOG_BLOCK);
}

/* What is in one block.  As shmq__log_cursor_get(). */
static int read_block(const struct log_cursor_file *f, uint32_t partition, unsigned which,
		      struct log_cursor *out)
{
	static const struct log_cursor none;
	ssize_t n;

	memset(out, 0, sizeof(*out));
	do
		n = pread(f->fd, out, sizeof(*out), place_of(partition, which));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (!memcmp(out, &none, sizeof(none)))
		return SHMQ_EEMPTY;
	if (out->magic == __builtin_bswap64(LOG_MAGIC_CURSOR))
		return SHMQ_EVERSION;
	if (n != (ssize_t)sizeof(*out) || out->magic != LOG_MAGIC_CURSOR ||
	    out->checksum != sum_of(out) || out->partition != partition || out->serial % 2 != which)
		return SHMQ_ECORRUPT;
	return memcmp(out->log_id, f->log_id, sizeof(f->log_id)) ? -ESTALE : 0;
}

static int say(const struct log_cursor_file *f, uint32_t partition, int error,
	       struct shmq__why *why)
{
	if (error == SHMQ_EEMPTY)
		return shmq__fail(why, error,
				  "the cursor \"%.100s\" has nothing stored for partition %u",
				  f->name, partition);
	if (error == -ESTALE)
		return shmq__fail(why, error,
				  "the cursor \"%.100s\" is of another log than is here now: "
				  "remove it or set it anew (shmq cursor)",
				  f->name);
	if (error == SHMQ_EVERSION)
		return shmq__fail(why, error,
				  "the cursor \"%.100s\" was stored by a machine of the other "
				  "byte order",
				  f->name);
	if (error == SHMQ_ECORRUPT)
		return shmq__fail(why, error,
				  "the cursor \"%.100s\" is damaged in partition %u: set it anew "
				  "(shmq cursor)",
				  f->name, partition);
	return shmq__fail(why, error, "reading the cursor \"%.100s\": %s", f->name,
			  shmq_strerror(error));
}

int shmq__log_cursor_get(const struct log_cursor_file *f, uint32_t partition,
			 struct log_cursor *out, struct shmq__why *why)
{
	struct log_cursor block[2];
	int rc[2], worse;
	unsigned i;

	for (i = 0; i < 2; i++)
		rc[i] = read_block(f, partition, i, &block[i]);
	if (!rc[0] || !rc[1]) {
		i = rc[0] || (!rc[1] && block[1].serial > block[0].serial);
		*out = block[i];
		return 0;
	}
	/* The first ever was torn: nobody was told that it is stored. */
	if (rc[0] == SHMQ_EEMPTY && (rc[1] == SHMQ_EEMPTY || rc[1] == SHMQ_ECORRUPT))
		return say(f, partition, SHMQ_EEMPTY, why);
	worse = rc[0] == SHMQ_EEMPTY || rc[0] == SHMQ_ECORRUPT ? rc[1] : rc[0];
	return say(f, partition, worse == SHMQ_EEMPTY ? SHMQ_ECORRUPT : worse, why);
}

int shmq__log_cursor_put(const struct log_cursor_file *f, const struct log_cursor *last,
			 uint64_t seq, struct log_cursor *next)
{
	/* A whole block: nothing that shares one is read before it is written. */
	union {
		struct log_cursor cursor;
		char bytes[LOG_BLOCK];
	} block = { .bytes = { 0 } };
	ssize_t n;

	*next = (struct log_cursor){ .magic = LOG_MAGIC_CURSOR,
				     .serial = last->serial + 1,
				     .seq = seq,
				     .stored_ns = shmq__clock_realtime_ns(),
				     .partition = last->partition };
	memcpy(next->log_id, f->log_id, sizeof(next->log_id));
	next->checksum = sum_of(next);
	block.cursor = *next;
	do
		n = pwrite(f->fd, &block, sizeof(block), place_of(next->partition, next->serial));
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(block))
		return 0;
	return n < 0 ? -errno : -ENOSPC;
}

int shmq__log_cursor_sync(const struct log_cursor_file *f)
{
	return fdatasync(f->fd) ? -errno : 0;
}

/* ---- all of a log ---------------------------------------------------- */

int shmq__log_cursor_remove(int dir, const char *name, struct shmq__why *why)
{
	int cursors, fd, error = shmq__name_check_cursor(name, why);

	if (error)
		return error;
	cursors = open_directory(dir);
	if (cursors < 0)
		return refuse(name, cursors, why);
	/* What cannot be opened nobody holds. */
	fd = openat(cursors, name, FLAGS | O_RDWR);
	error = fd < 0 ? 0 : lock(fd, F_WRLCK, 0, LOG_CURSOR_ALL);
	if (!error && (unlinkat(cursors, name, 0) || fsync(cursors)))
		error = -errno;
	if (fd >= 0)
		close(fd);
	close(cursors);
	return error ? refuse(name, error, why) : 0;
}

int shmq__log_cursor_each(int dir, int (*visit)(void *arg, const char *name), void *arg)
{
	int fd = open_directory(dir), rc = 0;
	struct dirent *e;
	DIR *d;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	while (!rc && (e = readdir(d)))
		if (!shmq__name_check_cursor(e->d_name, NULL))
			rc = visit(arg, e->d_name);
	closedir(d);
	return rc;
}

struct lowest {
	int dir, is_found;
	const uint8_t *log_id;
	uint32_t partition;
	uint64_t seq;
	char *name;
	struct shmq__why *why;
};

static int take_lower(void *arg, const char *name)
{
	struct lowest *l = arg;
	struct log_cursor_file f;
	struct log_cursor c;
	int error = shmq__log_cursor_open(l->dir, name, l->log_id, &f, l->why);

	if (error)
		return error == -ENOENT ? 0 : error;
	error = shmq__log_cursor_get(&f, l->partition, &c, l->why);
	shmq__log_cursor_close(&f);
	if (error)
		return error == SHMQ_EEMPTY || error == -ESTALE ? 0 : error;
	if (l->is_found && seq_diff(c.seq, l->seq) >= 0)
		return 0;
	l->is_found = 1;
	l->seq = c.seq;
	memcpy(l->name, name, strlen(name) + 1);
	return 0;
}

int shmq__log_cursor_lowest(int dir, const uint8_t log_id[16], uint32_t partition, uint64_t *seq,
			    char name[SHMQ_NAME_MAX + 1], struct shmq__why *why)
{
	struct lowest l = {
		.dir = dir, .log_id = log_id, .partition = partition, .name = name, .why = why
	};
	int error = shmq__log_cursor_each(dir, take_lower, &l);

	*seq = l.seq;
	return error ? error : l.is_found ? 0 : SHMQ_EEMPTY;
}
