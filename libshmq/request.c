/* SPDX-License-Identifier: MIT */
#include "request.h"
#include "serve.h"
#include "attach.h"
#include "clock.h"
#include "event.h"
#include "name.h"
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Most answers come sooner than whoever slept would run again. */
#define SPIN_NS 100000

void shmq__bus_prepare(struct shmq_bus *bus, struct proto_request *req, enum proto_op op,
		       const char *topic)
{
	memset(req, 0, sizeof(*req));
	req->magic = PROTO_MAGIC;
	req->version = PROTO_VERSION;
	req->op = (uint16_t)op;
	req->token = atomic_fetch_add((_Atomic uint64_t *)&bus->next_token, 1);
	if (topic)
		snprintf(req->topic, sizeof(req->topic), "%s", topic);
}

void shmq__request_disconnect(struct shmq_bus *bus)
{
	if (bus->sock < 0)
		return;
	close(bus->sock);
	bus->sock = -1;
	if (atomic_exchange(&bus->attached, 0))
		shmq__event_push(bus, SHMQ_EVENT_DETACHED);
}

/* The answer to what was sent. */
static int hear(int sock, const struct proto_request *req, struct proto_reply *reply, int *fds,
		unsigned *fd_count, uint64_t deadline)
{
	uint64_t sleep_at = shmq__clock_deadline(SPIN_NS);
	struct pollfd p = { .fd = sock, .events = POLLIN };
	char why[sizeof(reply->why)];
	int rc;

	for (;;) {
		int spins = shmq__clock_monotonic_ns() < sleep_at;

		rc = poll(&p, 1, spins ? 0 : shmq__clock_left_ms(deadline));
		if (rc < 0 && errno != EINTR)
			return -errno;
		if (rc == 0 && shmq__clock_left(deadline) == 0)
			return -ETIMEDOUT;
		if (rc > 0)
			break;
		/* Only now: if the answer is there already, as it is where the
		 * supervisor ran in our place, our own new thread can wait. */
		if (spins)
			sched_yield();
	}
	rc = shmq__wire_recv(sock, reply, sizeof(*reply), fds, fd_count);
	if (rc == 0)
		return -EPIPE;
	if (rc < 0)
		return rc;
	if (reply->magic != PROTO_MAGIC || reply->version != PROTO_VERSION ||
	    reply->token != req->token || reply->op != req->op || reply->error > 0) {
		while (*fd_count)
			close(fds[--*fd_count]);
		return -EPROTO;
	}
	memcpy(why, reply->why, sizeof(why));
	shmq__name_show(reply->why, why, sizeof(why)); /* a person may read it */
	return 0;
}

int shmq__request_converse(int sock, const struct proto_request *req, struct proto_reply *reply,
			   int *fds, unsigned *fd_count, uint64_t deadline)
{
	int rc = shmq__wire_send(sock, req, sizeof(*req), NULL, 0);

	*fd_count = 0;
	return rc ? rc : hear(sock, req, reply, fds, fd_count, deadline);
}

/* Read-only ones first, so that entries are mapped whole without write
 * access. */
int shmq__request_take_slabs(struct shmq_bus *bus, const struct proto_reply *reply, int *fds,
			     unsigned fd_count)
{
	unsigned i, pass;
	int error = 0, rc;

	if (reply->fd_count != fd_count)
		error = SHMQ_EPROTO;
	for (pass = 0; pass < 2; pass++)
		for (i = 0; i < fd_count; i++) {
			if (fds[i] < 0 || (!error && !!reply->fd[i].writable != (int)pass))
				continue;
			if (error) {
				close(fds[i]);
			} else {
				rc = shmq__slabs_add(bus->slabs, reply->fd[i].slab, fds[i],
						     pass ? SHMQ__SLAB_WRITE : SHMQ__SLAB_READ);
				if (rc)
					error = rc;
			}
			fds[i] = -1;
		}
	return error;
}

int shmq__request_take_rest(struct shmq_bus *bus, int sock, const char *topic,
			    const struct proto_reply *reply, uint64_t deadline)
{
	int fds[WIRE_FDS_MAX], error = 0;
	struct proto_request req;
	struct proto_reply rest;
	uint32_t more = reply->error ? 0 : reply->more, tries = LAY_SLABS_MAX / PROTO_FDS_MAX;
	unsigned n;

	while (!error && more && tries--) {
		shmq__bus_prepare(bus, &req, PROTO_SLABS, topic);
		error = shmq__request_converse(sock, &req, &rest, fds, &n, deadline);
		if (!error)
			error = shmq__request_take_slabs(bus, &rest, fds, n);
		if (!error)
			error = rest.error;
		more = rest.more;
	}
	return error;
}

