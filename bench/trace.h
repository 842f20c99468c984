/* SPDX-License-Identifier: MIT
 *
 * trace: what a message costs where no clock is needed to tell: instructions, and
 * the cache lines that pass between two processors.
 *
 * Both ends are in one process, in which each step between bench_trace_on() and
 * bench_trace_off() is that of one of two processors.  Every instruction traps, and
 * so does every access to memory that is shared.  A line is with either, with both, or
 * changed by one: what that makes of an access is counted.  So it counts what the
 * caches of any machine have to do, and no more: what is fetched ahead is no access, and
 * costs whoever fetches it nothing here but what it is fetched for.
 */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include <stdint.h>

struct bench_trace {
	uint64_t instructions;
	uint64_t fetched; /* lines that the other processor had changed */
	uint64_t taken;   /* lines that the other had, unchanged, and has no more, as they
			     were written */
};

/* 0 where processes cannot be traced like that, which is said of `figures`, else 1. */
int bench_trace_can(const char *figures);

/* Note what memory is shared: after all that is to be traced was mapped. */
void bench_trace_begin(void);

/* From here on the steps of processor 0 or 1 are counted, in *sum. */
void bench_trace_on(unsigned cpu, struct bench_trace *sum);
void bench_trace_off(void);

/* The two steps of a message. */
enum { BENCH_PUT, BENCH_GET, BENCH_STEPS };

/* What `messages` messages took is what was counted: to be said by who counts for
 * bench_trace_note(), which runs that in a process of its own, and notes it for each
 * message as <name><who>.counted.put and .get (instructions), .fetched and .taken. */
void bench_trace_finish(const struct bench_trace step[BENCH_STEPS], uint64_t messages);
void bench_trace_note(const char *name, const char *who, void (*run)(void *), const void *arg);

#endif
