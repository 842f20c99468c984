/* SPDX-License-Identifier: MIT */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "place.h"
#include "shmem.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TWO_NODES "synthetic:node:2 core:2 pu:1"

/* A kernel that cannot populate, when a test wants one: this definition
 * stands before libc's for the code under test. */
static int has_no_populate;

int madvise(void *mem, size_t bytes, int advice)
{
	if (has_no_populate && advice == 23) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_madvise, mem, bytes, advice);
}

/* ---- a machine made of files ------------------------------------------ */

static const char *root(void)
{
	return test_tmpdir();
}

static void put(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(const char *path, const char *format, ...)
{
	char full[512], *slash;
	va_list ap;
	FILE *out;

	snprintf(full, sizeof(full), "%s%s", root(), path);
	for (slash = full + strlen(root()) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(full, 0700);
		*slash = '/';
	}
	out = fopen(full, "w");
	if (!out) {
		FAIL("%s cannot be written", full);
		return; /* for the analyser, which cannot see that it does not */
	}
	va_start(ap, format);
	vfprintf(out, format, ap);
	va_end(ap);
	fclose(out);
}

static void put_memory(uint64_t available)
{
	put("/proc/meminfo", "MemTotal: 99999999 kB\nMemAvailable:   %" PRIu64 " kB\n",
	    available >> 10);
}

static void put_pool(const char *dir, unsigned total, unsigned unused, unsigned reserved)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/nr_hugepages", dir);
	put(path, "%u\n", total);
	snprintf(path, sizeof(path), "%s/free_hugepages", dir);
	put(path, "%u\n", unused);
	snprintf(path, sizeof(path), "%s/resv_hugepages", dir);
	put(path, "%u\n", reserved);
}

#define POOL_2M "/sys/kernel/mm/hugepages/hugepages-2048kB"
#define POOL_1G "/sys/kernel/mm/hugepages/hugepages-1048576kB"

static struct place *make(const char *topology, const char *sysroot)
{
	struct shmq__why why = { "" };
	struct place *p;
	int error = place_create(topology, sysroot, &p, &why);

	if (error)
		FAIL("%s: %s", shmq_errname(error), why.text);
	return p;
}

static struct shmq__why why;
static struct place_answer answer;

static int plan(struct place *p, const struct place_ask *ask)
{
	why.text[0] = '\0';
	return place_plan(p, ask, &answer, &why);
}

#define PLAN(p, ...) plan(p, &(struct place_ask){ __VA_ARGS__ })

static void check_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		FAIL("\"%s\" does not say \"%s\"", text, part);
}

/* ---- nodes ------------------------------------------------------------ */

TEST(each_node_of_a_synthetic_topology_is_accepted)
{
	struct place *p = make(TWO_NODES, root());
	int n;

	put_memory(8 * GIB);
	for (n = 0; n < 2; n++) {
		CHECK_OK(PLAN(p, .bytes = MIB, .node = SHMQ_NODE(n)));
		CHECK_EQ(answer.node, SHMQ_NODE(n));
		CHECK_EQ(answer.bytes, MIB);
		CHECK_EQ(answer.page_shift, 12);
	}
	CHECK_OK(PLAN(p, .bytes = MIB));
	CHECK_EQ(answer.node, SHMQ_NODE_ANY);
	place_destroy(p);
}

TEST(a_missing_node_is_refused_by_name)
{
	struct place *p = make(TWO_NODES, root());

	put_memory(8 * GIB);
	CHECK_EQ(PLAN(p, .bytes = MIB, .node = SHMQ_NODE(2)), SHMQ_ENONODE);
	CHECK_STR(why.text, "there is no NUMA node 2 that this process may use: choose from 0-1");
	CHECK_EQ(PLAN(p, .bytes = MIB, .node = -1), SHMQ_ENONODE);
	place_destroy(p);
	p = make(NULL, NULL);
	CHECK_EQ(PLAN(p, .bytes = MIB, .node = SHMQ_NODE(1000)), SHMQ_ENONODE);
	check_says(why.text, "no NUMA node 1000");
	place_destroy(p);
}

TEST(topology_from_an_xml_file)
{
	char path[512];
	hwloc_topology_t topology;
	struct place *p;

	snprintf(path, sizeof(path), "%s/three.xml", root());
	CHECK_EQ(hwloc_topology_init(&topology), 0);
	CHECK_EQ(hwloc_topology_set_synthetic(topology, "node:3 pu:1"), 0);
	CHECK_EQ(hwloc_topology_load(topology), 0);
	CHECK_EQ(hwloc_topology_export_xml(topology, path, 0), 0);
	hwloc_topology_destroy(topology);
	put_memory(8 * GIB);
	p = make(path, root());
	CHECK_OK(PLAN(p, .bytes = MIB, .node = SHMQ_NODE(2)));
	CHECK_EQ(PLAN(p, .bytes = MIB, .node = SHMQ_NODE(3)), SHMQ_ENONODE);
	place_destroy(p);
}

TEST(an_unreadable_topology_is_an_option_error)
{
	struct place *p;

	CHECK_EQ(place_create("synthetic:no such thing", NULL, &p, &why), SHMQ_EOPTION);
	check_says(why.text, "synthetic:no such thing");
	CHECK_EQ(place_create("/nowhere/machine.xml", NULL, &p, &why), SHMQ_EOPTION);
	place_destroy(NULL);
}

TEST(a_node_is_bounded_by_its_own_memory)
{
	struct place *p = make(TWO_NODES, root());

	put_memory(8 * GIB);
	put("/sys/devices/system/node/node1/meminfo",
	    "Node 1 MemFree:   10240 kB\nNode 1 Active(file):  4096 kB\n"
	    "Node 1 Inactive(file):  4096 kB\nNode 1 SReclaimable:  2048 kB\n"
	    "Node 1 Shmem: 4096 kB\n");
	CHECK_EQ(PLAN(p, .bytes = 64 * MIB, .node = SHMQ_NODE(1)), SHMQ_ENOMEMORY);
	CHECK_STR(why.text, "asked for 64.0 MiB, NUMA node 1 has 20.0 MiB free or reclaimable: "
			    "ask for less depth or ask for another node or free memory");
	CHECK_OK(PLAN(p, .bytes = 19 * MIB, .node = SHMQ_NODE(1)));
	CHECK_EQ(answer.available_bytes, 20 * MIB);
	/* Node 0 has no files here: the topology's own 1 GiB holds. */
	CHECK_OK(PLAN(p, .bytes = 64 * MIB, .node = SHMQ_NODE(0)));
	CHECK_EQ(PLAN(p, .bytes = 2 * GIB, .node = SHMQ_NODE(0)), SHMQ_ENOMEMORY);
	check_says(why.text, "NUMA node 0 has 1.0 GiB");
	CHECK_OK(PLAN(p, .bytes = 2 * GIB));
	place_destroy(p);
}

