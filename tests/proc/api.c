/* SPDX-License-Identifier: MIT
 *
 * Every export of shmq.h is called here with what it documents: results,
 * errors, NULL where that is allowed.  What a call does under load, death
 * and waiting is the subject of the other files.
 */
#include "helpers.h"

#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>

/* ---- texts ------------------------------------------------------------- */

TEST(version_is_that_of_the_header)
{
	char want[32];

	snprintf(want, sizeof(want), "%d.%d.%d", SHMQ_VERSION_MAJOR, SHMQ_VERSION_MINOR,
		 SHMQ_VERSION_PATCH);
	CHECK_STR(shmq_version(), want);
}

TEST(every_error_has_its_name_and_text)
{
#define SHMQ_X(name, value, text) \
	CHECK_STR(shmq_errname(SHMQ_##name), "SHMQ_" #name); \
	CHECK_STR(shmq_strerror(SHMQ_##name), text);
	SHMQ_ERRORS(SHMQ_X)
#undef SHMQ_X
	CHECK_STR(shmq_errname(0), "OK");
	CHECK_STR(shmq_errname(7), "OK");
	CHECK_STR(shmq_errname(-ENOENT), "ENOENT");
	CHECK_STR(shmq_strerror(-ENOENT), "No such file or directory");
	CHECK(shmq_strerror(-4095) != NULL);
	CHECK(shmq_strerror(-4999) != NULL);
	CHECK(shmq_strerror(INT32_MIN) != NULL);
	CHECK(shmq_errname(INT32_MIN) != NULL);
}

/* ---- bus ----------------------------------------------------------------- */

static int open_named(const char *name, struct shmq_bus_options *options)
{
	shmq_bus *bus = (shmq_bus *)&bus;
	int rc = shmq_bus_open(name, options, &bus);

	CHECK(!bus == (rc < 0)); /* on failure *out is NULL */
	shmq_bus_close(bus);
	return rc;
}

TEST(a_bad_bus_name_is_refused_by_name)
{
	char longest[SHMQ_BUS_NAME_MAX + 2];
	struct shmq_bus_options o = { .size = sizeof(o), .runtime_dir = test_tmpdir() };

	memset(longest, 'a', sizeof(longest));
	longest[SHMQ_BUS_NAME_MAX + 1] = 0;
	CHECK_ERROR(open_named("", &o), SHMQ_EBUSNAME);
	CHECK_ERROR(open_named("a b", &o), SHMQ_EBUSNAME);
	CHECK_ERROR(open_named("a/b", &o), SHMQ_EBUSNAME);
	CHECK_ERROR(open_named("..", &o), SHMQ_EBUSNAME);
	CHECK_ERROR(open_named(longest, &o), SHMQ_EBUSNAME);
	longest[SHMQ_BUS_NAME_MAX] = 0;
	CHECK_ERROR(open_named(longest, &o), SHMQ_ENODAEMON);
}

TEST(unknown_bus_options_are_refused)
{
	struct {
		struct shmq_bus_options known;
		uint64_t later;
	} o = { .known = { .size = sizeof(o) } };

	test_bus_start();
	o.known.runtime_dir = test_bus_dir();
	CHECK_OK(open_named(test_bus_name(), &o.known)); /* a newer caller that uses nothing new */
	o.later = 1;
	CHECK_ERROR(open_named(test_bus_name(), &o.known), SHMQ_EOPTION);
	o.later = 0;
	o.known.size = 0;
	CHECK_ERROR(open_named(test_bus_name(), &o.known), SHMQ_EOPTION);
	o.known.size = sizeof(o.known);
	o.known.start = 7;
	CHECK_ERROR(open_named(test_bus_name(), &o.known), SHMQ_EOPTION);
	o.known.start = SHMQ_START_NEVER;
	o.known.serve = 7;
	CHECK_ERROR(open_named(test_bus_name(), &o.known), SHMQ_EOPTION);
	o.known.serve = SHMQ_SERVE_THREAD;
	o.known.timeout_ns = -1;
	CHECK_ERROR(open_named(test_bus_name(), &o.known), SHMQ_EOPTION);
	/* A caller older than a field: the field is not read. */
	o.known.timeout_ns = 0;
	o.known.client_name = (const char *)8;
	o.known.size = offsetof(struct shmq_bus_options, client_name);
	CHECK_OK(open_named(test_bus_name(), &o.known));
	test_bus_stop();
}

TEST(without_a_supervisor_open_says_so)
{
	char path[PATH_MAX], deep[160];
	struct shmq_bus_options o = { .size = sizeof(o) };
	shmq_bus *bus;

	o.runtime_dir = test_tmpdir();
	CHECK_ERROR(shmq_bus_open("nobody", &o, &bus), SHMQ_ENODAEMON);
	CHECK(strstr(shmq_bus_error(NULL), "nobody") != NULL);
	snprintf(path, sizeof(path), "%s/not-there", test_tmpdir());
	o.runtime_dir = path;
	CHECK_ERROR(shmq_bus_open("nobody", &o, &bus), SHMQ_ENODAEMON);
	memset(deep, 'x', sizeof(deep));
	deep[0] = '/';
	deep[sizeof(deep) - 1] = 0;
	o.runtime_dir = deep;
	CHECK_ERROR(shmq_bus_open("nobody", &o, &bus), SHMQ_ELIMIT);
}

TEST(a_directory_that_others_can_write_is_refused)
{
	char path[PATH_MAX];
	struct shmq_bus_options o = { .size = sizeof(o), .runtime_dir = path };
	shmq_bus *bus;

	snprintf(path, sizeof(path), "%s/open", test_tmpdir());
	CHECK_OK(mkdir(path, 0700));
	CHECK_OK(chmod(path, 0777));
	CHECK_ERROR(shmq_bus_open("b", &o, &bus), SHMQ_EACCESS);
	CHECK(strstr(shmq_bus_error(NULL), path) != NULL);
}

TEST(an_open_bus_knows_its_name_and_its_client)
{
	struct shmq_bus_options o = { .size = sizeof(o), .client_name = "somebody" };
	struct shmq_bus_info info;
	shmq_bus *a, *b;

	shmq_bus_close(NULL);
	test_bus_start();
	a = test_bus_open();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &b));
	CHECK_STR(shmq_bus_name(a), test_bus_name());
	CHECK_NE(shmq_bus_client_id(a), 0);
	CHECK_NE(shmq_bus_client_id(a), shmq_bus_client_id(b));
	CHECK_EQ(shmq_bus_is_attached(a), 1);
	CHECK_EQ(shmq_bus_reattach_count(a), 0);
	CHECK_LT(shmq_bus_fd(a), 0);
	CHECK_ERROR(shmq_bus_serve(a, SHMQ_NOWAIT), SHMQ_EOPTION);
	CHECK_STR(shmq_bus_error(a), "");
	CHECK_OK(shmq_bus_get_info(a, &info));
	CHECK_STR(info.name, test_bus_name());
	CHECK_EQ(info.clients, 2);
	CHECK_EQ(info.topics, 0);
	CHECK_EQ(info.epoch, 1);
	CHECK_GT(info.daemon_pid, 1);
	CHECK_GT(info.parent_pid, 1);
	CHECK_NE(info.daemon_pid, info.parent_pid);
	CHECK_GT(info.started_ns, 0);
	CHECK_GT(info.bytes, 0);
	CHECK_GT(info.layout_version, 0);
	shmq_bus_close(b);
	CHECK_OK(shmq_bus_get_info(a, &info));
	CHECK_EQ(info.clients, 1);
	shmq_bus_close(a);
	test_bus_stop();
}

static int is_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, (int)(PATIENCE / MILLISECOND)) == 1;
}

