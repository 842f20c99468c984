/* SPDX-License-Identifier: MIT
 *
 * attachment: what tests of a bus's attachment share, on a standin: what
 * a supervisor answers that lies, stutters or dies, and whether all is
 * well afterwards.
 */
#ifndef TEST_ATTACHMENT_H
#define TEST_ATTACHMENT_H

#include "helpers.h"
#include "standin.h"

/* ---- for standin_change_answers() ---------------------------------------- */

static inline void wrong_magic(struct standin_answer *a, void *arg)
{
	a->reply.magic++;
}

static inline void wrong_version(struct standin_answer *a, void *arg)
{
	a->reply.version++;
}

static inline void wrong_op(struct standin_answer *a, void *arg)
{
	a->reply.op++;
}

static inline void wrong_token(struct standin_answer *a, void *arg)
{
	a->reply.token++;
}

static inline void success_above_zero(struct standin_answer *a, void *arg)
{
	a->reply.error = 1;
}

static inline void too_short(struct standin_answer *a, void *arg)
{
	a->bytes--;
}

static inline void too_long(struct standin_answer *a, void *arg)
{
	a->bytes++;
}

static inline void hang_up(struct standin_answer *a, void *arg)
{
	a->copies = 0;
	a->hangs_up = 1;
}

/* The request is carried out, its answer lost. */
static inline void die_once(struct standin_answer *a, void *arg)
{
	unsigned *left = arg;

	if (*left) {
		--*left;
		hang_up(a, NULL);
	}
}

static inline void say_nothing(struct standin_answer *a, void *arg)
{
	a->copies = 0;
}

/* Keep the first n descriptors. */
static inline void keep_fds(struct standin_answer *a, unsigned n)
{
	while (a->fd_count > n)
		close(a->fds[--a->fd_count]);
}

static inline void one_fewer(struct standin_answer *a, void *arg)
{
	keep_fds(a, a->fd_count - 1);
}

/* Another descriptor in the place of the i-th. */
static inline void put_fd(struct standin_answer *a, unsigned i, int fd)
{
	CHECK_GE(fd, 0);
	close(a->fds[i]);
	a->fds[i] = fd;
}

/* ---- afterwards ------------------------------------------------------------ */

/* A request that changes nothing. */
static inline int ask(shmq_bus *bus)
{
	return shmq_topic_plan(bus, "t", NULL, &(struct shmq_plan){ 0 });
}

/* Handles are opened, a message goes through, and they are closed. */
static inline void check_works(shmq_bus *bus)
{
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
	struct shmq_msg msg;

	CHECK_OK(shmq_publish(pub, "works", 5));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "works", 5);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
}

/* No handle is left on the topic. */
static inline void check_empty(struct standin *s)
{
	struct shmq__roster_iter it = { 0 };

	CHECK(!shmq__topic_next_member(standin_fake(s)->topic, &it));
	CHECK_EQ(load_relaxed(&standin_fake(s)->rec->publishers), 0);
	CHECK_EQ(load_relaxed(&standin_fake(s)->rec->subscribers), 0);
}

/* Descriptors of this process, once the standin has closed what it sent. */
static inline int count_fds(struct standin *s)
{
	standin_count(s, PROTO_HELLO);
	return test_fd_count();
}

#endif
