/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "give.h"
#include "name.h"
#include "wire.h"

#define ACCEPTS_AT_ONCE 64
#define SILENT_MAX 256 /* connections of a uid's that have not said who they are */

static void conn_ready(struct source *source, uint32_t events);

/* ---- accepting ------------------------------------------------------- */

static unsigned descriptor_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) ? 0 : (unsigned)limit.rlim_cur;
}

int conn_refuse_full(struct control *c, int error, struct shmq__why *why)
{
	unsigned held;

	if (error == -ENFILE)
		shmq__fail(why, SHMQ_ELIMIT,
			   "the machine has no descriptor left for another client: raise "
			   "fs.file-max");
	else
		shmq__fail(why, SHMQ_ELIMIT,
			   "the supervisor has no descriptor left for another client: raise "
			   "RLIMIT_NOFILE of shmqd, now %u (LimitNOFILE=, ulimit -n)",
			   descriptor_limit());
	if (log_may(&c->accept_limit, &held))
		log_warn("refused a client: %s%s", why->text,
			 held ? "; others too in the last second" : "");
	return SHMQ_ELIMIT;
}

int conn_has_spare(struct control *c)
{
	if (c->spare_fd < 0)
		c->spare_fd = fcntl(c->listen.fd, F_DUPFD_CLOEXEC, 0);
	return c->spare_fd >= 0;
}

void conn_lend_spare(struct control *c)
{
	if (c->spare_fd >= 0)
		close(c->spare_fd);
	c->spare_fd = -1;
}

static int is_awaited(const struct control *c)
{
	struct pollfd p = { .fd = c->listen.fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* Of those that have not said who they are, of that uid alone if it is not NULL. */
static struct conn *oldest_silent(const struct control *c, const uint32_t *uid, unsigned *count)
{
	struct conn *conn, *oldest = NULL;

	*count = 0;
	TAILQ_FOREACH_REVERSE(conn, &c->conns, conn_queue, link)
	{
		if (conn->peer)
			break;
		if (conn->pending || (uid && conn->who.uid != *uid))
			continue;
		oldest = conn;
		++*count;
	}
	return oldest;
}

/* It is cut off, unless what it says was there and not read. */
static void hear_or_close(struct conn *conn, int error, struct shmq__why *why)
{
	conn_ready(&conn->source, 0);
	if (!conn->source.ready || conn->peer || conn->pending)
		return;
	if (error)
		conn_refuse_full(conn->c, error, why);
	conn_close(conn);
}

/* Out of descriptors, while somebody waits: whoever connected and says
 * nothing makes room first.  Else the caller gets the spare one, until it
 * has said hello and was told why it cannot come. */
static int make_room(struct control *c, int error)
{
	struct shmq__why why;
	unsigned count;
	struct conn *conn = oldest_silent(c, NULL, &count);

	if (!conn && !conn_has_spare(c))
		return 0;
	if (!conn)
		conn_lend_spare(c);
	else
		hear_or_close(conn, error, &why);
	return 1;
}

/* What another uid holds of our descriptors without being a client is no client of
 * its, either. */
static void limit_silent(struct control *c, const struct conn *conn)
{
	uint32_t uid = conn->who.uid;
	struct conn *oldest;
	unsigned count;

	if (access_is_owner(&conn->who))
		return;
	oldest = oldest_silent(c, &uid, &count);
	if (count > SILENT_MAX)
		hear_or_close(oldest, 0, NULL);
}

static void add_conn(struct control *c, int fd)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	struct ucred cred = { .uid = UINT32_MAX };
	socklen_t length = sizeof(cred);

	if (!conn || loop_add(c->loop, &conn->source, fd, EPOLLIN, conn_ready)) {
		free(conn);
		close(fd);
		return;
	}
	conn->c = c;
	conn->event_fd = -1;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length);
	conn->who.uid = cred.uid;
	TAILQ_INSERT_TAIL(&c->conns, conn, link);
	c->conn_count++;
	loop_clear_timer(&c->linger_timer);
	limit_silent(c, conn);
}

