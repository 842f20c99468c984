/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define TICK_NS ((int64_t)200000000)

/* Who is to be waited for may be asked by any thread, and the one that
 * publishes is inside the library for as long as it takes. */
static int show_holder(const struct sender *sender)
{
	struct shmq_topic_info info;
	struct holder holder;

	if (shmq_topic_get_info(sender->cli->bus, sender->topic, &info) < 0 ||
	    holder_find(sender->cli->bus, &info, &holder) < 0 ||
	    !strcmp(holder_text(&holder).s, "-"))
		return 0;
	fprintf(stderr, "; waiting for %s", holder_text(&holder).s);
	return 1;
}

/* What it has been at since the tick before. */
static void show_doing(const struct sender *sender, enum doing doing)
{
	uint64_t bytes = atomic_load(&sender->progress.bytes);

	if (doing == DOING_WAIT_SUBSCRIBERS)
		fprintf(stderr, "; waiting for subscribers");
	else if (doing == DOING_CONFIRM)
		fprintf(stderr, "; waiting for the log");
	else if (doing == DOING_READ && bytes)
		fprintf(stderr, "; %s of the next read", units_size(bytes).s);
	else if (doing == DOING_PUBLISH && !show_holder(sender) && bytes)
		fprintf(stderr, "; publishing %s", units_size(bytes).s);
}

static void show(struct sender *sender, int is_same)
{
	fprintf(stderr, "\r%s: %" PRIu64 " sent, %" PRIu64 " dropped, %s, %s", sender->topic,
		atomic_load(&sender->sent), atomic_load(&sender->dropped),
		units_size(atomic_load(&sender->bytes)).s, units_rate(sender_rate(sender)).s);
	if (is_same)
		show_doing(sender, atomic_load(&sender->progress.doing));
	fputs("\033[K", stderr);
}

static void *show_all(void *arg)
{
	struct sender *sender = arg;
	struct progress *p = &sender->progress;
	uint64_t seen = 0, now;
	struct timespec until;

	pthread_mutex_lock(&p->lock);
	while (!p->is_stopped) {
		if (cli_now_ns() >= p->due_ns) {
			now = atomic_load(&p->changes);
			show(sender, now == seen);
			seen = now;
			p->due_ns = cli_now_ns() + TICK_NS;
		}
		until = (struct timespec){ .tv_sec = p->due_ns / 1000000000,
					   .tv_nsec = p->due_ns % 1000000000 };
		pthread_cond_clockwait(&p->stop, &p->lock, CLOCK_MONOTONIC, &until);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void progress_start(struct sender *sender)
{
	struct progress *p = &sender->progress;
	sigset_t all, old;

	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->stop, NULL);
	p->due_ns = cli_now_ns() + TICK_NS;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	p->is_on = pthread_create(&p->thread, NULL, show_all, sender) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void progress_set(struct sender *sender, enum doing doing, uint64_t bytes)
{
	struct progress *p = &sender->progress;

	atomic_store(&p->doing, doing);
	atomic_store(&p->bytes, bytes);
	/* A file that grows is still the same. */
	if (doing != DOING_READ)
		atomic_fetch_add(&p->changes, 1);
}

void progress_hide(struct sender *sender)
{
	struct progress *p = &sender->progress;

	if (!p->is_on)
		return;
	pthread_mutex_lock(&p->lock);
	fputs("\r\033[K", stderr);
	p->due_ns = cli_now_ns() + TICK_NS;
	pthread_mutex_unlock(&p->lock);
}

void progress_stop(struct sender *sender)
{
	struct progress *p = &sender->progress;

	if (!p->is_on)
		return;
	pthread_mutex_lock(&p->lock);
	p->is_stopped = 1;
	pthread_cond_signal(&p->stop);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	p->is_on = 0;
	fputs("\r\033[K", stderr);
}
