/* SPDX-License-Identifier: MIT
 *
 * guest: what tests share that have a machine of their own, of two nodes
 * with a processor each (tests/guest/boot).
 */
#ifndef TEST_GUEST_H
#define TEST_GUEST_H

#include "helpers.h"

#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>

enum { NODES = 2 };

/* These change the machine, so anywhere else they run not at all. */
__attribute__((constructor)) static void need_guest(void)
{
	if (getenv("SHMQ_GUEST"))
		return;
	printf("1..0 # SKIP this is not the guest (tests/guest/boot)\n");
	exit(0);
}

/* ---- files of the kernel's ------------------------------------------------ */

static inline void put(const char *path, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static inline void put(const char *path, const char *format, ...)
{
	char text[64];
	va_list ap;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		FAIL("writing \"%s\" to %s: %s", text, path, strerror(errno));
	close(fd);
}

/* The number after `key`, or the first one if that is "". */
static inline uint64_t get(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	unsigned long long n = 0;
	char line[256], *at;
	int found = 0;

	while (file && !found && fgets(line, sizeof(line), file))
		if ((at = strstr(line, key)))
			found = sscanf(at + strlen(key), "%llu", &n) == 1;
	if (file)
		fclose(file);
	if (!found)
		FAIL("there is no %s in %s", key, path);
	return n;
}

/* ---- nodes ------------------------------------------------------------------ */

#define POOL "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/"

static inline void set_pool(int node, unsigned pages)
{
	char path[128];

	snprintf(path, sizeof(path), POOL "nr_hugepages", node);
	put(path, "%u", pages);
	CHECK_EQ(get(path, ""), pages);
}

static inline unsigned free_pages(int node)
{
	char path[128];

	snprintf(path, sizeof(path), POOL "free_hugepages", node);
	return (unsigned)get(path, "");
}

/* Bytes of shared memory in small pages there. */
static inline uint64_t shmem_bytes(int node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	return get(path, " Shmem:") << 10;
}

/* Go on, with children to come, on the processor of a node. */
static inline void run_on(int node)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(node, &set);
	CHECK_OK(sched_setaffinity(0, sizeof(set), &set));
}

/* ---- supervisors ------------------------------------------------------------ */

/* Parent and worker at once; the parent, stopped, cannot replace the worker. */
static inline void kill_supervisor(shmq_bus *bus)
{
	pid_t parent = test_bus_parent_pid(bus), worker = test_bus_worker_pid(bus);

	CHECK_OK(kill(parent, SIGSTOP));
	CHECK_OK(kill(worker, SIGKILL));
	CHECK_EQ(test_kill_wait(parent, SIGKILL), 128 + SIGKILL);
}

#endif
