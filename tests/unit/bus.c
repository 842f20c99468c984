/* SPDX-License-Identifier: MIT
 *
 * The attachment to a bus against a supervisor that lies, stutters, falls
 * silent, goes away and comes back.
 */
#include "../../libshmq/bus.h"
#include "helpers.h"
#include "memory.h"
#include "shmem.h"
#include "standin.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BUS_OPTIONS(...) \
	(&(struct shmq_bus_options){ .size = sizeof(struct shmq_bus_options), ##__VA_ARGS__ })

static void check_says(const char *text)
{
	if (!strstr(shmq_bus_error(NULL), text))
		FAIL("\"%s\" does not say \"%s\"", shmq_bus_error(NULL), text);
}

/* Once the standin has closed what it sent. */
static int count_fds(struct standin *s)
{
	standin_count(s, PROTO_HELLO);
	return test_fd_count();
}

static void check_empty(struct standin *s)
{
	struct shmq__roster_iter it = { 0 };

	CHECK(!shmq__topic_next_member(standin_fake(s)->topic, &it));
	CHECK_EQ(load_relaxed(&standin_fake(s)->rec->publishers), 0);
	CHECK_EQ(load_relaxed(&standin_fake(s)->rec->subscribers), 0);
}

static void check_works(shmq_bus *bus)
{
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
	struct shmq_msg msg;

	CHECK_OK(shmq_publish(pub, "works", 5));
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "works", 5);
	shmq_pub_close(pub);
	shmq_sub_close(sub);
}

/* The file of that name under the test's own directory. */
static const char *path_of(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	return path;
}

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", test_tmpdir(), name) >=
	    (int)sizeof(address.sun_path))
		FAIL("the socket's path is too long");
	return address;
}

/* ---- options ------------------------------------------------------------- */

struct little {
	size_t size;
	int a, b;
};

TEST(options_are_copied_over_zeros_whatever_their_size)
{
	struct {
		struct little known;
		unsigned char tail[8];
	} given = { .known = { .size = sizeof(given), .a = 1, .b = 2 } };
	struct little out = { 9, 9, 9 };
	struct shmq__why why = { "" };

	CHECK_OK(shmq__options_copy(&out, NULL, sizeof(out), &why));
	CHECK_EQ(out.a | out.b | (int)out.size, 0);
	CHECK_OK(shmq__options_copy(&out, &given, sizeof(out), &why));
	CHECK_EQ(out.a, 1);
	CHECK_EQ(out.b, 2);
	given.known.size = offsetof(struct little, b); /* of an older library */
	CHECK_OK(shmq__options_copy(&out, &given, sizeof(out), &why));
	CHECK_EQ(out.a, 1);
	CHECK_EQ(out.b, 0);
	for (size_t size = 0; size < sizeof(size_t); size++) {
		given.known.size = size;
		CHECK_ERROR(shmq__options_copy(&out, &given, sizeof(out), &why), SHMQ_EOPTION);
		CHECK(strstr(why.text, "size is not set"));
	}
	for (size_t i = 0; i < sizeof(given.tail); i++) {
		memset(given.tail, 0, sizeof(given.tail));
		given.tail[i] = 0x80;
		given.known.size = offsetof(__typeof__(given), tail) + i;
		CHECK_OK(shmq__options_copy(&out, &given, sizeof(out), &why));
		given.known.size++;
		CHECK_ERROR(shmq__options_copy(&out, &given, sizeof(out), &why), SHMQ_EOPTION);
		CHECK(strstr(why.text, "newer libshmq"));
	}
}

TEST(options_of_a_bus_out_of_range_are_refused_before_anybody_is_asked)
{
	const struct shmq_bus_options bad[] = {
		{ .start = (enum shmq_start_mode)2 },
		{ .start = (enum shmq_start_mode) - 1 },
		{ .serve = (enum shmq_serve_mode)2 },
		{ .timeout_ns = -1 },
	};
	struct standin *s = standin_new(NULL);
	shmq_bus *bus;

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct shmq_bus_options o = bad[i];

		CHECK_ERROR(standin_open(s, &o, &bus), SHMQ_EOPTION);
		CHECK(!bus);
		check_says("bus options");
	}
	CHECK_EQ(standin_count(s, PROTO_HELLO), 0);
	standin_free(s);
}

TEST(a_bus_without_a_name_is_the_default_one)
{
	shmq_bus *bus;

	CHECK_ERROR(shmq_bus_open(NULL, BUS_OPTIONS(.runtime_dir = test_tmpdir()), &bus),
		    SHMQ_ENODAEMON);
	check_says("/default.sock");
}

