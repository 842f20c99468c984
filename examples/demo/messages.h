/* SPDX-License-Identifier: MIT
 *
 * What travels over the topics of the demo.  The structs are published as
 * they are: both sides run on one machine, so byte order and alignment are
 * the same.  shmq_msg.type tells what a message is.
 */
#ifndef DEMO_MESSAGES_H
#define DEMO_MESSAGES_H

#include <stdint.h>

#define TOPIC_CPU "sys.cpu"
#define TOPIC_MEM "sys.mem"
#define TOPIC_LOAD "sys.load"
#define TOPIC_NET "sys.net"
#define TOPIC_DISK "sys.disk"
#define TOPIC_PROC "sys.proc"
#define TOPIC_ORDERS "trade.orders"
#define TOPIC_TICKS "trade.ticks"
#define TOPIC_EVENTS "demo.events" /* lines of text from the conductor */

/* The first fits a 128-byte slot with a time stamp, the second does not. */
enum { MESSAGE_MAX = 96, EVENT_MAX = 512 };

/* ---- telemetry: counters as /proc has them; readers take differences --- */

struct tele_cpu {
	uint32_t cpu, pad;
	uint64_t busy_ticks, total_ticks; /* of 1/100 s */
};

struct tele_mem {
	uint64_t total_bytes, available_bytes, cached_bytes, swap_used_bytes;
};

struct tele_load {
	double load1, load5, load15;
	uint32_t running, threads;
};

struct tele_net {
	char name[16];
	uint64_t rx_bytes, tx_bytes;
};

struct tele_disk {
	char name[32];
	uint64_t read_bytes, written_bytes;
};

/* Several collectors may publish to sys.proc; `source` says which one did. */
struct tele_proc {
	int32_t source, pid;
	uint64_t cpu_ticks, rss_bytes;
	char name[16];
};

/* ---- order flow ------------------------------------------------------ */

enum order_kind { ORDER_ADD = 1, ORDER_CANCEL, ORDER_EXECUTE, ORDER_END };

enum order_side { SIDE_BID, SIDE_ASK };

/* `n` counts the messages of the flow from 0, whatever their seq. */
struct order_add {
	uint64_t n, id;
	uint32_t price, qty;
	uint32_t side, pad;
	char account[16];
};

struct order_cancel {
	uint64_t n, id;
	uint32_t price, qty;
	uint32_t side, reason;
	uint64_t account;
};

/* A taker meets the first resting order `id` of the best price. */
struct order_execute {
	uint64_t n, id, taker, trade;
	uint32_t price, qty, left, side;
	uint64_t volume; /* traded so far */
};

/* The last message: what a book rebuilt from the others must come to. */
struct order_end {
	uint64_t n, adds, cancels, executes;
	uint64_t live, volume, digest, seed;
};

struct trade_tick {
	uint64_t trade, volume, taker;
	uint32_t price, qty, side, pad;
};

_Static_assert(sizeof(struct order_add) == 48, "a message of the flow has 40 to 64 bytes");
_Static_assert(sizeof(struct order_cancel) == 40, "a message of the flow has 40 to 64 bytes");
_Static_assert(sizeof(struct order_execute) == 56, "a message of the flow has 40 to 64 bytes");
_Static_assert(sizeof(struct order_end) == 64, "a message of the flow has 40 to 64 bytes");
_Static_assert(sizeof(struct trade_tick) == 40, "a message of the flow has 40 to 64 bytes");

#endif
