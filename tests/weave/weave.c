/* SPDX-License-Identifier: MIT
 *
 * The model and the searches are described in weave.h.  This file is compiled
 * without its header before it and without instrumentation.
 */
#include "weave.h"
#undef memcpy
#undef shmq__membarrier

#include "tap.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <ucontext.h>

#define FIBERS 6
#define WORDS (REGION_BYTES / 8)
#define REGION_BYTES (FIBERS * HEAP_BYTES + WORLD_BYTES)
#define WORLD_BYTES 65536u /* what set_up() allocates */
#define HEAP_BYTES 8192u   /* what a fiber allocates */
#define STACK_BYTES 65536u
#define SHARED 400 /* words that several fibers use */
#define STORES 96  /* of one word in an execution */
#define VIEWS 4096 /* that stores of an execution carry */
#define CHOICES 100000
#define STEPS 20000 /* of an execution, before it is said to go on for ever */
#define LONG 64     /* words of a plain access */
#define PATIENCE 8  /* looks of one that yields while nothing is stored */
#define GAP (1u << 16)

static _Noreturn void stop(const char *what);
static _Noreturn void end(int what);

/* ---- state ---------------------------------------------------------- */

typedef uint32_t stamp; /* of a store, in the order of its word */

struct store {
	uint64_t value;
	stamp at;
	int attached; /* a read-modify-write: nothing comes between it and the last */
	stamp *view;  /* what it carries, NULL nothing */
};

struct history {
	unsigned count;
	struct store store[STORES];
};

enum op_kind { OP_LOCAL, OP_MEMORY, OP_FENCE, OP_BARRIER };
struct op {
	enum op_kind kind;
	unsigned word; /* OP_MEMORY, and OP_FENCE of a futex */
	int writes;
};

enum fiber_state { FREE, READY, ASLEEP, IDLE, JOINING, ENDED };

struct pending_store { /* plain: its value is in memory once the fiber goes on */
	char *at;
	unsigned bytes;
};

struct late_load {
	unsigned word;
	stamp from;  /* it is at least that new */
	char *to;    /* a payload, or */
	int guessed; /* a value that was returned already */
	uint64_t value;
	unsigned shift, bytes;
};

struct fiber {
	char name[24];
	void (*run)(void *arg);
	void *arg;
	enum fiber_state state;
	struct op op; /* its next */
	int attends, mortal, died, started, joins;
	const void *futex[4];
	unsigned futexes;
	uint32_t bits;      /* of a wake that is for it */
	uint64_t idle_seen; /* stores when it went on last, and 1; 0 never stood idle */
	uint64_t looks;
	unsigned again; /* how often it went on since then, for nothing */
	int yields, is_last;
	jmp_buf at;
	ucontext_t context;
	char *heap;
	struct pending_store plain[LONG];
	unsigned plains;
	struct late_load late[64];
	unsigned lates;
	int knows; /* a release fence was made: see released */
	stamp view[SHARED], acquired[SHARED], released[SHARED];
};

static _Alignas(4096) char region[REGION_BYTES];
static char world[WORLD_BYTES]; /* as set_up() left it */
static size_t world_bytes;
static char stack[FIBERS][STACK_BYTES] __attribute__((aligned(64)));

/* What a search has learned. */
static uint8_t readers[WORDS], writers[WORDS];
static uint16_t shared_as[WORDS]; /* 0: one fiber's own so far */
static unsigned word_of[SHARED], shared_count;

/* An execution. */
static struct fiber fiber[FIBERS];
static unsigned fibers, first_fibers; /* and how many set_up() made */
static int setting_up, no_waitv, no_membarrier;
static uint64_t look_counts;
static int current = -1; /* -1: none, what is done is done at once */
static struct history history[SHARED];
/* What futexes promise, and no more: whoever goes to sleep after a wake sees
 * what the waker stored before it. */
static stamp futex_view[SHARED];
static stamp sc_view[SHARED], view_pool[VIEWS][SHARED];
static unsigned views;
static uint64_t stores, steps;
static uint64_t guesses[SHARED][8]; /* values seen, for late loads; of the search */
static unsigned guess_count[SHARED];

enum outcome { PASSED, PRUNED, LEARNED, FAILED };
static jmp_buf home;
static enum outcome outcome;
static char failure[512];

/* The search. */
static const struct weave_scenario *scenario;
static enum weave_memory memory;
static enum { SEARCH_ALL, SEARCH_RANDOM } search;
static uint64_t number;
static int telling;

struct choice {
	unsigned options, chosen;
	int is_fiber;
	unsigned tried, sleep; /* fibers */
};
static struct choice choice[CHOICES];
static unsigned choices, choice_at;
static unsigned asleep; /* sleep set: fibers whose next step was looked at */
static uint64_t seed;
static unsigned change_every, stale_every;

/* ---- telling -------------------------------------------------------- */

static struct {
	const void *at;
	char name[40];
} names[512];
static unsigned name_count;

void weave_name(const void *at, const char *format, ...)
{
	va_list args;

	if (name_count == sizeof(names) / sizeof(names[0]))
		stop("too many names");
	names[name_count].at = at;
	va_start(args, format);
	vsnprintf(names[name_count++].name, sizeof(names[0].name), format, args);
	va_end(args);
}

static const char *name_of(unsigned word)
{
	static char buf[64];
	const char *at = region + 8 * (size_t)word;
	unsigned i, best = name_count;

	for (i = 0; i < name_count; i++)
		if ((const char *)names[i].at <= at &&
		    (best == name_count || names[i].at > names[best].at))
			best = i;
	if (best == name_count || at - (const char *)names[best].at > 4096)
		snprintf(buf, sizeof(buf), "word %u", word);
	else if (at == names[best].at)
		return names[best].name;
	else
		snprintf(buf, sizeof(buf), "%s+%d", names[best].name,
			 (int)(at - (const char *)names[best].at));
	return buf;
}

void weave_tell(const char *format, ...)
{
	char line[256];
	va_list args;

	if (!telling)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	NOTE("%-10s %s", current < 0 ? "-" : fiber[current].name, line);
}

static const char *site_name(const struct weave_site *s)
{
	return s ? s->name : "plain";
}

static struct weave_scenario *scenarios, **last_scenario = &scenarios;

void weave_register(struct weave_scenario *s)
{
	*last_scenario = s;
	last_scenario = &s->next;
}

/* ---- ends of an execution ------------------------------------------- */

static void end(int what)
{
	outcome = (enum outcome)what;
	_longjmp(home, 1);
}

static void stop(const char *what)
{
	FAIL("weave: %s", what);
}

void weave_fail(const char *file, int line, const char *format, ...)
{
	const char *base = strrchr(file, '/');
	va_list args;
	int n;

	n = snprintf(failure, sizeof(failure), "%s:%d: ", base ? base + 1 : file, line);
	va_start(args, format);
	vsnprintf(failure + n, sizeof(failure) - (size_t)n, format, args);
	va_end(args);
	weave_tell("FAILS: %s", failure);
	end(FAILED);
}

