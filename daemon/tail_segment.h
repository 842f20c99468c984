/* SPDX-License-Identifier: MIT
 *
 * tail_segment: the file of one segment, from its creation until it has its
 * exact size.  What is written into it, and when, is tail_writer's business.
 */
#ifndef SHMQ_TAIL_SEGMENT_H
#define SHMQ_TAIL_SEGMENT_H

#include "log_record.h"
#include "tail_index.h"
#include "tail_io.h"

enum tail_direct { TAIL_DIRECT_AUTO, TAIL_DIRECT_YES, TAIL_DIRECT_NO };

/* Of all segments of a partition. */
struct tail_layout {
	int dir; /* of the partition */
	uint8_t log_id[16];
	char topic[256];
	uint32_t partition;
	uint64_t segment_bytes;  /* 0: 1 GiB; a multiple of LOG_BLOCK */
	enum tail_direct direct; /* auto: O_DIRECT if the filesystem takes it */
	int preallocates;        /* segment_bytes at once, if it can be had */
	/* Told of a segment that begins, and of one that is complete, of `bytes`, and
	 * synced.  May be NULL. */
	void (*began)(void *arg, uint64_t first_seq, uint64_t base_ts);
	void (*rolled)(void *arg, uint64_t first_seq, uint64_t bytes);
	/* Asked before one is begun; 0: as if the disk were full.  May be NULL. */
	int (*has_room)(void *arg);
	void *arg; /* of all three */
};

struct tail_segment {
	struct tail_op sync; /* kept by tail_writer, and all below `link` */
	int fd, is_direct;
	uint64_t first_seq;
	struct log_key key; /* of its seed */
	struct tail_index *index;
	TAILQ_ENTRY(tail_segment) link;

	struct tail_writer *w;
	unsigned run_count; /* runs that are not written yet */
	int is_syncing;     /* all before syncing_seq; */
	int is_sealing;     /* the sync covers all there will ever be */
	int is_sealed;      /* ended, written and synced */
	int is_naming;      /* its name is being synced */
	int is_named;       /* ... is synced */
	uint64_t syncing_seq, synced_seq;
	/* Numbers of runs: the last one that was sent to be written only; the
	 * last one that syncs cover, will cover. */
	uint64_t unsynced_run, synced_run, syncing_run;
	struct tail_op zeroing; /* zeros are written from zero_end on, */
	int is_zeroing;         /* ... now */
	uint64_t zero_end;      /* UINT64_MAX: never again */
	uint64_t allocated;     /* bytes of the file that are set aside for it */
	int is_ended;           /* another one follows; */
	uint64_t end_seq;       /* what is before that is whole without it */
	uint64_t end_off;
};

/* A new one, whose header is put at `block`, LOG_BLOCK bytes, to be written by
 * the caller.  0 or -errno: -EEXIST if there is a file of that name. */
int tail_segment_create(const struct tail_layout *layout, uint64_t first_seq, uint64_t base_ts,
			char *block, struct tail_segment **out);

/* One that is there, to be gone on with at `off`, behind which it is cut off.
 * The block that `off` is in, as far as it is full, goes to `block`. */
int tail_segment_resume(const struct tail_layout *layout, uint64_t first_seq, uint64_t seed,
			uint64_t off, char *block, struct tail_segment **out);

/* The filesystem takes no writes of ours with O_DIRECT: do without. */
void tail_segment_undirect(struct tail_segment *s);

/* Cut it off at `off` unless that is TAIL_UNCUT, and close. */
#define TAIL_UNCUT UINT64_MAX
void tail_segment_close(struct tail_segment *s, uint64_t off);

#endif
