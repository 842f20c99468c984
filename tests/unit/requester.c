/* SPDX-License-Identifier: MIT
 *
 * A requester: one outcome for each request, whatever becomes of it.
 */
#include "../lib/asking.h"
#include "reply.h"

#include <poll.h>
#include <sched.h>

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

TEST(a_request_is_answered_with_what_was_said)
{
	shmq_requester *r;
	shmq_responder *s;
	struct shmq_request q;
	struct shmq_reply reply;
	struct shmq_requester_stats stats;
	struct shmq_msg msg = { .data = "one",
				.len = 3,
				.key = "k",
				.key_len = 1,
				.properties = "p",
				.properties_len = 1,
				.type = 5 },
			back = { .data = "two", .len = 3, .key = "K", .key_len = 1, .type = 6 };
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	CHECK_OK(shmq_requester_send(r, &msg, PATIENCE, &id));
	CHECK_EQ(msg.seq, 0);
	q = hear(s, "one");
	CHECK_EQ(q.error, 0);
	CHECK_STR(q.topic, "svc");
	CHECK_EQ(q.uid, geteuid());
	CHECK_EQ(q.msg.type, 5);
	CHECK_MEM(q.msg.key, "k", 1);
	CHECK_EQ(q.msg.properties_len, 1);
	CHECK_MEM(q.msg.properties, "p", 1);
	CHECK_OK(shmq_responder_reply(s, &q, &back));
	reply = outcome(r, id, SHMQ_REPLIED);
	says(&reply, "two");
	CHECK_MEM(reply.msg.key, "K", 1);
	CHECK_EQ(reply.msg.type, 6);
	CHECK_EQ(reply.msg.properties_len, 0);
	CHECK(reply.is_taken);
	CHECK_EQ(reply.client_id, shmq_bus_client_id(other));
	CHECK_ERROR(shmq_requester_next(r, &reply, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_requester_next(r, &reply, MILLISECOND), SHMQ_ETIMEOUT);
	shmq_requester_get_stats(r, &stats);
	CHECK_EQ(stats.sent, 1);
	CHECK_EQ(stats.replied, 1);
	CHECK_EQ(stats.open, 0);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(answers_may_come_in_any_order)
{
	enum { MANY = 300 };
	static struct shmq_request q[MANY];
	static uint64_t id[MANY];
	shmq_requester *r;
	shmq_responder *s;
	char words[16];
	int i;

	set_up();
	r = open_requester(bus, "svc", .open_max = MANY);
	s = open_responder(other, "svc");
	for (i = 0; i < MANY; i++) {
		snprintf(words, sizeof(words), "%d", i);
		id[i] = ask(r, words, PATIENCE);
	}
	CHECK_EQ(asked_stats(r).open, MANY);
	for (i = 0; i < MANY; i++) {
		snprintf(words, sizeof(words), "%d", i);
		q[i] = hear(s, words);
	}
	for (i = MANY; i--;) {
		struct shmq_reply reply;

		snprintf(words, sizeof(words), "%d", i);
		answer(s, &q[i], words);
		reply = outcome(r, id[i], SHMQ_REPLIED);
		says(&reply, words);
	}
	CHECK_EQ(asked_stats(r).open, 0);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(no_more_are_open_than_it_was_opened_for)
{
	struct shmq_msg msg = text("x");
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t first;

	set_up();
	r = open_requester(bus, "svc", .open_max = 2);
	s = open_responder(other, "svc");
	first = ask(r, "x", PATIENCE);
	ask(r, "x", PATIENCE);
	CHECK_ERROR(shmq_requester_send(r, &msg, PATIENCE, NULL), SHMQ_ELIMIT);
	CHECK_ERROR(shmq_requester_call(r, &msg, NULL, PATIENCE), SHMQ_EINUSE);
	q = hear(s, "x");
	answer(s, &q, "y");
	outcome(r, first, SHMQ_REPLIED);
	CHECK_OK(shmq_requester_send(r, &msg, PATIENCE, NULL));
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(where_nobody_listens_nothing_is_sent)
{
	struct shmq_msg msg = text("x");
	shmq_requester *r;

	set_up();
	r = open_requester(bus, "svc");
	CHECK_ERROR(shmq_requester_call(r, &msg, NULL, SHMQ_NOWAIT), SHMQ_ENOBODY);
	CHECK_ERROR(shmq_requester_send(r, &msg, MILLISECOND, NULL), SHMQ_ENOBODY);
	CHECK_EQ(topic_info(bus, "svc").head, 0);
	CHECK_EQ(asked_stats(r).sent, 0);
	shmq_requester_close(r);
	tear_down();
}

/* Whether a responder had it is told. */
TEST(what_is_not_answered_times_out)
{
	struct shmq_msg msg = text("x");
	struct shmq_reply reply;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	CHECK_ERROR(shmq_requester_call(r, &msg, &reply, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK(!reply.is_taken);
	hear(s, "x");
	id = ask(r, "y", 50 * MILLISECOND);
	hear(s, "y");
	reply = outcome(r, id, SHMQ_TIMED_OUT);
	CHECK(reply.is_taken);
	CHECK_EQ(reply.client_id, shmq_bus_client_id(other));
	CHECK_EQ(asked_stats(r).timed_out, 2);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(who_closes_after_a_request_timed_out_leaves_it_so)
{
	struct shmq_request q;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	id = ask(r, "x", MILLISECOND);
	q = hear(s, "x");
	while ((uint64_t)test_now_ns() <= q.deadline_ns)
		sched_yield();
	shmq_responder_close(s);
	outcome(r, id, SHMQ_TIMED_OUT);
	shmq_requester_close(r);
	tear_down();
}

/* Of two that answer, the second is late. */
TEST(answers_after_the_first_are_late)
{
	struct shmq_msg msg = text("x");
	shmq_responder *s[2];
	struct shmq_request q[2];
	struct shmq_reply reply;
	shmq_requester *r;
	uint64_t id, late;

	set_up();
	r = open_requester(bus, "svc");
	s[0] = open_responder(other, "svc");
	s[1] = open_responder(other, "svc");
	id = ask(r, "x", PATIENCE);
	q[0] = hear(s[0], "x");
	q[1] = hear(s[1], "x");
	answer(s[1], &q[1], "first");
	answer(s[0], &q[0], "second");
	reply = outcome(r, id, SHMQ_REPLIED);
	says(&reply, "first");
	reply = outcome(r, id, SHMQ_LATE);
	says(&reply, "second");
	/* A call passes them over. */
	late = ask(r, "y", PATIENCE);
	q[0] = hear(s[0], "y");
	q[1] = hear(s[1], "y");
	answer(s[0], &q[0], "first");
	answer(s[1], &q[1], "second");
	outcome(r, late, SHMQ_REPLIED);
	CHECK_ERROR(shmq_requester_call(r, &msg, &reply, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(asked_stats(r).late, 2);
	shmq_requester_close(r);
	shmq_responder_close(s[0]);
	shmq_responder_close(s[1]);
	tear_down();
}

TEST(a_refusal_says_why)
{
	struct shmq_request q;
	struct shmq_reply reply;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	id = ask(r, "x", PATIENCE);
	q = hear(s, "x");
	CHECK_OK(shmq_responder_refuse(s, &q, "not today"));
	reply = outcome(r, id, SHMQ_REFUSED);
	says(&reply, "not today");
	CHECK_EQ(asked_stats(r).refused, 1);
	CHECK_EQ(answered_stats(s).refused, 1);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

/* Those that it answered before are not lost by that. */
TEST(what_a_responder_took_before_it_closed_is_gone)
{
	struct shmq_request q;
	struct shmq_reply reply;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id[3];
	int i;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	for (i = 0; i < 3; i++)
		id[i] = ask(r, "x", PATIENCE);
	hear(s, "x");
	q = hear(s, "x");
	answer(s, &q, "y");
	shmq_responder_close(s);
	outcome(r, id[1], SHMQ_REPLIED);
	reply = outcome(r, id[0], SHMQ_GONE);
	CHECK_EQ(reply.client_id, shmq_bus_client_id(other));
	/* Nobody took that one. */
	CHECK_ERROR(shmq_requester_next(r, &reply, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(asked_stats(r).open, 1);
	shmq_requester_close(r);
	tear_down();
}

TEST(while_another_has_it_too_it_is_not_gone)
{
	struct shmq_request q;
	struct shmq_reply reply;
	shmq_responder *s[2];
	shmq_requester *r;
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s[0] = open_responder(other, "svc");
	s[1] = open_responder(other, "svc");
	id = ask(r, "x", PATIENCE);
	hear(s[0], "x");
	q = hear(s[1], "x");
	shmq_responder_close(s[0]);
	CHECK_ERROR(shmq_requester_next(r, &reply, MILLISECOND), SHMQ_ETIMEOUT);
	answer(s[1], &q, "y");
	outcome(r, id, SHMQ_REPLIED);
	shmq_requester_close(r);
	shmq_responder_close(s[1]);
	tear_down();
}

static int note_name(void *arg, const char *topic, const struct shmq_sub_stats *stats)
{
	(void)stats;
	return snprintf(arg, SHMQ_NAME_MAX + 1, "%s", topic) > 0;
}

TEST(messages_that_are_no_answer_are_counted)
{
	char private[SHMQ_NAME_MAX + 1] = "";
	struct shmq_reply reply;
	struct shmq_msg msg;
	shmq_requester *r;
	shmq_pub *pub;
	shmq_sub *sub;

	set_up();
	sub = open_sub(bus, "$reply.#");
	r = open_requester(bus, "svc");
	CHECK_EQ(reply_topics(bus), 1);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(shmq_sub_topic_each(sub, note_name, private), 1);
	pub = open_pub(other, private);
	CHECK_OK(shmq_publish(pub, "junk", 4));
	CHECK_ERROR(shmq_requester_next(r, &reply, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(asked_stats(r).stray, 1);
	shmq_requester_close(r);
	CHECK_ERROR(shmq_publish(pub, "junk", 4), SHMQ_EENDED);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	tear_down();
}

/* Who may answer may say anything: of requests that are open, over, or never were. */
TEST(noise_ends_no_request_but_one_that_it_names)
{
	char private[SHMQ_NAME_MAX + 1] = "";
	struct shmq_msg msg = { .data = "x", .len = 1 };
	struct reply_answer head;
	struct shmq_requester_stats stats;
	struct shmq_reply reply;
	shmq_responder *s;
	shmq_requester *r;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t id;
	unsigned i;

	set_up();
	sub = open_sub(bus, "$reply.#");
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(shmq_sub_topic_each(sub, note_name, private), 1);
	id = ask(r, "x", PATIENCE);
	pub = open_pub(other, private);
	for (i = 0; i < 300; i++) {
		fill(&head, sizeof(head), i);
		if (i % 2)
			head.magic = i % 3 == 0 ? REPLY_TAKEN :
				     i % 3 == 1 ? REPLY_ANSWER :
						  REPLY_REFUSAL;
		if (i % 4 == 3 && head.magic == REPLY_TAKEN)
			head.id = 0;
		msg = (struct shmq_msg){ .data = "x", .len = 1, .properties = &head };
		msg.properties_len = i % 5 ? sizeof(head) : mix(i) % sizeof(head);
		CHECK_OK(shmq_publish_msg(pub, &msg));
	}
	while (!shmq_requester_next(r, &reply, SHMQ_NOWAIT))
		CHECK_EQ(reply.outcome, SHMQ_LATE);
	stats = asked_stats(r);
	CHECK_EQ(stats.open, 1);
	CHECK_GT(stats.stray, 100);
	CHECK_GT(stats.late, 50);
	/* One that it names, by a taker that is none, it ends. */
	head = (struct reply_answer){ .magic = REPLY_TAKEN, .id = id, .entry_gen = 12345 };
	msg = (struct shmq_msg){ .properties = &head, .properties_len = sizeof(head) };
	CHECK_OK(shmq_publish_msg(pub, &msg));
	outcome(r, id, SHMQ_GONE);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_requester_close(r);
	shmq_responder_close(s);
	tear_down();
}

TEST(its_descriptor_is_readable_when_there_is_an_outcome)
{
	struct pollfd p = { .events = POLLIN };
	struct shmq_request q;
	struct shmq_reply reply;
	shmq_requester *r;
	shmq_responder *s;
	uint64_t id;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	CHECK_GE(p.fd = shmq_requester_fd(r), 0);
	while (poll(&p, 1, 0)) /* the roster, too, may have to be looked at */
		CHECK_ERROR(shmq_requester_next(r, &reply, SHMQ_NOWAIT), SHMQ_EEMPTY);
	id = ask(r, "x", PATIENCE);
	q = hear(s, "x");
	answer(s, &q, "y");
	CHECK_EQ(poll(&p, 1, 60000), 1);
	outcome(r, id, SHMQ_REPLIED);
	/* and when somebody goes */
	id = ask(r, "z", PATIENCE);
	hear(s, "z");
	while (poll(&p, 1, 0))
		CHECK_ERROR(shmq_requester_next(r, &reply, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_responder_close(s);
	CHECK_EQ(poll(&p, 1, 60000), 1);
	outcome(r, id, SHMQ_GONE);
	shmq_requester_close(r);
	tear_down();
}

/* Level-triggered, one call each time it is readable. */
TEST(its_descriptor_is_readable_as_long_as_there_are_outcomes)
{
	enum { MANY = 5 };
	struct pollfd p = { .events = POLLIN };
	struct shmq_reply reply;
	shmq_requester *r;
	shmq_responder *s;
	int i, told = 0, rc;

	set_up();
	r = open_requester(bus, "svc");
	s = open_responder(other, "svc");
	CHECK_GE(p.fd = shmq_requester_fd(r), 0);
	for (i = 0; i < MANY; i++) {
		ask(r, "x", PATIENCE);
		hear(s, "x");
	}
	shmq_responder_close(s);
	while (told < MANY && poll(&p, 1, 60000) == 1) {
		rc = shmq_requester_next(r, &reply, SHMQ_NOWAIT);
		CHECK(!rc || rc == SHMQ_EEMPTY);
		if (!rc)
			CHECK_EQ(reply.outcome, SHMQ_GONE);
		told += !rc;
	}
	CHECK_EQ(told, MANY);
	shmq_requester_close(r);
	tear_down();
}

TEST(options_and_names_are_checked)
{
	char name[SHMQ_NAME_MAX + 1];
	shmq_requester *r;

	set_up();
	CHECK_ERROR(shmq_requester_open(bus, "none", NULL, &r), SHMQ_ENOTOPIC);
	check_says("there is no topic \"none\"");
	CHECK(!r);
	CHECK_ERROR(shmq_requester_open(bus, "svc", REQUESTER_OPTIONS(.open_max = 4097), &r),
		    SHMQ_EOPTION);
	CHECK_ERROR(shmq_requester_open(bus, "svc",
					REQUESTER_OPTIONS(.max_reply_bytes = (16 << 20) + 1), &r),
		    SHMQ_EOPTION);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	create(bus, name, .depth = 1024);
	CHECK_ERROR(shmq_requester_open(bus, name, NULL, &r), SHMQ_ENAME);
	check_says("too long");
	CHECK_EQ(topic_info(bus, name).publishers, 0);
	name[220] = 0;
	create(bus, name, .depth = 1024);
	CHECK_OK(shmq_requester_open(bus, name, NULL, &r));
	/* Whoever closes the bus closes it. */
	CHECK_EQ(reply_topics(bus), 1);
	shmq_bus_close(bus);
	bus = test_bus_open();
	tear_down();
}

TEST(it_ends_with_the_bus)
{
	struct shmq_reply reply;
	shmq_requester *r;

	set_up();
	r = open_requester(bus, "svc");
	CHECK_OK(shmq_bus_stop(other, SHMQ_FORCE));
	CHECK_ERROR(shmq_requester_next(r, &reply, PATIENCE), SHMQ_EENDED);
	shmq_requester_close(r);
	shmq_bus_close(bus);
	shmq_bus_close(other);
	test_bus_await_end();
	test_bus_stop();
}
