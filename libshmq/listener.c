/* SPDX-License-Identifier: MIT */
#include "listener.h"
#include "clock.h"
#include "futex.h"
#include "sub_priv.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64u                   /* callbacks of a run, then others have a turn */
#define AGAIN_NS INT64_C(100000000) /* an error that stays is looked at again */
#define FULL_NS INT64_C(1000000)    /* and a pool that took nothing */
#define NUDGE_NS 1000000            /* who does not hear to stop is told once more */
#define EVENTS 64

enum state {
	WAITING, /* for something to come */
	RUNNING, /* or about to: in the pool's hands */
	PAUSING, /* until again_ns */
	OVER,    /* nothing is called any more */
};

struct shmq_listener {
	struct shmq__handle h; /* in the list of its bus; first: close() converts */
	struct shmq_sub *sub;
	struct shmq_listener_options o;
	int told; /* the error that was told last and stays */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	_Atomic int state; /* enum state; changed under the lock */
	_Atomic int stop;
	int is_inside;                /* a callback runs, */
	pthread_t inside;             /* there */
	int is_let_go;                /* it was stopped from within, or its run was not
					 waited for: nobody else frees it */
	int is_begun;                 /* the run that the pool was given */
	pthread_t thread;             /* without a pool */
	struct shmq__waiting *waiter; /* with one; then under its lock: */
	int64_t again_ns;
	struct shmq_listener *next; /* of those that pause */
};

/* What waits for the listeners of a bus that have pools. */
struct shmq__waiting {
	pthread_t thread;
	pthread_mutex_t lock;
	struct shmq_listener *pausing, **last; /* the others wait at their descriptors */
	int epoll, kick;
	_Atomic int stop;
};

/* This thread runs some of a pool's. */
static _Thread_local unsigned runs;

/* ---- callbacks ------------------------------------------------------- */

enum verdict {
	GO_ON,
	NOTHING, /* is there */
	PAUSE,
	END,    /* nothing will come, or the callback has had enough */
	LET_GO, /* by a callback: the subscriber, and all but the listener itself, may
		   be gone by now */
};

static void enter(struct shmq_listener *l)
{
	pthread_mutex_lock(&l->lock);
	l->is_inside = 1;
	l->inside = pthread_self();
	pthread_mutex_unlock(&l->lock);
}

static enum verdict leave(struct shmq_listener *l, int rc)
{
	enum verdict v;

	pthread_mutex_lock(&l->lock);
	l->is_inside = 0;
	v = l->is_let_go ? LET_GO : rc || atomic_load(&l->stop) ? END : GO_ON;
	pthread_mutex_unlock(&l->lock);
	return v;
}

static int is_end(int rc, const struct shmq_sub *sub)
{
	return rc == SHMQ_EENDED || rc == SHMQ_ELOST || rc == SHMQ_EFORKED ||
	       (!sub->pattern && (rc == SHMQ_EEVICTED || rc == SHMQ_EMOVED));
}

/* A loss is told and gone; what stays is told once. */
static int stays(int rc)
{
	return rc != SHMQ_EOVERRUN && rc != SHMQ_ECORRUPT && rc != SHMQ_EEVICTED;
}

static enum verdict tell(struct shmq_listener *l, int rc, const struct shmq_msg *msg)
{
	int ends = is_end(rc, l->sub);
	enum verdict v = GO_ON;

	if (!stays(rc) || rc != l->told) {
		enter(l);
		l->o.error(l->o.arg, l->sub, rc, msg);
		v = leave(l, 0);
	}
	if (v != GO_ON)
		return v;
	l->told = stays(rc) ? rc : 0;
	return ends ? END : stays(rc) ? PAUSE : GO_ON;
}

/* Receive once, and call. */
static enum verdict step(struct shmq_listener *l, int64_t timeout_ns)
{
	struct shmq_msg msg = { 0 };
	int rc;

	if (atomic_load(&l->stop))
		return END;
	rc = shmq__sub_receive_whole(l->sub, &msg, timeout_ns);
	switch (rc) {
	case 0:
		l->told = 0;
		enter(l);
		return leave(l, l->o.message(l->o.arg, l->sub, &msg));
	case SHMQ_EEMPTY:
	case SHMQ_ETIMEOUT:
		return NOTHING;
	case SHMQ__SUB_INTERRUPTED:
		return END;
	}
	return tell(l, rc, &msg);
}

