/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char question[] =
	"What does a publisher notice of it if the supervisor's processes, the tailer among them,\n"
	"are killed, one after the other and all at once, ten times a second?  It publishes 200\n"
	"thousand messages a second on a processor that the supervisor and the reader do not use,\n"
	"to a topic with a log, which is in memory ($SHMQ_BENCH_DISK), into a ring that holds more\n"
	"than a second of them; a publish takes from when it is due until it is done.\n"
	"Compared with windows in which nobody is killed, and in which a bus that has nothing to\n"
	"do with it is (`elsewhere`).  At full speed it is shown that nothing is lost, nor is it\n"
	"in the log.";

#define TOPIC "outage"
#define BYTES 64u
#define DEPTH (UINT64_C(1) << 19) /* a tailer that is killed again comes a second later */
#define KEPT_BYTES (64 * MIB)     /* of the log */
#define PER_SECOND 2e5
#define KILL_NS UINT64_C(100000000)

/* Each round has a window of each kind.  What the publisher notices of another
 * bus that is killed as often is what the machine makes of it: processes that
 * begin and end beside it, on the other processor. */
enum { CALM, DISTURBED, ELSEWHERE, KINDS };
#define WINDOWS_MAX (BENCH_ROUNDS_MAX * KINDS)

static const char *const kind_name[KINDS] = { "outage.undisturbed", "outage.disturbed",
					      "outage.elsewhere" };

/* Shared by the processes of the run. */
struct run {
	struct histogram seen[WINDOWS_MAX]; /* ticks */
	_Atomic pid_t group[2];             /* of the supervisor started last, of either bus */
	_Atomic unsigned kills, reattached;
	double rate;
};
static struct run *run;

static unsigned windows(void)
{
	return bench.rounds * KINDS;
}

/* At least one kill of each kind has room in it. */
static double window_seconds(void)
{
	return bench.smoke ? 0.1 : bench.quick ? 0.4 : 1;
}

static double full_speed_seconds(void)
{
	return bench.smoke ? 0.35 : bench.quick ? 1 : 6;
}

/* Stages of the run: before window w both ends are ready, then it goes; the
 * last window is the one at full speed. */
static unsigned ready_for(unsigned w)
{
	return 2 * w + 1;
}

static unsigned go_of(unsigned w)
{
	return 2 * w + 2;
}

/* Whoever has not come back by itself would have had to be started again. */
static void await_attached(shmq_bus *bus)
{
	while (!shmq_bus_is_attached(bus))
		usleep(1000);
}

/* ---- the supervisor and who kills it ----------------------------------------- */

/* Its processes, as a bus tells of them. */
static pid_t find_control(shmq_bus *bus)
{
	struct shmq_bus_info info;

	BENCH_OK(shmq_bus_get_info(bus, &info));
	return info.daemon_pid;
}

static pid_t find_parent(shmq_bus *bus)
{
	struct shmq_bus_info info;

	BENCH_OK(shmq_bus_get_info(bus, &info));
	return info.parent_pid;
}

static int note_tailer(void *arg, const struct shmq_client_info *client)
{
	if (!strcmp(client->name, "$tailer") && !client->is_dead)
		*(pid_t *)arg = client->pid;
	return 0;
}

static pid_t find_tailer(shmq_bus *bus)
{
	pid_t pid = 0;

	BENCH_OK(shmq_client_each(bus, note_tailer, &pid));
	return pid;
}

static pid_t (*const find[])(shmq_bus *bus) = { find_control, find_tailer, find_parent };
#define VICTIMS (sizeof(find) / sizeof(find[0]))

/* Who is killed: the bus of the run, or the other one. */
static struct target {
	char bus[64];
	unsigned turn;
	shmq_bus *view; /* the keeper's */
} target[2];

static _Atomic pid_t *group_of(const struct target *t)
{
	return &run->group[t - target];
}

static void start_supervisor(const struct target *t)
{
	atomic_store(group_of(t), bench_start_supervisor(t->bus, 1));
}

static void kill_all(const struct target *t)
{
	pid_t group = atomic_load(group_of(t));

	if (group > 0)
		kill(-group, SIGKILL);
}

static void kill_both(void)
{
	kill_all(&target[0]);
	kill_all(&target[1]);
}

/* What a killed supervisor left to us, and that none went by itself. */
static void reap_killed(void)
{
	int status;

	while (waitpid(-1, &status, WNOHANG) > 0)
		if (!WIFSIGNALED(status))
			bench_fail("a process of the supervisor exited with %d",
				   WEXITSTATUS(status));
}

