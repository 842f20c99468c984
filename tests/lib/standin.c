/* SPDX-License-Identifier: MIT */
#include "standin.h"
#include "memory.h"

#include "shmem.h"
#include "tap.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNS_MAX = 16, CLIENTS_MAX = 1024, HANDLES_MAX = 256, OPS = PROTO_OFFER + 1 };

enum command { NOTHING, CUT, LEAVE, RETURN, HOLD, ANSWER_ONE, STOP };

struct conn {
	int sock, events;
	unsigned client; /* 0: has not said hello */
	int is_other;    /* of another process */
};

struct handle {
	unsigned client; /* 0: free */
	enum shmq_role role;
	struct lay_member *member;
};

struct standin {
	struct fake *fake;
	char dir[PATH_MAX];
	struct sockaddr_un address;
	int listener, kick;
	pthread_t thread;

	pthread_mutex_t lock; /* the rest, and the fake's records */
	pthread_cond_t changed;
	enum command command;
	struct conn conn[CONNS_MAX];
	unsigned conns;
	int holds_others;
	uint64_t nonce[CLIENTS_MAX]; /* by client */
	struct handle handle[HANDLES_MAX];
	struct {
		standin_change *change;
		void *arg;
		unsigned count;
		struct proto_request last;
	} op[OPS];
};

/* ---- descriptors --------------------------------------------------------- */

static void give(struct standin *s, struct standin_answer *a, unsigned slab, int writable)
{
	int fd = shmq__slabs_fd(s->fake->slabs, slab, SHMQ__SLAB_WRITE);

#ifdef __SANITIZE_THREAD__
	fd = shmq__shmem_reopen_writable(fd); /* see memory.h */
#else
	fd = writable ? shmq__shmem_reopen_writable(fd) : shmq__shmem_reopen_readonly(fd);
#endif
	CHECK_GE(fd, 0);
	a->fds[a->fd_count++] = fd;
	a->reply.fd[a->reply.fd_count++] =
		(struct proto_fd){ .slab = (uint16_t)slab, .writable = (uint16_t)writable };
}

/* ---- requests -------------------------------------------------------------- */

static unsigned known_client(const struct standin *s, uint64_t nonce)
{
	unsigned id;

	for (id = 1; id < CLIENTS_MAX; id++)
		if (s->nonce[id] == nonce)
			return id;
	return 0;
}

static void hello(struct standin *s, struct conn *c, struct standin_answer *a)
{
	const struct proto_request *req = a->req;
	unsigned id = req->hello.bus_nonce == STANDIN_NONCE ? known_client(s, req->hello.nonce) : 0;
	int pair[2];

	a->reply.hello.resumed = id != 0;
	if (!id) {
		id = fake_client(s->fake, getpid());
		CHECK_LT(id, CLIENTS_MAX);
		s->nonce[id] = req->hello.nonce;
		memcpy(fake_client_record(s->fake, id)->name, req->hello.name,
		       sizeof(req->hello.name));
	}
	c->client = id;
	a->reply.hello.client = id;
	a->reply.hello.gen = load_relaxed(&fake_client_record(s->fake, id)->gen);
	a->reply.hello.bus_nonce = STANDIN_NONCE;
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	c->events = pair[0];
	a->fds[a->fd_count++] = pair[1];
	give(s, a, FAKE_REGISTRY, 0);
	give(s, a, FAKE_BELLS, 1);
	give(s, a, FAKE_ENTRIES, 0);
	give(s, a, FAKE_ENTRIES, 1);
	give(s, a, FAKE_RINGS, 0);
	give(s, a, FAKE_ARENAS, 0);
}

static struct handle *find_handle(struct standin *s, unsigned client, uint64_t token)
{
	struct handle *h;

	for (h = s->handle; h < s->handle + HANDLES_MAX; h++)
		if (h->client == client && (!client || h->member->token == token))
			return h;
	return NULL;
}

/* Of an earlier publisher, if one left it. */
static uint32_t find_arena(struct standin *s, const struct lay_member *m, uint64_t bytes)
{
	struct lay_arena *a;
	uint32_t id;

	for (id = 0; id < s->fake->arenas; id++) {
		a = shmq__slabs_arena(s->fake->slabs, id);
		if (load_relaxed(&a->state) != LAY_ARENA_ORPHAN || a->bytes < bytes)
			continue;
		store_release(&a->state, LAY_ARENA_OWNED);
		return id;
	}
	return fake_arena(s->fake, m, bytes);
}

