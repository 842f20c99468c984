/* SPDX-License-Identifier: MIT
 *
 * What a machine does to processes that they did not ask for: it runs out of
 * room, stops them all, takes processors away, gives a number twice.  What
 * would hurt others on this machine is done to one of our own, by
 * tests/guest/machine.c.
 */
#include "proc.h"
#include "raw.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { DEPTH = 1024 };

static void check_works(shmq_bus *bus)
{
	char large[3000];
	struct shmq_msg msg;
	shmq_pub *pub;
	shmq_sub *sub;

	create(bus, "probe", .depth = DEPTH, .max_message_bytes = sizeof(large));
	sub = open_sub(bus, "probe");
	pub = open_pub(bus, "probe");
	fill(large, sizeof(large), 7);
	CHECK_OK(shmq_publish(pub, large, sizeof(large)));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK(is_filled(msg.data, sizeof(large), 7));
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	CHECK_OK(shmq_topic_remove(bus, "probe", 0));
}

/* ---- file systems ------------------------------------------------------------ */

/* From here on this test and its children see mounts of their own. */
static void need_own_mounts(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		SKIP("no mounts of its own: %s", strerror(errno));
}

static void mount_small(const char *dir, const char *how)
{
	if (mount("tmpfs", dir, "tmpfs", 0, how))
		FAIL("mounting %s on %s: %s", how, dir, strerror(errno));
}

static void remount(const char *dir, unsigned long flags, const char *how)
{
	if (mount(NULL, dir, NULL, MS_REMOUNT | flags, how))
		FAIL("mounting %s again: %s", dir, strerror(errno));
}

/* To the last byte. */
static void fill_up(const char *dir)
{
	static const char zeros[4096];
	char path[PATH_MAX];
	int fd;

	CHECK_LT(snprintf(path, sizeof(path), "%s/filler", dir), PATH_MAX);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK_GE(fd, 0);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	CHECK_EQ(errno, ENOSPC);
	close(fd);
}

static void remove_filler(const char *dir)
{
	char path[PATH_MAX];

	CHECK_LT(snprintf(path, sizeof(path), "%s/filler", dir), PATH_MAX);
	CHECK_OK(unlink(path));
}

