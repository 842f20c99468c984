/* SPDX-License-Identifier: MIT
 *
 * peers: the other transports there are on this machine, from the directory
 * peers/ beside the benchmark.
 */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include "common.h"
#include "peer.h"

/* Load the peers that the option --peers chose and start their servers, which run
 * until the program ends.  Those missing are named once, by lines `absent <name> <why>` on stdout.
 * The list ends with NULL.  Call it in the parent before anything is forked, and have children end
 * by _exit(); later calls return the same list. */
const struct peer *const *bench_peers(void);

/* Peers that are absent, though they were built, or chosen by their names. */
unsigned bench_peers_broken(void);

/* A channel that nobody has used yet, to be opened in forked processes,
 * which set its index. */
struct peer_channel bench_channel(size_t bytes, unsigned senders, unsigned receivers,
				  enum peer_wait wait);

/* The peer after one, the first after NULL, that can have such channels, or
 * NULL at the end.  A label says of each of the others what it can't, for it
 * is then missing among the figures. */
enum peer_use { PEER_COPIES, PEER_IN_PLACE };
const struct peer *bench_next_peer(const struct peer *after, const char *figures,
				   const struct peer_channel *channel, enum peer_use use);

/* `.peer.<name>`, with which its figures' names go on, until the next call. */
const char *bench_peer_who(const struct peer *p);

/* How it waits where polling is better but some only sleep. */
static inline enum peer_wait bench_peer_polls(const struct peer *p)
{
	return p->waits & PEER_SPIN ? PEER_SPIN : PEER_SLEEP;
}

/* An end in this process: what fails ends the program. */
struct peer_end {
	const struct peer *peer;
	void *end;
};
enum peer_kind { PEER_SENDER, PEER_RECEIVER };
struct peer_end bench_peer_open(const struct peer *p, enum peer_kind kind,
				const struct peer_channel *channel);

static inline void bench_peer_send(const struct peer_end *e, const char *buf, size_t bytes)
{
	if (e->peer->send(e->end, buf, bytes))
		bench_fail("%s: sending failed", e->peer->name);
}

static inline void bench_peer_receive(const struct peer_end *e, char *buf, size_t bytes)
{
	ssize_t len = e->peer->recv(e->end, buf, bytes);

	if (len < 0)
		bench_fail("%s: receiving failed", e->peer->name);
	if ((size_t)len != bytes)
		bench_fail("%s: a message has another length", e->peer->name);
}

static inline void *bench_peer_loan(const struct peer_end *e, size_t bytes)
{
	void *room = e->peer->loan(e->end, bytes);

	if (!room)
		bench_fail("%s: no room for a message", e->peer->name);
	return room;
}

static inline void bench_peer_publish(const struct peer_end *e, void *room)
{
	if (e->peer->publish(e->end, room))
		bench_fail("%s: publishing failed", e->peer->name);
}

static inline const void *bench_peer_take(const struct peer_end *e, size_t bytes)
{
	size_t len;
	const void *message = e->peer->take(e->end, &len);

	if (!message)
		bench_fail("%s: receiving failed", e->peer->name);
	if (len != bytes)
		bench_fail("%s: a message has another length", e->peer->name);
	return message;
}

static inline void bench_peer_close(const struct peer_end *e)
{
	e->peer->close(e->end);
}

#endif
