/* SPDX-License-Identifier: MIT
 *
 * A client that forks, and one that executes another program.  The child
 * has nothing of the parent's bus but descriptors: its calls refuse, it
 * may open a bus of its own, and the parent goes on as if nothing were.
 */
#include "raw.h"

#include <pthread.h>

enum { DEPTH = 1024, MANY = 150 };

/* Everything a process can have open. */
struct scene {
	shmq_bus *bus;
	shmq_pub *pub, *large, *deferred;
	shmq_sub *sub, *holding, *sleepy;
	shmq_sub *many[MANY];
	shmq_waitset *set;
	struct shmq_msg view;
};

static void open_scene(struct scene *s)
{
	shmq_sub *ready[1];
	struct shmq_msg msg;
	char name[16];

	s->bus = test_bus_open();
	create(s->bus, "t", .depth = DEPTH);
	create(s->bus, "large", .depth = DEPTH, .max_message_bytes = 10000);
	create(s->bus, "deferred", .depth = DEPTH);
	create(s->bus, "parts", .depth = DEPTH, .partitions = MANY);
	s->pub = open_pub(s->bus, "t");
	s->sub = open_sub(s->bus, "t");
	s->large = open_pub(s->bus, "large");
	s->holding = open_sub(s->bus, "large");
	s->deferred = open_pub(s->bus, "deferred", .wake = SHMQ_WAKE_DEFERRED);
	s->sleepy = open_sub(s->bus, "parts", .wait = SHMQ_WAIT_SLEEP);
	CHECK_ERROR(shmq_receive(s->sleepy, &msg, MILLISECOND), SHMQ_ETIMEOUT); /* its relays run */
	CHECK_OK(shmq_waitset_create(s->bus, &s->set));
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		create(s->bus, name, .depth = DEPTH);
		s->many[i] = open_sub(s->bus, name, .wait = SHMQ_WAIT_SLEEP);
		CHECK_OK(shmq_waitset_add(s->set, s->many[i]));
	}
	CHECK_ERROR(shmq_waitset_wait(s->set, ready, 1, MILLISECOND), SHMQ_ETIMEOUT);
	CHECK_OK(shmq_publish(s->large, &msg, 5000 > sizeof(msg) ? sizeof(msg) : 5000));
	CHECK_OK(shmq_receive(s->holding, &s->view, PATIENCE));
}

static void check_scene(struct scene *s)
{
	struct shmq_msg msg;
	static char bytes[10000];

	for (int n = 0; n < 3 * DEPTH; n++) {
		CHECK_OK(shmq_publish(s->pub, &n, sizeof(n)));
		CHECK_OK(shmq_receive(s->sub, &msg, SHMQ_NOWAIT));
		CHECK_MEM(msg.data, &n, sizeof(n));
	}
	for (int n = 0; n < 20; n++) {
		CHECK_OK(shmq_publish(s->large, bytes, sizeof(bytes)));
		CHECK_OK(shmq_receive(s->holding, &msg, SHMQ_NOWAIT));
	}
	create(s->bus, "later", .depth = DEPTH);
	CHECK_OK(shmq_topic_remove(s->bus, "later", 0));
	CHECK_EQ(shmq_bus_is_attached(s->bus), 1);
	CHECK_EQ(topic_info(s->bus, "t").publishers, 1);
	CHECK_EQ(topic_info(s->bus, "t").subscribers, 1);
}

static int never(void *arg, const struct shmq_msg *msg)
{
	(void)arg;
	(void)msg;
	return 1;
}

static int visit_nothing(void *arg, const struct shmq_topic_info *info)
{
	(void)arg;
	(void)info;
	return 1;
}

