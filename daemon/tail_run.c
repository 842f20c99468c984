/* SPDX-License-Identifier: MIT */
#include "tail_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void on_written(struct tail_op *op, int error);

struct run *tail_run_begin(struct tail_writer *w)
{
	struct run *run = TAILQ_FIRST(&w->spare);
	char *mem;

	/* What a failed write has left goes first, unless it is to be completed. */
	if (!run || w->error || (w->aside && !w->big.held))
		return NULL;
	mem = tail_io_take(w->io, w);
	if (!mem)
		return NULL;
	TAILQ_REMOVE(&w->spare, run, link);
	TAILQ_INSERT_TAIL(&w->runs, run, link);
	*run = (struct run){
		.op.done = on_written,
		.w = w,
		.segment = w->segment,
		.state = RUN_FILLING,
		.overlaps = w->rest_bytes % LOG_BLOCK != 0,
		.mem = mem,
		.used = w->rest_bytes,
		.number = ++w->numbers,
		.off = w->off - w->rest_bytes,
		.link = run->link,
	};
	memcpy(mem, w->rest, w->rest_bytes);
	w->segment->run_count++;
	w->run = run;
	return run;
}

void tail_run_end(struct tail_writer *w)
{
	struct run *run = w->run;

	w->rest_bytes = run->used % LOG_BLOCK;
	memcpy(w->rest, run->mem + run->used - w->rest_bytes, w->rest_bytes);
	run->end_seq = w->ended_seq = w->next_seq;
	run->whole_seq = tail_writer_whole(w);
	run->state = RUN_FULL;
	w->unsent++;
	w->run = NULL;
}

static void give_up_memory(struct tail_writer *w, struct run *run)
{
	if (run->is_aside)
		free(run->mem);
	else if (run->mem)
		tail_io_give(w->io, run->mem);
	w->aside -= (unsigned)run->is_aside;
	run->is_aside = 0;
	run->mem = NULL;
}

void tail_run_drop(struct tail_writer *w, struct run *run)
{
	give_up_memory(w, run);
	run->segment->run_count--;
	if (run->state == RUN_FULL)
		w->unsent--;
	if (w->run == run)
		w->run = NULL;
	TAILQ_REMOVE(&w->runs, run, link);
	TAILQ_INSERT_HEAD(&w->spare, run, link);
}

/* ---- writes ---------------------------------------------------------------- */

static size_t whole_blocks(size_t bytes)
{
	return (bytes + LOG_BLOCK - 1) & ~(size_t)(LOG_BLOCK - 1);
}

/* The sync goes with the write, which it covers alone: so if all before is
 * synced, and nothing else of the segment is on its way. */
static int takes_sync_along(const struct tail_writer *w, const struct run *run)
{
	const struct tail_segment *s = run->segment;

	return seq_diff(w->sync_seq, w->written) > 0 && seq_diff(w->sync_seq, run->end_seq) <= 0 &&
	       run == TAILQ_FIRST(&w->runs) && s->unsynced_run <= s->synced_run && !s->is_syncing &&
	       !w->sync_error;
}

static void send_run(struct tail_writer *w, struct run *run)
{
	size_t bytes = whole_blocks(run->used);
	struct tail_segment *s = run->segment;

	if (run->number >= w->before.number)
		w->can_take_back = 0;
	memset(run->mem + run->used, 0, bytes - run->used);
	run->state = RUN_SENT;
	run->is_direct = s->is_direct;
	run->has_sync = takes_sync_along(w, run);
	w->unsent--;
	if (run->has_sync) {
		tail_sync_begin(w, s, run->whole_seq, run->number, s->run_count - 1);
		tail_io_write_sync(w->io, &run->op, s->fd, run->mem, bytes, run->off);
		tail_zero_ahead(w, run, run->off + bytes);
	} else {
		/* One that was held comes behind its successors. */
		if (run->number > s->unsynced_run)
			s->unsynced_run = run->number;
		tail_io_write(w->io, &run->op, s->fd, run->mem, bytes, run->off);
	}
}

