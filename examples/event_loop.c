/* SPDX-License-Identifier: MIT
 *
 * An epoll loop that has a subscriber beside its other descriptors, here a pipe:
 * edge-triggered, so it receives until nothing is found.
 *
 *   cc -o event_loop event_loop.c $(pkg-config --cflags --libs shmq)
 *   ./event_loop
 */
#include <shmq.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

static void watch(int loop, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.fd = fd };

	epoll_ctl(loop, EPOLL_CTL_ADD, fd, &ev);
}

/* Until the other descriptor says so, and all is read. */
static int run(shmq_sub *sub, int loop, int quit)
{
	struct epoll_event ev;
	struct shmq_msg msg;
	int error, done = 0, fd = shmq_sub_fd(sub);

	if (fd < 0)
		return fd;
	watch(loop, fd);
	watch(loop, quit);
	while (!done && epoll_wait(loop, &ev, 1, -1) == 1) {
		while (!(error = shmq_receive(sub, &msg, SHMQ_NOWAIT)))
			printf("%.*s\n", (int)msg.len, (const char *)msg.data);
		if (error != SHMQ_EEMPTY)
			return error;
		done = ev.data.fd == quit;
	}
	return 0;
}

int main(void)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus = NULL;
	shmq_sub *sub = NULL;
	shmq_pub *pub = NULL;
	int loop = epoll_create1(EPOLL_CLOEXEC), quit[2], error;

	if (loop < 0 || pipe(quit))
		return 1;
	error = shmq_bus_open(NULL, &opts, &bus);
	if (!error)
		error = shmq_topic_create(bus, "loop", NULL, NULL);
	if (!error)
		error = shmq_sub_open(bus, "loop", NULL, &sub);
	if (!error)
		error = shmq_pub_open(bus, "loop", NULL, &pub);
	if (!error)
		error = shmq_publish(pub, "by an edge", 10);
	if (!error && write(quit[1], "q", 1) == 1)
		error = run(sub, loop, quit[0]);
	if (error)
		fprintf(stderr, "event_loop: %s: %s\n", shmq_strerror(error), shmq_bus_error(bus));
	shmq_bus_close(bus);
	return error != 0;
}
