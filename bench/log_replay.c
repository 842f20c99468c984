/* SPDX-License-Identifier: MIT */
#include "durable.h"

static const char question[] =
	"How fast is a log read again from its beginning, each message verified, compared with\n"
	"plain reads of 1 MiB of the same files: from the page cache, and from the disk?  Beside\n"
	"it stands what is left of such reads if the payload they brought is verified\n"
	"(`verified`), and if the checksum of each record is made, too (`summed`): nobody who is\n"
	"copied to can do more.  From the page cache it is read as a reader does that asks\n"
	"for nothing, and once more in place (SHMQ_SUB_IN_PLACE: `in_place`).";

#define TOPIC "log.replay"
#define BYTES 1024u
#define RECORD_BYTES 1064u
#define LOG_BYTES (512 * MIB)

static uint64_t messages(void)
{
	return durable_amount(LOG_BYTES) / BYTES;
}

static void finish(uint64_t start)
{
	/* What both have read: the payload of all messages. */
	bench_shared->result[0] =
		(double)(messages() * BYTES) * 1e3 / (double)(bench_now() - start);
}

static void read_plainly(void *arg)
{
	uint64_t start = bench_now();

	(void)arg;
	/* No further: the last segment goes on with zeros that no replay reads. */
	if (durable_read(TOPIC, messages() * RECORD_BYTES) < messages() * RECORD_BYTES)
		bench_fail("the log is too short");
	finish(start);
}

/* What every reader does that copies, and no more: where the records are is known. */
static void read_and_verify(void *sums)
{
	uint64_t start = bench_now(), next = 0;
	int is_made = durable_read_records(TOPIC, RECORD_BYTES, BYTES, sums != NULL, &next);

	finish(start);
	if (!is_made)
		bench_shared->result[0] = 0;
	if (next != messages())
		bench_fail("%llu messages are in the log", (unsigned long long)next);
}

static void replay_with(unsigned flags)
{
	shmq_bus *bus = bench_open_started();
	uint64_t start = bench_now();
	struct shmq_sub_options o = { .size = sizeof(o),
				      .from = SHMQ_FROM_OLDEST,
				      .flags = SHMQ_SUB_OBSERVE | flags };
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, TOPIC, &o, &sub));
	durable_receive(sub, BYTES, 0, messages());
	finish(start);
	if (durable_head(bus, TOPIC) != messages())
		bench_fail("more messages are in the log than were sent");
	shmq_bus_close(bus);
}

static void replay(void *arg)
{
	(void)arg;
	replay_with(0);
}

static void replay_in_place(void *arg)
{
	(void)arg;
	replay_with(SHMQ_SUB_IN_PLACE);
}

static double run_with(void (*how)(void *arg), void *arg)
{
	bench_run(&(struct bench_proc){ how, arg, DURABLE_PUBLISHER }, 1);
	return bench_shared->result[0];
}

static double run(void (*how)(void *arg))
{
	return run_with(how, NULL);
}

static void measure_summed(void)
{
	static int sums;
	double rate = run_with(read_and_verify, &sums);

	if (rate > 0)
		bench_note("log.replay.cached.summed", "MB/s", rate);
}

static int drop(void)
{
	durable_drop_caches();
	return durable_is_cold();
}

static void measure_cold(void)
{
	if (!drop()) {
		bench_label("log.replay.cold", "not measured: the page cache could not be emptied");
		return;
	}
	bench_note("log.replay.cold.read", "MB/s", run(read_plainly));
	drop();
	bench_note("log.replay.cold.rate", "MB/s", run(replay));
}

int main(int argc, char **argv)
{
	shmq_bus *bus;
	unsigned r;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.replay", 2 * GIB);
	durable_start();
	bus = bench_open_started();
	durable_create(bus, TOPIC, BYTES, 16 * MIB,
		       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK,
						     .segment_bytes = durable_amount(128 * MIB) });
	shmq_bus_close(bus);
	durable_fill(TOPIC, BYTES, messages());
	for (r = 0; r < bench.rounds; r++) {
		measure_cold();
		run(read_plainly); /* now it is cached */
		bench_note("log.replay.cached.read", "MB/s", run(read_plainly));
		bench_note("log.replay.cached.verified", "MB/s", run(read_and_verify));
		measure_summed();
		bench_note("log.replay.cached.rate", "MB/s", run(replay));
		bench_note("log.replay.cached.in_place.rate", "MB/s", run(replay_in_place));
	}
	if (bench_has("log.replay.cold.rate"))
		bench_ratio("log.replay.cold.vs_read", "log.replay.cold.rate",
			    "log.replay.cold.read");
	bench_ratio("log.replay.cached.vs_read", "log.replay.cached.rate",
		    "log.replay.cached.read");
	bench_ratio("log.replay.cached.in_place.vs_read", "log.replay.cached.in_place.rate",
		    "log.replay.cached.read");
	bench_ratio("log.replay.cached.verified.vs_read", "log.replay.cached.verified",
		    "log.replay.cached.read");
	if (bench_has("log.replay.cached.summed")) {
		bench_ratio("log.replay.cached.summed.vs_read", "log.replay.cached.summed",
			    "log.replay.cached.read");
		bench_ratio("log.replay.cached.vs_summed", "log.replay.cached.rate",
			    "log.replay.cached.summed");
	}
	bench_ratio("log.replay.cached.vs_verified", "log.replay.cached.rate",
		    "log.replay.cached.verified");
	return bench_end();
}
