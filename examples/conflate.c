/* SPDX-License-Identifier: MIT
 *
 * A slow display: of a burst of prices it sees the last one of each symbol, and knows
 * how many it was spared.
 *
 *   cc -o conflate conflate.c $(pkg-config --cflags --libs shmq)
 *   ./conflate
 */
#include <shmq.h>
#include <stdio.h>
#include <string.h>

#define PRICES 3000

static int send_prices(shmq_pub *pub)
{
	static const char *const symbols[] = { "AAPL", "MSFT", "NVDA" };
	int i, error = 0;

	for (i = 1; !error && i <= PRICES; i++) {
		struct shmq_msg msg = { .key = symbols[i % 3], .key_len = 4 };
		char price[16];

		msg.data = price;
		msg.len = (size_t)snprintf(price, sizeof(price), "%d.%02d", i / 100, i % 100);
		error = shmq_publish_msg(pub, &msg);
	}
	return error;
}

static int show(shmq_sub *sub)
{
	struct shmq_sub_stats stats;
	struct shmq_msg msg;
	int error;

	while (!(error = shmq_receive(sub, &msg, SHMQ_NOWAIT)))
		printf("%.*s %.*s\n", (int)msg.key_len, (const char *)msg.key, (int)msg.len,
		       (const char *)msg.data);
	shmq_sub_get_stats(sub, &stats);
	printf("%llu shown, %llu spared, %llu lost\n", (unsigned long long)stats.received,
	       (unsigned long long)stats.conflated, (unsigned long long)stats.lost);
	return error == SHMQ_EEMPTY ? 0 : error;
}

int main(void)
{
	struct shmq_bus_options opts = { .size = sizeof(opts), .start = SHMQ_START_ON_DEMAND };
	struct shmq_sub_options newest = { .size = sizeof(newest), .flags = SHMQ_SUB_CONFLATE };
	shmq_bus *bus = NULL;
	shmq_sub *sub;
	shmq_pub *pub;
	int error = shmq_bus_open(NULL, &opts, &bus);

	if (!error)
		error = shmq_topic_create(bus, "quotes", NULL, NULL);
	if (!error)
		error = shmq_sub_open(bus, "quotes", &newest, &sub);
	if (!error)
		error = shmq_pub_open(bus, "quotes", NULL, &pub);
	if (!error)
		error = send_prices(pub);
	if (!error)
		error = show(sub);
	if (error)
		fprintf(stderr, "conflate: %s: %s\n", shmq_strerror(error), shmq_bus_error(bus));
	shmq_bus_close(bus);
	return error != 0;
}
