/* SPDX-License-Identifier: MIT
 *
 * The publisher handle against rings, entries and arenas that the test holds
 * in its other hand, and against a supervisor that is away or silent.
 */
#include "../../libshmq/bus.h"
#include "clock.h"
#include "helpers.h"
#include "memory.h"
#include "standin.h"

#include <xxhash.h>

static const uint64_t bases[] = FAKE_BASES;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A bus, its topic, and a subscriber whose cursor the test moves. */
struct scene {
	struct standin *s;
	struct fake *f;
	shmq_bus *bus;
	shmq_pub *pub;
	struct lay_member *sub;
	shmq_au64 *cursor;
};

static struct scene set_up(const struct fake_options *options, const struct shmq_pub_options *o)
{
	struct scene c = { .s = standin_new(options) };

	c.f = standin_fake(c.s);
	c.bus = standin_bus(c.s);
	c.sub = fake_subscriber(c.f, fake_client(c.f, getpid()), SHMQ_FROM_LATEST, 0);
	c.cursor = &fake_entry(c.f, c.sub, 0)->pos;
	CHECK_OK(shmq_pub_open(c.bus, STANDIN_TOPIC, o, &c.pub));
	return c;
}

static void tear_down(struct scene *c)
{
	shmq_pub_close(c->pub);
	shmq_bus_close(c->bus);
	standin_free(c->s);
}

static struct lay_ring *ring(const struct scene *c, uint32_t p)
{
	return c->f->topic->ring[p].mem;
}

static uint64_t word_of(const struct scene *c, uint64_t seq)
{
	return load_acquire(fake_ctrl(ring(c, 0), &c->f->geo, seq));
}

static uint64_t head(const struct scene *c)
{
	return shmq__topic_head(&c->f->topic->ring[0]);
}

static uint64_t publish_seq(shmq_pub *pub)
{
	struct shmq_msg m = { .data = "m", .len = 1 };

	CHECK_OK(shmq_publish_msg(pub, &m));
	return m.seq;
}

/* Until one is refused; how many went. */
static unsigned publish_all(shmq_pub *pub, int want)
{
	unsigned n = 0;
	int rc;

	while (!(rc = shmq_publish(pub, &n, sizeof(n))))
		n++;
	CHECK_ERROR(rc, want);
	return n;
}

/* ---- opening -------------------------------------------------------------- */

TEST(options_of_a_publisher_out_of_range_are_refused_and_nobody_is_asked)
{
	static const struct shmq_pub_options bad[] = {
		{ .wake = (enum shmq_wake)3 }, { .wake = (enum shmq_wake) - 1 }, { .wake_ns = -1 },
		{ .block_timeout_ns = -2 },    { .wait = (enum shmq_wait)5 },    { .flags = 2 },
	};
	struct {
		struct shmq_pub_options o;
		char unknown;
	} longer = { .o.size = sizeof(longer), .unknown = 1 };
	struct standin *s = standin_new(NULL);
	shmq_bus *bus = standin_bus(s);
	shmq_pub *pub;

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct shmq_pub_options o = bad[i];

		o.size = sizeof(o);
		CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, &o, &pub), SHMQ_EOPTION);
		CHECK(!pub);
		CHECK(strstr(shmq_bus_error(bus), "publisher options"));
	}
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, &longer.o, &pub), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(bus), "newer libshmq"));
	CHECK_ERROR(shmq_pub_open(bus, "no..name", NULL, &pub), SHMQ_ENAME);
	CHECK_EQ(standin_count(s, PROTO_OPEN), 0);
	CHECK_ERROR(shmq_pub_open(bus, "absent", NULL, &pub), SHMQ_ENOTOPIC);
	CHECK_STR(shmq_bus_error(bus), "no \"absent\" here");
	shmq_pub_close(NULL);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(what_a_publisher_asks_for_is_said)
{
	struct standin *s = standin_new(&(struct fake_options){ .max_bytes = 9999 });
	shmq_bus *bus = standin_bus(s);
	struct proto_request req;

	shmq_pub_close(open_pub(bus, STANDIN_TOPIC, .arena_bytes = 123456));
	req = standin_last(s, PROTO_OPEN);
	CHECK_EQ(req.open.role, SHMQ_ROLE_PUBLISHER);
	CHECK_EQ(req.open.partition, -1);
	CHECK_EQ(req.open.arena_bytes, 123456);
	CHECK_EQ(standin_last(s, PROTO_CLOSE).close.handle, req.token);
	shmq_bus_close(bus);
	standin_free(s);
}

TEST(whichever_allocation_fails_no_publisher_and_no_piece_of_one_is_left)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 3,
							.mode = SHMQ_SHARED,
							.max_bytes = 5000,
							.arena_bytes = 1 << 16 },
				NULL);
	unsigned k, fds = (unsigned)test_fd_count();
	int met = 1;

	for (k = 1; met; k++) {
		shmq_pub *pub;
		int rc;

		scarce_begin(k);
		rc = shmq_pub_open(c.bus, STANDIN_TOPIC, NULL, &pub);
		met = scarce_end();
		if (rc) {
			CHECK(!pub);
			CHECK(rc == -ENOMEM || rc == SHMQ_ELIMIT);
		}
		shmq_pub_close(pub);
		CHECK_EQ(standin_count(c.s, PROTO_CLOSE), k);
		CHECK_EQ(load_relaxed(&c.f->rec->publishers), 1);
		CHECK_LE(test_fd_count(), fds);
	}
	CHECK_GT(k, 8);
	tear_down(&c);
}

static void arena_is(struct standin_answer *a, void *arg)
{
	a->reply.open.arena = *(uint32_t *)arg;
}

