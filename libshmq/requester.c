/* SPDX-License-Identifier: MIT
 *
 * requester: asks, and reads the answers from a private topic of its own.
 *
 * What is open stands in a table by number.  Who takes a request says so on the
 * private topic, where it is a member of the roster from then on.  When the roster
 * changes, requests are marked whose takers are all gone; what those sent before can
 * be seen by then, so once nothing is left to be read their outcome is told.
 */
#include "clock.h"
#include "notify.h"
#include "pub.h"
#include "reply.h"
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define OPEN_DEFAULT 256u
#define OPEN_MAX 4096u
#define REPLY_BYTES_MAX (UINT64_C(16) << 20)
#define SLOT_BYTES 512u
#define SLOTS_EACH 4u /* per open request: taken and answered, by two */
#define TAKERS 4u     /* a request that more have taken is not told of as gone */
#define OVERHEAD (sizeof(struct reply_answer) + sizeof(struct lay_meta))

struct asked {
	uint64_t id; /* 0: free */
	uint64_t deadline;
	uint64_t taker[TAKERS]; /* entry_gen */
	uint32_t takers;
	unsigned client; /* of the last one */
	int is_gone;     /* all of them are */
};

struct shmq_requester {
	struct shmq__handle h; /* in the list of its bus; first: close() converts */
	const struct bus_guard *guard;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq__name_reply reply;
	char name[SHMQ_NAME_MAX + 1]; /* of the private topic, "" none */
	struct reply_scratch scratch;
	uint64_t next_id;
	uint64_t next_deadline; /* of those that are open, none is earlier */
	uint64_t known_taker;   /* it is a member, as of the last change of the roster */
	uint32_t open_max, mask;
	int is_unchecked; /* who took a request since may be gone by now */
	int is_marked;    /* some are gone */
	int64_t block_ns;
	int dont_wait;
	struct shmq_requester_stats stats;
	struct asked *asked; /* mask + 1 of them */
};

/* ---- what is open ---------------------------------------------------- */

static struct asked *find(const struct shmq_requester *r, uint64_t id)
{
	struct asked *a = &r->asked[id & r->mask];

	return id && a->id == id ? a : NULL;
}

/* There is a free one: the table is larger than open_max. */
static struct asked *choose(struct shmq_requester *r)
{
	while (!r->next_id || r->asked[r->next_id & r->mask].id)
		r->next_id++;
	return &r->asked[r->next_id & r->mask];
}

static void tell(struct shmq_requester *r, struct asked *a, enum shmq_outcome outcome,
		 struct shmq_reply *out)
{
	*(outcome == SHMQ_REPLIED ? &r->stats.replied :
	  outcome == SHMQ_REFUSED ? &r->stats.refused :
	  outcome == SHMQ_GONE    ? &r->stats.gone :
				    &r->stats.timed_out) += 1;
	r->stats.open--;
	out->id = a->id;
	out->outcome = outcome;
	out->is_taken = a->takers > 0;
	out->client_id = a->client;
	a->id = 0;
}

/* Without the bell of a message there is none to look at; and there may be more of
 * the kind, which no message tells the descriptor of. */
static void tell_without(struct shmq_requester *r, struct asked *a, enum shmq_outcome outcome,
			 struct shmq_reply *out)
{
	memset(&out->msg, 0, sizeof(out->msg));
	tell(r, a, outcome, out);
	if (r->sub->notify)
		shmq__notify_raise(r->sub->notify);
}

static int tell_expired(struct shmq_requester *r, struct shmq_reply *out)
{
	uint64_t now = shmq__clock_monotonic_ns(), next = UINT64_MAX;
	uint32_t i;

	if (now < r->next_deadline)
		return 0;
	for (i = 0; i <= r->mask; i++) {
		struct asked *a = &r->asked[i];

		if (!a->id)
			continue;
		if (a->deadline <= now) {
			tell_without(r, a, SHMQ_TIMED_OUT, out);
			return 1;
		}
		if (a->deadline < next)
			next = a->deadline;
	}
	r->next_deadline = next;
	return 0;
}

/* ---- who is gone ----------------------------------------------------- */

