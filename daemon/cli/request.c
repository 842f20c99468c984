/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_NS INT64_C(5000000000)
#define MAX_REPLY (UINT64_C(64) << 10)

struct request {
	struct cli *cli;
	const char *topic, *key;
	int64_t timeout_ns;
	uint64_t max_reply;
	uint32_t type;
	enum format format;
	unsigned flags;
	int json;
	shmq_requester *requester;
};

#define AT(member) OPT_AT(struct request, member)

static const struct opt options[] = {
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "how long each request may take, waiting for who\nanswers included (5 s)" },
	{ "key", .letter = 'k', .kind = OPT_TEXT, AT(key), .arg = "KEY",
	  .help = "key of the requests" },
	{ "type", .kind = OPT_COUNT, AT(type), .arg = "N", .max = UINT16_MAX,
	  .help = "type of the requests, 0 to 65535 (0)" },
	{ "max-reply", .kind = OPT_SIZE, AT(max_reply), .arg = "SIZE", .min = 1,
	  .max = UINT64_C(16) << 20, .help = "largest reply to take (64k)" },
	{ "format", .letter = 'o', .kind = OPT_WORD, AT(format), .words = format_words,
	  .help = "text: replies, a line each (default); hex, json,\nraw, frames as of sub" },
	{ "print-key", .kind = OPT_OR, AT(flags), .value = FORMAT_KEY,
	  .help = "text, hex: the key and a tab before each reply" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1,
	  .help = "print the outcome of each request as one JSON object" },
};

/* ---- outcomes -------------------------------------------------------- */

static const char *outcome_of(int rc, const struct shmq_reply *reply)
{
	return rc == -EINTR         ? "interrupted" :
	       rc == SHMQ_ENOBODY   ? "nobody" :
	       !reply->outcome      ? "not-sent" :
	       rc == 0              ? "replied" :
	       rc == SHMQ_EREFUSED  ? "refused" :
	       rc == SHMQ_EPEERDEAD ? "gone" :
				      "timed-out";
}

static void print_json(const struct request *r, int rc, const struct shmq_reply *reply, int64_t ns)
{
	json_t *object = json_object();

	json_put_text(object, "topic", r->topic);
	json_put_text(object, "outcome", outcome_of(rc, reply));
	json_put(object, "client", reply->is_taken ? json_integer(reply->client_id) : json_null());
	json_put_u64(object, "ns", (uint64_t)ns);
	if (rc == 0 || rc == SHMQ_EREFUSED) {
		json_put(object, "type", json_integer(reply->msg.type));
		if (reply->msg.key_len)
			json_put_bytes(object, "key", reply->msg.key, reply->msg.key_len);
		else
			json_put(object, "key", json_null());
		json_put_bytes(object, "data", reply->msg.data, reply->msg.len);
	}
	json_print(object);
}

static int say(const struct request *r, int rc, const struct shmq_reply *reply)
{
	char hint[96];

	if (rc == -EINTR) {
		out_say("asking \"%s\": interrupted before there was an outcome", r->topic);
		return CLI_FAILURE;
	}
	if (rc == SHMQ_EREFUSED) {
		out_say("asking \"%s\": %s: %.*s", r->topic, shmq_strerror(rc), (int)reply->msg.len,
			(const char *)reply->msg.data);
		return out_exit_code(rc);
	}
	if (rc == SHMQ_ENOBODY)
		return out_fail(NULL, rc, "asking", r->topic,
				"\"shmq reply TOPIC\" answers, \"shmq stat TOPIC\" shows who does");
	if (rc == SHMQ_ETIMEOUT && !reply->outcome)
		return out_fail(
			NULL, rc, "asking", r->topic,
			"the topic is full and nothing was sent, \"shmq stat TOPIC\" shows who "
			"is behind");
	if (rc != SHMQ_ETIMEOUT && rc != SHMQ_EPEERDEAD)
		return out_fail(NULL, rc, "asking", r->topic, NULL);
	if (!reply->is_taken)
		return out_fail(NULL, rc, "asking", r->topic,
				"nobody has received it, \"shmq stat TOPIC\" shows who is behind");
	snprintf(
		hint, sizeof(hint),
		rc == SHMQ_ETIMEOUT ?
			"client %u has received it and did not answer, give it a longer --timeout" :
			"client %u had received it, ask again",
		reply->client_id);
	return out_fail(NULL, rc, "asking", r->topic, hint);
}

/* ---- asking ---------------------------------------------------------- */

static int ask(const struct request *r, const char *data, size_t len)
{
	struct shmq_msg msg = { .data = data,
				.len = len,
				.key = r->key,
				.key_len = r->key ? strlen(r->key) : 0,
				.type = (uint16_t)r->type,
				.partition = SHMQ_ANY_PARTITION };
	struct shmq_reply reply;
	int64_t from = cli_now_ns();
	int rc = shmq_requester_call(r->requester, &msg, &reply, r->timeout_ns), code;

	if (r->json)
		print_json(r, rc, &reply, cli_now_ns() - from);
	if (rc)
		return say(r, rc, &reply);
	if (!r->json) {
		const struct format_message message = { .topic = r->topic,
							.msg = &reply.msg,
							.flags = r->flags };

		format_write(r->format, &message);
	}
	code = out_flush();
	return code ? out_broken(code) : CLI_OK;
}

/* Each line is a request; the first that has no reply is the last. */
static int ask_lines(const struct request *r)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t n;
	int code = CLI_OK;

	while (code == CLI_OK && !sig_stopped() && (n = getline(&line, &room, stdin)) > 0) {
		if (line[n - 1] == '\n')
			n--;
		code = ask(r, line, (size_t)n);
	}
	free(line);
	return code == CLI_OK && sig_stopped() ? say(r, -EINTR, NULL) : code;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct request r = { .cli = cli, .timeout_ns = TIMEOUT_NS, .max_reply = MAX_REPLY };
	struct shmq_requester_options how = { .size = sizeof(how), .open_max = 1 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &r },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int i = opts_parse(&cmd_request, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc - i < 1 || argc - i > 2)
		opts_fail(&cmd_request, "request takes a topic and, at most, one message");
	if (r.json && r.format != FORMAT_TEXT)
		opts_fail(&cmd_request, "--json and --format exclude each other");
	r.topic = argv[i];
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	how.max_reply_bytes = r.max_reply;
	rc = shmq_requester_open(cli->bus, r.topic, &how, &r.requester);
	if (rc)
		return out_fail(cli, rc, "asking", r.topic, NULL);
	code = argv[i + 1] ? ask(&r, argv[i + 1], strlen(argv[i + 1])) : ask_lines(&r);
	shmq_requester_close(r.requester);
	return code;
}

const struct command cmd_request = {
	"request",
	"TOPIC [MESSAGE] [OPTION]...",
	"Ask, and print the reply",
	"Publishes MESSAGE, or each line of stdin, as a request and waits for the reply of\n"
	"whoever reads TOPIC by \"shmq reply\" or the library.  It ends at the first request\n"
	"that gets none.\n",
	"shmq request svc.upper hello --timeout 2s\n",
	run,
};
