/* SPDX-License-Identifier: MIT */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bounds.h"
#include "populate.h"
#include "shmem.h"

struct place {
	char *root;                /* "" or the tests' */
	hwloc_topology_t topology; /* NULL until something needs it */
	pid_t locker;
};

/* ---- the machine ----------------------------------------------------- */

static int load(struct place *p, const char *description, struct shmq__why *why)
{
	static const char synthetic[] = "synthetic:";
	size_t prefix = sizeof(synthetic) - 1;
	hwloc_topology_t topology;
	int failed = 0;

	if (p->topology)
		return 0;
	if (hwloc_topology_init(&topology))
		return -ENOMEM;
	/* Only memory and what it hangs on is of interest. */
	hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
	if (description && !strncmp(description, synthetic, prefix))
		failed = hwloc_topology_set_synthetic(topology, description + prefix);
	else if (description)
		failed = hwloc_topology_set_xml(topology, description);
	if (failed || hwloc_topology_load(topology)) {
		hwloc_topology_destroy(topology);
		return shmq__fail(
			why, SHMQ_EOPTION,
			"hwloc cannot read the topology %s: it takes an XML file of lstopo's, "
			"or synthetic: and a description",
			description ? description : "of this machine");
	}
	p->topology = topology;
	return 0;
}

int place_create(const char *topology, const char *sysroot, struct place **out,
		 struct shmq__why *why)
{
	struct place *p = calloc(1, sizeof(*p));
	int error = 0;

	if (!p)
		return -ENOMEM;
	p->root = strdup(sysroot ? sysroot : "");
	if (!p->root)
		error = -ENOMEM;
	if (!error && topology)
		error = load(p, topology, why);
	if (error) {
		place_destroy(p);
		return error;
	}
	*out = p;
	return 0;
}

void place_destroy(struct place *p)
{
	if (!p)
		return;
	if (p->topology)
		hwloc_topology_destroy(p->topology);
	free(p->root);
	free(p);
}

void place_set_locker(struct place *p, pid_t pid)
{
	p->locker = pid;
}

/* hwloc leaves out nodes that the cpuset of this process does not allow. */
static int find_node(struct place *p, int node, hwloc_obj_t *out, struct shmq__why *why)
{
	char list[96];
	int error;

	*out = NULL;
	if (node == SHMQ_NODE_ANY)
		return 0;
	error = load(p, NULL, why);
	if (error)
		return error;
	if (node > 0)
		*out = hwloc_get_numanode_obj_by_os_index(p->topology, (unsigned)node - 1);
	if (!*out) {
		hwloc_bitmap_list_snprintf(list, sizeof(list),
					   hwloc_topology_get_topology_nodeset(p->topology));
		return shmq__fail(
			why, SHMQ_ENONODE,
			"there is no NUMA node %d that this process may use: choose from %s",
			node - 1, list);
	}
	if (!(*out)->attr->numanode.local_memory)
		return shmq__fail(why, SHMQ_ENONODE, "NUMA node %d has no memory: choose another",
				  node - 1);
	return 0;
}

/* ---- deciding -------------------------------------------------------- */

/* Whole pages per piece.  0 or SHMQ_ELIMIT. */
static int round_up(const struct place_ask *ask, unsigned shift, struct place_answer *out,
		    struct shmq__why *why)
{
	uint64_t mask = (UINT64_C(1) << shift) - 1, piece;

	if (__builtin_add_overflow(ask->piece_bytes, mask, &piece) ||
	    __builtin_mul_overflow(piece & ~mask, ask->bytes / ask->piece_bytes, &out->bytes) ||
	    out->bytes > INT64_MAX)
		return shmq__fail(why, SHMQ_ELIMIT,
				  "no file can be that large: ask for less depth");
	out->piece_bytes = piece & ~mask;
	out->page_shift = shift;
	return 0;
}

static int refuse(struct shmq__why *why, int error, uint64_t bytes, const struct bound *bound)
{
	char size[BOUNDS_SIZE_BYTES];

	return shmq__fail(why, error, "asked for %s, %s: ask for less depth or %s",
			  bounds_size(size, bytes), bound->text, bound->fix);
}

static int node_index(const struct place_ask *ask)
{
	return ask->node == SHMQ_NODE_ANY ? BOUNDS_NODE_ANY : ask->node - 1;
}

static int plan_huge(struct place *p, const struct place_ask *ask, unsigned shift,
		     struct place_answer *out, struct shmq__why *why)
{
	const char *name = bounds_page_name(shift);
	struct bounds_huge huge;
	struct bound bound;
	uint64_t count;
	int error = round_up(ask, shift, out, why);

