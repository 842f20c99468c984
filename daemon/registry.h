/* SPDX-License-Identifier: MIT
 *
 * registry: everything a bus owns, as the control worker holds it.
 *
 * The truth is in shared memory (layout.h): topics name their partitions
 * and rosters, partitions their rings and bells, members their entries and
 * arenas.  What is here beside it is derived: which ranges are free, which
 * name is which topic, who has what open.  A new worker derives it again
 * (registry_adopt), so a SIGKILL between any two stores must leave either
 * the old or the new, or something that nobody refers to and that is
 * therefore free.  Hence the order everywhere: memory first, then what
 * refers to it, state last; and the other way round when it goes.
 */
#ifndef SHMQ_REGISTRY_H
#define SHMQ_REGISTRY_H

#include <sys/queue.h>

#include "link.h"
#include "pool.h"
#include "topic.h"

/* Rings of up to this many bytes in all, of 4 KiB pages on any node, come
 * out of a warm pool; so do arenas.  A default topic just fits. */
#define REGISTRY_SMALL_BYTES (UINT64_C(2) << 20)
/* The pool is the first half of its slab. */
#define REGISTRY_BIG_BASE (LAY_BULK_SLAB_BYTES / 2)
/* ... of which this much is mapped as a whole: sparse, it costs nothing. */
#define REGISTRY_WARM_MAP (UINT64_C(64) << 30)

struct conn;
struct topic;

/* A client: its record, and all it has. */
struct entry_run {
	LIST_ENTRY(entry_run) link;
	uint64_t off;
	uint32_t pages;
	uint32_t used; /* one page: a bit for each entry; more: all or nothing */
};

struct peer {
	unsigned id;
	unsigned entries; /* the slab of its uid's */
	uint64_t gen;
	struct lay_client *rec;
	LIST_HEAD(peer_handles, handle) handles;
	LIST_HEAD(entry_runs, entry_run) runs;
	LIST_ENTRY(peer) link;
	struct conn *conn; /* NULL while it is not connected */
	void *parting;     /* it died or leaves, and is being taken out (death.c) */
	void *watcher;     /* how its death is noticed (death.c) */
	uint64_t removed;  /* token of its last removal that succeeded, 0 none: should
			      it not have heard, it asks again before all else */
	int makes_replies; /* it made private topics for them (reply.c) */
	uint64_t serial;   /* of the last event pushed to it */
	uint64_t image;    /* of the process, when it said hello (proc.h) */
	uint64_t cpu_look; /* when its CPU time was read last (stall.c) */
	int64_t cpu_ticks;
};

/* An open topic handle: its member record. */
struct handle {
	LIST_ENTRY(handle) of_peer, of_topic, of_chain;
	struct peer *peer;
	struct topic *topic;
	struct lay_member *member;
	lay_ref ref;
	enum shmq_role role;
	uint64_t token;
	int is_detached; /* out of the roster, not yet dropped (open.c) */
};

/* A subscription by pattern (watch.c). */
struct registry_watch {
	LIST_ENTRY(registry_watch) link;
	uint32_t id;
	struct peer *peer;
	struct lay_watch *rec;
};

struct topic {
	uint32_t index;
	struct lay_topic *rec;
	struct topic *next; /* of its name's chain; LIVE and CREATING only */
	uint32_t hash;
	struct shmq__topic *attached; /* see registry_attach() */
	TAILQ_ENTRY(topic) recent;
	LIST_HEAD(topic_handles, handle) handles;
	LIST_HEAD(topic_orphans, orphan) orphans; /* its arenas without a publisher */
	void *locked;             /* its rings, locked in memory (work.c), or NULL */
	void *creation;           /* while CREATING (create.c) */
	int is_counted;           /* in head->topics_live */
	unsigned unfenced;        /* publishers that look at bells without a fence */
	unsigned log_alarms;      /* that were told (events.c) */
	int is_settling;          /* its pages are under way (settle.c), ... */
	int settle_node;          /* where they were brought for who may be the first publisher, 0
				     nowhere, */
	char *settle_why;         /* why they are not there, or NULL, */
	unsigned settle_openings; /* and how many publishers' arenas are under way (open.c) */
};

struct registry {
	struct place *place;
	struct shmq__slabs *slabs;
	struct lay_registry *head;
	struct link_slab slab[LINK_SLABS_MAX]; /* its descriptors belong to slabs */

	struct pool clients, arenas, topics, watches; /* tables */
	struct pool heap;
	struct pool *pool[LINK_SLABS_MAX];  /* bells, entries, small rings and arenas */
	struct extent *big[LINK_SLABS_MAX]; /* rings and arenas of their own */
	struct loop *loop;                  /* as pool_serve */
	void (*grown)(void *arg);
	void *grown_arg;

	struct peer **peer; /* by id */
	LIST_HEAD(peer_list, peer) peers;
	unsigned peer_count;
	uint16_t *freed_id; /* ids to give out again, longest free first */
	unsigned freed_first, freed_count;

