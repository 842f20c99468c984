/* SPDX-License-Identifier: MIT
 *
 * What is read of shared memory for people: records that are half written,
 * without an end, or of those who left.
 */
#include "../../libshmq/bus.h"
#include "helpers.h"
#include "memory.h"
#include "standin.h"

static const uint64_t bases[] = FAKE_BASES;

/* Publish n messages by hand. */
static void publish(struct fake *f, struct lay_member *m, uint32_t p, unsigned n)
{
	struct ring_writer w = fake_writer(f, m, p);

	w.limit = w.next + n;
	while (n--)
		fake_publish(&w, n);
}

static struct shmq_partition_info partition(shmq_bus *bus, uint32_t p)
{
	struct shmq_partition_info info;

	CHECK_OK(shmq_topic_get_partition(bus, STANDIN_TOPIC, p, &info));
	return info;
}

TEST(a_bus_is_described_by_its_registry)
{
	struct standin *s = standin_new(NULL);
	struct lay_registry *r = standin_fake(s)->registry;
	shmq_bus *bus = standin_bus(s);
	struct shmq_bus_info info;

	memset(r->name, 'b', sizeof(r->name)); /* without its end */
	store_relaxed(&r->control_pid, 11);
	store_relaxed(&r->parent_pid, 12);
	store_relaxed(&r->epoch, 13);
	store_relaxed(&r->topics_live, 14);
	store_relaxed(&r->clients_live, 15);
	store_relaxed(&r->bytes_used, 16);
	r->started_ns = 17;
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(strnlen(info.name, sizeof(info.name)), SHMQ_BUS_NAME_MAX);
	CHECK_EQ(info.daemon_pid, 11);
	CHECK_EQ(info.parent_pid, 12);
	CHECK_EQ(info.epoch, 13);
	CHECK_EQ(info.topics, 14);
	CHECK_EQ(info.clients, 15);
	CHECK_EQ(info.bytes, 16);
	CHECK_EQ(info.started_ns, 17);
	CHECK_EQ(info.layout_version, LAY_VERSION);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_topic_is_described_by_its_record_and_its_rings)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 3,
								.mode = SHMQ_SHARED,
								.policy = SHMQ_DROP_NEW,
								.base_seq = UINT64_MAX - 1 });
	struct fake *f = standin_fake(s);
	struct lay_member *m = fake_publisher(f, fake_client(f, getpid())), *one;
	shmq_bus *bus = standin_bus(s);
	struct shmq_topic_info info;

	memset(f->rec->note, 'n', sizeof(f->rec->note));
	f->rec->node_asked = SHMQ_NODE(1);
	f->rec->node_actual = SHMQ_NODE(2);
	f->rec->locked = 1;
	f->rec->page_shift = 64 + 21; /* no shift of ours may be undefined */
	store_relaxed(&f->rec->publishers, 1);
	store_relaxed(&f->rec->subscribers, 2);
	publish(f, m, 0, 3);
	publish(f, m, 2, 2);
	/* Asleep: one of all partitions, one of the last; a publisher is not. */
	store_relaxed(&fake_entry(f, fake_subscriber(f, m->client, SHMQ_FROM_LATEST, 0), 0)->asleep,
		      1);
	one = fake_member(f, m->client, 2);
	shmq__topic_publish_member(f->topic, one, LAY_MEMBER_SUBSCRIBER);
	store_relaxed(&fake_entry(f, one, 2)->asleep, 1);
	store_relaxed(&fake_entry(f, m, 0)->asleep, 1);
	one = fake_member(f, m->client, -1); /* its entry went to another */
	shmq__topic_publish_member(f->topic, one, LAY_MEMBER_SUBSCRIBER);
	store_relaxed(&fake_entry(f, one, 0)->asleep, 1);
	add_relaxed(&fake_entry(f, one, 0)->gen, 1);
	CHECK_OK(shmq_topic_get_info(bus, STANDIN_TOPIC, &info));
	CHECK_STR(info.name, STANDIN_TOPIC);
	CHECK_EQ(info.id, f->rec->id);
	CHECK_EQ(info.depth, FAKE_DEPTH);
	CHECK_EQ(info.slot_bytes, 64);
	CHECK_EQ(info.inline_bytes, 48);
	CHECK_EQ(info.max_message_bytes, 48);
	CHECK_EQ(info.partitions, 3);
	CHECK_EQ(info.mode, SHMQ_SHARED);
	CHECK_EQ(info.policy, SHMQ_DROP_NEW);
	CHECK_EQ(info.stall, SHMQ_STALL_REPORT);
	CHECK_EQ(info.wait, SHMQ_WAIT_ADAPTIVE);
	CHECK_EQ(info.ended, 0);
	CHECK_EQ(info.ring_bytes, 3 * f->geo.ring_bytes);
	CHECK_EQ(info.page_bytes, 1 << 21);
	CHECK_EQ(info.node_asked, SHMQ_NODE(1));
	CHECK_EQ(info.node_actual, SHMQ_NODE(2));
	CHECK_EQ(info.locked, 1);
	CHECK_EQ(info.publishers, 1);
	CHECK_EQ(info.subscribers, 2);
	CHECK_EQ(info.head, 5); /* also over the end of the numbers */
	CHECK_EQ(info.sleepers, 2);
	CHECK_EQ(strnlen(info.note, sizeof(info.note)), sizeof(info.note) - 1);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(inspection_needs_no_supervisor)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
	struct shmq_topic_info info;
	struct shmq_bus_info about;

	standin_leave(s);
	CHECK_OK(shmq_publish(pub, "x", 1));
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).head, 1);
	CHECK_EQ(partition(bus, 0).holder, 1);
	CHECK_EQ(peers_of(bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).lag, 1);
	CHECK_OK(shmq_pub_get_topic(pub, &info));
	CHECK_STR(info.name, STANDIN_TOPIC);
	CHECK_OK(shmq_sub_get_topic(sub, &info));
	CHECK_EQ(info.head, 1);
	CHECK_OK(shmq_bus_get_info(bus, &about));
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(names_are_checked_and_looked_for_among_the_living)
{
	struct standin *s = standin_new(NULL);
	struct fake *f = standin_fake(s);
	shmq_bus *bus = standin_bus(s);
	struct shmq_topic_info info;
	struct shmq_partition_info part;

	CHECK_ERROR(shmq_topic_get_info(bus, "a b", &info), SHMQ_ENAME);
	CHECK_ERROR(shmq_topic_get_info(bus, "fak", &info), SHMQ_ENOTOPIC);
	CHECK(strstr(shmq_bus_error(bus), "there is no topic \"fak\""));
	CHECK_ERROR(shmq_topic_get_info(bus, "$fake", &info), SHMQ_ENOTOPIC); /* may be asked for */
	CHECK_ERROR(shmq_topic_get_partition(bus, "fake.x", 0, &part), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_peer_each(bus, "fakes", add_peer, &(struct peers){ 0 }), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_topic_get_partition(bus, STANDIN_TOPIC, 1, &part), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(bus), "has no partition 1"));
	CHECK_OK(shmq_topic_get_partition(bus, STANDIN_TOPIC, 0, &part));
	shmq__topic_end(f->topic);
	CHECK_ERROR(shmq_topic_get_info(bus, STANDIN_TOPIC, &info), SHMQ_ENOTOPIC);
	shmq_bus_close(bus);
	standin_free(s);
}

