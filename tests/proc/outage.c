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

/* What the tailer writes meanwhile. */
struct kept {
	_Atomic int stop;
	_Atomic uint64_t sent;
};

static int publish_kept(void *arg)
{
	struct kept *k = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "kept");
	uint64_t n = 0;

	while (!atomic_load(&k->stop)) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		atomic_store(&k->sent, ++n);
		if (n % 16 == 0)
			test_sleep_ms(1);
	}
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, n - 1, SHMQ_WRITTEN, PATIENCE));
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static void check_kept(shmq_bus *bus, uint64_t sent)
{
	shmq_sub *sub = open_sub(bus, "kept", .from = SHMQ_FROM_OLDEST);
	struct shmq_msg msg;

	for (uint64_t n = 0; n < sent; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	NOTE("%llu messages are in the log", (unsigned long long)sent);
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
	struct kept *kept = shared_memory(sizeof(*kept));
	struct traffic *t;
	shmq_bus *bus;
	pid_t keeper;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "kept", .depth = TRAFFIC_DEPTH, .log = SHMQ_LOG_BLOCK);
	keeper = test_spawn(publish_kept, kept);
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
	atomic_store(&kept->stop, 1);
	CHECK_EQ(test_join(keeper), 0);
	check_kept(bus, atomic_load(&kept->sent));
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