#define fail(...) weave_fail("weave.c", __LINE__, __VA_ARGS__)

/* ---- choices -------------------------------------------------------- */

static uint64_t next_random(void)
{
	uint64_t x;

	seed += UINT64_C(0x9e3779b97f4a7c15);
	x = (seed ^ seed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* One of n; 0 is what a strong machine would do. */
static unsigned choose(unsigned n)
{
	struct choice *c = &choice[choice_at];

	if (n <= 1)
		return 0;
	if (search == SEARCH_RANDOM)
		return next_random() % stale_every ? 0 : (unsigned)(next_random() % n);
	if (choice_at++ == choices) {
		if (choices++ == CHOICES)
			stop("too many choices");
		*c = (struct choice){ .options = n };
	} else if (c->is_fiber || c->options != n) {
		stop("an execution is not a function of its choices");
	}
	return c->chosen;
}

static int depends(const struct op *a, const struct op *b)
{
	if (a->kind == OP_LOCAL || b->kind == OP_LOCAL)
		return 0;
	if (a->kind == OP_BARRIER || b->kind == OP_BARRIER)
		return 1;
	if (a->kind == OP_FENCE && b->kind == OP_FENCE)
		return 1;
	return a->word && a->word == b->word && (a->writes || b->writes);
}

static unsigned lowest(unsigned set)
{
	return (unsigned)__builtin_ctz(set);
}

/* Which of the fibers in `ready` makes a step. */
static unsigned choose_fiber(unsigned ready)
{
	struct choice *c = &choice[choice_at];
	unsigned f, left, i;

	if (search == SEARCH_RANDOM) {
		if (current >= 0 && ready & 1u << current && next_random() % change_every)
			return (unsigned)current;
		f = (unsigned)(next_random() % (unsigned)__builtin_popcount(ready));
		for (left = ready; f; f--)
			left &= left - 1;
		return lowest(left);
	}
	if (choice_at++ == choices) {
		if (choices++ == CHOICES)
			stop("too many choices");
		*c = (struct choice){ .is_fiber = 1, .options = ready, .sleep = asleep };
		left = ready & ~asleep;
		if (!left)
			end(PRUNED);
		c->chosen = current >= 0 && left & 1u << current ? (unsigned)current : lowest(left);
	} else if (!c->is_fiber || c->options != ready) {
		stop("an execution is not a function of its choices");
	}
	f = c->chosen;
	asleep = 0;
	for (i = 0; i < fibers; i++)
		if ((c->sleep | c->tried) & 1u << i && !depends(&fiber[i].op, &fiber[f].op))
			asleep |= 1u << i;
	return f;
}

/* The next execution of an exhaustive search; 0: there is none. */
static int advance(void)
{
	while (choices) {
		struct choice *c = &choice[choices - 1];

		if (!c->is_fiber) {
			if (++c->chosen < c->options)
				return 1;
		} else {
			unsigned left;

			c->tried |= 1u << c->chosen;
			left = c->options & ~(c->tried | c->sleep);
			if (left) {
				c->chosen = lowest(left);
				return 1;
			}
		}
		choices--;
	}
	return 0;
}

/* ---- views ---------------------------------------------------------- */

static void join(stamp *to, const stamp *from)
{
	unsigned i;

	for (i = 1; i <= shared_count; i++)
		if (from[i] > to[i])
			to[i] = from[i];
}

static stamp *new_view(const stamp *of)
{
	stamp *v;

	if (views == VIEWS)
		stop("too many stores in an execution");
	v = view_pool[views++];
	memcpy(v, of, (shared_count + 1) * sizeof(*v));
	return v;
}

static void full_fence(struct fiber *f)
{
	join(f->acquired, sc_view);
	memcpy(f->view, f->acquired, sizeof(f->view));
	memcpy(f->released, f->view, sizeof(f->view));
	memcpy(sc_view, f->view, sizeof(f->view));
	f->knows = 1;
}

/* ---- the scheduler -------------------------------------------------- */

static void give_way(void);

static void entry(void)
{
	struct fiber *f = &fiber[current];

	f->run(f->arg);
	weave_settle();
	f->state = ENDED;
	weave_tell("ends");
	give_way();
}

/* All that are not asleep stand idle or wait for an end: let them go on.  The
 * set of those who can. */
static unsigned rouse(void)
{
	unsigned i, k, ready = 0, alive = 0, idle = 0;

	for (i = 0; i < fibers; i++) {
		alive += fiber[i].state != ENDED && !fiber[i].attends;
		idle += fiber[i].state == IDLE && !fiber[i].yields;
	}
	for (i = 0; i < fibers; i++) {
		struct fiber *f = &fiber[i];

		/* Nothing new to see, nor that the others have ended, or that
		 * time passes. */
		if (f->state != IDLE ||
		    (f->idle_seen == stores + 1 &&
		     (f->yields ? f->again == PATIENCE : idle != alive || f->is_last)))
			continue;
		for (k = 1; k <= shared_count; k++)
			f->view[k] = history[k].store[history[k].count - 1].at;
		join(f->acquired, f->view);
		f->is_last = idle == alive;
		f->state = READY;
		f->op = (struct op){ .kind = OP_LOCAL };
		ready |= 1u << i;
	}
	if (!alive)
		end(PASSED);
	if (!ready) {
		static const char *const doing[] = { "free", "ready",   "asleep",
						     "idle", "joining", "ended" };
		char who[FIBERS * 40] = "";
		int n = 0;

		for (i = 0; i < fibers; i++)
			if (fiber[i].state != ENDED)
				n += snprintf(who + n, 40, " %.23s is %s;", fiber[i].name,
					      doing[fiber[i].state]);
		fail("nobody goes on:%s", who);
	}
	return ready;
}

static unsigned who_is_ready(void)
{
	unsigned i, ready = 0;

	for (i = 0; i < fibers; i++) {
		struct fiber *f = &fiber[i];

		if (f->state == JOINING && fiber[f->joins].state == ENDED) {
			f->state = READY;
			f->op = (struct op){ .kind = OP_LOCAL };
		}
		if (f->state != READY)
			continue;
		if (f->op.kind == OP_LOCAL)
			return 1u << i; /* touches nobody: at once */
		ready |= 1u << i;
	}
	return ready ? ready : rouse();
}

/* Let the next fiber make its step; returns when it is the turn of the one
 * that called. */
static void give_way(void)
{
	unsigned ready = who_is_ready();
	int from = current, to;

	if (++steps > STEPS)
		fail("no end after %d steps", STEPS);
	to = (int)(ready & (ready - 1) ? choose_fiber(ready) : lowest(ready));
	if (search == SEARCH_ALL && !(ready & (ready - 1))) {
		unsigned i, still = 0;

		for (i = 0; i < fibers; i++)
			if (asleep & 1u << i && !depends(&fiber[i].op, &fiber[to].op))
				still |= 1u << i;
		if (asleep & ready && fiber[to].op.kind != OP_LOCAL)
			end(PRUNED);
		asleep = still;
	}
	current = to;
	if (to == from)
		return;
	if (from >= 0 && _setjmp(fiber[from].at))
		return;
	if (!fiber[to].started) {
		fiber[to].started = 1;
		setcontext(&fiber[to].context);
	}
	_longjmp(fiber[to].at, 1);
}

static void settle_plain(struct fiber *f);

/* Before an operation that others can tell. */
static void point(enum op_kind kind, unsigned word, int writes)
{
	struct fiber *f = &fiber[current];

	/* What it loads late then may be any word. */
	f->op = (struct op){ .kind = f->lates ? OP_BARRIER : kind, .word = word, .writes = writes };
	give_way();
	if (f->mortal && (search == SEARCH_RANDOM ? next_random() % 24 == 0 : choose(2))) {
		weave_tell("dies");
		f->died = 1;
		f->lates = 0;
		f->state = ENDED;
		give_way();
	}
}

/* ---- words ---------------------------------------------------------- */

static int is_tracked(const void *p)
{
	return (uintptr_t)p - (uintptr_t)region < REGION_BYTES;
}

static unsigned word_at(const void *p)
{
	return (unsigned)(((uintptr_t)p - (uintptr_t)region) / 8);
}

/* The shared number of that word, or 0 while it is this fiber's own or nobody
 * writes there. */
static unsigned touch(unsigned w, int writes)
{
	unsigned all;

	if (shared_as[w])
		return shared_as[w];
	if (writes)
		writers[w] |= (uint8_t)(1u << current);
	else
		readers[w] |= (uint8_t)(1u << current);
	all = readers[w] | writers[w];
	if (!writers[w] || !(all & (all - 1)))
		return 0;
	if (shared_count + 1 == SHARED)
		stop("too many words are shared");
	word_of[++shared_count] = w;
	shared_as[w] = (uint16_t)shared_count;
	end(LEARNED);
}

/* First store that the fiber may still read, or store after. */
static unsigned oldest(const struct history *h, stamp view)
{
	unsigned i = h->count - 1;

	while (i && h->store[i].at > view)
		i--;
	return i;
}

static struct history *history_of(unsigned s)
{
	return &history[s];
}

static uint64_t part(uint64_t word, const void *p, size_t bytes)
{
	unsigned shift = 8 * ((uintptr_t)p & 7);

	return bytes == 8 ? word : word >> shift & ((UINT64_C(1) << 8 * bytes) - 1);
}

static uint64_t with_part(uint64_t word, const void *p, size_t bytes, uint64_t value)
{
	unsigned shift = 8 * ((uintptr_t)p & 7);
	uint64_t mask;

	if (bytes == 8)
		return value;
	mask = ((UINT64_C(1) << 8 * bytes) - 1) << shift;
	return (word & ~mask) | (value << shift & mask);
}

static void reach_site(struct weave_site *s)
{
	s->same->reached += current >= 0;
}

static unsigned order_of(const struct weave_site *s)
{
	return s->same->weakened ? WEAVE_RELAXED : s->order;
}

/* ---- late loads ----------------------------------------------------- */

/* A late load takes its value now. */
static void take_late(struct fiber *f, struct late_load *l)
{
	struct history *h = history_of(l->word);
	unsigned from = oldest(h, l->from), n = 0, k, i, fits[STORES];

	for (i = h->count; i-- > from;)
		if (!l->guessed || part(h->store[i].value, (void *)(uintptr_t)(l->shift / 8),
					l->bytes) == l->value)
			fits[n++] = i;
	if (!n)
		end(PRUNED); /* that value never came */
	k = fits[choose(n)];
	if (l->to)
		memcpy(l->to, (char *)&h->store[k].value + l->shift / 8, l->bytes);
	/* What it loads from now on is not older. */
	if (h->store[k].at > f->view[l->word])
		f->view[l->word] = h->store[k].at;
	if (f->view[l->word] > f->acquired[l->word])
		f->acquired[l->word] = f->view[l->word];
	if (h->store[k].view)
		join(f->acquired, h->store[k].view);
	weave_tell("late load of %s: %#llx", name_of(word_of[l->word]),
		   (unsigned long long)h->store[k].value);
}

static void settle_late(struct fiber *f)
{
	unsigned i;

	for (i = 0; i < f->lates; i++)
		take_late(f, &f->late[i]);
	f->lates = 0;
}

static struct late_load *add_late(struct fiber *f, unsigned word, stamp from)
{
	struct late_load *l = &f->late[f->lates];

	if (f->lates++ == sizeof(f->late) / sizeof(f->late[0]))
		stop("too many late loads");
	*l = (struct late_load){ .word = word, .from = from };
	return l;
}

/* Loads of one word are in order. */
static void settle_late_of(struct fiber *f, unsigned word)
{
	unsigned i, k = 0;

	for (i = 0; i < f->lates; i++)
		if (f->late[i].word == word)
			take_late(f, &f->late[i]);
		else
			f->late[k++] = f->late[i];
	f->lates = k;
}

static void settle_before(struct fiber *f, unsigned word, unsigned order)
{
	if (order & WEAVE_RELEASE)
		settle_late(f);
	else
		settle_late_of(f, word);
}

static void note_guess(unsigned word, uint64_t value)
{
	unsigned i;

	for (i = 0; i < guess_count[word]; i++)
		if (guesses[word][i] == value)
			return;
	if (i < 8)
		guesses[word][guess_count[word]++] = value;
}

/* ---- loads and stores ----------------------------------------------- */

static uint64_t take(struct fiber *f, unsigned s, unsigned k, unsigned order)
{
	struct store *st = &history[s].store[k];

	if (st->at > f->view[s])
		f->view[s] = st->at;
	if (f->view[s] > f->acquired[s])
		f->acquired[s] = f->view[s];
	if (st->view) {
		join(f->acquired, st->view);
		if (order & WEAVE_ACQUIRE)
			join(f->view, st->view);
	}
	return st->value;
}

static uint64_t load_word(struct fiber *f, unsigned s, unsigned order)
{
	struct history *h = history_of(s);
	unsigned n = memory == WEAVE_SC ? 1 : h->count - oldest(h, f->view[s]);

	return take(f, s, h->count - 1 - choose(n), order);
}

/* Put a store behind number k of its word. */
static struct store *put(unsigned s, unsigned k, uint64_t value)
{
	struct history *h = history_of(s);
	struct store *st = &h->store[k + 1];

	if (h->count == STORES)
		stop("too many stores of one word");
	memmove(st + 1, st, (h->count - k - 1) * sizeof(*st));
	*st = (struct store){ .value = value };
	st->at = k + 1 == h->count ? h->store[k].at + GAP :
				     h->store[k].at + (st[1].at - h->store[k].at) / 2;
	h->count++;
	stores++;
	note_guess(s, value);
	return st;
}

/* 1 if a store fits between number k and the next. */
static int has_gap(const struct history *h, unsigned k)
{
	return k + 1 == h->count ||
	       (!h->store[k + 1].attached && h->store[k + 1].at - h->store[k].at > 1);
}

/* What a store of that fiber carries. */
static void carry(struct fiber *f, struct store *st, unsigned s, unsigned order)
{
	const stamp *from = order & WEAVE_RELEASE ? f->view : f->knows ? f->released : NULL;

	if (st->at > f->view[s])
		f->view[s] = st->at;
	if (f->view[s] > f->acquired[s])
		f->acquired[s] = f->view[s];
	if (from) {
		if (st->view)
			join(st->view, from);
		else
			st->view = new_view(from);
	}
	if (st->view && st->at > st->view[s])
		st->view[s] = st->at;
}

static void store_word(struct fiber *f, unsigned s, const void *p, size_t bytes, uint64_t value,
		       unsigned order)
{
	struct history *h = history_of(s);
	unsigned last = h->count - 1, from = oldest(h, f->view[s]), fits[STORES], n = 0, i;
	struct store *st;

	fits[n++] = last;
	/* A part of a word is put behind the last, which it keeps the rest of. */
	if (memory == WEAVE_WEAK && bytes == 8)
		for (i = last; i-- > from;)
			if (has_gap(h, i))
				fits[n++] = i;
	i = fits[choose(n)];
	st = put(s, i, with_part(h->store[i].value, p, bytes, value));
	if (bytes < 8 && h->store[i].view)
		st->view = new_view(h->store[i].view);
	carry(f, st, s, order);
}

/* Plain stores of this fiber were carried out since: take them over. */
static void settle_plain(struct fiber *f)
{
	unsigned i;

	for (i = 0; i < f->plains; i++) {
		struct pending_store *p = &f->plain[i];
		uint64_t value = 0;

		memcpy(&value, p->at, p->bytes);
		store_word(f, shared_as[word_at(p->at)], p->at, p->bytes, value, WEAVE_RELAXED);
		weave_tell("%s = %#llx, plainly", name_of(word_at(p->at)),
			   (unsigned long long)value);
	}
	f->plains = 0;
}

static struct fiber *enter(void)
{
	struct fiber *f;

	if (current < 0)
		return NULL;
	f = &fiber[current];
	if (f->plains)
		settle_plain(f);
	return f;
}

/* Before a plain load or store of bytes at p. */
static void plain(const void *p, size_t bytes, int writes)
{
	struct fiber *f;
	const char *at = p;
	uint64_t got[LONG];
	unsigned n = 0, i;

	if (current < 0 || !is_tracked(p))
		return;
	f = enter();
	for (; bytes; n++) {
		size_t here = 8 - ((uintptr_t)at & 7), part_bytes = bytes < here ? bytes : here;
		unsigned s = touch(word_at(at), writes);

		if (n == LONG)
			stop("a plain access is too long");
		if (s) {
			point(OP_MEMORY, s, writes);
			if (writes) {
				if (f->plains == LONG)
					stop("a plain store is too long");
				f->plain[f->plains++] =
					(struct pending_store){ .at = (char *)(uintptr_t)at,
								.bytes = (unsigned)part_bytes };
			} else {
				settle_late_of(f, s);
				got[n] = load_word(f, s, WEAVE_RELAXED);
				weave_tell("%s is %#llx, plainly", name_of(word_at(at)),
					   (unsigned long long)got[n]);
			}
		}
		at += part_bytes;
		bytes -= part_bytes;
	}
	if (writes)
		return;
	/* The load that follows finds there what was taken. */
	for (i = 0, at = p; i < n; i++) {
		unsigned w = word_at(at);

		if (shared_as[w])
			*(uint64_t *)(region + 8 * (size_t)w) = got[i];
		at = region + 8 * ((size_t)w + 1);
	}
}

static uint64_t raw_load(const void *p, size_t bytes)
{
	uint64_t v = 0;

	memcpy(&v, p, bytes);
	return v;
}

uint64_t weave_load(struct weave_site *site, const void *p, size_t bytes)
{
	struct fiber *f;
	unsigned s, order = order_of(site), k;
	uint64_t v;

	reach_site(site);
	if (current < 0 || !is_tracked(p) || !(s = touch(word_at(p), 0)))
		return raw_load(p, bytes);
	f = enter();
	point(OP_MEMORY, s, 0);
	settle_late_of(f, s);
	if ((site->same->late || site->same->weakened) && memory == WEAVE_WEAK && guess_count[s] &&
	    search == SEARCH_RANDOM && next_random() % 3 == 0) {
		struct late_load *l = add_late(f, s, f->view[s]);

		k = (unsigned)(next_random() % guess_count[s]);
		l->guessed = 1;
		l->shift = 8 * ((uintptr_t)p & 7);
		l->bytes = (unsigned)bytes;
		l->value = v = part(guesses[s][k], p, bytes);
		weave_tell("%s will turn out to be %#llx at %s", name_of(word_at(p)),
			   (unsigned long long)v, site_name(site));
		return v;
	}
	v = part(load_word(f, s, order), p, bytes);
	weave_tell("%s is %#llx at %s", name_of(word_at(p)), (unsigned long long)v,
		   site_name(site));
	return v;
}

void weave_store(struct weave_site *site, void *p, uint64_t value, size_t bytes)
{
	struct fiber *f;
	unsigned s, order = order_of(site);

	reach_site(site);
	f = enter();
	if (!f || !is_tracked(p) || !(s = touch(word_at(p), 1))) {
		if (f && f->lates && order & WEAVE_RELEASE) {
			point(OP_LOCAL, 0, 0);
			settle_late(f);
		}
		memcpy(p, &value, bytes);
		return;
	}
	point(OP_MEMORY, s, 1);
	settle_before(f, s, order);
	store_word(f, s, p, bytes, value, order);
	weave_tell("%s = %#llx at %s", name_of(word_at(p)), (unsigned long long)value,
		   site_name(site));
}

/* Replace store k, which was read, by a value right behind it. */
static void modify(struct fiber *f, unsigned s, unsigned k, uint64_t value, unsigned order)
{
	struct store *st, *read;

	take(f, s, k, order);
	st = put(s, k, value);
	read = &history[s].store[k];
	st->attached = 1;
	if (read->view)
		st->view = new_view(read->view);
	carry(f, st, s, order);
}

uint64_t weave_add(struct weave_site *site, void *p, uint64_t value, size_t bytes)
{
	struct fiber *f;
	struct history *h;
	unsigned s, order = order_of(site), fits[STORES], n = 0, i;
	uint64_t old, fresh;

	reach_site(site);
	f = enter();
	if (!f || !is_tracked(p) || !(s = touch(word_at(p), 1))) {
		old = raw_load(p, bytes);
		fresh = old + value;
		memcpy(p, &fresh, bytes);
		return old;
	}
	point(OP_MEMORY, s, 1);
	settle_before(f, s, order);
	h = history_of(s);
	fits[n++] = h->count - 1;
	if (memory == WEAVE_WEAK && bytes == 8)
		for (i = h->count - 1; i-- > oldest(h, f->view[s]);)
			if (has_gap(h, i))
				fits[n++] = i;
	i = fits[choose(n)];
	old = part(h->store[i].value, p, bytes);
	modify(f, s, i, with_part(h->store[i].value, p, bytes, old + value), order);
	weave_tell("%s = %#llx + %llu at %s", name_of(word_at(p)), (unsigned long long)old,
		   (unsigned long long)value, site_name(site));
	return old;
}

int weave_cas(struct weave_site *site, void *p, void *expected, uint64_t value, size_t bytes)
{
	struct fiber *f;
	struct history *h;
	unsigned s, order = order_of(site), fits[STORES], n = 0, i;
	uint64_t want = raw_load(expected, bytes), old;
	int done;

	reach_site(site);
	f = enter();
	if (!f || !is_tracked(p) || !(s = touch(word_at(p), 1))) {
		old = raw_load(p, bytes);
		memcpy(old == want ? p : expected, old == want ? &value : &old, bytes);
		return old == want;
	}
	point(OP_MEMORY, s, 1);
	settle_before(f, s, order);
	h = history_of(s);
	for (i = h->count; i-- > oldest(h, f->view[s]);) {
		if (part(h->store[i].value, p, bytes) != want || has_gap(h, i))
			fits[n++] = i;
		if (memory == WEAVE_SC || bytes < 8)
			break;
	}
	i = fits[choose(n)];
	old = part(h->store[i].value, p, bytes);
	done = old == want;
	if (done) {
		modify(f, s, i, with_part(h->store[i].value, p, bytes, value), order);
	} else {
		take(f, s, i, order);
		memcpy(expected, &old, bytes);
	}
	weave_tell("%s is %#llx, %s %#llx at %s", name_of(word_at(p)), (unsigned long long)old,
		   done ? "now" : "so it does not become", (unsigned long long)value,
		   site_name(site));
	return done;
}

void weave_fence(struct weave_site *site)
{
	struct fiber *f = enter();
	unsigned order = order_of(site);

	reach_site(site);
	if (!f || order == WEAVE_RELAXED)
		return;
	if (order == WEAVE_SEQCST || f->lates)
		point(OP_FENCE, 0, 0);
	settle_late(f);
	if (order == WEAVE_SEQCST) {
		full_fence(f);
	} else if (order & WEAVE_ACQUIRE) {
		memcpy(f->view, f->acquired, sizeof(f->view));
	} else {
		memcpy(f->released, f->view, sizeof(f->view));
		f->knows = 1;
	}
	weave_tell("fence at %s", site_name(site));
}

int weave_membarrier(struct weave_site *site)
{
	struct fiber *f = enter();
	unsigned i;

	reach_site(site);
	if (no_membarrier)
		return -ENOSYS;
	if (!f || order_of(site) == WEAVE_RELAXED)
		return 0;
	point(OP_BARRIER, 0, 1);
	settle_late(f);
	full_fence(f);
	for (i = 0; i < fibers; i++) {
		settle_late(&fiber[i]);
		full_fence(&fiber[i]);
	}
	full_fence(f);
	weave_tell("membarrier at %s", site_name(site));
	return 0;
}

void *weave_copy(void *to, const void *from, size_t bytes)
{
	size_t done = 0;

	if (current < 0 || (!is_tracked(to) && !is_tracked(from)))
		return memcpy(to, from, bytes);
	enter();
	while (done < bytes) {
		char *t = (char *)to + done;
		const char *f = (const char *)from + done;
		size_t n = bytes - done, room;

		room = 8 - ((uintptr_t)(is_tracked(f) ? f : t) & 7);
		n = n < room ? n : room;
		room = is_tracked(t) ? 8 - ((uintptr_t)t & 7) : n;
		n = n < room ? n : room;
		plain(f, n, 0);
		if (is_tracked(t) && is_tracked(f)) {
			uint64_t value = raw_load(f, n);

			plain(t, n, 1);
			memcpy(t, &value, n);
		} else {
			plain(t, n, 1);
			memcpy(t, f, n);
		}
		enter();
		done += n;
	}
	return to;
}

void weave_read_late(void *to, const void *from, size_t bytes)
{
	struct fiber *f = enter();
	size_t done;

	for (done = 0; done < bytes; done += 8) {
		const char *at = (const char *)from + done;
		size_t n = bytes - done < 8 ? bytes - done : 8;
		unsigned s = f && is_tracked(at) ? touch(word_at(at), 0) : 0;

		if (!s || memory == WEAVE_SC) {
			weave_copy((char *)to + done, at, n);
			continue;
		}
		point(OP_MEMORY, s, 0);
		settle_late_of(f, s);
		struct late_load *l = add_late(f, s, f->view[s]);

		l->to = (char *)to + done;
		l->shift = 8 * ((uintptr_t)at & 7);
		l->bytes = (unsigned)n;
	}
}

void weave_settle(void)
{
	struct fiber *f = enter();

	if (f)
		settle_late(f);
}

/* ---- hooks of the instrumentation ----------------------------------- */

#define HOOK(bytes) \
	void __tsan_read##bytes(void *p); \
	void __tsan_read##bytes(void *p) \
	{ \
		plain(p, bytes, 0); \
	} \
	void __tsan_write##bytes(void *p); \
	void __tsan_write##bytes(void *p) \
	{ \
		plain(p, bytes, 1); \
	} \
	void __tsan_unaligned_read##bytes(void *p); \
	void __tsan_unaligned_read##bytes(void *p) \
	{ \
		plain(p, bytes, 0); \
	} \
	void __tsan_unaligned_write##bytes(void *p); \
	void __tsan_unaligned_write##bytes(void *p) \
	{ \
		plain(p, bytes, 1); \
	}
HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)

void __tsan_read_range(void *p, size_t bytes);
void __tsan_read_range(void *p, size_t bytes)
{
	plain(p, bytes, 0);
}
void __tsan_write_range(void *p, size_t bytes);
void __tsan_write_range(void *p, size_t bytes)
{
	plain(p, bytes, 1);
}
void __tsan_init(void);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc)
{
}
void __tsan_func_exit(void *pc);
void __tsan_func_exit(void *pc)
{
}

