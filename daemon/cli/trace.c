/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND_NS ((int64_t)1000000000)
#define AGAIN_NS ((int64_t)100000000) /* who was not found is looked for again */
#define KEY_BYTES 32                  /* of a key, in text */

struct publisher {
	pid_t pid; /* 0 it was not found */
	char name[sizeof(((struct shmq_peer_info *)0)->client_name)];
	int64_t there_ns;  /* when he was last, */
	int64_t missed_ns; /* and when he was not found */
};

struct trace {
	struct cli *cli;
	const char *topic;
	const char *from;
	uint64_t count;
	int64_t timeout_ns;
	int32_t partition_plus1;
	int json, gates, is_pattern;

	shmq_sub *sub;
	struct publisher *seen; /* by client id */
	size_t seen_count, seen_room;
	struct loss loss;
	uint64_t traced, lost_here; /* since the last message */
	char *copy;
	size_t copy_bytes;
};

#define AT(member) OPT_AT(struct trace, member)

static const struct opt options[] = {
	{ "from", .kind = OPT_TEXT, AT(from), .arg = "latest|oldest|SEQ|TIME|-AGE",
	  .help = "where to start (latest: the next message)" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N", .min = 1,
	  .help = "end after N messages" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "end when nothing came for that long (forever);\n"
		  "0 takes what is there" },
	{ "partition", .kind = OPT_INDEX, AT(partition_plus1), .arg = "N",
	  .help = "only this partition (all)" },
	{ "gate", .kind = OPT_SET, AT(gates), .value = 1,
	  .help = "as a subscriber that publishers wait for, where\n"
		  "the topic's policy has no other" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1, .help = "a JSON object per message" },
};

/* ---- who published ------------------------------------------------------- */

struct look {
	struct publisher *at;
	unsigned client;
};

static int note(void *arg, const struct shmq_peer_info *peer)
{
	struct look *look = arg;

	if (peer->client_id != look->client || peer->role != SHMQ_ROLE_PUBLISHER)
		return 0;
	look->at->pid = peer->pid;
	memcpy(look->at->name, peer->client_name, sizeof(look->at->name));
	return 1;
}

/* What it sent is there longer than it, and its id is given to another one day. */
static const struct publisher *find_publisher(struct trace *trace, unsigned *client)
{
	static const struct publisher nobody;
	struct publisher *p;
	int64_t now = cli_now_ns();

	*client = 0; /* the log does not tell, or the slot was written over */
	if (shmq_sub_get_publisher(trace->sub, client) < 0)
		return NULL;
	while (trace->seen_count <= *client) {
		trace->seen = cli_grow(trace->seen, trace->seen_count, &trace->seen_room,
				       sizeof(*trace->seen));
		trace->seen[trace->seen_count++] = nobody;
	}
	p = &trace->seen[*client];
	if (p->pid && (!kill(p->pid, 0) || errno != ESRCH)) {
		p->there_ns = now;
		return p;
	}
	if (p->missed_ns && now < p->missed_ns + AGAIN_NS)
		return p;
	if (shmq_peer_each(trace->cli->bus, shmq_sub_topic(trace->sub), note,
			   &(struct look){ p, *client }) == 1) {
		p->there_ns = now;
		p->missed_ns = 0;
		return p;
	}
	p->missed_ns = now;
	if (now > p->there_ns + AGAIN_NS) /* else he has just left */
		p->pid = 0;
	return p;
}

/* ---- lines --------------------------------------------------------------- */

static uint64_t real_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Keys are bytes; those that would disturb a terminal are dots. */
static void print_key(const struct shmq_msg *msg)
{
	const unsigned char *key = msg->key;
	size_t i;

	if (!msg->key_len)
		putchar('-');
	for (i = 0; i < msg->key_len && i < KEY_BYTES; i++)
		putchar(key[i] > ' ' && key[i] < 127 ? key[i] : '.');
	if (msg->key_len > KEY_BYTES)
		fputs("...", stdout);
}

