/* SPDX-License-Identifier: MIT
 *
 * What is at the cursor: loss, holes, eviction, ends, claims that last.
 */
#include "subscriber.h"

#include "sub.h"

/* What the publisher gives up ahead of it is lost too. */
TEST(loss_is_exact_wherever_the_reader_is_overrun_at_every_wrap)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .policy = SHMQ_LOSSY, .base_seq = bases[i] },
			       NULL);
		uint64_t read = 0, lost = 0, seed = i;
		struct shmq_msg m;
		char copy[48];
		int rc;

		for (int round = 0; round < 40; round++) {
			uint64_t take = fake_random(&seed) % 800;

			publish(&c, fake_random(&seed) % (3 * FAKE_DEPTH));
			while (take-- && (rc = shmq_receive_copy(c.sub, copy, sizeof(copy), &m,
								 SHMQ_NOWAIT)) != SHMQ_EEMPTY) {
				if (rc == SHMQ_EOVERRUN) {
					CHECK_EQ(m.lost_is_bound, 0);
					CHECK_GT(m.lost, 0);
					lost += m.lost;
					continue;
				}
				CHECK_OK(rc);
				CHECK_EQ(number(&m), read + lost);
				CHECK_EQ(m.seq, bases[i] + read + lost);
				read++;
			}
			CHECK_EQ(sub_stats(c.sub).received, read);
			CHECK_EQ(sub_stats(c.sub).lost, lost);
			CHECK_EQ(sub_stats(c.sub).lost_is_bound, 0);
		}
		CHECK_GT(lost, FAKE_DEPTH);
		CHECK_OK(shmq_release(c.sub));
		CHECK_EQ(sub_stats(c.sub).lag, c.w.next - bases[i] - read - lost);
		tear_down(&c);
	}
}

/* Lap the reader with n of the seqs being holes. */
static void lap_with_voids(struct scene *c, unsigned n)
{
	uint64_t seq, word;

	for (unsigned i = 0; i < 2 * FAKE_DEPTH; i++) {
		CHECK_EQ(shmq__ring_claim(&c->w, &seq, &word), RING_CLAIM_OK);
		if (i % 2 && n) {
			n--;
			CHECK(shmq__ring_void(c->w.mem, &c->f->geo, seq,
					      load_relaxed(&slot_of(c, seq)->ctrl)));
		} else {
			fake_put(&c->w, seq, i);
		}
	}
}

TEST(holes_are_not_counted_as_lost_unless_they_were_forgotten_and_then_it_is_said)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_LOSSY,
								.mode = SHMQ_SHARED,
								.base_seq = bases[i] },
					NULL);
		struct shmq_msg m;
		uint64_t got = 0, lost = 0;
		char copy[48];
		int rc;

		lap_with_voids(&c, 300);
		while ((rc = shmq_receive_copy(c.sub, copy, sizeof(copy), &m, SHMQ_NOWAIT)) !=
		       SHMQ_EEMPTY) {
			got += !rc;
			lost += rc ? m.lost : 0;
			if (rc)
				CHECK_EQ(m.lost_is_bound, 0);
		}
		CHECK_EQ(got + lost, 2 * FAKE_DEPTH - 300);
		CHECK_EQ(sub_stats(c.sub).lost_is_bound, 0);
		lap_with_voids(&c, LAY_VOIDS + 1);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
		CHECK_EQ(m.lost_is_bound, 1);
		CHECK_EQ(sub_stats(c.sub).lost_is_bound, 1);
		tear_down(&c);
	}
}