/* ---- the kernel ----------------------------------------------------- */

/* Sleep while all of n words are as expected. */
static int futex_wait(const shmq_au32 *const *word, const uint32_t *expected, unsigned n,
		      uint32_t bits)
{
	struct fiber *f = enter();
	unsigned i;

	if (!f)
		return 0;
	if (n > sizeof(f->futex) / sizeof(f->futex[0]))
		stop("too many words to wait on");
	point(OP_BARRIER, 0, 0);
	settle_late(f);
	for (i = 0; i < n; i++) {
		unsigned s = touch(word_at(word[i]), 0);
		uint64_t v;

		if (s && futex_view[s] > f->view[s])
			f->view[s] = futex_view[s];
		v = s ? part(load_word(f, s, WEAVE_RELAXED), word[i], 4) : raw_load(word[i], 4);
		if (v != expected[i]) {
			weave_tell("does not sleep: %s changed", name_of(word_at(word[i])));
			return 0;
		}
		f->futex[i] = word[i];
	}
	f->futexes = n;
	f->bits = bits;
	f->state = ASLEEP;
	weave_tell("sleeps on %s", name_of(word_at(word[0])));
	give_way();
	return 0;
}

int shmq__futex_wait(const shmq_au32 *word, uint32_t expected, uint64_t deadline)
{
	return futex_wait(&word, &expected, 1, UINT32_MAX);
}

