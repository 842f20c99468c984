/* SPDX-License-Identifier: MIT */
#include "wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
};

int shmq__wire_send(int sock, const void *msg, size_t bytes, const int *fds, unsigned fd_count)
{
	struct iovec iov = { .iov_base = (void *)msg, .iov_len = bytes };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	ssize_t rc;

	if (fd_count > WIRE_FDS_MAX)
		return -EINVAL;
	if (fd_count) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
	}
	do
		rc = sendmsg(sock, &h, MSG_NOSIGNAL);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

int shmq__wire_recv(int sock, void *msg, size_t bytes, int *fds, unsigned *fd_count)
{
	struct iovec iov = { .iov_base = msg, .iov_len = bytes };
	union control control;
	struct msghdr h = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	unsigned i;
	ssize_t rc;
	int error = 1;

	*fd_count = 0;
	do
		rc = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		unsigned n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*fd_count < WIRE_FDS_MAX)
				fds[(*fd_count)++] = fd;
			else
				close(fd);
		}
	}
	if (h.msg_flags & MSG_CTRUNC)
		error = -EMFILE;
	else if (rc == 0)
		error = 0;
	else if ((h.msg_flags & MSG_TRUNC) || (size_t)rc != bytes)
		error = -EMSGSIZE;
	if (error == 1)
		return 1;
	for (i = 0; i < *fd_count; i++)
		close(fds[i]);
	*fd_count = 0;
	return error;
}