static struct units_text time_of_day(uint64_t ns)
{
	struct units_text text = when_text(ns), day = { "-" };

	if (ns)
		snprintf(day.s, sizeof(day.s), "%.84s", text.s + sizeof("2026-11-26"));
	return day;
}

static struct units_text delta(const struct shmq_msg *msg, uint64_t now)
{
	struct units_text text = { "-" }, length;
	int64_t ns = (int64_t)(now - msg->ts_ns);

	if (!msg->ts_ns)
		return text;
	length = units_duration(ns < 0 ? -ns : ns);
	snprintf(text.s, sizeof(text.s), "%s%.90s", ns < 0 ? "-" : "", length.s);
	return text;
}

static void print_text(struct trace *trace, const struct shmq_msg *msg, uint64_t now)
{
	unsigned client;
	const struct publisher *by = find_publisher(trace, &client);
	char who[64];

	if (!trace->traced)
		printf("%-19s  %-19s  %10s  %12s  %5s  %8s  %-20s  %sKEY\n", "PUBLISHED",
		       "RECEIVED", "DELTA", "PART:SEQ", "TYPE", "LENGTH", "PUBLISHER",
		       trace->is_pattern ? "TOPIC                 " : "");
	printf("%-19s  %-19s  %10s  %3d:%-8" PRIu64 "  %5u  %8zu  ", time_of_day(msg->ts_ns).s,
	       time_of_day(now).s, delta(msg, now).s, msg->partition, msg->seq, msg->type,
	       msg->len);
	if (by && by->pid)
		snprintf(who, sizeof(who), "%.31s(%d)", by->name, (int)by->pid);
	else if (by)
		snprintf(who, sizeof(who), "client %u", client);
	else
		snprintf(who, sizeof(who), "-");
	printf("%-20s  ", who);
	if (trace->is_pattern)
		printf("%-20s  ", shmq_sub_topic(trace->sub));
	print_key(msg);
	putchar('\n');
}

static void print_json(struct trace *trace, const struct shmq_msg *msg, uint64_t now)
{
	unsigned client;
	const struct publisher *by = find_publisher(trace, &client);
	json_t *object = json_object(), *who = by ? json_object() : json_null();

	json_put_text(object, "topic", shmq_sub_topic(trace->sub));
	json_put(object, "partition", json_integer(msg->partition));
	json_put_u64(object, "seq", msg->seq);
	json_put(object, "published_ns",
		 msg->ts_ns ? json_integer((json_int_t)msg->ts_ns) : json_null());
	json_put_u64(object, "received_ns", now);
	json_put(object, "delta_ns",
		 msg->ts_ns ? json_integer((json_int_t)(now - msg->ts_ns)) : json_null());
	json_put(object, "type", json_integer(msg->type));
	json_put_u64(object, "length", msg->len);
	if (msg->key_len)
		json_put_bytes(object, "key", msg->key, msg->key_len);
	else
		json_put(object, "key", json_null());
	if (by) {
		json_put_u64(who, "client", client);
		json_put(who, "pid", by->pid ? json_integer(by->pid) : json_null());
		json_put(who, "name", by->pid ? json_string(by->name) : json_null());
	}
	json_put(object, "publisher", who);
	json_put_u64(object, "lost", trace->lost_here);
	json_print(object);
}

/* ---- receiving ----------------------------------------------------------- */

static int receive(struct trace *trace, struct shmq_msg *msg, int64_t timeout_ns)
{
	int rc;

	for (;;) {
		rc = shmq_receive_copy(trace->sub, trace->copy, trace->copy_bytes, msg, timeout_ns);
		if (rc != SHMQ_EBUFFER)
			return rc;
		trace->copy_bytes = 2 * (msg->len + msg->key_len + msg->properties_len);
		trace->copy = cli_alloc(trace->copy, trace->copy_bytes);
	}
}

