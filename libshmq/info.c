/* SPDX-License-Identifier: MIT
 *
 * info: what stands in shared memory, for people and tools.  The supervisor is
 * asked for nothing but memory that we were not given yet, as we are on a bus
 * of several users, so all of it works while that is away.
 */
#include "bus.h"
#include "clock.h"
#include "latency.h"
#include "name.h"
#include "ring.h"
#include "sub.h"

#include <errno.h>
#include <string.h>

#define CLAIM_LOOK_NS 100000
#define TOTALS_TRIES 8 /* then the supervisor died in between: nearly right will do */

SHMQ_EXPORT int shmq_bus_get_info(shmq_bus *bus, struct shmq_bus_info *out)
{
	struct lay_registry *r = shmq__slabs_registry(bus->slabs);
	int error = bus_check(bus);

	memset(out, 0, sizeof(*out));
	if (error)
		return error;
	shmq__name_show(out->name, r->name, sizeof(out->name));
	out->daemon_pid = (pid_t)load_relaxed(&r->control_pid);
	out->parent_pid = (pid_t)load_relaxed(&r->parent_pid);
	out->epoch = load_relaxed(&r->epoch);
	out->started_ns = r->started_ns;
	out->topics = load_relaxed(&r->topics_live);
	out->clients = load_relaxed(&r->clients_live);
	out->bytes = load_relaxed(&r->bytes_used);
	out->layout_version = r->version;
	return 0;
}

/* What comes of a visitor that said `rc`.  It may have forked, and we be the child, where
 * there is nothing more to be looked at. */
static int visited(const struct shmq_bus *bus, int rc)
{
	return rc ? rc : bus_check(bus);
}

SHMQ_EXPORT int shmq_disk_each(shmq_bus *bus,
			       int (*visit)(void *arg, const struct shmq_disk_info *disk),
			       void *arg)
{
	const struct lay_registry *r;
	int rc = bus_check(bus);
	unsigned i;

	if (rc)
		return rc;
	r = shmq__slabs_registry(bus->slabs);
	for (i = 0; !rc && i < LAY_DISKS_MAX; i++) {
		const struct lay_disk *d = &r->disk[i];
		struct shmq_disk_info info = { .device = load_acquire(&d->dev) };

		if (!info.device)
			continue;
		info.written_bytes = load_relaxed(&d->written_bytes);
		memcpy(info.dir, d->dir, sizeof(info.dir));
		info.dir[sizeof(info.dir) - 1] = 0;
		rc = visited(bus, visit(arg, &info));
	}
	return rc;
}

/* Rings of a topic with a log go on where that ends. */
static uint64_t head_of_all(const struct shmq__topic *t, int has_log)
{
	uint64_t sum = 0;
	uint32_t p;

	for (p = 0; p < t->geo.partitions; p++)
		sum += shmq__topic_head(&t->ring[p]) - (has_log ? 0 : t->ring[p].mem->base_seq);
	return sum;
}

static const struct lay_arena *arena_of(const struct shmq__topic *t, const struct lay_member *m)
{
	static const struct lay_arena none;
	const struct lay_arena *a = m->arena ? shmq__slabs_arena(t->slabs, m->arena - 1) : NULL;

	return a ? a : &none;
}

static void look_at_members(const struct shmq__topic *t, struct shmq_topic_info *out)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(t, &it))) {
		struct lay_entry *e =
			shmq__topic_entry(t, m, m->partition >= 0 ? (uint32_t)m->partition : 0);

		out->sleepers += load_relaxed(&m->state) != LAY_MEMBER_PUBLISHER && e &&
				 load_relaxed(&e->asleep) && !shmq__topic_is_own_reader(t, m);
		out->arena_bytes += arena_of(t, m)->bytes;
	}
}

/* What the living did, and before them who has left. */
static void sum_up(const struct shmq__topic *t, struct shmq_topic_stats *out)
{
	uint64_t sum[LAY_TOTALS];
	unsigned tries;

	for (tries = 0; tries < TOTALS_TRIES && !shmq__topic_sum(t, sum); tries++)
		;
	*out = (struct shmq_topic_stats){
		.sent = sum[LAY_TOTAL_SENT],
		.sent_bytes = sum[LAY_TOTAL_SENT_BYTES],
		.dropped = sum[LAY_TOTAL_DROPPED],
		.blocked = sum[LAY_TOTAL_BLOCKED],
		.received = sum[LAY_TOTAL_RECEIVED],
		.received_bytes = sum[LAY_TOTAL_RECEIVED_BYTES],
		.lost = sum[LAY_TOTAL_LOST],
		.sleeps = sum[LAY_TOTAL_SLEPT],
		.wakes = sum[LAY_TOTAL_WAKES],
		.evictions = sum[LAY_TOTAL_EVICTIONS],
	};
}

