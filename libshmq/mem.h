/* SPDX-License-Identifier: MIT
 *
 * mem: memory of the process's own for what a publish may have to enlarge, and for
 * what stands alone on its lines.
 *
 * The first comes from the kernel: a signal handler that publishes may have
 * interrupted malloc(3), whose lock it would wait for without end.
 */
#ifndef SHMQ_MEM_H
#define SHMQ_MEM_H

#include <stddef.h>

/* Zeroed; whole pages, so for what is large or rare.  NULL: there is none. */
void *shmq__mem_get(size_t bytes);
/* All of what get gave for as many bytes; NULL is allowed. */
void shmq__mem_put(void *mem, size_t bytes);

/* Zeroed, to be freed; it begins at a multiple of `apart`, a power of two, and nothing
 * else is there up to the next one.  NULL: there is none. */
void *shmq__mem_apart(size_t bytes, size_t apart);

#endif
