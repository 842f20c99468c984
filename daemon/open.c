/* SPDX-License-Identifier: MIT
 *
 * open: handles.  The order of stores in grant() and open_detach() is what
 * adoption rests on: a member is published last and removed first-but-one;
 * an arena without a member is an orphan, an owner without a member is
 * overwritten, entries without a member are free.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "create.h"
#include "give.h"
#include "job.h"
#include "recover.h"
#include "settle.h"

#define NO_ARENA UINT32_MAX

/* A publisher whose arena is being populated. */
struct opening {
	struct job job;
	struct control *c;
	struct conn_later later;
	struct registry_range range;
	uint64_t topic_id;
	struct memory_wait wait;
};

/* Where the reply is put together, now or later. */
struct answer {
	struct conn *conn;
	const struct proto_request *req;
	struct proto_reply *reply;
	int *fds;
	unsigned *fd_count;
	struct shmq__why *why;
};

static uint64_t owner_word(const struct handle *h)
{
	return h->peer->gen << LAY_OWNER_BITS | h->peer->id;
}

/* ---- checks ---------------------------------------------------------- */

static int check_options(const struct answer *a, const struct topic *t)
{
	const struct proto_request *req = a->req;
	int32_t partition = req->open.partition;

	if (req->open.role != SHMQ_ROLE_PUBLISHER && req->open.role != SHMQ_ROLE_SUBSCRIBER)
		return shmq__fail(a->why, SHMQ_EPROTO, "there is no role %u", req->open.role);
	if (partition < -1 || partition >= (int64_t)t->rec->partitions)
		return shmq__fail(a->why, SHMQ_EOPTION,
				  "topic \"%s\" has partitions 0 to %u, not %d", req->topic,
				  t->rec->partitions - 1, partition);
	if (req->open.flags &
	    ~(req->open.role == SHMQ_ROLE_PUBLISHER ? PROTO_OPEN_FENCES :
						      PROTO_OPEN_OBSERVE | PROTO_OPEN_RING_ONLY))
		return shmq__fail(a->why, SHMQ_EPROTO, "open: unknown flag");
	if (req->open.role == SHMQ_ROLE_PUBLISHER)
		return partition == -1 ? 0 :
					 shmq__fail(a->why, SHMQ_EOPTION,
						    "a publisher is not bound to a partition");
	if ((req->open.flags & PROTO_OPEN_OBSERVE) &&
	    !shmq__topic_laps(t->rec->policy, t->rec->log))
		return shmq__fail(
			a->why, SHMQ_EOPTION,
			"publishers of \"%s\" leave no mark where they write over what "
			"nobody waits for: to observe it, it needs policy lossy or evict, "
			"or a log",
			req->topic);
	if (req->open.from < SHMQ_FROM_LATEST || req->open.from > SHMQ_FROM_TIME)
		return shmq__fail(a->why, SHMQ_EOPTION, "there is no start position %u",
				  req->open.from);
	if (req->open.from == SHMQ_FROM_SEQ && partition == -1 && t->rec->partitions > 1)
		return shmq__fail(a->why, SHMQ_EOPTION,
				  "a seq belongs to one partition, \"%s\" has %u: name one",
				  req->topic, t->rec->partitions);
	return 0;
}

static int check_exclusive(struct control *c, const struct answer *a, struct topic *t)
{
	struct handle *h;

	if (a->req->open.role != SHMQ_ROLE_PUBLISHER || t->rec->mode != SHMQ_EXCLUSIVE)
		return 0;
	LIST_FOREACH (h, &t->handles, of_topic)
		if (h->role == SHMQ_ROLE_PUBLISHER)
			break;
	if (!h)
		return 0;
	if (h->peer != a->conn->peer && death_look(c, h->peer)) {
		death_hurry(c, t);
		return 0;
	}
	return shmq__fail(a->why, SHMQ_EEXCLUSIVE, "topic \"%s\" is exclusive and %s publishes it",
			  a->req->topic, conn_peer_text(h->peer));
}

