/* SPDX-License-Identifier: MIT
 *
 * What a subscriber measures, of messages whose times the test writes.
 */
#include "clock.h"
#include "subscriber.h"

static const struct fake_options stamped = { .flags = SHMQ_TOPIC_TIME };

/* A message that was published so long ago; below zero: is yet to be. */
static void publish_aged(struct scene *c, int64_t age_ns)
{
	uint64_t n = c->w.next - c->f->base_seq;
	char *at = write_slot(c, 0, sizeof(n));
	struct lay_slot_extra extra = { .ts = shmq__clock_realtime_ns() - (uint64_t)age_ns };

	memcpy(at - sizeof(extra), &extra, sizeof(extra));
	memcpy(at, &n, sizeof(n));
	commit(c);
}

static struct shmq_latency latency(const shmq_sub *sub)
{
	struct shmq_latency l;

	CHECK_OK(shmq_sub_get_latency(sub, &l));
	return l;
}

TEST(without_times_nothing_can_be_measured)
{
	struct scene c = set_up(NULL, NULL);
	struct shmq_latency l = { .count = 9 };
	uint64_t ns = 9;

	CHECK_ERROR(shmq_sub_latency_start(c.sub), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(c.bus), "SHMQ_TOPIC_TIME"));
	CHECK_ERROR(shmq_sub_get_latency(c.sub, &l), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(c.bus), "shmq_sub_latency_start()"));
	CHECK_EQ(l.count, 0);
	CHECK_ERROR(shmq_sub_latency_at(c.sub, 0.5, &ns), SHMQ_EOPTION);
	CHECK_EQ(ns, 0);
	CHECK_OK(shmq_sub_latency_stop(c.sub));
	publish(&c, 1);
	check_next(&c, 0);
	tear_down(&c);
}

TEST(messages_are_measured_between_start_and_stop_alone)
{
	struct scene c = set_up(&stamped, NULL);
	struct shmq_latency l;
	unsigned i;

	publish_aged(&c, SECOND);
	check_next(&c, 0);
	CHECK_OK(shmq_sub_latency_start(c.sub));
	CHECK_EQ(latency(c.sub).count, 0);
	CHECK_EQ(latency(c.sub).least_ns, 0);
	for (i = 1; i <= 10; i++) {
		publish_aged(&c, 10 * SECOND);
		check_next(&c, i);
	}
	l = latency(c.sub);
	CHECK_EQ(l.count, 10);
	CHECK_EQ(l.early, 0);
	CHECK_GE(l.least_ns, 10 * SECOND);
	CHECK_GE(l.p50_ns, l.least_ns);
	CHECK_GE(l.p90_ns, l.p50_ns);
	CHECK_GE(l.p99_ns, l.p90_ns);
	CHECK_GE(l.p999_ns, l.p99_ns);
	CHECK_GE(l.most_ns, l.p999_ns);
	CHECK_GE(l.mean_ns, l.least_ns);
	CHECK_LE(l.mean_ns, l.most_ns);
	CHECK_OK(shmq_sub_latency_start(c.sub)); /* afresh */
	CHECK_EQ(latency(c.sub).count, 0);
	CHECK_OK(shmq_sub_latency_stop(c.sub));
	publish_aged(&c, SECOND);
	check_next(&c, 11);
	CHECK_ERROR(shmq_sub_get_latency(c.sub, &l), SHMQ_EOPTION);
	tear_down(&c);
}

TEST(what_has_no_time_is_not_counted_and_what_is_early_is_said)
{
	struct scene c = set_up(&stamped, NULL);

	CHECK_OK(shmq_sub_latency_start(c.sub));
	publish_aged(&c, (int64_t)shmq__clock_realtime_ns() + SECOND); /* wraps: no age */
	memset((char *)slot_of(&c, c.w.next - 1) + 16, 0, sizeof(struct lay_slot_extra));
	check_next(&c, 0);
	CHECK_EQ(latency(c.sub).count, 0);
	publish_aged(&c, -1000 * SECOND);
	check_next(&c, 1);
	CHECK_EQ(latency(c.sub).count, 1);
	CHECK_EQ(latency(c.sub).early, 1);
	CHECK_EQ(latency(c.sub).most_ns, 0);
	tear_down(&c);
}

