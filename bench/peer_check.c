/* SPDX-License-Identifier: MIT
 *
 * peer_check: peers are to be measured only if they do what shmq does, so
 * each is made to carry messages of many lengths, and each message must
 * arrive whole, once and in order.
 */
#include "common.h"
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char question[] =
	"Do the other transports carry messages of all lengths, from several senders and to\n"
	"several receivers, polling and sleeping, without loss, repetition, disorder or tearing?";

#define MESSAGES 5000
#define TRIPS 2000
#define MOST_ENDS 8 /* of a kind: as many as the benchmarks have */
#define PATIENCE_S 100

static unsigned checked;

struct job {
	const struct peer *peer;
	struct peer_channel to, from; /* from: the way back of round trips */
};

static size_t length_of(const struct peer_channel *c, uint64_t i)
{
	static const size_t lengths[] = { 0,    1,    7,    8,     9,     31,     32,     56,
					  63,   64,   65,   127,   128,   200,    256,    1000,
					  1024, 4095, 8192, 65536, 65537, 131072, 1 << 20 };
	size_t len = lengths[i % (sizeof(lengths) / sizeof(lengths[0]))];

	/* Of several senders, messages say whose they are. */
	if (c->senders > 1 && len < sizeof(uint64_t))
		len = sizeof(uint64_t);
	return len < c->bytes ? len : c->bytes;
}

/* Fewer of the large. */
static uint64_t messages_of(const struct peer_channel *c)
{
	return c->bytes > 65536 ? MESSAGES / 10 : MESSAGES;
}

static uint64_t trips_of(const struct peer_channel *c)
{
	return c->bytes > 65536 ? TRIPS / 10 : TRIPS;
}

static uint64_t id_of(unsigned sender, uint64_t i)
{
	return (uint64_t)sender << 48 | i << 24;
}

static void *open_end(void *(*open_it)(const struct peer_channel *), const struct peer_channel *c)
{
	void *end;

	/* What was lost at the end would be waited for. */
	alarm(PATIENCE_S);
	end = open_it(c);
	if (!end)
		bench_fail("an end did not open");
	return end;
}

static char *make_buffer(const struct peer_channel *c)
{
	char *buf = malloc(c->bytes);

	if (!buf)
		bench_fail("out of memory");
	return buf;
}

static void give(const struct peer *p, void *end, const struct peer_channel *c, char *buf,
		 unsigned sender, uint64_t i)
{
	size_t len = length_of(c, i);
	void *room = buf;

	/* Every other one without a copy, where that can be. */
	if (p->loan && i % 2 && !(room = p->loan(end, len)))
		bench_fail("%s: no room", p->name);
	bench_fill(room, len, id_of(sender, i));
	if (room == buf ? p->send(end, buf, len) : p->publish(end, room))
		bench_fail("%s: sending failed", p->name);
}

/* The next message is the next one of its sender. */
static void get(const struct peer *p, void *end, const struct peer_channel *c, char *buf,
		uint64_t *next, uint64_t turn)
{
	const void *message = buf;
	unsigned sender = 0;
	uint64_t id = 0;
	ssize_t len;
	size_t taken;

	if (p->take && turn % 3) {
		message = p->take(end, &taken);
		len = message ? (ssize_t)taken : -1;
	} else {
		len = p->recv(end, buf, c->bytes);
	}
	if (len < 0)
		bench_fail("%s: receiving failed", p->name);
	if (c->senders > 1 && len >= 8) {
		memcpy(&id, message, sizeof(id));
		sender = (unsigned)(id >> 48);
	}
	if (sender >= c->senders || (size_t)len != length_of(c, next[sender]) ||
	    bench_verify(message, (size_t)len, id_of(sender, next[sender])))
		bench_fail("%s: instead of message %llu of sender %u of %u, to %u, came another or "
			   "a torn one, of %zd bytes",
			   p->name, (unsigned long long)next[sender], sender, c->senders,
			   c->receivers, len);
	next[sender]++;
	if (message != buf)
		p->release(end, message);
}

/* ---- one way -------------------------------------------------------------- */

/* The numbers of the ends are given out as the processes come. */
static struct peer_channel numbered(const struct peer_channel *channel, int kind)
{
	struct peer_channel mine = *channel;

	mine.index = (unsigned)atomic_fetch_add(&bench_shared->word[kind][0], 1);
	return mine;
}

