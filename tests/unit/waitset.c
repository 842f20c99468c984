/* SPDX-License-Identifier: MIT
 *
 * Wait sets: who is ready, in which turn, how the set waits for those who
 * are not, and who may be in it.
 */
#include "../../libshmq/bus.h"
#include "futex.h"
#include "sub.h"
#include "helpers.h"
#include "memory.h"
#include "standin.h"

enum { MANY = 7 };

/* A set of subscribers, one for each partition, and a publisher. */
struct scene {
	struct standin *s;
	struct fake *f;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub[MANY];
	shmq_waitset *set;
	unsigned n;
};

static struct scene set_up(const struct fake_options *options, unsigned n,
			   struct shmq_sub_options *o)
{
	struct scene c = { .s = standin_new(options), .n = n };

	c.f = standin_fake(c.s);
	c.bus = standin_bus(c.s);
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	CHECK_OK(shmq_waitset_create(c.bus, &c.set));
	for (unsigned i = 0; i < n; i++) {
		o->partition_plus1 = (int32_t)i + 1;
		c.sub[i] = open_subscriber(c.bus, STANDIN_TOPIC, o);
		CHECK_OK(shmq_waitset_add(c.set, c.sub[i]));
	}
	return c;
}

static void tear_down(struct scene *c)
{
	shmq_waitset_destroy(c->set);
	for (unsigned i = 0; i < c->n; i++)
		shmq_sub_close(c->sub[i]);
	shmq_pub_close(c->pub);
	shmq_bus_close(c->bus);
	standin_free(c->s);
}

static void publish_to(struct scene *c, int32_t partition)
{
	struct shmq_msg m = { .data = "m", .len = 1, .partition = partition };

	CHECK_OK(shmq_publish_msg(c->pub, &m));
}

/* Which of the scene's subscribers that is. */
static unsigned index_of(const struct scene *c, const shmq_sub *sub)
{
	unsigned i;

	for (i = 0; i < c->n && c->sub[i] != sub; i++)
		;
	CHECK_LT(i, c->n);
	return i;
}

static int wait_now(struct scene *c, shmq_sub **ready, size_t n)
{
	return shmq_waitset_wait(c->set, ready, n, SHMQ_NOWAIT);
}

/* The set holds nothing but the one, and that is ready now. */
static void check_only(struct scene *c, const shmq_sub *sub)
{
	shmq_sub *ready[MANY];

	CHECK_EQ(wait_now(c, ready, MANY), 1);
	CHECK(ready[0] == sub);
}

static const struct fake_options seven = { .partitions = MANY };

/* ---- who may be in it ---------------------------------------------------- */

TEST(a_subscriber_is_in_one_set_of_its_bus_and_once)
{
	struct scene c = set_up(&seven, 2, SUB_OPTIONS());
	shmq_bus *other_bus = standin_bus(c.s);
	shmq_sub *stranger = open_sub(other_bus, STANDIN_TOPIC);
	shmq_waitset *second;

	CHECK_OK(shmq_waitset_create(c.bus, &second));
	CHECK_ERROR(shmq_waitset_add(c.set, c.sub[0]), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_add(second, c.sub[0]), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_add(c.set, stranger), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_remove(second, c.sub[0]), SHMQ_EOPTION);
	CHECK_ERROR(shmq_waitset_remove(c.set, stranger), SHMQ_EOPTION);
	CHECK_OK(shmq_waitset_remove(c.set, c.sub[0]));
	CHECK_ERROR(shmq_waitset_remove(c.set, c.sub[0]), SHMQ_EOPTION);
	CHECK_OK(shmq_waitset_add(second, c.sub[0]));
	shmq_waitset_destroy(second); /* lets it go */
	CHECK_OK(shmq_waitset_add(c.set, c.sub[0]));
	shmq_waitset_destroy(NULL);
	shmq_sub_close(stranger);
	shmq_bus_close(other_bus);
	tear_down(&c);
}