/* ---- memory ----------------------------------------------------------- */

TEST(more_than_this_machine_has_is_refused)
{
	struct place *p = make(NULL, NULL);

	CHECK_EQ(PLAN(p, .bytes = UINT64_C(1) << 50), SHMQ_ENOMEMORY);
	check_says(why.text, "asked for 1.0 PiB, ");
	check_says(why.text, ": ask for less depth or ");
	CHECK_OK(PLAN(p, .bytes = 4096));
	CHECK_GT(answer.available_bytes, MIB);
	place_destroy(p);
}

TEST(memavailable_is_named_with_both_values)
{
	struct place *p = make(NULL, root());

	put_memory(22 * GIB + GIB / 10);
	CHECK_EQ(PLAN(p, .bytes = 64 * GIB), SHMQ_ENOMEMORY);
	CHECK_STR(why.text, "asked for 64.0 GiB, MemAvailable is 22.1 GiB: "
			    "ask for less depth or free memory");
	CHECK_EQ(PLAN(p, .bytes = 22 * GIB + GIB / 10), SHMQ_ENOMEMORY);
	CHECK_OK(PLAN(p, .bytes = 22 * GIB));
	check_says(answer.source, "MemAvailable is 22.1 GiB");
	/* Page tables come on top. */
	put_memory(22 * GIB);
	CHECK_EQ(PLAN(p, .bytes = 22 * GIB), SHMQ_ENOMEMORY);
	place_destroy(p);
}

TEST(strict_overcommit_is_respected)
{
	struct place *p = make(NULL, root());

	put("/proc/meminfo", "MemAvailable: %d kB\nCommitLimit: %d kB\nCommitted_AS: %d kB\n",
	    4 << 20, 1 << 20, 1 << 19);
	CHECK_OK(PLAN(p, .bytes = GIB));
	put("/proc/sys/vm/overcommit_memory", "2\n");
	CHECK_EQ(PLAN(p, .bytes = GIB), SHMQ_ENOMEMORY);
	check_says(why.text, "CommitLimit leaves 512.0 MiB");
	CHECK_OK(PLAN(p, .bytes = GIB / 4));
	place_destroy(p);
}

TEST(memory_max_of_the_own_cgroup_and_its_parents_bounds)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put("/proc/self/cgroup", "0::/app.slice/bus.service\n");
	put("/sys/fs/cgroup/app.slice/bus.service/memory.max", "max\n");
	put("/sys/fs/cgroup/app.slice/bus.service/memory.current", "1048576\n");
	CHECK_OK(PLAN(p, .bytes = GIB));

	put("/sys/fs/cgroup/app.slice/memory.max", "%" PRIu64 "\n", 32 * MIB);
	put("/sys/fs/cgroup/app.slice/memory.current", "%" PRIu64 "\n", 10 * MIB);
	CHECK_EQ(PLAN(p, .bytes = 64 * MIB), SHMQ_ENOMEMORY);
	CHECK_STR(why.text,
		  "asked for 64.0 MiB, memory.max of cgroup /app.slice is 32.0 MiB with "
		  "10.0 MiB in use: ask for less depth or raise memory.max of that cgroup");
	CHECK_EQ(PLAN(p, .bytes = 24 * MIB), SHMQ_ENOMEMORY);
	CHECK_OK(PLAN(p, .bytes = 16 * MIB));
	CHECK_EQ(answer.available_bytes, 22 * MIB);

	/* Page cache counts as use, but gives way. */
	put("/sys/fs/cgroup/app.slice/memory.stat",
	    "anon 1\ninactive_file %" PRIu64 "\nactive_file %" PRIu64 "\n", 4 * MIB, 2 * MIB);
	CHECK_OK(PLAN(p, .bytes = 24 * MIB));
	CHECK_EQ(answer.available_bytes, 28 * MIB);

	put("/sys/fs/cgroup/app.slice/bus.service/memory.max", "%" PRIu64 "\n", 5 * MIB);
	CHECK_EQ(PLAN(p, .bytes = 16 * MIB), SHMQ_ENOMEMORY);
	check_says(why.text, "memory.max of cgroup /app.slice/bus.service is 5.0 MiB with 1.0 MiB");
	place_destroy(p);
}

TEST(limit_in_bytes_of_a_version_1_cgroup_bounds)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put("/proc/self/cgroup", "5:devices:/\n4:cpu,memory:/pod/a\n0::/\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/pod/a/memory.limit_in_bytes", "%" PRIu64 "\n", 32 * MIB);
	put("/sys/fs/cgroup/memory/pod/a/memory.usage_in_bytes", "%" PRIu64 "\n", 12 * MIB);
	put("/sys/fs/cgroup/memory/pod/a/memory.stat",
	    "inactive_file 9\ntotal_inactive_file %" PRIu64 "\n", 4 * MIB);
	CHECK_EQ(PLAN(p, .bytes = 32 * MIB), SHMQ_ENOMEMORY);
	check_says(why.text,
		   "memory.limit_in_bytes of cgroup /pod/a is 32.0 MiB with 8.0 MiB in use");
	CHECK_OK(PLAN(p, .bytes = 20 * MIB));
	CHECK_EQ(answer.available_bytes, 24 * MIB);
	place_destroy(p);
}

/* In a container /proc/self/cgroup may have the host's path, and only the
 * container's part is mounted, as the root. */
TEST(a_cgroup_path_that_is_not_mounted_falls_back_to_its_ancestors)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put("/proc/self/cgroup", "0::/docker/0123\n");
	put("/sys/fs/cgroup/memory.max", "%" PRIu64 "\n", 8 * MIB);
	CHECK_EQ(PLAN(p, .bytes = 16 * MIB), SHMQ_ENOMEMORY);
	check_says(why.text, "memory.max of cgroup / is 8.0 MiB");
	put("/proc/self/cgroup", "0::/../other\n");
	CHECK_EQ(PLAN(p, .bytes = 16 * MIB), SHMQ_ENOMEMORY);
	place_destroy(p);
}

