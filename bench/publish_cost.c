/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char question[] =
	"What does a publish cost, and what do others add to it: idle subscribers, topics,\n"
	"clients, a reader that is asleep?";

#define BYTES 64
#define SMALL_BYTES 32 /* what the smallest slot carries */
#define DEPTH 1024     /* of every topic, so that the working set is the same */
#define WINDOW 1024u
#define WINDOWS 512u
#define TOPICS 10000
#define CLIENTS 1000
#define CLIENTS_BUS "thousand"
#define SINGLE_PAUSE_NS 200000 /* long enough to fall asleep again in */

static char payload[BYTES];

static void create(shmq_bus *bus, const char *name, enum shmq_policy policy)
{
	struct shmq_topic_options o = {
		.size = sizeof(o), .depth = DEPTH, .policy = policy, .max_message_bytes = BYTES
	};

	BENCH_OK(shmq_topic_create(bus, name, &o, NULL));
}

static shmq_pub *open_pub(shmq_bus *bus, const char *name)
{
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, name, NULL, &pub));
	return pub;
}

static shmq_sub *open_sub(shmq_bus *bus, const char *name, enum shmq_from from)
{
	struct shmq_sub_options o = { .size = sizeof(o), .from = from };
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, name, &o, &sub));
	return sub;
}

/* ---- what is timed ---------------------------------------------------------- */

/* Messages of a window are equal, so that only publishing is timed; what
 * tells them apart is their seq, and that is verified too. */
static double time_window(shmq_pub *pub, uint64_t seq)
{
	uint64_t at;
	unsigned i;

	bench_fill(payload, BYTES, seq / WINDOW);
	at = bench_tick();
	for (i = 0; i < WINDOW; i++)
		BENCH_OK(shmq_publish(pub, payload, BYTES));
	return (double)(bench_tick() - at) * bench_tick_ns / WINDOW;
}

static int is_message(const struct shmq_msg *msg, uint64_t seq)
{
	char copy[BYTES];

	if (msg->len != BYTES || msg->seq != seq)
		return 0;
	memcpy(copy, msg->data, BYTES);
	return !bench_verify(copy, BYTES, seq / WINDOW);
}

/* Read from `seq` until all before `end` have come or are reported lost. */
static void read_to(shmq_sub *sub, uint64_t seq, uint64_t end)
{
	while (seq < end) {
		struct shmq_msg msg;
		int rc = shmq_receive(sub, &msg, SHMQ_NOWAIT);

		if (rc == SHMQ_EOVERRUN) {
			seq += msg.lost;
			continue;
		}
		if (rc)
			bench_fail("message %llu is missing: %s", (unsigned long long)seq,
				   shmq_strerror(rc));
		if (!is_message(&msg, seq))
			bench_fail("message %llu is torn, doubled or out of order",
				   (unsigned long long)seq);
		seq++;
	}
	if (seq != end)
		bench_fail("%llu messages were sent, and %llu came or were reported lost",
			   (unsigned long long)end, (unsigned long long)seq);
}

/* What is still in the ring of a topic that nobody reads. */
static void read_rest(shmq_bus *bus, const char *name, uint64_t end)
{
	shmq_sub *sub = open_sub(bus, name, SHMQ_FROM_OLDEST);
	struct shmq_sub_stats stats;

	shmq_sub_get_stats(sub, &stats);
	if (!stats.lag)
		bench_fail("no message is left of %llu on %s", (unsigned long long)end, name);
	read_to(sub, end - stats.lag, end);
	shmq_sub_close(sub);
}

static unsigned windows(void)
{
	return bench.smoke ? 4 : WINDOWS;
}

/* ---- idle subscribers --------------------------------------------------------- */

/* They come between the windows of one publisher on one topic: what is
 * compared differs in nothing else. */
static const unsigned crowd[] = { 0, 1, 8, 64 };
#define CROWDS (sizeof(crowd) / sizeof(crowd[0]))
#define IDLE_MAX 64

struct idle {
	const char *name; /* topic */
	unsigned number;
	unsigned crowds; /* of which there are, beginning with the first */
	int reads;       /* after every window; else only at the end */
};

/* To wake all readers after each takes its time. */
static unsigned idle_windows(const struct idle *t)
{
	return t->reads ? 1 + windows() / 8 : windows();
}

