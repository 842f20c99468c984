/* SPDX-License-Identifier: MIT
 *
 * pub: the publisher handle.
 *
 * The control words are handled in ring.c, credit in credit.c; here they
 * are put together: bytes to the arena, a claim, header and payload, commit,
 * bell.  No code of the application runs between claim and commit.
 */
#include "arena.h"
#include "bus.h"
#include "clock.h"
#include "credit.h"
#include "futex.h"
#include "proc.h"
#include "recover.h"
#include "ring.h"
#include "wait.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define STUCK_REPORT_NS 100000000 /* a claim that stands so long is reported */
#define STUCK_AGAIN_NS 1000000000 /* ... and again: the supervisor may die */
#define STUCK_ERROR_NS 1000000000 /* ... and with stall = report, refused */
#define ATTEND_TURNS 4096u        /* turns of a spinning wait between such looks */
#define DEATH_LOOK_NS 1000000     /* look for proof of death that often */

#define PIECE_ABORTED 1u /* no control word: its state is none */

struct lane { /* one partition */
	struct ring_writer w;
	uint64_t committed;      /* a committed control word without its lap */
	struct lay_bell *bell;   /* looked at after a commit; `no_bell` where
				    nobody sleeps or others do the looking */
	struct lay_entry *entry; /* own */
	struct lay_bells *bells;
	struct shmq__credit credit;
};

static struct lay_bell no_bell; /* never armed, never written */

struct open_claim {
	void *data;
	size_t len;
	enum { CLAIM_NONE, CLAIM_STAGED, CLAIM_ARENA } kind;
};

struct shmq_pub {
	struct shmq__handle h; /* first: close() converts */
	const struct bus_guard *guard;
	enum shmq__fence fence;
	enum shmq_wake wake;
	enum shmq_wait wait;
	size_t plain_end; /* lengths below it are plain: inline, and the topic of
			     one lane, without stamps */
	int sleeps;       /* the topic lets someone sleep */
	int invalidates;  /* readers may be lapped: AHEAD before payload */
	int gates;
	int dont_wait;
	uint32_t stamps; /* SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME */
	int64_t block_ns, evict_ns;
	uint32_t turn; /* round-robin */
	uint64_t wakes, blocked;

	struct shmq__arena arena;
	lay_ref arena_ref;
	struct open_claim claim;
	char *staging;

	struct pending *pending; /* atomic batch */
	size_t pending_capacity;
	struct lane lane[];
};

/* A message on its way: what the slot will say. */
struct parcel {
	const struct shmq_msg *msg;
	const struct iovec *iov;
	int iov_count;
	size_t data_bytes;
	size_t bytes; /* META included */
	uint16_t flags;
	uint64_t ts, tag;
	struct lay_arena_ref where; /* ARENA */
	struct lay_batch batch;     /* BATCH */
};

struct pending {
	struct parcel parcel;
	struct iovec iov;
	uint64_t seq;
};

/* ---- waiting for credit ------------------------------------------------ */

static inline int has_ended(const struct lane *l)
{
	uint32_t state = load_relaxed(&l->w.mem->state);

	if (likely(state == LAY_RING_LIVE))
		return 0;
	if (state == LAY_RING_MOVED)
		return SHMQ_EMOVED;
	return SHMQ_EENDED;
}

static inline void look_at_bell(struct shmq_pub *pub, struct lane *l)
{
	if (unlikely(bell_look(l->bell, pub->fence)))
		pub->wakes++;
}

/* Whoever we are about to wait for may be asleep on what we committed.  A
 * publisher that waits may enter the kernel, so deferred ones ring too. */
static void wake_all_lanes(struct shmq_pub *pub)
{
	uint32_t p;

	for (p = 0; pub->sleeps && p < pub->h.topic->geo.partitions; p++)
		pub->wakes += (uint64_t)bell_look(&pub->lane[p].bells->data, pub->fence);
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

/* Raise the limit of l so that `need` (a limit) is reached.  1 yes, 0 not
 * yet, negative error. */
static int raise_limit(struct lane *l, uint64_t need)
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
 * SHMQ_ESTALLED once the policy says that others are told, else 0. */
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
		    load_acquire(&lay_slot_at(l->w.mem, &l->w.geo, seq)->ctrl) == word)
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

/* The claim that the subscriber which holds us back stands at, if it does. */
static int holder_stands_at(struct lane *l, uint64_t *seq, uint64_t *word)
{
	struct credit_gater *g = shmq__credit_holder(&l->credit);

	if (!g)
		return 0;
	*seq = load_relaxed(&g->entry->pos);
	*word = load_acquire(&lay_slot_at(l->w.mem, &l->w.geo, *seq)->ctrl);
	return LAY_CTRL_STATE(*word) == LAY_CLAIMED &&
	       LAY_CTRL_LAP(*word) == lay_lap(&l->w.geo, *seq);
}

