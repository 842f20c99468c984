/* SPDX-License-Identifier: MIT
 *
 * What is published comes out: every size, every way to publish, every
 * way to receive, byte for byte.
 */
#include "helpers.h"

#include <time.h>

static uint64_t realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- sizes ------------------------------------------------------------- */

enum { WAYS = 4 }; /* publish, publish_msg, publish_iov, claim and commit */

/* One message of `len` bytes filled from `seed`, by one of the ways. */
static void publish_by(shmq_pub *pub, unsigned way, char *buf, size_t len, uint64_t seed)
{
	struct shmq_msg msg = { .data = buf, .len = len };
	struct iovec iov[4];
	void *data;

	fill(buf, len, seed);
	switch (way) {
	case 0:
		CHECK_OK(shmq_publish(pub, buf, len));
		break;
	case 1:
		CHECK_OK(shmq_publish_msg(pub, &msg));
		break;
	case 2: /* in pieces: nothing, a byte, a third, the rest */
		iov[0] = (struct iovec){ NULL, 0 };
		iov[1] = (struct iovec){ buf, len ? 1 : 0 };
		iov[2] = (struct iovec){ buf + iov[1].iov_len, len / 3 };
		if (iov[1].iov_len + iov[2].iov_len > len)
			iov[2].iov_len = 0;
		iov[3].iov_base = buf + iov[1].iov_len + iov[2].iov_len;
		iov[3].iov_len = len - iov[1].iov_len - iov[2].iov_len;
		msg = (struct shmq_msg){ 0 };
		CHECK_OK(shmq_publish_iov(pub, &msg, iov, 4));
		break;
	default:
		CHECK_OK(shmq_claim(pub, len, &data));
		memcpy(data, buf, len);
		CHECK_OK(shmq_commit(pub, NULL));
	}
}

struct shape {
	const char *topic;
	uint32_t slot_bytes, inline_bytes;
	unsigned flags;
	enum shmq_mode mode;
};

static const struct shape shapes[] = {
	{ "s64", 64, 48, 0, SHMQ_EXCLUSIVE },
	{ "s128", 128, 112, 0, SHMQ_SHARED },
	{ "s128.stamped", 128, 96, SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME, SHMQ_EXCLUSIVE },
	{ "s4096", 4096, 4080, 0, SHMQ_SHARED },
};

enum { SHAPES = sizeof(shapes) / sizeof(*shapes), SIZES = 7, LARGEST = 1 << 20 };

static size_t size_of(const struct shape *s, unsigned i)
{
	const size_t size[SIZES] = {
		0, 1, s->inline_bytes - 1, s->inline_bytes, s->inline_bytes + 1, 65536, LARGEST
	};

	return size[i];
}

static int publish_all_sizes(void *arg)
{
	shmq_bus *bus = test_bus_open();
	char *buf = malloc(LARGEST);
	uint64_t n = 0;

	(void)arg;
	for (unsigned k = 0; k < SHAPES; k++) {
		shmq_pub *pub = open_pub(bus, shapes[k].topic);

		CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
		for (unsigned i = 0; i < SIZES; i++)
			for (unsigned way = 0; way < WAYS; way++)
				publish_by(pub, way, buf, size_of(&shapes[k], i), n++);
		CHECK_EQ(pub_stats(pub).sent, SIZES * WAYS);
		shmq_pub_close(pub);
	}
	free(buf);
	shmq_bus_close(bus);
	return 0;
}

TEST(messages_of_every_size_arrive_whole_whichever_way_they_are_published)
{
	shmq_sub *sub[SHAPES];
	char *buf = malloc(LARGEST);
	struct shmq_msg msg;
	uint64_t n = 0;
	shmq_bus *bus;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	for (unsigned k = 0; k < SHAPES; k++) {
		create(bus, shapes[k].topic, .slot_bytes = shapes[k].slot_bytes, .depth = 1024,
		       .max_message_bytes = LARGEST, .flags = shapes[k].flags,
		       .mode = shapes[k].mode);
		CHECK_EQ(topic_info(bus, shapes[k].topic).inline_bytes, shapes[k].inline_bytes);
		sub[k] = open_sub(bus, shapes[k].topic);
	}
	child = test_spawn(publish_all_sizes, NULL);
	for (unsigned k = 0; k < SHAPES; k++)
		for (unsigned i = 0; i < SIZES; i++)
			for (unsigned way = 0; way < WAYS; way++, n++) {
				size_t len = size_of(&shapes[k], i);

				if (way % 2)
					CHECK_OK(shmq_receive(sub[k], &msg, PATIENCE));
				else
					CHECK_OK(shmq_receive_copy(sub[k], buf, len, &msg,
								   PATIENCE));
				CHECK_EQ(msg.len, len);
				CHECK_EQ(msg.seq, i * WAYS + way);
				CHECK_EQ(!!(msg.flags & SHMQ_MSG_ARENA),
					 len > shapes[k].inline_bytes);
				if (!is_filled(msg.data, len, n))
					FAIL("%s: %zu bytes by way %u differ", shapes[k].topic, len,
					     way);
			}
	CHECK_EQ(test_join(child), 0);
	for (unsigned k = 0; k < SHAPES; k++) {
		CHECK_ERROR(shmq_receive(sub[k], &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_EQ(sub_stats(sub[k]).received, SIZES * WAYS);
		CHECK_EQ(sub_stats(sub[k]).lost, 0);
	}
	free(buf);
	shmq_bus_close(bus);
	test_bus_stop();
}

static uint64_t available_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib << 10;
}

#define GIB (UINT64_C(1) << 30)

static int publish_gibibytes(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "huge", .arena_bytes = GIB + 4096, .flags = SHMQ_DONTWAIT);
	_Atomic int *stage = arg;
	void *data;

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	CHECK_OK(shmq_claim(pub, GIB, &data));
	fill(data, GIB, 1);
	CHECK_OK(shmq_commit(pub, NULL));
	CHECK_ERROR(shmq_claim(pub, GIB, &data), SHMQ_EFULL); /* it is being read */
	reach(stage, 1);
	await(stage, 2);
	CHECK_OK(shmq_claim(pub, GIB, &data));
	fill(data, 64, 2);
	CHECK_OK(shmq_commit(pub, NULL));
	await(stage, 3);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

TEST_WITHIN(a_message_of_one_gibibyte_arrives_whole, 60)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	if (available_bytes() < 3 * GIB)
		SKIP("less than 3 GiB of memory are available");
	test_bus_start();
	bus = test_bus_open();
	create(bus, "huge", .max_message_bytes = GIB, .depth = 1024);
	sub = open_sub(bus, "huge");
	child = test_spawn(publish_gibibytes, (void *)stage);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.len, GIB);
	CHECK(is_filled(msg.data, GIB, 1));
	await(stage, 1);
	CHECK_OK(shmq_release(sub));
	reach(stage, 2);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.len, GIB);
	CHECK(is_filled(msg.data, 64, 2));
	reach(stage, 3);
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- streams --------------------------------------------------------------- */

