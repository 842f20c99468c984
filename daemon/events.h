/* SPDX-License-Identifier: MIT
 *
 * events: what happens on a bus, as messages of its topic $sys.events.
 *
 * The control worker is its only publisher and writes the ring itself: an
 * event is one slot and one futex call, it waits for nobody, and who reads too
 * slowly loses what it was too slow for.  The topic is made when the first
 * subscriber asks for it; what happened before is kept in the worker, as far as
 * there is room, and published then.  A worker that dies in the middle of a
 * message leaves a slot that was given up (AHEAD), at which the next goes on.
 */
#ifndef SHMQ_DAEMON_EVENTS_H
#define SHMQ_DAEMON_EVENTS_H

#include <shmq.h>

#include "loop.h"
#include "registry.h"
#include "ring.h"

#define EVENTS_TOPIC SHMQ_EVENTS_TOPIC
#define EVENTS_SLOT_BYTES 1024u
#define EVENTS_LINE_BYTES 960u /* what a slot of that size holds, or less */
#define EVENTS_KEPT 64u

struct control;

struct events {
	struct {
		uint64_t ts;
		uint16_t type, bytes;
		char text[EVENTS_LINE_BYTES];
	} kept[EVENTS_KEPT];
	unsigned first, count;
	uint64_t topic_id; /* that w is of, 0 none */
	struct ring_writer w;
	int is_coming;     /* it is being made */
	uint64_t again_ns; /* that failed: not again before */
	struct timer log_timer, made_timer;
};

/* Publish; peer and topic may be NULL. */
void events_say(struct control *c, enum shmq_sys_event type, const struct peer *peer,
		const char *topic, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* 1 if the name is that of the topic; nobody else publishes there. */
int events_is_topic(const char *name);
/* Somebody subscribes: make it, unless it is there.  0, or POOL_COMING while it is
 * being made. */
int events_make(struct control *c);
/* A topic came to be: perhaps it is that, or one with a log, whose alarms are
 * looked at from now on. */
void events_topic_made(struct control *c, const struct topic *t);

/* It could not be: who waits for it is told. */
void events_topic_failed(struct control *c);
/* Look at the alarms of logs from now on. */
void events_watch_logs(struct control *c);

#endif
