/* SPDX-License-Identifier: MIT */
#include "tailer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bus.h"
#include "clock.h"
#include "durable.h"
#include "files.h"
#include "futex.h"
#include "link.h"
#include "log_identity.h"
#include "registry.h"
#include "shmem.h"
#include "sub.h"
#include "tail_lane.h"
#include "sandbox.h"

#define LOCK_TIMEOUT_NS INT64_C(10000000000)
#define BUS_TIMEOUT_NS INT64_C(10000000000)
/* Where something is to be looked for again, or may be done. */
#define LOOK_NS UINT64_C(50000000)
/* Who changes anything wakes us: to be sure. */
#define LOOK_IDLE_NS UINT64_C(10000000000)
/* Topics that come one after the other are looked at together. */
#define SOON_NS UINT64_C(5000000)
#define IO_WAIT_NS INT64_C(500000)
/* Publishers that have just sent send again soon.  Until then nobody is to wake
 * us: that takes them longer than the message.  So we look again after a while,
 * short of what a ring fills in; at once where somebody waits for each sync. */
#define NAP_NS 100000
#define SPIN_NS UINT64_C(50000)
#define OPEN_AGAIN_NS UINT64_C(1000000000)
#define STUCK_MS 2
#define READY_MAX 64
#define DIRS_MAX DURABLE_DIRS_MAX
_Static_assert(DIRS_MAX <= LAY_DISKS_MAX, "a place for each device");

/* A topic with its lanes. */
struct tail {
	LIST_ENTRY(tail) link;
	struct shmq_topic_info info;
	unsigned look; /* when it was among the topics last */
	int dir;
	struct log_identity identity;
	void *map; /* of its partition records */
	size_t map_bytes;
	struct tail_lane *lane[];
};

/* One that could not be opened: when to try again. */
struct failed {
	uint64_t id, again_ns;
};

/* What has the logs of one device, on a thread of its own: one that is slow or full
 * delays nobody else's. */
struct worker {
	struct tailer *t;
	pthread_t thread;
	dev_t dev;
	const char *dir[DIRS_MAX]; /* of the bus's logs, on it */
	unsigned dirs;
	struct lay_disk *disk;  /* where it is told what was written */
	uint64_t written_bytes; /* ... by others before us */
	shmq_waitset *set;
	struct tail_io *io;
	LIST_HEAD(tail_list, tail) tails;
	void *by_id; /* tsearch(3) of them */
	struct failed *failed;
	unsigned failed_count;
	unsigned lanes;
	struct tail_keep *keep;
	uint32_t change;           /* of the registry when we looked at its topics */
	int is_to_look;            /* ... whether it has changed or not */
	unsigned look;             /* number of that */
	uint64_t look_ns, soon_ns; /* to look: at the latest, and not before */
	int is_stuck;              /* a lane has no buffer, or its disk is full */
	int is_fed;                /* a lane had something when it was looked at last */
	int is_rushed;             /* ... so much of a ring that we should hurry */
	uint64_t spin_until_ns;
};

struct tailer {
	const struct options *o;
	int link_fd, registry_fd;
	struct link_slab slab[LINK_SLABS_MAX];
	struct durable_dirs dirs;
	int lock_fd;
	shmq_bus *bus;
	const struct lay_registry *registry;
	struct lay_registry *head;      /* of it, to be written */
	struct worker worker[DIRS_MAX]; /* the first is the main thread */
	unsigned workers;
	shmq_au32 is_stopping; /* the bus ends: read all there is */
	shmq_au32 is_over;     /* the parent is gone */
	shmq_au32 others;      /* threads that are under way besides the main one */
};

