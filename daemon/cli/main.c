/* SPDX-License-Identifier: MIT
 *
 * shmq: the command line of the bus.
 */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AT(member) OPT_AT(struct cli, member)

const struct opt opts_shared[] = {
	{ "bus", .letter = 'b', .kind = OPT_TEXT, AT(bus_name), .arg = "NAME",
	  .help = "which bus ($SHMQ_BUS, else \"default\")" },
	{ "runtime-dir", .kind = OPT_TEXT, AT(runtime_dir), .arg = "DIR",
	  .help = "where its socket is ($SHMQ_RUNTIME_DIR, else\n"
		  "$XDG_RUNTIME_DIR/shmq, else /tmp/shmq-UID)" },
	{ "no-start", .kind = OPT_SET, AT(start), .value = SHMQ_START_NEVER,
	  .help = "fail if no supervisor runs, start none" },
	{ "name", .kind = OPT_TEXT, AT(client_name), .arg = "NAME",
	  .help = "what stat calls this client (\"shmq COMMAND\")" },
	{ "help", .letter = 'h', .kind = OPT_HELP, AT(help), .help = "this text" },
};
const size_t opts_shared_count = ARRAY_COUNT(opts_shared);

static const struct command *const commands[] = {
	&cmd_create,  &cmd_rm,     &cmd_move,   &cmd_ls,      &cmd_stat,    &cmd_clients,
	&cmd_buses,   &cmd_top,    &cmd_events, &cmd_metrics, &cmd_pub,     &cmd_sub,
	&cmd_request, &cmd_reply,  &cmd_trace,  &cmd_replay,  &cmd_log,     &cmd_cursor,
	&cmd_config,  &cmd_reload, &cmd_doctor, &cmd_stop,    &cmd_version,
};

static const struct {
	int code;
	const char *text;
} exits[] = {
#define CLI_X(name, value, text) { value, text },
	CLI_EXITS(CLI_X)
#undef CLI_X
};

/* ---- memory and time ------------------------------------------------- */

void *cli_alloc(void *old, size_t bytes)
{
	void *memory = realloc(old, bytes ? bytes : 1);

	if (memory)
		return memory;
	exit(out_fail(NULL, -ENOMEM, "allocating", units_size(bytes).s, NULL));
}

char *cli_strdup(const char *text)
{
	size_t bytes = strlen(text) + 1;

	return memcpy(cli_alloc(NULL, bytes), text, bytes);
}

void *cli_grow(void *array, size_t count, size_t *room, size_t bytes)
{
	if (count < *room)
		return array;
	*room = *room ? *room * 2 : 16;
	return cli_alloc(array, *room * bytes);
}

int64_t cli_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- bus ------------------------------------------------------------- */

int cli_open(struct cli *cli)
{
	struct shmq_bus_options options = {
		.size = sizeof(options),
		.start = cli->start,
		.runtime_dir = cli->runtime_dir,
		.client_name = cli->client_name,
		.interruptible = 1,
	};
	int rc = shmq_bus_open(cli->bus_name, &options, &cli->bus);

	if (rc == 0)
		return CLI_OK;
	cli->bus = NULL;
	return out_fail(cli, rc, "attaching to bus", cli->bus_name ? cli->bus_name : "default",
			NULL);
}

/* ---- commands -------------------------------------------------------- */

static int help(void)
{
	const struct opt_group shared = { "Options of all commands", opts_shared,
					  ARRAY_COUNT(opts_shared), NULL };
	size_t i;

	printf("usage: shmq [OPTION]... COMMAND ...\n\n"
	       "A shared-memory message bus for the processes of one machine.\n"
	       "The supervisor is started when it is needed.\n\nCommands:\n");
	for (i = 0; i < ARRAY_COUNT(commands); i++)
		printf("  %-8s %s\n", commands[i]->name, commands[i]->summary);
	printf("\n\"shmq COMMAND --help\" says more about each, and \"man 7 shmq\" what a bus is.\n"
	       "\nTo begin with:\n"
	       "  shmq create news\n"
	       "  shmq sub news --count 1 &\n"
	       "  shmq pub news hello --wait-subscribers 1\n");
	opts_print_help(&shared, 1);
	printf("\nExit codes:\n");
	for (i = 0; i < ARRAY_COUNT(exits); i++)
		printf("  %d  %s\n", exits[i].code, exits[i].text);
	return CLI_OK;
}

