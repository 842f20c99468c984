/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const char question[] =
	"How long does a subscriber take from its opening to its first message, if that is\n"
	"somewhere in a log of 10 GiB of which nothing is in memory: by its seq, and by its\n"
	"time?  Compared with one read of 64 KiB from a random place of such a file.";

#define TOPIC "log.seek"
#define BYTES 1024u
#define RECORD_BYTES 1064u
#define SEEKS 10u /* of each kind in a round */
#define READ_BYTES 65536u

static uint64_t messages(void)
{
	return durable_amount(10 * GIB) / RECORD_BYTES;
}

/* The same in each run. */
static uint64_t any(uint64_t below)
{
	static uint64_t state = 42;

	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (state >> 20) % below;
}

static void check(const struct shmq_msg *msg, uint64_t seq)
{
	if (msg->seq != seq || msg->len != BYTES || bench_verify(msg->data, BYTES, seq))
		bench_fail("message %llu is another one", (unsigned long long)seq);
}

static shmq_sub *open_at_time(shmq_bus *bus, uint64_t ts)
{
	struct shmq_sub_options o = { .size = sizeof(o),
				      .from = SHMQ_FROM_TIME,
				      .ts_ns = ts,
				      .partition_plus1 = 1,
				      .flags = SHMQ_SUB_OBSERVE };
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, TOPIC, &o, &sub));
	return sub;
}

/* One opening, to the message with that seq or, if ts is not 0, to the first
 * of that time: how long, in us. */
static double seek(shmq_bus *bus, uint64_t seq, uint64_t ts, struct shmq_msg *msg)
{
	uint64_t start = bench_now();
	shmq_sub *sub = ts ? open_at_time(bus, ts) : durable_open_at(bus, TOPIC, seq);

	BENCH_OK(shmq_receive(sub, msg, SHMQ_FOREVER));
	start = bench_now() - start;
	check(msg, ts ? msg->seq : seq);
	shmq_sub_close(sub);
	return (double)start / 1e3;
}

static double read_once(void)
{
	static char path[PATH_MAX], buf[READ_BYTES];
	struct stat st;
	uint64_t start;
	int fd;

	durable_last_segment(TOPIC, path);
	start = bench_now();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || st.st_size < (off_t)READ_BYTES ||
	    pread(fd, buf, sizeof(buf), (off_t)any((uint64_t)st.st_size - READ_BYTES)) < 0)
		bench_fail("reading %s: %s", path, strerror(errno));
	close(fd);
	return (double)(bench_now() - start) / 1e3;
}

enum { READ, BY_SEQ, BY_TIME, KINDS };

static void seeks(void *arg)
{
	shmq_bus *bus = bench_open_started();
	struct shmq_msg msg;
	double took[KINDS][SEEKS];
	unsigned i;

	(void)arg;
	for (i = 0; i < SEEKS; i++) {
		uint64_t seq = any(messages()), ts;

		durable_drop_caches();
		took[READ][i] = read_once();
		durable_drop_caches();
		took[BY_SEQ][i] = seek(bus, seq, 0, &msg);
		ts = msg.ts_ns;
		durable_drop_caches();
		took[BY_TIME][i] = seek(bus, 0, ts, &msg);
		if (msg.ts_ns != ts || msg.seq > seq)
			bench_fail("message %llu is not the first of its time",
				   (unsigned long long)msg.seq);
		if (msg.seq) {
			uint64_t first = msg.seq;

			seek(bus, first - 1, 0, &msg);
			if (msg.ts_ns >= ts)
				bench_fail("message %llu is not the first of its time",
					   (unsigned long long)first);
		}
	}
	for (i = 0; i < KINDS; i++)
		bench_shared->result[i] = bench_median(took[i], SEEKS);
	if (durable_head(bus, TOPIC) != messages())
		bench_fail("more messages are in the log than were sent");
	shmq_bus_close(bus);
}

int main(int argc, char **argv)
{
	const double *took;
	shmq_bus *bus;
	unsigned r;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.seek", 11 * GIB);
	durable_start();
	bus = bench_open_started();
	durable_create(bus, TOPIC, BYTES, 16 * MIB,
		       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK,
						     .segment_bytes = durable_amount(GIB) });
	shmq_bus_close(bus);
	durable_fill(TOPIC, BYTES, messages());
	durable_drop_caches();
	if (!durable_is_cold()) {
		bench_label("log.seek", "not measured: the page cache could not be emptied");
		return bench_end();
	}
	took = bench_shared->result;
	for (r = 0; r < bench.rounds; r++) {
		bench_run(&(struct bench_proc){ seeks, NULL, DURABLE_PUBLISHER }, 1);
		bench_note("log.seek.10GiB.limit.first_message_us", "us", took[READ]);
		bench_note("log.seek.10GiB.by_seq.first_message_us", "us", took[BY_SEQ]);
		bench_note("log.seek.10GiB.by_time.first_message_us", "us", took[BY_TIME]);
		bench_note("log.seek.10GiB.first_message_us", "us",
			   took[BY_SEQ] > took[BY_TIME] ? took[BY_SEQ] : took[BY_TIME]);
	}
	return bench_end();
}