int shmq__request_no_descriptors(struct shmq__why *why)
{
	return shmq__fail(
		why, SHMQ_ELIMIT,
		"no descriptor is left for the bus's segments: raise RLIMIT_NOFILE (ulimit -n)");
}

int shmq__bus_request(struct shmq_bus *bus, struct proto_request *req, struct proto_reply *reply,
		      struct shmq__why *why)
{
	uint64_t deadline = shmq__clock_deadline(bus->timeout_ns);
	int fds[WIRE_FDS_MAX], error = bus_check(bus);
	unsigned n;

	if (error)
		return error;
	pthread_mutex_lock(&bus->lock);
	for (;;) {
		if (atomic_load(&bus->lost)) {
			error = shmq__fail(
				why, SHMQ_ELOST,
				"bus \"%s\" was started anew: close this bus and open it again",
				bus->name);
			break;
		}
		if (bus->sock < 0) {
			error = shmq__attach_until(bus, deadline, why);
			if (error)
				break;
		}
		n = 0;
		error = shmq__wire_send(bus->sock, req, sizeof(*req), NULL, 0);
		if (!error && req->op == PROTO_OPEN)
			shmq__serve_get_ready(bus);
		if (!error)
			error = hear(bus->sock, req, reply, fds, &n, deadline);
		if (!error) {
			error = shmq__request_take_slabs(bus, reply, fds, n);
			if (!error)
				error = shmq__request_take_rest(bus, bus->sock,
								*req->topic ? req->topic : NULL,
								reply, deadline);
			if (shmq__attach_is_away(error)) {
				shmq__request_disconnect(bus);
				continue;
			}
			if (error == -ENOMEM) {
				shmq__bus_no_memory(why, error, "mapping", req->topic);
				break;
			}
			if (!error)
				error = reply->error;
			if (error)
				shmq__fail(why, error, "%s", reply->why);
			break;
		}
		/* Out of step or cut off: the answer may have been lost, the
		 * request is idempotent, so ask again on a new connection. */
		shmq__request_disconnect(bus);
		if (error == -EMFILE) {
			error = shmq__request_no_descriptors(why);
			break;
		}
		if (!shmq__attach_is_away(error)) {
			error = shmq__fail(why, SHMQ_EDAEMON, "the supervisor of bus \"%s\": %s",
					   bus->name, strerror(-error));
			break;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return error;
}

int shmq__bus_notify(struct shmq_bus *bus, struct proto_request *req)
{
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX], error = -EAGAIN;
	unsigned n;

	if (!atomic_load(&bus->attached) || pthread_mutex_trylock(&bus->lock))
		return error;
	if (bus->sock >= 0) {
		error = shmq__request_converse(bus->sock, req, &reply, fds, &n,
					       shmq__clock_deadline(100000000));
		if (error)
			shmq__request_disconnect(bus);
		else
			error = shmq__request_take_slabs(bus, &reply, fds, n);
		if (!error)
			error = reply.error;
	}
	pthread_mutex_unlock(&bus->lock);
	return error;
}

static int ask_for_slabs(struct shmq_bus *bus, const char *topic)
{
	struct proto_request req;
	struct proto_reply reply;

	shmq__bus_prepare(bus, &req, PROTO_SLABS, topic);
	return shmq__bus_request(bus, &req, &reply, NULL);
}

int shmq__bus_look(struct shmq_bus *bus, const struct lay_topic *rec)
{
	const struct lay_partition *part =
		shmq__slabs_at(bus->slabs, rec->partition_array, sizeof(*part));

	if (!part || (shmq__slabs_has(bus->slabs, LAY_REF_SLAB(part->ring)) &&
		      shmq__slabs_has(bus->slabs, LAY_REF_SLAB(part->bells))))
		return 0;
	return ask_for_slabs(bus, rec->name);
}

int shmq__bus_reach(struct shmq_bus *bus, const struct shmq__topic *topic, lay_ref ref)
{
	const struct lay_slab *slab = shmq__slabs_slab(bus->slabs, LAY_REF_SLAB(ref)), *rings;

	if (shmq__slabs_has(bus->slabs, LAY_REF_SLAB(ref)))
		return 0;
	/* One of other topics' need not be asked for. */
	rings = shmq__slabs_slab(bus->slabs, LAY_REF_SLAB(topic->ring[0].part->ring));
	if (!rings || !slab || slab->list != rings->list)
		return SHMQ_ECORRUPT;
	/* It was given to the publisher after it was pushed to us. */
	shmq__event_read(bus);
	if (shmq__slabs_has(bus->slabs, LAY_REF_SLAB(ref)))
		return 0;
	return ask_for_slabs(bus, topic->rec->name);
}
