/* SPDX-License-Identifier: MIT */
#include "cast.h"
#include "mem.h"

#include "../../libshmq/pub.h"
#include "../../libshmq/sub_priv.h"
#include "helpers.h"
#include "recover.h"

enum { READERS = 2, OP_MOST = 64, BEFORE = FAKE_DEPTH + 40, LOG = 8 * FAKE_DEPTH };

/* What a handle is in its own memory, but for what is none of the operation's:
 * its place among the bus's handles, and what it has mapped and allocated. */
struct kept_pub {
	shmq_pub *pub;
	size_t bytes;
	void *copy;
	struct arena_piece *piece;
};

struct kept_sub {
	shmq_sub *sub;
	size_t bytes;
	void *copy;
};

/* The next seq that a reader has not seen, nor knows to be a hole. */
struct reader {
	struct kept_sub kept;
	uint64_t next, next_at_begin;
};

struct line {
	uint64_t who, n;
};

struct cast {
	struct cast_scene scene;
	struct world *w;
	struct fake *f;
	struct shmq__ring *ring;
	shmq_bus *bus;
	struct kept_pub pub; /* where the subject is not alone */
	struct reader reader[READERS];
	uint64_t base, sent;
	unsigned subject, victim, buried;
	uint64_t op_head;      /* first seq that is the operation's */
	uint32_t asleep_at[2]; /* the words of both bells when somebody slept */
	int must[OP_MOST];     /* arrive */
	struct line line[LOG]; /* by seq, from base on */
};

/* ---- messages ------------------------------------------------------------------ */

void cast_fill(char *buf, size_t bytes, uint64_t who, uint64_t n)
{
	uint64_t head[2] = { who, n };

	CHECK_GE(bytes, sizeof(head));
	memcpy(buf, head, sizeof(head));
	fill(buf + sizeof(head), bytes - sizeof(head), who << 32 | n);
}

static struct line *line_of(struct cast *c, uint64_t seq)
{
	CHECK_LT(seq - c->base, LOG);
	return &c->line[seq - c->base];
}

static void check_message(struct cast *c, const struct shmq_msg *m)
{
	const struct line *want = line_of(c, m->seq);
	uint64_t head[2];

	CHECK_GE(m->len, sizeof(head));
	memcpy(head, m->data, sizeof(head));
	if (head[0] != want->who || head[1] != want->n)
		FAIL("seq %llu is message %llu of %llu, want %llu of %llu",
		     (unsigned long long)(m->seq - c->base), (unsigned long long)head[1],
		     (unsigned long long)head[0], (unsigned long long)want->n,
		     (unsigned long long)want->who);
	CHECK_EQ(m->len, c->scene.bytes);
	CHECK(is_filled((const char *)m->data + sizeof(head), m->len - sizeof(head),
			head[0] << 32 | head[1]));
}

static uint64_t word_at(const struct cast *c, uint64_t seq)
{
	return load_acquire(fake_ctrl(c->ring->mem, &c->f->geo, seq));
}

static enum ring_look look(struct cast *c, uint64_t seq)
{
	struct ring_reader r = fake_reader(c->f, 0, seq);
	uint64_t word;

	return ring_look(&r, &word);
}

static uint64_t head_of(const struct cast *c)
{
	return shmq__topic_head(c->ring);
}

/* ---- sending and reading ---------------------------------------------------------- */

static uint64_t send_one(struct cast *c, shmq_pub *pub)
{
	static char buf[CAST_MESSAGE_MAX];
	struct shmq_msg m = { .data = buf, .len = c->scene.bytes };

	cast_fill(buf, c->scene.bytes, CAST_OTHERS, c->sent);
	CHECK_OK(shmq_publish_msg(pub, &m));
	*line_of(c, m.seq) = (struct line){ CAST_OTHERS, c->sent++ };
	return m.seq;
}

static void pass_holes(struct cast *c, struct reader *r, uint64_t upto)
{
	for (; seq_diff(r->next, upto) < 0; r->next++)
		CHECK_EQ(look(c, r->next), RING_VOID);
}

