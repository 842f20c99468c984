/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define LONG_BASE 256 /* getopt's values of long options start here */
#define HELP_COLUMN 26

struct parser {
	const struct command *command;
	const struct opt **options;
	void **into;
	char *given; /* 1 for each that was */
	size_t count;
	struct option *longs;
	char *letters;
};

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
	out_error(format, ap);
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

static void print_option(const struct opt *option)
{
	char words[128] = "", head[192];
	const char *arg = option->arg ? option->arg : "", *line = option->help;
	int width;

	if (option->kind == OPT_WORD) {
		value_join(option->words, words, sizeof(words));
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

static void print_examples(const char *line)
{
	size_t len;

	printf("\nExamples:\n");
	for (; *line; line += len + (line[len] == '\n')) {
		len = strcspn(line, "\n");
		printf("  %.*s\n", (int)len, line);
	}
}

static void help(const struct command *command, const struct opt_group *groups, size_t count)
{
	print_usage(stdout, command);
	printf("\n%s.\n", command->summary);
	if (command->details)
		printf("\n%s", command->details);
	opts_print_help(groups, count);
	if (command->examples)
		print_examples(command->examples);
	exit(out_finish());
}

/* ---- values ---------------------------------------------------------- */

static void take_item(const struct opt *option, void *into, const char *text)
{
	struct opt_list *list = (struct opt_list *)((char *)into + option->offset);

	list->items = cli_grow(list->items, list->count, &list->room, sizeof(*list->items));
	list->items[list->count++] = text;
}

static void take(const struct command *command, const struct opt *option, void *into,
		 const char *text)
{
	char why[VALUE_WHY_BYTES];

	if (option->kind == OPT_HELP)
		value_store(option, into, 1);
	else if (option->kind == OPT_LIST)
		take_item(option, into, text);
	else if (value_take(option, into, text, why) < 0)
		opts_fail(command, "--%s %s", option->name, why);
}

/* ---- parsing --------------------------------------------------------- */

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
		.has_arg = value_takes_argument(option) ? required_argument : no_argument,
		.val = LONG_BASE + (int)parser->count,
	};
	parser->options[parser->count] = option;
	parser->into[parser->count++] = into;
	if (option->letter)
		snprintf(parser->letters + at, 3, "%c%s", option->letter,
			 value_takes_argument(option) ? ":" : "");
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

/* getopt takes the beginning of a name for the name, if it is of one only. */
static void refuse_long(const struct parser *parser, const char *text)
{
	char name[64], all[512] = "";
	const char *best = NULL;
	size_t i, used = 0, found = 0;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, "="), text);
	for (i = 0; i < parser->count; i++) {
		best = value_nearer(name, best, parser->options[i]->name);
		if (strncmp(parser->options[i]->name, name, strlen(name)) != 0)
			continue;
		found++;
		if (used < sizeof(all))
			used += (size_t)snprintf(all + used, sizeof(all) - used, "%s--%s",
						 used ? " or " : "", parser->options[i]->name);
	}
	if (found > 1)
		opts_fail(parser->command, "ambiguous option \"--%s\": is it %s?", name, all);
	opts_fail(parser->command, "unknown option \"--%s\"%s%s%s", name, best ? ": is it --" : "",
		  best ? best : "", best ? "?" : "");
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
	if (name == letter)
		opts_fail(parser->command, "unknown option \"%s\"", name);
	refuse_long(parser, name + 2);
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
		if (parser.options[i]->kind == OPT_HELP && mode == OPTS_PERMUTE)
			help(command, groups, count);
		check_excluded(&parser, i);
		parser.given[i] = 1;
		take(command, parser.options[i], parser.into[i], optarg);
	}
	destroy(&parser);
	return optind;
}
