/* SPDX-License-Identifier: MIT
 *
 * The control worker, one turn of its loop at a time: what it must not do
 * in one go, because others wait meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "memory.h"
#include "proc.h"
#include "tap.h"
#include "wire.h"

#define MIB (UINT64_C(1) << 20)

/* ---- a worker and its clients ----------------------------------------- */

static struct options options;
static struct control c;

/* As the machine of the worker shows it. */
static void set_available(uint64_t bytes)
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

static void begin(void)
{
	struct shmq__why why = { "" };
	unsigned count, i;

	options = (struct options){ .bus = "unit", .level = LOG_ERROR };
	snprintf(options.dir, sizeof(options.dir), "%s", test_tmpdir());
	log_open("control", options.level);
	set_available(1024 * MIB);
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
}

static void turn(void)
{
	loop_wake_idle(c.loop); /* so that it does not wait for events */
	CHECK_OK(loop_once(c.loop));
}

static void end(void)
{
	struct conn *conn;
	struct peer *p;

	while ((conn = TAILQ_FIRST(&c.conns)))
		conn_close(conn);
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
}

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
	static uint64_t token;
	struct proto_request req = { .magic = PROTO_MAGIC, .version = PROTO_VERSION };

	req.op = (uint16_t)op;
	req.token = ++token;
	snprintf(req.topic, sizeof(req.topic), "%s", topic);
	return req;
}

static void ask(int fd, const struct proto_request *req)
{
	CHECK_OK(shmq__wire_send(fd, req, sizeof(*req), NULL, 0));
}

/* 1 if there is one. */
static int take_reply(int fd, struct proto_reply *reply)
{
	int fds[WIRE_FDS_MAX], rc;
	unsigned n;

	rc = shmq__wire_recv(fd, reply, sizeof(*reply), fds, &n);
	while (n)
		close(fds[--n]);
	CHECK(rc == 1 || rc == -EAGAIN);
	return rc == 1;
}

static struct proto_reply await_reply(int fd)
{
	int64_t deadline = test_now_ns() + INT64_C(20000000000) * test_slowdown();
	struct proto_reply reply;

	while (!take_reply(fd, &reply)) {
		if (test_now_ns() > deadline)
			FAIL("no answer");
		turn();
	}
	return reply;
}

static struct proto_reply call(int fd, const struct proto_request *req)
{
	ask(fd, req);
	return await_reply(fd);
}

static struct proto_request greeting(uint64_t nonce)
{
	struct proto_request req = request(PROTO_HELLO, "");

	req.hello.layout_version = LAY_VERSION;
	req.hello.nonce = nonce;
	return req;
}

static int join(uint64_t nonce)
{
	struct proto_request req = greeting(nonce);
	int fd = dial();

	CHECK_OK(call(fd, &req).error);
	return fd;
}

static struct proto_request creation(const char *topic, uint64_t depth)
{
	struct proto_request req = request(PROTO_CREATE, topic);

	req.create.depth = depth;
	req.create.slot_bytes = 64;
	req.create.mode = SHMQ_SHARED;
	req.create.pages = SHMQ_PAGES_4K;
	req.create.lock = SHMQ_LOCK_NEVER;
	return req;
}

static struct proto_reply create(int fd, const char *topic, uint64_t depth)
{
	struct proto_request req = creation(topic, depth);

	return call(fd, &req);
}

static void open_publisher(int fd, const char *topic)
{
	struct proto_request req = request(PROTO_OPEN, topic);

	req.open.role = SHMQ_ROLE_PUBLISHER;
	req.open.partition = -1;
	CHECK_OK(call(fd, &req).error);
}

static uint64_t bytes_used(void)
{
	return load_relaxed(&c.reg->head->bytes_used);
}

/* ---- waiting for memory ------------------------------------------------ */

