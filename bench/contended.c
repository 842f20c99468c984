/* SPDX-License-Identifier: MIT */
#include "crowd.h"

#include <stdio.h>

static const char question[] =
	"How many messages a second do 1, 2 and 4 publishers put into one topic together, and how\n"
	"many if each has a partition of its own (lanes)?  And two, whom nobody makes wait,\n"
	"compared with bare compare-and-swap claims of consecutive cells?";

#define SECONDS 0.2

static const struct contest {
	unsigned publishers, subscribers;
} contests[] = { { 1, 1 }, { 2, 1 }, { 2, 2 }, { 4, 1 }, { 4, 4 } };
#define CONTESTS (sizeof(contests) / sizeof(contests[0]))

static const unsigned lanes[] = { 1, 2, 4 }; /* topics: "lanes.2" has two */
#define LANES (sizeof(lanes) / sizeof(lanes[0]))

/* ---- the limit: claim by compare-and-swap, write, commit ------------------- */

/* A cell's word is twice the number of its lap, from 1 on, and one more while
 * it is claimed and not committed. */
#define CELLS 8192u /* as many as the topic has slots */
#define CELL_BYTES 128u
#define FETCH_CELLS 4u
#define HINT_EVERY 32u /* for whoever comes later */

static struct bench_cell *cell_at(uint64_t n)
{
	return (struct bench_cell *)(bench_shared->area + n % CELLS * CELL_BYTES);
}

static _Atomic uint64_t *hint(void)
{
	return &bench_shared->word[BENCH_WORDS - 1][0];
}

BENCH_ALWAYS uint64_t lap_word(uint64_t n)
{
	return 2 * (n / CELLS + 1);
}

/* The first cell at or after n that can be had. */
BENCH_ALWAYS uint64_t claim(uint64_t n)
{
	for (;;) {
		struct bench_cell *c = cell_at(n);
		uint64_t word = bench_cell_word(c), mine = lap_word(n);

		if (word >= mine) {
			n += (word - mine) / 2 * CELLS + 1;
		} else if (word == mine - 2 &&
			   atomic_compare_exchange_strong_explicit(&c->word, &word, mine + 1,
								   memory_order_acquire,
								   memory_order_relaxed)) {
			return n;
		}
	}
}

static void limit_publish(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;
	struct crowd_time time;
	char buf[CROWD_BYTES];
	uint64_t n = 0, i;
	int is_last;

	bench_meet(2);
	bench_shared->result[2 * who] = (double)bench_now();
	time = crowd_start(SECONDS);
	for (i = 0, is_last = 0; !is_last; i++) {
		uint64_t head = crowd_head(who, i);
		const char *ahead;

		is_last = crowd_is_last(&time, i);
		bench_fill(buf, CROWD_BYTES, is_last ? head | CROWD_LAST : head);
		n = claim(n);
		atomic_thread_fence(memory_order_release);
		ahead = (const char *)cell_at(n + FETCH_CELLS);
		bench_fetch_for_writing(ahead);
		bench_fetch_for_writing(ahead + 64);
		bench_cell_put(cell_at(n), buf, CROWD_BYTES, lap_word(n));
		n++;
		if (i % HINT_EVERY == 0)
			atomic_store_explicit(hint(), n, memory_order_relaxed);
	}
	bench_shared->result[2 * who + 1] = (double)bench_now();
	atomic_store(&bench_shared->word[who][0], i);
}

/* What the cells hold is the end of what was sent. */
static double limit_run(void)
{
	struct bench_proc proc[] = { { limit_publish, (void *)0, 0 },
				     { limit_publish, (void *)1, 1 } };
	struct crowd_reader r = { .publishers = 2 };
	double *at = bench_shared->result;
	uint64_t sent, n;
	char buf[CROWD_BYTES];

	memset(bench_shared->area, 0, CELLS * CELL_BYTES);
	bench_run(proc, 2);
	sent = atomic_load(&bench_shared->word[0][0]) + atomic_load(&bench_shared->word[1][0]);
	r.lost = sent > CELLS ? sent - CELLS : 0;
	for (n = r.lost; n < sent; n++) {
		if (bench_cell_word(cell_at(n)) != lap_word(n))
			bench_fail("cell %llu was not written", (unsigned long long)n);
		bench_cell_get(cell_at(n), buf, CROWD_BYTES);
		crowd_take(&r, buf);
	}
	return (double)sent * 1e3 /
	       ((at[1] > at[3] ? at[1] : at[3]) - (at[0] < at[2] ? at[0] : at[2]));
}

/* ---- shmq -------------------------------------------------------------------- */

static void create(shmq_bus *bus, const char *topic, enum shmq_policy policy, unsigned partitions)
{
	struct shmq_topic_options o = { .size = sizeof(o),
					.mode = SHMQ_SHARED,
					.policy = policy,
					.depth = CELLS,
					.partitions = partitions };

	BENCH_OK(shmq_topic_create(bus, topic, &o, NULL));
}

static void figure_name(const struct contest *c, int own, char *name, size_t bytes)
{
	snprintf(name, bytes, "contended.%s%up%uc", own ? "lanes." : "", c->publishers,
		 c->subscribers);
}

static void measure(const struct contest *c, int own)
{
	struct crowd crowd = { .topic = "shared",
			       .publishers = c->publishers,
			       .subscribers = c->subscribers,
			       .lanes = own,
			       .seconds = SECONDS };
	char name[64], topic[64];

	if (own) {
		snprintf(topic, sizeof(topic), "lanes.%u", c->publishers);
		crowd.topic = topic;
	}
	figure_name(c, own, name, sizeof(name));
	bench_note_stat(name, "rate", "M/s", crowd_run(&crowd).rate);
	if (!own)
		crowd_run_peers(&crowd, name);
}

static void measure_against_limit(void)
{
	static const struct crowd two = {
		.topic = "lossy", .publishers = 2, .lossy = 1, .seconds = SECONDS
	};

	bench_note("contended.2p.limit", "M/s", limit_run());
	bench_note("contended.2p.rate", "M/s", crowd_run(&two).rate);
}

int main(int argc, char **argv)
{
	char name[64];
	unsigned i, r;
	shmq_bus *bus;
	int own;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	create(bus, "shared", SHMQ_BLOCK, 1);
	create(bus, "lossy", SHMQ_LOSSY, 1);
	for (i = 0; i < LANES; i++) {
		snprintf(name, sizeof(name), "lanes.%u", lanes[i]);
		create(bus, name, SHMQ_BLOCK, lanes[i]);
	}
	for (r = 0; r < bench.rounds; r++) {
		measure_against_limit();
		for (own = 0; own < 2 && !bench.quick; own++)
			for (i = 0; i < CONTESTS; i++)
				measure(&contests[i], own);
	}
	shmq_bus_close(bus);
	bench_ratio("contended.2p.vs_cas_limit", "contended.2p.rate", "contended.2p.limit");
	bench_busy("contended.2p", 2);
	for (own = 0; own < 2 && !bench.quick; own++) {
		for (i = 0; i < CONTESTS; i++) {
			figure_name(&contests[i], own, name, sizeof(name));
			bench_busy(name, contests[i].publishers + contests[i].subscribers);
		}
	}
	return bench_end();
}
