/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char question[] =
	"How long does a message take there and back, compared with the bare ping-pong of the\n"
	"cache lines it fills (spinning) and of two futexes (sleeping)?";

struct trip {
	const char *name; /* of the figure */
	size_t bytes;
	uint32_t slot_bytes;
	enum shmq_wait wait;
	uint64_t trips;
};

static const struct trip spin32 = { "rtt.spin.32", 32, 64, SHMQ_WAIT_SPIN, 200000 };
static const struct trip spin64 = { "rtt.spin.64", 64, 128, SHMQ_WAIT_SPIN, 200000 };
static const struct trip sleep64 = { "rtt.sleep.64", 64, 128, SHMQ_WAIT_SLEEP, 8000 };

/* ---- limits: flag and payload in one or two lines each way -------------- */

struct lines {
	_Atomic uint64_t seq;
	char near[56];
	char far[64];
};

static struct lines *lines_of(int way)
{
	return (struct lines *)(bench_shared->area + way * 4096);
}

static void put_lines(struct lines *l, size_t bytes, uint64_t i)
{
	char buf[64];

	bench_fill(buf, bytes, i);
	if (bytes > sizeof(l->near)) {
		memcpy(l->far, buf + sizeof(l->near), bytes - sizeof(l->near));
		memcpy(l->near, buf, sizeof(l->near));
	} else {
		memcpy(l->near, buf, bytes);
	}
	atomic_store_explicit(&l->seq, i + 1, memory_order_release);
}

static void get_lines(struct lines *l, size_t bytes, uint64_t i)
{
	char buf[64];

	while (atomic_load_explicit(&l->seq, memory_order_acquire) != i + 1)
		bench_relax();
	if (bytes > sizeof(l->near)) {
		memcpy(buf, l->near, sizeof(l->near));
		memcpy(buf + sizeof(l->near), l->far, bytes - sizeof(l->near));
	} else {
		memcpy(buf, l->near, bytes);
	}
	if (bench_verify(buf, bytes, i))
		bench_fail("the limit tore message %llu", (unsigned long long)i);
}

static void lines_ping(void *arg)
{
	const struct trip *t = arg;
	uint64_t i, at;

	bench_meet(2);
	for (i = 0; i < t->trips; i++) {
		at = bench_now();
		put_lines(lines_of(0), t->bytes, i);
		get_lines(lines_of(1), t->bytes, i);
		bench_shared->samples[i] = bench_now() - at;
	}
	bench_shared->sample_count = t->trips;
}

static void lines_pong(void *arg)
{
	const struct trip *t = arg;
	uint64_t i;

	bench_meet(2);
	for (i = 0; i < t->trips; i++) {
		get_lines(lines_of(0), t->bytes, i);
		put_lines(lines_of(1), t->bytes, i);
	}
}

/* ---- limit: two futexes ---------------------------------------------------- */

static _Atomic uint32_t *futex_of(int way)
{
	return (_Atomic uint32_t *)&bench_shared->word[way][0];
}

