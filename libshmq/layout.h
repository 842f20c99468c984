/* SPDX-License-Identifier: MIT
 *
 * layout: every byte that processes share.
 *
 * Objects live in slabs.  A slab is one sealed memfd with one set of
 * writers and one page size; it is sparse and very large, and an object
 * is a range of it that was populated before anyone got to know of it.
 * A reference names an object by slab and offset, never by pointer.
 *
 *   slab       read-write                    read-only
 *   registry   supervisor                    every client
 *   bell       every client                  -
 *   entry      client page: its client       every client
 *   ring       publishers, supervisor        subscribers
 *   arena      its publisher                 subscribers
 *
 * Only the supervisor writes the registry.  What stands in any other slab
 * was written by a peer: load it once into a local, check, then use.
 * Numbers are in the machine's byte order; offsets are from the start of
 * the object unless said otherwise.
 */
#ifndef SHMQ_LAYOUT_H
#define SHMQ_LAYOUT_H

#include "atomics.h"
#include "shmq.h"

/* A bus has the layout that it began with for as long as it lives, and a
 * build serves its own and the one before, so that a supervisor can be
 * replaced under its clients: where two layouts differ, the code goes by the
 * version in the registry.  Any other is refused by name, for which magic and
 * version stand where they are in every layout.  What moves here is a new
 * version, and shared.abi has on record what must not move without one; what
 * comes where padding was is none if zero means that it is not there.  LAY_SKEW
 * makes newer builds for tests. */
#ifndef LAY_SKEW
#define LAY_SKEW 0u
#endif
#define LAY_VERSION (1u + LAY_SKEW)
#define LAY_OLDEST (LAY_VERSION > 1 ? LAY_VERSION - 1 : 1u)
#define LAY_MAGIC_REGISTRY UINT64_C(0x31676572514d4853) /* "SMHQreg1" */
#define LAY_MAGIC_RING UINT64_C(0x316e6972514d4853)     /* "SMHQrin1" */

#define LAY_LINE 64u
#define LAY_PAGE 4096u

/* ---- references ------------------------------------------------------ */

/* slab:16 | offset:48.  0 is "none": offset 0 of slab 0 is the registry
 * header, which nobody refers to. */
typedef uint64_t lay_ref;

#define LAY_REF(slab, off) (((lay_ref)(slab) << 48) | (uint64_t)(off))
#define LAY_REF_SLAB(ref) ((unsigned)((ref) >> 48))
#define LAY_REF_OFF(ref) ((ref) & ((UINT64_C(1) << 48) - 1))

/* ---- slot control word ----------------------------------------------- */

/* lap:47 | owner:14 | state:3.  lap = seq / depth, modulo 2^47. */
enum lay_state {
	LAY_CLAIMED = 1,   /* about to come: the owner writes */
	LAY_COMMITTED = 2, /* a message */
	LAY_VOID = 3,      /* never a message */
	LAY_GONE = 4,      /* was a message; its arena bytes were reused */
	LAY_AHEAD = 5,     /* given up early by an exclusive publisher: nothing
			      at this lap yet, and no claim */
};

#define LAY_LAP_BITS 47
#define LAY_LAP_MASK ((UINT64_C(1) << LAY_LAP_BITS) - 1)
#define LAY_OWNER_BITS 14
#define LAY_CLIENT_MAX ((1u << LAY_OWNER_BITS) - 1) /* ids 1..MAX; 0 none */

#define LAY_CTRL(lap, owner, state) \
	((((uint64_t)(lap)&LAY_LAP_MASK) << 17) | ((uint64_t)(owner) << 3) | (uint64_t)(state))
#define LAY_CTRL_LAP(w) ((w) >> 17)
#define LAY_CTRL_OWNER(w) ((unsigned)((w) >> 3) & LAY_CLIENT_MAX)
#define LAY_CTRL_STATE(w) ((unsigned)(w)&7u)
/* The word without its owner: what a reader compares. */
#define LAY_CTRL_SANS_OWNER(w) ((w) & ~((uint64_t)LAY_CLIENT_MAX << 3))

/* Signed distance of two laps, modulo 2^47. */
static inline int64_t lay_lap_diff(uint64_t a, uint64_t b)
{
	return (int64_t)((a - b) << (64 - LAY_LAP_BITS)) >> (64 - LAY_LAP_BITS);
}

