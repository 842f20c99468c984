/* SPDX-License-Identifier: MIT
 *
 * The subscriber handle against slots, batches and arenas written by hand,
 * and, at the end, against publishers that race with it in threads.
 */
#include "../../libshmq/bus.h"
#include "helpers.h"
#include "memory.h"
#include "standin.h"

static const uint64_t bases[] = FAKE_BASES;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A bus, its topic with a publisher by hand, and the subscriber. */
struct scene {
	struct standin *s;
	struct fake *f;
	shmq_bus *bus;
	shmq_sub *sub;
	struct lay_member *pub;
	struct ring_writer w;
};

static struct scene set_up(const struct fake_options *options, const struct shmq_sub_options *o)
{
	struct scene c = { .s = standin_new(options) };

	c.f = standin_fake(c.s);
	c.bus = standin_bus(c.s);
	c.pub = fake_publisher(c.f, fake_client(c.f, getpid()));
	c.w = fake_writer(c.f, c.pub, 0);
	c.w.limit = c.w.next + (UINT64_C(1) << 62);
	CHECK_OK(shmq_sub_open(c.bus, STANDIN_TOPIC, o, &c.sub));
	return c;
}

static void tear_down(struct scene *c)
{
	shmq_sub_close(c->sub);
	shmq_bus_close(c->bus);
	standin_free(c->s);
}

static struct lay_slot *slot_of(const struct scene *c, uint64_t seq)
{
	return lay_slot_at(c->w.mem, &c->f->geo, seq);
}

static void set_state(const struct scene *c, uint64_t seq, enum lay_state state)
{
	store_release(&slot_of(c, seq)->ctrl,
		      LAY_CTRL(lay_lap(&c->f->geo, seq), c->w.owner, state));
}

/* As an exclusive publisher does where readers may be lapped. */
static void make_ready(struct scene *c)
{
	const struct lay_geometry *g = &c->f->geo;

	if (g->mode == SHMQ_EXCLUSIVE && (g->policy == SHMQ_LOSSY || g->policy == SHMQ_EVICT))
		ring_make_room(&c->w, 1, 1);
}

/* n messages, each its own number from 0 at base. */
static void publish(struct scene *c, uint64_t n)
{
	while (n--) {
		make_ready(c);
		fake_publish(&c->w, c->w.next - c->f->base_seq);
		if (c->w.next % RING_HINT_EVERY == 0)
			store_relaxed(&c->w.mem->tail_hint, c->w.next);
	}
}

/* The next slot, written as told; where its payload goes. */
static char *write_slot(struct scene *c, uint16_t flags, uint32_t len)
{
	struct lay_slot *slot = slot_of(c, c->w.next);

	make_ready(c);
	slot->len = len;
	slot->flags = flags;
	slot->type = 0;
	return (char *)slot + c->f->geo.payload_off;
}

static void commit(struct scene *c)
{
	ring_commit(&c->w, slot_of(c, c->w.next), c->w.next);
	c->w.next++;
}

/* Member index of count of the batch that began at first: its index. */
static void publish_member(struct scene *c, uint64_t first, uint32_t index, uint32_t count)
{
	struct lay_batch batch = { .first_seq = first, .index = index, .count = count };
	char *at = write_slot(c, SHMQ_MSG_BATCH, sizeof(index));

	memcpy(at, &batch, sizeof(batch));
	memcpy(at + sizeof(batch), &index, sizeof(index));
	commit(c);
}

static uint64_t number(const struct shmq_msg *m)
{
	uint64_t n;

	CHECK_EQ(m->len, sizeof(n));
	memcpy(&n, m->data, sizeof(n));
	return n;
}

static void check_next(struct scene *c, uint64_t n)
{
	struct shmq_msg m;
	uint64_t copy;

	CHECK_OK(shmq_receive_copy(c->sub, &copy, sizeof(copy), &m, SHMQ_NOWAIT));
	CHECK_EQ(m.seq, c->f->base_seq + n);
	CHECK_EQ(copy, n);
}

