/* SPDX-License-Identifier: MIT
 *
 * The supervisor is killed, stopped, started twice: nobody who has a topic
 * open notices more than an event, and what comes after finds the bus as
 * it was.
 */
#include "raw.h"
#include "traffic.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

enum { DEPTH = 1024 };

static void kill_worker(shmq_bus *bus)
{
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
}

static uint64_t epoch_of(shmq_bus *bus)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(bus, &info));
	return info.epoch;
}

struct wish {
	shmq_bus *bus;
	uint64_t n;
};

static int has_epoch(void *arg)
{
	const struct wish *w = arg;

	return epoch_of(w->bus) >= w->n;
}

static int has_reattached(void *arg)
{
	const struct wish *w = arg;

	return (uint64_t)shmq_bus_reattach_count(w->bus) >= w->n && shmq_bus_is_attached(w->bus);
}

static int has_other_parent(void *arg)
{
	const struct wish *w = arg;
	pid_t pid = test_bus_parent_pid(w->bus);

	return pid && (uint64_t)pid != w->n;
}

static void await_wish(int (*fn)(void *), shmq_bus *bus, uint64_t n)
{
	struct wish wish = { bus, n };

	if (!test_wait_until(fn, &wish, 30000))
		FAIL("waited in vain for %llu", (unsigned long long)n);
}

/* Kill the parent, wait until the worker has started another. */
static void replace_parent(shmq_bus *bus)
{
	pid_t pid = test_bus_parent_pid(bus);

	CHECK_OK(kill(pid, SIGKILL));
	await_wish(has_other_parent, bus, (uint64_t)pid);
}

/* ---- killed --------------------------------------------------------------- */

