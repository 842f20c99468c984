/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS ((int64_t)200000000)

const struct opt log_place_options[] = {
	{ "data-dir", .letter = 'd', .kind = OPT_TEXT, OPT_AT(struct log_place, data_dir),
	  .arg = "DIR",
	  .help = "where logs are ($SHMQ_DATA_DIR, else /var/lib/shmq\n"
		  "for root, $XDG_STATE_HOME/shmq, ~/.local/state/shmq)" },
};
const size_t log_place_option_count = ARRAY_COUNT(log_place_options);

int log_find(const struct cli *cli, const struct log_place *place, const char *operand,
	     char path[PATH_MAX])
{
	const char *slash = strchr(operand, '/'), *topic = slash ? slash + 1 : operand;
	char bus[SHMQ_BUS_NAME_MAX + 2];
	int rc;

	if (operand[0] == '/' || operand[0] == '.') {
		if (snprintf(path, PATH_MAX, "%s", operand) < PATH_MAX)
			return CLI_OK;
		return out_fail(NULL, -ENAMETOOLONG, "looking for", operand, NULL);
	}
	snprintf(bus, sizeof(bus), "%.*s", slash ? (int)(slash - operand) : SHMQ_BUS_NAME_MAX,
		 slash         ? operand :
		 cli->bus_name ? cli->bus_name :
				 "default");
	rc = shmq_log_dir(place->data_dir, bus, topic, path, PATH_MAX);
	if (rc == 0)
		return CLI_OK;
	return out_fail(cli, rc, "looking for the log of", operand,
			"TOPIC, BUS/TOPIC, or a directory that begins with / or ./");
}

int log_fail(const struct cli *cli, int error, const char *doing, const char *operand)
{
	const char *hint = NULL;
	int code;

	if (error == -ENOENT)
		hint = "shmq log ls shows what there is, of topics created with --log; a "
		       "directory begins with / or ./";
	if (error == SHMQ_ECORRUPT)
		hint = "shmq log verify TOPIC shows all that is damaged, shmq log ls what there is";
	if (error == SHMQ_EINUSE)
		hint = "shmq stop ends a bus";
	if (error == SHMQ_EOPTION)
		hint = "choose a partition by --partition";
	code = out_fail(cli, error, doing, operand, hint);
	return error == -ENOENT ? CLI_MISSING : code;
}

/* ---- all of them ----------------------------------------------------- */

static int is_visible(const struct dirent *e)
{
	return e->d_name[0] != '.' &&
	       (e->d_type == DT_DIR || e->d_type == DT_LNK || e->d_type == DT_UNKNOWN);
}

/* The directories in a directory, sorted; 0 where there is none; a negative error. */
static int names_in(const char *path, struct dirent ***out)
{
	int n = scandir(path, out, is_visible, alphasort);

	if (n < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	return n < 0 ? -errno : n;
}

struct each {
	const struct cli *cli;
	const struct log_place *place;
	int (*visit)(void *arg, const char *name, const char *path);
	void *arg;
};

static int each_of_bus(const struct each *e, const char *bus)
{
	char path[PATH_MAX], name[2 * NAME_MAX + 2];
	struct dirent **list = NULL;
	int i, n, code = CLI_OK,
		  rc = shmq_log_dir(e->place->data_dir, bus, NULL, path, sizeof(path));

	/* What has another name is none of ours. */
	if (rc == SHMQ_EBUSNAME && !e->cli->bus_name)
		return CLI_OK;
	n = rc < 0 ? rc : names_in(path, &list);
	if (n < 0)
		return log_fail(e->cli, n, "looking at the logs of", bus);
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%s", bus, list[i]->d_name);
		if (code == CLI_OK &&
		    !shmq_log_dir(e->place->data_dir, bus, list[i]->d_name, path, sizeof(path)))
			code = e->visit(e->arg, name, path);
		free(list[i]);
	}
	free(list);
	return code;
}

