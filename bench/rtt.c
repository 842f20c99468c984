/* SPDX-License-Identifier: MIT */
#include "common.h"
#include "peers.h"
#include "trace.h"

#include <linux/futex.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char question[] =
	"How long does a message take there and back, compared with the bare ping-pong of the\n"
	"cache lines it fills (spinning) and of two futexes (sleeping)?  And how many instructions\n"
	"and cache lines?";

#define TRIPS_MAX (1u << 18)
#define WINDOW 16u      /* trips timed together: the clock is coarser than one */
#define LONGEST_NS 4e7  /* slow ones make fewer trips */
#define RING_SLOTS 1024 /* of the bare ring */
#define USED 64u
#define LARGE 4096u /* what is larger takes longer to copy than to announce */

struct trip {
	const char *name; /* of the figure */
	size_t bytes;
	uint32_t slot_bytes;
	enum shmq_wait wait;
	uint64_t trips;
	unsigned needs; /* what it is compared with */
	int quick;      /* part of the quick run */
};
#define WITH_LINES 1u /* one buffer each way; beside it a ring */
#define WITH_COPY 2u  /* the better of these */
#define WITH_FUTEX 4u
#define IN_PLACE 8u /* zero-copy: of a message USED bytes are used */
#define WITH_PLACE 16u

static const struct trip trips[] = {
	{ "rtt.spin.32", 32, 64, SHMQ_WAIT_SPIN, 20000, WITH_LINES, 1 },
	{ "rtt.spin.64", 64, 128, SHMQ_WAIT_SPIN, 20000, WITH_LINES, 1 },
	{ "rtt.spin.256", 256, 320, SHMQ_WAIT_SPIN, 20000, WITH_COPY, 0 },
	{ "rtt.spin.1K", 1024, 1088, SHMQ_WAIT_SPIN, 10000, WITH_COPY, 0 },
	{ "rtt.spin.64K", 65536, 128, SHMQ_WAIT_SPIN, 1000, WITH_COPY, 0 },
	{ "rtt.spin.1M", 1 << 20, 128, SHMQ_WAIT_SPIN, 80, WITH_COPY, 1 },
	{ "zerocopy.rtt.64", 64, 128, SHMQ_WAIT_SPIN, 20000, IN_PLACE, 1 },
	{ "zerocopy.rtt.64K", 65536, 128, SHMQ_WAIT_SPIN, 20000, IN_PLACE | WITH_PLACE, 0 },
	{ "zerocopy.rtt.1M", 1 << 20, 128, SHMQ_WAIT_SPIN, 20000, IN_PLACE | WITH_PLACE, 1 },
	{ "rtt.sleep.32", 32, 64, SHMQ_WAIT_SLEEP, 1000, WITH_FUTEX, 0 },
	{ "rtt.sleep.64", 64, 128, SHMQ_WAIT_SLEEP, 1000, WITH_FUTEX, 1 },
	{ "rtt.sleep.256", 256, 320, SHMQ_WAIT_SLEEP, 1000, WITH_FUTEX, 0 },
	{ "rtt.sleep.1K", 1024, 1088, SHMQ_WAIT_SLEEP, 1000, WITH_FUTEX, 0 },
	{ "rtt.sleep.64K", 65536, 128, SHMQ_WAIT_SLEEP, 500, WITH_FUTEX, 0 },
	{ "rtt.sleep.1M", 1 << 20, 128, SHMQ_WAIT_SLEEP, 80, WITH_FUTEX, 0 },
};
#define TRIPS (sizeof(trips) / sizeof(trips[0]))

/* One process's ends; which is set depends on the contender. */
struct ends {
	const struct trip *trip;
	char *buf;
	int to, from; /* ways */
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct peer_end peer_to, peer_from;
};

static int is_counted; /* both ends are here, and no other thread */

static char buffer[1 << 20] __attribute__((aligned(4096)));

