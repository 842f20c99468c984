/* SPDX-License-Identifier: MIT */
#include "bounds.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- reading --------------------------------------------------------- */

static FILE *open_path(const char *root, const char *path)
{
	char full[PATH_MAX];

	if (snprintf(full, sizeof(full), "%s%s", root, path) >= (int)sizeof(full))
		return NULL;
	return fopen(full, "re");
}

/* The first number of a file; 1 if there is one.  "max" is not. */
static int read_number(const char *root, const char *path, uint64_t *out)
{
	FILE *in = open_path(root, path);
	int found;

	if (!in)
		return 0;
	found = fscanf(in, "%" SCNu64, out) == 1;
	fclose(in);
	return found;
}

/* Numbers out of a file of "name value" lines: those of the n names that are
 * there are stored, the others are left alone.  Everything up to a colon or a
 * space before the name is skipped if `skip` is set ("Node 0 MemFree:"). */
struct field {
	const char *name;
	uint64_t *value;
	int base;
};

static int read_fields(const char *root, const char *path, const char *skip,
		       const struct field *fields, size_t n)
{
	FILE *in = open_path(root, path);
	size_t skip_bytes = strlen(skip), i;
	char line[512];

	if (!in)
		return 0;
	while (fgets(line, sizeof(line), in)) {
		char *name = line;
		size_t bytes;

		if (!strncmp(name, skip, skip_bytes))
			name += skip_bytes;
		bytes = strcspn(name, ": \t");
		for (i = 0; i < n; i++)
			if (strlen(fields[i].name) == bytes && !memcmp(fields[i].name, name, bytes))
				*fields[i].value =
					strtoull(name + bytes + strspn(name + bytes, ": \t"), NULL,
						 fields[i].base);
	}
	fclose(in);
	return 1;
}

/* ---- words ----------------------------------------------------------- */

char *bounds_size(char *buf, uint64_t bytes)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t i = 0;

	while (value >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		value /= 1024;
		i++;
	}
	snprintf(buf, BOUNDS_SIZE_BYTES, i ? "%.1f %s" : "%.0f %s", value, unit[i]);
	return buf;
}

const char *bounds_page_name(unsigned shift)
{
	return shift == 12 ? "4 KiB" : shift == 21 ? "2 MiB" : "1 GiB";
}