static void free_listener(struct shmq_listener *l)
{
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* A callback ended its thread: as if it had had enough. */
static void unwind(void *arg)
{
	struct shmq_listener *l = arg;
	int is_let_go;

	pthread_mutex_lock(&l->lock);
	is_let_go = l->is_let_go;
	l->is_inside = 0;
	l->state = OVER;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	if (is_let_go)
		free_listener(l);
}

/* Whoever stops it may free it once that is seen. */
static void set_state(struct shmq_listener *l, enum state state)
{
	pthread_mutex_lock(&l->lock);
	l->state = state;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/* ---- a thread of its own --------------------------------------------- */

static struct timespec after_ns(int64_t ns)
{
	uint64_t at = shmq__clock_monotonic_ns() + (uint64_t)ns;

	return (struct timespec){ .tv_sec = (time_t)(at / 1000000000),
				  .tv_nsec = (long)(at % 1000000000) };
}

static void pause_for(struct shmq_listener *l, int64_t ns)
{
	struct timespec until = after_ns(ns);

	pthread_mutex_lock(&l->lock);
	while (!atomic_load(&l->stop) &&
	       !pthread_cond_clockwait(&l->changed, &l->lock, CLOCK_MONOTONIC, &until))
		;
	pthread_mutex_unlock(&l->lock);
}

static void *thread_main(void *arg)
{
	struct shmq_listener *l = arg;
	enum verdict v;

	pthread_setname_np(pthread_self(), "shmq-listen");
	pthread_cleanup_push(unwind, l);
	do {
		v = step(l, SHMQ_FOREVER);
		if (v == PAUSE)
			pause_for(l, AGAIN_NS);
	} while (v != END && v != LET_GO);
	pthread_cleanup_pop(0);
	if (v == LET_GO)
		free_listener(l);
	else
		set_state(l, OVER);
	return NULL;
}

/* It may sleep in the kernel, and have looked just before. */
static void nudge(struct shmq_listener *l)
{
	struct shmq_sub *sub = l->sub;
	const shmq_au32 *word = shmq__sub_word(sub);

	fence_full();
	if (word)
		shmq__futex_wake((shmq_au32 *)(uintptr_t)word);
	else
		shmq__bell_ring(&sub->lane[0].bells->data);
}

static void join(struct shmq_listener *l)
{
	pthread_mutex_lock(&l->lock);
	while (atomic_load(&l->state) != OVER) {
		struct timespec until = after_ns(NUDGE_NS);

		nudge(l);
		pthread_cond_clockwait(&l->changed, &l->lock, CLOCK_MONOTONIC, &until);
	}
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
}

/* ---- the caller's pool ----------------------------------------------- */

static void kick(struct shmq__waiting *w)
{
	uint64_t one = 1;
	ssize_t rc = write(w->kick, &one, sizeof(one)); /* full, it is readable */

	(void)rc;
}

/* Under the lock: it may be taken at once, but not before that says so. */
static void await_again(struct shmq_listener *l)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.ptr = l };

	pthread_mutex_lock(&l->lock);
	epoll_ctl(l->waiter->epoll, EPOLL_CTL_MOD, shmq_sub_fd(l->sub), &ev);
	l->state = WAITING;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/* Its own lock is let go of last: whoever stops it may then end the bus, and with it
 * what waits there. */
static void pause_in_pool(struct shmq_listener *l, int64_t ns)
{
	struct shmq__waiting *w = l->waiter;
	int is_let_go;

	pthread_mutex_lock(&w->lock);
	pthread_mutex_lock(&l->lock);
	is_let_go = l->is_let_go; /* before the pool took it */
	l->again_ns = (int64_t)shmq__clock_monotonic_ns() + ns;
	l->state = PAUSING;
	if (!atomic_load(&l->stop)) { /* else it has left already */
		l->next = NULL;
		*w->last = l;
		w->last = &l->next;
	}
	pthread_cond_broadcast(&l->changed);
	kick(w);
	pthread_mutex_unlock(&w->lock);
	pthread_mutex_unlock(&l->lock);
	if (is_let_go)
		free_listener(l);
}

/* 0: it was stopped before it came to that. */
static int begin_run(struct shmq_listener *l)
{
	int begins;

	pthread_mutex_lock(&l->lock);
	begins = !l->is_let_go;
	l->is_begun = 1;
	pthread_mutex_unlock(&l->lock);
	if (!begins)
		free_listener(l);
	return begins;
}

static void run(void *task)
{
	struct shmq_listener *l = task;
	enum verdict v = GO_ON;
	unsigned n;

	if (!begin_run(l))
		return;
	runs++;
	pthread_cleanup_push(unwind, l);
	for (n = 0; n < BATCH && v == GO_ON; n++)
		v = step(l, SHMQ_NOWAIT);
	pthread_cleanup_pop(0);
	runs--;
	if (v == LET_GO)
		free_listener(l);
	else if (v == END)
		set_state(l, OVER);
	else if (v == NOTHING)
		await_again(l);
	else
		pause_in_pool(l, v == PAUSE ? AGAIN_NS : 0);
}

/* Locked: it is the pool's from now on. */
static int take(struct shmq_listener *l)
{
	int is_ours;

	pthread_mutex_lock(&l->lock);
	is_ours = !atomic_load(&l->stop) && (l->state == WAITING || l->state == PAUSING);
	if (is_ours) {
		l->state = RUNNING;
		l->is_begun = 0;
	}
	pthread_mutex_unlock(&l->lock);
	return is_ours;
}

/* Locked: it pauses no more.  `at` is what leads to it. */
static void leave_pausing(struct shmq__waiting *w, struct shmq_listener **at)
{
	if (w->last == &(*at)->next)
		w->last = at;
	*at = (*at)->next;
}

/* Those that have paused long enough, and in as many places at least those that are
 * readable, so that both have their turn.  Nothing of one that is being stopped, nor of
 * when it is due: it leaves the list and the descriptors under this lock. */
static unsigned collect(struct shmq__waiting *w, struct shmq_listener **out, int64_t *next_ns)
{
	int64_t now = (int64_t)shmq__clock_monotonic_ns();
	struct shmq_listener **at = &w->pausing, *l;
	struct epoll_event ev[EVENTS];
	uint64_t kicks;
	unsigned n = 0;
	int i, count;

	pthread_mutex_lock(&w->lock);
	*next_ns = SHMQ_FOREVER;
	while ((l = *at)) {
		if (l->again_ns <= now && n < EVENTS / 2 && take(l)) {
			leave_pausing(w, at);
			out[n++] = l;
			continue;
		}
		if (l->again_ns > now && (*next_ns < 0 || l->again_ns - now < *next_ns))
			*next_ns = l->again_ns - now;
		at = &l->next;
	}
	count = epoll_wait(w->epoll, ev, (int)(EVENTS - n), 0);
	for (i = 0; i < count; i++) {
		l = ev[i].data.ptr;
		if (!l && read(w->kick, &kicks, sizeof(kicks)) < 0)
			continue;
		if (l && take(l))
			out[n++] = l;
	}
	pthread_mutex_unlock(&w->lock);
	return n;
}

static void *waiter_main(void *arg)
{
	struct shmq_listener *ready[EVENTS];
	struct shmq__waiting *w = arg;
	struct pollfd any = { .fd = w->epoll, .events = POLLIN };
	int64_t next_ns = SHMQ_FOREVER;

	pthread_setname_np(pthread_self(), "shmq-listen");
	while (!atomic_load(&w->stop)) {
		unsigned n = collect(w, ready, &next_ns), i;

		for (i = 0; i < n; i++)
			if (ready[i]->o.execute(ready[i]->o.pool, run, ready[i]))
				pause_in_pool(ready[i], FULL_NS);
		if (!n) /* by poll(), which takes no event */
			poll(&any, 1, shmq__clock_left_ms(shmq__clock_deadline(next_ns)));
	}
	return NULL;
}

static int start_thread(pthread_t *thread, void *(*main)(void *), void *arg)
{
	sigset_t every, before;
	int error;

	sigfillset(&every); /* signals are for the application's threads */
	pthread_sigmask(SIG_SETMASK, &every, &before);
	error = pthread_create(thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

static void free_waiter(struct shmq__waiting *w)
{
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->kick >= 0)
		close(w->kick);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static int make_waiter(struct shmq__waiting **out)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct shmq__waiting *w = calloc(1, sizeof(*w));
	int error;

	if (!w)
		return -ENOMEM;
	pthread_mutex_init(&w->lock, NULL);
	w->last = &w->pausing;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = w->epoll < 0 || w->kick < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->kick, &ev) ?
			-errno :
			start_thread(&w->thread, waiter_main, w);
	if (error)
		free_waiter(w);
	else
		*out = w;
	return error;
}

/* Once; it stays as long as the bus. */
static int waiter_of(struct shmq_bus *bus, struct shmq__waiting **out)
{
	int error = 0;

	pthread_mutex_lock(&bus->event_lock); /* never held for long */
	if (!bus->waiter)
		error = make_waiter(&bus->waiter);
	*out = bus->waiter;
	pthread_mutex_unlock(&bus->event_lock);
	return error;
}

static int join_pool(struct shmq_listener *l)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.ptr = l };
	int fd = shmq_sub_fd(l->sub), error = fd < 0 ? fd : waiter_of(l->h.bus, &l->waiter);

	if (error)
		return error;
	pthread_mutex_lock(&l->waiter->lock);
	error = epoll_ctl(l->waiter->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
	pthread_mutex_unlock(&l->waiter->lock);
	return error;
}

