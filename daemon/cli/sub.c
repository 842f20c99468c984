/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS ((int64_t)1000000000)
#define STALL_LOOK_NS (SECOND_NS / 10)
#define STDOUT_BYTES ((size_t)256 << 10)
#define SUMMARY_BYTES 1024u /* names are a quarter of it */
#define TURN 64             /* messages of one topic before the others have a turn */

/* One topic that is read, or all of a pattern; of those each is one as well, whose
 * sub is NULL, from its first message on. */
struct source {
	const char *topic;
	char *copy; /* of its name, if it is of a pattern */
	int is_pattern;
	int32_t partition_plus1; /* 0: all of them */
	shmq_sub *sub;           /* NULL: closed */
	uint32_t stamps;         /* SHMQ_TOPIC_* */
	int views;               /* 1: nobody overwrites what is being looked at */
	uint64_t received;
	struct shmq_latency latency; /* as of when it was closed, */
	uint64_t conflated;          /* and this too */
	struct loss loss;
	struct lost {
		uint64_t count;
		int is_bound;
	} * lost_here; /* per partition, since its last message */
	uint32_t partitions;
	int stalled;
	int64_t again_ns; /* stalled, and out of the set until then; else 0 */
};

struct sub {
	struct cli *cli;
	const char *from, *to_text, *cursor;
	struct when to;
	int64_t timeout_ns;
	uint64_t count;
	int32_t partition_plus1;
	enum format format;
	enum shmq_wait wait;
	unsigned format_flags, sub_flags;
	int verbose, latency;

	struct source *sources;
	size_t told; /* of a pattern's topics: whose message was the last */
	size_t source_count, source_room, open_count;
	size_t aside_count; /* of those open: stalled, out of the set */
	shmq_waitset *set;
	shmq_sub **ready;
	char *copy;
	size_t copy_bytes;
	uint64_t received;
	int64_t heard_ns; /* when the last message came */
	int64_t store_ns; /* when cursors are to be stored at the latest */
	int code;         /* of what ended it, CLI_OK while going on */
	int done;
};

#define AT(member) OPT_AT(struct sub, member)

static const struct opt options[] = {
	{ "from", .kind = OPT_TEXT, AT(from), .arg = "latest|oldest|SEQ|TIME|-AGE",
	  .help = "where to start (latest: the next message);\n"
		  "SEQ needs one partition, 2026-11-26T07:00:00Z\n"
		  "and -5min a topic with a log" },
	{ "cursor", .kind = OPT_TEXT, AT(cursor), .arg = "NAME",
	  .help = "store how far it has come under that name, and\n"
		  "start there (oldest: if there is none yet)" },
	{ "to", .kind = OPT_TEXT, AT(to_text), .arg = "SEQ|TIME|-AGE|now",
	  .help = "end before the message with that number, or\n"
		  "the first one of that time or later" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N", .min = 1,
	  .help = "end after N messages" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "end when nothing came for that long (forever);\n"
		  "0 takes what is there" },
	{ "end", .kind = OPT_OR, AT(sub_flags), .value = SHMQ_SUB_END_WITH_PUBLISHERS,
	  .help = "end when the publishers have left (at once if\nthere were some and none are left)" },
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "only this partition (all)" },
	{ "format", .letter = 'o', .kind = OPT_WORD, AT(format), .words = format_words,
	  .help = "text: a line each (default); hex: digits, a line\n"
		  "each; json: an object each; raw: only the bytes;\n"
		  "frames: as \"pub --frames\" reads them" },
	{ "json", .kind = OPT_SET, AT(format), .value = FORMAT_JSON,
	  .help = "the same as --format json" },
	{ "print-key", .kind = OPT_OR, AT(format_flags), .value = FORMAT_KEY,
	  .help = "text, hex: the key and a tab before the message" },
	{ "print-topic", .kind = OPT_OR, AT(format_flags), .value = FORMAT_TOPIC,
	  .help = "text, hex: the topic and a tab before that" },
	{ "conflate", .kind = OPT_OR, AT(sub_flags), .value = SHMQ_SUB_CONFLATE,
	  .help = "only the newest message of each key, of those\n"
		  "that came while the last ones were written" },
	{ "wait", .kind = OPT_WORD, AT(wait), .words = shape_waits,
	  .help = "how to wait (the topic's hint)" },
	{ "latency", .kind = OPT_SET, AT(latency), .value = 1,
	  .help = "measure from publish to receive, and say it on\n"
		  "stderr; needs a topic with --time" },
	{ "verbose", .letter = 'v', .kind = OPT_SET, AT(verbose), .value = 1,
	  .help = "say on stderr what was received" },
};

