/* SPDX-License-Identifier: MIT
 *
 * sub_pattern: one handle that reads all topics whose names match a pattern.
 *
 * It has a subscriber of its own for each of them, and hands out what those have,
 * in turn.  Topics that are there when it is opened it opens as any subscriber
 * does.  To those that come later the supervisor takes it in before anyone can
 * publish (daemon/watch.c: T1 to T5); it finds its member in their rosters when
 * the registry says that topics came or went, and asks nobody: while the
 * supervisor is away as well, of which it has missed nothing then, since topics
 * come by it alone.  A member gates from its creation on, so until it is found
 * nothing is lost that would not be lost to a subscriber that is slow.
 *
 * Without a seat, which takes a supervisor that is out of memory, the topic is
 * opened from its oldest message on, and what is not there any more counts as
 * lost: from the ring's first seq, so exactly.  What cannot be joined at all is
 * said, once, by its name.
 *
 *   A topic that ended is left once all that was in it was read.  One of the same
 *   name may be there already (it was moved, or removed and made anew): that
 *   waits, so that messages of one name come in the order of their seqs.
 */
#include "clock.h"
#include "mem.h"
#include "sub_priv.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RUN 32u                         /* messages of one topic before the others have a turn */
#define AWAY_LOOK_NS INT64_C(100000000) /* without a supervisor: whether it is the end */

struct joined {
	struct shmq_sub *sub;
	uint64_t id;   /* of its topic */
	int is_behind; /* one of the same name is to be read to its end first */
	char name[SHMQ_NAME_MAX + 1];
};

struct pattern {
	char text[SHMQ_NAME_MAX + 1];
	struct shmq_sub_options how;
	uint64_t token; /* of the watch */
	uint32_t watch;
	uint64_t first_new; /* topics with this id and higher ones came later */
	uint32_t seen;      /* registry's change: all is joined that was there then, */
	int is_behind;      /* unless this says that it is not */
	uint64_t *known;    /* by topic index: id of the one that was looked at */
	uint32_t known_count;

	struct joined **joined;
	size_t capacity;
	unsigned count, turn, run;
	struct joined *hand; /* whose message was handed out */
	struct joined *teller;
	char topic[SHMQ_NAME_MAX + 1]; /* what the last call told of */
	int left_some, told_lost;
	unsigned changes, parked; /* of what it sleeps on, and as the park has it */
	uint64_t *gone;           /* tokens: left, and the supervisor was not told yet */
	size_t gone_count, gone_capacity;
	struct shmq_sub_stats past; /* of those that were left */
};

static struct lay_registry *registry(const struct shmq_sub *sub)
{
	return shmq__slabs_registry(sub->h.bus->slabs);
}

const shmq_au32 *shmq__pattern_word(const struct shmq_sub *sub)
{
	return &registry(sub)->change;
}

/* A list of `count` with room for one more of `bytes`: itself, or what it is moved to;
 * NULL without memory, then it is as it was. */
static void *grow(void *list, size_t count, size_t *capacity, size_t bytes)
{
	size_t more = *capacity ? 2 * *capacity : 16;

	if (count < *capacity)
		return list;
	list = reallocarray(list, more, bytes);
	if (list)
		*capacity = more;
	return list;
}

static void tell_of(struct pattern *p, struct joined *j)
{
	if (p->teller == j)
		return;
	p->teller = j;
	memcpy(p->topic, j->name, sizeof(p->topic));
}

/* What it sleeps on is another: who is about to sleep looks once more. */
static void change(struct shmq_sub *sub)
{
	sub->pattern->changes++;
	sub->gave_up = 1;
	if (sub->set)
		shmq__waitset_change(sub->set);
}

