/* SPDX-License-Identifier: MIT */
#include "bus.h"
#include "clock.h"
#include "futex.h"
#include "proc.h"
#include "shmem.h"
#include "wire.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const int64_t retry_min_ns = 1000000, retry_max_ns = 200000000;
static const int64_t offer_pause_ns = 100000000;
static const int64_t start_pause_min_ns = 1000000000, start_pause_max_ns = 60000000000;

/* The explanation of a thread's last failed call. */
static __thread struct shmq__why thread_why;

struct shmq__why *shmq__bus_why(void)
{
	thread_why.text[0] = 0;
	return &thread_why;
}

SHMQ_EXPORT const char *shmq_bus_error(const shmq_bus *bus)
{
	(void)bus;
	return thread_why.text;
}

/* ---- starting the supervisor ----------------------------------------- */

static int can_run(const char *dir, const char *rest, char *out, size_t bytes)
{
	int n = snprintf(out, bytes, "%s%s", dir, rest);

	return n > 0 && (size_t)n < bytes && !access(out, X_OK);
}

/* The shmqd to run: named, or near the library or the program, or on PATH. */
static const char *find_daemon(const struct shmq_bus *bus, char *out, size_t bytes)
{
	static const char *const near[] = { "/shmqd", "/../shmqd", "/../bin/shmqd" };
	const char *env = getenv("SHMQ_DAEMON");
	char dir[2][4096] = { "", "" };
	Dl_info info;
	ssize_t n;
	unsigned d, i;

	if (bus->daemon_path)
		return bus->daemon_path;
	if (env && *env)
		return env;
	if (dladdr((const void *)(uintptr_t)&shmq_bus_open, &info) && info.dli_fname)
		snprintf(dir[0], sizeof(dir[0]), "%s", info.dli_fname);
	n = readlink("/proc/self/exe", dir[1], sizeof(dir[1]) - 1);
	if (n > 0)
		dir[1][n] = 0;
	for (d = 0; d < 2; d++) {
		char *slash = strrchr(dir[d], '/');

		if (!slash)
			continue;
		*slash = 0;
		for (i = 0; i < sizeof(near) / sizeof(near[0]); i++)
			if (can_run(dir[d], near[i], out, bytes))
				return out;
	}
	return "shmqd";
}

/* 0 or a positive errno. */
static int spawn_daemon(struct shmq_bus *bus, const char *path, pid_t *pid)
{
	char *argv[] = { (char *)(uintptr_t) "shmqd",
			 (char *)(uintptr_t) "--bus",
			 bus->name,
			 (char *)(uintptr_t) "--runtime-dir",
			 bus->dir,
			 (char *)(uintptr_t) "--on-demand",
			 NULL };
	posix_spawnattr_t attr;
	sigset_t none;
	int error = posix_spawnattr_init(&attr);

	if (error)
		return error;
	/* The library's thread has all signals blocked. */
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	error = posix_spawnp(pid, path, NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	return error;
}

static int start_daemon(struct shmq_bus *bus, struct shmq__why *why)
{
	char found[4096 + 32];
	const char *path = find_daemon(bus, found, sizeof(found));
	int status = 0, error;
	pid_t pid;

	error = spawn_daemon(bus, path, &pid);
	if (error)
		return shmq__fail(why, SHMQ_ENODAEMON,
				  "starting %s: %s: install shmqd or set SHMQ_DAEMON", path,
				  strerror(error));
	/* It daemonises: the child returns when the socket accepts. */
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 0; /* the program reaps its children itself */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return shmq__fail(why, SHMQ_ENODAEMON, "%s failed to start: see %s/%s.log", path, bus->dir,
			  bus->name);
}

/* Collect the one that was not waited for. */
static void reap_starter(struct shmq_bus *bus, int patience_ms)
{
	while (bus->starter && waitpid(bus->starter, NULL, WNOHANG) == 0) {
		if (!patience_ms--)
			return;
		poll(NULL, 0, 1);
	}
	bus->starter = 0;
}

static int is_locked(const struct shmq_bus *bus, const char *suffix)
{
	char path[sizeof(bus->path)];
	int fd, is;

	snprintf(path, sizeof(path), "%s/%s.%s", bus->dir, bus->name, suffix);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	is = flock(fd, LOCK_SH | LOCK_NB) != 0;
	close(fd);
	return is;
}

/* Our supervisor has gone.  Of one that ended in order no lock is left, and
 * one that only lost its parent, or its worker, comes back by itself; where
 * all of it was killed, start another.  Not waited for: it will want to be
 * offered what we hold. */
static void restart_daemon(struct shmq_bus *bus)
{
	char found[4096 + 32];
	uint64_t now = shmq__clock_monotonic_ns();

	if (bus->start != SHMQ_START_ON_DEMAND || now < bus->next_start_ns)
		return;
	reap_starter(bus, 0);
	if (bus->starter || is_locked(bus, "lock") || is_locked(bus, "control") > 0)
		return;
	if (!bus->start_pause_ns)
		bus->start_pause_ns = start_pause_min_ns;
	bus->next_start_ns = now + (uint64_t)bus->start_pause_ns;
	if (bus->start_pause_ns < start_pause_max_ns)
		bus->start_pause_ns *= 2;
	if (spawn_daemon(bus, find_daemon(bus, found, sizeof(found)), &bus->starter))
		bus->starter = 0;
}

/* ---- the connection --------------------------------------------------- */

void shmq__bus_prepare(struct shmq_bus *bus, struct proto_request *req, enum proto_op op,
		       const char *topic)
{
	memset(req, 0, sizeof(*req));
	req->magic = PROTO_MAGIC;
	req->version = PROTO_VERSION;
	req->op = (uint16_t)op;
	req->token = atomic_fetch_add((_Atomic uint64_t *)&bus->next_token, 1);
	if (topic)
		snprintf(req->topic, sizeof(req->topic), "%s", topic);
}

static void push_event(struct shmq_bus *bus, const struct shmq_event *ev)
{
	pthread_mutex_lock(&bus->event_lock);
	if (bus->event_count == BUS_EVENTS) {
		bus->event_first = (bus->event_first + 1) % BUS_EVENTS;
		bus->event_count--;
		bus->event_missed++;
	}
	bus->event[(bus->event_first + bus->event_count++) % BUS_EVENTS] = *ev;
	pthread_cond_signal(&bus->event_cond);
	pthread_mutex_unlock(&bus->event_lock);
}

static void push_kind(struct shmq_bus *bus, enum shmq_event_kind kind)
{
	struct shmq_event ev = { .kind = kind };

	push_event(bus, &ev);
}

static void kick(struct shmq_bus *bus)
{
	uint64_t one = 1;
	ssize_t rc = write(bus->kick_fd, &one, sizeof(one));

	(void)rc;
}

static void disconnect(struct shmq_bus *bus)
{
	if (bus->sock < 0)
		return;
	close(bus->sock);
	bus->sock = -1;
	if (atomic_exchange(&bus->attached, 0))
		push_kind(bus, SHMQ_EVENT_DETACHED);
}

/* One message each way.  0, or -errno for a connection that is of no use
 * any more. */
static int converse(int sock, const struct proto_request *req, struct proto_reply *reply, int *fds,
		    unsigned *fd_count, uint64_t deadline)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int rc;

	*fd_count = 0;
	rc = shmq__wire_send(sock, req, sizeof(*req), NULL, 0);
	if (rc)
		return rc;
	for (;;) {
		rc = poll(&p, 1, shmq__clock_left_ms(deadline));
		if (rc < 0 && errno != EINTR)
			return -errno;
		if (rc == 0 && shmq__clock_left(deadline) == 0)
			return -ETIMEDOUT;
		if (rc > 0)
			break;
	}
	rc = shmq__wire_recv(sock, reply, sizeof(*reply), fds, fd_count);
	if (rc == 0)
		return -EPIPE;
	if (rc < 0)
		return rc;
	if (reply->magic != PROTO_MAGIC || reply->version != PROTO_VERSION ||
	    reply->token != req->token || reply->op != req->op || reply->error > 0) {
		while (*fd_count)
			close(fds[--*fd_count]);
		return -EPROTO;
	}
	reply->why[sizeof(reply->why) - 1] = 0;
	return 0;
}