static void check_lost(struct scene *c, uint64_t lost)
{
	struct shmq_msg m;

	CHECK_ERROR(shmq_receive(c->sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(m.lost, lost);
	CHECK_EQ(m.lost_is_bound, 0);
	CHECK_EQ(m.partition, 0);
}

static void check_none(struct scene *c)
{
	CHECK_ERROR(shmq_receive(c->sub, &(struct shmq_msg){ 0 }, SHMQ_NOWAIT), SHMQ_EEMPTY);
}

/* ---- opening --------------------------------------------------------------- */

TEST(options_of_a_subscriber_out_of_range_are_refused_and_nobody_is_asked)
{
	static const struct shmq_sub_options bad[] = {
		{ .from = (enum shmq_from)4 },
		{ .partition_plus1 = -1 },
		{ .wait = (enum shmq_wait)5 },
		{ .spin_ns = -1 },
		{ .flags = 2 },
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

/* ---- loss ---------------------------------------------------------------------- */

/* What the publisher gives up ahead of it is lost too. */
TEST(loss_is_exact_wherever_the_reader_is_overrun_at_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .policy = SHMQ_LOSSY, .base_seq = bases[i] },
			       NULL);
		uint64_t read = 0, lost = 0, seed = i;
		struct shmq_msg m;
		char copy[48];
		int rc;

		for (int round = 0; round < 40; round++) {
			uint64_t take = fake_random(&seed) % 800;

			publish(&c, fake_random(&seed) % (3 * FAKE_DEPTH));
			while (take-- && (rc = shmq_receive_copy(c.sub, copy, sizeof(copy), &m,
								 SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
				if (rc == SHMQ_EOVERRUN) {
					CHECK_EQ(m.lost_is_bound, 0);
					CHECK_GT(m.lost, 0);
					lost += m.lost;
					continue;
				}
				CHECK_OK(rc);
				CHECK_EQ(number(&m), read + lost);
				CHECK_EQ(m.seq, bases[i] + read + lost);
				read++;
			}
			CHECK_EQ(sub_stats(c.sub).received, read);
			CHECK_EQ(sub_stats(c.sub).lost, lost);
			CHECK_EQ(sub_stats(c.sub).lost_is_bound, 0);
		}
		CHECK_GT(lost, FAKE_DEPTH);
		CHECK_OK(shmq_release(c.sub));
		CHECK_EQ(sub_stats(c.sub).lag, c.w.next - bases[i] - read - lost);
		tear_down(&c);
	}
}

/* Lap the reader with n of the seqs being holes. */
static void lap_with_voids(struct scene *c, unsigned n)
{
	uint64_t seq, word;

	for (unsigned i = 0; i < 2 * FAKE_DEPTH; i++) {
		CHECK_EQ(shmq__ring_claim(&c->w, &seq, &word), RING_CLAIM_OK);
		if (i % 2 && n) {
			n--;
			CHECK(shmq__ring_void(c->w.mem, &c->f->geo, seq,
					      load_relaxed(&slot_of(c, seq)->ctrl)));
		} else {
			fake_put(&c->w, seq, i);
		}
	}
}

TEST(holes_are_not_counted_as_lost_unless_they_were_forgotten_and_then_it_is_said)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_LOSSY,
								.mode = SHMQ_SHARED,
								.base_seq = bases[i] },
					NULL);
		struct shmq_msg m;
		uint64_t got = 0, lost = 0;
		char copy[48];
		int rc;

		lap_with_voids(&c, 300);
		while ((rc = shmq_receive_copy(c.sub, copy, sizeof(copy), &m, SHMQ_NOWAIT)) !=
		       SHMQ_EEMPTY) {
			got += !rc;
			lost += rc ? m.lost : 0;
			if (rc)
				CHECK_EQ(m.lost_is_bound, 0);
		}
		CHECK_EQ(got + lost, 2 * FAKE_DEPTH - 300);
		CHECK_EQ(sub_stats(c.sub).lost_is_bound, 0);
		lap_with_voids(&c, LAY_VOIDS + 1);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
		CHECK_EQ(m.lost_is_bound, 1);
		CHECK_EQ(sub_stats(c.sub).lost_is_bound, 1);
		tear_down(&c);
	}
}

TEST(messages_whose_bytes_are_gone_are_one_gap)
{
	struct scene c = set_up(NULL, NULL);

	publish(&c, 10);
	for (uint64_t n = 2; n < 6; n++)
		set_state(&c, n, LAY_GONE);
	set_state(&c, 7, LAY_VOID);
	check_next(&c, 0);
	check_next(&c, 1);
	check_lost(&c, 4);
	check_next(&c, 6);
	check_next(&c, 8); /* over the hole: nothing was there to lose */
	CHECK_EQ(sub_stats(c.sub).lost, 4);
	tear_down(&c);
}

TEST(who_was_evicted_is_told_once_and_for_all)
{
	for (int gone = 0; gone < 2; gone++) {
		struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);
		struct shmq_msg m;
		uint64_t copy;

		publish(&c, 5);
		check_next(&c, 0);
		if (gone)
			for (uint64_t n = 1; n < 3; n++)
				set_state(&c, n, LAY_GONE);
		else
			publish(&c, 2 * FAKE_DEPTH);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER), SHMQ_EEVICTED);
		CHECK_GE(m.lost, gone ? 2 : FAKE_DEPTH);
		for (int n = 0; n < 3; n++) {
			CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER), SHMQ_EEVICTED);
			CHECK_ERROR(shmq_receive_copy(c.sub, &copy, 8, &m, SHMQ_NOWAIT),
				    SHMQ_EEVICTED);
		}
		CHECK_EQ(sub_stats(c.sub).received, 1);
		CHECK_EQ(peers_of(c.bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).evicted, 1);
		tear_down(&c);
	}
}

/* ---- slots that lie --------------------------------------------------------------- */

enum lie {
	LONGER_THAN_THE_SLOT,
	META_WITHOUT_ROOM_FOR_IT,
	KEY_LONGER_THAN_THE_MESSAGE,
	KEY_AND_PROPERTIES_TOGETHER_LONGER,
	BATCH_LONGER_THAN_THE_SLOT,
	ARENA_UNKNOWN,
	ARENA_OF_ANOTHER_GENERATION,
	ARENA_OFFSET_OUT_OF_BOUNDS,
	ARENA_LENGTH_OUT_OF_BOUNDS,
	ARENA_THAT_IS_NOT_IN_ANY_SLAB,
	LIES
};