	if (error)
		return error;
	count = out->bytes >> shift;
	if (bounds_huge(p->root, shift, node_index(ask), &huge))
		return shmq__fail(why, SHMQ_ENOHUGE,
				  "needs %" PRIu64 " hugepages of %s, there are none of that size: "
				  "boot with hugepagesz=%s hugepages=%" PRIu64,
				  count, name, shift == 21 ? "2M" : "1G", count);
	if (huge.free < count)
		return shmq__fail(why, SHMQ_ENOHUGE,
				  "needs %" PRIu64 " hugepages of %s, %" PRIu64
				  " free: echo %" PRIu64 " > %s",
				  count, name, huge.free, huge.total + count - huge.free,
				  huge.pool);
	bounds_huge_cgroup(p->root, shift, &bound);
	if (bound.free_bytes < out->bytes)
		return refuse(why, SHMQ_ENOHUGE, out->bytes, &bound);
	out->available_bytes = huge.free << shift;
	if (bound.free_bytes < out->available_bytes)
		out->available_bytes = bound.free_bytes;
	snprintf(out->source, sizeof(out->source),
		 "hugepages of %s, %" PRIu64 " of %" PRIu64 " free", name, huge.free, huge.total);
	return 0;
}

static int plan_small(struct place *p, const struct place_ask *ask, hwloc_obj_t node,
		      struct place_answer *out, struct shmq__why *why)
{
	struct bound bound;
	int error = round_up(ask, 12, out, why);

	if (error)
		return error;
	bounds_memory(p->root, node_index(ask), &bound);
	/* Of another machine's node nothing is known but its size. */
	if (node && !hwloc_topology_is_thissystem(p->topology) &&
	    node->attr->numanode.local_memory < bound.free_bytes) {
		char size[BOUNDS_SIZE_BYTES];

		bound.free_bytes = node->attr->numanode.local_memory;
		snprintf(bound.text, sizeof(bound.text), "NUMA node %d has %s", ask->node - 1,
			 bounds_size(size, bound.free_bytes));
		snprintf(bound.fix, sizeof(bound.fix), "ask for another node");
	}
	/* Page tables and the file's index come on top, 1/256 of it or less. */
	if (bound.free_bytes < out->bytes || bound.free_bytes - out->bytes < out->bytes / 256)
		return refuse(why, SHMQ_ENOMEMORY, out->bytes, &bound);
	out->available_bytes = bound.free_bytes;
	snprintf(out->source, sizeof(out->source), "ordinary memory, %.100s",
		 *bound.text ? bound.text : "no bound known");
	return 0;
}

static void add_note(struct place_answer *out, const char *prefix, const char *text)
{
	size_t used = strlen(out->note);

	snprintf(out->note + used, sizeof(out->note) - used, "%s%s%s", used ? "; " : "", prefix,
		 text);
}

static int plan_pages(struct place *p, const struct place_ask *ask, hwloc_obj_t node,
		      struct place_answer *out, struct shmq__why *why)
{
	struct shmq__why huge_why = { "" };

	if (ask->pages == SHMQ_PAGES_2M)
		return plan_huge(p, ask, 21, out, why);
	if (ask->pages == SHMQ_PAGES_1G)
		return plan_huge(p, ask, 30, out, why);
	if (ask->is_huge_gone && ask->pages == SHMQ_PAGES_AUTO) {
		add_note(out, "4 KiB pages: ",
			 "free hugepages were taken by others meanwhile: raise vm.nr_hugepages");
	} else if (ask->pages == SHMQ_PAGES_AUTO && ask->piece_bytes >= UINT64_C(1) << 21) {
		if (!plan_huge(p, ask, 21, out, &huge_why))
			return 0;
		add_note(out, "4 KiB pages: ", huge_why.text);
	}
	return plan_small(p, ask, node, out, why);
}

static int plan_lock(struct place *p, const struct place_ask *ask, struct place_answer *out,
		     struct shmq__why *why)
{
	char size[BOUNDS_SIZE_BYTES], text[192];
	struct bound bound;

	/* Hugepages are never swapped. */
	if (ask->lock == SHMQ_LOCK_NEVER || out->page_shift != 12)
		return 0;
	bounds_lock(p->root, p->locker, &bound);
	if (out->bytes <= bound.free_bytes) {
		out->lock = 1;
		return 0;
	}
	if (ask->lock == SHMQ_LOCK_ALWAYS)
		return shmq__fail(why, SHMQ_EMEMLOCK,
				  "asked to lock %s, %s: %s or ask for lock=auto",
				  bounds_size(size, out->bytes), bound.text, bound.fix);
	snprintf(text, sizeof(text), "%.90s: %.90s", bound.text, bound.fix);
	add_note(out, "not locked: ", text);
	return 0;
}

static int plan_limits(struct place *p, const struct place_ask *ask, const struct place_answer *out,
		       struct shmq__why *why)
{
	uint64_t file_bytes = ask->slab_bytes > out->bytes ? ask->slab_bytes : out->bytes;
	struct bound bound;

