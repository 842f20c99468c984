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
#define ANSWERED "the supervisor stored it before its answer, which comes by a socket"
#define LOOKED "it tells where to look: A1 comes before anything is read there"

static const struct weave_spared spared[] = {
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
	{ .site = "sub_decode.c:map_arena:load_acquire",
	  .why = "A1 of the message that names the generation comes before it" },
	{ .site = "pub_wait.c:holder_stands_at:load_acquire",
	  .why = "it tells after whom to look; " EXACT },
	{ .site = "pub_wait.c:attend:load_acquire", .why = "V3 stands behind it; " EXACT },
	{ .site = "pub_wait.c:attend:load_acquire#2", .why = "V2 stands behind it; " EXACT },
	{ .site = "pub.h:lane_move_hint:store_release", .why = "R6: " PROVED },
	{ .site = "pub_batch.c:claim_batch:fence_release",
	  .why = "R6: " PROVED "; it keeps the compiler from storing a payload first" },
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
