/* SPDX-License-Identifier: MIT
 *
 * sub_priv: the subscriber handle, from inside.
 *
 * Where readers gate, what is at the cursor stays until the cursor moves,
 * and is read in place.  Where they do not, every byte may change while it
 * is looked at: header first, then payload, then the control word again
 * (A2 of ring.h), and nothing read before that is trusted.
 *
 * receive.c has the short way, waiting, and what hands messages out;
 * sub_poll.c hands out what is there, run by run;
 * sub_look.c looks for the next message or finds out what there is instead;
 * sub_decode.c says what a slot holds; sub_batch.c keeps atomic batches whole;
 * sub_replay.c reads the log instead of the ring; sub_store.c keeps how far it
 * has come under a name; sub_latency.c measures; sub_pattern.c reads all topics that
 * match a pattern; sub_conflate.c hands out the newest message of each key; sub_fd.c has its
 * descriptor; sub.c opens and closes.
 */
#ifndef SHMQ_SUB_PRIV_H
#define SHMQ_SUB_PRIV_H

#include "listener.h"
#include "arena.h"
#include "park.h"
#include "probe.h"
#include "ring.h"
#include "sub.h"

#include <stddef.h>

struct rlane { /* one partition */
	struct ring_reader r;
	struct shmq__ring *ring;
	struct lay_entry *entry;
	struct lay_bells *bells;
	struct lay_bell *bell; /* of publishers that wait for it to be read */
	uint32_t partition;
	uint64_t start;        /* where it joined */
	uint64_t stuck_seq;    /* a CLAIMED slot we stand at */
	uint64_t stuck_since;  /* monotonic, 0 none */
	uint64_t stuck_told;   /* when the supervisor was told last */
	struct kept *kept;     /* rests of batches, copied (lossy) */
	struct replay *replay; /* what reads the log, once it was needed */
	int in_log;            /* it does now */
};

/* Messages of an atomic batch, copied so that all or none are delivered
 * although the ring may be overrun meanwhile.  They are handed out when the
 * cursor comes to their seqs.  Batches of several publishers may interleave. */
struct kept {
	struct kept *other;
	uint32_t next, count, capacity;
	uint64_t bytes;
	struct kept_msg {
		struct shmq_msg msg;
		char *bytes;
	} member[];
};

struct arena_map {
	uint32_t gen;
	uint64_t bytes;
	lay_ref ref;
	char *mem; /* NULL: not mapped */
};

/* No control word of a message: found torn, and counted lost. */
#define VIEW_TORN 1u

struct shmq_sub {
	struct shmq__handle h; /* first: close() converts */
	_Alignas(HANDLE_APART) const struct bus_guard *guard;
	enum shmq__fence fence;
	enum shmq_wait wait;
	int64_t spin_ns;
	int gates;  /* nobody writes over what is at the cursor */
	int evicts; /* being lapped is the end */
	int evicted;
	int may_replay;      /* where it is lapped it goes on in the log */
	int takes_rests;     /* of batches that began before its start too */
	int is_to_join;      /* it will gate, once it has come from the log to the rings */
	uint64_t join_at_ns; /* not before that: the supervisor was away */
	int is_plain;        /* what comes next may go the short way of receive.c, */
	int is_replay;       /* ... may be asked of the log at once */
	uint64_t short_end;  /* is_plain: in full if its bytes << 16 are below it: short, without
				stamps, and staying until it was read; 0 none */
	uint32_t inline_max; /* most bytes of a message in its slot, key and all */
	int stands_at_claim; /* a look since the last report found one open */
	int told_stalled;    /* by a pattern's handle: it is not ready because of that */
	int tells_members;   /* when the roster changed, by SHMQ__SUB_MEMBERS: */
	uint32_t members;    /* its epoch when that was told last */
	int gave_up;         /* a look that matters ended before it had an answer */
	unsigned flags;
	int saw_publisher;
	uint32_t turn, lanes;

	struct rlane *view; /* lane of the message handed out, NULL none */
	uint64_t view_word; /* its control word if it can be lost, or VIEW_TORN */

	struct arena_map *arena;
	uint32_t arena_count;

