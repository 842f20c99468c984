/* SPDX-License-Identifier: MIT
 *
 * A subscriber's stored cursor, on a bus without supervisor and a log written by
 * hand.
 */
#include "subscriber.h"
#include "logdir.h"

static char path[PATH_MAX];

/* Its log: `messages`, and if it has a gap that and one more. */
static void write_log(struct fake *f, struct logdir *log, uint64_t messages, uint64_t gap)
{
	struct logpart part;
	uint64_t i;

	snprintf(f->registry->data_dir, sizeof(f->registry->data_dir), "%s", test_tmpdir());
	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), STANDIN_TOPIC);
	logdir_open(log, path, STANDIN_TOPIC, 1, 0);
	logpart_open(&part, log, 0, f->base_seq);
	for (i = 0; i < messages + gap; i++) {
		if (gap && i == messages) {
			logpart_skip(&part, LOG_GAP, gap);
			i += gap;
		}
		logpart_message(&part, &(struct shmq_msg){ .data = (char *)&i, .len = sizeof(i) });
	}
	store_release(&f->partition->log_written, part.seq);
	logpart_close(&part);
}

/* A lossy topic with a log, and the same in its ring, gap or not. */
static struct scene durable(struct logdir *log, uint64_t messages, uint64_t gap)
{
	struct scene c = { .s = standin_new(&lossy) };

	c.f = standin_fake(c.s);
	c.f->rec->log = SHMQ_LOG_GAP;
	c.bus = standin_bus(c.s);
	c.pub = fake_publisher(c.f, fake_client(c.f, getpid()));
	c.w = fake_writer(c.f, c.pub, 0);
	c.w.limit = c.w.next + (UINT64_C(1) << 62);
	write_log(c.f, log, messages, gap);
	publish(&c, messages + (gap ? gap + 1 : 0));
	return c;
}

static void close_durable(struct scene *c, struct logdir *log)
{
	logdir_close(log);
	tear_down(c);
}

#define open_at_cursor(c) \
	open_sub((c)->bus, STANDIN_TOPIC, .from = SHMQ_FROM_CURSOR, .cursor = "mine")

static void receives(shmq_sub *sub, uint64_t from, uint64_t to)
{
	struct shmq_msg m;

	for (; from < to; from++) {
		CHECK_OK(shmq_receive(sub, &m, SHMQ_NOWAIT));
		CHECK_EQ(number(&m), from);
	}
}

static int set(void *arg, const struct shmq_cursor_info *info)
{
	CHECK_EQ(info->error, 0);
	*(uint64_t *)arg = info->seq;
	return 0;
}

static void is_at(uint64_t seq)
{
	uint64_t found = UINT64_MAX;

	CHECK_OK(shmq_cursor_each(path, set, &found));
	CHECK_EQ(found, seq);
}

TEST(what_was_given_back_is_stored_and_the_next_one_goes_on_behind_it)
{
	struct logdir log;
	struct scene c = durable(&log, 100, 0);
	shmq_sub *sub = open_at_cursor(&c);

	is_at(0);
	receives(sub, 0, 10);
	CHECK_OK(shmq_sub_store_cursor(sub));
	is_at(9); /* that one is in hand */
	CHECK_OK(shmq_release(sub));
	is_at(9);
	CHECK_OK(shmq_sub_store_cursor(sub));
	is_at(10);
	receives(sub, 10, 20); /* not stored */
	shmq_sub_close(sub);
	sub = open_at_cursor(&c);
	receives(sub, 10, 100);
	CHECK_OK(shmq_release(sub));
	CHECK_OK(shmq_sub_store_cursor(sub));
	is_at(100);
	shmq_sub_close(sub);
	close_durable(&c, &log);
}

