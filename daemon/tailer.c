/* SPDX-License-Identifier: MIT */
#include "tailer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
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
#include "link.h"
#include "log_identity.h"
#include "registry.h"
#include "shmem.h"
#include "sub.h"
#include "tail_lane.h"
#include "sandbox.h"

#define LOCK_TIMEOUT_NS INT64_C(10000000000)
#define BUS_TIMEOUT_NS INT64_C(10000000000)
/* How long a new topic waits for us at most, and a parent that stops.  To look costs a
 * load and a call. */
#define LOOK_NS UINT64_C(50000000)
/* ... and once nothing has come for a while: each look ends a sleep, and to begin one
 * anew takes as long as there are lanes. */
#define LOOK_IDLE_NS UINT64_C(400000000)
#define IDLE_NS UINT64_C(3000000000)
#define IO_WAIT_NS INT64_C(500000)
/* Publishers that have just sent send again soon.  Until then nobody is to wake
 * us: that takes them longer than the message.  So we look again after a while,
 * short of what a ring fills in; at once where somebody waits for each sync. */
#define NAP_NS 100000
#define SPIN_NS UINT64_C(50000)
#define OPEN_AGAIN_NS UINT64_C(1000000000)
#define STUCK_MS 2
#define READY_MAX 64

/* A topic with its lanes. */
struct tail {
	LIST_ENTRY(tail) link;
	struct shmq_topic_info info;
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

struct tailer {
	const struct options *o;
	int link_fd, registry_fd;
	struct link_slab slab[LINK_SLABS_MAX];
	char dir[PATH_MAX]; /* of the bus's logs */
	int lock_fd;
	shmq_bus *bus;
	shmq_waitset *set;
	struct tail_io *io;
	LIST_HEAD(tail_list, tail) tails;
	void *by_id; /* tsearch(3) of them */
	struct failed *failed;
	unsigned failed_count;
	unsigned lanes;
	struct tail_keep *keep;
	const struct lay_registry *registry;
	uint32_t change; /* of the registry when we looked at its topics */
	int is_to_look;  /* ... whether it has changed or not */
	uint64_t look_ns;
	uint64_t fed_ns; /* when something was there last, or a topic came or went */
	int is_stuck;    /* a lane has no buffer, or its disk is full */
	int is_fed;      /* a lane had something when it was looked at last */
	int is_rushed;   /* ... so much of a ring that we should hurry */
	uint64_t spin_until_ns;
	int is_stopping; /* the bus ends: read all there is */
	int is_over;     /* the parent is gone */
};

/* ---- topics ---------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct tail *)a)->info.id, y = ((const struct tail *)b)->info.id;

	return (x > y) - (x < y);
}

static void close_tail(struct tailer *t, struct tail *tail)
{
	uint32_t p;
	int error;

	for (p = 0; p < tail->info.partitions; p++) {
		if (!tail->lane[p])
			continue;
		shmq_waitset_remove(t->set, tail_lane_sub(tail->lane[p]));
		error = tail_lane_close(tail->lane[p]);
		if (error)
			log_error("closing the log of \"%s\", partition %u: %s", tail->info.name, p,
				  shmq_strerror(error));
		t->lanes--;
	}
	if (tail->map)
		shmq__shmem_unmap(tail->map, tail->map_bytes);
	if (tail->dir >= 0)
		close(tail->dir);
	LIST_REMOVE(tail, link);
	tdelete(tail, &t->by_id, by_id);
	free(tail);
}

/* Its partition records, to be written. */
static int map_records(struct tailer *t, struct tail *tail, lay_ref array)
{
	uint64_t off = LAY_REF_OFF(array), from = off & ~(uint64_t)(LAY_PAGE - 1),
		 bytes = tail->info.partitions * sizeof(struct lay_partition);
	int error;

	tail->map_bytes = (size_t)(off - from + bytes + LAY_PAGE - 1) & ~(size_t)(LAY_PAGE - 1);
	error = shmq__shmem_map(t->registry_fd, from, tail->map_bytes, PROT_READ | PROT_WRITE,
				&tail->map);
	return error;
}

static struct lay_partition *record_of(const struct tail *tail, lay_ref array, uint32_t p)
{
	return (struct lay_partition *)((char *)tail->map + LAY_REF_OFF(array) % LAY_PAGE) + p;
}

static int open_lanes(struct tailer *t, struct tail *tail, lay_ref array, struct shmq__why *why)
{
	char path[PATH_MAX];
	uint32_t p;
	int error = map_records(t, tail, array);

	if (error)
		return shmq__fail(why, error, "mapping its records: %s", shmq_strerror(error));
	if (snprintf(path, sizeof(path), "%s/%s", t->dir, tail->info.name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	tail->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (tail->dir < 0)
		return shmq__fail(why, -errno, "opening %.180s: %s", path, shmq_strerror(-errno));
	error = durable_lock(tail->dir, tail->info.name, 0, why);
	if (!error)
		error = shmq__log_identify_of(tail->dir, tail->info.name, &tail->identity, why);
	for (p = 0; !error && p < tail->info.partitions; p++) {
		struct tail_lane_options o = {
			.bus = t->bus,
			.io = t->io,
			.keep = t->keep,
			.topic = &tail->info,
			.partition = p,
			.dir = tail->dir,
			.log_id = tail->identity.log_id,
			.part = record_of(tail, array, p),
		};

		error = tail_lane_open(&o, &tail->lane[p], why);
		if (error)
			break;
		t->lanes++;
		error = shmq_waitset_add(t->set, tail_lane_sub(tail->lane[p]));
	}
	return error;
}

static int is_due(struct tailer *t, uint64_t id, uint64_t now)
{
	unsigned i;

	for (i = 0; i < t->failed_count; i++)
		if (t->failed[i].id == id)
			return now >= t->failed[i].again_ns;
	return 1;
}

static void note_failure(struct tailer *t, uint64_t id, uint64_t now)
{
	struct failed *more;
	unsigned i;

	for (i = 0; i < t->failed_count && t->failed[i].id != id; i++)
		;
	if (i == t->failed_count) {
		more = realloc(t->failed, (i + 1) * sizeof(*more));
		if (!more)
			return;
		t->failed = more;
		t->failed_count++;
	}
	t->failed[i] = (struct failed){ id, now + OPEN_AGAIN_NS };
}

static int consider(void *arg, const struct shmq_topic_info *info)
{
	uint64_t now = shmq__clock_monotonic_ns();
	struct tailer *t = arg;
	struct shmq__why why = { "" };
	struct tail *tail;
	lay_ref array;
	int error;

	struct tail key = { .info.id = info->id };

	if (info->log <= SHMQ_LOG_NONE || info->ended || tfind(&key, &t->by_id, by_id))
		return 0;
	if (!is_due(t, info->id, now)) {
		t->is_to_look = 1;
		return 0;
	}
	array = shmq__bus_partition_array(t->bus, info->id);
	tail = calloc(1, sizeof(*tail) + info->partitions * sizeof(tail->lane[0]));
	if (tail)
		tail->info = *info;
	if (!tail || !array || !tsearch(tail, &t->by_id, by_id)) {
		t->is_to_look = 1;
		free(tail);
		return 0;
	}
	tail->dir = -1;
	LIST_INSERT_HEAD(&t->tails, tail, link);
	error = open_lanes(t, tail, array, &why);
	if (!error) {
		log_info("keeping the log of \"%s\" in %s", info->name, t->dir);
		return 0;
	}
	log_error("the log of \"%s\" is not kept: %s", info->name,
		  *why.text ? why.text : shmq_strerror(error));
	close_tail(t, tail);
	note_failure(t, info->id, now);
	t->is_to_look = 1;
	return 0;
}

/* It was removed for good, and its log is in nobody's way any more. */
static int is_removed(struct tailer *t, const struct tail *tail)
{
	char path[PATH_MAX];
	struct stat was, is;

	if (shmq__bus_partition_array(t->bus, tail->info.id))
		return 0;
	/* Its directory may not be out of the way yet. */
	t->is_to_look = 1;
	if (fstat(tail->dir, &was) ||
	    snprintf(path, sizeof(path), "%s/%s", t->dir, tail->info.name) >= (int)sizeof(path))
		return 0;
	return stat(path, &is) ? errno == ENOENT :
				 was.st_dev != is.st_dev || was.st_ino != is.st_ino;
}

static void drop_removed(struct tailer *t)
{
	struct tail *tail, *next;

	for (tail = LIST_FIRST(&t->tails); tail; tail = next) {
		next = LIST_NEXT(tail, link);
		if (is_removed(t, tail))
			close_tail(t, tail);
	}
}

/* ---- the loop -------------------------------------------------------- */

static void read_link(struct tailer *t)
{
	struct link_msg msg;
	int fd, rc;

	while ((rc = link_recv(t->link_fd, &msg, &fd, 0)) == 1) {
		if (fd >= 0)
			close(fd);
		if (msg.kind == LINK_STOP)
			t->is_stopping = 1;
	}
	if (rc != -EAGAIN)
		t->is_over = 1;
}

/* 1 if any of it has more. */
static int pump(struct tailer *t, struct tail *tail, unsigned *ended)
{
	uint64_t before, taken;
	int more = 0, rc;
	uint32_t p;

	*ended = 0;
	for (p = 0; p < tail->info.partitions; p++) {
		before = shmq__sub_cursor(tail_lane_sub(tail->lane[p]));
		rc = tail_lane_pump(tail->lane[p]);
		taken = shmq__sub_cursor(tail_lane_sub(tail->lane[p])) - before;
		t->is_fed |= taken > 0;
		t->is_rushed |= taken > tail->info.depth / 4;
		if (taken && tail->info.sync == SHMQ_SYNC_EVERY)
			t->spin_until_ns = shmq__clock_monotonic_ns() + SPIN_NS;
		more |= rc == 1;
		t->is_stuck |= rc == -EAGAIN;
		*ended += rc < 0 && rc != -EAGAIN;
		if (rc < 0 && rc != -EAGAIN && rc != SHMQ_EENDED && rc != SHMQ_EMOVED)
			log_error("reading \"%s\", partition %u for its log: %s", tail->info.name,
				  p, shmq_strerror(rc));
	}
	return more;
}

static int pump_all(struct tailer *t)
{
	struct tail *tail, *next;
	unsigned ended;
	int more = 0;

	t->is_stuck = t->is_fed = t->is_rushed = 0;
	for (tail = LIST_FIRST(&t->tails); tail; tail = next) {
		next = LIST_NEXT(tail, link);
		more |= pump(t, tail, &ended);
		/* A moved topic is found again in its fresh rings. */
		if (ended == tail->info.partitions) {
			close_tail(t, tail);
			t->is_to_look = 1;
		}
	}
	return more;
}

static uint64_t tend_all(struct tailer *t)
{
	uint64_t now = shmq__clock_monotonic_ns(), due = UINT64_MAX, at;
	struct tail *tail;
	uint32_t p;

	LIST_FOREACH (tail, &t->tails, link)
		for (p = 0; p < tail->info.partitions; p++) {
			at = tail_lane_tend(tail->lane[p], now);
			due = at < due ? at : due;
		}
	return due;
}

/* Topics come and go seldom: there may be very many that do not. */
static void look_at_topics(struct tailer *t)
{
	uint32_t change = load_acquire(&t->registry->change);

	if (change == t->change && !t->is_to_look)
		return;
	t->change = change;
	t->is_to_look = 0;
	t->fed_ns = shmq__clock_monotonic_ns();
	drop_removed(t);
	shmq_topic_each(t->bus, consider, t);
	tail_keep_sweep(t->keep);
}

static void look_around(struct tailer *t, uint64_t now)
{
	if (now < t->look_ns)
		return;
	read_link(t);
	look_at_topics(t);
	t->look_ns = now + (now < t->fed_ns + IDLE_NS ? LOOK_NS : LOOK_IDLE_NS);
}

static void wait_for_more(struct tailer *t, uint64_t due)
{
	shmq_sub *ready[READY_MAX];
	struct pollfd link = { .fd = t->link_fd, .events = POLLIN };
	const struct timespec nap = { .tv_nsec = NAP_NS };
	int64_t left;

	if (t->is_rushed || shmq__clock_monotonic_ns() < t->spin_until_ns) {
		tail_io_reap(t->io, 0);
		sched_yield(); /* whom we wait for may want this processor */
		return;
	}
	if (tail_io_under_way(t->io)) {
		tail_io_reap(t->io, IO_WAIT_NS);
		return;
	}
	due = t->look_ns < due ? t->look_ns : due;
	left = shmq__clock_left(due);
	if (t->is_fed)
		nanosleep(&nap, NULL);
	else if (t->is_stuck) /* what is there cannot be taken now */
		poll(&link, 1, STUCK_MS);
	else if (t->lanes)
		shmq_waitset_wait(t->set, ready, READY_MAX, left);
	else
		poll(&link, 1, shmq__clock_left_ms(due));
}

static void run(struct tailer *t)
{
	uint64_t due;
	int more;

	while (!t->is_over && !(t->is_stopping && LIST_EMPTY(&t->tails))) {
		look_around(t, shmq__clock_monotonic_ns());
		more = pump_all(t);
		if (t->is_fed || t->is_stuck)
			t->fed_ns = shmq__clock_monotonic_ns();
		due = tend_all(t);
		if (more)
			tail_io_reap(t->io, 0);
		else
			wait_for_more(t, due);
	}
	while (!LIST_EMPTY(&t->tails))
		close_tail(t, LIST_FIRST(&t->tails));
}

/* ---- coming ---------------------------------------------------------- */

static int lock_dir(struct tailer *t)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/lock", t->dir) >= (int)sizeof(path))
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

	if (error)
		return error;
	t->registry = shmq__slabs_registry(t->bus->slabs);
	t->is_to_look = 1;
	return shmq_waitset_create(t->bus, &t->set);
}

/* Settled when the bus began: a configuration that was taken since, or a start that
 * brought the bus back, may name another directory. */
static int find_dir(struct tailer *t)
{
	const struct lay_registry *head;
	void *mem;
	int error = shmq__shmem_map(t->registry_fd, 0, LAY_REGISTRY_BYTES, PROT_READ, &mem);

	if (error)
		return error;
	head = mem;
	snprintf(t->dir, sizeof(t->dir), "%.*s", (int)sizeof(head->data_dir) - 1, head->data_dir);
	shmq__shmem_unmap(mem, LAY_REGISTRY_BYTES);
	return *t->dir ? 0 : -ENOENT;
}

/* It reads what publishers wrote and writes the logs, and nothing else.  Not so the
 * other workers, which read of clients in /proc what landlock would deny them. */
static void limit_writes(const struct tailer *t)
{
	const char *const directories[] = { t->dir, "/dev" };
	int error = t->o->sandbox == SANDBOX_OFF ? 0 : sandbox_limit_writes(directories, 2);

	if (error)
		log_info("no limit on where this process writes (landlock: %s)", strerror(-error));
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
	LIST_INIT(&t->tails);
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
	error = find_dir(t);
	t->lock_fd = error ? error : lock_dir(t);
	if (t->lock_fd < 0) {
		log_error("locking the logs in %s: %s", t->dir, shmq_strerror(t->lock_fd));
		return EXIT_FAILED;
	}
	limit_writes(t);
	error = tail_io_create(&(struct tail_io_options){ 0 }, &t->io);
	if (sandbox_narrow(SANDBOX_TAILER))
		log_info("no filter of the tailer's own: going on under that of the bus");
	if (!error)
		error = tail_keep_create(t->dir, &t->keep);
	if (!error)
		error = join_bus(t);
	if (error) {
		log_error("joining the bus: %s",
			  *shmq_bus_error(NULL) ? shmq_bus_error(NULL) : shmq_strerror(error));
		return EXIT_FAILED;
	}
	run(t);
	tail_keep_destroy(t->keep);
	shmq_waitset_destroy(t->set);
	shmq_bus_close(t->bus);
	tail_io_destroy(t->io);
	return EXIT_OK;
}
