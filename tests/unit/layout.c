/* SPDX-License-Identifier: MIT */
#include "fake.h"
#include "layout.h"
#include "tap.h"

#include <stdlib.h>

/* ---- options ---------------------------------------------------------------- */

static char why[256];

static int defaults(struct shmq_topic_options *o)
{
	memset(why, 0, sizeof(why));
	return shmq__layout_defaults(o, why, sizeof(why));
}

TEST(defaults_are_those_the_header_documents)
{
	struct shmq_topic_options o = { 0 };

	CHECK_OK(defaults(&o));
	CHECK_EQ(o.depth, 8192);
	CHECK_EQ(o.slot_bytes, 128);
	CHECK_EQ(o.partitions, 1);
	CHECK_EQ(o.max_message_bytes, 112);
	CHECK_EQ(o.mode, SHMQ_EXCLUSIVE);
	CHECK_EQ(o.policy, SHMQ_BLOCK);
	CHECK_EQ(o.stall, SHMQ_STALL_KILL);
	CHECK_EQ(o.wait, SHMQ_WAIT_ADAPTIVE);
	CHECK_EQ(o.pages, SHMQ_PAGES_AUTO);
	CHECK_EQ(o.lock, SHMQ_LOCK_AUTO);
	CHECK_EQ(o.node, SHMQ_NODE_ANY);
	CHECK_EQ(o.evict_ns, 100000000);
	CHECK_EQ(o.block_timeout_ns, SHMQ_FOREVER);
	o = (struct shmq_topic_options){ .flags = SHMQ_TOPIC_SPIN_ONLY };
	CHECK_OK(defaults(&o));
	CHECK_EQ(o.wait, SHMQ_WAIT_SPIN);
	o = (struct shmq_topic_options){ .flags = SHMQ_TOPIC_TAG };
	CHECK_OK(defaults(&o));
	CHECK_EQ(o.max_message_bytes, 96);
	o = (struct shmq_topic_options){ .flags = SHMQ_TOPIC_TIME, .slot_bytes = 64 };
	CHECK_OK(defaults(&o));
	CHECK_EQ(o.max_message_bytes, 32);
}

TEST(depths_are_rounded_up_to_a_power_of_two)
{
	static const uint64_t depth[][2] = {
		{ 1, 1024 },
		{ 1023, 1024 },
		{ 1024, 1024 },
		{ 1025, 2048 },
		{ 3000, 4096 },
		{ 1 << 20, 1 << 20 },
		{ (1 << 20) + 1, 2 << 20 },
		{ (UINT64_C(1) << 32) - 1, UINT64_C(1) << 32 },
		{ UINT64_C(1) << 32, UINT64_C(1) << 32 },
	};

	for (size_t i = 0; i < sizeof(depth) / sizeof(depth[0]); i++) {
		struct shmq_topic_options o = { .depth = depth[i][0] };

		CHECK_OK(defaults(&o));
		CHECK_EQ(o.depth, depth[i][1]);
	}
}

TEST(the_largest_of_everything_passes)
{
	struct shmq_topic_options o = {
		.depth = UINT64_C(1) << 32,
		.slot_bytes = 4096,
		.partitions = 4096,
		.max_message_bytes = UINT64_C(1) << 30,
		.mode = SHMQ_SHARED,
		.policy = SHMQ_EVICT,
		.stall = SHMQ_STALL_REPORT,
		.wait = SHMQ_WAIT_SLEEP,
		.pages = SHMQ_PAGES_1G,
		.lock = SHMQ_LOCK_ALWAYS,
		.node = SHMQ_NODE(63),
		.flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME | SHMQ_TOPIC_RETAIN_CURSORS |
			 SHMQ_TOPIC_RETAIN_KEYS,
		.evict_ns = INT64_MAX,
		.block_timeout_ns = INT64_MAX,
		.log = SHMQ_LOG_GAP,
		.sync = SHMQ_SYNC_EVERY,
		.sync_ns = INT64_MAX,
		.segment_bytes = UINT64_C(1) << 40,
		.retain_bytes = UINT64_MAX,
		.retain_ns = INT64_MAX,
		.tombstone_ns = INT64_MAX,
		.compress = 19,
	};
	struct shmq_topic_options same = o;

	CHECK_OK(defaults(&o));
	CHECK_MEM(&o, &same, sizeof(o));
}