TEST(a_caller_that_serves_itself_is_told_by_a_descriptor)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	struct shmq_event event;
	shmq_bus *bus, *other;
	shmq_pub *pub;
	shmq_sub *sub;
	int handled;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	CHECK_GE(shmq_bus_fd(bus), 0);
	create(bus, "t");
	sub = open_sub(bus, "t");
	while (shmq_bus_serve(bus, SHMQ_NOWAIT) > 0)
		;
	CHECK_EQ(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
	CHECK_EQ(shmq_bus_serve(bus, 5 * MILLISECOND), 0);
	CHECK_ERROR(shmq_bus_event(bus, &event, SHMQ_NOWAIT), SHMQ_EEMPTY);
	other = test_bus_open();
	pub = open_pub(other, "t");
	CHECK(is_readable(shmq_bus_fd(bus)));
	handled = shmq_bus_serve(bus, SHMQ_NOWAIT);
	CHECK_GT(handled, 0);
	CHECK_OK(shmq_bus_event(bus, &event, SHMQ_NOWAIT));
	CHECK_EQ(event.kind, SHMQ_EVENT_JOINED);
	CHECK_EQ(event.client_id, shmq_bus_client_id(other));
	/* Without serve in between, event itself looks, and waits. */
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_event(bus, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_LEFT);
	shmq_sub_close(sub);
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int join_when_told(void *arg)
{
	_Atomic int *stage = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub;

	await(stage, 1);
	/* Until here the parent may not have begun to wait: it shows nothing
	 * when it does, so give it the time in which it should. */
	test_sleep_ms(20);
	pub = open_pub(bus, "t");
	await(stage, 2);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

TEST(an_event_is_waited_for_without_a_thread_of_the_library)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_event event;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	child = test_spawn(join_when_told, (void *)stage);
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	create(bus, "t");
	sub = open_sub(bus, "t");
	reach(stage, 1);
	CHECK_OK(shmq_bus_event(bus, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_JOINED);
	reach(stage, 2);
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(closing_the_bus_closes_its_handles)
{
	struct shmq_topic_info info;
	shmq_bus *a, *b;
	shmq_waitset *set;
	shmq_sub *sub;

	test_bus_start();
	a = test_bus_open();
	b = test_bus_open();
	create(a, "t");
	open_pub(a, "t");
	sub = open_sub(a, "t");
	CHECK_OK(shmq_waitset_create(a, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	info = topic_info(b, "t");
	CHECK_EQ(info.publishers, 1);
	CHECK_EQ(info.subscribers, 1);
	shmq_waitset_destroy(set);
	shmq_bus_close(a);
	info = topic_info(b, "t");
	CHECK_EQ(info.publishers, 0);
	CHECK_EQ(info.subscribers, 0);
	shmq_bus_close(b);
	test_bus_stop();
}

TEST(stop_refuses_while_others_are_attached_unless_forced)
{
	shmq_bus *a, *b;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;

	test_bus_start();
	a = test_bus_open();
	b = test_bus_open();
	create(a, "t");
	pub = open_pub(b, "t");
	sub = open_sub(b, "t");
	CHECK_OK(shmq_publish(pub, "last", 4));
	CHECK_ERROR(shmq_bus_stop(a, 2), SHMQ_EOPTION);
	CHECK_ERROR(shmq_bus_stop(a, 0), SHMQ_EINUSE);
	CHECK(*shmq_bus_error(a));
	CHECK_OK(shmq_publish(pub, "last", 4));
	CHECK_OK(shmq_bus_stop(a, SHMQ_FORCE));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish(pub, "more", 4), SHMQ_EENDED);
	shmq_bus_close(b);
	shmq_bus_close(a);
	test_bus_stop();
}

TEST(stop_by_the_only_client_needs_no_force)
{
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	CHECK_OK(shmq_bus_stop(bus, 0));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- events ---------------------------------------------------------------- */

TEST(events_tell_who_joined_left_and_what_ended)
{
	struct shmq_event event;
	shmq_bus *a, *b;
	shmq_sub *own, *sub;
	shmq_pub *pub;

	test_bus_start();
	a = test_bus_open();
	b = test_bus_open();
	create(a, "t");
	create(a, "elsewhere");
	CHECK_ERROR(shmq_bus_event(a, &event, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_bus_event(a, &event, MILLISECOND), SHMQ_ETIMEOUT);
	own = open_sub(a, "t");
	shmq_pub_close(open_pub(b, "elsewhere")); /* not a topic of a's */
	pub = open_pub(b, "t");
	CHECK_OK(shmq_bus_event(a, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_JOINED);
	CHECK_EQ(event.role, SHMQ_ROLE_PUBLISHER);
	CHECK_STR(event.topic, "t");
	CHECK_EQ(event.client_id, shmq_bus_client_id(b));
	CHECK_EQ(event.pid, getpid());
	CHECK_EQ(event.missed, 0);
	sub = open_sub(b, "t");
	CHECK_OK(shmq_bus_event(a, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_JOINED);
	CHECK_EQ(event.role, SHMQ_ROLE_SUBSCRIBER);
	shmq_pub_close(pub);
	CHECK_OK(shmq_bus_event(a, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_LEFT);
	CHECK_EQ(event.role, SHMQ_ROLE_PUBLISHER);
	CHECK_OK(shmq_topic_remove(b, "t", SHMQ_FORCE));
	CHECK_OK(shmq_bus_event(a, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_ENDED);
	CHECK_STR(event.topic, "t");
	shmq_sub_close(sub);
	shmq_sub_close(own);
	shmq_bus_close(a);
	shmq_bus_close(b);
	test_bus_stop();
}

TEST(events_that_nobody_reads_are_dropped_and_counted)
{
	enum { ROUNDS = 600 }; /* two events each; 1024 are kept */
	uint64_t seen = 0, missed = 0;
	struct shmq_event event;
	shmq_bus *a, *b;
	shmq_sub *own, *end;
	shmq_pub *pub;

	test_bus_start();
	a = test_bus_open();
	b = test_bus_open();
	create(a, "t");
	own = open_sub(a, "t");
	CHECK_ERROR(shmq_bus_event(a, &event, SHMQ_NOWAIT), SHMQ_EEMPTY);
	for (int i = 0; i < ROUNDS; i++) {
		pub = open_pub(b, "t");
		shmq_pub_close(pub);
	}
	end = open_sub(b, "t");
	do {
		CHECK_OK(shmq_bus_event(a, &event, PATIENCE));
		seen++;
		missed += event.missed;
	} while (event.kind != SHMQ_EVENT_JOINED || event.role != SHMQ_ROLE_SUBSCRIBER);
	CHECK_EQ(seen + missed, 2 * ROUNDS + 1);
	shmq_sub_close(own);
	shmq_sub_close(end);
	shmq_bus_close(a);
	shmq_bus_close(b);
	test_bus_stop();
}

/* ---- topics ------------------------------------------------------------------ */

TEST(topic_names_are_checked)
{
	static const char *const good[] = { "a", "a.b", "md.equities.AAPL", "A-b_c.0", "0.1",
					    "-", "_" };
	static const char *const bad[] = { "",    ".",   "a.",   ".a",       "a..b", "a b",
					   "a/b", "a$b", "$sys", "\xc3\xa4", "a\n" };
	char name[SHMQ_NAME_MAX + 2];

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		CHECK_ERROR(shmq_topic_check_name(good[i]), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK_ERROR(shmq_topic_check_name(bad[i]), SHMQ_ENAME);
	CHECK_ERROR(shmq_topic_check_name(NULL), SHMQ_ENAME);
	memset(name, 'n', sizeof(name));
	name[SHMQ_NAME_MAX] = 0;
	CHECK_ERROR(shmq_topic_check_name(name), 0);
	name[SHMQ_NAME_MAX] = 'n';
	name[SHMQ_NAME_MAX + 1] = 0;
	CHECK_ERROR(shmq_topic_check_name(name), SHMQ_ENAME);
}

TEST(the_longest_name_works_end_to_end)
{
	char name[SHMQ_NAME_MAX + 1];
	struct shmq_topic_info info;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	memset(name, 'n', sizeof(name));
	name[SHMQ_NAME_MAX] = 0;
	test_bus_start();
	bus = test_bus_open();
	create(bus, name);
	sub = open_sub(bus, name);
	pub = open_pub(bus, name);
	CHECK_OK(shmq_publish(pub, "x", 1));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_OK(shmq_sub_get_topic(sub, &info));
	CHECK_STR(info.name, name);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	CHECK_OK(shmq_topic_remove(bus, name, 0));
	shmq_bus_close(bus);
	test_bus_stop();
}

static int count_topic(void *arg, const struct shmq_topic_info *info)
{
	(void)info;
	++*(int *)arg;
	return 0;
}

static int topics_on(shmq_bus *bus)
{
	int count = 0;

	CHECK_OK(shmq_topic_each(bus, count_topic, &count));
	return count;
}

TEST(a_plan_says_what_creation_then_takes)
{
	struct shmq_topic_options *o =
		TOPIC_OPTIONS(.depth = 5000, .slot_bytes = 320, .partitions = 3,
			      .max_message_bytes = 10000, .pages = SHMQ_PAGES_4K);
	struct shmq_bus_info before, after;
	struct shmq_plan plan, done;
	struct shmq_topic_info info;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_bus_get_info(bus, &before));
	CHECK_OK(shmq_topic_plan(bus, "t", o, &plan));
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(topics_on(bus), 0);
	CHECK_EQ(after.bytes, before.bytes);
	CHECK_EQ(plan.depth, 8192);
	CHECK_EQ(plan.inline_bytes, 304);
	CHECK_EQ(plan.page_bytes, 4096);
	CHECK_EQ(plan.ring_bytes, 3 * (8192 * 320 + 4096));
	CHECK_GT(plan.control_bytes, 0);
	CHECK_GE(plan.arena_bytes, 20000);
	CHECK_GT(plan.available_bytes, plan.ring_bytes);
	CHECK(*plan.source);
	CHECK_OK(shmq_topic_create(bus, "t", o, &done));
	CHECK_EQ(done.ring_bytes, plan.ring_bytes);
	CHECK_EQ(done.control_bytes, plan.control_bytes);
	CHECK_EQ(done.arena_bytes, plan.arena_bytes);
	CHECK_EQ(done.depth, plan.depth);
	CHECK_EQ(done.inline_bytes, plan.inline_bytes);
	CHECK_EQ(done.page_bytes, plan.page_bytes);
	info = topic_info(bus, "t");
	CHECK_EQ(info.ring_bytes, plan.ring_bytes);
	CHECK_EQ(info.page_bytes, plan.page_bytes);
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(after.topics, 1);
	/* The same checks: a name that exists cannot be planned either. */
	CHECK_ERROR(shmq_topic_plan(bus, "t", o, &plan), SHMQ_EEXISTS);
	CHECK_ERROR(shmq_topic_plan(bus, "a b", o, &plan), SHMQ_ENAME);
	CHECK_ERROR(shmq_topic_plan(bus, "u", TOPIC_OPTIONS(.slot_bytes = 65), &plan),
		    SHMQ_EOPTION);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Planned, created, taken: all three are one number. */
static uint64_t check_growth(shmq_bus *bus, const char *name, struct shmq_topic_options *o)
{
	struct shmq_bus_info before, after;
	struct shmq_plan plan, done;

	CHECK_OK(shmq_bus_get_info(bus, &before));
	CHECK_OK(shmq_topic_plan(bus, name, o, &plan));
	CHECK_OK(shmq_topic_create(bus, name, o, &done));
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(done.growth_bytes, plan.growth_bytes);
	CHECK_EQ(after.bytes - before.bytes, plan.growth_bytes);
	return plan.growth_bytes - plan.ring_bytes;
}

TEST(a_plan_says_what_the_bus_grows_by)
{
	struct shmq_topic_options *small = TOPIC_OPTIONS(.pages = SHMQ_PAGES_4K);
	uint64_t more = 0;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	/* From a pool, which is said to grow when it does. */
	check_growth(bus, "a", small);
	more = check_growth(bus, "b", small);
	more |= check_growth(bus, "c", small);
	more |= check_growth(bus, "d", small);
	CHECK_NE(more, 0);
	/* Of its own, with control data that fits what the pools have, and with
	 * more of it. */
	small->depth = 1 << 16;
	CHECK_EQ(check_growth(bus, "large", small), 0);
	small->depth = 1024;
	small->partitions = 4096;
	small->slot_bytes = 64;
	CHECK_GT(check_growth(bus, "many", small), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_has_the_shape_asked_for)
{
	struct shmq_topic_info info;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_topic_create(bus, "plain", NULL, NULL));
	info = topic_info(bus, "plain");
	CHECK_STR(info.name, "plain");
	CHECK_EQ(info.depth, 8192);
	CHECK_EQ(info.slot_bytes, 128);
	CHECK_EQ(info.inline_bytes, 112);
	CHECK_EQ(info.max_message_bytes, 112);
	CHECK_EQ(info.partitions, 1);
	CHECK_EQ(info.flags, 0);
	CHECK_EQ(info.mode, SHMQ_EXCLUSIVE);
	CHECK_EQ(info.policy, SHMQ_BLOCK);
	CHECK_EQ(info.stall, SHMQ_STALL_KILL);
	CHECK_EQ(info.wait, SHMQ_WAIT_ADAPTIVE);
	CHECK_EQ(info.ended, 0);
	CHECK_EQ(info.node_asked, SHMQ_NODE_ANY);
	CHECK_EQ(info.publishers, 0);
	CHECK_EQ(info.subscribers, 0);
	CHECK_EQ(info.head, 0);
	CHECK_EQ(info.sleepers, 0);
	create(bus, "rich", .depth = 2048, .slot_bytes = 64, .partitions = 4,
	       .max_message_bytes = 1 << 20, .mode = SHMQ_SHARED, .policy = SHMQ_LOSSY,
	       .stall = SHMQ_STALL_REPORT, .wait = SHMQ_WAIT_SLEEP, .pages = SHMQ_PAGES_4K,
	       .lock = SHMQ_LOCK_NEVER, .node = SHMQ_NODE(0),
	       .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	info = topic_info(bus, "rich");
	CHECK_EQ(info.depth, 2048);
	CHECK_EQ(info.slot_bytes, 64);
	CHECK_EQ(info.inline_bytes, 32);
	CHECK_EQ(info.max_message_bytes, 1 << 20);
	CHECK_EQ(info.partitions, 4);
	CHECK_EQ(info.flags, SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	CHECK_EQ(info.mode, SHMQ_SHARED);
	CHECK_EQ(info.policy, SHMQ_LOSSY);
	CHECK_EQ(info.stall, SHMQ_STALL_REPORT);
	CHECK_EQ(info.wait, SHMQ_WAIT_SLEEP);
	CHECK_EQ(info.node_asked, SHMQ_NODE(0));
	CHECK_EQ(info.node_actual, SHMQ_NODE(0));
	CHECK_EQ(info.page_bytes, 4096);
	CHECK_EQ(info.locked, 0);
	CHECK_EQ(topics_on(bus), 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(bad_topic_options_are_refused_without_effect)
{
	static const struct {
		const char *what;
		struct shmq_topic_options o;
		int error;
	} bad[] = {
		{ "depth", { .depth = (UINT64_C(1) << 32) + 1 }, SHMQ_EOPTION },
		{ "slot bytes 32", { .slot_bytes = 32 }, SHMQ_EOPTION },
		{ "slot bytes 65", { .slot_bytes = 65 }, SHMQ_EOPTION },
		{ "slot bytes 8192", { .slot_bytes = 8192 }, SHMQ_EOPTION },
		{ "partitions", { .partitions = 4097 }, SHMQ_EOPTION },
		{ "message", { .max_message_bytes = (UINT64_C(1) << 30) + 1 }, SHMQ_EOPTION },
		{ "mode", { .mode = 3 }, SHMQ_EOPTION },
		{ "policy", { .policy = 5 }, SHMQ_EOPTION },
		{ "stall", { .stall = 3 }, SHMQ_EOPTION },
		{ "wait", { .wait = 5 }, SHMQ_EOPTION },
		{ "pages", { .pages = 5 }, SHMQ_EOPTION },
		{ "lock", { .lock = 4 }, SHMQ_EOPTION },
		{ "node", { .node = -2 }, SHMQ_EOPTION },
		{ "node 4000", { .node = SHMQ_NODE(4000) }, SHMQ_ENONODE },
		{ "flags", { .flags = 8 }, SHMQ_EOPTION },
		{ "evict_ns", { .evict_ns = -1 }, SHMQ_EOPTION },
		{ "block timeout", { .block_timeout_ns = -2 }, SHMQ_EOPTION },
		{ "spin-only sleeper",
		  { .flags = SHMQ_TOPIC_SPIN_ONLY, .wait = SHMQ_WAIT_SLEEP },
		  SHMQ_EOPTION },
	};
	struct {
		struct shmq_topic_options known;
		uint64_t later;
	} tail = { .known = { .size = sizeof(tail) }, .later = 1 };
	struct shmq_bus_info before, after;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_bus_get_info(bus, &before));
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct shmq_topic_options o = bad[i].o;
		int rc;

		o.size = sizeof(o);
		rc = shmq_topic_create(bus, "t", &o, NULL);
		if (rc != bad[i].error)
			FAIL("%s: got %s, want %s", bad[i].what, shmq_errname(rc),
			     shmq_errname(bad[i].error));
		if (!*shmq_bus_error(bus))
			FAIL("%s: refused without saying why", bad[i].what);
	}
	CHECK_ERROR(shmq_topic_create(bus, "t", &tail.known, NULL), SHMQ_EOPTION);
	CHECK_ERROR(shmq_topic_create(bus, "t", &(struct shmq_topic_options){ 0 }, NULL),
		    SHMQ_EOPTION);
	CHECK_ERROR(shmq_topic_create(bus, "no name", NULL, NULL), SHMQ_ENAME);
	CHECK_ERROR(shmq_topic_create(bus, "$mine", NULL, NULL), SHMQ_ENAME);
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(topics_on(bus), 0);
	CHECK_EQ(after.bytes, before.bytes);
	tail.later = 0;
	CHECK_OK(shmq_topic_create(bus, "t", &tail.known, NULL));
	CHECK_ERROR(shmq_topic_create(bus, "t", NULL, NULL), SHMQ_EEXISTS);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(removal_refuses_a_topic_in_use)
{
	shmq_bus *bus;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	CHECK_ERROR(shmq_topic_remove(bus, "u", 0), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_topic_remove(bus, "u", SHMQ_FORCE), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_topic_remove(bus, "u u", 0), SHMQ_ENAME);
	CHECK_ERROR(shmq_topic_remove(bus, "t", 2), SHMQ_EOPTION);
	sub = open_sub(bus, "t");
	CHECK_ERROR(shmq_topic_remove(bus, "t", 0), SHMQ_EINUSE);
	CHECK(strstr(shmq_bus_error(bus), "t") != NULL);
	shmq_sub_close(sub);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	CHECK_EQ(topics_on(bus), 0);
	CHECK_ERROR(shmq_topic_remove(bus, "t", 0), SHMQ_ENOTOPIC);
	create(bus, "t");
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- publishers ---------------------------------------------------------------- */

TEST(opening_a_publisher_checks_what_it_is_given)
{
	struct {
		struct shmq_pub_options known;
		uint64_t later;
	} tail = { .known = { .size = sizeof(tail) }, .later = 1 };
	shmq_bus *bus;
	shmq_pub *pub, *again = (shmq_pub *)&again;

	shmq_pub_close(NULL);
	test_bus_start();
	bus = test_bus_open();
	CHECK_ERROR(shmq_pub_open(bus, "t", NULL, &pub), SHMQ_ENOTOPIC);
	CHECK(strstr(shmq_bus_error(bus), "t") != NULL);
	CHECK_ERROR(shmq_pub_open(bus, "", NULL, &pub), SHMQ_ENAME);
	create(bus, "t");
	CHECK_ERROR(shmq_pub_open(bus, "t", &tail.known, &pub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_open(bus, "t", PUB_OPTIONS(.wake = 3), &pub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_open(bus, "t", PUB_OPTIONS(.wait = 5), &pub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_open(bus, "t", PUB_OPTIONS(.flags = 2), &pub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_open(bus, "t", PUB_OPTIONS(.wake_ns = -1), &pub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_open(bus, "t", PUB_OPTIONS(.block_timeout_ns = -2), &pub),
		    SHMQ_EOPTION);
	CHECK_OK(shmq_pub_open(bus, "t", NULL, &pub));
	CHECK_ERROR(shmq_pub_open(bus, "t", NULL, &again), SHMQ_EEXCLUSIVE);
	CHECK(again == NULL);
	CHECK_EQ(topic_info(bus, "t").publishers, 1);
	shmq_pub_close(pub);
	CHECK_OK(shmq_pub_open(bus, "t", NULL, &again));
	shmq_pub_close(again);
	/* An arena that this machine cannot carry: a terabyte. */
	create(bus, "big", .max_message_bytes = 1 << 20);
	CHECK_ERROR(shmq_pub_open(bus, "big", PUB_OPTIONS(.arena_bytes = UINT64_C(1) << 40), &pub),
		    SHMQ_ENOMEMORY);
	CHECK(*shmq_bus_error(bus));
	CHECK_EQ(topic_info(bus, "big").publishers, 0);
	CHECK_OK(shmq_pub_open(bus, "big", NULL, &pub));
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(publishing_checks_what_it_is_given)
{
	static char large[70000];
	struct shmq_msg msg = { .data = "x", .len = 1 }, many[300] = { { 0 } };
	struct shmq_topic_info info;
	shmq_bus *bus;
	shmq_pub *pub;
	void *data;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .partitions = 2, .max_message_bytes = 100000);
	pub = open_pub(bus, "t");
	CHECK_ERROR(shmq_publish(pub, large, 100001), SHMQ_ETOOBIG);
	msg.partition = 2;
	CHECK_ERROR(shmq_publish_msg(pub, &msg), SHMQ_EOPTION);
	msg.partition = -2;
	CHECK_ERROR(shmq_publish_msg(pub, &msg), SHMQ_EOPTION);
	msg.partition = 0;
	msg.key = large;
	msg.key_len = 65536;
	CHECK_ERROR(shmq_publish_msg(pub, &msg), SHMQ_EOPTION);
	msg.key_len = 65535;
	CHECK_OK(shmq_publish_msg(pub, &msg));
	msg.properties = large;
	msg.properties_len = 65535;
	CHECK_ERROR(shmq_publish_msg(pub, &msg), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish_iov(pub, &msg, NULL, -1), SHMQ_EOPTION);
	msg = (struct shmq_msg){ 0 };
	CHECK_OK(shmq_publish_iov(pub, &msg, NULL, 0)); /* nothing gathered: empty */
	CHECK_EQ(shmq_publish_batch(pub, many, 0, 0), 0);
	CHECK_EQ(shmq_publish_batch(pub, many, 0, SHMQ_ATOMIC), 0);
	CHECK_ERROR(shmq_publish_batch(pub, many, 1, 2), SHMQ_EOPTION);
	CHECK_ERROR(shmq_publish_batch(pub, many, 257, SHMQ_ATOMIC), SHMQ_EBATCH);
	CHECK_EQ(shmq_publish_batch(pub, many, 256, SHMQ_ATOMIC), 256);
	many[3].partition = 9;
	CHECK_EQ(shmq_publish_batch(pub, many, 5, 0), 3); /* the first three */
	many[0].partition = 9;
	CHECK_ERROR(shmq_publish_batch(pub, many, 5, 0), SHMQ_EOPTION);
	CHECK_ERROR(shmq_commit(pub, NULL), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_abort(pub), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_claim(pub, 100001, &data), SHMQ_ETOOBIG);
	CHECK_OK(shmq_claim(pub, 10, &data));
	CHECK_ERROR(shmq_claim(pub, 10, &data), SHMQ_ECLAIM);
	msg = (struct shmq_msg){ .key = "k", .key_len = 1 };
	CHECK_ERROR(shmq_commit(pub, &msg), SHMQ_EOPTION);
	msg = (struct shmq_msg){ .partition = 7 };
	CHECK_ERROR(shmq_commit(pub, &msg), SHMQ_EOPTION);
	msg = (struct shmq_msg){ .len = 11 };
	CHECK_ERROR(shmq_commit(pub, &msg), SHMQ_ETOOBIG);
	CHECK_OK(shmq_commit(pub, NULL));
	CHECK_OK(shmq_claim(pub, 0, &data));
	CHECK_OK(shmq_abort(pub));
	CHECK_OK(shmq_pub_get_topic(pub, &info));
	CHECK_STR(info.name, "t");
	CHECK_EQ(info.publishers, 1);
	/* 1 with the long key, 1 empty, 256, 3, 1 committed. */
	CHECK_EQ(pub_stats(pub).sent, 262);
	CHECK_EQ(info.head, 262);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(flush_and_wait_subscribers_wait_for_what_they_say)
{
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_flush(pub, SHMQ_NOWAIT)); /* nothing sent */
	CHECK_OK(shmq_publish(pub, "a", 1));
	CHECK_OK(shmq_flush(pub, SHMQ_NOWAIT)); /* nobody attached */
	CHECK_OK(shmq_pub_wait_subscribers(pub, 0, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_pub_wait_subscribers(pub, 1, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
	CHECK_ERROR(shmq_pub_wait_subscribers(pub, 1, MILLISECOND), SHMQ_ETIMEOUT);
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_pub_wait_subscribers(pub, 2, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_OK(shmq_publish(pub, "b", 1));
	CHECK_ERROR(shmq_flush(pub, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_ERROR(shmq_flush(pub, MILLISECOND), SHMQ_ETIMEOUT); /* still looked at */
	CHECK_OK(shmq_release(sub));
	CHECK_OK(shmq_flush(pub, SHMQ_NOWAIT));
	CHECK_OK(shmq_topic_remove(bus, "t", SHMQ_FORCE));
	CHECK_ERROR(shmq_pub_wait_subscribers(pub, 2, PATIENCE), SHMQ_EENDED);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- subscribers -------------------------------------------------------------- */

TEST(opening_a_subscriber_checks_what_it_is_given)
{
	struct {
		struct shmq_sub_options known;
		uint64_t later;
	} tail = { .known = { .size = sizeof(tail) }, .later = 1 };
	struct shmq_topic_info info;
	shmq_bus *bus;
	shmq_sub *sub = (shmq_sub *)&sub;

	shmq_sub_close(NULL);
	test_bus_start();
	bus = test_bus_open();
	CHECK_ERROR(shmq_sub_open(bus, "t", NULL, &sub), SHMQ_ENOTOPIC);
	CHECK(sub == NULL);
	CHECK_ERROR(shmq_sub_open(bus, "t..t", NULL, &sub), SHMQ_ENAME);
	create(bus, "t", .partitions = 2, .depth = 1024);
	CHECK_ERROR(shmq_sub_open(bus, "t", &tail.known, &sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.from = 4), &sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.wait = 5), &sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.spin_ns = -1), &sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.flags = 2), &sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.partition_plus1 = -1), &sub),
		    SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.partition_plus1 = 3), &sub), SHMQ_EOPTION);
	/* A seq is of one partition. */
	CHECK_ERROR(shmq_sub_open(bus, "t", SUB_OPTIONS(.from = SHMQ_FROM_SEQ), &sub),
		    SHMQ_EOPTION);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	CHECK_OK(shmq_sub_open(bus, "t", SUB_OPTIONS(.from = SHMQ_FROM_SEQ, .partition_plus1 = 2),
			       &sub));
	CHECK_OK(shmq_sub_get_topic(sub, &info));
	CHECK_STR(info.name, "t");
	CHECK_EQ(info.subscribers, 1);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int never(void *arg, const struct shmq_msg *msg)
{
	(void)arg;
	(void)msg;
	FAIL("a handler was called for nothing");
}

TEST(receiving_nothing_tells_empty_from_timeout)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_ADAPTIVE, SHMQ_WAIT_SPIN, SHMQ_WAIT_YIELD,
						SHMQ_WAIT_SLEEP };
	struct shmq_msg msg;
	char buf[8];
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t");
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		shmq_sub *sub = open_sub(bus, "t", .wait = modes[i]);

		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_ERROR(shmq_receive(sub, &msg, MILLISECOND), SHMQ_ETIMEOUT);
		CHECK_ERROR(shmq_receive_copy(sub, buf, 8, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_ERROR(shmq_receive_copy(sub, buf, 8, &msg, MILLISECOND), SHMQ_ETIMEOUT);
		CHECK_ERROR(shmq_poll(sub, never, NULL, 8, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_ERROR(shmq_poll(sub, never, NULL, 8, MILLISECOND), SHMQ_ETIMEOUT);
		CHECK_ERROR(shmq_view_check(sub, &msg), SHMQ_EOPTION); /* no view is out */
		CHECK_OK(shmq_release(sub));
		CHECK_EQ(sub_stats(sub).received, 0);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- wait sets ------------------------------------------------------------------ */

TEST(a_wait_set_takes_subscribers_of_its_bus_once)
{
	shmq_bus *bus, *other;
	shmq_waitset *set, *second;
	shmq_sub *sub, *foreign, *ready[4];
	shmq_pub *pub;
	struct shmq_msg msg;

	shmq_waitset_destroy(NULL);
	test_bus_start();
	bus = test_bus_open();
	other = test_bus_open();
	create(bus, "t");
	sub = open_sub(bus, "t");
	foreign = open_sub(other, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_create(bus, &second));
	CHECK_ERROR(shmq_waitset_wait(set, ready, 4, SHMQ_NOWAIT), SHMQ_EEMPTY);
	/* An empty set has nothing to wait for. */
	CHECK_ERROR(shmq_waitset_wait(set, ready, 4, SHMQ_FOREVER), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_waitset_wait(set, ready, 0, SHMQ_NOWAIT), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_add(set, foreign), SHMQ_EOPTION);
	CHECK_OK(shmq_waitset_add(set, sub));
	CHECK_ERROR(shmq_waitset_add(set, sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_add(second, sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_remove(second, sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_wait(set, ready, 4, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_OK(shmq_publish(pub, "m", 1));
	CHECK_EQ(shmq_waitset_wait(set, ready, 4, PATIENCE), 1);
	CHECK(ready[0] == sub);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	/* What was handed out counts as read. */
	CHECK_ERROR(shmq_waitset_wait(set, ready, 4, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_OK(shmq_waitset_remove(set, sub));
	CHECK_ERROR(shmq_waitset_remove(set, sub), SHMQ_EOPTION);
	CHECK_OK(shmq_waitset_add(second, sub));
	CHECK_OK(shmq_publish(pub, "m", 1));
	CHECK_ERROR(shmq_waitset_wait(set, ready, 4, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(shmq_waitset_wait(second, ready, 4, SHMQ_NOWAIT), 1);
	shmq_sub_close(sub); /* leaves its set */
	CHECK_ERROR(shmq_waitset_wait(second, ready, 4, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_waitset_destroy(set);
	shmq_waitset_destroy(second);
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- inspection ------------------------------------------------------------------- */

static int stop_at_second(void *arg, const struct shmq_topic_info *info)
{
	(void)info;
	return ++*(int *)arg == 2 ? 42 : 0;
}

static int note_partition(void *arg, const struct shmq_partition_info *partition)
{
	struct shmq_partition_info *last = arg;

	CHECK_EQ(partition->partition, last->partition + 1);
	*last = *partition;
	return partition->partition == 2 ? 44 : 0;
}

static int stop_at_once(void *arg, const struct shmq_peer_info *peer)
{
	(void)arg;
	(void)peer;
	return 43;
}

TEST(inspection_shows_topics_partitions_and_peers)
{
	struct shmq_bus_options o = { .size = sizeof(o), .client_name = "watcher" };
	struct shmq_partition_info part;
	struct shmq_topic_info info;
	struct peers subs, pubs;
	struct shmq_msg msg = { .data = "12345", .len = 5, .partition = 1 };
	shmq_bus *bus, *watcher;
	shmq_pub *pub;
	shmq_sub *sub;
	int visits = 0;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &watcher));
	bus = test_bus_open();
	create(bus, "a", .depth = 1024, .partitions = 2);
	create(bus, "b");
	create(bus, "c");
	create(bus, "d", .depth = 1024, .partitions = 4);
	CHECK_EQ(shmq_topic_each(watcher, stop_at_second, &visits), 42);
	CHECK_EQ(visits, 2);
	CHECK_ERROR(shmq_topic_get_info(watcher, "z", &info), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_topic_get_partition(watcher, "z", 0, &part), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_topic_get_partition(watcher, "a", 2, &part), SHMQ_EOPTION);
	CHECK_ERROR(shmq_topic_get_partition(watcher, "a", UINT32_MAX, &part), SHMQ_EOPTION);
	CHECK_ERROR(shmq_partition_each(watcher, "z", note_partition, &part), SHMQ_ENOTOPIC);
	part.partition = UINT32_MAX;
	CHECK_EQ(shmq_partition_each(watcher, "d", note_partition, &part), 44);
	CHECK_EQ(part.partition, 2);
	CHECK_ERROR(shmq_peer_each(watcher, "z", stop_at_once, NULL), SHMQ_ENOTOPIC);
	CHECK_EQ(shmq_peer_each(watcher, "a", stop_at_once, NULL), 0); /* nobody there */
	pub = open_pub(bus, "a");
	sub = open_sub(watcher, "a", .partition_plus1 = 2);
	CHECK_EQ(shmq_peer_each(watcher, "a", stop_at_once, NULL), 43);
	for (int i = 0; i < 10; i++)
		CHECK_OK(shmq_publish_msg(pub, &msg));
	for (int i = 0; i < 4; i++)
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	info = topic_info(watcher, "a");
	CHECK_EQ(info.head, 10);
	CHECK_EQ(info.publishers, 1);
	CHECK_EQ(info.subscribers, 1);
	CHECK_OK(shmq_topic_get_partition(watcher, "a", 0, &part));
	CHECK_EQ(part.head, 0);
	CHECK_EQ(part.oldest, 0);
	CHECK_EQ(part.holder, -1);
	CHECK_OK(shmq_topic_get_partition(watcher, "a", 1, &part));
	CHECK_EQ(part.head, 10);
	CHECK_EQ(part.oldest, 0);
	CHECK_EQ(part.voids, 0);
	CHECK_EQ(part.holder, (int)shmq_bus_client_id(watcher));
	CHECK_EQ(part.holder_lag, 7); /* the fourth is being looked at */
	part.partition = UINT32_MAX;
	CHECK_OK(shmq_partition_each(watcher, "a", note_partition, &part));
	CHECK_EQ(part.partition, 1);
	CHECK_EQ(part.head, 10);
	CHECK_EQ(part.holder_lag, 7);
	subs = peers_of(bus, "a", SHMQ_ROLE_SUBSCRIBER);
	CHECK_EQ(subs.count, 1);
	CHECK_EQ(subs.gating, 1);
	CHECK_EQ(subs.lag, 7);
	CHECK_EQ(subs.sent_or_received, 4);
	CHECK_EQ(subs.last.bytes, 20);
	CHECK_EQ(subs.last.partition, 1);
	CHECK_EQ(subs.last.pid, getpid());
	CHECK_EQ(subs.last.uid, getuid());
	CHECK_STR(subs.last.client_name, "watcher");
	CHECK_EQ(subs.last.client_id, shmq_bus_client_id(watcher));
	CHECK_EQ(sub_stats(sub).lag, 7);
	pubs = peers_of(bus, "a", SHMQ_ROLE_PUBLISHER);
	CHECK_EQ(pubs.count, 1);
	CHECK_EQ(pubs.sent_or_received, 10);
	CHECK_EQ(pubs.last.bytes, 50);
	CHECK_EQ(pubs.last.partition, SHMQ_ANY_PARTITION);
	CHECK_EQ(pubs.last.client_id, shmq_bus_client_id(bus));
	CHECK_EQ(pub_stats(pub).sent, 10);
	CHECK_EQ(pub_stats(pub).sent_bytes, 50);
	CHECK_EQ(pub_stats(pub).dropped, 0);
	shmq_bus_close(watcher);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_client_sees_topics_that_others_make_after_it_came)
{
	shmq_bus *early, *late;

	test_bus_start();
	early = test_bus_open();
	late = test_bus_open();
	create(late, "small", .depth = 1024);
	create(late, "large", .depth = 65536, .slot_bytes = 256);
	CHECK_EQ(topic_info(early, "small").depth, 1024);
	CHECK_EQ(topic_info(early, "large").depth, 65536);
	CHECK_EQ(topics_on(early), 2);
	shmq_bus_close(early);
	shmq_bus_close(late);
	test_bus_stop();
}
