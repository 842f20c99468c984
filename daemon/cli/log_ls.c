/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <inttypes.h>

struct ls {
	struct cli *cli;
	struct log_place place;
	int details, json;
	struct table table;
	json_t *array;
	int code;
};

#define AT(member) OPT_AT(struct ls, member)

static const struct opt options[] = {
	{ "long", .letter = 'l', .kind = OPT_SET, AT(details), .value = 1,
	  .help = "a line for each partition" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1,
	  .help = "print one JSON array, an object per log" },
};

/* ---- one log --------------------------------------------------------- */

static void add_row(struct ls *ls, const char *name, uint64_t segments, uint64_t bytes,
		    uint64_t seqs, uint64_t first_ts, uint64_t last_ts)
{
	table_add(&ls->table, "%s", name);
	table_add(&ls->table, "%" PRIu64, segments);
	table_add(&ls->table, "%s", units_size(bytes).s);
	table_add(&ls->table, "%" PRIu64, seqs);
	table_add(&ls->table, "%s", when_text(first_ts).s);
	table_add(&ls->table, "%s", when_text(last_ts).s);
}

static void put_sizes(json_t *object, uint64_t segments, uint64_t bytes, uint64_t first_ts,
		      uint64_t last_ts)
{
	json_put_u64(object, "segments", segments);
	json_put_u64(object, "bytes", bytes);
	json_put(object, "first_ts", first_ts ? json_integer((json_int_t)first_ts) : json_null());
	json_put(object, "last_ts", last_ts ? json_integer((json_int_t)last_ts) : json_null());
}

static json_t *json_options(const struct shmq_log_info *info)
{
	const struct shmq_topic_options *o = &info->options;
	json_t *object = json_object();

	json_put_u64(object, "depth", o->depth);
	json_put_u64(object, "slot_bytes", o->slot_bytes);
	json_put_u64(object, "max_message_bytes", o->max_message_bytes);
	json_put_text(object, "mode", value_word(shape_modes, (int)o->mode));
	json_put_text(object, "policy", value_word(shape_policies, (int)o->policy));
	json_put(object, "tag", json_boolean(o->flags & SHMQ_TOPIC_TAG));
	json_put(object, "time", json_boolean(o->flags & SHMQ_TOPIC_TIME));
	json_put_text(object, "log", value_word(shape_logs, (int)o->log));
	json_put_text(object, "sync", value_word(shape_syncs, (int)o->sync));
	json_put_u64(object, "segment_bytes", o->segment_bytes);
	json_put_u64(object, "retain_bytes", o->retain_bytes);
	json_put_u64(object, "retain_ns", (uint64_t)o->retain_ns);
	json_put(object, "retain_cursors", json_boolean(o->flags & SHMQ_TOPIC_RETAIN_CURSORS));
	json_put(object, "retain_keys", json_boolean(o->flags & SHMQ_TOPIC_RETAIN_KEYS));
	json_put(object, "tombstone_ns",
		 o->tombstone_ns ? json_integer(o->tombstone_ns) : json_null());
	json_put(object, "compress", o->compress ? json_integer(o->compress) : json_null());
	return object;
}

static void add_json(struct ls *ls, const char *name, const char *path, shmq_log_reader *log,
		     const struct shmq_log_info *info)
{
	json_t *object = json_object(), *list = json_array(), *one;
	struct shmq_log_partition part;
	uint32_t p;

	json_put_text(object, "name", name);
	json_put_text(object, "directory", path);
	json_put_text(object, "topic", info->topic);
	json_put(object, "damaged", json_boolean(info->is_damaged));
	json_put_u64(object, "created_ns", info->created_ns);
	json_put_u64(object, "partitions", info->partitions);
	put_sizes(object, info->segments, info->bytes, info->first_ts_ns, info->last_ts_ns);
	json_put_u64(object, "seqs", info->seqs);
	json_put(object, "options", info->is_damaged ? json_null() : json_options(info));
	for (p = 0; p < info->partitions; p++) {
		if (shmq_log_get_partition(log, p, &part) < 0)
			continue;
		one = json_object();
		json_put_u64(one, "partition", p);
		json_put_u64(one, "first", part.first);
		json_put_u64(one, "next", part.next);
		put_sizes(one, part.segments, part.bytes, part.first_ts_ns, part.last_ts_ns);
		json_array_append_new(list, one);
	}
	json_put(object, "partition_list", list);
	json_array_append_new(ls->array, object);
}

