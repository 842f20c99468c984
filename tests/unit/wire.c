/* SPDX-License-Identifier: MIT */
#include "tap.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
	int a, b;
};

static struct pair set_up(void)
{
	int s[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s), 0);
	return (struct pair){ s[0], s[1] };
}

static void tear_down(struct pair p)
{
	close(p.a);
	close(p.b);
}

/* A descriptor that can be told from others: a pipe with a byte in it. */
static int marked(char mark)
{
	int p[2];

	CHECK_EQ(pipe2(p, O_CLOEXEC), 0);
	CHECK_EQ(write(p[1], &mark, 1), 1);
	close(p[1]);
	return p[0];
}

static char mark_of(int fd)
{
	char mark = 0;

	CHECK_EQ(read(fd, &mark, 1), 1);
	close(fd);
	return mark;
}

/* Send `count` descriptors as a peer might that does not use our code. */
static void send_raw(int sock, const void *msg, size_t bytes, int fd, unsigned count)
{
	char control[CMSG_SPACE(sizeof(int) * 64)] = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = bytes };
	struct msghdr h = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = CMSG_SPACE(sizeof(int) * count) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * count);
	for (unsigned i = 0; i < count; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	CHECK_EQ(sendmsg(sock, &h, 0), bytes);
}

TEST(a_message_arrives_whole)
{
	struct pair p = set_up();
	char out[1024], in[1024];
	int fds[WIRE_FDS_MAX];
	unsigned n = 99;

	memset(out, 'x', sizeof(out));
	CHECK_EQ(shmq__wire_send(p.a, out, sizeof(out), NULL, 0), 0);
	CHECK_EQ(shmq__wire_recv(p.b, in, sizeof(in), fds, &n), 1);
	CHECK_MEM(in, out, sizeof(out));
	CHECK_EQ(n, 0);
	CHECK_EQ(shmq__wire_recv(p.b, in, sizeof(in), fds, &n), -EAGAIN);
	tear_down(p);
}

TEST(messages_keep_their_bounds)
{
	struct pair p = set_up();
	char in[3];
	int fds[WIRE_FDS_MAX];
	unsigned n;

	CHECK_EQ(shmq__wire_send(p.a, "abc", 3, NULL, 0), 0);
	CHECK_EQ(shmq__wire_send(p.a, "def", 3, NULL, 0), 0);
	CHECK_EQ(shmq__wire_recv(p.b, in, 3, fds, &n), 1);
	CHECK_MEM(in, "abc", 3);
	CHECK_EQ(shmq__wire_recv(p.b, in, 3, fds, &n), 1);
	CHECK_MEM(in, "def", 3);
	tear_down(p);
}

