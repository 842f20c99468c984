/* SPDX-License-Identifier: MIT
 *
 * arena: payloads lie in the publisher's arena, which is smaller than the
 * ring, so that bytes are reused while the slots that speak of them still
 * stand.  A reader, and one that joins, read it on a topic that gates, that
 * is lossy or that evicts.  Code: pub_arena.c; shmq__ring_gone() and
 * ring_look(), ring_still() of ring.h; take_message() (sub_look.c), copy_view()
 * (receive.c).
 * Refreshing a limit and joining are one step each here: credit.pml shows
 * why they may be.
 *
 * Shown: no message is delivered that is torn or another's; and readers
 * that gate never find a message gone or lapped.
 *
 *   MUTANT 1: arena bytes reused without marking GONE
 *   MUTANT 2: arena bytes written before GONE is marked (no fence R2)
 *   MUTANT 3: reader does not look at the word again (A2)
 *   MUTANT 4: arena bytes reused without regard to the limit
 *   MUTANT 5: arena bytes reused one message too early
 *   MUTANT 6: joiner starts at the oldest slot without regard to limits
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define DEPTH 3
#define CELLS 2          /* messages the arena holds */
#ifdef LARGE
#define MESSAGES 7
#else
#define MESSAGES 5
#endif
#define BASE DEPTH       /* first seq: lap 1 */
#define LAST (BASE + MESSAGES)
#define NOBODY 255

/* Control word; owner and generations play no part. */
#define CLAIMED 0
#define COMMITTED 1
#define VOID 2
#define GONE 3
#define WORD(lap, state) (((lap) << 2) | (state))
#define LAP(word) ((word) >> 2)
#define STATE(word) ((word) & 3)
#define SLOT(seq) ctrl[(seq) % DEPTH]
#define LAP_OF(seq) ((seq) / DEPTH)

mtype = { BLOCK, LOSSY, EVICT };
mtype policy;
#define GATES (policy != LOSSY)          /* shmq__topic_gates() */
#define TRUSTS (policy == BLOCK)         /* sub->gates: reads in place */

byte ctrl[DEPTH];
byte where[DEPTH];                       /* struct lay_arena_ref in the slot */
byte half0[CELLS], half1[CELLS];         /* payload: its seq, in two stores */

byte head = BASE;
byte limit = BASE;
byte cursor[2] = NOBODY;                 /* who is in the roster and gates */

#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

/* wait_for_credit(): until seqs below `need` may be written; where readers
 * may be evicted, the patience ends some time. */
inline wait_for_credit(need)
{
	do
	:: atomic {
		limit < need && MIN(cursor[0], cursor[1]) + DEPTH > limit ->
		limit = MIN(head, MIN(cursor[0], cursor[1])) + DEPTH
	   }
	:: policy == EVICT && limit < need ->
	   atomic {
		if
		:: cursor[0] <= cursor[1] -> cursor[0] = NOBODY
		:: cursor[1] <= cursor[0] -> cursor[1] = NOBODY
		fi
	   }
	:: limit >= need -> break
	od
}

#define MARK_GONE(seq) \
	atomic { /* shmq__ring_gone() */ \
		if \
		:: SLOT(seq) == WORD(LAP_OF(seq), COMMITTED) -> \
		   SLOT(seq) = WORD(LAP_OF(seq), GONE) \
		:: else \
		fi \
	}

proctype Publisher()
{
	byte cell;

	do
	:: head == LAST -> break
	:: head != LAST ->
	   /* shmq__pub_take_arena(): what is in the way was message head - CELLS */
	   cell = head % CELLS;
	   if
	   :: head < BASE + CELLS
	   :: head >= BASE + CELLS ->
#if MUTANT == 5
	      if
	      :: GATES -> wait_for_credit(head - CELLS + DEPTH)
	      :: !GATES
	      fi;
#elif MUTANT != 4
	      if
	      :: GATES -> wait_for_credit(head - CELLS + DEPTH + 1)
	      :: !GATES
	      fi;
#endif
#if MUTANT == 2
	      half0[cell] = head;
#endif
#if MUTANT != 1
	      MARK_GONE(head - CELLS)
#endif
	   fi;
	   half0[cell] = head;
	   half1[cell] = head;
	   if
	   :: GATES -> wait_for_credit(head + 1)
	   :: !GATES
	   fi;
	   SLOT(head) = WORD(LAP_OF(head), CLAIMED);
	   where[head % DEPTH] = cell;
	   atomic {
		SLOT(head) = WORD(LAP_OF(head), COMMITTED);
		head++;
		cell = 0
	   }
	od
}

proctype Reader(byte me)
{
	byte at, word, cell, got0, got1;

	/* The first is there from the beginning; the other joins some time,
	 * from the latest or the oldest: start_of(). */
	at = BASE;
	if
	:: me == 0
	:: me == 1 ->
	   atomic {
		if
		:: at = head
		:: at = MAX(BASE, head - DEPTH);
#if MUTANT != 6
		   at = MAX(at, (GATES -> limit - DEPTH : BASE))
#endif
		fi;
		cursor[me] = (GATES -> at : NOBODY)
	   }
	fi;
	do
	:: at == LAST -> break
	:: at != LAST ->
	   atomic { /* A1 */
		LAP(SLOT(at)) > LAP_OF(at) ||
		(LAP(SLOT(at)) == LAP_OF(at) && STATE(SLOT(at)) != CLAIMED) -> word = SLOT(at)
	   };
	   if
	   :: LAP(word) == LAP_OF(at) && STATE(word) == COMMITTED ->
	      cell = where[at % DEPTH];
	      got0 = half0[cell];
	      got1 = half1[cell];
	      if
#if MUTANT != 3
	      :: !TRUSTS && SLOT(at) != word /* A2: look again */
#endif
	      :: else ->
		 assert(got0 == at && got1 == at);
		 at++
	      fi
	   :: else -> /* lost: GONE or LAPPED */
	      assert(!TRUSTS);
	      at++
	   fi;
	   atomic { /* R3; evicted readers are waited for no more */
		cursor[me] = (cursor[me] == NOBODY -> NOBODY : at);
		word = 0;
		cell = 0;
		got0 = 0;
		got1 = 0
	   }
	od
}

init
{
	atomic {
		if
		:: policy = BLOCK
		:: policy = LOSSY
		:: policy = EVICT
		fi;
		ctrl[0] = WORD(0, VOID);
		ctrl[1] = WORD(0, VOID);
		ctrl[2] = WORD(0, VOID);
		cursor[0] = (GATES -> BASE : NOBODY);
		run Reader(0);
		run Reader(1);
		run Publisher()
	}
}