static void lie(struct scene *c, enum lie which, const uint32_t arena[2])
{
	const struct lay_arena *rec = shmq__slabs_arena(c->f->slabs, arena[0]);
	struct lay_arena_ref where = { .id = arena[0], .gen = (uint32_t)rec->gen };
	struct lay_meta meta = { 0, 0 };
	uint16_t flags = which >= ARENA_UNKNOWN              ? SHMQ_MSG_ARENA :
			 which == BATCH_LONGER_THAN_THE_SLOT ? SHMQ_MSG_BATCH :
			 which == LONGER_THAN_THE_SLOT       ? 0 :
							       SHMQ_MSG_META;
	uint32_t len = 20;
	char *at;

	if (which == LONGER_THAN_THE_SLOT)
		len = c->f->geo.inline_bytes + 1;
	else if (which == META_WITHOUT_ROOM_FOR_IT)
		len = sizeof(meta) - 1;
	else if (which == KEY_LONGER_THAN_THE_MESSAGE)
		meta.key_bytes = 17;
	else if (which == KEY_AND_PROPERTIES_TOGETHER_LONGER)
		meta.key_bytes = meta.properties_bytes = UINT16_MAX;
	else if (which == BATCH_LONGER_THAN_THE_SLOT)
		len = c->f->geo.inline_bytes - (uint32_t)sizeof(struct lay_batch) + 1;
	else if (which == ARENA_UNKNOWN)
		where.id = UINT32_MAX;
	else if (which == ARENA_OF_ANOTHER_GENERATION)
		where.gen++;
	else if (which == ARENA_OFFSET_OUT_OF_BOUNDS)
		where.off = rec->bytes;
	else if (which == ARENA_LENGTH_OUT_OF_BOUNDS)
		where.off = rec->bytes - 19;
	else
		where = (struct lay_arena_ref){ .id = arena[1], .gen = 1 };
	at = write_slot(c, flags, len);
	memset(at, 0, c->f->geo.inline_bytes);
	if (flags & SHMQ_MSG_ARENA)
		memcpy(at, &where, sizeof(where));
	else if (flags & SHMQ_MSG_META)
		memcpy(at, &meta, sizeof(meta));
	commit(c);
}

TEST(a_slot_that_lies_costs_one_message_and_is_said)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY, SHMQ_EVICT };

	for (size_t i = 0; i < COUNT(policies); i++) {
		struct scene c = set_up(&(struct fake_options){ .policy = policies[i] }, NULL);
		uint32_t arena[2] = { fake_arena(c.f, c.pub, 8192), fake_arena(c.f, c.pub, 4096) };
		struct lay_arena *nowhere = shmq__slabs_arena(c.f->slabs, arena[1]);

		nowhere->mem = LAY_REF(UINT16_MAX, 0);
		store_relaxed(&nowhere->gen, 1);
		for (int which = 0; which < LIES; which++) {
			struct shmq_msg m;

			lie(&c, (enum lie)which, arena);
			publish(&c, 1);
			CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
			CHECK_EQ(m.lost, 1);
			check_next(&c, 2 * (uint64_t)which + 1);
			CHECK_EQ(sub_stats(c.sub).lost, which + 1);
			CHECK_EQ(sub_stats(c.sub).received, which + 1);
		}
		tear_down(&c);
	}
}

TEST(what_fits_to_the_byte_is_no_lie)
{
	struct scene c = set_up(NULL, NULL);
	uint32_t arena = fake_arena(c.f, c.pub, 4096);
	struct lay_arena_ref where = { .id = arena, .gen = 700 + arena, .off = 4095 };
	struct lay_meta meta = { 4, 40 };
	struct shmq_msg m;
	char *at;

	at = write_slot(&c, SHMQ_MSG_META, 48);
	memcpy(at, &meta, sizeof(meta));
	memcpy(at + 4, "key!properties", 14);
	commit(&c);
	memcpy(write_slot(&c, SHMQ_MSG_ARENA, 1), &where, sizeof(where));
	commit(&c);
	where.off = 0;
	memcpy(write_slot(&c, SHMQ_MSG_ARENA, 0), &where, sizeof(where));
	commit(&c);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	CHECK_EQ(m.len, 0);
	CHECK_EQ(m.key_len, 4);
	CHECK_MEM(m.key, "key!", 4);
	CHECK_EQ(m.properties_len, 40);
	CHECK_MEM(m.properties, "properties", 10);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	CHECK_EQ(m.len, 1);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	CHECK_EQ(m.len, 0);
	tear_down(&c);
}

static void publish_in_arena(struct scene *c, uint32_t arena, uint64_t n)
{
	const struct lay_arena *rec = shmq__slabs_arena(c->f->slabs, arena);
	struct lay_arena_ref where = { .id = arena, .gen = (uint32_t)rec->gen, .off = 64 };
	void *mem;

	CHECK_OK(shmq__slabs_map(c->f->slabs, rec->mem, rec->bytes, SHMQ__SLAB_WRITE, &mem));
	memcpy((char *)mem + 64, &n, sizeof(n));
	shmq__slabs_unmap(c->f->slabs, rec->mem, rec->bytes, mem);
	memcpy(write_slot(c, SHMQ_MSG_ARENA, sizeof(n)), &where, sizeof(where));
	commit(c);
}