/* A word of laps to come, and a hint that leads to before it. */
TEST(a_mad_publisher_sends_no_reader_back)
{
	struct scene c = set_up(&lossy_shared, NULL);
	uint64_t base = c.f->base_seq, before;
	struct shmq_msg m;

	publish(&c, 40);
	for (uint64_t n = 0; n < 20; n++)
		check_next(&c, n);
	CHECK_OK(shmq_release(c.sub));
	store_release(&slot_of(&c, base + 20)->ctrl,
		      LAY_CTRL(lay_lap(&c.f->geo, base + 20) + 3, c.w.owner, LAY_COMMITTED));
	store_release(&slot_of(&c, base + 10)->ctrl,
		      LAY_CTRL(lay_lap(&c.f->geo, base + 10) - 1, c.w.owner, LAY_VOID));
	store_relaxed(&c.w.mem->tail_hint, base + 5);
	before = sub_stats(c.sub).lost;
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(m.lost, 1);
	CHECK_EQ(sub_stats(c.sub).lost, before + 1);
	check_next(&c, 21);
	tear_down(&c);
}

TEST(messages_whose_bytes_are_gone_are_one_gap)
{
	struct scene c = set_up(NULL, NULL);

	publish(&c, 10);
	for (uint64_t n = 2; n < 6; n++)
		set_state(&c, n, LAY_GONE);
	set_state(&c, 7, LAY_VOID);
	check_next(&c, 0);
	check_next(&c, 1);
	check_lost(&c, 4);
	check_next(&c, 6);
	check_next(&c, 8); /* over the hole: nothing was there to lose */
	CHECK_EQ(sub_stats(c.sub).lost, 4);
	tear_down(&c);
}

TEST(who_was_evicted_is_told_once_and_for_all)
{
	for (int gone = 0; gone < 2; gone++) {
		struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);
		struct shmq_msg m;
		uint64_t copy;

		publish(&c, 5);
		check_next(&c, 0);
		if (gone)
			for (uint64_t n = 1; n < 3; n++)
				set_state(&c, n, LAY_GONE);
		else
			publish(&c, 2 * FAKE_DEPTH);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER), SHMQ_EEVICTED);
		CHECK_GE(m.lost, gone ? 2 : FAKE_DEPTH);
		for (int n = 0; n < 3; n++) {
			CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER), SHMQ_EEVICTED);
			CHECK_ERROR(shmq_receive_copy(c.sub, &copy, 8, &m, SHMQ_NOWAIT),
				    SHMQ_EEVICTED);
		}
		CHECK_EQ(sub_stats(c.sub).received, 1);
		CHECK_EQ(peers_of(c.bus, STANDIN_TOPIC, SHMQ_ROLE_SUBSCRIBER).evicted, 1);
		tear_down(&c);
	}
}

