/* SPDX-License-Identifier: MIT
 *
 * replay: a fuzz target as a test: the corpus in the tree, and a number of
 * mutations of it, the same in each run (SHMQ_FUZZ_SEED and SHMQ_TORTURE
 * begin elsewhere, SHMQ_FUZZ_RUNS says how many).  SHMQ_FUZZ_INPUT runs that
 * one file.  An input that kills is kept beside the program, and named.
 */
#include "fuzz.h"

#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INPUT_MAX = 8192, INPUTS_MAX = 4096 };

struct input {
	size_t size;
	uint8_t *bytes;
};

static struct input corpus[INPUTS_MAX];
static unsigned corpus_count;

/* ---- what kills ---------------------------------------------------------- */

static uint8_t current[INPUT_MAX];
static size_t current_size;
static char kept_path[4096];

void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void keep(void)
{
	static const char kept[] = "# the input is kept as ";
	int fd = open(kept_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t done;

	done = write(fd, current, current_size);
	close(fd);
	done = write(STDERR_FILENO, kept, sizeof(kept) - 1);
	done = write(STDERR_FILENO, kept_path, strlen(kept_path));
	done = write(STDERR_FILENO, "\n", 1);
	(void)done;
}

static void killed(int sig)
{
	signal(sig, SIG_DFL);
	keep();
	raise(sig);
}

static void watch(void)
{
	static const int signals[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTERM };
	const char *build = getenv("SHMQ_BUILD");

	snprintf(kept_path, sizeof(kept_path), "%s/tests/fuzz/%s.killed", build ? build : "build",
		 program_invocation_short_name);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(keep);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!__sanitizer_set_death_callback || signals[i] == SIGABRT)
			signal(signals[i], killed);
}

static void run(const uint8_t *bytes, size_t size)
{
	memcpy(current, bytes, size);
	current_size = size;
	LLVMFuzzerTestOneInput(current, size);
}

/* ---- the corpus ------------------------------------------------------------ */

static void load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct input *in = &corpus[corpus_count];
	ssize_t n;

	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	CHECK_LT(corpus_count, INPUTS_MAX);
	in->bytes = malloc(INPUT_MAX);
	CHECK(in->bytes);
	n = read(fd, in->bytes, INPUT_MAX);
	close(fd);
	if (n < 0) /* a directory */
		free(in->bytes);
	else
		in->size = (size_t)n, corpus_count++;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_corpus(void)
{
	const char *chosen = getenv("SHMQ_FUZZ_INPUT");
	struct dirent **names;
	char path[4096];
	int n;

	if (chosen) {
		load(chosen);
		return;
	}
	snprintf(path, sizeof(path), "tests/fuzz/corpus/%s", program_invocation_short_name);
	n = scandir(path, &names, NULL, by_name);
	if (n < 0)
		FAIL("%s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "tests/fuzz/corpus/%s/%s",
			 program_invocation_short_name, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			load(path);
		free(names[i]);
	}
	free(names);
	CHECK_GT(corpus_count, 0);
}

static void leave(void)
{
	fuzz_leave();
	while (corpus_count)
		free(corpus[--corpus_count].bytes);
}

TEST_WITHIN(the_corpus_is_survived, 60)
{
	load_corpus();
	watch();
	for (unsigned i = 0; i < corpus_count; i++)
		run(corpus[i].bytes, corpus[i].size);
	NOTE("%u inputs", corpus_count);
	leave();
}

/* ---- mutations --------------------------------------------------------------- */

static uint64_t state;

static size_t below(size_t n)
{
	return n ? fake_random(&state) % n : 0;
}

static void insert(uint8_t *bytes, size_t *size, const uint8_t *from, size_t n)
{
	size_t at = below(*size + 1);

	if (*size + n > INPUT_MAX)
		return;
	memmove(bytes + at + n, bytes + at, *size - at);
	memcpy(bytes + at, from, n);
	*size += n;
}

static void erase(uint8_t *bytes, size_t *size)
{
	size_t at = below(*size), n = 1 + below(16);

	n = n < *size - at ? n : *size - at;
	memmove(bytes + at, bytes + at + n, *size - at - n);
	*size -= n;
}

static void mutate(uint8_t *bytes, size_t *size)
{
	const struct input *other = &corpus[below(corpus_count)];
	uint64_t word = fake_random(&state);
	size_t at = below(*size), n;

	switch (*size ? below(7) : 5) {
	case 0:
		bytes[at] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		bytes[at] = (uint8_t)word;
		break;
	case 2:
		bytes[at] += (uint8_t)(below(2) ? 1 : 255);
		break;
	case 3:
		word = below(2) ? 0 : UINT64_MAX;
		n = 1 + below(8);
		memcpy(bytes + at, &word, n < *size - at ? n : *size - at);
		break;
	case 4:
		erase(bytes, size);
		break;
	case 5:
		insert(bytes, size, (const uint8_t *)&word, 1 + below(8));
		break;
	default: /* a piece of another */
		at = below(other->size);
		insert(bytes, size, other->bytes + at, below(other->size - at + 1));
	}
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

TEST_WITHIN(mutations_of_it_are_survived, 120)
{
	uint64_t runs = number("SHMQ_FUZZ_RUNS", fuzz_runs);
	static uint8_t bytes[INPUT_MAX];

	if (getenv("SHMQ_FUZZ_INPUT"))
		SKIP("one input is run alone");
	state = number("SHMQ_FUZZ_SEED", number("SHMQ_TORTURE", 0));
	load_corpus();
	watch();
	for (uint64_t i = 0; i < runs; i++) {
		const struct input *in = &corpus[below(corpus_count)];
		size_t size = in->size, turns = 1 + below(8);

		memcpy(bytes, in->bytes, size);
		while (turns--)
			mutate(bytes, &size);
		run(bytes, size);
	}
	NOTE("%llu mutations of %u inputs", (unsigned long long)runs, corpus_count);
	leave();
}