/* Hand the descriptors of a reply to the slabs; read-only ones first, so
 * that entries are mapped whole without write access. */
static int take_slabs(struct shmq_bus *bus, const struct proto_reply *reply, int *fds,
		      unsigned fd_count)
{
	unsigned i, pass;
	int error = 0, rc;

	if (reply->fd_count != fd_count)
		error = SHMQ_EPROTO;
	for (pass = 0; pass < 2; pass++)
		for (i = 0; i < fd_count; i++) {
			if (fds[i] < 0 || (!error && !!reply->fd[i].writable != (int)pass))
				continue;
			if (error) {
				close(fds[i]);
			} else {
				rc = shmq__slabs_add(bus->slabs, reply->fd[i].slab, fds[i],
						     pass ? SHMQ__SLAB_WRITE : SHMQ__SLAB_READ);
				if (rc)
					error = rc;
			}
			fds[i] = -1;
		}
	return error;
}

/* A full backlog makes connect() wait: SO_SNDTIMEO bounds that, and every
 * send after it. */
static int connect_socket(const char *path, uint64_t deadline)
{
	int64_t left = shmq__clock_left(deadline);
	struct timeval tv = { .tv_sec = left / 1000000000, .tv_usec = left % 1000000000 / 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, error;

	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	memcpy(addr.sun_path, path, strnlen(path, sizeof(addr.sun_path) - 1));
	if (left >= 0 && !tv.tv_sec && !tv.tv_usec)
		tv.tv_usec = 1; /* 0 would mean for ever */
	if (left >= 0)
		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		error = -errno;
		close(sock);
		return error;
	}
	return sock;
}

static int is_away(int error)
{
	return error == -ENOENT || error == -ECONNREFUSED || error == -EPIPE ||
	       error == -ECONNRESET;
}

static int say_closed(struct shmq_bus *bus, uint64_t handle);

/* Where parent and worker died at once the next start has nothing, and
 * listens for what we hold (daemon/gather.h).  It answers by being there. */
static void offer_slabs(struct shmq_bus *bus)
{
	struct lay_registry *head = shmq__slabs_registry(bus->slabs);
	unsigned count = load_relaxed(&head->slab_count), id, n = 0;
	uint64_t now = shmq__clock_monotonic_ns();
	char path[sizeof(bus->path)];
	struct proto_request req;
	int fds[PROTO_FDS_MAX], sock;

	if (now < bus->next_offer_ns)
		return;
	snprintf(path, sizeof(path), "%s/%s.back", bus->dir, bus->name);
	sock = connect_socket(path, shmq__clock_deadline(offer_pause_ns));
	if (sock < 0)
		return;
	shmq__bus_prepare(bus, &req, PROTO_OFFER, NULL);
	req.offer.bus_nonce = bus->bus_nonce;
	for (id = 0; id < count && n < PROTO_FDS_MAX; id++) {
		int fd = shmq__slabs_fd(bus->slabs, id, SHMQ__SLAB_READ), writable = fd < 0;

		if (writable)
			fd = shmq__slabs_fd(bus->slabs, id, SHMQ__SLAB_WRITE);
		if (fd < 0)
			continue;
		req.offer.fd[n].slab = (uint16_t)id;
		req.offer.fd[n].writable = (uint16_t)writable;
		fds[n++] = fd;
	}
	req.offer.fd_count = n;
	if (!shmq__wire_send(sock, &req, sizeof(req), fds, n)) {
		bus->next_offer_ns = now + (uint64_t)offer_pause_ns;
		bus->retry_ns = retry_min_ns;
	}
	close(sock);
}

