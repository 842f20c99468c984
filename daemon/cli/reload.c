/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <string.h>

struct reload {
	int json;
};

static const struct opt options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct reload, json), .value = 1,
	  .help = "print one JSON object" },
};

static void print_json(int changes, const char *text)
{
	json_t *object = json_object(), *lines = json_array();
	size_t n;

	for (; *text; text += n + (text[n] == '\n')) {
		n = strcspn(text, "\n");
		json_array_append_new(lines, json_stringn(text, n));
	}
	json_put_u64(object, "changed", (uint64_t)changes);
	json_put(object, "changes", lines);
	json_print(object);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct reload reload = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &reload },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_reload, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	const char *name = cli->bus_name ? cli->bus_name : "default";
	char text[1024];
	int rc;

	if (first != argc)
		opts_fail(&cmd_reload, "reload takes no operand (hint: --bus names the bus)");
	cli->start = SHMQ_START_NEVER;
	rc = cli_open(cli);
	if (rc != CLI_OK)
		return rc;
	rc = shmq_bus_reload(cli->bus, text, sizeof(text));
	if (rc < 0)
		return out_fail(cli, rc, "reloading the configuration of bus", name, NULL);
	if (reload.json)
		print_json(rc, text);
	else
		printf("%d %s changed\n%s", rc, units_plural((uint64_t)rc, "setting", "settings"),
		       text);
	if (!reload.json && *text && text[strlen(text) - 1] != '\n')
		printf(" (the log of shmqd has the rest)\n");
	return CLI_OK;
}

const struct command cmd_reload = {
	"reload",
	"[OPTION]...",
	"Have the supervisor take its configuration anew",
	"A file with a mistake in it is refused whole, and the bus goes on as it was.\n",
	"shmq config check && shmq reload\n",
	run,
};
