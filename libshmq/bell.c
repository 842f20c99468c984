/* SPDX-License-Identifier: MIT
 *
 * The edges stand in bell.h.
 */
#include "bell.h"
#include "clock.h"
#include "futex.h"
#include "probe.h"

#include <errno.h>

int shmq__bell_ring(struct lay_bell *bell)
{
	uint64_t a = load_relaxed(&bell->armed); /* W3 */

	if (a == load_relaxed(&bell->served))
		return 0;
	add_relaxed(&bell->word, 1); /* W4 */
	PROBE1(wake, &bell->word);
	shmq__futex_wake(&bell->word);
	store_relaxed(&bell->served, a);
	return 1;
}

uint32_t shmq__bell_arm(struct lay_bell *bell, enum shmq__fence fence)
{
	uint32_t e = load_relaxed(&bell->word); /* S1 */

	/* Release keeps S1 before S2, the full fence S2 before S4 for this
	 * processor; membarrier does that on the others. */
	add_acqrel(&bell->armed, 1); /* S2 */
	if (fence == SHMQ__FENCE_LIGHT)
		shmq__membarrier(); /* S3 */
	fence_full();
	return e;
}

/* Spread the back-stops of many sleepers so that they do not all look at
 * once: up to a quarter less, by the low bits of the clock. */
static int64_t backstop(enum shmq__fence fence)
{
	int64_t ns = SHMQ__BELL_BACKSTOP_NS;

	if (fence == SHMQ__FENCE_FULL)
		return 1000000;
	return ns - (int64_t)(shmq__clock_monotonic_ns() % (uint64_t)(ns / 4));
}

int shmq__bell_sleep(struct lay_bell *const *bell, const uint32_t *expected, unsigned n,
		     enum shmq__fence fence, uint64_t deadline, const shmq_au32 *interrupt)
{
	const shmq_au32 *word[SHMQ_FUTEX_WAITV_MAX];
	uint32_t of[SHMQ_FUTEX_WAITV_MAX];
	unsigned i;

	for (i = 0; i < n; i++) {
		word[i] = &bell[i]->word;
		of[i] = expected[i];
	}
	return shmq__bell_sleep_on(word, of, n, fence, deadline, interrupt);
}

int shmq__bell_sleep_on(const shmq_au32 **word, uint32_t *expected, unsigned n,
			enum shmq__fence fence, uint64_t deadline, const shmq_au32 *interrupt)
{
	uint64_t until = shmq__clock_deadline(backstop(fence));
	int rc;

	if (deadline < until)
		until = deadline;
	PROBE2(sleep, word[0], n);
	if (n == 1)
		rc = shmq__futex_wait_or(word[0], expected[0], until, interrupt);
	else if (interrupt) {
		word[n] = interrupt;
		expected[n] = 0;
		rc = shmq__futex_waitv(word, expected, n + 1, until);
	} else
		rc = shmq__futex_waitv(word, expected, n, until);
	if (rc == -ENOSYS)
		return rc;
	return rc == -ETIMEDOUT && until == deadline ? -ETIMEDOUT : 0;
}
