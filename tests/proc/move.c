/* SPDX-License-Identifier: MIT
 *
 * A topic moves to fresh rings: past a publisher that neither goes on nor
 * goes away, and under traffic.
 */
#include "deny.h"
#include "futex.h"
#include "pub.h"
#include "raw.h"

#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

enum { DEPTH = 1024 };

/* ---- past a stalled claim --------------------------------------------------- */

static int claim_and_stop(void *arg)
{
	_Atomic int *stage = arg;
	shmq_bus *bus = test_bus_open();
	struct raw raw;
	shmq_pub *pub;
	uint64_t seq;

	raw_open(&raw, bus, "t");
	pub = open_pub(bus, "t");
	seq = raw_claim(&raw);
	reach(stage, 1);
	CHECK_OK(raise(SIGSTOP));
	raw_write(&raw, seq, "late", 4, NULL);
	raw_commit(&raw, seq);
	raw_ring(&raw);
	CHECK_EQ(load_relaxed(&raw.w.mem->state), LAY_RING_MOVED);
	CHECK_ERROR(shmq_publish(pub, "too late", 8), SHMQ_EMOVED);
	shmq_pub_close(pub);
	raw_close(&raw);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_topic_moves_past_a_publisher_that_stands_inside_its_claim)
{
	_Atomic int *stage = shared_memory(4096);
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	for (uint64_t n = 0; n < 5; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	child = test_spawn(claim_and_stop, (void *)stage); /* takes 5 */
	await(stage, 1);
	for (uint64_t n = 6; n < 8; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_OK(shmq_topic_move(bus, "t"));
	for (uint64_t n = 0; n < 5; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
	}
	for (uint64_t n = 6; n < 8; n++) { /* they were sent, behind the claim */
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
	}
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EMOVED);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_ERROR(shmq_publish(pub, "old", 3), SHMQ_EMOVED);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	pub = open_pub(bus, "t");
	for (uint64_t n = 8; n < 8 + 3 * DEPTH; n++) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, n);
		CHECK_MEM(msg.data, &n, sizeof(n));
		if (n == 8 + DEPTH)
			CHECK_OK(kill(child, SIGCONT));
	}
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_EQ(topic_info(bus, "t").publishers, 1);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	shmq_bus_close(bus);
	test_bus_stop();
}

static int claim_and_stay(void *arg)
{
	struct raw raw;

	raw_open(&raw, test_bus_open(), "t");
	raw_claim(&raw);
	reach(arg, 1);
	pause();
	return 1;
}

/* A tracer keeps the dying from being dead, as a freezer would. */
TEST_WITHIN(of_one_that_survives_its_sigkill_the_log_says_what_to_do, 60)
{
	_Atomic int *stage = shared_memory(4096);
	int64_t deadline = test_now_ns() + PATIENCE;
	char command[300];
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "t");
	child = test_spawn(claim_and_stay, (void *)stage);
	await(stage, 1);
	if (ptrace(PTRACE_SEIZE, child, NULL, PTRACE_O_TRACEEXIT))
		SKIP("no ptrace here: %s", strerror(errno));
	while (!test_bus_log_has("got SIGKILL 10 s ago")) {
		CHECK_ERROR(shmq_receive(sub, &msg, SECOND / 2), SHMQ_ETIMEOUT);
		CHECK_LT(test_now_ns(), deadline);
	}
	snprintf(command, sizeof(command), "shmq move --bus %s --runtime-dir %s t", test_bus_name(),
		 test_bus_dir());
	CHECK(test_bus_log_has(command));
	CHECK_OK(shmq_topic_move(bus, "t"));
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EMOVED);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "on", 2));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.seq, 1);
	CHECK_EQ(waitpid(child, NULL, 0), child); /* in its last stop */
	CHECK_OK(ptrace(PTRACE_CONT, child, NULL, NULL));
	CHECK_EQ(test_join(child), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int open_and_stop(void *arg)
{
	_Atomic int *stage = arg;
	shmq_pub *pub = open_pub(test_bus_open(), "t");

	CHECK_OK(shmq_publish(pub, "one", 3));
	reach(stage, 1);
	pause();
	return 1;
}

TEST(a_moved_exclusive_topic_is_free_for_another_and_asleep_subscribers_are_told)
{
	_Atomic int *stage = shared_memory(4096);
	struct shmq_bus_info info;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	child = test_spawn(open_and_stop, (void *)stage);
	await(stage, 1);
	CHECK_OK(kill(child, SIGSTOP));
	CHECK_ERROR(shmq_pub_open(bus, "t", NULL, &pub), SHMQ_EEXCLUSIVE);
	CHECK_OK(shmq_topic_move(bus, "t"));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_ERROR(shmq_receive(sub, &msg, PATIENCE), SHMQ_EMOVED);
	shmq_sub_close(sub);
	pub = open_pub(bus, "t");
	/* A worker that adopts finds the new one, and the old one ended. */
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.topics, 1);
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	CHECK_OK(shmq_sub_open(bus, "t", NULL, &sub));
	CHECK_OK(shmq_publish(pub, "two", 3));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.seq, 1);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	CHECK_ERROR(shmq_topic_move(bus, "u"), SHMQ_ENOTOPIC);
	CHECK_ERROR(shmq_topic_move(bus, "a b"), SHMQ_ENAME);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* A publisher that is told so has committed all the same, behind what went before,
 * and a subscriber reads that.  In the new rings its seq is another's. */
