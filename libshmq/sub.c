/* SPDX-License-Identifier: MIT
 *
 * sub: the subscriber handle.
 *
 * Where readers gate, what is at the cursor stays until the cursor moves,
 * and is read in place.  Where they do not, every byte may change while it
 * is looked at: header first, then payload, then the control word again
 * (A2 of ring.h), and nothing read before that is trusted.
 */
#include "sub.h"
#include "arena.h"
#include "park.h"
#include "ring.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STUCK_PASS_NS 1000000000
#define STUCK_AGAIN_NS 1000000000 /* a report may be lost with the supervisor */
#define QUICK_LOOKS 64u           /* before the clock is read */
#define LONG_RUN 64u              /* so many messages were there when asked for */
#define FAR_LOOK 32u              /* then see whether so many more are, */
#define LET_PASS 40u              /* and if not, pause so often */

struct rlane { /* one partition */
	struct ring_reader r;
	struct shmq__ring *ring;
	struct lay_entry *entry;
	struct lay_bells *bells;
	uint32_t partition;
	uint64_t start;       /* where it joined */
	uint64_t stuck_seq;   /* a CLAIMED slot we stand at */
	uint64_t stuck_since; /* monotonic, 0 none */
	uint64_t stuck_told;  /* when the supervisor was told last */
	struct kept *kept;    /* rests of batches, copied (lossy) */
};

/* Messages of an atomic batch, copied so that all or none are delivered
 * although the ring may be overrun meanwhile.  They are handed out when the
 * cursor comes to their seqs.  Batches of several publishers may interleave. */
struct kept {
	struct kept *other;
	uint32_t next, count, capacity;
	struct kept_msg {
		struct shmq_msg msg;
		char *bytes;
	} member[];
};

struct arena_map {
	uint32_t gen;
	uint64_t bytes;
	lay_ref ref;
	char *mem; /* NULL: not mapped */
};

struct shmq_sub {
	struct shmq__handle h; /* first: close() converts */
	const struct bus_guard *guard;
	enum shmq__fence fence;
	enum shmq_wait wait;
	int64_t spin_ns;
	int gates;  /* nobody writes over what is at the cursor */
	int evicts; /* being lapped is the end */
	int evicted;
	int is_plain;        /* one lane that was not evicted: see take_plain() */
	int stands_at_claim; /* a look since the last report found one open */
	unsigned flags;
	int saw_publisher;
	uint32_t turn, lanes;

	struct rlane *view; /* lane of the message handed out, NULL none */
	uint64_t view_word; /* its control word; 0: a copy */
	int view_torn;      /* said so once: it is counted lost */

	struct arena_map *arena;
	uint32_t arena_count;

	unsigned run;   /* messages that were there at the first look, on end */
	uint64_t ahead; /* seqs before it are there */
	uint64_t look_further_at;
	unsigned quick_looks; /* at the next word before any other waiting */

	int held_error; /* found by shmq_poll() after messages: said next */
	struct shmq_msg held_msg;
	char *copy; /* shmq_poll() on topics that may be lapped */
	size_t copy_bytes;

	struct shmq__park *park;
	struct lay_bell **bell;
	struct shmq_waitset *set;
	struct rlane lane[];
};

static int check_sub(const struct shmq_sub *sub)
{
	return likely(load_relaxed(&((struct bus_guard *)(uintptr_t)sub->guard)->alive)) ?
		       0 :
		       SHMQ_EFORKED;
}

static void add(shmq_au64 *counter, uint64_t n)
{
	store_relaxed(counter, load_relaxed(counter) + n);
}

/* ---- moving the cursor --------------------------------------------------- */

static inline void move_to(struct shmq_sub *sub, struct rlane *l, uint64_t seq)
{
	l->r.next = seq;
	store_release(&l->entry->pos, seq); /* R3 */
	if (sub->gates || sub->evicts)
		bell_look(&l->bells->credit, sub->fence);
}

static void free_kept(struct kept *k)
{
	uint32_t i;

	for (i = 0; i < k->count; i++)
		free(k->member[i].bytes);
	free(k);
}

static void free_all_kept(struct rlane *l)
{
	struct kept *k;

	while ((k = l->kept)) {
		l->kept = k->other;
		free_kept(k);
	}
}

static void drop_read_batches(struct rlane *l)
{
	struct kept **at = &l->kept, *k;

	while ((k = *at)) {
		if (k->next < k->count) {
			at = &k->other;
			continue;
		}
		*at = k->other;
		free_kept(k);
	}
}

/* The copied batch whose next member is seq, or NULL. */
static struct kept *find_kept(const struct rlane *l, uint64_t seq)
{
	struct kept *k;

	for (k = l->kept; k; k = k->other)
		if (k->next < k->count && k->member[k->next].msg.seq == seq)
			return k;
	return NULL;
}

/* Give back the message handed out. */
static inline void finish_view(struct shmq_sub *sub)
{
	struct rlane *l = sub->view;

	if (!l)
		return;
	sub->view = NULL;
	if (unlikely(l->kept))
		drop_read_batches(l);
	move_to(sub, l, l->r.next + 1);
}

/* ---- loss ------------------------------------------------------------------ */

static uint64_t count_lost(struct shmq_sub *sub, struct rlane *l, uint64_t n, struct shmq_msg *msg)
{
	(void)sub;
	add(&l->entry->lost, n);
	msg->lost = n;
	msg->lost_is_bound = 0;
	msg->partition = (int32_t)l->partition;
	msg->seq = l->r.next;
	return n;
}