/* ---- slot ------------------------------------------------------------ */

/*   0        8      12    14    16             24            32
 *   +--------+------+-----+-----+--------------+-------------+---------
 *   | ctrl   | len  |flags|type | tag          | ts          | payload
 *   +--------+------+-----+-----+--------------+-------------+---------
 *                               `- only if the topic asks for them;
 *                                  otherwise the payload starts at 16
 *
 * Payload bytes, in this order, each only if its flag is set:
 *   BATCH  struct lay_batch, always in the slot
 *   ARENA  struct lay_arena_ref, in the slot; what follows is in the arena
 *   META   u16 key bytes, u16 property bytes, key, properties
 *   the message
 * len counts META and the message, not BATCH and ARENA.
 * ctrl: written by whoever claims, commits, voids; edges in ring.c.
 * The rest: written by the owner between claim and commit. */
struct lay_slot {
	shmq_au64 ctrl;
	uint32_t len;
	uint16_t flags; /* SHMQ_MSG_* */
	uint16_t type;
};
struct lay_slot_extra { /* at 16, topics with SHMQ_TOPIC_TAG or _TIME */
	uint64_t tag;
	uint64_t ts;
};
struct lay_batch {
	uint64_t first_seq;
	uint32_t index;
	uint32_t count;
};
struct lay_arena_ref {
	uint32_t id;
	uint32_t gen; /* low half of the arena's generation */
	uint64_t off;
};
struct lay_meta {
	uint16_t key_bytes;
	uint16_t properties_bytes;
};
_Static_assert(sizeof(struct lay_slot) == 16, "slot header");
_Static_assert(sizeof(struct lay_slot_extra) == 16, "slot extra");
_Static_assert(sizeof(struct lay_batch) == 16, "batch prefix");
_Static_assert(sizeof(struct lay_arena_ref) == 16, "arena reference");
_Static_assert(sizeof(struct lay_meta) == 4, "meta prefix");

#define LAY_SLOT_BYTES_MIN 64u
#define LAY_SLOT_BYTES_MAX 4096u
#define LAY_DEPTH_MIN 1024u
#define LAY_DEPTH_MAX (UINT64_C(1) << 32)
#define LAY_PARTITIONS_MAX 4096u
#define LAY_MESSAGE_MAX (UINT64_C(1) << 30)
#define LAY_SEGMENT_BYTES (UINT64_C(1) << 30)
#define LAY_COMPRESS_MAX 19 /* higher ones take more memory than is decent */
#define LAY_TOMBSTONE_NS (INT64_C(86400) * 1000 * 1000 * 1000)
#define LAY_SEGMENT_BYTES_MIN (UINT64_C(1) << 20)
#define LAY_SEGMENT_BYTES_MAX (UINT64_C(1) << 40)

/* ---- ring ------------------------------------------------------------ */

/*      0 +--------------------------------------------------+
 *        | magic, geometry, state        read-mostly        |
 *    128 +--------------------------------------------------+
 *        | tail hint                     publishers         |
 *    256 +--------------------------------------------------+
 *        | exclusive owner               supervisor         |
 *    384 +--------------------------------------------------+
 *        | void list: count, forgotten, entries             |
 *   4096 +--------------------------------------------------+
 *        | slot[depth]                                      |
 *        +--------------------------------------------------+
 */
#define LAY_VOIDS 448u
#define LAY_RING_HEADER_BYTES 4096u

/* ENDING and MOVING come before ENDED and MOVED (topic.c): publishers are refused
 * already, readers still wait. */
enum lay_ring_state {
	LAY_RING_LIVE = 1,
	LAY_RING_ENDED = 2,
	LAY_RING_MOVED = 3,
	LAY_RING_ENDING = 4,
	LAY_RING_MOVING = 5,
};

/* What was sent is there: a reader that finds no more has read all. */
static inline int lay_ring_is_closed(uint32_t state)
{
	return state == LAY_RING_ENDED || state == LAY_RING_MOVED;
}

/* For another ring, now or in a moment. */
static inline int lay_ring_is_left(uint32_t state)
{
	return state == LAY_RING_MOVED || state == LAY_RING_MOVING;
}