/* A run that shares a block with the one before waits until that is written, and
 * fills meanwhile; one that goes where zeros go waits for these.  One of a new segment waits until
 * all before are complete and synced: recovery looks at the last segment there is, so nothing may
 * be missing before that, whoever is killed and whatever a loss of power leaves. */
void tail_run_send(struct tail_writer *w)
{
	struct run *run, *before = NULL;

	for (run = TAILQ_FIRST(&w->runs); run && !w->error; run = TAILQ_NEXT(run, link)) {
		int must_wait = run == w->big.held || run->segment != TAILQ_FIRST(&w->segments) ||
				(run->overlaps && before && before->number + 1 == run->number &&
				 before->state != RUN_DONE) ||
				tail_zero_bars(run, run->off + whole_blocks(run->used));

		before = run;
		if (must_wait)
			continue;
		if (w->run && run == w->run && !w->big.held &&
		    (seq_diff(w->flush_seq, w->ended_seq) > 0 || !tail_run_room(w)))
			tail_run_end(w);
		if (run->state == RUN_FULL)
			send_run(w, run);
	}
}

/* A disk that takes nothing now may take nothing for long, and the buffers are not this
 * writer's alone: what it has in them is put aside.  It is not much, as nothing comes
 * behind it: no more than there are buffers, nor than the ring of publishers that wait.
 * Without memory for it a buffer is kept. */
static void put_aside(struct tail_writer *w)
{
	struct run *run;
	void *mem;

	if (w->run)
		tail_run_end(w);
	w->can_take_back = 0;
	tail_io_end_turn(w->io, w);
	TAILQ_FOREACH (run, &w->runs, link) {
		if (!run->mem || run->is_aside || run->state == RUN_SENT ||
		    posix_memalign(&mem, LOG_BLOCK, whole_blocks(run->used)))
			continue;
		memcpy(mem, run->mem, run->used);
		if (run == w->big.held)
			w->big.copied = (struct log_record *)((char *)mem +
							      ((char *)w->big.copied - run->mem));
		give_up_memory(w, run);
		run->mem = mem;
		run->is_aside = 1;
		w->aside++;
	}
}

static void on_written(struct tail_op *op, int error)
{
	struct run *run = (struct run *)op;
	struct tail_writer *w = run->w;

	if (run->has_sync)
		tail_sync_end(w, run->segment, error ? -ECANCELED : 0);
	run->has_sync = 0;
	if (!error) {
		run->state = RUN_DONE;
		give_up_memory(w, run);
	} else if (error == -EINVAL && run->is_direct) {
		/* It took the flag, but not for writes of our alignment. */
		tail_segment_undirect(run->segment);
		run->state = RUN_FULL;
		w->unsent++;
	} else {
		run->state = RUN_FAILED;
		w->error = error;
	}
	if (w->error)
		put_aside(w);
	tail_run_settle(w);
}

void tail_run_settle(struct tail_writer *w)
{
	struct run *run, *before = NULL, *next;

	/* One that only goes on with the record of the one before can go before
	 * its turn: there may be more of them than buffers. */
	for (run = TAILQ_FIRST(&w->runs); run; run = next) {
		next = TAILQ_NEXT(run, link);
		if (run->state != RUN_DONE || (before && before->end_seq != run->end_seq)) {
			before = run;
			continue;
		}
		if (!before) {
			w->written = run->whole_seq;
			w->written_run = run->number;
		}
		tail_index_flush(run->segment->index);
		tail_run_drop(w, run);
	}
	/* It may have become whole by what came behind it, or by being let go. */
	if (TAILQ_EMPTY(&w->runs))
		w->written = tail_writer_whole(w);
	tail_sync_raise(w);
	tail_run_send(w);
	tail_sync_start(w);
}
