/* SPDX-License-Identifier: MIT
 *
 * The publisher handle: opening it against a supervisor that is away or
 * silent, flushing, waiting for subscribers, a forked child.
 */
#include "publisher.h"

static void said_of(shmq_bus *bus, const char *what, const char *which)
{
	char text[64];

	snprintf(text, sizeof(text), "%s: %s is out of range", what, which);
	CHECK_STR(shmq_bus_error(bus), text);
}

TEST(options_of_a_publisher_out_of_range_are_refused_and_nobody_is_asked)
{
	static const struct shmq_pub_options bad[] = {
		{ .wake = (enum shmq_wake)3 }, { .wake = (enum shmq_wake) - 1 }, { .wake_ns = -1 },
		{ .block_timeout_ns = -2 },    { .wait = (enum shmq_wait)5 },    { .flags = 2 },
	};
	static const char *const which[] = { "wake", "wake", "wake_ns", "block_timeout_ns",
					     "wait", "flags" };
	struct {
		struct shmq_pub_options o;
		char unknown;
	} longer = { .o.size = sizeof(longer), .unknown = 1 };
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_pub *pub;

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct shmq_pub_options o = bad[i];

		o.size = sizeof(o);
		CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, &o, &pub), SHMQ_EOPTION);
		CHECK(!pub);
		said_of(bus, "publisher options", which[i]);
	}
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, &longer.o, &pub), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(bus), "newer libshmq"));
	CHECK_ERROR(shmq_pub_open(bus, "no..name", NULL, &pub), SHMQ_ENAME);
	CHECK_EQ(standin_count(s, PROTO_OPEN), 0);
	CHECK_ERROR(shmq_pub_open(bus, "absent", NULL, &pub), SHMQ_ENOTOPIC);
	CHECK_STR(shmq_bus_error(bus), "no \"absent\" here");
	shmq_pub_close(NULL);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(what_a_publisher_asks_for_is_said)
{
	struct standin *s = standin_new(&(struct fake_options){ .max_bytes = 9999 });
	shmq_bus *bus = standin_bus(s);
	struct proto_request req;

	shmq_pub_close(open_pub(bus, STANDIN_TOPIC, .arena_bytes = 123456));
	req = standin_last(s, PROTO_OPEN);
	CHECK_EQ(req.open.role, SHMQ_ROLE_PUBLISHER);
	CHECK_EQ(req.open.partition, -1);
	CHECK_EQ(req.open.arena_bytes, 123456);
	CHECK_EQ(standin_last(s, PROTO_CLOSE).close.handle, req.token);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(whichever_allocation_fails_no_publisher_and_no_piece_of_one_is_left)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 3,
							.mode = SHMQ_SHARED,
							.max_bytes = 5000,
							.arena_bytes = 1 << 16 },
				NULL);
	unsigned k, fds = (unsigned)test_fd_count();
	int met = 1;

	for (k = 1; met; k++) {
		shmq_pub *pub;
		int rc;

		scarce_begin(k);
		rc = shmq_pub_open(c.bus, STANDIN_TOPIC, NULL, &pub);
		met = scarce_end();
		if (rc) {
			CHECK(!pub);
			CHECK(rc == -ENOMEM || rc == SHMQ_ELIMIT);
		}
		shmq_pub_close(pub);
		CHECK_EQ(standin_count(c.s, PROTO_CLOSE), k);
		CHECK_EQ(load_relaxed(&c.f->rec->publishers), 1);
		CHECK_LE(test_fd_count(), fds);
	}
	CHECK_GT(k, 8);
	tear_down(&c);
}

