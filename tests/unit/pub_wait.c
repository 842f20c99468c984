/* SPDX-License-Identifier: MIT
 *
 * A publisher without room: whom it waits for, how long, and what ends it.
 */
#include "attachment.h"
#include "publisher.h"

TEST(block_times_out_by_the_topic_s_patience_or_the_publisher_s_own)
{
	for (int own = 0; own < 2; own++) {
		struct scene c = set_up(NULL, NULL);
		struct shmq_msg m = { .data = "m", .len = 1 };

		shmq_pub_close(c.pub);
		c.f->rec->block_timeout_ns = own ? SHMQ_FOREVER : 1;
		c.pub = open_pub(c.bus, STANDIN_TOPIC, .block_timeout_ns = own);
		CHECK_EQ(publish_all(c.pub, SHMQ_ETIMEOUT), FAKE_DEPTH);
		CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_ETIMEOUT);
		CHECK_EQ(pub_stats(c.pub).blocked, 2);
		CHECK_EQ(pub_stats(c.pub).dropped, 2);
		tear_down(&c);
	}
}

static void *read_on(void *arg)
{
	struct scene *c = arg;
	struct lay_bell *bell = &c->f->topic->ring[0].bells->credit;
	unsigned turns = 0;

	while (!load_acquire(&bell->armed)) /* it sleeps, or is about to */
		fake_wait(&turns);
	store_release(c->cursor, load_relaxed(c->cursor) + 1);
	bell_look(bell, SHMQ__FENCE_FULL);
	return NULL;
}

TEST(a_publisher_that_sleeps_for_credit_goes_on_when_the_cursor_moves)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SLEEP, SHMQ_WAIT_ADAPTIVE };

	for (size_t i = 0; i < 2 * COUNT(modes); i++) {
		struct scene c = set_up(&(struct fake_options){ .mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					PUB_OPTIONS(.wait = modes[i / 2]));
		pthread_t thread;

		for (uint64_t n = 0; n < FAKE_DEPTH; n++)
			publish_seq(c.pub);
		thread = fake_thread(read_on, &c);
		CHECK_EQ(publish_seq(c.pub), FAKE_DEPTH);
		CHECK_EQ(pub_stats(c.pub).blocked, 1);
		fake_join(thread);
		tear_down(&c);
	}
}

TEST(whoever_publishers_are_told_to_evict_is_named_to_the_supervisor_once)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);
	struct lay_member *second = fake_subscriber(c.f, c.sub->client, SHMQ_FROM_LATEST, 0);
	struct proto_request req;

	/* The standin knows neither: the publisher must know by itself. */
	store_release(&fake_entry(c.f, second, 0)->pos, 5);
	shmq_pub_close(c.pub);
	c.f->rec->evict_ns = 1;
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	for (uint64_t n = 0; n < FAKE_DEPTH + 5; n++)
		CHECK_EQ(publish_seq(c.pub), n);
	CHECK_EQ(standin_count(c.s, PROTO_REPORT), 1);
	req = standin_last(c.s, PROTO_REPORT);
	CHECK_EQ(req.report.kind, PROTO_REPORT_EVICT);
	CHECK_EQ(req.report.topic_id, c.f->rec->id);
	CHECK_EQ(req.report.handle, c.sub->token);
	CHECK_EQ(req.report.client, c.sub->client);
	CHECK_EQ(req.report.client_gen, c.sub->client_gen);
	CHECK_STR(req.topic, STANDIN_TOPIC);
	for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++)
		publish_seq(c.pub);
	CHECK_EQ(standin_count(c.s, PROTO_REPORT), 2);
	CHECK_EQ(standin_last(c.s, PROTO_REPORT).report.handle, second->token);
	CHECK_EQ(pub_stats(c.pub).dropped, 0);
	tear_down(&c);
}

TEST(evicting_needs_no_supervisor)
{
	for (int away = 0; away < 2; away++) {
		struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);

		shmq_pub_close(c.pub);
		c.f->rec->evict_ns = 1;
		c.pub = open_pub(c.bus, STANDIN_TOPIC, .wait = SHMQ_WAIT_SPIN);
		if (away)
			standin_leave(c.s);
		else
			standin_change_answers(c.s, PROTO_REPORT, say_nothing, NULL);
		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++)
			CHECK_EQ(publish_seq(c.pub), n);
		tear_down(&c);
	}
}

static int just_ends(void *arg)
{
	return 0;
}

/* A client whose process has ended, but whom nobody has recovered. */
static unsigned dead_client(struct fake *f)
{
	struct lay_client *rec;
	unsigned id = fake_client(f, getpid());
	pid_t pid = test_spawn(just_ends, NULL);

	CHECK_EQ(test_join(pid), 0);
	rec = fake_client_record(f, id);
	store_relaxed(&rec->pid, (uint32_t)pid);
	return id;
}

TEST(a_dead_subscriber_holds_nobody_up_for_ever_while_the_supervisor_is_away)
{
	struct scene c = set_up(NULL, NULL);

	store_release(c.cursor, UINT64_C(1) << 30);
	fake_subscriber(c.f, dead_client(c.f), SHMQ_FROM_LATEST, 0);
	standin_leave(c.s);
	for (uint64_t n = 0; n < FAKE_DEPTH; n++)
		publish_seq(c.pub);
	store_release(c.cursor, FAKE_DEPTH);
	CHECK_EQ(publish_seq(c.pub), FAKE_DEPTH);
	CHECK_EQ(pub_stats(c.pub).blocked, 1);
	tear_down(&c);
}