static void idle_publisher(void *arg)
{
	const struct idle *t = arg;
	uint64_t *sent = &bench_shared->samples[0];
	shmq_bus *bus = bench_open();
	shmq_pub *pub = open_pub(bus, t->name);
	double value[WINDOWS];
	struct shmq_topic_info info;
	unsigned n = idle_windows(t), c, w, stage = 0;

	BENCH_OK(shmq_pub_get_topic(pub, &info));
	*sent = info.head;
	for (w = 0; w < windows(); w++, *sent += WINDOW) /* warm-up */
		time_window(pub, *sent);
	for (c = 0; c < t->crowds; c++) {
		bench_say_stage(++stage);
		BENCH_OK(shmq_pub_wait_subscribers(pub, crowd[c], SHMQ_FOREVER));
		for (w = 0; w < n; w++) {
			value[w] = time_window(pub, *sent);
			*sent += WINDOW;
			if (!t->reads)
				continue;
			bench_say_stage(++stage);
			BENCH_OK(shmq_flush(pub, SHMQ_FOREVER));
		}
		bench_shared->result[c] = bench_median(value, n);
	}
	bench_say_stage(++stage);
	shmq_bus_close(bus);
}

static void idle_subscriber(void *arg)
{
	const struct idle *t = arg;
	const uint64_t *sent = &bench_shared->samples[0];
	unsigned per_crowd = 1 + (t->reads ? idle_windows(t) : 0), c = 0, stage, last;
	uint64_t from;
	shmq_bus *bus;
	shmq_sub *sub;

	while (crowd[c] <= t->number)
		c++;
	stage = c * per_crowd + 1;
	last = t->crowds * per_crowd + 1;
	bench_await_stage(stage);
	from = *sent;
	bus = bench_open();
	sub = open_sub(bus, t->name, SHMQ_FROM_LATEST);
	while (t->reads && ++stage < last) {
		if ((stage - 1) % per_crowd == 0)
			continue; /* only others come */
		bench_await_stage(stage);
		read_to(sub, from, from + WINDOW);
		/* The last view is given back here. */
		BENCH_OK(shmq_release(sub));
		from += WINDOW;
	}
	bench_await_stage(last);
	read_to(sub, from, *sent);
	shmq_bus_close(bus);
}

static void measure_idle(const char *name, int reads, unsigned crowds)
{
	struct bench_proc proc[1 + IDLE_MAX];
	struct idle t[1 + IDLE_MAX];
	unsigned i, n = 1 + crowd[crowds - 1];
	char figure[64];

	for (i = 0; i < n; i++) {
		t[i] = (struct idle){ name, i - 1, crowds, reads };
		proc[i] = (struct bench_proc){ i ? idle_subscriber : idle_publisher, &t[i], !!i };
	}
	bench_run(proc, n);
	for (i = 0; i < crowds; i++) {
		snprintf(figure, sizeof(figure), "publish.%u_%s_subs.ns", crowd[i], name);
		bench_note(figure, "ns", bench_shared->result[i]);
	}
}

/* ---- topics, clients ---------------------------------------------------------- */

/* A bus each, beside each other for the whole run. */
static const struct scene {
	const char *bus;
	unsigned topics;
} scenes[] = { { "bench", 1 }, { "hundred", 100 }, { "tenthousand", TOPICS } };
#define SCENES (sizeof(scenes) / sizeof(scenes[0]))

static const char *topic_name(unsigned i)
{
	static char name[32];

	snprintf(name, sizeof(name), "topic.%u", i);
	return name;
}

/* The first is the one that is published to; the others are as small as a
 * topic can be.  0 if memory does not suffice. */
static int make_topics(shmq_bus *bus, unsigned n)
{
	struct shmq_topic_options o = {
		.size = sizeof(o), .depth = DEPTH, .slot_bytes = 64, .lock = SHMQ_LOCK_NEVER
	};
	unsigned i;

	create(bus, topic_name(0), SHMQ_BLOCK);
	for (i = 1; i < n; i++) {
		int rc = shmq_topic_create(bus, topic_name(i), &o, NULL);

		if (rc == SHMQ_ENOMEMORY || rc == SHMQ_ELIMIT)
			return 0;
		BENCH_OK(rc);
	}
	return 1;
}

/* One publisher with a handle on each of some buses takes turns. */
struct turns {
	const char *bus[SCENES];
	unsigned n;
	const char *topic;
	unsigned stage; /* at which it begins */
};