TEST(all_partitions_are_read_in_turn_and_one_alone_if_that_was_asked)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 3 }, NULL);
	shmq_sub *one = open_sub(c.bus, STANDIN_TOPIC, .partition_plus1 = 2);
	struct shmq_msg m;
	char none[1];

	for (uint32_t p = 0; p < 3; p++) {
		struct ring_writer w = fake_writer(c.f, c.pub, p);

		w.limit = w.next + 10;
		for (uint64_t n = 0; n < 4; n++)
			fake_publish(&w, 10 * p + n);
	}
	for (uint64_t n = 0; n < 12; n++) {
		CHECK_ERROR(shmq_receive_copy(c.sub, none, sizeof(none), &m, SHMQ_NOWAIT),
			    SHMQ_EBUFFER); /* does not cost the turn */
		CHECK_OK(shmq_receive(c.sub, &m, SHMQ_NOWAIT));
		CHECK_EQ(m.partition, n % 3);
		CHECK_EQ(number(&m), n / 3 + 10 * (n % 3));
	}
	CHECK_EQ(sub_stats(c.sub).received, 12);
	for (uint64_t n = 0; n < 4; n++) {
		CHECK_EQ(sub_stats(one).lag, 4 - n);
		CHECK_OK(shmq_receive(one, &m, SHMQ_NOWAIT));
		CHECK_OK(shmq_release(one));
		CHECK_EQ(m.partition, 1);
		CHECK_EQ(number(&m), 10 + n);
	}
	CHECK_ERROR(shmq_receive(one, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_sub_close(one);
	tear_down(&c);
}

TEST(a_stream_ends_once_there_was_something_and_nobody_is_left)
{
	struct scene c = set_up(NULL, SUB_OPTIONS(.flags = SHMQ_SUB_END_WITH_PUBLISHERS));
	shmq_sub *late;
	struct shmq_msg m;
	shmq_pub *pub;

	check_none(&c); /* nobody was there yet */
	pub = open_pub(c.bus, STANDIN_TOPIC);
	check_none(&c);
	shmq_pub_close(pub);
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EENDED);
	publish(&c, 1);
	check_next(&c, 0); /* what is there is read first */
	CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER), SHMQ_EENDED);
	/* Who comes later saw no publisher, but sees that there was one. */
	late = open_sub(c.bus, STANDIN_TOPIC, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	CHECK_ERROR(shmq_receive(late, &m, SHMQ_NOWAIT), SHMQ_EENDED);
	shmq_sub_close(late);
	late = open_sub(c.bus, STANDIN_TOPIC);
	CHECK_ERROR(shmq_receive(late, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
	shmq_sub_close(late);
	tear_down(&c);
}

TEST(a_ring_that_ended_or_moved_is_read_to_its_end_whichever_way_one_waits)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_YIELD, SHMQ_WAIT_ADAPTIVE,
						SHMQ_WAIT_SLEEP };

	for (size_t i = 0; i < 2 * COUNT(modes); i++) {
		struct scene c = set_up(NULL, SUB_OPTIONS(.wait = modes[i / 2], .spin_ns = 1));
		struct shmq_msg m;

		publish(&c, 2);
		store_release(&c.w.mem->state, i % 2 ? LAY_RING_MOVED : LAY_RING_ENDED);
		check_next(&c, 0);
		check_next(&c, 1);
		for (int n = 0; n < 2; n++)
			CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER),
				    i % 2 ? SHMQ_EMOVED : SHMQ_EENDED);
		tear_down(&c);
	}
}

TEST(a_ring_that_is_about_to_end_or_move_is_not_at_its_end)
{
	static const uint32_t states[] = { LAY_RING_ENDING, LAY_RING_MOVING };

	for (size_t i = 0; i < COUNT(states); i++) {
		struct scene c = set_up(NULL, NULL);
		struct shmq_msg m;

		store_release(&c.w.mem->state, states[i]);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK(!shmq__sub_is_ready(c.sub));
		publish(&c, 1);
		CHECK(shmq__sub_is_ready(c.sub));
		check_next(&c, 0);
		tear_down(&c);
	}
}

TEST(an_open_claim_is_waited_for_reported_and_said_or_passed)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_LOSSY };

	for (size_t i = 0; i < COUNT(policies); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .policy = policies[i], .mode = SHMQ_SHARED },
			       SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
		struct proto_request req;
		struct shmq_msg m;
		uint64_t seq, word;

		CHECK_EQ(shmq__ring_claim(&c.w, &seq, &word), RING_CLAIM_OK);
		publish(&c, 1);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_NOWAIT), SHMQ_EEMPTY);
		CHECK_ERROR(shmq_receive(c.sub, &m, SHMQ_FOREVER),
			    policies[i] == SHMQ_BLOCK ? SHMQ_ESTALLED : SHMQ_EOVERRUN);
		req = standin_last(c.s, PROTO_REPORT);
		CHECK_EQ(req.report.kind, PROTO_REPORT_STUCK);
		CHECK_EQ(req.report.seq, seq);
		CHECK_EQ(req.report.word, load_relaxed(&slot_of(&c, seq)->ctrl));
		CHECK_EQ(req.report.topic_id, c.f->rec->id);
		fake_put(&c.w, seq, 0); /* it moves after all */
		if (policies[i] == SHMQ_BLOCK)
			check_next(&c, 0);
		check_next(&c, 1);
		CHECK_EQ(sub_stats(c.sub).lost, policies[i] != SHMQ_BLOCK);
		tear_down(&c);
	}
}
