/* SPDX-License-Identifier: MIT
 *
 * Parent and worker are killed at once: the clients carry on, and bring the
 * bus back to the next start by offering the descriptors they hold.
 */
#include "raw.h"
#include "traffic.h"
#include "wire.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { DEPTH = 1024 };

/* ---- killing and starting -------------------------------------------------- */

static void *restart(void *arg)
{
	(void)arg;
	test_bus_restart();
	return NULL;
}

/* A start that waits for offers, for two seconds. */
static pthread_t begin_restart(void)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, restart, NULL), 0);
	return thread;
}

struct wish {
	shmq_bus *bus;
	int n;
};

static int has_reattached(void *arg)
{
	const struct wish *w = arg;

	return shmq_bus_reattach_count(w->bus) >= w->n && shmq_bus_is_attached(w->bus);
}

static void await_reattached(shmq_bus *bus, int n)
{
	struct wish wish = { bus, n };

	if (!test_wait_until(has_reattached, &wish, 20000))
		FAIL("did not come back %d times", n);
}

/* ---- under traffic ------------------------------------------------------------- */

static void check_opens(shmq_bus *old)
{
	shmq_pub *pub;

	CHECK_ERROR(shmq_pub_open(old, "t", NULL, &pub), SHMQ_EEXCLUSIVE);
	CHECK_ERROR(shmq_topic_create(old, "t", NULL, NULL), SHMQ_EEXISTS);
	traffic_check_opens(old);
}

enum starter { WE_START, CLIENTS_START };

