/* SPDX-License-Identifier: MIT
 *
 * Who waits costs nothing.  What is asserted is time on a processor, as the
 * kernel accounts it, of every process of the bus; run alone, so that the
 * machine has little else to account.
 */
#include "helpers.h"

#include <dirent.h>
#include <pthread.h>

enum { PROCESSES = 20, SUBSCRIBERS = 5, WINDOW_S = 10 };

/* Nanoseconds that a thread of a process has run so far. */
static uint64_t thread_ns(pid_t pid, const char *thread)
{
	unsigned long long ns;
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, thread);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%llu", &ns) != 1)
		SKIP("this kernel does not account run time (%s)", path);
	fclose(file);
	return ns;
}

/* ... that all of them have. */
static uint64_t run_ns(pid_t pid)
{
	char path[300];
	struct dirent *entry;
	uint64_t sum = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		FAIL("%s: %s", path, strerror(errno));
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			sum += thread_ns(pid, entry->d_name);
	closedir(dir);
	return sum;
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

TEST_WITHIN(one_hundred_sleepers_and_a_blocked_publisher_take_a_thousandth_of_a_processor, 60)
{
	_Atomic int *ready = shared_memory(sizeof(*ready));
	struct sleeper s[PROCESSES];
	pid_t pid[PROCESSES + 3];
	uint64_t before[PROCESSES + 3], sum = 0;
	int64_t from, window;
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
		before[i] = run_ns(pid[i]);
	from = test_now_ns();
	test_sleep_ms(WINDOW_S * 1000); /* the measure: long enough for every back-stop */
	window = test_now_ns() - from;
	for (int i = 0; i < count; i++)
		sum += run_ns(pid[i]) - before[i];
	NOTE("%.3f ms in %.1f s: %.4f %%", (double)sum / 1e6, (double)window / 1e9,
	     100 * (double)sum / (double)window);
	await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, PROCESSES * SUBSCRIBERS); /* still */
	CHECK_LE(sum, (uint64_t)window / 1000 * (uint64_t)test_slowdown());
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

TEST_WITHIN(the_tailer_of_a_hundred_topics_that_stand_still_takes_a_thousandth_of_a_processor, 60)
{
	enum { TOPICS = 100, STILL_MS = 4000, LOOK_MS = 3000 };
	char thread[16];
	uint64_t before, ran;
	int64_t from, window;
	shmq_bus *bus;
	pid_t tailer = 0;

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
	before = thread_ns(tailer, thread);
	from = test_now_ns();
	test_sleep_ms(LOOK_MS);
	window = test_now_ns() - from;
	ran = thread_ns(tailer, thread) - before;
	NOTE("%.3f ms in %.1f s: %.4f %%", (double)ran / 1e6, (double)window / 1e9,
	     100 * (double)ran / (double)window);
	CHECK_LE(ran, (uint64_t)window / 1000 * (uint64_t)test_slowdown());
	shmq_bus_close(bus);
	test_bus_stop();
}