static int attach(struct shmq_bus *bus, uint32_t index, uint64_t id, struct shmq__topic **out)
{
	int error = shmq__bus_look(bus, shmq__slabs_topic(bus->slabs, index));

	return error ? error : shmq__topic_attach(bus->slabs, index, id, SHMQ__SLAB_READ, out);
}

/* Of a topic that we may not look into, what the registry says. */
int shmq__bus_describe_topic(struct shmq_bus *bus, uint32_t index, struct shmq_topic_info *out)
{
	struct lay_topic *rec = shmq__slabs_topic(bus->slabs, index);
	struct shmq__topic *t = NULL;
	struct lay_geometry geo;
	uint64_t id;
	int error;

	if (!rec)
		return SHMQ_ENOTOPIC;
	shmq__topic_look(rec, &id);
	error = attach(bus, index, id, &t);
	if (error && error != SHMQ_EACCESS)
		return error;
	error = t ? 0 : shmq__layout_geometry(rec, &geo);
	if (error)
		return error;
	if (t)
		geo = t->geo;
	memset(out, 0, sizeof(*out));
	shmq__name_show(out->name, rec->name, sizeof(out->name));
	out->id = id;
	out->depth = geo.depth;
	out->max_message_bytes = geo.max_bytes;
	out->slot_bytes = geo.slot_bytes;
	out->inline_bytes = geo.inline_bytes;
	out->partitions = geo.partitions;
	out->flags = geo.flags;
	out->mode = geo.mode;
	out->policy = geo.policy;
	out->stall = geo.stall;
	out->wait = geo.wait;
	out->ended = load_acquire(&rec->state) == LAY_TOPIC_ENDED;
	out->ring_bytes = geo.ring_bytes * geo.partitions;
	out->page_bytes = UINT64_C(1) << (rec->page_shift & 63);
	out->node_asked = rec->node_asked;
	out->node_actual = rec->node_actual;
	out->locked = rec->locked;
	out->log = geo.log;
	out->sync = rec->sync;
	out->sync_ns = rec->sync_ns;
	out->segment_bytes = rec->segment_bytes;
	out->retain_bytes = rec->retain_bytes;
	out->retain_ns = rec->retain_ns;
	out->tombstone_ns = rec->tombstone_ns;
	out->compress = (int)rec->compress;
	out->publishers = load_relaxed(&rec->publishers);
	out->subscribers = load_relaxed(&rec->subscribers);
	if (t) {
		out->head = head_of_all(t, geo.log > SHMQ_LOG_NONE);
		look_at_members(t, out);
		sum_up(t, &out->stats);
	}
	shmq__name_show(out->note, rec->note, sizeof(out->note));
	shmq__topic_detach(t);
	return shmq__topic_is_still(rec, id) ? 0 : SHMQ_ENOTOPIC;
}

lay_ref shmq__bus_partition_array(struct shmq_bus *bus, uint64_t topic_id)
{
	struct lay_topic *rec;
	lay_ref array;
	uint64_t id;
	uint32_t i;

	for (i = 0; (rec = shmq__slabs_topic(bus->slabs, i)); i++) {
		if (shmq__topic_look(rec, &id) != LAY_TOPIC_LIVE || id != topic_id)
			continue;
		array = rec->partition_array;
		return shmq__topic_is_still(rec, topic_id) ? array : 0;
	}
	return 0;
}

/* Index and id of the live topic of that name. */
static int find(struct shmq_bus *bus, const char *name, uint32_t *index, uint64_t *id)
{
	struct shmq__why *why = shmq__bus_why();
	int error = bus_check(bus);
	struct lay_topic *rec;
	uint32_t i;

	if (!error)
		error = shmq__name_check_topic(name, SHMQ__NAME_BUS, why);
	if (error)
		return error;
	for (i = 0; (rec = shmq__slabs_topic(bus->slabs, i)); i++) {
		if (shmq__topic_look(rec, id) != LAY_TOPIC_LIVE ||
		    strncmp(rec->name, name, sizeof(rec->name)) || !shmq__topic_is_still(rec, *id))
			continue;
		*index = i;
		return 0;
	}
	return shmq__fail(why, SHMQ_ENOTOPIC, "there is no topic \"%s\"", name);
}

SHMQ_EXPORT int shmq_topic_get_info(shmq_bus *bus, const char *name, struct shmq_topic_info *out)
{
	uint64_t id;
	uint32_t i;
	int error = find(bus, name, &i, &id);

	if (!error)
		error = shmq__bus_describe_topic(bus, i, out);
	return !error && out->id != id ? SHMQ_ENOTOPIC : error;
}

static int attach_by_name(struct shmq_bus *bus, const char *name, struct shmq__topic **out)
{
	uint64_t id;
	uint32_t i;
	int error = find(bus, name, &i, &id);

	return error ? error : attach(bus, i, id, out);
}