static int count_topics(void *arg, const struct shmq_topic_info *info)
{
	unsigned *seen = arg;

	seen[info->ended]++;
	return seen[2];
}

TEST(each_topic_that_is_or_was_and_has_memory_is_visited)
{
	struct standin *s = standin_new(NULL);
	struct fake *f = standin_fake(s);
	struct lay_topic *second, *third;
	shmq_bus *bus = standin_bus(s);
	unsigned seen[3] = { 0 };

	store_release(&f->registry->topic_count, 3);
	second = shmq__slabs_topic(f->slabs, 1);
	third = shmq__slabs_topic(f->slabs, 2);
	memcpy(second, f->rec, sizeof(*second));
	memcpy(third, f->rec, sizeof(*third));
	store_release(&second->state, LAY_TOPIC_CREATING);
	third->depth = 1000; /* no power of two: as if it went meanwhile */
	CHECK_OK(shmq_topic_each(bus, count_topics, seen));
	CHECK_EQ(seen[0], 1);
	CHECK_EQ(seen[1], 0);
	third->depth = f->rec->depth;
	store_release(&third->state, LAY_TOPIC_ENDED);
	store_release(&second->state, LAY_TOPIC_FREE);
	CHECK_OK(shmq_topic_each(bus, count_topics, seen));
	CHECK_EQ(seen[0], 2);
	CHECK_EQ(seen[1], 1);
	seen[2] = 42; /* stop at the first */
	CHECK_EQ(shmq_topic_each(bus, count_topics, seen), 42);
	CHECK_EQ(seen[0], 3);
	CHECK_EQ(seen[1], 1);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_record_that_makes_no_sense_is_corrupt_by_name)
{
	struct standin *s = standin_new(NULL);
	struct fake *f = standin_fake(s);
	shmq_bus *bus = standin_bus(s);
	struct shmq_topic_info info;
	struct shmq_partition_info part;
	lay_ref array = f->rec->partition_array;

	f->rec->slot_bytes = 65;
	CHECK_ERROR(shmq_topic_get_info(bus, STANDIN_TOPIC, &info), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_topic_get_partition(bus, STANDIN_TOPIC, 0, &part), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_peer_each(bus, STANDIN_TOPIC, add_peer, &(struct peers){ 0 }),
		    SHMQ_ECORRUPT);
	f->rec->slot_bytes = 64;
	f->rec->partition_array = LAY_REF(FAKE_REGISTRY, LAY_REGISTRY_BYTES);
	CHECK_ERROR(shmq_topic_get_info(bus, STANDIN_TOPIC, &info), SHMQ_ECORRUPT);
	f->rec->partition_array = array;
	CHECK_OK(shmq_topic_get_info(bus, STANDIN_TOPIC, &info));
	shmq_bus_close(bus);
	standin_free(s);
}

