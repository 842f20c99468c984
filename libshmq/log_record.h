/* SPDX-License-Identifier: MIT
 *
 * log_record: the records of a log, written into and read from memory.
 * No files here, no state: any thread.
 */
#ifndef SHMQ_LOG_RECORD_H
#define SHMQ_LOG_RECORD_H

#include <stddef.h>
#include <sys/uio.h>

#include "log_format.h"
#include "log_sum.h"

/* The checksum of a record whose head is *head (its own checksum is not
 * looked at) and whose body is the pieces, head->body_bytes in all. */
uint32_t shmq__log_record_sum(uint64_t seed, const struct log_record *head,
			      const struct iovec *piece, int count);

/* The same where head and body stand behind each other at `record`, with the key
 * of the seed. */
uint32_t shmq__log_record_sum_whole(const struct log_key *key, const void *record);
struct log_key shmq__log_key(uint64_t seed);

/* The same where the body becomes known by and by: begin with the head, add
 * the body in order.  NULL if there is no memory. */
struct log_summer;
struct log_summer *shmq__log_summer_create(void);
void shmq__log_summer_destroy(struct log_summer *summer);
void shmq__log_summer_begin(struct log_summer *summer, uint64_t seed,
			    const struct log_record *head);
void shmq__log_summer_add(struct log_summer *summer, const void *data, size_t bytes);
uint32_t shmq__log_summer_sum(const struct log_summer *summer);

/* With the key of the seed. */
uint32_t shmq__log_sum_by(const struct log_key *key, const void *data, size_t bytes);

/* Of what has a checksum field in it or behind it: low half of XXH3. */
uint32_t shmq__log_sum(uint64_t seed, const void *data, size_t bytes);

/* What stands at mem[0, bytes), of which nothing is trusted, and which may be
 * written meanwhile.
 *   > 0        a whole record of so many bytes, padding included; *head is its head
 *   0          nothing: zeros, here the log ends so far
 *   -EAGAIN    a head that may be one, of *need bytes in all: more than `bytes`
 *   SHMQ_ECORRUPT  no record, or a damaged one
 * A record is whole only if it begins with `seq`. */
int64_t shmq__log_record_check(const char *mem, uint64_t bytes, const struct log_key *key,
			       uint64_t seq, struct log_record *head, uint64_t *need);

/* Is the checksum of a record at `mem` right whose head is *head, as it was read? */
static inline int log_record_is_good(const struct log_key *key, const char *mem,
				     const struct log_record *head)
{
	size_t off = offsetof(struct log_record, body_bytes);

	return shmq__log_sum_by(key, mem + off, sizeof(*head) - off + head->body_bytes) ==
	       head->checksum;
}

/* A message without parts before it. */
static inline int log_record_is_plain(const struct log_record *r)
{
	return !((r->kind ^ LOG_MESSAGE) | r->flags | r->pad[0] | r->pad[1] | r->pad[2]) &&
	       r->body_bytes <= LOG_BODY_MAX;
}

/* The seqs a record covers: 1, `tag`, or 0 (END). */
static inline uint64_t log_record_count(const struct log_record *r)
{
	return r->kind == LOG_MESSAGE ? 1 : r->kind == LOG_END ? 0 : r->tag;
}

#endif
