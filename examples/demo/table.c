/* SPDX-License-Identifier: MIT
 *
 * table: subscribes to all telemetry, to the trades and to the conductor's
 * events through one wait set, and shows them: a small table that renews
 * itself on a terminal, a plain line now and then elsewhere.
 */
#include "common.h"
#include "messages.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CPUS = 64, DEVICES = 32, PROCS = 4096, TOP = 4, DRAIN_MAX = 256, BAR = 20 };
enum { TABLE_TTY_MS = 250, TABLE_PLAIN_MS = 2000 };
#define PROC_WINDOW_NS (500 * NS_PER_MS) /* shares of shorter spans only flicker */

/* A counter and what became of it since the last drawing. */
struct meter {
	uint64_t now, drawn;
};

struct cpu {
	struct meter busy, total;
};

struct device {
	char name[32];
	struct meter in, out;
};

struct proc {
	int32_t pid;
	char name[16];
	uint64_t ticks, rss_bytes, seen_ns, since_ns;
	double share;
};

struct view {
	int tty;
	int64_t drawn_ns, started_ns;
	unsigned lines; /* of the table now on the terminal */
	unsigned cpus;
	struct cpu cpu[CPUS];
	struct tele_mem mem;
	struct tele_load load;
	struct device net[DEVICES], disk[DEVICES];
	struct proc proc[PROCS];
	struct trade_tick tick;
	struct meter trades;
	struct demo_report sources;
};

/* ---- taking messages in ------------------------------------------------ */

static void set_meter(struct meter *meter, uint64_t value)
{
	if (!meter->now)
		meter->drawn = value; /* the first reading is no rate */
	meter->now = value;
}

static void on_cpu(struct view *view, const struct shmq_msg *msg)
{
	const struct tele_cpu *m = msg->data;

	if (m->cpu >= CPUS)
		return;
	if (m->cpu >= view->cpus)
		view->cpus = m->cpu + 1;
	set_meter(&view->cpu[m->cpu].busy, m->busy_ticks);
	set_meter(&view->cpu[m->cpu].total, m->total_ticks);
}

static void on_mem(struct view *view, const struct shmq_msg *msg)
{
	view->mem = *(const struct tele_mem *)msg->data;
}

static void on_load(struct view *view, const struct shmq_msg *msg)
{
	view->load = *(const struct tele_load *)msg->data;
}

static void set_device(struct device *devices, const char *name, uint64_t in, uint64_t out)
{
	for (size_t i = 0; i < DEVICES; i++) {
		struct device *device = &devices[i];

		if (device->name[0] && strcmp(device->name, name) != 0)
			continue;
		snprintf(device->name, sizeof(device->name), "%s", name);
		set_meter(&device->in, in);
		set_meter(&device->out, out);
		return;
	}
}

static void on_net(struct view *view, const struct shmq_msg *msg)
{
	const struct tele_net *m = msg->data;

	set_device(view->net, m->name, m->rx_bytes, m->tx_bytes);
}

static void on_disk(struct view *view, const struct shmq_msg *msg)
{
	const struct tele_disk *m = msg->data;

	set_device(view->disk, m->name, m->read_bytes, m->written_bytes);
}

/* Processes hash by pid; of two that meet, the newer one is shown. */
static void on_proc(struct view *view, const struct shmq_msg *msg)
{
	const struct tele_proc *m = msg->data;
	struct proc *proc = &view->proc[(uint32_t)m->pid % PROCS];

	for (size_t i = 0; i < REPORT_SOURCES; i++) {
		if (view->sources.source[i].pid && view->sources.source[i].pid != m->source)
			continue;
		view->sources.source[i].pid = m->source;
		view->sources.source[i].count++;
		break;
	}
	if (proc->pid != m->pid) {
		*proc = (struct proc){ .pid = m->pid,
				       .ticks = m->cpu_ticks,
				       .since_ns = msg->ts_ns };
		memcpy(proc->name, m->name, sizeof(proc->name));
	}
	proc->rss_bytes = m->rss_bytes;
	proc->seen_ns = msg->ts_ns;
	if (msg->ts_ns < proc->since_ns + PROC_WINDOW_NS)
		return;
	/* 100 ticks a second: so many percent of a CPU. */
	proc->share = (m->cpu_ticks - proc->ticks) * 1e9 / (msg->ts_ns - proc->since_ns);
	proc->ticks = m->cpu_ticks;
	proc->since_ns = msg->ts_ns;
}

static void on_tick(struct view *view, const struct shmq_msg *msg)
{
	view->tick = *(const struct trade_tick *)msg->data;
	set_meter(&view->trades, view->tick.trade);
}

static void wipe(struct view *view)
{
	if (view->lines)
		printf("\033[%uA\033[J", view->lines);
	view->lines = 0;
}

static void on_event(struct view *view, const struct shmq_msg *msg)
{
	wipe(view);
	printf("  %.*s\n", (int)msg->len, (const char *)msg->data);
	fflush(stdout);
}

