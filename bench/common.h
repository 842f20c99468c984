/* SPDX-License-Identifier: MIT
 *
 * common: what every benchmark needs.  Processes are forked, pinned and
 * started together; a figure is the median of rounds, and what it is
 * compared with is measured in the same rounds.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include "shmq.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BENCH_ROUNDS_MAX 64
#define BENCH_PROCS_MAX 80
#define BENCH_WORDS 16

/* All that shmq is compared with, as --peers and the figures name it, in the
 * order of figures: transports (peers.h), and what keeps records (store.h),
 * of which Redis is one too. */
#define BENCH_TRANSPORTS \
	"iceoryx", "ck", "boost", "posixmq", "seqpacket", "pipe", "zeromq", "nng", "redis"
#define BENCH_STORES "lmdb", "sqlite", "rocksdb"

/* Set by bench_init() from the command line: --rounds N, --quick, --peers
 * LIST, and for the tests --smoke, --mutants and --limit S. */
struct bench {
	const char *bus; /* name of the private bus */
	unsigned rounds;
	int quick;
	int smoke;         /* one round of few messages: see bench_amount() */
	int mutants;       /* the same of all workloads, each again with mutants: see
			      bench_run() */
	int cpus;          /* usable processors */
	unsigned limit_s;  /* a run that lasts longer waits for a lost message */
	const char *peers; /* the list, or NULL: see peers.h */
};
extern struct bench bench;

/* Parse options, of which those that are wrong end the program with 2, and
 * make a private runtime directory; with `need_bus` start a supervisor
 * there.  bench_end() stops and removes both and returns the exit code. */
enum bench_need { BENCH_NO_BUS, BENCH_BUS };
void bench_init(int argc, char **argv, enum bench_need need_bus, const char *question);
int bench_end(void);

/* By --peers; without it none is in a quick run, else all. */
int bench_peer_is_chosen(const char *name);

/* Print why and exit 1, killing what was forked. */
void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Check a library call. */
#define BENCH_OK(call) \
	do { \
		long long bench_rc = (call); \
		if (bench_rc < 0) \
			bench_fail("%s: %s", #call, shmq_strerror((int)bench_rc)); \
	} while (0)

/* Shared by all processes of a run; zeroed before each. */
struct bench_shared {
	_Alignas(128) _Atomic unsigned ready;
	_Alignas(128) _Atomic unsigned go;
	_Alignas(128) _Atomic unsigned stop;
	_Alignas(128) _Atomic unsigned stage;
	_Alignas(128) _Atomic uint64_t word[BENCH_WORDS][16]; /* a line each */
	/* What becomes of some messages where the program is linked with a ring
	 * that can do that (tests/bench/mutant.c); did any pass through it, and was
	 * it done to any, in this run, the how manieth? */
	_Alignas(128) _Atomic unsigned fate, published, mutated;
	unsigned run;
	size_t used; /* of messages in place so many bytes are; 0: all */
	double result[64];
	uint64_t samples[1 << 20]; /* of latencies, ns */
	uint64_t sample_count;
	_Alignas(4096) char area[8 << 20];
};
extern struct bench_shared *bench_shared;
/* The same bytes through a mapping that is read-only in the kernel's sense, as
 * the rings of a bus are for their readers.  It makes a difference: some
 * processors fetch a line for writing when a writable page is read, and hand
 * it over in half the time. */
extern const struct bench_shared *bench_shared_ro;

enum bench_fate { BENCH_KEEP, BENCH_LOSE, BENCH_DOUBLE, BENCH_TEAR, BENCH_FATES };

/* Run n functions, each in a process of its own pinned to cpu[i] (-1 not
 * pinned), and wait for all; fails if one fails.  Each calls bench_meet()
 * once it is set up.  With --mutants the same then runs three times more, on a ring
 * that loses, doubles and tears, in a fork of the caller that goes on from here to
 * the next run at most, and has to fail. */
struct bench_proc {
	void (*run)(void *arg);
	void *arg;
	int cpu;
};
void bench_run(const struct bench_proc *proc, unsigned n);
void bench_meet(unsigned n);
/* For a process that wants the library's thread elsewhere, and so opens its
 * bus before it pins itself.  Threads inherit. */
void bench_pin(int cpu);
void bench_unpin(void); /* to any usable processor */

/* For those who do nothing meanwhile: sleep until somebody has said that the
 * run is at this stage, or at a later one.  It begins at 0. */
void bench_say_stage(unsigned stage);
void bench_await_stage(unsigned stage);

/* Runs that end when their time is over: the sender says which message is
 * the last before he sends it, and the receiver looks after each. */
static inline _Atomic uint64_t *bench_total_word(void)
{
	return &bench_shared->word[BENCH_WORDS - 1][0];
}
static inline void bench_say_total(uint64_t n)
{
	atomic_store_explicit(bench_total_word(), n, memory_order_release);
}
static inline int bench_is_total(uint64_t n)
{
	return atomic_load_explicit(bench_total_word(), memory_order_relaxed) == n;
}

/* n messages, or fewer where they only have to arrive. */
uint64_t bench_amount(uint64_t n);

shmq_bus *bench_open(void);
/* Another private bus: every name is one, and bench_end() stops it too. */
shmq_bus *bench_open_named(const char *name);

/* A supervisor of a bus that stays on one processor, as those that are
 * started on demand do not: its process group, in which all of it is.  Whoever
 * opens the bus then waits until it serves. */
pid_t bench_start_supervisor(const char *bus, int cpu);
shmq_bus *bench_open_started(void);
shmq_bus *bench_open_started_named(const char *name);

uint64_t bench_now(void); /* CLOCK_MONOTONIC, ns */

/* The cheapest clock there is: the time stamp counter where it is invariant,
 * else bench_now().  Its steps may be 10 ns long, so what lasts less than a
 * microsecond is timed several at once. */
extern int bench_has_tsc;
extern double bench_tick_ns;
static inline uint64_t bench_tick(void)
{
#if defined(__x86_64__)
	if (bench_has_tsc)
		return __builtin_ia32_rdtsc();
#endif
	return bench_now();
}

/* The same once all that stands before it is done: the counter may be read
 * while a load is still on its way. */
static inline uint64_t bench_tick_after(void)
{
#if defined(__x86_64__)
	__builtin_ia32_lfence();
#endif
	return bench_tick();
}

/* Have a line here for writing by the time it is written. */
static inline void bench_fetch_for_writing(const void *line)
{
#if defined(__x86_64__)
	__asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)line));
