/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS ((int64_t)1000000000)
#define STDOUT_BYTES ((size_t)256 << 10)

/* One partition, and its next message. */
struct lane {
	shmq_sub *sub; /* NULL: nothing more is wanted of it */
	struct shmq_msg msg;
	int has_msg;
	char *buf;
	size_t buf_bytes;
	uint64_t lost; /* before msg */
	int is_bound;  /* ... at most */
};

struct replay {
	struct cli *cli;
	const char *topic, *from, *to_text, *speed_text;
	struct when to;
	double speed; /* 0: flat out */
	uint64_t count, done;
	int64_t timeout_ns;
	int32_t partition_plus1;
	enum format format;
	unsigned format_flags, sub_flags;
	struct sender_report report;

	struct shmq_topic_info info, into;
	struct sender sender; /* sender.topic: where to, NULL: printed */
	struct lane *lanes;
	uint32_t lane_count, open_count;
	shmq_waitset *set;
	shmq_sub **ready;
	struct loss loss;
	int64_t started_ns; /* at which first_ts was due */
	uint64_t first_ts;
	int64_t heard_ns;
	int code, is_over;
};

#define AT(member) OPT_AT(struct replay, member)

static const struct opt options[] = {
	{ "from", .kind = OPT_TEXT, AT(from), .arg = "oldest|latest|SEQ|TIME|-AGE",
	  .help = "where to start (oldest)" },
	{ "to", .kind = OPT_TEXT, AT(to_text), .arg = "SEQ|TIME|-AGE|now",
	  .help = "end before the message with that number, or the\n"
		  "first one of that time or later (go on into what\nis published then)" },
	{ "speed", .letter = 's', .kind = OPT_TEXT, AT(speed_text), .arg = "N|recorded|flat",
	  .help = "as the messages' times say (recorded, default), N\n"
		  "times as fast, or without a pause" },
	{ "into", .kind = OPT_TEXT, AT(sender.topic), .arg = "TOPIC",
	  .help = "publish them there, with key, properties, type,\n"
		  "and tag and time if it carries them (print them)" },
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "only this partition (all, merged by time)" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N", .min = 1,
	  .help = "end after N messages" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "end when nothing more came for that long (forever)" },
	{ "end", .kind = OPT_OR, AT(sub_flags), .value = SHMQ_SUB_END_WITH_PUBLISHERS,
	  .help = "end when the publishers have left" },
	{ "format", .letter = 'o', .kind = OPT_WORD, AT(format), .words = format_words,
	  .help = "as of \"shmq sub\" (text)" },
	{ "json", .kind = OPT_SET, AT(report.json), .value = 1,
	  .help = "--format json; with --into: print what was sent as\none JSON object" },
	{ "print-key", .kind = OPT_OR, AT(format_flags), .value = FORMAT_KEY,
	  .help = "text, hex: the key and a tab before the message" },
	{ "verbose", .letter = 'v', .kind = OPT_SET, AT(report.verbose), .value = 1,
	  .help = "say on stderr what was replayed" },
};

/* ---- command line ---------------------------------------------------- */

static void take_speed(struct replay *r)
{
	const char *text = r->speed_text;
	char *end;

	r->speed = 1;
	if (!text || !strcmp(text, "recorded"))
		return;
	if (!strcmp(text, "flat")) {
		r->speed = 0;
		return;
	}
	if (text[0] >= '0' && text[0] <= '9') {
		r->speed = strtod(text, &end);
		if ((!*end || !strcmp(end, "x")) && r->speed > 0 && r->speed <= 1e9)
			return;
	}
	opts_fail(&cmd_replay,
		  "--speed takes recorded, flat or a number such as 10 or 0.5, not \"%s\"", text);
}

static void check_options(struct replay *r)
{
	const char *into = r->sender.topic;

	take_speed(r);
	r->to = when_take(&cmd_replay, "to", r->to_text);
	if (into && !strcmp(into, r->topic))
		opts_fail(&cmd_replay, "--into \"%s\" would replay the replay", into);
	if (into && (r->format || r->format_flags))
		opts_fail(&cmd_replay,
			  "--into prints no messages: leave out --format and --print-key");
	if (!into && r->report.json)
		r->format = FORMAT_JSON;
}

