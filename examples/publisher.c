/* SPDX-License-Identifier: MIT
 *
 * Twenty lines of code: publish the words of the command line to topic
 * "prices", once somebody listens.  The bus starts by itself if none runs.
 *
 *   cc -o publisher publisher.c $(pkg-config --cflags --libs shmq)
 *   ./publisher "AAPL 189.70" "MSFT 411.22"
 */
#include <shmq.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus = NULL;
	shmq_pub *pub = NULL;
	int error = shmq_bus_open(NULL, &opts, &bus);

	if (!error)
		error = shmq_topic_create(bus, "prices", NULL, NULL);
	if (!error || error == SHMQ_EEXISTS)
		error = shmq_pub_open(bus, "prices", NULL, &pub);
	if (!error)
		error = shmq_pub_wait_subscribers(pub, 1, SHMQ_FOREVER);
	for (int i = 1; i < argc && !error; i++)
		error = shmq_publish(pub, argv[i], strlen(argv[i]));
	if (error)
		fprintf(stderr, "publisher: %s\n", shmq_strerror(error));
	shmq_bus_close(bus);
	return error != 0;
}
