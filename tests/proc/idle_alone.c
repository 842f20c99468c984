/* SPDX-License-Identifier: MIT
 *
 * Who waits costs nothing.  What is asserted is how often each thread of the bus
 * gets a processor, which no machine changes, and, generously, for how long: run
 * alone, so that the kernel has little else to account.  The benchmark idle holds
 * that to a figure.
 */
#include "helpers.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>

enum { PROCESSES = 20, SUBSCRIBERS = 5, WINDOW_S = 10 };

struct run {
	uint64_t ns, turns, threads;
};

static void add_thread(struct run *sum, pid_t pid, const char *thread)
{
	unsigned long long ns, waited, turns;
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, thread);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%llu %llu %llu", &ns, &waited, &turns) != 3)
		SKIP("this kernel does not account run time (%s)", path);
	fclose(file);
	sum->ns += ns;
	sum->turns += turns;
	sum->threads++;
}

static void add_process(struct run *sum, pid_t pid)
{
	char path[300];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		FAIL("%s: %s", path, strerror(errno));
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			add_thread(sum, pid, entry->d_name);
	closedir(dir);
}

/* How much more it was in `window` nanoseconds, and not too much. */
static void check_idle(const struct run *before, const struct run *after, int64_t window,
		       uint64_t most_turns)
{
	uint64_t ns = after->ns - before->ns, turns = after->turns - before->turns;

	NOTE("%.3f ms in %.1f s: %.4f %%; %" PRIu64 " threads had %" PRIu64 " turns",
	     (double)ns / 1e6, (double)window / 1e9, 100 * (double)ns / (double)window,
	     after->threads, turns);
	CHECK_LE(turns, most_turns);
	CHECK_LE(ns, (uint64_t)window / 200 * (uint64_t)test_slowdown());
}

struct sleeper {
	_Atomic int *ready;
	int number;
};

/* A process of five subscribers, one thread each; every second process waits
 * adaptively, every fifth on a wait set. */
static void *sleep_on(void *arg)
{
	struct shmq_msg msg;

	shmq_receive(arg, &msg, SHMQ_FOREVER);
	return NULL;
}

static int sleep_many(void *arg)
{
	const struct sleeper *s = arg;
	enum shmq_wait wait = s->number % 2 ? SHMQ_WAIT_ADAPTIVE : SHMQ_WAIT_SLEEP;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub[SUBSCRIBERS], *ready[1];
	shmq_waitset *set;
	pthread_t thread;

	for (int i = 0; i < SUBSCRIBERS; i++)
		sub[i] = open_sub(bus, "t", .wait = wait);
	if (s->number % 5 == 0) {
		CHECK_OK(shmq_waitset_create(bus, &set));
		for (int i = 0; i < SUBSCRIBERS; i++)
			CHECK_OK(shmq_waitset_add(set, sub[i]));
		atomic_fetch_add(s->ready, 1);
		shmq_waitset_wait(set, ready, 1, SHMQ_FOREVER);
		return 1;
	}
	for (int i = 1; i < SUBSCRIBERS; i++)
		CHECK_EQ(pthread_create(&thread, NULL, sleep_on, sub[i]), 0);
	atomic_fetch_add(s->ready, 1);
	sleep_on(sub[0]);
	return 1; /* nothing is ever sent */
}

static int block(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "full");

	atomic_fetch_add((_Atomic int *)arg, 1);
	for (uint64_t n = 0; n < 1025; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	return 1;
}

TEST_WITHIN(one_hundred_sleepers_and_a_blocked_publisher_wake_for_back_stops_alone, 60)
{
	_Atomic int *ready = shared_memory(sizeof(*ready));
	struct sleeper s[PROCESSES];
	pid_t pid[PROCESSES + 3];
	struct run before = { 0 }, after = { 0 };
	int64_t from;
	shmq_bus *bus;
	int count = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024);
	create(bus, "full", .depth = 1024);
	open_sub(bus, "full");
	for (int i = 0; i < PROCESSES; i++) {
		s[i] = (struct sleeper){ ready, i };
		pid[count++] = test_spawn(sleep_many, &s[i]);
	}
	pid[count++] = test_spawn(block, (void *)ready);
	pid[count++] = test_bus_worker_pid(bus);
	pid[count++] = test_bus_parent_pid(bus);
	await(ready, PROCESSES + 1);
	await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, PROCESSES * SUBSCRIBERS);
	await_sleepers(bus, "full", SHMQ_ROLE_PUBLISHER, 1);
	for (int i = 0; i < count; i++)
		add_process(&before, pid[i]);
	from = test_now_ns();
	test_sleep_ms(WINDOW_S * 1000); /* the measure: long enough for every back-stop */
	for (int i = 0; i < count; i++)
		add_process(&after, pid[i]);
	check_idle(&before, &after, test_now_ns() - from, 2 * after.threads);
	await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, PROCESSES * SUBSCRIBERS); /* still */
	for (int i = 0; i < PROCESSES + 1; i++)
		CHECK_EQ(test_kill_wait(pid[i], SIGKILL), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int take_own(void *arg, const struct shmq_client_info *client)
{
	if (client->is_own)
		*(pid_t *)arg = client->pid;
	return 0;
}

TEST_WITHIN(the_tailer_of_a_hundred_topics_that_stand_still_looks_four_times_a_second_at_most, 60)
{
	enum { TOPICS = 100, STILL_MS = 4000, LOOK_MS = 3000 };
	char thread[16];
	struct run before = { 0 }, after = { 0 };
	shmq_bus *bus;
	pid_t tailer = 0;
	int64_t from;

	test_bus_start();
	bus = test_bus_open();
	for (unsigned i = 0; i < TOPICS; i++) {
		char topic[8];

		snprintf(topic, sizeof(topic), "t%u", i);
		create(bus, topic, .depth = 1024, .slot_bytes = 64, .log = SHMQ_LOG_BLOCK,
		       .segment_bytes = 1 << 20);
	}
	test_sleep_ms(STILL_MS); /* so long it looks out for more */
	CHECK_OK(shmq_client_each(bus, take_own, &tailer));
	CHECK_GT(tailer, 0);
	/* Not those of its ring: the kernel ends them when they are idle. */
	snprintf(thread, sizeof(thread), "%d", (int)tailer);
	add_thread(&before, tailer, thread);
	from = test_now_ns();
	test_sleep_ms(LOOK_MS);
	add_thread(&after, tailer, thread);
	check_idle(&before, &after, test_now_ns() - from, 4 * LOOK_MS / 1000 + 1);
	shmq_bus_close(bus);
	test_bus_stop();
}
