/* SPDX-License-Identifier: MIT
 *
 * A subscriber that dies at any instruction of what it may do.
 */
#include "helpers.h"
#include "steps.h"

enum { INLINE = 40, MEMBER = 24, LARGE = 300, ARENA = 16384 };

/* ---- what it does ---------------------------------------------------------------- */

static char buf[CAST_MESSAGE_MAX];

static shmq_sub *begin(void)
{
	return open_sub(steps_bus(), STANDIN_TOPIC, .wait = SHMQ_WAIT_SLEEP);
}

/* The second call gives back what the first handed out. */
static int receive(const struct cast_scene *scene)
{
	shmq_sub *sub = begin();
	struct shmq_msg m;
	int first, second;

	STEPPER_MARK();
	first = shmq_receive(sub, &m, SHMQ_NOWAIT);
	second = shmq_receive(sub, &m, SHMQ_NOWAIT);
	shmq_release(sub);
	STEPPER_MARK();
	return first || second || m.len != scene->bytes;
}

static int receive_copy(const struct cast_scene *scene)
{
	shmq_sub *sub = begin();
	struct shmq_msg m;

	STEPPER_MARK();
	shmq_receive_copy(sub, buf, sizeof(buf), &m, SHMQ_NOWAIT);
	shmq_receive_copy(sub, buf, sizeof(buf), &m, SHMQ_NOWAIT);
	shmq_release(sub);
	STEPPER_MARK();
	return m.len != scene->bytes;
}

static int count(void *arg, const struct shmq_msg *m)
{
	(void)m;
	++*(unsigned *)arg;
	return 0;
}

static int poll_some(const struct cast_scene *scene)
{
	shmq_sub *sub = begin();
	unsigned n = 0;

	(void)scene;
	STEPPER_MARK();
	shmq_poll(sub, count, &n, 10, SHMQ_NOWAIT);
	shmq_release(sub);
	STEPPER_MARK();
	return !n;
}

static int sleep_and_receive(const struct cast_scene *scene)
{
	shmq_sub *sub = begin();
	struct shmq_msg m;

	(void)scene;
	STEPPER_MARK();
	shmq_receive(sub, &m, SHMQ_FOREVER);
	STEPPER_MARK();
	return 0;
}

static int wait_and_receive(const struct cast_scene *scene)
{
	shmq_bus *bus = steps_bus();
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC, .wait = SHMQ_WAIT_SLEEP), *ready;
	shmq_waitset *set;
	struct shmq_msg m;

	(void)scene;
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_OK(shmq_waitset_add(set, sub));
	STEPPER_MARK();
	shmq_waitset_wait(set, &ready, 1, SHMQ_FOREVER);
	shmq_receive(sub, &m, SHMQ_NOWAIT);
	STEPPER_MARK();
	return 0;
}

/* The thread of a listener, from a callback to the next. */
static struct {
	uint64_t from, to; /* seqs */
} heard;

static int hear(void *arg, shmq_sub *sub, const struct shmq_msg *m)
{
	if (m->seq == heard.from)
		stepper_take_over();
	if (m->seq == heard.from || m->seq == heard.to)
		STEPPER_MARK();
	return 0;
}

/* Of what is lost where nobody waits. */
static void hear_error(void *arg, shmq_sub *sub, int error, const struct shmq_msg *m)
{
}

static int listen_on(const struct cast_scene *scene)
{
	shmq_bus *bus = steps_bus();
	shmq_sub *sub =
		open_sub(bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST, .wait = SHMQ_WAIT_SLEEP);
	struct shmq_listener_options o = { .size = sizeof(o),
					   .message = hear,
					   .error = hear_error };
	struct shmq_partition_info part;
	shmq_listener *l;

	CHECK_OK(shmq_topic_get_partition(bus, STANDIN_TOPIC, 0, &part));
	heard.from = part.head - 1;
	heard.to = heard.from + (scene->offered ? scene->offered : 1);
	CHECK_OK(shmq_listener_start(sub, &o, &l));
	while (!pause())
		;
	return 0;
}

/* ---- where ------------------------------------------------------------------------- */

