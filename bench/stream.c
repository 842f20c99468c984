/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char question[] =
	"How many messages a second go from one process to another, compared with copying the\n"
	"same bytes in on one core and out on the other through a bare ring of flags?";

struct shape {
	const char *name;
	size_t bytes;
	uint32_t slot_bytes;
	enum shmq_mode mode;
	uint64_t messages;
};

static const struct shape shapes[] = {
	{ "stream.1p1c.64", 64, 128, SHMQ_EXCLUSIVE, 20000000 },
	{ "stream.1p1c.64.shared", 64, 128, SHMQ_SHARED, 20000000 },
	{ "stream.1p1c.1024", 1024, 2048, SHMQ_EXCLUSIVE, 3000000 },
};

/* ---- the limit: n slots of a flag line and the payload ---------------- */

#define LIMIT_SLOTS 1024

struct limit_slot {
	_Atomic uint64_t seq;
	char payload[];
};

static struct limit_slot *limit_slot(const struct shape *s, uint64_t i)
{
	size_t size = (s->bytes + sizeof(struct limit_slot) + 63) & ~(size_t)63;

	return (struct limit_slot *)(bench_shared->area + (i % LIMIT_SLOTS) * size);
}

static void limit_write(void *arg)
{
	const struct shape *s = arg;
	_Atomic uint64_t *read = &bench_shared->word[0][0];
	uint64_t i, limit = LIMIT_SLOTS;
	char buf[4096];

	bench_meet(2);
	for (i = 0; i < s->messages; i++) {
		struct limit_slot *at = limit_slot(s, i);

		while (i >= limit)
			limit = atomic_load_explicit(read, memory_order_acquire) + LIMIT_SLOTS;
		__builtin_prefetch(limit_slot(s, i + 4), 1);
		bench_fill(buf, s->bytes, i);
		memcpy(at->payload, buf, s->bytes);
		atomic_store_explicit(&at->seq, i + 1, memory_order_release);
	}
}

static void limit_read(void *arg)
{
	const struct shape *s = arg;
	_Atomic uint64_t *read = &bench_shared->word[0][0];
	uint64_t i, start;
	char buf[4096];

	bench_meet(2);
	start = bench_now();
	for (i = 0; i < s->messages; i++) {
		struct limit_slot *at = limit_slot(s, i);

		while (atomic_load_explicit(&at->seq, memory_order_acquire) != i + 1)
			bench_relax();
		memcpy(buf, at->payload, s->bytes);
		if (bench_verify(buf, s->bytes, i))
			bench_fail("the limit tore message %llu", (unsigned long long)i);
		if (i % 64 == 0)
			atomic_store_explicit(read, i, memory_order_release);
	}
	atomic_store(read, s->messages);
	bench_shared->result[0] = (double)s->messages * 1e3 / (double)(bench_now() - start);
}

/* ---- shmq --------------------------------------------------------------- */

static void publish(void *arg)
{
	const struct shape *s = arg;
	shmq_bus *bus = bench_open();
	char buf[4096];
	shmq_pub *pub;
	uint64_t i;

	BENCH_OK(shmq_pub_open(bus, s->name, NULL, &pub));
	BENCH_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_FOREVER));
	bench_meet(2);
	for (i = 0; i < s->messages; i++) {
		bench_fill(buf, s->bytes, i);
		if (shmq_publish(pub, buf, s->bytes))
			bench_fail("publish failed at %llu", (unsigned long long)i);
	}
	BENCH_OK(shmq_flush(pub, SHMQ_FOREVER));
	shmq_bus_close(bus);
}

static void subscribe(void *arg)
{
	const struct shape *s = arg;
	shmq_bus *bus = bench_open();
	struct shmq_msg msg;
	uint64_t i, start;
	char buf[4096];
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, s->name, NULL, &sub));
	bench_meet(2);
	start = bench_now();
	for (i = 0; i < s->messages; i++) {
		int rc = shmq_receive(sub, &msg, SHMQ_FOREVER);

		if (rc || msg.len != s->bytes)
			bench_fail("message %llu: %s", (unsigned long long)i, shmq_strerror(rc));
		memcpy(buf, msg.data, msg.len);
		if (bench_verify(buf, s->bytes, i))
			bench_fail("message %llu is torn or out of order", (unsigned long long)i);
	}
	bench_shared->result[0] = (double)s->messages * 1e3 / (double)(bench_now() - start);
	shmq_bus_close(bus);
}

static double measure(void (*a)(void *), void (*b)(void *), const struct shape *s)
{
	struct bench_proc proc[] = { { a, (void *)(uintptr_t)s, 0 },
				     { b, (void *)(uintptr_t)s, 1 } };

	bench_run(proc, 2);
	return bench_shared->result[0];
}

int main(int argc, char **argv)
{
	struct shape shape;
	shmq_bus *bus;
	unsigned i, r;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct shmq_topic_options o = { .size = sizeof(o),
						.slot_bytes = shapes[i].slot_bytes,
						.mode = shapes[i].mode,
						.max_message_bytes = shapes[i].bytes };
		char name[64], limit[64], ratio[64];

		BENCH_OK(shmq_topic_create(bus, shapes[i].name, &o, NULL));
		snprintf(name, sizeof(name), "%s.rate", shapes[i].name);
		snprintf(limit, sizeof(limit), "%s.limit", shapes[i].name);
		snprintf(ratio, sizeof(ratio), "%s.vs_limit", shapes[i].name);
		shape = shapes[i];
		if (bench.quick)
			shape.messages /= 5;
		for (r = 0; r < bench.rounds; r++) {
			bench_note(limit, "M/s", measure(limit_write, limit_read, &shape));
			bench_note(name, "M/s", measure(publish, subscribe, &shape));
		}
		bench_ratio(ratio, name, limit);
	}
	shmq_bus_close(bus);
	return bench_end();
}