static void go_to_sleep(struct lane *l, enum shmq__fence fence, uint64_t deadline, uint64_t need,
			int *ready)
{
	struct lay_bell *bell = &l->bells->credit;
	uint64_t seq, word, look;
	uint32_t e;

	look = shmq__clock_deadline(holder_stands_at(l, &seq, &word) ? STUCK_REPORT_NS :
								       STUCK_ERROR_NS);
	store_relaxed(&l->entry->asleep, 1);
	e = shmq__bell_arm(bell, fence);
	*ready = raise_limit(l, need);
	if (!*ready && load_relaxed(&l->w.mem->state) == LAY_RING_LIVE)
		shmq__bell_sleep(&bell, &e, 1, fence, deadline < look ? deadline : look);
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
	struct held held = { 0 };
	unsigned turns = 0;
	struct waiter w;
	int ready, error;

	shmq__waiter_start(&w, pub->wait, WAIT_SPIN_NS, timeout);
	while (!(ready = raise_limit(l, need))) {
		enum wait_step step = shmq__waiter_step(&w);

		error = has_ended(l);
		if (error)
			return error;
		if (step == WAIT_EXPIRED && evict) {
			struct credit_gater *g = shmq__credit_holder(&l->credit);

			if (g) {
				g->absent = 1;
				report_evicted(pub, g);
			}
			continue; /* at once for the next that lags */
		}
		if (step == WAIT_EXPIRED)
			return SHMQ_ETIMEOUT;
		if (step == WAIT_SLEEP)
			go_to_sleep(l, pub->fence, w.deadline, need, &ready);
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

/* Wait until seqs below `need` may be written. */
static int wait_for_credit(struct shmq_pub *pub, struct lane *l, uint64_t need)
{
	int ready = raise_limit(l, need), error;

	if (ready)
		return ready < 0 ? ready : 0;
	if (pub->dont_wait || l->w.geo.policy == SHMQ_DROP_NEW)
		return SHMQ_EFULL;
	wake_all_lanes(pub);
	pub->blocked++;
	store_relaxed(&l->entry->waits, load_relaxed(&l->entry->waits) + 1);
	say_waiting(l, need);
	error = stand_by(pub, l, need);
	say_waited(l);
	return error;
}

/* The slot we need still stands CLAIMED from a lap ago. */
static int wait_for_claim(struct shmq_pub *pub, struct lane *l, uint64_t seq, uint64_t word)
{
	uint64_t old = seq - l->w.geo.depth;
	struct lay_slot *slot = lay_slot_at(l->w.mem, &l->w.geo, old);
	struct held held = { 0 };
	struct waiter w;
	int error = 0;

	if (pub->dont_wait)
		return SHMQ_ESTALLED;
	say_waiting(l, seq + 1);
	shmq__waiter_start(&w, SHMQ_WAIT_YIELD, 0, pub->block_ns);
	while (!error && load_acquire(&slot->ctrl) == word) {
		error = has_ended(l);
		if (!error)
			error = attend(pub, l, &held, old, word);
		if (!error && shmq__waiter_step(&w) == WAIT_EXPIRED)
			error = SHMQ_ETIMEOUT;
		/* A held claim is rare and lasts: no bell is worth it. */
		if (!error && waiter_waited(&w) > DEATH_LOOK_NS)
			poll(NULL, 0, 1);
	}
	say_waited(l);
	return error;
}

/* ---- one slot ----------------------------------------------------------- */

/* Exclusive: credit for n more. */
static int have_credit(struct shmq_pub *pub, struct lane *l, uint64_t n)
{
	return seq_diff(l->w.limit, l->w.next + n) >= 0 ? 0 :
							  wait_for_credit(pub, l, l->w.next + n);
}

/* Exclusive, and the room is used up. */
static __attribute__((noinline)) int find_room(struct shmq_pub *pub, struct lane *l)
{
	int error = have_credit(pub, l, 1);

	if (!error)
		ring_make_room(&l->w, 1, pub->invalidates);
	return error;
}

/* Take the next slot of an exclusive or shared lane. */
static inline int acquire(struct shmq_pub *pub, struct lane *l, uint64_t *seq)
{
	uint64_t word = 0;
	int error;

	if (l->w.geo.mode == SHMQ_EXCLUSIVE) {
		if (unlikely(!ring_has_room(&l->w, 1))) {
			error = find_room(pub, l);
			if (error)
				return error;
		}
		ring_fetch_ahead(&l->w, l->w.next);
		*seq = l->w.next;
		return 0;
	}
	for (;;) {
		switch (shmq__ring_claim(&l->w, seq, &word)) {
		case RING_CLAIM_OK:
			return 0;
		case RING_CLAIM_NO_CREDIT:
			error = wait_for_credit(pub, l, l->w.next + 1);
			break;
		case RING_CLAIM_HELD:
			error = wait_for_claim(pub, l, l->w.next, word);
			break;
		default:
			error = SHMQ_ECORRUPT;
		}
		if (error)
			return error;
	}
}

/* R5, R6: the tail hint, and the lower bound of what may be claimed. */
static void move_hint(struct lane *l, uint64_t next)
{
	store_relaxed(&l->w.mem->tail_hint, next); /* R5 */
	store_release(&l->entry->pos, next);       /* R6 */
}

/* After the commit of seq: counters, and now and then the hint.  The count is
 * a release, for deferred wakes are made by it. */
static inline void account(struct lane *l, uint64_t seq, uint64_t bytes)
{
	struct lay_entry *e = l->entry;
	uint64_t count = load_relaxed(&e->count) + 1;

	if (l->w.geo.mode == SHMQ_EXCLUSIVE)
		l->w.next = seq + 1;
	store_release(&e->count, count);
	store_relaxed(&e->bytes, load_relaxed(&e->bytes) + bytes);
	if (unlikely(count % RING_HINT_EVERY == 0))
		move_hint(l, seq + 1);
}

/* Header, and what precedes the payload; returns where the payload goes. */
static inline char *write_header(const struct lane *l, uint32_t stamps, struct lay_slot *s,
				 const struct parcel *p, uint16_t type)
{
	char *at = (char *)s + l->w.geo.payload_off;

	s->len = (uint32_t)p->bytes;
	s->flags = p->flags;
	s->type = type;
	if (stamps) {
		struct lay_slot_extra *x = (struct lay_slot_extra *)(s + 1);

		x->tag = p->tag;
		x->ts = p->ts;
	}
	if (p->flags & SHMQ_MSG_BATCH) {
		memcpy(at, &p->batch, sizeof(p->batch));
		at += sizeof(p->batch);
	}
	return at;
}

/* META, then the message. */
static void write_payload(char *at, const struct parcel *p)
{
	int i;

	if (p->flags & SHMQ_MSG_META) {
		struct lay_meta meta = { (uint16_t)p->msg->key_len,
					 (uint16_t)p->msg->properties_len };

		memcpy(at, &meta, sizeof(meta));
		at += sizeof(meta);
		if (meta.key_bytes)
			memcpy(at, p->msg->key, meta.key_bytes);
		at += meta.key_bytes;
		if (meta.properties_bytes)
			memcpy(at, p->msg->properties, meta.properties_bytes);
		at += meta.properties_bytes;
	}
	for (i = 0; i < p->iov_count; i++) {
		if (p->iov[i].iov_len)
			memcpy(at, p->iov[i].iov_base, p->iov[i].iov_len);
		at += p->iov[i].iov_len;
	}
}

static void write_slot(struct shmq_pub *pub, struct lane *l, uint64_t seq, const struct parcel *p)
{
	struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, seq);
	char *at = write_header(l, pub->stamps, s, p, p->msg->type);

	if (p->flags & SHMQ_MSG_ARENA)
		memcpy(at, &p->where, sizeof(p->where));
	else
		write_payload(at, p);
}

/* ---- the arena ----------------------------------------------------------- */

/* Make room for `bytes` and take it. */
static int take_arena(struct shmq_pub *pub, size_t bytes, struct lay_arena_ref *where)
{
	struct shmq__arena *a = &pub->arena;
	struct arena_piece *piece;
	int error;

	if (!a->mem || bytes > a->bytes)
		return SHMQ_ETOOBIG;
	while ((piece = arena_in_the_way(a, bytes))) {
		struct lane *l = &pub->lane[piece->partition];

		if (!piece->word) /* our own, not committed yet */
			return pub->claim.kind == CLAIM_ARENA &&
					       pub->claim.data == a->mem + piece->off ?
				       SHMQ_ECLAIM :
				       SHMQ_EBATCH;
		if (piece->word == PIECE_ABORTED) {
			arena_drop(a);
			continue;
		}
		if (pub->gates && seq_diff(l->w.limit, piece->seq + l->w.geo.depth) <= 0) {
			error = wait_for_credit(pub, l, piece->seq + l->w.geo.depth + 1);
			if (error)
				return error;
		}
		shmq__ring_gone(&l->w, piece->seq, piece->word);
		arena_drop(a);
	}
	piece = arena_take(a, bytes);
	if (!piece)
		return -ENOMEM;
	*where = (struct lay_arena_ref){ .id = a->id, .gen = a->gen, .off = piece->off };
	return 0;
}

/* After a commit, when nobody waits for us: what a next message of that size
 * will have to touch is asked for now, and the credit for it. */
static void prepare_arena(struct shmq_pub *pub, size_t bytes)
{
	struct shmq__arena *a = &pub->arena;
	struct arena_piece *piece = arena_in_the_way(a, bytes);
	uint64_t need;
	struct lane *l;

	prefetch_write(a->mem + arena_place(a, bytes));
	if (!piece || !piece->word || piece->word == PIECE_ABORTED)
		return;
	l = &pub->lane[piece->partition];
	need = piece->seq + l->w.geo.depth + 1;
	prefetch_write(&lay_slot_at(l->w.mem, &l->w.geo, piece->seq)->ctrl);
	if (pub->gates && seq_diff(l->w.limit, need) < 0)
		raise_limit(l, need); /* if not, the claim waits */
}

/* The piece at `off`, one of those taken last. */
static struct arena_piece *find_piece(struct shmq_pub *pub, uint64_t off)
{
	struct shmq__arena *a = &pub->arena;
	unsigned i = a->count;

	while (i--) {
		struct arena_piece *piece = arena_at(a, i);

		if (piece->off == off)
			return piece;
	}
	return NULL;
}

/* The piece at `off` is now message seq of lane l. */
static void settle_arena(struct shmq_pub *pub, const struct lane *l, uint64_t seq, uint64_t off)
{
	struct arena_piece *piece = find_piece(pub, off);

	if (!piece)
		return;
	piece->seq = seq;
	piece->partition = (uint32_t)(l - pub->lane);
	piece->word = LAY_CTRL(lay_lap(&l->w.geo, seq), l->w.owner, LAY_COMMITTED);
}

/* ---- messages ------------------------------------------------------------ */

static uint64_t key_hash(const struct shmq_msg *m)
{
	return XXH3_64bits(m->key, m->key_len);
}

static int choose_lane(struct shmq_pub *pub, const struct shmq_msg *m, struct lane **out)
{
	uint32_t n = pub->h.topic->geo.partitions, p = 0;

	if (m->partition != SHMQ_ANY_PARTITION) {
		if (m->partition < 0 || (uint32_t)m->partition >= n)
			return SHMQ_EOPTION;
		p = (uint32_t)m->partition;
	} else if (m->key_len) {
		/* High bits choose, so that tags stay spread within a lane. */
		p = (uint32_t)(((unsigned __int128)key_hash(m) * n) >> 64);
	} else if (n > 1) {
		p = pub->turn++ % n;
	}
	*out = &pub->lane[p];
	return 0;
}

static int make_parcel(struct shmq_pub *pub, const struct shmq_msg *m, const struct iovec *iov,
		       int iov_count, uint16_t flags, struct parcel *p)
{
	size_t room = pub->h.topic->geo.inline_bytes;
	int i;

	*p = (struct parcel){ .msg = m, .iov = iov, .iov_count = iov_count, .flags = flags };
	for (i = 0; i < iov_count; i++)
		if (__builtin_add_overflow(p->data_bytes, iov[i].iov_len, &p->data_bytes))
			return SHMQ_ETOOBIG;
	p->bytes = p->data_bytes;
	if (m->key_len > UINT16_MAX || m->properties_len > UINT16_MAX)
		return SHMQ_EOPTION;
	if (m->key_len || m->properties_len) {
		p->flags |= SHMQ_MSG_META;
		p->bytes += sizeof(struct lay_meta) + m->key_len + m->properties_len;
	}
	if (p->bytes > pub->h.topic->geo.max_bytes || p->bytes < p->data_bytes)
		return SHMQ_ETOOBIG;
	if (flags & SHMQ_MSG_BATCH)
		room -= sizeof(struct lay_batch);
	if (p->bytes > room)
		p->flags |= SHMQ_MSG_ARENA;
	if (pub->stamps & SHMQ_TOPIC_TAG)
		p->tag = m->tag ? m->tag : m->key_len ? key_hash(m) : 0;
	if (pub->stamps & SHMQ_TOPIC_TIME)
		p->ts = m->ts_ns ? m->ts_ns : shmq__clock_realtime_ns();
	return 0;
}

/* Bytes to the arena, if that is where they go; nothing is held meanwhile. */
static int stow(struct shmq_pub *pub, struct parcel *p)
{
	int error;

	if (!(p->flags & SHMQ_MSG_ARENA))
		return 0;
	error = take_arena(pub, p->bytes, &p->where);
	if (!error)
		write_payload(pub->arena.mem + p->where.off, p);
	return error;
}

static void note_refused(struct shmq_pub *pub, struct lane *l, int error)
{
	(void)pub;
	if (error == SHMQ_EFULL || error == SHMQ_ETIMEOUT)
		store_relaxed(&l->entry->lost, load_relaxed(&l->entry->lost) + 1);
}

/* Claim, write, commit.  The bell is the caller's. */
static int send_parcel(struct shmq_pub *pub, struct lane *l, const struct parcel *p, uint64_t *seq)
{
	int error = acquire(pub, l, seq);

	if (error)
		return error;
	write_slot(pub, l, *seq, p);
	ring_commit(&l->w, lay_slot_at(l->w.mem, &l->w.geo, *seq), *seq);
	if (p->flags & SHMQ_MSG_ARENA)
		settle_arena(pub, l, *seq, p->where.off);
	account(l, *seq, p->data_bytes);
	return 0;
}

enum bell_mode { BELL_NOW, BELL_LATER };

static int send_message(struct shmq_pub *pub, struct shmq_msg *m, const struct iovec *iov, int n,
			enum bell_mode bell, struct lane **used)
{
	struct parcel p;
	struct lane *l;
	int error = choose_lane(pub, m, &l);

	if (!error)
		error = make_parcel(pub, m, iov, n, 0, &p);
	if (error)
		return error;
	error = stow(pub, &p);
	if (!error) {
		error = send_parcel(pub, l, &p, &m->seq);
		if (error && (p.flags & SHMQ_MSG_ARENA))
			shmq__arena_give_back(&pub->arena);
	}
	if (error) {
		note_refused(pub, l, error);
		return error;
	}
	m->partition = (int32_t)(l - pub->lane);
	m->ts_ns = p.ts;
	*used = l;
	if (bell == BELL_NOW)
		look_at_bell(pub, l);
	if (p.flags & SHMQ_MSG_ARENA)
		prepare_arena(pub, p.bytes);
	return bell == BELL_NOW ? has_ended(l) : 0;
}

static int check_pub(const struct shmq_pub *pub)
{
	return likely(load_relaxed(&((struct bus_guard *)(uintptr_t)pub->guard)->alive)) ?
		       0 :
		       SHMQ_EFORKED;
}

/* Copy up to a few lines without a call. */
static inline void copy_short(char *to, const char *from, size_t n)
{
	size_t i;

	if (n >= 16) {
		for (i = 0; i + 16 <= n; i += 16)
			memcpy(to + i, from + i, 16);
		memcpy(to + n - 16, from + n - 16, 16);
	} else if (n >= 8) {
		memcpy(to, from, 8);
		memcpy(to + n - 8, from + n - 8, 8);
	} else {
		for (i = 0; i < n; i++)
			to[i] = from[i];
	}
}

/* Payloads up to here are copied without a call. */
#define COPY_SHORT_BYTES 256u

/* Payload of a slot without stamps.  The first line, which readers poll, is
 * written last and in one go: then it travels once. */
static inline void put_inline(struct lay_slot *s, const char *data, size_t len,
			      void (*copy)(char *to, const char *from, size_t n))
{
	char *at = (char *)(s + 1);
	size_t near = LAY_LINE - sizeof(*s);

	if (len > near) {
		copy(at + near, data + near, len - near);
		fence_light();
		memcpy(at, data, near);
	} else {
		copy_short(at, data, len);
	}
}

static inline void copy_long(char *to, const char *from, size_t n)
{
	memcpy(to, from, n);
}

/* After a commit where anything is out of the ordinary. */
static __attribute__((noinline)) int after_commit(struct shmq_pub *pub, struct lane *l)
{
	look_at_bell(pub, l);
	return has_ended(l);
}

/* The slot of a plain message, at once: 1, or 0 if it takes more than that. */
static inline int take_next(struct lane *l)
{
	return likely(l->w.geo.mode == SHMQ_EXCLUSIVE) ? ring_has_room(&l->w, 1) :
							 ring_claim_next(&l->w);
}

/* Header, commit, bell: slot seq of the only lane has its payload. */
static inline __attribute__((always_inline)) int finish_plain(struct shmq_pub *pub, struct lane *l,
							      struct lay_slot *s, uint64_t seq,
							      size_t len, uint16_t flags)
{
	s->len = (uint32_t)len;
	s->flags = flags;
	s->type = 0;
	store_release(&s->ctrl,
		      LAY_CTRL(seq >> l->w.geo.depth_shift, 0, 0) | l->committed); /* R1 */
	account(l, seq, len);
	fence_light(); /* W2 */
	if (unlikely(load_relaxed(&l->bell->armed) != load_relaxed(&l->bell->served) ||
		     load_relaxed(&l->w.mem->state) != LAY_RING_LIVE ||
		     pub->fence == SHMQ__FENCE_FULL))
		return after_commit(pub, l);
	return 0;
}

static inline __attribute__((always_inline)) int publish_plain(
	struct shmq_pub *pub, struct lane *l, uint64_t seq, const void *data, size_t len,
	void (*copy)(char *to, const char *from, size_t n))
{
	struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, seq);

	ring_fetch_ahead(&l->w, seq);
	put_inline(s, data, len, copy);
	return finish_plain(pub, l, s, seq, len, 0);
}