	struct topic **topic; /* by index */
	uint32_t topic_capacity;
	struct topic **chain; /* by name */
	uint32_t chain_mask;
	TAILQ_HEAD(topic_queue, topic) attached; /* most recently used last */
	unsigned attached_count;
	unsigned topic_count; /* records in use, ended and creating ones too */
	uint32_t *free_topic, free_topic_count;
	uint32_t *free_arena, free_arena_count, free_arena_capacity;

	LIST_HEAD(watch_list, registry_watch) watches_live;

	LIST_HEAD(handle_chain, handle) * handle; /* by client and token */
	uint32_t handle_mask, handle_count;

	/* The start of the warm ring pool, mapped once: what is locked there is
	 * one mapping and not one for each ring. */
	char *warm;
	unsigned warm_slab; /* of whose start it is a map */
	uint32_t uid;       /* of the owner, who we run as */
};

/* ---- registry.c: the slabs and the header ---------------------------- */

/* The slabs a bus on this machine starts with, by id: kind, page_shift and
 * bytes; fd is -1.  The last are entries for that many uids besides the
 * owner's: all clients know them from when they attach, so that a publisher
 * waits for whoever comes.  Returns how many. */
unsigned registry_slabs_wanted(unsigned guests, struct link_slab slab[LINK_SLABS_MAX]);

/* One of that kind, which fd is not yet. */
struct link_slab registry_slab_shape(uint32_t kind, unsigned page_shift);

/* Make slab `id`: a descriptor or -errno. */
int registry_make_slab(unsigned id, const struct link_slab *slab);

/* Take over the descriptors of all slabs.  If the registry has no magic yet,
 * format it for bus `name`. */
int registry_open(struct place *place, const struct link_slab slab[LINK_SLABS_MAX],
		  const char *name, struct registry **out, struct shmq__why *why);
void registry_close(struct registry *r);

/* Have memory at hand for the first clients and topics. */
void registry_prepare(struct registry *r);

/* From now on nothing here waits for memory: what needs some that is not
 * there returns POOL_COMING, without effect, and `grown` is called from the
 * loop when it is worth asking again. */
void registry_serve(struct registry *r, struct loop *loop, void (*grown)(void *arg), void *arg);

/* Every pool, of which i counts from 0; NULL after the last. */
struct pool *registry_next_pool(struct registry *r, unsigned *i);

/* Id of the slab of that kind and page size, -1 none: the owner's, or what is
 * written by one uid for the topics of a list (access.h). */
int registry_find_slab(const struct registry *r, uint32_t kind, unsigned page_shift);
int registry_find_slab_of(const struct registry *r, uint32_t kind, unsigned page_shift,
			  uint64_t list, uint32_t uid);
const struct lay_slab *registry_slab_record(const struct registry *r, unsigned id);
/* Add one more, or give one that is nobody's to somebody; the descriptor is
 * taken over.  0, SHMQ_ELIMIT, -errno. */
int registry_add_slab(struct registry *r, unsigned id, const struct link_slab *slab, uint64_t list,
		      uint32_t uid, struct shmq__why *why);
void registry_assign_slab(struct registry *r, unsigned id, uint64_t list, uint32_t uid);
int registry_slab_fd(const struct registry *r, unsigned id);

/* Keep head->bytes_used true; tell those who wait for topics to come or go. */
void registry_count_bytes(struct registry *r);
void registry_announce(struct registry *r);

/* ---- adopt.c: derive everything again -------------------------------- */

/* Clients that were LIVE or DEAD become peers, to be checked by the caller;
 * half-made objects are discarded.  0 or -ENOMEM. */
struct registry_found {
	unsigned topics, clients, handles, arenas, discarded;
};
int registry_adopt(struct registry *r, struct registry_found *found);

/* Afterwards, when nothing is urgent any more: give back to the system
 * whatever nobody refers to. */
void registry_give_back(struct registry *r);

/* ---- records.c, ranges.c, ids.c: topics, memory, clients, arenas ----- */

/* Memory for big rings and arenas is taken but not populated: is_warm says
 * which.  0, SHMQ_ELIMIT, -ENOMEM, or as pool_reach. */
struct registry_range {
	lay_ref ref;
	uint64_t bytes;
	int is_warm;
	int node;          /* of an arena: as populated, SHMQ_NODE_ANY if it was not looked at */
	uint64_t base_seq; /* of rings: their first seq */
};
int registry_take_range(struct registry *r, unsigned slab, int node, uint64_t bytes,
			struct registry_range *out, struct shmq__why *why);
/* By how much head->bytes_used grows with a topic of that shape and list. */
uint64_t registry_growth(struct registry *r, const struct lay_topic *shape, uint64_t list);
/* A big range must have been punched. */
void registry_free_range(struct registry *r, const struct registry_range *range);
/* What a range at ref was taken as. */
struct registry_range registry_range_at(const struct registry *r, lay_ref ref, uint64_t bytes);

