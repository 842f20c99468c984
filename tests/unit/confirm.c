/* SPDX-License-Identifier: MIT
 *
 * What publishers are told of a log; the test plays its tailer.
 */
#include "futex.h"
#include "publisher.h"

#include <poll.h>
#include <unistd.h>

static struct scene set_up_with_log(uint64_t base, enum shmq_log log)
{
	struct fake_options options = { .base_seq = base, .policy = SHMQ_LOSSY };
	struct scene c = set_up(&options, NULL);

	shmq_pub_close(c.pub);
	c.f->rec->log = (uint8_t)log;
	store_relaxed(&c.f->partition[0].log_written, base);
	store_relaxed(&c.f->partition[0].log_synced, base);
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	return c;
}

static void raise_marks(struct scene *c, uint64_t written, uint64_t synced)
{
	struct lay_partition *part = &c->f->partition[0];

	store_release(&part->log_written, written);
	store_release(&part->log_synced, synced);
	atomic_fetch_add(&part->log_word, 1);
	shmq__futex_wake(&part->log_word);
}

TEST(nothing_is_confirmed_where_there_is_no_log_no_partition_or_no_such_level)
{
	struct scene c = set_up_with_log(0, SHMQ_LOG_NONE);
	uint64_t seq = 77;

	CHECK_ERROR(shmq_pub_confirmed(c.pub, 0, SHMQ_WRITTEN, &seq), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_wait_confirm(c.pub, 0, 0, SHMQ_WRITTEN, SHMQ_FOREVER), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_confirm_fd(c.pub), SHMQ_EOPTION);
	tear_down(&c);
	c = set_up_with_log(0, SHMQ_LOG_GAP);
	CHECK_ERROR(shmq_pub_confirmed(c.pub, 1, SHMQ_WRITTEN, &seq), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_confirmed(c.pub, 0, (enum shmq_confirm)0, &seq), SHMQ_EOPTION);
	CHECK_ERROR(shmq_pub_confirmed(c.pub, 0, (enum shmq_confirm)3, &seq), SHMQ_EOPTION);
	CHECK_EQ(seq, 77);
	tear_down(&c);
}

TEST(each_level_says_how_far_it_is_and_waits_for_no_more_than_that)
{
	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c = set_up_with_log(bases[i], SHMQ_LOG_GAP);
		uint64_t b = bases[i], written, synced;

		raise_marks(&c, b + 3, b + 1);
		CHECK_OK(shmq_pub_confirmed(c.pub, 0, SHMQ_WRITTEN, &written));
		CHECK_OK(shmq_pub_confirmed(c.pub, 0, SHMQ_SYNCED, &synced));
		CHECK_EQ(written, b + 3);
		CHECK_EQ(synced, b + 1);
		CHECK_OK(shmq_pub_wait_confirm(c.pub, 0, b + 2, SHMQ_WRITTEN, SHMQ_NOWAIT));
		CHECK_ERROR(shmq_pub_wait_confirm(c.pub, 0, b + 3, SHMQ_WRITTEN, SHMQ_NOWAIT),
			    SHMQ_EEMPTY);
		CHECK_OK(shmq_pub_wait_confirm(c.pub, 0, b, SHMQ_SYNCED, SHMQ_NOWAIT));
		CHECK_ERROR(shmq_pub_wait_confirm(c.pub, 0, b + 1, SHMQ_SYNCED, 1000),
			    SHMQ_ETIMEOUT);
		tear_down(&c);
	}
}

static void *write_one(void *arg)
{
	raise_marks(arg, 1, 0);
	return NULL;
}

TEST(who_waits_and_who_polls_is_told_when_the_log_has_come_further)
{
	struct scene c = set_up_with_log(0, SHMQ_LOG_GAP);
	struct pollfd p = { .events = POLLIN };
	pthread_t thread;
	uint64_t n;

	p.fd = shmq_pub_confirm_fd(c.pub);
	CHECK_GE(p.fd, 0);
	CHECK_EQ(shmq_pub_confirm_fd(c.pub), p.fd);
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_EQ(pthread_create(&thread, NULL, write_one, &c), 0);
	CHECK_OK(shmq_pub_wait_confirm(c.pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	CHECK_EQ(poll(&p, 1, (int)(PATIENCE / MILLISECOND)), 1);
	CHECK_EQ(read(p.fd, &n, sizeof(n)), sizeof(n));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_ERROR(shmq_pub_wait_confirm(c.pub, 0, 0, SHMQ_SYNCED, SHMQ_NOWAIT), SHMQ_EEMPTY);
	tear_down(&c);
}

struct late {
	struct scene *c;
	unsigned long sleeps;
};

/* The tailer had no processor, or its disk was slow: who waits has looked in vain. */
static void *write_late(void *arg)
{
	struct late *l = arg;

	while (test_sleeps_of_main() < l->sleeps + 4)
		test_sleep_ms(1);
	raise_marks(l->c, 1, 0);
	return NULL;
}

TEST(a_tailer_that_is_slow_confirms_what_an_ended_topic_had)
{
	struct scene c = set_up_with_log(0, SHMQ_LOG_GAP);
	struct late late = { &c, test_sleeps_of_main() };
	pthread_t thread;

	store_release(&c.f->rec->state, LAY_TOPIC_ENDED);
	CHECK_EQ(pthread_create(&thread, NULL, write_late, &late), 0);
	CHECK_OK(shmq_pub_wait_confirm(c.pub, 0, 0, SHMQ_WRITTEN, PATIENCE));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	tear_down(&c);
}

TEST(of_a_topic_that_ended_no_more_is_waited_for)
{
	struct scene c = set_up_with_log(0, SHMQ_LOG_GAP);

	store_release(&c.f->rec->state, LAY_TOPIC_ENDED);
	CHECK_ERROR(shmq_pub_wait_confirm(c.pub, 0, 0, SHMQ_WRITTEN, PATIENCE), SHMQ_EENDED);
	tear_down(&c);
}