/* A reply's descriptors did not all fit; what came was closed. */
static int no_descriptors(struct shmq__why *why)
{
	return shmq__fail(
		why, SHMQ_ELIMIT,
		"no descriptor is left for the bus's segments: raise RLIMIT_NOFILE (ulimit -n)");
}

/* Maps and memory run out with the same error. */
static int no_memory(struct shmq__why *why, int error, const char *doing, const char *name)
{
	return shmq__fail(why, error,
			  "%s \"%s\": no map or no memory is left: raise vm.max_map_count "
			  "(sysctl) or RLIMIT_AS (ulimit -v)",
			  doing, name);
}

/* We were taken in, or may have been, but cannot come. */
static void say_goodbye(struct shmq_bus *bus, int sock)
{
	struct proto_request req;

	shmq__bus_prepare(bus, &req, PROTO_GOODBYE, NULL);
	shmq__wire_send(sock, &req, sizeof(req), NULL, 0);
}

/* Our handles stand under this id and generation. */
static int is_resumed(const struct shmq_bus *bus, const struct proto_reply *reply)
{
	return reply->hello.resumed && reply->hello.bus_nonce == bus->bus_nonce &&
	       reply->hello.client == bus->client && reply->hello.gen == bus->gen;
}

/* Connect and say hello.  Locked.  0, SHMQ_ENODAEMON if nobody is there, or
 * what the supervisor refused us with. */
static int attach(struct shmq_bus *bus, uint64_t deadline, struct shmq__why *why)
{
	struct proto_request req;
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX], error, again = bus->bus_nonce != 0;
	struct epoll_event readable = { .events = EPOLLIN };
	unsigned n = 0, i;
	int sock = connect_socket(bus->path, deadline);

	if (sock < 0 && is_away(sock) && again)
		offer_slabs(bus);
	if (sock < 0 && is_away(sock))
		return shmq__fail(why, SHMQ_ENODAEMON, "nobody listens at %s: start shmqd --bus %s",
				  bus->path, bus->name);
	if (sock == -EAGAIN)
		return shmq__fail(why, SHMQ_EDAEMON,
				  "the supervisor at %s does not accept: see %s/%s.log", bus->path,
				  bus->dir, bus->name);
	if (sock < 0)
		return shmq__fail(why, sock, "connecting to %s: %s", bus->path,
				  shmq_strerror(sock));
	shmq__bus_prepare(bus, &req, PROTO_HELLO, NULL);
	req.hello.layout_version = LAY_VERSION;
	req.hello.nonce = bus->nonce;
	req.hello.bus_nonce = bus->bus_nonce;
	memcpy(req.hello.name, bus->client_name, sizeof(req.hello.name));
	error = converse(sock, &req, &reply, fds, &n, deadline);
	if (error) {
		if (!again)
			say_goodbye(bus, sock);
		close(sock);
		if (is_away(error))
			return shmq__fail(why, SHMQ_ENODAEMON, "the supervisor at %s went away",
					  bus->path);
		if (error == -EMFILE)
			return no_descriptors(why);
		return shmq__fail(why,
				  error == -EPROTO || error == -EMSGSIZE ? SHMQ_EVERSION :
									   SHMQ_EDAEMON,
				  "greeting the supervisor at %s: %s", bus->path, strerror(-error));
	}
	error = reply.error;
	if (error)
		shmq__fail(why, error, "%s", reply.why);
	else if (!n)
		error = shmq__fail(why, SHMQ_EPROTO, "the supervisor sent no event socket");
	else if (!reply.hello.client || reply.hello.client > LAY_CLIENT_MAX)
		error = shmq__fail(why, SHMQ_EPROTO, "the supervisor says we are client %u",
				   reply.hello.client);
	else if (again && !is_resumed(bus, &reply)) {
		atomic_store(&bus->lost, 1);
		error = shmq__fail(why, SHMQ_ELOST,
				   "bus \"%s\" was started anew: close this bus and open it again",
				   bus->name);
	}
	if (error) {
		for (i = 0; i < n; i++)
			close(fds[i]);
		if (!again)
			say_goodbye(bus, sock);
		close(sock);
		return error;
	}
	error = take_slabs(bus, &reply, fds + 1, n - 1);
	if (!error && !shmq__slabs_registry(bus->slabs))
		error = SHMQ_EPROTO;
	/* What was behind the number leaves the caller's epoll set with it. */
	if (!error && dup3(fds[0], bus->event_sock, O_CLOEXEC) < 0)
		error = -errno;
	if (!error && bus->poll_fd >= 0 &&
	    epoll_ctl(bus->poll_fd, EPOLL_CTL_ADD, bus->event_sock, &readable) && errno != EEXIST)
		error = -errno;
	close(fds[0]);
	if (error) {
		if (!again)
			say_goodbye(bus, sock);
		close(sock);
		return shmq__fail(why, error, "taking over the segments of bus \"%s\": %s",
				  bus->name, shmq_strerror(error));
	}
	bus->sock = sock;
	if (!again) { /* else they are the same, and handles may be looking */
		bus->client = reply.hello.client;
		bus->gen = reply.hello.gen;
		bus->bus_nonce = reply.hello.bus_nonce;
	}
	bus->retry_ns = retry_min_ns;
	bus->start_pause_ns = 0;
	reap_starter(bus, 100);
	atomic_store(&bus->attached, 1);
	if (again) {
		atomic_fetch_add(&bus->reattached, 1);
		push_kind(bus, SHMQ_EVENT_REATTACHED);
	}
	kick(bus);
	while (bus->to_close_count && bus->sock >= 0)
		if (!say_closed(bus, bus->to_close[bus->to_close_count - 1]))
			bus->to_close_count--;
	if (bus->sock < 0)
		return shmq__fail(why, SHMQ_ENODAEMON, "the supervisor at %s went away", bus->path);
	return 0;
}