TEST(a_client_greets_by_its_name_a_fresh_nonce_and_the_layout_it_knows)
{
	const char *names[] = { "feed", NULL, "", "a-name-that-is-longer-than-the-field-of-32" };
	struct standin *s = standin_new(NULL);
	uint64_t last = 0;
	char comm[32];
	FILE *file = fopen("/proc/self/comm", "re");

	CHECK(file && fgets(comm, sizeof(comm), file));
	comm[strcspn(comm, "\n")] = 0;
	fclose(file);
	for (size_t i = 0; i < COUNT(names); i++) {
		struct shmq_bus_options o = { .client_name = names[i] };
		struct proto_request req;
		shmq_bus *bus;

		CHECK_OK(standin_open(s, &o, &bus));
		req = standin_last(s, PROTO_HELLO);
		CHECK_EQ(req.hello.layout_version, LAY_VERSION);
		CHECK_EQ(req.hello.bus_nonce, 0);
		CHECK_NE(req.hello.nonce, 0);
		CHECK_NE(req.hello.nonce, last);
		last = req.hello.nonce;
		if (names[i] && *names[i])
			CHECK_EQ(strncmp(req.hello.name, names[i], 31), 0);
		else
			CHECK_STR(req.hello.name, comm);
		CHECK_EQ(req.hello.name[31], 0);
		CHECK_EQ(shmq_bus_client_id(bus), i + 1);
		CHECK_STR(shmq_bus_name(bus), STANDIN_BUS);
		shmq_bus_close(bus);
		CHECK_EQ(standin_count(s, PROTO_GOODBYE), i + 1);
	}
	shmq_bus_close(NULL);
	standin_free(s);
}

TEST(whichever_allocation_fails_an_open_says_so_and_leaves_nothing)
{
	struct standin *s = standin_new(NULL);
	unsigned k, fds = (unsigned)test_fd_count();
	int met = 1;

	for (k = 1; met; k++) {
		shmq_bus *bus;
		int rc;

		scarce_begin(k);
		rc = standin_open(s, NULL, &bus);
		met = scarce_end();
		if (!rc) {
			check_works(bus);
			shmq_bus_close(bus);
		} else {
			CHECK(!bus);
			CHECK(rc == -ENOMEM || rc == SHMQ_ELIMIT);
		}
		standin_cut(s);
		CHECK_EQ(count_fds(s), fds);
	}
	CHECK_GT(k, 5);
	standin_free(s);
}

/* ---- greetings -------------------------------------------------------------- */

static void wrong_magic(struct standin_answer *a, void *arg)
{
	a->reply.magic++;
}

static void wrong_version(struct standin_answer *a, void *arg)
{
	a->reply.version++;
}

static void wrong_op(struct standin_answer *a, void *arg)
{
	a->reply.op++;
}

static void wrong_token(struct standin_answer *a, void *arg)
{
	a->reply.token++;
}

static void success_above_zero(struct standin_answer *a, void *arg)
{
	a->reply.error = 1;
}

static void too_short(struct standin_answer *a, void *arg)
{
	a->bytes--;
}

static void too_long(struct standin_answer *a, void *arg)
{
	a->bytes++;
}

static void empty(struct standin_answer *a, void *arg)
{
	a->bytes = 0;
}

static void refuse(struct standin_answer *a, void *arg)
{
	a->reply.error = SHMQ_ELIMIT;
	memset(a->reply.why, 'x', sizeof(a->reply.why));
}

static void hang_up(struct standin_answer *a, void *arg)
{
	a->copies = 0;
	a->hangs_up = 1;
}

static void say_nothing(struct standin_answer *a, void *arg)
{
	a->copies = 0;
}

