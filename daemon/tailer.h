/* SPDX-License-Identifier: MIT
 *
 * tailer: the worker that keeps topics' logs.  A client of the bus like any
 * other, but for a writable map of what its topics say of their logs; it
 * comes when the first durable topic does, and goes with its parent.
 */
#ifndef SHMQ_TAILER_H
#define SHMQ_TAILER_H

#include "options.h"

/* The name by which stat shows it.  Clients whose names begin so belong to the
 * bus: it neither waits for them nor stays for them. */
#define TAILER_NAME "$tailer"

/* The worker's main; returns the exit code. */
int tailer_run(const struct options *o);

#endif
