/* SPDX-License-Identifier: MIT
 *
 * flow: a seeded generator of order flow.  Publishes adds, cancels and
 * executions in small paced bursts, each execution also as a tick, and at the
 * end a summary of the book that all of it must have built.
 */
#include "common.h"
#include "orderbook.h"

#include <errno.h>

enum {
	BURST = 100,
	LIVE_MIN = 500,
	LIVE_MAX = BOOK_ORDERS - 96,
	SPREAD = 64, /* new orders stand so close to the middle */
	MIDDLE_MIN = 4 * SPREAD,
	MIDDLE_MAX = BOOK_PRICES - 4 * SPREAD,
};

union order_message {
	struct order_add add;
	struct order_cancel cancel;
	struct order_execute execute;
	struct order_end end;
};

/* What a burst fills and two publish calls empty. */
struct burst {
	size_t orders, ticks;
	struct shmq_msg order_msg[BURST], tick_msg[BURST];
	union order_message order[BURST];
	struct trade_tick tick[BURST];
};

struct flow {
	uint64_t random, n, serial, trades, ticks;
	uint32_t middle;
	uint32_t free_slots[BOOK_ORDERS], free_count;
	uint32_t live[BOOK_ORDERS], where[BOOK_ORDERS]; /* slots, and their index in live */
	struct book book;
	struct burst burst;
};

static uint64_t flow_random(struct flow *flow, uint64_t below)
{
	flow->random ^= flow->random << 13;
	flow->random ^= flow->random >> 7;
	flow->random ^= flow->random << 17;
	return (flow->random >> 11) % below;
}

static void flow_init(struct flow *flow, uint64_t seed)
{
	flow->random = seed * 2654435769u + 1;
	flow->middle = BOOK_PRICES / 2;
	for (uint32_t slot = BOOK_ORDERS - 1; slot > 0; slot--)
		flow->free_slots[flow->free_count++] = slot;
	book_init(&flow->book);
}

static union order_message *next_message(struct flow *flow, enum order_kind kind, size_t len)
{
	size_t i = flow->burst.orders++;
	union order_message *message = &flow->burst.order[i];

	flow->burst.order_msg[i] = (struct shmq_msg){ .data = message, .len = len, .type = kind };
	return message;
}

static void must(const char *wrong)
{
	if (wrong)
		demo_die(NULL, 0, "the generator is wrong: %s", wrong);
}

static void forget_slot(struct flow *flow, uint32_t slot, uint64_t live_before)
{
	uint32_t i = flow->where[slot], last = flow->live[live_before - 1];

	flow->live[i] = last;
	flow->where[last] = i;
	flow->free_slots[flow->free_count++] = slot;
}

static void make_add(struct flow *flow)
{
	uint32_t slot = flow->free_slots[--flow->free_count];
	uint32_t side = flow_random(flow, 2), off = 1 + flow_random(flow, SPREAD);
	uint32_t bid = flow->book.best[SIDE_BID], ask = flow->book.best[SIDE_ASK];
	uint32_t price = side == SIDE_BID ? flow->middle - off : flow->middle + off;
	struct order_add *m = &next_message(flow, ORDER_ADD, sizeof(*m))->add;

	if (flow_random(flow, 64) == 0)
		flow->middle += flow_random(flow, 3) - 1;
	if (flow->middle < MIDDLE_MIN || flow->middle > MIDDLE_MAX)
		flow->middle = BOOK_PRICES / 2;
	if (side == SIDE_BID && price >= ask)
		price = ask - 1;
	if (side == SIDE_ASK && price <= bid)
		price = bid + 1;
	*m = (struct order_add){ .n = flow->n++,
				 .id = ++flow->serial * BOOK_ORDERS + slot,
				 .price = price,
				 .qty = 1 + flow_random(flow, 100),
				 .side = side };
	snprintf(m->account, sizeof(m->account), "A%u", (unsigned)flow_random(flow, 100));
	flow->where[slot] = flow->book.live;
	flow->live[flow->book.live] = slot;
	must(book_add(&flow->book, m));
}

static void make_cancel(struct flow *flow)
{
	uint64_t live = flow->book.live;
	uint32_t slot = flow->live[flow_random(flow, live)];
	const struct book_order *order = &flow->book.order[slot];
	struct order_cancel *m = &next_message(flow, ORDER_CANCEL, sizeof(*m))->cancel;

	*m = (struct order_cancel){ .n = flow->n++,
				    .id = order->id,
				    .price = order->price,
				    .qty = order->qty,
				    .side = order->side };
	must(book_cancel(&flow->book, m));
	forget_slot(flow, slot, live);
}