/* Keep the first n descriptors. */
static void keep_fds(struct standin_answer *a, unsigned n)
{
	while (a->fd_count > n)
		close(a->fds[--a->fd_count]);
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

static void one_fewer(struct standin_answer *a, void *arg)
{
	keep_fds(a, a->fd_count - 1);
}

static void one_announced_too_many(struct standin_answer *a, void *arg)
{
	a->reply.fd_count++;
}

static void announced_beyond_all_bounds(struct standin_answer *a, void *arg)
{
	a->reply.fd_count = UINT32_MAX;
}

static void put_fd(struct standin_answer *a, unsigned i, int fd)
{
	CHECK_GE(fd, 0);
	close(a->fds[i]);
	a->fds[i] = fd;
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
		shmq_bus *bus;

		standin_change_answers(s, PROTO_HELLO, lies[i].change, NULL);
		CHECK_ERROR(standin_open(s, NULL, &bus), lies[i].error);
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

/* ---- requests ----------------------------------------------------------------- */

static int ask(shmq_bus *bus)
{
	return shmq_topic_plan(bus, "t", NULL, &(struct shmq_plan){ 0 });
}

TEST(an_answer_out_of_step_breaks_the_connection_and_the_next_request_mends_it)
{
	static standin_change *const bad[] = {
		wrong_magic,        wrong_version, wrong_op, wrong_token,
		success_above_zero, too_short,     too_long,
	};
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	for (size_t i = 0; i < COUNT(bad); i++) {
		standin_change_answers(s, PROTO_PLAN, bad[i], NULL);
		CHECK_ERROR(ask(bus), SHMQ_EDAEMON);
		check_says("the supervisor of bus \"fake\"");
		standin_change_answers(s, PROTO_PLAN, NULL, NULL);
		CHECK_OK(ask(bus));
		CHECK_STR(shmq_bus_error(bus), "");
		CHECK_EQ(shmq_bus_is_attached(bus), 1);
		CHECK_EQ(shmq_bus_reattach_count(bus), i + 1);
		await_event(bus, SHMQ_EVENT_DETACHED, 0);
		await_event(bus, SHMQ_EVENT_REATTACHED, 0);
	}
	CHECK_EQ(shmq_bus_client_id(bus), 1);
	shmq_bus_close(bus);
	standin_free(s);
}

static void say_it_twice(struct standin_answer *a, void *arg)
{
	a->copies = 2;
}

TEST(an_answer_that_nobody_asked_for_is_not_taken_for_the_next)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	standin_change_answers(s, PROTO_PLAN, say_it_twice, NULL);
	CHECK_OK(ask(bus));
	standin_change_answers(s, PROTO_PLAN, NULL, NULL);
	CHECK_ERROR(ask(bus), SHMQ_EDAEMON);
	CHECK_OK(ask(bus));
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_supervisor_that_falls_silent_is_not_waited_for_longer_than_asked)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	standin_change_answers(s, PROTO_PLAN, say_nothing, NULL);
	bus->timeout_ns = MILLISECOND;
	CHECK_ERROR(ask(bus), SHMQ_EDAEMON);
	check_says("timed out");
	bus->timeout_ns = PATIENCE;
	standin_change_answers(s, PROTO_PLAN, NULL, NULL);
	CHECK_OK(ask(bus));
	CHECK_EQ(shmq_bus_reattach_count(bus), 1);
	shmq_bus_close(bus);
	standin_free(s);
}

/* The request is carried out, its answer lost. */
static void die_once(struct standin_answer *a, void *arg)
{
	unsigned *left = arg;

	if (*left) {
		--*left;
		hang_up(a, NULL);
	}
}

TEST(a_request_whose_answer_was_lost_is_asked_again_and_is_the_same)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	unsigned left = 3;
	shmq_sub *sub;

	standin_change_answers(s, PROTO_OPEN, die_once, &left);
	sub = open_sub(bus, STANDIN_TOPIC);
	CHECK_EQ(standin_count(s, PROTO_OPEN), 4);
	CHECK_EQ(shmq_bus_reattach_count(bus), 3);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).subscribers, 1);
	CHECK_EQ(peers_of(bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).count, 1);
	shmq_sub_close(sub);
	check_empty(s);
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

