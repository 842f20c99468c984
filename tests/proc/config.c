/* SPDX-License-Identifier: MIT
 *
 * A bus by its configuration: topics, defaults, limits of another uid, and a
 * reload that loses its worker.
 */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>

#include "../lib/helpers.h"
#include "talk.h"

enum { GUEST = 4711, ROUNDS = 12 };

#define GUEST_RULE "allow = { \"# create,publish,subscribe uid:4711\" }\n"

static char path[256];

/* At once: a worker may be about to read it. */
static void write_config(const char *text)
{
	char fresh[300];
	FILE *out;

	snprintf(path, sizeof(path), "%s/bus.conf", test_tmpdir());
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	out = fopen(fresh, "w");
	CHECK(out);
	CHECK_GE(fputs(text, out), 0);
	CHECK_OK(fclose(out));
	CHECK_OK(rename(fresh, path));
}

static pid_t begin(const char *text)
{
	write_config(text);
	return test_bus_start("--config", path);
}

/* ---- topics and defaults ----------------------------------------------- */

TEST(its_topics_are_there_and_its_defaults_are_taken)
{
	shmq_bus *bus;

	begin("defaults { depth = 2k time = yes }\n"
	      "topic \"md.trades\" { shared = yes depth = 4k }\n");
	bus = test_bus_open();
	CHECK_EQ(topic_info(bus, "md.trades").depth, 4096);
	CHECK_EQ(topic_info(bus, "md.trades").mode, SHMQ_SHARED);
	CHECK_EQ(topic_info(bus, "md.trades").flags, SHMQ_TOPIC_TIME);
	create(bus, "open");
	create(bus, "own", .depth = 1024);
	CHECK_EQ(topic_info(bus, "open").depth, 2048);
	CHECK_EQ(topic_info(bus, "own").depth, 1024);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int has_topic(void *arg)
{
	struct shmq_topic_info info = { 0 };

	return shmq_topic_get_info(arg, "late", &info) == 0;
}

TEST(a_reload_makes_new_topics_and_a_mistake_changes_nothing)
{
	char changes[512];
	shmq_bus *bus;

	begin("linger = 5s\n");
	bus = test_bus_open();
	write_config("linger = 6s\ntopic \"late\" { }\nlimits \"uid:1\" { topics = x }\n");
	CHECK_ERROR(shmq_bus_reload(bus, changes, sizeof(changes)), SHMQ_EOPTION);
	CHECK(strstr(shmq_bus_error(bus), "bus.conf:3:27: topics takes a number"));
	write_config("linger = 6s\ntopic \"late\" { depth = 1k }\n");
	CHECK_EQ(shmq_bus_reload(bus, changes, sizeof(changes)), 2);
	CHECK(strstr(changes, "linger: 5s -> 6s\n"));
	CHECK(test_wait_until(has_topic, bus, 20000));
	CHECK_EQ(shmq_bus_reload(bus, NULL, 0), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* The topic waits for memory of its own, as others may have it, which the parent has to
 * hold first. */
TEST(a_topic_that_two_reloads_want_is_made_once)
{
	struct shmq_bus_info info;
	shmq_bus *bus;
	pid_t parent;

	parent = begin(GUEST_RULE);
	bus = test_bus_open();
	write_config("allow = { \"# create,publish,subscribe uid:4711\", "
		     "\"late subscribe uid:4712\" }\ntopic \"late\" { depth = 1k }\n");
	CHECK_OK(kill(parent, SIGSTOP));
	CHECK_EQ(shmq_bus_reload(bus, NULL, 0), 2);
	CHECK_EQ(shmq_bus_reload(bus, NULL, 0), 0);
	CHECK_ERROR(shmq_topic_get_info(bus, "late", &(struct shmq_topic_info){ 0 }),
		    SHMQ_ENOTOPIC);
	CHECK_OK(kill(parent, SIGCONT));
	CHECK(test_wait_until(has_topic, bus, 20000));
	create(bus, "next"); /* after which the second one would have been made, too */
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.topics, 2);
	CHECK_OK(shmq_topic_remove(bus, "late", 0));
	CHECK_ERROR(shmq_topic_get_info(bus, "late", &(struct shmq_topic_info){ 0 }),
		    SHMQ_ENOTOPIC);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(first_rules_need_a_start)
{
	shmq_bus *bus;

	begin("linger = 5s\n");
	bus = test_bus_open();
	write_config(GUEST_RULE);
	CHECK_ERROR(shmq_bus_reload(bus, NULL, 0), SHMQ_EOPTION);
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST(rules_may_go_and_come_again)
{
	shmq_bus *bus;

	begin(GUEST_RULE);
	bus = test_bus_open();
	write_config("linger = 5s\n");
	CHECK_EQ(shmq_bus_reload(bus, NULL, 0), 2);
	CHECK_GE(test_bus_kill("control"), 1); /* the next one has never seen a rule */
	write_config(GUEST_RULE);
	CHECK_EQ(shmq_bus_reload(bus, NULL, 0), 2);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* ---- limits ------------------------------------------------------------ */

static void become_guest(void)
{
	CHECK_OK(setgroups(0, NULL));
	CHECK_OK(setgid(GUEST));
	CHECK_OK(setuid(GUEST));
}

static _Atomic int *stage;

static void begin_limited(const char *limits)
{
	char text[512];

	if (geteuid() != 0)
		SKIP("only root can be two users");
	stage = shared_memory(sizeof(*stage));
	snprintf(text, sizeof(text), GUEST_RULE "%s", limits);
	begin(text);
	CHECK_OK(chmod(test_tmpdir(), 0755));
	CHECK_OK(chmod(test_bus_dir(), 0755));
}

/* What is refused for a limit says of whom, which, and what to do. */
static void check_says_limit(const char *limit)
{
	const char *said = shmq_bus_error(NULL);

	if (!strstr(said, "uid 4711 may have ") || !strstr(said, limit) ||
	    !strstr(said, ": free some, or have its limits raised (shmqd.conf(5))"))
		FAIL("of %s it says: %s", limit, said);
}

static int try_topics(void *arg)
{
	shmq_bus *bus;

	(void)arg;
	become_guest();
	bus = test_bus_open();
	create(bus, "a");
	create(bus, "b");
	CHECK_ERROR(shmq_topic_create(bus, "c", NULL, NULL), SHMQ_ELIMIT);
	check_says_limit("2 topics and has 2");
	CHECK_OK(shmq_topic_remove(bus, "b", 0));
	reach(stage, 1);
	await(stage, 2); /* counted by another worker */
	create(bus, "b");
	CHECK_ERROR(shmq_topic_plan(bus, "c", NULL, &(struct shmq_plan){ 0 }), SHMQ_ELIMIT);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_uid_has_no_more_topics_than_it_may)
{
	pid_t guest;

	begin_limited("limits \"everyone\" { topics = 2 }\n");
	guest = test_spawn(try_topics, NULL);
	await(stage, 1);
	CHECK_GE(test_bus_kill("control"), 1); /* a child that populates is another */
	reach(stage, 2);
	CHECK_EQ(test_join(guest), 0);
	test_bus_stop();
}

static int try_requesters(void *arg)
{
	const struct shmq_requester_options *few =
		&(struct shmq_requester_options){ .size = sizeof(*few), .open_max = 1 };
	shmq_requester *r[2], *more;
	shmq_responder *s;
	struct shmq_request q;
	struct shmq_msg msg = { .data = "x", .len = 1 };
	shmq_bus *bus, *other;

	(void)arg;
	become_guest();
	bus = test_bus_open();
	other = test_bus_open();
	create(bus, "svc", .mode = SHMQ_SHARED);
	CHECK_ERROR(shmq_topic_create(bus, "b", NULL, NULL), SHMQ_ELIMIT);
	CHECK_OK(shmq_responder_open(other, "svc", NULL, &s));
	CHECK_OK(shmq_requester_open(bus, "svc", few, &r[0]));
	CHECK_OK(shmq_requester_open(bus, "svc", few, &r[1]));
	CHECK_ERROR(shmq_requester_open(bus, "svc", few, &more), SHMQ_ELIMIT);
	check_says_limit("2 requesters and has 2");
	/* One that a responder still has open counts no more. */
	CHECK_OK(shmq_requester_send(r[1], &msg, PATIENCE, NULL));
	CHECK_OK(shmq_responder_receive(s, &q, PATIENCE));
	CHECK_OK(q.error);
	shmq_requester_close(r[1]);
	CHECK_OK(shmq_requester_open(bus, "svc", few, &r[1]));
	CHECK_ERROR(shmq_requester_open(bus, "svc", few, &more), SHMQ_ELIMIT);
	shmq_bus_close(other);
	shmq_bus_close(bus);
	return 0;
}

TEST(private_topics_count_as_requesters_of_their_uid)
{
	begin_limited("limits \"everyone\" { topics = 1\n requesters = 2 }\n");
	CHECK_EQ(test_join(test_spawn(try_requesters, NULL)), 0);
	test_bus_stop();
}

static int try_bytes(void *arg)
{
	shmq_bus *bus;
	shmq_pub *pub;

	(void)arg;
	become_guest();
	bus = test_bus_open();
	CHECK_ERROR(shmq_topic_create(bus, "large", TOPIC_OPTIONS(.depth = 1 << 20), NULL),
		    SHMQ_ELIMIT);
	check_says_limit("4194304 bytes and has 0");
	create(bus, "a", .depth = 1024, .max_message_bytes = 4096);
	CHECK_ERROR(shmq_pub_open(bus, "a", PUB_OPTIONS(.arena_bytes = 8 << 20), &pub),
		    SHMQ_ELIMIT);
	check_says_limit("4194304 bytes and has ");
	open_pub(bus, "a", .arena_bytes = 64 << 10);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_uid_has_no_more_bytes_than_it_may_in_rings_and_arenas)
{
	begin_limited("limits \"uid:4711\" { bytes = 4M }\n");
	CHECK_EQ(test_join(test_spawn(try_bytes, NULL)), 0);
	test_bus_stop();
}

static int try_clients(void *arg)
{
	const struct shmq_bus_options *options = BUS_OPTIONS(.start = SHMQ_START_NEVER),
				      *posing = BUS_OPTIONS(.start = SHMQ_START_NEVER,
							    .client_name = "$tailer");
	shmq_bus *first, *second;

	become_guest();
	CHECK_OK(shmq_bus_open(test_bus_name(), options, &first));
	CHECK_ERROR(shmq_bus_open(test_bus_name(), options, &second), SHMQ_ELIMIT);
	check_says_limit(arg);
	shmq_bus_close(first);
	CHECK_OK(shmq_bus_open(test_bus_name(), posing, &first));
	CHECK_ERROR(shmq_bus_open(test_bus_name(), posing, &second), SHMQ_ELIMIT);
	shmq_bus_close(first);
	CHECK_OK(shmq_bus_open(test_bus_name(), options, &second));
	shmq_bus_close(second);
	return 0;
}

TEST(a_uid_has_no_more_clients_than_it_may)
{
	begin_limited("limits \"everyone\" { clients = 1 }\n");
	CHECK_EQ(test_join(test_spawn(try_clients, (char[]){ "1 clients and has 1" })), 0);
	test_bus_stop();
}

TEST(a_uid_has_no_more_descriptors_than_it_may)
{
	begin_limited("limits \"everyone\" { descriptors = 5 }\n");
	CHECK_EQ(test_join(test_spawn(try_clients, (char[]){ "5 descriptors and has " })), 0);
	test_bus_stop();
}

static int try_large_replies(void *arg)
{
	const struct shmq_requester_options *large = &(struct shmq_requester_options){
		.size = sizeof(*large), .max_reply_bytes = 2 << 20, .open_max = 1
	};
	shmq_requester *first, *second;
	shmq_bus *bus;

	(void)arg;
	become_guest();
	bus = test_bus_open();
	CHECK_OK(shmq_requester_open(bus, "svc", large, &first));
	CHECK_ERROR(shmq_requester_open(bus, "svc", large, &second), SHMQ_ELIMIT);
	check_says_limit("bytes");
	shmq_requester_close(first);
	CHECK_OK(shmq_requester_open(bus, "svc", large, &second));
	shmq_bus_close(bus);
	return 0;
}

/* Each would have a responder take 4 MiB for it, by one request of a byte. */
TEST(a_uid_has_no_more_bytes_by_having_others_answer_it)
{
	shmq_bus *bus;

	begin_limited("limits \"uid:4711\" { bytes = 6M }\n");
	bus = test_bus_open();
	create(bus, "svc", .mode = SHMQ_SHARED);
	CHECK_EQ(test_join(test_spawn(try_large_replies, NULL)), 0);
	shmq_bus_close(bus);
	test_bus_stop();
}

/* Four at once, of each of which an arena is two thirds of what they may have. */
enum { AT_ONCE = 4 };

static int try_arena(void *arg)
{
	_Atomic int *got = (_Atomic int *)arg;
	shmq_bus *bus;
	shmq_pub *pub;
	int rc;

	become_guest();
	bus = test_bus_open();
	atomic_fetch_add(stage, 1);
	while (atomic_load(stage) < AT_ONCE)
		sched_yield();
	rc = shmq_pub_open(bus, "large", PUB_OPTIONS(.arena_bytes = 40 << 20), &pub);
	if (rc)
		CHECK_EQ(rc, SHMQ_ELIMIT);
	else
		atomic_fetch_add(got, 1);
	atomic_fetch_add(stage, 1);
	await(stage, 2 * AT_ONCE);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_uid_has_no_more_bytes_by_asking_for_them_at_once)
{
	_Atomic int *got = shared_memory(sizeof(*got));
	pid_t guest[AT_ONCE];
	shmq_bus *bus;
	int i;

	begin_limited("limits \"uid:4711\" { bytes = 60M }\n");
	bus = test_bus_open();
	create(bus, "large", .mode = SHMQ_SHARED, .depth = 1024, .max_message_bytes = 4096);
	for (i = 0; i < AT_ONCE; i++)
		guest[i] = test_spawn(try_arena, (void *)got);
	for (i = 0; i < AT_ONCE; i++)
		CHECK_EQ(test_join(guest[i]), 0);
	CHECK_EQ(atomic_load(got), 1);
	shmq_bus_close(bus);
	test_bus_stop();
}

static int try_moves(void *arg)
{
	shmq_bus *bus;

	(void)arg;
	become_guest();
	bus = test_bus_open();
	create(bus, "a", .depth = 16384);
	open_sub(bus, "a"); /* holds these rings, */
	CHECK_OK(shmq_topic_move(bus, "a"));
	open_sub(bus, "a"); /* and those */
	CHECK_ERROR(shmq_topic_move(bus, "a"), SHMQ_ELIMIT);
	check_says_limit("3145728 bytes and has ");
	shmq_bus_close(bus);
	return 0;
}

TEST(a_uid_has_no_more_bytes_by_moving_its_topic_while_it_holds_the_old_rings)
{
	begin_limited("allow += { \"# admin uid:4711\" }\nlimits \"uid:4711\" { bytes = 3M }\n");
	CHECK_EQ(test_join(test_spawn(try_moves, NULL)), 0);
	test_bus_stop();
}

static int try_silence(void *arg)
{
	enum { MANY = 600 };
	struct pollfd cut[MANY];
	shmq_bus *bus;
	int i;

	(void)arg;
	become_guest();
	for (i = 0; i < MANY; i++)
		cut[i] = (struct pollfd){ .fd = raw_connect(), .events = POLLIN };
	bus = test_bus_open(); /* which is behind them all, and is let in */
	for (i = 0; i < MANY - 256; i++) {
		CHECK_EQ(poll(&cut[i], 1, 60000), 1);
		CHECK(cut[i].revents & POLLHUP);
	}
	CHECK_EQ(poll(&cut[MANY - 1], 1, 0), 0);
	shmq_bus_close(bus);
	return 0;
}

TEST(a_uid_has_no_more_descriptors_by_connections_that_say_nothing)
{
	begin_limited("limits \"everyone\" { descriptors = 5 }\n");
	CHECK_EQ(test_join(test_spawn(try_silence, NULL)), 0);
	test_bus_stop();
}

static int may_reload(void *arg)
{
	shmq_bus *bus;

	(void)arg;
	become_guest();
	bus = test_bus_open();
	CHECK_ERROR(shmq_bus_reload(bus, NULL, 0), SHMQ_EACCESS);
	shmq_bus_close(bus);
	return 0;
}

TEST(only_who_administers_the_bus_reloads)
{
	begin_limited("");
	CHECK_EQ(test_join(test_spawn(may_reload, NULL)), 0);
	test_bus_stop();
}

/* ---- where it is ------------------------------------------------------- */

struct listing {
	int fd; /* what it printed */
	uid_t uid;
};

/* As a set-user-ID program does, if its caller's uid is another. */
static int list_as(void *arg)
{
	const struct listing *l = arg;

	CHECK_OK(setresuid(l->uid, (uid_t)-1, (uid_t)-1));
	CHECK_EQ(dup2(l->fd, STDOUT_FILENO), STDOUT_FILENO);
	execl(test_bus_daemon(), "shmqd", "--config-list", "file", "--bus", test_bus_name(),
	      "--runtime-dir", test_bus_dir(), (char *)NULL);
	return 127;
}

TEST(the_environment_of_another_uid_names_no_configuration)
{
	char text[64], file[300];
	struct listing own = { memfd_create("own", 0), 0 },
		       other = { memfd_create("other", 0), GUEST };
	FILE *out;

	if (geteuid() != 0)
		SKIP("only root can be two users");
	test_bus_prepare();
	snprintf(file, sizeof(file), "%s/shmq", test_bus_dir()); /* in $XDG_CONFIG_HOME */
	CHECK_OK(mkdir(file, 0700));
	snprintf(file, sizeof(file), "%s/shmq/%s.conf", test_bus_dir(), test_bus_name());
	out = fopen(file, "w");
	CHECK(out);
	CHECK_GE(fputs("linger = 77s\n", out), 0);
	CHECK_OK(fclose(out));
	CHECK_EQ(test_join(test_spawn(list_as, &own)), 0);
	CHECK_EQ(test_join(test_spawn(list_as, &other)), 0);
	CHECK_EQ(pread(own.fd, text, sizeof(text), 0), strlen("\t\tlinger\t77s\n"));
	CHECK_MEM(text, "\t\tlinger\t77s\n", strlen("\t\tlinger\t77s\n"));
	CHECK_EQ(pread(other.fd, text, sizeof(text), 0), 0);
	close(own.fd);
	close(other.fd);
}

/* ---- deaths ------------------------------------------------------------ */

static char wanted[64];

static int is_in_force(void *arg)
{
	char file[256], text[64] = "";
	FILE *in;

	(void)arg;
	snprintf(file, sizeof(file), "%s/%s.conf", test_bus_dir(), test_bus_name());
	in = fopen(file, "r");
	CHECK(in);
	CHECK(fgets(text, sizeof(text), in));
	fclose(in);
	/* The old one or the new one, never a part. */
	CHECK(!strncmp(text, "linger = 1", 10) && text[strlen(text) - 1] == '\n');
	return !strcmp(text, wanted);
}

/* The parent has heard that the worker serves. */
static int knows_nonce(void *arg)
{
	char file[256], line[256];
	int is_known = 0;
	FILE *in;

	(void)arg;
	snprintf(file, sizeof(file), "%s/%s.manifest", test_bus_dir(), test_bus_name());
	in = fopen(file, "r");
	if (!in)
		return 0;
	while (fgets(line, sizeof(line), in))
		is_known |= !strncmp(line, "nonce ", 6) && strspn(line + 6, "0") < 16;
	fclose(in);
	return is_known;
}

TEST(a_reload_that_an_upgrade_comes_in_the_way_of_is_done_after_it)
{
	pid_t parent = begin("linger = 1000s\n");
	shmq_bus *bus = test_bus_open();

	CHECK(test_wait_until(knows_nonce, NULL, 30000));
	snprintf(wanted, sizeof(wanted), "linger = 1001s\n");
	write_config(wanted);
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGSTOP)); /* and none of its children */
	CHECK_OK(kill(parent, SIGHUP));
	CHECK_OK(kill(parent, SIGUSR2));
	CHECK(test_wait_until(is_in_force, NULL, 30000));
	shmq_bus_close(bus);
	test_bus_stop();
}

TEST_WITHIN(a_reload_that_loses_its_worker_is_done_by_the_next, 120)
{
	shmq_bus *bus;
	pid_t parent;
	int i;

	parent = begin("linger = 1000s\n");
	bus = test_bus_open();
	for (i = 1; i <= ROUNDS; i++) {
		snprintf(wanted, sizeof(wanted), "linger = %ds\n", 1000 + i);
		write_config(wanted);
		CHECK_OK(kill(parent, SIGHUP));
		if (i % 3)
			test_bus_kill("control"); /* and the one that waits, if it is there yet */
		CHECK(test_wait_until(is_in_force, NULL, 30000));
	}
	shmq_bus_close(bus);
	test_bus_stop();
}
