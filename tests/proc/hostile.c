/* SPDX-License-Identifier: MIT
 *
 * Clients of another version, of another program, or of no good will: each
 * is answered by name or hung up on, and the bus is there for the others.
 */
#include "clock.h"
#include "proc.h"
#include "punch.h"
#include "raw.h"
#include "talk.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { DEPTH = 1024 };

static void check_hung_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char byte;

	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	CHECK_LE(recv(fd, &byte, 1, 0), 0);
}

/* The same worker as ever answers a client of good will. */
static void check_up(void)
{
	struct shmq_bus_info info;
	struct shmq_msg msg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub;
	shmq_sub *sub;

	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.epoch, 1);
	create(bus, "probe", .depth = DEPTH);
	sub = open_sub(bus, "probe");
	pub = open_pub(bus, "probe");
	CHECK_OK(shmq_publish(pub, "probe", 5));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(bus, "probe", 0));
	shmq_bus_close(bus);
}

static int count_fds_of(pid_t pid)
{
	char path[64];
	int count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	CHECK(dir != NULL);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* ---- versions -------------------------------------------------------------- */

TEST(a_client_of_another_layout_is_refused_by_name)
{
	struct proto_request req = request(PROTO_HELLO);
	struct proto_reply reply;
	int fd;

	test_bus_start();
	fd = raw_connect();
	req.hello.layout_version = LAY_VERSION + 1;
	req.hello.layout_oldest = LAY_VERSION + 1;
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_EVERSION);
	CHECK(strstr(reply.why, "layout") != NULL);
	CHECK_EQ(reply.fd_count, 0);
	check_hung_up(fd);
	close(fd);
	check_up();
	test_bus_stop();
}

TEST(a_client_of_another_protocol_is_refused_by_name)
{
	struct proto_request req = request(PROTO_HELLO);
	struct proto_reply reply;
	int fd;

	test_bus_start();
	fd = raw_connect();
	req.version = PROTO_VERSION + 1;
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_EVERSION);
	CHECK(strstr(reply.why, "protocol") != NULL);
	check_hung_up(fd);
	close(fd);
	check_up();
	test_bus_stop();
}

TEST(what_a_client_calls_things_begins_no_line_of_the_log)
{
	const struct shmq_bus_options *options =
		BUS_OPTIONS(.start = SHMQ_START_NEVER, .client_name = "a\nforged by name");
	struct proto_request req = request(PROTO_HELLO);
	struct proto_reply reply;
	shmq_bus *bus;
	int fd;

	test_bus_start("--log-level", "debug");
	CHECK_OK(shmq_bus_open(test_bus_name(), options, &bus));
	fd = raw_connect();
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	req.op = PROTO_REMOVE;
	strcpy(req.topic, "a\nforged by topic");
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_ENOTOPIC);
	close(fd);
	shmq_bus_close(bus);
	CHECK(test_bus_log_has("?forged by name"));
	CHECK(test_bus_log_has("?forged by topic"));
	test_bus_stop();
}

/* A supervisor that is none: accepts, and says what it is told to. */
struct impostor {
	int listen_fd, bytes;
	struct proto_reply reply;
	int echo; /* token and op of the request */
};

static void *impersonate(void *arg)
{
	struct impostor *im = arg;
	int fd = accept4(im->listen_fd, NULL, NULL, SOCK_CLOEXEC), fds[WIRE_FDS_MAX];
	struct proto_request req;
	unsigned n;

	CHECK_GE(fd, 0);
	CHECK_EQ(shmq__wire_recv(fd, &req, sizeof(req), fds, &n), 1);
	if (im->echo) {
		im->reply.token = req.token;
		im->reply.op = req.op;
	}
	if (im->bytes)
		CHECK_OK(shmq__wire_send(fd, &im->reply, (size_t)im->bytes, NULL, 0));
	else
		shutdown(im->listen_fd, SHUT_RDWR); /* it is gone for good */
	close(fd);
	return NULL;
}

static int open_impostor(struct impostor *im)
{
	struct shmq_bus_options o = { .size = sizeof(o), .timeout_ns = SECOND };
	struct sockaddr_un address = bus_address();
	shmq_bus *bus = NULL;
	pthread_t thread;
	int rc;

	o.runtime_dir = test_bus_dir();
	im->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK_OK(bind(im->listen_fd, (struct sockaddr *)&address, sizeof(address)));
	CHECK_OK(listen(im->listen_fd, 5));
	CHECK_EQ(pthread_create(&thread, NULL, impersonate, im), 0);
	rc = shmq_bus_open(test_bus_name(), &o, &bus);
	CHECK(bus == NULL);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	close(im->listen_fd);
	unlink(address.sun_path);
	return rc;
}

TEST(the_library_refuses_a_supervisor_that_speaks_otherwise)
{
	struct impostor im = { .bytes = sizeof(im.reply), .echo = 1 };

	test_bus_prepare();
	im.reply.magic = PROTO_MAGIC;
	im.reply.version = PROTO_VERSION + 1;
	CHECK_ERROR(open_impostor(&im), SHMQ_EVERSION);
	CHECK(*shmq_bus_error(NULL));
	im.reply.magic = 0x12345678;
	im.reply.version = PROTO_VERSION;
	CHECK_ERROR(open_impostor(&im), SHMQ_EVERSION);
	im.reply.magic = PROTO_MAGIC;
	im.bytes = 100;
	CHECK_ERROR(open_impostor(&im), SHMQ_EVERSION);
	/* Well-formed, but no attachment: no descriptors with it. */
	im.bytes = sizeof(im.reply);
	CHECK_ERROR(open_impostor(&im), SHMQ_EPROTO);
	im.reply.error = SHMQ_EACCESS;
	memset(im.reply.why, 'w', sizeof(im.reply.why)); /* and no end to it */
	CHECK_ERROR(open_impostor(&im), SHMQ_EACCESS);
	im.bytes = 0; /* hangs up */
	CHECK_ERROR(open_impostor(&im), SHMQ_ENODAEMON);
	test_bus_stop();
}