/* Everything but what shmq_publish() does itself. */
static __attribute__((noinline)) int publish_long(struct shmq_pub *pub, const void *data,
						  size_t len)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct shmq_msg m = { .partition = SHMQ_ANY_PARTITION };
	struct lane *l = &pub->lane[0];
	uint64_t seq = l->w.next;

	if (len < pub->plain_end && take_next(l))
		return publish_plain(pub, l, seq, data, len, copy_long);
	return send_message(pub, &m, &iov, 1, BELL_NOW, &l);
}

/* The short way keeps nothing across a call, so that what stands between a
 * message received and its answer's commit is a few dozen instructions. */
SHMQ_EXPORT int shmq_publish(shmq_pub *pub, const void *data, size_t len)
{
	struct lane *l = &pub->lane[0];
	uint64_t seq = l->w.next;

	if (unlikely(check_pub(pub)))
		return SHMQ_EFORKED;
	if (unlikely(len > COPY_SHORT_BYTES || len >= pub->plain_end || !take_next(l)))
		return publish_long(pub, data, len);
	return publish_plain(pub, l, seq, data, len, copy_short);
}

SHMQ_EXPORT int shmq_publish_msg(shmq_pub *pub, struct shmq_msg *msg)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg->data, .iov_len = msg->len };
	struct lane *l;
	int error = check_pub(pub);

	return error ? error : send_message(pub, msg, &iov, 1, BELL_NOW, &l);
}