	bounds_file_size(&bound);
	if (file_bytes > bound.free_bytes)
		return refuse(why, SHMQ_ELIMIT, file_bytes, &bound);
	bounds_address_space(p->root, &bound);
	if (out->bytes > bound.free_bytes)
		return refuse(why, SHMQ_ELIMIT, out->bytes, &bound);
	return 0;
}

/* Defaults into zeros; 0 or SHMQ_EOPTION. */
static int complete(struct place_ask *ask, struct shmq__why *why)
{
	if (!ask->piece_bytes)
		ask->piece_bytes = ask->bytes;
	if (!ask->pages)
		ask->pages = SHMQ_PAGES_AUTO;
	if (!ask->lock)
		ask->lock = SHMQ_LOCK_AUTO;
	if (!ask->bytes || ask->bytes % ask->piece_bytes)
		return shmq__fail(why, SHMQ_EOPTION, "%" PRIu64 " bytes in pieces of %" PRIu64,
				  ask->bytes, ask->piece_bytes);
	if (ask->pages > SHMQ_PAGES_1G || ask->lock > SHMQ_LOCK_ALWAYS)
		return shmq__fail(why, SHMQ_EOPTION, "pages %d, lock %d: no such value",
				  (int)ask->pages, (int)ask->lock);
	return 0;
}

int place_plan(struct place *p, const struct place_ask *asked, struct place_answer *out,
	       struct shmq__why *why)
{
	struct place_ask ask = *asked;
	hwloc_obj_t node;
	int error = complete(&ask, why);

	memset(out, 0, sizeof(*out));
	out->node = ask.node;
	if (!error)
		error = find_node(p, ask.node, &node, why);
	if (!error)
		error = plan_pages(p, &ask, node, out, why);
	if (!error)
		error = plan_limits(p, &ask, out, why);
	if (!error)
		error = plan_lock(p, &ask, out, why);
	return error;
}

/* ---- what is under way ----------------------------------------------- */

/* The range each child works on, through a descriptor of its own: the
 * caller's may be closed, and its number another slab's, by the time. */
struct pending {
	struct pending *next;
	pid_t child;
	int fd;
	uint64_t off, bytes;
	int is_kept; /* it held something before */
};
static struct pending *pending;

static struct pending *pending_create(const struct populate *populate)
{
	struct pending *job = malloc(sizeof(*job));

	if (!job) {
		errno = ENOMEM;
		return NULL;
	}
	*job = (struct pending){ .fd = fcntl(populate->fd, F_DUPFD_CLOEXEC, 3),
				 .off = populate->off,
				 .bytes = populate->bytes,
				 .is_kept = populate->is_there };
	if (job->fd >= 0)
		return job;
	free(job);
	return NULL;
}

static void pending_destroy(struct pending *job)
{
	close(job->fd);
	free(job);
}

static struct pending *pending_remove(pid_t child)
{
	struct pending **at, *job;

	for (at = &pending; *at; at = &(*at)->next) {
		if ((*at)->child != child)
			continue;
		job = *at;
		*at = job->next;
		return job;
	}
	return NULL;
}

/* ---- doing ----------------------------------------------------------- */

static int start(struct populate *populate, pid_t *child, int *result_fd)
{
	struct pending *job = pending_create(populate);
	int error;

	if (!job)
		return -errno;
	populate->fd = job->fd;
	error = populate_start(populate, child, result_fd);
	if (error) {
		pending_destroy(job);
		return error;
	}
	job->child = *child;
	job->next = pending;
	pending = job;
	return 0;
}

/* How starting a child went. */
static int explain_start(int error, struct shmq__why *why)
{
	if (!error)
		return 0;
	if (error == -EAGAIN)
		return shmq__fail(why, SHMQ_ELIMIT,
				  "no process can be started: raise ulimit -u or pids.max of the "
				  "cgroup");
	if (error == -EMFILE || error == -ENFILE)
		return shmq__fail(why, SHMQ_ELIMIT, "no descriptor is free: raise %s",
				  error == -EMFILE ? "ulimit -n" : "fs.file-max");
	return shmq__fail(why, error, "starting a child: %s", shmq_strerror(error));
}

static int start_on(struct place *p, struct populate *job, int node, pid_t *child, int *result_fd,
		    struct shmq__why *why)
{
	uint64_t mask = (UINT64_C(1) << job->page_shift) - 1;
	hwloc_obj_t object;
	int error = find_node(p, node, &object, why);