TEST(memory_that_is_being_freed_is_waited_for_while_others_are_served)
{
	struct proto_request plan = creation("huge", 32 * MIB), req;
	struct proto_reply reply;
	uint64_t before;
	int a, b;

	begin();
	a = join(1);
	b = join(2);
	plan.op = PROTO_PLAN;
	for (int is_enough = 0; is_enough < 2; is_enough++) {
		CHECK_OK(create(a, "big", MIB).error);
		before = bytes_used();
		req = request(PROTO_REMOVE, "big");
		CHECK_OK(call(a, &req).error);
		ask(a, &plan);
		turn();
		turn();
		CHECK(!take_reply(a, &reply));
		CHECK_EQ(bytes_used(), before);
		req = request(PROTO_REMOVE, "none");
		ask(b, &req);
		turn();
		CHECK(take_reply(b, &reply));
		CHECK_EQ(reply.error, SHMQ_ENOTOPIC);
		CHECK_EQ(bytes_used(), before);
		if (is_enough)
			set_available(4096 * MIB);
		reply = await_reply(a);
		CHECK_EQ(reply.error, is_enough ? 0 : SHMQ_ENOMEMORY);
		CHECK_LE(bytes_used(), before - 64 * MIB);
	}
	close(a);
	close(b);
	end();
}

TEST(who_waits_for_memory_may_hang_up)
{
	struct proto_request plan = creation("huge", 32 * MIB), req;
	int a, b;

	begin();
	a = join(1);
	b = join(2);
	plan.op = PROTO_PLAN;
	CHECK_OK(create(a, "big", MIB).error);
	req = request(PROTO_REMOVE, "big");
	CHECK_OK(call(a, &req).error);
	ask(a, &plan);
	turn();
	turn();
	CHECK(!TAILQ_EMPTY(&c.memory_waits));
	close(a);
	turn();
	CHECK(TAILQ_EMPTY(&c.memory_waits));
	CHECK_OK(create(b, "other", 1024).error);
	close(b);
	end();
}

TEST(a_pool_grows_while_others_are_served)
{
	struct proto_request hello = request(PROTO_HELLO, "");
	struct proto_reply reply;
	int a, b;

	begin();
	CHECK_EQ(c.reg->clients.warm, 0); /* nothing was prepared */
	a = dial();
	b = dial();
	hello.hello.layout_version = LAY_VERSION;
	hello.hello.nonce = 1;
	ask(a, &hello);
	turn();
	turn();
	CHECK(!TAILQ_EMPTY(&c.memory_waits));
	CHECK(!take_reply(a, &reply));
	hello.hello.nonce = 0;
	ask(b, &hello);
	turn();
	turn();
	CHECK(take_reply(b, &reply));
	CHECK_EQ(reply.error, SHMQ_EPROTO);
	CHECK_OK(await_reply(a).error);
	CHECK_GT(c.reg->clients.warm, 0);
	CHECK_OK(create(a, "t", 1024).error);
	close(a);
	close(b);
	end();
}

TEST(a_pool_that_cannot_grow_says_so_and_later_it_can)
{
	struct proto_request hello = request(PROTO_HELLO, "");
	int a;

	begin();
	set_available(0);
	hello.hello.layout_version = LAY_VERSION;
	hello.hello.nonce = 1;
	a = dial();
	CHECK_EQ(call(a, &hello).error, SHMQ_ENOMEMORY);
	close(a);
	set_available(1024 * MIB);
	a = join(1);
	close(a);
	end();
}

/* ---- clients --------------------------------------------------------------- */

static struct peer *peer_of_nonce(uint64_t nonce)
{
	struct peer *p;

	LIST_FOREACH (p, &c.reg->peers, link)
		if (load_relaxed(&p->rec->nonce) == nonce)
			return p;
	FAIL("no client %llu", (unsigned long long)nonce);
}

/* As adoption leaves it when there is no descriptor for its pidfd. */
TEST(a_client_that_could_not_be_watched_is_once_it_comes_back)
{
	struct registry_client client = { .pid = (uint32_t)getpid(), .nonce = 2, .name = "unit" };
	struct shmq__proc_id id;
	struct peer *p;
	int fd;

	begin();
	client.entries = registry_entries_of(c.reg, geteuid());
	close(join(1)); /* so that there is room for another */
	CHECK_OK(shmq__proc_identify(getpid(), &id));
	CHECK_OK(registry_add_peer(c.reg, &client, &p, NULL));
	registry_set_identity(p, id.start_time, id.pidns);
	fd = join(2);
	CHECK(peer_of_nonce(2) == p);
	CHECK_GE(death_pidfd(p), 0);
	CHECK_GE(fcntl(death_pidfd(p), F_GETFD), 0);
	close(fd);
	end();
}