TEST(an_arena_that_is_not_what_it_should_be_is_not_written_to)
{
	struct standin *s =
		standin_new(&(struct fake_options){ .max_bytes = 5000, .arena_bytes = 1 << 16 });
	struct fake *f = standin_fake(s);
	struct lay_member *m = fake_member(f, fake_client(f, getpid()), -1);
	shmq_bus *bus = standin_bus(s);
	struct lay_arena *rec;
	uint32_t id;
	shmq_pub *pub;
	static char bytes[5000];
	void *data;

	standin_change_answers(s, PROTO_OPEN, arena_is, &id);
	id = 1000; /* no record */
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	id = fake_arena(f, m, 4096) + 1;
	rec = shmq__slabs_arena(f->slabs, id - 1);
	pub = open_pub(bus, STANDIN_TOPIC);
	CHECK_ERROR(shmq_publish(pub, bytes, 4097), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_claim(pub, 4097, &data), SHMQ_ETOOBIG);
	CHECK_OK(shmq_publish(pub, bytes, 4096));
	shmq_pub_close(pub);
	rec->mem = LAY_REF(FAKE_ENTRIES, LAY_ENTRY_SLAB_BYTES - 64);
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	CHECK(strstr(shmq_bus_error(bus), "mapping the arena of \"fake\""));
	rec->mem = LAY_REF(FAKE_REGISTRY, LAY_PAGE); /* not ours to write */
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), -EACCES);
	rec->bytes = 0;
	CHECK_ERROR(shmq_pub_open(bus, STANDIN_TOPIC, NULL, &pub), SHMQ_ECORRUPT);
	id = 0; /* none was given, though messages may be large */
	pub = open_pub(bus, STANDIN_TOPIC);
	CHECK_ERROR(shmq_publish(pub, bytes, 49), SHMQ_ETOOBIG);
	CHECK_OK(shmq_publish(pub, bytes, 48));
	shmq_pub_close(pub);
	shmq_bus_close(bus);
	standin_free(s);
}

/* ---- credit ------------------------------------------------------------------- */

TEST(a_ring_takes_its_depth_beyond_the_slowest_cursor_at_every_wrap)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_EVICT };

	for (size_t i = 0; i < COUNT(bases) * COUNT(policies) * 2; i++) {
		uint64_t base = bases[i / 6];
		struct scene c = set_up(&(struct fake_options){ .base_seq = base,
								.policy = policies[i / 2 % 3],
								.mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					PUB_OPTIONS(.flags = SHMQ_DONTWAIT));

		/* The limit 0 means none: at the wrap one less may be given. */
		CHECK_LE(FAKE_DEPTH - publish_all(c.pub, SHMQ_EFULL), base + FAKE_DEPTH == 0);
		store_release(c.cursor, base + 100);
		CHECK_LE(publish_all(c.pub, SHMQ_EFULL) - 100, base + FAKE_DEPTH == 0);
		CHECK_EQ(head(&c), base + FAKE_DEPTH + 100);
		CHECK_EQ(publish_all(c.pub, SHMQ_EFULL), 0);
		CHECK_EQ(pub_stats(c.pub).sent, FAKE_DEPTH + 100);
		CHECK_EQ(pub_stats(c.pub).sent_bytes, 4 * (FAKE_DEPTH + 100));
		CHECK_EQ(pub_stats(c.pub).dropped, 3);
		CHECK_EQ(pub_stats(c.pub).blocked, 0);
		CHECK_EQ(load_relaxed(&c.f->rec->subscribers), 0); /* nobody was evicted */
		CHECK_EQ(standin_count(c.s, PROTO_REPORT), 0);
		tear_down(&c);
	}
}

TEST(a_lossy_topic_takes_any_number_at_every_wrap_and_the_seqs_go_on)
{
	for (size_t i = 0; i < 2 * COUNT(bases); i++) {
		uint64_t base = bases[i / 2];
		struct scene c = set_up(&(struct fake_options){ .base_seq = base,
								.policy = SHMQ_LOSSY,
								.mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					NULL);

		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++)
			CHECK_EQ(publish_seq(c.pub), base + n);
		CHECK_EQ(head(&c), base + 3 * FAKE_DEPTH);
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		CHECK_EQ(pub_stats(c.pub).blocked, 0);
		tear_down(&c);
	}
}

TEST(block_times_out_by_the_topic_s_patience_or_the_publisher_s_own)
{
	for (int own = 0; own < 2; own++) {
		struct scene c = set_up(NULL, NULL);
		struct shmq_msg m = { .data = "m", .len = 1 };

		shmq_pub_close(c.pub);
		c.f->rec->block_timeout_ns = own ? SHMQ_FOREVER : 1;
		c.pub = open_pub(c.bus, STANDIN_TOPIC, .block_timeout_ns = own);
		CHECK_EQ(publish_all(c.pub, SHMQ_ETIMEOUT), FAKE_DEPTH);
		CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_ETIMEOUT);
		CHECK_EQ(pub_stats(c.pub).blocked, 2);
		CHECK_EQ(pub_stats(c.pub).dropped, 2);
		tear_down(&c);
	}
}

static void *read_on(void *arg)
{
	struct scene *c = arg;
	struct lay_bell *bell = &c->f->topic->ring[0].bells->credit;
	unsigned turns = 0;

	while (!load_acquire(&bell->armed)) /* it sleeps, or is about to */
		fake_wait(&turns);
	store_release(c->cursor, load_relaxed(c->cursor) + 1);
	bell_look(bell, SHMQ__FENCE_FULL);
	return NULL;
}

TEST(a_publisher_that_sleeps_for_credit_goes_on_when_the_cursor_moves)
{
	static const enum shmq_wait modes[] = { SHMQ_WAIT_SLEEP, SHMQ_WAIT_ADAPTIVE };

	for (size_t i = 0; i < 2 * COUNT(modes); i++) {
		struct scene c = set_up(&(struct fake_options){ .mode = i % 2 ? SHMQ_SHARED :
										SHMQ_EXCLUSIVE },
					PUB_OPTIONS(.wait = modes[i / 2]));
		pthread_t thread;

		for (uint64_t n = 0; n < FAKE_DEPTH; n++)
			publish_seq(c.pub);
		thread = fake_thread(read_on, &c);
		CHECK_EQ(publish_seq(c.pub), FAKE_DEPTH);
		CHECK_EQ(pub_stats(c.pub).blocked, 1);
		fake_join(thread);
		tear_down(&c);
	}
}

