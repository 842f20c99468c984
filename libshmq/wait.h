/* SPDX-License-Identifier: MIT
 *
 * wait: the waiting strategies, the same for publishers short of credit
 * and subscribers without a message.
 *
 *	struct waiter w;
 *
 *	waiter_start(&w, mode, spin_ns, timeout_ns);
 *	while (!(done = look())) {
 *		step = waiter_step(&w);
 *		if (step >= WAIT_EXPIRED)
 *			return waiter_error(step);
 *		if (step == WAIT_SLEEP)
 *			arm the bells, look once more, sleep;
 *	}
 */
#ifndef SHMQ_WAIT_H
#define SHMQ_WAIT_H

#include "atomics.h"
#include "clock.h"
#include "shmq.h"

#include <errno.h>

#define WAIT_SPIN_NS 20000

enum wait_step { WAIT_AGAIN = 0, WAIT_SLEEP, WAIT_EXPIRED, WAIT_INTERRUPTED };

struct waiter {
	enum shmq_wait mode;
	uint64_t deadline, spin_until, started;
	uint64_t now; /* when the clock was read last, not with each look */
	uint32_t looks;
	const shmq_au32 *interrupt;
};

/* interrupt: a word that ends the wait once it is not 0, or NULL. */
void shmq__waiter_start(struct waiter *w, enum shmq_wait mode, int64_t spin_ns, int64_t timeout_ns,
			const shmq_au32 *interrupt);
enum wait_step shmq__waiter_step(struct waiter *w);

/* Of WAIT_EXPIRED and WAIT_INTERRUPTED. */
static inline int waiter_error(enum wait_step step)
{
	return step == WAIT_INTERRUPTED ? -EINTR : SHMQ_ETIMEOUT;
}

/* Nanoseconds since start. */
static inline int64_t waiter_waited(const struct waiter *w)
{
	return (int64_t)(shmq__clock_monotonic_ns() - w->started);
}

#endif
