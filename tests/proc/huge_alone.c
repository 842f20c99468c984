/* SPDX-License-Identifier: MIT
 *
 * With hugepages: used where they are there, by name refused where they are
 * not, and given back.  The pool is the machine's, so these run alone, and
 * leave it as it was.
 */
#include "helpers.h"
#include "punch.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>

#define POOL "/proc/sys/vm/nr_hugepages"
#define HUGE (UINT64_C(2) << 20)

enum { PAGES = 40 };

static long pool_before;
static pid_t runner;

static long read_pool(void)
{
	FILE *file = fopen(POOL, "re");
	long n = -1;

	if (file && fscanf(file, "%ld", &n) != 1)
		n = -1;
	if (file)
		fclose(file);
	return n;
}

static void write_pool(long n)
{
	FILE *file = fopen(POOL, "we");

	if (!file)
		return;
	fprintf(file, "%ld\n", n);
	fclose(file);
}

/* In the process that runs the tests, not in those that are the tests. */
__attribute__((constructor)) static void note_pool(void)
{
	pool_before = read_pool();
	runner = getpid();
}

__attribute__((destructor)) static void restore_pool(void)
{
	if (getpid() == runner && pool_before >= 0 && read_pool() != pool_before)
		write_pool(pool_before);
}

static unsigned long free_pages(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long n = 0, free = 0, reserved = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "HugePages_Free: %lu", &n) == 1)
			free = n;
		if (sscanf(line, "HugePages_Rsvd: %lu", &n) == 1)
			reserved = n;
	}
	if (file)
		fclose(file);
	return free - reserved;
}

/* A pool of exactly so many free pages. */
static void need_hugepages(void)
{
	write_pool(PAGES);
	if (free_pages() != PAGES)
		SKIP("no hugepages: this machine does not give %d", PAGES);
}

/* A topic removed is given back by a process of its own, a moment later. */
static int all_are_free(void *arg)
{
	(void)arg;
	return free_pages() == PAGES;
}

static int stream(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, arg);
	static char buf[3000];

	CHECK_OK(shmq_pub_wait_subscribers(pub, 1, PATIENCE));
	for (uint64_t n = 0; n < 100000; n++) {
		fill(buf, n % 10 ? 100 : 3000, n);
		CHECK_OK(shmq_publish(pub, buf, n % 10 ? 100 : 3000));
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static void check_stream(shmq_bus *bus, const char *topic)
{
	shmq_sub *sub = open_sub(bus, topic);
	pid_t child = test_spawn(stream, (void *)(uintptr_t)topic);
	struct shmq_msg msg;

	for (uint64_t n = 0; n < 100000; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_EQ(msg.len, n % 10 ? 100 : 3000);
		CHECK(is_filled(msg.data, msg.len, n));
	}
	CHECK_EQ(test_join(child), 0);
	shmq_sub_close(sub);
}

TEST(a_ring_that_fills_a_hugepage_is_made_of_them_and_gives_them_back)
{
	struct shmq_topic_info info;
	struct shmq_plan plan;
	shmq_bus *bus;

	need_hugepages();
	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_topic_plan(bus, "auto",
				 TOPIC_OPTIONS(.depth = 32768, .max_message_bytes = 3000), &plan));
	CHECK_EQ(plan.page_bytes, HUGE);
	CHECK_EQ(plan.ring_bytes, 3 * HUGE); /* 4 MiB of slots and a header */
	CHECK_EQ(free_pages(), PAGES);
	create(bus, "auto", .depth = 32768, .max_message_bytes = 3000);
	info = topic_info(bus, "auto");
	CHECK_EQ(info.page_bytes, HUGE);
	CHECK_EQ(info.ring_bytes, plan.ring_bytes);
	CHECK_STR(info.note, "");
	CHECK_EQ(free_pages(), PAGES - 3);
	create(bus, "asked", .depth = 1024, .pages = SHMQ_PAGES_2M);
	CHECK_EQ(topic_info(bus, "asked").page_bytes, HUGE);
	CHECK_EQ(free_pages(), PAGES - 4);
	create(bus, "small", .depth = 1024); /* would leave most of one empty */
	CHECK_EQ(topic_info(bus, "small").page_bytes, 4096);
	create(bus, "not", .depth = 32768, .pages = SHMQ_PAGES_4K);
	CHECK_EQ(topic_info(bus, "not").page_bytes, 4096);
	CHECK_EQ(free_pages(), PAGES - 4);
	check_stream(bus, "auto");

	CHECK_OK(shmq_topic_remove(bus, "auto", 0));
	CHECK_OK(shmq_topic_remove(bus, "asked", 0));
	CHECK(test_wait_until(all_are_free, NULL, 10000));
	shmq_bus_close(bus);
	test_bus_stop();
	CHECK_EQ(free_pages(), PAGES);
}

