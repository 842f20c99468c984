/* SPDX-License-Identifier: MIT
 *
 * steps: a subject is stepped through its operation, and dies in each state
 * that others could find it in.
 *
 * What others find is shared memory, and that alone: after an instruction that
 * did not change it they find what they found before.  So a death at each
 * state of it is a death at each instruction, and both are counted.  With
 * SHMQ_TORTURE every scene there is has its turn, else some that a seed draws.
 */
#ifndef STEPS_H
#define STEPS_H

#include "cast.h"

struct steps_part {
	const struct cast_scene *scene;
	/* In the subject, which has opened what it needs by itself. */
	int (*live)(const struct cast_scene *scene);
	/* Above, when the subject has gone to sleep: what wakes it. */
	void (*wake)(struct cast *c);
	unsigned sent; /* messages of the operation, once it is done */
	int comes;     /* it attaches as a part of it */
	int threads;   /* what is stepped is a thread of the library's */
};

struct steps_tally {
	uint64_t scenes, instructions, states, deaths;
};

/* Step through one scene. */
void steps_run(const struct steps_part *part, struct steps_tally *tally);

/* One line of diagnostics about what was covered. */
void steps_report(const char *what, const struct steps_tally *tally);

/* With SHMQ_TORTURE; the seed of this run, which SHMQ_SEED repeats. */
int steps_is_torture(void);
uint64_t steps_seed(void);

/* In the subject: its handles. */
shmq_bus *steps_bus(void);

#endif