/* A topic made under other rules holds memory that others than now may have. */
static int check_access(const struct control *c, const struct answer *a, const struct topic *t)
{
	int error = control_may(c, a->conn, t->rec->name,
				a->req->open.role == SHMQ_ROLE_PUBLISHER ? ACCESS_PUBLISH :
									   ACCESS_SUBSCRIBE,
				a->why);

	if (!error && !access_is_owner(&a->conn->who) &&
	    give_list_of(c, t) != access_list(c->o->access, t->rec->name))
		error = shmq__fail(
			a->why, SHMQ_EACCESS,
			"\"%s\" was made under other rules, for others: to apply those of "
			"now, its owner moves it (shmq move %s)",
			t->rec->name, t->rec->name);
	return error;
}

static int find_topic(struct control *c, const struct answer *a, struct topic **out)
{
	int error;

	*out = registry_find(c->reg, a->req->topic);
	if (*out)
		death_hurry(c, *out);
	if (!*out || (*out)->creation)
		return shmq__fail(a->why, SHMQ_ENOTOPIC, "there is no topic \"%s\"", a->req->topic);
	error = check_options(a, *out);
	if (!error)
		error = check_access(c, a, *out);
	return error ? error : check_exclusive(c, a, *out);
}

/* Bytes of arena this handle needs; 0 none. */
static int arena_wanted(const struct answer *a, const struct topic *t, uint64_t *bytes)
{
	uint64_t least = t->rec->max_bytes + LAY_LINE;

	*bytes = 0;
	if (a->req->open.role != SHMQ_ROLE_PUBLISHER)
		return 0;
	*bytes = a->req->open.arena_bytes ? a->req->open.arena_bytes : t->rec->arena_bytes;
	if (!*bytes)
		return 0;
	if (*bytes < least)
		return shmq__fail(
			a->why, SHMQ_EOPTION,
			"an arena of %llu bytes cannot hold a message of %llu: ask for %llu",
			(unsigned long long)*bytes, (unsigned long long)t->rec->max_bytes,
			(unsigned long long)least);
	if (*bytes > REGISTRY_BIG_BASE)
		return shmq__fail(a->why, SHMQ_EOPTION, "an arena has at most %llu bytes",
				  (unsigned long long)REGISTRY_BIG_BASE);
	*bytes = (*bytes + LAY_PAGE - 1) / LAY_PAGE * LAY_PAGE;
	return 0;
}

/* ---- granting -------------------------------------------------------- */

static void fill_reply(struct control *c, const struct answer *a, const struct handle *h)
{
	const struct topic *t = h->topic;

	a->reply->open.topic_index = t->index;
	a->reply->open.topic_id = t->rec->id;
	a->reply->open.arena = h->member->arena;
	a->reply->open.member = h->ref;
	a->reply->open.entry = h->member->entry;
	a->reply->open.entry_gen = h->member->entry_gen;
	give_topic(a->conn, a->reply, a->fds, a->fd_count, t, h->role);
	if (h->member->arena)
		give_slab(a->conn, a->reply, a->fds, a->fd_count,
			  LAY_REF_SLAB(
				  shmq__slabs_arena(c->reg->slabs, h->member->arena - 1)->mem));
}

static void own_rings(struct topic *t, uint64_t from, uint64_t to)
{
	uint32_t p;

	for (p = 0; p < t->attached->geo.partitions; p++) {
		shmq_au64 *owner = &t->attached->ring[p].mem->owner;

		if (from == 0 || load_relaxed(owner) == from)
			store_release(owner, to);
	}
}

/* Its bells say whether all who ring them fence: not from before one that does not
 * may publish until after the last such one is gone (bell.h, F1 and F4).  A
 * supervisor that dies in between leaves 0, which is never wrong. */
