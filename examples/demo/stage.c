/* SPDX-License-Identifier: MIT
 *
 * stage: shows what this machine gives, starts the bus, and creates the topics
 * of the demo, saying beforehand what they will take and afterwards where they
 * really are.
 */
#include "common.h"
#include "messages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SEGMENT_BYTES (UINT64_C(64) << 20) /* reserved on the disk ahead of need */

static const struct topic {
	const char *name;
	enum shmq_mode mode;
	enum shmq_policy policy;
	uint64_t depth;
	uint64_t max_message_bytes; /* 0: what fits a slot */
	enum shmq_log log;
} topics[] = {
	{ TOPIC_CPU, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 1024, 0, SHMQ_LOG_NONE },
	{ TOPIC_MEM, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 1024, 0, SHMQ_LOG_NONE },
	{ TOPIC_LOAD, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 1024, 0, SHMQ_LOG_NONE },
	{ TOPIC_NET, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 1024, 0, SHMQ_LOG_NONE },
	{ TOPIC_DISK, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 1024, 0, SHMQ_LOG_NONE },
	{ TOPIC_PROC, SHMQ_SHARED, SHMQ_BLOCK, 8192, 0, SHMQ_LOG_NONE },
	{ TOPIC_ORDERS, SHMQ_EXCLUSIVE, SHMQ_BLOCK, 65536, 0, SHMQ_LOG_BLOCK },
	{ TOPIC_TICKS, SHMQ_EXCLUSIVE, SHMQ_LOSSY, 4096, 0, SHMQ_LOG_NONE },
	{ TOPIC_EVENTS, SHMQ_SHARED, SHMQ_BLOCK, 1024, EVENT_MAX, SHMQ_LOG_NONE },
};

/* ---- the machine ------------------------------------------------------- */

static unsigned long long meminfo(const char *wanted)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long value, found = 0;
	char name[64];

	while (file && fscanf(file, " %63[^:]: %llu%*[^\n]", name, &value) == 2)
		if (strcmp(name, wanted) == 0)
			found = value;
	if (file)
		fclose(file);
	return found;
}

static void show_machine(void)
{
	unsigned long long huge = meminfo("HugePages_Total");
	struct rlimit memlock;
	struct utsname name;

	uname(&name);
	getrlimit(RLIMIT_MEMLOCK, &memlock);
	printf("Machine\n");
	printf("  cores      %ld, %s %s\n", sysconf(_SC_NPROCESSORS_ONLN), name.sysname,
	       name.release);
	printf("  memory     %.1f GiB available of %.1f\n", meminfo("MemAvailable") / 1048576.0,
	       meminfo("MemTotal") / 1048576.0);
	printf("  hugepages  ");
	if (huge)
		printf("%llu free of %llu, %llu MiB each\n", meminfo("HugePages_Free"), huge,
		       meminfo("Hugepagesize") >> 10);
	else
		printf("none reserved\n");
	printf("  memlock    ");
	if (memlock.rlim_cur == RLIM_INFINITY)
		printf("unlimited\n");
	else
		printf("%.1f MiB\n", memlock.rlim_cur / 1048576.0);
	printf("  user       uid %u%s\n", getuid(),
	       getuid() ? "" : " (which the bus has no need of)");
}

/* ---- the topics -------------------------------------------------------- */

static struct shmq_topic_options options_of(const struct topic *topic)
{
	return (struct shmq_topic_options){ .size = sizeof(struct shmq_topic_options),
					    .depth = topic->depth,
					    .mode = topic->mode,
					    .policy = topic->policy,
					    .max_message_bytes = topic->max_message_bytes,
					    .log = topic->log,
					    .segment_bytes =
						    topic->log == SHMQ_LOG_NONE ? 0 : SEGMENT_BYTES,
					    .flags = SHMQ_TOPIC_TIME };
}

static const char *pages_text(uint64_t bytes)
{
	return bytes >= 1 << 30 ? "1 GiB" : bytes >= 2 << 20 ? "2 MiB" : "4 KiB";
}

/* What is taken from one source: pages of one size. */
struct share {
	uint64_t page_bytes, bytes;
	struct shmq_plan plan;
};

static void add_share(struct share *share, const struct shmq_plan *plan)
{
	while (share->page_bytes && share->page_bytes != plan->page_bytes)
		share++;
	share->page_bytes = plan->page_bytes;
	share->bytes += plan->ring_bytes + plan->control_bytes;
	share->plan = *plan;
}

