/* SPDX-License-Identifier: MIT
 *
 * batch_wait: atomic batches that are claimed at the same time never wait
 * for each other.  Code: claim_batch() and void_pending() (pub_batch.c), the answers
 * NO_CREDIT and HELD of shmq__ring_claim() (ring.c).
 *
 * Two publishers, one ring; on a topic that gates a reader follows, which a
 * claim stops and which credit is given by; on a lossy one a slot that still
 * stands CLAIMED from a lap ago is waited for.
 *
 * Shown: no deadlock, all batches are published.  (Not that nobody starves:
 * voiding and retrying is free of locks, not of waiting.)
 *
 *   MUTANT 1: waits for credit while it holds claims
 *   MUTANT 2: waits for a slot while it holds claims
 *   MUTANT 3: voids only its last claim before it waits
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#ifdef LARGE
#define BATCHES 4
#else
#define BATCHES 2
#endif
#define PUBLISHERS 2
#define DEPTH 4
#define COUNT 3
#define WRAP (2 * DEPTH)                 /* seqs are counted modulo two laps */
#define AHEAD_OF(a, b) (((a) + WRAP - (b)) % WRAP)

bool is_claimed[DEPTH];                  /* CLAIMED, else COMMITTED or VOID */
byte owner[DEPTH];
byte tail;                               /* next seq to claim */
byte cursor;                             /* of the reader */
bool gates;

#define HAS_CREDIT(n) (!gates || AHEAD_OF(tail, cursor) + (n) <= DEPTH)
#define IS_HELD (is_claimed[tail % DEPTH])

/* void_pending(), last to first. */
inline void_pending()
{
	do
	:: i == 0 -> break
	:: i > 0 ->
	   atomic { i--; is_claimed[seq[i]] = false; seq[i] = 0 };
#if MUTANT == 3
	   break
#endif
	od
}

proctype Publisher()
{
	byte seq[COUNT], i, batches = BATCHES, held;

	do
	:: batches == 0 -> break
	:: batches != 0 && i == 0 && !HAS_CREDIT(COUNT) -> HAS_CREDIT(COUNT) /* credit for all first */
	:: batches != 0 && i == COUNT -> /* commit, last to first */
	   do
	   :: i == 0 -> break
	   :: i != 0 -> atomic { i--; is_claimed[seq[i]] = false; seq[i] = 0 }
	   od;
	   batches--
	:: atomic { /* shmq__ring_claim() */
		batches != 0 && i < COUNT && (i > 0 || HAS_CREDIT(COUNT)) ->
		if
		:: !HAS_CREDIT(1) -> goto no_credit
		:: HAS_CREDIT(1) && IS_HELD -> goto is_held
		:: HAS_CREDIT(1) && !IS_HELD
		fi;
		seq[i] = tail % DEPTH;
		is_claimed[seq[i]] = true;
		tail = (tail + 1) % WRAP;
		i++
	   };
	   goto next;
no_credit:
#if MUTANT != 1
	   void_pending();
#endif
	   HAS_CREDIT(COUNT - i); /* wait_for_credit() */
	   goto next;
is_held:
	   held = tail % DEPTH;
#if MUTANT != 2
	   void_pending();
#endif
	   !is_claimed[held]; /* shmq__pub_wait_for_claim() */
	   held = 0;
next:	   skip
	od
}

/* Stops at a claim; where it does not gate, it is not waited for. */
proctype Reader()
{
end:	do
	:: gates && cursor != tail && !is_claimed[cursor % DEPTH] ->
	   cursor = (cursor + 1) % WRAP
	od
}

init
{
	atomic {
		if
		:: gates = true
		:: gates = false
		fi;
		run Reader();
		run Publisher();
		run Publisher()
	}
}