/* ---- what is no request -------------------------------------------------------- */

TEST(garbage_on_the_socket_is_hung_up_on)
{
	static const size_t lens[] = { 1, 10, 1023, 1024, 1025, 4096, 60000 };
	static char garbage[60000];
	struct proto_reply reply;

	test_bus_start();
	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++)
		for (int zero = 0; zero < 2; zero++) {
			int fd = raw_connect();

			if (zero)
				memset(garbage, 0, sizeof(garbage));
			else
				fill(garbage, sizeof(garbage), i);
			if (answer_to(fd, garbage, lens[i], &reply))
				CHECK_ERROR(reply.error, SHMQ_EPROTO);
			check_hung_up(fd);
			close(fd);
		}
	check_up();
	test_bus_stop();
}

TEST(requests_out_of_order_are_refused)
{
	struct proto_request req;
	struct proto_reply reply;
	int fd;

	test_bus_start();
	for (int op = PROTO_PLAN; op <= PROTO_GOODBYE; op++) { /* before HELLO */
		fd = raw_connect();
		req = request((enum proto_op)op);
		CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
		CHECK_ERROR(reply.error, SHMQ_EPROTO);
		check_hung_up(fd);
		close(fd);
	}
	for (int op = 0; op < 100; op += 99) { /* no such request */
		fd = raw_connect();
		req = request(PROTO_HELLO);
		CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
		CHECK_ERROR(reply.error, 0);
		req = request((enum proto_op)op);
		CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
		CHECK_ERROR(reply.error, SHMQ_EPROTO);
		check_hung_up(fd);
		close(fd);
	}
	fd = raw_connect(); /* HELLO twice */
	req = request(PROTO_HELLO);
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_EPROTO);
	check_hung_up(fd);
	close(fd);
	fd = raw_connect(); /* without a nonce, with a name that has no end */
	req.hello.nonce = 0;
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_EPROTO);
	close(fd);
	fd = raw_connect();
	req = request(PROTO_HELLO);
	memset(req.hello.name, 'x', sizeof(req.hello.name));
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_EPROTO);
	close(fd);
	fd = raw_connect();
	req = request(PROTO_HELLO);
	memset(req.topic, 'x', sizeof(req.topic));
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	CHECK_ERROR(reply.error, SHMQ_EPROTO);
	close(fd);
	check_up();
	test_bus_stop();
}

/* Requests that are well-formed but for what they say. */
TEST(requests_full_of_nonsense_are_answered_and_do_no_harm)
{
	enum { ROUNDS = 20000 };
	struct proto_reply reply;
	struct shmq_bus_info info;
	uint64_t refused = 0, granted = 0, cut = 0;
	shmq_bus *bus;
	int fd = -1;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	for (uint64_t n = 0; n < ROUNDS; n++) {
		struct proto_request req = request(PROTO_HELLO);

		if (fd < 0) {
			fd = raw_connect();
			CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
			CHECK_ERROR(reply.error, 0);
		}
		req = request(PROTO_PLAN + (enum proto_op)(mix(n) % 6)); /* to REPORT */
		req.token = mix(n + 1) % 50;
		fill(req.raw, sizeof(req.raw), n);
		/* Half of it plausible: small numbers, or none. */
		for (size_t i = 0; i < sizeof(req.raw); i += 4)
			if (mix(n << 8 | i) % 2)
				memcpy(req.raw + i, &(uint32_t){ (uint32_t)mix(n + i) % 5 }, 4);
		strcpy(req.topic, mix(n + 2) % 2 ? "t" : mix(n + 3) % 2 ? "nonsense" : "");
		if (mix(n + 4) % 50 == 0)
			fill(req.topic, sizeof(req.topic) - 1, n);
		if (req.op == PROTO_CREATE) /* what might be granted must fit the machine */
			req.create.depth %= 4096, req.create.partitions %= 8;
		if (!answer_to(fd, &req, sizeof(req), &reply)) {
			cut++;
			close(fd);
			fd = -1;
			continue;
		}
		CHECK_LE(reply.error, 0);
		CHECK_EQ(reply.token, req.token);
		CHECK(memchr(reply.why, 0, sizeof(reply.why)) != NULL);
		refused += reply.error < 0;
		granted += reply.error == 0;
	}
	if (fd >= 0)
		close(fd);
	NOTE("%d requests: %llu refused, %llu granted, %llu cut off", ROUNDS,
	     (unsigned long long)refused, (unsigned long long)granted, (unsigned long long)cut);
	CHECK_GT(refused, 0);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.epoch, 1);
	shmq_bus_close(bus);
	check_up();
	test_bus_stop();
}

/* ---- who connects ----------------------------------------------------------------- */

TEST(three_hundred_silent_connections_keep_nobody_out)
{
	int fd[300];

	test_bus_start();
	for (int i = 0; i < 300; i++)
		fd[i] = raw_connect();
	check_up();
	for (int i = 0; i < 300; i++)
		close(fd[i]);
	check_up();
	test_bus_stop();
}

static int connect_and_hang_up(void *arg)
{
	_Atomic int *stage = arg;

	for (int i = 0; i < 1000; i++) {
		struct proto_request req = request(PROTO_HELLO);
		int fd = raw_connect();

		req.hello.nonce += (uint64_t)i % 100;
		if (i % 2)
			CHECK_OK(shmq__wire_send(fd, &req, sizeof(req), NULL, 0));
		close(fd);
	}
	reach(stage, 1);
	await(stage, 2);
	return 0;
}

