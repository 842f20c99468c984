/* SPDX-License-Identifier: MIT
 *
 * bus: this process's attachment to a bus, shared by all its handles.
 *
 * Its parts are attach.h (coming to the supervisor, and back), start.h
 * (starting one), request.h (the control connection), event.h, serve.h (the
 * library's thread) and handle.c; bus.c opens and closes.  Here stands what
 * they share and what handles use of them.
 *
 * One mutex guards the control connection and the list of handles; it is
 * never taken on the data path.  The library's thread reads events and
 * re-attaches; it starts with the first handle, after the process has
 * registered for membarrier.
 */
#ifndef SHMQ_BUS_H
#define SHMQ_BUS_H

#include "bell.h"
#include "name.h"
#include "proto.h"
#include "slabs.h"
#include "topic.h"

#include <pthread.h>

#define BUS_EVENTS 1024

/* Nothing that a handler of messages would return. */
#define BUS_ALIVE 0x6c697665u

/* A page that the kernel wipes in a forked child: how a handle knows that
 * it is not where it was opened. */
struct bus_guard {
	_Atomic uint32_t alive; /* BUS_ALIVE, or 0 */
};

/* What a publisher or a subscriber uses for each message stands this far from what the
 * library's thread writes: a line and the one that processors fetch with it. */
#define HANDLE_APART (2 * LAY_LINE)

/* What publishers and subscribers have in common. */
struct shmq__handle {
	/* A line of which the library's thread, which makes deferred wakes, takes no other
	 * with it: where it reads one after the other the processor fetches ahead. */
	struct shmq__topic *topic;
	struct lay_entry *entry;            /* own entries, writable */
	struct shmq__handle *next_deferred; /* publishers with deferred wakes */
	int64_t wake_ns;                    /* how late those may be */
	uint64_t woken_for;                 /* where the last look ended (serve.h) */

	struct shmq_bus *bus;
	struct shmq__handle *next, **link; /* bus->handles */
	uint64_t token;
	lay_ref entry_ref;
	uint32_t entry_count;
	uint32_t arena; /* id + 1, or 0 */
	void (*close)(struct shmq__handle *handle);
};
_Static_assert(offsetof(struct shmq__handle, bus) <= LAY_LINE, "what is served is in a line");

struct shmq_bus {
	char name[SHMQ_BUS_NAME_MAX + 1];
	char dir[108], path[192];
	char client_name[32];
	char *daemon_path;
	enum shmq_start_mode start;
	enum shmq_serve_mode serve;
	int64_t timeout_ns;
	int is_interruptible;
	shmq_au32 interrupt; /* not 0: nobody waits; relaxed, as it says nothing else */

	struct bus_guard *guard;
	struct shmq__slabs *slabs;

	pthread_mutex_t lock; /* from here to the next blank line */
	int sock;
	uint64_t nonce, bus_nonce, next_token;
	uint64_t gen;
	struct shmq__handle *handles;
	uint64_t *to_close; /* handles closed while the supervisor was away */
	size_t to_close_count, to_close_capacity;
	int64_t retry_ns;
	uint64_t next_offer_ns; /* not before it */
	uint64_t next_start_ns; /* likewise: starting a supervisor */
	int64_t start_pause_ns;
	pid_t starter;  /* a start on its way, 0 none */
	int registered; /* for membarrier: 0 not asked, 1 yes, -1 denied */
	int thread_started;
	int is_leaving; /* shmq_bus_close() is at it: nobody comes back, */
	int has_left;   /* and it said so */

	unsigned client;
	_Atomic int attached, lost, reattached;
	int event_sock; /* same number for life; dup2() replaces what is behind */
	int poll_fd, kick_fd;
	pthread_t thread;
	_Atomic int stop;
	_Atomic int64_t wake_ns; /* shortest deferred wake, 0 none */
	pthread_mutex_t deferred_lock;
	struct shmq__handle *deferred;

	struct shmq__notifier *notifier; /* notify.c; event_lock */
	struct shmq__waiting *waiter;    /* listener.c; event_lock */

	pthread_mutex_t event_lock;
	pthread_cond_t event_cond;
	struct shmq_event event[BUS_EVENTS];
	unsigned event_first, event_count;
	uint64_t event_missed;
};

/* 0, or SHMQ_EFORKED in a child. */
static inline int bus_check(const struct shmq_bus *bus)
{
	return likely(load_relaxed(&bus->guard->alive)) ? 0 : SHMQ_EFORKED;
}

/* The word that ends waits once it is not 0, or NULL. */
static inline const shmq_au32 *bus_interrupt(const struct shmq_bus *bus)
{
	return bus->is_interruptible ? &bus->interrupt : NULL;
}

static inline int bus_is_interrupted(const struct shmq_bus *bus)
{
	return load_relaxed((shmq_au32 *)(uintptr_t)&bus->interrupt) != 0;
}