struct lay_ring {
	shmq_au64 magic;  /* supervisor, stored last */
	uint32_t version; /* LAY_VERSION */
	uint32_t partition;
	uint64_t topic_id;
	uint64_t depth;
	uint64_t base_seq; /* first seq of this ring */
	uint32_t slot_bytes;
	shmq_au32 state;     /* enum lay_ring_state; supervisor sets, all read
				after commit and before sleeping */
	shmq_au64 moved_seq; /* first seq of the ring after it; supervisor, before MOVED */
	uint8_t pad0[128 - 56];

	shmq_au64 tail_hint; /* a seq at or before the first unclaimed one;
				publishers store it now and then */
	uint8_t pad1[128 - 8];

	shmq_au64 owner; /* exclusive: client generation << 14 | client id,
			    0 none; supervisor writes before the grant */
	uint8_t pad2[128 - 8];

	/* Holes.  Whoever voids reserves an index, then stores seq + 1 there
	 * before it voids the slot.  Entry i is at i % LAY_VOIDS; a reader
	 * ignores zeros and duplicates.  forgotten: one more than the highest
	 * seq that was overwritten in the list, base_seq at first.  The seq
	 * 2^64 - 1 cannot be entered: it counts as forgotten at once. */
	shmq_au64 void_count;
	shmq_au64 void_forgotten;
	shmq_au64 voids[LAY_VOIDS];
	uint8_t pad3[LAY_RING_HEADER_BYTES - 384 - 16 - 8 * LAY_VOIDS];
};
_Static_assert(sizeof(struct lay_ring) == LAY_RING_HEADER_BYTES, "ring header");
_Static_assert(offsetof(struct lay_ring, tail_hint) == 128, "tail hint has its own lines");
_Static_assert(offsetof(struct lay_ring, owner) == 256, "owner has its own lines");
_Static_assert(offsetof(struct lay_ring, void_count) == 384, "void list");

/* ---- bell ------------------------------------------------------------ */

/* One line for sleeping subscribers, one for publishers waiting for
 * credit.  armed counts goings to sleep, served is the value of armed
 * that the last wake covered, word is what futexes wait on. */
struct lay_bell {
	shmq_au64 armed;  /* sleepers add */
	shmq_au64 served; /* wakers store */
	shmq_au32 word;   /* wakers add; FUTEX_WAIT on it */
	shmq_au32 fenced; /* the supervisor stores: 1 while every publisher fences
			     before it looks, so that sleepers need not */
	uint32_t pad[10];
};
struct lay_bells {
	struct lay_bell data;   /* rung by publishers */
	struct lay_bell credit; /* rung by subscribers */
};
_Static_assert(sizeof(struct lay_bell) == LAY_LINE, "bell");
_Static_assert(sizeof(struct lay_bells) == 128, "bells");

/* ---- client entry ---------------------------------------------------- */

/* One per handle and partition, in a page that only this client writes.
 * The supervisor fills it before the roster names it and never after.
 * gen ties it to the roster's entry_gen: an entry whose gen differs is not
 * the one the roster speaks of.
 * What is counted has a line of its own.  A publisher that looks how far a
 * reader has come takes the cursor's line, and what the reader stored there next
 * would hold up all that it stores behind it: its answer. */
struct lay_entry {
	shmq_au64 gen;
	shmq_au64 pos;        /* subscriber: cursor, the next seq it will read;
				 publisher: lower bound of its open claims */
	shmq_au64 limit;      /* publisher: seqs below it may be written */
	shmq_au64 batch_end;  /* exclusive publisher: end of the atomic batch it
				 writes, or wrote last; 0 none */
	shmq_au64 need;       /* publisher: the limit it waits for, 0 while it
				 does not wait */
	shmq_au32 asleep;     /* 1 while waiting on a bell */
	shmq_au32 flags;      /* LAY_ENTRY_* */
	shmq_au64 late_wakes; /* publisher: deferred wakes made; not in the line of the
				 others, which a publish writes, as another thread does it */
	uint8_t pad0[8];
	shmq_au64 count;   /* messages sent or received */
	shmq_au64 bytes;   /* their payload */
	shmq_au64 lost;    /* subscriber: lost; publisher: dropped */
	shmq_au64 waits;   /* times slept or blocked */
	shmq_au64 wakes;   /* futex wakes made, but for the late ones */
	shmq_au64 latency; /* subscriber that measures: p50 | p99 << 16 | p99.9 << 32 |
			      longest << 48, each the number of its bucket + 1; 0:
			      nothing was measured */
	uint8_t pad1[16];  /* groups and stored cursors come here */
};
#define LAY_ENTRY_EVICTED 1u    /* subscriber noticed that it was evicted */
#define LAY_ENTRY_LOST_BOUND 2u /* its loss is an upper bound */
#define LAY_ENTRY_CLOSED 4u     /* its handle is closed; the supervisor may be away */
#define LAY_ENTRY_LEFT 8u       /* and so is the bus, with all that the client had */
_Static_assert(sizeof(struct lay_entry) == 128, "entry");
_Static_assert(offsetof(struct lay_entry, count) == LAY_LINE, "counters have their own line");
#define LAY_ENTRIES_PER_PAGE (LAY_PAGE / sizeof(struct lay_entry))

