/* SPDX-License-Identifier: MIT
 *
 * A subscriber that begins in the log: here files and ring are written by the
 * test, which plays publisher, tailer and supervisor.
 */
#include "logdir.h"
#include "subscriber.h"

#define IN_LOG 100u /* messages that the ring never had */

struct past {
	struct logdir log;
	struct logpart part;
};

/* Files with messages 0 to IN_LOG, a hole and a gap in between; rings that go on
 * behind them.  Nobody waits for readers, so they need not join. */
static struct scene set_up_with_log(struct past *past)
{
	struct fake_options options = { .base_seq = IN_LOG, .policy = SHMQ_LOSSY };
	struct scene c = set_up(&options, NULL);
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), STANDIN_TOPIC);
	logdir_open(&past->log, path, STANDIN_TOPIC, 1, 0);
	logpart_open(&past->part, &past->log, 0, 0);
	snprintf(c.f->registry->data_dir, sizeof(c.f->registry->data_dir), "%s", test_tmpdir());
	shmq_sub_close(c.sub);
	c.f->rec->log = SHMQ_LOG_GAP;
	store_relaxed(&c.f->partition[0].log_written, IN_LOG);
	return c;
}

static void end(struct scene *c, struct past *past)
{
	logpart_close(&past->part);
	logdir_close(&past->log);
	tear_down(c);
}

static void expect(shmq_sub *sub, uint64_t from, uint64_t to)
{
	struct shmq_msg msg;

	for (; from < to; from++) {
		CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(msg.seq, from);
	}
}

