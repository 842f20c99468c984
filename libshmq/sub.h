/* SPDX-License-Identifier: MIT
 *
 * sub: the subscriber handle, as wait sets see it.
 */
#ifndef SHMQ_SUB_H
#define SHMQ_SUB_H

#include "bus.h"

struct shmq_waitset;

/* 1 if receive would not have to wait.  Of a pattern: it joins what has come, and
 * may so be no longer what its set has listed. */
int shmq__sub_is_ready(struct shmq_sub *sub);

/* The bells it sleeps on: their number, and all of them into a list of so many. */
unsigned shmq__sub_bells(const struct shmq_sub *sub);
void shmq__sub_list_bells(const struct shmq_sub *sub, struct lay_bell **list);
/* A word that it sleeps on too, the same for all of a bus that do; or NULL. */
const shmq_au32 *shmq__sub_word(const struct shmq_sub *sub);

/* How it waits. */
enum shmq_wait shmq__sub_wait_mode(const struct shmq_sub *sub);
int64_t shmq__sub_spin_ns(const struct shmq_sub *sub);
enum shmq__fence shmq__sub_fence(const struct shmq_sub *sub);
struct shmq_bus *shmq__sub_bus(const struct shmq_sub *sub);

/* Show in shared memory that it sleeps, or no longer does. */
void shmq__sub_show_asleep(struct shmq_sub *sub, uint32_t asleep);

/* Look for an open claim that it stands at, and tell the supervisor once it
 * has not moved for SHMQ__SUB_STUCK_NS.  How soon to look again if no bell
 * rings: none does for a stall, nor when the log has come further; else
 * SHMQ_FOREVER. */
#define SHMQ__SUB_STUCK_NS 100000000
#define SHMQ__SUB_LOG_NS 1000000
int64_t shmq__sub_report_stuck(struct shmq_sub *sub);

/* The set it is in, or NULL; shmq_sub_close() takes it out. */
struct shmq_waitset *shmq__sub_set(const struct shmq_sub *sub);
int shmq__sub_has_listener(const struct shmq_sub *sub);
void shmq__sub_enter(struct shmq_sub *sub, struct shmq_waitset *set);
void shmq__waitset_forget(struct shmq_waitset *set, struct shmq_sub *sub);
/* What one of its subscribers sleeps on is not what it was. */
void shmq__waitset_change(struct shmq_waitset *set);
/* From now on a wait also ends, in SHMQ_ETIMEOUT, when the word is not `seen` any more and
 * whoever changed it woke those who wait on it.  Only one word is waited on: there may be
 * no subscriber by pattern in the set, which has its own. */
void shmq__waitset_watch(struct shmq_waitset *set, const shmq_au32 *word, uint32_t seen);

/* For the tailer, whose subscribers have one partition each.  The seq it will
 * look at next; what is before it was handed out, lost or void. */
uint64_t shmq__sub_cursor(const struct shmq_sub *sub);
/* It is to have all from `seq` on: what of a batch since then is not to be had whole is
 * lost, and not one that it has come into the midst of.  Publishers must not wait for it. */
void shmq__sub_miss_from(struct shmq_sub *sub, uint64_t seq);
/* ... and has had what is before: of a batch that began there it gets the rest, member by
 * member, or is told what of it is lost. */
void shmq__sub_go_on(struct shmq_sub *sub);
/* How many publish to its topic; of those that do not any more all is in the ring. */
uint32_t shmq__sub_publishers(const struct shmq_sub *sub);

/* The message handed out last is a member of an atomic batch: which, and how
 * many there are. */
void shmq__sub_get_batch(const struct shmq_sub *sub, struct lay_batch *out);

/* Whether the message handed out last stands before the end of the old rings of a topic
 * that moved: 1, 0: its publisher was refused; TORN: likewise, since a part of its atomic
 * batch stands behind that; SHMQ_EEMPTY: that is not settled yet. */
#define SHMQ__SUB_TORN 2
int shmq__sub_is_sent(struct shmq_sub *sub, const struct shmq_msg *msg);
/* After SHMQ_EMOVED: where the rings that came after begin, at most its cursor. */
uint64_t shmq__sub_moved_seq(const struct shmq_sub *sub);

/* Its ring says that no more comes. */
int shmq__sub_is_closed(const struct shmq_sub *sub);

/* Publishers wait for the log, so nothing it reads can change under it, and
 * they are woken by shmq__sub_ring_credit() alone: not for each message that
 * is read, for none of which they can go on. */
void shmq__sub_trust_log(struct shmq_sub *sub);

/* Who reads the topic that the last call told of: itself, or of a pattern's
 * subscribers one or NULL. */
const struct shmq_sub *shmq__sub_teller(const struct shmq_sub *sub);

/* The words of n subscribers for a descriptor (notify.h). */
struct shmq__notify;
int shmq__sub_give_words(struct shmq__notify *to, struct shmq_sub *const *sub, unsigned n);
/* 1 if its topic lets nobody sleep. */
int shmq__sub_is_spin_only(const struct shmq_sub *sub);
/* How long a descriptor may be left to wakes alone, or as SHMQ__BELL_BACKSTOP_NS:
 * reports what is stuck. */
int64_t shmq__sub_patience(struct shmq_sub *sub);

/* Copy payload, key and properties behind each other to buf, and point
 * the message there. */
void shmq__sub_copy_out(struct shmq_msg *m, char *buf);

/* Bell of who waits for its partition to be read. */
void shmq__sub_ring_credit(struct shmq_sub *sub);

#endif
