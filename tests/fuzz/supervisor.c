/* SPDX-License-Identifier: MIT
 *
 * The supervisor's worker, in this process, with clients that say anything:
 * requests of any content, size and order, descriptors with them, memory
 * written over in between, and connections that end anywhere.  A client of
 * good will is answered all the while.
 */
#include "fuzz.h"

#include "clock.h"
#include "control.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const unsigned fuzz_runs = 400;

enum { CONNS = 4, OPS_MAX = 40, TURNS = 20000, STEPS = 1 << 26 };

static struct options options;
static struct control c;
static int is_set_up, honest = -1, conn[CONNS];
static uint64_t token;

/* ---- a worker ------------------------------------------------------------ */

/* So much memory as the tests of placement show it. */
static void show_memory(void)
{
	char path[256];
	FILE *out;

	snprintf(path, sizeof(path), "%s/proc", test_tmpdir());
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/proc/meminfo", test_tmpdir());
	out = fopen(path, "we");
	CHECK(out);
	fprintf(out, "MemAvailable: 262144 kB\n");
	fclose(out);
}

static void begin(void)
{
	struct shmq__why why = { "" };
	unsigned count, i;

	options = (struct options){ .bus = "fuzz", .level = LOG_ERROR };
	snprintf(options.dir, sizeof(options.dir), "%s", test_tmpdir());
	log_open("control", options.level);
	show_memory();
	c = (struct control){ .o = &options, .link.fd = -1, .spare_fd = -1 };
	TAILQ_INIT(&c.conns);
	TAILQ_INIT(&c.memory_waits);
	TAILQ_INIT(&c.partings);
	files_name(&c.files, options.dir, options.bus);
	CHECK_OK(place_create(NULL, test_tmpdir(), &c.place, &why));
	CHECK_OK(loop_create(&c.loop));
	count = registry_slabs_wanted(0, c.slab);
	for (i = 0; i < count; i++)
		CHECK_GE(c.slab[i].fd = registry_make_slab(i, &c.slab[i]), 0);
	CHECK_OK(registry_open(c.place, c.slab, options.bus, &c.reg, &why));
	CHECK_OK(work_create(c.loop, c.reg, &c.work));
	registry_serve(c.reg, c.loop, control_memory_came, &c);
	work_on_freed(c.work, control_memory_came, &c);
	CHECK_GE(c.listen.fd = files_listen(&c.files, c.files.sock, FILES_OWNER), 0);
	CHECK_OK(loop_add(c.loop, &c.listen, c.listen.fd, EPOLLIN, conn_accept));
	for (i = 0; i < CONNS; i++)
		conn[i] = -1;
}

static void turn(void)
{
	loop_wake_idle(c.loop); /* so that it does not wait for events */
	CHECK_OK(WITHIN(STEPS, loop_once(c.loop)));
}

/* ---- a client of good will -------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK_GE(fd, 0);
	memcpy(address.sun_path, c.files.sock, strnlen(c.files.sock, sizeof(address.sun_path) - 1));
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static struct proto_request request(enum proto_op op, const char *topic)
{
	struct proto_request req = { .magic = PROTO_MAGIC, .version = PROTO_VERSION };

	req.op = (uint16_t)op;
	req.token = ++token;
	snprintf(req.topic, sizeof(req.topic), "%s", topic);
	if (op == PROTO_HELLO) {
		req.hello.layout_version = LAY_VERSION;
		req.hello.nonce = token + 1000;
	}
	return req;
}

/* 1 if there is an answer; its descriptors are closed. */
static int take_reply(int fd, struct proto_reply *reply)
{
	int fds[WIRE_FDS_MAX], rc;
	unsigned n;

	rc = shmq__wire_recv(fd, reply, sizeof(*reply), fds, &n);
	while (n)
		close(fds[--n]);
	return rc == 1;
}

/* Answered within so many turns, whatever others say meanwhile. */
static int call(const struct proto_request *req)
{
	struct proto_reply reply;
	unsigned turns;

	CHECK_OK(shmq__wire_send(honest, req, sizeof(*req), NULL, 0));
	for (turns = 0; turns < TURNS; turns++) {
		turn();
		if (take_reply(honest, &reply)) {
			CHECK_EQ(reply.token, req->token);
			return reply.error;
		}
	}
	FAIL("not answered within %d turns", TURNS);
}