/* Overrun: find where to go on, with room to breathe but never past a
 * claim whose outcome is open, and count exactly what was missed. */
static uint64_t jump(struct rlane *l, uint32_t *is_bound)
{
	uint64_t from = l->r.next, depth = l->r.geo.depth;
	uint64_t target = shmq__topic_oldest(l->ring, from + 1);
	uint64_t head = shmq__topic_head(l->ring), room = head - depth + depth / 8, lost;
	struct kept *k;

	for (; seq_diff(target, room) < 0; target++) {
		uint64_t w = load_acquire(&lay_slot_at(l->r.mem, &l->r.geo, target)->ctrl);

		if (LAY_CTRL_LAP(w) == lay_lap(&l->r.geo, target) &&
		    LAY_CTRL_STATE(w) == LAY_CLAIMED)
			break;
	}
	for (k = l->kept; k; k = k->other) /* what we copied is not lost */
		if (k->next < k->count && seq_diff(k->member[k->next].msg.seq, target) < 0)
			target = k->member[k->next].msg.seq;
	lost = target - from - shmq__ring_voids_between(l->r.mem, from, target, is_bound);
	l->r.next = target;
	return lost;
}

static int overrun(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint32_t is_bound = 0;
	uint64_t lost = jump(l, &is_bound);

	count_lost(sub, l, lost, msg);
	msg->lost_is_bound = is_bound;
	if (is_bound)
		store_relaxed(&l->entry->flags,
			      load_relaxed(&l->entry->flags) | LAY_ENTRY_LOST_BOUND);
	move_to(sub, l, l->r.next);
	if (!sub->evicts || l->kept) /* what we copied of a batch comes first */
		return lost ? SHMQ_EOVERRUN : 0;
	sub->evicted = 1;
	sub->is_plain = 0;
	store_relaxed(&l->entry->flags, load_relaxed(&l->entry->flags) | LAY_ENTRY_EVICTED);
	return SHMQ_EEVICTED;
}

/* ---- reading one message ------------------------------------------------------ */

/* [where, where + len) if its arena is mapped, else NULL. */
static inline char *in_mapped_arena(const struct shmq_sub *sub, const struct lay_arena_ref *where,
				    uint64_t len)
{
	const struct arena_map *m;

	if (where->id >= sub->arena_count)
		return NULL;
	m = &sub->arena[where->id];
	if (!m->mem || m->gen != where->gen || where->off >= m->bytes ||
	    len > m->bytes - where->off)
		return NULL;
	return m->mem + where->off;
}

/* Find [where, where + len).  0, SHMQ_ECORRUPT, or why it cannot be mapped. */
static int map_arena(struct shmq_sub *sub, const struct lay_arena_ref *where, uint64_t len,
		     char **out)
{
	struct lay_arena *rec = shmq__slabs_arena(sub->h.bus->slabs, where->id);
	struct arena_map *m;
	void *mem;
	int error;

	*out = in_mapped_arena(sub, where, len);
	if (*out)
		return 0;
	if (!rec)
		return SHMQ_ECORRUPT;
	if (where->id >= sub->arena_count) {
		uint32_t count = where->id + 8;
		struct arena_map *more = realloc(sub->arena, count * sizeof(*more));

		if (!more)
			return -ENOMEM;
		memset(more + sub->arena_count, 0, (count - sub->arena_count) * sizeof(*more));
		sub->arena = more;
		sub->arena_count = count;
	}
	m = &sub->arena[where->id];
	if (m->mem && m->gen != where->gen) {
		shmq__slabs_unmap(sub->h.bus->slabs, m->ref, m->bytes, m->mem);
		m->mem = NULL;
	}
	if (!m->mem) {
		if ((uint32_t)load_acquire(&rec->gen) != where->gen)
			return SHMQ_ECORRUPT;
		m->gen = where->gen;
		m->ref = rec->mem;
		m->bytes = rec->bytes;
		error = shmq__slabs_map(sub->h.bus->slabs, m->ref, m->bytes, SHMQ__SLAB_READ, &mem);
		if (error)
			return error;
		m->mem = mem;
	}
	if (where->off >= m->bytes || len > m->bytes - where->off)
		return SHMQ_ECORRUPT;
	*out = m->mem + where->off;
	return 0;
}

/* What the slot of l->r.next says.  Field by field: a compound literal makes
 * compilers zero the whole by a string instruction, which takes longer than
 * the rest of a receive. */
static inline void fill_msg(const struct rlane *l, const struct lay_slot *head,
			    const struct lay_slot_extra *extra, const char *data,
			    struct shmq_msg *msg)
{
	msg->data = data;
	msg->len = head->len;
	msg->key = NULL;
	msg->key_len = 0;
	msg->properties = NULL;
	msg->properties_len = 0;
	msg->seq = l->r.next;
	msg->ts_ns = extra->ts;
	msg->tag = extra->tag;
	msg->lost = 0;
	msg->partition = (int32_t)l->partition;
	msg->type = head->type;
	msg->flags = head->flags;
	msg->lost_is_bound = 0;
}

/* Decode the slot of l->r.next into *msg, and *batch if it is a member of
 * one: pointers are in bounds, what they point to is not to be trusted.  0,
 * SHMQ_ECORRUPT, or why its arena cannot be mapped; then the message stays
 * where it is. */
