/* SPDX-License-Identifier: MIT */
#include "durable.h"
#include "store.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char question[] =
	"How many records of 128 bytes a second does one process get onto the disk, if it makes\n"
	"sure of that after each, and after 1000: in the log of a topic, and in LMDB, SQLite,\n"
	"RocksDB and a stream of Redis?  All of them are read back.";

#define BYTES 128u
#define MANY 1000u

static const unsigned per_sync[] = { 1, MANY };
static const char *const name[] = { "log.append.1", "log.append.1000" };
#define KINDS (sizeof(per_sync) / sizeof(per_sync[0]))

static uint64_t window_ns(void)
{
	return bench.smoke ? 20000000 : bench.quick ? 100000000 : 300000000;
}

/* So many were appended within so long. */
static void finish(uint64_t n, uint64_t start)
{
	bench_shared->result[0] = (double)n * 1e6 / (double)(bench_now() - start);
	bench_shared->word[0][0] = n;
}

/* ---- peers ------------------------------------------------------------------ */

static const struct {
	const char *file, *name;
} known[] = { { "lmdb", "lmdb" },
	      { "sqlite", "sqlite" },
	      { "rocksdb", "rocksdb" },
	      { "redis_log", "redis" } };
#define KNOWN (sizeof(known) / sizeof(known[0]))

static const struct store *stores[KNOWN];
static unsigned store_count;

static void load(void)
{
	char dir[PATH_MAX], path[PATH_MAX + 64];
	ssize_t len = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	unsigned i;

	if (len < 0)
		bench_fail("finding this program: %s", strerror(errno));
	dir[len] = 0;
	*strrchr(dir, '/') = 0;
	for (i = 0; i < KNOWN; i++) {
		const struct store *store;
		void *plugin;

		if (!bench_peer_is_chosen(known[i].name))
			continue;
		snprintf(path, sizeof(path), "%s/peers/%s.so", dir, known[i].file);
		if (access(path, F_OK)) {
			printf("absent %s not built\n", known[i].name);
			continue;
		}
		plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		store = plugin ? dlsym(plugin, "bench_store") : NULL;
		if (!store) {
			printf("absent %s %s\n", known[i].name, dlerror());
			continue;
		}
		printf("peer %s %s\n", known[i].name, store->version());
		stores[store_count++] = store;
	}
}

struct seen {
	const char *who;
	uint64_t n;
};

static int verify(void *arg, const void *record, size_t bytes)
{
	struct seen *seen = arg;

	if (bytes != BYTES || bench_verify(record, BYTES, seen->n))
		bench_fail("%s: record %llu is lost, torn or out of order", seen->who,
			   (unsigned long long)seen->n);
	seen->n++;
	return 0;
}

struct task {
	const struct store *store; /* or NULL */
	unsigned kind;
	uint64_t from; /* shmq: so many are there */
	char dir[PATH_MAX];
};

static void append_to_store(void *arg)
{
	static char records[MANY * BYTES];
	const struct task *t = arg;
	const struct store *s = t->store;
	unsigned each = per_sync[t->kind], i;
	void *store = s->open(t->dir, BYTES);
	struct seen seen = { .who = s->name };
	uint64_t start, n = 0;

	if (!store)
		bench_fail("%s cannot be opened", s->name);
	start = bench_now();
	while (bench_now() - start < window_ns()) {
		for (i = 0; i < each; i++)
			bench_fill(records + i * BYTES, BYTES, n + i);
		if (s->append(store, records, each))
			bench_fail("%s: appending failed", s->name);
		n += each;
	}
	finish(n, start);
	if (s->read(store, verify, &seen) || seen.n != n)
		bench_fail("%s: %llu records were appended, %llu are there", s->name,
			   (unsigned long long)n, (unsigned long long)seen.n);
	s->close(store);
}

static void remove_dir(const char *dir)
{
	char command[PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	if (system(command))
		bench_fail("removing %s failed", dir);
}

/* ---- shmq ------------------------------------------------------------------- */

static void append_to_log(void *arg)
{
	/* Who waits has a processor to do it on, as the others have for theirs. */
	struct shmq_pub_options o = { .size = sizeof(o), .wait = SHMQ_WAIT_SPIN };
	const struct task *t = arg;
	shmq_bus *bus = bench_open_started();
	unsigned each = per_sync[t->kind];
	uint64_t start, n = 0;
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, name[t->kind], &o, &pub));
	start = bench_now();
	while (bench_now() - start < window_ns()) {
		durable_publish(pub, BYTES, t->from + n, t->from + n + each);
		n += each;
		durable_await(pub, t->from + n, SHMQ_SYNCED);
	}
	finish(n, start);
	shmq_bus_close(bus);
}

/* ---- measuring ---------------------------------------------------------------- */

static void measure(unsigned kind, uint64_t *sent)
{
	struct task t = { .kind = kind, .from = *sent };
	char figure[96];
	unsigned i;

	bench_run(&(struct bench_proc){ append_to_log, &t, DURABLE_PUBLISHER }, 1);
	bench_note_stat(name[kind], "rate", "k/s", bench_shared->result[0]);
	*sent += bench_shared->word[0][0];
	for (i = 0; i < store_count; i++) {
		t.store = stores[i];
		snprintf(t.dir, sizeof(t.dir), "%s/%s", durable_dir(), stores[i]->name);
		if (mkdir(t.dir, 0700))
			bench_fail("making %s: %s", t.dir, strerror(errno));
		/* Its threads run where they like. */
		bench_run(&(struct bench_proc){ append_to_store, &t, -1 }, 1);
		snprintf(figure, sizeof(figure), "%s.peer.%s", name[kind], stores[i]->name);
		bench_note(figure, "k/s", bench_shared->result[0]);
		remove_dir(t.dir);
	}
}

int main(int argc, char **argv)
{
	uint64_t sent[KINDS] = { 0 };
	shmq_bus *bus;
	unsigned r, k;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.append", 4 * GIB);
	load();
	durable_start();
	bus = bench_open_started();
	for (k = 0; k < KINDS; k++)
		durable_create(bus, name[k], BYTES, MIB,
			       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK,
							     .sync = SHMQ_SYNC_EVERY });
	shmq_bus_close(bus);
	for (r = 0; r < bench.rounds; r++)
		for (k = 0; k < KINDS; k++)
			measure(k, &sent[k]);
	for (k = 0; k < KINDS; k++)
		durable_check(name[k], BYTES, 0, sent[k]);
	return bench_end();
}
