/* SPDX-License-Identifier: MIT
 *
 * slow: dawdles over every message of a lossy topic.  The publisher never
 * waits for it; it loses most of the ticks and is told exactly how many.
 */
#include "common.h"
#include "messages.h"

/* What the ticks themselves say was skipped: trades are numbered without
 * gaps, so this must come to the same as the losses reported. */
static uint64_t missed_before(const struct trade_tick *tick, uint64_t *last_trade)
{
	uint64_t missed = tick->trade - *last_trade - 1;

	*last_trade = tick->trade;
	return missed;
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "slow", .delay_us = 200 };
	struct demo_tally tally = { 0 };
	uint64_t last_trade = 0, missed = 0;
	struct trade_tick tick;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	demo_init(argc, argv, &options);
	bus = demo_bus_open(SHMQ_START_NEVER);
	sub = demo_sub_open(bus, TOPIC_TICKS, SHMQ_FROM_LATEST);
	while (demo_receive(bus, sub, &tick, sizeof(tick), &msg, &tally, SHMQ_FOREVER) !=
	       SHMQ_EENDED) {
		const struct timespec dawdle = { .tv_nsec = options.delay_us * NS_PER_US };

		missed += missed_before(&tick, &last_trade);
		nanosleep(&dawdle, NULL);
	}
	if (missed != tally.lost)
		demo_die(NULL, 0, "%llu trades were skipped, %llu reported lost",
			 (unsigned long long)missed, (unsigned long long)tally.lost);
	demo_report_sub(bus, sub, TOPIC_TICKS, &tally, NULL);
	shmq_bus_close(bus);
	return 0;
}
