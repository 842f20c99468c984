/* SPDX-License-Identifier: MIT
 *
 * tail_zip: a compressed segment, written in one go (log_format.h says how it
 * looks, log_zip reads it).
 */
#ifndef SHMQ_TAIL_ZIP_H
#define SHMQ_TAIL_ZIP_H

#include <stddef.h>

struct tail_zip;

/* Into the file fd, which is empty and stays the caller's.  0 or -ENOMEM. */
int tail_zip_create(int fd, int level, struct tail_zip **out);
void tail_zip_destroy(struct tail_zip *z); /* NULL allowed */

/* What comes next of the segment.  0 or -errno. */
int tail_zip_add(struct tail_zip *z, const void *data, size_t bytes);

/* That was all: the file is whole, though not synced.  0 or -errno. */
int tail_zip_end(struct tail_zip *z);

#endif