	const char *guess;  /* where the next payload in an arena will begin, or NULL */
	uint64_t run_start; /* from there on all were there at the first look */
	uint64_t far;       /* seqs before it are there */
	uint64_t look_further_at;
	struct pace {
		uint64_t look_at;           /* there shmq_poll() sees how near the publisher is */
		uint64_t there;             /* what is before it came by then */
		uint64_t near_seq, near_ns; /* where and when it was close by last */
		uint64_t heels;             /* a message took so long (16ths of ns) on its heels */
		uint64_t again_ns;          /* not before that is it let get away once more, */
		uint64_t rest_ns;           /* which is so long, if it was not worth while */
		unsigned gathers;           /* so often in a row */
	} pace;
	unsigned quick_looks; /* at the next word before any other waiting */

	int held_error; /* found by shmq_poll() after messages: said next */
	struct shmq_msg held_msg;
	char *copy; /* shmq_poll() on topics that may be lapped */
	size_t copy_bytes;

	struct sub_latency *latency; /* NULL: not measured */
	struct stored *stored;       /* where its cursor is kept, NULL nowhere */
	struct conflate *conflate;   /* the newest message of each key, NULL: all */
	int is_conflating;           /* it reads for that */
	struct pattern *pattern;     /* it has no lanes, but these subscribers */
	struct shmq__park *park;
	struct lay_bell **bell;
	struct shmq_waitset *set;
	struct shmq_listener *listener; /* who receives for callbacks, or NULL; */
	shmq_au32 interrupted;          /* and is to stop: SHMQ__SUB_INTERRUPTED */
	const shmq_au32 *interrupt;     /* ends its waits, bus_interrupt(); NULL for a listener */
	struct shmq__notify *notify;    /* its descriptor, NULL unless it was asked for */
	unsigned notify_changes;        /* of a pattern, when that got its words */
	struct rlane lane[];
};

static inline int sub_check(const struct shmq_sub *sub)
{
	return likely(load_relaxed(&((struct bus_guard *)(uintptr_t)sub->guard)->alive)) ?
		       0 :
		       SHMQ_EFORKED;
}

static inline int sub_is_in_log(const struct shmq_sub *sub)
{
	uint32_t i;

	for (i = 0; i < sub->lanes; i++)
		if (sub->lane[i].in_log)
			return 1;
	return 0;
}

static inline void sub_add(shmq_au64 *counter, uint64_t n)
{
	store_relaxed(counter, load_relaxed(counter) + n);
}

/* One lane that was not evicted, nothing to say or to hand out first. */
static inline void sub_judge(struct shmq_sub *sub)
{
	int is_simple = sub->lanes == 1 && !sub->evicted && !sub->held_error &&
			!sub->lane[0].kept && !sub->latency && !sub->conflate;

	sub->is_plain = is_simple && !sub->lane[0].in_log && !sub->is_to_join &&
			sub->fence == SHMQ__FENCE_LIGHT;
	sub->is_replay = is_simple && sub->lane[0].in_log;
}

/* Whether publishers wait for what is at the cursor. */
static inline void sub_set_gating(struct shmq_sub *sub, int gates)
{
	const struct lay_geometry *geo = &sub->h.topic->geo;

	sub->gates = gates;
	if (gates)
		sub->view_word = 0; /* what is handed out from now on cannot be lost */
	sub->short_end = gates && geo->payload_off == sizeof(struct lay_slot) ?
				 (uint64_t)ring_short_end(sub->inline_max + 1) << 16 :
				 0;
	sub_judge(sub);
}

static inline void sub_step_to(struct rlane *l, uint64_t seq)
{
	l->r.next = seq;
	store_release(&l->entry->pos, seq); /* R3 */
}

static inline void sub_move_to(struct shmq_sub *sub, struct rlane *l, uint64_t seq)
{
	sub_step_to(l, seq);
	if (unlikely(bell_look(l->bell, sub->fence)))
		sub_add(&l->entry->wakes, 1);
}

/* ---- sub_batch.c --------------------------------------------------------- */

/* Forget what was copied. */
void shmq__sub_free_kept(struct rlane *l);

/* Forget the copied batches that were handed out to their ends. */
void shmq__sub_drop_read_batches(struct rlane *l);

/* Whether all of the batch of the member that was handed out last stands before `end`, of
 * a ring that was left. */
int shmq__sub_is_whole(struct shmq_sub *sub, uint64_t end);

/* The copied batch whose next member is seq, or NULL. */
struct kept *shmq__sub_find_kept(const struct rlane *l, uint64_t seq);

