/* SPDX-License-Identifier: MIT */
#include "cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	const struct opt_group groups[] = {
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
	return rc ? out_fail(cli, rc, "moving", argv[i], NULL) : CLI_OK;
}

const struct command cmd_move = {
	"move",
	"TOPIC [OPTION]...",
	"Give a topic fresh rings",
	"For a topic whose ring is held by a publisher that cannot be killed, because\n"
	"it is frozen: the name leads to new rings of the same shape, which go on\n"
	"where the old ones end.  Who has the topic open is told so and opens it again.\n",
	run,
};