static inline uint64_t lay_wakes(const struct lay_entry *e)
{
	return load_relaxed(&e->wakes) + load_relaxed(&e->late_wakes);
}

/* ---- registry: fixed tables in one sparse slab ----------------------- */

/*        0  header
 *    1 MiB  clients    16384 x 128
 *    4 MiB  slabs      65536 x 64
 *   16 MiB  watches    65536 x 512
 *  256 MiB  arenas     4 Mi x 64
 *    1 GiB  topics     4 Mi x 1024
 *    8 GiB  heap: partition arrays and roster chunks
 *   64 GiB  end
 * Pages are populated as the tables grow; a table's count in the header
 * says how far it is. */
#define LAY_REGISTRY_BYTES (UINT64_C(64) << 30)
#define LAY_CLIENTS_OFF (UINT64_C(1) << 20)
#define LAY_SLABS_OFF (UINT64_C(4) << 20)
#define LAY_SLABS_MAX 65536u
#define LAY_WATCHES_OFF (UINT64_C(16) << 20)
#define LAY_WATCHES_MAX 65536u
#define LAY_ARENAS_OFF (UINT64_C(256) << 20)
#define LAY_ARENAS_MAX (4u << 20)
#define LAY_TOPICS_OFF (UINT64_C(1) << 30)
#define LAY_TOPICS_MAX (4u << 20)
#define LAY_HEAP_OFF (UINT64_C(8) << 30)

#define LAY_BELL_SLAB_BYTES (UINT64_C(1) << 32)
#define LAY_ENTRY_SLAB_BYTES (UINT64_C(1) << 36)
#define LAY_BULK_SLAB_BYTES (UINT64_C(1) << 46) /* rings, arenas */

enum lay_slab_kind {
	LAY_SLAB_REGISTRY = 1,
	LAY_SLAB_BELL,
	LAY_SLAB_ENTRY,
	LAY_SLAB_RING,
	LAY_SLAB_ARENA,
};

#define LAY_DISKS_MAX 8u

struct lay_registry {
	shmq_au64 magic; /* stored last */
	uint32_t version;
	shmq_au32 no_membarrier; /* 1: the supervisor has none, publishers fence in full */
	uint64_t nonce;          /* of this bus: random at its first start */
	uint64_t started_ns;     /* CLOCK_REALTIME */
	shmq_au64 epoch;         /* control workers so far */
	shmq_au32 control_pid;   /* 0 while away on purpose */
	shmq_au32 parent_pid;
	shmq_au32 change;       /* futex word: topics came or went */
	shmq_au32 slab_count;   /* ids below it have a record */
	shmq_au32 topic_count;  /* high-water mark of the topic table */
	shmq_au32 arena_count;  /* likewise */
	shmq_au32 client_count; /* likewise, so ids below it */
	shmq_au32 topics_live;
	shmq_au32 clients_live;
	uint32_t pad1;
	shmq_au64 bytes_used;     /* populated bytes of all slabs */
	shmq_au64 next_topic_id;  /* supervisor's own */
	shmq_au64 next_entry_gen; /* supervisor's own */
	char name[SHMQ_BUS_NAME_MAX + 1];
	char data_dir[1024];   /* of the logs of this bus, "" none */
	shmq_au32 watch_count; /* high-water mark of the watch table */
	/* Devices that logs are on; the tailer stores. */
	struct lay_disk {
		shmq_au64 dev;           /* as stat(2) has it, 0 none; stored last */
		shmq_au64 written_bytes; /* so far */
		char dir[240];           /* the first that is on it, cut short */
	} disk[LAY_DISKS_MAX];
};
_Static_assert(sizeof(struct lay_registry) <= LAY_PAGE, "registry header");