static void descriptor_too_many(struct standin_answer *a, void *arg)
{
	CHECK_EQ(a->fd_count, 0);
	a->fds[a->fd_count++] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

TEST(descriptors_that_an_answer_does_not_announce_are_closed)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	int fds = count_fds(s);

	standin_change_answers(s, PROTO_PLAN, descriptor_too_many, NULL);
	CHECK_ERROR(ask(bus), SHMQ_EPROTO);
	CHECK_EQ(count_fds(s), fds);
	CHECK_EQ(shmq_bus_is_attached(bus), 1);
	/* Answers to what the library says by itself, too. */
	standin_change_answers(s, PROTO_CLOSE, descriptor_too_many, NULL);
	check_works(bus);
	fds = count_fds(s);
	check_works(bus);
	CHECK_EQ(count_fds(s), fds);
	standin_change_answers(s, PROTO_GOODBYE, descriptor_too_many, NULL);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(stopping_takes_no_flag_it_does_not_know)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	CHECK_ERROR(shmq_bus_stop(bus, 2), SHMQ_EOPTION);
	check_says("unknown flag");
	CHECK_EQ(standin_count(s, PROTO_STOP), 0);
	CHECK_OK(shmq_bus_stop(bus, SHMQ_FORCE));
	CHECK_EQ(standin_last(s, PROTO_STOP).remove.flags, SHMQ_FORCE);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- handles that are granted wrongly ------------------------------------------- */

static void topic_of_another_index(struct standin_answer *a, void *arg)
{
	a->reply.open.topic_index = 7;
}

static void topic_of_another_id(struct standin_answer *a, void *arg)
{
	a->reply.open.topic_id++;
}

static void entry_is_none(struct standin_answer *a, void *arg)
{
	a->reply.open.entry = 0;
}

static void entry_out_of_bounds(struct standin_answer *a, void *arg)
{
	a->reply.open.entry = LAY_REF(FAKE_ENTRIES, LAY_ENTRY_SLAB_BYTES - 64);
}

static void entry_misaligned(struct standin_answer *a, void *arg)
{
	a->reply.open.entry += 4;
}

static void entry_in_the_registry(struct standin_answer *a, void *arg)
{
	a->reply.open.entry = LAY_REF(FAKE_REGISTRY, LAY_PAGE);
}

static void entry_of_another(struct standin_answer *a, void *arg)
{
	a->reply.open.entry_gen++;
}

static void entries_not_given(struct standin_answer *a, void *arg)
{
	a->reply.fd[3].writable = 0;
}

static void rings_not_given(struct standin_answer *a, void *arg)
{
	a->reply.fd[0].writable = 0;
}

TEST(a_handle_that_is_granted_wrongly_is_closed_again)
{
	static const struct {
		enum proto_op op;
		standin_change *change;
		int error;
		const char *says;
	} grants[] = {
		{ PROTO_HELLO, entries_not_given, -EACCES, "" },
		{ PROTO_OPEN, rings_not_given, -EACCES, "" },
		{ PROTO_OPEN, one_fewer, SHMQ_EPROTO, "" },
		{ PROTO_OPEN, topic_of_another_index, SHMQ_ENOTOPIC, "" },
		{ PROTO_OPEN, topic_of_another_id, SHMQ_ENOTOPIC, "" },
		{ PROTO_OPEN, entry_is_none, SHMQ_ECORRUPT, "" },
		{ PROTO_OPEN, entry_out_of_bounds, SHMQ_ECORRUPT, "" },
		{ PROTO_OPEN, entry_misaligned, SHMQ_ECORRUPT, "" },
		{ PROTO_OPEN, entry_in_the_registry, -EACCES, "" },
		{ PROTO_OPEN, entry_of_another, SHMQ_ECORRUPT, "is not ours" },
	};
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2 });

	for (size_t i = 0; i < COUNT(grants); i++) {
		unsigned closed = standin_count(s, PROTO_CLOSE);
		shmq_bus *bus;
		shmq_pub *pub;

		standin_change_answers(s, grants[i].op, grants[i].change, NULL);
		bus = standin_bus(s); /* what was given once stays */
		CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), grants[i].error);
		CHECK(!pub);
		check_says(grants[i].says);
		CHECK_EQ(standin_count(s, PROTO_CLOSE), closed + 1);
		check_empty(s);
		standin_change_answers(s, grants[i].op, NULL, NULL);
		standin_cut(s);
		CHECK_OK(ask(bus));
		check_works(bus);
		shmq_bus_close(bus);
	}
	standin_free(s);
}

TEST(a_ring_that_is_not_what_the_registry_says_is_not_attached)
{
	struct standin *s = standin_new(NULL);
	struct lay_ring *ring = standin_fake(s)->topic->ring[0].mem;
	shmq_bus *bus = standin_bus(s);
	shmq_pub *pub;
	shmq_sub *sub;

	ring->topic_id++;
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, NULL, &sub), SHMQ_ECORRUPT);
	ring->topic_id--;
	ring->version++;
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, NULL, &sub), SHMQ_EVERSION);
	ring->version--;
	check_empty(s);
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}

/* The daemon refuses it; a library that trusted it to would read beyond its
 * rings. */