TEST(what_was_refused_hides_nothing_of_the_fresh_rings)
{
	struct shmq_msg msg;
	shmq_pub *old, *fresh;
	uint64_t next = 0;
	shmq_bus *bus;
	shmq_sub *sub;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	sub = open_sub(bus, "t");
	old = open_pub(bus, "t");
	CHECK_OK(shmq_publish(old, "0", 1));
	CHECK_OK(shmq_topic_move(bus, "t"));
	CHECK_ERROR(shmq_publish(old, "refused", 7), SHMQ_EMOVED);
	CHECK_ERROR(shmq_publish(old, "again", 5), SHMQ_EMOVED);
	fresh = open_pub(bus, "t");
	CHECK_OK(shmq_publish(fresh, "1", 1));
	CHECK_OK(shmq_publish(fresh, "2", 1));
	while (!(rc = shmq_receive(sub, &msg, PATIENCE)))
		if (msg.len == 1)
			CHECK_EQ(*(const char *)msg.data, '0');
	CHECK_ERROR(rc, SHMQ_EMOVED);
	CHECK_EQ(msg.seq, 1); /* where the fresh ones begin */
	CHECK_EQ(msg.partition, 0);
	next = msg.seq;
	CHECK_ERROR(shmq_receive(sub, &msg, SHMQ_NOWAIT), SHMQ_EMOVED);
	CHECK_EQ(msg.seq, next);
	shmq_sub_close(sub);
	sub = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = next);
	for (; next < 3; next++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, next);
		CHECK_EQ(*(const char *)msg.data, (char)('0' + next));
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* A part of the batch was claimed before the end and a part behind it: its publisher is
 * refused all of it.  The log has none of it, and all that others sent in between. */
static void check_refused_batch(enum shmq_log log)
{
	struct shmq_msg msg;
	struct raw raw;
	shmq_pub *pub;
	shmq_bus *bus;
	shmq_sub *sub;
	uint64_t at[3];
	unsigned i;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT,
	       .log = log);
	raw_open(&raw, bus, "t");
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "0", 1));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	at[0] = raw_claim(&raw);
	CHECK_OK(shmq_publish(pub, "2", 1));
	at[1] = raw_claim(&raw);
	CHECK_OK(shmq_publish(pub, "4", 1));
	CHECK_OK(shmq_topic_move(bus, "t"));
	at[2] = raw_claim(&raw);
	CHECK_EQ(at[2], 5);
	for (i = 0; i < 3; i++) {
		struct lay_batch batch = { at[0], i, 3 };

		raw_write(&raw, at[i], "refused", 7, &batch);
	}
	while (i--)
		raw_commit(&raw, at[i]);
	raw_ring(&raw);
	CHECK_EQ(load_relaxed(&raw.w.mem->state), LAY_RING_MOVED);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	shmq_pub_close(pub);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "5", 1));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 5, SHMQ_WRITTEN, PATIENCE));
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	for (i = 0; i < 6; i++) {
		if (i == at[0] || i == at[1])
			continue;
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.seq, i);
		CHECK_EQ(msg.len, 1);
		CHECK_EQ(*(const char *)msg.data, (char)('0' + i));
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	raw_close(&raw);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(of_a_batch_that_a_move_cuts_through_the_log_has_nothing_and_all_that_others_sent)
{
	check_refused_batch(SHMQ_LOG_BLOCK);
}

