/* SPDX-License-Identifier: MIT
 *
 * Where memory really lies, on a machine of two nodes: what a topic shows is
 * compared with what the kernel counts for each node.
 */
#include "deny.h"
#include "guest.h"

#include <sys/stat.h>
#include <sys/syscall.h>

#define HUGE (UINT64_C(2) << 20)

/* A ring of 4 MiB of slots and a header. */
enum { DEPTH = 32768, RING_PAGES = 3, PLENTY = 24, MESSAGES = 2000 };

#define ring_of(...) .depth = DEPTH, ##__VA_ARGS__

static void set_pools(unsigned first, unsigned second)
{
	set_pool(0, first);
	set_pool(1, second);
}

static int are_free(void *arg)
{
	const unsigned *want = arg;

	return free_pages(0) == want[0] && free_pages(1) == want[1];
}

/* What is removed comes back a moment later. */
static void await_free(unsigned first, unsigned second)
{
	unsigned want[NODES] = { first, second };

	if (!test_wait_until(are_free, want, 20000))
		FAIL("%u and %u hugepages are free, not %u and %u", free_pages(0), free_pages(1),
		     first, second);
}

static void check_free(unsigned first, unsigned second)
{
	CHECK_EQ(free_pages(0), first);
	CHECK_EQ(free_pages(1), second);
}

static void check_topic(shmq_bus *bus, const char *topic, int node, uint64_t page_bytes)
{
	struct shmq_topic_info info = topic_info(bus, topic);

	CHECK_EQ(info.node_actual, node);
	CHECK_EQ(info.page_bytes, page_bytes);
}

static void check_note(shmq_bus *bus, const char *topic, const char *text)
{
	struct shmq_topic_info info = topic_info(bus, topic);

	if (!strstr(info.note, text))
		FAIL("the note \"%s\" does not say \"%s\"", info.note, text);
}

/* ---- traffic ----------------------------------------------------------------- */

struct stream {
	const char *topic;
	int node;
};

static int publish(void *arg)
{
	const struct stream *s = arg;
	char buf[100];
	shmq_bus *bus;
	shmq_pub *pub;

	run_on(s->node);
	bus = test_bus_open();
	pub = open_pub(bus, s->topic);
	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (uint64_t n = 0; n < MESSAGES; n++) {
		fill(buf, sizeof(buf), n);
		CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
	}
	shmq_bus_close(bus);
	return 0;
}

/* From a publisher on that node to this process. */
static void check_stream(shmq_bus *bus, const char *topic, int node)
{
	struct stream s = { topic, node };
	shmq_sub *sub = open_sub(bus, topic);
	pid_t child = test_spawn(publish, &s);
	struct shmq_msg msg;

	for (uint64_t n = 0; n < MESSAGES; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.len, 100);
		CHECK(is_filled(msg.data, msg.len, n));
	}
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
}

/* ---- an explicit node --------------------------------------------------------- */

TEST(a_topic_of_hugepages_lies_on_the_node_it_names)
{
	shmq_bus *bus;

	set_pools(PLENTY, PLENTY);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "first", ring_of(.node = SHMQ_NODE(0)));
	check_topic(bus, "first", SHMQ_NODE(0), HUGE);
	check_free(PLENTY - RING_PAGES, PLENTY);
	create(bus, "second", ring_of(.node = SHMQ_NODE(1)));
	check_topic(bus, "second", SHMQ_NODE(1), HUGE);
	check_free(PLENTY - RING_PAGES, PLENTY - RING_PAGES);
	check_stream(bus, "first", 1);
	check_stream(bus, "second", 0);
	CHECK_OK(shmq_topic_remove(bus, "second", 0));
	await_free(PLENTY - RING_PAGES, PLENTY);
	shmq_bus_close(bus);
	test_bus_stop();
	check_free(PLENTY, PLENTY);
}

