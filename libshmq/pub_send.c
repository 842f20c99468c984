/* SPDX-License-Identifier: MIT
 *
 * pub_send: one message of any kind: which lane, what the slot will say, bytes
 * to the arena, claim, header and payload, commit, bell.
 */
#include "probe.h"
#include "pub.h"
#include "clock.h"

#include <string.h>
#include <xxhash.h>

/* Exclusive, and the room is used up. */
static __attribute__((noinline)) int find_room(struct shmq_pub *pub, struct lane *l)
{
	int error = pub_have_credit(pub, l, 1);

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
			error = shmq__pub_wait_for_credit(pub, l, l->w.next + 1);
			break;
		case RING_CLAIM_HELD:
			error = shmq__pub_wait_for_claim(pub, l, l->w.next, word);
			break;
		default:
			error = SHMQ_ECORRUPT;
		}
		if (error)
			return error;
	}
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

void shmq__pub_write_slot(struct shmq_pub *pub, struct lane *l, uint64_t seq,
			  const struct parcel *p)
{
	struct lay_slot *s = lay_slot_at(l->w.mem, &l->w.geo, seq);
	char *at = write_header(l, pub->stamps, s, p, p->msg->type);

	if (p->flags & SHMQ_MSG_ARENA)
		memcpy(at, &p->where, sizeof(p->where));
	else
		write_payload(at, p);
}

static uint64_t key_hash(const struct shmq_msg *m)
{
	return XXH3_64bits(m->key, m->key_len);
}

int shmq__pub_choose_lane(struct shmq_pub *pub, const struct shmq_msg *m, struct lane **out)
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

int shmq__pub_make_parcel(struct shmq_pub *pub, const struct shmq_msg *m, const struct iovec *iov,
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

int shmq__pub_stow(struct shmq_pub *pub, struct parcel *p)
{
	int error;

	if (!(p->flags & SHMQ_MSG_ARENA))
		return 0;
	shmq__pub_rewind_arena(pub, p->bytes);
	error = shmq__pub_take_arena(pub, p->bytes, &p->where);
	if (!error)
		write_payload(pub->arena.mem + p->where.off, p);
	return error;
}

int shmq__pub_send_parcel(struct shmq_pub *pub, struct lane *l, const struct parcel *p,
			  uint64_t *seq)
{
	int error = acquire(pub, l, seq);

	if (error)
		return error;
	shmq__pub_write_slot(pub, l, *seq, p);
	ring_commit(&l->w, lay_slot_at(l->w.mem, &l->w.geo, *seq), *seq);
	PROBE3(publish, l->w.mem, *seq, p->bytes);
	if (p->flags & SHMQ_MSG_ARENA)
		shmq__pub_settle_arena(pub, l, *seq, p->where.off);
	lane_account(l, *seq, p->data_bytes, l->w.geo.mode);
	return 0;
}

int shmq__pub_send(struct shmq_pub *pub, struct shmq_msg *m, const struct iovec *iov, int n,
		   enum bell_mode bell, struct lane **used)
{
	struct lane *l = n == 1 ? shmq__pub_send_plain(pub, m, iov->iov_base, iov->iov_len) : NULL;
	struct parcel p;
	int error;

	if (l) {
		*used = l;
		if (bell == BELL_LATER)
			return 0;
		pub_look_at_bell(pub, l);
		return lane_has_ended(l);
	}
	error = shmq__pub_choose_lane(pub, m, &l);
	if (!error)
		error = shmq__pub_make_parcel(pub, m, iov, n, 0, &p);
	if (error)
		return error;
	error = shmq__pub_stow(pub, &p);
	if (!error) {
		error = shmq__pub_send_parcel(pub, l, &p, &m->seq);
		if (error && (p.flags & SHMQ_MSG_ARENA))
			shmq__arena_give_back(&pub->arena);
	}
	if (error) {
		lane_note_refused(l, error);
		return error;
	}
	m->partition = (int32_t)(l - pub->lane);
	m->ts_ns = p.ts;
	*used = l;
	if (bell == BELL_NOW)
		pub_look_at_bell(pub, l);
	if (p.flags & SHMQ_MSG_ARENA)
		shmq__pub_prepare_arena(pub, p.bytes);
	return bell == BELL_NOW ? lane_has_ended(l) : 0;
}

SHMQ_EXPORT int shmq_publish_msg(shmq_pub *pub, struct shmq_msg *msg)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg->data, .iov_len = msg->len };
	struct lane *l;
	int error = pub_check(pub);

	return error ? error : shmq__pub_send(pub, msg, &iov, 1, BELL_NOW, &l);
}

SHMQ_EXPORT int shmq_publish_iov(shmq_pub *pub, struct shmq_msg *msg, const struct iovec *iov,
				 int iov_count)
{
	struct lane *l;
	int error = pub_check(pub);

	if (error)
		return error;
	if (iov_count < 0)
		return SHMQ_EOPTION;
	return shmq__pub_send(pub, msg, iov, iov_count, BELL_NOW, &l);
}
