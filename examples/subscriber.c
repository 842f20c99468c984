/* SPDX-License-Identifier: MIT
 *
 * Twenty lines of code: print every message of topic "prices", until its
 * publishers have come and gone.  The bus starts by itself if none runs.
 *
 *   cc -o subscriber subscriber.c $(pkg-config --cflags --libs shmq)
 *   ./subscriber
 */
#include <shmq.h>
#include <stdio.h>

int main(void)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	struct shmq_sub_options end = { .size = sizeof(end),
					.flags = SHMQ_SUB_END_WITH_PUBLISHERS };
	shmq_bus *bus = NULL;
	shmq_sub *sub = NULL;
	struct shmq_msg msg;
	int error = shmq_bus_open(NULL, &opts, &bus);

	if (!error)
		error = shmq_topic_create(bus, "prices", NULL, NULL);
	if (!error || error == SHMQ_EEXISTS)
		error = shmq_sub_open(bus, "prices", &end, &sub);
	while (!error && !(error = shmq_receive(sub, &msg, SHMQ_FOREVER)))
		printf("%.*s\n", (int)msg.len, (const char *)msg.data);
	if (error != SHMQ_EENDED)
		fprintf(stderr, "subscriber: %s\n", shmq_strerror(error));
	shmq_bus_close(bus);
	return error != SHMQ_EENDED;
}