/* Up to max of what is there: each once, in order, whole; how many it were. */
static unsigned read_some(struct cast *c, struct reader *r, unsigned max)
{
	struct shmq_msg m;
	unsigned n = 0;
	int rc = 0;

	while (n < max && !(rc = shmq_receive(r->kept.sub, &m, SHMQ_NOWAIT))) {
		pass_holes(c, r, m.seq);
		CHECK_EQ(r->next, m.seq);
		check_message(c, &m);
		r->next++;
		n++;
	}
	if (n < max)
		CHECK_ERROR(rc, SHMQ_EEMPTY);
	CHECK_OK(shmq_release(r->kept.sub));
	return n;
}

static void write_log(struct cast *c, uint64_t upto)
{
	if (c->f->geo.log != SHMQ_LOG_BLOCK)
		return;
	store_release(&c->f->partition[0].log_written, upto);
	bell_look(&c->ring->bells->credit, SHMQ__FENCE_FULL);
}

/* Everything is settled: up to the head, over holes.  So the tailer has it, too. */
static void read_to_head(struct cast *c, struct reader *r)
{
	read_some(c, r, UINT32_MAX);
	pass_holes(c, r, head_of(c));
	write_log(c, r->next);
	CHECK_EQ(sub_stats(r->kept.sub).lost, 0);
}

/* ---- keeping handles --------------------------------------------------------------- */

#define PUB_BEGIN offsetof(struct shmq_pub, guard)
#define SUB_BEGIN offsetof(struct shmq_sub, guard)

static void forget_credit(shmq_pub *pub)
{
	uint32_t p;

	for (p = 0; p < pub->h.topic->geo.partitions; p++) {
		shmq__credit_fini(&pub->lane[p].credit);
		pub->lane[p].credit.listed = 0;
	}
}

static void keep_pub(struct kept_pub *k, shmq_pub *pub)
{
	forget_credit(pub);
	k->pub = pub;
	k->bytes = sizeof(*pub) + pub->h.topic->geo.partitions * sizeof(pub->lane[0]) - PUB_BEGIN;
	k->copy = malloc(k->bytes);
	k->piece = calloc(pub->arena.capacity + 1, sizeof(*k->piece));
	CHECK(k->copy && k->piece);
	memcpy(k->copy, (char *)pub + PUB_BEGIN, k->bytes);
	if (pub->arena.capacity)
		memcpy(k->piece, pub->arena.piece, pub->arena.capacity * sizeof(*k->piece));
}

static void restore_pub(struct kept_pub *k)
{
	struct pending *pending = k->pub->pending;
	size_t capacity = k->pub->pending_capacity;
	struct shmq_pub *pub = k->pub;
	size_t bytes;

	forget_credit(pub);
	shmq__mem_put(pub->arena.piece, pub->arena.capacity * sizeof(*k->piece));
	memcpy((char *)pub + PUB_BEGIN, k->copy, k->bytes);
	pub->pending = pending;
	pub->pending_capacity = capacity;
	bytes = pub->arena.capacity * sizeof(*k->piece);
	pub->arena.piece = bytes ? shmq__mem_get(bytes) : NULL;
	CHECK(pub->arena.piece || !bytes);
	if (bytes)
		memcpy(pub->arena.piece, k->piece, bytes);
}

static void drop_pub(struct kept_pub *k)
{
	free(k->copy);
	free(k->piece);
	k->copy = k->piece = NULL;
}

static void keep_sub(struct kept_sub *k, shmq_sub *sub)
{
	k->sub = sub;
	k->bytes = sizeof(*sub) + sub->lanes * sizeof(sub->lane[0]) - SUB_BEGIN;
	k->copy = malloc(k->bytes);
	CHECK(k->copy && !sub->lane[0].kept && !sub->view);
	memcpy(k->copy, (char *)sub + SUB_BEGIN, k->bytes);
}