int shmq__futex_wait_bits(const shmq_au32 *word, uint32_t expected, uint32_t bits,
			  uint64_t deadline)
{
	return futex_wait(&word, &expected, 1, bits);
}

int shmq__futex_waitv(const shmq_au32 *const *word, const uint32_t *expected, unsigned n,
		      uint64_t deadline)
{
	return no_waitv ? -ENOSYS : futex_wait(word, expected, n, UINT32_MAX);
}

int shmq__futex_wait_or(const shmq_au32 *word, uint32_t expected, uint64_t deadline,
			const shmq_au32 *interrupt)
{
	const shmq_au32 *both[2] = { word, interrupt };
	const uint32_t values[2] = { expected, 0 };

	return interrupt ? shmq__futex_waitv(both, values, 2, deadline) :
			   shmq__futex_wait(word, expected, deadline);
}

int shmq__futex_wake(shmq_au32 *word)
{
	return shmq__futex_wake_bits(word, UINT32_MAX);
}

int shmq__futex_wake_bits(shmq_au32 *word, uint32_t bits)
{
	struct fiber *f = enter();
	unsigned i, k;
	int woken = 0;

	if (!f)
		return 0;
	point(OP_BARRIER, 0, 0);
	settle_late(f);
	join(futex_view, f->view);
	for (i = 0; i < fibers; i++) {
		struct fiber *g = &fiber[i];

		for (k = 0; g->state == ASLEEP && k < g->futexes; k++)
			if (g->futex[k] == word && g->bits & bits) {
				g->state = READY;
				g->op = (struct op){ .kind = OP_LOCAL };
				woken++;
			}
	}
	weave_tell("wakes %d on %s", woken, name_of(word_at(word)));
	return woken;
}

