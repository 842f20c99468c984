/* SPDX-License-Identifier: MIT */
#include "attach.h"
#include "clock.h"
#include "event.h"
#include "request.h"
#include "serve.h"
#include "start.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const int64_t retry_min_ns = 1000000, retry_max_ns = 200000000;
static const int64_t offer_pause_ns = 100000000;

/* A full backlog makes connect() wait: SO_SNDTIMEO bounds that, and every
 * send after it. */
static int connect_socket(const char *path, uint64_t deadline)
{
	int64_t left = shmq__clock_left(deadline);
	struct timeval tv = { .tv_sec = left / 1000000000, .tv_usec = left % 1000000000 / 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, error;

	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	memcpy(addr.sun_path, path, strnlen(path, sizeof(addr.sun_path) - 1));
	if (left >= 0 && !tv.tv_sec && !tv.tv_usec)
		tv.tv_usec = 1; /* 0 would mean for ever */
	if (left >= 0)
		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		error = -errno;
		close(sock);
		return error;
	}
	return sock;
}

int shmq__attach_is_away(int error)
{
	return error == -ENOENT || error == -ECONNREFUSED || error == -EPIPE ||
	       error == -ECONNRESET;
}

/* Where parent and worker died at once the next start has nothing, and
 * listens for what we hold (daemon/gather.h).  It answers by being there. */
static void offer_slabs(struct shmq_bus *bus)
{
	struct lay_registry *head = shmq__slabs_registry(bus->slabs);
	unsigned count = load_relaxed(&head->slab_count), id, n = 0;
	uint64_t now = shmq__clock_monotonic_ns();
	char path[sizeof(bus->path)];
	struct proto_request req;
	int fds[PROTO_FDS_MAX], sock, error = 0;

	if (now < bus->next_offer_ns)
		return;
	snprintf(path, sizeof(path), "%s/%s.back", bus->dir, bus->name);
	sock = connect_socket(path, shmq__clock_deadline(offer_pause_ns));
	if (sock < 0)
		return;
	shmq__bus_prepare(bus, &req, PROTO_OFFER, NULL);
	req.offer.bus_nonce = bus->bus_nonce;
	for (id = 0; id < count; id++) {
		int fd = shmq__slabs_fd(bus->slabs, id, SHMQ__SLAB_READ), writable = fd < 0;

		if (writable)
			fd = shmq__slabs_fd(bus->slabs, id, SHMQ__SLAB_WRITE);
		if (fd < 0)
			continue;
		req.offer.fd[n].slab = (uint16_t)id;
		req.offer.fd[n].writable = (uint16_t)writable;
		fds[n++] = fd;
		if (n < PROTO_FDS_MAX)
			continue;
		req.offer.fd_count = n;
		error = error ? error : shmq__wire_send(sock, &req, sizeof(req), fds, n);
		n = 0;
	}
	req.offer.fd_count = n;
	if (!error && n)
		error = shmq__wire_send(sock, &req, sizeof(req), fds, n);
	if (!error) {
		bus->next_offer_ns = now + (uint64_t)offer_pause_ns;
		bus->retry_ns = retry_min_ns;
	}
	close(sock);
}

void shmq__attach_say_goodbye(struct shmq_bus *bus, int sock)
{
	struct proto_request req;

	shmq__bus_prepare(bus, &req, PROTO_GOODBYE, NULL);
	shmq__wire_send(sock, &req, sizeof(req), NULL, 0);
}

static void prepare_hello(struct shmq_bus *bus, struct proto_request *req)
{
	shmq__bus_prepare(bus, req, PROTO_HELLO, NULL);
	req->hello.layout_version = LAY_VERSION;
	req->hello.layout_oldest = LAY_OLDEST;
	req->hello.nonce = bus->nonce;
	req->hello.bus_nonce = bus->bus_nonce;
	memcpy(req->hello.name, bus->client_name, sizeof(req->hello.name));
}