/* The next message of a batch that was copied. */
int shmq__sub_hand_out_kept(struct shmq_sub *sub, struct rlane *l, struct kept *k,
			    struct shmq_msg *msg);

/* A member of an atomic batch is there.  Where readers gate nothing is
 * lost: all of a batch is there once its first is. */
int shmq__sub_take_member(struct shmq_sub *sub, struct rlane *l, uint64_t word,
			  const struct lay_batch *batch, struct shmq_msg *msg);

/* ---- sub_conflate.c ------------------------------------------------------ */

/* As shmq_receive() and so on of a handle with SHMQ_SUB_CONFLATE. */
int shmq__conflate_receive(struct shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns);
int shmq__conflate_receive_copy(struct shmq_sub *sub, void *buf, size_t capacity,
				struct shmq_msg *msg, int64_t timeout_ns);
void shmq__conflate_release(struct shmq_sub *sub);
/* It has something that was read already. */
int shmq__conflate_has_some(const struct shmq_sub *sub);
/* Of what was read, what was handed out. */
void shmq__conflate_get_stats(const struct shmq_sub *sub, struct shmq_sub_stats *stats);
int shmq__conflate_open(struct shmq_sub *sub);
void shmq__conflate_close(struct shmq_sub *sub); /* also of one that is none */

/* ---- sub_decode.c -------------------------------------------------------- */

/* Decode the slot of l->r.next into *msg, and *batch if it is a member of
 * one: pointers are in bounds, what they point to is not to be trusted.  0,
 * SHMQ_ECORRUPT, or why its arena cannot be mapped; then the message stays
 * where it is. */
int shmq__sub_decode(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg,
		     struct lay_batch *batch);

/* ---- sub_latency.c ------------------------------------------------------- */

/* *msg was handed out just now. */
void shmq__sub_note_latency(struct shmq_sub *sub, const struct shmq_msg *msg);

/* Show in shared memory what was measured until now. */
void shmq__sub_show_latency(struct shmq_sub *sub);

/* ---- sub_look.c ---------------------------------------------------------- */

/* n messages of lane l were lost: count them, and say so in *msg. */
void shmq__sub_count_lost(struct rlane *l, uint64_t n, struct shmq_msg *msg);
/* ... at most n of them. */
void shmq__sub_count_bound(struct rlane *l, uint64_t n, struct shmq_msg *msg);

/* What is at the cursor of l can't be: it is counted lost, and passed.
 * SHMQ_ECORRUPT. */
int shmq__sub_pass_corrupt(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg);

/* What any lane has, in turn: 0 and a message, SHMQ_EEMPTY, or what is wrong. */
int shmq__sub_look(struct shmq_sub *sub, struct shmq_msg *msg);

/* Nothing is there, and somebody opened or closed the topic, or died.  Only said to
 * who asks for it by tells_members: all that who has left sent is seen from now on. */
#define SHMQ__SUB_MEMBERS 2

/* Look at everything once; ends included. */
int shmq__sub_look_once(struct shmq_sub *sub, struct shmq_msg *msg);

/* Nothing is there: has the stream ended?  Looks once more after it learned
 * that, since what was committed before must still be read. */
int shmq__sub_end_of_stream(struct shmq_sub *sub, struct shmq_msg *msg);

/* ---- sub_replay.c -------------------------------------------------------- */

/* The directory of the topic's log.  A descriptor, or -errno with why. */
int shmq__sub_open_log(const struct shmq_sub *sub, struct shmq__why *why);

/* Start in the log, as the options say. */
int shmq__sub_replay_open(struct shmq_sub *sub, const struct shmq_sub_options *options,
			  struct shmq__why *why);
void shmq__sub_replay_close(struct rlane *l);

/* What a lane has that is in the log: as shmq__sub_look(), or
 * SHMQ__SUB_IN_RING: it is no longer in the log. */
#define SHMQ__SUB_IN_RING 1
int shmq__sub_replay_look(struct shmq_sub *sub, struct rlane *l, struct shmq_msg *msg);

/* The same for the only lane, and what was handed out is given back. */
int shmq__sub_replay_receive(struct shmq_sub *sub, struct shmq_msg *msg);

/* All lanes have come to their rings: from now on publishers wait for us.  What
 * the supervisor, if it is away, cannot do now is tried again later: call it
 * with each look until is_to_join is 0.  0, or what it met in the log, where the
 * way to the common start leads once more. */
int shmq__sub_replay_join(struct shmq_sub *sub);