/* Of those of one name the oldest is read, and the others wait. */
static void order_by_age(struct pattern *p, const char *name)
{
	struct joined *oldest = NULL;
	unsigned i, pass;

	for (pass = 0; pass < 2; pass++)
		for (i = 0; i < p->count; i++) {
			struct joined *j = p->joined[i];

			if (strcmp(j->name, name) != 0)
				continue;
			if (!oldest || j->id < oldest->id)
				oldest = j;
			j->is_behind = j != oldest;
		}
}

/* ---- joining --------------------------------------------------------- */

/* Our seat in the roster of the topic at rec, or NULL. */
static struct lay_member *find_seat(struct shmq_sub *sub, struct lay_topic *rec)
{
	struct shmq__topic topic = { .slabs = sub->h.bus->slabs, .rec = rec };
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(&topic, &it)))
		if (m->client == sub->h.bus->client && m->client_gen == sub->h.bus->gen &&
		    proto_is_of_watch(m->token) &&
		    proto_watch_of(m->token) == sub->pattern->watch &&
		    (m->token & PROTO_WATCH_SEAT))
			return m;
	return NULL;
}

static int sit_down(struct shmq_sub *sub, const struct lay_member *m, uint32_t index, uint64_t id,
		    struct shmq_sub **out, struct shmq__why *why)
{
	struct shmq__handle h = { .close = shmq__sub_close,
				  .token = m->token,
				  .entry_ref = m->entry };
	struct shmq_bus *bus = sub->h.bus;
	int is_attached = atomic_load(&bus->attached), error = 0;

	/* On a bus of several users its memory may have to be asked for. */
	if (is_attached)
		error = shmq__bus_look(bus, shmq__slabs_topic(bus->slabs, index));
	if (!error)
		error = shmq__bus_map_handle(bus, index, id, m->entry_gen, &h, SHMQ__SLAB_READ);
	/* The seat stays: it is found again. */
	if (error && !is_attached)
		return SHMQ_ENODAEMON;
	/* It went before we were given its memory, with what was in it. */
	if (error == SHMQ_ENOTOPIC)
		return SHMQ_EACCESS;
	if (error)
		return error;
	return shmq__sub_make(&h, &sub->pattern->how, SHMQ_FROM_LATEST, sub, out, why);
}

/* What was there before it was opened counts as lost, but where the log has it. */
static void count_missed(struct shmq_sub *from)
{
	uint64_t lost = 0;
	uint32_t i, is_bound = 0;

	for (i = 0; i < from->lanes && !from->may_replay; i++) {
		struct rlane *l = &from->lane[i];
		uint64_t base = l->r.mem->base_seq, n;

		n = l->r.next - base -
		    shmq__ring_voids_between(l->r.mem, base, l->r.next, &is_bound);
		if (n)
			shmq__sub_count_lost(l, n, &from->held_msg);
		lost += n;
	}
	if (!lost)
		return;
	from->held_msg.lost = lost;
	from->held_msg.lost_is_bound = is_bound;
	from->held_error = SHMQ_EOVERRUN;
	sub_judge(from);
}

static int open_one(struct shmq_sub *sub, const char *name, uint64_t id, struct shmq_sub **out,
		    struct shmq__why *why)
{
	struct shmq__handle h = { .close = shmq__sub_close };
	struct shmq_sub_options how = sub->pattern->how;
	struct proto_request req;
	int is_new = id >= sub->pattern->first_new, error;

	if (is_new)
		how.from = SHMQ_FROM_OLDEST;
	shmq__sub_prepare_open(sub->h.bus, name, &how, &req);
	req.token = PROTO_WATCH_TOKEN(sub->pattern->watch, req.token);
	error = shmq__bus_open_handle(sub->h.bus, &req, &h, SHMQ__SLAB_READ, why);
	if (!error)
		error = shmq__sub_make(&h, &how, (enum shmq_from)req.open.from, sub, out, why);
	if (!error && is_new)
		count_missed(*out);
	return error;
}

