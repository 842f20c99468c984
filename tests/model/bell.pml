/* SPDX-License-Identifier: MIT
 *
 * bell: two sleepers, two wakers, and stores that stay in a processor's
 * buffer until it is drained.  The steady waker runs to its end; the other
 * may die anywhere (then recovery rings) or stop for ever (then nobody
 * does).  Code: bell.h (labels W1 to W4, S1 to S5), bell.c, V6 of recover.c.
 *
 * Shown: in the end no sleeper is asleep with a message at its cursor,
 * except for one that was committed by a stopped waker when the steady one
 * had rung for the last time; that is what the back-stop is for.
 *
 * Memory: plain stores of a waker go through a FIFO buffer (TSO) and are
 * read back by itself at once; atomic adds drain it first.  A dead
 * process's stores still arrive.  The sleeper's membarrier waits for one
 * processor after the other to drain.
 *
 *   MUTANT 1: no membarrier
 *   MUTANT 2: word is read after arming
 *   MUTANT 3: served is stored before the wake
 *   MUTANT 4: served takes armed as it is after the wake
 *   MUTANT 5: recovery does not ring
 *   MUTANT 6: sleeper does not look again after arming
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define STEADY_MESSAGES 1

#define SHAKY 0  /* commits message 0, may die or stop */
#define STEADY 1 /* commits messages 1 to STEADY_MESSAGES */
#define MESSAGES (1 + STEADY_MESSAGES)

#define SLEEPERS 2

/* struct lay_bell, and what is waited for. */
byte armed, served, word;
bool committed[MESSAGES];

/* Store buffers: {address, value}; and what a waker itself reads back. */
#define SERVED 100 /* address; others are message numbers */
chan buffer[2] = [2] of { byte, byte };
byte pending[2], own_served[2];

bool asleep[SLEEPERS]; /* in FUTEX_WAIT */
byte at[SLEEPERS];     /* the sleeper's cursor */

bool stopped;          /* the shaky waker did, for ever */
bool steady_saw_it;    /* its commit had arrived at the last steady look */

#define DRAINED(cpu) empty(buffer[cpu])

/* The processor's half: stores arrive in order, some time. */
proctype Buffer(byte cpu)
{
	byte address, value;

end:	do
	:: atomic {
		buffer[cpu]?address, value;
		if
		:: address == SERVED ->
		   served = value;
		   pending[cpu]--
		:: else -> committed[address] = true
		fi;
		address = 0;
		value = 0
	   }
	od
}

inline store_served(me, a)
{
	atomic {
		buffer[me]!SERVED, a;
		own_served[me] = a;
		pending[me]++
	}
}

#define WAKE_ALL() /* FUTEX_WAKE */ \
	atomic { \
		asleep[0] = false; \
		asleep[1] = false \
	}

/* Here the shaky waker may die or stop. */
#define MAY_END(me) \
	if \
	:: me == SHAKY -> goto gone \
	:: true \
	fi

/* bell_look() and shmq__bell_ring().  Both look, the second to decide: one
 * look that may do either is enough here. */
#define RING(me, a, s) \
	atomic { \
		a = armed; /* W3 */ \
		steady_saw_it = (me == STEADY -> committed[0] : steady_saw_it) \
	}; \
	s = (pending[me] != 0 -> own_served[me] : served); \
	if \
	:: a == s \
	:: a != s -> /* W4 */ \
	   s = 0; \
	   SERVED_FIRST(me, a) \
	   MAY_END(me); \
	   atomic { DRAINED(me) -> word++ }; /* an atomic add */ \
	   MAY_END(me); \
	   WAKE_ALL(); \
	   MAY_END(me); \
	   SERVED_AFTER(me, a) \
	fi; \
	a = 0; \
	s = 0

#if MUTANT == 3
#define SERVED_FIRST(me, a) store_served(me, a);
#define SERVED_AFTER(me, a) skip
#elif MUTANT == 4
#define SERVED_FIRST(me, a)
#define SERVED_AFTER(me, a) a = armed; store_served(me, a)
#else
#define SERVED_FIRST(me, a)
#define SERVED_AFTER(me, a) store_served(me, a)
#endif

proctype Steady()
{
	byte a, s, m;

	for (m : 1 .. STEADY_MESSAGES) {
		buffer[STEADY]!m, 1; /* W1 */
		RING(STEADY, a, s)
	}
gone:	skip
}

proctype Shaky()
{
	byte a, s;

	buffer[SHAKY]!0, 1; /* W1 */
	MAY_END(SHAKY);
	RING(SHAKY, a, s);
	goto out;
gone:
	a = 0;
	s = 0;
	if
	:: stopped = true
	:: DRAINED(SHAKY) -> /* died; recovery: shmq__topic_ring_all() */
#if MUTANT != 5
	   a = armed;
	   if
	   :: a == served
	   :: a != served ->
	      word++;
	      WAKE_ALL();
	      served = a /* recovery fences in full */
	   fi
#endif
	fi;
out:	skip
}

proctype Sleeper(byte me)
{
	byte e;

	do
	:: at[me] == MESSAGES -> break
	:: at[me] < MESSAGES && committed[at[me]] -> at[me]++
#if MUTANT == 2
	:: atomic { at[me] < MESSAGES && !committed[at[me]] -> armed++ };
	   e = word;
#else
	:: atomic { at[me] < MESSAGES && !committed[at[me]] -> e = word }; /* S1 */
	   armed++; /* S2 */
#endif
#if MUTANT != 1
	   DRAINED(SHAKY); /* S3 */
	   DRAINED(STEADY);
#endif
	   if
#if MUTANT != 6
	   :: committed[at[me]] -> e = 0 /* S4 */
#endif
	   :: else ->
	      atomic { /* S5: FUTEX_WAIT */
		asleep[me] = (word == e);
		e = 0
	      };
end_asleep:   !asleep[me]
	   fi
	od
}

#define LEFT_ASLEEP(i) (asleep[i] && committed[at[i]])
#define EXCUSED(i) (stopped && at[i] == 0 && !steady_saw_it)

init
{
	atomic {
		run Buffer(SHAKY);
		run Buffer(STEADY);
		run Sleeper(0);
		run Sleeper(1);
#ifndef LARGE
		at[1] = 1; /* it has read message 0 already */
#endif
		run Shaky();
		run Steady()
	}
	timeout; /* nobody can do any more */
	assert(!LEFT_ASLEEP(0) || EXCUSED(0));
	assert(!LEFT_ASLEEP(1) || EXCUSED(1))
}