static int keep_topic(void *arg, const struct shmq_topic_info *info)
{
	*(struct shmq_topic_info *)arg = *info;
	return 0;
}

static int keep_client(void *arg, const struct shmq_client_info *info)
{
	*(struct shmq_client_info *)arg = *info;
	return 0;
}

/* Root may look at the bus of a user, who chose what is in it. */
TEST(what_a_supervisor_that_went_mad_calls_things_is_text)
{
	static const char mad[] = "a\033]0;b\007\nc";
	struct standin *s = standin_new(NULL);
	struct fake *f = standin_fake(s);
	shmq_bus *bus = standin_bus(s);
	struct lay_client *client = shmq__slabs_client(f->slabs, 1);
	struct shmq_client_info who = { 0 };
	struct shmq_topic_info topic;
	struct shmq_bus_info info;

	memcpy(f->rec->name, mad, sizeof(mad));
	memcpy(f->rec->note, mad, sizeof(mad));
	memcpy(f->registry->name, mad, sizeof(mad));
	memcpy(client->name, mad, sizeof(mad));
	CHECK_OK(shmq_topic_each(bus, keep_topic, &topic));
	CHECK_STR(topic.name, "a?]0;b??c");
	CHECK_STR(topic.note, "a?]0;b??c");
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_STR(info.name, "a?]0;b??c");
	CHECK_OK(shmq_client_each(bus, keep_client, &who));
	CHECK_STR(who.name, "a?]0;b??c");
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(memory_that_is_short_is_said_and_inspection_goes_on_after_it)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2 });
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	struct shmq_topic_info info;
	unsigned k;
	int met = 1;

	for (k = 1; met; k++) {
		int rc;

		scarce_begin(k);
		rc = shmq_topic_get_info(bus, STANDIN_TOPIC, &info);
		met = scarce_end();
		CHECK(met ? rc == -ENOMEM || rc == SHMQ_ELIMIT : !rc);
	}
	CHECK_EQ(k, 5); /* the topic, its two rings, and not again */
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_partition_shows_head_oldest_and_holes_at_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct standin *s = standin_new(
			&(struct fake_options){ .mode = SHMQ_SHARED, .base_seq = bases[i] });
		struct fake *f = standin_fake(s);
		struct lay_member *m = fake_publisher(f, fake_client(f, getpid()));
		shmq_bus *bus = standin_bus(s);
		struct shmq_partition_info info;
		struct ring_writer w = fake_writer(f, m, 0);
		uint64_t seq, word;

		w.limit = w.next + FAKE_DEPTH + 9;
		for (unsigned n = 0; n < FAKE_DEPTH + 8; n++) {
			CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
			if (n % 100 == 99)
				CHECK(shmq__ring_void(w.mem, &w.geo, seq,
						      load_relaxed(fake_ctrl(w.mem, &w.geo, seq))));
			else
				fake_put(&w, seq, n);
		}
		info = partition(bus, 0);
		CHECK_EQ(info.head, bases[i] + FAKE_DEPTH + 8);
		CHECK_EQ(info.oldest, bases[i] + 8);
		CHECK_EQ(info.voids, 10);
		CHECK_EQ(info.holder, -1);
		CHECK_EQ(info.holder_lag, 0);
		shmq_bus_close(bus);
		standin_free(s);
	}
}

