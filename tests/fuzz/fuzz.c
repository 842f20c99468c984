/* SPDX-License-Identifier: MIT
 *
 * The linker puts the functions below (--wrap) in the places of those that
 * they are named after.
 */
#include "fuzz.h"

#include "futex.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- input --------------------------------------------------------------- */

void bite_bytes(struct bites *in, void *to, size_t n)
{
	size_t there = n < in->left ? n : in->left;

	if (there)
		memcpy(to, in->at, there);
	memset((char *)to + there, 0, n - there);
	in->at += there;
	in->left -= there;
}

uint64_t bite(struct bites *in, unsigned bytes)
{
	uint64_t n = 0;

	bite_bytes(in, &n, bytes);
	return n;
}

uint64_t bite_below(struct bites *in, uint64_t n)
{
	return bite(in, n <= 256 ? 1 : n <= 65536 ? 2 : 4) % n;
}

uint64_t bite_edge(struct bites *in)
{
	static const uint64_t edges[] = {
		0,          1,
		2,          63,
		64,         1023,
		1024,       4095,
		4096,       UINT16_MAX,
		INT32_MAX,  UINT32_MAX,
		INT64_MAX,  (uint64_t)INT64_MAX + 1,
		UINT64_MAX, UINT64_C(1) << 47,
	};
	uint64_t edge = edges[bite_below(in, sizeof(edges) / sizeof(edges[0]))];

	return edge + (uint64_t)(int8_t)bite(in, 1);
}

/* ---- noise --------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

struct noise bite_noise(struct bites *in, const struct area *areas, unsigned count)
{
	const struct area *a = &areas[bite_below(in, count)];
	unsigned how = (unsigned)bite_below(in, 8);
	size_t off = bite_below(in, a->bytes / 8) * 8;
	struct noise n = { .at = (char *)a->mem + off, .bytes = 8, .how = NOISE_SET };

	switch (how) {
	case 0:
		n.value = bite(in, 8);
		break;
	case 1:
		n.value = bite_edge(in);
		break;
	case 2:
		n.bytes = 4;
		n.at += bite_below(in, 2) * 4;
		n.value = bite_edge(in);
		break;
	case 3:
		n.how = NOISE_XOR;
		n.value = UINT64_C(1) << bite_below(in, 64);
		break;
	case 4:
		n.how = NOISE_XOR;
		n.value = bite(in, 8);
		break;
	case 5:
		n.how = NOISE_ADD;
		n.value = (uint64_t)(int8_t)bite(in, 1);
		break;
	case 6: /* the same as elsewhere */
		memcpy(&n.value, (char *)a->mem + bite_below(in, a->bytes / 8) * 8, 8);
		break;
	default:
		n.how = NOISE_FILL;
		n.bytes = a->bytes - off;
		if (bite(in, 1) % 4)
			n.bytes = n.bytes < 128 ? n.bytes : 128;
		n.value = bite(in, 2) + 1;
	}
	return n;
}

void noise_make(const struct noise *n)
{
	uint64_t word = 0, state = n->value;
	size_t i;

	if (n->how == NOISE_FILL) {
		for (i = 0; i < n->bytes; i += 8) {
			word = next_random(&state);
			memcpy(n->at + i, &word, n->bytes - i < 8 ? n->bytes - i : 8);
		}
		return;
	}
	memcpy(&word, n->at, n->bytes);
	word = n->how == NOISE_SET ? n->value :
	       n->how == NOISE_XOR ? word ^ n->value :
				     word + n->value;
	memcpy(n->at, &word, n->bytes);
}

/* ---- steps ----------------------------------------------------------------- */

static struct {
	const char *what; /* NULL: nobody counts */
	uint64_t count, limit;
	struct noise noise[NOISES_MAX];
	unsigned noises, every, until, turn;
	void (*strike)(void *arg); /* or NULL */
	void *arg;
} steps;

void noise_between_steps(const struct noise *noises, unsigned count, unsigned every)
{
	steps.noises = every ? count : 0;
	steps.every = steps.until = every;
	if (steps.noises)
		memcpy(steps.noise, noises, steps.noises * sizeof(*noises));
}