struct topic *registry_find(const struct registry *r, const char *name);

/* A record in state CREATING with partition array, bells and ring references:
 * partition p is at ring->ref + (partitions - 1 - p) * ring_bytes, so that a
 * process that maps one after the other, downwards, gets one mapping.  The
 * caller has filled shape (a record); name and id are set here. */
int registry_add_topic(struct registry *r, const struct lay_topic *shape, const char *name,
		       const struct registry_range *ring, struct topic **out,
		       struct shmq__why *why);
void registry_publish_topic(struct registry *r, struct topic *t);
/* The topic has ended, or will not be: its name is free again. */
void registry_forget_name(struct registry *r, struct topic *t);
/* Give the record and everything but the rings back; the caller frees *ring
 * (once it is punched).  Nobody has it open. */
void registry_drop_topic(struct registry *r, struct topic *t, struct registry_range *ring);
struct registry_range registry_rings_of(const struct registry *r, const struct lay_topic *rec);

/* 0 if what is behind fd is the registry of the bus with this nonce, and not
 * one that ended; else why not, SHMQ_EVERSION if this build cannot serve it. */
int registry_check(int fd, uint64_t nonce, struct shmq__why *why);

/* Make t->attached, mapped for writing, good until another topic is attached;
 * the last REGISTRY_ATTACHED stay, because every mapping makes a fork slower.
 * 0 or as shmq__topic_attach, with why. */
#define REGISTRY_ATTACHED 512u
int registry_attach(struct registry *r, struct topic *t, struct shmq__why *why);
/* The same even if a publisher has written over its ring's header. */
int registry_attach_to_end(struct registry *r, struct topic *t, struct shmq__why *why);
/* 1 if that would map nothing. */
int registry_is_mapped(const struct registry *r, const struct topic *t);
void registry_detach(struct registry *r, struct topic *t);

/* The memory of all rings in a range; unmap takes what map gave. */
int registry_map(struct registry *r, const struct registry_range *range, void **out);
void registry_unmap(struct registry *r, const struct registry_range *range, void *mem);
int registry_is_shared_map(const struct registry *r, const void *mem);

/* A new client, LIVE.  0 or SHMQ_ELIMIT, or as pool_reach. */
struct registry_client {
	uint32_t pid, uid;
	unsigned entries; /* slab */
	uint64_t nonce;
	const char *name;
	int is_of_bus; /* its name may begin with '$', by which others know it */
};
/* Which slab has the entries of that uid: root is as good as the owner.  The
 * owner's, if none is that uid's. */
unsigned registry_entries_of(const struct registry *r, uint32_t uid);
int registry_add_peer(struct registry *r, const struct registry_client *client, struct peer **out,
		      struct shmq__why *why);
/* What proves its death; without it nothing does. */
void registry_set_identity(struct peer *p, uint64_t start_time, uint64_t pidns);
/* No handles are left.  The generation moves on, then the id is free. */
void registry_drop_peer(struct registry *r, struct peer *p);

/* An arena record in state OWNED.  *id is its number. */
int registry_add_arena(struct registry *r, const struct registry_range *range,
		       const struct topic *topic, const struct peer *owner, uint32_t *id,
		       struct shmq__why *why);
void registry_drop_arena(struct registry *r, uint32_t id, struct registry_range *range);

/* At adoption: the client of that nonce may ask for this removal again. */
void registry_note_removal(struct registry *r, uint64_t nonce, uint64_t token);

/* ---- handles.c: members and their entries ---------------------------- */

/* Take a member slot and entries, and fill both; the member is not published
 * yet.  partition -1 is all.  arena is id + 1 or 0. */
struct registry_member {
	enum shmq_role role;
	int32_t partition;
	uint32_t arena;
	uint64_t token;
};
int registry_add_handle(struct registry *r, struct topic *t, struct peer *p,
			const struct registry_member *what, struct handle **out,
			struct shmq__why *why);
/* The member is out of the roster already; frees the entries and the handle. */
void registry_drop_handle(struct registry *r, struct handle *h);

struct handle *registry_find_handle(const struct registry *r, const struct peer *p, uint64_t token);
uint64_t registry_entry_count(const struct topic *t, const struct lay_member *m);

/* For adoption: a handle around a member that is there; marks its entries. */
int registry_adopt_handle(struct registry *r, struct topic *t, struct peer *p, struct lay_member *m,
			  lay_ref ref);
void registry_drop_entries(struct registry *r, struct peer *p);

/* shared with adopt.c */
int registry_adopt_topic(struct registry *r, uint32_t index, struct topic **out);
int registry_adopt_peer(struct registry *r, unsigned id, struct peer **out);
int registry_note_free_arena(struct registry *r, uint32_t id);

#endif
