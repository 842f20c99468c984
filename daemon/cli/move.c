/* SPDX-License-Identifier: MIT */
#include "cli.h"

struct move {
	int json;
};

static const struct opt options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct move, json), .value = 1,
	  .help = "print one JSON object" },
};

static void print_json(const char *topic)
{
	json_t *object = json_object();

	json_put_text(object, "topic", topic);
	json_put(object, "moved", json_true());
	json_print(object);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct move move = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &move },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int i = opts_parse(&cmd_move, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc - i != 1)
		opts_fail(&cmd_move, "move takes one topic");
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	rc = shmq_topic_move(cli->bus, argv[i]);
	if (rc)
		return out_fail(cli, rc, "moving", argv[i], NULL);
	if (move.json)
		print_json(argv[i]);
	return CLI_OK;
}

const struct command cmd_move = {
	"move",
	"TOPIC [OPTION]...",
	"Give a topic fresh rings",
	"For a topic whose ring is held by a publisher that cannot be killed, because\n"
	"it is frozen: the name leads to new rings of the same shape, which go on\n"
	"where the old ones end.  Who has the topic open is told so and opens it again.\n",
	"shmq move md.trades\n",
	run,
};
