/* SPDX-License-Identifier: MIT
 *
 * request: the control connection while it stands, one message each
 * way.
 *
 * shmq__bus_prepare(), shmq__bus_request() and shmq__bus_notify() of
 * bus.h are here too.  bus->lock is held by who uses the bus's
 * connection.
 */
#ifndef SHMQ_REQUEST_H
#define SHMQ_REQUEST_H

#include "bus.h"

/* Send one request, receive its answer with up to WIRE_FDS_MAX
 * descriptors, which are the caller's.  0, or -errno for a connection
 * that is of no use any more. */
int shmq__request_converse(int sock, const struct proto_request *req, struct proto_reply *reply,
			   int *fds, unsigned *fd_count, uint64_t deadline);

/* Hand the descriptors of a reply to the slabs; all of them are taken
 * or closed.  0, SHMQ_EPROTO, or the error of shmq__slabs_add(). */
int shmq__request_take_slabs(struct shmq_bus *bus, const struct proto_reply *reply, int *fds,
			     unsigned fd_count);

/* Ask for those that did not fit into `reply`, if there are any; `topic` is that
 * of the request, NULL none.  As shmq__request_converse(), then as
 * shmq__request_take_slabs(). */
int shmq__request_take_rest(struct shmq_bus *bus, int sock, const char *topic,
			    const struct proto_reply *reply, uint64_t deadline);

/* A reply's descriptors did not all fit; what came was closed.  Says so
 * and returns SHMQ_ELIMIT. */
int shmq__request_no_descriptors(struct shmq__why *why);

/* Close the connection, if there is one. */
void shmq__request_disconnect(struct shmq_bus *bus);

#endif
