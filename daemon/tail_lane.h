/* SPDX-License-Identifier: MIT
 *
 * tail_lane: one partition on its way from its ring into its log.
 *
 * Reads the ring as a subscriber for which publishers do not wait; where
 * they are to wait for the log they wait for the mark that tells what is in
 * its files.  Every seq goes into the log: messages as records, holes as
 * holes, and what a log that may gap has missed as a gap, which says whether
 * its count is exact.
 */
#ifndef SHMQ_TAIL_LANE_H
#define SHMQ_TAIL_LANE_H

#include "error.h"
#include "layout.h"
#include "shmq.h"
#include "tail_keep.h"
#include "tail_writer.h"

struct tail_lane;

struct tail_lane_options {
	shmq_bus *bus;
	struct tail_io *io;
	struct tail_keep *keep;
	const struct shmq_topic_info *topic;
	uint32_t partition;
	int dir;                    /* of the topic's log; stays the caller's */
	const uint8_t *log_id;      /* [16] */
	struct lay_partition *part; /* writable; stays mapped until close */
};

/* Recover the partition and go on where it ends, which may be before what the
 * ring still has: then there is a gap.  0; what opening the subscriber, the
 * recovery or the writer returned, with why. */
int tail_lane_open(const struct tail_lane_options *options, struct tail_lane **out,
		   struct shmq__why *why);

/* The subscriber, for a wait set. */
shmq_sub *tail_lane_sub(struct tail_lane *l);

/* Take what is there into the log, at most for a while: 1 if there is more, 0 if
 * all is read, -EAGAIN if no buffer is free, or others have their turn unless the bus
 * ends; SHMQ_EENDED or SHMQ_EMOVED once all of an ended ring is in the log's buffers; or
 * what ails the subscriber, which is told of. */
int tail_lane_pump(struct tail_lane *l, int is_ending);

/* The topic has other rings by now, which begin at next_base, and these have said that
 * they ended: from now on no more is taken than they can hold, and nothing of those that
 * say otherwise. */
void tail_lane_leave(struct tail_lane *l, uint64_t next_base);

/* Write and sync what is due by `now` (monotonic), tell by the marks how far it
 * has come; the time at which to be called again at the latest. */
uint64_t tail_lane_tend(struct tail_lane *l, uint64_t now);

/* Write, sync and close; if its ring has ended, the log ends in order.  0 or -errno:
 * the log ends as after a crash. */
int tail_lane_close(struct tail_lane *l);

#endif
