/* SPDX-License-Identifier: MIT
 *
 * durable: the directory of a bus's logs, where a topic that is to outlive
 * its rings has its own.
 *
 *   <data dir>/<bus>/lock       held by who writes below it
 *   <data dir>/<bus>/<topic>/   log_format.h
 *
 * A topic may have it elsewhere, on another device: then it is a symbolic link,
 *
 *   <data dir>/<bus>/<topic> -> <log dir>/<bus>/<topic>
 *
 * which whoever looks for a log follows without knowing of log directories.
 */
#ifndef SHMQ_DURABLE_H
#define SHMQ_DURABLE_H

#include <limits.h>

#include "error.h"
#include "log_format.h"
#include "proto.h"

/* Where the logs of a bus are: first the directory that all are found in, then those of
 * its log directories, and what links lead to besides. */
#define DURABLE_DIRS_MAX 8u
struct durable_dirs {
	char dir[DURABLE_DIRS_MAX][PATH_MAX];
	unsigned count;
};

/* log_dirs: absolute, with ':' between them, or NULL.  0, -ENAMETOOLONG, or -E2BIG if
 * there are more. */
int durable_find_dirs(const char *bus_dir, size_t bytes, const char *log_dirs,
		      struct durable_dirs *out);

/* Whether it is one of them. */
int durable_is_log_dir(const char *log_dirs, const char *dir);

/* shmq_log_dir() of a bus, with why. */
int durable_bus_dir(const char *data_dir, const char *bus, char *out, size_t bytes,
		    struct shmq__why *why);

/* What became of it. */
struct durable_begin {
	uint64_t is_made; /* nothing was there before; also where it then failed, or was killed */
	uint64_t next[];  /* where each partition goes on, or first_seq where nothing was written */
};

/* Make the topic's log ready to be written, below log_dir unless that is "": its
 * directories, who it is, and what a crash left in each partition put right.  A log that is there
 * is gone on with, unless it has other partitions.  May take as long as reading the last
 * segment of each.  0, SHMQ_EEXISTS, SHMQ_ECORRUPT, SHMQ_EVERSION or -errno, with
 * why. */
int durable_prepare(const char *bus_dir, const char *log_dir, const char *topic,
		    const struct proto_options *options, uint64_t first_seq,
		    struct durable_begin *out, struct shmq__why *why);

/* Delete a log that was made just now, as far as it was, of a topic that there will not
 * be. */
void durable_unmake(const char *bus_dir, const char *topic);

/* How far above the next seq the ceiling of such a topic is put.  A publisher that
 * waits for its log is never more than a ring ahead of it; one that does not would
 * have to send so much while the tailer is away. */
uint64_t durable_ceiling_room(enum shmq_log log, uint64_t depth);

/* Have the log of a topic for oneself, until `dir` is closed: two buses that were
 * given one data directory would each take the other's records for a crash's.  0;
 * SHMQ_EINUSE: somebody else has it, for longer than timeout_ns. */
int durable_lock(int dir, const char *topic, int64_t timeout_ns, struct shmq__why *why);

/* Call for each topic that has a log: visit returns 0 to go on.  What is no log,
 * or a damaged one, is logged and passed. */
int durable_each(const char *bus_dir,
		 int (*visit)(void *arg, const char *topic, const struct proto_options *options),
		 void *arg);

/* The topic is removed for good: its log is out of the way at once.  0 or -errno. */
int durable_remove(const char *bus_dir, const char *topic);

/* Delete what was removed there; takes as long as that takes. */
void durable_sweep(const char *dir);

#endif
