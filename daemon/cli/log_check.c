/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <inttypes.h>

struct check {
	struct cli *cli;
	const struct command *command;
	struct log_place place;
	int32_t partition_plus1;
	int json, quiet;

	const char *operand;
	json_t *findings;
	struct log_progress progress;
};

#define AT(member) OPT_AT(struct check, member)

static const struct opt options[] = {
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "only this partition (all)" },
	{ "quiet", .letter = 'q', .kind = OPT_SET, AT(quiet), .value = 1,
	  .help = "print the findings only, no summary" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1, .help = "print one JSON object per log" },
};

/* ---- findings -------------------------------------------------------- */

static void found(void *arg, uint32_t partition, const char *line)
{
	struct check *c = arg;
	json_t *object;

	if (c->json) {
		object = json_object();
		json_put_u64(object, "partition", partition);
		json_put_text(object, "text", line);
		json_array_append_new(c->findings, object);
		return;
	}
	log_progress_hide(&c->progress);
	printf("%s, partition %u: %s\n", c->operand, partition, line);
	fflush(stdout);
}

static int show(void *arg, uint64_t bytes, uint64_t of)
{
	struct check *c = arg;

	log_progress_show(&c->progress, bytes, of);
	return sig_stopped() ? 1 : 0;
}

static struct shmq_log_checks checks_of(struct check *c)
{
	log_progress_start(&c->progress, c->command == &log_verify ? "verifying" : "repairing",
			   c->operand);
	c->findings = c->json ? json_array() : NULL;
	return (struct shmq_log_checks){ .size = sizeof(struct shmq_log_checks),
					 .partition_plus1 = c->partition_plus1,
					 .found = found,
					 .progress = show,
					 .arg = c };
}

static json_t *json_verdict(struct check *c, const struct shmq_log_verdict *v)
{
	json_t *object = json_object();

	json_put_text(object, "log", c->operand);
	json_put_u64(object, "segments", v->segments);
	json_put_u64(object, "indexes", v->indexes);
	json_put(object, "findings", c->findings);
	return object;
}

/* ---- verify ---------------------------------------------------------- */

static void report_verify(struct check *c, const struct shmq_log_verdict *v)
{
	json_t *object;

	if (c->json) {
		object = json_verdict(c, v);
		json_put_u64(object, "records", v->records);
		json_put_u64(object, "bytes", v->bytes);
		json_put_u64(object, "damaged", v->damaged);
		json_put_u64(object, "missing", v->missing);
		json_put_u64(object, "gaps", v->gaps);
		json_print(object);
	} else if (!c->quiet) {
		printf("%s: %" PRIu64 " %s in %" PRIu64 " %s, %s; ", c->operand, v->records,
		       units_plural(v->records, "record", "records"), v->segments,
		       units_plural(v->segments, "segment", "segments"), units_size(v->bytes).s);
		if (v->damaged)
			printf("%" PRIu64 " damaged %s, %" PRIu64 " seqs missing", v->damaged,
			       units_plural(v->damaged, "place", "places"), v->missing);
		else
			printf("good");
		if (v->gaps)
			printf("; %" PRIu64 " seqs in gaps that the log tells of", v->gaps);
		putchar('\n');
	}
}

static int verify(struct check *c, const char *path)
{
	struct shmq_log_checks checks = checks_of(c);
	struct shmq_log_verdict verdict;
	shmq_log_reader *log;
	int rc = shmq_log_open(path, &log);

	if (rc == 0)
		rc = shmq_log_verify(log, &checks, &verdict);
	shmq_log_close(log);
	log_progress_hide(&c->progress);
	if (rc < 0) {
		json_decref(c->findings);
		return log_fail(c->cli, rc, "verifying the log of", c->operand);
	}
	report_verify(c, &verdict);
	return rc || verdict.damaged ? CLI_FAILURE : CLI_OK;
}

/* ---- repair ---------------------------------------------------------- */

static void report_repair(struct check *c, const struct shmq_log_verdict *v)
{
	json_t *object;

	if (c->json) {
		object = json_verdict(c, v);
		json_put_u64(object, "cut_bytes", v->cut_bytes);
		json_print(object);
	} else if (!c->quiet) {
		printf("%s: %" PRIu64 " %s, %s set aside, %" PRIu64 " %s made anew\n", c->operand,
		       v->segments, units_plural(v->segments, "segment", "segments"),
		       units_size(v->cut_bytes).s, v->indexes,
		       units_plural(v->indexes, "index", "indexes"));
	}
}

static int repair(struct check *c, const char *path)
{
	struct shmq_log_checks checks = checks_of(c);
	struct shmq_log_verdict verdict;
	int rc = shmq_log_repair(path, &checks, &verdict);

	log_progress_hide(&c->progress);
	if (rc < 0) {
		json_decref(c->findings);
		return log_fail(c->cli, rc, "repairing the log of", c->operand);
	}
	report_repair(c, &verdict);
	return rc ? CLI_FAILURE : CLI_OK;
}

/* ---- both ------------------------------------------------------------ */

static int run(struct check *c, int (*one)(struct check *c, const char *path), int argc,
	       char **argv)
{
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), c },
		{ "Where", log_place_options, log_place_option_count, &c->place },
		{ "Options of all commands", opts_shared, opts_shared_count, c->cli },
	};
	int first = opts_parse(c->command, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code = CLI_OK, rc;
	char path[PATH_MAX];

	if (first == argc)
		opts_fail(c->command, "%s takes at least one log", c->command->name);
	sig_catch(NULL);
	for (; first < argc && !sig_stopped(); first++) {
		c->operand = argv[first];
		rc = log_find(c->cli, &c->place, c->operand, path);
		if (rc == CLI_OK)
			rc = one(c, path);
		if (code == CLI_OK)
			code = rc;
	}
	return code;
}

static int run_verify(struct cli *cli, int argc, char **argv)
{
	struct check c = { .cli = cli, .command = &log_verify };

	return run(&c, verify, argc, argv);
}

static int run_repair(struct cli *cli, int argc, char **argv)
{
	struct check c = { .cli = cli, .command = &log_repair };

	return run(&c, repair, argc, argv);
}

const struct command log_verify = {
	"log verify",
	"LOG... [OPTION]...",
	"Read all of a log and say what is damaged",
	"Each finding is a line; damage makes the exit code 1.  An index that is missing is\n"
	"no damage.  The bus may run.\n",
	"shmq log verify orders\n",
	run_verify,
};

const struct command log_repair = {
	"log repair",
	"LOG... [OPTION]...",
	"Cut a log behind its last good record, and make its indexes anew",
	"What is cut off is kept, in the directory cut/ of its partition.  Damage before the\n"
	"last file stays: readers pass it as a gap.  The bus must not run.\n",
	"shmq stop && shmq log repair orders\n",
	run_repair,
};