	if (error)
		return error;
	if (!job->bytes || ((job->off | job->bytes) & mask))
		return shmq__fail(why, SHMQ_EOPTION,
				  "%" PRIu64 " bytes at %" PRIu64 " are not whole pages of %s",
				  job->bytes, job->off, bounds_page_name(job->page_shift));
	job->root = p->root;
	job->bound_node = BOUNDS_NODE_ANY;
	/* A topology of another machine is for decisions only. */
	if (object && hwloc_topology_is_thissystem(p->topology)) {
		job->bound_node = node - 1;
		job->topology = p->topology;
		job->nodes = object->nodeset;
		job->is_single_node =
			hwloc_get_nbobjs_by_type(p->topology, HWLOC_OBJ_NUMANODE) == 1;
	}
	return explain_start(start(job, child, result_fd), why);
}

int place_populate_start(struct place *p, int fd, uint64_t off, uint64_t bytes, unsigned page_shift,
			 int node, void (*init)(void *mem, void *arg), void *arg, pid_t *child,
			 int *result_fd, struct shmq__why *why)
{
	struct populate job = { .fd = fd,
				.off = off,
				.bytes = bytes,
				.page_shift = page_shift,
				.init = init,
				.arg = arg };

	return start_on(p, &job, node, child, result_fd, why);
}

int place_bring_start(struct place *p, int fd, uint64_t off, uint64_t bytes, unsigned page_shift,
		      int node, pid_t *child, int *result_fd, struct shmq__why *why)
{
	struct populate job = {
		.fd = fd, .off = off, .bytes = bytes, .page_shift = page_shift, .is_there = 1
	};

	return start_on(p, &job, node, child, result_fd, why);
}

int place_run_start(int (*run)(void *arg, struct shmq__why *why), void *arg, pid_t *child,
		    int *result_fd, struct shmq__why *why)
{
	struct populate job = { .fd = -1, .page_shift = 12, .run = run, .arg = arg };

	return explain_start(populate_start(&job, child, result_fd), why);
}

static int read_result(int fd, struct place_result *out)
{
	ssize_t n;

	do
		n = read(fd, out, sizeof(*out));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(*out);
}

/* The child said nothing: how it ended has to. */
static void explain_death(int status, struct place_result *out)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	struct bound bound;

	memset(out, 0, sizeof(*out));
	if (sig != SIGKILL && sig != SIGBUS) {
		out->error = -EIO;
		snprintf(out->why, sizeof(out->why), "the populating child ended early (%s %d)",
			 sig ? "signal" : "status", sig ? sig : WEXITSTATUS(status));
		return;
	}
	out->error = SHMQ_ENOMEMORY;
	bounds_memory("", BOUNDS_NODE_ANY, &bound);
	snprintf(out->why, sizeof(out->why),
		 "killed while populating (%s); %.150s: ask for less depth or %.45s",
		 sig == SIGKILL ? "SIGKILL" : "SIGBUS",
		 *bound.text ? bound.text : "no bound is known",
		 *bound.fix ? bound.fix : "free memory");
}

int place_populate_finish(pid_t child, int result_fd, struct place_result *out,
			  struct shmq__why *why)
{
	struct pending *job = pending_remove(child);
	struct place_result result;
	int status = 0, is_told = read_result(result_fd, &result);
	pid_t pid;

	close(result_fd);
	do
		pid = waitpid(child, &status, 0);
	while (pid < 0 && errno == EINTR);
	/* Before anything that takes memory: see place.h. */
	if (job && !job->is_kept && (!is_told || result.error))
		shmq__shmem_punch(job->fd, job->off, job->bytes);
	if (job)
		pending_destroy(job);
	if (!is_told)
		explain_death(status, &result);
	if (out)
		*out = result;
	if (result.error)
		return shmq__fail(why, result.error, "%s", result.why);
	return 0;
}

int place_populate(struct place *p, int fd, uint64_t off, uint64_t bytes, unsigned page_shift,
		   int node, void (*init)(void *mem, void *arg), void *arg,
		   struct place_result *out, struct shmq__why *why)
{
	pid_t child;
	int result_fd, error;

	error = place_populate_start(p, fd, off, bytes, page_shift, node, init, arg, &child,
				     &result_fd, why);
	if (error)
		return error;
	return place_populate_finish(child, result_fd, out, why);
}

int place_lock(void *mem, uint64_t bytes, struct shmq__why *why)
{
	char size[BOUNDS_SIZE_BYTES];
	struct bound bound;
	int error;

	if (!mlock(mem, bytes))
		return 0;
	error = -errno;
	bounds_lock("", 0, &bound);
	if (error == -EPERM || (error == -ENOMEM && bound.free_bytes < bytes))
		return shmq__fail(why, SHMQ_EMEMLOCK, "locking %s, %s: %s",
				  bounds_size(size, bytes), bound.text, bound.fix);
	if (error == -ENOMEM || error == -EAGAIN)
		return shmq__fail(why, SHMQ_ENOMEMORY, "no memory to lock %s",
				  bounds_size(size, bytes));
	return shmq__fail(why, error, "locking %s: %s", bounds_size(size, bytes),
			  shmq_strerror(error));
}