/* Ids are given out again: what was mapped for the old one is not read. */
TEST(an_arena_s_id_given_to_another_is_mapped_anew)
{
	struct scene c = set_up(NULL, NULL);
	uint32_t first = fake_arena(c.f, c.pub, 4096), second = fake_arena(c.f, c.pub, 4096);
	struct lay_arena *rec = shmq__slabs_arena(c.f->slabs, first);

	publish_in_arena(&c, first, 0);
	check_next(&c, 0);
	rec->mem = shmq__slabs_arena(c.f->slabs, second)->mem;
	add_relaxed(&rec->gen, 1);
	publish_in_arena(&c, first, 1);
	check_next(&c, 1);
	tear_down(&c);
}

TEST(an_arena_that_cannot_be_mapped_now_is_said_and_its_message_waits)
{
	struct scene c = set_up(NULL, NULL);
	struct shmq_msg m;
	unsigned k;
	int met = 1;

	publish_in_arena(&c, fake_arena(c.f, c.pub, 4096), 0);
	for (k = 1; met; k++) {
		int rc;

		scarce_begin(k);
		rc = shmq_receive(c.sub, &m, SHMQ_NOWAIT);
		met = scarce_end();
		CHECK(met ? rc == -ENOMEM || rc == SHMQ_ELIMIT : !rc);
	}
	CHECK_EQ(k, 4);
	CHECK_EQ(number(&m), 0);
	CHECK_EQ(sub_stats(c.sub).lost, 0);
	tear_down(&c);
}

/* ---- atomic batches ------------------------------------------------------------------ */

static const struct fake_options lossy = { .policy = SHMQ_LOSSY };
static const struct fake_options lossy_shared = { .policy = SHMQ_LOSSY, .mode = SHMQ_SHARED };

/* Member i of a batch of 4 is number i. */
static void check_member(struct scene *c, uint64_t seq, uint32_t index)
{
	struct shmq_msg m;
	uint32_t copy;

	CHECK_OK(shmq_receive_copy(c->sub, &copy, sizeof(copy), &m, SHMQ_NOWAIT));
	CHECK_EQ(m.seq, seq);
	CHECK_EQ(copy, index);
	CHECK(m.flags & SHMQ_MSG_BATCH);
}

TEST(a_batch_of_impossible_size_costs_its_first_message)
{
	static const uint32_t counts[] = { 0, FAKE_DEPTH / 4 + 1, UINT32_MAX };

	for (size_t i = 0; i < COUNT(counts); i++) {
		struct scene c = set_up(&lossy, NULL);
		struct shmq_msg m;

		publish_member(&c, 0, 0, counts[i]);
		publish(&c, 1);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
		CHECK_EQ(m.lost, 1);
		check_next(&c, 1);
		tear_down(&c);
	}
}

TEST(batches_of_two_publishers_that_interleave_are_both_delivered_whole)
{
	struct scene c = set_up(&lossy_shared, NULL);

	publish_member(&c, 0, 0, 3);
	publish_member(&c, 1, 0, 2);
	publish_member(&c, 0, 1, 3);
	publish(&c, 1);
	publish_member(&c, 1, 1, 2);
	set_state(&c, c.w.next, LAY_CLAIMED);
	CHECK(shmq__ring_void(c.w.mem, &c.f->geo, c.w.next,
			      load_relaxed(&slot_of(&c, c.w.next)->ctrl)));
	c.w.next++;
	publish_member(&c, 0, 2, 3);
	check_member(&c, 0, 0);
	check_member(&c, 1, 0);
	publish(&c, 3 * FAKE_DEPTH); /* all of it overrun: what was copied is here */
	check_member(&c, 2, 1);
	check_lost(&c, 1);
	check_member(&c, 4, 1);
	check_member(&c, 6, 2); /* the hole before it was never a message */
	CHECK_EQ(sub_stats(c.sub).received, 5);
	tear_down(&c);
}

TEST(a_batch_that_lost_a_member_is_lost_whole)
{
	static const enum lay_state holes[] = { LAY_GONE, LAY_AHEAD };

	for (size_t i = 0; i < COUNT(holes); i++) {
		struct scene c = set_up(&lossy, NULL);
		uint64_t lost = 0;
		struct shmq_msg m;
		uint64_t copy;

		for (uint32_t n = 0; n < 3; n++)
			publish_member(&c, 0, n, 3);
		publish(&c, 1);
		set_state(&c, 1, holes[i]);
		for (;;) {
			int rc = shmq_receive_copy(c.sub, &copy, sizeof(copy), &m, SHMQ_NOWAIT);

			if (rc == SHMQ_EEMPTY && holes[i] == LAY_AHEAD) { /* it comes yet */
				CHECK_EQ(lost, 1);
				set_state(&c, 1, LAY_COMMITTED);
				continue;
			}
			if (!rc)
				break;
			CHECK_ERROR(rc, SHMQ_EOVERRUN);
			lost += m.lost;
		}
		CHECK_EQ(lost, 3);
		CHECK_EQ(m.seq, 3);
		CHECK_EQ(copy, 3);
		tear_down(&c);
	}
}

/* A member that says of itself that it belongs elsewhere ends the copying at
 * a lap, not never. */