static int join(struct shmq_sub *sub, uint32_t index, uint64_t id, const char *name, uint32_t state,
		struct shmq__why *why)
{
	struct pattern *p = sub->pattern;
	struct lay_topic *rec = shmq__slabs_topic(sub->h.bus->slabs, index);
	struct joined **list = grow(p->joined, p->count, &p->capacity, sizeof(struct joined *));
	const struct lay_member *seat;
	struct shmq_sub *from = NULL; /* as long as there is an error */
	struct joined *j;
	int error;

	if (!list)
		return -ENOMEM;
	p->joined = list;
	j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	seat = find_seat(sub, rec);
	fence_acquire();
	/* A topic that we have a seat in does not go, so this one had none: the
	 * record, and the seat, are another's by now. */
	if (rec->id != id)
		error = SHMQ_ENOTOPIC;
	else if (seat)
		error = sit_down(sub, seat, index, id, &from, why);
	else if (state == LAY_TOPIC_LIVE && !why && !atomic_load(&sub->h.bus->attached))
		error = SHMQ_ENODAEMON; /* it is not waited for where messages are */
	else if (state == LAY_TOPIC_LIVE)
		error = open_one(sub, name, id, &from, why);
	else
		error = SHMQ_ENOTOPIC;
	if (!from) {
		free(j);
		return error;
	}
	/* Another may have had its name since, while it was opened. */
	j->sub = from;
	j->id = from->h.topic->id;
	memcpy(j->name, name, sizeof(j->name));
	p->joined[p->count++] = j;
	if (from->wait == SHMQ_WAIT_SPIN || from->wait == SHMQ_WAIT_YIELD)
		sub->wait = from->wait;
	order_by_age(p, name);
	change(sub);
	return 0;
}

static int know(struct pattern *p, uint32_t index, uint64_t id)
{
	uint32_t count = p->known_count ? p->known_count : 64;
	uint64_t *known;

	if (index >= p->known_count) {
		while (count <= index)
			count *= 2;
		known = reallocarray(p->known, count, sizeof(*known));
		if (!known)
			return -ENOMEM;
		memset(known + p->known_count, 0, (count - p->known_count) * sizeof(*known));
		p->known = known;
		p->known_count = count;
	}
	p->known[index] = id;
	return 0;
}

/* It goes by, and is not worth a word: the supervisor is away. */
static int is_away(int error)
{
	return error == SHMQ_ENODAEMON || error == SHMQ_EDAEMON;
}

/* It may go by: the topic is tried again. */
static int is_short(int error)
{
	return error == -ENOMEM || error == -EMFILE || error == SHMQ_ELIMIT;
}

/* Look at the topic at rec, unless that was done.  An error is told of its name. */
static int consider(struct shmq_sub *sub, uint32_t index, struct lay_topic *rec,
		    struct shmq__why *why)
{
	struct pattern *p = sub->pattern;
	uint64_t id;
	uint32_t state = shmq__topic_look(rec, &id);
	char name[SHMQ_NAME_MAX + 1];
	int error = 0;

	if ((state != LAY_TOPIC_LIVE && state != LAY_TOPIC_ENDED) ||
	    (index < p->known_count && p->known[index] == id))
		return 0;
	shmq__copy_racy(name, rec->name, sizeof(name));
	name[sizeof(name) - 1] = 0;
	fence_acquire();
	/* It went meanwhile: the change that comes of it is seen later. */
	if (load_acquire(&rec->state) != state || rec->id != id)
		return 0;
	if (shmq__name_matches(p->text, name))
		error = join(sub, index, id, name, state, why);
	/* Ended before it was ours, or not for us, it is no topic of this pattern. */
	if ((error == SHMQ_ENOTOPIC && (state == LAY_TOPIC_ENDED || id < p->first_new)) ||
	    (error == SHMQ_EACCESS && !find_seat(sub, rec)))
		error = 0;
	if (!is_away(error) && !is_short(error) && know(p, index, id) && !error)
		error = -ENOMEM;
	if (error && !is_away(error)) {
		p->teller = NULL;
		memcpy(p->topic, name, sizeof(name));
	}
	return error;
}