TEST(impossible_asks_are_refused)
{
	struct place *p = make(NULL, NULL);

	CHECK_EQ(PLAN(p, .bytes = 0), SHMQ_EOPTION);
	CHECK_EQ(PLAN(p, .bytes = 10000, .piece_bytes = 4096), SHMQ_EOPTION);
	CHECK_EQ(PLAN(p, .bytes = 4096, .pages = 99), SHMQ_EOPTION);
	CHECK_EQ(PLAN(p, .bytes = 4096, .lock = 99), SHMQ_EOPTION);
	CHECK_EQ(PLAN(p, .bytes = UINT64_MAX), SHMQ_ELIMIT);
	CHECK_EQ(PLAN(p, .bytes = UINT64_C(1) << 63), SHMQ_ELIMIT);
	CHECK_EQ(PLAN(p, .bytes = UINT64_C(1) << 63, .piece_bytes = 1), SHMQ_ELIMIT);
	place_destroy(p);
}

/* ---- hugepages: decisions ---------------------------------------------- */

TEST(hugepages_asked_with_none_free_are_refused_with_the_command)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put_pool(POOL_2M, 3, 0, 0);
	CHECK_EQ(PLAN(p, .bytes = 8 * MIB, .pages = SHMQ_PAGES_2M), SHMQ_ENOHUGE);
	CHECK_STR(why.text,
		  "needs 4 hugepages of 2 MiB, 0 free: echo 7 > /proc/sys/vm/nr_hugepages");
	CHECK_EQ(PLAN(p, .bytes = 8 * MIB, .pages = SHMQ_PAGES_1G), SHMQ_ENOHUGE);
	check_says(why.text, "boot with hugepagesz=1G hugepages=1");
	put_pool(POOL_1G, 0, 0, 0);
	CHECK_EQ(PLAN(p, .bytes = 8 * MIB, .pages = SHMQ_PAGES_1G), SHMQ_ENOHUGE);
	check_says(why.text,
		   "needs 1 hugepages of 1 GiB, 0 free: echo 1 > " POOL_1G "/nr_hugepages");
	place_destroy(p);
}

TEST(auto_takes_hugepages_when_a_ring_fills_one_and_enough_are_free)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put_pool(POOL_2M, 6, 6, 0);
	CHECK_OK(PLAN(p, .bytes = 6 * MIB + 3 * 4096, .piece_bytes = 2 * MIB + 4096));
	CHECK_EQ(answer.page_shift, 21);
	CHECK_EQ(answer.piece_bytes, 4 * MIB);
	CHECK_EQ(answer.bytes, 12 * MIB);
	CHECK_EQ(answer.available_bytes, 12 * MIB);
	CHECK_STR(answer.note, "");
	CHECK_STR(answer.source, "hugepages of 2 MiB, 6 of 6 free");
	CHECK_EQ(answer.lock, 0);

	/* Someone's reservation is not free. */
	put_pool(POOL_2M, 6, 6, 1);
	CHECK_OK(PLAN(p, .bytes = 6 * MIB + 3 * 4096, .piece_bytes = 2 * MIB + 4096));
	CHECK_EQ(answer.page_shift, 12);
	CHECK_EQ(answer.bytes, 6 * MIB + 3 * 4096);
	check_says(answer.note, "4 KiB pages: needs 6 hugepages of 2 MiB, 5 free: "
				"echo 7 > /proc/sys/vm/nr_hugepages");
	place_destroy(p);
}

TEST(auto_says_nothing_when_no_ring_fills_a_hugepage)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put_pool(POOL_2M, 0, 0, 0);
	CHECK_OK(PLAN(p, .bytes = 4 * MIB, .piece_bytes = MIB, .lock = SHMQ_LOCK_NEVER));
	CHECK_EQ(answer.page_shift, 12);
	CHECK_STR(answer.note, "");
	put_pool(POOL_2M, 9, 9, 0);
	CHECK_OK(PLAN(p, .bytes = 4 * MIB, .piece_bytes = MIB));
	CHECK_EQ(answer.page_shift, 12);
	CHECK_OK(PLAN(p, .bytes = 4 * MIB, .pages = SHMQ_PAGES_4K, .lock = SHMQ_LOCK_NEVER));
	CHECK_EQ(answer.page_shift, 12);
	CHECK_STR(answer.note, "");
	place_destroy(p);
}

TEST(hugepages_of_a_node_are_its_own)
{
	struct place *p = make(TWO_NODES, root());

	put_memory(8 * GIB);
	put_pool(POOL_2M, 8, 8, 0);
	put_pool("/sys/devices/system/node/node0/hugepages/hugepages-2048kB", 7, 7, 0);
	put_pool("/sys/devices/system/node/node1/hugepages/hugepages-2048kB", 1, 1, 0);
	CHECK_OK(PLAN(p, .bytes = 8 * MIB, .node = SHMQ_NODE(0), .pages = SHMQ_PAGES_2M));
	CHECK_EQ(PLAN(p, .bytes = 8 * MIB, .node = SHMQ_NODE(1), .pages = SHMQ_PAGES_2M),
		 SHMQ_ENOHUGE);
	CHECK_STR(why.text,
		  "needs 4 hugepages of 2 MiB, 1 free: echo 4 > "
		  "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages");
	place_destroy(p);
}

TEST(the_hugetlb_cgroup_bounds_hugepages)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put_pool(POOL_2M, 8, 8, 0);
	put("/proc/self/cgroup", "0::/a\n");
	put("/sys/fs/cgroup/a/hugetlb.2MB.max", "%" PRIu64 "\n", 6 * MIB);
	put("/sys/fs/cgroup/a/hugetlb.2MB.current", "%" PRIu64 "\n", 2 * MIB);
	CHECK_OK(PLAN(p, .bytes = 4 * MIB, .pages = SHMQ_PAGES_2M));
	CHECK_EQ(answer.available_bytes, 4 * MIB);
	CHECK_EQ(PLAN(p, .bytes = 6 * MIB, .pages = SHMQ_PAGES_2M), SHMQ_ENOHUGE);
	check_says(why.text, "hugetlb.2MB.max of cgroup /a is 6.0 MiB with 2.0 MiB in use");
	CHECK_OK(PLAN(p, .bytes = 6 * MIB));
	CHECK_EQ(answer.page_shift, 12);
	place_destroy(p);
}

