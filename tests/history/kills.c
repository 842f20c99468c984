/* SPDX-License-Identifier: MIT
 *
 * Randomised runs with kills: what everybody sent and got is written down, and
 * the whole must be a history that can be.
 *
 * A seed decides the topic, who is there, and after how many messages who is
 * killed; the kernel decides the rest, so a seed that failed is repeated by
 * SHMQ_SEED=n SHMQ_RUNS=1, if need be several times.
 */
#include "../../libshmq/sub_priv.h"
#include "../lib/bus.h"
#include "helpers.h"
#include "history.h"

#include <time.h>

enum start { OLDEST, LATEST, SEQ, TIME, CURSOR, STARTS };
enum { DEPTH = 1024, PUBLISHERS = 3, SUBSCRIBERS = 3, LIVES = 12, BATCH = 16 };
enum { SENDS = 30000, RECEIPTS = 200000, MESSAGES = 20000 };

/* ---- books ----------------------------------------------------------------------- */

/* Each process writes its own, so that it stands there when it has died. */
struct pub_book {
	_Atomic uint64_t begun; /* sends that may have happened */
	struct history_send send[SENDS];
};

struct sub_book {
	_Atomic uint64_t count;
	_Atomic int opened, lived;
	uint64_t start[HISTORY_PARTITIONS], from_ts;
	enum start from;
	struct history_receipt receipt[RECEIPTS];
};

/* How far the one that has it had come when it was stored last; others may only be
 * looked at while nobody stores it. */
struct cursor_book {
	_Atomic int is_storing;
	uint64_t seq[HISTORY_PARTITIONS];
};

struct plan {
	uint64_t seed;
	enum shmq_mode mode;
	enum shmq_policy policy;
	enum shmq_log log;
	unsigned partitions, publishers, subscribers, pub_kills, sub_kills, worker_kills,
		tailer_kills;
	size_t most; /* bytes of a message */
	int slow;    /* subscribers dawdle */
};

struct stage {
	struct plan plan;
	_Atomic uint64_t sent; /* by all, about */
	_Atomic int enough, over;
	_Atomic unsigned pubs, subs; /* lives so far */
	struct pub_book pub[LIVES];
	struct sub_book sub[LIVES + SUBSCRIBERS];
	struct cursor_book cursor[SUBSCRIBERS];
};

struct part {
	struct stage *stage;
	unsigned life, at;
};

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state = mix(*state);
	return *state % below;
}

static struct plan make_plan(uint64_t seed)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY,
						     SHMQ_EVICT };
	uint64_t r = seed;
	struct plan p = { .seed = seed };

	p.mode = draw(&r, 3) ? SHMQ_SHARED : SHMQ_EXCLUSIVE;
	p.policy = policies[draw(&r, 4)];
	p.partitions = 1 + (unsigned)draw(&r, 3);
	p.publishers = p.mode == SHMQ_EXCLUSIVE ? 1 : 1 + (unsigned)draw(&r, PUBLISHERS);
	p.subscribers = 2 + (unsigned)draw(&r, SUBSCRIBERS - 1);
	p.pub_kills = (unsigned)draw(&r, 6);
	p.sub_kills = (unsigned)draw(&r, 4);
	p.worker_kills = (unsigned)draw(&r, 3);
	p.most = draw(&r, 2) ? 40 : 1200;
	p.slow = (int)draw(&r, 2);
	p.log = draw(&r, 2)                           ? SHMQ_LOG_NONE :
		p.policy == SHMQ_LOSSY || draw(&r, 2) ? SHMQ_LOG_GAP :
							SHMQ_LOG_BLOCK;
	p.tailer_kills = p.log == SHMQ_LOG_NONE ? 0 : (unsigned)draw(&r, 4);
	return p;
}

/* ---- publishers --------------------------------------------------------------------- */

/* While the worker is replaced, or the last owner taken out, it is asked again. */
static shmq_pub *open_in_time(shmq_bus *bus)
{
	int64_t deadline = test_now_ns() + PATIENCE;
	struct shmq_pub_options o = { .size = sizeof(o) };
	shmq_pub *pub;
	int rc;

	while ((rc = shmq_pub_open(bus, "t", &o, &pub))) {
		if (test_now_ns() > deadline)
			FAIL("opening: %s: %s", shmq_errname(rc), shmq_bus_error(bus));
		test_sleep_ms(1);
	}
	return pub;
}

static void note_sends(struct pub_book *book, uint64_t first, const struct shmq_msg *m, size_t sent,
		       size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct history_send *s = &book->send[first + i];

		if (i < sent) {
			s->partition = (uint32_t)m[i].partition;
			s->seq = m[i].seq;
		}
		s->state = i < sent ? HISTORY_SENT : HISTORY_REFUSED;
	}
}

