/* SPDX-License-Identifier: MIT */
#include "crowd.h"

#include <stdio.h>

#define POLL_MAX 64u

/* One process's end. */
struct end {
	const struct crowd *crowd;
	unsigned index; /* among its kind */
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	struct peer_end peer;
};

/* Whom nobody reads meanwhile, a witness verifies afterwards. */
static unsigned everyone(const struct crowd *c)
{
	return c->publishers + (c->subscribers ? c->subscribers : 1);
}

static _Atomic uint64_t *done(void)
{
	return &bench_shared->word[BENCH_WORDS - 2][0];
}

/* ---- what processes tell the one that waits for them -------------------------- */

static _Atomic uint64_t *sent(unsigned publisher)
{
	return &bench_shared->word[publisher][0];
}

/* When the k-th of all began and ended. */
static double *span(unsigned k)
{
	return &bench_shared->result[2 * k];
}

static uint64_t sent_by_all(const struct crowd *c)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < c->publishers; i++)
		n += atomic_load(sent(i));
	return n;
}

static void check_count(const struct crowd *c, const struct crowd_reader *r)
{
	if (r->received + r->lost != sent_by_all(c))
		bench_fail("%llu were sent, but %llu received and %llu reported lost",
			   (unsigned long long)sent_by_all(c), (unsigned long long)r->received,
			   (unsigned long long)r->lost);
}

/* ---- shmq ------------------------------------------------------------------ */

static void shmq_open_send(struct end *e)
{
	e->bus = bench_open();
	BENCH_OK(shmq_pub_open(e->bus, e->crowd->topic, NULL, &e->pub));
	BENCH_OK(shmq_pub_wait_subscribers(e->pub, e->crowd->subscribers, SHMQ_FOREVER));
}

BENCH_ALWAYS void shmq_put(struct end *e, const char *buf)
{
	struct shmq_msg msg;

	if (!e->crowd->lanes) {
		BENCH_OK(shmq_publish(e->pub, buf, CROWD_BYTES));
		return;
	}
	msg = (struct shmq_msg){ .data = buf, .len = CROWD_BYTES, .partition = (int32_t)e->index };
	BENCH_OK(shmq_publish_msg(e->pub, &msg));
}

/* Until all that was sent is read, if readers may not lose any. */
static void shmq_close(struct end *e)
{
	if (e->pub)
		BENCH_OK(shmq_flush(e->pub, SHMQ_FOREVER));
	shmq_bus_close(e->bus);
}

static void shmq_open_receive(struct end *e)
{
	e->bus = bench_open();
	BENCH_OK(shmq_sub_open(e->bus, e->crowd->topic, NULL, &e->sub));
}

/* The next message, copied to buf: 0, or SHMQ_EEMPTY; adds to *lost. */
BENCH_ALWAYS int shmq_next(shmq_sub *sub, int lossy, char *buf, int64_t timeout, uint64_t *lost)
{
	struct shmq_msg msg;
	int rc;

	for (;;) {
		if (lossy)
			rc = shmq_receive_copy(sub, buf, CROWD_BYTES, &msg, timeout);
		else
			rc = shmq_receive(sub, &msg, timeout);
		if (rc != SHMQ_EOVERRUN)
			break;
		*lost += msg.lost;
	}
	if (rc == SHMQ_EEMPTY)
		return rc;
	BENCH_OK(rc);
	if (msg.len != CROWD_BYTES)
		bench_fail("a message has another length");
	if (!lossy)
		memcpy(buf, msg.data, CROWD_BYTES);
	return 0;
}

static int take_polled(void *reader, const struct shmq_msg *msg)
{
	struct crowd_reader *r = reader;

	if (msg->len != CROWD_BYTES)
		bench_fail("a message has another length");
	crowd_take(r, msg->data);
	return r->ended == r->publishers;
}

BENCH_ALWAYS void shmq_get(struct end *e, struct crowd_reader *r)
{
	char buf[CROWD_BYTES];

	if (!e->crowd->lossy) {
		BENCH_OK(shmq_poll(e->sub, take_polled, r, POLL_MAX, SHMQ_FOREVER));
		return;
	}
	shmq_next(e->sub, 1, buf, SHMQ_FOREVER, &r->lost);
	crowd_take(r, buf);
}

/* ---- peers ------------------------------------------------------------------- */

static struct peer_channel channel;

static void peer_open_end(struct end *e, enum peer_kind kind)
{
	struct peer_channel mine = channel;

	mine.index = e->index;
	e->peer = bench_peer_open(e->crowd->peer, kind, &mine);
}

static void peer_open_send(struct end *e)
{
	peer_open_end(e, PEER_SENDER);
}

static void peer_open_receive(struct end *e)
{
	peer_open_end(e, PEER_RECEIVER);
}

static void peer_put(struct end *e, const char *buf)
{
	bench_peer_send(&e->peer, buf, CROWD_BYTES);
}

static void peer_get(struct end *e, struct crowd_reader *r)
{
	char buf[CROWD_BYTES];

	bench_peer_receive(&e->peer, buf, CROWD_BYTES);
	crowd_take(r, buf);
}

static void peer_close(struct end *e)
{
	bench_peer_close(&e->peer);
}

/* ---- sending and receiving ------------------------------------------------------ */

typedef void end_op(struct end *e);
typedef void end_put(struct end *e, const char *buf);
/* One message, or several that are there. */
typedef void end_get(struct end *e, struct crowd_reader *r);

