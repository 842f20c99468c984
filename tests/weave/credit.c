/* SPDX-License-Identifier: MIT
 *
 * Cached limits against a subscriber that joins (C1 to C3, J1 to J3), rosters
 * that change while they are read (M1), and publishers that wait.
 */
#include "tap.h"
#include "world.h"

static shmq_pub *pub[2];
static struct world_reader reader[2];
static unsigned messages;

static void publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg, n;

	for (n = 0; n < messages; n++)
		WANT_EQ(world_publish(pub[who], who, n), 0);
}

/* Join whenever it comes; from then on nothing is missed. */
static void join(void *arg)
{
	struct world_reader r = { .any_first = 1 };

	r.sub = world_sub(weave_self(), (enum shmq_from)(uintptr_t)arg);
	weave_tell("joined at %llu", (unsigned long long)r.sub->lane[0].r.next);
	world_drain(&r, 2);
}

static void look(void *arg)
{
	struct world_reader r = reader[0];

	world_drain(&r, 2);
}

static void set_up(const struct world_options *o, unsigned publishers, unsigned each)
{
	unsigned i;

	world_new(o);
	messages = each;
	for (i = 0; i < publishers; i++)
		weave_spawn(i ? "second" : "first", publish, (void *)(uintptr_t)i);
	for (i = 0; i < publishers; i++)
		pub[i] = world_pub((int)i);
}

static void set_up_oldest(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3 }, 1, 3);
	weave_spawn("joiner", join, (void *)(uintptr_t)SHMQ_FROM_OLDEST);
}
SCENARIO(join_one, set_up_oldest, NULL);

static void set_up_two(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 3);
	weave_spawn("joiner", join, (void *)(uintptr_t)SHMQ_FROM_OLDEST);
}
SCENARIO(join_two, set_up_two, NULL);

/* There is a reader already, which leaves in the end. */
static void set_up_beside(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 2, 2);
	weave_spawn("reader", look, NULL);
	weave_spawn("joiner", join, (void *)(uintptr_t)SHMQ_FROM_OLDEST);
	reader[0] = (struct world_reader){ .sub = world_sub(2, SHMQ_FROM_LATEST) };
}
SCENARIO(join_beside, set_up_beside, NULL);

static void leave(void *arg)
{
	struct world_reader r = reader[0];

	world_receive(&r, SHMQ_NOWAIT);
	shmq__topic_remove_member(world->topic, world_member(&r.sub->h));
}

/* Whoever waits for a reader goes on once it has left. */
static void set_up_leave(void)
{
	set_up(&(struct world_options){ .depth = 1, .base_seq = 3, .mode = SHMQ_SHARED }, 1, 3);
	weave_spawn("reader", leave, NULL);
	reader[0] = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST) };
}
SCENARIO(leave_waited_for, set_up_leave, NULL);

/* A member comes and another of the same place was there before. */
static void replace(void *arg)
{
	struct world_reader r = reader[0], next = { .any_first = 1 };

	world_receive(&r, SHMQ_NOWAIT);
	shmq__topic_remove_member(world->topic, world_member(&r.sub->h));
	world->members = (unsigned)r.sub->h.token - 1;
	next.sub = world_sub(weave_self(), SHMQ_FROM_OLDEST);
	world_drain(&next, 1);
}

static void set_up_replace(void)
{
	set_up(&(struct world_options){ .depth = 2, .base_seq = 3, .mode = SHMQ_SHARED }, 1, 4);
	weave_spawn("reader", replace, NULL);
	reader[0] = (struct world_reader){ .sub = world_sub(1, SHMQ_FROM_LATEST) };
}
SCENARIO(replace_member, set_up_replace, NULL);

TEST_WITHIN(nobody_writes_over_what_a_joiner_reads, WEAVE_LIMIT_S)
{
	weave_random(&join_one, WEAVE_SC, 1500);
	weave_random(&join_one, WEAVE_WEAK, 5000);
	weave_random(&join_two, WEAVE_SC, 1500);
	weave_random(&join_two, WEAVE_WEAK, 5000);
	weave_random(&join_beside, WEAVE_SC, 1500);
	weave_random(&join_beside, WEAVE_WEAK, 2500);
}

TEST_WITHIN(publishers_go_on_when_whom_they_wait_for_leaves, WEAVE_LIMIT_S)
{
	weave_random(&leave_waited_for, WEAVE_SC, 1500);
	weave_random(&leave_waited_for, WEAVE_WEAK, 2500);
	weave_random(&replace_member, WEAVE_SC, 1500);
	weave_random(&replace_member, WEAVE_WEAK, 2500);
}
