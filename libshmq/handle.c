/* SPDX-License-Identifier: MIT
 *
 * handle: what publishers and subscribers have in common.
 */
#include "bus.h"
#include "attach.h"
#include "clock.h"
#include "request.h"
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define HURRY_NS INT64_C(1000000000)

/* Whoever was interrupted is not kept by a supervisor that does not answer. */
static int64_t patience(const struct shmq_bus *bus)
{
	return bus_is_interrupted(bus) && bus->timeout_ns > HURRY_NS ? HURRY_NS : bus->timeout_ns;
}

/* One CLOSE on the connection there is; disconnects if that fails. */
static int say_closed(struct shmq_bus *bus, uint64_t handle)
{
	struct proto_request req;
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX], error;
	unsigned n;

	shmq__bus_prepare(bus, &req, PROTO_CLOSE, NULL);
	req.close.handle = handle;
	error = shmq__request_converse(bus->sock, &req, &reply, fds, &n,
				       shmq__clock_deadline(patience(bus)));
	if (error && bus->is_leaving) { /* what waits in the socket is heard after we hung up */
		shmq__attach_say_goodbye(bus, bus->sock);
		bus->has_left = 1;
	}
	if (error)
		shmq__request_disconnect(bus);
	while (!error && n)
		close(fds[--n]);
	return error;
}

/* Tell the supervisor that a handle is closed; while it is away, keep the
 * token and tell it when it is back.  A process that ends before that is
 * recovered as dead. */
void shmq__bus_close_token(struct shmq_bus *bus, uint64_t handle)
{
	pthread_mutex_lock(&bus->lock);
	if (bus->sock < 0 || say_closed(bus, handle)) {
		if (bus->to_close_count == bus->to_close_capacity) {
			size_t capacity = bus->to_close_capacity ? 2 * bus->to_close_capacity : 16;
			uint64_t *more = realloc(bus->to_close, capacity * sizeof(*more));

			if (!more)
				goto out;
			bus->to_close = more;
			bus->to_close_capacity = capacity;
		}
		bus->to_close[bus->to_close_count++] = handle;
	}
out:
	pthread_mutex_unlock(&bus->lock);
}

void shmq__bus_send_closes(struct shmq_bus *bus)
{
	while (bus->to_close_count && bus->sock >= 0)
		if (!say_closed(bus, bus->to_close[bus->to_close_count - 1]))
			bus->to_close_count--;
}

int shmq__bus_map_handle(struct shmq_bus *bus, uint32_t topic_index, uint64_t topic_id,
			 uint64_t entry_gen, struct shmq__handle *h, enum shmq__slabs_mode mode)
{
	uint64_t bytes = h->entry_count * sizeof(*h->entry);
	void *entry;
	int error = shmq__topic_attach(bus->slabs, topic_index, topic_id, mode, &h->topic);

	if (error)
		return error;
	/* 0: one for each partition. */
	if (!h->entry_count)
		bytes = (h->entry_count = h->topic->geo.partitions) * sizeof(*h->entry);
	error = shmq__slabs_map(bus->slabs, h->entry_ref, bytes, SHMQ__SLAB_WRITE, &entry);
	if (!error && load_acquire(&((struct lay_entry *)entry)->gen) != entry_gen) {
		shmq__slabs_unmap(bus->slabs, h->entry_ref, bytes, entry);
		error = SHMQ_ECORRUPT;
	}
	if (error) {
		shmq__topic_detach(h->topic);
		h->topic = NULL;
		return error;
	}
	h->bus = bus;
	h->entry = entry;
	return 0;
}

int shmq__bus_open_handle(struct shmq_bus *bus, struct proto_request *req, struct shmq__handle *h,
			  enum shmq__slabs_mode mode, struct shmq__why *why)
{
	struct proto_reply reply = { 0 };
	int error = shmq__bus_request(bus, req, &reply, why);

	/* Granted, but its descriptors found no room here; or not answered,
	 * which is not refused: it may still be carried out. */
	if (error && !reply.error)
		shmq__bus_close_token(bus, req->token);
	if (error)
		return error;
	h->token = req->token;
	h->arena = reply.open.arena;
	h->entry_ref = reply.open.entry;
	h->entry_count = req->open.partition >= 0 ? 1 : 0;
	error = shmq__bus_map_handle(bus, reply.open.topic_index, reply.open.topic_id,
				     reply.open.entry_gen, h, mode);
	if (!error && req->open.partition < (int64_t)h->topic->geo.partitions)
		return 0;
	if (!error) {
		shmq__slabs_unmap(bus->slabs, h->entry_ref, sizeof(*h->entry), h->entry);
		shmq__topic_detach(h->topic);
		h->topic = NULL;
		h->entry = NULL;
		error = shmq__fail(why, SHMQ_ECORRUPT, "\"%s\" has no partition %d", req->topic,
				   req->open.partition);
	} else if (error == SHMQ_ECORRUPT) {
		shmq__fail(why, error, "what \"%s\" was opened with is not ours", req->topic);
	}
	shmq__bus_close_token(bus, req->token);
	if (error == SHMQ_ELIMIT || error == -ENOMEM)
		shmq__bus_no_memory(why, error, "mapping", req->topic);
	return error;
}

void shmq__bus_unlist_handle(struct shmq__handle *h)
{
	/* Who is before us in the list may be leaving it, and write to our link. */
	pthread_mutex_lock(&h->bus->lock);
	if (h->link) {
		*h->link = h->next;
		if (h->next)
			h->next->link = h->link;
		h->link = NULL;
	}
	pthread_mutex_unlock(&h->bus->lock);
}

/* For the next worker, where there is none now.  Relaxed: it comes to look once
 * nobody has the last one's connection. */
static void note_closed(const struct shmq__handle *h)
{
	uint32_t how = LAY_ENTRY_CLOSED | (h->bus->is_leaving ? LAY_ENTRY_LEFT : 0);

	store_relaxed(&h->entry->flags, load_relaxed(&h->entry->flags) | how);
}

void shmq__bus_close_handle(struct shmq__handle *h)
{
	struct shmq_bus *bus = h->bus;

	if (bus_check(bus)) { /* a forked child: the maps are not here */
		return;
	}
	shmq__bus_unlist_handle(h);
	note_closed(h);
	shmq__slabs_unmap(bus->slabs, h->entry_ref, h->entry_count * sizeof(*h->entry), h->entry);
	shmq__topic_detach(h->topic);
	if (h->token)
		shmq__bus_close_token(bus, h->token);
}

void shmq__bus_move_handle(struct shmq__handle *to, struct shmq__handle *from)
{
	struct shmq_bus *bus = from->bus;

	pthread_mutex_lock(&bus->lock);
	to->next = bus->handles;
	to->link = &bus->handles;
	if (to->next)
		to->next->link = &to->next;
	bus->handles = to;
	pthread_mutex_unlock(&bus->lock);
}