TEST(closing_takes_a_subscriber_out_and_a_set_outlives_its_bus)
{
	struct scene c = set_up(&seven, 3, SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
	shmq_sub *ready[MANY];

	for (int32_t p = 0; p < 3; p++)
		publish_to(&c, p);
	CHECK_EQ(wait_now(&c, ready, MANY), 3);
	shmq_sub_close(c.sub[1]);
	CHECK_EQ(wait_now(&c, ready, MANY), 2);
	CHECK(ready[0] != c.sub[1] && ready[1] != c.sub[1]);
	shmq_bus_close(c.bus); /* and with it the others */
	shmq_waitset_destroy(c.set);
	standin_free(c.s);
}

TEST(an_empty_set_has_nothing_and_no_room_is_no_option)
{
	struct scene c = set_up(&seven, 0, SUB_OPTIONS());
	shmq_sub *ready[1];

	CHECK_ERROR(wait_now(&c, ready, 1), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_waitset_wait(c.set, ready, 1, SHMQ_FOREVER), SHMQ_EEMPTY);
	CHECK_ERROR(wait_now(&c, ready, 0), SHMQ_EOPTION);
	tear_down(&c);
}

TEST(memory_that_is_short_is_said_and_the_set_is_as_it_was)
{
	struct scene c = set_up(&seven, 2, SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
	shmq_sub *more[40], *ready[1];
	shmq_waitset *other;
	unsigned k, refused = 0;
	int met = 1;

	scarce_begin(1);
	CHECK_ERROR(shmq_waitset_create(c.bus, &other), -ENOMEM);
	CHECK(scarce_end());
	CHECK(!other);
	for (size_t i = 0; i < COUNT(more); i++) {
		more[i] = open_sub(c.bus, STANDIN_TOPIC, .wait = SHMQ_WAIT_SLEEP);
		scarce_begin(1);
		if (shmq_waitset_add(c.set, more[i])) {
			refused++;
			CHECK_OK(shmq_waitset_add(c.set, more[i]));
		}
		scarce_end();
	}
	CHECK_GE(refused, 2); /* as often as it grew */
	for (k = 1; met; k++) {
		int rc;

		scarce_begin(k);
		rc = shmq_waitset_wait(c.set, ready, 1, 50 * MILLISECOND);
		met = scarce_end();
		/* Too many for one wait of the kernel's need threads, which may
		 * come up short too; else it waited. */
		CHECK(met ? rc == -ENOMEM || rc == SHMQ_ETIMEOUT : rc == SHMQ_ETIMEOUT);
	}
	CHECK_GE(k, 4);
	publish_to(&c, 0);
	CHECK_EQ(shmq_waitset_wait(c.set, ready, 1, PATIENCE), 1);
	for (size_t i = 0; i < COUNT(more); i++)
		shmq_sub_close(more[i]);
	tear_down(&c);
}

/* ---- who is ready, and when ------------------------------------------------ */

TEST(each_in_turn_is_first_and_nobody_is_left_out)
{
	for (size_t room = 1; room <= MANY; room++) {
		struct scene c = set_up(&seven, MANY, SUB_OPTIONS());
		unsigned seen[MANY] = { 0 }, last = MANY - 1;
		shmq_sub *ready[MANY];

		for (int32_t p = 0; p < MANY; p++)
			publish_to(&c, p);
		for (unsigned round = 0; round < MANY; round++) {
			CHECK_EQ(wait_now(&c, ready, room), room);
			for (size_t i = 0; i < room; i++) {
				unsigned k = index_of(&c, ready[i]);

				CHECK_EQ(k, (last + 1) % MANY);
				last = k;
				seen[k]++;
			}
		}
		for (unsigned i = 0; i < MANY; i++)
			CHECK_EQ(seen[i], room);
		tear_down(&c);
	}
}

TEST(who_leaves_does_not_cost_another_its_turn_for_good)
{
	struct scene c = set_up(&seven, MANY, SUB_OPTIONS());
	unsigned seen[MANY] = { 0 };
	shmq_sub *ready[1];

	for (int32_t p = 0; p < MANY; p++)
		publish_to(&c, p);
	for (unsigned n = 0; n < 6 * MANY; n++) {
		CHECK_EQ(wait_now(&c, ready, 1), 1);
		seen[index_of(&c, ready[0])]++;
		if (n % 5 == 4) { /* the last and the first of the set in turn */
			shmq_sub *moved = c.sub[n % 2 ? MANY - 1 : 0];

			CHECK_OK(shmq_waitset_remove(c.set, moved));
			CHECK_OK(shmq_waitset_add(c.set, moved));
		}
	}
	for (unsigned i = 0; i < MANY; i++)
		CHECK_GE(seen[i], 3);
	tear_down(&c);
}

TEST(what_was_handed_out_counts_as_read)
{
	struct scene c = set_up(&seven, 1, SUB_OPTIONS());
	shmq_sub *ready[1];
	struct shmq_msg m;

	publish_to(&c, 0);
	publish_to(&c, 0);
	check_only(&c, c.sub[0]);
	CHECK_OK(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT));
	check_only(&c, c.sub[0]);
	CHECK_OK(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT));
	CHECK_ERROR(wait_now(&c, ready, 1), SHMQ_EEMPTY);
	CHECK_OK(shmq_release(c.sub[0]));
	CHECK_ERROR(wait_now(&c, ready, 1), SHMQ_EEMPTY);
	CHECK_ERROR(shmq_waitset_wait(c.set, ready, 1, MILLISECOND), SHMQ_ETIMEOUT);
	tear_down(&c);
}

