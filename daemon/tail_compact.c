/* SPDX-License-Identifier: MIT */
#include "tail_compact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "log_reader.h"

#define BATCHES_MAX 1024u /* open at once: more than that nobody means well with */

/* The last message of a key. */
struct last {
	uint64_t hash, seq;
	size_t key; /* in `keys` */
	uint32_t key_bytes;
	uint32_t is_there;
};

struct batch {
	uint64_t first_seq;
	uint32_t left;
};

struct pass {
	const struct tail_compact *c;
	struct tail_compacted *out;
	struct last *table;
	size_t slots, used; /* a power of two */
	char *keys;
	size_t key_bytes, key_capacity;
	struct batch batch[BATCHES_MAX]; /* not whole in the segment */
	unsigned batches;
	/* The segment that is gone through. */
	uint64_t next_seq; /* behind its last good record */
	uint64_t drops;
	uint64_t bytes; /* of what stays */
	int is_in_hole; /* the last one is dropped */

	unsigned group, group_count; /* segments that are to become one */
	uint64_t group_bytes, group_drops;
	uint64_t reached; /* the highest next_seq so far */
	int has_reached;
	int has_rest; /* something stays that may have been deleted since */
};

typedef int visit_fn(struct pass *p, const struct log_record *head, const char *body);

/* All records of a segment.  0; SHMQ_ECORRUPT: it is not whole; or what `visit`
 * returned that was not 0. */
static int each_record(struct pass *p, uint64_t first_seq, visit_fn *visit, struct shmq__why *why)
{
	struct log_segment seg;
	struct log_record head;
	struct log_scan scan;
	uint64_t turn = 0; /* a log may be of many small segments */
	const char *body;
	int rc, error = shmq__log_segment_open(p->c->dir, first_seq, p->c->owner, &seg, why);

	if (error)
		return error;
	error = shmq__log_scan_init(&scan);
	if (error) {
		shmq__log_segment_close(&seg);
		return error;
	}
	shmq__log_scan_start(&scan, &seg, LOG_BLOCK, first_seq);
	while (!error && (rc = shmq__log_scan_next(&scan, &head, &body)) == 1) {
		error = visit(p, &head, body);
		if (!error && log_scan_off(&scan) >= turn) {
			error = p->c->turn.give(p->c->turn.arg, NULL);
			turn = log_scan_off(&scan) + TAIL_TURN_BYTES;
		}
	}
	if (!error)
		error = rc < 0 ? rc : head.kind == LOG_END ? 0 : SHMQ_ECORRUPT;
	p->next_seq = scan.next;
	shmq__log_scan_fini(&scan);
	return error;
}

/* ---- batches --------------------------------------------------------- */

static struct batch *find_batch(struct pass *p, uint64_t first_seq)
{
	unsigned i;

	for (i = 0; i < p->batches; i++)
		if (p->batch[i].first_seq == first_seq)
			return &p->batch[i];
	return NULL;
}

/* As a message and its batch; 0: it has none. */
static int decode(const struct log_record *head, const char *body, struct shmq_msg *msg,
		  struct lay_batch *batch)
{
	*msg = (struct shmq_msg){ 0 };
	return head->kind == LOG_MESSAGE && !shmq__log_decode(head, body, msg, batch);
}

static int note_member(struct pass *p, const struct log_record *head, const char *body)
{
	struct lay_batch member;
	struct shmq_msg msg;
	struct batch *b;

	if (!(head->flags & SHMQ_MSG_BATCH) || !decode(head, body, &msg, &member))
		return 0;
	b = find_batch(p, member.first_seq);
	if (!b) {
		if (p->batches == BATCHES_MAX)
			return SHMQ_ECORRUPT;
		b = &p->batch[p->batches++];
		*b = (struct batch){ member.first_seq, member.count };
	}
	/* One that began before never gets all of its members here. */
	if (!--b->left)
		*b = p->batch[--p->batches];
	return 0;
}

static int find_batches(struct pass *p, uint64_t first_seq, struct shmq__why *why)
{
	p->batches = 0;
	return each_record(p, first_seq, note_member, why);
}

/* ---- keys ------------------------------------------------------------ */

/* Not to be known before: whoever makes all keys meet makes us slow. */
static uint64_t hash_of(const struct pass *p, const struct shmq_msg *msg)
{
	return XXH3_64bits_withSeed(msg->key, msg->key_len, p->c->now_ns);
}

static struct last *find_key(const struct pass *p, const void *key, size_t bytes, uint64_t hash)
{
	size_t i = hash & (p->slots - 1);

	while (p->table[i].is_there &&
	       (p->table[i].hash != hash || p->table[i].key_bytes != bytes ||
		memcmp(p->keys + p->table[i].key, key, bytes) != 0))
		i = (i + 1) & (p->slots - 1);
	return &p->table[i];
}