TEST(a_thousand_connections_that_hang_up_at_once_leave_nothing)
{
	_Atomic int *stage = shared_memory(sizeof(*stage));
	struct shmq_bus_info info;
	int64_t deadline;
	shmq_bus *bus;
	pid_t worker, child;
	int before;

	test_bus_start();
	bus = test_bus_open();
	worker = test_bus_worker_pid(bus);
	check_up();
	before = count_fds_of(worker);
	child = test_spawn(connect_and_hang_up, (void *)stage);
	await(stage, 1);
	/* It lives, but has none of the bus's memory mapped: so it has left. */
	deadline = test_now_ns() + PATIENCE / 6;
	do {
		CHECK_OK(shmq_bus_get_info(bus, &info));
		if (test_now_ns() > deadline)
			FAIL("left: %u clients, %d descriptors of %d", info.clients,
			     count_fds_of(worker), before);
	} while ((count_fds_of(worker) > before || info.clients > 1) && (test_sleep_ms(5), 1));
	reach(stage, 2);
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	check_up();
	test_bus_stop();
}

TEST(descriptors_sent_to_the_supervisor_are_closed)
{
	struct proto_request req = request(PROTO_HELLO);
	struct proto_reply reply;
	int fd, fds[WIRE_FDS_MAX], before;
	shmq_bus *bus;
	pid_t worker;

	test_bus_start();
	bus = test_bus_open();
	worker = test_bus_worker_pid(bus);
	fd = raw_connect();
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	for (int i = 0; i < WIRE_FDS_MAX; i++)
		fds[i] = fd;
	before = count_fds_of(worker);
	for (int i = 0; i < 100; i++) {
		req = request(PROTO_CLOSE);
		CHECK_OK(shmq__wire_send(fd, &req, sizeof(req), fds, WIRE_FDS_MAX));
		CHECK_EQ(recv(fd, &reply, sizeof(reply), 0), sizeof(reply));
	}
	CHECK_LE(count_fds_of(worker), before);
	/* With what is no request, too. */
	CHECK_OK(shmq__wire_send(fd, "x", 1, fds, WIRE_FDS_MAX));
	CHECK_GT(recv(fd, &reply, sizeof(reply), 0), 0);
	check_hung_up(fd);
	close(fd);
	for (int i = 0; i < 2000 && count_fds_of(worker) > before; i++)
		test_sleep_ms(1);
	CHECK_LE(count_fds_of(worker), before);
	shmq_bus_close(bus);
	check_up();
	test_bus_stop();
}

