/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>

#define SECOND_NS ((int64_t)1000000000)
#define CATCH_UP_NS (SECOND_NS / 10)

void sender_start(struct sender *sender)
{
	sender->batch = cli_alloc(NULL, sender->batch_max * sizeof(*sender->batch));
	sender->started_ns = sender->paced_ns = cli_now_ns();
}

double sender_rate(const struct sender *sender)
{
	double seconds = (double)(cli_now_ns() - sender->started_ns) / 1e9;

	return seconds > 0 ? (double)sender->sent / seconds : 0;
}

/* ---- errors ---------------------------------------------------------- */

/* Somebody does not read: the most useful thing to say is who. */
static int holder_hint(struct sender *sender, char *out, size_t bytes)
{
	struct shmq_topic_info info;
	struct holder holder;

	if (shmq_pub_get_topic(sender->pub, &info) < 0 ||
	    holder_find(sender->cli->bus, &info, &holder) < 0 ||
	    (holder.slowest.client < 0 && !holder.log_error))
		return -1;
	if (holder.log_error)
		snprintf(out, bytes, "it waits for %s; \"shmq stat %s\" shows more",
			 holder_text(&holder).s, sender->topic);
	else
		snprintf(out, bytes,
			 "%s is %" PRIu64 " messages behind; \"shmq stat %s\" shows more",
			 who_text(&holder.slowest).s, holder.lag, sender->topic);
	return 0;
}

int sender_fail(struct sender *sender, int error, const char *doing)
{
	char hint[512];
	int known = -1;

	progress_hide(sender);
	if (error == SHMQ_ETIMEOUT || error == SHMQ_EFULL)
		known = holder_hint(sender, hint, sizeof(hint));
	return out_fail(sender->cli, error, doing, sender->topic, known == 0 ? hint : NULL);
}

/* The first is told when it happens, the number of all at the end. */
static void drop(struct sender *sender)
{
	if (!sender->dropped)
		sender_fail(sender, SHMQ_EFULL, "dropping messages to");
	sender->dropped++;
}

/* ---- sending --------------------------------------------------------- */

/* Messages are due at even distances.  One that comes late is followed by
 * others until the rate is met again, but a long pause of the input does
 * not end in a burst. */
static void pace(struct sender *sender)
{
	int64_t due, now;

	if (sender->rate <= 0)
		return;
	due = sender->paced_ns + (int64_t)((double)sender->paced * 1e9 / sender->rate);
	now = cli_now_ns();
	if (now - due > CATCH_UP_NS) {
		sender->paced_ns = now;
		sender->paced = 0;
	} else if (due > now) {
		sig_sleep_until(due);
	}
	sender->paced += sender->pending;
}

static ssize_t publish(struct sender *sender, struct shmq_msg *msgs, size_t n)
{
	ssize_t rc;

	progress_set(sender, DOING_PUBLISH, n == 1 ? msgs->len : 0);
	if (n == 1)
		rc = shmq_publish_msg(sender->pub, msgs);
	else
		rc = shmq_publish_batch(sender->pub, msgs, n, 0);
	progress_set(sender, DOING_NOTHING, 0);
	if (rc == -EINTR)
		return 0;
	return n == 1 && rc == 0 ? 1 : rc;
}

static void account(struct sender *sender, const struct shmq_msg *msgs, size_t n)
{
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < n; i++)
		bytes += msgs[i].len;
	sender->sent += n;
	sender->bytes += bytes;
}

int sender_flush(struct sender *sender)
{
	struct shmq_msg *msgs = sender->batch, *end = msgs + sender->pending;
	ssize_t rc;

	if (!sender->pending)
		return CLI_OK;
	pace(sender);
	sender->pending = 0;
	while (msgs < end && !sig_stopped()) {
		rc = publish(sender, msgs, (size_t)(end - msgs));
		if (rc == SHMQ_EFULL) {
			drop(sender);
			msgs++;
		} else if (rc < 0) {
			return sender_fail(sender, (int)rc, "publishing to");
		} else {
			account(sender, msgs, (size_t)rc);
			msgs += rc;
		}
	}
	return CLI_OK;
}

