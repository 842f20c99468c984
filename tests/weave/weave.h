/* SPDX-License-Identifier: MIT
 *
 * weave: the lock-free files under a scheduler of the test's own.
 *
 * The files of the library are compiled once more, unmodified, with this
 * header before them (-include) and with -fsanitize=thread, but without
 * its run-time: the names of atomics.h lead here with their site and order,
 * and every plain access calls a hook of weave.c.  Threads are fibers of one
 * thread; each access to a word that several fibers use, one of them
 * writing, is a point at which another may go on.  Which words these are is
 * learned: a search begins anew when it meets one more.
 *
 * Memory (weak).  Each word has the history of its stores, in the order that
 * all fibers agree on; a load may take any store that is not older than what
 * its fiber knows of, and a store may be placed before others that its fiber
 * does not know of.  What a fiber knows, its view, grows by what it reads and
 * writes there, and by acquiring: a store with release order, or after a
 * release fence, carries the view of its fiber, and a load with acquire order,
 * or an acquire fence after it, takes that over.  A read-modify-write takes
 * the store just before it and carries that one's view on.  Full fences
 * are in one order, and each knows what those before it knew.  membarrier is
 * a full fence in every fiber.  Who goes to sleep on a futex after
 * another woke its sleepers sees what that one stored before; more is not
 * expected of the kernel.  That is a store buffer per word, flushed in any order, and
 * loads from stale caches.
 * Late loads: a payload that the test reads by weave_read_late(), a load
 * that was weakened, and those named to weave_late() may take their value as
 * late as the next operation of their fiber that orders earlier loads.
 * Memory (SC): one value per word.
 *
 * What the model has not: loads other than the late ones after later stores
 * of their fiber, accesses smaller than 8 bytes on their own (a word is the
 * unit, stores of parts of it stay in order), and seq_cst operations other
 * than fences, which are taken for acquire and release.  A plain access
 * counts as relaxed.  Time stands still: no wait ends by its time-out.
 *
 * Searches.  Exhaustive: all schedules, and all that loads and stores may do
 * in them, but for schedules that differ from one looked at only in the
 * order of neighbours that don't touch each other (sleep sets); a search that
 * ends before its limit is complete, and says so.  Random: seeded by the
 * number of the execution.  Both are a function of the scenario alone, so a
 * failing execution is named by its number and replayed by
 *
 *     build/tests/weave/weave --replay SCENARIO:MEMORY:SEARCH:NUMBER[:SITE[+SITE]]
 *
 * as the failure says, SITE being one that is weakened; what each fiber
 * did is then told step by step.  MEMORY is sc or weak, SEARCH all or random.
 * Which scenario fails with some sites weakened, if any does in COUNT random
 * schedules of each, is told by
 *
 *     build/tests/weave/weave --weaken SITE[+SITE] COUNT [SCENARIO]
 */
#ifndef WEAVE_H
#define WEAVE_H

#define SHMQ_WEAVE /* atomics.h leaves its names to us */

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- sites: what the names of atomics.h become ---------------------- */

enum weave_kind { WEAVE_LOAD, WEAVE_STORE, WEAVE_ADD, WEAVE_CAS, WEAVE_FENCE, WEAVE_BARRIER };
enum weave_order {
	WEAVE_RELAXED = 0,
	WEAVE_ACQUIRE = 1,
	WEAVE_RELEASE = 2,
	WEAVE_ACQREL = 3,
	WEAVE_SEQCST = 7,
};

struct weave_site {
	const char *file, *function;
	int line;
	enum weave_kind kind;
	enum weave_order order;
	int late;                /* a load that may be late */
	int weakened;            /* for this search */
	uint64_t reached;        /* by fibers, how often */
	struct weave_site *same; /* one of those that stand on this line */
	char name[96];           /* file:function:name in atomics.h, #n if there are several */
};

/* Every site puts its address into the section that weave.c goes through. */
#define WEAVE_SITE(kind_, order_) \
	({ \
		static struct weave_site weave_site_ = { \
			.file = __FILE__, \
			.function = __func__, \
			.line = __LINE__, \
			.kind = (kind_), \
			.order = (order_), \
		}; \
		static struct weave_site *const weave_site_at_ \
			__attribute__((section("weave_sites"), used)) = &weave_site_; \
		&weave_site_; \
	})

uint64_t weave_load(struct weave_site *site, const void *p, size_t bytes);
void weave_store(struct weave_site *site, void *p, uint64_t value, size_t bytes);
uint64_t weave_add(struct weave_site *site, void *p, uint64_t value, size_t bytes);
int weave_cas(struct weave_site *site, void *p, void *expected, uint64_t value, size_t bytes);
void weave_fence(struct weave_site *site);
int weave_membarrier(struct weave_site *site);
void *weave_copy(void *to, const void *from, size_t bytes);

#define WEAVE_LOAD_(p, order) \
	({ \
		__typeof__(*(p) + 0) weave_value_ = \
			weave_load(WEAVE_SITE(WEAVE_LOAD, order), (const void *)(uintptr_t)(p), \
				   sizeof(*(p))); \
		weave_value_; \
	})
#define WEAVE_STORE_(p, v, order) \
	weave_store(WEAVE_SITE(WEAVE_STORE, order), (p), (uint64_t)(v), sizeof(*(p)))
#define WEAVE_ADD_(p, v, order) \
	({ \
		__typeof__(*(p) + 0) weave_old_ = \
			weave_add(WEAVE_SITE(WEAVE_ADD, order), (p), (uint64_t)(v), sizeof(*(p))); \
		weave_old_; \
	})