/* What is there; else put out what was printed, and wait. */
static int next(struct trace *trace, struct shmq_msg *msg)
{
	int64_t due = loss_tell_when_due(&trace->loss);
	int rc = receive(trace, msg, SHMQ_NOWAIT);

	if (rc != SHMQ_EEMPTY || trace->timeout_ns == SHMQ_NOWAIT)
		return rc;
	rc = out_flush();
	if (rc < 0)
		return rc;
	rc = receive(trace, msg, due != SHMQ_FOREVER ? due : trace->timeout_ns);
	return rc == -EINTR || (rc == SHMQ_ETIMEOUT && due != SHMQ_FOREVER) ? SHMQ_EEMPTY : rc;
}

static int follow(struct trace *trace)
{
	struct shmq_msg msg;
	uint64_t now;
	int rc;

	while (!sig_stopped() && (!trace->count || trace->traced < trace->count)) {
		rc = next(trace, &msg);
		now = real_now_ns();
		if (rc == 0) {
			(trace->json ? print_json : print_text)(trace, &msg, now);
			trace->lost_here = 0;
			trace->traced++;
		} else if (rc == SHMQ_EOVERRUN) {
			trace->lost_here += msg.lost;
			loss_add(&trace->loss, &msg);
		} else if (rc != SHMQ_EEMPTY || trace->timeout_ns == SHMQ_NOWAIT) {
			if (rc == SHMQ_EEMPTY)
				rc = SHMQ_ETIMEOUT;
			return rc == -EPIPE ?
				       CLI_OK :
				       out_fail(trace->cli, rc, "tracing", trace->topic, NULL);
		}
	}
	return CLI_OK;
}

static const char *hint_for(const struct trace *trace, const struct shmq_sub_options *how)
{
	struct shmq_topic_info info;

	if (trace->is_pattern || shmq_topic_get_info(trace->cli->bus, trace->topic, &info) < 0 ||
	    (info.policy != SHMQ_LOSSY && info.policy != SHMQ_EVICT && info.log <= SHMQ_LOG_NONE))
		return trace->gates ? NULL : "--gate has publishers wait for it instead";
	return how->from == SHMQ_FROM_SEQ && !how->partition_plus1 ?
		       "a seq counts in one partition: name it with --partition" :
		       NULL;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct trace trace = { .cli = cli, .timeout_ns = SHMQ_FOREVER };
	struct shmq_sub_options how = { .size = sizeof(how) };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &trace },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_trace, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc - first != 1)
		opts_fail(&cmd_trace, "trace takes one topic, not %d", argc - first);
	trace.topic = argv[first];
	trace.is_pattern = topic_is_pattern(trace.topic);
	when_start(&cmd_trace, trace.from, &how);
	how.partition_plus1 = trace.partition_plus1;
	how.flags = trace.gates ? 0 : SHMQ_SUB_OBSERVE;
	trace.loss = (struct loss){ "tracing", trace.topic,
				    .hint = "trace less: --partition, or write to a file" };
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	rc = shmq_sub_open(cli->bus, trace.topic, &how, &trace.sub);
	if (rc < 0)
		return out_fail(cli, rc, "tracing", trace.topic,
				rc == SHMQ_EOPTION ? hint_for(&trace, &how) : NULL);
	code = follow(&trace);
	loss_tell_rest(&trace.loss);
	shmq_sub_close(trace.sub);
	free(trace.seen);
	free(trace.copy);
	return code == CLI_OK && trace.loss.lost ? CLI_LOST : code;
}

const struct command cmd_trace = {
	"trace",
	"TOPIC|PATTERN [OPTION]...",
	"Follow messages with their timing and who published them",
	"No publisher waits for it, unless --gate is given: what it is too slow for is lost\n"
	"to it, told on stderr, and makes the exit code 4.  That needs a topic of policy\n"
	"lossy or evict, or one with a log.  PUBLISHED and DELTA need one with --time.\n",
	"shmq trace orders --from oldest --count 2\n",
	run,
};
