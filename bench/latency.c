/* SPDX-License-Identifier: MIT */
#include "common.h"
#include "histogram.h"
#include "peers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static const char question[] =
	"How long after the moment at which it was due is a message with its reader, if messages\n"
	"are due at a fixed rate, compared with a bare ring of flags?  None is skipped, so that\n"
	"one which is late makes those behind it late as well.  Both sides spin; what cannot\n"
	"sleeps.";

#define BYTES 64u
#define SLOTS 1024u /* of shmq's ring and of the bare one */
#define CELL_BYTES 128u
#define FETCH_CELLS 4u
#define CURSOR_EVERY 32u
#define LATE_SHARE 4u   /* of so many rounds at most one is left out for being late */
#define PATIENCE_NS 2e7 /* a peer's sender that is so far behind gives up */

struct load {
	const char *name; /* of the figure */
	double per_second;
	double seconds;
};

static const struct load loads[] = {
	{ "latency.10k", 1e4, 0.3 },
	{ "latency.1M", 1e6, 0.2 },
	{ "latency.10M", 1e7, 0.1 },
};
#define LOADS (sizeof(loads) / sizeof(loads[0]))

static const struct {
	const char *name;
	double q;
} stats[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p999", 0.999 } };
#define STATS (sizeof(stats) / sizeof(stats[0]))

/* One process's end; which is set depends on the contender. */
struct end {
	const struct load *load;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t room; /* bare ring: cells below it may be written */
	struct peer_end peer;
};

static struct histogram *seen; /* of this run, ticks; shared */

/* ---- messages: when due, and what any message says ----------------------- */

static _Atomic uint64_t *start_tick(void)
{
	return &bench_shared->word[0][0];
}

static uint64_t messages_of(const struct load *l)
{
	return (uint64_t)(l->per_second * l->seconds / (bench.smoke ? 25 : bench.quick ? 5 : 1));
}

BENCH_ALWAYS void fill(char *buf, uint64_t i, uint64_t tick)
{
	memcpy(buf, &tick, sizeof(tick));
	bench_fill(buf + sizeof(tick), BYTES - sizeof(tick), i);
}

BENCH_ALWAYS void verify(const char *buf, uint64_t i, uint64_t tick)
{
	uint64_t said;

	memcpy(&said, buf, sizeof(said));
	if (said != tick || bench_verify(buf + sizeof(said), BYTES - sizeof(said), i))
		bench_fail("message %llu is torn or out of order", (unsigned long long)i);
}

/* ---- the limit: a bare ring of flags -------------------------------------- */

static _Atomic uint64_t *cursor(void)
{
	return &bench_shared->word[1][0];
}

static struct bench_cell *cell_at(const struct bench_shared *in, uint64_t i)
{
	return (struct bench_cell *)(uintptr_t)(in->area + i % SLOTS * CELL_BYTES);
}

static void ring_open(struct end *e, int sends)
{
	e->room = SLOTS;
}

static void ring_close(struct end *e)
{
}

BENCH_ALWAYS void ring_put(struct end *e, const char *buf, uint64_t i)
{
	const char *ahead = (const char *)cell_at(bench_shared, i + FETCH_CELLS);

	while (i >= e->room)
		e->room = atomic_load_explicit(cursor(), memory_order_acquire) + SLOTS;
	bench_fetch_for_writing(ahead);
	bench_fetch_for_writing(ahead + 64);
	bench_cell_put(cell_at(bench_shared, i), buf, BYTES, i + 1);
}

/* As shmq's readers have it: what they read they cannot write. */
BENCH_ALWAYS void ring_get(struct end *e, char *buf, uint64_t i)
{
	const struct bench_cell *c = cell_at(bench_shared_ro, i);

	while (bench_cell_word(c) != i + 1)
		bench_relax();
	bench_cell_get(c, buf, BYTES);
	if (i % CURSOR_EVERY == 0)
		atomic_store_explicit(cursor(), i + 1, memory_order_release);
}

/* ---- shmq ------------------------------------------------------------------ */

static void shmq_open(struct end *e, int sends)
{
	struct shmq_sub_options so = { .size = sizeof(so), .wait = SHMQ_WAIT_SPIN };

	e->bus = bench_open();
	if (!sends) {
		BENCH_OK(shmq_sub_open(e->bus, e->load->name, &so, &e->sub));
		return;
	}
	BENCH_OK(shmq_pub_open(e->bus, e->load->name, NULL, &e->pub));
	BENCH_OK(shmq_pub_wait_subscribers(e->pub, 1, SHMQ_FOREVER));
}

BENCH_ALWAYS void shmq_put(struct end *e, const char *buf, uint64_t i)
{
	BENCH_OK(shmq_publish(e->pub, buf, BYTES));
}

BENCH_ALWAYS void shmq_get(struct end *e, char *buf, uint64_t i)
{
	struct shmq_msg msg;

	BENCH_OK(shmq_receive(e->sub, &msg, SHMQ_FOREVER));
	if (msg.len != BYTES)
		bench_fail("message %llu has another length", (unsigned long long)i);
	memcpy(buf, msg.data, BYTES);
}

static void shmq_close(struct end *e)
{
	shmq_bus_close(e->bus);
}

/* ---- peers ------------------------------------------------------------------- */

static const struct peer *peer; /* or NULL: none is measured */
static struct peer_channel channel;

static void peer_open(struct end *e, int sends)
{
	e->peer = bench_peer_open(peer, sends ? PEER_SENDER : PEER_RECEIVER, &channel);
}

BENCH_ALWAYS void peer_put(struct end *e, const char *buf, uint64_t i)
{
	bench_peer_send(&e->peer, buf, BYTES);
}

BENCH_ALWAYS void peer_get(struct end *e, char *buf, uint64_t i)
{
	bench_peer_receive(&e->peer, buf, BYTES);
}

static void peer_close(struct end *e)
{
	bench_peer_close(&e->peer);
}

/* ---- under load -------------------------------------------------------------- */

typedef void end_open(struct end *e, int sends);
typedef void end_put(struct end *e, const char *buf, uint64_t i);
typedef void end_get(struct end *e, char *buf, uint64_t i);
typedef void end_close(struct end *e);

BENCH_ALWAYS void send_all(const struct load *l, end_open *open, end_put *put, end_close *close)
{
	const uint64_t patience = peer ? (uint64_t)(PATIENCE_NS / bench_tick_ns) : INT64_MAX;
	uint64_t start, tick = 0, now, n = messages_of(l), i;
	struct end e = { .load = l };
	char buf[BYTES];

	open(&e, 1);
	bench_meet(2);
	start = bench_tick() + (uint64_t)(1e6 / bench_tick_ns);
	atomic_store(start_tick(), start);
	for (i = 0; i < n; i++) {
		tick = bench_due(start, l->per_second, i);
		fill(buf, i, tick);
		now = bench_spin_until(tick);
		if (now - tick > patience && i) { /* hopeless */
			n = i + 1;
			bench_say_total(n);
		}
		put(&e, buf, i);
	}
	/* How much later than due the last one was out. */
	bench_shared->result[0] = (double)(bench_tick() - tick) * bench_tick_ns;
	close(&e);
}

BENCH_ALWAYS void receive_all(const struct load *l, end_open *open, end_get *get, end_close *close)
{
	uint64_t start = 0, early = 0, n = messages_of(l), warm = n / 10, i;
	struct end e = { .load = l };
	char buf[BYTES];

	open(&e, 0);
	bench_meet(2);
	for (i = 0; i < n && !(i && bench_is_total(i)); i++) {
		uint64_t tick, now;

		get(&e, buf, i);
		now = bench_tick_after();
		if (i == 0)
			start = atomic_load(start_tick());
		tick = bench_due(start, l->per_second, i);
		verify(buf, i, tick);
		if (i < warm)
			continue;
		early += (int64_t)(now - tick) < 0;
		histogram_add(seen, (int64_t)(now - tick) < 0 ? 0 : now - tick);
	}
	bench_shared->result[1] = (double)early;
	close(&e);
}

#define CONTENDER(name) \
	static void name##_send_all(void *arg) \
	{ \
		send_all(arg, name##_open, name##_put, name##_close); \
	} \
	static void name##_receive_all(void *arg) \
	{ \
		receive_all(arg, name##_open, name##_get, name##_close); \
	}
CONTENDER(ring)
CONTENDER(shmq)
CONTENDER(peer)

/* ---- measuring ----------------------------------------------------------------- */

/* Of all rounds, of one contender under one load. */
struct series {
	char name[96]; /* of the figures */
	struct histogram seen, seen_late;
	unsigned rounds, late;
	struct round {
		double value[STATS];
		int is_late;
	} round[BENCH_ROUNDS_MAX];
	double early;
};

#define CONTENDERS 32 /* the limit, shmq and the peers */
static struct series *series[LOADS][CONTENDERS];

static struct series *series_of(const struct load *l, const char *who)
{
	struct series **s = series[l - loads];
	char name[sizeof((*s)->name)];

	snprintf(name, sizeof(name), "%s%s", l->name, who);
	for (; *s && strcmp((*s)->name, name) != 0; s++)
		;
	if (!*s) {
		*s = calloc(1, sizeof(**s));
		if (!*s)
			bench_fail("out of memory");
		strcpy((*s)->name, name);
	}
	return *s;
}

/* A round in which the sender was behind in the end says nothing of latency but
 * how long the round was. */
static int is_late(const struct load *l)
{
	return bench_shared->result[0] > 1e9 * (double)messages_of(l) / l->per_second / 100;
}

static void measure(const struct load *l, const char *who, void (*send)(void *),
		    void (*receive)(void *))
{
	struct bench_proc proc[] = { { send, (void *)(uintptr_t)l, 0 },
				     { receive, (void *)(uintptr_t)l, 1 } };
	struct series *s = series_of(l, who);
	struct round *r = &s->round[s->rounds++];
	unsigned i;

	memset(seen, 0, sizeof(*seen));
	memset(bench_shared->area, 0, SLOTS * CELL_BYTES); /* flags of the last run */
	bench_run(proc, 2);
	r->is_late = is_late(l);
	s->late += (unsigned)r->is_late;
	for (i = 0; i < STATS; i++)
		r->value[i] = bench_enough(seen->count, stats[i].q) ?
				      bench_tick_ns * (double)histogram_quantile(seen, stats[i].q) :
				      NAN;
	histogram_merge(r->is_late ? &s->seen_late : &s->seen, seen);
	s->early += bench_shared->result[1];
}

static void one_round(const struct load *l)
{
	const struct peer_channel any = { .bytes = BYTES, .senders = 1, .receivers = 1 };

	measure(l, ".limit", ring_send_all, ring_receive_all);
	measure(l, "", shmq_send_all, shmq_receive_all);
	for (peer = NULL; (peer = bench_next_peer(peer, l->name, &any, PEER_COPIES));) {
		channel = bench_channel(BYTES, 1, 1, bench_peer_polls(peer));
		measure(l, bench_peer_who(peer), peer_send_all, peer_receive_all);
	}
}

/* Late rounds are left out as long as they are at most one in LATE_SHARE: more
 * are not by chance, and to leave them out would be to choose. */
static void report(const struct load *l, struct series *s)
{
	const char *who = strrchr(s->name + strlen(l->name), '.');
	char name[128];
	unsigned kept_up = s->rounds - s->late, i, r;
	int all = s->late > s->rounds / LATE_SHARE;

	snprintf(name, sizeof(name), "%s.late_%s", l->name, who ? who + 1 : "shmq");
	bench_note(name, "rounds", s->late);
	if (!kept_up) {
		bench_label(s->name, "cannot keep up with this rate");
		return;
	}
	for (i = 0; i < STATS; i++)
		for (r = 0; r < s->rounds; r++)
			bench_note_stat(s->name, stats[i].name, "ns",
					all || !s->round[r].is_late ? s->round[r].value[i] : NAN);
	if (all) {
		histogram_merge(&s->seen, &s->seen_late);
		printf("distrust %s the sender kept up with the rate in only %u of %u rounds, all of which count\n",
		       s->name, kept_up, s->rounds);
	} else if (s->late) {
		bench_label(s->name, "left out are %u of %u rounds, in which the sender was behind",
			    s->late, s->rounds);
	}
	histogram_print(&s->seen, s->name, bench_tick_ns);
	if (s->early > 0)
		printf("distrust %s the processors' clocks differ: %.0f messages came before they were sent\n",
		       s->name, s->early);
}

int main(int argc, char **argv)
{
	struct shmq_topic_options o = { .size = sizeof(o), .depth = SLOTS };
	unsigned i, k, r;
	shmq_bus *bus;

	bench_init(argc, argv, BENCH_BUS, question);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (seen == MAP_FAILED)
		bench_fail("no memory for the histogram");
	bus = bench_open();
	for (i = 0; i < LOADS; i++)
		BENCH_OK(shmq_topic_create(bus, loads[i].name, &o, NULL));
	for (r = 0; r < bench.rounds; r++)
		for (i = 0; i < LOADS; i++)
			one_round(&loads[i]);
	shmq_bus_close(bus);
	if (!bench_has_tsc)
		printf("distrust latency no time stamp counter that all processors share: reading the clock takes part in what is measured\n");
	bench_busy("latency", 2);
	for (i = 0; i < LOADS; i++)
		for (k = 0; series[i][k]; k++)
			report(&loads[i], series[i][k]);
	for (i = 0; i < LOADS; i++) {
		char ratio[64], of[64], to[64];

		snprintf(ratio, sizeof(ratio), "%s.vs_limit", loads[i].name);
		snprintf(of, sizeof(of), "%s.p50", loads[i].name);
		snprintf(to, sizeof(to), "%s.limit.p50", loads[i].name);
		if (bench_has(of) && bench_has(to))
			bench_ratio(ratio, of, to);
	}
	return bench_end();
}
