/* SPDX-License-Identifier: MIT
 *
 * publish: the short ways: a plain message on a topic of one partition, and
 * zero-copy.  What they cannot do is done by pub_send.c.
 */
#include "probe.h"
#include "pub.h"

#include <string.h>

#define ALWAYS inline __attribute__((always_inline))

/* Copy up to a few lines without a call. */
static inline void copy_short(char *to, const char *from, size_t n)
{
	size_t i;

	if (likely(n >= 16)) {
		memcpy(to + n - 16, from + n - 16, 16);
		for (i = 0; unlikely(i + 16 < n); i += 16)
			memcpy(to + i, from + i, 16);
	} else if (n >= 8) {
		memcpy(to, from, 8);
		memcpy(to + n - 8, from + n - 8, 8);
	} else if (n >= 4) {
		memcpy(to, from, 4);
		memcpy(to + n - 4, from + n - 4, 4);
	} else if (n) {
		to[0] = from[0];
		to[n / 2] = from[n / 2];
		to[n - 1] = from[n - 1];
	}
}

/* The same of a line or more, the first `near` bytes excepted. */
static inline void copy_far(char *to, const char *from, size_t n, size_t near)
{
	memcpy(to + n - 16, from + n - 16, 16);
	for (; unlikely(near + 16 < n); near += 16)
		memcpy(to + near, from + near, 16);
}

/* Payload of a slot without stamps.  The first line, which readers poll, is
 * written last and in one go: then it travels once. */
static inline void put_inline(struct lay_slot *s, const char *data, size_t len,
			      void (*copy)(char *to, const char *from, size_t n))
{
	char *at = (char *)(s + 1);
	size_t near = LAY_LINE - sizeof(*s);

	if (copy == copy_short && likely(len >= LAY_LINE)) {
		copy_far(at, data, len, near);
	} else if (len > near) {
		copy(at + near, data + near, len - near);
	} else {
		copy_short(at, data, len);
		return;
	}
	fence_light();
	memcpy(at, data, near);
}

static inline void copy_long(char *to, const char *from, size_t n)
{
	memcpy(to, from, n);
}

/* After a commit where anything is out of the ordinary. */
static __attribute__((noinline)) int after_commit(struct shmq_pub *pub, struct lane *l)
{
	pub_look_at_bell(pub, l);
	l->served = load_relaxed(&l->bell->served);
	return lane_has_ended(l);
}

/* The slot of a plain message, at once: 1, or 0 if it takes more than that. */
static ALWAYS int take_next(struct lane *l, enum shmq_mode mode)
{
	return mode == SHMQ_EXCLUSIVE ? ring_has_room(&l->w, 1) : ring_claim_next(&l->w);
}

/* Header and commit: the slot has its payload. */
static ALWAYS void fill_slot(struct lay_slot *s, uint64_t word, size_t len, uint16_t flags,
			     uint16_t type)
{
	const struct lay_slot head = { .len = (uint32_t)len, .flags = flags, .type = type };

	memcpy(&s->len, &head.len, sizeof(head) - offsetof(struct lay_slot, len));
	store_release(&s->ctrl, word); /* R1 */
}

static ALWAYS void commit_slot(struct lane *l, struct lay_slot *s, uint64_t word, uint64_t seq,
			       size_t len, uint16_t flags, uint16_t type, enum shmq_mode mode)
{
	fill_slot(s, word, len, flags, type);
	PROBE3(publish, l->w.mem, seq, len);
	lane_account(l, seq, len, mode);
}

/* The committed control word of seq. */
static ALWAYS uint64_t committed(const struct lane *l, uint64_t seq)
{
	return LAY_CTRL(seq >> l->w.geo.depth_shift, 0, 0) | l->committed;
}

/* W2 to W4, and the end of the ring. */
static ALWAYS int look_after_commit(struct shmq_pub *pub, struct lane *l, enum shmq__fence fence)
{
	if (unlikely(fence == SHMQ__FENCE_FULL))
		fence_full();
	if (unlikely(bell_armed(l->bell) != l->served) ||
	    unlikely(load_relaxed(&l->w.mem->state) != LAY_RING_LIVE))
		return after_commit(pub, l);
	return 0;
}

/* What may be told at compile time of how a plain message is sent. */
struct way {
	enum shmq_mode mode;
	enum shmq__fence fence;
	void (*copy)(char *to, const char *from, size_t n);
};