static void greet_and_hang_up(uint64_t nonce)
{
	struct proto_request req = greeting(nonce);
	int fd = dial();

	ask(fd, &req);
	close(fd);
	do
		turn();
	while (!TAILQ_EMPTY(&c.conns));
}

/* Its process, which is this one, goes on. */
TEST(who_hangs_up_before_its_answer_is_forgotten_at_once)
{
	begin();
	close(join(1)); /* so that there is room for another */
	greet_and_hang_up(2);
	CHECK_EQ(c.reg->peer_count, 1);
	CHECK(peer_of_nonce(1) != NULL);
	end();
}

TEST(who_is_back_and_hangs_up_before_its_answer_keeps_what_it_had)
{
	struct peer *p;
	int fd;

	begin();
	fd = join(1);
	p = peer_of_nonce(1);
	CHECK_OK(create(fd, "t", 64).error);
	open_publisher(fd, "t");
	close(fd);
	greet_and_hang_up(1);
	CHECK_EQ(c.reg->peer_count, 1);
	CHECK(peer_of_nonce(1) == p);
	CHECK(!LIST_EMPTY(&p->handles));
	end();
}

/* ---- the end of a topic ------------------------------------------------- */

TEST(a_topic_that_cannot_be_mapped_is_not_removed_and_that_is_said)
{
	struct proto_request req;
	struct topic *t;
	int fd;

	begin();
	fd = join(1);
	CHECK_OK(create(fd, "big", MIB).error);
	t = registry_find(c.reg, "big");
	open_publisher(fd, "big");
	registry_detach(c.reg, t);
	req = request(PROTO_REMOVE, "big");
	req.remove.flags = SHMQ_FORCE;
	scarce_maps(1);
	CHECK_EQ(call(fd, &req).error, SHMQ_ELIMIT);
	CHECK(registry_find(c.reg, "big") == t);
	CHECK_EQ(load_relaxed(&t->rec->state), LAY_TOPIC_LIVE);
	scarce_maps(0);
	CHECK_OK(call(fd, &req).error);
	CHECK(!registry_find(c.reg, "big"));
	CHECK_EQ(load_relaxed(&t->rec->state), LAY_TOPIC_ENDED);
	close(fd);
	end();
}

TEST(a_topic_whose_ring_header_was_written_over_can_be_removed)
{
	struct proto_request req;
	struct topic *t;
	int fd;

	begin();
	fd = join(1);
	CHECK_OK(create(fd, "t", 1024).error);
	t = registry_find(c.reg, "t");
	open_publisher(fd, "t");
	memset(t->attached->ring[0].mem, 0xff, LAY_RING_HEADER_BYTES);
	registry_detach(c.reg, t);
	req = request(PROTO_REMOVE, "t");
	req.remove.flags = SHMQ_FORCE;
	CHECK_OK(call(fd, &req).error);
	CHECK(!registry_find(c.reg, "t"));
	CHECK_EQ(load_relaxed(&t->attached->ring[0].mem->state), LAY_RING_ENDED);
	close(fd);
	end();
}

/* ---- many handles of one client ------------------------------------------ */

static void open_subscriber(int fd, const char *topic)
{
	struct proto_request req = request(PROTO_OPEN, topic);

	req.open.role = SHMQ_ROLE_SUBSCRIBER;
	req.open.partition = -1;
	req.open.from = SHMQ_FROM_OLDEST;
	CHECK_OK(call(fd, &req).error);
}

static void open_fencing(int fd, const char *topic)
{
	struct proto_request req = request(PROTO_OPEN, topic);

	req.open.role = SHMQ_ROLE_PUBLISHER;
	req.open.partition = -1;
	req.open.flags = PROTO_OPEN_FENCES;
	CHECK_OK(call(fd, &req).error);
}