void shmq__attach_leave(struct shmq_bus *bus)
{
	struct proto_request req;
	int sock = connect_socket(bus->path, shmq__clock_deadline(0));

	if (sock < 0)
		return;
	prepare_hello(bus, &req);
	if (!shmq__wire_send(sock, &req, sizeof(req), NULL, 0))
		shmq__attach_say_goodbye(bus, sock);
	close(sock);
}

/* Our handles stand under this id and generation. */
static int is_resumed(const struct shmq_bus *bus, const struct proto_reply *reply)
{
	return reply->hello.resumed && reply->hello.bus_nonce == bus->bus_nonce &&
	       reply->hello.client == bus->client && reply->hello.gen == bus->gen;
}

static int went_away(const struct shmq_bus *bus, struct shmq__why *why)
{
	return shmq__fail(why, SHMQ_ENODAEMON, "the supervisor at %s went away", bus->path);
}

/* Connect and say hello.  Locked.  0, SHMQ_ENODAEMON if nobody is there, or
 * what the supervisor refused us with.  *is_there: somebody listens. */
static int attach(struct shmq_bus *bus, uint64_t deadline, int *is_there, struct shmq__why *why)
{
	struct proto_request req;
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX], error, again = bus->bus_nonce != 0;
	struct epoll_event readable = { .events = EPOLLIN };
	unsigned n = 0, i;
	int sock = connect_socket(bus->path, deadline);

	*is_there = sock >= 0;
	if (sock < 0 && shmq__attach_is_away(sock) && again)
		offer_slabs(bus);
	if (sock < 0 && shmq__attach_is_away(sock))
		return shmq__fail(why, SHMQ_ENODAEMON,
				  "nobody listens at %s: start shmqd --bus %s --runtime-dir %s",
				  bus->path, bus->name, bus->dir);
	if (sock == -EAGAIN)
		return shmq__fail(why, SHMQ_EDAEMON,
				  "the supervisor at %s does not accept: see %s/%s.log", bus->path,
				  bus->dir, bus->name);
	if (sock == -EACCES)
		return shmq__fail(why, SHMQ_EACCESS,
				  "connecting to %s: this bus is its owner's alone (shmqd --allow "
				  "lets others in)",
				  bus->path);
	if (sock < 0)
		return shmq__fail(why, sock, "connecting to %s: %s", bus->path,
				  shmq_strerror(sock));
	prepare_hello(bus, &req);
	error = shmq__request_converse(sock, &req, &reply, fds, &n, deadline);
	if (error) {
		if (!again)
			shmq__attach_say_goodbye(bus, sock);
		close(sock);
		if (shmq__attach_is_away(error))
			return went_away(bus, why);
		if (error == -EMFILE)
			return shmq__request_no_descriptors(why);
		return shmq__fail(why,
				  error == -EPROTO || error == -EMSGSIZE ? SHMQ_EVERSION :
									   SHMQ_EDAEMON,
				  "greeting the supervisor at %s: %s", bus->path, strerror(-error));
	}
	error = reply.error;
	if (error)
		shmq__fail(why, error, "%s", reply.why);
	else if (!n)
		error = shmq__fail(why, SHMQ_EPROTO, "the supervisor sent no event socket");
	else if (!reply.hello.client || reply.hello.client > LAY_CLIENT_MAX)
		error = shmq__fail(why, SHMQ_EPROTO, "the supervisor says we are client %u",
				   reply.hello.client);
	else if (again && !is_resumed(bus, &reply)) {
		atomic_store(&bus->lost, 1);
		error = shmq__fail(why, SHMQ_ELOST,
				   "bus \"%s\" was started anew: close this bus and open it again",
				   bus->name);
	}
	if (error) {
		for (i = 0; i < n; i++)
			close(fds[i]);
		if (!again)
			shmq__attach_say_goodbye(bus, sock);
		close(sock);
		return error;
	}
	error = shmq__request_take_slabs(bus, &reply, fds + 1, n - 1);
	if (!error)
		error = shmq__request_take_rest(bus, sock, NULL, &reply, deadline);
	if (!error && !shmq__slabs_registry(bus->slabs))
		error = SHMQ_EPROTO;
	/* What was behind the number leaves the caller's epoll set with it. */
	if (!error && dup3(fds[0], bus->event_sock, O_CLOEXEC) < 0)
		error = -errno;
	if (!error && bus->poll_fd >= 0 &&
	    epoll_ctl(bus->poll_fd, EPOLL_CTL_ADD, bus->event_sock, &readable) && errno != EEXIST)
		error = -errno;
	close(fds[0]);
	if (error) {
		if (!again)
			shmq__attach_say_goodbye(bus, sock);
		close(sock);
		return shmq__fail(why, error, "taking over the segments of bus \"%s\": %s",
				  bus->name, shmq_strerror(error));
	}
	bus->sock = sock;
	if (!again) { /* else they are the same, and handles may be looking */
		bus->client = reply.hello.client;
		bus->gen = reply.hello.gen;
		bus->bus_nonce = reply.hello.bus_nonce;
	}
	bus->retry_ns = retry_min_ns;
	bus->start_pause_ns = 0;
	shmq__start_reap(bus, 100);
	atomic_store(&bus->attached, 1);
	if (again) {
		atomic_fetch_add(&bus->reattached, 1);
		shmq__event_push(bus, SHMQ_EVENT_REATTACHED);
		shmq__serve_kick(bus);
	}
	shmq__bus_send_closes(bus);
	if (bus->sock < 0)
		return went_away(bus, why);
	return 0;
}

