/* SPDX-License-Identifier: MIT
 *
 * mutant: a ring that loses, doubles or tears a message.
 *
 * A program of bench/ that is linked with this (--wrap) publishes through
 * here.  $SHMQ_MUTANT says what becomes of some messages: lose, double or
 * tear.
 */
#include "shmq.h"

#include <stdlib.h>
#include <string.h>

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

enum fate { KEEP, LOSE, DOUBLE, TEAR };

/* Of each process the first message and every thousandth after it: where
 * nobody waits for readers, most are overwritten before they are read. */
static enum fate next_fate(void)
{
	static unsigned long messages;
	const char *mutant;

	if (messages++ % 1000)
		return KEEP;
	mutant = getenv("SHMQ_MUTANT");
	if (!mutant)
		return KEEP;
	return !strcmp(mutant, "lose") ? LOSE : !strcmp(mutant, "double") ? DOUBLE : TEAR;
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
	case LOSE:
		return 0;
	case DOUBLE:
		rc = __real_shmq_publish_msg(pub, msg);
		return rc ? rc : __real_shmq_publish_msg(pub, msg);
	case TEAR:
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
	case LOSE:
		return shmq_abort(pub);
	case DOUBLE:
		copy = copy_of(claimed, claimed_len);
		rc = __real_shmq_commit(pub, msg);
		if (!rc)
			rc = __real_shmq_publish(pub, copy, claimed_len);
		free(copy);
		return rc;
	case TEAR:
		tear(claimed, claimed_len);
		break;
	default:
		break;
	}
	return __real_shmq_commit(pub, msg);
}