#define LAY_UID_NONE UINT32_MAX /* nobody's yet */
struct lay_slab {
	uint32_t kind;       /* enum lay_slab_kind, 0 free */
	uint32_t page_shift; /* 12, 21 or 30 */
	uint32_t uid;        /* of the only writer, or of the bus's owner */
	uint32_t pad0;
	uint64_t bytes;    /* size of the memfd */
	uint64_t dev, ino; /* what fstat(2) says of it */
	uint64_t list;     /* who may publish and subscribe the topics in it, a
			      hash; 0: the owner alone, or of all topics */
	uint8_t pad1[16];
};
_Static_assert(sizeof(struct lay_slab) == 64, "slab record");

enum lay_client_state { LAY_CLIENT_FREE = 0, LAY_CLIENT_LIVE = 1, LAY_CLIENT_DEAD = 2 };

struct lay_client {
	shmq_au64 gen;        /* bumped before the id is given out again; what
				 carries another generation is absent */
	shmq_au32 state;      /* enum lay_client_state; DEAD: being recovered */
	shmq_au32 pid;        /* in the supervisor's pid namespace */
	shmq_au64 start_time; /* field 22 of /proc/pid/stat: ticks after boot */
	shmq_au64 pidns;      /* inode of its pid namespace | of the
				 supervisor's time namespace << 32 */
	shmq_au64 nonce;      /* chosen by the client; ties a re-attach to it */
	shmq_au32 uid;
	uint32_t pad0;
	char name[32];
	uint8_t pad1[48];
};
_Static_assert(sizeof(struct lay_client) == 128, "client record");

/* A subscription by pattern: topics that match are given a member for its client
 * before they are LIVE (daemon/watch.c).  The supervisor's own; it stands here so
 * that the next one has it from its first request on. */
enum lay_watch_state { LAY_WATCH_FREE = 0, LAY_WATCH_LIVE = 1 };
struct lay_watch {
	shmq_au32 state; /* stored last, with release */
	uint16_t client;
	uint16_t flags; /* LAY_WATCH_* */
	uint64_t client_gen;
	uint64_t token; /* of the request, unique within its client */
	char pattern[SHMQ_NAME_MAX + 1];
	uint8_t pad[512 - 24 - SHMQ_NAME_MAX - 1];
};
#define LAY_WATCH_OBSERVE 1u /* its members do not gate */
_Static_assert(sizeof(struct lay_watch) == 512, "watch record");

enum lay_topic_state {
	LAY_TOPIC_FREE = 0,
	LAY_TOPIC_CREATING = 1,
	LAY_TOPIC_LIVE = 2,
	LAY_TOPIC_ENDED = 3
};

/* What the handles of a topic that have left did. */
enum lay_total {
	LAY_TOTAL_SENT,
	LAY_TOTAL_SENT_BYTES,
	LAY_TOTAL_DROPPED,
	LAY_TOTAL_BLOCKED,
	LAY_TOTAL_RECEIVED,
	LAY_TOTAL_RECEIVED_BYTES,
	LAY_TOTAL_LOST,
	LAY_TOTAL_SLEPT,
	LAY_TOTAL_WAKES,
	LAY_TOTAL_EVICTIONS,
	LAY_TOTALS
};

