/* SPDX-License-Identifier: MIT */
#include "wait.h"

#include <sched.h>

/* The clock is read once in so many looks while spinning. */
#define LOOKS_PER_CLOCK 32u

void shmq__waiter_start(struct waiter *w, enum shmq_wait mode, int64_t spin_ns, int64_t timeout_ns,
			const shmq_au32 *interrupt)
{
	w->interrupt = interrupt;
	w->mode = mode;
	w->looks = 0;
	w->started = w->now = shmq__clock_monotonic_ns();
	w->deadline = UINT64_MAX;
	if (timeout_ns >= 0 &&
	    __builtin_add_overflow(w->started, (uint64_t)timeout_ns, &w->deadline))
		w->deadline = UINT64_MAX;
	w->spin_until = mode == SHMQ_WAIT_SLEEP ? 0 : w->started + (uint64_t)spin_ns;
}

enum wait_step shmq__waiter_step(struct waiter *w)
{
	cpu_relax();
	if (w->mode == SHMQ_WAIT_YIELD)
		sched_yield();
	else if (w->mode != SHMQ_WAIT_SLEEP && ++w->looks % LOOKS_PER_CLOCK)
		return WAIT_AGAIN;
	else if (w->mode == SHMQ_WAIT_ADAPTIVE)
		sched_yield(); /* whom we wait for may want this processor */
	/* Relaxed: it says nothing of anything else. */
	if (w->interrupt && load_relaxed((shmq_au32 *)(uintptr_t)w->interrupt))
		return WAIT_INTERRUPTED;
	w->now = shmq__clock_monotonic_ns();
	if (w->now >= w->deadline)
		return WAIT_EXPIRED;
	if (w->mode == SHMQ_WAIT_SPIN || w->mode == SHMQ_WAIT_YIELD || w->now < w->spin_until)
		return WAIT_AGAIN;
	return WAIT_SLEEP;
}
