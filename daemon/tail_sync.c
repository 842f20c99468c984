/* SPDX-License-Identifier: MIT */
#include "tail_priv.h"

#include <errno.h>

/* The part of what is before `seq` that is in s, or before it. */
static uint64_t limit(const struct tail_segment *s, uint64_t seq)
{
	return s->is_ended && seq_diff(s->end_seq, seq) < 0 ? s->end_seq : seq;
}

void tail_sync_begin(struct tail_writer *w, struct tail_segment *s, uint64_t seq, uint64_t run,
		     unsigned unwritten)
{
	s->is_syncing = 1;
	s->is_sealing = s->is_ended && !unwritten;
	s->syncing_seq = limit(s, seq);
	s->syncing_run = run;
	w->syncing++;
}

void tail_sync_end(struct tail_writer *w, struct tail_segment *s, int error)
{
	s->is_syncing = 0;
	w->syncing--;
	/* The write that was to be synced failed: both are done again. */
	if (error == -ECANCELED)
		return;
	if (error) {
		w->sync_error = error;
		return;
	}
	s->synced_seq = s->syncing_seq;
	s->synced_run = s->syncing_run;
	s->is_sealed = s->is_sealing;
}

static void on_synced(struct tail_op *op, int error)
{
	struct tail_segment *s = (struct tail_segment *)op;

	tail_sync_end(s->w, s, error);
	tail_run_settle(s->w);
}

/* One sync of a segment at a time: those who want one meanwhile share the
 * next. */
static void sync_segments(struct tail_writer *w)
{
	struct tail_segment *s;

	TAILQ_FOREACH (s, &w->segments, link) {
		uint64_t want = limit(s, w->sync_seq), have = limit(s, w->written);

		if (s->is_syncing || w->sync_error)
			continue;
		if ((seq_diff(s->synced_seq, want) >= 0 || seq_diff(have, want) < 0) &&
		    (s->is_sealed || !s->is_ended || s->run_count))
			continue;
		tail_sync_begin(w, s, have, w->written_run, s->run_count);
		tail_io_datasync(w->io, &s->sync, s->fd);
	}
}

static void on_named(struct tail_op *op, int error)
{
	struct tail_writer *w = (struct tail_writer *)op;
	struct tail_segment *s;

	w->is_naming = 0;
	if (error)
		w->sync_error = error;
	TAILQ_FOREACH (s, &w->segments, link) {
		s->is_named |= s->is_naming && !error;
		s->is_naming = 0;
	}
	tail_run_settle(w);
}

/* A file whose name is not on the disk is not there. */
static void name_segments(struct tail_writer *w)
{
	struct tail_segment *s;

	if (w->is_naming || w->sync_error)
		return;
	TAILQ_FOREACH (s, &w->segments, link) {
		s->is_naming = !s->is_named;
		w->is_naming |= s->is_naming;
	}
	w->naming.done = on_named;
	if (w->is_naming)
		tail_io_sync(w->io, &w->naming, w->layout.dir);
}

static void close_segment(struct tail_writer *w, struct tail_segment *s)
{
	uint64_t first_seq = s->first_seq, bytes = s->end_off;
	int is_sealed = s->is_sealed;

	TAILQ_REMOVE(&w->segments, s, link);
	tail_segment_close(s, bytes);
	if (is_sealed && w->layout.rolled)
		w->layout.rolled(w->layout.arg, first_seq, bytes);
}

/* In the order of the log. */
void tail_sync_raise(struct tail_writer *w)
{
	struct tail_segment *s, *next;

	while ((s = TAILQ_FIRST(&w->segments)) && s->is_named && !w->sync_error) {
		if (seq_diff(s->synced_seq, w->synced) > 0)
			w->synced = s->synced_seq;
		if (!s->is_sealed || s->is_zeroing)
			break;
		close_segment(w, s);
	}
	/* Nothing will be synced any more, and no file waits for it. */
	for (s = TAILQ_FIRST(&w->segments); s && w->sync_error; s = next) {
		next = TAILQ_NEXT(s, link);
		if (s->is_ended && !s->run_count && !s->is_syncing && !s->is_zeroing)
			close_segment(w, s);
	}
	/* What was wanted later waits for as much as was wanted then: what is
	 * wanted all the time would move away from what is written. */
	if (seq_diff(w->synced, w->sync_seq) >= 0)
		w->sync_seq = w->sync_last;
}

void tail_sync_want(struct tail_writer *w, uint64_t seq)
{
	if (seq_diff(seq, w->sync_last) <= 0)
		return;
	if (seq_diff(w->sync_seq, w->synced) <= 0)
		w->sync_seq = seq;
	w->sync_last = seq;
}

void tail_sync_start(struct tail_writer *w)
{
	sync_segments(w);
	name_segments(w);
}

void tail_sync_adopt(struct tail_writer *w, struct tail_segment *s)
{
	s->w = w;
	s->sync.done = on_synced;
	w->segment = s;
	TAILQ_INSERT_TAIL(&w->segments, s, link);
	name_segments(w);
}