static void restore_sub(struct kept_sub *k)
{
	struct shmq_sub now;
	struct shmq_sub *sub = k->sub;

	memcpy(&now, sub, sizeof(now));
	shmq__sub_free_kept(&sub->lane[0]);
	memcpy((char *)sub + SUB_BEGIN, k->copy, k->bytes);
	sub->arena = now.arena;
	sub->arena_count = now.arena_count;
	sub->copy = now.copy;
	sub->copy_bytes = now.copy_bytes;
	sub->lane[0].stuck_since = 0; /* or the clock would say that it stands long */
}

static void drop_sub(struct kept_sub *k)
{
	free(k->copy);
	k->copy = NULL;
}

static void keep_all(struct cast *c)
{
	unsigned i;

	if (c->pub.pub)
		keep_pub(&c->pub, c->pub.pub);
	for (i = 0; i < READERS; i++) {
		keep_sub(&c->reader[i].kept, c->reader[i].kept.sub);
		c->reader[i].next_at_begin = c->reader[i].next;
	}
}

static void drop_all(struct cast *c)
{
	unsigned i;

	drop_pub(&c->pub);
	for (i = 0; i < READERS; i++)
		drop_sub(&c->reader[i].kept);
}

static void restore_all(struct cast *c)
{
	unsigned i;

	if (c->pub.pub)
		restore_pub(&c->pub);
	for (i = 0; i < READERS; i++) {
		restore_sub(&c->reader[i].kept);
		c->reader[i].next = c->reader[i].next_at_begin;
	}
}

/* ---- the scene ------------------------------------------------------------------------ */

static shmq_bus *open_above(struct cast *c)
{
	struct shmq_bus_options o = { .serve = SHMQ_SERVE_CALLER };
	shmq_bus *bus;

	CHECK_OK(standin_open(c->w->s, &o, &bus));
	return bus;
}

/* Its messages are those of the operation: what becomes of them is seen. */
static void add_victim(struct cast *c)
{
	const struct cast_scene *scene = &c->scene;
	struct lay_client *rec;
	struct ring_writer w;
	struct lay_member *m;
	uint64_t seq, word;
	unsigned i;

	c->victim = fake_client(c->f, getpid());
	rec = fake_client_record(c->f, c->victim);
	m = fake_publisher(c->f, c->victim);
	add_relaxed(&c->f->rec->publishers, 1);
	w = fake_writer(c->f, m, 0);
	w.limit = w.next + scene->victim;
	for (i = 0; i < scene->victim && c->f->geo.mode == SHMQ_SHARED; i++)
		CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
	if (scene->is_atomic)
		store_relaxed(&fake_entry(c->f, m, 0)->batch_end, c->op_head + scene->victim);
	for (i = scene->victim; i-- > scene->victim - scene->victim_committed;) {
		struct lay_slot *s = lay_slot_at(w.mem, &w.geo, c->op_head + i);
		struct lay_batch batch = { c->op_head, i, scene->victim };
		char *at = (char *)s + w.geo.payload_off;

		s->len = (uint32_t)scene->bytes;
		s->flags = scene->is_atomic ? SHMQ_MSG_BATCH : 0;
		s->type = 0;
		if (scene->is_atomic) {
			memcpy(at, &batch, sizeof(batch));
			at += sizeof(batch);
		}
		cast_fill(at, scene->bytes, CAST_SUBJECT, i);
		ring_commit(&w, s, c->op_head + i);
	}
	store_release(&rec->start_time, load_relaxed(&rec->start_time) + 1); /* proof */
}

struct cast *cast_new(const struct cast_scene *scene)
{
	struct cast *c = calloc(1, sizeof(*c));
	shmq_pub *pub;
	unsigned i;

