/* SPDX-License-Identifier: MIT */
#include "populate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bounds.h"
#include "place.h"
#include "privilege.h"
#include "sandbox.h"
#include "shmem.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* What the SIGBUS handler of the child needs.  The parent never sets it. */
static struct {
	int pipe;
	unsigned page_shift;
	const char *stage;
} self;

/* ---- the child's last words ------------------------------------------ */

_Noreturn static void finish(const struct place_result *result)
{
	/* Less than PIPE_BUF, so it arrives whole or not at all. */
	ssize_t n = write(self.pipe, result, sizeof(*result));

	_exit(n == (ssize_t)sizeof(*result) ? 0 : 1);
}

_Noreturn static void give_up(int error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

_Noreturn static void give_up(int error, const char *format, ...)
{
	struct place_result result = { .error = error };
	va_list ap;

	va_start(ap, format);
	vsnprintf(result.why, sizeof(result.why), format, ap);
	va_end(ap);
	finish(&result);
}

static int shortage(void)
{
	return self.page_shift == 12 ? SHMQ_ENOMEMORY : SHMQ_ENOHUGE;
}

/* Formatting is not safe in a signal handler in general; here the signal is
 * synchronous and this process's own memory access raised it. */
static void on_sigbus(int sig)
{
	(void)sig;
	give_up(shortage(), "%s: no page of %s to be had (SIGBUS): %s", self.stage,
		bounds_page_name(self.page_shift), "ask for less depth or free memory");
}

/* ---- what the child does --------------------------------------------- */

/* Leave the parent's life behind: its handlers, its descriptors (a client's
 * socket held here would not hang up), its importance. */
static void become_disposable(const struct populate *job, pid_t parent)
{
	int fd_kept = job->run ? self.pipe : job->fd;
	unsigned low = (unsigned)(fd_kept < self.pipe ? fd_kept : self.pipe);
	unsigned high = (unsigned)(fd_kept < self.pipe ? self.pipe : fd_kept);
	sigset_t none;
	int sig, fd;

	privilege_shed(PRIVILEGE_MEMORY);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	for (sig = 1; sig <= SIGRTMAX; sig++)
		signal(sig, SIG_DFL);
	/* A stop meant for the whole process group is the parent's business:
	 * when it goes, so does the child. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGBUS, on_sigbus);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (low > 3)
		close_range(3, low - 1, 0);
	if (low + 1 < high)
		close_range(low + 1, high - 1, 0);
	close_range(high + 1, ~0U, 0);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1000", 4) != 4) {
			/* Then the kernel chooses by size, and that is mostly us too. */
		}
		close(fd);
	}
	sandbox_narrow(job->run ? SANDBOX_FILES : SANDBOX_MEMORY);
}

static void *map(const struct populate *job)
{
	char size[BOUNDS_SIZE_BYTES];
	void *mem;
	int error = shmq__shmem_map(job->fd, job->off, job->bytes, PROT_READ | PROT_WRITE, &mem);

	if (!error)
		return mem;
	if (error == -ENOMEM && job->page_shift != 12)
		give_up(SHMQ_ENOHUGE, "mapping %s of %s pages: not enough of them are free",
			bounds_size(size, job->bytes), bounds_page_name(job->page_shift));
	if (error == -ENOMEM)
		give_up(SHMQ_ENOMEMORY, "mapping %s: no address space, map or memory left for it",
			bounds_size(size, job->bytes));
	give_up(error, "mapping %s at %" PRIu64 ": %s", bounds_size(size, job->bytes), job->off,
		shmq_strerror(error));
}

/* The policy of a shared map belongs to the file's range and outlives the
 * map: a range that is used again must lose that of its predecessor. */