#else
	__builtin_prefetch(line, 1);
#endif
}

/* The same where single calls are timed: nothing before it is still under
 * way, and nothing after it has begun. */
static inline uint64_t bench_tick_ordered(void)
{
#if defined(__x86_64__)
	uint64_t now;

	__builtin_ia32_lfence();
	now = bench_tick();
	__builtin_ia32_lfence();
	return now;
#else
	return bench_now();
#endif
}

/* Messages at a fixed rate, none of which is skipped: the tick at which the
 * one numbered i is due, and to be there then.  The tick it was. */
static inline uint64_t bench_due(uint64_t start, double per_second, uint64_t i)
{
	return start + (uint64_t)((double)i * (1e9 / bench_tick_ns / per_second));
}

static inline uint64_t bench_spin_until(uint64_t tick)
{
	uint64_t now;

	while ((int64_t)((now = bench_tick()) - tick) < 0)
		;
	return now;
}

static inline void bench_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield" ::: "memory");
#endif
}

/* Sorts value. */
double bench_median(double *value, unsigned n);

/* Do so many samples say something of quantile q?  Not if it is one of the
 * few longest. */
static inline int bench_enough(uint64_t samples, double q)
{
	return (double)samples * (1 - q) >= 5;
}

/* Samples in bench_shared->samples: q from 0 to 1. */
void bench_sort_samples(void);
uint64_t bench_quantile(double q);
/* The same for samples not much longer than a step of their clock, which fall
 * on few values: those that are equal count as spread over their step. */
double bench_quantile_smooth(double q);

/* One value per round under a name, NAN if that round has none.  Figures are
 * printed by bench_end(), in the order first seen, as `figure name value unit`
 * with .min and .max, and as `rounds name value...`: what is compared is
 * compared round by round. */
void bench_note(const char *name, const char *unit, double value);
/* The same for <name>.<stat>. */
void bench_note_stat(const char *name, const char *stat, const char *unit, double value);
/* Is there a figure of that name? */
int bench_has(const char *name);
/* The ratio of two names, round by round. */
void bench_ratio(const char *name, const char *of, const char *to);

