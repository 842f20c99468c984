/* SPDX-License-Identifier: MIT
 *
 * stall: what publishers report of each other and of subscribers.
 *
 * A claim of a live process is never voided: the process could write
 * later.  It is watched: ten looks of our own, 100 ms apart, at the same
 * word, without CPU time used by the owner between two of them, are a
 * stall.  A machine that was paused as a whole counts for nothing, because
 * our looks were paused too.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "proc.h"
#include "recover.h"

#define LOOKS 10
#define LOOK_NS UINT64_C(100000000)
#define LOOKS_AFTER_KILL 100 /* it should be gone by then */

struct stall {
	LIST_ENTRY(stall) link;
	struct topic *topic;
	struct peer *owner;
	uint32_t partition;
	uint64_t seq, word;
	int64_t cpu_ticks;
	unsigned looks;
	int is_reported, is_killed;
};

static void look_at_all(struct timer *timer);

static void forget(struct stall *s)
{
	LIST_REMOVE(s, link);
	free(s);
}

static void set_timer(struct control *c)
{
	if (LIST_EMPTY(&c->stalls))
		loop_clear_timer(&c->stall_timer);
	else
		loop_set_timer(c->loop, &c->stall_timer, shmq__clock_monotonic_ns() + LOOK_NS,
			       look_at_all);
}

static uint64_t word_at(const struct topic *t, uint32_t partition, uint64_t seq)
{
	const struct shmq__ring *ring = &t->attached->ring[partition];

	return load_acquire(&lay_slot_at(ring->mem, &ring->geo, seq)->ctrl);
}

/* ---- looking --------------------------------------------------------- */

static void act(struct control *c, struct stall *s)
{
	int is_kill = s->topic->rec->stall == SHMQ_STALL_KILL;

	s->is_reported = 1;
	log_warn("%s is stalled inside its claim of seq %llu of \"%s\" (partition %u): %s",
		 conn_peer_text(s->owner), (unsigned long long)s->seq, s->topic->rec->name,
		 s->partition, is_kill ? "killing it" : "others wait for it");
	events_say(c, SHMQ_SYS_STALL, s->owner, s->topic->rec->name,
		   "inside its claim of seq %llu (partition %u): %s", (unsigned long long)s->seq,
		   s->partition, is_kill ? "killing it" : "others wait for it");
	conn_push(c, s->topic, SHMQ_EVENT_STALLED, SHMQ_ROLE_PUBLISHER, s->owner, NULL);
	s->is_killed = is_kill;
	/* Its pidfd will say when it has gone: death_of() voids the claim. */
	if (is_kill && death_pidfd(s->owner) >= 0)
		syscall(SYS_pidfd_send_signal, death_pidfd(s->owner), SIGKILL, NULL, 0);
}

static void tell_unkillable(struct control *c, const struct stall *s)
{
	log_error(
		"%s got SIGKILL 10 s ago and is still there (frozen by its cgroup?): thaw it, or give "
		"\"%s\" fresh rings with: shmq move --bus %s --runtime-dir %s %s",
		conn_peer_text(s->owner), s->topic->rec->name, c->o->bus, c->o->dir,
		s->topic->rec->name);
}

/* Once for all its claims. */
static int64_t cpu_ticks(const struct control *c, struct peer *p)
{
	if (p->cpu_look != c->stall_looks)
		p->cpu_ticks = shmq__proc_cpu_ticks((pid_t)load_relaxed(&p->rec->pid));
	p->cpu_look = c->stall_looks;
	return p->cpu_ticks;
}

static void look(struct control *c, struct stall *s)
{
	int64_t ticks = cpu_ticks(c, s->owner);
	struct shmq__why why = { "" };

	if (registry_attach(c->reg, s->topic, &why) ||
	    word_at(s->topic, s->partition, s->seq) != s->word) {
		forget(s);
		return;
	}
	if (s->is_reported) {
		if (s->is_killed && ++s->looks == LOOKS + LOOKS_AFTER_KILL)
			tell_unkillable(c, s);
		return;
	}
	if (ticks < 0 || ticks != s->cpu_ticks) { /* what cannot be read proves nothing */
		s->cpu_ticks = ticks;
		s->looks = 0;
		return;
	}
	if (++s->looks >= LOOKS)
		act(c, s);
}

static void look_at_all(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, stall_timer);
	struct stall *s, *next;

	c->stall_looks++;
	for (s = LIST_FIRST(&c->stalls); s; s = next) {
		next = LIST_NEXT(s, link);
		look(c, s);
	}
	set_timer(c);
}

void stall_forget_topic(struct control *c, const struct topic *t)
{
	struct stall *s, *next;

	for (s = LIST_FIRST(&c->stalls); s; s = next) {
		next = LIST_NEXT(s, link);
		if (s->topic == t)
			forget(s);
	}
}

void stall_forget_peer(struct control *c, const struct peer *p)
{
	struct stall *s, *next;

	for (s = LIST_FIRST(&c->stalls); s; s = next) {
		next = LIST_NEXT(s, link);
		if (s->owner == p)
			forget(s);
	}
}

/* ---- reports --------------------------------------------------------- */

/* The topic of the report, which the reporter must have open. */
static struct topic *reported_topic(const struct exchange *x)
{
	struct handle *h;

