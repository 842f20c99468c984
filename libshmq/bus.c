/* SPDX-License-Identifier: MIT */
#include "bus.h"
#include "attach.h"
#include "clock.h"
#include "futex.h"
#include "listener.h"
#include "notify.h"
#include "request.h"
#include "serve.h"
#include "start.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

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

int shmq__bus_no_memory(struct shmq__why *why, int error, const char *doing, const char *name)
{
	return shmq__fail(why, error,
			  "%s \"%s\": no map or no memory is left: raise vm.max_map_count "
			  "(sysctl) or RLIMIT_AS (ulimit -v)",
			  doing, name);
}

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
	store_relaxed(&(*out)->alive, BUS_ALIVE);
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
		shmq__start_reap(bus, 0);
	if (bus->guard) {
		shmq__listener_end(bus);
		shmq__notify_end(bus);
	}
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
		return shmq__fail(why, SHMQ_EOPTION, "bus options: %s is out of range",
				  o.start > SHMQ_START_ON_DEMAND ? "start" :
				  o.serve > SHMQ_SERVE_CALLER    ? "serve" :
								   "timeout_ns");
	if (!name)
		name = "default";
	error = shmq__name_check_bus(name, why);
	if (error)
		return error;
	bus = calloc(1, sizeof(*bus));
	if (!bus)
		return shmq__bus_no_memory(why, -ENOMEM, "opening bus", name);
	bus->sock = bus->event_sock = bus->kick_fd = bus->poll_fd = -1;
	snprintf(bus->name, sizeof(bus->name), "%s", name);
	bus->start = o.start;
	bus->serve = o.serve;
	bus->is_interruptible = o.interruptible != 0;
	bus->timeout_ns = o.timeout_ns ? o.timeout_ns : INT64_C(10000000000);
	bus->nonce = random_nonce();
	bus->next_token = 1;
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
	error = shmq__attach_until(bus, shmq__clock_deadline(bus->timeout_ns), why);
	if (error)
		goto out;
	*out = bus;
	return 0;
out:
	free_bus(bus);
	return error == -ENOMEM ? shmq__bus_no_memory(why, error, "opening bus", name) : error;
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
	pthread_mutex_lock(&bus->lock);
	bus->is_leaving = 1;
	pthread_mutex_unlock(&bus->lock);
	while (bus->handles)
		bus->handles->close(bus->handles);
	atomic_store(&bus->stop, 1);
	shmq__serve_kick(bus);
	if (bus->thread_started)
		pthread_join(bus->thread, NULL);
	if (bus->sock >= 0) {
		shmq__bus_prepare(bus, &req, PROTO_GOODBYE, NULL);
		shmq__request_converse(bus->sock, &req, &reply, fds, &n,
				       shmq__clock_deadline(1000000000));
		while (n)
			close(fds[--n]);
	} else if (!bus->has_left && !atomic_load(&bus->lost)) {
		shmq__attach_leave(bus);
	}
	free_bus(bus);
}

SHMQ_EXPORT int shmq_bus_interrupt(shmq_bus *bus)
{
	int error = bus_check(bus), saved = errno;

	if (!error && !bus->is_interruptible)
		error = SHMQ_EOPTION;
	if (error)
		return error;
	store_relaxed(&bus->interrupt, 1);
	shmq__futex_wake(&bus->interrupt); /* fences the store from what is slept on */
	shmq__serve_kick(bus);
	errno = saved; /* it is called by handlers of signals */
	return 0;
}

SHMQ_EXPORT int shmq_bus_resume(shmq_bus *bus)
{
	int error = bus_check(bus);

	if (!error)
		store_relaxed(&bus->interrupt, 0);
	return error;
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

SHMQ_EXPORT int shmq_bus_reload(shmq_bus *bus, char *changes, size_t bytes)
{
	struct proto_request req;
	struct proto_reply reply;
	int error;

	shmq__bus_prepare(bus, &req, PROTO_RELOAD, NULL);
	error = shmq__bus_request(bus, &req, &reply, shmq__bus_why());
	if (error)
		return error;
	if (changes && bytes)
		snprintf(changes, bytes, "%.*s", (int)sizeof(reply.reload.text), reply.reload.text);
	return reply.reload.changes > INT32_MAX ? INT32_MAX : (int)reply.reload.changes;
}
