/* SPDX-License-Identifier: MIT
 *
 * bell: how the sleepers of a ring are woken.
 *
 * The side that makes progress (a publisher that commits, a subscriber
 * that moves its cursor) calls bell_look() afterwards: two loads of a line
 * that nobody writes while nobody sleeps.  The side that waits calls
 * shmq__bell_arm(), looks again at what it waits for, then sleeps.
 *
 * Edges (B: bell; progress P is the control word or the cursor)
 *
 *   waker                              sleeper
 *   W1 store P          (release)      S1 e = word       (relaxed)
 *   W2 light or full fence             S2 armed += 1     (release)
 *   W3 a = armed        (relaxed)      S3 membarrier (full fence in every
 *   W4 if a != served:                    registered process)
 *        word += 1      (relaxed)      S4 look at P      (acquire)
 *        FUTEX_WAKE                    S5 FUTEX_WAIT(word, e)
 *        served = a     (relaxed)
 *
 * Impossible: S4 misses P and W3 misses the arming (store buffering: W2
 * pairs with S3).  So if S4 saw nothing, a waker sees a != served and bumps
 * word.  S1 stands before S2: then a waker that saw this arming bumps word
 * after S1 and S5 returns at once; with S1 after S2 the bump could come in
 * between, be taken as the expectation, and served would hide the arming
 * from everyone after.  served is stored after the wake: a waker that dies
 * in between leaves a != served, and the next one wakes again.
 *
 * W4 carries nothing: who finds word changed arms, by S3, before it believes that
 * there is nothing; and what stands between word and served is the kernel.
 *
 * S3 interrupts the wakers' processors, which is what publishers pay for a reader
 * that sleeps.  Where all of a topic's publishers fence in full at W2 (deferring
 * ones, whose library's thread looks) the bell says so, and sleepers leave S3 out.
 *
 *   publisher that does not fence      sleeper
 *   F1 fenced = 0  (the supervisor,    S2 armed += 1
 *      before its answer)              F3 full fence
 *   F2 full fence                      F5 fenced?       (acquire)
 *   W1, W2 light, W3                   S3 unless it is  S4
 *   F4 fenced = 1  (release; the supervisor, once the last such one is gone)
 *
 * If F5 missed F1 then F3 is before F2, and W3 sees S2.  If it saw F4, S4 sees
 * whatever those who are gone did at W1.
 *
 * A killed or stalled waker between W1 and W4 leaves its sleepers to the
 * next waker or, at the latest, to recovery, which rings every bell of the
 * dead; the back-stop timeout bounds a stall.
 */
#ifndef SHMQ_BELL_H
#define SHMQ_BELL_H

#include "layout.h"

/* How this process fences: decided once at attach. */
enum shmq__fence {
	SHMQ__FENCE_LIGHT = 1, /* wakers: compiler only; sleepers: membarrier */
	SHMQ__FENCE_FULL = 2,  /* no membarrier here: wakers fence in full,
				  sleepers look again every millisecond */
};

#define SHMQ__BELL_BACKSTOP_NS (INT64_C(10) * 1000 * 1000 * 1000)

/* Wake whoever sleeps; returns 1 if a system call was made. */
int shmq__bell_ring(struct lay_bell *bell);

/* W2 and W3: 1 if there may be sleepers. */
static inline int bell_is_armed(struct lay_bell *bell, enum shmq__fence fence)
{
	if (unlikely(fence == SHMQ__FENCE_FULL))
		fence_full();
	else
		fence_light();
	return unlikely(load_relaxed(&bell->armed) != load_relaxed(&bell->served));
}

/* W2, light, and W3 by who looks again and again.  armed only grows, and never is
 * behind served: as long as it is what served was at any time before, all who ever
 * armed have been woken. */
static inline uint64_t bell_armed(struct lay_bell *bell)
{
	fence_light();
	return load_relaxed(&bell->armed);
}

/* W2 to W4.  The hot half is inline. */
static inline int bell_look(struct lay_bell *bell, enum shmq__fence fence)
{
	return bell_is_armed(bell, fence) ? shmq__bell_ring(bell) : 0;
}

/* F2, for who is to look without a full fence, once it may. */
static inline void bell_join(void)
{
	fence_full();
}

/* S1 to S3: returns the expectation for shmq__bell_sleep(). */
uint32_t shmq__bell_arm(struct lay_bell *bell, enum shmq__fence fence);

/* S5 on n bells at once (1 to 127; more than one needs futex_waitv).  Sleeps
 * until a bell rings, `deadline` or the back-stop; may return early for no
 * reason.  0, -ETIMEDOUT only for the caller's deadline, -ENOSYS.  interrupt: a word
 * that ends the sleep, too, once it is not 0, or NULL: without futex_waitv it is looked
 * at now and then. */
int shmq__bell_sleep(struct lay_bell *const *bell, const uint32_t *expected, unsigned n,
		     enum shmq__fence fence, uint64_t deadline, const shmq_au32 *interrupt);
/* The same on the words themselves, be they of bells or of whoever wakes always; there
 * is room for one more. */
int shmq__bell_sleep_on(const shmq_au32 **word, uint32_t *expected, unsigned n,
			enum shmq__fence fence, uint64_t deadline, const shmq_au32 *interrupt);

#endif
