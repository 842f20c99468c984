/* SPDX-License-Identifier: MIT */
#include "cli.h"

struct ls {
	int details, all, json;
};

static const struct opt options[] = {
	{ "long", .letter = 'l', .kind = OPT_SET, OPT_AT(struct ls, details), .value = 1,
	  .help = "a table with shape, use and memory" },
	{ "all", .letter = 'a', .kind = OPT_SET, OPT_AT(struct ls, all), .value = 1,
	  .help = "also topics of the bus itself" },
	{ "json", .kind = OPT_SET, OPT_AT(struct ls, json), .value = 1,
	  .help = "print one JSON array, one object per topic" },
};

static void print_names(const struct topics *topics)
{
	size_t i;

	for (i = 0; i < topics->count; i++)
		if (!topics->all[i].ended)
			printf("%s\n", topics->all[i].name);
}

static void print_details(const struct topics *topics)
{
	static const char *const heads[] = {
		"TOPIC",  "POLICY", "MODE",  ">DEPTH", ">SLOT", ">PARTS", ">MAX",
		">BYTES", ">PAGE",  ">NODE", ">PUBS",  ">SUBS", ">HEAD",  "NOTE",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	for (i = 0; i < topics->count; i++) {
		const struct shmq_topic_info *topic = &topics->all[i];

		table_add(&table, "%s", topic->name);
		table_add(&table, "%s", value_word(shape_policies, (int)topic->policy));
		table_add(&table, "%s", value_word(shape_modes, (int)topic->mode));
		table_add(&table, "%s", units_count(topic->depth).s);
		table_add(&table, "%s", units_count(topic->slot_bytes).s);
		table_add(&table, "%s", units_count(topic->partitions).s);
		table_add(&table, "%s", units_size(topic->max_message_bytes).s);
		table_add(&table, "%s", units_size(topic->ring_bytes).s);
		table_add(&table, "%s", units_size(topic->page_bytes).s);
		table_add(&table, "%s", units_node(topic->node_actual).s);
		table_add(&table, "%u", topic->publishers);
		table_add(&table, "%u", topic->subscribers);
		table_add(&table, "%s", units_count(topic->head).s);
		table_add(&table, "%s%s%s", topic->ended ? "removed, still open" : "",
			  topic->ended && topic->note[0] ? ", " : "",
			  out_note_heads(topic->note).s);
	}
	table_print(&table, "");
	table_clear(&table);
}

static void print_json(const struct topics *topics)
{
	json_t *array = json_array();
	size_t i;

	for (i = 0; i < topics->count; i++)
		json_array_append_new(array, topics_json(&topics->all[i]));
	json_print(array);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct ls ls = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &ls },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_ls, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	struct topics topics;
	int rc;

	if (argc - first > 1)
		opts_fail(&cmd_ls, "ls takes one pattern, not %d (hint: quote it)", argc - first);
	rc = cli_open(cli);
	if (rc != CLI_OK)
		return rc;
	rc = topics_collect(cli->bus, argv[first], &topics);
	if (rc == 0 && ls.all)
		rc = topics_collect_own(cli->bus, argv[first], &topics);
	if (rc == 0 && ls.json)
		print_json(&topics);
	else if (rc == 0 && ls.details)
		print_details(&topics);
	else if (rc == 0)
		print_names(&topics);
	topics_clear(&topics);
	return rc == 0 ? CLI_OK : out_fail(cli, rc, "listing bus", shmq_bus_name(cli->bus), NULL);
}

const struct command cmd_ls = {
	"ls",
	"[PATTERN] [OPTION]...",
	"List the topics",
	"PATTERN is the start of the names to list; a pattern as sub takes them, where * is\n"
	"one word and # any number of words; or, if *, ? or [ stand inside words, a pattern\n"
	"for whole names as of the shell.  Topics of the bus itself, as the private ones of\n"
	"those who ask and $sys.events, begin with $ and are listed with --all, or by what\n"
	"does so, too: shmq ls '$'.\n",
	"shmq ls 'md.#' --long\n",
	run,
};