TEST(a_client_that_does_not_read_its_answers_holds_nobody_up)
{
	struct proto_request req = request(PROTO_HELLO);
	struct proto_reply reply;
	int fd, sent = 0;

	test_bus_start();
	fd = raw_connect();
	CHECK_EQ(answer_to(fd, &req, sizeof(req), &reply), 1);
	for (; sent < 10000; sent++) {
		req = request(PROTO_PLAN);
		strcpy(req.topic, "t");
		if (send(fd, &req, sizeof(req), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
			break;
		if (sent % 1000 == 0)
			check_up();
	}
	CHECK_LT(sent, 10000); /* it was cut off */
	close(fd);
	check_up();
	test_bus_stop();
}

TEST(a_client_that_does_not_read_its_events_holds_nobody_up)
{
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	struct shmq_event event;
	shmq_bus *deaf, *bus;
	uint64_t at = 0;
	int rc;

	test_bus_start();
	o.runtime_dir = test_bus_dir();
	CHECK_OK(shmq_bus_open(test_bus_name(), &o, &deaf));
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED);
	open_sub(deaf, "t");
	for (int i = 0; i < 2000; i++)
		shmq_pub_close(open_pub(bus, "t"));
	/* What did not fit the socket is gone, what did is in order. */
	while (!(rc = shmq_bus_event(deaf, &event, SHMQ_NOWAIT))) {
		at += event.missed;
		CHECK_EQ(event.kind, at++ % 2 ? SHMQ_EVENT_LEFT : SHMQ_EVENT_JOINED);
	}
	CHECK_ERROR(rc, SHMQ_EEMPTY);
	CHECK_GT(at, 0);
	shmq_bus_close(deaf);
	shmq_bus_close(bus);
	check_up();
	test_bus_stop();
}

/* A client of good will asks while another process does its worst, round after
 * round: how many rounds went by for each answer it got. */
struct storm {
	_Atomic uint64_t rounds;
	_Atomic int over;
	uint64_t every_ns; /* 0: as fast as it comes */
};

#define STARVED 4096 /* a few for the scheduler's turns; for ever, if it were */

/* How long these took together, to be told; nothing is made of it. */
static double ask(shmq_bus *bus, unsigned answers)
{
	uint64_t from = shmq__clock_monotonic_ns();
	struct shmq_plan plan;

	for (unsigned i = 0; i < answers; i++)
		CHECK_OK(shmq_topic_plan(bus, "t", NULL, &plan));
	return (double)(shmq__clock_monotonic_ns() - from) / 1e9;
}

static double ask_in_storm(struct storm *storm, int (*rage)(void *storm), unsigned answers)
{
	shmq_bus *bus = test_bus_open();
	double calm = ask(bus, answers), took;
	pid_t child = test_spawn(rage, storm);
	uint64_t from;

	while ((from = atomic_load(&storm->rounds)) < 100)
		cpu_relax();
	took = ask(bus, answers);
	from = atomic_load(&storm->rounds) - from;
	NOTE("an answer takes %.0f us, and %.0f us beside %.0f rounds a second",
	     1e6 * calm / answers, 1e6 * took / answers, (double)from / took);
	atomic_store(&storm->over, 1);
	CHECK_EQ(test_join(child), 0);
	shmq_bus_close(bus);
	return (double)from / answers;
}

static int connect_for_ever(void *arg)
{
	struct storm *storm = arg;
	uint64_t next = shmq__clock_monotonic_ns();

	while (!atomic_load(&storm->over)) {
		if (shmq__clock_monotonic_ns() < next)
			continue;
		next += storm->every_ns;
		close(raw_connect());
		atomic_fetch_add(&storm->rounds, 1);
	}
	return 0;
}

/* Each turn of the supervisor's takes in 64 at most, and one request of each who
 * has said something. */
TEST(ten_thousand_connections_a_second_keep_nobody_waiting)
{
	static const uint64_t every_ns[] = { 100000, 0 };
	double rounds;

	test_bus_start();
	for (size_t i = 0; i < COUNT(every_ns); i++) {
		struct storm *storm = shared_memory(sizeof(*storm));

		storm->every_ns = every_ns[i];
		rounds = ask_in_storm(storm, connect_for_ever, 2000);
		NOTE("%.1f connections went by for each answer", rounds);
		CHECK_LT(rounds, STARVED);
	}
	check_up();
	test_bus_stop();
}

static int say_half_for_ever(void *arg)
{
	struct proto_request req = request(PROTO_HELLO);
	struct storm *storm = arg;
	int fd = raw_connect();

	while (!atomic_load(&storm->over)) {
		int rc = shmq__wire_send(fd, &req, sizeof(req) / 2, NULL, 0);

		atomic_fetch_add(&storm->rounds, 1);
		if (!rc)
			continue;
		close(fd); /* it was hung up on */
		fd = raw_connect();
	}
	close(fd);
	return 0;
}

TEST(who_sends_half_requests_for_ever_keeps_nobody_waiting)
{
	struct storm *storm = shared_memory(sizeof(*storm));
	double rounds;

	test_bus_start();
	rounds = ask_in_storm(storm, say_half_for_ever, 2000);
	NOTE("%.1f halves went by for each answer", rounds);
	CHECK_LT(rounds, STARVED);
	check_up();
	test_bus_stop();
}

/* ---- what stands in shared memory --------------------------------------------------- */

static void publish_wrong(struct raw *r, uint32_t len, uint16_t flags, const void *bytes, size_t n)
{
	uint64_t seq = raw_claim(r);
	struct lay_slot *s = lay_slot_at(r->w.mem, &r->w.geo, seq);

	s->len = len;
	s->flags = flags;
	memcpy((char *)s + r->w.geo.payload_off, bytes, n);
	raw_commit(r, seq);
	raw_ring(r);
}

TEST(an_impossible_slot_is_named_corrupt_and_the_next_message_read)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY };
	struct lay_arena_ref nowhere = { .id = 3999999, .gen = 1, .off = 0 };
	struct lay_arena_ref mad = { .id = UINT32_MAX, .gen = 7, .off = UINT64_MAX };
	struct lay_meta too_long = { 60000, 60000 };
	struct lay_batch no_batch = { 0, 0, 0 };
	struct lay_batch endless = { 0, 0, UINT32_MAX };
	char zero[16] = { 0 };
	struct shmq_msg msg;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	for (int k = 0; k < 2; k++) {
		const char *topic = k ? "lossy" : "block";
		struct raw raw;
		shmq_sub *sub;
		uint64_t corrupt = 0;
		int rc;

		create(bus, topic, .depth = DEPTH, .mode = SHMQ_SHARED, .policy = policies[k]);
		sub = open_sub(bus, topic);
		raw_open(&raw, bus, topic);
		publish_wrong(&raw, 113, 0, zero, sizeof(zero));
		publish_wrong(&raw, UINT32_MAX, 0, zero, sizeof(zero));
		publish_wrong(&raw, 100, SHMQ_MSG_ARENA, &nowhere, sizeof(nowhere));
		publish_wrong(&raw, 100, SHMQ_MSG_ARENA, &mad, sizeof(mad));
		publish_wrong(&raw, 100, SHMQ_MSG_META, &too_long, sizeof(too_long));
		publish_wrong(&raw, 2, SHMQ_MSG_META, &too_long, sizeof(too_long));
		publish_wrong(&raw, 100, SHMQ_MSG_BATCH, &no_batch, sizeof(no_batch));
		publish_wrong(&raw, 10, SHMQ_MSG_BATCH, &endless, sizeof(endless));
		publish_wrong(&raw, 5, 0, "fine!", 5);
		/* A batch of a false shape may be taken or refused, never waited for. */
		while ((rc = shmq_receive(sub, &msg, SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
			corrupt += rc == SHMQ_ECORRUPT;
			if (rc == SHMQ_ECORRUPT || rc == SHMQ_EOVERRUN)
				continue;
			CHECK_OK(rc);
			if (msg.len == 5)
				break;
		}
		CHECK_OK(rc);
		CHECK_MEM(msg.data, "fine!", 5);
		CHECK_GE(corrupt, 6);
		CHECK_LE(corrupt, 8);
		raw_close(&raw);
		shmq_sub_close(sub);
	}
	shmq_bus_close(bus);
	check_up();
	test_bus_stop();
}

TEST(a_mad_cursor_can_only_look_slow)
{
	static const uint64_t mad[] = { UINT64_MAX, UINT64_MAX / 2,        1,
					0,          UINT64_MAX / 2 + 3000, 5000 };
	shmq_bus *bus, *victim;
	shmq_sub *sub, *sane;
	struct shmq_msg msg;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	victim = test_bus_open();
	create(bus, "t", .depth = DEPTH, .block_timeout_ns = MILLISECOND);
	sub = open_sub(bus, "t");
	sane = open_sub(victim, "t");
	pub = open_pub(victim, "t");
	for (size_t i = 0; i < sizeof(mad) / sizeof(*mad); i++) {
		struct lay_entry *entry = ((struct shmq__handle *)sub)->entry;

		for (int n = 0; n < DEPTH / 2; n++) {
			int rc;

			atomic_store(&entry->pos, mad[i]);
			rc = shmq_publish(pub, &n, sizeof(n));
			if (rc)
				CHECK_ERROR(rc, SHMQ_ETIMEOUT);
			rc = shmq_receive(sane, &msg, SHMQ_NOWAIT);
			if (rc)
				CHECK_ERROR(rc, SHMQ_EEMPTY);
		}
		CHECK_LE(sub_stats(sane).lost, 0);
		topic_info(victim, "t");
		peers_of(victim, "t", SHMQ_ROLE_SUBSCRIBER);
	}
	shmq_sub_close(sub);
	/* It is gone, and with it whatever it said. */
	for (int n = 0; n < 3 * DEPTH; n++) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sane, &msg, SHMQ_NOWAIT));
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	shmq_bus_close(bus);
	shmq_bus_close(victim);
	check_up();
	test_bus_stop();
}