static void wrong_message(uint64_t i)
{
	bench_fail("message %llu is torn or out of order", (unsigned long long)i);
}

/* ---- limits: flag and payload in one buffer each way ---------------------- */

struct lines {
	_Atomic uint64_t seq;
	char near[56];
	char far[];
};

#define WAY_BYTES (sizeof(bench_shared->area) / 2)

static struct lines *slot_rw(int way, size_t off)
{
	return (struct lines *)(bench_shared->area + (size_t)way * WAY_BYTES + off);
}

static struct lines *slot_ro(int way, size_t off)
{
	return (struct lines *)(uintptr_t)(bench_shared_ro->area + (size_t)way * WAY_BYTES + off);
}

/* The flag's line is written last and in one go; what is large lies aligned
 * behind it. */
BENCH_ALWAYS size_t near_bytes(size_t bytes)
{
	return bytes <= 56 ? bytes : bytes <= 64 ? 56 : 0;
}

BENCH_ALWAYS void put_at(struct lines *l, const char *buf, size_t bytes, uint64_t i)
{
	size_t near = near_bytes(bytes);

	memcpy(l->far, buf + near, bytes - near);
	memcpy(l->near, buf, near);
	atomic_store_explicit(&l->seq, i + 1, memory_order_release);
}

BENCH_ALWAYS void get_at(const struct lines *l, char *buf, size_t bytes, uint64_t i)
{
	size_t near = near_bytes(bytes);

	while (atomic_load_explicit(&((struct lines *)(uintptr_t)l)->seq, memory_order_acquire) !=
	       i + 1)
		bench_relax();
	memcpy(buf, l->near, near);
	memcpy(buf + near, l->far, bytes - near);
	if (bench_verify(buf, bytes, i))
		wrong_message(i);
}

static void open_nothing(struct ends *e)
{
}

BENCH_ALWAYS void lines_put(struct ends *e, size_t bytes, uint64_t i)
{
	bench_fill(e->buf, bytes, i);
	put_at(slot_rw(e->to, 0), e->buf, bytes, i);
}

/* As shmq's readers have it: what they read they cannot write. */
BENCH_ALWAYS void lines_get(struct ends *e, size_t bytes, uint64_t i)
{
	get_at(slot_ro(e->from, 0), e->buf, bytes, i);
}

/* Readers that could write, too. */
BENCH_ALWAYS void writable_get(struct ends *e, size_t bytes, uint64_t i)
{
	get_at(slot_rw(e->from, 0), e->buf, bytes, i);
}

/* The bare ring, with a fresh slot for every message: what no library could
 * take away from a ring. */
BENCH_ALWAYS size_t ring_off(size_t bytes, uint64_t i)
{
	size_t near = near_bytes(bytes);
	size_t slot_bytes = (sizeof(struct lines) + bytes - near + 63) & ~(size_t)63;
	size_t fit = WAY_BYTES / slot_bytes;

	return i % (fit < RING_SLOTS ? fit : RING_SLOTS) * slot_bytes;
}

BENCH_ALWAYS void ring_put(struct ends *e, size_t bytes, uint64_t i)
{
	const char *next = (const char *)slot_rw(e->to, ring_off(bytes, i + 1));
	size_t k;

	bench_fill(e->buf, bytes, i);
	put_at(slot_rw(e->to, ring_off(bytes, i)), e->buf, bytes, i);
	for (k = 0; k < bytes + 8 && bytes <= LARGE; k += 64)
		bench_fetch_for_writing(next + k); /* while the answer is awaited */
}

BENCH_ALWAYS void ring_get(struct ends *e, size_t bytes, uint64_t i)
{
	get_at(slot_ro(e->from, ring_off(bytes, i)), e->buf, bytes, i);
}

BENCH_ALWAYS void writable_ring_get(struct ends *e, size_t bytes, uint64_t i)
{
	get_at(slot_rw(e->from, ring_off(bytes, i)), e->buf, bytes, i);
}

