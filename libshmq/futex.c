/* SPDX-License-Identifier: MIT */
#include "futex.h"
#include "clock.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define LOOK_NS INT64_C(100000000) /* at the other of two words, where it cannot wait on both */

static struct timespec *to_timespec(uint64_t deadline, struct timespec *ts)
{
	if (deadline == UINT64_MAX)
		return NULL;
	ts->tv_sec = (time_t)(deadline / 1000000000u);
	ts->tv_nsec = (long)(deadline % 1000000000u);
	return ts;
}

static int result(long rc)
{
	if (rc >= 0 || errno == EAGAIN)
		return 0;
	return -errno;
}

int shmq__futex_wait_bits(const shmq_au32 *word, uint32_t expected, uint32_t bits,
			  uint64_t deadline)
{
	struct timespec ts;

	/* WAIT_BITSET takes an absolute monotonic time. */
	return result(syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected,
			      to_timespec(deadline, &ts), NULL, bits));
}

int shmq__futex_wait(const shmq_au32 *word, uint32_t expected, uint64_t deadline)
{
	return shmq__futex_wait_bits(word, expected, FUTEX_BITSET_MATCH_ANY, deadline);
}

int shmq__futex_wait_or(const shmq_au32 *word, uint32_t expected, uint64_t deadline,
			const shmq_au32 *interrupt)
{
	const shmq_au32 *both[2] = { word, interrupt };
	const uint32_t values[2] = { expected, 0 };
	uint64_t look;
	int rc;

	if (!interrupt)
		return shmq__futex_wait(word, expected, deadline);
	rc = shmq__futex_waitv(both, values, 2, deadline);
	if (rc != -ENOSYS)
		return rc;
	look = shmq__clock_deadline(LOOK_NS);
	rc = shmq__futex_wait(word, expected, look < deadline ? look : deadline);
	return rc == -ETIMEDOUT && look < deadline ? 0 : rc;
}

int shmq__futex_wake_bits(shmq_au32 *word, uint32_t bits)
{
	long rc = syscall(SYS_futex, word, FUTEX_WAKE_BITSET, INT32_MAX, NULL, NULL, bits);

	return rc < 0 ? 0 : (int)rc;
}

int shmq__futex_wake(shmq_au32 *word)
{
	return shmq__futex_wake_bits(word, FUTEX_BITSET_MATCH_ANY);
}

int shmq__futex_waitv(const shmq_au32 *const *word, const uint32_t *expected, unsigned n,
		      uint64_t deadline)
{
	struct waiter {
		uint64_t val, uaddr;
		uint32_t flags, reserved;
	} w[SHMQ_FUTEX_WAITV_MAX];
	struct timespec ts;
	unsigned i;
	int rc;

	if (getenv("SHMQ_NO_WAITV"))
		return -ENOSYS;
	for (i = 0; i < n; i++)
		w[i] = (struct waiter){ .val = expected[i],
					.uaddr = (uintptr_t)word[i],
					.flags = 2 };
	rc = result(syscall(SYS_futex_waitv, w, n, 0, to_timespec(deadline, &ts), CLOCK_MONOTONIC));
	return rc == -EPERM ? -ENOSYS : rc; /* a filter that does not know it denies it */
}

static int membarrier(int command)
{
	if (!syscall(SYS_membarrier, command, 0, 0))
		return 0;
	return errno == EPERM ? -ENOSYS : -errno;
}

int shmq__membarrier_register(void)
{
	if (getenv("SHMQ_NO_MEMBARRIER"))
		return -ENOSYS;
	return membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
}

int shmq__membarrier(void)
{
	struct timespec left = { .tv_nsec = 1000000 };
	int error = membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED);

	while (error && clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
	return error;
}