/* The supervisor we had ended this bus: it does not come back to it. */
static int has_ended(struct shmq_bus *bus)
{
	return bus->bus_nonce && !load_acquire(&shmq__slabs_registry(bus->slabs)->control_pid);
}

/* One CLOSE on the connection there is; disconnects if that fails. */
static int say_closed(struct shmq_bus *bus, uint64_t handle)
{
	struct proto_request req;
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX], error;
	unsigned n;

	shmq__bus_prepare(bus, &req, PROTO_CLOSE, NULL);
	req.close.handle = handle;
	error = converse(bus->sock, &req, &reply, fds, &n, shmq__clock_deadline(bus->timeout_ns));
	if (error)
		disconnect(bus);
	while (!error && n)
		close(fds[--n]);
	return error;
}

/* Attach, starting a supervisor if that is asked for, until deadline. */
static int attach_somehow(struct shmq_bus *bus, uint64_t deadline, struct shmq__why *why)
{
	int started = 0, error;

	for (;;) {
		error = attach(bus, deadline, why);
		if (error != SHMQ_ENODAEMON)
			return error;
		if (has_ended(bus))
			return shmq__fail(why, error,
					  "bus \"%s\" has ended: close it and open it again",
					  bus->name);
		if (bus->bus_nonce)
			restart_daemon(bus);
		else if (bus->start == SHMQ_START_ON_DEMAND && !started) {
			error = start_daemon(bus, why);
			if (error)
				return error;
			started = 1;
			continue;
		}
		/* A supervisor that we know of may be restarting. */
		if ((!started && !bus->bus_nonce) || shmq__clock_left(deadline) == 0)
			return error;
		poll(NULL, 0, 1);
	}
}

int shmq__bus_request(struct shmq_bus *bus, struct proto_request *req, struct proto_reply *reply,
		      struct shmq__why *why)
{
	uint64_t deadline = shmq__clock_deadline(bus->timeout_ns);
	int fds[WIRE_FDS_MAX], error = bus_check(bus);
	unsigned n;

	if (error)
		return error;
	pthread_mutex_lock(&bus->lock);
	for (;;) {
		if (atomic_load(&bus->lost)) {
			error = shmq__fail(
				why, SHMQ_ELOST,
				"bus \"%s\" was started anew: close this bus and open it again",
				bus->name);
			break;
		}
		if (bus->sock < 0) {
			error = attach_somehow(bus, deadline, why);
			if (error)
				break;
		}
		error = converse(bus->sock, req, reply, fds, &n, deadline);
		if (!error) {
			error = take_slabs(bus, reply, fds, n);
			if (error == -ENOMEM) {
				no_memory(why, error, "mapping", req->topic);
				break;
			}
			if (!error)
				error = reply->error;
			if (error)
				shmq__fail(why, error, "%s", reply->why);
			break;
		}
		/* Out of step or cut off: the answer may have been lost, the
		 * request is idempotent, so ask again on a new connection. */
		disconnect(bus);
		if (error == -EMFILE) {
			error = no_descriptors(why);
			break;
		}
		if (!is_away(error)) {
			error = shmq__fail(why, SHMQ_EDAEMON, "the supervisor of bus \"%s\": %s",
					   bus->name, strerror(-error));
			break;
		}
	}
	pthread_mutex_unlock(&bus->lock);
	return error;
}

void shmq__bus_notify(struct shmq_bus *bus, struct proto_request *req)
{
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX];
	unsigned n;

	if (!atomic_load(&bus->attached) || pthread_mutex_trylock(&bus->lock))
		return;
	if (bus->sock >= 0) {
		if (converse(bus->sock, req, &reply, fds, &n, shmq__clock_deadline(100000000)))
			disconnect(bus);
		else
			take_slabs(bus, &reply, fds, n);
	}
	pthread_mutex_unlock(&bus->lock);
}

/* ---- the library's thread --------------------------------------------- */

static int take_event(struct shmq_bus *bus, const struct proto_event *in)
{
	struct shmq_event ev = {
		.kind = in->kind, .role = in->role, .client_id = in->client, .pid = in->pid
	};

	if (in->magic != PROTO_MAGIC || in->version != PROTO_VERSION ||
	    in->kind < SHMQ_EVENT_JOINED || in->kind > SHMQ_EVENT_STALLED)
		return 0;
	memcpy(ev.topic, in->topic, sizeof(ev.topic));
	ev.topic[sizeof(ev.topic) - 1] = 0;
	if (in->missed) {
		pthread_mutex_lock(&bus->event_lock);
		bus->event_missed += in->missed;
		pthread_mutex_unlock(&bus->event_lock);
	}
	push_event(bus, &ev);
	return 1;
}

