/* SPDX-License-Identifier: MIT
 *
 * Zero-copy: the publisher draws each frame where the subscriber will read
 * it.  A claim hands out the shared memory itself, commit makes it a message,
 * and what the subscriber receives is a view of the same bytes.
 *
 *   cc -o zero_copy zero_copy.c $(pkg-config --cflags --libs shmq)
 */
#include <shmq.h>
#include <stdio.h>
#include <stdlib.h>

#define TOPIC "frames"

enum { WIDTH = 1024, HEIGHT = 1024, FRAMES = 5 };

static shmq_bus *bus;

static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "zero_copy: %s: %s %s\n", what, shmq_strerror(error),
		bus ? shmq_bus_error(bus) : "");
	exit(1);
}

static unsigned char shade(int frame, int x, int y)
{
	return (x ^ y) + frame;
}

static void publish_frame(shmq_pub *pub, int frame)
{
	struct shmq_msg msg = { .type = frame };
	void *pixels;

	must(shmq_claim(pub, WIDTH * HEIGHT, &pixels), "claiming");
	for (int y = 0; y < HEIGHT; y++)
		for (int x = 0; x < WIDTH; x++)
			((unsigned char *)pixels)[y * WIDTH + x] = shade(frame, x, y);
	must(shmq_commit(pub, &msg), "committing");
}

/* A claim that is given up was never a message. */
static void publish_nothing(shmq_pub *pub)
{
	void *pixels;

	must(shmq_claim(pub, WIDTH * HEIGHT, &pixels), "claiming");
	must(shmq_abort(pub), "aborting");
}

static size_t count_right(const struct shmq_msg *msg)
{
	const unsigned char *pixels = msg->data;
	size_t right = 0;

	for (int y = 0; y < HEIGHT; y++)
		for (int x = 0; x < WIDTH; x++)
			right += pixels[y * WIDTH + x] == shade(msg->type, x, y);
	return right;
}

/* The view is valid until the next call on this subscriber; on a topic that
 * blocks, no publisher touches it before. */
static int receive_frame(shmq_sub *sub)
{
	struct shmq_msg msg;
	int error = shmq_receive(sub, &msg, SHMQ_NOWAIT);

	if (error == SHMQ_EEMPTY)
		return 0;
	must(error, "receiving");
	printf("frame %u: %zu bytes, %zu pixels right, %s\n", msg.type, msg.len, count_right(&msg),
	       msg.flags & SHMQ_MSG_ARENA ? "in the arena" : "in the slot");
	return count_right(&msg) == WIDTH * HEIGHT;
}

int main(void)
{
	const struct shmq_bus_options opts = { .size = sizeof(opts),
					       .start = SHMQ_START_ON_DEMAND };
	const struct shmq_topic_options large = { .size = sizeof(large),
						  .max_message_bytes = WIDTH * HEIGHT };
	shmq_pub *pub;
	shmq_sub *sub;
	int received = 0;

	must(shmq_bus_open(NULL, &opts, &bus), "opening the bus");
	must(shmq_topic_create(bus, TOPIC, &large, NULL), "creating " TOPIC);
	must(shmq_sub_open(bus, TOPIC, NULL, &sub), "subscribing to " TOPIC);
	must(shmq_pub_open(bus, TOPIC, NULL, &pub), "publishing to " TOPIC);
	for (int frame = 0; frame < FRAMES; frame++) {
		publish_nothing(pub);
		publish_frame(pub, frame);
		received += receive_frame(sub);
	}
	printf("%d of %d frames received in place\n", received, FRAMES);

	/* A bus that was started on demand ends with its last topic and client. */
	shmq_pub_close(pub);
	shmq_sub_close(sub);
	must(shmq_topic_remove(bus, TOPIC, 0), "removing " TOPIC);
	shmq_bus_close(bus);
	return received != FRAMES;
}