TEST(a_killed_worker_is_replaced_and_its_clients_do_not_notice)
{
	enum { DEATHS = 4 }; /* deaths in quick succession are answered more slowly */
	struct shmq_event event;
	struct traffic *t;
	shmq_bus *bus;
	shmq_sub *watch;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "watch", .depth = DEPTH);
	watch = open_sub(bus, "watch"); /* a handle, so that this client re-attaches itself */
	t = traffic_start(bus, .start = SHMQ_START_NEVER);
	traffic_await_flow(t);
	for (int n = 1; n <= DEATHS; n++) {
		kill_worker(bus);
		event = await_event(bus, SHMQ_EVENT_DETACHED, 0);
		CHECK_STR(event.topic, "");
		await_event(bus, SHMQ_EVENT_REATTACHED, 0);
		CHECK_EQ(shmq_bus_is_attached(bus), 1);
		CHECK_EQ(shmq_bus_reattach_count(bus), n);
		CHECK_EQ(epoch_of(bus), n + 1);
		traffic_await_reattached(t, n);
		traffic_await_flow(t);
		CHECK_EQ(topic_info(bus, "t").publishers, 1);
		CHECK_EQ(topic_info(bus, "t").subscribers, 1);
		traffic_check_opens(bus);
	}
	traffic_stop(t);
	CHECK_EQ(atomic_load(&t->reattached[0]), DEATHS);
	CHECK_EQ(atomic_load(&t->reattached[1]), DEATHS);
	CHECK_EQ(topic_info(bus, "t").publishers, 0);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	shmq_sub_close(watch);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_killed_parent_is_replaced_by_its_worker)
{
	struct traffic *t;
	shmq_bus *bus;
	pid_t worker;

	test_bus_start();
	bus = test_bus_open();
	t = traffic_start(bus, .start = SHMQ_START_NEVER);
	traffic_await_flow(t);
	worker = test_bus_worker_pid(bus);
	for (int n = 0; n < 5; n++) {
		replace_parent(bus);
		CHECK_EQ(test_bus_worker_pid(bus), worker);
		traffic_await_flow(t);
		traffic_check_opens(bus);
	}
	CHECK_EQ(epoch_of(bus), 1);
	traffic_stop(t); /* who never was detached */
	CHECK_EQ(atomic_load(&t->reattached[0]), 0);
	CHECK_EQ(atomic_load(&t->reattached[1]), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int is_supervisor(pid_t pid)
{
	char path[64], comm[16] = "";
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	in = fopen(path, "r");
	if (!in || !fgets(comm, sizeof(comm), in))
		comm[0] = 0;
	if (in)
		fclose(in);
	return !strcmp(comm, "shmqd\n");
}

static int has_next_worker(void *arg)
{
	const pid_t *pids = arg; /* parent, worker */
	char path[64];
	int pid = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pids[0], (int)pids[0]);
	in = fopen(path, "r");
	CHECK(in);
	if (fscanf(in, "%d", &pid) != 1)
		pid = 0;
	fclose(in);
	return pid && pid != pids[1];
}

TEST(a_parent_that_dies_while_its_worker_begins_is_never_told_to_be_another_process)
{
	struct wish adopted;
	char path[PATH_MAX];
	shmq_bus *bus;
	pid_t pids[2], parent, now;
	int lock;

	parent = test_bus_start();
	bus = test_bus_open();
	pids[0] = parent;
	pids[1] = test_bus_worker_pid(bus);
	adopted = (struct wish){ bus, epoch_of(bus) + 1 };
	snprintf(path, sizeof(path), "%s/%s.control", test_bus_dir(), test_bus_name());
	CHECK_OK(kill(parent, SIGSTOP));
	CHECK_OK(kill(pids[1], SIGKILL));
	lock = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_GE(lock, 0);
	CHECK_OK(flock(lock, LOCK_EX)); /* which the worker needs to go on */
	CHECK_OK(kill(parent, SIGCONT));
	CHECK(test_wait_until(has_next_worker, pids, 30000));
	CHECK_EQ(test_kill_wait(parent, SIGKILL), 128 + SIGKILL);
	close(lock);
	do {
		now = test_bus_parent_pid(bus);
		if (now && now != parent && !is_supervisor(now))
			FAIL("%d is not the parent", (int)now);
	} while (!now || now == parent || !has_epoch(&adopted));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Let the worker go on until what it starts executes its program, there to be
 * stopped. */
static pid_t stop_what_it_starts(pid_t worker)
{
	long options =
		PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	int status, event, sig;
	pid_t pid;

	if (ptrace(PTRACE_SEIZE, worker, NULL, (void *)options))
		SKIP("the worker cannot be traced: %s", strerror(errno));
	CHECK_EQ(test_kill_wait(test_bus_pid("parent"), SIGKILL), 128 + SIGKILL);
	for (;;) {
		pid = waitpid(-1, &status, __WALL);
		CHECK_GT(pid, 0);
		if (!WIFSTOPPED(status)) { /* whatever the killed one left to us */
			CHECK_NE(pid, worker);
			continue;
		}
		event = status >> 16;
		if (event == PTRACE_EVENT_EXEC && pid != worker)
			return pid;
		sig = event ? 0 : WSTOPSIG(status);
		CHECK_OK(ptrace(PTRACE_CONT, pid, NULL, (void *)(uintptr_t)(unsigned)sig));
	}
}

/* Then its parent is whoever takes in orphans: here it is this process. */
TEST(a_new_parent_whose_worker_died_before_it_began_takes_nobody_else_for_it)
{
	shmq_bus *bus;
	pid_t worker, parent;
	uint64_t epoch;

	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	test_bus_start();
	bus = test_bus_open();
	epoch = epoch_of(bus);
	worker = test_bus_worker_pid(bus);
	parent = stop_what_it_starts(worker);
	CHECK_EQ(test_kill_wait(worker, SIGKILL), 128 + SIGKILL);
	CHECK_OK(ptrace(PTRACE_DETACH, parent, NULL, NULL));
	await_wish(has_epoch, bus, epoch + 1);
	create(bus, "t", .depth = DEPTH);
	CHECK_EQ(test_bus_parent_pid(bus), parent);
	shmq_bus_close(bus);
	test_bus_stop();
	while (waitpid(-1, NULL, 0) > 0)
		; /* the processes of the bus: we are who takes them in */
}

TEST(parent_and_worker_may_be_killed_in_turn)
{
	struct traffic *t;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	t = traffic_start(bus, .start = SHMQ_START_NEVER);
	traffic_await_flow(t);
	for (int n = 1; n <= 4; n++) {
		replace_parent(bus);
		kill_worker(bus); /* the new parent starts its successor */
		await_wish(has_epoch, bus, (uint64_t)n + 1);
		traffic_await_reattached(t, n);
		traffic_await_flow(t);
		traffic_check_opens(bus);
	}
	traffic_stop(t);
	CHECK_EQ(atomic_load(&t->reattached[0]), 4);
	CHECK_EQ(atomic_load(&t->reattached[1]), 4);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_worker_killed_again_and_again_while_it_starts_recovers_in_the_end)
{
	struct traffic *t;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	t = traffic_start(bus, .start = SHMQ_START_NEVER);
	traffic_await_flow(t);
	for (int n = 0; n < 6; n++) {
		pid_t pid = test_bus_worker_pid(bus);

		kill(pid, SIGKILL); /* may be dead already */
		usleep((useconds_t)(mix((uint64_t)n) % 4000));
	}
	traffic_await_flow(t);
	traffic_check_opens(bus);
	/* How often each of them came back depends on chance.  The subscriber
	 * first, or it would see the end of the stream. */
	CHECK_EQ(test_kill_wait(t->subscriber, SIGKILL), 128 + SIGKILL);
	CHECK_EQ(test_kill_wait(t->publisher, SIGKILL), 128 + SIGKILL);
	while (topic_info(bus, "t").publishers || topic_info(bus, "t").subscribers)
		test_sleep_ms(1);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- the bus as it was -------------------------------------------------------- */

TEST(a_new_worker_finds_topics_handles_and_lags_as_they_were)
{
	struct shmq_bus_info info_before, info_after;
	struct shmq_topic_info before[3], after[3];
	static const char *const name[3] = { "plain", "rich", "ended" };
	struct peers subs;
	struct shmq_msg msg = { .data = "12345", .len = 5, .partition = 2 };
	shmq_bus *bus;
	shmq_pub *pub, *other;
	shmq_sub *sub, *last;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "plain", .depth = DEPTH);
	create(bus, "rich", .depth = 2 * DEPTH, .partitions = 3, .max_message_bytes = 5000,
	       .policy = SHMQ_LOSSY, .mode = SHMQ_SHARED,
	       .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	create(bus, "ended", .depth = DEPTH);
	pub = open_pub(bus, "rich");
	other = open_pub(bus, "plain");
	sub = open_sub(bus, "rich", .partition_plus1 = 3);
	last = open_sub(bus, "ended");
	for (int i = 0; i < 10; i++)
		CHECK_OK(shmq_publish_msg(pub, &msg));
	for (int i = 0; i < 4; i++)
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_OK(shmq_topic_remove(bus, "ended", SHMQ_FORCE));
	CHECK_OK(shmq_bus_get_info(bus, &info_before));
	for (int i = 0; i < 2; i++)
		before[i] = topic_info(bus, name[i]);
	CHECK_OK(shmq_sub_get_topic(last, &before[2]));
	for (int n = 1; n <= 3; n++) {
		kill_worker(bus);
		await_wish(has_reattached, bus, (uint64_t)n);
		CHECK_OK(shmq_bus_get_info(bus, &info_after));
		CHECK_EQ(info_after.topics, info_before.topics);
		CHECK_EQ(info_after.clients, info_before.clients);
		CHECK_EQ(info_after.started_ns, info_before.started_ns);
		CHECK_LE(info_after.bytes, info_before.bytes); /* what was warm is given back */
		for (int i = 0; i < 2; i++)
			after[i] = topic_info(bus, name[i]);
		CHECK_OK(shmq_sub_get_topic(last, &after[2]));
		for (int i = 0; i < 3; i++)
			CHECK_MEM(&after[i], &before[i], sizeof(before[i]));
		subs = peers_of(bus, "rich", SHMQ_ROLE_SUBSCRIBER);
		CHECK_EQ(subs.count, 1);
		CHECK_EQ(subs.lag, 7);
		CHECK_EQ(subs.sent_or_received, 4);
		CHECK_EQ(subs.last.partition, 2);
		/* What was refused is refused still, what goes goes. */
		CHECK_ERROR(shmq_pub_open(bus, "plain", NULL, &other), SHMQ_EEXCLUSIVE);
		CHECK_ERROR(shmq_topic_create(bus, "rich", NULL, NULL), SHMQ_EEXISTS);
		CHECK_ERROR(shmq_topic_remove(bus, "rich", 0), SHMQ_EINUSE);
	}
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_EQ(msg.seq, 4);
	CHECK_ERROR(shmq_receive(last, &msg, SHMQ_NOWAIT), SHMQ_EENDED);
	shmq_bus_close(bus);
	bus = test_bus_open();
	CHECK_EQ(topic_info(bus, "rich").publishers, 0);
	CHECK_EQ(topic_info(bus, "rich").subscribers, 0);
	CHECK_OK(shmq_topic_remove(bus, "rich", 0));
	CHECK_OK(shmq_topic_remove(bus, "plain", 0));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- the worker away ------------------------------------------------------------ */

/* Keep the worker away: the parent, stopped, starts no other. */
static void take_worker_away(shmq_bus *bus)
{
	CHECK_OK(kill(test_bus_parent_pid(bus), SIGSTOP));
	kill_worker(bus);
}

static void bring_worker_back(shmq_bus *bus)
{
	CHECK_OK(kill(test_bus_parent_pid(bus), SIGCONT));
}

struct alone {
	_Atomic int stage;
};

static int claim_and_wait_to_die(void *arg)
{
	struct alone *a = arg;
	shmq_bus *bus = test_bus_open();
	struct raw raw;

	raw_open(&raw, bus, "t");
	raw_claim(&raw);
	reach(&a->stage, 1);
	pause();
	return 1;
}

static int subscribe_and_wait_to_die(void *arg)
{
	struct alone *a = arg;

	open_sub(test_bus_open(), "t");
	reach(&a->stage, 1);
	pause();
	return 1;
}

TEST(while_the_worker_is_away_publishers_repair_what_the_dead_left)
{
	struct alone *a = shared_memory(sizeof(*a));
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct shmq_msg msg;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t", .block_timeout_ns = 10 * SECOND * test_slowdown());
	child = test_spawn(claim_and_wait_to_die, a);
	await(&a->stage, 1);
	take_worker_away(bus);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	/* Round the ring to the slot that the dead one holds. */
	for (uint64_t n = 0; n < 2 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	bring_worker_back(bus);
	await_wish(has_reattached, bus, 1);
	CHECK_EQ(topic_info(bus, "t").publishers, 1);

	/* A subscriber that gates, and dies, meanwhile. */
	a->stage = 0;
	child = test_spawn(subscribe_and_wait_to_die, a);
	await(&a->stage, 1);
	take_worker_away(bus);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	for (uint64_t n = 0; n < 2 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	bring_worker_back(bus);
	await_wish(has_reattached, bus, 2);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_new_worker_repairs_what_died_while_there_was_none)
{
	struct alone *a = shared_memory(sizeof(*a));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;
	uint64_t n = 8;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	child = test_spawn(claim_and_wait_to_die, a);
	await(&a->stage, 1);
	take_worker_away(bus);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_ERROR(shmq_receive(sub, &msg, 5 * MILLISECOND), SHMQ_ETIMEOUT);
	bring_worker_back(bus);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.seq, 1);
	await_wish(has_reattached, bus, 1); /* then adoption is complete */
	CHECK_EQ(topic_info(bus, "t").publishers, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int wake_parent_later(void *arg)
{
	shmq_bus *bus = arg;
	pid_t parent = *(pid_t *)arg;

	(void)bus;
	test_sleep_ms(100);
	CHECK_OK(kill(parent, SIGCONT));
	return 0;
}

TEST(what_needs_the_worker_waits_for_it_or_says_that_it_is_away)
{
	struct shmq_bus_options o = { .size = sizeof(o), .timeout_ns = 20 * MILLISECOND };
	pid_t *parent = shared_memory(sizeof(*parent)), child;
	shmq_bus *patient, *hasty;
	shmq_sub *sub, *doomed;
	int rc;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	patient = test_bus_open();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &hasty));
	create(patient, "t", .depth = DEPTH);
	doomed = open_sub(hasty, "t");
	*parent = test_bus_parent_pid(patient);
	take_worker_away(patient);
	rc = shmq_topic_create(hasty, "u", NULL, NULL);
	if (rc != SHMQ_EDAEMON)
		CHECK_ERROR(rc, SHMQ_ENODAEMON);
	CHECK(*shmq_bus_error(hasty));
	/* What only reads goes on. */
	CHECK_EQ(topic_info(hasty, "t").subscribers, 1);
	/* A close does not wait: it is told later. */
	shmq_sub_close(doomed);
	child = test_spawn(wake_parent_later, parent);
	create(patient, "u", .depth = DEPTH); /* comes back when the worker does */
	sub = open_sub(patient, "t");
	CHECK_EQ(test_join(child), 0);
	await_wish(has_reattached, hasty, 1);
	while (topic_info(patient, "t").subscribers != 1)
		test_sleep_ms(1);
	shmq_sub_close(sub);
	CHECK_OK(shmq_topic_remove(patient, "t", 0));
	shmq_bus_close(hasty);
	shmq_bus_close(patient);
	test_bus_stop();
}

static int leave_while_away(void *arg)
{
	struct alone *a = arg;
	shmq_bus *bus = test_bus_open();

	open_sub(bus, "t");
	reach(&a->stage, 1);
	await(&a->stage, 2);
	shmq_bus_close(bus);
	reach(&a->stage, 3);
	await(&a->stage, 4);
	return 0;
}

TEST(who_closes_its_bus_while_the_worker_is_away_does_not_gate_for_ever)
{
	struct alone *a = shared_memory(sizeof(*a));
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	child = test_spawn(leave_while_away, a);
	await(&a->stage, 1);
	take_worker_away(bus);
	reach(&a->stage, 2);
	/* A stopped parent for two seconds at most: closing may wait that long. */
	for (int i = 0; i < 200 && atomic_load(&a->stage) < 3; i++)
		test_sleep_ms(10);
	bring_worker_back(bus);
	await(&a->stage, 3); /* it lives on, without the bus */
	for (uint64_t n = 0; n < 3 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	reach(&a->stage, 4);
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- storms ------------------------------------------------------------------------ */

enum { STORMERS = 4, KILLS = 8 };

struct storm {
	_Atomic int stop;
	_Atomic uint64_t rounds;
	uint32_t number;
};

/* Create, open, talk, close, remove; every call must succeed, whoever is
 * killed on the other side. */
static int storm(void *arg)
{
	struct storm *s = arg;
	shmq_bus *bus = test_bus_open();
	struct shmq_msg msg;
	char topic[32];

	for (uint64_t n = 0; !atomic_load(&s->stop); n++) {
		shmq_sub *sub;
		shmq_pub *pub;

		snprintf(topic, sizeof(topic), "storm.%u.%llu", s->number, (unsigned long long)n);
		create(bus, topic, .depth = DEPTH, .partitions = 1 + (uint32_t)n % 3,
		       .max_message_bytes = n % 2 ? 0 : 4000,
		       .mode = n % 4 < 2 ? SHMQ_EXCLUSIVE : SHMQ_SHARED);
		sub = open_sub(bus, topic);
		pub = open_pub(bus, topic);
		CHECK_OK(shmq_publish(pub, topic, sizeof(topic)));
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, topic, sizeof(topic));
		shmq_pub_close(pub);
		if (n % 5) {
			shmq_sub_close(sub);
			/* A close that met a kill is told again when there is a worker. */
			while (topic_info(bus, topic).subscribers ||
			       topic_info(bus, topic).publishers)
				test_sleep_ms(1);
			CHECK_OK(shmq_topic_remove(bus, topic, 0));
		} else {
			CHECK_OK(shmq_topic_remove(bus, topic, SHMQ_FORCE));
			shmq_sub_close(sub);
		}
		atomic_store(&s->rounds, n + 1);
	}
	shmq_bus_close(bus);
	return 0;
}

struct count {
	unsigned live, ended;
};

static int count_topics(void *arg, const struct shmq_topic_info *info)
{
	struct count *count = arg;

	count->ended += !!info->ended;
	count->live += !info->ended;
	return 0;
}

static int nothing_is_left(void *arg)
{
	struct shmq_bus_info info;
	struct count count = { 0, 0 };

	CHECK_OK(shmq_bus_get_info(arg, &info));
	CHECK_OK(shmq_topic_each(arg, count_topics, &count));
	return !count.live && !count.ended && !info.topics && info.clients == 1;
}

TEST_WITHIN(a_worker_killed_in_storms_of_requests_leaves_a_consistent_bus, 60)
{
	struct storm *s = shared_memory(STORMERS * sizeof(*s));
	struct shmq_bus_info first, last;
	pid_t child[STORMERS];
	uint64_t rounds = 0;
	shmq_bus *bus;
	shmq_sub *watch;

	test_bus_start();
	bus = test_bus_open();
	for (uint32_t i = 0; i < STORMERS; i++) {
		s[i].number = i;
		child[i] = test_spawn(storm, &s[i]);
	}
	for (uint32_t i = 0; i < STORMERS; i++)
		while (atomic_load(&s[i].rounds) < 10)
			test_sleep_ms(1);
	CHECK_OK(shmq_bus_get_info(bus, &first));
	for (int n = 0; n < KILLS; n++) {
		pid_t pid = test_bus_worker_pid(bus);

		CHECK_OK(kill(pid, SIGKILL));
		await_wish(has_epoch, bus, (uint64_t)n + 2);
		usleep((useconds_t)(mix((uint64_t)n) % 30000));
	}
	for (uint32_t i = 0; i < STORMERS; i++)
		atomic_store(&s[i].stop, 1);
	for (uint32_t i = 0; i < STORMERS; i++) {
		CHECK_EQ(test_join(child[i]), 0);
		rounds += atomic_load(&s[i].rounds);
	}
	create(bus, "watch", .depth = DEPTH);
	watch = open_sub(bus, "watch");
	shmq_sub_close(watch);
	CHECK_OK(shmq_topic_remove(bus, "watch", 0));
	if (!test_wait_until(nothing_is_left, bus, 5000)) {
		struct count count = { 0, 0 };

		CHECK_OK(shmq_bus_get_info(bus, &last));
		CHECK_OK(shmq_topic_each(bus, count_topics, &count));
		FAIL("left: %u topics (%u live, %u ended), %u clients", last.topics, count.live,
		     count.ended, last.clients);
	}
	CHECK_OK(shmq_bus_get_info(bus, &last));
	CHECK_LE(last.bytes, first.bytes + (8 << 20));
	NOTE("%llu rounds, %d kills, %llu bytes, %llu before", (unsigned long long)rounds, KILLS,
	     (unsigned long long)last.bytes, (unsigned long long)first.bytes);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- start and stop -------------------------------------------------------------------- */

static pid_t run_daemon(const char *const *arguments)
{
	const char *argv[20] = { test_bus_daemon(), "--bus", test_bus_name(), "--runtime-dir",
				 test_bus_dir() };
	int argc = 5;
	pid_t pid = fork();

	CHECK_GE(pid, 0);
	if (pid)
		return pid;
	while (*arguments)
		argv[argc++] = *arguments++;
	dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
	execv(argv[0], (char *const *)argv);
	_exit(127);
}

#define shmqd(...) run_daemon((const char *const[]){ __VA_ARGS__, NULL })

TEST(a_second_supervisor_on_the_same_bus_refuses)
{
	shmq_bus *bus;
	pid_t parent, worker;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	parent = test_bus_parent_pid(bus);
	worker = test_bus_worker_pid(bus);
	CHECK_EQ(test_join(shmqd("--foreground")), 3);
	CHECK_EQ(test_join(shmqd("--log-level", "error")), 3);
	CHECK_EQ(test_join(shmqd("--on-demand")), 0); /* it runs: that is all that was asked */
	CHECK_EQ(test_bus_parent_pid(bus), parent);
	CHECK_EQ(test_bus_worker_pid(bus), worker);
	CHECK_EQ(epoch_of(bus), 1);
	CHECK_EQ(shmq_bus_is_attached(bus), 1);
	traffic_check_opens(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(on_sigterm_the_bus_ends_by_name)
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t parent;

	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	CHECK_OK(shmq_publish(pub, "last", 4));
	CHECK_OK(kill(parent, SIGTERM));
	CHECK_EQ(test_join(parent), 0);
	CHECK(!test_bus_accepts());
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "last", 4);
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish(pub, "more", 4), SHMQ_EENDED);
	CHECK_ERROR(shmq_topic_create(bus, "u", NULL, NULL), SHMQ_ENODAEMON);
	CHECK_ERROR(shmq_sub_open(bus, "t", NULL, &sub), SHMQ_ENODAEMON);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int is_accepting(void *arg)
{
	(void)arg;
	return test_bus_accepts();
}

/* Whoever removed it: a worker that starts, or one that ends the bus and needs another
 * to come, makes it again. */
TEST(a_bus_whose_directory_is_removed_heals_and_ends_by_name)
{
	struct shmq_msg msg;
	shmq_bus *bus, *other;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t parent;

	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	test_remove_tree(test_bus_dir());
	CHECK_GE(test_bus_kill("control"), 1);
	CHECK(test_wait_until(is_accepting, NULL, 60000));
	other = test_bus_open();
	CHECK_EQ(topic_info(other, "t").subscribers, 1);
	shmq_bus_close(other);
	CHECK_OK(shmq_publish(pub, "last", 4));
	CHECK_OK(kill(parent, SIGTERM));
	CHECK_EQ(test_join(parent), 0);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EENDED);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Both have the name; the files are those of the second. */
TEST(a_bus_that_lost_its_directory_to_another_leaves_the_others_files)
{
	struct shmq_bus_options how = { .size = sizeof(how), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *first, *second, *third;
	pid_t parent;

	parent = test_bus_start();
	first = test_bus_open();
	create(first, "first", .depth = DEPTH);
	test_remove_tree(test_bus_dir());
	how.runtime_dir = test_bus_dir();
	how.daemon_path = test_bus_daemon();
	CHECK_OK(shmq_bus_open(test_bus_name(), &how, &second));
	create(second, "second", .depth = DEPTH);
	CHECK_ERROR(shmq_bus_reload(first, NULL, 0), SHMQ_EINUSE);
	CHECK_OK(kill(parent, SIGTERM));
	CHECK_EQ(test_join(parent), 0);
	third = test_bus_open();
	CHECK_STR(topic_info(third, "second").name, "second");
	shmq_bus_close(third);
	shmq_bus_close(second);
	shmq_bus_close(first);
	test_bus_stop();
}

TEST(a_log_whose_tailer_needs_a_directory_that_was_removed_is_written_to_its_end)
{
	struct shmq_msg msg;
	shmq_log_reader *log;
	char path[PATH_MAX];
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t parent;

	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK, .segment_bytes = 1 << 20);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "first", 5));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	test_remove_tree(test_bus_dir());
	CHECK_EQ(test_bus_kill("tailer"), 1);
	test_bus_await_killed();
	CHECK_OK(shmq_publish(pub, "last", 4));
	CHECK_OK(kill(parent, SIGTERM));
	CHECK_EQ(test_join(parent), 0);
	shmq_bus_close(bus);
	snprintf(path, sizeof(path), "%s/t", test_bus_data());
	CHECK_OK(shmq_log_open(path, &log));
	CHECK_OK(shmq_log_next(log, &msg));
	CHECK_OK(shmq_log_next(log, &msg));
	CHECK_MEM(msg.data, "last", 4);
	shmq_log_close(log);
	test_bus_stop();
}

static int open_at_once(void *arg)
{
	_Atomic int *stage = arg;
	struct shmq_bus_info info;
	shmq_bus *bus;

	await(stage, 1);
	bus = open_with(.start = SHMQ_START_ON_DEMAND);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	atomic_store(stage + 1, info.parent_pid);
	CHECK_EQ(info.epoch, 1);
	atomic_fetch_add(stage + 2, 1);
	await(stage, 2);
	CHECK_EQ(atomic_load(stage + 1), info.parent_pid); /* one for all */
	shmq_bus_close(bus);
	return 0;
}

TEST(a_supervisor_is_started_on_demand_once_for_many)
{
	_Atomic int *stage = shared_memory(4096);
	pid_t child[8];

	test_bus_prepare();
	for (int i = 0; i < 8; i++)
		child[i] = test_spawn(open_at_once, (void *)stage);
	reach(stage, 1);
	await(stage + 2, 8);
	reach(stage, 2);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(test_join(child[i]), 0);
	test_bus_stop();
}

TEST(a_start_on_demand_that_fails_says_why)
{
	struct shmq_bus_options o = { .size = sizeof(o), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus;

	test_bus_prepare();
	o.runtime_dir = test_bus_dir();
	o.daemon_path = "/nonexistent/shmqd";
	CHECK_ERROR(shmq_bus_open(test_bus_name(), &o, &bus), SHMQ_ENODAEMON);
	CHECK(strstr(shmq_bus_error(NULL), "/nonexistent/shmqd") != NULL);
	o.daemon_path = "/bin/false";
	CHECK_ERROR(shmq_bus_open(test_bus_name(), &o, &bus), SHMQ_ENODAEMON);
	CHECK(strstr(shmq_bus_error(NULL), "/bin/false") != NULL);
	test_bus_stop();
}

/* Not by connecting, which would be a client and keep it. */
static int is_gone(void *arg)
{
	return kill(*(pid_t *)arg, 0) < 0;
}

TEST(a_supervisor_on_demand_stays_while_there_is_anything_and_then_goes)
{
	shmq_bus *bus;
	pid_t parent;

	test_bus_prepare();
	CHECK_EQ(test_join(shmqd("--on-demand", "--linger", "0.2")), 0);
	CHECK(test_bus_accepts()); /* it returned when it accepts */
	bus = test_bus_open();
	parent = test_bus_parent_pid(bus);
	create(bus, "t", .depth = DEPTH);
	shmq_bus_close(bus);
	/* A topic keeps it, for any number of its lingers. */
	CHECK(!test_wait_until(is_gone, &parent, 600));
	bus = test_bus_open();
	CHECK_EQ(test_bus_parent_pid(bus), parent);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	/* And so does a client. */
	CHECK(!test_wait_until(is_gone, &parent, 600));
	shmq_bus_close(bus);
	CHECK(test_wait_until(is_gone, &parent, 10000));
	CHECK(!test_bus_accepts());
	test_bus_stop();
}

TEST(a_supervisor_on_demand_goes_when_its_last_topic_had_a_log)
{
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t parent;

	test_bus_prepare();
	CHECK_EQ(test_join(shmqd("--on-demand", "--linger", "0.2")), 0);
	bus = test_bus_open();
	parent = test_bus_parent_pid(bus);
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "x", 1));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	shmq_bus_close(bus);
	CHECK(test_wait_until(is_gone, &parent, 10000));
	test_bus_stop();
}
