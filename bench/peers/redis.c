/* SPDX-License-Identifier: MIT
 *
 * A Redis stream, over a unix socket, from a server of our own that keeps
 * nothing on disk.  Senders pipeline XADD, receivers XREAD BLOCK.
 *
 * A stream only grows, so a sender bounds it: receivers note under
 * <stream>.<index> the last entry they are done with, and now and then a
 * sender trims what all are done with, and waits while too much is left.
 */
#include "common.h"
#include "redis.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNANSWERED 64 /* commands a sender has on the way at most */
#define ALL_DONE "18446744073709551615-18446744073709551615"

struct end {
	struct peer_channel channel;
	redisContext *redis;
	int sends;
	unsigned window; /* entries that may wait in the stream */
	unsigned sent;   /* since the stream was last bounded */
	unsigned unanswered;
	redisReply *batch; /* what XREAD brought */
	redisReply *entries;
	size_t at, done; /* of it handed out; entries not noted yet */
	char last[48];   /* identifier of the last of them */
};

static pid_t server;

static redisReply *failed(struct end *e, redisReply *reply)
{
	peer_error("%s", reply ? reply->str : e->redis->errstr);
	freeReplyObject(reply);
	return NULL;
}

/* A command and its reply, once those before are answered. */
static redisReply *ask(struct end *e, const char *format, ...)
{
	redisReply *reply = NULL;
	va_list ap;

	va_start(ap, format);
	redisvAppendCommand(e->redis, format, ap);
	va_end(ap);
	for (e->unanswered++; e->unanswered; e->unanswered--) {
		freeReplyObject(reply);
		reply = NULL;
		if (redisGetReply(e->redis, (void **)&reply) || reply->type == REDIS_REPLY_ERROR)
			return failed(e, reply);
	}
	return reply;
}

static int socket_path(const char *dir, char path[PEER_PATH_BYTES])
{
	int n = snprintf(path, PEER_PATH_BYTES, "%s/redis.socket", dir);

	return n < PEER_PATH_BYTES ? 0 : peer_error("%s: the path is too long", dir);
}

static int start(const char *dir)
{
	char path[PEER_PATH_BYTES], log[PEER_PATH_BYTES];
	/* redis-tools has the server under another name; the package
	 * redis-server would start one of its own. */
	const char *argv[] = { "redis-server", "--port", "0", "--unixsocket",
			       path,           "--save", "",  "--appendonly",
			       "no",           "--dir",  dir, NULL };

	if (socket_path(dir, path))
		return -1;
	snprintf(log, sizeof(log), "%s/redis.log", dir);
	server = peer_spawn("redis-check-rdb", argv, log);
	while (server > 0 && peer_alive(server)) {
		redisContext *redis = redisConnectUnix(path);
		int up = redis && !redis->err;

		if (redis)
			redisFree(redis);
		if (up)
			return 0;
		peer_nap();
	}
	return peer_error("the server did not start");
}

static void stop(void)
{
	peer_end(server);
}

static struct end *make_end(const struct peer_channel *channel, int sends)
{
	char path[PEER_PATH_BYTES];
	struct end *e;

	if (socket_path(channel->dir, path))
		return NULL;
	e = calloc(1, sizeof(*e));
	if (!e || !(e->redis = redisConnectUnix(path))) {
		peer_error("out of memory");
		return NULL;
	}
	if (e->redis->err) {
		failed(e, NULL);
		return NULL;
	}
	e->channel = *channel;
	e->sends = sends;
	e->window = peer_depth(channel, 16, 16384);
	strcpy(e->last, "0-0");
	return e;
}

/* MGET of all that receivers have noted. */
static redisReply *get_notes(struct end *e)
{
	char command[4096] = "MGET";
	size_t len = 4;
	unsigned i;

	for (i = 0; i < e->channel.receivers; i++)
		len += (size_t)snprintf(command + len, sizeof(command) - len, " %s.%u",
					e->channel.name, i);
	return ask(e, command);
}

