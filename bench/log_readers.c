/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <sys/mman.h>

static const char question[] =
	"What does a publisher of a million messages a second notice of 8 processes that replay\n"
	"the log of its topic from the beginning, over and over, each message verified?  A\n"
	"publish takes from when it is due until it is done.  With readers and without take turns\n"
	"for a tenth of a second, and a round has the median of ten such.";

#define TOPIC "log.readers"
#define BYTES 64u
#define RING_BYTES (16 * MIB) /* a quarter of a second */
#define PER_SECOND 1e6
#define READERS 8u
#define KINDS 2u                          /* without readers, and with */
#define WINDOWS (KINDS * DURABLE_WINDOWS) /* of a round: they take turns */

struct run {
	struct histogram seen[BENCH_ROUNDS_MAX][WINDOWS];
	_Atomic uint64_t replayed;
};
static struct run *run;

static const char *const name[KINDS] = { "log.replay.0_readers", "log.replay.8_readers" };

/* That are there before: what is replayed. */
static uint64_t before(void)
{
	return bench_amount(bench.quick ? 1000000 : 4000000);
}

static uint64_t per_window(void)
{
	return bench_amount((uint64_t)(PER_SECOND * (bench.quick ? 0.03 : 0.1)));
}

/* Stages of the run: window w begins at stage w + 1, and those of odd numbers
 * are with readers. */
static int is_over(unsigned *window)
{
	*window = atomic_load(&bench_shared->stage);
	return *window > bench.rounds * WINDOWS;
}

static void publisher(void *arg)
{
	shmq_bus *bus = bench_open_started();
	uint64_t sent = before();
	shmq_pub *pub;
	unsigned w;

	(void)arg;
	BENCH_OK(shmq_pub_open(bus, TOPIC, NULL, &pub));
	bench_meet(1 + READERS);
	for (w = 0; w < bench.rounds * WINDOWS; w++) {
		bench_say_stage(w + 1);
		durable_publish_paced(pub, BYTES, sent, sent + per_window(), PER_SECOND,
				      &run->seen[w / WINDOWS][w % WINDOWS]);
		sent += per_window();
	}
	bench_say_stage(w + 1);
	durable_await(pub, sent, SHMQ_WRITTEN);
	shmq_bus_close(bus);
}

static void reader(void *arg)
{
	shmq_bus *bus = bench_open_started();
	unsigned window;
	uint64_t i;

	(void)arg;
	bench_meet(1 + READERS);
	while (!is_over(&window)) {
		shmq_sub *sub;

		if (window % KINDS == 1) { /* one without readers */
			bench_await_stage(window + 1);
			continue;
		}
		sub = durable_open_at(bus, TOPIC, 0);
		for (i = 0; i < before() && atomic_load(&bench_shared->stage) == window; i += 64) {
			uint64_t to = i + 64 < before() ? i + 64 : before();

			durable_receive(sub, BYTES, i, to);
			atomic_fetch_add(&run->replayed, to - i);
		}
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
}

static void report(void)
{
	static struct histogram all[KINDS];
	unsigned r, w;

	for (r = 0; r < bench.rounds; r++) {
		for (w = 0; w < WINDOWS; w++)
			histogram_merge(&all[w % KINDS], &run->seen[r][w]);
		for (w = 0; w < KINDS; w++)
			bench_note_stat(name[w], "publish_p999", "ns",
					durable_windows(&run->seen[r][w], DURABLE_WINDOWS, KINDS,
							0.999));
	}
	for (w = 0; w < KINDS; w++)
		histogram_print(&all[w], name[w], bench_tick_ns);
	bench_ratio("log.replay.8_readers.publish_p999.vs_0", "log.replay.8_readers.publish_p999",
		    "log.replay.0_readers.publish_p999");
	bench_note("log.replay.8_readers.rate", "M/s",
		   (double)atomic_load(&run->replayed) / 1e6 /
			   ((double)(bench.rounds * DURABLE_WINDOWS * per_window()) / PER_SECOND));
}

int main(int argc, char **argv)
{
	struct bench_proc proc[1 + READERS] = { { publisher, NULL, DURABLE_PUBLISHER } };
	shmq_bus *bus;
	unsigned i;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.replay.8_readers", 6 * GIB);
	run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (run == MAP_FAILED)
		bench_fail("no memory for the histograms");
	durable_start();
	bus = bench_open_started();
	durable_create(bus, TOPIC, BYTES, RING_BYTES,
		       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK });
	shmq_bus_close(bus);
	durable_fill(TOPIC, BYTES, before());
	for (i = 0; i < READERS; i++)
		proc[1 + i] = (struct bench_proc){ reader, NULL, DURABLE_OTHERS };
	bench_run(proc, 1 + READERS);
	durable_check(TOPIC, BYTES, 0, before() + bench.rounds * WINDOWS * per_window());
	bench_busy("log.replay.8_readers", 2 + READERS);
	report();
	return bench_end();
}