TEST(hugepages_run_out_by_name_and_automatic_topics_fall_back)
{
	struct shmq_topic_info info;
	char topic[16];
	shmq_bus *bus;
	int count = 0, rc;

	need_hugepages();
	test_bus_start();
	bus = test_bus_open();
	for (;; count++) {
		snprintf(topic, sizeof(topic), "t%d", count);
		rc = shmq_topic_create(bus, topic,
				       TOPIC_OPTIONS(.depth = 32768, .pages = SHMQ_PAGES_2M), NULL);
		if (rc)
			break;
		CHECK_EQ(topic_info(bus, topic).page_bytes, HUGE);
	}
	CHECK_ERROR(rc, SHMQ_ENOHUGE);
	CHECK(strstr(shmq_bus_error(bus), "nr_hugepages") != NULL);
	CHECK_EQ(count, PAGES / 3);
	CHECK_EQ(free_pages(), PAGES % 3); /* the refusal took none */
	create(bus, "auto", .depth = 32768);
	info = topic_info(bus, "auto");
	CHECK_EQ(info.page_bytes, 4096);
	CHECK(strstr(info.note, "nr_hugepages") != NULL);
	CHECK_OK(shmq_topic_remove(bus, "t0", 0));
	while (free_pages() != PAGES % 3 + 3)
		test_sleep_ms(1);
	create(bus, "t0", .depth = 32768, .pages = SHMQ_PAGES_2M);
	check_stream(bus,
		     (create(bus, "probe", .depth = 1024, .max_message_bytes = 3000), "probe"));
	shmq_bus_close(bus);
	test_bus_stop();
	CHECK_EQ(free_pages(), PAGES); /* the bus is gone, and all it had */
}

static int publish_large_and_die(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .arena_bytes = 4 * HUGE);
	static char buf[1 << 20];

	(void)arg;
	fill(buf, sizeof(buf), 1);
	CHECK_OK(shmq_publish(pub, buf, sizeof(buf)));
	raise(SIGKILL);
	return 1;
}

TEST(arenas_of_hugepages_outlive_their_publishers_and_are_given_back)
{
	struct shmq_msg msg;
	unsigned long left = 0;
	shmq_bus *bus;
	shmq_sub *sub;

	need_hugepages();
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 1024, .max_message_bytes = 1 << 20);
	sub = open_sub(bus, "t");
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(test_join(test_spawn(publish_large_and_die, NULL)), 128 + SIGKILL);
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK(is_filled(msg.data, 1 << 20, 1));
		await_event(bus, SHMQ_EVENT_DIED, 0);
		if (!i)
			left = free_pages();
		CHECK_EQ(free_pages(), left); /* one arena, adopted ten times */
	}
	CHECK_LT(left, PAGES);
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	create(bus, "probe", .depth = 1024);
	CHECK_EQ(free_pages(), left);
	shmq_sub_close(sub);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	CHECK(test_wait_until(all_are_free, NULL, 10000));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_whose_supervisor_was_killed_gives_its_hugepages_back_with_the_last_client)
{
	shmq_bus *bus;
	pid_t parent;

	need_hugepages();
	parent = test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 32768);
	open_pub(bus, "t");
	CHECK_EQ(free_pages(), PAGES - 3);
	CHECK_OK(kill(parent, SIGSTOP));
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	CHECK_OK(kill(parent, SIGKILL));
	CHECK_EQ(test_join(parent), 128 + SIGKILL);
	CHECK_EQ(free_pages(), PAGES - 3);
	shmq_bus_close(bus);
	CHECK(test_wait_until(all_are_free, NULL, 10000));
	test_bus_restart(); /* finds nobody who has it */
	test_bus_stop();
}

