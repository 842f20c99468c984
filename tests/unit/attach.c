/* SPDX-License-Identifier: MIT
 *
 * Coming to a supervisor that greets with lies or not at all, and back to one
 * that was away, has ended, or lost what we had.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"
#include "shmem.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", test_tmpdir(), name) >=
	    (int)sizeof(address.sun_path))
		FAIL("the socket's path is too long");
	return address;
}

/* ---- greetings ------------------------------------------------------- */

static void empty(struct standin_answer *a, void *arg)
{
	a->bytes = 0;
}

static void refuse(struct standin_answer *a, void *arg)
{
	a->reply.error = SHMQ_ELIMIT;
	memset(a->reply.why, 'x', sizeof(a->reply.why));
}

static void no_event_socket(struct standin_answer *a, void *arg)
{
	keep_fds(a, 0);
	a->reply.fd_count = 0;
}

static void no_segments(struct standin_answer *a, void *arg)
{
	keep_fds(a, 1);
	a->reply.fd_count = 0;
}

static void one_announced_too_many(struct standin_answer *a, void *arg)
{
	a->reply.fd_count++;
}

static void announced_beyond_all_bounds(struct standin_answer *a, void *arg)
{
	a->reply.fd_count = UINT32_MAX;
}

static void registry_not_sealed(struct standin_answer *a, void *arg)
{
	put_fd(a, 1, memfd_create("loose", MFD_CLOEXEC));
	CHECK_EQ(ftruncate(a->fds[1], (off_t)LAY_REGISTRY_BYTES), 0);
}

