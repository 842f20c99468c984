/* SPDX-License-Identifier: MIT
 *
 * history: what every publisher of a topic sent and every subscriber got, and
 * whether that can be.
 *
 * Each writes down what it does as it does it, so what one was in the middle
 * of when it was killed may or may not have happened: such a send is open.
 * history_check() decides
 *
 *   each message is what its publisher sent, whole, and was not refused
 *   each partition has one order: nobody disagrees about any of its seqs, and
 *   no message has two of them
 *   in it, a publisher's messages stand in the order in which it sent them
 *   each subscriber gets each at most once and in that order, and all from
 *   where it joined to where it stopped but for what it was told is lost:
 *   received + lost = committed, neither more nor less
 *   of an atomic batch it gets all or none
 *   who starts at a time starts with the first message of that time or later
 */
#ifndef HISTORY_H
#define HISTORY_H

#include <stddef.h>
#include <stdint.h>

enum { HISTORY_PARTITIONS = 4 };

enum history_state {
	HISTORY_OPEN = 0, /* its publisher died before it knew */
	HISTORY_SENT,
	HISTORY_REFUSED,
};

/* One line of a publisher's book; the n-th is its message n. */
struct history_send {
	uint32_t state;
	uint32_t partition; /* SENT */
	uint64_t seq;       /* likewise */
	uint64_t batch;     /* message 0 of the atomic batch, or its own number */
	uint32_t batch_count;
};

struct history_publisher {
	uint64_t who;
	const struct history_send *send;
	size_t count;
};

/* One line of a subscriber's book. */
struct history_receipt {
	uint32_t partition;
	uint32_t is_bound; /* of lost */
	uint64_t lost;     /* 0: it is a message */
	uint64_t seq, who, n;
	uint64_t sum; /* of all its bytes */
	uint64_t ts;  /* where the topic has times */
};

struct history_subscriber {
	const struct history_receipt *receipt;
	size_t count;
	uint64_t start[HISTORY_PARTITIONS]; /* the first seq that it is to get, */
	uint64_t from_ts; /* ... of the first message of that time or later on; or 0 */
	int goes_on;      /* at a stored cursor: what began before it is its own, too */
	uint64_t end[HISTORY_PARTITIONS]; /* the seq after the last */
	int lived;                        /* until then; else it was killed before */
};

struct history {
	unsigned partitions;
	const struct history_publisher *publisher;
	size_t publishers;
	const struct history_subscriber *subscriber;
	size_t subscribers;
	size_t most; /* bytes of the largest message */
};

/* 0; or 1 and what is wrong with it. */
int history_check(const struct history *h, char *why, size_t why_bytes);

/* The bytes of message n of a publisher: how many, and which. */
size_t history_fill(char *buf, size_t most, uint64_t who, uint64_t n);
uint64_t history_sum(const void *data, size_t bytes);

/* What stands in such bytes.  1, or 0 if they are too few. */
int history_read(const void *data, size_t bytes, uint64_t *who, uint64_t *n);

#endif
