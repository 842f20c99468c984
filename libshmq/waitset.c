/* SPDX-License-Identifier: MIT
 *
 * waitset: wait until any of many subscribers has something.
 */
#include "notify.h"
#include "park.h"
#include "sub.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct shmq_waitset {
	struct shmq_bus *bus;
	struct shmq_sub **sub;
	unsigned count, capacity, turn;
	struct lay_bell **bell;      /* of all subscribers; rebuilt with park */
	struct shmq__park *park;     /* NULL: the set has changed */
	struct shmq__notify *notify; /* its descriptor, NULL unless it was asked for */
	int has_words;               /* that has those of all subscribers */
	const shmq_au32 *watched;    /* a wait ends when it is not `seen` any more, or NULL */
	uint32_t seen;
};

void shmq__waitset_change(struct shmq_waitset *set)
{
	shmq__park_free(set->park);
	free(set->bell);
	set->park = NULL;
	set->bell = NULL;
	set->has_words = 0;
	if (set->notify) /* who has come may have something */
		shmq__notify_raise(set->notify);
}

void shmq__waitset_watch(struct shmq_waitset *set, const shmq_au32 *word, uint32_t seen)
{
	if (word != set->watched)
		shmq__waitset_change(set);
	set->watched = word;
	set->seen = seen;
}

static int is_called(const struct shmq_waitset *set)
{
	return set->watched && load_acquire((shmq_au32 *)(uintptr_t)set->watched) != set->seen;
}

SHMQ_EXPORT int shmq_waitset_create(shmq_bus *bus, shmq_waitset **out)
{
	int error = bus_check(bus);

	*out = NULL;
	if (error)
		return error;
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	(*out)->bus = bus;
	return 0;
}

SHMQ_EXPORT void shmq_waitset_destroy(shmq_waitset *set)
{
	unsigned i;

	if (!set)
		return;
	for (i = 0; i < set->count; i++)
		shmq__sub_enter(set->sub[i], NULL);
	shmq__notify_close(set->notify);
	set->notify = NULL;
	shmq__waitset_change(set);
	free(set->sub);
	free(set);
}

/* Whose subscriber it is, and who else receives from it. */
static int check_free(const struct shmq_waitset *set, const struct shmq_sub *sub)
{
	struct shmq__why *why = shmq__bus_why();

	if (shmq__sub_bus(sub) != set->bus)
		return shmq__fail(why, SHMQ_EOPTION, "the subscriber is of another bus");
	if (shmq__sub_has_listener(sub))
		return shmq__fail(why, SHMQ_EINUSE,
				  "the subscriber has a listener, which receives: stop that");
	if (shmq__sub_set(sub))
		return shmq__fail(why, SHMQ_EOPTION, "the subscriber is in a wait set already");
	if (set->notify && shmq__sub_is_spin_only(sub))
		return shmq__fail(why, SHMQ_EOPTION,
				  "nobody sleeps on a spin-only topic, and the wait set has a "
				  "descriptor to wait by");
	return 0;
}

SHMQ_EXPORT int shmq_waitset_add(shmq_waitset *set, shmq_sub *sub)
{
	int error = bus_check(set->bus);

	if (!error)
		error = check_free(set, sub);
	if (error)
		return error;
	if (set->count == set->capacity) {
		unsigned capacity = set->capacity ? 2 * set->capacity : 16;
		struct shmq_sub **more = realloc(set->sub, capacity * sizeof(*more));

		if (!more)
			return -ENOMEM;
		set->sub = more;
		set->capacity = capacity;
	}
	set->sub[set->count++] = sub;
	shmq__sub_enter(sub, set);
	shmq__waitset_change(set);
	return 0;
}

void shmq__waitset_forget(struct shmq_waitset *set, struct shmq_sub *sub)
{
	unsigned i;

	for (i = 0; i < set->count && set->sub[i] != sub; i++)
		;
	if (i == set->count)
		return;
	memmove(&set->sub[i], &set->sub[i + 1], (set->count - i - 1) * sizeof(*set->sub));
	set->count--;
	shmq__sub_enter(sub, NULL);
	shmq__waitset_change(set);
}

SHMQ_EXPORT int shmq_waitset_remove(shmq_waitset *set, shmq_sub *sub)
{
	int error = bus_check(set->bus);

	if (error)
		return error;
	if (shmq__sub_set(sub) != set)
		return SHMQ_EOPTION;
	shmq__waitset_forget(set, sub);
	return 0;
}

static int collect(struct shmq_waitset *set, struct shmq_sub **ready, size_t n)
{
	unsigned i, at = set->turn;
	size_t found = 0;

	for (i = 0; i < set->count && found < n; i++) {
		if (at >= set->count)
			at = 0;
		if (shmq__sub_is_ready(set->sub[at]))
			ready[found++] = set->sub[at];
		at++;
	}
	if (found)
		set->turn = at; /* the one after the last looked at is first next time */
	return (int)found;
}

static int prepare_park(struct shmq_waitset *set)
{
	const shmq_au32 *also = set->watched;
	unsigned i, n = 0;
	int error;

	if (set->park)
		return 0;
	for (i = 0; i < set->count; i++)
		n += shmq__sub_bells(set->sub[i]);
	set->bell = calloc(n ? n : 1, sizeof(*set->bell));
	if (!set->bell)
		return -ENOMEM;
	n = 0;
	for (i = 0; i < set->count; i++) {
		shmq__sub_list_bells(set->sub[i], set->bell + n);
		n += shmq__sub_bells(set->sub[i]);
		if (!also)
			also = shmq__sub_word(set->sub[i]);
	}
	error = shmq__park_create(set->bell, n, also,
				  set->count ? shmq__sub_fence(set->sub[0]) : SHMQ__FENCE_FULL,
				  &set->park);
	if (error) {
		free(set->bell);
		set->bell = NULL;
	}
	return error;
}

