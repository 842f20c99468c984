/* SPDX-License-Identifier: MIT
 *
 * Nothing is counted on the side: what a uid has is what the registry says, so
 * that it is right after any worker's death.
 */
#include "control.h"
#include "name.h"

#include <inttypes.h>

/* A connection, its events, and what watches the process. */
#define DESCRIPTORS_OF_CLIENT 3u

struct use {
	uint64_t topics, requesters, bytes, clients;
};

/* Who asks has not made the topic of its answers by a name of its own, and one that
 * responders have open although it has left is not its fault.  What a responder takes to
 * answer is as much as whoever asks says that answers may be, so it counts as his. */
static void count_topic(const struct topic *t, struct use *use)
{
	struct shmq__name_reply reply;

	if (!shmq__name_read_reply(t->rec->name, &reply))
		use->topics++;
	else if (load_relaxed(&t->rec->state) != LAY_TOPIC_ENDED)
		use->requesters++;
	use->bytes += t->rec->ring_bytes * t->rec->partitions;
	if (shmq__name_read_reply(t->rec->name, &reply))
		use->bytes += shmq__layout_reply_arena(t->rec->max_bytes, t->rec->inline_bytes);
}

/* Topics are their creator's, and arenas who writes them. */
static void count_memory(const struct control *c, uint32_t uid, struct use *use)
{
	const struct lay_arena *arena;
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++) {
		const struct topic *t = c->reg->topic[i];

		if (!t || t->rec->creator_uid != uid)
			continue;
		count_topic(t, use);
	}
	for (i = 0; (arena = shmq__slabs_arena(c->reg->slabs, i)) != NULL; i++)
		if (load_relaxed(&arena->state) != LAY_ARENA_FREE &&
		    registry_slab_record(c->reg, LAY_REF_SLAB(arena->mem))->uid == uid)
			use->bytes += arena->bytes;
}

static void count_clients(const struct control *c, uint32_t uid, struct use *use)
{
	const struct peer *p;

	LIST_FOREACH (p, &c->reg->peers, link)
		use->clients +=
			!p->parting && *p->rec->name != '$' && load_relaxed(&p->rec->uid) == uid;
}

/* Of whom, and where it is said what is not allowed. */
struct asker {
	uint32_t uid;
	struct shmq__why *why;
};

static int refuse(const struct asker *who, const char *what, uint64_t has, uint64_t more,
		  uint64_t limit)
{
	return shmq__fail(who->why, SHMQ_ELIMIT,
			  "uid %u may have %" PRIu64 " %s and has %" PRIu64 ", this takes %" PRIu64
			  ": free some, or have its limits raised (shmqd.conf(5))",
			  (unsigned)who->uid, limit, what, has, more);
}

static int check(const struct asker *who, const char *what, uint64_t has, uint64_t more,
		 uint64_t limit)
{
	return more > limit || has > limit - more ? refuse(who, what, has, more, limit) : 0;
}

int limits_join(struct exchange *x)
{
	struct config_limits limits = config_limits_of(x->c->o->config, &x->conn->who);
	const struct asker who = { x->conn->who.uid, &x->why };
	struct use use = { 0 };
	int error;

	if (limits.clients == UINT64_MAX && limits.descriptors == UINT64_MAX)
		return 0;
	count_clients(x->c, who.uid, &use);
	error = check(&who, "clients", use.clients, 1, limits.clients);
	if (!error)
		error = check(&who, "descriptors", use.clients * DESCRIPTORS_OF_CLIENT,
			      DESCRIPTORS_OF_CLIENT, limits.descriptors);
	return error;
}

int limits_create(struct exchange *x, uint64_t bytes)
{
	struct config_limits limits = config_limits_of(x->c->o->config, &x->conn->who);
	const struct asker who = { x->conn->who.uid, &x->why };
	const struct proto_options *o = &x->req->create;
	struct shmq__name_reply reply;
	struct use use = { 0 };
	int error, is_reply = shmq__name_read_reply(x->req->topic, &reply);

	if (limits.topics == UINT64_MAX && limits.requesters == UINT64_MAX &&
	    limits.bytes == UINT64_MAX)
		return 0;
	count_memory(x->c, who.uid, &use);
	if (is_reply)
		bytes += shmq__layout_reply_arena(o->max_bytes,
						  shmq__layout_inline_bytes(o->slot_bytes,
									    o->flags));
	error = is_reply ? check(&who, "requesters", use.requesters, 1, limits.requesters) :
			   check(&who, "topics", use.topics, 1, limits.topics);
	return error ? error : check(&who, "bytes", use.bytes, bytes, limits.bytes);
}

int limits_arena(const struct control *c, const struct conn *conn, uint64_t bytes,
		 struct shmq__why *why)
{
	struct config_limits limits = config_limits_of(c->o->config, &conn->who);
	struct use use = { 0 };

	if (limits.bytes == UINT64_MAX)
		return 0;
	count_memory(c, conn->who.uid, &use);
	return check(&(struct asker){ conn->who.uid, why }, "bytes", use.bytes, bytes,
		     limits.bytes);
}

int limits_move(const struct control *c, const struct lay_topic *rec, uint64_t bytes,
		struct shmq__why *why)
{
	const struct access_caller creator = { .uid = rec->creator_uid };
	struct config_limits limits = config_limits_of(c->o->config, &creator);
	uint64_t old = rec->ring_bytes * rec->partitions;
	struct use use = { 0 };

	if (limits.bytes == UINT64_MAX)
		return 0;
	count_memory(c, creator.uid, &use);
	return check(&(struct asker){ creator.uid, why }, "bytes", use.bytes - old, bytes,
		     limits.bytes);
}