/* ---- opening --------------------------------------------------------- */

static int check_topic(const struct replay *r)
{
	int has_time = (r->info.flags & SHMQ_TOPIC_TIME) != 0;

	if (r->to.kind == WHEN_SEQ && !r->partition_plus1 && r->info.partitions > 1)
		return out_fail(NULL, SHMQ_EOPTION, "replaying", r->topic,
				"a seq counts in one partition: name it with --partition");
	if (r->to.kind == WHEN_TIME && !has_time)
		return out_fail(NULL, SHMQ_EOPTION, "replaying", r->topic,
				"its messages carry no time to end at: create it with --time");
	if (r->speed > 0 && !has_time)
		return out_fail(NULL, SHMQ_EOPTION, "replaying", r->topic,
				"its messages carry no times to go by: --speed flat");
	return CLI_OK;
}

/* Publishers do not wait for a replay, which takes its time on purpose. */
static int open_lane(struct replay *r, struct lane *lane, struct shmq_sub_options *how)
{
	int rc = shmq_sub_open(r->cli->bus, r->topic, how, &lane->sub);

	return rc == 0 ? shmq_waitset_add(r->set, lane->sub) : rc;
}

static int open_lanes(struct replay *r)
{
	struct shmq_sub_options how = { .size = sizeof(how),
					.flags = r->sub_flags | SHMQ_SUB_OBSERVE };
	uint32_t i;
	int rc;

	when_start(&cmd_replay, r->from ? r->from : "oldest", &how);
	if (how.from == SHMQ_FROM_SEQ && !r->partition_plus1 && r->info.partitions > 1)
		return out_fail(NULL, SHMQ_EOPTION, "replaying", r->topic,
				"a seq counts in one partition: name it with --partition");
	r->lane_count = r->partition_plus1 ? 1 : r->info.partitions;
	r->lanes = cli_alloc(NULL, r->lane_count * sizeof(*r->lanes));
	memset(r->lanes, 0, r->lane_count * sizeof(*r->lanes));
	r->ready = cli_alloc(NULL, r->lane_count * sizeof(shmq_sub *));
	rc = shmq_waitset_create(r->cli->bus, &r->set);
	for (i = 0; rc == 0 && i < r->lane_count; i++) {
		how.partition_plus1 = r->partition_plus1 ? r->partition_plus1 : (int32_t)i + 1;
		rc = open_lane(r, &r->lanes[i], &how);
		r->open_count += rc == 0;
	}
	return rc == 0 ? CLI_OK : out_fail(r->cli, rc, "replaying", r->topic, NULL);
}

static int open_into(struct replay *r)
{
	struct shmq_pub_options how = { .size = sizeof(how) };
	struct sender *sender = &r->sender;
	int rc;

	if (!sender->topic)
		return CLI_OK;
	rc = shmq_pub_open(r->cli->bus, sender->topic, &how, &sender->pub);
	if (rc == 0)
		rc = shmq_pub_get_topic(sender->pub, &r->into);
	if (rc < 0)
		return out_fail(r->cli, rc, "publishing to", sender->topic, NULL);
	sender->batch_max = 1;
	sender_start(sender);
	if (isatty(STDERR_FILENO))
		progress_start(sender);
	return CLI_OK;
}

static void close_all(struct replay *r)
{
	uint32_t i;

	shmq_waitset_destroy(r->set);
	for (i = 0; i < r->lane_count; i++) {
		shmq_sub_close(r->lanes[i].sub);
		free(r->lanes[i].buf);
	}
	shmq_pub_close(r->sender.pub);
	free(r->sender.batch);
	free(r->lanes);
	free(r->ready);
}

/* ---- receiving ------------------------------------------------------- */

static void end(struct replay *r, int code)
{
	r->is_over = 1;
	if (r->code == CLI_OK)
		r->code = code;
}

static void close_lane(struct replay *r, struct lane *lane, int code)
{
	shmq_sub_close(lane->sub);
	lane->sub = NULL;
	if (r->code == CLI_OK)
		r->code = code;
	r->open_count--;
}

