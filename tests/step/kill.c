/* SPDX-License-Identifier: MIT
 *
 * Real SIGKILLs beside a real supervisor and live peers: at every labelled
 * step of publishing and receiving, at a seeded sample of instructions, and at
 * a seeded sample of the way from coming to leaving.
 *
 * A labelled step is a store that others can see.  The first pass of a scene
 * counts them; each has its own victim then.
 */
#include "../../libshmq/pub.h"
#include "../../libshmq/sub_priv.h"
#include "cast.h"
#include "helpers.h"
#include "steps.h"
#include "victim.h"

#include <dirent.h>

enum { DEPTH = 1024, LOG = 1 << 16 };
enum { LAST = 99 }; /* type of the message after which nothing comes */

/* ---- peers ---------------------------------------------------------------------- */

/* Everything that is received, by whoever, in its order. */
struct seen {
	_Atomic uint64_t count;
	struct {
		uint64_t seq, who, n;
	} line[LOG];
};

struct peer_part {
	const char *topic;
	_Atomic int at;
	struct seen seen;
};

static void see(struct seen *seen, const struct shmq_msg *m)
{
	uint64_t head[2], i = atomic_load(&seen->count);

	CHECK_GE(m->len, sizeof(head));
	memcpy(head, m->data, sizeof(head));
	CHECK(is_filled((const char *)m->data + sizeof(head), m->len - sizeof(head),
			head[0] << 32 | head[1]));
	CHECK_LT(i, LOG);
	if (i)
		CHECK_GT(m->seq, seen->line[i - 1].seq);
	seen->line[i].seq = m->seq;
	seen->line[i].who = head[0];
	seen->line[i].n = head[1];
	atomic_store(&seen->count, i + 1);
}

/* It sleeps whenever there is nothing. */
static int receive_asleep(void *arg)
{
	struct peer_part *part = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, part->topic, .wait = SHMQ_WAIT_SLEEP);
	struct shmq_msg m;

	reach(&part->at, 1);
	for (;;) {
		CHECK_OK(shmq_receive(sub, &m, PATIENCE));
		if (m.type == LAST) /* the last */
			break;
		see(&part->seen, &m);
	}
	CHECK_EQ(sub_stats(sub).lost, 0);
	shmq_bus_close(bus);
	return 0;
}

/* ---- victims ---------------------------------------------------------------------- */

static int receive(void *arg)
{
	struct victim *v = arg;
	shmq_bus *bus = test_bus_open();
	shmq_sub *sub = open_sub(bus, v->topic, .from = SHMQ_FROM_OLDEST);
	struct shmq_msg m;

	atomic_store(&v->client, shmq_bus_client_id(bus));
	STEPPER_MARK();
	shmq_receive(sub, &m, SHMQ_NOWAIT);
	shmq_receive(sub, &m, SHMQ_NOWAIT);
	shmq_release(sub);
	STEPPER_MARK();
	return 0;
}

static const struct scene {
	struct victim_act act;
	enum shmq_mode mode;
	enum shmq_policy policy;
} scenes[] = {
	{ { "publish, exclusive", victim_publish, 40, 1, 0 }, SHMQ_EXCLUSIVE, SHMQ_BLOCK },
	{ { "publish, exclusive and lossy", victim_publish, 40, 1, 0 },
	  SHMQ_EXCLUSIVE,
	  SHMQ_LOSSY },
	{ { "publish, shared", victim_publish, 40, 1, 0 }, SHMQ_SHARED, SHMQ_BLOCK },
	{ { "publish through the arena", victim_publish, VICTIM_LARGE, 1, 0 },
	  SHMQ_EXCLUSIVE,
	  SHMQ_DROP_NEW },
	{ { "publish through the arena, shared", victim_publish, VICTIM_LARGE, 1, 0 },
	  SHMQ_SHARED,
	  SHMQ_EVICT },
	{ { "publish an atomic batch", victim_publish_batch, 40, 4, 1 },
	  SHMQ_EXCLUSIVE,
	  SHMQ_BLOCK },
	{ { "publish an atomic batch, shared", victim_publish_batch, 40, 4, 1 },
	  SHMQ_SHARED,
	  SHMQ_BLOCK },
	{ { "publish a batch, shared", victim_publish_batch, 40, 3, 0 }, SHMQ_SHARED, SHMQ_LOSSY },
	{ { "claim and commit in the arena", victim_claim_and_commit, VICTIM_LARGE, 1, 0 },
	  SHMQ_SHARED,
	  SHMQ_BLOCK },
	{ { "receive", receive, 40, 0, 0 }, SHMQ_SHARED, SHMQ_BLOCK },
};