static inline int decode(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg,
			 struct lay_batch *batch)
{
	const struct lay_geometry *g = &l->r.geo;
	char *s = (char *)lay_slot_at(l->r.mem, g, l->r.next);
	struct lay_slot_extra extra = { 0 };
	char *at = s + g->payload_off;
	uint32_t room = g->inline_bytes;
	struct lay_slot head;
	int rc;

	shmq__copy_racy(&head, s, sizeof(head));
	if (g->payload_off > sizeof(head))
		shmq__copy_racy(&extra, s + sizeof(head), sizeof(extra));
	fill_msg(l, &head, &extra, at, msg);
	if (likely(!head.flags))
		return likely(head.len <= room) ? 0 : SHMQ_ECORRUPT;
	if (head.flags & SHMQ_MSG_BATCH) {
		shmq__copy_racy(batch, at, sizeof(*batch));
		at += sizeof(*batch);
		room -= (uint32_t)sizeof(*batch);
	}
	if (head.flags & SHMQ_MSG_ARENA) {
		struct lay_arena_ref where;

		shmq__copy_racy(&where, at, sizeof(where));
		rc = map_arena(sub, &where, head.len, &at);
		if (rc)
			return rc;
	} else if (head.len > room) {
		return SHMQ_ECORRUPT;
	}
	if (head.flags & SHMQ_MSG_META) {
		struct lay_meta meta;
		uint32_t names;

		if (head.len < sizeof(meta))
			return SHMQ_ECORRUPT;
		shmq__copy_racy(&meta, at, sizeof(meta));
		names = (uint32_t)sizeof(meta) + meta.key_bytes + meta.properties_bytes;
		if (names > head.len)
			return SHMQ_ECORRUPT;
		msg->key = at + sizeof(meta);
		msg->key_len = meta.key_bytes;
		msg->properties = at + sizeof(meta) + meta.key_bytes;
		msg->properties_len = meta.properties_bytes;
		at += names;
		msg->len = head.len - names;
	}
	msg->data = at;
	return 0;
}

static size_t whole_bytes(const struct shmq_msg *m)
{
	return m->len + m->key_len + m->properties_len;
}

/* Copy payload, key and properties behind each other to buf, and point
 * the message there. */
static void copy_out(struct shmq_msg *m, char *buf)
{
	shmq__copy_racy(buf, m->data, m->len);
	m->data = buf;
	buf += m->len;
	if (m->key_len)
		shmq__copy_racy(buf, m->key, m->key_len);
	if (m->key)
		m->key = buf;
	buf += m->key_len;
	if (m->properties_len)
		shmq__copy_racy(buf, m->properties, m->properties_len);
	if (m->properties)
		m->properties = buf;
}

/* ---- atomic batches where readers may be lapped ---------------------------------- */

/* Copy the member at l->r.next.  1 done, 0 lapped, negative error. */
static int keep_member(struct rlane *l, struct kept *k, uint64_t word, const struct shmq_msg *msg)
{
	struct kept_msg *m = &k->member[k->count];

	m->bytes = malloc(whole_bytes(msg) + 1);
	if (!m->bytes)
		return -ENOMEM;
	k->count++;
	m->msg = *msg;
	copy_out(&m->msg, m->bytes);
	return ring_still(&l->r, l->r.next, word);
}

/* Is the message at l->r.next the next member of that batch?  Keep it.  1 to
 * go on, 0 lapped, negative error. */
static int keep_if_member(struct shmq_sub *sub, struct rlane *l, struct kept *k, uint64_t first,
			  uint64_t word)
{
	struct lay_batch batch;
	struct shmq_msg msg;
	int rc = decode(sub, l, &msg, &batch);

	if (!ring_still(&l->r, l->r.next, word))
		return 0;
	if (rc)
		return rc;
	if (!(msg.flags & SHMQ_MSG_BATCH) || batch.first_seq != first || batch.index != k->count)
		return 1;
	return keep_member(l, k, word, &msg);
}

/* At member 0 of a batch: copy all of it.  1 kept, 0 some of it is lost. */
static int keep_batch(struct shmq_sub *sub, struct rlane *l, const struct lay_batch *batch)
{
	uint64_t at = l->r.next, end = at + l->r.geo.depth, word;
	struct kept *k;
	int rc = 1;

	if (!batch->count || batch->count > l->r.geo.depth / 4)
		return SHMQ_ECORRUPT;
	k = calloc(1, sizeof(*k) + batch->count * sizeof(k->member[0]));
	if (!k)
		return -ENOMEM;
	k->capacity = batch->count;
	for (; rc > 0 && k->count < k->capacity && seq_diff(l->r.next, end) < 0; l->r.next++) {
		enum ring_look look = ring_look(&l->r, &word);

		if (look == RING_MESSAGE)
			rc = keep_if_member(sub, l, k, batch->first_seq, word);
		else if (look == RING_LAPPED || look == RING_GONE || look == RING_NOTHING)
			rc = 0;
	}
	l->r.next = at;
	if (k->count == k->capacity && rc > 0) {
		k->other = l->kept;
		l->kept = k;
		return 1;
	}
	free_kept(k);
	return rc < 0 ? rc : 0;
}

/* ---- looking ------------------------------------------------------------------------ */

static inline int hand_out(struct shmq_sub *sub, struct rlane *l, uint64_t word,
			   const struct shmq_msg *msg)
{
	sub->view = l;
	sub->view_word = word;
	sub->view_torn = 0;
	add(&l->entry->count, 1);
	add(&l->entry->bytes, msg->len);
	return 0;
}

