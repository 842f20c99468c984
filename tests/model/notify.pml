/* SPDX-License-Identifier: MIT
 *
 * notify: a reader in an event loop, the thread that makes its descriptor readable,
 * and a publisher.  Code: notify.h (labels D1 to D7), notify.c, sub_fd.c; the bell is
 * that of bell.pml, without its buffers: what they do is shown there.
 *
 * The loop waits for an edge of the descriptor and then reads until a receive finds
 * nothing; at a level it would be woken once more often at most.  An edge that finds
 * the descriptor empty is none: epoll looks before it tells.
 *
 * Shown: in the end every message was read, and the reader waits with a descriptor
 * that is not readable, or for an edge that comes of no message.
 *
 *   MUTANT 1: it is armed before the descriptor is emptied
 *   MUTANT 2: no look after arming
 *   MUTANT 3: what the thread has seen is taken after it has slept
 *   MUTANT 4: no lock is held while it is lowered
 *   MUTANT 5: a look that finds nothing arms only once
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#ifdef LARGE
#define MESSAGES 4
#else
#define MESSAGES 3
#endif

byte armed, served, word;
byte sent, got;

bool lock;
bool raised = true, readable = true, edge = true;

#define LOCK() atomic { !lock -> lock = true }
#define UNLOCK() lock = false

proctype Publisher()
{
	byte a;

	do
	:: sent == MESSAGES -> break
	:: else ->
	   sent++;
	   a = armed;
	   if
	   :: a == served
	   :: else -> word++; served = a
	   fi;
	   a = 0
	od
}

proctype Thread()
{
	byte seen;

end_thread: do
	:: true ->
	   LOCK();
	   if
	   :: word != seen -> /* D5 */
#if MUTANT != 3
	      seen = word; /* D6 */
#endif
	      if
	      :: raised
	      :: else -> raised = true; readable = true; edge = true
	      fi
	   :: else
	   fi;
	   UNLOCK();
end_wait:  word != seen; /* D7 */
#if MUTANT == 3
	   seen = word
#endif
	od
}

inline arm()
{
	armed++ /* D2; S3 is in bell.pml */
}

inline lower()
{
#if MUTANT == 4
	raised = false;
	atomic { readable = false; edge = false }
#else
	LOCK();
	raised = false;
	atomic { readable = false; edge = false };
	UNLOCK()
#endif
}

proctype Reader()
{
	bool was_raised, once;

	do
	:: got < sent -> got++
	:: else -> /* nothing is found */
	   was_raised = raised;
	   if
#if MUTANT == 5
	   :: was_raised && !once -> once = true;
#else
	   :: was_raised ->
#endif
#if MUTANT == 1
	      arm();
	      lower();
#else
	      lower(); /* D1 */
	      arm();
#endif
	      if
#if MUTANT != 2
	      :: got < sent -> /* D3: it is raised again, and read on */
		 LOCK();
		 raised = true;
		 readable = true;
		 edge = true;
		 UNLOCK();
		 goto next
#endif
	      :: else
	      fi
	   :: else
	   fi;
end_poll:  atomic { edge -> edge = false }; /* epoll_wait(), D4 */
next:	   skip
	od
}

init
{
	atomic {
		run Thread();
		run Reader();
		run Publisher()
	}
	timeout; /* nobody can do any more */
	assert(got == MESSAGES)
}
