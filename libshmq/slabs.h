/* SPDX-License-Identifier: MIT
 *
 * slabs: the memfds of one bus as this process holds them.
 *
 * Small objects that everyone reads (registry, bells, entries) are mapped
 * as whole sparse slabs and found by shmq__slabs_at(); rings, arenas and a
 * client's own entry pages are mapped one by one.  The table is read by
 * any thread while the control connection and events add to it: readers are
 * RCU read-side sections, writers take turns to replace the table.
 */
#ifndef SHMQ_SLABS_H
#define SHMQ_SLABS_H

#include "error.h"
#include "layout.h"

struct shmq__slabs;

int shmq__slabs_create(struct shmq__slabs **out);
/* Unmaps whole slabs, closes descriptors.  Single maps must be gone. */
void shmq__slabs_destroy(struct shmq__slabs *slabs);
/* The same in a forked child, where nothing is mapped: what stands at those
 * addresses there is not ours. */
void shmq__slabs_abandon(struct shmq__slabs *slabs);

/* Take over fd as slab id (the fd is closed if that slab is known in that
 * mode already).  The first slab added must be id 0, the registry; other
 * records are checked against it.  kinds REGISTRY, BELL and ENTRY are
 * mapped whole in the mode in which they are first added: a client adds
 * the read-only descriptor of the entry slab first.  On failure fd is closed.  0, SHMQ_ECORRUPT,
 * SHMQ_EVERSION, -errno. */
enum shmq__slabs_mode { SHMQ__SLAB_READ, SHMQ__SLAB_WRITE };
int shmq__slabs_add(struct shmq__slabs *slabs, unsigned id, int fd, enum shmq__slabs_mode mode);

/* 1 if slab id was added, in any mode. */
int shmq__slabs_has(const struct shmq__slabs *slabs, unsigned id);

/* The registry; NULL before slab 0 was added. */
struct lay_registry *shmq__slabs_registry(const struct shmq__slabs *slabs);

/* Memory of [ref, ref + bytes) in a slab that is mapped whole; NULL if the
 * reference is none, unknown, misaligned for 8 or out of bounds. */
void *shmq__slabs_at(const struct shmq__slabs *slabs, lay_ref ref, uint64_t bytes);
/* The same for memory that is to be written: NULL, too, if the slab was mapped
 * for reading. */
void *shmq__slabs_at_writable(const struct shmq__slabs *slabs, lay_ref ref, uint64_t bytes);

/* Map the pages that hold [ref, ref + bytes); *out is where ref is.
 * `shmq__slabs_unmap` takes the same ref and bytes.  0, SHMQ_ECORRUPT (bad
 * reference), -EACCES (mode not held), SHMQ_ELIMIT (map count), -errno. */
int shmq__slabs_map(const struct shmq__slabs *slabs, lay_ref ref, uint64_t bytes,
		    enum shmq__slabs_mode mode, void **out);
void shmq__slabs_unmap(const struct shmq__slabs *slabs, lay_ref ref, uint64_t bytes, void *mem);

/* The descriptor held for slab id in that mode, or -1; still owned by
 * slabs, which closes it only when destroyed. */
int shmq__slabs_fd(const struct shmq__slabs *slabs, unsigned id, enum shmq__slabs_mode mode);

/* Records of the registry's tables; NULL when out of range. */
struct lay_client *shmq__slabs_client(const struct shmq__slabs *slabs, unsigned id);
struct lay_topic *shmq__slabs_topic(const struct shmq__slabs *slabs, uint32_t index);
struct lay_arena *shmq__slabs_arena(const struct shmq__slabs *slabs, uint32_t id);
struct lay_slab *shmq__slabs_slab(const struct shmq__slabs *slabs, unsigned id);

#endif
