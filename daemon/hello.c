/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "give.h"
#include "proc.h"
#include "tailer.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5 */
#endif

/* Some nine hundred events: fewer than a client keeps for its application. */
#define EVENT_ROOM_BYTES (400 << 10)

struct caller {
	struct shmq__proc_id id;
	int pidfd;
};

/* ---- who is calling -------------------------------------------------- */

static int has_exited(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

static int has_hung_up(int sock)
{
	struct pollfd p = { .fd = sock, .events = 0 };

	return poll(&p, 1, 0) != 0 && (p.revents & (POLLHUP | POLLERR));
}

/* A pidfd of the process that connected.  Without SO_PEERPIDFD the number
 * could have been given to another one since; but its socket is still
 * open, and only it has that. */
static int open_pidfd(int sock, pid_t pid)
{
	socklen_t length = sizeof(int);
	int fd;

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &length))
		return fd;
	fd = shmq__proc_pidfd(pid);
	if (fd >= 0 && has_hung_up(sock)) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

static int is_full(int error)
{
	return error == -EMFILE || error == -ENFILE;
}

/* Whom the kernel says is at the other end, watched from here on. */
static int find_caller(struct control *c, struct conn *conn, struct caller *who,
		       struct shmq__why *why)
{
	int sock = conn->source.fd, error;
	struct ucred cred;
	socklen_t length = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &length))
		return -errno;
	who->id = (struct shmq__proc_id){ .pid = cred.pid };
	access_forget(&conn->who);
	error = access_identify(sock, &conn->who);
	if (error)
		return error;
	if (!access_knows(c->o->access, &conn->who))
		return shmq__fail(why, SHMQ_EACCESS,
				  "this bus belongs to uid %u, the caller is uid %u%s",
				  (unsigned)geteuid(), (unsigned)cred.uid,
				  access_has_rules(c->o->access) ?
					  ", whom no rule lets in (shmqd --allow)" :
					  "");
	if (cred.pid <= 0)
		return shmq__fail(
			why, SHMQ_EACCESS,
			"the caller's pid namespace cannot be seen from the supervisor's");
	who->pidfd = open_pidfd(sock, cred.pid);
	if (is_full(who->pidfd))
		return conn_refuse_full(c, who->pidfd, why);
	if (who->pidfd < 0)
		return shmq__fail(why, SHMQ_EPEERDEAD, "the caller (pid %d) is gone",
				  (int)cred.pid);
	return 0;
}

/* Read its identity, then make sure that it was this process's. */
static int identify(struct control *c, struct shmq__proc_id *id, int pidfd, struct shmq__why *why)
{
	int error;

	conn_lend_spare(c);
	error = shmq__proc_identify(id->pid, id);
	conn_has_spare(c);
	if (!error && !has_exited(pidfd))
		return 0;
	if (is_full(error))
		return conn_refuse_full(c, error, why);
	return shmq__fail(why, SHMQ_EPEERDEAD, "the caller (pid %d) cannot be identified: %s",
			  (int)id->pid, error ? strerror(-error) : "it is gone");
}

/* A client that was taken in before: of this nonce, pid and uid, and the same
 * process.  Only then is the identity read here, for it takes as long as the
 * rest of a greeting; see hello_answered(). */
static int find_known(struct exchange *x, struct caller *who, struct peer **out)
{
	struct peer *p;
	int error;

	*out = NULL;
	if (x->req->hello.bus_nonce && x->req->hello.bus_nonce != x->c->reg->head->nonce)
		return 0;
	LIST_FOREACH (p, &x->c->reg->peers, link)
		if (load_relaxed(&p->rec->nonce) == x->req->hello.nonce &&
		    load_relaxed(&p->rec->state) == LAY_CLIENT_LIVE &&
		    load_relaxed(&p->rec->pid) == (uint32_t)who->id.pid &&
		    access_is_same(&x->conn->who, load_relaxed(&p->rec->uid)))
			break;
	if (!p)
		return 0;
	error = identify(x->c, &who->id, who->pidfd, &x->why);
	if (!error && (!load_relaxed(&p->rec->pidns) ||
		       load_relaxed(&p->rec->start_time) == who->id.start_time))
		*out = p;
	return error;
}

/* ---- joining --------------------------------------------------------- */

/* Where its entries are to be: those of a uid are that uid's alone to write. */
static int find_entries(struct exchange *x, unsigned *slab)
{
	if (access_is_owner(&x->conn->who)) {
		*slab = registry_entries_of(x->c->reg, x->c->reg->uid);
		return 0;
	}
	return give_find(x->c, LAY_SLAB_ENTRY, 12, 0, x->conn->who.uid, slab, &x->why);
}

