/* SPDX-License-Identifier: MIT
 *
 * topic: a topic as a process has it attached: its shape, rings, bells
 * and roster; who gates it; how a subscriber joins.
 *
 * Credit and joining (edges in topic.c): a publisher may write seqs below
 * its limit, which it keeps in its entry.  To raise it, it scans the
 * gating cursors, stores lowest + depth, fences, and scans again.  A
 * joining subscriber is first listed with the lowest cursor there is, then
 * fences, then reads every publisher's limit, and starts at or after the
 * highest of them less depth.  One of the two sees the other.
 */
#ifndef SHMQ_TOPIC_H
#define SHMQ_TOPIC_H

#include "bell.h"
#include "slabs.h"

/* What a topic that ended has is still written to its log: so long nothing comes of it
 * before no more is waited for.  A tailer may be starved, and its disk slow. */
#define SHMQ__LOG_PATIENCE_NS INT64_C(3000000000)

struct shmq__ring {
	struct lay_geometry geo;
	struct lay_ring *mem;
	struct lay_bells *bells;
	struct lay_partition *part; /* in the registry */
	lay_ref ref;
};

struct shmq__topic {
	struct shmq__slabs *slabs;
	struct lay_topic *rec; /* in the registry */
	uint32_t index;
	uint64_t id;
	struct lay_geometry geo;
	enum shmq__slabs_mode mode;
	struct shmq__ring ring[]; /* geo.partitions of them */
};

/* Attach topic `index`, which must still carry `id`; maps every ring in
 * `mode`.  Ended topics attach too.  0, SHMQ_ENOTOPIC, SHMQ_ECORRUPT,
 * SHMQ_EVERSION, SHMQ_ELIMIT, -errno. */
int shmq__topic_attach(struct shmq__slabs *slabs, uint32_t index, uint64_t id,
		       enum shmq__slabs_mode mode, struct shmq__topic **out);

/* The same with the ring of one partition only; the others are not there.
 * SHMQ_EOPTION if there is no such partition. */
int shmq__topic_attach_ring(struct shmq__slabs *slabs, uint32_t index, uint64_t id,
			    enum shmq__slabs_mode mode, uint32_t partition,
			    struct shmq__topic **out);
void shmq__topic_detach(struct shmq__topic *topic);

/* Whoever looks at the record of a topic that it has not open begins by this: its state,
 * and whose it is.  Afterwards, 0: it was filled for another meanwhile, and what was read
 * may be of either. */
uint32_t shmq__topic_look(struct lay_topic *rec, uint64_t *id);
int shmq__topic_is_still(struct lay_topic *rec, uint64_t id);

/* 1 once removed by force. */
static inline int shmq__topic_has_ended(const struct shmq__topic *t)
{
	return load_acquire(&t->rec->state) != LAY_TOPIC_LIVE || t->rec->id != t->id;
}

/* Walk the roster: the next member that is not free and whose client's
 * generation is current; NULL at the end.  Start with a zeroed iterator. */
struct shmq__roster_iter {
	lay_ref chunk, marked; /* a chunk passed before; none comes again */
	unsigned next, steps, span;
	int started;
};
struct lay_member *shmq__topic_next_member(const struct shmq__topic *topic,
					   struct shmq__roster_iter *iter);

/* 1 with proof that this client is gone: its id was given on, the supervisor
 * is taking it out, or there is no such process any more. */
int shmq__topic_client_is_dead(const struct shmq__topic *topic, unsigned client, uint64_t gen);

/* The member's entry for `partition`, read-only unless the entry slab is
 * mapped writable; NULL if it is not bound to that partition or the entry
 * carries another generation. */
struct lay_entry *shmq__topic_entry(const struct shmq__topic *topic,
				    const struct lay_member *member, uint32_t partition);

/* Add what the handle of a member did to sum[LAY_TOTALS]. */
int shmq__topic_is_own_reader(const struct shmq__topic *topic, const struct lay_member *member);
void shmq__topic_add_totals(const struct shmq__topic *topic, const struct lay_member *member,
			    uint64_t sum[LAY_TOTALS]);

/* What the living did, and before them who has left: into sum[].  1 if it is that of
 * one moment; 0 if somebody left meanwhile. */
int shmq__topic_sum(const struct shmq__topic *topic, uint64_t sum[LAY_TOTALS]);

/* 1 if publishers of this topic wait for subscribers. */
static inline int shmq__topic_gates(const struct lay_geometry *geo)
{
	return geo->policy != SHMQ_LOSSY;
}

/* 1 if they wait for the tailer too. */
static inline int shmq__topic_log_gates(const struct lay_geometry *geo)
{
	return geo->log == SHMQ_LOG_BLOCK;
}

/* 1 if there may be readers that publishers pass: slots are given up before
 * they are written over. */
static inline int shmq__topic_laps(unsigned policy, unsigned log)
{
	return policy == SHMQ_LOSSY || policy == SHMQ_EVICT || log > SHMQ_LOG_NONE;
}

/* 1 if who starts there on a topic with a log reads that first, and publishers
 * do not wait for it before it has come to the ring (PROTO_JOIN). */
static inline int shmq__topic_starts_in_log(unsigned from)
{
	return from != SHMQ_FROM_LATEST;
}

/* First seq of `ring` that nobody has claimed or committed, found from the
 * tail hint; for readers and joiners. */
uint64_t shmq__topic_head(const struct shmq__ring *ring);

/* Lowest seq whose content is still whole in the ring, at or after `floor`. */
uint64_t shmq__topic_oldest(const struct shmq__ring *ring, uint64_t floor);

/* The supervisor's half of joining, in this order.
 *   1 fill entries (gen, pos = base_seq) and the member record
 *   2 shmq__topic_publish_member(): state, epoch, wake those who wait for it
 *   3 for a subscriber: shmq__topic_join() computes each start, stores it as
 *     the cursor and rings the credit bell
 *   4 count it in the topic's record; for a subscriber only now, and then
 *     shmq__topic_announce(), since who waits for a number of subscribers
 *     must find them started
 *   5 answer the client
 * shmq__topic_remove_member() is the way back: state, epoch, credit bells.
 * The registry and entry slabs must be mapped writable. */
void shmq__topic_publish_member(struct shmq__topic *topic, struct lay_member *member,
				enum lay_member_state state);
/* Its counts go to the totals of the record. */
void shmq__topic_remove_member(struct shmq__topic *topic, struct lay_member *member);
void shmq__topic_announce(struct lay_topic *rec);
#define SHMQ__FROM_ENTRY 0x100 /* each partition from its entry's place on, as a seq */
void shmq__topic_join(struct shmq__topic *topic, struct lay_member *member, unsigned from,
		      uint64_t seq);

/* Every ring gets that state, ENDING or MOVING, unless it has one already: publishers
 * are refused.  Whatever was not refused is there when it returns: for that, all
 * processes pass a barrier. */
void shmq__topic_refuse(struct shmq__topic *topic, enum lay_ring_state soon);

/* After that: every ring gets that state, ENDED or MOVED, but one that was left for
 * another says MOVED.  The first partition is the last: subscribers of all look at
 * that alone, and then once more for what is left in each. */
void shmq__topic_close_rings(struct shmq__topic *topic, enum lay_ring_state state);

/* End the topic: record and every ring's state, then all bells. */
void shmq__topic_end(struct shmq__topic *topic);

/* Ring both bells of every partition. */
void shmq__topic_ring_all(struct shmq__topic *topic);

#endif