TEST(a_partition_that_the_topic_has_not_is_not_opened_even_if_granted)
{
	struct standin *s = standin_new(&(struct fake_options){ .partitions = 2 });
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub;

	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, SUB_OPTIONS(.partition_plus1 = 3), &sub),
		    SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_sub_open(bus, STANDIN_TOPIC, SUB_OPTIONS(.partition_plus1 = INT32_MAX),
				  &sub),
		    SHMQ_ECORRUPT);
	check_empty(s);
	sub = open_sub(bus, STANDIN_TOPIC, .partition_plus1 = 2);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- away and back ------------------------------------------------------------------ */

TEST(the_thread_of_the_library_comes_back_by_itself)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);
	shmq_pub *pub = open_pub(bus, STANDIN_TOPIC);
	struct shmq_msg msg;

	for (int n = 1; n <= 3; n++) {
		standin_leave(s);
		await_event(bus, SHMQ_EVENT_DETACHED, 0);
		CHECK_EQ(shmq_bus_is_attached(bus), 0);
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_MEM(msg.data, &n, sizeof(n));
		standin_return(s);
		await_event(bus, SHMQ_EVENT_REATTACHED, 0);
		CHECK_EQ(shmq_bus_is_attached(bus), 1);
		CHECK_EQ(shmq_bus_reattach_count(bus), n);
		CHECK_EQ(standin_last(s, PROTO_HELLO).hello.bus_nonce, STANDIN_NONCE);
	}
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	check_empty(s);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(a_caller_that_serves_comes_back_when_it_serves)
{
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .serve = SHMQ_SERVE_CALLER };
	struct pollfd p = { .events = POLLIN };
	struct shmq_event event;
	shmq_bus *bus;

	CHECK_OK(standin_open(s, &o, &bus));
	p.fd = shmq_bus_fd(bus);
	CHECK_GE(p.fd, 0);
	while (poll(&p, 1, 0) > 0)
		CHECK_EQ(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
	CHECK_ERROR(shmq_bus_event(bus, &event, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_bus_event(bus, &event, MILLISECOND), SHMQ_ETIMEOUT);
	standin_cut(s);
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	CHECK_EQ(shmq_bus_serve(bus, PATIENCE), 1);
	CHECK_EQ(shmq_bus_reattach_count(bus), 1);
	while (poll(&p, 1, 0) > 0)
		CHECK_EQ(shmq_bus_serve(bus, SHMQ_NOWAIT), 0);
	/* The socket that took the place of the old one is listened to. */
	standin_cut(s);
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	CHECK_OK(shmq_bus_event(bus, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_DETACHED);
	shmq_bus_close(bus);
	bus = standin_bus(s);
	CHECK_EQ(shmq_bus_fd(bus), -1);
	CHECK_ERROR(shmq_bus_serve(bus, SHMQ_NOWAIT), SHMQ_EOPTION);
	shmq_bus_close(bus);
	standin_free(s);
}

enum { MANY = 40 };

TEST(handles_closed_while_nobody_was_there_are_told_of_later)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub[MANY];
	unsigned left = 2;

	for (int i = 0; i < MANY; i++)
		sub[i] = open_sub(bus, STANDIN_TOPIC);
	standin_leave(s);
	for (int i = 0; i < MANY; i++)
		shmq_sub_close(sub[i]);
	CHECK_EQ(topic_info(bus, STANDIN_TOPIC).subscribers, MANY);
	/* Who dies in the middle of hearing it is told again. */
	standin_change_answers(s, PROTO_CLOSE, die_once, &left);
	standin_return(s);
	standin_await(s, PROTO_CLOSE, MANY + 2);
	while (!shmq_bus_is_attached(bus))
		test_sleep_ms(1);
	check_works(bus);
	CHECK_EQ(standin_count(s, PROTO_CLOSE), MANY + 2 + 2);
	check_empty(s);
	shmq_bus_close(bus);
	standin_free(s);
}

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

/* ---- starting one ----------------------------------------------------------------------- */

/* A shmqd that notes its arguments, a line each time, and does as told. */
static void install_shmqd(const char *what_then)
{
	FILE *file = fopen(path_of("shmqd"), "we");

	CHECK(file);
	fprintf(file, "#!/bin/sh\necho \"$*\" >>%s\n%s\n", path_of("started"), what_then);
	fclose(file);
	CHECK_EQ(chmod(path_of("shmqd"), 0755), 0);
	CHECK_EQ(setenv("PATH", test_tmpdir(), 1), 0);
	CHECK_EQ(unsetenv("SHMQ_DAEMON"), 0);
}

/* How often it was started; checks with what. */
static int count_starts(void *arg)
{
	FILE *file = fopen(path_of("started"), "re");
	char line[PATH_MAX + 64], want[PATH_MAX + 64];
	int n = 0;

	if (!file)
		return 0;
	snprintf(want, sizeof(want), "--bus fake --runtime-dir %s --on-demand\n", test_tmpdir());
	while (fgets(line, sizeof(line), file)) {
		CHECK_STR(line, want);
		n++;
	}
	fclose(file);
	return n;
}

static int open_on_demand(const char *daemon, shmq_bus **bus)
{
	return shmq_bus_open(STANDIN_BUS,
			     BUS_OPTIONS(.runtime_dir = test_tmpdir(),
					 .start = SHMQ_START_ON_DEMAND, .daemon_path = daemon,
					 .timeout_ns = 20 * MILLISECOND),
			     bus);
}

TEST(the_supervisor_to_start_is_found_by_name_environment_or_path)
{
	shmq_bus *bus;

	install_shmqd("exit 3");
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("shmqd failed to start: see");
	CHECK_EQ(count_starts(NULL), 1);
	setenv("SHMQ_DAEMON", "", 1); /* as if it were not set */
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	CHECK_EQ(count_starts(NULL), 2);
	setenv("SHMQ_DAEMON", "/nonexistent/shmqd", 1);
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("starting /nonexistent/shmqd");
	CHECK_ERROR(open_on_demand(path_of("shmqd"), &bus), SHMQ_ENODAEMON);
	CHECK_EQ(count_starts(NULL), 3);
}

TEST(a_supervisor_that_says_it_started_but_does_not_listen_is_given_its_time)
{
	shmq_bus *bus;

	install_shmqd("exit 0");
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("nobody listens");
	CHECK_EQ(count_starts(NULL), 1);
	signal(SIGCHLD, SIG_IGN); /* the program reaps its children itself */
	CHECK_ERROR(open_on_demand(NULL, &bus), SHMQ_ENODAEMON);
	check_says("nobody listens");
	CHECK_EQ(count_starts(NULL), 2);
	signal(SIGCHLD, SIG_DFL);
}

static int open_lock(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK_GE(fd, 0);
	return fd;
}

TEST(of_a_bus_on_demand_the_dead_supervisor_is_replaced_once_its_locks_are_free)
{
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .start = SHMQ_START_ON_DEMAND };
	int lock, control;
	shmq_bus *bus;

	install_shmqd("exit 0");
	CHECK_OK(standin_open(s, &o, &bus));
	bus->timeout_ns = 5 * MILLISECOND;
	standin_leave(s);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* no lock: it ended in order */
	CHECK_EQ(bus->starter, 0);
	lock = open_lock("fake.lock");
	control = open_lock("fake.control");
	CHECK_EQ(flock(lock, LOCK_EX), 0);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* a parent is there */
	CHECK_EQ(flock(lock, LOCK_UN), 0);
	CHECK_EQ(flock(control, LOCK_EX), 0);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* a worker is there */
	CHECK_EQ(bus->next_start_ns, 0);
	CHECK_EQ(count_starts(NULL), 0);
	CHECK_EQ(flock(control, LOCK_UN), 0);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON); /* not again so soon */
	CHECK(test_wait_until(count_starts, NULL, 10000));
	CHECK_NE(bus->next_start_ns, 0);
	standin_return(s);
	bus->timeout_ns = PATIENCE;
	CHECK_OK(ask(bus));
	CHECK_EQ(bus->starter, 0);
	CHECK_EQ(bus->start_pause_ns, 0);
	CHECK_EQ(count_starts(NULL), 1);
	shmq_bus_close(bus);
	close(lock);
	close(control);
	standin_free(s);
}