static void bind_to_nodes(const struct populate *job, void *mem)
{
	int error;

	if (!job->nodes) {
		/* A fresh map has the default policy already, so asking for that
		 * alone never reaches the file: any other one goes first.  Where
		 * this is denied, so was the predecessor's. */
		syscall(SYS_mbind, mem, job->bytes, MPOL_PREFERRED, NULL, 0, 0);
		syscall(SYS_mbind, mem, job->bytes, MPOL_DEFAULT, NULL, 0, 0);
		return;
	}
	if (!hwloc_set_area_membind(job->topology, mem, job->bytes, job->nodes, HWLOC_MEMBIND_BIND,
				    HWLOC_MEMBIND_STRICT | HWLOC_MEMBIND_BYNODESET))
		return;
	error = errno;
	if (job->is_single_node && error != EIO)
		return;
	if (error == EPERM || error == ENOSYS)
		give_up(SHMQ_ENONODE,
			"binding to a NUMA node is denied here (%s): allow mbind, in a "
			"container by CAP_SYS_NICE, or ask for no node",
			strerrorname_np(error));
	give_up(error == EIO ? -EIO : SHMQ_ENONODE, "binding to the NUMA node: %s",
		error == EIO ? "pages are there already, on another one" : shmq_strerror(-error));
}

/* Kernels before 5.14 cannot populate: touch, and meet shortages as SIGBUS. */
static void touch(const struct populate *job, char *mem, uint64_t bytes)
{
	uint64_t at;

	for (at = 0; at < bytes; at += UINT64_C(1) << job->page_shift) {
		volatile char *page = mem + at;
		char kept = *page;

		*page = kept;
	}
}

static void populate_step(const struct populate *job, char *mem, uint64_t bytes)
{
	char size[BOUNDS_SIZE_BYTES];
	int error;

	do
		error = madvise(mem, bytes, MADV_POPULATE_WRITE) ? errno : 0;
	while (error == EINTR || error == EAGAIN);
	if (!error)
		return;
	if (error == EINVAL) {
		touch(job, mem, bytes);
		return;
	}
	if (error != EFAULT && error != ENOMEM && error != EHWPOISON)
		give_up(-error, "populating %s: %s", bounds_size(size, job->bytes),
			shmq_strerror(-error));
	give_up(shortage(),
		"populating %s: the kernel gave out no more pages of %s (%s): ask for "
		"less depth or free memory",
		bounds_size(size, job->bytes), bounds_page_name(job->page_shift),
		error == EFAULT ? "SIGBUS" : strerrorname_np(error));
}

/* Whoever planned with the same free memory may have been faster. */
static void check_room(const struct populate *job, uint64_t bytes)
{
	char all[BOUNDS_SIZE_BYTES], rest[BOUNDS_SIZE_BYTES];
	struct bound bound;

	bounds_memory(job->root, job->bound_node, &bound);
	if (bytes > bound.free_bytes)
		give_up(SHMQ_ENOMEMORY,
			"populating %s with %s to come, %.130s: ask for less depth or %.45s",
			bounds_size(all, job->bytes), bounds_size(rest, bytes), bound.text,
			bound.fix);
}

#define STEP_BYTES (UINT64_C(64) << 20)

static void make_real(const struct populate *job, char *mem)
{
	uint64_t at, step;

	/* The kernel reserved hugepages when they were mapped. */
	if (job->page_shift != 12) {
		populate_step(job, mem, job->bytes);
		return;
	}
	for (at = 0; at < job->bytes; at += step) {
		step = job->bytes - at < STEP_BYTES ? job->bytes - at : STEP_BYTES;
		check_room(job, job->bytes - at);
		populate_step(job, mem + at, step);
	}
}

/* ---- pages that are there ---------------------------------------------- */

enum { CHUNK = 1024 };

/* move_pages(2) for pages at, at + 1, and so on; returns for how many, 0 if it
 * cannot be asked.  Without targets it only reports. */
static size_t move_pages(const struct populate *job, void *mem, uint64_t at, const int *nodes,
			 int *status, int flags)
{
	uint64_t left = (job->bytes >> job->page_shift) - at;
	size_t n = left < CHUNK ? (size_t)left : CHUNK, i;
	void *pages[CHUNK];

	for (i = 0; i < n; i++)
		pages[i] = (char *)mem + ((at + i) << job->page_shift);
	return syscall(SYS_move_pages, 0, n, pages, nodes, status, flags) < 0 ? 0 : n;
}

