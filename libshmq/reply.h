/* SPDX-License-Identifier: MIT
 *
 * reply: what requests and replies carry in front of their properties, and what
 * requester.c and responder.c share.
 *
 * A request names the private topic where its answers are read (name.h).  Who
 * receives it opens that topic and says there, waking nobody, that it has taken the
 * request; so whoever asked learns from the topic's roster that it is gone.
 */
#ifndef SHMQ_REPLY_H
#define SHMQ_REPLY_H

#include "bus.h"

/* In what each begins with; what begins with another is none of them. */
#define REPLY_VERSION 1u
#define REPLY_MAGIC(text) ((text) + (REPLY_VERSION << 24))
#define REPLY_REQUEST REPLY_MAGIC(0x30515253u) /* "SRQ1": struct reply_request */
#define REPLY_TAKEN REPLY_MAGIC(0x30545253u)   /* "SRT1", and so on: struct reply_answer */
#define REPLY_ANSWER REPLY_MAGIC(0x30415253u)
#define REPLY_REFUSAL REPLY_MAGIC(0x30465253u)

/* Both are read from what others write: nothing of them is trusted. */
struct reply_request {
	uint32_t magic;
	uint32_t uid;         /* of struct shmq__name_reply */
	uint64_t requester;   /* its id */
	uint64_t id;          /* of the request, unique for its requester */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; UINT64_MAX none */
};
struct reply_answer {
	uint32_t magic;
	uint32_t pad;
	uint64_t id;        /* of the request */
	uint64_t entry_gen; /* of who answers, as in the topic's roster */
};
_Static_assert(sizeof(struct reply_request) == 32 && sizeof(struct reply_answer) == 24,
	       "what stands in front of properties");

/* Where properties are put together. */
struct reply_scratch {
	char *mem;
	size_t bytes;
};

/* *out is *msg with `head` in front of its properties, which are in scratch until
 * the next call.  0, SHMQ_EOPTION (too many), -ENOMEM. */
int shmq__reply_put(struct reply_scratch *scratch, const void *head, size_t bytes,
		    const struct shmq_msg *msg, struct shmq_msg *out);

/* Take it off again: 1, or 0 if there is none that begins with one of those. */
int shmq__reply_take(struct shmq_msg *msg, void *head, size_t bytes);

#endif