static void registry_is_a_directory(struct standin_answer *a, void *arg)
{
	put_fd(a, 1, open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static void registry_of_another_size(struct standin_answer *a, void *arg)
{
	put_fd(a, 1, shmq__shmem_create("small", LAY_PAGE, 12));
}

static void registry_of_zeros(struct standin_answer *a, void *arg)
{
	put_fd(a, 1, shmq__shmem_create("blank", LAY_REGISTRY_BYTES, 12));
}

static void registry_of_another_layout(struct standin_answer *a, void *arg)
{
	struct lay_registry head = { .magic = LAY_MAGIC_REGISTRY, .version = LAY_VERSION + 1 };

	registry_of_zeros(a, arg);
	CHECK_EQ(pwrite(a->fds[1], &head, sizeof(head), 0), sizeof(head));
}

static void registry_after_the_others(struct standin_answer *a, void *arg)
{
	a->reply.fd[0].writable = 1; /* what is writable is taken last */
	a->reply.fd[1].writable = 0;
}

static void a_slab_that_the_registry_does_not_know(struct standin_answer *a, void *arg)
{
	a->reply.fd[2].slab = UINT16_MAX;
}

static void bells_that_are_entries(struct standin_answer *a, void *arg)
{
	a->reply.fd[1].slab = FAKE_ENTRIES;
	a->reply.fd[2].slab = FAKE_BELLS;
}

static void client_zero(struct standin_answer *a, void *arg)
{
	a->reply.hello.client = 0;
}

static void client_beyond_what_a_slot_can_name(struct standin_answer *a, void *arg)
{
	a->reply.hello.client = LAY_CLIENT_MAX + 1;
}

static const struct lie {
	standin_change *change;
	int error;
	const char *says;
} lies[] = {
	{ wrong_magic, SHMQ_EVERSION, "greeting" },
	{ wrong_version, SHMQ_EVERSION, "greeting" },
	{ wrong_op, SHMQ_EVERSION, "greeting" },
	{ wrong_token, SHMQ_EVERSION, "greeting" },
	{ success_above_zero, SHMQ_EVERSION, "greeting" },
	{ too_short, SHMQ_EVERSION, "greeting" },
	{ too_long, SHMQ_EVERSION, "greeting" },
	{ refuse, SHMQ_ELIMIT, "xxxxxxxx" },
	{ hang_up, SHMQ_ENODAEMON, "went away" },
	{ empty, SHMQ_ENODAEMON, "went away" },
	{ no_event_socket, SHMQ_EPROTO, "no event socket" },
	{ no_segments, SHMQ_EPROTO, "taking over" },
	{ one_fewer, SHMQ_EPROTO, "taking over" },
	{ one_announced_too_many, SHMQ_EPROTO, "taking over" },
	{ announced_beyond_all_bounds, SHMQ_EPROTO, "taking over" },
	{ registry_not_sealed, SHMQ_ECORRUPT, "taking over" },
	{ registry_is_a_directory, SHMQ_ECORRUPT, "taking over" },
	{ registry_of_another_size, SHMQ_ECORRUPT, "taking over" },
	{ registry_of_zeros, SHMQ_ECORRUPT, "taking over" },
	{ registry_of_another_layout, SHMQ_EVERSION, "taking over" },
	{ registry_after_the_others, SHMQ_ECORRUPT, "taking over" },
	{ a_slab_that_the_registry_does_not_know, SHMQ_ECORRUPT, "taking over" },
	{ bells_that_are_entries, SHMQ_ECORRUPT, "taking over" },
	{ client_zero, SHMQ_EPROTO, "client" },
	{ client_beyond_what_a_slot_can_name, SHMQ_EPROTO, "client" },
};

TEST(a_supervisor_that_greets_with_a_lie_is_refused_by_name_and_nothing_of_it_is_kept)
{
	struct standin *s = standin_new(NULL);
	int fds = count_fds(s);

	for (size_t i = 0; i < COUNT(lies); i++) {
		/* Who hangs up may be back, and is given the time. */
		struct shmq_bus_options o = { .timeout_ns = lies[i].error == SHMQ_ENODAEMON ?
								    300 * MILLISECOND :
								    0 };
		shmq_bus *bus;

		standin_change_answers(s, PROTO_HELLO, lies[i].change, NULL);
		CHECK_ERROR(standin_open(s, &o, &bus), lies[i].error);
		CHECK(!bus);
		check_says(lies[i].says);
		CHECK_LT(strlen(shmq_bus_error(NULL)), SHMQ_ERROR_TEXT_MAX);
		standin_cut(s);
		CHECK_EQ(count_fds(s), fds);
		standin_change_answers(s, PROTO_HELLO, NULL, NULL);
		CHECK_OK(standin_open(s, NULL, &bus));
		CHECK_STR(shmq_bus_error(NULL), "");
		check_works(bus);
		shmq_bus_close(bus);
		standin_cut(s);
	}
	standin_free(s);
}

TEST(who_comes_while_a_worker_dies_before_its_answer_is_taken_in_by_the_next)
{
	struct standin *s = standin_new(NULL);
	unsigned deaths = 3;
	shmq_bus *bus;

	standin_change_answers(s, PROTO_HELLO, die_once, &deaths);
	CHECK_OK(standin_open(s, NULL, &bus));
	CHECK_EQ(deaths, 0);
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

static void die_or_say_nothing(struct standin_answer *a, void *arg)
{
	unsigned *deaths = arg;

	if (*deaths)
		die_once(a, deaths);
	else
		say_nothing(a, NULL);
}

/* It is up in the time of one, not between two. */
TEST(who_comes_while_workers_die_is_told_that_one_went_away_whenever_its_time_is_up)
{
	struct shmq_bus_options o = { .timeout_ns = 300 * MILLISECOND };
	struct standin *s = standin_new(NULL);
	unsigned deaths = 1;
	shmq_bus *bus;

	standin_change_answers(s, PROTO_HELLO, die_or_say_nothing, &deaths);
	CHECK_ERROR(standin_open(s, &o, &bus), SHMQ_ENODAEMON);
	check_says("went away");
	standin_free(s);
}

/* Whoever was taken in, but cannot come, does not stand in the registry. */
TEST(a_client_that_cannot_come_says_goodbye)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus;

	standin_change_answers(s, PROTO_HELLO, registry_of_zeros, NULL);
	CHECK_ERROR(standin_open(s, NULL, &bus), SHMQ_ECORRUPT);
	standin_await(s, PROTO_GOODBYE, 1);
	standin_change_answers(s, PROTO_HELLO, say_nothing, NULL);
	CHECK_ERROR(standin_open(s, &(struct shmq_bus_options){ .timeout_ns = 20 * MILLISECOND },
				 &bus),
		    SHMQ_EDAEMON);
	check_says("greeting");
	standin_await(s, PROTO_GOODBYE, 2);
	standin_free(s);
}

TEST(a_supervisor_that_does_not_accept_is_given_up_in_time)
{
	struct sockaddr_un address = address_of("full.sock");
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), waiting[8], n = 0;
	shmq_bus *bus;

	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(fd, 0), 0);
	do { /* until the queue is full */
		CHECK_LT(n, COUNT(waiting));
		waiting[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		CHECK_GE(waiting[n], 0);
	} while (!connect(waiting[n++], (struct sockaddr *)&address, sizeof(address)));
	for (int64_t timeout = 1; timeout <= 10 * MILLISECOND; timeout += 9999999) {
		CHECK_ERROR(shmq_bus_open("full",
					  BUS_OPTIONS(.runtime_dir = test_tmpdir(),
						      .timeout_ns = timeout),
					  &bus),
			    SHMQ_EDAEMON);
		check_says("does not accept");
	}
	while (n)
		close(waiting[--n]);
	close(fd);
}

/* ---- away and back --------------------------------------------------- */

static void not_resumed(struct standin_answer *a, void *arg)
{
	a->reply.hello.resumed = 0;
}

static void another_bus(struct standin_answer *a, void *arg)
{
	a->reply.hello.bus_nonce++;
}

static void another_client(struct standin_answer *a, void *arg)
{
	a->reply.hello.client++;
}

static void another_generation(struct standin_answer *a, void *arg)
{
	a->reply.hello.gen++;
}

TEST(a_bus_that_comes_back_without_what_we_had_is_lost_by_name_and_memory_is_not)
{
	static standin_change *const losses[] = { not_resumed, another_bus, another_client,
						  another_generation };

	for (size_t i = 0; i < COUNT(losses); i++) {
		struct standin *s = standin_new(NULL);
		shmq_bus *bus = standin_bus(s);
		shmq_sub *sub = open_sub(bus, STANDIN_TOPIC), *other;
		shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
		struct shmq_msg msg;

		standin_change_answers(s, PROTO_HELLO, losses[i], NULL);
		standin_cut(s);
		await_event(bus, SHMQ_EVENT_DETACHED, 0);
		CHECK_ERROR(ask(bus), SHMQ_ELOST);
		check_says("was started anew");
		CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, NULL, &other), SHMQ_ELOST);
		check_says("was started anew");
		CHECK_EQ(shmq_bus_is_attached(bus), 0);
		CHECK_EQ(shmq_bus_reattach_count(bus), 0);
		CHECK_OK(shmq_publish(pub, "kept", 4));
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_MEM(msg.data, "kept", 4);
		shmq_pub_close(pub);
		shmq_sub_close(sub);
		CHECK_EQ(standin_count(s, PROTO_CLOSE), 0); /* nobody would know what of */
		shmq_bus_close(bus);
		standin_free(s);
	}
}