TEST(whoever_publishers_are_told_to_evict_is_named_to_the_supervisor_once)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);
	struct lay_member *second = fake_subscriber(c.f, c.sub->client, SHMQ_FROM_LATEST, 0);
	struct proto_request req;

	/* The standin knows neither: the publisher must know by itself. */
	store_release(&fake_entry(c.f, second, 0)->pos, 5);
	shmq_pub_close(c.pub);
	c.f->rec->evict_ns = 1;
	c.pub = open_pub(c.bus, STANDIN_TOPIC);
	for (uint64_t n = 0; n < FAKE_DEPTH + 5; n++)
		CHECK_EQ(publish_seq(c.pub), n);
	CHECK_EQ(standin_count(c.s, PROTO_REPORT), 1);
	req = standin_last(c.s, PROTO_REPORT);
	CHECK_EQ(req.report.kind, PROTO_REPORT_EVICT);
	CHECK_EQ(req.report.topic_id, c.f->rec->id);
	CHECK_EQ(req.report.handle, c.sub->token);
	CHECK_EQ(req.report.client, c.sub->client);
	CHECK_EQ(req.report.client_gen, c.sub->client_gen);
	CHECK_STR(req.topic, STANDIN_TOPIC);
	for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++)
		publish_seq(c.pub);
	CHECK_EQ(standin_count(c.s, PROTO_REPORT), 2);
	CHECK_EQ(standin_last(c.s, PROTO_REPORT).report.handle, second->token);
	CHECK_EQ(pub_stats(c.pub).dropped, 0);
	tear_down(&c);
}

static void say_nothing(struct standin_answer *a, void *arg)
{
	a->copies = 0;
}

TEST(evicting_needs_no_supervisor)
{
	for (int away = 0; away < 2; away++) {
		struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_EVICT }, NULL);

		shmq_pub_close(c.pub);
		c.f->rec->evict_ns = 1;
		c.pub = open_pub(c.bus, STANDIN_TOPIC, .wait = SHMQ_WAIT_SPIN);
		if (away)
			standin_leave(c.s);
		else
			standin_change_answers(c.s, PROTO_REPORT, say_nothing, NULL);
		for (uint64_t n = 0; n < 3 * FAKE_DEPTH; n++)
			CHECK_EQ(publish_seq(c.pub), n);
		tear_down(&c);
	}
}

static int just_ends(void *arg)
{
	return 0;
}

/* A client whose process has ended, but whom nobody has recovered. */
static unsigned dead_client(struct fake *f)
{
	struct lay_client *rec;
	unsigned id = fake_client(f, getpid());
	pid_t pid = test_spawn(just_ends, NULL);

	CHECK_EQ(test_join(pid), 0);
	rec = fake_client_record(f, id);
	store_relaxed(&rec->pid, (uint32_t)pid);
	return id;
}

TEST(a_dead_subscriber_holds_nobody_up_for_ever_while_the_supervisor_is_away)
{
	struct scene c = set_up(NULL, NULL);

	store_release(c.cursor, UINT64_C(1) << 30);
	fake_subscriber(c.f, dead_client(c.f), SHMQ_FROM_LATEST, 0);
	standin_leave(c.s);
	for (uint64_t n = 0; n < FAKE_DEPTH; n++)
		publish_seq(c.pub);
	store_release(c.cursor, FAKE_DEPTH);
	CHECK_EQ(publish_seq(c.pub), FAKE_DEPTH);
	CHECK_EQ(pub_stats(c.pub).blocked, 1);
	tear_down(&c);
}

/* ---- claims of others ------------------------------------------------------------ */

/* All of a lap but the first message, which stands claimed by that client. */
static uint64_t fill_behind_a_claim(struct scene *c, unsigned client)
{
	struct lay_member *m = fake_publisher(c->f, client);
	struct ring_writer w = fake_writer(c->f, m, 0);
	uint64_t seq, word;

	w.limit = w.next + FAKE_DEPTH;
	CHECK_EQ(shmq__ring_claim(&w, &seq, &word), RING_CLAIM_OK);
	store_release(c->cursor, seq + 1); /* as if it had gone past it */
	for (unsigned n = 1; n < FAKE_DEPTH; n++)
		publish_seq(c->pub);
	store_release(c->cursor, seq + FAKE_DEPTH);
	return seq;
}

static const struct fake_options shared = { .mode = SHMQ_SHARED };

TEST(a_claim_a_lap_ago_is_not_waited_for_by_who_must_not_wait)
{
	struct scene c = set_up(&shared, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	struct shmq_msg batch[4] = { { .data = "b", .len = 1 } };
	uint64_t seq = fill_behind_a_claim(&c, fake_client(c.f, getpid()));

	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ESTALLED);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_ESTALLED);
	CHECK_EQ(pub_stats(c.pub).dropped, 0);
	CHECK_EQ(head(&c), seq + FAKE_DEPTH);
	tear_down(&c);
}

TEST(a_claim_a_lap_ago_is_waited_for_as_long_as_a_full_ring)
{
	struct scene c = set_up(&shared, PUB_OPTIONS(.block_timeout_ns = MILLISECOND));
	struct shmq_msg batch[4] = { { .data = "b", .len = 1 } };

	fill_behind_a_claim(&c, fake_client(c.f, getpid()));
	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ETIMEOUT);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_ETIMEOUT);
	CHECK_EQ(pub_stats(c.pub).dropped, 2);
	tear_down(&c);
}

TEST(a_claim_a_lap_ago_that_lasts_is_reported_and_said_where_the_topic_says_so)
{
	struct scene c = set_up(&shared, NULL);
	uint64_t seq = fill_behind_a_claim(&c, fake_client(c.f, getpid()));
	struct proto_request req;

	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ESTALLED);
	CHECK_GE(standin_count(c.s, PROTO_REPORT), 1);
	req = standin_last(c.s, PROTO_REPORT);
	CHECK_EQ(req.report.kind, PROTO_REPORT_STUCK);
	CHECK_EQ(req.report.topic_id, c.f->rec->id);
	CHECK_EQ(req.report.partition, 0);
	CHECK_EQ(req.report.seq, seq);
	CHECK_EQ(req.report.word, word_of(&c, seq));
	tear_down(&c);
}

