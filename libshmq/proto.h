/* SPDX-License-Identifier: MIT
 *
 * proto: what a client and the supervisor say to each other.
 *
 * One SOCK_SEQPACKET connection per client.  The client sends fixed-size
 * requests and gets one fixed-size reply to each, in order; descriptors
 * travel by SCM_RIGHTS with the reply.  The reply to HELLO brings, first
 * among its descriptors, a second socket on which the supervisor pushes
 * events, so that a request never has to look past an event.
 *
 * Every request is idempotent: it carries a token that is unique within
 * the client, and a client that lost the connection re-attaches (HELLO
 * with the same nonce) and sends the unanswered request again.
 *
 * A supervisor of which nobody survived finds its slabs again through its
 * clients: while it listens at <bus>.back instead of <bus>.sock, each
 * sends it an OFFER with the descriptors it holds, and need not wait for
 * the answer.
 *
 * Both sides treat what they receive as hostile: fixed size, magic,
 * version, ranges, terminated strings, then use.
 */
#ifndef SHMQ_PROTO_H
#define SHMQ_PROTO_H

#include "layout.h"

#define PROTO_MAGIC 0x53514d48u
#define PROTO_VERSION 1u
#define PROTO_FDS_MAX 16 /* descriptors in one message */
#define PROTO_LOG_DIR_BYTES 256

enum proto_op {
	PROTO_HELLO = 1,
	PROTO_PLAN,
	PROTO_CREATE,
	PROTO_REMOVE,
	PROTO_OPEN,
	PROTO_CLOSE,
	PROTO_REPORT,
	PROTO_STOP,
	PROTO_GOODBYE, /* leave in order: handles closed, not died */
	PROTO_MOVE,
	PROTO_OFFER,  /* at <bus>.back: descriptors for a start that has none */
	PROTO_JOIN,   /* a subscriber has come from the log to the rings: gate */
	PROTO_SLABS,  /* what did not fit into an answer (`more`); with a topic, what
			 it is read by */
	PROTO_WATCH,  /* be seated at every topic that is made and matches `topic`, a
			 pattern; CLOSE ends it, and all its handles */
	PROTO_RELOAD, /* take the configuration anew */
};

/* Tokens of a watch's handles.  Those at topics that were there before it the
 * client opens, by OPEN; the others, SEATs, the supervisor.  A topic that only
 * they have open can be removed. */
#define PROTO_WATCH_TOKEN(watch, low) \
	(UINT64_C(1) << 63 | (uint64_t)(watch) << 40 | ((low)&PROTO_WATCH_LOW))
#define PROTO_WATCH_LOW ((UINT64_C(1) << 39) - 1)
#define PROTO_WATCH_SEAT (UINT64_C(1) << 39)
static inline int proto_is_of_watch(uint64_t token)
{
	return token >> 63 != 0;
}
static inline uint32_t proto_watch_of(uint64_t token)
{
	return (uint32_t)(token >> 40) & (LAY_WATCHES_MAX - 1);
}

#define PROTO_OPEN_OBSERVE 1u   /* a subscriber that does not gate */
#define PROTO_OPEN_RING_ONLY 2u /* and does not read the log */
#define PROTO_OPEN_FENCES 4u    /* a publisher that fences before it looks at bells */

enum proto_report {
	PROTO_REPORT_STUCK = 1, /* slot `seq` stands CLAIMED by a live owner */
	PROTO_REPORT_EVICT,     /* subscriber `token` of `client` was passed */
};

/* struct shmq_topic_options on the wire, and in the identity of a log: shmq_log(5) has
 * its offsets, and what is new comes behind them. */
struct proto_options {
	uint64_t depth;
	uint64_t max_bytes;
	int64_t evict_ns;
	int64_t block_timeout_ns;
	uint32_t slot_bytes, partitions, flags;
	int32_t node;
	uint8_t mode, policy, stall, wait, pages, lock, log, sync;
	int64_t sync_ns;
	uint64_t segment_bytes, retain_bytes;
	int64_t retain_ns, tombstone_ns;
	uint32_t compress, pad;
};

static inline void proto_put_options(const struct shmq_topic_options *o, struct proto_options *w)
{
	*w = (struct proto_options){
		.depth = o->depth,
		.max_bytes = o->max_message_bytes,
		.evict_ns = o->evict_ns,
		.block_timeout_ns = o->block_timeout_ns,
		.slot_bytes = o->slot_bytes,
		.partitions = o->partitions,
		.flags = o->flags,
		.node = o->node,
		.mode = (uint8_t)o->mode,
		.policy = (uint8_t)o->policy,
		.stall = (uint8_t)o->stall,
		.wait = (uint8_t)o->wait,
		.pages = (uint8_t)o->pages,
		.lock = (uint8_t)o->lock,
		.log = (uint8_t)o->log,
		.sync = (uint8_t)o->sync,
		.sync_ns = o->sync_ns,
		.segment_bytes = o->segment_bytes,
		.retain_bytes = o->retain_bytes,
		.retain_ns = o->retain_ns,
		.tombstone_ns = o->tombstone_ns,
		.compress = (uint32_t)o->compress,
	};
}