static _Atomic int *stage;

static int publish_until_it_dies(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	(void)arg;
	signal(SIGBUS, SIG_DFL); /* that of a sanitizer would exit */
	reach(stage, 1);
	while (atomic_load(stage) < 2)
		shmq_publish(pub, "t", 1); /* whatever it is told */
	return 0;
}

static int punch_and_keep(void *arg)
{
	shmq_bus *bus = test_bus_open();

	(void)arg;
	open_pub(bus, "t");
	while (atomic_load(stage) < 2) {
		punch_all();
		while (mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) != MAP_FAILED)
			;
	}
	reach(stage, 3);
	pause();
	return 1;
}

/* Who has a topic open for publishing can be the end of the others that have, and of
 * nothing else. */
TEST(a_hole_in_hugepages_that_are_used_up_ends_who_touches_it_and_no_other_topic)
{
	struct shmq_msg msg;
	pid_t victim, peer;
	shmq_bus *bus;
	shmq_sub *sub;
	shmq_pub *pub;

	need_hugepages();
	stage = shared_memory(sizeof(*stage));
	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = 65536, .pages = SHMQ_PAGES_2M, .mode = SHMQ_SHARED,
	       .policy = SHMQ_LOSSY, .stall = SHMQ_STALL_REPORT);
	victim = test_spawn(publish_until_it_dies, NULL);
	await(stage, 1);
	peer = test_spawn(punch_and_keep, NULL);
	CHECK_EQ(test_join(victim), 128 + SIGBUS);
	reach(stage, 2);
	await(stage, 3);
	create(bus, "other", .depth = 1024);
	sub = open_sub(bus, "other");
	pub = open_pub(bus, "other");
	CHECK_OK(shmq_publish(pub, "one", 3));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "one", 3);
	CHECK_EQ(test_kill_wait(peer, SIGKILL), 128 + SIGKILL);
	CHECK_OK(shmq_topic_remove(bus, "t", SHMQ_FORCE)); /* there are pages again */
	shmq_bus_close(bus);
	test_bus_stop(); /* until then those of holes stay reserved */
	CHECK(test_wait_until(all_are_free, NULL, 10000));
}

/* A plan is old as soon as it is made: here the machine says that it has
 * pages which, when they are taken, are not there. */
static void promise_hugepages(void)
{
	static const char *file = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
	char lie[PATH_MAX];
	FILE *out;

	write_pool(0);
	snprintf(lie, sizeof(lie), "%s/free", test_tmpdir());
	out = fopen(lie, "we");
	CHECK(out && fputs("1000\n", out) >= 0 && !fclose(out));
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(lie, file, NULL, MS_BIND, NULL))
		SKIP("a file of the kernel's cannot be replaced here: %s", strerror(errno));
	if (free_pages())
		SKIP("somebody else's hugepages are free");
}

TEST(hugepages_that_vanish_between_plan_and_use_are_done_without)
{
	struct shmq_topic_info info;
	struct shmq_plan plan;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	promise_hugepages();
	test_bus_start();
	bus = test_bus_open();
	CHECK_OK(shmq_topic_create(bus, "t",
				   TOPIC_OPTIONS(.depth = 32768, .max_message_bytes = 1 << 20),
				   &plan));
	CHECK_EQ(plan.page_bytes, 4096);
	CHECK(strstr(plan.note, "vm.nr_hugepages") != NULL);
	info = topic_info(bus, "t");
	CHECK_EQ(info.page_bytes, 4096);
	CHECK_STR(info.note, plan.note);
	sub = open_sub(bus, "t");
	pub = open_pub(bus, "t", .arena_bytes = 4 * HUGE);
	CHECK_OK(shmq_publish(pub, "one", 3));
	CHECK_OK(shmq_topic_move(bus, "t"));
	CHECK_ERROR(shmq_publish(pub, "two", 3), SHMQ_EMOVED);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(topic_info(bus, "t").page_bytes, 4096);
	CHECK_ERROR(shmq_topic_create(bus, "must",
				      TOPIC_OPTIONS(.depth = 32768, .pages = SHMQ_PAGES_2M), NULL),
		    SHMQ_ENOHUGE);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}
