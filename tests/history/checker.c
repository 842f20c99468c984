/* SPDX-License-Identifier: MIT
 *
 * The checker of histories accepts what can be, and refuses each corruption
 * of it by name.
 */
#include "history.h"
#include "helpers.h"

enum { MOST = 64, SENDS = 12, RECEIPTS = 40 };

/* Two publishers and two subscribers on two partitions: 1 sends 0 to 5 to
 * partition 0, of which 2 to 4 are an atomic batch; 2 sends 0 to 5 by turns;
 * its message 3 was refused, its last is open. */
struct book {
	struct history_send send[2][SENDS];
	struct history_publisher publisher[2];
	struct history_receipt receipt[2][RECEIPTS];
	struct history_subscriber subscriber[2];
	struct history h;
};

static void write_send(struct book *b, unsigned i, uint64_t n, uint32_t partition, uint64_t seq)
{
	b->send[i][n] = (struct history_send){ HISTORY_SENT, partition, seq, n, 1 };
	b->publisher[i].count = n + 1;
}

static void write_receipt(struct book *b, unsigned s, uint32_t partition, uint64_t seq,
			  uint64_t who, uint64_t n)
{
	char buf[MOST];
	struct history_receipt *r = &b->receipt[s][b->subscriber[s].count++];

	*r = (struct history_receipt){ .partition = partition, .seq = seq, .who = who, .n = n };
	r->sum = history_sum(buf, history_fill(buf, MOST, who, n));
}

static struct book *new_book(void)
{
	struct book *b = calloc(1, sizeof(*b));

	for (unsigned i = 0; i < 2; i++) {
		b->publisher[i] = (struct history_publisher){ i + 1, b->send[i], 0 };
		b->subscriber[i] = (struct history_subscriber){ .receipt = b->receipt[i],
								.start = { 100, 500 },
								.end = { 110, 503 },
								.lived = 1 };
	}
	b->h = (struct history){ 2, b->publisher, 2, b->subscriber, 2, MOST };
	for (uint64_t n = 0; n < 6; n++)
		write_send(b, 0, n, 0, 100 + n + (n > 1)); /* 102 is a hole */
	for (uint64_t n = 2; n < 5; n++) {
		b->send[0][n].batch = 2;
		b->send[0][n].batch_count = 3;
	}
	write_send(b, 1, 0, 1, 500);
	write_send(b, 1, 1, 0, 107);
	write_send(b, 1, 2, 1, 501);
	b->send[1][3] = (struct history_send){ HISTORY_REFUSED, 0, 0, 3, 1 };
	write_send(b, 1, 4, 1, 502);
	write_send(b, 1, 5, 0, 0);
	b->send[1][5].state = HISTORY_OPEN;
	for (unsigned s = 0; s < 2; s++) {
		for (uint64_t n = 0; n < 6; n++)
			write_receipt(b, s, 0, 100 + n + (n > 1), 1, n);
		write_receipt(b, s, 1, 500, 2, 0);
		write_receipt(b, s, 0, 107, 2, 1);
		write_receipt(b, s, 1, 501, 2, 2);
		write_receipt(b, s, 1, 502, 2, 4);
	}
	return b;
}

static void accept_it(struct book *b)
{
	char why[200];

	if (history_check(&b->h, why, sizeof(why)))
		FAIL("refused: %s", why);
	free(b);
}

static void refuse_it(struct book *b, const char *says)
{
	char why[200];

	if (!history_check(&b->h, why, sizeof(why)))
		FAIL("accepted, although %s", says);
	if (!strstr(why, says))
		FAIL("\"%s\" does not say \"%s\"", why, says);
	free(b);
}

static void forget_receipt(struct book *b, unsigned s, size_t i)
{
	memmove(&b->receipt[s][i], &b->receipt[s][i + 1],
		(b->subscriber[s].count - i - 1) * sizeof(b->receipt[s][0]));
	b->subscriber[s].count--;
}

/* What it got as its i-th is reported lost instead, and k more with it. */
static void lose_receipt(struct book *b, unsigned s, size_t i, uint64_t n)
{
	b->receipt[s][i] =
		(struct history_receipt){ .partition = b->receipt[s][i].partition, .lost = n };
}

/* ---- what can be --------------------------------------------------------------------- */

TEST(a_history_in_which_all_is_well_is_accepted)
{
	accept_it(new_book());
}

TEST(loss_that_is_reported_exactly_is_accepted)
{
	struct book *b = new_book();

	lose_receipt(b, 0, 0, 2);
	forget_receipt(b, 0, 1);
	lose_receipt(b, 1, 9, 1); /* at its end */
	accept_it(b);
}

TEST(a_bound_of_loss_may_be_more)
{
	struct book *b = new_book();

	lose_receipt(b, 0, 5, 5);
	b->receipt[0][5].is_bound = 1;
	accept_it(b);
}