#define REFUSED(reason, ...) \
	do { \
		struct shmq_topic_options o = { __VA_ARGS__ }; \
		CHECK_EQ(defaults(&o), SHMQ_EOPTION); \
		CHECK_STR(why, reason); \
	} while (0)

TEST(options_out_of_range_are_refused_with_the_reason)
{
	REFUSED("depth is above 2^32 slots", .depth = (UINT64_C(1) << 32) + 1);
	REFUSED("depth is above 2^32 slots", .depth = UINT64_MAX);
	REFUSED("slot bytes must be a multiple of 64 up to 4096", .slot_bytes = 32);
	REFUSED("slot bytes must be a multiple of 64 up to 4096", .slot_bytes = 65);
	REFUSED("slot bytes must be a multiple of 64 up to 4096", .slot_bytes = 8192);
	REFUSED("slot bytes must be a multiple of 64 up to 4096", .slot_bytes = UINT32_MAX);
	REFUSED("partitions must be 1 to 4096", .partitions = 4097);
	REFUSED("unknown topic flag", .flags = 32);
	REFUSED("unknown topic flag", .flags = 0x80000000u);
	REFUSED("compress must be 0 to 19", .log = SHMQ_LOG_GAP, .compress = 20);
	REFUSED("compress must be 0 to 19", .log = SHMQ_LOG_GAP, .compress = -1);
	REFUSED("a tombstone time needs retain keys", .log = SHMQ_LOG_GAP, .tombstone_ns = 1);
	REFUSED("sync, retain and tombstone times must not be negative", .log = SHMQ_LOG_GAP,
		.flags = SHMQ_TOPIC_RETAIN_KEYS, .tombstone_ns = -1);
	REFUSED("sync, segment, retain and compress options need log block or gap", .compress = 3);
	REFUSED("to retain for cursors needs retain bytes, a retain time or retain keys",
		.log = SHMQ_LOG_GAP, .flags = SHMQ_TOPIC_RETAIN_CURSORS);
	REFUSED("max message bytes is above 1 GiB", .max_message_bytes = (UINT64_C(1) << 30) + 1);
	REFUSED("mode must be exclusive or shared", .mode = (enum shmq_mode)3);
	REFUSED("policy must be block, drop-new, lossy or evict", .policy = (enum shmq_policy)5);
	REFUSED("stall must be kill or report", .stall = (enum shmq_stall)3);
	REFUSED("wait must be adaptive, spin, yield or sleep", .wait = (enum shmq_wait)5);
	REFUSED("a spin-only topic cannot wait by adaptive or sleep", .flags = SHMQ_TOPIC_SPIN_ONLY,
		.wait = SHMQ_WAIT_ADAPTIVE);
	REFUSED("a spin-only topic cannot wait by adaptive or sleep", .flags = SHMQ_TOPIC_SPIN_ONLY,
		.wait = SHMQ_WAIT_SLEEP);
	REFUSED("pages must be auto, 4k, 2m or 1g", .pages = (enum shmq_pages)5);
	REFUSED("lock must be auto, never or always", .lock = (enum shmq_lock)4);
	REFUSED("node must be SHMQ_NODE_ANY, SHMQ_NODE_PUBLISHER or SHMQ_NODE(n)", .node = -2);
	REFUSED("evict time must not be negative", .evict_ns = -1);
	REFUSED("block timeout must be SHMQ_FOREVER or positive", .block_timeout_ns = -2);
}

/* ---- sizes ------------------------------------------------------------------ */

TEST(rings_take_whole_pages)
{
	CHECK_EQ(shmq__layout_ring_bytes(1024, 64, 12), 4096 + 65536);
	CHECK_EQ(shmq__layout_ring_bytes(1024, 64, 21), 2 << 20);
	CHECK_EQ(shmq__layout_ring_bytes(1 << 20, 128, 21), (128 << 20) + (2 << 20));
	CHECK_EQ(shmq__layout_ring_bytes(UINT64_C(1) << 32, 4096, 30),
		 (UINT64_C(1) << 44) + (UINT64_C(1) << 30));
}

TEST(a_slot_carries_what_its_header_leaves)
{
	CHECK_EQ(shmq__layout_inline_bytes(64, 0), 48);
	CHECK_EQ(shmq__layout_inline_bytes(64, SHMQ_TOPIC_SPIN_ONLY), 48);
	CHECK_EQ(shmq__layout_inline_bytes(64, SHMQ_TOPIC_TAG), 32);
	CHECK_EQ(shmq__layout_inline_bytes(64, SHMQ_TOPIC_TIME), 32);
	CHECK_EQ(shmq__layout_inline_bytes(128, SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME), 96);
	CHECK_EQ(shmq__layout_inline_bytes(4096, 0), 4080);
}