/* From then on it is not taken. */
static void leave_pool(struct shmq_listener *l)
{
	struct shmq__waiting *w = l->waiter;
	struct shmq_listener **at = &w->pausing;

	pthread_mutex_lock(&w->lock);
	while (*at && *at != l)
		at = &(*at)->next;
	if (*at)
		leave_pausing(w, at);
	epoll_ctl(w->epoll, EPOLL_CTL_DEL, shmq_sub_fd(l->sub), NULL);
	pthread_mutex_unlock(&w->lock);
}

/* A run that has not begun may be waiting for this very thread, in whose callback it is
 * stopped: it is not waited for.  1: then it is not ours any more. */
static int let_go_of_run(struct shmq_listener *l)
{
	int lets;

	pthread_mutex_lock(&l->lock);
	lets = runs && atomic_load(&l->state) == RUNNING && !l->is_begun;
	l->is_let_go |= lets;
	pthread_mutex_unlock(&l->lock);
	return lets;
}

static void await_run(struct shmq_listener *l)
{
	pthread_mutex_lock(&l->lock);
	while (atomic_load(&l->state) == RUNNING)
		pthread_cond_wait(&l->changed, &l->lock);
	pthread_mutex_unlock(&l->lock);
}

void shmq__listener_end(struct shmq_bus *bus)
{
	struct shmq__waiting *w = bus->waiter;

	if (!w)
		return;
	atomic_store(&w->stop, 1);
	if (!bus_check(bus)) { /* in a child of fork() it is not there */
		kick(w);
		pthread_join(w->thread, NULL);
	}
	free_waiter(w);
	bus->waiter = NULL;
}

