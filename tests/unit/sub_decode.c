/* SPDX-License-Identifier: MIT
 *
 * Slots and arenas that lie, to the byte.
 */
#include "subscriber.h"

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

/* Whoever has a buffer for the largest there may be would never get past it. */
TEST(a_message_larger_than_its_topic_allows_is_corrupt)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY };

	for (size_t i = 0; i < 2 * COUNT(policies); i++) {
		struct fake_options o = { .policy = policies[i / 2],
					  .max_bytes = i % 2 ? 40 : 100 };
		struct scene c = set_up(&o, NULL);
		uint32_t arena = fake_arena(c.f, c.pub, 4096);
		struct lay_arena_ref where = { .id = arena, .gen = 700 + arena };
		uint32_t len = (uint32_t)o.max_bytes;
		struct shmq_msg m;
		char buf[100];

		/* Twice: the second time its arena is mapped. */
		for (uint32_t n = 0; n < 4; n++) {
			memcpy(write_slot(&c, SHMQ_MSG_ARENA, len + n % 2), &where, sizeof(where));
			commit(&c);
			CHECK_ERROR(shmq_receive_copy(c.sub, buf, len, &m, SHMQ_NOWAIT),
				    n % 2 ? SHMQ_ECORRUPT : 0);
		}
		if (len < c.f->geo.inline_bytes) {
			write_slot(&c, 0, len + 1);
			commit(&c);
			CHECK_ERROR(shmq_receive_copy(c.sub, buf, len, &m, SHMQ_NOWAIT),
				    SHMQ_ECORRUPT);
			write_slot(&c, 0, len);
			commit(&c);
			CHECK_OK(shmq_receive_copy(c.sub, buf, len, &m, SHMQ_NOWAIT));
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