int log_each(const struct cli *cli, const struct log_place *place,
	     int (*visit)(void *arg, const char *name, const char *path), void *arg)
{
	const struct each e = { cli, place, visit, arg };
	struct dirent **list = NULL;
	char path[PATH_MAX];
	int i, n, rc, code = CLI_OK;

	if (cli->bus_name)
		return each_of_bus(&e, cli->bus_name);
	rc = shmq_log_dir(place->data_dir, NULL, NULL, path, sizeof(path));
	n = rc < 0 ? rc : names_in(path, &list);
	if (n < 0)
		return log_fail(cli, n, "looking at the logs of", rc < 0 ? "all buses" : path);
	for (i = 0; i < n; i++) {
		int failed = each_of_bus(&e, list[i]->d_name);

		if (code == CLI_OK)
			code = failed;
		free(list[i]);
	}
	free(list);
	return code;
}

/* ---- progress -------------------------------------------------------- */

void log_progress_start(struct log_progress *p, const char *doing, const char *what)
{
	*p = (struct log_progress){ .doing = doing,
				    .what = what,
				    .is_on = isatty(STDERR_FILENO),
				    .due_ns = cli_now_ns() + TICK_NS };
}

void log_progress_show(struct log_progress *p, uint64_t done, uint64_t of)
{
	if (!p->is_on || cli_now_ns() < p->due_ns)
		return;
	fprintf(stderr, "\r%s %s: %s", p->doing, p->what, units_size(done).s);
	if (of)
		fprintf(stderr, " of %s", units_size(of).s);
	fputs("\033[K", stderr);
	p->due_ns = cli_now_ns() + TICK_NS;
}

void log_progress_hide(struct log_progress *p)
{
	if (p->is_on)
		fputs("\r\033[K", stderr);
}

/* ---- commands of commands -------------------------------------------- */

static const char *word_of(const struct command *self, const struct command *member)
{
	return member->name + strlen(self->name) + 1;
}

static int help(const struct command *self, const struct command *const *members, size_t count)
{
	size_t i;

	printf("usage: shmq [OPTION]... %s COMMAND ...\n\n%s.\n\n%s\nCommands:\n", self->name,
	       self->summary, self->details);
	for (i = 0; i < count; i++)
		printf("  %-8s %s\n", word_of(self, members[i]), members[i]->summary);
	printf("\n\"shmq %s COMMAND --help\" says more about each.\n", self->name);
	return CLI_OK;
}

int log_run_one_of(struct cli *cli, const struct command *self,
		   const struct command *const *members, size_t count, int argc, char **argv)
{
	const struct opt_group groups[] = {
		{ NULL, opts_shared, opts_shared_count, cli },
	};
	const char *best = NULL;
	int first;
	size_t i;

	cli->help = 0;
	first = opts_parse(self, OPTS_STOP, argc, argv, groups, ARRAY_COUNT(groups));
	if (cli->help)
		return help(self, members, count);
	if (first == argc)
		opts_fail(self, "%s takes a command", self->name);
	for (i = 0; i < count; i++)
		if (!strcmp(word_of(self, members[i]), argv[first]))
			return members[i]->run(cli, argc - first, argv + first);
	for (i = 0; i < count; i++)
		best = value_nearer(argv[first], best, word_of(self, members[i]));
	opts_fail(self, "unknown command \"%s %s\"%s%s%s", self->name, argv[first],
		  best ? ": is it " : "", best ? best : "", best ? "?" : "");
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct command *const commands[] = { &log_ls,     &log_dump,   &log_verify,
							  &log_repair, &log_export, &log_import };

	return log_run_one_of(cli, &cmd_log, commands, ARRAY_COUNT(commands), argc, argv);
}

const struct command cmd_log = {
	"log",
	"ls|dump|verify|repair|export|import ...",
	"Look at, check, take out and bring in what is kept on disk",
	"A log is named TOPIC, of the bus that --bus names, or BUS/TOPIC, or by its\n"
	"directory, which then begins with / or ./; no bus needs to run.\n",
	NULL,
	run,
};
