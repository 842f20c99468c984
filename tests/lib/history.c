/* SPDX-License-Identifier: MIT */
#include "history.h"

#include "helpers.h"

#include <stdarg.h>

/* ---- messages ------------------------------------------------------------------ */

size_t history_fill(char *buf, size_t most, uint64_t who, uint64_t n)
{
	uint64_t head[2] = { who, n };
	size_t bytes = sizeof(head) + mix(who << 32 ^ n) % (most - sizeof(head) + 1);

	memcpy(buf, head, sizeof(head));
	fill(buf + sizeof(head), bytes - sizeof(head), who << 32 ^ n);
	return bytes;
}

uint64_t history_sum(const void *data, size_t bytes)
{
	const unsigned char *at = data;
	uint64_t sum = bytes, word;
	size_t i;

	for (i = 0; i < bytes; i += sizeof(word)) {
		word = 0;
		memcpy(&word, at + i, bytes - i < sizeof(word) ? bytes - i : sizeof(word));
		sum = mix(sum ^ word);
	}
	return sum;
}

int history_read(const void *data, size_t bytes, uint64_t *who, uint64_t *n)
{
	uint64_t head[2] = { 0 };

	memcpy(head, data, bytes < sizeof(head) ? bytes : sizeof(head));
	*who = head[0];
	*n = head[1];
	return bytes >= sizeof(head);
}

/* ---- facts ----------------------------------------------------------------------- */

/* That a message has a seq. */
struct fact {
	uint64_t seq, who, n;
	uint64_t ts; /* 0: nobody knows */
};

struct check {
	const struct history *h;
	struct fact *order[HISTORY_PARTITIONS]; /* by seq, each once */
	size_t count[HISTORY_PARTITIONS];
	size_t open_unseen; /* open sends that nobody got */
	char *buf, *why;
	size_t why_bytes;
};

static int __attribute__((format(printf, 2, 3))) refuse(struct check *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->why, c->why_bytes, format, args);
	va_end(args);
	return 1;
}

#define U(x) ((unsigned long long)(x))

