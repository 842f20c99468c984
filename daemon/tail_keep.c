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
#include "tail_compact.h"
#include "tail_rewrite.h"

#define LOOK_NS INT64_C(1000000000)
#define KEY_BYTES ((size_t)64 << 20)
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
	int dir;                /* somewhere on it */
	uint64_t left, all;     /* bytes, as of a second ago */
	uint64_t segment_bytes; /* of the largest */
	int is_low;             /* and that was said */
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
	int is_busy; /* the thread is at it; under the lock */

	/* The thread's own. */
	struct kept_segment *segment;
	unsigned count, capacity;
	uint64_t bytes;        /* of all */
	unsigned uncompressed; /* complete ones that are to be compressed */
	uint64_t tried_seq;    /* up to there it was looked for what was superseded */
	uint64_t tried_bytes;  /* of the complete ones before that */
	uint64_t clean_seq;    /* what comes before supersedes nothing any more */
	uint64_t tombstone_ns; /* CLOCK_REALTIME: when one is to be dropped */
	uint64_t again_ns;     /* monotonic: nothing is written anew before */
	uint64_t turn_ns;      /* monotonic: when others have their turn */
	int has_tried;         /* the seqs are something */
	int is_kept;           /* a cursor keeps what would be removed, and that was said */
};

struct tail_keep {
	pthread_t thread;
	pthread_mutex_t lock; /* of the lists; not held while anything is read or written */
	pthread_cond_t changed;
	LIST_HEAD(kept_list, tail_kept) all;
	LIST_HEAD(disk_list, disk) disks;
	const char *const *dir;
	unsigned dirs;
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
		if (s->is_complete && p->has_tried && seq_diff(s->first_seq, p->tried_seq) < 0)
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

/* Everything in the segment before s is older than retention wants. */
static int is_too_old(const struct tail_kept *p, struct kept_segment *s)
{
	uint64_t now = shmq__clock_realtime_ns();
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
	static const char *const suffixes[] = { "idx", "zst", "log" };
	char name[LOG_NAME_BYTES];
	size_t i;

	/* The index first: alone it is harmless, and it is never alone. */
	for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		shmq__log_name(first, suffixes[i], name);
		if (unlinkat(p->dir, name, 0) && errno != ENOENT)
			log_warn("removing %s of \"%s\": %s", name, p->topic.name, strerror(errno));
	}
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

static void complain(struct tail_kept *p, const char *what, int error, const struct shmq__why *why)
{
	if (error != -ECANCELED)
		log_warn("log of \"%s\", partition %u: %s: %s", p->topic.name, p->owner.partition,
			 what, *why->text ? why->text : shmq_strerror(error));
	p->again_ns = shmq__clock_monotonic_ns() + AGAIN_NS;
}

static void retain_others(struct tail_keep *k);

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

/* Complete segments from the oldest on. */
static unsigned count_complete(const struct tail_kept *p, uint64_t *bytes)
{
	unsigned n;

	*bytes = 0;
	for (n = 0; n < p->count && p->segment[n].is_complete; n++)
		*bytes += p->segment[n].bytes;
	return n;
}

/* As much has come as there was left of all before, or what deletes a key is due. */
static int is_dirty(const struct tail_kept *p)
{
	uint64_t bytes;
	unsigned n;

	if (!(p->topic.flags & SHMQ_TOPIC_RETAIN_KEYS))
		return 0;
	n = count_complete(p, &bytes);
	if (!n)
		return 0;
	if (p->has_tried && p->tombstone_ns <= shmq__clock_realtime_ns())
		return 1;
	return bytes > p->tried_bytes && bytes - p->tried_bytes >= p->tried_bytes;
}

static void compact(struct tail_kept *p)
{
	struct tail_compact c = { .dir = p->dir,
				  .owner = &p->owner,
				  .level = p->topic.compress,
				  .key_bytes = KEY_BYTES,
				  .now_ns = shmq__clock_realtime_ns(),
				  .tombstone_ns = p->topic.tombstone_ns,
				  .turn = { give_turn, p } };
	struct tail_compacted done;
	struct shmq__why why = { "" };
	struct kept_segment *s;
	uint64_t bytes, *first, end;
	int error, is_compressed;
	unsigned i;

	c.count = count_complete(p, &bytes);
	end = c.keep_from = p->segment[c.count - 1].first_seq + INT64_MAX / 2;
	if (c.count < p->count)
		end = c.keep_from = p->segment[c.count].first_seq;
	if (!heed_cursors(p, &c.keep_from) || !has_room(p, p->topic.segment_bytes))
		return;
	c.first = first = malloc(c.count * sizeof(*first));
	if (!first)
		return;
	for (i = 0; i < c.count; i++)
		first[i] = p->segment[i].first_seq;
	for (i = 0; i < c.count && p->has_tried; i++)
		if (seq_diff(i + 1 < c.count ? first[i + 1] : end, p->clean_seq) <= 0)
			c.clean = i + 1;
	error = tail_compact(&c, &done, &why);
	if (error)
		complain(p, "what was superseded is not dropped", error, &why);
	else
		p->tombstone_ns = done.tombstone_ns;
	for (i = 0; i < c.count; i++) {
		s = find(p, first[i]);
		if (!s)
			continue;
		s->bytes = size_of(p, first[i], &is_compressed);
		s->is_compressed = (uint8_t)is_compressed;
	}
	if (!error) {
		p->has_tried = 1;
		p->tried_seq = p->clean_seq = done.done < c.count ? first[done.done] : end;
		if (seq_diff(c.keep_from, p->clean_seq) < 0)
			p->clean_seq = c.keep_from;
	}
	if (done.dropped)
		log_info("log of \"%s\", partition %u: %" PRIu64
			 " superseded messages were dropped from %u segments",
			 p->topic.name, p->owner.partition, done.dropped, done.rewritten);
	free(first);
	add_up(p);
}

static void tend(struct tail_kept *p)
{
	if (p->again_ns && shmq__clock_monotonic_ns() >= p->again_ns)
		p->again_ns = 0;
	p->turn_ns = shmq__clock_monotonic_ns() + LOOK_NS;
	retain(p, NULL);
	if (!p->again_ns && is_dirty(p))
		compact(p);
	if (!p->again_ns && p->uncompressed)
		compress_all(p);
}

/* Whether there is anything to be done, as far as that is known by heart. */
static int needs_tending(const struct tail_kept *p)
{
	return atomic_load_explicit(&p->notes, memory_order_relaxed) ||
	       load_relaxed(&p->has_missed) || p->uncompressed ||
	       (p->topic.retain_bytes && p->bytes > p->topic.retain_bytes) ||
	       (p->topic.retain_ns && p->count > 1) || is_dirty(p);
}

/* ---- disks ----------------------------------------------------------- */

static int is_low(const struct disk *d, uint64_t segment_bytes)
{
	return d->left < d->all / 20 || d->left < 2 * segment_bytes;
}

static void watch_disk(struct disk *d)
{
	struct statvfs fs;
	int was_low = d->is_low;

	if (fstatvfs(d->dir, &fs))
		return;
	d->left = (uint64_t)fs.f_bavail * fs.f_frsize;
	d->all = (uint64_t)fs.f_blocks * fs.f_frsize;
	d->is_low = is_low(d, d->segment_bytes);
	if (d->is_low && !was_low)
		log_warn("logs: %" PRIu64 " MiB are left on their disk: make room, or have less "
			 "retained, before publishers notice",
			 d->left >> 20);
}

static void tell_of_disk(const struct tail_kept *p)
{
	uint64_t mib = p->disk->left >> 20;

	store_relaxed(&p->part->log_left_mib, mib < UINT32_MAX ? (uint32_t)mib : UINT32_MAX);
	store_relaxed(&p->part->log_is_low, (uint32_t)is_low(p->disk, p->topic.segment_bytes));
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
	if (p->topic.segment_bytes > d->segment_bytes)
		d->segment_bytes = p->topic.segment_bytes;
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
	p->tombstone_ns = UINT64_MAX;
	p->dir = fcntl(o->dir, F_DUPFD_CLOEXEC, 0);
	p->log_dir = p->dir < 0 ? -1 : fcntl(o->log_dir, F_DUPFD_CLOEXEC, 0);
	if (p->log_dir < 0)
		error = -errno;
	if (!error)
		error = list(p, o->has_open);
	pthread_mutex_lock(&k->lock);
	if (!error)
		error = join_disk(k, p);
	if (!error)
		LIST_INSERT_HEAD(&k->all, p, link);
	else
		destroy(p);
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
