/* SPDX-License-Identifier: MIT
 *
 * talk: the supervisor spoken to by hand, past the library.
 */
#ifndef TEST_PROC_TALK_H
#define TEST_PROC_TALK_H

#include "helpers.h"
#include "proto.h"
#include "wire.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static inline struct sockaddr_un bus_address(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.sock", test_bus_dir(),
		     test_bus_name()) >= (int)sizeof(address.sun_path))
		FAIL("the socket's path is too long");
	return address;
}

static inline int raw_connect(void)
{
	struct sockaddr_un address = bus_address();
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CHECK_GE(fd, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		FAIL("connect: %s", strerror(errno));
	return fd;
}

static inline struct proto_request request(enum proto_op op)
{
	struct proto_request req = {
		.magic = PROTO_MAGIC, .version = PROTO_VERSION, .op = (uint16_t)op, .token = 7
	};

	if (op == PROTO_HELLO) {
		req.hello.layout_version = LAY_VERSION;
		req.hello.nonce = 0x1234567 + (uint64_t)getpid();
	}
	return req;
}

/* 1 a reply came, 0 it hung up. */
static inline int answer_to(int fd, const void *bytes, size_t len, struct proto_reply *reply)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int fds[WIRE_FDS_MAX], rc;
	unsigned n;

	memset(reply, 0, sizeof(*reply));
	rc = shmq__wire_send(fd, bytes, len, NULL, 0);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return 0;
	CHECK_OK(rc);
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	rc = shmq__wire_recv(fd, reply, sizeof(*reply), fds, &n);
	while (n)
		close(fds[--n]);
	if (rc == 0 || rc == -ECONNRESET)
		return 0;
	CHECK_EQ(rc, 1);
	return 1;
}

#endif
