/* SPDX-License-Identifier: MIT
 *
 * manifest: what the parent holds, on record for whoever comes after it:
 * a start that finds one, and nobody to take over from, can say by name
 * what is lost, and could tell an honest offer of a descriptor from
 * another.
 */
#ifndef SHMQ_MANIFEST_H
#define SHMQ_MANIFEST_H

#include "files.h"
#include "link.h"

/* Replace it.  0 or -errno. */
int manifest_write(const struct files *f, const char *bus, uint64_t nonce,
		   const struct link_slab *slab);

/* Log what one that is there speaks of, and remove it. */
void manifest_mourn(const struct files *f);

#endif
