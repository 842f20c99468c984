/* SPDX-License-Identifier: MIT
 *
 * Those who ask and those who answer are killed, and the supervisor with them: each
 * request has one outcome, the true one, and nothing of the dead is left.
 */
#include "../lib/asking.h"

#include <sched.h>

struct stage {
	_Atomic int at;
	_Atomic unsigned heard, answered;
};
static struct stage *stage;

static void set_up(void)
{
	stage = shared_memory(sizeof(*stage));
	test_bus_start();
}

/* Until it is killed. */
static int hang(void)
{
	while (!pause() || errno == EINTR)
		;
	return 1;
}

static int hears_and_hangs(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_responder *s = open_responder(bus, "svc");
	struct shmq_request q;

	(void)arg;
	reach(&stage->at, 1);
	q = hear(s, "answered");
	answer(s, &q, "yes");
	hear(s, "not answered");
	reach(&stage->at, 2);
	return hang();
}

/* Asleep, it hears of it by the death itself. */
TEST(a_responder_that_is_killed_is_told_at_once)
{
	shmq_bus *bus;
	shmq_requester *r;
	struct shmq_reply reply;
	uint64_t id[3];
	pid_t pid;

	set_up();
	bus = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED);
	r = open_requester(bus, "svc", .wait = SHMQ_WAIT_SLEEP);
	pid = test_spawn(hears_and_hangs, NULL);
	id[0] = ask(r, "answered", PATIENCE);
	id[1] = ask(r, "not answered", SHMQ_FOREVER);
	id[2] = ask(r, "not taken", 200 * MILLISECOND);
	await(&stage->at, 2);
	CHECK_EQ(test_kill_wait(pid, SIGKILL), 128 + SIGKILL);
	reply = outcome(r, id[0], SHMQ_REPLIED);
	says(&reply, "yes");
	CHECK_OK(shmq_requester_next(r, &reply, PATIENCE));
	if (reply.id == id[2]) { /* on a slow machine */
		CHECK_EQ(reply.outcome, SHMQ_TIMED_OUT);
		outcome(r, id[1], SHMQ_GONE);
	} else {
		CHECK_EQ(reply.id, id[1]);
		CHECK_EQ(reply.outcome, SHMQ_GONE);
		reply = outcome(r, id[2], SHMQ_TIMED_OUT);
		CHECK(!reply.is_taken);
	}
	shmq_requester_close(r);
	await_reply_topics(bus, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int answers_when_it_goes_on(void *arg)
{
	struct shmq_msg msg = text("too late");
	shmq_bus *bus = test_bus_open();
	shmq_responder *s = open_responder(bus, "svc");
	struct shmq_request q;

	(void)arg;
	reach(&stage->at, 1);
	q = hear(s, "first");
	reach(&stage->at, 2);
	await(&stage->at, 3);
	CHECK_ERROR(shmq_responder_reply(s, &q, &msg), SHMQ_ETIMEOUT);
	q = hear(s, "second");
	CHECK_ERROR(shmq_responder_reply(s, &q, &msg), SHMQ_ETIMEOUT);
	q = hear(s, "third");
	answer(s, &q, "in time");
	shmq_bus_close(bus);
	return 0;
}

/* It is alive: nobody waits for it longer than was asked, and it goes on after. */
TEST(a_responder_that_is_stopped_lets_requests_time_out)
{
	struct shmq_reply reply;
	shmq_requester *r;
	uint64_t id[2];
	shmq_bus *bus;
	pid_t pid;

	set_up();
	bus = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED);
	pid = test_spawn(answers_when_it_goes_on, NULL);
	await(&stage->at, 1);
	r = open_requester(bus, "svc");
	id[0] = ask(r, "first", 300 * MILLISECOND * test_slowdown());
	await(&stage->at, 2);
	CHECK_OK(kill(pid, SIGSTOP));
	id[1] = ask(r, "second", 300 * MILLISECOND * test_slowdown());
	reply = outcome(r, id[0], SHMQ_TIMED_OUT);
	CHECK(reply.is_taken);
	reply = outcome(r, id[1], SHMQ_TIMED_OUT);
	CHECK(!reply.is_taken);
	reach(&stage->at, 3);
	CHECK_OK(kill(pid, SIGCONT));
	id[0] = ask(r, "third", PATIENCE);
	reply = outcome(r, id[0], SHMQ_REPLIED);
	says(&reply, "in time");
	CHECK_EQ(test_join(pid), 0);
	CHECK_EQ(asked_stats(r).late, 0);
	shmq_requester_close(r);
	await_reply_topics(bus, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int asks_and_hangs(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_requester *r = open_requester(bus, "svc");

	(void)arg;
	ask(r, "x", SHMQ_FOREVER);
	ask(r, "y", SHMQ_FOREVER);
	reach(&stage->at, 1);
	return hang();
}

TEST(a_requester_that_is_killed_leaves_no_topic)
{
	struct shmq_msg msg = text("too late");
	struct shmq_request q[2];
	shmq_responder *s;
	shmq_bus *bus;
	pid_t pid;

	set_up();
	bus = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED);
	s = open_responder(bus, "svc");
	pid = test_spawn(asks_and_hangs, NULL);
	await(&stage->at, 1);
	q[0] = hear(s, "x");
	CHECK_OK(q[0].error);
	CHECK_EQ(test_kill_wait(pid, SIGKILL), 128 + SIGKILL);
	while (shmq_responder_reply(s, &q[0], &msg) != SHMQ_EPEERDEAD)
		test_sleep_ms(1);
	await_reply_topics(bus, 0);
	q[1] = hear(s, "y");
	CHECK_EQ(q[1].error, SHMQ_EPEERDEAD);
	shmq_responder_close(s);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Those that are made and not yet opened when their maker dies, too: wherever it
 * stands. */
static int opens_again_and_again(void *arg)
{
	shmq_bus *bus = test_bus_open();

	(void)arg;
	reach(&stage->at, 1);
	while (bus)
		shmq_requester_close(open_requester(bus, "svc", .open_max = 1));
	return 1;
}

static void run_makers(const char *role)
{
	int i, kills = 24;
	shmq_bus *bus;

	set_up();
	bus = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED);
	for (i = 0; i < kills; i++) {
		pid_t pid;

		atomic_store(&stage->at, 0);
		pid = test_spawn(opens_again_and_again, NULL);
		await(&stage->at, 1);
		test_sleep_ms(i % 7);
		if (role && i % 8 == 5)
			test_bus_kill(role);
		CHECK_EQ(test_kill_wait(pid, SIGKILL), 128 + SIGKILL);
	}
	await_reply_topics(bus, 0);
	while (topic_info(bus, "svc").publishers)
		test_sleep_ms(1);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(whoever_dies_while_it_opens_leaves_no_topic, 60)
{
	run_makers(NULL);
}

TEST_WITHIN(nor_if_the_supervisor_dies_with_it, 60)
{
	run_makers("control");
}

/* ---- who has its answer closes ------------------------------------------ */

enum { CALLS = 300 };

static int calls_and_closes(void *arg)
{
	shmq_bus *bus = test_bus_open();
	int i;

	(void)arg;
	for (i = 0; i < CALLS; i++) {
		shmq_requester *r = open_requester(bus, "svc", .wait = SHMQ_WAIT_SLEEP);
		struct shmq_msg msg = text("x");

		CHECK_OK(shmq_requester_call(r, &msg, NULL, PATIENCE));
		shmq_requester_close(r);
	}
	shmq_bus_close(bus);
	return 0;
}

/* On one processor, whoever is woken by the answer has closed before the responder
 * goes on. */
static void share_a_processor(void)
{
	cpu_set_t all, one;
	int cpu = 0;

	CHECK_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
}

TEST(an_answer_that_was_read_by_who_closes_then_is_sent)
{
	struct shmq_request q;
	shmq_responder *s;
	shmq_bus *bus;
	pid_t pid;
	int i;

	share_a_processor();
	set_up();
	bus = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED);
	s = open_responder(bus, "svc");
	pid = test_spawn(calls_and_closes, NULL);
	for (i = 0; i < CALLS; i++) {
		q = hear(s, "x");
		answer(s, &q, "y");
	}
	CHECK_EQ(answered_stats(s).gone, 0);
	CHECK_EQ(answered_stats(s).replied, CALLS);
	CHECK_EQ(test_join(pid), 0);
	shmq_responder_close(s);
	await_reply_topics(bus, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- all of it at once --------------------------------------------------- */

enum { REQUESTS = 4000, OPEN = 64 };

static int echoes(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_responder *s = open_responder(bus, "svc");
	struct shmq_request q;

	(void)arg;
	atomic_fetch_add(&stage->at, 1);
	for (;;) {
		struct shmq_msg msg;
		int rc = shmq_responder_receive(s, &q, SHMQ_FOREVER);

		if (rc == SHMQ_EENDED)
			break;
		CHECK_OK(rc);
		msg = (struct shmq_msg){ .data = q.msg.data, .len = q.msg.len };
		atomic_fetch_add(&stage->heard, 1);
		rc = q.error ? q.error : shmq_responder_reply(s, &q, &msg);
		CHECK(!rc || rc == SHMQ_EPEERDEAD);
		atomic_fetch_add(&stage->answered, !rc);
	}
	shmq_bus_close(bus);
	return 0;
}

/* Of two responders one is killed all the time, and so is the worker: the other
 * answers everything. */
TEST_WITHIN(with_one_responder_that_lives_everything_is_answered, 120)
{
	static uint64_t sent_as[2 * OPEN];
	unsigned sent = 0, replied = 0, late = 0, kills = 0;
	struct shmq_reply reply;
	shmq_requester *r;
	pid_t steady, victim;
	shmq_bus *bus;

	set_up();
	bus = test_bus_open();
	create(bus, "svc", .depth = 1024, .mode = SHMQ_SHARED);
	/* Room for what one of them sends that is as far behind as can be. */
	r = open_requester(bus, "svc", .open_max = 1024);
	steady = test_spawn(echoes, NULL);
	victim = test_spawn(echoes, NULL);
	await(&stage->at, 2);
	while (replied < REQUESTS) {
		uint64_t value = 0;

		while (sent < REQUESTS && sent - replied < OPEN) {
			struct shmq_msg msg;
			uint64_t id;

			value = sent;
			msg = (struct shmq_msg){ .data = &value, .len = sizeof(value) };
			CHECK_OK(shmq_requester_send(r, &msg, PATIENCE, &id));
			sent_as[id % COUNT(sent_as)] = sent++;
		}
		CHECK_OK(shmq_requester_next(r, &reply, PATIENCE));
		if (reply.outcome == SHMQ_LATE) {
			late++;
			continue;
		}
		CHECK_EQ(reply.outcome, SHMQ_REPLIED);
		memcpy(&value, reply.msg.data, sizeof(value));
		CHECK_EQ(value, sent_as[reply.id % COUNT(sent_as)]);
		if (++replied % 400)
			continue;
		kills++;
		if (kills % 5 == 3)
			test_bus_kill("control");
		CHECK_EQ(test_kill_wait(victim, SIGKILL), 128 + SIGKILL);
		victim = test_spawn(echoes, NULL);
	}
	CHECK_EQ(asked_stats(r).replied, REQUESTS);
	NOTE("%u late, %u heard, %u killed", late, atomic_load(&stage->heard), kills);
	shmq_requester_close(r);
	CHECK_OK(shmq_topic_remove(bus, "svc", SHMQ_FORCE));
	CHECK_EQ(test_join(steady), 0);
	test_kill_wait(victim, SIGKILL);
	await_reply_topics(bus, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