static void greet(void)
{
	struct proto_request req = request(PROTO_HELLO, "");

	honest = dial();
	CHECK_OK(call(&req));
}

static void check_answers(void)
{
	struct proto_request req = request(PROTO_PLAN, "plan");

	CHECK_OK(call(&req));
}

/* ---- clients of none ---------------------------------------------------------- */

static const char *const topics[] = { "a", "b", "", "a.b", "$x", "no such" };

/* The claim that stands there, of the topic if it is mapped, or of none. */
static void choose_claim(struct bites *in, struct proto_request *req)
{
	struct topic *t = registry_find(c.reg, req->topic);
	struct shmq__ring *ring = t && t->attached ? &t->attached->ring[0] : NULL;

	req->report.topic_id = t ? t->rec->id : bite(in, 1);
	req->report.seq = bite_below(in, 64);
	req->report.word =
		ring ? load_relaxed(&lay_slot_at(ring->mem, &ring->geo, req->report.seq)->ctrl) :
		       bite(in, 8);
}

static void choose(struct bites *in, struct proto_request *req)
{
	struct proto_options *o = &req->create;

	switch (req->op) {
	case PROTO_PLAN:
	case PROTO_CREATE:
		o->depth = bite(in, 1) % 4 ? 1024 : bite_edge(in);
		o->slot_bytes = bite(in, 1) % 4 ? 64 : (uint32_t)bite_edge(in);
		o->max_bytes = bite(in, 1) % 4 ? 0 : bite_edge(in);
		o->partitions = (uint32_t)bite_below(in, 4);
		o->flags = (uint32_t)bite_below(in, 9);
		o->mode = (uint8_t)bite_below(in, 4);
		o->policy = (uint8_t)bite_below(in, 6);
		o->stall = SHMQ_STALL_REPORT; /* else it would kill us */
		o->lock = SHMQ_LOCK_NEVER;
		o->pages = SHMQ_PAGES_4K;
		break;
	case PROTO_OPEN:
		req->open.role = (uint32_t)bite_below(in, 4);
		req->open.from = (uint32_t)bite_below(in, 5);
		req->open.partition = (int32_t)bite_below(in, 4) - 1;
		req->open.seq = bite_edge(in);
		req->open.arena_bytes = bite(in, 1) % 4 ? 0 : bite_edge(in);
		break;
	case PROTO_CLOSE:
		req->close.handle = bite(in, 1);
		break;
	case PROTO_REPORT:
		choose_claim(in, req);
		req->report.kind = (uint32_t)bite_below(in, 4);
		req->report.partition = (uint32_t)bite_below(in, 4) / 3;
		req->report.client = (uint32_t)bite_below(in, 6);
		req->report.client_gen = bite(in, 1);
		req->report.handle = bite(in, 1);
		break;
	case PROTO_HELLO:
		req->hello.layout_version = bite(in, 1) % 8 ? LAY_VERSION : 7;
		req->hello.nonce = bite_below(in, 5);
		req->hello.bus_nonce = bite(in, 1) % 4 ? 0 : c.reg->head->nonce;
		break;
	}
}