static void publish(struct standin *s, struct handle *h, const struct proto_request *req)
{
	struct lay_topic *rec = s->fake->rec;
	uint64_t arena = req->open.arena_bytes ? req->open.arena_bytes : rec->arena_bytes;

	if (h->role == SHMQ_ROLE_PUBLISHER) {
		if (arena)
			h->member->arena = find_arena(s, h->member, arena) + 1;
		add_relaxed(&rec->publishers, 1);
		shmq__topic_publish_member(s->fake->topic, h->member, LAY_MEMBER_PUBLISHER);
		return;
	}
	shmq__topic_publish_member(s->fake->topic, h->member, LAY_MEMBER_SUBSCRIBER);
	shmq__topic_join(s->fake->topic, h->member, (enum shmq_from)req->open.from, req->open.seq);
	add_relaxed(&rec->subscribers, 1);
	shmq__topic_announce(s->fake->rec);
}

static void open_handle(struct standin *s, const struct conn *c, struct standin_answer *a)
{
	const struct proto_request *req = a->req;
	struct handle *h = find_handle(s, c->client, req->token);

	if (strcmp(req->topic, s->fake->rec->name) != 0) {
		a->reply.error = SHMQ_ENOTOPIC;
		snprintf(a->reply.why, sizeof(a->reply.why), "no \"%.100s\" here", req->topic);
		return;
	}
	if (!h) { /* else it is asked for again */
		h = find_handle(s, 0, 0);
		CHECK(h);
		h->client = c->client;
		h->role = (enum shmq_role)req->open.role;
		h->member = fake_member(s->fake, c->client, req->open.partition);
		h->member->token = req->token;
		publish(s, h, req);
	}
	a->reply.open.topic_id = s->fake->rec->id;
	a->reply.open.arena = h->member->arena;
	a->reply.open.entry = h->member->entry;
	a->reply.open.entry_gen = h->member->entry_gen;
	if (h->role == SHMQ_ROLE_PUBLISHER) {
		give(s, a, FAKE_RINGS, 1);
		give(s, a, FAKE_ARENAS, 1);
	}
}

static void close_handle(struct standin *s, struct handle *h)
{
	struct lay_topic *rec = s->fake->rec;

	if (h->member->arena)
		store_release(&shmq__slabs_arena(s->fake->slabs, h->member->arena - 1)->state,
			      LAY_ARENA_ORPHAN);
	add_relaxed(h->role == SHMQ_ROLE_PUBLISHER ? &rec->publishers : &rec->subscribers,
		    UINT32_MAX);
	shmq__topic_remove_member(s->fake->topic, h->member);
	h->client = 0;
}

static void close_all(struct standin *s, unsigned client)
{
	struct handle *h;

	for (h = s->handle; h < s->handle + HANDLES_MAX; h++)
		if (h->client && h->client == client)
			close_handle(s, h);
}

static void evict(struct standin *s, const struct proto_request *req)
{
	struct handle *h = find_handle(s, req->report.client, req->report.handle);

	if (h && req->report.kind == PROTO_REPORT_EVICT)
		shmq__topic_publish_member(s->fake->topic, h->member, LAY_MEMBER_EVICTED);
}

static void carry_out(struct standin *s, struct conn *c, struct standin_answer *a)
{
	struct handle *h;

	switch (a->req->op) {
	case PROTO_HELLO:
		hello(s, c, a);
		break;
	case PROTO_OPEN:
		open_handle(s, c, a);
		break;
	case PROTO_CLOSE:
		h = find_handle(s, c->client, a->req->close.handle);
		if (h)
			close_handle(s, h);
		break;
	case PROTO_GOODBYE:
		close_all(s, c->client);
		break;
	case PROTO_REPORT:
		evict(s, a->req);
		break;
	}
}

/* ---- the thread ---------------------------------------------------------------- */

static void drop(struct standin *s, struct conn *c)
{
	close(c->sock);
	if (c->events >= 0)
		close(c->events);
	*c = s->conn[--s->conns];
}