TEST(a_topic_of_small_pages_lies_on_the_node_it_names)
{
	static const char *const topic[NODES] = { "first", "second" };
	uint64_t before[NODES], ring_bytes;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int n = 0; n < NODES; n++) {
		before[0] = shmem_bytes(0);
		before[1] = shmem_bytes(1);
		/* Large beside what the bus itself may grow by. */
		create(bus, topic[n], .depth = 4 * DEPTH, .node = SHMQ_NODE(n),
		       .pages = SHMQ_PAGES_4K);
		check_topic(bus, topic[n], SHMQ_NODE(n), 4096);
		ring_bytes = topic_info(bus, topic[n]).ring_bytes;
		/* Each processor counts a few pages for itself. */
		CHECK_GT(shmem_bytes(n), before[n] + ring_bytes - ring_bytes / 8);
		CHECK_LT(shmem_bytes(1 - n), before[1 - n] + ring_bytes / 2);
		check_stream(bus, topic[n], 1 - n);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_small_topic_lies_on_the_node_it_names)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "first", .depth = 1024, .node = SHMQ_NODE(0));
	create(bus, "second", .depth = 1024, .node = SHMQ_NODE(1));
	check_topic(bus, "first", SHMQ_NODE(0), 4096);
	check_topic(bus, "second", SHMQ_NODE(1), 4096);
	/* Memory that is used again forgets where it was. */
	for (int n = 0; n < 4; n++) {
		CHECK_OK(shmq_topic_remove(bus, "second", 0));
		create(bus, "second", .depth = 1024, .node = SHMQ_NODE(n % 2));
		check_topic(bus, "second", SHMQ_NODE(n % 2), 4096);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(the_arena_of_a_publisher_lies_on_the_node_of_its_topic)
{
	shmq_bus *bus;
	shmq_pub *pub;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 1 << 20, .node = SHMQ_NODE(1));
	pub = open_pub(bus, "t", .arena_bytes = 4 * HUGE);
	check_free(PLENTY, PLENTY - 4);
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	await_free(PLENTY, PLENTY);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_that_is_moved_stays_on_its_node)
{
	shmq_bus *bus;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", ring_of(.node = SHMQ_NODE(1)));
	CHECK_OK(shmq_topic_move(bus, "t"));
	check_topic(bus, "t", SHMQ_NODE(1), HUGE);
	await_free(PLENTY, PLENTY - RING_PAGES);
	check_stream(bus, "t", 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- the node of the first publisher --------------------------------------------- */

static int publish_one(void *arg)
{
	const struct stream *s = arg;
	shmq_bus *bus;

	run_on(s->node);
	bus = test_bus_open();
	CHECK_OK(shmq_publish(open_pub(bus, s->topic), "one", 3));
	shmq_bus_close(bus);
	return 0;
}

static void publish_from(const char *topic, int node)
{
	struct stream s = { topic, node };

	CHECK_EQ(test_join(test_spawn(publish_one, &s)), 0);
}

TEST(a_topic_follows_its_first_publisher_to_its_node_and_stays_there)
{
	shmq_bus *bus;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "huge", ring_of(.node = SHMQ_NODE_PUBLISHER));
	create(bus, "small", .depth = 1024, .node = SHMQ_NODE_PUBLISHER);
	check_topic(bus, "huge", SHMQ_NODE(0), HUGE);
	check_topic(bus, "small", SHMQ_NODE(0), 4096);
	CHECK(topic_info(bus, "small").locked);
	publish_from("huge", 1);
	publish_from("small", 1);
	check_topic(bus, "huge", SHMQ_NODE(1), HUGE);
	check_topic(bus, "small", SHMQ_NODE(1), 4096);
	CHECK(topic_info(bus, "small").locked);
	check_free(PLENTY, PLENTY - RING_PAGES);
	check_stream(bus, "huge", 0);
	check_stream(bus, "small", 0);
	check_topic(bus, "huge", SHMQ_NODE(1), HUGE);
	check_topic(bus, "small", SHMQ_NODE(1), 4096);
	CHECK_OK(shmq_topic_move(bus, "huge"));
	check_topic(bus, "huge", SHMQ_NODE(1), HUGE);
	check_note(bus, "huge", "");
	CHECK_OK(shmq_topic_remove(bus, "huge", 0));
	await_free(PLENTY, PLENTY);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(the_arena_of_a_first_publisher_lies_on_its_node)
{
	shmq_bus *bus;
	shmq_pub *pub;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 1 << 20, .node = SHMQ_NODE_PUBLISHER);
	run_on(1);
	pub = open_pub(bus, "t", .arena_bytes = 4 * HUGE);
	check_topic(bus, "t", SHMQ_NODE(1), 4096);
	check_free(PLENTY, PLENTY - 4);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* An open of a publisher on some node, with an arena of that size. */
struct opening {
	const char *topic;
	int node, error;
	uint64_t arena_bytes;
	_Atomic int *stage; /* at which it begins, and after which it ends; NULL: at once */
};

static int open_there(void *arg)
{
	const struct opening *o = arg;
	shmq_bus *bus;
	shmq_pub *pub;

	run_on(o->node);
	bus = test_bus_open();
	if (o->stage)
		await(o->stage, 1);
	CHECK_ERROR(shmq_pub_open(bus, o->topic, PUB_OPTIONS(.arena_bytes = o->arena_bytes), &pub),
		    o->error);
	if (!o->error)
		CHECK_OK(shmq_publish(pub, "one", 3));
	if (o->stage)
		await(o->stage, 2);
	shmq_bus_close(bus);
	return 0;
}

static int find_arena_node(void *arg, const struct shmq_peer_info *peer)
{
	int *node = arg;

	if (peer->role == SHMQ_ROLE_PUBLISHER)
		*node++ = peer->arena_node;
	return 0;
}

static int arena_node(shmq_bus *bus, const char *topic)
{
	int node = -1;

	CHECK_OK(shmq_peer_each(bus, topic, find_arena_node, &node));
	return node;
}

TEST(a_publisher_that_is_refused_is_not_the_first)
{
	struct opening refused = { "t", 1, SHMQ_ENOMEMORY, UINT64_C(1) << 36, NULL };
	shmq_bus *bus;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t",
	       ring_of(.max_message_bytes = 1 << 20, .mode = SHMQ_SHARED,
		       .node = SHMQ_NODE_PUBLISHER));
	CHECK_EQ(test_join(test_spawn(open_there, &refused)), 0);
	open_pub(bus, "t", .arena_bytes = 4 * HUGE);
	check_topic(bus, "t", SHMQ_NODE(0), HUGE);
	CHECK_EQ(arena_node(bus, "t"), SHMQ_NODE(0));
	check_free(PLENTY - RING_PAGES - 4, PLENTY);
	CHECK_EQ(strcmp(topic_info(bus, "t").note, ""), 0);
	/* Now it is decided. */
	publish_from("t", 1);
	check_topic(bus, "t", SHMQ_NODE(0), HUGE);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int all_are_open(void *bus)
{
	return topic_info(bus, "t").publishers == NODES;
}

TEST(of_publishers_that_open_on_two_nodes_at_once_the_first_decides_for_both)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct opening opening[NODES] = { { "t", 0, 0, 4 * HUGE, stage },
					  { "t", 1, 0, 4 * HUGE, stage } };
	unsigned decided[NODES] = { 0 };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t pid[NODES];
	int node;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	for (int round = 0; round < 4; round++) {
		atomic_store(stage, 0);
		create(bus, "t",
		       ring_of(.max_message_bytes = 1 << 20, .mode = SHMQ_SHARED,
			       .node = SHMQ_NODE_PUBLISHER));
		for (int n = 0; n < NODES; n++)
			pid[n] = test_spawn(open_there, &opening[n]);
		reach(stage, 1);
		if (!test_wait_until(all_are_open, bus, 20000))
			FAIL("of two publishers %u are there", topic_info(bus, "t").publishers);
		node = topic_info(bus, "t").node_actual - 1;
		CHECK(node >= 0 && node < NODES);
		decided[node]++;
		check_topic(bus, "t", SHMQ_NODE(node), HUGE);
		check_note(bus, "t", "");
		CHECK_EQ(free_pages(node), PLENTY - RING_PAGES - 2 * 4);
		CHECK_EQ(free_pages(1 - node), PLENTY);
		sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
		for (int n = 0; n < NODES; n++)
			CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		shmq_sub_close(sub);
		reach(stage, 2);
		for (int n = 0; n < NODES; n++)
			CHECK_EQ(test_join(pid[n]), 0);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
		await_free(PLENTY, PLENTY);
	}
	NOTE("decided by node 0: %u, by node 1: %u", decided[0], decided[1]);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* What happened on the bus, up to an event of that type about the topic. */
static void await_sys(shmq_sub *events, uint16_t type, const char *text)
{
	struct shmq_msg msg;

	do
		CHECK_OK(shmq_receive(events, &msg, PATIENCE));
	while (msg.type != type || !memmem(msg.data, msg.len, text, strlen(text)));
}

TEST(where_binding_is_denied_a_first_publisher_opens_all_the_same)
{
	shmq_bus *bus;
	shmq_sub *events;
	shmq_pub *pub;

	set_pools(0, 0);
	run_on(0);
	deny_call(SYS_mbind);
	test_bus_start();
	bus = test_bus_open();
	events = open_sub(bus, SHMQ_EVENTS_TOPIC);
	create(bus, "t", .depth = 1024, .max_message_bytes = 1 << 20, .node = SHMQ_NODE_PUBLISHER);
	run_on(1);
	open_pub(bus, "t", .arena_bytes = 4 * HUGE);
	await_sys(events, SHMQ_SYS_FALLBACK, "binding to a NUMA node is denied here");
	CHECK_EQ(arena_node(bus, "t"), SHMQ_NODE(0));
	CHECK_OK(shmq_topic_move(bus, "t"));
	check_note(bus, "t", "not on node 1 of its first publisher: ");
	/* Who names the node is refused. */
	CHECK_ERROR(shmq_topic_create(bus, "told", TOPIC_OPTIONS(.node = SHMQ_NODE(1)), NULL),
		    SHMQ_ENONODE);
	await_sys(events, SHMQ_SYS_REFUSAL, "binding to a NUMA node is denied here");
	CHECK_ERROR(shmq_pub_open(bus, "told", NULL, &pub), SHMQ_ENOTOPIC);
	shmq_bus_close(bus);
	test_bus_stop();
}

static pid_t child_of(pid_t pid)
{
	char path[64];
	int child = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	in = fopen(path, "re");
	if (in && fscanf(in, "%d", &child) != 1)
		child = 0;
	if (in)
		fclose(in);
	return child;
}

/* Take small pages of a node, as hugepages, until only so much is free. */
static void use_up(int node, uint64_t but)
{
	char path[64];
	uint64_t free_bytes;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	free_bytes = get(path, " MemFree:") << 10;
	CHECK_GT(free_bytes, but);
	set_pool(node, (unsigned)(free_pages(node) + (free_bytes - but) / HUGE));
}

#define ARENA (UINT64_C(160) << 20)

/* Stop the child that populates an arena on node 1 as it has begun. */
static pid_t stop_populating(pid_t worker, uint64_t before)
{
	pid_t child;

	while (shmem_bytes(1) < before + ARENA / 20)
		;
	child = child_of(worker);
	if (child > 0 && !kill(child, SIGSTOP) && shmem_bytes(1) < before + ARENA / 4)
		return child;
	if (child > 0)
		kill(child, SIGCONT);
	return 0;
}

TEST(an_arena_whose_node_runs_dry_while_it_is_populated_lies_on_another)
{
	char topic[8];
	struct opening o = { topic, 1, 0, ARENA, shared_memory(sizeof(_Atomic int)) };
	pid_t pid, child = 0;
	shmq_bus *bus;
	shmq_sub *events;
	uint64_t before;

	set_pools(0, 0);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	events = open_sub(bus, SHMQ_EVENTS_TOPIC);
	run_on(1);
	for (int tries = 0; !child; tries++) {
		if (tries == 8)
			FAIL("it was populated before it could be stopped, each time");
		snprintf(topic, sizeof(topic), "t%d", tries);
		create(bus, topic, .depth = 1024, .max_message_bytes = 1 << 20, .mode = SHMQ_SHARED,
		       .node = SHMQ_NODE_PUBLISHER, .pages = SHMQ_PAGES_4K);
		open_pub(bus, topic, .arena_bytes = 2 << 20);
		check_topic(bus, topic, SHMQ_NODE(1), 4096);
		before = shmem_bytes(1);
		pid = test_spawn(open_there, &o);
		reach(o.stage, 1);
		child = stop_populating(test_bus_worker_pid(bus), before);
		if (child)
			break;
		reach(o.stage, 2);
		CHECK_EQ(test_join(pid), 0);
		CHECK_OK(shmq_topic_remove(bus, topic, SHMQ_FORCE));
		atomic_store(o.stage, 0);
	}
	use_up(1, ARENA / 2);
	CHECK_OK(kill(child, SIGCONT));
	await_sys(events, SHMQ_SYS_FALLBACK, "not on node 1 of its first publisher: ");
	while (topic_info(bus, topic).publishers < 2)
		test_sleep_ms(1);
	CHECK_GT(shmem_bytes(0), ARENA);
	check_topic(bus, topic, SHMQ_NODE(1), 4096);
	reach(o.stage, 2);
	CHECK_EQ(test_join(pid), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(messages_of_a_topic_that_follows_reach_who_was_there_before)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", ring_of(.node = SHMQ_NODE_PUBLISHER));
	sub = open_sub(bus, "t");
	publish_from("t", 1);
	check_topic(bus, "t", SHMQ_NODE(1), HUGE); /* by root, whoever has it mapped */
	check_free(PLENTY, PLENTY - RING_PAGES);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "one", 3);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_that_may_not_follow_says_why)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	set_pools(PLENTY, PLENTY);
	CHECK_OK(chown(test_tmpdir(), 65534, 65534));
	CHECK_OK(setgid(65534));
	CHECK_OK(setuid(65534));
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "free", ring_of(.node = SHMQ_NODE_PUBLISHER));
	publish_from("free", 1);
	check_topic(bus, "free", SHMQ_NODE(1), HUGE);
	create(bus, "held", ring_of(.node = SHMQ_NODE_PUBLISHER));
	sub = open_sub(bus, "held");
	publish_from("held", 1);
	CHECK_NE(topic_info(bus, "held").node_actual, SHMQ_NODE(1));
	check_note(bus, "held", "not on node 1 of its first publisher: ");
	check_note(bus, "held", "CAP_SYS_NICE");
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "one", 3);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_stays_where_it_is_if_the_node_of_its_first_publisher_is_dry)
{
	char pool[128];
	shmq_bus *bus;

	snprintf(pool, sizeof(pool), POOL "nr_hugepages", 1);
	set_pools(PLENTY, RING_PAGES - 1);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", ring_of(.node = SHMQ_NODE_PUBLISHER, .max_message_bytes = 1 << 20));
	publish_from("t", 1);
	check_topic(bus, "t", SHMQ_NODE(0), HUGE);
	check_note(bus, "t", pool);
	check_stream(bus, "t", 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_worker_killed_while_a_topic_follows_loses_nothing)
{
	shmq_bus *bus;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", ring_of(.node = SHMQ_NODE_PUBLISHER));
	for (int round = 0; round < 3; round++) {
		struct stream s = { "t", 1 };
		pid_t child = test_spawn(publish_one, &s);
		struct shmq_msg msg;
		shmq_sub *sub;

		CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
		CHECK_EQ(test_join(child), 0);
		check_topic(bus, "t", SHMQ_NODE(1), HUGE);
		sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, "one", 3);
		shmq_sub_close(sub);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
		create(bus, "t", ring_of(.node = SHMQ_NODE_PUBLISHER));
	}
	shmq_bus_close(bus);
	test_bus_stop();
	await_free(PLENTY, PLENTY);
}