/* ---- limits of the process ---------------------------------------------- */

static void limit(int resource, uint64_t value)
{
	struct rlimit to;

	CHECK_EQ(getrlimit(resource, &to), 0);
	to.rlim_cur = value;
	CHECK_EQ(setrlimit(resource, &to), 0);
}

TEST(what_is_locked_already_counts_against_memlock)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put("/proc/self/status", "VmLck:\t    3072 kB\nCapEff:\t0000000000000000\n");
	limit(RLIMIT_MEMLOCK, 8 * MIB);
	CHECK_OK(PLAN(p, .bytes = 5 * MIB, .lock = SHMQ_LOCK_ALWAYS));
	CHECK_EQ(answer.lock, 1);
	CHECK_EQ(PLAN(p, .bytes = 6 * MIB, .lock = SHMQ_LOCK_ALWAYS), SHMQ_EMEMLOCK);
	CHECK_STR(why.text,
		  "asked to lock 6.0 MiB, the memlock limit is 8.0 MiB with 3.0 MiB locked: "
		  "raise ulimit -l (LimitMEMLOCK=) or ask for lock=auto");
	put("/proc/self/status", "VmLck:\t    3072 kB\nCapEff:\t0000000000004000\n");
	CHECK_OK(PLAN(p, .bytes = 6 * MIB, .lock = SHMQ_LOCK_ALWAYS));

	/* Another process locks: its figures count. */
	put("/proc/self/status", "VmLck:\t    0 kB\nCapEff:\t0000000000000000\n");
	CHECK_OK(PLAN(p, .bytes = 6 * MIB, .lock = SHMQ_LOCK_ALWAYS));
	put("/proc/1/status", "VmLck:\t    0 kB\nCapEff:\t0000000000004000\n");
	CHECK_EQ(PLAN(p, .bytes = 9 * MIB, .lock = SHMQ_LOCK_ALWAYS), SHMQ_EMEMLOCK);
	place_set_locker(p, 1);
	CHECK_OK(PLAN(p, .bytes = 9 * MIB, .lock = SHMQ_LOCK_ALWAYS));
	place_destroy(p);
}

TEST(lock_auto_beyond_memlock_is_a_note)
{
	struct place *p = make(NULL, root());

	put_memory(8 * GIB);
	put_pool(POOL_2M, 0, 0, 0);
	put("/proc/self/status", "VmLck:\t    0 kB\nCapEff:\t0000000000000000\n");
	limit(RLIMIT_MEMLOCK, 64 << 10);
	CHECK_OK(PLAN(p, .bytes = 64 << 10));
	CHECK_EQ(answer.lock, 1);
	CHECK_STR(answer.note, "");
	CHECK_OK(PLAN(p, .bytes = 8 * MIB));
	CHECK_EQ(answer.lock, 0);
	CHECK_STR(
		answer.note,
		"4 KiB pages: needs 4 hugepages of 2 MiB, 0 free: echo 4 > /proc/sys/vm/nr_hugepages; "
		"not locked: the memlock limit is 64.0 KiB with 0 B locked: "
		"raise ulimit -l (LimitMEMLOCK=)");
	CHECK_OK(PLAN(p, .bytes = MIB, .lock = SHMQ_LOCK_NEVER));
	CHECK_EQ(answer.lock, 0);
	CHECK_STR(answer.note, "");
	place_destroy(p);
}

/* Without privileges, as CAP_IPC_LOCK knows no limit. */
static void limit_locking(void)
{
	limit(RLIMIT_MEMLOCK, 64 << 10);
	if (geteuid() == 0)
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
}

TEST(a_plan_to_lock_beyond_the_limit_of_this_process_is_refused)
{
	struct place *p = make(NULL, NULL);

	limit_locking();
	CHECK_EQ(PLAN(p, .bytes = MIB, .lock = SHMQ_LOCK_ALWAYS), SHMQ_EMEMLOCK);
	place_destroy(p);
}

TEST(locking_beyond_the_limit_of_this_process_is_refused)
{
	struct place *p;
	char *mem;

	if (test_is_shadowed())
		SKIP("the sanitizer makes mlock() do nothing");
	p = make(NULL, NULL);
	mem = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	munmap(mem + MIB, MIB);
	limit_locking();
	CHECK_EQ(place_lock(mem, MIB, &why), SHMQ_EMEMLOCK);
	CHECK_STR(why.text, "locking 1.0 MiB, the memlock limit is 64.0 KiB with 0 B locked: "
			    "raise ulimit -l (LimitMEMLOCK=)");
	CHECK_OK(place_lock(mem, 32 << 10, &why));
	CHECK_EQ(PLAN(p, .bytes = 48 << 10, .lock = SHMQ_LOCK_ALWAYS), SHMQ_EMEMLOCK);
	check_says(why.text, "with 32.0 KiB locked");
	CHECK_EQ(place_lock(mem + MIB, 4096, NULL), SHMQ_ENOMEMORY);
	munmap(mem, MIB);
	place_destroy(p);
}

TEST(the_file_size_limit_counts_for_the_whole_slab)
{
	struct place *p = make(NULL, NULL);

	limit(RLIMIT_FSIZE, MIB);
	CHECK_EQ(PLAN(p, .bytes = 2 * MIB, .pages = SHMQ_PAGES_4K), SHMQ_ELIMIT);
	CHECK_STR(why.text, "asked for 2.0 MiB, the file size limit (RLIMIT_FSIZE) is 1.0 MiB: "
			    "ask for less depth or raise ulimit -f (LimitFSIZE=)");
	CHECK_EQ(PLAN(p, .bytes = 4096, .slab_bytes = 2 * MIB), SHMQ_ELIMIT);
	CHECK_OK(PLAN(p, .bytes = 4096));
	place_destroy(p);
}

TEST(the_address_space_limit_is_named)
{
	struct place *p;

	if (test_is_shadowed())
		SKIP("the sanitizer needs all the address space there is");
	p = make(NULL, NULL);
	limit(RLIMIT_AS, 256 * MIB);
	CHECK_EQ(PLAN(p, .bytes = 256 * MIB, .pages = SHMQ_PAGES_4K), SHMQ_ELIMIT);
	check_says(why.text, "the address space limit (RLIMIT_AS) is 256.0 MiB with ");
	CHECK_OK(PLAN(p, .bytes = 4096));
	place_destroy(p);
}

