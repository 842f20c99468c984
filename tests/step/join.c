/* SPDX-License-Identifier: MIT
 *
 * A client that dies at any instruction of coming and going: attach, join as
 * either, leave, detach.  What a supervisor does for it meanwhile is done at
 * once; a supervisor that dies in the middle of that is worker.c's.
 */
#include "helpers.h"
#include "steps.h"

enum { INLINE = 40, LARGE = 300, ARENA = 16384 };

/* ---- what it does ---------------------------------------------------------------- */

static int attach(const struct cast_scene *scene)
{
	(void)scene;
	STEPPER_MARK();
	steps_bus();
	STEPPER_MARK();
	return 0;
}

static int detach(const struct cast_scene *scene)
{
	shmq_bus *bus = steps_bus();

	open_sub(bus, STANDIN_TOPIC);
	if (scene->shares)
		open_pub(bus, STANDIN_TOPIC);
	STEPPER_MARK();
	shmq_bus_close(bus);
	STEPPER_MARK();
	return 0;
}

static int join_as_subscriber(const struct cast_scene *scene)
{
	shmq_bus *bus = steps_bus();

	(void)scene;
	STEPPER_MARK();
	open_sub(bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST);
	STEPPER_MARK();
	return 0;
}

static int leave_as_subscriber(const struct cast_scene *scene)
{
	shmq_sub *sub = open_sub(steps_bus(), STANDIN_TOPIC);

	(void)scene;
	STEPPER_MARK();
	shmq_sub_close(sub);
	STEPPER_MARK();
	return 0;
}

static int join_as_publisher(const struct cast_scene *scene)
{
	shmq_bus *bus = steps_bus();

	(void)scene;
	STEPPER_MARK();
	open_pub(bus, STANDIN_TOPIC);
	STEPPER_MARK();
	return 0;
}

static int leave_as_publisher(const struct cast_scene *scene)
{
	shmq_pub *pub = open_pub(steps_bus(), STANDIN_TOPIC);
	static char buf[CAST_MESSAGE_MAX];

	for (unsigned i = 0; i < scene->prelude; i++) {
		cast_fill(buf, scene->bytes, CAST_SUBJECT, i);
		CHECK_OK(shmq_publish(pub, buf, scene->bytes));
	}
	STEPPER_MARK();
	shmq_pub_close(pub);
	STEPPER_MARK();
	return 0;
}

/* ---- where ------------------------------------------------------------------------- */

static const struct op {
	const char *name;
	int (*live)(const struct cast_scene *scene);
	enum shmq_mode mode;
	unsigned prelude;
	int is_large, comes;
} ops[] = {
	{ "attach", attach, SHMQ_SHARED, 0, 0, 1 },
	{ "detach", detach, SHMQ_SHARED, 0, 0, 0 },
	{ "detach as subscriber", detach, SHMQ_EXCLUSIVE, 0, 0, 0 },
	{ "join as subscriber", join_as_subscriber, SHMQ_EXCLUSIVE, 0, 0, 0 },
	{ "join as subscriber of many", join_as_subscriber, SHMQ_SHARED, 0, 0, 0 },
	{ "leave as subscriber", leave_as_subscriber, SHMQ_SHARED, 0, 0, 0 },
	{ "join as publisher", join_as_publisher, SHMQ_EXCLUSIVE, 0, 0, 0 },
	{ "join as one of many", join_as_publisher, SHMQ_SHARED, 0, 0, 0 },
	{ "join as publisher with an arena", join_as_publisher, SHMQ_EXCLUSIVE, 0, 1, 0 },
	{ "leave as publisher", leave_as_publisher, SHMQ_EXCLUSIVE, 3, 0, 0 },
	{ "leave as one of many with an arena", leave_as_publisher, SHMQ_SHARED, 3, 1, 0 },
};

static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY, SHMQ_EVICT };
static const uint64_t bases[] = FAKE_BASES;

static void run(const struct op *op, enum shmq_policy policy, uint64_t base,
		struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = op->name,
		.topic = { .base_seq = base,
			   .mode = op->mode,
			   .policy = policy,
			   .max_bytes = op->is_large ? CAST_MESSAGE_MAX : 0,
			   .arena_bytes = op->is_large ? ARENA : 0 },
		.bytes = op->is_large ? LARGE : INLINE,
		.prelude = op->prelude,
		.unread = 7,
		.shares = op->mode == SHMQ_SHARED,
	};
	struct steps_part part = {
		.scene = &scene, .live = op->live, .wake = cast_answer, .comes = op->comes
	};

	steps_run(&part, tally);
}

TEST_WITHIN(a_client_may_die_at_any_instruction_of_coming_and_going, 600)
{
	uint64_t random = steps_seed();

	stepper_need();
	for (size_t i = 0; i < COUNT(ops); i++) {
		struct steps_tally tally = { 0 };

		if (steps_is_torture()) {
			for (size_t k = 0; k < COUNT(policies) * COUNT(bases); k++)
				run(&ops[i], policies[k % 4], bases[k / 4], &tally);
		} else if (fake_random(&random) % 2) {
			run(&ops[i], policies[fake_random(&random) % 4],
			    bases[fake_random(&random) % COUNT(bases)], &tally);
		}
		if (tally.scenes)
			steps_report(ops[i].name, &tally);
	}
}
