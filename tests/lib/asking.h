/* SPDX-License-Identifier: MIT
 *
 * asking: what tests of requests and replies share.
 */
#ifndef TEST_ASKING_H
#define TEST_ASKING_H

#include "helpers.h"

#define REQUESTER_OPTIONS(...) \
	(&(struct shmq_requester_options){ .size = sizeof(struct shmq_requester_options), \
					   ##__VA_ARGS__ })
#define open_requester(bus, topic, ...) \
	open_requester_with(bus, topic, REQUESTER_OPTIONS(__VA_ARGS__))

static inline shmq_requester *open_requester_with(shmq_bus *bus, const char *topic,
						  const struct shmq_requester_options *options)
{
	shmq_requester *r;
	int rc = shmq_requester_open(bus, topic, options, &r);

	if (rc)
		FAIL("requester on \"%s\": %s: %s", topic, shmq_errname(rc), shmq_bus_error(bus));
	return r;
}

static inline shmq_responder *open_responder(shmq_bus *bus, const char *topic)
{
	shmq_responder *r;
	int rc = shmq_responder_open(bus, topic, NULL, &r);

	if (rc)
		FAIL("responder on \"%s\": %s: %s", topic, shmq_errname(rc), shmq_bus_error(bus));
	return r;
}

static inline struct shmq_msg text(const char *words)
{
	return (struct shmq_msg){ .data = words, .len = strlen(words) };
}

static inline uint64_t ask(shmq_requester *r, const char *words, int64_t timeout_ns)
{
	struct shmq_msg msg = text(words);
	uint64_t id;

	CHECK_OK(shmq_requester_send(r, &msg, timeout_ns, &id));
	return id;
}

/* Next request, which says that. */
static inline struct shmq_request hear(shmq_responder *r, const char *words)
{
	struct shmq_request q;

	CHECK_OK(shmq_responder_receive(r, &q, PATIENCE));
	CHECK_EQ(q.msg.len, strlen(words));
	CHECK_MEM(q.msg.data, words, q.msg.len);
	return q;
}

static inline void answer(shmq_responder *r, const struct shmq_request *q, const char *words)
{
	struct shmq_msg msg = text(words);

	CHECK_OK(q->error);
	CHECK_OK(shmq_responder_reply(r, q, &msg));
}

/* Next outcome, which is that one, of that request. */
static inline struct shmq_reply outcome(shmq_requester *r, uint64_t id, enum shmq_outcome want)
{
	struct shmq_reply reply;

	CHECK_OK(shmq_requester_next(r, &reply, PATIENCE));
	CHECK_EQ(reply.id, id);
	CHECK_EQ(reply.outcome, want);
	return reply;
}

static inline void says(const struct shmq_reply *reply, const char *words)
{
	CHECK_EQ(reply->msg.len, strlen(words));
	CHECK_MEM(reply->msg.data, words, reply->msg.len);
}

static inline struct shmq_requester_stats asked_stats(const shmq_requester *r)
{
	struct shmq_requester_stats stats;

	shmq_requester_get_stats(r, &stats);
	CHECK_EQ(stats.sent,
		 stats.replied + stats.refused + stats.gone + stats.timed_out + stats.open);
	return stats;
}

static inline struct shmq_responder_stats answered_stats(const shmq_responder *r)
{
	struct shmq_responder_stats stats;

	shmq_responder_get_stats(r, &stats);
	return stats;
}

static inline int count_reply_topic(void *arg, const struct shmq_topic_info *topic)
{
	*(unsigned *)arg += !strncmp(topic->name, "$reply.", 7);
	return 0;
}

/* Private topics for replies that are there. */
static inline unsigned reply_topics(shmq_bus *bus)
{
	unsigned n = 0;

	CHECK_OK(shmq_topic_each(bus, count_reply_topic, &n));
	return n;
}

static inline void await_reply_topics(shmq_bus *bus, unsigned want)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (reply_topics(bus) != want) {
		if (test_now_ns() > deadline)
			FAIL("%u private topics, want %u", reply_topics(bus), want);
		test_sleep_ms(1);
	}
}

#endif
