/* SPDX-License-Identifier: MIT
 *
 * The edges stand in notify.h.  Up to 127 words go to the kernel in one
 * futex_waitv, one of which is the thread's own: beyond that there are more
 * threads.  A kernel without it is asked about the thread's own word alone, a
 * millisecond at a time, and the others are looked at in between.
 */
#include "notify.h"
#include "clock.h"
#include "futex.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SLOTS (SHMQ_FUTEX_WAITV_MAX - 1)
#define OLD_KERNEL_NS INT64_C(1000000)

struct slot {
	const shmq_au32 *word;
	uint32_t seen;
	struct shmq__notify *n;
};

struct notify_thread {
	struct shmq__notifier *of;
	struct notify_thread *next;
	pthread_t thread;
	shmq_au32 word; /* changed when the slots, a time or `stop` did */
	unsigned count;
	struct slot slot[SLOTS];
};

struct shmq__notifier {
	pthread_mutex_t lock; /* of all here, and of what descriptors are */
	struct notify_thread *threads;
	struct shmq__notify *open;
	_Atomic int stop;
};

struct shmq__notify {
	struct shmq_bus *bus; /* NULL once that was closed */
	struct shmq__notify *next, **link;
	enum notify_kind kind;
	int fd, raised;
	uint64_t until;
};

/* Locked. */
static void raise_it(struct shmq__notify *n)
{
	uint64_t one = 1;
	ssize_t rc;

	if (n->kind == NOTIFY_LEVEL && n->raised)
		return;
	n->raised = 1;
	n->until = UINT64_MAX;
	rc = write(n->fd, &one, sizeof(one)); /* full, it is readable */
	(void)rc;
}

static uint32_t load_word(const shmq_au32 *word)
{
	return load_acquire((shmq_au32 *)(uintptr_t)word);
}

/* D5, D6.  Locked.  Fills what D7 takes; until when, at the latest. */
static uint64_t look(struct notify_thread *t, const shmq_au32 **word, uint32_t *seen)
{
	uint64_t now = shmq__clock_monotonic_ns(), until = now + SHMQ__BELL_BACKSTOP_NS;
	unsigned i;

	word[0] = &t->word;
	seen[0] = load_word(&t->word);
	for (i = 0; i < t->count; i++) {
		struct slot *s = &t->slot[i];
		uint32_t value = load_word(s->word);

		if (value != s->seen || s->n->until <= now)
			raise_it(s->n);
		s->seen = value;
		if (s->n->until < until)
			until = s->n->until;
		word[i + 1] = s->word;
		seen[i + 1] = value;
	}
	return until;
}

static void *thread_main(void *arg)
{
	const shmq_au32 *word[SHMQ_FUTEX_WAITV_MAX];
	uint32_t seen[SHMQ_FUTEX_WAITV_MAX];
	struct notify_thread *t = arg;

	pthread_setname_np(pthread_self(), "shmq-notify");
	while (!atomic_load(&t->of->stop)) {
		uint64_t until;
		unsigned n;

		pthread_mutex_lock(&t->of->lock);
		until = look(t, word, seen);
		n = t->count + 1;
		pthread_mutex_unlock(&t->of->lock);
		if (shmq__futex_waitv(word, seen, n, until) == -ENOSYS)
			shmq__futex_wait(word[0], seen[0], shmq__clock_deadline(OLD_KERNEL_NS));
	}
	return NULL;
}

static void kick(struct notify_thread *t)
{
	add_release(&t->word, 1);
	shmq__futex_wake(&t->word);
}

/* Locked. */
static int add_thread(struct shmq__notifier *all)
{
	struct notify_thread *t = calloc(1, sizeof(*t));
	sigset_t every, before;
	int error;

	if (!t)
		return -ENOMEM;
	t->of = all;
	sigfillset(&every); /* signals are for the application's threads */
	pthread_sigmask(SIG_SETMASK, &every, &before);
	error = pthread_create(&t->thread, NULL, thread_main, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		free(t);
		return -error;
	}
	t->next = all->threads;
	all->threads = t;
	return 0;
}

static struct shmq__notifier *notifier_of(struct shmq_bus *bus)
{
	struct shmq__notifier *all;

	pthread_mutex_lock(&bus->event_lock); /* never held for long */
	all = bus->notifier;
	if (!all) {
		all = calloc(1, sizeof(*all));
		if (all)
			pthread_mutex_init(&all->lock, NULL);
		bus->notifier = all;
	}
	pthread_mutex_unlock(&bus->event_lock);
	return all;
}

