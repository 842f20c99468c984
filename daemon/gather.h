/* SPDX-License-Identifier: MIT
 *
 * gather: how a bus comes back after parent and worker died at once.
 *
 * The memory lives on in its clients.  A start that finds the manifest of a
 * bus that did not end in order listens at <bus>.back for a bounded time,
 * where clients that look for their supervisor offer the descriptors they
 * hold (PROTO_OFFER).  What the manifest does not name is refused.  With all
 * slabs together a worker adopts them as after the death of another worker;
 * with one missing the rest is worth nothing, and the bus begins anew.  Only
 * extra ones may be: their topics are lost, by name.
 */
#ifndef SHMQ_GATHER_H
#define SHMQ_GATHER_H

#include "files.h"
#include "link.h"
#include "options.h"

/* 1: slab[] and *nonce are what the last parent held.  0: there is nothing to
 * wait for, or not all of it came; what is lost is in the log and the
 * manifest gone.  With everything as it was: -ECANCELED if a signal came, and
 * SHMQ_EVERSION with why if it is there but in a layout of another build. */
int gather_run(const struct files *f, const struct options *o, int signal_fd,
	       struct link_slab slab[LINK_SLABS_MAX], uint64_t *nonce, struct shmq__why *why);

#endif
