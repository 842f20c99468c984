/* SPDX-License-Identifier: MIT
 *
 * log_recover: what a crash, a power cut or a hand left of a partition's
 * log, and where to go on.
 *
 * Only the last segment is looked through: those before it were complete
 * and synced when it was begun.  (A reader finds what is damaged in them,
 * and says so; shmq__log_verify() looks for it.)  The last is kept up to
 * its last good record and cut there; what is cut off goes to cut/.
 *
 * An atomic batch is there whole or not at all.  One that is not whole may
 * have begun a ring before the last segment does: so much before it is read
 * as well, and the cut is where the batch began.
 */
#ifndef SHMQ_LOG_RECOVER_H
#define SHMQ_LOG_RECOVER_H

#include "log_reader.h"
#include "log_segment.h"

/* One finding, for people, and where it was made. */
typedef void shmq__log_found(void *arg, const char *line);

/* Where a writer goes on. */
struct log_state {
	int has_segment; /* 1: behind `off` of the segment `first_seq` */
	uint64_t first_seq, off, seed;
	uint64_t next;      /* first seq that is not in the log */
	uint64_t max_ts;    /* of all records */
	uint64_t cut_bytes; /* were cut off and kept */
	int has_next;       /* 0: there is no record, `next` is nothing */
	/* The lowest seq that may be given out: next, or the ceiling of a bus
	 * that did not stop in order.  0 if neither is known. */
	uint64_t resume;
	uint64_t ceiling_serial; /* of the last ceiling, 0 none */
};

/* Make the partition in directory `dir` fit to be gone on with.  owner: whose it
 * is; a last segment of others is set aside.  depth: of its ring, in slots.  0, or -errno and why:
 * then as much has been repaired as could be. */
int shmq__log_recover(int dir, const struct log_owner *owner, uint64_t depth, struct log_state *out,
		      shmq__log_found *found, void *arg, struct shmq__why *why);

/* The ceiling that counts.  0, SHMQ_EEMPTY (none), SHMQ_ECORRUPT (none that is
 * whole and of this partition of this log), -errno. */
int shmq__log_ceiling_read(int dir, const struct log_owner *owner, struct log_ceiling *out);

struct log_verdict {
	uint64_t segments, records, bytes;
	uint64_t damaged; /* places */
	uint64_t missing; /* seqs in gaps that only damage explains */
	uint64_t gaps;    /* seqs in gaps that the log itself tells of */
	uint64_t first, next;
};

/* Whether somebody writes the log in this directory; -1: nobody does. */
int shmq__log_is_written(int log_dir);

/* As shmq__log_reader_next() without a limit; but what is being written to a log in log_dir
 * at this moment is waited for, a fifth of a second at most. */
int shmq__log_next_settled(struct log_reader *r, int log_dir, struct log_record *head,
			   const char **body, struct shmq__why *why);

/* Read all of a partition and say what is not as it should be.  log_dir: as above.  progress is
 * called now and then with the bytes read so far; unless it returns 0,
 * verifying ends with that.  found and progress may be NULL. */
int shmq__log_verify(int dir, int log_dir, const struct log_owner *owner, struct log_verdict *out,
		     shmq__log_found *found, int (*progress)(void *arg, uint64_t bytes), void *arg,
		     struct shmq__why *why);

#endif
