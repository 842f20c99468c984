/* SPDX-License-Identifier: MIT
 *
 * confirm: how far the log of a topic has come, and waiting for that.
 *
 * The tailer raises two marks per partition and bumps a word beside them,
 * on which any number of processes sleep at once: one write of the tailer's
 * confirms the messages of all of them, and wakes those whose they are.
 *
 * Edges
 *   L3 mark (release), then word -> word, then mark (acquire): who finds the
 *      mark too low and sleeps on the word it read before, with the bit of its
 *      seq, is woken by whoever raises the mark beyond that.
 */
#include "clock.h"
#include "futex.h"
#include "notify.h"
#include "pub.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>

#define LOOK_NS UINT64_C(100000000) /* whether the topic ended, or the handle closes */

static struct lay_partition *record(const struct shmq_pub *pub, uint32_t partition)
{
	return pub->h.topic->ring[partition].part;
}

static uint64_t mark(const struct lay_partition *part, enum shmq_confirm level)
{
	const shmq_au64 *at = level == SHMQ_SYNCED ? &part->log_synced : &part->log_written;

	return load_acquire((shmq_au64 *)(uintptr_t)at); /* L3 */
}

static int check(const struct shmq_pub *pub, uint32_t partition, enum shmq_confirm level)
{
	int error = pub_check(pub);

	if (error)
		return error;
	return pub->h.topic->geo.log <= SHMQ_LOG_NONE ||
			       partition >= pub->h.topic->geo.partitions || level < SHMQ_WRITTEN ||
			       level > SHMQ_SYNCED ?
		       SHMQ_EOPTION :
		       0;
}

SHMQ_EXPORT int shmq_pub_confirmed(const shmq_pub *pub, uint32_t partition, enum shmq_confirm level,
				   uint64_t *seq)
{
	int error = check(pub, partition, level);

	if (!error)
		*seq = mark(record(pub, partition), level);
	return error;
}

SHMQ_EXPORT int shmq_pub_wait_confirm(const shmq_pub *pub, uint32_t partition, uint64_t seq,
				      enum shmq_confirm level, int64_t timeout_ns)
{
	int error = check(pub, partition, level);
	struct lay_partition *part;
	enum wait_step step;
	struct waiter w;
	uint64_t look, give_up = 0;
	uint32_t word, was = 0;

	if (error)
		return error;
	part = record(pub, partition);
	shmq__waiter_start(&w, pub->wait, WAIT_SPIN_NS, timeout_ns, bus_interrupt(pub->h.bus));
	look = w.started + LOOK_NS;
	for (;;) {
		word = load_acquire(&part->log_word); /* L3 */
		if (seq_diff(mark(part, level), seq) > 0)
			return 0;
		if (timeout_ns == SHMQ_NOWAIT)
			return SHMQ_EEMPTY;
		step = shmq__waiter_step(&w);
		if (step >= WAIT_EXPIRED)
			return waiter_error(step);
		if (step == WAIT_AGAIN && w.now < look)
			continue;
		if (step == WAIT_SLEEP)
			shmq__futex_wait_bits(&part->log_word, word, lay_seq_bits(seq, seq + 1),
					      look < w.deadline ? look : w.deadline);
		error = pub_check(pub);
		if (error)
			return error;
		if (shmq__clock_left(look))
			continue;
		look = shmq__clock_deadline((int64_t)LOOK_NS);
		/* What an ended topic had is still written: as long as something is. */
		if (!shmq__topic_has_ended(pub->h.topic))
			continue;
		if (!give_up || word != was)
			give_up = shmq__clock_deadline(SHMQ__LOG_PATIENCE_NS);
		else if (shmq__clock_left(give_up) == 0)
			return SHMQ_EENDED;
		was = word;
	}
}

/* ---- a descriptor ---------------------------------------------------- */

SHMQ_EXPORT int shmq_pub_confirm_fd(shmq_pub *pub)
{
	int error = check(pub, 0, SHMQ_WRITTEN);
	const shmq_au32 **word;
	uint32_t n, i;

	if (error)
		return error;
	if (pub->confirm)
		return shmq__notify_fd(pub->confirm);
	n = pub->h.topic->geo.partitions;
	word = calloc(n, sizeof(shmq_au32 *));
	if (!word)
		return -ENOMEM;
	for (i = 0; i < n; i++)
		word[i] = &record(pub, i)->log_word;
	error = shmq__notify_open(pub->h.bus, NOTIFY_COUNT, &pub->confirm);
	if (!error)
		error = shmq__notify_words(pub->confirm, word, n);
	free(word);
	if (!error)
		return shmq__notify_fd(pub->confirm);
	shmq__pub_close_confirm(pub);
	return error;
}

void shmq__pub_close_confirm(struct shmq_pub *pub)
{
	shmq__notify_close(pub->confirm);
	pub->confirm = NULL;
}