/* Begin a call that may explain its failure: clears this thread's line. */
struct shmq__why *shmq__bus_why(void);

/* Maps and memory run out with the same error: says so of `doing` "name", and
 * returns error. */
int shmq__bus_no_memory(struct shmq__why *why, int error, const char *doing, const char *name);

/* Send a request, get its answer; descriptors that came with it are in
 * bus->slabs.  Re-attaches and asks again while the supervisor is away, for
 * bus->timeout_ns.  Returns the reply's error, or SHMQ_ENODAEMON,
 * SHMQ_EDAEMON, SHMQ_ELOST, SHMQ_EPROTO. */
int shmq__bus_request(struct shmq_bus *bus, struct proto_request *req, struct proto_reply *reply,
		      struct shmq__why *why);

/* Prepare a request: magic, version, token, topic name (may be NULL). */
void shmq__bus_prepare(struct shmq_bus *bus, struct proto_request *req, enum proto_op op,
		       const char *topic);

/* Have what a topic is looked into by.  0, SHMQ_EACCESS (it is not for us), or as
 * shmq__bus_request(). */
int shmq__bus_look(struct shmq_bus *bus, const struct lay_topic *rec);

/* Have the slab of an arena of this topic, whose publisher may have come after
 * us: it was pushed to us, or we ask for it.  0, SHMQ_ECORRUPT (it is of no such
 * topic), or as shmq__bus_request(). */
int shmq__bus_reach(struct shmq_bus *bus, const struct shmq__topic *topic, lay_ref ref);

/* Tell the supervisor something from the data path: never waits for it
 * longer than a tenth of a second, not at all while it is away.  The reply's
 * error, or another: then nobody knows whether it has heard. */
int shmq__bus_notify(struct shmq_bus *bus, struct proto_request *req);

/* Open a handle: request, attach the topic, map the entries.  `req` is
 * prepared; fills *h, which the caller has zeroed but for its close. */
int shmq__bus_open_handle(struct shmq_bus *bus, struct proto_request *req, struct shmq__handle *h,
			  enum shmq__slabs_mode mode, struct shmq__why *why);
/* The second half of it alone, for a handle that the supervisor opened by itself:
 * h->token, entry_ref and entry_count are filled; the entry must carry entry_gen.
 * On failure nothing is mapped, and the supervisor is not told. */
int shmq__bus_map_handle(struct shmq_bus *bus, uint32_t topic_index, uint64_t topic_id,
			 uint64_t entry_gen, struct shmq__handle *h, enum shmq__slabs_mode mode);
/* Tells the supervisor, unless the token is 0. */
void shmq__bus_close_handle(struct shmq__handle *h);
/* A token of the list of those that are closed, or an opening of which it is not
 * known whether it was granted. */
void shmq__bus_close_token(struct shmq_bus *bus, uint64_t token);
/* `to` is a copy of `from`, or `from` itself: it stays where it is from now on,
 * and is listed, so that closing the bus closes it.  Not before: other threads
 * change the links of what is listed. */
void shmq__bus_move_handle(struct shmq__handle *to, struct shmq__handle *from);

/* Take it from that list, if it is there.  It may be listed again, and is then closed
 * before those that were listed meanwhile. */
void shmq__bus_unlist_handle(struct shmq__handle *h);

/* Tell the supervisor, which is back, of the handles that were closed while it
 * was away.  Locked; disconnects if that fails. */
void shmq__bus_send_closes(struct shmq_bus *bus);

/* Register for membarrier if the topic lets anyone sleep, start the
 * library's thread if it is to serve; the fence this process uses. */
enum shmq__fence shmq__bus_ready(struct shmq_bus *bus, unsigned topic_flags);

/* With what commits fence, if bells are looked at with `fence`: in full also where
 * the supervisor, which ends and moves topics, has no membarrier. */
enum shmq__fence shmq__bus_commit_fence(const struct shmq_bus *bus, enum shmq__fence fence);

/* Deferred wakes: the thread looks at the data bells of these handles, once
 * they have sent something. */
void shmq__bus_defer(struct shmq_bus *bus, struct shmq__handle *h, int64_t wake_ns);
void shmq__bus_undefer(struct shmq_bus *bus, struct shmq__handle *h);

/* The partition records of the topic with this id; 0: there is none. */
lay_ref shmq__bus_partition_array(struct shmq_bus *bus, uint64_t topic_id);
/* What shmq_topic_each() says of the topic record `index`. */
int shmq__bus_describe_topic(struct shmq_bus *bus, uint32_t index, struct shmq_topic_info *out);

/* Copy caller's options over zeros: NULL means defaults, an unknown
 * non-zero tail is refused.  0 or SHMQ_EOPTION. */
int shmq__options_copy(void *to, const void *from, size_t known, struct shmq__why *why);

#endif