static void set_state(struct scene *c, uint64_t seq, enum lay_state state)
{
	struct lay_ring *ring = c->f->topic->ring[0].mem;

	store_release(fake_ctrl(ring, &c->f->geo, seq),
		      LAY_CTRL(lay_lap(&c->f->geo, seq), 1, state));
}

static int never(void *arg, const struct shmq_msg *m)
{
	return 0;
}

TEST(a_gap_a_hole_a_claim_and_what_poll_held_back_are_told_apart)
{
	struct scene c = set_up(&seven, 1, SUB_OPTIONS());
	shmq_sub *ready[1];
	struct shmq_msg m;

	for (int i = 0; i < 4; i++)
		publish_to(&c, 0);
	set_state(&c, 0, LAY_VOID);
	set_state(&c, 1, LAY_VOID);
	check_only(&c, c.sub[0]); /* behind the holes */
	set_state(&c, 2, LAY_GONE);
	check_only(&c, c.sub[0]); /* a gap is something to say */
	set_state(&c, 2, LAY_CLAIMED);
	CHECK_ERROR(wait_now(&c, ready, 1), SHMQ_EEMPTY);
	set_state(&c, 2, LAY_COMMITTED);
	set_state(&c, 3, LAY_GONE);
	CHECK_EQ(shmq_poll(c.sub[0], never, NULL, 9, SHMQ_NOWAIT), 1);
	check_only(&c, c.sub[0]); /* poll has more to say */
	CHECK_ERROR(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_ERROR(wait_now(&c, ready, 1), SHMQ_EEMPTY);
	tear_down(&c);
}

TEST(who_was_overrun_or_evicted_is_ready)
{
	static const enum shmq_policy policies[] = { SHMQ_LOSSY, SHMQ_EVICT };

	for (size_t i = 0; i < COUNT(policies); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .policy = policies[i] }, 1, SUB_OPTIONS());
		struct shmq_msg m;

		shmq_pub_close(c.pub);
		c.f->rec->evict_ns = 1;
		c.pub = open_pub(c.bus, STANDIN_TOPIC);
		for (unsigned n = 0; n < 2 * FAKE_DEPTH; n++)
			publish_to(&c, 0);
		check_only(&c, c.sub[0]);
		if (policies[i] == SHMQ_EVICT) {
			CHECK_ERROR(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT), SHMQ_EEVICTED);
			check_only(&c, c.sub[0]); /* for good */
		}
		tear_down(&c);
	}
}

TEST(a_copied_batch_keeps_its_subscriber_ready_after_the_ring_was_overrun)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_LOSSY }, 1, SUB_OPTIONS());
	struct shmq_msg batch[3] = { { .data = "b", .len = 1 },
				     { .data = "b", .len = 1 },
				     { .data = "b", .len = 1 } };
	struct shmq_msg m;
	int n;

	CHECK_EQ(shmq_publish_batch(c.pub, batch, 3, SHMQ_ATOMIC), 3);
	CHECK_OK(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT));
	for (n = 1; n < 3; n++) {
		check_only(&c, c.sub[0]);
		set_state(&c, (uint64_t)n, LAY_AHEAD); /* nothing is there any more */
		check_only(&c, c.sub[0]);
		CHECK_OK(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT));
		CHECK_EQ(m.seq, n);
	}
	tear_down(&c);
}

TEST(an_end_is_something_to_receive)
{
	struct scene c = set_up(&seven, 1, SUB_OPTIONS(.flags = SHMQ_SUB_END_WITH_PUBLISHERS));
	shmq_sub *other = open_sub(c.bus, STANDIN_TOPIC, .partition_plus1 = 2), *ready[2];
	struct shmq_msg m;

	CHECK_OK(shmq_waitset_add(c.set, other));
	CHECK_ERROR(wait_now(&c, ready, 2), SHMQ_EEMPTY);
	shmq_pub_close(c.pub);
	check_only(&c, c.sub[0]); /* the other does not ask who is there */
	CHECK_ERROR(shmq_receive(c.sub[0], &m, SHMQ_NOWAIT), SHMQ_EENDED);
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	CHECK_ERROR(wait_now(&c, ready, 2), SHMQ_EEMPTY);
	shmq__topic_end(c.f->topic);
	CHECK_EQ(wait_now(&c, ready, 2), 2);
	shmq_sub_close(other);
	tear_down(&c);
}