SHMQ_EXPORT int shmq_publish_iov(shmq_pub *pub, struct shmq_msg *msg, const struct iovec *iov,
				 int iov_count)
{
	struct lane *l;
	int error = check_pub(pub);

	if (error)
		return error;
	if (iov_count < 0)
		return SHMQ_EOPTION;
	return send_message(pub, msg, iov, iov_count, BELL_NOW, &l);
}

/* ---- batches -------------------------------------------------------------- */

static int grow_pending(struct shmq_pub *pub, size_t n)
{
	struct pending *more;

	if (n <= pub->pending_capacity)
		return 0;
	more = realloc(pub->pending, n * sizeof(*more));
	if (!more)
		return -ENOMEM;
	pub->pending = more;
	pub->pending_capacity = n;
	return 0;
}

/* Give back n claims, last to first. */
static void void_pending(struct shmq_pub *pub, struct lane *l, size_t n)
{
	while (n--) {
		uint64_t seq = pub->pending[n].seq;

		shmq__ring_void(l->w.mem, &l->w.geo, seq,
				LAY_CTRL(lay_lap(&l->w.geo, seq), l->w.owner, LAY_CLAIMED));
	}
	look_at_bell(pub, l);
}

/* Claim n slots, or none: whoever would have to wait while it holds claims
 * voids them first, so that two batches never wait for each other. */