TEST(a_batch_that_never_ends_is_given_up)
{
	struct scene c = set_up(&lossy, NULL);

	publish_member(&c, 0, 0, 2);
	for (int n = 0; n < 5; n++)
		publish_member(&c, 0, 7, 9);
	check_lost(&c, 1);
	for (int n = 0; n < 5; n++)
		check_lost(&c, 1);
	publish(&c, 1);
	check_next(&c, 6);
	tear_down(&c);
}

TEST(a_member_that_lies_costs_its_batch_but_is_said_itself)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;

	publish_member(&c, 0, 0, 2);
	write_slot(&c, SHMQ_MSG_BATCH, 1000);
	commit(&c);
	publish(&c, 1);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_ECORRUPT);
	check_next(&c, 2);
	CHECK_EQ(sub_stats(c.sub).lost, 2);
	tear_down(&c);
}

TEST(a_batch_that_cannot_be_copied_now_is_said_and_waits)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;
	unsigned k;
	int met = 1;

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	for (k = 1; met; k++) {
		int rc;

		scarce_begin(k);
		rc = shmq_receive(c.sub, &m, SHMQ_NOWAIT);
		met = scarce_end();
		CHECK_EQ(rc, met ? -ENOMEM : 0);
	}
	CHECK_EQ(k, 6); /* the batch, its three members */
	CHECK_OK(shmq_view_check(c.sub, &m));
	check_member(&c, 1, 1);
	check_member(&c, 2, 2);
	CHECK_EQ(sub_stats(c.sub).lost, 0);
	tear_down(&c);
}

TEST(a_copied_member_that_finds_no_room_stays)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;
	uint32_t copy;

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	for (uint32_t n = 0; n < 3; n++) {
		CHECK_ERROR(shmq_receive_copy(c.sub, &copy, 3, &m, SHMQ_NOWAIT), SHMQ_EBUFFER);
		CHECK_EQ(m.len, 4);
		CHECK_ERROR(shmq_receive_copy(c.sub, &copy, 0, &m, SHMQ_NOWAIT), SHMQ_EBUFFER);
		check_member(&c, n, n);
		CHECK_EQ(sub_stats(c.sub).received, n + 1);
	}
	check_none(&c);
	tear_down(&c);
}

TEST(closing_amid_a_batch_leaves_nothing)
{
	struct scene c = set_up(&lossy, NULL);

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	check_member(&c, 0, 0);
	tear_down(&c); /* the leak checks of the harness see to it */
}

TEST(where_laggards_are_evicted_what_was_copied_of_a_batch_comes_first)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);
	struct shmq_msg m;

	for (uint32_t n = 0; n < 3; n++)
		publish_member(&c, 0, n, 3);
	check_member(&c, 0, 0);
	publish(&c, 2 * FAKE_DEPTH);
	check_member(&c, 1, 1);
	check_member(&c, 2, 2);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EEVICTED);
	CHECK_EQ(sub_stats(c.sub).received, 3);
	tear_down(&c);
}

/* ---- views --------------------------------------------------------------------------------- */

TEST(a_view_that_was_overwritten_is_said_so_each_time_and_counted_once)
{
	struct scene c = set_up(&lossy, NULL);
	struct shmq_msg m;

	CHECK_ERROR(shmq_view_check(c.sub, &m), SHMQ_EOPTION);
	publish(&c, 5);
	CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
	CHECK_OK(shmq_view_check(c.sub, &m));
	CHECK_EQ(sub_stats(c.sub).received, 1);
	publish(&c, FAKE_DEPTH);
	for (int n = 0; n < 3; n++)
		CHECK_ERROR(shmq_view_check(c.sub, &m), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(c.sub).received, 0);
	CHECK_EQ(sub_stats(c.sub).lost, 1);
	CHECK_EQ(load_relaxed(&c.f->topic->ring[0].bells->data.word), 0);
	CHECK_OK(shmq_release(c.sub));
	CHECK_OK(shmq_release(c.sub));
	CHECK_ERROR(shmq_view_check(c.sub, &m), SHMQ_EOPTION);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(c.sub).lost, 1 + m.lost);
	tear_down(&c);
}

TEST(a_message_that_gates_stays_until_it_is_given_back)
{
	struct scene c = set_up(NULL, NULL);
	shmq_au64 *pos = NULL;
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;
	struct shmq_msg msg;

	while ((m = shmq__topic_next_member(c.f->topic, &it)))
		if (load_relaxed(&m->state) == LAY_MEMBER_SUBSCRIBER)
			pos = &fake_entry(c.f, m, 0)->pos;
	CHECK(pos);
	publish(&c, 3);
	CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(load_relaxed(pos), 0);
	CHECK_OK(shmq_view_check(c.sub, &msg));
	CHECK_OK(shmq_release(c.sub));
	CHECK_EQ(load_relaxed(pos), 1);
	CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(load_relaxed(pos), 1);
	CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(load_relaxed(pos), 2);
	check_none(&c);
	CHECK_EQ(load_relaxed(pos), 3);
	tear_down(&c);
}

/* ---- poll -------------------------------------------------------------------------------------
 */

struct seen {
	struct scene *c;
	unsigned count, stop_at;
	uint64_t overwrite_at; /* lap the reader while it looks at that one */
	uint64_t number[64];
};