static void futex_ring(int way, uint32_t v)
{
	atomic_store(futex_of(way), v);
	syscall(SYS_futex, futex_of(way), FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_await(int way, uint32_t v)
{
	while (atomic_load(futex_of(way)) != v)
		syscall(SYS_futex, futex_of(way), FUTEX_WAIT, v - 1, NULL, NULL, 0);
}

static void futex_ping(void *arg)
{
	const struct trip *t = arg;
	uint32_t i;

	bench_meet(2);
	for (i = 0; i < t->trips; i++) {
		uint64_t at = bench_now();

		futex_ring(0, i + 1);
		futex_await(1, i + 1);
		bench_shared->samples[i] = bench_now() - at;
	}
	bench_shared->sample_count = t->trips;
}

static void futex_pong(void *arg)
{
	const struct trip *t = arg;
	uint32_t i;

	bench_meet(2);
	for (i = 0; i < t->trips; i++) {
		futex_await(0, i + 1);
		futex_ring(1, i + 1);
	}
}

/* ---- shmq -------------------------------------------------------------------- */

struct ends {
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
};

static void open_ends(const struct trip *t, const char *to, const char *from, struct ends *e)
{
	struct shmq_sub_options so = { .size = sizeof(so), .wait = t->wait };
	struct shmq_pub_options po = { .size = sizeof(po) };
	char name[64];

	e->bus = bench_open();
	snprintf(name, sizeof(name), "%s.%s", t->name, from);
	BENCH_OK(shmq_sub_open(e->bus, name, &so, &e->sub));
	snprintf(name, sizeof(name), "%s.%s", t->name, to);
	BENCH_OK(shmq_pub_open(e->bus, name, &po, &e->pub));
	BENCH_OK(shmq_pub_wait_subscribers(e->pub, 1, SHMQ_FOREVER));
	bench_meet(2);
}

static inline void take(struct ends *e, size_t bytes, uint64_t i)
{
	struct shmq_msg msg;
	char buf[64];

	BENCH_OK(shmq_receive(e->sub, &msg, SHMQ_FOREVER));
	if (msg.len != bytes)
		bench_fail("message %llu has %zu bytes", (unsigned long long)i, msg.len);
	memcpy(buf, msg.data, bytes);
	if (bench_verify(buf, bytes, i))
		bench_fail("message %llu is torn or out of order", (unsigned long long)i);
}

static inline void give(struct ends *e, size_t bytes, uint64_t i)
{
	char buf[64];

	bench_fill(buf, bytes, i);
	BENCH_OK(shmq_publish(e->pub, buf, bytes));
}

static void shmq_ping(void *arg)
{
	const struct trip *t = arg;
	struct ends e;
	uint64_t i;

	open_ends(t, "there", "back", &e);
	for (i = 0; i < t->trips; i++) {
		uint64_t at = bench_now();

		give(&e, t->bytes, i);
		take(&e, t->bytes, i);
		bench_shared->samples[i] = bench_now() - at;
	}
	bench_shared->sample_count = t->trips;
	shmq_bus_close(e.bus);
}

static void shmq_pong(void *arg)
{
	const struct trip *t = arg;
	struct ends e;
	uint64_t i;

	open_ends(t, "back", "there", &e);
	for (i = 0; i < t->trips; i++) {
		take(&e, t->bytes, i);
		give(&e, t->bytes, i);
	}
	shmq_bus_close(e.bus);
}

static void measure(void (*a)(void *), void (*b)(void *), const struct trip *t, const char *suffix)
{
	struct bench_proc proc[] = { { a, (void *)(uintptr_t)t, 0 },
				     { b, (void *)(uintptr_t)t, 1 } };
	char name[64];

	bench_run(proc, 2);
	bench_sort_samples();
	snprintf(name, sizeof(name), "%s%s.p50", t->name, suffix);
	bench_note(name, "ns", (double)bench_quantile(0.5));
	snprintf(name, sizeof(name), "%s%s.p999", t->name, suffix);
	bench_note(name, "ns", (double)bench_quantile(0.999));
}

static void compare(shmq_bus *bus, const struct trip *t, void (*a)(void *), void (*b)(void *),
		    const char *ratio)
{
	struct shmq_topic_options o = { .size = sizeof(o),
					.slot_bytes = t->slot_bytes,
					.depth = 1024 };
	char name[64], of[64], to[64];
	unsigned r;

	snprintf(name, sizeof(name), "%s.there", t->name);
	BENCH_OK(shmq_topic_create(bus, name, &o, NULL));
	snprintf(name, sizeof(name), "%s.back", t->name);
	BENCH_OK(shmq_topic_create(bus, name, &o, NULL));
	for (r = 0; r < bench.rounds; r++) {
		measure(a, b, t, ".limit");
		measure(shmq_ping, shmq_pong, t, "");
	}
	snprintf(name, sizeof(name), "%s.%s", t->name, ratio);
	snprintf(of, sizeof(of), "%s.p50", t->name);
	snprintf(to, sizeof(to), "%s.limit.p50", t->name);
	bench_ratio(name, of, to);
	snprintf(name, sizeof(name), "%s.p999.%s", t->name, ratio);
	snprintf(of, sizeof(of), "%s.p999", t->name);
	snprintf(to, sizeof(to), "%s.limit.p999", t->name);
	bench_ratio(name, of, to);
}

int main(int argc, char **argv)
{
	shmq_bus *bus;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	compare(bus, &spin32, lines_ping, lines_pong, "vs_limit");
	compare(bus, &spin64, lines_ping, lines_pong, "vs_limit");
	compare(bus, &sleep64, futex_ping, futex_pong, "vs_futex");
	shmq_bus_close(bus);
	return bench_end();
}
