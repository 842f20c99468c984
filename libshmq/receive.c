/* SPDX-License-Identifier: MIT
 *
 * receive: the short way of a plain message, waiting for one, and all that
 * hands messages out and takes them back.
 */
#include "sub_priv.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONG_RUN 64u /* so many messages were there when asked for */
#define FAR_LOOK 32u /* then see whether so many more are, */
#define LET_PASS 40u /* and if not, pause so often */

void shmq__sub_copy_out(struct shmq_msg *m, char *buf)
{
	shmq__copy_racy(buf, m->data, m->len);
	m->data = buf;
	buf += m->len;
	if (m->key_len)
		shmq__copy_racy(buf, m->key, m->key_len);
	if (m->key)
		m->key = buf;
	buf += m->key_len;
	if (m->properties_len)
		shmq__copy_racy(buf, m->properties, m->properties_len);
	if (m->properties)
		m->properties = buf;
}

static int sleep_once(struct shmq_sub *sub, struct shmq_msg *msg, uint64_t deadline)
{
	int rc;

	shmq__sub_show_asleep(sub, 1);
	shmq__park_arm(sub->park);
	rc = shmq__sub_look_once(sub, msg); /* S4 */
	if (rc == SHMQ_EEMPTY) {
		/* Whoever is inside a claim may be dead or stalled. */
		if (shmq__sub_report_stuck(sub)) {
			uint64_t soon = shmq__clock_deadline(SHMQ__SUB_STUCK_NS);

			deadline = deadline < soon ? deadline : soon;
		}
		rc = shmq__park_sleep(sub->park, deadline);
		if (rc == -ETIMEDOUT || rc == 0)
			rc = SHMQ_EEMPTY;
	}
	shmq__sub_show_asleep(sub, 0);
	return rc;
}

static __attribute__((noinline)) int wait_for_message(struct shmq_sub *sub, struct shmq_msg *msg,
						      int64_t timeout_ns)
{
	struct waiter w;
	unsigned turns = 0;
	int rc;

	shmq__waiter_start(&w, sub->wait, sub->spin_ns, timeout_ns);
	for (;;) {
		enum wait_step step = shmq__waiter_step(&w);

		rc = likely(step == WAIT_AGAIN) ? shmq__sub_look(sub, msg) :
						  shmq__sub_look_once(sub, msg);
		if (rc != SHMQ_EEMPTY)
			return rc;
		if (step == WAIT_EXPIRED)
			return SHMQ_ETIMEOUT;
		if (step == WAIT_SLEEP) {
			rc = sleep_once(sub, msg, w.deadline);
			if (rc != SHMQ_EEMPTY)
				return rc;
		} else if (++turns % 4096 == 0) {
			/* Spinners look for ends and stuck claims now and then. */
			shmq__sub_report_stuck(sub);
			rc = shmq__sub_end_of_stream(sub, msg);
			if (rc != SHMQ_EEMPTY)
				return rc;
		}
	}
}

/* The short way: a plain message at the cursor of the only lane, whose
 * control word is w.  1 handed out, 0 look properly. */
static inline int take_plain(struct shmq_sub *sub, struct rlane *l, struct lay_slot *s, uint64_t w,
			     struct shmq_msg *msg)
{
	char *data = (char *)s + l->r.geo.payload_off;
	struct lay_slot_extra extra = { 0 };
	struct lay_slot head;

	shmq__copy_racy(&head, s, sizeof(head));
	if (l->r.geo.payload_off > sizeof(head))
		shmq__copy_racy(&extra, s + 1, sizeof(extra));
	if (unlikely(head.flags & SHMQ_MSG_ARENA)) {
		struct lay_arena_ref where;

		shmq__copy_racy(&where, data, sizeof(where));
		data = sub_in_mapped_arena(sub, &where, head.len);
		if (!data)
			return 0;
		prefetch_read(data);
	} else if (unlikely(head.len > RING_LONG_BYTES)) {
		if (head.len > l->r.geo.inline_bytes)
			return 0;
		if (seq_diff(sub->ahead, l->r.next) > 1)
			ring_read_long(&l->r, head.len);
	} else if (unlikely(head.len > l->r.geo.inline_bytes)) {
		return 0;
	}
	if (unlikely(!sub->gates) && !ring_still(&l->r, l->r.next, w)) /* A2 */
		return 0;
	if (unlikely(head.flags & ~SHMQ_MSG_ARENA))
		return 0;
	sub_fill_msg(l, &head, &extra, data, msg);
	sub_hand_out(sub, l, w, msg);
	return 1;
}

