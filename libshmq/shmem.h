/* SPDX-License-Identifier: MIT
 *
 * shmem: memfds, seals and maps.
 */
#ifndef SHMQ_SHMEM_H
#define SHMQ_SHMEM_H

#include <stddef.h>
#include <stdint.h>

/* A sparse memfd of `bytes` with pages of 1 << page_shift (12 is the
 * normal page), mode 0600, sealed against SHRINK, GROW and SEAL.
 * Descriptor or -errno. */
int shmq__shmem_create(const char *name, uint64_t bytes, unsigned page_shift);

/* The same memory through a read-only description.  Descriptor or -errno. */
int shmq__shmem_reopen_readonly(int fd);

/* The other way, for a supervisor that adopts its own. */
int shmq__shmem_reopen_writable(int fd);

/* 1 if fd is a memfd of that size with the seals above, else 0. */
int shmq__shmem_is_sealed(int fd, uint64_t bytes);

/* Map [off, off + bytes) shared, not inherited by fork, not dumped; off and
 * bytes in whole pages of the memfd.  0 or -errno. */
int shmq__shmem_map(int fd, uint64_t off, uint64_t bytes, int prot, void **out);
void shmq__shmem_unmap(void *mem, uint64_t bytes);

/* Give pages back to the system.  0 or -errno. */
int shmq__shmem_punch(int fd, uint64_t off, uint64_t bytes);

#endif
