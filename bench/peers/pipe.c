/* SPDX-License-Identifier: MIT
 *
 * A pipe from each sender to each receiver, as large as may be.  A message
 * is its length and its bytes in one call; a reader takes all there is in
 * one call and hands it out from a buffer.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20) /* /proc/sys/fs/pipe-max-size unless raised */
#define BUFFER_BYTES 65536

struct buffer {
	size_t at, end;
	char bytes[BUFFER_BYTES];
};

struct end {
	struct peer_channel channel;
	int sends;
	unsigned n, next, polls;
	struct pollfd *fds;
	int *write_fds;         /* receivers: what senders open anew */
	struct buffer *buffers; /* receivers: one for each sender */
};

static struct end *make_end(const struct peer_channel *channel, int sends, unsigned n)
{
	struct end *e = calloc(1, sizeof(*e));
	unsigned i;

	if (e) {
		e->channel = *channel;
		e->sends = sends;
		e->n = n;
		e->fds = calloc(n, sizeof(*e->fds));
		e->write_fds = calloc(n, sizeof(*e->write_fds));
		e->buffers = sends ? NULL : calloc(n, sizeof(*e->buffers));
	}
	if (!e || !e->fds || !e->write_fds || (!sends && !e->buffers)) {
		peer_error("out of memory");
		return NULL;
	}
	for (i = 0; i < n; i++)
		e->fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	return e;
}

/* The number under which the pipe from a sender to a receiver is offered. */
static unsigned pipe_of(const struct peer_channel *channel, unsigned sender, unsigned receiver)
{
	return receiver * channel->senders + sender;
}

static void close_end(void *end)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++) {
		close(e->fds[i].fd);
		if (!e->sends) {
			peer_withdraw(&e->channel, pipe_of(&e->channel, i, e->channel.index));
			close(e->write_fds[i]);
		}
	}
	free(e->fds);
	free(e->write_fds);
	free(e->buffers);
	free(e);
}

static void *open_send(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 1, channel->receivers);
	unsigned i;

	signal(SIGPIPE, SIG_IGN);
	for (i = 0; e && i < e->n; i++) {
		e->fds[i].fd = peer_fetch(channel, pipe_of(channel, channel->index, i), O_WRONLY);
		if (e->fds[i].fd < 0)
			return NULL;
	}
	return e;
}

static void *open_recv(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 0, channel->senders);
	int polled = channel->wait == PEER_SPIN || channel->senders > 1;
	unsigned i;

	for (i = 0; e && i < e->n; i++) {
		int fd[2];

		if (pipe2(fd, O_CLOEXEC)) {
			peer_error("pipe: %s", strerror(errno));
			return NULL;
		}
		fcntl(fd[1], F_SETPIPE_SZ, PIPE_BYTES);
		if (polled)
			fcntl(fd[0], F_SETFL, O_NONBLOCK);
		e->fds[i].fd = fd[0];
		e->write_fds[i] = fd[1];
		if (peer_offer(channel, pipe_of(channel, i, channel->index), fd[1]))
			return NULL;
	}
	return e;
}

static int send_one(int fd, const void *data, size_t len)
{
	uint64_t head = len;
	struct iovec v[2] = { { &head, sizeof(head) }, { (void *)(uintptr_t)data, len } };

	while (v[1].iov_len || v[0].iov_len) {
		ssize_t n = writev(fd, v, 2);
		unsigned i;

		if (n < 0 && errno != EINTR)
			return peer_error("writev: %s", strerror(errno));
		for (i = 0; i < 2 && n > 0; i++) {
			size_t part = (size_t)n < v[i].iov_len ? (size_t)n : v[i].iov_len;

			v[i].iov_base = (char *)v[i].iov_base + part;
			v[i].iov_len -= part;
			n -= (ssize_t)part;
		}
	}
	return 0;
}

static int send_all(void *end, const void *data, size_t len)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++)
		if (send_one(e->fds[i].fd, data, len))
			return -1;
	return 0;
}

/* Exactly `len` bytes of a message that has begun. */
static int read_rest(struct end *e, struct pollfd *fd, char *to, size_t len)
{
	while (len) {
		ssize_t n = read(fd->fd, to, len);

		if (n > 0) {
			to += n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			peer_idle(e->channel.wait, fd, 1, &e->polls);
		} else if (n == 0 || errno != EINTR) {
			return peer_error("read: %s", n ? strerror(errno) : "the pipe has ended");
		}
	}
	return 0;
}

/* Bring at least `want` bytes into the buffer: 1, or 0 if there is nothing. */
static int fill(struct buffer *b, struct pollfd *fd, size_t want)
{
	ssize_t n;

	if (b->end - b->at >= want)
		return 1;
	memmove(b->bytes, b->bytes + b->at, b->end - b->at);
	b->end -= b->at;
	b->at = 0;
	n = read(fd->fd, b->bytes + b->end, sizeof(b->bytes) - b->end);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return peer_error("read: %s", n ? strerror(errno) : "the pipe has ended");
	b->end += (size_t)n;
	return b->end >= want;
}

static ssize_t take_from(struct end *e, unsigned i, char *buf, size_t capacity)
{
	struct buffer *b = &e->buffers[i];
	struct pollfd *fd = &e->fds[i];
	size_t part;
	uint64_t len;
	int rc = fill(b, fd, sizeof(len));

	if (rc <= 0)
		return rc ? -1 : -EAGAIN;
	memcpy(&len, b->bytes + b->at, sizeof(len));
	b->at += sizeof(len);
	if (len > capacity)
		return peer_error("a message of %zu bytes is too long", (size_t)len);
	part = b->end - b->at < len ? b->end - b->at : len;
	memcpy(buf, b->bytes + b->at, part);
	b->at += part;
	return read_rest(e, fd, buf + part, len - part) ? -1 : (ssize_t)len;
}

static ssize_t recv_any(void *end, void *buf, size_t capacity)
{
	struct end *e = end;

	for (;;) {
		unsigned tried;

		for (tried = 0; tried < e->n; tried++) {
			unsigned i = e->next;
			ssize_t n = take_from(e, i, buf, capacity);

			e->next = (i + 1) % e->n;
			if (n != -EAGAIN)
				return n;
		}
		peer_idle(e->channel.wait, e->fds, e->n, &e->polls);
	}
}

const struct peer bench_peer = {
	.name = "pipe",
	.max_bytes = 1 << 30,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_all,
	.recv = recv_any,
	.close = close_end,
};