TEST(a_claim_a_lap_ago_of_a_dead_client_is_recovered_here)
{
	for (int batch = 0; batch < 2; batch++) {
		struct scene c = set_up(&shared, NULL);
		struct shmq_msg m[4] = { { .data = "b", .len = 1 } };
		uint64_t seq;

		for (int n = 0; n < 7; n++)
			publish_seq(c.pub);
		seq = fill_behind_a_claim(&c, dead_client(c.f));
		standin_leave(c.s);
		if (batch) {
			CHECK_EQ(shmq_publish_batch(c.pub, m, 4, SHMQ_ATOMIC), 4);
			CHECK_EQ(m[0].seq, seq + FAKE_DEPTH);
		} else {
			CHECK_EQ(publish_seq(c.pub), seq + FAKE_DEPTH);
		}
		CHECK_EQ(load_relaxed(&ring(&c, 0)->voids[0]), seq + 1);
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		tear_down(&c);
	}
}

struct end {
	struct scene *c;
	uint32_t state;
	pid_t tid;
};

static void *end_it(void *arg)
{
	struct end *e = arg;
	unsigned turns = 0;

	/* Credit is waited for asleep, a claim by looking. */
	while (e->tid && !load_acquire(&e->c->f->topic->ring[0].bells->credit.armed))
		fake_wait(&turns);
	fake_dawdle(100000);
	store_release(&ring(e->c, 0)->state, e->state);
	shmq__topic_ring_all(e->c->f->topic);
	return NULL;
}

TEST(the_end_of_the_ring_ends_every_wait)
{
	static const struct {
		uint32_t state;
		int error;
	} ends[] = { { LAY_RING_ENDED, SHMQ_EENDED }, { LAY_RING_MOVED, SHMQ_EMOVED } };

	for (size_t i = 0; i < 3 * COUNT(ends); i++) {
		struct scene c = set_up(&shared, NULL);
		struct end e = { .c = &c, .state = ends[i / 3].state, .tid = i % 3 != 0 };
		struct shmq_msg batch[4] = { { .data = "b", .len = 1 } };
		pthread_t thread;

		if (i % 3)
			for (unsigned n = 0; n < FAKE_DEPTH; n++)
				publish_seq(c.pub);
		else
			fill_behind_a_claim(&c, fake_client(c.f, getpid()));
		thread = fake_thread(end_it, &e);
		CHECK_ERROR(i % 3 == 2 ? shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC) :
					 shmq_publish(c.pub, "x", 1),
			    ends[i / 3].error);
		fake_join(thread);
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		tear_down(&c);
	}
}

TEST(after_the_end_a_publish_says_so_whichever_way_it_goes)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 2,
							.max_bytes = 1000,
							.arena_bytes = 1 << 16 },
				NULL);
	struct shmq_msg m = { .data = "m", .len = 1 }, batch[2] = { m, m };
	void *data;

	store_release(&ring(&c, 0)->state, LAY_RING_ENDED);
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 2, 0), SHMQ_EENDED);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 2, SHMQ_ATOMIC), SHMQ_EENDED);
	CHECK_OK(shmq_claim(c.pub, 900, &data));
	CHECK_ERROR(shmq_commit(c.pub, &m), SHMQ_EENDED);
	m.partition = 1;
	store_release(&ring(&c, 1)->state, LAY_RING_MOVED);
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EMOVED);
	tear_down(&c);
}

/* A word that no publisher can have left: laps behind what the ring has. */
TEST(a_slot_that_cannot_be_is_corrupt_and_nothing_is_written)
{
	struct scene c = set_up(&shared, NULL);
	struct shmq_msg batch[2] = { { .data = "b", .len = 1 } };
	uint64_t word;

	for (unsigned n = 0; n < FAKE_DEPTH; n++)
		publish_seq(c.pub);
	store_release(c.cursor, FAKE_DEPTH);
	store_release(fake_ctrl(ring(&c, 0), &c.f->geo, 0), LAY_CTRL(UINT64_MAX, 3, LAY_COMMITTED));
	word = word_of(&c, 0);
	CHECK_ERROR(shmq_publish(c.pub, "x", 1), SHMQ_ECORRUPT);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 2, SHMQ_ATOMIC), SHMQ_ECORRUPT);
	CHECK_EQ(word_of(&c, 0), word);
	tear_down(&c);
}

/* ---- messages ------------------------------------------------------------------------ */

TEST(a_message_that_cannot_be_is_refused_and_the_next_goes)
{
	struct scene c = set_up(&(struct fake_options){ .partitions = 2,
							.max_bytes = 1 << 20,
							.arena_bytes = 1 << 22 },
				NULL);
	static char big[(1 << 20) + 1];
	struct iovec endless[2] = { { big, SIZE_MAX - 5 }, { big, 6 } };
	struct shmq_msg m = { .data = big, .len = 1 };

	CHECK_ERROR(shmq_publish(c.pub, big, sizeof(big)), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish(c.pub, big, SIZE_MAX), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish_iov(c.pub, &m, endless, 2), SHMQ_ETOOBIG);
	endless[0].iov_len = SIZE_MAX - 5;
	m.key = "k";
	m.key_len = 10; /* and META: more than there are numbers */
	CHECK_ERROR(shmq_publish_iov(c.pub, &m, endless, 1), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_publish_iov(c.pub, &m, endless, -1), SHMQ_EOPTION);
	m.key_len = UINT16_MAX + 1;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	m.key_len = 0;
	m.properties_len = UINT16_MAX + 1;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	m.properties_len = 0;
	m.partition = 2;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	m.partition = -2;
	CHECK_ERROR(shmq_publish_msg(c.pub, &m), SHMQ_EOPTION);
	CHECK_EQ(head(&c), 0);
	m.partition = 0;
	m.key = m.properties = big;
	m.key_len = m.properties_len = UINT16_MAX;
	CHECK_OK(shmq_publish_msg(c.pub, &m));
	CHECK_OK(shmq_publish_iov(c.pub, &m, NULL, 0));
	CHECK_EQ(head(&c), 2);
	CHECK_EQ(pub_stats(c.pub).dropped, 0);
	tear_down(&c);
}