static int is_gating(const struct shmq__topic *t, const struct lay_member *m)
{
	return load_relaxed(&m->state) == LAY_MEMBER_SUBSCRIBER && shmq__topic_gates(&t->geo);
}

/* A claim at seq that lasts: one of a publisher that runs is over at once. */
static void find_claim(const struct shmq__ring *r, uint64_t seq, struct shmq_partition_info *out)
{
	shmq_au64 *ctrl = &lay_slot_at(r->mem, &r->geo, seq)->ctrl;
	uint64_t word = load_acquire(ctrl), until;

	if (LAY_CTRL_STATE(word) != LAY_CLAIMED || LAY_CTRL_LAP(word) != lay_lap(&r->geo, seq) ||
	    (out->claimer >= 0 && seq_diff(seq, out->claim_seq) >= 0))
		return;
	until = shmq__clock_monotonic_ns() + CLAIM_LOOK_NS;
	while (load_acquire(ctrl) == word) {
		if (shmq__clock_monotonic_ns() < until)
			continue;
		out->claimer = (int)LAY_CTRL_OWNER(word);
		out->claim_seq = seq;
		return;
	}
}

/* Who holds up whom: the gating subscriber furthest behind, what publishers
 * wait for, and the claim that a subscriber, or the next publish, stands at. */
static void find_holders(const struct shmq__topic *t, uint32_t p, struct shmq_partition_info *out)
{
	const struct shmq__ring *r = &t->ring[p];
	uint64_t depth = t->geo.depth, low = out->head, need = out->head + 1;
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	out->holder = out->claimer = -1;
	while ((m = shmq__topic_next_member(t, &it))) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);
		uint32_t state = load_relaxed(&m->state);
		uint64_t at;

		if (!e)
			continue;
		at = load_relaxed(state == LAY_MEMBER_PUBLISHER ? &e->need : &e->pos);
		if (state == LAY_MEMBER_PUBLISHER) {
			if (at && seq_diff(at, need) > 0)
				need = at;
			continue;
		}
		if (state == LAY_MEMBER_SUBSCRIBER)
			find_claim(r, at, out);
		if (!is_gating(t, m) || seq_diff(at, low) >= 0)
			continue;
		low = at;
		out->holder = m->client;
	}
	out->holder_lag = out->head - low;
	out->holds_back = out->holder >= 0 && seq_diff(need, low + depth) > 0;
	find_claim(r, out->head - depth, out);
}

static void describe_partition(const struct shmq__topic *t, uint32_t p,
			       struct shmq_partition_info *out)
{
	const struct shmq__ring *r = &t->ring[p];
	uint32_t bound = 0;

	memset(out, 0, sizeof(*out));
	out->partition = p;
	out->head = shmq__topic_head(r);
	out->oldest = shmq__topic_oldest(r, r->mem->base_seq);
	out->voids = shmq__ring_voids_between(r->mem, r->mem->base_seq, out->head, &bound);
	out->log_first = load_relaxed(&r->part->log_first);
	out->log_written = load_relaxed(&r->part->log_written);
	out->log_synced = load_relaxed(&r->part->log_synced);
	out->log_error = r->part->log_error;
	out->log_left = (uint64_t)load_relaxed(&r->part->log_left_mib) << 20;
	out->log_is_low = load_relaxed(&r->part->log_is_low) != 0;
	find_holders(t, p, out);
}

SHMQ_EXPORT int shmq_topic_get_partition(shmq_bus *bus, const char *name, uint32_t partition,
					 struct shmq_partition_info *out)
{
	struct shmq__topic *t;
	uint64_t id;
	uint32_t i;
	int error = find(bus, name, &i, &id);

	memset(out, 0, sizeof(*out));
	if (!error)
		error = shmq__bus_look(bus, shmq__slabs_topic(bus->slabs, i));
	if (!error)
		error = shmq__topic_attach_ring(bus->slabs, i, id, SHMQ__SLAB_READ, partition, &t);
	if (error == SHMQ_EOPTION)
		return shmq__fail(shmq__bus_why(), error, "topic \"%s\" has no partition %u", name,
				  partition);
	if (error)
		return error;
	describe_partition(t, partition, out);
	shmq__topic_detach(t);
	return 0;
}

SHMQ_EXPORT int shmq_partition_each(shmq_bus *bus, const char *topic,
				    int (*visit)(void *arg,
						 const struct shmq_partition_info *partition),
				    void *arg)
{
	struct shmq_partition_info info;
	struct shmq__topic *t;
	int rc = attach_by_name(bus, topic, &t);
	uint32_t p;

	if (rc)
		return rc;
	for (p = 0; !rc && p < t->geo.partitions; p++) {
		describe_partition(t, p, &info);
		rc = visited(bus, visit(arg, &info));
	}
	shmq__topic_detach(t);
	return rc;
}