void conn_belongs(struct conn *conn, struct peer *p)
{
	struct control *c = conn->c;

	p->conn = conn;
	conn->peer = p;
	TAILQ_REMOVE(&c->conns, conn, link);
	TAILQ_INSERT_HEAD(&c->conns, conn, link);
}

void conn_accept(struct source *source, uint32_t events)
{
	struct control *c = loop_container(source, struct control, listen);
	int i, fd, error;

	(void)events;
	for (i = 0; i < ACCEPTS_AT_ONCE; i++) {
		fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			add_conn(c, fd);
			continue;
		}
		error = -errno;
		if (error == -ECONNABORTED || error == -EINTR)
			continue;
		if (error != -EMFILE && error != -ENFILE)
			return;
		/* Which it also says if nobody is there. */
		if (!is_awaited(c) || !make_room(c, error))
			return;
	}
}

void conn_close(struct conn *conn)
{
	struct control *c = conn->c;

	if (!conn->source.ready)
		return;
	loop_remove(c->loop, &conn->source);
	close(conn->source.fd);
	if (conn->event_fd >= 0)
		close(conn->event_fd);
	conn_has_spare(c);
	if (conn->pending)
		conn->abandon(conn->pending);
	if (conn->peer) { /* without a goodbye: is it still there? */
		conn->peer->conn = NULL;
		death_suspect(c);
	}
	access_forget(&conn->who);
	TAILQ_REMOVE(&c->conns, conn, link);
	c->conn_count--;
	loop_free(c->loop, conn);
	control_maybe_idle(c);
}

/* ---- replies --------------------------------------------------------- */

/* Nothing is ever waited for: a client that does not take its reply is cut
 * off, and may attach again. */
static void send_reply(struct conn *conn, struct proto_reply *reply, const int *fds,
		       unsigned fd_count)
{
	int error = shmq__wire_send(conn->source.fd, reply, sizeof(*reply), fds, fd_count);

	/* A greeting grants nothing yet, so it can be refused; anything else was
	 * carried out, and is answered again when the client asks again. */
	if (fd_count && reply->op == PROTO_HELLO && (error == -ETOOMANYREFS || error == -EMFILE)) {
		reply->error = SHMQ_ELIMIT;
		reply->fd_count = 0;
		snprintf(reply->why, sizeof(reply->why),
			 "too many descriptors are on their way to clients that do not read: raise "
			 "RLIMIT_NOFILE of shmqd, now %u",
			 descriptor_limit());
		error = shmq__wire_send(conn->source.fd, reply, sizeof(*reply), NULL, 0);
	}
	/* What was said before hanging up is heard; who hung up before it was greeted is no
	 * client. */
	if (error == -EPIPE && (reply->op != PROTO_HELLO || reply->hello.resumed))
		return;
	if (error)
		conn_close(conn);
}

static void begin_reply(struct proto_reply *reply, const struct proto_request *req)
{
	memset(reply, 0, sizeof(*reply));
	reply->magic = PROTO_MAGIC;
	reply->version = PROTO_VERSION;
	reply->op = req->op;
	reply->token = req->token;
}

static void put_error(struct proto_reply *reply, int error, const struct shmq__why *why)
{
	reply->error = error;
	snprintf(reply->why, sizeof(reply->why), "%s", error ? why->text : "");
	if (error)
		reply->fd_count = 0;
}

/* Such as whoever runs the bus can do something about. */
static void tell_refusal(struct conn *conn, const struct proto_request *req, int error,
			 const struct shmq__why *why)
{
	if (error == SHMQ_ELIMIT || error == SHMQ_ENOMEMORY || error == SHMQ_ENOHUGE ||
	    error == SHMQ_ENONODE || error == SHMQ_EMEMLOCK)
		events_say(conn->c, SHMQ_SYS_REFUSAL, conn->peer, *req->topic ? req->topic : NULL,
			   "%s", why->text);
}