void strike_between_steps(void (*strike)(void *arg), void *arg)
{
	steps.strike = strike;
	steps.arg = arg;
}

void fuzz_begin(const char *what, uint64_t limit)
{
	steps.count = 0;
	steps.limit = limit;
	steps.what = what;
}

uint64_t fuzz_end(void)
{
	steps.what = NULL;
	return steps.count;
}

void __wrap___sanitizer_cov_trace_pc(void);

void __wrap___sanitizer_cov_trace_pc(void)
{
	const char *what = steps.what;

	if (!what)
		return;
	if (++steps.count > steps.limit) {
		steps.what = NULL;
		FAIL("%s did not end within %llu steps", what, (unsigned long long)steps.limit);
	}
	if (steps.strike)
		steps.strike(steps.arg);
	if (!steps.noises || --steps.until)
		return;
	steps.until = steps.every;
	noise_make(&steps.noise[steps.turn++ % steps.noises]);
}

/* ---- time ------------------------------------------------------------------ */

static int is_simulated;
static uint64_t now_ns = UINT64_C(1000000000000);
static unsigned sleeps;

void fuzz_simulate_time(void)
{
	is_simulated = 1;
}

__typeof__(clock_gettime) __real_clock_gettime, __wrap_clock_gettime;
__typeof__(poll) __real_poll, __wrap_poll;
__typeof__(ppoll) __real_ppoll, __wrap_ppoll;
__typeof__(shmq__futex_wait) __real_shmq__futex_wait, __wrap_shmq__futex_wait;
__typeof__(shmq__futex_waitv) __real_shmq__futex_waitv, __wrap_shmq__futex_waitv;

/* Whoever asks takes a millisecond to do so. */
int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	if (!is_simulated)
		return __real_clock_gettime(id, ts);
	now_ns += 1000000;
	ts->tv_sec = (time_t)(now_ns / 1000000000);
	ts->tv_nsec = (long)(now_ns % 1000000000);
	return 0;
}

unsigned fuzz_sleeps(void)
{
	return sleeps;
}

static int sleep_until(uint64_t deadline)
{
	sleeps++;
	if (deadline != UINT64_MAX && deadline > now_ns)
		now_ns = deadline;
	return -ETIMEDOUT;
}

int __wrap_shmq__futex_wait(const shmq_au32 *word, uint32_t expected, uint64_t deadline)
{
	return is_simulated ? sleep_until(deadline) :
			      __real_shmq__futex_wait(word, expected, deadline);
}

int __wrap_shmq__futex_waitv(const shmq_au32 *const *word, const uint32_t *expected, unsigned n,
			     uint64_t deadline)
{
	return is_simulated ? sleep_until(deadline) :
			      __real_shmq__futex_waitv(word, expected, n, deadline);
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
	int rc = __real_poll(fds, n, is_simulated ? 0 : ms);

	if (is_simulated && !rc && ms > 0)
		now_ns += (uint64_t)ms * 1000000;
	return rc;
}

int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
	static const struct timespec at_once;
	int rc = __real_ppoll(fds, n, is_simulated ? &at_once : ts, mask);

	if (is_simulated && !rc && ts)
		now_ns += (uint64_t)ts->tv_sec * 1000000000 + (uint64_t)ts->tv_nsec;
	return rc;
}

/* ---- the end ----------------------------------------------------------------- */

void fuzz_touch(const void *mem, size_t bytes)
{
	const volatile unsigned char *at = mem;
	unsigned sum = 0;

	while (bytes--)
		sum += *at++;
	(void)sum;
}

_Noreturn __typeof__(tap_fail) __wrap_tap_fail;

_Noreturn void __wrap_tap_fail(const char *file, int line, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	vsnprintf(text, sizeof(text), format, args);
#pragma GCC diagnostic pop
	va_end(args);
	tap_note("%s:%d: %s", file, line, text);
	abort();
}