static void make_tick(struct flow *flow, const struct order_execute *m)
{
	size_t i = flow->burst.ticks++;

	flow->burst.tick[i] = (struct trade_tick){ .trade = m->trade,
						   .volume = m->volume,
						   .taker = m->taker,
						   .price = m->price,
						   .qty = m->qty,
						   .side = m->side };
	flow->burst.tick_msg[i] = (struct shmq_msg){ .data = &flow->burst.tick[i],
						     .len = sizeof(flow->burst.tick[i]) };
	flow->ticks++;
}

static void make_execute(struct flow *flow)
{
	uint64_t live = flow->book.live;
	const struct book_order *order = book_best(&flow->book, flow_random(flow, 2));
	struct order_execute *m;
	uint32_t qty, slot;

	if (!order) {
		make_add(flow);
		return;
	}
	m = &next_message(flow, ORDER_EXECUTE, sizeof(*m))->execute;
	qty = 1 + flow_random(flow, order->qty);
	slot = order->id % BOOK_ORDERS;
	*m = (struct order_execute){ .n = flow->n++,
				     .id = order->id,
				     .taker = 1 + flow_random(flow, 100),
				     .trade = ++flow->trades,
				     .price = order->price,
				     .qty = qty,
				     .left = order->qty - qty,
				     .side = order->side,
				     .volume = flow->book.volume + qty };
	must(book_execute(&flow->book, m));
	if (!m->left)
		forget_slot(flow, slot, live);
	make_tick(flow, m);
}

static void make_message(struct flow *flow)
{
	uint64_t draw = flow_random(flow, 100), live = flow->book.live;

	if (live < LIVE_MIN || (draw < 45 && live < LIVE_MAX))
		make_add(flow);
	else if (draw < 80)
		make_cancel(flow);
	else
		make_execute(flow);
}

static void publish_burst(shmq_bus *bus, struct flow *flow, shmq_pub *orders, shmq_pub *ticks)
{
	demo_publish_all(bus, orders, flow->burst.order_msg, flow->burst.orders);
	demo_publish_all(bus, ticks, flow->burst.tick_msg, flow->burst.ticks);
	flow->burst.orders = flow->burst.ticks = 0;
}

static void publish_end(shmq_bus *bus, struct flow *flow, shmq_pub *orders, uint64_t seed)
{
	struct order_end *m = &next_message(flow, ORDER_END, sizeof(*m))->end;
	FILE *file = demo_file("flow", "book", "w");
	int error;

	*m = book_summary(&flow->book, flow->n++, seed);
	demo_publish_all(bus, orders, flow->burst.order_msg, flow->burst.orders);
	error = shmq_flush(orders, 10 * NS_PER_S);
	if (error)
		demo_die(bus, error, "flushing \"%s\"", TOPIC_ORDERS);
	if (!file ||
	    fprintf(file, "%llu live, digest %016llx\n", (unsigned long long)m->live,
		    (unsigned long long)m->digest) < 0 ||
	    fclose(file))
		demo_die(NULL, -errno, "writing the digest");
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "flow", .rate = 200000, .seed = 1 };
	static struct flow state;
	struct flow *flow = &state;
	struct demo_pace pace = { 0 };
	shmq_pub *orders, *ticks;
	shmq_bus *bus;

	demo_init(argc, argv, &options);
	flow_init(flow, options.seed);
	bus = demo_bus_open(SHMQ_START_NEVER);
	orders = demo_pub_open(bus, TOPIC_ORDERS, options.subscribers);
	ticks = demo_pub_open(bus, TOPIC_TICKS, options.subscribers);

	pace.period_ns = BURST * NS_PER_S / options.rate;
	while (!demo_stopping) {
		while (flow->burst.orders < BURST)
			make_message(flow);
		publish_burst(bus, flow, orders, ticks);
		demo_pace_wait(&pace);
	}
	publish_end(bus, flow, orders, options.seed);
	demo_report_pub(bus, orders, TOPIC_ORDERS, flow->n);
	demo_report_pub(bus, ticks, TOPIC_TICKS, flow->ticks);
	shmq_bus_close(bus);
	return 0;
}