static inline void proto_get_options(const struct proto_options *from, struct shmq_topic_options *o)
{
	*o = (struct shmq_topic_options){
		.size = sizeof(*o),
		.depth = from->depth,
		.slot_bytes = from->slot_bytes,
		.partitions = from->partitions,
		.max_message_bytes = from->max_bytes,
		.mode = (enum shmq_mode)from->mode,
		.policy = (enum shmq_policy)from->policy,
		.stall = (enum shmq_stall)from->stall,
		.wait = (enum shmq_wait)from->wait,
		.pages = (enum shmq_pages)from->pages,
		.lock = (enum shmq_lock)from->lock,
		.log = (enum shmq_log)from->log,
		.sync = (enum shmq_sync)from->sync,
		.sync_ns = from->sync_ns,
		.segment_bytes = from->segment_bytes,
		.retain_bytes = from->retain_bytes,
		.retain_ns = from->retain_ns,
		.tombstone_ns = from->tombstone_ns,
		.compress = (int)from->compress,
		.node = from->node,
		.flags = from->flags,
		.evict_ns = from->evict_ns,
		.block_timeout_ns = from->block_timeout_ns,
	};
}

struct proto_fd {
	uint16_t slab;     /* id */
	uint16_t writable; /* 1: opened for reading and writing */
};

struct proto_request {
	uint32_t magic;
	uint16_t version;
	uint16_t op; /* enum proto_op */
	uint64_t token;
	char topic[SHMQ_NAME_MAX + 1];
	union {
		struct {
			uint32_t layout_version; /* the newest it knows */
			uint32_t layout_oldest;
			uint64_t nonce;     /* of this client, random, not 0 */
			uint64_t bus_nonce; /* of the bus it was on, 0 if new */
			char name[32];
		} hello;
		struct { /* PLAN too */
			struct proto_options create;
			char log_dir[PROTO_LOG_DIR_BYTES]; /* "" as those that do not say */
		};
		struct {
			uint32_t flags; /* SHMQ_FORCE */
		} remove;               /* STOP too */
		struct {
			uint32_t role;     /* enum shmq_role */
			uint32_t from;     /* enum shmq_from */
			int32_t partition; /* -1 all */
			int32_t node;      /* publisher: SHMQ_NODE(n) it runs on, 0 unknown */
			uint32_t flags;    /* PROTO_OPEN_* */
			uint32_t pad;
			uint64_t seq;
			uint64_t arena_bytes; /* 0: the topic's default */
		} open;
		struct {
			uint64_t handle; /* token of the OPEN, or of the WATCH */
		} close;
		struct {
			uint32_t flags; /* PROTO_OPEN_OBSERVE */
		} watch;
		struct {
			uint32_t kind; /* enum proto_report */
			uint32_t partition;
			uint64_t topic_id;
			uint64_t seq;        /* STUCK */
			uint64_t word;       /* STUCK: control word seen */
			uint64_t handle;     /* EVICT: token of the subscriber */
			uint64_t client_gen; /* EVICT */
			uint32_t client;     /* EVICT */
		} report;
		struct {
			uint64_t bus_nonce;
			uint32_t fd_count;
			struct proto_fd fd[PROTO_FDS_MAX]; /* what came with it */
		} offer;
		uint8_t raw[512];
	};
	uint8_t pad[1024 - 16 - 256 - 512];
};
_Static_assert(sizeof(struct proto_request) == 1024, "request");

struct proto_reply {
	uint32_t magic;
	uint16_t version;
	uint16_t op;    /* of the request */
	uint64_t token; /* of the request */
	int32_t error;  /* 0 or negative, as shmq.h */
	uint32_t fd_count;
	struct proto_fd fd[PROTO_FDS_MAX]; /* what the descriptors are; those of
					      HELLO start with the event socket,
					      which has no entry here */
	char why[256];                     /* one line about error: the thing and the way out */
	union {
		struct {
			uint32_t client;  /* id */
			uint32_t resumed; /* 1: the same id and generation as
					     before, handles still valid */
			uint64_t gen;
			uint64_t bus_nonce;
		} hello;
		struct {
			uint64_t ring_bytes, control_bytes, arena_bytes, depth;
			uint64_t page_bytes, available_bytes, growth_bytes;
			uint32_t inline_bytes;
			int32_t node;
			char source[128];
			char note[256];
		} plan; /* PLAN, CREATE */
		struct {
			uint32_t topic_index; /* in the registry's topic table */
			uint32_t arena;       /* id + 1, or 0 */
			uint64_t topic_id;
			lay_ref member; /* its struct lay_member */
			lay_ref entry;  /* first struct lay_entry */
			uint64_t entry_gen;
		} open;
		struct {
			uint32_t watch; /* its number, in its handles' tokens */
			uint32_t pad;
			uint64_t topic_id; /* topics with this id, and higher ones, were
					      or will be made with a seat */
		} watch;
		struct {
			uint32_t changes;
			char text[508]; /* what, a line each; cut short where it is more */
		} reload;
		uint8_t raw[512];
	};
	uint32_t more; /* 1: there are descriptors that did not fit: ask for them */
	uint8_t pad[1024 - 24 - 64 - 256 - 512 - 4];
};
_Static_assert(sizeof(struct proto_reply) == 1024, "reply");

/* An event that brings the descriptor of slab `client`, for reading. */
#define PROTO_EVENT_SLAB 0x100u

/* Pushed on the event socket, no answer.  A full socket drops the event;
 * nothing but shmq_bus_event() rests on them. */
struct proto_event {
	uint32_t magic;
	uint16_t version;
	uint16_t kind; /* enum shmq_event_kind, or PROTO_EVENT_SLAB */
	uint32_t role; /* enum shmq_role */
	uint32_t client;
	int32_t pid;
	uint32_t missed; /* events dropped on the way before this one */
	char topic[SHMQ_NAME_MAX + 1];
};

#endif
