/* SPDX-License-Identifier: MIT
 *
 * What can only be done to a machine of our own: its clock is set, a
 * processor goes, its memory is short, it sleeps.
 */
#include "guest.h"

#include <sys/stat.h>
#include <time.h>

enum { DEPTH = 1024 };

#define DAY 86400

/* ---- a stream, of which somebody wants to know whether it flows -------------- */

struct flow {
	_Atomic int stop;
	_Atomic uint64_t received;
	enum shmq_wait wait;
	const char *topic;
};

static int send_flow(void *arg)
{
	struct flow *f = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, f->topic, .wait = f->wait);
	uint64_t n = 0;

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	while (!atomic_load(&f->stop)) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		n++;
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static int receive_flow(void *arg)
{
	struct flow *f = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub =
		open_sub(bus, f->topic, .wait = f->wait, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	struct shmq_msg msg;
	uint64_t next = 0;
	int rc;

	while (!(rc = shmq_receive(sub, &msg, PATIENCE))) {
		CHECK_MEM(msg.data, &next, sizeof(next));
		atomic_store(&f->received, ++next);
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	return 0;
}

static int has_flowed(void *arg)
{
	const struct flow *f = arg;

	return atomic_load(&f->received) >= DEPTH;
}

static void await_flow(struct flow *f)
{
	atomic_store(&f->received, 0);
	if (!test_wait_until(has_flowed, f, 20000))
		FAIL("the stream stands");
}

static struct flow *start_flow(const char *topic, enum shmq_wait wait, pid_t pid[2])
{
	struct flow *f = shared_memory(sizeof(*f));

	f->topic = topic;
	f->wait = wait;
	pid[0] = test_spawn(receive_flow, f);
	pid[1] = test_spawn(send_flow, f);
	await_flow(f);
	return f;
}

static void end_flow(struct flow *f, const pid_t pid[2])
{
	atomic_store(&f->stop, 1);
	CHECK_EQ(test_join(pid[1]), 0);
	CHECK_EQ(test_join(pid[0]), 0);
}

/* ---- the clock ------------------------------------------------------------------ */

static void step_clock(int64_t seconds)
{
	struct timespec ts;

	CHECK_OK(clock_gettime(CLOCK_REALTIME, &ts));
	ts.tv_sec += seconds;
	CHECK_OK(clock_settime(CLOCK_REALTIME, &ts));
}

static int sleep_in_vain(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "silent", .wait = SHMQ_WAIT_SLEEP);
	int64_t began = test_now_ns();
	struct shmq_msg msg;

	(void)arg;
	CHECK_ERROR(shmq_receive(sub, &msg, SECOND), SHMQ_ETIMEOUT);
	CHECK_GE(test_now_ns() - began, SECOND);
	shmq_bus_close(bus);
	return 0;
}

static int block_in_vain(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "full", .wait = SHMQ_WAIT_SLEEP, .block_timeout_ns = SECOND);
	int64_t began = test_now_ns();
	int rc, n = 0;

	(void)arg;
	while (!(rc = shmq_publish(pub, &n, sizeof(n))))
		n++;
	CHECK_ERROR(rc, SHMQ_ETIMEOUT);
	CHECK_GE(test_now_ns() - began, SECOND);
	CHECK_EQ(n, DEPTH);
	shmq_bus_close(bus);
	return 0;
}

static int stamp(void *arg)
{
	shmq_bus *bus = test_bus_open();

	(void)arg;
	CHECK_OK(shmq_publish(open_pub(bus, "stamped"), "s", 1));
	shmq_bus_close(bus);
	return 0;
}

