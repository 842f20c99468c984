/* SPDX-License-Identifier: MIT
 *
 * A limit order book with price-time priority, kept by the flow that makes
 * the orders and rebuilt by those who only read its messages.
 *
 * It refuses what cannot be: an execution must hit the first order of the
 * best price, so a single lost, doubled or reordered message shows at once
 * and not only in the digest at the end.
 */
#ifndef DEMO_ORDERBOOK_H
#define DEMO_ORDERBOOK_H

#include "messages.h"

#include <stddef.h>

enum { BOOK_ORDERS = 4096, BOOK_PRICES = 4096 };

struct book_order {
	uint64_t id; /* 0: free */
	uint32_t price, qty, side;
	uint32_t next, prev; /* in its level, 0 ends; slot 0 is not used */
};

struct book_level {
	uint32_t first, last;
	uint64_t qty;
};

struct book {
	struct book_order order[BOOK_ORDERS]; /* slot: id modulo BOOK_ORDERS */
	struct book_level level[2][BOOK_PRICES];
	uint32_t best[2]; /* a side without orders: 0, or BOOK_PRICES */
	uint64_t live, volume, adds, cancels, executes;
};

static inline void book_init(struct book *book)
{
	*book = (struct book){ .best = { [SIDE_BID] = 0, [SIDE_ASK] = BOOK_PRICES } };
}

static inline struct book_order *book_find(struct book *book, uint64_t id)
{
	struct book_order *order = &book->order[id % BOOK_ORDERS];

	return id && order->id == id ? order : NULL;
}

/* The first order in line for a taker, NULL if that side is empty. */
static inline struct book_order *book_best(struct book *book, uint32_t side)
{
	uint32_t price = book->best[side];

	if (price == 0 || price == BOOK_PRICES)
		return NULL;
	return &book->order[book->level[side][price].first];
}

static inline void book_unlink(struct book *book, struct book_order *order)
{
	struct book_level *level = &book->level[order->side][order->price];
	uint32_t *best = &book->best[order->side];

	*(order->prev ? &book->order[order->prev].next : &level->first) = order->next;
	*(order->next ? &book->order[order->next].prev : &level->last) = order->prev;
	order->id = 0;
	book->live--;
	if (order->side == SIDE_BID) {
		while (*best > 0 && !book->level[SIDE_BID][*best].first)
			(*best)--;
	} else {
		while (*best < BOOK_PRICES && !book->level[SIDE_ASK][*best].first)
			(*best)++;
	}
}

/* These three return NULL, or why the message cannot belong to this book. */

static inline const char *book_add(struct book *book, const struct order_add *m)
{
	uint32_t slot = m->id % BOOK_ORDERS;
	struct book_order *order = &book->order[slot];
	struct book_level *level;

	if (!slot || m->side > SIDE_ASK || !m->price || m->price >= BOOK_PRICES || !m->qty)
		return "an order is out of range";
	if (order->id)
		return "an order is added over a live one";
	if (m->side == SIDE_BID ? m->price >= book->best[SIDE_ASK] :
				  m->price <= book->best[SIDE_BID])
		return "an order crosses the book";

	level = &book->level[m->side][m->price];
	*order = (struct book_order){
		.id = m->id, .price = m->price, .qty = m->qty, .side = m->side, .prev = level->last
	};
	*(level->last ? &book->order[level->last].next : &level->first) = slot;
	level->last = slot;
	level->qty += m->qty;
	if (m->side == SIDE_BID ? m->price > book->best[SIDE_BID] : m->price < book->best[SIDE_ASK])
		book->best[m->side] = m->price;
	book->live++;
	book->adds++;
	return NULL;
}

static inline const char *book_cancel(struct book *book, const struct order_cancel *m)
{
	struct book_order *order = book_find(book, m->id);

	if (!order)
		return "an unknown order is cancelled";
	if (order->qty != m->qty || order->price != m->price || order->side != m->side)
		return "an order is cancelled that looks otherwise here";
	book->level[order->side][order->price].qty -= order->qty;
	book_unlink(book, order);
	book->cancels++;
	return NULL;
}

static inline const char *book_execute(struct book *book, const struct order_execute *m)
{
	struct book_order *order = book_find(book, m->id);

	if (!order)
		return "an unknown order is executed";
	if (order != book_best(book, order->side))
		return "an execution passes over the first order of the best price";
	if (order->price != m->price || order->qty != m->qty + m->left)
		return "an order is executed that looks otherwise here";
	book->level[order->side][order->price].qty -= m->qty;
	order->qty = m->left;
	if (!order->qty)
		book_unlink(book, order);
	book->volume += m->qty;
	book->executes++;
	return NULL;
}

/* FNV-1a over every live order, and over every level from the best price on. */
static inline uint64_t book_digest(const struct book *book)
{
	uint64_t digest = 14695981039346656037ull;

#define BOOK_MIX(word) (digest = (digest ^ (word)) * 1099511628211ull)
	for (size_t i = 0; i < BOOK_ORDERS; i++) {
		const struct book_order *order = &book->order[i];

		if (!order->id)
			continue;
		BOOK_MIX(order->id);
		BOOK_MIX(order->price);
		BOOK_MIX(order->qty);
		BOOK_MIX(order->side);
		BOOK_MIX(order->next);
	}
	for (size_t side = SIDE_BID; side <= SIDE_ASK; side++)
		for (size_t price = 0; price < BOOK_PRICES; price++)
			BOOK_MIX(book->level[side][price].qty);
#undef BOOK_MIX
	return digest;
}

static inline struct order_end book_summary(const struct book *book, uint64_t n, uint64_t seed)
{
	return (struct order_end){ .n = n,
				   .adds = book->adds,
				   .cancels = book->cancels,
				   .executes = book->executes,
				   .live = book->live,
				   .volume = book->volume,
				   .digest = book_digest(book),
				   .seed = seed };
}

#endif
