/* SPDX-License-Identifier: MIT */
#include "common.h"
#include "histogram.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char question[] =
	"How long do others wait for a publisher that was killed inside its claim on a shared\n"
	"topic: from the readiness of its pidfd until the next message of another publisher is\n"
	"delivered?  And how long, beside that, does the kernel take from SIGKILL until the\n"
	"pidfd is readable, for small and large processes?";

#define TOPIC "unblock"
#define BYTES 64u
#define LIFE 3u /* messages of one who is then killed in the next */
#define SURVIVOR (UINT64_C(1) << 40)
#define MANY 10000u

struct size {
	const char *name;
	size_t resident_bytes; /* beside what a publisher has anyway */
	unsigned page_shift;
	unsigned handles;              /* beside the one, each on a topic that somebody reads */
	unsigned deaths, quick_deaths; /* a round */
};

static const struct size sizes[] = {
	{ "unblock.4M", 4 << 20, 12, 0, 60, 10 },
	{ "unblock.4M.huge", 4 << 20, 21, 0, 60, 10 },
	{ "unblock.1G", 1 << 30, 12, 0, 2, 0 },
	{ "unblock.1G.huge", 1 << 30, 21, 0, 2, 0 },
	{ "unblock.10000_handles", 4 << 20, 12, MANY, 1, 0 },
};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static shmq_bus *bus;
static shmq_pub *pub;
static shmq_sub *sub;
static uint64_t own;                      /* messages that the survivor has published */
static struct histogram seen[SIZES], all; /* ns */

static void name_topic(char *name, size_t bytes, unsigned i)
{
	snprintf(name, bytes, "%s.%u", TOPIC, i);
}

/* ---- who is killed ------------------------------------------------------------ */

static void *map(const struct size *s)
{
	int huge = s->page_shift > 12 ? MAP_HUGETLB | (int)(s->page_shift << MAP_HUGE_SHIFT) : 0;

	return mmap(NULL, s->resident_bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | huge, -1, 0);
}

/* Mapping reserves them. */
static int has_pages(const struct size *s)
{
	void *mem = map(s);

	if (mem == MAP_FAILED)
		return 0;
	munmap(mem, s->resident_bytes);
	return 1;
}

static void hold(const struct size *s, shmq_bus *with)
{
	void *mem = map(s);
	char name[32];
	shmq_pub *one;
	unsigned i;

	if (mem == MAP_FAILED)
		bench_fail("%zu bytes of memory: %s", s->resident_bytes, strerror(errno));
	if (s->page_shift == 12)
		madvise(mem, s->resident_bytes, MADV_NOHUGEPAGE);
	memset(mem, 1, s->resident_bytes);
	for (i = 0; i < s->handles; i++) {
		name_topic(name, sizeof(name), i);
		BENCH_OK(shmq_pub_open(with, name, NULL, &one));
	}
}

/* The claim is open, and nothing ends it but SIGKILL. */
static void stay(int sig)
{
	bench_say_stage(1);
	for (;;)
		bench_relax();
}

/* A message whose end cannot be read is where its publisher stays: the copy
 * into the slot is made inside the claim. */
static const char *bad_message(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *mem =
		mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED || mprotect(mem + page, page, PROT_NONE))
		bench_fail("no memory for a message: %s", strerror(errno));
	return mem + page - BYTES / 2;
}

static void live_and_claim(const struct size *s)
{
	char buf[BYTES];
	shmq_bus *with;
	shmq_pub *mine;
	uint64_t i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_pin(0);
	with = bench_open_started();
	/* First, which is last in most orders of what is looked after. */
	BENCH_OK(shmq_pub_open(with, TOPIC, NULL, &mine));
	hold(s, with);
	for (i = 0; i < LIFE; i++) {
		bench_fill(buf, BYTES, i);
		BENCH_OK(shmq_publish(mine, buf, BYTES));
	}
	signal(SIGSEGV, stay);
	shmq_publish(mine, bad_message(), BYTES);
	bench_fail("a message was published that cannot be read");
}

static pid_t start(const struct size *s, int *pidfd)
{
	pid_t pid;

	atomic_store(&bench_shared->stage, 0);
	pid = fork();
	if (!pid)
		live_and_claim(s);
	*pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	if (*pidfd < 0)
		bench_fail("starting a publisher: %s", strerror(errno));
	return pid;
}

static int is_dead(int pidfd, int timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) > 0;
}

/* ---- who goes on -------------------------------------------------------------- */

/* The next message, which must be this one: its seq. */
static uint64_t take(uint64_t i)
{
	struct shmq_msg msg;
	char buf[BYTES];

	BENCH_OK(shmq_receive(sub, &msg, bench.limit_s * INT64_C(1000000000)));
	if (msg.len != BYTES)
		bench_fail("message %llx has another length", (unsigned long long)i);
	memcpy(buf, msg.data, BYTES);
	if (bench_verify(buf, BYTES, i))
		bench_fail("message %llx is lost, doubled, torn or out of order",
			   (unsigned long long)i);
	return msg.seq;
}

