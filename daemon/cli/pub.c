/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_UNSET INT64_MIN
#define BATCH_DEFAULT 64
#define BATCH_MAX 65536

struct pub {
	struct shmq_topic_options shape;
	struct sender sender;
	struct input input;
	struct shmq_topic_info info;
	char *const *messages; /* behind the topic */
	int message_count;
	struct opt_list files;
	const char *key, *separator;
	uint64_t tag, batch, wait_subscribers;
	int64_t timeout_ns;
	double rate;
	enum input_shape input_shape;
	enum shmq_wait wait;
	uint32_t type;
	int32_t partition_plus1;
	int create, flush;
	enum shmq_confirm confirm;
	struct sender_report report;
	size_t key_len;
	char split; /* the byte that ends a key, if separator is set */
};

#define AT(member) OPT_AT(struct pub, member)

static const struct opt_word confirms[] = {
	{ "written", SHMQ_WRITTEN },
	{ "synced", SHMQ_SYNCED },
	{ NULL, 0 },
};

static const struct opt options[] = {
	{ "lines", .kind = OPT_SET, AT(input_shape), .value = INPUT_LINES,
	  .help = "each line of stdin is a message (default)" },
	{ "frames", .kind = OPT_SET, AT(input_shape), .value = INPUT_FRAMES,
	  .help = "stdin is messages, each behind its length in 4\nbytes, little-endian" },
	{ "file", .kind = OPT_LIST, AT(files), .arg = "FILE...",
	  .help = "each file is one message; - is all of stdin" },
	{ "key", .letter = 'k', .kind = OPT_TEXT, AT(key), .arg = "KEY",
	  .help = "key of all messages" },
	{ "key-sep", .kind = OPT_TEXT, AT(separator), .arg = "CHAR",
	  .help = "what stands before the first CHAR of a line is its\nkey; \\t is a tab" },
	{ "type", .kind = OPT_COUNT, AT(type), .arg = "N", .max = UINT16_MAX,
	  .help = "type of all messages, 0 to 65535 (0)" },
	{ "tag", .kind = OPT_COUNT, AT(tag), .arg = "N",
	  .help = "tag of all messages; 0x... is hexadecimal\n(a hash of the key)" },
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "the partition (by key, else in turn)" },
	{ "rate", .letter = 'r', .kind = OPT_RATE, AT(rate), .arg = "N/s",
	  .help = "at most that many messages per second" },
	{ "batch", .kind = OPT_COUNT, AT(batch), .arg = "N", .min = 1, .max = BATCH_MAX,
	  .help = "publish up to N at once of those already read\n(64; with --rate 1)" },
	{ "create", .kind = OPT_SET, AT(create), .value = 1,
	  .help = "create the topic if it is missing, by the options\nof \"shmq create\"" },
	{ "wait-subscribers", .kind = OPT_COUNT, AT(wait_subscribers), .arg = "N", .max = INT32_MAX,
	  .help = "begin when N are attached" },
	{ "flush", .kind = OPT_SET, AT(flush), .value = 1,
	  .help = "end when those attached have read everything" },
	{ "confirm", .kind = OPT_WORD, AT(confirm), .words = confirms,
	  .help = "end when all is in the topic's log: written\n"
		  "(survives every process), synced (the machine)" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "how long each of these may take: a publish (the\n"
		  "topic's timeout), --wait-subscribers, --flush and\n"
		  "--confirm (forever); with 0 a full topic drops" },
	{ "wait", .kind = OPT_WORD, AT(wait), .words = shape_waits,
	  .help = "how to wait for room (the topic's hint)" },
	{ "verbose", .letter = 'v', .kind = OPT_SET, AT(report.verbose), .value = 1,
	  .help = "say on stderr what was sent" },
	{ "json", .kind = OPT_SET, AT(report.json), .value = 1,
	  .help = "print what was sent as one JSON object" },
};

/* ---- command line ---------------------------------------------------- */

static void take_separator(struct pub *pub)
{
	static const struct opt_word escapes[] = {
		{ "\\t", '\t' }, { "\\0", '\0' }, { "\\\\", '\\' }, { NULL, 0 }
	};
	const struct opt_word *escape = escapes;
	const char *text = pub->separator;

	if (!text)
		return;
	while (escape->text && strcmp(escape->text, text) != 0)
		escape++;
	if (!escape->text && (text[0] == '\0' || text[1] != '\0'))
		opts_fail(&cmd_pub, "--key-sep takes one character, not \"%s\"", text);
	pub->split = escape->text ? (char)escape->value : text[0];
}