static void say(struct bites *in)
{
	int *fd = &conn[bite_below(in, CONNS)], fds[WIRE_FDS_MAX];
	unsigned how, n, i;
	struct proto_request req;
	struct area whole = { &req, sizeof(req) };
	size_t bytes = sizeof(req);

	if (*fd < 0) {
		*fd = dial();
		req = request(PROTO_HELLO, "");
	} else {
		req = request((enum proto_op)bite_below(in, PROTO_OFFER + 2),
			      topics[bite_below(in, sizeof(topics) / sizeof(topics[0]))]);
		req.token = bite(in, 1);
	}
	how = (unsigned)bite(in, 1);
	if (how & 1)
		choose(in, &req);
	for (i = how & 8 ? how >> 1 & 3 : 0; i; i--) {
		struct noise noise = bite_noise(in, &whole, 1);

		noise_make(&noise);
	}
	if ((how & 48) == 48)
		bytes = bite_below(in, sizeof(req) + 1);
	n = how & 64 ? (unsigned)bite_below(in, WIRE_FDS_MAX + 1) : 0;
	for (i = 0; i < n; i++)
		fds[i] = i % 2 ? *fd : c.listen.fd;
	if (req.op == PROTO_STOP) /* that it obeys */
		return;
	if (req.op == PROTO_CREATE) { /* granted, it is populated */
		req.create.depth %= 4096;
		req.create.partitions %= 4;
		req.create.stall = SHMQ_STALL_REPORT;
		req.create.lock = SHMQ_LOCK_NEVER;
		req.create.pages = SHMQ_PAGES_4K;
		req.create.max_bytes %= 1 << 20;
	}
	if (req.op == PROTO_OPEN)
		req.open.arena_bytes %= 1 << 22;
	shmq__wire_send(*fd, &req, bytes, fds, n);
}

/* What any client can write: a ring that is mapped, and its bells. */
static void scribble(struct bites *in)
{
	struct topic *t = registry_find(c.reg, topics[bite_below(in, 2)]);
	struct area areas[2];
	struct noise noise;

	if (!t || !t->attached)
		return;
	areas[0] = (struct area){ t->attached->ring[0].mem, 8192 };
	areas[1] = (struct area){ t->attached->ring[0].bells, sizeof(struct lay_bells) };
	noise = bite_noise(in, areas, 2);
	noise_make(&noise);
}

static void hang_up(struct bites *in)
{
	int *fd = &conn[bite_below(in, CONNS)];

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void hear(struct bites *in)
{
	int fd = conn[bite_below(in, CONNS)];
	struct proto_reply reply;

	if (fd >= 0 && take_reply(fd, &reply))
		CHECK(memchr(reply.why, 0, sizeof(reply.why)) != NULL);
}

static void play(struct bites *in)
{
	switch (bite_below(in, 8)) {
	case 0:
	case 1:
	case 2:
		say(in);
		break;
	case 3:
		hear(in);
		break;
	case 4:
		hang_up(in);
		break;
	case 5:
		scribble(in);
		break;
	default:
		turn();
	}
}

/* All that they were given is given back: the next begins as this did. */
static void clear(void)
{
	struct proto_request req;
	struct peer *p, *next;
	unsigned i;

	for (i = 0; i < CONNS; i++) {
		if (conn[i] >= 0)
			close(conn[i]);
		conn[i] = -1;
	}
	check_answers();
	for (p = LIST_FIRST(&c.reg->peers); p; p = next) {
		next = LIST_NEXT(p, link);
		if (!p->parting && !p->conn)
			death_of(&c, p, "ended");
	}
	for (i = 0; i < c.reg->topic_capacity; i++) {
		if (!c.reg->topic[i] || c.reg->topic[i]->creation)
			continue;
		req = request(PROTO_REMOVE, c.reg->topic[i]->rec->name);
		req.remove.flags = SHMQ_FORCE;
		call(&req);
	}
	while (c.jobs || !TAILQ_EMPTY(&c.partings))
		turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	unsigned ops = 0;

	if (!is_set_up) {
		begin();
		greet();
		is_set_up = 1;
	}
	while (in.left && ops++ < OPS_MAX)
		play(&in);
	check_answers();
	clear();
	return 0;
}

void fuzz_leave(void)
{
	struct conn *at;
	struct peer *p;

	if (!is_set_up)
		return;
	close(honest);
	while ((at = TAILQ_FIRST(&c.conns)))
		conn_close(at);
	while ((p = LIST_FIRST(&c.reg->peers))) {
		if (!p->parting)
			death_of(&c, p, "ended");
		turn();
	}
	conn_lend_spare(&c);
	close(c.listen.fd);
	work_destroy(c.work);
	registry_close(c.reg);
	loop_destroy(c.loop);
	place_destroy(c.place);
	is_set_up = 0;
}