static const struct op {
	const char *name;
	int (*live)(const struct cast_scene *scene);
	void (*wake)(struct cast *c);
	size_t bytes;
	unsigned offered;
	int offer_atomic, is_large, threads;
} ops[] = {
	{ "receive", receive, NULL, INLINE, 3, 0, 0, 0 },
	{ "receive from an arena", receive, NULL, LARGE, 3, 0, 1, 0 },
	{ "receive a batch", receive, NULL, MEMBER, 3, 1, 0, 0 },
	{ "receive a batch from an arena", receive, NULL, LARGE, 3, 1, 1, 0 },
	{ "receive copies", receive_copy, NULL, INLINE, 3, 0, 0, 0 },
	{ "poll", poll_some, NULL, MEMBER, 3, 1, 0, 0 },
	{ "sleep and receive", sleep_and_receive, cast_send_one, INLINE, 0, 0, 0, 0 },
	{ "wait in a set and receive", wait_and_receive, cast_send_one, INLINE, 0, 0, 0, 0 },
	{ "listen", listen_on, NULL, INLINE, 3, 0, 0, 1 },
	{ "sleep and listen", listen_on, cast_send_one, INLINE, 0, 0, 0, 1 },
};

static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY, SHMQ_EVICT };
static const uint64_t bases[] = FAKE_BASES;

static void run(const struct op *op, enum shmq_mode mode, enum shmq_policy policy, uint64_t base,
		int sleepers, struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = op->name,
		.topic = { .base_seq = base,
			   .mode = mode,
			   .policy = policy,
			   .max_bytes = op->is_large ? CAST_MESSAGE_MAX : 0,
			   .arena_bytes = op->is_large ? ARENA : 0 },
		.bytes = op->bytes,
		.offered = op->offered,
		.offer_atomic = op->offer_atomic,
		.sleepers = sleepers,
		.unread = 7,
		.shares = 1,
	};
	struct steps_part part = {
		.scene = &scene, .live = op->live, .wake = op->wake, .threads = op->threads
	};

	steps_run(&part, tally);
}

TEST_WITHIN(a_subscriber_may_die_at_any_instruction, 600)
{
	uint64_t random = steps_seed();

	stepper_need();
	for (size_t i = 0; i < COUNT(ops); i++) {
		struct steps_tally tally = { 0 };

		if (steps_is_torture()) {
			for (size_t k = 0; k < COUNT(policies) * COUNT(bases) * 4; k++)
				run(&ops[i], k / 4 % 2 ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
				    policies[k % 4], bases[k / 16 % COUNT(bases)], k / 8 % 2,
				    &tally);
		} else {
			for (int k = 0; k < 4; k++)
				run(&ops[i], k / 2 ? SHMQ_SHARED : SHMQ_EXCLUSIVE, policies[k],
				    bases[fake_random(&random) % COUNT(bases)],
				    (int)(fake_random(&random) % 2), &tally);
		}
		steps_report(ops[i].name, &tally);
	}
}

/* ---- lapped ---------------------------------------------------------------------------- */

static int receive_the_loss(const struct cast_scene *scene)
{
	shmq_sub *sub = begin();
	struct shmq_msg m;
	int first, second;

	(void)scene;
	STEPPER_MARK();
	first = shmq_receive(sub, &m, SHMQ_NOWAIT);
	second = shmq_receive(sub, &m, SHMQ_NOWAIT);
	STEPPER_MARK();
	return first != SHMQ_EOVERRUN || second;
}

TEST_WITHIN(a_subscriber_that_was_lapped_may_die_at_any_instruction, 600)
{
	struct steps_tally tally = { 0 };
	uint64_t random = steps_seed();

	stepper_need();
	for (int k = 0; k < 2; k++) {
		struct cast_scene scene = {
			.name = "receive a loss",
			.topic = { .base_seq = bases[fake_random(&random) % COUNT(bases)],
				   .mode = k ? SHMQ_SHARED : SHMQ_EXCLUSIVE,
				   .policy = SHMQ_LOSSY },
			.bytes = INLINE,
			.offered = FAKE_DEPTH + 100,
			.shares = 1,
		};
		struct steps_part part = { .scene = &scene, .live = receive_the_loss };

		steps_run(&part, &tally);
	}
	steps_report("receive a loss", &tally);
}
