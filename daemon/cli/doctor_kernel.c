/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the headers of older releases lack. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define LANDLOCK_VERSION 1u

static int ask_futex_waitv(void)
{
	return syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno == EINVAL ? 0 : -errno;
}

static int ask_membarrier(void)
{
	long can = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	if (can < 0)
		return -errno;
	return can & MEMBARRIER_CMD_GLOBAL_EXPEDITED ? 0 : -ENOSYS;
}

static int ask_pidfd(void)
{
	long fd = syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0)
		return -errno;
	close((int)fd);
	return 0;
}

static int ask_peerpidfd(void)
{
	int pair[2], fd = -1, rc = 0;
	socklen_t len = sizeof(fd);

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	if (getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &fd, &len))
		rc = errno == ENOPROTOOPT ? -ENOSYS : -errno;
	else if (fd >= 0)
		close(fd);
	close(pair[0]);
	close(pair[1]);
	return rc;
}

static int ask_populate(void)
{
	size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int rc;

	if (page == MAP_FAILED)
		return -errno;
	rc = madvise(page, bytes, MADV_POPULATE_WRITE) ? -ENOSYS : 0;
	munmap(page, bytes);
	return rc;
}

static int ask_uring(void)
{
	return syscall(SYS_io_uring_setup, 0, NULL) < 0 && (errno == EINVAL || errno == EFAULT) ?
		       0 :
		       -errno;
}

static int ask_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION) >= 1 ? 0 : -errno;
}

/* With the first version that has it, and what goes on in its place. */
static const struct feature {
	const char *name;
	int major, minor;
	enum level level;
	int (*ask)(void);
	const char *costs;
} features[] = {
	{ "pidfd", 5, 3, LEVEL_BAD, ask_pidfd, "without it the supervisor does not start" },
	{ "populate", 5, 14, LEVEL_WARN, ask_populate,
	  "memory of topics is reserved by touching each page, which takes longer" },
	{ "membarrier", 4, 16, LEVEL_WARN, ask_membarrier,
	  "a publisher pays for who may sleep: an exchange, about 7 ns, for each message" },
	{ "futex_waitv", 5, 16, LEVEL_WARN, ask_futex_waitv,
	  "wait sets need a thread for each topic they sleep on" },
	{ "io_uring", 5, 1, LEVEL_WARN, ask_uring,
	  "the tailer writes logs one block at a time, by system calls that block" },
	{ "landlock", 5, 13, LEVEL_HINT, ask_landlock,
	  "the workers of the supervisor cannot be kept from files they do not need" },
	{ "peerpidfd", 6, 5, LEVEL_HINT, ask_peerpidfd,
	  "an attach takes one more round trip, which proves who asks" },
};

/* What the files of a machine say that is not this one. */
static int is_in(const struct doctor *d, const struct feature *f, const char *release)
{
	char *rest;
	long major = strtol(release, &rest, 10);
	long minor = *rest == '.' ? strtol(rest + 1, NULL, 10) : 0;
	char lsm[256];

	if (major < f->major || (major == f->major && minor < f->minor))
		return -ENOSYS;
	if (f->ask == ask_landlock &&
	    !doctor_line(d, "/sys/kernel/security/lsm", lsm, sizeof(lsm)) &&
	    !strstr(lsm, "landlock"))
		return -EOPNOTSUPP;
	return 0;
}

static void check_feature(struct doctor *d, const struct feature *f, const char *release)
{
	uint64_t off = 0;
	struct finding *found;
	int rc = d->root[0] ? is_in(d, f, release) : f->ask();

	if (f->ask == ask_uring && !doctor_number(d, "/proc/sys/kernel/io_uring_disabled", &off) &&
	    off) {
		found = doctor_add(d, f->name, f->level, "it is switched off (%llu)",
				   (unsigned long long)off);
		doctor_costs(found, "%s", f->costs);
		doctor_fix(found, "sysctl -w kernel.io_uring_disabled=0");
		return;
	}
	if (rc == 0) {
		doctor_add(d, f->name, LEVEL_OK, "there");
		return;
	}
	if (rc == -EOPNOTSUPP) {
		found = doctor_add(d, f->name, f->level, "the kernel has it and did not start it");
		doctor_fix(found, "boot with lsm=landlock,yama,apparmor");
	} else if (rc == -ENOSYS) {
		found = doctor_add(d, f->name, f->level, "Linux %s lacks it: %d.%d is the first",
				   release, f->major, f->minor);
		doctor_fix(found, "apt-get install linux-image-amd64  # %d.%d or newer", f->major,
			   f->minor);
	} else {
		found = doctor_add(d, f->name, f->level, "denied here: %s", strerror(-rc));
		doctor_fix(found, "let the filter of the container or service pass it, as: docker "
				  "run --security-opt seccomp=unconfined");
	}
	doctor_costs(found, "%s", f->costs);
}

void doctor_kernel(struct doctor *d)
{
	char release[96];
	size_t i;

	if (doctor_line(d, "/proc/sys/kernel/osrelease", release, sizeof(release)))
		snprintf(release, sizeof(release), "?");
	for (i = 0; i < ARRAY_COUNT(features); i++)
		check_feature(d, &features[i], release);
}
