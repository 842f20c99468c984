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
	for (r = 0; r < bench.rounds; r++)
		for (k = 0; k < counts; k++)
			for (i = 0; i < POLICIES; i++)
				if (policies[i].quick || !bench.quick)
					measure(&policies[i], subscribers[k]);
	shmq_bus_close(bus);
	for (k = 0; k < counts; k++) {
		snprintf(name, sizeof(name), "broadcast.1p%uc", subscribers[k]);
		bench_busy(name, 1 + subscribers[k]);
	}
	bench_ratio("stream.1p2c.64.vs_1p1c", "broadcast.1p2c.block.rate",
		    "broadcast.1p1c.block.rate");
	bench_busy("stream.1p2c.64", 3);
	return bench_end();
}
