/* SPDX-License-Identifier: MIT
 *
 * peers: the other transports there are on this machine, from the directory
 * peers/ beside the benchmark.
 */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include "peer.h"

/* Load the peers that the option --peers chose (all, `none`, or their names
 * with commas between) and start their servers, which run until the program
 * ends.  Those missing are named once, by lines `absent <name> <why>` on
 * stdout.  The list ends with NULL.  Call it in the parent before anything
 * is forked, and have children end by _exit(); later calls return the same list. */
const struct peer *const *bench_peers(void);

/* Peers that were built and chosen, and yet are absent. */
unsigned bench_peers_broken(void);

/* A channel that nobody has used yet, to be opened in forked processes,
 * which set its index. */
struct peer_channel bench_channel(size_t bytes, unsigned senders, unsigned receivers,
				  enum peer_wait wait);

#endif
