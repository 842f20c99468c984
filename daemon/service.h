/* SPDX-License-Identifier: MIT
 *
 * service: what a service manager passes to the program it runs, and what it is
 * told, by the protocols of sd_notify(3) and sd_listen_fds(3).  They are a
 * datagram of words and an environment, less than a library would cost, whose
 * interface a program can rely on without it.
 *
 * Without a service manager all of it does nothing.  Of the parent only.
 */
#ifndef SHMQ_SERVICE_H
#define SHMQ_SERVICE_H

#include <stdint.h>

#include "error.h"

/* Read what was passed to this process.  Returns the first descriptor that is not
 * one of them. */
int service_begin(void);

/* From now on nothing is told to it: it manages the service of somebody else, who had
 * the bus started. */
void service_disown(void);

/* The socket that the manager listens at for us: a descriptor, -1 if there is
 * none, SHMQ_EOPTION with why if it is not one at `path`. */
int service_socket(const char *path, struct shmq__why *why);

/* Slabs that were in its store: the next one, or -1.  They are the caller's. */
int service_next_slab(unsigned *id);

/* Tell it; words as sd_notify(3) has them, "READY=1".  Never waits: what it cannot take
 * now it is told by service_catch_up(), in the order in which each was said last, which
 * returns 1 while something is left. */
void service_notify(const char *words);
int service_catch_up(void);
/* Keep a slab for whoever is started next, or keep none of that id any more. */
void service_store(unsigned id, int fd);
void service_forget(unsigned id);

/* How often it wants to hear WATCHDOG=1, half of which is left as time to be late;
 * 0 never. */
int64_t service_watchdog_ns(void);

#endif