static int64_t report_stuck(struct shmq_waitset *set)
{
	int64_t least = SHMQ_FOREVER, ns;
	unsigned i;

	for (i = 0; i < set->count; i++) {
		ns = shmq__sub_report_stuck(set->sub[i]);
		if (least == SHMQ_FOREVER || (ns != SHMQ_FOREVER && ns < least))
			least = ns;
	}
	return least;
}

static int sleep_once(struct shmq_waitset *set, struct shmq_sub **ready, size_t n,
		      uint64_t deadline)
{
	uint64_t soon;
	unsigned i;
	int rc = prepare_park(set);

	if (rc)
		return rc;
	for (i = 0; i < set->count; i++)
		shmq__sub_show_asleep(set->sub[i], 1);
	shmq__park_arm(set->park);
	rc = collect(set, ready, n); /* S4 */
	/* Without a park one has joined a topic meanwhile. */
	if (!rc && set->park && !is_called(set)) {
		soon = shmq__clock_deadline(report_stuck(set));
		rc = shmq__park_sleep(set->park, deadline < soon ? deadline : soon,
				      bus_interrupt(set->bus));
		if (rc == -ETIMEDOUT)
			rc = 0;
	}
	for (i = 0; i < set->count; i++)
		shmq__sub_show_asleep(set->sub[i], 0);
	return rc;
}

/* The set spins only if one of its subscribers would, and sleeps unless one
 * of them must not. */
static enum shmq_wait mode_of(const struct shmq_waitset *set, int64_t *spin_ns)
{
	enum shmq_wait mode = SHMQ_WAIT_SLEEP;
	unsigned i;

	*spin_ns = 0;
	for (i = 0; i < set->count; i++) {
		enum shmq_wait m = shmq__sub_wait_mode(set->sub[i]);

		if (m == SHMQ_WAIT_SPIN || m == SHMQ_WAIT_YIELD)
			return m;
		if (m == SHMQ_WAIT_ADAPTIVE) {
			mode = m;
			if (shmq__sub_spin_ns(set->sub[i]) > *spin_ns)
				*spin_ns = shmq__sub_spin_ns(set->sub[i]);
		}
	}
	return mode;
}

SHMQ_EXPORT int shmq_waitset_fd(shmq_waitset *set)
{
	int error = bus_check(set->bus);
	unsigned i;

	for (i = 0; !error && i < set->count; i++)
		if (shmq__sub_is_spin_only(set->sub[i]))
			error = SHMQ_EOPTION;
	if (!error && !set->notify)
		error = shmq__notify_open(set->bus, NOTIFY_LEVEL, &set->notify);
	return error ? error : shmq__notify_fd(set->notify);
}

/* Nobody is ready, and the set has a descriptor. */
static int rearm(struct shmq_waitset *set, struct shmq_sub **ready, size_t n)
{
	int64_t patience = SHMQ__BELL_BACKSTOP_NS, ns;
	unsigned i;
	int rc;

	if (!shmq__notify_is_raised(set->notify))
		return 0;
	shmq__notify_lower(set->notify); /* D1 */
	rc = prepare_park(set);
	if (!rc && !set->has_words)
		rc = shmq__sub_give_words(set->notify, set->sub, set->count);
	if (!rc) {
		set->has_words = 1;
		shmq__park_arm(set->park);   /* D2 */
		rc = collect(set, ready, n); /* D3 */
	}
	if (rc || !set->park) { /* without: one has joined a topic meanwhile */
		shmq__notify_raise(set->notify);
		return rc;
	}
	for (i = 0; i < set->count; i++) {
		ns = shmq__sub_patience(set->sub[i]);
		if (ns < patience)
			patience = ns;
	}
	shmq__notify_until(set->notify, patience);
	return 0;
}

static int nothing(struct shmq_waitset *set, struct shmq_sub **ready, size_t n, int error)
{
	int rc = set->notify ? rearm(set, ready, n) : 0;

	return rc ? rc : error;
}

SHMQ_EXPORT int shmq_waitset_wait(shmq_waitset *set, shmq_sub **ready, size_t n, int64_t timeout_ns)
{
	struct waiter w;
	enum shmq_wait mode;
	unsigned turns = 0;
	int64_t spin_ns;
	int rc = bus_check(set->bus);

	if (rc)
		return rc;
	if (!n)
		return SHMQ_EOPTION;
	rc = collect(set, ready, n);
	if (rc)
		return rc;
	if (timeout_ns == SHMQ_NOWAIT || !set->count)
		return nothing(set, ready, n, SHMQ_EEMPTY);
	mode = mode_of(set, &spin_ns);
	shmq__waiter_start(&w, mode, spin_ns, timeout_ns, bus_interrupt(set->bus));
	for (;;) {
		enum wait_step step = shmq__waiter_step(&w);

		rc = step == WAIT_SLEEP ? sleep_once(set, ready, n, w.deadline) :
					  collect(set, ready, n);
		if (rc)
			return rc;
		if (step == WAIT_INTERRUPTED)
			return -EINTR;
		if (step == WAIT_EXPIRED || is_called(set))
			return nothing(set, ready, n, SHMQ_ETIMEOUT);
		if (step == WAIT_AGAIN && ++turns % 4096 == 0)
			report_stuck(set); /* spinners look now and then */
	}
}