/* Join what has come.  0, or why one of them cannot be. */
static int join_new(struct shmq_sub *sub, struct shmq__why *why)
{
	struct pattern *p = sub->pattern;
	uint32_t seen = load_acquire(&registry(sub)->change), i; /* T4 */
	struct lay_topic *rec;
	int error = 0;

	p->is_behind = 0;
	for (i = 0; (rec = shmq__slabs_topic(sub->h.bus->slabs, i)); i++) {
		int rc = consider(sub, i, rec, why);

		p->is_behind |= is_away(rc) || is_short(rc);
		if (rc && (!error || is_away(error)))
			error = rc;
	}
	p->seen = seen;
	return why || !is_away(error) ? error : 0;
}

static int is_behind(const struct shmq_sub *sub)
{
	return unlikely(load_acquire(&registry(sub)->change) != sub->pattern->seen ||
			sub->pattern->is_behind);
}

/* ---- leaving --------------------------------------------------------- */

static void add_stats(struct shmq_sub_stats *sum, const struct shmq_sub *sub)
{
	struct shmq_sub_stats s;

	shmq_sub_get_stats(sub, &s);
	sum->received += s.received;
	sum->received_bytes += s.received_bytes;
	sum->wakes += s.wakes;
	sum->evicted |= s.evicted;
	sum->lost += s.lost;
	sum->lost_is_bound |= s.lost_is_bound;
	sum->lag += s.lag;
}

/* Those that were left while the supervisor had no time for us are kept until it
 * has; it is not waited for where messages are. */
static void tell_gone(struct shmq_sub *sub)
{
	struct pattern *p = sub->pattern;
	struct proto_request req;

	while (p->gone_count) {
		shmq__bus_prepare(sub->h.bus, &req, PROTO_CLOSE, NULL);
		req.close.handle = p->gone[p->gone_count - 1];
		if (shmq__bus_notify(sub->h.bus, &req))
			return;
		p->gone_count--;
	}
}

static void leave(struct shmq_sub *sub, struct joined *j)
{
	struct pattern *p = sub->pattern;
	uint64_t *gone = grow(p->gone, p->gone_count, &p->gone_capacity, sizeof(*gone));
	unsigned i = 0;

	/* Without room for its token it is left later. */
	if (!gone)
		return;
	p->gone = gone;
	p->gone[p->gone_count++] = j->sub->h.token;
	while (p->joined[i] != j)
		i++;
	memmove(&p->joined[i], &p->joined[i + 1], (p->count - i - 1) * sizeof(struct joined *));
	p->count--;
	if (p->turn > i)
		p->turn--;
	if (p->turn >= p->count)
		p->turn = 0;
	if (p->teller == j)
		p->teller = NULL;
	p->left_some = 1;
	add_stats(&p->past, j->sub);
	p->past.lag = 0;
	order_by_age(p, j->name);
	j->sub->h.token = 0;
	shmq__sub_close(&j->sub->h);
	free(j);
	tell_gone(sub);
	change(sub);
}

/* ---- reading --------------------------------------------------------- */

static void next_turn(struct pattern *p)
{
	p->run = 0;
	if (++p->turn >= p->count)
		p->turn = 0;
}

/* What one of them has, by the way of any subscriber: the short one, too. */
static int look_at(struct shmq_sub *sub, struct joined *j, struct shmq_msg *msg)
{
	struct pattern *p = sub->pattern;
	struct shmq_sub *from = j->sub;
	int rc = j->is_behind ? SHMQ_EEMPTY : shmq_receive(from, msg, SHMQ_NOWAIT);

	switch (rc) {
	case 0:
		from->told_stalled = 0;
		p->hand = j;
		break;
	case SHMQ_EEMPTY:
		return rc;
	case SHMQ_EENDED:
	case SHMQ_EMOVED:
		leave(sub, j);
		return SHMQ_EEMPTY;
	case SHMQ_ESTALLED:
		if (from->told_stalled)
			return SHMQ_EEMPTY;
		from->told_stalled = 1;
		break;
	case SHMQ_EEVICTED:
		/* Nobody waits for it there any more: from now on it is one that
		 * observes, and loses what it is too slow for. */
		from->evicted = from->evicts = 0;
		sub_judge(from);
		break;
	}
	tell_of(p, j);
	return rc;
}

