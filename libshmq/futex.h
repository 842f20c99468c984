/* SPDX-License-Identifier: MIT
 *
 * futex: waiting on words in shared memory, and the asymmetric fence.
 *
 * shmq__membarrier() makes every registered process that runs now pass a full
 * barrier, so that the fast side needs none: see membarrier(2), global
 * expedited.  Where the kernel lacks or denies it, callers fall back as
 * bell.h says.
 */
#ifndef SHMQ_FUTEX_H
#define SHMQ_FUTEX_H

#include "atomics.h"

#define SHMQ_FUTEX_WAITV_MAX 128

/* Sleep while *word == expected, until woken or deadline (clock.h; the
 * word may be mapped read-only).  0 woken or changed, -ETIMEDOUT, -EINTR. */
int shmq__futex_wait(const shmq_au32 *word, uint32_t expected, uint64_t deadline);

/* The same, while *interrupt, if it is not NULL, is 0: what a kernel without futex_waitv
 * cannot do, so there it comes back now and then. */
int shmq__futex_wait_or(const shmq_au32 *word, uint32_t expected, uint64_t deadline,
			const shmq_au32 *interrupt);

/* Wake everyone who sleeps on word; returns how many. */
int shmq__futex_wake(shmq_au32 *word);

/* The same among those alone whose bits have one in common; who sleeps without
 * has all.  There has to be one. */
int shmq__futex_wait_bits(const shmq_au32 *word, uint32_t expected, uint32_t bits,
			  uint64_t deadline);
int shmq__futex_wake_bits(shmq_au32 *word, uint32_t bits);

/* Sleep until one of n (at most SHMQ_FUTEX_WAITV_MAX) words differs from its
 * expectation or is woken.  As shmq__futex_wait(), or -ENOSYS. */
int shmq__futex_waitv(const shmq_au32 *const *word, const uint32_t *expected, unsigned n,
		      uint64_t deadline);

/* Register this process for shmq__membarrier() of others.  0, or -ENOSYS when
 * the kernel has none or denies it.  SHMQ_NO_MEMBARRIER in the environment
 * makes it behave as denied, SHMQ_NO_WAITV likewise for waitv. */
int shmq__membarrier_register(void);
/* 0, or -ENOSYS as above: then a while has passed instead, in which whatever any
 * processor stored before has long come out of its store buffer. */
int shmq__membarrier(void);

#endif
