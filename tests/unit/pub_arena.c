/* SPDX-License-Identifier: MIT
 *
 * The arena of a publisher: whose it may be, what is found there, when it is
 * full.
 */
#include "publisher.h"

static void arena_is(struct standin_answer *a, void *arg)
{
	a->reply.open.arena = *(uint32_t *)arg;
}

TEST(an_arena_that_is_not_what_it_should_be_is_not_written_to)
{
	struct standin *s =
		standin_new(&(struct fake_options){ .max_bytes = 5000, .arena_bytes = 1 << 16 });
	struct fake *f = standin_fake(s);
	struct lay_member *m = fake_member(f, fake_client(f, getpid()), -1);
	shmq_bus *bus = standin_bus(s);
	struct lay_arena *rec;
	uint32_t id;
	shmq_pub *pub;
	static char bytes[5000];
	void *data;

	standin_change_answers(s, PROTO_OPEN, arena_is, &id);
	id = 1000; /* no record */
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	id = fake_arena(f, m, 4096) + 1;
	rec = shmq__slabs_arena(f->slabs, id - 1);
	pub = open_pub(bus, STANDIN_TOPIC);
	CHECK_ERROR(shmq_publish(pub, bytes, 4097), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_claim(pub, 4097, &data), SHMQ_ETOOBIG);
	CHECK_OK(shmq_publish(pub, bytes, 4096));
	shmq_pub_close(pub);
	rec->mem = LAY_REF(FAKE_ENTRIES, LAY_ENTRY_SLAB_BYTES - 64);
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	CHECK(strstr(shmq_bus_error(bus), "mapping the arena of \"fake\""));
	rec->mem = LAY_REF(FAKE_REGISTRY, LAY_PAGE); /* not ours to write */
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), -EACCES);
	rec->bytes = 0;
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	id = 0; /* none was given, though messages may be large */
	pub = open_pub(bus, STANDIN_TOPIC);
	CHECK_ERROR(shmq_publish(pub, bytes, 49), SHMQ_ETOOBIG);
	CHECK_OK(shmq_publish(pub, bytes, 48));
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_batch_that_its_arena_cannot_hold_gives_back_what_it_took)
{
	enum { BYTES = 1024, PIECES = 4 };
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = BYTES, .arena_bytes = PIECES * BYTES },
		       NULL);
	struct shmq_msg batch[PIECES + 1];

	fill_batch(batch, COUNT(batch), BYTES);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, PIECES + 1, SHMQ_ATOMIC), SHMQ_EBATCH);
	CHECK_EQ(head(&c), 0);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, PIECES, SHMQ_ATOMIC), PIECES);
	tear_down(&c);
}

TEST(an_arena_message_that_finds_the_ring_full_gives_its_bytes_back)
{
	struct scene c = set_up(&(struct fake_options){ .max_bytes = 4096, .arena_bytes = 4096 },
				PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	static char bytes[4096];
	void *data;

	CHECK_EQ(publish_all(c.pub, SHMQ_EFULL), FAKE_DEPTH);
	for (int n = 0; n < 3; n++)
		CHECK_ERROR(shmq_publish(c.pub, bytes, sizeof(bytes)), SHMQ_EFULL);
	CHECK_OK(shmq_claim(c.pub, 4096, &data));
	CHECK_ERROR(shmq_commit(c.pub, NULL), SHMQ_EFULL);
	store_release(c.cursor, 1);
	CHECK_OK(shmq_commit(c.pub, NULL)); /* the claim was still open */
	CHECK_EQ(pub_stats(c.pub).dropped, 5);
	tear_down(&c);
}

/* What a predecessor left in the ring is found where it lies in its arena. */
/* Any publisher of the ring can have written it. */
TEST(a_mad_first_seq_does_not_keep_who_takes_an_arena_over)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1024, .arena_bytes = 4096 }, NULL);
	static char bytes[1024];

	CHECK_OK(shmq_publish(c.pub, bytes, sizeof(bytes)));
	shmq_pub_close(c.pub);
	c.f->topic->ring[0].mem->base_seq = UINT64_C(1) << 63 | 1;
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	CHECK_OK(shmq_publish(c.pub, bytes, sizeof(bytes)));
	tear_down(&c);
}