/* Read what the event socket has.  Returns events taken, -EPIPE when the
 * supervisor has gone, or what it gave us is no such socket. */
static int read_events(struct shmq_bus *bus)
{
	struct pollfd p = { .fd = bus->event_sock, .events = POLLIN };
	int fds[WIRE_FDS_MAX], taken = 0;

	while (poll(&p, 1, 0) > 0) {
		struct proto_event ev;
		unsigned n;
		int rc = shmq__wire_recv(bus->event_sock, &ev, sizeof(ev), fds, &n);

		if (rc == -EAGAIN)
			break;
		if (rc == 1)
			taken += take_event(bus, &ev);
		else if (rc != -EMSGSIZE && rc != -EMFILE)
			return -EPIPE;
		while (rc == 1 && n)
			close(fds[--n]);
	}
	return taken;
}

/* The supervisor has gone: carry on alone and try to come back, again at
 * *retry_at unless that is 0.  Wakes that are due are not kept waiting for it. */
static int come_back(struct shmq_bus *bus, uint64_t *retry_at)
{
	int error = 0;

	pthread_mutex_lock(&bus->lock);
	if (read_events(bus) == -EPIPE) {
		disconnect(bus);
		error = attach(bus,
			       shmq__clock_deadline(atomic_load(&bus->wake_ns) ? 5000000 :
										 1000000000),
			       NULL);
		if (error == SHMQ_ENODAEMON && !has_ended(bus))
			restart_daemon(bus);
		if (error && bus->retry_ns < retry_max_ns)
			bus->retry_ns *= 2;
	}
	*retry_at = error && !atomic_load(&bus->lost) ? shmq__clock_deadline(bus->retry_ns) : 0;
	pthread_mutex_unlock(&bus->lock);
	return error;
}

static int wake_deferred(struct shmq_bus *bus)
{
	struct shmq__handle *h;
	int wakes = 0;
	uint32_t p;

	pthread_mutex_lock(&bus->deferred_lock);
	for (h = bus->deferred; h; h = h->next_deferred)
		for (p = 0; p < h->topic->geo.partitions; p++)
			wakes += bell_look(&h->topic->ring[p].bells->data,
					   bus->registered > 0 ? SHMQ__FENCE_LIGHT :
								 SHMQ__FENCE_FULL);
	pthread_mutex_unlock(&bus->deferred_lock);
	return wakes;
}

/* Handle what is there, waiting until deadline for the first thing. */
static int serve(struct shmq_bus *bus, uint64_t deadline)
{
	uint64_t retry_at = 0; /* 0: not away */

	for (;;) {
		struct pollfd p[2] = { { .fd = bus->kick_fd, .events = POLLIN },
				       { .fd = bus->event_sock, .events = POLLIN } };
		int64_t left = shmq__clock_left(deadline), wake = atomic_load(&bus->wake_ns);
		int away = retry_at || atomic_load(&bus->lost), rc = 0, did = 0;
		int64_t retry_left = retry_at ? shmq__clock_left(retry_at) : -1;
		struct timespec ts;

		if (wake && (left < 0 || wake < left))
			left = wake;
		if (retry_left >= 0 && (left < 0 || retry_left < left))
			left = retry_left;
		ts.tv_sec = left / 1000000000;
		ts.tv_nsec = left % 1000000000;
		rc = ppoll(p, away ? 1 : 2, left < 0 ? NULL : &ts, NULL);
		if (rc < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents & POLLIN) {
			uint64_t n;
			ssize_t got = read(bus->kick_fd, &n, sizeof(n));

			(void)got;
			retry_at = 0;
		}
		if (atomic_load(&bus->stop))
			return 0;
		if (wake)
			did += wake_deferred(bus);
		if (!away && (p[1].revents & (POLLIN | POLLHUP | POLLERR))) {
			rc = read_events(bus);
			if (rc > 0)
				did += rc;
		} else if (retry_at && !shmq__clock_left(retry_at)) {
			rc = -EPIPE;
		}
		if (rc == -EPIPE) {
			rc = come_back(bus, &retry_at);
			did += !rc;
		}
		if (did || shmq__clock_left(deadline) == 0)
			return did;
	}
}

static void *thread_main(void *arg)
{
	struct shmq_bus *bus = arg;

	pthread_setname_np(pthread_self(), "shmq");
	while (!atomic_load(&bus->stop))
		serve(bus, UINT64_MAX);
	return NULL;
}