TEST(an_arena_holds_two_of_the_largest_or_keeps_a_ring_busy)
{
	CHECK_EQ(shmq__layout_arena_bytes(112, 112, 8192), 0);
	CHECK_EQ(shmq__layout_arena_bytes(1, 112, 8192), 0);
	CHECK_EQ(shmq__layout_arena_bytes(113, 112, 1024), 4 << 20);
	CHECK_EQ(shmq__layout_arena_bytes(113, 112, UINT64_C(1) << 32), 4 << 20);
	CHECK_EQ(shmq__layout_arena_bytes(UINT64_C(1) << 30, 112, 1024), UINT64_C(1) << 31);
	CHECK_EQ(shmq__layout_arena_bytes((3 << 20) + 1, 112, 1024), (6 << 20) + 4096);
	CHECK_EQ(shmq__layout_reply_arena(468, 468), 0);
	CHECK_EQ(shmq__layout_reply_arena(469, 468), 64 << 10);
	CHECK_EQ(shmq__layout_reply_arena(8 << 10, 468), 128 << 10);
	CHECK_EQ(shmq__layout_reply_arena(100 << 10, 468), 1 << 20);
	CHECK_EQ(shmq__layout_reply_arena(16 << 20, 468), 32 << 20);
}

/* ---- records that others wrote ------------------------------------------------ */

static struct lay_topic *good_topic(void)
{
	static struct lay_topic t;

	t = (struct lay_topic){ .depth = 4096,
				.slot_bytes = 128,
				.partitions = 2,
				.max_bytes = 1000,
				.flags = SHMQ_TOPIC_TIME,
				.mode = SHMQ_SHARED,
				.policy = SHMQ_EVICT,
				.stall = SHMQ_STALL_KILL,
				.wait = SHMQ_WAIT_YIELD };
	t.ring_bytes = shmq__layout_ring_bytes(t.depth, t.slot_bytes, 12);
	return &t;
}

TEST(a_good_record_becomes_a_geometry)
{
	struct lay_geometry g;

	CHECK_OK(shmq__layout_geometry(good_topic(), &g));
	CHECK_EQ(g.depth, 4096);
	CHECK_EQ(g.mask, 4095);
	CHECK_EQ(g.depth_shift, 12);
	CHECK_EQ(g.slot_bytes, 128);
	CHECK_EQ(g.payload_off, 32);
	CHECK_EQ(g.inline_bytes, 96);
	CHECK_EQ(g.partitions, 2);
	CHECK_EQ(g.max_bytes, 1000);
	CHECK_EQ(g.ring_bytes, 4096 + 4096 * 128);
	CHECK_EQ(g.mode, SHMQ_SHARED);
	CHECK_EQ(g.policy, SHMQ_EVICT);
	CHECK_EQ(g.stall, SHMQ_STALL_KILL);
	CHECK_EQ(g.wait, SHMQ_WAIT_YIELD);
}

#define MAD(change) \
	do { \
		struct lay_topic *t = good_topic(); \
		struct lay_geometry g; \
		change; \
		CHECK_EQ(shmq__layout_geometry(t, &g), SHMQ_ECORRUPT); \
	} while (0)

TEST(a_record_that_cannot_be_is_refused)
{
	MAD(t->depth = 0);
	MAD(t->depth = 512);
	MAD(t->depth = 4097);
	MAD(t->depth = UINT64_C(1) << 33);
	MAD(t->slot_bytes = 0);
	MAD(t->slot_bytes = 32);
	MAD(t->slot_bytes = 96);
	MAD(t->slot_bytes = 8192);
	MAD(t->partitions = 0);
	MAD(t->partitions = 4097);
	MAD(t->max_bytes = (UINT64_C(1) << 30) + 1);
	MAD(t->mode = 0);
	MAD(t->mode = 3);
	MAD(t->policy = 0);
	MAD(t->policy = 5);
	MAD(t->ring_bytes = 0);
	MAD(t->ring_bytes--);
}

