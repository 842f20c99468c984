/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char question[] =
	"How many messages a second are confirmed to be on the disk, if each is waited for before\n"
	"the next is sent: by one who sends and waits, compared with a write and an fdatasync of\n"
	"as many bytes, and by 64 at once, compared with as many threads that a futex wakes after\n"
	"each fdatasync, and that it wakes one time after the other?  All who wait are on one\n"
	"processor, and the tailer has the other: one waits spinning, 64 let each other on\n"
	"(SHMQ_WAIT_YIELD), then sleep each (SHMQ_WAIT_SLEEP: `asleep`), and then one thread\n"
	"asks for 64 publishers in turn whether what each sent is confirmed (`asked`).";

#define BYTES 128u
#define RECORD_BYTES 168u
#define MANY 64u
#define ONE_TOPIC "log.confirm.1"
#define MANY_TOPIC "log.confirm.64"

/* Message n of sender s is number s * PER_SENDER + n. */
#define PER_SENDER (UINT64_C(1) << 20)

static uint64_t sent[MANY]; /* on the topic of many; in sent_one on the other */
static uint64_t sent_one;

static uint64_t window_ns(void)
{
	return bench.smoke ? 20000000 : bench.quick ? 300000000 : 700000000;
}

/* ---- the limit ------------------------------------------------------------- */

/* Of `many` records at once, after which `then` is called. */
static double write_limit(unsigned many, void (*then)(void))
{
	char path[4096], record[RECORD_BYTES * MANY];
	uint64_t start, n = 0, until;
	size_t bytes = many * RECORD_BYTES;
	int fd;

	snprintf(path, sizeof(path), "%s/records", durable_dir());
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || fallocate(fd, 0, 0, (off_t)(16 * MIB)) || fsync(fd))
		bench_fail("writing %s: %s", path, strerror(errno));
	start = bench_now();
	until = start + window_ns();
	for (; bench_now() < until; n += many) {
		bench_fill(record, bytes, n);
		if (write(fd, record, bytes) != (ssize_t)bytes || fdatasync(fd))
			bench_fail("writing %s: %s", path, strerror(errno));
		if (then)
			then();
	}
	start = bench_now() - start;
	close(fd);
	return (double)n * 1e9 / (double)start;
}

/* And for many: threads that sleep until the next write was synced, and say
 * then that they are awake. */
static _Atomic unsigned turn, awake;

static void futex(_Atomic unsigned *word, int op, unsigned value)
{
	syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static void *sleep_and_say(void *arg)
{
	unsigned seen = 0;

	while (seen != UINT_MAX) {
		futex(&turn, FUTEX_WAIT_PRIVATE, seen);
		if (atomic_load(&turn) == seen)
			continue;
		seen = atomic_load(&turn);
		if (atomic_fetch_add(&awake, 1) + 1 == MANY)
			futex(&awake, FUTEX_WAKE_PRIVATE, 1);
	}
	return arg;
}

static void wake_all(void)
{
	unsigned n;

	atomic_store(&awake, 0);
	atomic_fetch_add(&turn, 1);
	futex(&turn, FUTEX_WAKE_PRIVATE, INT_MAX);
	while ((n = atomic_load(&awake)) < MANY)
		futex(&awake, FUTEX_WAIT_PRIVATE, n);
}

/* How many a second wake if there is nothing else to do. */
static double wake_limit(void)
{
	uint64_t start = bench_now(), n = 0;

	for (; bench_now() < start + window_ns() / 4; n += MANY)
		wake_all();
	return (double)n * 1e9 / (double)(bench_now() - start);
}

static void limit_of_many(void *arg)
{
	pthread_t sleeper[MANY];
	unsigned i;

	(void)arg;
	for (i = 0; i < MANY; i++)
		if (pthread_create(&sleeper[i], NULL, sleep_and_say, NULL))
			bench_fail("starting a thread failed");
	bench_shared->result[0] = write_limit(MANY, wake_all);
	bench_shared->result[1] = wake_limit();
	atomic_store(&turn, UINT_MAX);
	futex(&turn, FUTEX_WAKE_PRIVATE, INT_MAX);
	for (i = 0; i < MANY; i++)
		pthread_join(sleeper[i], NULL);
}

static void limit_of_one(void *arg)
{
	(void)arg;
	bench_shared->result[0] = write_limit(1, NULL);
}

/* ---- who sends and waits ----------------------------------------------------- */

struct sender {
	pthread_t thread;
	shmq_bus *bus;
	const char *topic;
	enum shmq_wait wait;
	uint64_t number, sent, until;
};

static uint64_t send_next(shmq_pub *pub, const struct sender *s)
{
	char buf[BYTES];
	struct shmq_msg msg = { .data = buf, .len = BYTES };

	bench_fill(buf, BYTES, s->number * PER_SENDER + s->sent);
	BENCH_OK(shmq_publish_msg(pub, &msg));
	return msg.seq;
}

static void *send_and_wait(void *arg)
{
	struct sender *s = arg;
	struct shmq_pub_options o = { .size = sizeof(o), .wait = s->wait };
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(s->bus, s->topic, &o, &pub));
	do { /* one at least, however late it begins */
		durable_await(pub, send_next(pub, s) + 1, SHMQ_SYNCED);
		s->sent++;
	} while (bench_now() < s->until);
	shmq_pub_close(pub);
	return NULL;
}