static void start_thread(struct shmq_bus *bus)
{
	sigset_t all, old;

	if (bus->serve != SHMQ_SERVE_THREAD || bus->thread_started)
		return;
	/* The application's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	bus->thread_started = !pthread_create(&bus->thread, NULL, thread_main, bus);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

enum shmq__fence shmq__bus_ready(struct shmq_bus *bus, unsigned topic_flags)
{
	enum shmq__fence fence;

	pthread_mutex_lock(&bus->lock);
	if (!bus->registered && !(topic_flags & SHMQ_TOPIC_SPIN_ONLY))
		bus->registered = shmq__membarrier_register() ? -1 : 1;
	start_thread(bus);
	fence = bus->registered > 0 ? SHMQ__FENCE_LIGHT : SHMQ__FENCE_FULL;
	pthread_mutex_unlock(&bus->lock);
	return fence;
}

/* Locked by deferred_lock. */
static void find_shortest_wake(struct shmq_bus *bus)
{
	const struct shmq__handle *h;
	int64_t shortest = 0;

	for (h = bus->deferred; h; h = h->next_deferred)
		if (!shortest || h->wake_ns < shortest)
			shortest = h->wake_ns;
	atomic_store(&bus->wake_ns, shortest);
}

void shmq__bus_defer(struct shmq_bus *bus, struct shmq__handle *h, int64_t wake_ns)
{
	pthread_mutex_lock(&bus->deferred_lock);
	h->wake_ns = wake_ns;
	h->next_deferred = bus->deferred;
	bus->deferred = h;
	find_shortest_wake(bus);
	pthread_mutex_unlock(&bus->deferred_lock);
	kick(bus);
}

void shmq__bus_undefer(struct shmq_bus *bus, struct shmq__handle *h)
{
	struct shmq__handle **at;

	pthread_mutex_lock(&bus->deferred_lock);
	for (at = &bus->deferred; *at && *at != h; at = &(*at)->next_deferred)
		;
	if (*at)
		*at = h->next_deferred;
	find_shortest_wake(bus);
	pthread_mutex_unlock(&bus->deferred_lock);
}

/* ---- handles ----------------------------------------------------------- */

/* Tell the supervisor that a handle is closed; while it is away, keep the
 * token and tell it when it is back.  A process that ends before that is
 * recovered as dead. */
static void send_close(struct shmq_bus *bus, uint64_t handle)
{
	pthread_mutex_lock(&bus->lock);
	if (bus->sock < 0 || say_closed(bus, handle)) {
		if (bus->to_close_count == bus->to_close_capacity) {
			size_t capacity = bus->to_close_capacity ? 2 * bus->to_close_capacity : 16;
			uint64_t *more = realloc(bus->to_close, capacity * sizeof(*more));

			if (!more)
				goto out;
			bus->to_close = more;
			bus->to_close_capacity = capacity;
		}
		bus->to_close[bus->to_close_count++] = handle;
	}
out:
	pthread_mutex_unlock(&bus->lock);
}

int shmq__bus_open_handle(struct shmq_bus *bus, struct proto_request *req, struct shmq__handle *h,
			  enum shmq__slabs_mode mode, struct shmq__why *why)
{
	struct proto_reply reply = { 0 };
	void *entry;
	int error = shmq__bus_request(bus, req, &reply, why);

	/* Granted, but its descriptors found no room here; or not answered,
	 * which is not refused: it may still be carried out. */
	if (error && !reply.error)
		send_close(bus, req->token);
	if (error)
		return error;
	h->bus = bus;
	h->token = req->token;
	h->arena = reply.open.arena;
	error = shmq__topic_attach(bus->slabs, reply.open.topic_index, reply.open.topic_id, mode,
				   &h->topic);
	if (error)
		goto out;
	if (req->open.partition >= (int64_t)h->topic->geo.partitions) {
		error = shmq__fail(why, SHMQ_ECORRUPT, "\"%s\" has no partition %d", req->topic,
				   req->open.partition);
		goto out;
	}
	h->entry_ref = reply.open.entry;
	h->entry_count = req->open.partition >= 0 ? 1 : h->topic->geo.partitions;
	error = shmq__slabs_map(bus->slabs, h->entry_ref, h->entry_count * sizeof(*h->entry),
				SHMQ__SLAB_WRITE, &entry);
	if (error)
		goto out;
	h->entry = entry;
	if (load_acquire(&h->entry->gen) != reply.open.entry_gen) {
		error = shmq__fail(why, SHMQ_ECORRUPT, "the entry of \"%s\" is not ours",
				   req->topic);
		goto out;
	}
	return 0;
out:
	if (h->entry)
		shmq__slabs_unmap(bus->slabs, h->entry_ref, h->entry_count * sizeof(*h->entry),
				  h->entry);
	shmq__topic_detach(h->topic);
	h->topic = NULL;
	h->entry = NULL;
	send_close(bus, req->token);
	if (error == SHMQ_ELIMIT || error == -ENOMEM)
		no_memory(why, error, "mapping", req->topic);
	return error;
}

void shmq__bus_close_handle(struct shmq__handle *h)
{
	struct shmq_bus *bus = h->bus;

	if (bus_check(bus)) { /* a forked child: the maps are not here */
		return;
	}
	pthread_mutex_lock(&bus->lock);
	if (h->link)
		*h->link = h->next;
	if (h->next)
		h->next->link = h->link;
	pthread_mutex_unlock(&bus->lock);
	shmq__slabs_unmap(bus->slabs, h->entry_ref, h->entry_count * sizeof(*h->entry), h->entry);
	shmq__topic_detach(h->topic);
	send_close(bus, h->token);
}

void shmq__bus_move_handle(struct shmq__handle *to, struct shmq__handle *from)
{
	struct shmq_bus *bus = from->bus;

	pthread_mutex_lock(&bus->lock);
	to->next = bus->handles;
	to->link = &bus->handles;
	if (to->next)
		to->next->link = &to->next;
	bus->handles = to;
	pthread_mutex_unlock(&bus->lock);
}

/* ---- public ------------------------------------------------------------ */

static int make_guard(struct bus_guard **out)
{
	void *mem =
		mmap(NULL, LAY_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		return -errno;
	if (madvise(mem, LAY_PAGE, MADV_WIPEONFORK)) {
		int error = -errno;

		munmap(mem, LAY_PAGE);
		return error;
	}
	*out = mem;
	store_relaxed(&(*out)->alive, 1);
	return 0;
}

static uint64_t random_nonce(void)
{
	uint64_t n = 0;

	while (!n)
		if (getrandom(&n, sizeof(n), 0) != sizeof(n))
			n = shmq__clock_realtime_ns() ^ (uint64_t)getpid() << 40;
	return n;
}

/* The process's name is that of its main thread, which can ask for it at a
 * tenth of the price of a file. */
static void name_client(struct shmq_bus *bus, const char *name)
{
	int fd;

	_Static_assert(sizeof(bus->client_name) > 16, "PR_GET_NAME writes 16 bytes");
	if (name && *name)
		snprintf(bus->client_name, sizeof(bus->client_name), "%s", name);
	if ((name && *name) || (gettid() == getpid() && !prctl(PR_GET_NAME, bus->client_name)))
		return;
	fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, bus->client_name, sizeof(bus->client_name) - 1) < 0)
		bus->client_name[0] = 0;
	bus->client_name[strcspn(bus->client_name, "\n")] = 0;
	close(fd);
}

