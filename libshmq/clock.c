/* SPDX-License-Identifier: MIT */
#include "clock.h"

#include <limits.h>
#include <time.h>

static uint64_t now(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t shmq__clock_realtime_ns(void)
{
	return now(CLOCK_REALTIME);
}

uint64_t shmq__clock_monotonic_ns(void)
{
	return now(CLOCK_MONOTONIC);
}

uint64_t shmq__clock_deadline(int64_t timeout_ns)
{
	uint64_t at;

	if (timeout_ns < 0)
		return UINT64_MAX;
	if (__builtin_add_overflow(shmq__clock_monotonic_ns(), (uint64_t)timeout_ns, &at))
		return UINT64_MAX;
	return at;
}

int64_t shmq__clock_left(uint64_t deadline)
{
	uint64_t at;

	if (deadline == UINT64_MAX)
		return -1;
	at = shmq__clock_monotonic_ns();
	if (at >= deadline)
		return 0;
	return deadline - at > INT64_MAX ? INT64_MAX : (int64_t)(deadline - at);
}

int shmq__clock_left_ms(uint64_t deadline)
{
	int64_t left = shmq__clock_left(deadline);

	if (left < 0)
		return -1;
	left = left / 1000000 + !!(left % 1000000);
	return left > INT_MAX ? INT_MAX : (int)left;
}