/* The next message of a batch that was copied. */
static int hand_out_kept(struct shmq_sub *sub, struct rlane *l, struct kept *k,
			 struct shmq_msg *msg)
{
	*msg = k->member[k->next++].msg;
	return hand_out(sub, l, 0, msg);
}

/* A member of a batch that is not to be delivered: it began before we
 * joined (not ours), or some of it was lost (then all of it is). */
static int skip_member(struct shmq_sub *sub, struct rlane *l, uint64_t first_seq,
		       struct shmq_msg *msg)
{
	int lost = seq_diff(first_seq, l->start) >= 0;

	if (lost)
		count_lost(sub, l, 1, msg);
	move_to(sub, l, l->r.next + 1);
	return lost ? SHMQ_EOVERRUN : SHMQ_EEMPTY;
}

/* A member of an atomic batch is there.  Where readers gate nothing is
 * lost: all of a batch is there once its first is. */
static int take_member(struct shmq_sub *sub, struct rlane *l, uint64_t word,
		       const struct lay_batch *batch, struct shmq_msg *msg)
{
	int rc;

	if (sub->gates && seq_diff(batch->first_seq, l->start) >= 0)
		return hand_out(sub, l, word, msg);
	if (sub->gates || batch->index)
		return skip_member(sub, l, batch->first_seq, msg);
	rc = keep_batch(sub, l, batch);
	if (rc == SHMQ_ECORRUPT) {
		count_lost(sub, l, 1, msg);
		move_to(sub, l, l->r.next + 1);
		return rc;
	}
	if (rc || !ring_still(&l->r, l->r.next, word))
		return rc < 0 ? rc : SHMQ_EEMPTY;
	return skip_member(sub, l, batch->first_seq, msg);
}

/* A message is there.  0 handed out; SHMQ_EEMPTY: look again. */
static inline int take_message(struct shmq_sub *sub, struct rlane *l, uint64_t word,
			       struct shmq_msg *msg)
{
	struct lay_batch batch;
	int rc = decode(sub, l, msg, &batch);

	if (unlikely(!sub->gates) && !ring_still(&l->r, l->r.next, word)) /* A2 */
		return SHMQ_EEMPTY;
	if (unlikely(rc)) {
		if (rc != SHMQ_ECORRUPT)
			return rc;
		count_lost(sub, l, 1, msg);
		move_to(sub, l, l->r.next + 1);
		return rc;
	}
	if (unlikely(msg->flags & SHMQ_MSG_BATCH))
		return take_member(sub, l, word, &batch, msg);
	return hand_out(sub, l, word, msg);
}

/* With stall = report, the time comes when l's open claim at seq is passed,
 * or said. */
static int is_stalled(const struct rlane *l, uint64_t seq)
{
	return l->r.geo.stall == SHMQ_STALL_REPORT && l->stuck_since && l->stuck_seq == seq &&
	       shmq__clock_monotonic_ns() - l->stuck_since >= STUCK_PASS_NS;
}

/* A slot that stays CLAIMED.  With stall = report, readers that do not gate
 * pass the hole, counted lost; others are told. */
static int at_claim(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	sub->stands_at_claim = 1;
	if (!is_stalled(l, l->r.next))
		return SHMQ_EEMPTY;
	if (sub->gates)
		return SHMQ_ESTALLED;
	count_lost(sub, l, 1, msg);
	move_to(sub, l, l->r.next + 1);
	return SHMQ_EOVERRUN;
}

/* The next message is a member of a batch that we have copied. */
static inline struct kept *is_kept(const struct rlane *l)
{
	return unlikely(l->kept) ? find_kept(l, l->r.next) : NULL;
}

/* Messages whose arena bytes were reused before their slots: one gap. */
static int pass_gone(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	uint64_t word, n = 0;

	do {
		l->r.next++;
		n++;
	} while (!is_kept(l) && ring_look(&l->r, &word) == RING_GONE);
	count_lost(sub, l, n, msg);
	move_to(sub, l, l->r.next);
	return SHMQ_EOVERRUN;
}

/* Ask for the slot's second line with the first, so that both come over
 * together when it is written, not one after the other. */
static inline void prefetch_far(const struct rlane *l)
{
	prefetch_read((const char *)lay_slot_at(l->r.mem, &l->r.geo, l->r.next) + LAY_LINE);
}

/* What lane l has: 0 and a message, SHMQ_EEMPTY, or what went wrong. */
static inline int look_at(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg)
{
	struct kept *k;
	uint64_t word;
	int rc;

	for (;;) {
		k = is_kept(l);
		if (k)
			return hand_out_kept(sub, l, k, msg);
		switch (ring_look(&l->r, &word)) {
		case RING_MESSAGE:
			rc = take_message(sub, l, word, msg);
			if (rc != SHMQ_EEMPTY)
				return rc;
			continue;
		case RING_NOTHING:
			if (l->r.geo.slot_bytes > LAY_LINE)
				prefetch_far(l);
			return SHMQ_EEMPTY;
		case RING_CLAIMED:
			rc = at_claim(sub, l, msg);
			return rc;
		case RING_VOID:
			move_to(sub, l, l->r.next + 1);
			continue;
		case RING_GONE:
			return sub->evicts ? overrun(sub, l, msg) : pass_gone(sub, l, msg);
		case RING_LAPPED:
			rc = overrun(sub, l, msg);
			if (rc)
				return rc;
			continue;
		}
	}
}