static int claim_batch(struct shmq_pub *pub, struct lane *l, size_t n)
{
	uint64_t word = 0;
	size_t i = 0;
	int error;

	if (l->w.geo.mode == SHMQ_EXCLUSIVE) {
		error = have_credit(pub, l, n);
		if (error)
			return error;
		/* R6: recovery looks for the rest of a batch up to here. */
		store_release(&l->entry->batch_end, l->w.next + n);
		fence_release();
		ring_make_room(&l->w, n, pub->invalidates);
		for (i = 0; i < n; i++)
			pub->pending[i].seq = l->w.next + i;
		return 0;
	}
	while (i < n) {
		enum ring_claim rc;

		if (i == 0 && pub->gates && seq_diff(l->w.limit, l->w.next + n) < 0) {
			error = wait_for_credit(pub, l, l->w.next + n);
			if (error)
				return error;
		}
		rc = shmq__ring_claim(&l->w, &pub->pending[i].seq, &word);
		if (rc == RING_CLAIM_OK) {
			i++;
			continue;
		}
		void_pending(pub, l, i);
		i = 0;
		if (rc == RING_CLAIM_NO_CREDIT)
			error = wait_for_credit(pub, l, l->w.next + n);
		else if (rc == RING_CLAIM_HELD)
			error = wait_for_claim(pub, l, l->w.next, word);
		else
			error = SHMQ_ECORRUPT;
		if (error)
			return error;
	}
	return 0;
}

static int publish_atomic(struct shmq_pub *pub, struct shmq_msg *msgs, size_t n)
{
	uint64_t now = pub->stamps & SHMQ_TOPIC_TIME ? shmq__clock_realtime_ns() : 0;
	size_t i, stowed = 0;
	struct lane *l;
	int error = choose_lane(pub, &msgs[0], &l);

	if (error)
		return error;
	if (n > pub->h.topic->geo.depth / 4)
		return SHMQ_EBATCH;
	error = grow_pending(pub, n);
	if (error)
		return error;
	for (i = 0; i < n; i++) {
		struct pending *q = &pub->pending[i];
		struct shmq_msg *m = &msgs[i];

		if (now && !m->ts_ns)
			m->ts_ns = now;
		q->iov =
			(struct iovec){ .iov_base = (void *)(uintptr_t)m->data, .iov_len = m->len };
		error = make_parcel(pub, m, &q->iov, 1, SHMQ_MSG_BATCH, &q->parcel);
		if (!error)
			error = stow(pub, &q->parcel);
		if (error)
			goto out;
		stowed += !!(q->parcel.flags & SHMQ_MSG_ARENA);
	}
	error = claim_batch(pub, l, n);
	if (error)
		goto out;
	for (i = 0; i < n; i++) {
		struct pending *q = &pub->pending[i];

		q->parcel.batch = (struct lay_batch){ .first_seq = pub->pending[0].seq,
						      .index = (uint32_t)i,
						      .count = (uint32_t)n };
		write_slot(pub, l, q->seq, &q->parcel);
	}
	for (i = n; i-- > 0;) { /* last to first: at the first, all are there */
		struct pending *q = &pub->pending[i];

		ring_commit(&l->w, lay_slot_at(l->w.mem, &l->w.geo, q->seq), q->seq);
		if (q->parcel.flags & SHMQ_MSG_ARENA)
			settle_arena(pub, l, q->seq, q->parcel.where.off);
	}
	for (i = 0; i < n; i++) {
		msgs[i].seq = pub->pending[i].seq;
		msgs[i].partition = (int32_t)(l - pub->lane);
		account(l, msgs[i].seq, pub->pending[i].parcel.data_bytes);
	}
	look_at_bell(pub, l);
	return has_ended(l);
out:
	while (stowed--)
		shmq__arena_give_back(&pub->arena);
	note_refused(pub, l, error);
	return error;
}

