/* SPDX-License-Identifier: MIT
 *
 * Edges
 *   N1 a note's fields -> notes (release); pairs with N2, where the thread takes
 *      them all.
 */
#include "tail_keep.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "clock.h"
#include "durable.h"
#include "log.h"
#include "log_cursor.h"
#include "tail_clean.h"
#include "tail_compact.h"
#include "tail_rewrite.h"

#define LOOK_NS INT64_C(1000000000)
#define KEY_BYTES ((size_t)64 << 20)
#define PASS_BYTES (UINT64_C(256) << 20) /* at least so much is compacted at a time */
#define STEP_NS UINT64_C(1000000000)     /* of a clock: less is none */
#define DAY_NS (UINT64_C(86400) * 1000000000)
#define NICE 10 /* behind those who write */
/* After something failed: when to try again. */
#define AGAIN_NS (UINT64_C(60) * 1000000000)

struct kept_segment {
	uint64_t first_seq;
	uint64_t bytes;   /* on the disk */
	uint64_t base_ts; /* has_base: known */
	uint8_t has_base, is_complete, is_compressed;
	uint8_t is_bad; /* cannot be written anew, and that was said */
};

/* What the writer has to say. */
struct note {
	struct note *before;
	uint64_t first_seq, value;
	enum { BEGAN, ROLLED } what;
};

/* A file system with logs on it. */
struct disk {
	LIST_ENTRY(disk) link;
	dev_t dev;
	unsigned users;
	int dir;            /* somewhere on it */
	uint64_t left, all; /* bytes, as of a second ago */
	uint64_t room;      /* the most that one of them should have */
	int is_low;         /* and that was said */
};

struct tail_kept {
	LIST_ENTRY(tail_kept) link;
	struct tail_keep *keep;
	struct shmq_topic_info topic;
	struct log_owner owner;
	int dir, log_dir;
	struct lay_partition *part;
	struct disk *disk;
	_Atomic(struct note *) notes; /* the last one first */
	shmq_au32 has_missed;         /* one had no memory */
	shmq_au32 is_leaving;
	shmq_au32 wants_room; /* the next segment waits for what is superseded to be dropped */
	shmq_au32 is_vain;    /* ... which makes no room */
	int is_busy;          /* the thread is at it; under the lock */

	/* The thread's own. */
	struct kept_segment *segment;
	unsigned count, capacity;
	uint64_t bytes;             /* of all */
	unsigned uncompressed;      /* complete ones that are to be compressed */
	uint64_t tried_seq;         /* up to there it was looked for what was superseded */
	uint64_t tried_bytes;       /* of the complete ones before that */
	struct tail_clean clean;    /* how far compaction has come */
	struct tail_clean stored;   /* ... as it is on the disk */
	struct tail_compacted pass; /* the one that goes on */
	uint64_t keep_from;         /* ... keeps what comes from there on */
	uint64_t again_ns;          /* monotonic: nothing is written anew before */
	uint64_t turn_ns;           /* monotonic: when others have their turn */
	int has_clean;              /* tried_seq and clean are something */
	int has_stored;             /* stored is */
	int knows_all;              /* what is clean was all learned since the tailer began */
	int is_kept;                /* a cursor keeps what would be removed, and that was said */
};

struct tail_keep {
	pthread_t thread;
	pthread_mutex_t lock; /* of the lists; not held while anything is read or written */
	pthread_cond_t changed;
	LIST_HEAD(kept_list, tail_kept) all;
	LIST_HEAD(disk_list, disk) disks;
	const char *const *dir;
	unsigned dirs;
	uint64_t age_ns, age_at_ns; /* what ages go by, and CLOCK_BOOTTIME then */
	uint64_t age_off_ns;        /* since then it is behind CLOCK_REALTIME; 0: it is not */
	shmq_au32 is_to_sweep;
	int is_over;
};

/* ---- what segments there are ----------------------------------------- */

static int is_wanted_compressed(const struct tail_kept *p, const struct kept_segment *s)
{
	return p->topic.compress && s->is_complete && !s->is_compressed && !s->is_bad;
}