	CHECK(c);
	c->scene = *scene;
	c->w = world_new(&scene->topic);
	c->f = c->w->f;
	c->base = c->f->base_seq;
	c->ring = &c->f->topic->ring[0];
	c->bus = open_above(c);
	for (i = 0; i < READERS; i++) {
		c->reader[i].kept.sub =
			open_sub(c->bus, STANDIN_TOPIC, .flags = SHMQ_SUB_RING_ONLY);
		c->reader[i].next = c->base;
	}
	pub = open_pub(c->bus, STANDIN_TOPIC);
	for (i = 0; i < BEFORE; i++) {
		send_one(c, pub);
		read_to_head(c, &c->reader[0]);
		if (i < BEFORE - scene->unread)
			read_to_head(c, &c->reader[1]);
	}
	c->op_head = head_of(c);
	write_log(c, c->op_head - scene->unlogged);
	if (scene->victim)
		add_victim(c);
	for (i = 0; scene->is_round && i < FAKE_DEPTH - scene->victim; i++)
		send_one(c, pub);
	if (scene->shares)
		c->pub.pub = pub;
	else
		shmq_pub_close(pub);
	world_open_below(c->w);
	return c;
}

void cast_free(struct cast *c)
{
	drop_all(c);
	shmq_bus_close(c->bus);
	world_free(c->w);
	free(c);
}

struct world *cast_world(struct cast *c)
{
	return c->w;
}

static void tuck_in(struct cast *c)
{
	struct lay_bells *b = c->ring->bells;

	if (!c->scene.sleepers)
		return;
	c->asleep_at[0] = shmq__bell_arm(&b->data, SHMQ__FENCE_FULL);
	c->asleep_at[1] = shmq__bell_arm(&b->credit, SHMQ__FENCE_FULL);
}

static void check_woken(struct cast *c)
{
	struct lay_bells *b = c->ring->bells;

	if (!c->scene.sleepers)
		return;
	CHECK_NE(load_relaxed(&b->data.word), c->asleep_at[0]);
	CHECK_NE(load_relaxed(&b->credit.word), c->asleep_at[1]);
}

static void offer(struct cast *c)
{
	static char buf[OP_MOST][CAST_MESSAGE_MAX];
	struct shmq_msg many[OP_MOST];
	unsigned i, n = c->scene.offered;

	if (c->scene.offer_atomic) {
		for (i = 0; i < n; i++) {
			cast_fill(buf[i], c->scene.bytes, CAST_OTHERS, c->sent + i);
			many[i] = (struct shmq_msg){ .data = buf[i], .len = c->scene.bytes };
		}
		CHECK_EQ(shmq_publish_batch(c->pub.pub, many, n, SHMQ_ATOMIC), n);
		for (i = 0; i < n; i++)
			*line_of(c, many[i].seq) = (struct line){ CAST_OTHERS, c->sent++ };
	}
	for (i = 0; i < n && !c->scene.offer_atomic; i++) {
		send_one(c, c->pub.pub);
		/* Who reads along is not lapped with the subject. */
		if (n > OP_MOST && i % OP_MOST == 0)
			read_some(c, &c->reader[0], UINT32_MAX),
				read_some(c, &c->reader[1], UINT32_MAX);
	}
	c->op_head = c->scene.victim ? c->op_head : head_of(c);
}

void cast_begin(struct cast *c, unsigned subject)
{
	unsigned i;

	world_close_below(c->w);
	standin_hold_others(c->w->s);
	world_look(c->w);
	world_copy_up(c->w);
	c->subject = subject;
	for (i = 0; i < c->scene.prelude; i++)
		*line_of(c, c->base + BEFORE + i) = (struct line){ CAST_SUBJECT, i };
	c->op_head += c->scene.prelude;
	/* What the subject sent before it is stepped has been read. */
	CHECK_EQ(read_some(c, &c->reader[0], UINT32_MAX), c->scene.prelude);
	offer(c);
	tuck_in(c);
	world_copy_down(c->w);
	keep_all(c);
}

/* Something is done above, and below it is so, too. */
static void begin_act(struct cast *c)
{
	world_look(c->w);
	world_copy_up(c->w);
	restore_all(c);
}

static void end_act(struct cast *c)
{
	drop_all(c);
	keep_all(c);
	world_copy_down(c->w);
}

void cast_read_on(struct cast *c, unsigned n)
{
	begin_act(c);
	CHECK_EQ(read_some(c, &c->reader[1], n), n);
	end_act(c);
}

