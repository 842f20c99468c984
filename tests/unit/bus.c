/* SPDX-License-Identifier: MIT
 *
 * Opening and closing a bus: options, the name of the client, shortages, and
 * what a forked child has of it.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"
#include "memory.h"

/* ---- options --------------------------------------------------------- */

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

/* ---- opening, stopping ----------------------------------------------- */

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

/* ---- a forked child -------------------------------------------------- */

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
