/* SPDX-License-Identifier: MIT
 *
 * bounds: what this machine, and the cgroup this process is in, still has
 * to give.  Everything is read anew at each call; what cannot be read bounds
 * nothing.  `root` is put before /proc and /sys, "" for the machine's own.
 */
#ifndef SHMQ_BOUNDS_H
#define SHMQ_BOUNDS_H

#include <stdint.h>
#include <sys/types.h>

#define BOUNDS_NODE_ANY (-1)

/* One bound, in words for people. */
struct bound {
	uint64_t free_bytes; /* UINT64_MAX: nothing bounds it */
	char text[160];      /* "MemAvailable is 22.1 GiB" */
	char fix[160];       /* what raises it */
};

/* The tightest bound on ordinary memory: MemAvailable (or the node's own
 * free and reclaimable memory), strict overcommit, and memory.max of every
 * cgroup from this process's own up to the root. */
void bounds_memory(const char *root, int node, struct bound *out);

struct bounds_huge {
	uint64_t total, free; /* pages; free is without those reserved */
	char pool[128];       /* the file that raises it */
};

/* The pool of hugepages of 1 << shift.  0, or -ENOENT if the machine has
 * none of that size (or the node none). */
int bounds_huge(const char *root, unsigned shift, int node, struct bounds_huge *out);

/* What the hugetlb cgroups leave of hugepages of that size. */
void bounds_huge_cgroup(const char *root, unsigned shift, struct bound *out);

/* What process `pid` (0: this one) may still lock.  CAP_IPC_LOCK: all. */
void bounds_lock(const char *root, pid_t pid, struct bound *out);

/* Room for one more file, or one more map, of this process. */
void bounds_file_size(struct bound *out);
void bounds_address_space(const char *root, struct bound *out);

/* "22.1 GiB"; returns buf. */
#define BOUNDS_SIZE_BYTES 24
char *bounds_size(char *buf, uint64_t bytes);

/* "2 MiB": the name of a page size. */
const char *bounds_page_name(unsigned shift);

#endif