static int receive_copy(struct lane *lane)
{
	size_t need;
	int rc;

	for (;;) {
		rc = shmq_receive_copy(lane->sub, lane->buf, lane->buf_bytes, &lane->msg,
				       SHMQ_NOWAIT);
		if (rc != SHMQ_EBUFFER)
			return rc;
		need = lane->msg.len + lane->msg.key_len + lane->msg.properties_len;
		lane->buf_bytes = need > 2 * lane->buf_bytes ? need : 2 * lane->buf_bytes;
		lane->buf = cli_alloc(lane->buf, lane->buf_bytes);
	}
}

/* Its next message, if it is there. */
static void look(struct replay *r, struct lane *lane)
{
	int rc;

	do {
		lane->msg = (struct shmq_msg){ 0 };
		rc = receive_copy(lane);
		if (rc == SHMQ_EOVERRUN) {
			progress_hide(&r->sender);
			lane->lost += lane->msg.lost;
			lane->is_bound |= lane->msg.lost_is_bound != 0;
			loss_add(&r->loss, &lane->msg);
		}
	} while (rc == SHMQ_EOVERRUN);
	if (rc == 0) {
		lane->has_msg = 1;
		r->heard_ns = cli_now_ns();
		if (!when_is_reached(&r->to, &lane->msg))
			return;
		lane->has_msg = 0;
		close_lane(r, lane, CLI_OK);
	} else if (rc == SHMQ_EENDED && (r->sub_flags & SHMQ_SUB_END_WITH_PUBLISHERS)) {
		close_lane(r, lane, CLI_OK);
	} else if (rc != SHMQ_EEMPTY && rc != SHMQ_ESTALLED) {
		progress_hide(&r->sender);
		close_lane(r, lane, out_fail(r->cli, rc, "replaying", r->topic, NULL));
	}
}

/* Nothing is there, and what is wanted cannot come any more. */
static void leave_if_passed(struct replay *r, struct lane *lane)
{
	int32_t partition =
		r->partition_plus1 ? r->partition_plus1 - 1 : (int32_t)(lane - r->lanes);
	struct shmq_sub_stats stats;

	if (!lane->sub || lane->has_msg ||
	    !when_is_passed(&r->to, r->cli->bus, r->topic, partition + 1))
		return;
	shmq_sub_get_stats(lane->sub, &stats);
	if (!stats.lag)
		close_lane(r, lane, CLI_OK);
}

/* The oldest of those that are there, NULL if none is. */
static struct lane *choose(struct replay *r)
{
	struct lane *oldest = NULL;
	uint32_t i;

	for (i = 0; i < r->lane_count; i++) {
		struct lane *lane = &r->lanes[i];

		if (lane->sub && !lane->has_msg) {
			look(r, lane);
			leave_if_passed(r, lane);
		}
		if (lane->has_msg && (!oldest || lane->msg.ts_ns < oldest->msg.ts_ns))
			oldest = lane;
	}
	return oldest;
}

static int64_t sooner(int64_t left, int64_t right)
{
	if (left == SHMQ_FOREVER || right == SHMQ_FOREVER)
		return left == SHMQ_FOREVER ? right : left;
	return left < right ? left : right;
}

static void flush(struct replay *r)
{
	int rc = out_flush();

	if (rc < 0)
		end(r, out_broken(sig_stopped() ? -EPIPE : rc));
}

static void wait_for_more(struct replay *r)
{
	int64_t wait_ns = when_look_ns(&r->to), left;

	flush(r);
	if (r->is_over)
		return;
	if (r->timeout_ns != SHMQ_FOREVER) {
		left = r->heard_ns + r->timeout_ns - cli_now_ns();
		if (left <= 0) {
			end(r, CLI_TIMEOUT);
			return;
		}
		wait_ns = sooner(wait_ns, left);
	}
	wait_ns = sooner(wait_ns, loss_tell_when_due(&r->loss));
	shmq_waitset_wait(r->set, r->ready, r->lane_count, wait_ns);
}

/* ---- sending --------------------------------------------------------- */

/* When it is due, counted from the first one.  Times that go back are due. */
static void pace(struct replay *r, const struct shmq_msg *msg)
{
	int64_t due, after;

	if (r->speed <= 0 || !msg->ts_ns)
		return;
	if (!r->first_ts) {
		r->first_ts = msg->ts_ns;
		r->started_ns = cli_now_ns();
	}
	after = (int64_t)(msg->ts_ns - r->first_ts);
	due = r->started_ns + (int64_t)((double)after / r->speed);
	if (after <= 0 || due <= cli_now_ns())
		return;
	flush(r);
	while (!r->is_over && !sig_stopped() && cli_now_ns() < due)
		sig_sleep_until(due);
}

