/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STDOUT_BYTES ((size_t)256 << 10)
#define SHOWN_BYTES 64 /* of a message, unless all is asked for */

struct dump {
	struct cli *cli;
	const struct command *command;
	struct log_place place;
	const char *from, *to, *tag, *key;
	uint64_t count, done, bytes;
	int32_t partition_plus1;
	enum format format;
	int as_people_like, is_whole, quiet;

	const char *operand;
	shmq_log_reader *log;
	struct shmq_log_info info;
	struct loss loss;
	uint64_t lost; /* since the last message */
	int is_bound;  /* ... at most */
	struct log_progress progress;
	int code;
};

#define AT(member) OPT_AT(struct dump, member)

static const struct opt range_options[] = {
	{ "from", .kind = OPT_TEXT, AT(from), .arg = "SEQ|TIME|-AGE",
	  .help = "where to start (the oldest); SEQ needs one\npartition" },
	{ "to", .kind = OPT_TEXT, AT(to), .arg = "SEQ|TIME|-AGE|now",
	  .help = "end before the message with that number, or the\nfirst one of that time or later" },
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "only this partition (all, one after the other)" },
	{ "tag", .kind = OPT_TEXT, AT(tag), .arg = "N",
	  .help = "only messages with this tag; 0x... is hexadecimal" },
	{ "key", .letter = 'k', .kind = OPT_TEXT, AT(key), .arg = "KEY",
	  .help = "only messages with this key" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N", .min = 1,
	  .help = "end after N messages" },
};

static const struct opt dump_options[] = {
	{ "whole", .letter = 'w', .kind = OPT_SET, AT(is_whole), .value = 1,
	  .help = "all bytes of each message (64)" },
	{ "json", .kind = OPT_SET, AT(as_people_like), .value = 0,
	  .help = "an object each, as \"shmq log export\" writes them" },
};

static const struct opt_word export_formats[] = {
	{ "json", FORMAT_JSON },
	{ "frames", FORMAT_FRAMES },
	{ NULL, 0 },
};

static const struct opt export_options[] = {
	{ "format", .letter = 'o', .kind = OPT_WORD, AT(format), .words = export_formats,
	  .help = "json: an object on a line each, with all there is\n"
		  "to a message (default); frames: only its bytes,\n"
		  "behind their number in 4 bytes, little-endian" },
	{ "quiet", .letter = 'q', .kind = OPT_SET, AT(quiet), .value = 1,
	  .help = "do not say on stderr what was written" },
};

/* ---- the range ------------------------------------------------------- */

static void take_range(const struct dump *d, struct shmq_log_range *range)
{
	struct when from = when_take(d->command, "from", d->from);
	struct when to = when_take(d->command, "to", d->to);

	*range = (struct shmq_log_range){ .size = sizeof(*range),
					  .partition_plus1 = d->partition_plus1,
					  .key = d->key,
					  .key_len = d->key ? strlen(d->key) : 0 };
	if (from.kind) {
		range->from = from.kind == WHEN_SEQ ? SHMQ_FROM_SEQ : SHMQ_FROM_TIME;
		range->seq = range->ts_ns = from.value;
	}
	if (to.kind) {
		range->to = to.kind == WHEN_SEQ ? SHMQ_TO_SEQ : SHMQ_TO_TIME;
		range->to_seq = range->to_ts_ns = to.value;
	}
	if (!d->tag)
		return;
	range->flags |= SHMQ_LOG_TAGGED;
	if (units_parse_count(d->tag, &range->tag) < 0)
		opts_fail(d->command, "--tag takes a number, such as 17 or 0x2a, not \"%s\"",
			  d->tag);
}

/* ---- for people ------------------------------------------------------ */

static void print_bytes(const void *data, size_t len, size_t shown)
{
	const unsigned char *at = data;
	size_t i;

	putchar('"');
	for (i = 0; i < len && i < shown; i++)
		if (at[i] == '"' || at[i] == '\\')
			printf("\\%c", at[i]);
		else if (at[i] >= ' ' && at[i] < 0x7f)
			putchar(at[i]);
		else
			printf("\\x%02x", at[i]);
	printf(i < len ? "\"..." : "\"");
}

static void print_message(const struct dump *d, const struct shmq_msg *msg)
{
	printf("%d/%" PRIu64 "  %s", msg->partition, msg->seq, when_text(msg->ts_ns).s);
	if (msg->type)
		printf("  type %u", msg->type);
	if (d->info.options.flags & SHMQ_TOPIC_TAG)
		printf("  tag 0x%016" PRIx64, msg->tag);
	if (msg->flags & SHMQ_MSG_BATCH)
		printf("  batch");
	if (msg->key_len) {
		printf("  key ");
		print_bytes(msg->key, msg->key_len, SHOWN_BYTES);
	}
	if (msg->properties_len) {
		printf("  properties ");
		print_bytes(msg->properties, msg->properties_len, SHOWN_BYTES);
	}
	printf("  %zu %s  ", msg->len, units_plural(msg->len, "byte", "bytes"));
	print_bytes(msg->data, msg->len, d->is_whole ? SIZE_MAX : SHOWN_BYTES);
	putchar('\n');
}

static void print_gap(const struct shmq_msg *msg)
{
	printf("%d/%" PRIu64 "  gap: %" PRIu64 " %s from there on not in the log%s\n",
	       msg->partition, msg->seq - msg->lost + 1, msg->lost,
	       units_plural(msg->lost, "seq is", "seqs are"),
	       msg->lost_is_bound ? ", messages or not" : "");
}