/* Options beyond the struct we know must be zero. */
static int known_tail(const void *options, size_t size, size_t known)
{
	const unsigned char *p = options;
	size_t i;

	for (i = known; i < size; i++)
		if (p[i])
			return 0;
	return 1;
}

int shmq__options_copy(void *to, const void *from, size_t known, struct shmq__why *why)
{
	size_t size;

	memset(to, 0, known);
	if (!from)
		return 0;
	memcpy(&size, from, sizeof(size));
	if (size < sizeof(size))
		return shmq__fail(why, SHMQ_EOPTION, "options: size is not set");
	if (!known_tail(from, size, known))
		return shmq__fail(why, SHMQ_EOPTION,
				  "options: a field that this library does not know is "
				  "set: use a newer libshmq");
	memcpy(to, from, size < known ? size : known);
	return 0;
}

static int init_bus(struct shmq_bus *bus)
{
	pthread_condattr_t attr;
	struct epoll_event ev = { .events = EPOLLIN };
	int error;

	pthread_mutex_init(&bus->lock, NULL);
	pthread_mutex_init(&bus->event_lock, NULL);
	pthread_mutex_init(&bus->deferred_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&bus->event_cond, &attr);
	pthread_condattr_destroy(&attr);
	error = make_guard(&bus->guard);
	if (error)
		return error;
	error = shmq__slabs_create(&bus->slabs);
	if (error)
		return error;
	bus->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* A placeholder that attach() replaces by dup3(). */
	bus->event_sock = bus->kick_fd < 0 ? -1 : fcntl(bus->kick_fd, F_DUPFD_CLOEXEC, 0);
	if (bus->event_sock < 0)
		return -errno;
	if (bus->serve == SHMQ_SERVE_CALLER) {
		bus->poll_fd = epoll_create1(EPOLL_CLOEXEC);
		if (bus->poll_fd < 0 || epoll_ctl(bus->poll_fd, EPOLL_CTL_ADD, bus->kick_fd, &ev))
			return -errno;
	}
	return 0;
}

static void free_bus(struct shmq_bus *bus)
{
	int *fd[] = { &bus->sock, &bus->event_sock, &bus->kick_fd, &bus->poll_fd };
	/* In a forked child the maps are not there, and threads that are not
	 * there either may stand in the condition for ever. */
	int is_ours = !bus->guard || !bus_check(bus);
	unsigned i;

	if (is_ours)
		reap_starter(bus, 0);
	for (i = 0; i < sizeof(fd) / sizeof(fd[0]); i++)
		if (*fd[i] >= 0)
			close(*fd[i]);
	if (is_ours)
		shmq__slabs_destroy(bus->slabs);
	else
		shmq__slabs_abandon(bus->slabs);
	if (bus->guard)
		munmap(bus->guard, LAY_PAGE);
	if (is_ours) {
		pthread_cond_destroy(&bus->event_cond);
		pthread_mutex_destroy(&bus->event_lock);
		pthread_mutex_destroy(&bus->deferred_lock);
		pthread_mutex_destroy(&bus->lock);
	}
	free(bus->to_close);
	free(bus->daemon_path);
	free(bus);
}

SHMQ_EXPORT int shmq_bus_open(const char *name, const struct shmq_bus_options *options,
			      shmq_bus **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_bus_options o;
	enum shmq__name_dir how;
	struct shmq_bus *bus;
	int error;

	*out = NULL;
	error = shmq__options_copy(&o, options, sizeof(o), why);
	if (error)
		return error;
	if (o.start > SHMQ_START_ON_DEMAND || o.serve > SHMQ_SERVE_CALLER || o.timeout_ns < 0)
		return shmq__fail(why, SHMQ_EOPTION, "bus options: a value is out of range");
	if (!name)
		name = "default";
	error = shmq__name_check_bus(name, why);
	if (error)
		return error;
	bus = calloc(1, sizeof(*bus));
	if (!bus)
		return no_memory(why, -ENOMEM, "opening bus", name);
	bus->sock = bus->event_sock = bus->kick_fd = bus->poll_fd = -1;
	snprintf(bus->name, sizeof(bus->name), "%s", name);
	bus->start = o.start;
	bus->serve = o.serve;
	bus->timeout_ns = o.timeout_ns ? o.timeout_ns : INT64_C(10000000000);
	bus->nonce = random_nonce();
	bus->next_token = 1;
	bus->retry_ns = retry_min_ns;
	name_client(bus, o.client_name);
	error = init_bus(bus);
	if (error)
		goto out;
	if (o.daemon_path && !(bus->daemon_path = strdup(o.daemon_path))) {
		error = -ENOMEM;
		goto out;
	}
	how = o.start == SHMQ_START_ON_DEMAND ? SHMQ__NAME_DIR_CREATE : SHMQ__NAME_DIR_FIND;
	error = shmq__name_runtime_dir(o.runtime_dir, how, bus->dir, sizeof(bus->dir), why);
	if (error == -ENOENT)
		error = SHMQ_ENODAEMON;
	if (error)
		goto out;
	snprintf(bus->path, sizeof(bus->path), "%s/%s.sock", bus->dir, bus->name);
	error = attach_somehow(bus, shmq__clock_deadline(bus->timeout_ns), why);
	if (error)
		goto out;
	*out = bus;
	return 0;
out:
	free_bus(bus);
	return error == -ENOMEM ? no_memory(why, error, "opening bus", name) : error;
}