/* A message, or a batch, in one of the ways there are. */
static void send_some(struct stage *g, shmq_pub *pub, unsigned life, uint64_t *r)
{
	static char bytes[BATCH][1200];
	static struct shmq_msg m[BATCH];
	struct pub_book *book = &g->pub[life];
	uint64_t first = atomic_load(&book->begun), i;
	unsigned way = (unsigned)draw(r, 8), is_atomic = way == 7;
	size_t count = way < 6 ? 1 : 2 + (size_t)draw(r, BATCH - 1);
	ssize_t rc;
	void *room;

	for (i = 0; i < count; i++) {
		size_t len = history_fill(bytes[i], g->plan.most, life + 1, first + i);

		m[i] = (struct shmq_msg){ .data = bytes[i],
					  .len = len,
					  .partition = SHMQ_ANY_PARTITION };
		book->send[first + i] = (struct history_send){
			.batch = is_atomic ? first : first + i,
			.batch_count = is_atomic ? (uint32_t)count : 1,
		};
	}
	atomic_store(&book->begun, first + count);
	if (way == 0 && !shmq_claim(pub, m[0].len, &room)) {
		memcpy(room, bytes[0], m[0].len);
		rc = shmq_commit(pub, &m[0]);
		if (rc)
			CHECK_OK(shmq_abort(pub));
		rc = rc ? rc : 1;
	} else if (count == 1) {
		rc = shmq_publish_msg(pub, m);
		rc = rc ? rc : 1;
	} else {
		rc = shmq_publish_batch(pub, m, count, is_atomic ? SHMQ_ATOMIC : 0);
	}
	if (rc < 0 && rc != SHMQ_EFULL)
		FAIL("publishing: %s", shmq_errname((int)rc));
	note_sends(book, first, m, rc < 0 ? 0 : (size_t)rc, count);
	atomic_fetch_add(&g->sent, rc < 0 ? 0 : (uint64_t)rc);
	if (rc >= 0)
		return;
	/* The book has room for so many; while a disk is slow there may be more. */
	if (first > SENDS / 2)
		atomic_store(&book->begun, first);
	usleep(500);
}