TEST(a_message_that_is_asked_for_again_is_counted_once)
{
	struct scene c = set_up(&stamped, NULL);
	struct shmq_msg m;
	char small;

	CHECK_OK(shmq_sub_latency_start(c.sub));
	publish_aged(&c, SECOND);
	CHECK_ERROR(shmq_receive_copy(c.sub, &small, 1, &m, SHMQ_NOWAIT), SHMQ_EBUFFER);
	CHECK_ERROR(shmq_receive_copy(c.sub, &small, 1, &m, SHMQ_NOWAIT), SHMQ_EBUFFER);
	check_next(&c, 0);
	CHECK_EQ(latency(c.sub).count, 1);
	CHECK_EQ(sub_stats(c.sub).received, 1);
	CHECK_EQ(sub_stats(c.sub).received_bytes, 8);
	tear_down(&c);
}

struct sum {
	uint64_t count, last;
	unsigned buckets;
	int stop;
};

static int add_bucket(void *arg, const struct shmq_latency_bucket *b)
{
	struct sum *sum = arg;

	CHECK_GT(b->count, 0);
	CHECK(!sum->buckets || b->from_ns > sum->last);
	CHECK_GE(b->to_ns, b->from_ns);
	sum->last = b->to_ns;
	sum->count += b->count;
	sum->buckets++;
	return sum->stop;
}

TEST(buckets_hold_all_that_was_counted_from_the_shortest_on)
{
	struct scene c = set_up(&stamped, NULL);
	struct sum sum = { 0 };
	uint64_t ns;
	unsigned i;

	CHECK_OK(shmq_sub_latency_start(c.sub));
	for (i = 0; i < 20; i++) {
		publish_aged(&c, (int64_t)(i + 1) * 1000 * SECOND);
		check_next(&c, i);
	}
	CHECK_OK(shmq_sub_latency_each(c.sub, add_bucket, &sum));
	CHECK_EQ(sum.count, 20);
	CHECK_GT(sum.buckets, 10);
	sum = (struct sum){ .stop = 7 };
	CHECK_EQ(shmq_sub_latency_each(c.sub, add_bucket, &sum), 7);
	CHECK_EQ(sum.buckets, 1);
	CHECK_OK(shmq_sub_latency_at(c.sub, 0.05, &ns));
	CHECK_GE(ns, 1000 * SECOND);
	CHECK_LE(ns, 1040 * SECOND);
	CHECK_OK(shmq_sub_latency_at(c.sub, 1, &ns));
	CHECK_EQ(ns, latency(c.sub).most_ns);
	CHECK_ERROR(shmq_sub_latency_at(c.sub, 1.1, &ns), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_latency_at(c.sub, -0.1, &ns), SHMQ_EOPTION);
	tear_down(&c);
}

TEST(others_see_what_is_measured_and_no_longer_when_it_is_not)
{
	struct scene c = set_up(&stamped, NULL);
	struct shmq_peer_info peer;

	CHECK_OK(shmq_sub_latency_start(c.sub));
	publish_aged(&c, 10 * SECOND);
	check_next(&c, 0); /* the first is shown at once */
	peer = peers_of(c.bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).last;
	CHECK_GE(peer.p50_ns, 10 * SECOND);
	CHECK_GE(peer.most_ns, peer.p50_ns);
	CHECK_LT(peer.most_ns, 1000 * SECOND);
	publish_aged(&c, 1000 * SECOND);
	check_next(&c, 1);
	/* Before it sleeps it shows the rest; held up meanwhile, it may not come to sleep. */
	while (!sub_stats(c.sub).sleeps)
		CHECK_ERROR(shmq_receive(c.sub, &(struct shmq_msg){ 0 }, 10 * MILLISECOND),
			    SHMQ_ETIMEOUT);
	peer = peers_of(c.bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).last;
	CHECK_GE(peer.most_ns, 1000 * SECOND);
	CHECK_EQ(peer.waits, sub_stats(c.sub).sleeps);
	CHECK_GT(peer.waits, 0);
	CHECK_OK(shmq_sub_latency_stop(c.sub));
	peer = peers_of(c.bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).last;
	CHECK_EQ(peer.p50_ns | peer.most_ns, 0);
	tear_down(&c);
}

TEST(messages_of_all_partitions_are_measured)
{
	struct scene c =
		set_up(&(struct fake_options){ .flags = SHMQ_TOPIC_TIME, .partitions = 2 }, NULL);
	struct ring_writer first = c.w;

	CHECK_OK(shmq_sub_latency_start(c.sub));
	publish_aged(&c, SECOND);
	first = c.w;
	c.w = fake_writer(c.f, c.pub, 1);
	c.w.limit = first.limit;
	publish_aged(&c, SECOND); /* of the same seq */
	check_next(&c, 0);
	CHECK_OK(shmq_receive(c.sub, &(struct shmq_msg){ 0 }, SHMQ_NOWAIT));
	CHECK_EQ(latency(c.sub).count, 2);
	tear_down(&c);
}
