/* SPDX-License-Identifier: MIT
 *
 * bell: two sleepers, two wakers, and stores that stay in a processor's
 * buffer until it is drained.  The steady waker runs to its end; the other
 * may die anywhere (then recovery rings) or stop for ever (then nobody
 * does).  Code: bell.h (labels W1 to W4, S1 to S5), bell.c, V6 of recover.c.
 *
 * It is either bell of a ring.  Data: publishers commit a message each, and
 * subscribers wait for the one at their cursor.  Credit: subscribers move
 * their cursors, and each publisher waits until both have passed, or one is in
 * the roster no more: go_to_sleep() (pub_wait.c), shmq__topic_remove_member().
 *
 * Shown: in the end no sleeper is asleep with what it waits for there, except
 * where a stopped waker had stored it when the steady one had looked for the
 * last time; that is what the back-stop is for.
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
 *   MUTANT 7: recovery rings before the dead is out of the roster
 *   MUTANT 8: one sleeper is woken and not all
 *   MUTANT 9: waker looks at the bell before it stores
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define STEADY_MESSAGES 1

#define SHAKY 0  /* commits message 0, may die or stop */
#define STEADY 1 /* commits messages 1 to STEADY_MESSAGES */
#define MESSAGES (1 + STEADY_MESSAGES)

#define SLEEPERS 2

bool credit;           /* which bell it is */

/* struct lay_bell, and what is waited for.  As credit a message is the step
 * of its waker's cursor that gives it. */
byte armed, served, word;
bool committed[MESSAGES];
bool is_out;           /* the shaky one is, of the roster */

/* Store buffers: {address, value}; and what a waker itself reads back. */
#define SERVED 100 /* address; others are message numbers */
chan buffer[2] = [2] of { byte, byte };
byte pending[2], own_served[2];

bool asleep[SLEEPERS]; /* in FUTEX_WAIT */
byte at[SLEEPERS];     /* the sleeper's cursor; credit: MESSAGES once it has all */

#define IS_THERE(i) \
	(credit -> (committed[SHAKY] || is_out) && committed[MESSAGES - 1] : committed[at[i]])

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

#if MUTANT == 8
#define WAKE_ALL() \
	if \
	:: atomic { asleep[0] -> asleep[0] = false } \
	:: atomic { asleep[1] -> asleep[1] = false } \
	:: atomic { !asleep[0] && !asleep[1] -> skip } \
	fi
#else
#define WAKE_ALL() /* FUTEX_WAKE */ \
	atomic { \
		asleep[0] = false; \
		asleep[1] = false \
	}
#endif

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
#if MUTANT == 9
		RING(STEADY, a, s);
		buffer[STEADY]!m, 1
#else
		buffer[STEADY]!m, 1; /* W1 */
		RING(STEADY, a, s)
#endif
	}
gone:	skip
}

proctype Shaky()
{
	byte a, s;

	if
	:: credit -> MAY_END(SHAKY)
	:: else
	fi;
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
#if MUTANT != 7
	   is_out = true;
#endif
#if MUTANT != 5
	   a = armed;
	   if
	   :: a == served
	   :: a != served ->
	      word++;
	      WAKE_ALL();
	      served = a /* recovery fences in full */
	   fi;
#endif
	   is_out = true
	fi;
out:	skip
}

proctype Sleeper(byte me)
{
	byte e;

	do
	:: at[me] == MESSAGES -> break
	:: at[me] < MESSAGES && IS_THERE(me) -> at[me] = (credit -> MESSAGES : at[me] + 1)
#if MUTANT == 2
	:: atomic { at[me] < MESSAGES && !IS_THERE(me) -> armed++ };
	   e = word;
#else
	:: atomic { at[me] < MESSAGES && !IS_THERE(me) -> e = word }; /* S1 */
	   armed++; /* S2 */
#endif
#if MUTANT != 1
	   DRAINED(SHAKY); /* S3 */
	   DRAINED(STEADY);
#endif
	   if
#if MUTANT != 6
	   :: IS_THERE(me) -> e = 0 /* S4 */
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

#define LEFT_ASLEEP(i) (asleep[i] && IS_THERE(i))
#define EXCUSED(i) (stopped && at[i] == 0 && !steady_saw_it)

init
{
	atomic {
		if
		:: credit = true
		:: credit = false
		fi;
		run Buffer(SHAKY);
		run Buffer(STEADY);
		run Sleeper(0);
		run Sleeper(1);
#ifndef LARGE
		at[1] = (credit -> 0 : 1); /* it has read message 0 already */
#endif
		run Shaky();
		run Steady()
	}
	timeout; /* nobody can do any more */
	assert(!LEFT_ASLEEP(0) || EXCUSED(0));
	assert(!LEFT_ASLEEP(1) || EXCUSED(1))
}