/* ---- showing ----------------------------------------------------------- */

static double rate_of(struct meter *meter, double seconds)
{
	double rate = (double)(int64_t)(meter->now - meter->drawn) / seconds;

	meter->drawn = meter->now;
	return rate;
}

static double share_of(struct cpu *cpu)
{
	double busy = rate_of(&cpu->busy, 1), total = rate_of(&cpu->total, 1);

	return total > 0 ? 100 * busy / total : 0;
}

static void sum_devices(struct device *devices, double seconds, double *in, double *out)
{
	*in = *out = 0;
	for (size_t i = 0; i < DEVICES && devices[i].name[0]; i++) {
		*in += rate_of(&devices[i].in, seconds);
		*out += rate_of(&devices[i].out, seconds);
	}
}

static int busier(const void *a, const void *b)
{
	const struct proc *const *p = a, *const *q = b;

	if ((*p)->share != (*q)->share)
		return (*p)->share < (*q)->share ? 1 : -1;
	return (*p)->rss_bytes < (*q)->rss_bytes ? 1 : -1;
}

/* The busiest processes seen lately; returns how many there are in all. */
static size_t busiest(struct view *view, const struct proc **top, size_t n)
{
	static const struct proc *live[PROCS];
	uint64_t latest = 0;
	size_t count = 0;

	for (size_t i = 0; i < PROCS; i++)
		if (view->proc[i].seen_ns > latest)
			latest = view->proc[i].seen_ns;
	for (size_t i = 0; i < PROCS; i++)
		if (view->proc[i].pid && view->proc[i].seen_ns + NS_PER_S > latest)
			live[count++] = &view->proc[i];
	qsort(live, count, sizeof(live[0]), busier);
	for (size_t i = 0; i < n; i++)
		top[i] = i < count ? live[i] : NULL;
	return count;
}

static void put_bar(double percent)
{
	int full = percent * BAR / 100 + 0.5;

	for (int i = 0; i < BAR; i++)
		putchar(i < full ? '#' : '.');
}

/* What one drawing shows, taken once so that both ways show the same. */
struct frame {
	double seconds, cpu[CPUS], all_cpus, rx, tx, rd, wr, trades;
	const struct proc *top[TOP];
	size_t procs;
};

static void take_frame(struct view *view, struct frame *frame, int64_t now)
{
	double seconds = (now - view->drawn_ns) / 1e9;

	frame->seconds = (now - view->started_ns) / 1e9;
	frame->all_cpus = 0;
	for (unsigned i = 0; i < view->cpus; i++) {
		frame->cpu[i] = share_of(&view->cpu[i]);
		frame->all_cpus += frame->cpu[i] / view->cpus;
	}
	sum_devices(view->net, seconds, &frame->rx, &frame->tx);
	sum_devices(view->disk, seconds, &frame->rd, &frame->wr);
	frame->trades = rate_of(&view->trades, seconds);
	frame->procs = busiest(view, frame->top, TOP);
	view->drawn_ns = now;
}

static void draw_table(struct view *view, const struct frame *frame)
{
	const struct tele_mem *mem = &view->mem;
	double used = mem->total_bytes - mem->available_bytes;

	wipe(view);
	printf("\n");
	for (unsigned i = 0; i < view->cpus && i < 4; i++) {
		printf("  cpu%-3u ", i);
		put_bar(frame->cpu[i]);
		printf(" %5.1f %%\n", frame->cpu[i]);
	}
	printf("  mem    ");
	put_bar(mem->total_bytes ? 100 * used / mem->total_bytes : 0);
	printf(" %5.1f of %.1f GiB\n", used / (1 << 30), mem->total_bytes / (double)(1 << 30));
	printf("  load   %.2f %.2f %.2f\n", view->load.load1, view->load.load5, view->load.load15);
	printf("  net    %.1f kB/s in, %.1f out\n", frame->rx / 1e3, frame->tx / 1e3);
	printf("  disk   %.1f kB/s read, %.1f written\n", frame->rd / 1e3, frame->wr / 1e3);
	printf("  trades %.0f/s, last %u at %.2f\n", frame->trades, view->tick.qty,
	       view->tick.price / 100.0);
	printf("  %zu processes, the busiest:\n", frame->procs);
	view->lines = 7 + (view->cpus < 4 ? view->cpus : 4);
	for (size_t i = 0; i < TOP && frame->top[i]; i++) {
		const struct proc *proc = frame->top[i];

		printf("    %7d %-16.16s %5.1f %% %8.1f MiB\n", proc->pid, proc->name, proc->share,
		       proc->rss_bytes / (double)(1 << 20));
		view->lines++;
	}
}

