/* SPDX-License-Identifier: MIT
 *
 * Listeners: in order, one callback at a time, none after the stop, from wherever that
 * is asked, on a thread of the library's and on a pool of the test's.
 */
#include "helpers.h"

#include <pthread.h>

enum { MANY = 20000, WORKERS = 3 };

static shmq_bus *bus, *other;

/* ---- a pool ---------------------------------------------------------- */

struct pool {
	pthread_t thread[WORKERS];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct {
		void (*run)(void *task);
		void *task;
	} queue[256];
	unsigned first, count;
	int stop;
	_Atomic int refuse; /* so many times */
	_Atomic unsigned executed;
};

static void *work(void *arg)
{
	struct pool *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stop || p->count) {
		unsigned i = p->first;

		if (!p->count) {
			pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		p->first = (p->first + 1) % COUNT(p->queue);
		p->count--;
		pthread_mutex_unlock(&p->lock);
		p->queue[i].run(p->queue[i].task);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int execute(void *pool, void (*run)(void *task), void *task)
{
	struct pool *p = pool;
	unsigned i;

	if (atomic_load(&p->refuse) > 0) {
		atomic_fetch_sub(&p->refuse, 1);
		return -1;
	}
	atomic_fetch_add(&p->executed, 1);
	pthread_mutex_lock(&p->lock);
	CHECK_LT(p->count, COUNT(p->queue));
	i = (p->first + p->count++) % COUNT(p->queue);
	p->queue[i].run = run;
	p->queue[i].task = task;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int execute_here(void *pool, void (*run)(void *task), void *task)
{
	(void)pool;
	run(task);
	return 0;
}

static void pool_start(struct pool *p)
{
	int i;

	memset(p, 0, sizeof(*p));
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	for (i = 0; i < WORKERS; i++)
		CHECK_EQ(pthread_create(&p->thread[i], NULL, work, p), 0);
}

static void pool_stop(struct pool *p)
{
	int i;

	pthread_mutex_lock(&p->lock);
	p->stop = 1;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	for (i = 0; i < WORKERS; i++)
		pthread_join(p->thread[i], NULL);
}

static struct pool pool;

/* ---- what is heard --------------------------------------------------- */

struct heard {
	_Atomic uint64_t count, lost;
	_Atomic int inside, error, errors, stopped, stopper;
	uint64_t next;
	shmq_listener *listener;
	/* What to do at that message: */
	uint64_t at;
	enum { NOTHING, STOP, STOP_AND_CLOSE, ENOUGH, HANG, END_THREAD } then;
	int stopped_by_itself;
	_Atomic int stage;
};

static int message(void *arg, shmq_sub *sub, const struct shmq_msg *msg)
{
	struct heard *h = arg;
	uint64_t value;
	int rc;

	CHECK_EQ(atomic_exchange(&h->inside, 1), 0);
	CHECK_EQ(atomic_load(&h->stopped), 0);
	CHECK_EQ(msg->len, sizeof(value));
	memcpy(&value, msg->data, sizeof(value));
	CHECK_GE(value, h->next);
	h->next = value + 1;
	atomic_fetch_add(&h->count, 1);
	if (h->then == HANG && value == h->at) {
		reach(&h->stage, 1);
		await(&h->stage, 2);
	}
	if (h->then == STOP && value == h->at) {
		shmq_listener_stop(h->listener);
		atomic_store(&h->stopped, 1);
	}
	if (h->then == STOP_AND_CLOSE && value == h->at) {
		shmq_sub_close(sub);
		atomic_store(&h->stopped, 1);
	}
	rc = h->then == ENOUGH && value == h->at;
	if (h->then == END_THREAD && h->stopped_by_itself)
		shmq_listener_stop(h->listener);
	atomic_store(&h->inside, 0); /* the last look at it */
	if (h->then == END_THREAD)
		pthread_exit(NULL);
	return rc;
}

static void failed(void *arg, shmq_sub *sub, int error, const struct shmq_msg *msg)
{
	struct heard *h = arg;

	(void)sub;
	CHECK_EQ(atomic_exchange(&h->inside, 1), 0);
	CHECK_EQ(atomic_load(&h->stopped), 0);
	if (error == SHMQ_EOVERRUN)
		atomic_fetch_add(&h->lost, msg->lost);
	else
		atomic_store(&h->error, error);
	atomic_fetch_add(&h->errors, 1);
	atomic_store(&h->inside, 0);
}

static void listen_by(shmq_sub *sub, struct heard *h,
		      int (*by)(void *pool, void (*run)(void *task), void *task))
{
	const struct shmq_listener_options options = { .size = sizeof(options),
						       .message = message,
						       .error = failed,
						       .arg = h,
						       .execute = by,
						       .pool = &pool };

	CHECK_OK(shmq_listener_start(sub, &options, &h->listener));
}

static void await_count(struct heard *h, uint64_t want)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (atomic_load(&h->count) < want) {
		if (test_now_ns() > deadline)
			FAIL("%llu of %llu", (unsigned long long)atomic_load(&h->count),
			     (unsigned long long)want);
		test_sleep_ms(1);
	}
}

static void await_error(struct heard *h, int want)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (!atomic_load(&h->error) && test_now_ns() < deadline)
		test_sleep_ms(1);
	CHECK_ERROR(atomic_load(&h->error), want);
}

static void send(shmq_pub *pub, uint64_t from, uint64_t to)
{
	for (; from < to; from++)
		CHECK_OK(shmq_publish(pub, &from, sizeof(from)));
}

static void set_up(void)
{
	test_bus_start();
	bus = test_bus_open();
	other = test_bus_open();
	pool_start(&pool);
}

static void tear_down(void)
{
	pool_stop(&pool);
	shmq_bus_close(other);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* On its own thread, on the pool, and on that of an executor that runs it itself. */
static int (*const ways[])(void *pool, void (*run)(void *task), void *task) = { NULL, execute,
										execute_here };

TEST(messages_come_in_order_one_at_a_time)
{
	struct heard h[COUNT(ways)];
	shmq_sub *sub[COUNT(ways)];
	shmq_pub *pub;
	unsigned i;

	set_up();
	memset(h, 0, sizeof(h));
	create(bus, "t", .depth = 1024);
	for (i = 0; i < COUNT(ways); i++) {
		sub[i] = open_sub(bus, "t");
		listen_by(sub[i], &h[i], ways[i]);
	}
	pub = open_pub(other, "t");
	send(pub, 0, MANY / 2);
	for (i = 0; i < COUNT(ways); i++)
		await_count(&h[i], MANY / 2);
	send(pub, MANY / 2, MANY);
	for (i = 0; i < COUNT(ways); i++) {
		await_count(&h[i], MANY);
		shmq_listener_stop(h[i].listener);
		CHECK_EQ(h[i].next, MANY);
		CHECK_EQ(atomic_load(&h[i].errors), 0);
		shmq_sub_close(sub[i]);
	}
	shmq_pub_close(pub);
	tear_down();
}

/* What comes later is the subscriber's to receive again. */
TEST(a_stop_ends_it_whether_it_sleeps_or_is_busy)
{
	static const enum shmq_wait waits[] = { SHMQ_WAIT_ADAPTIVE, SHMQ_WAIT_SLEEP, SHMQ_WAIT_SPIN,
						SHMQ_WAIT_YIELD };
	unsigned i, k;
	struct shmq_msg msg;
	uint64_t value, sent = 0;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	for (k = 0; k < COUNT(ways); k++)
		for (i = 0; i < COUNT(waits); i++) {
			struct heard h = { .next = sent };
			shmq_sub *sub = open_sub(bus, "t", .wait = waits[i]);

			listen_by(sub, &h, ways[k]);
			if (waits[i] == SHMQ_WAIT_SLEEP && !ways[k])
				await_sleepers(bus, "t", SHMQ_ROLE_SUBSCRIBER, 1);
			shmq_listener_stop(h.listener);
			listen_by(sub, &h, ways[k]);
			send(pub, sent, sent + 100);
			await_count(&h, 1);
			shmq_listener_stop(h.listener);
			sent += 100;
			send(pub, sent, sent + 1);
			do {
				CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
				memcpy(&value, msg.data, sizeof(value));
				CHECK_EQ(value, h.next++);
			} while (value < sent);
			sent++;
			shmq_sub_close(sub);
		}
	shmq_pub_close(pub);
	tear_down();
}

static void *stops(void *arg)
{
	struct heard *h = arg;

	atomic_store(&h->stopper, gettid());
	shmq_listener_stop(h->listener);
	CHECK_EQ(atomic_load(&h->inside), 0);
	atomic_store(&h->stopped, 1);
	return NULL;
}

static int sleeps(int tid)
{
	char path[64], state = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	in = fopen(path, "re");
	CHECK(in);
	CHECK_EQ(fscanf(in, "%*s %*s %c", &state), 1);
	CHECK_OK(fclose(in));
	return state == 'S';
}

TEST(a_stop_waits_for_the_callback_that_runs)
{
	unsigned k;

	set_up();
	for (k = 0; k < COUNT(ways); k++) {
		struct heard h = { .then = HANG, .at = 3 };
		char name[] = { 't', (char)('0' + k), 0 };
		pthread_t thread;
		shmq_sub *sub;
		shmq_pub *pub;

		create(bus, name, .depth = 1024);
		pub = open_pub(other, name);
		sub = open_sub(bus, name);
		listen_by(sub, &h, ways[k]);
		send(pub, 0, 10);
		await(&h.stage, 1);
		CHECK_EQ(pthread_create(&thread, NULL, stops, &h), 0);
		while (!atomic_load(&h.stopper) || !sleeps(h.stopper))
			test_sleep_ms(1);
		CHECK_EQ(atomic_load(&h.stopped), 0);
		CHECK_EQ(atomic_load(&h.inside), 1);
		reach(&h.stage, 2);
		pthread_join(thread, NULL);
		CHECK_EQ(atomic_load(&h.count), 4);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	tear_down();
}

TEST(a_callback_stops_it_and_closes_its_subscriber)
{
	unsigned k, round;

	set_up();
	create(bus, "t", .depth = 1024);
	for (k = 0; k < COUNT(ways); k++)
		for (round = 0; round < 20; round++) {
			struct heard h = { .then = round % 2 ? STOP : STOP_AND_CLOSE, .at = 5 };
			shmq_pub *pub = open_pub(other, "t");
			shmq_sub *sub = open_sub(bus, "t");

			listen_by(sub, &h, ways[k]);
			send(pub, 0, 10);
			while (!atomic_load(&h.stopped) || atomic_load(&h.inside))
				test_sleep_ms(1);
			CHECK_EQ(atomic_load(&h.count), 6);
			if (h.then == STOP)
				shmq_sub_close(sub);
			shmq_pub_close(pub);
		}
	/* Their threads may be on their last steps yet. */
	tear_down();
}

TEST(a_callback_that_has_enough_is_called_no_more)
{
	unsigned k;

	set_up();
	create(bus, "t", .depth = 1024);
	for (k = 0; k < COUNT(ways); k++) {
		struct heard h = { .then = ENOUGH, .at = 2 };
		shmq_pub *pub = open_pub(other, "t");
		shmq_sub *sub = open_sub(bus, "t");

		listen_by(sub, &h, ways[k]);
		send(pub, 0, 10);
		await_count(&h, 3);
		shmq_listener_stop(h.listener);
		CHECK_EQ(atomic_load(&h.count), 3);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	tear_down();
}

/* Nobody waits for what that thread did not come to. */
TEST(a_callback_that_ends_its_thread_hangs_no_stop)
{
	unsigned k, by_itself;

	set_up();
	create(bus, "t", .depth = 1024);
	for (k = 0; k < 2; k++)
		for (by_itself = 0; by_itself < 2; by_itself++) {
			struct heard h = { .then = END_THREAD,
					   .stopped_by_itself = (int)by_itself };
			shmq_pub *pub = open_pub(other, "t");
			shmq_sub *sub = open_sub(bus, "t");
			struct shmq_msg msg;

			listen_by(sub, &h, ways[k]);
			send(pub, 0, 2);
			await_count(&h, 1);
			while (by_itself && atomic_load(&h.inside))
				test_sleep_ms(1);
			if (!by_itself)
				shmq_listener_stop(h.listener);
			CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
			CHECK_EQ(atomic_load(&h.count), 1);
			shmq_sub_close(sub);
			shmq_pub_close(pub);
		}
	tear_down();
}

TEST(losses_and_ends_are_told)
{
	unsigned k;

	set_up();
	for (k = 0; k < COUNT(ways); k++) {
		struct heard h = { .then = HANG, .at = 0 };
		shmq_pub *pub;
		shmq_sub *sub;

		create(bus, "lossy", .depth = 1024, .policy = SHMQ_LOSSY);
		pub = open_pub(other, "lossy");
		sub = open_sub(bus, "lossy");
		listen_by(sub, &h, ways[k]);
		send(pub, 0, 1);
		await(&h.stage, 1);
		send(pub, 1, 5000);
		reach(&h.stage, 2);
		while (atomic_load(&h.count) + atomic_load(&h.lost) < 5000)
			test_sleep_ms(1);
		CHECK_GT(atomic_load(&h.lost), 1000);
		CHECK_OK(shmq_topic_remove(bus, "lossy", SHMQ_FORCE));
		await_error(&h, SHMQ_EENDED);
		shmq_listener_stop(h.listener);
		shmq_sub_close(sub);
		shmq_pub_close(pub);
	}
	tear_down();
}

TEST(a_pattern_is_listened_to_and_stopped)
{
	unsigned k;

	set_up();
	for (k = 0; k < COUNT(ways); k++) {
		struct heard h = { 0 };
		shmq_sub *sub = open_sub(bus, "p.*");
		shmq_pub *pub;

		listen_by(sub, &h, ways[k]);
		create(other, "p.1", .depth = 1024);
		pub = open_pub(other, "p.1");
		send(pub, 0, 3000);
		await_count(&h, 3000);
		shmq_pub_close(pub);
		CHECK_OK(shmq_topic_remove(other, "p.1", SHMQ_FORCE));
		shmq_listener_stop(h.listener);
		shmq_sub_close(sub);
	}
	tear_down();
}

/* A pool of one thread, which is the test's. */
static struct {
	void (*run)(void *task);
	void *task;
} given[4];
static _Atomic unsigned gifts;

static int execute_later(void *arg, void (*run)(void *task), void *task)
{
	unsigned n = atomic_load(&gifts);

	(void)arg;
	CHECK_LT(n, COUNT(given));
	given[n].run = run;
	given[n].task = task;
	atomic_store(&gifts, n + 1);
	return 0;
}

static shmq_sub *pair[2];
static unsigned calls;

static int close_the_other(void *arg, shmq_sub *sub, const struct shmq_msg *msg)
{
	(void)arg;
	(void)msg;
	calls++;
	shmq_sub_close(pair[sub == pair[0]]);
	return 1; /* and is not given to the pool again */
}

static void note_error(void *arg, shmq_sub *sub, int error, const struct shmq_msg *msg)
{
	(void)arg;
	(void)sub;
	(void)msg;
	FAIL("%s", shmq_errname(error));
}

/* It stands in the queue behind the callback that stops it. */
TEST(a_callback_closes_the_subscriber_of_another_listener_whose_run_was_given)
{
	struct shmq_listener_options o = { .size = sizeof(o),
					   .message = close_the_other,
					   .error = note_error,
					   .execute = execute_later };
	shmq_listener *l[2];
	shmq_pub *pub;
	int i;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	for (i = 0; i < 2; i++) {
		pair[i] = open_sub(bus, "t");
		CHECK_OK(shmq_listener_start(pair[i], &o, &l[i]));
	}
	CHECK_OK(shmq_publish(pub, "x", 1));
	while (atomic_load(&gifts) < 2)
		test_sleep_ms(1);
	for (i = 0; i < 2; i++)
		given[i].run(given[i].task);
	CHECK_EQ(calls, 1);
	shmq_pub_close(pub);
	tear_down();
}

TEST(a_pool_that_is_full_is_asked_again)
{
	struct heard h = { 0 };
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t");
	atomic_store(&pool.refuse, 5);
	listen_by(sub, &h, execute);
	send(pub, 0, 1000);
	await_count(&h, 1000);
	CHECK_EQ(atomic_load(&pool.refuse), 0);
	shmq_listener_stop(h.listener);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}

/* A pool has threads for many: whoever is not readable takes none of it. */
TEST(many_subscribers_share_a_pool)
{
	enum { SUBS = 60 };
	static struct heard h[SUBS];
	static shmq_sub *sub[SUBS];
	static shmq_pub *pub[SUBS];
	char name[16];
	unsigned before;
	int i;

	set_up();
	for (i = 0; i < SUBS; i++) {
		snprintf(name, sizeof(name), "t.%d", i);
		create(bus, name, .depth = 1024);
		pub[i] = open_pub(other, name);
		sub[i] = open_sub(bus, name);
		listen_by(sub[i], &h[i], execute);
	}
	for (i = 0; i < SUBS; i++)
		send(pub[i], 0, 200);
	for (i = 0; i < SUBS; i++)
		await_count(&h[i], 200);
	before = atomic_load(&pool.executed);
	send(pub[7], 200, 201);
	await_count(&h[7], 201);
	CHECK_LE(atomic_load(&pool.executed), before + SUBS);
	/* Those that run are stopped by the bus. */
	shmq_bus_close(bus);
	bus = test_bus_open();
	for (i = 0; i < SUBS; i++)
		shmq_pub_close(pub[i]);
	tear_down();
}

/* Those that are always busy leave room for others, also on one thread. */
TEST(a_listener_has_its_turn_beside_many_that_are_busy)
{
	enum { BUSY = 80, EACH = 640 };
	static struct heard h[BUSY];
	static shmq_sub *sub[BUSY];
	struct heard quiet = { .then = HANG, .at = 0 };
	uint64_t heard = 0, total = BUSY * EACH;
	shmq_pub *pub, *late;
	shmq_sub *rare;
	int i;

	set_up();
	memset(h, 0, sizeof(h));
	create(bus, "busy", .depth = 1024);
	create(bus, "rare", .depth = 1024);
	pub = open_pub(other, "busy");
	late = open_pub(other, "rare");
	rare = open_sub(bus, "rare");
	listen_by(rare, &quiet, execute_here);
	for (i = 0; i < BUSY; i++)
		sub[i] = open_sub(bus, "busy");
	/* Till all have something nobody is called. */
	h[0].then = HANG;
	for (i = 0; i < BUSY; i++)
		listen_by(sub[i], &h[i], execute_here);
	send(pub, 0, 1);
	await(&h[0].stage, 1);
	send(pub, 1, EACH);
	send(late, 0, 1);
	reach(&h[0].stage, 2);
	await(&quiet.stage, 1);
	for (i = 0; i < BUSY; i++)
		heard += atomic_load(&h[i].count);
	CHECK_LT(heard, total / 2);
	reach(&quiet.stage, 2);
	for (i = 0; i < BUSY; i++) {
		await_count(&h[i], EACH);
		shmq_sub_close(sub[i]);
	}
	shmq_sub_close(rare);
	shmq_pub_close(late);
	shmq_pub_close(pub);
	tear_down();
}

/* ---- comings and goings ---------------------------------------------------- */

static _Atomic int is_over;

static void *floods(void *arg)
{
	uint64_t value = 0;

	while (!atomic_load(&is_over)) {
		CHECK_OK(shmq_publish(arg, &value, sizeof(value)));
		value++;
	}
	return NULL;
}

static int refuse(void *arg, void (*run)(void *task), void *task)
{
	(void)run;
	(void)task;
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
	return -1;
}

static void await_asked(_Atomic unsigned *asked, unsigned want)
{
	int64_t deadline = test_now_ns() + PATIENCE;

	while (atomic_load(asked) < want) {
		if (test_now_ns() > deadline)
			FAIL("asked %u times, not %u", atomic_load(asked), want);
		test_sleep_ms(1);
	}
}

/* Listeners of all kinds start and stop at random while messages flow, and what waits
 * for a full pool meanwhile is asked again whoever stops. */
TEST(listeners_come_and_go_while_messages_flow)
{
	enum { BUSY = 8, REFUSED = 24 };
	unsigned rounds = getenv("SHMQ_TORTURE") ? 20000 : 60, round;
	const char *given_seed = getenv("SHMQ_SEED");
	uint64_t seed = given_seed ? strtoull(given_seed, NULL, 0) : (uint64_t)getpid();
	static struct heard h[BUSY];
	shmq_sub *sub[BUSY], *refused[REFUSED];
	shmq_listener *l[REFUSED];
	_Atomic unsigned asked = 0;
	pthread_t flood;
	shmq_pub *pub;
	unsigned i;

	set_up();
	fprintf(stderr, "# seed %llu\n", (unsigned long long)seed);
	create(bus, "t", .depth = 1024, .policy = SHMQ_LOSSY);
	pub = open_pub(other, "t");
	atomic_store(&is_over, 0);
	for (i = 0; i < BUSY; i++)
		sub[i] = open_sub(bus, "t");
	for (i = 0; i < REFUSED; i++)
		refused[i] = open_sub(bus, "t");
	CHECK_EQ(pthread_create(&flood, NULL, floods, pub), 0);
	for (round = 0; round < rounds; round++) {
		struct shmq_listener_options o = { .size = sizeof(o),
						   .message = message,
						   .error = failed,
						   .execute = refuse,
						   .pool = &asked };
		unsigned before;

		for (i = 0; i < BUSY; i++) {
			seed = mix(seed + i + 1);
			memset(&h[i], 0, sizeof(h[i]));
			listen_by(sub[i], &h[i], ways[seed % COUNT(ways)]);
		}
		/* Newer, so that they are looked at first. */
		for (i = 0; i < REFUSED; i++)
			CHECK_OK(shmq_listener_start(refused[i], &o, &l[i]));
		await_count(&h[seed % BUSY], seed / BUSY % 200);
		for (i = 0; i < BUSY; i++) {
			shmq_listener_stop(h[i].listener);
			CHECK_EQ(atomic_load(&h[i].inside), 0);
			atomic_store(&h[i].stopped, 1);
		}
		before = atomic_load(&asked);
		await_asked(&asked, before + REFUSED + 1);
		for (i = 0; i < REFUSED; i++)
			shmq_listener_stop(l[i]);
	}
	atomic_store(&is_over, 1);
	pthread_join(flood, NULL);
	for (i = 0; i < BUSY; i++)
		shmq_sub_close(sub[i]);
	for (i = 0; i < REFUSED; i++)
		shmq_sub_close(refused[i]);
	shmq_pub_close(pub);
	tear_down();
}

/* Runs of the pool are on their last steps while the bus closes. */
TEST(a_bus_closes_while_runs_of_a_pool_end)
{
	unsigned rounds = getenv("SHMQ_TORTURE") ? 2000 : 10, i;
	pthread_t flood;
	shmq_pub *pub;

	set_up();
	create(other, "t", .depth = 1024, .policy = SHMQ_LOSSY);
	pub = open_pub(other, "t");
	atomic_store(&is_over, 0);
	CHECK_EQ(pthread_create(&flood, NULL, floods, pub), 0);
	for (i = 0; i < rounds; i++) {
		struct heard h = { 0 };
		shmq_sub *sub = open_sub(bus, "t");

		listen_by(sub, &h, execute);
		await_count(&h, 100);
		shmq_bus_close(bus);
		bus = test_bus_open();
	}
	atomic_store(&is_over, 1);
	pthread_join(flood, NULL);
	shmq_pub_close(pub);
	tear_down();
}

TEST(what_cannot_be_listened_to_is_refused)
{
	struct shmq_listener_options o = { .size = sizeof(o), .message = message };
	struct heard h = { 0 };
	shmq_listener *l;
	shmq_waitset *set;
	shmq_sub *sub;

	set_up();
	create(bus, "t", .depth = 1024);
	create(bus, "spin", .depth = 1024, .flags = SHMQ_TOPIC_SPIN_ONLY);
	sub = open_sub(bus, "t");
	CHECK_ERROR(shmq_listener_start(sub, &o, &l), SHMQ_EOPTION);
	CHECK(!l);
	CHECK_ERROR(shmq_listener_start(sub, NULL, &l), SHMQ_EOPTION);
	listen_by(sub, &h, NULL);
	o.error = failed;
	o.arg = &h;
	CHECK_ERROR(shmq_listener_start(sub, &o, &l), SHMQ_EINUSE);
	/* Nor does anybody else receive. */
	CHECK_OK(shmq_waitset_create(bus, &set));
	CHECK_ERROR(shmq_waitset_add(set, sub), SHMQ_EINUSE);
	CHECK(strstr(shmq_bus_error(NULL), "has a listener"));
	shmq_listener_stop(h.listener);
	shmq_listener_stop(NULL);
	CHECK_OK(shmq_waitset_add(set, sub));
	CHECK_ERROR(shmq_listener_start(sub, &o, &l), SHMQ_EINUSE);
	shmq_waitset_destroy(set);
	shmq_sub_close(sub);
	sub = open_sub(bus, "spin");
	o.execute = execute;
	CHECK_ERROR(shmq_listener_start(sub, &o, &l), SHMQ_EOPTION);
	listen_by(sub, &h, NULL);
	shmq_sub_close(sub); /* which stops it */
	tear_down();
}

static int child(void *arg)
{
	struct heard *h = arg;

	shmq_listener_stop(h->listener);
	return 0;
}

TEST(a_child_has_none)
{
	struct heard h = { 0 };
	shmq_sub *sub;
	shmq_pub *pub;

	set_up();
	create(bus, "t", .depth = 1024);
	pub = open_pub(other, "t");
	sub = open_sub(bus, "t");
	listen_by(sub, &h, execute);
	CHECK_EQ(test_join(test_spawn(child, &h)), 0);
	send(pub, 0, 10);
	await_count(&h, 10);
	shmq_listener_stop(h.listener);
	shmq_sub_close(sub);
	shmq_pub_close(pub);
	tear_down();
}