static void count_unfenced(const struct handle *h, unsigned by)
{
	struct topic *t = h->topic;
	uint32_t p;

	if (!(h->member->flags & LAY_MEMBER_FENCES))
		t->unfenced += by;
	for (p = 0; t->attached && p < t->attached->geo.partitions; p++)
		store_release(&t->attached->ring[p].bells->data.fenced, !t->unfenced);
}

static void join(struct handle *h, const struct proto_request *req)
{
	if (h->role == SHMQ_ROLE_SUBSCRIBER)
		shmq__topic_join(h->topic->attached, h->member, req->open.from, req->open.seq);
	/* Its last store: a retry that finds 0 here joins again. */
	h->member->opened_ns = shmq__clock_realtime_ns();
}

/* Those of the bus itself are nobody that a publisher could wait for. */
static void count_handles(const struct handle *h, uint32_t by)
{
	struct lay_topic *rec = h->topic->rec;
	shmq_au32 *count = h->role == SHMQ_ROLE_PUBLISHER ? &rec->publishers : &rec->subscribers;

	if (*h->peer->rec->name == '$')
		return;
	/* Release: who finds no publisher any more finds what it left, too. */
	store_release(count, load_relaxed(count) + by);
}

/* One that begins in the log gates when it has come to the rings. */
static int observes(const struct topic *t, const struct proto_request *req)
{
	return req->open.flags & PROTO_OPEN_OBSERVE ||
	       (t->rec->log > SHMQ_LOG_NONE && !(req->open.flags & PROTO_OPEN_RING_ONLY) &&
		shmq__topic_starts_in_log(req->open.from));
}

static void publish(struct control *c, struct handle *h, const struct proto_request *req)
{
	int is_publisher = h->role == SHMQ_ROLE_PUBLISHER;

	if (is_publisher && h->topic->rec->mode == SHMQ_EXCLUSIVE)
		own_rings(h->topic, 0, owner_word(h));
	/* A publisher counts before it can publish, a subscriber once it has
	 * its start: what is sent after it was counted, it gets. */
	if (is_publisher) {
		if (req->open.flags & PROTO_OPEN_FENCES)
			h->member->flags |= LAY_MEMBER_FENCES;
		count_unfenced(h, 1);
		count_handles(h, 1);
		settle_fix(c, h->topic);
	}
	shmq__topic_publish_member(h->topic->attached, h->member,
				   is_publisher            ? LAY_MEMBER_PUBLISHER :
				   observes(h->topic, req) ? LAY_MEMBER_OBSERVER :
							     LAY_MEMBER_SUBSCRIBER);
	join(h, req);
	if (!is_publisher) {
		count_handles(h, 1);
		shmq__topic_announce(h->topic->rec);
	}
	conn_push(c, h->topic, SHMQ_EVENT_JOINED, h->role, h->peer, h->peer);
	log_debug("%s opened \"%s\" as %s", conn_peer_text(h->peer), h->topic->rec->name,
		  is_publisher ? "publisher" : "subscriber");
}

static int add_handle(struct control *c, const struct answer *a, struct topic *t, uint32_t arena,
		      struct handle **h)
{
	struct registry_member what = {
		.role = (enum shmq_role)a->req->open.role,
		.partition = a->req->open.partition,
		.arena = arena == NO_ARENA ? 0 : arena + 1,
		.token = a->req->token,
	};
	int error = registry_attach(c->reg, t, a->why);

	if (!error)
		error = registry_add_handle(c->reg, t, a->conn->peer, &what, h, a->why);
	if (error && LIST_EMPTY(&t->handles))
		registry_detach(c->reg, t);
	return error;
}

/* Nobody has published yet, so there are no limits to start behind: each entry
 * stands at its ring's first seq since it was filled. */