static void die_under_traffic(enum starter starter)
{
	enum { DEATHS = 3 };
	enum shmq_start_mode start =
		starter == CLIENTS_START ? SHMQ_START_ON_DEMAND : SHMQ_START_NEVER;
	struct shmq_bus_info info;
	struct traffic *t;
	shmq_bus *bus;

	if (starter == CLIENTS_START)
		test_bus_prepare();
	else
		test_bus_start();
	bus = open_with(.start = start);
	t = traffic_start(bus, .start = start);
	traffic_await_flow(t);
	for (int n = 1; n <= DEATHS; n++) {
		test_bus_kill(NULL);
		traffic_await_flow(t);
		if (starter == WE_START)
			test_bus_restart();
		traffic_await_reattached(t, n);
		traffic_await_flow(t);
		CHECK_EQ(topic_info(bus, "t").publishers, 1);
		CHECK_EQ(topic_info(bus, "t").subscribers, 1);
		check_opens(bus);
		CHECK_EQ(shmq_bus_reattach_count(bus), n);
		CHECK_OK(shmq_bus_get_info(bus, &info));
		CHECK_EQ(info.epoch, n + 1);
	}
	traffic_stop(t);
	CHECK_OK(shmq_topic_remove(bus, "t", 0));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(clients_bring_a_bus_back_of_which_nobody_survived, 60)
{
	die_under_traffic(WE_START);
}

TEST_WITHIN(clients_on_demand_start_the_next_supervisor_themselves, 60)
{
	die_under_traffic(CLIENTS_START);
}

/* ---- the dead ---------------------------------------------------------------------- */

static int claim_and_wait_to_die(void *arg)
{
	_Atomic int *stage = arg;
	struct raw raw;

	raw_open(&raw, test_bus_open(), "t");
	raw_claim(&raw);
	reach(stage, 1);
	pause();
	return 1;
}

TEST(who_died_while_there_was_nobody_is_repaired)
{
	_Atomic int *stage = shared_memory(4096);
	struct shmq_msg msg;
	uint64_t n = 8;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	child = test_spawn(claim_and_wait_to_die, (void *)stage);
	await(stage, 1);
	test_bus_kill(NULL);
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	test_bus_restart();
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(msg.seq, 1);
	await_reattached(bus, 1);
	CHECK_EQ(topic_info(bus, "t").publishers, 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int publish_on(void *arg)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");

	(void)arg;
	for (uint64_t n = 0; n < 3 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	shmq_bus_close(bus);
	return 0;
}

TEST(a_reader_closed_while_there_is_nobody_keeps_no_publisher_waiting)
{
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .wait = SHMQ_WAIT_SLEEP);
	sub = open_sub(bus, "t");
	child = test_spawn(publish_on, NULL);
	await_sleepers(bus, "t", SHMQ_ROLE_PUBLISHER, 1);
	test_bus_kill(NULL);
	shmq_sub_close(sub);
	CHECK_EQ(test_join(child), 0);
	test_bus_restart();
	await_reattached(bus, 1);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int is_alone(void *bus)
{
	struct shmq_bus_info info;

	return !shmq_bus_get_info(bus, &info) && info.clients == 1 &&
	       !topic_info(bus, "t").subscribers && !topic_info(bus, "t").publishers;
}

/* Its process goes on, with the same maps: they prove nothing. */
TEST(who_left_while_there_was_nobody_has_left_what_it_had)
{
	shmq_bus *bus, *stays;
	shmq_pub *pub;
	shmq_sub *sub;

	test_bus_start();
	stays = test_bus_open();
	create(stays, "t", .depth = DEPTH);
	create(stays, "other", .depth = DEPTH);
	open_pub(stays, "other"); /* a bus with a handle offers what it holds */
	bus = test_bus_open();
	sub = open_sub(bus, "t");
	open_sub(bus, "t");
	open_pub(bus, "t");
	test_bus_kill(NULL);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	test_bus_restart();
	await_reattached(stays, 1);
	if (!test_wait_until(is_alone, stays, 20000))
		FAIL("%u subscribers, %u publishers are left", topic_info(stays, "t").subscribers,
		     topic_info(stays, "t").publishers);
	pub = open_pub(stays, "t");
	for (uint64_t n = 0; n < 3 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	shmq_bus_close(stays);
	test_bus_stop();
}

TEST(with_no_client_left_the_next_start_is_fresh_and_names_what_is_lost)
{
	struct shmq_bus_info info;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	test_bus_kill(NULL);
	shmq_bus_close(bus);
	test_bus_restart();
	bus = test_bus_open();
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.epoch, 1);
	CHECK_EQ(info.topics, 0);
	CHECK(test_bus_log_has("lost: slab 0 registry"));
	CHECK(test_bus_log_has("lost: slab 1 bell"));
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- offers -------------------------------------------------------------------------- */

static int connect_back(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int64_t deadline = test_now_ns() + PATIENCE;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CHECK_LT(snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.back", test_bus_dir(),
			  test_bus_name()),
		 sizeof(address.sun_path));
	while (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		if (test_now_ns() > deadline)
			FAIL("%s: %s", address.sun_path, strerror(errno));
		test_sleep_ms(1);
	}
	return fd;
}

static struct proto_request offer_of(shmq_bus *bus, unsigned count, unsigned slab)
{
	struct proto_request req;

	shmq__bus_prepare(bus, &req, PROTO_OFFER, NULL);
	req.offer.bus_nonce = bus->bus_nonce;
	req.offer.fd_count = count;
	req.offer.fd[0].slab = (uint16_t)slab;
	return req;
}

static struct proto_reply answer_to(int sock, const struct proto_request *req, const int *fds,
				    unsigned count)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int got[WIRE_FDS_MAX];
	struct proto_reply reply;
	unsigned n;

	CHECK_OK(shmq__wire_send(sock, req, sizeof(*req), fds, count));
	CHECK_EQ(poll(&p, 1, 10000), 1);
	CHECK_EQ(shmq__wire_recv(sock, &reply, sizeof(reply), got, &n), 1);
	CHECK_EQ(n, 0);
	return reply;
}

static void check_refused(int sock, struct proto_request req, int fd, const char *why)
{
	struct proto_reply reply = answer_to(sock, &req, &fd, 1);

	CHECK_NE(reply.error, 0);
	if (!strstr(reply.why, why))
		FAIL("refused by \"%s\", not by \"%s\"", reply.why, why);
}

static int memory_of(uint64_t bytes)
{
	int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK_GE(fd, 0);
	CHECK_OK(ftruncate(fd, (off_t)bytes));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	return fd;
}

TEST(offers_that_the_manifest_does_not_know_are_refused_by_name)
{
	struct proto_request req;
	struct proto_reply reply;
	pthread_t start;
	int sock, other, many[WIRE_FDS_MAX];
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = open_with(.serve = SHMQ_SERVE_CALLER); /* offers when we say so */
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	test_bus_kill(NULL);
	start = begin_restart();
	sock = connect_back();
	other = memory_of(LAY_REGISTRY_BYTES);
	check_refused(sock, offer_of(bus, 1, 0), other, "slab 0 is not in the manifest");
	check_refused(sock, offer_of(bus, 1, 15), other, "no slab 15");
	check_refused(sock, offer_of(bus, 1, 65535), other, "no slab 65535");
	check_refused(sock, offer_of(bus, 1, 1), sock, "slab 1 is not in the manifest");
	check_refused(sock, offer_of(bus, 7, 0), other, "speaks of 7 descriptors and has 1");
	/* One slab in the place of another. */
	check_refused(sock, offer_of(bus, 1, 1), shmq__slabs_fd(bus->slabs, 0, SHMQ__SLAB_READ),
		      "slab 1 is not in the manifest");
	req = offer_of(bus, 1, 0);
	req.offer.bus_nonce++;
	check_refused(sock, req, other, "a bus that is gone");
	req = offer_of(bus, 1, 0);
	req.op = PROTO_HELLO;
	check_refused(sock, req, other, "none of this protocol");
	for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
		many[i] = other;
	reply = answer_to(sock, (req = offer_of(bus, WIRE_FDS_MAX, 0), &req), many, WIRE_FDS_MAX);
	CHECK_NE(reply.error, 0);
	CHECK_EQ(send(sock, "x", 1, MSG_NOSIGNAL), 1); /* and hung up on */
	close(sock);
	close(other);
	/* Nothing of it has changed what an honest client can do. */
	for (int i = 0; i < 1000 && !shmq_bus_reattach_count(bus); i++)
		shmq_bus_serve(bus, 10 * MILLISECOND);
	CHECK_EQ(pthread_join(start, NULL), 0);
	CHECK_EQ(shmq_bus_reattach_count(bus), 1);
	CHECK_EQ(topic_info(bus, "t").publishers, 1);
	CHECK_OK(shmq_publish(pub, "on", 2));
	CHECK(test_bus_log_has("refused an offer: slab 0 is not in the manifest"));
	CHECK(test_bus_log_has("brought every slab back"));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_start_that_waits_for_offers_is_not_ended_by_a_reload)
{
	shmq_bus *bus;
	pid_t pid;
	int sock;

	test_bus_start();
	bus = open_with(.serve = SHMQ_SERVE_CALLER);
	create(bus, "t", .depth = DEPTH);
	test_bus_kill(NULL);
	pid = test_bus_launch();
	sock = connect_back(); /* it listens */
	CHECK_OK(kill(pid, SIGHUP));
	CHECK_OK(kill(pid, SIGUSR2));
	close(sock);
	for (int i = 0; i < 1000 && !shmq_bus_reattach_count(bus); i++)
		shmq_bus_serve(bus, 10 * MILLISECOND);
	CHECK_EQ(shmq_bus_reattach_count(bus), 1);
	CHECK_EQ(topic_info(bus, "t").depth, DEPTH);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_that_comes_back_in_part_only_is_lost_by_name)
{
	struct proto_request req;
	struct proto_reply reply;
	pthread_t start;
	shmq_bus *bus;
	shmq_pub *pub;
	int sock, fd;

	test_bus_start();
	bus = open_with(.serve = SHMQ_SERVE_CALLER);
	create(bus, "prices", .depth = DEPTH);
	pub = open_pub(bus, "prices");
	test_bus_kill(NULL);
	start = begin_restart();
	sock = connect_back();
	fd = shmq__slabs_fd(bus->slabs, 0, SHMQ__SLAB_READ);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	reply = answer_to(sock, (req = offer_of(bus, 1, 0), &req), &fd, 1);
	CHECK_OK(reply.error);
	CHECK_EQ(pthread_join(start, NULL), 0);
	close(sock);
	CHECK(test_bus_log_has("lost: topic \"prices\""));
	CHECK(test_bus_log_has("lost: slab 1 bell"));
	CHECK_OK(shmq_publish(pub, "alone", 5));
	CHECK_ERROR(shmq_topic_create(bus, "u", NULL, NULL), SHMQ_ELOST);
	shmq_bus_close(bus);
	bus = test_bus_open();
	CHECK_ERROR(shmq_pub_open(bus, "prices", NULL, &pub), SHMQ_ENOTOPIC);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(a_bus_ended_by_name_is_not_started_again_by_its_clients)
{
	struct shmq_bus_info info;
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t parent;

	test_bus_prepare();
	bus = open_with(.start = SHMQ_START_ON_DEMAND);
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_bus_get_info(bus, &info));
	parent = (pid_t)info.parent_pid;
	CHECK_OK(shmq_bus_stop(bus, 0));
	while (kill(parent, 0) == 0)
		test_sleep_ms(1);
	test_sleep_ms(1500); /* longer than it takes to try */
	CHECK(!test_bus_accepts());
	CHECK_ERROR(shmq_publish(pub, "more", 4), SHMQ_EENDED);
	shmq_bus_close(bus);
	test_bus_stop();
}
