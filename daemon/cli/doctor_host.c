/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

#define THP "/sys/kernel/mm/transparent_hugepage/"
#define NODES "/sys/devices/system/node/"
#define CPUS "/sys/devices/system/cpu/"
#define CLOCK "/sys/devices/system/clocksource/clocksource0/"
#define MAPS_WANTED 65530

#define CAP_IPC_LOCK_BIT 14

/* ---- hugepages --------------------------------------------------------- */

/* Of "always [madvise] never" the word in brackets. */
static int chosen(const struct doctor *d, const char *path, char *out, size_t bytes)
{
	char line[128], *start, *end;

	if (doctor_line(d, path, line, sizeof(line)))
		return -1;
	start = strchr(line, '[');
	end = start ? strchr(start, ']') : NULL;
	if (!end)
		return -1;
	*end = 0;
	snprintf(out, bytes, "%s", start + 1);
	return 0;
}

static uint64_t meminfo(const struct doctor *d, const char *key)
{
	char text[64];

	if (doctor_field(d, "/proc/meminfo", key, text, sizeof(text)))
		return 0;
	return strtoull(text, NULL, 10);
}

static void check_hugepages(struct doctor *d)
{
	uint64_t total = meminfo(d, "HugePages_Total:"), free_pages = meminfo(d, "HugePages_Free:");
	uint64_t reserved = meminfo(d, "HugePages_Rsvd:"), kib = meminfo(d, "Hugepagesize:");
	uint64_t left = free_pages > reserved ? free_pages - reserved : 0;
	struct units_text size = units_size(kib * 1024);
	const char *text = size.s;
	struct finding *f;

	if (!kib) {
		f = doctor_add(d, "hugepages", LEVEL_WARN, "this kernel has none");
		doctor_costs(f, "rings and arenas lie on 4 KiB pages, with more TLB misses");
		doctor_fix(f, "apt-get install linux-image-amd64");
	} else if (!total) {
		f = doctor_add(d, "hugepages", LEVEL_WARN, "none of %s are reserved", text);
		doctor_costs(f, "4 KiB pages: more TLB misses, and a killed process is known dead "
				"milliseconds later");
		doctor_fix(f, "sysctl -w vm.nr_hugepages=64");
	} else if (!left) {
		f = doctor_add(d, "hugepages", LEVEL_WARN, "all %llu of %s are taken",
			       (unsigned long long)total, text);
		doctor_costs(f, "the next topic falls back to 4 KiB pages");
		doctor_fix(f, "sysctl -w vm.nr_hugepages=%llu", (unsigned long long)total * 2);
	} else {
		doctor_add(d, "hugepages", LEVEL_OK, "%llu of %llu of %s are free",
			   (unsigned long long)left, (unsigned long long)total, text);
	}
}

static void check_thp(struct doctor *d)
{
	struct finding *f;
	char word[32];

	if (chosen(d, THP "shmem_enabled", word, sizeof(word))) {
		doctor_add(d, "thp", LEVEL_OK, "this kernel has none of shared memory");
	} else if (!strcmp(word, "never") || !strcmp(word, "deny")) {
		f = doctor_add(d, "thp", LEVEL_WARN, "shared memory may not have them (%s)", word);
		doctor_costs(f, "what finds no reserved hugepages falls back to 4 KiB pages");
		doctor_write(d, f, THP "shmem_enabled", "advise");
	} else {
		doctor_add(d, "thp", LEVEL_OK, "shared memory may have them (%s)", word);
	}
	if (chosen(d, THP "defrag", word, sizeof(word)))
		return;
	if (!strcmp(word, "always")) {
		f = doctor_add(d, "thp-defrag", LEVEL_WARN, "any page fault may compact memory");
		doctor_costs(f, "faults of whole milliseconds in every process");
		doctor_fix(f, "echo defer+madvise > " THP "defrag");
	} else {
		doctor_add(d, "thp-defrag", LEVEL_OK, "%s", word);
	}
}

/* ---- locked memory, swap, maps, descriptors ---------------------------- */

