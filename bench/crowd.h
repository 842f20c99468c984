/* SPDX-License-Identifier: MIT
 *
 * crowd: several publishers and subscribers of one topic, each a process of
 * its own, at full speed for some time.
 *
 * Each message says whose it is and which of his, and the last of each that
 * it is.  Every subscriber verifies that what it gets of each publisher is
 * whole and in order, and in the end that received + lost = sent.
 */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include "common.h"
#include "peers.h"

#define CROWD_BYTES 64u

struct crowd {
	const char *topic;
	unsigned publishers;
	unsigned subscribers; /* 0: nobody reads meanwhile; afterwards somebody who
				 was subscribed verifies what is there and that
				 the rest counts as lost */
	int lossy;            /* the topic's policy; else nothing may be lost */
	int lanes;            /* each publisher has its own partition */
	double seconds;
	const struct peer *peer; /* who carries the messages; NULL: shmq */
};

struct crowd_result {
	double rate;      /* messages sent in a second, millions */
	double delivered; /* percent of what was sent to each subscriber */
};

struct crowd_result crowd_run(const struct crowd *c);

/* The same for each peer, which loses nothing and knows no topics: its rate
 * is noted in addition to the other figures of that name. */
void crowd_run_peers(const struct crowd *c, const char *figures);

/* ---- messages, for what crowds are compared with ------------------------------ */

#define CROWD_LAST (UINT64_C(1) << 39)

/* What message i of a publisher begins with; bench_fill() and verify() use
 * the bits from 32 to 38. */
static inline uint64_t crowd_head(unsigned publisher, uint64_t i)
{
	return (uint64_t)publisher << 40 | i;
}

struct crowd_reader {
	unsigned publishers;
	unsigned ended; /* whose last message came */
	uint64_t next[BENCH_PROCS_MAX];
	uint64_t received, missed; /* by the numbers of what came */
	uint64_t lost;             /* as reported */
};

/* Verify a message, fail if it is not the next of its publisher.  It may be a
 * later one if so many were reported lost. */
BENCH_ALWAYS void crowd_take(struct crowd_reader *r, const char *buf)
{
	uint64_t head, i;
	unsigned who;

	memcpy(&head, buf, sizeof(head));
	who = (unsigned)(head >> 40);
	i = (uint32_t)head;
	if (who >= r->publishers || bench_verify(buf, CROWD_BYTES, head) || i < r->next[who])
		bench_fail("message %llu of publisher %u is torn or out of order",
			   (unsigned long long)i, who);
	r->missed += i - r->next[who];
	if (r->missed > r->lost)
		bench_fail("messages before %llu of publisher %u are missing",
			   (unsigned long long)i, who);
	r->next[who] = i + 1;
	r->received++;
	if (__builtin_expect(!!(head & CROWD_LAST), 0))
		r->ended++;
}

/* For so long a publisher goes on.  The clock is read once in 32 messages. */
struct crowd_time {
	uint64_t until;
};
static inline struct crowd_time crowd_start(double seconds)
{
	return (struct crowd_time){ bench_tick() + (uint64_t)(seconds * 1e9 / bench_tick_ns) };
}
static inline int crowd_is_last(const struct crowd_time *t, uint64_t i)
{
	return i % 32 == 31 && bench_tick() >= t->until;
}

#endif
