/* SPDX-License-Identifier: MIT
 *
 * ZeroMQ over ipc://.  One receiver: PUSH to PULL.  More: XPUB to SUB, where
 * ZMQ_XPUB_NODROP makes a sender wait for the slowest.  Senders bind: an XPUB
 * that connects is not told of the subscriptions.
 */
#include "common.h"

#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <zmq.h>

struct end {
	struct peer_channel channel;
	void *socket;
	unsigned n; /* senders: their connections */
	int fds[];
};

/* One context in a process, as the guide has it. */
static void *context;
static unsigned users;

static struct end *give_up(const char *what)
{
	peer_error("%s: %s", what, zmq_strerror(zmq_errno()));
	return NULL;
}

static struct end *make_end(const struct peer_channel *channel, int type)
{
	struct end *e = calloc(1, sizeof(*e) + channel->receivers * sizeof(e->fds[0]));
	/* Half of what may be on the way lies on each side. */
	int hwm = (int)peer_depth(channel, 4, 1024);

	if (!context)
		context = zmq_ctx_new();
	if (!e || !context || !(e->socket = zmq_socket(context, type)))
		return give_up("making a socket");
	users++;
	e->channel = *channel;
	zmq_setsockopt(e->socket, ZMQ_SNDHWM, &hwm, sizeof(hwm));
	zmq_setsockopt(e->socket, ZMQ_RCVHWM, &hwm, sizeof(hwm));
	return e;
}

static int address(const struct peer_channel *channel, unsigned i, char uri[PEER_PATH_BYTES + 8])
{
	char path[PEER_PATH_BYTES];

	if (peer_path(channel, i, path))
		return -1;
	snprintf(uri, PEER_PATH_BYTES + 8, "ipc://%s", path);
	return 0;
}

/* A receiver whose queue is full loses what is in its socket when the sender
 * closes.  So a sender keeps its connections open, beyond the life of the
 * library's own descriptors, until nothing is in them. */
static int watch(struct end *e, void **monitor)
{
	static unsigned count;
	char uri[64];

	snprintf(uri, sizeof(uri), "inproc://monitor-%u", count++);
	*monitor = zmq_socket(context, ZMQ_PAIR);
	if (!*monitor || zmq_socket_monitor(e->socket, uri, ZMQ_EVENT_ACCEPTED) < 0)
		return -1;
	return zmq_connect(*monitor, uri);
}

static int keep_connections(struct end *e, void *monitor)
{
	unsigned char event[6]; /* what happened, and to which descriptor */
	char whom[PEER_PATH_BYTES + 8];
	int fd;

	for (e->n = 0; e->n < e->channel.receivers; e->n++) {
		if (zmq_recv(monitor, event, sizeof(event), 0) != sizeof(event) ||
		    zmq_recv(monitor, whom, sizeof(whom), 0) < 0)
			return -1;
		memcpy(&fd, event + 2, sizeof(fd));
		e->fds[e->n] = dup(fd);
		if (e->fds[e->n] < 0)
			return -1;
	}
	zmq_socket_monitor(e->socket, NULL, 0);
	return zmq_close(monitor);
}

static void await_empty(const struct end *e)
{
	unsigned i;

	for (i = 0; i < e->n; i++) {
		int bytes;

		while (!ioctl(e->fds[i], SIOCOUTQ, &bytes) && bytes > 0)
			peer_nap();
		close(e->fds[i]);
	}
}

static void close_end(void *end)
{
	struct end *e = end;

	zmq_close(e->socket);
	if (!--users) {
		zmq_ctx_term(context);
		context = NULL;
	}
	await_empty(e);
	free(e);
}

/* The first message of a subscriber to a publisher is its subscription. */
static int await_receivers(const struct end *e)
{
	zmq_pollitem_t item = { .socket = e->socket, .events = ZMQ_POLLOUT };
	char joined[2];
	unsigned i;

	if (e->channel.receivers == 1)
		return zmq_poll(&item, 1, -1);
	for (i = 0; i < e->channel.receivers; i++)
		if (zmq_recv(e->socket, joined, sizeof(joined), 0) < 0)
			return -1;
	return 0;
}

static void *open_send(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, channel->receivers > 1 ? ZMQ_XPUB : ZMQ_PUSH);
	const int on = 1, forever = -1;
	char uri[PEER_PATH_BYTES + 8];
	void *monitor;

	if (!e)
		return NULL;
	if (watch(e, &monitor))
		return give_up("watching the connections");
	zmq_setsockopt(e->socket, ZMQ_LINGER, &forever, sizeof(forever));
	if (channel->receivers > 1) {
		zmq_setsockopt(e->socket, ZMQ_XPUB_NODROP, &on, sizeof(on));
		zmq_setsockopt(e->socket, ZMQ_XPUB_VERBOSE, &on, sizeof(on));
	}
	if (address(channel, channel->index, uri) || zmq_bind(e->socket, uri))
		return give_up("binding");
	if (keep_connections(e, monitor) < 0 || await_receivers(e) < 0)
		return give_up("awaiting receivers");
	return e;
}

static void *open_recv(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, channel->receivers > 1 ? ZMQ_SUB : ZMQ_PULL);
	const int none = 0, ms = 1;
	char uri[PEER_PATH_BYTES + 8];
	unsigned i;

	if (!e)
		return NULL;
	zmq_setsockopt(e->socket, ZMQ_LINGER, &none, sizeof(none));
	zmq_setsockopt(e->socket, ZMQ_RECONNECT_IVL, &ms, sizeof(ms));
	if (channel->receivers > 1)
		zmq_setsockopt(e->socket, ZMQ_SUBSCRIBE, "", 0);
	for (i = 0; i < channel->senders; i++)
		if (address(channel, i, uri) || zmq_connect(e->socket, uri))
			return give_up("connecting");
	return e;
}

static int send_one(void *end, const void *data, size_t len)
{
	struct end *e = end;

	while (zmq_send(e->socket, data, len, 0) < 0)
		if (zmq_errno() != EINTR)
			return peer_error("zmq_send: %s", zmq_strerror(zmq_errno()));
	return 0;
}

static ssize_t recv_one(void *end, void *buf, size_t capacity)
{
	struct end *e = end;
	int flags = e->channel.wait == PEER_SPIN ? ZMQ_DONTWAIT : 0;

	for (;;) {
		int n = zmq_recv(e->socket, buf, capacity, flags);

		if (n >= 0)
			return n;
		/* The library's own thread may need this processor. */
		if (zmq_errno() == EAGAIN)
			peer_yield();
		else if (zmq_errno() != EINTR)
			return peer_error("zmq_recv: %s", zmq_strerror(zmq_errno()));
	}
}

static const char *version(void)
{
	static char text[32];
	int major, minor, patch;

	zmq_version(&major, &minor, &patch);
	snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
	return text;
}

const struct peer bench_peer = {
	.name = "zeromq",
	.max_bytes = 1 << 30,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.version = version,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_one,
	.recv = recv_one,
	.close = close_end,
};