TEST(the_holder_is_the_gating_subscriber_furthest_behind)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct standin *s = standin_new(&(struct fake_options){ .base_seq = bases[i] });
		struct fake *f = standin_fake(s);
		unsigned client[4];
		struct lay_member *m[4], *pub;
		shmq_bus *bus = standin_bus(s);
		struct shmq_partition_info info;

		pub = fake_publisher(f, fake_client(f, getpid()));
		for (int k = 0; k < 4; k++) {
			client[k] = fake_client(f, getpid());
			m[k] = fake_subscriber(f, client[k], SHMQ_FROM_LATEST, 0);
		}
		publish(f, pub, 0, 50);
		for (unsigned k = 0; k < 4; k++)
			store_relaxed(&fake_entry(f, m[k], 0)->pos, bases[i] + 10 * (k + 1));
		info = partition(bus, 0);
		CHECK_EQ(info.holder, client[0]);
		CHECK_EQ(info.holder_lag, 40);
		shmq__topic_publish_member(f->topic, m[0], LAY_MEMBER_EVICTED);
		add_relaxed(&fake_client_record(f, client[1])->gen, 1); /* died */
		info = partition(bus, 0);
		CHECK_EQ(info.holder, client[2]);
		CHECK_EQ(info.holder_lag, 20);
		add_relaxed(&fake_entry(f, m[2], 0)->gen, 1);
		store_relaxed(&fake_entry(f, m[3], 0)->pos, bases[i] + 60); /* mad: ahead */
		info = partition(bus, 0);
		CHECK_EQ(info.holder, -1);
		CHECK_EQ(info.holder_lag, 0);
		shmq_bus_close(bus);
		standin_free(s);
	}
}

static struct shmq_peer_info seen[8];
static unsigned seen_count;

static int see(void *arg, const struct shmq_peer_info *peer)
{
	CHECK_LT(seen_count, COUNT(seen));
	seen[seen_count++] = *peer;
	return arg ? *(int *)arg : 0;
}

