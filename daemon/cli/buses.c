/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A supervisor that does not answer shows itself by that. */
#define PATIENCE_NS INT64_C(2000000000)

struct bus {
	char name[SHMQ_BUS_NAME_MAX + 1];
	enum runtime_state state;
	struct shmq_bus_info info;
	char note[SHMQ_ERROR_TEXT_MAX]; /* "", or why there are no figures */
};

struct buses {
	const struct cli *cli;
	struct bus *all;
	size_t count, room;
	int json;
};

static const struct opt options[] = {
	{ "json", .kind = OPT_SET, OPT_AT(struct buses, json), .value = 1,
	  .help = "print one JSON array, one object per bus" },
};

static const char *const states[] = {
	[RUNTIME_ALIVE] = "runs",
	[RUNTIME_AWAITED] = "awaited",
	[RUNTIME_HELD] = "held",
	[RUNTIME_STALE] = "died",
};

static const char *const notes[] = {
	[RUNTIME_AWAITED] = "starts when somebody attaches",
	[RUNTIME_HELD] = "no supervisor, and clients go on (hint: shmq doctor)",
	[RUNTIME_STALE] = "left its files behind (hint: shmq doctor)",
};

static void ask(const struct cli *cli, struct bus *bus)
{
	struct shmq_bus_options how = { .size = sizeof(how),
					.runtime_dir = cli->runtime_dir,
					.timeout_ns = PATIENCE_NS,
					.client_name = cli->client_name };
	shmq_bus *of;
	int rc = shmq_bus_open(bus->name, &how, &of);

	if (!rc)
		rc = shmq_bus_get_info(of, &bus->info);
	if (rc)
		snprintf(bus->note, sizeof(bus->note), "%s",
			 shmq_bus_error(NULL)[0] ? shmq_bus_error(NULL) : shmq_strerror(rc));
	else
		bus->info.clients--; /* this one */
	shmq_bus_close(of);
}

static void keep(void *arg, const char *name, enum runtime_state state)
{
	struct buses *buses = arg;
	struct bus *bus;

	buses->all = cli_grow(buses->all, buses->count, &buses->room, sizeof(*buses->all));
	bus = &buses->all[buses->count++];
	*bus = (struct bus){ .state = state };
	snprintf(bus->name, sizeof(bus->name), "%s", name);
	if (state == RUNTIME_ALIVE)
		ask(buses->cli, bus);
	else
		snprintf(bus->note, sizeof(bus->note), "%s", notes[state]);
}

static int has_figures(const struct bus *bus)
{
	return bus->state == RUNTIME_ALIVE && !bus->note[0];
}

static void print_table(const struct buses *buses)
{
	static const char *const heads[] = { "BUS",     "STATE",   ">PID",  ">CLIENTS",
					     ">TOPICS", ">MEMORY", "SINCE", "NOTE" };
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	for (i = 0; i < buses->count; i++) {
		const struct bus *bus = &buses->all[i];
		const struct shmq_bus_info *info = &bus->info;

		table_add(&table, "%s", bus->name);
		table_add(&table, "%s", states[bus->state]);
		if (has_figures(bus)) {
			table_add(&table, "%d", (int)info->parent_pid);
			table_add(&table, "%u", info->clients);
			table_add(&table, "%u", info->topics);
			table_add(&table, "%s", units_size(info->bytes).s);
			table_add(&table, "%.19sZ", when_text(info->started_ns).s);
		} else {
			table_add(&table, "-");
			table_add(&table, "-");
			table_add(&table, "-");
			table_add(&table, "-");
			table_add(&table, "-");
		}
		table_add(&table, "%s", bus->note);
	}
	table_print(&table, "");
	table_clear(&table);
}

static void print_json(const struct buses *buses)
{
	json_t *array = json_array();
	size_t i;

	for (i = 0; i < buses->count; i++) {
		const struct bus *bus = &buses->all[i];
		json_t *object = json_object();

		json_put_text(object, "bus", bus->name);
		json_put_text(object, "state", states[bus->state]);
		if (has_figures(bus)) {
			json_put(object, "pid", json_integer(bus->info.parent_pid));
			json_put_u64(object, "clients", bus->info.clients);
			json_put_u64(object, "topics", bus->info.topics);
			json_put_u64(object, "bytes", bus->info.bytes);
			json_put_u64(object, "started_ns", bus->info.started_ns);
		}
		json_put_text(object, "note", bus->note);
		json_array_append_new(array, object);
	}
	json_print(array);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct buses buses = { .cli = cli };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &buses },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_buses, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	char dir[512];
	int rc;

	if (first != argc)
		opts_fail(&cmd_buses, "buses takes no operand (hint: --runtime-dir says where)");
	runtime_dir(cli, dir, sizeof(dir));
	rc = runtime_each(dir, keep, &buses);
	if (rc && rc != -ENOENT) {
		free(buses.all);
		return out_fail(NULL, rc, "listing the buses in", dir,
				"shmq doctor says what is wrong with it");
	}
	if (buses.json)
		print_json(&buses);
	else if (buses.count)
		print_table(&buses);
	else
		out_say("no bus is in \"%s\" (hint: those of the machine are in /run/shmq: shmq "
			"--runtime-dir /run/shmq buses)",
			dir);
	free(buses.all);
	return CLI_OK;
}

const struct command cmd_buses = {
	"buses",
	"[OPTION]...",
	"List the buses of a runtime directory",
	"That of --runtime-dir, else the one that every command looks in; those of the\n"
	"machine are in /run/shmq.  STATE is runs; awaited: it starts when somebody\n"
	"attaches; held: it has no supervisor, and clients go on; died: only its files are\n"
	"left.  Starts none.\n",
	"shmq buses\n"
	"shmq --runtime-dir /run/shmq buses --json\n",
	run,
};
