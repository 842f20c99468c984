/* SPDX-License-Identifier: MIT */
#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"

#define BATCH 64

struct garbage {
	void *mem;
	SLIST_ENTRY(garbage) link;
};

struct loop {
	int epoll;
	int has_idle_work;
	int (*slice)(void *arg);
	void *slice_arg;
	LIST_HEAD(timer_list, timer) timers;
	SLIST_HEAD(garbage_list, garbage) garbage;
};

int loop_create(struct loop **out)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0) {
		free(l);
		return -errno;
	}
	*out = l;
	return 0;
}

static void collect_garbage(struct loop *l)
{
	struct garbage *g;

	while ((g = SLIST_FIRST(&l->garbage))) {
		SLIST_REMOVE_HEAD(&l->garbage, link);
		free(g->mem);
		free(g);
	}
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	collect_garbage(l);
	close(l->epoll);
	free(l);
}

int loop_add(struct loop *l, struct source *s, int fd, uint32_t events,
	     void (*ready)(struct source *source, uint32_t events))
{
	struct epoll_event ev = { .events = events, .data.ptr = s };

	s->fd = fd;
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev))
		return -errno;
	s->ready = ready;
	return 0;
}

int loop_change(struct loop *l, struct source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };

	return epoll_ctl(l->epoll, EPOLL_CTL_MOD, s->fd, &ev) ? -errno : 0;
}

void loop_remove(struct loop *l, struct source *s)
{
	if (!s->ready)
		return;
	s->ready = NULL;
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, s->fd, NULL);
}

void loop_free(struct loop *l, void *mem)
{
	struct garbage *g = mem ? malloc(sizeof(*g)) : NULL;

	/* Better a leak than an event delivered to freed memory. */
	if (!g)
		return;
	g->mem = mem;
	SLIST_INSERT_HEAD(&l->garbage, g, link);
}

void loop_set_timer(struct loop *l, struct timer *t, uint64_t due_ns,
		    void (*expired)(struct timer *timer))
{
	t->due_ns = due_ns;
	t->expired = expired;
	if (!t->is_set)
		LIST_INSERT_HEAD(&l->timers, t, link);
	t->is_set = 1;
}

void loop_clear_timer(struct timer *t)
{
	if (t->is_set)
		LIST_REMOVE(t, link);
	t->is_set = 0;
}

void loop_set_idle(struct loop *l, int (*slice)(void *arg), void *arg)
{
	l->slice = slice;
	l->slice_arg = arg;
}

void loop_wake_idle(struct loop *l)
{
	l->has_idle_work = 1;
}

static struct timer *next_timer(struct loop *l)
{
	struct timer *t, *first = NULL;

	LIST_FOREACH (t, &l->timers, link)
		if (!first || t->due_ns < first->due_ns)
			first = t;
	return first;
}

static void run_timers(struct loop *l)
{
	uint64_t now = shmq__clock_monotonic_ns();
	struct timer *t;

	while ((t = next_timer(l)) && t->due_ns <= now) {
		loop_clear_timer(t);
		t->expired(t);
	}
}

int loop_once(struct loop *l)
{
	struct epoll_event event[BATCH];
	struct timer *t = next_timer(l);
	int timeout = t ? shmq__clock_left_ms(t->due_ns) : -1, n, i;

	n = epoll_wait(l->epoll, event, BATCH, l->has_idle_work ? 0 : timeout);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (i = 0; i < n; i++) {
		struct source *s = event[i].data.ptr;

		if (s->ready)
			s->ready(s, event[i].events);
	}
	run_timers(l);
	if (l->has_idle_work)
		l->has_idle_work = l->slice(l->slice_arg);
	collect_garbage(l);
	return 0;
}