static void check_options(struct pub *pub)
{
	const char *given = shape_given(&pub->shape);

	if (given && !pub->create)
		opts_fail(&cmd_pub, "--%s describes a new topic: it needs --create", given);
	shape_check(&cmd_pub, &pub->shape);
	if (pub->files.count && pub->input_shape != INPUT_LINES)
		opts_fail(&cmd_pub, "--frames and --file exclude each other");
	if (pub->files.count)
		pub->input_shape = INPUT_FILES;
	if (pub->key && pub->separator)
		opts_fail(&cmd_pub, "--key and --key-sep exclude each other");
	if (pub->separator && pub->input_shape != INPUT_LINES)
		opts_fail(&cmd_pub, "--key-sep needs --lines");
	if (pub->message_count && pub->input_shape == INPUT_FRAMES)
		opts_fail(&cmd_pub, "--frames are read from stdin: no message behind the topic");
	if (pub->message_count)
		pub->input_shape = INPUT_OPERANDS;
	take_separator(pub);
	pub->key_len = pub->key ? strlen(pub->key) : 0;
	if (pub->tag)
		pub->shape.flags |= SHMQ_TOPIC_TAG;
	pub->shape.wait = pub->wait;
	if (!pub->batch)
		pub->batch = pub->rate > 0 ? 1 : BATCH_DEFAULT;
	pub->sender.batch_max = pub->batch;
	pub->sender.rate = pub->rate;
}

/* What stands behind the topic is a message each; with --file, files too. */
static void take_operands(struct pub *pub, int argc, char **argv, int first)
{
	if (first == argc)
		opts_fail(&cmd_pub, "pub takes a topic");
	pub->sender.topic = argv[first++];
	if (!pub->files.count) {
		pub->messages = argv + first;
		pub->message_count = argc - first;
		return;
	}
	for (; first < argc; first++) {
		pub->files.items = cli_grow(pub->files.items, pub->files.count, &pub->files.room,
					    sizeof(*pub->files.items));
		pub->files.items[pub->files.count++] = argv[first];
	}
}

/* ---- opening --------------------------------------------------------- */

static int open_handle(struct pub *pub)
{
	struct shmq_pub_options how = { .size = sizeof(how), .wait = pub->wait };
	struct sender *sender = &pub->sender;

	if (pub->timeout_ns == SHMQ_NOWAIT)
		how.flags |= SHMQ_DONTWAIT;
	else if (pub->timeout_ns != TIMEOUT_UNSET)
		how.block_timeout_ns = pub->timeout_ns;
	return shmq_pub_open(sender->cli->bus, sender->topic, &how, &sender->pub);
}

static int create_topic(struct pub *pub)
{
	int rc = shmq_topic_create(pub->sender.cli->bus, pub->sender.topic, &pub->shape, NULL);

	return rc == SHMQ_EEXISTS ? 0 : rc; /* somebody else was faster */
}

static int no_partition(const struct pub *pub)
{
	char hint[128];

	snprintf(hint, sizeof(hint), "the topic has %u %s, counted from 0: no --partition %d",
		 pub->info.partitions,
		 units_plural(pub->info.partitions, "partition", "partitions"),
		 (int)pub->partition_plus1 - 1);
	return out_fail(NULL, SHMQ_EOPTION, "publishing to", pub->sender.topic, hint);
}

static int open_topic(struct pub *pub)
{
	struct sender *sender = &pub->sender;
	int rc = open_handle(pub);

	if (rc == SHMQ_ENOTOPIC && pub->create) {
		rc = create_topic(pub);
		if (rc < 0)
			return out_fail(sender->cli, rc, "creating", sender->topic, NULL);
		rc = open_handle(pub);
	}
	if (rc == SHMQ_ENOTOPIC)
		return out_fail(sender->cli, rc, "publishing to", sender->topic,
				"--create makes it, \"shmq ls\" shows what there is");
	if (rc == 0)
		rc = shmq_pub_get_topic(sender->pub, &pub->info);
	if (rc < 0)
		return out_fail(sender->cli, rc, "publishing to", sender->topic, NULL);
	pub->input.limit = pub->info.max_message_bytes;
	if (pub->partition_plus1 > (int64_t)pub->info.partitions)
		return no_partition(pub);
	if (pub->tag && !(pub->info.flags & SHMQ_TOPIC_TAG))
		return out_fail(NULL, SHMQ_EOPTION, "tagging messages to", sender->topic,
				"the topic carries no tags: leave out --tag, or create it so");
	return CLI_OK;
}

