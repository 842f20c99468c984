/* SPDX-License-Identifier: MIT */
#include "durable.h"

static const char question[] =
	"What does a publish cost on a topic that has 100 million messages in its log, compared\n"
	"with one that has none?  Blocks of 64, a block each 64 us.";

#define BYTES 8u
#define BLOCK 64u
#define BLOCKS_PER_SECOND 15625.0

enum { EMPTY, FULL, KINDS };
static const char *const topic[KINDS] = { "log.backlog.0", "log.backlog.100M" };

/* So many are in the logs. */
static uint64_t sent[KINDS];

static uint64_t blocks(void)
{
	return bench_amount(bench.quick ? 3000 : 8000);
}

static void publish(void *arg)
{
	const unsigned *k = arg;
	shmq_bus *bus = bench_open_started();
	uint64_t n = sent[*k], i, start;
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, topic[*k], NULL, &pub));
	bench_shared->sample_count = 0;
	start = bench_tick() + (uint64_t)(1e6 / bench_tick_ns);
	for (i = 0; i < blocks(); i++, n += BLOCK) {
		uint64_t began;

		bench_spin_until(bench_due(start, BLOCKS_PER_SECOND, i));
		began = bench_tick();
		durable_publish(pub, BYTES, n, n + BLOCK);
		bench_shared->samples[bench_shared->sample_count++] = bench_tick() - began;
	}
	durable_await(pub, durable_head(bus, topic[*k]), SHMQ_WRITTEN);
	shmq_bus_close(bus);
}

static void measure(unsigned k)
{
	bench_run(&(struct bench_proc){ publish, &k, DURABLE_PUBLISHER }, 1);
	sent[k] += blocks() * BLOCK;
	bench_sort_samples();
	bench_note_stat(topic[k], "publish", "ns",
			bench_quantile_smooth(0.5) * bench_tick_ns / BLOCK);
}

int main(int argc, char **argv)
{
	shmq_bus *bus;
	unsigned r, k;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.backlog", 8 * GIB);
	durable_start();
	bus = bench_open_started();
	for (k = 0; k < KINDS; k++)
		durable_create(bus, topic[k], BYTES, MIB,
			       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK });
	shmq_bus_close(bus);
	sent[FULL] = bench_amount(100000000);
	durable_fill(topic[FULL], BYTES, sent[FULL]);
	for (r = 0; r < bench.rounds; r++)
		for (k = 0; k < KINDS; k++)
			measure(k);
	for (k = 0; k < KINDS; k++)
		durable_check(topic[k], BYTES, 0, sent[k]);
	bench_ratio("log.backlog.100M.publish.vs_empty", "log.backlog.100M.publish",
		    "log.backlog.0.publish");
	bench_busy("log.backlog", 2);
	return bench_end();
}
