/* SPDX-License-Identifier: MIT */
#include "job.h"

static void child_done(struct source *source, uint32_t events)
{
	struct job *job = loop_container(source, struct job, source);
	struct shmq__why why = { "" };
	struct place_result result;
	int error;

	(void)events;
	loop_remove(job->c->loop, source);
	job->c->jobs--;
	error = place_populate_finish(job->child, source->fd, &result, &why);
	job->done(job, error, &result, &why);
}

static int watch(struct job *job, struct control *c, int fd, struct shmq__why *why)
{
	int error = loop_add(c->loop, &job->source, fd, EPOLLIN, child_done);

	if (error) {
		place_populate_finish(job->child, fd, NULL, NULL);
		return shmq__fail(why, error, "watching the populating child: %s",
				  shmq_strerror(error));
	}
	job->c = c;
	c->jobs++;
	return 0;
}

int job_start(struct job *job, struct control *c, const struct registry_range *range, int node,
	      void (*init)(void *mem, void *arg), void *arg,
	      void (*done)(struct job *job, int error, const struct place_result *result,
			   const struct shmq__why *why),
	      struct shmq__why *why)
{
	unsigned slab = LAY_REF_SLAB(range->ref);
	int fd, error;

	error = place_populate_start(c->place, registry_slab_fd(c->reg, slab),
				     LAY_REF_OFF(range->ref), range->bytes,
				     c->reg->slab[slab].page_shift, node, init, arg, &job->child,
				     &fd, why);
	job->done = done;
	return error ? error : watch(job, c, fd, why);
}

int job_bring(struct job *job, struct control *c, const struct registry_range *range, int node,
	      void (*done)(struct job *job, int error, const struct place_result *result,
			   const struct shmq__why *why),
	      struct shmq__why *why)
{
	unsigned slab = LAY_REF_SLAB(range->ref);
	int fd, error;

	error = place_bring_start(c->place, registry_slab_fd(c->reg, slab), LAY_REF_OFF(range->ref),
				  range->bytes, c->reg->slab[slab].page_shift, node, &job->child,
				  &fd, why);
	job->done = done;
	return error ? error : watch(job, c, fd, why);
}

int job_run(struct job *job, struct control *c, int (*run)(void *arg, struct shmq__why *why),
	    void *arg,
	    void (*done)(struct job *job, int error, const struct place_result *result,
			 const struct shmq__why *why),
	    struct shmq__why *why)
{
	int fd, error = place_run_start(run, arg, &job->child, &fd, why);

	job->done = done;
	return error ? error : watch(job, c, fd, why);
}