static int64_t patience(const struct pub *pub)
{
	return pub->timeout_ns == TIMEOUT_UNSET ? SHMQ_FOREVER : pub->timeout_ns;
}

static int wait_subscribers(struct pub *pub)
{
	struct sender *sender = &pub->sender;
	unsigned count = (unsigned)pub->wait_subscribers;
	int rc = 0;

	if (!count)
		return CLI_OK;
	progress_set(sender, DOING_WAIT_SUBSCRIBERS, 0);
	rc = shmq_pub_wait_subscribers(sender->pub, count, patience(pub));
	progress_set(sender, DOING_NOTHING, 0);
	if (rc == 0 || rc == -EINTR)
		return CLI_OK;
	progress_hide(sender);
	return out_fail(sender->cli, rc, "waiting for subscribers of", sender->topic,
			rc == SHMQ_ETIMEOUT ? "start them with \"shmq sub\", or wait longer" :
					      NULL);
}

static int wait_consumed(struct pub *pub)
{
	struct sender *sender = &pub->sender;
	int rc;

	if (!pub->flush)
		return CLI_OK;
	progress_set(sender, DOING_PUBLISH, 0);
	rc = shmq_flush(sender->pub, patience(pub));
	progress_set(sender, DOING_NOTHING, 0);
	return rc == 0 || rc == -EINTR ? CLI_OK : sender_fail(sender, rc, "flushing");
}

/* ---- reading --------------------------------------------------------- */

static const char *const record_names[] = { [INPUT_LINES] = "line",
					    [INPUT_FRAMES] = "frame",
					    [INPUT_FILES] = "file",
					    [INPUT_OPERANDS] = "message" };

static int too_long(struct pub *pub, size_t len)
{
	char hint[256];

	progress_hide(&pub->sender);
	snprintf(hint, sizeof(hint),
		 "%s %" PRIu64 " has %zu bytes or more, the topic takes %" PRIu64
		 "; create it with a larger --max",
		 record_names[pub->input.shape], pub->input.number, len,
		 pub->info.max_message_bytes);
	return out_fail(NULL, SHMQ_ETOOBIG, "publishing to", pub->sender.topic, hint);
}

static int cut(struct pub *pub)
{
	progress_hide(&pub->sender);
	out_say("reading frames: the input ends inside frame %" PRIu64
		" (hint: each is its length in 4 bytes, little-endian, and that many bytes)",
		pub->input.number + 1);
	return CLI_FAILURE;
}

static int send_record(struct pub *pub, const char *data, size_t len)
{
	struct shmq_msg msg = {
		.data = data,
		.len = len,
		.key = pub->key,
		.key_len = pub->key_len,
		.partition = pub->partition_plus1 - 1, /* SHMQ_ANY_PARTITION if not given */
		.type = (uint16_t)pub->type,
		.tag = pub->tag,
	};
	const char *end = pub->separator ? memchr(data, pub->split, len) : NULL;

	if (end) {
		msg.key = data;
		msg.key_len = (size_t)(end - data);
		msg.data = end + 1;
		msg.len = len - msg.key_len - 1;
	}
	return sender_add(&pub->sender, &msg);
}

/* Send all records that are there.  What is still pending then is sent
 * before the next read, which may move the bytes or wait. */
static int drain(struct pub *pub)
{
	enum input_status status;
	const char *data;
	size_t len;
	int code;

	while ((status = input_next(&pub->input, &data, &len)) == INPUT_RECORD) {
		code = send_record(pub, data, len);
		if (code != CLI_OK || sig_stopped())
			return code;
	}
	code = sender_flush(&pub->sender);
	if (code == CLI_OK && status == INPUT_TOO_LONG)
		code = too_long(pub, len);
	return code;
}