TEST(a_clock_that_is_set_by_a_day_to_and_fro_changes_stamps_and_nothing_else)
{
	static const int64_t step[] = { DAY, -DAY, -DAY, DAY };
	shmq_bus *bus;
	shmq_sub *full, *stamped;
	struct flow *f;
	struct shmq_msg msg;
	pid_t flow[2], sleeper, blocked, worker;
	uint64_t last = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	create(bus, "silent", .depth = DEPTH);
	create(bus, "full", .depth = DEPTH);
	create(bus, "stamped", .depth = DEPTH, .flags = SHMQ_TOPIC_TIME);
	full = open_sub(bus, "full");
	stamped = open_sub(bus, "stamped");
	f = start_flow("t", SHMQ_WAIT_SLEEP, flow);
	sleeper = test_spawn(sleep_in_vain, NULL);
	blocked = test_spawn(block_in_vain, NULL);
	await_sleepers(bus, "silent", SHMQ_ROLE_SUBSCRIBER, 1);
	await_sleepers(bus, "full", SHMQ_ROLE_PUBLISHER, 1);
	for (size_t i = 0; i < COUNT(step); i++) {
		step_clock(step[i]);
		await_flow(f);
		CHECK_EQ(test_join(test_spawn(stamp, NULL)), 0);
		CHECK_OK(shmq_receive(stamped, &msg, PATIENCE));
		if (last)
			CHECK_EQ(msg.ts_ns > last, step[i] > 0);
		last = msg.ts_ns;
		if (i % 2)
			continue;
		/* A new worker knows its clients, whose start is long ago or to
		 * come by the clock. */
		worker = test_bus_worker_pid(bus);
		CHECK_OK(kill(worker, SIGKILL));
		while (test_bus_worker_pid(bus) == worker)
			test_sleep_ms(1);
		CHECK_EQ(topic_info(bus, "t").publishers, 1);
		CHECK_EQ(topic_info(bus, "t").subscribers, 1);
	}
	CHECK_EQ(test_join(sleeper), 0);
	CHECK_EQ(test_join(blocked), 0);
	end_flow(f, flow);
	shmq_sub_close(full);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- processors -------------------------------------------------------------------- */

static void set_processor(int n, int online)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", n);
	put(path, "%d", online);
}

TEST(a_stream_goes_on_when_a_processor_goes_and_comes_back)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_SLEEP };
	static const char *const topic[] = { "spun", "slept" };
	struct flow *f[2];
	pid_t pid[2][2];
	shmq_bus *bus;

	run_on(1); /* all, the supervisor too, on the one that goes */
	test_bus_start();
	bus = test_bus_open();
	for (size_t i = 0; i < COUNT(modes); i++) {
		create(bus, topic[i], .depth = DEPTH);
		f[i] = start_flow(topic[i], modes[i], pid[i]);
	}
	for (int round = 0; round < 2; round++) {
		for (int online = 0; online < 2; online++) {
			set_processor(1, online);
			await_flow(f[0]);
			await_flow(f[1]);
		}
	}
	set_processor(1, 0);
	create(bus, "new", .depth = DEPTH, .node = SHMQ_NODE(1)); /* its memory is there */
	CHECK_EQ(topic_info(bus, "new").node_actual, SHMQ_NODE(1));
	end_flow(f[0], pid[0]);
	end_flow(f[1], pid[1]);
	shmq_bus_close(bus);
	test_bus_stop();
	set_processor(1, 1);
}

/* ---- memory ------------------------------------------------------------------------- */

#define GROUP "/sys/fs/cgroup/small"
#define LIMIT (UINT64_C(48) << 20)

static void check_said(const char *text)
{
	if (!strstr(shmq_bus_error(NULL), text))
		FAIL("\"%s\" does not name \"%s\"", shmq_bus_error(NULL), text);
}

