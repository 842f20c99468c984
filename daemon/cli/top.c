/* SPDX-License-Identifier: MIT */
#include "top.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define SECOND_NS ((int64_t)1000000000)

struct words {
	const char *view, *sort, *filter;
	int reverse;
};

struct options {
	struct top top;
	struct words words;
};

#define AT(member) OPT_AT(struct options, member)

static const struct opt options[] = {
	{ "interval", .letter = 'i', .kind = OPT_DURATION, AT(top.interval_ns), .arg = "TIME",
	  .min = 1, .help = "between two looks (1s)" },
	{ "view", .kind = OPT_TEXT, AT(words.view), .arg = "topics|processes|logs|disks",
	  .help = "what to show first (topics)" },
	{ "sort", .kind = OPT_TEXT, AT(words.sort), .arg = "COLUMN",
	  .help = "by which column, as its head says (RATE)" },
	{ "reverse", .letter = 'r', .kind = OPT_SET, AT(words.reverse), .value = 1,
	  .help = "smallest first" },
	{ "filter", .letter = 'f', .kind = OPT_TEXT, AT(words.filter), .arg = "TEXT",
	  .help = "only what has TEXT in its name" },
	{ "all", .letter = 'a', .kind = OPT_SET, AT(top.order.all), .value = 1,
	  .help = "also topics of the bus itself" },
	{ "once", .letter = '1', .kind = OPT_SET, AT(top.once), .value = 1,
	  .help = "print one report, for a script; rates are of one\ninterval" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(top.count), .arg = "N", .min = 1,
	  .help = "print N reports" },
	{ "json", .kind = OPT_SET, AT(top.json), .value = 1,
	  .help = "as JSON, an object per report, with all views" },
};

/* ---- reports ----------------------------------------------------------- */

static json_t *json_cell(const struct top_column *column, const struct top_row *row)
{
	const char *text = column->at ? row->text[column->at - 1] : row->name;
	double n;

	if (column->kind == TOP_TEXT)
		return text[0] ? json_string(text) : json_null();
	n = row->number[column->at];
	if (isnan(n))
		return json_null();
	return column->kind == TOP_RATE || column->kind == TOP_BYTE_RATE ?
		       json_real(n) :
		       json_integer((json_int_t)n);
}

static json_t *json_view(const struct top_view *view, const struct top_look *before,
			 const struct top_look *now, const struct top_row *of,
			 const struct top_order *order)
{
	json_t *array = json_array(), *object;
	struct top_rows rows;
	size_t i, k;

	top_rows(view, before, now, of, order, &rows);
	for (i = 0; i < rows.count; i++) {
		object = json_object();
		for (k = 0; k < view->count; k++)
			json_put(object, view->columns[k].json,
				 json_cell(&view->columns[k], &rows.all[i]));
		if (view->into) {
			struct top_order inner = { .column = view->into->sorted_by };

			json_put(object, view->into->what == TOP_PEERS ? "peers" : "topics",
				 json_view(view->into, before, now, &rows.all[i], &inner));
		}
		json_array_append_new(array, object);
	}
	top_rows_clear(&rows);
	return array;
}

static void print_json(const struct top *top, const struct top_look *before,
		       const struct top_look *now)
{
	const struct top_view *view;
	json_t *object = json_object();

	json_put_text(object, "bus", now->bus.name);
	json_put_u64(object, "clients", now->bus.clients);
	json_put_u64(object, "bytes", now->bus.bytes);
	json_put(object, "seconds", json_real((double)(now->at_ns - before->at_ns) / 1e9));
	for (view = top_views; view->columns; view++) {
		struct top_order order = { .column = view->sorted_by,
					   .filter = top->order.filter,
					   .all = top->order.all };

		json_put(object, view->name,
			 json_view(view, before, now, NULL,
				   view == top->view ? &top->order : &order));
	}
	json_print(object);
}