static int see(void *arg, const struct shmq_msg *m)
{
	struct seen *seen = arg;

	CHECK_LT(seen->count, COUNT(seen->number));
	seen->number[seen->count++] = number(m);
	if (seen->overwrite_at && seen->count == seen->overwrite_at) {
		publish(seen->c, 2 * FAKE_DEPTH);
		CHECK_EQ(number(m), seen->number[seen->count - 1]); /* it has a copy */
	}
	return seen->count == seen->stop_at;
}

TEST(poll_hands_out_until_told_to_stop_and_holds_what_went_wrong_for_the_next_call)
{
	struct scene c = set_up(NULL, NULL);
	struct seen seen = { .c = &c, .stop_at = 2 };
	struct shmq_msg m;

	CHECK_EQ(shmq_poll(c.sub, see, &seen, 0, SHMQ_NOWAIT), 0);
	CHECK_ERROR(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_poll(c.sub, see, &seen, 9, 1), SHMQ_ETIMEOUT);
	publish(&c, 8);
	for (uint64_t n = 4; n < 7; n++)
		set_state(&c, n, LAY_GONE);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 2);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 1, SHMQ_NOWAIT), 1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1); /* up to the gap */
	CHECK_EQ(seen.count, 4);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(m.lost, 3);
	CHECK_EQ(sub_stats(c.sub).lost, 3);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1);
	CHECK_EQ(seen.number[4], 7);
	check_none(&c);
	tear_down(&c);
}

TEST(poll_gives_handlers_copies_where_messages_may_be_overwritten)
{
	struct scene c = set_up(&lossy, NULL);
	struct seen seen = { .c = &c, .overwrite_at = 2 };
	struct shmq_msg m;
	int met;

	publish(&c, 5);
	scarce_begin(1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), -ENOMEM);
	met = scarce_end();
	CHECK(met);
	CHECK_EQ(sub_stats(c.sub).received, 0);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 2);
	CHECK_EQ(seen.number[0], 0);
	CHECK_EQ(seen.number[1], 1);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(sub_stats(c.sub).received, 2);
	CHECK_EQ(sub_stats(c.sub).lost, m.lost);
	tear_down(&c);
}

TEST(poll_that_runs_out_of_memory_after_some_says_how_many)
{
	struct scene c = set_up(&lossy, NULL);
	struct seen seen = { .c = &c };
	int met;

	publish(&c, 1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1); /* has room for 8 bytes */
	publish(&c, 1);
	memset(write_slot(&c, 0, 48), 0, 48);
	commit(&c);
	scarce_begin(1);
	CHECK_EQ(shmq_poll(c.sub, see, &seen, 9, SHMQ_NOWAIT), 1);
	met = scarce_end();
	CHECK(met);
	CHECK_EQ(sub_stats(c.sub).received, 2);
	CHECK_EQ(sub_stats(c.sub).lag, 1); /* it stays */
	tear_down(&c);
}

/* ---- partitions
 * ----------------------------------------------------------------------------------- */

TEST(all_partitions_are_read_in_turn_and_one_alone_if_that_was_asked)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 3 }, NULL);
	shmq_sub *one = open_sub(c.bus, STANDIN_TOPIC, .partition_plus1 = 2);
	struct shmq_msg m;
	char none[1];

	for (uint32_t p = 0; p < 3; p++) {
		struct ring_writer w = fake_writer(c.f, c.pub, p);

		w.limit = w.next + 10;
		for (uint64_t n = 0; n < 4; n++)
			fake_publish(&w, 10 * p + n);
	}
	for (uint64_t n = 0; n < 12; n++) {
		CHECK_ERROR(shmq_receive_copy(c.sub, none, sizeof(none), &m, SHMQ_NOWAIT),
			    SHMQ_EBUFFER); /* does not cost the turn */
		CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
		CHECK_EQ(m.partition, n % 3);
		CHECK_EQ(number(&m), n / 3 + 10 * (n % 3));
	}
	CHECK_EQ(sub_stats(c.sub).received, 12);
	for (uint64_t n = 0; n < 4; n++) {
		CHECK_EQ(sub_stats(one).lag, 4 - n);
		CHECK_OK(shmq_receive(one, &m, SHMQ_NOWAIT));
		CHECK_OK(shmq_release(one));
		CHECK_EQ(m.partition, 1);
		CHECK_EQ(number(&m), 10 + n);
	}
	CHECK_ERROR(shmq_receive(one, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_sub_close(one);
	tear_down(&c);
}

/* ---- ends
 * ------------------------------------------------------------------------------------------- */

TEST(a_stream_ends_once_there_was_something_and_nobody_is_left)
{
	struct scene c = set_up(NULL, SUB_OPTIONS(.flags = SHMQ_SUB_END_WITH_PUBLISHERS));
	shmq_sub *late;
	struct shmq_msg m;
	shmq_pub *pub;

	check_none(&c); /* nobody was there yet */
	pub = open_pub(c.bus, STANDIN_TOPIC);
	check_none(&c);
	shmq_pub_close(pub);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EENDED);
	publish(&c, 1);
	check_next(&c, 0); /* what is there is read first */
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER), SHMQ_EENDED);
	/* Who comes later saw no publisher, but sees that there was one. */
	late = open_sub(c.bus, STANDIN_TOPIC, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	CHECK_ERROR(shmq_receive(late, &m, SHMQ_NOWAIT), SHMQ_EENDED);
	shmq_sub_close(late);
	late = open_sub(c.bus, STANDIN_TOPIC);
	CHECK_ERROR(shmq_receive(late, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_sub_close(late);
	tear_down(&c);
}

TEST(a_ring_that_ended_or_moved_is_read_to_its_end_whichever_way_one_waits)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_YIELD, SHMQ_WAIT_ADAPTIVE,
						SHMQ_WAIT_SLEEP };

	for (size_t i = 0; i < 2 * COUNT(modes); i++) {
		struct scene c = set_up(NULL, SUB_OPTIONS(.wait = modes[i / 2], .spin_ns = 1));
		struct shmq_msg m;

		publish(&c, 2);
		store_release(&c.w.mem->state, i % 2 ? LAY_RING_MOVED : LAY_RING_ENDED);
		check_next(&c, 0);
		check_next(&c, 1);
		for (int n = 0; n < 2; n++)
			CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER),
				    i % 2 ? SHMQ_EMOVED : SHMQ_EENDED);
		tear_down(&c);
	}
}