TEST(a_bus_whose_cgroup_is_full_refuses_by_name_and_goes_on)
{
	struct shmq_bus_info before, after;
	char topic[16];
	struct flow *f;
	shmq_bus *bus;
	pid_t flow[2], worker;
	int count = 0, rc;

	CHECK_OK(mkdir(GROUP, 0700));
	put(GROUP "/memory.max", "%llu", (unsigned long long)LIMIT);
	put(GROUP "/cgroup.procs", "0");
	test_bus_start(); /* the supervisor alone */
	put("/sys/fs/cgroup/cgroup.procs", "0");
	bus = test_bus_open();
	worker = test_bus_worker_pid(bus);
	create(bus, "t", .depth = DEPTH);
	f = start_flow("t", SHMQ_WAIT_ADAPTIVE, flow);
	/* More than there can be: no effect. */
	CHECK_OK(shmq_bus_get_info(bus, &before));
	CHECK_ERROR(shmq_topic_create(bus, "more", TOPIC_OPTIONS(.depth = 1 << 20), NULL),
		    SHMQ_ENOMEMORY);
	check_said("memory.max of cgroup /small is 48.0 MiB");
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_EQ(after.bytes, before.bytes);
	/* And to the last one that fits, large ones and small ones. */
	for (uint64_t depth = 65536; depth >= DEPTH; depth /= 8) {
		for (;; count++) {
			snprintf(topic, sizeof(topic), "t%d", count);
			rc = shmq_topic_create(bus, topic,
					       TOPIC_OPTIONS(.depth = depth,
							     .pages = SHMQ_PAGES_4K),
					       NULL);
			if (rc)
				break;
		}
		CHECK_ERROR(rc, SHMQ_ENOMEMORY);
		await_flow(f);
	}
	CHECK_GT(count, 4);
	NOTE("%d topics fit", count);
	/* What is free again may be had, but for what the kernel keeps of it. */
	CHECK_OK(shmq_topic_remove(bus, "t0", 0));
	create(bus, "t0", .depth = 32768, .pages = SHMQ_PAGES_4K);
	CHECK_EQ(get(GROUP "/memory.events", "oom_kill "), 0);
	CHECK_EQ(test_bus_worker_pid(bus), worker);
	end_flow(f, flow);
	shmq_bus_close(bus);
	test_bus_stop();
	CHECK_OK(rmdir(GROUP));
}

/* What it attaches to is not its own. */
static int attach_in_small(void *arg)
{
	(void)arg;
	put("/sys/fs/cgroup/client/cgroup.procs", "0");
	return receive_flow(arg);
}

TEST(a_client_in_a_small_cgroup_has_a_topic_that_is_larger)
{
	struct flow *f = shared_memory(sizeof(*f));
	shmq_bus *bus;
	pid_t pid[2];

	CHECK_OK(mkdir("/sys/fs/cgroup/client", 0700));
	put("/sys/fs/cgroup/client/memory.max", "%d", 8 << 20);
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 131072, .pages = SHMQ_PAGES_4K); /* 16 MiB */
	f->topic = "t";
	f->wait = SHMQ_WAIT_ADAPTIVE;
	pid[0] = test_spawn(attach_in_small, f);
	pid[1] = test_spawn(send_flow, f);
	while (atomic_load(&f->received) < 131072 + DEPTH)
		test_sleep_ms(1);
	CHECK_EQ(get("/sys/fs/cgroup/client/memory.events", "oom_kill "), 0);
	end_flow(f, pid);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- sleep -------------------------------------------------------------------------- */

TEST(a_bus_goes_on_after_the_machine_slept)
{
	struct flow *f;
	struct timespec boot, mono;
	shmq_bus *bus;
	pid_t flow[2];
	int fd;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	f = start_flow("t", SHMQ_WAIT_SLEEP, flow);
	fd = open("/sys/class/rtc/rtc0/wakealarm", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "+2", 2) != 2)
		SKIP("no clock wakes this machine");
	close(fd);
	fd = open("/sys/power/state", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "mem", 3) != 3)
		SKIP("this machine does not sleep: %s", strerror(errno));
	close(fd);
	CHECK_OK(clock_gettime(CLOCK_BOOTTIME, &boot));
	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &mono));
	NOTE("slept for %lld s", (long long)(boot.tv_sec - mono.tv_sec));
	await_flow(f);
	end_flow(f, flow);
	shmq_bus_close(bus);
	test_bus_stop();
}
