/* SPDX-License-Identifier: MIT
 *
 * fenced: a sleeper that leaves its membarrier out where the bell says that all who
 * ring it fence, and either one who does (a publisher that defers its wakes), or two
 * who do not, come by the supervisor and go again, of whom one has a message.  The
 * supervisor may die anywhere, and the next one goes on with the members it finds.
 * Code: bell.h (labels F1 to F5), park.c, open.c (count_unfenced), adopt.c; the bell
 * itself, here without the buffer and the deaths of its wakers, is that of bell.pml.
 *
 * Shown: in the end no sleeper is asleep with a message that it has not read.
 *
 * Memory: plain stores go through a FIFO buffer (TSO), and so does the sleeper's
 * add, as one that is no fence; requests and answers, the waker's add and a
 * membarrier drain it.  F2 does nothing here: that loads are in order is TSO.
 * Weaving has weaker ones.
 *
 *   MUTANT 1: no fence after arming
 *   MUTANT 2: the bell is asked before it is armed
 *   MUTANT 3: who defers does not fence
 *   MUTANT 4: the answer comes before the bell says so
 *   MUTANT 5: the bell says that all fence when the first goes of two who do not
 *   MUTANT 6: a new supervisor does not count those who are there
 *   MUTANT 7: a member is there before the bell says so
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define COMER 0 /* comes, commits, goes */
#define OTHER 1 /* comes and goes */
#define DEFERS 2
#define SLEEPER 3

/* struct lay_bell, and what is waited for. */
byte armed, served, word;
bool fenced = true;
bool sent, asleep;

/* The supervisor's: its roster outlives it, its count does not. */
bool member[2];
byte unfenced;
bool has_died;

/* What is asked for, until it is answered; of a supervisor that died its successor. */
#define OPEN 1
#define CLOSE 2
byte asked[2];

/* Store buffers, of one store each: the message of a waker, or the sleeper's arms. */
byte buffer[4];

#define DRAINED(cpu) (buffer[cpu] == 0)

active proctype Buffers()
{
end:	do
	:: atomic { buffer[COMER] -> sent = true; buffer[COMER] = 0 }
	:: atomic { buffer[DEFERS] -> sent = true; buffer[DEFERS] = 0 }
	:: atomic { buffer[SLEEPER] -> armed = buffer[SLEEPER]; buffer[SLEEPER] = 0 }
	od
}

/* bell_look() */
inline look(me, a)
{
	a = armed; /* W3 */
	if
	:: a == served
	:: a != served ->
	   atomic { /* W4 */
		DRAINED(me) -> word++;
		asleep = false;
		served = a
	   }
	fi;
	a = 0
}

proctype Defers()
{
	byte a;

	buffer[DEFERS] = 1; /* W1 */
#if MUTANT != 3
	DRAINED(DEFERS); /* W2 */
#endif
	look(DEFERS, a)
}

inline request(kind, me)
{
	DRAINED(me);
	asked[me] = kind;
	asked[me] == 0
}

proctype Comer()
{
	byte a;

	request(OPEN, COMER); /* F2 */
	buffer[COMER] = 1; /* W1 */
	look(COMER, a);
	request(CLOSE, COMER)
}

proctype Other()
{
	request(OPEN, OTHER);
	request(CLOSE, OTHER)
}

/* Here it may die, once. */
#define MAY_DIE() \
	if \
	:: !has_died -> goto died \
	:: true \
	fi

proctype Supervisor()
{
	byte who;

end:	do
	:: atomic { asked[COMER] -> who = COMER };
	   goto take
	:: atomic { asked[OTHER] -> who = OTHER };
take:	   if
	   :: asked[who] == OPEN && !member[who] ->
	      unfenced++;
#if MUTANT == 7
	      member[who] = true;
	      MAY_DIE();
#endif
#if MUTANT == 4
	      asked[who] = 0;
	      fenced = false;
	      member[who] = true;
	      goto done;
#endif
	      fenced = false; /* F1 */
	      MAY_DIE();
	      member[who] = true
	   :: asked[who] == CLOSE && member[who] ->
	      unfenced--;
#if MUTANT == 5
	      fenced = true;
#else
	      fenced = (unfenced == 0); /* F4 */
#endif
	      MAY_DIE();
	      member[who] = false
	   :: else /* done by the one before */
	   fi;
	   MAY_DIE();
	   asked[who] = 0;
done:	   who = 0
	od;
died:	atomic {
		has_died = true;
		who = 0;
#if MUTANT == 6
		unfenced = 0;
#else
		unfenced = member[0] + member[1];
#endif
		goto end
	}
}

proctype Sleeper()
{
	byte e, arms;
	bool all_fence;

end:	do
	:: sent -> break
	:: atomic { !sent -> e = word }; /* S1 */
#if MUTANT == 2
	   all_fence = fenced;
#endif
	   arms++;
	   buffer[SLEEPER] = arms; /* S2 */
#if MUTANT != 1
	   DRAINED(SLEEPER); /* F3 */
#endif
#if MUTANT != 2
	   all_fence = fenced; /* F5 */
#endif
	   if
	   :: all_fence
	   :: else -> /* S3 */
	      DRAINED(SLEEPER);
	      DRAINED(COMER);
	      DRAINED(DEFERS)
	   fi;
	   all_fence = false;
	   if
	   :: sent -> e = 0 /* S4 */
	   :: else ->
	      atomic { /* S5: FUTEX_WAIT */
		asleep = (word == e);
		e = 0
	      };
end_asleep:   !asleep
	   fi
	od
}

init
{
	atomic {
		run Sleeper();
		if
		:: run Defers()
		:: run Supervisor();
		   run Comer();
		   run Other()
		fi
	}
	timeout; /* nobody can do any more */
	assert(!asleep || !sent)
}