struct lay_topic {
	shmq_au32 state; /* stored last, with release */
	shmq_au32 epoch; /* futex word: bumped after each roster change */
	uint64_t id;     /* never given twice on a bus */
	uint64_t depth;
	uint64_t max_bytes;
	uint32_t slot_bytes;
	uint32_t inline_bytes;
	uint32_t partitions;
	uint32_t flags; /* SHMQ_TOPIC_* */
	uint8_t mode, policy, stall, wait;
	uint8_t pages_asked, lock_asked, page_shift, locked;
	int32_t node_asked;  /* SHMQ_NODE_* */
	int32_t node_actual; /* SHMQ_NODE(n), 0 spread or unknown */
	int64_t evict_ns;
	int64_t block_timeout_ns;
	uint64_t arena_bytes;    /* default for a publisher; 0: all inline */
	uint64_t ring_bytes;     /* of one partition, whole pages */
	lay_ref partition_array; /* struct lay_partition[partitions] */
	lay_ref roster;          /* first chunk */
	uint64_t creator_nonce;  /* client nonce and request token of the */
	uint64_t creator_token;  /* creation, so that a retry is recognised */
	shmq_au32 publishers;    /* open handles */
	shmq_au32 subscribers;
	char note[256];
	int32_t node_home; /* with SHMQ_NODE_PUBLISHER: that of the first one, 0 before */
	uint8_t log, sync; /* as asked */
	uint8_t pad0[2];
	int64_t sync_ns;
	uint64_t segment_bytes;
	uint64_t retain_bytes;
	int64_t retain_ns;
	uint32_t creator_uid; /* who made it */
	uint32_t compress;
	int64_t tombstone_ns;
	shmq_au32 totals_word; /* odd while a member leaves and is added to them */
	uint32_t pad1;
	shmq_au64 total[LAY_TOTALS];
	uint8_t pad[1024 - 456 - 8 * LAY_TOTALS - 256];
	char name[SHMQ_NAME_MAX + 1];
};
_Static_assert(sizeof(struct lay_topic) == 1024, "topic record");

struct lay_partition {
	lay_ref ring;  /* ring_bytes of it */
	lay_ref bells; /* struct lay_bells */
	uint64_t base_seq;
	/* Of the log; the tailer stores, all read. */
	shmq_au64 log_written;  /* seqs before it are in the files */
	shmq_au64 log_synced;   /* ... and survive the machine */
	shmq_au64 log_first;    /* the oldest that is kept */
	shmq_au32 log_word;     /* futex: bumped when one of them has risen */
	int32_t log_error;      /* why it does not go on, 0 if it does */
	shmq_au32 log_left_mib; /* on its disk, as of a second ago */
	shmq_au32 log_is_low;   /* 1: that is little */
};
_Static_assert(sizeof(struct lay_partition) == 64, "partition record");

/* Who waits for a seq sleeps on log_word with that one's bit, so that those
 * wake whose seqs have come and not all: the bits of the seqs [from, to), of
 * which there is one at least. */
#define LAY_SEQS_PER_BIT 4u

static inline uint32_t lay_seq_bits(uint64_t from, uint64_t to)
{
	uint64_t first = from / LAY_SEQS_PER_BIT, n = (to - 1) / LAY_SEQS_PER_BIT - first + 1;
	unsigned shift = (unsigned)(first % 32);
	uint32_t bits;

	if (n >= 32)
		return UINT32_MAX;
	bits = (uint32_t)((UINT64_C(1) << n) - 1);
	return bits << shift | (uint32_t)((uint64_t)bits >> (32 - shift));
}

/* Roster: who has a topic open.  A member is published by its state,
 * stored last with release, then the topic's epoch is bumped; it leaves the
 * other way round.  Only the supervisor writes. */
enum lay_member_state {
	LAY_MEMBER_FREE = 0,
	LAY_MEMBER_PUBLISHER = 1,
	LAY_MEMBER_SUBSCRIBER = 2,
	LAY_MEMBER_EVICTED = 3,  /* a subscriber that no longer gates */
	LAY_MEMBER_OBSERVER = 4, /* a subscriber that does not gate */
};
#define LAY_MEMBER_FENCES 1u /* a publisher that fences before it looks at bells */
struct lay_member {
	shmq_au32 state;
	uint16_t client;
	uint16_t flags; /* LAY_MEMBER_FENCES */
	uint64_t client_gen;
	uint64_t token; /* the handle, unique within its client */
	lay_ref entry;  /* first of its struct lay_entry, one per partition
			   of the topic, or one if bound to a partition */
	uint64_t entry_gen;
	int32_t partition;  /* the one it is bound to, or -1 for all */
	uint32_t arena;     /* publisher: arena id + 1, or 0 */
	uint64_t start;     /* lowest of its recorded starts */
	uint64_t opened_ns; /* CLOCK_REALTIME */
};
_Static_assert(sizeof(struct lay_member) == 64, "member");