/* A lane in the log has not come to the end of what was sent. */
int shmq__sub_replay_lacks(const struct rlane *l);

/* All before seq was read or counted. */
void shmq__sub_replay_step(struct shmq_sub *sub, struct rlane *l, uint64_t seq);

/* It was lapped: go on in the log.  1 if it does. */
int shmq__sub_replay_enter(struct shmq_sub *sub, struct rlane *l);

int shmq__sub_replay_is_ready(const struct shmq_sub *sub, const struct rlane *l);

/* ---- sub_store.c --------------------------------------------------------- */

/* Hold the stored cursor `name` for all lanes, and read it. */
int shmq__sub_store_open(struct shmq_sub *sub, const char *name, struct shmq__why *why);
void shmq__sub_store_close(struct shmq_sub *sub);

/* Where the lane is to go on: *seq, left alone if nothing is stored yet. */
int shmq__sub_store_start(const struct shmq_sub *sub, const struct rlane *l, uint64_t *seq,
			  struct shmq__why *why);

/* Store where each lane begins of which nothing is stored yet. */
int shmq__sub_store_begin(struct shmq_sub *sub, struct shmq__why *why);

/* ---- sub.c --------------------------------------------------------------- */

void shmq__sub_prepare_open(struct shmq_bus *bus, const char *topic,
			    const struct shmq_sub_options *o, struct proto_request *req);
/* Make a subscriber of the handle h, which is taken over, or closed on failure.  It
 * starts where its entries stand, or where `from` says that the log has it, and is
 * listed with its bus unless the pattern `of` has it. */
int shmq__sub_make(struct shmq__handle *h, const struct shmq_sub_options *o, enum shmq_from from,
		   struct shmq_sub *of, struct shmq_sub **out, struct shmq__why *why);
void shmq__sub_close(struct shmq__handle *h);

/* ---- sub_fd.c ------------------------------------------------------------ */

/* Nothing was found, and sub has a descriptor: see to it that it becomes readable
 * when there is something.  SHMQ_EEMPTY, or what was found meanwhile. */
int shmq__sub_rearm(struct shmq_sub *sub, struct shmq_msg *msg);

/* ---- sub_look.c: for patterns -------------------------------------------- */

/* It had messages or a publisher, and none is left. */
int shmq__sub_is_left(struct shmq_sub *sub);

/* ---- sub_pattern.c ------------------------------------------------------- */

int shmq__pattern_open(struct shmq_bus *bus, const char *pattern, const struct shmq_sub_options *o,
		       struct shmq_sub **out, struct shmq__why *why);
/* Its subscribers, and the watch; what else the handle has is the caller's. */
void shmq__pattern_close(struct shmq_sub *sub);

/* As the function of the same name on each of them, or on all. */
int shmq__pattern_look(struct shmq_sub *sub, struct shmq_msg *msg);
int shmq__pattern_end_of_stream(struct shmq_sub *sub, struct shmq_msg *msg);
int shmq__pattern_is_ready(struct shmq_sub *sub);
int64_t shmq__pattern_report_stuck(struct shmq_sub *sub);
void shmq__pattern_show_asleep(struct shmq_sub *sub, uint32_t asleep);
unsigned shmq__pattern_bells(const struct shmq_sub *sub);
void shmq__pattern_list_bells(const struct shmq_sub *sub, struct lay_bell **list);
void shmq__pattern_get_stats(const struct shmq_sub *sub, struct shmq_sub_stats *out);
const shmq_au32 *shmq__pattern_word(const struct shmq_sub *sub);

/* So often has what it sleeps on changed. */
unsigned shmq__pattern_changes(const struct shmq_sub *sub);
/* Make sub->park anew if what it sleeps on has changed. */
int shmq__pattern_prepare_park(struct shmq_sub *sub);

/* Whose message was handed out last and is not given back, or NULL; and give it
 * back. */
struct shmq_sub *shmq__pattern_in_hand(const struct shmq_sub *sub);
void shmq__pattern_release(struct shmq_sub *sub);
/* Its message was taken back: it is next. */
void shmq__pattern_take_back(struct shmq_sub *sub);

/* The call tells of that topic, which need not be read any more. */
void shmq__pattern_tell_of(struct shmq_sub *sub, const char *topic);
/* What the last call told of: name of the topic, and who reads it, NULL if nobody
 * does any more. */
