/* SPDX-License-Identifier: MIT
 *
 * sub_poll: what is there is handed to a function, run by run.
 *
 * A reader that is as fast as the publisher comes to be on its heels: then each
 * line is taken from the publisher before all of it is written and travels twice,
 * and both are several times slower than they could be.  So shmq_poll(), where it
 * may wait and nothing was handed out yet, lets messages gather for a few
 * microseconds, as long as that pays: if the whole, waiting included, goes faster
 * than it went on its heels.  Where messages come slower than anybody is held up by
 * that it never waits, and where it does not pay it is not tried again for long.
 */
#include "clock.h"
#include "sub_priv.h"

#include <errno.h>

#define RUN 64u              /* messages are counted after so many, at the latest */
#define NEAR 96u             /* closer than so many messages is on its heels */
#define FAST 200u            /* ns: what comes no faster is not held up */
#define SAMPLE 256u          /* messages by which it is seen how fast they come */
#define GATHERED 2048u       /* so many come meanwhile, or a quarter of the ring, */
#define GATHERED_EACH 5u     /* if each takes so many ns for two lines, hardly any less */
#define TIMES 256u           /* then it is seen anew what it is worth */
#define REST UINT64_C(20000) /* ns until it is tried again, twice as long each time */
#define REST_MOST UINT64_C(1000000000)
#define NOT_PLAIN UINT64_MAX /* no length of a message that lies in its slot alone */

/* How far can it go on before it has to look again?  0: no further, the publisher
 * is near.  What is further away is not touched, as that is being written. */
static unsigned far_ahead(const struct rlane *l, uint64_t seq)
{
	if (!sub_is_there(l, seq + NEAR))
		return 0;
	if (!sub_is_there(l, seq + 4 * NEAR))
		return NEAR / 2;
	return sub_is_there(l, seq + 16 * NEAR) ? 15 * NEAR : 3 * NEAR;
}

static uint64_t gathering_ns(const struct rlane *l)
{
	uint64_t n = l->r.geo.depth / 4 * ((l->r.geo.slot_bytes / LAY_LINE + 1) / 2);

	return (n < GATHERED ? n : GATHERED) * GATHERED_EACH;
}

/* The publisher is near at seq, now.  Is it to be let get away? */
static int pays(struct pace *p, uint64_t seq, uint64_t now)
{
	uint64_t took = (now - p->near_ns) * 16 / (seq - p->near_seq);

	p->near_seq = seq;
	p->near_ns = now;
	if (took >= FAST * 16) {
		p->gathers = 0;
	} else if (!p->gathers) {
		p->heels = took;
		p->gathers = seq_diff(now, p->again_ns) >= 0;
	} else if (took > p->heels - p->heels / 8) {
		p->gathers = 0;
		p->rest_ns = p->rest_ns < REST_MOST / 2 ? p->rest_ns * 2 + REST : REST_MOST;
		p->again_ns = now + p->rest_ns;
	} else {
		p->rest_ns = 0;
		if (p->gathers++ == TIMES)
			p->gathers = 0; /* how is it without? */
	}
	return p->gathers;
}

static __attribute__((noinline)) void look_ahead(struct shmq_sub *sub, uint64_t seq,
						 int64_t timeout_ns)
{
	struct rlane *l = &sub->lane[0];
	unsigned ahead = far_ahead(l, seq), i;
	uint64_t now, most = gathering_ns(l);

	if (!ahead && seq - sub->pace.near_seq >= SAMPLE && sub->quick_looks &&
	    (timeout_ns < 0 || (uint64_t)timeout_ns > most)) {
		now = shmq__clock_monotonic_ns();
		if (pays(&sub->pace, seq, now)) {
			while (shmq__clock_monotonic_ns() - now < most)
				for (i = 0; i < 8; i++)
					cpu_relax();
			ahead = far_ahead(l, seq);
		}
	}
	sub->pace.there = seq + ahead;
	sub->pace.look_at = seq + (ahead ? ahead : NEAR / 2);
}

/* What the messages of a run have in common, in memory: there are not enough registers
 * that survive a handler, and it takes fewer instructions to use what is here than to
 * restore them. */
struct run {
	struct shmq_msg msg; /* as the handler is shown it */
	shmq_handler *handler;
	void *arg;
	uint64_t word;      /* control word of the message before, by which whoever sent that is
				known */
	uint64_t type;      /* of the message before, where a slot has it */
	uint64_t short_end; /* lengths below it are short */
	uint64_t served;    /* of the bell, as bell_armed() has it */
	const char *end;    /* of the last payload that may be handed out, and */
	size_t step;        /* from one to the next */
	/* The guard's word, which a handler that forks may have had wiped.  Not atomic: only
	 * the kernel writes it, and before a child begins. */
	const uint32_t *alive;
};

/* A publisher may wait for what was given back.  What is served now. */
static __attribute__((noinline)) uint64_t ring(struct rlane *l)
{
	if (bell_look(l->bell, SHMQ__FENCE_LIGHT))
		sub_add(&l->entry->wakes, 1);
	return load_relaxed(&l->bell->served);
}

/* What is not short, or not of the type of the message before: `found` is len, flags and
 * type of the slot of seq without that type.  Its length, or NOT_PLAIN. */