static int every_call_refuses(void *arg)
{
	struct scene *s = arg;
	struct shmq_partition_info part;
	struct shmq_topic_info info;
	struct shmq_bus_info bus_info;
	struct shmq_event event;
	struct shmq_plan plan;
	struct shmq_msg msg = { .data = "x", .len = 1 };
	shmq_sub *sub, *ready[1];
	shmq_waitset *set;
	shmq_pub *pub;
	char buf[16];
	void *data;

	CHECK_ERROR(shmq_publish(s->pub, "x", 1), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_msg(s->pub, &msg), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_iov(s->pub, &msg, NULL, 0), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_batch(s->pub, &msg, 1, 0), SHMQ_EFORKED);
	CHECK_ERROR(shmq_publish_batch(s->pub, &msg, 1, SHMQ_ATOMIC), SHMQ_EFORKED);
	CHECK_ERROR(shmq_claim(s->large, 5000, &data), SHMQ_EFORKED);
	CHECK_ERROR(shmq_commit(s->large, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_abort(s->large), SHMQ_EFORKED);
	CHECK_ERROR(shmq_flush(s->pub, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_pub_wait_subscribers(s->pub, 0, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_pub_get_topic(s->pub, &info), SHMQ_EFORKED);
	CHECK_EQ(pub_stats(s->pub).sent, 0);
	CHECK_ERROR(shmq_receive(s->sub, &msg, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_receive(s->holding, &msg, SHMQ_NOWAIT), SHMQ_EFORKED);
	CHECK_ERROR(shmq_receive_copy(s->sub, buf, sizeof(buf), &msg, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_poll(s->sub, never, NULL, 1, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_view_check(s->holding, &s->view), SHMQ_EFORKED);
	CHECK_ERROR(shmq_release(s->holding), SHMQ_EFORKED);
	CHECK_ERROR(shmq_sub_get_topic(s->sub, &info), SHMQ_EFORKED);
	CHECK_EQ(sub_stats(s->sub).received, 0);
	CHECK_ERROR(shmq_waitset_wait(s->set, ready, 1, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_waitset_add(s->set, s->sub), SHMQ_EFORKED);
	CHECK_ERROR(shmq_waitset_create(s->bus, &set), SHMQ_EFORKED);
	CHECK_ERROR(shmq_pub_open(s->bus, "t", NULL, &pub), SHMQ_EFORKED);
	CHECK_ERROR(shmq_sub_open(s->bus, "t", NULL, &sub), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_create(s->bus, "u", NULL, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_plan(s->bus, "u", NULL, &plan), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_remove(s->bus, "t", SHMQ_FORCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_bus_stop(s->bus, SHMQ_FORCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_bus_event(s->bus, &event, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_bus_serve(s->bus, PATIENCE), SHMQ_EFORKED);
	CHECK_ERROR(shmq_bus_get_info(s->bus, &bus_info), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_get_info(s->bus, "t", &info), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_get_partition(s->bus, "t", 0, &part), SHMQ_EFORKED);
	CHECK_ERROR(shmq_topic_each(s->bus, visit_nothing, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_partition_each(s->bus, "t", NULL, NULL), SHMQ_EFORKED);
	CHECK_ERROR(shmq_peer_each(s->bus, "t", NULL, NULL), SHMQ_EFORKED);
	return 0;
}

TEST(in_a_forked_child_every_call_refuses_and_the_parent_goes_on)
{
	static struct scene s;

	test_bus_start();
	open_scene(&s);
	CHECK_EQ(test_join(test_spawn(every_call_refuses, &s)), 0);
	check_scene(&s);
	CHECK_EQ(test_join(test_spawn(every_call_refuses, &s)), 0);
	check_scene(&s);
	shmq_waitset_destroy(s.set);
	shmq_bus_close(s.bus);
	test_bus_stop();
}

/* What is called back may fork, and come back twice. */
struct forked {
	pid_t child; /* 0 there */
	int stops;   /* what is said there */
	unsigned calls;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
};

static int come_back_twice(struct forked *f)
{
	if (!f->calls++) {
		f->child = fork();
		CHECK_GE(f->child, 0);
	} else if (!f->child) {
		_exit(2); /* nothing more is handed out there */
	}
	return f->child ? 0 : f->stops;
}

static int on_message(void *arg, const struct shmq_msg *msg)
{
	(void)msg;
	return come_back_twice(arg);
}

static int on_topic(void *arg, const struct shmq_topic_info *info)
{
	(void)info;
	return come_back_twice(arg);
}

static int on_partition(void *arg, const struct shmq_partition_info *info)
{
	(void)info;
	return come_back_twice(arg);
}

static int on_peer(void *arg, const struct shmq_peer_info *info)
{
	(void)info;
	return come_back_twice(arg);
}

static int on_client(void *arg, const struct shmq_client_info *info)
{
	(void)info;
	return come_back_twice(arg);
}

static int on_topic_of(void *arg, const char *topic, const struct shmq_sub_stats *stats)
{
	(void)topic;
	(void)stats;
	return come_back_twice(arg);
}

static int poll_all(struct forked *f)
{
	return (int)shmq_poll(f->sub, on_message, f, 3, PATIENCE);
}

static int look_at_topics(struct forked *f)
{
	return shmq_topic_each(f->bus, on_topic, f);
}

static int look_at_partitions(struct forked *f)
{
	return shmq_partition_each(f->bus, "two", on_partition, f);
}

static int look_at_peers(struct forked *f)
{
	return shmq_peer_each(f->bus, "two", on_peer, f);
}

static int look_at_clients(struct forked *f)
{
	return shmq_client_each(f->bus, on_client, f);
}

static int look_at_read_topics(struct forked *f)
{
	return shmq_sub_topic_each(f->sub, on_topic_of, f);
}

static void fork_inside(struct forked f, int (*call)(struct forked *), int of_parent)
{
	int rc;

	for (f.stops = 0; f.stops < 2; f.stops++) {
		f.calls = 0;
		f.child = -1;
		if (call == poll_all)
			for (int n = 0; n < 3; n++)
				CHECK_OK(shmq_publish(f.pub, &n, sizeof(n)));
		rc = call(&f);
		if (!f.child)
			_exit(rc == SHMQ_EFORKED || (f.stops && rc == 1) ? 0 : 1);
		CHECK_EQ(rc, of_parent);
		CHECK_EQ(test_join(f.child), 0);
	}
}

TEST(a_child_forked_by_what_is_called_back_is_refused_when_it_comes_back)
{
	struct forked f = { 0 };
	shmq_sub *second;

	test_bus_start();
	f.bus = test_bus_open();
	create(f.bus, "block", .depth = DEPTH);
	create(f.bus, "lossy", .depth = DEPTH, .policy = SHMQ_LOSSY);
	create(f.bus, "two", .depth = DEPTH, .partitions = 2);
	for (int is_lossy = 0; is_lossy < 2; is_lossy++) {
		f.pub = open_pub(f.bus, is_lossy ? "lossy" : "block");
		f.sub = open_sub(f.bus, is_lossy ? "lossy" : "block");
		fork_inside(f, poll_all, 3);
		CHECK_EQ(sub_stats(f.sub).received, 6);
		shmq_pub_close(f.pub);
		shmq_sub_close(f.sub);
	}
	f.pub = open_pub(f.bus, "two");
	second = open_sub(f.bus, "two");
	f.sub = open_sub(f.bus, "two");
	fork_inside(f, poll_all, 3);
	fork_inside(f, look_at_topics, 0);
	fork_inside(f, look_at_partitions, 0);
	fork_inside(f, look_at_peers, 0);
	fork_inside(f, look_at_clients, 0);
	fork_inside(f, look_at_read_topics, 0);
	shmq_sub_close(second);
	shmq_bus_close(f.bus);
	test_bus_stop();
}

struct listened {
	struct forked f;
	_Atomic int calls;
};

static int on_heard(void *arg, shmq_sub *sub, const struct shmq_msg *msg)
{
	struct listened *l = arg;
	int stop = 0;

	(void)sub;
	(void)msg;
	if (!atomic_load(&l->calls)) {
		stop = come_back_twice(&l->f);
		l->f.stops = l->f.child == 0;
	}
	atomic_fetch_add(&l->calls, 1);
	return stop;
}

static void on_error(void *arg, shmq_sub *sub, int error, const struct shmq_msg *msg)
{
	struct listened *l = arg;

	(void)sub;
	(void)msg;
	_exit(!l->f.child && error == SHMQ_EFORKED ? 0 : 1);
}

TEST(a_child_forked_by_a_listeners_callback_is_told_that_it_is_one)
{
	static struct listened l;
	struct shmq_listener_options o = {
		.size = sizeof(o), .message = on_heard, .error = on_error, .arg = &l
	};
	shmq_listener *listener;

	test_bus_start();
	l.f.bus = test_bus_open();
	create(l.f.bus, "t", .depth = DEPTH);
	l.f.pub = open_pub(l.f.bus, "t");
	l.f.sub = open_sub(l.f.bus, "t");
	CHECK_OK(shmq_listener_start(l.f.sub, &o, &listener));
	for (int n = 0; n < 3; n++)
		CHECK_OK(shmq_publish(l.f.pub, &n, sizeof(n)));
	await(&l.calls, 3);
	CHECK_EQ(test_join(l.f.child), 0);
	shmq_listener_stop(listener);
	shmq_bus_close(l.f.bus);
	test_bus_stop();
}

static int close_everything(void *arg)
{
	struct scene *s = arg;

	shmq_pub_close(s->pub);
	shmq_pub_close(s->large);
	shmq_pub_close(s->deferred);
	shmq_sub_close(s->sub);
	shmq_sub_close(s->holding);
	shmq_sub_close(s->sleepy);
	for (int i = 0; i < MANY; i++)
		shmq_sub_close(s->many[i]);
	shmq_waitset_destroy(s->set);
	shmq_bus_close(s->bus);
	return 0;
}

static int close_the_set_then_the_bus(void *arg)
{
	struct scene *s = arg;

	shmq_waitset_destroy(s->set);
	shmq_bus_close(s->bus);
	return 0;
}

static int close_the_bus_only(void *arg)
{
	struct scene *s = arg;

	shmq_bus_close(s->bus);
	return 0;
}

TEST(a_forked_child_closes_what_it_inherited_without_harm)
{
	static struct scene s;
	int (*const how[])(void *) = { close_everything, close_the_set_then_the_bus,
				       close_the_bus_only };

	test_bus_start();
	open_scene(&s);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(test_join(test_spawn(how[i], &s)), 0);
		check_scene(&s);
	}
	shmq_waitset_destroy(s.set);
	shmq_bus_close(s.bus);
	test_bus_stop();
}

static void *wait_for_events(void *arg)
{
	struct shmq_event event;

	while (!shmq_bus_event(arg, &event, SHMQ_FOREVER) && event.kind != SHMQ_EVENT_ENDED)
		;
	return NULL;
}

TEST(a_child_forked_while_threads_are_inside_calls_closes_without_harm)
{
	static struct scene s;
	pthread_t thread;

	test_bus_start();
	open_scene(&s);
	CHECK_EQ(pthread_create(&thread, NULL, wait_for_events, s.bus), 0);
	test_sleep_ms(20); /* until it waits there; if it does not, this shows nothing */
	for (int i = 0; i < 20; i++)
		CHECK_EQ(test_join(test_spawn(close_everything, &s)), 0);
	check_scene(&s);
	{
		shmq_bus *other = test_bus_open();

		CHECK_OK(shmq_topic_remove(other, "deferred", SHMQ_FORCE));
		shmq_bus_close(other);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	shmq_waitset_destroy(s.set);
	shmq_bus_close(s.bus);
	test_bus_stop();
}

static int open_its_own(void *arg)
{
	struct scene *s = arg;
	struct shmq_msg msg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub;
	shmq_sub *sub;

	CHECK_NE(shmq_bus_client_id(bus), shmq_bus_client_id(s->bus));
	CHECK_ERROR(shmq_pub_open(bus, "t", NULL, &pub), SHMQ_EEXCLUSIVE); /* the parent has it */
	sub = open_sub(bus, "t", .wait = SHMQ_WAIT_SLEEP);
	shmq_bus_close(s->bus);
	create(bus, "childs", .depth = DEPTH, .max_message_bytes = 5000);
	pub = open_pub(bus, "childs");
	CHECK_OK(shmq_publish(pub, "from the child", 14));
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_MEM(msg.data, "from the parent", 15);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_forked_child_opens_a_bus_of_its_own)
{
	static struct scene s;
	struct shmq_msg msg;
	shmq_sub *sub;
	pid_t child;

	test_bus_start();
	open_scene(&s);
	child = test_spawn(open_its_own, &s);
	CHECK_OK(shmq_pub_wait_subscribers(s.pub, 2, PATIENCE));
	CHECK_OK(shmq_publish(s.pub, "from the parent", 15));
	CHECK_EQ(test_join(child), 0);
	CHECK_OK(shmq_receive(s.sub, &msg, SHMQ_NOWAIT));
	sub = open_sub(s.bus, "childs", .from = SHMQ_FROM_OLDEST);
	CHECK_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	CHECK_MEM(msg.data, "from the child", 14);
	check_scene(&s);
	shmq_waitset_destroy(s.set);
	shmq_bus_close(s.bus);
	test_bus_stop();
}

static _Atomic int over;

static void *come_and_go(void *arg)
{
	while (!atomic_load(&over))
		shmq_bus_close(test_bus_open());
	return arg;
}

static int come_once(void *arg)
{
	shmq_bus_close(test_bus_open());
	return arg != NULL;
}

TEST(a_child_forked_while_other_threads_open_and_close_a_bus_opens_its_own)
{
	enum { FORKS = 600, THREADS = 3 };
	pthread_t thread[THREADS];

	test_bus_start();
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, come_and_go, NULL), 0);
	for (int i = 0; i < FORKS; i++)
		CHECK_EQ(test_join(test_spawn(come_once, NULL)), 0);
	atomic_store(&over, 1);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	test_bus_stop();
}

/* The child has the parent's sockets: that must not keep the parent alive. */
struct orphan {
	_Atomic int stage;
	_Atomic unsigned client;
	_Atomic pid_t child;
};

static int outlive_the_parent(void *arg)
{
	struct orphan *o = arg;

	/* Not to die with it, which is what test_spawn() arranges. */
	reach(&o->stage, 1);
	await(&o->stage, 2);
	return 0;
}

static int fork_and_die(void *arg)
{
	struct orphan *o = arg;
	shmq_bus *bus = test_bus_open();
	pid_t pid;

	open_sub(bus, "t");
	atomic_store(&o->client, shmq_bus_client_id(bus));
	pid = fork();
	if (!pid)
		_exit(outlive_the_parent(o));
	atomic_store(&o->child, pid);
	await(&o->stage, 1);
	raise(SIGKILL);
	return 1;
}

TEST(a_parent_that_dies_before_its_child_is_noticed)
{
	struct orphan *o = shared_memory(sizeof(*o));
	shmq_bus *bus;
	shmq_pub *pub;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	pub = open_pub(bus, "t");
	CHECK_EQ(test_join(test_spawn(fork_and_die, o)), 128 + SIGKILL);
	await_event(bus, SHMQ_EVENT_DIED, o->client);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	for (int n = 0; n < 2 * DEPTH; n++) /* nobody gates */
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	reach(&o->stage, 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- exec --------------------------------------------------------------------- */

static int execute(void *arg)
{
	struct orphan *o = arg;
	shmq_bus *bus = test_bus_open();

	open_sub(bus, "t");
	open_pub(bus, "pub");
	atomic_store(&o->client, shmq_bus_client_id(bus));
	reach(&o->stage, 1);
	await(&o->stage, 2);
	execl("/bin/sleep", "sleep", "60", NULL);
	return 1;
}

TEST(a_client_that_executes_another_program_has_died)
{
	struct orphan *o = shared_memory(sizeof(*o));
	struct shmq_event event;
	shmq_bus *bus;
	shmq_pub *pub, *heir;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	create(bus, "pub", .depth = DEPTH);
	pub = open_pub(bus, "t", .wait = SHMQ_WAIT_SLEEP, .block_timeout_ns = PATIENCE);
	child = test_spawn(execute, o);
	await(&o->stage, 1);
	reach(&o->stage, 2);
	for (int n = 0; n < 2 * DEPTH; n++) /* blocked by it until it is gone */
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	event = await_event(bus, SHMQ_EVENT_DIED, o->client);
	CHECK_EQ(event.pid, child);
	CHECK_EQ(topic_info(bus, "t").subscribers, 0);
	heir = open_pub(bus, "pub");
	shmq_pub_close(heir);
	CHECK_EQ(waitpid(child, NULL, WNOHANG), 0); /* the process lives */
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* The same, but a child that it forked before holds its socket. */
static int fork_and_execute(void *arg)
{
	struct orphan *o = arg;
	shmq_bus *bus = test_bus_open();
	struct raw raw;
	pid_t pid;

	open_sub(bus, "t");
	open_pub(bus, "pub");
	raw_open(&raw, bus, "shared");
	raw_claim(&raw);
	atomic_store(&o->client, shmq_bus_client_id(bus));
	pid = fork();
	if (!pid)
		_exit(outlive_the_parent(o));
	atomic_store(&o->child, pid);
	await(&o->stage, 1);
	execl("/bin/sleep", "sleep", "60", NULL);
	return 1;
}

/* Whether /proc/pid/stat has `text`. */
static int stat_has(pid_t pid, const char *text)
{
	char path[64], line[1024];
	FILE *in;
	int has;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	in = fopen(path, "re");
	has = in && fgets(line, sizeof(line), in) && strstr(line, text);
	if (in)
		fclose(in);
	return has;
}

static int is_asleep(void *pid)
{
	return stat_has(*(const pid_t *)pid, "(sleep)");
}

static int has_no_main_thread(void *pid)
{
	return stat_has(*(const pid_t *)pid, ") Z ");
}

/* What somebody finds who is kept waiting by it. */
enum found { BY_ITSELF, BY_SUCCESSOR, BY_READER };

static void find_executed(enum found found)
{
	struct orphan *o = shared_memory(sizeof(*o));
	struct shmq_event event;
	struct shmq_msg msg;
	shmq_sub *sub;
	shmq_bus *bus;
	shmq_pub *pub;
	pid_t child;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	create(bus, "pub", .depth = DEPTH);
	create(bus, "shared", .depth = DEPTH, .mode = SHMQ_SHARED, .stall = SHMQ_STALL_REPORT);
	sub = open_sub(bus, "shared");
	child = test_spawn(fork_and_execute, o);
	if (!test_wait_until(is_asleep, &child, 30000))
		FAIL("it does not execute");
	pub = open_pub(bus, found == BY_SUCCESSOR ? "pub" : "t", .block_timeout_ns = PATIENCE);
	if (found == BY_READER) {
		shmq_pub *other = open_pub(bus, "shared");

		CHECK_OK(shmq_publish(other, "x", 1));
		CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
		shmq_pub_close(other);
	}
	for (int n = 0; n < 2 * DEPTH; n++)
		CHECK_OK(shmq_publish(pub, &n, sizeof(n)));
	event = await_event(bus, SHMQ_EVENT_DIED, o->client);
	CHECK_EQ(event.pid, child);
	CHECK_EQ(waitpid(child, NULL, WNOHANG), 0); /* the process lives */
	CHECK_EQ(test_kill_wait(child, SIGKILL), 128 + SIGKILL);
	reach(&o->stage, 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(an_executed_program_is_noticed_although_a_child_holds_its_socket)
{
	find_executed(BY_ITSELF);
}

TEST(an_executed_program_is_noticed_at_once_by_who_wants_its_exclusive_topic)
{
	find_executed(BY_SUCCESSOR);
}

TEST(an_executed_program_is_noticed_by_who_waits_for_its_claim)
{
	find_executed(BY_READER);
}

/* Of a process whose main thread has ended there is no list of maps. */
static void *publish_later(void *arg)
{
	struct orphan *o = arg;
	shmq_bus *bus = test_bus_open();
	shmq_pub *pub = open_pub(bus, "own");

	reach(&o->stage, 1);
	await(&o->stage, 2);
	CHECK_OK(shmq_publish(pub, "still here", 10));
	shmq_bus_close(bus);
	_exit(0);
}

static int end_main_thread(void *arg)
{
	struct orphan *o = arg;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, publish_later, o), 0);
	await(&o->stage, 1);
	pthread_exit(NULL);
}

TEST(a_process_whose_main_thread_has_ended_is_not_taken_for_another_program)
{
	struct orphan *o = shared_memory(sizeof(*o));
	struct orphan *other = shared_memory(sizeof(*other));
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;
	pid_t child, executed;

	test_bus_start();
	bus = test_bus_open();
	create(bus, "t", .depth = DEPTH);
	create(bus, "own", .depth = DEPTH);
	create(bus, "pub", .depth = DEPTH);
	open_sub(bus, "t");
	sub = open_sub(bus, "own");
	child = test_spawn(end_main_thread, o);
	executed = test_spawn(execute, other);
	await(&o->stage, 1);
	await(&other->stage, 1);
	if (!test_wait_until(has_no_main_thread, &child, 30000))
		FAIL("its main thread does not end");
	/* To a new worker neither comes, and it looks at both. */
	CHECK_OK(kill(child, SIGSTOP));
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	reach(&other->stage, 2);
	await_event(bus, SHMQ_EVENT_DIED, other->client);
	CHECK_EQ(topic_info(bus, "own").publishers, 1);
	CHECK_OK(kill(child, SIGCONT));
	reach(&o->stage, 2);
	CHECK_OK(shmq_receive(sub, &msg, PATIENCE));
	CHECK_EQ(test_join(child), 0);
	CHECK_EQ(test_kill_wait(executed, SIGKILL), 128 + SIGKILL);
	shmq_bus_close(bus);
	test_bus_stop();
}