/* ---- claims
 * ------------------------------------------------------------------------------------------- */

TEST(an_open_claim_is_waited_for_reported_and_said_or_passed)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY };

	for (size_t i = 0; i < COUNT(policies); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .policy = policies[i], .mode = SHMQ_SHARED },
			       SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
		struct proto_request req;
		struct shmq_msg m;
		uint64_t seq, word;

		CHECK_EQ(shmq__ring_claim(&c.w, &seq, &word), RING_CLAIM_OK);
		publish(&c, 1);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER),
			    policies[i] == SHMQ_BLOCK ? SHMQ_ESTALLED : SHMQ_EOVERRUN);
		req = standin_last(c.s, PROTO_REPORT);
		CHECK_EQ(req.report.kind, PROTO_REPORT_STUCK);
		CHECK_EQ(req.report.seq, seq);
		CHECK_EQ(req.report.word, load_relaxed(&slot_of(&c, seq)->ctrl));
		CHECK_EQ(req.report.topic_id, c.f->rec->id);
		fake_put(&c.w, seq, 0); /* it moves after all */
		if (policies[i] == SHMQ_BLOCK)
			check_next(&c, 0);
		check_next(&c, 1);
		CHECK_EQ(sub_stats(c.sub).lost, policies[i] != SHMQ_BLOCK);
		tear_down(&c);
	}
}

/* ---- a forked child
 * --------------------------------------------------------------------------------------- */

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

/* ---- threads
 * ------------------------------------------------------------------------------------------------
 */

enum { PUBLISHERS_MAX = 2, SUBSCRIBERS = 2, LARGE = 500 };

struct race {
	struct standin *s;
	shmq_bus *bus;
	enum shmq_policy policy;
	unsigned publishers, each, len;
	enum shmq_wait wait;
	_Atomic unsigned subscribed, open; /* handles so far */
};

struct racer {
	struct race *r;
	unsigned number;
	uint64_t received, lost;
};

/* Who sent it, which of its messages it is, and bytes that follow from both. */
static void compose(char *buf, unsigned len, uint64_t who, uint64_t n)
{
	memcpy(buf, &who, sizeof(who));
	memcpy(buf + 8, &n, sizeof(n));
	fill(buf + 16, len - 16, who << 32 ^ n);
}

/* Count oneself among those who are there and wait for the others. */
static void meet(_Atomic unsigned *there, unsigned all)
{
	unsigned turns = 0;

	add_relaxed(there, 1);
	while (load_relaxed(there) < all)
		fake_wait(&turns);
}

static void *publish_all(void *arg)
{
	struct racer *me = arg;
	struct race *r = me->r;
	shmq_pub *pub = open_pub(r->bus, STANDIN_TOPIC, .wait = r->wait);
	char buf[4][LARGE];
	struct shmq_msg batch[4];

	meet(&r->open, r->publishers);
	for (uint64_t n = 0; n < r->each;) {
		void *data;

		switch (n / 4 % 4) {
		case 0: /* at once */
			for (int i = 0; i < 4; i++) {
				compose(buf[0], r->len, me->number, n++);
				CHECK_OK(shmq_publish(pub, buf[0], r->len));
			}
			break;
		case 1: /* in place */
			for (int i = 0; i < 4; i++) {
				CHECK_OK(shmq_claim(pub, r->len, &data));
				compose(data, r->len, me->number, n++);
				CHECK_OK(shmq_commit(pub, NULL));
			}
			break;
		default: /* together */
			for (int i = 0; i < 4; i++) {
				compose(buf[i], r->len, me->number, n + (uint64_t)i);
				batch[i] = (struct shmq_msg){ .data = buf[i], .len = r->len };
			}
			CHECK_EQ(shmq_publish_batch(pub, batch, 4,
						    n / 4 % 4 == 2 ? SHMQ_ATOMIC : 0),
				 4);
			n += 4;
		}
	}
	shmq_pub_close(pub);
	return NULL;
}

static void check_message(const struct race *r, const struct shmq_msg *m,
			  uint64_t next[PUBLISHERS_MAX])
{
	uint64_t who, n;

	CHECK_EQ(m->len, r->len);
	memcpy(&who, m->data, sizeof(who));
	memcpy(&n, (const char *)m->data + 8, sizeof(n));
	CHECK_LT(who, r->publishers);
	CHECK(is_filled((const char *)m->data + 16, r->len - 16, who << 32 ^ n));
	if (r->policy == SHMQ_BLOCK)
		CHECK_EQ(n, next[who]);
	CHECK_GE(n, next[who]);
	next[who] = n + 1;
}