static int live_as_publisher(void *arg)
{
	const struct part *part = arg;
	struct stage *g = part->stage;
	uint64_t r = g->plan.seed ^ (uint64_t)part->life << 32;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_in_time(bus);

	while (!atomic_load(&g->enough) && atomic_load(&g->pub[part->life].begun) < SENDS - BATCH) {
		send_some(g, pub, part->life, &r);
		if (draw(&r, 64) == 0)
			usleep((useconds_t)draw(&r, 300));
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

/* ---- subscribers ----------------------------------------------------------------------- */

static void note_receipt(struct sub_book *book, const struct shmq_msg *m, int rc)
{
	uint64_t i = atomic_load(&book->count);
	struct history_receipt *r = &book->receipt[i];

	CHECK_LT(i, RECEIPTS);
	*r = (struct history_receipt){ .partition = (uint32_t)m->partition };
	if (rc) {
		r->lost = m->lost;
		r->is_bound = m->lost_is_bound;
	} else {
		r->seq = m->seq;
		r->ts = m->ts_ns;
		history_read(m->data, m->len, &r->who, &r->n);
		r->sum = history_sum(m->data, m->len);
	}
	atomic_store(&book->count, i + 1);
}

/* Now and then; it is of what was received, and of what is known to be lost. */
static void store_cursor(struct stage *g, shmq_sub *sub, struct cursor_book *cursor)
{
	CHECK_OK(shmq_release(sub));
	atomic_store(&cursor->is_storing, 1);
	CHECK_OK(shmq_sub_store_cursor(sub));
	for (unsigned p = 0; p < g->plan.partitions; p++)
		cursor->seq[p] = sub->lane[p].r.next;
	atomic_store(&cursor->is_storing, 0);
}

/* All is read that the tailer has still to write, too. */
static int has_all(const struct stage *g, const shmq_sub *sub)
{
	for (unsigned p = 0; p < g->plan.partitions; p++)
		if (sub->lane[p].in_log && shmq__sub_replay_lacks(&sub->lane[p]))
			return 0;
	return 1;
}

static void fail_behind(const struct stage *g, const shmq_sub *sub)
{
	for (unsigned p = 0; p < g->plan.partitions; p++) {
		const struct rlane *l = &sub->lane[p];

		NOTE("partition %u: at %llu %s, head %llu, log_written %llu", p,
		     (unsigned long long)l->r.next, l->in_log ? "in the log" : "in the ring",
		     (unsigned long long)shmq__topic_head(l->ring),
		     (unsigned long long)load_relaxed(&l->ring->part->log_written));
	}
	FAIL("SHMQ_SEED=%llu: what is missing comes from no log", (unsigned long long)g->plan.seed);
}

/* Until everything is over and read; SHMQ_EEVICTED if it was. */
static int read_on(struct stage *g, shmq_sub *sub, struct sub_book *book, uint64_t *r,
		   struct cursor_book *cursor)
{
	static char buf[2000];
	int64_t deadline = 0;
	struct shmq_msg m;
	int over, rc;

	for (;;) {
		over = atomic_load(&g->over);
		rc = shmq_receive_copy(sub, buf, sizeof(buf), &m, over ? SHMQ_NOWAIT : MILLISECOND);
		if (rc == SHMQ_ETIMEOUT || (rc == SHMQ_EEMPTY && !over))
			continue;
		if (rc == SHMQ_EEMPTY && has_all(g, sub))
			return 0;
		if (rc == SHMQ_EEMPTY) {
			if (!deadline)
				deadline = test_now_ns() + PATIENCE;
			if (test_now_ns() > deadline)
				fail_behind(g, sub);
			test_sleep_ms(1);
			continue;
		}
		if (rc == SHMQ_EEVICTED)
			return rc;
		if (rc && rc != SHMQ_EOVERRUN)
			FAIL("SHMQ_SEED=%llu: receiving, partition %d, seq %llu: %s: %s",
			     (unsigned long long)g->plan.seed, m.partition,
			     (unsigned long long)m.seq, shmq_errname(rc), shmq_bus_error(NULL));
		note_receipt(book, &m, rc);
		if (cursor && draw(r, 1024) == 0)
			store_cursor(g, sub, cursor);
		if (g->plan.slow && draw(r, 256) == 0)
			usleep((useconds_t)draw(r, 3000));
	}
}

/* Somewhere in what there is. */
static void choose_start(struct stage *g, shmq_bus *bus, const struct part *part, uint64_t *r,
			 struct shmq_sub_options *o)
{
	static const enum shmq_from from[STARTS] = { SHMQ_FROM_OLDEST, SHMQ_FROM_LATEST,
						     SHMQ_FROM_SEQ, SHMQ_FROM_TIME,
						     SHMQ_FROM_CURSOR };
	static char name[] = "reader-0";
	struct sub_book *book = &g->sub[part->life];
	enum start start = (enum start)draw(r, g->plan.log == SHMQ_LOG_NONE ? SEQ : STARTS);
	struct shmq_partition_info info;
	struct timespec now;

	if (start == SEQ && g->plan.partitions > 1)
		start = CURSOR;
	book->from = start;
	o->from = from[start];
	if (start == SEQ) {
		CHECK_OK(shmq_topic_get_partition(bus, "t", 0, &info));
		o->seq = draw(r, info.head + 1);
	} else if (start == TIME) {
		clock_gettime(CLOCK_REALTIME, &now);
		o->ts_ns = book->from_ts =
			(uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec - draw(r, SECOND / 4);
	} else if (start == CURSOR) {
		name[sizeof(name) - 2] = (char)('0' + part->at);
		o->cursor = name;
	}
}

/* Where it begins is what it has asked for. */
static void note_start(struct stage *g, const struct part *part, const shmq_sub *sub,
		       const struct shmq_sub_options *o)
{
	struct cursor_book *cursor = &g->cursor[part->at];
	struct sub_book *book = &g->sub[part->life];

	for (unsigned p = 0; p < g->plan.partitions; p++) {
		const struct rlane *l = &sub->lane[p];

		book->start[p] = l->in_log ? l->r.next : l->start;
		if (book->from == OLDEST && g->plan.log != SHMQ_LOG_NONE)
			CHECK_EQ(book->start[p], 0);
		if (book->from == SEQ)
			CHECK_EQ(book->start[p], o->seq);
		if (book->from != CURSOR)
			continue;
		if (!atomic_load(&cursor->is_storing))
			CHECK_EQ(book->start[p], cursor->seq[p]);
		cursor->seq[p] = book->start[p];
	}
	if (book->from == CURSOR)
		atomic_store(&cursor->is_storing, 0);
}

static int live_as_subscriber(void *arg)
{
	const struct part *part = arg;
	struct stage *g = part->stage;
	struct sub_book *book = &g->sub[part->life];
	uint64_t r = g->plan.seed ^ (uint64_t)part->life << 40;
	shmq_bus *bus = test_bus_open();
	struct shmq_sub_options o = { .size = sizeof(o),
				      .wait = (enum shmq_wait)(1 + draw(&r, 4)) };
	int64_t deadline = test_now_ns() + PATIENCE;
	shmq_sub *sub;

	choose_start(g, bus, part, &r, &o);
	while (shmq_sub_open(bus, "t", &o, &sub)) {
		CHECK_LT(test_now_ns(), deadline);
		test_sleep_ms(1);
	}
	note_start(g, part, sub, &o);
	reach(&book->opened, 1);
	if (!read_on(g, sub, book, &r, book->from == CURSOR ? &g->cursor[part->at] : NULL)) {
		struct shmq_sub_stats stats = sub_stats(sub);
		uint64_t got = 0, lost = 0;

		for (uint64_t i = 0; i < atomic_load(&book->count); i++) {
			got += !book->receipt[i].lost;
			lost += book->receipt[i].lost;
		}
		CHECK_EQ(stats.received, got);
		CHECK_EQ(stats.lost, lost);
		atomic_store(&book->lived, 1);
	}
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

/* ---- the run ------------------------------------------------------------------------------ */

struct crew {
	pid_t pub[PUBLISHERS], sub[SUBSCRIBERS];
	struct part part[2 * LIVES + SUBSCRIBERS];
	unsigned parts;
};

static void begin_publisher(struct stage *g, struct crew *crew, unsigned at)
{
	struct part *part = &crew->part[crew->parts++];

	*part = (struct part){ g, atomic_fetch_add(&g->pubs, 1), at };
	crew->pub[at] = test_spawn(live_as_publisher, part);
}

static void begin_subscriber(struct stage *g, struct crew *crew, unsigned at)
{
	struct part *part = &crew->part[crew->parts++];

	*part = (struct part){ g, atomic_fetch_add(&g->subs, 1), at };
	crew->sub[at] = test_spawn(live_as_subscriber, part);
	await(&g->sub[part->life].opened, 1);
}

static void await_sent(struct stage *g, uint64_t sent)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (atomic_load(&g->sent) < sent) {
		if (test_now_ns() > deadline)
			FAIL("SHMQ_SEED=%llu: %llu messages were sent, and no more are",
			     (unsigned long long)g->plan.seed,
			     (unsigned long long)atomic_load(&g->sent));
		usleep(200);
	}
}

static int publishers_are_gone(void *arg)
{
	return !topic_info(arg, "t").publishers;
}

/* Kills at seeded numbers of messages. */
static void kill_some(struct stage *g, struct crew *crew, shmq_bus *bus)
{
	const struct plan *p = &g->plan;
	unsigned left[] = { p->pub_kills, p->sub_kills, p->worker_kills, p->tailer_kills };
	unsigned kills = left[0] + left[1] + left[2] + left[3];
	uint64_t r = p->seed ^ 0x6b696c6c;

	for (unsigned i = 0; i < kills; i++) {
		unsigned what, at;
		pid_t worker;

		await_sent(g, (MESSAGES / (kills + 1)) * i + draw(&r, MESSAGES / (kills + 1)));
		do
			what = (unsigned)draw(&r, COUNT(left));
		while (!left[what]);
		left[what]--;
		at = (unsigned)draw(&r, what == 0 ? p->publishers : p->subscribers);
		if (what == 0) {
			int how = test_kill_wait(crew->pub[at], SIGKILL);

			if (how) /* else its book was full */
				CHECK_EQ(how, 128 + SIGKILL);
			begin_publisher(g, crew, at);
		} else if (what == 1) {
			int how = test_kill_wait(crew->sub[at], SIGKILL);

			if (how) /* else it had been evicted, and left */
				CHECK_EQ(how, 128 + SIGKILL);
			begin_subscriber(g, crew, at);
		} else if (what == 3) {
			test_bus_kill("tailer");
		} else if ((worker = test_bus_worker_pid(bus)) > 0) {
			kill(worker, SIGKILL);
		}
	}
	await_sent(g, MESSAGES);
}

static void check_books(struct stage *g, shmq_bus *bus)
{
	static struct history_publisher pub[LIVES];
	static struct history_subscriber sub[LIVES + SUBSCRIBERS];
	struct history h = { .partitions = g->plan.partitions,
			     .publisher = pub,
			     .publishers = atomic_load(&g->pubs),
			     .subscriber = sub,
			     .subscribers = atomic_load(&g->subs),
			     .most = g->plan.most };
	static const char *const starts[STARTS] = { "the oldest", "the next", "a seq", "a time",
						    "a cursor" };
	uint64_t sent = 0, got = 0, lost = 0, open = 0;
	char why[300];

	for (unsigned i = 0; i < h.publishers; i++) {
		pub[i] = (struct history_publisher){ i + 1, g->pub[i].send,
						     atomic_load(&g->pub[i].begun) };
		for (size_t k = 0; k < pub[i].count; k++) {
			sent += pub[i].send[k].state == HISTORY_SENT;
			open += pub[i].send[k].state == HISTORY_OPEN;
		}
	}
	for (unsigned i = 0; i < h.subscribers; i++) {
		struct sub_book *book = &g->sub[i];

		sub[i] = (struct history_subscriber){ .receipt = book->receipt,
						      .count = atomic_load(&book->count),
						      .from_ts = book->from_ts,
						      .goes_on = book->from == CURSOR,
						      .lived = atomic_load(&book->lived) };
		memcpy(sub[i].start, book->start, sizeof(book->start));
		for (uint32_t p = 0; p < h.partitions; p++) {
			struct shmq_partition_info info;

			CHECK_OK(shmq_topic_get_partition(bus, "t", p, &info));
			sub[i].end[p] = info.head;
		}
		for (size_t k = 0; k < sub[i].count; k++) {
			got += !book->receipt[k].lost;
			lost += book->receipt[k].lost;
		}
	}
	if (history_check(&h, why, sizeof(why))) {
		for (unsigned i = 0; i < h.subscribers; i++)
			NOTE("subscriber %u begins at %s, seqs %llu %llu %llu, got %zu", i,
			     starts[g->sub[i].from], (unsigned long long)sub[i].start[0],
			     (unsigned long long)sub[i].start[1],
			     (unsigned long long)sub[i].start[2], sub[i].count);
		FAIL("SHMQ_SEED=%llu: %s", (unsigned long long)g->plan.seed, why);
	}
	NOTE("seed %llu: %s, policy %d, log %d, %u partitions, up to %zu bytes; %zu publishers sent %llu "
	     "(%llu open), %zu subscribers got %llu and lost %llu",
	     (unsigned long long)g->plan.seed, g->plan.mode == SHMQ_SHARED ? "shared" : "exclusive",
	     (int)g->plan.policy, (int)g->plan.log, h.partitions, g->plan.most, h.publishers,
	     (unsigned long long)sent, (unsigned long long)open, h.subscribers,
	     (unsigned long long)got, (unsigned long long)lost);
}

static void run(uint64_t seed)
{
	struct stage *g = shared_memory(sizeof(*g));
	struct crew crew = { .parts = 0 };
	shmq_bus *bus;
	unsigned i;

	g->plan = make_plan(seed);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .slot_bytes = 64 * (2 + (uint32_t)(seed % 4)),
	       .mode = g->plan.mode, .policy = g->plan.policy, .partitions = g->plan.partitions,
	       .max_message_bytes = g->plan.most, .evict_ns = 20 * MILLISECOND, .log = g->plan.log,
	       .segment_bytes = g->plan.log == SHMQ_LOG_NONE ? 0 : 1 << 20,
	       .flags = g->plan.log == SHMQ_LOG_NONE ? 0 : SHMQ_TOPIC_TIME);
	for (i = 0; i < g->plan.subscribers; i++)
		begin_subscriber(g, &crew, i);
	for (i = 0; i < g->plan.publishers; i++)
		begin_publisher(g, &crew, i);
	kill_some(g, &crew, bus);
	atomic_store(&g->enough, 1);
	for (i = 0; i < g->plan.publishers; i++)
		CHECK_EQ(test_join(crew.pub[i]), 0);
	if (!test_wait_until(publishers_are_gone, bus, (int)(PATIENCE / MILLISECOND)))
		FAIL("a publisher that has gone is still there");
	atomic_store(&g->over, 1);
	for (i = 0; i < g->plan.subscribers; i++)
		CHECK_EQ(test_join(crew.sub[i]), 0);
	check_books(g, bus);
	shmq_bus_close(bus);
	test_bus_stop();
	munmap(g, sizeof(*g));
}

TEST_WITHIN(runs_with_kills_are_histories_that_can_be, 600)
{
	const char *torture = getenv("SHMQ_TORTURE"), *given = getenv("SHMQ_SEED");
	const char *runs = getenv("SHMQ_RUNS");
	unsigned count = runs ? (unsigned)atoi(runs) : torture ? 100 : 15;
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 1000;

	for (unsigned i = 0; i < count; i++)
		run(seed + i);
}