TEST(a_restart_that_cannot_be_is_tried_again_later_and_harms_nobody)
{
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .start = SHMQ_START_ON_DEMAND,
				      .daemon_path = "/nonexistent/shmqd" };
	shmq_bus *bus;

	CHECK_OK(standin_open(s, &o, &bus));
	bus->timeout_ns = 5 * MILLISECOND;
	close(open_lock("fake.lock"));
	standin_leave(s);
	CHECK_ERROR(ask(bus), SHMQ_ENODAEMON);
	CHECK_EQ(bus->starter, 0);
	CHECK_GT(bus->start_pause_ns, SECOND);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- events ------------------------------------------------------------------------------- */

TEST(events_are_taken_only_if_they_are_some)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	struct proto_event good = { .magic = PROTO_MAGIC,
				    .version = PROTO_VERSION,
				    .kind = SHMQ_EVENT_JOINED,
				    .role = SHMQ_ROLE_SUBSCRIBER,
				    .client = 3,
				    .pid = 1234,
				    .missed = 7 };
	struct proto_event bad[5] = { good, good, good, good, good };
	struct shmq_event event;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), fds;

	memset(good.topic, 't', sizeof(good.topic)); /* without its end */
	bad[0].magic++;
	bad[1].version++;
	bad[2].kind = 0;
	bad[3].kind = SHMQ_EVENT_DETACHED; /* the library's own to say */
	bad[4].kind = UINT16_MAX;
	CHECK_ERROR(shmq_bus_event(bus, &event, SHMQ_NOWAIT), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_bus_event(bus, &event, 1), SHMQ_ETIMEOUT);
	fds = count_fds(s);
	for (size_t i = 0; i < COUNT(bad); i++)
		standin_push(s, 1, &bad[i], sizeof(bad[i]), -1);
	standin_push(s, 1, &good, sizeof(good) - 1, fd);
	standin_push(s, 1, "x", 1, -1);
	standin_push(s, 1, &good, sizeof(good), fd);
	CHECK_OK(shmq_bus_event(bus, &event, PATIENCE));
	CHECK_EQ(event.kind, SHMQ_EVENT_JOINED);
	CHECK_EQ(event.role, SHMQ_ROLE_SUBSCRIBER);
	CHECK_EQ(event.client_id, 3);
	CHECK_EQ(event.pid, 1234);
	CHECK_EQ(event.missed, 7);
	CHECK_EQ(strlen(event.topic), SHMQ_NAME_MAX);
	standin_push(s, 1, &good, sizeof(good), -1);
	CHECK_OK(shmq_bus_event(bus, &event, PATIENCE));
	CHECK_EQ(count_fds(s), fds);
	CHECK_EQ(shmq_bus_is_attached(bus), 1);
	close(fd);
	shmq_bus_close(bus);
	standin_free(s);
}