int shmq__pattern_look(struct shmq_sub *sub, struct shmq_msg *msg)
{
	struct pattern *p = sub->pattern;
	unsigned left;
	int rc;

	if (is_behind(sub)) {
		rc = join_new(sub, NULL);
		if (rc)
			return rc;
	}
	for (left = p->count; left; left--) {
		unsigned count = p->count;

		rc = look_at(sub, p->joined[p->turn], msg);
		if (rc == 0 && ++p->run < RUN)
			return 0;
		if (p->count == count)
			next_turn(p);
		if (rc != SHMQ_EEMPTY)
			return rc;
	}
	return SHMQ_EEMPTY;
}

/* Of one that was looked at, and had nothing. */
static int all_are_left(const struct shmq_sub *sub)
{
	const struct pattern *p = sub->pattern;
	unsigned i;

	for (i = 0; i < p->count; i++)
		if (!shmq__sub_is_left(p->joined[i]->sub))
			return 0;
	return p->count || p->left_some;
}

/* No topic will ever come.  0 as long as one may. */
static int end_of_bus(struct shmq_sub *sub)
{
	if (atomic_load(&sub->h.bus->lost))
		return SHMQ_ELOST;
	return load_acquire(&registry(sub)->control_pid) ? 0 : SHMQ_EENDED;
}

int shmq__pattern_end_of_stream(struct shmq_sub *sub, struct shmq_msg *msg)
{
	struct pattern *p = sub->pattern;
	int end = end_of_bus(sub), rc;

	if (p->gone_count)
		tell_gone(sub);
	/* Those of a bus that was lost go on as long as they have something. */
	if (end == SHMQ_EENDED && p->count)
		end = 0;
	if (!end && (sub->flags & SHMQ_SUB_END_WITH_PUBLISHERS) && all_are_left(sub))
		end = SHMQ_EENDED;
	if (!end)
		return SHMQ_EEMPTY;
	sub->gave_up = 0;
	rc = shmq__pattern_look(sub, msg);
	return rc == SHMQ_EEMPTY && !sub->gave_up ? end : rc;
}

int shmq__pattern_is_ready(struct shmq_sub *sub)
{
	struct pattern *p = sub->pattern;
	unsigned i;
	int rc;

	if (is_behind(sub) && join_new(sub, NULL))
		return 1;
	for (i = 0; i < p->count; i++)
		if (!p->joined[i]->is_behind && shmq__sub_is_ready(p->joined[i]->sub))
			return 1;
	rc = end_of_bus(sub);
	return rc == SHMQ_ELOST || (rc && !p->count) ||
	       ((sub->flags & SHMQ_SUB_END_WITH_PUBLISHERS) && all_are_left(sub));
}

struct shmq_sub *shmq__pattern_in_hand(const struct shmq_sub *sub)
{
	return sub->pattern->hand ? sub->pattern->hand->sub : NULL;
}

void shmq__pattern_release(struct shmq_sub *sub)
{
	struct joined *j = sub->pattern->hand;

	sub->pattern->hand = NULL;
	if (j)
		sub_finish_view(j->sub);
}

void shmq__pattern_take_back(struct shmq_sub *sub)
{
	struct pattern *p = sub->pattern;

	for (p->turn = 0; p->joined[p->turn] != p->hand; p->turn++)
		;
	p->run = 0;
	p->hand = NULL;
}

