/* SPDX-License-Identifier: MIT
 *
 * log_identity: the file that says whose log a directory is.
 */
#ifndef SHMQ_LOG_IDENTITY_H
#define SHMQ_LOG_IDENTITY_H

#include "error.h"
#include "log_format.h"

/* Read the file "topic" in directory `dir` and check it.  Its strings end, its
 * options are as they were written.  0; -ENOENT: there is none; SHMQ_ECORRUPT,
 * SHMQ_EVERSION or -errno; with why. */
int shmq__log_identify(int dir, struct log_identity *out, struct shmq__why *why);

/* Likewise, and it has to be the log of that topic: else SHMQ_ECORRUPT. */
int shmq__log_identify_of(int dir, const char *topic, struct log_identity *out,
			  struct shmq__why *why);

#endif
