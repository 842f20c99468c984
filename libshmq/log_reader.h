/* SPDX-License-Identifier: MIT
 *
 * log_reader: the log of a partition as one sequence, over all its
 * segments, from any place on, while it is written or when nobody does.
 *
 * Nothing is passed over in silence: what a damaged or missing segment
 * should have held comes as a gap.  One thread at a time; several readers
 * of one log know nothing of each other.  Calls read from disk and may
 * block for as long as that takes.
 */
#ifndef SHMQ_LOG_READER_H
#define SHMQ_LOG_READER_H

#include "layout.h"
#include "log_segment.h"

struct log_reader;

/* Read the partition in directory `dir`, of which a duplicate is kept.  owner:
 * whose it has to be, NULL for any one.  The reader stands at the beginning.
 * 0, -ENOMEM, or as shmq__log_segment_open(). */
int shmq__log_reader_open(int dir, const struct log_owner *owner, struct log_reader **out,
			  struct shmq__why *why);
void shmq__log_reader_close(struct log_reader *r); /* NULL allowed */

/* From now on complete segments are read as shmq__log_scan_map() says. */
void shmq__log_reader_map(struct log_reader *r);

/* The first seq there is, as of the last look at the directory.  0, or
 * SHMQ_EEMPTY: no segment at all. */
int shmq__log_reader_oldest(struct log_reader *r, uint64_t *seq);

/* Go to the record that covers seq; to the first one if it begins later.
 * A seq that is not there yet is gone to all the same: next() has nothing until
 * it comes.  0, or what reading the way there ran into, with why. */
int shmq__log_reader_seek(struct log_reader *r, uint64_t seq, struct shmq__why *why);

/* Go to the first message whose time, or that of one before it, is at or after
 * ts, or to the hole or gap before it; behind the last if there is none. */
int shmq__log_reader_seek_time(struct log_reader *r, uint64_t ts, struct shmq__why *why);

/* The seq that the next record begins with. */
uint64_t shmq__log_reader_seq(const struct log_reader *r);

/* The next record: 1, *head, and *body, valid until the next call.  0: nothing
 * (yet).  SHMQ_ECORRUPT: the log goes on with what is no record, and nothing
 * leads past it.  Or -errno; why names file and offset.
 * limit: as far as the log is known to be written; 0 before it was reached
 * tells that the log is shorter.  NULL: as far as it goes; then what is being
 * written at this moment may look damaged. */
int shmq__log_reader_next(struct log_reader *r, const uint64_t *limit, struct log_record *head,
			  const char **body, struct shmq__why *why);

/* The same, short, if the next record is a plain message, that of `seq`, and in memory: 1;
 * else 0, and nothing is changed but *head. */
int shmq__log_reader_plain(struct log_reader *r, uint64_t seq, struct log_record *head,
			   const char **body);

/* What a message's record holds: *msg (partition and lost are left alone) with
 * pointers into body, *batch if flags has BATCH.  0 or SHMQ_ECORRUPT. */
int shmq__log_decode(const struct log_record *head, const char *body, struct shmq_msg *msg,
		     struct lay_batch *batch);

#endif
