/* SPDX-License-Identifier: MIT
 *
 * Whatever of the supervisor is killed, and however often: publishers and
 * subscribers at full speed lose nothing and go on.
 */
#include "traffic.h"

enum { KILL_MS = 100, DEATHS_QUICK = 45, DEATHS_TORTURE = 600 };

/* Each in its turn. */
static struct {
	const char *role; /* NULL: all at once, and then another start */
	unsigned killed;
} victim[] = {
	{ .role = "control" },
	{ .role = "tailer" },
	{ .role = "parent" },
	{ .role = NULL },
};

static void kill_one(unsigned turn)
{
	unsigned i = turn % COUNT(victim);

	victim[i].killed += (unsigned)test_bus_kill(victim[i].role);
	if (!victim[i].role)
		test_bus_launch();
}

static int accepts(void *arg)
{
	(void)arg;
	return test_bus_accepts();
}

TEST_WITHIN(whatever_of_the_supervisor_is_killed_ten_times_a_second_nothing_is_lost, 240)
{
	unsigned deaths = getenv("SHMQ_TORTURE") ? DEATHS_TORTURE : DEATHS_QUICK;
	struct shmq_bus_info info;
	struct traffic *t;
	struct kept *kept;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	kept = kept_start(bus);
	t = traffic_start(bus, .at_full_speed = 1);
	traffic_await_flow(t);
	for (unsigned n = 0; n < deaths; n++) {
		kill_one(n);
		test_sleep_ms(KILL_MS);
	}
	CHECK(test_wait_until(accepts, NULL, 20000));
	traffic_await_flow(t);
	CHECK_EQ(topic_info(bus, "t").publishers, 1);
	CHECK_EQ(topic_info(bus, "t").subscribers, 1);
	traffic_check_opens(bus);
	traffic_stop(t);
	kept_stop(kept, bus);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_GT(info.epoch, 1);
	for (unsigned i = 0; i < COUNT(victim); i++) {
		CHECK_GT(victim[i].killed, 0);
		NOTE("%s: %u killed", victim[i].role ?: "all at once", victim[i].killed);
	}
	NOTE("%llu messages, %llu workers served them, clients came back %d and %d times",
	     (unsigned long long)atomic_load(&t->received), (unsigned long long)info.epoch,
	     atomic_load(&t->reattached[0]), atomic_load(&t->reattached[1]));
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	shmq_bus_close(bus);
	test_bus_stop();
}
