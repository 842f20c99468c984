/* SPDX-License-Identifier: MIT
 *
 * victim: a process on a real bus that a stepper takes to any instruction of
 * one operation, to be killed or stopped there.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include "shmq.h"
#include "topic.h"
#include "watch.h"

#include <stdatomic.h>

enum { VICTIM_LARGE = 1500 }; /* bytes of a message that goes through an arena */

struct victim_act {
	const char *name;
	int (*live)(void *victim);
	size_t bytes;   /* of a message */
	unsigned count; /* messages that it sends */
	int is_atomic;
};

/* Shared with the process. */
struct victim {
	const struct victim_act *act;
	const char *topic;
	uint64_t number; /* who its messages are from */
	_Atomic unsigned client;
};

/* What may be lived: each sends the messages of the act between two marks. */
int victim_publish(void *victim);
int victim_publish_batch(void *victim);
int victim_claim_and_commit(void *victim);

/* Its place in a topic that the test has open; what others see of it there. */
struct lay_member *victim_member(const struct victim *v, struct shmq__topic *t);
void victim_watch(const struct victim *v, struct shmq__topic *t, struct watch *watch);

/* The slots from seq first on that are its messages', 1 bit each. */
struct victim_slots {
	unsigned claimed;   /* it stands in them */
	unsigned taken;     /* ... or has committed them */
	unsigned committed; /* others must get them */
};
struct victim_slots victim_look(const struct victim *v, const struct shmq__topic *t,
				uint64_t first);

#endif