TEST(a_ring_that_is_not_the_one_expected_is_refused)
{
	struct lay_geometry g = fake_geometry(&(struct fake_options){ 0 });
	struct lay_ring *r = fake_ring(&g, 5);
	uint64_t id = r->topic_id;

	CHECK_OK(shmq__layout_check_ring(r, &g, id, 0));
	CHECK_EQ(shmq__layout_check_ring(r, &g, id + 1, 0), SHMQ_ECORRUPT);
	CHECK_EQ(shmq__layout_check_ring(r, &g, id, 1), SHMQ_ECORRUPT);
	r->depth *= 2;
	CHECK_EQ(shmq__layout_check_ring(r, &g, id, 0), SHMQ_ECORRUPT);
	r->depth /= 2;
	r->slot_bytes *= 2;
	CHECK_EQ(shmq__layout_check_ring(r, &g, id, 0), SHMQ_ECORRUPT);
	r->slot_bytes /= 2;
	r->version++;
	CHECK_EQ(shmq__layout_check_ring(r, &g, id, 0), SHMQ_EVERSION);
	r->magic = 0; /* not even begun: no version to speak of */
	CHECK_EQ(shmq__layout_check_ring(r, &g, id, 0), SHMQ_ECORRUPT);
	fake_ring_free(r, &g);
}

TEST(a_registry_that_cannot_be_is_refused)
{
	struct lay_registry *r = calloc(1, sizeof(*r));

	CHECK_EQ(shmq__layout_check_registry(r), SHMQ_ECORRUPT);
	r->magic = LAY_MAGIC_REGISTRY;
	CHECK_EQ(shmq__layout_check_registry(r), SHMQ_EVERSION);
	r->version = LAY_VERSION;
	CHECK_OK(shmq__layout_check_registry(r));
	store_relaxed(&r->client_count, LAY_CLIENT_MAX + 1);
	store_relaxed(&r->topic_count, LAY_TOPICS_MAX);
	store_relaxed(&r->arena_count, LAY_ARENAS_MAX);
	store_relaxed(&r->slab_count, LAY_SLABS_MAX);
	CHECK_OK(shmq__layout_check_registry(r));
	add_relaxed(&r->client_count, 1);
	CHECK_EQ(shmq__layout_check_registry(r), SHMQ_ECORRUPT);
	add_relaxed(&r->client_count, -1);
	add_relaxed(&r->topic_count, 1);
	CHECK_EQ(shmq__layout_check_registry(r), SHMQ_ECORRUPT);
	add_relaxed(&r->topic_count, -1);
	add_relaxed(&r->arena_count, 1);
	CHECK_EQ(shmq__layout_check_registry(r), SHMQ_ECORRUPT);
	add_relaxed(&r->arena_count, -1);
	add_relaxed(&r->slab_count, 1);
	CHECK_EQ(shmq__layout_check_registry(r), SHMQ_ECORRUPT);
	free(r);
}

/* ---- words ------------------------------------------------------------------- */

TEST(a_control_word_keeps_its_parts_apart)
{
	static const uint64_t lap[] = { 0, 1, LAY_LAP_MASK, LAY_LAP_MASK - 1, 12345678 };

	for (size_t i = 0; i < sizeof(lap) / sizeof(lap[0]); i++) {
		for (unsigned state = LAY_CLAIMED; state <= LAY_AHEAD; state++) {
			uint64_t w = LAY_CTRL(lap[i], LAY_CLIENT_MAX, state);

			CHECK_EQ(LAY_CTRL_LAP(w), lap[i]);
			CHECK_EQ(LAY_CTRL_OWNER(w), LAY_CLIENT_MAX);
			CHECK_EQ(LAY_CTRL_STATE(w), state);
			CHECK_EQ(LAY_CTRL_SANS_OWNER(w), LAY_CTRL(lap[i], 0, state));
			CHECK_EQ(LAY_CTRL_OWNER(LAY_CTRL(lap[i], 1, state)), 1);
		}
	}
	CHECK_EQ(LAY_CTRL(LAY_LAP_MASK + 1, 0, 1), LAY_CTRL(0, 0, 1));
	CHECK_EQ(LAY_CTRL(UINT64_C(0) - 1, 0, 1), LAY_CTRL(LAY_LAP_MASK, 0, 1));
}

TEST(laps_are_compared_over_their_wrap)
{
	CHECK_EQ(lay_lap_diff(5, 5), 0);
	CHECK_EQ(lay_lap_diff(6, 5), 1);
	CHECK_EQ(lay_lap_diff(5, 6), -1);
	CHECK_EQ(lay_lap_diff(0, LAY_LAP_MASK), 1);
	CHECK_EQ(lay_lap_diff(LAY_LAP_MASK, 0), -1);
	CHECK_EQ(lay_lap_diff(3, LAY_LAP_MASK - 3), 7);
	CHECK_EQ(lay_lap_diff((LAY_LAP_MASK >> 1), 0), (int64_t)(LAY_LAP_MASK >> 1));
	CHECK_LT(lay_lap_diff((LAY_LAP_MASK >> 1) + 1, 0), 0);
}

