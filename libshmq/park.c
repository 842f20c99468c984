/* SPDX-License-Identifier: MIT
 *
 * A relay is IDLE or WAITING.  The caller arms every bell itself and hands
 * the expectations to the relays that are idle.  One that still waits from
 * an earlier round waits on words that have not changed since (or it would
 * have returned), so the expectations it holds are the current ones.
 *
 *   caller                                  relay
 *   P1 e = local word                       Q1 wait returns (bells or stop)
 *   P2 arm, look, hand out, state = WAITING Q2 state = IDLE
 *   P3 FUTEX_WAIT(local, e)                 Q3 local += 1 (release), wake
 * P1 acquires.  Q3 after P1 makes P3 return at once; before P1, the bell's word had
 * changed before P2 and the look, or P2's hand-out, finds it.
 *
 * All else is relaxed.  A relay that finds an expectation of an earlier arming comes
 * back early, and whoever finds a word changed arms again.  `stop` brings nothing but
 * the end, which is joined.
 */
#include "park.h"
#include "clock.h"
#include "futex.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum relay_state { RELAY_IDLE = 0, RELAY_WAITING = 1, RELAY_STOP = 2 };

struct relay {
	struct shmq__park *park;
	pthread_t thread;
	unsigned first, n; /* its share of the bells */
	shmq_au32 state;
	int started;
};

struct shmq__park {
	struct lay_bell *const *bell;
	const shmq_au32 *also;     /* the word behind those of the bells, or NULL */
	shmq_au32 *expected;       /* relaxed: any value since the arming will do */
	unsigned bells, n, relays; /* n: of words */
	enum shmq__fence fence;
	shmq_au32 word, stop;
	struct relay *relay;
};

static const shmq_au32 *word_of(const struct shmq__park *p, unsigned i)
{
	return i < p->bells ? &p->bell[i]->word : p->also;
}

static uint32_t load_word(const struct shmq__park *p, unsigned i)
{
	return load_relaxed((shmq_au32 *)(uintptr_t)word_of(p, i));
}

int shmq__park_create(struct lay_bell *const *bell, unsigned n, const shmq_au32 *also,
		      enum shmq__fence fence, struct shmq__park **out)
{
	struct shmq__park *p = calloc(1, sizeof(*p));
	unsigned words = n + (also != NULL);

	if (!p)
		return -ENOMEM;
	p->expected = calloc(words, sizeof(*p->expected));
	if (words && !p->expected) {
		free(p);
		return -ENOMEM;
	}
	p->bell = bell;
	p->also = also;
	p->bells = n;
	p->n = words;
	p->fence = fence;
	*out = p;
	return 0;
}

static void relay_wait(struct relay *r)
{
	struct shmq__park *p = r->park;
	const shmq_au32 *word[SHMQ_FUTEX_WAITV_MAX];
	uint32_t expected[SHMQ_FUTEX_WAITV_MAX];
	unsigned i;

	if (r->n == 1) {
		/* Alone with one word we cannot watch `stop` as well: the
		 * back-stop bounds how long the end takes, and stopping wakes
		 * the bell. */
		if (!load_relaxed(&p->stop))
			shmq__futex_wait(word_of(p, r->first), load_relaxed(&p->expected[r->first]),
					 shmq__clock_deadline(1000000000));
		return;
	}
	word[0] = &p->stop;
	expected[0] = 0;
	for (i = 0; i < r->n; i++) {
		word[i + 1] = word_of(p, r->first + i);
		expected[i + 1] = load_relaxed(&p->expected[r->first + i]);
	}
	shmq__futex_waitv(word, expected, r->n + 1, UINT64_MAX);
}

static void *relay_main(void *arg)
{
	struct relay *r = arg;
	struct shmq__park *p = r->park;

	while (!load_relaxed(&p->stop)) {
		if (load_relaxed(&r->state) != RELAY_WAITING) {
			shmq__futex_wait(&r->state, RELAY_IDLE, UINT64_MAX);
			continue;
		}
		relay_wait(r);
		store_relaxed(&r->state, RELAY_IDLE); /* Q2 */
		add_release(&p->word, 1);             /* Q3 */
		shmq__futex_wake(&p->word);
	}
	return NULL;
}