static void draw_line(const struct view *view, const struct frame *frame)
{
	const struct proc *top = frame->top[0];

	printf("  %4.1f s  cpu %3.0f %%  mem %.1f GiB  load %.2f  net %.0f kB/s  disk %.0f kB/s"
	       "  trades %.0f/s  %zu processes, busiest %.16s %.0f %%\n",
	       frame->seconds, frame->all_cpus,
	       (view->mem.total_bytes - view->mem.available_bytes) / (double)(1 << 30),
	       view->load.load1, (frame->rx + frame->tx) / 1e3, (frame->rd + frame->wr) / 1e3,
	       frame->trades, frame->procs, top ? top->name : "-", top ? top->share : 0);
}

static void draw(struct view *view, int64_t now)
{
	struct frame frame;

	take_frame(view, &frame, now);
	if (view->tty)
		draw_table(view, &frame);
	else
		draw_line(view, &frame);
	fflush(stdout);
}

/* ---- all ---------------------------------------------------------------- */

static struct feed {
	const char *topic;
	void (*take)(struct view *view, const struct shmq_msg *msg);
	size_t min_len;
	shmq_sub *sub;
	struct demo_tally tally;
} feeds[] = {
	{ .topic = TOPIC_CPU, .take = on_cpu, .min_len = sizeof(struct tele_cpu) },
	{ .topic = TOPIC_MEM, .take = on_mem, .min_len = sizeof(struct tele_mem) },
	{ .topic = TOPIC_LOAD, .take = on_load, .min_len = sizeof(struct tele_load) },
	{ .topic = TOPIC_NET, .take = on_net, .min_len = sizeof(struct tele_net) },
	{ .topic = TOPIC_DISK, .take = on_disk, .min_len = sizeof(struct tele_disk) },
	{ .topic = TOPIC_PROC, .take = on_proc, .min_len = sizeof(struct tele_proc) },
	{ .topic = TOPIC_TICKS, .take = on_tick, .min_len = sizeof(struct trade_tick) },
	{ .topic = TOPIC_EVENTS, .take = on_event, .min_len = 0 },
};

static struct feed *feed_of(const shmq_sub *sub)
{
	struct feed *feed = feeds;

	while (feed->sub != sub)
		feed++;
	return feed;
}

/* Take what is there, but not so much that other topics starve.  Returns 1
 * when the stream has ended. */
static int drain(shmq_bus *bus, struct view *view, struct feed *feed)
{
	_Alignas(8) char buf[EVENT_MAX];
	struct shmq_msg msg;

	for (int i = 0; i < DRAIN_MAX; i++) {
		int error = demo_receive(bus, feed->sub, buf, sizeof(buf), &msg, &feed->tally,
					 SHMQ_NOWAIT);

		if (error)
			return error == SHMQ_EENDED;
		if (msg.len < feed->min_len)
			demo_die(NULL, 0, "%s: a message of %zu bytes", feed->topic, msg.len);
		feed->take(view, &msg);
	}
	return 0;
}

static void run(shmq_bus *bus, shmq_waitset *set, struct view *view)
{
	const int64_t period_ns = (view->tty ? TABLE_TTY_MS : TABLE_PLAIN_MS) * NS_PER_MS;
	shmq_sub *ready[COUNT_OF(feeds)];
	size_t open = COUNT_OF(feeds);

	while (open) {
		int64_t now = demo_clock_ns(CLOCK_MONOTONIC),
			left = view->drawn_ns + period_ns - now;
		int n;

		if (left <= 0) {
			draw(view, now);
			left = period_ns;
		}
		n = shmq_waitset_wait(set, ready, COUNT_OF(ready), left);
		if (n < 0 && n != SHMQ_ETIMEOUT)
			demo_die(bus, n, "waiting");
		for (int i = 0; i < n; i++) {
			struct feed *feed = feed_of(ready[i]);

			if (!drain(bus, view, feed))
				continue;
			shmq_waitset_remove(set, feed->sub);
			open--;
		}
	}
	wipe(view);
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "table" };
	static struct view state;
	struct view *view = &state;
	shmq_waitset *set = NULL;
	shmq_bus *bus;
	int error;

	demo_init(argc, argv, &options);
	bus = demo_bus_open(SHMQ_START_NEVER);
	error = shmq_waitset_create(bus, &set);
	for (size_t i = 0; i < COUNT_OF(feeds) && !error; i++) {
		feeds[i].sub = demo_sub_open(bus, feeds[i].topic, SHMQ_FROM_LATEST);
		error = shmq_waitset_add(set, feeds[i].sub);
	}
	if (error)
		demo_die(bus, error, "making the wait set");

	view->tty = isatty(STDOUT_FILENO);
	view->drawn_ns = view->started_ns = demo_clock_ns(CLOCK_MONOTONIC);
	run(bus, set, view);
	for (size_t i = 0; i < COUNT_OF(feeds); i++)
		demo_report_sub(bus, feeds[i].sub, feeds[i].topic, &feeds[i].tally,
				feeds[i].take == on_proc ? &view->sources : NULL);
	shmq_waitset_destroy(set);
	shmq_bus_close(bus);
	return 0;
}