/* Of partition 1: 1 if sleepers need not interrupt those who publish. */
static uint32_t fenced(const char *topic)
{
	const struct topic *t = registry_find(c.reg, topic);

	return load_acquire(&t->attached->ring[1].bells->data.fenced);
}

TEST(bells_say_that_all_fence_while_nobody_is_there_who_does_not)
{
	struct proto_request req = request(PROTO_CREATE, "t");
	int stays, comes;

	begin();
	stays = join(1);
	comes = join(2);
	req.create.depth = 1024;
	req.create.partitions = 2;
	req.create.mode = SHMQ_SHARED;
	CHECK_OK(call(stays, &req).error);
	open_subscriber(stays, "t");
	CHECK_EQ(fenced("t"), 0);
	open_fencing(stays, "t");
	CHECK_EQ(fenced("t"), 1);
	open_publisher(comes, "t");
	CHECK_EQ(fenced("t"), 0);
	open_fencing(comes, "t");
	open_publisher(comes, "t");
	CHECK_EQ(fenced("t"), 0);
	death_of(&c, peer_of_nonce(2), "died");
	while (!TAILQ_EMPTY(&c.partings))
		turn();
	CHECK_EQ(fenced("t"), 1);
	open_publisher(stays, "t"); /* where a member was that did fence */
	CHECK_EQ(fenced("t"), 0);
	close(stays);
	close(comes);
	end();
}

/* A client of nonce 1 with a claim in "asleep", which somebody else has open
 * and sleeps on, one in "shared", and many handles opened before and after. */
struct crowd {
	int many, other;
	struct topic *asleep, *shared, *own;
	shmq_au64 *claim[2];
};

static shmq_au64 *claim(const struct topic *t, unsigned client)
{
	const struct shmq__ring *ring = &t->attached->ring[0];
	shmq_au64 *ctrl = &lay_slot_at(ring->mem, &ring->geo, 0)->ctrl;

	store_release(ctrl, LAY_CTRL(lay_lap(&ring->geo, 0), client, LAY_CLAIMED));
	return ctrl;
}

static struct crowd open_crowd(void)
{
	enum { MANY = 1500 };
	struct crowd crowd = { .many = join(1), .other = join(2) };
	unsigned id = peer_of_nonce(1)->id;

	CHECK_OK(create(crowd.many, "asleep", 1024).error);
	CHECK_OK(create(crowd.many, "shared", 1024).error);
	CHECK_OK(create(crowd.many, "own", 1024).error);
	crowd.asleep = registry_find(c.reg, "asleep");
	crowd.shared = registry_find(c.reg, "shared");
	crowd.own = registry_find(c.reg, "own");
	open_subscriber(crowd.other, "own");
	for (int i = 0; i < MANY; i++)
		open_publisher(crowd.many, "own");
	open_publisher(crowd.many, "asleep");
	open_publisher(crowd.many, "shared");
	open_subscriber(crowd.other, "asleep");
	open_subscriber(crowd.other, "shared");
	crowd.claim[0] = claim(crowd.asleep, id);
	crowd.claim[1] = claim(crowd.shared, id);
	add_relaxed(&crowd.asleep->attached->ring[0].bells->data.armed, 1);
	for (int i = 0; i < MANY; i++)
		open_publisher(crowd.many, "own");
	return crowd;
}

static void part_to_the_end(void)
{
	while (!TAILQ_EMPTY(&c.partings))
		turn();
	CHECK_EQ(c.reg->peer_count, 1);
}

