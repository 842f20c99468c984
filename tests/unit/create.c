/* SPDX-License-Identifier: MIT
 *
 * Requests that make, plan, remove and move topics: what is said on the
 * wire, what is refused before anything is said, and what becomes of
 * answers.
 */
#include "../../libshmq/bus.h"
#include "helpers.h"
#include "standin.h"

static unsigned requests(struct standin *s)
{
	return standin_count(s, PROTO_CREATE) + standin_count(s, PROTO_PLAN) +
	       standin_count(s, PROTO_REMOVE) + standin_count(s, PROTO_MOVE);
}

TEST(every_option_is_said_as_it_was_given)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	struct proto_options got;

	CHECK_OK(shmq_topic_create(
		bus, "md.equities",
		TOPIC_OPTIONS(.depth = 1 << 20, .slot_bytes = 4096, .partitions = 4096,
			      .max_message_bytes = 1 << 30, .mode = SHMQ_SHARED,
			      .policy = SHMQ_EVICT, .stall = SHMQ_STALL_REPORT,
			      .wait = SHMQ_WAIT_YIELD, .pages = SHMQ_PAGES_1G,
			      .lock = SHMQ_LOCK_ALWAYS, .node = SHMQ_NODE(6),
			      .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME | SHMQ_TOPIC_SPIN_ONLY,
			      .evict_ns = 12345678901, .block_timeout_ns = 77),
		NULL));
	CHECK_STR(standin_last(s, PROTO_CREATE).topic, "md.equities");
	got = standin_last(s, PROTO_CREATE).create;
	CHECK_EQ(got.depth, 1 << 20);
	CHECK_EQ(got.slot_bytes, 4096);
	CHECK_EQ(got.partitions, 4096);
	CHECK_EQ(got.max_bytes, 1 << 30);
	CHECK_EQ(got.mode, SHMQ_SHARED);
	CHECK_EQ(got.policy, SHMQ_EVICT);
	CHECK_EQ(got.stall, SHMQ_STALL_REPORT);
	CHECK_EQ(got.wait, SHMQ_WAIT_YIELD);
	CHECK_EQ(got.pages, SHMQ_PAGES_1G);
	CHECK_EQ(got.lock, SHMQ_LOCK_ALWAYS);
	CHECK_EQ(got.node, SHMQ_NODE(6));
	CHECK_EQ(got.flags, SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME | SHMQ_TOPIC_SPIN_ONLY);
	CHECK_EQ(got.evict_ns, 12345678901);
	CHECK_EQ(got.block_timeout_ns, 77);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(what_is_left_open_is_left_to_the_supervisor_and_the_caller_s_struct_stays)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	struct shmq_topic_options o = { .size = sizeof(o), .depth = 1025 }, before = o;
	struct shmq_plan plan;
	struct proto_options got;

	CHECK_OK(shmq_topic_plan(bus, "t", &o, &plan));
	CHECK_MEM(&o, &before, sizeof(o));
	got = standin_last(s, PROTO_PLAN).create;
	CHECK_EQ(got.depth, 1025);
	CHECK_EQ(got.slot_bytes, 0);
	CHECK_EQ(got.partitions, 0);
	CHECK_EQ(got.max_bytes, 0);
	CHECK_EQ(got.mode, 0);
	CHECK_EQ(got.policy, 0);
	CHECK_EQ(got.block_timeout_ns, 0);
	CHECK_OK(shmq_topic_plan(bus, "t", NULL, &plan));
	CHECK_EQ(standin_last(s, PROTO_PLAN).create.depth, 0);
	/* Options as an older program knows them: depth is the last. */
	o.size = offsetof(struct shmq_topic_options, slot_bytes);
	o.slot_bytes = 77;
	CHECK_OK(shmq_topic_plan(bus, "t", &o, &plan));
	CHECK_EQ(standin_last(s, PROTO_PLAN).create.slot_bytes, 0);
	CHECK_EQ(standin_count(s, PROTO_CREATE), 0);
	shmq_bus_close(bus);
	standin_free(s);
}

static void plan_full_of_numbers(struct standin_answer *a, void *arg)
{
	__typeof__(a->reply.plan) *p = &a->reply.plan;

	memset(p, 'n', sizeof(*p)); /* the texts without an end */
	p->ring_bytes = UINT64_MAX;
	p->control_bytes = 2;
	p->arena_bytes = 3;
	p->depth = 4;
	p->page_bytes = 5;
	p->available_bytes = 6;
	p->inline_bytes = 7;
	p->node = -8;
}

