/* SPDX-License-Identifier: MIT
 *
 * world: one topic of one partition for the scenarios of tests/weave, with
 * its registry, ring, bells, roster and arenas, and in place of the bus what
 * opens handles on it.  The handles, from opening on, are the library's own.
 * The ring is as small as the scenario wants it.
 */
#ifndef WORLD_H
#define WORLD_H

#include "bus.h"
#include "pub.h"
#include "sub_priv.h"

/* Zeros mean: depth 4, exclusive, block, sleepers by membarrier. */
struct world_options {
	uint64_t depth, base_seq;
	enum shmq_mode mode;
	enum shmq_policy policy;
	uint64_t arena_bytes; /* of each publisher */
	enum shmq__fence fence;
};

enum { WORLD_MEMBERS = 6, WORLD_WORDS = 3 };

struct world {
	struct shmq__topic *topic;
	struct lay_topic *rec;
	struct lay_ring *ring;
	struct lay_geometry geo;
	struct lay_bells *bells;
	struct lay_client *client; /* by id */
	struct lay_roster *roster;
	struct lay_entry *entry; /* of member i */
	struct lay_arena *arena;
	char *arena_mem;
	struct world_options o;
	unsigned members;
	unsigned arena_of[WORLD_MEMBERS + 1]; /* by client: handle + 1, 0 its own */
};
extern struct world *world;

void world_new(const struct world_options *options);

/* A handle of the client that is fiber `fiber`; it has joined if it subscribes.
 * Called by set_up() or in the fiber. */
shmq_pub *world_pub(int fiber);
/* The same with the arena of handle number n, which that one left. */
shmq_pub *world_pub_in(int fiber, unsigned n);
shmq_sub *world_sub(int fiber, enum shmq_from from);

/* So many handles come, or go. */
void world_count(shmq_au32 *handles, unsigned by);

/* The roster's record of a handle. */
struct lay_member *world_member(const struct shmq__handle *h);

/* Message n of a publisher: every word says whose and which it is. */
int world_publish(shmq_pub *pub, unsigned who, unsigned n);
uint64_t world_value(unsigned who, unsigned n);

/* What was received: whole, each of a publisher once and in order. */
struct world_reader {
	shmq_sub *sub;
	unsigned next[WORLD_MEMBERS]; /* message of each publisher that is due */
	uint64_t got, lost, seq;
	int any_first; /* it joined: what comes first is not known */
	int may_lose, may_be_bound, is_bound;
	int polls;                   /* whoever gates: by shmq_poll() */
	struct shmq_msg late;        /* handed to it, */
	uint64_t words[WORLD_WORDS]; /* and read as late as is allowed */
};

/* One look: 0 and a message taken, or the error; losses are added up. */
int world_receive(struct world_reader *r, int64_t timeout_ns);

/* The next one, in place and as late as is allowed: until the subscriber is closed. */
void world_receive_last(struct world_reader *r);

/* Until `all` messages were received or lost. */
void world_receive_all(struct world_reader *r, uint64_t all);

/* Look `looks` times whenever it comes; then until nothing comes any more and
 * all others have ended. */
void world_drain(struct world_reader *r, unsigned looks);

/* What the registry calls a place that weave_alloc() gave. */
lay_ref world_ref(const void *p);

/* Control word of a seq. */
uint64_t world_word(uint64_t seq);

#endif
