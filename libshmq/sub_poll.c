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
#define GATHERED_EACH 5u     /* if each takes so many ns, and hardly any takes less */
#define TIMES 256u           /* then it is seen anew what it is worth */
#define REST UINT64_C(20000) /* ns until it is tried again, twice as long each time */
#define REST_MOST UINT64_C(1000000000)

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
	uint64_t n = l->r.geo.depth / 4;

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

/* Hand out messages that lie in their slots, without more to them, and are there
 * one after the other, to the end of the ring at most; only where publishers wait
 * for us.  All is as if each were received, but that they are counted together.
 * How many; *stop is what the handler said last. */
static size_t hand_out_run(struct shmq_sub *sub, uint64_t seq, shmq_handler *handler, void *arg,
			   size_t max, int *stop)
{
	struct rlane *l = &sub->lane[0];
	uint64_t word = LAY_CTRL(seq >> l->r.geo.depth_shift, 0, LAY_COMMITTED), bytes = 0;
	struct shmq_msg msg = { .partition = (int32_t)l->partition };
	size_t n = 0, step = l->r.geo.slot_bytes, left = l->r.geo.depth - (seq & l->r.geo.mask);
	char *at = (char *)lay_slot_at(l->r.mem, &l->r.geo, seq);
	uint32_t end = sub->inline_max + 1;

	max = max < left ? max : left;
	max = max < RUN ? max : RUN;
	for (; n < max; at += step, seq++) {
		struct lay_slot *s = (struct lay_slot *)at, head;

		if (LAY_CTRL_SANS_OWNER(load_acquire(&s->ctrl)) != word) /* A1 */
			break;
		shmq__copy_racy(&head, s, sizeof(head));
		if (unlikely(head.flags || head.len >= end))
			break;
		sub_step_to(l, seq); /* R3: what was before it */
		if (bell_is_armed(l->bell, SHMQ__FENCE_LIGHT) && shmq__bell_ring(l->bell))
			sub_add(&l->entry->wakes, 1);
		if (unlikely(head.len > RING_LONG_BYTES) && seq_diff(sub->pace.there, seq) > 1)
			ring_read_long(&l->r, head.len);
		sub->view = l;
		msg.data = s + 1;
		msg.len = head.len;
		msg.seq = seq;
		msg.type = head.type;
		bytes += head.len;
		PROBE3(receive, at, seq, msg.len);
		n++;
		*stop = handler(arg, &msg);
		/* it may have given the message back, or gone on by itself */
		if (unlikely(*stop || sub->view != l || l->r.next != seq))
			break;
	}
	if (n) {
		sub_add(&l->entry->count, n);
		sub_add(&l->entry->bytes, bytes);
	}
	return n;
}

SHMQ_EXPORT HOT ssize_t shmq_poll(shmq_sub *sub, shmq_handler *handler, void *arg, size_t max,
				  int64_t timeout_ns)
{
	size_t done = 0, n;
	int stop = 0, rc;

	while (done < max && !stop) {
		struct shmq_msg msg;

		if (likely(sub->is_plain && sub->short_end && !sub_check(sub))) {
			uint64_t seq = sub->lane[0].r.next + (sub->view != NULL);

			if (!done && unlikely(seq_diff(seq, sub->pace.look_at) >= 0))
				look_ahead(sub, seq, timeout_ns);
			n = hand_out_run(sub, seq, handler, arg, max - done, &stop);
			done += n;
			if (n)
				continue;
		}
		rc = shmq__sub_receive_whole(sub, &msg, done ? SHMQ_NOWAIT : timeout_ns);
		if (rc && !done)
			return rc;
		if (rc == -ENOMEM) /* the message stays */
			break;
		if (rc && rc != SHMQ_EEMPTY) {
			sub->held_error = rc;
			sub->held_msg = msg;
			sub_judge(sub);
		}
		if (rc)
			break;
		done++;
		stop = handler(arg, &msg);
	}
	return (ssize_t)done;
}