TEST(what_is_in_the_log_comes_first_and_the_ring_follows_without_a_seam)
{
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;

	for (unsigned n = 0; n < IN_LOG; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	publish(&c, 10);
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST);
	expect(c.sub, 0, IN_LOG + 10);
	CHECK_ERROR(shmq_receive(c.sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	publish(&c, 1);
	expect(c.sub, IN_LOG + 10, IN_LOG + 11);
	CHECK_EQ(sub_stats(c.sub).lost, 0);
	end(&c, &past);
}

TEST(holes_are_passed_and_gaps_are_told_once_and_counted)
{
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;

	for (unsigned n = 0; n < 40; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	logpart_skip(&past.part, LOG_HOLE, 10);
	logpart_skip(&past.part, LOG_GAP, 20);
	for (unsigned n = 70; n < IN_LOG; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_SEQ, .seq = 30);
	expect(c.sub, 30, 40);
	CHECK_ERROR(shmq_receive(c.sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(msg.lost, 20);
	expect(c.sub, 70, IN_LOG);
	CHECK_EQ(sub_stats(c.sub).lost, 20);
	end(&c, &past);
}

TEST(a_gap_of_which_nobody_knows_how_many_were_messages_is_a_bound)
{
	static const uint16_t flags[] = { LOG_GAP_OVERRUN, LOG_GAP_UNKNOWN, LOG_GAP_DAMAGE,
					  LOG_GAP_OVERRUN | LOG_GAP_BOUND };
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;

	for (unsigned i = 0; i < COUNT(flags); i++) {
		logpart_record(&past.part,
			       (struct log_record){ .tag = 10, .kind = LOG_GAP, .flags = flags[i] },
			       NULL, 0);
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	}
	for (unsigned n = 33; n < IN_LOG; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST);
	for (unsigned i = 0; i < COUNT(flags); i++) {
		CHECK_ERROR(shmq_receive(c.sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
		CHECK_EQ(msg.lost, 10);
		CHECK_EQ(msg.lost_is_bound, i > 0);
		CHECK_EQ(sub_stats(c.sub).lost_is_bound, i > 0);
		expect(c.sub, 11 * i + 10, 11 * i + 11);
	}
	end(&c, &past);
}

static void write_member(struct past *past, uint64_t first_seq, uint32_t index, uint32_t count)
{
	struct lay_batch batch = { first_seq, index, count };
	struct iovec piece = { &batch, sizeof(batch) };

	logpart_record(&past->part,
		       (struct log_record){ .kind = LOG_MESSAGE, .flags = SHMQ_MSG_BATCH }, &piece,
		       1);
}

/* As many publishers at once as there are processors. */
TEST(of_very_many_batches_that_interleave_nothing_is_lost)
{
	enum { BATCHES = 70 };
	struct past past;
	struct scene c = set_up_with_log(&past);

	for (uint64_t n = 0; n < BATCHES; n++)
		write_member(&past, n, 0, 2);
	for (uint64_t n = BATCHES; n < IN_LOG; n++)
		write_member(&past, n - BATCHES, 1, 2);
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST);
	expect(c.sub, 0, IN_LOG);
	CHECK_EQ(sub_stats(c.sub).lost, 0);
	end(&c, &past);
}

TEST(of_a_batch_whose_beginning_is_in_a_gap_the_rest_is_lost_and_of_one_that_began_before_passed)
{
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;
	unsigned n;

	for (n = 0; n < 10; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	for (n = 0; n < 4; n++)
		write_member(&past, 10, n, 4);
	logpart_skip(&past.part, LOG_GAP, 3);
	write_member(&past, 15, 2, 4);
	write_member(&past, 15, 3, 4);
	for (n = 19; n < IN_LOG; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_SEQ, .seq = 12);
	CHECK_ERROR(shmq_receive(c.sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
	CHECK_EQ(msg.seq, 16);
	CHECK_EQ(msg.lost, 3);
	for (n = 17; n < 19; n++) {
		CHECK_ERROR(shmq_receive(c.sub, &msg, SHMQ_NOWAIT), SHMQ_EOVERRUN);
		CHECK_EQ(msg.seq, n);
		CHECK_EQ(msg.lost, 1);
	}
	expect(c.sub, 19, IN_LOG);
	CHECK_EQ(sub_stats(c.sub).lost, 5);
	end(&c, &past);
}

TEST(no_more_is_read_than_the_tailer_says_is_written)
{
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;

	for (unsigned n = 0; n < IN_LOG; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "x", .len = 1 });
	store_relaxed(&c.f->partition[0].log_written, 50);
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST);
	expect(c.sub, 0, 50);
	CHECK_ERROR(shmq_receive(c.sub, &msg, SHMQ_NOWAIT), SHMQ_EEMPTY);
	store_release(&c.f->partition[0].log_written, IN_LOG);
	expect(c.sub, 50, IN_LOG);
	end(&c, &past);
}

TEST(what_does_not_fit_the_buffer_stays_and_is_handed_out_again)
{
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;
	char buf[8];

	for (unsigned n = 0; n < IN_LOG; n++)
		logpart_message(&past.part, &(struct shmq_msg){ .data = "12345", .len = 5 });
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST);
	CHECK_ERROR(shmq_receive_copy(c.sub, buf, 4, &msg, SHMQ_NOWAIT), SHMQ_EBUFFER);
	CHECK_OK(shmq_receive_copy(c.sub, buf, 8, &msg, SHMQ_NOWAIT));
	CHECK_EQ(msg.seq, 0);
	CHECK_MEM(buf, "12345", 5);
	expect(c.sub, 1, IN_LOG);
	end(&c, &past);
}

/* A complete segment is read in place, and the way on from there is as ever. */
TEST(what_is_read_in_place_is_whole_and_runs_on_into_the_ring)
{
	static char data[30000];
	struct past past;
	struct scene c = set_up_with_log(&past);
	struct shmq_msg msg;
	unsigned n;

	for (n = 0; n < IN_LOG; n++) {
		memset(data, (int)n, sizeof(data));
		if (n == 80)
			logpart_roll(&past.part);
		logpart_message(&past.part,
				&(struct shmq_msg){ .data = data, .len = sizeof(data) });
	}
	publish(&c, 10);
	c.sub = open_sub(c.bus, STANDIN_TOPIC, .from = SHMQ_FROM_OLDEST,
			 .flags = SHMQ_SUB_IN_PLACE);
	for (n = 0; n < IN_LOG; n++) {
		/* what does not fit the buffer is handed out again */
		CHECK_ERROR(shmq_receive_copy(c.sub, data, 1, &msg, SHMQ_NOWAIT), SHMQ_EBUFFER);
		CHECK_OK(shmq_receive(c.sub, &msg, SHMQ_NOWAIT));
		CHECK_EQ(msg.seq, n);
		CHECK_EQ(msg.len, sizeof(data));
		memset(data, (int)n, sizeof(data));
		CHECK_MEM(msg.data, data, sizeof(data));
	}
	expect(c.sub, IN_LOG, IN_LOG + 10);
	CHECK_EQ(sub_stats(c.sub).received, IN_LOG + 10);
	end(&c, &past);
}
