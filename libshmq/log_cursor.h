/* SPDX-License-Identifier: MIT
 *
 * log_cursor: cursors that are kept beside a log, under names: how far somebody
 * has read, partition by partition.
 *
 * Whoever stores one writes it himself, and holds the partitions that he means
 * to store as long as his file is open; the kernel ends that with it.  Nothing
 * in a file is trusted.  An object belongs to one thread at a time.
 */
#ifndef SHMQ_LOG_CURSOR_H
#define SHMQ_LOG_CURSOR_H

#include "error.h"
#include "log_format.h"

struct log_cursor_file {
	int fd; /* -1: not open */
	uint8_t log_id[16];
	char name[SHMQ_NAME_MAX + 1];
};

/* Open cursor `name` of the log in directory `dir`, which is log_id, to be read.  0;
 * -ENOENT: there is none; SHMQ_EOPTION: no such name can be; SHMQ_ECORRUPT: no file;
 * or -errno; with why. */
int shmq__log_cursor_open(int dir, const char *name, const uint8_t log_id[16],
			  struct log_cursor_file *out, struct shmq__why *why);

/* The same to be written, made if it is missing, durably.  Holds `count` partitions
 * from `first` on until it is closed, however that comes; what a forked child
 * inherited is held until that ends too.  Also SHMQ_EINUSE: somebody holds one. */
#define LOG_CURSOR_ALL 0u /* as count, from 0 on: whatever partitions there are */
int shmq__log_cursor_hold(int dir, const char *name, const uint8_t log_id[16], uint32_t first,
			  uint32_t count, struct log_cursor_file *out, struct shmq__why *why);
void shmq__log_cursor_close(struct log_cursor_file *f); /* not open: allowed */

/* 1 if somebody else holds the partition. */
int shmq__log_cursor_is_held(const struct log_cursor_file *f, uint32_t partition);

/* What is stored of a partition.  0; SHMQ_EEMPTY: nothing yet; -ESTALE: it is of
 * another log; SHMQ_ECORRUPT; SHMQ_EVERSION: of the other byte order; or -errno;
 * with why. */
int shmq__log_cursor_get(const struct log_cursor_file *f, uint32_t partition,
			 struct log_cursor *out, struct shmq__why *why);

/* Write what follows `last`, all zero if there is none, whose partition is set:
 * *next, to be the next `last` once it is synced.  Of a failed one nothing is: put
 * it again.  0 or -errno. */
int shmq__log_cursor_put(const struct log_cursor_file *f, const struct log_cursor *last,
			 uint64_t seq, struct log_cursor *next);
int shmq__log_cursor_sync(const struct log_cursor_file *f);

/* What stands furthest back in a partition: *seq, and whose that is.  0; SHMQ_EEMPTY:
 * none does; or with why what ails one of which that cannot be known.  One of another
 * log needs nothing of this one. */
int shmq__log_cursor_lowest(int dir, const uint8_t log_id[16], uint32_t partition, uint64_t *seq,
			    char name[SHMQ_NAME_MAX + 1], struct shmq__why *why);

/* Remove it, durably.  0; -ENOENT; SHMQ_EINUSE; -errno; with why. */
int shmq__log_cursor_remove(int dir, const char *name, struct shmq__why *why);

/* Call for the name of each cursor, in no order, until visit returns other than 0,
 * which is returned.  Else 0, also if there is no directory of them; or -errno. */
int shmq__log_cursor_each(int dir, int (*visit)(void *arg, const char *name), void *arg);

#endif
