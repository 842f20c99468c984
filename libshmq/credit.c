/* SPDX-License-Identifier: MIT
 *
 * Edges
 *   C1 limit -> C2 full fence -> C3 roster epoch, cursors
 *      pairs with J1 to J3 of topic.c.
 *   A3 cursor (acquire) -> stores over what it has passed; pairs with R3
 *      of ring.h, and with L1 of the tailer: what is in the log's files may
 *      be written over.  The log is there as long as the topic is, so nobody
 *      can miss that it joins.
 */
#include "credit.h"
#include "mem.h"

#include <errno.h>
#include <string.h>

void shmq__credit_init(struct shmq__credit *c, struct shmq__topic *topic, uint32_t partition,
		       struct lay_entry *own)
{
	*c = (struct shmq__credit){ .topic = topic, .partition = partition, .own = own };
}

static void put(struct credit_gater *gater, unsigned capacity)
{
	if (capacity > CREDIT_FEW)
		shmq__mem_put(gater, capacity * sizeof(*gater));
}

void shmq__credit_fini(struct shmq__credit *c)
{
	put(c->gater, c->capacity);
	c->gater = NULL;
	c->count = c->capacity = 0;
}

static int was_absent(const struct credit_gater *old, unsigned n, const struct lay_entry *e,
		      uint64_t gen)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (old[i].entry == e && old[i].gen == gen)
			return old[i].absent;
	return 0;
}

/* List the roster's gating subscribers of this partition; keeps what this
 * publisher knows to be absent. */
static int list(struct shmq__credit *c, uint32_t epoch)
{
	struct shmq__roster_iter it = { 0 };
	struct credit_gater few[CREDIT_FEW], *fresh = few;
	unsigned count = 0, capacity = CREDIT_FEW;
	struct lay_member *m;

	while ((m = shmq__topic_next_member(c->topic, &it))) {
		struct lay_entry *e;

		if (load_relaxed(&m->state) != LAY_MEMBER_SUBSCRIBER)
			continue;
		e = shmq__topic_entry(c->topic, m, c->partition);
		if (!e)
			continue;
		if (count == capacity) {
			struct credit_gater *more = shmq__mem_get(2 * capacity * sizeof(*more));

			if (more)
				memcpy(more, fresh, count * sizeof(*more));
			put(fresh, capacity);
			if (!more)
				return -ENOMEM;
			fresh = more;
			capacity *= 2;
		}
		fresh[count++] = (struct credit_gater){
			.entry = e,
			.gen = m->entry_gen,
			.client_gen = m->client_gen,
			.token = m->token,
			.client = m->client,
			.absent = was_absent(c->gater, c->count, e, m->entry_gen),
		};
	}
	put(c->gater, c->capacity);
	if (fresh == few)
		memcpy(c->few, few, count * sizeof(few[0]));
	c->gater = fresh == few ? c->few : fresh;
	c->count = count;
	c->capacity = capacity;
	c->epoch = epoch;
	c->listed = 1;
	return 0;
}

/* Bring the list up to the roster's epoch (M1 of topic.c). */
static int update(struct shmq__credit *c)
{
	for (;;) {
		uint32_t epoch = load_acquire(&c->topic->rec->epoch);
		int error;

		if (c->listed && epoch == c->epoch)
			return 0;
		error = list(c, epoch);
		if (error)
			return error;
		fence_acquire();
	}
}

static shmq_au64 *log_pos(const struct shmq__credit *c)
{
	return &c->topic->ring[c->partition].part->log_written;
}

/* Lowest cursor of a gater, at most next.  With nobody in the way an eighth
 * of the ring is given at a time, so that a joiner from the oldest still
 * gets the other seven. */
static uint64_t lowest(struct shmq__credit *c, uint64_t next, uint64_t want)
{
	uint64_t depth = c->topic->geo.depth, low = next, open;
	unsigned i, gaters = 0;

	for (i = 0; i < c->count; i++) {
		struct credit_gater *g = &c->gater[i];
		uint64_t pos;

		if (g->absent)
			continue;
		pos = load_acquire(&g->entry->pos); /* A3 */
		/* Relaxed: a new cursor of an old generation is that of nobody, and
		 * an old one of a new generation is passed over. */
		if (load_relaxed(&g->entry->gen) != g->gen)
			continue;
		gaters++;
		if (seq_diff(pos, low) < 0)
			low = pos;
	}
	if (shmq__topic_log_gates(&c->topic->geo)) {
		/* Relaxed: A3 by C2, which is behind the first scan, and the second
		 * gives no more. */
		uint64_t pos = load_relaxed(log_pos(c));

		gaters++;
		if (seq_diff(pos, low) < 0)
			low = pos;
	}
	if (gaters)
		return low;
	open = next + depth / 8;
	if (seq_diff(want, open) > 0 && seq_diff(want, next + depth) <= 0)
		open = want;
	return open - depth;
}

/* What joiners go by.  0 says that there is none, so one more stands there for
 * it: whoever joins starts a seq later, or at the head.  Relaxed: C2 is behind it,
 * and what is told after that is no more than what was told before. */
static void tell(struct shmq__credit *c, uint64_t limit)
{
	store_relaxed(&c->own->limit, limit ? limit : 1);
}

uint64_t shmq__credit_refresh(struct shmq__credit *c, uint64_t next, uint64_t want, int *error)
{
	uint64_t depth = c->topic->geo.depth, old = c->is_limited ? c->limit : next, first, second;

	*error = update(c);
	if (*error)
		return old;
	first = lowest(c, next, want) + depth;
	if (c->is_limited && seq_diff(first, old) <= 0)
		return old;
	tell(c, first);     /* C1 */
	fence_full();       /* C2 */
	*error = update(c); /* C3 */
	second = *error ? old : lowest(c, next, want) + depth;
	if (seq_diff(second, first) > 0)
		second = first;
	if (c->is_limited && seq_diff(second, old) < 0)
		second = old;
	tell(c, second);
	c->limit = second;
	c->is_limited = 1;
	return second;
}

/* Relaxed: that is after whom to look, as far as is seen. */
struct credit_gater *shmq__credit_holder(struct shmq__credit *c)
{
	struct credit_gater *holder = NULL;
	uint64_t low = 0;
	unsigned i;

	for (i = 0; i < c->count; i++) {
		struct credit_gater *g = &c->gater[i];
		uint64_t pos = load_relaxed(&g->entry->pos);

		if (g->absent || load_relaxed(&g->entry->gen) != g->gen)
			continue;
		if (holder && seq_diff(pos, low) >= 0)
			continue;
		holder = g;
		low = pos;
	}
	if (holder && shmq__topic_log_gates(&c->topic->geo) &&
	    seq_diff(load_relaxed(log_pos(c)), low) < 0)
		return NULL;
	return holder;
}

unsigned shmq__credit_drop_dead(struct shmq__credit *c)
{
	unsigned i, found = 0;

	for (i = 0; i < c->count; i++) {
		struct credit_gater *g = &c->gater[i];

		if (g->absent || !shmq__topic_client_is_dead(c->topic, g->client, g->client_gen))
			continue;
		g->absent = 1;
		found++;
	}
	return found;
}

unsigned shmq__credit_gaters(struct shmq__credit *c)
{
	unsigned i, n = 0;

	if (update(c))
		return 0;
	for (i = 0; i < c->count; i++)
		n += !c->gater[i].absent;
	return n;
}
