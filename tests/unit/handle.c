/* SPDX-License-Identifier: MIT
 *
 * Handles that are granted wrongly, closed while nobody was there, or opened
 * and closed by many threads.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"

/* ---- handles that are granted wrongly -------------------------------- */

static void topic_of_another_index(struct standin_answer *a, void *arg)
{
	a->reply.open.topic_index = 7;
}

static void topic_of_another_id(struct standin_answer *a, void *arg)
{
	a->reply.open.topic_id++;
}

static void entry_is_none(struct standin_answer *a, void *arg)
{
	a->reply.open.entry = 0;
}

static void entry_out_of_bounds(struct standin_answer *a, void *arg)
{
	a->reply.open.entry = LAY_REF(FAKE_ENTRIES, LAY_ENTRY_SLAB_BYTES - 64);
}

static void entry_misaligned(struct standin_answer *a, void *arg)
{
	a->reply.open.entry += 4;
}

static void entry_in_the_registry(struct standin_answer *a, void *arg)
{
	a->reply.open.entry = LAY_REF(FAKE_REGISTRY, LAY_PAGE);
}

static void entry_of_another(struct standin_answer *a, void *arg)
{
	a->reply.open.entry_gen++;
}

static void entries_not_given(struct standin_answer *a, void *arg)
{
	a->reply.fd[3].writable = 0;
}

static void rings_not_given(struct standin_answer *a, void *arg)
{
	a->reply.fd[0].writable = 0;
}

TEST(a_handle_that_is_granted_wrongly_is_closed_again)
{
	static const struct {
		enum proto_op op;
		standin_change *change;
		int error;
		const char *says;
	} grants[] = {
		{ PROTO_HELLO, entries_not_given, -EACCES, "" },
		{ PROTO_OPEN, rings_not_given, -EACCES, "" },
		{ PROTO_OPEN, one_fewer, SHMQ_EPROTO, "" },
		{ PROTO_OPEN, topic_of_another_index, SHMQ_ENOTOPIC, "" },
		{ PROTO_OPEN, topic_of_another_id, SHMQ_ENOTOPIC, "" },
		{ PROTO_OPEN, entry_is_none, SHMQ_ECORRUPT, "" },
		{ PROTO_OPEN, entry_out_of_bounds, SHMQ_ECORRUPT, "" },
		{ PROTO_OPEN, entry_misaligned, SHMQ_ECORRUPT, "" },
		{ PROTO_OPEN, entry_in_the_registry, -EACCES, "" },
		{ PROTO_OPEN, entry_of_another, SHMQ_ECORRUPT, "is not ours" },
	};
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2 });

	for (size_t i = 0; i < COUNT(grants); i++) {
		unsigned closed = standin_count(s, PROTO_CLOSE);
		shmq_bus *bus;
		shmq_pub *pub;

		standin_change_answers(s, grants[i].op, grants[i].change, NULL);
		bus = standin_bus(s); /* what was given once stays */
		CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), grants[i].error);
		CHECK(!pub);
		check_says(grants[i].says);
		CHECK_EQ(standin_count(s, PROTO_CLOSE), closed + 1);
		check_empty(s);
		standin_change_answers(s, grants[i].op, NULL, NULL);
		standin_cut(s);
		CHECK_OK(ask(bus));
		check_works(bus);
		shmq_bus_close(bus);
	}
	standin_free(s);
}

TEST(a_ring_that_is_not_what_the_registry_says_is_not_attached)
{
	struct standin *s = standin_new(NULL);
	struct lay_ring *ring = standin_fake(s)->topic->ring[0].mem;
	shmq_bus *bus = standin_bus(s);
	shmq_pub *pub;
	shmq_sub *sub;

	ring->topic_id++;
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, NULL, &sub), SHMQ_ECORRUPT);
	ring->topic_id--;
	ring->version++;
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, NULL, &sub), SHMQ_EVERSION);
	ring->version--;
	check_empty(s);
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

/* The daemon refuses it; a library that trusted it to would read beyond its
 * rings. */
TEST(a_partition_that_the_topic_has_not_is_not_opened_even_if_granted)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2 });
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub;

	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, SUB_OPTIONS(.partition_plus1 = 3), &sub),
		    SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, SUB_OPTIONS(.partition_plus1 = INT32_MAX),
				  &sub),
		    SHMQ_ECORRUPT);
	check_empty(s);
	sub = open_sub(bus, STANDIN_TOPIC, .partition_plus1 = 2);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- closed while nobody was there ----------------------------------- */

enum { MANY = 40 };

TEST(handles_closed_while_nobody_was_there_are_told_of_later)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub[MANY];
	unsigned left = 2;

	for (int i = 0; i < MANY; i++)
		sub[i] = open_sub(bus, STANDIN_TOPIC);
	standin_leave(s);
	for (int i = 0; i < MANY; i++)
		shmq_sub_close(sub[i]);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).subscribers, MANY);
	/* Who dies in the middle of hearing it is told again. */
	standin_change_answers(s, PROTO_CLOSE, die_once, &left);
	standin_return(s);
	standin_await(s, PROTO_CLOSE, MANY + 2);
	while (!shmq_bus_is_attached(bus))
		test_sleep_ms(1);
	check_works(bus);
	CHECK_EQ(standin_count(s, PROTO_CLOSE), MANY + 2 + 2);
	check_empty(s);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- threads --------------------------------------------------------- */

struct opener {
	shmq_bus *bus;
	unsigned number;
};

static void *open_and_close(void *arg)
{
	const struct opener *o = arg;

	for (int n = 0; n < 30; n++) {
		shmq_sub *sub = open_sub(o->bus, STANDIN_TOPIC);
		shmq_pub *pub = open_pub(o->bus, STANDIN_TOPIC,
					 .wake = n % 2 ? SHMQ_WAKE_DEFERRED : SHMQ_WAKE_DIRECT);
		struct shmq_msg msg;

		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		shmq_pub_close(pub);
		shmq_sub_close(sub);
		CHECK_OK(ask(o->bus));
	}
	return NULL;
}

TEST(threads_open_and_close_handles_of_one_bus_while_its_supervisor_comes_and_goes)
{
	struct standin *s = standin_new(&(struct fake_options){ .mode = SHMQ_SHARED });
	shmq_bus *bus = standin_bus(s);
	struct opener opener[3];
	pthread_t thread[3];

	for (unsigned i = 0; i < COUNT(thread); i++) {
		opener[i] = (struct opener){ bus, i };
		thread[i] = fake_thread(open_and_close, &opener[i]);
	}
	for (int n = 0; n < 10; n++) {
		standin_await(s, PROTO_PLAN, 8u * (unsigned)n);
		if (n % 2) {
			standin_cut(s);
		} else {
			standin_leave(s);
			standin_return(s);
		}
	}
	for (unsigned i = 0; i < COUNT(thread); i++)
		fake_join(thread[i]);
	CHECK_OK(ask(bus));
	check_empty(s);
	shmq_bus_close(bus);
	standin_free(s);
}