struct stream {
	const char *topic;
	uint64_t count;
	uint64_t first_seq;
};

/* Sizes that fill slots and arena unevenly. */
static size_t stream_len(uint64_t n)
{
	uint64_t r = mix(n);

	return r % 4 ? 8 + r % 100 : 8 + r % 30000;
}

static int publish_stream(void *arg)
{
	const struct stream *s = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, s->topic, .arena_bytes = 1 << 18);
	static char buf[32768];

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (uint64_t n = 0; n < s->count; n++) {
		struct shmq_msg msg = { .data = buf, .len = stream_len(n) };

		fill(buf, msg.len, n);
		memcpy(buf, &n, sizeof(n));
		CHECK_OK(shmq_publish_msg(pub, &msg));
		CHECK_EQ(msg.seq, s->first_seq + n);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static void check_stream_message(const struct shmq_msg *msg)
{
	static char buf[32768];
	uint64_t n;

	CHECK_GE(msg->len, sizeof(n));
	memcpy(&n, msg->data, sizeof(n));
	CHECK_EQ(msg->len, stream_len(n));
	fill(buf, msg->len, n);
	memcpy(buf, &n, sizeof(n));
	CHECK(!memcmp(buf, msg->data, msg->len));
}

static uint64_t stream_number(const struct shmq_msg *msg)
{
	uint64_t n;

	memcpy(&n, msg->data, sizeof(n));
	return n;
}

TEST(a_stream_goes_many_times_round_ring_and_arena)
{
	struct stream s = { "t", 10000, 0 };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 32768);
	sub = open_sub(bus, "t");
	child = test_spawn(publish_stream, &s);
	for (uint64_t n = 0; n < s.count; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(stream_number(&msg), n);
		check_stream_message(&msg);
	}
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_stream_goes_on_where_the_sequence_wraps)
{
	struct stream s = { "t", 5000, UINT64_MAX - 2000 };
	struct stream lossy = { "l", 5000, UINT64_MAX - 2000 };
	uint64_t received = 0, lost = 0, next = 0;
	struct shmq_partition_info part;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub, *late;
	pid_t child;

	test_bus_start("--first-seq", "18446744073709549615"); /* 2^64 - 2001 */
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 32768);
	create(bus, "l", .depth = 1024, .max_message_bytes = 32768, .policy = SHMQ_LOSSY);
	sub = open_sub(bus, "t");
	child = test_spawn(publish_stream, &s);
	for (uint64_t n = 0; n < s.count; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, s.first_seq + n);
		CHECK_EQ(stream_number(&msg), n);
		check_stream_message(&msg);
	}
	CHECK_EQ(test_join(child), 0);
	CHECK_OK(shmq_topic_get_partition(bus, "t", 0, &part));
	CHECK_EQ(part.head, s.first_seq + s.count);
	late = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = s.first_seq + s.count - 10);
	CHECK_OK(shmq_receive(late, &msg, PATIENCE));
	CHECK_EQ(stream_number(&msg), s.count - 10);
	shmq_sub_close(late);
	shmq_sub_close(sub);

	sub = open_sub(bus, "l", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	child = test_spawn(publish_stream, &lossy);
	for (;;) {
		static char buf[32768];
		int rc = shmq_receive_copy(sub, buf, sizeof(buf), &msg, PATIENCE);

		if (rc == SHMQ_EENDED)
			break;
		if (rc == SHMQ_EOVERRUN) {
			lost += msg.lost;
			next += msg.lost;
			continue;
		}
		CHECK_OK(rc);
		CHECK_EQ(stream_number(&msg), next);
		CHECK_EQ(msg.seq, lossy.first_seq + next);
		check_stream_message(&msg);
		received++;
		next++;
	}
	CHECK_EQ(received + lost, lossy.count);
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- what a message carries --------------------------------------------------- */

TEST(key_properties_and_type_travel_with_the_message)
{
	static const size_t lens[] = { 0, 1, 60, 500 };
	char key[500], properties[500], data[500], buf[1500];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	fill(key, sizeof(key), 1);
	fill(properties, sizeof(properties), 2);
	fill(data, sizeof(data), 3);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 4096);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (unsigned i = 0; i < 4 * 4 * 4; i++) {
		struct shmq_msg in = { .data = data,
				       .len = lens[i % 4],
				       .key = key,
				       .key_len = lens[i / 4 % 4],
				       .properties = properties,
				       .properties_len = lens[i / 16],
				       .type = (uint16_t)(65535 - i) };
		struct shmq_msg out;

		CHECK_OK(shmq_publish_msg(pub, &in));
		CHECK_EQ(in.seq, i);
		CHECK_EQ(in.partition, 0);
		if (i % 2)
			CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
		else
			CHECK_OK(shmq_receive_copy(sub, buf,
						   in.len + in.key_len + in.properties_len, &out,
						   SHMQ_NOWAIT));
		CHECK_EQ(out.len, in.len);
		CHECK_EQ(out.key_len, in.key_len);
		CHECK_EQ(out.properties_len, in.properties_len);
		CHECK_EQ(out.type, in.type);
		CHECK_EQ(!!(out.flags & SHMQ_MSG_META), in.key_len || in.properties_len);
		CHECK_MEM(out.data, data, in.len);
		CHECK_MEM(out.key, key, in.key_len);
		CHECK_MEM(out.properties, properties, in.properties_len);
		CHECK_EQ(out.tag, 0);
		CHECK_EQ(out.ts_ns, 0);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(tags_and_times_are_stamped_where_the_topic_asks)
{
	struct shmq_msg in, out, many[3] = { { 0 } };
	uint64_t before, tag_of_key;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	create(bus, "tag", .depth = 1024, .flags = SHMQ_TOPIC_TAG);
	create(bus, "time", .depth = 1024, .flags = SHMQ_TOPIC_TIME);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	before = realtime_ns();
	CHECK_OK(shmq_publish(pub, "plain", 5));
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.tag, 0);
	CHECK_GE(out.ts_ns, before);
	CHECK_LE(out.ts_ns, realtime_ns());
	in = (struct shmq_msg){ .key = "k", .key_len = 1 };
	CHECK_OK(shmq_publish_msg(pub, &in));
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.ts_ns, in.ts_ns);
	CHECK_NE(out.tag, 0);
	tag_of_key = out.tag;
	in = (struct shmq_msg){ .key = "k", .key_len = 1, .data = "other", .len = 5 };
	CHECK_OK(shmq_publish_msg(pub, &in));
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.tag, tag_of_key);
	in = (struct shmq_msg){ .key = "k", .key_len = 1, .tag = 77, .ts_ns = 88 };
	CHECK_OK(shmq_publish_msg(pub, &in));
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.tag, 77);
	CHECK_EQ(out.ts_ns, 88);
	CHECK_EQ(shmq_publish_batch(pub, many, 3, 0), 3); /* one reading of the clock */
	for (int i = 0; i < 3; i++) {
		CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
		CHECK_GE(out.ts_ns, before);
		CHECK_EQ(out.ts_ns, many[0].ts_ns);
	}
	in = (struct shmq_msg){ .tag = 5, .ts_ns = 6, .type = 7 };
	{
		void *data;

		CHECK_OK(shmq_claim(pub, 3, &data));
		memcpy(data, "abc", 3);
		CHECK_OK(shmq_commit(pub, &in));
	}
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.len, 3);
	CHECK_EQ(out.tag, 5);
	CHECK_EQ(out.ts_ns, 6);
	CHECK_EQ(out.type, 7);
	shmq_pub_close(pub);
	shmq_sub_close(sub);

	sub = open_sub(bus, "tag");
	pub = open_pub(bus, "tag");
	in = (struct shmq_msg){ .tag = 5, .ts_ns = 6 };
	CHECK_OK(shmq_publish_msg(pub, &in));
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.tag, 5);
	CHECK_EQ(out.ts_ns, 0);
	shmq_pub_close(pub);
	shmq_sub_close(sub);

	sub = open_sub(bus, "time");
	pub = open_pub(bus, "time");
	in = (struct shmq_msg){ .tag = 5, .ts_ns = 6 };
	CHECK_OK(shmq_publish_msg(pub, &in));
	CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
	CHECK_EQ(out.tag, 0);
	CHECK_EQ(out.ts_ns, 6);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- batches -------------------------------------------------------------------- */