/* ---- what a client may not touch ---------------------------------------------------- */

static int try_to_write(void *at)
{
	signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
	*(volatile char *)at = 1;
	return 0;
}

TEST(a_subscriber_cannot_write_where_publishers_do)
{
	struct shmq__topic *topic;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	char line[512];
	int maps = 0;
	FILE *file;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .max_message_bytes = 5000);
	pub = open_pub(bus, "t");
	sub = open_sub(bus, "t");
	CHECK_OK(shmq_publish(pub, line, sizeof(line)));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	/* Maps are gone in a child, so whoever writes there dies either way;
	 * what the kernel says of this process is what counts. */
	CHECK_EQ(test_join(test_spawn(try_to_write, (void *)(uintptr_t)msg.data)), 128 + SIGSEGV);
	topic = ((struct shmq__handle *)sub)->topic;
	file = fopen("/proc/self/maps", "re");
	CHECK(file != NULL);
	while (fgets(line, sizeof(line), file)) {
		uintptr_t from, to, ring = (uintptr_t)topic->ring[0].mem;
		char mode[8];

		if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3)
			continue;
		if ((ring >= from && ring < to) ||
		    ((uintptr_t)msg.data >= from && (uintptr_t)msg.data < to)) {
			CHECK_EQ(mode[1], '-');
			maps++;
		}
	}
	fclose(file);
	CHECK_EQ(maps, 2); /* ring and arena */
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(segments_cannot_be_resized_nor_the_registry_reopened_for_writing)
{
	char path[64], target[256];
	int sealed = 0, readonly = 0;
	struct dirent *entry;
	shmq_bus *bus;
	DIR *dir;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	open_sub(bus, "t");
	dir = opendir("/proc/self/fd");
	CHECK(dir != NULL);
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name), flags;
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%.20s", entry->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = 0;
		if (!strstr(target, "memfd:"))
			continue;
		flags = fcntl(fd, F_GETFL) & O_ACCMODE;
		CHECK_EQ(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
			 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
		CHECK_LT(ftruncate(fd, 4096), 0);
		sealed++;
		readonly += flags == O_RDONLY;
	}
	closedir(dir);
	CHECK_GE(sealed, 3);
	CHECK_GE(readonly, 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- peers that do not keep to it ------------------------------------------------------ */

struct victims {
	_Atomic int stage;
	_Atomic uint64_t sent, received, refused;
};

/* Whatever it is told, it is told; and it is there to be told. */
static int publish_until(struct victims *v, unsigned flags)
{
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t", .flags = flags);
	char bytes[2000] = { 0 };

	for (unsigned n = 0; atomic_load(&v->stage) < 2; n++) {
		int rc = shmq_publish(pub, bytes, n % 64 ? 8 : sizeof(bytes));

		if (rc)
			CHECK(rc == SHMQ_EFULL || rc == SHMQ_EENDED || rc == SHMQ_EMOVED ||
			      rc == SHMQ_ECORRUPT || rc == SHMQ_ESTALLED);
		atomic_fetch_add(rc ? &v->refused : &v->sent, 1);
	}
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	return 0;
}

static int publish_for_ever(void *v)
{
	return publish_until(v, SHMQ_DONTWAIT);
}

static int publish_on(void *v)
{
	return publish_until(v, 0);
}

static int receive_for_ever(void *arg)
{
	static const int expected[] = {
		0,           SHMQ_EEMPTY, SHMQ_EOVERRUN, SHMQ_ECORRUPT, SHMQ_ESTALLED,
		SHMQ_EENDED, SHMQ_EMOVED, SHMQ_EEVICTED
	};
	struct victims *v = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, "t");
	struct shmq_msg msg;
	char bytes[2000];

	while (atomic_load(&v->stage) < 2) {
		int rc = shmq_receive_copy(sub, bytes, sizeof(bytes), &msg, SHMQ_NOWAIT), i = 0;

		while (rc != expected[i])
			CHECK_LT(++i, (int)COUNT(expected));
		if (!rc)
			CHECK_LE(msg.len, sizeof(bytes));
		atomic_fetch_add(&v->received, 1);
	}
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	return 0;
}