/* All of a lap but the first message, which stands claimed by that client. */
static uint64_t fill_behind_a_claim(struct scene *c, unsigned client)
{
	struct lay_member *m = fake_publisher(c->f, client);
	struct ring_writer w = fake_writer(c->f, m, 0);
	uint64_t seq, word;

	w.limit = w.next + FAKE_DEPTH;
	CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
	store_release(c->cursor, seq + 1); /* as if it had gone past it */
	for (unsigned n = 1; n < FAKE_DEPTH; n++)
		publish_seq(c->pub);
	store_release(c->cursor, seq + FAKE_DEPTH);
	return seq;
}

TEST(a_claim_a_lap_ago_is_not_waited_for_by_who_must_not_wait)
{
	struct scene c = set_up(&shared, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	struct shmq_msg batch[4] = { { .data = "b", .len = 1 } };
	uint64_t seq = fill_behind_a_claim(&c, fake_client(c.f, getpid()));

	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ESTALLED);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_ESTALLED);
	CHECK_EQ(pub_stats(c.pub).dropped, 0);
	CHECK_EQ(head(&c), seq + FAKE_DEPTH);
	tear_down(&c);
}

TEST(a_claim_a_lap_ago_is_waited_for_as_long_as_a_full_ring)
{
	struct scene c = set_up(&shared, PUB_OPTIONS(.block_timeout_ns = MILLISECOND));
	struct shmq_msg batch[4] = { { .data = "b", .len = 1 } };

	fill_behind_a_claim(&c, fake_client(c.f, getpid()));
	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ETIMEOUT);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_ETIMEOUT);
	CHECK_EQ(pub_stats(c.pub).dropped, 2);
	tear_down(&c);
}

TEST(a_claim_a_lap_ago_that_lasts_is_reported_and_said_where_the_topic_says_so)
{
	struct scene c = set_up(&shared, NULL);
	uint64_t seq = fill_behind_a_claim(&c, fake_client(c.f, getpid()));
	struct proto_request req;

	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ESTALLED);
	CHECK_GE(standin_count(c.s, PROTO_REPORT), 1);
	req = standin_last(c.s, PROTO_REPORT);
	CHECK_EQ(req.report.kind, PROTO_REPORT_STUCK);
	CHECK_EQ(req.report.topic_id, c.f->rec->id);
	CHECK_EQ(req.report.partition, 0);
	CHECK_EQ(req.report.seq, seq);
	CHECK_EQ(req.report.word, word_of(&c, seq));
	tear_down(&c);
}

TEST(a_claim_a_lap_ago_of_a_dead_client_is_recovered_here)
{
	for (int batch = 0; batch < 2; batch++) {
		struct scene c = set_up(&shared, NULL);
		struct shmq_msg m[4] = { { .data = "b", .len = 1 } };
		uint64_t seq;

		for (int n = 0; n < 7; n++)
			publish_seq(c.pub);
		seq = fill_behind_a_claim(&c, dead_client(c.f));
		standin_leave(c.s);
		if (batch) {
			CHECK_EQ(shmq_publish_batch(c.pub, m, 4, SHMQ_ATOMIC), 4);
			CHECK_EQ(m[0].seq, seq + FAKE_DEPTH);
		} else {
			CHECK_EQ(publish_seq(c.pub), seq + FAKE_DEPTH);
		}
		CHECK_EQ(load_relaxed(&ring(&c, 0)->voids[0]), seq + 1);
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		tear_down(&c);
	}
}

struct end {
	struct scene *c;
	uint32_t state;
	pid_t tid;
};

static void *end_it(void *arg)
{
	struct end *e = arg;
	unsigned turns = 0;

	/* Credit is waited for asleep, a claim by looking. */
	while (e->tid && !load_acquire(&e->c->f->topic->ring[0].bells->credit.armed))
		fake_wait(&turns);
	fake_dawdle(100000);
	store_release(&ring(e->c, 0)->state, e->state);
	shmq__topic_ring_all(e->c->f->topic);
	return NULL;
}

TEST(the_end_of_the_ring_ends_every_wait)
{
	static const struct {
		uint32_t state;
		int error;
	} ends[] = { { LAY_RING_ENDED, SHMQ_EENDED },
		     { LAY_RING_MOVED, SHMQ_EMOVED },
		     { LAY_RING_ENDING, SHMQ_EENDED },
		     { LAY_RING_MOVING, SHMQ_EMOVED } };

	for (size_t i = 0; i < 3 * COUNT(ends); i++) {
		struct scene c = set_up(&shared, NULL);
		struct end e = { .c = &c, .state = ends[i / 3].state, .tid = i % 3 != 0 };
		struct shmq_msg batch[4] = { { .data = "b", .len = 1 } };
		pthread_t thread;

		if (i % 3)
			for (unsigned n = 0; n < FAKE_DEPTH; n++)
				publish_seq(c.pub);
		else
			fill_behind_a_claim(&c, fake_client(c.f, getpid()));
		thread = fake_thread(end_it, &e);
		CHECK_ERROR(i % 3 == 2 ? shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC) :
					 shmq_publish(c.pub, "x", 1),
			    ends[i / 3].error);
		fake_join(thread);
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		tear_down(&c);
	}
}

TEST(on_a_topic_where_nobody_may_sleep_a_publisher_waits_by_spinning)
{
	static const enum shmq_wait modes[] = { 0, SHMQ_WAIT_ADAPTIVE, SHMQ_WAIT_SLEEP,
						SHMQ_WAIT_YIELD };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .flags = SHMQ_TOPIC_SPIN_ONLY },
			       PUB_OPTIONS(.block_timeout_ns = 2 * MILLISECOND, .wait = modes[i]));

		CHECK_EQ(publish_all(c.pub, SHMQ_ETIMEOUT), FAKE_DEPTH);
		CHECK_EQ(load_relaxed(&c.f->topic->ring[0].bells->credit.armed), 0);
		tear_down(&c);
	}
}