static int is_there(const struct rlane *l, unsigned distance)
{
	struct ring_reader at = l->r;
	uint64_t word;

	at.next += distance;
	return ring_look(&at, &word) == RING_MESSAGE;
}

/* Messages keep being there when they are asked for.  Are the next ones there
 * too, so that their lines may be asked for ahead of need?  If only a few are,
 * we are on the publisher's heels: every line would be taken from it before
 * it is written and travel twice, so it is given a moment to get away.  If
 * none is, messages come one by one, and waiting would only cost time. */
static __attribute__((noinline)) void look_further(struct shmq_sub *sub, struct rlane *l)
{
	unsigned i;

	sub->look_further_at = l->r.next + FAR_LOOK / 2;
	if (is_there(l, FAR_LOOK))
		sub->ahead = l->r.next + FAR_LOOK;
	else if (!is_there(l, 2))
		sub->run = 0;
	else
		for (i = 0; sub->run >= LONG_RUN && sub->quick_looks && i < LET_PASS; i++)
			cpu_relax();
}

/* A message was there at the first look. */
static inline void on_a_run(struct shmq_sub *sub, struct rlane *l)
{
	sub->run++;
	if (seq_diff(sub->ahead, l->r.next) > RING_READ_AHEAD)
		ring_read_ahead(&l->r);
	else if (seq_diff(l->r.next, sub->look_further_at) >= 0)
		look_further(sub, l);
}

/* Everything but a plain message that is there, or comes at once. */
static __attribute__((noinline)) int receive_long(struct shmq_sub *sub, struct shmq_msg *msg,
						  int64_t timeout_ns)
{
	int rc;

	if (unlikely(sub->held_error)) {
		rc = sub->held_error;
		*msg = sub->held_msg;
		sub->held_error = 0;
		return rc;
	}
	rc = shmq__sub_look(sub, msg);
	if (likely(rc != SHMQ_EEMPTY))
		return rc;
	if (timeout_ns != SHMQ_NOWAIT)
		return wait_for_message(sub, msg, timeout_ns);
	if (unlikely(sub->stands_at_claim))
		shmq__sub_report_stuck(sub);
	return shmq__sub_end_of_stream(sub, msg);
}

SHMQ_EXPORT int shmq_receive(shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	struct rlane *l = &sub->lane[0];
	struct lay_slot *s;
	uint64_t w, expected;
	unsigned looks;

	if (unlikely(sub_check(sub)))
		return SHMQ_EFORKED;
	sub_finish_view(sub);
	if (unlikely(!sub->is_plain || sub->held_error))
		return receive_long(sub, msg, timeout_ns);
	s = lay_slot_at(l->r.mem, &l->r.geo, l->r.next);
	expected = LAY_CTRL(l->r.next >> l->r.geo.depth_shift, 0, LAY_COMMITTED);
	w = load_acquire(&s->ctrl); /* A1 */
	if (likely(LAY_CTRL_SANS_OWNER(w) == expected)) {
		on_a_run(sub, l);
	} else {
		/* The answer to what was just sent comes within a cache miss or
		 * two: worth a few looks at nothing but the word before the
		 * clock is asked. */
		looks = timeout_ns == SHMQ_NOWAIT ? 0 : sub->quick_looks;
		sub->run = 0;
		do {
			if (!looks--)
				return receive_long(sub, msg, timeout_ns);
			cpu_relax();
			w = load_acquire(&s->ctrl); /* A1 */
		} while (LAY_CTRL_SANS_OWNER(w) != expected);
	}
	return likely(take_plain(sub, l, s, w, msg)) ? 0 : receive_long(sub, msg, timeout_ns);
}