int open_seat(struct control *c, struct topic *t, struct registry_watch *w, struct shmq__why *why)
{
	struct registry_member what = {
		.role = SHMQ_ROLE_SUBSCRIBER,
		.partition = -1,
		.token = PROTO_WATCH_TOKEN(w->id, load_relaxed(&c->reg->head->next_entry_gen)) |
			 PROTO_WATCH_SEAT,
	};
	const struct lay_entry *e;
	struct handle *h;
	int error = registry_add_handle(c->reg, t, w->peer, &what, &h, why);

	if (error)
		return error;
	e = shmq__slabs_at(c->reg->slabs, h->member->entry, sizeof(*e));
	h->member->start = load_relaxed(&e->pos);
	h->member->opened_ns = shmq__clock_realtime_ns();
	store_release(&h->member->state, w->rec->flags & LAY_WATCH_OBSERVE ? LAY_MEMBER_OBSERVER :
									     LAY_MEMBER_SUBSCRIBER);
	count_handles(h, 1);
	return 0;
}

/* With an arena that an earlier publisher of this topic left. */
static int grant_with_orphan(struct control *c, const struct answer *a, struct topic *t,
			     uint32_t id)
{
	struct lay_arena *arena = shmq__slabs_arena(c->reg->slabs, id);
	struct handle *h;
	int error = add_handle(c, a, t, id, &h);

	if (error) {
		orphan_begin(c, t, id);
		return error;
	}
	arena->client = h->peer->id;
	arena->client_gen = h->peer->gen;
	store_release(&arena->state, LAY_ARENA_OWNED);
	publish(c, h, a->req);
	fill_reply(c, a, h);
	return 0;
}

/* With a fresh arena in range, or without one (NULL).  On failure the range
 * is still the caller's. */
static int grant(struct control *c, const struct answer *a, struct topic *t,
		 const struct registry_range *range)
{
	uint32_t id = NO_ARENA;
	struct registry_range same;
	struct handle *h;
	int error = 0;

	if (range)
		error = registry_add_arena(c->reg, range, t, a->conn->peer, &id, a->why);
	if (error)
		return error;
	error = add_handle(c, a, t, id, &h);
	if (error) {
		if (range)
			registry_drop_arena(c->reg, id, &same);
		return error;
	}
	publish(c, h, a->req);
	fill_reply(c, a, h);
	registry_count_bytes(c->reg);
	return 0;
}

/* ---- waiting for an arena -------------------------------------------- */

static void grant_again(struct memory_wait *wait);

static void finish_opening(struct opening *o, int error, const struct shmq__why *told)
{
	struct control *c = o->c;
	struct shmq__why why = *told;
	int fds[PROTO_FDS_MAX];
	unsigned fd_count = 0;
	struct answer a = { o->later.conn, &o->later.req, &o->later.reply, fds, &fd_count, &why };
	struct topic *t;

	if (!error && !o->later.conn)
		error = SHMQ_EPEERDEAD;
	/* Much may have happened since it was asked for. */
	if (!error)
		error = find_topic(c, &a, &t);
	if (!error && t->rec->id != o->topic_id)
		error = shmq__fail(&why, SHMQ_ENOTOPIC, "topic \"%s\" was removed",
				   o->later.req.topic);
	if (!error) /* others of its uid may have asked at the same time */
		error = limits_arena(c, o->later.conn, o->range.bytes, &why);
	if (!error)
		error = grant(c, &a, t, &o->range);
	if (error == POOL_COMING) {
		control_await_memory(c, &o->wait, grant_again);
		return;
	}
	t = registry_find(c->reg, o->later.req.topic);
	if (t && t->rec->id == o->topic_id)
		t->settle_openings--;
	if (error)
		work_free(c->work, &o->range, NULL);
	conn_answer_later(&o->later, error, &why, fds, fd_count);
	loop_free(c->loop, o);
	control_maybe_idle(c);
}

static void grant_again(struct memory_wait *wait)
{
	struct shmq__why why = { "" };

	finish_opening(loop_container(wait, struct opening, wait), 0, &why);
}

static void arena_populated(struct job *job, int error, const struct place_result *result,
			    const struct shmq__why *why)
{
	struct opening *o = loop_container(job, struct opening, job);

	o->range.node = result->node_actual;
	finish_opening(o, error, why);
}

