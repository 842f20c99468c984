/* SPDX-License-Identifier: MIT
 *
 * watch: subscriptions by pattern.
 *
 * A subscriber by pattern misses nothing of a topic because it is a member of it
 * before anyone can publish there: the supervisor takes it in while the topic is
 * CREATING, and answers the creator after that.  It is found there by its library
 * (sub_pattern.c), which is not waited for: a member gates from its first store
 * on, whoever reads.
 *
 *   supervisor                          client
 *   T1 member (release)                 T4 change, topic LIVE  (acquire)
 *   T2 topic LIVE (release)             T5 its member is there
 *   T3 change += 1, wake, answer
 *
 * A worker that is killed before T2 leaves a topic that is discarded with its
 * members, one killed after it, what its successor adopts; the creator asks again
 * for what it was not told.  Patterns stand in the registry, so the successor has
 * them before it hears its first request, and none is made without them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "give.h"
#include "name.h"

static struct lay_watch *record_at(const struct registry *r, uint32_t id)
{
	return (struct lay_watch *)(void *)((char *)r->head + LAY_WATCHES_OFF) + id;
}

static int keep(struct control *c, uint32_t id, struct peer *p, struct registry_watch **out)
{
	struct registry_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->id = id;
	w->peer = p;
	w->rec = record_at(c->reg, id);
	LIST_INSERT_HEAD(&c->reg->watches_live, w, link);
	*out = w;
	return 0;
}

static void forget(struct registry_watch *w)
{
	store_release(&w->rec->state, LAY_WATCH_FREE);
	LIST_REMOVE(w, link);
	free(w);
}

static struct registry_watch *find(struct control *c, const struct peer *p, uint64_t token)
{
	struct registry_watch *w;

	LIST_FOREACH (w, &c->reg->watches_live, link)
		if (w->peer == p && w->rec->token == token)
			return w;
	return NULL;
}

static int choose_id(struct control *c, uint32_t *id, struct shmq__why *why)
{
	uint32_t count = load_relaxed(&c->reg->head->watch_count);

	for (*id = 0; *id < count; ++*id)
		if (load_relaxed(&record_at(c->reg, *id)->state) == LAY_WATCH_FREE)
			return 0;
	if (count == LAY_WATCHES_MAX)
		return shmq__fail(why, SHMQ_ELIMIT, "a bus has at most %u subscriptions by pattern",
				  LAY_WATCHES_MAX);
	return pool_reach(&c->reg->watches, (count + UINT64_C(1)) * sizeof(struct lay_watch), why);
}

static int add(struct exchange *x, struct registry_watch **out)
{
	struct control *c = x->c;
	struct lay_watch *rec;
	uint32_t id;
	int error = choose_id(c, &id, &x->why);

	if (!error)
		error = keep(c, id, x->conn->peer, out);
	if (error)
		return error;
	rec = (*out)->rec;
	memset((char *)rec + offsetof(struct lay_watch, client), 0,
	       sizeof(*rec) - offsetof(struct lay_watch, client));
	rec->client = (uint16_t)x->conn->peer->id;
	rec->client_gen = x->conn->peer->gen;
	rec->flags = x->req->watch.flags & PROTO_OPEN_OBSERVE ? LAY_WATCH_OBSERVE : 0;
	rec->token = x->req->token;
	memcpy(rec->pattern, x->req->topic, sizeof(rec->pattern));
	store_release(&rec->state, LAY_WATCH_LIVE);
	if (id == load_relaxed(&c->reg->head->watch_count))
		store_release(&c->reg->head->watch_count, id + 1);
	log_debug("%s watches for \"%s\"", conn_peer_text(x->conn->peer), rec->pattern);
	return 0;
}

int watch_request(struct exchange *x)
{
	struct registry_watch *w = find(x->c, x->conn->peer, x->req->token);
	int error = shmq__name_check_pattern(x->req->topic, &x->why);

	if (!error && (x->req->watch.flags & ~PROTO_OPEN_OBSERVE))
		error = shmq__fail(&x->why, SHMQ_EPROTO, "watch: unknown flag");
	if (!error && proto_is_of_watch(x->req->token))
		error = shmq__fail(&x->why, SHMQ_EPROTO, "watch: token of a handle");
	if (!error && !w && shmq__name_matches(x->req->topic, EVENTS_TOPIC) &&
	    !control_may(x->c, x->conn, EVENTS_TOPIC, ACCESS_SUBSCRIBE, &x->why))
		events_make(x->c);
	if (!error && !w)
		error = add(x, &w);
	if (error)
		return error;
	x->reply.watch.watch = w->id;
	x->reply.watch.topic_id = load_relaxed(&x->c->reg->head->next_topic_id);
	return 0;
}

void watch_close(struct control *c, struct peer *p, uint64_t token)
{
	struct registry_watch *w = find(c, p, token);
	struct handle *h, *next;

	if (!w)
		return;
	for (h = LIST_FIRST(&p->handles); h; h = next) {
		next = LIST_NEXT(h, of_peer);
		if (!proto_is_of_watch(h->token) || proto_watch_of(h->token) != w->id)
			continue;
		open_detach(c, h, OPEN_CLOSED);
		open_finish(c, h, SHMQ_EVENT_LEFT);
	}
	forget(w);
}

void watch_forget_peer(struct control *c, struct peer *p)
{
	struct registry_watch *w, *next;

	for (w = LIST_FIRST(&c->reg->watches_live); w; w = next) {
		next = LIST_NEXT(w, link);
		if (w->peer == p)
			forget(w);
	}
}

/* Of who is not connected the uid is known, and no more: what another user's may
 * have its library asks for, when it is back. */