static void close_end(void *end)
{
	struct end *e = end;
	redisReply *notes = NULL, *reply;
	size_t i;

	if (e->sends) {
		/* Answered is stored. */
		freeReplyObject(ask(e, "PING"));
	} else {
		freeReplyObject(e->batch);
		freeReplyObject(ask(e, "SET %s.%u " ALL_DONE, e->channel.name, e->channel.index));
		notes = get_notes(e);
	}
	/* The last receiver to go takes the stream along. */
	for (i = 0; notes && i < notes->elements; i++)
		if (!notes->element[i]->str || strcmp(notes->element[i]->str, ALL_DONE) != 0)
			break;
	if (notes && i == notes->elements) {
		reply = ask(e, "DEL %s", e->channel.name);
		freeReplyObject(reply);
	}
	freeReplyObject(notes);
	redisFree(e->redis);
	free(e);
}

/* An entry added is kept for whoever reads from the start, so that nobody
 * has to be awaited. */
static void *open_send(const struct peer_channel *channel)
{
	return make_end(channel, 1);
}

static void *open_recv(const struct peer_channel *channel)
{
	return make_end(channel, 0);
}

/* Identifiers are two numbers. */
static int is_before(const char *a, const char *b)
{
	uint64_t x[2] = { 0, 0 }, y[2] = { 0, 0 };

	sscanf(a, "%" SCNu64 "-%" SCNu64, &x[0], &x[1]);
	sscanf(b, "%" SCNu64 "-%" SCNu64, &y[0], &y[1]);
	return x[0] != y[0] ? x[0] < y[0] : x[1] < y[1];
}

/* Trim what all receivers are done with: how many entries are left. */
static long long trim(struct end *e)
{
	redisReply *notes = get_notes(e), *left;
	const char *first = ALL_DONE;
	long long n;
	size_t i;

	for (i = 0; notes && i < notes->elements; i++) {
		const char *note = notes->element[i]->str ? notes->element[i]->str : "0-0";

		if (is_before(note, first))
			first = note;
	}
	if (notes)
		freeReplyObject(ask(e, "XTRIM %s MINID %s", e->channel.name, first));
	freeReplyObject(notes);
	left = ask(e, "XLEN %s", e->channel.name);
	n = left ? left->integer : -1;
	freeReplyObject(left);
	return n;
}

static int send_one(void *end, const void *data, size_t len)
{
	struct end *e = end;
	redisReply *reply;
	long long left;
	int written = 0;

	while (e->sent >= e->window / 2) {
		left = trim(e);
		if (left < 0)
			return -1;
		if (left <= e->window)
			e->sent = 0;
		else
			peer_nap();
	}
	redisAppendCommand(e->redis, "XADD %s * m %b", e->channel.name, data, len);
	e->sent++;
	e->unanswered++;
	while (!written)
		if (redisBufferWrite(e->redis, &written))
			return peer_error("%s", e->redis->errstr);
	for (; e->unanswered >= UNANSWERED; e->unanswered--) {
		if (redisGetReply(e->redis, (void **)&reply) || reply->type == REDIS_REPLY_ERROR)
			return failed(e, reply), -1;
		freeReplyObject(reply);
	}
	return 0;
}

static int read_batch(struct end *e)
{
	freeReplyObject(e->batch);
	e->batch = NULL;
	e->at = 0;
	if (e->done >= e->window / 4) {
		redisAppendCommand(e->redis, "SET %s.%u %s", e->channel.name, e->channel.index,
				   e->last);
		e->unanswered++;
		e->done = 0;
	}
	e->batch = ask(e, "XREAD COUNT %u BLOCK 0 STREAMS %s %s", peer_depth(&e->channel, 1, 128),
		       e->channel.name, e->last);
	if (!e->batch)
		return -1;
	/* One stream: its name and its entries, each an identifier and its
	 * fields. */
	e->entries = e->batch->element[0]->element[1];
	return 0;
}

static ssize_t recv_next(void *end, void *buf, size_t capacity)
{
	struct end *e = end;
	const redisReply *entry, *message;

	if ((!e->batch || e->at == e->entries->elements) && read_batch(e))
		return -1;
	entry = e->entries->element[e->at++];
	message = entry->element[1]->element[1];
	snprintf(e->last, sizeof(e->last), "%s", entry->element[0]->str);
	e->done++;
	if ((size_t)message->len > capacity)
		return peer_error("a message of %zu bytes is too long", (size_t)message->len);
	memcpy(buf, message->str, (size_t)message->len);
	return (ssize_t)message->len;
}

const struct peer bench_peer = {
	.name = "redis",
	.max_bytes = 64 << 20,
	.waits = PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.version = redis_version,
	.start = start,
	.stop = stop,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_one,
	.recv = recv_next,
	.close = close_end,
};