/* ---- topics ---------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct tail *)a)->info.id, y = ((const struct tail *)b)->info.id;

	return (x > y) - (x < y);
}

static void close_tail(struct worker *w, struct tail *tail)
{
	uint32_t p;
	int error;

	for (p = 0; p < tail->info.partitions; p++) {
		if (!tail->lane[p])
			continue;
		shmq_waitset_remove(w->set, tail_lane_sub(tail->lane[p]));
		error = tail_lane_close(tail->lane[p]);
		if (error)
			log_error("closing the log of \"%s\", partition %u: %s", tail->info.name, p,
				  shmq_strerror(error));
		w->lanes--;
	}
	if (tail->map)
		shmq__shmem_unmap(tail->map, tail->map_bytes);
	if (tail->dir >= 0)
		close(tail->dir);
	LIST_REMOVE(tail, link);
	tdelete(tail, &w->by_id, by_id);
	free(tail);
}

/* Its partition records, to be written. */
static int map_records(struct worker *w, struct tail *tail, lay_ref array)
{
	uint64_t off = LAY_REF_OFF(array), from = off & ~(uint64_t)(LAY_PAGE - 1),
		 bytes = tail->info.partitions * sizeof(struct lay_partition);
	int error;

	tail->map_bytes = (size_t)(off - from + bytes + LAY_PAGE - 1) & ~(size_t)(LAY_PAGE - 1);
	error = shmq__shmem_map(w->t->registry_fd, from, tail->map_bytes, PROT_READ | PROT_WRITE,
				&tail->map);
	return error;
}

static struct lay_partition *record_of(const struct tail *tail, lay_ref array, uint32_t p)
{
	return (struct lay_partition *)((char *)tail->map + LAY_REF_OFF(array) % LAY_PAGE) + p;
}