TEST(an_arena_is_taken_over_with_what_lies_in_it_at_every_wrap)
{
	enum { BYTES = 1024, PIECES = 8 };

	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c = set_up(&(struct fake_options){ .base_seq = bases[i],
								.max_bytes = BYTES,
								.arena_bytes = PIECES * BYTES },
					PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
		static char bytes[BYTES];
		struct shmq_msg batch[2];

		/* One round of the ring, so that there is no going by the base. */
		for (unsigned n = 0; n < FAKE_DEPTH; n++) {
			CHECK_EQ(publish_seq(c.pub), bases[i] + n);
			store_release(c.cursor, bases[i] + n + 1);
		}
		for (int n = 0; n < 3; n++)
			CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_OK(shmq_publish(c.pub, bytes, 10));
		fill_batch(batch, 2, BYTES);
		CHECK_EQ(shmq_publish_batch(c.pub, batch, 2, SHMQ_ATOMIC), 2);
		shmq_pub_close(c.pub);
		c.pub = open_pub(c.bus, STANDIN_TOPIC, .flags = SHMQ_DONTWAIT);
		CHECK_EQ(c.f->arenas, 1);
		for (int n = 0; n < PIECES - 5; n++)
			CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_EFULL);
		store_release(c.cursor, bases[i] + FAKE_DEPTH + 1);
		CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_EFULL);
		CHECK_EQ(LAY_CTRL_STATE(word_of(&c, bases[i] + FAKE_DEPTH)), LAY_GONE);
		tear_down(&c);
	}
}

/* Where in its arena the message lies that was sent last. */
static uint64_t place_of_last(const struct scene *c)
{
	const struct shmq__ring *r = &c->f->topic->ring[0];
	struct lay_arena_ref where;
	struct lay_slot slot;

	CHECK(shmq__ring_arena_ref(r->mem, &r->geo, head(c) - 1, &slot, &where));
	return where.off;
}

TEST(a_large_message_is_copied_to_the_front_once_all_was_read)
{
	enum { BYTES = 1024, PIECES = 4 };
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = BYTES, .arena_bytes = PIECES * BYTES },
		       PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	static char bytes[BYTES];
	void *data;

	for (uint64_t n = 0; n < 6; n++) {
		CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_EQ(place_of_last(&c), n % 2 * BYTES);
		CHECK_EQ(LAY_CTRL_STATE(word_of(&c, n)), LAY_COMMITTED); /* for who joins */
		store_release(c.cursor, n + 1);
	}
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES)); /* that is not read */
	CHECK_EQ(place_of_last(&c), 0);
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_EQ(place_of_last(&c), 2 * BYTES);
	store_release(c.cursor, 8); /* all but the last */
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_EQ(place_of_last(&c), 3 * BYTES);
	store_release(c.cursor, 10);
	CHECK_OK(shmq_claim(c.pub, BYTES, &data));
	CHECK_OK(shmq_commit(c.pub, NULL));
	CHECK_EQ(place_of_last(&c), 0);
	store_release(c.cursor, 11);
	CHECK_OK(shmq_claim(c.pub, BYTES, &data));
	CHECK_OK(shmq_commit(c.pub, NULL));
	store_release(c.cursor, 12);
	CHECK_OK(shmq_claim(c.pub, BYTES, &data));
	CHECK_OK(shmq_commit(c.pub, NULL));
	CHECK_EQ(place_of_last(&c), 2 * BYTES); /* in turn */
	tear_down(&c);
}

/* Publishes n messages of a KiB, each read before the next, into an arena of so many. */
static void check_goes_round(struct fake_options options, unsigned pieces, uint64_t n)
{
	struct scene c;
	static char bytes[1024];

	options.max_bytes = sizeof(bytes);
	options.arena_bytes = pieces * sizeof(bytes);
	c = set_up(&options, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	for (uint64_t i = 0; i < n; i++) {
		CHECK_OK(shmq_publish(c.pub, bytes, sizeof(bytes)));
		CHECK_EQ(place_of_last(&c), i % pieces * sizeof(bytes));
		store_release(c.cursor, i + 1);
	}
	tear_down(&c);
}

TEST(what_is_small_beside_its_arena_goes_round_in_it)
{
	check_goes_round((struct fake_options){ 0 }, 16, 24);
}

/* As those that spill do, who are some messages behind. */
TEST(where_others_read_what_was_read_a_large_message_goes_round_as_well)
{
	check_goes_round((struct fake_options){ .policy = SHMQ_EVICT }, 4, 12);
}
