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
#define BACKSTOP "the end of a relay is bounded by its back-stop, which is no edge"

#define BY_SUPERVISOR \
	"A3, by way of the supervisor, who says that a reader left: payload is stored behind a " \
	"branch on it, and no processor stores early"
#define WHO_HOLDS \
	"a new cursor of an old generation marks who is gone, and an old one of a new generation " \
	"is passed over"
#define ANSWERED "the supervisor stored it before its answer, which comes by a socket"
#define LOOKED "it tells where to look: A1 comes before anything is read there"

static const struct weave_spared spared[] = {
	{ .site = "pub.c:shmq_pub_wait_subscribers:load_acquire#2",
	  .why = "whoever is counted has joined: " FENCED },
	{ .site = "topic.h:shmq__topic_has_ended:load_acquire",
	  .why = "of what ended nothing else is read; of a record that was used again it brings "
		 "LIVE together with its id" },
	{ .site = "sub.c:shmq__sub_make:load_acquire", .why = ANSWERED },
	{ .site = "sub.c:shmq__sub_make:load_acquire#2", .why = ANSWERED },
	{ .site = "sub.c:open_lane:load_acquire", .why = ANSWERED },
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
	{ .site = "topic.c:shmq__topic_end:store_release",
	  .why = "N4 stands between it and the rings' state; the epoch is stored behind it with "
		 "release" },
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
	{ .site = "topic.c:shmq__topic_client_is_dead:load_acquire", .why = BY_SUPERVISOR },
	{ .site = "topic.c:shmq__topic_client_is_dead:load_acquire#2", .why = BY_SUPERVISOR },
	{ .site = "pub_wait.c:shmq__pub_wait_for_claim:load_acquire",
	  .why = "that the claim is gone: R4 comes before anything is stored there" },
	{ .site = "pub_wait.c:holder_stands_at:load_acquire",
	  .why = "it tells after whom to look; " EXACT },
	{ .site = "pub_wait.c:attend:load_acquire", .why = "V3 stands behind it; " EXACT },
	{ .site = "pub_wait.c:attend:load_acquire#2", .why = "V2 stands behind it; " EXACT },
	{ .site = "pub.h:lane_account_run:store_release",
	  .why = "the library's thread acquires it (serve.c), which is not woven" },
	{ .site = "ring.c:shmq__ring_claim:cas_acqrel",
	  .why = "R4: the load before it, of the same word, acquires; R2 stands behind it" },
	{ .site = "ring.c:shmq__ring_gone:cas_acqrel",
	  .why = "R2 stands behind it, and what it replaces was stored by the same publisher" },
	{ .site = "ring.c:forget:cas_acqrel",
	  .why = "the release of the entry that is written over comes after it" },
	{ .site = "ring.c:is_remembered:load_acquire",
	  .why = "an entry that it overlooks is entered twice, and readers ignore that" },
	{ .site = "ring.c:shmq__ring_voids_between:load_acquire",
	  .why = "A1 of the slot that was lapped comes before it and brings the entries" },
	{ .site = "ring.c:shmq__ring_voids_between:load_acquire#3",
	  .why = "nothing is read after it" },
	{ .site = "pub.h:lane_move_hint:store_release", .why = "R6: " PROVED },
	{ .site = "pub.c:open_lane:store_release", .why = "R6: " PROVED },
	{ .site = "pub_batch.c:claim_batch:store_release", .why = "R6: " PROVED },
	{ .site = "pub_batch.c:claim_batch:fence_release",
	  .why = "R6: " PROVED "; it keeps the compiler from storing a payload first" },
	{ .site = "credit.c:update:fence_acquire",
	  .why = "a walk that mixes two members finds neither; then " FENCED },
	{ .site = "credit.c:lowest:load_acquire",
	  .why = "A3: payload is stored behind a branch on it, and no processor stores early" },
	{ .site = "credit.c:lowest:load_acquire#2",
	  .why = "as the cursor of which it tells whose it is" },
	{ .site = "credit.c:lowest:load_acquire#3",
	  .why = "A3: as a cursor's; no topic here has a log",
	  .no_scenario = 1 },
	{ .site = "credit.c:tell:store_release",
	  .why = "C1: " FENCED "; what is told after it is no more" },
	{ .site = "credit.c:shmq__credit_holder:load_acquire", .why = WHO_HOLDS },
	{ .site = "credit.c:shmq__credit_holder:load_acquire#2", .why = WHO_HOLDS },
	{ .site = "credit.c:shmq__credit_holder:load_acquire#3",
	  .why = "who holds, as far as is seen; no topic here has a log",
	  .no_scenario = 1 },
	{ .site = "topic.c:shmq__topic_join:store_release",
	  .why = "a joiner has read no payload yet" },
	{ .site = "topic.c:highest_limit:load_acquire", .why = FENCED },
	{ .site = "topic.c:shmq__topic_next_member:load_acquire", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_next_member:load_acquire#2", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_next_member:load_acquire#3", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_entry:load_acquire", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_publish_member:store_release", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_remove_member:store_release", .why = "M1: " EPOCH },
	{ .site = "topic.c:shmq__topic_remove_member:fence_release",
	  .why = "T1: who adds up a topic looks for it, and nobody does here" },
	{ .site = "topic.c:shmq__topic_remove_member:store_release#2",
	  .why = "T2: who adds up a topic looks for it, and nobody does here" },
	{ .site = "bell.c:shmq__bell_ring:add_release",
	  .why = "W4: whoever finds word changed arms again before it looks: S3" },
	{ .site = "bell.c:shmq__bell_ring:store_release",
	  .why = "W4: who sleeps after the wake before it sees word changed: the kernel's order" },
	{ .site = "park.c:relay_main:load_acquire", .why = BACKSTOP },
	{ .site = "park.c:relay_wait:load_acquire", .why = BACKSTOP },
	{ .site = "park.c:shmq__park_free:store_release", .why = BACKSTOP, .no_scenario = 1 },
	{ .site = "park.c:shmq__park_free:store_release#2", .why = BACKSTOP, .no_scenario = 1 },
	{ .site = "park.c:relay_main:load_acquire#2",
	  .why = "an expectation of an earlier arming makes the relay come back early" },
	{ .site = "park.c:sleep_by_relays:store_release",
	  .why = "an expectation of an earlier arming makes the relay come back early" },
	{ .site = "park.c:relay_main:store_release", .why = "Q2: Q3 is a release behind it" },
	{ .site = "park.c:sleep_by_relays:load_acquire#2",
	  .why = "P2: P1 acquires Q2 and Q3 before it" },
	{ .site = "park.c:load_word:load_acquire", .why = "whoever finds word changed arms again" },
	{ .site = "recover.c:is_current:load_acquire",
	  .why = "V3: the release half of V4 keeps it before, and what V2 acquired after" },
	{ .site = "recover.c:void_claims:load_acquire",
	  .why = "V2: who claimed behind it passed it by an acquire, which the walk to the head has",
	  .together_with = "ring.c:load_ctrl:load_acquire",
	  .in = "id_given_again" },
	{ .site = "recover.c:is_unfinished:load_acquire", .why = PROVED },
	{ .site = "recover.c:is_passed:load_acquire",
	  .why = "as a cursor's; no topic here has a log",
	  .no_scenario = 1 },
	{ .site = "recover.c:is_passed:load_acquire#2",
	  .why = PROVED "; a cursor that is old keeps more" },
	{ .site = "recover.c:give_up_torn:load_acquire", .why = EXACT },
	{ .site = "recover.c:give_up_torn:cas_acqrel",
	  .why = "the supervisor alone recovers exclusive rings, and it is who joins" },
	{ .site = "recover.c:void_unfinished_batch:load_acquire", .why = "R6: " PROVED },
	{ .site = "recover.c:void_unfinished_batch:load_acquire#2", .why = PROVED },
	{ .site = "recover.c:void_unfinished_batch:load_acquire#3", .why = EXACT },
	{ .site = "recover.c:shmq__recover_sees_claim:load_acquire",
	  .why = "R6: " PROVED "; it says only who is recovered first",
	  .no_scenario = 1 },
	{ .site = "recover.c:shmq__recover_publisher:load_acquire", .why = "R6: " PROVED },
	{ .site = NULL },
};

TEST_WITHIN(every_edge_is_needed, WEAVE_LIMIT_S)
{
	weave_each_site(spared, 100000);
}