int sender_add(struct sender *sender, const struct shmq_msg *msg)
{
	sender->batch[sender->pending++] = *msg;
	return sender->pending < sender->batch_max ? CLI_OK : sender_flush(sender);
}

struct confirm {
	struct sender *sender;
	enum shmq_confirm level;
	int64_t until_ns; /* SHMQ_FOREVER, or CLOCK_MONOTONIC */
};

static int confirm_partition(void *arg, const struct shmq_partition_info *partition)
{
	const struct confirm *c = arg;
	int64_t left = c->until_ns;
	int rc;

	if (left != SHMQ_FOREVER)
		left = left > cli_now_ns() ? left - cli_now_ns() : SHMQ_NOWAIT;
	rc = shmq_pub_wait_confirm(c->sender->pub, partition->partition, partition->head - 1,
				   c->level, left);
	if (rc == SHMQ_EEMPTY)
		return SHMQ_ETIMEOUT;
	return rc;
}

int sender_confirm(struct sender *sender, enum shmq_confirm level, int64_t timeout_ns)
{
	struct confirm c = {
		.sender = sender,
		.level = level,
		.until_ns = timeout_ns == SHMQ_FOREVER ? timeout_ns : cli_now_ns() + timeout_ns,
	};
	int rc;

	progress_set(sender, DOING_CONFIRM, 0);
	rc = shmq_partition_each(sender->cli->bus, sender->topic, confirm_partition, &c);
	progress_set(sender, DOING_NOTHING, 0);
	if (!rc)
		return CLI_OK;
	progress_hide(sender);
	if (rc == -EINTR) {
		out_say("waiting for the log of \"%s\": interrupted, all %" PRIu64
			" %s sent (hint: \"shmq stat %s\" shows how far it is)",
			sender->topic, sender->sent,
			units_plural(sender->sent, "message is", "messages are"), sender->topic);
		return CLI_FAILURE;
	}
	return out_fail(sender->cli, rc, "waiting for the log of", sender->topic,
			rc == SHMQ_EOPTION  ? "it has none: create it with --log" :
			rc == SHMQ_ETIMEOUT ? "its disk may be slow or full: shmq stat shows it" :
					      NULL);
}

/* ---- the end --------------------------------------------------------- */

static void summarise(const struct sender *sender, const struct sender_report *report)
{
	int64_t ns = cli_now_ns() - sender->started_ns;
	double rate = sender_rate(sender);
	json_t *object;

	if (report->verbose)
		out_say("published to \"%s\": %" PRIu64 " sent, %" PRIu64 " dropped, %s in %s, %s",
			sender->topic, sender->sent, sender->dropped, units_size(sender->bytes).s,
			units_duration(ns).s, units_rate(rate).s);
	if (!report->json)
		return;
	object = json_object();
	json_put_text(object, "topic", sender->topic);
	json_put_u64(object, "sent", sender->sent);
	json_put_u64(object, "dropped", sender->dropped);
	json_put_u64(object, "bytes", sender->bytes);
	json_put(object, "seconds", json_real((double)ns / 1e9));
	json_put(object, "rate", json_real(rate));
	json_print(object);
}

/* What went wrong outweighs what was dropped. */
int sender_conclude(struct sender *sender, const struct sender_report *report, int code)
{
	progress_stop(sender);
	summarise(sender, report);
	if (sig_stopped() && code == CLI_OK) {
		out_say("publishing to \"%s\": interrupted after %" PRIu64 " %s", sender->topic,
			sender->sent, units_plural(sender->sent, "message", "messages"));
		code = CLI_FAILURE;
	}
	if (!sender->dropped)
		return code;
	out_say("publishing to \"%s\": %" PRIu64 " of %" PRIu64 " messages dropped, the topic was "
		"full (hint: a deeper topic, a faster subscriber, or --policy block)",
		sender->topic, sender->dropped, sender->sent + sender->dropped);
	return code == CLI_OK ? CLI_LOST : code;
}
