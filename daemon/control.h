/* SPDX-License-Identifier: MIT
 *
 * control: the worker that serves the clients of a bus.  One thread; no
 * request waits for another client's, and what may take long (memory for a
 * ring or an arena) happens in a child while the loop goes on.
 *
 *   conn.c    connections, requests in, replies and events out
 *   hello.c   who a client is; joining and leaving the bus
 *   give.c    which memory it is given
 *   create.c  plan, create, remove
 *   move.c    a topic goes on in fresh rings
 *   open.c    open and close handles
 *   watch.c   subscriptions by pattern
 *   settle.c  a topic goes to the node of its first publisher
 *   reload.c  the configuration is another one
 *   events.c  what happens, as a topic
 *   limits.c  how much one uid may have
 *   reply.c   topics of those who ask
 *   orphan.c  arenas that outlived their publisher
 *   death.c   noticing and repairing
 *   stall.c   reports of stalled and evicted peers
 *   control.c start, adoption, the parent, the end
 */
#ifndef SHMQ_CONTROL_H
#define SHMQ_CONTROL_H

#include "access.h"
#include "events.h"
#include "files.h"
#include "link.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "proto.h"
#include "registry.h"
#include "work.h"

struct stall;
struct orphan;
struct parting;

/* Who waits for memory, be it freed or populated, and asks again whenever
 * some has come. */
struct memory_wait {
	TAILQ_ENTRY(memory_wait) link;
	void (*retry)(struct memory_wait *wait);
};

struct control {
	struct options *o;
	struct files files;
	struct loop *loop;
	struct place *place;
	struct registry *reg;
	struct work *work;

	struct source listen, signals, link;
	int lock_fd, spare_fd;
	struct link_slab slab[LINK_SLABS_MAX];
	uint64_t unheld[LINK_SLABS_MAX / 64]; /* bit of each that the parent may lack */
	pid_t new_parent;                     /* spawned by us, not yet known to live */
	unsigned parent_tries;
	struct timer parent_timer;

	TAILQ_HEAD(conn_queue, conn) conns; /* clients, then the others, oldest first */
	unsigned conn_count;
	uint64_t event_serial;
	struct log_limit accept_limit, refuse_limit;

	LIST_HEAD(stall_list, stall) stalls;
	uint64_t stall_looks; /* so far, at all of them */
	LIST_HEAD(orphan_list, orphan) orphans;
	TAILQ_HEAD(parting_queue, parting) partings;
	struct timer stall_timer, exec_timer, image_timer, orphan_timer, parting_timer,
		linger_timer;
	unsigned exec_next, image_next; /* client ids to be looked at next */
	unsigned jobs;                  /* children that populate */
	char log_dir[1024];             /* of this bus's logs, "" none: */
	struct shmq__why log_why;       /* why */
	unsigned reviving;              /* topics of logs that are being made again */
	struct timer stop_timer;
	char stop_by[96];
	uint64_t stop_ns; /* when it was asked to stop, 0 it was not */
	TAILQ_HEAD(memory_queue, memory_wait) memory_waits;
	struct { /* the last small one (create.c) */
		struct place_ask ask;
		struct place_answer answer;
		uint64_t until_ns;
	} plan;
	struct events events;
	int is_over;
};

/* The worker's main; returns the exit code. */
int control_run(struct options *o);

/* End every topic by name, tell clients and the parent, leave the loop.
 * `by` is for the log. */
void control_stop(struct control *c, const char *by);

/* Clients that are no part of the bus itself, `but` (may be NULL) not counted. */
unsigned control_count_others(const struct control *c, const struct peer *but);

/* 0, or SHMQ_EACCESS: the caller lacks that right on the topic, or on the bus
 * (topic "#"). */
int control_may(const struct control *c, const struct conn *conn, const char *topic,
		enum access_right right, struct shmq__why *why);

/* Until retry() is called `wait` is the queue's. */
void control_await_memory(struct control *c, struct memory_wait *wait,
			  void (*retry)(struct memory_wait *wait));
void control_memory_came(void *control);

/* Something left: an on-demand supervisor looks whether it was the last. */
void control_maybe_idle(struct control *c);

/* ---- conn.c ---------------------------------------------------------- */

enum conn_give { CONN_GIVE_READ, CONN_GIVE_WRITE };
struct conn {
	struct source source;
	struct control *c;
	TAILQ_ENTRY(conn) link;
	struct peer *peer; /* NULL before HELLO */
	int event_fd;
	uint32_t events_missed;                 /* since the last one that went out */
	struct access_caller who;               /* before HELLO the uid alone */
	uint64_t given[2][LINK_SLABS_MAX / 64]; /* bit of each slab, by enum conn_give */
	/* The operation that owes a reply, and how it is told that nobody waits
	 * for it any more.  Meanwhile nothing is read. */
	void *pending;
	void (*abandon)(void *pending);
	/* What the bus grows by for the creation asked for last: a part of it
	 * may have come by the time the request is answered. */
	uint64_t growth_token, growth;
};