/* ---- one scene ------------------------------------------------------------------------ */

struct stage {
	const struct scene *scene;
	shmq_bus *bus;
	shmq_pub *pub; /* NULL on exclusive topics */
	shmq_sub *sub;
	struct victim *victim;
	struct peer_part *peer;
	pid_t peer_pid;
	struct seen *seen; /* by sub */
	struct watch watch;
	uint64_t sent;
	struct steps_tally tally;
};

static unsigned count_daemon_fds(shmq_bus *bus)
{
	char path[40];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)test_bus_worker_pid(bus));
	dir = opendir(path);
	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void send_one(struct stage *g, shmq_pub *pub, unsigned type)
{
	static char buf[CAST_MESSAGE_MAX];
	struct shmq_msg m = { .data = buf, .len = g->scene->act.bytes, .type = (uint16_t)type };

	cast_fill(buf, m.len, CAST_OTHERS, g->sent++);
	CHECK_OK(shmq_publish_msg(pub, &m));
}

/* What there is; how many it were. */
static unsigned read_on(struct stage *g)
{
	struct shmq_msg m;
	unsigned n = 0;
	int rc;

	while (!(rc = shmq_receive(g->sub, &m, SHMQ_NOWAIT))) {
		if (m.type != LAST)
			see(g->seen, &m);
		n++;
	}
	CHECK_ERROR(rc, SHMQ_EEMPTY);
	CHECK_OK(shmq_release(g->sub));
	return n;
}

static struct stepper begin_victim(struct stage *g)
{
	struct stepper s;

	g->victim->number++;
	stepper_fork(&s, g->scene->act.live, g->victim);
	stepper_go(&s);
	victim_watch(g->victim, g->sub->h.topic, &g->watch);
	return s;
}

static void kill_victim(struct stage *g, struct stepper *s, uint64_t head)
{
	unsigned must = victim_look(g->victim, g->sub->h.topic, head).committed, n, i, got = 0;
	uint64_t from = atomic_load(&g->seen->count);
	struct shmq_topic_info info;
	shmq_pub *pub = g->pub;

	stepper_kill(s);
	watch_free(&g->watch);
	await_event(g->bus, SHMQ_EVENT_DIED, g->victim->client);
	n = read_on(g);
	for (i = 0; i < n; i++) {
		uint64_t at = from + i;

		CHECK_EQ(g->seen->line[at].who, g->victim->number);
		got |= 1u << g->seen->line[at].n;
	}
	CHECK_EQ(got, must);
	info = topic_info(g->bus, "t");
	CHECK_EQ(info.publishers, g->pub ? 1 : 0);
	CHECK_EQ(info.subscribers, 2);
	if (!pub)
		pub = open_pub(g->bus, "t");
	for (i = 0; i < 3; i++)
		send_one(g, pub, 0);
	CHECK_EQ(read_on(g), 3);
	if (!g->pub)
		shmq_pub_close(pub);
	g->tally.deaths++;
}

/* At the state-th store, or before the instruction-th instruction. */
static void kill_at(struct stage *g, uint64_t state, uint64_t instruction)
{
	uint64_t head = topic_info(g->bus, "t").head, states = 0;
	struct stepper s = begin_victim(g);

	while (states < state && s.steps < instruction && stepper_step(&s) == STEPPER_STEP)
		states += (unsigned)watch_look(&g->watch);
	kill_victim(g, &s, head);
}

static void count_steps(struct stage *g)
{
	uint64_t head = topic_info(g->bus, "t").head;
	struct stepper s = begin_victim(g);

	while (stepper_step(&s) == STEPPER_STEP) {
		g->tally.instructions++;
		g->tally.states += (unsigned)watch_look(&g->watch);
	}
	kill_victim(g, &s, head);
}