int shmq__notify_open(struct shmq_bus *bus, enum notify_kind kind, struct shmq__notify **out)
{
	struct shmq__notify *n = notifier_of(bus) ? calloc(1, sizeof(*n)) : NULL;

	if (!n)
		return -ENOMEM;
	n->bus = bus;
	n->kind = kind;
	n->raised = kind == NOTIFY_LEVEL;
	n->until = UINT64_MAX;
	n->fd = eventfd((unsigned)n->raised, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->fd < 0) {
		free(n);
		return -errno;
	}
	pthread_mutex_lock(&bus->notifier->lock);
	n->link = &bus->notifier->open;
	n->next = *n->link;
	if (n->next)
		n->next->link = &n->next;
	*n->link = n;
	pthread_mutex_unlock(&bus->notifier->lock);
	*out = n;
	return 0;
}

/* Locked. */
static void drop_words(struct shmq__notify *n)
{
	struct notify_thread *t;
	unsigned i;

	for (t = n->bus->notifier->threads; t; t = t->next)
		for (i = t->count; i-- > 0;)
			if (t->slot[i].n == n)
				t->slot[i] = t->slot[--t->count];
}

void shmq__notify_close(struct shmq__notify *n)
{
	/* In a child of fork() the thread is not there, and may hold the lock. */
	int is_ours = n && n->bus && !bus_check(n->bus);

	if (!n)
		return;
	if (is_ours) {
		pthread_mutex_lock(&n->bus->notifier->lock);
		drop_words(n);
	}
	if (n->bus) {
		*n->link = n->next;
		if (n->next)
			n->next->link = n->link;
	}
	if (is_ours)
		pthread_mutex_unlock(&n->bus->notifier->lock);
	close(n->fd);
	free(n);
}

int shmq__notify_fd(const struct shmq__notify *n)
{
	return n->fd;
}

int shmq__notify_words(struct shmq__notify *n, const shmq_au32 *const *word, unsigned count)
{
	struct shmq__notifier *all = n->bus->notifier;
	struct notify_thread *t;
	int error = 0;

	pthread_mutex_lock(&all->lock);
	drop_words(n);
	t = all->threads;
	while (count && !error) {
		while (t && t->count == SLOTS)
			t = t->next;
		if (!t) {
			error = add_thread(all);
			t = all->threads;
			continue;
		}
		--count;
		t->slot[t->count++] = (struct slot){ word[count], load_word(word[count]), n };
		if (!count || t->count == SLOTS)
			kick(t);
	}
	pthread_mutex_unlock(&all->lock);
	return error;
}

int shmq__notify_is_raised(struct shmq__notify *n)
{
	int raised;

	pthread_mutex_lock(&n->bus->notifier->lock);
	raised = n->raised;
	pthread_mutex_unlock(&n->bus->notifier->lock);
	return raised;
}

void shmq__notify_lower(struct shmq__notify *n)
{
	uint64_t count;
	ssize_t rc;

	pthread_mutex_lock(&n->bus->notifier->lock);
	rc = read(n->fd, &count, sizeof(count));
	(void)rc;
	n->raised = 0;
	pthread_mutex_unlock(&n->bus->notifier->lock);
}

void shmq__notify_raise(struct shmq__notify *n)
{
	pthread_mutex_lock(&n->bus->notifier->lock);
	raise_it(n);
	pthread_mutex_unlock(&n->bus->notifier->lock);
}

void shmq__notify_until(struct shmq__notify *n, int64_t ns)
{
	uint64_t until = shmq__clock_deadline(
		ns < 0 || ns > SHMQ__BELL_BACKSTOP_NS ? SHMQ__BELL_BACKSTOP_NS : ns);
	struct notify_thread *t;
	unsigned i;

	pthread_mutex_lock(&n->bus->notifier->lock);
	if (!n->raised)
		n->until = until;
	/* A thread sleeps no longer than the back-stop: sooner it is told. */
	for (t = n->bus->notifier->threads; t && ns >= 0 && ns < SHMQ__BELL_BACKSTOP_NS;
	     t = t->next)
		for (i = 0; i < t->count; i++)
			if (t->slot[i].n == n) {
				kick(t);
				break;
			}
	pthread_mutex_unlock(&n->bus->notifier->lock);
}

void shmq__notify_end(struct shmq_bus *bus)
{
	struct shmq__notifier *all = bus->notifier;
	int is_ours = !bus_check(bus);
	struct notify_thread *t;

	if (!all)
		return;
	atomic_store(&all->stop, 1);
	while ((t = all->threads)) {
		all->threads = t->next;
		if (is_ours) {
			kick(t);
			pthread_join(t->thread, NULL);
		}
		free(t);
	}
	for (; all->open; all->open = all->open->next)
		all->open->bus = NULL;
	if (is_ours)
		pthread_mutex_destroy(&all->lock);
	free(all);
	bus->notifier = NULL;
}
