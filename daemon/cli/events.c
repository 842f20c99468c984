/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct events {
	struct cli *cli;
	const char *from;
	const char *kind;
	uint64_t count, shown;
	int64_t timeout_ns;
	int json;
	struct loss loss;
	shmq_sub *sub;
};

#define AT(member) OPT_AT(struct events, member)

static const struct opt_word kinds[] = {
#define EVENTS_X(name, number, word) { (word), (number) },
	SHMQ_SYS_EVENTS(EVENTS_X)
#undef EVENTS_X
		{ NULL, 0 },
};

static const struct opt options[] = {
	{ "from", .kind = OPT_TEXT, AT(from), .arg = "latest|oldest|SEQ|TIME|AGE",
	  .help = "where to begin (latest)" },
	{ "kind", .letter = 'k', .kind = OPT_TEXT, AT(kind), .arg = "WORD,...",
	  .help = "only these: attach, detach, death, recovery, eviction,\n"
		  "fallback, stall, disk, refusal" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N", .min = 1,
	  .help = "end after N events" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "end when nothing happened for TIME (forever)" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1, .help = "one JSON object per event" },
};

/* ---- one event --------------------------------------------------------- */

static int is_wanted(const struct events *e, unsigned type)
{
	const char *word = value_word(kinds, (int)type), *at = e->kind;
	size_t len = strlen(word);

	if (!at)
		return 1;
	while ((at = strstr(at, word))) {
		if ((at == e->kind || at[-1] == ',') && (!at[len] || at[len] == ','))
			return 1;
		at++;
	}
	return 0;
}

static const char *text_of(const json_t *event, const char *key)
{
	const char *text = json_string_value(json_object_get(event, key));

	return text ? text : "";
}

static void print_text(const struct shmq_msg *msg, const json_t *event)
{
	const char *topic = text_of(event, "topic");

	printf("%s  %-8s  ", when_text(msg->ts_ns).s, text_of(event, "event"));
	if (json_object_get(event, "client"))
		printf("client %lld, %s (pid %lld): ",
		       (long long)json_integer_value(json_object_get(event, "client")),
		       text_of(event, "name"),
		       (long long)json_integer_value(json_object_get(event, "pid")));
	if (*topic)
		printf("topic \"%s\": ", topic);
	printf("%s\n", text_of(event, "text"));
}

static void show(struct events *e, const struct shmq_msg *msg)
{
	json_t *event = json_loadb(msg->data, msg->len, 0, NULL);

	if (!event) /* of a newer supervisor, perhaps */
		event = json_object();
	if (e->json) {
		json_put_u64(event, "seq", msg->seq);
		json_put_u64(event, "time_ns", msg->ts_ns);
		json_print(event);
	} else {
		print_text(msg, event);
		json_decref(event);
	}
	e->shown++;
}

/* ---- following --------------------------------------------------------- */

static int receive(struct events *e, char *copy, size_t bytes, struct shmq_msg *msg)
{
	int rc = shmq_receive_copy(e->sub, copy, bytes, msg, SHMQ_NOWAIT);

	if (rc != SHMQ_EEMPTY || e->timeout_ns == SHMQ_NOWAIT)
		return rc;
	rc = out_flush();
	if (rc < 0)
		return rc;
	rc = shmq_receive_copy(e->sub, copy, bytes, msg, e->timeout_ns);
	return rc == -EINTR ? SHMQ_EEMPTY : rc;
}

/* Who takes what is there knows that it ends. */
static int say_idle(const struct events *e)
{
	if (e->timeout_ns != SHMQ_NOWAIT)
		out_say("reading \"" SHMQ_EVENTS_TOPIC "\": timed out: nothing happened for %s "
			"(hint: a longer --timeout, or --from oldest)",
			units_duration(e->timeout_ns).s);
	return CLI_TIMEOUT;
}

static int follow(struct events *e)
{
	char copy[4096];
	struct shmq_msg msg;
	int rc;

	while (!sig_stopped() && (!e->count || e->shown < e->count)) {
		rc = receive(e, copy, sizeof(copy), &msg);
		if (rc == 0 && is_wanted(e, msg.type))
			show(e, &msg);
		else if (rc == SHMQ_EOVERRUN)
			loss_add(&e->loss, &msg);
		else if (rc == -EPIPE)
			return CLI_OK;
		else if (rc == SHMQ_ETIMEOUT || (rc == SHMQ_EEMPTY && e->timeout_ns == SHMQ_NOWAIT))
			return say_idle(e);
		else if (rc && rc != SHMQ_EEMPTY)
			return out_fail(e->cli, rc, "reading", SHMQ_EVENTS_TOPIC, NULL);
	}
	return CLI_OK;
}

static void check_kinds(const struct events *e)
{
	char *words = cli_strdup(e->kind ? e->kind : "attach"), *word, *rest = words;
	char all[128];
	size_t i;

	while ((word = strsep(&rest, ","))) {
		for (i = 0; kinds[i].text && strcmp(kinds[i].text, word) != 0; i++)
			;
		if (!kinds[i].text) {
			value_join(kinds, all, sizeof(all));
			opts_fail(&cmd_events, "--kind takes %s, not \"%s\"", all, word);
		}
	}
	free(words);
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct events e = { .cli = cli, .timeout_ns = SHMQ_FOREVER };
	struct shmq_sub_options how = { .size = sizeof(how) };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &e },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int first = opts_parse(&cmd_events, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc > first)
		opts_fail(&cmd_events, "events takes options only, not \"%s\"", argv[first]);
	check_kinds(&e);
	when_start(&cmd_events, e.from, &how);
	e.loss = (struct loss){ "reading", SHMQ_EVENTS_TOPIC, .hint = "write to a file" };
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	rc = shmq_sub_open(cli->bus, SHMQ_EVENTS_TOPIC, &how, &e.sub);
	if (rc < 0)
		return out_fail(cli, rc, "subscribing to", SHMQ_EVENTS_TOPIC, NULL);
	code = follow(&e);
	loss_tell_rest(&e.loss);
	shmq_sub_close(e.sub);
	return code == CLI_OK && e.loss.lost ? CLI_LOST : code;
}

const struct command cmd_events = {
	"events",
	"[OPTION]...",
	"Follow what happens on the bus: who comes, goes, dies, is repaired",
	"They are messages of the topic $sys.events, for whom access rules let subscribe to\n"
	"it.  It begins when somebody asks for it the first time, with the last 64 events\n"
	"before that (--from oldest).  Nobody waits for who reads it: what it is too slow\n"
	"for is lost to it, told on stderr, and makes the exit code 4.\n",
	"shmq events --kind death,recovery,eviction\n",
	run,
};