static int is_allowed(const struct control *c, const struct peer *p, const struct topic *t)
{
	uint32_t uid = load_relaxed(&p->rec->uid);

	if (uid == c->reg->uid || uid == 0)
		return 1;
	return p->conn && !control_may(c, p->conn, t->rec->name, ACCESS_SUBSCRIBE, NULL) &&
	       give_list_of(c, t) == access_list(c->o->access, t->rec->name);
}

/* One that observes wants marks where publishers write over what it has not read:
 * its library is refused by name. */
static int may_sit(const struct control *c, const struct registry_watch *w, const struct topic *t)
{
	if ((w->rec->flags & LAY_WATCH_OBSERVE) && !shmq__topic_laps(t->rec->policy, t->rec->log))
		return 0;
	return is_allowed(c, w->peer, t);
}

static int is_seated(const struct registry_watch *w, const struct topic *t)
{
	const struct handle *h;

	LIST_FOREACH (h, &t->handles, of_topic)
		if (h->peer == w->peer && proto_is_of_watch(h->token) &&
		    proto_watch_of(h->token) == w->id)
			return 1;
	return 0;
}

int watch_seat(struct control *c, struct topic *t)
{
	struct registry_watch *w;
	int error;

	LIST_FOREACH (w, &c->reg->watches_live, link) {
		struct shmq__why why = { "" };

		if (!shmq__name_matches(w->rec->pattern, t->rec->name) || !may_sit(c, w, t) ||
		    is_seated(w, t))
			continue;
		error = open_seat(c, t, w, &why);
		if (error == POOL_COMING)
			return error;
		if (error)
			log_warn("%s has no seat at \"%s\": %s", conn_peer_text(w->peer),
				 t->rec->name, *why.text ? why.text : shmq_strerror(error));
	}
	return 0;
}

void watch_adopt(struct control *c)
{
	uint32_t count = load_relaxed(&c->reg->head->watch_count), id;

	for (id = 0; id < count; id++) {
		struct lay_watch *rec = record_at(c->reg, id);
		struct peer *p = rec->client <= LAY_CLIENT_MAX ? c->reg->peer[rec->client] : NULL;
		struct registry_watch *w;

		if (load_relaxed(&rec->state) != LAY_WATCH_LIVE)
			continue;
		if (p && p->gen == rec->client_gen && !keep(c, id, p, &w))
			continue;
		log_warn("the pattern \"%s\" of client %u is watched for no more", rec->pattern,
			 rec->client);
		store_release(&rec->state, LAY_WATCH_FREE);
	}
}