TEST(the_partition_is_the_one_named_or_the_key_s_or_each_in_turn)
{
	enum { PARTITIONS = 5 };
	struct scene c = set_up(&(struct fake_options){ .partitions = PARTITIONS }, NULL);
	unsigned by_key[PARTITIONS] = { 0 };
	struct shmq_msg batch[7] = { 0 };

	for (int n = 0; n < 2 * PARTITIONS; n++) {
		struct shmq_msg m = { .data = "m", .len = 1, .partition = SHMQ_ANY_PARTITION };

		CHECK_OK(shmq_publish_msg(c.pub, &m));
		CHECK_EQ(m.partition, n % PARTITIONS);
		CHECK_EQ(m.seq, n / PARTITIONS + (m.partition == 3 ? n : 0));
		m = (struct shmq_msg){
			.data = "m", .len = 1, .partition = 3, .key = "k", .key_len = 1
		};
		CHECK_OK(shmq_publish_msg(c.pub, &m));
		CHECK_EQ(m.partition, 3);
	}
	for (int n = 0; n < 500; n++) {
		struct shmq_msg m = { .key = &n,
				      .key_len = sizeof(n),
				      .partition = SHMQ_ANY_PARTITION };
		int32_t first;

		CHECK_OK(shmq_publish_msg(c.pub, &m));
		first = m.partition;
		by_key[first]++;
		m.partition = SHMQ_ANY_PARTITION;
		CHECK_OK(shmq_publish_msg(c.pub, &m));
		CHECK_EQ(m.partition, first);
		for (uint32_t p = 0; p < PARTITIONS; p++) /* everybody reads on */
			store_release(&fake_entry(c.f, c.sub, p)->pos,
				      shmq__topic_head(&c.f->topic->ring[p]));
	}
	for (int p = 0; p < PARTITIONS; p++)
		CHECK_GT(by_key[p], 500 / PARTITIONS / 2);
	for (int i = 0; i < 7; i++)
		batch[i].partition = i == 2 ? 4 : SHMQ_ANY_PARTITION;
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 7, 0), 7);
	for (int i = 0, turn = 0; i < 7; i++)
		CHECK_EQ(batch[i].partition, i == 2 ? 4 : turn++ % PARTITIONS);
	batch[0].partition = SHMQ_ANY_PARTITION;
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 7, SHMQ_ATOMIC), 7);
	for (int i = 0; i < 7; i++)
		CHECK_EQ(batch[i].partition, 6 % PARTITIONS);
	tear_down(&c);
}

static struct lay_slot_extra extra_of(const struct scene *c, uint64_t seq)
{
	const struct lay_slot *slot = lay_slot_at(ring(c, 0), &c->f->geo, seq);
	struct lay_slot_extra extra;

	memcpy(&extra, slot + 1, sizeof(extra));
	return extra;
}

TEST(tags_and_times_are_those_given_or_the_key_s_hash_and_now)
{
	struct scene c = set_up(&(struct fake_options){ .flags = SHMQ_TOPIC_TAG | SHMQ_TOPIC_TIME,
							.slot_bytes = 128 },
				NULL);
	struct shmq_msg m = { .key = "key", .key_len = 3 }, batch[3] = { { .ts_ns = 9 } };
	uint64_t then = shmq__clock_realtime_ns();

	CHECK_OK(shmq_publish_msg(c.pub, &m));
	CHECK_EQ(extra_of(&c, 0).tag, XXH3_64bits("key", 3));
	CHECK_GE(extra_of(&c, 0).ts, then);
	CHECK_EQ(m.ts_ns, extra_of(&c, 0).ts);
	m.tag = 5;
	m.ts_ns = 6;
	CHECK_OK(shmq_publish_msg(c.pub, &m));
	CHECK_EQ(extra_of(&c, 1).tag, 5);
	CHECK_EQ(extra_of(&c, 1).ts, 6);
	CHECK_OK(shmq_publish(c.pub, "m", 1));
	CHECK_EQ(extra_of(&c, 2).tag, 0);
	CHECK_GE(extra_of(&c, 2).ts, then);
	/* A batch reads the clock once, and not for who brings a time. */
	for (int atomic = 0; atomic < 2; atomic++) {
		batch[1].ts_ns = batch[2].ts_ns = 0;
		CHECK_EQ(shmq_publish_batch(c.pub, batch, 3, atomic ? SHMQ_ATOMIC : 0), 3);
		CHECK_EQ(extra_of(&c, batch[0].seq).ts, 9);
		CHECK_GE(extra_of(&c, batch[1].seq).ts, then);
		CHECK_EQ(extra_of(&c, batch[2].seq).ts, extra_of(&c, batch[1].seq).ts);
		CHECK_EQ(batch[1].ts_ns, extra_of(&c, batch[1].seq).ts);
	}
	tear_down(&c);
}

/* ---- batches ----------------------------------------------------------------------------- */

static void fill_batch(struct shmq_msg *batch, size_t n, size_t len)
{
	static char bytes[1 << 16];

	for (size_t i = 0; i < n; i++)
		batch[i] = (struct shmq_msg){ .data = bytes, .len = len };
}