static ALWAYS int publish_plain(struct shmq_pub *pub, struct lane *l, uint64_t seq,
				const void *data, size_t len, struct way way)
{
	struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, seq);

	if (way.copy == copy_long && len > RING_LONG_BYTES)
		ring_fetch_long(&l->w, seq, len);
	put_inline(s, data, len, way.copy);
	commit_slot(l, s, committed(l, seq), seq, len, 0, 0, way.mode);
	ring_fetch_ahead(&l->w, seq);
	return look_after_commit(pub, l, way.fence);
}

/* Everything but what shmq_publish() does itself. */
static __attribute__((noinline)) int publish_long(struct shmq_pub *pub, const void *data,
						  size_t len)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct shmq_msg m = { .partition = SHMQ_ANY_PARTITION };
	struct lane *l = &pub->lane[0];
	enum shmq_mode mode = l->w.geo.mode;
	uint64_t seq = l->w.next;

	if (len < pub->plain_end && take_next(l, mode))
		return publish_plain(pub, l, seq, data, len,
				     (struct way){ mode, pub->fence, copy_long });
	return shmq__pub_send(pub, &m, &iov, 1, BELL_NOW, &l);
}

static __attribute__((noinline)) int publish_shared(struct shmq_pub *pub, const void *data,
						    size_t len)
{
	struct lane *l = &pub->lane[0];
	uint64_t seq = l->w.next;

	if (unlikely(!take_next(l, SHMQ_SHARED)))
		return publish_long(pub, data, len);
	return publish_plain(pub, l, seq, data, len,
			     (struct way){ SHMQ_SHARED, SHMQ__FENCE_LIGHT, copy_short });
}

/* A short message that is in no run: of a shared lane, at the end of a lap, or where
 * there is no room. */
static __attribute__((noinline)) int publish_next(struct shmq_pub *pub, const void *data,
						  size_t len)
{
	struct lane *l = &pub->lane[0];

	if (l->w.geo.mode == SHMQ_SHARED)
		return publish_shared(pub, data, len);
	if (!take_next(l, SHMQ_EXCLUSIVE))
		return publish_long(pub, data, len);
	ring_begin_run(&l->w);
	return publish_plain(pub, l, l->w.next, data, len,
			     (struct way){ SHMQ_EXCLUSIVE, SHMQ__FENCE_LIGHT, copy_short });
}

/* The short way keeps nothing across a call, so that what stands between a
 * message received and its answer's commit is a few dozen instructions. */
SHMQ_EXPORT HOT int shmq_publish(shmq_pub *pub, const void *data, size_t len)
{
	struct lane *l = &pub->lane[0];
	uint64_t seq = l->w.next;
	struct lay_slot *s;

	if (unlikely(pub_check(pub)))
		return SHMQ_EFORKED;
	if (unlikely(len >= pub->short_end))
		return publish_long(pub, data, len);
	if (unlikely(!ring_is_in_run(&l->w, seq)))
		return publish_next(pub, data, len);
	s = ring_run_slot(&l->w, seq);
	put_inline(s, data, len, copy_short);
	commit_slot(l, s, l->w.run.word, seq, len, 0, 0, SHMQ_EXCLUSIVE);
	ring_fetch((const char *)s + (size_t)RING_PREFETCH * l->w.geo.slot_bytes);
	return look_after_commit(pub, l, SHMQ__FENCE_LIGHT);
}

struct lane *shmq__pub_send_plain(struct shmq_pub *pub, struct shmq_msg *m, const void *data,
				  size_t len)
{
	struct lane *l = &pub->lane[0];
	uint32_t lanes = pub->h.topic->geo.partitions;
	enum shmq_mode mode;
	struct lay_slot *s;
	uint64_t seq;

	if (len >= pub->inline_end || m->key_len || m->properties_len ||
	    (m->partition == SHMQ_ANY_PARTITION ? lanes > 1 : (uint32_t)m->partition >= lanes))
		return NULL;
	if (m->partition > 0)
		l += m->partition;
	seq = l->w.next;
	mode = l->w.geo.mode;
	if (!take_next(l, mode))
		return NULL;
	s = lay_slot_at(l->w.mem, &l->w.geo, seq);
	ring_fetch_ahead(&l->w, seq);
	if (len > RING_LONG_BYTES)
		put_inline(s, data, len, copy_long);
	else
		put_inline(s, data, len, copy_short);
	commit_slot(l, s, committed(l, seq), seq, len, 0, m->type, mode);
	m->seq = seq;
	m->partition = (int32_t)(l - pub->lane);
	m->ts_ns = 0;
	return l;
}