static int grow_table(struct pass *p)
{
	size_t slots = p->slots ? 2 * p->slots : 1024, i, k;
	struct last *more = calloc(slots, sizeof(*more));

	if (!more)
		return -ENOMEM;
	for (i = 0; i < p->slots; i++) {
		if (!p->table[i].is_there)
			continue;
		for (k = p->table[i].hash & (slots - 1); more[k].is_there;)
			k = (k + 1) & (slots - 1);
		more[k] = p->table[i];
	}
	free(p->table);
	p->table = more;
	p->slots = slots;
	return 0;
}

static int add_key(struct pass *p, struct last *at, const struct shmq_msg *msg, uint64_t hash)
{
	char *more;

	if (p->key_bytes + msg->key_len > p->key_capacity) {
		p->key_capacity = 2 * (p->key_capacity + msg->key_len);
		more = realloc(p->keys, p->key_capacity);
		if (!more)
			return -ENOMEM;
		p->keys = more;
	}
	memcpy(p->keys + p->key_bytes, msg->key, msg->key_len);
	*at = (struct last){ .hash = hash,
			     .key = p->key_bytes,
			     .key_bytes = (uint32_t)msg->key_len,
			     .is_there = 1 };
	p->key_bytes += msg->key_len;
	p->used++;
	return 0;
}

/* A message with a key, of which nothing hangs on others. */
static int has_key(struct pass *p, const struct log_record *head, const char *body,
		   struct shmq_msg *msg)
{
	struct lay_batch member;

	if (!(head->flags & SHMQ_MSG_META) || !decode(head, body, msg, &member) || !msg->key_len)
		return 0;
	if (!(head->flags & SHMQ_MSG_BATCH) || !find_batch(p, member.first_seq))
		return 1;
	p->has_rest = 1;
	return 0;
}

static int learn(struct pass *p, const struct log_record *head, const char *body)
{
	struct shmq_msg msg;
	struct last *at;
	uint64_t hash;
	int error;

	if (!has_key(p, head, body, &msg))
		return 0;
	if (2 * p->used >= p->slots && (error = grow_table(p)))
		return error;
	hash = hash_of(p, &msg);
	at = find_key(p, msg.key, msg.key_len, hash);
	if (!at->is_there && (error = add_key(p, at, &msg, hash)))
		return error;
	at->seq = head->seq;
	return 0;
}

static int is_full(const struct pass *p)
{
	return p->key_bytes + p->slots * sizeof(*p->table) > p->c->key_bytes;
}

/* ---- what goes ------------------------------------------------------- */

/* It is all there is of its key, and says that there is nothing. */
static int is_over(struct pass *p, const struct log_record *head, const struct shmq_msg *msg)
{
	uint64_t due = head->ts + (uint64_t)p->c->tombstone_ns;

	if (msg->len || msg->properties_len)
		return 0;
	if (!p->has_rest && due <= p->c->now_ns && !p->c->keeps_tombstones)
		return 1;
	if (!p->has_rest && due < p->out->tombstone_ns)
		p->out->tombstone_ns = due;
	return 0;
}

static enum tail_edit judge(void *arg, const struct log_record *head, const char *body)
{
	struct pass *p = arg;
	struct shmq_msg msg;
	const struct last *last;

	if (has_key(p, head, body, &msg) && seq_diff(head->seq, p->c->keep_from) < 0) {
		last = p->slots ? find_key(p, msg.key, msg.key_len, hash_of(p, &msg)) : NULL;
		if ((last && last->is_there && seq_diff(last->seq, head->seq) > 0) ||
		    is_over(p, head, &msg))
			return TAIL_DROP;
	}
	if ((head->flags & SHMQ_MSG_BATCH) && head->kind == LOG_MESSAGE) {
		struct lay_batch member;

		if (decode(head, body, &msg, &member) && !find_batch(p, member.first_seq))
			return TAIL_UNBATCH;
	}
	return TAIL_KEEP;
}

static int count(struct pass *p, const struct log_record *head, const char *body)
{
	int is_dropped = judge(p, head, body) == TAIL_DROP;

	p->drops += (uint64_t)is_dropped;
	if (!is_dropped)
		p->bytes += log_record_bytes(head->body_bytes);
	else if (!p->is_in_hole)
		p->bytes += log_record_bytes(0);
	p->is_in_hole = is_dropped;
	return 0;
}

/* ---- segments -------------------------------------------------------- */

static int rewrite_group(struct pass *p, struct shmq__why *why)
{
	const uint64_t *first = &p->c->first[p->group];
	struct tail_rewrite r = { .dir = p->c->dir,
				  .owner = p->c->owner,
				  .first_seq = *first,
				  .more = first + 1,
				  .more_count = p->group_count - 1,
				  .level = p->c->level,
				  .edit = judge,
				  .arg = p,
				  .turn = p->c->turn };
	int error = tail_rewrite(&r, why);

	if (!error) {
		p->out->dropped += p->group_drops;
		p->out->rewritten++;
		p->out->merged += r.more_count;
	}
	return error;
}