static void add_partitions(struct ls *ls, const char *name, shmq_log_reader *log,
			   const struct shmq_log_info *info)
{
	struct shmq_log_partition part;
	uint32_t p;

	for (p = 0; p < info->partitions; p++) {
		if (shmq_log_get_partition(log, p, &part) < 0)
			continue;
		table_add(&ls->table, "%s", name);
		table_add(&ls->table, "%u", p);
		table_add(&ls->table, "%" PRIu64, part.segments);
		table_add(&ls->table, "%s", units_size(part.bytes).s);
		table_add(&ls->table, "%" PRIu64, part.first);
		table_add(&ls->table, "%" PRIu64, part.next);
		table_add(&ls->table, "%s", when_text(part.first_ts_ns).s);
		table_add(&ls->table, "%s", when_text(part.last_ts_ns).s);
	}
}

static void failed(struct ls *ls, int error, const char *name)
{
	int code = log_fail(ls->cli, error, "looking at the log of", name);

	if (ls->code == CLI_OK)
		ls->code = code;
}

static void list_log(struct ls *ls, const char *name, const char *path)
{
	struct shmq_log_info info;
	shmq_log_reader *log;
	int rc = shmq_log_open(path, &log);

	if (rc == 0)
		rc = shmq_log_get_info(log, &info);
	if (rc < 0)
		failed(ls, rc, name);
	else if (ls->json)
		add_json(ls, name, path, log, &info);
	else if (ls->details)
		add_partitions(ls, name, log, &info);
	else {
		add_row(ls, name, info.segments, info.bytes, info.seqs, info.first_ts_ns,
			info.last_ts_ns);
		table_add(&ls->table, "%s",
			  info.is_damaged ? "what says whose it is is damaged" : "-");
	}
	shmq_log_close(log);
}

/* ---- all of them ----------------------------------------------------- */

static int list_one(void *arg, const char *name, const char *path)
{
	list_log(arg, name, path);
	return 0;
}

static void list_all(struct ls *ls)
{
	int code = log_each(ls->cli, &ls->place, list_one, ls);

	if (ls->code == CLI_OK)
		ls->code = code;
}

static void list_operand(struct ls *ls, const char *operand)
{
	char path[PATH_MAX];
	int code = log_find(ls->cli, &ls->place, operand, path);

	if (code == CLI_OK)
		list_log(ls, operand, path);
	else if (ls->code == CLI_OK)
		ls->code = code;
}

static void print(struct ls *ls)
{
	static const char *const heads[] = { "LOG",   ">SEGMENTS", ">SIZE", ">MESSAGES",
					     "FIRST", "LATEST",    "NOTE" };
	static const char *const details[] = { "LOG",    ">PARTITION", ">SEGMENTS", ">SIZE",
					       ">FIRST", ">NEXT",      "FIRST",     "LATEST" };

	ls->table.heads = ls->details ? details : heads;
	ls->table.columns = ls->details ? ARRAY_COUNT(details) : ARRAY_COUNT(heads);
	if (ls->json)
		json_print(ls->array);
	else if (ls->table.count)
		table_print(&ls->table, "");
	table_clear(&ls->table);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct ls ls = { .cli = cli };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &ls },
		{ "Where", log_place_options, log_place_option_count, &ls.place },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&log_ls, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));

	ls.array = ls.json ? json_array() : NULL;
	if (first < argc)
		for (; first < argc; first++)
			list_operand(&ls, argv[first]);
	else
		list_all(&ls);
	print(&ls);
	return ls.code;
}

const struct command log_ls = {
	"log ls",
	"[LOG]... [OPTION]...",
	"List logs: how much they hold, and from when to when",
	"Without LOG those of the bus that --bus or $SHMQ_BUS names, without that of all\n"
	"buses.  LOG is TOPIC, BUS/TOPIC, or a directory that begins with / or ./.\n",
	"shmq log ls --long\n",
	run,
};
