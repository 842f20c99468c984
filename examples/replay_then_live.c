/* SPDX-License-Identifier: MIT
 *
 * Replay, then live: a subscriber that comes late reads all there ever was
 * from the topic's log and runs on into what is published meanwhile, in one
 * loop of the same calls, and nowhere is there a seam.
 *
 *   cc -o replay_then_live replay_then_live.c $(pkg-config --cflags --libs shmq)
 */
#include <shmq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOPIC "history"

enum { DEPTH = 1024, PAST = 10000, LIVE = 10000 };

static shmq_bus *bus;

static void must(int error, const char *what)
{
	if (error >= 0)
		return;
	fprintf(stderr, "replay_then_live: %s: %s %s\n", what, shmq_strerror(error),
		bus ? shmq_bus_error(bus) : "");
	exit(1);
}

static void open_bus(void)
{
	const struct shmq_bus_options opts = { .size = sizeof(opts),
					       .start = SHMQ_START_ON_DEMAND };

	must(shmq_bus_open(NULL, &opts, &bus), "opening the bus");
}

/* Publish the numbers from `first` to `last`. */
static void publish(uint64_t first, uint64_t last)
{
	shmq_pub *pub;

	must(shmq_pub_open(bus, TOPIC, NULL, &pub), "publishing to " TOPIC);
	for (uint64_t n = first; n <= last; n++)
		must(shmq_publish(pub, &n, sizeof(n)), "publishing");
	shmq_pub_close(pub);
}

static pid_t publish_in_child(uint64_t first, uint64_t last)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	open_bus();
	publish(first, last);
	shmq_bus_close(bus);
	_exit(0);
}

/* The next message: it must be number `n`. */
static void read_number(shmq_sub *sub, uint64_t n)
{
	struct shmq_msg msg;
	uint64_t value;

	must(shmq_receive(sub, &msg, SHMQ_FOREVER), "receiving");
	memcpy(&value, msg.data, sizeof(value));
	if (value != n)
		must(SHMQ_ECORRUPT, "counting");
}

int main(void)
{
	const struct shmq_topic_options kept = { .size = sizeof(kept),
						 .depth = DEPTH,
						 .log = SHMQ_LOG_BLOCK };
	const struct shmq_sub_options all = { .size = sizeof(all), .from = SHMQ_FROM_OLDEST };
	uint64_t n = 1;
	shmq_sub *sub;
	pid_t pid;
	int status;

	open_bus();
	must(shmq_topic_create(bus, TOPIC, &kept, NULL), "creating " TOPIC);
	publish(1, PAST);
	printf("%d messages are past, the ring holds %d of them\n", PAST, DEPTH);

	must(shmq_sub_open(bus, TOPIC, &all, &sub), "subscribing to " TOPIC);
	pid = publish_in_child(PAST + 1, PAST + LIVE);
	while (n <= PAST)
		read_number(sub, n++);
	printf("%d messages replayed\n", PAST);
	while (n <= PAST + LIVE)
		read_number(sub, n++);
	waitpid(pid, &status, 0);
	printf("%d more as they came, none missing, none twice\n", LIVE);

	shmq_sub_close(sub);
	must(shmq_topic_remove(bus, TOPIC, 0), "removing " TOPIC);
	shmq_bus_close(bus);
	return status != 0;
}