/* ---- fibers --------------------------------------------------------- */

void *weave_alloc(size_t bytes)
{
	void *p = region + world_bytes;

	world_bytes += (bytes + 63) & ~(size_t)63;
	if (world_bytes > WORLD_BYTES)
		stop("the scenario needs more memory");
	return p;
}

/* One that another starts knows what that one does. */
static void start_fiber(unsigned i)
{
	struct fiber *f = &fiber[i];
	size_t bytes = sizeof(f->view);

	f->state = READY;
	f->op = (struct op){ .kind = OP_LOCAL };
	f->started = f->died = f->knows = f->is_last = 0;
	f->plains = f->lates = 0;
	f->idle_seen = f->looks = f->again = 0;
	f->heap = region + WORLD_BYTES + (size_t)i * HEAP_BYTES;
	memset(f->view, 0, bytes);
	memset(f->released, 0, bytes);
	if (current >= 0)
		memcpy(f->view, fiber[current].view, bytes);
	memcpy(f->acquired, f->view, bytes);
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = stack[i];
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = NULL;
	makecontext(&f->context, entry, 0);
}

int weave_spawn(const char *name, void (*run)(void *arg), void *arg)
{
	struct fiber *f = &fiber[fibers];

	if (fibers == FIBERS)
		stop("too many fibers");
	*f = (struct fiber){ .run = run, .arg = arg };
	snprintf(f->name, sizeof(f->name), "%s", name);
	fibers++;
	if (current < 0)
		first_fibers = fibers;
	else
		start_fiber(fibers - 1);
	return (int)fibers - 1;
}

