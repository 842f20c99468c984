/* SPDX-License-Identifier: MIT
 *
 * sub_store: how far a subscriber has come, kept beside the log under a name,
 * so that whoever takes over goes on there.
 *
 * What is stored is what was handed out and given back.  A loss that was found
 * and not told yet keeps its partition's cursor before it.
 */
#include "log_cursor.h"
#include "log_identity.h"
#include "sub_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

struct stored {
	struct log_cursor_file file;
	struct {
		struct log_cursor last, next; /* synced; and written, to be it */
		int is_new;                   /* `next` is to be synced */
	} lane[];
};

static int read_lanes(struct shmq_sub *sub, struct shmq__why *why)
{
	struct stored *st = sub->stored;
	uint32_t i;
	int error;

	for (i = 0; i < sub->lanes; i++) {
		error = shmq__log_cursor_get(&st->file, sub->lane[i].partition, &st->lane[i].last,
					     why);
		if (error == SHMQ_EEMPTY)
			st->lane[i].last =
				(struct log_cursor){ .partition = sub->lane[i].partition };
		else if (error)
			return error;
	}
	return 0;
}

int shmq__sub_store_open(struct shmq_sub *sub, const char *name, struct shmq__why *why)
{
	struct stored *st = calloc(1, sizeof(*st) + sub->lanes * sizeof(st->lane[0]));
	struct log_identity id;
	int log, error;

	if (!st)
		return -ENOMEM;
	st->file.fd = -1;
	sub->stored = st;
	log = shmq__sub_open_log(sub, why);
	if (log < 0)
		return log;
	error = shmq__log_identify(log, &id, why);
	if (!error)
		error = shmq__log_cursor_hold(log, name, id.log_id, sub->lane[0].partition,
					      sub->lanes, &st->file, why);
	close(log);
	return error ? error : read_lanes(sub, why);
}

void shmq__sub_store_close(struct shmq_sub *sub)
{
	if (!sub->stored)
		return;
	/* In a child it is still the parent's. */
	if (sub_check(sub) && sub->stored->file.fd >= 0)
		close(sub->stored->file.fd);
	else
		shmq__log_cursor_close(&sub->stored->file);
	free(sub->stored);
	sub->stored = NULL;
}

int shmq__sub_store_start(const struct shmq_sub *sub, const struct rlane *l, uint64_t *seq,
			  struct shmq__why *why)
{
	const struct log_cursor *last = &sub->stored->lane[l - sub->lane].last;
	uint64_t head = shmq__topic_head(l->ring);

	if (!last->serial)
		return 0;
	if (seq_diff(last->seq, head) > 0)
		return shmq__fail(why, -ESTALE,
				  "the cursor \"%.80s\" stands at seq %" PRIu64
				  " of partition %u, which has come to %" PRIu64
				  " only: set it anew (shmq cursor)",
				  sub->stored->file.name, last->seq, l->partition, head);
	*seq = last->seq;
	return 0;
}

/* ---- storing --------------------------------------------------------- */

static int has_untold_loss(const struct shmq_sub *sub, const struct rlane *l)
{
	return sub->held_error && sub->held_msg.partition == (int32_t)l->partition;
}

static int put_lane(struct shmq_sub *sub, uint32_t i)
{
	const struct rlane *l = &sub->lane[i];
	struct stored *st = sub->stored;
	int error;

	st->lane[i].is_new = 0;
	if ((st->lane[i].last.serial && st->lane[i].last.seq == l->r.next) ||
	    has_untold_loss(sub, l))
		return 0;
	error = shmq__log_cursor_put(&st->file, &st->lane[i].last, l->r.next, &st->lane[i].next);
	st->lane[i].is_new = !error;
	return error;
}

/* Those that were written are stored together, once they are on the disk. */
static int sync_lanes(struct shmq_sub *sub)
{
	struct stored *st = sub->stored;
	int count = 0, error;
	uint32_t i;

	for (i = 0; i < sub->lanes; i++)
		count += st->lane[i].is_new;
	error = count ? shmq__log_cursor_sync(&st->file) : 0;
	for (i = 0; i < sub->lanes && !error; i++)
		if (st->lane[i].is_new)
			st->lane[i].last = st->lane[i].next;
	return error;
}

static int store(struct shmq_sub *sub)
{
	int error = 0;
	uint32_t i;

	for (i = 0; i < sub->lanes && !error; i++)
		error = put_lane(sub, i);
	return error ? error : sync_lanes(sub);
}

int shmq__sub_store_begin(struct shmq_sub *sub, struct shmq__why *why)
{
	uint32_t i;
	int error;

	for (i = 0; i < sub->lanes; i++)
		sub->stored->lane[i].is_new = 0;
	for (i = 0, error = 0; i < sub->lanes && !error; i++)
		if (!sub->stored->lane[i].last.serial)
			error = put_lane(sub, i);
	if (!error)
		error = sync_lanes(sub);
	return error ? shmq__fail(why, error, "storing the cursor \"%.100s\": %s",
				  sub->stored->file.name, shmq_strerror(error)) :
		       0;
}

SHMQ_EXPORT int shmq_sub_store_cursor(shmq_sub *sub)
{
	int error = sub_check(sub);

	if (error)
		return error;
	return sub->stored ? store(sub) : SHMQ_EOPTION;
}