static void take_turns(void *arg)
{
	const struct turns *t = arg;
	uint64_t sent[SCENES] = { 0 };
	shmq_pub *pub[SCENES];
	shmq_bus *bus[SCENES];
	double value[WINDOWS];
	unsigned r, b, w;

	bench_await_stage(t->stage);
	for (b = 0; b < t->n; b++) {
		struct shmq_topic_info info;

		bus[b] = bench_open_named(t->bus[b]);
		pub[b] = open_pub(bus[b], t->topic);
		BENCH_OK(shmq_pub_get_topic(pub[b], &info));
		for (sent[b] = info.head, w = 0; w < windows(); w++, sent[b] += WINDOW)
			time_window(pub[b], sent[b]); /* warm-up */
	}
	for (r = 0; r < bench.rounds; r++)
		for (b = 0; b < t->n; b++) {
			/* The first of a turn brings its memory to the caches. */
			for (w = 0; w <= windows(); w++, sent[b] += WINDOW)
				value[w ? w - 1 : 0] = time_window(pub[b], sent[b]);
			memcpy(&bench_shared->samples[r * SCENES + b],
			       &(double){ bench_median(value, windows()) }, sizeof(double));
		}
	for (b = 0; b < t->n; b++) {
		read_rest(bus[b], t->topic, sent[b]);
		shmq_bus_close(bus[b]);
	}
	bench_say_stage(t->stage + 1);
}

static double turn(unsigned round, unsigned b)
{
	double value;

	memcpy(&value, &bench_shared->samples[round * SCENES + b], sizeof(value));
	return value;
}

static void note_turns(const struct turns *t, const unsigned *count, const char *what)
{
	char figure[64];
	unsigned r, b;

	for (r = 0; r < bench.rounds; r++)
		for (b = 0; b < t->n; b++) {
			snprintf(figure, sizeof(figure), "publish.%u_%s.ns", count[b], what);
			bench_note(figure, "ns", turn(r, b));
		}
}

static void measure_topics(unsigned n)
{
	struct turns t = { .n = n, .topic = topic_name(0) };
	struct bench_proc proc = { take_turns, &t, 0 };
	unsigned count[SCENES] = { 0 }, b;

	for (b = 0; b < n; b++) {
		t.bus[b] = scenes[b].bus;
		count[b] = scenes[b].topics;
	}
	bench_run(&proc, 1);
	note_turns(&t, count, "topics");
}

/* To each topic of a bus in turn, which measures the memory. */
#define LAPS 16u /* of TOPICS messages each, which say in which lap they are */

/* What topic i of so many still has of it, whose publisher sent so many. */
static void verify_turns(shmq_bus *bus, unsigned i, unsigned topics, uint64_t head, uint64_t sent)
{
	shmq_sub *sub = open_sub(bus, topic_name(i), SHMQ_FROM_OLDEST);
	uint64_t seq = head - sent;
	struct shmq_msg msg;

	do {
		uint64_t lap;
		char copy[SMALL_BYTES];

		BENCH_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		if (msg.seq < head - sent) /* of another run */
			continue;
		if (seq == head - sent)
			seq = msg.seq; /* the ring has what came last */
		lap = ((seq - (head - sent)) * topics + i) / TOPICS;
		memcpy(copy, msg.data, msg.len < SMALL_BYTES ? msg.len : SMALL_BYTES);
		if (msg.len != SMALL_BYTES || msg.seq != seq ||
		    bench_verify(copy, SMALL_BYTES, lap))
			bench_fail("message %llu on topic %u is torn or another",
				   (unsigned long long)seq, i);
		seq++;
	} while (msg.seq + 1 < head);
	shmq_sub_close(sub);
}

static void publish_in_turn(void *arg)
{
	const struct scene *s = arg;
	unsigned lap, k = 0, i;
	shmq_bus *bus = bench_open_named(s->bus);
	shmq_pub **pub = calloc(s->topics, sizeof(pub[0]));
	double value[LAPS];
	uint64_t at, sent = 0;

	for (i = 0; i < s->topics; i++)
		pub[i] = open_pub(bus, topic_name(i));
	for (lap = 0; lap < LAPS; lap++) {
		bench_fill(payload, SMALL_BYTES, lap);
		at = bench_tick();
		for (i = 0; i < TOPICS; i++) {
			BENCH_OK(shmq_publish(pub[k], payload, SMALL_BYTES));
			if (++k == s->topics)
				k = 0;
		}
		value[lap] = (double)(bench_tick() - at) * bench_tick_ns / TOPICS;
	}
	bench_shared->result[0] = bench_median(value, LAPS);
	for (i = 0; i < s->topics; i++) {
		struct shmq_topic_info info;
		struct shmq_pub_stats stats;

		shmq_pub_get_stats(pub[i], &stats);
		sent += stats.sent;
		BENCH_OK(shmq_pub_get_topic(pub[i], &info));
		verify_turns(bus, i, s->topics, info.head, stats.sent);
		shmq_pub_close(pub[i]);
	}
	if (sent != (uint64_t)LAPS * TOPICS)
		bench_fail("%u messages were sent, and the topics have %llu", LAPS * TOPICS,
			   (unsigned long long)sent);
	shmq_bus_close(bus);
	free(pub);
}