TEST(a_batch_arrives_in_order_and_stops_at_what_does_not_fit)
{
	enum { N = 2000 };
	static struct shmq_msg many[N];
	static char data[N][300];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .policy = SHMQ_DROP_NEW, .max_message_bytes = 300);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 1 << 20);
	for (unsigned i = 0; i < N; i++) {
		many[i] = (struct shmq_msg){ .data = data[i], .len = i % 301 };
		fill(data[i], many[i].len, i);
	}
	CHECK_EQ(shmq_publish_batch(pub, many, N, 0), 1024);
	CHECK_ERROR(shmq_publish_batch(pub, many + 1024, N - 1024, 0), SHMQ_EFULL);
	for (unsigned i = 0; i < 1024; i++) {
		CHECK_EQ(many[i].seq, i);
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(msg.seq, i);
		CHECK_EQ(msg.len, i % 301);
		CHECK(is_filled(msg.data, msg.len, i));
		CHECK_EQ(msg.flags & SHMQ_MSG_BATCH, 0);
	}
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(pub_stats(pub).sent, 1024);
	CHECK_EQ(pub_stats(pub).dropped, 2);
	CHECK_EQ(shmq_publish_batch(pub, many + 1024, N - 1024, 0), N - 1024);
	shmq_bus_close(bus);
	test_bus_stop();
}