TEST(what_was_open_may_have_happened_or_not)
{
	struct book *b = new_book();

	write_receipt(b, 0, 0, 108, 2, 5);
	write_receipt(b, 1, 0, 108, 2, 5);
	accept_it(b);
	b = new_book();
	b->receipt[0][b->subscriber[0].count++] = (struct history_receipt){ .lost = 1 };
	b->receipt[1][b->subscriber[1].count++] = (struct history_receipt){ .lost = 1 };
	accept_it(b);
}

TEST(who_was_killed_need_not_have_got_the_rest)
{
	struct book *b = new_book();

	b->subscriber[1].lived = 0;
	b->subscriber[1].count = 3; /* in the middle of a batch */
	accept_it(b);
}

TEST(who_joined_late_need_not_have_got_what_was_before)
{
	struct book *b = new_book();

	b->subscriber[0].start[0] = 106;
	for (int i = 0; i < 5; i++)
		forget_receipt(b, 0, 0);
	accept_it(b);
}

TEST(who_joined_in_a_batch_gets_none_of_it)
{
	struct book *b = new_book();

	b->subscriber[0].start[0] = 104;
	for (int i = 0; i < 5; i++)
		forget_receipt(b, 0, 0);
	accept_it(b);
	b = new_book();
	b->subscriber[0].start[0] = 104;
	for (int i = 0; i < 4; i++)
		forget_receipt(b, 0, 0);
	lose_receipt(b, 0, 0, 2); /* it was lapped over it */
	forget_receipt(b, 0, 1);
	lose_receipt(b, 0, 0, 3);
	accept_it(b);
}

TEST(a_batch_may_be_lost_whole)
{
	struct book *b = new_book();

	lose_receipt(b, 0, 2, 3);
	forget_receipt(b, 0, 3);
	forget_receipt(b, 0, 3);
	accept_it(b);
}

/* The time of each is its seq and 1000. */
static void stamp(struct book *b)
{
	for (unsigned s = 0; s < 2; s++)
		for (size_t i = 0; i < b->subscriber[s].count; i++)
			b->receipt[s][i].ts = 1000 + b->receipt[s][i].seq;
}

/* It begins with 106, which is of no batch. */
static struct book *from_a_time(void)
{
	struct book *b = new_book();

	stamp(b);
	b->subscriber[0].start[0] = 100;
	b->subscriber[0].from_ts = 1106;
	for (int i = 0; i < 5; i++)
		forget_receipt(b, 0, 0);
	return b;
}

TEST(who_starts_at_a_time_gets_all_from_the_first_message_of_that_time_on)
{
	struct book *b = from_a_time();

	accept_it(b);
	b = from_a_time();
	/* It may be told of a gap that ends there. */
	memmove(&b->receipt[0][1], &b->receipt[0][0],
		b->subscriber[0].count * sizeof(b->receipt[0][0]));
	b->receipt[0][0] = (struct history_receipt){ .lost = 3 };
	b->subscriber[0].count++;
	accept_it(b);
}

TEST(who_goes_on_in_a_batch_gets_the_rest_of_it)
{
	struct book *b = new_book();

	b->subscriber[0].start[0] = 104;
	b->subscriber[0].goes_on = 1;
	for (int i = 0; i < 3; i++)
		forget_receipt(b, 0, 0);
	accept_it(b);
}

/* ---- what cannot ------------------------------------------------------------------------ */

TEST(a_lost_message_is_found)
{
	for (size_t i = 0; i < 2; i++) {
		struct book *b = new_book();

		forget_receipt(b, 1, i ? 5 : 0);
		refuse_it(b, "did not get 1 messages");
	}
}

TEST(a_message_lost_at_the_end_is_found)
{
	struct book *b = new_book();

	forget_receipt(b, 0, 9);
	refuse_it(b, "did not get 1 messages");
}

TEST(a_message_that_nobody_got_is_found)
{
	struct book *b = new_book();

	forget_receipt(b, 0, 5);
	forget_receipt(b, 1, 5);
	refuse_it(b, "did not get 1 messages");
}

TEST(a_duplicate_is_found)
{
	struct book *b = new_book();

	write_receipt(b, 0, 0, 107, 2, 1);
	refuse_it(b, "got seq 107 of partition 0 after 107");
}

TEST(a_message_with_two_seqs_is_found)
{
	struct book *b = new_book();

	write_receipt(b, 0, 0, 109, 2, 1);
	refuse_it(b, "message 1 of 2 is there twice");
}