#define LAY_ROSTER_MEMBERS 63u
struct lay_roster {
	shmq_au64 next; /* lay_ref of the next chunk, 0 none */
	uint8_t pad[56];
	struct lay_member member[LAY_ROSTER_MEMBERS];
};
_Static_assert(sizeof(struct lay_roster) == LAY_PAGE, "roster chunk");

enum lay_arena_state {
	LAY_ARENA_FREE = 0,
	LAY_ARENA_OWNED = 1,  /* a live publisher writes it */
	LAY_ARENA_ORPHAN = 2, /* its publisher left; messages may still be in it;
				 a successor may adopt it */
};
struct lay_arena {
	shmq_au64 gen; /* bumped when the id is given out again */
	shmq_au32 state;
	uint32_t client; /* owner */
	lay_ref mem;
	uint64_t bytes;
	uint64_t topic_id;
	uint64_t client_gen;
	int32_t node_actual; /* SHMQ_NODE(n), 0 spread or unknown */
	uint8_t pad[12];
};
_Static_assert(sizeof(struct lay_arena) == 64, "arena record");

/* ---- geometry -------------------------------------------------------- */

/* A ring's shape as a process uses it: copied from the registry at
 * attach, checked, never re-read. */
struct lay_geometry {
	uint64_t depth;
	uint64_t mask; /* depth - 1 */
	uint64_t max_bytes;
	uint64_t ring_bytes;
	uint32_t depth_shift;
	uint32_t slot_bytes;   /* whole lines */
	uint32_t payload_off;  /* 16 or 32 */
	uint32_t inline_bytes; /* slot_bytes - payload_off */
	uint32_t partitions;
	uint32_t flags;
	uint32_t mode, policy, stall, wait, log;
};

/* Bytes of one ring, in whole pages of 1 << page_shift. */
uint64_t shmq__layout_ring_bytes(uint64_t depth, uint32_t slot_bytes, unsigned page_shift);

/* Payload bytes that fit a slot. */
uint32_t shmq__layout_inline_bytes(uint32_t slot_bytes, unsigned topic_flags);

/* Default arena of a publisher of messages up to max_bytes; 0 if inline. */
uint64_t shmq__layout_arena_bytes(uint64_t max_bytes, uint32_t inline_bytes, uint64_t depth);

/* That of who answers on a topic for replies.  How large they may be whoever asks says:
 * it is for two of the largest, or for 16 if they are small; 0 if inline. */
uint64_t shmq__layout_reply_arena(uint64_t max_bytes, uint32_t inline_bytes);

/* Check a topic record and copy its shape.  0 or SHMQ_ECORRUPT. */
int shmq__layout_geometry(const struct lay_topic *topic, struct lay_geometry *out);

/* Check the header of a mapped ring against the shape the registry gave.
 * 0, SHMQ_ECORRUPT or SHMQ_EVERSION. */
int shmq__layout_check_ring(const struct lay_ring *ring, const struct lay_geometry *geo,
			    uint64_t topic_id, uint32_t partition);

/* Check a mapped registry.  0, SHMQ_ECORRUPT or SHMQ_EVERSION. */
int shmq__layout_check_registry(const struct lay_registry *registry);

/* Write a fresh ring of a bus of that version: every slot is {lap - 1, 0,
 * VOID} for the first seq at or after base_seq that falls on it.  mem is
 * writable, ring_bytes long. */
void shmq__layout_init_ring(void *mem, uint32_t version, const struct lay_geometry *geo,
			    uint64_t topic_id, uint32_t partition, uint64_t base_seq);

/* Validate creation options, fill in defaults, round.  On failure writes one
 * line to why.  0, SHMQ_EOPTION. */
int shmq__layout_defaults(struct shmq_topic_options *options, char *why, size_t why_bytes);

static inline struct lay_slot *lay_slot_at(const struct lay_ring *ring,
					   const struct lay_geometry *geo, uint64_t seq)
{
	return (struct lay_slot *)((char *)(uintptr_t)ring + LAY_RING_HEADER_BYTES +
				   (seq & geo->mask) * geo->slot_bytes);
}

static inline uint64_t lay_lap(const struct lay_geometry *geo, uint64_t seq)
{
	return (seq >> geo->depth_shift) & LAY_LAP_MASK;
}

#endif