/* What they are called elsewhere, where no slip of the finger leads here. */
static const struct {
	const char *word, *command;
} elsewhere[] = {
	{ "publish", "pub" },   { "send", "pub" },      { "produce", "pub" },
	{ "subscribe", "sub" }, { "consume", "sub" },   { "tail", "sub" },
	{ "cat", "sub" },       { "list", "ls" },       { "topics", "ls" },
	{ "add", "create" },    { "new", "create" },    { "delete", "rm" },
	{ "del", "rm" },        { "remove", "rm" },     { "info", "stat" },
	{ "show", "stat" },     { "describe", "stat" }, { "monitor", "trace" },
	{ "watch", "top" },     { "req", "request" },   { "respond", "reply" },
	{ "who", "clients" },   { "check", "doctor" },  { "shutdown", "stop" },
};

static const char *command_elsewhere(const char *word)
{
	size_t i;

	for (i = 0; i < ARRAY_COUNT(elsewhere); i++)
		if (!strcmp(elsewhere[i].word, word))
			return elsewhere[i].command;
	return NULL;
}

static const struct command *find_command(const char *name)
{
	const char *best = command_elsewhere(name);
	int is_known = best != NULL;
	size_t i;

	for (i = 0; i < ARRAY_COUNT(commands); i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	for (i = 0; i < ARRAY_COUNT(commands) && !is_known; i++)
		best = value_nearer(name, best, commands[i]->name);
	opts_fail(NULL, "unknown command \"%s\"%s%s%s", name, best ? ": is it " : "",
		  best ? best : "", best ? "?" : "");
}

static int run(struct cli *cli, const struct command *command, int argc, char **argv)
{
	char name[32];
	int code;

	snprintf(name, sizeof(name), "shmq %s", command->name);
	if (!cli->client_name)
		cli->client_name = name;
	code = command->run(cli, argc, argv);
	sig_forget_bus();
	shmq_bus_close(cli->bus);
	return code;
}

/* "shmq help log ls" is "shmq log ls --help". */
static int help_on(struct cli *cli, int argc, char **argv)
{
	char option[] = "--help", *words[4] = { NULL };
	int i;

	if (argc < 2)
		return help();
	for (i = 1; i < argc && i < 3; i++)
		words[i - 1] = argv[i];
	words[i - 1] = option;
	return run(cli, find_command(argv[1]), i, words);
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
	if (!strcmp(argv[0], "help"))
		return help_on(cli, argc, argv);
	return run(cli, find_command(argv[0]), argc, argv);
}

int main(int argc, char **argv)
{
	struct cli cli = { .start = SHMQ_START_ON_DEMAND, .bus_name = getenv("SHMQ_BUS") };
	int version = 0, code, finish, first;
	const struct opt version_option = { "version", .kind = OPT_SET, .bytes = sizeof(version),
					    .value = 1 };
	const struct opt_group groups[] = {
		{ NULL, opts_shared, ARRAY_COUNT(opts_shared), &cli },
		{ NULL, &version_option, 1, &version },
	};

	if (cli.bus_name && !cli.bus_name[0])
		cli.bus_name = NULL;
	first = opts_parse(NULL, OPTS_STOP, argc, argv, groups, ARRAY_COUNT(groups));
	if (cli.help)
		code = help();
	else if (version)
		code = run(&cli, &cmd_version, 1, argv);
	else if (first == argc)
		opts_fail(NULL, "no command given");
	else
		code = dispatch(&cli, argc - first, argv + first);
	finish = out_finish();
	return code ? code : finish;
}
