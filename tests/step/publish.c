/* SPDX-License-Identifier: MIT
 *
 * A publisher that dies at any instruction of what it may do.
 */
#include "helpers.h"
#include "steps.h"

enum { INLINE = 40, MEMBER = 24, LARGE = 300, ARENA = 16384 };

/* ---- what it does ---------------------------------------------------------------- */

static char bytes[64][CAST_MESSAGE_MAX];
static struct shmq_msg many[64];

/* Message i of the subject's, at many[i - prelude] for those of the operation. */
static struct shmq_msg *prepare(const struct cast_scene *scene, unsigned i)
{
	cast_fill(bytes[i % 64], scene->bytes, CAST_SUBJECT, i);
	many[i % 64] = (struct shmq_msg){ .data = bytes[i % 64], .len = scene->bytes };
	return &many[i % 64];
}

static shmq_pub *begin_on(shmq_bus *bus, const struct cast_scene *scene, enum shmq_wake wake)
{
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC, .wait = SHMQ_WAIT_SLEEP, .wake = wake);
	unsigned i;

	for (i = 0; i < scene->prelude; i++)
		CHECK_OK(shmq_publish_msg(pub, prepare(scene, i)));
	for (i = 0; i < scene->count; i++)
		prepare(scene, scene->prelude + i);
	return pub;
}

static shmq_pub *begin(const struct cast_scene *scene)
{
	return begin_on(steps_bus(), scene, SHMQ_WAKE_DIRECT);
}

static int publish(const struct cast_scene *scene)
{
	shmq_pub *pub = begin(scene);
	struct shmq_msg *m = &many[scene->prelude % 64];

	STEPPER_MARK();
	shmq_publish(pub, m->data, m->len);
	STEPPER_MARK();
	return 0;
}

/* What the library's thread does next is done by us. */
static int publish_and_serve(const struct cast_scene *scene)
{
	shmq_bus *bus = steps_bus();
	shmq_pub *pub = begin_on(bus, scene, SHMQ_WAKE_DEFERRED);
	struct shmq_msg *m = &many[scene->prelude % 64];

	STEPPER_MARK();
	shmq_publish(pub, m->data, m->len);
	shmq_bus_serve(bus, SHMQ_NOWAIT);
	STEPPER_MARK();
	return 0;
}

static int publish_msg(const struct cast_scene *scene)
{
	shmq_pub *pub = begin(scene);
	struct shmq_msg *m = &many[scene->prelude % 64];

	m->key = "key";
	m->key_len = 3;
	m->type = 7;
	STEPPER_MARK();
	shmq_publish_msg(pub, m);
	STEPPER_MARK();
	return 0;
}

static int publish_batch(const struct cast_scene *scene)
{
	shmq_pub *pub = begin(scene);
	struct shmq_msg *m = &many[scene->prelude % 64];

	STEPPER_MARK();
	shmq_publish_batch(pub, m, scene->count, scene->is_atomic ? SHMQ_ATOMIC : 0);
	STEPPER_MARK();
	return 0;
}

static int claim_and_commit(const struct cast_scene *scene)
{
	shmq_pub *pub = begin(scene);
	struct shmq_msg *m = &many[scene->prelude % 64];
	void *data;

	STEPPER_MARK();
	if (shmq_claim(pub, m->len, &data))
		return 1;
	memcpy(data, m->data, m->len);
	shmq_commit(pub, NULL);
	STEPPER_MARK();
	return 0;
}

static int claim_and_abort(const struct cast_scene *scene)
{
	shmq_pub *pub = begin(scene);
	struct shmq_msg *m = &many[scene->prelude % 64];
	void *data;

	STEPPER_MARK();
	if (shmq_claim(pub, m->len, &data))
		return 1;
	memset(data, 0xee, m->len);
	shmq_abort(pub);
	STEPPER_MARK();
	return 0;
}

/* ---- where ------------------------------------------------------------------------- */

static const struct op {
	const char *name;
	int (*live)(const struct cast_scene *scene);
	size_t bytes;
	unsigned count, sent;
	int is_atomic, is_large;
} ops[] = {
	{ "publish", publish, INLINE, 1, 1, 0, 0 },
	{ "publish through the arena", publish, LARGE, 1, 1, 0, 1 },
	{ "publish and make deferred wakes", publish_and_serve, INLINE, 1, 1, 0, 0 },
	{ "publish with a key", publish_msg, MEMBER, 1, 1, 0, 0 },
	{ "publish a batch", publish_batch, INLINE, 3, 3, 0, 0 },
	{ "publish an atomic batch", publish_batch, MEMBER, 3, 3, 1, 0 },
	{ "publish a batch through the arena", publish_batch, LARGE, 3, 3, 0, 1 },
	{ "publish an atomic batch through the arena", publish_batch, LARGE, 3, 3, 1, 1 },
	{ "claim and commit", claim_and_commit, INLINE, 1, 1, 0, 0 },
	{ "claim and commit in the arena", claim_and_commit, LARGE, 1, 1, 0, 1 },
	{ "claim and abort", claim_and_abort, INLINE, 1, 0, 0, 0 },
	{ "claim and abort in the arena", claim_and_abort, LARGE, 1, 0, 0, 1 },
};

static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY, SHMQ_EVICT };
static const uint64_t bases[] = FAKE_BASES;
/* The first message needs credit, a later one has it, and one of them moves
 * the hint. */
static const unsigned preludes[] = { 0, 3, 31 };

