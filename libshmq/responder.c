/* SPDX-License-Identifier: MIT
 *
 * responder: reads requests, and answers to the private topics of those who asked,
 * each of which it has open from its requester's first request until that is gone.
 */
#include "clock.h"
#include "pub.h"
#include "reply.h"
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Who reads is given so many naps to make room; who did not is not waited for
 * again before it has. */
#define NAPS 10u
#define NAP_NS INT64_C(1000000)

/* All of its private topic's name is what it is known by: an id alone, which anybody
 * may say, would lead answers to one uid or topic to another. */
struct partner {
	uint64_t id; /* of the requester; they are in this order */
	uint32_t uid;
	const char *topic; /* where it asks */
	shmq_pub *pub;
	int is_slow;
};

struct shmq_responder {
	struct shmq__handle h; /* in the list of its bus; first: close() converts */
	shmq_sub *sub;
	struct partner *partner;
	unsigned count, capacity;
	struct reply_scratch scratch;
	struct shmq_responder_stats stats;
};

/* ---- those who asked ------------------------------------------------- */

/* Where the first of that id is, or would be. */
static unsigned place_of(const struct shmq_responder *r, uint64_t id)
{
	unsigned low = 0, high = r->count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (r->partner[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct partner *find(const struct shmq_responder *r, const struct shmq_request *q)
{
	unsigned at;

	for (at = place_of(r, q->requester); at < r->count && r->partner[at].id == q->requester;
	     at++)
		if (r->partner[at].uid == q->uid && !strcmp(r->partner[at].topic, q->topic))
			return &r->partner[at];
	return NULL;
}

static void drop(struct shmq_responder *r, struct partner *p)
{
	shmq_pub_close(p->pub);
	memmove(p, p + 1, (size_t)(r->partner + --r->count - p) * sizeof(*p));
}

/* Looked for when another comes: so there are never many. */
static void drop_ended(struct shmq_responder *r)
{
	unsigned i = r->count;

	while (i--)
		if (shmq__topic_has_ended(r->partner[i].pub->h.topic))
			drop(r, &r->partner[i]);
}

static int meet(struct shmq_responder *r, const struct shmq_request *q, struct partner **out)
{
	const struct shmq__name_reply reply = { q->uid, q->requester, q->topic };
	struct shmq_pub_options how = { .size = sizeof(how), .flags = SHMQ_DONTWAIT };
	char name[SHMQ_NAME_MAX + 1];
	struct partner p = { .id = q->requester, .uid = q->uid };
	struct shmq_topic_info info;
	unsigned at;
	int error;

	*out = find(r, q);
	if (*out)
		return 0;
	drop_ended(r);
	error = shmq__name_make_reply(&reply, name);
	if (!error && r->count == r->capacity) {
		unsigned capacity = r->capacity ? 2 * r->capacity : 16;
		struct partner *more = reallocarray(r->partner, capacity, sizeof(*more));

		if (!more)
			return -ENOMEM;
		r->partner = more;
		r->capacity = capacity;
	}
	if (error)
		return error;
	/* It was there before the request: what the registry does not have any more
	 * is not asked for, which would take as long as the supervisor is away, for
	 * each request that a dead one has left. */
	error = shmq_topic_get_info(r->h.bus, name, &info);
	if (!error) {
		how.arena_bytes =
			shmq__layout_reply_arena(info.max_message_bytes, info.inline_bytes);
		error = shmq_pub_open(r->h.bus, name, &how, &p.pub);
	}
	if (error)
		return error == SHMQ_ENOTOPIC ? SHMQ_EPEERDEAD : error;
	/* It is closed by us, before it would be by the bus. */
	shmq__bus_unlist_handle(&r->h);
	shmq__bus_move_handle(&r->h, &r->h);
	p.topic = p.pub->h.topic->rec->name + strlen(name) - strlen(q->topic);
	at = place_of(r, p.id);
	memmove(&r->partner[at + 1], &r->partner[at], (r->count - at) * sizeof(p));
	r->partner[at] = p;
	r->count++;
	*out = &r->partner[at];
	return 0;
}

/* ---- answering ------------------------------------------------------- */

static int send(struct shmq_responder *r, const struct shmq_request *q, struct partner *p,
		uint32_t magic, const struct shmq_msg *msg)
{
	struct reply_answer head = { .magic = magic,
				     .id = q->id,
				     .entry_gen = load_relaxed(&p->pub->h.entry->gen) };
	/* That it is taken wakes nobody: the answer will, or our end. */
	uint64_t sent = load_relaxed(&p->pub->h.entry->count);
	enum bell_mode bell = magic == REPLY_TAKEN ? BELL_LATER : BELL_NOW;
	struct shmq_msg whole;
	struct iovec iov;
	struct lane *l;
	unsigned naps;
	int error = shmq__reply_put(&r->scratch, &head, sizeof(head), msg, &whole);

	if (!error)
		error = lane_has_ended(&p->pub->lane[0]);
	if (error == SHMQ_EENDED)
		goto gone;
	if (error)
		return error;
	whole.partition = 0;
	iov = (struct iovec){ .iov_base = (void *)(uintptr_t)whole.data, .iov_len = whole.len };
	error = shmq__pub_send(p->pub, &whole, &iov, 1, bell, &l);
	/* Some room will do: it need not have read all. */
	for (naps = p->is_slow ? 0 : NAPS; error == SHMQ_EFULL && naps; naps--) {
		shmq_flush(p->pub, NAP_NS);
		error = shmq__pub_send(p->pub, &whole, &iov, 1, bell, &l);
	}
	p->is_slow = error == SHMQ_EFULL;
	/* Whoever has read the answer may be gone by now: it was there when that was
	 * sent. */
	if (error == SHMQ_EENDED && load_relaxed(&p->pub->h.entry->count) != sent)
		return 0;
	if (error != SHMQ_EENDED)
		return error;
gone:
	drop(r, p);
	return SHMQ_EPEERDEAD;
}

static void count(struct shmq_responder *r, uint32_t magic, int error)
{
	if (!error)
		*(magic == REPLY_ANSWER ? &r->stats.replied : &r->stats.refused) += 1;
	r->stats.late += error == SHMQ_ETIMEOUT;
	r->stats.gone += error == SHMQ_EPEERDEAD;
	r->stats.full += error == SHMQ_EFULL;
}

static int answer(struct shmq_responder *r, const struct shmq_request *q, uint32_t magic,
		  const struct shmq_msg *msg)
{
	struct partner *p = find(r, q);
	int error = sub_check(r->sub);

	if (error || q->error)
		return error ? error : q->error;
	if (!p)
		error = SHMQ_EPEERDEAD;
	else if (shmq__clock_left(q->deadline_ns) == 0)
		error = SHMQ_ETIMEOUT;
	else
		error = send(r, q, p, magic, msg);
	count(r, magic, error);
	return error;
}

SHMQ_EXPORT int shmq_responder_reply(shmq_responder *r, const struct shmq_request *q,
				     const struct shmq_msg *msg)
{
	return answer(r, q, REPLY_ANSWER, msg);
}

SHMQ_EXPORT int shmq_responder_refuse(shmq_responder *r, const struct shmq_request *q,
				      const char *why)
{
	const struct shmq_msg msg = { .data = why, .len = strlen(why) };

	return answer(r, q, REPLY_REFUSAL, &msg);
}

/* ---- receiving ------------------------------------------------------- */

/* What the message is, which may be written over meanwhile. */
static int identify(struct shmq_responder *r, struct shmq_request *q)
{
	struct reply_request head = { 0 };
	struct shmq_msg plain = q->msg;

	q->error = SHMQ_EOPTION;
	if (shmq__reply_take(&q->msg, &head, sizeof(head)) && head.magic == REPLY_REQUEST &&
	    head.id) {
		q->requester = head.requester;
		q->id = head.id;
		q->deadline_ns = head.deadline_ns;
		q->uid = head.uid;
		q->error = 0;
	} else {
		q->msg = plain;
	}
	if (shmq_view_check(r->sub, &q->msg) != SHMQ_EOVERRUN)
		return 0;
	q->msg.lost = 1;
	return SHMQ_EOVERRUN;
}

SHMQ_EXPORT int shmq_responder_receive(shmq_responder *r, struct shmq_request *q,
				       int64_t timeout_ns)
{
	static const struct shmq_msg nothing;
	struct partner *p = NULL;
	int rc;

	memset(q, 0, sizeof(*q));
	rc = shmq_receive(r->sub, &q->msg, timeout_ns);
	if (rc != SHMQ_EEMPTY && rc != SHMQ_ETIMEOUT)
		memcpy(q->topic, shmq_sub_topic(r->sub), strlen(shmq_sub_topic(r->sub)) + 1);
	if (!rc)
		rc = identify(r, q);
	if (rc || q->error)
		return rc;
	r->stats.received++;
	q->error = meet(r, q, &p);
	if (p)
		q->error = send(r, q, p, REPLY_TAKEN, &nothing);
	if (q->error == SHMQ_EFULL) /* the answer may find room */
		q->error = 0;
	return 0;
}

SHMQ_EXPORT int shmq_responder_fd(shmq_responder *r)
{
	return shmq_sub_fd(r->sub);
}

SHMQ_EXPORT void shmq_responder_get_stats(const shmq_responder *r, struct shmq_responder_stats *out)
{
	*out = r->stats;
	out->requesters = r->count;
}

/* ---- opening and closing --------------------------------------------- */

static void close_responder(struct shmq__handle *h)
{
	struct shmq_responder *r = (struct shmq_responder *)h;

	if (!bus_check(h->bus))
		shmq__bus_unlist_handle(h);
	while (r->count)
		drop(r, &r->partner[r->count - 1]);
	shmq_sub_close(r->sub);
	free(r->partner);
	free(r->scratch.mem);
	free(r);
}

SHMQ_EXPORT int shmq_responder_open(shmq_bus *bus, const char *topic,
				    const struct shmq_responder_options *options,
				    shmq_responder **out)
{
	struct shmq_sub_options how = { .size = sizeof(how) };
	struct shmq__why *why = shmq__bus_why();
	struct shmq_responder_options o;
	struct shmq_responder *r;
	int error = bus_check(bus);

	*out = NULL;
	if (!error)
		error = shmq__options_copy(&o, options, sizeof(o), why);
	if (!error && o.from > SHMQ_FROM_OLDEST)
		error = shmq__fail(why, SHMQ_EOPTION,
				   "a responder begins with the latest or the oldest request");
	if (error)
		return error;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->h = (struct shmq__handle){ .bus = bus, .close = close_responder };
	how.from = o.from;
	how.wait = o.wait;
	how.spin_ns = o.spin_ns;
	error = shmq_sub_open(bus, topic, &how, &r->sub);
	if (error) {
		free(r);
		return error;
	}
	shmq__bus_move_handle(&r->h, &r->h);
	*out = r;
	return 0;
}

SHMQ_EXPORT void shmq_responder_close(shmq_responder *r)
{
	if (r)
		close_responder(&r->h);
}