static ALWAYS int is_plain(const struct shmq_msg *m, size_t end)
{
	return m->len < end && !(m->key_len | m->properties_len) && m->partition <= 0 &&
	       m->partition >= SHMQ_ANY_PARTITION;
}

/* Into the slot s, whose committed control word is `word`. */
static ALWAYS void send_member(struct lay_slot *s, uint64_t word, struct shmq_msg *m, uint64_t seq)
{
	if (unlikely(m->len > RING_LONG_BYTES))
		put_inline(s, m->data, m->len, copy_long);
	else
		put_inline(s, m->data, m->len, copy_short);
	fill_slot(s, word, m->len, 0, m->type);
	PROBE3(publish, s, seq, m->len);
	m->seq = seq;
	m->partition = 0;
	m->ts_ns = 0;
}

static size_t send_run_shared(struct shmq_pub *pub, struct shmq_msg *m, size_t n)
{
	struct lane *l = &pub->lane[0];
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < n && is_plain(&m[i], pub->plain_end); i++) {
		uint64_t seq = l->w.next;

		if (!ring_claim_next(&l->w))
			break;
		ring_fetch_ahead(&l->w, seq);
		send_member(lay_slot_at(l->w.mem, &l->w.geo, seq), committed(l, seq), &m[i], seq);
		bytes += m[i].len;
	}
	if (i)
		lane_account_run(l, l->w.next, i, bytes, SHMQ_SHARED);
	return i;
}

/* Slot by slot up to the end of the ring: what all have in common is found once,
 * and kept where no store to a slot could have changed it. */
static size_t send_run_exclusive(struct shmq_pub *pub, struct shmq_msg *m, size_t n)
{
	struct lane *l = &pub->lane[0];
	uint64_t seq = l->w.next, bytes = 0, end = pub->plain_end;
	uint64_t word = committed(l, seq);
	size_t i, step = l->w.geo.slot_bytes, left = l->w.geo.depth - (seq & l->w.geo.mask);
	char *at = (char *)lay_slot_at(l->w.mem, &l->w.geo, seq);
	char *ahead = (char *)lay_slot_at(l->w.mem, &l->w.geo, seq + RING_PREFETCH);
	char *ring_end = at + left * step;

	n = n < left ? n : left;
	left = seq_diff(l->w.room, seq) > 0 ? l->w.room - seq : 0;
	n = n < left ? n : left;
	for (i = 0; i < n && is_plain(&m[i], end); i++) {
		prefetch_write(ahead);
		prefetch_write(ahead + LAY_LINE); /* or the next slot */
		send_member((struct lay_slot *)at, word, &m[i], seq + i);
		bytes += m[i].len;
		at += step;
		ahead += step;
		if (unlikely(ahead == ring_end))
			ahead = (char *)lay_slot_at(l->w.mem, &l->w.geo, 0);
	}
	if (i)
		lane_account_run(l, seq + i, i, bytes, SHMQ_EXCLUSIVE);
	return i;
}

size_t shmq__pub_send_run(struct shmq_pub *pub, struct shmq_msg *m, size_t n)
{
	struct lane *l = &pub->lane[0];
	uint64_t most = RING_HINT_EVERY - l->count % RING_HINT_EVERY;

	n = n < most ? n : most;
	return l->w.geo.mode == SHMQ_EXCLUSIVE ? send_run_exclusive(pub, m, n) :
						 send_run_shared(pub, m, n);
}

/* ---- zero-copy -------------------------------------------------------------- */

static ALWAYS void open_claim(struct shmq_pub *pub, void *data, size_t len, enum claim_kind kind)
{
	pub->claim.data = data;
	pub->claim.len = len;
	pub->claim.kind = kind;
}

/* What shmq__pub_prepare_arena() did not find out beforehand. */
static __attribute__((noinline)) int claim_arena(struct shmq_pub *pub, size_t len, void **data)
{
	struct lay_arena_ref where;
	int error = shmq__pub_take_arena(pub, len, &where);

	if (unlikely(error)) {
		lane_note_refused(&pub->lane[0], error);
		return error;
	}
	*data = pub->arena.mem + where.off;
	open_claim(pub, *data, len, CLAIM_ARENA);
	return 0;
}