TEST(peers_are_shown_with_what_their_entries_say)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2, .base_seq = 100 });
	struct fake *f = standin_fake(s);
	unsigned client = fake_client(f, getpid()), other = fake_client(f, getpid());
	struct lay_member *pub = fake_publisher(f, client), *all, *one;
	shmq_bus *bus = standin_bus(s);
	int stop = 17;

	memset(fake_client_record(f, client)->name, 'c', 32); /* without its end */
	store_relaxed(&fake_client_record(f, client)->uid, 1000);
	all = fake_subscriber(f, client, SHMQ_FROM_LATEST, 0);
	one = fake_member(f, other, 1);
	shmq__topic_publish_member(f->topic, one, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(f->topic, one, SHMQ_FROM_LATEST, 0);
	publish(f, pub, 0, 5);
	publish(f, pub, 1, 7);
	store_relaxed(&fake_entry(f, pub, 0)->count, 5);
	store_relaxed(&fake_entry(f, pub, 1)->count, 7);
	store_relaxed(&fake_entry(f, pub, 0)->bytes, 40);
	store_relaxed(&fake_entry(f, pub, 1)->lost, 2);
	store_relaxed(&fake_entry(f, all, 0)->asleep, 1);
	store_relaxed(&fake_entry(f, one, 1)->flags, LAY_ENTRY_EVICTED);
	store_relaxed(&fake_entry(f, pub, 1)->waits, 3);
	store_relaxed(&fake_entry(f, pub, 0)->wakes, 4);
	store_relaxed(&fake_entry(f, pub, 0)->latency, 0x1000100010001); /* no subscriber */
	store_relaxed(&fake_entry(f, all, 0)->latency, 0x40003000200010);
	pub->opened_ns = 99;
	pub->arena = fake_arena(f, pub, LAY_PAGE) + 1;
	shmq__slabs_arena(f->slabs, pub->arena - 1)->node_actual = SHMQ_NODE(3);
	seen_count = 0;
	CHECK_OK(shmq_peer_each(bus, STANDIN_TOPIC, see, NULL));
	CHECK_EQ(seen_count, 3);
	CHECK_EQ(seen[0].role, SHMQ_ROLE_PUBLISHER);
	CHECK_EQ(seen[0].client_id, client);
	CHECK_EQ(seen[0].pid, getpid());
	CHECK_EQ(seen[0].uid, 1000);
	CHECK_EQ(strnlen(seen[0].client_name, 32), 31);
	CHECK_EQ(seen[0].partition, SHMQ_ANY_PARTITION);
	CHECK_EQ(seen[0].count, 12);
	CHECK_EQ(seen[0].bytes, 40);
	CHECK_EQ(seen[0].lost, 2);
	CHECK_EQ(seen[0].lag, 0);
	CHECK_EQ(seen[0].gating, 0);
	CHECK_EQ(seen[0].waits, 3);
	CHECK_EQ(seen[0].wakes, 4);
	CHECK_EQ(seen[0].opened_ns, 99);
	CHECK_EQ(seen[0].arena_bytes, LAY_PAGE);
	CHECK_EQ(seen[0].arena_node, SHMQ_NODE(3));
	CHECK_EQ(seen[0].page_bytes, 2 * sizeof(struct lay_entry));
	CHECK_EQ(seen[0].p50_ns | seen[0].most_ns, 0);
	CHECK_EQ(seen[1].p50_ns, 0xf);
	CHECK_EQ(seen[1].p99_ns, 0x1f);
	CHECK_EQ(seen[1].p999_ns, 0x2f);
	CHECK_EQ(seen[1].most_ns, 0x3f);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).arena_bytes, LAY_PAGE);
	CHECK_EQ(seen[1].role, SHMQ_ROLE_SUBSCRIBER);
	CHECK_EQ(seen[1].lag, 12);
	CHECK_EQ(seen[1].gating, 1);
	CHECK_EQ(seen[1].sleeping, 1);
	CHECK_EQ(seen[1].evicted, 0);
	CHECK_EQ(seen[2].client_id, other);
	CHECK_EQ(seen[2].partition, 1);
	CHECK_EQ(seen[2].lag, 7);
	CHECK_EQ(seen[2].evicted, 1);
	/* Evicted by the roster; entries that are another's by now. */
	shmq__topic_publish_member(f->topic, all, LAY_MEMBER_EVICTED);
	add_relaxed(&fake_entry(f, one, 1)->gen, 1);
	seen_count = 0;
	CHECK_OK(shmq_peer_each(bus, STANDIN_TOPIC, see, NULL));
	CHECK_EQ(seen_count, 3);
	CHECK_EQ(seen[1].evicted, 1);
	CHECK_EQ(seen[1].gating, 0);
	CHECK_EQ(seen[2].evicted, 0);
	CHECK_EQ(seen[2].lag, 0);
	seen_count = 0;
	CHECK_EQ(shmq_peer_each(bus, STANDIN_TOPIC, see, &stop), 17);
	CHECK_EQ(seen_count, 1);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(what_all_handles_did_is_summed_up_those_that_left_included)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2 });
	struct fake *f = standin_fake(s);
	unsigned client = fake_client(f, getpid());
	struct lay_member *pub = fake_publisher(f, client), *sub, *gone;
	shmq_bus *bus = standin_bus(s);
	struct shmq_topic_stats stats;
	struct lay_entry *e;

	sub = fake_subscriber(f, client, SHMQ_FROM_LATEST, 0);
	gone = fake_subscriber(f, client, SHMQ_FROM_LATEST, 0);
	for (uint32_t p = 0; p < 2; p++) {
		e = fake_entry(f, pub, p);
		store_relaxed(&e->count, 100 + p);
		store_relaxed(&e->bytes, 1000);
		store_relaxed(&e->lost, 3);
		store_relaxed(&e->waits, 5);
		store_relaxed(&e->wakes, 7);
		e = fake_entry(f, sub, p);
		store_relaxed(&e->count, 40);
		store_relaxed(&e->bytes, 400);
		store_relaxed(&e->wakes, 2);
		e = fake_entry(f, gone, p);
		store_relaxed(&e->count, 10);
		store_relaxed(&e->bytes, 50);
		store_relaxed(&e->lost, 30);
		store_relaxed(&e->waits, 4);
	}
	store_relaxed(&fake_entry(f, gone, 1)->flags, LAY_ENTRY_EVICTED);
	for (int round = 0; round < 3; round++) {
		if (round == 1)
			shmq__topic_remove_member(f->topic, gone);
		if (round == 2)
			shmq__topic_remove_member(f->topic, pub);
		stats = topic_info(bus, STANDIN_TOPIC).stats;
		CHECK_EQ(stats.sent, 201);
		CHECK_EQ(stats.sent_bytes, 2000);
		CHECK_EQ(stats.dropped, 6);
		CHECK_EQ(stats.blocked, 10);
		CHECK_EQ(stats.received, 100);
		CHECK_EQ(stats.received_bytes, 900);
		CHECK_EQ(stats.lost, 60);
		CHECK_EQ(stats.sleeps, 8);
		CHECK_EQ(stats.wakes, 18);
		CHECK_EQ(stats.evictions, 1);
	}
	/* A supervisor died while it added: sums are made all the same. */
	add_relaxed(&f->rec->totals_word, 1);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).stats.sent, 201);
	shmq__topic_remove_member(f->topic, sub);
	CHECK_EQ(load_relaxed(&f->rec->totals_word) % 2, 0);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).stats.received, 100);
	shmq_bus_close(bus);
	standin_free(s);
}