/* ---- reading --------------------------------------------------------- */

static void write_message(struct dump *d, const struct shmq_msg *msg)
{
	const struct format_message message = {
		.topic = d->info.topic,
		.msg = msg,
		.lost = d->lost,
		.is_bound = d->is_bound,
		.has = d->info.options.flags | SHMQ_TOPIC_TIME,
	};
	int rc = 0;

	if (d->as_people_like)
		print_message(d, msg);
	else
		rc = format_write(d->format, &message);
	d->lost = 0;
	d->is_bound = 0;
	d->bytes += msg->len;
	if (rc < 0 || ferror(stdout))
		d->code = out_broken(rc < 0 ? rc : out_flush());
	else
		d->done++;
}

static void miss(struct dump *d, const struct shmq_msg *msg)
{
	d->lost += msg->lost;
	d->is_bound |= msg->lost_is_bound != 0;
	if (d->as_people_like)
		print_gap(msg);
	log_progress_hide(&d->progress);
	loss_add(&d->loss, msg);
}

/* What can't be read is said, and the rest is read all the same. */
static void cannot(struct dump *d, int error, const struct shmq_msg *msg)
{
	int code;

	d->lost += msg->lost;
	log_progress_hide(&d->progress);
	code = log_fail(d->cli, error, "reading the log of", d->operand);
	if (d->code == CLI_OK)
		d->code = code == CLI_MISSING ? CLI_FAILURE : code;
}

static void read_all(struct dump *d)
{
	struct shmq_msg msg;
	int rc;

	while (!ferror(stdout) && !sig_stopped() && (!d->count || d->done < d->count)) {
		rc = shmq_log_next(d->log, &msg);
		if (rc == SHMQ_EENDED)
			break;
		if (rc == 0)
			write_message(d, &msg);
		else if (rc == SHMQ_EOVERRUN)
			miss(d, &msg);
		else
			cannot(d, rc, &msg);
		log_progress_show(&d->progress, d->bytes, 0);
	}
}

static int conclude(struct dump *d)
{
	log_progress_hide(&d->progress);
	loss_tell_rest(&d->loss);
	if (sig_stopped() && d->code == CLI_OK)
		d->code = CLI_FAILURE;
	if (!d->as_people_like && !d->quiet)
		out_say("read from the log of \"%s\": %" PRIu64 " %s, %s, %" PRIu64 " lost",
			d->operand, d->done, units_plural(d->done, "message", "messages"),
			units_size(d->bytes).s, d->loss.lost);
	return d->loss.lost && d->code == CLI_OK ? CLI_LOST : d->code;
}

static int dump_log(struct dump *d, const struct shmq_log_range *range)
{
	char path[PATH_MAX];
	int code = log_find(d->cli, &d->place, d->operand, path), rc;

	if (code != CLI_OK)
		return code;
	rc = shmq_log_open(path, &d->log);
	if (rc == 0)
		rc = shmq_log_get_info(d->log, &d->info);
	if (rc == 0)
		rc = shmq_log_read(d->log, range);
	if (rc < 0) {
		code = log_fail(d->cli, rc, "opening the log of", d->operand);
		shmq_log_close(d->log);
		return code;
	}
	sig_catch(NULL);
	setvbuf(stdout, NULL, _IOFBF, STDOUT_BYTES);
	log_progress_start(&d->progress, "reading", d->operand);
	d->progress.is_on &= !isatty(STDOUT_FILENO);
	read_all(d);
	shmq_log_close(d->log);
	return conclude(d);
}

static int run(struct dump *d, const struct opt *own, size_t own_count, int argc, char **argv)
{
	struct shmq_log_range range;
	const struct opt_group groups[] = {
		{ "Options", own, own_count, d },
		{ "What is read", range_options, ARRAY_COUNT(range_options), d },
		{ "Where", log_place_options, log_place_option_count, &d->place },
		{ "Options of all commands", opts_shared, opts_shared_count, d->cli },
	};
	int first = opts_parse(d->command, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));

	if (argc - first != 1)
		opts_fail(d->command, "%s takes one log", d->command->name);
	d->operand = argv[first];
	d->loss = (struct loss){ "reading the log of", d->operand, .hint = loss_from_log };
	take_range(d, &range);
	return dump_log(d, &range);
}

static int run_dump(struct cli *cli, int argc, char **argv)
{
	struct dump d = { .cli = cli,
			  .command = &log_dump,
			  .as_people_like = 1,
			  .format = FORMAT_JSON,
			  .quiet = 1 };

	return run(&d, dump_options, ARRAY_COUNT(dump_options), argc, argv);
}

static int run_export(struct cli *cli, int argc, char **argv)
{
	struct dump d = { .cli = cli, .command = &log_export, .format = FORMAT_JSON };

	return run(&d, export_options, ARRAY_COUNT(export_options), argc, argv);
}

const struct command log_dump = {
	"log dump",
	"LOG [OPTION]...",
	"Show what a log holds, a line for each message and gap",
	"PARTITION/SEQ, time, what else there is, and the message.  Gaps make the exit\n"
	"code 4, what can't be read makes it 1.\n",
	"shmq log dump orders --from -1h --count 10\n",
	run_dump,
};

const struct command log_export = {
	"log export",
	"LOG [OPTION]...",
	"Write what a log holds to stdout, for \"shmq log import\" and others",
	"Gaps are told on stderr and make the exit code 4; JSON has them as \"lost\" in the\n"
	"message behind.  What can't be read makes it 1, and the rest is written.\n",
	"shmq log export orders --key AAPL > aapl.json\n",
	run_export,
};