void cast_write_log(struct cast *c, unsigned n)
{
	begin_act(c);
	write_log(c, load_relaxed(&c->f->partition[0].log_written) + n);
	end_act(c);
}

void cast_read_all(struct cast *c)
{
	unsigned i;

	begin_act(c);
	for (i = 0; i < READERS; i++)
		read_some(c, &c->reader[i], UINT32_MAX);
	end_act(c);
}

void cast_send_one(struct cast *c)
{
	begin_act(c);
	send_one(c, c->pub.pub);
	c->op_head = head_of(c);
	end_act(c);
}

void cast_answer(struct cast *c)
{
	begin_act(c);
	world_answer(c->w);
}

/* ---- death ------------------------------------------------------------------------------ */

static struct lay_member *member_of(struct fake *f, unsigned client)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(f->topic, &it)))
		if (m->client == client)
			return m;
	return NULL;
}

unsigned cast_take_out(struct fake *f, unsigned client)
{
	struct lay_client *rec = fake_client_record(f, client);
	struct lay_member *m;
	unsigned voided = 0;

	store_release(&rec->state, LAY_CLIENT_DEAD);
	while ((m = member_of(f, client))) {
		int is_publisher = load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER;

		if (is_publisher)
			voided += shmq__recover_publisher(f->topic, m);
		if (m->arena)
			store_release(&shmq__slabs_arena(f->slabs, m->arena - 1)->state,
				      LAY_ARENA_ORPHAN);
		add_relaxed(is_publisher ? &f->rec->publishers : &f->rec->subscribers, UINT32_MAX);
		shmq__topic_remove_member(f->topic, m);
	}
	store_relaxed(&rec->state, LAY_CLIENT_FREE);
	add_relaxed(&rec->gen, 1);
	return voided;
}

static void check_limit(struct cast *c, struct lay_member *m)
{
	uint64_t written = load_relaxed(&c->f->partition[0].log_written), limit;

	if (c->f->geo.log != SHMQ_LOG_BLOCK || !m ||
	    load_relaxed(&m->state) != LAY_MEMBER_PUBLISHER)
		return;
	limit = load_relaxed(&fake_entry(c->f, m, 0)->limit); /* 0: it has none yet */
	if (limit)
		CHECK_LE(seq_diff(limit, written + c->f->geo.depth), 0);
}

/* No arena stays with nobody. */
static void check_arenas(struct fake *f)
{
	struct shmq__roster_iter it = { 0 };
	unsigned owned = 0, has = 0, i;
	struct lay_member *m;

	for (i = 0; i < f->arenas; i++)
		owned += load_relaxed(&shmq__slabs_arena(f->slabs, i)->state) == LAY_ARENA_OWNED;
	while ((m = shmq__topic_next_member(f->topic, &it)))
		has += m->arena != 0;
	CHECK_EQ(owned, has);
}

/* What of the operation must arrive, as the words say before anybody does
 * anything about it. */
static void note_committed(struct cast *c)
{
	unsigned i, whole = 1;

	for (i = 0; i < c->scene.count; i++) {
		uint64_t seq = c->op_head + i;

		*line_of(c, seq) = (struct line){ CAST_SUBJECT, c->scene.prelude + i };
		c->must[i] = look(c, seq) == RING_MESSAGE;
		whole &= i || c->must[i];
		if (c->scene.is_atomic)
			c->must[i] &= whole;
	}
	for (; i < OP_MOST; i++)
		c->must[i] = 0;
	if (c->scene.is_round) /* what the subject sends */
		*line_of(c, c->op_head + c->f->geo.depth) =
			(struct line){ CAST_SUBJECT, CAST_ROUND };
}