/* What many threads do, by one: it sleeps for none of them. */
static void ask_for_each(struct sender *s, unsigned n)
{
	uint64_t seq[MANY], confirmed;
	shmq_pub *pub[MANY];
	unsigned i, left = n;

	for (i = 0; i < n; i++) {
		BENCH_OK(shmq_pub_open(s[i].bus, s[i].topic, NULL, &pub[i]));
		seq[i] = send_next(pub[i], &s[i]);
	}
	for (i = 0; left; i = (i + 1) % n) {
		if (!pub[i])
			continue;
		BENCH_OK(shmq_pub_confirmed(pub[i], 0, SHMQ_SYNCED, &confirmed));
		if (confirmed <= seq[i])
			continue;
		s[i].sent++;
		if (bench_now() < s[i].until) {
			seq[i] = send_next(pub[i], &s[i]);
			continue;
		}
		shmq_pub_close(pub[i]);
		pub[i] = NULL;
		left--;
	}
}

/* The counts come back by bench_shared. */
struct crowd {
	const char *topic;
	unsigned n;
	enum shmq_wait wait; /* 0: one thread asks for all */
	uint64_t *sent;
};

static void crowd(void *arg)
{
	const struct crowd *c = arg;
	static struct sender sender[MANY];
	shmq_bus *bus = bench_open_started();
	uint64_t start = bench_now(), n = 0;
	unsigned i;

	for (i = 0; i < c->n; i++) {
		sender[i] = (struct sender){ .bus = bus,
					     .topic = c->topic,
					     .wait = c->wait,
					     .number = i,
					     .sent = c->sent[i],
					     .until = start + window_ns() };
		if (c->wait && pthread_create(&sender[i].thread, NULL, send_and_wait, &sender[i]))
			bench_fail("starting a thread failed");
	}
	if (!c->wait)
		ask_for_each(sender, c->n);
	for (i = 0; i < c->n; i++) {
		if (c->wait)
			pthread_join(sender[i].thread, NULL);
		n += sender[i].sent - c->sent[i];
		bench_shared->samples[i] = sender[i].sent;
	}
	bench_shared->result[0] = (double)n * 1e9 / (double)(bench_now() - start);
	shmq_bus_close(bus);
}

static void confirm(const char *name, const struct crowd *c)
{
	unsigned i;

	bench_run(&(struct bench_proc){ crowd, (void *)(uintptr_t)c, DURABLE_PUBLISHER }, 1);
	for (i = 0; i < c->n; i++)
		c->sent[i] = bench_shared->samples[i];
	bench_note(name, "/s", bench_shared->result[0]);
}

/* ---- what is in the log ------------------------------------------------------ */

