/* SPDX-License-Identifier: MIT
 *
 * batch: two publishers append an atomic batch each to a shared ring; one
 * of them may die anywhere.  Its claims are voided by a recoverer that may
 * die, by the supervisor, and one by one by a publisher that needs the slot.
 * Code: publish_atomic(), void_pending(), wait_for_claim() (pub.c), void_claims()
 * (recover.c), take_message(), keep_batch() (sub.c).  That claims are unique and
 * contiguous is shown in claim.pml, so here a claim is one step and the
 * ring is not reused; waiting for each other is in batch_wait.pml.
 *
 * Shown: a reader, also one that started inside a batch, is given all of a
 * batch or none; all if its publisher lived and it began after the start;
 * none if its publisher died before the last commit; and where readers may
 * be lapped, all of it can be copied when the first is there.
 *
 *   MUTANT 1: committed first to last
 *   MUTANT 2: reader remembers one batch at a time, though two may interleave
 *   MUTANT 3: reader takes every member it finds
 *   MUTANT 4: claims voided by a time-out, without proof of death
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define COUNT 2
#ifdef LARGE
#define RETRIES 1              /* the mortal may void what it has and retry */
#else
#define RETRIES 0
#endif
#define SEQS (2 * COUNT + RETRIES * (COUNT - 1))

#define MORTAL 0
#define STEADY 1

/* States of a slot. */
#define FREE 0
#define CLAIMED 1
#define COMMITTED 2
#define VOID 3

byte state[SEQS];
byte owner[SEQS];
byte tail;                     /* first seq that nobody has claimed */

/* struct lay_batch, written before the commit. */
byte first[SEQS], index[SEQS];

bool dead;                     /* the mortal is */

/* What the model knows and the code does not. */
byte batch[2] = SEQS;          /* first seq of the batch that was written */
bool completed[2];             /* its last commit was made */
byte start, at;                /* the reader's */
byte given[SEQS];              /* members the reader was given, by first seq */

proctype Publisher(byte me; byte retries)
{
	byte seq[COUNT], i;

	{
		/* claim_batch() */
		do
		:: i < COUNT ->
		   atomic { /* shmq__ring_claim() */
			seq[i] = tail;
			state[tail] = CLAIMED;
			owner[tail] = me;
			tail++;
			i++
		   }
		:: i == COUNT -> break
		:: i > 0 && i < COUNT && retries > 0 -> /* would wait: void_pending() */
		   retries--;
		   do
		   :: i == 0 -> break
		   :: else -> atomic { i--; state[seq[i]] = VOID }
		   od
		od;
		atomic { /* write_slot() */
			i = 0;
			do
			:: i == COUNT -> break
			:: else ->
			   first[seq[i]] = seq[0];
			   index[seq[i]] = i;
			   i++
			od;
			batch[me] = seq[0]
		};
		/* ring_commit() */
#if MUTANT == 1
		completed[me] = true;
		i = 0;
		do
		:: i < COUNT -> atomic { state[seq[i]] = COMMITTED; i++ }
		:: i == COUNT -> break
		od
#else
		do
		:: i > 0 ->
		   atomic {
			i--;
			state[seq[i]] = COMMITTED;
			completed[me] = (i == 0)
		   }
		:: i == 0 -> break
		od
#endif
	} unless {
		me == MORTAL && dead
	}
}

proctype Killer()
{
	if
#if MUTANT != 4
	:: dead = true
#endif
	:: true
	fi
}

#if MUTANT == 4
#define PROOF_OF_DEATH true
#else
#define PROOF_OF_DEATH dead
#endif

#define IS_LEFT(seq) (state[seq] == CLAIMED && owner[seq] == MORTAL)

/* shmq__recover_slot().  One step: a dead owner's claim changes only to
 * VOID. */
#define VOID_CLAIM(seq) \
	state[seq] = (IS_LEFT(seq) -> VOID : state[seq])

/* void_claims(): from the head, last to first. */
proctype Recoverer(bool may_die)
{
	byte n;

end:	atomic { PROOF_OF_DEATH -> n = tail };
	do
	:: n == 0 || may_die -> break
	:: n != 0 -> atomic { n--; VOID_CLAIM(n) }
	od;
	n = 0
}

/* wait_for_claim(): a publisher that needs one slot voids that one. */
proctype NeedsSlot()
{
	byte n;

end:	PROOF_OF_DEATH;
	atomic {
		select(n : 0 .. SEQS - 1);
		VOID_CLAIM(n);
		n = 0
	}
}

/* keep_batch(): members of the batch that begins at f and are there now. */
inline count_members(f)
{
	d_step {
		there = 0;
		for (n : 0 .. SEQS - 1) {
			there = there + (state[n] == COMMITTED && first[n] == f)
		};
		n = 0
	}
}

#if MUTANT == 2
#define BEGIN(f) begun = f
#define IS_BEGUN(f) (begun == f)
#elif MUTANT == 3
#define BEGIN(f) skip
#define IS_BEGUN(f) true
#else
#define BEGIN(f) begun[f] = true
#define IS_BEGUN(f) begun[f]
#endif

/* look_at() and take_message(). */
proctype Reader()
{
	byte n, there;
#if MUTANT == 2
	byte begun = SEQS;
#else
	bool begun[SEQS];
#endif

end:	do
	:: at == SEQS -> break
	:: at < SEQS && state[at] == VOID -> at++
	:: at < SEQS && state[at] == COMMITTED ->
	   atomic {
		if
		:: index[at] == 0 ->
		   BEGIN(at);
		   count_members(at);
		   assert(there == COUNT);
		   there = 0;
		   given[at]++
		:: index[at] != 0 && IS_BEGUN(first[at]) -> given[first[at]]++
		:: index[at] != 0 && !IS_BEGUN(first[at]) -> skip /* skip_member() */
		fi;
		at++
	   }
	od
}

#define ALL_OR_NONE(me) \
	(batch[me] == SEQS || \
	 given[batch[me]] == (completed[me] && batch[me] >= start -> COUNT : 0))

init
{
	atomic {
		select(start : 0 .. SEQS - 1);
		at = start;
		run Publisher(MORTAL, RETRIES);
		run Publisher(STEADY, 0);
		run Killer();
		run Recoverer(true);
		run Recoverer(false);
		run NeedsSlot();
		run Reader()
	}
	timeout; /* nobody can do any more */
	assert(completed[STEADY] && ALL_OR_NONE(STEADY));
	assert(ALL_OR_NONE(MORTAL));
	assert(start > tail || at == tail) /* nothing holds the reader up */
}