static void measure_in_turn(const struct scene *s)
{
	struct bench_proc proc = { publish_in_turn, (void *)(uintptr_t)s, 0 };
	char figure[64];

	bench_run(&proc, 1);
	snprintf(figure, sizeof(figure), "publish.%u_topics_in_turn.ns", s->topics);
	bench_note(figure, "ns", bench_shared->result[0]);
}

/* A thousand processes that are attached and do nothing. */
static void gather_clients(void *arg)
{
	struct shmq_bus_options o = { .size = sizeof(o),
				      .serve = SHMQ_SERVE_CALLER,
				      .timeout_ns = 60000000000 };
	_Atomic uint64_t *present = &bench_shared->word[1][0];
	unsigned i, n = *(const unsigned *)arg;
	shmq_bus *bus;
	int status;

	for (i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			bench_fail("only %u of %u clients could be forked", i, n);
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		BENCH_OK(shmq_bus_open(CLIENTS_BUS, &o, &bus));
		if (atomic_fetch_add(present, 1) + 1 == n)
			bench_say_stage(1);
		bench_await_stage(2);
		shmq_bus_close(bus);
		_exit(0);
	}
	while (wait(&status) > 0)
		if (status)
			bench_fail("a client failed");
}

static void measure_clients(void)
{
	static const unsigned count[] = { 1, CLIENTS };
	struct turns t = {
		.bus = { bench.bus, CLIENTS_BUS }, .n = 2, .topic = "clients", .stage = 1
	};
	unsigned n = bench.smoke ? 16 : CLIENTS;
	struct bench_proc proc[] = { { take_turns, &t, 0 }, { gather_clients, &n, 1 } };
	shmq_bus *bus = bench_open_named(CLIENTS_BUS);

	create(bus, t.topic, SHMQ_BLOCK);
	shmq_bus_close(bus);
	bench_run(proc, 2);
	note_turns(&t, count, "clients");
}

/* ---- a reader that is asleep ---------------------------------------------------- */

/* What a sleeping reader adds is told by the same publish, in default options, to
 * one that spins and never enters the kernel.  Before it sleeps a reader fences for
 * publishers that wake directly, which interrupts their processors, and what they
 * come back to is colder: what that adds is shown by one that spins and fences
 * as often.  A clock that lets all before it end first also waits for what a
 * program does not: so both are timed as part of a program that goes on, too. */
static const struct single {
	const char *name; /* of topic and figure */
	enum shmq_wait wait;
	enum shmq_wake wake;
	int fences; /* though it does not sleep */
	int quick;
	int goes_on; /* with work of its own, of which the publish is what it adds */
} singles[] = {
	{ "publish.sleeping_reader.spin", SHMQ_WAIT_SPIN, SHMQ_WAKE_DIRECT, 0, 1, 0 },
	{ "publish.sleeping_reader.deferred", SHMQ_WAIT_SLEEP, SHMQ_WAKE_DEFERRED, 0, 1, 0 },
	{ "publish.sleeping_reader.fencing", SHMQ_WAIT_SPIN, SHMQ_WAKE_DEFERRED, 1, 0, 0 },
	{ "publish.sleeping_reader.direct", SHMQ_WAIT_SLEEP, SHMQ_WAKE_DIRECT, 0, 0, 0 },
	{ "publish.sleeping_reader.spin.going_on", SHMQ_WAIT_SPIN, SHMQ_WAKE_DIRECT, 0, 0, 1 },
	{ "publish.sleeping_reader.deferred.going_on", SHMQ_WAIT_SLEEP, SHMQ_WAKE_DEFERRED, 0, 0,
	  1 },
};
#define SINGLES (sizeof(singles) / sizeof(singles[0]))