static int by_seq(const void *a, const void *b)
{
	const struct fact *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int by_message(const void *a, const void *b)
{
	const struct fact *x = a, *y = b;

	if (x->who != y->who)
		return x->who < y->who ? -1 : 1;
	return x->n < y->n ? -1 : x->n > y->n;
}

static const struct history_publisher *find_publisher(const struct history *h, uint64_t who)
{
	size_t i;

	for (i = 0; i < h->publishers; i++)
		if (h->publisher[i].who == who)
			return &h->publisher[i];
	return NULL;
}

static void add_fact(struct check *c, uint32_t partition, struct fact f)
{
	c->order[partition][c->count[partition]++] = f;
}

static int check_receipt(struct check *c, size_t s, const struct history_receipt *r)
{
	const struct history_publisher *p = find_publisher(c->h, r->who);

	if (!p || r->n >= p->count)
		return refuse(c, "subscriber %zu got message %llu of %llu, which nobody sent", s,
			      U(r->n), U(r->who));
	if (p->send[r->n].state == HISTORY_REFUSED)
		return refuse(c, "subscriber %zu got message %llu of %llu, which was refused", s,
			      U(r->n), U(r->who));
	if (history_sum(c->buf, history_fill(c->buf, c->h->most, r->who, r->n)) != r->sum)
		return refuse(c, "subscriber %zu got message %llu of %llu torn", s, U(r->n),
			      U(r->who));
	return 0;
}

static int gather(struct check *c)
{
	const struct history *h = c->h;
	size_t s, i, most = 1;
	uint32_t p;

	for (s = 0; s < h->publishers; s++)
		most += h->publisher[s].count;
	for (s = 0; s < h->subscribers; s++)
		most += h->subscriber[s].count;
	for (p = 0; p < h->partitions; p++)
		CHECK(c->order[p] = malloc(most * sizeof(struct fact)));
	for (s = 0; s < h->publishers; s++)
		for (i = 0; i < h->publisher[s].count; i++) {
			const struct history_send *send = &h->publisher[s].send[i];

			c->open_unseen += send->state == HISTORY_OPEN;
			if (send->state == HISTORY_SENT)
				add_fact(c, send->partition,
					 (struct fact){ send->seq, h->publisher[s].who, i, 0 });
		}
	for (s = 0; s < h->subscribers; s++)
		for (i = 0; i < h->subscriber[s].count; i++) {
			const struct history_receipt *r = &h->subscriber[s].receipt[i];

			if (r->partition >= h->partitions)
				return refuse(c, "there is no partition %u", r->partition);
			if (r->lost)
				continue;
			if (check_receipt(c, s, r))
				return 1;
			add_fact(c, r->partition, (struct fact){ r->seq, r->who, r->n, r->ts });
		}
	return 0;
}

/* One order: equal facts become one, others may not speak of the same seq. */
static int unite(struct check *c, uint32_t p)
{
	struct fact *f = c->order[p];
	size_t i, n = 0;

	qsort(f, c->count[p], sizeof(*f), by_seq);
	for (i = 0; i < c->count[p]; i++) {
		if (!n || f[i].seq != f[n - 1].seq)
			f[n++] = f[i];
		else if (f[i].who != f[n - 1].who || f[i].n != f[n - 1].n)
			return refuse(
				c,
				"seq %llu of partition %u is message %llu of %llu to one, and "
				"message %llu of %llu to another",
				U(f[i].seq), p, U(f[i].n), U(f[i].who), U(f[n - 1].n),
				U(f[n - 1].who));
		else if (f[i].ts && f[n - 1].ts && f[i].ts != f[n - 1].ts)
			return refuse(c, "seq %llu of partition %u has two times", U(f[i].seq), p);
		else if (f[i].ts)
			f[n - 1].ts = f[i].ts;
	}
	c->count[p] = n;
	return 0;
}

/* No message has two seqs; a publisher's stand in its order. */
static int check_messages(struct check *c)
{
	size_t total = 0, i, k, at = 0;
	struct fact *all;
	uint32_t p;
	int rc = 0;

	for (p = 0; p < c->h->partitions; p++)
		total += c->count[p];
	CHECK(all = malloc((total + 1) * sizeof(*all)));
	for (p = 0; p < c->h->partitions; p++) {
		memcpy(all + at, c->order[p], c->count[p] * sizeof(*all));
		at += c->count[p];
	}
	qsort(all, total, sizeof(*all), by_message);
	for (i = 0; i < total && !rc; i++) {
		const struct history_publisher *from = find_publisher(c->h, all[i].who);

		if (i && !by_message(&all[i], &all[i - 1]))
			rc = refuse(c, "message %llu of %llu is there twice", U(all[i].n),
				    U(all[i].who));
		c->open_unseen -= from->send[all[i].n].state == HISTORY_OPEN;
	}
	free(all);
	for (k = 0; k < c->h->publishers && !rc; k++)
		for (p = 0; p < c->h->partitions && !rc; p++) {
			uint64_t next = 0;

			for (i = 0; i < c->count[p] && !rc; i++) {
				if (c->order[p][i].who != c->h->publisher[k].who)
					continue;
				if (c->order[p][i].n < next)
					rc = refuse(
						c,
						"message %llu of %llu stands behind a later one "
						"in partition %u",
						U(c->order[p][i].n), U(c->order[p][i].who), p);
				next = c->order[p][i].n + 1;
			}
		}
	return rc;
}

/* ---- subscribers -------------------------------------------------------------------- */

/* How many of the order stand before seq. */
static size_t rank(const struct check *c, uint32_t p, uint64_t seq)
{
	size_t low = 0, high = c->count[p];

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (c->order[p][middle].seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct gap {
	uint64_t from, lost;
	int is_bound;
};

/* The seq of the first message of the batch of this one. */
static uint64_t first_of_batch(const struct check *c, uint32_t p, const struct fact *f)
{
	const struct history_send *send = find_publisher(c->h, f->who)->send;
	uint64_t n = send[f->n].batch;
	size_t i;

	for (i = 0; send[n].state != HISTORY_SENT && i < c->count[p]; i++)
		if (c->order[p][i].who == f->who && c->order[p][i].n == n)
			return c->order[p][i].seq;
	return send[n].state == HISTORY_SENT ? send[n].seq : f->seq;
}

/* The first seq that a subscriber is to get.  One that starts at a time may be told
 * of a gap before the first message of that time: none is known to be in that. */
static uint64_t start_of(const struct check *c, size_t s, uint32_t p)
{
	const struct history_subscriber *sub = &c->h->subscriber[s];
	size_t i;

	if (!sub->from_ts)
		return sub->start[p];
	for (i = 0; i < c->count[p]; i++)
		if (c->order[p][i].ts >= sub->from_ts)
			return c->order[p][i].seq;
	return sub->end[p];
}

/* How many in [from, to) a subscriber is to get: the rest of a batch that began
 * before it joined is not for it. */
static uint64_t count_due(const struct check *c, size_t s, uint32_t p, uint64_t from, uint64_t to)
{
	uint64_t start = start_of(c, s, p), due = 0;
	size_t i, end = rank(c, p, to);

	for (i = rank(c, p, from); i < end; i++)
		due += c->h->subscriber[s].goes_on ||
		       first_of_batch(c, p, &c->order[p][i]) >= start;
	return due;
}

/* What a subscriber did not get in [gap->from, to) is what it was told.  One that
 * is lapped cannot know that some of it was not for it, and counts that. */
static int check_gap(struct check *c, size_t s, uint32_t p, const struct gap *gap, uint64_t to)
{
	uint64_t all = rank(c, p, to) - rank(c, p, gap->from), unknown = to - gap->from - all;
	uint64_t known = all ? count_due(c, s, p, gap->from, to) : 0;

	if (unknown > c->open_unseen)
		unknown = c->open_unseen;
	if (gap->lost < known)
		return refuse(
			c,
			"subscriber %zu did not get %llu messages of [%llu, %llu) of partition "
			"%u and was told of %llu",
			s, U(known), U(gap->from), U(to), p, U(gap->lost));
	if (gap->lost > all + unknown && !gap->is_bound)
		return refuse(c,
			      "subscriber %zu was told that %llu messages of [%llu, %llu) of "
			      "partition %u are lost, and there were %llu",
			      s, U(gap->lost), U(gap->from), U(to), p, U(all));
	return 0;
}

static int check_subscriber(struct check *c, size_t s)
{
	const struct history_subscriber *sub = &c->h->subscriber[s];
	struct gap gap[HISTORY_PARTITIONS] = { { 0 } };
	uint32_t p;
	size_t i;

	for (p = 0; p < c->h->partitions; p++)
		gap[p] = (struct gap){ .from = start_of(c, s, p), .is_bound = !!sub->from_ts };
	for (i = 0; i < sub->count; i++) {
		const struct history_receipt *r = &sub->receipt[i];
		struct gap *g = &gap[r->partition];

		if (r->lost) {
			g->lost += r->lost;
			g->is_bound |= r->is_bound != 0;
			continue;
		}
		if (r->seq < g->from)
			return refuse(c, "subscriber %zu got seq %llu of partition %u after %llu",
				      s, U(r->seq), r->partition, U(g->from - 1));
		if (check_gap(c, s, r->partition, g, r->seq))
			return 1;
		*g = (struct gap){ .from = r->seq + 1 };
	}
	for (p = 0; p < c->h->partitions && sub->lived; p++)
		if (check_gap(c, s, p, &gap[p], sub->end[p]))
			return 1;
	return 0;
}

/* Messages of one publisher in one partition, as a batch is. */
static int is_same_stream(const struct history_receipt *a, const struct history_receipt *b)
{
	return !a->lost && a->who == b->who && a->partition == b->partition;
}

/* Of each batch of which it got any: each member follows the one before it,
 * and the last came, but to one that was killed. */
static int check_batches(struct check *c, size_t s)
{
	const struct history_subscriber *sub = &c->h->subscriber[s];
	size_t i, k;

	for (i = 0; i < sub->count; i++) {
		const struct history_receipt *r = &sub->receipt[i];
		const struct history_send *send;

		if (r->lost)
			continue;
		send = &find_publisher(c->h, r->who)->send[r->n];
		if (send->batch_count < 2)
			continue;
		for (k = i; r->n > send->batch && k-- > 0;)
			if (is_same_stream(&sub->receipt[k], r))
				break;
		if (r->n > send->batch && k == (size_t)-1 && sub->goes_on)
			continue;
		if (r->n > send->batch && (k == (size_t)-1 || sub->receipt[k].n != r->n - 1))
			return refuse(c,
				      "subscriber %zu got message %llu of %llu without the one "
				      "before it in its batch",
				      s, U(r->n), U(r->who));
		if (r->n == send->batch + send->batch_count - 1 || !sub->lived)
			continue;
		for (k = i + 1; k < sub->count; k++)
			if (is_same_stream(&sub->receipt[k], r))
				break;
		if (k == sub->count || sub->receipt[k].n != r->n + 1)
			return refuse(c,
				      "subscriber %zu got message %llu of %llu without the next of "
				      "its batch",
				      s, U(r->n), U(r->who));
	}
	return 0;
}

int history_check(const struct history *h, char *why, size_t why_bytes)
{
	struct check c = { .h = h, .why = why, .why_bytes = why_bytes };
	uint32_t p;
	size_t s;
	int rc;

	CHECK_LE(h->partitions, HISTORY_PARTITIONS);
	CHECK(c.buf = malloc(h->most));
	*why = 0;
	rc = gather(&c);
	for (p = 0; p < h->partitions && !rc; p++)
		rc = unite(&c, p);
	if (!rc)
		rc = check_messages(&c);
	for (s = 0; s < h->subscribers && !rc; s++)
		rc = check_subscriber(&c, s) || check_batches(&c, s);
	for (p = 0; p < h->partitions; p++)
		free(c.order[p]);
	free(c.buf);
	return rc;
}