static struct stage *set_up(const struct scene *scene, shmq_bus *bus)
{
	struct stage *g = calloc(1, sizeof(*g));

	CHECK(g);
	g->scene = scene;
	g->bus = bus;
	g->victim = shared_memory(sizeof(*g->victim));
	g->peer = shared_memory(sizeof(*g->peer));
	g->seen = calloc(1, sizeof(*g->seen));
	g->victim->act = &scene->act;
	g->victim->topic = "t";
	g->victim->number = 100;
	g->peer->topic = "t";
	create(bus, "t", .depth = DEPTH, .mode = scene->mode, .policy = scene->policy,
	       .max_message_bytes = CAST_MESSAGE_MAX);
	g->peer_pid = test_spawn(receive_asleep, g->peer);
	await(&g->peer->at, 1);
	g->sub = open_sub(bus, "t");
	if (scene->mode == SHMQ_SHARED)
		g->pub = open_pub(bus, "t");
	for (unsigned i = 0; g->pub && i < 3; i++)
		send_one(g, g->pub, 0);
	read_on(g);
	return g;
}

static void tear_down(struct stage *g)
{
	shmq_pub *pub = g->pub ?: open_pub(g->bus, "t");
	uint64_t i, count = atomic_load(&g->seen->count);

	send_one(g, pub, LAST);
	CHECK_EQ(read_on(g), 1);
	CHECK_EQ(test_join(g->peer_pid), 0);
	/* Both subscribers saw the same. */
	CHECK_EQ(atomic_load(&g->peer->seen.count), count);
	for (i = 0; i < count; i++)
		CHECK_MEM(&g->peer->seen.line[i], &g->seen->line[i], sizeof(g->seen->line[i]));
	CHECK_EQ(sub_stats(g->sub).lost, 0);
	shmq_sub_close(g->sub);
	shmq_pub_close(pub);
	CHECK_OK(shmq_topic_remove(g->bus, "t", 0));
	munmap(g->victim, sizeof(*g->victim));
	munmap(g->peer, sizeof(*g->peer));
	free(g->seen);
	free(g);
}

static void run(const struct scene *scene, shmq_bus *bus, uint64_t *random)
{
	unsigned sample = steps_is_torture() ? 60 : 2, stride = steps_is_torture() ? 1 : 6;
	struct stage *g = set_up(scene, bus);

	count_steps(g);
	g->tally.scenes = 1;
	for (uint64_t i = 1 + fake_random(random) % stride; i <= g->tally.states; i += stride)
		kill_at(g, i, UINT64_MAX);
	for (unsigned i = 0; i < sample; i++)
		kill_at(g, UINT64_MAX, fake_random(random) % (g->tally.instructions + 1));
	steps_report(scene->act.name, &g->tally);
	tear_down(g);
}