SHMQ_EXPORT int shmq_claim(shmq_pub *pub, size_t len, void **data)
{
	struct arena_piece *piece;
	int error = pub_check(pub);

	if (error)
		return error;
	if (pub->claim.kind != CLAIM_NONE)
		return SHMQ_ECLAIM;
	if (len > pub->h.topic->geo.max_bytes)
		return SHMQ_ETOOBIG;
	if (len <= pub->h.topic->geo.inline_bytes) {
		*data = pub->staging;
		open_claim(pub, pub->staging, len, CLAIM_STAGED);
		return 0;
	}
	piece = arena_take_known(&pub->arena, len);
	if (unlikely(!piece))
		return claim_arena(pub, len, data);
	*data = pub->arena.mem + piece->off;
	open_claim(pub, *data, len, CLAIM_ARENA);
	return 0;
}

/* All that was claimed, as a plain message in slot seq of the only lane. */
static int commit_plain(struct shmq_pub *pub, uint64_t seq)
{
	struct lane *l = &pub->lane[0];
	struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, seq);
	enum shmq_mode mode = l->w.geo.mode;
	size_t len = pub->claim.len;
	struct lay_arena_ref where;
	int rc;

	if (pub->claim.kind == CLAIM_STAGED) {
		pub->claim.kind = CLAIM_NONE;
		return publish_plain(pub, l, seq, pub->staging, len,
				     (struct way){ mode, pub->fence, copy_long });
	}
	where = (struct lay_arena_ref){ .id = pub->arena.id,
					.gen = pub->arena.gen,
					.off = (uint64_t)((char *)pub->claim.data -
							  pub->arena.mem) };
	memcpy(s + 1, &where, sizeof(where));
	commit_slot(l, s, committed(l, seq), seq, len, SHMQ_MSG_ARENA, 0, mode);
	ring_fetch_ahead(&l->w, seq);
	rc = look_after_commit(pub, l, pub->fence);
	shmq__pub_settle_arena(pub, l, seq, where.off);
	shmq__pub_prepare_arena(pub, len);
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
	int error = pub_check(pub);

	if (error)
		return error;
	if (pub->claim.kind == CLAIM_NONE)
		return SHMQ_ECLAIM;
	if (!msg && pub->plain_end && take_next(l, l->w.geo.mode))
		return commit_plain(pub, seq);
	if (!msg)
		msg = &plain;
	if (msg->key_len || msg->properties_len)
		return SHMQ_EOPTION;
	if (msg->len > pub->claim.len)
		return SHMQ_ETOOBIG;
	iov.iov_base = pub->claim.data;
	iov.iov_len = msg->len ? msg->len : pub->claim.len;
	error = shmq__pub_choose_lane(pub, msg, &l);
	if (!error)
		error = shmq__pub_make_parcel(pub, msg, &iov, 1, 0, &p);
	if (error)
		return error;
	if (pub->claim.kind == CLAIM_ARENA) {
		p.flags |= SHMQ_MSG_ARENA; /* also when it was shortened */
		p.where = (struct lay_arena_ref){ .id = pub->arena.id,
						  .gen = pub->arena.gen,
						  .off = (uint64_t)((char *)pub->claim.data -
								    pub->arena.mem) };
	}
	error = shmq__pub_send_parcel(pub, l, &p, &msg->seq);
	if (error) {
		lane_note_refused(l, error);
		return error; /* the claim stays open */
	}
	msg->partition = (int32_t)(l - pub->lane);
	msg->ts_ns = p.ts;
	pub_look_at_bell(pub, l);
	if (pub->claim.kind == CLAIM_ARENA)
		shmq__pub_prepare_arena(pub, pub->claim.len);
	pub->claim.kind = CLAIM_NONE;
	return lane_has_ended(l);
}

SHMQ_EXPORT int shmq_abort(shmq_pub *pub)
{
	int error = pub_check(pub);

	if (error)
		return error;
	if (pub->claim.kind == CLAIM_NONE)
		return SHMQ_ECLAIM;
	if (pub->claim.kind == CLAIM_ARENA) {
		struct arena_piece *piece =
			shmq__pub_find_piece(pub,
					     (uint64_t)((char *)pub->claim.data - pub->arena.mem));

		if (piece && piece == shmq__arena_last(&pub->arena))
			shmq__arena_give_back(&pub->arena);
		else if (piece) /* messages were published behind it */
			piece->word = PIECE_ABORTED;
	}
	pub->claim.kind = CLAIM_NONE;
	return 0;
}
