/* SPDX-License-Identifier: MIT
 *
 * pub: the publisher handle: opening and closing, waiting for subscribers and
 * for what they have read, statistics.
 */
#include "pub.h"
#include "clock.h"
#include "futex.h"
#include "mem.h"
#include "wait.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

/* Limit that proves everything below w.next was read: limit - depth is the
 * lowest cursor of the last scan. */
static int wait_consumed(struct shmq_pub *pub, struct lane *l, uint64_t deadline)
{
	int64_t left = shmq__clock_left(deadline), keep_block = pub->block_ns;
	int keep = pub->dont_wait, error;
	uint64_t need;

	if (!load_relaxed(&l->entry->count))
		return 0;
	/* What we sent lies before where we look next. */
	need = l->w.next + l->w.geo.depth;
	if (!shmq__credit_gaters(&l->credit))
		return 0;
	pub->block_ns = left;
	pub->dont_wait = left == 0;
	/* A drop-new publisher waits here too: it asked to. */
	l->w.geo.policy = SHMQ_BLOCK;
	error = shmq__pub_wait_for_credit(pub, l, need);
	l->w.geo.policy = pub->h.topic->geo.policy;
	pub->block_ns = keep_block;
	pub->dont_wait = keep;
	return error == SHMQ_EFULL ? SHMQ_ETIMEOUT : error;
}

SHMQ_EXPORT int shmq_flush(shmq_pub *pub, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	uint32_t p;
	int error = pub_check(pub);

	if (error) /* a forked child has no bells */
		return error;
	shmq__pub_wake_all(pub);
	for (p = 0; !error && pub->gates && p < pub->h.topic->geo.partitions; p++)
		error = wait_consumed(pub, &pub->lane[p], deadline);
	return error;
}

SHMQ_EXPORT int shmq_pub_wait_subscribers(shmq_pub *pub, unsigned count, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	struct lay_topic *rec = pub->h.topic->rec;
	int error = pub_check(pub);

	while (!error) {
		uint32_t epoch = load_acquire(&rec->epoch);

		/* Relaxed: who is counted has joined, and by C1 to C3 and J1 to J3
		 * nobody who sends then writes over what it reads. */
		if (load_relaxed(&rec->subscribers) >= count)
			return 0;
		if (shmq__topic_has_ended(pub->h.topic))
			return SHMQ_EENDED;
		if (shmq__clock_left(deadline) == 0)
			return SHMQ_ETIMEOUT;
		if (bus_is_interrupted(pub->h.bus))
			return -EINTR;
		shmq__futex_wait_or(&rec->epoch, epoch, deadline, bus_interrupt(pub->h.bus));
		error = pub_check(pub);
	}
	return error;
}

SHMQ_EXPORT void shmq_pub_get_stats(const shmq_pub *pub, struct shmq_pub_stats *out)
{
	uint32_t p;

	*out = (struct shmq_pub_stats){ 0 };
	if (pub_check(pub))
		return;
	out->wakes = load_relaxed(&((struct shmq_pub *)(uintptr_t)pub)->wakes);
	for (p = 0; p < pub->h.topic->geo.partitions; p++) {
		struct lay_entry *e = pub->lane[p].entry;

		out->sent += load_relaxed(&e->count);
		out->sent_bytes += load_relaxed(&e->bytes);
		out->dropped += load_relaxed(&e->lost);
		out->blocked += load_relaxed(&e->waits);
	}
}

static struct lay_bell no_bell; /* never armed, never written */

static void open_lane(struct shmq_pub *pub, uint32_t p)
{
	struct lane *l = &pub->lane[p];
	struct shmq__ring *r = &pub->h.topic->ring[p];

	l->w.mem = r->mem;
	l->w.geo = r->geo;
	l->w.owner = pub->h.bus->client;
	l->committed = LAY_CTRL(0, l->w.owner, LAY_COMMITTED);
	l->bells = r->bells;
	l->bell = pub->sleeps && pub->wake == SHMQ_WAKE_DIRECT ? &l->bells->data : &no_bell;
	l->served = load_relaxed(&l->bell->served);
	l->entry = &pub->h.entry[p];
	shmq__ring_takeover(&l->w);
	/* Without gating there is no limit but the end of time. */
	l->w.limit = pub->gates ? l->w.next : l->w.next + (UINT64_C(1) << 62);
	l->w.room = l->w.next;
	ring_begin_run(&l->w);
	shmq__credit_init(&l->credit, pub->h.topic, p, l->entry);
	store_relaxed(&l->entry->pos, l->w.next); /* R6: it has no claim yet */
}

static void close_pub(struct shmq__handle *h)
{
	struct shmq_pub *pub = (struct shmq_pub *)h;
	uint32_t p;

	if (!pub_check(pub)) {
		shmq__pub_close_confirm(pub);
		shmq__bus_undefer(h->bus, h);
		for (p = 0; p < h->topic->geo.partitions; p++) {
			if (pub->sleeps && pub->wake == SHMQ_WAKE_DEFERRED)
				bell_look(&pub->lane[p].bells->data, pub->look);
			store_relaxed(&pub->lane[p].w.mem->tail_hint, pub->lane[p].w.next);
			shmq__credit_fini(&pub->lane[p].credit);
		}
		shmq__slabs_unmap(h->bus->slabs, pub->arena_ref, pub->arena.bytes, pub->arena.mem);
		shmq__bus_close_handle(h);
	}
	shmq__arena_fini(&pub->arena);
	shmq__mem_put(pub->pending, pub->pending_capacity * sizeof(*pub->pending));
	free(pub->staging);
	free(pub);
}

