/* SPDX-License-Identifier: MIT
 *
 * A responder: it is told of each answer that nobody waits for.
 */
#include "../lib/asking.h"
#include "reply.h"

#include <poll.h>
#include <pthread.h>

static shmq_bus *bus, *other;

static void set_up(void)
{
	test_bus_start();
	bus = test_bus_open();
	other = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED, .max_message_bytes = 4096);
}

static void tear_down(void)
{
	shmq_bus_close(other);
	await_reply_topics(bus, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_answer_that_is_too_late_is_not_sent)
{
	struct shmq_responder_stats stats;
	struct shmq_msg msg = text("y");
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	id = ask(r, "x", 50 * MILLISECOND);
	q = hear(s, "x");
	outcome(r, id, SHMQ_TIMED_OUT);
	CHECK_ERROR(shmq_responder_reply(s, &q, &msg), SHMQ_ETIMEOUT);
	CHECK_ERROR(shmq_responder_refuse(s, &q, "late"), SHMQ_ETIMEOUT);
	shmq_responder_get_stats(s, &stats);
	CHECK_EQ(stats.late, 2);
	CHECK_EQ(stats.received, 1);
	CHECK_EQ(stats.replied + stats.refused, 0);
	CHECK_EQ(asked_stats(r).late, 0);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(who_asked_and_closed_is_gone)
{
	struct shmq_msg msg = text("y");
	struct shmq_request q[2];
	shmq_requester *r;
	shmq_responder *s;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	ask(r, "x", PATIENCE);
	ask(r, "z", PATIENCE);
	q[0] = hear(s, "x");
	shmq_requester_close(r);
	await_reply_topics(bus, 1); /* ended; the responder has it open */
	CHECK_ERROR(shmq_responder_reply(s, &q[0], &msg), SHMQ_EPEERDEAD);
	await_reply_topics(bus, 0);
	q[1] = hear(s, "z");
	CHECK_EQ(q[1].error, SHMQ_EPEERDEAD);
	CHECK_ERROR(shmq_responder_reply(s, &q[1], &msg), SHMQ_EPEERDEAD);
	CHECK_EQ(answered_stats(s).requesters, 0);
	CHECK_EQ(answered_stats(s).received, 2);
	shmq_responder_close(s);
	tear_down();
}

TEST(topics_of_those_who_left_are_let_go_when_others_come)
{
	enum { MANY = 20 };
	struct shmq_request q;
	shmq_responder *s;
	int i;

	set_up();
	s = open_responder(other, "svc");
	for (i = 0; i < MANY; i++) {
		shmq_requester *r = open_requester(bus, "svc");

		ask(r, "x", PATIENCE);
		q = hear(s, "x");
		answer(s, &q, "y");
		shmq_requester_close(r);
		CHECK_EQ(answered_stats(s).requesters, 1);
	}
	CHECK_LE(reply_topics(bus), 2);
	shmq_responder_close(s);
	tear_down();
}

TEST(a_plain_message_is_no_request)
{
	struct shmq_msg msg = { .data = "x", .len = 1, .properties = "p", .properties_len = 1 };
	struct shmq_request q;
	shmq_responder *s;
	shmq_pub *pub;

	set_up();
	s = open_responder(other, "svc");
	pub = open_pub(bus, "svc");
	CHECK_OK(shmq_publish_msg(pub, &msg));
	q = hear(s, "x");
	CHECK_EQ(q.error, SHMQ_EOPTION);
	CHECK_MEM(q.msg.properties, "p", 1);
	CHECK_ERROR(shmq_responder_reply(s, &q, &msg), SHMQ_EOPTION);
	CHECK_ERROR(shmq_responder_receive(s, &q, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(answered_stats(s).received, 0);
	shmq_pub_close(pub);
	shmq_responder_close(s);
	tear_down();
}

TEST(who_reads_no_answers_holds_nobody_up)
{
	enum { MANY = 2000 };
	struct shmq_msg msg = text("y");
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	int i, rc = 0;

	set_up();
	r = open_requester(bus, "svc", .open_max = 1);
	s = open_responder(other, "svc");
	ask(r, "x", PATIENCE);
	q = hear(s, "x");
	for (i = 0; !rc && i < MANY; i++)
		rc = shmq_responder_reply(s, &q, &msg);
	CHECK_ERROR(rc, SHMQ_EFULL);
	CHECK_EQ(answered_stats(s).full, 1);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

static int read_private(void *arg, const struct shmq_topic_info *topic)
{
	return shmq__name_read_reply(topic->name, arg);
}

/* By arenas: of the request, and of the answer. */
TEST(what_is_large_is_answered_by_what_is_larger)
{
	enum { LARGE = 100000 };
	static char bytes[LARGE + 1];
	struct shmq_msg msg = { .data = bytes, .len = LARGE };
	struct shmq_reply reply;
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	int i;

	set_up();
	r = open_requester(bus, "svc", .max_reply_bytes = LARGE);
	s = open_responder(other, "svc");
	fill(bytes, LARGE, 3);
	for (i = 0; i < 100; i++) {
		uint64_t id = ask(r, "give me more", PATIENCE);

		q = hear(s, "give me more");
		CHECK_OK(shmq_responder_reply(s, &q, &msg));
		reply = outcome(r, id, SHMQ_REPLIED);
		CHECK_EQ(reply.msg.len, LARGE);
		CHECK(is_filled(reply.msg.data, LARGE, 3));
	}
	msg.len++;
	CHECK_ERROR(shmq_responder_reply(s, &q, &msg), SHMQ_ETOOBIG);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

/* Whoever asks says how large answers may be, whoever answers has the memory. */
TEST(who_asks_for_large_answers_takes_little_of_who_answers)
{
	const uint64_t most = 16 << 20;
	struct shmq_msg msg = { .len = most };
	struct shmq_topic_info private = { 0 };
	struct shmq__name_reply reply;
	char name[SHMQ_NAME_MAX + 1];
	struct proto_request req;
	struct proto_reply refusal;
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id;
	int i;

	set_up();
	r = open_requester(bus, "svc", .max_reply_bytes = most, .open_max = 1);
	s = open_responder(other, "svc");
	CHECK_EQ(shmq_topic_each(bus, read_private, &reply), 1);
	reply.topic = "svc";
	CHECK_OK(shmq__name_make_reply(&reply, name));
	CHECK(msg.data = calloc(1, most));
	for (i = 0; i < 3; i++) {
		id = ask(r, "x", PATIENCE);
		q = hear(s, "x");
		private = topic_info(bus, name);
		CHECK_GE(private.arena_bytes, 2 * most);
		CHECK_LT(private.arena_bytes, 3 * most);
		CHECK_OK(shmq_responder_reply(s, &q, &msg));
		outcome(r, id, SHMQ_REPLIED);
	}
	reply.id++;
	CHECK_OK(shmq__name_make_reply(&reply, name));
	shmq__bus_prepare(bus, &req, PROTO_CREATE, name);
	req.create = (struct proto_options){ .depth = 1024,
					     .mode = SHMQ_SHARED,
					     .max_bytes = most + (1 << 20) };
	CHECK_ERROR(shmq__bus_request(bus, &req, &refusal, NULL), SHMQ_EOPTION);
	free((void *)(uintptr_t)msg.data);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(one_that_has_a_pattern_answers_each_where_it_was_asked)
{
	static const char *const names[] = { "rpc.a", "rpc.b" };
	struct shmq_request q;
	struct shmq_reply reply;
	shmq_requester *r[2];
	shmq_responder *s;
	uint64_t id[2];
	int i;

	set_up();
	s = open_responder(other, "rpc.*");
	for (i = 0; i < 2; i++) {
		create(bus, names[i], .depth = 1024, .mode = SHMQ_SHARED);
		r[i] = open_requester(bus, names[i]);
		id[i] = ask(r[i], names[i], PATIENCE);
	}
	for (i = 0; i < 2; i++) {
		CHECK_OK(shmq_responder_receive(s, &q, PATIENCE));
		answer(s, &q, q.topic);
	}
	for (i = 0; i < 2; i++) {
		reply = outcome(r[i], id[i], SHMQ_REPLIED);
		says(&reply, names[i]);
		shmq_requester_close(r[i]);
	}
	shmq_responder_close(s);
	tear_down();
}

static void ask_as(const char *topic, uint64_t requester)
{
	struct reply_request head = { .magic = REPLY_REQUEST,
				      .uid = geteuid(),
				      .requester = requester,
				      .id = 1,
				      .deadline_ns = UINT64_MAX };
	struct shmq_msg msg = { .properties = &head, .properties_len = sizeof(head) };
	shmq_pub *pub = open_pub(bus, topic);

	CHECK_OK(shmq_publish_msg(pub, &msg));
	shmq_pub_close(pub);
}

static void make_private(const char *name)
{
	struct proto_request req;
	struct proto_reply reply;

	shmq__bus_prepare(bus, &req, PROTO_CREATE, name);
	req.create = (struct proto_options){ .depth = 1024, .mode = SHMQ_SHARED };
	CHECK_OK(shmq__bus_request(bus, &req, &reply, NULL));
}

/* Ids stand in the names of topics, which all may read: who asked first by that of
 * another, on another topic of a pattern's, would have its answers. */
TEST(answers_do_not_go_where_a_requester_of_the_same_id_asked)
{
	struct shmq__name_reply private;
	char name[SHMQ_NAME_MAX + 1];
	struct shmq_reply reply;
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	shmq_sub *spy;
	uint64_t id;

	set_up();
	create(bus, "rpc.a", .depth = 1024, .mode = SHMQ_SHARED);
	create(bus, "rpc.b", .depth = 1024, .mode = SHMQ_SHARED);
	s = open_responder(other, "rpc.*");
	r = open_requester(bus, "rpc.a");
	CHECK_EQ(shmq_topic_each(bus, read_private, &private), 1);
	private.topic = "rpc.b";
	CHECK_OK(shmq__name_make_reply(&private, name));
	make_private(name);
	spy = open_sub(bus, name);
	ask_as("rpc.b", private.id);
	CHECK_OK(shmq_responder_receive(s, &q, PATIENCE));
	CHECK_OK(q.error);
	id = ask(r, "x", PATIENCE);
	q = hear(s, "x");
	CHECK_EQ(q.requester, private.id);
	answer(s, &q, "for a alone");
	reply = outcome(r, id, SHMQ_REPLIED);
	says(&reply, "for a alone");
	CHECK_EQ(answered_stats(s).requesters, 2);
	CHECK_EQ(topic_info(bus, name).head, 1); /* that it was taken */
	shmq_sub_close(spy);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

/* Its supervisor is not asked for what the registry does not have. */
TEST(what_the_dead_have_asked_is_told_while_the_supervisor_hangs)
{
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	pid_t worker;
	int i;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	for (i = 0; i < 20; i++)
		ask(r, "x", PATIENCE);
	shmq_requester_close(r);
	await_reply_topics(bus, 0);
	worker = test_bus_worker_pid(bus);
	CHECK_OK(kill(worker, SIGSTOP));
	for (i = 0; i < 20; i++) {
		q = hear(s, "x");
		CHECK_EQ(q.error, SHMQ_EPEERDEAD);
	}
	CHECK_OK(kill(worker, SIGCONT));
	shmq_responder_close(s);
	tear_down();
}

struct slow {
	shmq_requester *r;
	_Atomic int stop;
	_Atomic unsigned reads;
};

static void *read_slowly(void *arg)
{
	struct slow *slow = arg;
	struct shmq_reply reply;

	while (!atomic_load(&slow->stop)) {
		if (!shmq_requester_next(slow->r, &reply, SHMQ_NOWAIT))
			atomic_fetch_add(&slow->reads, 1);
		test_sleep_ms(1);
	}
	return NULL;
}

/* It has read a few of a full ring, not all: there is room. */
TEST(who_reads_its_answers_slowly_is_sent_them)
{
	enum { MEETINGS = 20 };
	struct slow slow = { 0 };
	struct shmq_msg msg = text("y");
	unsigned full = 0, sent = 0;
	struct shmq_request q;
	pthread_t reader;
	shmq_responder *s;

	set_up();
	slow.r = open_requester(bus, "svc", .open_max = 1);
	s = open_responder(other, "svc");
	ask(slow.r, "x", PATIENCE);
	q = hear(s, "x");
	CHECK_EQ(pthread_create(&reader, NULL, read_slowly, &slow), 0);
	while (full + sent < MEETINGS) {
		unsigned before = atomic_load(&slow.reads), reads;
		int rc = shmq_responder_reply(s, &q, &msg);

		reads = atomic_load(&slow.reads) - before;
		full += rc == SHMQ_EFULL && reads >= 3; /* else there was no time for it */
		sent += !rc && reads;
	}
	atomic_store(&slow.stop, 1);
	CHECK_EQ(pthread_join(reader, NULL), 0);
	CHECK_LT(full, MEETINGS / 2);
	shmq_requester_close(slow.r);
	shmq_responder_close(s);
	tear_down();
}

TEST(its_descriptor_is_readable_when_somebody_asks)
{
	struct pollfd p = { .events = POLLIN };
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	CHECK_GE(p.fd = shmq_responder_fd(s), 0);
	CHECK_ERROR(shmq_responder_receive(s, &q, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(poll(&p, 1, 0), 0);
	ask(r, "x", PATIENCE);
	CHECK_EQ(poll(&p, 1, 60000), 1);
	hear(s, "x");
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(options_are_checked_and_the_bus_closes_it)
{
	shmq_responder *s;

	set_up();
	CHECK_ERROR(shmq_responder_open(bus, "none", NULL, &s), SHMQ_ENOTOPIC);
	CHECK(!s);
	CHECK_ERROR(shmq_responder_open(bus, "svc",
					&(struct shmq_responder_options){
						.size = sizeof(struct shmq_responder_options),
						.from = SHMQ_FROM_SEQ },
					&s),
		    SHMQ_EOPTION);
	s = open_responder(other, "svc");
	ask(open_requester(bus, "svc"), "x", PATIENCE);
	hear(s, "x");
	shmq_bus_close(other);
	other = test_bus_open();
	shmq_bus_close(bus);
	bus = test_bus_open();
	tear_down();
}

/* Whoever may publish may write what it likes: a header that is cut, noise behind the
 * right magic, private topics that are none, of others, or of other kinds. */
TEST(noise_is_no_request_and_gets_no_answer)
{
	struct shmq_msg msg = { .data = "x", .len = 1 }, back = text("y");
	struct reply_request head;
	unsigned i, requests = 0;
	struct shmq_request q;
	shmq_responder *s;
	shmq_pub *pub;

	set_up();
	s = open_responder(other, "svc");
	pub = open_pub(bus, "svc");
	for (i = 0; i < 300; i++) {
		fill(&head, sizeof(head), i);
		if (i % 3)
			head.magic = REPLY_REQUEST;
		if (i % 3 == 2)
			head.uid = geteuid();
		msg.properties = &head;
		msg.properties_len = i % 5 ? sizeof(head) : mix(i) % sizeof(head);
		CHECK_OK(shmq_publish_msg(pub, &msg));
		q = hear(s, "x");
		CHECK_NE(q.error, 0);
		CHECK_NE(shmq_responder_reply(s, &q, &back), 0);
		requests += q.error != SHMQ_EOPTION;
	}
	CHECK_GT(requests, 100);
	CHECK_EQ(answered_stats(s).received, requests);
	CHECK_EQ(answered_stats(s).requesters, 0);
	CHECK_EQ(answered_stats(s).replied, 0);
	shmq_pub_close(pub);
	shmq_responder_close(s);
	tear_down();
}

/* A request that stands in a ring that is written over meanwhile. */
TEST(requests_that_were_lost_are_told)
{
	struct shmq_request q;
	shmq_responder *s;
	shmq_pub *pub;
	int i, rc;

	set_up();
	create(bus, "lossy", .depth = 1024, .policy = SHMQ_LOSSY);
	s = open_responder(other, "lossy");
	pub = open_pub(bus, "lossy");
	for (i = 0; i < 3000; i++)
		CHECK_OK(shmq_publish(pub, "x", 1));
	rc = shmq_responder_receive(s, &q, PATIENCE);
	CHECK_ERROR(rc, SHMQ_EOVERRUN);
	CHECK_GT(q.msg.lost, 1000);
	CHECK_STR(q.topic, "lossy");
	shmq_pub_close(pub);
	shmq_responder_close(s);
	tear_down();
}
