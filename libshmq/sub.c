/* SPDX-License-Identifier: MIT
 *
 * sub: the subscriber handle: opening and closing, statistics, and what wait
 * sets need to know.
 */
#include "mem.h"
#include "notify.h"
#include "sub_priv.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>

#define QUICK_LOOKS 64u /* before the clock is read */

SHMQ_EXPORT void shmq_sub_get_stats(const shmq_sub *sub, struct shmq_sub_stats *out)
{
	uint32_t i;

	*out = (struct shmq_sub_stats){ 0 };
	if (sub_check(sub))
		return;
	if (sub->pattern)
		shmq__pattern_get_stats(sub, out);
	for (i = 0; i < sub->lanes; i++) {
		const struct rlane *l = &sub->lane[i];
		int64_t lag = seq_diff(shmq__topic_head(l->ring), load_relaxed(&l->entry->pos));

		out->received += load_relaxed(&l->entry->count);
		out->received_bytes += load_relaxed(&l->entry->bytes);
		out->wakes += load_relaxed(&l->entry->wakes);
		out->evicted |= !!(load_relaxed(&l->entry->flags) & LAY_ENTRY_EVICTED);
		out->lost += load_relaxed(&l->entry->lost);
		out->sleeps += load_relaxed(&l->entry->waits);
		out->lost_is_bound |= !!(load_relaxed(&l->entry->flags) & LAY_ENTRY_LOST_BOUND);
		out->lag += lag > 0 ? (uint64_t)lag : 0;
	}
	if (sub->conflate)
		shmq__conflate_get_stats(sub, out);
}

unsigned shmq__sub_bells(const struct shmq_sub *sub)
{
	return sub->pattern ? shmq__pattern_bells(sub) : sub->lanes;
}

void shmq__sub_list_bells(const struct shmq_sub *sub, struct lay_bell **list)
{
	uint32_t i;

	if (sub->pattern)
		shmq__pattern_list_bells(sub, list);
	for (i = 0; i < sub->lanes; i++)
		list[i] = &sub->lane[i].bells->data;
}

const shmq_au32 *shmq__sub_word(const struct shmq_sub *sub)
{
	return sub->pattern ? shmq__pattern_word(sub) : NULL;
}

const struct shmq_sub *shmq__sub_teller(const struct shmq_sub *sub)
{
	return sub->pattern ? shmq__pattern_teller(sub) : sub;
}

SHMQ_EXPORT const char *shmq_sub_topic(const shmq_sub *sub)
{
	if (sub_check(sub))
		return "";
	return sub->pattern ? shmq__pattern_topic(sub) : sub->h.topic->rec->name;
}

enum shmq_wait shmq__sub_wait_mode(const struct shmq_sub *sub)
{
	return sub->wait;
}

int64_t shmq__sub_spin_ns(const struct shmq_sub *sub)
{
	return sub->spin_ns;
}

enum shmq__fence shmq__sub_fence(const struct shmq_sub *sub)
{
	return sub->fence;
}

struct shmq_bus *shmq__sub_bus(const struct shmq_sub *sub)
{
	return sub->h.bus;
}

void shmq__sub_show_asleep(struct shmq_sub *sub, uint32_t asleep)
{
	struct lay_entry *e = sub->lane[0].entry;

	if (sub->pattern) {
		shmq__pattern_show_asleep(sub, asleep);
		return;
	}
	store_relaxed(&e->asleep, asleep);
	if (!asleep)
		return;
	sub_add(&e->waits, 1);
	if (sub->latency)
		shmq__sub_show_latency(sub);
}

struct shmq_waitset *shmq__sub_set(const struct shmq_sub *sub)
{
	return sub->set;
}

int shmq__sub_has_listener(const struct shmq_sub *sub)
{
	return sub->listener != NULL;
}

void shmq__sub_enter(struct shmq_sub *sub, struct shmq_waitset *set)
{
	sub->set = set;
}

uint64_t shmq__sub_cursor(const struct shmq_sub *sub)
{
	return sub->lane[0].r.next;
}

void shmq__sub_miss_from(struct shmq_sub *sub, uint64_t seq)
{
	sub->lane[0].start = seq;
}

void shmq__sub_go_on(struct shmq_sub *sub)
{
	sub->takes_rests = 1;
}

uint32_t shmq__sub_publishers(const struct shmq_sub *sub)
{
	return load_acquire(&sub->h.topic->rec->publishers);
}

void shmq__sub_get_batch(const struct shmq_sub *sub, struct lay_batch *out)
{
	const struct rlane *l = &sub->lane[0];
	const struct kept *k;

	for (k = l->kept; k; k = k->other) {
		if (!k->next || k->member[k->next - 1].msg.seq != l->r.next)
			continue;
		*out = (struct lay_batch){ .first_seq = k->member[0].msg.seq,
					   .index = k->next - 1,
					   .count = k->count };
		return;
	}
	shmq__copy_racy(out,
			(const char *)lay_slot_at(l->r.mem, &l->r.geo, l->r.next) +
				l->r.geo.payload_off,
			sizeof(*out));
}