TEST(claims_that_somebody_sleeps_on_are_voided_before_thousands_of_handles_are_closed)
{
	struct crowd crowd;
	struct proto_request req;
	struct proto_reply reply;

	begin();
	crowd = open_crowd();
	death_of(&c, peer_of_nonce(1), "died");
	CHECK_EQ(LAY_CTRL_STATE(load_relaxed(crowd.claim[0])), LAY_VOID);
	CHECK(!TAILQ_EMPTY(&c.partings)); /* there is more to do ... */
	req = request(PROTO_REMOVE, "none");
	ask(crowd.other, &req); /* ... and others are served meanwhile */
	turn();
	CHECK(take_reply(crowd.other, &reply));
	CHECK(!TAILQ_EMPTY(&c.partings));
	part_to_the_end();
	CHECK_EQ(LAY_CTRL_STATE(load_relaxed(crowd.claim[1])), LAY_VOID);
	CHECK_EQ(load_relaxed(&crowd.own->rec->publishers), 0);
	close(crowd.many);
	close(crowd.other);
	end();
}

TEST(a_client_with_thousands_of_handles_gets_its_answer_when_all_are_closed)
{
	struct crowd crowd;
	struct proto_request req;
	struct proto_reply reply;

	begin();
	crowd = open_crowd();
	req = request(PROTO_GOODBYE, "");
	ask(crowd.many, &req);
	turn();
	CHECK(!TAILQ_EMPTY(&c.partings));
	CHECK(!take_reply(crowd.many, &reply));
	CHECK_OK(await_reply(crowd.many).error);
	CHECK(TAILQ_EMPTY(&c.partings));
	CHECK_EQ(load_relaxed(&crowd.own->rec->publishers), 0);
	close(crowd.many);
	close(crowd.other);
	end();
}

TEST(who_hangs_up_after_its_goodbye_is_taken_out_all_the_same)
{
	struct crowd crowd;
	struct proto_request req;

	begin();
	crowd = open_crowd();
	req = request(PROTO_GOODBYE, "");
	ask(crowd.many, &req);
	turn();
	close(crowd.many);
	part_to_the_end();
	CHECK_EQ(load_relaxed(&crowd.own->rec->publishers), 0);
	close(crowd.other);
	end();
}

TEST(a_topic_that_is_asked_for_is_not_held_by_a_client_on_its_way_out)
{
	struct proto_request req;
	struct crowd crowd;

	begin();
	crowd = open_crowd();
	req = creation("exclusive", 1024);
	req.create.mode = SHMQ_EXCLUSIVE;
	CHECK_OK(call(crowd.many, &req).error);
	open_publisher(crowd.many, "exclusive");
	CHECK_OK(create(crowd.many, "removed", 1024).error);
	open_publisher(crowd.many, "removed");
	death_of(&c, peer_of_nonce(1), "died");
	CHECK(!TAILQ_EMPTY(&c.partings));
	open_publisher(crowd.other, "exclusive");
	req = request(PROTO_REMOVE, "removed");
	CHECK_OK(call(crowd.other, &req).error);
	CHECK(!TAILQ_EMPTY(&c.partings));
	part_to_the_end();
	close(crowd.many);
	close(crowd.other);
	end();
}

/* ---- reports --------------------------------------------------------------- */

TEST(one_claim_of_a_publisher_is_watched_however_many_are_reported)
{
	struct proto_request req;
	struct shmq__ring *ring;
	struct stall *first = NULL;
	struct topic *t;
	uint64_t seq;
	int fd;

	begin();
	fd = join(1);
	CHECK_OK(create(fd, "t", 1024).error);
	open_publisher(fd, "t");
	t = registry_find(c.reg, "t");
	ring = &t->attached->ring[0];
	for (seq = 0; seq < 100; seq++) {
		uint64_t word =
			LAY_CTRL(lay_lap(&ring->geo, seq), peer_of_nonce(1)->id, LAY_CLAIMED);

		store_release(&lay_slot_at(ring->mem, &ring->geo, seq)->ctrl, word);
		req = request(PROTO_REPORT, "t");
		req.report.kind = PROTO_REPORT_STUCK;
		req.report.topic_id = t->rec->id;
		req.report.seq = seq;
		req.report.word = word;
		CHECK_OK(call(fd, &req).error);
		if (!seq)
			first = LIST_FIRST(&c.stalls);
		CHECK(first && LIST_FIRST(&c.stalls) == first); /* others would come before it */
	}
	close(fd);
	end();
}

/* ---- floods --------------------------------------------------------------- */