/* The bare ring again, whose slots say where 64 bytes lie that were written in
 * place: what zero-copy cannot go below. */
BENCH_ALWAYS size_t place_off(uint64_t i)
{
	return WAY_BYTES / 2 + i % 4 * (WAY_BYTES / 8);
}

BENCH_ALWAYS void place_put(struct ends *e, size_t bytes, uint64_t i)
{
	struct lines *l = slot_rw(e->to, ring_off(8, i));
	size_t off = place_off(i);

	bench_fill(slot_rw(e->to, off), USED, i);
	memcpy(l->near, &off, sizeof(off));
	atomic_store_explicit(&l->seq, i + 1, memory_order_release);
}

BENCH_ALWAYS void place_get(struct ends *e, size_t bytes, uint64_t i)
{
	struct lines *l = slot_ro(e->from, ring_off(8, i));
	size_t off;

	while (atomic_load_explicit(&l->seq, memory_order_acquire) != i + 1)
		bench_relax();
	memcpy(&off, l->near, sizeof(off));
	if (off > WAY_BYTES - USED || bench_verify(slot_ro(e->from, off), USED, i))
		wrong_message(i);
}

/* ---- limit: two futexes ---------------------------------------------------- */

static _Atomic uint32_t *futex_of(int way)
{
	return (_Atomic uint32_t *)&bench_shared->word[way][0];
}

