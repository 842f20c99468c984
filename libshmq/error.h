/* SPDX-License-Identifier: MIT
 *
 * error: the one channel for failures inside the library, a negative int.
 */
#ifndef SHMQ_ERROR_H
#define SHMQ_ERROR_H

#include "shmq.h"

#define SHMQ_EXPORT __attribute__((visibility("default")))

/* One line of explanation that travels beside an error code. */
#define SHMQ_WHY_BYTES 256
struct shmq__why {
	char text[SHMQ_WHY_BYTES];
};

/* Format into why (may be NULL) and return error: `return
 * shmq__fail(why, SHMQ_EOPTION, "depth %d", n)`. */
int shmq__fail(struct shmq__why *why, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