/* ---- populating ---------------------------------------------------------- */

static uint64_t used_bytes(int fd)
{
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static int make_slab(uint64_t bytes, unsigned page_shift)
{
	int fd = shmq__shmem_create("place-test", bytes, page_shift);

	CHECK_GE(fd, 0);
	/* Where shmem has transparent hugepages, blocks cannot be counted. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	return fd;
}

static void init_byte(void *mem, void *arg)
{
	memset(mem, *(char *)arg, 4096);
}

TEST(a_child_populates_exactly_the_range_and_initialises_it)
{
	struct place *p = make(NULL, NULL);
	struct place_result result;
	unsigned char in_core[16], *mem;
	char byte = 'x';
	int fd = make_slab(16 * MIB, 12), i;

	CHECK_EQ(used_bytes(fd), 0);
	CHECK_OK(place_populate(p, fd, MIB, 2 * MIB, 12, SHMQ_NODE_ANY, init_byte, &byte, &result,
				&why));
	CHECK_EQ(result.error, 0);
	CHECK_EQ(result.page_bytes, 4096);
	CHECK_EQ(used_bytes(fd), 2 * MIB);
	mem = mmap(NULL, 16 * MIB, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(mem != MAP_FAILED);
	CHECK_EQ(mincore(mem + MIB - 8 * 4096, 16 * 4096, in_core), 0);
	for (i = 0; i < 16; i++)
		CHECK_EQ(in_core[i] & 1, i >= 8);
	CHECK_EQ(mem[MIB], 'x');
	CHECK_EQ(mem[MIB + 4095], 'x');
	CHECK_EQ(mem[MIB + 4096], 0);
	munmap(mem, 16 * MIB);
	CHECK_OK(shmq__shmem_punch(fd, MIB, 2 * MIB));
	CHECK_EQ(used_bytes(fd), 0);
	close(fd);
	place_destroy(p);
}

TEST(a_range_that_is_not_whole_pages_is_refused)
{
	struct place *p = make(NULL, NULL);
	int fd = make_slab(MIB, 12);

	CHECK_EQ(place_populate(p, fd, 100, 4096, 12, 0, NULL, NULL, NULL, &why), SHMQ_EOPTION);
	CHECK_EQ(place_populate(p, fd, 0, 100, 12, 0, NULL, NULL, NULL, &why), SHMQ_EOPTION);
	CHECK_EQ(place_populate(p, fd, 0, 0, 12, 0, NULL, NULL, NULL, &why), SHMQ_EOPTION);
	CHECK_EQ(place_populate(p, fd, 0, 4096, 12, SHMQ_NODE(1000), NULL, NULL, NULL, &why),
		 SHMQ_ENONODE);
	CHECK_EQ(place_populate(p, -1, 0, 4096, 12, 0, NULL, NULL, NULL, &why), -EBADF);
	CHECK_EQ(used_bytes(fd), 0);
	close(fd);
	place_destroy(p);
}

/* The mode of a range's policy, as the kernel keeps it with the file. */
static int policy_of(int fd, uint64_t off)
{
	void *mem = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, (off_t)off);
	int mode = -1;

	CHECK(mem != MAP_FAILED);
	if (syscall(SYS_get_mempolicy, &mode, NULL, 0, mem, MPOL_F_ADDR))
		SKIP("get_mempolicy is denied here");
	munmap(mem, 4096);
	return mode;
}

TEST(pages_are_bound_to_the_node_and_read_back)
{
	struct place *p = make(NULL, NULL);
	struct place_result result;
	int fd = make_slab(2 * MIB, 12);

	if (PLAN(p, .bytes = MIB, .node = SHMQ_NODE(0)) == SHMQ_ENONODE)
		SKIP("this process may not use node 0");
	CHECK_EQ(policy_of(fd, 0), MPOL_DEFAULT);
	CHECK_OK(place_populate(p, fd, 0, MIB, 12, SHMQ_NODE(0), NULL, NULL, &result, &why));
	CHECK_EQ(result.node_actual, SHMQ_NODE(0));
	CHECK_EQ(policy_of(fd, 0), MPOL_BIND);
	CHECK_EQ(policy_of(fd, MIB), MPOL_DEFAULT);

	/* The range's next user asked for no node. */
	CHECK_OK(shmq__shmem_punch(fd, 0, MIB));
	CHECK_OK(place_populate(p, fd, 0, MIB, 12, SHMQ_NODE_ANY, NULL, NULL, &result, &why));
	CHECK_EQ(policy_of(fd, 0), MPOL_DEFAULT);
	close(fd);
	place_destroy(p);
}

TEST(with_a_synthetic_topology_placement_is_skipped)
{
	struct place *p = make(TWO_NODES, NULL);
	struct place_result result;
	int fd = make_slab(MIB, 12);

	CHECK_OK(place_populate(p, fd, 0, MIB, 12, SHMQ_NODE(1), NULL, NULL, &result, &why));
	CHECK_EQ(used_bytes(fd), MIB);
	CHECK_EQ(policy_of(fd, 0), MPOL_DEFAULT);
	close(fd);
	place_destroy(p);
}

static void init_dies(void *mem, void *arg)
{
	raise(*(int *)arg);
}

TEST(a_killed_child_is_a_shortage_of_memory_and_its_range_is_punched)
{
	struct place *p = make(NULL, NULL);
	struct place_result result;
	int fd = make_slab(2 * MIB, 12), sig = SIGKILL;

	/* A neighbour's page stays. */
	CHECK_EQ(pwrite(fd, "n", 1, MIB), 1);
	CHECK_EQ(place_populate(p, fd, 0, MIB, 12, 0, init_dies, &sig, &result, &why),
		 SHMQ_ENOMEMORY);
	CHECK_EQ(result.error, SHMQ_ENOMEMORY);
	check_says(why.text, "killed while populating (SIGKILL");
	CHECK_EQ(used_bytes(fd), 4096);
	sig = SIGSEGV;
	limit(RLIMIT_CORE, 0);
	CHECK_EQ(place_populate(p, fd, 0, MIB, 12, 0, init_dies, &sig, &result, &why), -EIO);
	close(fd);
	place_destroy(p);
}

static void init_fill(void *mem, void *arg)
{
	memset(mem, 'k', MIB);
}

static void check_kept(int fd)
{
	static char got[MIB], want[MIB];

	memset(want, 'k', sizeof(want));
	CHECK_EQ(pread(fd, got, sizeof(got), 0), (ssize_t)sizeof(got));
	CHECK_MEM(got, want, sizeof(got));
}

TEST(pages_that_are_brought_to_a_node_keep_what_is_in_them)
{
	struct place *p = make(NULL, NULL);
	struct place_result result;
	int fd = make_slab(2 * MIB, 12), result_fd;
	pid_t child;

	CHECK_OK(place_populate(p, fd, 0, MIB, 12, 0, init_fill, NULL, &result, &why));
	/* There and back, as far as there are nodes. */
	for (int n = 0; n < 4; n++) {
		int node = SHMQ_NODE(n % 2);
		int error = place_bring_start(p, fd, 0, MIB, 12, node, &child, &result_fd, &why);

		if (error == SHMQ_ENONODE)
			continue;
		CHECK_OK(error);
		CHECK_OK(place_populate_finish(child, result_fd, &result, &why));
		CHECK_EQ(result.node_actual, node);
		check_kept(fd);
	}
	CHECK_EQ(used_bytes(fd), MIB);
	close(fd);
	place_destroy(p);
}

TEST(pages_whose_mover_is_killed_keep_what_is_in_them)
{
	struct place *p = make(NULL, NULL);
	int fd = make_slab(2 * MIB, 12), result_fd, error;
	pid_t child;

	CHECK_OK(place_populate(p, fd, 0, MIB, 12, 0, init_fill, NULL, NULL, &why));
	error = place_bring_start(p, fd, 0, MIB, 12, SHMQ_NODE(0), &child, &result_fd, &why);
	if (error == SHMQ_ENONODE)
		SKIP("this process may not use node 0");
	CHECK_OK(error);
	CHECK_OK(kill(child, SIGKILL));
	place_populate_finish(child, result_fd, NULL, &why);
	check_kept(fd);
	close(fd);
	place_destroy(p);
}

/* A memfd that is shorter than the range: what a full machine looks like to a
 * page fault. */
static void populate_meets_sigbus(const char *expected)
{
	struct place *p = make(NULL, NULL);
	struct place_result result;
	int fd = memfd_create("short", MFD_CLOEXEC);

	CHECK_GE(fd, 0);
	CHECK_EQ(ftruncate(fd, 64 << 10), 0);
	CHECK_EQ(place_populate(p, fd, 0, MIB, 12, 0, NULL, NULL, &result, &why), SHMQ_ENOMEMORY);
	check_says(why.text, expected);
	CHECK_EQ(used_bytes(fd), 0);
	close(fd);
	place_destroy(p);
}

TEST(the_child_stops_when_what_is_to_come_no_longer_fits)
{
	struct place *p = make(NULL, root());
	int fd = make_slab(256 * MIB, 12);

	put_memory(32 * MIB);
	CHECK_EQ(place_populate(p, fd, 0, 33 * MIB, 12, 0, NULL, NULL, NULL, &why), SHMQ_ENOMEMORY);
	CHECK_STR(why.text, "populating 33.0 MiB with 33.0 MiB to come, MemAvailable is 32.0 MiB: "
			    "ask for less depth or free memory");
	CHECK_EQ(used_bytes(fd), 0);
	CHECK_OK(place_populate(p, fd, 0, 32 * MIB, 12, 0, NULL, NULL, NULL, &why));
	put_memory(256 * MIB);
	CHECK_OK(place_populate(p, fd, 32 * MIB, 130 * MIB, 12, 0, NULL, NULL, NULL, &why));
	CHECK_EQ(used_bytes(fd), 162 * MIB);
	close(fd);
	place_destroy(p);
}

TEST(the_descriptor_limit_is_named)
{
	struct place *p = make(NULL, NULL);
	int fd = make_slab(MIB, 12), before = test_fd_count();

	limit(RLIMIT_NOFILE, (uint64_t)fd + 1);
	CHECK_EQ(place_populate(p, fd, 0, MIB, 12, 0, NULL, NULL, NULL, &why), SHMQ_ELIMIT);
	CHECK_STR(why.text, "no descriptor is free: raise ulimit -n");
	limit(RLIMIT_NOFILE, (uint64_t)fd + 3);
	CHECK_EQ(place_populate(p, fd, 0, MIB, 12, 0, NULL, NULL, NULL, &why), SHMQ_ELIMIT);
	limit(RLIMIT_NOFILE, (uint64_t)fd + 32);
	CHECK_OK(place_populate(p, fd, 0, MIB, 12, 0, NULL, NULL, NULL, &why));
	CHECK_EQ(test_fd_count(), before);
	close(fd);
	place_destroy(p);
}

TEST(populating_where_no_page_is_to_be_had_is_a_shortage_of_memory)
{
	populate_meets_sigbus(
		"populating 1.0 MiB: the kernel gave out no more pages of 4 KiB (SIGBUS)");
}

TEST(touching_where_no_page_is_to_be_had_is_a_shortage_of_memory)
{
	has_no_populate = 1;
	populate_meets_sigbus("populating: no page of 4 KiB to be had (SIGBUS)");
}

TEST(a_kernel_without_populate_is_served_by_touching)
{
	struct place *p = make(NULL, NULL);
	char byte = 'y', first;
	int fd = make_slab(2 * MIB, 12);

	CHECK_EQ(pwrite(fd, "z", 1, MIB), 1);
	has_no_populate = 1;
	CHECK_OK(place_populate(p, fd, 0, 2 * MIB, 12, 0, init_byte, &byte, NULL, &why));
	CHECK_EQ(used_bytes(fd), 2 * MIB);
	CHECK_EQ(pread(fd, &first, 1, 0), 1);
	CHECK_EQ(first, 'y');
	CHECK_EQ(pread(fd, &first, 1, MIB), 1);
	CHECK_EQ(first, 'z');
	close(fd);
	place_destroy(p);
}

/* ---- the child ------------------------------------------------------------ */

struct shared {
	_Atomic pid_t child;
	_Atomic int go;
	char oom_score[16];
	int term_is_ignored, usr1_is_default, is_usr1_blocked;
};

static struct shared *make_shared(void)
{
	void *mem = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

static void init_waits(void *mem, void *arg)
{
	struct shared *shared = arg;

	shared->child = getpid();
	while (!shared->go)
		usleep(1000);
}

static int is_child_there(void *arg)
{
	return ((struct shared *)arg)->child != 0;
}

TEST(the_result_is_polled_for_and_the_child_holds_no_other_descriptor)
{
	struct place *p = make(NULL, NULL);
	struct shared *shared = make_shared();
	struct pollfd ready = { .events = POLLIN };
	struct place_result result;
	int fd = make_slab(MIB, 12), ends[2], high;
	pid_t child;
	char byte;

	CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
	high = fcntl(ends[1], F_DUPFD_CLOEXEC, 200);
	CHECK_GE(high, 200);
	CHECK_OK(place_populate_start(p, fd, 0, MIB, 12, 0, init_waits, shared, &child, &ready.fd,
				      &why));
	CHECK_EQ(test_wait_until(is_child_there, shared, 5000 * test_slowdown()), 1);
	CHECK_EQ(shared->child, child);
	CHECK_EQ(poll(&ready, 1, 0), 0);
	/* The last writer is gone although the child lives. */
	close(ends[1]);
	close(high);
	CHECK_EQ(read(ends[0], &byte, 1), 0);
	close(ends[0]);
	shared->go = 1;
	CHECK_EQ(poll(&ready, 1, 5000 * test_slowdown()), 1);
	CHECK_OK(place_populate_finish(child, ready.fd, &result, &why));
	CHECK_EQ(kill(child, 0), -1);
	munmap(shared, sizeof(*shared));
	close(fd);
	place_destroy(p);
}

TEST(children_at_work_at_the_same_time_are_told_apart)
{
	enum { CHILDREN = 3 };
	struct place *p = make(NULL, NULL);
	struct shared *shared = make_shared();
	int fd = make_slab(CHILDREN * MIB, 12), result_fd[CHILDREN], i;
	pid_t child[CHILDREN];

	for (i = 0; i < CHILDREN; i++)
		CHECK_OK(place_populate_start(p, fd, (uint64_t)i * MIB, MIB, 12, 0, init_waits,
					      shared, &child[i], &result_fd[i], &why));
	/* The middle one fails: its range goes, and only that. */
	CHECK_EQ(kill(child[1], SIGKILL), 0);
	CHECK_EQ(place_populate_finish(child[1], result_fd[1], NULL, &why), SHMQ_ENOMEMORY);
	shared->go = 1;
	CHECK_OK(place_populate_finish(child[0], result_fd[0], NULL, &why));
	CHECK_OK(place_populate_finish(child[2], result_fd[2], NULL, &why));
	CHECK_EQ(used_bytes(fd), 2 * MIB);
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), MIB);
	CHECK_EQ(lseek(fd, MIB, SEEK_DATA), 2 * MIB);
	munmap(shared, sizeof(*shared));
	close(fd);
	place_destroy(p);
}

