/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char question[] =
	"How long does a process that is not on the bus yet take to its first message, and what\n"
	"of that is opening the bus, a publisher, a subscriber?  And how long does an answer of the\n"
	"supervisor take, with nothing else to do, and while ten thousand connect to it a second?";

#define BYTES 64
#define MESSAGES 256 /* that are there already */

static const char topic[] = "attach", own_topic[] = "attach.own";

/* A way of being a client. */
static const struct way {
	const char *name;
	enum shmq_serve_mode serve;
	int threaded; /* before it attaches */
} ways[] = {
	{ "attach", SHMQ_SERVE_THREAD, 0 },
	{ "attach.caller", SHMQ_SERVE_CALLER, 0 },
	{ "attach.threaded", SHMQ_SERVE_THREAD, 1 },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* The times a process notes, and how many pages it was given up to its first message. */
enum { START, BUS, SUB, MESSAGE, PUB_BUS, PUB, PAGES, TIMES };

static uint64_t *times(unsigned process, unsigned way)
{
	return &bench_shared->samples[(process * WAYS + way) * TIMES];
}

/* With threads it takes so long that a tenth has to do. */
static unsigned processes(const struct way *way)
{
	unsigned n = bench.smoke ? 10 : bench.quick ? 50 : 200;

	return way->threaded ? n / 10 : n;
}

/* ---- a fresh process -------------------------------------------------------------- */

static void *idle_thread(void *arg)
{
	pause();
	return NULL;
}

static uint64_t page_faults(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)r.ru_minflt;
}

static void receive_all(shmq_sub *sub, uint64_t *at)
{
	struct shmq_msg msg;
	char copy[BYTES];
	uint64_t i;

	for (i = 0; i < MESSAGES; i++) {
		BENCH_OK(shmq_receive(sub, &msg, SHMQ_FOREVER));
		if (!i) {
			at[MESSAGE] = bench_now();
			at[PAGES] = page_faults() - at[PAGES];
		}
		memcpy(copy, msg.data, msg.len < BYTES ? msg.len : BYTES);
		if (msg.len != BYTES || msg.seq != i || bench_verify(copy, BYTES, i))
			bench_fail("message %llu is torn or out of order", (unsigned long long)i);
	}
	if (shmq_receive(sub, &msg, SHMQ_NOWAIT) != SHMQ_EEMPTY)
		bench_fail("more messages came than were sent");
}

/* The first handle of a process costs more than the next, so subscriber and
 * publisher are opened by one each. */
static void attach_subscriber(const struct way *way, uint64_t *at)
{
	struct shmq_bus_options bo = { .size = sizeof(bo), .serve = way->serve };
	struct shmq_sub_options so = { .size = sizeof(so), .from = SHMQ_FROM_OLDEST };
	shmq_bus *bus;
	shmq_sub *sub;

	at[PAGES] = page_faults();
	at[START] = bench_now();
	BENCH_OK(shmq_bus_open(bench.bus, &bo, &bus));
	at[BUS] = bench_now();
	BENCH_OK(shmq_sub_open(bus, topic, &so, &sub));
	at[SUB] = bench_now();
	receive_all(sub, at);
	shmq_bus_close(bus);
}

static void attach_publisher(const struct way *way, uint64_t *at)
{
	struct shmq_bus_options bo = { .size = sizeof(bo), .serve = way->serve };
	shmq_bus *bus;
	shmq_pub *pub;

	BENCH_OK(shmq_bus_open(bench.bus, &bo, &bus));
	at[PUB_BUS] = bench_now();
	BENCH_OK(shmq_pub_open(bus, own_topic, NULL, &pub));
	at[PUB] = bench_now();
	shmq_bus_close(bus);
}

static void in_fresh_process(const struct way *way, uint64_t *at,
			     void (*run)(const struct way *way, uint64_t *at))
{
	pthread_t thread;
	pid_t pid = fork();
	int status;

	if (pid < 0)
		bench_fail("fork failed");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (way->threaded && pthread_create(&thread, NULL, idle_thread, NULL))
			bench_fail("no thread can be made");
		run(way, at);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		bench_fail("a process that attached failed");
}

static void one_by_one(void *arg)
{
	unsigned i, w;

	bench_await_stage(1);
	for (i = 0; i < processes(&ways[0]); i++)
		for (w = 0; w < WAYS; w++) {
			if (i >= processes(&ways[w]))
				continue;
			in_fresh_process(&ways[w], times(i, w), attach_subscriber);
			in_fresh_process(&ways[w], times(i, w), attach_publisher);
		}
	bench_say_stage(2);
}