SHMQ_EXPORT void shmq_bus_close(shmq_bus *bus)
{
	struct proto_request req;
	struct proto_reply reply;
	int fds[WIRE_FDS_MAX];
	unsigned n;

	if (!bus)
		return;
	if (bus_check(bus)) {
		/* In a child: the thread, the maps and the connection belong
		 * to the parent; only descriptors and memory are here. */
		free_bus(bus);
		return;
	}
	while (bus->handles)
		bus->handles->close(bus->handles);
	atomic_store(&bus->stop, 1);
	kick(bus);
	if (bus->thread_started)
		pthread_join(bus->thread, NULL);
	if (bus->sock >= 0) {
		shmq__bus_prepare(bus, &req, PROTO_GOODBYE, NULL);
		converse(bus->sock, &req, &reply, fds, &n, shmq__clock_deadline(1000000000));
		while (n)
			close(fds[--n]);
	}
	free_bus(bus);
}

SHMQ_EXPORT const char *shmq_bus_name(const shmq_bus *bus)
{
	return bus->name;
}

SHMQ_EXPORT unsigned shmq_bus_client_id(const shmq_bus *bus)
{
	return bus->client;
}

SHMQ_EXPORT int shmq_bus_fd(const shmq_bus *bus)
{
	return bus->poll_fd;
}

SHMQ_EXPORT int shmq_bus_serve(shmq_bus *bus, int64_t timeout_ns)
{
	int error = bus_check(bus);

	if (error)
		return error;
	if (bus->serve != SHMQ_SERVE_CALLER)
		return SHMQ_EOPTION;
	return serve(bus, shmq__clock_deadline(timeout_ns));
}

SHMQ_EXPORT int shmq_bus_reattach_count(const shmq_bus *bus)
{
	return atomic_load(&((struct shmq_bus *)(uintptr_t)bus)->reattached);
}

SHMQ_EXPORT int shmq_bus_is_attached(const shmq_bus *bus)
{
	return atomic_load(&((struct shmq_bus *)(uintptr_t)bus)->attached);
}

SHMQ_EXPORT int shmq_bus_stop(shmq_bus *bus, unsigned flags)
{
	struct shmq__why *why = shmq__bus_why();
	struct proto_request req;
	struct proto_reply reply;

	if (flags & ~SHMQ_FORCE)
		return shmq__fail(why, SHMQ_EOPTION, "stop: unknown flag");
	shmq__bus_prepare(bus, &req, PROTO_STOP, NULL);
	req.remove.flags = flags;
	return shmq__bus_request(bus, &req, &reply, why);
}

static int has_event(struct shmq_bus *bus)
{
	int there;

	pthread_mutex_lock(&bus->event_lock);
	there = bus->event_count > 0;
	pthread_mutex_unlock(&bus->event_lock);
	return there;
}

/* Without a thread of the library's nobody else would bring an event. */
static int serve_until_event(struct shmq_bus *bus, uint64_t deadline)
{
	int rc, served = 0;

	for (;;) {
		if (has_event(bus) || (served && shmq__clock_left(deadline) == 0))
			return 0;
		rc = serve(bus, deadline);
		if (rc < 0)
			return rc;
		served = 1;
	}
}

SHMQ_EXPORT int shmq_bus_event(shmq_bus *bus, struct shmq_event *out, int64_t timeout_ns)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);
	struct timespec ts = { .tv_sec = (time_t)(deadline / 1000000000),
			       .tv_nsec = (long)(deadline % 1000000000) };
	int error = bus_check(bus), rc = 0;

	if (error)
		return error;
	pthread_mutex_lock(&bus->lock);
	start_thread(bus);
	pthread_mutex_unlock(&bus->lock);
	if (bus->serve == SHMQ_SERVE_CALLER) {
		error = serve_until_event(bus, deadline);
		if (error)
			return error;
		rc = ETIMEDOUT; /* the waiting is done */
	}
	pthread_mutex_lock(&bus->event_lock);
	while (!bus->event_count && timeout_ns && rc != ETIMEDOUT)
		rc = deadline == UINT64_MAX ?
			     pthread_cond_wait(&bus->event_cond, &bus->event_lock) :
			     pthread_cond_timedwait(&bus->event_cond, &bus->event_lock, &ts);
	if (!bus->event_count) {
		error = timeout_ns ? SHMQ_ETIMEOUT : SHMQ_EEMPTY;
	} else {
		*out = bus->event[bus->event_first];
		out->missed = bus->event_missed;
		bus->event_missed = 0;
		bus->event_first = (bus->event_first + 1) % BUS_EVENTS;
		bus->event_count--;
	}
	pthread_mutex_unlock(&bus->event_lock);
	return error;
}