/* Wait until both have done so much more. */
static void let_go_on(struct victims *v, uint64_t count)
{
	uint64_t published = atomic_load(&v->sent) + atomic_load(&v->refused);
	uint64_t received = atomic_load(&v->received);

	while (atomic_load(&v->sent) + atomic_load(&v->refused) < published + count ||
	       atomic_load(&v->received) < received + count)
		test_sleep_ms(1);
}

/* The peers of one who has ring, arenas, bells and client pages open for writing:
 * with(handle) is what it does to them. */
static void suffer_on(enum shmq_policy policy, enum shmq_log log,
		      void (*with)(struct shmq__handle *h))
{
	struct victims *v = shared_memory(sizeof(*v));
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t a, b;

	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .mode = SHMQ_SHARED, .policy = policy,
	       .stall = SHMQ_STALL_REPORT, .max_message_bytes = 2000, .log = log);
	pub = open_pub(bus, "t");
	a = test_spawn(publish_for_ever, v);
	b = test_spawn(receive_for_ever, v);
	let_go_on(v, 1000);
	with((struct shmq__handle *)pub);
	let_go_on(v, 1000);
	atomic_store(&v->stage, 2);
	CHECK_EQ(test_join(a), 0);
	CHECK_EQ(test_join(b), 0);
	NOTE("%llu sent, %llu refused, %llu looks", (unsigned long long)v->sent,
	     (unsigned long long)v->refused, (unsigned long long)v->received);
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(bus, "t", SHMQ_FORCE));
	shmq_bus_close(bus);
	check_up();
}

static void suffer(enum shmq_policy policy, void (*with)(struct shmq__handle *h))
{
	suffer_on(policy, SHMQ_LOG_NONE, with);
}

static void punch(struct shmq__handle *h)
{
	for (int i = 0; i < 20; i++)
		punch_all();
}

TEST(holes_punched_by_a_peer_kill_nobody)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_LOSSY,
						     SHMQ_EVICT };

	test_bus_start();
	for (size_t i = 0; i < COUNT(policies); i++)
		suffer(policies[i], punch);
	test_bus_stop();
}

/* Bytes, and words that are almost right, of all that a publisher can write: slots
 * most of all, but header, bells and everybody's client pages, too. */