TEST(a_loss_that_was_not_told_is_not_stored_as_read)
{
	struct logdir log;
	struct scene c = durable(&log, 10, 5);
	struct seen seen = { .c = &c };
	shmq_sub *sub = open_at_cursor(&c);
	struct shmq_msg m;

	CHECK_EQ(shmq_poll(sub, see, &seen, 60, SHMQ_NOWAIT), 10);
	CHECK_OK(shmq_sub_store_cursor(sub));
	is_at(0); /* that loss was found, and is told by the next call */
	CHECK_ERROR(shmq_receive(sub, &m, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(m.lost, 5);
	CHECK_OK(shmq_sub_store_cursor(sub));
	is_at(15);
	receives(sub, 15, 16);
	shmq_sub_close(sub);
	close_durable(&c, &log);
}

TEST(a_cursor_is_held_by_one_subscriber)
{
	struct logdir log;
	struct scene c = durable(&log, 1, 0);
	shmq_sub *sub = open_at_cursor(&c), *second;

	CHECK_ERROR(shmq_sub_open(c.bus, STANDIN_TOPIC, SUB_OPTIONS(.cursor = "mine"), &second),
		    SHMQ_EINUSE);
	check_says("\"mine\"");
	second = open_sub(c.bus, STANDIN_TOPIC, .cursor = "yours");
	shmq_sub_close(second);
	shmq_sub_close(sub);
	sub = open_sub(c.bus, STANDIN_TOPIC, .cursor = "mine");
	is_at(0); /* where it was: from the next on nothing was given back */
	shmq_sub_close(sub);
	close_durable(&c, &log);
}

TEST(one_that_was_stored_further_than_the_topic_has_come_is_refused)
{
	struct logdir log;
	struct scene c = durable(&log, 3, 0);
	shmq_sub *sub;
	struct shmq_cursor_place place = { .size = sizeof(place),
					   .from = SHMQ_FROM_SEQ,
					   .seq = c.f->base_seq + 4 };

	CHECK_OK(shmq_cursor_set(path, "mine", &place));
	CHECK_ERROR(shmq_sub_open(c.bus, STANDIN_TOPIC,
				  SUB_OPTIONS(.from = SHMQ_FROM_CURSOR, .cursor = "mine"), &sub),
		    -ESTALE);
	check_says("\"mine\" stands at seq 4");
	close_durable(&c, &log);
}

TEST(without_a_log_or_a_name_nothing_is_stored)
{
	struct scene c = set_up(NULL, NULL);
	shmq_sub *sub;

	CHECK_ERROR(shmq_sub_store_cursor(c.sub), SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(c.bus, STANDIN_TOPIC, SUB_OPTIONS(.cursor = "mine"), &sub),
		    SHMQ_EOPTION);
	check_says("takes a log");
	CHECK_ERROR(shmq_sub_open(c.bus, STANDIN_TOPIC, SUB_OPTIONS(.from = SHMQ_FROM_CURSOR),
				  &sub),
		    SHMQ_EOPTION);
	CHECK_ERROR(shmq_sub_open(c.bus, STANDIN_TOPIC, SUB_OPTIONS(.cursor = "a/b"), &sub),
		    SHMQ_EOPTION);
	check_says("cursor name");
	tear_down(&c);
}

static int closes_in_a_child(void *arg)
{
	CHECK_ERROR(shmq_sub_store_cursor(arg), SHMQ_EFORKED);
	shmq_sub_close(arg);
	return 0;
}

TEST(a_forked_child_neither_stores_nor_lets_go)
{
	struct logdir log;
	struct scene c = durable(&log, 3, 0);
	shmq_sub *sub = open_at_cursor(&c), *second;

	CHECK_EQ(test_join(test_spawn(closes_in_a_child, sub)), 0);
	CHECK_ERROR(shmq_sub_open(c.bus, STANDIN_TOPIC, SUB_OPTIONS(.cursor = "mine"), &second),
		    SHMQ_EINUSE);
	receives(sub, 0, 1);
	CHECK_OK(shmq_release(sub));
	CHECK_OK(shmq_sub_store_cursor(sub));
	is_at(1);
	shmq_sub_close(sub);
	close_durable(&c, &log);
}