static int open_lanes(struct worker *w, struct tail *tail, lay_ref array, struct shmq__why *why)
{
	char path[PATH_MAX];
	uint32_t p;
	int error = map_records(w, tail, array);

	if (error)
		return shmq__fail(why, error, "mapping its records: %s", shmq_strerror(error));
	if (snprintf(path, sizeof(path), "%s/%s", w->t->dirs.dir[0], tail->info.name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	tail->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tail->dir < 0)
		return shmq__fail(why, -errno, "opening %.180s: %s", path, shmq_strerror(-errno));
	error = durable_lock(tail->dir, tail->info.name, 0, why);
	if (!error)
		error = shmq__log_identify_of(tail->dir, tail->info.name, &tail->identity, why);
	for (p = 0; !error && p < tail->info.partitions; p++) {
		struct tail_lane_options o = {
			.bus = w->t->bus,
			.io = w->io,
			.keep = w->keep,
			.topic = &tail->info,
			.partition = p,
			.dir = tail->dir,
			.log_id = tail->identity.log_id,
			.part = record_of(tail, array, p),
		};

		error = tail_lane_open(&o, &tail->lane[p], why);
		if (error)
			break;
		w->lanes++;
		error = shmq_waitset_add(w->set, tail_lane_sub(tail->lane[p]));
	}
	return error;
}

static int is_due(struct worker *w, uint64_t id, uint64_t now)
{
	unsigned i;

	for (i = 0; i < w->failed_count; i++)
		if (w->failed[i].id == id)
			return now >= w->failed[i].again_ns;
	return 1;
}

static void note_failure(struct worker *w, uint64_t id, uint64_t now)
{
	struct failed *more;
	unsigned i;

	for (i = 0; i < w->failed_count && w->failed[i].id != id; i++)
		;
	if (i == w->failed_count) {
		more = realloc(w->failed, (i + 1) * sizeof(*more));
		if (!more)
			return;
		w->failed = more;
		w->failed_count++;
	}
	w->failed[i] = (struct failed){ id, now + OPEN_AGAIN_NS };
}

/* Who has the device that its log is on; the first one of what is on none of ours. */
static const struct worker *worker_of(const struct tailer *t, const char *topic)
{
	char path[PATH_MAX];
	struct stat st;
	unsigned i = 0;

	if (t->workers > 1 &&
	    snprintf(path, sizeof(path), "%s/%s", t->dirs.dir[0], topic) < (int)sizeof(path) &&
	    !stat(path, &st))
		for (i = t->workers - 1; i && t->worker[i].dev != st.st_dev; i--)
			;
	return &t->worker[i];
}

static int has_log(const struct lay_topic *rec)
{
	return load_acquire(&rec->state) == LAY_TOPIC_LIVE && rec->log > SHMQ_LOG_NONE;
}

/* Where the rings of a topic begin, no publisher can write. */
static void leave(const struct worker *w, const struct tail *tail, const struct shmq_topic_info *to)
{
	const struct lay_partition *part =
		shmq__slabs_at(w->t->bus->slabs, shmq__bus_partition_array(w->t->bus, to->id),
			       to->partitions * sizeof(*part));
	uint32_t p;

	for (p = 0; part && p < tail->info.partitions && p < to->partitions; p++)
		tail_lane_leave(tail->lane[p], part[p].base_seq);
}

/* Its rings before it moved, or a topic before it, of which not all is read: until then
 * the log is locked. */
static int has_one_before(const struct worker *w, const struct shmq_topic_info *info)
{
	const struct tail *tail;

	LIST_FOREACH (tail, &w->tails, link) {
		if (strcmp(tail->info.name, info->name) != 0)
			continue;
		/* Once it is told to have ended its rings have said so. */
		if (!shmq__bus_partition_array(w->t->bus, tail->info.id))
			leave(w, tail, info);
		return 1;
	}
	return 0;
}

static void consider(struct worker *w, const struct shmq_topic_info *info)
{
	uint64_t now = shmq__clock_monotonic_ns();
	struct shmq__why why = { "" };
	struct tail *tail;
	lay_ref array;
	int error;

	if (!is_due(w, info->id, now) || has_one_before(w, info)) {
		w->is_to_look = 1;
		return;
	}
	array = shmq__bus_partition_array(w->t->bus, info->id);
	tail = calloc(1, sizeof(*tail) + info->partitions * sizeof(tail->lane[0]));
	if (tail)
		tail->info = *info;
	if (!tail || !array || !tsearch(tail, &w->by_id, by_id)) {
		w->is_to_look = 1;
		free(tail);
		return;
	}
	tail->dir = -1;
	tail->look = w->look;
	LIST_INSERT_HEAD(&w->tails, tail, link);
	error = open_lanes(w, tail, array, &why);
	if (!error) {
		log_info("keeping the log of \"%s\" in %s", info->name, w->t->dirs.dir[0]);
		return;
	}
	log_error("the log of \"%s\" is not kept: %s", info->name,
		  *why.text ? why.text : shmq_strerror(error));
	close_tail(w, tail);
	note_failure(w, info->id, now);
	w->is_to_look = 1;
}

/* It was removed for good, and its log is in nobody's way any more. */
static int is_removed(struct worker *w, const struct tail *tail)
{
	char path[PATH_MAX];
	struct stat was, is;

	if (tail->look == w->look)
		return 0;
	/* Its directory may not be out of the way yet. */
	w->is_to_look = 1;
	if (fstat(tail->dir, &was) || snprintf(path, sizeof(path), "%s/%s", w->t->dirs.dir[0],
					       tail->info.name) >= (int)sizeof(path))
		return 0;
	return stat(path, &is) ? errno == ENOENT :
				 was.st_dev != is.st_dev || was.st_ino != is.st_ino;
}

static void drop_removed(struct worker *w)
{
	struct tail *tail, *next;

	for (tail = LIST_FIRST(&w->tails); tail; tail = next) {
		next = LIST_NEXT(tail, link);
		if (is_removed(w, tail))
			close_tail(w, tail);
	}
}

/* ---- the loop -------------------------------------------------------- */

/* All who sleep look. */
static void wake(struct tailer *t)
{
	add_release(&t->head->change, 1);
	shmq__futex_wake(&t->head->change);
}

/* Wakes the main thread, which reads it: it sleeps where no descriptor wakes it. */
static void *hear_parent(void *tailer)
{
	struct tailer *t = tailer;
	struct pollfd link = { .fd = t->link_fd, .events = POLLIN };
	const struct timespec meanwhile = { .tv_nsec = LOOK_NS };

	while (!load_relaxed(&t->is_over) && poll(&link, 1, -1) > 0) {
		wake(t);
		nanosleep(&meanwhile, NULL);
	}
	return NULL;
}

static void read_link(struct worker *w)
{
	struct link_msg msg;
	int fd, rc;

	if (w != w->t->worker)
		return;
	while ((rc = link_recv(w->t->link_fd, &msg, &fd, 0)) == 1) {
		if (fd >= 0)
			close(fd);
		if (msg.kind == LINK_STOP)
			store_relaxed(&w->t->is_stopping, 1);
	}
	if (rc != -EAGAIN)
		store_relaxed(&w->t->is_over, 1);
	if (w->t->workers > 1 && (load_relaxed(&w->t->is_over) || load_relaxed(&w->t->is_stopping)))
		wake(w->t);
}

/* 1 if any of it has more. */
static int pump(struct worker *w, struct tail *tail, unsigned *ended)
{
	uint64_t before, taken;
	int more = 0, rc;
	uint32_t p;

	*ended = 0;
	for (p = 0; p < tail->info.partitions; p++) {
		before = shmq__sub_cursor(tail_lane_sub(tail->lane[p]));
		rc = tail_lane_pump(tail->lane[p], (int)load_relaxed(&w->t->is_stopping));
		taken = shmq__sub_cursor(tail_lane_sub(tail->lane[p])) - before;
		w->is_fed |= taken > 0;
		w->is_rushed |= taken > tail->info.depth / 4;
		if (taken && tail->info.sync == SHMQ_SYNC_EVERY)
			w->spin_until_ns = shmq__clock_monotonic_ns() + SPIN_NS;
		more |= rc == 1;
		w->is_stuck |= rc == -EAGAIN;
		if (rc >= 0 || rc == -EAGAIN)
			continue;
		++*ended;
		if (rc == SHMQ_EENDED || rc == SHMQ_EMOVED) {
			/* Or it is ready for ever. */
			shmq_waitset_remove(w->set, tail_lane_sub(tail->lane[p]));
			continue;
		}
		w->is_stuck = 1; /* for a while, it may be */
	}
	return more;
}

static int pump_all(struct worker *w)
{
	struct tail *tail, *next;
	unsigned ended;
	int more = 0;

	w->is_stuck = w->is_fed = w->is_rushed = 0;
	for (tail = LIST_FIRST(&w->tails); tail; tail = next) {
		next = LIST_NEXT(tail, link);
		more |= pump(w, tail, &ended);
		if (ended < tail->info.partitions)
			continue;
		/* One that lives has not ended, or will have in a moment, whatever a
		 * publisher wrote into its rings: it would come back at once, and be looked
		 * through from the disk each time. */
		if (shmq__bus_partition_array(w->t->bus, tail->info.id)) {
			w->is_stuck = 1;
			continue;
		}
		/* A moved topic is found again in its fresh rings. */
		close_tail(w, tail);
		w->is_to_look = 1;
	}
	return more;
}

static uint64_t tend_all(struct worker *w)
{
	uint64_t now = shmq__clock_monotonic_ns(), due = UINT64_MAX, at;
	struct tail *tail;
	uint32_t p;

	LIST_FOREACH (tail, &w->tails, link)
		for (p = 0; p < tail->info.partitions; p++) {
			at = tail_lane_tend(tail->lane[p], now);
			due = at < due ? at : due;
		}
	return due;
}

static struct tail *find(struct worker *w, uint64_t id)
{
	struct tail key = { .info.id = id }, *const *found = tfind(&key, &w->by_id, by_id);

	return found ? *found : NULL;
}

/* Topics come and go seldom, and only what is new is looked into: there may be very many
 * that are not. */
static void look_at_topics(struct worker *w)
{
	uint32_t change = load_acquire(&w->t->registry->change), i, more = 0;
	struct shmq__slabs *slabs = w->t->bus->slabs;
	struct shmq_topic_info info;
	struct lay_topic *rec;
	struct tail *tail;

	if (change == w->change && !w->is_to_look)
		return;
	w->change = change;
	w->is_to_look = 0;
	w->look++;
	for (i = 0; (rec = shmq__slabs_topic(slabs, i)); i++) {
		if (!has_log(rec))
			continue;
		tail = find(w, rec->id);
		if (tail)
			tail->look = w->look;
		more += !tail;
	}
	drop_removed(w); /* before one of the same name comes */
	for (i = 0; more && (rec = shmq__slabs_topic(slabs, i)); i++)
		if (has_log(rec) && !find(w, rec->id) && worker_of(w->t, rec->name) == w &&
		    !shmq__bus_describe_topic(w->t->bus, i, &info) && !info.ended)
			consider(w, &info);
	tail_keep_sweep(w->keep);
}

static void tell_of_disk(struct worker *w)
{
	store_relaxed(&w->disk->written_bytes, w->written_bytes + tail_io_written(w->io));
}

static int has_changed(const struct worker *w)
{
	return load_acquire(&w->t->registry->change) != w->change;
}

static void look_around(struct worker *w, uint64_t now)
{
	tell_of_disk(w);
	if (now < (has_changed(w) ? w->soon_ns : w->look_ns))
		return;
	read_link(w);
	look_at_topics(w);
	w->soon_ns = now + SOON_NS;
	w->look_ns = now + (w->is_to_look ? LOOK_NS : LOOK_IDLE_NS);
}

/* Until a topic, or whoever the main thread hears, wants something of us. */
static void sleep_until(struct worker *w, uint64_t due)
{
	shmq_sub *ready[READY_MAX];
	shmq_au32 *word = &w->t->head->change;
	uint32_t seen = w->change;

	if (has_changed(w)) { /* it is too soon to look */
		seen = load_acquire(word);
		due = w->soon_ns < due ? w->soon_ns : due;
	}
	/* Behind the word, for it was said before that changed; and the main thread may have
	 * just read it itself. */
	if (load_relaxed(&w->t->is_over))
		return;
	shmq__waitset_watch(w->set, word, seen);
	if (w->lanes)
		shmq_waitset_wait(w->set, ready, READY_MAX, shmq__clock_left(due));
	else
		shmq__futex_wait(word, seen, due);
}

static void wait_for_more(struct worker *w, uint64_t due)
{
	struct pollfd link = { .fd = w == w->t->worker ? w->t->link_fd : -1, .events = POLLIN };
	const struct timespec nap = { .tv_nsec = NAP_NS };

	if (w->is_rushed || shmq__clock_monotonic_ns() < w->spin_until_ns) {
		tail_io_reap(w->io, 0);
		sched_yield(); /* whom we wait for may want this processor */
		return;
	}
	if (tail_io_under_way(w->io)) {
		tail_io_reap(w->io, IO_WAIT_NS);
		return;
	}
	if (w->is_fed)
		nanosleep(&nap, NULL);
	else if (w->is_stuck) /* what is there cannot be taken now */
		poll(&link, 1, STUCK_MS);
	else if (!w->lanes && load_relaxed(&w->t->is_stopping)) /* for the others */
		poll(NULL, 0, STUCK_MS);
	else
		sleep_until(w, w->look_ns < due ? w->look_ns : due);
}

/* The main thread is the last: it hears what all go by. */
static int is_done(const struct worker *w)
{
	struct tailer *t = w->t;

	if (load_relaxed(&t->is_over))
		return 1;
	return load_relaxed(&t->is_stopping) && LIST_EMPTY(&w->tails) &&
	       (w != t->worker || !load_relaxed(&t->others));
}

static void run(struct worker *w)
{
	uint64_t due;
	int more;

	while (!is_done(w)) {
		look_around(w, shmq__clock_monotonic_ns());
		more = pump_all(w);
		due = tend_all(w);
		if (more)
			tail_io_reap(w->io, 0);
		else
			wait_for_more(w, due);
	}
	while (!LIST_EMPTY(&w->tails))
		close_tail(w, LIST_FIRST(&w->tails));
}

/* ---- coming ---------------------------------------------------------- */

static int lock_dir(struct tailer *t)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/lock", t->dirs.dir[0]) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	return files_lock(path, LOCK_TIMEOUT_NS);
}