static void flip(struct shmq__handle *h)
{
	enum { PAGES_BYTES = 64 << 10 };
	const struct shmq__ring *ring = &h->topic->ring[0];
	const struct lay_geometry *geo = &ring->geo;
	int fd = shmq__slabs_fd(h->bus->slabs, LAY_REF_SLAB(h->entry_ref), SHMQ__SLAB_WRITE);
	char *header = (char *)ring->mem, *bells = (char *)ring->bells, *pages;
	uint64_t n;

	pages = mmap(NULL, PAGES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(pages != MAP_FAILED);
	for (n = 0; n < 3000000; n++) {
		uint64_t r = mix(n), seq = r % 4096;
		shmq_au64 *ctrl = &lay_slot_at(ring->mem, geo, seq)->ctrl;
		char byte = (char)(r >> 8);

		r >>= 32;
		switch (r % 8) {
		case 0: /* not what says that it is one, nor that it has ended */
			header[48 + (r >> 8) % (LAY_RING_HEADER_BYTES - 48)] ^= byte;
			break;
		case 1:
			bells[(r >> 8) % sizeof(struct lay_bells)] ^= byte;
			break;
		case 2:
			pages[(r >> 8) % PAGES_BYTES] ^= byte;
			break;
		case 3:
			store_relaxed(ctrl, load_relaxed(ctrl) ^ 1u << (r >> 8) % 20);
			break;
		case 4:
			store_relaxed(ctrl, LAY_CTRL(lay_lap(geo, seq) + (r >> 8) % 3,
						     (r >> 10) & LAY_CLIENT_MAX, (r >> 24) % 8));
			break;
		default:
			header[LAY_RING_HEADER_BYTES + (r >> 8) % (geo->depth * geo->slot_bytes)] ^=
				byte;
		}
	}
	munmap(pages, PAGES_BYTES);
}

TEST(a_publisher_that_flips_bytes_meanwhile_kills_nobody)
{
	test_bus_start();
	suffer(SHMQ_BLOCK, flip);
	suffer(SHMQ_LOSSY, flip);
	test_bus_stop();
}

/* Where the ring ends, whether and where it goes on, and what is of a batch. */
static void lie_about_the_end(struct shmq__handle *h)
{
	const struct shmq__ring *ring = &h->topic->ring[0];
	uint64_t n;

	for (n = 0; n < 1000000; n++) {
		uint64_t r = mix(n);
		struct lay_slot *slot = lay_slot_at(ring->mem, &ring->geo, r >> 32);

		slot->flags = (uint16_t)((r >> 8) & (SHMQ_MSG_BATCH | SHMQ_MSG_ARENA));
		memcpy((char *)slot + ring->geo.payload_off, &(uint64_t){ (r >> 16) % 4 }, 8);
		if (r % 64 == 0)
			store_relaxed(&ring->mem->moved_seq, (r >> 10) % 4096);
		if (r % 64 == 1)
			store_relaxed(&ring->mem->state,
				      (uint32_t)(r >> 10) % (LAY_RING_MOVED + 2));
	}
	store_relaxed(&ring->mem->state, LAY_RING_LIVE);
}

/* What is written to one log may be noise: those of other topics are whole, by the
 * same process. */
TEST_WITHIN(a_publisher_that_flips_bytes_meanwhile_harms_no_other_log, 120)
{
	static const struct {
		enum shmq_policy policy;
		enum shmq_log log;
	} mad[] = { { SHMQ_BLOCK, SHMQ_LOG_BLOCK },
		    { SHMQ_BLOCK, SHMQ_LOG_GAP },
		    { SHMQ_LOSSY, SHMQ_LOG_GAP } };
	uint64_t sent = 0, n;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	pid_t tailer;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "other", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	pub = open_pub(bus, "other");
	CHECK_OK(shmq_publish(pub, &sent, sizeof(sent)));
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, sent++, SHMQ_WRITTEN, PATIENCE));
	tailer = test_bus_pid("tailer");
	CHECK(tailer);
	for (size_t i = 0; i < COUNT(mad); i++) {
		suffer_on(mad[i].policy, mad[i].log, flip);
		suffer_on(mad[i].policy, mad[i].log, lie_about_the_end);
		for (n = 0; n < 2 * DEPTH; n++, sent++)
			CHECK_OK(shmq_publish(pub, &sent, sizeof(sent)));
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, sent - 1, SHMQ_WRITTEN, PATIENCE));
	}
	CHECK_EQ(test_bus_pid("tailer"), tailer);
	sub = open_sub(bus, "other", .from = SHMQ_FROM_OLDEST);
	for (n = 0; n < sent; n++) {
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

static unsigned count_logged(const char *text)
{
	char path[PATH_MAX], line[1024];
	unsigned n = 0;
	FILE *in;

	CHECK_LT(snprintf(path, sizeof(path), "%s.log", test_bus_dir()), PATH_MAX);
	in = fopen(path, "re");
	CHECK(in);
	while (fgets(line, sizeof(line), in))
		n += strstr(line, text) != NULL;
	fclose(in);
	return n;
}

/* A log is read from the disk when it is gone on with, which others wait for. */
TEST(a_ring_that_says_it_has_ended_and_has_not_has_its_log_opened_once)
{
	static const enum lay_ring_state lies[] = { LAY_RING_ENDED, LAY_RING_MOVED };
	uint64_t n = 0;
	shmq_bus *bus;
	shmq_pub *other;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "other", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	other = open_pub(bus, "other");
	for (size_t i = 0; i < COUNT(lies); i++) {
		int64_t until;
		shmq_pub *pub;

		create(bus, "t", .depth = DEPTH, .partitions = 2, .log = SHMQ_LOG_BLOCK);
		pub = open_pub(bus, "t");
		CHECK_OK(shmq_publish(pub, "sent", 4));
		for (uint32_t p = 0; p < 2; p++)
			store_release(&((struct shmq__handle *)pub)->topic->ring[p].mem->state,
				      lies[i]);
		for (until = test_now_ns() + SECOND; test_now_ns() < until; n++) {
			CHECK_OK(shmq_publish(other, &n, sizeof(n)));
			CHECK_OK(shmq_pub_wait_confirm(other, 0, n, SHMQ_WRITTEN, PATIENCE));
		}
		CHECK_EQ(count_logged("keeping the log of \"t\""), i + 1);
		shmq_pub_close(pub);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
	}
	shmq_pub_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* The log is of the rings that the topic has, whatever is written into those that it
 * had. */
TEST(rings_that_were_left_and_say_they_live_keep_no_log_from_the_fresh_ones)
{
	struct shmq_msg msg = { .data = "sent", .len = 4 };
	struct lay_ring *left;
	shmq_pub *old, *pub;
	shmq_bus *bus;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	old = open_pub(bus, "t");
	CHECK_OK(shmq_publish_msg(old, &msg));
	CHECK_OK(shmq_pub_wait_confirm(old, 0, msg.seq, SHMQ_WRITTEN, PATIENCE));
	CHECK_EQ(test_bus_signal("tailer", SIGSTOP), 1);
	CHECK_OK(shmq_topic_move(bus, "t"));
	left = ((struct shmq__handle *)old)->topic->ring[0].mem;
	store_release(&left->state, LAY_RING_LIVE);
	pub = open_pub(bus, "t");
	CHECK_OK(shmq_publish_msg(pub, &msg));
	CHECK_EQ(test_bus_signal("tailer", SIGCONT), 1);
	CHECK_OK(shmq_pub_wait_confirm(pub, 0, msg.seq, SHMQ_WRITTEN, PATIENCE));
	CHECK_EQ(count_logged("do not end"), 1);
	shmq_pub_close(old);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* What is said of the end of some rings is no reason to look at them all the time. */
TEST(a_ring_that_says_it_moves_and_does_not_keeps_no_processor_busy)
{
	static const struct {
		enum lay_ring_state first, second;
	} lies[] = { { LAY_RING_MOVING, LAY_RING_MOVING }, { LAY_RING_ENDED, LAY_RING_LIVE } };

	for (size_t i = 0; i < COUNT(lies); i++) {
		struct shmq_msg msg = { .data = "sent", .len = 4 };
		struct shmq__topic *t;
		int64_t ticks, until;
		shmq_bus *bus;
		shmq_pub *pub;
		pid_t tailer;

		test_bus_start();
		bus = test_bus_open();
		create(bus, "t", .depth = DEPTH, .partitions = 2, .log = SHMQ_LOG_BLOCK);
		pub = open_pub(bus, "t");
		CHECK_OK(shmq_publish_msg(pub, &msg));
		CHECK_OK(shmq_pub_wait_confirm(pub, (uint32_t)msg.partition, msg.seq, SHMQ_WRITTEN,
					       PATIENCE));
		t = ((struct shmq__handle *)pub)->topic;
		store_release(&t->ring[0].mem->state, lies[i].first);
		store_release(&t->ring[1].mem->state, lies[i].second);
		for (msg.partition = 0; msg.partition < 2; msg.partition++)
			shmq_publish_msg(pub, &msg);
		tailer = test_bus_pid("tailer");
		ticks = shmq__proc_cpu_ticks(tailer);
		for (until = test_now_ns() + SECOND; test_now_ns() < until;)
			test_sleep_ms(1);
		CHECK_LT(shmq__proc_cpu_ticks(tailer) - ticks, sysconf(_SC_CLK_TCK) / 3);
		shmq_pub_close(pub);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
		shmq_bus_close(bus);
		test_bus_stop();
	}
}

/* ---- one who makes the tailer look at all slots ------------------------------ */

struct pursuit {
	_Atomic int is_over;
	_Atomic uint64_t losses;
};

static struct lay_entry *entry_of_tailer(const struct shmq__topic *t)
{
	struct shmq__roster_iter it = { 0 };
	struct lay_member *m;

	while ((m = shmq__topic_next_member(t, &it)))
		if (load_relaxed(&m->state) != LAY_MEMBER_PUBLISHER)
			return shmq__topic_entry(t, m, 0);
	return NULL;
}

/* Wherever it stands it has been lapped, and the hint where to go on is none. */
static int pursue_tailer(void *arg)
{
	struct pursuit *p = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "t");
	const struct shmq__topic *t = ((struct shmq__handle *)pub)->topic;
	const struct shmq__ring *ring = &t->ring[0];
	const struct lay_geometry *geo = &ring->geo;
	struct lay_entry *e;
	uint64_t was = 0;

	while (!(e = entry_of_tailer(t)))
		test_sleep_ms(1);
	while (!atomic_load(&p->is_over)) {
		uint64_t seq = load_relaxed(&e->pos), n;

		for (n = seq; n != seq + 3; n++)
			store_relaxed(&lay_slot_at(ring->mem, geo, n)->ctrl,
				      LAY_CTRL(lay_lap(geo, n) + 1, 1, LAY_COMMITTED));
		store_relaxed(&ring->mem->tail_hint, mix(seq));
		atomic_fetch_add(&p->losses, seq != was);
		was = seq;
	}
	return 0;
}

TEST_WITHIN(a_publisher_that_has_all_slots_looked_at_leaves_other_logs_their_time, 120)
{
	enum { SLOTS = 1 << 19, CONFIRMS = 100 };
	struct pursuit *p = shared_memory(sizeof(*p));
	uint64_t n;
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t mad;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "other", .depth = DEPTH, .log = SHMQ_LOG_BLOCK);
	create(bus, "t", .depth = SLOTS, .mode = SHMQ_SHARED, .policy = SHMQ_LOSSY,
	       .log = SHMQ_LOG_GAP);
	pub = open_pub(bus, "other");
	mad = test_spawn(pursue_tailer, p);
	while (!atomic_load(&p->losses))
		test_sleep_ms(1);
	atomic_store(&p->losses, 0);
	for (n = 0; n < CONFIRMS; n++) {
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_pub_wait_confirm(pub, 0, n, SHMQ_WRITTEN, PATIENCE));
	}
	NOTE("%llu times meanwhile", (unsigned long long)atomic_load(&p->losses));
	CHECK_LT(p->losses, CONFIRMS / 2);
	atomic_store(&p->is_over, 1);
	CHECK_EQ(test_join(mad), 0);
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Until so many were sent meanwhile. */
static void go_mad(struct shmq__handle *h, const struct victims *v)
{
	struct lay_entry *e = h->entry;

	for (uint64_t n = 0; atomic_load(&v->sent) + atomic_load(&v->refused) < 100000; n++) {
		store_relaxed(&e->pos, mix(n));
		if (n % 64 == 0)
			store_relaxed(&e->gen, load_relaxed(&e->gen) ^ 1);
		if (n % 16 == 0)
			add_relaxed(&h->topic->ring[0].bells->data.armed, mix(n));
	}
}

/* Publishers of topics that wait for nobody for ever are told nothing at all. */
TEST(a_subscriber_whose_cursor_is_noise_keeps_no_publisher_from_publishing)
{
	static const enum shmq_policy policies[] = { SHMQ_LOSSY, SHMQ_EVICT };

	test_bus_start();
	for (size_t i = 0; i < COUNT(policies); i++) {
		struct victims *v = shared_memory(sizeof(*v));
		shmq_bus *bus = test_bus_open();
		shmq_sub *sub;
		pid_t pid;

		create(bus, "t", .depth = DEPTH, .policy = policies[i], .max_message_bytes = 2000,
		       .evict_ns = MILLISECOND);
		sub = open_sub(bus, "t");
		pid = test_spawn(publish_on, v);
		go_mad((struct shmq__handle *)sub, v);
		atomic_store(&v->stage, 2);
		CHECK_EQ(test_join(pid), 0);
		NOTE("%llu sent", (unsigned long long)v->sent);
		CHECK_EQ(v->refused, 0);
		shmq_sub_close(sub);
		CHECK_OK(shmq_topic_remove(bus, "t", 0));
		shmq_bus_close(bus);
	}
	check_up();
	test_bus_stop();
}

/* Such are not counted where it is asked who is there. */
TEST(a_client_that_takes_a_name_of_the_bus_is_a_client)
{
	struct shmq_topic_info info;
	shmq_bus *bus, *posing;
	shmq_sub *sub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	CHECK_OK(shmq_bus_open(test_bus_name(), BUS_OPTIONS(.client_name = "$posing"), &posing));
	sub = open_sub(posing, "t");
	CHECK_OK(shmq_topic_get_info(bus, "t", &info));
	CHECK_EQ(info.subscribers, 1);
	CHECK_ERROR(shmq_topic_remove(bus, "t", 0), SHMQ_EINUSE);
	CHECK_ERROR(shmq_bus_stop(bus, 0), SHMQ_EINUSE);
	shmq_sub_close(sub);
	shmq_bus_close(posing);
	shmq_bus_close(bus);
	test_bus_stop();
}