TEST(a_plan_is_what_the_supervisor_answered_and_its_texts_end)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	struct shmq_plan plan[2];

	standin_change_answers(s, PROTO_PLAN, plan_full_of_numbers, NULL);
	standin_change_answers(s, PROTO_CREATE, plan_full_of_numbers, NULL);
	memset(plan, 0xff, sizeof(plan));
	CHECK_OK(shmq_topic_plan(bus, "t", NULL, &plan[0]));
	CHECK_OK(shmq_topic_create(bus, "t", NULL, &plan[1]));
	CHECK_OK(shmq_topic_create(bus, "t", NULL, NULL));
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(plan[i].ring_bytes, UINT64_MAX);
		CHECK_EQ(plan[i].control_bytes, 2);
		CHECK_EQ(plan[i].arena_bytes, 3);
		CHECK_EQ(plan[i].depth, 4);
		CHECK_EQ(plan[i].page_bytes, 5);
		CHECK_EQ(plan[i].available_bytes, 6);
		CHECK_EQ(plan[i].inline_bytes, 7);
		CHECK_EQ(plan[i].node, -8);
		CHECK_EQ(strnlen(plan[i].source, sizeof(plan[i].source)), 127);
		CHECK_EQ(strnlen(plan[i].note, sizeof(plan[i].note)), 255);
	}
	shmq_bus_close(bus);
	standin_free(s);
}

static void refuse(struct standin_answer *a, void *arg)
{
	a->reply.error = SHMQ_ENOHUGE;
	snprintf(a->reply.why, sizeof(a->reply.why), "3 of 4 hugepages of %.99s are free",
		 a->req->topic);
	plan_full_of_numbers(a, NULL);
}

