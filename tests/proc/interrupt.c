/* SPDX-License-Identifier: MIT
 *
 * Whoever waits on a bus is told to stop: every call that waits comes back, from sleep and
 * from spinning, whichever thread says so, and from a handler of signals.
 */
#include "asking.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

enum { DEPTH = 1024 };

static shmq_bus *open_interruptible(enum shmq_serve_mode serve)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = serve, .interruptible = 1 };
	shmq_bus *bus;

	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	return bus;
}

struct wait {
	shmq_bus *bus;
	enum shmq_wait how;
	long long rc;
	int (*call)(struct wait *w, int64_t timeout_ns);
};

static int receive(struct wait *w, int64_t timeout_ns)
{
	shmq_sub *sub = open_sub(w->bus, "empty", .wait = w->how);
	struct shmq_msg msg;
	int rc = shmq_receive(sub, &msg, timeout_ns);

	shmq_sub_close(sub);
	return rc;
}

static int receive_pattern(struct wait *w, int64_t timeout_ns)
{
	shmq_sub *sub = open_sub(w->bus, "empty.#", .wait = w->how, .flags = SHMQ_SUB_CONFLATE);
	struct shmq_msg msg;
	int rc = shmq_receive(sub, &msg, timeout_ns);

	shmq_sub_close(sub);
	return rc;
}

static int never(void *arg, const struct shmq_msg *msg)
{
	(void)arg;
	(void)msg;
	FAIL("there is a message");
}

static int poll_for(struct wait *w, int64_t timeout_ns)
{
	shmq_sub *sub = open_sub(w->bus, "parts", .wait = w->how);
	int rc = (int)shmq_poll(sub, never, NULL, 1, timeout_ns);

	shmq_sub_close(sub);
	return rc;
}

static int wait_on_set(struct wait *w, int64_t timeout_ns)
{
	shmq_sub *ready[2], *one = open_sub(w->bus, "empty", .wait = w->how),
			    *two = open_sub(w->bus, "parts", .wait = w->how);
	shmq_waitset *set;
	int rc;

	CHECK_OK(shmq_waitset_create(w->bus, &set));
	CHECK_OK(shmq_waitset_add(set, one));
	CHECK_OK(shmq_waitset_add(set, two));
	rc = shmq_waitset_wait(set, ready, 2, timeout_ns);
	shmq_waitset_destroy(set);
	shmq_sub_close(one);
	shmq_sub_close(two);
	return rc;
}

static int publish(struct wait *w, int64_t timeout_ns)
{
	shmq_pub *pub =
		open_pub(w->bus, "full", .wait = w->how, .flags = timeout_ns ? 0 : SHMQ_DONTWAIT);
	struct shmq_pub_stats before = pub_stats(pub);
	int rc = shmq_publish(pub, "x", 1);

	CHECK_EQ(pub_stats(pub).sent, before.sent);
	shmq_pub_close(pub);
	return rc == SHMQ_EFULL ? SHMQ_EEMPTY : rc;
}

static int publish_batch(struct wait *w, int64_t timeout_ns)
{
	shmq_pub *pub =
		open_pub(w->bus, "full", .wait = w->how, .flags = timeout_ns ? 0 : SHMQ_DONTWAIT);
	struct shmq_msg msgs[2] = { { .data = "x", .len = 1 }, { .data = "y", .len = 1 } };
	int rc = (int)shmq_publish_batch(pub, msgs, 2, SHMQ_ATOMIC);

	shmq_pub_close(pub);
	return rc == SHMQ_EFULL ? SHMQ_EEMPTY : rc;
}

static int wait_subscribers(struct wait *w, int64_t timeout_ns)
{
	shmq_pub *pub = open_pub(w->bus, "empty", .wait = w->how);
	int rc = shmq_pub_wait_subscribers(pub, 9, timeout_ns);

	shmq_pub_close(pub);
	return rc == SHMQ_ETIMEOUT ? SHMQ_EEMPTY : rc;
}

static int wait_confirm(struct wait *w, int64_t timeout_ns)
{
	shmq_pub *pub = open_pub(w->bus, "kept", .wait = w->how);
	int rc = shmq_pub_wait_confirm(pub, 0, 1000, SHMQ_WRITTEN, timeout_ns);

	shmq_pub_close(pub);
	return rc;
}

static int request(struct wait *w, int64_t timeout_ns)
{
	shmq_requester *r = open_requester(w->bus, "asked", .wait = w->how);
	struct shmq_msg msg = text("hello");
	int rc = shmq_requester_call(r, &msg, NULL, timeout_ns);

	CHECK_EQ(asked_stats(r).open, 0);
	shmq_requester_close(r);
	return rc == SHMQ_ETIMEOUT || rc == SHMQ_EFULL ? SHMQ_EEMPTY : rc;
}

static int respond(struct wait *w, int64_t timeout_ns)
{
	shmq_responder *r = open_responder(w->bus, "empty");
	struct shmq_request q;
	int rc = shmq_responder_receive(r, &q, timeout_ns);

	shmq_responder_close(r);
	return rc;
}

