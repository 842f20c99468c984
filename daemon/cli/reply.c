/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MAX ((size_t)16 << 20)

struct reply {
	struct cli *cli;
	const char *topic, *exec;
	uint64_t count;
	int64_t timeout_ns;
	int echo, json;
	shmq_responder *responder;
	char *out; /* of the command */
	size_t room;
};

#define AT(member) OPT_AT(struct reply, member)

static const struct opt options[] = {
	{ "exec", .letter = 'e', .kind = OPT_TEXT, AT(exec), .arg = "CMD",
	  .help = "run sh -c CMD for each request, which is its stdin;\n"
		  "its stdout is the reply, and if it fails, a refusal" },
	{ "echo", .kind = OPT_SET, AT(echo), .value = 1,
	  .help = "reply with what was asked, key and type included" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N",
	  .help = "end after N requests" },
	{ "timeout", .letter = 't', .kind = OPT_DURATION, AT(timeout_ns), .arg = "TIME",
	  .help = "end when nobody asked for that long (forever)" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1,
	  .help = "print what became of each request as one JSON object" },
};

/* ---- the command ----------------------------------------------------- */

struct child {
	pid_t pid;
	int in, out; /* its stdin and stdout, -1 closed */
};

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void run_command(const struct reply *r, const char *topic, const char *key, int in, int out)
{
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_DFL);
	setenv("SHMQ_TOPIC", topic, 1);
	setenv("SHMQ_KEY", key, 1);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(127);
	execl("/bin/sh", "sh", "-c", r->exec, (char *)NULL);
	_exit(127);
}

static int start(const struct reply *r, const struct shmq_request *q, const char *key,
		 struct child *c)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC))
		return -errno;
	if (pipe2(out, O_CLOEXEC)) {
		close(in[0]);
		close(in[1]);
		return -errno;
	}
	fflush(stdout);
	c->pid = fork();
	if (c->pid == 0)
		run_command(r, q->topic, key, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	c->in = in[1];
	c->out = out[0];
	if (c->pid > 0) {
		setpgid(c->pid, 0); /* before it is to be killed, too */
		fcntl(c->in, F_SETFL, O_NONBLOCK);
		return 0;
	}
	close_end(&c->in);
	close_end(&c->out);
	return -EAGAIN;
}

/* More of its input; it need not want all of it. */
static void feed(struct child *c, const struct shmq_msg *msg, size_t *fed)
{
	ssize_t n = 0;

	if (*fed < msg->len)
		n = write(c->in, (const char *)msg->data + *fed, msg->len - *fed);
	if (n > 0)
		*fed += (size_t)n;
	if (*fed == msg->len || (n < 0 && errno != EAGAIN && errno != EINTR))
		close_end(&c->in);
}

static void take(struct reply *r, struct child *c, size_t *got)
{
	ssize_t n;

	if (*got + 65536 > r->room) {
		r->room = 2 * r->room + 65536;
		r->out = cli_alloc(r->out, r->room);
	}
	n = read(c->out, r->out + *got, 65536);
	if (n > 0)
		*got += (size_t)n;
	if (n == 0 || (n < 0 && errno != EINTR) || *got > ANSWER_MAX)
		close_end(&c->out);
}

static int left_ms(uint64_t deadline_ns)
{
	uint64_t now = (uint64_t)cli_now_ns();

	if (deadline_ns == UINT64_MAX)
		return -1;
	if (now >= deadline_ns)
		return 0;
	return (deadline_ns - now) / 1000000 >= INT32_MAX ?
		       INT32_MAX :
		       (int)((deadline_ns - now) / 1000000) + 1;
}

static int ends_in_time(const struct child *c, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = pidfd_open(c->pid, 0), .events = POLLIN };
	int rc;

	do {
		rc = poll(&p, 1, left_ms(deadline_ns));
	} while (rc < 0 && errno == EINTR && !sig_stopped());
	if (p.fd >= 0)
		close(p.fd);
	return rc > 0;
}

/* What it ended with, as of waitpid(); it is killed, with all it started, once nobody
 * waits for it any more. */
static int finish(struct reply *r, const struct shmq_request *q, struct child *c, size_t *got)
{
	size_t fed = 0;
	int status = 0, is_cut;

	while (c->out >= 0) {
		struct pollfd p[2] = { { .fd = c->out, .events = POLLIN },
				       { .fd = c->in, .events = POLLOUT } };
		int rc = poll(p, 2, left_ms(q->deadline_ns));

		if (rc == 0 || sig_stopped())
			break;
		if (rc > 0 && p[1].revents)
			feed(c, &q->msg, &fed);
		if (rc > 0 && p[0].revents)
			take(r, c, got);
	}
	is_cut = c->out >= 0; /* by what it left in the background, perhaps */
	close_end(&c->in);
	close_end(&c->out);
	if (is_cut || *got > ANSWER_MAX || !ends_in_time(c, q->deadline_ns))
		kill(-c->pid, SIGKILL);
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	return is_cut ? SIGKILL : status;
}

/* ---- answering ------------------------------------------------------- */

static int refuse(struct reply *r, const struct shmq_request *q, const char *why)
{
	int rc = shmq_responder_refuse(r->responder, q, why);

	return rc ? rc : SHMQ_EREFUSED;
}

