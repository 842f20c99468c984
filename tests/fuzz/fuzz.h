/* SPDX-License-Identifier: MIT
 *
 * fuzz: what the fuzz targets share.
 *
 * A target is one file with LLVMFuzzerTestOneInput(), which plays whatever
 * its input says: bytes that a peer wrote, and the calls that meet them.  It
 * fails as tests do, by CHECK.  `make fuzz` drives it by coverage where clang
 * is there; replay.c makes of the same object a test that runs the corpus of
 * tests/fuzz/corpus/<target>, and a bounded number of mutations of it.
 *
 * Steps: the code under test is built so that each of its basic blocks calls
 * us.  That bounds every call by what it does, not by the time it takes; and
 * between any two steps a peer may strike, so that what is loaded twice is
 * seen to differ, the same way in each run.
 *
 * Time: with fuzz_simulate_time() no clock is asked and nobody sleeps; a
 * wait has lasted as long as it may.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "tap.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What it keeps between inputs goes: the last call. */
void fuzz_leave(void);

/* How many mutations `make check` runs; every target has its number. */
extern const unsigned fuzz_runs;

/* ---- input ----------------------------------------------------------- */

/* An input, bitten off from the front; past its end there are zeros. */
struct bites {
	const uint8_t *at;
	size_t left;
};

/* The next 1 to 8 bytes as a number; one below n. */
uint64_t bite(struct bites *in, unsigned bytes);
uint64_t bite_below(struct bites *in, uint64_t n);
/* Copy n bytes. */
void bite_bytes(struct bites *in, void *to, size_t n);
/* A number at which something may break, or near it. */
uint64_t bite_edge(struct bites *in);

/* ---- noise ----------------------------------------------------------- */

/* Memory that a peer can write. */
struct area {
	void *mem;
	size_t bytes;
};

/* One thing that a peer does to it. */
struct noise {
	char *at;
	size_t bytes;
	enum { NOISE_SET, NOISE_XOR, NOISE_ADD, NOISE_FILL } how;
	uint64_t value;
};

struct noise bite_noise(struct bites *in, const struct area *areas, unsigned count);
void noise_make(const struct noise *noise);

/* From now on one of these is made after so many steps, in turn; 0 ends it. */
#define NOISES_MAX 4
void noise_between_steps(const struct noise *noises, unsigned count, unsigned every);

/* The same for a peer that thinks: from now on strike(arg) is called at each
 * step; NULL ends it. */
void strike_between_steps(void (*strike)(void *arg), void *arg);

/* ---- steps ----------------------------------------------------------- */

/* Until fuzz_end() the code under test may take so many steps; how many it took. */
void fuzz_begin(const char *what, uint64_t steps);
uint64_t fuzz_end(void);

/* The result of a call that may take so many. */
#define WITHIN(steps, call) \
	({ \
		fuzz_begin(#call, steps); \
		__typeof__(call) within_result = (call); \
		fuzz_end(); \
		within_result; \
	})

/* ---- the rest -------------------------------------------------------- */

void fuzz_simulate_time(void);
/* How often somebody would have slept, so far. */
unsigned fuzz_sleeps(void);

/* Every byte is there to be read. */
void fuzz_touch(const void *mem, size_t bytes);

/* Failing is dying, so that what failed is kept: a file that replay.c is told
 * by SHMQ_FUZZ_INPUT to run alone. */

#endif