/* A remark about all figures whose names begin with that; each is printed
 * once. */
void bench_label(const char *figures, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* So many processes are busy at a time for the figures whose names begin with
 * that: if there are fewer processors, they are not to be trusted. */
void bench_busy(const char *figures, unsigned processes);

/* Remove from a directory what has a name of this prefix and the id of a
 * process, if that is `owner` or is gone. */
void bench_scrub(const char *where, const char *prefix, pid_t owner);

/* Payload of message i.  Every word says which message and which place it
 * belongs to, so that a torn, stale or misplaced word shows, and all of them are
 * written and verified, of 1 MiB as of 32 bytes.  Word by word, as a program has its
 * fields; beyond BENCH_FIELDS bytes, as bulk, 16 bytes at a time, which is as fast as
 * caches are.  verify returns 0 if buf is that message. */
#define BENCH_FIELDS 4096u
#define BENCH_ALWAYS static inline __attribute__((always_inline))

typedef uint64_t bench_words __attribute__((vector_size(16)));
static const bench_words bench_words_step = { UINT64_C(16) << 32, UINT64_C(16) << 32 };

/* The words of message i from place 0 on; how many bytes of it they are. */
BENCH_ALWAYS size_t bench_fill_bulk(char *at, size_t len, uint64_t i)
{
	bench_words v = { i, i + (UINT64_C(8) << 32) };
	size_t k;

	for (k = 0; k + 16 <= len; k += 16, v += bench_words_step)
		memcpy(at + k, &v, 16);
	return k;
}

BENCH_ALWAYS size_t bench_verify_bulk(const char *at, size_t len, uint64_t i, uint64_t *wrong)
{
	bench_words v = { i, i + (UINT64_C(8) << 32) }, all = { 0, 0 }, got;
	size_t k;

	for (k = 0; k + 16 <= len; k += 16, v += bench_words_step) {
		memcpy(&got, at + k, 16);
		all |= got ^ v;
	}
	*wrong |= all[0] | all[1];
	return k;
}

BENCH_ALWAYS void bench_fill(void *buf, size_t len, uint64_t i)
{
	char *at = buf;
	size_t k = len > BENCH_FIELDS ? bench_fill_bulk(at, len, i) : 0;

	for (; k + 8 <= len; k += 8) {
		uint64_t v = i + (k << 32);

		memcpy(at + k, &v, 8);
	}
	for (k = len & ~(size_t)7; k < len; k++)
		at[k] = (char)(i + k);
}

BENCH_ALWAYS int bench_verify(const void *buf, size_t len, uint64_t i)
{
	const char *at = buf;
	uint64_t wrong = 0;
	size_t k = len > BENCH_FIELDS ? bench_verify_bulk(at, len, i, &wrong) : 0;

	for (; k + 8 <= len; k += 8) {
		uint64_t v;

		memcpy(&v, at + k, 8);
		wrong |= v ^ (i + (k << 32));
	}
	for (k = len & ~(size_t)7; k < len; k++)
		wrong |= (uint64_t)(at[k] != (char)(i + k));
	return wrong ? -1 : 0;
}

/* What limits are measured with: a word that says what is there, and the
 * payload right behind it.  The word's line is written last and in one go. */
struct bench_cell {
	_Atomic uint64_t word;
	char near[56];
	char far[];
};

BENCH_ALWAYS void bench_cell_put(struct bench_cell *c, const char *buf, size_t bytes, uint64_t word)
{
	size_t near = bytes < sizeof(c->near) ? bytes : sizeof(c->near);

	memcpy(c->far, buf + near, bytes - near);
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(c->near, buf, near);
	atomic_store_explicit(&c->word, word, memory_order_release);
}

/* Once its word was seen, with acquire. */
BENCH_ALWAYS void bench_cell_get(const struct bench_cell *c, char *buf, size_t bytes)
{
	size_t near = bytes < sizeof(c->near) ? bytes : sizeof(c->near);

	memcpy(buf, c->near, near);
	memcpy(buf + near, c->far, bytes - near);
}

BENCH_ALWAYS uint64_t bench_cell_word(const struct bench_cell *c)
{
	return atomic_load_explicit(&((struct bench_cell *)(uintptr_t)c)->word,
				    memory_order_acquire);
}

#endif