_Noreturn static int start_and_wait(void *arg)
{
	struct place *p = make(NULL, NULL);
	int fd = make_slab(MIB, 12), result_fd;
	pid_t child;

	CHECK_OK(place_populate_start(p, fd, 0, MIB, 12, 0, init_waits, arg, &child, &result_fd,
				      &why));
	for (;;)
		pause();
}

static int is_child_dead(void *arg)
{
	char path[64], line[128] = "";
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)((struct shared *)arg)->child);
	in = fopen(path, "re");
	if (!in)
		return 1;
	if (!fgets(line, sizeof(line), in))
		line[0] = '\0';
	fclose(in);
	return !*line || strstr(line, ") Z ") || strstr(line, ") X ");
}

TEST(the_child_dies_with_its_parent)
{
	struct shared *shared = make_shared();
	pid_t parent = test_spawn(start_and_wait, shared);

	CHECK_EQ(test_wait_until(is_child_there, shared, 5000 * test_slowdown()), 1);
	CHECK_EQ(is_child_dead(shared), 0);
	CHECK_EQ(test_kill_wait(parent, SIGKILL), 128 + SIGKILL);
	CHECK_EQ(test_wait_until(is_child_dead, shared, 5000 * test_slowdown()), 1);
	munmap(shared, sizeof(*shared));
}

