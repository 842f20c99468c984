/* SPDX-License-Identifier: MIT */
#include "common.h"
#include "histogram.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static const char question[] =
	"How long after the moment at which it was due is a message with its reader, if messages\n"
	"are due at a fixed rate, compared with a bare ring of flags?  None is skipped, so that\n"
	"one which is late makes those behind it late as well.  Both sides spin.";

#define BYTES 64u
#define SLOTS 1024u /* of shmq's ring and of the bare one */
#define CELL_BYTES 128u
#define FETCH_CELLS 4u
#define CURSOR_EVERY 32u

struct load {
	const char *name; /* of the figure */
	double per_second;
	double seconds;
	unsigned messages; /* from main() on */
};

static struct load loads[] = {
	{ "latency.10k", 1e4, 1, 0 },
	{ "latency.1M", 1e6, 0.4, 0 },
	{ "latency.10M", 1e7, 0.3, 0 },
};
#define LOADS (sizeof(loads) / sizeof(loads[0]))

/* One process's end; which is set depends on the contender. */
struct end {
	const struct load *load;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	uint64_t room; /* bare ring: cells below it may be written */
};

static struct histogram *seen; /* of this run, ticks; shared */

/* ---- messages: when due, and what any message says ----------------------- */

static _Atomic uint64_t *start_tick(void)
{
	return &bench_shared->word[0][0];
}

static uint64_t due(const struct load *l, uint64_t start, uint64_t i)
{
	return start + (uint64_t)((double)i * (1e9 / bench_tick_ns / l->per_second));
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

/* ---- under load -------------------------------------------------------------- */

typedef void end_open(struct end *e, int sends);
typedef void end_put(struct end *e, const char *buf, uint64_t i);
typedef void end_get(struct end *e, char *buf, uint64_t i);

BENCH_ALWAYS void send_all(const struct load *l, end_open *open, end_put *put)
{
	struct end e = { .load = l };
	uint64_t start, tick = 0, i;
	char buf[BYTES];

	open(&e, 1);
	bench_meet(2);
	start = bench_tick() + (uint64_t)(1e6 / bench_tick_ns);
	atomic_store(start_tick(), start);
	for (i = 0; i < l->messages; i++) {
		tick = due(l, start, i);
		fill(buf, i, tick);
		while ((int64_t)(bench_tick() - tick) < 0)
			;
		put(&e, buf, i);
	}
	/* How much later than due the last one was out. */
	bench_shared->result[0] = (double)(bench_tick() - tick) * bench_tick_ns;
	if (e.bus)
		shmq_bus_close(e.bus);
}

BENCH_ALWAYS void receive_all(const struct load *l, end_open *open, end_get *get)
{
	struct end e = { .load = l };
	uint64_t start = 0, early = 0, warm = l->messages / 10, i;
	char buf[BYTES];

	open(&e, 0);
	bench_meet(2);
	for (i = 0; i < l->messages; i++) {
		uint64_t tick, now;

		get(&e, buf, i);
		now = bench_tick_after();
		if (i == 0)
			start = atomic_load(start_tick());
		tick = due(l, start, i);
		verify(buf, i, tick);
		if (i < warm)
			continue;
		early += (int64_t)(now - tick) < 0;
		histogram_add(seen, (int64_t)(now - tick) < 0 ? 0 : now - tick);
	}
	bench_shared->result[1] = (double)early;
	if (e.bus)
		shmq_bus_close(e.bus);
}

#define CONTENDER(name) \
	static void name##_send_all(void *arg) \
	{ \
		send_all(arg, name##_open, name##_put); \
	} \
	static void name##_receive_all(void *arg) \
	{ \
		receive_all(arg, name##_open, name##_get); \
	}
CONTENDER(ring)
CONTENDER(shmq)

/* ---- measuring ----------------------------------------------------------------- */

struct contender {
	const char *who; /* how its figures' names go on */
	void (*send)(void *arg);
	void (*receive)(void *arg);
};

static const struct contender contenders[] = {
	{ ".limit", ring_send_all, ring_receive_all },
	{ "", shmq_send_all, shmq_receive_all },
};
#define CONTENDERS (sizeof(contenders) / sizeof(contenders[0]))

/* Of all rounds. */
static struct series {
	struct histogram seen;
	unsigned rounds_behind;
	double early;
} series[LOADS][CONTENDERS];

static void name_of(const struct load *l, const struct contender *c, char *name, size_t bytes)
{
	snprintf(name, bytes, "%s%s", l->name, c->who);
}

static void measure(const struct load *l, const struct contender *c, struct series *s)
{
	struct bench_proc proc[] = { { c->send, (void *)(uintptr_t)l, 0 },
				     { c->receive, (void *)(uintptr_t)l, 1 } };
	static const struct {
		const char *name;
		double q;
	} stat[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p999", 0.999 }, { "max", 1 } };
	char name[64];
	unsigned i;

	memset(seen, 0, sizeof(*seen));
	memset(bench_shared->area, 0, SLOTS * CELL_BYTES); /* flags of the last run */
	bench_run(proc, 2);
	name_of(l, c, name, sizeof(name));
	for (i = 0; i < sizeof(stat) / sizeof(stat[0]); i++)
		bench_note_stat(name, stat[i].name, "ns",
				bench_tick_ns * (double)histogram_quantile(seen, stat[i].q));
	histogram_merge(&s->seen, seen);
	s->rounds_behind += bench_shared->result[0] > 1e9 * l->messages / l->per_second / 100;
	s->early += bench_shared->result[1];
}

static void report(const struct load *l, const struct contender *c, const struct series *s)
{
	char name[64];

	name_of(l, c, name, sizeof(name));
	histogram_print(&s->seen, name, bench_tick_ns);
	if (2 * s->rounds_behind > bench.rounds)
		printf("distrust %s the sender could not keep up with the rate\n", name);
	if (s->early > 0)
		printf("distrust %s the processors' clocks differ: %.0f messages came before they were sent\n",
		       name, s->early);
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
	for (i = 0; i < LOADS; i++) {
		loads[i].messages =
			(unsigned)(loads[i].per_second * loads[i].seconds / (bench.quick ? 5 : 1));
		BENCH_OK(shmq_topic_create(bus, loads[i].name, &o, NULL));
	}
	for (r = 0; r < bench.rounds; r++)
		for (i = 0; i < LOADS; i++)
			for (k = 0; k < CONTENDERS; k++)
				measure(&loads[i], &contenders[k], &series[i][k]);
	shmq_bus_close(bus);
	if (!bench_has_tsc)
		printf("distrust latency no time stamp counter that all processors share: reading the clock takes part in what is measured\n");
	bench_busy("latency", 2);
	for (i = 0; i < LOADS; i++)
		for (k = 0; k < CONTENDERS; k++)
			report(&loads[i], &contenders[k], &series[i][k]);
	for (i = 0; i < LOADS; i++) {
		char ratio[64], of[64], to[64];

		snprintf(ratio, sizeof(ratio), "%s.vs_limit", loads[i].name);
		snprintf(of, sizeof(of), "%s.p50", loads[i].name);
		snprintf(to, sizeof(to), "%s.limit.p50", loads[i].name);
		bench_ratio(ratio, of, to);
	}
	return bench_end();
}