struct sent {
	const struct shmq_msg *next;
	unsigned number;
};

static int is_as_sent(void *arg, const struct shmq_msg *msg)
{
	struct sent *s = arg;
	const struct shmq_msg *m = s->next++;

	CHECK_EQ(msg->seq, m->seq);
	CHECK_EQ(msg->len, m->len);
	CHECK_EQ(msg->type, m->type);
	CHECK_EQ(msg->key_len, m->key_len);
	CHECK_EQ(msg->properties_len, m->properties_len);
	CHECK(is_filled(msg->data, msg->len, s->number++));
	return 0;
}

/* Those that are plain are sent in runs, which others interrupt, and so they are
 * polled. */
TEST(a_batch_of_all_kinds_arrives_as_it_was_sent)
{
	enum { N = 700 };
	static struct shmq_msg many[N];
	static char data[N][600];
	struct shmq_msg msg;
	struct sent s;

	test_bus_start();
	for (unsigned kind = 0; kind < 4; kind++) {
		shmq_bus *bus = test_bus_open();
		uint64_t seq = 0, bytes = 0;
		shmq_pub *pub;
		shmq_sub *sub;

		create(bus, "t", .depth = 1024, .max_message_bytes = 600,
		       .mode = kind & 1 ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
		       .slot_bytes = kind & 2 ? 64 : 512);
		/* so that what the next one has sent is no multiple where a lap ends */
		pub = open_pub(bus, "t");
		for (; seq < 5; seq++)
			CHECK_OK(shmq_publish(pub, "", 0));
		shmq_pub_close(pub);
		sub = open_sub(bus, "t");
		pub = open_pub(bus, "t", .arena_bytes = 1 << 20);
		for (unsigned lap = 0; lap < 5; lap++) {
			for (unsigned i = 0; i < N; i++) {
				many[i] = (struct shmq_msg){ .data = data[i],
							     .len = i % (i % 53 ? 70 : 601),
							     .type = (uint16_t)(i * 7),
							     .ts_ns = i % 3,
							     .partition = (int)(i % 2) - 1 };
				if (i % 41 == 1) {
					many[i].key = "key";
					many[i].key_len = 3;
				}
				if (i % 41 == 2) {
					many[i].properties = "p=1";
					many[i].properties_len = 3;
				}
				fill(data[i], many[i].len, i + lap);
				bytes += many[i].len;
			}
			CHECK_EQ(shmq_publish_batch(pub, many, N, 0), N);
			for (unsigned i = 0; i < N; i++, seq++) {
				CHECK_EQ(many[i].seq, seq);
				CHECK_EQ(many[i].partition, 0);
				CHECK_EQ(many[i].ts_ns, 0);
			}
			s = (struct sent){ many, lap };
			for (unsigned i = 0; i < N && lap % 2; i++) {
				CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
				is_as_sent(&s, &msg);
			}
			while (s.next < many + N)
				CHECK_GE(shmq_poll(sub, is_as_sent, &s, N, SHMQ_NOWAIT), 1);
			CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		}
		CHECK_EQ(pub_stats(pub).sent, seq - 5);
		CHECK_EQ(pub_stats(pub).sent_bytes, bytes);
		for (unsigned i = 0; i < 40; i++)
			many[i] = (struct shmq_msg){ .len = 0, .partition = i == 35 };
		CHECK_EQ(shmq_publish_batch(pub, many, 40, 0), 35);
		many[0].partition = -2;
		CHECK_ERROR(shmq_publish_batch(pub, many, 40, 0), SHMQ_EOPTION);
		shmq_bus_close(bus);
		bus = test_bus_open();
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
		shmq_bus_close(bus);
	}
	test_bus_stop();
}