BENCH_ALWAYS void send_all(struct end *e, end_op *open, end_put *put, end_op *close)
{
	struct crowd_time time;
	char buf[CROWD_BYTES];
	uint64_t i, head;

	open(e);
	bench_meet(everyone(e->crowd));
	span(e->index)[0] = (double)bench_now();
	time = crowd_start(e->crowd->seconds / (bench.smoke ? 10 : 1));
	for (i = 0;; i++) {
		head = crowd_head(e->index, i);
		if (crowd_is_last(&time, i))
			break;
		bench_fill(buf, CROWD_BYTES, head);
		put(e, buf);
	}
	atomic_store(sent(e->index), i + 1);
	bench_fill(buf, CROWD_BYTES, head | CROWD_LAST);
	put(e, buf);
	span(e->index)[1] = (double)bench_now();
	close(e);
	if (atomic_fetch_add(done(), 1) + 1 == e->crowd->publishers)
		bench_say_stage(1);
}

BENCH_ALWAYS void receive_all(struct end *e, end_op *open, end_get *get, end_op *close)
{
	struct crowd_reader r = { .publishers = e->crowd->publishers };
	double *mine = span(e->crowd->publishers + e->index);

	open(e);
	bench_meet(everyone(e->crowd));
	mine[0] = (double)bench_now();
	while (r.ended < r.publishers)
		get(e, &r);
	mine[1] = (double)bench_now();
	check_count(e->crowd, &r);
	atomic_store(&bench_shared->word[e->index][1], r.received);
	close(e);
}

static void shmq_send_all(void *arg)
{
	send_all(arg, shmq_open_send, shmq_put, shmq_close);
}

static void shmq_receive_all(void *arg)
{
	receive_all(arg, shmq_open_receive, shmq_get, shmq_close);
}

static void peer_send_all(void *arg)
{
	send_all(arg, peer_open_send, peer_put, peer_close);
}

static void peer_receive_all(void *arg)
{
	receive_all(arg, peer_open_receive, peer_get, peer_close);
}

/* ---- a run ------------------------------------------------------------------ */

/* Until the last subscriber has the last message; where nobody waits for
 * them, until the last one is sent. */
static double seconds_taken(const struct crowd *c)
{
	unsigned from = c->lossy ? 0 : c->publishers, k;
	unsigned n = c->lossy ? c->publishers : c->publishers + c->subscribers;
	double first = span(0)[0], last = 0;

	for (k = 1; k < c->publishers; k++)
		first = span(k)[0] < first ? span(k)[0] : first;
	for (k = from; k < n; k++)
		last = span(k)[1] > last ? span(k)[1] : last;
	return (last - first) / 1e9;
}

/* Publishers have processors to themselves as long as one is left for the
 * subscribers, who share the rest. */
static int processor_of(const struct crowd *c, unsigned k)
{
	unsigned cpus = (unsigned)bench.cpus;

	if (k < c->publishers || cpus <= c->publishers)
		return (int)k;
	return (int)(c->publishers + (k - c->publishers) % (cpus - c->publishers));
}

static void verify_rest(void *arg)
{
	struct end *e = arg;
	struct crowd_reader r = { .publishers = e->crowd->publishers };
	char buf[CROWD_BYTES];

	shmq_open_receive(e);
	bench_meet(everyone(e->crowd));
	bench_await_stage(1);
	while (!shmq_next(e->sub, e->crowd->lossy, buf, SHMQ_NOWAIT, &r.lost))
		crowd_take(&r, buf);
	check_count(e->crowd, &r);
	shmq_close(e);
}

struct crowd_result crowd_run(const struct crowd *c)
{
	struct bench_proc proc[BENCH_PROCS_MAX];
	struct end end[BENCH_PROCS_MAX];
	void (*send)(void *) = c->peer ? peer_send_all : shmq_send_all;
	void (*receive)(void *) = c->peer ? peer_receive_all : shmq_receive_all;
	struct crowd_result result;
	uint64_t received = 0;
	unsigned k;

	for (k = 0; k < everyone(c); k++) {
		int sends = k < c->publishers;

		end[k] = (struct end){ .crowd = c, .index = sends ? k : k - c->publishers };
		proc[k] =
			(struct bench_proc){ sends ? send : receive, &end[k], processor_of(c, k) };
	}
	if (!c->subscribers)
		proc[c->publishers] = (struct bench_proc){ verify_rest, &end[c->publishers], -1 };
	bench_run(proc, everyone(c));
	for (k = 0; k < c->subscribers; k++)
		received += atomic_load(&bench_shared->word[k][1]);
	result.rate = (double)sent_by_all(c) / 1e6 / seconds_taken(c);
	result.delivered = !c->subscribers ? 0 :
					     100.0 * (double)received /
						     ((double)sent_by_all(c) * c->subscribers);
	return result;
}

void crowd_run_peers(const struct crowd *c, const char *figures)
{
	const struct peer_channel any = { .bytes = CROWD_BYTES,
					  .senders = c->publishers,
					  .receivers = c->subscribers };
	struct crowd run = *c;
	enum peer_wait wait;
	char name[96];

	run.seconds = c->seconds / 4; /* there are many */
	for (run.peer = NULL; (run.peer = bench_next_peer(run.peer, figures, &any, PEER_COPIES));) {
		wait = bench_peer_polls(run.peer);
		/* Who polls takes the processor from those it waits for. */
		if (everyone(c) > (unsigned)bench.cpus && run.peer->waits & PEER_SLEEP)
			wait = PEER_SLEEP;
		channel = bench_channel(CROWD_BYTES, c->publishers, c->subscribers, wait);
		snprintf(name, sizeof(name), "%s%s", figures, bench_peer_who(run.peer));
		bench_note(name, "M/s", crowd_run(&run).rate);
	}
}