TEST(a_batch_goes_as_far_as_it_can_or_not_at_all)
{
	struct scene c = set_up(NULL, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	struct shmq_msg batch[FAKE_DEPTH + 1];

	fill_batch(batch, COUNT(batch), 40);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 1, 2), SHMQ_EOPTION);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 0, 0), 0);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 0, SHMQ_ATOMIC), 0);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, FAKE_DEPTH / 4 + 1, SHMQ_ATOMIC), SHMQ_EBATCH);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 1, SHMQ_ATOMIC), SHMQ_ETOOBIG);
	fill_batch(batch, COUNT(batch), 32); /* what the prefix leaves */
	batch[3].len = 33;
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_ETOOBIG);
	batch[3].len = 49;
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 10, 0), 3);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch + 3, 7, 0), SHMQ_ETOOBIG);
	batch[3].len = 32;
	CHECK_EQ(head(&c), 3);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, FAKE_DEPTH / 4, SHMQ_ATOMIC), FAKE_DEPTH / 4);
	CHECK_EQ(batch[0].seq, 3);
	CHECK_EQ(batch[FAKE_DEPTH / 4 - 1].seq, 3 + FAKE_DEPTH / 4 - 1);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, COUNT(batch), 0),
		 FAKE_DEPTH - FAKE_DEPTH / 4 - 3);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 5, 0), SHMQ_EFULL);
	store_release(c.cursor, 3);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 4, SHMQ_ATOMIC), SHMQ_EFULL);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 3, SHMQ_ATOMIC), 3);
	tear_down(&c);
}

/* Two that hold half of what the other needs would wait for ever. */
TEST(a_shared_batch_that_meets_its_limit_gives_back_what_it_claimed)
{
	struct scene c = set_up(&shared, PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	shmq_pub *other = open_pub(c.bus, STANDIN_TOPIC);
	struct shmq_msg batch[100];

	fill_batch(batch, COUNT(batch), 1);
	CHECK_EQ(publish_seq(c.pub), 0); /* its limit is known, where it is is not */
	for (unsigned n = 1; n < FAKE_DEPTH - 50; n++)
		publish_seq(other);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, 100, SHMQ_ATOMIC), SHMQ_EFULL);
	/* 50 were claimed on the way: holes now, that nobody counts as lost. */
	CHECK_EQ(load_relaxed(&ring(&c, 0)->void_count), 50);
	for (uint64_t n = FAKE_DEPTH - 50; n < FAKE_DEPTH; n++)
		CHECK_EQ(LAY_CTRL_STATE(word_of(&c, n)), LAY_VOID);
	CHECK_EQ(pub_stats(c.pub).dropped, 1);
	store_release(c.cursor, FAKE_DEPTH);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, 100, SHMQ_ATOMIC), 100);
	CHECK_EQ(batch[0].seq, FAKE_DEPTH);
	shmq_pub_close(other);
	tear_down(&c);
}

TEST(a_batch_that_finds_no_memory_sends_nothing_and_the_next_goes)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1000, .arena_bytes = 1 << 20 }, NULL);
	struct shmq_msg batch[100];
	unsigned k;
	int met = 1;

	fill_batch(batch, COUNT(batch), 1000);
	for (k = 1; met; k++) {
		ssize_t rc;

		scarce_begin(k);
		rc = shmq_publish_batch(c.pub, batch, COUNT(batch), SHMQ_ATOMIC);
		met = scarce_end();
		CHECK_EQ(rc, met ? -ENOMEM : (ssize_t)COUNT(batch));
		CHECK_EQ(head(&c), met ? 0 : COUNT(batch));
	}
	CHECK_GE(k, 4); /* the batch, the arena's book and more of it */
	tear_down(&c);
}

/* ---- zero-copy ------------------------------------------------------------------------------ */

TEST(a_claim_is_open_once_and_closed_once)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1000, .arena_bytes = 1 << 16 }, NULL);
	struct shmq_msg m = { .len = 1001 }, keyed = { .key = "k", .key_len = 1 },
			with = { .properties = "p", .properties_len = 1 },
			there = { .partition = 1 };
	void *data, *again;

	CHECK_ERROR(shmq_commit(c.pub, NULL), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_abort(c.pub), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_claim(c.pub, 1001, &data), SHMQ_ETOOBIG);
	CHECK_OK(shmq_claim(c.pub, 1000, &data));
	CHECK_ERROR(shmq_claim(c.pub, 1, &again), SHMQ_ECLAIM);
	CHECK_ERROR(shmq_commit(c.pub, &m), SHMQ_ETOOBIG);
	CHECK_ERROR(shmq_commit(c.pub, &keyed), SHMQ_EOPTION);
	CHECK_ERROR(shmq_commit(c.pub, &with), SHMQ_EOPTION);
	CHECK_ERROR(shmq_commit(c.pub, &there), SHMQ_EOPTION);
	memset(data, 7, 1000);
	m.len = 10; /* shortened so that it would fit a slot: it is where it is */
	CHECK_OK(shmq_commit(c.pub, &m));
	CHECK_EQ(m.seq, 0);
	CHECK_EQ(lay_slot_at(ring(&c, 0), &c.f->geo, 0)->flags, SHMQ_MSG_ARENA);
	CHECK_EQ(lay_slot_at(ring(&c, 0), &c.f->geo, 0)->len, 10);
	CHECK_ERROR(shmq_commit(c.pub, NULL), SHMQ_ECLAIM);
	CHECK_OK(shmq_claim(c.pub, 0, &data));
	CHECK_OK(shmq_commit(c.pub, NULL));
	CHECK_OK(shmq_claim(c.pub, 20, &data));
	CHECK_OK(shmq_abort(c.pub));
	CHECK_ERROR(shmq_abort(c.pub), SHMQ_ECLAIM);
	CHECK_EQ(head(&c), 2);
	tear_down(&c);
}