static int answer_by_command(struct reply *r, const struct shmq_request *q)
{
	struct shmq_msg msg = { 0 };
	struct child child = { -1, -1, -1 };
	char key[UINT16_MAX + 1] = ""; /* a copy: what is shared is not mapped in the child */
	char why[64];
	int status, rc;

	if (q->msg.key_len)
		memcpy(key, q->msg.key, q->msg.key_len);
	if (strlen(key) != q->msg.key_len) /* to the command it would be another one */
		return refuse(r, q, "the key has a byte 0, which no environment can hold");
	rc = start(r, q, key, &child);
	if (rc) {
		out_say("running \"%s\": %s (hint: too many processes or descriptors)", r->exec,
			shmq_strerror(rc));
		return refuse(r, q, "the command could not be run");
	}
	status = finish(r, q, &child, &msg.len);
	if (WIFSIGNALED(status))
		snprintf(why, sizeof(why), "the command was ended by signal %d", WTERMSIG(status));
	else
		snprintf(why, sizeof(why), "the command ended with exit code %d",
			 WEXITSTATUS(status));
	if (status)
		return refuse(r, q, why);
	msg.data = r->out;
	rc = shmq_responder_reply(r->responder, q, &msg);
	if (rc != SHMQ_ETOOBIG)
		return rc;
	snprintf(why, sizeof(why), "the reply has %zu bytes, which are too many", msg.len);
	return refuse(r, q, why);
}

static int answer(struct reply *r, const struct shmq_request *q)
{
	const struct shmq_msg echo = { .data = q->msg.data,
				       .len = q->msg.len,
				       .key = q->msg.key,
				       .key_len = q->msg.key_len,
				       .type = q->msg.type };
	int rc;

	if (q->error)
		return q->error;
	if (r->exec)
		return answer_by_command(r, q);
	rc = shmq_responder_reply(r->responder, q, &echo);
	return rc == SHMQ_ETOOBIG ? refuse(r, q, "the echo is larger than you take") : rc;
}

static const char *outcome_of(int rc)
{
	return rc == 0              ? "replied" :
	       rc == SHMQ_EREFUSED  ? "refused" :
	       rc == SHMQ_ETIMEOUT  ? "late" :
	       rc == SHMQ_EPEERDEAD ? "gone" :
	       rc == SHMQ_EFULL     ? "full" :
	       rc == SHMQ_EOPTION   ? "no-request" :
				      "failed";
}

static void print_json(const struct shmq_request *q, int rc)
{
	json_t *object = json_object();

	json_put_text(object, "topic", q->topic);
	json_put_u64(object, "seq", q->msg.seq);
	json_put_u64(object, "length", q->msg.len);
	json_put_text(object, "outcome", outcome_of(rc));
	json_print(object);
}

/* Those that found nobody are told, and are no failure of ours. */
static void say(const struct shmq_request *q, int rc)
{
	if (rc == SHMQ_EOPTION)
		out_say("answering \"%s\": seq %llu is a plain message, which nobody waits for "
			"(hint: \"shmq request\" asks)",
			q->topic, (unsigned long long)q->msg.seq);
	else if (rc && rc != SHMQ_EREFUSED)
		out_fail(NULL, rc, "answering", q->topic,
			 rc == SHMQ_ETIMEOUT ? "the request had timed out, nothing was sent" :
					       NULL);
}

static int say_idle(const struct reply *r)
{
	out_say("answering \"%s\": timed out: no request came for %s (hint: a longer --timeout; "
		"\"shmq request\" asks)",
		r->topic, units_duration(r->timeout_ns).s);
	return CLI_TIMEOUT;
}

static int serve(struct reply *r)
{
	struct loss loss = { .doing = "answering",
			     .topic = r->topic,
			     .hint = "answer faster, or create the topic with policy block" };
	struct shmq_request q;
	uint64_t done = 0;
	int rc;

	while (!sig_stopped() && (!r->count || done < r->count)) {
		rc = shmq_responder_receive(r->responder, &q, r->timeout_ns);
		if (rc == -EINTR)
			break;
		if (rc == SHMQ_EOVERRUN)
			loss_add(&loss, &q.msg);
		if (rc == SHMQ_EOVERRUN)
			continue;
		if (rc == SHMQ_EEMPTY || rc == SHMQ_ETIMEOUT)
			return say_idle(r);
		if (rc)
			return out_fail(NULL, rc, "answering", r->topic, NULL);
		rc = answer(r, &q);
		done += rc != SHMQ_EOPTION;
		say(&q, rc);
		if (r->json)
			print_json(&q, rc);
		rc = out_flush();
		if (rc)
			return out_broken(rc);
	}
	loss_tell_rest(&loss);
	return loss.lost ? CLI_LOST : CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct reply r = { .cli = cli, .timeout_ns = SHMQ_FOREVER };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &r },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int i = opts_parse(&cmd_reply, OPTS_PERMUTE, argc, argv, groups, ARRAY_COUNT(groups));
	int code, rc;

	if (argc - i != 1)
		opts_fail(&cmd_reply, "reply takes one topic or pattern");
	if (!r.exec == !r.echo)
		opts_fail(&cmd_reply, "reply takes one of --exec CMD and --echo");
	r.topic = argv[i];
	code = cli_open(cli);
	if (code != CLI_OK)
		return code;
	sig_catch(cli->bus);
	rc = shmq_responder_open(cli->bus, r.topic, NULL, &r.responder);
	if (rc)
		return out_fail(cli, rc, "answering", r.topic, NULL);
	code = serve(&r);
	shmq_responder_close(r.responder);
	free(r.out);
	return code;
}

const struct command cmd_reply = {
	"reply",
	"TOPIC|PATTERN (--exec CMD | --echo) [OPTION]...",
	"Answer requests",
	"Reads the requests of TOPIC, or of all topics that PATTERN means, and answers each.\n"
	"CMD has SHMQ_TOPIC and SHMQ_KEY in its environment, and is killed when the request\n"
	"times out.\n",
	"shmq reply svc.upper --exec 'tr a-z A-Z'\n",
	run,
};