static void *receive_all(void *arg)
{
	struct racer *me = arg;
	struct race *r = me->r;
	shmq_sub *sub = open_sub(r->bus, STANDIN_TOPIC, .wait = r->wait,
				 .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	uint64_t next[PUBLISHERS_MAX] = { 0 };
	struct shmq_msg m;
	char copy[LARGE];
	int rc;

	meet(&r->subscribed, SUBSCRIBERS + 1);
	for (;;) {
		/* In place where it may be, in turn with copies. */
		if (r->policy == SHMQ_BLOCK && me->received % 2)
			rc = shmq_receive(sub, &m, SHMQ_FOREVER);
		else
			rc = shmq_receive_copy(sub, copy, sizeof(copy), &m, SHMQ_FOREVER);
		if (rc == SHMQ_EENDED)
			break;
		if (rc == SHMQ_EOVERRUN) {
			me->lost += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_message(r, &m, next);
		me->received++;
	}
	CHECK_EQ(sub_stats(sub).received, me->received);
	CHECK_EQ(sub_stats(sub).lost, me->lost);
	shmq_sub_close(sub);
	return NULL;
}

static void race(enum shmq_mode mode, enum shmq_policy policy, unsigned len, enum shmq_wait wait)
{
	struct race r = { .policy = policy,
			  .publishers = mode == SHMQ_SHARED ? PUBLISHERS_MAX : 1,
			  .each = 4000,
			  .len = len,
			  .wait = wait };
	struct racer pub[PUBLISHERS_MAX], sub[SUBSCRIBERS];
	pthread_t thread[PUBLISHERS_MAX + SUBSCRIBERS];
	unsigned i;

	r.s = standin_new(&(struct fake_options){ .mode = mode,
						  .policy = policy,
						  .max_bytes = LARGE,
						  .arena_bytes = 1 << 17,
						  .base_seq = UINT64_C(0) - 1500 });
	r.bus = standin_bus(r.s);
	for (i = 0; i < SUBSCRIBERS; i++) {
		sub[i] = (struct racer){ .r = &r, .number = i };
		thread[i] = fake_thread(receive_all, &sub[i]);
	}
	meet(&r.subscribed, SUBSCRIBERS + 1);
	for (i = 0; i < r.publishers; i++) {
		pub[i] = (struct racer){ .r = &r, .number = i };
		thread[SUBSCRIBERS + i] = fake_thread(publish_all, &pub[i]);
	}
	for (i = 0; i < r.publishers; i++)
		fake_join(thread[SUBSCRIBERS + i]);
	for (i = 0; i < SUBSCRIBERS; i++) {
		uint64_t sent = (uint64_t)r.each * r.publishers;

		fake_join(thread[i]);
		/* Batches that were given back are no loss. */
		CHECK_EQ(sub[i].received + sub[i].lost, sent);
		if (policy == SHMQ_BLOCK)
			CHECK_EQ(sub[i].lost, 0);
	}
	shmq_bus_close(r.bus);
	standin_free(r.s);
}

#define RACE(name, ...) \
	TEST(name) \
	{ \
		race(__VA_ARGS__); \
	}

RACE(one_publisher_blocks_for_racing_readers, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 24, SHMQ_WAIT_YIELD)
RACE(one_publisher_blocks_for_sleeping_readers, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 24, SHMQ_WAIT_SLEEP)
RACE(one_publisher_blocks_for_readers_of_its_arena, SHMQ_EXCLUSIVE, SHMQ_BLOCK, LARGE,
     SHMQ_WAIT_ADAPTIVE)
RACE(one_publisher_overruns_racing_readers, SHMQ_EXCLUSIVE, SHMQ_LOSSY, 24, SHMQ_WAIT_YIELD)
RACE(one_publisher_overruns_sleeping_readers, SHMQ_EXCLUSIVE, SHMQ_LOSSY, 24, SHMQ_WAIT_SLEEP)
RACE(one_publisher_overruns_readers_of_its_arena, SHMQ_EXCLUSIVE, SHMQ_LOSSY, LARGE,
     SHMQ_WAIT_ADAPTIVE)
RACE(two_publishers_block_for_racing_readers, SHMQ_SHARED, SHMQ_BLOCK, 24, SHMQ_WAIT_YIELD)
RACE(two_publishers_block_for_sleeping_readers, SHMQ_SHARED, SHMQ_BLOCK, 24, SHMQ_WAIT_SLEEP)
RACE(two_publishers_block_for_readers_of_their_arenas, SHMQ_SHARED, SHMQ_BLOCK, LARGE,
     SHMQ_WAIT_ADAPTIVE)
RACE(two_publishers_overrun_racing_readers, SHMQ_SHARED, SHMQ_LOSSY, 24, SHMQ_WAIT_YIELD)
RACE(two_publishers_overrun_sleeping_readers, SHMQ_SHARED, SHMQ_LOSSY, 24, SHMQ_WAIT_SLEEP)
RACE(two_publishers_overrun_readers_of_their_arenas, SHMQ_SHARED, SHMQ_LOSSY, LARGE,
     SHMQ_WAIT_ADAPTIVE)
