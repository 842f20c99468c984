/* SPDX-License-Identifier: MIT
 *
 * sub_conflate: only the newest message of each key, for who is slower than what
 * comes.
 *
 * Each call reads all that is there, by the way of any subscriber, and keeps a copy
 * of the newest message of each key that was not handed out yet; what it replaces is
 * counted.  Keys have their turns in the order in which something came for them, so a
 * busy one keeps none of the others waiting.  Of keys there may be as many as there are
 * messages: what is kept has a bound, at which it is as slow as any subscriber.
 */
#include "notify.h"
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define READ_MAX (1u << 20)         /* in one call, should publishers be as fast as we are */
#define KEPT_MAX ((size_t)64 << 20) /* bytes; at it nothing is read until some are handed out */

struct newest {
	struct newest *chain; /* of its hash */
	struct newest *next;  /* in turn */
	uint64_t hash;
	struct shmq_msg msg; /* points into bytes */
	char *bytes;
	size_t room;
	char topic[]; /* of a pattern; else "" */
};

struct conflate {
	struct newest **bucket;
	size_t mask, count, bytes;
	struct newest *first, *last; /* in turn */
	struct newest *hand;         /* handed out last; in no table */
	int held;                    /* an end, told once that is empty */
	struct shmq_msg held_msg;
	shmq_au64 pending, replaced;
	shmq_au64 received, received_bytes; /* handed out */
};

/* ---- the table ------------------------------------------------------- */

static uint64_t hash_of(const struct shmq_msg *msg, const char *topic)
{
	uint64_t seed = *topic ? XXH3_64bits(topic, strlen(topic)) : 0;

	return XXH3_64bits_withSeed(msg->key_len ? msg->key : "", msg->key_len, seed);
}

static struct newest *find(const struct conflate *c, uint64_t hash, const struct shmq_msg *msg,
			   const char *topic)
{
	struct newest *n = c->count ? c->bucket[hash & c->mask] : NULL;

	for (; n; n = n->chain)
		if (n->hash == hash && n->msg.key_len == msg->key_len &&
		    (!msg->key_len || !memcmp(n->msg.key, msg->key, msg->key_len)) &&
		    !strcmp(n->topic, topic))
			break;
	return n;
}

static int widen(struct conflate *c)
{
	size_t mask = c->bucket ? 2 * c->mask + 1 : 63, i;
	struct newest **wide = calloc(mask + 1, sizeof(*wide)), *n;

	if (!wide)
		return -ENOMEM;
	for (i = 0; c->bucket && i <= c->mask; i++)
		while ((n = c->bucket[i])) {
			c->bucket[i] = n->chain;
			n->chain = wide[n->hash & mask];
			wide[n->hash & mask] = n;
		}
	free(c->bucket);
	c->bucket = wide;
	c->mask = mask;
	return 0;
}

static void list(struct conflate *c, struct newest *n)
{
	n->chain = c->bucket[n->hash & c->mask];
	c->bucket[n->hash & c->mask] = n;
	c->count++;
	store_relaxed(&c->pending, c->count); /* relaxed: a counter */
}

static struct newest *add(struct conflate *c, uint64_t hash, const char *topic)
{
	size_t bytes = strlen(topic) + 1;
	struct newest *n;

	if ((!c->bucket || c->count > c->mask) && widen(c))
		return NULL;
	n = calloc(1, sizeof(*n) + bytes);
	if (!n)
		return NULL;
	n->hash = hash;
	memcpy(n->topic, topic, bytes);
	c->bytes += sizeof(*n) + bytes;
	return n;
}

static void free_newest(struct conflate *c, struct newest *n)
{
	if (!n)
		return;
	c->bytes -= sizeof(*n) + strlen(n->topic) + 1 + n->room;
	free(n->bytes);
	free(n);
}

static struct newest *pop(struct conflate *c)
{
	struct newest *n = c->first, **at = &c->bucket[n->hash & c->mask];

	while (*at != n)
		at = &(*at)->chain;
	*at = n->chain;
	c->first = n->next;
	c->count--;
	store_relaxed(&c->pending, c->count);
	return n;
}

/* ---- reading --------------------------------------------------------- */

static int hold(struct conflate *c, struct newest *n, const struct shmq_msg *msg)
{
	size_t need = sub_whole_bytes(msg) + 1; /* nothing has its place, too */

	if (need > n->room) {
		char *more = realloc(n->bytes, need);

		if (!more)
			return -ENOMEM;
		n->bytes = more;
		c->bytes += need - n->room;
		n->room = need;
	}
	n->msg = *msg;
	shmq__sub_copy_out(&n->msg, n->bytes);
	return 0;
}

