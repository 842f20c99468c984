/* SPDX-License-Identifier: MIT
 *
 * What the programs of the demo share: one voice for errors, clocks and
 * pacing, a latency histogram, and the report that each program leaves for
 * the conductor.
 */
#ifndef DEMO_COMMON_H
#define DEMO_COMMON_H

#include <shmq.h>

#include <signal.h>
#include <stdio.h>
#include <time.h>

#define DEMO_BUS "demo"
#define DEMO_WATCHDOG_S 40 /* no program of the demo outlives this */

#define NS_PER_US 1000LL
#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* ---- program --------------------------------------------------------- */

/* Set by SIGTERM and SIGINT: finish what is begun, report, exit. */
extern volatile sig_atomic_t demo_stopping;

/* Options common to all programs: -n NAME, by which the bus and the reports
 * know this process; the rest is the program's own. */
struct demo_options {
	const char *name;
	unsigned subscribers; /* -w: wait for so many before publishing */
	unsigned rate;        /* -r: per second */
	uint64_t seed;        /* -s */
	unsigned delay_us;    /* -d */
};

/* Parse the options over what *options holds, catch the signals, set the
 * watchdog.  Returns the index of the first operand. */
int demo_init(int argc, char **argv, struct demo_options *options);

/* "<name>: <what>: <text> (<bus error>)" on stderr, exit 1. */
_Noreturn void demo_die(const shmq_bus *bus, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

shmq_bus *demo_bus_open(enum shmq_start_mode start);

/* Open `topic`; returns when `subscribers` are attached. */
shmq_pub *demo_pub_open(shmq_bus *bus, const char *topic, unsigned subscribers);

/* Open `topic`, ending with its publishers unless it starts at the oldest. */
shmq_sub *demo_sub_open(shmq_bus *bus, const char *topic, enum shmq_from from);

/* Publish all n, in as many batches as it takes. */
void demo_publish_all(shmq_bus *bus, shmq_pub *pub, struct shmq_msg *msgs, size_t n);

/* ---- time ------------------------------------------------------------ */

int64_t demo_clock_ns(clockid_t clock);

/* A steady beat.  One that falls far behind starts afresh instead of
 * catching up in one rush. */
struct demo_pace {
	int64_t period_ns, next_ns;
};
void demo_pace_wait(struct demo_pace *pace);

/* ---- latency --------------------------------------------------------- */

/* Log-linear: 32 buckets in each power of two, so a figure is at most 3 %
 * too high, from 1 ns to 18 minutes, without a branch per decade. */
enum { HISTOGRAM_LINEAR = 32, HISTOGRAM_TOP = 40 };
enum { HISTOGRAM_BUCKETS = (HISTOGRAM_TOP - 4) * HISTOGRAM_LINEAR };

struct histogram {
	uint64_t count, max;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, int64_t value);

/* The value that `share` (0 to 1) of all values do not exceed. */
uint64_t histogram_quantile(const struct histogram *h, double share);

/* ---- counting -------------------------------------------------------- */

/* What a subscriber counted itself, to be held against the library's. */
struct demo_tally {
	uint64_t received, lost, first_seq, last_seq;
	struct histogram latency;
};

void demo_count(struct demo_tally *tally, const struct shmq_msg *msg);

/* Receive the next message whole, counting it, its latency, and what was lost
 * before it.  0, or SHMQ_EEMPTY, SHMQ_ETIMEOUT, SHMQ_EENDED; dies otherwise. */
int demo_receive(shmq_bus *bus, shmq_sub *sub, void *buf, size_t capacity, struct shmq_msg *msg,
		 struct demo_tally *tally, int64_t timeout_ns);

enum { REPORT_SOURCES = 4 };

/* One handle's account, appended to <name>.report in the runtime directory. */
struct demo_report {
	char program[32];
	char topic[64];
	enum shmq_role role;
	pid_t pid;
	uint64_t count, lost, lost_is_bound, first_seq, last_seq;
	uint64_t waits; /* publisher: blocked; subscriber: slept */
	int reattached;
	struct {
		pid_t pid;
		uint64_t count;
	} source[REPORT_SOURCES]; /* where messages name their publisher */
	struct histogram latency;
};

/* Fill and write the account; die if the library counted otherwise. */
void demo_report_pub(shmq_bus *bus, const shmq_pub *pub, const char *topic, uint64_t sent);
void demo_report_sub(shmq_bus *bus, const shmq_sub *sub, const char *topic,
		     const struct demo_tally *tally, const struct demo_report *sources);

/* Read up to n rows of `name`'s report; returns how many there are. */
size_t demo_report_read(const char *name, struct demo_report *rows, size_t n);

/* Open a file of this run, <runtime dir>/<name>.<kind>; NULL if it fails. */
FILE *demo_file(const char *name, const char *kind, const char *mode);

#endif