SHMQ_EXPORT int shmq_release(shmq_sub *sub)
{
	int rc = sub_check(sub);

	if (!rc)
		sub_finish_view(sub);
	return rc;
}

/* The message handed out turned out to be torn: it is lost. */
static void unread(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	struct rlane *l = sub->view;

	sub_add(&l->entry->count, (uint64_t)-1);
	sub_add(&l->entry->bytes, (uint64_t)0 - msg->len);
	sub_add(&l->entry->lost, 1);
}

SHMQ_EXPORT int shmq_view_check(shmq_sub *sub, const struct shmq_msg *msg)
{
	int rc = sub_check(sub);

	if (rc)
		return rc;
	if (!sub->view)
		return SHMQ_EOPTION;
	if (sub->view_torn)
		return SHMQ_EOVERRUN;
	if (sub->gates || !sub->view_word ||
	    ring_still(&sub->view->r, sub->view->r.next, sub->view_word))
		return 0;
	unread(sub, msg);
	sub->view_torn = 1;
	return SHMQ_EOVERRUN;
}

/* Copy the message handed out; where it may be torn, say so. */
static int copy_view(struct shmq_sub *sub, struct shmq_msg *msg, void *buf)
{
	struct shmq_msg whole = *msg;

	shmq__sub_copy_out(&whole, buf);
	if (!sub->gates && sub->view_word &&
	    !ring_still(&sub->view->r, sub->view->r.next, sub->view_word))
		return SHMQ_EOVERRUN;
	*msg = whole;
	return 0;
}

/* Take the hand-out back: the message stays at the cursor. */
static void take_back(struct shmq_sub *sub, const struct shmq_msg *msg)
{
	struct rlane *l = sub->view;
	struct kept *k;

	sub_add(&l->entry->count, (uint64_t)-1);
	sub_add(&l->entry->bytes, (uint64_t)0 - msg->len);
	for (k = l->kept; k; k = k->other)
		if (k->next && k->member[k->next - 1].msg.seq == l->r.next)
			k->next--;
	sub->view = NULL;
	sub->turn = (uint32_t)(l - sub->lane);
}

SHMQ_EXPORT int shmq_receive_copy(shmq_sub *sub, void *buf, size_t capacity, struct shmq_msg *msg,
				  int64_t timeout_ns)
{
	for (;;) {
		int rc = shmq_receive(sub, msg, timeout_ns);

		if (rc)
			return rc;
		if (sub_whole_bytes(msg) > capacity) {
			take_back(sub, msg);
			return SHMQ_EBUFFER;
		}
		if (!copy_view(sub, msg, buf))
			return 0;
		/* Overwritten while we copied: the next look counts it. */
		take_back(sub, msg);
	}
}

SHMQ_EXPORT ssize_t shmq_poll(shmq_sub *sub, shmq_handler *handler, void *arg, size_t max,
			      int64_t timeout_ns)
{
	size_t done = 0;

	while (done < max) {
		struct shmq_msg msg;
		int rc = shmq_receive(sub, &msg, done ? SHMQ_NOWAIT : timeout_ns);

		if (rc && done) {
			if (rc != SHMQ_EEMPTY) {
				sub->held_error = rc;
				sub->held_msg = msg;
			}
			break;
		}
		if (rc)
			return rc;
		if (!sub->gates && sub->view_word) {
			size_t need = sub_whole_bytes(&msg);

			if (need > sub->copy_bytes) {
				char *more = realloc(sub->copy, need);

				if (!more) {
					take_back(sub, &msg);
					return done ? (ssize_t)done : -ENOMEM;
				}
				sub->copy = more;
				sub->copy_bytes = need;
			}
			if (copy_view(sub, &msg, sub->copy)) {
				take_back(sub, &msg);
				continue;
			}
		}
		done++;
		if (handler(arg, &msg))
			break;
	}
	return (ssize_t)done;
}