static int is_member(struct shmq_requester *r, uint64_t entry_gen)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	if (entry_gen == r->known_taker)
		return 1;
	while ((m = shmq__topic_next_member(r->sub->h.topic, &it)))
		if (m->entry_gen == entry_gen && load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER) {
			r->known_taker = entry_gen;
			return 1;
		}
	return 0;
}

static int has_member(struct shmq_requester *r, const struct asked *a)
{
	uint32_t i;

	for (i = 0; i < a->takers && i < TAKERS; i++)
		if (is_member(r, a->taker[i]))
			return 1;
	return !a->takers || a->takers > TAKERS;
}

/* 1 if some are gone of whom that was not known.  A taker that was found is known
 * until the roster changes again, and that is told. */
static int mark_gone(struct shmq_requester *r)
{
	int found = 0;
	uint32_t i;

	r->is_unchecked = 0;
	for (i = 0; i <= r->mask; i++) {
		struct asked *a = &r->asked[i];

		if (!a->id || a->is_gone || has_member(r, a))
			continue;
		a->is_gone = found = 1;
	}
	r->is_marked |= found;
	return found;
}

static int tell_gone(struct shmq_requester *r, struct shmq_reply *out)
{
	uint32_t i;

	for (i = 0; r->is_marked && i <= r->mask; i++)
		if (r->asked[i].id && r->asked[i].is_gone) {
			tell_without(r, &r->asked[i], SHMQ_GONE, out);
			return 1;
		}
	r->is_marked = 0;
	return 0;
}

/* ---- reading --------------------------------------------------------- */

static void note_taker(struct shmq_requester *r, const struct reply_answer *head)
{
	struct asked *a = find(r, head->id);

	if (!a)
		return;
	if (a->takers < TAKERS)
		a->taker[a->takers] = head->entry_gen;
	a->takers++;
	a->is_gone = 0;
	shmq_sub_get_publisher(r->sub, &a->client);
	if (head->entry_gen != r->known_taker)
		r->is_unchecked = 1;
}

/* A message came: 1 if it is to be told of. */
static int take(struct shmq_requester *r, struct shmq_reply *out)
{
	struct reply_answer head = { 0 };
	struct asked *a;

	if (!shmq__reply_take(&out->msg, &head, sizeof(head)) ||
	    (head.magic != REPLY_TAKEN && head.magic != REPLY_ANSWER &&
	     head.magic != REPLY_REFUSAL)) {
		r->stats.stray++;
		return 0;
	}
	if (head.magic == REPLY_TAKEN) {
		note_taker(r, &head);
		return 0;
	}
	a = find(r, head.id);
	if (a) {
		tell(r, a, head.magic == REPLY_ANSWER ? SHMQ_REPLIED : SHMQ_REFUSED, out);
	} else {
		r->stats.late++;
		out->id = head.id;
		out->outcome = SHMQ_LATE;
	}
	out->is_taken = 1;
	shmq_sub_get_publisher(r->sub, &out->client_id);
	return 1;
}

static int64_t left(const struct shmq_requester *r, uint64_t deadline)
{
	return shmq__clock_left(deadline < r->next_deadline ? deadline : r->next_deadline);
}

SHMQ_EXPORT int shmq_requester_next(shmq_requester *r, struct shmq_reply *out, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	int64_t wait = SHMQ_NOWAIT;
	int rc;

	memset(out, 0, sizeof(*out));
	for (;;) {
		rc = shmq_receive(r->sub, &out->msg, wait);
		if (!rc && take(r, out))
			return 0;
		wait = SHMQ_NOWAIT;
		if (rc == SHMQ__SUB_MEMBERS) {
			r->known_taker = 0;
			mark_gone(r);
		}
		if (!rc || rc == SHMQ__SUB_MEMBERS)
			continue;
		if (rc != SHMQ_EEMPTY && rc != SHMQ_ETIMEOUT)
			return rc;
		/* All that was sent is read. */
		if (r->is_unchecked && mark_gone(r))
			continue;
		/* What has timed out has, whatever became since of who had it. */
		if (tell_expired(r, out) || tell_gone(r, out))
			return 0;
		if (shmq__clock_left(deadline) == 0)
			return timeout_ns == SHMQ_NOWAIT ? SHMQ_EEMPTY : SHMQ_ETIMEOUT;
		wait = left(r, deadline);
	}
}

/* ---- asking ---------------------------------------------------------- */