/* The publisher that is there already. */
static void publish_first(void *arg)
{
	shmq_bus *bus = bench_open();
	char buf[BYTES];
	shmq_pub *pub;
	uint64_t i;

	BENCH_OK(shmq_pub_open(bus, topic, NULL, &pub));
	for (i = 0; !*(int *)arg && i < MESSAGES; i++) {
		bench_fill(buf, BYTES, i);
		BENCH_OK(shmq_publish(pub, buf, BYTES));
	}
	bench_say_stage(1);
	bench_await_stage(2);
	shmq_bus_close(bus);
}

/* ---- beside those who only connect -------------------------------------------------- */

#define FLOOD_NS 100000 /* between two connections */

static uint64_t *answers(unsigned flooded)
{
	return &bench_shared->samples[flooded * bench_amount(2000)];
}

static void ask(shmq_bus *bus, uint64_t *ns)
{
	struct shmq_plan plan;
	uint64_t i, began;

	for (i = 0; i < bench_amount(2000); i++) {
		began = bench_now();
		BENCH_OK(shmq_topic_plan(bus, "attach.none", NULL, &plan));
		ns[i] = bench_now() - began;
	}
}

static void ask_in_flood(void *arg)
{
	shmq_bus *bus = bench_open();
	uint64_t began;

	ask(bus, answers(0));
	bench_say_stage(1);
	bench_await_stage(2);
	began = bench_now();
	ask(bus, answers(1));
	bench_shared->stop = 1;
	bench_shared->result[0] = (double)(bench_now() - began) / 1e9;
	shmq_bus_close(bus);
}

static void connect_again_and_again(void *arg)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	uint64_t due, n = 0;
	int fd;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s.sock", getenv("SHMQ_RUNTIME_DIR"),
		 bench.bus);
	bench_await_stage(1);
	due = bench_now();
	while (!bench_shared->stop) {
		if (n == 100)
			bench_say_stage(2);
		if (bench_now() < due)
			continue;
		due += FLOOD_NS;
		fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)))
			bench_fail("a connection was refused");
		close(fd);
		n++;
	}
	bench_shared->result[1] = (double)n;
}

static void measure_answers(void)
{
	static const char *const figure[] = { "attach.answer_us", "attach.answer_flooded_us" };
	struct bench_proc proc[] = { { ask_in_flood, NULL, 0 },
				     { connect_again_and_again, NULL, 1 } };
	unsigned n = (unsigned)bench_amount(2000), i, k;
	static double us[2000];

	bench_run(proc, 2);
	for (k = 0; k < 2; k++) {
		for (i = 0; i < n; i++)
			us[i] = (double)answers(k)[i] / 1e3;
		bench_note(figure[k], "us", bench_median(us, n));
		bench_note_stat(figure[k], "p99", "us", us[n - 1 - n / 100]);
	}
	bench_note("attach.flood_rate", "/s", bench_shared->result[1] / bench_shared->result[0]);
}

/* ---- measuring -------------------------------------------------------------------- */

static void note_step(const char *figure, unsigned w, int from, int to)
{
	unsigned n = processes(&ways[w]), i;
	double us[200];

	for (i = 0; i < n; i++)
		us[i] = (double)(times(i, w)[to] - times(i, w)[from]) / 1e3;
	bench_note(figure, "us", bench_median(us, n));
	if (n >= 50)
		bench_note_stat(figure, "p99", "us", us[n - 1 - n / 100]);
}

static void note_pages(unsigned w)
{
	unsigned n = processes(&ways[w]), i;
	double pages[200];

	for (i = 0; i < n; i++)
		pages[i] = (double)times(i, w)[PAGES];
	bench_note_stat(ways[w].name, "page_faults", "faults", bench_median(pages, n));
}

static void note_way(unsigned w)
{
	static const struct {
		const char *name;
		int from, to;
	} steps[] = { { "first_message_us", START, MESSAGE },
		      { "open_bus_us", START, BUS },
		      { "open_sub_us", BUS, SUB },
		      { "open_pub_us", PUB_BUS, PUB } };
	char figure[64];
	unsigned i;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		snprintf(figure, sizeof(figure), "%s.%s", ways[w].name, steps[i].name);
		note_step(figure, w, steps[i].from, steps[i].to);
	}
	note_pages(w);
}

int main(int argc, char **argv)
{
	struct shmq_topic_options o = { .size = sizeof(o), .max_message_bytes = BYTES };
	int again = 0;
	struct bench_proc proc[] = { { one_by_one, NULL, 0 }, { publish_first, &again, 1 } };
	shmq_bus *bus;
	unsigned r, w;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	BENCH_OK(shmq_topic_create(bus, topic, &o, NULL));
	BENCH_OK(shmq_topic_create(bus, own_topic, &o, NULL));
	for (r = 0; r < bench.rounds; r++) {
		bench_run(proc, 2);
		again = 1; /* the messages stay */
		for (w = 0; w < WAYS; w++)
			note_way(w);
		measure_answers();
	}
	shmq_bus_close(bus);
	return bench_end();
}
