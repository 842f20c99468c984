/* SPDX-License-Identifier: MIT
 *
 * pub: the publisher handle, from inside.
 *
 * The control words are handled in ring.c, credit in credit.c; here they
 * are put together: bytes to the arena, a claim, header and payload, commit,
 * bell.  No code of the application runs between claim and commit.
 *
 * publish.c has the short ways of single messages and zero-copy; pub_send.c
 * any message; pub_batch.c batches; pub_arena.c payloads that are not inline;
 * pub_wait.c what happens where room is short; pub.c opens and closes.
 */
#ifndef SHMQ_PUB_H
#define SHMQ_PUB_H

#include "arena.h"
#include "bus.h"
#include "credit.h"
#include "ring.h"

#include <stddef.h>
#include <sys/uio.h>

#define PIECE_ABORTED 1u /* no control word: its state is none */

struct lane { /* one partition */
	struct ring_writer w;
	uint64_t committed;      /* a committed control word without its lap */
	struct lay_bell *bell;   /* looked at after a commit: one that is never
				    armed where nobody sleeps or others look */
	uint64_t served;         /* of it, as bell_armed() has it */
	struct lay_entry *entry; /* own */
	uint64_t count;          /* as stored there, and so are bytes: who looks may
				    have the entry's line, and reading it waits */
	struct lay_bells *bells;
	uint64_t bytes;
	struct shmq__credit credit;
};

struct open_claim {
	void *data;
	size_t len;
	enum claim_kind { CLAIM_NONE, CLAIM_STAGED, CLAIM_ARENA } kind;
};

struct shmq_pub {
	struct shmq__handle h; /* first: close() converts */
	_Alignas(HANDLE_APART) const struct bus_guard *guard;
	enum shmq__fence fence;       /* of commits */
	enum shmq__fence sleep_fence; /* while it waits */
	enum shmq__fence look;        /* at the bells themselves, after commits or not: in full
					 if wakes are deferred, so that sleepers need not
					 interrupt us */
	enum shmq_wake wake;
	enum shmq_wait wait;
	size_t inline_end; /* lengths below it are inline, on a topic without
			      stamps; 0 with */
	size_t plain_end;  /* the same on a topic of one lane, else 0 */
	size_t short_end;  /* the same if short, and a commit needs no fence */
	int sleeps;        /* the topic lets someone sleep */
	int invalidates;   /* readers may be lapped: AHEAD before payload */
	int gates;
	int dont_wait;
	uint32_t stamps; /* SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME */
	int64_t block_ns, evict_ns;
	uint32_t turn;   /* round-robin */
	shmq_au64 wakes; /* made by publishes */

	struct shmq__arena arena;
	lay_ref arena_ref;
	struct open_claim claim;
	char *staging;
	struct shmq__notify *confirm; /* NULL unless it was asked for */

	struct pending *pending; /* atomic batch */
	size_t pending_capacity;
	struct lane lane[];
};

/* A message on its way: what the slot will say. */
struct parcel {
	const struct shmq_msg *msg;
	const struct iovec *iov;
	int iov_count;
	size_t data_bytes;
	size_t bytes; /* META included */
	uint16_t flags;
	uint64_t ts, tag;
	struct lay_arena_ref where; /* ARENA */
	struct lay_batch batch;     /* BATCH */
};

struct pending {
	struct parcel parcel;
	struct iovec iov;
	uint64_t seq;
};

/* ---- confirm.c ----------------------------------------------------------- */

void shmq__pub_close_confirm(struct shmq_pub *pub);

static inline int pub_check(const struct shmq_pub *pub)
{
	return likely(load_relaxed(&((struct bus_guard *)(uintptr_t)pub->guard)->alive)) ?
		       0 :
		       SHMQ_EFORKED;
}

/* N2 after a commit, once the bell was looked at: that look fences. */
static inline int lane_has_ended(const struct lane *l)
{
	uint32_t state = load_relaxed(&l->w.mem->state);

	if (likely(state == LAY_RING_LIVE))
		return 0;
	return lay_ring_is_left(state) ? SHMQ_EMOVED : SHMQ_EENDED;
}

static inline void pub_note_wake(struct shmq_pub *pub, struct lane *l)
{
	store_relaxed(&pub->wakes, load_relaxed(&pub->wakes) + 1);
	store_relaxed(&l->entry->wakes, load_relaxed(&l->entry->wakes) + 1);
}

static inline void pub_look_at_bell(struct shmq_pub *pub, struct lane *l)
{
	if (unlikely(bell_look(l->bell, pub->fence)))
		pub_note_wake(pub, l);
}

/* R5, R6: the tail hint, and the lower bound of what may be claimed. */
static inline void lane_move_hint(struct lane *l, uint64_t next)
{
	fence_light();
	store_relaxed(&l->w.mem->tail_hint, next); /* R5 */
	store_relaxed(&l->entry->pos, next);       /* R6 */
}

/* After the commit of n messages, the last before seq next: counters, and now and
 * then the hint, so n goes to the next multiple of RING_HINT_EVERY at most.  The
 * count is a release, for deferred wakes are made by it. */
static inline void lane_account_run(struct lane *l, uint64_t next, uint64_t n, uint64_t bytes,
				    enum shmq_mode mode)
{
	struct lay_entry *e = l->entry;
	uint64_t count = l->count + n;
	uint64_t sum = l->bytes + bytes;

