/* SPDX-License-Identifier: MIT */
#include "crowd.h"

#include <stdio.h>

static const char question[] =
	"How many messages a second can one process publish to 1, 2, 4 and 8 subscribers, if it\n"
	"waits for the slowest (block) and if it does not and they may lose some (lossy)?";

static const struct policy {
	const char *name;
	enum shmq_policy policy;
	int quick; /* part of the quick run, as are up to two subscribers */
} policies[] = {
	{ "block", SHMQ_BLOCK, 1 },
	{ "lossy", SHMQ_LOSSY, 0 },
};
#define POLICIES (sizeof(policies) / sizeof(policies[0]))

static const unsigned subscribers[] = { 1, 2, 4, 8 };
#define COUNTS (sizeof(subscribers) / sizeof(subscribers[0]))
#define QUICK_COUNTS 2

/* Two against one as in stream.1p1c.64, whose topic has 4 MiB of slots: in such
 * a ring a single reader has the most to lose. */
#define STREAM "stream"
#define STREAM_SLOT_BYTES 128u
#define STREAM_RING_BYTES (4u << 20)

static void measure(const struct policy *p, unsigned n)
{
	struct crowd c = { .topic = p->name,
			   .publishers = 1,
			   .subscribers = n,
			   .lossy = p->policy == SHMQ_LOSSY,
			   .seconds = 0.25 };
	struct crowd_result result = crowd_run(&c);
	char name[64];

	snprintf(name, sizeof(name), "broadcast.1p%uc.%s", n, p->name);
	bench_note_stat(name, "rate", "M/s", result.rate);
	if (c.lossy)
		bench_note_stat(name, "delivered", "%", result.delivered);
	else
		crowd_run_peers(&c, name);
}

/* One publisher and n polling subscribers whom it waits for. */
static void measure_stream(const char *figure, unsigned n)
{
	const struct crowd c = {
		.topic = STREAM, .publishers = 1, .subscribers = n, .seconds = 0.25
	};

	bench_note(figure, "M/s", crowd_run(&c).rate);
}

int main(int argc, char **argv)
{
	unsigned counts, i, k, r;
	char name[64];
	shmq_bus *bus;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	counts = bench.quick ? QUICK_COUNTS : COUNTS;
	for (i = 0; i < POLICIES; i++) {
		struct shmq_topic_options o = { .size = sizeof(o), .policy = policies[i].policy };

		BENCH_OK(shmq_topic_create(bus, policies[i].name, &o, NULL));
	}
	BENCH_OK(shmq_topic_create(bus, STREAM,
				   &(struct shmq_topic_options){
					   .size = sizeof(struct shmq_topic_options),
					   .slot_bytes = STREAM_SLOT_BYTES,
					   .depth = STREAM_RING_BYTES / STREAM_SLOT_BYTES },
				   NULL));
	for (r = 0; r < bench.rounds; r++) {
		measure_stream("stream.1p2c.64.rate", 2);
		measure_stream("stream.1p2c.64.of_1p1c.rate", 1);
		for (k = 0; k < counts; k++)
			for (i = 0; i < POLICIES; i++)
				if (policies[i].quick || !bench.quick)
					measure(&policies[i], subscribers[k]);
	}
	shmq_bus_close(bus);
	for (k = 0; k < counts; k++) {
		snprintf(name, sizeof(name), "broadcast.1p%uc", subscribers[k]);
		bench_busy(name, 1 + subscribers[k]);
	}
	bench_ratio("stream.1p2c.64.vs_1p1c", "stream.1p2c.64.rate", "stream.1p2c.64.of_1p1c.rate");
	bench_label("stream.1p2c.64", "both on a topic of 4 MiB, as stream.1p1c.64 is");
	bench_busy("stream.1p2c.64", 3);
	bench_ratio("broadcast.1p2c.vs_1p1c", "broadcast.1p2c.block.rate",
		    "broadcast.1p1c.block.rate");
	bench_label("broadcast.1p2c.vs_1p1c", "both on a topic of the default size");
	return bench_end();
}