static void run(const struct op *op, enum shmq_mode mode, enum shmq_policy policy, uint64_t base,
		unsigned prelude, int sleepers, struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = op->name,
		.topic = { .base_seq = base,
			   .mode = mode,
			   .policy = policy,
			   .max_bytes = op->is_large ? CAST_MESSAGE_MAX : 0,
			   .arena_bytes = op->is_large ? ARENA : 0 },
		.bytes = op->bytes,
		.prelude = prelude,
		.count = op->count,
		.is_atomic = op->is_atomic,
		.sleepers = sleepers,
		.unread = 7,
		.shares = mode == SHMQ_SHARED,
	};
	struct steps_part part = { .scene = &scene, .live = op->live, .sent = op->sent };

	steps_run(&part, tally);
}

static void run_all(enum shmq_mode mode)
{
	uint64_t random = steps_seed();

	stepper_need();
	for (size_t i = 0; i < COUNT(ops); i++) {
		struct steps_tally tally = { 0 };

		if (steps_is_torture()) {
			for (size_t k = 0; k < COUNT(policies) * COUNT(bases) * COUNT(preludes) * 2;
			     k++)
				run(&ops[i], mode, policies[k % 4], bases[k / 4 % COUNT(bases)],
				    preludes[k / 4 / COUNT(bases) % 3], (k + k / 4) % 2, &tally);
		} else {
			for (int k = 0; k < 4; k++)
				run(&ops[i], mode, policies[k],
				    bases[fake_random(&random) % COUNT(bases)],
				    preludes[fake_random(&random) % 3],
				    (int)(fake_random(&random) % 2), &tally);
		}
		steps_report(ops[i].name, &tally);
	}
}

/* ---- where there is no room ---------------------------------------------------------- */

static void read_on(struct cast *c)
{
	cast_read_on(c, 5);
}

/* The first of the batch fits, for the second it sleeps. */
static void run_blocked(enum shmq_mode mode, uint64_t base, int sleepers, struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = "publish and sleep for room",
		.topic = { .base_seq = base, .mode = mode },
		.bytes = INLINE,
		.count = 2,
		.sleepers = sleepers,
		.unread = FAKE_DEPTH - 1,
		.shares = mode == SHMQ_SHARED,
	};
	struct steps_part part = {
		.scene = &scene, .live = publish_batch, .wake = read_on, .sent = 2
	};

	steps_run(&part, tally);
}

TEST_WITHIN(a_publisher_that_waits_for_room_may_die_at_any_instruction, 600)
{
	struct steps_tally tally = { 0 };
	uint64_t random = steps_seed();

	stepper_need();
	for (int k = 0; k < (steps_is_torture() ? 2 * (int)COUNT(bases) : 1); k++)
		for (int shared = 0; shared < 2; shared++)
			run_blocked(shared ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
				    bases[fake_random(&random) % COUNT(bases)],
				    (int)(fake_random(&random) % 2), &tally);
	steps_report("publish and sleep for room", &tally);
}

/* ---- where there is a log ---------------------------------------------------------------- */

/* Nothing of it is in the log, but what was sent before. */
static void run_logged(const struct op *op, enum shmq_mode mode, uint64_t base,
		       struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = op->name,
		.topic = { .base_seq = base,
			   .mode = mode,
			   .log = SHMQ_LOG_BLOCK,
			   .max_bytes = op->is_large ? CAST_MESSAGE_MAX : 0,
			   .arena_bytes = op->is_large ? ARENA : 0 },
		.bytes = op->bytes,
		.prelude = 3,
		.count = op->count,
		.is_atomic = op->is_atomic,
		.sleepers = 1,
		.unlogged = 20,
		.shares = mode == SHMQ_SHARED,
	};
	struct steps_part part = { .scene = &scene, .live = op->live, .sent = op->sent };

	steps_run(&part, tally);
}

static void write_on(struct cast *c)
{
	cast_write_log(c, 5);
}

/* All have read it, and the tailer is a ring behind: for the second it sleeps. */
static void run_behind_the_tailer(enum shmq_mode mode, uint64_t base, struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = "publish and sleep for the log",
		.topic = { .base_seq = base, .mode = mode, .log = SHMQ_LOG_BLOCK },
		.bytes = INLINE,
		.count = 2,
		.sleepers = 1,
		.unlogged = FAKE_DEPTH - 1,
		.shares = mode == SHMQ_SHARED,
	};
	struct steps_part part = {
		.scene = &scene, .live = publish_batch, .wake = write_on, .sent = 2
	};

	steps_run(&part, tally);
}

TEST_WITHIN(a_publisher_of_a_topic_with_a_log_may_die_at_any_instruction, 600)
{
	struct steps_tally logged = { 0 }, behind = { 0 };
	uint64_t random = steps_seed();

	stepper_need();
	for (size_t i = 0; i < COUNT(ops); i++)
		for (size_t k = 0; k < 2 * COUNT(bases); k++)
			if (steps_is_torture() || fake_random(&random) % 40 == 0)
				run_logged(&ops[i], k % 2 ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
					   bases[k / 2], &logged);
	for (size_t k = 0; k < 2 * COUNT(bases); k++)
		if (steps_is_torture() || fake_random(&random) % 12 == 0)
			run_behind_the_tailer(k % 2 ? SHMQ_SHARED : SHMQ_EXCLUSIVE, bases[k / 2],
					      &behind);
	steps_report("publish to a topic with a log", &logged);
	steps_report("publish and sleep for the log", &behind);
}

TEST_WITHIN(an_exclusive_publisher_may_die_at_any_instruction, 600)
{
	run_all(SHMQ_EXCLUSIVE);
}

TEST_WITHIN(a_shared_publisher_may_die_at_any_instruction, 600)
{
	run_all(SHMQ_SHARED);
}
