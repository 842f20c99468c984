/* SPDX-License-Identifier: MIT
 *
 * tail_writer: appends records to the log of one partition.
 *
 *   append -> run -> written -> synced
 *
 * A record is copied once, into a buffer of tail_io: the run.  A full run is
 * written while the next one fills; what is not full is written by
 * tail_writer_flush(), up to the end of a block, and the next run begins
 * with that block again, whose two writes never meet.  A writer that has been
 * flushed holds no buffer, so many of them can share a few.
 *
 * Two marks follow what is appended, in order: every seq below `written` is
 * in a file, every one below `synced` survives a loss of power.  They move in
 * tail_io_reap() (and, with plain calls, nowhere else either).
 *
 * One thread for a tail_io and its writers.
 */
#ifndef SHMQ_TAIL_WRITER_H
#define SHMQ_TAIL_WRITER_H

#include <sys/uio.h>

#include "log_record.h"
#include "tail_segment.h"

struct tail_writer;

/* Where to go on, as recovery has found it.  The segments before the last
 * one are synced. */
struct tail_resume {
	uint64_t next_seq;        /* that the next record begins with */
	uint64_t max_ts;          /* of all records so far */
	uint64_t off;             /* behind the last segment's last good record; 0: there
				     is none that goes on, begin one */
	uint64_t first_seq, seed; /* of the last segment, if off is not 0 */
	uint64_t ceiling_serial;  /* 0: there was no ceiling */
};

/* `layout` is copied, and its `dir` duplicated.  0; -EINVAL; -ENOMEM; -errno of
 * a file. */
int tail_writer_open(struct tail_io *io, const struct tail_layout *layout,
		     const struct tail_resume *resume, struct tail_writer **out);

/* Append one record: *head, whose checksum is not looked at, and its body,
 * the pieces, head->body_bytes in all.  head->seq is the next seq.
 *   0         it is part of the log; nothing of the pieces is needed any more
 *   -EAGAIN   no buffer is free.  Come again with the same record after
 *             tail_io_reap().  Part of a large one may be on its way: it is
 *             finished before another writer of this tail_io is given one,
 *             so that not all buffers hold beginnings, and what was
 *             appended just before waits with it; buffers that other
 *             writers fill are freed by flushing them.
 *   -EINVAL   not the next seq, or lengths that do not add up
 *   -errno    a new segment was due and could not be made: as -EAGAIN, and
 *             `error` of the marks is set
 * The checksum is of what was copied: whoever can change the pieces meanwhile
 * spoils his own message, not the log. */
int tail_writer_append(struct tail_writer *w, const struct log_record *head,
		       const struct iovec *piece, int count);

/* What is appended from *seq on, the seq of the last record or of one before it, is
 * there whole or not at all, as recovery judges atomic batches: until
 * tail_writer_hold(w, NULL) the marks stay before it, and no other segment begins
 * unless this one is twice as large as it should be.  To be called behind each
 * record of it, before anything else. */
void tail_writer_hold(struct tail_writer *w, const uint64_t *seq);

/* Take the last record back, for a copy that turns out to be of something that
 * was overwritten meanwhile, or give one up that got -EAGAIN: 0, and its seq
 * is the next again.  -EBUSY if part of it may be on the disk: anything was
 * called since that starts a write, or there were not buffers enough for all
 * of it.  Who may have to take back a record of that size copies it first. */
int tail_writer_take_back(struct tail_writer *w);

/* Write all that is appended by now; and sync it, in one go if all before is
 * synced.  What is appended meanwhile may be in it or not. */
enum tail_flush { TAIL_WRITE, TAIL_SYNC };
void tail_writer_flush(struct tail_writer *w, enum tail_flush how);

/* Sync what is written by now. */
void tail_writer_sync(struct tail_writer *w);

/* The ceiling of this partition, written and synced in the background. */
void tail_writer_set_ceiling(struct tail_writer *w, uint64_t seq);

struct tail_marks {
	uint64_t next_seq;
	uint64_t written, synced; /* every seq below is */
	uint64_t ceiling;         /* on the disk; 0: not since we opened */
	/* What keeps `written` from moving: of a write or of making a segment.
	 * Nothing is lost: runs are kept, out of the buffers that others need,
	 * and go on by tail_writer_retry(); until then nothing is appended. */
	int error;
	/* What has stopped `synced` for good: a sync has failed, and the kernel
	 * does not say again what it could not write.  Written it still is. */
	int sync_error;
	/* What keeps `ceiling` from moving, until tail_writer_retry(). */
	int ceiling_error;
};
struct tail_marks tail_writer_marks(const struct tail_writer *w);

void tail_writer_retry(struct tail_writer *w);

/* Flush, sync, and wait for it; then, if that succeeded, cut the file to its
 * size, and with CLEAN write a ceiling that says that all was in order.  A
 * record that is not finished is given up.  0, or the error that left the
 * log as after a crash.  w is gone in either case. */
enum tail_close { TAIL_CLOSE_CLEAN, TAIL_CLOSE_OPEN };
int tail_writer_close(struct tail_writer *w, enum tail_close how);

#endif
