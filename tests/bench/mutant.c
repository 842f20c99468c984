/* SPDX-License-Identifier: MIT
 *
 * mutant: a ring that loses, doubles or tears a message.
 *
 * A program of bench/ that is linked with this (--wrap) publishes through
 * here.  What becomes of some messages is said by bench_run(), with --mutants,
 * or by $SHMQ_MUTANT for the run numbered $SHMQ_MUTANT_RUN: lose, double or tear.
 */
#include "../../bench/common.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int __real_shmq_publish(shmq_pub *pub, const void *data, size_t len);
int __real_shmq_publish_msg(shmq_pub *pub, struct shmq_msg *msg);
ssize_t __real_shmq_publish_batch(shmq_pub *pub, struct shmq_msg *msgs, size_t n, unsigned flags);
int __real_shmq_claim(shmq_pub *pub, size_t len, void **data);
int __real_shmq_commit(shmq_pub *pub, struct shmq_msg *msg);
int __wrap_shmq_publish(shmq_pub *pub, const void *data, size_t len);
int __wrap_shmq_publish_msg(shmq_pub *pub, struct shmq_msg *msg);
ssize_t __wrap_shmq_publish_batch(shmq_pub *pub, struct shmq_msg *msgs, size_t n, unsigned flags);
int __wrap_shmq_claim(shmq_pub *pub, size_t len, void **data);
int __wrap_shmq_commit(shmq_pub *pub, struct shmq_msg *msg);

/* Of each process the first message and every thousandth after it: where
 * nobody waits for readers, most are overwritten before they are read. */
static enum bench_fate next_fate(void)
{
	static unsigned long messages;
	static pid_t self;
	enum bench_fate fate = atomic_load_explicit(&bench_shared->fate, memory_order_relaxed);
	const char *mutant = getenv("SHMQ_MUTANT"), *in = getenv("SHMQ_MUTANT_RUN");

	if (self != getpid()) {
		self = getpid();
		messages = 0;
		atomic_store(&bench_shared->published, 1);
	}
	if (messages++ % 1000)
		return BENCH_KEEP;
	if (mutant && in && (unsigned)atoi(in) == bench_shared->run)
		fate = !strcmp(mutant, "lose")   ? BENCH_LOSE :
		       !strcmp(mutant, "double") ? BENCH_DOUBLE :
						   BENCH_TEAR;
	if (fate != BENCH_KEEP)
		atomic_store(&bench_shared->mutated, 1);
	return fate;
}

static void *copy_of(const void *data, size_t len)
{
	void *copy = malloc(len + 1);

	if (!copy)
		abort();
	return memcpy(copy, data, len);
}

/* The second half is not what was written. */
static void tear(void *data, size_t len)
{
	unsigned char *at = data;
	size_t i;

	for (i = len / 2; i < len; i++)
		at[i] = (unsigned char)~at[i];
}

int __wrap_shmq_publish_msg(shmq_pub *pub, struct shmq_msg *msg)
{
	struct shmq_msg torn = *msg;
	int rc;

	switch (next_fate()) {
	case BENCH_LOSE:
		return 0;
	case BENCH_DOUBLE:
		rc = __real_shmq_publish_msg(pub, msg);
		return rc ? rc : __real_shmq_publish_msg(pub, msg);
	case BENCH_TEAR:
		torn.data = copy_of(msg->data, msg->len);
		tear((void *)(uintptr_t)torn.data, torn.len);
		rc = __real_shmq_publish_msg(pub, &torn);
		free((void *)(uintptr_t)torn.data);
		return rc;
	default:
		return __real_shmq_publish_msg(pub, msg);
	}
}

int __wrap_shmq_publish(shmq_pub *pub, const void *data, size_t len)
{
	struct shmq_msg msg = { .data = data, .len = len, .partition = SHMQ_ANY_PARTITION };

	return __wrap_shmq_publish_msg(pub, &msg);
}

ssize_t __wrap_shmq_publish_batch(shmq_pub *pub, struct shmq_msg *msgs, size_t n, unsigned flags)
{
	size_t i;

	for (i = 0; i < n; i++) {
		int rc = __wrap_shmq_publish_msg(pub, &msgs[i]);

		if (rc)
			return i ? (ssize_t)i : rc;
	}
	return (ssize_t)n;
}

static void *claimed;
static size_t claimed_len;

int __wrap_shmq_claim(shmq_pub *pub, size_t len, void **data)
{
	int rc = __real_shmq_claim(pub, len, data);

	claimed = *data;
	claimed_len = len;
	return rc;
}

int __wrap_shmq_commit(shmq_pub *pub, struct shmq_msg *msg)
{
	void *copy;
	int rc;

	switch (next_fate()) {
	case BENCH_LOSE:
		return shmq_abort(pub);
	case BENCH_DOUBLE:
		copy = copy_of(claimed, claimed_len);
		rc = __real_shmq_commit(pub, msg);
		if (!rc)
			rc = __real_shmq_publish(pub, copy, claimed_len);
		free(copy);
		return rc;
	case BENCH_TEAR:
		tear(claimed, bench_shared->used ? bench_shared->used : claimed_len);
		break;
	default:
		break;
	}
	return __real_shmq_commit(pub, msg);
}
