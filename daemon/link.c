/* SPDX-License-Identifier: MIT */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "wire.h"

#define MAGIC_0 0x4b4e4c50u
#define MAGIC (MAGIC_0 + LINK_VERSION)
#define VERSIONS 256u
#define TAKE_TIMEOUT_NS INT64_C(10000000000)

/* What link_give() sends waits in the socket until its taker runs, and may be
 * all slabs there can be.  What the kernel counts for a message is more than
 * its bytes; the usual buffer has room for half of them. */
#define ROOM_BYTES ((LINK_SLABS_MAX + 2) * 2048)

static void make_room(int sock)
{
	int room = ROOM_BYTES;

	if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

int link_pair(int pair[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -errno;
	make_room(pair[0]);
	make_room(pair[1]);
	return 0;
}

int link_send(int sock, struct link_msg *msg, int fd)
{
	msg->magic = MAGIC;
	msg->pid = getpid();
	return shmq__wire_send(sock, msg, sizeof(*msg), &fd, fd >= 0);
}

int link_say(int sock, enum link_kind kind)
{
	struct link_msg msg = { .kind = kind };

	return link_send(sock, &msg, -1);
}

int link_send_slab(int sock, unsigned id, const struct link_slab *slab)
{
	struct link_msg msg = {
		.kind = LINK_SLAB,
		.slab = id,
		.slab_kind = slab->kind,
		.page_shift = slab->page_shift,
		.extra = slab->extra,
		.bytes = slab->bytes,
	};

	return link_send(sock, &msg, slab->fd);
}

struct link_slab link_slab_of(const struct link_msg *msg, int fd)
{
	return (struct link_slab){ .fd = fd,
				   .kind = msg->slab_kind,
				   .page_shift = msg->page_shift,
				   .extra = msg->extra,
				   .bytes = msg->bytes };
}

int link_recv(int sock, struct link_msg *msg, int *fd, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int fds[WIRE_FDS_MAX], rc;
	unsigned n;

	*fd = -1;
	for (;;) {
		rc = shmq__wire_recv(sock, msg, sizeof(*msg), fds, &n);
		if (rc != -EAGAIN || shmq__clock_left(deadline) == 0)
			break;
		poll(&p, 1, shmq__clock_left_ms(deadline));
	}
	if (rc != 1)
		return rc == -ECONNRESET ? 0 : rc;
	if (n)
		*fd = fds[0];
	while (n > 1)
		close(fds[--n]);
	msg->text[sizeof(msg->text) - 1] = 0;
	if (msg->magic == MAGIC)
		return 1;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return -EPROTO;
}

unsigned link_version_of(const struct link_msg *msg)
{
	return msg->magic - MAGIC_0 < VERSIONS ? msg->magic - MAGIC_0 : 0;
}

int link_give(int sock, int listen_fd, const struct link_slab *slab, uint64_t nonce,
	      uint64_t delay_ns)
{
	struct link_msg msg = { .kind = LINK_LISTEN, .nonce = nonce, .delay_ns = delay_ns };
	int error = link_send(sock, &msg, listen_fd);
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX && !error; i++)
		if (slab[i].fd >= 0)
			error = link_send_slab(sock, i, &slab[i]);
	msg.kind = LINK_START;
	return error ? error : link_send(sock, &msg, -1);
}

int link_take(int sock, int *listen_fd, int *lock_fd, struct link_slab *slab,
	      struct link_msg *start)
{
	struct link_msg msg;
	int fd, rc;

	while ((rc = link_recv(sock, &msg, &fd, TAKE_TIMEOUT_NS)) == 1) {
		if (msg.kind == LINK_START) {
			*start = msg;
			return 0;
		}
		if (msg.kind == LINK_LISTEN && fd >= 0) {
			*listen_fd = fd;
		} else if (msg.kind == LINK_LOCK && fd >= 0) {
			*lock_fd = fd;
		} else if (msg.kind == LINK_SLAB && fd >= 0 && msg.slab < LINK_SLABS_MAX &&
			   slab[msg.slab].fd < 0) {
			slab[msg.slab] = link_slab_of(&msg, fd);
		} else if (fd >= 0) {
			close(fd);
		}
	}
	return rc ? rc : -EPIPE;
}