static inline uint64_t take_other(const struct shmq_sub *sub, struct run *r, uint64_t found,
				  uint64_t seq)
{
	if (found > sub->inline_max) {
		/* Volatile: a compiler that saw what it comes to would keep a copy beside
		 * `found` for each message. */
		uint64_t header = found ^ *(volatile uint64_t *)&r->type;

		if (header << 16 >> 16 > sub->inline_max) /* or has flags */
			return NOT_PLAIN;
		r->msg.type = (uint16_t)(header >> 48);
		r->type = (uint64_t)r->msg.type << 48;
		found = (uint32_t)header;
	}
	if (found > RING_LONG_BYTES && seq_diff(sub->pace.there, seq) > 1)
		ring_read_ahead(&sub->lane[0].r, seq);
	return found;
}

static inline size_t end_run(struct rlane *l, size_t n, uint64_t bytes)
{
	sub_add(&l->entry->count, n);
	sub_add(&l->entry->bytes, bytes);
	return n;
}

/* Hand out messages that lie in their slots, without more to them, and are there
 * one after the other, to the end of the ring at most; only where publishers wait
 * for us.  All is as if each were received, but that they are counted together.
 * How many; *stop is what the handler said last. */
static size_t hand_out_run(struct shmq_sub *sub, uint64_t seq, shmq_handler *handler, void *arg,
			   size_t max, int *stop)
{
	struct rlane *l = &sub->lane[0], *view = sub->view;
	uint64_t expected = LAY_CTRL(seq >> l->r.geo.depth_shift, 0, LAY_COMMITTED);
	uint64_t first = seq, bytes = 0;
	const char *at = (const char *)(lay_slot_at(l->r.mem, &l->r.geo, seq) + 1); /* payload */
	size_t left = l->r.geo.depth - (seq & l->r.geo.mask);
	struct lay_bell *bell = l->bell;
	struct run r;
	uint32_t said;

	max = max < left ? max : left;
	max = max < RUN ? max : RUN;
	sub_fill_ahead(l, seq, &r.msg);
	r.msg.type = 0;
	r.handler = handler;
	r.arg = arg;
	r.word = expected;
	r.type = 0;
	r.short_end = sub->short_end >> 16;
	r.served = load_relaxed(&bell->served);
	r.step = l->r.geo.slot_bytes;
	r.alive = (const uint32_t *)&sub->guard->alive;
	r.end = at + max * r.step;
	sub->view = l; /* unless there is none */
	for (;; seq++) {
		struct lay_slot *s = (struct lay_slot *)(uintptr_t)at - 1;
		uint64_t word = load_acquire(&s->ctrl), len; /* A1 */

		if (unlikely(word != r.word)) {
			if (LAY_CTRL_SANS_OWNER(word) != expected)
				break;
			r.word = word;
		}
		shmq__copy_racy(&len, &s->len, sizeof(len)); /* with flags and type */
		len ^= r.type;
		if (unlikely(len >= r.short_end)) {
			len = take_other(sub, &r, len, seq);
			if (len == NOT_PLAIN)
				break;
		}
		sub_step_to(l, seq); /* R3: what was before it */
		if (unlikely(bell_armed(bell) != r.served))
			r.served = ring(l);
		r.msg.data = at;
		r.msg.len = len;
		r.msg.seq = seq;
		bytes += len;
		PROBE3(receive, l->r.mem, seq, r.msg.len);
		/* One look at two things: it said stop, or it forked and this is the child. */
		said = (uint32_t)r.handler(r.arg, &r.msg) + *r.alive;
		at += r.step;
		/* it may have given the message back, or gone on by itself */
		if (unlikely(said != BUS_ALIVE || l->r.next != seq) || at == r.end) {
			if (sub_check(sub))
				return 0; /* nothing is mapped here */
			*stop = (int)(said - BUS_ALIVE);
			return end_run(l, seq - first + 1, bytes);
		}
	}
	if (seq == first) {
		sub->view = view;
		return 0;
	}
	return end_run(l, seq - first, bytes);
}

/* Whatever comes next, as a receive has it, after `done` others: 0; 1 if the handler said
 * stop; or what is wrong, which the next call says if there were others. */
static __attribute__((noinline)) int hand_out_one(struct shmq_sub *sub, shmq_handler *handler,
						  void *arg, size_t done, int64_t timeout_ns)
{
	struct shmq_msg msg;
	int rc = shmq__sub_receive_whole(sub, &msg, done ? SHMQ_NOWAIT : timeout_ns);

	if (!rc)
		return handler(arg, &msg) != 0;
	if (done && rc != SHMQ_EEMPTY && rc != -ENOMEM && rc != SHMQ_EFORKED) { /* these stay */
		sub->held_error = rc;
		sub->held_msg = msg;
		sub_judge(sub);
	}
	return rc;
}

SHMQ_EXPORT HOT ssize_t shmq_poll(shmq_sub *sub, shmq_handler *handler, void *arg, size_t max,
				  int64_t timeout_ns)
{
	size_t done = 0, n;
	int stop = 0;

	while (done < max && !stop) {
		n = 0;
		if (likely(sub->is_plain && sub->short_end && !sub_check(sub))) {
			uint64_t seq = sub->lane[0].r.next + (sub->view != NULL);

			if (!done && unlikely(seq_diff(seq, sub->pace.look_at) >= 0))
				look_ahead(sub, seq, timeout_ns);
			n = hand_out_run(sub, seq, handler, arg, max - done, &stop);
		}
		if (!n) {
			stop = hand_out_one(sub, handler, arg, done, timeout_ns);
			if (stop < 0)
				return done && stop != SHMQ_EFORKED ? (ssize_t)done : stop;
			n = 1;
		}
		done += n;
	}
	return (ssize_t)done;
}
