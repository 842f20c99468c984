/* SPDX-License-Identifier: MIT
 *
 * exclusive: the only publisher of a ring dies anywhere, also inside an atomic
 * batch; a slow recoverer and the supervisor repair the ring; a successor
 * goes on.  Code: acquire() (pub_send.c), pub_batch.c,
 * shmq__ring_give_up(), shmq__ring_takeover() (ring.c), void_unfinished_batch()
 * (recover.c), take_message() (sub_look.c), keep_batch() (sub_batch.c), start_of() (topic.c).
 *
 * An exclusive publisher takes slots by plain stores.  On topics where
 * readers may be lapped (LOSSY, EVICT) it stores AHEAD before the payload.
 *
 * Shown: nothing torn is delivered, no seq twice, of a batch all or none; on
 * BLOCK the readers, and one that joins from the oldest after the death,
 * lose nothing and see nothing torn; on EVICT a reader is lapped only if it
 * was evicted.
 *
 *   MUTANT 1: AHEAD is not stored before the payload
 *   MUTANT 2: reader does not look at the word again (A2)
 *   MUTANT 3: recovery leaves what stands behind the head
 *   MUTANT 4: recovery voids first to last
 *   MUTANT 5: successor granted before the generation moves on
 *   MUTANT 6: recovery leaves slots the dead was writing where no AHEAD stood
 *   MUTANT 7: AHEAD is stored beyond the limit
 *   MUTANT 8: what stands a lap on is taken to be before the head
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define DEPTH 4
#define BATCH 2            /* in the code: depth / 4 */
#define AHEAD_COUNT 1      /* RING_AHEAD */
#ifdef LARGE
#define VICTIM_CALLS 2
#define HEIR_CALLS 1
#else
#define VICTIM_CALLS 1
#define HEIR_CALLS 1
#endif

/* The ring has gone round once: lap 1 stands, all of it by an earlier
 * publisher. */
#define BASE DEPTH
#define FIRST (2 * DEPTH)                /* the victim's first seq */
#define NOBODY 255

#define COMMITTED 1
#define VOID 2
#define AHEAD 3
#define WORD(lap, state) (((lap) << 2) | (state))
#define LAP(word) ((word) >> 2)
#define STATE(word) ((word) & 3)
#define LAP_OF(seq) ((seq) / DEPTH)
#define SLOT(seq) ctrl[(seq) % DEPTH]

/* Slot contents, stored in two halves: seq, writer, and what it is. */
#define SINGLE 0
#define BATCH_FIRST 1
#define BATCH_REST 2
#define CONTENT(seq, writer, kind) ((seq) | ((writer) << 5) | ((kind) << 7))
#define KIND_OF(i, n) ((n) == 1 -> SINGLE : ((i) == 0 -> BATCH_FIRST : BATCH_REST))
#define SEQ(content) ((content) & 31)
#define KIND(content) ((content) >> 7)

mtype = { BLOCK, LOSSY, EVICT };
mtype policy;
#define INVALIDATES (policy != BLOCK)
#define TRUSTS (policy == BLOCK)
#define GATES (policy != LOSSY)

byte ctrl[DEPTH];
short half0[DEPTH], half1[DEPTH];
#define HINT BASE                        /* tail_hint: the worst case, never moved */

#define READER 0
#define JOINER 1
byte at[2] = FIRST;                      /* next seq each will read */
byte cursor[2] = NOBODY;                 /* ... as published, if it gates */
bool joins;                              /* there is a joiner, but no reader */
bool evicted;                            /* the reader was */

#define VICTIM 1
#define HEIR 2
bool is_dead;                            /* the victim */
byte gen = 1;                            /* of its client id */
bool recovered;                          /* it has left the roster */
byte heir_limit;                         /* lay_entry.limit of the heir */
byte heir_first = NOBODY;                /* seq it went on at */
byte delivered;                          /* seqs below may have been given out */

#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define LOWEST MIN(cursor[READER], cursor[JOINER])

/* shmq__ring_head() and shmq__ring_takeover(), by ring_step(): the first slot
 * that is neither COMMITTED nor VOID at its lap.  One that is a lap on may be
 * of a batch that is not complete, or AHEAD, and so behind the head: what
 * is half a ring before it is certain. */
#if MUTANT == 8
#define LAP_STEP (DEPTH + 1)
#else
#define LAP_STEP (DEPTH - DEPTH / 2)
#endif
inline walk_to_head(n)
{
	d_step {
		n = HINT;
		do
		:: LAP(SLOT(n)) < LAP_OF(n) || SLOT(n) == WORD(LAP_OF(n), AHEAD) -> break
		:: LAP(SLOT(n)) == LAP_OF(n) && STATE(SLOT(n)) != AHEAD -> n++
		:: LAP(SLOT(n)) > LAP_OF(n) ->
		   n = n + (LAP(SLOT(n)) - LAP_OF(n) - 1) * DEPTH + LAP_STEP
		od
	}
}

