/* SPDX-License-Identifier: MIT */
#include "clock.h"
#include "deny.h"
#include "fake.h"
#include "futex.h"
#include "shmem.h"
#include "tap.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

TEST(a_wait_ends_at_once_where_the_word_has_changed)
{
	shmq_au32 word = 5;

	CHECK_EQ(shmq__futex_wait(&word, 4, UINT64_MAX), 0);
	CHECK_EQ(shmq__futex_wait(&word, 4, 0), 0);
}

TEST(a_wait_ends_at_its_deadline)
{
	shmq_au32 word = 5;
	uint64_t until = shmq__clock_deadline(2000000);

	CHECK_EQ(shmq__futex_wait(&word, 5, 0), -ETIMEDOUT);
	CHECK_EQ(shmq__futex_wait(&word, 5, until), -ETIMEDOUT);
	CHECK_GE(shmq__clock_monotonic_ns(), until);
}

TEST(a_wake_without_sleepers_wakes_nobody)
{
	shmq_au32 word = 5;

	CHECK_EQ(shmq__futex_wake(&word), 0);
	CHECK_EQ(shmq__futex_wake(NULL), 0);
}

struct sleepers {
	shmq_au32 word[4];
	shmq_au32 ended;
};

static void *sleep_on_one(void *arg)
{
	struct sleepers *s = arg;

	while (!load_acquire(&s->word[0]))
		shmq__futex_wait(&s->word[0], 0, UINT64_MAX);
	add_relaxed(&s->ended, 1);
	return NULL;
}

TEST(a_wake_wakes_everybody)
{
	static struct sleepers s;
	pthread_t thread[3];

	for (int i = 0; i < 3; i++)
		thread[i] = fake_thread(sleep_on_one, &s);
	store_release(&s.word[0], 1);
	while (load_relaxed(&s.ended) != 3)
		shmq__futex_wake(&s.word[0]);
	for (int i = 0; i < 3; i++)
		fake_join(thread[i]);
}

struct sleeper {
	shmq_au32 *word, ended;
	uint32_t bits;
};

static void *sleep_by_bits(void *arg)
{
	struct sleeper *s = arg;

	shmq__futex_wait_bits(s->word, 0, s->bits, UINT64_MAX);
	store_release(&s->ended, 1);
	return NULL;
}

static void wake_one(shmq_au32 *word, uint32_t bits)
{
	while (!shmq__futex_wake_bits(word, bits))
		;
}

TEST(a_wake_by_bits_wakes_those_alone_who_have_one_of_them)
{
	static shmq_au32 word;
	struct sleeper s[] = { { .word = &word, .bits = 1 }, { .word = &word, .bits = 6 } };
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		thread[i] = fake_thread(sleep_by_bits, &s[i]);
	wake_one(&word, 12);
	fake_join(thread[1]);
	CHECK_EQ(load_acquire(&s[0].ended), 0);
	wake_one(&word, UINT32_MAX);
	fake_join(thread[0]);
}

static int has_waitv(void)
{
	shmq_au32 word = 1;
	const shmq_au32 *list[] = { &word };
	uint32_t e = 0;

	return shmq__futex_waitv(list, &e, 1, 0) != -ENOSYS;
}

static void *sleep_on_many(void *arg)
{
	struct sleepers *s = arg;
	const shmq_au32 *list[] = { &s->word[0], &s->word[1], &s->word[2], &s->word[3] };
	uint32_t e[4] = { 0 };

	while (!load_acquire(&s->word[2]))
		shmq__futex_waitv(list, e, 4, UINT64_MAX);
	add_relaxed(&s->ended, 1);
	return NULL;
}

TEST(a_wait_on_many_words_ends_with_any)
{
	static struct sleepers s;
	const shmq_au32 *list[] = { &s.word[0], &s.word[1], &s.word[2] };
	uint32_t e[3] = { 0 };
	pthread_t thread;

	if (!has_waitv())
		SKIP("this kernel has no futex_waitv");
	CHECK_EQ(shmq__futex_waitv(list, e, 3, 0), -ETIMEDOUT);
	CHECK_EQ(shmq__futex_waitv(list, e, 3, shmq__clock_deadline(1000000)), -ETIMEDOUT);
	for (int i = 0; i < 3; i++) {
		e[i] = 1;
		CHECK_EQ(shmq__futex_waitv(list, e, 3, UINT64_MAX), 0);
		e[i] = 0;
	}
	thread = fake_thread(sleep_on_many, &s);
	store_release(&s.word[2], 1);
	while (!load_relaxed(&s.ended))
		shmq__futex_wake(&s.word[2]);
	fake_join(thread);
}