/* Split the bells among relays and start them. */
static int start_relays(struct shmq__park *p)
{
	unsigned share = SHMQ_FUTEX_WAITV_MAX - 1, i;
	const shmq_au32 *probe[1] = { &p->word };
	uint32_t other[1] = { load_relaxed(&p->word) + 1 };
	sigset_t all, old;
	int error = 0;

	if (shmq__futex_waitv(probe, other, 1, 0) == -ENOSYS)
		share = 1;
	p->relays = (p->n + share - 1) / share;
	p->relay = calloc(p->relays, sizeof(*p->relay));
	if (!p->relay) {
		p->relays = 0;
		return -ENOMEM;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (i = 0; i < p->relays && !error; i++) {
		struct relay *r = &p->relay[i];

		r->park = p;
		r->first = i * share;
		r->n = p->n - r->first < share ? p->n - r->first : share;
		error = -pthread_create(&r->thread, NULL, relay_main, r);
		r->started = !error;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return error;
}

void shmq__park_free(struct shmq__park *p)
{
	unsigned i, k;

	if (!p)
		return;
	store_relaxed(&p->stop, 1);
	shmq__futex_wake(&p->stop);
	for (i = 0; i < p->relays; i++) {
		struct relay *r = &p->relay[i];

		if (!r->started)
			continue;
		store_relaxed(&r->state, RELAY_STOP);
		shmq__futex_wake(&r->state);
		for (k = 0; k < r->n && r->n == 1; k++)
			shmq__futex_wake((shmq_au32 *)(uintptr_t)word_of(p, r->first));
		pthread_join(r->thread, NULL);
	}
	free(p->relay);
	free(p->expected);
	free(p);
}

void shmq__park_arm(struct shmq__park *p)
{
	unsigned i, fenced = 0;

	for (i = 0; i < p->bells; i++) {
		store_relaxed(&p->expected[i], load_relaxed(&p->bell[i]->word)); /* S1 */
		add_acqrel(&p->bell[i]->armed, 1);                               /* S2 */
	}
	if (p->also)
		store_relaxed(&p->expected[i], load_word(p, i));
	fence_full(); /* F3 */
	for (i = 0; i < p->bells; i++)
		fenced += load_acquire(&p->bell[i]->fenced) == 1;
	if (p->fence == SHMQ__FENCE_LIGHT && fenced < p->bells)
		shmq__membarrier(); /* S3 */
}

static int sleep_by_relays(struct shmq__park *p, uint64_t deadline, const shmq_au32 *interrupt)
{
	uint32_t e = load_acquire(&p->word); /* P1 */
	uint64_t until = shmq__clock_deadline(
		p->fence == SHMQ__FENCE_LIGHT ? SHMQ__BELL_BACKSTOP_NS : 1000000);
	unsigned i, k;
	int error, rc;

	if (!p->relay) {
		error = start_relays(p);
		if (error)
			return error;
	}
	for (i = 0; i < p->relays; i++) { /* P2 */
		struct relay *r = &p->relay[i];

		if (load_relaxed(&r->state) == RELAY_WAITING)
			continue;
		store_relaxed(&r->state, RELAY_WAITING);
		shmq__futex_wake(&r->state);
	}
	/* A bell may have rung on a relay that was idle when we armed. */
	for (k = 0; k < p->n; k++)
		if (load_word(p, k) != load_relaxed(&p->expected[k]))
			return 0;
	if (deadline < until)
		until = deadline;
	rc = shmq__futex_wait_or(&p->word, e, until, interrupt); /* P3 */
	return rc == -ETIMEDOUT && until == deadline ? -ETIMEDOUT : 0;
}

int shmq__park_sleep(struct shmq__park *p, uint64_t deadline, const shmq_au32 *interrupt)
{
	const shmq_au32 *word[SHMQ_FUTEX_WAITV_MAX];
	uint32_t expected[SHMQ_FUTEX_WAITV_MAX];
	unsigned i;

	if (!p->relay && p->n && p->n < SHMQ_FUTEX_WAITV_MAX) {
		int rc;

		for (i = 0; i < p->n; i++) {
			word[i] = word_of(p, i);
			expected[i] = load_relaxed(&p->expected[i]);
		}
		rc = shmq__bell_sleep_on(word, expected, p->n, p->fence, deadline, interrupt);

		if (rc != -ENOSYS)
			return rc;
	}
	return sleep_by_relays(p, deadline, interrupt);
}