static void init_looks_at_itself(void *mem, void *arg)
{
	struct shared *shared = arg;
	int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
	struct sigaction action;
	sigset_t mask;

	if (read(fd, shared->oom_score, sizeof(shared->oom_score) - 1) < 0)
		shared->oom_score[0] = '\0';
	close(fd);
	sigaction(SIGTERM, NULL, &action);
	shared->term_is_ignored = action.sa_handler == SIG_IGN;
	sigaction(SIGUSR1, NULL, &action);
	shared->usr1_is_default = action.sa_handler == SIG_DFL;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	shared->is_usr1_blocked = sigismember(&mask, SIGUSR1);
}

static void on_usr1(int sig)
{
}

TEST(the_child_is_the_first_to_go_and_keeps_no_handler)
{
	struct place *p = make(NULL, NULL);
	struct shared *shared = make_shared();
	int fd = make_slab(MIB, 12);
	sigset_t mask;

	signal(SIGUSR1, on_usr1);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	CHECK_OK(place_populate(p, fd, 0, MIB, 12, 0, init_looks_at_itself, shared, NULL, &why));
	CHECK_STR(shared->oom_score, "1000\n");
	CHECK_EQ(shared->term_is_ignored, 1);
	CHECK_EQ(shared->usr1_is_default, 1);
	CHECK_EQ(shared->is_usr1_blocked, 0);
	/* The parent is as it was. */
	sigprocmask(SIG_SETMASK, NULL, &mask);
	CHECK_EQ(sigismember(&mask, SIGUSR1), 1);
	CHECK_EQ(sigismember(&mask, SIGTERM), 0);
	CHECK(signal(SIGUSR1, SIG_DFL) == on_usr1);
	munmap(shared, sizeof(*shared));
	close(fd);
	place_destroy(p);
}

