/* SPDX-License-Identifier: MIT
 *
 * Patterns of topics against names: what is taken for one is, and it means
 * what a table of all ways to read it says, in steps that are bounded by the
 * product of their words.
 */
#include "fuzz.h"

#include "name.h"

const unsigned fuzz_runs = 20000;

enum { STEPS = 1 << 18, WORDS_MAX = SHMQ_NAME_MAX };

struct words {
	const char *at[WORDS_MAX];
	size_t bytes[WORDS_MAX];
	unsigned n;
};

void fuzz_leave(void)
{
}

static void split(const char *text, struct words *out)
{
	for (out->n = 0; *text; out->n++) {
		out->at[out->n] = text;
		out->bytes[out->n] = strcspn(text, ".");
		text += out->bytes[out->n];
		text += *text == '.';
	}
}

static int is_wild(const struct words *p, unsigned i, char wild)
{
	return p->bytes[i] == 1 && *p->at[i] == wild;
}

/* fits[i][k]: the first i words of the pattern are the first k of the name. */
static int fits_by_table(const char *pattern, const char *name)
{
	static char fits[WORDS_MAX + 1][WORDS_MAX + 1];
	static struct words p, n;
	unsigned i, k;

	split(pattern, &p);
	split(name, &n);
	memset(fits, 0, sizeof(fits));
	fits[0][0] = 1;
	for (i = 0; i < p.n; i++)
		for (k = 0; k <= n.n; k++) {
			if (is_wild(&p, i, '#'))
				fits[i + 1][k] = fits[i][k] || (k && fits[i + 1][k - 1]);
			else if (k && (is_wild(&p, i, '*') ||
				       (p.bytes[i] == n.bytes[k - 1] &&
					!memcmp(p.at[i], n.at[k - 1], p.bytes[i]))))
				fits[i + 1][k] = fits[i][k - 1];
		}
	return fits[p.n][n.n] && (*pattern == '$') == (*name == '$');
}

/* Letters of which most are of patterns; a byte in eight is any. */
static void bite_text(struct bites *in, char *to, size_t bytes)
{
	static const char usual[] = "a.b.*.#.";
	size_t i, n = bite_below(in, bytes);

	for (i = 0; i < n; i++) {
		uint8_t b = (uint8_t)bite(in, 1);

		to[i] = b & 7 ? usual[b >> 3 & 7] : (char)bite(in, 1);
	}
	to[n] = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bites in = { data, size };
	char pattern[SHMQ_NAME_MAX + 8], name[SHMQ_NAME_MAX + 8];
	int is_pattern, is_name, fits;

	bite_text(&in, pattern, sizeof(pattern));
	bite_text(&in, name, sizeof(name));
	is_pattern = !WITHIN(STEPS, shmq__name_check_pattern(pattern, NULL));
	is_name = !WITHIN(STEPS, shmq__name_check_topic(name, SHMQ__NAME_BUS, NULL));
	fits = WITHIN(STEPS, shmq_topic_matches(pattern, name));
	if (!is_pattern) {
		CHECK_EQ(fits, SHMQ_ENAME);
		return 0;
	}
	/* Without wildcards it is a name, and means that. */
	if (!shmq__name_is_pattern(pattern)) {
		CHECK_OK(shmq__name_check_topic(pattern, SHMQ__NAME_BUS, NULL));
		CHECK_EQ(shmq_topic_matches(pattern, pattern), 1);
	}
	if (is_name)
		CHECK_EQ(fits, fits_by_table(pattern, name));
	return 0;
}