/* Refreshing the limit is one step: see credit.pml.  Where readers may be
 * evicted, the patience ends some time. */
inline wait_for_credit(need)
{
	do
	:: limit >= need -> break
	:: atomic {
		limit < need && MIN(LOWEST, next) + DEPTH > limit ->
		limit = MIN(LOWEST, next) + DEPTH;
		heir_limit = (me == HEIR -> limit : heir_limit)
	   }
	:: atomic {
		limit < need && policy == EVICT && !evicted ->
		evicted = true;
		cursor[READER] = NOBODY
	   }
	od
}

proctype Publisher(byte me; byte calls)
{
	byte next, ahead, limit, upto, n, i;

	{
		atomic {
			walk_to_head(next);
			ahead = next;
			limit = (GATES -> next : NOBODY);
			heir_first = (me == HEIR -> next : heir_first)
		};
		do
		:: calls == 0 -> break
		:: calls != 0 ->
		   if
		   :: n = 1
		   :: n = BATCH
		   fi;
		   wait_for_credit(next + n);
		   /* ring_make_room() and shmq__ring_give_up() */
		   atomic {
			upto = next + n + AHEAD_COUNT;
#if MUTANT != 7
			upto = MIN(upto, limit);
#endif
			do
#if MUTANT != 1
			:: INVALIDATES && ahead < upto ->
			   SLOT(ahead) = WORD(LAP_OF(ahead), AHEAD);
			   ahead++
#endif
			:: else -> break
			od;
			upto = 0
		   };
		   /* write_slot() */
		   do
		   :: i == n -> break
		   :: i != n ->
		      half0[(next + i) % DEPTH] = CONTENT(next + i, me, KIND_OF(i, n));
		      atomic {
			half1[(next + i) % DEPTH] = CONTENT(next + i, me, KIND_OF(i, n));
			i++
		      }
		   od;
		   /* ring_commit(), last to first */
		   do
		   :: i == 0 -> break
		   :: i != 0 ->
		      atomic {
			i--;
			assert(next + i >= delivered); /* no seq twice */
			SLOT(next + i) = WORD(LAP_OF(next + i), COMMITTED)
		      }
		   od;
		   atomic {
			next = next + n;
			calls--;
			n = 0
		   }
		od
	} unless {
		me == VICTIM && is_dead
	};
	atomic {
		next = 0;
		ahead = 0;
		limit = 0;
		n = 0;
		i = 0
	}
}

proctype Killer()
{
	is_dead = true
}

#define VOID_SLOT(seq) \
	if \
	:: gen != 1 -> break /* V3 */ \
	:: gen == 1 -> \
	   atomic { /* shmq__ring_void() */ \
		if \
		:: SLOT(seq) == word -> \
		   assert(seq < heir_first); \
		   SLOT(seq) = WORD(LAP_OF(seq), VOID) \
		:: else \
		fi \
	   } \
	fi

/* void_unfinished_batch() */
inline recover(may_die)
{
	atomic {
		walk_to_head(head);
		end = head;
		for (n : head .. head + BATCH - 1) {
			if
			:: LAP(SLOT(n)) == LAP_OF(n) && STATE(SLOT(n)) != AHEAD -> end = n + 1
			:: else
			fi
		};
		n = end
	};
#if MUTANT == 3
	end = head;
	n = head;
#endif
#if MUTANT == 4
	n = head;
	do
	:: n == end || may_die -> break
	:: n != end ->
	   word = SLOT(n);
	   n++;
	   VOID_SLOT(n - 1)
	od;
#else
	do
	:: n == head || may_die -> break
	:: n != head ->
	   atomic { n--; word = SLOT(n) };
	   VOID_SLOT(n)
	od;
#endif
	word = 0
}

/* Somebody else with proof of death; slow, may die over it. */
proctype Recoverer()
{
	byte head, end, n, word;

	is_dead;
	recover(true);
	head = 0;
	end = 0;
	n = 0
}

/* Where no AHEAD stands before the payload, the dead may have torn up to a
 * batch of messages that all gating readers have passed, but the next
 * joiner might start at.  Only the supervisor does this: it is also who
 * lets join. */
inline give_up_torn()
{
	atomic {
		for (n : end .. end + BATCH - 1) {
			if
			:: LAP(SLOT(n)) < LAP_OF(n) && n - DEPTH < LOWEST ->
			   SLOT(n) = WORD(LAP_OF(n), AHEAD)
			:: else
			fi
		}
	}
}

proctype Supervisor()
{
	byte head, end, n, word;

	is_dead;
	recover(false);
#if MUTANT != 6
	if
	:: !INVALIDATES -> give_up_torn()
	:: INVALIDATES
	fi;
#endif
	recovered = true;
#if MUTANT == 5
	run Publisher(HEIR, HEIR_CALLS);
	gen++
#else
	gen++;
	run Publisher(HEIR, HEIR_CALLS)
#endif
}