SHMQ_EXPORT int shmq_topic_each(shmq_bus *bus,
				int (*visit)(void *arg, const struct shmq_topic_info *topic),
				void *arg)
{
	struct shmq_topic_info info;
	struct lay_topic *rec;
	int rc = bus_check(bus);
	uint32_t i;

	for (i = 0; !rc && (rec = shmq__slabs_topic(bus->slabs, i)); i++) {
		uint32_t state = load_acquire(&rec->state);

		if (state != LAY_TOPIC_LIVE && state != LAY_TOPIC_ENDED)
			continue;
		if (!shmq__bus_describe_topic(bus, i, &info)) /* else it went meanwhile */
			rc = visited(bus, visit(arg, &info));
	}
	return rc;
}

static void describe_latency(uint64_t word, struct shmq_peer_info *out)
{
	uint64_t ns[4];

	shmq__latency_unpack(word, ns);
	out->p50_ns = ns[0];
	out->p99_ns = ns[1];
	out->p999_ns = ns[2];
	out->most_ns = ns[3];
}

static void describe_peer(const struct shmq__topic *t, const struct lay_member *m,
			  struct shmq_peer_info *out)
{
	struct lay_client *c = shmq__slabs_client(t->slabs, m->client);
	uint64_t latency = 0;
	uint32_t p;

	memset(out, 0, sizeof(*out));
	out->role = load_relaxed(&m->state) == LAY_MEMBER_PUBLISHER ? SHMQ_ROLE_PUBLISHER :
								      SHMQ_ROLE_SUBSCRIBER;
	out->client_id = m->client;
	out->partition = m->partition;
	out->gating = is_gating(t, m);
	out->evicted = load_relaxed(&m->state) == LAY_MEMBER_EVICTED;
	out->opened_ns = m->opened_ns;
	out->arena_bytes = arena_of(t, m)->bytes;
	out->arena_node = arena_of(t, m)->node_actual;
	if (c) {
		out->pid = (pid_t)load_relaxed(&c->pid);
		out->uid = load_relaxed(&c->uid);
		shmq__name_show(out->client_name, c->name, sizeof(out->client_name));
	}
	for (p = 0; p < t->geo.partitions; p++) {
		struct lay_entry *e = shmq__topic_entry(t, m, p);
		int64_t lag;

		if (!e)
			continue;
		out->count += load_relaxed(&e->count);
		out->bytes += load_relaxed(&e->bytes);
		out->lost += load_relaxed(&e->lost);
		out->waits += load_relaxed(&e->waits);
		out->wakes += lay_wakes(e);
		out->page_bytes += sizeof(*e);
		latency |= load_relaxed(&e->latency); /* of the first of its lanes alone */
		out->sleeping |= (int)load_relaxed(&e->asleep);
		out->waiting |= out->role == SHMQ_ROLE_PUBLISHER && load_relaxed(&e->need);
		out->evicted |= !!(load_relaxed(&e->flags) & LAY_ENTRY_EVICTED);
		lag = seq_diff(shmq__topic_head(&t->ring[p]), load_relaxed(&e->pos));
		if (out->role == SHMQ_ROLE_SUBSCRIBER && lag > 0)
			out->lag += (uint64_t)lag;
	}
	if (out->role == SHMQ_ROLE_SUBSCRIBER)
		describe_latency(latency, out);
}

SHMQ_EXPORT int shmq_peer_each(shmq_bus *bus, const char *topic,
			       int (*visit)(void *arg, const struct shmq_peer_info *peer),
			       void *arg)
{
	struct shmq__roster_iter it = { 0 };
	struct shmq_peer_info info;
	struct shmq__topic *t;
	struct lay_member *m;
	int rc = attach_by_name(bus, topic, &t);

	if (rc)
		return rc;
	while (!rc && (m = shmq__topic_next_member(t, &it))) {
		describe_peer(t, m, &info);
		rc = visited(bus, visit(arg, &info));
	}
	shmq__topic_detach(t);
	return rc;
}

static int describe_handle(const struct shmq__handle *h, struct shmq_topic_info *out)
{
	int error = bus_check(h->bus);

	return error ? error : shmq__bus_describe_topic(h->bus, h->topic->index, out);
}

SHMQ_EXPORT int shmq_pub_get_topic(const shmq_pub *pub, struct shmq_topic_info *out)
{
	return describe_handle((const struct shmq__handle *)pub, out);
}

SHMQ_EXPORT int shmq_sub_get_topic(const shmq_sub *sub, struct shmq_topic_info *out)
{
	int error = bus_check(shmq__sub_bus(sub));

	if (!error && !(sub = shmq__sub_teller(sub)))
		error = SHMQ_EEMPTY;
	return error ? error : describe_handle((const struct shmq__handle *)sub, out);
}
