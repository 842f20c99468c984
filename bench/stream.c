/* SPDX-License-Identifier: MIT */
#include "common.h"
#include "peers.h"
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char question[] =
	"How many messages a second go from one process to another, compared with copying the\n"
	"same bytes in on one core and out on the other?  And how many instructions and cache\n"
	"lines does each take?";

struct shape {
	const char *name;
	size_t bytes;
	uint32_t slot_bytes;
	enum shmq_mode mode;
	uint64_t messages;
	int quick; /* part of the quick run */
};

static const struct shape shapes[] = {
	{ "stream.1p1c.32", 32, 64, SHMQ_EXCLUSIVE, 2000000, 0 },
	{ "stream.1p1c.64", 64, 128, SHMQ_EXCLUSIVE, 2000000, 1 },
	{ "stream.1p1c.64.shared", 64, 128, SHMQ_SHARED, 2000000, 1 },
	{ "stream.1p1c.256", 256, 320, SHMQ_EXCLUSIVE, 1000000, 0 },
	{ "stream.1p1c.1024", 1024, 1088, SHMQ_EXCLUSIVE, 300000, 1 },
	{ "stream.1p1c.64K", 65536, 128, SHMQ_EXCLUSIVE, 4000, 0 },
	{ "stream.1p1c.1M", 1 << 20, 128, SHMQ_EXCLUSIVE, 200, 0 },
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

#define BATCH 32u                /* at most so many messages */
#define BATCH_BYTES (256u << 10) /* and bytes, but one message */
#define PEER_NS 50000000         /* a slow peer sends for so long */
#define FETCH_LINES 8u           /* how far ahead the limits fetch lines for writing */
#define RING_BYTES (4u << 20)    /* limits and rings take as much memory */
#define LARGE 4096u              /* beside what is larger a look at the clock is nothing */

static char buffer[1 << 20] __attribute__((aligned(4096)));

static void wrong_message(uint64_t i)
{
	bench_fail("message %llu is torn or out of order", (unsigned long long)i);
}

BENCH_ALWAYS void fetch_for_writing(const char *p)
{
#if defined(__x86_64__)
	__asm__ __volatile__("prefetchw %0" : : "m"(*p));
#else
	__builtin_prefetch(p, 1);
#endif
}

static uint64_t messages(const struct shape *s)
{
	return bench.smoke ? s->messages / 100 + BATCH : s->messages;
}

/* The first tenth is warm-up: by then all memory has been touched. */
static uint64_t warm_up(const struct shape *s)
{
	return messages(s) / 10;
}

static void finish(uint64_t messages, uint64_t start)
{
	bench_shared->result[0] = (double)messages * 1e3 / (double)(bench_now() - start);
}

/* ---- the limits -------------------------------------------------------- */

/* Copying in and out, with one flag for a block of messages, so that none can
 * be had before its block.  Messages lie densely, which no ring can have; or
 * each has lines of its own and begins behind a header, as in a slot: what a
 * ring with the same slots could have if it took nothing but to copy. */
#define BLOCK_BYTES (16u << 10)
#define HEADER_BYTES 16u
#define LINE_BYTES 64u

static _Atomic uint64_t *flag_at(uint64_t block, int ro)
{
	const struct bench_shared *s = ro ? bench_shared_ro : bench_shared;

	return (_Atomic uint64_t *)(uintptr_t)(s->samples + block * 8);
}

static _Atomic uint64_t *words_read(void)
{
	return &bench_shared->word[0][0];
}

/* What a message takes, and where in it the payload is. */
struct place {
	size_t stride, off;
};

BENCH_ALWAYS struct place dense(size_t bytes)
{
	return (struct place){ bytes, 0 };
}

BENCH_ALWAYS struct place in_lines(size_t bytes)
{
	size_t lines = (bytes + HEADER_BYTES + LINE_BYTES - 1) / LINE_BYTES;

	return (struct place){ lines * LINE_BYTES, HEADER_BYTES };
}

BENCH_ALWAYS uint64_t per_block(struct place p)
{
	return p.stride < BLOCK_BYTES ? BLOCK_BYTES / p.stride : 1;
}

BENCH_ALWAYS uint64_t block_count(struct place p)
{
	return RING_BYTES / (per_block(p) * p.stride);
}

BENCH_ALWAYS void limit_write_n(size_t bytes, struct place p, uint64_t n)
{
	uint64_t blocks = block_count(p), each = per_block(p), limit = blocks, b, i = 0, k;
	char *end = bench_shared->area + blocks * each * p.stride;

	for (b = 0; i < n; b++) {
		char *at = bench_shared->area + b % blocks * each * p.stride;

		while (b >= limit)
			limit = atomic_load_explicit(words_read(), memory_order_acquire) + blocks;
		for (k = 0; k < each && i < n; k++, i++, at += p.stride) {
			char *ahead = at + FETCH_LINES * LINE_BYTES;
			size_t line;

			for (line = 0; bytes <= 1024 && line < p.stride; line += LINE_BYTES)
				fetch_for_writing(ahead + line < end ? ahead + line :
								       bench_shared->area);
			bench_fill(buffer, bytes, i);
			memcpy(at + p.off, buffer, bytes);
		}
		atomic_store_explicit(flag_at(b % blocks, 0), b + 1, memory_order_release);
	}
}

/* Verified where it lies, or copied out first, as whoever keeps a message does. */
enum reader { COPIES_OUT, IN_PLACE };

BENCH_ALWAYS void take_message(const char *data, size_t bytes, uint64_t i, enum reader reader)
{
	if (reader == COPIES_OUT) {
		memcpy(buffer, data, bytes);
		data = buffer;
	}
	if (bench_verify(data, bytes, i))
		wrong_message(i);
}

BENCH_ALWAYS void limit_read_n(size_t bytes, struct place p, uint64_t warm, uint64_t n,
			       enum reader reader)
{
	uint64_t blocks = block_count(p), each = per_block(p), b, i = 0, k, start = 0, from = 0;

	for (b = 0; i < n; b++) {
		const char *at = bench_shared_ro->area + b % blocks * each * p.stride;

		if (!start && i >= warm) {
			start = bench_now();
			from = i;
		}
		while (atomic_load_explicit(flag_at(b % blocks, 1), memory_order_acquire) != b + 1)
			bench_relax();
		for (k = 0; k < each && i < n; k++, i++, at += p.stride)
			take_message(at + p.off, bytes, i, reader);
		atomic_store_explicit(words_read(), b + 1, memory_order_release);
	}
	finish(n - from, start);
}

/* Known lengths, as a program would have them. */
#define BY_LENGTH(s, call) \
	do { \
		if ((s)->bytes == 32) \
			call(32); \
		else if ((s)->bytes == 64) \
			call(64); \
		else if ((s)->bytes == 1024) \
			call(1024); \
		else \
			call((s)->bytes); \
	} while (0)

#define LIMIT(name) \
	static void name##_write(void *arg) \
	{ \
		const struct shape *s = arg; \
\
		bench_meet(2); \
		BY_LENGTH(s, WRITE_##name); \
	} \
	static void name##_read(void *arg) \
	{ \
		const struct shape *s = arg; \
\
		bench_meet(2); \
		BY_LENGTH(s, READ_##name); \
	}
#define WRITE_limit(bytes) limit_write_n(bytes, dense(bytes), messages(s))
#define READ_limit(bytes) limit_read_n(bytes, dense(bytes), warm_up(s), messages(s), COPIES_OUT)
#define WRITE_in_place(bytes) WRITE_limit(bytes)
#define READ_in_place(bytes) limit_read_n(bytes, dense(bytes), warm_up(s), messages(s), IN_PLACE)
#define WRITE_lines(bytes) limit_write_n(bytes, in_lines(bytes), messages(s))
#define READ_lines(bytes) limit_read_n(bytes, in_lines(bytes), warm_up(s), messages(s), COPIES_OUT)
LIMIT(limit)
LIMIT(in_place)
LIMIT(lines)

/* ---- shmq --------------------------------------------------------------- */

static shmq_pub *open_pub(const struct shape *s, shmq_bus **bus)
{
	shmq_pub *pub;

	*bus = bench_open();
	BENCH_OK(shmq_pub_open(*bus, s->name, NULL, &pub));
	BENCH_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_FOREVER));
	bench_meet(2);
	return pub;
}

static void close_pub(shmq_pub *pub, shmq_bus *bus)
{
	BENCH_OK(shmq_flush(pub, SHMQ_FOREVER));
	shmq_bus_close(bus);
}

BENCH_ALWAYS void publish_n(shmq_pub *pub, size_t bytes, uint64_t from, uint64_t n)
{
	uint64_t i;

	for (i = from; i < from + n; i++) {
		bench_fill(buffer, bytes, i);
		BENCH_OK(shmq_publish(pub, buffer, bytes));
	}
}

static void publish(void *arg)
{
	const struct shape *s = arg;
	shmq_bus *bus;
	shmq_pub *pub = open_pub(s, &bus);

#define CALL(bytes) publish_n(pub, bytes, 0, messages(s))
	BY_LENGTH(s, CALL);
#undef CALL
	close_pub(pub, bus);
}

static void publish_batch(void *arg)
{
	const struct shape *s = arg;
	struct shmq_msg msg[BATCH];
	shmq_bus *bus;
	shmq_pub *pub = open_pub(s, &bus);
	uint64_t i = 0, each = BATCH_BYTES / s->bytes, k, n;

	each = each < 1 ? 1 : each < BATCH ? each : BATCH;
	for (k = 0; k < each; k++)
		msg[k] = (struct shmq_msg){ .data = buffer + k * s->bytes, .len = s->bytes };
	while (i < messages(s)) {
		n = messages(s) - i < each ? messages(s) - i : each;
		for (k = 0; k < n; k++)
			bench_fill(buffer + k * s->bytes, s->bytes, i + k);
		if (shmq_publish_batch(pub, msg, n, 0) != (ssize_t)n)
			bench_fail("a batch was not published whole");
		i += n;
	}
	close_pub(pub, bus);
}

static void publish_claimed(void *arg)
{
	const struct shape *s = arg;
	shmq_bus *bus;
	shmq_pub *pub = open_pub(s, &bus);
	uint64_t i;

	for (i = 0; i < messages(s); i++) {
		void *data;

		BENCH_OK(shmq_claim(pub, s->bytes, &data));
		bench_fill(data, s->bytes, i);
		BENCH_OK(shmq_commit(pub, NULL));
	}
	close_pub(pub, bus);
}

static shmq_sub *open_sub(const struct shape *s, shmq_bus **bus)
{
	shmq_sub *sub;

	*bus = bench_open();
	BENCH_OK(shmq_sub_open(*bus, s->name, NULL, &sub));
	bench_meet(2);
	return sub;
}

BENCH_ALWAYS void receive_n(shmq_sub *sub, size_t bytes, uint64_t from, uint64_t n)
{
	struct shmq_msg msg;
	uint64_t i;

	for (i = from; i < from + n; i++) {
		int rc = shmq_receive(sub, &msg, SHMQ_FOREVER);

		if (rc || msg.len != bytes)
			bench_fail("message %llu: %s", (unsigned long long)i, shmq_strerror(rc));
		take_message(msg.data, bytes, i, COPIES_OUT);
	}
}

static void subscribe(void *arg)
{
	const struct shape *s = arg;
	uint64_t start, warm = warm_up(s);
	shmq_bus *bus;
	shmq_sub *sub = open_sub(s, &bus);

#define CALL(bytes) receive_n(sub, bytes, 0, warm)
	BY_LENGTH(s, CALL);
#undef CALL
	start = bench_now();
#define CALL(bytes) receive_n(sub, bytes, warm, messages(s) - warm)
	BY_LENGTH(s, CALL);
#undef CALL
	finish(messages(s) - warm, start);
	shmq_bus_close(bus);
}

/* As a program does that reads a stream. */
BENCH_ALWAYS int verify_n(uint64_t *next, const struct shmq_msg *msg, size_t bytes,
			  enum reader reader)
{
	uint64_t i = (*next)++;

	if (msg->len != bytes)
		wrong_message(i);
	take_message(msg->data, bytes, i, reader);
	return 0;
}

static size_t polled_bytes;

#define VERIFIER(name, bytes) \
	static int copy_##name(void *next, const struct shmq_msg *msg) \
	{ \
		return verify_n(next, msg, bytes, COPIES_OUT); \
	} \
	static int verify_##name(void *next, const struct shmq_msg *msg) \
	{ \
		return verify_n(next, msg, bytes, IN_PLACE); \
	}
VERIFIER(32, 32)
VERIFIER(64, 64)
VERIFIER(1024, 1024)
VERIFIER(any, polled_bytes)

static shmq_handler *verifier(size_t bytes, enum reader reader)
{
	polled_bytes = bytes;
#define CHOOSE(name) (reader == COPIES_OUT ? copy_##name : verify_##name)
	return bytes == 32   ? CHOOSE(32) :
	       bytes == 64   ? CHOOSE(64) :
	       bytes == 1024 ? CHOOSE(1024) :
			       CHOOSE(any);
#undef CHOOSE
}

/* Up to message `end`, or a few more. */
static void poll_to(shmq_sub *sub, shmq_handler *verify, uint64_t *next, uint64_t end)
{
	while (*next < end)
		BENCH_OK(shmq_poll(sub, verify, next, BATCH, SHMQ_FOREVER));
}

BENCH_ALWAYS void poll_all(const struct shape *s, enum reader reader)
{
	shmq_handler *verify = verifier(s->bytes, reader);
	uint64_t start, from, next = 0;
	shmq_bus *bus;
	shmq_sub *sub = open_sub(s, &bus);

	poll_to(sub, verify, &next, warm_up(s));
	from = next;
	start = bench_now();
	poll_to(sub, verify, &next, messages(s));
	finish(messages(s) - from, start);
	shmq_bus_close(bus);
}

static void subscribe_polling(void *arg)
{
	poll_all(arg, COPIES_OUT);
}

static void subscribe_in_place(void *arg)
{
	poll_all(arg, IN_PLACE);
}

/* Both ends in one process and all in its caches: what publishing and receiving
 * take by themselves.  The slower of the two is about what a stream could be. */
#define ALONE_BLOCK 256u
#define ALONE_BEHIND 256u /* the reader stays so far behind, as in a stream */

static void alone(void *arg)
{
	const struct shape *s = arg;
	shmq_bus *bus = bench_open();
	uint64_t took[2] = { 0, 0 }, i, next = 0;
	shmq_handler *verify = verifier(s->bytes, COPIES_OUT);
	shmq_pub *pub;
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, s->name, NULL, &sub));
	BENCH_OK(shmq_pub_open(bus, s->name, NULL, &pub));
