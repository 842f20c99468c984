/* SPDX-License-Identifier: MIT */
#include "serve.h"
#include "attach.h"
#include "clock.h"
#include "event.h"
#include "futex.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/single_threaded.h>
#include <unistd.h>

void shmq__serve_kick(struct shmq_bus *bus)
{
	uint64_t one = 1;
	ssize_t rc = write(bus->kick_fd, &one, sizeof(one));

	(void)rc;
}

static int wake_deferred(struct shmq_bus *bus)
{
	struct shmq__handle *h;
	int wakes = 0;

	pthread_mutex_lock(&bus->deferred_lock);
	for (h = bus->deferred; h; h = h->next_deferred)
		wakes += serve_wake_for(h);
	pthread_mutex_unlock(&bus->deferred_lock);
	return wakes;
}

int shmq__serve(struct shmq_bus *bus, uint64_t deadline)
{
	uint64_t retry_at = 0; /* 0: not away */

	for (;;) {
		struct pollfd p[2] = { { .fd = bus->kick_fd, .events = POLLIN },
				       { .fd = bus->event_sock, .events = POLLIN } };
		int64_t left = shmq__clock_left(deadline), wake = atomic_load(&bus->wake_ns);
		int away = retry_at || atomic_load(&bus->lost), rc = 0, did = 0;
		int64_t retry_left = retry_at ? shmq__clock_left(retry_at) : -1;
		int leaves = bus->serve == SHMQ_SERVE_CALLER && bus_is_interrupted(bus);
		struct timespec ts;

		if (wake && (left < 0 || wake < left))
			left = wake;
		if (retry_left >= 0 && (left < 0 || retry_left < left))
			left = retry_left;
		if (leaves)
			left = 0;
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
			if (bus_is_interrupted(bus))
				shmq__event_wake(bus);
		}
		if (atomic_load(&bus->stop))
			return 0;
		if (wake)
			did += wake_deferred(bus);
		if (!away && (p[1].revents & (POLLIN | POLLHUP | POLLERR))) {
			rc = shmq__event_read(bus);
			if (rc > 0)
				did += rc;
		} else if (retry_at && !shmq__clock_left(retry_at)) {
			rc = -EPIPE;
		}
		if (rc == -EPIPE) {
			rc = shmq__attach_come_back(bus, &retry_at);
			did += !rc;
		}
		if (did || shmq__clock_left(deadline) == 0)
			return did;
		if (leaves)
			return -EINTR;
	}
}

static void *thread_main(void *arg)
{
	struct shmq_bus *bus = arg;

	pthread_setname_np(pthread_self(), "shmq");
	while (!atomic_load(&bus->stop))
		shmq__serve(bus, UINT64_MAX);
	return NULL;
}

void shmq__serve_start(struct shmq_bus *bus)
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

void shmq__serve_get_ready(struct shmq_bus *bus)
{
	if (!__libc_single_threaded || bus->thread_started)
		return;
	if (!bus->registered)
		bus->registered = shmq__membarrier_register() ? -1 : 1;
	shmq__serve_start(bus);
}

enum shmq__fence shmq__bus_ready(struct shmq_bus *bus, unsigned topic_flags)
{
	enum shmq__fence fence;

	pthread_mutex_lock(&bus->lock);
	if (!bus->registered && !(topic_flags & SHMQ_TOPIC_SPIN_ONLY))
		bus->registered = shmq__membarrier_register() ? -1 : 1;
	shmq__serve_start(bus);
	fence = bus->registered > 0 ? SHMQ__FENCE_LIGHT : SHMQ__FENCE_FULL;
	pthread_mutex_unlock(&bus->lock);
	return fence;
}

enum shmq__fence shmq__bus_commit_fence(const struct shmq_bus *bus, enum shmq__fence fence)
{
	return load_relaxed(&shmq__slabs_registry(bus->slabs)->no_membarrier) ? SHMQ__FENCE_FULL :
										fence;
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
	serve_begin(h);
	h->next_deferred = bus->deferred;
	bus->deferred = h;
	find_shortest_wake(bus);
	pthread_mutex_unlock(&bus->deferred_lock);
	shmq__serve_kick(bus);
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

SHMQ_EXPORT int shmq_bus_serve(shmq_bus *bus, int64_t timeout_ns)
{
	int error = bus_check(bus);

	if (error)
		return error;
	if (bus->serve != SHMQ_SERVE_CALLER)
		return SHMQ_EOPTION;
	return shmq__serve(bus, shmq__clock_deadline(timeout_ns));
}
