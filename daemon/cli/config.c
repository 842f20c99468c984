/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define FIELDS_MAX 5

struct config_options {
	int json;
};

static const struct opt options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct config_options, json), .value = 1,
	  .help = "print one JSON array, an object for each setting" },
};

/* The supervisor's program knows the file: named, beside this one, or on PATH. */
static const char *find_daemon(void)
{
	static char path[4096];
	const char *env = getenv("SHMQ_DAEMON");
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("/shmqd"));
	char *slash;

	if (env && *env)
		return env;
	path[n < 0 ? 0 : n] = 0;
	slash = strrchr(path, '/');
	if (!slash)
		return "shmqd";
	strcpy(slash, "/shmqd");
	return access(path, X_OK) ? "shmqd" : path;
}

/* What `shmqd --config-list` prints, to be closed; its mistakes go where ours go. */
static FILE *ask(const struct cli *cli, const char *which, const char *file, pid_t *pid)
{
	const char *daemon = find_daemon();
	const char *argv[10] = { "shmqd", "--config-list", which };
	int pipes[2], n = 3, error;
	posix_spawn_file_actions_t actions;

	if (cli->bus_name) {
		argv[n++] = "--bus";
		argv[n++] = cli->bus_name;
	}
	if (cli->runtime_dir) {
		argv[n++] = "--runtime-dir";
		argv[n++] = cli->runtime_dir;
	}
	if (file) {
		argv[n++] = "--config";
		argv[n++] = file;
	}
	if (pipe(pipes)) {
		out_fail(NULL, -errno, "starting", daemon, NULL);
		return NULL;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, pipes[0]);
	posix_spawn_file_actions_addclose(&actions, pipes[1]);
	error = posix_spawnp(pid, daemon, &actions, NULL, (char **)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipes[1]);
	if (error) {
		close(pipes[0]);
		out_fail(NULL, -error, "starting", daemon, "install shmqd or set SHMQ_DAEMON");
		return NULL;
	}
	return fdopen(pipes[0], "r");
}

/* The fields of a line, the last of which may be missing. */
static void split(char *line, const char *field[FIELDS_MAX])
{
	const char *part;
	int i;

	line[strcspn(line, "\n")] = 0;
	for (i = 0; i < FIELDS_MAX; i++) {
		part = line ? strsep(&line, "\t") : NULL;
		field[i] = part ? part : "";
	}
}

static void print_text(const char *sign, const char *const field[4])
{
	const char *mark = *sign ? (*sign == '-' ? "- " : "+ ") : "";
	const char *later = !strcmp(sign, "+start") ? " (when the bus is started next)" : "";

	if (!*field[0])
		printf("%s%s = %s%s\n", mark, field[2], field[3], later);
	else if (!*field[1])
		printf("%s%s: %s = %s%s\n", mark, field[0], field[2], field[3], later);
	else
		printf("%s%s \"%s\": %s = %s%s\n", mark, field[0], field[1], field[2], field[3],
		       later);
}

static json_t *setting_json(const char *sign, const char *const field[4])
{
	json_t *object = json_object();

	if (*sign)
		json_put_text(object, "change", *sign == '-' ? "-" : "+");
	json_put_text(object, "section", field[0]);
	json_put_text(object, "title", field[1]);
	json_put_text(object, "setting", field[2]);
	json_put_text(object, "value", field[3]);
	if (*sign == '+')
		json_put(object, "at_next_start", json_boolean(!strcmp(sign, "+start")));
	return object;
}

/* Behind the settings themselves, of which JSON makes one value. */
static void report(const struct config_options *o, const char *which, int is_quiet, size_t count,
		   json_t *all)
{
	if (o->json && is_quiet) {
		json_t *object = json_object();

		json_put_u64(object, "settings", count);
		json_print(object);
	} else if (o->json) {
		json_print(json_incref(all));
	} else if (is_quiet) {
		printf("%zu %s, no mistake\n", count, units_plural(count, "setting", "settings"));
	} else if (!count && strcmp(which, "diff") != 0) {
		out_say("no setting is made: all have their defaults (hint: man shmqd.conf)");
	}
	json_decref(all);
}

static int show(const struct cli *cli, const struct config_options *o, const char *which,
		const char *file, int is_quiet)
{
	int has_sign = !strcmp(which, "diff"), status;
	char *line = NULL;
	const char *field[FIELDS_MAX];
	size_t room = 0, count = 0;
	json_t *all;
	FILE *in;
	pid_t pid;

	in = ask(cli, which, file, &pid);
	if (!in)
		return CLI_FAILURE;
	all = json_array();
	for (; getline(&line, &room, in) > 0; count++) {
		split(line, field);
		if (!is_quiet && o->json)
			json_array_append_new(all, setting_json(has_sign ? field[0] : "",
								field + has_sign));
		else if (!is_quiet)
			print_text(has_sign ? field[0] : "", field + has_sign);
	}
	free(line);
	fclose(in);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status)) {
		json_decref(all);
		if (!WIFEXITED(status))
			return CLI_FAILURE;
		return WEXITSTATUS(status) == 127 ?
			       out_fail(NULL, -ENOENT, "starting", find_daemon(),
					"install shmqd or set SHMQ_DAEMON") :
			       WEXITSTATUS(status);
	}
	report(o, which, is_quiet, count, all);
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct config_options o = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &o },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_config, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	const char *what = argv[first], *file = argc - first > 1 ? argv[first + 1] : NULL;

	if (argc - first < 1 || argc - first > 2)
		opts_fail(&cmd_config, "config takes check, show or diff, and perhaps a file");
	if (!strcmp(what, "check"))
		return show(cli, &o, "file", file, 1);
	if (!strcmp(what, "show"))
		return show(cli, &o, file ? "file" : "in-force", file, 0);
	if (!strcmp(what, "diff"))
		return show(cli, &o, "diff", file, 0);
	opts_fail(&cmd_config, "config takes check, show or diff, not \"%s\"", what);
}

const struct command cmd_config = {
	"config",
	"check|show|diff [FILE] [OPTION]...",
	"Check or show the configuration of the bus, shmqd.conf(5)",
	"Without FILE it is that of the bus: the one it was started with, if it runs, or\n"
	"/etc/shmq/BUS.conf of one in /run/shmq, else $XDG_CONFIG_HOME/shmq/BUS.conf.\n"
	"Needs no supervisor that runs.\n"
	"\n"
	"Commands:\n"
	"  check    Look for mistakes in the file, each with line and column\n"
	"  show     Show what the bus runs by, or what FILE says\n"
	"  diff     Show what a reload would change\n",
	"shmq config check\n"
	"shmq config diff && shmq reload\n",
	run,
};