TEST(a_topic_whose_way_was_cut_short_is_not_taken_to_be_where_it_was)
{
	struct stream s = { "t", 1 };
	uint64_t ring_bytes, before;
	pid_t child;
	shmq_bus *bus;

	set_pools(0, 0);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	before = shmem_bytes(1);
	create(bus, "t", .depth = 8 * DEPTH, .pages = SHMQ_PAGES_4K, .node = SHMQ_NODE_PUBLISHER);
	check_topic(bus, "t", SHMQ_NODE(0), 4096);
	ring_bytes = topic_info(bus, "t").ring_bytes;
	child = test_spawn(publish_one, &s);
	while (shmem_bytes(1) < before + ring_bytes / 8)
		;
	CHECK_OK(kill(child, SIGKILL));
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	test_join(child);
	publish_from("t", 0);
	check_topic(bus, "t", SHMQ_NODE(0), 4096);
	CHECK_LT(shmem_bytes(1), before + ring_bytes / 8);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- a node that runs dry ------------------------------------------------------ */

TEST(a_node_without_hugepages_is_named_and_the_topic_gets_small_pages_there)
{
	char pool[128];
	shmq_bus *bus;

	snprintf(pool, sizeof(pool), POOL "nr_hugepages", 1);
	set_pools(PLENTY, RING_PAGES + 1);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "fits", ring_of(.node = SHMQ_NODE(1), .pages = SHMQ_PAGES_2M));
	check_free(PLENTY, 1);
	/* Another is not put elsewhere without a word, whatever it asks for. */
	CHECK_ERROR(shmq_topic_create(bus, "asked",
				      TOPIC_OPTIONS(.depth = DEPTH, .node = SHMQ_NODE(1),
						    .pages = SHMQ_PAGES_2M),
				      NULL),
		    SHMQ_ENOHUGE);
	check_says(pool);
	check_free(PLENTY, 1);
	create(bus, "auto", ring_of(.node = SHMQ_NODE(1)));
	check_topic(bus, "auto", SHMQ_NODE(1), 4096);
	check_note(bus, "auto", pool);
	check_free(PLENTY, 1);
	check_stream(bus, "auto", 1);
	/* What the note says is the way out. */
	set_pool(1, 3 * RING_PAGES);
	create(bus, "asked", ring_of(.node = SHMQ_NODE(1), .pages = SHMQ_PAGES_2M));
	check_topic(bus, "asked", SHMQ_NODE(1), HUGE);
	check_free(PLENTY, RING_PAGES);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_node_without_memory_is_refused_by_name_though_the_other_has_some)
{
	struct shmq_topic_options *o =
		TOPIC_OPTIONS(.depth = 131072, .slot_bytes = 4096, .pages = SHMQ_PAGES_4K,
			      .lock = SHMQ_LOCK_NEVER, .node = SHMQ_NODE(1));
	struct shmq_bus_info before, after;
	struct shmq_plan plan;
	shmq_bus *bus;

	set_pools(0, 0);
	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_bus_get_info(bus, &before));
	CHECK_ERROR(shmq_topic_create(bus, "t", o, NULL), SHMQ_ENOMEMORY);
	check_says("NUMA node 1 has ");
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(after.bytes, before.bytes);
	o->node = SHMQ_NODE_ANY;
	CHECK_OK(shmq_topic_plan(bus, "t", o, &plan));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(without_a_node_pages_come_from_where_there_are_some_and_that_is_shown)
{
	shmq_bus *bus;

	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	set_pools(PLENTY, PLENTY);
	create(bus, "near", ring_of());
	check_topic(bus, "near", SHMQ_NODE(0), HUGE);
	set_pools(RING_PAGES + 1, PLENTY);
	create(bus, "both", ring_of());
	check_topic(bus, "both", SHMQ_NODE_ANY, HUGE);
	check_free(0, PLENTY - RING_PAGES + 1);
	create(bus, "far", ring_of());
	check_topic(bus, "far", SHMQ_NODE(1), HUGE);
	check_stream(bus, "both", 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_node_that_is_not_there_is_refused_with_those_that_are)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	CHECK_ERROR(shmq_topic_create(bus, "t", TOPIC_OPTIONS(.node = SHMQ_NODE(2)), NULL),
		    SHMQ_ENONODE);
	check_says("NUMA node 2");
	check_says("0-1");
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- a bus on the other node ---------------------------------------------------- */

TEST(a_bus_restarted_on_the_other_node_keeps_its_rings_where_they_are)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	set_pools(PLENTY, PLENTY);
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "any", ring_of());
	create(bus, "second", ring_of(.node = SHMQ_NODE(1)));
	sub = open_sub(bus, "any");
	pub = open_pub(bus, "any");
	CHECK_OK(shmq_publish(pub, "before", 6));
	check_free(PLENTY - RING_PAGES, PLENTY - RING_PAGES);
	kill_supervisor(bus);
	CHECK_OK(shmq_publish(pub, "meanwhile", 9));
	run_on(1);
	test_bus_restart();
	check_topic(bus, "any", SHMQ_NODE(0), HUGE);
	check_topic(bus, "second", SHMQ_NODE(1), HUGE);
	check_free(PLENTY - RING_PAGES, PLENTY - RING_PAGES);
	CHECK_OK(shmq_publish(pub, "after", 5));
	for (int n = 0; n < 3; n++)
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "after", 5);
	check_stream(bus, "second", 0);
	/* What is new lies where it is now, or where it is told to. */
	create(bus, "new", ring_of());
	check_topic(bus, "new", SHMQ_NODE(1), HUGE);
	create(bus, "told", ring_of(.node = SHMQ_NODE(0)));
	check_topic(bus, "told", SHMQ_NODE(0), HUGE);
	CHECK_OK(shmq_topic_remove(bus, "second", 0));
	await_free(PLENTY - 2 * RING_PAGES, PLENTY - RING_PAGES);
	shmq_bus_close(bus);
	test_bus_stop();
	check_free(PLENTY, PLENTY);
}