/* Who comes when nobody is there, nor ever was: no end. */
TEST(a_stream_that_has_not_begun_has_not_ended)
{
	struct scene c = set_up(&seven, 0, SUB_OPTIONS());
	shmq_sub *sub, *ready[1];

	shmq_pub_close(c.pub);
	sub = open_sub(c.bus, STANDIN_TOPIC, .flags = SHMQ_SUB_END_WITH_PUBLISHERS);
	CHECK_OK(shmq_waitset_add(c.set, sub));
	CHECK_ERROR(wait_now(&c, ready, 1), SHMQ_EEMPTY);
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	publish_to(&c, 3);
	shmq_pub_close(c.pub);
	c.pub = NULL;
	check_only(&c, sub);
	shmq_sub_close(sub);
	tear_down(&c);
}

/* ---- how it waits -------------------------------------------------------------- */

static uint64_t armed(const struct scene *c, uint32_t p)
{
	return load_relaxed(&c->f->topic->ring[p].bells->data.armed);
}

/* Wait in vain, for as long as who must sleep needs to get to it: a wait whose
 * time is over before that does not sleep. */
static void wait_in_vain(struct scene *c, int sleeps)
{
	shmq_sub *ready[1];

	do
		CHECK_ERROR(shmq_waitset_wait(c->set, ready, 1, 2 * MILLISECOND), SHMQ_ETIMEOUT);
	while (sleeps && !armed(c, 0));
}

TEST(a_set_sleeps_unless_one_of_its_subscribers_must_not)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_YIELD, SHMQ_WAIT_ADAPTIVE,
						SHMQ_WAIT_SLEEP };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct scene c = set_up(&seven, 2, SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
		shmq_sub *last = open_sub(c.bus, STANDIN_TOPIC, .wait = modes[i], .spin_ns = 1,
					  .partition_plus1 = 3);
		int sleeps = modes[i] == SHMQ_WAIT_ADAPTIVE || modes[i] == SHMQ_WAIT_SLEEP;

		CHECK_OK(shmq_waitset_add(c.set, last));
		wait_in_vain(&c, sleeps);
		for (uint32_t p = 0; p < 3; p++)
			CHECK_EQ(armed(&c, p) > 0, sleeps);
		CHECK_EQ(armed(&c, 3), 0);
		CHECK_EQ(sub_stats(last).sleeps > 0, sleeps);
		CHECK_EQ(topic_info(c.bus, STANDIN_TOPIC).sleepers, 0); /* not any more */
		shmq_sub_close(last);
		tear_down(&c);
	}
}

/* The one that spins longest decides: here, longer than the set waits. */
TEST(a_set_that_waits_adaptively_spins_as_long_as_the_most_patient)
{
	struct scene c = set_up(&seven, 3, SUB_OPTIONS(.spin_ns = 1));
	shmq_sub *patient = open_sub(c.bus, STANDIN_TOPIC, .spin_ns = PATIENCE);

	CHECK_OK(shmq_waitset_add(c.set, patient));
	wait_in_vain(&c, 0);
	CHECK_EQ(armed(&c, 0), 0);
	shmq_sub_close(patient);
	wait_in_vain(&c, 1);
	tear_down(&c);
}

TEST(a_claim_that_lasts_is_reported_and_ready_once_it_is_to_be_said)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SPIN, SHMQ_WAIT_SLEEP };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .partitions = MANY, .mode = SHMQ_SHARED }, 2,
			       SUB_OPTIONS(.wait = modes[i]));
		struct proto_request req;
		shmq_sub *ready[1];
		struct shmq_msg m;

		set_state(&c, 0, LAY_CLAIMED);
		CHECK_EQ(shmq_waitset_wait(c.set, ready, 1, SHMQ_FOREVER), 1);
		CHECK(ready[0] == c.sub[0]);
		CHECK_ERROR(shmq_receive(ready[0], &m, SHMQ_NOWAIT), SHMQ_ESTALLED);
		req = standin_last(c.s, PROTO_REPORT);
		CHECK_EQ(req.report.kind, PROTO_REPORT_STUCK);
		CHECK_EQ(req.report.seq, 0);
		CHECK_EQ(req.report.partition, 0);
		tear_down(&c);
	}
}

struct echo {
	struct scene *c;
	shmq_sub *back;
	unsigned rounds;
};