static uint64_t publish_and_take(void)
{
	uint64_t i = SURVIVOR | own++;
	char buf[BYTES];

	bench_fill(buf, BYTES, i);
	BENCH_OK(shmq_publish(pub, buf, BYTES));
	return take(i);
}

struct death {
	double ready_us;   /* since SIGKILL */
	double unblock_us; /* since it was ready */
};

static struct death kill_one(const struct size *s)
{
	uint64_t killed, ready, unblocked, i, seq = 0;
	int pidfd;
	pid_t pid = start(s, &pidfd);

	for (i = 0; i < LIFE; i++)
		seq = take(i);
	while (!atomic_load(&bench_shared->stage))
		if (is_dead(pidfd, 1))
			bench_fail("a publisher ended by itself");
	killed = bench_now();
	kill(pid, SIGKILL);
	while (!is_dead(pidfd, 0))
		;
	ready = bench_now();
	i = publish_and_take();
	unblocked = bench_now();
	if (i != seq + 2)
		bench_fail("between %llu and %llu is not one hole", (unsigned long long)seq,
			   (unsigned long long)i);
	close(pidfd);
	waitpid(pid, NULL, 0);
	return (struct death){ (double)(ready - killed) / 1e3, (double)(unblocked - ready) / 1e3 };
}

/* ---- measuring --------------------------------------------------------------------- */

static unsigned deaths(const struct size *s)
{
	return bench.smoke ? s->quick_deaths > 0 : bench.quick ? s->quick_deaths : s->deaths;
}

/* Topics for one who has many open, each with a reader to be told. */
static void make_many(void)
{
	struct shmq_topic_options o = { .size = sizeof(o), .mode = SHMQ_SHARED, .depth = 1 };
	char name[32];
	shmq_sub *one;
	unsigned i;

	for (i = 0; i < MANY; i++) {
		name_topic(name, sizeof(name), i);
		BENCH_OK(shmq_topic_create(bus, name, &o, NULL));
		BENCH_OK(shmq_sub_open(bus, name, NULL, &one));
	}
}

static void one_round(unsigned k)
{
	const struct size *s = &sizes[k];
	double ready[64], unblock[64];
	unsigned n = deaths(s), i;

	if (n && !has_pages(s)) {
		bench_label(s->name, "skipped: %zu MiB of %u KiB pages are not free",
			    s->resident_bytes >> 20, 1u << (s->page_shift - 10));
		return;
	}
	for (i = 0; i < n; i++) {
		struct death d = kill_one(s);

		ready[i] = d.ready_us;
		unblock[i] = d.unblock_us;
		histogram_add(&seen[k], (uint64_t)(d.unblock_us * 1e3));
	}
	if (!n)
		return;
	bench_note_stat(s->name, "ready_us", "us", bench_median(ready, n));
	bench_note_stat(s->name, "ready_us_max", "us", ready[n - 1]);
	bench_note_stat(s->name, "p50_us", "us", bench_median(unblock, n));
	bench_note_stat(s->name, "max_us", "us", unblock[n - 1]);
}

int main(int argc, char **argv)
{
	struct shmq_topic_options o = { .size = sizeof(o), .mode = SHMQ_SHARED };
	unsigned r, k;

	bench_init(argc, argv, BENCH_BUS, question);
	bench_start_supervisor(bench.bus, 0); /* who dies there makes room for it */
	bus = bench_open_started();
	BENCH_OK(shmq_topic_create(bus, TOPIC, &o, NULL));
	BENCH_OK(shmq_pub_open(bus, TOPIC, NULL, &pub));
	BENCH_OK(shmq_sub_open(bus, TOPIC, NULL, &sub));
	bench_pin(1);
	/* Nothing here is compared, so that those with many come alone. */
	for (r = 0; r < bench.rounds; r++)
		for (k = 0; k < SIZES; k++)
			if (!sizes[k].handles)
				one_round(k);
	if (!bench.quick)
		make_many();
	for (r = 0; r < bench.rounds; r++)
		for (k = 0; k < SIZES; k++)
			if (sizes[k].handles)
				one_round(k);
	shmq_bus_close(bus);
	for (k = 0; k < SIZES; k++) {
		if (seen[k].count)
			histogram_print(&seen[k], sizes[k].name, 1);
		if (!sizes[k].handles)
			histogram_merge(&all, &seen[k]);
	}
	if (bench_enough(all.count, 0.99))
		bench_note("unblock.p99_us", "us", (double)histogram_quantile(&all, 0.99) / 1e3);
	bench_busy("unblock", 2);
	return bench_end();
}