/* Write anew what was gathered, if that makes it less.  What could not be stays gathered:
 * it was not passed. */
static int write_group(struct pass *p, struct shmq__why *why)
{
	int error = 0;

	while (p->group_count && (p->group_drops || p->group_count > 1)) {
		error = rewrite_group(p, why);
		if (error != -ENOENT)
			break;
		/* Retention took the first; in the others there may be what was deleted. */
		p->group++;
		p->group_count--;
	}
	p->has_rest |= error == SHMQ_ECORRUPT;
	if (error == SHMQ_ECORRUPT || error == -ENOENT)
		error = 0;
	if (error)
		return error;
	p->group_count = 0;
	p->group_bytes = p->group_drops = 0;
	return 0;
}

static int has_place(const struct pass *p, unsigned i)
{
	return i == p->group + p->group_count && p->c->first[i] == p->reached &&
	       LOG_BLOCK + p->group_bytes + p->bytes + log_record_bytes(0) <= p->c->merge_bytes;
}

/* It became part of the one before, and was not removed. */
static int is_double(const struct pass *p, uint64_t first_seq)
{
	return p->has_reached && seq_diff(first_seq, p->reached) < 0 &&
	       seq_diff(p->next_seq, p->reached) <= 0;
}

static int look_at(struct pass *p, uint64_t first_seq, struct shmq__why *why)
{
	int error = find_batches(p, first_seq, why);

	p->drops = p->bytes = 0;
	p->is_in_hole = 0;
	return error ? error : each_record(p, first_seq, count, why);
}

/* Where an atomic batch reaches across its bounds it stays for itself: in one file
 * with the rest of it the batch would be judged, which has superseded nothing. */
static int pass_segment(struct pass *p, unsigned i, struct shmq__why *why)
{
	uint64_t first_seq = p->c->first[i];
	int error = look_at(p, first_seq, why);
	unsigned batches = p->batches;

	if (!error && is_double(p, first_seq)) {
		p->out->merged++;
		return tail_remove(p->c->dir, first_seq);
	}
	if (error == SHMQ_ECORRUPT)
		p->has_rest = 1;
	if (error && error != SHMQ_ECORRUPT && error != -ENOENT)
		return error;
	if (p->group_count && (error || batches || !has_place(p, i))) {
		int failed;

		p->batches = 0;
		failed = write_group(p, why);
		if (failed)
			return failed;
		p->batches = batches;
	}
	if (error)
		return 0;
	p->reached = p->next_seq;
	p->has_reached = 1;
	if (!p->group_count)
		p->group = i;
	p->group_count++;
	p->group_bytes += p->bytes;
	p->group_drops += p->drops;
	return batches ? write_group(p, why) : 0;
}

static int pass_segments(struct pass *p, unsigned end, struct shmq__why *why)
{
	unsigned i, next;
	int error = 0;

	p->has_rest = 0; /* of what is gone through from here on */
	for (i = p->c->passed; !error && i < end; i++) {
		error = pass_segment(p, i, why);
		next = error ? i : i + 1;
		p->out->passed_seq = p->group_count ? p->c->first[p->group] :
				     next < end     ? p->c->first[next] :
						      p->out->end_seq;
		p->out->has_passed = 1;
	}
	p->batches = 0;
	return error ? error : write_group(p, why);
}

static int learn_segments(struct pass *p, unsigned *end, struct shmq__why *why)
{
	int error;

	for (*end = p->c->clean; *end < p->c->count; ++*end) {
		if (*end > p->c->clean && is_full(p))
			break;
		error = find_batches(p, p->c->first[*end], why);
		if (!error)
			error = each_record(p, p->c->first[*end], learn, why);
		/* What it says as far as it is whole is so. */
		if (error && error != SHMQ_ECORRUPT && error != -ENOENT)
			return error;
		p->out->end_seq = p->next_seq;
	}
	if (*end < p->c->count)
		p->out->end_seq = p->c->first[*end];
	return 0;
}

int tail_compact(const struct tail_compact *c, struct tail_compacted *out, struct shmq__why *why)
{
	struct pass *p = calloc(1, sizeof(*p));
	unsigned end;
	int error;

	*out = (struct tail_compacted){ .done = c->clean, .tombstone_ns = UINT64_MAX };
	if (!p)
		return -ENOMEM;
	p->c = c;
	p->out = out;
	error = learn_segments(p, &end, why);
	if (!error)
		error = pass_segments(p, end, why);
	if (!error)
		out->done = end;
	free(p->table);
	free(p->keys);
	free(p);
	return error;
}