/* ---- starting and stopping ------------------------------------------- */

static void forget(struct shmq_sub *sub)
{
	sub->listener = NULL;
	sub->interrupt = bus_interrupt(shmq__sub_bus(sub));
	store_relaxed(&sub->interrupted, 0);
}

static void stop(struct shmq_listener *l)
{
	struct shmq_sub *sub = l->sub;
	int is_inside;

	if (bus_check(l->h.bus)) { /* a child: nothing runs here */
		forget(sub);
		free(l);
		return;
	}
	shmq__bus_unlist_handle(&l->h);
	pthread_mutex_lock(&l->lock);
	is_inside = l->is_inside && pthread_equal(l->inside, pthread_self());
	l->is_let_go = is_inside;
	atomic_store(&l->stop, 1);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	if (l->waiter)
		leave_pool(l);
	if (!is_inside && l->waiter && let_go_of_run(l)) {
		forget(sub);
		return;
	}
	if (!is_inside && l->waiter)
		await_run(l);
	if (!is_inside && !l->waiter) {
		store_relaxed(&sub->interrupted, 1);
		join(l);
	}
	forget(sub);
	/* After its callback, who called that does the rest. */
	if (!is_inside)
		free_listener(l);
	else if (!l->waiter)
		pthread_detach(l->thread);
}

void shmq__listener_forget(struct shmq_listener *l)
{
	if (l)
		stop(l);
}

SHMQ_EXPORT void shmq_listener_stop(shmq_listener *l)
{
	if (l)
		stop(l);
}

static void close_listener(struct shmq__handle *h)
{
	stop((struct shmq_listener *)h);
}

SHMQ_EXPORT int shmq_listener_start(shmq_sub *sub, const struct shmq_listener_options *options,
				    shmq_listener **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_listener *l;
	int error = sub_check(sub);

	*out = NULL;
	if (!error && (sub->listener || sub->set))
		error = shmq__fail(why, SHMQ_EINUSE,
				   "the subscriber has a listener already, or is in a wait set");
	if (error)
		return error;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	error = shmq__options_copy(&l->o, options, sizeof(l->o), why);
	if (!error && (!l->o.message || !l->o.error))
		error = shmq__fail(why, SHMQ_EOPTION,
				   "a listener has a callback for messages and one for errors");
	if (error) {
		free(l);
		return error;
	}
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	l->h = (struct shmq__handle){ .bus = shmq__sub_bus(sub), .close = close_listener };
	l->sub = sub;
	/* Before anything is called, which may stop it. */
	sub->listener = *out = l;
	sub->interrupt = NULL;
	shmq__bus_move_handle(&l->h, &l->h);
	error = l->o.execute ? join_pool(l) : start_thread(&l->thread, thread_main, l);
	if (!error)
		return 0;
	shmq__bus_unlist_handle(&l->h);
	forget(sub);
	*out = NULL;
	free_listener(l);
	return error;
}
