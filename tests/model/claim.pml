/* SPDX-License-Identifier: MIT
 *
 * claim: publishers share one ring; one of them dies inside a claim, its
 * claims are voided by several recoverers and its client id is given out
 * again.  Code: shmq__ring_claim(), ring_commit(), shmq__ring_void() (ring.c),
 * attend(), recover_owner() (pub_wait.c), shmq__recover_publisher() (recover.c),
 * registry_drop_peer(), registry_add_peer() (ids.c).
 *
 * Shown: claims are unique and contiguous; only a dead owner's claim is
 * ever voided, so never that of the next owner of the id; in the end no
 * claim of the dead is left.
 *
 * Left out: payload, credit, the void list, bells.
 *
 *   MUTANT 1: claim by load and store instead of compare-and-swap
 *   MUTANT 2: no generation check
 *   MUTANT 3: generation checked once, before the words are loaded
 *   MUTANT 4: void by a plain store
 *   MUTANT 5: id given out again before its claims are voided
 *   MUTANT 6: who waits for a claim does not look at it again after the proof
 *   MUTANT 7: ... and asks for the generation after that look
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#ifdef LARGE
#define DEPTH 3
#define VICTIM_MESSAGES 2
#define HEIR_MESSAGES 2
#define OTHER_MESSAGES 3
#else
#define DEPTH 2
#define VICTIM_MESSAGES 2
#define HEIR_MESSAGES 2
#define OTHER_MESSAGES 2
#endif

/* Control word: lap, owner's client id, state. */
#define CLAIMED 1
#define COMMITTED 2
#define VOID 3
#define WORD(lap, owner, state) (((lap) << 4) | ((owner) << 2) | (state))
#define LAP(word) ((word) >> 4)
#define OWNER(word) (((word) >> 2) & 3)
#define STATE(word) ((word) & 3)
#define SLOT(seq) ctrl[(seq) % DEPTH]
#define LAP_OF(seq) ((seq) / DEPTH)

/* Processes, and the two client ids they have. */
#define NOBODY 0
#define VICTIM 1 /* dies; its id goes to ... */
#define HEIR 2   /* ... this one */
#define OTHER 3
#define SHARED_ID 1
#define OTHER_ID 2
#define VICTIM_GEN 1

#define FIRST_SEQ DEPTH

byte ctrl[DEPTH];
byte hint = FIRST_SEQ;                   /* tail_hint */
byte gen[3];                             /* registry: lay_client.gen by id */
byte process[3];                         /* registry: lay_client.pid by id */

/* What the model knows and the code does not. */
bool dead[4];
byte holder[DEPTH];                      /* who is inside a claim here */
byte claimed = FIRST_SEQ;                /* seqs below are claimed */

/* shmq__topic_head(): from the hint to the first unclaimed seq. */
inline walk_to_head(n, word)
{
	n = hint;
	do
	:: atomic {
		word = SLOT(n);
		if
		:: LAP(word) < LAP_OF(n) -> break
		:: else -> n = n + (LAP(word) - LAP_OF(n)) * DEPTH + 1
		fi
	   }
	od
}

/* shmq__recover_slot(), from V3 on: `word` was seen at seq; its owner is
 * known dead in generation `of_gen`. */
inline recover_slot(seq, word, of_gen)
{
	if
#if MUTANT == 2 || MUTANT == 3
	:: true ->
#else
	:: gen[OWNER(word)] != of_gen /* V3 */
	:: else ->
#endif
	   atomic { /* V4: shmq__ring_void() */
		if
#if MUTANT != 4
		:: SLOT(seq) != word
#endif
		:: else ->
		   assert(LAP(SLOT(seq)) == LAP(word));
		   assert(holder[(seq) % DEPTH] == NOBODY || dead[holder[(seq) % DEPTH]]);
		   SLOT(seq) = WORD(LAP(word), OWNER(word), VOID);
		   holder[(seq) % DEPTH] = NOBODY
		fi
	   }
	fi
}

/* void_claims(): from the head to the lower bound, last to first. */
inline recover_publisher(of_gen, may_die, n, word, from)
{
#if MUTANT == 3
	from = (gen[SHARED_ID] != of_gen);
#endif
	walk_to_head(n, word);
	from = (from != 0 -> n : (n - FIRST_SEQ > DEPTH -> n - DEPTH : FIRST_SEQ));
	do
	:: n == from || may_die -> break
	:: n != from ->
	   atomic {
		n--;
		word = SLOT(n); /* V2 */
		if
		:: STATE(word) == CLAIMED && OWNER(word) == SHARED_ID && LAP(word) == LAP_OF(n)
		:: else -> word = 0
		fi
	   }
	   if
	   :: word != 0 -> recover_slot(n, word, of_gen)
	   :: else
	   fi
	od
}