static int check_options(const struct shmq_pub_options *o, struct shmq__why *why)
{
	const char *wrong = o->wake < 0 || o->wake > SHMQ_WAKE_DEFERRED ? "wake" :
			    o->wait > SHMQ_WAIT_SLEEP                   ? "wait" :
			    o->flags & ~SHMQ_DONTWAIT                   ? "flags" :
			    o->block_timeout_ns < -1                    ? "block_timeout_ns" :
			    o->wake_ns < 0                              ? "wake_ns" :
									  NULL;

	return wrong ? shmq__fail(why, SHMQ_EOPTION, "publisher options: %s is out of range",
				  wrong) :
		       0;
}

/* Where this thread runs; 0 if that cannot be told. */
static int own_node(void)
{
	unsigned cpu, node;

	return getcpu(&cpu, &node) ? SHMQ_NODE_ANY : SHMQ_NODE((int)node);
}

SHMQ_EXPORT int shmq_pub_open(shmq_bus *bus, const char *topic,
			      const struct shmq_pub_options *options, shmq_pub **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct proto_request req;
	struct shmq_pub_options o;
	struct shmq__handle h = { .close = close_pub };
	struct lay_topic *rec;
	struct shmq_pub *pub;
	uint32_t p;
	int error;

	*out = NULL;
	error = bus_check(bus);
	if (!error)
		error = shmq__options_copy(&o, options, sizeof(o), why);
	if (!error)
		error = check_options(&o, why);
	if (!error)
		error = shmq__name_check_topic(topic, SHMQ__NAME_BUS, why);
	if (error)
		return error;
	shmq__bus_prepare(bus, &req, PROTO_OPEN, topic);
	req.open.role = SHMQ_ROLE_PUBLISHER;
	req.open.flags = o.wake == SHMQ_WAKE_DEFERRED ? PROTO_OPEN_FENCES : 0;
	req.open.partition = -1;
	req.open.arena_bytes = o.arena_bytes;
	req.open.node = own_node();
	/* Room for the lanes is known once the topic is: open on a copy, then
	 * move it, which is allowed as only the list of handles points to it. */
	error = shmq__bus_open_handle(bus, &req, &h, SHMQ__SLAB_WRITE, why);
	if (error)
		return error;
	rec = h.topic->rec;
	pub = shmq__mem_apart(sizeof(*pub) + h.topic->geo.partitions * sizeof(pub->lane[0]),
			      HANDLE_APART);
	if (!pub) {
		shmq__bus_close_handle(&h);
		return -ENOMEM;
	}
	pub->h = h;
	shmq__bus_move_handle(&pub->h, &h);
	pub->guard = bus->guard;
	pub->sleep_fence = shmq__bus_ready(bus, h.topic->geo.flags);
	pub->fence = shmq__bus_commit_fence(bus, pub->sleep_fence);
	pub->sleeps = !(h.topic->geo.flags & SHMQ_TOPIC_SPIN_ONLY);
	pub->gates = shmq__topic_gates(&h.topic->geo);
	pub->invalidates = shmq__topic_laps(h.topic->geo.policy, h.topic->geo.log);
	pub->stamps = h.topic->geo.flags & (SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME);
	pub->wake = o.wake ? o.wake : SHMQ_WAKE_DIRECT;
	pub->look = pub->wake == SHMQ_WAKE_DEFERRED ? SHMQ__FENCE_FULL : pub->fence;
	bell_join(); /* F2 */
	pub->wait = o.wait ? o.wait : h.topic->geo.wait;
	if (!pub->sleeps && (pub->wait == SHMQ_WAIT_ADAPTIVE || pub->wait == SHMQ_WAIT_SLEEP))
		pub->wait = SHMQ_WAIT_SPIN;
	pub->dont_wait = !!(o.flags & SHMQ_DONTWAIT);
	if (!pub->stamps)
		pub->inline_end = (h.topic->geo.max_bytes < h.topic->geo.inline_bytes ?
					   h.topic->geo.max_bytes :
					   h.topic->geo.inline_bytes) +
				  1;
	pub->plain_end = h.topic->geo.partitions == 1 ? pub->inline_end : 0;
	if (pub->fence == SHMQ__FENCE_LIGHT)
		pub->short_end = ring_short_end(pub->plain_end);
	pub->block_ns = o.block_timeout_ns ? o.block_timeout_ns : rec->block_timeout_ns;
	pub->evict_ns = rec->evict_ns;
	for (p = 0; p < h.topic->geo.partitions; p++)
		open_lane(pub, p);
	pub->staging = malloc(h.topic->geo.inline_bytes);
	error = pub->staging ? shmq__pub_open_arena(pub, why) : -ENOMEM;
	if (error) {
		close_pub(&pub->h);
		return error;
	}
	if (pub->wake == SHMQ_WAKE_DEFERRED && pub->sleeps)
		shmq__bus_defer(bus, &pub->h, o.wake_ns ? o.wake_ns : 50000);
	*out = pub;
	return 0;
}

SHMQ_EXPORT void shmq_pub_close(shmq_pub *pub)
{
	if (pub)
		close_pub(&pub->h);
}
