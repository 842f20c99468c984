/* SPDX-License-Identifier: MIT
 *
 * nng over ipc://: a PUSH socket for each receiver, all those of a receiver
 * to its one PULL.  (Its PUB drops what a receiver is slow to take.)
 */
#include "common.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

struct lane {
	nng_socket socket;
	_Atomic int connected;
};

struct end {
	struct peer_channel channel;
	int sends;
	unsigned n;
	struct lane lanes[];
};

static struct end *make_end(const struct peer_channel *channel, int sends, unsigned n)
{
	struct end *e = calloc(1, sizeof(*e) + n * sizeof(e->lanes[0]));
	unsigned i;

	if (!e) {
		peer_error("out of memory");
		return NULL;
	}
	e->channel = *channel;
	e->sends = sends;
	e->n = n;
	for (i = 0; i < n; i++) {
		int rc = sends ? nng_push0_open(&e->lanes[i].socket) :
				 nng_pull0_open(&e->lanes[i].socket);

		if (rc) {
			peer_error("opening a socket: %s", nng_strerror(rc));
			return NULL;
		}
	}
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

static void connected(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct lane *lane = arg;

	(void)pipe;
	atomic_store(&lane->connected, event == NNG_PIPE_EV_ADD_POST);
}

/* The library drops at exit what it has not written, and says of no message
 * that it is written.  But it takes the next one only when the last is: so
 * one more is sent, of a length that no message has, and the receiver skips
 * it.  A receiver that is gone had what it wanted. */
static void drain(const struct peer_channel *channel, struct lane *lane)
{
	void *end_mark = calloc(1, channel->bytes + 1);
	int rc = end_mark ? NNG_ETIMEDOUT : NNG_ENOMEM;

	nng_socket_set_ms(lane->socket, NNG_OPT_SENDTIMEO, 50);
	while (rc == NNG_ETIMEDOUT && atomic_load(&lane->connected))
		rc = nng_send(lane->socket, end_mark, channel->bytes + 1, 0);
	free(end_mark);
}

/* A socket stays until the process ends, and so does what its callback
 * needs: nng_close() of 1.5.2 at times never returns when the other end
 * closes as well. */
static void close_end(void *end)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n && e->sends; i++)
		drain(&e->channel, &e->lanes[i]);
}

static int dial(const struct peer_channel *channel, struct lane *lane, unsigned receiver)
{
	char uri[PEER_PATH_BYTES + 8];
	int rc;

	if (address(channel, receiver, uri))
		return -1;
	nng_socket_set_int(lane->socket, NNG_OPT_SENDBUF, 0);
	nng_pipe_notify(lane->socket, NNG_PIPE_EV_ADD_POST, connected, lane);
	nng_pipe_notify(lane->socket, NNG_PIPE_EV_REM_POST, connected, lane);
	while ((rc = nng_dial(lane->socket, uri, NULL, 0))) {
		if (rc != NNG_ECONNREFUSED && rc != NNG_ENOENT)
			return peer_error("dialling %s: %s", uri, nng_strerror(rc));
		peer_nap();
	}
	while (!atomic_load(&lane->connected))
		peer_nap();
	return 0;
}

static void *open_send(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 1, channel->receivers);
	unsigned i;

	for (i = 0; e && i < e->n; i++)
		if (dial(channel, &e->lanes[i], i))
			return NULL;
	return e;
}

static void *open_recv(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 0, 1);
	char uri[PEER_PATH_BYTES + 8];
	int rc;

	if (!e || address(channel, channel->index, uri))
		return NULL;
	rc = nng_listen(e->lanes[0].socket, uri, NULL, 0);
	if (rc) {
		peer_error("listening on %s: %s", uri, nng_strerror(rc));
		return NULL;
	}
	return e;
}

static int send_all(void *end, const void *data, size_t len)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++) {
		/* A send may leave its argument alone: it copies. */
		int rc = nng_send(e->lanes[i].socket, (void *)(uintptr_t)data, len, 0);

		if (rc)
			return peer_error("nng_send: %s", nng_strerror(rc));
	}
	return 0;
}

static ssize_t recv_next(void *end, void *buf, size_t capacity)
{
	struct end *e = end;
	int flags = e->channel.wait == PEER_SPIN ? NNG_FLAG_NONBLOCK : 0, rc;
	nng_msg *msg;
	size_t len;

	for (;;) {
		rc = nng_recvmsg(e->lanes[0].socket, &msg, flags);
		if (rc == NNG_EAGAIN) {
			/* The library's own threads may need this processor. */
			peer_yield();
			continue;
		}
		if (rc)
			return peer_error("nng_recvmsg: %s", nng_strerror(rc));
		len = nng_msg_len(msg);
		if (len <= capacity && len <= e->channel.bytes) {
			memcpy(buf, nng_msg_body(msg), len);
			nng_msg_free(msg);
			return (ssize_t)len;
		}
		nng_msg_free(msg);
		if (len != e->channel.bytes + 1)
			return peer_error("a message of %zu bytes is too long", len);
	}
}

static const char *version(void)
{
	return nng_version();
}

const struct peer bench_peer = {
	.name = "nng",
	.max_bytes = 1 << 30,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.version = version,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_all,
	.recv = recv_next,
	.close = close_end,
};