static uint64_t size_of(const struct tail_kept *p, uint64_t first_seq, int *is_compressed)
{
	char name[LOG_NAME_BYTES];
	struct stat st;

	shmq__log_segment_name(p->dir, first_seq, name);
	*is_compressed = strstr(name, ".zst") != NULL;
	return fstatat(p->dir, name, &st, AT_SYMLINK_NOFOLLOW) ? 0 : (uint64_t)st.st_blocks * 512;
}

static struct kept_segment *append(struct tail_kept *p, uint64_t first_seq)
{
	struct kept_segment *more;

	if (p->count == p->capacity) {
		p->capacity = p->capacity ? 2 * p->capacity : 8;
		more = realloc(p->segment, p->capacity * sizeof(*more));
		if (!more) {
			p->capacity = p->count;
			store_relaxed(&p->has_missed, 1);
			return NULL;
		}
		p->segment = more;
	}
	more = &p->segment[p->count++];
	*more = (struct kept_segment){ .first_seq = first_seq };
	return more;
}

static void add_up(struct tail_kept *p)
{
	unsigned i;

	p->bytes = p->tried_bytes = p->uncompressed = 0;
	for (i = 0; i < p->count; i++) {
		const struct kept_segment *s = &p->segment[i];

		p->bytes += s->bytes;
		p->uncompressed += (unsigned)is_wanted_compressed(p, s);
		if (s->is_complete && p->has_clean && seq_diff(s->first_seq, p->tried_seq) < 0)
			p->tried_bytes += s->bytes;
	}
	if (p->count)
		store_release(&p->part->log_first, p->segment[0].first_seq);
}

static int list(struct tail_kept *p, int has_open)
{
	struct kept_segment *s;
	uint64_t *first;
	unsigned count, i;
	int is_compressed, error = shmq__log_list(p->dir, &first, &count);

	if (error)
		return error;
	store_relaxed(&p->has_missed, 0);
	p->count = 0;
	for (i = 0; i < count; i++) {
		s = append(p, first[i]);
		if (!s)
			break;
		s->bytes = size_of(p, first[i], &is_compressed);
		s->is_compressed = (uint8_t)is_compressed;
		s->is_complete = i + 1 < count || !has_open;
	}
	free(first);
	add_up(p);
	return load_relaxed(&p->has_missed) ? -ENOMEM : 0;
}

static void post(struct tail_kept *p, struct note note)
{
	struct note *n = malloc(sizeof(*n)),
		    *before = atomic_load_explicit(&p->notes, memory_order_relaxed);

	if (!n) {
		store_relaxed(&p->has_missed, 1);
		return;
	}
	*n = note;
	do
		n->before = before;
	while (!atomic_compare_exchange_weak_explicit(&p->notes, &before, n, memory_order_release,
						      memory_order_relaxed)); /* N1 */
}

void tail_keep_began(struct tail_kept *p, uint64_t first_seq, uint64_t base_ts)
{
	store_relaxed(&p->wants_room, 0);
	store_relaxed(&p->is_vain, 0);
	post(p, (struct note){ .what = BEGAN, .first_seq = first_seq, .value = base_ts });
}

void tail_keep_rolled(struct tail_kept *p, uint64_t first_seq, uint64_t bytes)
{
	post(p, (struct note){ .what = ROLLED, .first_seq = first_seq, .value = bytes });
}

/* All that was posted, the oldest first. */
static struct note *take_notes(struct tail_kept *p)
{
	struct note *n = atomic_exchange_explicit(&p->notes, NULL, memory_order_acquire), /* N2 */
		*first = NULL, *before;

	for (; n; n = before) {
		before = n->before;
		n->before = first;
		first = n;
	}
	return first;
}

static struct kept_segment *find(const struct tail_kept *p, uint64_t first_seq)
{
	unsigned i;

	for (i = p->count; i; i--)
		if (p->segment[i - 1].first_seq == first_seq)
			return &p->segment[i - 1];
	return NULL;
}

