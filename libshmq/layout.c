/* SPDX-License-Identifier: MIT */
#include "layout.h"

#include <stdio.h>
#include <string.h>

static int is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static int is_slot_size(uint32_t bytes)
{
	return bytes >= LAY_SLOT_BYTES_MIN && bytes <= LAY_SLOT_BYTES_MAX && bytes % LAY_LINE == 0;
}

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

uint64_t shmq__layout_ring_bytes(uint64_t depth, uint32_t slot_bytes, unsigned page_shift)
{
	return round_up(LAY_RING_HEADER_BYTES + depth * slot_bytes, UINT64_C(1) << page_shift);
}

static uint32_t payload_off(unsigned flags)
{
	uint32_t off = sizeof(struct lay_slot);

	if (flags & (SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME))
		off += sizeof(struct lay_slot_extra);
	return off;
}

uint32_t shmq__layout_inline_bytes(uint32_t slot_bytes, unsigned flags)
{
	return slot_bytes - payload_off(flags);
}

/* Two of the largest so that one can be written while one is read, and at
 * least what keeps a ring of small arena messages busy. */
uint64_t shmq__layout_arena_bytes(uint64_t max_bytes, uint32_t inline_bytes, uint64_t depth)
{
	uint64_t two, busy;

	if (max_bytes <= inline_bytes)
		return 0;
	two = 2 * round_up(max_bytes, LAY_LINE);
	busy = depth * LAY_SLOT_BYTES_MAX;
	if (busy > (UINT64_C(4) << 20))
		busy = UINT64_C(4) << 20;
	return round_up(two > busy ? two : busy, LAY_PAGE);
}

/* The topic's own default is for publishers of whole rings. */
uint64_t shmq__layout_reply_arena(uint64_t max_bytes, uint32_t inline_bytes)
{
	const uint64_t least = UINT64_C(64) << 10, most = UINT64_C(1) << 20;
	uint64_t bytes = 16 * max_bytes;

	if (max_bytes <= inline_bytes)
		return 0;
	if (bytes > most)
		bytes = 2 * max_bytes > most ? 2 * max_bytes : most;
	return bytes > least ? bytes : least;
}

int shmq__layout_geometry(const struct lay_topic *t, struct lay_geometry *g)
{
	memset(g, 0, sizeof(*g));
	g->depth = t->depth;
	g->slot_bytes = t->slot_bytes;
	g->partitions = t->partitions;
	g->flags = t->flags;
	g->max_bytes = t->max_bytes;
	g->ring_bytes = t->ring_bytes;
	g->mode = t->mode;
	g->policy = t->policy;
	g->stall = t->stall;
	g->wait = t->wait;
	g->log = t->log ? t->log : SHMQ_LOG_NONE;
	if (!is_power_of_two(g->depth) || g->depth < LAY_DEPTH_MIN || g->depth > LAY_DEPTH_MAX)
		return SHMQ_ECORRUPT;
	if (!is_slot_size(g->slot_bytes))
		return SHMQ_ECORRUPT;
	if (!g->partitions || g->partitions > LAY_PARTITIONS_MAX || g->max_bytes > LAY_MESSAGE_MAX)
		return SHMQ_ECORRUPT;
	if (g->mode < SHMQ_EXCLUSIVE || g->mode > SHMQ_SHARED || g->policy < SHMQ_BLOCK ||
	    g->policy > SHMQ_EVICT)
		return SHMQ_ECORRUPT;
	if (g->log > SHMQ_LOG_GAP)
		return SHMQ_ECORRUPT;
	if (g->ring_bytes < LAY_RING_HEADER_BYTES + g->depth * g->slot_bytes)
		return SHMQ_ECORRUPT;
	g->mask = g->depth - 1;
	g->depth_shift = (uint32_t)__builtin_ctzll(g->depth);
	g->payload_off = payload_off(g->flags);
	g->inline_bytes = g->slot_bytes - g->payload_off;
	return 0;
}

static int is_served(uint32_t version)
{
	return version >= LAY_OLDEST && version <= LAY_VERSION;
}

int shmq__layout_check_ring(const struct lay_ring *r, const struct lay_geometry *g,
			    uint64_t topic_id, uint32_t partition)
{
	/* Relaxed: what it belongs to was acquired, as the state of its topic, or came
	 * by a socket.  So with the registry. */
	if (load_relaxed(&r->magic) != LAY_MAGIC_RING)
		return SHMQ_ECORRUPT;
	if (!is_served(r->version))
		return SHMQ_EVERSION;
	if (r->topic_id != topic_id || r->partition != partition || r->depth != g->depth ||
	    r->slot_bytes != g->slot_bytes)
		return SHMQ_ECORRUPT;
	return 0;
}