TEST(swapped_messages_are_found)
{
	struct book *b = new_book();
	struct history_receipt keep = b->receipt[0][0];

	b->receipt[0][0] = b->receipt[0][1];
	b->receipt[0][1] = keep;
	refuse_it(b, "did not get 1 messages of [100, 101)");
	b = new_book();
	b->receipt[0][0].seq = 101; /* by what they say, not by their seqs */
	b->receipt[0][1].seq = 100;
	keep = b->receipt[0][0];
	b->receipt[0][0] = b->receipt[0][1];
	b->receipt[0][1] = keep;
	refuse_it(b, "to one, and");
}

TEST(a_publisher_whose_order_was_not_kept_is_found)
{
	struct book *b = new_book();

	for (unsigned s = 0; s < 2; s++) {
		b->receipt[s][0].seq = 101;
		b->receipt[s][1].seq = 100;
	}
	b->send[0][0].seq = 101;
	b->send[0][1].seq = 100;
	refuse_it(b, "message 0 of 1 stands behind a later one");
}

TEST(a_torn_message_is_found)
{
	struct book *b = new_book();

	b->receipt[1][7].sum ^= 1;
	refuse_it(b, "torn");
}

TEST(loss_that_is_told_as_more_than_it_was_is_found)
{
	struct book *b = new_book();

	lose_receipt(b, 0, 5, 3); /* the open one could be among them */
	refuse_it(b, "are lost, and there were 1");
}

TEST(loss_that_was_none_is_found)
{
	struct book *b = new_book();

	b->send[1][5].state = HISTORY_REFUSED;
	memmove(&b->receipt[0][1], &b->receipt[0][0], 10 * sizeof(b->receipt[0][0]));
	b->subscriber[0].count++;
	b->receipt[0][0] = (struct history_receipt){ .lost = 1 };
	refuse_it(b, "are lost, and there were 0");
}

TEST(loss_that_is_told_as_less_than_it_was_is_found)
{
	struct book *b = new_book();

	lose_receipt(b, 0, 0, 1);
	forget_receipt(b, 0, 1);
	refuse_it(b, "and was told of 1");
}

TEST(two_subscribers_that_disagree_are_found)
{
	struct book *b = new_book();

	for (size_t i = 6; i < 10; i++)
		b->receipt[1][i].seq += b->receipt[1][i].partition;
	refuse_it(b, "to one, and");
}

TEST(a_publisher_that_was_told_another_seq_is_found)
{
	struct book *b = new_book();

	b->send[1][1].seq = 108;
	refuse_it(b, "message 1 of 2 is there twice");
}

TEST(a_message_that_was_refused_and_yet_arrives_is_found)
{
	struct book *b = new_book();

	write_receipt(b, 0, 0, 108, 2, 3);
	refuse_it(b, "which was refused");
}

TEST(a_message_that_nobody_sent_is_found)
{
	struct book *b = new_book();

	write_receipt(b, 0, 0, 108, 3, 0);
	refuse_it(b, "which nobody sent");
	b = new_book();
	write_receipt(b, 0, 0, 108, 1, 6);
	refuse_it(b, "which nobody sent");
}

TEST(half_a_batch_is_found)
{
	struct book *b = new_book();

	b->subscriber[0].start[0] = 104; /* it joined in the middle */
	for (int i = 0; i < 3; i++)
		forget_receipt(b, 0, 0);
	refuse_it(b, "without the one before it in its batch");
	b = new_book();

	lose_receipt(b, 0, 4, 1);
	refuse_it(b, "without the next of its batch");
	b = new_book();
	lose_receipt(b, 0, 2, 1);
	refuse_it(b, "without the one before it in its batch");
}

TEST(a_start_before_or_behind_the_time_it_was_asked_for_is_found)
{
	struct book *b = from_a_time();

	b->subscriber[0].from_ts = 1107;
	refuse_it(b, "got seq 106 of partition 0 after 106");
	b = from_a_time();
	forget_receipt(b, 0, 0);
	refuse_it(b, "subscriber 0 did not get 1 messages of [106, 107)");
	b = from_a_time();
	b->receipt[0][0].ts++;
	refuse_it(b, "seq 106 of partition 0 has two times");
}

TEST(who_goes_on_and_misses_the_rest_of_a_batch_is_found)
{
	struct book *b = new_book();

	b->subscriber[0].start[0] = 104;
	b->subscriber[0].goes_on = 1;
	for (int i = 0; i < 5; i++)
		forget_receipt(b, 0, 0);
	refuse_it(b, "subscriber 0 did not get 2 messages of [104, 106)");
	b = new_book();
	b->subscriber[0].start[0] = 104;
	b->subscriber[0].goes_on = 1;
	for (int i = 0; i < 3; i++)
		forget_receipt(b, 0, 0);
	b->receipt[0][b->subscriber[0].count++] = b->receipt[0][0];
	refuse_it(b, "got seq 104 of partition 0 after");
}
