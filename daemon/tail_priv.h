/* SPDX-License-Identifier: MIT
 *
 * tail_priv: what the files of tail_writer share.
 *
 *   tail_writer  records, and the contract
 *   tail_run     the buffers that they are copied into, and their writes
 *   tail_zero    what is written ahead of them
 *   tail_sync    syncs of segments and of their names
 *   tail_open    open and close
 */
#ifndef SHMQ_TAIL_PRIV_H
#define SHMQ_TAIL_PRIV_H

#include "atomics.h"
#include "tail_ceiling.h"
#include "tail_writer.h"

enum run_state { RUN_FILLING, RUN_FULL, RUN_SENT, RUN_DONE, RUN_FAILED };

struct run {
	struct tail_op op;
	struct tail_writer *w;
	struct tail_segment *segment;
	enum run_state state;
	int is_direct; /* the file was, when it was sent */
	int has_sync;  /* and is_syncing of its segment is its own */
	int overlaps;  /* its first block is the last one of the run before */
	int is_aside;  /* `mem` is its own, and ends where it is used to */
	char *mem;
	size_t used;
	uint64_t number;    /* one more than that of the run before */
	uint64_t off;       /* of mem[0] in the file: a multiple of LOG_BLOCK */
	uint64_t end_seq;   /* every seq below is in this run or before it */
	uint64_t whole_seq; /* ... and not in the midst of what is held */
	TAILQ_ENTRY(run) link;
};

TAILQ_HEAD(run_list, run);
TAILQ_HEAD(segment_list, tail_segment);

struct tail_writer {
	struct tail_op naming; /* sync of the directory */
	struct tail_io *io;
	struct tail_layout layout;
	struct tail_ceiling *ceiling;
	struct segment_list segments;  /* oldest first; those before `segment` are ended */
	struct tail_segment *segment;  /* that is appended to; NULL: one is to be made */
	struct run_list runs, spare;   /* in the order of the log */
	struct run *run, *all;         /* that fills, the last one, or NULL; their memory */
	uint64_t numbers, written_run; /* of runs: the last one, the last one written */
	unsigned unsent;               /* runs that are FULL */
	unsigned aside;                /* ... that have given their buffers back */
	size_t buffer_bytes;           /* of the memory that each run has */

	uint64_t off, next_seq, max_ts; /* where the next byte goes; of the next record */
	uint64_t ended_seq;             /* end_seq of the last run that fills no more */
	uint64_t written, synced;
	uint64_t flush_seq;           /* what is below is to be written */
	uint64_t sync_seq, sync_last; /* ... synced: the first, the last to be wanted */
	int error, make_error, sync_error;
	int is_naming;
	int is_held; /* marks stay before held_seq, no new segment for now */
	uint64_t held_seq;
	unsigned syncing; /* segments whose sync is under way */

	/* A record that its run has no room for.  The run that it begins in is
	 * held until the checksum is known, which is of what was copied. */
	struct {
		struct run *held; /* or NULL */
		struct log_record head;
		struct log_record *copied; /* its first 8 bytes: they are in one run */
		uint64_t off, at, bytes;   /* of it, how much of it there is */
	} big;
	struct log_summer *summer;

	/* How it was before the last record. */
	struct {
		struct run *run;
		size_t used;
		uint64_t number, off, next_seq, max_ts, ended_seq;
	} before;
	int can_take_back;

	/* What the next run begins with: the block that off is in, as far as it
	 * is full, or a header. */
	size_t rest_bytes;
	char rest[LOG_BLOCK];
};

static inline uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* As far as what is appended is whole. */
static inline uint64_t tail_writer_whole(const struct tail_writer *w)
{
	return w->is_held ? w->held_seq : w->next_seq;
}

/* ---- tail_run ------------------------------------------------------------ */

/* How much still goes into the run that fills. */
static inline size_t tail_run_room(const struct tail_writer *w)
{
	return w->run ? w->buffer_bytes - w->run->used : 0;
}

/* A run that goes on where the log is; NULL: no buffer is free. */
struct run *tail_run_begin(struct tail_writer *w);

/* Nothing more comes into the run that fills; the next one begins with the
 * block that this one does not fill. */
void tail_run_end(struct tail_writer *w);

/* Out of the list, for good. */
void tail_run_drop(struct tail_writer *w, struct run *run);

/* Send what may be sent by now. */
void tail_run_send(struct tail_writer *w);

/* Draw the conclusions of whatever has ended, or is wanted. */
void tail_run_settle(struct tail_writer *w);

/* ---- tail_zero ----------------------------------------------------------- */

/* `run` is sent, up to offset `end`: if it is short and synced, and so will be what
 * follows, write zeros behind it.  A block that was never written costs its first sync
 * as much again, for the file is told that it has it. */
void tail_zero_ahead(struct tail_writer *w, const struct run *run, uint64_t end);

/* Zeros are on their way to where the run goes, which ends at `end`. */
static inline int tail_zero_bars(const struct run *run, uint64_t end)
{
	return run->segment->is_zeroing && end > run->segment->zero_end;
}

/* ---- tail_sync ----------------------------------------------------------- */

/* Have s from now on, and its name synced. */
void tail_sync_adopt(struct tail_writer *w, struct tail_segment *s);

/* What is before `seq` is to be synced. */
void tail_sync_want(struct tail_writer *w, uint64_t seq);

/* A sync begins of what is before `seq`, and of all runs up to `run`; unwritten:
 * how many of s come behind. */
void tail_sync_begin(struct tail_writer *w, struct tail_segment *s, uint64_t seq, uint64_t run,
		     unsigned unwritten);
void tail_sync_end(struct tail_writer *w, struct tail_segment *s, int error);

/* Raise the mark; close what has ended; start what is due. */
void tail_sync_raise(struct tail_writer *w);
void tail_sync_start(struct tail_writer *w);

/* ---- tail_writer --------------------------------------------------------- */

/* As it was before the last record. */
void tail_writer_rewind(struct tail_writer *w);

#endif