static void check(void *arg)
{
	const struct crowd *c = arg;
	shmq_bus *bus = bench_open_started();
	uint64_t next[MANY] = { 0 }, i, all = 0, number;
	struct shmq_msg msg;
	unsigned who;
	shmq_sub *sub = durable_open_at(bus, c->topic, 0);

	for (i = 0; i < c->n; i++)
		all += c->sent[i];
	for (i = 0; i < all; i++) {
		BENCH_OK(shmq_receive(sub, &msg, SHMQ_FOREVER));
		memcpy(&number, msg.data, sizeof(number));
		who = (unsigned)(number / PER_SENDER);
		if (msg.len != BYTES || msg.seq != i || who >= c->n ||
		    bench_verify(msg.data, BYTES, who * PER_SENDER + next[who]++))
			bench_fail("message %llu is lost, torn or out of order",
				   (unsigned long long)i);
	}
	if (durable_head(bus, c->topic) != all)
		bench_fail("more messages are in the log than were sent");
	shmq_bus_close(bus);
}

int main(int argc, char **argv)
{
	/* One has a processor to wait on, and 64 share it. */
	const struct crowd one = { ONE_TOPIC, 1, SHMQ_WAIT_SPIN, &sent_one },
			   many = { MANY_TOPIC, MANY, SHMQ_WAIT_YIELD, sent },
			   asleep = { MANY_TOPIC, MANY, SHMQ_WAIT_SLEEP, sent },
			   asked = { MANY_TOPIC, MANY, 0, sent };
	shmq_bus *bus;
	unsigned r;

	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("log.confirm", 2 * GIB + 64 * MIB);
	durable_start();
	bus = bench_open_started();
	durable_create(bus, ONE_TOPIC, BYTES, MIB,
		       &(struct shmq_topic_options){ .log = SHMQ_LOG_BLOCK,
						     .sync = SHMQ_SYNC_EVERY });
	durable_create(bus, MANY_TOPIC, BYTES, MIB,
		       &(struct shmq_topic_options){ .mode = SHMQ_SHARED,
						     .log = SHMQ_LOG_BLOCK,
						     .sync = SHMQ_SYNC_EVERY });
	shmq_bus_close(bus);
	for (r = 0; r < bench.rounds; r++) {
		bench_run(&(struct bench_proc){ limit_of_one, NULL, DURABLE_PUBLISHER }, 1);
		bench_note("log.confirm.1.fdatasync", "/s", bench_shared->result[0]);
		confirm("log.confirm.1.rate", &one);
		bench_run(&(struct bench_proc){ limit_of_many, NULL, DURABLE_PUBLISHER }, 1);
		bench_note("log.confirm.64.futexes", "/s", bench_shared->result[0]);
		bench_note("log.confirm.64.wakes", "/s", bench_shared->result[1]);
		confirm("log.confirm.64.rate", &many);
		confirm("log.confirm.64.asleep.rate", &asleep);
		confirm("log.confirm.64.asked.rate", &asked);
	}
	bench_run(&(struct bench_proc){ check, (void *)(uintptr_t)&one, 0 }, 1);
	bench_run(&(struct bench_proc){ check, (void *)(uintptr_t)&many, 0 }, 1);
	bench_ratio("log.confirm.1.vs_fdatasync", "log.confirm.1.rate", "log.confirm.1.fdatasync");
	bench_ratio("log.confirm.64.vs_1", "log.confirm.64.rate", "log.confirm.1.rate");
	bench_ratio("log.confirm.64.asked.vs_1", "log.confirm.64.asked.rate", "log.confirm.1.rate");
	bench_ratio("log.confirm.64.asleep.vs_1", "log.confirm.64.asleep.rate",
		    "log.confirm.1.rate");
	bench_ratio("log.confirm.64.asleep.vs_futexes", "log.confirm.64.asleep.rate",
		    "log.confirm.64.futexes");
	bench_ratio("log.confirm.64.futexes.vs_1", "log.confirm.64.futexes", "log.confirm.1.rate");
	bench_ratio("log.confirm.64.wakes.vs_1", "log.confirm.64.wakes", "log.confirm.1.rate");
	return bench_end();
}
