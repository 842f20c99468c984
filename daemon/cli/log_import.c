/* SPDX-License-Identifier: MIT */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_DEFAULT 64
#define BATCH_MAX 65536
/* A line of JSON at its worst: Base64, or six characters a byte, and the rest. */
#define LINE_FACTOR 6
#define LINE_MORE (UINT64_C(1) << 20)

struct import {
	struct sender sender;
	struct input input;
	struct history history;
	struct shmq_topic_info info;
	const char *file;
	enum format format;
	uint64_t batch;
	double rate;
	uint64_t skip; /* so many of its records were sent before */
	uint64_t lost; /* that the file tells of */
	int by_key;
	struct sender_report report;
};

#define AT(member) OPT_AT(struct import, member)

static const struct opt_word formats[] = {
	{ "json", FORMAT_JSON },
	{ "frames", FORMAT_FRAMES },
	{ NULL, 0 },
};

static const struct opt options[] = {
	{ "format", .letter = 'o', .kind = OPT_WORD, AT(format), .words = formats,
	  .help = "as \"shmq log export\" writes them: json (default),\nframes" },
	{ "by-key", .kind = OPT_SET, AT(by_key), .value = 1,
	  .help = "choose partitions by key, else in turn (where a\n"
		  "message was, if the topic has as many)" },
	{ "rate", .letter = 'r', .kind = OPT_RATE, AT(rate), .arg = "N/s",
	  .help = "at most that many messages per second" },
	{ "batch", .kind = OPT_COUNT, AT(batch), .arg = "N", .min = 1, .max = BATCH_MAX,
	  .help = "publish up to N at once of those already read\n(64; with --rate 1)" },
	{ "skip", .kind = OPT_COUNT, AT(skip), .arg = "N",
	  .help = "leave out the first N: an import that ended early\nsays where to go on" },
	{ "verbose", .letter = 'v', .kind = OPT_SET, AT(report.verbose), .value = 1,
	  .help = "say on stderr what was sent" },
	{ "json", .kind = OPT_SET, AT(report.json), .value = 1,
	  .help = "print what was sent as one JSON object" },
};

static int open_topic(struct import *im)
{
	struct shmq_pub_options how = { .size = sizeof(how) };
	struct sender *sender = &im->sender;
	int rc = shmq_pub_open(sender->cli->bus, sender->topic, &how, &sender->pub);

	if (rc == 0)
		rc = shmq_pub_get_topic(sender->pub, &im->info);
	if (rc < 0)
		return out_fail(sender->cli, rc, "importing into", sender->topic, NULL);
	im->input.shape = im->format == FORMAT_FRAMES ? INPUT_FRAMES : INPUT_LINES;
	im->input.limit = im->info.max_message_bytes;
	if (im->format == FORMAT_JSON)
		im->input.limit = LINE_FACTOR * im->input.limit + LINE_MORE;
	return CLI_OK;
}

static const char too_long[] = "it is longer than the topic takes";

/* ---- sending --------------------------------------------------------- */

static int flush(struct import *im)
{
	int code = sender_flush(&im->sender);

	history_release(&im->history);
	return code;
}

/* Those before it are sent, and it is said how many that are: who tries again needs
 * the others only. */
static int bad_record(struct import *im, const char *why)
{
	int code = flush(im);

	if (code != CLI_OK)
		return code;
	progress_hide(&im->sender);
	out_say("importing into \"%s\": %s %" PRIu64 " of %s: %s; the %" PRIu64
		" %s before it %s sent (hint: %s)",
		im->sender.topic, im->format == FORMAT_JSON ? "line" : "frame", im->input.number,
		im->file, why, im->sender.sent,
		units_plural(im->sender.sent, "message", "messages"),
		im->sender.sent == 1 ? "was" : "were",
		why == too_long ? "create the topic with a larger --max" :
				  "as \"shmq log export\" writes them");
	return CLI_FAILURE;
}

/* Where it was, where that can be: then its order there is what it was. */
static void place(const struct import *im, struct shmq_msg *msg)
{
	if (im->by_key || (uint32_t)msg->partition >= im->info.partitions)
		msg->partition = SHMQ_ANY_PARTITION;
	if (!(im->info.flags & SHMQ_TOPIC_TAG))
		msg->tag = 0;
	if (!(im->info.flags & SHMQ_TOPIC_TIME))
		msg->ts_ns = 0;
}

static int send_record(struct import *im, const char *data, size_t len)
{
	struct shmq_msg msg = { .data = data, .len = len, .partition = SHMQ_ANY_PARTITION };
	int code;

	if (im->input.number <= im->skip)
		return CLI_OK;
	if (im->format == FORMAT_JSON && history_parse(&im->history, data, len, &msg) < 0)
		return bad_record(im, im->history.why);
	im->lost += msg.lost;
	msg.lost = 0;
	place(im, &msg);
	code = sender_add(&im->sender, &msg);
	if (!im->sender.pending)
		history_release(&im->history);
	return code;
}

