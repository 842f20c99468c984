/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int fail(const struct cli *cli, int error, const char *doing, const char *what)
{
	if (error == SHMQ_EINUSE)
		return out_fail(cli, error, doing, what, "end that subscriber first");
	if (error == -ENOENT) {
		out_fail(cli, error, doing, what,
			 "shmq cursor ls shows the cursors, shmq log ls the logs there are");
		return CLI_MISSING;
	}
	/* Its hint would be of partitions. */
	if (error == SHMQ_EOPTION)
		return out_fail(cli, error, doing, what, NULL);
	return log_fail(cli, error, doing, what);
}

/* ---- ls -------------------------------------------------------------- */

struct ls {
	struct cli *cli;
	struct log_place place;
	int json;
	struct table table;
	json_t *array;
	int code;

	/* The log that is listed. */
	const char *name;
	shmq_log_reader *log; /* NULL: it cannot be read */
	struct shmq_cursor_info *cursor;
	size_t count, capacity;
};

static const struct opt ls_options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct ls, json), .value = 1,
	  .help = "print one JSON array, an object per partition" },
};

static const char *state_of(const struct shmq_cursor_info *c)
{
	if (c->error)
		return shmq_strerror(c->error);
	return c->is_held ? "in use" : "-";
}

/* How many seqs the log has that it has not passed; 0: that is not known. */
static int get_behind(const struct ls *ls, const struct shmq_cursor_info *c, uint64_t *behind)
{
	struct shmq_log_partition part;

	if (c->error || !ls->log || shmq_log_get_partition(ls->log, c->partition, &part) < 0)
		return 0;
	*behind = (int64_t)(part.next - c->seq) > 0 ? part.next - c->seq : 0;
	return 1;
}

static void add_json(struct ls *ls, const struct shmq_cursor_info *c)
{
	json_t *object = json_object();
	uint64_t behind = 0;
	int has_behind = get_behind(ls, c, &behind);

	json_put_text(object, "log", ls->name);
	json_put_text(object, "cursor", c->name);
	json_put_u64(object, "partition", c->partition);
	if (!c->error) {
		json_put_u64(object, "seq", c->seq);
		json_put_u64(object, "stored_ns", c->stored_ns);
	}
	json_put(object, "behind", has_behind ? json_integer((json_int_t)behind) : json_null());
	json_put(object, "in_use", json_boolean(c->is_held));
	json_put(object, "error", c->error ? json_string(shmq_strerror(c->error)) : json_null());
	json_array_append_new(ls->array, object);
}

static void add_row(struct ls *ls, const struct shmq_cursor_info *c)
{
	uint64_t behind = 0;
	int has_behind = get_behind(ls, c, &behind);

	table_add(&ls->table, "%s", ls->name);
	table_add(&ls->table, "%s", c->name);
	table_add(&ls->table, "%" PRIu32, c->partition);
	table_add(&ls->table, c->error ? "-" : "%" PRIu64, c->seq);
	table_add(&ls->table, has_behind ? "%" PRIu64 : "-", behind);
	table_add(&ls->table, "%s", c->error ? "-" : when_text(c->stored_ns).s);
	table_add(&ls->table, "%s", state_of(c));
}

static int gather(void *arg, const struct shmq_cursor_info *c)
{
	struct ls *ls = arg;

	if (ls->count == ls->capacity) {
		size_t more = ls->capacity ? 2 * ls->capacity : 16;
		struct shmq_cursor_info *grown = realloc(ls->cursor, more * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		ls->cursor = grown;
		ls->capacity = more;
	}
	ls->cursor[ls->count++] = *c;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct shmq_cursor_info *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->partition > y->partition) - (x->partition < y->partition);
}

static int list_log(void *arg, const char *name, const char *path)
{
	struct ls *ls = arg;
	int rc, code;
	size_t i;

	ls->name = name;
	ls->count = 0;
	rc = shmq_cursor_each(path, gather, ls);
	if (rc) {
		code = fail(ls->cli, rc, "listing the cursors of", name);
		ls->code = ls->code == CLI_OK ? code : ls->code;
		return CLI_OK;
	}
	if (!ls->count)
		return CLI_OK;
	if (shmq_log_open(path, &ls->log))
		ls->log = NULL;
	qsort(ls->cursor, ls->count, sizeof(*ls->cursor), by_name);
	for (i = 0; i < ls->count; i++)
		(ls->json ? add_json : add_row)(ls, &ls->cursor[i]);
	shmq_log_close(ls->log);
	ls->log = NULL;
	return CLI_OK;
}

static int list_operand(struct ls *ls, const char *operand)
{
	char path[PATH_MAX];
	int code = log_find(ls->cli, &ls->place, operand, path);

	return code == CLI_OK ? list_log(ls, operand, path) : code;
}

