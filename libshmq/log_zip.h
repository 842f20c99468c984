/* SPDX-License-Identifier: MIT
 *
 * log_zip: a compressed segment, read as if it was not.
 *
 * One frame is kept undone, so reading straight on undoes each once.  Nothing in
 * the file is trusted.  An object belongs to one thread at a time.
 */
#ifndef SHMQ_LOG_ZIP_H
#define SHMQ_LOG_ZIP_H

#include <sys/types.h>

#include "log_format.h"

struct log_zip;

/* Of the file fd, which stays the caller's, and open.  0, SHMQ_ECORRUPT,
 * SHMQ_EVERSION (other byte order), -ENOMEM or -errno. */
int shmq__log_zip_open(int fd, struct log_zip **out);
void shmq__log_zip_close(struct log_zip *z); /* NULL allowed */

/* Bytes of the segment. */
uint64_t shmq__log_zip_bytes(const struct log_zip *z);

/* From its offset `off` on, as many as there are up to its end or to a frame that
 * is damaged: how many, SHMQ_ECORRUPT if that is the first, or -errno. */
ssize_t shmq__log_zip_read(struct log_zip *z, void *buf, size_t bytes, uint64_t off);

#endif
