/* SPDX-License-Identifier: MIT
 *
 * reply: private topics of requesters (name.h).  One lives as long as who made it
 * has it open: it ends when that handle is closed, or dies; and if its maker died
 * before it came to open it.
 */
#include "control.h"
#include "name.h"

#define BYTES_MAX (UINT64_C(64) << 20)
/* Whoever answers has memory for two of them (libshmq/responder.c). */
#define MESSAGE_MAX ((UINT64_C(16) << 20) + 64)

static int is_live_reply(const struct topic *t)
{
	struct shmq__name_reply reply;

	return load_relaxed(&t->rec->state) == LAY_TOPIC_LIVE && !t->creation &&
	       shmq__name_read_reply(t->rec->name, &reply);
}

static int is_maker(const struct topic *t, const struct peer *p)
{
	return load_relaxed(&p->rec->nonce) == t->rec->creator_nonce && !p->parting;
}

static int is_read(const struct topic *t)
{
	const struct handle *h;

	LIST_FOREACH (h, &t->handles, of_topic)
		if (h->role == SHMQ_ROLE_SUBSCRIBER && is_maker(t, h->peer) &&
		    !proto_is_of_watch(h->token))
			return 1;
	return 0;
}

static void end(struct control *c, struct topic *t)
{
	struct shmq__why why = { "" };

	if (create_end_topic(c, t, NULL, &why))
		log_error("%s; who answers to it is not told that it ends", why.text);
	registry_announce(c->reg);
}

int reply_check(const struct conn *conn, const struct proto_request *req, struct shmq__why *why)
{
	struct shmq__name_reply reply;

	if (!shmq__name_read_reply(req->topic, &reply))
		return shmq__name_check_topic(req->topic, SHMQ__NAME_USER, why);
	if (reply.uid != conn->who.uid)
		return shmq__fail(why, SHMQ_EACCESS, "uid %u cannot ask as uid %u",
				  (unsigned)conn->who.uid, (unsigned)reply.uid);
	if (req->create.partitions > 1 || req->create.log > SHMQ_LOG_NONE ||
	    req->create.max_bytes > MESSAGE_MAX || req->create.slot_bytes > LAY_SLOT_BYTES_MAX ||
	    req->create.depth > BYTES_MAX / LAY_SLOT_BYTES_MAX)
		return shmq__fail(why, SHMQ_EOPTION,
				  "\"%s\" is for replies: one partition, no log, no more than "
				  "%llu MiB, replies of no more than %llu MiB",
				  req->topic, (unsigned long long)(BYTES_MAX >> 20),
				  (unsigned long long)(MESSAGE_MAX >> 20));
	return 0;
}

void reply_was_left(struct control *c, struct topic *t)
{
	if (is_live_reply(t) && !is_read(t))
		end(c, t);
}

/* One that nobody has opened: its maker will, or is gone. */
static void look_at(struct control *c, struct topic *t)
{
	struct peer *p;

	LIST_FOREACH (p, &c->reg->peers, link)
		if (is_maker(t, p)) {
			p->makes_replies = 1;
			return;
		}
	end(c, t);
	create_reap_topic(c, t);
}

void reply_look(struct control *c)
{
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i] && is_live_reply(c->reg->topic[i]) &&
		    !is_read(c->reg->topic[i]))
			look_at(c, c->reg->topic[i]);
}

void reply_was_made(struct control *c, struct topic *t)
{
	if (is_live_reply(t))
		look_at(c, t);
}