#define CALL(bytes) publish_n(pub, bytes, 0, ALONE_BEHIND)
	BY_LENGTH(s, CALL);
#undef CALL
	for (i = 0; i < messages(s); i += ALONE_BLOCK) {
		uint64_t start = bench_now(), between;

#define CALL(bytes) publish_n(pub, bytes, i + ALONE_BEHIND, ALONE_BLOCK)
		BY_LENGTH(s, CALL);
#undef CALL
		between = bench_now();
		poll_to(sub, verify, &next, i + ALONE_BLOCK);
		took[0] += between - start;
		took[1] += bench_now() - between;
	}
	bench_shared->result[0] = (double)i * 1e3 / (double)(took[0] > took[1] ? took[0] : took[1]);
	shmq_bus_close(bus);
}

/* ---- counting ------------------------------------------------------------ */

/* What a message takes without a clock: the steps of both ends in turn, in one
 * process, over a block of the limits. */
static uint64_t counted(const struct shape *s)
{
	return bench.smoke ? 16 : per_block(dense(s->bytes));
}

#define COUNT(name, begin, write, read) \
	static void name(void *arg) \
	{ \
		const struct shape *s = arg; \
		struct bench_trace sum[BENCH_STEPS] = { 0 }; \
		uint64_t n = counted(s); \
\
		begin(s); \
		bench_trace_begin(); \
		bench_trace_on(0, &sum[BENCH_PUT]); \
		BY_LENGTH(s, write); \
		bench_trace_off(); \
		bench_trace_on(1, &sum[BENCH_GET]); \
		BY_LENGTH(s, read); \
		bench_trace_off(); \
		bench_trace_finish(sum, n); \
	}

