/* SPDX-License-Identifier: MIT
 *
 * adopt: the control worker opens and closes a subscriber that gates, and is
 * killed between any two of its stores; its successor goes on from what the
 * registry says, and the client, which has no answer, asks again.  The client
 * may die anywhere, too.  A publisher lists the roster only when its epoch has
 * moved.  Code: registry_add_handle() (handles.c), publish(), join(),
 * answer_again(), open_detach() (open.c), registry_adopt() (adopt.c),
 * shmq__topic_publish_member(), shmq__topic_remove_member() (topic.c),
 * update() and lowest() of credit.c.
 *
 * Shown: nobody writes over what a subscriber, from the start it was told, has
 * not read yet; in the end all requests are answered, no member is left, and
 * nothing of the dead or of those who left holds the publisher back.
 *
 * Left out: refreshing a limit and joining are one step each (credit.pml).
 *
 *   MUTANT 1: adoption does not announce the roster
 *   MUTANT 2: a request that is asked again opens another handle
 *   MUTANT 3: a request that is asked again is answered without joining
 *   MUTANT 4: the member is listed before its entry is filled
 *   MUTANT 5: adoption forgets members whose client is dead
 *   MUTANT 6: a member that goes is not announced
 *   MUTANT 7: that joining is done is noted before it is
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifdef LARGE
#define KILLS 3
#define ROUNDS 3
#define MESSAGES 7
#else
#define KILLS 2
#define ROUNDS 2
#define MESSAGES 5
#endif
#define DEPTH 2
#define BASE 1
#define LAST (BASE + MESSAGES)
#define MEMBERS 2

#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

byte head = BASE;        /* first seq that is not published */
byte limit;              /* lay_entry.limit of the publisher */
byte epoch;              /* of the roster */

/* A member and its entry; entries are reused with their member here. */
bool listed[MEMBERS];    /* lay_member.state */
byte token[MEMBERS];
bool opened[MEMBERS];    /* lay_member.opened_ns */
byte entry_gen[MEMBERS]; /* lay_entry.gen */
byte pos[MEMBERS];
byte next_gen = 1;

/* The client's socket: what it asks until it is answered. */
#define NOTHING 0
#define OPEN 1
#define CLOSE 2
byte asked, asked_token;
bool dead;

/* The client's own: what it was told. */
bool reads;
byte handle;

byte kills;
bool over;               /* no request will come any more */

/* ---- the publisher ---------------------------------------------------- */

#define LIST(i) known[i] = (listed[i] -> entry_gen[i] : 0)
#define GATES(i) (known[i] != 0 && entry_gen[i] == known[i])
#define LOWEST(i) low = (GATES(i) -> MIN(low, pos[i]) : low)

proctype Publisher()
{
	byte known[MEMBERS], low, seen = 255;

	do
	:: head == LAST -> break
	:: atomic { head < limit && head < LAST;
		assert(!reads || head < pos[handle] + DEPTH);
		head++
	   }
	:: atomic { head >= limit && head < LAST && /* shmq__credit_refresh() */
		(epoch != seen || !(GATES(0) && pos[0] + DEPTH <= head) &&
				  !(GATES(1) && pos[1] + DEPTH <= head));
		if
		:: epoch != seen -> LIST(0); LIST(1); seen = epoch
		:: else
		fi;
		low = head;
		LOWEST(0);
		LOWEST(1);
		if
		:: !GATES(0) && !GATES(1) -> limit = MAX(limit, head + 1)
		:: else -> limit = MAX(limit, low + DEPTH)
		fi;
		low = 0
	   }
	od
}

/* ---- the client --------------------------------------------------------- */

#define DIE atomic { dead = true; reads = false; asked = NOTHING; goto gone }

proctype Client()
{
	byte round = 1;

	do
	:: round > ROUNDS -> break
	:: round <= ROUNDS ->
	   atomic { asked_token = round; asked = OPEN };
	   if
	   :: asked == NOTHING
	   :: DIE
	   fi;
	   do /* read on, R3 */
	   :: atomic { pos[handle] < head -> pos[handle]++ }
	   :: break
	   :: DIE
	   od;
	   atomic { reads = false; asked = CLOSE };
	   if
	   :: asked == NOTHING
	   :: DIE
	   fi;
	   round++
	od;
gone:
	over = true
}

/* ---- the worker ----------------------------------------------------------- */

/* One store, and maybe the last. */
#define STEP(store) \
	atomic { \
		store; \
		if \
		:: kills < KILLS -> kills++; goto killed \
		:: true \
		fi \
	}

#define FIND \
	h = (listed[0] && token[0] == asked_token -> 0 : \
	     (listed[1] && token[1] == asked_token -> 1 : MEMBERS))
#define FIND_FREE h = (!listed[0] -> 0 : (!listed[1] -> 1 : MEMBERS))

/* shmq__topic_join(): the start that the limit seen allows. */
#define START pos[h] = MAX(MIN(head, (limit > DEPTH -> limit - DEPTH : 0)), BASE)

#define ANSWER_OPEN \
	atomic { \
		if \
		:: dead \
		:: else -> \
		   assert(head <= pos[h] + DEPTH); \
		   handle = h; \
		   reads = true; \
		   asked = NOTHING \
		fi \
	}

proctype Worker()
{
	byte h = MEMBERS;

serve:
	do
	:: atomic { asked == OPEN && !dead ->
		FIND;
#if MUTANT == 2
		h = MEMBERS;
#endif
	   };
	   if
	   :: h < MEMBERS -> /* answer_again() */
#if MUTANT != 3
	      if
	      :: !opened[h] -> STEP(START); STEP(opened[h] = true)
	      :: else
	      fi;
#endif
	      ANSWER_OPEN
	   :: else ->
	      FIND_FREE;
	      assert(h < MEMBERS);
#if MUTANT == 4
	      STEP(listed[h] = true);
#endif
	      STEP(token[h] = asked_token; opened[h] = false);
	      STEP(pos[h] = BASE);
	      STEP(entry_gen[h] = next_gen; next_gen++);
#if MUTANT != 4
	      STEP(listed[h] = true); /* M1 */
#endif
	      STEP(epoch++);
#if MUTANT == 7
	      STEP(opened[h] = true);
	      STEP(START);
#else
	      STEP(START);
	      STEP(opened[h] = true);
#endif
	      ANSWER_OPEN
	   fi;
	   h = MEMBERS
	:: atomic { asked == CLOSE && !dead -> FIND };
	   if
	   :: h < MEMBERS -> /* open_detach() */
	      STEP(listed[h] = false);
#if MUTANT != 6
	      STEP(epoch++)
#endif
	   :: else /* closed already, and asked again */
	   fi;
	   atomic {
		if
		:: dead
		:: else -> asked = NOTHING
		fi
	   };
	   h = MEMBERS
	:: dead && (listed[0] || listed[1]) -> /* its pidfd says so */
	   h = (listed[0] -> 0 : 1);
	   STEP(listed[h] = false);
#if MUTANT != 6
	   STEP(epoch++);
#endif
	   h = MEMBERS
	:: over && asked == NOTHING && !listed[0] && !listed[1] -> goto done
	od;

	/* The next one: what it has is what the registry says. */
killed:
	h = MEMBERS;
#if MUTANT == 5
	if
	:: dead -> goto done
	:: else
	fi;
#endif
#if MUTANT != 1
	epoch++; /* tell(): killed here, the next one does it again */
#endif
	goto serve;
done:
	skip
}

init
{
	atomic {
		run Publisher();
		run Client();
		run Worker()
	}
}