/* Neither those who wait to be taken in nor who asks for much at once comes before
 * somebody else's question. */
TEST(who_asks_is_answered_while_a_flood_of_connections_and_requests_is_queued)
{
	enum { FLOOD = 512, PILE = 16, TURNS = 2 };
	struct proto_request req = creation("t", 1024);
	int flood[FLOOD], asker, eager, turns = 0, taken = 0;
	struct proto_reply reply;

	begin();
	asker = join(1);
	eager = join(2);
	req.op = PROTO_PLAN;
	for (int i = 0; i < FLOOD; i++)
		flood[i] = dial();
	for (int i = 0; i < PILE; i++)
		ask(eager, &req);
	ask(asker, &req);
	do {
		turn();
		turns++;
	} while (!take_reply(asker, &reply));
	NOTE("answered after %d turns, in which %u of %d were taken in", turns, c.conn_count - 2,
	     FLOOD);
	CHECK_OK(reply.error);
	CHECK_LE(turns, TURNS);
	CHECK_LT(c.conn_count - 2, FLOOD);
	while (take_reply(eager, &reply))
		taken++;
	CHECK_LE(taken, turns);
	/* And they in their turn. */
	while (c.conn_count - 2 < FLOOD || taken < PILE) {
		turn();
		taken += take_reply(eager, &reply);
	}
	for (int i = 0; i < FLOOD; i++)
		close(flood[i]);
	close(asker);
	close(eager);
	end();
}

/* Of what stands in a slot of t. */
static int report(int fd, const struct topic *t, uint64_t seq, uint64_t word)
{
	struct proto_request req = request(PROTO_REPORT, "");

	req.report.kind = PROTO_REPORT_STUCK;
	req.report.topic_id = t->rec->id;
	req.report.seq = seq;
	req.report.word = word;
	return call(fd, &req).error;
}

TEST(what_is_reported_of_a_publisher_is_looked_at_and_not_believed)
{
	struct proto_request req = creation("t", 1024);
	struct shmq__ring *ring;
	uint64_t claimed, other;
	struct topic *t;
	shmq_au64 *at;
	int writer, reader;

	begin();
	writer = join(1);
	reader = join(2);
	req.create.mode = SHMQ_SHARED;
	req.create.stall = SHMQ_STALL_KILL; /* us */
	CHECK_OK(call(writer, &req).error);
	open_publisher(writer, "t");
	t = registry_find(c.reg, "t");
	ring = &t->attached->ring[0];
	at = &lay_slot_at(ring->mem, &ring->geo, 5)->ctrl;
	claimed = LAY_CTRL(lay_lap(&ring->geo, 5), peer_of_nonce(1)->id, LAY_CLAIMED);
	/* By who has nothing to do with it. */
	store_release(at, claimed);
	CHECK_EQ(report(reader, t, 5, claimed), SHMQ_ENOTOPIC);
	CHECK(LIST_EMPTY(&c.stalls));
	open_subscriber(reader, "t");
	/* Another word than is there, and words that are no claim of that seq. */
	other = LAY_CTRL(lay_lap(&ring->geo, 5), peer_of_nonce(1)->id, LAY_COMMITTED);
	CHECK_OK(report(reader, t, 5, other));
	store_release(at, other);
	CHECK_OK(report(reader, t, 5, other));
	CHECK_OK(report(reader, t, 5, claimed));
	store_release(at, claimed);
	CHECK_OK(report(reader, t, 5 + 1024, claimed));
	CHECK_OK(report(reader, t, 4, claimed));
	CHECK(LIST_EMPTY(&c.stalls));
	/* One that is: it is watched, and forgotten once it is none. */
	CHECK_OK(report(reader, t, 5, claimed));
	CHECK(!LIST_EMPTY(&c.stalls));
	store_release(at, other);
	while (!LIST_EMPTY(&c.stalls))
		CHECK_OK(loop_once(c.loop));
	close(writer);
	close(reader);
	end();
}