int shmq__layout_check_registry(const struct lay_registry *r)
{
	if (load_relaxed(&r->magic) != LAY_MAGIC_REGISTRY)
		return SHMQ_ECORRUPT;
	if (!is_served(r->version))
		return SHMQ_EVERSION;
	if (load_relaxed(&r->client_count) > LAY_CLIENT_MAX + 1 ||
	    load_relaxed(&r->topic_count) > LAY_TOPICS_MAX ||
	    load_relaxed(&r->arena_count) > LAY_ARENAS_MAX ||
	    load_relaxed(&r->slab_count) > LAY_SLABS_MAX)
		return SHMQ_ECORRUPT;
	return 0;
}

void shmq__layout_init_ring(void *mem, uint32_t version, const struct lay_geometry *g,
			    uint64_t topic_id, uint32_t partition, uint64_t base_seq)
{
	struct lay_ring *r = mem;
	uint64_t seq;

	memset(r, 0, sizeof(*r));
	r->version = version;
	r->partition = partition;
	r->topic_id = topic_id;
	r->depth = g->depth;
	r->slot_bytes = g->slot_bytes;
	r->base_seq = base_seq;
	store_relaxed(&r->state, LAY_RING_LIVE);
	store_relaxed(&r->tail_hint, base_seq);
	store_relaxed(&r->void_forgotten, base_seq); /* nothing at or after it */
	for (seq = base_seq; seq != base_seq + g->depth; seq++)
		store_relaxed(&lay_slot_at(r, g, seq)->ctrl,
			      LAY_CTRL(lay_lap(g, seq) - 1, 0, LAY_VOID));
	/* Last, for whoever finds what was left of this; the record of its topic, or the
	 * answer, releases it. */
	fence_light();
	store_relaxed(&r->magic, LAY_MAGIC_RING);
}

static int refuse(char *why, size_t bytes, const char *text)
{
	snprintf(why, bytes, "%s", text);
	return SHMQ_EOPTION;
}

static int log_defaults(struct shmq_topic_options *o, char *why, size_t n)
{
	if (!o->log)
		o->log = SHMQ_LOG_NONE;
	if (o->log < SHMQ_LOG_NONE || o->log > SHMQ_LOG_GAP)
		return refuse(why, n, "log must be none, block or gap");
	if (o->log == SHMQ_LOG_BLOCK && o->policy == SHMQ_LOSSY)
		return refuse(why, n,
			      "publishers of a lossy topic never wait, so they cannot wait for its "
			      "log: ask for log gap, or another policy");
	if (o->log == SHMQ_LOG_NONE &&
	    (o->sync || o->sync_ns || o->segment_bytes || o->retain_bytes || o->retain_ns ||
	     o->compress || (o->flags & SHMQ_TOPIC_RETAIN_KEYS)))
		return refuse(why, n,
			      "sync, segment, retain and compress options need log block or gap");
	if ((o->flags & SHMQ_TOPIC_RETAIN_CURSORS) && !o->retain_bytes && !o->retain_ns &&
	    !(o->flags & SHMQ_TOPIC_RETAIN_KEYS))
		return refuse(
			why, n,
			"to retain for cursors needs retain bytes, a retain time or retain keys");
	if (o->tombstone_ns && !(o->flags & SHMQ_TOPIC_RETAIN_KEYS))
		return refuse(why, n, "a tombstone time needs retain keys");
	if (o->compress < 0 || o->compress > LAY_COMPRESS_MAX)
		return refuse(why, n, "compress must be 0 to 19");
	if (o->log == SHMQ_LOG_NONE)
		return 0;
	if (!o->sync)
		o->sync = SHMQ_SYNC_INTERVAL;
	if (o->sync < SHMQ_SYNC_NONE || o->sync > SHMQ_SYNC_EVERY)
		return refuse(why, n, "sync must be none, interval, batch or every");
	if (o->sync_ns < 0 || o->retain_ns < 0 || o->tombstone_ns < 0)
		return refuse(why, n, "sync, retain and tombstone times must not be negative");
	if ((o->flags & SHMQ_TOPIC_RETAIN_KEYS) && !o->tombstone_ns)
		o->tombstone_ns = LAY_TOMBSTONE_NS;
	if (!o->sync_ns)
		o->sync_ns = o->sync == SHMQ_SYNC_BATCH ? 5 * 1000 * 1000 : 1000 * 1000 * 1000;
	if (!o->segment_bytes)
		o->segment_bytes = LAY_SEGMENT_BYTES;
	if (o->segment_bytes < LAY_SEGMENT_BYTES_MIN || o->segment_bytes > LAY_SEGMENT_BYTES_MAX)
		return refuse(why, n, "segment bytes must be 1 MiB to 1 TiB");
	return 0;
}