static struct lay_bell no_bell; /* never armed, never written */

void shmq__sub_trust_log(struct shmq_sub *sub)
{
	sub_set_gating(sub, 1);
	sub->lane[0].bell = &no_bell;
}

void shmq__sub_ring_credit(struct shmq_sub *sub)
{
	bell_look(&sub->lane[0].bells->credit, sub->fence);
}

/* Publishers wait no longer for who leaves, and hear of it from nobody else while
 * the supervisor is away: from so far ahead it gates none of them.  Relaxed: what it held
 * was given back by a release (R3) just before, and this goes on its release sequence. */
static void close_handle(struct shmq__handle *h)
{
	uint32_t i;

	for (i = 0; i < h->entry_count; i++)
		store_relaxed(&h->entry[i].pos,
			      load_relaxed(&h->entry[i].pos) + (UINT64_C(1) << 62));
	shmq__topic_ring_all(h->topic);
	shmq__bus_close_handle(h);
}

void shmq__sub_close(struct shmq__handle *h)
{
	struct shmq_sub *sub = (struct shmq_sub *)h;
	uint32_t i;

	shmq__listener_forget(sub->listener);
	if (sub->set)
		shmq__waitset_forget(sub->set, sub);
	shmq__notify_close(sub->notify);
	if (!sub_check(sub))
		shmq__park_free(sub->park);
	if (sub->pattern) {
		shmq__pattern_close(sub);
	} else if (!sub_check(sub)) {
		sub_finish_view(sub);
		for (i = 0; i < sub->arena_count; i++)
			shmq__slabs_unmap(h->bus->slabs, sub->arena[i].ref, sub->arena[i].bytes,
					  sub->arena[i].mem);
		close_handle(h);
	}
	shmq__sub_store_close(sub);
	shmq__conflate_close(sub);
	for (i = 0; i < sub->lanes; i++) {
		shmq__sub_free_kept(&sub->lane[i]);
		shmq__sub_replay_close(&sub->lane[i]);
	}
	free(sub->arena);
	free(sub->copy);
	free(sub->latency);
	free(sub->bell);
	free(sub);
}

static int check_options(const struct shmq_sub_options *o, struct shmq__why *why)
{
	const unsigned flags = SHMQ_SUB_END_WITH_PUBLISHERS | SHMQ_SUB_OBSERVE |
			       SHMQ_SUB_RING_ONLY | SHMQ_SUB_CONFLATE | SHMQ_SUB_IN_PLACE;
	const char *wrong = o->from > SHMQ_FROM_CURSOR ? "from" :
			    o->wait > SHMQ_WAIT_SLEEP  ? "wait" :
			    o->partition_plus1 < 0     ? "partition_plus1" :
			    o->flags & ~flags          ? "flags" :
			    o->spin_ns < 0             ? "spin_ns" :
							 NULL;

	if (wrong)
		return shmq__fail(why, SHMQ_EOPTION, "subscriber options: %s is out of range",
				  wrong);
	if (o->from == SHMQ_FROM_CURSOR && !o->cursor)
		return shmq__fail(why, SHMQ_EOPTION,
				  "subscriber options: no cursor is named to start from");
	if (o->cursor && (o->flags & SHMQ_SUB_CONFLATE))
		return shmq__fail(
			why, SHMQ_EOPTION,
			"subscriber options: what is conflated was read before it is handed "
			"out, so no cursor can be stored for it");
	return o->cursor ? shmq__name_check_cursor(o->cursor, why) : 0;
}

/* Times and cursors are of the log. */
static int needs_log(const struct shmq_sub_options *o)
{
	return o->from == SHMQ_FROM_TIME || o->cursor;
}

/* Relaxed, as whatever the supervisor stored before it answered. */
static void open_lane(struct shmq_sub *sub, uint32_t i, uint32_t partition)
{
	struct rlane *l = &sub->lane[i];

	l->partition = partition;
	l->ring = &sub->h.topic->ring[partition];
	l->bells = l->ring->bells;
	l->bell = &l->bells->credit;
	l->entry = &sub->h.entry[i];
	l->r.mem = l->ring->mem;
	l->r.geo = l->ring->geo;
	l->r.next = l->start = load_relaxed(&l->entry->pos);
	sub->bell[i] = &l->bells->data;
}

void shmq__sub_prepare_open(struct shmq_bus *bus, const char *topic,
			    const struct shmq_sub_options *o, struct proto_request *req)
{
	shmq__bus_prepare(bus, req, PROTO_OPEN, topic);
	req->open.role = SHMQ_ROLE_SUBSCRIBER;
	req->open.from = o->from == SHMQ_FROM_CURSOR ? SHMQ_FROM_OLDEST :
			 o->from                     ? o->from :
						       SHMQ_FROM_LATEST;
	req->open.partition = o->partition_plus1 - 1;
	req->open.seq = o->seq;
	req->open.flags = (o->flags & SHMQ_SUB_OBSERVE ? PROTO_OPEN_OBSERVE : 0) |
			  (o->flags & SHMQ_SUB_RING_ONLY ? PROTO_OPEN_RING_ONLY : 0);
}