int weave_attend(const char *name, void (*run)(void *arg), void *arg)
{
	int n = weave_spawn(name, run, arg);

	fiber[n].attends = 1;
	return n;
}

void weave_without_waitv(void)
{
	no_waitv = 1;
}

void weave_without_membarrier(void)
{
	no_membarrier = 1;
}

void weave_mortal(int n)
{
	fiber[n].mortal = 1;
}

static void stand_by(int yields)
{
	struct fiber *f = enter();

	settle_late(f);
	f->yields = yields;
	f->state = IDLE;
	give_way();
	f->again = f->idle_seen == stores + 1 ? f->again + 1 : 0;
	f->idle_seen = stores + 1;
}

int weave_idle(void)
{
	stand_by(0);
	return !fiber[current].is_last;
}

void weave_yield(void)
{
	stand_by(1);
}

int weave_join(int n)
{
	struct fiber *f = enter();

	settle_late(f);
	f->joins = n;
	f->state = JOINING;
	give_way();
	join(f->view, fiber[n].view);
	join(f->acquired, fiber[n].view);
	return fiber[n].died;
}

int weave_has_died(int n)
{
	struct fiber *f = enter();

	if (!f)
		return 0;
	point(OP_BARRIER, 0, 0);
	if (fiber[n].state != ENDED || !fiber[n].died)
		return 0;
	join(f->view, fiber[n].view);
	join(f->acquired, fiber[n].view);
	return 1;
}

int weave_self(void)
{
	return current;
}

void weave_look_counts(uint64_t times)
{
	look_counts = times;
}

uint64_t weave_looks(void)
{
	return current < 0 ? 0 : ++fiber[current].looks * look_counts;
}

