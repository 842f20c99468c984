/* SPDX-License-Identifier: MIT
 *
 * populate: the disposable child that makes a range of a memfd real, or
 * moves one to another node.  Used through place.h, which decides; this only does.
 */
#ifndef SHMQ_POPULATE_H
#define SHMQ_POPULATE_H

#include "error.h"

#include <hwloc.h>
#include <stdint.h>
#include <sys/types.h>

struct populate {
	const char *root; /* of the limits, as in bounds.h */
	int bound_node;   /* whose memory counts, or BOUNDS_NODE_ANY */
	int fd;
	uint64_t off, bytes;
	unsigned page_shift;
	hwloc_topology_t topology;  /* bind with it ... */
	hwloc_const_bitmap_t nodes; /* ... to these; NULL: as the kernel likes */
	int is_single_node;         /* a refused bind then changes nothing */
	int is_there;               /* populated before: bring it to bound_node */
	void (*init)(void *mem, void *arg);
	int (*run)(void *arg, struct shmq__why *why); /* this alone, without memory */
	void *arg;
};

/* Fork; the child writes one struct place_result to the pipe and exits.
 * 0 or -errno. */
int populate_start(const struct populate *job, pid_t *child, int *result_fd);

#endif