int shmq__sub_make(struct shmq__handle *h, const struct shmq_sub_options *o, enum shmq_from from,
		   struct shmq_sub *of, struct shmq_sub **out, struct shmq__why *why)
{
	const struct lay_geometry *geo = &h->topic->geo;
	uint32_t lanes = o->partition_plus1 ? 1 : geo->partitions, i;
	struct shmq_bus *bus = h->bus;
	int error, gates, is_late;
	struct shmq_sub *sub;

	if (needs_log(o) && (geo->log == SHMQ_LOG_NONE || (o->flags & SHMQ_SUB_RING_ONLY))) {
		error = shmq__fail(why, SHMQ_EOPTION, "\"%s\" cannot be read %s: that takes a log",
				   h->topic->rec->name,
				   o->cursor ? "with a cursor" : "from a time on");
		close_handle(h);
		return error;
	}
	sub = shmq__mem_apart(sizeof(*sub) + lanes * sizeof(sub->lane[0]), HANDLE_APART);
	if (!sub || !(sub->bell = calloc(lanes, sizeof(*sub->bell)))) {
		free(sub);
		close_handle(h);
		return -ENOMEM;
	}
	sub->h = *h;
	if (!of)
		shmq__bus_move_handle(&sub->h, h);
	sub->guard = bus->guard;
	sub->fence = of ? of->fence : shmq__bus_ready(bus, geo->flags);
	sub->lanes = lanes;
	sub->flags = o->flags;
	sub->wait = o->wait ? o->wait : geo->wait;
	if ((geo->flags & SHMQ_TOPIC_SPIN_ONLY) &&
	    (sub->wait == SHMQ_WAIT_ADAPTIVE || sub->wait == SHMQ_WAIT_SLEEP))
		sub->wait = SHMQ_WAIT_SPIN;
	sub->spin_ns = o->spin_ns ? o->spin_ns : WAIT_SPIN_NS;
	sub->interrupt = bus_interrupt(sub->h.bus);
	sub->evicts = geo->policy == SHMQ_EVICT && !(o->flags & SHMQ_SUB_OBSERVE);
	sub->inline_max = geo->inline_bytes;
	if (geo->max_bytes < sub->inline_max)
		sub->inline_max = (uint32_t)geo->max_bytes;
	gates = shmq__topic_gates(geo) && !sub->evicts && !(o->flags & SHMQ_SUB_OBSERVE);
	sub->may_replay = geo->log > SHMQ_LOG_NONE && !(o->flags & SHMQ_SUB_RING_ONLY);
	is_late = sub->may_replay && shmq__topic_starts_in_log(from);
	sub->is_to_join = is_late && gates;
	sub_set_gating(sub, gates && !is_late);
	sub->far = sub->look_further_at = load_relaxed(&sub->h.entry[0].pos);
	sub->pace.near_seq = sub->pace.look_at = sub->far;
	sub->quick_looks = sub->wait == SHMQ_WAIT_SLEEP ? 0 : QUICK_LOOKS;
	sub->saw_publisher = !!load_relaxed(&h->topic->rec->publishers);
	for (i = 0; i < lanes; i++)
		open_lane(sub, i, o->partition_plus1 ? (uint32_t)o->partition_plus1 - 1 : i);
	error = of ? 0 : shmq__park_create(sub->bell, lanes, NULL, sub->fence, &sub->park);
	if (!error && (o->flags & SHMQ_SUB_CONFLATE))
		error = shmq__conflate_open(sub);
	if (!error && o->cursor)
		error = shmq__sub_store_open(sub, o->cursor, why);
	if (!error && is_late)
		error = shmq__sub_replay_open(sub, o, why);
	if (!error && o->cursor)
		error = shmq__sub_store_begin(sub, why);
	if (error) {
		shmq__sub_close(&sub->h);
		return error;
	}
	*out = sub;
	return 0;
}

SHMQ_EXPORT int shmq_sub_open(shmq_bus *bus, const char *topic,
			      const struct shmq_sub_options *options, shmq_sub **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq__handle h = { .close = shmq__sub_close };
	struct shmq_sub_options o;
	struct proto_request req;
	int error;

	*out = NULL;
	error = bus_check(bus);
	if (!error)
		error = shmq__options_copy(&o, options, sizeof(o), why);
	if (!error)
		error = check_options(&o, why);
	if (!error && shmq__name_is_pattern(topic))
		return shmq__pattern_open(bus, topic, &o, out, why);
	if (!error)
		error = shmq__name_check_topic(topic, SHMQ__NAME_BUS, why);
	if (error)
		return error;
	shmq__sub_prepare_open(bus, topic, &o, &req);
	error = shmq__bus_open_handle(bus, &req, &h, SHMQ__SLAB_READ, why);
	if (!error)
		error = shmq__sub_make(&h, &o, (enum shmq_from)req.open.from, NULL, out, why);
	if (!error)
		shmq__bus_why(); /* that a cursor is new is no failure */
	return error;
}

SHMQ_EXPORT void shmq_sub_close(shmq_sub *sub)
{
	if (sub)
		shmq__sub_close(&sub->h);
}