TEST(as_many_words_as_promised_can_be_waited_on)
{
	static shmq_au32 word[SHMQ_FUTEX_WAITV_MAX];
	const shmq_au32 *list[SHMQ_FUTEX_WAITV_MAX];
	uint32_t e[SHMQ_FUTEX_WAITV_MAX] = { 0 };

	if (!has_waitv())
		SKIP("this kernel has no futex_waitv");
	for (int i = 0; i < SHMQ_FUTEX_WAITV_MAX; i++)
		list[i] = &word[i];
	CHECK_EQ(shmq__futex_waitv(list, e, SHMQ_FUTEX_WAITV_MAX, 0), -ETIMEDOUT);
	e[SHMQ_FUTEX_WAITV_MAX - 1] = 1;
	CHECK_EQ(shmq__futex_waitv(list, e, SHMQ_FUTEX_WAITV_MAX, UINT64_MAX), 0);
}

/* Or whoever would sleep looked again at once, for ever. */
TEST(where_waitv_is_denied_it_is_as_if_the_kernel_had_none)
{
	static shmq_au32 word, other;
	const shmq_au32 *list[] = { &word, &other };
	const uint32_t e[] = { 0, 0 };

	deny_call(SYS_futex_waitv);
	CHECK_EQ(shmq__futex_waitv(list, e, 2, UINT64_MAX), -ENOSYS);
	CHECK_EQ(shmq__futex_wait_or(&word, 0, shmq__clock_deadline(1000000), &other), -ETIMEDOUT);
}

TEST(a_word_mapped_readonly_can_be_waited_on)
{
	int fd = shmq__shmem_create("x", 4096, 12), ro = shmq__shmem_reopen_readonly(fd);
	shmq_au32 *word, *view;
	const shmq_au32 *list[2];
	uint32_t e[2] = { 0 };

	CHECK_OK(shmq__shmem_map(fd, 0, 4096, PROT_READ | PROT_WRITE, (void **)&word));
	CHECK_OK(shmq__shmem_map(ro, 0, 4096, PROT_READ, (void **)&view));
	store_relaxed(word, 3);
	CHECK_EQ(shmq__futex_wait(view, 3, shmq__clock_deadline(1000000)), -ETIMEDOUT);
	CHECK_EQ(shmq__futex_wait(view, 4, UINT64_MAX), 0);
	list[0] = list[1] = view;
	e[0] = e[1] = 3;
	if (has_waitv())
		CHECK_EQ(shmq__futex_waitv(list, e, 2, shmq__clock_deadline(1000000)), -ETIMEDOUT);
	shmq__shmem_unmap(word, 4096);
	shmq__shmem_unmap(view, 4096);
	close(fd);
	close(ro);
}

TEST(the_environment_takes_waitv_and_membarrier_away)
{
	shmq_au32 word = 0;
	const shmq_au32 *list[] = { &word };
	uint32_t e = 0;

	setenv("SHMQ_NO_WAITV", "1", 1);
	CHECK_EQ(shmq__futex_waitv(list, &e, 1, 0), -ENOSYS);
	setenv("SHMQ_NO_MEMBARRIER", "1", 1);
	CHECK_EQ(shmq__membarrier_register(), -ENOSYS);
	unsetenv("SHMQ_NO_MEMBARRIER");
	CHECK(shmq__membarrier_register() == 0 || shmq__membarrier_register() == -ENOSYS);
}

/* A filter that was set up since: for so long every store buffer is empty. */
TEST(where_membarrier_is_denied_a_millisecond_passes_instead)
{
	int64_t began;

	deny_call(SYS_membarrier);
	began = test_now_ns();
	CHECK_EQ(shmq__membarrier(), -ENOSYS);
	CHECK_GE(test_now_ns() - began, 1000000);
}

TEST(membarrier_works_once_registered)
{
	if (shmq__membarrier_register())
		SKIP("this kernel has no membarrier");
	CHECK_EQ(shmq__membarrier_register(), 0);
	CHECK_EQ(shmq__membarrier(), 0);
}
