/* SPDX-License-Identifier: MIT */
#include "tail_priv.h"

/* So much at once, begun when half of it is left. */
#define ZERO_BYTES (UINT64_C(256) << 10)

/* What is longer is not worth as many bytes again. */
#define SMALL_BYTES (UINT64_C(32) << 10)

static const char zeros[ZERO_BYTES] __attribute__((aligned(LOG_BLOCK)));

static void on_zeroed(struct tail_op *op, int error)
{
	struct tail_segment *s =
		(struct tail_segment *)((char *)op - offsetof(struct tail_segment, zeroing));

	s->is_zeroing = 0;
	s->zero_end = error ? UINT64_MAX : op->off; /* then it goes without */
	tail_run_settle(s->w);
}

/* For as long as a sync takes no longer than the blocks that it makes written ones,
 * which a disk's journal has to know of, and which are had a few hundred at a time. */
void tail_zero_ahead(struct tail_writer *w, const struct run *run, uint64_t end)
{
	struct tail_segment *s = run->segment;
	uint64_t bytes;

	if (s->is_zeroing || !s->is_direct || !run->has_sync || end - run->off > SMALL_BYTES)
		return;
	if (s->zero_end < end)
		s->zero_end = end;
	if (s->zero_end >= s->allocated || s->zero_end - end > ZERO_BYTES / 2)
		return;
	bytes = least(ZERO_BYTES, s->allocated - s->zero_end);
	s->is_zeroing = 1;
	s->zeroing.done = on_zeroed;
	tail_io_write(w->io, &s->zeroing, s->fd, zeros, bytes, s->zero_end);
}
