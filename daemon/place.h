/* SPDX-License-Identifier: MIT
 *
 * place: where the memory of a topic comes from.  First a decision, which
 * asks the machine's limits and refuses before anything has happened; then
 * the deed, in a disposable child, because a shortage of ordinary memory is
 * a SIGKILL and must not be the daemon's.  One thread.
 */
#ifndef SHMQ_PLACE_H
#define SHMQ_PLACE_H

#include <stdint.h>
#include <sys/types.h>

#include "error.h"
#include "shmq.h"

/* The machine: its limits, read anew for each plan, and its topology, read
 * by hwloc at the first call that names a node (it costs 9 ms). */
struct place;

/* topology: NULL is this machine; else an hwloc synthetic description
 * ("synthetic:node:2 core:2 pu:1") or the path of an hwloc XML file, with
 * which only decisions are made and placement is skipped.
 * sysroot: prefix of /proc and /sys for tests, NULL is none.
 * 0, -ENOMEM or SHMQ_EOPTION (the topology cannot be read). */
int place_create(const char *topology, const char *sysroot, struct place **out,
		 struct shmq__why *why);
void place_destroy(struct place *p);

/* Whose locked memory and memlock limit count: the process that will call
 * place_lock(), if it is not this one.  0 is this one. */
void place_set_locker(struct place *p, pid_t pid);

struct place_ask {
	uint64_t bytes;        /* to be populated in all, a multiple of piece_bytes */
	uint64_t piece_bytes;  /* one ring: must fill a hugepage for auto;
				  0 means bytes */
	uint64_t slab_bytes;   /* size of the memfd they will lie in, for the
				  file size limit; 0 means bytes */
	enum shmq_pages pages; /* 0 is SHMQ_PAGES_AUTO */
	int node;              /* SHMQ_NODE_ANY or SHMQ_NODE(n) */
	enum shmq_lock lock;   /* 0 is SHMQ_LOCK_AUTO */
	int is_huge_gone;      /* auto has tried hugepages: others were faster */
};

struct place_answer {
	unsigned page_shift;      /* 12, 21 or 30 */
	uint64_t bytes;           /* each piece rounded up to whole pages */
	uint64_t piece_bytes;     /* one piece, rounded up */
	int node;                 /* as asked */
	int lock;                 /* 1: place_lock() the ranges */
	uint64_t available_bytes; /* the tightest limit's free bytes */
	char source[128];         /* what memory, for people */
	char note[256];           /* fall-backs, each with what fixes it; or "" */
};

/* Decide.  No effect on the machine.  0; SHMQ_ENOMEMORY, SHMQ_ENOHUGE,
 * SHMQ_ENONODE, SHMQ_EMEMLOCK, SHMQ_ELIMIT or SHMQ_EOPTION, and why then
 * names the limit, its value, what was asked, and what raises it. */
int place_plan(struct place *p, const struct place_ask *ask, struct place_answer *out,
	       struct shmq__why *why);

struct place_result {
	int error;           /* 0 or the code that place_populate_finish returns */
	int node_actual;     /* SHMQ_NODE(n); 0: on several nodes, or unknown */
	uint64_t page_bytes; /* of the map, as smaps has it */
	char why[SHMQ_WHY_BYTES];
};

/* Fork a child that maps [off, off + bytes) of fd (whole pages of 1 <<
 * page_shift), binds the map to the node, populates it, runs init(mem, arg)
 * unless NULL, reads the placement back and exits.  The child dies with its
 * parent and is the OOM killer's first choice.  *result_fd polls readable when
 * it is done, or was killed: then call place_populate_finish(), once.
 * It gives up, before the OOM killer has to choose, as soon as what is still
 * to come no longer fits the tightest limit.
 * 0, SHMQ_ENONODE, SHMQ_EOPTION, SHMQ_ELIMIT (with why) or -errno. */
int place_populate_start(struct place *p, int fd, uint64_t off, uint64_t bytes, unsigned page_shift,
			 int node, void (*init)(void *mem, void *arg), void *arg, pid_t *child,
			 int *result_fd, struct shmq__why *why);

/* The same for pages that are there already: the child moves them to the node.
 * Those that somebody else has mapped too stay where they are, unless this
 * process may move them (CAP_SYS_NICE): node_actual says what came of it.
 * Whatever becomes of the child, the range keeps what is in it. */
int place_bring_start(struct place *p, int fd, uint64_t off, uint64_t bytes, unsigned page_shift,
		      int node, pid_t *child, int *result_fd, struct shmq__why *why);

/* A child that only runs run(arg), for what takes long and may fail. */
int place_run_start(int (*run)(void *arg, struct shmq__why *why), void *arg, pid_t *child,
		    int *result_fd, struct shmq__why *why);

/* Collect the child's result, close result_fd, reap the child.  Blocks until
 * the child is done.  0, or what went wrong: SHMQ_ENOMEMORY also if it was
 * killed or met a SIGBUS.  On failure to populate the whole range has been
 * punched, first of all: while a full cgroup keeps a dead child's pages, the next to be
 * killed is the daemon.  out may be NULL. */
int place_populate_finish(pid_t child, int result_fd, struct place_result *out,
			  struct shmq__why *why);

/* Both at once. */
int place_populate(struct place *p, int fd, uint64_t off, uint64_t bytes, unsigned page_shift,
		   int node, void (*init)(void *mem, void *arg), void *arg,
		   struct place_result *out, struct shmq__why *why);

/* Lock a map in memory.  0, SHMQ_EMEMLOCK, SHMQ_ENOMEMORY or -errno. */
int place_lock(void *mem, uint64_t bytes, struct shmq__why *why);

#endif