/* The soft limit; UINT64_MAX is none.  -1: not known. */
static int limit_of(const struct doctor *d, const char *key, uint64_t *out)
{
	char text[96];

	if (doctor_field(d, "/proc/self/limits", key, text, sizeof(text)))
		return -1;
	*out = strncmp(text, "unlimited", 9) ? strtoull(text, NULL, 10) : UINT64_MAX;
	return 0;
}

static int may_lock(const struct doctor *d)
{
	char text[64];

	return !doctor_field(d, "/proc/self/status", "CapEff:", text, sizeof(text)) &&
	       strtoull(text, NULL, 16) >> CAP_IPC_LOCK_BIT & 1;
}

static void check_memlock(struct doctor *d)
{
	uint64_t limit, swap = meminfo(d, "SwapTotal:");
	struct finding *f;

	if (limit_of(d, "Max locked memory", &limit))
		return;
	if (limit == UINT64_MAX || may_lock(d)) {
		doctor_add(d, "memlock", LEVEL_OK, "as much memory as there is can be locked");
		return;
	}
	/* Without swap only what is mapped from files is ever taken away. */
	f = doctor_add(d, "memlock", swap ? LEVEL_WARN : LEVEL_HINT,
		       "only %s can be locked, and there is %s swap", units_size(limit).s,
		       swap ? "" : "no");
	doctor_costs(f, swap ? "4 KiB pages of rings beyond that may be swapped out: "
			       "milliseconds each" :
			       "--lock always is refused beyond that");
	doctor_fix(f, "echo '* - memlock unlimited' > /etc/security/limits.d/shmq.conf  "
		      "# then log in again");
}

static void check_maps(struct doctor *d)
{
	uint64_t maps;
	struct finding *f;

	if (doctor_number(d, "/proc/sys/vm/max_map_count", &maps))
		return;
	if (maps >= MAPS_WANTED) {
		doctor_add(d, "maps", LEVEL_OK, "%llu for each process", (unsigned long long)maps);
		return;
	}
	f = doctor_add(d, "maps", LEVEL_WARN, "a process may have only %llu",
		       (unsigned long long)maps);
	doctor_costs(f, "a client of some thousand topics is refused the next");
	doctor_write(d, f, "/proc/sys/vm/max_map_count", "262144");
}

static void check_descriptors(struct doctor *d)
{
	uint64_t limit;
	struct finding *f;

	if (limit_of(d, "Max open files", &limit))
		return;
	if (limit >= 1024) {
		doctor_add(d, "descriptors", LEVEL_OK, "%llu for each process",
			   (unsigned long long)limit);
		return;
	}
	f = doctor_add(d, "descriptors", LEVEL_WARN, "a process may have only %llu",
		       (unsigned long long)limit);
	doctor_costs(f, "the supervisor refuses clients and topics beyond that");
	doctor_fix(f, "ulimit -n 65536  # before shmqd starts");
}

/* ---- nodes ------------------------------------------------------------- */

static size_t glob_below(const struct doctor *d, const char *pattern, glob_t *out)
{
	char name[512];

	snprintf(name, sizeof(name), "%s%s", d->root, pattern);
	*out = (glob_t){ 0 };
	return glob(name, 0, NULL, out) == 0 ? out->gl_pathc : 0;
}

static void check_node_pool(struct doctor *d, const char *node)
{
	char path[256];
	uint64_t kib = meminfo(d, "Hugepagesize:"), pages;
	struct finding *f;

	snprintf(path, sizeof(path), NODES "%s/hugepages/hugepages-%llukB/nr_hugepages", node,
		 (unsigned long long)kib);
	if (doctor_number(d, path, &pages) || pages)
		return;
	f = doctor_add(d, "numa-pages", LEVEL_WARN, "%s has no hugepages, others have", node);
	doctor_costs(f, "topics placed on %s fall back to 4 KiB pages", node);
	doctor_fix(f, "echo 64 > %s", path);
}