const char *shmq__pattern_topic(const struct shmq_sub *sub);
const struct shmq_sub *shmq__pattern_teller(const struct shmq_sub *sub);

/* ---- receive.c ----------------------------------------------------------- */

/* As shmq_receive(); what may be written over meanwhile is a copy. */
int shmq__sub_receive_whole(struct shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns);
/* Take the hand-out back: the message stays at the cursor. */
void shmq__sub_take_back(struct shmq_sub *sub, const struct shmq_msg *msg);

static inline int sub_is_there(const struct rlane *l, uint64_t seq)
{
	struct ring_reader at = l->r;
	uint64_t word;

	at.next = seq;
	return ring_look(&at, &word) == RING_MESSAGE;
}

static inline size_t sub_whole_bytes(const struct shmq_msg *m)
{
	return m->len + m->key_len + m->properties_len;
}

/* ---- a message in hand --------------------------------------------------- */

/* Give back the message handed out. */
static inline void sub_finish_view(struct shmq_sub *sub)
{
	struct rlane *l = sub->view;

	if (!l)
		return;
	sub->view = NULL;
	if (unlikely(l->kept)) {
		shmq__sub_drop_read_batches(l);
		sub_judge(sub);
	}
	if (unlikely(l->in_log))
		shmq__sub_replay_step(sub, l, l->r.next + 1);
	else
		sub_move_to(sub, l, l->r.next + 1);
}

/* [where, where + len) if its arena is mapped, else NULL. */
static inline char *sub_in_mapped_arena(const struct shmq_sub *sub,
					const struct lay_arena_ref *where, uint64_t len)
{
	const struct arena_map *m;

	if (where->id >= sub->arena_count)
		return NULL;
	m = &sub->arena[where->id];
	if (!m->mem || m->gen != where->gen || where->off >= m->bytes ||
	    len > m->bytes - where->off)
		return NULL;
	return m->mem + where->off;
}

/* Where the publisher of a message at *where, which is mapped, puts one of that
 * length next. */
static inline const char *sub_next_place(const struct shmq_sub *sub,
					 const struct lay_arena_ref *where, uint64_t len)
{
	const struct arena_map *m = &sub->arena[where->id];
	uint64_t lines = arena_lines(len), off = where->off + lines;

	return m->mem + (off + lines > m->bytes ? 0 : off);
}

/* What the slot of seq says, stamps excepted; the first half is known before it
 * says anything.  Field by field: a compound
 * literal makes compilers zero the whole by a string instruction, which takes
 * longer than the rest of a receive. */
static inline void sub_fill_ahead(const struct rlane *l, uint64_t seq, struct shmq_msg *msg)
{
	memset(&msg->key, 0, offsetof(struct shmq_msg, seq) - offsetof(struct shmq_msg, key));
	msg->seq = seq;
	memset(&msg->ts_ns, 0,
	       offsetof(struct shmq_msg, partition) - offsetof(struct shmq_msg, ts_ns));
	msg->partition = (int32_t)l->partition;
	msg->flags = 0;
	msg->lost_is_bound = 0;
}

static inline void sub_fill_rest(const struct lay_slot *head, const char *data,
				 struct shmq_msg *msg)
{
	msg->data = data;
	msg->len = head->len;
	msg->type = head->type;
	msg->flags = head->flags;
}

static inline void sub_fill_msg(const struct rlane *l, uint64_t seq, const struct lay_slot *head,
				const char *data, struct shmq_msg *msg)
{
	sub_fill_ahead(l, seq, msg);
	sub_fill_rest(head, data, msg);
}

static inline void sub_fill_stamps(const struct lay_slot_extra *extra, struct shmq_msg *msg)
{
	msg->ts_ns = extra->ts;
	msg->tag = extra->tag;
}

static inline void sub_count(struct rlane *l, uint64_t bytes)
{
	struct lay_entry *e = l->entry;

	sub_add(&e->count, 1);
	sub_add(&e->bytes, bytes);
}

/* word is the control word of the message, 0 if it was copied. */
static inline int sub_hand_out(struct shmq_sub *sub, struct rlane *l, uint64_t word,
			       const struct shmq_msg *msg)
{
	sub->view = l;
	sub->view_word = sub->gates ? 0 : word;
	sub_count(l, msg->len);
	PROBE3(receive, l->r.mem, l->r.next, msg->len);
	return 0;
}

#endif