static void heed(struct tail_kept *p, const struct note *n)
{
	struct kept_segment *s;

	if (n->what == BEGAN) {
		s = append(p, n->first_seq);
		if (!s)
			return;
		s->base_ts = n->value;
		s->has_base = 1;
		s->bytes = p->topic.segment_bytes; /* they are reserved */
		return;
	}
	s = find(p, n->first_seq);
	if (!s)
		return;
	s->is_complete = 1;
	s->bytes = n->value;
}

static void read_notes(struct tail_kept *p)
{
	struct note *n, *next;
	int has_any = 0;

	for (n = take_notes(p); n; n = next) {
		next = n->before;
		has_any = 1;
		heed(p, n);
		free(n);
	}
	/* The last one there is may be complete, or not: then it is taken for one that
	 * is not until the next begins. */
	if (load_relaxed(&p->has_missed))
		list(p, 1);
	else if (has_any)
		add_up(p);
}

/* ---- removing -------------------------------------------------------- */

/* The time that ages go by: CLOCK_REALTIME; but where that is stepped forward, rightly
 * or not, nothing is older at once.  It is caught up with at twice its speed, or after
 * a day: by then somebody has set it right, or means it. */
static uint64_t age_clock(struct tail_keep *k)
{
	uint64_t now = shmq__clock_realtime_ns(), boot, limit;
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	boot = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	limit = k->age_ns + 2 * (boot - k->age_at_ns);
	if (!k->age_ns || now <= limit + STEP_NS)
		k->age_off_ns = 0;
	else if (!k->age_off_ns)
		k->age_off_ns = boot;
	if (k->age_off_ns && boot - k->age_off_ns < DAY_NS)
		now = limit;
	k->age_ns = now;
	k->age_at_ns = boot;
	return now;
}

/* Everything in the segment before s is older than retention wants. */
static int is_too_old(const struct tail_kept *p, struct kept_segment *s)
{
	uint64_t now = age_clock(p->keep);
	struct log_segment seg;
	struct shmq__why why;

	if (!p->topic.retain_ns)
		return 0;
	if (!s->has_base) {
		if (shmq__log_segment_open(p->dir, s->first_seq, &p->owner, &seg, &why))
			return 0;
		s->base_ts = seg.base_ts;
		s->has_base = 1;
		shmq__log_segment_close(&seg);
	}
	return s->base_ts < now && now - s->base_ts > (uint64_t)p->topic.retain_ns;
}

static void remove_segment(const struct tail_kept *p, uint64_t first)
{
	int error = tail_remove(p->dir, first);

	if (error)
		log_warn("removing segment %020" PRIu64 " of \"%s\": %s", first, p->topic.name,
			 shmq_strerror(error));
}

/* Where stored cursors need what comes from there on: *seq is lowered to it.  0: that
 * cannot be known, so they need all. */
static int heed_cursors(struct tail_kept *p, uint64_t *seq)
{
	char name[SHMQ_NAME_MAX + 1];
	struct shmq__why why = { "" };
	uint64_t lowest;
	int error;

	if (!(p->topic.flags & SHMQ_TOPIC_RETAIN_CURSORS))
		return 1;
	error = shmq__log_cursor_lowest(p->log_dir, p->owner.log_id, p->owner.partition, &lowest,
					name, &why);
	if (error == SHMQ_EEMPTY || (!error && seq_diff(lowest, *seq) >= 0)) {
		p->is_kept = 0;
		return 1;
	}
	if (!p->is_kept && error)
		log_warn("log of \"%s\", partition %u: nothing is removed: %s", p->topic.name,
			 p->owner.partition, *why.text ? why.text : shmq_strerror(error));
	else if (!p->is_kept)
		log_info("log of \"%s\", partition %u: the cursor \"%.100s\" at seq %" PRIu64
			 " keeps what would be removed",
			 p->topic.name, p->owner.partition, name, lowest);
	p->is_kept = 1;
	*seq = lowest;
	return !error;
}

static int is_to_go(struct tail_kept *p, unsigned i, uint64_t bytes, const uint64_t *rewriting)
{
	uint64_t next, needed;

	/* Never the one that is written. */
	if (i + 1 >= p->count || (rewriting && *rewriting == p->segment[i].first_seq) ||
	    (!(p->topic.retain_bytes && bytes > p->topic.retain_bytes) &&
	     !is_too_old(p, &p->segment[i + 1])))
		return 0;
	needed = next = p->segment[i + 1].first_seq;
	return heed_cursors(p, &needed) && needed == next;
}