/* attend(): the slot we need stands CLAIMED from a lap ago.  Whoever its owner was is
 * repaired with all it left, so it has to be known who that was. */
inline wait_for_claim(seq, word)
{
	do
	:: SLOT(seq) != word -> break
	:: SLOT(seq) == word && dead[VICTIM] -> /* till then there is nothing to find */
#if MUTANT != 7
	   its_gen = gen[OWNER(word)];
#endif
	   if
	   :: dead[process[OWNER(word)]] ->
	      if
#if MUTANT != 6
	      :: SLOT(seq) != word
#endif
	      :: else ->
#if MUTANT == 7
		 its_gen = gen[OWNER(word)];
#endif
		 recover_publisher(its_gen, false, its_n, its_word, its_from);
		 recover_slot(seq, word, its_gen)
	      fi
	   :: else
	   fi;
	   its_gen = 0;
	   its_n = 0;
	   its_word = 0;
	   its_from = 0
	od
}

proctype Publisher(byte me; byte id; byte messages)
{
	byte n = hint, word, its_gen, its_n, its_word, its_from;

	do
	:: messages == 0 -> break
	:: messages != 0 ->
	   /* shmq__ring_claim() */
	   atomic {
		word = SLOT(n);
		if
		:: LAP(word) >= LAP_OF(n) ->
		   n = n + (LAP(word) - LAP_OF(n)) * DEPTH + 1;
		   n = (hint > n -> hint : n); /* R5 */
		   word = 0
		:: else
		fi
	   }
	   if
	   :: word == 0
	   :: word != 0 && STATE(word) == CLAIMED -> wait_for_claim(n, word)
	   :: word != 0 && STATE(word) != CLAIMED ->
	      assert(LAP(word) + 1 == LAP_OF(n)); /* else RING_CLAIM_CORRUPT */
	      atomic { /* R4 */
		if
#if MUTANT != 1
		:: SLOT(n) != word -> word = 0
#endif
		:: else ->
		   SLOT(n) = WORD(LAP_OF(n), id, CLAIMED);
		   assert(n == claimed); /* unique, contiguous */
		   claimed++;
		   holder[n % DEPTH] = me
		fi
	      }
	      if
	      :: word == 0
	      :: word != 0 && me == VICTIM -> break /* killed inside the claim */
	      :: word != 0 ->
		 atomic { /* ring_commit(): a plain store */
			assert(SLOT(n) == WORD(LAP_OF(n), id, CLAIMED)); /* not voided */
			SLOT(n) = WORD(LAP_OF(n), id, COMMITTED);
			holder[n % DEPTH] = NOBODY;
			n++;
			messages--
		 }
		 if
		 :: hint = n /* account(): now and then */
		 :: true
		 fi
	      fi
	   fi
	od;
	dead[me] = (me == VICTIM)
}

/* Any other process that has proof of death; slow, and may die over it. */
proctype Recoverer()
{
	byte n, word, from;

	dead[VICTIM];
	recover_publisher(VICTIM_GEN, true, n, word, from)
}

/* The supervisor: recover, bump the generation, hand the id out again. */
proctype Supervisor()
{
	byte n, word, from;

	dead[VICTIM];
	recover_publisher(VICTIM_GEN, (MUTANT == 5), n, word, from);
	gen[SHARED_ID] = VICTIM_GEN + 1;
	atomic {
		process[SHARED_ID] = HEIR;
		run Publisher(HEIR, SHARED_ID, HEIR_MESSAGES)
	}
}

init
{
	byte n;

	atomic {
		for (n : 0 .. DEPTH - 1) {
			ctrl[n] = WORD(0, 0, VOID) /* shmq__layout_init_ring() */
		}
		gen[SHARED_ID] = VICTIM_GEN;
		gen[OTHER_ID] = 1;
		process[SHARED_ID] = VICTIM;
		process[OTHER_ID] = OTHER;
		run Publisher(VICTIM, SHARED_ID, VICTIM_MESSAGES);
		run Publisher(OTHER, OTHER_ID, OTHER_MESSAGES);
		run Recoverer();
		run Supervisor()
	}
	_nr_pr == 1;
	for (n : 0 .. DEPTH - 1) {
		assert(STATE(ctrl[n]) != CLAIMED)
	}
}
