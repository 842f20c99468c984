/* SPDX-License-Identifier: MIT */
#include "cli.h"

struct version {
	int json;
};

static const struct opt options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct version, json), .value = 1,
	  .help = "print one JSON object" },
};

#define STRING2(x) #x
#define STRING(x) STRING2(x)
#define HEADER_VERSION \
	STRING(SHMQ_VERSION_MAJOR) "." STRING(SHMQ_VERSION_MINOR) "." STRING(SHMQ_VERSION_PATCH)

static int run(struct cli *cli, int argc, char **argv)
{
	struct version version = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &version },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_version, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	json_t *object;

	if (first != argc)
		opts_fail(&cmd_version, "version takes no operand");
	if (!version.json) {
		printf("shmq %s, libshmq %s\n", HEADER_VERSION, shmq_version());
		return CLI_OK;
	}
	object = json_object();
	json_put_text(object, "shmq", HEADER_VERSION);
	json_put_text(object, "libshmq", shmq_version());
	json_print(object);
	return CLI_OK;
}

const struct command cmd_version = {
	"version", "[OPTION]...",           "Print the versions of command and library",
	NULL,      "shmq version --json\n", run,
};