TEST(a_full_dev_shm_is_nothing_to_a_bus)
{
	shmq_bus *bus;

	need_own_mounts();
	mount_small("/dev/shm", "size=4k");
	fill_up("/dev/shm");
	test_bus_start();
	bus = test_bus_open();
	check_works(bus);
	create(bus, "large", .depth = 65536);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* A start there says `why`, and leaves nothing behind. */
static void check_no_start(const char *why)
{
	struct shmq_bus_options o = { .size = sizeof(o), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus;

	o.runtime_dir = test_bus_dir();
	CHECK_ERROR(shmq_bus_open(test_bus_name(), &o, &bus), SHMQ_ENODAEMON);
	check_says(why);
	check_says(test_bus_dir());
}

TEST(in_a_full_runtime_directory_no_bus_starts_and_the_reason_is_named)
{
	shmq_bus *bus;

	need_own_mounts();
	test_bus_prepare();
	mount_small(test_bus_dir(), "mode=700,nr_inodes=1"); /* that of the directory */
	check_no_start("No space left on device");
	remount(test_bus_dir(), 0, "nr_inodes=100");
	test_bus_restart();
	bus = test_bus_open();
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(in_a_read_only_runtime_directory_no_bus_starts_and_the_reason_is_named)
{
	shmq_bus *bus;

	need_own_mounts();
	test_bus_prepare();
	mount_small(test_bus_dir(), "mode=700");
	remount(test_bus_dir(), MS_RDONLY, NULL);
	check_no_start("Read-only file system");
	remount(test_bus_dir(), 0, NULL);
	test_bus_restart();
	bus = test_bus_open();
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

struct others {
	shmq_bus *bus;
	pid_t parent, worker;
};

static int are_others(void *arg)
{
	const struct others *was = arg;
	struct shmq_bus_info info;

	return !shmq_bus_get_info(was->bus, &info) && info.daemon_pid != was->worker &&
	       info.parent_pid && info.parent_pid != was->parent && shmq_bus_is_attached(was->bus);
}

/* Worker and parent are replaced, one after the other, and clients come. */
static void replace_supervisor(shmq_bus *bus)
{
	struct others was = { bus, 0, test_bus_worker_pid(bus) };
	shmq_bus *fresh;

	CHECK_OK(kill(was.worker, SIGKILL));
	if (!test_wait_until(are_others, &was, 30000))
		FAIL("there is no new worker");
	was = (struct others){ bus, test_bus_parent_pid(bus), 0 };
	CHECK_OK(kill(was.parent, SIGKILL));
	if (!test_wait_until(are_others, &was, 30000))
		FAIL("there is no new parent");
	check_works(bus);
	fresh = test_bus_open();
	check_works(fresh);
	shmq_bus_close(fresh);
}

static void check_goes_on(void (*spoil)(const char *dir), void (*mend)(const char *dir))
{
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	need_own_mounts();
	test_bus_prepare();
	mount_small(test_bus_dir(), "mode=700,size=64k");
	test_bus_restart();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_publish(pub, "before", 6));
	spoil(test_bus_dir());
	replace_supervisor(bus);
	CHECK_OK(shmq_publish(pub, "after", 5));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "before", 6);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "after", 5);
	mend(test_bus_dir());
	replace_supervisor(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_whose_runtime_directory_becomes_full_goes_on)
{
	check_goes_on(fill_up, remove_filler);
}

static void make_read_only(const char *dir)
{
	remount(dir, MS_RDONLY, NULL);
}

static void make_writable(const char *dir)
{
	remount(dir, 0, NULL);
}

TEST(a_bus_whose_runtime_directory_becomes_read_only_goes_on)
{
	check_goes_on(make_read_only, make_writable);
}

/* ---- everything stops ---------------------------------------------------------- */

static int claim_and_stop(void *arg)
{
	shmq_bus *bus = test_bus_open();
	struct raw r;
	uint64_t seq;

	(void)arg;
	raw_open(&r, bus, "t");
	raise(SIGSTOP);
	seq = raw_claim(&r);
	raise(SIGSTOP);
	raw_write(&r, seq, "claimed", 7, NULL);
	raw_commit(&r, seq);
	raw_ring(&r);
	raw_close(&r);
	shmq_bus_close(bus);
	return 0;
}

static int receive_claimed(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	struct shmq_msg msg;

	(void)arg;
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "claimed", 7);
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	return 0;
}

static int overfill(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "full", .wait = SHMQ_WAIT_SLEEP);

	(void)arg;
	for (int n = 0; n < 2 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	shmq_bus_close(bus);
	return 0;
}

static void await_stopped(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
}

TEST(all_processes_of_a_bus_may_be_stopped_for_longer_than_any_patience)
{
	enum { PARENT, WORKER, READER, BLOCKED, CLAIMER, ALL };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t pid[ALL];

	pid[PARENT] = test_bus_start();
	bus = test_bus_open();
	pid[WORKER] = test_bus_worker_pid(bus);
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED); /* stall = kill */
	create(bus, "full", .depth = DEPTH);
	sub = open_sub(bus, "full");
	pid[CLAIMER] = test_spawn(claim_and_stop, NULL);
	await_stopped(pid[CLAIMER]);
	pid[READER] = test_spawn(receive_claimed, NULL);
	pid[BLOCKED] = test_spawn(overfill, NULL);
	await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, 1);
	await_sleepers(bus, "full", SHMQ_ROLE_PUBLISHER, 1);
	/* The worker first: it must not see that others stand while it goes. */
	for (int i = 0; i < CLAIMER; i++)
		CHECK_OK(kill(pid[i], SIGSTOP));
	CHECK_OK(kill(pid[CLAIMER], SIGCONT));
	await_stopped(pid[CLAIMER]); /* now in its claim */
	test_sleep_ms(2000);         /* of what is tested, there is no other */
	for (int i = 0; i < ALL; i++)
		CHECK_OK(kill(pid[i], SIGCONT));
	CHECK_EQ(test_join(pid[CLAIMER]), 0);
	CHECK_EQ(test_join(pid[READER]), 0);
	for (int n = 0; n < 2 * DEPTH; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	CHECK_EQ(test_join(pid[BLOCKED]), 0);
	CHECK_EQ(test_bus_worker_pid(bus), pid[WORKER]);
	CHECK_EQ(test_bus_parent_pid(bus), pid[PARENT]);
	check_works(bus);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- processors ------------------------------------------------------------------- */

enum { MESSAGES = 20000 };

static void shrink_to_one_processor(void)
{
	cpu_set_t set, one;
	int cpu = 0;

	CHECK_OK(sched_getaffinity(0, sizeof(set), &set));
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK_OK(sched_setaffinity(0, sizeof(one), &one));
}

static int publish_while_shrinking(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .wait = *(enum shmq_wait *)arg);

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (int n = 0; n < MESSAGES; n++) {
		if (n == MESSAGES / 3)
			shrink_to_one_processor();
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	}
	shmq_bus_close(bus);
	return 0;
}

