/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define SECOND_NS ((int64_t)1000000000)
#define LOOK_NS (SECOND_NS / 10)

/* ---- times ----------------------------------------------------------- */

static int64_t real_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* So many digits, a number within bounds, and the character behind it. */
static int take_digits(const char **text, int digits, int min, int max, int *out)
{
	int i;

	*out = 0;
	for (i = 0; i < digits; i++, (*text)++) {
		if (**text < '0' || **text > '9')
			return -1;
		*out = *out * 10 + (**text - '0');
	}
	return *out < min || *out > max ? -1 : 0;
}

static int take_char(const char **text, const char *any)
{
	if (!**text || !strchr(any, **text))
		return -1;
	(*text)++;
	return 0;
}

static int take_date(const char **text, struct tm *tm)
{
	struct tm real;

	if (take_digits(text, 4, 1970, 2261, &tm->tm_year) || take_char(text, "-") ||
	    take_digits(text, 2, 1, 12, &tm->tm_mon) || take_char(text, "-") ||
	    take_digits(text, 2, 1, 31, &tm->tm_mday))
		return -1;
	tm->tm_year -= 1900;
	tm->tm_mon--;
	real = *tm; /* the 30th of February is none */
	timegm(&real);
	return real.tm_mday == tm->tm_mday ? 0 : -1;
}

static int take_fraction(const char **text, int64_t *ns)
{
	int64_t unit = SECOND_NS;

	if (take_char(text, ".,"))
		return 0;
	if (**text < '0' || **text > '9')
		return -1;
	for (; **text >= '0' && **text <= '9'; (*text)++) {
		unit /= 10;
		*ns += (**text - '0') * unit;
	}
	return 0;
}

static int take_clock(const char **text, struct tm *tm, int64_t *ns)
{
	if (take_digits(text, 2, 0, 23, &tm->tm_hour) || take_char(text, ":") ||
	    take_digits(text, 2, 0, 59, &tm->tm_min))
		return -1;
	if (take_char(text, ":"))
		return 0;
	return take_digits(text, 2, 0, 60, &tm->tm_sec) ? -1 : take_fraction(text, ns);
}

/* Z, +hh:mm, or nothing, which is UTC, too. */
static int take_zone(const char **text, int64_t *seconds)
{
	int sign = **text == '-' ? 1 : -1, hours, minutes = 0;

	if (!**text || !take_char(text, "Zz"))
		return 0;
	if (take_char(text, "+-") || take_digits(text, 2, 0, 23, &hours))
		return -1;
	take_char(text, ":");
	if (**text && take_digits(text, 2, 0, 59, &minutes))
		return -1;
	*seconds += sign * (hours * 3600 + minutes * 60);
	return 0;
}

static int parse_date(const char *text, uint64_t *out)
{
	struct tm tm = { 0 };
	int64_t ns = 0, seconds;

	if (take_date(&text, &tm))
		return -1;
	if (*text && (take_char(&text, "Tt ") || take_clock(&text, &tm, &ns)))
		return -1;
	seconds = timegm(&tm);
	if (take_zone(&text, &seconds) || *text || seconds < 0)
		return -1;
	*out = (uint64_t)(seconds * SECOND_NS + ns);
	return 0;
}

static int parse_age(const char *text, uint64_t *out)
{
	int64_t now = real_now_ns(), age;

	if (text[0] != '-' || units_parse_duration(text + 1, &age) < 0 || age == SHMQ_FOREVER)
		return -1;
	*out = age < now ? (uint64_t)(now - age) : 0;
	return 0;
}

int when_parse(const char *text, struct when *out)
{
	if (units_parse_count(text, &out->value) == 0) {
		out->kind = WHEN_SEQ;
		return 0;
	}
	out->kind = WHEN_TIME;
	if (!strcmp(text, "now")) {
		out->value = (uint64_t)real_now_ns();
		return 0;
	}
	return parse_age(text, &out->value) && parse_date(text, &out->value) ? -1 : 0;
}

struct when when_take(const struct command *command, const char *option, const char *text)
{
	struct when when = { WHEN_NOTHING, 0 };

	if (text && when_parse(text, &when) < 0)
		opts_fail(
			command,
			"--%s takes a seq, a time such as 2026-11-26T07:00:00Z, or an age such as "
			"-5min, not \"%s\"",
			option, text);
	return when;
}

struct units_text when_text(uint64_t ns)
{
	time_t seconds = (time_t)(ns / (uint64_t)SECOND_NS);
	struct units_text text = { "-" };
	struct tm tm;
	size_t used;

	if (!ns || !gmtime_r(&seconds, &tm))
		return text;
	used = strftime(text.s, sizeof(text.s), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text.s + used, sizeof(text.s) - used, ".%09uZ",
		 (unsigned)(ns % (uint64_t)SECOND_NS));
	return text;
}

/* ---- where topics are begun and left --------------------------------- */

void when_start(const struct command *command, const char *text, struct shmq_sub_options *how)
{
	struct when when;

	how->from = SHMQ_FROM_LATEST;
	if (!text || !strcmp(text, "latest"))
		return;
	how->from = SHMQ_FROM_OLDEST;
	if (!strcmp(text, "oldest"))
		return;
	if (when_parse(text, &when) < 0)
		opts_fail(
			command,
			"--from takes latest, oldest, a seq, a time such as 2026-11-26T07:00:00Z, "
			"or an age such as -5min, not \"%s\"",
			text);
	how->from = when.kind == WHEN_SEQ ? SHMQ_FROM_SEQ : SHMQ_FROM_TIME;
	if (when.kind == WHEN_SEQ)
		how->seq = when.value;
	else
		how->ts_ns = when.value;
}

/* Without a time a message is as old as the stream is, for all we know. */
int when_is_reached(const struct when *to, const struct shmq_msg *msg)
{
	if (to->kind == WHEN_SEQ)
		return (int64_t)(msg->seq - to->value) >= 0;
	return to->kind == WHEN_TIME && msg->ts_ns >= to->value;
}

/* Until the clock shows that time, 0 if it does. */
static int64_t left_ns(const struct when *to)
{
	int64_t left = (int64_t)to->value - real_now_ns();

	return left > 0 ? left : 0;
}

int when_is_passed(const struct when *to, shmq_bus *bus, const char *topic, int32_t partition_plus1)
{
	struct shmq_partition_info info;

	if (to->kind == WHEN_TIME)
		return left_ns(to) == 0;
	return to->kind == WHEN_SEQ &&
	       shmq_topic_get_partition(bus, topic,
					partition_plus1 ? (uint32_t)partition_plus1 - 1 : 0,
					&info) == 0 &&
	       (int64_t)(info.head - to->value) >= 0;
}

int64_t when_look_ns(const struct when *to)
{
	int64_t left = to->kind == WHEN_TIME ? left_ns(to) : 0;

	if (to->kind == WHEN_NOTHING)
		return SHMQ_FOREVER;
	return left > 0 ? left : LOOK_NS;
}