static int join_bus(struct tailer *t)
{
	struct shmq_bus_options o = {
		.size = sizeof(o),
		.serve = SHMQ_SERVE_THREAD,
		.runtime_dir = t->o->dir,
		.timeout_ns = BUS_TIMEOUT_NS,
		.client_name = TAILER_NAME,
	};
	int error = shmq_bus_open(t->o->bus, &o, &t->bus);

	if (!error)
		t->registry = shmq__slabs_registry(t->bus->slabs);
	return error;
}

/* Settled when the bus began: a configuration that was taken since, or a start that
 * brought the bus back, may name another directory. */
static int find_dirs(struct tailer *t)
{
	const struct lay_registry *head;
	void *mem;
	int error = shmq__shmem_map(t->registry_fd, 0, LAY_REGISTRY_BYTES, PROT_READ, &mem);

	if (error)
		return error;
	head = mem;
	error = *head->data_dir ? durable_find_dirs(head->data_dir, sizeof(head->data_dir),
						    t->o->log_dirs, &t->dirs) :
				  -ENOENT;
	shmq__shmem_unmap(mem, LAY_REGISTRY_BYTES);
	return error;
}

/* It reads what publishers wrote and writes the logs, and nothing else.  Not so the
 * other workers, which read of clients in /proc what landlock would deny them. */