	if (mode == SHMQ_EXCLUSIVE)
		l->w.next = next;
	l->count = count;
	l->bytes = sum;
	store_release(&e->count, count);
	store_relaxed(&e->bytes, sum);
	if (unlikely(count % RING_HINT_EVERY == 0))
		lane_move_hint(l, next);
}

static inline void lane_account(struct lane *l, uint64_t seq, uint64_t bytes, enum shmq_mode mode)
{
	lane_account_run(l, seq + 1, 1, bytes, mode);
}

/* What a publish could not send is counted. */
static inline void lane_note_refused(struct lane *l, int error)
{
	if (error == SHMQ_EFULL || error == SHMQ_ETIMEOUT)
		store_relaxed(&l->entry->lost, load_relaxed(&l->entry->lost) + 1);
}

/* ---- pub_wait.c ---------------------------------------------------------- */

/* Whoever we are about to wait for may be asleep on what we committed.  A
 * publisher that waits may enter the kernel, so deferred ones ring too. */
void shmq__pub_wake_all(struct shmq_pub *pub);

/* Raise the limit of l so that `need` (a limit) is reached.  1 yes, 0 not
 * yet, negative error. */
int shmq__pub_raise_limit(struct lane *l, uint64_t need);

/* Wait until seqs below `need` may be written. */
int shmq__pub_wait_for_credit(struct shmq_pub *pub, struct lane *l, uint64_t need);

/* Wait until slot `seq`, which still stands CLAIMED (`word`) from a lap ago,
 * does not any more.  0, or why it was given up. */
int shmq__pub_wait_for_claim(struct shmq_pub *pub, struct lane *l, uint64_t seq, uint64_t word);

/* Exclusive: credit for n more. */
static inline int pub_have_credit(struct shmq_pub *pub, struct lane *l, uint64_t n)
{
	return seq_diff(l->w.limit, l->w.next + n) >= 0 ?
		       0 :
		       shmq__pub_wait_for_credit(pub, l, l->w.next + n);
}

/* ---- pub_arena.c --------------------------------------------------------- */

/* Make room for `bytes` and take it.  0, SHMQ_ETOOBIG, SHMQ_ECLAIM or
 * SHMQ_EBATCH if our own uncommitted piece is in the way, or why there is no
 * credit. */
int shmq__pub_take_arena(struct shmq_pub *pub, size_t bytes, struct lay_arena_ref *where);

/* Before a large message is copied in: if all that lies there was read, it goes to the
 * front again, which is in the caches, as what lies further on is not.  The last
 * stays, for whoever joins.  Only where there is one lane, and nobody reads what has
 * been read by all that gate. */
void shmq__pub_rewind_arena(struct shmq_pub *pub, size_t bytes);

/* After a commit, when nobody waits for us: what a next message of that size
 * will have to touch is asked for now, and on topics that gate the oldest piece
 * goes if it is in its way and was read. */
void shmq__pub_prepare_arena(struct shmq_pub *pub, size_t bytes);

/* The piece at `off`, one of those taken last. */
struct arena_piece *shmq__pub_find_piece(struct shmq_pub *pub, uint64_t off);

/* The piece at `off` is now message seq of lane l. */
void shmq__pub_settle_arena(struct shmq_pub *pub, const struct lane *l, uint64_t seq, uint64_t off);

/* Map the arena that the handle came with, and note what an earlier publisher
 * left in it. */
int shmq__pub_open_arena(struct shmq_pub *pub, struct shmq__why *why);

/* ---- publish.c ----------------------------------------------------------- */

/* Send *m with `data` as payload at once, its bell excepted, and return its
 * lane.  NULL if it is not plain (key, properties, turn, stamps, arena) or there
 * is no room: then nothing was done. */
struct lane *shmq__pub_send_plain(struct shmq_pub *pub, struct shmq_msg *m, const void *data,
				  size_t len);

/* Send as many of the n messages at m at once, their bell excepted, as are like
 * that one after the other: how many.  They are counted together. */
size_t shmq__pub_send_run(struct shmq_pub *pub, struct shmq_msg *m, size_t n);

/* ---- pub_send.c ---------------------------------------------------------- */

enum bell_mode { BELL_NOW, BELL_LATER };

/* The lane of a message: its partition, its key's, or the next in turn. */
int shmq__pub_choose_lane(struct shmq_pub *pub, const struct shmq_msg *m, struct lane **out);

/* What the slot of *m will say.  0, SHMQ_ETOOBIG or SHMQ_EOPTION. */
int shmq__pub_make_parcel(struct shmq_pub *pub, const struct shmq_msg *m, const struct iovec *iov,
			  int iov_count, uint16_t flags, struct parcel *p);

/* Bytes to the arena, if that is where they go; nothing is held meanwhile. */
int shmq__pub_stow(struct shmq_pub *pub, struct parcel *p);

/* Fill slot seq, which is ours. */
void shmq__pub_write_slot(struct shmq_pub *pub, struct lane *l, uint64_t seq,
			  const struct parcel *p);

/* Claim, write, commit.  The bell is the caller's. */
int shmq__pub_send_parcel(struct shmq_pub *pub, struct lane *l, const struct parcel *p,
			  uint64_t *seq);

/* Send *m with the n buffers at iov as payload, and say in *used by which
 * lane.  With BELL_LATER looking at its bell is the caller's. */
int shmq__pub_send(struct shmq_pub *pub, struct shmq_msg *m, const struct iovec *iov, int n,
		   enum bell_mode bell, struct lane **used);

#endif