int shmq__layout_defaults(struct shmq_topic_options *o, char *why, size_t n)
{
	uint32_t inl;

	if (!o->depth)
		o->depth = 8192;
	if (o->depth > LAY_DEPTH_MAX)
		return refuse(why, n, "depth is above 2^32 slots");
	if (o->depth < LAY_DEPTH_MIN)
		o->depth = LAY_DEPTH_MIN;
	while (!is_power_of_two(o->depth))
		o->depth += o->depth & -o->depth;
	if (!o->slot_bytes)
		o->slot_bytes = 128;
	if (!is_slot_size(o->slot_bytes))
		return refuse(why, n, "slot bytes must be a multiple of 64 up to 4096");
	if (!o->partitions)
		o->partitions = 1;
	if (o->partitions > LAY_PARTITIONS_MAX)
		return refuse(why, n, "partitions must be 1 to 4096");
	if (o->flags & ~(unsigned)(SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME | SHMQ_TOPIC_SPIN_ONLY |
				   SHMQ_TOPIC_RETAIN_CURSORS | SHMQ_TOPIC_RETAIN_KEYS))
		return refuse(why, n, "unknown topic flag");
	inl = shmq__layout_inline_bytes(o->slot_bytes, o->flags);
	if (!o->max_message_bytes)
		o->max_message_bytes = inl;
	if (o->max_message_bytes > LAY_MESSAGE_MAX)
		return refuse(why, n, "max message bytes is above 1 GiB");
	if (!o->mode)
		o->mode = SHMQ_EXCLUSIVE;
	if (o->mode < SHMQ_EXCLUSIVE || o->mode > SHMQ_SHARED)
		return refuse(why, n, "mode must be exclusive or shared");
	if (!o->policy)
		o->policy = SHMQ_BLOCK;
	if (o->policy < SHMQ_BLOCK || o->policy > SHMQ_EVICT)
		return refuse(why, n, "policy must be block, drop-new, lossy or evict");
	if (!o->stall)
		o->stall = SHMQ_STALL_KILL;
	if (o->stall < SHMQ_STALL_KILL || o->stall > SHMQ_STALL_REPORT)
		return refuse(why, n, "stall must be kill or report");
	if (!o->wait)
		o->wait = (o->flags & SHMQ_TOPIC_SPIN_ONLY) ? SHMQ_WAIT_SPIN : SHMQ_WAIT_ADAPTIVE;
	if (o->wait < SHMQ_WAIT_ADAPTIVE || o->wait > SHMQ_WAIT_SLEEP)
		return refuse(why, n, "wait must be adaptive, spin, yield or sleep");
	if ((o->flags & SHMQ_TOPIC_SPIN_ONLY) &&
	    (o->wait == SHMQ_WAIT_ADAPTIVE || o->wait == SHMQ_WAIT_SLEEP))
		return refuse(why, n, "a spin-only topic cannot wait by adaptive or sleep");
	if (!o->pages)
		o->pages = SHMQ_PAGES_AUTO;
	if (o->pages < SHMQ_PAGES_AUTO || o->pages > SHMQ_PAGES_1G)
		return refuse(why, n, "pages must be auto, 4k, 2m or 1g");
	if (!o->lock)
		o->lock = SHMQ_LOCK_AUTO;
	if (o->lock < SHMQ_LOCK_AUTO || o->lock > SHMQ_LOCK_ALWAYS)
		return refuse(why, n, "lock must be auto, never or always");
	if (o->node < SHMQ_NODE_PUBLISHER)
		return refuse(why, n,
			      "node must be SHMQ_NODE_ANY, SHMQ_NODE_PUBLISHER or SHMQ_NODE(n)");
	if (o->evict_ns < 0)
		return refuse(why, n, "evict time must not be negative");
	if (!o->evict_ns)
		o->evict_ns = 100 * 1000 * 1000;
	if (!o->block_timeout_ns)
		o->block_timeout_ns = SHMQ_FOREVER;
	if (o->block_timeout_ns < -1)
		return refuse(why, n, "block timeout must be SHMQ_FOREVER or positive");
	return log_defaults(o, why, n);
}
