/* SPDX-License-Identifier: MIT
 *
 * Every acquire, release and fence of the lock-free files is needed: weakened to
 * relaxed, it makes some schedule of some scenario fail.  An order that no schedule
 * needs is none of an edge: it is relaxed, with a sentence that says why, or orders the
 * compiler alone, as for who finds what the dead left (tests/step goes through that
 * instruction by instruction).  What it says of a site,
 *
 *     SCENARIO fails at NUMBER: ..., with SITE
 *
 * is told step by step by --replay SCENARIO:weak:random:NUMBER:SITE (weave.h).
 */
#include "tap.h"
#include "weave.h"

static const struct weave_seen seen[] = {
	{ "ring.c:shmq__ring_claim:cas_acqrel", "dead_and_lapped" },
	{ "park.c:sleep_by_relays:load_acquire", "relays" },
	{ "ring.c:shmq__ring_arena_ref:fence_acquire", "arena_asked" },
	{ "ring.c:shmq__ring_arena_ref:load_acquire", "arena_adopted" },
	{ "topic.c:shmq__topic_remove_member:store_release", "totals_summed_up" },
	{ "credit.c:update:fence_acquire", "dead_reader_replaced" },
	{ "pub_wait.c:attend:load_acquire", "heir_beside_a_waiter" },
	{ "recover.c:void_unfinished_batch:load_acquire", "takeover_in_a_batch" },
	{ "pub.h:lane_account_run:store_release", "wake_deferred_counted" },
	{ NULL, NULL },
};

TEST_WITHIN(every_edge_is_needed, WEAVE_LIMIT_S)
{
	weave_each_site(seen, 100000);
}