TEST(a_bus_that_has_ended_is_not_waited_for)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	store_relaxed(&standin_fake(s)->registry->control_pid, 0);
	standin_leave(s);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	check_says("has ended");
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(who_is_away_is_waited_for_as_long_as_asked)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	standin_leave(s);
	bus->timeout_ns = 3 * MILLISECOND;
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	check_says("nobody listens");
	CHECK_EQ(shmq_bus_reattach_count(bus), 0);
	shmq_bus_close(bus);
	standin_free(s);
}

/* Descriptors of every slab that is held, read-only where there is one. */
TEST(what_is_held_is_offered_to_a_start_that_has_nothing_but_not_all_the_time)
{
	struct standin *s = standin_new(NULL);
	struct sockaddr_un address = address_of("fake.back");
	int back = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), sock;
	shmq_bus *bus = standin_bus(s);
	int64_t began = test_now_ns();
	unsigned offers = 0;

	shmq_pub_close(open_pub(bus, STANDIN_TOPIC));
	CHECK_EQ(bind(back, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(back, 64), 0);
	standin_leave(s);
	bus->timeout_ns = 20 * MILLISECOND;
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	while ((sock = accept4(back, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct proto_request req;
		int fds[WIRE_FDS_MAX];
		unsigned n, i;

		CHECK_EQ(shmq__wire_recv(sock, &req, sizeof(req), fds, &n), 1);
		CHECK_EQ(req.op, PROTO_OFFER);
		CHECK_EQ(req.magic, PROTO_MAGIC);
		CHECK_EQ(req.offer.bus_nonce, STANDIN_NONCE);
		CHECK_EQ(req.offer.fd_count, FAKE_SLABS);
		CHECK_EQ(n, FAKE_SLABS);
		for (i = 0; i < n; i++) {
			struct stat given, own;

			CHECK_EQ(req.offer.fd[i].slab, i);
			CHECK_EQ(req.offer.fd[i].writable,
				 i == FAKE_BELLS); /* nobody has it otherwise */
			CHECK_EQ(fstat(fds[i], &given), 0);
			CHECK_EQ(fstat(shmq__slabs_fd(standin_fake(s)->slabs, i, SHMQ__SLAB_WRITE),
				       &own),
				 0);
			CHECK_EQ(given.st_ino, own.st_ino);
			close(fds[i]);
		}
		close(sock);
		offers++;
	}
	CHECK_GE(offers, 1);
	CHECK_LE(offers, 1 + (test_now_ns() - began) / (100 * MILLISECOND));
	close(back);
	shmq_bus_close(bus);
	standin_free(s);
}
