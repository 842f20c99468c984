/* SPDX-License-Identifier: MIT */
#include "give.h"

#include <string.h>
#include <unistd.h>

#include "wire.h"

/* ---- having it ------------------------------------------------------- */

static uint64_t *word_of(uint64_t *bits, unsigned id)
{
	return &bits[id / 64];
}

static int has_bit(const uint64_t *bits, unsigned id)
{
	return bits[id / 64] >> id % 64 & 1;
}

void give_is_held(struct control *c, uint32_t id)
{
	if (id == GIVE_ALL)
		memset(c->unheld, 0, sizeof(c->unheld));
	else if (id < LINK_SLABS_MAX)
		*word_of(c->unheld, id) &= ~(UINT64_C(1) << id % 64);
	else
		return;
	control_memory_came(c);
}

static int is_for_topic(const struct control *c, const struct topic *t, uint64_t list)
{
	return give_list_of(c, t) == list;
}

/* Before anybody can refer to it. */
static void push(struct control *c, unsigned id, uint64_t list)
{
	struct proto_event event = { .magic = PROTO_MAGIC,
				     .version = PROTO_VERSION,
				     .kind = PROTO_EVENT_SLAB,
				     .client = id };
	int fd = shmq__slabs_fd(c->reg->slabs, id, SHMQ__SLAB_READ);
	struct handle *h;
	struct peer *p;

	LIST_FOREACH (p, &c->reg->peers, link) {
		if (!p->conn || p->conn->event_fd < 0)
			continue;
		LIST_FOREACH (h, &p->handles, of_peer)
			if (h->role == SHMQ_ROLE_SUBSCRIBER && is_for_topic(c, h->topic, list))
				break;
		if (h && !shmq__wire_send(p->conn->event_fd, &event, sizeof(event), &fd, 1))
			*word_of(p->conn->given[CONN_GIVE_READ], id) |= UINT64_C(1) << id % 64;
	}
}

static int make(struct control *c, uint32_t kind, unsigned page_shift, uint64_t list, uint32_t uid,
		struct shmq__why *why)
{
	unsigned id = load_relaxed(&c->reg->head->slab_count);
	struct link_slab slab = registry_slab_shape(kind, page_shift);
	int error;

	if (id == LINK_SLABS_MAX)
		return shmq__fail(why, SHMQ_ELIMIT,
				  "this bus has %u slabs, which is all it can have: too many sets "
				  "of callers share topics",
				  id);
	slab.extra = 1;
	slab.fd = registry_make_slab(id, &slab);
	if (slab.fd < 0)
		return shmq__fail(why, SHMQ_ELIMIT, "making a memfd: %s", strerror(-slab.fd));
	/* Queued, it outlives us. */
	error = c->link.ready ? link_send_slab(c->link.fd, id, &slab) : 0;
	if (error) {
		close(slab.fd);
		return shmq__fail(why, SHMQ_ELIMIT, "giving a slab to the parent: %s",
				  strerror(-error));
	}
	c->slab[id] = slab;
	*word_of(c->unheld, id) |= UINT64_C(1) << id % 64;
	error = registry_add_slab(c->reg, id, &slab, list, uid, why);
	if (error)
		return error;
	log_info("slab %u made: %s pages of %u KiB for uid %u, list %016llx", id,
		 kind == LAY_SLAB_RING  ? "rings in" :
		 kind == LAY_SLAB_ARENA ? "an arena in" :
					  "bells in",
		 1u << (page_shift - 10), uid, (unsigned long long)list);
	if (kind == LAY_SLAB_ARENA)
		push(c, id, list);
	return POOL_COMING;
}

int give_find(struct control *c, uint32_t kind, unsigned page_shift, uint64_t list, uint32_t uid,
	      unsigned *id, struct shmq__why *why)
{
	int found = registry_find_slab_of(c->reg, kind, page_shift, list, uid);

	if (found < 0 && registry_find_slab(c->reg, kind, page_shift) < 0)
		return shmq__fail(why, SHMQ_ENOHUGE, "this bus has no slab of %u KiB pages",
				  1u << (page_shift - 10));
	if (found < 0) {
		found = registry_find_slab_of(c->reg, kind, page_shift, 0, LAY_UID_NONE);
		if (found >= 0)
			registry_assign_slab(c->reg, (unsigned)found, list, uid);
		if (found >= 0 && kind == LAY_SLAB_ARENA)
			push(c, (unsigned)found, list);
	}
	if (found < 0 && kind == LAY_SLAB_ENTRY)
		return shmq__fail(why, SHMQ_ELIMIT,
				  "this bus was started for %u uids besides its owner's, and they "
				  "have come: start shmqd with a larger --guests",
				  c->o->guests);
	if (found < 0)
		return make(c, kind, page_shift, list, uid, why);
	*id = (unsigned)found;
	return has_bit(c->unheld, *id) ? POOL_COMING : 0;
}

uint64_t give_list_of(const struct control *c, const struct topic *t)
{
	lay_ref ref = registry_rings_of(c->reg, t->rec).ref;

	return registry_slab_record(c->reg, LAY_REF_SLAB(ref))->list;
}

