/* SPDX-License-Identifier: MIT */
#include "durable.h"

static const char question[] =
	"How many bytes a second does one publisher get into the log of a topic whose publishers\n"
	"wait for it, compared with the best that the disk does with large O_DIRECT writes one\n"
	"behind the other to a new file?  Only payload counts, so what a record has around it is in the ratio;\n"
	"the time ends when the last message is in the log's file.";

struct shape {
	const char *name;
	size_t bytes;
};

static const struct shape shapes[] = {
	{ "log.write.128", 128 },
	{ "log.write.1024", 1024 },
	{ "log.write.65536", 65536 },
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

/* What waits for the disk: more than the tailer writes at once, and in a cache. */
#define RING_BYTES (16 * MIB)

static uint64_t sent[SHAPES];

struct part {
	const struct shape *shape;
	uint64_t from, to;
};

static void publish(void *arg)
{
	const struct part *p = arg;
	shmq_bus *bus = bench_open_started();
	uint64_t start;
	shmq_pub *pub;

	pub = durable_open_pub(bus, p->shape->name, RING_BYTES);
	start = bench_now();
	durable_publish(pub, p->shape->bytes, p->from, p->to);
	durable_await(pub, durable_head(bus, p->shape->name), SHMQ_WRITTEN);
	bench_shared->result[0] =
		(double)((p->to - p->from) * p->shape->bytes) * 1e3 / (double)(bench_now() - start);
	shmq_bus_close(bus);
}

static void measure(unsigned i, uint64_t bytes)
{
	const struct shape *s = &shapes[i];
	struct part part = { s, sent[i], sent[i] + bytes / s->bytes };

	bench_note_stat(s->name, "disk", "MB/s", durable_write_limit(bytes) / 1e6);
	bench_run(&(struct bench_proc){ publish, &part, DURABLE_PUBLISHER }, 1);
	bench_note_stat(s->name, "rate", "MB/s", bench_shared->result[0]);
	durable_check(s->name, s->bytes, part.from, part.to);
	sent[i] = part.to;
}

int main(int argc, char **argv)
{
	uint64_t bytes;
	shmq_bus *bus;
	unsigned r, i;

	bench_init(argc, argv, BENCH_BUS, question);
	bytes = durable_amount(bench.quick ? 256 * MIB : 512 * MIB);
	/* Nothing is removed meanwhile; with heads, and the segment behind. */
	durable_init("log.write", SHAPES * (bench.rounds * bytes * 5 / 4 + GIB) + bytes);
	durable_start();
	bus = bench_open_started();
	for (i = 0; i < SHAPES; i++)
		durable_create(bus, shapes[i].name, shapes[i].bytes, RING_BYTES,
			       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK });
	shmq_bus_close(bus);
	for (r = 0; r < bench.rounds; r++)
		for (i = 0; i < SHAPES; i++)
			measure(i, bytes);
	bench_ratio("log.write.128.vs_disk", "log.write.128.rate", "log.write.128.disk");
	bench_ratio("log.write.1024.vs_disk", "log.write.1024.rate", "log.write.1024.disk");
	bench_ratio("log.write.65536.vs_disk", "log.write.65536.rate", "log.write.65536.disk");
	bench_busy("log.write", 2);
	return bench_end();
}
