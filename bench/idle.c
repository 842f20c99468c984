/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char question[] =
	"How much of a processor does a bus take while nothing is sent: 100 sleeping subscribers\n"
	"in 20 processes, and the supervisor?";

#define PROCESSES 20u
#define EACH 5u /* subscribers of a process */
#define SUBSCRIBERS (PROCESSES * EACH)
#define BYTES 64

static const char topic[] = "idle";

/* Long enough that every sleeper's back-stop falls due within it. */
static unsigned seconds(void)
{
	return bench.smoke ? 1 : bench.quick ? 2 : 12;
}

/* ---- a process of subscribers ---------------------------------------------------- */

static void take_the_message(shmq_sub *sub, int64_t timeout_ns)
{
	struct shmq_msg msg;
	char copy[BYTES];

	BENCH_OK(shmq_receive(sub, &msg, timeout_ns));
	memcpy(copy, msg.data, msg.len < BYTES ? msg.len : BYTES);
	if (msg.len != BYTES || msg.seq || bench_verify(copy, BYTES, 0))
		bench_fail("the message is torn or another");
}

static void *sleep_in_thread(void *sub)
{
	take_the_message(sub, SHMQ_FOREVER);
	return NULL;
}

static void sleep_in_threads(shmq_sub **sub)
{
	pthread_t thread[EACH];
	unsigned i;

	for (i = 0; i < EACH; i++)
		if (pthread_create(&thread[i], NULL, sleep_in_thread, sub[i]))
			bench_fail("no thread can be made");
	for (i = 0; i < EACH; i++)
		pthread_join(thread[i], NULL);
}

static void sleep_in_set(shmq_bus *bus, shmq_sub **sub)
{
	shmq_sub *ready[EACH];
	shmq_waitset *set;
	unsigned i;
	int n;

	BENCH_OK(shmq_waitset_create(bus, &set));
	for (i = 0; i < EACH; i++)
		BENCH_OK(shmq_waitset_add(set, sub[i]));
	while (i) {
		BENCH_OK(n = shmq_waitset_wait(set, ready, EACH, SHMQ_FOREVER));
		for (i -= (unsigned)n; n--;)
			take_the_message(ready[n], SHMQ_NOWAIT);
	}
	shmq_waitset_destroy(set);
}

/* Every second process spins before it sleeps, every fifth waits for all of its
 * subscribers at once. */
static void subscribers(void *arg)
{
	unsigned number = *(const unsigned *)arg, i;
	struct shmq_sub_options o = { .size = sizeof(o),
				      .wait = number % 2 ? SHMQ_WAIT_ADAPTIVE : SHMQ_WAIT_SLEEP };
	shmq_bus *bus = bench_open();
	shmq_sub *sub[EACH];
	struct shmq_msg msg;

	for (i = 0; i < EACH; i++)
		BENCH_OK(shmq_sub_open(bus, topic, &o, &sub[i]));
	bench_shared->samples[number] = (uint64_t)getpid();
	bench_meet(PROCESSES + 1);
	if (number % 5)
		sleep_in_threads(sub);
	else
		sleep_in_set(bus, sub);
	bench_await_stage(1);
	for (i = 0; i < EACH; i++)
		if (shmq_receive(sub[i], &msg, SHMQ_NOWAIT) != SHMQ_EEMPTY)
			bench_fail("more messages came than were sent");
	shmq_bus_close(bus);
}

/* ---- the observer ------------------------------------------------------------------ */

/* What a process with all its threads has had of the processors. */
static double cpu_ns(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		bench_fail("the time of process %d cannot be read", (int)pid);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double subscribers_ns(void)
{
	double sum = 0;
	unsigned i;

	for (i = 0; i < PROCESSES; i++)
		sum += cpu_ns((pid_t)bench_shared->samples[i]);
	return sum;
}

static double supervisor_ns(shmq_bus *bus)
{
	struct shmq_bus_info info;

	BENCH_OK(shmq_bus_get_info(bus, &info));
	return cpu_ns(info.daemon_pid) + cpu_ns(info.parent_pid);
}

static void pause_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

static void await_sleepers(shmq_bus *bus)
{
	struct shmq_topic_info info = { 0 };

	while (info.sleepers < SUBSCRIBERS) {
		pause_ms(1);
		BENCH_OK(shmq_topic_get_info(bus, topic, &info));
	}
}

static void observe(void *arg)
{
	double by_subscribers, by_supervisor, ns;
	shmq_bus *bus = bench_open();
	char buf[BYTES];
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, topic, NULL, &pub));
	bench_meet(PROCESSES + 1);
	await_sleepers(bus);
	ns = (double)bench_now();
	by_subscribers = subscribers_ns();
	by_supervisor = supervisor_ns(bus);
	pause_ms(seconds() * 1000);
	by_subscribers = subscribers_ns() - by_subscribers;
	by_supervisor = supervisor_ns(bus) - by_supervisor;
	ns = (double)bench_now() - ns;
	bench_shared->result[0] = 100 * by_subscribers / ns;
	bench_shared->result[1] = 100 * by_supervisor / ns;
	await_sleepers(bus); /* still there: each takes a message now */
	bench_fill(buf, BYTES, 0);
	BENCH_OK(shmq_publish(pub, buf, BYTES));
	bench_say_stage(1);
	shmq_bus_close(bus);
}

int main(int argc, char **argv)
{
	struct shmq_topic_options o = { .size = sizeof(o), .max_message_bytes = BYTES };
	struct bench_proc proc[PROCESSES + 1];
	unsigned number[PROCESSES], i;
	shmq_bus *bus;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	BENCH_OK(shmq_topic_create(bus, topic, &o, NULL));
	for (i = 0; i < PROCESSES; i++) {
		number[i] = i;
		proc[i] = (struct bench_proc){ subscribers, &number[i], -1 };
	}
	proc[PROCESSES] = (struct bench_proc){ observe, NULL, -1 };
	bench_run(proc, PROCESSES + 1);
	bench_note("idle.cpu_percent", "%", bench_shared->result[0] + bench_shared->result[1]);
	bench_note("idle.supervisor.cpu_percent", "%", bench_shared->result[1]);
	shmq_bus_close(bus);
	return bench_end();
}