/* The supervisor we had ended this bus: it does not come back to it. */
static int has_ended(struct shmq_bus *bus)
{
	return bus->bus_nonce && !load_acquire(&shmq__slabs_registry(bus->slabs)->control_pid);
}

int shmq__attach_until(struct shmq_bus *bus, uint64_t deadline, struct shmq__why *why)
{
	int started = 0, is_there, left_us = 0, error;

	for (;;) {
		error = attach(bus, deadline, &is_there, why);
		/* How far the last one got that we asked is a matter of the moment
		 * at which time was up; that one went away is not. */
		if (error == SHMQ_EDAEMON && left_us)
			return went_away(bus, why);
		if (error != SHMQ_ENODAEMON)
			return error;
		left_us |= is_there;
		if (has_ended(bus))
			return shmq__fail(why, error,
					  "bus \"%s\" has ended: close it and open it again",
					  bus->name);
		if (bus->bus_nonce)
			shmq__start_again(bus);
		else if (bus->start == SHMQ_START_ON_DEMAND && !started && !is_there) {
			error = shmq__start_daemon(bus, why);
			if (error)
				return error;
			started = 1;
			continue;
		}
		/* A supervisor that we know of may be restarting; where one listens,
		 * it is its worker, which died before it could answer. */
		if ((!started && !bus->bus_nonce && !is_there) || shmq__clock_left(deadline) == 0)
			return error;
		poll(NULL, 0, 1);
	}
}

int shmq__attach_come_back(struct shmq_bus *bus, uint64_t *retry_at)
{
	int error = 0, is_there;

	pthread_mutex_lock(&bus->lock);
	if (!bus->is_leaving && shmq__event_read(bus) == -EPIPE) {
		shmq__request_disconnect(bus);
		error = attach(bus,
			       shmq__clock_deadline(atomic_load(&bus->wake_ns) ? 5000000 :
										 1000000000),
			       &is_there, NULL);
		if (error == SHMQ_ENODAEMON && !has_ended(bus))
			shmq__start_again(bus);
		if (error && bus->retry_ns < retry_max_ns)
			bus->retry_ns *= 2;
	}
	*retry_at = error && !atomic_load(&bus->lost) ? shmq__clock_deadline(bus->retry_ns) : 0;
	pthread_mutex_unlock(&bus->lock);
	return error;
}
