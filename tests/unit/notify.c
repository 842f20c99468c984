/* SPDX-License-Identifier: MIT
 *
 * Descriptors that stand for words: when they become readable, and how often.
 */
#include "notify.h"
#include "futex.h"
#include "helpers.h"
#include "standin.h"

#include <poll.h>

enum { MANY = 300 };

static struct standin *s;
static shmq_bus *bus;

static void set_up(void)
{
	s = standin_new(NULL);
	bus = standin_bus(s);
}

static void tear_down(void)
{
	shmq_bus_close(bus);
	standin_free(s);
}

static int is_readable(const struct shmq__notify *n, int timeout_ms)
{
	struct pollfd p = { .fd = shmq__notify_fd(n), .events = POLLIN };

	return poll(&p, 1, timeout_ms);
}

static void wake(shmq_au32 *word)
{
	add_release(word, 1);
	shmq__futex_wake(word);
}

static struct shmq__notify *open_on(enum notify_kind kind, shmq_au32 *word, unsigned n)
{
	const shmq_au32 *list[MANY];
	struct shmq__notify *out;

	for (unsigned i = 0; i < n; i++)
		list[i] = &word[i];
	CHECK_OK(shmq__notify_open(bus, kind, &out));
	CHECK_OK(shmq__notify_words(out, list, n));
	return out;
}

TEST(it_is_readable_from_a_change_until_it_is_lowered)
{
	static shmq_au32 word[1];
	struct shmq__notify *n;

	set_up();
	n = open_on(NOTIFY_LEVEL, word, 1);
	CHECK(is_readable(n, 0) && shmq__notify_is_raised(n));
	shmq__notify_lower(n);
	CHECK(!is_readable(n, 0) && !shmq__notify_is_raised(n));
	wake(word);
	CHECK(is_readable(n, 60000));
	CHECK(is_readable(n, 0));
	shmq__notify_lower(n);
	CHECK(!is_readable(n, 0));
	shmq__notify_raise(n);
	CHECK(is_readable(n, 0));
	shmq__notify_close(n);
	tear_down();
}

TEST(any_of_hundreds_of_words_raises_its_own)
{
	static shmq_au32 word[MANY];
	struct shmq__notify *n[2];

	set_up();
	n[0] = open_on(NOTIFY_LEVEL, word, MANY - 1);
	n[1] = open_on(NOTIFY_LEVEL, word + MANY - 1, 1);
	shmq__notify_lower(n[0]);
	shmq__notify_lower(n[1]);
	for (unsigned i = 0; i < MANY; i += 13) {
		wake(&word[i]);
		CHECK(is_readable(n[i == MANY - 1], 60000));
		CHECK(!is_readable(n[i != MANY - 1], 0));
		shmq__notify_lower(n[i == MANY - 1]);
	}
	wake(&word[MANY - 1]);
	CHECK(is_readable(n[1], 60000));
	CHECK(!is_readable(n[0], 0));
	shmq__notify_close(n[0]);
	shmq__notify_close(n[1]);
	tear_down();
}

TEST(words_that_it_no_longer_stands_for_raise_nothing)
{
	static shmq_au32 word[2];
	const shmq_au32 *other = &word[1];
	struct shmq__notify *n;

	set_up();
	n = open_on(NOTIFY_LEVEL, word, 1);
	CHECK_OK(shmq__notify_words(n, &other, 1));
	shmq__notify_lower(n);
	wake(&word[0]);
	wake(&word[1]);
	CHECK(is_readable(n, 60000));
	shmq__notify_lower(n);
	wake(&word[0]);
	CHECK(!is_readable(n, 20));
	shmq__notify_close(n);
	tear_down();
}

TEST(a_time_raises_it_without_a_wake)
{
	static shmq_au32 word[1];
	struct shmq__notify *n;

	set_up();
	n = open_on(NOTIFY_LEVEL, word, 1);
	shmq__notify_lower(n);
	shmq__notify_until(n, MILLISECOND);
	CHECK(is_readable(n, 60000));
	shmq__notify_close(n);
	tear_down();
}

TEST(one_that_counts_is_emptied_by_who_reads_it)
{
	static shmq_au32 word[1];
	struct shmq__notify *n;
	uint64_t count;

	set_up();
	n = open_on(NOTIFY_COUNT, word, 1);
	CHECK(!is_readable(n, 0));
	for (unsigned i = 0; i < 3; i++) {
		wake(word);
		CHECK(is_readable(n, 60000));
		CHECK_EQ(read(shmq__notify_fd(n), &count, sizeof(count)), sizeof(count));
	}
	shmq__notify_close(n);
	tear_down();
}

TEST(without_waitv_it_is_raised_all_the_same)
{
	static shmq_au32 word[MANY];
	struct shmq__notify *n;

	CHECK_EQ(setenv("SHMQ_NO_WAITV", "1", 1), 0);
	set_up();
	n = open_on(NOTIFY_LEVEL, word, MANY);
	shmq__notify_lower(n);
	wake(&word[MANY / 2]);
	CHECK(is_readable(n, 60000));
	shmq__notify_close(n);
	tear_down();
}

TEST(it_may_be_closed_after_its_bus)
{
	static shmq_au32 word[1];
	struct shmq__notify *n;

	set_up();
	n = open_on(NOTIFY_LEVEL, word, 1);
	tear_down();
	CHECK(is_readable(n, 0));
	shmq__notify_close(n);
	shmq__notify_close(NULL);
}

static int close_in_child(void *arg)
{
	shmq_bus_close(bus);
	shmq__notify_close(arg);
	return 0;
}

TEST(a_forked_child_may_close_it)
{
	static shmq_au32 word[1];
	struct shmq__notify *n;

	set_up();
	n = open_on(NOTIFY_LEVEL, word, 1);
	CHECK_EQ(test_join(test_spawn(close_in_child, n)), 0);
	shmq__notify_lower(n);
	wake(word);
	CHECK(is_readable(n, 60000));
	shmq__notify_close(n);
	tear_down();
}
