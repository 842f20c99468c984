/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <sys/mman.h>
#include <unistd.h>

static const char question[] =
	"What does a publisher of a million messages a second notice of a tailer that writes them\n"
	"to the log of their topic?  A publish takes from when it is due until it is done; the\n"
	"same reader, which never sleeps in the library, verifies every message of both topics.\n"
	"They take turns for a tenth of a second, and a round has the median of ten such: what the\n"
	"host takes at once for longer than a thousandth of that is in few of them.";

#define BYTES 64u
#define RING_BYTES (16 * MIB) /* a quarter of a second */
#define PER_SECOND 1e6

enum { OFF, ON, KINDS };
#define WINDOWS DURABLE_WINDOWS /* of a round, for each of them */
static const char *const topic[KINDS] = { "log.publish.off", "log.publish.on" };

struct run {
	struct histogram seen[BENCH_ROUNDS_MAX][WINDOWS][KINDS];
};
static struct run *run;

static uint64_t per_window(void)
{
	return bench_amount((uint64_t)(PER_SECOND * (bench.quick ? 0.03 : 0.1)));
}

static uint64_t in_all(void)
{
	return per_window() * bench.rounds * WINDOWS;
}

static void publisher(void *arg)
{
	shmq_bus *bus = bench_open_started();
	uint64_t sent = 0, n = per_window();
	shmq_pub *pub[KINDS];
	unsigned r, w, k;

	(void)arg;
	for (k = 0; k < KINDS; k++) {
		BENCH_OK(shmq_pub_open(bus, topic[k], NULL, &pub[k]));
		BENCH_OK(shmq_pub_wait_subscribers(pub[k], 1, SHMQ_FOREVER));
	}
	bench_meet(2);
	for (r = 0; r < bench.rounds; r++)
		for (w = 0; w < WINDOWS; w++, sent += n)
			for (k = 0; k < KINDS; k++)
				durable_publish_paced(pub[k], BYTES, sent, sent + n, PER_SECOND,
						      &run->seen[r][w][k]);
	for (k = 0; k < KINDS; k++)
		BENCH_OK(shmq_flush(pub[k], SHMQ_FOREVER));
	durable_await(pub[ON], in_all(), SHMQ_WRITTEN);
	shmq_bus_close(bus);
}

/* What is there; whether anything was. */
static int take(shmq_sub *sub, uint64_t *next)
{
	uint64_t first = *next;
	struct shmq_msg msg;
	int rc;

	while (!(rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)))
		if (msg.len != BYTES || bench_verify(msg.data, BYTES, (*next)++))
			bench_fail("message %llu is lost, torn or out of order",
				   (unsigned long long)*next - 1);
	if (rc != SHMQ_EEMPTY)
		BENCH_OK(rc);
	return *next != first;
}

static void reader(void *arg)
{
	shmq_bus *bus = bench_open_started();
	uint64_t next[KINDS] = { 0 };
	shmq_sub *sub[KINDS];
	unsigned k;

	(void)arg;
	for (k = 0; k < KINDS; k++)
		BENCH_OK(shmq_sub_open(bus, topic[k], NULL, &sub[k]));
	bench_meet(2);
	while (next[OFF] < in_all() || next[ON] < in_all())
		if (!(take(sub[OFF], &next[OFF]) + take(sub[ON], &next[ON])))
			usleep(500);
	for (k = 0; k < KINDS; k++)
		if (durable_head(bus, topic[k]) != in_all())
			bench_fail("%s has more messages than were sent", topic[k]);
	shmq_bus_close(bus);
}

static void report(void)
{
	static struct histogram all[KINDS];
	static const struct {
		const char *name;
		double q;
	} stat[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p999", 0.999 } };
	unsigned r, w, k, i;

	for (r = 0; r < bench.rounds; r++)
		for (k = 0; k < KINDS; k++) {
			for (w = 0; w < WINDOWS; w++)
				histogram_merge(&all[k], &run->seen[r][w][k]);
			for (i = 0; i < sizeof(stat) / sizeof(stat[0]); i++)
				bench_note_stat(topic[k], stat[i].name, "ns",
						durable_windows(&run->seen[r][0][k], WINDOWS, KINDS,
								stat[i].q));
		}
	for (k = 0; k < KINDS; k++)
		histogram_print(&all[k], topic[k], bench_tick_ns);
	bench_ratio("log.publish_p999.on_vs_off", "log.publish.on.p999", "log.publish.off.p999");
}

int main(int argc, char **argv)
{
	const struct bench_proc proc[] = { { reader, NULL, DURABLE_OTHERS },
					   { publisher, NULL, DURABLE_PUBLISHER } };
	shmq_bus *bus;
	unsigned k;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.publish", 8 * GIB);
	run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (run == MAP_FAILED)
		bench_fail("no memory for the histograms");
	durable_start();
	bus = bench_open_started();
	for (k = 0; k < KINDS; k++)
		durable_create(bus, topic[k], BYTES, RING_BYTES,
			       &(struct shmq_topic_options){ .log = k == ON ? SHMQ_LOG_BLOCK :
									      SHMQ_LOG_NONE });
	shmq_bus_close(bus);
	bench_run(proc, 2);
	durable_check(topic[ON], BYTES, 0, in_all());
	bench_busy("log.publish", 2);
	report();
	return bench_end();
}
