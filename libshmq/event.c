/* SPDX-License-Identifier: MIT */
#include "event.h"
#include "clock.h"
#include "serve.h"
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

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

void shmq__event_push(struct shmq_bus *bus, enum shmq_event_kind kind)
{
	struct shmq_event ev = { .kind = kind };

	push_event(bus, &ev);
}

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

int shmq__event_read(struct shmq_bus *bus)
{
	struct pollfd p = { .fd = bus->event_sock, .events = POLLIN };
	int fds[WIRE_FDS_MAX], taken = 0;

	while (poll(&p, 1, 0) > 0) {
		struct proto_event ev;
		unsigned n;
		int rc = shmq__wire_recv(bus->event_sock, &ev, sizeof(ev), fds, &n);

		if (rc == -EAGAIN)
			break;
		if (rc == 1 && ev.kind == PROTO_EVENT_SLAB && n)
			shmq__slabs_add(bus->slabs, ev.client, fds[--n], SHMQ__SLAB_READ);
		else if (rc == 1)
			taken += take_event(bus, &ev);
		else if (rc != -EMSGSIZE && rc != -EMFILE)
			return -EPIPE;
		while (rc == 1 && n)
			close(fds[--n]);
	}
	return taken;
}

void shmq__event_wake(struct shmq_bus *bus)
{
	pthread_mutex_lock(&bus->event_lock);
	pthread_cond_broadcast(&bus->event_cond);
	pthread_mutex_unlock(&bus->event_lock);
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
		rc = shmq__serve(bus, deadline);
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
	shmq__serve_start(bus);
	pthread_mutex_unlock(&bus->lock);
	if (bus->serve == SHMQ_SERVE_CALLER) {
		error = serve_until_event(bus, deadline);
		if (error)
			return error;
		rc = ETIMEDOUT; /* the waiting is done */
	}
	pthread_mutex_lock(&bus->event_lock);
	while (!bus->event_count && timeout_ns && rc != ETIMEDOUT && !bus_is_interrupted(bus))
		rc = deadline == UINT64_MAX ?
			     pthread_cond_wait(&bus->event_cond, &bus->event_lock) :
			     pthread_cond_timedwait(&bus->event_cond, &bus->event_lock, &ts);
	if (!bus->event_count) {
		error = !timeout_ns ? SHMQ_EEMPTY : rc == ETIMEDOUT ? SHMQ_ETIMEOUT : -EINTR;
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