void shmq__pattern_tell_of(struct shmq_sub *sub, const char *topic)
{
	sub->pattern->teller = NULL;
	memcpy(sub->pattern->topic, topic, strlen(topic) + 1);
}

const char *shmq__pattern_topic(const struct shmq_sub *sub)
{
	return sub->pattern->topic;
}

const struct shmq_sub *shmq__pattern_teller(const struct shmq_sub *sub)
{
	return sub->pattern->teller ? sub->pattern->teller->sub : NULL;
}

/* ---- waiting --------------------------------------------------------- */

int64_t shmq__pattern_report_stuck(struct shmq_sub *sub)
{
	int64_t least = atomic_load(&sub->h.bus->attached) && !sub->pattern->is_behind ?
				SHMQ_FOREVER :
				AWAY_LOOK_NS;
	unsigned i;

	for (i = 0; i < sub->pattern->count; i++) {
		int64_t ns = shmq__sub_report_stuck(sub->pattern->joined[i]->sub);

		if (ns != SHMQ_FOREVER && (least == SHMQ_FOREVER || ns < least))
			least = ns;
	}
	return least;
}

void shmq__pattern_show_asleep(struct shmq_sub *sub, uint32_t asleep)
{
	unsigned i;

	sub->pattern->past.sleeps += asleep;
	for (i = 0; i < sub->pattern->count; i++)
		shmq__sub_show_asleep(sub->pattern->joined[i]->sub, asleep);
}

unsigned shmq__pattern_bells(const struct shmq_sub *sub)
{
	unsigned i, n = 0;

	for (i = 0; i < sub->pattern->count; i++)
		n += sub->pattern->joined[i]->sub->lanes;
	return n;
}

void shmq__pattern_list_bells(const struct shmq_sub *sub, struct lay_bell **list)
{
	unsigned i;

	for (i = 0; i < sub->pattern->count; i++) {
		shmq__sub_list_bells(sub->pattern->joined[i]->sub, list);
		list += sub->pattern->joined[i]->sub->lanes;
	}
}

unsigned shmq__pattern_changes(const struct shmq_sub *sub)
{
	return sub->pattern->changes;
}

int shmq__pattern_prepare_park(struct shmq_sub *sub)
{
	unsigned n = shmq__pattern_bells(sub);
	struct lay_bell **bell;
	int error;

	if (sub->park && sub->pattern->parked == sub->pattern->changes)
		return 0;
	bell = calloc(n ? n : 1, sizeof(*bell));
	if (!bell)
		return -ENOMEM;
	shmq__pattern_list_bells(sub, bell);
	shmq__park_free(sub->park);
	sub->park = NULL;
	free(sub->bell);
	sub->bell = bell;
	error = shmq__park_create(bell, n, shmq__pattern_word(sub), sub->fence, &sub->park);
	sub->pattern->parked = sub->pattern->changes;
	return error;
}

void shmq__pattern_get_stats(const struct shmq_sub *sub, struct shmq_sub_stats *out)
{
	unsigned i;

	*out = sub->pattern->past;
	for (i = 0; i < sub->pattern->count; i++)
		add_stats(out, sub->pattern->joined[i]->sub);
}

SHMQ_EXPORT int shmq_sub_topic_each(const shmq_sub *sub,
				    int (*visit)(void *arg, const char *topic,
						 const struct shmq_sub_stats *stats),
				    void *arg)
{
	const struct pattern *p = sub->pattern;
	struct shmq_sub_stats stats;
	unsigned i;
	int rc = sub_check(sub);

	if (!rc && !p) {
		shmq_sub_get_stats(sub, &stats);
		rc = visit(arg, shmq_sub_topic(sub), &stats);
	}
	for (i = 0; p && i < p->count && !rc; i++) {
		shmq_sub_get_stats(p->joined[i]->sub, &stats);
		rc = visit(arg, p->joined[i]->name, &stats);
	}
	return rc ? rc : sub_check(sub);
}

