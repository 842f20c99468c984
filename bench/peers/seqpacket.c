/* SPDX-License-Identifier: MIT
 *
 * AF_UNIX sockets of type SOCK_SEQPACKET: a connection from each sender to
 * each receiver, a message a packet.  An empty packet can't be told from the
 * end of a connection, so an empty message is a packet one longer than any.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What a packet holds where net.core.wmem_default is not lowered, with its
 * bookkeeping. */
#define PACKET_BYTES (128 << 10)
#define SOCKET_BYTES (4 << 20) /* asked for; the kernel lowers it */

struct end {
	struct peer_channel channel;
	int listens; /* receivers: where senders connect; else -1 */
	int accepted;
	char *empty; /* what stands for an empty message */
	unsigned n, left, next, polls;
	struct pollfd *fds;
};

static struct end *make_end(const struct peer_channel *channel, unsigned n,
			    struct sockaddr_un *address)
{
	struct end *e = calloc(1, sizeof(*e));
	unsigned i;

	if (e) {
		e->fds = calloc(n, sizeof(*e->fds));
		e->empty = calloc(1, channel->bytes + 1);
	}
	if (!e || !e->fds || !e->empty) {
		peer_error("out of memory");
		return NULL;
	}
	e->channel = *channel;
	e->listens = -1;
	e->n = n;
	for (i = 0; i < n; i++)
		e->fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	return e;
}

static void close_end(void *end)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++)
		if (e->fds[i].fd >= 0)
			close(e->fds[i].fd);
	if (e->listens >= 0) {
		peer_withdraw(&e->channel, e->channel.index);
		close(e->listens);
	}
	free(e->fds);
	free(e->empty);
	free(e);
}

static int connect_to(const struct peer_channel *channel, struct sockaddr_un *address, unsigned i)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), size = SOCKET_BYTES;

	if (fd < 0 || peer_path(channel, i, address->sun_path))
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	while (connect(fd, (struct sockaddr *)address, sizeof(*address))) {
		if (errno != ENOENT && errno != ECONNREFUSED)
			return peer_error("connecting to %s: %s", address->sun_path,
					  strerror(errno));
		peer_nap();
	}
	return fd;
}

static void *open_send(const struct peer_channel *channel)
{
	struct sockaddr_un address;
	struct end *e = make_end(channel, channel->receivers, &address);
	unsigned i;

	for (i = 0; e && i < e->n; i++)
		if ((e->fds[i].fd = connect_to(channel, &address, i)) < 0)
			return NULL;
	return e;
}

static void *open_recv(const struct peer_channel *channel)
{
	struct sockaddr_un address;
	struct end *e = make_end(channel, channel->senders, &address);

	if (!e || peer_path(channel, channel->index, address.sun_path))
		return NULL;
	e->listens = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (e->listens < 0 || bind(e->listens, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(e->listens, (int)channel->senders)) {
		peer_error("listening on %s: %s", address.sun_path, strerror(errno));
		return NULL;
	}
	return e;
}

static int send_all(void *end, const void *data, size_t len)
{
	struct end *e = end;
	unsigned i;

	if (!len) {
		data = e->empty;
		len = e->channel.bytes + 1;
	}
	for (i = 0; i < e->n; i++)
		while (send(e->fds[i].fd, data, len, MSG_NOSIGNAL) < 0)
			if (errno != EINTR)
				return peer_error("send: %s", strerror(errno));
	return 0;
}

/* Connections wait in the queue of the listener until the first receive, so
 * that an opening receiver waits for nobody. */
static int accept_all(struct end *e)
{
	int flags = e->channel.wait == PEER_SPIN || e->n > 1 ? SOCK_NONBLOCK : 0;
	unsigned i;

	for (i = 0; i < e->n; i++) {
		e->fds[i].fd = accept4(e->listens, NULL, NULL, flags | SOCK_CLOEXEC);
		if (e->fds[i].fd < 0)
			return peer_error("accept: %s", strerror(errno));
	}
	e->accepted = 1;
	return 0;
}

/* A sender has closed; -1 if it was the last. */
static int leave(struct end *e, struct pollfd *fd)
{
	close(fd->fd);
	fd->fd = -1; /* poll() ignores it */
	return ++e->left == e->n ? peer_error("the senders have gone") : 0;
}

/* -2: it had closed before.  The kernel says that a connection has ended if it found
 * nothing and then sees that it is shut, so the last packet may have come in between:
 * only a second 0 means the end. */
static ssize_t recv_from(const struct pollfd *fd, void *buf, size_t capacity)
{
	ssize_t n;

	if (fd->fd < 0)
		return -2;
	n = recv(fd->fd, buf, capacity, MSG_TRUNC);
	return n ? n : recv(fd->fd, buf, capacity, MSG_TRUNC);
}

static ssize_t recv_any(void *end, void *buf, size_t capacity)
{
	struct end *e = end;

	if (!e->accepted && accept_all(e))
		return -1;
	for (;;) {
		unsigned tried;

		for (tried = 0; tried < e->n; tried++) {
			struct pollfd *fd = &e->fds[e->next];
			ssize_t n = recv_from(fd, buf, capacity);

			e->next = (e->next + 1) % e->n;
			if (n > 0)
				return (size_t)n > e->channel.bytes ? 0 : n;
			if (n == -1 && errno != EAGAIN && errno != EINTR)
				return peer_error("recv: %s", strerror(errno));
			if (n == 0 && leave(e, fd))
				return -1;
		}
		peer_idle(e->channel.wait, e->fds, e->n, &e->polls);
	}
}

const struct peer bench_peer = {
	.name = "seqpacket",
	.max_bytes = PACKET_BYTES,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_all,
	.recv = recv_any,
	.close = close_end,
};