	LIST_FOREACH (h, &x->conn->peer->handles, of_peer)
		if (h->topic->rec->id == x->req->report.topic_id)
			return h->topic;
	return NULL;
}

static struct handle *publisher_of(const struct topic *t, unsigned client)
{
	struct handle *h;

	LIST_FOREACH (h, &t->handles, of_topic)
		if (h->role == SHMQ_ROLE_PUBLISHER && h->peer->id == client)
			return h;
	return NULL;
}

/* Nobody who could still write holds it: it is left from a publisher whose
 * recovery did not see it.  It may be one of an atomic batch, so all that
 * the publisher left goes, in that order. */
static void void_ownerless(struct exchange *x, struct topic *t, uint64_t word)
{
	unsigned owner = LAY_CTRL_OWNER(word), voided = 0;
	struct lay_client *rec = shmq__slabs_client(x->c->reg->slabs, owner);

	if (rec)
		voided = shmq__recover_claims(t->attached, x->req->report.partition, owner,
					      load_relaxed(&rec->gen));
	log_warn("a claim of seq %llu of \"%s\" had no owner (id %u): %u slots voided",
		 (unsigned long long)x->req->report.seq, t->rec->name, owner, voided);
	events_say(x->c, SHMQ_SYS_RECOVERY, NULL, t->rec->name,
		   "a claim of seq %llu had no owner: %u slots voided",
		   (unsigned long long)x->req->report.seq, voided);
}

static int report_stuck(struct exchange *x, struct topic *t)
{
	uint32_t partition = x->req->report.partition;
	uint64_t seq = x->req->report.seq, word;
	struct handle *owner;
	struct stall *s;

	if (partition >= t->rec->partitions)
		return shmq__fail(&x->why, SHMQ_EPROTO, "topic \"%s\" has no partition %u",
				  t->rec->name, partition);
	if (registry_attach(x->c->reg, t, &x->why))
		return SHMQ_ELIMIT;
	word = word_at(t, partition, seq);
	if (word != x->req->report.word || LAY_CTRL_STATE(word) != LAY_CLAIMED ||
	    LAY_CTRL_LAP(word) != lay_lap(&t->attached->geo, seq))
		return 0;
	owner = publisher_of(t, LAY_CTRL_OWNER(word));
	if (!owner) {
		void_ownerless(x, t, word);
		return 0;
	}
	/* What has called execve uses CPU time and commits nothing. */
	if (owner->peer != x->conn->peer && death_look(x->c, owner->peer))
		return 0;
	/* One claim is enough to tell that it is stalled, and to go on with the
	 * next once that one is settled; a mad client reports thousands. */
	LIST_FOREACH (s, &x->c->stalls, link)
		if (s->topic == t && s->partition == partition && s->owner == owner->peer)
			return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct stall){ .topic = t,
			     .owner = owner->peer,
			     .partition = partition,
			     .seq = seq,
			     .word = word,
			     .cpu_ticks = -1 };
	if (LIST_EMPTY(&x->c->stalls))
		loop_set_timer(x->c->loop, &x->c->stall_timer, shmq__clock_monotonic_ns() + LOOK_NS,
			       look_at_all);
	LIST_INSERT_HEAD(&x->c->stalls, s, link);
	return 0;
}

static int report_evict(struct exchange *x, struct topic *t)
{
	struct handle *h;

	if (t->rec->policy != SHMQ_EVICT)
		return shmq__fail(&x->why, SHMQ_EOPTION,
				  "nobody is evicted from \"%s\": its policy is "
				  "another",
				  t->rec->name);
	if (!publisher_of(t, x->conn->peer->id))
		return shmq__fail(&x->why, SHMQ_EACCESS,
				  "only a publisher of \"%s\" can have passed a "
				  "subscriber",
				  t->rec->name);
	LIST_FOREACH (h, &t->handles, of_topic)
		if (h->peer->id == x->req->report.client &&
		    h->peer->gen == x->req->report.client_gen && h->token == x->req->report.handle)
			break;
	if (!h || load_relaxed(&h->member->state) != LAY_MEMBER_SUBSCRIBER)
		return 0;
	if (registry_attach(x->c->reg, t, &x->why))
		return SHMQ_ELIMIT;
	shmq__topic_publish_member(t->attached, h->member, LAY_MEMBER_EVICTED);
	shmq__topic_ring_all(t->attached);
	log_info("%s was evicted from \"%s\": it held publishers back", conn_peer_text(h->peer),
		 t->rec->name);
	events_say(x->c, SHMQ_SYS_EVICTION, h->peer, t->rec->name, "it held publishers back");
	conn_push(x->c, t, SHMQ_EVENT_EVICTED, SHMQ_ROLE_SUBSCRIBER, h->peer, NULL);
	return 0;
}

int stall_report_request(struct exchange *x)
{
	struct topic *t = reported_topic(x);

	if (!t)
		return shmq__fail(&x->why, SHMQ_ENOTOPIC,
				  "a report about a topic that the client does "
				  "not publish");
	switch (x->req->report.kind) {
	case PROTO_REPORT_STUCK:
		return report_stuck(x, t);
	case PROTO_REPORT_EVICT:
		return report_evict(x, t);
	default:
		return shmq__fail(&x->why, SHMQ_EPROTO, "there is no report %u",
				  x->req->report.kind);
	}
}
