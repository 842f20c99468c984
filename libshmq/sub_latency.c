/* SPDX-License-Identifier: MIT
 *
 * sub_latency: how long the messages of a subscriber took since they were
 * published.  While it measures it is not plain, so that the short way of
 * receive.c knows nothing of it.
 */
#include "clock.h"
#include "latency.h"
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>

#define SHOW_NS UINT64_C(100000000)

struct sub_latency {
	struct shmq__latency h;
	shmq_au64 early;
	uint64_t shown_ns;         /* when others were told last */
	const struct rlane *noted; /* the message counted last: one that is taken */
	uint64_t noted_seq;        /* back is handed out again */
};

void shmq__sub_show_latency(struct shmq_sub *sub)
{
	store_relaxed(&sub->lane[0].entry->latency, shmq__latency_pack(&sub->latency->h));
}

void shmq__sub_note_latency(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	struct sub_latency *m = sub->latency;
	uint64_t now;

	if (!msg->ts_ns || sub->view->in_log || (m->noted == sub->view && m->noted_seq == msg->seq))
		return;
	m->noted = sub->view;
	m->noted_seq = msg->seq;
	now = shmq__clock_realtime_ns();
	if (now < msg->ts_ns)
		sub_add(&m->early, 1);
	shmq__latency_count(&m->h, now < msg->ts_ns ? 0 : now - msg->ts_ns);
	if (now - m->shown_ns < SHOW_NS)
		return;
	m->shown_ns = now;
	shmq__sub_show_latency(sub);
}

SHMQ_EXPORT int shmq_sub_latency_start(shmq_sub *sub)
{
	struct shmq__why *why = shmq__bus_why();
	struct sub_latency *m = sub->latency;
	int error = sub_check(sub);

	if (error)
		return error;
	if (sub->pattern)
		return shmq__fail(
			why, SHMQ_EOPTION,
			"the subscriber of a pattern measures nothing: open one of a topic");
	if (!(sub->h.topic->geo.flags & SHMQ_TOPIC_TIME))
		return shmq__fail(
			why, SHMQ_EOPTION,
			"the messages of \"%s\" carry no time to measure from (SHMQ_TOPIC_TIME)",
			sub->h.topic->rec->name);
	if (!m)
		m = malloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	shmq__latency_reset(&m->h);
	store_relaxed(&m->early, 0);
	m->shown_ns = 0;
	m->noted = NULL;
	sub->latency = m;
	shmq__sub_show_latency(sub);
	sub_judge(sub);
	return 0;
}

SHMQ_EXPORT int shmq_sub_latency_stop(shmq_sub *sub)
{
	int error = sub_check(sub);

	if (error)
		return error;
	free(sub->latency);
	sub->latency = NULL;
	store_relaxed(&sub->lane[0].entry->latency, 0);
	sub_judge(sub);
	return 0;
}

static int check(const struct shmq_sub *sub)
{
	struct shmq__why *why = shmq__bus_why();
	int error = sub_check(sub);

	if (error || sub->latency)
		return error;
	return shmq__fail(why, SHMQ_EOPTION,
			  "nothing is measured: shmq_sub_latency_start() begins with it");
}

SHMQ_EXPORT int shmq_sub_get_latency(const shmq_sub *sub, struct shmq_latency *out)
{
	struct sub_latency *m = sub->latency;
	int error = check(sub);

	*out = (struct shmq_latency){ 0 };
	if (error)
		return error;
	out->count = load_relaxed(&m->h.count);
	if (!out->count)
		return 0;
	out->early = load_relaxed(&m->early);
	out->least_ns = load_relaxed(&m->h.least);
	out->mean_ns = load_relaxed(&m->h.sum) / out->count;
	out->p50_ns = shmq__latency_at(&m->h, 0.5);
	out->p90_ns = shmq__latency_at(&m->h, 0.9);
	out->p99_ns = shmq__latency_at(&m->h, 0.99);
	out->p999_ns = shmq__latency_at(&m->h, 0.999);
	out->most_ns = load_relaxed(&m->h.most);
	return 0;
}

SHMQ_EXPORT int shmq_sub_latency_at(const shmq_sub *sub, double share, uint64_t *ns)
{
	int error = check(sub);

	*ns = 0;
	if (error)
		return error;
	if (!(share >= 0 && share <= 1))
		return shmq__fail(shmq__bus_why(), SHMQ_EOPTION,
				  "a share is from 0 to 1: 0.5 is the median");
	*ns = shmq__latency_at(&sub->latency->h, share);
	return 0;
}

SHMQ_EXPORT int shmq_sub_latency_each(const shmq_sub *sub,
				      int (*visit)(void *arg,
						   const struct shmq_latency_bucket *bucket),
				      void *arg)
{
	int rc = check(sub);
	unsigned i;

	for (i = 0; !rc && i < LATENCY_BUCKETS; i++) {
		struct shmq_latency_bucket b = { .from_ns = shmq__latency_least(i),
						 .to_ns = shmq__latency_least(i + 1) - 1 };

		b.count = load_relaxed(&sub->latency->h.bucket[i]);
		if (b.count)
			rc = visit(arg, &b);
	}
	return rc ? rc : check(sub);
}
