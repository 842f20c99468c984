/* SPDX-License-Identifier: MIT
 *
 * Payloads in a publisher's arena, which has room for two: the third takes the
 * place of the first.
 */
#include "tap.h"
#include "world.h"

static shmq_pub *pub[2];
static struct world_reader reader;
static unsigned messages;

enum { ARENA_BYTES = 2 * LAY_LINE };

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

static void look(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 3);
	WANT_EQ(r.got + r.lost, (uintptr_t)arg * messages);
}

static void receive(void *arg)
{
	struct world_reader r = reader;

	world_receive_all(&r, (uintptr_t)arg * messages);
}

static void set_up_read(const struct world_options *o, unsigned publishers, unsigned each,
			void (*read)(void *arg))
{
	unsigned i;

	world_new(o);
	messages = each;
	for (i = 0; i < publishers; i++)
		weave_spawn(i ? "second" : "first", publish, (void *)(uintptr_t)i);
	weave_spawn("reader", read, (void *)(uintptr_t)publishers);
	for (i = 0; i < publishers; i++)
		pub[i] = world_pub((int)i);
	reader = (struct world_reader){ .sub = world_sub((int)publishers, SHMQ_FROM_LATEST),
					.may_lose = o->policy == SHMQ_LOSSY };
}

static void set_up(const struct world_options *o, unsigned publishers, unsigned each)
{
	set_up_read(o, publishers, each, look);
}

static void set_up_gating(void)
{
	set_up(&(struct world_options){ .depth = 4, .base_seq = 3, .arena_bytes = ARENA_BYTES }, 1,
	       3);
}
SCENARIO(arena_gating, set_up_gating, NULL);

/* The first maps the arena; where the third begins is known from the second. */
static void set_up_spinning(void)
{
	set_up_read(&(struct world_options){ .depth = 4,
					     .base_seq = 3,
					     .arena_bytes = ARENA_BYTES },
		    1, 3, receive);
	reader.sub->quick_looks = 2;
}
SCENARIO(arena_spinning, set_up_spinning, NULL);

static void set_up_gating_shared(void)
{
	set_up(&(struct world_options){ .depth = 4,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.arena_bytes = ARENA_BYTES },
	       2, 3);
}
SCENARIO(arena_gating_shared, set_up_gating_shared, NULL);

/* Deep enough for what is given up ahead. */
static void set_up_gone(void)
{
	set_up(&(struct world_options){ .depth = 32,
					.base_seq = 3,
					.policy = SHMQ_LOSSY,
					.arena_bytes = ARENA_BYTES },
	       1, 3);
}
SCENARIO(arena_gone, set_up_gone, NULL);

static void set_up_gone_shared(void)
{
	set_up(&(struct world_options){ .depth = 8,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.policy = SHMQ_LOSSY,
					.arena_bytes = ARENA_BYTES },
	       1, 4);
}
SCENARIO(arena_gone_shared, set_up_gone_shared, NULL);

static void set_up_lapped(void)
{
	set_up(&(struct world_options){ .depth = 2,
					.base_seq = 3,
					.mode = SHMQ_SHARED,
					.policy = SHMQ_LOSSY,
					.arena_bytes = ARENA_BYTES },
	       2, 3);
}
SCENARIO(arena_lapped, set_up_lapped, NULL);

/* A successor takes over the arena in which a message still is, while that
 * message's slot may be used again. */
static void succeed(void *arg)
{
	unsigned n;

	weave_join(0);
	pub[1] = world_pub_in(1, 0);
	for (n = 0; n < 2; n++)
		WANT_EQ(world_publish(pub[1], 1, n), 0);
}

static void look_on(void *arg)
{
	struct world_reader r = reader;

	world_drain(&r, 2);
}

static void set_up_adopted(void)
{
	world_new(&(struct world_options){ .depth = 2,
					   .base_seq = 3,
					   .mode = SHMQ_SHARED,
					   .policy = SHMQ_LOSSY,
					   .arena_bytes = ARENA_BYTES });
	messages = 2;
	weave_spawn("first", publish, (void *)(uintptr_t)0);
	weave_spawn("successor", succeed, NULL);
	weave_spawn("reader", look_on, NULL);
	pub[0] = world_pub(0);
	reader = (struct world_reader){ .sub = world_sub(2, SHMQ_FROM_LATEST), .may_lose = 1 };
}
SCENARIO(arena_adopted, set_up_adopted, NULL);

/* What a slot says of its arena is of one message: each lap has the other piece. */
static void ask(void *arg)
{
	struct lay_arena_ref where;
	struct lay_slot head;
	uint64_t n;

	if (!shmq__ring_arena_ref(world->ring, &world->geo, 3, &head, &where))
		return;
	n = LAY_CTRL_LAP(load_relaxed(&head.ctrl)) - 3;
	WANT_EQ(head.len, WORLD_WORDS * 8);
	WANT_EQ(where.off, n % 2 * LAY_LINE);
}

static void set_up_asked(void)
{
	world_new(&(struct world_options){ .depth = 1,
					   .base_seq = 3,
					   .mode = SHMQ_SHARED,
					   .policy = SHMQ_LOSSY,
					   .arena_bytes = ARENA_BYTES });
	messages = 3;
	weave_spawn("publisher", publish, (void *)(uintptr_t)0);
	weave_spawn("supervisor", ask, NULL);
	pub[0] = world_pub(0);
}
SCENARIO(arena_asked, set_up_asked, NULL);

TEST_WITHIN(an_arena_is_reused_once_its_readers_have_passed, WEAVE_LIMIT_S)
{
	weave_random(&arena_spinning, WEAVE_SC, 2500);
	weave_random(&arena_spinning, WEAVE_WEAK, 2500);
	weave_random(&arena_gating, WEAVE_SC, 1500);
	weave_random(&arena_gating, WEAVE_WEAK, 2500);
	weave_random(&arena_gating_shared, WEAVE_SC, 1500);
	weave_random(&arena_gating_shared, WEAVE_WEAK, 2500);
}

TEST_WITHIN(what_was_in_an_arena_is_gone_before_its_bytes_are_reused, WEAVE_LIMIT_S)
{
	weave_random(&arena_gone, WEAVE_SC, 1500);
	weave_random(&arena_gone, WEAVE_WEAK, 5000);
	weave_random(&arena_gone_shared, WEAVE_SC, 1500);
	weave_random(&arena_gone_shared, WEAVE_WEAK, 5000);
	weave_random(&arena_lapped, WEAVE_SC, 1500);
	weave_random(&arena_lapped, WEAVE_WEAK, 2500);
}

TEST_WITHIN(a_successor_knows_what_is_in_the_arena_it_takes_over, WEAVE_LIMIT_S)
{
	weave_all(&arena_asked, WEAVE_SC, 100000);
	weave_random(&arena_asked, WEAVE_WEAK, 5000);
	weave_random(&arena_adopted, WEAVE_SC, 1500);
	weave_random(&arena_adopted, WEAVE_WEAK, 2500);
}