void conn_defer(struct exchange *x, struct conn_later *later, void *pending,
		void (*abandon)(void *pending))
{
	later->conn = x->conn;
	later->req = *x->req;
	later->reply = x->reply;
	later->is_anew = x->is_anew;
	later->is_again = x->is_again;
	later->wish = x->wish;
	x->conn->pending = pending;
	x->conn->abandon = abandon;
	loop_change(x->c->loop, &x->conn->source, 0);
}

/* ---- requests -------------------------------------------------------- */

static int stop_request(struct exchange *x)
{
	unsigned others = control_count_others(x->c, x->conn->peer);
	char by[96];

	if (control_may(x->c, x->conn, "#", ACCESS_ADMIN, &x->why))
		return SHMQ_EACCESS;
	if (others && !(x->req->remove.flags & SHMQ_FORCE))
		return shmq__fail(&x->why, SHMQ_EINUSE,
				  "%u other %s attached: end them, or stop by force", others,
				  others == 1 ? "client is" : "clients are");
	snprintf(by, sizeof(by), "%s", conn_peer_text(x->conn->peer));
	control_stop(x->c, by);
	return 0;
}

static const struct {
	int (*handle)(struct exchange *x);
	const char *name;
} requests[] = {
	[PROTO_HELLO] = { hello_request, "HELLO" },
	[PROTO_PLAN] = { create_plan_request, "PLAN" },
	[PROTO_CREATE] = { create_request, "CREATE" },
	[PROTO_REMOVE] = { create_remove_request, "REMOVE" },
	[PROTO_OPEN] = { open_request, "OPEN" },
	[PROTO_CLOSE] = { open_close_request, "CLOSE" },
	[PROTO_REPORT] = { stall_report_request, "REPORT" },
	[PROTO_STOP] = { stop_request, "STOP" },
	[PROTO_GOODBYE] = { goodbye_request, "GOODBYE" },
	[PROTO_MOVE] = { move_request, "MOVE" },
	[PROTO_JOIN] = { open_join_request, "JOIN" },
	[PROTO_SLABS] = { give_request, "SLABS" },
	[PROTO_WATCH] = { watch_request, "WATCH" },
	[PROTO_RELOAD] = { reload_request, "RELOAD" },
};

/* 0, or why the connection is of no use. */
static int check_request(const struct conn *conn, const struct proto_request *req,
			 struct shmq__why *why)
{
	if (req->magic != PROTO_MAGIC)
		return shmq__fail(why, SHMQ_EPROTO, "this is not a request of shmq (magic %08x)",
				  req->magic);
	if (req->version != PROTO_VERSION)
		return shmq__fail(
			why, SHMQ_EVERSION,
			"client speaks protocol %u, this supervisor %u: use the libshmq that "
			"came with shmqd %s",
			req->version, PROTO_VERSION, shmq_version());
	if (!memchr(req->topic, 0, sizeof(req->topic)))
		return shmq__fail(why, SHMQ_EPROTO, "the topic name of a request has no end");
	if (!req->op || req->op >= sizeof(requests) / sizeof(requests[0]) ||
	    !requests[req->op].handle)
		return shmq__fail(why, SHMQ_EPROTO, "there is no request %u", req->op);
	if (!conn->peer && req->op != PROTO_HELLO)
		return shmq__fail(why, SHMQ_EPROTO, "%s before HELLO", requests[req->op].name);
	if (conn->peer && req->op == PROTO_HELLO)
		return shmq__fail(why, SHMQ_EPROTO, "HELLO twice on one connection");
	return 0;
}

static void refuse_and_close(struct conn *conn, const struct proto_request *req, int error,
			     const struct shmq__why *why)
{
	struct proto_reply reply;
	unsigned held;

	if (log_may(&conn->c->refuse_limit, &held))
		log_warn("refused a request: %s", why->text);
	begin_reply(&reply, req);
	put_error(&reply, error, why);
	shmq__wire_send(conn->source.fd, &reply, sizeof(reply), NULL, 0);
	conn_close(conn);
}

