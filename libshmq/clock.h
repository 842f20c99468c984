/* SPDX-License-Identifier: MIT
 *
 * clock: the two clocks, and deadlines made of a relative timeout.
 */
#ifndef SHMQ_CLOCK_H
#define SHMQ_CLOCK_H

#include <stdint.h>

uint64_t shmq__clock_realtime_ns(void);
uint64_t shmq__clock_monotonic_ns(void);

/* A point on the monotonic clock; UINT64_MAX never comes.  A timeout below
 * zero is forever; sums that would wrap are forever too. */
uint64_t shmq__clock_deadline(int64_t timeout_ns);

/* Nanoseconds until deadline: 0 when passed, -1 for never. */
int64_t shmq__clock_left(uint64_t deadline);

/* The same as a poll(2) timeout in milliseconds, rounded up. */
int shmq__clock_left_ms(uint64_t deadline);

#endif