static int publish(struct replay *r, const struct shmq_msg *msg)
{
	struct shmq_msg copy = *msg;

	copy.lost = 0;
	copy.flags = 0;
	if ((uint32_t)copy.partition >= r->into.partitions)
		copy.partition = SHMQ_ANY_PARTITION;
	if (!(r->info.flags & SHMQ_TOPIC_TAG))
		copy.tag = 0;
	return sender_add(&r->sender, &copy);
}

static int print(struct replay *r, const struct lane *lane)
{
	const struct format_message message = { .topic = r->topic,
						.msg = &lane->msg,
						.lost = lane->lost,
						.is_bound = lane->is_bound,
						.has = r->info.flags,
						.flags = r->format_flags };
	int rc = format_write(r->format, &message);

	return rc < 0 ? out_broken(sig_stopped() ? -EPIPE : rc) : CLI_OK;
}

static void replay_all(struct replay *r)
{
	struct lane *lane;
	int code;

	r->heard_ns = cli_now_ns();
	while (!r->is_over && !sig_stopped()) {
		lane = choose(r);
		if (!lane && !r->open_count)
			break;
		if (!lane) {
			wait_for_more(r);
			continue;
		}
		pace(r, &lane->msg);
		if (r->is_over || sig_stopped())
			break;
		code = r->sender.topic ? publish(r, &lane->msg) : print(r, lane);
		lane->has_msg = 0;
		lane->lost = 0;
		lane->is_bound = 0;
		if (code != CLI_OK || ferror(stdout) || ++r->done == r->count)
			end(r, code);
	}
}

static int conclude(struct replay *r)
{
	int code = r->code;

	if (r->sender.pub)
		code = sender_conclude(&r->sender, &r->report, code);
	loss_tell_rest(&r->loss);
	if (r->report.verbose)
		out_say("replayed \"%s\": %" PRIu64 " %s, %" PRIu64 " lost", r->topic, r->done,
			units_plural(r->done, "message", "messages"), r->loss.lost);
	if (code == CLI_TIMEOUT)
		out_say("replaying \"%s\": %s: nothing more came for %s (hint: a longer --timeout, "
			"or --to now)",
			r->topic, shmq_strerror(SHMQ_ETIMEOUT), units_duration(r->timeout_ns).s);
	return r->loss.lost && (code == CLI_OK || code == CLI_TIMEOUT) ? CLI_LOST : code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct replay r = { .cli = cli, .timeout_ns = SHMQ_FOREVER, .sender.cli = cli };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &r },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_replay, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc - first != 1)
		opts_fail(&cmd_replay, "replay takes one topic");
	r.topic = argv[first];
	r.loss = (struct loss){ "replaying", r.topic,
				.hint = "a topic with a log loses only what that has gaps for" };
	check_options(&r);
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	setvbuf(stdout, NULL, _IOFBF, STDOUT_BYTES);
	rc = shmq_topic_get_info(cli->bus, r.topic, &r.info);
	if (rc < 0)
		return out_fail(cli, rc, "replaying", r.topic, NULL);
	if (r.info.log > SHMQ_LOG_NONE)
		r.loss.hint = loss_from_log;
	code = check_topic(&r);
	if (code == CLI_OK)
		code = open_lanes(&r);
	if (code == CLI_OK)
		code = open_into(&r);
	if (code == CLI_OK) {
		replay_all(&r);
		code = conclude(&r);
	}
	close_all(&r);
	return code;
}

const struct command cmd_replay = {
	"replay",
	"TOPIC [OPTION]...",
	"Print or publish messages again at the pace they came",
	"What is replayed is read as by any subscriber, but publishers never wait for it.\n"
	"Without --to it goes on into what is published meanwhile, just as late.\n",
	"shmq replay orders --from -1h --to now --speed 10\n"
	"shmq create test.orders && shmq replay orders --to now --speed flat --into test.orders\n",
	run,
};