TEST(a_flush_waits_for_those_attached_and_only_for_what_was_sent)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_EVICT };

	for (size_t i = 0; i < COUNT(policies) * COUNT(bases); i++) {
		uint64_t base = bases[i / COUNT(policies)];
		struct scene c = set_up(&(struct fake_options){ .policy = policies[i % 3],
								.base_seq = base },
					NULL);

		store_release(c.cursor, base - 1); /* behind all there is, and still */
		CHECK_OK(shmq_flush(c.pub, SHMQ_NOWAIT));
		store_release(c.cursor, base);
		publish_seq(c.pub);
		CHECK_ERROR(shmq_flush(c.pub, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
		CHECK_ERROR(shmq_flush(c.pub, 1), SHMQ_ETIMEOUT);
		publish_seq(c.pub);
		store_release(c.cursor, base + 1);
		CHECK_ERROR(shmq_flush(c.pub, 1), SHMQ_ETIMEOUT);
		store_release(c.cursor, base + 2);
		CHECK_OK(shmq_flush(c.pub, SHMQ_NOWAIT));
		publish_seq(c.pub);
		shmq__topic_remove_member(c.f->topic, c.sub);
		CHECK_OK(shmq_flush(c.pub, SHMQ_FOREVER));
		CHECK_EQ(standin_count(c.s, PROTO_REPORT), 0); /* nobody was evicted for it */
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		tear_down(&c);
	}
}

TEST(a_flush_changes_nothing_of_how_the_publisher_waits_otherwise)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_DROP_NEW }, NULL);

	publish_seq(c.pub);
	CHECK_ERROR(shmq_flush(c.pub, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(publish_all(c.pub, SHMQ_EFULL), FAKE_DEPTH - 1); /* at once */
	store_release(&ring(&c, 0)->state, LAY_RING_ENDED);
	CHECK_ERROR(shmq_flush(c.pub, SHMQ_FOREVER), SHMQ_EENDED);
	tear_down(&c);
}

static void *announce_one(void *arg)
{
	struct scene *c = arg;

	add_relaxed(&c->f->rec->subscribers, 1);
	shmq__topic_announce(c->f->rec);
	return NULL;
}

static void *end_topic(void *arg)
{
	struct scene *c = arg;

	shmq__topic_end(c->f->topic);
	return NULL;
}

TEST(subscribers_are_waited_for_until_they_come_or_the_topic_ends)
{
	struct scene c = set_up(NULL, NULL);
	pthread_t thread;

	CHECK_OK(shmq_pub_wait_subscribers(c.pub, 0, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_pub_wait_subscribers(c.pub, 1, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
	CHECK_ERROR(shmq_pub_wait_subscribers(c.pub, 1, MILLISECOND), SHMQ_ETIMEOUT);
	thread = fake_thread(announce_one, &c);
	CHECK_OK(shmq_pub_wait_subscribers(c.pub, 1, SHMQ_FOREVER));
	fake_join(thread);
	thread = fake_thread(end_topic, &c);
	CHECK_ERROR(shmq_pub_wait_subscribers(c.pub, 2, SHMQ_FOREVER), SHMQ_EENDED);
	fake_join(thread);
	CHECK_OK(shmq_pub_wait_subscribers(c.pub, 1, SHMQ_NOWAIT));
	tear_down(&c);
}

static int refuses(void *arg)
{
	struct scene *c = arg;
	struct shmq_msg m = { .data = "m", .len = 1 };
	void *data;

	CHECK_ERROR(shmq_publish(c->pub, "x", 1), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish(c->pub, "x", SIZE_MAX), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_msg(c->pub, &m), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_iov(c->pub, &m, NULL, -1), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_batch(c->pub, &m, 1, 99), SHMQ_EFORKED);
	CHECK_ERROR(shmq_claim(c->pub, 1, &data), SHMQ_EFORKED);
	CHECK_ERROR(shmq_commit(c->pub, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_abort(c->pub), SHMQ_EFORKED);
	CHECK_ERROR(shmq_flush(c->pub, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_pub_wait_subscribers(c->pub, 9, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_EQ(pub_stats(c->pub).sent, 0);
	shmq_pub_close(c->pub);
	shmq_bus_close(c->bus);
	return 0;
}

TEST(a_child_publishes_nothing)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1000, .arena_bytes = 1 << 16 }, NULL);

	publish_seq(c.pub);
	CHECK_EQ(test_join(test_spawn(refuses, &c)), 0);
	CHECK_EQ(standin_count(c.s, PROTO_CLOSE), 0);
	CHECK_EQ(publish_seq(c.pub), 1);
	CHECK_EQ(pub_stats(c.pub).sent, 2);
	tear_down(&c);
}