static int publish(struct shmq_requester *r, struct shmq_msg *msg, const struct reply_request *head)
{
	int64_t ns = shmq__clock_left(head->deadline_ns);
	struct shmq_msg whole;
	int error = shmq__reply_put(&r->scratch, head, sizeof(*head), msg, &whole);

	if (error)
		return error;
	if (r->block_ns == SHMQ_FOREVER || (ns != SHMQ_FOREVER && ns < r->block_ns))
		r->pub->block_ns = ns;
	else
		r->pub->block_ns = r->block_ns;
	r->pub->dont_wait = ns == 0;
	error = shmq_publish_msg(r->pub, &whole);
	msg->seq = whole.seq;
	msg->ts_ns = whole.ts_ns;
	msg->partition = whole.partition;
	return error;
}

SHMQ_EXPORT int shmq_requester_send(shmq_requester *r, struct shmq_msg *msg, int64_t timeout_ns,
				    uint64_t *id)
{
	struct reply_request head = { .magic = REPLY_REQUEST,
				      .uid = r->reply.uid,
				      .requester = r->reply.id,
				      .deadline_ns = shmq__clock_deadline(timeout_ns) };
	struct asked *a;
	int error = sub_check(r->sub);

	if (!error && r->stats.open == r->open_max)
		error = SHMQ_ELIMIT;
	if (!error)
		error = shmq_pub_wait_subscribers(r->pub, 1, timeout_ns);
	if (error)
		return error == SHMQ_ETIMEOUT ? SHMQ_ENOBODY : error;
	a = choose(r);
	head.id = r->next_id;
	error = publish(r, msg, &head);
	if (error)
		return error;
	*a = (struct asked){ .id = r->next_id++, .deadline = head.deadline_ns };
	if (a->deadline < r->next_deadline)
		r->next_deadline = a->deadline;
	r->stats.sent++;
	r->stats.open++;
	if (id)
		*id = a->id;
	return 0;
}

static int error_of(enum shmq_outcome outcome)
{
	return outcome == SHMQ_REPLIED ? 0 :
	       outcome == SHMQ_REFUSED ? SHMQ_EREFUSED :
	       outcome == SHMQ_GONE    ? SHMQ_EPEERDEAD :
					 SHMQ_ETIMEOUT;
}

SHMQ_EXPORT int shmq_requester_call(shmq_requester *r, struct shmq_msg *msg,
				    struct shmq_reply *reply, int64_t timeout_ns)
{
	struct shmq_reply own;
	uint64_t id;
	int error = r->stats.open ? SHMQ_EINUSE : 0;

	if (!reply)
		reply = &own;
	memset(reply, 0, sizeof(*reply));
	if (!error)
		error = shmq_requester_send(r, msg, timeout_ns, &id);
	if (error)
		return error;
	do {
		error = shmq_requester_next(r, reply, SHMQ_FOREVER);
	} while (!error && reply->id != id);
	if (error) { /* nobody will ask for its outcome */
		find(r, id)->id = 0;
		r->stats.open--;
		r->stats.sent--;
	}
	return error ? error : error_of(reply->outcome);
}

SHMQ_EXPORT int shmq_requester_fd(shmq_requester *r)
{
	return shmq_sub_fd(r->sub);
}

SHMQ_EXPORT void shmq_requester_get_stats(const shmq_requester *r, struct shmq_requester_stats *out)
{
	*out = r->stats;
}

/* ---- opening and closing --------------------------------------------- */

static void remove_private(struct shmq_requester *r)
{
	struct proto_request req;
	struct proto_reply answer;

	shmq__bus_prepare(r->h.bus, &req, PROTO_REMOVE, r->name);
	req.remove.flags = SHMQ_FORCE;
	shmq__bus_request(r->h.bus, &req, &answer, NULL);
}

static void close_requester(struct shmq__handle *h)
{
	struct shmq_requester *r = (struct shmq_requester *)h;
	int is_here = !bus_check(h->bus);

	if (is_here)
		shmq__bus_unlist_handle(h);
	if (is_here && *r->name && !r->sub)
		remove_private(r);
	shmq_sub_close(r->sub);
	shmq_pub_close(r->pub);
	free(r->scratch.mem);
	free(r->asked);
	free(r);
}