static void check_numa(struct doctor *d)
{
	size_t nodes, i;
	uint64_t on;
	struct finding *f;
	glob_t found;

	nodes = glob_below(d, NODES "node[0-9]*", &found);
	if (nodes < 2) {
		doctor_add(d, "numa", LEVEL_OK, "one node");
		globfree(&found);
		return;
	}
	if (!doctor_number(d, "/proc/sys/kernel/numa_balancing", &on) && on) {
		f = doctor_add(d, "numa", LEVEL_WARN, "the kernel moves pages between %zu nodes",
			       nodes);
		doctor_costs(f, "page faults of microseconds, now and then, in every process");
		doctor_fix(f, "sysctl -w kernel.numa_balancing=0");
	} else {
		doctor_add(d, "numa", LEVEL_OK, "%zu nodes, pages stay where they are", nodes);
	}
	for (i = 0; i < nodes && meminfo(d, "HugePages_Total:"); i++)
		check_node_pool(d, strrchr(found.gl_pathv[i], '/') + 1);
	globfree(&found);
}

/* ---- processors -------------------------------------------------------- */

static void check_governor(struct doctor *d)
{
	char word[32] = "", slow[32] = "";
	size_t count, i, bad = 0;
	struct finding *f;
	glob_t found;

	count = glob_below(d, CPUS "cpu[0-9]*/cpufreq/scaling_governor", &found);
	for (i = 0; i < count; i++)
		if (!doctor_line(d, found.gl_pathv[i] + strlen(d->root), word, sizeof(word)) &&
		    strcmp(word, "performance") != 0) {
			memcpy(slow, word, sizeof(slow));
			bad++;
		}
	globfree(&found);
	if (!bad) {
		doctor_add(d, "governor", LEVEL_OK, "%s",
			   count ? "performance" : "not the kernel's");
		return;
	}
	f = doctor_add(d, "governor", LEVEL_WARN, "%zu of %zu processors by \"%s\"", bad, count,
		       slow);
	doctor_costs(f, "the first messages after a pause at a fraction of the clock rate");
	doctor_fix(f, "echo performance | tee " CPUS "cpu*/cpufreq/scaling_governor");
}

static void check_isolation(struct doctor *d)
{
	char isolated[128];
	struct finding *f;
	size_t count;
	glob_t found;

	count = glob_below(d, CPUS "cpu[0-9]*", &found);
	globfree(&found);
	if (!doctor_line(d, CPUS "isolated", isolated, sizeof(isolated)) && isolated[0]) {
		doctor_add(d, "isolation", LEVEL_OK, "processors %s", isolated);
		return;
	}
	if (count < 4) {
		doctor_add(d, "isolation", LEVEL_OK, "too few processors (%zu) to set some apart",
			   count);
		return;
	}
	f = doctor_add(d, "isolation", LEVEL_HINT, "no processors are set apart");
	doctor_costs(f, "who polls is interrupted: microseconds, at the 99.9th percentile");
	doctor_fix(f, "boot with isolcpus=managed_irq,domain,2-%zu nohz_full=2-%zu", count - 1,
		   count - 1);
}

static void check_clock(struct doctor *d)
{
	/* These are read without a system call. */
	static const char *const fast[] = { "tsc", "kvm-clock", "hyperv_clocksource_tsc_page",
					    "arch_sys_counter" };
	char now[64], available[256];
	struct finding *f;
	size_t i;

	if (doctor_line(d, CLOCK "current_clocksource", now, sizeof(now)))
		return;
	for (i = 0; i < ARRAY_COUNT(fast); i++)
		if (!strcmp(now, fast[i])) {
			doctor_add(d, "clock", LEVEL_OK, "%s", now);
			return;
		}
	f = doctor_add(d, "clock", LEVEL_WARN, "%s, which takes a system call to read", now);
	doctor_costs(f, "a microsecond for each message of a topic with time, and for each trace");
	doctor_line(d, CLOCK "available_clocksource", available, sizeof(available));
	if (strstr(available, "tsc"))
		doctor_fix(f, "echo tsc > " CLOCK "current_clocksource");
	else
		doctor_fix(f, "boot with tsc=reliable, if the processor's is");
}

void doctor_host(struct doctor *d)
{
	check_hugepages(d);
	check_thp(d);
	check_memlock(d);
	check_maps(d);
	check_descriptors(d);
	check_numa(d);
	check_governor(d);
	check_isolation(d);
	check_clock(d);
}