/* They move under the hands of who uses them.  For what is swapped out and
 * comes back, the node is a preference. */
static void bring(const struct populate *job, void *mem)
{
	enum { WORD = 8 * sizeof(unsigned long), NODES_MAX = 1024 };
	uint64_t count = job->bytes >> job->page_shift, at;
	unsigned long mask[NODES_MAX / WORD] = { 0 };
	int nodes[CHUNK], status[CHUNK];
	size_t n;

	if (job->bound_node < 0 || job->bound_node >= NODES_MAX)
		return;
	for (n = 0; n < CHUNK; n++)
		nodes[n] = job->bound_node;
	for (at = 0; at < count; at += n) {
		n = move_pages(job, mem, at, nodes, status, MPOL_MF_MOVE_ALL);
		if (!n)
			n = move_pages(job, mem, at, nodes, status, MPOL_MF_MOVE);
		if (!n)
			return;
	}
	mask[job->bound_node / WORD] = 1UL << job->bound_node % WORD;
	syscall(SYS_mbind, mem, job->bytes, MPOL_PREFERRED, mask, NODES_MAX + 1, 0);
}

/* SHMQ_NODE(n) if every page is on n, 0 if they are spread or it cannot be
 * asked. */
static int read_node(const struct populate *job, void *mem)
{
	uint64_t count = job->bytes >> job->page_shift, at;
	int status[CHUNK], node = -1;
	size_t i, n;

	for (at = 0; at < count; at += n) {
		n = move_pages(job, mem, at, NULL, status, 0);
		if (!n)
			return SHMQ_NODE_ANY;
		for (i = 0; i < n; i++) {
			if (status[i] < 0 || (node >= 0 && status[i] != node))
				return SHMQ_NODE_ANY;
			node = status[i];
		}
	}
	return node < 0 ? SHMQ_NODE_ANY : SHMQ_NODE(node);
}

static uint64_t read_page_bytes(void *mem)
{
	FILE *in = fopen("/proc/self/smaps", "re");
	uint64_t from, to, kib, found = 0;
	char line[512];
	int is_ours = 0;

	if (!in)
		return 0;
	while (!found && fgets(line, sizeof(line), in)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2)
			is_ours = (uintptr_t)mem >= from && (uintptr_t)mem < to;
		else if (is_ours && sscanf(line, "KernelPageSize: %" SCNu64 " kB", &kib) == 1)
			found = kib << 10;
	}
	fclose(in);
	return found;
}

_Noreturn static void run_only(const struct populate *job)
{
	struct place_result result = { 0 };
	struct shmq__why why = { "" };
	int error = job->run(job->arg, &why);

	if (error)
		give_up(error, "%s", *why.text ? why.text : shmq_strerror(error));
	finish(&result);
}

_Noreturn static void run_child(const struct populate *job, pid_t parent)
{
	struct place_result result = { 0 };
	void *mem;

	become_disposable(job, parent);
	if (job->run)
		run_only(job);
	mem = map(job);
	if (!job->is_there)
		bind_to_nodes(job, mem);
	make_real(job, mem);
	if (job->is_there)
		bring(job, mem);
	self.stage = "initialising";
	if (job->init)
		job->init(mem, job->arg);
	result.node_actual = read_node(job, mem);
	result.page_bytes = read_page_bytes(mem);
	if (!result.page_bytes)
		result.page_bytes = UINT64_C(1) << job->page_shift;
	/* Here, so that the exit the parent waits for has nothing left to do. */
	munmap(mem, job->bytes);
	finish(&result);
}

int populate_start(const struct populate *job, pid_t *child, int *result_fd)
{
	pid_t parent = getpid(), pid;
	sigset_t all, before;
	int ends[2], error;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	/* No handler of the parent's may run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	error = -errno;
	if (!pid) {
		self.pipe = ends[1];
		self.page_shift = job->page_shift;
		self.stage = "populating";
		run_child(job, parent);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return error;
	}
	*child = pid;
	*result_fd = ends[0];
	return 0;
}
