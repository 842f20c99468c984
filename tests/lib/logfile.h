/* SPDX-License-Identifier: MIT
 *
 * logfile: segments, indexes and ceilings as shmq_log(5) describes them,
 * written by hand: every field at its offset, nothing taken from log_format.h
 * or from what the library computes.
 *
 * A segment grows in memory, where a test may do to it what it likes, and is
 * put on disk.  What a message holds follows from its seq, time and size, so
 * that whoever reads one can tell whether it is what was written.
 */
#ifndef LOGFILE_H
#define LOGFILE_H

#include "log_reader.h"
#include "tap.h"

struct logfile {
	struct log_owner owner;
	uint64_t first_seq, seed, base_ts;
	uint64_t seq, max_ts; /* of the next record; before it */
	char *mem;            /* header and records */
	size_t bytes, capacity;
	char *index; /* the file */
	size_t index_bytes, index_at, index_every;
};

/* The owner of all logs here, unless a test says otherwise. */
extern const struct log_owner logfile_owner;

/* An empty segment.  Then, with index_every bytes between entries (16 KiB at
 * first; 0: no index), records; seqs go on by themselves. */
void logfile_begin(struct logfile *f, uint64_t first_seq, uint64_t base_ts);
void logfile_free(struct logfile *f);

void logfile_message(struct logfile *f, uint64_t ts, size_t bytes);
/* A hole, a gap. */
void logfile_skip(struct logfile *f, enum log_kind kind, uint64_t count, uint16_t flags);
void logfile_end(struct logfile *f);
/* A record of any kind and content. */
void logfile_record(struct logfile *f, struct log_record head, const void *body);
/* A member of an atomic batch, which is a message of no bytes. */
void logfile_member(struct logfile *f, uint64_t first_seq, uint32_t index, uint32_t count);

/* The checksums are right again, of the header and of the record at off. */
void logfile_sum_header(struct logfile *f);
void logfile_sum_record(struct logfile *f, size_t off);

/* Put it into directory dir, the segment padded to whole blocks; and the index
 * if there is to be one. */
void logfile_write(const struct logfile *f, int dir);
/* The first `bytes` of it, without padding and index. */
void logfile_write_cut(const struct logfile *f, int dir, size_t bytes);
/* Write a file, read one (to be freed). */
void logfile_put(int dir, const char *name, const void *mem, size_t bytes);
char *logfile_get(int dir, const char *name, size_t *bytes);

/* One of the two blocks of `ceiling`. */
void logfile_ceiling(int dir, unsigned block, uint64_t serial, uint64_t seq, uint32_t is_clean);

/* As it would be compressed, in frames of so many bytes: the file, to be freed. */
char *logfile_zip(const struct logfile *f, size_t frame_bytes, size_t *bytes);
/* Its tail's checksum made right. */
void logfile_sum_zip(char *mem, size_t bytes);
/* ... on disk in the place of the segment, beside its index. */
void logfile_write_zip(const struct logfile *f, int dir, size_t frame_bytes);

/* Is it a message that logfile_message() made? */
int logfile_is_right(const struct log_record *head, const char *body);

/* Read on to the end, or the limit: every record begins where the one before
 * has ended, and every message is right. */
struct logfile_tally {
	uint64_t first, next;     /* seqs */
	uint64_t messages, holes; /* records */
	uint64_t gaps, lost;      /* seqs of gaps: in the log, made of damage */
	int rc;                   /* what next() returned at last */
};
struct logfile_tally logfile_tally(struct log_reader *reader, const uint64_t *limit);

/* A new directory in the test's own. */
int logfile_dir(void);

#endif