/* Publish to each in turn, once the last was answered. */
static void *call(void *arg)
{
	struct echo *e = arg;

	for (unsigned n = 0; n < e->rounds; n++) {
		struct shmq_msg m;

		publish_to(e->c, (int32_t)(n % e->c->n));
		CHECK_OK(shmq_receive(e->back, &m, PATIENCE));
		CHECK_OK(shmq_release(e->back));
	}
	return NULL;
}

TEST(a_set_that_waits_is_woken_by_any_of_its_rings)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SLEEP, SHMQ_WAIT_ADAPTIVE,
						SHMQ_WAIT_YIELD };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .partitions = MANY, .mode = SHMQ_SHARED },
			       MANY - 1, SUB_OPTIONS(.wait = modes[i]));
		struct echo e = { .c = &c, .rounds = 600 };
		shmq_pub *answers = open_pub(c.bus, STANDIN_TOPIC);
		pthread_t thread;

		e.back = open_sub(c.bus, STANDIN_TOPIC, .partition_plus1 = MANY, .wait = modes[i]);
		thread = fake_thread(call, &e);
		for (unsigned n = 0; n < e.rounds; n++) {
			struct shmq_msg m = { .partition = MANY - 1 }, got;
			shmq_sub *ready[MANY];

			CHECK_EQ(shmq_waitset_wait(c.set, ready, MANY, PATIENCE), 1);
			CHECK_EQ(index_of(&c, ready[0]), n % c.n);
			CHECK_OK(shmq_receive(ready[0], &got, SHMQ_NOWAIT));
			CHECK_OK(shmq_release(ready[0]));
			CHECK_OK(shmq_publish_msg(answers, &m));
		}
		fake_join(thread);
		shmq_sub_close(e.back);
		shmq_pub_close(answers);
		tear_down(&c);
	}
}

/* ---- a word besides ----------------------------------------------------------------- */

static shmq_au32 word;

static void *change(void *arg)
{
	const unsigned long *sleeps = arg;

	while (test_sleeps_of_main() == *sleeps)
		test_sleep_ms(1);
	add_release(&word, 1);
	shmq__futex_wake(&word);
	return NULL;
}

TEST(a_set_that_waits_comes_back_when_the_word_it_watches_is_changed)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = MANY, .mode = SHMQ_SHARED },
				MANY, SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
	unsigned long sleeps = test_sleeps_of_main();
	uint32_t seen = load_relaxed(&word);
	shmq_sub *ready[MANY];
	pthread_t thread;

	shmq__waitset_watch(c.set, &word, seen);
	thread = fake_thread(change, &sleeps);
	CHECK_ERROR(shmq_waitset_wait(c.set, ready, MANY, SHMQ_FOREVER), SHMQ_ETIMEOUT);
	CHECK_EQ(load_relaxed(&word), seen + 1);
	fake_join(thread);
	/* It changed before: at once; but who is ready goes first. */
	CHECK_ERROR(shmq_waitset_wait(c.set, ready, MANY, SHMQ_FOREVER), SHMQ_ETIMEOUT);
	publish_to(&c, 3);
	CHECK_EQ(shmq_waitset_wait(c.set, ready, MANY, SHMQ_FOREVER), 1);
	tear_down(&c);
}

/* ---- a forked child ---------------------------------------------------------------- */

static int refuses(void *arg)
{
	struct scene *c = arg;
	shmq_waitset *set;
	shmq_sub *ready[1];

	CHECK_ERROR(shmq_waitset_create(c->bus, &set), SHMQ_EFORKED);
	CHECK(!set);
	CHECK_ERROR(shmq_waitset_add(c->set, c->sub[0]), SHMQ_EFORKED);
	CHECK_ERROR(shmq_waitset_wait(c->set, ready, 1, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_waitset_remove(c->set, c->sub[0]), SHMQ_EFORKED);
	shmq_waitset_destroy(c->set);
	for (unsigned i = 0; i < c->n; i++)
		shmq_sub_close(c->sub[i]);
	shmq_pub_close(c->pub);
	shmq_bus_close(c->bus);
	return 0;
}

TEST(a_child_waits_for_nobody)
{
	struct scene c = set_up(&seven, 3, SUB_OPTIONS(.wait = SHMQ_WAIT_SLEEP));
	shmq_sub *ready[1];

	CHECK_ERROR(shmq_waitset_wait(c.set, ready, 1, 1), SHMQ_ETIMEOUT);
	CHECK_EQ(test_join(test_spawn(refuses, &c)), 0);
	publish_to(&c, 1);
	CHECK_EQ(shmq_waitset_wait(c.set, ready, 1, PATIENCE), 1);
	CHECK(ready[0] == c.sub[1]);
	tear_down(&c);
}