TEST(descriptors_travel_in_order_and_close_on_exec)
{
	for (unsigned count = 1; count <= WIRE_FDS_MAX; count += 5) {
		struct pair p = set_up();
		int out[WIRE_FDS_MAX], fds[WIRE_FDS_MAX];
		unsigned n = 0;
		char in[4];

		for (unsigned i = 0; i < count; i++)
			out[i] = marked((char)('A' + i));
		CHECK_EQ(shmq__wire_send(p.a, "four", 4, out, count), 0);
		for (unsigned i = 0; i < count; i++)
			close(out[i]); /* those under way outlive these */
		CHECK_EQ(shmq__wire_recv(p.b, in, 4, fds, &n), 1);
		CHECK_EQ(n, count);
		for (unsigned i = 0; i < count; i++) {
			CHECK_EQ(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
			CHECK_EQ(mark_of(fds[i]), 'A' + i);
		}
		tear_down(p);
	}
}

TEST(more_descriptors_than_a_message_carries_are_not_sent)
{
	struct pair p = set_up();
	int fds[WIRE_FDS_MAX + 1];
	unsigned n;
	char in[1];

	for (unsigned i = 0; i < WIRE_FDS_MAX + 1; i++)
		fds[i] = p.a;
	CHECK_EQ(shmq__wire_send(p.a, "x", 1, fds, WIRE_FDS_MAX + 1), -EINVAL);
	CHECK_EQ(shmq__wire_recv(p.b, in, 1, fds, &n), -EAGAIN);
	tear_down(p);
}

TEST(a_message_of_the_wrong_size_has_its_descriptors_closed)
{
	static const size_t size[] = { 1, 7, 9, 100 };

	for (int i = 0; i < 4; i++) {
		struct pair p = set_up();
		char out[100] = "", in[8];
		int fd = marked('x'), fds[WIRE_FDS_MAX], before;
		unsigned n = 99;

		CHECK_EQ(shmq__wire_send(p.a, out, size[i], &fd, 1), 0);
		close(fd);
		before = test_fd_count();
		CHECK_EQ(shmq__wire_recv(p.b, in, sizeof(in), fds, &n), -EMSGSIZE);
		CHECK_EQ(n, 0);
		CHECK_EQ(test_fd_count(), before);
		/* The next one is not affected. */
		CHECK_EQ(shmq__wire_send(p.a, out, sizeof(in), NULL, 0), 0);
		CHECK_EQ(shmq__wire_recv(p.b, in, sizeof(in), fds, &n), 1);
		tear_down(p);
	}
}

TEST(truncated_descriptors_are_closed_and_reported)
{
	struct pair p = set_up();
	int fd = marked('x'), fds[WIRE_FDS_MAX], before = test_fd_count();
	unsigned n = 99;
	char in[4];

	send_raw(p.a, "four", 4, fd, WIRE_FDS_MAX + 4);
	CHECK_EQ(shmq__wire_recv(p.b, in, 4, fds, &n), -EMFILE);
	CHECK_EQ(n, 0);
	CHECK_EQ(test_fd_count(), before);
	CHECK_EQ(shmq__wire_send(p.a, "more", 4, &fd, 1), 0);
	CHECK_EQ(shmq__wire_recv(p.b, in, 4, fds, &n), 1);
	CHECK_EQ(n, 1);
	close(fds[0]);
	close(fd);
	tear_down(p);
}

TEST(a_full_descriptor_table_truncates_and_nothing_leaks)
{
	struct pair p = set_up();
	struct rlimit old, low;
	int out[6], fds[WIRE_FDS_MAX], before;
	unsigned n = 99;
	char in[4];

	for (int i = 0; i < 6; i++)
		out[i] = marked('x');
	CHECK_EQ(shmq__wire_send(p.a, "four", 4, out, 6), 0);
	before = test_fd_count();
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)out[5] + 3; /* room for two */
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
	CHECK_EQ(shmq__wire_recv(p.b, in, 4, fds, &n), -EMFILE);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(test_fd_count(), before);
	for (int i = 0; i < 6; i++)
		close(out[i]);
	tear_down(p);
}

TEST(the_end_of_the_stream_is_told_from_nothing_there)
{
	struct pair p = set_up();
	int fds[WIRE_FDS_MAX];
	unsigned n = 99;
	char in[4];

	CHECK_EQ(shmq__wire_recv(p.b, in, 4, fds, &n), -EAGAIN);
	close(p.a);
	CHECK_EQ(shmq__wire_recv(p.b, in, 4, fds, &n), 0);
	CHECK_EQ(n, 0);
	close(p.b);
}

TEST(a_peer_that_left_is_an_error_and_no_signal)
{
	struct pair p = set_up();

	close(p.b);
	CHECK_EQ(shmq__wire_send(p.a, "x", 1, NULL, 0), -EPIPE);
	close(p.a);
}

TEST(a_full_socket_says_so_and_keeps_what_it_has)
{
	struct pair p = set_up();
	char msg[1024] = "", in[1024];
	int fds[WIRE_FDS_MAX], sent = 0, got = 0, rc;
	unsigned n;

	while (!(rc = shmq__wire_send(p.a, msg, sizeof(msg), NULL, 0)))
		sent++;
	CHECK_EQ(rc, -EAGAIN);
	CHECK_GT(sent, 0);
	while (shmq__wire_recv(p.b, in, sizeof(in), fds, &n) == 1)
		got++;
	CHECK_EQ(got, sent);
	tear_down(p);
}

TEST(what_is_no_socket_is_an_error)
{
	int fd = marked('x'), fds[WIRE_FDS_MAX];
	unsigned n;
	char in[4];

	CHECK_EQ(shmq__wire_send(fd, "x", 1, NULL, 0), -ENOTSOCK);
	CHECK_EQ(shmq__wire_recv(fd, in, 4, fds, &n), -ENOTSOCK);
	close(fd);
	CHECK_EQ(shmq__wire_recv(-1, in, 4, fds, &n), -EBADF);
}
