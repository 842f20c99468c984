/* SPDX-License-Identifier: MIT
 *
 * manifest: what the parent holds, on record for whoever comes after it:
 * a start that finds one, and nobody to take over from, can tell an honest
 * offer of a descriptor from another (gather.h), and say by name what is
 * lost.
 */
#ifndef SHMQ_MANIFEST_H
#define SHMQ_MANIFEST_H

#include "files.h"
#include "link.h"

/* Replace it.  0 or -errno. */
int manifest_write(const struct files *f, const char *bus, uint64_t nonce,
		   const struct link_slab *slab);

struct manifest {
	uint64_t nonce; /* 0: no client was ever served */
	struct manifest_slab {
		struct link_slab is; /* kind 0: none; fd -1 */
		uint64_t dev, ino;
	} slab[LINK_SLABS_MAX];
};

/* 0, -ENOENT, or -EPROTO for one that cannot be understood. */
int manifest_read(const struct files *f, struct manifest *out);

/* Log what one that is there speaks of, and remove it. */
void manifest_mourn(const struct files *f);

#endif