static uint64_t calls(void)
{
	return bench_amount(1000);
}

#define WARM_UP DEPTH /* a lap, in which the pages are touched for the first time */

/* Without the pause instruction: a hypervisor may take the processor away
 * there, and then what is timed next is what it left of the caches. */
static void pause_between(void)
{
	uint64_t until = bench_tick() + (uint64_t)(SINGLE_PAUSE_NS / bench_tick_ns);

	while (bench_tick() < until)
		;
}

/* Multiplications of which each needs the one before: 30 ns or so. */
static void go_on(uint64_t x)
{
	int i;

	for (i = 0; i < 40; i++) {
		x *= x | 3;
		__asm__ volatile("" : "+r"(x));
	}
}

static void single_reader(void *arg)
{
	const struct single *t = arg;
	struct shmq_sub_options o = { .size = sizeof(o), .wait = t->wait };
	struct shmq_sub_stats stats;
	shmq_bus *bus = bench_open();
	uint64_t i, n = WARM_UP + calls(), slept = 0;
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, t->name, &o, &sub));
	bench_meet(2);
	for (i = 0; i < n; i++) {
		struct shmq_msg msg;
		char copy[BYTES];

		BENCH_OK(shmq_receive(sub, &msg, SHMQ_FOREVER));
		memcpy(copy, msg.data, msg.len < BYTES ? msg.len : BYTES);
		if (msg.len != BYTES || bench_verify(copy, BYTES, i))
			bench_fail("message %llu is torn or out of order", (unsigned long long)i);
		if (t->fences)
			syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
		if (i == WARM_UP) {
			shmq_sub_get_stats(sub, &stats);
			slept = stats.sleeps;
		}
	}
	shmq_sub_get_stats(sub, &stats);
	bench_shared->result[0] = (double)(stats.sleeps - slept) / (double)(n - WARM_UP);
	shmq_bus_close(bus);
}

/* The library's thread, which makes the deferred wakes, stays where the process
 * began, beside the reader. */
static void single_publisher(void *arg)
{
	const struct single *t = arg;
	struct shmq_pub_options o = { .size = sizeof(o), .wake = t->wake };
	shmq_bus *bus = bench_open();
	uint64_t i, n = WARM_UP + calls(), at;
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, t->name, &o, &pub));
	bench_pin(0);
	BENCH_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_FOREVER));
	bench_meet(2);
	for (i = 0; i < n; i++) {
		uint64_t *sample = &bench_shared->samples[i < WARM_UP ? 0 : i - WARM_UP];

		if (i >= WARM_UP)
			pause_between();
		bench_fill(payload, BYTES, i);
		at = bench_tick_ordered();
		BENCH_OK(shmq_publish(pub, payload, BYTES));
		if (t->goes_on)
			go_on(at);
		*sample = bench_tick_ordered() - at;
	}
	bench_shared->sample_count = n - WARM_UP;
	shmq_bus_close(bus);
}

/* The limit of a wake-up by the publisher: the bare system call. */
static _Atomic uint32_t *futex_word(void)
{
	return (_Atomic uint32_t *)&bench_shared->word[2][0];
}

