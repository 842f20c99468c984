/* SPDX-License-Identifier: MIT */
#include "steps.h"

#include "helpers.h"

#include <time.h>

int steps_is_torture(void)
{
	const char *round = getenv("SHMQ_TORTURE");

	return round && *round;
}

uint64_t steps_seed(void)
{
	static uint64_t seed;
	const char *given = getenv("SHMQ_SEED");

	if (!seed) {
		seed = given && *given ? strtoull(given, NULL, 0) :
					 (uint64_t)time(NULL) * 1000003 % 1000000 + 1;
		NOTE("SHMQ_SEED=%llu repeats this choice", (unsigned long long)seed);
	}
	return seed;
}

shmq_bus *steps_bus(void)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	char dir[108];
	shmq_bus *bus;

	snprintf(dir, sizeof(dir), "%s", test_tmpdir());
	o.runtime_dir = dir;
	o.timeout_ns = PATIENCE;
	CHECK_OK(shmq_bus_open(STANDIN_BUS, &o, &bus));
	return bus;
}

static int live(void *arg)
{
	const struct steps_part *part = arg;

	return part->live(part->scene);
}

void steps_run(const struct steps_part *part, struct steps_tally *tally)
{
	struct stepper s;
	struct cast *c;
	enum stepper_at at;

	if (part->threads)
		stepper_fork_threads(&s, live, (void *)(uintptr_t)part);
	else
		stepper_fork(&s, live, (void *)(uintptr_t)part);
	c = cast_new(part->scene);
	stepper_go(&s);
	cast_begin(c, cast_world(c)->f->clients + !!part->comes);
	cast_bury(c);
	tally->scenes++;
	tally->deaths++;
	while ((at = stepper_step(&s)) != STEPPER_MARKED) {
		int changed = world_look(cast_world(c));

		tally->instructions++;
		if (changed && getenv("SHMQ_STEPS")) /* for whoever looks for a fault */
			NOTE("%s, instruction %llu: %s", part->scene->name,
			     (unsigned long long)s.steps, cast_world(c)->watch.label);
		tally->states += (unsigned)changed;
		if (changed) {
			cast_bury(c);
			tally->deaths++;
		}
		if (at == STEPPER_ENDED)
			FAIL("%s: the subject ended: %d", part->scene->name, s.ended);
		if (at != STEPPER_ASLEEP)
			continue;
		if (!part->wake)
			FAIL("%s: the subject sleeps", part->scene->name);
		part->wake(c);
		CHECK_NE(stepper_await(&s), STEPPER_ENDED);
		cast_bury(c);
		tally->deaths++;
	}
	cast_end(c, part->sent);
	stepper_kill(&s);
	cast_free(c);
}

void steps_report(const char *what, const struct steps_tally *t)
{
	NOTE("%s: %llu scenes, %llu instructions, %llu states of shared memory, %llu deaths", what,
	     (unsigned long long)t->scenes, (unsigned long long)t->instructions,
	     (unsigned long long)t->states, (unsigned long long)t->deaths);
}