/* The process is this one, which a stall would be the end of. */
TEST(who_uses_the_processor_in_its_claim_is_not_stalled)
{
	struct proto_request req = creation("t", 1024);
	uint64_t claimed, looks;
	struct shmq__ring *ring;
	struct topic *t;
	shmq_au64 *at;
	int writer;

	begin();
	writer = join(1);
	req.create.mode = SHMQ_SHARED;
	req.create.stall = SHMQ_STALL_KILL;
	CHECK_OK(call(writer, &req).error);
	open_publisher(writer, "t");
	t = registry_find(c.reg, "t");
	ring = &t->attached->ring[0];
	at = &lay_slot_at(ring->mem, &ring->geo, 5)->ctrl;
	claimed = LAY_CTRL(lay_lap(&ring->geo, 5), peer_of_nonce(1)->id, LAY_CLAIMED);
	store_release(at, claimed);
	CHECK_OK(report(writer, t, 5, claimed));
	/* Now and then is enough: never ten looks in a row without. */
	for (looks = c.stall_looks; c.stall_looks < looks + 40;) {
		int64_t ticks = shmq__proc_cpu_ticks(getpid());

		while (c.stall_looks % 5 == 0 && shmq__proc_cpu_ticks(getpid()) == ticks)
			;
		loop_set_timer(c.loop, &c.stall_timer, shmq__clock_monotonic_ns(),
			       c.stall_timer.expired);
		CHECK_OK(loop_once(c.loop));
	}
	CHECK(!LIST_EMPTY(&c.stalls));
	store_release(at, LAY_CTRL(lay_lap(&ring->geo, 5), peer_of_nonce(1)->id, LAY_VOID));
	while (!LIST_EMPTY(&c.stalls))
		CHECK_OK(loop_once(c.loop));
	close(writer);
	end();
}

TEST(readers_are_evicted_for_publishers_of_their_topic_alone)
{
	struct proto_request req = creation("t", 1024);
	const struct lay_member *m;
	int writer, reader, other;

	begin();
	writer = join(1);
	reader = join(2);
	other = join(3);
	req.create.policy = SHMQ_EVICT;
	CHECK_OK(call(writer, &req).error);
	open_publisher(writer, "t");
	open_subscriber(reader, "t");
	open_subscriber(other, "t");
	m = LIST_FIRST(&peer_of_nonce(2)->handles)->member;
	req = request(PROTO_REPORT, "");
	req.report.kind = PROTO_REPORT_EVICT;
	req.report.topic_id = registry_find(c.reg, "t")->rec->id;
	req.report.client = peer_of_nonce(2)->id;
	req.report.client_gen = peer_of_nonce(2)->gen;
	req.report.handle = LIST_FIRST(&peer_of_nonce(2)->handles)->token;
	CHECK_EQ(call(other, &req).error, SHMQ_EACCESS);
	req.report.client_gen++;
	CHECK_OK(call(writer, &req).error);
	req.report.client_gen--;
	req.report.handle++;
	CHECK_OK(call(writer, &req).error);
	req.report.handle--;
	CHECK_EQ(load_relaxed(&m->state), LAY_MEMBER_SUBSCRIBER);
	CHECK_OK(call(writer, &req).error);
	CHECK_EQ(load_relaxed(&m->state), LAY_MEMBER_EVICTED);
	close(writer);
	close(reader);
	close(other);
	end();
}

/* ---- arenas of those who left ------------------------------------------ */

static unsigned count_orphans(void)
{
	unsigned count = 0, i;

	for (i = 0; i < load_relaxed(&c.reg->head->arena_count); i++)
		count += load_relaxed(&shmq__slabs_arena(c.reg->slabs, i)->state) ==
			 LAY_ARENA_ORPHAN;
	return count;
}

/* As in a message of the topic's. */
static void refer_to(struct topic *t, uint64_t seq, uint32_t arena)
{
	struct lay_arena *a = shmq__slabs_arena(c.reg->slabs, arena);
	struct shmq__ring *ring = &t->attached->ring[0];
	struct lay_slot *s = lay_slot_at(ring->mem, &ring->geo, seq);
	struct lay_arena_ref ref = { arena, (uint32_t)load_relaxed(&a->gen), 0 };

	s->flags = SHMQ_MSG_ARENA;
	memcpy((char *)s + ring->geo.payload_off, &ref, sizeof(ref));
	store_release(&s->ctrl, LAY_CTRL(lay_lap(&ring->geo, seq), 1, LAY_COMMITTED));
}

