/* SPDX-License-Identifier: MIT */
#include "cli.h"

struct rm {
	unsigned flags;
	int json;
};

static const struct opt options[] = {
	{ "force", .letter = 'f', .kind = OPT_OR, OPT_AT(struct rm, flags), .value = SHMQ_FORCE,
	  .help = "remove it while it is in use: who has it open reads\n"
		  "what is left and then sees the end of the stream" },
	{ "json", .kind = OPT_SET, OPT_AT(struct rm, json), .value = 1,
	  .help = "print one JSON object for each topic" },
};

static void print_json(const char *topic, int is_removed)
{
	json_t *object = json_object();

	json_put_text(object, "topic", topic);
	json_put(object, "removed", json_boolean(is_removed));
	json_print(object);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct rm rm = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &rm },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int i = opts_parse(&cmd_rm, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, worst = CLI_OK, rc;

	if (i == argc)
		opts_fail(&cmd_rm, "rm takes at least one topic");
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	for (; i < argc; i++) {
		rc = shmq_topic_remove(cli->bus, argv[i], rm.flags);
		if (rm.json)
			print_json(argv[i], rc == 0);
		if (rc == 0)
			continue;
		code = out_fail(cli, rc, "removing", argv[i], NULL);
		worst = worst == CLI_OK ? code : worst;
	}
	return worst;
}

const struct command cmd_rm = {
	"rm",
	"TOPIC... [OPTION]...",
	"Remove topics",
	"Each topic is tried; the exit code is that of the first that failed.\n",
	"shmq rm md.trades orders\n",
	run,
};
