/* SPDX-License-Identifier: MIT
 *
 * standin: takes the supervisor's place on the socket of a fake bus.
 *
 * A thread of the test's own process listens, gives out the slabs of a fake
 * and answers as shmqd would: handles are opened, closed and joined on the
 * fake's records.  So the library's handles run without shmqd, all in one
 * process, where a sanitizer sees both sides.  Nothing is populated, checked
 * or recovered here, and one topic is all there is.
 *
 * Each answer can be changed before it leaves, and every request is kept:
 * what a hostile or a dying supervisor says is the test's to write.
 */
#ifndef STANDIN_H
#define STANDIN_H

#include "fake.h"
#include "proto.h"
#include "wire.h"

#define STANDIN_TOPIC "fake" /* its topic */
#define STANDIN_BUS "fake"
#define STANDIN_NONCE 4711 /* of the bus */

struct standin;

/* What is about to be said to one request. */
struct standin_answer {
	struct fake *fake;
	const struct proto_request *req;
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX]; /* closed once they are sent */
	unsigned fd_count;
	size_t bytes;    /* how much of the reply is sent; zeros follow it */
	unsigned copies; /* 0: not answered */
	int hangs_up;    /* afterwards */
};
typedef void standin_change(struct standin_answer *answer, void *arg);

/* A fake and who speaks for it; both are gone after standin_free(). */
struct standin *standin_new(const struct fake_options *options);
void standin_free(struct standin *s);

struct fake *standin_fake(struct standin *s);
const char *standin_dir(const struct standin *s);

/* Attach to it with options (size and directory are set here), or with the
 * default ones; standin_bus() fails the test if that fails. */
int standin_open(struct standin *s, struct shmq_bus_options *options, shmq_bus **out);
shmq_bus *standin_bus(struct standin *s);

/* From now on fn sees, on the standin's thread, each answer to requests of
 * that kind; NULL ends that. */
void standin_change_answers(struct standin *s, enum proto_op op, standin_change *fn, void *arg);

/* Requests of a kind so far, and the last of them; wait until there were so
 * many. */
unsigned standin_count(struct standin *s, enum proto_op op);
struct proto_request standin_last(struct standin *s, enum proto_op op);
void standin_await(struct standin *s, enum proto_op op, unsigned count);

/* Push these bytes on the event socket of a client, with a descriptor if it
 * is not negative. */
void standin_push(struct standin *s, unsigned client, const void *bytes, size_t count, int fd);

/* From now on what other processes ask is not answered, but one request of
 * theirs each time; standin_answer_one() returns once that was. */
void standin_hold_others(struct standin *s);
void standin_answer_one(struct standin *s);

/* Hang up on everybody; stop listening too; listen again. */
void standin_cut(struct standin *s);
void standin_leave(struct standin *s);
void standin_return(struct standin *s);

#endif
