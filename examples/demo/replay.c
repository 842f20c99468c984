/* SPDX-License-Identifier: MIT
 *
 * replay: comes when millions of orders are past, starts with the first of all,
 * which only the topic's log has, and runs on into what the flow publishes
 * meanwhile, until its summary.
 */
#include "common.h"
#include "messages.h"

#include <string.h>

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "replay" };
	struct demo_tally tally = { 0 };
	char buf[MESSAGE_MAX];
	struct shmq_msg msg = { 0 };
	uint64_t n, next = 0;
	shmq_bus *bus;
	shmq_sub *sub;

	demo_init(argc, argv, &options);
	bus = demo_bus_open(SHMQ_START_NEVER);
	sub = demo_sub_open(bus, TOPIC_ORDERS, SHMQ_FROM_OLDEST);
	while (msg.type != ORDER_END) {
		int error = demo_receive(bus, sub, buf, sizeof(buf), &msg, &tally, 5 * NS_PER_S);

		if (error)
			demo_die(bus, error, "replaying \"%s\" after %llu messages", TOPIC_ORDERS,
				 (unsigned long long)tally.received);
		memcpy(&n, buf, sizeof(n));
		if (tally.received > 1 && n != next)
			demo_die(NULL, 0, "message %llu came where %llu was next",
				 (unsigned long long)n, (unsigned long long)next);
		next = n + 1;
	}
	demo_report_sub(bus, sub, TOPIC_ORDERS, &tally, NULL);
	shmq_bus_close(bus);
	return 0;
}
