/* SPDX-License-Identifier: MIT
 *
 * common: what the plugins of several peers need; linked into each.
 */
#ifndef BENCH_PEERS_COMMON_H
#define BENCH_PEERS_COMMON_H

#include "peer.h"

#include <poll.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEER_PATH_BYTES 108 /* what the address of a socket holds */

/* A line on stderr; -1. */
int peer_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* dir/name.<i> of a channel; -1 after a line if that is too long. */
int peer_path(const struct peer_channel *channel, unsigned i, char path[PEER_PATH_BYTES]);

/* A receiver offers descriptors under a number each, and senders open them
 * anew; a sender waits until there is one.  Nothing but a link in dir has a
 * name, so that whatever is behind it ends with the last process. */
int peer_offer(const struct peer_channel *channel, unsigned i, int fd);
int peer_fetch(const struct peer_channel *channel, unsigned i, int flags);
void peer_withdraw(const struct peer_channel *channel, unsigned i);

/* Messages that a queue should hold: as many as fit in 4 MiB, within min
 * and max; a power of two if those are. */
unsigned peer_depth(const struct peer_channel *channel, unsigned min, unsigned max);

/* Between two polls.  Where there are more pollers than processors, the one
 * waited for gets its turn. */
static inline void peer_relax(unsigned *polls)
{
	void peer_yield(void);

	if (++*polls % 4096)
		__builtin_ia32_pause();
	else
		peer_yield();
}
void peer_yield(void);
void peer_nap(void); /* a millisecond, while opening */

/* After all n descriptors had nothing: poll again, or sleep until one has. */
void peer_idle(enum peer_wait wait, struct pollfd *fds, unsigned n, unsigned *polls);

/* Run a server that ends with this process at the latest, its output in the
 * file log.  peer_alive() is 0 once it has ended by itself, and then there is
 * nothing for peer_end(). */
pid_t peer_spawn(const char *file, const char *const argv[], const char *log);
int peer_alive(pid_t server);
void peer_end(pid_t server);

#ifdef __cplusplus
}
#endif
#endif