static void limit_writes(const struct tailer *t)
{
	const char *directory[DIRS_MAX + 1];
	unsigned i;
	int error;

	for (i = 0; i < t->dirs.count; i++)
		directory[i] = t->dirs.dir[i];
	directory[i++] = "/dev";
	error = t->o->sandbox == SANDBOX_OFF ? 0 : sandbox_limit_files(directory, i, NULL);
	if (error)
		log_info("no limit on where this process writes (landlock: %s)", strerror(-error));
}

/* The device of a directory, or of what leads there; 0: not known. */
static dev_t device_of(const char *path)
{
	char at[PATH_MAX];
	struct stat st;
	char *slash;

	snprintf(at, sizeof(at), "%s", path);
	while (stat(at, &st)) {
		slash = strrchr(at, '/');
		if (!slash || slash == at)
			return 0;
		*slash = 0;
	}
	return st.st_dev;
}

/* One for each device. */
static int make_workers(struct tailer *t)
{
	unsigned i, n;

	for (i = 0; i < t->dirs.count; i++) {
		dev_t dev = device_of(t->dirs.dir[i]);
		struct worker *w;
		int error;

		for (n = 0; n < t->workers && t->worker[n].dev != dev; n++)
			;
		w = &t->worker[n];
		w->dir[w->dirs++] = t->dirs.dir[i];
		if (n < t->workers)
			continue;
		w->t = t;
		w->dev = dev;
		w->is_to_look = 1;
		LIST_INIT(&w->tails);
		error = tail_io_create(&(struct tail_io_options){ 0 }, &w->io);
		if (error)
			return error;
		t->workers++;
	}
	return 0;
}

