/* SPDX-License-Identifier: MIT
 *
 * peer: another transport, measured beside shmq in the same rounds.
 *
 * Each peer is one file bench/peers/<name>.c or .cc that defines the object
 * `bench_peer`; it is built as a shared object of its own, so that a peer
 * whose packages are missing is absent and nothing else.  The benches load
 * what there is.
 *
 * A channel carries messages of up to `bytes` from its senders to its
 * receivers.  All ends are opened in forked, pinned processes; a process
 * that has several opens its receivers first, since a sender's opening waits
 * for its receivers and a receiver's waits for nobody.  start() and stop() run before
 * and after all that, in a process that no end is opened in, so ends know of
 * a server only what they find in `dir`.
 * Nothing is lost on a channel: a sender waits where the peer would drop.
 * Each peer is set up the way its own documentation recommends for low
 * latency on one machine.
 *
 * A plugin keeps its files in `dir`.  What it has to name elsewhere (shared
 * memory, sockets in /tmp) begins with the name of the channel, by which
 * bench/peers.c removes what a killed run left.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum peer_wait {
	PEER_SPIN = 1, /* receive polls without entering a sleep */
	PEER_SLEEP = 2 /* receive blocks in the kernel */
};

struct peer_channel {
	const char *dir;    /* private directory of this run, for sockets */
	char name[48];      /* unique on this machine: letters, digits, '-' */
	size_t bytes;       /* largest message */
	unsigned senders;   /* how many ends of each kind there will be */
	unsigned receivers; /* more than one: each gets every message */
	unsigned index;     /* which of its kind this end is, from 0 */
	enum peer_wait wait;
};

struct peer {
	const char *name;              /* as in the figures: "iceoryx" */
	size_t max_bytes;              /* largest message it carries at all */
	unsigned waits;                /* enum peer_wait it has, or-ed */
	unsigned fan_out;              /* most receivers of a channel, 1 if none */
	unsigned fan_in;               /* most senders of a channel */
	const char *(*version)(void);  /* "2.0.3", or NULL: it is the kernel's */
	int (*start)(const char *dir); /* a server of its own, or NULL; 0, or
					  -1 after a line on stderr */
	void (*stop)(void);
	/* An end, or NULL after a line on stderr.  open_send returns once
	 * every receiver is connected. */
	void *(*open_send)(const struct peer_channel *channel);
	void *(*open_recv)(const struct peer_channel *channel);
	/* 0, or -1 after a line on stderr. */
	int (*send)(void *end, const void *data, size_t len);
	/* The next message copied to buf, which holds the channel's largest:
	 * its length, or -1 likewise. */
	ssize_t (*recv)(void *end, void *buf, size_t capacity);
	void (*close)(void *end); /* either kind; what was sent still arrives */
	/* Without a copy, where the peer can; else all four are NULL.  Room
	 * for a message, which is filled and then published; the next
	 * message in place, until it is released.  NULL or -1 likewise. */
	void *(*loan)(void *end, size_t len);
	int (*publish)(void *end, void *room);
	const void *(*take)(void *end, size_t *len);
	void (*release)(void *end, const void *message);
};

__attribute__((visibility("default"))) extern const struct peer bench_peer;

#ifdef __cplusplus
}
#endif
#endif