/* The message at `seq` can be looked at: not RING_NOTHING. */
#define IS_THERE(seq) \
	(LAP(SLOT(seq)) > LAP_OF(seq) || \
	 (LAP(SLOT(seq)) == LAP_OF(seq) && STATE(SLOT(seq)) != AHEAD))

#define MOVE_ON(count) \
	at[me] = at[me] + count; \
	cursor[me] = (cursor[me] == NOBODY -> NOBODY : at[me])

/* take_message() */
inline take_message()
{
	assert(got0 == got1 && SEQ(got0) == at[me]);
	if
	:: KIND(got0) == SINGLE ->
	   assert(!TRUSTS || !in_batch);
	   delivered = MAX(delivered, at[me] + 1);
	   MOVE_ON(1)
	:: KIND(got0) == BATCH_FIRST && TRUSTS ->
	   in_batch = true;
	   delivered = MAX(delivered, at[me] + 1);
	   MOVE_ON(1)
	:: KIND(got0) == BATCH_FIRST && !TRUSTS -> /* keep_batch() */
	   word = SLOT(at[me] + 1);
	   got0 = half0[(at[me] + 1) % DEPTH];
	   got1 = half1[(at[me] + 1) % DEPTH];
	   if
	   :: SLOT(at[me] + 1) != word || word != WORD(LAP_OF(at[me] + 1), COMMITTED)
	   :: else ->
	      assert(got0 == got1 && SEQ(got0) == at[me] + 1 && KIND(got0) == BATCH_REST);
	      delivered = MAX(delivered, at[me] + 2);
	      MOVE_ON(2)
	   fi
	:: KIND(got0) == BATCH_REST -> /* delivered or skip_member() */
	   assert(!TRUSTS || in_batch || at[me] == start);
	   in_batch = false;
	   delivered = MAX(delivered, at[me] + 1);
	   MOVE_ON(1)
	fi
}

/* look_at(): one seq where the reader stands. */
inline look_at()
{
	atomic { IS_THERE(at[me]) -> word = SLOT(at[me]) }; /* A1 */
	if
	:: word == WORD(LAP_OF(at[me]), VOID) ->
	   assert(!TRUSTS || !in_batch);
	   MOVE_ON(1)
	:: word == WORD(LAP_OF(at[me]), COMMITTED) ->
	   got0 = half0[at[me] % DEPTH];
	   got1 = half1[at[me] % DEPTH];
	   if
#if MUTANT != 2
	   :: !TRUSTS && SLOT(at[me]) != word /* A2: look again */
#endif
	   :: else -> take_message()
	   fi
	:: else -> /* RING_LAPPED; jump() only does it faster */
	   assert(!TRUSTS && (policy != EVICT || evicted));
	   MOVE_ON(1)
	fi;
	atomic {
		word = 0;
		got0 = 0;
		got1 = 0
	}
}

proctype Reader()
{
	byte me = READER, start = FIRST, word;
	short got0, got1;
	bool in_batch;

end:	do
	:: look_at()
	od
}

/* On BLOCK, after the death, from the oldest: start_of().  One step: see
 * credit.pml. */
proctype Joiner()
{
	byte me = JOINER, start, word;
	short got0, got1;
	bool in_batch;

end:	recovered;
	atomic {
		walk_to_head(word);
		start = MAX(BASE, word - DEPTH);
		start = MAX(start, heir_limit - DEPTH);
		do
		:: start < word && LAP(SLOT(start)) != LAP_OF(start) -> start++
		:: else -> break
		od;
		word = 0;
		at[JOINER] = start;
		cursor[JOINER] = start
	};
end2:	do
	:: look_at()
	od
}

init
{
	byte n;

	atomic {
		for (n : BASE .. FIRST - 1) {
			SLOT(n) = WORD(LAP_OF(n), COMMITTED);
			half0[n % DEPTH] = CONTENT(n, 0, SINGLE);
			half1[n % DEPTH] = CONTENT(n, 0, SINGLE)
		};
		run Publisher(VICTIM, VICTIM_CALLS);
		run Killer();
		run Supervisor();
		/* What may come together; a mutant is spared where it cannot show. */
		if
#if MUTANT != 1 && MUTANT != 2 && MUTANT != 6 && MUTANT != 7
		:: policy = BLOCK; run Reader(); run Recoverer()
#endif
#if MUTANT != 6 && MUTANT != 7
		:: policy = LOSSY; run Reader(); run Recoverer()
#endif
#if MUTANT != 6
		:: policy = EVICT; run Reader()
#endif
		:: policy = BLOCK; joins = true; run Joiner()
		fi;
		at[READER] = BASE + 1;
		cursor[READER] = (GATES && !joins -> at[READER] : NOBODY)
	}
	timeout; /* nobody can do any more: the readers have read all */
	atomic {
		walk_to_head(n);
		assert(at[(joins -> JOINER : READER)] == n)
	}
}
