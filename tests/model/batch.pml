/* SPDX-License-Identifier: MIT
 *
 * batch: two publishers append an atomic batch each to a shared ring; one
 * of them may die anywhere.  What it left is voided by a recoverer that may
 * die (as a publisher that waits for one of its claims) and by the supervisor.
 * Code: publish_atomic(), void_pending() (pub_batch.c), recover_owner()
 * (pub_wait.c), void_claims(), is_unfinished() (recover.c), sub_batch.c.  That claims
 * are unique and contiguous is shown in claim.pml, so here a claim is one
 * step and the ring is not reused; waiting for each other is in
 * batch_wait.pml.
 *
 * Shown: a reader, also one that started inside a batch, is given all of a
 * batch or none; all if it was committed to the first, after the start; and
 * where readers may be lapped, all of it can be copied when the first is
 * there.
 *
 *   MUTANT 1: committed first to last
 *   MUTANT 2: reader remembers one batch at a time, though two may interleave
 *   MUTANT 3: reader takes members of a batch that began before its start
 *   MUTANT 4: voided by a time-out, without proof of death
 *   MUTANT 5: recovery leaves what was committed of an unfinished batch
 *   MUTANT 6: recovery voids first to last
 *   MUTANT 7: who waits for a claim voids that alone
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

/* A claim; or, as long as the first of the batch stands CLAIMED, what was
 * committed of it: is_unfinished(). */
#define IS_CLAIM(seq) (state[seq] == CLAIMED && owner[seq] == MORTAL)
#if MUTANT == 5
#define IS_LEFT(seq) IS_CLAIM(seq)
#else
#define IS_LEFT(seq) (IS_CLAIM(seq) || \
	(state[seq] == COMMITTED && owner[seq] == MORTAL && IS_CLAIM(first[seq])))
#endif

/* Look and compare-and-swap in one step: what a dead owner left changes only
 * to VOID. */
#define VOID_IF(is_left, seq) \
	state[seq] = (is_left(seq) -> VOID : state[seq])

/* void_claims(): from the head, last to first. */
proctype Recoverer(bool may_die)
{
	byte n;

end:	atomic { PROOF_OF_DEATH -> n = tail };
#if MUTANT == 6
	n = 0;
	do
	:: n == tail || may_die -> break
	:: n != tail -> atomic { VOID_IF(IS_LEFT, n); n++ }
	od;
#else
	do
	:: n == 0 || may_die -> break
	:: n != 0 -> atomic { n--; VOID_IF(IS_LEFT, n) }
	od;
#endif
	n = 0
}

#if MUTANT == 7
proctype NeedsSlot()
{
	byte n;

end:	PROOF_OF_DEATH;
	atomic {
		select(n : 0 .. SEQS - 1);
		VOID_IF(IS_CLAIM, n)
	}
}
#endif

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

/* take_member() where readers gate. */
#if MUTANT == 2
#define IS_OURS(f) (begun == f)
#elif MUTANT == 3
#define IS_OURS(f) true
#else
#define IS_OURS(f) (f >= start)
#endif

/* look_at(); `copies`: it may be lapped. */
proctype Reader(bool copies)
{
	byte n, there, begun = SEQS;

end:	do
	:: at == SEQS -> break
	:: at < SEQS && state[at] == VOID -> at++
	:: at < SEQS && state[at] == COMMITTED ->
	   atomic {
		begun = (index[at] == 0 -> at : begun);
		if
		:: !copies && IS_OURS(first[at]) -> given[first[at]]++
		:: !copies && !IS_OURS(first[at]) -> skip /* skip_member() */
		:: copies && index[at] == 0 ->
		   count_members(at);
		   assert(there == COUNT);
		   given[at] = there;
		   there = 0
		:: copies && index[at] != 0 -> skip /* copied already, or not ours */
		fi;
		begun = (MUTANT == 2 -> begun : SEQS);
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
#if MUTANT == 7
		run NeedsSlot();
#endif
		if
		:: run Reader(false)
		:: run Reader(true)
		fi
	}
	timeout; /* nobody can do any more */
	assert(completed[STEADY] && ALL_OR_NONE(STEADY));
	assert(ALL_OR_NONE(MORTAL));
	assert(start > tail || at == tail) /* nothing holds the reader up */
}