static int look_at_all(struct shmq_sub *sub, struct shmq_msg *msg)
{
	uint32_t i;

	if (unlikely(sub->evicted))
		return SHMQ_EEVICTED;
	if (likely(sub->lanes == 1))
		return look_at(sub, &sub->lane[0], msg);
	for (i = 0; i < sub->lanes; i++) {
		struct rlane *l = &sub->lane[sub->turn];
		int rc;

		if (++sub->turn == sub->lanes)
			sub->turn = 0;
		rc = look_at(sub, l, msg);
		if (rc != SHMQ_EEMPTY)
			return rc;
	}
	return SHMQ_EEMPTY;
}

static int had_messages(const struct shmq_sub *sub)
{
	uint32_t i;

	for (i = 0; i < sub->lanes; i++)
		if (shmq__topic_head(sub->lane[i].ring) != sub->lane[i].r.mem->base_seq)
			return 1;
	return 0;
}

/* Nothing is there: has the stream ended?  Looks once more after it learned
 * that, since what was committed before must still be read. */
static int end_of_stream(struct shmq_sub *sub, struct shmq_msg *msg)
{
	uint32_t state = load_acquire(&((struct lay_ring *)(uintptr_t)sub->lane[0].r.mem)->state);
	int end = 0, rc;

	if (state == LAY_RING_MOVED)
		end = SHMQ_EMOVED;
	else if (state == LAY_RING_ENDED)
		end = SHMQ_EENDED;
	else if (sub->flags & SHMQ_SUB_END_WITH_PUBLISHERS) {
		if (load_acquire(&sub->h.topic->rec->publishers))
			sub->saw_publisher = 1;
		else if (sub->saw_publisher || had_messages(sub))
			end = SHMQ_EENDED;
	}
	if (!end)
		return SHMQ_EEMPTY;
	rc = look_at_all(sub, msg);
	return rc == SHMQ_EEMPTY ? end : rc;
}

/* Look at everything once; ends included. */
static int look_once(struct shmq_sub *sub, struct shmq_msg *msg)
{
	int rc = look_at_all(sub, msg);

	return likely(rc != SHMQ_EEMPTY) ? rc : end_of_stream(sub, msg);
}

/* ---- stuck claims ------------------------------------------------------------------------ */