static void unbounded(struct bound *out)
{
	memset(out, 0, sizeof(*out));
	out->free_bytes = UINT64_MAX;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* ---- cgroups --------------------------------------------------------- */

/* The same limit as both versions of the interface spell it. */
struct cgroup_files {
	const char *max, *used, *stat;
	const char *inactive, *active; /* reclaimable pages, counted as used */
};

static const struct cgroup_files memory_v2 = { "memory.max", "memory.current", "memory.stat",
					       "inactive_file", "active_file" };
static const struct cgroup_files memory_v1 = { "memory.limit_in_bytes", "memory.usage_in_bytes",
					       "memory.stat", "total_inactive_file",
					       "total_active_file" };

static void tighten_by_cgroup(const char *root, const char *dir, const char *path,
			      const struct cgroup_files *files, struct bound *out)
{
	char file[PATH_MAX], max_text[BOUNDS_SIZE_BYTES], used_text[BOUNDS_SIZE_BYTES];
	uint64_t max, used = 0, inactive = 0, active = 0, left;
	struct field fields[] = { { files->inactive, &inactive, 10 },
				  { files->active, &active, 10 } };

	if (snprintf(file, sizeof(file), "%s%s/%s", dir, path, files->max) >= (int)sizeof(file))
		return;
	if (!read_number(root, file, &max))
		return;
	snprintf(file, sizeof(file), "%s%s/%s", dir, path, files->used);
	read_number(root, file, &used);
	if (files->stat) {
		snprintf(file, sizeof(file), "%s%s/%s", dir, path, files->stat);
		read_fields(root, file, "", fields, 2);
	}
	used = minus(used, inactive + active);
	left = minus(max, used);
	if (left >= out->free_bytes)
		return;
	out->free_bytes = left;
	snprintf(out->text, sizeof(out->text), "%s of cgroup %.80s is %s with %s in use",
		 files->max, *path ? path : "/", bounds_size(max_text, max),
		 bounds_size(used_text, used));
	snprintf(out->fix, sizeof(out->fix), "raise %s of that cgroup", files->max);
}

/* From the process's own cgroup up: each ancestor's limit holds too.  In a
 * container the path may be that of the host, of which only the end is
 * mounted: what is not there is passed over. */
static void tighten_upwards(const char *root, const char *const *dirs, const char *path,
			    const struct cgroup_files *files, struct bound *out)
{
	char at[PATH_MAX];
	size_t i;

	if (strstr(path, "/..") || snprintf(at, sizeof(at), "%s", path) >= (int)sizeof(at))
		at[0] = '\0';
	if (!strcmp(at, "/"))
		at[0] = '\0';
	for (;;) {
		char *slash;

		for (i = 0; dirs[i]; i++)
			tighten_by_cgroup(root, dirs[i], at, files, out);
		slash = strrchr(at, '/');
		if (!slash)
			return;
		*slash = '\0';
	}
}

static int has_word(const char *list, const char *word)
{
	size_t bytes = strlen(word);

	for (; list; list = strchr(list, ',')) {
		list += *list == ',';
		if (!strncmp(list, word, bytes) && (!list[bytes] || list[bytes] == ','))
			return 1;
	}
	return 0;
}

/* Lines of /proc/self/cgroup are id:controllers:path; v2 has no controllers. */
static void tighten_by_cgroups(const char *root, const char *controller,
			       const struct cgroup_files *v1, const struct cgroup_files *v2,
			       struct bound *out)
{
	static const char *const v2_dirs[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified", NULL };
	const char *v1_dirs[] = { NULL, NULL };
	char line[PATH_MAX], dir[64];
	FILE *in = open_path(root, "/proc/self/cgroup");

	if (!in)
		return;
	snprintf(dir, sizeof(dir), "/sys/fs/cgroup/%s", controller);
	v1_dirs[0] = dir;
	while (fgets(line, sizeof(line), in)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		if (!list[1])
			tighten_upwards(root, v2_dirs, path, v2, out);
		else if (has_word(list + 1, controller))
			tighten_upwards(root, v1_dirs, path, v1, out);
	}
	fclose(in);
}

/* ---- ordinary memory ------------------------------------------------- */

static void tighten_by_node(const char *root, int node, struct bound *out)
{
	uint64_t unused = 0, inactive = 0, active = 0, slab = 0, left;
	struct field fields[] = { { "MemFree", &unused, 10 },
				  { "Inactive(file)", &inactive, 10 },
				  { "Active(file)", &active, 10 },
				  { "SReclaimable", &slab, 10 } };
	char path[64], prefix[32], size[BOUNDS_SIZE_BYTES];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	snprintf(prefix, sizeof(prefix), "Node %d ", node);
	if (!read_fields(root, path, prefix, fields, 4))
		return;
	left = (unused + inactive + active + slab) << 10;
	if (left >= out->free_bytes)
		return;
	out->free_bytes = left;
	snprintf(out->text, sizeof(out->text), "NUMA node %d has %s free or reclaimable", node,
		 bounds_size(size, left));
	snprintf(out->fix, sizeof(out->fix), "ask for another node or free memory");
}

static void tighten_by_meminfo(const char *root, struct bound *out)
{
	uint64_t available = UINT64_MAX, commit_limit = 0, committed = 0, mode = 0;
	struct field fields[] = { { "MemAvailable", &available, 10 },
				  { "CommitLimit", &commit_limit, 10 },
				  { "Committed_AS", &committed, 10 } };
	char size[BOUNDS_SIZE_BYTES];

	read_fields(root, "/proc/meminfo", "", fields, 3);
	if (available != UINT64_MAX && available << 10 < out->free_bytes) {
		out->free_bytes = available << 10;
		snprintf(out->text, sizeof(out->text), "MemAvailable is %s",
			 bounds_size(size, available << 10));
		snprintf(out->fix, sizeof(out->fix), "free memory");
	}
	/* Only strict accounting refuses pages by this count. */
	if (!read_number(root, "/proc/sys/vm/overcommit_memory", &mode) || mode != 2)
		return;
	available = minus(commit_limit, committed);
	if (available << 10 >= out->free_bytes)
		return;
	out->free_bytes = available << 10;
	snprintf(out->text, sizeof(out->text), "CommitLimit leaves %s (vm.overcommit_memory=2)",
		 bounds_size(size, available << 10));
	snprintf(out->fix, sizeof(out->fix), "raise vm.overcommit_ratio");
}

void bounds_memory(const char *root, int node, struct bound *out)
{
	unbounded(out);
	tighten_by_meminfo(root, out);
	if (node != BOUNDS_NODE_ANY)
		tighten_by_node(root, node, out);
	tighten_by_cgroups(root, "memory", &memory_v1, &memory_v2, out);
}

/* ---- hugepages ------------------------------------------------------- */

static int read_pool(const char *root, const char *dir, const char *file, uint64_t *out)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return read_number(root, path, out);
}

int bounds_huge(const char *root, unsigned shift, int node, struct bounds_huge *out)
{
	uint64_t reserved = 0, on_node;
	char dir[128];

	memset(out, 0, sizeof(*out));
	snprintf(dir, sizeof(dir), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB",
		 UINT64_C(1) << (shift - 10));
	if (!read_pool(root, dir, "free_hugepages", &out->free))
		return -ENOENT;
	read_pool(root, dir, "resv_hugepages", &reserved);
	read_pool(root, dir, "nr_hugepages", &out->total);
	out->free = minus(out->free, reserved);
	if (shift == 21)
		snprintf(out->pool, sizeof(out->pool), "/proc/sys/vm/nr_hugepages");
	else
		snprintf(out->pool, sizeof(out->pool), "%.100s/nr_hugepages", dir);
	if (node == BOUNDS_NODE_ANY)
		return 0;
	/* Reservations are counted for the machine, not by node: both hold. */
	snprintf(dir, sizeof(dir),
		 "/sys/devices/system/node/node%d/hugepages/hugepages-%" PRIu64 "kB", node,
		 UINT64_C(1) << (shift - 10));
	if (!read_pool(root, dir, "free_hugepages", &on_node))
		return -ENOENT;
	read_pool(root, dir, "nr_hugepages", &out->total);
	if (on_node < out->free)
		out->free = on_node;
	snprintf(out->pool, sizeof(out->pool), "%.100s/nr_hugepages", dir);
	return 0;
}

void bounds_huge_cgroup(const char *root, unsigned shift, struct bound *out)
{
	const char *size = shift == 21 ? "2MB" : "1GB";
	char name[4][40];
	struct cgroup_files v1 = { name[0], name[1], NULL, "", "" };
	struct cgroup_files v2 = { name[2], name[3], NULL, "", "" };

	unbounded(out);
	snprintf(name[0], sizeof(name[0]), "hugetlb.%s.limit_in_bytes", size);
	snprintf(name[1], sizeof(name[1]), "hugetlb.%s.usage_in_bytes", size);
	snprintf(name[2], sizeof(name[2]), "hugetlb.%s.max", size);
	snprintf(name[3], sizeof(name[3]), "hugetlb.%s.current", size);
	tighten_by_cgroups(root, "hugetlb", &v1, &v2, out);
}

/* ---- limits of a process --------------------------------------------- */

#define CAP_IPC_LOCK_BIT 14

void bounds_lock(const char *root, pid_t pid, struct bound *out)
{
	uint64_t locked = 0, caps = 0;
	struct field fields[] = { { "VmLck", &locked, 10 }, { "CapEff", &caps, 16 } };
	char path[64] = "/proc/self/status", max_text[BOUNDS_SIZE_BYTES],
	     locked_text[BOUNDS_SIZE_BYTES];
	struct rlimit limit;

	unbounded(out);
	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	read_fields(root, path, "", fields, 2);
	if (caps >> CAP_IPC_LOCK_BIT & 1)
		return;
	if (prlimit(pid, RLIMIT_MEMLOCK, NULL, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	locked <<= 10;
	out->free_bytes = minus(limit.rlim_cur, locked);
	snprintf(out->text, sizeof(out->text), "the memlock limit is %s with %s locked",
		 bounds_size(max_text, limit.rlim_cur), bounds_size(locked_text, locked));
	snprintf(out->fix, sizeof(out->fix), "raise ulimit -l (LimitMEMLOCK=)");
}

void bounds_file_size(struct bound *out)
{
	char size[BOUNDS_SIZE_BYTES];
	struct rlimit limit;

	unbounded(out);
	if (getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	out->free_bytes = limit.rlim_cur;
	snprintf(out->text, sizeof(out->text), "the file size limit (RLIMIT_FSIZE) is %s",
		 bounds_size(size, limit.rlim_cur));
	snprintf(out->fix, sizeof(out->fix), "raise ulimit -f (LimitFSIZE=)");
}

void bounds_address_space(const char *root, struct bound *out)
{
	uint64_t used = 0;
	struct field fields[] = { { "VmSize", &used, 10 } };
	char max_text[BOUNDS_SIZE_BYTES], used_text[BOUNDS_SIZE_BYTES];
	struct rlimit limit;

	unbounded(out);
	if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	read_fields(root, "/proc/self/status", "", fields, 1);
	out->free_bytes = minus(limit.rlim_cur, used << 10);
	snprintf(out->text, sizeof(out->text),
		 "the address space limit (RLIMIT_AS) is %s with %s in use",
		 bounds_size(max_text, limit.rlim_cur), bounds_size(used_text, used << 10));
	snprintf(out->fix, sizeof(out->fix), "raise ulimit -v (LimitAS=)");
}
