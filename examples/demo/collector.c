/* SPDX-License-Identifier: MIT
 *
 * collector: publishes this machine's telemetry, read from /proc, at a set
 * rate.  Operands choose topics, the default is all of them; sys.proc is
 * shared, so several collectors may feed it.
 */
#include "common.h"
#include "messages.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 64, PAYLOAD = 64 };

/* One topic's publisher with the batch it is about to send. */
struct feed {
	const char *topic;
	void (*sample)(struct feed *feed);
	unsigned every; /* beats; a walk over all processes costs more */
	shmq_bus *bus;
	shmq_pub *pub;
	uint64_t sent;
	size_t fill;
	struct shmq_msg msgs[BATCH];
	_Alignas(8) char payload[BATCH][PAYLOAD];
};

static void feed_flush(struct feed *feed)
{
	demo_publish_all(feed->bus, feed->pub, feed->msgs, feed->fill);
	feed->sent += feed->fill;
	feed->fill = 0;
}

static void feed_put(struct feed *feed, const void *data, size_t len)
{
	memcpy(feed->payload[feed->fill], data, len);
	feed->msgs[feed->fill] = (struct shmq_msg){ .data = feed->payload[feed->fill], .len = len };
	if (++feed->fill == BATCH)
		feed_flush(feed);
}

/* Call `use` with every line of a file; one that is not there has none. */
static void each_line(struct feed *feed, const char *path,
		      void (*use)(struct feed *feed, const char *line))
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;

	if (!file)
		return;
	while (getline(&line, &size, file) > 0)
		use(feed, line);
	free(line);
	fclose(file);
}

/* ---- per-CPU time ------------------------------------------------------ */

static void put_cpu(struct feed *feed, const char *line)
{
	struct tele_cpu cpu = { 0 };
	/* user nice system idle iowait irq softirq steal */
	unsigned long long t[8] = { 0 };

	/* The first line sums all CPUs up. */
	if (strncmp(line, "cpu", 3) != 0 || !isdigit((unsigned char)line[3]))
		return;
	if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu.cpu, &t[0], &t[1],
		   &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) < 5)
		return;
	for (size_t i = 0; i < COUNT_OF(t); i++)
		cpu.total_ticks += t[i];
	cpu.busy_ticks = cpu.total_ticks - t[3] - t[4];
	feed_put(feed, &cpu, sizeof(cpu));
}

static void sample_cpu(struct feed *feed)
{
	each_line(feed, "/proc/stat", put_cpu);
}

/* ---- memory and load --------------------------------------------------- */

static void sample_mem(struct feed *feed)
{
	static const char *const names[] = { "MemTotal:", "MemAvailable:", "Cached:", "SwapTotal:",
					     "SwapFree:" };
	unsigned long long kib[COUNT_OF(names)] = { 0 }, value;
	FILE *file = fopen("/proc/meminfo", "re");
	struct tele_mem mem;
	char name[64];

	if (!file)
		return;
	while (fscanf(file, "%63s %llu%*[^\n]", name, &value) == 2)
		for (size_t i = 0; i < COUNT_OF(names); i++)
			if (strcmp(name, names[i]) == 0)
				kib[i] = value;
	fclose(file);
	mem = (struct tele_mem){ .total_bytes = kib[0] << 10,
				 .available_bytes = kib[1] << 10,
				 .cached_bytes = kib[2] << 10,
				 .swap_used_bytes = (kib[3] - kib[4]) << 10 };
	feed_put(feed, &mem, sizeof(mem));
}

static void put_load(struct feed *feed, const char *line)
{
	struct tele_load load;

	if (sscanf(line, "%lf %lf %lf %u/%u", &load.load1, &load.load5, &load.load15, &load.running,
		   &load.threads) == 5)
		feed_put(feed, &load, sizeof(load));
}

static void sample_load(struct feed *feed)
{
	each_line(feed, "/proc/loadavg", put_load);
}

/* ---- network and disk -------------------------------------------------- */

static void put_net(struct feed *feed, const char *line)
{
	struct tele_net net = { 0 };
	unsigned long long rx, tx;

	/* The two lines of headings have no number behind a colon. */
	if (sscanf(line, " %15[^: ]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", net.name, &rx, &tx) !=
	    3)
		return;
	net.rx_bytes = rx;
	net.tx_bytes = tx;
	feed_put(feed, &net, sizeof(net));
}