static void abandon(void *pending)
{
	struct opening *o = pending;

	o->later.conn = NULL;
}

static int populate_arena(struct exchange *x, struct topic *t, const struct registry_range *range,
			  int node)
{
	struct opening *o = calloc(1, sizeof(*o));
	int error;

	if (!o)
		return -ENOMEM;
	o->c = x->c;
	o->range = *range;
	o->topic_id = t->rec->id;
	error = job_start(&o->job, x->c, range, node, NULL, NULL, arena_populated, &x->why);
	if (error) {
		free(o);
		return error;
	}
	t->settle_openings++;
	conn_defer(x, &o->later, o, abandon);
	return CONN_LATER;
}

/* Whose arenas it writes. */
static uint32_t writer_of(const struct conn *conn)
{
	return access_is_owner(&conn->who) ? conn->c->reg->uid : conn->who.uid;
}

static int open_with_arena(struct exchange *x, const struct answer *a, struct topic *t,
			   uint64_t bytes)
{
	struct place_ask ask = {
		.bytes = bytes,
		.slab_bytes = LAY_BULK_SLAB_BYTES,
		.pages = t->rec->pages_asked == SHMQ_PAGES_4K ? SHMQ_PAGES_4K : SHMQ_PAGES_AUTO,
		.lock = SHMQ_LOCK_NEVER,
	};
	struct place_answer where = { 0 };
	struct registry_range range;
	unsigned slab;
	int error = limits_arena(x->c, x->conn, bytes, &x->why);

	if (!error)
		error = settle_plan(x, t, &ask, &where);
	if (!error)
		error = give_find(x->c, LAY_SLAB_ARENA, where.page_shift, give_list_of(x->c, t),
				  writer_of(x->conn), &slab, &x->why);
	if (!error)
		error = registry_take_range(x->c->reg, slab, ask.node, where.bytes, &range,
					    &x->why);
	if (error)
		return error;
	error = range.is_warm ? grant(x->c, a, t, &range) : populate_arena(x, t, &range, ask.node);
	if (error && error != CONN_LATER)
		registry_free_range(x->c->reg, &range);
	return error;
}

/* ---- requests
 * ------------------------------------------------------------------------------------ */

/* The answer to this very request was lost: it has been done. */
static int answer_again(struct exchange *x, const struct answer *a, struct handle *h)
{
	int error;

	if (h->role != (enum shmq_role)x->req->open.role ||
	    strcmp(h->topic->rec->name, x->req->topic) != 0)
		return shmq__fail(&x->why, SHMQ_EPROTO, "token of another handle");
	error = registry_attach(x->c->reg, h->topic, &x->why);
	if (error)
		return error;
	if (!h->member->opened_ns)
		join(h, x->req);
	fill_reply(x->c, a, h);
	return 0;
}

/* The topic of events is there for who may read it, and written by nobody else. */
static int prepare_events(struct exchange *x)
{
	if (!events_is_topic(x->req->topic))
		return 0;
	if (x->req->open.role == SHMQ_ROLE_PUBLISHER)
		return shmq__fail(&x->why, SHMQ_EACCESS,
				  "\"%s\" is published by the supervisor alone: choose another",
				  x->req->topic);
	if (control_may(x->c, x->conn, x->req->topic, ACCESS_SUBSCRIBE, &x->why))
		return SHMQ_EACCESS;
	return events_make(x->c);
}

