/* SPDX-License-Identifier: MIT
 *
 * loop: one thread, epoll, timers, and work that is done in slices while
 * nothing else is to be done.
 */
#ifndef SHMQ_LOOP_H
#define SHMQ_LOOP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/queue.h>

struct loop;

/* Embedded in what waits for a descriptor. */
struct source {
	int fd;
	void (*ready)(struct source *source, uint32_t events); /* NULL: not in the loop */
};

struct timer {
	uint64_t due_ns; /* CLOCK_MONOTONIC */
	void (*expired)(struct timer *timer);
	LIST_ENTRY(timer) link;
	int is_set;
};

#define loop_container(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

int loop_create(struct loop **out);
void loop_destroy(struct loop *loop);

/* The descriptor stays the caller's.  0 or -errno. */
int loop_add(struct loop *loop, struct source *source, int fd, uint32_t events,
	     void (*ready)(struct source *source, uint32_t events));
int loop_change(struct loop *loop, struct source *source, uint32_t events);
/* Its events that were fetched already are not delivered. */
void loop_remove(struct loop *loop, struct source *source);

/* free() once the events at hand have been delivered: what holds a source
 * may be taken apart in any handler. */
void loop_free(struct loop *loop, void *mem);

/* Once, at due_ns; setting it again moves it. */
void loop_set_timer(struct loop *loop, struct timer *timer, uint64_t due_ns,
		    void (*expired)(struct timer *timer));
void loop_clear_timer(struct timer *timer);

/* `slice` is called between events for as long as it returns 1. */
void loop_set_idle(struct loop *loop, int (*slice)(void *arg), void *arg);
void loop_wake_idle(struct loop *loop);

/* Wait for something and handle it.  0 or -errno. */
int loop_once(struct loop *loop);

#endif