/* ---- opening --------------------------------------------------------- */

/* What gates publishers is safe from them while it is looked at. */
static int gates(enum shmq_policy policy)
{
	return policy == SHMQ_BLOCK || policy == SHMQ_DROP_NEW;
}

/* Where a stream ends must be seen in it. */
static int check_end(const struct sub *sub, const struct source *source,
		     const struct shmq_topic_info *info)
{
	if (sub->to_text && source->is_pattern)
		return out_fail(NULL, SHMQ_EOPTION, "subscribing to", source->topic,
				"--to is of one topic: name them");
	if (sub->to.kind == WHEN_SEQ && !source->partition_plus1 && info->partitions > 1)
		return out_fail(NULL, SHMQ_EOPTION, "subscribing to", source->topic,
				"a seq counts in one partition: name it with --partition");
	if (sub->to.kind == WHEN_TIME && !(info->flags & SHMQ_TOPIC_TIME))
		return out_fail(NULL, SHMQ_EOPTION, "subscribing to", source->topic,
				"its messages carry no time to end at: create it with --time");
	return CLI_OK;
}

static void describe_source(struct source *source, const struct shmq_topic_info *info)
{
	source->loss = (struct loss){ "receiving from", source->topic,
				      .hint = info->log > SHMQ_LOG_NONE ?
						      loss_from_log :
						      "read faster, or create the topic deeper" };
	source->stamps = info->flags;
	source->views = gates(info->policy); /* those of a pattern may be of any */
	source->partitions = info->partitions;
	source->lost_here = cli_alloc(NULL, info->partitions * sizeof(*source->lost_here));
	memset(source->lost_here, 0, info->partitions * sizeof(*source->lost_here));
}

static int open_source(struct sub *sub, struct source *source, struct shmq_sub_options *how)
{
	struct shmq_topic_info info = { .partitions = 1, .flags = SHMQ_TOPIC_TIME };
	const char *hint = NULL;
	int rc;

	how->partition_plus1 = source->partition_plus1;
	rc = shmq_sub_open(sub->cli->bus, source->topic, how, &source->sub);
	if (rc == SHMQ_EOPTION && how->from == SHMQ_FROM_SEQ && !how->partition_plus1)
		hint = "a seq counts in one partition: name it with --partition";
	if (rc == SHMQ_EINUSE && how->cursor)
		hint = "end that one, or name another cursor";
	source->is_pattern = topic_is_pattern(source->topic);
	if (rc == 0 && !source->is_pattern)
		rc = shmq_sub_get_topic(source->sub, &info);
	if (rc == 0)
		rc = shmq_waitset_add(sub->set, source->sub);
	if (rc == 0 && sub->latency) {
		rc = shmq_sub_latency_start(source->sub);
		if (rc == SHMQ_EOPTION)
			hint = source->is_pattern ? "name its topics" : "create it with --time";
	}
	if (rc < 0)
		return out_fail(sub->cli, rc, "subscribing to", source->topic, hint);
	describe_source(source, &info);
	sub->open_count++;
	return check_end(sub, source, &info);
}

static void add_source(struct sub *sub, const char *topic, int32_t partition_plus1)
{
	sub->sources =
		cli_grow(sub->sources, sub->source_count, &sub->source_room, sizeof(*sub->sources));
	sub->sources[sub->source_count++] =
		(struct source){ .topic = topic, .partition_plus1 = partition_plus1 };
}

/* Each partition comes to a time by itself, and is left there. */
static void add_topic(struct sub *sub, const char *topic, enum shmq_from from)
{
	struct shmq_topic_info info;
	uint32_t p;

	if (sub->partition_plus1 || sub->to.kind != WHEN_TIME || from == SHMQ_FROM_SEQ ||
	    shmq_topic_get_info(sub->cli->bus, topic, &info) < 0) {
		add_source(sub, topic, sub->partition_plus1);
		return;
	}
	for (p = 0; p < info.partitions; p++)
		add_source(sub, topic, (int32_t)p + 1);
}

static int open_sources(struct sub *sub, struct shmq_sub_options *how)
{
	int rc = shmq_waitset_create(sub->cli->bus, &sub->set);
	int code = CLI_OK;
	size_t i;

	if (rc < 0)
		return out_fail(sub->cli, rc, "making a wait set on bus",
				shmq_bus_name(sub->cli->bus), NULL);
	for (i = 0; i < sub->source_count && code == CLI_OK; i++)
		code = open_source(sub, &sub->sources[i], how);
	return code;
}