int shmq__sub_report_stuck(struct shmq_sub *sub)
{
	uint64_t now = shmq__clock_monotonic_ns();
	int open = 0;
	uint32_t i;

	sub->stands_at_claim = 0;
	for (i = 0; i < sub->lanes; i++) {
		struct rlane *l = &sub->lane[i];
		struct ring_reader next = l->r;
		struct proto_request req;
		uint64_t word;

		next.next += sub->view == l; /* handed out counts as read */
		if (ring_look(&next, &word) != RING_CLAIMED) {
			l->stuck_since = 0;
			continue;
		}
		open = 1;
		if (!l->stuck_since || l->stuck_seq != next.next) {
			l->stuck_since = now;
			l->stuck_seq = next.next;
			l->stuck_told = 0;
			continue;
		}
		if (now - l->stuck_since < SHMQ__SUB_STUCK_NS ||
		    now - l->stuck_told < STUCK_AGAIN_NS)
			continue;
		l->stuck_told = now;
		shmq__bus_prepare(sub->h.bus, &req, PROTO_REPORT, sub->h.topic->rec->name);
		req.report.kind = PROTO_REPORT_STUCK;
		req.report.topic_id = sub->h.topic->id;
		req.report.partition = l->partition;
		req.report.seq = next.next;
		req.report.word = word;
		shmq__bus_notify(sub->h.bus, &req);
	}
	return open;
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

static int sleep_once(struct shmq_sub *sub, struct shmq_msg *msg, uint64_t deadline)
{
	int rc;

	shmq__sub_show_asleep(sub, 1);
	shmq__park_arm(sub->park);
	rc = look_once(sub, msg); /* S4 */
	if (rc == SHMQ_EEMPTY) {
		/* Whoever is inside a claim may be dead or stalled. */
		if (shmq__sub_report_stuck(sub)) {
			uint64_t soon = shmq__clock_deadline(SHMQ__SUB_STUCK_NS);

			deadline = deadline < soon ? deadline : soon;
		}
		rc = shmq__park_sleep(sub->park, deadline);
		if (rc == -ETIMEDOUT || rc == 0)
			rc = SHMQ_EEMPTY;
	}
	shmq__sub_show_asleep(sub, 0);
	return rc;
}

static __attribute__((noinline)) int wait_for_message(struct shmq_sub *sub, struct shmq_msg *msg,
						      int64_t timeout_ns)
{
	struct waiter w;
	unsigned turns = 0;
	int rc;

	shmq__waiter_start(&w, sub->wait, sub->spin_ns, timeout_ns);
	for (;;) {
		enum wait_step step = shmq__waiter_step(&w);

		rc = likely(step == WAIT_AGAIN) ? look_at_all(sub, msg) : look_once(sub, msg);
		if (rc != SHMQ_EEMPTY)
			return rc;
		if (step == WAIT_EXPIRED)
			return SHMQ_ETIMEOUT;
		if (step == WAIT_SLEEP) {
			rc = sleep_once(sub, msg, w.deadline);
			if (rc != SHMQ_EEMPTY)
				return rc;
		} else if (++turns % 4096 == 0) {
			/* Spinners look for ends and stuck claims now and then. */
			shmq__sub_report_stuck(sub);
			rc = end_of_stream(sub, msg);
			if (rc != SHMQ_EEMPTY)
				return rc;
		}
	}
}

/* The short way: a plain message at the cursor of the only lane, whose
 * control word is w.  1 handed out, 0 look properly. */
static inline int take_plain(struct shmq_sub *sub, struct rlane *l, struct lay_slot *s, uint64_t w,
			     struct shmq_msg *msg)
{
	char *data = (char *)s + l->r.geo.payload_off;
	struct lay_slot_extra extra = { 0 };
	struct lay_slot head;

	shmq__copy_racy(&head, s, sizeof(head));
	if (l->r.geo.payload_off > sizeof(head))
		shmq__copy_racy(&extra, s + 1, sizeof(extra));
	if (unlikely(head.flags & SHMQ_MSG_ARENA)) {
		struct lay_arena_ref where;

		shmq__copy_racy(&where, data, sizeof(where));
		data = in_mapped_arena(sub, &where, head.len);
		if (!data)
			return 0;
	} else if (unlikely(head.len > l->r.geo.inline_bytes)) {
		return 0;
	}
	if (unlikely(!sub->gates) && !ring_still(&l->r, l->r.next, w)) /* A2 */
		return 0;
	if (unlikely(head.flags & ~SHMQ_MSG_ARENA))
		return 0;
	fill_msg(l, &head, &extra, data, msg);
	hand_out(sub, l, w, msg);
	return 1;
}

static int is_there(const struct rlane *l, unsigned distance)
{
	struct ring_reader at = l->r;
	uint64_t word;

	at.next += distance;
	return ring_look(&at, &word) == RING_MESSAGE;
}

/* Messages keep being there when they are asked for.  Are the next ones there
 * too, so that their lines may be asked for ahead of need?  If only a few are,
 * we are on the publisher's heels: every line would be taken from it before
 * it is written and travel twice, so it is given a moment to get away.  If
 * none is, messages come one by one, and waiting would only cost time. */
static __attribute__((noinline)) void look_further(struct shmq_sub *sub, struct rlane *l)
{
	unsigned i;

	sub->look_further_at = l->r.next + FAR_LOOK / 2;
	if (is_there(l, FAR_LOOK))
		sub->ahead = l->r.next + FAR_LOOK;
	else if (!is_there(l, 2))
		sub->run = 0;
	else
		for (i = 0; sub->run >= LONG_RUN && sub->quick_looks && i < LET_PASS; i++)
			cpu_relax();
}

/* A message was there at the first look. */
static inline void on_a_run(struct shmq_sub *sub, struct rlane *l)
{
	sub->run++;
	if (seq_diff(sub->ahead, l->r.next) > RING_READ_AHEAD)
		ring_read_ahead(&l->r);
	else if (seq_diff(l->r.next, sub->look_further_at) >= 0)
		look_further(sub, l);
}

/* Everything but a plain message that is there, or comes at once. */
static __attribute__((noinline)) int receive_long(struct shmq_sub *sub, struct shmq_msg *msg,
						  int64_t timeout_ns)
{
	int rc;

	if (unlikely(sub->held_error)) {
		rc = sub->held_error;
		*msg = sub->held_msg;
		sub->held_error = 0;
		return rc;
	}
	rc = look_at_all(sub, msg);
	if (likely(rc != SHMQ_EEMPTY))
		return rc;
	if (timeout_ns != SHMQ_NOWAIT)
		return wait_for_message(sub, msg, timeout_ns);
	if (unlikely(sub->stands_at_claim))
		shmq__sub_report_stuck(sub);
	return end_of_stream(sub, msg);
}

SHMQ_EXPORT int shmq_receive(shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	struct rlane *l = &sub->lane[0];
	struct lay_slot *s;
	uint64_t w, expected;
	unsigned looks;

	if (unlikely(check_sub(sub)))
		return SHMQ_EFORKED;
	finish_view(sub);
	if (unlikely(!sub->is_plain || sub->held_error))
		return receive_long(sub, msg, timeout_ns);
	s = lay_slot_at(l->r.mem, &l->r.geo, l->r.next);
	expected = LAY_CTRL(l->r.next >> l->r.geo.depth_shift, 0, LAY_COMMITTED);
	w = load_acquire(&s->ctrl); /* A1 */
	if (likely(LAY_CTRL_SANS_OWNER(w) == expected)) {
		on_a_run(sub, l);
	} else {
		/* The answer to what was just sent comes within a cache miss or
		 * two: worth a few looks at nothing but the word before the
		 * clock is asked. */
		looks = timeout_ns == SHMQ_NOWAIT ? 0 : sub->quick_looks;
		sub->run = 0;
		do {
			if (!looks--)
				return receive_long(sub, msg, timeout_ns);
			cpu_relax();
			w = load_acquire(&s->ctrl); /* A1 */
		} while (LAY_CTRL_SANS_OWNER(w) != expected);
	}
	return likely(take_plain(sub, l, s, w, msg)) ? 0 : receive_long(sub, msg, timeout_ns);
}

SHMQ_EXPORT int shmq_release(shmq_sub *sub)
{
	int rc = check_sub(sub);

	if (!rc)
		finish_view(sub);
	return rc;
}

/* The message handed out turned out to be torn: it is lost. */
static void unread(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	struct rlane *l = sub->view;

	add(&l->entry->count, (uint64_t)-1);
	add(&l->entry->bytes, (uint64_t)0 - msg->len);
	add(&l->entry->lost, 1);
}

SHMQ_EXPORT int shmq_view_check(shmq_sub *sub, const struct shmq_msg *msg)
{
	int rc = check_sub(sub);

	if (rc)
		return rc;
	if (!sub->view)
		return SHMQ_EOPTION;
	if (sub->view_torn)
		return SHMQ_EOVERRUN;
	if (sub->gates || !sub->view_word ||
	    ring_still(&sub->view->r, sub->view->r.next, sub->view_word))
		return 0;
	unread(sub, msg);
	sub->view_torn = 1;
	return SHMQ_EOVERRUN;
}

/* Copy the message handed out; where it may be torn, say so. */
static int copy_view(struct shmq_sub *sub, struct shmq_msg *msg, void *buf)
{
	struct shmq_msg whole = *msg;

	copy_out(&whole, buf);
	if (!sub->gates && sub->view_word &&
	    !ring_still(&sub->view->r, sub->view->r.next, sub->view_word))
		return SHMQ_EOVERRUN;
	*msg = whole;
	return 0;
}

/* Take the hand-out back: the message stays at the cursor. */
static void take_back(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	struct rlane *l = sub->view;
	struct kept *k;

	add(&l->entry->count, (uint64_t)-1);
	add(&l->entry->bytes, (uint64_t)0 - msg->len);
	for (k = l->kept; k; k = k->other)
		if (k->next && k->member[k->next - 1].msg.seq == l->r.next)
			k->next--;
	sub->view = NULL;
	sub->turn = (uint32_t)(l - sub->lane);
}

SHMQ_EXPORT int shmq_receive_copy(shmq_sub *sub, void *buf, size_t capacity, struct shmq_msg *msg,
				  int64_t timeout_ns)
{
	for (;;) {
		int rc = shmq_receive(sub, msg, timeout_ns);

		if (rc)
			return rc;
		if (whole_bytes(msg) > capacity) {
			take_back(sub, msg);
			return SHMQ_EBUFFER;
		}
		if (!copy_view(sub, msg, buf))
			return 0;
		/* Overwritten while we copied: the next look counts it. */
		take_back(sub, msg);
	}
}

SHMQ_EXPORT ssize_t shmq_poll(shmq_sub *sub, shmq_handler *handler, void *arg, size_t max,
			      int64_t timeout_ns)
{
	size_t done = 0;

	while (done < max) {
		struct shmq_msg msg;
		int rc = shmq_receive(sub, &msg, done ? SHMQ_NOWAIT : timeout_ns);

		if (rc && done) {
			if (rc != SHMQ_EEMPTY) {
				sub->held_error = rc;
				sub->held_msg = msg;
			}
			break;
		}
		if (rc)
			return rc;
		if (!sub->gates && sub->view_word) {
			size_t need = whole_bytes(&msg);

			if (need > sub->copy_bytes) {
				char *more = realloc(sub->copy, need);

				if (!more) {
					take_back(sub, &msg);
					return done ? (ssize_t)done : -ENOMEM;
				}
				sub->copy = more;
				sub->copy_bytes = need;
			}
			if (copy_view(sub, &msg, sub->copy)) {
				take_back(sub, &msg);
				continue;
			}
		}
		done++;
		if (handler(arg, &msg))
			break;
	}
	return (ssize_t)done;
}

SHMQ_EXPORT void shmq_sub_get_stats(const shmq_sub *sub, struct shmq_sub_stats *out)
{
	uint32_t i;

	*out = (struct shmq_sub_stats){ 0 };
	if (check_sub(sub))
		return;
	for (i = 0; i < sub->lanes; i++) {
		const struct rlane *l = &sub->lane[i];
		int64_t lag = seq_diff(shmq__topic_head(l->ring), l->r.next);

		out->received += load_relaxed(&l->entry->count);
		out->lost += load_relaxed(&l->entry->lost);
		out->sleeps += load_relaxed(&l->entry->waits);
		out->lost_is_bound |= !!(load_relaxed(&l->entry->flags) & LAY_ENTRY_LOST_BOUND);
		out->lag += lag > 0 ? (uint64_t)lag : 0;
	}
}

/* ---- for wait sets
 * -------------------------------------------------------------------------------- */

int shmq__sub_is_ready(struct shmq_sub *sub)
{
	uint32_t i;
	uint64_t word;

	if (sub->evicted || sub->held_error)
		return 1;
	for (i = 0; i < sub->lanes; i++) {
		struct rlane *l = &sub->lane[i];
		struct ring_reader next = l->r;
		enum ring_look look;

		/* The message handed out counts as read. */
		if (sub->view == l)
			next.next++;
		while ((look = ring_look(&next, &word)) == RING_VOID)
			next.next++;
		if (look == RING_MESSAGE || look == RING_GONE || look == RING_LAPPED ||
		    find_kept(l, next.next) || (look == RING_CLAIMED && is_stalled(l, next.next)))
			return 1;
	}
	if (load_acquire(&((struct lay_ring *)(uintptr_t)sub->lane[0].r.mem)->state) !=
	    LAY_RING_LIVE)
		return 1;
	if (!(sub->flags & SHMQ_SUB_END_WITH_PUBLISHERS))
		return 0;
	if (load_acquire(&sub->h.topic->rec->publishers)) {
		sub->saw_publisher = 1;
		return 0;
	}
	return sub->saw_publisher || had_messages(sub);
}

unsigned shmq__sub_bells(const struct shmq_sub *sub)
{
	return sub->lanes;
}

struct lay_bell *shmq__sub_bell(const struct shmq_sub *sub, unsigned i)
{
	return &sub->lane[i].bells->data;
}

enum shmq_wait shmq__sub_wait_mode(const struct shmq_sub *sub)
{
	return sub->wait;
}

int64_t shmq__sub_spin_ns(const struct shmq_sub *sub)
{
	return sub->spin_ns;
}

enum shmq__fence shmq__sub_fence(const struct shmq_sub *sub)
{
	return sub->fence;
}

struct shmq_bus *shmq__sub_bus(const struct shmq_sub *sub)
{
	return sub->h.bus;
}

void shmq__sub_show_asleep(struct shmq_sub *sub, uint32_t asleep)
{
	struct lay_entry *e = sub->lane[0].entry;

	store_relaxed(&e->asleep, asleep);
	if (asleep)
		add(&e->waits, 1);
}

struct shmq_waitset *shmq__sub_set(const struct shmq_sub *sub)
{
	return sub->set;
}

void shmq__sub_enter(struct shmq_sub *sub, struct shmq_waitset *set)
{
	sub->set = set;
}

/* ---- open and close
 * ----------------------------------------------------------------------------------- */

static void close_sub(struct shmq__handle *h)
{
	struct shmq_sub *sub = (struct shmq_sub *)h;
	uint32_t i;

	if (sub->set)
		shmq__waitset_forget(sub->set, sub);
	if (!check_sub(sub)) {
		shmq__park_free(sub->park);
		finish_view(sub);
		for (i = 0; i < sub->arena_count; i++)
			shmq__slabs_unmap(h->bus->slabs, sub->arena[i].ref, sub->arena[i].bytes,
					  sub->arena[i].mem);
		shmq__bus_close_handle(h);
	}
	for (i = 0; i < sub->lanes; i++)
		free_all_kept(&sub->lane[i]);
	free(sub->arena);
	free(sub->copy);
	free(sub->bell);
	free(sub);
}

static int check_options(const struct shmq_sub_options *o, struct shmq__why *why)
{
	if (o->from > SHMQ_FROM_SEQ || o->wait > SHMQ_WAIT_SLEEP || o->partition_plus1 < 0 ||
	    (o->flags & ~SHMQ_SUB_END_WITH_PUBLISHERS) || o->spin_ns < 0)
		return shmq__fail(why, SHMQ_EOPTION, "subscriber options: a value is out of range");
	return 0;
}

static void open_lane(struct shmq_sub *sub, uint32_t i, uint32_t partition)
{
	struct rlane *l = &sub->lane[i];

	l->partition = partition;
	l->ring = &sub->h.topic->ring[partition];
	l->bells = l->ring->bells;
	l->entry = &sub->h.entry[i];
	l->r.mem = l->ring->mem;
	l->r.geo = l->ring->geo;
	l->r.next = l->start = load_acquire(&l->entry->pos);
	sub->bell[i] = &l->bells->data;
}

SHMQ_EXPORT int shmq_sub_open(shmq_bus *bus, const char *topic,
			      const struct shmq_sub_options *options, shmq_sub **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq__handle h = { .close = close_sub };
	struct shmq_sub_options o;
	struct proto_request req;
	struct shmq_sub *sub;
	uint32_t lanes, i;
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
	req.open.role = SHMQ_ROLE_SUBSCRIBER;
	req.open.from = o.from ? o.from : SHMQ_FROM_LATEST;
	req.open.partition = o.partition_plus1 - 1;
	req.open.seq = o.seq;
	error = shmq__bus_open_handle(bus, &req, &h, SHMQ__SLAB_READ, why);
	if (error)
		return error;
	lanes = o.partition_plus1 ? 1 : h.topic->geo.partitions;
	sub = calloc(1, sizeof(*sub) + lanes * sizeof(sub->lane[0]));
	if (!sub || !(sub->bell = calloc(lanes, sizeof(*sub->bell)))) {
		free(sub);
		shmq__bus_close_handle(&h);
		return -ENOMEM;
	}
	sub->h = h;
	shmq__bus_move_handle(&sub->h, &h);
	sub->guard = bus->guard;
	sub->fence = shmq__bus_ready(bus, h.topic->geo.flags);
	sub->lanes = lanes;
	sub->flags = o.flags;
	sub->wait = o.wait ? o.wait : h.topic->geo.wait;
	if ((h.topic->geo.flags & SHMQ_TOPIC_SPIN_ONLY) &&
	    (sub->wait == SHMQ_WAIT_ADAPTIVE || sub->wait == SHMQ_WAIT_SLEEP))
		sub->wait = SHMQ_WAIT_SPIN;
	sub->spin_ns = o.spin_ns ? o.spin_ns : WAIT_SPIN_NS;
	sub->evicts = h.topic->geo.policy == SHMQ_EVICT;
	sub->gates = shmq__topic_gates(&h.topic->geo) && !sub->evicts;
	sub->is_plain = lanes == 1;
	sub->ahead = sub->look_further_at = load_acquire(&sub->h.entry[0].pos);
	sub->quick_looks = sub->wait == SHMQ_WAIT_SLEEP ? 0 : QUICK_LOOKS;
	sub->saw_publisher = !!load_acquire(&h.topic->rec->publishers);
	for (i = 0; i < lanes; i++)
		open_lane(sub, i, o.partition_plus1 ? (uint32_t)o.partition_plus1 - 1 : i);
	error = shmq__park_create(sub->bell, lanes, sub->fence, &sub->park);
	if (error) {
		close_sub(&sub->h);
		return error;
	}
	*out = sub;
	return 0;
}

SHMQ_EXPORT void shmq_sub_close(shmq_sub *sub)
{
	if (sub)
		close_sub(&sub->h);
}