SHMQ_EXPORT ssize_t shmq_publish_batch(shmq_pub *pub, struct shmq_msg *msgs, size_t n,
				       unsigned flags)
{
	uint64_t now;
	struct lane *l = NULL;
	size_t i;
	int error = check_pub(pub);

	if (error)
		return error;
	if (flags & ~SHMQ_ATOMIC)
		return SHMQ_EOPTION;
	if (!n)
		return 0;
	if (flags & SHMQ_ATOMIC) {
		error = publish_atomic(pub, msgs, n);
		return error ? error : (ssize_t)n;
	}
	now = pub->stamps & SHMQ_TOPIC_TIME ? shmq__clock_realtime_ns() : 0;
	for (i = 0; i < n; i++) {
		struct iovec iov = { .iov_base = (void *)(uintptr_t)msgs[i].data,
				     .iov_len = msgs[i].len };
		struct lane *used;

		if (now && !msgs[i].ts_ns)
			msgs[i].ts_ns = now;
		error = send_message(pub, &msgs[i], &iov, 1, BELL_LATER, &used);
		if (error)
			break;
		if (l && l != used)
			look_at_bell(pub, l);
		l = used;
	}
	if (!l)
		return error;
	look_at_bell(pub, l);
	error = has_ended(l);
	return error ? error : (ssize_t)i;
}

/* ---- zero-copy -------------------------------------------------------------- */

SHMQ_EXPORT int shmq_claim(shmq_pub *pub, size_t len, void **data)
{
	struct lay_arena_ref where;
	int error = check_pub(pub);

	if (error)
		return error;
	if (pub->claim.kind != CLAIM_NONE)
		return SHMQ_ECLAIM;
	if (len > pub->h.topic->geo.max_bytes)
		return SHMQ_ETOOBIG;
	if (len <= pub->h.topic->geo.inline_bytes) {
		pub->claim = (struct open_claim){ .data = pub->staging,
						  .len = len,
						  .kind = CLAIM_STAGED };
	} else {
		error = take_arena(pub, len, &where);
		if (error) {
			note_refused(pub, &pub->lane[0], error);
			return error;
		}
		pub->claim = (struct open_claim){ .data = pub->arena.mem + where.off,
						  .len = len,
						  .kind = CLAIM_ARENA };
	}
	*data = pub->claim.data;
	return 0;
}

/* All that was claimed, as a plain message in slot seq of the only lane. */
static int commit_plain(struct shmq_pub *pub, uint64_t seq)
{
	struct lane *l = &pub->lane[0];
	struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, seq);
	size_t len = pub->claim.len;
	struct lay_arena_ref where;
	int rc;

	if (pub->claim.kind == CLAIM_STAGED) {
		pub->claim.kind = CLAIM_NONE;
		return publish_plain(pub, l, seq, pub->staging, len, copy_long);
	}
	where = (struct lay_arena_ref){ .id = pub->arena.id,
					.gen = pub->arena.gen,
					.off = (uint64_t)((char *)pub->claim.data -
							  pub->arena.mem) };
	ring_fetch_ahead(&l->w, seq);
	memcpy(s + 1, &where, sizeof(where));
	rc = finish_plain(pub, l, s, seq, len, SHMQ_MSG_ARENA);
	settle_arena(pub, l, seq, where.off);
	prepare_arena(pub, len);
	pub->claim.kind = CLAIM_NONE;
	return rc;
}

SHMQ_EXPORT int shmq_commit(shmq_pub *pub, struct shmq_msg *msg)
{
	struct shmq_msg plain = { .partition = SHMQ_ANY_PARTITION };
	struct iovec iov;
	struct parcel p;
	struct lane *l = &pub->lane[0];
	uint64_t seq = l->w.next;
	int error = check_pub(pub);

	if (error)
		return error;
	if (pub->claim.kind == CLAIM_NONE)
		return SHMQ_ECLAIM;
	if (!msg && pub->plain_end && take_next(l))
		return commit_plain(pub, seq);
	if (!msg)
		msg = &plain;
	if (msg->key_len || msg->properties_len)
		return SHMQ_EOPTION;
	if (msg->len > pub->claim.len)
		return SHMQ_ETOOBIG;
	iov.iov_base = pub->claim.data;
	iov.iov_len = msg->len ? msg->len : pub->claim.len;
	error = choose_lane(pub, msg, &l);
	if (!error)
		error = make_parcel(pub, msg, &iov, 1, 0, &p);
	if (error)
		return error;
	if (pub->claim.kind == CLAIM_ARENA) {
		p.flags |= SHMQ_MSG_ARENA; /* also when it was shortened */
		p.where = (struct lay_arena_ref){ .id = pub->arena.id,
						  .gen = pub->arena.gen,
						  .off = (uint64_t)((char *)pub->claim.data -
								    pub->arena.mem) };
	}
	error = send_parcel(pub, l, &p, &msg->seq);
	if (error) {
		note_refused(pub, l, error);
		return error; /* the claim stays open */
	}
	msg->partition = (int32_t)(l - pub->lane);
	msg->ts_ns = p.ts;
	look_at_bell(pub, l);
	if (pub->claim.kind == CLAIM_ARENA)
		prepare_arena(pub, pub->claim.len);
	pub->claim.kind = CLAIM_NONE;
	return has_ended(l);
}

