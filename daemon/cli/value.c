/* SPDX-License-Identifier: MIT */
#include "value.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *noun, *examples;
} kinds[] = {
	[OPT_COUNT] = { "a number", "such as 100 or 10k" },
	[OPT_SIZE] = { "a size", "such as 4096, 64k or 1GiB" },
	[OPT_DURATION] = { "a duration", "such as 100ms, 5s, 2min or forever" },
	[OPT_RATE] = { "a rate", "such as 500/s, 10k/s or 30/min" },
	[OPT_INDEX] = { "a number", "counted from 0" },
};

static int refuse(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(char *why, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, VALUE_WHY_BYTES, format, ap);
	va_end(ap);
	return -1;
}

const char *value_word(const struct opt_word *words, int value)
{
	for (; words->text; words++)
		if (words->value == value)
			return words->text;
	return "?";
}

void value_join(const struct opt_word *words, char *out, size_t bytes)
{
	size_t len = 0;

	for (; words->text && len < bytes; words++)
		len += (size_t)snprintf(out + len, bytes - len, "%s%s", len ? "|" : "",
					words->text);
}

int value_takes_argument(const struct opt *option)
{
	return option->kind != OPT_HELP && option->kind != OPT_SET && option->kind != OPT_OR;
}

void value_store(const struct opt *option, void *into, uint64_t value)
{
	char *field = (char *)into + option->offset;
	uint32_t narrow = (uint32_t)value;

	if (option->bytes == sizeof(value))
		memcpy(field, &value, sizeof(value));
	else
		memcpy(field, &narrow, sizeof(narrow));
}

static uint64_t largest(const struct opt *option)
{
	if (option->max)
		return option->max;
	return option->bytes == 8 ? UINT64_MAX : (uint64_t)INT32_MAX - 1;
}

/* As it would be written: 1G of a size, for which that is shorter. */
static struct units_text bound_text(const struct opt *option, uint64_t bound)
{
	static const char letters[] = "kMGT";
	struct units_text text;
	unsigned i = 0;

	if (option->kind == OPT_SIZE)
		for (; i < sizeof(letters) - 1 && bound && bound % 1024 == 0; i++)
			bound /= 1024;
	snprintf(text.s, sizeof(text.s), "%" PRIu64 "%.1s", bound, i ? &letters[i - 1] : "");
	return text;
}

static int check_range(const struct opt *option, const char *text, uint64_t value, char *why)
{
	if (value < option->min && option->kind == OPT_DURATION)
		return refuse(why, "must be longer than 0");
	if (value < option->min)
		return refuse(why, "must be at least %s, not %.64s",
			      bound_text(option, option->min).s, text);
	if (value > largest(option))
		return refuse(why, "may be at most %s, not %.64s",
			      bound_text(option, largest(option)).s, text);
	return 0;
}

/* Its last one, without text, if there is no such word. */
static const struct opt_word *find_word(const struct opt *option, const char *text)
{
	const struct opt_word *word = option->words;

	while (word->text && strcmp(word->text, text))
		word++;
	return word;
}

static int take_word(const struct opt *option, void *into, const char *text, char *why)
{
	const struct opt_word *word = find_word(option, text);
	char words[128] = "";

	if (!word->text) {
		value_join(option->words, words, sizeof(words));
		return refuse(why, "takes %s, not \"%.64s\"", words, text);
	}
	value_store(option, into, (uint64_t)word->value);
	return 0;
}

static int parse(const struct opt *option, const char *text, uint64_t *value, double *rate)
{
	int64_t ns = 0;
	int rc;

	switch (option->kind) {
	case OPT_SIZE:
		return units_parse_size(text, value);
	case OPT_DURATION:
		rc = units_parse_duration(text, &ns);
		*value = (uint64_t)ns;
		return rc;
	case OPT_RATE:
		return units_parse_rate(text, rate) < 0 || !(*rate > 0) ? -1 : 0;
	default:
		return units_parse_count(text, value);
	}
}

static int take_number(const struct opt *option, void *into, const char *text, char *why)
{
	uint64_t value = 0;
	double rate = 0;

	if (option->words && find_word(option, text)->text)
		return take_word(option, into, text, why);
	if (parse(option, text, &value, &rate) < 0)
		return refuse(why, "takes %s, %s, not \"%.64s\"", kinds[option->kind].noun,
			      kinds[option->kind].examples, text);
	if (option->kind == OPT_RATE) {
		memcpy((char *)into + option->offset, &rate, sizeof(rate));
		return 0;
	}
	if (check_range(option, text, value, why) < 0)
		return -1;
	value_store(option, into, option->kind == OPT_INDEX ? value + 1 : value);
	return 0;
}

int value_take(const struct opt *option, void *into, const char *text, char *why)
{
	uint32_t bits;

	switch (option->kind) {
	case OPT_SET:
		value_store(option, into, option->value);
		return 0;
	case OPT_OR:
		memcpy(&bits, (char *)into + option->offset, sizeof(bits));
		value_store(option, into, bits | option->value);
		return 0;
	case OPT_TEXT:
		memcpy((char *)into + option->offset, &text, sizeof(text));
		return 0;
	case OPT_WORD:
		return take_word(option, into, text, why);
	default:
		return take_number(option, into, text, why);
	}
}

/* ---- what was meant -------------------------------------------------- */

/* Levenshtein's distance, of short words. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[64], i, j, n = (unsigned)strlen(b);

	if (n >= 64)
		return 64;
	for (j = 0; j <= n; j++)
		row[j] = j;
	for (i = 0; a[i]; i++) {
		unsigned before = row[0];

		row[0] = i + 1;
		for (j = 1; j <= n; j++) {
			unsigned same = before + (a[i] != b[j - 1]);

			before = row[j];
			row[j] = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
			if (same < row[j])
				row[j] = same;
		}
	}
	return row[n];
}

const char *value_nearer(const char *text, const char *best, const char *name)
{
	size_t length = strlen(text);
	unsigned least = length < 8 ? (unsigned)length / 2 + 1 : 4;

	if (best)
		least = distance(text, best);
	return distance(text, name) < least ? name : best;
}
