/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>

#define SECOND_NS ((int64_t)1000000000)

const char loss_from_log[] = "its log does not have them, by what it keeps, a crash or a full "
			     "disk; shmq log verify tells of damage";

static void tell(struct loss *loss)
{
	uint64_t lost = loss->lost - loss->told;

	out_say("%s \"%s\": lost %s%" PRIu64 " %s (hint: %s)", loss->doing, loss->topic,
		loss->is_bound ? "at most " : "", lost, units_plural(lost, "message", "messages"),
		loss->hint);
	loss->told = loss->lost;
	loss->told_ns = cli_now_ns();
}

int64_t loss_tell_when_due(struct loss *loss)
{
	int64_t left = loss->told_ns + SECOND_NS - cli_now_ns();

	if (loss->lost == loss->told)
		return SHMQ_FOREVER;
	if (loss->told && left > 0)
		return left;
	tell(loss);
	return SHMQ_FOREVER;
}

void loss_add(struct loss *loss, const struct shmq_msg *msg)
{
	loss->lost += msg->lost;
	loss->is_bound |= msg->lost_is_bound != 0;
	loss_tell_when_due(loss);
}

void loss_tell_rest(struct loss *loss)
{
	if (loss->lost != loss->told)
		tell(loss);
}
