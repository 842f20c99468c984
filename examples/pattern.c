/* SPDX-License-Identifier: MIT
 *
 * Subscribe by pattern: the prices of one symbol from every exchange, those
 * included that open later.
 *
 *   cc -o pattern pattern.c $(pkg-config --cflags --libs shmq)
 *   ./pattern
 */
#include <shmq.h>
#include <stdio.h>
#include <string.h>

/* What an exchange does when it opens: make its topic, publish at once. */
static int open_exchange(shmq_bus *bus, const char *topic, const char *price)
{
	shmq_pub *pub = NULL;
	int error = shmq_topic_create(bus, topic, NULL, NULL);

	if (!error)
		error = shmq_pub_open(bus, topic, NULL, &pub);
	if (!error)
		error = shmq_publish(pub, price, strlen(price));
	shmq_pub_close(pub);
	return error;
}

static int receive_all(shmq_sub *sub)
{
	struct shmq_msg msg;
	int error;

	while (!(error = shmq_receive(sub, &msg, SHMQ_NOWAIT)))
		printf("%s: %.*s\n", shmq_sub_topic(sub), (int)msg.len, (const char *)msg.data);
	return error == SHMQ_EEMPTY ? 0 : error;
}

static int run(shmq_bus *bus)
{
	shmq_sub *sub;
	int error = shmq_sub_open(bus, "md.*.AAPL", NULL, &sub);

	if (!error)
		error = open_exchange(bus, "md.nyse.AAPL", "189.70");
	if (!error)
		error = open_exchange(bus, "md.nyse.MSFT", "411.22");
	if (!error)
		error = receive_all(sub);
	/* Nobody but the pattern has it open, and that lets it go. */
	if (!error)
		error = shmq_topic_remove(bus, "md.nyse.AAPL", 0);
	if (!error)
		error = open_exchange(bus, "md.xetra.AAPL", "189.68");
	if (!error)
		error = receive_all(sub);
	return error;
}

int main(void)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus = NULL;
	int error = shmq_bus_open(NULL, &opts, &bus);

	if (!error)
		error = run(bus);
	if (error)
		fprintf(stderr, "pattern: %s: %s\n", shmq_strerror(error), shmq_bus_error(bus));
	shmq_bus_close(bus);
	return error != 0;
}
