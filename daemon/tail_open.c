/* SPDX-License-Identifier: MIT */
#include "tail_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmq.h"

#define DEFAULT_SEGMENT_BYTES (UINT64_C(1) << 30)

static void destroy(struct tail_writer *w, uint64_t off)
{
	struct tail_segment *s;
	struct run *run;

	while ((run = TAILQ_FIRST(&w->runs)))
		tail_run_drop(w, run);
	while ((s = TAILQ_FIRST(&w->segments))) {
		TAILQ_REMOVE(&w->segments, s, link);
		tail_segment_close(s, s == w->segment ? off : TAIL_UNCUT);
	}
	tail_ceiling_close(w->ceiling);
	shmq__log_summer_destroy(w->summer);
	if (w->layout.dir >= 0)
		close(w->layout.dir);
	free(w->all);
	free(w);
}

static int resume_segment(struct tail_writer *w, const struct tail_resume *resume)
{
	struct tail_segment *s;
	int error = tail_segment_resume(&w->layout, resume->first_seq, resume->seed, resume->off,
					w->rest, &s);

	if (error)
		return error;
	w->off = resume->off;
	w->rest_bytes = resume->off % LOG_BLOCK;
	s->synced_seq = resume->next_seq;
	tail_sync_adopt(w, s);
	return 0;
}

static int prepare(struct tail_writer *w, const struct tail_resume *resume)
{
	struct log_owner owner = { .partition = w->layout.partition };
	unsigned count = tail_io_buffer_count(w->io) + 1, i; /* one asks for more than there are */
	int error;

	w->layout.dir = fcntl(w->layout.dir, F_DUPFD_CLOEXEC, 0);
	if (w->layout.dir < 0)
		return -errno;
	if (w->layout.segment_bytes % LOG_BLOCK ||
	    !memchr(w->layout.topic, 0, sizeof(w->layout.topic)))
		return -EINVAL;
	w->all = calloc(count, sizeof(*w->all));
	w->summer = shmq__log_summer_create();
	if (!w->all || !w->summer)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		TAILQ_INSERT_TAIL(&w->spare, &w->all[i], link);
	memcpy(owner.log_id, w->layout.log_id, sizeof(owner.log_id));
	error = tail_ceiling_open(w->io, w->layout.dir, &owner, resume->ceiling_serial,
				  &w->ceiling);
	if (error || !resume->off)
		return error;
	return resume_segment(w, resume);
}

int tail_writer_open(struct tail_io *io, const struct tail_layout *layout,
		     const struct tail_resume *resume, struct tail_writer **out)
{
	struct tail_writer *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return -ENOMEM;
	w->io = io;
	w->buffer_bytes = tail_io_buffer_bytes(io);
	w->layout = *layout;
	if (!w->layout.segment_bytes)
		w->layout.segment_bytes = DEFAULT_SEGMENT_BYTES;
	TAILQ_INIT(&w->segments);
	TAILQ_INIT(&w->runs);
	TAILQ_INIT(&w->spare);
	w->next_seq = w->ended_seq = w->written = w->synced = resume->next_seq;
	w->flush_seq = w->sync_seq = w->sync_last = resume->next_seq;
	w->max_ts = resume->max_ts;
	error = prepare(w, resume);
	if (error) {
		destroy(w, TAIL_UNCUT);
		return error;
	}
	*out = w;
	return 0;
}

/* Whether anything of it is under way in the tail_io. */
static int is_busy(const struct tail_writer *w)
{
	const struct tail_segment *s;
	const struct run *run;

	TAILQ_FOREACH (run, &w->runs, link)
		if (run->state == RUN_SENT)
			return 1;
	TAILQ_FOREACH (s, &w->segments, link)
		if (s->is_zeroing)
			return 1;
	return w->syncing || w->is_naming || !tail_ceiling_is_idle(w->ceiling);
}

static void wait_until_idle(struct tail_writer *w)
{
	while (is_busy(w))
		tail_io_reap(w->io, SHMQ_FOREVER);
}

int tail_writer_close(struct tail_writer *w, enum tail_close how)
{
	int error;

	wait_until_idle(w);
	if (w->big.held)
		tail_writer_rewind(w);
	/* A header too, even if nothing follows it. */
	if (w->run)
		tail_run_end(w);
	w->is_held = 0;
	tail_writer_flush(w, TAIL_SYNC);
	wait_until_idle(w);
	error = w->error ? w->error : w->sync_error;
	if (!error && how == TAIL_CLOSE_CLEAN) {
		tail_ceiling_set(w->ceiling, w->next_seq, TAIL_CEILING_CLEAN);
		wait_until_idle(w);
		error = tail_ceiling_error(w->ceiling);
	}
	destroy(w, error ? TAIL_UNCUT : w->off);
	return error;
}