/* ---- a real shortage: a cgroup of our own ---------------------------------- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), done;

	if (fd < 0)
		return 0;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

/* Make a memory cgroup of 192 MiB and its path; 0 where that cannot be done. */
static int make_cgroup(char *path, size_t bytes)
{
	static const struct {
		const char *parent, *limit;
	} kind[] = { { "/sys/fs/cgroup/memory", "memory.limit_in_bytes" },
		     { "/sys/fs/cgroup", "memory.max" } };
	char file[256];
	size_t i;

	for (i = 0; i < 2; i++) {
		snprintf(path, bytes, "%s/shmq-test-%d", kind[i].parent, (int)getpid());
		if (mkdir(path, 0700))
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, kind[i].limit);
		if (write_file(file, "201326592"))
			return 1;
		rmdir(path);
	}
	return 0;
}

static int populate_in_cgroup(void *arg)
{
	char file[256], pid[16];
	struct place *p = make(NULL, NULL), *blind = make(NULL, root());
	int fd = make_slab(256 * MIB, 12);

	snprintf(file, sizeof(file), "%s/cgroup.procs", (char *)arg);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (!write_file(file, pid))
		return 77;
	CHECK_OK(PLAN(p, .bytes = MIB));
	CHECK_EQ(PLAN(p, .bytes = 256 * MIB), SHMQ_ENOMEMORY);
	check_says(why.text, "cgroup /shmq-test-");
	check_says(why.text, " is 192.0 MiB with ");
	/* As if the plan had been overtaken. */
	CHECK_EQ(place_populate(p, fd, 0, 256 * MIB, 12, 0, NULL, NULL, NULL, &why),
		 SHMQ_ENOMEMORY);
	check_says(why.text, "populating 256.0 MiB with 256.0 MiB to come, ");
	/* As if even the child had been: it pays, not this process. */
	CHECK_EQ(place_populate(blind, fd, 0, 256 * MIB, 12, 0, NULL, NULL, NULL, &why),
		 SHMQ_ENOMEMORY);
	NOTE("%s", why.text);
	check_says(why.text, "killed while populating (SIGKILL)");
	CHECK_EQ(used_bytes(fd), 0);
	/* What is there already is not asked for again on the way. */
	CHECK_OK(place_populate(p, fd, 0, 160 * MIB, 12, 0, NULL, NULL, NULL, &why));
	close(fd);
	place_destroy(blind);
	place_destroy(p);
	return 0;
}

TEST(a_full_cgroup_kills_the_child_and_not_the_daemon)
{
	char path[128];
	int result;

	if (!make_cgroup(path, sizeof(path)))
		SKIP("no memory cgroup can be made");
	result = test_join(test_spawn(populate_in_cgroup, path));
	CHECK_EQ(rmdir(path), 0);
	if (result == 77)
		SKIP("no process can be moved to a memory cgroup");
	CHECK_EQ(result, 0);
}

/* ---- real hugepages --------------------------------------------------------- */

enum { HUGEPAGES = 4, TAKEN_BY_OTHERS = 78 };
#define NR_HUGEPAGES "/proc/sys/vm/nr_hugepages"

static uint64_t read_number(const char *path)
{
	FILE *in = fopen(path, "re");
	uint64_t value = 0;

	if (!in)
		return 0;
	if (fscanf(in, "%" SCNu64, &value) != 1)
		value = 0;
	fclose(in);
	return value;
}

static int change_pool(int by)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRId64, (int64_t)read_number(NR_HUGEPAGES) + by);
	return write_file(NR_HUGEPAGES, text);
}

static int use_hugepages(void *arg)
{
	struct place *p = make(NULL, NULL);
	struct place_result result;
	char byte = 'h', first = 0;
	uint64_t bytes = HUGEPAGES * 2 * MIB;
	int fd, error;

	/* An ordinary user needs no group for hugepages of a memfd. */
	if (geteuid() == 0)
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	CHECK_OK(PLAN(p, .bytes = bytes));
	if (answer.page_shift != 21)
		return TAKEN_BY_OTHERS;
	fd = make_slab(64 * bytes, 21);
	error = place_populate(p, fd, bytes, bytes, 21, SHMQ_NODE_ANY, init_byte, &byte, &result,
			       &why);
	if (error == SHMQ_ENOHUGE)
		return TAKEN_BY_OTHERS;
	CHECK_OK(error);
	CHECK_EQ(result.page_bytes, 2 * MIB);
	CHECK_EQ(used_bytes(fd), bytes);
	CHECK_EQ(pread(fd, &first, 1, (off_t)bytes), 1);
	CHECK_EQ(first, 'h');
	CHECK_OK(shmq__shmem_punch(fd, bytes, bytes));
	CHECK_EQ(used_bytes(fd), 0);
	close(fd);
	place_destroy(p);
	return 0;
}

TEST(an_ordinary_user_gets_real_hugepages)
{
	int lock = open(NR_HUGEPAGES, O_RDONLY | O_CLOEXEC);
	int result = TAKEN_BY_OTHERS, raised = 0, tries = 5;

	/* Tests that change the pool take turns; that others which only use it
	 * take the pages away in between is no fault of the code's. */
	if (lock >= 0)
		flock(lock, LOCK_EX);
	while (result == TAKEN_BY_OTHERS && tries--) {
		if (read_number(POOL_2M "/free_hugepages") < HUGEPAGES && change_pool(HUGEPAGES))
			raised += HUGEPAGES;
		if (read_number(POOL_2M "/free_hugepages") < HUGEPAGES)
			continue;
		result = test_join(test_spawn(use_hugepages, NULL));
	}
	if (raised)
		change_pool(-raised);
	close(lock);
	if (result == TAKEN_BY_OTHERS)
		SKIP("no hugepages");
	CHECK_EQ(result, 0);
}

TEST(hugepages_are_refused_while_there_are_none)
{
	struct place *p = make(NULL, NULL);
	uint64_t count = read_number(POOL_2M "/nr_hugepages") +
			 read_number(POOL_2M "/nr_overcommit_hugepages") + 1000;
	int fd;

	CHECK_EQ(PLAN(p, .bytes = count * 2 * MIB, .pages = SHMQ_PAGES_2M), SHMQ_ENOHUGE);
	fd = shmq__shmem_create("place-test", count * 2 * MIB, 21);
	if (fd < 0)
		SKIP("no hugepages");
	CHECK_EQ(place_populate(p, fd, 0, count * 2 * MIB, 21, 0, NULL, NULL, NULL, &why),
		 SHMQ_ENOHUGE);
	check_says(why.text, "of 2 MiB pages: not enough of them are free");
	CHECK_EQ(used_bytes(fd), 0);
	close(fd);
	place_destroy(p);
}
