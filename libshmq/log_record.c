/* SPDX-License-Identifier: MIT */
#include "log_record.h"

#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "shmq.h"

/* The checksum begins behind its own field. */
#define SUMMED_AT offsetof(struct log_record, body_bytes)
#define SUMMED_BYTES (sizeof(struct log_record) - SUMMED_AT)

uint32_t shmq__log_sum(uint64_t seed, const void *data, size_t bytes)
{
	if (bytes >= LOG_SUM_WIDE_BYTES && log_sum_has_wide())
		return (uint32_t)shmq__log_sum_wide(seed, data, bytes);
	return (uint32_t)XXH3_64bits_withSeed(data, bytes, seed);
}

struct log_key shmq__log_key(uint64_t seed)
{
	struct log_key key = { .seed = seed };

	_Static_assert(sizeof(key.secret) == XXH3_SECRET_DEFAULT_SIZE, "as XXH3 has it");
	XXH3_generateSecret_fromSeed(key.secret, seed);
	return key;
}

uint32_t shmq__log_sum_by(const struct log_key *key, const void *data, size_t bytes)
{
	if (bytes >= LOG_SUM_WIDE_BYTES && log_sum_has_wide())
		return (uint32_t)shmq__log_sum_wide_by(key, data, bytes);
	return (uint32_t)XXH3_64bits_withSecretandSeed(data, bytes, key->secret,
						       sizeof(key->secret), key->seed);
}

uint32_t shmq__log_record_sum_whole(const struct log_key *key, const void *record)
{
	const struct log_record *head = record;

	return shmq__log_sum_by(key, (const char *)record + SUMMED_AT,
				SUMMED_BYTES + head->body_bytes);
}

uint32_t shmq__log_record_sum(uint64_t seed, const struct log_record *head,
			      const struct iovec *piece, int count)
{
	XXH3_state_t state;
	int i;

	XXH3_INITSTATE(&state);
	XXH3_64bits_reset_withSeed(&state, seed);
	XXH3_64bits_update(&state, (const char *)head + SUMMED_AT, SUMMED_BYTES);
	for (i = 0; i < count; i++)
		XXH3_64bits_update(&state, piece[i].iov_base, piece[i].iov_len);
	return (uint32_t)XXH3_64bits_digest(&state);
}

/* Its memory is the state, which wants an alignment of its own. */
struct log_summer *shmq__log_summer_create(void)
{
	return (struct log_summer *)XXH3_createState();
}

void shmq__log_summer_destroy(struct log_summer *summer)
{
	XXH3_freeState((XXH3_state_t *)summer);
}

void shmq__log_summer_begin(struct log_summer *summer, uint64_t seed, const struct log_record *head)
{
	XXH3_64bits_reset_withSeed((XXH3_state_t *)summer, seed);
	shmq__log_summer_add(summer, (const char *)head + SUMMED_AT, SUMMED_BYTES);
}

void shmq__log_summer_add(struct log_summer *summer, const void *data, size_t bytes)
{
	XXH3_64bits_update((XXH3_state_t *)summer, data, bytes);
}

uint32_t shmq__log_summer_sum(const struct log_summer *summer)
{
	return (uint32_t)XXH3_64bits_digest((const XXH3_state_t *)summer);
}

static int is_nothing(const struct log_record *r)
{
	static const struct log_record nothing;

	return !memcmp(r, &nothing, sizeof(*r));
}

/* What no tailer writes, whatever the checksum says. */
static int is_sane(const struct log_record *r)
{
	if (r->pad[0] | r->pad[1] | r->pad[2])
		return 0;
	if (r->kind == LOG_MESSAGE)
		return r->body_bytes <= LOG_BODY_MAX &&
		       !(r->flags & ~(SHMQ_MSG_BATCH | SHMQ_MSG_META));
	if (r->kind == LOG_HOLE || r->kind == LOG_GAP)
		return !r->body_bytes && r->tag && r->tag <= INT64_MAX;
	return r->kind == LOG_END && !r->body_bytes;
}

int64_t shmq__log_record_check(const char *mem, uint64_t bytes, const struct log_key *key,
			       uint64_t seq, struct log_record *head, uint64_t *need)
{
	*need = sizeof(*head);
	if (bytes < sizeof(*head))
		return -EAGAIN;
	memcpy(head, mem, sizeof(*head));
	if (is_nothing(head))
		return 0;
	if (!is_sane(head) || head->seq != seq)
		return SHMQ_ECORRUPT;
	*need = log_record_bytes(head->body_bytes);
	if (bytes < *need)
		return -EAGAIN;
	if (!log_record_is_good(key, mem, head))
		return SHMQ_ECORRUPT;
	return (int64_t)*need;
}