SHMQ_EXPORT int shmq_abort(shmq_pub *pub)
{
	int error = check_pub(pub);

	if (error)
		return error;
	if (pub->claim.kind == CLAIM_NONE)
		return SHMQ_ECLAIM;
	if (pub->claim.kind == CLAIM_ARENA) {
		struct arena_piece *piece =
			find_piece(pub, (uint64_t)((char *)pub->claim.data - pub->arena.mem));

		if (piece && piece == shmq__arena_last(&pub->arena))
			shmq__arena_give_back(&pub->arena);
		else if (piece) /* messages were published behind it */
			piece->word = PIECE_ABORTED;
	}
	pub->claim.kind = CLAIM_NONE;
	return 0;
}

/* ---- flush and company -------------------------------------------------------- */

/* Limit that proves everything below w.next was read: limit - depth is the
 * lowest cursor of the last scan. */
static int wait_consumed(struct shmq_pub *pub, struct lane *l, uint64_t deadline)
{
	int64_t left = shmq__clock_left(deadline), keep_block = pub->block_ns;
	int keep = pub->dont_wait, error;
	uint64_t need;

	if (!load_relaxed(&l->entry->count))
		return 0;
	/* What we sent lies before where we look next. */
	need = l->w.next + l->w.geo.depth;
	if (!shmq__credit_gaters(&l->credit))
		return 0;
	pub->block_ns = left;
	pub->dont_wait = left == 0;
	/* A drop-new publisher waits here too: it asked to. */
	l->w.geo.policy = SHMQ_BLOCK;
	error = wait_for_credit(pub, l, need);
	l->w.geo.policy = pub->h.topic->geo.policy;
	pub->block_ns = keep_block;
	pub->dont_wait = keep;
	return error == SHMQ_EFULL ? SHMQ_ETIMEOUT : error;
}

SHMQ_EXPORT int shmq_flush(shmq_pub *pub, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	uint32_t p;
	int error = check_pub(pub);

	if (error) /* a forked child has no bells */
		return error;
	wake_all_lanes(pub);
	for (p = 0; !error && pub->gates && p < pub->h.topic->geo.partitions; p++)
		error = wait_consumed(pub, &pub->lane[p], deadline);
	return error;
}

SHMQ_EXPORT int shmq_pub_wait_subscribers(shmq_pub *pub, unsigned count, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	struct lay_topic *rec = pub->h.topic->rec;
	int error = check_pub(pub);

	while (!error) {
		uint32_t epoch = load_acquire(&rec->epoch);

		if (load_acquire(&rec->subscribers) >= count)
			return 0;
		if (shmq__topic_has_ended(pub->h.topic))
			return SHMQ_EENDED;
		if (shmq__clock_left(deadline) == 0)
			return SHMQ_ETIMEOUT;
		shmq__futex_wait(&rec->epoch, epoch, deadline);
		error = check_pub(pub);
	}
	return error;
}

SHMQ_EXPORT void shmq_pub_get_stats(const shmq_pub *pub, struct shmq_pub_stats *out)
{
	uint32_t p;

	*out = (struct shmq_pub_stats){ .blocked = pub->blocked, .wakes = pub->wakes };
	if (check_pub(pub))
		return;
	for (p = 0; p < pub->h.topic->geo.partitions; p++) {
		struct lay_entry *e = pub->lane[p].entry;

		out->sent += load_relaxed(&e->count);
		out->sent_bytes += load_relaxed(&e->bytes);
		out->dropped += load_relaxed(&e->lost);
	}
}

/* ---- open and close ------------------------------------------------------------- */

/* What an earlier publisher left in the arena that is ours now. */
static int adopt_arena(struct shmq_pub *pub, uint32_t p)
{
	struct lane *l = &pub->lane[p];
	uint64_t head = l->w.mem->base_seq, n;
	struct arena_piece piece;
	int error;

	head = shmq__topic_head(&pub->h.topic->ring[p]);
	n = seq_diff(head, l->w.mem->base_seq) > (int64_t)l->w.geo.depth ? head - l->w.geo.depth :
									   l->w.mem->base_seq;
	for (; seq_diff(n, head) < 0; n++) {
		struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, n);
		uint64_t word = load_acquire(&s->ctrl);
		struct lay_arena_ref where;
		char *at = (char *)s + l->w.geo.payload_off;

		if (LAY_CTRL_SANS_OWNER(word) !=
			    LAY_CTRL(lay_lap(&l->w.geo, n), 0, LAY_COMMITTED) ||
		    !(s->flags & SHMQ_MSG_ARENA))
			continue;
		memcpy(&where, at + (s->flags & SHMQ_MSG_BATCH ? sizeof(struct lay_batch) : 0),
		       sizeof(where));
		if (where.id != pub->arena.id || where.gen != pub->arena.gen)
			continue;
		piece = (struct arena_piece){
			.off = where.off, .bytes = s->len, .seq = n, .word = word, .partition = p
		};
		error = shmq__arena_adopt(&pub->arena, &piece);
		if (error)
			return error;
	}
	return 0;
}

static int open_arena(struct shmq_pub *pub, struct shmq__why *why)
{
	struct lay_arena *rec;
	uint64_t bytes;
	void *mem;
	uint32_t p;
	int error;

	if (!pub->h.arena)
		return 0;
	rec = shmq__slabs_arena(pub->h.bus->slabs, pub->h.arena - 1);
	if (!rec)
		return SHMQ_ECORRUPT;
	pub->arena_ref = rec->mem;
	bytes = rec->bytes;
	error = shmq__slabs_map(pub->h.bus->slabs, pub->arena_ref, bytes, SHMQ__SLAB_WRITE, &mem);
	if (error)
		return shmq__fail(why, error, "mapping the arena of \"%s\": %s",
				  pub->h.topic->rec->name, shmq_strerror(error));
	shmq__arena_init(&pub->arena, mem, bytes, pub->h.arena - 1,
			 (uint32_t)load_relaxed(&rec->gen));
	for (p = 0; p < pub->h.topic->geo.partitions; p++) {
		error = adopt_arena(pub, p);
		if (error)
			return error;
	}
	shmq__arena_adopt_done(&pub->arena);
	return 0;
}