/* ---- opening and closing --------------------------------------------- */

static int check_options(const struct shmq_sub_options *o, struct shmq__why *why)
{
	if (o->from > SHMQ_FROM_OLDEST || o->cursor)
		return shmq__fail(why, SHMQ_EOPTION,
				  "a pattern starts at the latest or the oldest message of each "
				  "topic: seqs, times and cursors are of one");
	if (o->partition_plus1)
		return shmq__fail(why, SHMQ_EOPTION,
				  "a pattern reads all partitions of its topics");
	return 0;
}

static int watch(struct shmq_sub *sub, struct shmq__why *why)
{
	struct pattern *p = sub->pattern;
	struct proto_request req;
	struct proto_reply reply = { 0 };
	int error;

	shmq__bus_prepare(sub->h.bus, &req, PROTO_WATCH, p->text);
	req.watch.flags = p->how.flags & SHMQ_SUB_OBSERVE ? PROTO_OPEN_OBSERVE : 0;
	error = shmq__bus_request(sub->h.bus, &req, &reply, why);
	/* Not refused: it may be there. */
	if (!error || !reply.error)
		p->token = req.token;
	p->watch = reply.watch.watch % LAY_WATCHES_MAX;
	p->first_new = reply.watch.topic_id;
	return error;
}

int shmq__pattern_open(struct shmq_bus *bus, const char *pattern, const struct shmq_sub_options *o,
		       struct shmq_sub **out, struct shmq__why *why)
{
	struct shmq__handle h = { .bus = bus, .close = shmq__sub_close };
	/* No lanes; the first is looked at before that is known. */
	struct shmq_sub *sub;
	struct pattern *p;
	int error = shmq__name_check_pattern(pattern, why);

	if (!error)
		error = check_options(o, why);
	if (error)
		return error;
	sub = shmq__mem_apart(sizeof(*sub) + sizeof(sub->lane[0]), HANDLE_APART);
	p = calloc(1, sizeof(*p));
	if (!sub || !p) {
		free(sub);
		free(p);
		return -ENOMEM;
	}
	sub->h = h;
	sub->guard = bus->guard;
	sub->pattern = p;
	sub->fence = shmq__bus_ready(bus, 0);
	sub->wait = o->wait ? o->wait : SHMQ_WAIT_ADAPTIVE;
	sub->spin_ns = o->spin_ns ? o->spin_ns : WAIT_SPIN_NS;
	sub->interrupt = bus_interrupt(bus);
	sub->flags = o->flags;
	memcpy(p->text, pattern, strlen(pattern) + 1);
	p->how = *o;
	/* A topic may have others yet; and what is conflated is what all of them have. */
	p->how.flags &= ~(SHMQ_SUB_END_WITH_PUBLISHERS | SHMQ_SUB_CONFLATE);
	shmq__bus_move_handle(&sub->h, &sub->h);
	error = o->flags & SHMQ_SUB_CONFLATE ? shmq__conflate_open(sub) : 0;
	if (!error)
		error = watch(sub, why);
	if (!error)
		error = join_new(sub, why);
	if (error) {
		shmq__sub_close(&sub->h);
		return error;
	}
	*out = sub;
	return 0;
}

void shmq__pattern_close(struct shmq_sub *sub)
{
	struct pattern *p = sub->pattern;
	struct shmq__handle *h = &sub->h;
	unsigned i;

	for (i = 0; i < p->count; i++) {
		shmq__sub_close(&p->joined[i]->sub->h);
		free(p->joined[i]);
	}
	if (!sub_check(sub)) {
		shmq__bus_unlist_handle(h);
		/* With it go the seats that nobody found, and what was left. */
		if (p->token)
			shmq__bus_close_token(h->bus, p->token);
	}
	free(p->joined);
	free(p->known);
	free(p->gone);
	free(p);
}