/* ---- giving it ------------------------------------------------------- */

/* What is to go into one message; the rest has to be asked for. */
struct parcel {
	struct conn *conn;
	struct proto_reply *reply;
	int *fds;
	unsigned *fd_count;
};

static void give(const struct parcel *to, unsigned id, enum conn_give how)
{
	struct conn *conn = to->conn;
	struct proto_reply *reply = to->reply;

	if (has_bit(conn->given[how], id))
		return;
	if (*to->fd_count == PROTO_FDS_MAX) {
		reply->more = 1;
		return;
	}
	*word_of(conn->given[how], id) |= UINT64_C(1) << id % 64;
	reply->fd[reply->fd_count].slab = (uint16_t)id;
	reply->fd[reply->fd_count].writable = how == CONN_GIVE_WRITE;
	reply->fd_count++;
	to->fds[(*to->fd_count)++] =
		shmq__slabs_fd(conn->c->reg->slabs, id,
			       how == CONN_GIVE_WRITE ? SHMQ__SLAB_WRITE : SHMQ__SLAB_READ);
}

static void greet(const struct parcel *to)
{
	const struct registry *r = to->conn->c->reg;
	int is_owner = access_is_owner(&to->conn->who);
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++) {
		uint32_t kind = r->slab[i].fd >= 0 ? r->slab[i].kind : 0;
		int is_own = is_owner && kind && registry_slab_record(r, i)->uid == r->uid &&
			     !registry_slab_record(r, i)->list;

		if (kind == LAY_SLAB_REGISTRY || kind == LAY_SLAB_ENTRY ||
		    (is_own && kind != LAY_SLAB_BELL))
			give(to, i, CONN_GIVE_READ);
		if ((kind == LAY_SLAB_ENTRY && to->conn->peer->entries == i) ||
		    (is_own && kind == LAY_SLAB_BELL))
			give(to, i, CONN_GIVE_WRITE);
	}
}

void give_greeting(struct exchange *x)
{
	greet(&(struct parcel){ x->conn, &x->reply, x->fds, &x->fd_count });
}

static void give_arenas(const struct parcel *to, uint64_t list)
{
	const struct registry *r = to->conn->c->reg;
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (r->slab[i].fd >= 0 && r->slab[i].kind == LAY_SLAB_ARENA &&
		    registry_slab_record(r, i)->list == list &&
		    registry_slab_record(r, i)->uid != LAY_UID_NONE)
			give(to, i, CONN_GIVE_READ);
}

static void topic_slabs(const struct parcel *to, const struct topic *t, enum shmq_role role)
{
	const struct registry *r = to->conn->c->reg;
	const struct lay_partition *part =
		shmq__slabs_at(r->slabs, t->rec->partition_array, sizeof(*part));

	give(to, LAY_REF_SLAB(part->ring),
	     role == SHMQ_ROLE_PUBLISHER ? CONN_GIVE_WRITE : CONN_GIVE_READ);
	give(to, LAY_REF_SLAB(part->bells), CONN_GIVE_WRITE);
	if (role == SHMQ_ROLE_SUBSCRIBER)
		give_arenas(to, registry_slab_record(r, LAY_REF_SLAB(part->ring))->list);
}

void give_topic(struct conn *conn, struct proto_reply *reply, int *fds, unsigned *fd_count,
		const struct topic *t, enum shmq_role role)
{
	const struct parcel to = { conn, reply, fds, fd_count };

	topic_slabs(&to, t, role);
}

void give_slab(struct conn *conn, struct proto_reply *reply, int *fds, unsigned *fd_count,
	       unsigned id)
{
	const struct parcel to = { conn, reply, fds, fd_count };

	give(&to, id, CONN_GIVE_WRITE);
}

/* Who has it open, or might open it. */
static int may_look(const struct exchange *x, const struct topic *t)
{
	const struct handle *h;

	LIST_FOREACH (h, &x->conn->peer->handles, of_peer)
		if (h->topic == t)
			return 1;
	return !control_may(x->c, x->conn, t->rec->name, ACCESS_PUBLISH, NULL) ||
	       !control_may(x->c, x->conn, t->rec->name, ACCESS_SUBSCRIBE, NULL);
}

int give_request(struct exchange *x)
{
	const struct parcel to = { x->conn, &x->reply, x->fds, &x->fd_count };
	struct topic *t;

	if (!*x->req->topic) {
		greet(&to);
		return 0;
	}
	t = registry_find(x->c->reg, x->req->topic);
	if (!t || t->creation)
		return shmq__fail(&x->why, SHMQ_ENOTOPIC, "there is no topic \"%s\"",
				  x->req->topic);
	if (!may_look(x, t))
		return shmq__fail(&x->why, SHMQ_EACCESS,
				  "uid %u may neither publish nor subscribe \"%s\": ask for a rule "
				  "that lets it (shmqd --allow)",
				  (unsigned)x->conn->who.uid, x->req->topic);
	topic_slabs(&to, t, SHMQ_ROLE_SUBSCRIBER);
	return 0;
}