/* -ENOMEM: what was there before is as it was. */
static int keep(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	const char *topic = sub->pattern ? shmq__pattern_topic(sub) : "";
	struct conflate *c = sub->conflate;
	uint64_t hash = hash_of(msg, topic);
	struct newest *n = find(c, hash, msg, topic);

	if (n) {
		int error = hold(c, n, msg);

		if (!error)
			sub_add(&c->replaced, 1);
		return error;
	}
	n = add(c, hash, topic);
	if (!n || hold(c, n, msg)) {
		free_newest(c, n);
		return -ENOMEM;
	}
	if (c->first)
		c->last->next = n;
	else
		c->first = n;
	c->last = n;
	list(c, n);
	return 0;
}

/* All that is there, waiting for the first.  Why there is no more, 0 if there may be. */
static int read_all(struct shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	unsigned n;
	int rc = 0;

	sub->is_conflating = 1;
	for (n = 0; !rc && n < READ_MAX && sub->conflate->bytes < KEPT_MAX; n++) {
		rc = shmq__sub_receive_whole(sub, msg, n ? SHMQ_NOWAIT : timeout_ns);
		if (!rc && (rc = keep(sub, msg)))
			shmq__sub_take_back(sub, msg);
	}
	shmq_release(sub);
	sub->is_conflating = 0;
	return rc;
}

/* It is told by this call alone, so nothing may come before it. */
static int is_told_once(const struct shmq_sub *sub, int rc)
{
	switch (rc) {
	case SHMQ_EOVERRUN:
	case SHMQ_ECORRUPT:
		return 1;
	case 0:
	case SHMQ_EEMPTY:
	case SHMQ_ETIMEOUT:
	case -EINTR:
	case SHMQ_EENDED:
	case SHMQ_ELOST:
	case SHMQ_EFORKED:
	case SHMQ_ELIMIT:
	case -ENOMEM:
	case -EMFILE:
		return 0;
	}
	return sub->pattern != NULL;
}

static int hand_out(struct shmq_sub *sub, struct shmq_msg *msg)
{
	struct conflate *c = sub->conflate;

	c->hand = pop(c);
	*msg = c->hand->msg;
	sub_add(&c->received, 1);
	sub_add(&c->received_bytes, msg->len);
	if (sub->pattern)
		shmq__pattern_tell_of(sub, c->hand->topic);
	/* There is more, of which no publisher will tell. */
	if (c->first && sub->notify)
		shmq__notify_raise(sub->notify);
	return 0;
}

int shmq__conflate_receive(struct shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	struct conflate *c = sub->conflate;
	int rc;

	shmq__conflate_release(sub);
	if (c->held && !c->first) {
		rc = c->held;
		*msg = c->held_msg;
		c->held = 0;
		return rc;
	}
	rc = read_all(sub, msg, c->first ? SHMQ_NOWAIT : timeout_ns);
	if (is_told_once(sub, rc) || !c->first)
		return rc;
	if (rc == SHMQ_EEVICTED && !c->held) {
		c->held = rc;
		c->held_msg = *msg;
	}
	return hand_out(sub, msg);
}

/* It is next again. */
static void take_back(struct shmq_sub *sub)
{
	struct conflate *c = sub->conflate;
	struct newest *n = c->hand;

	c->hand = NULL;
	sub_add(&c->received, (uint64_t)-1);
	sub_add(&c->received_bytes, (uint64_t)0 - n->msg.len);
	n->next = c->first;
	c->first = n;
	if (!n->next)
		c->last = n;
	list(c, n);
}

int shmq__conflate_receive_copy(struct shmq_sub *sub, void *buf, size_t capacity,
				struct shmq_msg *msg, int64_t timeout_ns)
{
	int rc = shmq__conflate_receive(sub, msg, timeout_ns);

	if (rc)
		return rc;
	if (sub_whole_bytes(msg) > capacity) {
		take_back(sub);
		return SHMQ_EBUFFER;
	}
	shmq__sub_copy_out(msg, buf);
	return 0;
}

void shmq__conflate_release(struct shmq_sub *sub)
{
	free_newest(sub->conflate, sub->conflate->hand);
	sub->conflate->hand = NULL;
}

int shmq__conflate_has_some(const struct shmq_sub *sub)
{
	return sub->conflate->first || sub->conflate->held;
}

/* What is read and not handed out was not received yet.  Counted apart: of counters that
 * are read one after the other while all of them go on, no difference is right. */
void shmq__conflate_get_stats(const struct shmq_sub *sub, struct shmq_sub_stats *stats)
{
	const struct conflate *c = sub->conflate;

	stats->conflated = load_relaxed(&c->replaced);
	stats->received = load_relaxed(&c->received);
	stats->received_bytes = load_relaxed(&c->received_bytes);
	stats->lag += load_relaxed(&c->pending);
}

int shmq__conflate_open(struct shmq_sub *sub)
{
	sub->conflate = calloc(1, sizeof(*sub->conflate));
	if (!sub->conflate)
		return -ENOMEM;
	sub_judge(sub);
	return 0;
}

void shmq__conflate_close(struct shmq_sub *sub)
{
	struct conflate *c = sub->conflate;

	if (!c)
		return;
	while (c->first)
		free_newest(c, pop(c));
	free_newest(c, c->hand);
	free(c->bucket);
	free(c);
}