static void close_sources(struct sub *sub)
{
	size_t i;

	shmq_waitset_destroy(sub->set);
	for (i = 0; i < sub->source_count; i++) {
		shmq_sub_close(sub->sources[i].sub);
		free(sub->sources[i].lost_here);
		free(sub->sources[i].copy);
	}
	free(sub->sources);
	free(sub->ready);
	free(sub->copy);
}

/* ---- topics of a pattern --------------------------------------------- */

static int is_told(const struct source *source, const char *topic)
{
	return source->copy && !strcmp(source->topic, topic);
}

/* Whom what the pattern `from` has just told is of; `from` itself where that is no
 * topic that it reads.  Others may have moved. */
static size_t find_told(struct sub *sub, size_t from)
{
	const char *topic = shmq_sub_topic(sub->sources[from].sub);
	struct shmq_topic_info info;
	struct source *fresh;
	size_t i;

	if (sub->told < sub->source_count && is_told(&sub->sources[sub->told], topic))
		return sub->told;
	for (i = 0; i < sub->source_count; i++)
		if (is_told(&sub->sources[i], topic))
			return sub->told = i;
	if (shmq_sub_get_topic(sub->sources[from].sub, &info) < 0)
		return from;
	add_source(sub, NULL, 0);
	fresh = &sub->sources[sub->source_count - 1];
	fresh->topic = fresh->copy = cli_strdup(topic);
	describe_source(fresh, &info);
	return sub->told = sub->source_count - 1;
}

/* ---- losses ---------------------------------------------------------- */

static void lose(struct source *source, const struct shmq_msg *msg)
{
	struct lost none = { 0 }, *lost = &none;

	if ((uint32_t)msg->partition < source->partitions)
		lost = &source->lost_here[msg->partition];
	lost->count += msg->lost;
	lost->is_bound |= msg->lost_is_bound != 0;
	loss_add(&source->loss, msg);
}

static uint64_t total_lost(const struct sub *sub)
{
	uint64_t lost = 0;
	size_t i;

	for (i = 0; i < sub->source_count; i++)
		lost += sub->sources[i].loss.lost;
	return lost;
}

/* ---- summary --------------------------------------------------------- */

static int exit_code(const struct sub *sub)
{
	int incomplete = total_lost(sub) > 0;

	/* A failure outweighs a loss, a loss outweighs a timeout. */
	if (sub->code != CLI_OK && sub->code != CLI_TIMEOUT)
		return sub->code;
	return incomplete ? CLI_LOST : sub->code;
}

static void latency_of(const struct source *source, char *out, size_t bytes)
{
	struct shmq_latency l = source->latency;

	if (source->sub && shmq_sub_get_latency(source->sub, &l) < 0)
		return;
	if (!l.count) {
		snprintf(out, bytes, "shmq: latency of \"%s\": 0 measured\n", source->topic);
		return;
	}
	snprintf(out, bytes,
		 "shmq: latency of \"%s\": %" PRIu64 " measured, p50 %s, p99 %s, p99.9 %s, "
		 "longest %s\n",
		 source->topic, l.count, units_duration((int64_t)l.p50_ns).s,
		 units_duration((int64_t)l.p99_ns).s, units_duration((int64_t)l.p999_ns).s,
		 units_duration((int64_t)l.most_ns).s);
}

/* What it says of messages that a newer one replaced. */
static struct units_text conflated_of(const struct sub *sub, const struct source *source)
{
	struct shmq_sub_stats stats = { .conflated = source->conflated };
	struct units_text text = { "" };

	if (source->sub)
		shmq_sub_get_stats(source->sub, &stats);
	if (sub->sub_flags & SHMQ_SUB_CONFLATE)
		snprintf(text.s, sizeof(text.s), ", %" PRIu64 " conflated", stats.conflated);
	return text;
}

/* The summary of one topic, "" if there is nothing to say. */
static void summary_of(const struct sub *sub, const struct source *source, char *out, size_t bytes)
{
	out[0] = '\0';
	if (source->loss.lost || sub->verbose)
		snprintf(out, bytes,
			 "shmq: received from \"%s\": %" PRIu64 " %s, %s%" PRIu64 " lost%s\n",
			 source->topic, source->received,
			 units_plural(source->received, "message", "messages"),
			 source->loss.is_bound ? "at most " : "", source->loss.lost,
			 conflated_of(sub, source).s);
	if (sub->latency)
		latency_of(source, out + strlen(out), bytes - strlen(out));
}