static shmq_bus *counted_bus;
static shmq_pub *counted_pub;
static shmq_sub *counted_sub;
static shmq_handler *counted_verify;
static uint64_t counted_next;

static void begin_nothing(const struct shape *s)
{
}

/* No other thread is to touch what is traced, and all has been mapped. */
static void begin_shmq(const struct shape *s)
{
	struct shmq_bus_options bo = { .size = sizeof(bo), .serve = SHMQ_SERVE_CALLER };

	BENCH_OK(shmq_bus_open(bench.bus, &bo, &counted_bus));
	BENCH_OK(shmq_sub_open(counted_bus, s->name, NULL, &counted_sub));
	BENCH_OK(shmq_pub_open(counted_bus, s->name, NULL, &counted_pub));
	counted_verify = verifier(s->bytes, COPIES_OUT);
	publish_n(counted_pub, s->bytes, 0, BATCH);
	poll_to(counted_sub, counted_verify, &counted_next, BATCH);
}

#define COUNT_WRITE_limit(bytes) limit_write_n(bytes, dense(bytes), n)
#define COUNT_READ_limit(bytes) limit_read_n(bytes, dense(bytes), 0, n, COPIES_OUT)
#define COUNT_WRITE_lines(bytes) limit_write_n(bytes, in_lines(bytes), n)
#define COUNT_READ_lines(bytes) limit_read_n(bytes, in_lines(bytes), 0, n, COPIES_OUT)
#define COUNT_WRITE_shmq(bytes) publish_n(counted_pub, bytes, BATCH, n)
#define COUNT_READ_shmq(bytes) poll_to(counted_sub, counted_verify, &counted_next, BATCH + n)
COUNT(count_limit, begin_nothing, COUNT_WRITE_limit, COUNT_READ_limit)
COUNT(count_lines, begin_nothing, COUNT_WRITE_lines, COUNT_READ_lines)
COUNT(count_shmq, begin_shmq, COUNT_WRITE_shmq, COUNT_READ_shmq)