/* What comes as the event socket may be anything that is a descriptor. */
static void put_event_fd(struct standin_answer *a, void *arg)
{
	int (*make)(void) = *(int (**)(void))arg;

	if (make)
		put_fd(a, 0, make());
}

static int make_directory(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int make_null(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int make_lonely_socket(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

TEST(an_event_socket_that_is_none_keeps_nobody_busy_for_ever)
{
	static int (*const makers[])(void) = { make_directory, make_null, make_lonely_socket };

	for (size_t i = 0; i < COUNT(makers); i++) {
		int (*make)(void) = makers[i];
		struct standin *s = standin_new(NULL);
		struct shmq_event event;
		shmq_bus *bus;

		standin_change_answers(s, PROTO_HELLO, put_event_fd, &make);
		if (!standin_open(s, NULL, &bus)) {
			shmq_bus_event(bus, &event, SHMQ_NOWAIT); /* the thread starts */
			await_event(bus, SHMQ_EVENT_DETACHED, 0);
			shmq_bus_close(bus); /* and ends */
		}
		standin_free(s);
	}
}

TEST(a_caller_that_serves_is_refused_an_event_socket_that_cannot_be_waited_for)
{
	int (*make)(void) = make_directory;
	struct standin *s = standin_new(NULL);
	struct shmq_bus_options o = { .serve = SHMQ_SERVE_CALLER };
	shmq_bus *bus;

	standin_change_answers(s, PROTO_HELLO, put_event_fd, &make);
	CHECK_ERROR(standin_open(s, &o, &bus), -EPERM);
	CHECK(!bus);
	standin_free(s);
}

/* ---- what is said from the data path -------------------------------------------------------- */

static void report(shmq_bus *bus)
{
	struct proto_request req;

	shmq__bus_prepare(bus, &req, PROTO_REPORT, STANDIN_TOPIC);
	shmq__bus_notify(bus, &req);
}

static void *report_from_a_thread(void *arg)
{
	report(arg);
	return NULL;
}

TEST(a_report_waits_for_nobody)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);

	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 1);
	pthread_mutex_lock(&bus->lock); /* another call is on its way */
	fake_join(fake_thread(report_from_a_thread, bus));
	pthread_mutex_unlock(&bus->lock);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 1);
	standin_change_answers(s, PROTO_REPORT, say_nothing, NULL);
	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 2);
	CHECK_EQ(shmq_bus_is_attached(bus), 0);
	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 2);
	CHECK_OK(ask(bus));
	report(bus);
	CHECK_EQ(standin_count(s, PROTO_REPORT), 3);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- deferred wakes ---------------------------------------------------------------------------
 */

