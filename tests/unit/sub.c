/* SPDX-License-Identifier: MIT
 *
 * The subscriber handle: opening it against a supervisor that is away or
 * silent, and a forked child.
 */
#include "subscriber.h"

TEST(options_of_a_subscriber_out_of_range_are_refused_and_nobody_is_asked)
{
	static const struct shmq_sub_options bad[] = {
		{ .from = (enum shmq_from)6 },
		{ .partition_plus1 = -1 },
		{ .wait = (enum shmq_wait)5 },
		{ .spin_ns = -1 },
		{ .flags = 32 },
		{ .flags = SHMQ_SUB_CONFLATE, .cursor = "c" },
	};
	struct {
		struct shmq_sub_options o;
		char unknown;
	} longer = { .o.size = sizeof(longer), .unknown = 1 };
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub;

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct shmq_sub_options o = bad[i];

		o.size = sizeof(o);
		CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, &o, &sub), SHMQ_EOPTION);
		CHECK(!sub);
		CHECK(strstr(shmq_bus_error(bus), "subscriber options"));
	}
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, &longer.o, &sub), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(bus), "newer libshmq"));
	CHECK_ERROR(shmq_sub_open(bus, "", NULL, &sub), SHMQ_ENAME);
	CHECK_EQ(standin_count(s, PROTO_OPEN), 0);
	shmq_sub_close(NULL);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(what_a_subscriber_asks_for_is_said)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 3 });
	shmq_bus *bus = standin_bus(s);
	struct proto_request req;

	shmq_sub_close(open_sub(bus, STANDIN_TOPIC));
	req = standin_last(s, PROTO_OPEN);
	CHECK_EQ(req.open.role, SHMQ_ROLE_SUBSCRIBER);
	CHECK_EQ(req.open.from, SHMQ_FROM_LATEST);
	CHECK_EQ(req.open.partition, -1);
	shmq_sub_close(open_sub(bus, STANDIN_TOPIC, .from = SHMQ_FROM_SEQ, .seq = UINT64_MAX,
				.partition_plus1 = 3));
	req = standin_last(s, PROTO_OPEN);
	CHECK_EQ(req.open.from, SHMQ_FROM_SEQ);
	CHECK_EQ(req.open.seq, UINT64_MAX);
	CHECK_EQ(req.open.partition, 2);
	CHECK_EQ(standin_last(s, PROTO_CLOSE).close.handle, req.token);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(whichever_allocation_fails_no_subscriber_and_no_piece_of_one_is_left)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 3 }, NULL);
	unsigned k;
	int met = 1;

	for (k = 1; met; k++) {
		shmq_sub *sub;
		int rc;

		scarce_begin(k);
		rc = shmq_sub_open(c.bus, STANDIN_TOPIC, NULL, &sub);
		met = scarce_end();
		if (rc) {
			CHECK(!sub);
			CHECK(rc == -ENOMEM || rc == SHMQ_ELIMIT);
		}
		shmq_sub_close(sub);
		CHECK_EQ(standin_count(c.s, PROTO_CLOSE), k);
		CHECK_EQ(load_relaxed(&c.f->rec->subscribers), 1);
	}
	CHECK_GT(k, 7);
	tear_down(&c);
}

static int refuses(void *arg)
{
	struct scene *c = arg;
	struct seen seen = { 0 };
	struct shmq_msg m;
	char buf[64];

	CHECK_ERROR(shmq_receive(c->sub, &m, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_receive_copy(c->sub, buf, sizeof(buf), &m, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_poll(c->sub, see, &seen, 1, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_view_check(c->sub, &m), SHMQ_EFORKED);
	CHECK_ERROR(shmq_release(c->sub), SHMQ_EFORKED);
	CHECK_EQ(sub_stats(c->sub).received, 0);
	CHECK_ERROR(shmq_sub_latency_start(c->sub), SHMQ_EFORKED);
	CHECK_ERROR(shmq_sub_latency_stop(c->sub), SHMQ_EFORKED);
	shmq_sub_close(c->sub);
	shmq_bus_close(c->bus);
	return 0;
}

TEST(a_child_receives_nothing)
{
	struct scene c = set_up(&lossy, NULL);

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	check_member(&c, 0, 0); /* the rest is copied: a child frees it */
	CHECK_EQ(test_join(test_spawn(refuses, &c)), 0);
	CHECK_EQ(standin_count(c.s, PROTO_CLOSE), 0);
	check_member(&c, 1, 1);
	CHECK_EQ(sub_stats(c.sub).received, 2);
	tear_down(&c);
}
