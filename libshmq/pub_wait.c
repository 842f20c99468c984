/* SPDX-License-Identifier: MIT
 *
 * pub_wait: where a publisher finds no room: it waits for the slowest reader
 * that gates, or for a claim of another publisher that stands in the way, and
 * looks meanwhile whether whom it waits for is dead, stalled, or to be left
 * behind.
 */
#include "pub.h"
#include "clock.h"
#include "proc.h"
#include "recover.h"
#include "wait.h"

#include <poll.h>

#define STUCK_REPORT_NS 100000000 /* a claim that stands so long is reported */
#define STUCK_AGAIN_NS 1000000000 /* ... and again: the supervisor may die */
#define STUCK_ERROR_NS 1000000000 /* ... and with stall = report, refused */
#ifndef ATTEND_TURNS              /* tests/weave has less patience */
#define ATTEND_TURNS 4096u        /* turns of a spinning wait between such looks */
#endif
#define DEATH_LOOK_NS 1000000 /* look for proof of death that often */

void shmq__pub_wake_all(struct shmq_pub *pub)
{
	uint32_t p;

	for (p = 0; pub->sleeps && p < pub->h.topic->geo.partitions; p++)
		if (bell_look(&pub->lane[p].bells->data, pub->look))
			pub_note_wake(pub, &pub->lane[p]);
}

static void report_evicted(struct shmq_pub *pub, const struct credit_gater *g)
{
	struct proto_request req;

	shmq__bus_prepare(pub->h.bus, &req, PROTO_REPORT, pub->h.topic->rec->name);
	req.report.kind = PROTO_REPORT_EVICT;
	req.report.topic_id = pub->h.topic->id;
	req.report.handle = g->token;
	req.report.client = g->client;
	req.report.client_gen = g->client_gen;
	shmq__bus_notify(pub->h.bus, &req);
}

static void report_stuck(struct shmq_pub *pub, const struct lane *l, uint64_t seq, uint64_t word)
{
	struct proto_request req;

	shmq__bus_prepare(pub->h.bus, &req, PROTO_REPORT, pub->h.topic->rec->name);
	req.report.kind = PROTO_REPORT_STUCK;
	req.report.topic_id = pub->h.topic->id;
	req.report.partition = (uint32_t)(l - pub->lane);
	req.report.seq = seq;
	req.report.word = word;
	shmq__bus_notify(pub->h.bus, &req);
}

int shmq__pub_raise_limit(struct lane *l, uint64_t need)
{
	int error;

	l->w.limit = shmq__credit_refresh(&l->credit, l->w.next, need, &error);
	if (error)
		return error;
	return seq_diff(l->w.limit, need) >= 0;
}

/* The owner of that claim, of generation gen, is dead.  The claim may be part
 * of an atomic batch, so all it left is repaired, in the right order. */
static void recover_owner(struct shmq_pub *pub, const struct lane *l, uint64_t seq, uint64_t word,
			  uint64_t gen)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(pub->h.topic, &it)))
		if (m->client == LAY_CTRL_OWNER(word) && m->client_gen == gen &&
		    load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER)
			shmq__recover_publisher(pub->h.topic, m);
	shmq__recover_slot(pub->h.topic, (uint32_t)(l - pub->lane), seq, word, gen);
}

/* A claim of someone else's that we are kept waiting by. */
struct held {
	uint64_t seq, word;
	uint64_t since, next_look, next_report; /* monotonic */
};

/* Look after it: recover it on proof of death, report it when it lasts.
 * SHMQ_ESTALLED once the policy says that others are told, else 0.
 * Whoever comes to a claim has acquired it (V2), and with it who its owner is: a process
 * that had its id before is not taken for it.  The generation is acquired, too: if it has
 * moved on, the claim is gone by then, for what the old one claimed is voided before. */
static int attend(struct shmq_pub *pub, const struct lane *l, struct held *h, uint64_t seq,
		  uint64_t word)
{
	struct lay_client *c = shmq__slabs_client(pub->h.topic->slabs, LAY_CTRL_OWNER(word));
	uint64_t now = shmq__clock_monotonic_ns(), gen;
	struct shmq__proc_id id;

	if (h->seq != seq || h->word != word)
		*h = (struct held){ .seq = seq,
				    .word = word,
				    .since = now,
				    .next_look = now + DEATH_LOOK_NS,
				    .next_report = now + STUCK_REPORT_NS };
	if (c && now >= h->next_look) {
		h->next_look = now + (now - h->since < 10 * DEATH_LOOK_NS ? 1 : 10) * DEATH_LOOK_NS;
		gen = load_acquire(&c->gen);
		id = (struct shmq__proc_id){ .pid = (pid_t)load_relaxed(&c->pid),
					     .start_time = load_relaxed(&c->start_time),
					     .pidns = load_relaxed(&c->pidns) };
		if (shmq__proc_is_dead(&id) &&
		    load_relaxed(&lay_slot_at(l->w.mem, &l->w.geo, seq)->ctrl) == word)
			recover_owner(pub, l, seq, word, gen);
	}
	if (now >= h->next_report) {
		h->next_report = now + STUCK_AGAIN_NS;
		report_stuck(pub, l, seq, word);
	}
	return now - h->since > STUCK_ERROR_NS && l->w.geo.stall == SHMQ_STALL_REPORT ?
		       SHMQ_ESTALLED :
		       0;
}

/* The claim that the subscriber which holds us back stands at, if it does.  Relaxed: it
 * is behind the seq that we wait for, so we passed it by an acquire, our own claims' or
 * that of who moved the hint (R4, R5). */