TEST(the_thread_looks_as_often_as_the_most_impatient_publisher_that_is_open_asks)
{
	struct standin *s = standin_new(&(struct fake_options){ .mode = SHMQ_SHARED });
	shmq_bus *bus = standin_bus(s);
	shmq_pub *patient, *hasty, *usual;

	CHECK_EQ(atomic_load(&bus->wake_ns), 0);
	patient = open_pub(bus, STANDIN_TOPIC, .wake = SHMQ_WAKE_DEFERRED, .wake_ns = SECOND);
	CHECK_EQ(atomic_load(&bus->wake_ns), SECOND);
	hasty = open_pub(bus, STANDIN_TOPIC, .wake = SHMQ_WAKE_DEFERRED, .wake_ns = MILLISECOND);
	CHECK_EQ(atomic_load(&bus->wake_ns), MILLISECOND);
	usual = open_pub(bus, STANDIN_TOPIC, .wake = SHMQ_WAKE_DEFERRED);
	CHECK_EQ(atomic_load(&bus->wake_ns), 50000);
	shmq_pub_close(usual);
	CHECK_EQ(atomic_load(&bus->wake_ns), MILLISECOND);
	shmq_pub_close(hasty);
	CHECK_EQ(atomic_load(&bus->wake_ns), SECOND);
	shmq_pub_close(patient);
	CHECK_EQ(atomic_load(&bus->wake_ns), 0);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- threads ------------------------------------------------------------------------------------
 */

struct opener {
	shmq_bus *bus;
	unsigned number;
};

static void *open_and_close(void *arg)
{
	const struct opener *o = arg;

	for (int n = 0; n < 30; n++) {
		shmq_sub *sub = open_sub(o->bus, STANDIN_TOPIC);
		shmq_pub *pub = open_pub(o->bus, STANDIN_TOPIC,
					 .wake = n % 2 ? SHMQ_WAKE_DEFERRED : SHMQ_WAKE_DIRECT);
		struct shmq_msg msg;

		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		shmq_pub_close(pub);
		shmq_sub_close(sub);
		CHECK_OK(ask(o->bus));
	}
	return NULL;
}

TEST(threads_open_and_close_handles_of_one_bus_while_its_supervisor_comes_and_goes)
{
	struct standin *s = standin_new(&(struct fake_options){ .mode = SHMQ_SHARED });
	shmq_bus *bus = standin_bus(s);
	struct opener opener[3];
	pthread_t thread[3];

	for (unsigned i = 0; i < COUNT(thread); i++) {
		opener[i] = (struct opener){ bus, i };
		thread[i] = fake_thread(open_and_close, &opener[i]);
	}
	for (int n = 0; n < 10; n++) {
		standin_await(s, PROTO_PLAN, 8u * (unsigned)n);
		if (n % 2) {
			standin_cut(s);
		} else {
			standin_leave(s);
			standin_return(s);
		}
	}
	for (unsigned i = 0; i < COUNT(thread); i++)
		fake_join(thread[i]);
	CHECK_OK(ask(bus));
	check_empty(s);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- a forked child
 * --------------------------------------------------------------------------------- */

static int refuses(void *arg)
{
	shmq_bus *bus = arg;
	struct shmq_event event;
	struct proto_request req;
	struct proto_reply reply;

	CHECK_ERROR(shmq_bus_stop(bus, 0), SHMQ_EFORKED);
	CHECK_ERROR(shmq_bus_event(bus, &event, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_bus_serve(bus, SHMQ_FOREVER), SHMQ_EFORKED);
	shmq__bus_prepare(bus, &req, PROTO_PLAN, NULL);
	CHECK_ERROR(shmq__bus_request(bus, &req, &reply, NULL), SHMQ_EFORKED);
	CHECK_STR(shmq_bus_name(bus), STANDIN_BUS);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_child_has_nothing_of_the_bus_but_its_name)
{
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_sub *sub = open_sub(bus, STANDIN_TOPIC);

	CHECK_EQ(test_join(test_spawn(refuses, bus)), 0);
	CHECK_EQ(standin_count(s, PROTO_STOP), 0);
	CHECK_EQ(standin_count(s, PROTO_GOODBYE), 0);
	shmq_sub_close(sub);
	check_works(bus);
	shmq_bus_close(bus);
	standin_free(s);
}