static int drain(struct import *im)
{
	enum input_status status;
	const char *data;
	size_t len;
	int code;

	while ((status = input_next(&im->input, &data, &len)) == INPUT_RECORD) {
		code = send_record(im, data, len);
		if (code != CLI_OK || sig_stopped())
			return code;
	}
	code = flush(im);
	if (code == CLI_OK && status == INPUT_TOO_LONG)
		code = bad_record(im, too_long);
	return code;
}

static int send_rest(struct import *im)
{
	const char *data;
	size_t len;
	int code;

	switch (input_rest(&im->input, &data, &len)) {
	case INPUT_CUT:
		im->input.number++;
		return bad_record(im, "the file ends inside it");
	case INPUT_RECORD:
		code = send_record(im, data, len);
		return code == CLI_OK ? flush(im) : code;
	default:
		return CLI_OK;
	}
}

static int send_all(struct import *im)
{
	ssize_t n = 1;
	int code = CLI_OK;

	while (code == CLI_OK && n != 0 && !sig_stopped()) {
		n = input_fill(&im->input);
		if (n == -EINTR)
			continue;
		if (n < 0) {
			progress_hide(&im->sender);
			return out_fail(NULL, (int)n, "reading", im->file, NULL);
		}
		code = drain(im);
	}
	return code != CLI_OK || sig_stopped() ? code : send_rest(im);
}

static int open_file(struct import *im)
{
	if (!strcmp(im->file, "-")) {
		im->file = "standard input";
		return CLI_OK;
	}
	im->input.fd = open(im->file, O_RDONLY | O_CLOEXEC);
	return im->input.fd >= 0 ? CLI_OK : out_fail(NULL, -errno, "opening", im->file, NULL);
}

/* Where there is a log, what was imported is to be in it. */
static int confirm(struct import *im)
{
	if (im->info.log <= SHMQ_LOG_NONE || sig_stopped())
		return CLI_OK;
	return sender_confirm(&im->sender,
			      im->info.sync == SHMQ_SYNC_NONE ? SHMQ_WRITTEN : SHMQ_SYNCED,
			      SHMQ_FOREVER);
}

static int import(struct import *im)
{
	int code = open_topic(im);

	if (code != CLI_OK)
		return code;
	sender_start(&im->sender);
	if (isatty(STDERR_FILENO) && !isatty(im->input.fd))
		progress_start(&im->sender);
	code = send_all(im);
	if (code == CLI_OK)
		code = confirm(im);
	code = sender_conclude(&im->sender, &im->report, code);
	/* Begun from the front again, it would send all of that twice. */
	if (code != CLI_OK && code != CLI_LOST && im->sender.sent)
		out_say("importing into \"%s\": to go on where this ended: --skip %" PRIu64,
			im->sender.topic, im->skip + im->sender.sent + im->sender.dropped);
	if (!im->lost)
		return code;
	out_say("importing into \"%s\": the file tells of %" PRIu64 " %s that it does not have "
		"(hint: gaps of the log it was exported from)",
		im->sender.topic, im->lost, units_plural(im->lost, "message", "messages"));
	return code == CLI_OK ? CLI_LOST : code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct import im = { .sender.cli = cli, .format = FORMAT_JSON, .file = "-" };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &im },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&log_import, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code;

	if (first == argc || argc - first > 2)
		opts_fail(&log_import, "log import takes a topic and a file");
	im.sender.topic = argv[first];
	if (argc - first == 2)
		im.file = argv[first + 1];
	im.sender.rate = im.rate;
	im.sender.batch_max = im.batch ? im.batch : im.rate > 0 ? 1 : BATCH_DEFAULT;
	code = open_file(&im);
	if (code == CLI_OK)
		code = cli_open(cli);
	if (code == CLI_OK) {
		sig_catch(cli->bus);
		code = import(&im);
	}
	if (im.input.fd > STDIN_FILENO)
		close(im.input.fd);
	shmq_pub_close(im.sender.pub);
	input_clear(&im.input);
	history_clear(&im.history);
	free(im.sender.batch);
	return code;
}

const struct command log_import = {
	"log import",
	"TOPIC [FILE] [OPTION]...",
	"Publish what was exported, as if it came now but with its own times",
	"FILE is - or left out for stdin.  Key, properties and type are kept, tag and time\n"
	"where the topic carries them; seqs are new.  Where the topic has a log, this ends\n"
	"when all is in it and survives the machine (without sync: every process).\n",
	"shmq log import test.orders aapl.json\n",
	run,
};
