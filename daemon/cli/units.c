/* SPDX-License-Identifier: MIT */
#include "value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *suffix;
	long double factor;
};

static const struct unit counts[] = {
	{ "", 1 },     { "k", 1e3L },  { "K", 1e3L }, { "M", 1e6L },
	{ "G", 1e9L }, { "T", 1e12L }, { NULL, 0 },
};

static const struct unit sizes[] = {
	{ "", 1 },
	{ "B", 1 },
	{ "k", 1024 },
	{ "K", 1024 },
	{ "KiB", 1024 },
	{ "kiB", 1024 },
	{ "M", 1048576 },
	{ "m", 1048576 },
	{ "MiB", 1048576 },
	{ "G", 1073741824 },
	{ "g", 1073741824 },
	{ "GiB", 1073741824 },
	{ "T", 1099511627776 },
	{ "TiB", 1099511627776 },
	{ "kB", 1e3L },
	{ "KB", 1e3L },
	{ "MB", 1e6L },
	{ "GB", 1e9L },
	{ "TB", 1e12L },
	{ NULL, 0 },
};

static const struct unit durations[] = {
	{ "", 1e9L },     { "ns", 1 },    { "us", 1e3L },   { "ms", 1e6L },    { "s", 1e9L },
	{ "min", 60e9L }, { "m", 60e9L }, { "h", 3600e9L }, { "d", 86400e9L }, { NULL, 0 },
};

static const struct unit periods[] = {
	{ "", 1 }, { "/s", 1 }, { "/min", 60 }, { "/m", 60 }, { "/h", 3600 }, { NULL, 0 },
};

/* The factor that the text up to `end` names, 0 if it names none. */
static long double find_factor(const struct unit *units, const char *text, const char *end)
{
	size_t len = (size_t)(end - text);

	for (; units->suffix; units++)
		if (strlen(units->suffix) == len && !memcmp(units->suffix, text, len))
			return units->factor;
	return 0;
}

/* A plain decimal number: strtold() alone would also take signs, blanks,
 * exponents, hexadecimal and "inf". */
static int parse_number(const char *text, long double *out, const char **rest)
{
	size_t len = strspn(text, "0123456789.");
	char *end;
	char *copy;

	if (!len || text[0] == '.')
		return -1;
	copy = strndup(text, len);
	if (!copy)
		return -1;
	*out = strtold(copy, &end);
	len = (size_t)(end - copy);
	free(copy);
	*rest = text + len;
	return **rest == '.' ? -1 : 0;
}

static int parse_scaled(const char *text, const struct unit *units, uint64_t max, uint64_t *out)
{
	long double number, factor;
	const char *rest;

	if (parse_number(text, &number, &rest) < 0)
		return -1;
	factor = find_factor(units, rest, rest + strlen(rest));
	if (factor == 0)
		return -1;
	number *= factor;
	if (number > (long double)max || number != (long double)(uint64_t)number)
		return -1;
	*out = (uint64_t)number;
	return 0;
}

/* Hexadecimal as well: that is how sub prints tags. */
static int parse_hex(const char *text, uint64_t *out)
{
	char *end;
	size_t len = strspn(text + 2, "0123456789abcdefABCDEF");

	if (!len || len > 16)
		return -1;
	*out = strtoull(text + 2, &end, 16);
	return *end ? -1 : 0;
}

int units_parse_count(const char *text, uint64_t *out)
{
	if (!strncmp(text, "0x", 2))
		return parse_hex(text, out);
	return parse_scaled(text, counts, UINT64_MAX, out);
}

int units_parse_size(const char *text, uint64_t *out)
{
	return parse_scaled(text, sizes, UINT64_MAX, out);
}

int units_parse_duration(const char *text, int64_t *out)
{
	uint64_t ns;

	if (!strcmp(text, "forever")) {
		*out = SHMQ_FOREVER;
		return 0;
	}
	if (parse_scaled(text, durations, INT64_MAX, &ns) < 0)
		return -1;
	*out = (int64_t)ns;
	return 0;
}

int units_parse_rate(const char *text, double *out)
{
	long double number, factor, period;
	const char *rest, *slash;

	if (parse_number(text, &number, &rest) < 0)
		return -1;
	slash = rest + strcspn(rest, "/");
	factor = find_factor(counts, rest, slash);
	period = find_factor(periods, slash, slash + strlen(slash));
	if (factor == 0 || period == 0)
		return -1;
	*out = (double)(number * factor / period);
	return 0;
}

/* Three digits that matter, and no ".0". */
static struct units_text scaled(double value, double step, const char *const *suffixes)
{
	struct units_text text;
	int whole;

	while (value >= step && suffixes[1]) {
		value /= step;
		suffixes++;
	}
	whole = value >= 99.95 || value == (double)(uint64_t)value;
	snprintf(text.s, sizeof(text.s), "%.*f%s", whole ? 0 : 1, value, *suffixes);
	return text;
}

struct units_text units_size(uint64_t bytes)
{
	static const char *const suffixes[] = { " B", " KiB", " MiB", " GiB", " TiB", NULL };

	return scaled((double)bytes, 1024, suffixes);
}

struct units_text units_duration(int64_t ns)
{
	static const char *const suffixes[] = { " ns", " us", " ms", " s", NULL };
	struct units_text text;
	int64_t seconds = ns / 1000000000;

	if (ns == SHMQ_FOREVER) {
		snprintf(text.s, sizeof(text.s), "forever");
		return text;
	}
	if (seconds < 60)
		return scaled((double)ns, 1000, suffixes);
	if (seconds < 3600)
		snprintf(text.s, sizeof(text.s), "%d min %d s", (int)(seconds / 60),
			 (int)(seconds % 60));
	else if (seconds < 86400)
		snprintf(text.s, sizeof(text.s), "%d h %d min", (int)(seconds / 3600),
			 (int)(seconds / 60 % 60));
	else
		snprintf(text.s, sizeof(text.s), "%" PRId64 " d %d h", seconds / 86400,
			 (int)(seconds / 3600 % 24));
	return text;
}

struct units_text units_rate(double per_second)
{
	static const char *const suffixes[] = { "/s", "k/s", "M/s", "G/s", NULL };

	return scaled(per_second, 1000, suffixes);
}

struct units_text units_count(uint64_t count)
{
	struct units_text text;

	snprintf(text.s, sizeof(text.s), "%" PRIu64, count);
	return text;
}

struct units_text units_node(int node)
{
	struct units_text text;

	if (node == SHMQ_NODE_ANY)
		snprintf(text.s, sizeof(text.s), "any");
	else if (node == SHMQ_NODE_PUBLISHER)
		snprintf(text.s, sizeof(text.s), "publisher");
	else
		snprintf(text.s, sizeof(text.s), "%d", node - 1);
	return text;
}

const char *units_plural(uint64_t count, const char *one, const char *many)
{
	return count == 1 ? one : many;
}