/* rewriting: the segment that has to stay for now, or NULL. */
static void retain(struct tail_kept *p, const uint64_t *rewriting)
{
	uint64_t bytes = p->bytes;
	unsigned n;

	for (n = 0; is_to_go(p, n, bytes, rewriting); n++) {
		remove_segment(p, p->segment[n].first_seq);
		bytes -= p->segment[n].bytes;
	}
	if (!n)
		return;
	p->count -= n;
	memmove(p->segment, p->segment + n, p->count * sizeof(*p->segment));
	add_up(p);
}

/* ---- writing anew ---------------------------------------------------- */

/* A copy of it beside it must not be what fills the disk. */
static int has_room(const struct tail_kept *p, uint64_t bytes)
{
	struct statvfs fs;

	return !fstatvfs(p->dir, &fs) &&
	       (uint64_t)fs.f_bavail * fs.f_frsize > bytes + 2 * p->topic.segment_bytes;
}

int tail_keep_has_room(struct tail_kept *p)
{
	if (!(p->topic.flags & SHMQ_TOPIC_RETAIN_KEYS) || load_relaxed(&p->is_vain) ||
	    has_room(p, 0))
		return 1;
	store_relaxed(&p->wants_room, 1);
	return 0;
}

static void complain(struct tail_kept *p, const char *what, int error, const struct shmq__why *why)
{
	if (error != -ECANCELED)
		log_warn("log of \"%s\", partition %u: %s: %s", p->topic.name, p->owner.partition,
			 what, *why->text ? why->text : shmq_strerror(error));
	p->again_ns = shmq__clock_monotonic_ns() + AGAIN_NS;
}

static void retain_others(struct tail_keep *k);
static void store_clean(struct tail_kept *p);

/* Writing a segment anew takes long: what is to be removed is removed meanwhile. */
static int give_turn(void *arg, const uint64_t *rewriting)
{
	struct tail_kept *p = arg;
	uint64_t now = shmq__clock_monotonic_ns();

	if (load_relaxed(&p->is_leaving))
		return -ECANCELED;
	if (now < p->turn_ns)
		return 0;
	p->turn_ns = now + LOOK_NS;
	read_notes(p);
	retain(p, rewriting);
	store_clean(p);
	retain_others(p->keep);
	return 0;
}

static void compress(struct tail_kept *p, const struct kept_segment *which)
{
	struct tail_rewrite r = { .dir = p->dir,
				  .owner = &p->owner,
				  .first_seq = which->first_seq,
				  .level = p->topic.compress,
				  .turn = { give_turn, p } };
	struct kept_segment *s;
	struct shmq__why why;
	int error, is_compressed;

	if (!has_room(p, which->bytes))
		return;
	error = tail_rewrite(&r, &why);
	if (error)
		complain(p, "a segment is not compressed", error, &why);
	s = find(p, r.first_seq);
	if (!s)
		return;
	/* Readers find it, and a repair may help. */
	s->is_bad = error == SHMQ_ECORRUPT;
	if (!error)
		s->bytes = size_of(p, r.first_seq, &is_compressed);
	s->is_compressed = !error;
}

static void compress_all(struct tail_kept *p)
{
	unsigned i;

	for (i = 0; i < p->count && !p->again_ns; i++)
		if (is_wanted_compressed(p, &p->segment[i]))
			compress(p, &p->segment[i]);
	add_up(p);
}

/* Complete segments from the oldest on, behind each of which there is another one: a
 * reader at the end of the last looks for nothing but what comes. */
static unsigned count_complete(const struct tail_kept *p, uint64_t *bytes)
{
	unsigned n;

	*bytes = 0;
	for (n = 0; n + 1 < p->count && p->segment[n].is_complete; n++)
		*bytes += p->segment[n].bytes;
	return n;
}

/* ---- compaction ------------------------------------------------------ */