/* What takes longer to copy than to say that it is there is copied as well. */
static void futex_put(struct ends *e, size_t bytes, uint64_t i)
{
	if (bytes > LARGE)
		ring_put(e, bytes, i);
	atomic_store(futex_of(e->to), (uint32_t)i + 1);
	syscall(SYS_futex, futex_of(e->to), FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_get(struct ends *e, size_t bytes, uint64_t i)
{
	while (atomic_load(futex_of(e->from)) != (uint32_t)i + 1)
		syscall(SYS_futex, futex_of(e->from), FUTEX_WAIT, (uint32_t)i, NULL, NULL, 0);
	if (bytes > LARGE)
		ring_get(e, bytes, i);
}

/* ---- shmq -------------------------------------------------------------------- */

static void open_shmq(struct ends *e)
{
	struct shmq_bus_options bo = { .size = sizeof(bo),
				       .serve = is_counted ? SHMQ_SERVE_CALLER : 0 };
	struct shmq_sub_options so = { .size = sizeof(so), .wait = e->trip->wait };
	struct shmq_pub_options po = { .size = sizeof(po) };
	char name[64];

	BENCH_OK(shmq_bus_open(bench.bus, &bo, &e->bus));
	snprintf(name, sizeof(name), "%s.%d", e->trip->name, e->from);
	BENCH_OK(shmq_sub_open(e->bus, name, &so, &e->sub));
	snprintf(name, sizeof(name), "%s.%d", e->trip->name, e->to);
	BENCH_OK(shmq_pub_open(e->bus, name, &po, &e->pub));
	if (!is_counted)
		BENCH_OK(shmq_pub_wait_subscribers(e->pub, 1, SHMQ_FOREVER));
}

BENCH_ALWAYS void shmq_put(struct ends *e, size_t bytes, uint64_t i)
{
	bench_fill(e->buf, bytes, i);
	BENCH_OK(shmq_publish(e->pub, e->buf, bytes));
}

BENCH_ALWAYS void shmq_get(struct ends *e, size_t bytes, uint64_t i)
{
	struct shmq_msg msg;

	BENCH_OK(shmq_receive(e->sub, &msg, SHMQ_FOREVER));
	if (msg.len != bytes)
		wrong_message(i);
	memcpy(e->buf, msg.data, bytes);
	if (bench_verify(e->buf, bytes, i))
		wrong_message(i);
}

static void zero_put(struct ends *e, size_t bytes, uint64_t i)
{
	void *data;

	BENCH_OK(shmq_claim(e->pub, bytes, &data));
	bench_fill(data, USED, i);
	BENCH_OK(shmq_commit(e->pub, NULL));
}

static void zero_get(struct ends *e, size_t bytes, uint64_t i)
{
	struct shmq_msg msg;

	BENCH_OK(shmq_receive(e->sub, &msg, SHMQ_FOREVER));
	if (msg.len != bytes || bench_verify(msg.data, USED, i))
		wrong_message(i);
}

/* ---- peers -------------------------------------------------------------------- */

static const struct peer *peer;
static struct peer_channel way_channel[2];

static void open_peer(struct ends *e)
{
	e->peer_from = bench_peer_open(peer, PEER_RECEIVER, &way_channel[e->from]);
	e->peer_to = bench_peer_open(peer, PEER_SENDER, &way_channel[e->to]);
}

BENCH_ALWAYS void peer_put(struct ends *e, size_t bytes, uint64_t i)
{
	bench_fill(e->buf, bytes, i);
	bench_peer_send(&e->peer_to, e->buf, bytes);
}

BENCH_ALWAYS void peer_get(struct ends *e, size_t bytes, uint64_t i)
{
	bench_peer_receive(&e->peer_from, e->buf, bytes);
	if (bench_verify(e->buf, bytes, i))
		wrong_message(i);
}

static void zero_peer_put(struct ends *e, size_t bytes, uint64_t i)
{
	void *room = bench_peer_loan(&e->peer_to, bytes);

	bench_fill(room, USED, i);
	bench_peer_publish(&e->peer_to, room);
}

static void zero_peer_get(struct ends *e, size_t bytes, uint64_t i)
{
	const void *message = bench_peer_take(&e->peer_from, bytes);

	if (bench_verify(message, USED, i))
		wrong_message(i);
	peer->release(e->peer_from.end, message);
}

/* ---- there and back -------------------------------------------------------- */

typedef void end_op(struct ends *e, size_t bytes, uint64_t i);

BENCH_ALWAYS void ping_pong(struct ends *e, size_t bytes, int leads, end_op *put, end_op *get)
{
	uint64_t *at = bench_shared->samples, i, n = e->trip->trips / (bench.smoke ? 50 : 1) + 8;
	const uint64_t most = (uint64_t)(LONGEST_NS / bench_tick_ns);

	bench_meet(2);
	if (!leads) {
		for (i = 0; i < n && !(i && bench_is_total(i)); i++) {
			get(e, bytes, i);
			put(e, bytes, i);
		}
		return;
	}
	at[0] = bench_tick();
	for (i = 0; i < n; i++) {
		put(e, bytes, i);
		get(e, bytes, i);
		at[i + 1] = bench_tick();
		if (at[i + 1] - at[0] > most && i + 2 < n) {
			n = i + 2;
			bench_say_total(n);
		}
	}
	bench_shared->sample_count = n + 1;
}

static void close_ends(struct ends *e)
{
	if (e->bus)
		shmq_bus_close(e->bus);
	if (e->peer_to.end) {
		bench_peer_close(&e->peer_to);
		bench_peer_close(&e->peer_from);
	}
}

/* Known lengths, as a program would have them. */
#define BY_LENGTH(t, call) \
	do { \
		if ((t)->bytes == 32) \
			call(32); \
		else if ((t)->bytes == 64) \
			call(64); \
		else \
			call((t)->bytes); \
	} while (0)

BENCH_ALWAYS void side(const struct trip *t, int leads, void (*open)(struct ends *e), end_op *put,
		       end_op *get)
{
	struct ends e = { .trip = t, .buf = buffer, .to = !leads, .from = leads };

	open(&e);
#define CALL(bytes) ping_pong(&e, bytes, leads, put, get)
	BY_LENGTH(t, CALL);
#undef CALL
	close_ends(&e);
}

/* What a message takes without a clock: the steps of both ends in turn, in this
 * process. */
#define COUNTED 8u /* trips, after as many in which each line comes to where it is */

BENCH_ALWAYS void trace_trips(struct ends *e, size_t bytes, struct bench_trace *sum, end_op *put,
			      end_op *get)
{
	struct bench_trace none[BENCH_STEPS] = { 0 };
	uint64_t i;
	int way;

	for (way = 0; way < 2; way++) { /* all is mapped then */
		put(&e[way], bytes, 0);
		get(&e[!way], bytes, 0);
	}
	bench_trace_begin();
	for (i = 1; i <= 2 * COUNTED; i++) {
		struct bench_trace *to = i <= COUNTED ? none : sum;

		for (way = 0; way < 2; way++) {
			bench_trace_on((unsigned)way, &to[BENCH_PUT]);
			put(&e[way], bytes, i);
			bench_trace_off();
			bench_trace_on((unsigned)!way, &to[BENCH_GET]);
			get(&e[!way], bytes, i);
			bench_trace_off();
		}
	}
}

BENCH_ALWAYS void count(const struct trip *t, void (*open)(struct ends *e), end_op *put,
			end_op *get)
{
	struct ends e[] = { { .trip = t, .buf = buffer, .to = 0, .from = 1 },
			    { .trip = t, .buf = buffer, .to = 1, .from = 0 } };
	struct bench_trace sum[BENCH_STEPS] = { 0 };
	unsigned i;

	is_counted = 1;
	for (i = 0; i < 2; i++)
		open(&e[i]);
#define CALL(bytes) trace_trips(e, bytes, sum, put, get)
	BY_LENGTH(t, CALL);
#undef CALL
	for (i = 0; i < 2; i++)
		close_ends(&e[i]);
	bench_trace_finish(sum, 2 * COUNTED);
}

#define CONTENDER(name, open, put, get) \
	static void name##_ping(void *arg) \
	{ \
		side(arg, 1, open, put, get); \
	} \
	static void name##_pong(void *arg) \
	{ \
		side(arg, 0, open, put, get); \
	}
#define COUNTED_CONTENDER(name, open, put, get) \
	CONTENDER(name, open, put, get) \
	static void name##_count(void *arg) \
	{ \
		count(arg, open, put, get); \
	}
COUNTED_CONTENDER(lines, open_nothing, lines_put, lines_get)
CONTENDER(writable, open_nothing, lines_put, writable_get)
COUNTED_CONTENDER(ring, open_nothing, ring_put, ring_get)
CONTENDER(writable_ring, open_nothing, ring_put, writable_ring_get)
COUNTED_CONTENDER(place, open_nothing, place_put, place_get)
CONTENDER(futex, open_nothing, futex_put, futex_get)
COUNTED_CONTENDER(shmq, open_shmq, shmq_put, shmq_get)
COUNTED_CONTENDER(zero, open_shmq, zero_put, zero_get)
CONTENDER(peer, open_peer, peer_put, peer_get)
CONTENDER(zero_peer, open_peer, zero_peer_put, zero_peer_get)

/* ---- measuring ------------------------------------------------------------- */

struct times {
	uint64_t trips;
	double p50, p99, p999;
};

/* From the times at which trips ended to the median of windows of trips, and
 * the tail of single ones.  The first tenth is warm-up. */
static struct times of_trips(void)
{
	uint64_t *at = bench_shared->samples, n = bench_shared->sample_count - 1, from = n / 10, i;
	static double window[TRIPS_MAX];
	unsigned k = n - from < 20 * WINDOW ? 1 : WINDOW;
	struct times t = { .trips = n - from };

	for (i = from; i + k <= n; i += k)
		window[(i - from) / k] = (double)(at[i + k] - at[i]) / k;
	t.p50 = bench_tick_ns * bench_median(window, (unsigned)((i - from) / k));
	for (i = from; i < n; i++)
		at[i - from] = at[i + 1] - at[i];
	bench_shared->sample_count = n - from;
	bench_sort_samples();
	t.p99 = bench_tick_ns * (double)bench_quantile(0.99);
	t.p999 = bench_tick_ns * (double)bench_quantile(0.999);
	return t;
}

static struct times time_trips(const struct trip *t, void (*ping)(void *), void (*pong)(void *))
{
	struct bench_proc proc[] = { { ping, (void *)(uintptr_t)t, 0 },
				     { pong, (void *)(uintptr_t)t, 1 } };

	memset(bench_shared->area, 0, sizeof(bench_shared->area)); /* flags of the last run */
	bench_shared->used = t->needs & IN_PLACE ? USED : 0;
	bench_run(proc, 2);
	return of_trips();
}

static void note(const struct trip *t, const char *who, struct times times)
{
	char name[96];

	snprintf(name, sizeof(name), "%s%s", t->name, who);
	bench_note_stat(name, "p50", "ns", times.p50);
	bench_note_stat(name, "p99", "ns", bench_enough(times.trips, 0.99) ? times.p99 : NAN);
	bench_note_stat(name, "p999", "ns", bench_enough(times.trips, 0.999) ? times.p999 : NAN);
}

static void measure(const struct trip *t, const char *who, void (*ping)(void *),
		    void (*pong)(void *))
{
	note(t, who, time_trips(t, ping, pong));
}

/* What is copied in and out is read by the writer's next copy if it lies in
 * one place, and finds no room in the caches if it lies in many: which is
 * worse depends on the size and the machine. */
static void note_better(const struct trip *t, const char *who, struct times one, struct times many)
{
	note(t, who, one.p50 < many.p50 ? one : many);
}

static void measure_copies(const struct trip *t)
{
	note_better(t, ".limit", time_trips(t, lines_ping, lines_pong),
		    time_trips(t, ring_ping, ring_pong));
	note_better(t, ".limit_writable", time_trips(t, writable_ping, writable_pong),
		    time_trips(t, writable_ring_ping, writable_ring_pong));
}

static void measure_peers(const struct trip *t)
{
	const struct peer_channel way = { .bytes = t->bytes,
					  .senders = 1,
					  .receivers = 1,
					  .wait = t->needs & WITH_FUTEX ? PEER_SLEEP : PEER_SPIN };
	enum peer_use use = t->needs & IN_PLACE ? PEER_IN_PLACE : PEER_COPIES;
	unsigned i;

	for (peer = NULL; (peer = bench_next_peer(peer, t->name, &way, use));) {
		for (i = 0; i < 2; i++)
			way_channel[i] = bench_channel(t->bytes, 1, 1, way.wait);
		if (use == PEER_IN_PLACE)
			measure(t, bench_peer_who(peer), zero_peer_ping, zero_peer_pong);
		else
			measure(t, bench_peer_who(peer), peer_ping, peer_pong);
	}
}

static void one_round(const struct trip *t)
{
	if (t->needs & WITH_COPY)
		measure_copies(t);
	if (t->needs & WITH_LINES) {
		measure(t, ".limit", lines_ping, lines_pong);
		measure(t, ".limit_writable", writable_ping, writable_pong);
		measure(t, ".ring", ring_ping, ring_pong);
	}
	if (t->needs & WITH_FUTEX)
		measure(t, ".limit", futex_ping, futex_pong);
	if (t->needs & WITH_PLACE)
		measure(t, ".limit", place_ping, place_pong);
	if (t->needs & IN_PLACE)
		measure(t, "", zero_ping, zero_pong);
	else
		measure(t, "", shmq_ping, shmq_pong);
	measure_peers(t);
}

/* ---- counting --------------------------------------------------------------- */

static void note_counts(const struct trip *t, const char *who, void (*run)(void *))
{
	memset(bench_shared->area, 0, sizeof(bench_shared->area)); /* flags of the last run */
	bench_shared->used = t->needs & IN_PLACE ? USED : 0;
	bench_trace_note(t->name, who, run, t);
}

/* Where that is soon done, and a trip is no more than its lines: not where they are
 * copied by the thousand, nor where the kernel is called.  Each instruction takes 15 us
 * here, so it is no part of a quick run. */
static void count_trips(void)
{
	const struct trip *t;

	if ((bench.quick && !bench.smoke) || !bench_trace_can("rtt"))
		return;
	for (t = trips; t < trips + TRIPS; t++) {
		if (!(t->needs & (WITH_LINES | IN_PLACE)) || !t->quick)
			continue;
		if (t->needs & WITH_LINES) {
			note_counts(t, ".limit", lines_count);
			note_counts(t, ".ring", ring_count);
		}
		if (t->needs & WITH_PLACE)
			note_counts(t, ".limit", place_count);
		note_counts(t, "", t->needs & IN_PLACE ? zero_count : shmq_count);
	}
}

int main(int argc, char **argv)
{
	struct shmq_topic_options o = { .size = sizeof(o), .depth = 1024 };
	char name[64];
	unsigned i, r;
	shmq_bus *bus;
	int way;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	for (i = 0; i < TRIPS; i++) {
		for (way = 0; way < 2; way++) {
			snprintf(name, sizeof(name), "%s.%d", trips[i].name, way);
			o.slot_bytes = trips[i].slot_bytes;
			o.max_message_bytes = trips[i].bytes;
			BENCH_OK(shmq_topic_create(bus, name, &o, NULL));
		}
	}
	for (r = 0; r < bench.rounds; r++)
		for (i = 0; i < TRIPS; i++)
			if (trips[i].quick || !bench.quick)
				one_round(&trips[i]);
	count_trips();
	shmq_bus_close(bus);
	bench_ratio("rtt.spin.32.vs_limit", "rtt.spin.32.p50", "rtt.spin.32.limit.p50");
	bench_ratio("rtt.spin.32.vs_limit_writable", "rtt.spin.32.p50",
		    "rtt.spin.32.limit_writable.p50");
	bench_ratio("rtt.spin.64.vs_limit_writable", "rtt.spin.64.p50",
		    "rtt.spin.64.limit_writable.p50");
	bench_ratio("rtt.spin.32.vs_ring", "rtt.spin.32.p50", "rtt.spin.32.ring.p50");
	bench_ratio("rtt.spin.64.vs_limit", "rtt.spin.64.p50", "rtt.spin.64.limit.p50");
	bench_ratio("rtt.spin.64.vs_ring", "rtt.spin.64.p50", "rtt.spin.64.ring.p50");
	bench_ratio("rtt.spin.64.p999.vs_limit", "rtt.spin.64.p999", "rtt.spin.64.limit.p999");
	bench_ratio("copy.rtt.1M.vs_memcpy", "rtt.spin.1M.p50", "rtt.spin.1M.limit.p50");
	bench_ratio("zerocopy.rtt.1M.vs_64B", "zerocopy.rtt.1M.p50", "zerocopy.rtt.64.p50");
	bench_ratio("zerocopy.rtt.1M.vs_copied_64B", "zerocopy.rtt.1M.p50", "rtt.spin.64.p50");
	bench_ratio("zerocopy.rtt.1M.vs_limit", "zerocopy.rtt.1M.p50", "zerocopy.rtt.1M.limit.p50");
	bench_ratio("zerocopy.rtt.1M.limit_vs_64B", "zerocopy.rtt.1M.limit.p50",
		    "rtt.spin.64.limit.p50");
	bench_ratio("rtt.sleep.64.vs_futex", "rtt.sleep.64.p50", "rtt.sleep.64.limit.p50");
	return bench_end();
}