static int holder_stands_at(struct lane *l, uint64_t *seq, uint64_t *word)
{
	struct credit_gater *g = shmq__credit_holder(&l->credit);

	if (!g)
		return 0;
	*seq = load_relaxed(&g->entry->pos);
	*word = load_relaxed(&lay_slot_at(l->w.mem, &l->w.geo, *seq)->ctrl);
	return LAY_CTRL_STATE(*word) == LAY_CLAIMED &&
	       LAY_CTRL_LAP(*word) == lay_lap(&l->w.geo, *seq);
}

static void go_to_sleep(const struct shmq_pub *pub, struct lane *l, uint64_t deadline,
			uint64_t need, int *ready)
{
	enum shmq__fence fence = pub->sleep_fence;
	struct lay_bell *bell = &l->bells->credit;
	uint64_t seq, word, look;
	uint32_t e;

	look = shmq__clock_deadline(holder_stands_at(l, &seq, &word) ? STUCK_REPORT_NS :
								       STUCK_ERROR_NS);
	store_relaxed(&l->entry->asleep, 1);
	e = shmq__bell_arm(bell, fence);
	*ready = shmq__pub_raise_limit(l, need);
	if (!*ready && load_relaxed(&l->w.mem->state) == LAY_RING_LIVE)
		shmq__bell_sleep(&bell, &e, 1, fence, deadline < look ? deadline : look,
				 bus_interrupt(pub->h.bus));
	store_relaxed(&l->entry->asleep, 0);
}

/* Now and then while we wait for credit, as the supervisor may be away: is
 * whoever holds us back held by a dead or stalled publisher, or dead? */
static int attend_holder(struct shmq_pub *pub, struct lane *l, struct held *h, uint64_t *next_dead)
{
	uint64_t now = shmq__clock_monotonic_ns(), seq, word;

	if (now >= *next_dead) {
		*next_dead = now + STUCK_ERROR_NS;
		shmq__credit_drop_dead(&l->credit);
	}
	return holder_stands_at(l, &seq, &word) ? attend(pub, l, h, seq, word) : 0;
}

/* For people: nothing rests on it. */
static void say_waiting(struct lane *l, uint64_t need)
{
	store_relaxed(&l->entry->need, need ? need : need - 1); /* 0 would say "no" */
}

static void say_waited(struct lane *l)
{
	store_relaxed(&l->entry->need, 0);
}

static int stand_by(struct shmq_pub *pub, struct lane *l, uint64_t need)
{
	int evict = l->w.geo.policy == SHMQ_EVICT;
	int64_t timeout = evict ? pub->evict_ns : pub->block_ns;
	uint64_t next_dead = shmq__clock_deadline(STUCK_ERROR_NS);
	const shmq_au32 *interrupt = bus_interrupt(pub->h.bus);
	struct held held = { 0 };
	unsigned turns = 0;
	struct waiter w;
	int ready, error;

	shmq__waiter_start(&w, pub->wait, WAIT_SPIN_NS, timeout, interrupt);
	while (!(ready = shmq__pub_raise_limit(l, need))) {
		enum wait_step step = shmq__waiter_step(&w);

		error = lane_has_ended(l);
		if (error)
			return error;
		if (step == WAIT_EXPIRED && evict) {
			struct credit_gater *g = shmq__credit_holder(&l->credit);

			if (g) {
				g->absent = 1;
				report_evicted(pub, g);
			} else { /* the log's tailer is not evicted */
				shmq__waiter_start(&w, pub->wait, WAIT_SPIN_NS, timeout, interrupt);
			}
			continue; /* at once for the next that lags */
		}
		if (step >= WAIT_EXPIRED)
			return waiter_error(step);
		if (step == WAIT_SLEEP)
			go_to_sleep(pub, l, w.deadline, need, &ready);
		if (ready)
			break;
		if (step == WAIT_SLEEP || ++turns % ATTEND_TURNS == 0) {
			error = attend_holder(pub, l, &held, &next_dead);
			if (error)
				return error;
		}
	}
	return ready < 0 ? ready : 0;
}

int shmq__pub_wait_for_credit(struct shmq_pub *pub, struct lane *l, uint64_t need)
{
	int ready = shmq__pub_raise_limit(l, need), error;

	if (ready)
		return ready < 0 ? ready : 0;
	if (pub->dont_wait || l->w.geo.policy == SHMQ_DROP_NEW)
		return SHMQ_EFULL;
	shmq__pub_wake_all(pub);
	store_relaxed(&l->entry->waits, load_relaxed(&l->entry->waits) + 1);
	say_waiting(l, need);
	error = stand_by(pub, l, need);
	say_waited(l);
	return error;
}

int shmq__pub_wait_for_claim(struct shmq_pub *pub, struct lane *l, uint64_t seq, uint64_t word)
{
	uint64_t old = seq - l->w.geo.depth;
	struct lay_slot *slot = lay_slot_at(l->w.mem, &l->w.geo, old);
	struct held held = { 0 };
	enum wait_step step;
	struct waiter w;
	int error = 0;

	if (pub->dont_wait)
		return SHMQ_ESTALLED;
	say_waiting(l, seq + 1);
	shmq__waiter_start(&w, SHMQ_WAIT_YIELD, 0, pub->block_ns, bus_interrupt(pub->h.bus));
	/* Relaxed: who finds it gone claims anew, which acquires (R4). */
	while (!error && load_relaxed(&slot->ctrl) == word) {
		error = lane_has_ended(l);
		if (!error)
			error = attend(pub, l, &held, old, word);
		step = error ? WAIT_AGAIN : shmq__waiter_step(&w);
		if (step >= WAIT_EXPIRED)
			error = waiter_error(step);
		/* A held claim is rare and lasts: no bell is worth it. */
		if (!error && waiter_waited(&w) > DEATH_LOOK_NS)
			poll(NULL, 0, 1);
	}
	say_waited(l);
	return error;
}