/* One request being answered. */
struct exchange {
	struct control *c;
	struct conn *conn;
	const struct proto_request *req;
	struct proto_reply reply;
	int fds[PROTO_FDS_MAX];
	unsigned fd_count;     /* of fds, which stay open */
	int own_fd;            /* one that is only for this reply, or -1 */
	int is_last;           /* no more waiting for what is being freed */
	int is_anew;           /* planned hugepages were gone when they were taken */
	int is_again;          /* it was put off before */
	int is_configured;     /* nobody asked: the owner's configuration names it */
	const char *elsewhere; /* why not on the node that it need not be on, else NULL */
	int wish;              /* such a node, else SHMQ_NODE_ANY (settle.h) */
	struct shmq__why why;
};

/* What a handler returns instead of an error: the reply comes later.  Or it
 * returns POOL_COMING, having done nothing: it is called again when memory
 * has come. */
#define CONN_LATER 1

/* What conn_answer_later() needs of an exchange. */
struct conn_later {
	struct conn *conn; /* NULL once abandoned */
	struct proto_request req;
	struct proto_reply reply;
	int is_anew, is_again, wish;
};

void conn_accept(struct source *source, uint32_t events);
/* A client cannot be taken in for want of descriptors (-EMFILE, -ENFILE):
 * say so to it and in the log.  SHMQ_ELIMIT. */
int conn_refuse_full(struct control *c, int error, struct shmq__why *why);
/* One descriptor is kept for when there is no other: to have it (again), and
 * to be without it for a moment. */
int conn_has_spare(struct control *c);
void conn_lend_spare(struct control *c);
void conn_close(struct conn *conn);
/* It is this client's from now on. */
void conn_belongs(struct conn *conn, struct peer *p);

/* Defer: `later` is filled, `abandon` is called with `pending` if the
 * connection goes first. */
void conn_defer(struct exchange *x, struct conn_later *later, void *pending,
		void (*abandon)(void *pending));
/* SHMQ_ENOHUGE is not answered the first time: the request is handled anew,
 * since its plan promised what somebody else then took; nor is SHMQ_ENOMEMORY
 * while what others gave back is on its way, nor what a node lacks that was only
 * wished for.  So the caller has undone all of it before.  0 in that case, else 1. */
int conn_answer_later(struct conn_later *later, int error, const struct shmq__why *why,
		      const int *fds, unsigned fd_count);

/* Push an event to every client that has t open, but not to `except`. */
void conn_push(struct control *c, struct topic *t, enum shmq_event_kind kind, enum shmq_role role,
	       const struct peer *about, const struct peer *except);

/* "client 3 (pid 4711 "collector")"; a static buffer, for one log line. */
const char *conn_peer_text(const struct peer *p);

/* ---- the requests ---------------------------------------------------- */

/* 0, CONN_LATER or an error with x->why. */
int hello_request(struct exchange *x);
/* After its answer, which went out or found nobody: the rest of what a greeting
 * does, for which the client need not wait. */
void hello_answered(struct exchange *x);
/* Read who a watched client is, if that is not recorded yet. */
void hello_identify(struct control *c, struct peer *p);
int goodbye_request(struct exchange *x);
int create_plan_request(struct exchange *x);
int create_request(struct exchange *x);
int create_remove_request(struct exchange *x);
int open_request(struct exchange *x);
int open_close_request(struct exchange *x);
int open_join_request(struct exchange *x);
int stall_report_request(struct exchange *x);
int move_request(struct exchange *x);
int watch_request(struct exchange *x);
int reload_request(struct exchange *x);

/* ---- reload.c -------------------------------------------------------- */

/* The parent asks, for the `which`th time, to take the configuration anew. */
void reload_asked(struct control *c, uint32_t which);

/* ---- limits.c -------------------------------------------------------- */

/* Whether the caller's uid may have so much more by what shmqd.conf(5) says of it.
 * 0, or SHMQ_ELIMIT with why. */
int limits_join(struct exchange *x);
int limits_create(struct exchange *x, uint64_t bytes);
int limits_arena(const struct control *c, const struct conn *conn, uint64_t bytes,
		 struct shmq__why *why);
/* Its creator's, who is to have rings of so many bytes in the place of those; they stay
 * his until nobody has them open. */
int limits_move(const struct control *c, const struct lay_topic *rec, uint64_t bytes,
		struct shmq__why *why);

/* ---- create.c -------------------------------------------------------- */

