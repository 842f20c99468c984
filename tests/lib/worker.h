/* SPDX-License-Identifier: MIT
 *
 * worker: a control worker inside a test, one turn of its loop at a time, and
 * clients of it that are sockets of the same process.
 */
#ifndef TEST_WORKER_H
#define TEST_WORKER_H

#include "clock.h"
#include "control.h"
#include "tap.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* One at a time. */
static struct options worker_options;
static struct control c;
static struct place *worker_place; /* kept, for reading the topology takes long */

/* As the machine of the worker shows it. */
static inline void worker_set_available(uint64_t bytes)
{
	char path[256];
	FILE *out;

	snprintf(path, sizeof(path), "%s/proc", test_tmpdir());
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/proc/meminfo", test_tmpdir());
	out = fopen(path, "we");
	CHECK(out);
	fprintf(out, "MemAvailable: %llu kB\n", (unsigned long long)(bytes >> 10));
	fclose(out);
}

/* On these slabs, whose descriptors it takes over: as a worker that begins, or
 * that comes after another one. */
static inline void worker_begin(const struct link_slab *slab)
{
	struct shmq__why why = { "" };

	worker_options = (struct options){ .bus = "unit", .level = LOG_ERROR };
	snprintf(worker_options.dir, sizeof(worker_options.dir), "%s", test_tmpdir());
	log_open("control", worker_options.level);
	c = (struct control){
		.o = &worker_options, .link.fd = -1, .spare_fd = -1, .listen.fd = -1
	};
	TAILQ_INIT(&c.conns);
	TAILQ_INIT(&c.memory_waits);
	TAILQ_INIT(&c.partings);
	memcpy(c.slab, slab, sizeof(c.slab));
	if (!worker_place)
		CHECK_OK(place_create(NULL, test_tmpdir(), &worker_place, &why));
	c.place = worker_place;
	CHECK_OK(loop_create(&c.loop));
	CHECK_OK(registry_open(c.place, c.slab, worker_options.bus, &c.reg, &why));
	CHECK_OK(work_create(c.loop, c.reg, &c.work));
}

static inline void worker_serve(void)
{
	registry_serve(c.reg, c.loop, control_memory_came, &c);
	work_on_freed(c.work, control_memory_came, &c);
}

static inline void worker_listen(void)
{
	files_name(&c.files, worker_options.dir, worker_options.bus);
	CHECK_GE(c.listen.fd = files_listen(&c.files, c.files.sock, FILES_OWNER), 0);
	CHECK_OK(loop_add(c.loop, &c.listen, c.listen.fd, EPOLLIN, conn_accept));
}

static inline void worker_turn(void)
{
	loop_wake_idle(c.loop); /* so that it does not wait for events */
	CHECK_OK(loop_once(c.loop));
}

/* Everybody who is left dies. */
static inline void worker_bury_all(void)
{
	struct conn *conn;
	struct peer *p;

	while ((conn = TAILQ_FIRST(&c.conns)))
		conn_close(conn);
	while ((p = LIST_FIRST(&c.reg->peers))) {
		if (!p->parting)
			death_of(&c, p, "ended");
		worker_turn();
	}
}

static inline void worker_end(void)
{
	conn_lend_spare(&c);
	if (c.listen.fd >= 0)
		close(c.listen.fd);
	work_destroy(c.work);
	registry_close(c.reg);
	loop_destroy(c.loop);
}

/* ---- clients ----------------------------------------------------------- */

static inline int worker_dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK_GE(fd, 0);
	memcpy(address.sun_path, c.files.sock, strnlen(c.files.sock, sizeof(address.sun_path) - 1));
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static inline struct proto_request worker_request(enum proto_op op, const char *topic)
{
	static uint64_t token;
	struct proto_request req = { .magic = PROTO_MAGIC, .version = PROTO_VERSION };

	req.op = (uint16_t)op;
	req.token = ++token;
	snprintf(req.topic, sizeof(req.topic), "%s", topic);
	return req;
}

/* 1 if there is one. */
static inline int worker_take_reply(int fd, struct proto_reply *reply)
{
	int fds[WIRE_FDS_MAX], rc;
	unsigned n;

	rc = shmq__wire_recv(fd, reply, sizeof(*reply), fds, &n);
	while (n)
		close(fds[--n]);
	CHECK(rc == 1 || rc == -EAGAIN);
	return rc == 1;
}

static inline struct proto_reply worker_call(int fd, const struct proto_request *req)
{
	int64_t deadline = test_now_ns() + INT64_C(60000000000) * test_slowdown();
	struct proto_reply reply;

	CHECK_OK(shmq__wire_send(fd, req, sizeof(*req), NULL, 0));
	while (!worker_take_reply(fd, &reply)) {
		if (test_now_ns() > deadline)
			FAIL("no answer");
		worker_turn();
	}
	return reply;
}

static inline struct proto_request worker_greeting(uint64_t nonce)
{
	struct proto_request req = worker_request(PROTO_HELLO, "");

	req.hello.layout_version = LAY_VERSION;
	req.hello.nonce = nonce;
	return req;
}

static inline int worker_join(uint64_t nonce)
{
	struct proto_request req = worker_greeting(nonce);
	int fd = worker_dial();

	CHECK_OK(worker_call(fd, &req).error);
	return fd;
}

static inline struct proto_request worker_creation(const char *topic, enum shmq_mode mode,
						   uint64_t max_bytes)
{
	struct proto_request req = worker_request(PROTO_CREATE, topic);

	req.create.depth = LAY_DEPTH_MIN;
	req.create.slot_bytes = 64;
	req.create.max_bytes = max_bytes;
	req.create.mode = (uint8_t)mode;
	req.create.pages = SHMQ_PAGES_4K;
	req.create.lock = SHMQ_LOCK_NEVER;
	return req;
}

static inline struct proto_request worker_opening(const char *topic, enum shmq_role role)
{
	struct proto_request req = worker_request(PROTO_OPEN, topic);

	req.open.role = (uint8_t)role;
	req.open.partition = -1;
	req.open.from = SHMQ_FROM_OLDEST;
	return req;
}

static inline struct peer *worker_peer(uint64_t nonce)
{
	struct peer *p;

	LIST_FOREACH (p, &c.reg->peers, link)
		if (load_relaxed(&p->rec->nonce) == nonce)
			return p;
	FAIL("no client %llu", (unsigned long long)nonce);
}

#endif