/* ---- peers ---------------------------------------------------------------- */

static const struct peer *peer;
static struct peer_channel channel;

/* Of the slow ones only as many as fit in some time. */
BENCH_ALWAYS void peer_write_n(const struct shape *s, enum peer_use use)
{
	struct peer_end end = bench_peer_open(peer, PEER_SENDER, &channel);
	uint64_t until, i, n = messages(s);
	void *room;

	bench_meet(2);
	until = bench_now() + PEER_NS;
	for (i = 0; i < n; i++) {
		if (i + 1 < n && i % (s->bytes > LARGE ? 1 : 32) == 0 && bench_now() > until) {
			n = i + 1;
			bench_say_total(n);
		}
		room = use == PEER_IN_PLACE ? bench_peer_loan(&end, s->bytes) : buffer;
		bench_fill(room, s->bytes, i);
		if (use == PEER_IN_PLACE)
			bench_peer_publish(&end, room);
		else
			bench_peer_send(&end, room, s->bytes);
	}
	bench_peer_close(&end);
}

BENCH_ALWAYS void peer_read_n(const struct shape *s, enum peer_use use)
{
	struct peer_end end = bench_peer_open(peer, PEER_RECEIVER, &channel);
	uint64_t i, start, from = 0, warm = warm_up(s) / 10; /* for slow ones, too */

	bench_meet(2);
	start = bench_now();
	for (i = 0; i < messages(s) && !(i && bench_is_total(i)); i++) {
		const void *message = buffer;

		if (i == warm) {
			start = bench_now();
			from = i;
		}
		if (use == PEER_IN_PLACE)
			message = bench_peer_take(&end, s->bytes);
		else
			bench_peer_receive(&end, buffer, s->bytes);
		if (bench_verify(message, s->bytes, i))
			wrong_message(i);
		if (use == PEER_IN_PLACE)
			peer->release(end.end, message);
	}
	finish(i - from, start);
	bench_peer_close(&end);
}