/* Where everybody has passed it: what became of the slots. */
static void check_slots(struct cast *c)
{
	uint64_t head = head_of(c), holes = 0, from = c->op_head, seq;
	uint32_t is_bound = 0;
	unsigned i;

	for (i = 0; i < c->f->geo.depth; i++)
		if (LAY_CTRL_STATE(word_at(c, head + i)) == LAY_CLAIMED)
			FAIL("a slot is still claimed after recovery: %u after the head", i);
	/* What was passed over by the next round is nobody's any more. */
	if (head - from > c->f->geo.depth)
		from = head - c->f->geo.depth;
	for (seq = from, i = (unsigned)(from - c->op_head); seq != head; seq++, i++) {
		enum ring_look seen = look(c, seq);

		holes += seen == RING_VOID;
		if (i < c->scene.count && c->must[i])
			CHECK_EQ(seen, RING_MESSAGE);
		else if (seen != RING_VOID && i < c->scene.count &&
			 line_of(c, seq)->who == CAST_SUBJECT)
			FAIL("message %u of the dead is seen (%d), and must not be", i, seen);
		else if (seen != RING_VOID && seen != RING_MESSAGE)
			FAIL("seq %u of the operation is neither message nor hole: %d", i, seen);
	}
	for (i = 0; i < c->scene.count; i++)
		if (c->must[i])
			CHECK_LT((int64_t)(c->op_head + i - head), 0);
	CHECK_EQ(shmq__ring_voids_between(c->ring->mem, from, head, &is_bound), holes);
	CHECK_EQ(is_bound, 0);
}

/* ---- life goes on ------------------------------------------------------------------------ */

struct stage {
	struct reader late;
	shmq_pub *heir;
};

static void read_all_to_head(struct cast *c, struct stage *s)
{
	unsigned i;

	for (i = 0; i < READERS; i++)
		read_to_head(c, &c->reader[i]);
	read_to_head(c, &s->late);
}

/* Who joins from the oldest: what it gets is whole, and what it does not get
 * it is told. */
