/* SPDX-License-Identifier: MIT
 *
 * sub_fd: the descriptor of a subscriber: what it becomes readable for, and how a
 * receive that finds nothing arms it (notify.h).
 */
#include "notify.h"
#include "sub_priv.h"

#include <errno.h>
#include <stdlib.h>

/* Without membarrier, and where nobody may sleep, a look each millisecond. */
#define LOOK_NS INT64_C(1000000)

int shmq__sub_give_words(struct shmq__notify *to, struct shmq_sub *const *sub, unsigned n)
{
	const shmq_au32 *also = NULL, **word;
	struct lay_bell **bell;
	unsigned i, count = 0;
	int error = -ENOMEM;

	for (i = 0; i < n; i++)
		count += shmq__sub_bells(sub[i]);
	bell = calloc(count + 1, sizeof(*bell));
	word = calloc(count + 1, sizeof(shmq_au32 *));
	if (!bell || !word)
		goto out;
	for (i = count = 0; i < n; i++) {
		shmq__sub_list_bells(sub[i], bell + count);
		count += shmq__sub_bells(sub[i]);
		if (!also)
			also = shmq__sub_word(sub[i]);
	}
	for (i = 0; i < count; i++)
		word[i] = &bell[i]->word;
	if (also)
		word[count++] = also;
	error = shmq__notify_words(to, word, count);
out:
	free(bell);
	free(word);
	return error;
}

int shmq__sub_is_spin_only(const struct shmq_sub *sub)
{
	return !sub->pattern && (sub->h.topic->geo.flags & SHMQ_TOPIC_SPIN_ONLY);
}

int64_t shmq__sub_patience(struct shmq_sub *sub)
{
	int64_t ns = shmq__sub_report_stuck(sub);
	int looks = sub->fence == SHMQ__FENCE_FULL || (sub->pattern && sub->wait == SHMQ_WAIT_SPIN);

	if (ns == SHMQ_FOREVER)
		ns = SHMQ__BELL_BACKSTOP_NS;
	return looks && ns > LOOK_NS ? LOOK_NS : ns;
}

static int give_words(struct shmq_sub *sub)
{
	if (sub->pattern)
		sub->notify_changes = shmq__pattern_changes(sub);
	return shmq__sub_give_words(sub->notify, &sub, 1);
}

SHMQ_EXPORT int shmq_sub_fd(shmq_sub *sub)
{
	int error = sub_check(sub);

	if (error)
		return error;
	if (sub->notify)
		return shmq__notify_fd(sub->notify);
	if (shmq__sub_is_spin_only(sub))
		return SHMQ_EOPTION;
	error = shmq__notify_open(sub->h.bus, NOTIFY_LEVEL, &sub->notify);
	if (!error)
		error = give_words(sub);
	if (!error)
		return shmq__notify_fd(sub->notify);
	shmq__notify_close(sub->notify);
	sub->notify = NULL;
	return error;
}

/* Those that a pattern has by now, and a park to arm them by. */
static int prepare(struct shmq_sub *sub)
{
	int error = 0;

	if (!sub->pattern)
		return 0;
	if (sub->notify_changes != shmq__pattern_changes(sub))
		error = give_words(sub);
	return error ? error : shmq__pattern_prepare_park(sub);
}

int shmq__sub_rearm(struct shmq_sub *sub, struct shmq_msg *msg)
{
	int rc;

	if (!shmq__notify_is_raised(sub->notify))
		return SHMQ_EEMPTY;
	shmq__notify_lower(sub->notify); /* D1 */
	rc = prepare(sub);
	if (!rc) {
		sub->gave_up = 0;
		shmq__park_arm(sub->park);          /* D2 */
		rc = shmq__sub_look_once(sub, msg); /* D3 */
	}
	if (rc == SHMQ_EEMPTY && !sub->gave_up)
		shmq__notify_until(sub->notify, shmq__sub_patience(sub));
	else
		shmq__notify_raise(sub->notify);
	return rc;
}
