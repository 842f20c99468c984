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

static void add_note(struct control *c, struct topic *t, int node, const char *why)
{
	char *note = t->rec->note;
	size_t used = strlen(note);

	snprintf(note + used, sizeof(t->rec->note) - used,
		 "%snot on node %d of its first publisher: %s", used ? "; " : "", node - 1, why);
	log_info("topic \"%s\": %s", t->rec->name, note + used);
	events_say(c, SHMQ_SYS_FALLBACK, NULL, t->rec->name, "%s", note + used);
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
	if (error)
		add_note(c, t, s->node, why->text);
	else if (result->node_actual != s->node)
		add_note(c, t, s->node,
			 "others have its rings mapped: open the publisher first, or give shmqd "
			 "CAP_SYS_NICE");
	t->rec->node_home = s->node;
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
	if (t->rec->node_asked != SHMQ_NODE_PUBLISHER || t->rec->node_home || node <= 0)
		return 0;
	if (was == node) {
		t->rec->node_home = node;
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
	add_note(x->c, t, node, *why.text ? why.text : shmq_strerror(error));
	t->rec->node_home = node;
	return 0;
}

int settle_plan(struct exchange *x, const struct lay_topic *rec, struct place_ask *ask,
		struct place_answer *answer)
{
	int is_wish = rec->node_asked == SHMQ_NODE_PUBLISHER, error;

	ask->node = is_wish ? rec->node_home : rec->node_asked;
	error = create_plan(x, ask, answer);
	if (!error || error == POOL_COMING || !is_wish || ask->node == SHMQ_NODE_ANY)
		return error;
	log_info("topic \"%s\": not on node %d of its first publisher: %s", rec->name,
		 ask->node - 1, x->why.text);
	events_say(x->c, SHMQ_SYS_FALLBACK, NULL, rec->name,
		   "an arena is not on node %d of its first publisher: %s", ask->node - 1,
		   x->why.text);
	ask->node = SHMQ_NODE_ANY;
	return create_plan(x, ask, answer);
}
