/* SPDX-License-Identifier: MIT
 *
 * tail_keep: what becomes of segments once another one follows them.  They are
 * removed as retention says, compressed, and rid of what was superseded; and the
 * disks are watched that they are on.
 *
 *   tail_lane  --tail_keep_began(), tail_keep_rolled()-->  the keeper's thread
 *
 * One thread for all partitions on a device, behind everything else: writing never
 * waits for it, nor for a lock that it holds.  What segments there are it knows by
 * heart, so that looking after ten thousand logs in which nothing happens costs
 * next to nothing.
 */
#ifndef SHMQ_TAIL_KEEP_H
#define SHMQ_TAIL_KEEP_H

#include "error.h"
#include "layout.h"
#include "log_segment.h"
#include "shmq.h"

struct tail_keep;
struct tail_kept; /* a partition */

/* dir[count]: where what removed topics left is deleted; they have to stay.  0, -ENOMEM or
 * -EAGAIN. */
int tail_keep_create(const char *const *dir, unsigned count, struct tail_keep **out);
void tail_keep_destroy(struct tail_keep *k); /* when it has no partition */

/* A topic was removed, or may have been. */
void tail_keep_sweep(struct tail_keep *k);

struct tail_kept_options {
	const struct shmq_topic_info *topic; /* copied, as is `owner` */
	struct log_owner owner;
	int dir, log_dir;           /* of the partition, of the log; duplicated */
	struct lay_partition *part; /* its log_first is stored */
	int has_open;               /* the last segment there is is not complete */
};

/* Keep it from now on.  0, -ENOMEM or -errno of its directory. */
int tail_keep_add(struct tail_keep *k, const struct tail_kept_options *o, struct tail_kept **out);

/* Not any more.  Waits for what is being done with it to be given up. */
void tail_keep_remove(struct tail_kept *p); /* NULL allowed */

/* A segment begins behind all others; one is complete, of so many bytes, and on the
 * disk.  By one thread for a partition. */
void tail_keep_began(struct tail_kept *p, uint64_t first_seq, uint64_t base_ts);
void tail_keep_rolled(struct tail_kept *p, uint64_t first_seq, uint64_t bytes);

/* Whether another segment may begin.  Where superseded messages are dropped, that takes room
 * for a segment to be written anew: on a disk that has no more than that it comes first, as
 * soon as this has said no, unless it is in vain.  By the same thread. */
int tail_keep_has_room(struct tail_kept *p);

#endif