/* What it will take is known before anything is made. */
static void plan_topics(shmq_bus *bus, uint64_t *ring_bytes)
{
	struct share shares[COUNT_OF(topics) + 1] = { { 0 } };
	struct shmq_plan plan;

	for (size_t i = 0; i < COUNT_OF(topics); i++) {
		struct shmq_topic_options options = options_of(&topics[i]);
		int error = shmq_topic_plan(bus, topics[i].name, &options, &plan);

		if (error)
			demo_die(bus, error, "planning \"%s\"", topics[i].name);
		ring_bytes[i] = plan.ring_bytes;
		add_share(shares, &plan);
	}
	for (const struct share *share = shares; share->page_bytes; share++)
		printf("  will take %.1f MiB from %s\n", share->bytes / 1048576.0,
		       share->plan.source);
}

static const char *locked_text(const struct shmq_topic_info *info)
{
	if (info->page_bytes >= 2 << 20)
		return "-"; /* hugepages are never paged out */
	return info->locked ? "yes" : "no";
}

static void show_topic(const struct shmq_topic_info *info)
{
	static const char *const modes[] = {
		[SHMQ_EXCLUSIVE] = "exclusive", [SHMQ_SHARED] = "shared"
	};
	static const char *const policies[] = { [SHMQ_BLOCK] = "block",
						[SHMQ_DROP_NEW] = "drop-new",
						[SHMQ_LOSSY] = "lossy",
						[SHMQ_EVICT] = "evict" };
	char node[16] = "spread";

	if (info->node_actual)
		snprintf(node, sizeof(node), "%d", info->node_actual - 1);
	printf("  %-13s %-10s %-6s %6llu %5u %5.2f MiB  %-6s %-6s %-6s %s\n", info->name,
	       modes[info->mode], policies[info->policy], (unsigned long long)info->depth,
	       info->slot_bytes, info->ring_bytes / 1048576.0, pages_text(info->page_bytes), node,
	       locked_text(info), info->log == SHMQ_LOG_BLOCK ? "kept" : "-");
}

static void create_topics(shmq_bus *bus)
{
	uint64_t ring_bytes[COUNT_OF(topics)];
	struct shmq_plan plan[COUNT_OF(topics)];

	printf("\nTopics\n");
	plan_topics(bus, ring_bytes);
	printf("  %-13s %-10s %-6s %6s %5s %9s  %-6s %-6s %-6s %s\n", "topic", "mode", "policy",
	       "depth", "slot", "rings", "pages", "node", "locked", "log");
	for (size_t i = 0; i < COUNT_OF(topics); i++) {
		struct shmq_topic_options options = options_of(&topics[i]);
		int error = shmq_topic_create(bus, topics[i].name, &options, &plan[i]);
		struct shmq_topic_info info = { 0 };

		if (!error)
			error = shmq_topic_get_info(bus, topics[i].name, &info);
		if (error)
			demo_die(bus, error, "creating \"%s\"", topics[i].name);
		show_topic(&info);
		if (info.ring_bytes != ring_bytes[i])
			demo_die(NULL, 0, "\"%s\" took %llu bytes, %llu were announced",
				 topics[i].name, (unsigned long long)info.ring_bytes,
				 (unsigned long long)ring_bytes[i]);
	}
	for (size_t i = 0; i < COUNT_OF(topics); i++)
		if (*plan[i].note)
			printf("  note: %s: %s\n", topics[i].name, plan[i].note);
}

/* ---- all ---------------------------------------------------------------- */

static void show_bus(shmq_bus *bus)
{
	struct shmq_bus_info info;
	int error = shmq_bus_get_info(bus, &info);

	if (error)
		demo_die(bus, error, "looking at the bus");
	printf("\nBus\n  \"%s\" in %s: supervisor pid %d, control worker pid %d\n", info.name,
	       getenv("SHMQ_RUNTIME_DIR"), info.parent_pid, info.daemon_pid);
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "stage" };
	shmq_bus *bus;

	demo_init(argc, argv, &options);
	show_machine();
	bus = demo_bus_open(SHMQ_START_ON_DEMAND);
	show_bus(bus);
	create_topics(bus);
	shmq_bus_close(bus);
	return 0;
}