static int start_keeping(struct worker *w)
{
	int error = tail_keep_create(w->dir, w->dirs, &w->keep);

	return error ? error : shmq_waitset_create(w->t->bus, &w->set);
}

static void *run_thread(void *worker)
{
	struct worker *w = worker;

	run(w);
	add_relaxed(&w->t->others, UINT32_MAX);
	return NULL;
}

/* The signals of the process are the first one's business. */
static int start_threads(struct tailer *t)
{
	sigset_t all, before;
	pthread_t listener;
	unsigned i;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&listener, NULL, hear_parent, t);
	if (!error)
		pthread_detach(listener); /* lives as long as we do */
	for (i = 1; i < t->workers && !error; i++) {
		add_relaxed(&t->others, 1);
		error = pthread_create(&t->worker[i].thread, NULL, run_thread, &t->worker[i]);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

/* A device that was there before goes on with what it had. */
static int show_disks(struct tailer *t)
{
	struct lay_disk disk[LAY_DISKS_MAX];
	struct lay_registry *head;
	unsigned i, k;
	void *mem;
	int error = shmq__shmem_map(t->registry_fd, 0, LAY_REGISTRY_BYTES, PROT_READ | PROT_WRITE,
				    &mem);

	if (error)
		return error;
	t->head = head = mem;
	memcpy(disk, head->disk, sizeof(disk));
	for (i = 0; i < LAY_DISKS_MAX; i++)
		store_release(&head->disk[i].dev, 0);
	for (i = 0; i < t->workers; i++) {
		struct worker *w = &t->worker[i];

		for (k = 0; k < LAY_DISKS_MAX; k++)
			if (load_relaxed(&disk[k].dev) == w->dev)
				w->written_bytes = load_relaxed(&disk[k].written_bytes);
		w->disk = &head->disk[i];
		snprintf(w->disk->dir, sizeof(w->disk->dir), "%s", w->dir[0]);
		tell_of_disk(w);
		store_release(&w->disk->dev, w->dev);
	}
	return 0;
}

static int begin(struct tailer *t)
{
	unsigned i;
	int error = make_workers(t);

	if (!error)
		error = show_disks(t);
	if (sandbox_narrow(SANDBOX_TAILER))
		log_info("no filter of the tailer's own: going on under that of the bus");
	if (!error)
		error = join_bus(t);
	for (i = 0; i < t->workers && !error; i++)
		error = start_keeping(&t->worker[i]);
	return error ? error : start_threads(t);
}

static void end(struct tailer *t)
{
	unsigned i;

	for (i = 1; i < t->workers; i++)
		pthread_join(t->worker[i].thread, NULL);
	for (i = 0; i < t->workers; i++) {
		tail_keep_destroy(t->worker[i].keep);
		shmq_waitset_destroy(t->worker[i].set);
	}
	shmq_bus_close(t->bus);
	for (i = 0; i < t->workers; i++)
		tail_io_destroy(t->worker[i].io);
}

int tailer_run(const struct options *o)
{
	static struct tailer tailer;
	struct tailer *t = &tailer;
	struct link_msg start;
	int listen_fd = -1, lock_fd = -1, error;
	unsigned i;

	log_open("tailer", o->level);
	signal(SIGINT, SIG_IGN); /* of the terminal: the parent hears it too */
	signal(SIGUSR2, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	t->o = o;
	t->link_fd = o->fd;
	for (i = 0; i < LINK_SLABS_MAX; i++)
		t->slab[i].fd = -1;
	error = link_take(t->link_fd, &listen_fd, &lock_fd, t->slab, &start);
	if (listen_fd >= 0)
		close(listen_fd);
	t->registry_fd = t->slab[0].fd;
	if (error) {
		log_error("starting: %s", strerror(-error));
		return EXIT_FAILED;
	}
	error = find_dirs(t);
	t->lock_fd = error ? error : lock_dir(t);
	if (t->lock_fd < 0) {
		log_error("locking the logs in %s: %s", t->dirs.dir[0], shmq_strerror(t->lock_fd));
		return EXIT_FAILED;
	}
	limit_writes(t);
	error = begin(t);
	if (error) {
		log_error("joining the bus: %s",
			  *shmq_bus_error(NULL) ? shmq_bus_error(NULL) : shmq_strerror(error));
		return EXIT_FAILED;
	}
	run(t->worker);
	end(t);
	return EXIT_OK;
}
