/* SPDX-License-Identifier: MIT
 *
 * cast: those who live on while a subject is stepped through its operation,
 * and what must be true for them wherever it dies.
 *
 * The subject is a process on the lower bus of a world.  On the copy above are
 * two subscribers and, where publishers share, a publisher.  cast_bury()
 * declares the subject dead there, does what a supervisor does then, lets
 * everybody go on, a successor and a joiner too, and checks:
 *
 *   no slot is left claimed, no hole is anything but VOID, holes are listed
 *   what was committed arrives once, whole and in order, at each subscriber
 *   of an atomic batch all or nothing arrives
 *   nothing of the dead gates; the others go round the whole ring
 *   who is lapped is told exactly how many it lost
 *   who slept is woken; the arena of the dead is given on, and turns over: no
 *   other is owned than those of publishers
 *   of a topic with a log nobody may write over what is not in it
 */
#ifndef CAST_H
#define CAST_H

#include "../../libshmq/bus.h"
#include "stepper.h"
#include "world.h"

enum { CAST_OTHERS = 1, CAST_SUBJECT = 2 };
enum { CAST_MESSAGE_MAX = 2000 };
enum { CAST_ROUND = 1000 }; /* number of the subject's message where others came round */

/* What the subject is to do, and where. */
struct cast_scene {
	const char *name; /* of the operation */
	struct fake_options topic;
	size_t bytes;      /* of a message of the subject's, and of the others' */
	unsigned prelude;  /* messages that the subject sends before it is stepped */
	unsigned count;    /* messages of the operation */
	int is_atomic;     /* they are a batch */
	int sleepers;      /* somebody sleeps at each bell */
	unsigned unread;   /* messages that a subscriber has not read when it begins */
	unsigned unlogged; /* ... that are not in the log, where the topic has one */
	int shares;        /* a publisher stays there beside the subject */
	unsigned offered;  /* messages sent to the subject just before it is stepped */
	int offer_atomic;  /* ... as a batch */
	/* Another publisher has died before: at so many of its messages, of which
	 * it committed the last few. */
	unsigned victim, victim_committed;
	int is_round; /* the others have come round to them since */
};

struct cast;

/* Messages of the subject and of the others: what they say follows from who
 * sends it, and which of its messages it is. */
void cast_fill(char *buf, size_t bytes, uint64_t who, uint64_t n);

/* Everybody comes, and the ring is gone round once. */
struct cast *cast_new(const struct cast_scene *scene);
void cast_free(struct cast *c);
struct world *cast_world(struct cast *c);

/* The subject stands at its first mark: from here on it is a step. */
void cast_begin(struct cast *c, unsigned subject);

/* The subject, as it is below now, dies. */
void cast_bury(struct cast *c);

/* It came to the end of its operation, alive: `sent` of its messages did. */
void cast_end(struct cast *c, unsigned sent);

/* The subscriber with unread messages reads n of them; all read what there is;
 * the publisher sends one.  It is seen below, too. */
void cast_read_on(struct cast *c, unsigned n);
void cast_read_all(struct cast *c);
/* The tailer writes n messages. */
void cast_write_log(struct cast *c, unsigned n);
void cast_send_one(struct cast *c);

/* The subject asked the supervisor for something, and gets it. */
void cast_answer(struct cast *c);

/* As the supervisor takes a client out; what was voided. */
unsigned cast_take_out(struct fake *f, unsigned client);

#endif
