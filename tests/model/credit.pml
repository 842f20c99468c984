/* SPDX-License-Identifier: MIT
 *
 * credit: two publishers with cached limits, a reader that gates them (or
 * none), and a subscriber that joins meanwhile.  Code: refresh, lowest and
 * update of credit.c (C1 to C3), shmq__topic_join() and start_of() of topic.c
 * (J1 to J3), publish_member() (M1).
 *
 * Shown: nobody writes over what a gating reader or the joiner, from the
 * start it was given, has not read yet.
 *
 * Memory: a publisher's stores of its limit go through a one-entry buffer;
 * C2 drains it.  The supervisor's stores are at once, as the bump of the
 * epoch is an atomic add.
 *
 *   MUTANT 1: no second scan
 *   MUTANT 2: no fence between limit and second scan
 *   MUTANT 3: joiner reads the limits before it is listed
 *   MUTANT 4: joiner reads one publisher's limit only
 *   MUTANT 5: roster not listed again for the second scan
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define DEPTH 2
#ifdef LARGE
#define MESSAGES 5
#else
#define MESSAGES 3
#endif
#define BASE 4          /* first seq ever; so that limits stay positive */
#define LAST (BASE + MESSAGES)

#define READER 0
#define JOINER 1

byte head = BASE;       /* first seq that nobody has claimed */

byte limit[2];          /* lay_entry.limit as others see it, 0: none yet */
byte buffered[2];       /* ... and on its way there, 0: nothing */

bool listed[2];         /* in the roster: M1 */
byte cursor[2];         /* lay_entry.pos */
bool started;           /* the joiner has got its start */

#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

#define DRAIN(me) \
	limit[me] = (buffered[me] != 0 -> buffered[me] : limit[me]); \
	buffered[me] = 0

proctype Buffer(byte cpu)
{
end:	do
	:: atomic { buffered[cpu] != 0 -> DRAIN(cpu) }
	od
}

#define STORE_LIMIT(me, value) \
	atomic { \
		DRAIN(me); \
		buffered[me] = value \
	}

/* update(): the roster as of now.  A walk during which it changed is
 * repeated, so it is one step. */
#define LIST_ROSTER() \
	atomic { \
		knows_reader = listed[READER]; \
		knows_joiner = listed[JOINER] \
	}

/* lowest(), plus depth.  The cursors are taken at once: they only grow, so a
 * slower scan finds less.  With nobody in the way some of the ring is given,
 * or as much as a batch wants. */
#define SCAN(next, result) \
	atomic { \
		result = next; \
		result = (knows_reader -> MIN(result, cursor[READER]) : result); \
		result = (knows_joiner -> MIN(result, cursor[JOINER]) : result); \
		result = result + DEPTH; \
		if \
		:: !knows_reader && !knows_joiner -> result = next + 1 \
		:: true \
		fi \
	}

proctype Publisher(byte me)
{
	byte next, my_limit, first, second;
	bool knows_reader, knows_joiner;

	do
	:: head == LAST -> break
	:: atomic { head != LAST -> next = head };
	   if
	   :: next < my_limit ->
	      atomic { /* shmq__ring_claim(); from here on we write there */
		if
		:: head != next
		:: else ->
		   assert(!listed[READER] || next < cursor[READER] + DEPTH);
		   assert(!started || next < cursor[JOINER] + DEPTH);
		   head++
		fi;
		next = 0
	      }
	   :: next >= my_limit -> /* shmq__credit_refresh() */
	      LIST_ROSTER();
	      SCAN(next, first);
	      if
	      :: my_limit != 0 && first <= my_limit
	      :: my_limit == 0 || first > my_limit ->
		 STORE_LIMIT(me, first); /* C1 */
#if MUTANT != 2
		 atomic { DRAIN(me) }; /* C2 */
#endif
#if MUTANT != 5
		 LIST_ROSTER(); /* C3 */
#endif
#if MUTANT == 1
		 second = first;
#else
		 SCAN(next, second);
#endif
		 atomic {
			second = MIN(first, second);
			my_limit = MAX(my_limit, second)
		 };
		 STORE_LIMIT(me, my_limit)
	      fi;
	      atomic {
		first = 0;
		second = 0;
		next = 0;
		knows_reader = false;
		knows_joiner = false
	      }
	   fi
	od
}

/* Reads in order, R3; what it has passed may be written over. */
#define READ_ON(who) \
	do \
	:: cursor[who] < head -> cursor[who]++ \
	:: cursor[who] == LAST -> break \
	od

proctype Reader()
{
	READ_ON(READER)
}

#define LIST_JOINER() \
	atomic { /* J1 */ \
		cursor[JOINER] = BASE; \
		listed[JOINER] = true \
	}

proctype Joiner()
{
	byte high, seen_head, floor;

#if MUTANT != 3
	LIST_JOINER(); /* and J2: nothing of it is buffered */
#endif
	/* start_of() */
	high = limit[0]; /* J3 */
#if MUTANT != 4
	high = MAX(high, limit[1]);
#endif
#if MUTANT == 3
	LIST_JOINER();
#endif
	floor = (high - BASE > DEPTH -> high - DEPTH : BASE);
	seen_head = head;
	floor = MIN(floor, seen_head);
	if
	:: skip /* from the latest: the head seen */
	:: seen_head = MAX(floor, head - DEPTH) /* shmq__topic_oldest() */
	fi;
	atomic {
		cursor[JOINER] = seen_head;
		started = true;
		assert(head <= cursor[JOINER] + DEPTH);
		high = 0;
		floor = 0;
		seen_head = 0
	};
	READ_ON(JOINER)
}

init
{
	atomic {
		cursor[READER] = BASE;
		if
		:: listed[READER] = true;
		   run Reader()
		:: true
		fi;
		run Buffer(0);
		run Buffer(1);
		run Publisher(0);
		run Publisher(1);
		run Joiner()
	}
}