static int receive_while_shrinking(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .wait = *(enum shmq_wait *)arg);
	struct shmq_msg msg;

	for (int n = 0; n < MESSAGES; n++) {
		if (n == MESSAGES / 2)
			shrink_to_one_processor();
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	shmq_bus_close(bus);
	return 0;
}

TEST(a_stream_goes_on_when_all_its_processes_are_left_one_processor)
{
	static enum shmq_wait modes[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_YIELD, SHMQ_WAIT_ADAPTIVE,
					  SHMQ_WAIT_SLEEP };
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (size_t i = 0; i < COUNT(modes); i++) {
		pid_t reader, writer;

		create(bus, "t", .depth = DEPTH);
		reader = test_spawn(receive_while_shrinking, &modes[i]);
		writer = test_spawn(publish_while_shrinking, &modes[i]);
		CHECK_EQ(test_join(writer), 0);
		CHECK_EQ(test_join(reader), 0);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- a number that is given twice ------------------------------------------------- */

/* A child that has that number, which nobody may have; or -1. */
static pid_t spawn_as(pid_t number)
{
	struct clone_args args = { .exit_signal = SIGCHLD,
				   .set_tid = (uintptr_t)&number,
				   .set_tid_size = 1 };
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (pid)
		return pid;
	for (;;)
		pause();
}

/* In ticks, as it is told apart by. */
static uint64_t start_time(pid_t pid)
{
	struct shmq__proc_id id;

	CHECK_OK(shmq__proc_identify(pid, &id));
	return id.start_time;
}

/* The stopped child dies, and another has its number, a tick later or more. */
static pid_t replace_by_stranger(pid_t child)
{
	uint64_t started = start_time(child);
	pid_t stranger;

	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	for (;;) {
		stranger = spawn_as(child);
		CHECK_EQ(stranger, child);
		if (start_time(stranger) != started)
			return stranger;
		CHECK_EQ(test_kill_wait(stranger, SIGKILL), 128 + SIGKILL);
	}
}

static int end_at_once(void *arg)
{
	(void)arg;
	return 0;
}

static void need_numbers(void)
{
	pid_t pid = test_spawn(end_at_once, NULL);

	CHECK_EQ(test_join(pid), 0);
	if (spawn_as(pid) != pid)
		SKIP("no process can be given a number: %s", strerror(errno));
	CHECK_EQ(test_kill_wait(pid, SIGKILL), 128 + SIGKILL);
}

static int publish_and_claim(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *own = open_pub(bus, "own");
	struct raw r;

	(void)arg;
	CHECK_OK(shmq_publish(own, "mine", 4));
	raw_open(&r, bus, "t");
	raw_claim(&r);
	raise(SIGSTOP);
	return 1;
}

static int has_no_publisher(void *arg)
{
	const struct others *o = arg;

	return !topic_info(o->bus, "own").publishers;
}

/* A death that no worker saw is no event, but it shows. */
static void await_no_publisher(shmq_bus *bus)
{
	struct others o = { .bus = bus };

	if (!test_wait_until(has_no_publisher, &o, 30000))
		FAIL("the dead client still publishes");
}

/* Nobody sees the client die, since there is no worker, and then its number
 * belongs to somebody. */
TEST(a_process_with_the_number_of_a_dead_client_is_not_taken_for_it)
{
	pid_t parent, child, stranger;
	struct shmq_msg msg;
	shmq_sub *sub, *own;
	shmq_bus *bus;
	shmq_pub *pub;

	need_numbers();
	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "own", .depth = DEPTH);
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED); /* stall = kill */
	own = open_sub(bus, "own");
	sub = open_sub(bus, "t");
	child = test_spawn(publish_and_claim, NULL);
	await_stopped(child);
	CHECK_OK(kill(parent, SIGSTOP));
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	stranger = replace_by_stranger(child);
	CHECK_OK(kill(parent, SIGCONT));
	await_no_publisher(bus);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish(pub, "behind", 6)); /* the claim, which is void */
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "behind", 6);
	CHECK_OK(shmq_receive(own, &msg, PATIENCE));
	CHECK_MEM(msg.data, "mine", 4);
	shmq_pub_close(open_pub(bus, "own")); /* which is exclusive */
	CHECK_EQ(waitpid(stranger, NULL, WNOHANG), 0);
	CHECK_EQ(test_kill_wait(stranger, SIGKILL), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Without a worker it is a peer who comes to the claim, and repairs. */
TEST(a_peer_does_not_take_a_process_with_the_number_of_a_dead_publisher_for_it)
{
	pid_t parent, child, stranger;
	shmq_bus *bus;
	shmq_pub *pub;

	need_numbers();
	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "own", .depth = DEPTH);
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .policy = SHMQ_LOSSY);
	pub = open_pub(bus, "t");
	child = test_spawn(publish_and_claim, NULL);
	await_stopped(child);
	CHECK_OK(kill(parent, SIGSTOP));
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	stranger = replace_by_stranger(child);
	for (int n = 0; n < 2 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	CHECK_EQ(waitpid(stranger, NULL, WNOHANG), 0);
	CHECK_OK(kill(parent, SIGCONT));
	await_no_publisher(bus);
	CHECK_EQ(waitpid(stranger, NULL, WNOHANG), 0);
	CHECK_EQ(test_kill_wait(stranger, SIGKILL), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- threads and signal handlers ---------------------------------------------------- */

struct legacy {
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	void *claimed;
};

static void *open_and_exit(void *arg)
{
	struct legacy *l = arg;

	l->bus = test_bus_open();
	create(l->bus, "t", .depth = DEPTH, .max_message_bytes = 3000);
	l->sub = open_sub(l->bus, "t", .wait = SHMQ_WAIT_SLEEP);
	l->pub = open_pub(l->bus, "t");
	CHECK_OK(shmq_publish(l->pub, "published", 9));
	CHECK_OK(shmq_claim(l->pub, 2000, &l->claimed));
	return NULL;
}

TEST(handles_outlive_the_thread_that_opened_them)
{
	struct legacy l = { 0 };
	struct shmq_msg msg;
	pthread_t thread;

	test_bus_start();
	CHECK_EQ(pthread_create(&thread, NULL, open_and_exit, &l), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_OK(shmq_receive(l.sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "published", 9);
	fill(l.claimed, 2000, 3);
	CHECK_OK(shmq_commit(l.pub, &(struct shmq_msg){ .data = l.claimed, .len = 2000 }));
	CHECK_OK(shmq_receive(l.sub, &msg, PATIENCE));
	CHECK(is_filled(msg.data, 2000, 3));
	/* Nobody has been taken for dead: the process lives. */
	CHECK_OK(kill(test_bus_worker_pid(l.bus), SIGKILL));
	check_works(l.bus);
	CHECK_EQ(topic_info(l.bus, "t").publishers, 1);
	CHECK_EQ(topic_info(l.bus, "t").subscribers, 1);
	shmq_bus_close(l.bus);
	test_bus_stop();
}

/* Which a handler may have interrupted, and would wait for without end. */
TEST(a_publish_takes_nothing_from_malloc)
{
	enum { SUBSCRIBERS = 9, BATCH = 8, PIECES = 200 };
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	struct shmq_msg batch[BATCH] = { { 0 } };
	char large[3000];
	shmq_bus *bus, *other;
	size_t before;
	shmq_pub *pub;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &bus));
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .max_message_bytes = sizeof(large));
	pub = open_pub(bus, "t");
	other = test_bus_open();
	for (int i = 0; i < SUBSCRIBERS; i++)
		open_sub(other, "t");
	fill(large, sizeof(large), 1);
	for (int i = 0; i < BATCH; i++)
		batch[i] = (struct shmq_msg){ .data = large, .len = 8 };
	before = mallinfo2().uordblks;
	for (int i = 0; i < PIECES; i++)
		CHECK_OK(shmq_publish(pub, large, sizeof(large)));
	CHECK_EQ(shmq_publish_batch(pub, batch, BATCH, SHMQ_ATOMIC), BATCH);
	CHECK_EQ(mallinfo2().uordblks, before);
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

enum { HANDLED = 300, FROM_MAIN = 1, FROM_HANDLER = 2 };

struct numbered {
	int from;
	uint64_t n;
	char rest[600];
};

static shmq_pub *handler_pub;
static volatile sig_atomic_t handler_count, handler_error;

static void publish_numbered(shmq_pub *pub, int from, uint64_t n, int *error)
{
	struct numbered m = { .from = from, .n = n };
	int rc;

	fill(m.rest, sizeof(m.rest), n + (uint64_t)from);
	rc = shmq_publish(pub, &m, n % 2 ? sizeof(m) : offsetof(struct numbered, rest));
	if (rc)
		*error = rc;
}

static void on_alarm(int sig)
{
	int error = 0;

	(void)sig;
	publish_numbered(handler_pub, FROM_HANDLER, (uint64_t)handler_count, &error);
	handler_count++;
	if (error)
		handler_error = error;
}

static int receive_both(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t", .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	const struct numbered *m;
	uint64_t next[3] = { 0 };
	struct shmq_msg msg;
	int rc;

	(void)arg;
	while (!(rc = shmq_receive(sub, &msg, PATIENCE))) {
		m = msg.data;
		CHECK(m->from == FROM_MAIN || m->from == FROM_HANDLER);
		CHECK_EQ(m->n, next[m->from]);
		next[m->from]++;
		if (msg.len == sizeof(*m))
			CHECK(is_filled(m->rest, sizeof(m->rest), m->n + (uint64_t)m->from));
	}
	CHECK_ERROR(rc, SHMQ_EENDED);
	CHECK_EQ(sub_stats(sub).lost, 0);
	CHECK_GE(next[FROM_HANDLER], HANDLED);
	NOTE("%llu messages, %llu from a handler", (unsigned long long)next[FROM_MAIN],
	     (unsigned long long)next[FROM_HANDLER]);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_handler_may_publish_to_the_topic_whose_publish_it_interrupts)
{
	struct itimerval often = { { 0, 200 }, { 0, 200 } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	shmq_pub *pub;
	shmq_bus *bus;
	pid_t reader;
	int error = 0;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED,
	       .max_message_bytes = sizeof(struct numbered));
	pub = open_pub(bus, "t");
	handler_pub = open_pub(bus, "t");
	reader = test_spawn(receive_both, NULL);
	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	CHECK_OK(sigaction(SIGALRM, &action, NULL));
	CHECK_OK(setitimer(ITIMER_REAL, &often, NULL));
	for (uint64_t n = 0; handler_count < HANDLED && !error; n++)
		publish_numbered(pub, FROM_MAIN, n, &error);
	CHECK_OK(setitimer(ITIMER_REAL, &never, NULL));
	CHECK_OK(error);
	CHECK_OK(handler_error);
	shmq_pub_close(handler_pub);
	shmq_pub_close(pub);
	CHECK_EQ(test_join(reader), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}