TEST(orphans_are_looked_through_a_little_at_a_time)
{
	enum { ARENAS = 6, SLOTS = 65536 };
	struct proto_request req;
	unsigned left = ARENAS, turns = 0, now;
	int64_t deadline;
	int fd;

	begin();
	fd = join(1);
	req = creation("t", SLOTS);
	req.create.max_bytes = 1000;
	CHECK_OK(call(fd, &req).error);
	for (int i = 0; i < ARENAS; i++) {
		req = request(PROTO_OPEN, "t");
		req.open.role = SHMQ_ROLE_PUBLISHER;
		req.open.partition = -1;
		req.open.arena_bytes = 8192;
		CHECK_OK(call(fd, &req).error);
	}
	refer_to(registry_find(c.reg, "t"), 70, 0); /* the first is needed still */
	req = request(PROTO_GOODBYE, "");
	CHECK_OK(call(fd, &req).error);
	CHECK_EQ(count_orphans(), ARENAS);
	/* All of them are due by then. */
	loop_set_timer(c.loop, &c.orphan_timer, c.orphan_timer.due_ns + 100000000,
		       c.orphan_timer.expired);
	/* Each takes a whole round of the ring, and so a turn at least. */
	deadline = test_now_ns() + INT64_C(20000000000) * test_slowdown();
	for (; left > 1; turns++) {
		if (test_now_ns() > deadline)
			FAIL("%u orphans are still there", left);
		CHECK_OK(loop_once(c.loop));
		now = count_orphans();
		CHECK_LE(left - now, 1);
		left = now;
	}
	CHECK_EQ(load_relaxed(&shmq__slabs_arena(c.reg->slabs, 0)->state), LAY_ARENA_ORPHAN);
	NOTE("%u turns", turns);
	close(fd);
	end();
}

/* One that was overrun may look at what no slot refers to any more. */
TEST(an_arena_stays_for_who_may_still_look_at_a_message_in_it)
{
	struct proto_request req;
	struct lay_member *m = NULL;
	struct shmq__roster_iter it = { 0 };
	struct shmq__ring *ring;
	struct lay_entry *entry;
	int writer, reader;
	struct topic *t;

	begin();
	writer = join(1);
	reader = join(2);
	req = creation("t", 1024);
	req.create.max_bytes = 1000;
	CHECK_OK(call(writer, &req).error);
	open_subscriber(reader, "t");
	t = registry_find(c.reg, "t");
	ring = &t->attached->ring[0];
	m = shmq__topic_next_member(t->attached, &it);
	CHECK(m);
	entry = shmq__topic_entry(t->attached, m, 0);
	CHECK(entry);
	req = request(PROTO_OPEN, "t");
	req.open.role = SHMQ_ROLE_PUBLISHER;
	req.open.partition = -1;
	req.open.arena_bytes = 8192;
	CHECK_OK(call(writer, &req).error);
	store_release(&lay_slot_at(ring->mem, &ring->geo, 0)->ctrl,
		      LAY_CTRL(lay_lap(&ring->geo, 0), 1, LAY_COMMITTED));
	req = request(PROTO_GOODBYE, "");
	CHECK_OK(call(writer, &req).error);
	CHECK_EQ(count_orphans(), 1);
	store_release(&entry->pos, 0);
	CHECK(c.orphan_timer.is_set);
	for (uint64_t due = c.orphan_timer.due_ns; c.orphan_timer.due_ns == due;)
		CHECK_OK(loop_once(c.loop)); /* it was looked for */
	CHECK_EQ(count_orphans(), 1);
	store_release(&entry->pos, 1);
	while (c.orphan_timer.is_set)
		CHECK_OK(loop_once(c.loop));
	CHECK_EQ(count_orphans(), 0);
	close(writer);
	close(reader);
	end();
}