static _Atomic int stop_leaving;

static void *leave_and_come(void *arg)
{
	struct fake *f = arg;
	unsigned client = fake_client(f, getpid());

	for (unsigned n = 0; n < 60 && !atomic_load(&stop_leaving); n++) {
		struct lay_member *m = fake_member(f, client, -1);

		store_relaxed(&fake_entry(f, m, 0)->count, 1000);
		shmq__topic_publish_member(f->topic, m, LAY_MEMBER_PUBLISHER);
		shmq__topic_remove_member(f->topic, m);
	}
	return NULL;
}

TEST(a_sum_never_falls_while_handles_leave)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	pthread_t thread = fake_thread(leave_and_come, standin_fake(s));
	uint64_t before = 0, sent;

	for (unsigned i = 0; i < 2000 && before < 60000; i++) {
		sent = topic_info(bus, STANDIN_TOPIC).stats.sent;
		CHECK_GE(sent, before);
		CHECK_EQ(sent % 1000, 0);
		before = sent;
	}
	atomic_store(&stop_leaving, 1);
	fake_join(thread);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(nobody_gates_a_lossy_topic)
{
	struct standin *s = standin_new(&(struct fake_options){ .policy = SHMQ_LOSSY });
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);

	CHECK_OK(shmq_publish(pub, "x", 1));
	CHECK_EQ(partition(bus, 0).holder, -1);
	CHECK_EQ(peers_of(bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).gating, 0);
	CHECK_EQ(peers_of(bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).lag, 1);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	standin_free(s);
}

struct handles {
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
};

static int refuses(void *arg)
{
	const struct handles *h = arg;
	struct shmq_partition_info part;
	struct shmq_topic_info info;
	struct shmq_bus_info about = { .epoch = 9 };
	unsigned none[3] = { 0 };

	CHECK_ERROR(shmq_bus_get_info(h->bus, &about), SHMQ_EFORKED);
	CHECK_EQ(about.epoch, 0);
	CHECK_ERROR(shmq_topic_get_info(h->bus, STANDIN_TOPIC, &info), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_get_partition(h->bus, STANDIN_TOPIC, 0, &part), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_each(h->bus, count_topics, none), SHMQ_EFORKED);
	CHECK_ERROR(shmq_peer_each(h->bus, STANDIN_TOPIC, see, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_pub_get_topic(h->pub, &info), SHMQ_EFORKED);
	CHECK_ERROR(shmq_sub_get_topic(h->sub, &info), SHMQ_EFORKED);
	shmq_pub_close(h->pub);
	shmq_sub_close(h->sub);
	shmq_bus_close(h->bus);
	return 0;
}

TEST(a_child_sees_nothing)
{
	struct standin *s = standin_new(NULL);
	struct handles h = { .bus = standin_bus(s) };

	h.pub = open_pub(h.bus, STANDIN_TOPIC);
	h.sub = open_sub(h.bus, STANDIN_TOPIC);
	CHECK_EQ(test_join(test_spawn(refuses, &h)), 0);
	shmq_bus_close(h.bus);
	standin_free(s);
}