static int hear_event(struct wait *w, int64_t timeout_ns)
{
	struct shmq_event event;
	int rc;

	do /* of those that others caused */
		rc = shmq_bus_event(w->bus, &event, timeout_ns);
	while (!rc);
	return rc;
}

static void *wait_on(void *arg)
{
	struct wait *w = arg;

	w->rc = w->call(w, SHMQ_FOREVER);
	return NULL;
}

static int (*const calls[])(struct wait *, int64_t) = {
	receive,          receive_pattern, poll_for, wait_on_set, publish,    publish_batch,
	wait_subscribers, wait_confirm,    request,  respond,     hear_event,
};
enum { CALLS = sizeof(calls) / sizeof(*calls) };

/* Topics that keep whoever uses them waiting. */
static void prepare(shmq_bus *other)
{
	shmq_pub *pub;

	create(other, "empty", .depth = DEPTH, .mode = SHMQ_SHARED);
	create(other, "parts", .depth = DEPTH, .partitions = 3);
	create(other, "full", .depth = DEPTH, .mode = SHMQ_SHARED);
	create(other, "kept", .depth = DEPTH, .mode = SHMQ_SHARED, .log = SHMQ_LOG_BLOCK);
	create(other, "asked", .depth = DEPTH, .mode = SHMQ_SHARED);
	open_sub(other, "full");
	open_sub(other, "asked");
	pub = open_pub(other, "full");
	for (int i = 0; i < DEPTH; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	shmq_pub_close(pub);
}

/* Each waits on a thread of its own, so that some sleep by then and some do not yet:
 * nobody is told too early. */
static void check_all(enum shmq_wait how)
{
	shmq_bus *other, *bus;
	struct wait w[CALLS];
	pthread_t thread[CALLS];

	test_bus_start();
	other = test_bus_open();
	prepare(other);
	bus = open_interruptible(SHMQ_SERVE_THREAD);
	for (int i = 0; i < CALLS; i++) {
		w[i] = (struct wait){ .bus = bus, .how = how, .call = calls[i] };
		CHECK_EQ(pthread_create(&thread[i], NULL, wait_on, &w[i]), 0);
	}
	if (how == SHMQ_WAIT_SLEEP) {
		await_sleepers(other, "empty", SHMQ_ROLE_SUBSCRIBER, 4);
		await_sleepers(other, "full", SHMQ_ROLE_PUBLISHER, 2);
	}
	CHECK_OK(shmq_bus_interrupt(bus));
	for (int i = 0; i < CALLS; i++) {
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
		NOTE("call %d", i);
		CHECK_EQ(w[i].rc, -EINTR);
		/* It lasts, and is nothing to who does not wait. */
		CHECK_EQ(w[i].call(&w[i], SHMQ_FOREVER), -EINTR);
		if (calls[i] != request && calls[i] != hear_event)
			CHECK_EQ(w[i].call(&w[i], SHMQ_NOWAIT), SHMQ_EEMPTY);
	}
	CHECK_OK(shmq_bus_resume(bus));
	CHECK_EQ(receive(&w[0], 1000), SHMQ_ETIMEOUT);
	CHECK_EQ(wait_on_set(&w[0], 1000), SHMQ_ETIMEOUT);
	shmq_bus_close(bus);
	shmq_bus_close(other);
	test_bus_stop();
}

TEST(whoever_sleeps_is_told_at_once)
{
	check_all(SHMQ_WAIT_SLEEP);
}

TEST(whoever_looks_for_a_while_first_is_told)
{
	check_all(SHMQ_WAIT_ADAPTIVE);
}

TEST(without_waitv_sleepers_hear_of_it_by_and_by)
{
	setenv("SHMQ_NO_WAITV", "1", 1);
	check_all(SHMQ_WAIT_SLEEP);
}

TEST(whoever_spins_is_told)
{
	struct wait w = { .how = SHMQ_WAIT_SPIN };
	pthread_t thread;
	shmq_bus *other;

	test_bus_start();
	other = test_bus_open();
	prepare(other);
	w.bus = open_interruptible(SHMQ_SERVE_THREAD);
	for (int i = 0; i < 5; i++) {
		w.call = calls[i];
		CHECK_EQ(pthread_create(&thread, NULL, wait_on, &w), 0);
		CHECK_OK(shmq_bus_interrupt(w.bus));
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_EQ(w.rc, -EINTR);
		CHECK_OK(shmq_bus_resume(w.bus));
	}
	shmq_bus_close(w.bus);
	shmq_bus_close(other);
	test_bus_stop();
}

static shmq_bus *handled;

static void on_signal(int number)
{
	errno = number;
	CHECK_OK(shmq_bus_interrupt(handled));
	CHECK_EQ(errno, number);
}

TEST(a_handler_of_signals_ends_the_wait_that_it_interrupted)
{
	const struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct wait w = { .how = SHMQ_WAIT_SLEEP, .call = receive };
	pthread_t thread;
	shmq_bus *other;

	test_bus_start();
	other = test_bus_open();
	prepare(other);
	w.bus = handled = open_interruptible(SHMQ_SERVE_THREAD);
	CHECK_OK(sigaction(SIGUSR1, &action, NULL));
	CHECK_EQ(pthread_create(&thread, NULL, wait_on, &w), 0);
	await_sleepers(other, "empty", SHMQ_ROLE_SUBSCRIBER, 1);
	CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(w.rc, -EINTR);
	shmq_bus_close(handled);
	shmq_bus_close(other);
	test_bus_stop();
}

TEST(who_serves_the_bus_itself_is_told)
{
	struct wait w = { .how = SHMQ_WAIT_SLEEP };
	struct shmq_event event;

	test_bus_start();
	w.bus = open_interruptible(SHMQ_SERVE_CALLER);
	CHECK_OK(shmq_bus_interrupt(w.bus));
	CHECK_EQ(shmq_bus_serve(w.bus, SHMQ_FOREVER), -EINTR);
	CHECK_EQ(shmq_bus_event(w.bus, &event, SHMQ_FOREVER), -EINTR);
	CHECK_EQ(shmq_bus_serve(w.bus, SHMQ_NOWAIT), 0);
	CHECK_OK(shmq_bus_resume(w.bus));
	CHECK_ERROR(shmq_bus_event(w.bus, &event, 1000), SHMQ_ETIMEOUT);
	shmq_bus_close(w.bus);
	test_bus_stop();
}

TEST(who_leaves_then_is_not_kept_by_a_supervisor_that_stands_still)
{
	struct shmq_bus_options o = { .size = sizeof(o),
				      .timeout_ns = 600 * SECOND,
				      .interruptible = 1 };
	shmq_bus *bus;

	test_bus_start();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	create(bus, "t", .depth = DEPTH);
	open_sub(bus, "t");
	open_pub(bus, "t");
	CHECK_GE(test_bus_signal("control", SIGSTOP), 1);
	CHECK_OK(shmq_bus_interrupt(bus));
	shmq_bus_close(bus);
	CHECK_GE(test_bus_signal("control", SIGCONT), 1);
	test_bus_stop();
}

static int is_alone(void *bus)
{
	struct shmq_bus_info info;

	return !shmq_bus_get_info(bus, &info) && info.clients == 1 &&
	       !topic_info(bus, "t").subscribers && !topic_info(bus, "t").publishers;
}

/* The process goes on, with the same maps. */
static void leave_one_of_two(int closes_first)
{
	struct shmq_bus_options o = { .size = sizeof(o), .interruptible = 1 };
	shmq_bus *bus, *stays;
	shmq_sub *sub;

	test_bus_start();
	stays = test_bus_open();
	create(stays, "t", .depth = DEPTH);
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	sub = open_sub(bus, "t");
	open_sub(bus, "t");
	open_pub(bus, "t");
	CHECK_GE(test_bus_signal("control", SIGSTOP), 1);
	CHECK_OK(shmq_bus_interrupt(bus));
	if (closes_first)
		shmq_sub_close(sub);
	shmq_bus_close(bus);
	CHECK_GE(test_bus_signal("control", SIGCONT), 1);
	if (!test_wait_until(is_alone, stays, 20000))
		FAIL("%u subscribers, %u publishers are left", topic_info(stays, "t").subscribers,
		     topic_info(stays, "t").publishers);
	shmq_bus_close(stays);
	test_bus_stop();
}

TEST(who_leaves_then_has_left_once_the_supervisor_goes_on)
{
	leave_one_of_two(0);
}

TEST(who_closes_one_handle_and_leaves_then_has_left_too)
{
	leave_one_of_two(1);
}

static _Atomic int heard;

static int note(void *arg, shmq_sub *sub, const struct shmq_msg *msg)
{
	(void)arg;
	(void)sub;
	(void)msg;
	heard++;
	return 0;
}

static void note_error(void *arg, shmq_sub *sub, int error, const struct shmq_msg *msg)
{
	(void)arg;
	(void)sub;
	(void)msg;
	FAIL("a listener was told %d", error);
}

TEST(a_listener_goes_on)
{
	struct shmq_listener_options o = { .size = sizeof(o),
					   .message = note,
					   .error = note_error };
	shmq_listener *listener;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = open_interruptible(SHMQ_SERVE_THREAD);
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_listener_start(sub, &o, &listener));
	CHECK_OK(shmq_bus_interrupt(bus));
	CHECK_OK(shmq_publish(pub, "x", 1));
	await(&heard, 1);
	shmq_listener_stop(listener);
	CHECK_EQ(shmq_receive(sub, &msg, SHMQ_FOREVER), -EINTR);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_that_was_not_opened_for_it_is_not_interrupted)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	CHECK_ERROR(shmq_bus_interrupt(bus), SHMQ_EOPTION);
	CHECK_OK(shmq_bus_resume(bus));
	shmq_bus_close(bus);
	test_bus_stop();
}