static int check_options(const struct shmq_requester_options *o, struct shmq__why *why)
{
	const char *wrong = o->open_max > OPEN_MAX                   ? "open_max" :
			    o->max_reply_bytes > REPLY_BYTES_MAX     ? "max_reply_bytes" :
			    o->wait < 0 || o->wait > SHMQ_WAIT_SLEEP ? "wait" :
			    o->spin_ns < 0                           ? "spin_ns" :
								       NULL;

	return wrong ? shmq__fail(why, SHMQ_EOPTION, "requester options: %s is out of range",
				  wrong) :
		       0;
}

/* A name that nobody has: by chance, and so that nobody guesses it. */
static int name_private(struct shmq_requester *r, struct shmq__why *why)
{
	if (getrandom(&r->reply.id, sizeof(r->reply.id), 0) != sizeof(r->reply.id))
		r->reply.id = shmq__clock_monotonic_ns() ^ (uint64_t)(uintptr_t)r;
	if (!shmq__name_make_reply(&r->reply, r->name))
		return 0;
	*r->name = 0;
	return shmq__fail(why, SHMQ_ENAME,
			  "a name of %zu bytes is too long to be asked: that of the private "
			  "topic for replies carries it; 220 always fit",
			  strlen(r->reply.topic));
}

/* Small, and nobody waits for whoever asked: an answer that finds no room is the
 * responder's to know. */
static int make_private(struct shmq_requester *r, const struct shmq_requester_options *o,
			struct shmq__why *why)
{
	uint64_t bytes = o->max_reply_bytes ? o->max_reply_bytes + OVERHEAD : 0;
	struct proto_request req;
	struct proto_reply answer;

	shmq__bus_prepare(r->h.bus, &req, PROTO_CREATE, r->name);
	req.create = (struct proto_options){
		.depth = (uint64_t)r->open_max * SLOTS_EACH,
		.slot_bytes = SLOT_BYTES,
		.max_bytes = bytes,
		.mode = SHMQ_SHARED,
		.policy = SHMQ_DROP_NEW,
		.lock = SHMQ_LOCK_NEVER,
		.pages = SHMQ_PAGES_4K,
	};
	return shmq__bus_request(r->h.bus, &req, &answer, why);
}

static int open_parts(struct shmq_requester *r, const char *topic,
		      const struct shmq_requester_options *o)
{
	const struct shmq_sub_options how = { .size = sizeof(how),
					      .from = SHMQ_FROM_OLDEST,
					      .wait = o->wait,
					      .spin_ns = o->spin_ns };
	struct shmq__why *why;
	int error = shmq_pub_open(r->h.bus, topic, NULL, &r->pub);

	if (error)
		return error;
	why = shmq__bus_why();
	r->block_ns = r->pub->block_ns;
	error = name_private(r, why);
	if (!error)
		error = make_private(r, o, why);
	return error ? error : shmq_sub_open(r->h.bus, r->name, &how, &r->sub);
}

static int make_table(struct shmq_requester *r)
{
	uint32_t size = 16;

	while (size < 2 * r->open_max)
		size *= 2;
	r->mask = size - 1;
	r->asked = calloc(size, sizeof(*r->asked));
	return r->asked ? 0 : -ENOMEM;
}

SHMQ_EXPORT int shmq_requester_open(shmq_bus *bus, const char *topic,
				    const struct shmq_requester_options *options,
				    shmq_requester **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_requester_options o;
	struct shmq_requester *r;
	int error = bus_check(bus);

	*out = NULL;
	if (!error)
		error = shmq__options_copy(&o, options, sizeof(o), why);
	if (!error)
		error = check_options(&o, why);
	if (error)
		return error;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->h = (struct shmq__handle){ .bus = bus, .close = close_requester };
	r->open_max = o.open_max ? o.open_max : OPEN_DEFAULT;
	r->next_deadline = UINT64_MAX;
	r->reply = (struct shmq__name_reply){ .uid = geteuid(), .topic = topic };
	error = make_table(r);
	if (!error)
		error = open_parts(r, topic, &o);
	if (error) {
		close_requester(&r->h);
		return error;
	}
	r->sub->tells_members = 1;
	shmq__bus_move_handle(&r->h, &r->h);
	*out = r;
	return 0;
}

SHMQ_EXPORT void shmq_requester_close(shmq_requester *r)
{
	if (r)
		close_requester(&r->h);
}
