/* SPDX-License-Identifier: MIT
 *
 * fake: a bus without a supervisor, in the memory of one process.
 *
 * The records that shmqd would write are written here by hand: registry,
 * slabs, one topic, its roster.  Threads then play publishers, subscribers
 * and the supervisor at the level of rings and credit.  The first sequence
 * is the test's choice, so that counters can start just below their wrap.
 */
#ifndef FAKE_H
#define FAKE_H

#include "credit.h"
#include "ring.h"
#include "topic.h"

#include <pthread.h>

/* Sequences at which something wraps, for depth FAKE_DEPTH: the signed half,
 * the lap's 47 bits, the sequence itself. */
#define FAKE_DEPTH 1024u
#define FAKE_LAP_WRAP (UINT64_C(1) << (LAY_LAP_BITS + 10))
#define FAKE_BASES \
	{ \
		0, 1, 1000, (UINT64_C(1) << 32) - 3, FAKE_LAP_WRAP - 1500, FAKE_LAP_WRAP - 1, \
			(UINT64_C(1) << 63) - 700, UINT64_C(0) - 1030, UINT64_C(0) - 1 \
	}

enum { FAKE_REGISTRY, FAKE_BELLS, FAKE_ENTRIES, FAKE_RINGS, FAKE_ARENAS, FAKE_SLABS };

/* Zeros mean: depth FAKE_DEPTH, 64-byte slots, one partition, exclusive,
 * block. */
struct fake_options {
	uint64_t depth, base_seq, max_bytes, arena_bytes;
	uint32_t slot_bytes, partitions, flags;
	enum shmq_mode mode;
	enum shmq_policy policy;
	enum shmq_log log; /* whose marks nobody moves but the test */
};

struct fake {
	struct shmq__slabs *slabs; /* everything writable */
	struct lay_registry *registry;
	struct lay_topic *rec;
	struct lay_partition *partition;
	struct shmq__topic *topic;
	struct lay_geometry geo;
	uint64_t base_seq;
	unsigned clients, members, arenas; /* so far */
	uint64_t entries, heap, gen, tokens, arena_bytes;
	lay_ref last_chunk;
};

/* The shape of such a topic, without any memory. */
struct lay_geometry fake_geometry(const struct fake_options *options);

/* A ring of that shape alone, between pages that nobody may touch. */
struct lay_ring *fake_ring(const struct lay_geometry *geo, uint64_t base_seq);
void fake_ring_free(struct lay_ring *ring, const struct lay_geometry *geo);

struct fake *fake_new(const struct fake_options *options);
void fake_free(struct fake *f);

/* The same bus once more, as a client that may write nothing has it. */
struct shmq__topic *fake_attach_readonly(struct fake *f, struct shmq__slabs **slabs);
void fake_detach_readonly(struct shmq__topic *topic, struct shmq__slabs *slabs);

/* A client that is process pid; its record. */
unsigned fake_client(struct fake *f, pid_t pid);
struct lay_client *fake_client_record(struct fake *f, unsigned client);

/* A member with entries at base_seq, not yet published; partition -1: all.
 * Never the place of one that left. */
struct lay_member *fake_member(struct fake *f, unsigned client, int partition);
struct lay_entry *fake_entry(struct fake *f, struct lay_member *m, uint32_t partition);

/* The same, published; a subscriber has joined. */
struct lay_member *fake_publisher(struct fake *f, unsigned client);
struct lay_member *fake_subscriber(struct fake *f, unsigned client, enum shmq_from from,
				   uint64_t seq);

/* An arena of its own for a publisher, of whole pages; its id. */
uint32_t fake_arena(struct fake *f, const struct lay_member *publisher, uint64_t bytes);

/* A writer that continues where the ring stands, without credit; a reader. */
struct ring_writer fake_writer(struct fake *f, struct lay_member *m, uint32_t partition);
struct ring_reader fake_reader(struct fake *f, uint32_t partition, uint64_t at);

/* A message of one number: write and commit it; its number. */
void fake_put(struct ring_writer *w, uint64_t seq, uint64_t value);
uint64_t fake_get(const struct ring_reader *r);

/* Exclusive: publish one, within the limit. */
void fake_publish(struct ring_writer *w, uint64_t value);

/* The control word of seq. */
shmq_au64 *fake_ctrl(struct lay_ring *ring, const struct lay_geometry *geo, uint64_t seq);

pthread_t fake_thread(void *(*fn)(void *), void *arg);
void fake_join(pthread_t thread);
uint64_t fake_random(uint64_t *state);

/* Waste about `turns` turns of a waiting loop; likewise another thread, wherever
 * it is (it must not be in a system call that a signal ends). */
void fake_dawdle(uint64_t turns);
/* In a loop that waits for another thread: spins, and gives way at times. */
void fake_wait(unsigned *turns);
void fake_hold_up(pthread_t thread, unsigned turns);

/* Run from here, one instruction at a time, and call fn(arg) after the k-th:
 * what another thread might do while this one is held up there.  fn may leave
 * by siglongjmp(): then this one died there.  Ends at fake_step_end(), which
 * returns whether there were as many instructions.  Skips where it cannot be
 * done. */
void fake_step_begin(unsigned k, void (*fn)(void *), void *arg);
int fake_step_end(void);

/* for (k = fake_first_point(steps); k; k = fake_next_point(k)): the first round
 * counts the instructions and gets nowhere; then every point comes up, or
 * every so-many-th so that about `steps` instructions are run in all (a
 * hundred thousand take about a second). */
unsigned fake_first_point(unsigned steps);
unsigned fake_next_point(unsigned k);

#endif