/* A request for which memory is on its way.  What was being freed when it
 * first came is worth waiting for; after that the answer stands. */
struct again {
	struct memory_wait wait;
	struct conn *conn;
	struct proto_request req;
	uint64_t enough; /* as work_freed() counts */
	int is_anew, is_elsewhere;
};

static void answer(struct exchange *x, struct again *again);

static struct exchange exchange_of(struct conn *conn, const struct proto_request *req)
{
	return (struct exchange){ .c = conn->c, .conn = conn, .req = req, .own_fd = -1 };
}

static void ask_again(struct memory_wait *wait)
{
	struct again *again = loop_container(wait, struct again, wait);
	struct conn *conn = again->conn;
	struct exchange x = exchange_of(conn, &again->req);

	x.is_anew = again->is_anew;
	x.elsewhere = again->is_elsewhere ? "what was free there is taken" : NULL;
	x.is_again = 1;
	x.is_last = work_freed(conn->c->work) >= again->enough;
	conn->pending = NULL;
	loop_change(conn->c->loop, &conn->source, EPOLLIN);
	answer(&x, again);
}

static void abandon_again(void *pending)
{
	struct again *again = pending;

	TAILQ_REMOVE(&again->conn->c->memory_waits, &again->wait, link);
	free(again);
}

static int put_off(const struct exchange *x, struct again *again)
{
	struct conn *conn = x->conn;
	struct work *work = x->c->work;

	if (!again) {
		again = malloc(sizeof(*again));
		if (!again)
			return -ENOMEM;
		again->conn = conn;
		again->req = *x->req;
		again->is_anew = x->is_anew;
		again->is_elsewhere = !!x->elsewhere;
		again->enough = work_freed(work) + work_freeing(work, WORK_ALL_PAGES);
	}
	conn->pending = again;
	conn->abandon = abandon_again;
	loop_change(conn->c->loop, &conn->source, 0);
	control_await_memory(conn->c, &again->wait, ask_again);
	return 0;
}

/* With `again`, which is taken over, if it was put off before. */
static void answer(struct exchange *x, struct again *again)
{
	const struct proto_request *req = x->req;
	struct control *c = x->c;
	struct conn *conn = x->conn;
	int error = check_request(conn, req, &x->why);

	if (error) {
		refuse_and_close(conn, req, error, &x->why);
		goto out;
	}
	begin_reply(&x->reply, req);
	error = requests[req->op].handle(x);
	if (error == POOL_COMING) {
		if (x->own_fd >= 0)
			close(x->own_fd);
		x->own_fd = -1;
		error = put_off(x, again);
		if (!error)
			return;
	}
	if (error == CONN_LATER)
		goto out;
	if (error && !*x->why.text)
		shmq__fail(&x->why, error, "%s", shmq_strerror(error));
	put_error(&x->reply, error, &x->why);
	tell_refusal(conn, req, error, &x->why);
	log_debug("%s %s: %s", requests[req->op].name, req->topic, error ? x->why.text : "ok");
	if (conn->source.ready)
		send_reply(conn, &x->reply, x->fds, error ? 0 : x->fd_count);
	if (x->own_fd >= 0)
		close(x->own_fd);
	if (req->op == PROTO_HELLO && !error)
		hello_answered(x);
	/* Where nothing came of HELLO, or after GOODBYE, there is no more to say. */
	if (conn->source.ready && (!conn->peer || req->op == PROTO_GOODBYE))
		conn_close(conn);
out:
	free(again);
	/* The tailer may have closed the last topic, or come after it. */
	control_maybe_idle(c);
}

/* Another may have what this one has not. */
static int is_of_node(int error)
{
	return error == SHMQ_ENOMEMORY || error == SHMQ_ENOHUGE || error == SHMQ_ENONODE;
}

