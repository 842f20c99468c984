/* SPDX-License-Identifier: MIT
 *
 * upgrade: on SIGUSR2 the parent goes on as what its program is by then,
 * under its own process id and without letting go of the lock.
 *
 *   parent ---- everything ----> trial: the program on disk, in a process of
 *     its own, looks whether it can serve this bus
 *   parent <---- READY, or FAILED and why; no answer is a no as well
 *     kills its worker, executes the very file that was tried, and finds
 *     in a link to itself what it held
 *   parent, the other build: starts a worker of its own, which adopts the bus
 *
 * A build that does not serve the layout of the bus refuses, and the one that
 * runs goes on.  As two builds speak here, what stands in link.h and the
 * options of options_become_other() only grow: who does not understand, as
 * one that gets a message of another size, refuses as well.
 */
#ifndef SHMQ_UPGRADE_H
#define SHMQ_UPGRADE_H

#include "link.h"
#include "options.h"

struct upgrade {
	const struct options *o;
	int listen_fd, lock_fd;
	const struct link_slab *slab; /* [LINK_SLABS_MAX] */
	uint64_t nonce;
};

/* Ask the program.  It is a matter of milliseconds, and of some seconds at
 * most if it does not answer.  A descriptor of it, or an error with why. */
int upgrade_try(const struct upgrade *u, struct shmq__why *why);

/* Become what was tried.  Returns only if that fails: -errno. */
int upgrade_go(const struct upgrade *u, int program);

/* The main of ROLE_TRIAL. */
int upgrade_trial(const struct options *o);

#endif