#define GROUP "/sys/fs/cgroup/second"

/* Who has a handle brings the bus back. */
static int hold(void *arg)
{
	_Atomic int *stage = arg;
	shmq_bus *bus = test_bus_open();

	open_sub(bus, "first");
	reach(stage, 1);
	await(stage, 2);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_bus_restarted_where_it_may_use_the_other_node_only_says_so)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	shmq_bus *bus;
	pid_t holder;

	set_pools(PLENTY, PLENTY);
	CHECK_OK(mkdir(GROUP, 0700));
	put(GROUP "/cpuset.cpus", "1");
	put(GROUP "/cpuset.mems", "1");
	run_on(0);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "first", ring_of(.node = SHMQ_NODE(0)));
	holder = test_spawn(hold, stage);
	await(stage, 1);
	kill_supervisor(bus);
	/* Who enters the group takes along what it has mapped. */
	shmq_bus_close(bus);
	put(GROUP "/cgroup.procs", "0");
	test_bus_restart();
	put("/sys/fs/cgroup/cgroup.procs", "0");
	bus = test_bus_open();
	check_topic(bus, "first", SHMQ_NODE(0), HUGE);
	check_free(PLENTY - RING_PAGES, PLENTY);
	check_stream(bus, "first", 0);
	CHECK_ERROR(shmq_topic_create(bus, "t", TOPIC_OPTIONS(.depth = DEPTH, .node = SHMQ_NODE(0)),
				      NULL),
		    SHMQ_ENONODE);
	check_says("there is no NUMA node 0 that this process may use: choose from 1");
	create(bus, "t", ring_of());
	check_topic(bus, "t", SHMQ_NODE(1), HUGE);
	reach(stage, 2);
	CHECK_EQ(test_join(holder), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
