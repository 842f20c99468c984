/* SPDX-License-Identifier: MIT
 *
 * A Redis stream, over a unix socket, from a server of our own that syncs its
 * append-only file before it answers (appendfsync always); an append is a
 * pipeline of XADD, whose entries it syncs together.
 */
#include "redis.h"
#include "store.h"

#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 1000 /* entries that are read at once */

struct redis {
	redisContext *redis;
	pid_t server;
	size_t bytes;
};

static void close_store(void *store)
{
	struct redis *r = store;

	if (r->redis)
		redisFree(r->redis);
	kill(r->server, SIGTERM);
	waitpid(r->server, NULL, 0);
	free(r);
}

static pid_t start(const char *dir)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(2, 1);
	/* redis-tools has the server under this name too. */
	if (!chdir(dir))
		execlp("redis-check-rdb", "redis-server", "--port", "0", "--unixsocket", "socket",
		       "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		       "--auto-aof-rewrite-percentage", "0", "--loglevel", "warning", "--logfile",
		       "log", (char *)NULL);
	_exit(127);
}

static void *open_store(const char *dir, size_t bytes)
{
	const struct timespec ms = { 0, 1000000 };
	struct redis *r = calloc(1, sizeof(*r));
	char path[108];

	if (!r)
		return NULL;
	r->bytes = bytes;
	if (snprintf(path, sizeof(path), "%s/socket", dir) >= (int)sizeof(path)) {
		free(r);
		store_error("the path of its socket is too long");
		return NULL;
	}
	r->server = start(dir);
	while (r->server > 0 && !waitpid(r->server, NULL, WNOHANG)) {
		r->redis = redisConnectUnix(path);
		if (r->redis && !r->redis->err)
			return r;
		redisFree(r->redis);
		nanosleep(&ms, NULL);
	}
	free(r);
	store_error("the server did not start");
	return NULL;
}

/* What is answered is not an error. */
static int take(struct redis *r, redisReply **out)
{
	void *reply;

	if (redisGetReply(r->redis, &reply))
		return store_error(r->redis->errstr);
	*out = reply;
	return (*out)->type == REDIS_REPLY_ERROR ? store_error((*out)->str) : 0;
}

static int append(void *store, const char *records, unsigned n)
{
	struct redis *r = store;
	redisReply *reply;
	unsigned i;

	for (i = 0; i < n; i++)
		redisAppendCommand(r->redis, "XADD records * d %b", records + i * r->bytes,
				   r->bytes);
	for (i = 0; i < n; i++) {
		if (take(r, &reply))
			return -1;
		freeReplyObject(reply);
	}
	return 0;
}

static int read_all(void *store, int (*call)(void *arg, const void *record, size_t bytes),
		    void *arg)
{
	struct redis *r = store;
	char after[64] = "-";
	redisReply *reply;
	size_t i, n;

	do {
		redisAppendCommand(r->redis, "XRANGE records %s + COUNT %d", after, PAGE);
		if (take(r, &reply))
			return -1;
		n = reply->elements;
		for (i = 0; i < n; i++) {
			const redisReply *entry = reply->element[i];
			const redisReply *data = entry->element[1]->element[1];

			snprintf(after, sizeof(after), "(%s", entry->element[0]->str);
			if (call(arg, data->str, data->len))
				n = 0;
		}
		freeReplyObject(reply);
	} while (n);
	return 0;
}

const struct store bench_store = { .name = "redis",
				   .version = redis_version,
				   .open = open_store,
				   .append = append,
				   .read = read_all,
				   .close = close_store };
