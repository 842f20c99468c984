/* SPDX-License-Identifier: MIT
 *
 * wire: whole messages with descriptors over AF_UNIX SOCK_SEQPACKET.
 */
#ifndef SHMQ_WIRE_H
#define SHMQ_WIRE_H

#include <stddef.h>

#define WIRE_FDS_MAX 16

/* Send one message with up to WIRE_FDS_MAX descriptors.  Never raises SIGPIPE.
 * 0, -EAGAIN if a non-blocking socket is full, else -errno. */
int shmq__wire_send(int sock, const void *msg, size_t bytes, const int *fds, unsigned fd_count);

/* Receive one message of exactly `bytes`.  Descriptors (CLOEXEC) go to
 * fds[WIRE_FDS_MAX], their number to *fd_count.  A message of another size,
 * or whose descriptors were truncated, has its descriptors closed.
 * 1 received, 0 end of stream, -EAGAIN nothing there, -EMSGSIZE wrong size,
 * -EMFILE descriptors truncated, else -errno.  -EINTR is retried. */
int shmq__wire_recv(int sock, void *msg, size_t bytes, int *fds, unsigned *fd_count);

#endif
