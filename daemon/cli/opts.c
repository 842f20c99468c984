/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LONG_BASE 256 /* getopt's values of long options start here */
#define HELP_COLUMN 26

static const struct {
	const char *noun, *examples;
} kinds[] = {
	[OPT_COUNT] = { "a number", "such as 100 or 10k" },
	[OPT_SIZE] = { "a size", "such as 4096, 64k or 1GiB" },
	[OPT_DURATION] = { "a duration", "such as 100ms, 5s, 2min or forever" },
	[OPT_RATE] = { "a rate", "such as 500/s, 10k/s or 30/min" },
	[OPT_INDEX] = { "a number", "counted from 0" },
};

struct parser {
	const struct command *command;
	const struct opt **options;
	void **into;
	char *given; /* 1 for each that was */
	size_t count;
	struct option *longs;
	char *letters;
};

const char *opts_word(const struct opt_word *words, int value)
{
	for (; words->text; words++)
		if (words->value == value)
			return words->text;
	return "?";
}

static void print_usage(FILE *to, const struct command *command)
{
	fprintf(to, "usage: shmq [OPTION]... %s%s%s\n", command->name,
		command->operands[0] ? " " : "", command->operands);
}

void opts_fail(const struct command *command, const char *format, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "shmq: ");
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (command)
		print_usage(stderr, command);
	else
		fprintf(stderr, "usage: shmq [OPTION]... COMMAND ...\n");
	fprintf(stderr, "(hint: shmq %s%s--help)\n", command ? command->name : "",
		command ? " " : "");
	exit(CLI_USAGE);
}

/* ---- help ------------------------------------------------------------ */

static void join_words(const struct opt_word *words, char *out, size_t bytes)
{
	size_t len = 0;

	for (; words->text && len < bytes; words++)
		len += (size_t)snprintf(out + len, bytes - len, "%s%s", len ? "|" : "",
					words->text);
}

static void print_option(const struct opt *option)
{
	char words[128] = "", head[192];
	const char *arg = option->arg ? option->arg : "", *line = option->help;
	int width;

	if (option->kind == OPT_WORD) {
		join_words(option->words, words, sizeof(words));
		arg = words;
	}
	if (option->letter)
		width = snprintf(head, sizeof(head), "-%c, ", option->letter);
	else
		width = snprintf(head, sizeof(head), "    ");
	snprintf(head + width, sizeof(head) - (size_t)width, "--%s%s%s", option->name,
		 arg[0] ? " " : "", arg);
	width = printf("  %s", head);
	if (width > HELP_COLUMN - 2) {
		putchar('\n');
		width = 0;
	}
	while (*line) {
		size_t len = strcspn(line, "\n");

		printf("%*s%.*s\n", HELP_COLUMN - width, "", (int)len, line);
		width = 0;
		line += len + (line[len] == '\n');
	}
}

void opts_print_help(const struct opt_group *groups, size_t count)
{
	size_t g, i;

	for (g = 0; g < count; g++) {
		if (!groups[g].title)
			continue;
		printf("\n%s:\n", groups[g].title);
		for (i = 0; i < groups[g].count; i++)
			print_option(&groups[g].options[i]);
	}
}

static void help(const struct command *command, const struct opt_group *groups, size_t count)
{
	print_usage(stdout, command);
	printf("\n%s.\n", command->summary);
	if (command->details)
		printf("\n%s", command->details);
	opts_print_help(groups, count);
	exit(out_finish());
}

/* ---- values ---------------------------------------------------------- */

static void store(const struct opt *option, void *into, uint64_t value)
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

static void check_range(const struct command *command, const struct opt *option, const char *text,
			uint64_t value)
{
	if (value < option->min && option->kind == OPT_DURATION)
		opts_fail(command, "--%s must be longer than 0", option->name);
	if (value < option->min)
		opts_fail(command, "--%s must be at least %" PRIu64 ", not %s", option->name,
			  option->min, text);
	if (value > largest(option))
		opts_fail(command, "--%s may be at most %" PRIu64 ", not %s", option->name,
			  largest(option), text);
}

/* Its last one, without text, if there is no such word. */
static const struct opt_word *find_word(const struct opt *option, const char *text)
{
	const struct opt_word *word = option->words;

	while (word->text && strcmp(word->text, text))
		word++;
	return word;
}

static void take_word(const struct command *command, const struct opt *option, void *into,
		      const char *text)
{
	const struct opt_word *word = find_word(option, text);
	char words[128] = "";

	if (!word->text) {
		join_words(option->words, words, sizeof(words));
		opts_fail(command, "--%s takes %s, not \"%s\"", option->name, words, text);
	}
	store(option, into, (uint64_t)word->value);
}

static void take_item(const struct opt *option, void *into, const char *text)
{
	struct opt_list *list = (struct opt_list *)((char *)into + option->offset);

	list->items = cli_grow(list->items, list->count, &list->room, sizeof(*list->items));
	list->items[list->count++] = text;
}

static int parse_value(const struct opt *option, const char *text, uint64_t *value, double *rate)
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

static void take_number(const struct command *command, const struct opt *option, void *into,
			const char *text)
{
	uint64_t value = 0;
	double rate = 0;

	if (option->words && find_word(option, text)->text) {
		take_word(command, option, into, text);
		return;
	}
	if (parse_value(option, text, &value, &rate) < 0)
		opts_fail(command, "--%s takes %s, %s, not \"%s\"", option->name,
			  kinds[option->kind].noun, kinds[option->kind].examples, text);
	if (option->kind == OPT_RATE) {
		memcpy((char *)into + option->offset, &rate, sizeof(rate));
		return;
	}
	check_range(command, option, text, value);
	store(option, into, option->kind == OPT_INDEX ? value + 1 : value);
}