static void print_table(const struct top *top, const struct top_look *before,
			const struct top_look *now)
{
	char heads[16][32];
	const char *names[16];
	struct table table = { .heads = names, .columns = top->view->count };
	struct top_rows rows;
	size_t i, k;

	top_rows(top->view, before, now, NULL, &top->order, &rows);
	for (k = 0; k < top->view->count; k++) {
		snprintf(heads[k], sizeof(heads[k]), "%s%s",
			 top->view->columns[k].kind == TOP_TEXT ? "" : ">",
			 top->view->columns[k].head);
		names[k] = heads[k];
	}
	for (i = 0; i < rows.count; i++)
		for (k = 0; k < top->view->count; k++)
			table_add(&table, "%s", top_cell(&top->view->columns[k], &rows.all[i]).s);
	table_print(&table, "");
	table_clear(&table);
	top_rows_clear(&rows);
}

static int take(const struct top *top, struct top_look *before, struct top_look *out)
{
	int rc = top_find_bus(top->cli);

	if (rc == TOP_OTHER)
		top_look_clear(before);
	if (rc >= 0)
		rc = top_look(top->cli->bus, out);
	return rc == 0 ?
		       CLI_OK :
		       out_fail(top->cli, rc, "looking at bus", shmq_bus_name(top->cli->bus), NULL);
}

static int report(const struct top *top)
{
	struct top_look before = { 0 }, now = { 0 };
	uint64_t left = top->count ? top->count : top->once ? 1 : UINT64_MAX;
	int code = take(top, &before, &before), rc;

	for (; code == CLI_OK && left; left--) {
		sig_sleep_until(before.at_ns + top->interval_ns);
		if (sig_stopped())
			break;
		code = take(top, &before, &now);
		if (code != CLI_OK)
			break;
		if (top->json)
			print_json(top, &before, &now);
		else
			print_table(top, &before, &now);
		rc = out_flush();
		if (rc < 0) {
			code = out_broken(rc);
			break;
		}
		top_look_clear(&before);
		before = now;
		now = (struct top_look){ 0 };
	}
	top_look_clear(&before);
	top_look_clear(&now);
	return code;
}

/* ---- the command --------------------------------------------------------- */

static void choose(struct options *o)
{
	size_t i;

	for (o->top.view = top_views; o->words.view && o->top.view->columns; o->top.view++)
		if (!strcmp(o->top.view->name, o->words.view))
			break;
	if (!o->top.view->columns)
		opts_fail(&cmd_top,
			  "there is no view \"%s\" (hint: topics, processes, logs, disks)",
			  o->words.view);
	o->top.order.column = o->top.view->sorted_by;
	for (i = 0; o->words.sort && i < o->top.view->count; i++)
		if (!strcasecmp(o->top.view->columns[i].head, o->words.sort))
			break;
	if (o->words.sort && i == o->top.view->count)
		opts_fail(&cmd_top, "%s have no column \"%s\" (hint: --once shows them)",
			  o->top.view->name, o->words.sort);
	if (o->words.sort)
		o->top.order.column = (unsigned)i;
	o->top.order.is_reversed = o->words.reverse;
	o->top.order.filter = o->words.filter;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct options o = { .top = { .cli = cli, .interval_ns = SECOND_NS } };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &o },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_top, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code;

	if (first < argc)
		opts_fail(&cmd_top, "top takes no operand (hint: --filter \"%s\")", argv[first]);
	if (o.top.interval_ns == SHMQ_FOREVER)
		opts_fail(&cmd_top, "--interval must end");
	choose(&o);
	if (!o.top.once && !o.top.count && !o.top.json &&
	    (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO)))
		opts_fail(&cmd_top, "this is no terminal (hint: --once, or --json)");
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(NULL);
	return o.top.once || o.top.count || o.top.json ? report(&o.top) : top_screen(&o.top);
}

const struct command cmd_top = {
	"top",
	"[OPTION]...",
	"Watch topics, processes, logs and disks: rates, lags, latencies, memory",
	"On a terminal: t, p, l and d show topics, processes, logs and disks; the arrows choose\n"
	"a row and Enter looks into it, Backspace leads back; < and > choose the column to sort by,\n"
	"r turns the order, / filters by name, a shows topics of the bus itself, too, Space\n"
	"holds the picture, ? helps, q leaves.\n"
	"P99 is of subscribers that measure, such as \"sub --latency\".\n",
	"shmq top --view processes --sort LOST\n",
	run,
};
