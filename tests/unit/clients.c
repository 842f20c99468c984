/* SPDX-License-Identifier: MIT
 *
 * Who is attached, with what.
 */
#include "helpers.h"
#include "memory.h"

static shmq_bus *bus, *other;

static void set_up(void)
{
	test_bus_start();
	bus = test_bus_open();
	other = test_bus_open();
}

static void tear_down(void)
{
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

struct clients {
	unsigned count;
	struct shmq_client_info all[16];
};

static int keep_client(void *arg, const struct shmq_client_info *client)
{
	struct clients *to = arg;

	CHECK_LT(to->count, COUNT(to->all));
	to->all[to->count++] = *client;
	return 0;
}

static struct shmq_client_info client_of(shmq_bus *of)
{
	struct clients clients = { 0 };
	unsigned i;

	CHECK_OK(shmq_client_each(bus, keep_client, &clients));
	for (i = 0; i < clients.count; i++)
		if (clients.all[i].client_id == shmq_bus_client_id(of))
			return clients.all[i];
	FAIL("client %u is not there", shmq_bus_client_id(of));
}

static unsigned count(void)
{
	struct clients clients = { 0 };

	CHECK_OK(shmq_client_each(bus, keep_client, &clients));
	return clients.count;
}

TEST(a_client_is_shown_with_what_it_has_open)
{
	struct shmq_topic_info t, l;
	struct shmq_client_info c;
	struct shmq_msg msg;
	shmq_sub *sub, *pattern;
	shmq_pub *pub[2];
	int i;

	set_up();
	create(bus, "t", .depth = 1024, .partitions = 3, .mode = SHMQ_SHARED);
	create(bus, "large", .depth = 1024, .max_message_bytes = 100000);
	t = topic_info(bus, "t");
	l = topic_info(bus, "large");
	c = client_of(other);
	CHECK_EQ(c.topics + c.publishers + c.subscribers + c.patterns, 0);
	CHECK_EQ(c.pid, getpid());
	CHECK_EQ(c.uid, geteuid());
	CHECK_EQ(c.is_dead + c.is_own, 0);
	CHECK_NE(c.name[0], 0);
	pub[0] = open_pub(other, "t");
	pub[1] = open_pub(other, "large");
	sub = open_sub(other, "t");
	for (i = 0; i < 30; i++)
		CHECK_OK(shmq_publish(pub[0], "x", 1));
	CHECK_OK(shmq_publish(pub[1], "x", 1));
	for (i = 0; i < 20; i++)
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	c = client_of(other);
	CHECK_EQ(c.topics, 2);
	CHECK_EQ(c.publishers, 2);
	CHECK_EQ(c.subscribers, 1);
	CHECK_EQ(c.patterns, 0);
	CHECK_EQ(c.sent, 31);
	CHECK_EQ(c.received, 20);
	CHECK_EQ(c.lost, 0);
	CHECK_EQ(c.ring_bytes, t.ring_bytes + l.ring_bytes);
	CHECK_EQ(c.arena_bytes, topic_info(bus, "large").arena_bytes);
	CHECK_GT(c.arena_bytes, 0);
	CHECK_GT(c.page_bytes, 0);
	/* A pattern has both, each by a handle. */
	pattern = open_sub(other, "#");
	c = client_of(other);
	CHECK_EQ(c.patterns, 1);
	CHECK_EQ(c.subscribers, 3);
	CHECK_EQ(c.topics, 2);
	CHECK_EQ(client_of(bus).topics, 0);
	shmq_sub_close(pattern);
	shmq_sub_close(sub);
	shmq_pub_close(pub[0]);
	shmq_pub_close(pub[1]);
	c = client_of(other);
	CHECK_EQ(c.topics + c.publishers + c.subscribers + c.patterns, 0);
	tear_down();
}

static int stop_at_once(void *arg, const struct shmq_client_info *client)
{
	(void)client;
	++*(unsigned *)arg;
	return 7;
}

TEST(who_leaves_is_shown_no_more_and_a_visitor_may_stop)
{
	unsigned visits = 0, before;
	shmq_bus *third;

	set_up();
	before = count();
	third = test_bus_open();
	CHECK_EQ(count(), before + 1);
	CHECK_EQ(shmq_client_each(bus, stop_at_once, &visits), 7);
	CHECK_EQ(visits, 1);
	shmq_bus_close(third);
	CHECK_EQ(count(), before);
	tear_down();
}

TEST(the_bus_has_clients_of_its_own)
{
	struct clients clients;
	unsigned i, own = 0;
	int64_t deadline;

	set_up();
	create(bus, "log", .depth = 1024, .log = SHMQ_LOG_BLOCK);
	/* What writes its log comes by and by. */
	deadline = test_now_ns() + PATIENCE;
	while (!own && test_now_ns() < deadline) {
		clients.count = 0;
		CHECK_OK(shmq_client_each(bus, keep_client, &clients));
		for (i = 0; i < clients.count; i++)
			own += clients.all[i].is_own && clients.all[i].subscribers;
		test_sleep_ms(1);
	}
	CHECK_EQ(own, 1);
	tear_down();
}

TEST(it_needs_memory_but_no_supervisor)
{
	unsigned k, before;

	set_up();
	before = count();
	test_bus_kill(NULL);
	CHECK_EQ(count(), before);
	for (k = 1;; k++) {
		struct clients clients = { 0 };
		int rc;

		scarce_begin(k);
		rc = shmq_client_each(bus, keep_client, &clients);
		if (!scarce_end())
			break;
		CHECK_ERROR(rc, -ENOMEM);
		CHECK_EQ(clients.count, 0);
	}
	CHECK_EQ(k, 4);
	test_bus_restart();
	tear_down();
}
