/* SPDX-License-Identifier: MIT
 *
 * Confirmed publishing: an order is acknowledged once it is on the disk.  To
 * wait for each costs a sync each; to wait for the last of many costs one for
 * all of them.
 *
 *   cc -o confirmed_publish confirmed_publish.c $(pkg-config --cflags --libs shmq)
 */
#include <shmq.h>
#include <stdio.h>
#include <stdlib.h>

#define TOPIC "orders"

enum { SINGLE = 3, MANY = 1000 };

static shmq_bus *bus;

static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "confirmed_publish: %s: %s %s\n", what, shmq_strerror(error),
		shmq_bus_error(bus));
	exit(1);
}

/* Returns the number under which the order is confirmed. */
static uint64_t publish_order(shmq_pub *pub, int id)
{
	struct shmq_msg msg = { .data = &id, .len = sizeof(id) };

	must(shmq_publish_msg(pub, &msg), "publishing");
	return msg.seq;
}

static void await(const shmq_pub *pub, uint64_t seq)
{
	must(shmq_pub_wait_confirm(pub, 0, seq, SHMQ_SYNCED, SHMQ_FOREVER), "waiting");
}

/* What is in the log, by its files alone: no bus is asked. */
static int count_logged(void)
{
	shmq_log_reader *log;
	struct shmq_msg msg;
	char dir[4096];
	int n = 0;

	must(shmq_log_dir(NULL, shmq_bus_name(bus), TOPIC, dir, sizeof(dir)), "finding the log");
	must(shmq_log_open(dir, &log), "opening the log");
	while (!shmq_log_next(log, &msg))
		n++;
	shmq_log_close(log);
	return n;
}

int main(void)
{
	const struct shmq_bus_options opts = { .size = sizeof(opts),
					       .start = SHMQ_START_ON_DEMAND };
	const struct shmq_topic_options kept = { .size = sizeof(kept),
						 .log = SHMQ_LOG_BLOCK,
						 .sync = SHMQ_SYNC_EVERY };
	uint64_t seq = 0;
	shmq_pub *pub;
	int id = 0, logged;

	must(shmq_bus_open(NULL, &opts, &bus), "opening the bus");
	must(shmq_topic_create(bus, TOPIC, &kept, NULL), "creating " TOPIC);
	must(shmq_pub_open(bus, TOPIC, NULL, &pub), "publishing to " TOPIC);
	while (id < SINGLE) {
		await(pub, publish_order(pub, ++id));
		printf("order %d is on the disk\n", id);
	}
	while (id < SINGLE + MANY)
		seq = publish_order(pub, ++id);
	await(pub, seq);
	printf("orders to %d are on the disk, by one wait\n", id);
	logged = count_logged();
	printf("the log has %d of %d orders\n", logged, id);

	/* A topic that is removed takes its log with it. */
	shmq_pub_close(pub);
	must(shmq_topic_remove(bus, TOPIC, 0), "removing " TOPIC);
	shmq_bus_close(bus);
	return logged != id;
}
