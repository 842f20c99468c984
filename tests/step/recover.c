/* SPDX-License-Identifier: MIT
 *
 * Who repairs what a dead publisher left may die at any instruction of that:
 * whoever does it after both finds nothing that it could not repair.
 */
#include "../../libshmq/pub.h"
#include "helpers.h"
#include "recover.h"
#include "steps.h"

enum { INLINE = 40, MEMBER = 24 };

/* ---- what it does ---------------------------------------------------------------- */

static shmq_pub *begin(void)
{
	return open_pub(steps_bus(), STANDIN_TOPIC, .wait = SHMQ_WAIT_SLEEP);
}

/* The only publisher whose process has another start time than ours. */
static struct lay_member *find_victim(struct shmq__topic *t)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(t, &it)))
		if (load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER &&
		    shmq__topic_client_is_dead(t, m->client, m->client_gen))
			return m;
	FAIL("nobody is dead");
}

static int recover_publisher(const struct cast_scene *scene)
{
	shmq_pub *pub = begin();
	struct lay_member *m = find_victim(pub->h.topic);
	unsigned voided;

	STEPPER_MARK();
	voided = shmq__recover_publisher(pub->h.topic, m);
	STEPPER_MARK();
	return !voided && scene->victim;
}

static int recover_claims(const struct cast_scene *scene)
{
	shmq_pub *pub = begin();
	struct lay_member *m = find_victim(pub->h.topic);
	unsigned voided;

	STEPPER_MARK();
	voided = shmq__recover_claims(pub->h.topic, 0, m->client, m->client_gen);
	STEPPER_MARK();
	return !voided && scene->victim;
}

/* A claim is all that it left. */
static int recover_slot(const struct cast_scene *scene)
{
	shmq_pub *pub = begin();
	struct lay_member *m = find_victim(pub->h.topic);
	struct shmq__ring *r = &pub->h.topic->ring[0];
	uint64_t seq = shmq__topic_head(r) - 1;
	uint64_t word = load_acquire(fake_ctrl(r->mem, &r->geo, seq));
	int done;

	(void)scene;
	STEPPER_MARK();
	done = shmq__recover_slot(pub->h.topic, 0, seq, word, m->client_gen);
	STEPPER_MARK();
	return !done;
}

static char bytes[INLINE];

/* It comes to the claim of the dead, and finds the proof by itself. */
static int publish_past_the_dead(const struct cast_scene *scene)
{
	shmq_pub *pub = begin();

	cast_fill(bytes, scene->bytes, CAST_SUBJECT, CAST_ROUND);
	STEPPER_MARK();
	shmq_publish(pub, bytes, scene->bytes);
	STEPPER_MARK();
	return 0;
}

/* ---- where ------------------------------------------------------------------------- */

static const uint64_t bases[] = FAKE_BASES;

static const struct op {
	const char *name;
	int (*live)(const struct cast_scene *scene);
	enum shmq_mode mode;
	unsigned victim, committed;
	int is_atomic;
} ops[] = {
	{ "recover the claims of a shared publisher", recover_publisher, SHMQ_SHARED, 3, 1, 0 },
	{ "recover a shared atomic batch", recover_publisher, SHMQ_SHARED, 4, 2, 1 },
	{ "recover an exclusive atomic batch", recover_publisher, SHMQ_EXCLUSIVE, 4, 2, 1 },
	{ "recover claims that no member tells of", recover_claims, SHMQ_SHARED, 3, 1, 0 },
	{ "recover a batch that no member tells of", recover_claims, SHMQ_SHARED, 4, 2, 1 },
	{ "recover one slot", recover_slot, SHMQ_SHARED, 1, 0, 0 },
};

static void run(const struct op *op, enum shmq_policy policy, uint64_t base, int sleepers,
		struct steps_tally *tally)
{
	struct cast_scene scene = {
		.name = op->name,
		.topic = { .base_seq = base, .mode = op->mode, .policy = policy },
		.bytes = MEMBER,
		.count = op->victim,
		.is_atomic = op->is_atomic,
		.sleepers = sleepers,
		.unread = 7,
		.shares = op->mode == SHMQ_SHARED,
		.victim = op->victim,
		.victim_committed = op->committed,
	};
	struct steps_part part = { .scene = &scene, .live = op->live };

	steps_run(&part, tally);
}

TEST_WITHIN(a_recoverer_may_die_at_any_instruction, 600)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY,
						     SHMQ_EVICT };
	uint64_t random = steps_seed();

	stepper_need();
	for (size_t i = 0; i < COUNT(ops); i++) {
		struct steps_tally tally = { 0 };

		if (steps_is_torture()) {
			for (size_t k = 0; k < 4 * COUNT(bases) * 2; k++)
				run(&ops[i], policies[k % 4], bases[k / 4 % COUNT(bases)],
				    k / 4 / COUNT(bases) % 2, &tally);
		} else {
			run(&ops[i], policies[fake_random(&random) % 4],
			    bases[fake_random(&random) % COUNT(bases)],
			    (int)(fake_random(&random) % 2), &tally);
		}
		steps_report(ops[i].name, &tally);
	}
}

TEST_WITHIN(a_publisher_that_recovers_who_stands_in_its_way_may_die_at_any_instruction, 600)
{
	struct steps_tally tally = { 0 };
	uint64_t random = steps_seed();

	stepper_need();
	for (int k = 0; k < (steps_is_torture() ? 2 : 1); k++) {
		struct cast_scene scene = {
			.name = "publish past the dead",
			.topic = { .base_seq = bases[fake_random(&random) % COUNT(bases)],
				   .mode = SHMQ_SHARED },
			.bytes = MEMBER,
			.count = 1,
			.sleepers = k,
			.shares = 1,
			.victim = 1,
			.is_round = 1,
		};
		struct steps_part part = { .scene = &scene,
					   .live = publish_past_the_dead,
					   .wake = cast_read_all };

		steps_run(&part, &tally);
	}
	steps_report("publish past the dead", &tally);
}