TEST(likewise_where_publishers_do_not_wait_for_it)
{
	check_refused_batch(SHMQ_LOG_GAP);
}

/* A tailer that is not there in time cannot have them any more; who reads the log is told. */
TEST(what_no_tailer_wrote_before_a_topic_moved_is_told_as_lost)
{
	struct shmq_msg msg;
	uint64_t lost = 0;
	shmq_pub *pub;
	shmq_bus *bus;
	shmq_sub *sub;
	int rc;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "first", .depth = DEPTH, .log = SHMQ_LOG_BLOCK); /* there is a tailer */
	pub = open_pub(bus, "first");
	CHECK_OK(shmq_publish(pub, "0", 1));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	shmq_pub_close(pub);
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "0", 1));
	CHECK_OK(shmq_publish(pub, "1", 1));
	CHECK_OK(shmq_topic_move(bus, "t"));
	shmq_pub_close(pub);
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "2", 1));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, 2, SHMQ_WRITTEN, PATIENCE));
	sub = open_sub(bus, "t", .from = SHMQ_FROM_OLDEST);
	while ((rc = shmq_receive(sub, &msg, PATIENCE)) == SHMQ_EOVERRUN)
		lost += msg.lost;
	CHECK_OK(rc);
	CHECK_EQ(msg.seq, 2);
	CHECK_EQ(lost, 2);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- under traffic ------------------------------------------------------------ */

struct traffic {
	_Atomic int stop, stopped, moves;
	_Atomic uint64_t sent, received;
};

