/* SPDX-License-Identifier: MIT
 *
 * value: options as tables, and their values as text.  The command line reads
 * its options by them and the supervisor its configuration, so that a topic is
 * described by the same words in both; no file of these ends the program.
 */
#ifndef SHMQ_VALUE_H
#define SHMQ_VALUE_H

#include <shmq.h>

#include <stddef.h>
#include <stdint.h>

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- options --------------------------------------------------------- */

enum opt_kind {
	OPT_HELP,
	OPT_SET,      /* no argument: stores .value */
	OPT_OR,       /* no argument: sets the bits of .value */
	OPT_TEXT,     /* const char *, the argument itself */
	OPT_LIST,     /* struct opt_list, may be repeated */
	OPT_COUNT,    /* k, M, G are powers of 1000 */
	OPT_SIZE,     /* k, M, G are powers of 1024 */
	OPT_DURATION, /* int64_t nanoseconds; "forever" is SHMQ_FOREVER */
	OPT_RATE,     /* double, per second */
	OPT_INDEX,    /* n is stored as n + 1: zero stays "not given"; or one of .words */
	OPT_WORD,     /* value of one of .words */
};

struct opt_word {
	const char *text;
	int value;
};

struct opt_list {
	const char **items;
	size_t count, room;
};

struct opt {
	const char *name;
	char letter;
	enum opt_kind kind;
	size_t offset, bytes; /* OPT_AT */
	const char *arg;      /* name of the argument in the help */
	const char *help;     /* lines separated by \n */
	const struct opt_word *words;
	uint64_t value;    /* OPT_SET, OPT_OR */
	uint64_t min, max; /* of numbers; max 0: what fits */
};
#define OPT_AT(type, member) \
	.offset = offsetof(type, member), .bytes = sizeof(((type *)NULL)->member)

#define VALUE_WHY_BYTES 256

/* Store what the text of this option says; not of OPT_HELP and OPT_LIST, which are the
 * caller's.  0, or -1 and in why[VALUE_WHY_BYTES] what the option takes, for
 * behind its name. */
int value_take(const struct opt *option, void *into, const char *text, char *why);
/* What options store that take no argument, and numbers. */
void value_store(const struct opt *option, void *into, uint64_t value);
int value_takes_argument(const struct opt *option);

/* Text of a value in a word list, "?" if it is not there; and all of its words,
 * "a|b". */
const char *value_word(const struct opt_word *words, int value);
void value_join(const struct opt_word *words, char *out, size_t bytes);

/* Which of two names may have been meant by `text`: `name` if it is nearer to it than
 * `best` and near enough, else `best`; NULL is no name. */
const char *value_nearer(const char *text, const char *best, const char *name);

/* ---- units ----------------------------------------------------------- */

struct units_text {
	char s[96];
};

/* 0, or -1 if the text is no such thing or does not fit. */
int units_parse_count(const char *text, uint64_t *out);
int units_parse_size(const char *text, uint64_t *out);
int units_parse_duration(const char *text, int64_t *out);
int units_parse_rate(const char *text, double *out);

struct units_text units_size(uint64_t bytes);    /* 1.5 MiB */
struct units_text units_duration(int64_t ns);    /* 1.5 s, 2 h 3 min */
struct units_text units_rate(double per_second); /* 12.3k/s */
struct units_text units_count(uint64_t count);   /* 1572864 */
struct units_text units_node(int node);          /* of SHMQ_NODE(): 0, any */
const char *units_plural(uint64_t count, const char *one, const char *many);

/* ---- what a topic can be --------------------------------------------- */

extern const struct opt_word shape_modes[], shape_policies[], shape_stalls[], shape_waits[],
	shape_pages[], shape_locks[], shape_logs[], shape_syncs[];
extern const struct opt shape_options[]; /* into struct shmq_topic_options */
extern const size_t shape_option_count;

#endif