/* 0 to hang up. */
static int answer(struct standin *s, struct conn *c)
{
	struct proto_request req;
	struct standin_answer a = {
		.fake = s->fake, .req = &req, .bytes = sizeof(a.reply), .copies = 1
	};
	struct {
		struct proto_reply reply;
		char zeros[64];
	} out = { 0 };
	unsigned n;

	if (shmq__wire_recv(c->sock, &req, sizeof(req), a.fds, &n) != 1)
		return 0;
	CHECK_EQ(n, 0);
	CHECK_EQ(req.magic, PROTO_MAGIC);
	CHECK_EQ(req.version, PROTO_VERSION);
	CHECK(req.op >= PROTO_HELLO && req.op < OPS);
	a.reply.magic = PROTO_MAGIC;
	a.reply.version = PROTO_VERSION;
	a.reply.op = req.op;
	a.reply.token = req.token;
	carry_out(s, c, &a);
	if (s->op[req.op].change)
		s->op[req.op].change(&a, s->op[req.op].arg);
	out.reply = a.reply;
	CHECK_LE(a.bytes, sizeof(out));
	while (a.copies--) /* who is gone does not hear it */
		shmq__wire_send(c->sock, &out, a.bytes, a.fds, a.fd_count);
	while (a.fd_count)
		close(a.fds[--a.fd_count]);
	s->op[req.op].last = req;
	s->op[req.op].count++;
	pthread_cond_broadcast(&s->changed);
	return !a.hangs_up;
}

static void begin_listening(struct standin *s)
{
	s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(s->listener, (struct sockaddr *)&s->address, sizeof(s->address)), 0);
	CHECK_EQ(listen(s->listener, CONNS_MAX), 0);
}

static void obey(struct standin *s)
{
	uint64_t n;

	CHECK_EQ(read(s->kick, &n, sizeof(n)), sizeof(n));
	if (s->command == HOLD || s->command == ANSWER_ONE) {
		s->holds_others = s->command == HOLD;
		return;
	}
	if (s->command == RETURN)
		begin_listening(s);
	else
		while (s->conns)
			drop(s, &s->conn[0]);
	if (s->command == LEAVE || s->command == STOP) {
		unlink(s->address.sun_path);
		if (s->listener >= 0)
			close(s->listener);
		s->listener = -1;
	}
}

static void welcome(struct standin *s)
{
	struct conn c = { .sock = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC), .events = -1 };
	struct ucred who;
	socklen_t bytes = sizeof(who);

	CHECK_GE(c.sock, 0);
	CHECK_EQ(getsockopt(c.sock, SOL_SOCKET, SO_PEERCRED, &who, &bytes), 0);
	c.is_other = who.pid != getpid();
	CHECK_LT(s->conns, CONNS_MAX);
	s->conn[s->conns++] = c;
}

static void done(struct standin *s)
{
	s->command = NOTHING;
	pthread_cond_broadcast(&s->changed);
}