#define load_relaxed(p) WEAVE_LOAD_(p, WEAVE_RELAXED)
#define load_acquire(p) WEAVE_LOAD_(p, WEAVE_ACQUIRE)
#define store_relaxed(p, v) WEAVE_STORE_(p, v, WEAVE_RELAXED)
#define store_release(p, v) WEAVE_STORE_(p, v, WEAVE_RELEASE)
#define add_relaxed(p, v) WEAVE_ADD_(p, v, WEAVE_RELAXED)
#define add_release(p, v) WEAVE_ADD_(p, v, WEAVE_RELEASE)
#define add_acqrel(p, v) WEAVE_ADD_(p, v, WEAVE_ACQREL)
#define cas_acqrel(p, expected, v) \
	weave_cas(WEAVE_SITE(WEAVE_CAS, WEAVE_ACQREL), (p), (expected), (v), sizeof(*(p)))
#define cas_relaxed(p, expected, v) \
	weave_cas(WEAVE_SITE(WEAVE_CAS, WEAVE_RELAXED), (p), (expected), (v), sizeof(*(p)))
#define fence_release() weave_fence(WEAVE_SITE(WEAVE_FENCE, WEAVE_RELEASE))
#define fence_acquire() weave_fence(WEAVE_SITE(WEAVE_FENCE, WEAVE_ACQUIRE))
#define fence_full() weave_fence(WEAVE_SITE(WEAVE_FENCE, WEAVE_SEQCST))
#define fence_light() ((void)0)

#include "futex.h"

#define shmq__membarrier() weave_membarrier(WEAVE_SITE(WEAVE_BARRIER, WEAVE_SEQCST))
#define memcpy(to, from, bytes) weave_copy((to), (from), (bytes))

/* ---- scenarios ------------------------------------------------------ */

struct weave_scenario {
	const char *name;
	void (*set_up)(void); /* fills memory and starts the fibers */
	void (*check)(void);  /* once all have ended; may be NULL */
	struct weave_scenario *next;
};

/* A scenario is registered where it is written, for the tests of all of them and
 * for --replay. */
#define SCENARIO(name_, set_up_, check_) \
	static struct weave_scenario name_ = { #name_, set_up_, check_, NULL }; \
	__attribute__((constructor)) static void register_##name_(void) \
	{ \
		weave_register(&name_); \
	} \
	_Static_assert(1, "ends with a semicolon")
void weave_register(struct weave_scenario *scenario);

/* Zeroed memory that fibers may share; it is as set_up() left it when an
 * execution begins. */
void *weave_alloc(size_t bytes);

/* What a word is called when a schedule is told. */
void weave_name(const void *at, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Another fiber, from set_up() or from a fiber; its number.  A mortal one may end before any
 * access. */
int weave_spawn(const char *name, void (*run)(void *arg), void *arg);
void weave_mortal(int fiber);

/* A fiber that ends with the others, wherever it is. */
int weave_attend(const char *name, void (*run)(void *arg), void *arg);

/* The kernel of this scenario has no futex_waitv, or no membarrier. */
void weave_without_waitv(void);
void weave_without_membarrier(void);

/* ---- in a fiber ----------------------------------------------------- */

/* Read what a publisher may be writing over, at the latest when the cursor
 * that covers it is moved; `to` holds it after weave_settle(). */
void weave_read_late(void *to, const void *from, size_t bytes);
void weave_settle(void);

/* Look at nothing until the others can't go on; from then on all that they
 * stored is seen.  0 if all others have ended, or stand here too. */
int weave_idle(void);

/* The same for whoever goes on if the others do, or a few times after time alone
 * has passed. */
void weave_yield(void);

/* Wait for the end of a fiber, whatever it was, with proof: all that it did
 * happened before.  1 if it died. */
int weave_join(int fiber);

/* Has that fiber died?  If so, it is proved: as weave_join(). */
int weave_has_died(int fiber);

/* The number of the fiber that calls, -1 in none. */
int weave_self(void);

/* How often this fiber has asked that: a clock that is its own.  In a scenario that
 * wants it to go faster each time counts so many times. */
uint64_t weave_looks(void);
void weave_look_counts(uint64_t times);

_Noreturn void weave_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
#define WANT(condition) \
	do { \
		if (!(condition)) \
			weave_fail(__FILE__, __LINE__, "not true: %s", #condition); \
	} while (0)
#define WANT_EQ(got, want) \
	do { \
		unsigned long long got_ = (unsigned long long)(got); \
		unsigned long long want_ = (unsigned long long)(want); \
		if (got_ != want_) \
			weave_fail(__FILE__, __LINE__, "%s is %llu (%#llx), not %llu", #got, got_, \
				   got_, want_); \
	} while (0)

/* One line of the telling. */
void weave_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Watchdog of a test of schedules: make torture looks at more of them. */
#define WEAVE_LIMIT_S 1800

/* ---- searches ------------------------------------------------------- */

enum weave_memory { WEAVE_SC, WEAVE_WEAK };

/* All schedules, which must be fewer than limit; or so many random ones.  They
 * fail the test, and say how, if one of them fails. */
void weave_all(const struct weave_scenario *s, enum weave_memory memory, uint64_t limit);
void weave_random(const struct weave_scenario *s, enum weave_memory memory, uint64_t count);

/* Every site of the library that orders anything is needed: weakened to relaxed,
 * it makes one of `count` random schedules of some scenario fail; of a few it is said
 * in which it is `seen`, as others have none or few of them. */
struct weave_seen {
	const char *site, *in;
};
void weave_each_site(const struct weave_seen *seen, uint64_t count);

/* Loads of that site may be late in the scenario whose set_up() says so. */
void weave_late(const char *site);

/* How much more than usual is to be done: 1, or more under make torture. */
uint64_t weave_effort(void);

#endif
