/* SPDX-License-Identifier: MIT
 *
 * Requests to a supervisor that answers out of step, falls silent, or dies
 * between the request and its answer; and what is said from the data path.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"

#include <fcntl.h>

TEST(an_answer_out_of_step_breaks_the_connection_and_the_next_request_mends_it)
{
	static standin_change *const bad[] = {
		wrong_magic,        wrong_version, wrong_op, wrong_token,
		success_above_zero, too_short,     too_long,
	};
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	for (size_t i = 0; i < COUNT(bad); i++) {
		standin_change_answers(s, PROTO_PLAN, bad[i], NULL);
		CHECK_ERROR(ask(bus), SHMQ_EDAEMON);
		check_says("the supervisor of bus \"fake\"");
		standin_change_answers(s, PROTO_PLAN, NULL, NULL);
		CHECK_OK(ask(bus));
		CHECK_STR(shmq_bus_error(bus), "");
		CHECK_EQ(shmq_bus_is_attached(bus), 1);
		CHECK_EQ(shmq_bus_reattach_count(bus), i + 1);
		await_event(bus, SHMQ_EVENT_DETACHED, 0);
		await_event(bus, SHMQ_EVENT_REATTACHED, 0);
	}
	CHECK_EQ(shmq_bus_client_id(bus), 1);
	shmq_bus_close(bus);
	standin_free(s);
}

static void refuse_in_colour(struct standin_answer *a, void *arg)
{
	a->reply.error = SHMQ_ELIMIT;
	memset(a->reply.why, 'x', sizeof(a->reply.why));
	memcpy(a->reply.why, "\033[31m\nno", 9);
}

TEST(what_a_supervisor_says_tells_no_terminal_what_to_do)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	standin_change_answers(s, PROTO_PLAN, refuse_in_colour, NULL);
	CHECK_ERROR(ask(bus), SHMQ_ELIMIT);
	check_says("?[31m?no");
	CHECK(!strchr(shmq_bus_error(bus), '\033'));
	shmq_bus_close(bus);
	standin_free(s);
}

static void say_it_twice(struct standin_answer *a, void *arg)
{
	a->copies = 2;
}

TEST(an_answer_that_nobody_asked_for_is_not_taken_for_the_next)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	standin_change_answers(s, PROTO_PLAN, say_it_twice, NULL);
	CHECK_OK(ask(bus));
	standin_change_answers(s, PROTO_PLAN, NULL, NULL);
	CHECK_ERROR(ask(bus), SHMQ_EDAEMON);
	CHECK_OK(ask(bus));
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_supervisor_that_falls_silent_is_not_waited_for_longer_than_asked)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	standin_change_answers(s, PROTO_PLAN, say_nothing, NULL);
	bus->timeout_ns = MILLISECOND;
	CHECK_ERROR(ask(bus), SHMQ_EDAEMON);
	check_says("timed out");
	bus->timeout_ns = PATIENCE;
	standin_change_answers(s, PROTO_PLAN, NULL, NULL);
	CHECK_OK(ask(bus));
	CHECK_EQ(shmq_bus_reattach_count(bus), 1);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_request_whose_answer_was_lost_is_asked_again_and_is_the_same)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	unsigned left = 3;
	shmq_sub *sub;

	standin_change_answers(s, PROTO_OPEN, die_once, &left);
	sub = open_sub(bus, STANDIN_TOPIC);
	CHECK_EQ(standin_count(s, PROTO_OPEN), 4);
	CHECK_EQ(shmq_bus_reattach_count(bus), 3);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).subscribers, 1);
	CHECK_EQ(peers_of(bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).count, 1);
	shmq_sub_close(sub);
	check_empty(s);
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

static void descriptor_too_many(struct standin_answer *a, void *arg)
{
	CHECK_EQ(a->fd_count, 0);
	a->fds[a->fd_count++] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

TEST(descriptors_that_an_answer_does_not_announce_are_closed)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	int fds = count_fds(s);

	standin_change_answers(s, PROTO_PLAN, descriptor_too_many, NULL);
	CHECK_ERROR(ask(bus), SHMQ_EPROTO);
	CHECK_EQ(count_fds(s), fds);
	CHECK_EQ(shmq_bus_is_attached(bus), 1);
	/* Answers to what the library says by itself, too. */
	standin_change_answers(s, PROTO_CLOSE, descriptor_too_many, NULL);
	check_works(bus);
	fds = count_fds(s);
	check_works(bus);
	CHECK_EQ(count_fds(s), fds);
	standin_change_answers(s, PROTO_GOODBYE, descriptor_too_many, NULL);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- what is said from the data path --------------------------------- */

static void report(shmq_bus *bus)
{
	struct proto_request req;

	shmq__bus_prepare(bus, &req, PROTO_REPORT, STANDIN_TOPIC);
	shmq__bus_notify(bus, &req);
}

static void *report_from_a_thread(void *arg)
{
	report(arg);
	return NULL;
}

TEST(a_report_waits_for_nobody)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 1);
	pthread_mutex_lock(&bus->lock); /* another call is on its way */
	fake_join(fake_thread(report_from_a_thread, bus));
	pthread_mutex_unlock(&bus->lock);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 1);
	standin_change_answers(s, PROTO_REPORT, say_nothing, NULL);
	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 2);
	CHECK_EQ(shmq_bus_is_attached(bus), 0);
	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 2);
	CHECK_OK(ask(bus));
	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 3);
	shmq_bus_close(bus);
	standin_free(s);
}
