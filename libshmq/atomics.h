/* SPDX-License-Identifier: MIT
 *
 * C11 atomics, spelled once.  Every access to shared memory in the
 * lock-free files goes through these names, so that one place decides
 * how an order is expressed.
 *
 * ThreadSanitizer does not model stand-alone fences, so its build has none:
 * an operation with acquire and release order stands in for each.  The code
 * is written so that every non-atomic access is ordered by an acquire/release
 * pair on a control word, except the speculative payload copies of
 * shmq__copy_racy(), which is the one function that is annotated as racy.
 */
#ifndef SHMQ_ATOMICS_H
#define SHMQ_ATOMICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t shmq_au64;
typedef _Atomic uint32_t shmq_au32;

_Static_assert(sizeof(shmq_au64) == 8 && sizeof(shmq_au32) == 4, "atomics add no bytes");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
	       "atomics in shared memory must be lock-free");

/* tests/weave looks at every access: there these names are its own. */
#ifndef SHMQ_WEAVE

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define add_release(p, v) atomic_fetch_add_explicit((p), (v), memory_order_release)
#define add_acqrel(p, v) atomic_fetch_add_explicit((p), (v), memory_order_acq_rel)

/* Strong compare-and-swap; *expected is updated on failure. */
#define cas_acqrel(p, expected, v) \
	atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, \
						memory_order_acquire)
#define cas_relaxed(p, expected, v) \
	atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_relaxed, \
						memory_order_relaxed)

#ifdef __SANITIZE_THREAD__
/* TSan's runtime carries a read-modify-write out with a full barrier, so that
 * processor and compiler are held as by the fence.  The word is the thread's
 * own, because a common one orders threads that nothing else orders, and can
 * hide from TSan a control word that fails to: of ours no happens-before
 * edge of a non-atomic access rests on a fence. */
static inline void shmq__tsan_fence(void)
{
	static __thread _Atomic int word;
	atomic_fetch_add_explicit(&word, 1, memory_order_seq_cst);
}
#define fence_release() shmq__tsan_fence()
#define fence_acquire() shmq__tsan_fence()
#define fence_full() shmq__tsan_fence()
/* liburcu's edges are fences and assembly too.  The end of a read-side section
 * comes before the end of the grace period that waited for it.  p is any
 * address of the protected object that no atomic operation uses. */
#include <sanitizer/tsan_interface.h>
#define rcu_section_ends(p) __tsan_release(p)
#define rcu_grace_ended(p) __tsan_acquire(p)
#else
#define rcu_section_ends(p) ((void)(p))
#define rcu_grace_ended(p) ((void)(p))
#define fence_release() atomic_thread_fence(memory_order_release)
#define fence_acquire() atomic_thread_fence(memory_order_acquire)
#define fence_full() atomic_thread_fence(memory_order_seq_cst)
#endif

/* Orders the compiler only: the processor's half is the membarrier that
 * the other side issues (futex.h). */
#define fence_light() atomic_signal_fence(memory_order_seq_cst)

#endif

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield" ::: "memory");
#endif
}

/* Fetch the line for writing.  Plain x86-64 builds would make a fetch for
 * reading of __builtin_prefetch(p, 1); processors without PREFETCHW take
 * it as a no-operation. */
static inline void prefetch_write(const void *p)
{
#if defined(__x86_64__)
	__asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 1, 3);
#endif
}

/* GCC drops calls of functions that only prefetch by the builtin: to it they
 * have no effect. */
static inline void prefetch_read(const void *p)
{
#if defined(__x86_64__)
	__asm__ __volatile__("prefetcht0 %0" : : "m"(*(const char *)p));
#else
	__builtin_prefetch(p, 0, 3);
#endif
}

/* A function that begins a line of instructions: where it does not, it takes up to
 * a tenth longer, and where the linker puts it is chance. */
#define HOT __attribute__((aligned(64)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Wrap-safe order of two sequences: negative, zero, positive as a is
 * before, at, after b. */
static inline int64_t seq_diff(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b);
}

#endif
