/* SPDX-License-Identifier: MIT
 *
 * parent: holds the descriptors of a bus's slabs and of its listening
 * socket, and keeps one control worker alive.  It maps nothing, reads
 * nothing that a client could have written, and so has no reason to die.
 *
 *   start ---- spawn ----> worker       parent dies: the worker spawns
 *     parent <--- slabs ---             ROLE_PARENT, which takes the
 *     worker dies: spawn another,       lock, receives everything from
 *     give it everything                that worker and watches it on
 *     SIGUSR2: executes another build
 *     of itself (upgrade.h)
 */
#ifndef SHMQ_PARENT_H
#define SHMQ_PARENT_H

#include "options.h"

/* Run until the bus ends; returns the exit code.  Once it accepts clients,
 * or has failed to, that is reported through `ready_fd` (ready.h). */
int parent_run(struct options *o, int ready_fd);

#endif