TEST_WITHIN(a_client_may_be_killed_at_any_labelled_step_beside_live_peers, 600)
{
	uint64_t random = steps_seed();
	unsigned fds = 0;
	shmq_bus *bus;

	stepper_need();
	test_bus_start();
	bus = test_bus_open();
	for (size_t i = 0; i < COUNT(scenes); i++) {
		run(&scenes[i], bus, &random);
		if (!i)
			fds = count_daemon_fds(bus);
		CHECK_LE(count_daemon_fds(bus), fds);
	}
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- coming and going --------------------------------------------------------------------- */

enum { STEPS_INTO_IT = 300 };

/* Attach, join, send and receive something, leave, detach. */
static int come_and_go(void *arg)
{
	uint64_t head[2] = { CAST_SUBJECT, 0 };
	static char large[VICTIM_LARGE];
	shmq_pub *only, *one_of;
	struct shmq_msg m;
	shmq_bus *bus;
	shmq_sub *sub;

	(void)arg;
	STEPPER_MARK();
	bus = test_bus_open();
	sub = open_sub(bus, "shared");
	only = open_pub(bus, "exclusive");
	one_of = open_pub(bus, "shared");
	shmq_publish(only, head, sizeof(head));
	shmq_publish(one_of, large, sizeof(large));
	shmq_receive(sub, &m, SHMQ_NOWAIT);
	shmq_pub_close(only);
	shmq_sub_close(sub);
	shmq_bus_close(bus);
	STEPPER_MARK();
	return 0;
}

static int is_forgotten(void *arg)
{
	struct shmq_bus_info info;

	CHECK_OK(shmq_bus_get_info(arg, &info));
	return info.clients == 1;
}

/* Nothing of the victim is left, and what it stood in is free. */
static void check_forgotten(shmq_bus *bus, shmq_sub *exclusive, shmq_sub *shared)
{
	static const char *const topics[] = { "exclusive", "shared" };
	shmq_sub *sub[] = { exclusive, shared };
	struct shmq_msg m;
	uint64_t head[2] = { CAST_OTHERS, 0 };

	if (!test_wait_until(is_forgotten, bus, (int)(PATIENCE / MILLISECOND)))
		FAIL("the victim is still there");
	for (int i = 0; i < 2; i++) {
		struct shmq_topic_info info = topic_info(bus, topics[i]);
		shmq_pub *pub;

		CHECK_EQ(info.publishers, 0);
		CHECK_EQ(info.subscribers, 1);
		while (!shmq_receive(sub[i], &m, SHMQ_NOWAIT))
			;
		pub = open_pub(bus, topics[i]);
		CHECK_OK(shmq_publish(pub, head, sizeof(head)));
		CHECK_OK(shmq_receive(sub[i], &m, SHMQ_NOWAIT));
		CHECK_MEM(m.data, head, sizeof(head));
		CHECK_OK(shmq_release(sub[i]));
		shmq_pub_close(pub);
		CHECK_EQ(sub_stats(sub[i]).lost, 0);
	}
}

/* After so many stops at system calls and so many instructions; how many stops
 * there were. */
static unsigned kill_while_it_comes_and_goes(unsigned stops, unsigned instructions)
{
	struct stepper s;
	unsigned n = 0;
	enum stepper_at at = STEPPER_STEP;

	stepper_fork(&s, come_and_go, NULL);
	stepper_go(&s);
	for (; n < stops && (at = stepper_syscall(&s)) == STEPPER_STEP; n++)
		;
	while (at == STEPPER_STEP && instructions--)
		at = stepper_step(&s);
	stepper_kill(&s);
	return n;
}

TEST_WITHIN(a_client_may_be_killed_anywhere_from_coming_to_leaving, 600)
{
	unsigned kills = steps_is_torture() ? 1500 : 40, stops, fds = 0;
	uint64_t random = steps_seed();
	struct shmq_bus_info before, after;
	shmq_sub *exclusive, *shared;
	shmq_bus *bus;

	stepper_need();
	test_bus_start();
	bus = test_bus_open();
	create(bus, "exclusive", .depth = DEPTH);
	create(bus, "shared", .depth = DEPTH, .mode = SHMQ_SHARED,
	       .max_message_bytes = VICTIM_LARGE);
	exclusive = open_sub(bus, "exclusive");
	shared = open_sub(bus, "shared");
	stops = kill_while_it_comes_and_goes(UINT32_MAX, 0);
	check_forgotten(bus, exclusive, shared);
	for (unsigned i = 0; i < kills; i++) {
		unsigned at = (unsigned)(fake_random(&random) % stops);

		kill_while_it_comes_and_goes(at, (unsigned)(fake_random(&random) % STEPS_INTO_IT));
		check_forgotten(bus, exclusive, shared);
		if (i == kills / 2) {
			CHECK_OK(shmq_bus_get_info(bus, &before));
			fds = count_daemon_fds(bus);
		}
	}
	CHECK_OK(shmq_bus_get_info(bus, &after));
	CHECK_LE(after.bytes, before.bytes);
	CHECK_LE(count_daemon_fds(bus), fds);
	NOTE("attach, join, leave, detach: %u stops at system calls, %u deaths after one of them",
	     stops, kills);
	shmq_bus_close(bus);
	test_bus_stop();
}