#define PEER_USE(name, use) \
	static void name##_write(void *arg) \
	{ \
		peer_write_n(arg, use); \
	} \
	static void name##_read(void *arg) \
	{ \
		peer_read_n(arg, use); \
	}
PEER_USE(peer, PEER_COPIES)
PEER_USE(peer_in_place, PEER_IN_PLACE)

/* ---- measuring ------------------------------------------------------------- */

/* b may be NULL: then a is alone. */
static void measure(const struct shape *s, const char *who, void (*a)(void *), void (*b)(void *))
{
	struct bench_proc proc[] = { { a, (void *)(uintptr_t)s, 0 },
				     { b, (void *)(uintptr_t)s, 1 } };
	char name[96];

	memset(bench_shared->samples, 0, sizeof(bench_shared->samples)); /* flags */
	bench_run(proc, b ? 2 : 1);
	snprintf(name, sizeof(name), "%s%s", s->name, who);
	bench_note(name, "M/s", bench_shared->result[0]);
}

static void measure_peers(const struct shape *s, const char *kind, enum peer_use use)
{
	const struct peer_channel any = { .bytes = s->bytes, .senders = 1, .receivers = 1 };
	char figures[64], who[96];

	snprintf(figures, sizeof(figures), "%s%s", s->name, kind);
	for (peer = NULL; (peer = bench_next_peer(peer, figures, &any, use));) {
		channel = bench_channel(s->bytes, 1, 1, bench_peer_polls(peer));
		snprintf(who, sizeof(who), "%s%s", kind, bench_peer_who(peer));
		if (use == PEER_IN_PLACE)
			measure(s, who, peer_in_place_write, peer_in_place_read);
		else
			measure(s, who, peer_write, peer_read);
	}
}

