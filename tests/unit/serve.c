/* SPDX-License-Identifier: MIT
 *
 * Who serves, the thread of the library or the caller, comes back to a
 * supervisor that was away, and makes the deferred wakes.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"

#include <poll.h>

/* ---- away and back --------------------------------------------------- */

TEST(the_thread_of_the_library_comes_back_by_itself)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
	struct shmq_msg msg;

	for (int n = 1; n <= 3; n++) {
		standin_leave(s);
		await_event(bus, SHMQ_EVENT_DETACHED, 0);
		CHECK_EQ(shmq_bus_is_attached(bus), 0);
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_MEM(msg.data, &n, sizeof(n));
		standin_return(s);
		await_event(bus, SHMQ_EVENT_REATTACHED, 0);
		CHECK_EQ(shmq_bus_is_attached(bus), 1);
		CHECK_EQ(shmq_bus_reattach_count(bus), n);
		CHECK_EQ(standin_last(s, PROTO_HELLO).hello.bus_nonce, STANDIN_NONCE);
	}
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	check_empty(s);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_caller_that_serves_comes_back_when_it_serves)
{
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .serve = SHMQ_SERVE_CALLER };
	struct pollfd p = { .events = POLLIN };
	struct shmq_event event;
	shmq_bus *bus;

	CHECK_OK(standin_open(s, &o, &bus));
	p.fd = shmq_bus_fd(bus);
	CHECK_GE(p.fd, 0);
	while (poll(&p, 1, 0) > 0)
		CHECK_EQ(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
	CHECK_ERROR(shmq_bus_event(bus, &event, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_bus_event(bus, &event, MILLISECOND), SHMQ_ETIMEOUT);
	standin_cut(s);
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	CHECK_EQ(shmq_bus_serve(bus, PATIENCE), 1);
	CHECK_EQ(shmq_bus_reattach_count(bus), 1);
	while (poll(&p, 1, 0) > 0)
		CHECK_EQ(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
	/* The socket that took the place of the old one is listened to. */
	standin_cut(s);
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	CHECK_OK(shmq_bus_event(bus, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_DETACHED);
	shmq_bus_close(bus);
	bus = standin_bus(s);
	CHECK_EQ(shmq_bus_fd(bus), -1);
	CHECK_ERROR(shmq_bus_serve(bus, SHMQ_NOWAIT), SHMQ_EOPTION);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- deferred wakes -------------------------------------------------- */

TEST(the_thread_looks_as_often_as_the_most_impatient_publisher_that_is_open_asks)
{
	struct standin *s = standin_new(&(struct fake_options){ .mode = SHMQ_SHARED });
	shmq_bus *bus = standin_bus(s);
	shmq_pub *patient, *hasty, *usual;

	CHECK_EQ(atomic_load(&bus->wake_ns), 0);
	patient = open_pub(bus, STANDIN_TOPIC, .wake = SHMQ_WAKE_DEFERRED, .wake_ns = SECOND);
	CHECK_EQ(atomic_load(&bus->wake_ns), SECOND);
	hasty = open_pub(bus, STANDIN_TOPIC, .wake = SHMQ_WAKE_DEFERRED, .wake_ns = MILLISECOND);
	CHECK_EQ(atomic_load(&bus->wake_ns), MILLISECOND);
	usual = open_pub(bus, STANDIN_TOPIC, .wake = SHMQ_WAKE_DEFERRED);
	CHECK_EQ(atomic_load(&bus->wake_ns), 50000);
	shmq_pub_close(usual);
	CHECK_EQ(atomic_load(&bus->wake_ns), MILLISECOND);
	shmq_pub_close(hasty);
	CHECK_EQ(atomic_load(&bus->wake_ns), SECOND);
	shmq_pub_close(patient);
	CHECK_EQ(atomic_load(&bus->wake_ns), 0);
	shmq_bus_close(bus);
	standin_free(s);
}
