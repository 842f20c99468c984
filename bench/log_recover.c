/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char question[] =
	"How long does a bus take after a crash of its machine until a message is in its log\n"
	"again, with a log of 1 GiB and of 10 GiB?  Nothing of them is in memory, and the last\n"
	"segment of both is filled to seven eighths; the plain read of all that is recovered\n"
	"stands beside it.";

#define TOPIC "log.recover"
#define BYTES 1024u
#define RECORD_BYTES 1064u
#define LOOK 1000u /* messages that are read again on either end */

struct log {
	const char *name;
	uint64_t bytes, sent;
	char dir[PATH_MAX];
};
static struct log logs[] = { { .name = "log.recover.1GiB", .bytes = GIB },
			     { .name = "log.recover.10GiB", .bytes = 10 * GIB } };
#define LOGS (sizeof(logs) / sizeof(logs[0]))

static uint64_t segment_bytes(void)
{
	return durable_amount(GIB);
}

/* As a crash of the machine does: whoever comes next need not look who is left
 * of the bus. */
static void forget_bus(void)
{
	const char *dir = getenv("SHMQ_RUNTIME_DIR");
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

/* The supervisor keeps its logs in that one's directory. */
static void use(const struct log *l)
{
	setenv("SHMQ_DATA_DIR", l->dir, 1);
	durable_start();
}

static void fill(struct log *l, const char *dir)
{
	shmq_bus *bus;

	snprintf(l->dir, sizeof(l->dir), "%s/%s", dir, l->name);
	use(l);
	bus = bench_open_started();
	durable_create(bus, TOPIC, BYTES, 16 * MIB,
		       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK,
						     .segment_bytes = segment_bytes() });
	shmq_bus_close(bus);
	l->sent = (durable_amount(l->bytes) - segment_bytes() / 8) / RECORD_BYTES;
	durable_fill(TOPIC, BYTES, l->sent);
	durable_kill();
	forget_bus();
}

/* All that was in the log when it was killed, but for a look at both ends. */
static void publish(void *arg)
{
	struct log *l = arg;
	uint64_t look = l->sent < LOOK ? l->sent : LOOK, head;
	shmq_bus *bus = bench_open_started();
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, TOPIC, NULL, &pub));
	head = durable_head(bus, TOPIC);
	durable_publish(pub, BYTES, head, head + 1);
	durable_await(pub, head + 1, SHMQ_WRITTEN);
	bench_shared->word[0][0] = bench_now();
	durable_receive(durable_open_at(bus, TOPIC, 0), BYTES, 0, look);
	durable_receive(durable_open_at(bus, TOPIC, l->sent - look), BYTES, l->sent - look,
			l->sent);
	durable_receive(durable_open_at(bus, TOPIC, head), BYTES, head, head + 1);
	if (head < l->sent || durable_head(bus, TOPIC) != head + 1)
		bench_fail("%llu messages were sent, the next seq is %llu",
			   (unsigned long long)l->sent, (unsigned long long)head);
	shmq_bus_close(bus);
}

static double read_last(void)
{
	uint64_t start = bench_now();

	durable_read_last(TOPIC);
	return (double)(bench_now() - start) / 1e6;
}

static void measure(struct log *l)
{
	char name[64];
	uint64_t start;

	setenv("SHMQ_DATA_DIR", l->dir, 1);
	durable_drop_caches();
	bench_note_stat(l->name, "read", "ms", read_last());
	durable_drop_caches();
	start = bench_now();
	use(l);
	bench_run(&(struct bench_proc){ publish, l, DURABLE_PUBLISHER }, 1);
	snprintf(name, sizeof(name), "%s_ms", l->name);
	bench_note(name, "ms", (double)(bench_shared->word[0][0] - start) / 1e6);
	durable_kill();
	forget_bus();
}

int main(int argc, char **argv)
{
	unsigned r, i;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.recover", 12 * GIB);
	for (i = 0; i < LOGS; i++)
		fill(&logs[i], durable_dir());
	for (r = 0; r < bench.rounds; r++)
		for (i = 0; i < LOGS; i++)
			measure(&logs[i]);
	bench_ratio("log.recover.10GiB_ms.vs_1GiB", "log.recover.10GiB_ms", "log.recover.1GiB_ms");
	return bench_end();
}