int conn_answer_later(struct conn_later *later, int error, const struct shmq__why *why,
		      const int *fds, unsigned fd_count)
{
	struct conn *conn = later->conn;
	struct exchange x;

	if (!conn)
		return 1;
	later->conn = NULL;
	conn->pending = NULL;
	loop_change(conn->c->loop, &conn->source, EPOLLIN);
	if (error == SHMQ_ENOHUGE && !later->is_anew) {
		x = exchange_of(conn, &later->req);
		x.is_anew = 1;
		answer(&x, NULL);
		return 0;
	}
	if (error == SHMQ_ENOMEMORY && !later->is_again &&
	    work_freeing(conn->c->work, WORK_ALL_PAGES)) {
		x = exchange_of(conn, &later->req);
		x.is_anew = later->is_anew;
		if (!put_off(&x, NULL))
			return 0;
	}
	if (later->wish != SHMQ_NODE_ANY && is_of_node(error)) {
		x = exchange_of(conn, &later->req);
		x.is_anew = later->is_anew;
		x.is_again = later->is_again;
		x.elsewhere = why->text;
		answer(&x, NULL);
		return 0;
	}
	put_error(&later->reply, error, why);
	tell_refusal(conn, &later->req, error, why);
	send_reply(conn, &later->reply, fds, error ? 0 : fd_count);
	return 1;
}

static void conn_ready(struct source *source, uint32_t events)
{
	struct conn *conn = loop_container(source, struct conn, source);
	struct proto_request req;
	struct exchange x;
	struct shmq__why why;
	int fds[WIRE_FDS_MAX], rc = -EAGAIN;
	unsigned n;

	while (source->ready && !conn->pending) {
		memset(&req, 0, sizeof(req));
		rc = shmq__wire_recv(source->fd, &req, sizeof(req), fds, &n);
		while (n)
			close(fds[--n]); /* nobody asked for them */
		if (rc != 1)
			break;
		x = exchange_of(conn, &req);
		answer(&x, NULL);
		/* One at a time, so that no client keeps others waiting; but what
		 * was said before hanging up is heard. */
		if (!(events & (EPOLLHUP | EPOLLRDHUP)))
			return;
	}
	if (!source->ready || (rc == -EAGAIN && !(events & (EPOLLHUP | EPOLLERR))))
		return;
	if (rc == -EMSGSIZE) {
		shmq__fail(&why, SHMQ_EPROTO, "a request has %zu bytes; this one had not",
			   sizeof(req));
		refuse_and_close(conn, &req, SHMQ_EPROTO, &why);
		return;
	}
	if (conn->peer)
		log_debug("%s hung up", conn_peer_text(conn->peer));
	conn_close(conn);
}

/* ---- events ---------------------------------------------------------- */

void conn_push(struct control *c, struct topic *t, enum shmq_event_kind kind, enum shmq_role role,
	       const struct peer *about, const struct peer *except)
{
	struct proto_event event = { .magic = PROTO_MAGIC, .version = PROTO_VERSION };
	uint64_t serial = ++c->event_serial;
	struct shmq__name_reply reply;
	struct handle *h;

	/* Who asks and who answers is told of it where that is asked and answered. */
	if (shmq__name_read_reply(t->rec->name, &reply))
		return;
	event.kind = (uint16_t)kind;
	event.role = role;
	event.client = about ? about->id : 0;
	event.pid = about ? (int32_t)load_relaxed(&about->rec->pid) : 0;
	memcpy(event.topic, t->rec->name, sizeof(event.topic));
	LIST_FOREACH (h, &t->handles, of_topic) {
		struct peer *p = h->peer;

		if (p == except || p->serial == serial || !p->conn || p->conn->event_fd < 0)
			continue;
		p->serial = serial;
		/* A full socket drops the event; the next one says so. */
		event.missed = p->conn->events_missed;
		if (shmq__wire_send(p->conn->event_fd, &event, sizeof(event), NULL, 0))
			p->conn->events_missed++;
		else
			p->conn->events_missed = 0;
	}
}

const char *conn_peer_text(const struct peer *p)
{
	static char text[96];

	snprintf(text, sizeof(text), "client %u (pid %u \"%.31s\")", p->id,
		 load_relaxed(&p->rec->pid), p->rec->name);
	return text;
}
