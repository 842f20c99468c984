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

#define LONG_RUN 64u  /* so many messages were there when asked for */
#define FAR_LOOK 128u /* then see whether so many more are, */
#define LET_PASS 40u  /* and if not, pause so often */
#define PASSING 16u   /* again and again, as long as so many come meanwhile */

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
	uint64_t soon;
	int rc = sub->pattern ? shmq__pattern_prepare_park(sub) : 0;

	if (rc)
		return rc;
	shmq__sub_show_asleep(sub, 1);
	sub->gave_up = 0;
	shmq__park_arm(sub->park);
	rc = shmq__sub_look_once(sub, msg); /* S4 */
	if (rc == SHMQ_EEMPTY && !sub->gave_up) {
		/* Whoever is inside a claim may be dead or stalled. */
		soon = shmq__clock_deadline(shmq__sub_report_stuck(sub));
		rc = shmq__park_sleep(sub->park, deadline < soon ? deadline : soon, sub->interrupt);
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

	shmq__waiter_start(&w, sub->wait, sub->spin_ns, timeout_ns, sub->interrupt);
	for (;;) {
		enum wait_step step = shmq__waiter_step(&w);

		rc = likely(step == WAIT_AGAIN) ? shmq__sub_look(sub, msg) :
						  shmq__sub_look_once(sub, msg);
		if (rc != SHMQ_EEMPTY)
			return rc;
		if (step == WAIT_INTERRUPTED)
			return -EINTR;
		if (step == WAIT_EXPIRED) {
			rc = sub->notify ? shmq__sub_rearm(sub, msg) : rc;
			return rc == SHMQ_EEMPTY ? SHMQ_ETIMEOUT : rc;
		}
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

static int is_there(const struct rlane *l, unsigned distance)
{
	return sub_is_there(l, l->r.next + distance);
}

/* Everything but a plain message that is there, or comes at once.  The message
 * handed out before is given back. */
static __attribute__((noinline)) int receive_long(struct shmq_sub *sub, struct shmq_msg *msg,
						  int64_t timeout_ns)
{
	int rc;

	sub->view = NULL;
	if (unlikely(sub->held_error)) {
		rc = sub->held_error;
		*msg = sub->held_msg;
		sub->held_error = 0;
		sub_judge(sub);
		return rc;
	}
	rc = shmq__sub_look(sub, msg);
	if (likely(rc != SHMQ_EEMPTY))
		return rc;
	if (timeout_ns != SHMQ_NOWAIT)
		return wait_for_message(sub, msg, timeout_ns);
	if (unlikely(sub->stands_at_claim))
		shmq__sub_report_stuck(sub);
	rc = shmq__sub_end_of_stream(sub, msg);
	return rc == SHMQ_EEMPTY && unlikely(sub->notify != NULL) ? shmq__sub_rearm(sub, msg) : rc;
}

/* A message of one slot is at the cursor of the only lane, where *s says w. */
static __attribute__((noinline)) int take_whole(struct shmq_sub *sub, struct lay_slot *s,
						uint64_t w, struct shmq_msg *msg,
						int64_t timeout_ns)
{
	struct rlane *l = &sub->lane[0];
	char *data = (char *)s + l->r.geo.payload_off;
	struct lay_slot_extra extra;
	struct lay_slot head;

	shmq__copy_racy(&head, s, sizeof(head));
	if (l->r.geo.payload_off > sizeof(head))
		shmq__copy_racy(&extra, s + 1, sizeof(extra));
	if (head.flags & ~SHMQ_MSG_ARENA)
		return receive_long(sub, msg, timeout_ns);
	if (head.flags) {
		struct lay_arena_ref where;

		shmq__copy_racy(&where, data, sizeof(where));
		data = sub_in_mapped_arena(sub, &where, head.len);
		if (!data || head.len > l->r.geo.max_bytes)
			return receive_long(sub, msg, timeout_ns);
		prefetch_read(data);
		sub->guess = sub_next_place(sub, &where, head.len);
	} else if (head.len > sub->inline_max) {
		return receive_long(sub, msg, timeout_ns);
	} else if (head.len > RING_LONG_BYTES && seq_diff(sub->far, l->r.next) > 1) {
		ring_read_ahead(&l->r, l->r.next);
	}
	if (!sub->gates && !ring_still(&l->r, l->r.next, w)) /* A2 */
		return receive_long(sub, msg, timeout_ns);
	sub_fill_msg(l, l->r.next, &head, data, msg);
	if (l->r.geo.payload_off > sizeof(head))
		sub_fill_stamps(&extra, msg);
	return sub_hand_out(sub, l, w, msg);
}

static inline int conflates(const struct shmq_sub *sub)
{
	return sub->conflate && !sub->is_conflating;
}

/* The same where giving back takes more than a step, or it is measured. */
static __attribute__((noinline)) int give_back_and_receive(struct shmq_sub *sub,
							   struct shmq_msg *msg, int64_t timeout_ns)
{
	int rc;

	if (likely(sub->is_replay)) {
		rc = shmq__sub_replay_receive(sub, msg);
		if (likely(rc != SHMQ_EEMPTY && rc != SHMQ__SUB_IN_RING))
			return rc;
	}
	if (unlikely(conflates(sub)))
		return shmq__conflate_receive(sub, msg, timeout_ns);
	if (unlikely(sub->pattern))
		shmq__pattern_release(sub);
	else
		sub_finish_view(sub);
	rc = receive_long(sub, msg, timeout_ns);
	if (unlikely(sub->latency != NULL) && !rc)
		shmq__sub_note_latency(sub, msg);
	return rc;
}

/* A publisher may be waiting for the message that was given back. */
static __attribute__((noinline)) int ring_and_receive(struct shmq_sub *sub, struct shmq_msg *msg,
						      int64_t timeout_ns)
{
	if (shmq__bell_ring(sub->lane[0].bell))
		sub_add(&sub->lane[0].entry->wakes, 1);
	return receive_long(sub, msg, timeout_ns);
}

/* Messages keep being there when they are asked for.  Are the next ones there
 * too, so that their lines may be asked for ahead of need?  If only a few are,
 * we are on the publisher's heels: every line would be taken from it before
 * it is written and travel twice, so it is given a moment to get away.  If
 * none is, messages come one by one, and waiting would only cost time. */
static __attribute__((noinline)) int look_further(struct shmq_sub *sub, struct lay_slot *s,
						  uint64_t w, struct shmq_msg *msg,
						  int64_t timeout_ns)
{
	struct rlane *l = &sub->lane[0];
	uint64_t seq = l->r.next;
	int far = is_there(l, FAR_LOOK), came;
	int long_run = !far && seq - sub->run_start >= LONG_RUN && sub->quick_looks;
	unsigned near = 2, i;

	if (!far && !is_there(l, near)) {
		sub->run_start = seq;
		long_run = 0;
	}
	/* What had been there before does not count as what came meanwhile: else
	 * who is behind once would be held there, however slowly more comes. */
	while (long_run && near < FAR_LOOK && is_there(l, near))
		near += PASSING;
	for (came = long_run; came && !far; near += PASSING) {
		for (i = 0; i < LET_PASS; i++)
			cpu_relax();
		far = is_there(l, FAR_LOOK);
		came = near < FAR_LOOK && is_there(l, near);
	}
	sub->look_further_at = seq + FAR_LOOK / 2;
	if (far) {
		sub->far = seq + FAR_LOOK;
		sub->look_further_at = sub->far - FAR_LOOK / 8;
		/* where the next look goes: a miss there would stall us */
		prefetch_read(lay_slot_at(l->r.mem, &l->r.geo, sub->look_further_at + FAR_LOOK));
	}
	return take_whole(sub, s, w, msg, timeout_ns);
}

/* Messages come by an arena, and the next one is not there: a few looks at nothing
 * but its word, which stands in *s as `expected` then.  Where its payload will
 * begin is asked for meanwhile, so that it comes over with the word, not after it. */
static __attribute__((noinline)) int await_in_arena(struct shmq_sub *sub, struct lay_slot *s,
						    uint64_t expected, struct shmq_msg *msg,
						    int64_t timeout_ns)
{
	unsigned looks = sub->quick_looks;
	uint64_t w;

	do {
		if (!looks--)
			return receive_long(sub, msg, timeout_ns);
		prefetch_read(sub->guess);
		cpu_relax();
		w = load_acquire(&s->ctrl); /* A1 */
	} while (LAY_CTRL_SANS_OWNER(w) != expected);
	return take_whole(sub, s, w, msg, timeout_ns);
}

_Static_assert(offsetof(struct lay_slot, flags) == offsetof(struct lay_slot, len) + 4 &&
		       offsetof(struct lay_slot, type) == offsetof(struct lay_slot, len) + 6 &&
		       __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "a slot's header from len on is a number: type, flags, len");

/* A short message, of which sub_fill_ahead() has filled *msg; flags are read as what
 * makes it longer than that. */
static inline __attribute__((always_inline)) int take_plain(struct shmq_sub *sub,
							    struct lay_slot *s, uint64_t w,
							    struct shmq_msg *msg,
							    int64_t timeout_ns)
{
	uint64_t rest;

	shmq__copy_racy(&rest, &s->len, sizeof(rest));
	if (unlikely(rest << 16 >= sub->short_end))
		return take_whole(sub, s, w, msg, timeout_ns);
	msg->data = (const char *)(s + 1);
	msg->len = (uint32_t)rest;
	msg->type = (uint16_t)(rest >> 48);
	sub_count(&sub->lane[0], (uint32_t)rest);
	PROBE3(receive, sub->lane[0].r.mem, sub->lane[0].r.next, msg->len);
	return 0;
}

/* What is rare ends in a call of its own, so that a message that is there costs
 * no registers saved and few stores. */
SHMQ_EXPORT HOT int shmq_receive(shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	struct rlane *l = &sub->lane[0];
	uint64_t seq = l->r.next, w, expected;
	struct lay_slot *s;
	unsigned looks;

	if (unlikely(sub_check(sub)))
		return SHMQ_EFORKED;
	if (unlikely(!sub->is_plain))
		return give_back_and_receive(sub, msg, timeout_ns);
	if (likely(sub->view != NULL)) {
		sub_step_to(l, ++seq);
		if (bell_is_armed(l->bell, SHMQ__FENCE_LIGHT))
			return ring_and_receive(sub, msg, timeout_ns);
	}
	sub->view = l; /* unless there is none */
	s = lay_slot_at(l->r.mem, &l->r.geo, seq);
	expected = LAY_CTRL(seq >> l->r.geo.depth_shift, 0, LAY_COMMITTED);
	w = load_acquire(&s->ctrl); /* A1 */
	if (likely(LAY_CTRL_SANS_OWNER(w) == expected)) {
		if (unlikely(seq_diff(seq, sub->look_further_at) >= 0))
			return look_further(sub, s, w, msg, timeout_ns);
		sub_fill_ahead(l, seq, msg);
		return take_plain(sub, s, w, msg, timeout_ns);
	}
	/* The answer to what was just sent comes within a cache miss or two: worth a
	 * few looks at nothing but the word before the clock is asked. */
	sub->run_start = seq;
	if (unlikely(sub->guess != NULL) && timeout_ns != SHMQ_NOWAIT)
		return await_in_arena(sub, s, expected, msg, timeout_ns);
	sub_fill_ahead(l, seq, msg);
	for (looks = timeout_ns == SHMQ_NOWAIT ? 0 : sub->quick_looks; looks--;) {
		ring_fetch_far(&l->r, s);
		cpu_relax();
		w = load_acquire(&s->ctrl); /* A1 */
		if (LAY_CTRL_SANS_OWNER(w) == expected)
			return take_plain(sub, s, w, msg, timeout_ns);
	}
	return receive_long(sub, msg, timeout_ns);
}

SHMQ_EXPORT int shmq_release(shmq_sub *sub)
{
	int rc = sub_check(sub);

	if (!rc && conflates(sub))
		shmq__conflate_release(sub);
	else if (!rc && sub->pattern)
		shmq__pattern_release(sub);
	else if (!rc)
		sub_finish_view(sub);
	return rc;
}

/* Who handed out the message in hand; NULL if nobody did. */
static inline struct shmq_sub *reader(struct shmq_sub *sub)
{
	return unlikely(sub->pattern) ? shmq__pattern_in_hand(sub) : sub;
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

	if (rc || conflates(sub)) /* it is a copy */
		return rc;
	sub = reader(sub);
	if (!sub || !sub->view)
		return SHMQ_EOPTION;
	if (sub->view_word == VIEW_TORN)
		return SHMQ_EOVERRUN;
	if (!sub->view_word || ring_still(&sub->view->r, sub->view->r.next, sub->view_word))
		return 0;
	unread(sub, msg);
	sub->view_word = VIEW_TORN;
	return SHMQ_EOVERRUN;
}

SHMQ_EXPORT int shmq_sub_get_publisher(const shmq_sub *sub, unsigned *client_id)
{
	const struct ring_reader *r;
	int rc = sub_check(sub);
	uint64_t word;

	*client_id = 0;
	if (rc)
		return rc;
	if (sub->pattern)
		sub = shmq__pattern_in_hand(sub);
	if (!sub || !sub->view || sub->view->in_log)
		return SHMQ_EOPTION;
	r = &sub->view->r;
	word = load_relaxed(&lay_slot_at(r->mem, &r->geo, r->next)->ctrl);
	if (LAY_CTRL_LAP(word) != lay_lap(&r->geo, r->next) ||
	    LAY_CTRL_STATE(word) != LAY_COMMITTED)
		return SHMQ_EOVERRUN;
	*client_id = LAY_CTRL_OWNER(word);
	return 0;
}

/* Copy the message handed out; where it may be torn, say so. */
static int copy_view(struct shmq_sub *sub, struct shmq_msg *msg, void *buf)
{
	struct shmq_msg whole = *msg;

	shmq__sub_copy_out(&whole, buf);
	if (sub->view_word && !ring_still(&sub->view->r, sub->view->r.next, sub->view_word))
		return SHMQ_EOVERRUN;
	*msg = whole;
	return 0;
}

void shmq__sub_take_back(struct shmq_sub *handle, const struct shmq_msg *msg)
{
	struct shmq_sub *sub = reader(handle);
	struct rlane *l = sub->view;
	struct kept *k;

	sub_add(&l->entry->count, (uint64_t)-1);
	sub_add(&l->entry->bytes, (uint64_t)0 - msg->len);
	for (k = l->kept; k; k = k->other)
		if (k->next && k->member[k->next - 1].msg.seq == l->r.next)
			k->next--;
	sub->view = NULL;
	sub->turn = (uint32_t)(l - sub->lane);
	if (handle->pattern)
		shmq__pattern_take_back(handle);
}

/* The message handed out was torn while it was copied.  The next look counts
 * what was written over it; but no word honestly comes back, so that it was torn
 * before says that it is not to be had.  0 to look again. */
static int after_tear(struct shmq_sub *sub, struct shmq_msg *msg, unsigned tears)
{
	struct shmq_sub *from = reader(sub);
	struct rlane *l = from->view;

	shmq__sub_take_back(sub, msg);
	return tears ? shmq__sub_pass_corrupt(from, l, msg) : 0;
}

SHMQ_EXPORT int shmq_receive_copy(shmq_sub *sub, void *buf, size_t capacity, struct shmq_msg *msg,
				  int64_t timeout_ns)
{
	unsigned tears = 0;
	int rc = sub_check(sub);

	if (!rc && unlikely(conflates(sub)))
		return shmq__conflate_receive_copy(sub, buf, capacity, msg, timeout_ns);
	do {
		rc = shmq_receive(sub, msg, timeout_ns);
		if (rc)
			return rc;
		if (sub_whole_bytes(msg) > capacity) {
			shmq__sub_take_back(sub, msg);
			return SHMQ_EBUFFER;
		}
		if (!copy_view(reader(sub), msg, buf))
			return 0;
		rc = after_tear(sub, msg, tears++);
	} while (!rc);
	return rc;
}

int shmq__sub_receive_whole(struct shmq_sub *sub, struct shmq_msg *msg, int64_t timeout_ns)
{
	unsigned tears = 0;
	size_t need;
	int rc;

	do {
		rc = shmq_receive(sub, msg, timeout_ns);
		if (rc || conflates(sub) || !reader(sub)->view_word)
			return rc;
		need = sub_whole_bytes(msg) + 1; /* nothing has its place, too */
		if (need > sub->copy_bytes) {
			char *more = realloc(sub->copy, need);

			if (!more) {
				shmq__sub_take_back(sub, msg);
				return -ENOMEM;
			}
			sub->copy = more;
			sub->copy_bytes = need;
		}
		if (!copy_view(reader(sub), msg, sub->copy))
			return 0;
		rc = after_tear(sub, msg, tears++);
	} while (!rc);
	return rc;
}
