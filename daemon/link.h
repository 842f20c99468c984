/* SPDX-License-Identifier: MIT
 *
 * link: what parent and workers say to each other, over a private
 * SOCK_SEQPACKET pair.
 *
 *   from who holds descriptors to who is started (parent to worker, or a
 *   surviving worker to a new parent):
 *       LISTEN fd, SLAB fd ..., START
 *   from a parent to what it becomes (upgrade.h):
 *       LOCK fd, then the same
 *   worker to parent:
 *       SLAB fd        made a slab; goes on after ACK
 *       LOCK fd, LISTEN fd
 *                      the runtime directory was gone: these are in the new one
 *       READY          clients are being served
 *       LOGS           there are topics for a tailer, so run one
 *       STOPPING       the bus is over: end too
 *       RELOADED       the configuration in force is another, or the new one was refused
 *       FAILED         cannot start, and another try will not help
 *   parent to worker:
 *       ACK            slab is held and in the manifest
 *       READY          a new parent has taken over
 *       RELOAD         take the configuration anew
 *       PING           answer by PONG, for the service manager's watchdog
 *       STOP           end the bus; to a tailer: it has ended
 */
#ifndef SHMQ_LINK_H
#define SHMQ_LINK_H

#include <stdint.h>
#include <sys/types.h>

#include "error.h"

/* Those of the owner alone, one for each other uid, and a few for each set of
 * callers that share topics. */
#define LINK_SLABS_MAX 512

/* In the magic of each message.  Another one is refused, and who speaks it is not
 * taken over from. */
#define LINK_VERSION 1u

enum link_kind {
	LINK_LISTEN = 1,
	LINK_SLAB,
	LINK_START,
	LINK_ACK,
	LINK_READY,
	LINK_STOP,
	LINK_STOPPING,
	LINK_FAILED,
	LINK_LOCK,
	LINK_LOGS,
	LINK_RELOAD,
	LINK_RELOADED,
	LINK_PING,
	LINK_PONG,
};

struct link_msg {
	uint32_t magic;
	uint32_t kind;              /* enum link_kind */
	uint32_t slab, slab_kind;   /* SLAB; of ACK, slab; of RELOAD and RELOADED, slab
				       is which of them, 0 one that nobody waits for */
	uint16_t page_shift, extra; /* SLAB */
	int32_t pid;                /* of the sender */
	uint64_t bytes;             /* SLAB */
	uint64_t delay_ns;          /* START of a worker: begin so much later */
	uint64_t nonce;             /* of the bus, START and READY of the worker; 0 unknown */
	char text[SHMQ_WHY_BYTES];  /* FAILED */
};

/* One slab as its holders know it. */
struct link_slab {
	int fd; /* -1 none */
	uint32_t kind;
	uint16_t page_shift;
	uint16_t extra; /* made when it was needed; a bus goes on without it */
	uint64_t bytes;
};

/* A pair, close-on-exec, non-blocking.  0 or -errno. */
int link_pair(int pair[2]);

/* Fill in magic and pid, send; fd -1 is none.  0 or -errno. */
int link_send(int sock, struct link_msg *msg, int fd);
int link_say(int sock, enum link_kind kind);
int link_send_slab(int sock, unsigned id, const struct link_slab *slab);

/* What a SLAB speaks of. */
struct link_slab link_slab_of(const struct link_msg *msg, int fd);

/* 1 received (*fd is -1 without a descriptor), 0 the peer is gone, -EAGAIN
 * nothing there, else -errno.  timeout_ns as clock.h. */
int link_recv(int sock, struct link_msg *msg, int *fd, int64_t timeout_ns);

/* What a message that was received, or refused with -EPROTO, was sent with; 0: it is none. */
unsigned link_version_of(const struct link_msg *msg);

/* Hand over everything, slab[LINK_SLABS_MAX], or take it until START: 0 or -errno (-EPIPE if the
 * other end went before it was done).  *lock_fd is as it was if none came. */
int link_give(int sock, int listen_fd, const struct link_slab *slab, uint64_t nonce,
	      uint64_t delay_ns);
int link_take(int sock, int *listen_fd, int *lock_fd, struct link_slab *slab,
	      struct link_msg *start);

#endif