static int run_ls(struct cli *cli, int argc, char **argv)
{
	static const char *const heads[] = { "LOG",     "CURSOR", ">PARTITION", ">NEXT",
					     ">BEHIND", "STORED", "STATE" };
	struct ls ls = { .cli = cli, .table = { .heads = heads, .columns = ARRAY_COUNT(heads) } };
	const struct opt_group groups[] = {
		{ "Options", ls_options, ARRAY_COUNT(ls_options), &ls },
		{ "Where", log_place_options, log_place_option_count, &ls.place },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cursor_ls, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code = CLI_OK;

	ls.array = ls.json ? json_array() : NULL;
	if (first == argc)
		code = log_each(cli, &ls.place, list_log, &ls);
	for (; first < argc; first++) {
		int failed = list_operand(&ls, argv[first]);

		code = code == CLI_OK ? failed : code;
	}
	if (ls.json)
		json_print(ls.array);
	else if (ls.table.count)
		table_print(&ls.table, "");
	table_clear(&ls.table);
	free(ls.cursor);
	return code == CLI_OK ? ls.code : code;
}

/* ---- set ------------------------------------------------------------- */

struct set {
	struct log_place place;
	const char *from;
	int32_t partition_plus1;
};

#define AT(member) OPT_AT(struct set, member)

static const struct opt set_options[] = {
	{ "from", .kind = OPT_TEXT, AT(from), .arg = "latest|oldest|SEQ|TIME|-AGE",
	  .help = "where its subscriber goes on (latest: behind\n"
		  "all that is written); SEQ needs one partition" },
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "only this partition (all)" },
};

static int run_set(struct cli *cli, int argc, char **argv)
{
	struct set set = { .from = NULL };
	const struct opt_group groups[] = {
		{ "Options", set_options, ARRAY_COUNT(set_options), &set },
		{ "Where", log_place_options, log_place_option_count, &set.place },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cursor_set, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	struct shmq_cursor_place place = { .size = sizeof(place) };
	struct shmq_sub_options how = { .size = sizeof(how) };
	char path[PATH_MAX];
	int rc, code;

	if (argc - first != 2)
		opts_fail(&cursor_set, "cursor set takes a log and a name");
	when_start(&cursor_set, set.from, &how);
	place.from = how.from;
	place.seq = how.seq;
	place.ts_ns = how.ts_ns;
	place.partition_plus1 = set.partition_plus1;
	code = log_find(cli, &set.place, argv[first], path);
	if (code != CLI_OK)
		return code;
	rc = shmq_cursor_set(path, argv[first + 1], &place);
	return rc ? fail(cli, rc, "setting the cursor", argv[first + 1]) : CLI_OK;
}

/* ---- rm -------------------------------------------------------------- */

static int run_rm(struct cli *cli, int argc, char **argv)
{
	struct log_place place = { NULL };
	const struct opt_group groups[] = {
		{ "Where", log_place_options, log_place_option_count, &place },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cursor_rm, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	char path[PATH_MAX];
	int i, rc, code;

	if (argc - first < 2)
		opts_fail(&cursor_rm, "cursor rm takes a log and at least one name");
	code = log_find(cli, &place, argv[first], path);
	if (code != CLI_OK)
		return code;
	for (i = first + 1; i < argc; i++) {
		rc = shmq_cursor_remove(path, argv[i]);
		rc = rc ? fail(cli, rc, "removing the cursor", argv[i]) : CLI_OK;
		if (code == CLI_OK)
			code = rc;
	}
	return code;
}

/* ---- the command ----------------------------------------------------- */

const struct command cursor_ls = {
	"cursor ls",
	"[LOG]... [OPTION]...",
	"List the cursors that are stored beside logs",
	"Without LOG of those of the bus that --bus or $SHMQ_BUS names, without that of all\n"
	"buses.  NEXT is the seq that its subscriber reads next: all before it is done.\n"
	"BEHIND is how many the log has from there on.\n",
	"shmq cursor ls orders\n",
	run_ls,
};

const struct command cursor_set = {
	"cursor set",
	"LOG NAME [OPTION]...",
	"Set or make a cursor, for the next who subscribes with it",
	"It must not be in use.\n",
	"shmq cursor set orders risk --from oldest\n",
	run_set,
};

const struct command cursor_rm = {
	"cursor rm",
	"LOG NAME...",
	"Remove cursors",
	"Each is tried; the exit code is that of the first that failed.  It must not be in\n"
	"use.\n",
	"shmq cursor rm orders risk\n",
	run_rm,
};

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct command *const commands[] = { &cursor_ls, &cursor_set, &cursor_rm };

	return log_run_one_of(cli, &cmd_cursor, commands, ARRAY_COUNT(commands), argc, argv);
}

const struct command cmd_cursor = {
	"cursor",
	"ls|set|rm ...",
	"Look at, set and remove stored cursors: how far readers have come",
	"LOG is TOPIC, of the bus that --bus names, or BUS/TOPIC, or a directory that begins\n"
	"with / or ./; no bus needs to run.\n",
	NULL,
	run,
};
