/* SPDX-License-Identifier: MIT
 *
 * Every acquire, release and fence of the lock-free files is needed: weakened to
 * relaxed, it makes some schedule of some scenario fail.  Those that are not are
 * named here, with the reason: the test fails if another survives, if one of them
 * is refuted, or if no scenario comes by one of which that is not said.  What it
 * says of a site,
 *
 *     SITE: SCENARIO fails at NUMBER: ...
 *
 * is told step by step by --replay SCENARIO:weak:random:NUMBER:SITE (weave.h).
 */
#include "tap.h"
#include "weave.h"

#define PROVED "proof of death comes first, and all that the dead stored before it"
#define EXACT "what it decides is carried out by compare-and-swap of the word that was seen"
#define FENCED "C2 and J2 are in one order: J3 sees what C2 came after, or C3 the joiner"
#define EPOCH "the epoch is stored after it with release, and loaded before it with acquire"
#define ANSWERED "the supervisor stored it before its answer, which comes by a socket"
#define LOOKED "it tells where to look: A1 comes before anything is read there"

static const struct weave_spared spared[] = {
	{ .site = "topic.h:shmq__topic_has_ended:load_acquire",
	  .why = "of what ended nothing else is read; of a record that was used again it brings "
		 "LIVE together with its id" },
	{ .site = "topic.c:attach:load_acquire", .why = ANSWERED, .no_scenario = 1 },
	{ .site = "layout.c:shmq__layout_init_ring:store_release",
	  .why = ANSWERED,
	  .no_scenario = 1 },
	{ .site = "layout.c:shmq__layout_check_ring:load_acquire",
	  .why = ANSWERED,
	  .no_scenario = 1 },
	{ .site = "layout.c:shmq__layout_check_registry:load_acquire",
	  .why = ANSWERED,
	  .no_scenario = 1 },
	{ .site = "topic.c:shmq__topic_oldest:load_acquire", .why = LOOKED },
	{ .site = "sub_look.c:jump:load_acquire", .why = LOOKED },
	{ .site = "sub_look.c:has_new_members:load_acquire",
	  .why = "requesters alone ask for it, and they are not woven",
	  .no_scenario = 1 },
	{ .site = "sub.c:shmq__sub_publishers:load_acquire",
	  .why = "the tailer alone asks for it, and it is not woven",
	  .no_scenario = 1 },
	{ .site = "sub_decode.c:map_arena:load_acquire",
	  .why = "A1 of the message that names the generation comes before it" },
	{ .site = "pub_wait.c:holder_stands_at:load_acquire",
	  .why = "it tells after whom to look; " EXACT },
	{ .site = "pub_wait.c:attend:load_acquire", .why = "V3 stands behind it; " EXACT },
	{ .site = "pub_wait.c:attend:load_acquire#2", .why = "V2 stands behind it; " EXACT },
	{ .site = "pub.h:lane_account_run:store_release",
	  .why = "the library's thread acquires it (serve.c), which is not woven" },
	{ .site = "pub.h:lane_move_hint:store_release", .why = "R6: " PROVED },
	{ .site = "pub_batch.c:claim_batch:fence_release",
	  .why = "R6: " PROVED "; it keeps the compiler from storing a payload first" },
	{ .site = "credit.c:update:fence_acquire",
	  .why = "a walk that mixes two members finds neither; then " FENCED },
	{ .site = "credit.c:lowest:load_acquire#2",
	  .why = "A3: as a cursor's; no topic here has a log",
	  .no_scenario = 1 },
	{ .site = "topic.c:shmq__topic_next_member:load_acquire", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_next_member:load_acquire#2", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_publish_member:store_release", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_remove_member:fence_release",
	  .why = "T1: who adds up a topic looks for it, and nobody does here" },
	{ .site = "topic.c:shmq__topic_remove_member:store_release",
	  .why = "T2: who adds up a topic looks for it, and nobody does here" },
	{ .site = "recover.c:void_claims:load_acquire",
	  .why = "V2: who claimed behind it passed it by an acquire, which the walk to the head has",
	  .together_with = "ring.c:load_ctrl:load_acquire",
	  .in = "id_given_again" },
	{ .site = "ring.c:load_ctrl:load_acquire",
	  .why = "who looks at a slot for its own sake acquires it there",
	  .together_with = "recover.c:void_claims:load_acquire",
	  .in = "id_given_again" },
	{ .site = NULL },
};

TEST_WITHIN(every_edge_is_needed, WEAVE_LIMIT_S)
{
	weave_each_site(spared, 100000);
}
