/* SPDX-License-Identifier: MIT
 *
 * Events, and event sockets that are none.
 */
#include "../../libshmq/bus.h"
#include "attachment.h"

#include <fcntl.h>
#include <sys/socket.h>

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