static int send_traffic(void *arg)
{
	struct traffic *t = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");
	uint64_t n = 0;
	int rc;

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	while (!atomic_load(&t->stop)) {
		rc = shmq_publish(pub, &n, sizeof(n));
		if (rc == SHMQ_EMOVED) {
			shmq_pub_close(pub);
			pub = open_pub(bus, "t");
			/* With nobody there yet it would run round the ring. */
			rc = shmq_pub_wait_subscribers(pub, 1, PATIENCE);
			if (rc != SHMQ_EENDED && rc != SHMQ_EMOVED)
				CHECK_OK(rc);
			continue; /* the same message again */
		}
		CHECK_OK(rc);
		atomic_store(&t->sent, ++n);
		sched_yield();
	}
	atomic_store(&t->stopped, 1);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static int receive_traffic(void *arg)
{
	struct traffic *t = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t");
	uint64_t next = 0, next_seq = 0, n;
	struct shmq_msg msg;
	int rc;

	/* Until then the publisher may be about to wait for this subscriber. */
	while (!atomic_load(&t->stopped) || next < atomic_load(&t->sent)) {
		rc = shmq_receive(sub, &msg, 10 * MILLISECOND);
		if (rc == SHMQ_ETIMEOUT)
			continue;
		if (rc == SHMQ_EMOVED) {
			CHECK_LE(msg.seq, next_seq);
			shmq_sub_close(sub);
			sub = open_sub(bus, "t", .from = SHMQ_FROM_SEQ, .seq = msg.seq);
			atomic_fetch_add(&t->moves, 1);
			continue;
		}
		CHECK_OK(rc);
		memcpy(&n, msg.data, sizeof(n));
		/* One whose publisher was told EMOVED may have been read all the same. */
		if (n != next && n + 1 != next)
			FAIL("message %llu with seq %llu came after %d moves; wanted message %llu, seq %llu",
			     (unsigned long long)n, (unsigned long long)msg.seq,
			     atomic_load(&t->moves), (unsigned long long)next,
			     (unsigned long long)next_seq);
		next = n + 1;
		next_seq = msg.seq + 1;
		atomic_store(&t->received, next);
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

static _Atomic pid_t victim;

static void *kill_soon(void *arg)
{
	usleep((useconds_t)(uintptr_t)arg);
	kill(atomic_load(&victim), SIGKILL);
	return NULL;
}

static void move_under_traffic(int moves, uint64_t depth, unsigned kill_within_us)
{
	struct traffic *t = shared_memory(sizeof(*t));
	struct shmq_bus_info info;
	pid_t publisher, subscriber;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = depth);
	publisher = test_spawn(send_traffic, t);
	subscriber = test_spawn(receive_traffic, t);
	for (int i = 1; i <= moves; i++) {
		uint64_t from = atomic_load(&t->received);
		pthread_t killer;

		while (atomic_load(&t->received) < from + 100)
			test_sleep_ms(1);
		if (kill_within_us) {
			uintptr_t us = mix((uint64_t)i) % kill_within_us;

			atomic_store(&victim, test_bus_worker_pid(bus));
			CHECK_EQ(pthread_create(&killer, NULL, kill_soon, (void *)us), 0);
		}
		CHECK_OK(shmq_topic_move(bus, "t"));
		if (kill_within_us)
			CHECK_EQ(pthread_join(killer, NULL), 0);
		await(&t->moves, i);
		while (topic_info(bus, "t").subscribers != 1 ||
		       topic_info(bus, "t").publishers != 1)
			test_sleep_ms(1);
	}
	atomic_store(&t->stop, 1);
	CHECK_EQ(test_join(publisher), 0);
	CHECK_EQ(test_join(subscriber), 0);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.topics, 0);
	CHECK_LT(info.bytes, 64 << 20); /* not one ring for each move */
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_topic_moved_again_and_again_under_traffic_loses_nothing)
{
	move_under_traffic(20, 32 * DEPTH, 0); /* 4 MiB: populated by a child */
}

TEST_WITHIN(a_worker_killed_while_it_moves_a_topic_leaves_one_of_that_name, 60)
{
	move_under_traffic(8, DEPTH, 400);
	move_under_traffic(5, 32 * DEPTH, 8000);
}

/* ---- denied a system call ------------------------------------------------------- */

/* This program is started in place of the supervisor, and becomes that. */
__attribute__((constructor)) static void become_supervisor(int argc, char **argv)
{
	const char *program = getenv("SHMQ_TEST_DENIED");

	(void)argc;
	if (!program)
		return;
	deny_call(SYS_membarrier);
	unsetenv("SHMQ_TEST_DENIED");
	execv(program, argv);
	_exit(127);
}

TEST(a_supervisor_without_membarrier_has_publishers_fence_and_loses_nothing)
{
	char self[PATH_MAX] = "";
	shmq_bus *bus;
	shmq_pub *pub;

	if (shmq__membarrier_register())
		SKIP("this kernel has no membarrier");
	CHECK_GT(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
	CHECK_OK(setenv("SHMQ_TEST_DENIED", test_bus_daemon(), 1));
	CHECK_OK(setenv("SHMQ_DAEMON", self, 1));
	test_bus_start();
	bus = test_bus_open();
	create(bus, "u", .depth = DEPTH);
	CHECK(test_bus_log_has("membarrier(2) is denied to the supervisor"));
	pub = open_pub(bus, "u");
	CHECK_EQ(pub->fence, SHMQ__FENCE_FULL);
	CHECK_EQ(pub->sleep_fence, SHMQ__FENCE_LIGHT);
	shmq_bus_close(bus);
	test_bus_stop();
	move_under_traffic(5, DEPTH, 0);
}

TEST(a_client_without_membarrier_publishes_and_is_woken)
{
	struct shmq_msg msg;
	_Atomic int *got = shared_memory(sizeof(*got));
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t pid;
	int i;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	pid = fork();
	CHECK_GE(pid, 0);
	if (!pid) {
		shmq_sub *sub;

		deny_call(SYS_membarrier);
		bus = test_bus_open();
		sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
		for (i = 0; i < 100; i++) {
			CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
			atomic_store(got, i + 1);
		}
		pub = open_pub(bus, "u");
		CHECK_EQ(pub->fence, SHMQ__FENCE_FULL);
		_exit(0);
	}
	create(bus, "u", .depth = DEPTH);
	pub = open_pub(bus, "t");
	CHECK_EQ(pub->fence, shmq__membarrier_register() ? SHMQ__FENCE_FULL : SHMQ__FENCE_LIGHT);
	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (i = 0; i < 100; i++) {
		CHECK_OK(shmq_publish(pub, "m", 1));
		await(got, i + 1);
	}
	CHECK_EQ(test_join(pid), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