TEST(an_atomic_batch_has_successive_numbers_and_says_so)
{
	enum { N = 256 };
	static struct shmq_msg many[N];
	static char data[N][300];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "exclusive", .depth = 1024, .max_message_bytes = 300);
	create(bus, "shared", .depth = 1024, .max_message_bytes = 300, .mode = SHMQ_SHARED);
	create(bus, "lossy", .depth = 1024, .max_message_bytes = 300, .policy = SHMQ_LOSSY);
	for (unsigned i = 0; i < N; i++) {
		many[i] = (struct shmq_msg){ .data = data[i], .len = i, .type = (uint16_t)i };
		fill(data[i], many[i].len, i);
	}
	for (int k = 0; k < 3; k++) {
		const char *topic = k == 0 ? "exclusive" : k == 1 ? "shared" : "lossy";

		sub = open_sub(bus, topic);
		pub = open_pub(bus, topic);
		for (unsigned round = 0; round < 10; round++) {
			CHECK_OK(shmq_publish(pub, "single", 6));
			CHECK_EQ(shmq_publish_batch(pub, many, N, SHMQ_ATOMIC), N);
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			CHECK_EQ(msg.flags, 0);
			for (unsigned i = 0; i < N; i++) {
				CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
				CHECK_EQ(msg.seq, round * (N + 1) + 1 + i);
				CHECK_EQ(msg.seq, many[i].seq);
				CHECK_EQ(msg.len, i);
				CHECK_EQ(msg.type, i);
				CHECK(msg.flags & SHMQ_MSG_BATCH);
				CHECK(is_filled(msg.data, msg.len, i));
			}
			CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
		}
		CHECK_EQ(pub_stats(pub).sent, 10 * (N + 1));
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_atomic_batch_that_its_arena_cannot_hold_sends_nothing)
{
	struct shmq_msg many[3] = { { 0 } }, msg;
	static char data[3000];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 3000, .policy = SHMQ_DROP_NEW);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 8192);
	for (int i = 0; i < 3; i++)
		many[i] = (struct shmq_msg){ .data = data, .len = sizeof(data) };
	CHECK_ERROR(shmq_publish_batch(pub, many, 3, SHMQ_ATOMIC), SHMQ_EBATCH);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	for (int round = 0; round < 5; round++) { /* and took nothing */
		CHECK_EQ(shmq_publish_batch(pub, many, 2, SHMQ_ATOMIC), 2);
		CHECK_ERROR(shmq_publish_batch(pub, many, 2, SHMQ_ATOMIC), SHMQ_EFULL);
		for (int i = 0; i < 2; i++) {
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			CHECK_EQ(msg.len, sizeof(data));
		}
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

static int count_all(void *arg, const struct shmq_msg *msg)
{
	(void)msg;
	++*(unsigned *)arg;
	return 0;
}

TEST(a_start_inside_an_atomic_batch_delivers_none_of_it)
{
	struct shmq_msg many[8] = { { 0 } }, msg;
	unsigned count = 0;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024);
	create(bus, "l", .depth = 1024, .policy = SHMQ_LOSSY);
	for (int k = 0; k < 2; k++) {
		const char *topic = k ? "l" : "t";

		pub = open_pub(bus, topic);
		CHECK_EQ(shmq_publish_batch(pub, many, 8, SHMQ_ATOMIC), 8);
		CHECK_OK(shmq_publish(pub, "after", 5));
		sub = open_sub(bus, topic, .from = SHMQ_FROM_SEQ, .seq = 3);
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(msg.seq, 8);
		CHECK_EQ(sub_stats(sub).received, 1);
		CHECK_EQ(sub_stats(sub).lost, 0); /* it was before its start */
		shmq_sub_close(sub);
		sub = open_sub(bus, topic, .from = SHMQ_FROM_SEQ, .seq = 0);
		count = 0;
		CHECK_EQ(shmq_poll(sub, count_all, &count, 100, SHMQ_NOWAIT), 9);
		CHECK_EQ(count, 9);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- claims ---------------------------------------------------------------------- */

TEST(a_claim_may_be_shortened)
{
	struct shmq_msg in, out;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	void *data;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 10000);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 20480);
	for (unsigned round = 0; round < 50; round++) {
		/* slot to slot, arena to arena, arena to what would fit a slot */
		static const size_t from[] = { 100, 9000, 9000 }, to[] = { 10, 5000, 10 };

		for (int i = 0; i < 3; i++) {
			CHECK_OK(shmq_claim(pub, from[i], &data));
			fill(data, to[i], round);
			in = (struct shmq_msg){ .len = to[i] };
			CHECK_OK(shmq_commit(pub, &in));
			CHECK_EQ(in.seq, round * 3 + (unsigned)i);
		}
		for (int i = 0; i < 3; i++) {
			CHECK_OK(shmq_receive(sub, &out, SHMQ_NOWAIT));
			CHECK_EQ(out.len, to[i]);
			CHECK(is_filled(out.data, to[i], round));
		}
		CHECK_OK(shmq_release(sub));
	}
	CHECK_EQ(pub_stats(pub).sent_bytes, 50 * (10 + 5000 + 10));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_aborted_claim_leaves_no_trace)
{
	struct shmq_msg msg;
	static char buf[5000];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t n = 0;
	void *data;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 5000);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 40960);
	for (unsigned round = 0; round < 200; round++) {
		unsigned behind = round % 4;

		/* Every few rounds with messages published behind the claim. */
		CHECK_OK(shmq_claim(pub, round % 3 ? 5000 : 100, &data));
		memset(data, 0xee, round % 3 ? 5000 : 100);
		for (unsigned i = 0; i < behind; i++) {
			fill(buf, sizeof(buf), n + i);
			CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
		}
		CHECK_OK(shmq_abort(pub));
		for (unsigned i = 0; i < behind; i++, n++) {
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			CHECK_EQ(msg.seq, n);
			CHECK(is_filled(msg.data, sizeof(buf), n));
		}
		CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	}
	CHECK_EQ(pub_stats(pub).sent, n);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_claim_may_be_committed_behind_later_messages)
{
	struct shmq_msg msg;
	static char buf[5000];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	void *data;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 5000);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 40960);
	for (unsigned round = 0; round < 200; round++) {
		CHECK_OK(shmq_claim(pub, 5000, &data));
		for (unsigned i = 0; i < 3; i++) {
			fill(buf, sizeof(buf), round * 4 + i);
			CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
		}
		fill(data, 5000, round * 4 + 3);
		CHECK_OK(shmq_commit(pub, NULL));
		for (unsigned i = 0; i < 4; i++) {
			CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
			CHECK_EQ(msg.seq, round * 4 + i);
			CHECK(is_filled(msg.data, sizeof(buf), round * 4 + i));
		}
		CHECK_OK(shmq_release(sub));
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_publish_that_needs_the_bytes_of_an_open_claim_says_so)
{
	static char buf[5000];
	shmq_bus *bus;
	shmq_pub *pub;
	void *data;
	int rc = 0, sent = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 5000);
	pub = open_pub(bus, "t", .arena_bytes = 20480);
	CHECK_OK(shmq_claim(pub, 5000, &data));
	fill(data, 5000, 1);
	while (!(rc = shmq_publish(pub, buf, sizeof(buf))))
		if (++sent > 10)
			FAIL("the arena went round over an open claim");
	CHECK_ERROR(rc, SHMQ_ECLAIM);
	CHECK_OK(shmq_publish(pub, "small", 5)); /* needs none of them */
	CHECK(is_filled(data, 5000, 1));
	CHECK_OK(shmq_commit(pub, NULL));
	CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_commit_that_finds_the_ring_full_keeps_the_claim)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	void *data;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .policy = SHMQ_DROP_NEW);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (int i = 0; i < 1024; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	CHECK_OK(shmq_claim(pub, 20, &data));
	fill(data, 20, 9);
	CHECK_ERROR(shmq_commit(pub, NULL), SHMQ_EFULL);
	CHECK_ERROR(shmq_commit(pub, NULL), SHMQ_EFULL);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_OK(shmq_release(sub));
	CHECK_OK(shmq_commit(pub, NULL));
	for (int i = 1; i <= 1024; i++)
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(msg.len, 20);
	CHECK(is_filled(msg.data, 20, 9));
	CHECK_EQ(pub_stats(pub).dropped, 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- partitions ------------------------------------------------------------------- */

enum { PARTITIONS = 5, KEYED = 3000 };

static int publish_keyed(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	(void)arg;
	CHECK_OK(shmq_pub_wait_subscribers(pub, 2, PATIENCE));
	for (uint32_t n = 0; n < KEYED; n++) {
		uint32_t key = (uint32_t)mix(n) % 64;
		struct shmq_msg msg = { .data = &n,
					.len = sizeof(n),
					.key = &key,
					.key_len = sizeof(key),
					.partition = SHMQ_ANY_PARTITION };

		CHECK_OK(shmq_publish_msg(pub, &msg));
		CHECK_GE(msg.partition, 0);
		CHECK_LT(msg.partition, PARTITIONS);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_key_stays_in_its_partition_and_in_order)
{
	int32_t home[64];
	uint32_t last[64] = { 0 }, used[PARTITIONS] = { 0 };
	uint64_t next[PARTITIONS] = { 0 };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub, *one;
	uint32_t of_one = 0;
	pid_t child;

	memset(home, -1, sizeof(home));
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 4096, .partitions = PARTITIONS);
	sub = open_sub(bus, "t");
	one = open_sub(bus, "t", .partition_plus1 = 3);
	child = test_spawn(publish_keyed, NULL);
	for (int i = 0; i < KEYED; i++) {
		uint32_t key, n;

		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		memcpy(&key, msg.key, sizeof(key));
		memcpy(&n, msg.data, sizeof(n));
		CHECK_EQ(key, (uint32_t)mix(n) % 64);
		if (home[key] < 0)
			home[key] = msg.partition;
		else
			CHECK_GT(n, last[key]);
		CHECK_EQ(msg.partition, home[key]);
		last[key] = n;
		CHECK_EQ(msg.seq, next[msg.partition]); /* no gap, no disorder */
		next[msg.partition]++;
		used[msg.partition]++;
	}
	CHECK_EQ(test_join(child), 0);
	for (int p = 0; p < PARTITIONS; p++)
		CHECK_GT(used[p], 0);
	while (!shmq_receive(one, &msg, SHMQ_NOWAIT)) {
		CHECK_EQ(msg.partition, 2);
		CHECK_EQ(msg.seq, of_one);
		of_one++;
	}
	CHECK_EQ(of_one, used[2]);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(partitions_are_chosen_by_number_or_in_turn)
{
	unsigned count[PARTITIONS] = { 0 };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .partitions = PARTITIONS);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (int32_t i = 0; i < 100; i++) {
		struct shmq_msg in = { .data = &i, .len = sizeof(i), .partition = i % 3 };

		CHECK_OK(shmq_publish_msg(pub, &in));
		CHECK_EQ(in.seq, i / 3);
	}
	for (int i = 0; i < 100; i++) {
		int32_t n;

		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		memcpy(&n, msg.data, sizeof(n));
		CHECK_EQ(msg.partition, n % 3);
		CHECK_EQ(msg.seq, n / 3);
	}
	for (int i = 0; i < 20 * PARTITIONS; i++)
		CHECK_OK(shmq_publish(pub, &i, sizeof(i)));
	for (int i = 0; i < 20 * PARTITIONS; i++) {
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		count[msg.partition]++;
	}
	for (int p = 0; p < PARTITIONS; p++)
		CHECK_EQ(count[p], 20);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- ways to receive -------------------------------------------------------------- */

TEST(a_buffer_too_small_leaves_the_message)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY, SHMQ_EVICT };
	struct shmq_msg in = { .data = "payload",
			       .len = 7,
			       .key = "key",
			       .key_len = 3,
			       .properties = "props",
			       .properties_len = 5 };
	struct shmq_msg out, many[3];
	char buf[15];
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 3; k++) {
		char topic[2] = { (char)('a' + k), 0 };
		shmq_pub *pub;
		shmq_sub *sub;

		create(bus, topic, .depth = 1024, .policy = policies[k]);
		pub = open_pub(bus, topic);
		sub = open_sub(bus, topic);
		CHECK_OK(shmq_publish_msg(pub, &in));
		CHECK_OK(shmq_publish(pub, "next", 4));
		for (int i = 0; i < 3; i++) {
			CHECK_ERROR(shmq_receive_copy(sub, buf, 14, &out, SHMQ_NOWAIT),
				    SHMQ_EBUFFER);
			CHECK_EQ(out.len, 7);
			CHECK_EQ(out.key_len, 3);
			CHECK_EQ(out.properties_len, 5);
			CHECK_EQ(sub_stats(sub).received, 0);
		}
		CHECK_OK(shmq_receive_copy(sub, buf, 15, &out, SHMQ_NOWAIT));
		CHECK(out.data == buf);
		CHECK_MEM(buf, "payloadkeyprops", 15);
		CHECK_OK(shmq_receive_copy(sub, buf, 15, &out, SHMQ_NOWAIT));
		CHECK_MEM(out.data, "next", 4);
		CHECK_ERROR(shmq_receive_copy(sub, buf, 15, &out, SHMQ_NOWAIT), SHMQ_EEMPTY);
		/* The same inside an atomic batch. */
		for (int i = 0; i < 3; i++)
			many[i] = (struct shmq_msg){ .data = "batchmember", .len = 9 + (size_t)i };
		CHECK_EQ(shmq_publish_batch(pub, many, 3, SHMQ_ATOMIC), 3);
		for (int i = 0; i < 3; i++) {
			CHECK_ERROR(shmq_receive_copy(sub, buf, 8, &out, SHMQ_NOWAIT),
				    SHMQ_EBUFFER);
			CHECK_ERROR(shmq_receive_copy(sub, buf, 8, &out, SHMQ_NOWAIT),
				    SHMQ_EBUFFER);
			CHECK_OK(shmq_receive_copy(sub, buf, 15, &out, SHMQ_NOWAIT));
			CHECK_EQ(out.len, 9 + i);
		}
		CHECK_EQ(sub_stats(sub).received, 5);
		CHECK_EQ(sub_stats(sub).lost, 0);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_buffer_too_small_does_not_change_the_turn_of_partitions)
{
	struct shmq_msg in = { .data = "0123456789", .len = 10 }, out;
	char buf[10];
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int32_t partition;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .partitions = 3);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	for (in.partition = 0; in.partition < 3; in.partition++)
		CHECK_OK(shmq_publish_msg(pub, &in));
	for (int i = 0; i < 3; i++) {
		CHECK_ERROR(shmq_receive_copy(sub, buf, 1, &out, SHMQ_NOWAIT), SHMQ_EBUFFER);
		partition = out.partition;
		CHECK_ERROR(shmq_receive_copy(sub, buf, 1, &out, SHMQ_NOWAIT), SHMQ_EBUFFER);
		CHECK_EQ(out.partition, partition);
		CHECK_OK(shmq_receive_copy(sub, buf, 10, &out, SHMQ_NOWAIT));
		CHECK_EQ(out.partition, partition);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

struct polled {
	uint64_t next, stop_at;
};

static int in_order(void *arg, const struct shmq_msg *msg)
{
	struct polled *p = arg;
	uint64_t n;

	CHECK_EQ(msg->len, sizeof(n));
	memcpy(&n, msg->data, sizeof(n));
	CHECK_EQ(n, p->next);
	p->next++;
	return n == p->stop_at;
}

TEST(poll_hands_out_what_is_there_and_stops_when_told)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY };
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 2; k++) {
		char topic[2] = { (char)('a' + k), 0 };
		struct polled p = { 0, 30 };
		shmq_pub *pub;
		shmq_sub *sub;

		create(bus, topic, .depth = 1024, .policy = policies[k]);
		sub = open_sub(bus, topic);
		pub = open_pub(bus, topic);
		CHECK_EQ(shmq_poll(sub, in_order, &p, 0, SHMQ_NOWAIT), 0);
		for (uint64_t n = 0; n < 100; n++)
			CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_EQ(shmq_poll(sub, in_order, &p, 20, PATIENCE), 20);
		CHECK_EQ(shmq_poll(sub, in_order, &p, 20, SHMQ_NOWAIT), 11); /* told at 30 */
		CHECK_EQ(p.next, 31);
		CHECK_EQ(shmq_poll(sub, in_order, &p, 1000, SHMQ_FOREVER), 69);
		CHECK_ERROR(shmq_poll(sub, in_order, &p, 1000, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_EQ(sub_stats(sub).received, 100);
		/* The end is said after the messages before it. */
		for (uint64_t n = 100; n < 103; n++)
			CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_topic_remove(bus, topic, SHMQ_FORCE));
		CHECK_EQ(shmq_poll(sub, in_order, &p, 1000, PATIENCE), 3);
		CHECK_ERROR(shmq_poll(sub, in_order, &p, 1000, PATIENCE), SHMQ_EENDED);
		CHECK_ERROR(shmq_poll(sub, in_order, &p, 1000, PATIENCE), SHMQ_EENDED);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_view_that_was_overwritten_is_void_and_counted)
{
	struct shmq_msg msg, other;
	uint64_t sent = 0, received = 0, lost = 0;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .policy = SHMQ_LOSSY);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	for (; sent < 10; sent++)
		CHECK_OK(shmq_publish(pub, &sent, sizeof(sent)));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_OK(shmq_view_check(sub, &msg));
	for (; sent < 10 + 1024; sent++)
		CHECK_OK(shmq_publish(pub, &sent, sizeof(sent)));
	CHECK_EQ(sub_stats(sub).received, 1);
	CHECK_ERROR(shmq_view_check(sub, &msg), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(sub).received, 0);
	CHECK_EQ(sub_stats(sub).lost, 1);
	while ((rc = shmq_receive(sub, &other, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN) {
			lost += other.lost;
			continue;
		}
		CHECK_OK(rc);
		CHECK_OK(shmq_view_check(sub, &other));
		received++;
	}
	CHECK_EQ(received + lost + 1, sent);
	CHECK_EQ(sub_stats(sub).received, received);
	CHECK_EQ(sub_stats(sub).lost, lost + 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_view_of_a_topic_that_waits_is_always_whole)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t n = 7;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .policy = SHMQ_DROP_NEW);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	for (int i = 1; i < 1024; i++)
		CHECK_OK(shmq_publish(pub, "other", 5));
	CHECK_ERROR(shmq_publish(pub, "other", 5), SHMQ_EFULL);
	CHECK_OK(shmq_view_check(sub, &msg));
	CHECK_MEM(msg.data, &n, sizeof(n));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- where to start ----------------------------------------------------------------- */

static uint64_t first_received(shmq_bus *bus, const char *topic, enum shmq_from from, uint64_t seq)
{
	shmq_sub *sub = open_sub(bus, topic, .from = from, .seq = seq);
	struct shmq_msg msg = { 0 };
	int rc = shmq_receive(sub, &msg, SHMQ_NOWAIT);

	shmq_sub_close(sub);
	if (rc == SHMQ_EEMPTY)
		return UINT64_MAX;
	CHECK_OK(rc);
	return msg.seq;
}

TEST(large_messages_that_nobody_read_stay_for_whoever_comes)
{
	enum {
		LARGE = 65536,
		MESSAGES = 4
	}; /* one that is inline, and what an arena has room for */
	static char buf[LARGE];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = LARGE);
	pub = open_pub(bus, "t", .arena_bytes = 4 * LARGE);
	for (unsigned n = 0; n < MESSAGES; n++) {
		fill(buf, n ? LARGE : 8, n);
		CHECK_OK(shmq_publish(pub, buf, n ? LARGE : 8));
	}
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (unsigned n = 0; n < MESSAGES; n++) {
		fill(buf, n ? LARGE : 8, n);
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_FOREVER));
		CHECK_EQ(msg.len, n ? LARGE : 8);
		CHECK_MEM(msg.data, buf, msg.len);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_subscriber_starts_where_it_asks_or_at_the_oldest_left)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY,
						     SHMQ_EVICT };
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 8; k++) {
		char topic[2] = { (char)('a' + k), 0 };
		uint64_t n = 0, oldest;
		shmq_pub *pub;

		create(bus, topic, .depth = 1024, .policy = policies[k % 4],
		       .mode = k < 4 ? SHMQ_EXCLUSIVE : SHMQ_SHARED);
		pub = open_pub(bus, topic);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_OLDEST, 0), UINT64_MAX);
		for (; n < 100; n++)
			CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_OLDEST, 0), 0);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_SEQ, 42), 42);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_SEQ, 99), 99);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_SEQ, 100), UINT64_MAX);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_LATEST, 0), UINT64_MAX);
		for (; n < 5000; n++)
			CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		/* Seven eighths of the ring are promised to who comes late. */
		oldest = first_received(bus, topic, SHMQ_FROM_OLDEST, 0);
		CHECK_GE(oldest, 5000 - 1024);
		CHECK_LE(oldest, 5000 - 1024 + 1024 / 8);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_SEQ, 42), oldest);
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_SEQ, 4990), 4990);
		shmq_pub_close(pub);
		/* What was sent outlives its publisher's handle. */
		CHECK_EQ(first_received(bus, topic, SHMQ_FROM_SEQ, 4990), 4990);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}
