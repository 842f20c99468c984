/* SPDX-License-Identifier: MIT
 *
 * durable: what the benchmarks of topics with a log share: a directory on a
 * disk, a supervisor that keeps its logs there, and what the disk itself can
 * do with the same bytes.
 *
 * The directory is made below $SHMQ_BENCH_DISK, or /var/tmp.  A keeper,
 * forked before anything is written, removes it when the program and all it
 * forked have ended, however they did.
 */
#ifndef BENCH_DURABLE_H
#define BENCH_DURABLE_H

#include "common.h"
#include "histogram.h"

#include <limits.h>

/* Publishers have the one processor, and all others the other. */
#define DURABLE_PUBLISHER 0
#define DURABLE_OTHERS 1

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* After bench_init(), with or without a bus: make the directory.  Where `bytes`
 * do not fit the program ends, with success, and says about `figures` why they
 * are missing. */
void durable_init(const char *figures, uint64_t bytes);
const char *durable_dir(void);

/* As many bytes, or few where they only have to arrive. */
uint64_t durable_amount(uint64_t bytes);

/* ---- the bus ------------------------------------------------------------- */

/* A supervisor on the processor of the others, and its end.  durable_kill() is
 * SIGKILL to all of it, which leaves logs as they are. */
void durable_start(void);
void durable_stop(void);
void durable_kill(void);

/* A topic for messages of so many bytes, with a ring of about ring_bytes of
 * them; the options' other members are taken as they are. */
void durable_create(shmq_bus *bus, const char *topic, size_t bytes, uint64_t ring_bytes,
		    struct shmq_topic_options *options);

/* A publisher, whose messages that are larger than a slot take so many bytes. */
shmq_pub *durable_open_pub(shmq_bus *bus, const char *topic, uint64_t ring_bytes);

/* The messages `from` to `to`, at full speed. */
void durable_publish(shmq_pub *pub, size_t bytes, uint64_t from, uint64_t to);

/* The same, so many a second: how long after it was due each is published, in
 * ticks, but for the first tenth. */
void durable_publish_paced(shmq_pub *pub, size_t bytes, uint64_t from, uint64_t to,
			   double per_second, struct histogram *seen);

#define DURABLE_WINDOWS 10u

/* Of `n` windows, at most so many, of a tenth of a second, which take turns with those of
 * other kinds (every `step`th is ours), the median of what a share q is no longer than, in ns;
 * NAN where none has enough.  What the host takes at once for longer is in few of them. */
double durable_windows(const struct histogram *first, unsigned n, unsigned step, double q);

/* The next seq; and wait until all before is confirmed, looking whether what
 * the library says of that is so. */
uint64_t durable_head(shmq_bus *bus, const char *topic);
void durable_await(shmq_pub *pub, uint64_t seq, enum shmq_confirm level);

/* In a process of its own: fill a topic with the messages 0 to n; read the
 * messages `from` to `to` of a log that has nothing else, and verify each. */
void durable_fill(const char *topic, size_t bytes, uint64_t n);
void durable_check(const char *topic, size_t bytes, uint64_t from, uint64_t to);

/* The same in this process, from a subscriber that stands at `from`. */
void durable_receive(shmq_sub *sub, size_t bytes, uint64_t from, uint64_t to);
shmq_sub *durable_open_at(shmq_bus *bus, const char *topic, uint64_t seq);

/* ---- the disk ------------------------------------------------------------ */

/* Bytes a second of sequential O_DIRECT writes to a file that is new, as large and
 * as many at once as have been the fastest when it was first asked. */
double durable_write_limit(uint64_t bytes);

/* Have nothing of the directory's files in memory. */
void durable_drop_caches(void);

int durable_is_cold(void);

/* Read a topic's segments in large pieces, in order, until there were `enough` bytes, or
 * all of the last one: bytes.  What is allocated ahead of the records is read like them. */
uint64_t durable_read(const char *topic, uint64_t enough);
uint64_t durable_read_last(const char *topic);

/* Read all of a topic's messages so, of one size in records of one size, and verify
 * them, and with `sums` their checksums, of 1 KiB: *next is the one to come.  0: this
 * processor has no vectors to make those with, as the library does. */
int durable_read_records(const char *topic, size_t record_bytes, size_t bytes, int sums,
			 uint64_t *next);

/* Where the last segment is. */
void durable_last_segment(const char *topic, char path[PATH_MAX]);

#endif