static void take(const struct command *command, const struct opt *option, void *into,
		 const char *text)
{
	uint32_t bits;

	switch (option->kind) {
	case OPT_HELP: /* handled by the caller, who has the groups */
		break;
	case OPT_SET:
		store(option, into, option->value);
		break;
	case OPT_OR:
		memcpy(&bits, (char *)into + option->offset, sizeof(bits));
		store(option, into, bits | option->value);
		break;
	case OPT_TEXT:
		memcpy((char *)into + option->offset, &text, sizeof(text));
		break;
	case OPT_LIST:
		take_item(option, into, text);
		break;
	case OPT_WORD:
		take_word(command, option, into, text);
		break;
	default:
		take_number(command, option, into, text);
	}
}

/* ---- parsing --------------------------------------------------------- */

static int takes_argument(const struct opt *option)
{
	return option->kind != OPT_HELP && option->kind != OPT_SET && option->kind != OPT_OR;
}

static int is_known(const struct parser *parser, const char *name)
{
	size_t i;

	for (i = 0; i < parser->count; i++)
		if (!strcmp(parser->options[i]->name, name))
			return 1;
	return 0;
}

static void add_option(struct parser *parser, const struct opt *option, void *into)
{
	size_t at = strlen(parser->letters);

	if (is_known(parser, option->name))
		return;
	parser->longs[parser->count] = (struct option){
		.name = option->name,
		.has_arg = takes_argument(option) ? required_argument : no_argument,
		.val = LONG_BASE + (int)parser->count,
	};
	parser->options[parser->count] = option;
	parser->into[parser->count++] = into;
	if (option->letter)
		snprintf(parser->letters + at, 3, "%c%s", option->letter,
			 takes_argument(option) ? ":" : "");
}

static void build(struct parser *parser, enum opts_mode mode, const struct opt_group *groups,
		  size_t count)
{
	size_t g, i, total = 0;

	for (g = 0; g < count; g++)
		total += groups[g].count;
	parser->longs = cli_alloc(NULL, (total + 1) * sizeof(*parser->longs));
	parser->options = cli_alloc(NULL, (total + 1) * sizeof(*parser->options));
	parser->into = cli_alloc(NULL, (total + 1) * sizeof(*parser->into));
	parser->given = cli_alloc(NULL, total + 1);
	memset(parser->given, 0, total + 1);
	parser->letters = cli_alloc(NULL, 2 * total + 3);
	strcpy(parser->letters, mode == OPTS_STOP ? "+:" : ":");
	for (g = 0; g < count; g++)
		for (i = 0; i < groups[g].count; i++)
			add_option(parser, &groups[g].options[i], groups[g].into);
	memset(&parser->longs[parser->count], 0, sizeof(*parser->longs));
}

static void destroy(struct parser *parser)
{
	free(parser->longs);
	free(parser->options);
	free(parser->into);
	free(parser->given);
	free(parser->letters);
}

static size_t find(const struct parser *parser, int value)
{
	size_t i;

	if (value >= LONG_BASE)
		return (size_t)(value - LONG_BASE);
	for (i = 0; i < parser->count; i++)
		if (parser->options[i]->letter == value)
			break;
	return i;
}

/* Two names of one choice: one of them would be without effect. */
static void check_excluded(const struct parser *parser, size_t i)
{
	const struct opt *option = parser->options[i], *other;
	size_t k;

	for (k = 0; k < parser->count; k++) {
		other = parser->options[k];
		if (parser->given[k] && other->kind == OPT_SET && option->kind == OPT_SET &&
		    parser->into[k] == parser->into[i] && other->offset == option->offset &&
		    other->value != option->value)
			opts_fail(parser->command, "--%s and --%s exclude each other", other->name,
				  option->name);
	}
}

/* getopt leaves optopt at 0 for a long option it does not know, and then
 * the word it stands behind is the culprit. */
static void refuse(const struct parser *parser, int value, char **argv)
{
	char letter[3] = { '-', (char)optopt, '\0' };
	const char *name = optopt > 0 && optopt < LONG_BASE ? letter : argv[optind - 1];

	if (value == ':')
		opts_fail(parser->command, "option \"%s\" needs an argument", name);
	if (optopt >= LONG_BASE)
		opts_fail(parser->command, "option \"%s\" takes no argument", name);
	opts_fail(parser->command, "unknown or ambiguous option \"%s\"", name);
}

int opts_parse(const struct command *command, enum opts_mode mode, int argc, char **argv,
	       const struct opt_group *groups, size_t count)
{
	struct parser parser = { .command = command };
	size_t i;
	int value;

	build(&parser, mode, groups, count);
	opterr = 0;
	optind = 0; /* glibc: start afresh */
	while ((value = getopt_long(argc, argv, parser.letters, parser.longs, NULL)) != -1) {
		if (value == '?' || value == ':')
			refuse(&parser, value, argv);
		i = find(&parser, value);
		if (parser.options[i]->kind == OPT_HELP && command)
			help(command, groups, count);
		check_excluded(&parser, i);
		parser.given[i] = 1;
		take(command, parser.options[i], parser.into[i], optarg);
		if (parser.options[i]->kind == OPT_HELP)
			store(parser.options[i], parser.into[i], 1);
	}
	destroy(&parser);
	return optind;
}