static int send_rest(struct pub *pub)
{
	enum input_status status;
	const char *data;
	size_t len;
	int code;

	status = input_rest(&pub->input, &data, &len);
	if (status == INPUT_CUT)
		return cut(pub);
	if (status == INPUT_NEEDS_MORE)
		return CLI_OK;
	code = send_record(pub, data, len);
	return code == CLI_OK ? sender_flush(&pub->sender) : code;
}

static int send_stream(struct pub *pub, int fd, const char *name)
{
	ssize_t n = 1;
	int code = CLI_OK;

	pub->input.fd = fd;
	while (code == CLI_OK && n != 0 && !sig_stopped()) {
		n = input_fill(&pub->input);
		if (n == -EINTR)
			continue;
		if (n < 0) {
			progress_hide(&pub->sender);
			return out_fail(NULL, (int)n, "reading", name, NULL);
		}
		code = drain(pub);
		progress_set(&pub->sender, DOING_READ, pub->input.end - pub->input.start);
	}
	if (code != CLI_OK || sig_stopped())
		return code;
	return send_rest(pub);
}

static int send_file(struct pub *pub, const char *name)
{
	int code, fd;

	if (!strcmp(name, "-"))
		return send_stream(pub, STDIN_FILENO, "standard input");
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		progress_hide(&pub->sender);
		return out_fail(NULL, -errno, "opening", name, NULL);
	}
	code = send_stream(pub, fd, name);
	close(fd);
	return code;
}

static int send_operands(struct pub *pub)
{
	int code = CLI_OK, i;

	for (i = 0; i < pub->message_count && code == CLI_OK && !sig_stopped(); i++) {
		size_t len = strlen(pub->messages[i]);

		pub->input.number++;
		if (len > pub->input.limit) {
			code = sender_flush(&pub->sender);
			return code == CLI_OK ? too_long(pub, len) : code;
		}
		code = send_record(pub, pub->messages[i], len);
	}
	return code == CLI_OK ? sender_flush(&pub->sender) : code;
}

static int send_input(struct pub *pub)
{
	int code = CLI_OK;
	size_t i;

	pub->input.shape = pub->input_shape;
	if (pub->message_count)
		return send_operands(pub);
	if (!pub->files.count)
		return send_stream(pub, STDIN_FILENO, "standard input");
	for (i = 0; i < pub->files.count && code == CLI_OK && !sig_stopped(); i++)
		code = send_file(pub, pub->files.items[i]);
	return code;
}

/* ---- the end --------------------------------------------------------- */

static int publish_all(struct pub *pub)
{
	int code;

	sender_start(&pub->sender);
	if (isatty(STDERR_FILENO) && !isatty(STDIN_FILENO))
		progress_start(&pub->sender);
	code = wait_subscribers(pub);
	pub->sender.started_ns = cli_now_ns();
	if (code == CLI_OK && !sig_stopped())
		code = send_input(pub);
	if (code == CLI_OK && !sig_stopped())
		code = wait_consumed(pub);
	if (code == CLI_OK && pub->confirm && !sig_stopped())
		code = sender_confirm(&pub->sender, pub->confirm, patience(pub));
	return sender_conclude(&pub->sender, &pub->report, code);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct pub pub = {
		.shape.size = sizeof(pub.shape),
		.sender.cli = cli,
		.timeout_ns = TIMEOUT_UNSET,
	};
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &pub },
		{ NULL, shape_options, shape_option_count, &pub.shape },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int code,
		first = opts_parse(&cmd_pub, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));

	take_operands(&pub, argc, argv, first);
	check_options(&pub);
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	code = open_topic(&pub);
	if (code == CLI_OK)
		code = publish_all(&pub);
	shmq_pub_close(pub.sender.pub);
	input_clear(&pub.input);
	free(pub.sender.batch);
	free(pub.files.items);
	return code;
}

const struct command cmd_pub = {
	"pub",
	"TOPIC [MESSAGE]... [OPTION]...",
	"Publish messages, or what comes from stdin or files",
	"Without MESSAGE each line of stdin is one.\n"
	"A message that does not fit the topic ends the command.  Where the policy drops\n"
	"or --timeout is 0, a message that finds the topic full is dropped and counted.\n",
	"shmq pub greetings hello 'good morning' --create\n"
	"seq 1000 | shmq pub numbers --create\n"
	"printf 'AAPL 189.7\\nMSFT 421.1\\n' | shmq pub orders --key-sep ' ' --confirm synced\n",
	run,
};