static int has_pass(const struct tail_kept *p)
{
	return p->has_clean && p->clean.end_seq != p->clean.clean_seq;
}

static int has_due(const struct tail_kept *p)
{
	return p->has_clean && p->clean.tombstone_ns <= age_clock(p->keep);
}

/* As much has come as there was left of all before. */
static int has_grown(const struct tail_kept *p)
{
	uint64_t bytes;

	return count_complete(p, &bytes) && bytes > p->tried_bytes &&
	       bytes - p->tried_bytes >= p->tried_bytes;
}

/* ... or something at least, and the next segment waits for room. */
static int is_short(const struct tail_kept *p)
{
	uint64_t bytes;

	return load_relaxed(&p->wants_room) && count_complete(p, &bytes) && bytes > p->tried_bytes;
}

/* ... or a pass did not end, or what deletes a key is due. */
static int is_dirty(const struct tail_kept *p)
{
	return (p->topic.flags & SHMQ_TOPIC_RETAIN_KEYS) &&
	       (has_grown(p) || has_pass(p) || has_due(p) || is_short(p));
}

/* How far it is, in the midst of a pass too.  The next goes on there, with what this
 * one learned; but not if cursors made it keep a part. */
static struct tail_clean clean_so_far(const struct tail_kept *p)
{
	struct tail_clean c = p->clean;

	if (!p->pass.has_passed || seq_diff(p->keep_from, p->pass.end_seq) < 0)
		return c;
	c.end_seq = p->pass.end_seq;
	c.passed_seq = p->pass.passed_seq;
	if (p->pass.tombstone_ns < c.tombstone_ns)
		c.tombstone_ns = p->pass.tombstone_ns;
	return c;
}

/* What is on the disk stays while a pass from the oldest on goes over what it tells
 * of. */
static void store_clean(struct tail_kept *p)
{
	struct tail_clean now = clean_so_far(p);

	if (!p->has_clean || (p->has_stored && (seq_diff(now.clean_seq, p->stored.clean_seq) < 0 ||
						!memcmp(&now, &p->stored, sizeof(now)))))
		return;
	if (tail_clean_write(p->dir, &p->owner, &now))
		return; /* then more is read again */
	p->stored = now;
	p->has_stored = 1;
}

/* Where the tailer before this one stood. */
static void load_clean(struct tail_kept *p)
{
	if (!(p->topic.flags & SHMQ_TOPIC_RETAIN_KEYS) || !p->count ||
	    tail_clean_read(p->dir, &p->owner, &p->stored) ||
	    /* There was more then. */
	    seq_diff(p->stored.clean_seq, p->segment[p->count - 1].first_seq) > 0)
		return;
	p->clean = p->stored;
	p->tried_seq = p->clean.clean_seq;
	p->has_clean = p->has_stored = 1;
	add_up(p);
}

/* Segments before seq. */
static unsigned count_before(const struct tail_kept *p, unsigned count, uint64_t seq)
{
	unsigned n = 0;

	while (n < count && seq_diff(p->segment[n].first_seq, seq) < 0)
		n++;
	return n;
}

/* How many of `count` segments a pass learns that begins behind `clean` of them.  As
 * much as it has to go through anyway, so that one that is interrupted loses no more;
 * or all, if less than that would be left. */
static unsigned count_for_pass(const struct tail_kept *p, unsigned clean, unsigned count)
{
	uint64_t before = 0, some, rest = 0, sum = 0;
	unsigned i;

	for (i = 0; i < count; i++)
		*(i < clean ? &before : &rest) += p->segment[i].bytes;
	some = before > PASS_BYTES ? before : PASS_BYTES;
	if (rest <= before + 2 * some)
		return count;
	for (i = clean; i < count && sum < some; i++)
		sum += p->segment[i].bytes;
	return i;
}