static int add_client(struct exchange *x, struct caller *who, struct peer **out)
{
	struct registry_client client = {
		.pid = (uint32_t)who->id.pid,
		.uid = x->conn->who.uid,
		.nonce = x->req->hello.nonce,
		.name = x->req->hello.name,
		.is_of_bus =
			access_is_owner(&x->conn->who) && !strcmp(x->req->hello.name, TAILER_NAME),
	};
	int error = limits_join(x);

	if (!error)
		error = find_entries(x, &client.entries);
	if (!error)
		error = registry_add_peer(x->c->reg, &client, out, &x->why);
	if (error)
		return error;
	error = death_watch(x->c, *out, who->pidfd);
	if (!error) {
		who->pidfd = -1;
		return 0;
	}
	registry_drop_peer(x->c->reg, *out);
	return shmq__fail(&x->why, SHMQ_ELIMIT, "the supervisor cannot watch one more process: %s",
			  strerror(-error));
}

static int check_hello(struct exchange *x)
{
	uint32_t version = x->c->reg->head->version, newest = x->req->hello.layout_version,
		 oldest = x->req->hello.layout_oldest;

	if (version < oldest || version > newest)
		return shmq__fail(
			&x->why, SHMQ_EVERSION,
			"client knows layouts %u to %u, this bus has layout %u: use a libshmq "
			"that knows it, as that which came with shmqd %s",
			oldest, newest, version, shmq_version());
	if (!x->req->hello.nonce)
		return shmq__fail(&x->why, SHMQ_EPROTO, "HELLO without a nonce");
	if (!memchr(x->req->hello.name, 0, sizeof(x->req->hello.name)))
		return shmq__fail(&x->why, SHMQ_EPROTO, "the client name has no end");
	return 0;
}

/* The events of this connection: the client's end goes first. */
static int open_events(struct exchange *x)
{
	int pair[2], room = EVENT_ROOM_BYTES;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return is_full(-errno) ? conn_refuse_full(x->c, -errno, &x->why) : -errno;
	if (x->conn->event_fd >= 0) /* of the last try, which waited for memory */
		close(x->conn->event_fd);
	x->conn->event_fd = pair[0];
	/* More than is usual, where we are allowed that. */
	if (setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	x->fds[x->fd_count++] = x->own_fd = pair[1];
	return 0;
}

/* What proves its death to others.  They read it after they found something
 * that the client did with a handle, and a handle is opened after this. */
static void note_identity(struct control *c, struct peer *p, const struct shmq__proc_id *id)
{
	registry_set_identity(p, id->start_time, id->pidns);
	p->image = id->image;
	death_watch_image(c);
}

int hello_request(struct exchange *x)
{
	struct caller who = { .pidfd = -1 };
	struct peer *p = NULL;
	int error = check_hello(x);

	if (!error && !conn_has_spare(x->c)) /* this connection has it */
		error = conn_refuse_full(x->c, -EMFILE, &x->why);
	if (!error)
		error = find_caller(x->c, x->conn, &who, &x->why);
	if (error)
		return error;
	error = open_events(x);
	if (!error)
		error = find_known(x, &who, &p);
	x->reply.hello.resumed = p != NULL;
	if (!error && !p)
		error = add_client(x, &who, &p);
	else if (!error && !p->watcher && !death_watch(x->c, p, who.pidfd))
		who.pidfd = -1; /* it could not be watched at adoption */
	if (who.pidfd >= 0)
		close(who.pidfd);
	if (error)
		return error;
	if (p->conn)
		conn_close(p->conn);
	conn_belongs(x->conn, p);
	if (x->reply.hello.resumed)
		note_identity(x->c, p, &who.id);
	x->reply.hello.client = p->id;
	x->reply.hello.gen = p->gen;
	x->reply.hello.bus_nonce = x->c->reg->head->nonce;
	give_greeting(x);
	return 0;
}

void hello_identify(struct control *c, struct peer *p)
{
	struct shmq__proc_id id = { .pid = (pid_t)load_relaxed(&p->rec->pid) };
	struct shmq__why why;

	if (load_relaxed(&p->rec->pidns) || death_pidfd(p) < 0)
		return;
	if (!identify(c, &id, death_pidfd(p), &why))
		note_identity(c, p, &id);
	else if (!has_exited(death_pidfd(p)))
		log_warn("%s: only the supervisor will know when it dies: %s", conn_peer_text(p),
			 why.text);
}

void hello_answered(struct exchange *x)
{
	struct peer *p = x->conn->peer;

	if (!p->conn && !x->reply.hello.resumed) {
		log_info("%s hung up before it was answered", conn_peer_text(p));
		death_forget(x->c, p); /* it was given nothing */
		return;
	}
	log_info("%s %s", conn_peer_text(p), x->reply.hello.resumed ? "is back" : "joined");
	events_say(x->c, SHMQ_SYS_ATTACH, p, NULL, "%s",
		   x->reply.hello.resumed ? "is back" : "joined");
	hello_identify(x->c, p);
}

int goodbye_request(struct exchange *x)
{
	struct peer *p = x->conn->peer;

	log_info("%s left", conn_peer_text(p));
	events_say(x->c, SHMQ_SYS_DETACH, p, NULL, "left");
	p->conn = NULL;
	x->conn->peer = NULL;
	return death_leave(x, p);
}