TEST(a_refusal_is_passed_on_and_the_plan_is_left_alone)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	struct shmq_plan plan = { .depth = 99 };

	for (int op = PROTO_PLAN; op <= PROTO_REMOVE; op++)
		standin_change_answers(s, (enum proto_op)op, refuse, NULL);
	standin_change_answers(s, PROTO_MOVE, refuse, NULL);
	CHECK_ERROR(shmq_topic_plan(bus, "a", NULL, &plan), SHMQ_ENOHUGE);
	CHECK_STR(shmq_bus_error(bus), "3 of 4 hugepages of a are free");
	CHECK_ERROR(shmq_topic_create(bus, "b", NULL, &plan), SHMQ_ENOHUGE);
	CHECK_STR(shmq_bus_error(bus), "3 of 4 hugepages of b are free");
	CHECK_ERROR(shmq_topic_remove(bus, "c", 0), SHMQ_ENOHUGE);
	CHECK_STR(shmq_bus_error(NULL), "3 of 4 hugepages of c are free");
	CHECK_ERROR(shmq_topic_move(bus, "d"), SHMQ_ENOHUGE);
	CHECK_STR(shmq_bus_error(NULL), "3 of 4 hugepages of d are free");
	CHECK_EQ(plan.depth, 99);
	standin_change_answers(s, PROTO_MOVE, NULL, NULL);
	CHECK_OK(shmq_topic_move(bus, "d"));
	CHECK_STR(shmq_bus_error(NULL), "");
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(what_cannot_be_is_refused_here_and_nobody_is_asked)
{
	static const struct {
		struct shmq_topic_options o;
		const char *says;
	} bad[] = {
		{ { .depth = (UINT64_C(1) << 32) + 1 }, "depth" },
		{ { .slot_bytes = 96 }, "slot bytes" },
		{ { .slot_bytes = 8192 }, "slot bytes" },
		{ { .partitions = 4097 }, "partitions" },
		{ { .max_message_bytes = (1 << 30) + 1 }, "1 GiB" },
		{ { .mode = (enum shmq_mode)3 }, "mode" },
		{ { .policy = (enum shmq_policy)5 }, "policy" },
		{ { .stall = (enum shmq_stall)3 }, "stall" },
		{ { .wait = (enum shmq_wait)5 }, "wait" },
		{ { .wait = SHMQ_WAIT_SLEEP, .flags = SHMQ_TOPIC_SPIN_ONLY }, "spin-only" },
		{ { .pages = (enum shmq_pages)5 }, "pages" },
		{ { .lock = (enum shmq_lock)4 }, "lock" },
		{ { .node = -2 }, "node" },
		{ { .flags = 32 }, "flag" },
		{ { .log = (enum shmq_log)4 }, "log" },
		{ { .log = SHMQ_LOG_BLOCK, .policy = SHMQ_LOSSY }, "lossy" },
		{ { .sync = SHMQ_SYNC_EVERY }, "need log" },
		{ { .log = SHMQ_LOG_GAP, .sync = (enum shmq_sync)5 }, "sync" },
		{ { .log = SHMQ_LOG_GAP, .sync_ns = -1 }, "times" },
		{ { .log = SHMQ_LOG_GAP, .segment_bytes = 4096 }, "segment bytes" },
		{ { .log = SHMQ_LOG_GAP, .flags = SHMQ_TOPIC_RETAIN_CURSORS }, "retain" },
		{ { .evict_ns = -1 }, "evict" },
		{ { .block_timeout_ns = -2 }, "block timeout" },
	};
	static const char *names[] = { "", ".a", "a.", "a..b", "a b", "$bus" };
	struct {
		struct shmq_topic_options o;
		int unknown;
	} longer = { .o.size = sizeof(longer), .unknown = 1 };
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	struct shmq_plan plan;

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct shmq_topic_options o = bad[i].o;

		o.size = sizeof(o);
		CHECK_ERROR(shmq_topic_plan(bus, "t", &o, &plan), SHMQ_EOPTION);
		check_says(bad[i].says);
		CHECK_ERROR(shmq_topic_create(bus, "t", &o, NULL), SHMQ_EOPTION);
		check_says(bad[i].says);
	}
	CHECK_ERROR(shmq_topic_create(bus, "t", &longer.o, NULL), SHMQ_EOPTION);
	check_says("newer libshmq");
	longer.o.size = 0;
	CHECK_ERROR(shmq_topic_create(bus, "t", &longer.o, NULL), SHMQ_EOPTION);
	check_says("size is not set");
	for (size_t i = 0; i < COUNT(names); i++) {
		CHECK_ERROR(shmq_topic_create(bus, names[i], NULL, NULL), SHMQ_ENAME);
		CHECK_NE(shmq_bus_error(bus)[0], 0);
		CHECK_ERROR(shmq_topic_plan(bus, names[i], NULL, &plan), SHMQ_ENAME);
		CHECK_ERROR(shmq_topic_remove(bus, names[i], 0), SHMQ_ENAME);
		CHECK_ERROR(shmq_topic_move(bus, names[i]), SHMQ_ENAME);
	}
	CHECK_ERROR(shmq_topic_remove(bus, "t", 2), SHMQ_EOPTION);
	check_says("unknown flag");
	CHECK_EQ(requests(s), 0);
	CHECK_OK(shmq_topic_remove(bus, "t", SHMQ_FORCE));
	CHECK_EQ(standin_last(s, PROTO_REMOVE).remove.flags, SHMQ_FORCE);
	CHECK_STR(shmq_bus_error(bus), "");
	shmq_bus_close(bus);
	standin_free(s);
}

static int refuses(void *arg)
{
	shmq_bus *bus = arg;
	struct shmq_plan plan;

	CHECK_ERROR(shmq_topic_plan(bus, "t", NULL, &plan), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_create(bus, "t", NULL, &plan), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_remove(bus, "t", 0), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_move(bus, "t"), SHMQ_EFORKED);
	/* Forked comes first: nothing else is right there. */
	CHECK_ERROR(shmq_topic_create(bus, "", NULL, &plan), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_remove(bus, "", 9), SHMQ_EFORKED);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_child_asks_for_nothing)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	CHECK_EQ(test_join(test_spawn(refuses, bus)), 0);
	CHECK_EQ(requests(s), 0);
	CHECK_OK(shmq_topic_move(bus, "t"));
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(each_thread_has_the_line_of_its_own_last_failure)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	const char *line;

	CHECK_ERROR(shmq_topic_move(bus, "a b"), SHMQ_ENAME);
	line = shmq_bus_error(bus);
	CHECK(strstr(line, "byte 2"));
	CHECK_EQ(shmq_topic_check_name("a..b"), SHMQ_ENAME); /* no such call */
	CHECK(strstr(line, "byte 2"));
	shmq_bus_close(bus);
	standin_free(s);
}