static void summarise(const struct sub *sub)
{
	char line[SUMMARY_BYTES];
	size_t i;

	for (i = 0; i < sub->source_count; i++) {
		summary_of(sub, &sub->sources[i], line, sizeof(line));
		fputs(line, stderr);
	}
}

/* ---- receiving ------------------------------------------------------- */

static void end(struct sub *sub, int code)
{
	sub->done = 1;
	if (sub->code == CLI_OK)
		sub->code = code;
}

/* A signal may have cut a write that waited for a slow reader. */
static void output_failed(struct sub *sub, int error)
{
	end(sub, out_broken(sig_stopped() ? -EPIPE : error));
}

/* What was written out is done.  The message in hand is not. */
static void store(struct sub *sub, struct source *source)
{
	int rc = out_flush();

	if (rc < 0) {
		output_failed(sub, rc);
		return;
	}
	rc = shmq_sub_store_cursor(source->sub);
	if (rc < 0)
		end(sub, out_fail(NULL, rc, "storing the cursor of", source->topic, NULL));
}

/* All that came was written. */
static void store_all(struct sub *sub)
{
	size_t i;

	for (i = 0; i < sub->source_count && sub->cursor; i++) {
		if (!sub->sources[i].sub)
			continue;
		shmq_release(sub->sources[i].sub);
		store(sub, &sub->sources[i]);
	}
	sub->store_ns = sub->cursor ? cli_now_ns() + SECOND_NS : INT64_MAX;
}

/* Nothing more will come from this topic, or is wanted: nobody is to wait for us
 * there. */
static void close_source(struct sub *sub, struct source *source, int code)
{
	struct shmq_sub_stats stats;

	if (sub->cursor)
		store(sub, source);
	if (sub->latency)
		shmq_sub_get_latency(source->sub, &source->latency);
	shmq_sub_get_stats(source->sub, &stats);
	source->conflated = stats.conflated;
	shmq_sub_close(source->sub);
	source->sub = NULL;
	if (sub->code == CLI_OK)
		sub->code = code;
	if (--sub->open_count == 0)
		end(sub, CLI_OK);
}

/* Those who asked to see the end are content; for others the topic has gone
 * away under them. */
static int ended(const struct sub *sub, const struct source *source)
{
	if (sub->sub_flags & SHMQ_SUB_END_WITH_PUBLISHERS)
		return CLI_OK;
	return out_fail(NULL, SHMQ_EENDED, "receiving from", source->topic, NULL);
}

static void write_message(struct sub *sub, struct source *source, const struct shmq_msg *msg)
{
	struct lost none = { 0 }, *lost = &none;
	struct format_message message = {
		.topic = source->topic,
		.msg = msg,
		.has = source->stamps,
		.flags = sub->format_flags,
	};
	int rc;

	if ((uint32_t)msg->partition < source->partitions)
		lost = &source->lost_here[msg->partition];
	message.lost = lost->count;
	message.is_bound = lost->is_bound;
	*lost = (struct lost){ 0 };
	rc = format_write(sub->format, &message);
	if (rc < 0) {
		output_failed(sub, rc);
		return;
	}
	source->received++;
	if (++sub->received == sub->count)
		end(sub, CLI_OK);
}

static int receive_copy(struct sub *sub, struct source *source, struct shmq_msg *msg)
{
	size_t need;
	int rc;

	for (;;) {
		rc = shmq_receive_copy(source->sub, sub->copy, sub->copy_bytes, msg, SHMQ_NOWAIT);
		if (rc != SHMQ_EBUFFER)
			return rc;
		need = msg->len + msg->key_len + msg->properties_len;
		sub->copy_bytes = need > 2 * sub->copy_bytes ? need : 2 * sub->copy_bytes;
		sub->copy = cli_alloc(sub->copy, sub->copy_bytes);
	}
}

static int64_t sooner(int64_t left, int64_t right)
{
	if (left == SHMQ_FOREVER || right == SHMQ_FOREVER)
		return left == SHMQ_FOREVER ? right : left;
	return left < right ? left : right;
}

/* The set would have it ready all the time: it leaves the set for a while,
 * and the others go on. */
static void stall(struct sub *sub, struct source *source)
{
	if (!source->stalled)
		out_fail(NULL, SHMQ_ESTALLED, "receiving from", source->topic, NULL);
	source->stalled = 1;
	source->again_ns = cli_now_ns() + STALL_LOOK_NS;
	shmq_waitset_remove(sub->set, source->sub);
	sub->aside_count++;
}

