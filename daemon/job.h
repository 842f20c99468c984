/* SPDX-License-Identifier: MIT
 *
 * job: a child that populates a big range, or moves it, or does something else
 * that takes long, while the loop goes on.
 */
#ifndef SHMQ_JOB_H
#define SHMQ_JOB_H

#include "control.h"

struct job {
	struct source source;
	struct control *c;
	pid_t child;
	void (*done)(struct job *job, int error, const struct place_result *result,
		     const struct shmq__why *why);
};

/* Populate `range` on `node`, if that is not SHMQ_NODE_ANY; the child runs init(mem, arg).  `done`
 * is called from the loop.  0, or as place_populate_start(), with why. */
int job_start(struct job *job, struct control *c, const struct registry_range *range, int node,
	      void (*init)(void *mem, void *arg), void *arg,
	      void (*done)(struct job *job, int error, const struct place_result *result,
			   const struct shmq__why *why),
	      struct shmq__why *why);

/* Have the child do run(arg) and nothing else. */
int job_run(struct job *job, struct control *c, int (*run)(void *arg, struct shmq__why *why),
	    void *arg,
	    void (*done)(struct job *job, int error, const struct place_result *result,
			 const struct shmq__why *why),
	    struct shmq__why *why);

/* The same for a range that is populated: bring it to the node. */
int job_bring(struct job *job, struct control *c, const struct registry_range *range, int node,
	      void (*done)(struct job *job, int error, const struct place_result *result,
			   const struct shmq__why *why),
	      struct shmq__why *why);

#endif