TEST(seqs_are_compared_over_their_wrap)
{
	CHECK_EQ(seq_diff(0, UINT64_MAX), 1);
	CHECK_EQ(seq_diff(UINT64_MAX, 0), -1);
	CHECK_EQ(seq_diff(7, 3), 4);
}

TEST(who_waits_for_a_seq_has_a_bit_of_all_ranges_that_it_is_in)
{
	static const uint64_t bases[] = { 0, 1, 126, 1000, INT64_MAX - 70, UINT64_MAX - 70 };

	for (size_t b = 0; b < sizeof(bases) / sizeof(bases[0]); b++)
		for (uint64_t n = 1; n < 200; n++) {
			uint64_t from = bases[b], to = from + n;

			for (uint64_t seq = from; seq != to; seq++)
				CHECK(lay_seq_bits(from, to) & lay_seq_bits(seq, seq + 1));
		}
}

TEST(who_waits_for_a_later_seq_has_no_bit_of_a_range_before_it)
{
	for (uint64_t from = 0; from < 130; from++)
		for (uint64_t seq = from + 64 + LAY_SEQS_PER_BIT; seq < from + 100; seq++)
			CHECK_EQ(lay_seq_bits(from, from + 64) & lay_seq_bits(seq, seq + 1), 0);
}

TEST(a_reference_names_slab_and_offset)
{
	lay_ref ref = LAY_REF(65535, (UINT64_C(1) << 48) - 1);

	CHECK_EQ(LAY_REF_SLAB(ref), 65535);
	CHECK_EQ(LAY_REF_OFF(ref), (UINT64_C(1) << 48) - 1);
	CHECK_EQ(LAY_REF(0, 0), 0);
	CHECK_EQ(LAY_REF_SLAB(LAY_REF(1, 5)), 1);
	CHECK_EQ(LAY_REF_OFF(LAY_REF(1, 5)), 5);
}

TEST(a_fresh_ring_has_every_slot_a_lap_behind)
{
	static const uint64_t bases[] = FAKE_BASES;

	for (size_t i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
		struct lay_geometry g = fake_geometry(&(struct fake_options){ .depth = 2048 });
		struct lay_ring *r = fake_ring(&g, bases[i]);

		CHECK_EQ(r->magic, LAY_MAGIC_RING);
		CHECK_EQ(r->base_seq, bases[i]);
		CHECK_EQ(load_relaxed(&r->state), LAY_RING_LIVE);
		CHECK_EQ(load_relaxed(&r->tail_hint), bases[i]);
		CHECK_EQ(load_relaxed(&r->owner), 0);
		CHECK_EQ(load_relaxed(&r->void_count), 0);
		CHECK_EQ(load_relaxed(&r->void_forgotten), bases[i]);
		for (uint64_t n = bases[i]; n != bases[i] + 2048; n++) {
			uint64_t w = load_relaxed(fake_ctrl(r, &g, n));

			CHECK_EQ(LAY_CTRL_STATE(w), LAY_VOID);
			CHECK_EQ(LAY_CTRL_OWNER(w), 0);
			CHECK_EQ(lay_lap_diff(LAY_CTRL_LAP(w), lay_lap(&g, n)), -1);
		}
		fake_ring_free(r, &g);
	}
}

TEST(the_tables_of_the_registry_do_not_overlap)
{
	CHECK_LE(sizeof(struct lay_registry), LAY_CLIENTS_OFF);
	CHECK_LE(LAY_CLIENTS_OFF + (LAY_CLIENT_MAX + 1) * sizeof(struct lay_client), LAY_SLABS_OFF);
	CHECK_LE(LAY_SLABS_OFF + LAY_SLABS_MAX * sizeof(struct lay_slab), LAY_ARENAS_OFF);
	CHECK_LE(LAY_ARENAS_OFF + LAY_ARENAS_MAX * sizeof(struct lay_arena), LAY_TOPICS_OFF);
	CHECK_LE(LAY_TOPICS_OFF + LAY_TOPICS_MAX * sizeof(struct lay_topic), LAY_HEAP_OFF);
	CHECK_LT(LAY_HEAP_OFF, LAY_REGISTRY_BYTES);
}