static void join_late(struct cast *c, struct reader *r)
{
	uint64_t lost = 0, got = 0, holes = 0, start;
	uint32_t is_bound = 0;
	struct shmq_msg m;
	int rc;

	r->kept.sub = open_sub(c->bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST,
			       .flags = SHMQ_SUB_RING_ONLY);
	start = r->kept.sub->lane[0].r.next;
	while ((rc = shmq_receive(r->kept.sub, &m, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN) {
			lost += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_message(c, &m);
		got++;
	}
	r->next = head_of(c);
	holes = shmq__ring_voids_between(c->ring->mem, start, r->next, &is_bound);
	CHECK_EQ(got + lost + holes, r->next - start);
	CHECK_OK(shmq_release(r->kept.sub));
	store_relaxed(&r->kept.sub->lane[0].entry->lost, 0);
}

static void go_round(struct cast *c, struct stage *s, shmq_pub *pub, unsigned count)
{
	unsigned i, stride = c->scene.topic.arena_bytes ? 1 : 64;

	for (i = 0; i < count; i++) {
		send_one(c, pub);
		if (i % stride == 0)
			read_all_to_head(c, s);
	}
	read_all_to_head(c, s);
}

/* Nobody reads meanwhile: then one is told how many it lost. */
static void lap_a_reader(struct cast *c, shmq_pub *pub)
{
	struct reader *r = &c->reader[0];
	uint64_t lost = 0, got = 0, from = r->next;
	struct shmq_msg m;
	unsigned i;
	int rc;

	for (i = 0; i < c->f->geo.depth + 100; i++)
		send_one(c, pub);
	while ((rc = shmq_receive(r->kept.sub, &m, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN) {
			CHECK_EQ(m.lost_is_bound, 0);
			lost += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_message(c, &m);
		got++;
	}
	CHECK_EQ(got + lost, head_of(c) - from); /* no hole is that new */
	CHECK_GT(lost, 0);
}

/* One of those who stand before the operation is lapped over what became of
 * it: loss is exact although there are holes. */
static void lap_over_the_operation(struct cast *c, shmq_pub *pub)
{
	struct reader *r = &c->reader[1];
	uint64_t lost = 0, got = 0, holes, from = r->next;
	uint32_t is_bound = 0;
	struct shmq_msg m;
	unsigned i;
	int rc;

	for (i = 0; i < c->f->geo.depth + 100; i++)
		send_one(c, pub);
	holes = shmq__ring_voids_between(c->ring->mem, from, head_of(c), &is_bound);
	while ((rc = shmq_receive(r->kept.sub, &m, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
		if (rc == SHMQ_EOVERRUN) {
			CHECK_EQ(m.lost_is_bound, 0);
			lost += m.lost;
			continue;
		}
		CHECK_OK(rc);
		check_message(c, &m);
		got++;
	}
	CHECK_EQ(got + lost + holes, head_of(c) - from);
}

static void go_on(struct cast *c)
{
	struct fake keep = *c->f;
	int is_alone = c->pub.pub && c->f->geo.mode == SHMQ_EXCLUSIVE;
	struct stage s = { .heir = is_alone ? c->pub.pub : open_pub(c->bus, STANDIN_TOPIC) };

	if (c->f->geo.policy == SHMQ_LOSSY && c->buried % 2) {
		lap_over_the_operation(c, s.heir);
	} else {
		read_to_head(c, &c->reader[0]);
		read_to_head(c, &c->reader[1]);
		join_late(c, &s.late);
		if (c->pub.pub)
			go_round(c, &s, c->pub.pub, 3);
		go_round(c, &s, s.heir, (unsigned)c->f->geo.depth + 10);
		if (c->pub.pub)
			go_round(c, &s, c->pub.pub, 70);
		if (c->f->geo.policy == SHMQ_LOSSY)
			lap_a_reader(c, s.heir);
		shmq_sub_close(s.late.kept.sub);
	}
	if (!is_alone)
		shmq_pub_close(s.heir);
	/* What was opened meanwhile never was. */
	c->f->clients = keep.clients;
	c->f->members = keep.members;
	c->f->arenas = keep.arenas;
	c->f->entries = keep.entries;
	c->f->heap = keep.heap;
	c->f->gen = keep.gen;
	c->f->tokens = keep.tokens;
	c->f->arena_bytes = keep.arena_bytes;
	c->f->last_chunk = keep.last_chunk;
}

void cast_bury(struct cast *c)
{
	uint64_t sent = c->sent;
	/* The ring is not full, so that others need not wait. */
	int may_send = c->pub.pub && c->scene.unread < FAKE_DEPTH / 2 && !c->scene.is_round;
	struct lay_member *m;

	world_copy_up(c->w);
	restore_all(c);
	note_committed(c);
	/* While it is only late, who reads comes to what is committed before its
	 * claims, and who publishes to the slots behind them. */
	read_some(c, &c->reader[0], UINT32_MAX);
	if (may_send && c->buried % 3 == 1) {
		send_one(c, c->pub.pub);
		read_some(c, &c->reader[0], UINT32_MAX);
	}
	m = member_of(c->f, c->subject);
	check_limit(c, m);
	/* Another publisher may be the first to have proof. */
	if (c->pub.pub && m && load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER && c->buried % 2) {
		shmq__recover_publisher(c->pub.pub->h.topic, m);
		check_woken(c);
	}
	if (c->victim && c->buried % 2)
		cast_take_out(c->f, c->victim);
	cast_take_out(c->f, c->subject);
	if (c->victim && c->buried % 2 == 0)
		cast_take_out(c->f, c->victim);
	CHECK(!member_of(c->f, c->subject) && !member_of(c->f, c->victim));
	check_woken(c);
	check_slots(c);
	check_arenas(c->f);
	go_on(c);
	check_arenas(c->f);
	c->sent = sent;
	c->buried++;
}

void cast_end(struct cast *c, unsigned sent)
{
	unsigned i;

	world_copy_up(c->w);
	restore_all(c);
	note_committed(c);
	for (i = 0; i < c->scene.count && !c->victim; i++)
		CHECK_EQ(c->must[i], i < sent);
	if ((sent || c->victim) && c->scene.sleepers)
		CHECK_NE(load_relaxed(&c->ring->bells->data.word), c->asleep_at[0]);
	read_to_head(c, &c->reader[0]);
	if (!c->victim)
		CHECK_EQ(c->reader[0].next, c->op_head + sent);
}