static void open_lane(struct shmq_pub *pub, uint32_t p)
{
	struct lane *l = &pub->lane[p];
	struct shmq__ring *r = &pub->h.topic->ring[p];

	l->w.mem = r->mem;
	l->w.geo = r->geo;
	l->w.owner = pub->h.bus->client;
	l->committed = LAY_CTRL(0, l->w.owner, LAY_COMMITTED);
	l->bells = r->bells;
	l->bell = pub->sleeps && pub->wake == SHMQ_WAKE_DIRECT ? &l->bells->data : &no_bell;
	l->entry = &pub->h.entry[p];
	shmq__ring_takeover(&l->w);
	/* Without gating there is no limit but the end of time. */
	l->w.limit = pub->gates ? l->w.next : l->w.next + (UINT64_C(1) << 62);
	l->w.room = l->w.next;
	shmq__credit_init(&l->credit, pub->h.topic, p, l->entry);
	store_release(&l->entry->pos, l->w.next); /* R6 */
}

static void close_pub(struct shmq__handle *h)
{
	struct shmq_pub *pub = (struct shmq_pub *)h;
	uint32_t p;

	if (!check_pub(pub)) {
		shmq__bus_undefer(h->bus, h);
		for (p = 0; p < h->topic->geo.partitions; p++) {
			if (pub->sleeps && pub->wake == SHMQ_WAKE_DEFERRED)
				bell_look(&pub->lane[p].bells->data, pub->fence);
			store_relaxed(&pub->lane[p].w.mem->tail_hint, pub->lane[p].w.next);
			shmq__credit_fini(&pub->lane[p].credit);
		}
		shmq__slabs_unmap(h->bus->slabs, pub->arena_ref, pub->arena.bytes, pub->arena.mem);
		shmq__bus_close_handle(h);
	}
	shmq__arena_fini(&pub->arena);
	free(pub->pending);
	free(pub->staging);
	free(pub);
}

static int check_options(const struct shmq_pub_options *o, struct shmq__why *why)
{
	if (o->wake < 0 || o->wake > SHMQ_WAKE_DEFERRED || o->wait > SHMQ_WAIT_SLEEP ||
	    (o->flags & ~SHMQ_DONTWAIT) || o->block_timeout_ns < -1 || o->wake_ns < 0)
		return shmq__fail(why, SHMQ_EOPTION, "publisher options: a value is out of range");
	return 0;
}

SHMQ_EXPORT int shmq_pub_open(shmq_bus *bus, const char *topic,
			      const struct shmq_pub_options *options, shmq_pub **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct proto_request req;
	struct shmq_pub_options o;
	struct shmq__handle h = { .close = close_pub };
	struct lay_topic *rec;
	struct shmq_pub *pub;
	uint32_t p;
	int error;

	*out = NULL;
	error = bus_check(bus);
	if (!error)
		error = shmq__options_copy(&o, options, sizeof(o), why);
	if (!error)
		error = check_options(&o, why);
	if (!error)
		error = shmq__name_check_topic(topic, SHMQ__NAME_BUS, why);
	if (error)
		return error;
	shmq__bus_prepare(bus, &req, PROTO_OPEN, topic);
	req.open.role = SHMQ_ROLE_PUBLISHER;
	req.open.partition = -1;
	req.open.arena_bytes = o.arena_bytes;
	/* Room for the lanes is known once the topic is: open on a copy, then
	 * move it, which is allowed as only the list of handles points to it. */
	error = shmq__bus_open_handle(bus, &req, &h, SHMQ__SLAB_WRITE, why);
	if (error)
		return error;
	rec = h.topic->rec;
	pub = calloc(1, sizeof(*pub) + h.topic->geo.partitions * sizeof(pub->lane[0]));
	if (!pub) {
		shmq__bus_close_handle(&h);
		return -ENOMEM;
	}
	pub->h = h;
	shmq__bus_move_handle(&pub->h, &h);
	pub->guard = bus->guard;
	pub->fence = shmq__bus_ready(bus, h.topic->geo.flags);
	pub->sleeps = !(h.topic->geo.flags & SHMQ_TOPIC_SPIN_ONLY);
	pub->gates = shmq__topic_gates(&h.topic->geo);
	pub->invalidates = h.topic->geo.policy == SHMQ_LOSSY || h.topic->geo.policy == SHMQ_EVICT;
	pub->stamps = h.topic->geo.flags & (SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	pub->wake = o.wake ? o.wake : SHMQ_WAKE_DIRECT;
	pub->wait = o.wait ? o.wait : h.topic->geo.wait;
	if (!pub->sleeps && (pub->wait == SHMQ_WAIT_ADAPTIVE || pub->wait == SHMQ_WAIT_SLEEP))
		pub->wait = SHMQ_WAIT_SPIN;
	pub->dont_wait = !!(o.flags & SHMQ_DONTWAIT);
	if (!pub->stamps && h.topic->geo.partitions == 1)
		pub->plain_end = (h.topic->geo.max_bytes < h.topic->geo.inline_bytes ?
					  h.topic->geo.max_bytes :
					  h.topic->geo.inline_bytes) +
				 1;
	pub->block_ns = o.block_timeout_ns ? o.block_timeout_ns : rec->block_timeout_ns;
	pub->evict_ns = rec->evict_ns;
	for (p = 0; p < h.topic->geo.partitions; p++)
		open_lane(pub, p);
	pub->staging = malloc(h.topic->geo.inline_bytes);
	error = pub->staging ? open_arena(pub, why) : -ENOMEM;
	if (error) {
		close_pub(&pub->h);
		return error;
	}
	if (pub->wake == SHMQ_WAKE_DEFERRED && pub->sleeps)
		shmq__bus_defer(bus, &pub->h, o.wake_ns ? o.wake_ns : 50000);
	*out = pub;
	return 0;
}

SHMQ_EXPORT void shmq_pub_close(shmq_pub *pub)
{
	if (pub)
		close_pub(&pub->h);
}