static int is_inline(const struct shape *s)
{
	return s->bytes + HEADER_BYTES <= s->slot_bytes;
}

static void one_round(const struct shape *s)
{
	measure(s, ".limit", limit_write, limit_read);
	if (is_inline(s)) {
		measure(s, ".lines", lines_write, lines_read);
		measure(s, ".alone", alone, NULL);
	}
	measure(s, ".rate", publish, subscribe_polling);
	measure(s, ".receive.rate", publish, subscribe);
	measure(s, ".in_place.limit", in_place_write, in_place_read);
	measure(s, ".in_place.rate", publish, subscribe_in_place);
	if (s->mode == SHMQ_EXCLUSIVE)
		measure_peers(s, "", PEER_COPIES);
	if (bench.quick || s->mode == SHMQ_SHARED)
		return;
	measure(s, ".batch.rate", publish_batch, subscribe_polling);
	measure(s, ".zerocopy.rate", publish_claimed, subscribe_in_place);
	measure_peers(s, ".zerocopy", PEER_IN_PLACE);
}

static void note_counts(const struct shape *s, const char *who, void (*run)(void *))
{
	memset(bench_shared->samples, 0, sizeof(bench_shared->samples)); /* flags */
	bench_trace_note(s->name, who, run, s);
}

/* Of what is promised: the others are as it is.  Each instruction takes 15 us here. */
static void count_messages(void)
{
	const struct shape *s;

	if ((bench.quick && !bench.smoke) || !bench_trace_can("stream"))
		return;
	for (s = shapes; s < shapes + SHAPES; s++) {
		if (!s->quick)
			continue;
		note_counts(s, ".limit", count_limit);
		note_counts(s, ".lines", count_lines);
		note_counts(s, "", count_shmq);
	}
}

int main(int argc, char **argv)
{
	char name[64], of[64], to[64];
	unsigned i, r;
	shmq_bus *bus;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	for (i = 0; i < SHAPES; i++) {
		struct shmq_topic_options o = { .size = sizeof(o),
						.slot_bytes = shapes[i].slot_bytes,
						.depth = is_inline(&shapes[i]) ?
								 RING_BYTES / shapes[i].slot_bytes :
								 0,
						.mode = shapes[i].mode,
						.max_message_bytes = shapes[i].bytes };

		BENCH_OK(shmq_topic_create(bus, shapes[i].name, &o, NULL));
	}
	for (r = 0; r < bench.rounds; r++)
		for (i = 0; i < SHAPES; i++)
			if (shapes[i].quick || !bench.quick)
				one_round(&shapes[i]);
	count_messages();
	shmq_bus_close(bus);
	for (i = 0; i < SHAPES; i++) {
		if (bench.quick && !shapes[i].quick)
			continue;
		snprintf(name, sizeof(name), "%s.vs_limit", shapes[i].name);
		snprintf(of, sizeof(of), "%s.rate", shapes[i].name);
		snprintf(to, sizeof(to), "%s.limit", shapes[i].name);
		bench_ratio(name, of, to);
		snprintf(name, sizeof(name), "%s.in_place.vs_limit", shapes[i].name);
		snprintf(of, sizeof(of), "%s.in_place.rate", shapes[i].name);
		snprintf(to, sizeof(to), "%s.in_place.limit", shapes[i].name);
		bench_ratio(name, of, to);
		snprintf(of, sizeof(of), "%s.rate", shapes[i].name);
		snprintf(to, sizeof(to), "%s.lines", shapes[i].name);
		snprintf(name, sizeof(name), "%s.vs_lines", shapes[i].name);
		if (bench_has(to))
			bench_ratio(name, of, to);
		snprintf(to, sizeof(to), "%s.alone", shapes[i].name);
		snprintf(name, sizeof(name), "%s.vs_alone", shapes[i].name);
		if (bench_has(to))
			bench_ratio(name, of, to);
	}
	return bench_end();
}