static void futex_reader(void *arg)
{
	uint64_t i, n = calls();

	bench_meet(2);
	for (i = 0; i < n; i++)
		while (atomic_load(futex_word()) <= i) /* may have gone on */
			syscall(SYS_futex, futex_word(), FUTEX_WAIT, (uint32_t)i, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void futex_writer(void *arg)
{
	uint64_t i, n = calls(), at;

	bench_meet(2);
	for (i = 0; i < n; i++) {
		pause_between();
		at = bench_tick_ordered();
		atomic_store(futex_word(), (uint32_t)i + 1);
		futex_wake(futex_word());
		bench_shared->samples[i] = bench_tick_ordered() - at;
	}
	bench_shared->sample_count = n;
}

static void futex_alone(void *arg)
{
	uint64_t i, n = calls(), at;

	for (i = 0; i < n; i++) {
		at = bench_tick_ordered();
		futex_wake(futex_word());
		bench_shared->samples[i] = bench_tick_ordered() - at;
	}
	bench_shared->sample_count = n;
}

/* What a clock that is looked at twice shows of itself, and of a program's work. */
static double own_ticks, work_ticks;

static double clock_ticks(int goes_on)
{
	uint64_t n = 10000, i;

	for (i = 0; i < n; i++) {
		uint64_t at = bench_tick_ordered();

		if (goes_on)
			go_on(at);
		bench_shared->samples[i] = bench_tick_ordered() - at;
	}
	bench_shared->sample_count = n;
	bench_sort_samples();
	return bench_quantile_smooth(0.5);
}

static void note_singles(const char *name, double ticks)
{
	bench_sort_samples();
	bench_note_stat(name, "p50", "ns", bench_tick_ns * (bench_quantile_smooth(0.5) - ticks));
	bench_note_stat(name, "p99", "ns", bench_tick_ns * (bench_quantile_smooth(0.99) - ticks));
}

static void measure_single(const struct single *t)
{
	struct bench_proc proc[] = { { single_publisher, (void *)(uintptr_t)t, 1 },
				     { single_reader, (void *)(uintptr_t)t, 1 } };

	bench_run(proc, 2);
	if (t->wait == SHMQ_WAIT_SLEEP)
		bench_note_stat(t->name, "sleeps", "per_message", bench_shared->result[0]);
	note_singles(t->name, t->goes_on ? work_ticks : own_ticks);
}

static void measure_futex(void)
{
	struct bench_proc pair[] = { { futex_writer, NULL, 0 }, { futex_reader, NULL, 1 } };
	struct bench_proc alone = { futex_alone, NULL, 0 };

	bench_run(pair, 2);
	note_singles("publish.sleeping_reader.direct.limit", own_ticks);
	bench_run(&alone, 1);
	note_singles("publish.sleeping_reader.null_wake", own_ticks);
}

/* ---- all -------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
	unsigned i, r, n;
	int everything;
	shmq_bus *bus;

	bench_init(argc, argv, BENCH_BUS, question);
	everything = !bench.quick || bench.smoke;
	n = bench.smoke ? 2 : SCENES;
	own_ticks = clock_ticks(0);
	work_ticks = clock_ticks(1);
	bus = bench_open();
	create(bus, "lossy", SHMQ_LOSSY);
	create(bus, "reliable", SHMQ_BLOCK);
	create(bus, "clients", SHMQ_BLOCK);
	for (i = 0; i < SINGLES; i++)
		create(bus, singles[i].name, SHMQ_BLOCK);
	for (i = 0; i < n; i++) {
		shmq_bus *other = bench_open_named(scenes[i].bus);

		if (!make_topics(other, scenes[i].topics)) {
			printf("label publish.%u_topics there is no memory for so many\n",
			       scenes[i].topics);
			n = i;
		}
		shmq_bus_close(other);
	}
	for (r = 0; r < bench.rounds; r++) {
		measure_idle("lossy", 0, CROWDS);
		if (everything)
			measure_idle("reliable", 1, CROWDS);
		for (i = 0; i < SINGLES; i++)
			if (singles[i].quick || everything)
				measure_single(&singles[i]);
		if (everything)
			measure_futex();
	}
	measure_topics(n);
	if (everything) {
		for (r = 0; r < bench.rounds; r += 3)
			for (i = 0; i < n; i++)
				measure_in_turn(&scenes[i]);
		measure_clients();
	}
	shmq_bus_close(bus);
	bench_ratio("publish.64_lossy_subs.vs_0", "publish.64_lossy_subs.ns",
		    "publish.0_lossy_subs.ns");
	if (n == SCENES)
		bench_ratio("publish.10000_topics.vs_1", "publish.10000_topics.ns",
			    "publish.1_topics.ns");
	if (everything)
		bench_ratio("publish.1000_clients.vs_1", "publish.1000_clients.ns",
			    "publish.1_clients.ns");
	bench_ratio("publish.sleeping_reader.deferred.vs_spin",
		    "publish.sleeping_reader.deferred.p50", "publish.sleeping_reader.spin.p50");
	bench_ratio("publish.sleeping_reader.deferred.p99.vs_spin",
		    "publish.sleeping_reader.deferred.p99", "publish.sleeping_reader.spin.p99");
	if (everything) {
		bench_ratio("publish.sleeping_reader.deferred.vs_fencing",
			    "publish.sleeping_reader.deferred.p50",
			    "publish.sleeping_reader.fencing.p50");
		bench_ratio("publish.sleeping_reader.deferred.going_on.vs_spin",
			    "publish.sleeping_reader.deferred.going_on.p50",
			    "publish.sleeping_reader.spin.going_on.p50");
	}
	return bench_end();
}