/* Look again at those whose while is over.  Returns in how many ns the next
 * one's will be, SHMQ_FOREVER for never. */
static int64_t look_at_stalled(struct sub *sub)
{
	int64_t next = SHMQ_FOREVER, now = sub->aside_count ? cli_now_ns() : 0;
	size_t i;
	int rc;

	for (i = 0; i < sub->source_count && sub->aside_count; i++) {
		struct source *source = &sub->sources[i];

		if (!source->again_ns)
			continue;
		if (source->again_ns > now) {
			next = sooner(next, source->again_ns - now);
			continue;
		}
		rc = shmq_waitset_add(sub->set, source->sub);
		if (rc < 0) {
			end(sub, out_fail(NULL, rc, "receiving from", source->topic, NULL));
			break;
		}
		source->again_ns = 0;
		sub->aside_count--;
	}
	return next;
}

/* What a pattern tells goes on behind it: the handle has it once, and other topics. */
static int tell_on(struct source *of, const struct shmq_msg *msg, int rc)
{
	if (rc == SHMQ_EEVICTED)
		lose(of, msg);
	out_fail(NULL, rc, "receiving from", of->topic, NULL);
	return 1;
}

/* One step of the i-th source.  Returns 1 if there may be more at once. */
static int receive(struct sub *sub, size_t i)
{
	struct source *source = &sub->sources[i], *of;
	struct shmq_msg msg = { 0 };
	int rc;

	rc = source->views ? shmq_receive(source->sub, &msg, SHMQ_NOWAIT) :
			     receive_copy(sub, source, &msg);
	if (rc == SHMQ_EEMPTY)
		return 0;
	of = source->is_pattern ? &sub->sources[find_told(sub, i)] : source;
	source = &sub->sources[i];
	switch (rc) {
	case 0:
		source->stalled = 0;
		if (when_is_reached(&sub->to, &msg)) {
			close_source(sub, source, CLI_OK);
			return 0;
		}
		write_message(sub, of, &msg);
		return !sub->done;
	case SHMQ_EOVERRUN:
		lose(of, &msg);
		return 1;
	case SHMQ_EEVICTED:
		if (source->is_pattern)
			return tell_on(of, &msg, rc);
		lose(source, &msg);
		close_source(sub, source,
			     out_fail(NULL, rc, "receiving from", source->topic, NULL));
		return 0;
	case SHMQ_EENDED:
		close_source(sub, source, ended(sub, source));
		return 0;
	case SHMQ_ESTALLED:
		if (source->is_pattern)
			return tell_on(of, &msg, rc);
		stall(sub, source);
		return 0;
	default:
		end(sub, out_fail(sub->cli, rc, "receiving from",
				  source->is_pattern && *shmq_sub_topic(source->sub) ?
					  shmq_sub_topic(source->sub) :
					  source->topic,
				  NULL));
		return 0;
	}
}

static void take_turn(struct sub *sub, const shmq_sub *ready)
{
	size_t source = 0;
	int i;

	while (sub->sources[source].sub != ready)
		source++;
	for (i = 0; i < TURN && !sig_stopped(); i++)
		if (!receive(sub, source))
			break;
	if (i)
		sub->heard_ns = cli_now_ns();
}

/* Nothing is there, and what is wanted cannot come any more: of each one that has
 * come to its end. */
static void leave_passed(struct sub *sub)
{
	struct shmq_sub_stats stats;
	size_t i;

	for (i = 0; i < sub->source_count && !sub->done; i++) {
		struct source *source = &sub->sources[i];

		if (!source->sub || source->is_pattern || source->again_ns ||
		    !when_is_passed(&sub->to, sub->cli->bus, source->topic,
				    source->partition_plus1))
			continue;
		take_turn(sub, source->sub);
		if (!source->sub || source->again_ns)
			continue;
		shmq_sub_get_stats(source->sub, &stats);
		if (!stats.lag)
			close_source(sub, source, CLI_OK);
	}
}

static int64_t patience(const struct sub *sub)
{
	int64_t left;

	if (sub->timeout_ns == SHMQ_FOREVER || sub->timeout_ns == SHMQ_NOWAIT)
		return sub->timeout_ns;
	left = sub->heard_ns + sub->timeout_ns - cli_now_ns();
	return left > 0 ? left : 1;
}