static void run_sender(void *arg)
{
	const struct job *j = arg;
	const struct peer_channel c = numbered(&j->to, 0);
	void *end = open_end(j->peer->open_send, &c);
	char *buf = make_buffer(&c);
	uint64_t i;

	bench_meet(c.senders + c.receivers);
	for (i = 0; i < messages_of(&c); i++)
		give(j->peer, end, &c, buf, c.index, i);
	j->peer->close(end);
}

static void run_receiver(void *arg)
{
	const struct job *j = arg;
	const struct peer_channel c = numbered(&j->to, 1);
	void *end = open_end(j->peer->open_recv, &c);
	uint64_t next[MOST_ENDS] = { 0 }, i;
	const uint64_t messages = messages_of(&c) * c.senders;
	char *buf = make_buffer(&c);

	bench_meet(c.senders + c.receivers);
	for (i = 0; i < messages; i++) {
		/* Senders may be done and closed before the rest is read. */
		if (i == messages / 4 * 3)
			usleep(20000);
		get(j->peer, end, &c, buf, next, i);
	}
	j->peer->close(end);
}

/* ---- there and back ------------------------------------------------------- */

static void run_pong(void *arg)
{
	const struct job *j = arg;
	void *in = open_end(j->peer->open_recv, &j->to);
	void *out = open_end(j->peer->open_send, &j->from);
	char *buf = make_buffer(&j->to);
	uint64_t next = 0;

	bench_meet(2);
	while (next < trips_of(&j->to)) {
		get(j->peer, in, &j->to, buf, &next, next);
		give(j->peer, out, &j->from, buf, 0, next - 1);
	}
	j->peer->close(out);
	j->peer->close(in);
}

static void run_ping(void *arg)
{
	const struct job *j = arg;
	void *in = open_end(j->peer->open_recv, &j->from);
	void *out = open_end(j->peer->open_send, &j->to);
	char *buf = make_buffer(&j->to);
	uint64_t next = 0;

	bench_meet(2);
	while (next < trips_of(&j->to)) {
		give(j->peer, out, &j->to, buf, 0, next);
		get(j->peer, in, &j->from, buf, &next, next);
	}
	j->peer->close(out);
	j->peer->close(in);
}

/* ------------------------------------------------------------------------------ */

static void check_one_way(const struct peer *peer, enum peer_wait wait, size_t bytes,
			  unsigned senders, unsigned receivers)
{
	struct job job = { .peer = peer, .to = bench_channel(bytes, senders, receivers, wait) };
	struct bench_proc proc[2 * MOST_ENDS];
	unsigned i;

	if (senders > peer->fan_in || receivers > peer->fan_out || bytes > peer->max_bytes)
		return;
	for (i = 0; i < senders + receivers; i++)
		proc[i] = (struct bench_proc){ i < receivers ? run_receiver : run_sender, &job,
					       (int)i };
	bench_run(proc, i);
}

static void check_trips(const struct peer *peer, enum peer_wait wait, size_t bytes)
{
	struct job job = { .peer = peer,
			   .to = bench_channel(bytes, 1, 1, wait),
			   .from = bench_channel(bytes, 1, 1, wait) };
	struct bench_proc trip[] = { { run_pong, &job, 0 }, { run_ping, &job, 1 } };

	if (bytes <= peer->max_bytes)
		bench_run(trip, 2);
}

static void check(const struct peer *peer, enum peer_wait wait)
{
	static const size_t sizes[] = { 64, 4096, 8192, 131072, 1 << 20 };
	unsigned i;

	if (!(peer->waits & wait))
		return;
	check_trips(peer, wait, 64);
	check_trips(peer, wait, 1 << 20);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		check_one_way(peer, wait, sizes[i], 1, 1);
	check_one_way(peer, wait, 1024, 1, MOST_ENDS);
	check_one_way(peer, wait, 1024, 4, 1);
	check_one_way(peer, wait, 1024, 4, 4);
	checked++;
	printf("right %s %s\n", peer->name, wait == PEER_SPIN ? "spin" : "sleep");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const struct peer *const *peer;
	unsigned r;

	bench.rounds = 1;
	bench.peers = "all";
	bench_init(argc, argv, BENCH_NO_BUS, question);
	for (r = 0; r < bench.rounds; r++)
		for (peer = bench_peers(); *peer; peer++) {
			check(*peer, PEER_SPIN);
			check(*peer, PEER_SLEEP);
		}
	if (!checked)
		bench_fail("nothing was checked: no peer that was asked for is built "
			   "(hint: make bench-peers)");
	return bench_end() || bench_peers_broken();
}