TEST(an_aborted_claim_gives_its_bytes_back_at_once_or_when_they_come_round)
{
	enum { BYTES = 1024, PIECES = 4 };
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = BYTES, .arena_bytes = PIECES * BYTES },
		       PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	static char bytes[BYTES];
	void *first, *again;

	CHECK_OK(shmq_claim(c.pub, BYTES, &first));
	CHECK_OK(shmq_abort(c.pub));
	CHECK_OK(shmq_claim(c.pub, BYTES, &again));
	CHECK(first == again);
	for (int i = 1; i < PIECES; i++) /* behind it */
		CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	/* Its own bytes come next: it says so. */
	CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_ECLAIM);
	CHECK_OK(shmq_abort(c.pub));
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_EFULL); /* unread */
	store_release(c.cursor, 2);
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
	CHECK_ERROR(shmq_claim(c.pub, BYTES, &first), SHMQ_EFULL);
	CHECK_EQ(LAY_CTRL_STATE(word_of(&c, 1)), LAY_GONE);
	CHECK_EQ(LAY_CTRL_STATE(word_of(&c, 2)), LAY_COMMITTED);
	CHECK_EQ(pub_stats(c.pub).dropped, 2);
	tear_down(&c);
}

TEST(a_batch_that_its_arena_cannot_hold_gives_back_what_it_took)
{
	enum { BYTES = 1024, PIECES = 4 };
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = BYTES, .arena_bytes = PIECES * BYTES },
		       NULL);
	struct shmq_msg batch[PIECES + 1];

	fill_batch(batch, COUNT(batch), BYTES);
	CHECK_ERROR(shmq_publish_batch(c.pub, batch, PIECES + 1, SHMQ_ATOMIC), SHMQ_EBATCH);
	CHECK_EQ(head(&c), 0);
	CHECK_EQ(shmq_publish_batch(c.pub, batch, PIECES, SHMQ_ATOMIC), PIECES);
	tear_down(&c);
}

TEST(an_arena_message_that_finds_the_ring_full_gives_its_bytes_back)
{
	struct scene c = set_up(&(struct fake_options){ .max_bytes = 4096, .arena_bytes = 4096 },
				PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
	static char bytes[4096];
	void *data;

	CHECK_EQ(publish_all(c.pub, SHMQ_EFULL), FAKE_DEPTH);
	for (int n = 0; n < 3; n++)
		CHECK_ERROR(shmq_publish(c.pub, bytes, sizeof(bytes)), SHMQ_EFULL);
	CHECK_OK(shmq_claim(c.pub, 4096, &data));
	CHECK_ERROR(shmq_commit(c.pub, NULL), SHMQ_EFULL);
	store_release(c.cursor, 1);
	CHECK_OK(shmq_commit(c.pub, NULL)); /* the claim was still open */
	CHECK_EQ(pub_stats(c.pub).dropped, 5);
	tear_down(&c);
}

/* What a predecessor left in the ring is found where it lies in its arena. */
TEST(an_arena_is_taken_over_with_what_lies_in_it_at_every_wrap)
{
	enum { BYTES = 1024, PIECES = 8 };

	for (size_t i = 0; i < COUNT(bases); i++) {
		struct scene c = set_up(&(struct fake_options){ .base_seq = bases[i],
								.max_bytes = BYTES,
								.arena_bytes = PIECES * BYTES },
					PUB_OPTIONS(.flags = SHMQ_DONTWAIT));
		static char bytes[BYTES];
		struct shmq_msg batch[2];

		/* One round of the ring, so that there is no going by the base. */
		for (unsigned n = 0; n < FAKE_DEPTH; n++) {
			CHECK_EQ(publish_seq(c.pub), bases[i] + n);
			store_release(c.cursor, bases[i] + n + 1);
		}
		for (int n = 0; n < 3; n++)
			CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_OK(shmq_publish(c.pub, bytes, 10));
		fill_batch(batch, 2, BYTES);
		CHECK_EQ(shmq_publish_batch(c.pub, batch, 2, SHMQ_ATOMIC), 2);
		shmq_pub_close(c.pub);
		c.pub = open_pub(c.bus, STANDIN_TOPIC, .flags = SHMQ_DONTWAIT);
		CHECK_EQ(c.f->arenas, 1);
		for (int n = 0; n < PIECES - 5; n++)
			CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_EFULL);
		store_release(c.cursor, bases[i] + FAKE_DEPTH + 1);
		CHECK_OK(shmq_publish(c.pub, bytes, BYTES));
		CHECK_ERROR(shmq_publish(c.pub, bytes, BYTES), SHMQ_EFULL);
		CHECK_EQ(LAY_CTRL_STATE(word_of(&c, bases[i] + FAKE_DEPTH)), LAY_GONE);
		tear_down(&c);
	}
}

/* ---- flush and company -------------------------------------------------------------------------
 */