static void say_timeout(struct sub *sub)
{
	char silence[64] = "nothing more is there";

	if (sub->timeout_ns != SHMQ_NOWAIT)
		snprintf(silence, sizeof(silence), "nothing came for %.32s",
			 units_duration(sub->timeout_ns).s);
	out_say("receiving from \"%s\"%s: %s: %s (hint: a longer --timeout; shmq stat shows who "
		"publishes)",
		sub->sources[0].topic, sub->source_count > 1 ? " and others" : "",
		shmq_strerror(SHMQ_ETIMEOUT), silence);
	end(sub, CLI_TIMEOUT);
}

/* Nothing is there: put out everything before the wait, which ends when there
 * is something to receive, to tell or to look at again. */
static int wait_idle(struct sub *sub, int64_t look_ns)
{
	int64_t left = patience(sub), wait_ns = sooner(left, look_ns);
	size_t i;
	int n = SHMQ_ETIMEOUT, rc;

	for (i = 0; i < sub->source_count; i++)
		wait_ns = sooner(wait_ns, loss_tell_when_due(&sub->sources[i].loss));
	wait_ns = sooner(wait_ns, when_look_ns(&sub->to));
	rc = out_flush();
	if (rc < 0) {
		output_failed(sub, rc);
		return 0;
	}
	store_all(sub);
	if (sub->done)
		return 0;
	if (sub->aside_count < sub->open_count)
		n = shmq_waitset_wait(sub->set, sub->ready, sub->source_count, wait_ns);
	else
		sig_sleep_until(cli_now_ns() + wait_ns);
	return n == -EINTR || (n == SHMQ_ETIMEOUT && wait_ns != left) ? 0 : n;
}

static void receive_all(struct sub *sub)
{
	int64_t look_ns;
	int i, n;

	store_all(sub);
	sub->heard_ns = cli_now_ns();
	while (!sub->done && !sig_stopped()) {
		look_ns = look_at_stalled(sub);
		n = shmq_waitset_wait(sub->set, sub->ready, sub->source_count, SHMQ_NOWAIT);
		if (n == SHMQ_EEMPTY) {
			leave_passed(sub);
			n = sub->done ? 0 : wait_idle(sub, look_ns);
		}
		if (n == SHMQ_ETIMEOUT || n == SHMQ_EEMPTY)
			say_timeout(sub);
		else if (n < 0)
			end(sub, out_fail(sub->cli, n, "waiting on bus",
					  shmq_bus_name(sub->cli->bus), NULL));
		for (i = 0; i < n && !sub->done; i++)
			take_turn(sub, sub->ready[i]);
		if (cli_now_ns() >= sub->store_ns)
			store_all(sub);
	}
	store_all(sub);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct sub sub = { .cli = cli, .timeout_ns = SHMQ_FOREVER };
	struct shmq_sub_options how = { .size = sizeof(how) };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &sub },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_sub, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code;

	if (first == argc)
		opts_fail(&cmd_sub, "sub takes at least one topic");
	when_start(&cmd_sub, sub.from, &how);
	sub.to = when_take(&cmd_sub, "to", sub.to_text);
	how.wait = sub.wait;
	how.flags = sub.sub_flags;
	how.cursor = sub.cursor;
	if (sub.cursor && (sub.sub_flags & SHMQ_SUB_CONFLATE))
		opts_fail(&cmd_sub, "--conflate and --cursor exclude each other");
	if (sub.cursor && !sub.from)
		how.from = SHMQ_FROM_CURSOR;
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	setvbuf(stdout, NULL, _IOFBF, STDOUT_BYTES);
	for (; first < argc; first++)
		add_topic(&sub, argv[first], how.from);
	sub.ready = cli_alloc(NULL, sub.source_count * sizeof(shmq_sub *));
	code = open_sources(&sub, &how);
	if (code == CLI_OK) {
		receive_all(&sub);
		summarise(&sub);
		code = exit_code(&sub);
	}
	close_sources(&sub);
	return code;
}

const struct command cmd_sub = {
	"sub",
	"TOPIC|PATTERN... [OPTION]...",
	"Receive messages and print them",
	"In a pattern the word * stands for one word and # for any number of them: quote it.\n"
	"Topics that match are read as they come, from their first message on.\n"
	"What is lost is told on stderr and makes the exit code 4.  SIGINT and SIGTERM end\n"
	"it like --count: what was received is written, the exit code is 0 or 4.\n",
	"shmq sub 'md.#' --print-topic\n"
	"shmq sub orders --from oldest --count 2 --json\n"
	"shmq sub orders --cursor risk --count 1\n",
	run,
};