static void *serve(void *arg)
{
	struct standin *s = arg;
	enum command last = NOTHING;

	while (last != STOP) {
		struct pollfd p[2 + CONNS_MAX];
		unsigned i, n;

		p[0] = (struct pollfd){ .fd = s->kick, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = s->listener, .events = POLLIN };
		n = s->conns; /* only this thread changes it */
		for (i = 0; i < n; i++)
			p[2 + i] = (struct pollfd){
				.fd = s->holds_others && s->conn[i].is_other ? -1 : s->conn[i].sock,
				.events = POLLIN,
			};
		if (poll(p, 2 + n, -1) < 0)
			continue; /* a signal of the test's */
		pthread_mutex_lock(&s->lock);
		if (p[0].revents) {
			last = s->command;
			obey(s);
			if (last != ANSWER_ONE)
				done(s);
			pthread_mutex_unlock(&s->lock);
			continue;
		}
		for (i = n; i-- > 0;) { /* drop() fills the place with the last */
			int is_one = s->command == ANSWER_ONE && s->conn[i].is_other;

			if (!p[2 + i].revents || (s->holds_others && s->conn[i].is_other))
				continue;
			if (!answer(s, &s->conn[i]))
				drop(s, &s->conn[i]);
			if (is_one) {
				s->holds_others = 1;
				done(s);
			}
		}
		if (p[1].revents)
			welcome(s);
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

/* Carried out when this returns. */
static void tell(struct standin *s, enum command command)
{
	uint64_t one = 1;

	pthread_mutex_lock(&s->lock);
	s->command = command;
	CHECK_EQ(write(s->kick, &one, sizeof(one)), sizeof(one));
	while (s->command != NOTHING)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

/* ---- for the test ----------------------------------------------------------------- */

struct standin *standin_new(const struct fake_options *options)
{
	struct standin *s = calloc(1, sizeof(*s));

	CHECK(s);
	memory_is_one();
	s->fake = fake_new(options);
	store_relaxed(&s->fake->registry->control_pid, (uint32_t)getpid());
	snprintf(s->dir, sizeof(s->dir), "%s", test_tmpdir());
	s->address.sun_family = AF_UNIX;
	if (snprintf(s->address.sun_path, sizeof(s->address.sun_path), "%s/%s.sock", test_tmpdir(),
		     STANDIN_BUS) >= (int)sizeof(s->address.sun_path))
		FAIL("the socket's path is too long");
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->kick = eventfd(0, EFD_CLOEXEC);
	CHECK_GE(s->kick, 0);
	begin_listening(s);
	s->thread = fake_thread(serve, s);
	return s;
}

void standin_free(struct standin *s)
{
	tell(s, STOP);
	fake_join(s->thread);
	close(s->kick);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	fake_free(s->fake);
	free(s);
}

struct fake *standin_fake(struct standin *s)
{
	return s->fake;
}

const char *standin_dir(const struct standin *s)
{
	return s->dir;
}

int standin_open(struct standin *s, struct shmq_bus_options *options, shmq_bus **out)
{
	struct shmq_bus_options plain = { 0 };

	if (!options)
		options = &plain;
	options->size = sizeof(*options);
	options->runtime_dir = s->dir;
	if (!options->timeout_ns) /* a machine may be slow, the standin is there */
		options->timeout_ns = INT64_C(600000000000);
	return shmq_bus_open(STANDIN_BUS, options, out);
}

shmq_bus *standin_bus(struct standin *s)
{
	shmq_bus *bus;
	int rc = standin_open(s, NULL, &bus);

	if (rc)
		FAIL("attaching: %s: %s", shmq_errname(rc), shmq_bus_error(NULL));
	return bus;
}

void standin_change_answers(struct standin *s, enum proto_op op, standin_change *fn, void *arg)
{
	pthread_mutex_lock(&s->lock);
	s->op[op].change = fn;
	s->op[op].arg = arg;
	pthread_mutex_unlock(&s->lock);
}

unsigned standin_count(struct standin *s, enum proto_op op)
{
	unsigned count;

	pthread_mutex_lock(&s->lock);
	count = s->op[op].count;
	pthread_mutex_unlock(&s->lock);
	return count;
}

struct proto_request standin_last(struct standin *s, enum proto_op op)
{
	struct proto_request req;

	pthread_mutex_lock(&s->lock);
	req = s->op[op].last;
	pthread_mutex_unlock(&s->lock);
	return req;
}

void standin_await(struct standin *s, enum proto_op op, unsigned count)
{
	pthread_mutex_lock(&s->lock);
	while (s->op[op].count < count)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

void standin_push(struct standin *s, unsigned client, const void *bytes, size_t count, int fd)
{
	unsigned i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < s->conns && s->conn[i].client != client; i++)
		;
	CHECK_LT(i, s->conns);
	CHECK_OK(shmq__wire_send(s->conn[i].events, bytes, count, &fd, fd >= 0));
	pthread_mutex_unlock(&s->lock);
}

void standin_hold_others(struct standin *s)
{
	tell(s, HOLD);
}

void standin_answer_one(struct standin *s)
{
	tell(s, ANSWER_ONE);
}

void standin_cut(struct standin *s)
{
	tell(s, CUT);
}

void standin_leave(struct standin *s)
{
	tell(s, LEAVE);
}

void standin_return(struct standin *s)
{
	tell(s, RETURN);
}