/* Make the topics again that have a log and are not there. */
void create_revive(struct control *c);
/* Make a topic that belongs to the bus itself; what becomes of it is in the log. */
void create_own(struct control *c, const char *topic, const struct shmq_topic_options *o);
/* Make those of the configuration that are not there. */
void create_configured(struct control *c);
/* End the topic: its handles return SHMQ_EENDED, its name is free.  0, or as
 * registry_attach(): then nothing has changed. */
int create_end_topic(struct control *c, struct topic *t, const struct peer *by,
		     struct shmq__why *why);
/* Free an ended topic that nobody has open any more. */
void create_reap_topic(struct control *c, struct topic *t);
/* Lock the rings again that were locked: of one topic, or all that the last
 * worker had locked. */
void create_relock(struct control *c, struct topic *t);
void create_relock_all(struct control *c);

/* ---- open.c ---------------------------------------------------------- */

/* Take a handle out of its topic, in the order in which a SIGKILL does no
 * harm; returns the number of claims voided.  open_finish() then frees it and
 * what goes with it. */
enum open_end { OPEN_CLOSED, OPEN_DIED };
unsigned open_detach(struct control *c, struct handle *h, enum open_end how);
void open_finish(struct control *c, struct handle *h, enum shmq_event_kind kind);

/* A subscriber for a watch of p, in a topic that is not LIVE yet, from its first
 * message on.  0, or as registry_add_handle(). */
int open_seat(struct control *c, struct topic *t, struct registry_watch *w, struct shmq__why *why);

/* ---- watch.c --------------------------------------------------------- */

/* Seat all whose patterns match at t, whose rings have their first seqs and which
 * nobody has open yet.  0, or POOL_COMING: call it again when memory has come.
 * Who can't be seated is told by its library that it was not. */
int watch_seat(struct control *c, struct topic *t);
/* End the watch of that token, if there is one, and its handles. */
void watch_close(struct control *c, struct peer *p, uint64_t token);
/* It ends with its client; its handles are closed as others are. */
void watch_forget_peer(struct control *c, struct peer *p);
/* After adoption of the rest. */
void watch_adopt(struct control *c);

/* ---- orphan.c -------------------------------------------------------- */

/* Take an orphan of topic t with at least `bytes` that this uid wrote; its id,
 * or UINT32_MAX. */
uint32_t orphan_find(const struct control *c, struct topic *t, uint64_t bytes, uint32_t uid);
void orphan_begin(struct control *c, struct topic *t, uint32_t id);
/* All of a topic that goes. */
void orphan_free_topic(struct control *c, struct topic *t);
void orphan_adopt(struct control *c);

/* ---- death.c --------------------------------------------------------- */

/* Watch a client by pidfd, which is taken over.  0 or -errno. */
int death_watch(struct control *c, struct peer *p, int pidfd);
/* Its connection hung up: it may have called execve. */
void death_suspect(struct control *c);
/* Now and then, whether those with a connection have called execve: a child
 * they forked may hold it. */
void death_watch_image(struct control *c);
/* Look at one of them, for somebody who is kept waiting by it; 1 if it had. */
int death_look(struct control *c, struct peer *p);
/* Repair what it left, free its id: begun at once with what others wait for,
 * the rest in slices between events if it is much.  `how` is for the log,
 * and stays valid. */
void death_of(struct control *c, struct peer *p, const char *how);
/* It was given nothing, so it leaves nothing. */
void death_forget(struct control *c, struct peer *p);
/* It left in order, by this request.  0, or CONN_LATER if it takes longer. */
int death_leave(struct exchange *x, struct peer *p);
/* What of it is left in t goes now: somebody asks about t. */
void death_hurry(struct control *c, struct topic *t);
/* After adoption: those who died meanwhile, pidfds of the others. */
void death_check_all(struct control *c);
int death_pidfd(const struct peer *p);

/* ---- reply.c --------------------------------------------------------- */

/* May this be created: a user's name, or a private topic for replies of the caller's
 * that is no larger than it needs to be.  0, SHMQ_ENAME, SHMQ_EACCESS, SHMQ_EOPTION. */
int reply_check(const struct conn *conn, const struct proto_request *req, struct shmq__why *why);
/* A subscriber has left t: if it was for its replies, it ends.  It is reaped by the
 * caller. */
void reply_was_left(struct control *c, struct topic *t);
/* t is LIVE.  Its maker may be gone by now. */
void reply_was_made(struct control *c, struct topic *t);
/* End those that nobody has opened and nobody will: their makers are gone. */
void reply_look(struct control *c);

/* ---- stall.c --------------------------------------------------------- */

/* Forget what was watched of a topic or client that goes. */
void stall_forget_topic(struct control *c, const struct topic *t);
void stall_forget_peer(struct control *c, const struct peer *p);

#endif