/* As a service manager does before it starts the next. */
static void await_the_dead(const struct target *t)
{
	do {
		reap_killed();
		usleep(100);
	} while (!kill(-atomic_load(group_of(t)), 0));
}

/* The next of them, and after the last all at once: how many were there. */
static unsigned kill_next(struct target *t)
{
	unsigned which = t->turn++ % (VICTIMS + 1);
	pid_t pid;
	int killed;

	if (which == VICTIMS) {
		kill_all(t);
		await_the_dead(t);
		start_supervisor(t);
		return 1;
	}
	pid = find[which](t->view);
	/* It may be that of one that is gone. */
	killed = pid > 0 && getpgid(pid) == atomic_load(group_of(t)) && !kill(pid, SIGKILL);
	reap_killed();
	return killed;
}

static void sleep_until(uint64_t at)
{
	const struct timespec t = { (time_t)(at / 1000000000), (long)(at % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void keeper(void *arg)
{
	unsigned w, all = windows() + 1;

	target[0].view = bench_open_started_named(target[0].bus);
	target[1].view = bench_open_started_named(target[1].bus);
	for (w = 0; w < all; w++) {
		unsigned kind = w == all - 1 ? DISTURBED : w % KINDS;
		struct target *t = &target[kind == ELSEWHERE];
		uint64_t next = bench_now();

		bench_await_stage(ready_for(w));
		shmq_bus_close(bench_open_started_named(target[0].bus)); /* it serves */
		shmq_bus_close(bench_open_started_named(target[1].bus));
		bench_say_stage(go_of(w));
		while (kind != CALM && atomic_load(&bench_shared->stage) == go_of(w)) {
			atomic_fetch_add(&run->kills, kill_next(t));
			while (next <= bench_now())
				next += KILL_NS;
			sleep_until(next);
		}
	}
	shmq_bus_close(target[0].view);
	shmq_bus_close(target[1].view);
}

/* ---- messages ---------------------------------------------------------------------- */

static uint64_t sent; /* the publisher's */

static void publish(shmq_pub *pub)
{
	char buf[BYTES];

	bench_fill(buf, BYTES, sent++);
	BENCH_OK(shmq_publish(pub, buf, BYTES));
}

static void publish_paced(shmq_pub *pub, struct histogram *seen)
{
	uint64_t n = (uint64_t)(PER_SECOND * window_seconds()), warm = n / 10, i;
	uint64_t start = bench_tick() + (uint64_t)(1e6 / bench_tick_ns);

	for (i = 0; i < n; i++) {
		uint64_t due = bench_due(start, PER_SECOND, i);

		bench_spin_until(due);
		publish(pub);
		if (i >= warm)
			histogram_add(seen, bench_tick() - due);
	}
}

static void publish_fast(shmq_pub *pub)
{
	uint64_t start = bench_tick(), first = sent;
	uint64_t until = start + (uint64_t)(full_speed_seconds() * 1e9 / bench_tick_ns);

	while (sent % 32 || bench_tick() < until)
		publish(pub);
	run->rate = (double)(sent - first) * 1e3 / ((double)(bench_tick() - start) * bench_tick_ns);
}

/* The library's thread stays where the supervisor is. */
static void publisher(void *arg)
{
	shmq_bus *bus = bench_open_started();
	shmq_pub *pub;
	unsigned w;

	BENCH_OK(shmq_pub_open(bus, TOPIC, NULL, &pub));
	BENCH_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_FOREVER));
	bench_pin(0);
	for (w = 0; w <= windows(); w++) {
		await_attached(bus);
		bench_say_stage(ready_for(w));
		bench_await_stage(go_of(w));
		if (w < windows())
			publish_paced(pub, &run->seen[w]);
		else
			publish_fast(pub);
	}
	await_attached(bus);
	bench_say_stage(ready_for(w));
	bench_say_total(sent + 1);
	publish(pub);
	BENCH_OK(shmq_flush(pub, SHMQ_FOREVER));
	durable_await(pub, sent, SHMQ_WRITTEN);
	atomic_fetch_add(&run->reattached, (unsigned)shmq_bus_reattach_count(bus));
	shmq_bus_close(bus);
}

/* Never asleep in the library, so that no wake-up is part of a publish; the
 * ring has room for what comes meanwhile. */
static void subscriber(void *arg)
{
	shmq_bus *bus = bench_open_started();
	struct shmq_sub_stats stats;
	struct shmq_msg msg;
	char buf[BYTES];
	uint64_t i = 0;
	shmq_sub *sub;
	int rc;

	BENCH_OK(shmq_sub_open(bus, TOPIC, NULL, &sub));
	while (!i || !bench_is_total(i)) {
		rc = shmq_receive_copy(sub, buf, sizeof(buf), &msg, SHMQ_NOWAIT);
		if (rc == SHMQ_EEMPTY) {
			usleep(500);
			continue;
		}
		BENCH_OK(rc);
		if (msg.len != BYTES || bench_verify(buf, BYTES, i))
			bench_fail("message %llu is lost, torn or out of order",
				   (unsigned long long)i);
		i++;
	}
	shmq_sub_get_stats(sub, &stats);
	if (stats.lost || stats.received != i)
		bench_fail("%llu messages were sent, %llu came, %llu are lost",
			   (unsigned long long)i, (unsigned long long)stats.received,
			   (unsigned long long)stats.lost);
	await_attached(bus);
	atomic_fetch_add(&run->reattached, (unsigned)shmq_bus_reattach_count(bus));
	shmq_bus_close(bus);
}

/* ---- measuring ----------------------------------------------------------------------- */

static void note(unsigned w)
{
	const struct histogram *seen = &run->seen[w];
	static const struct {
		const char *name;
		double q;
	} stat[] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p999", 0.999 } };
	unsigned i;

	for (i = 0; i < sizeof(stat) / sizeof(stat[0]); i++)
		bench_note_stat(kind_name[w % KINDS], stat[i].name, "ns",
				bench_enough(seen->count, stat[i].q) ?
					bench_tick_ns *
						(double)histogram_quantile(seen, stat[i].q) :
					NAN);
}

static void report(void)
{
	static struct histogram all[KINDS];
	unsigned w, kind;

	for (w = 0; w < windows(); w++) {
		note(w);
		histogram_merge(&all[w % KINDS], &run->seen[w]);
	}
	for (kind = 0; kind < KINDS; kind++)
		histogram_print(&all[kind], kind_name[kind], bench_tick_ns);
	bench_ratio("outage.publish_p999.vs_undisturbed", "outage.disturbed.p999",
		    "outage.undisturbed.p999");
	bench_ratio("outage.publish_p999.vs_elsewhere", "outage.disturbed.p999",
		    "outage.elsewhere.p999");
	bench_note("outage.full_speed.rate", "M/s", run->rate);
	bench_note("outage.kills", "times", atomic_load(&run->kills));
	bench_note("outage.reattached", "times", atomic_load(&run->reattached));
}

/* All that it keeps, to the last. */
static void check_log(void)
{
	shmq_bus *bus = bench_open_started();
	struct shmq_partition_info info;

	BENCH_OK(shmq_topic_get_partition(bus, TOPIC, 0, &info));
	shmq_bus_close(bus);
	durable_check(TOPIC, BYTES, info.log_first, info.head);
}

int main(int argc, char **argv)
{
	struct shmq_topic_options o = { .size = sizeof(o),
					.depth = DEPTH,
					.max_message_bytes = BYTES,
					.log = SHMQ_LOG_BLOCK,
					.segment_bytes = KEPT_BYTES / 4,
					.retain_bytes = KEPT_BYTES };
	struct bench_proc proc[] = { { keeper, NULL, 1 },
				     { subscriber, NULL, 1 },
				     { publisher, NULL, 1 } };
	shmq_bus *bus;
	unsigned i;

	setenv("SHMQ_BENCH_DISK", "/dev/shm", 0);
	bench_init(argc, argv, BENCH_BUS, question);
	durable_init("outage.publish_p999", 4 * KEPT_BYTES);
	run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (run == MAP_FAILED)
		bench_fail("no memory for the histograms");
	atexit(kill_both);
	for (i = 0; i < 2; i++) {
		snprintf(target[i].bus, sizeof(target[i].bus), "%s%s", bench.bus,
			 i ? "-other" : "");
		start_supervisor(&target[i]);
		bus = bench_open_started_named(target[i].bus);
		BENCH_OK(shmq_topic_create(bus, TOPIC, &o, NULL));
		shmq_bus_close(bus);
	}
	bench_run(proc, sizeof(proc) / sizeof(proc[0]));
	check_log();
	bench_busy("outage", 2);
	report();
	return bench_end();
}
