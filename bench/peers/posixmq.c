/* SPDX-License-Identifier: MIT
 *
 * A POSIX message queue for each receiver, shared by its senders and as deep
 * as this user may have it.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MESSAGE_BYTES 8192 /* /proc/sys/fs/mqueue/msgsize_max unless raised */

struct end {
	struct peer_channel channel;
	int sends;
	unsigned n, polls;
	mqd_t queues[]; /* senders: one for each receiver */
};

static struct end *make_end(const struct peer_channel *channel, int sends, unsigned n)
{
	struct end *e = calloc(1, sizeof(*e) + n * sizeof(e->queues[0]));

	if (!e) {
		peer_error("out of memory");
		return NULL;
	}
	e->channel = *channel;
	e->sends = sends;
	e->n = n;
	return e;
}

static void close_end(void *end)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++)
		mq_close(e->queues[i]);
	if (!e->sends)
		peer_withdraw(&e->channel, e->channel.index);
	free(e);
}

static void *open_send(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 1, channel->receivers);
	unsigned i;

	/* On Linux the descriptor of a queue is one of a file. */
	for (i = 0; e && i < e->n; i++)
		if ((e->queues[i] = peer_fetch(channel, i, O_WRONLY)) < 0)
			return NULL;
	return e;
}

static mqd_t create(const struct peer_channel *channel, int flags)
{
	struct rlimit limit;
	struct mq_attr attr = { .mq_msgsize = channel->bytes ? (long)channel->bytes : 1 };
	char name[64];
	mqd_t queue = -1;

	/* The privileged pass msg_max, but nobody this limit. */
	if (!getrlimit(RLIMIT_MSGQUEUE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_MSGQUEUE, &limit);
	}
	snprintf(name, sizeof(name), "/%s.%u", channel->name, channel->index);
	for (attr.mq_maxmsg = 1024; queue < 0 && attr.mq_maxmsg; attr.mq_maxmsg /= 2)
		queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0600, &attr);
	if (queue < 0)
		peer_error("mq_open %s: %s", name, strerror(errno));
	else
		mq_unlink(name);
	return queue;
}

static void *open_recv(const struct peer_channel *channel)
{
	struct end *e = make_end(channel, 0, 1);

	if (!e)
		return NULL;
	e->queues[0] = create(channel, channel->wait == PEER_SPIN ? O_NONBLOCK : 0);
	if (e->queues[0] < 0 || peer_offer(channel, channel->index, e->queues[0]))
		return NULL;
	return e;
}

static int send_all(void *end, const void *data, size_t len)
{
	struct end *e = end;
	unsigned i;

	for (i = 0; i < e->n; i++)
		while (mq_send(e->queues[i], data, len, 0))
			if (errno != EINTR)
				return peer_error("mq_send: %s", strerror(errno));
	return 0;
}

static ssize_t recv_next(void *end, void *buf, size_t capacity)
{
	struct end *e = end;

	for (;;) {
		ssize_t n = mq_receive(e->queues[0], buf, capacity, NULL);

		if (n >= 0)
			return n;
		if (errno == EAGAIN)
			peer_relax(&e->polls);
		else if (errno != EINTR)
			return peer_error("mq_receive: %s", strerror(errno));
	}
}

const struct peer bench_peer = {
	.name = "posixmq",
	.max_bytes = MESSAGE_BYTES,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_all,
	.recv = recv_next,
	.close = close_end,
};