static void sample_net(struct feed *feed)
{
	each_line(feed, "/proc/net/dev", put_net);
}

static void put_disk(struct feed *feed, const char *line)
{
	struct tele_disk disk = { 0 };
	unsigned long long sectors_read, sectors_written;
	char path[64];

	if (sscanf(line, "%*u %*u %31s %*u %*u %llu %*u %*u %*u %llu", disk.name, &sectors_read,
		   &sectors_written) != 3)
		return;
	/* Partitions would count their disk's traffic again. */
	snprintf(path, sizeof(path), "/sys/block/%s", disk.name);
	if (access(path, F_OK) != 0)
		return;
	disk.read_bytes = sectors_read * 512;
	disk.written_bytes = sectors_written * 512;
	feed_put(feed, &disk, sizeof(disk));
}

static void sample_disk(struct feed *feed)
{
	each_line(feed, "/proc/diskstats", put_disk);
}

/* ---- every process ----------------------------------------------------- */

static ssize_t read_small(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n >= 0)
		buf[n] = 0;
	return n;
}

static void put_proc(struct feed *feed, const char *pid)
{
	static long page_bytes;
	struct tele_proc proc = { .source = getpid(), .pid = atoi(pid) };
	unsigned long long user, system;
	const char *open, *close;
	char path[64], stat[512];
	long pages;

	if (!page_bytes)
		page_bytes = sysconf(_SC_PAGESIZE);
	snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	if (read_small(path, stat, sizeof(stat)) <= 0)
		return; /* it has gone meanwhile */
	/* The name stands in parentheses and may contain some itself. */
	open = strchr(stat, '(');
	close = strrchr(stat, ')');
	if (!open || !close)
		return;
	if (sscanf(close + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d"
		   " %*u %*u %ld",
		   &user, &system, &pages) != 3)
		return;
	proc.cpu_ticks = user + system;
	proc.rss_bytes = (uint64_t)pages * page_bytes;
	snprintf(proc.name, sizeof(proc.name), "%.*s", (int)(close - open - 1), open + 1);
	feed_put(feed, &proc, sizeof(proc));
}

static void sample_proc(struct feed *feed)
{
	DIR *dir = opendir("/proc");
	const struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			put_proc(feed, entry->d_name);
	closedir(dir);
}

/* ---- all ---------------------------------------------------------------- */

static struct feed feeds[] = {
	{ .topic = TOPIC_CPU, .sample = sample_cpu, .every = 1 },
	{ .topic = TOPIC_MEM, .sample = sample_mem, .every = 1 },
	{ .topic = TOPIC_LOAD, .sample = sample_load, .every = 1 },
	{ .topic = TOPIC_NET, .sample = sample_net, .every = 1 },
	{ .topic = TOPIC_DISK, .sample = sample_disk, .every = 1 },
	{ .topic = TOPIC_PROC, .sample = sample_proc, .every = 2 },
};

static int is_chosen(const char *topic, char **chosen)
{
	if (!*chosen)
		return 1;
	for (; *chosen; chosen++)
		if (strcmp(topic, *chosen) == 0)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "collector", .rate = 10 };
	char **chosen = argv + demo_init(argc, argv, &options);
	shmq_bus *bus = demo_bus_open(SHMQ_START_NEVER);
	struct demo_pace pace = { .period_ns = NS_PER_S / options.rate };

	for (size_t i = 0; i < COUNT_OF(feeds); i++) {
		if (!is_chosen(feeds[i].topic, chosen))
			continue;
		feeds[i].bus = bus;
		feeds[i].pub = demo_pub_open(bus, feeds[i].topic, options.subscribers);
	}
	for (uint64_t beat = 0; !demo_stopping; beat++) {
		for (size_t i = 0; i < COUNT_OF(feeds); i++) {
			if (!feeds[i].pub || beat % feeds[i].every)
				continue;
			feeds[i].sample(&feeds[i]);
			feed_flush(&feeds[i]);
		}
		demo_pace_wait(&pace);
	}
	for (size_t i = 0; i < COUNT_OF(feeds); i++)
		if (feeds[i].pub)
			demo_report_pub(bus, feeds[i].pub, feeds[i].topic, feeds[i].sent);
	shmq_bus_close(bus);
	return 0;
}