TEST(a_flush_waits_for_those_attached_and_only_for_what_was_sent)
{
	static const enum shmq_policy policies[] = { SHMQ_BLOCK, SHMQ_DROP_NEW, SHMQ_EVICT };

	for (size_t i = 0; i < COUNT(policies) * COUNT(bases); i++) {
		uint64_t base = bases[i / COUNT(policies)];
		struct scene c = set_up(&(struct fake_options){ .policy = policies[i % 3],
								.base_seq = base },
					NULL);

		store_release(c.cursor, base - 1); /* behind all there is, and still */
		CHECK_OK(shmq_flush(c.pub, SHMQ_NOWAIT));
		store_release(c.cursor, base);
		publish_seq(c.pub);
		CHECK_ERROR(shmq_flush(c.pub, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
		CHECK_ERROR(shmq_flush(c.pub, 1), SHMQ_ETIMEOUT);
		publish_seq(c.pub);
		store_release(c.cursor, base + 1);
		CHECK_ERROR(shmq_flush(c.pub, 1), SHMQ_ETIMEOUT);
		store_release(c.cursor, base + 2);
		CHECK_OK(shmq_flush(c.pub, SHMQ_NOWAIT));
		publish_seq(c.pub);
		shmq__topic_remove_member(c.f->topic, c.sub);
		CHECK_OK(shmq_flush(c.pub, SHMQ_FOREVER));
		CHECK_EQ(standin_count(c.s, PROTO_REPORT), 0); /* nobody was evicted for it */
		CHECK_EQ(pub_stats(c.pub).dropped, 0);
		tear_down(&c);
	}
}

TEST(a_flush_changes_nothing_of_how_the_publisher_waits_otherwise)
{
	struct scene c = set_up(&(struct fake_options){ .policy = SHMQ_DROP_NEW }, NULL);

	publish_seq(c.pub);
	CHECK_ERROR(shmq_flush(c.pub, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_EQ(publish_all(c.pub, SHMQ_EFULL), FAKE_DEPTH - 1); /* at once */
	store_release(&ring(&c, 0)->state, LAY_RING_ENDED);
	CHECK_ERROR(shmq_flush(c.pub, SHMQ_FOREVER), SHMQ_EENDED);
	tear_down(&c);
}

static void *announce_one(void *arg)
{
	struct scene *c = arg;

	add_relaxed(&c->f->rec->subscribers, 1);
	shmq__topic_announce(c->f->topic);
	return NULL;
}

static void *end_topic(void *arg)
{
	struct scene *c = arg;

	shmq__topic_end(c->f->topic);
	return NULL;
}

TEST(subscribers_are_waited_for_until_they_come_or_the_topic_ends)
{
	struct scene c = set_up(NULL, NULL);
	pthread_t thread;

	CHECK_OK(shmq_pub_wait_subscribers(c.pub, 0, SHMQ_NOWAIT));
	CHECK_ERROR(shmq_pub_wait_subscribers(c.pub, 1, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
	CHECK_ERROR(shmq_pub_wait_subscribers(c.pub, 1, MILLISECOND), SHMQ_ETIMEOUT);
	thread = fake_thread(announce_one, &c);
	CHECK_OK(shmq_pub_wait_subscribers(c.pub, 1, SHMQ_FOREVER));
	fake_join(thread);
	thread = fake_thread(end_topic, &c);
	CHECK_ERROR(shmq_pub_wait_subscribers(c.pub, 2, SHMQ_FOREVER), SHMQ_EENDED);
	fake_join(thread);
	CHECK_OK(shmq_pub_wait_subscribers(c.pub, 1, SHMQ_NOWAIT));
	tear_down(&c);
}

/* ---- bells
 * ------------------------------------------------------------------------------------------ */

TEST(a_sleeper_is_woken_once_by_whoever_is_to_wake_it)
{
	for (int i = 0; i < 3; i++) {
		struct scene c =
			set_up(&(struct fake_options){ .flags = i == 2 ? SHMQ_TOPIC_SPIN_ONLY : 0 },
			       PUB_OPTIONS(.wake = i == 1 ? SHMQ_WAKE_DEFERRED : 0,
					   .wake_ns = PATIENCE, .wait = SHMQ_WAIT_SLEEP));
		struct lay_bell *bell = &c.f->topic->ring[0].bells->data;

		shmq__bell_arm(bell, SHMQ__FENCE_FULL);
		publish_seq(c.pub);
		publish_seq(c.pub);
		CHECK_EQ(load_relaxed(&bell->word), i == 0);
		CHECK_EQ(pub_stats(c.pub).wakes, i == 0);
		if (i < 2) { /* flush rings for those who defer, too */
			CHECK_ERROR(shmq_flush(c.pub, SHMQ_NOWAIT), SHMQ_ETIMEOUT);
			CHECK_EQ(load_relaxed(&bell->word), 1);
			shmq__bell_arm(bell, SHMQ__FENCE_FULL);
			publish_seq(c.pub);
			shmq_pub_close(c.pub); /* and so does closing */
			CHECK_EQ(load_relaxed(&bell->word), 2);
			c.pub = NULL;
		}
		tear_down(&c);
	}
}

TEST(on_a_topic_where_nobody_may_sleep_a_publisher_waits_by_spinning)
{
	static const enum shmq_wait modes[] = { 0, SHMQ_WAIT_ADAPTIVE, SHMQ_WAIT_SLEEP,
						SHMQ_WAIT_YIELD };

	for (size_t i = 0; i < COUNT(modes); i++) {
		struct scene c =
			set_up(&(struct fake_options){ .flags = SHMQ_TOPIC_SPIN_ONLY },
			       PUB_OPTIONS(.block_timeout_ns = 2 * MILLISECOND, .wait = modes[i]));

		CHECK_EQ(publish_all(c.pub, SHMQ_ETIMEOUT), FAKE_DEPTH);
		CHECK_EQ(load_relaxed(&c.f->topic->ring[0].bells->credit.armed), 0);
		tear_down(&c);
	}
}

/* ---- a forked child
 * ------------------------------------------------------------------------------------ */

static int refuses(void *arg)
{
	struct scene *c = arg;
	struct shmq_msg m = { .data = "m", .len = 1 };
	void *data;

	CHECK_ERROR(shmq_publish(c->pub, "x", 1), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish(c->pub, "x", SIZE_MAX), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_msg(c->pub, &m), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_iov(c->pub, &m, NULL, -1), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_batch(c->pub, &m, 1, 99), SHMQ_EFORKED);
	CHECK_ERROR(shmq_claim(c->pub, 1, &data), SHMQ_EFORKED);
	CHECK_ERROR(shmq_commit(c->pub, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_abort(c->pub), SHMQ_EFORKED);
	CHECK_ERROR(shmq_flush(c->pub, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_ERROR(shmq_pub_wait_subscribers(c->pub, 9, SHMQ_FOREVER), SHMQ_EFORKED);
	CHECK_EQ(pub_stats(c->pub).sent, 0);
	shmq_pub_close(c->pub);
	shmq_bus_close(c->bus);
	return 0;
}

TEST(a_child_publishes_nothing)
{
	struct scene c =
		set_up(&(struct fake_options){ .max_bytes = 1000, .arena_bytes = 1 << 16 }, NULL);

	publish_seq(c.pub);
	CHECK_EQ(test_join(test_spawn(refuses, &c)), 0);
	CHECK_EQ(standin_count(c.s, PROTO_CLOSE), 0);
	CHECK_EQ(publish_seq(c.pub), 1);
	CHECK_EQ(pub_stats(c.pub).sent, 2);
	tear_down(&c);
}