int open_request(struct exchange *x)
{
	struct answer a = { x->conn, x->req, &x->reply, x->fds, &x->fd_count, &x->why };
	struct handle *h = registry_find_handle(x->c->reg, x->conn->peer, x->req->token);
	uint64_t arena_bytes;
	struct topic *t;
	uint32_t orphan;
	int error;

	if (h)
		return answer_again(x, &a, h);
	error = prepare_events(x);
	if (!error)
		error = find_topic(x->c, &a, &t);
	if (!error)
		error = arena_wanted(&a, t, &arena_bytes);
	if (!error && x->req->open.role == SHMQ_ROLE_PUBLISHER)
		error = settle_topic(x, t);
	if (error)
		return error;
	if (!arena_bytes)
		return grant(x->c, &a, t, NULL);
	orphan = orphan_find(x->c, t, arena_bytes, writer_of(x->conn));
	if (orphan != NO_ARENA)
		return grant_with_orphan(x->c, &a, t, orphan);
	return open_with_arena(x, &a, t, arena_bytes);
}

int open_close_request(struct exchange *x)
{
	struct handle *h = registry_find_handle(x->c->reg, x->conn->peer, x->req->close.handle);

	/* A watch; or it is closed already, and this is the request again. */
	if (!h) {
		watch_close(x->c, x->conn->peer, x->req->close.handle);
		return 0;
	}
	log_debug("%s closed \"%s\"", conn_peer_text(h->peer), h->topic->rec->name);
	open_detach(x->c, h, OPEN_CLOSED);
	open_finish(x->c, h, SHMQ_EVENT_LEFT);
	return 0;
}

int open_join_request(struct exchange *x)
{
	struct handle *h = registry_find_handle(x->c->reg, x->conn->peer, x->req->close.handle);
	int error;

	if (!h)
		return shmq__fail(&x->why, SHMQ_EPROTO, "there is no such handle to join by");
	/* Joined already, and this is the request again. */
	if (load_relaxed(&h->member->state) != LAY_MEMBER_OBSERVER)
		return 0;
	error = registry_attach(x->c->reg, h->topic, &x->why);
	if (error)
		return error;
	shmq__topic_publish_member(h->topic->attached, h->member, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(h->topic->attached, h->member, SHMQ__FROM_ENTRY, 0);
	log_debug("%s has come to the rings of \"%s\"", conn_peer_text(h->peer),
		  h->topic->rec->name);
	return 0;
}

/* ---- the way back
 * ---------------------------------------------------------------------------------- */

unsigned open_detach(struct control *c, struct handle *h, enum open_end how)
{
	struct topic *t = h->topic;
	struct shmq__why why = { "" };
	unsigned voided = 0;
	/* One that is not LIVE yet has seats at most, and nobody who would be told. */
	int error = t->creation ? SHMQ_ENOTOPIC : registry_attach(c->reg, t, &why);

	h->is_detached = 1;
	if (error && !t->creation)
		log_error("%s; what %s left in it stays until it can be", why.text,
			  conn_peer_text(h->peer));
	if (!error && h->role == SHMQ_ROLE_PUBLISHER) {
		/* A handle closed in order has no claim, but others of its
		 * client may, under the same id. */
		if (how == OPEN_DIED)
			voided = shmq__recover_publisher(t->attached, h->member);
		if (t->rec->mode == SHMQ_EXCLUSIVE)
			own_rings(t, owner_word(h), 0);
	}
	if (h->role == SHMQ_ROLE_PUBLISHER)
		count_unfenced(h, UINT_MAX);
	if (h->member->arena)
		orphan_begin(c, t, h->member->arena - 1);
	count_handles(h, UINT32_MAX);
	if (error)
		store_release(&h->member->state, LAY_MEMBER_FREE);
	else
		shmq__topic_remove_member(t->attached, h->member);
	return voided;
}

void open_finish(struct control *c, struct handle *h, enum shmq_event_kind kind)
{
	struct topic *t = h->topic;
	int is_reader = h->role == SHMQ_ROLE_SUBSCRIBER;

	conn_push(c, t, kind, h->role, h->peer, h->peer);
	registry_drop_handle(c->reg, h);
	if (is_reader)
		reply_was_left(c, t);
	if (!LIST_EMPTY(&t->handles))
		return;
	registry_detach(c->reg, t);
	create_reap_topic(c, t);
}
