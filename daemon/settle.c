/* SPDX-License-Identifier: MIT */
#include "settle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"

struct settling {
	struct job job;
	struct topic *topic;
	int node;
};

/* Appended, to be told in so many words wherever it is. */
#define NOT_ON_NODE "not on node %d of its first publisher: %s"

static void add_note(char *note, size_t bytes, int node, const char *why)
{
	size_t used = strlen(note);

	snprintf(note + used, bytes - used, "%s" NOT_ON_NODE, used ? "; " : "", node - 1, why);
}

/* Once per publisher that is about to be the first: why its pages do not lie
 * there, NULL if they do. */
static void tried(struct topic *t, int node, const char *why)
{
	free(t->settle_why);
	t->settle_why = why ? strdup(why) : NULL;
	t->settle_node = node;
}

static void settled(struct job *job, int error, const struct place_result *result,
		    const struct shmq__why *why)
{
	struct settling *s = loop_container(job, struct settling, job);
	struct control *c = job->c;
	struct topic *t = s->topic;

	t->is_settling = 0;
	if (!error)
		t->rec->node_actual = result->node_actual;
	tried(t, s->node,
	      error ? why->text :
	      result->node_actual != s->node ?
		      "others have its rings mapped: open the publisher first, or give shmqd "
		      "CAP_SYS_NICE" :
		      NULL);
	create_relock(c, t);
	create_reap_topic(c, t);
	control_memory_came(c);
	loop_free(c->loop, s);
	control_maybe_idle(c);
}

/* Whether there is room on the node, for the pages it has now. */
static int plan(struct control *c, const struct topic *t, int node, struct shmq__why *why)
{
	struct place_answer answer;
	struct place_ask ask = {
		.bytes = t->rec->ring_bytes * t->rec->partitions,
		.slab_bytes = LAY_BULK_SLAB_BYTES,
		.pages = t->rec->page_shift == 12 ? SHMQ_PAGES_4K :
			 t->rec->page_shift == 21 ? SHMQ_PAGES_2M :
						    SHMQ_PAGES_1G,
		.node = node,
		.lock = SHMQ_LOCK_NEVER,
	};

	return place_plan(c->place, &ask, &answer, why);
}

/* Pages that only the child maps need no privilege to be moved. */
static void let_go(struct control *c, struct topic *t, const struct registry_range *rings)
{
	void *locked = work_forget(c->work, t);

	if (locked)
		registry_unmap(c->reg, rings, locked);
	registry_detach(c->reg, t);
}

int settle_topic(struct exchange *x, struct topic *t)
{
	struct registry_range rings = registry_rings_of(x->c->reg, t->rec);
	struct shmq__why why = { "" };
	int node = x->req->open.node, was = t->rec->node_actual, error;
	struct settling *s;

	if (t->is_settling)
		return POOL_COMING;
	if (t->rec->node_asked != SHMQ_NODE_PUBLISHER || t->rec->node_home || node <= 0 ||
	    t->settle_node == node)
		return 0;
	/* Another is on its way to be the first. */
	if (t->settle_node && t->settle_openings)
		return 0;
	if (was == node) {
		tried(t, node, NULL);
		return 0;
	}
	s = calloc(1, sizeof(*s));
	error = s ? plan(x->c, t, node, &why) : -ENOMEM;
	if (!error) {
		s->topic = t;
		s->node = node;
		let_go(x->c, t, &rings);
		/* A worker that comes in between finds them on both. */
		t->rec->node_actual = SHMQ_NODE_ANY;
		error = job_bring(&s->job, x->c, &rings, node, settled, &why);
		if (error) {
			t->rec->node_actual = was;
			create_relock(x->c, t);
		}
	}
	if (!error) {
		t->is_settling = 1;
		return POOL_COMING;
	}
	free(s);
	/* Who cannot have it does without: a node is no reason not to publish. */
	tried(t, node, *why.text ? why.text : shmq_strerror(error));
	return 0;
}

void settle_fix(struct control *c, struct topic *t)
{
	size_t used = strlen(t->rec->note);

	if (t->rec->node_home || !t->settle_node)
		return;
	if (t->settle_why) {
		add_note(t->rec->note, sizeof(t->rec->note), t->settle_node, t->settle_why);
		log_info("topic \"%s\": %s", t->rec->name, t->rec->note + used);
		events_say(c, SHMQ_SYS_FALLBACK, NULL, t->rec->name, NOT_ON_NODE,
			   t->settle_node - 1, t->settle_why);
	}
	t->rec->node_home = t->settle_node;
	tried(t, 0, NULL);
}

static int plan_elsewhere(struct exchange *x, const struct topic *t, int node, const char *why,
			  struct place_ask *ask, struct place_answer *answer)
{
	char kept[SHMQ_WHY_BYTES];
	int error;

	snprintf(kept, sizeof(kept), "%s", why);
	x->wish = ask->node = SHMQ_NODE_ANY;
	error = create_plan(x, ask, answer);
	if (error)
		return error;
	add_note(answer->note, sizeof(answer->note), node, kept);
	log_info("topic \"%s\": more of it is " NOT_ON_NODE, t->rec->name, node - 1, kept);
	events_say(x->c, SHMQ_SYS_FALLBACK, NULL, t->rec->name, "more of it is " NOT_ON_NODE,
		   node - 1, kept);
	return 0;
}

int settle_plan(struct exchange *x, const struct topic *t, struct place_ask *ask,
		struct place_answer *answer)
{
	const struct lay_topic *rec = t->rec;
	int is_wish = rec->node_asked == SHMQ_NODE_PUBLISHER, error;
	int node = !is_wish ? rec->node_asked : rec->node_home ? rec->node_home : t->settle_node;

	if (x->elsewhere)
		return plan_elsewhere(x, t, node, x->elsewhere, ask, answer);
	x->wish = is_wish ? node : SHMQ_NODE_ANY;
	ask->node = node;
	error = create_plan(x, ask, answer);
	if (!error || error == POOL_COMING || x->wish == SHMQ_NODE_ANY)
		return error;
	return plan_elsewhere(x, t, node, x->why.text, ask, answer);
}