/* What the library allocates in a fiber is gone with the execution. */
void *__real_malloc(size_t bytes);
void *__real_realloc(void *p, size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void __real_free(void *p);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
void __wrap_free(void *p);

void *__wrap_malloc(size_t bytes)
{
	struct fiber *f;
	size_t *p;

	if (setting_up) {
		p = (size_t *)((char *)weave_alloc(bytes + 64) + 48);
		p[0] = bytes;
		return p + 2;
	}
	if (current < 0)
		return __real_malloc(bytes);
	f = &fiber[current];
	p = (size_t *)f->heap;
	bytes = (bytes + 15) & ~(size_t)15;
	f->heap += bytes + 16;
	if (f->heap > region + WORLD_BYTES + (size_t)(current + 1) * HEAP_BYTES)
		stop("a fiber needs more memory");
	p[0] = bytes;
	return p + 2;
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	void *p;

	if (current < 0 && !setting_up)
		return __real_calloc(n, bytes);
	p = __wrap_malloc(n * bytes);
	return memset(p, 0, n * bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	void *p;

	if (current < 0 && !setting_up)
		return __real_realloc(old, bytes);
	p = __wrap_malloc(bytes);
	if (old) {
		size_t had = is_tracked(old) ? ((size_t *)old)[-2] : 0;

		memcpy(p, old, had < bytes ? had : bytes);
	}
	return p;
}

void __wrap_free(void *p)
{
	if (!is_tracked(p))
		__real_free(p);
}

/* ---- an execution --------------------------------------------------- */

static void begin(void)
{
	unsigned i;

	memcpy(region, world, world_bytes);
	current = -1;
	fibers = first_fibers;
	for (i = 0; i < fibers; i++)
		start_fiber(i);
	memset(sc_view, 0, sizeof(sc_view));
	memset(futex_view, 0, sizeof(futex_view));
	for (i = 1; i <= shared_count; i++) {
		history[i].count = 1;
		history[i].store[0] =
			(struct store){ .value = *(uint64_t *)(region + 8 * (size_t)word_of[i]) };
	}
	views = 0;
	stores = steps = 0;
	choice_at = 0;
	asleep = 0;
	current = -1;
}

static void finish(void)
{
	unsigned i;

	for (i = 1; i <= shared_count; i++)
		*(uint64_t *)(region + 8 * (size_t)word_of[i]) =
			history[i].store[history[i].count - 1].value;
	current = -1;
	if (scenario->check)
		scenario->check();
}

static enum outcome execute(void)
{
	begin();
	if (search == SEARCH_RANDOM) {
		static const unsigned change[] = { 1, 2, 4, 8, 16 }, stale[] = { 2, 3, 5, 9 };

		seed = number * UINT64_C(0xd1342543de82ef95);
		change_every = change[next_random() % 5];
		stale_every = stale[next_random() % 4];
	}
	outcome = PASSED;
	if (!_setjmp(home)) {
		give_way();
	} else if (outcome == PASSED) {
		if (!_setjmp(home))
			finish();
	}
	current = -1;
	return outcome;
}

/* Of the linker: what WEAVE_SITE() puts between. */
extern struct weave_site *const __start_weave_sites[], *const __stop_weave_sites[];

static int is_site(struct weave_site *const *a)
{
	return (uintptr_t)a < (uintptr_t)__stop_weave_sites;
}

static void set_up(const struct weave_scenario *s, enum weave_memory m)
{
	struct weave_site *const *a;

	scenario = s;
	memory = m;
	current = -1;
	memset(region, 0, sizeof(region));
	memset(readers, 0, sizeof(readers));
	memset(writers, 0, sizeof(writers));
	memset(shared_as, 0, sizeof(shared_as));
	memset(guess_count, 0, sizeof(guess_count));
	shared_count = fibers = first_fibers = name_count = 0;
	world_bytes = 64; /* word 0 is none */
	for (a = __start_weave_sites; is_site(a); a++)
		(*a)->late = 0;
	no_waitv = no_membarrier = 0;
	look_counts = 1;
	setting_up = 1;
	s->set_up();
	setting_up = 0;
	memcpy(world, region, world_bytes);
	choices = 0;
	number = 0;
}

struct result {
	uint64_t executions, pruned;
	int failed, complete;
};

/* Until one fails, all were looked at, or limit. */
static struct result look(const struct weave_scenario *s, enum weave_memory m, int how,
			  uint64_t limit)
{
	struct result r = { 0 };

	search = how;
	set_up(s, m);
	while (number < limit) {
		enum outcome o = execute();

		if (o == LEARNED) {
			if (search == SEARCH_ALL) {
				choices = 0;
				number++;
			}
			continue;
		}
		number++;
		r.pruned += o == PRUNED;
		if (o == FAILED) {
			r.failed = 1;
			number--;
			break;
		}
		if (search == SEARCH_ALL && !advance()) {
			r.complete = 1;
			break;
		}
	}
	r.executions = number;
	return r;
}

static const char *const memory_name[] = { "sc", "weak" };
static const char *const search_name[] = { "all", "random" };

/* Do the execution that failed once more, and tell it. */
static void tell_failure(void)
{
	telling = 1;
	execute();
	telling = 0;
	NOTE("again: %s --replay %s:%s:%s:%llu", program_invocation_name, scenario->name,
	     memory_name[memory], search_name[search], (unsigned long long)number);
}

static void report(const struct result *r)
{
	if (r->failed) {
		tell_failure();
		FAIL("%s", failure);
	}
	NOTE("%s, %s: %llu executions%s%s, %u words shared", scenario->name, memory_name[memory],
	     (unsigned long long)r->executions,
	     r->complete          ? ", all there are" :
	     search == SEARCH_ALL ? ", not all there are" :
				    "",
	     r->pruned ? " (some cut short)" : "", shared_count);
}

uint64_t weave_effort(void)
{
	return getenv("SHMQ_TORTURE") ? 20 : 1;
}

void weave_all(const struct weave_scenario *s, enum weave_memory m, uint64_t limit)
{
	struct result r = look(s, m, SEARCH_ALL, limit);

	report(&r);
	if (!r.complete)
		FAIL("%s: there are more than %llu schedules", s->name, (unsigned long long)limit);
}

void weave_random(const struct weave_scenario *s, enum weave_memory m, uint64_t count)
{
	struct result r = look(s, m, SEARCH_RANDOM, count * weave_effort());

	report(&r);
}

/* ---- sites ---------------------------------------------------------- */

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* As atomics.h has it. */
static const char *spelling_of(const struct weave_site *s)
{
	static const char *const kind[] = { "load", "store", "add", "cas", "fence", "membarrier" };
	static const char *const order[] = { "_relaxed", "_acquire", "_release",
					     "_acqrel", [WEAVE_SEQCST] = "_full" };
	static char buf[32];

	snprintf(buf, sizeof(buf), "%s%s", kind[s->kind],
		 s->kind == WEAVE_BARRIER ? "" : order[s->order]);
	return buf;
}

static int is_alike(const struct weave_site *a, const struct weave_site *b)
{
	return a->kind == b->kind && a->order == b->order && !strcmp(a->file, b->file) &&
	       !strcmp(a->function, b->function);
}

/* How many lines with something like it are before it in its function; what a
 * header defines is in many objects. */
static unsigned lines_before(const struct weave_site *s)
{
	int line = 0;
	unsigned n = 0;

	for (;;) {
		struct weave_site *const *a;
		int next = s->line;

		for (a = __start_weave_sites; is_site(a); a++)
			if (is_alike(*a, s) && (*a)->line > line && (*a)->line < next)
				next = (*a)->line;
		if (next == s->line)
			return n;
		line = next;
		n++;
	}
}

static void name_sites(void)
{
	struct weave_site *const *a, *const *b;

	for (a = __start_weave_sites; is_site(a); a++) {
		struct weave_site *s = *a;
		unsigned before = lines_before(s);
		int n = snprintf(s->name, sizeof(s->name), "%s:%s:%s", base_of(s->file),
				 s->function, spelling_of(s));

		if (before)
			snprintf(s->name + n, sizeof(s->name) - (size_t)n, "#%u", before + 1);
	}
	for (a = __start_weave_sites; is_site(a); a++)
		for (b = __start_weave_sites; !(*a)->same; b++)
			if (!strcmp((*a)->name, (*b)->name))
				(*a)->same = *b;
}

static struct weave_site *find_site(const char *name)
{
	struct weave_site *const *a;

	for (a = __start_weave_sites; is_site(a); a++)
		if (!strcmp((*a)->name, name))
			return *a;
	FAIL("there is no site %s", name);
}

void weave_late(const char *site)
{
	find_site(site)->late = 1;
}

/* Those of "SITE+SITE" from now on, and no others; NULL none. */
static void weaken(const char *sites)
{
	struct weave_site *const *a;
	char *copy, *rest, *name;

	for (a = __start_weave_sites; is_site(a); a++)
		(*a)->weakened = 0;
	rest = copy = strdup(sites ? sites : "");
	while ((name = strsep(&rest, "+")) && *name)
		find_site(name)->weakened = 1;
	free(copy);
}

/* A site of the library that orders anything. */
static int is_edge(const struct weave_site *s)
{
	return s->order != WEAVE_RELAXED && s->same == s && !strncmp(s->file, "libshmq/", 8);
}

/* Which scenarios come by which site: a bit each. */
enum { SCENARIOS = 128 };
typedef unsigned __int128 scenario_set;

static void reach(scenario_set *reached)
{
	const struct weave_scenario *s = scenarios;
	struct weave_site *const *a;
	struct result r;
	unsigned i, n;

	for (i = 0; s; i++, s = s->next) {
		for (a = __start_weave_sites; is_site(a); a++)
			(*a)->reached = 0;
		if (i == SCENARIOS)
			stop("too many scenarios");
		r = look(s, WEAVE_WEAK, SEARCH_RANDOM, 300);
		if (r.failed)
			report(&r);
		for (a = __start_weave_sites, n = 0; is_site(a); a++, n++)
			if ((*a)->reached)
				reached[n] |= (scenario_set)1 << i;
	}
}

/* 1 if some schedule of those scenarios fails with these sites weakened; and none
 * up to there as they are. */
static int is_needed(scenario_set reached, const char *sites, uint64_t count)
{
	const struct weave_scenario *s;
	scenario_set left;
	uint64_t some;

	/* A few of each first: most fail soon in one of them. */
	for (some = (count + 999) / 1000; some <= count; some *= 10) {
		for (s = scenarios, left = reached; s; s = s->next, left >>= 1) {
			struct result r, strong;

			if (!(left & 1))
				continue;
			weaken(sites);
			r = look(s, WEAVE_WEAK, SEARCH_RANDOM, some);
			weaken(NULL);
			if (!r.failed)
				continue;
			NOTE("%s fails at %llu: %s, with %s", s->name,
			     (unsigned long long)r.executions, failure, sites);
			strong = look(s, WEAVE_WEAK, SEARCH_RANDOM, r.executions + 1);
			if (strong.failed)
				report(&strong);
			return 1;
		}
	}
	return 0;
}

static scenario_set scenario_bit(const char *name)
{
	const struct weave_scenario *s;
	scenario_set bit = 1;

	for (s = scenarios; s; s = s->next, bit <<= 1)
		if (!strcmp(s->name, name))
			return bit;
	FAIL("there is no scenario %s", name);
}

/* Where its schedule is looked for first. */
static scenario_set seen_in(const struct weave_site *site, const struct weave_seen *seen)
{
	for (; seen->site; seen++)
		if (!strcmp(seen->site, site->name))
			return scenario_bit(seen->in);
	return 0;
}

void weave_each_site(const struct weave_seen *seen, uint64_t count)
{
	size_t sites = ((uintptr_t)__stop_weave_sites - (uintptr_t)__start_weave_sites) /
		       sizeof(struct weave_site *),
	       n;
	scenario_set *reached = calloc(sites, sizeof(*reached));
	unsigned needed = 0, others = 0;
	const struct weave_seen *s;

	for (s = seen; s->site; s++)
		if (!is_edge(find_site(s->site)))
			FAIL("%s is no edge", s->site);
	reach(reached);
	for (n = 0; n < sites; n++) {
		struct weave_site *site = __start_weave_sites[n];

		if (!is_edge(site))
			continue;
		if (is_needed(seen_in(site, seen), site->name, count) ||
		    is_needed(reached[n], site->name, count)) {
			needed++;
			continue;
		}
		others++;
		NOTE("%s: %s", site->name,
		     reached[n] ? "weakened, no schedule fails" : "is reached by no scenario");
	}
	free(reached);
	NOTE("%u sites are needed", needed);
	if (others)
		FAIL("%u sites are not", others);
}

/* ---- replay --------------------------------------------------------- */

static void replay(char *what)
{
	char *name = strsep(&what, ":"), *mem = strsep(&what, ":"), *how = strsep(&what, ":"),
	     *n = strsep(&what, ":");
	const struct weave_scenario *s = scenarios;
	struct result r;

	if (!n)
		FAIL("--replay SCENARIO:MEMORY:SEARCH:NUMBER[:SITE]");
	while (s && strcmp(s->name, name))
		s = s->next;
	if (!s)
		FAIL("there is no scenario %s", name);
	weaken(what);
	r = look(s, strcmp(mem, memory_name[WEAVE_SC]) ? WEAVE_WEAK : WEAVE_SC,
		 strcmp(how, search_name[SEARCH_ALL]) ? SEARCH_RANDOM : SEARCH_ALL,
		 strtoull(n, NULL, 0));
	if (!r.failed && r.executions < strtoull(n, NULL, 0))
		FAIL("there are only %llu executions", (unsigned long long)r.executions);
	telling = 1;
	NOTE("execution %llu", (unsigned long long)number);
	execute();
	NOTE("%s", outcome == FAILED ? failure : "it passes");
	exit(EXIT_SUCCESS);
}

/* Which scenario fails, in so many schedules of each; or does that one? */
static void weaken_and_look(const char *sites, const char *count, const char *name)
{
	if (!is_needed(name ? scenario_bit(name) : ~(scenario_set)0, sites,
		       strtoull(count, NULL, 0)))
		NOTE("none fails, with %s", sites);
	exit(EXIT_SUCCESS);
}

/* Before main(), which is that of tap.c. */
int __real_main(int argc, char **argv);
int __wrap_main(int argc, char **argv);

int __wrap_main(int argc, char **argv)
{
	name_sites();
	if (argc == 3 && !strcmp(argv[1], "--replay"))
		replay(argv[2]);
	if (argc >= 4 && !strcmp(argv[1], "--weaken"))
		weaken_and_look(argv[2], argv[3], argv[4]);
	return __real_main(argc, argv);
}