/* What was merged is gone. */
static void forget_merged(struct tail_kept *p)
{
	char name[LOG_NAME_BYTES];
	unsigned i, n = 0;

	for (i = 0; i < p->count; i++) {
		shmq__log_segment_name(p->dir, p->segment[i].first_seq, name);
		if (!p->segment[i].is_complete ||
		    !faccessat(p->dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
			p->segment[n++] = p->segment[i];
	}
	p->count = n;
}

static void measure(struct tail_kept *p, const uint64_t *first, unsigned count)
{
	struct kept_segment *s;
	int is_compressed;
	unsigned i;

	for (i = 0; i < count; i++) {
		s = find(p, first[i]);
		if (!s)
			continue;
		s->bytes = size_of(p, first[i], &is_compressed);
		s->is_compressed = (uint8_t)is_compressed;
	}
}

/* What a pass is to learn, and where it goes on. */
static void plan(struct tail_kept *p, struct tail_compact *c, unsigned complete)
{
	unsigned end;

	c->keep_from = p->keep_from;
	c->clean = count_before(p, complete, p->clean.clean_seq);
	c->count = count_for_pass(p, c->clean, complete);
	end = count_before(p, complete, p->clean.end_seq);
	if (has_pass(p) && end > c->clean && seq_diff(p->keep_from, p->clean.end_seq) >= 0) {
		c->count = end;
		c->passed = count_before(p, end, p->clean.passed_seq);
	}
	c->keeps_tombstones = !p->knows_all || c->passed;
}

static void note_pass(struct tail_kept *p, const struct tail_compact *c, int error)
{
	struct tail_clean clean = clean_so_far(p);

	if (!error) {
		p->tried_seq = p->pass.done < c->count ? c->first[p->pass.done] :
							 c->first[c->count - 1] + 1;
		clean.clean_seq = p->pass.end_seq;
		if (seq_diff(p->keep_from, clean.clean_seq) < 0)
			clean.clean_seq = p->keep_from;
		clean.end_seq = clean.passed_seq = clean.clean_seq;
		/* It went through all that tells when it is due. */
		if (!c->passed)
			clean.tombstone_ns = p->pass.tombstone_ns;
	}
	p->clean = clean;
	p->pass.has_passed = 0;
	store_clean(p);
}

/* From the oldest on, as if nothing were known. */
static void begin_anew(struct tail_kept *p)
{
	uint64_t seq = p->segment[0].first_seq;

	p->clean = (struct tail_clean){ seq, seq, seq, UINT64_MAX };
	p->tried_seq = seq;
	p->has_clean = p->knows_all = 1;
}

static void compact(struct tail_kept *p)
{
	struct tail_compact c = { .dir = p->dir,
				  .owner = &p->owner,
				  .level = p->topic.compress,
				  .merge_bytes = p->topic.segment_bytes,
				  .key_bytes = KEY_BYTES,
				  .now_ns = age_clock(p->keep),
				  .tombstone_ns = p->topic.tombstone_ns,
				  .turn = { give_turn, p } };
	struct shmq__why why = { "" };
	uint64_t bytes, *first;
	unsigned i, complete = count_complete(p, &bytes);
	int error;

	if (!complete)
		return;
	p->keep_from = p->segment[complete].first_seq;
	/* What waits for it takes no room meanwhile. */
	if (!heed_cursors(p, &p->keep_from) ||
	    (!load_relaxed(&p->wants_room) && !has_room(p, p->topic.segment_bytes)))
		return;
	/* What deletes a key waits for the rest. */
	if (!p->has_clean || (!p->knows_all && !has_grown(p) && !has_pass(p) && !is_short(p)))
		begin_anew(p);
	plan(p, &c, complete);
	c.first = first = malloc(c.count * sizeof(*first));
	if (!first)
		return;
	for (i = 0; i < c.count; i++)
		first[i] = p->segment[i].first_seq;
	error = tail_compact(&c, &p->pass, &why);
	if (error)
		complain(p, "what was superseded is not dropped", error, &why);
	note_pass(p, &c, error);
	if (p->pass.dropped || p->pass.merged)
		log_info("log of \"%s\", partition %u: %" PRIu64
			 " superseded messages were dropped from %u segments; %u are part of "
			 "others now",
			 p->topic.name, p->owner.partition, p->pass.dropped,
			 p->pass.rewritten + p->pass.merged, p->pass.merged);
	measure(p, first, c.count);
	forget_merged(p);
	free(first);
	add_up(p);
}

static void tend(struct tail_kept *p)
{
	struct tail_clean before = p->clean;

	if (p->again_ns && shmq__clock_monotonic_ns() >= p->again_ns)
		p->again_ns = 0;
	p->turn_ns = shmq__clock_monotonic_ns() + LOOK_NS;
	retain(p, NULL);
	if (!p->again_ns && is_dirty(p))
		compact(p);
	if (!p->again_ns && p->uncompressed)
		compress_all(p);
	store_relaxed(&p->is_vain, (uint32_t)(p->again_ns || !is_short(p) ||
					      !memcmp(&before, &p->clean, sizeof(before))));
}

/* Whether there is anything to be done, as far as that is known by heart. */
static int needs_tending(const struct tail_kept *p)
{
	return atomic_load_explicit(&p->notes, memory_order_relaxed) ||
	       load_relaxed(&p->has_missed) || p->uncompressed ||
	       (p->topic.retain_bytes && p->bytes > p->topic.retain_bytes) ||
	       (p->topic.retain_ns && p->count > 1) || load_relaxed(&p->wants_room) || is_dirty(p);
}

/* ---- disks ----------------------------------------------------------- */

/* Well before none can begin. */
static uint64_t room_of(const struct tail_kept *p)
{
	return (p->topic.flags & SHMQ_TOPIC_RETAIN_KEYS ? 4 : 2) * (uint64_t)p->topic.segment_bytes;
}

static int is_low(const struct disk *d, uint64_t room)
{
	return d->left < d->all / 20 || d->left < room;
}

static void watch_disk(struct disk *d)
{
	struct statvfs fs;
	int was_low = d->is_low;

	if (fstatvfs(d->dir, &fs))
		return;
	d->left = (uint64_t)fs.f_bavail * fs.f_frsize;
	d->all = (uint64_t)fs.f_blocks * fs.f_frsize;
	d->is_low = is_low(d, d->room);
	if (d->is_low && !was_low)
		log_warn("logs: %" PRIu64 " MiB are left on their disk: make room, or have less "
			 "retained, before publishers notice",
			 d->left >> 20);
}

static void tell_of_disk(const struct tail_kept *p)
{
	uint64_t mib = p->disk->left >> 20;

	store_relaxed(&p->part->log_left_mib, mib < UINT32_MAX ? (uint32_t)mib : UINT32_MAX);
	store_relaxed(&p->part->log_is_low, (uint32_t)is_low(p->disk, room_of(p)));
}

/* Under the lock. */
static int join_disk(struct tail_keep *k, struct tail_kept *p)
{
	struct disk *d;
	struct stat st;

	if (fstat(p->dir, &st))
		return -errno;
	LIST_FOREACH (d, &k->disks, link)
		if (d->dev == st.st_dev)
			break;
	if (!d) {
		d = calloc(1, sizeof(*d));
		if (!d)
			return -ENOMEM;
		d->dev = st.st_dev;
		d->dir = fcntl(p->dir, F_DUPFD_CLOEXEC, 0);
		if (d->dir < 0) {
			free(d);
			return -errno;
		}
		LIST_INSERT_HEAD(&k->disks, d, link);
		watch_disk(d);
	}
	d->users++;
	if (room_of(p) > d->room)
		d->room = room_of(p);
	p->disk = d;
	return 0;
}

static void leave_disk(struct tail_kept *p)
{
	struct disk *d = p->disk;

	if (!d || --d->users)
		return;
	LIST_REMOVE(d, link);
	close(d->dir);
	free(d);
}

/* ---- the thread ------------------------------------------------------ */

/* One after the other; those that come meanwhile have their turn the next time.  But
 * for one that is being tended. */
static void each(struct tail_keep *k, void (*what)(struct tail_kept *p))
{
	struct tail_kept *p;
	struct disk *d;

	LIST_FOREACH (d, &k->disks, link)
		watch_disk(d);
	/* One that is busy stays in the list. */
	LIST_FOREACH (p, &k->all, link) {
		tell_of_disk(p);
		if (p->is_busy || !needs_tending(p))
			continue;
		p->is_busy = 1;
		pthread_mutex_unlock(&k->lock);
		read_notes(p);
		what(p);
		pthread_mutex_lock(&k->lock);
		p->is_busy = 0;
		pthread_cond_broadcast(&k->changed);
	}
}

static void only_retain(struct tail_kept *p)
{
	retain(p, NULL);
}

static void retain_others(struct tail_keep *k)
{
	pthread_mutex_lock(&k->lock);
	each(k, only_retain);
	pthread_mutex_unlock(&k->lock);
}

static void *run(void *arg)
{
	struct tail_keep *k = arg;
	struct timespec until;

	setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
	pthread_mutex_lock(&k->lock);
	while (!k->is_over) {
		if (atomic_exchange_explicit(&k->is_to_sweep, 0, memory_order_relaxed)) {
			pthread_mutex_unlock(&k->lock);
			for (unsigned i = 0; i < k->dirs; i++)
				durable_sweep(k->dir[i]);
			pthread_mutex_lock(&k->lock);
		}
		each(k, tend);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += LOOK_NS / 1000000000;
		if (!k->is_over)
			pthread_cond_timedwait(&k->changed, &k->lock, &until);
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

/* The signals of the process are none of its business. */
static int start(struct tail_keep *k)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&k->thread, NULL, run, k);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

int tail_keep_create(const char *const *dir, unsigned count, struct tail_keep **out)
{
	struct tail_keep *k = calloc(1, sizeof(*k));
	pthread_condattr_t attr;
	int error;

	*out = NULL;
	if (!k)
		return -ENOMEM;
	LIST_INIT(&k->all);
	LIST_INIT(&k->disks);
	k->dir = dir;
	k->dirs = count;
	store_relaxed(&k->is_to_sweep, 1);
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->changed, &attr);
	pthread_condattr_destroy(&attr);
	error = start(k);
	if (error) {
		free(k);
		return error;
	}
	*out = k;
	return 0;
}

void tail_keep_destroy(struct tail_keep *k)
{
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->is_over = 1;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

void tail_keep_sweep(struct tail_keep *k)
{
	store_relaxed(&k->is_to_sweep, 1);
}

/* ---- coming and going ------------------------------------------------ */

static void destroy(struct tail_kept *p)
{
	struct note *n, *next;

	for (n = take_notes(p); n; n = next) {
		next = n->before;
		free(n);
	}
	leave_disk(p);
	if (p->dir >= 0)
		close(p->dir);
	if (p->log_dir >= 0)
		close(p->log_dir);
	free(p->segment);
	free(p);
}

int tail_keep_add(struct tail_keep *k, const struct tail_kept_options *o, struct tail_kept **out)
{
	struct tail_kept *p = calloc(1, sizeof(*p));
	int error = 0;

	*out = NULL;
	if (!p)
		return -ENOMEM;
	p->keep = k;
	p->topic = *o->topic;
	p->owner = o->owner;
	p->part = o->part;
	p->dir = fcntl(o->dir, F_DUPFD_CLOEXEC, 0);
	p->log_dir = p->dir < 0 ? -1 : fcntl(o->log_dir, F_DUPFD_CLOEXEC, 0);
	if (p->log_dir < 0)
		error = -errno;
	if (!error)
		error = list(p, o->has_open);
	if (!error)
		load_clean(p);
	pthread_mutex_lock(&k->lock);
	if (!error)
		error = join_disk(k, p);
	if (!error) {
		LIST_INSERT_HEAD(&k->all, p, link);
		tell_of_disk(p); /* not only a second from now: 0 left would be said of it */
	} else {
		destroy(p);
	}
	pthread_mutex_unlock(&k->lock);
	*out = error ? NULL : p;
	return error;
}

void tail_keep_remove(struct tail_kept *p)
{
	struct tail_keep *k;

	if (!p)
		return;
	k = p->keep;
	store_relaxed(&p->is_leaving, 1);
	pthread_mutex_lock(&k->lock);
	while (p->is_busy)
		pthread_cond_wait(&k->changed, &k->lock);
	LIST_REMOVE(p, link);
	destroy(p);
	pthread_mutex_unlock(&k->lock);
}
