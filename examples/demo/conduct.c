/* SPDX-License-Identifier: MIT
 *
 * conduct: starts a bus and the programs of the demo on it, kills a publisher,
 * a subscriber and the control worker on the way, and shows each time that
 * everyone else goes on; then replays all orders, from the log into live.  Exits 0 only if all of
 * it came true.
 */
#include "common.h"
#include "messages.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* HANDLES: subscribers 7 of table, 1 each of book, book-2 and slow; publishers
 * 6 of collector, 1 of collector-2, 2 of flow. */
enum { HANDLES = 19, HANDLES_MAX = 64, TOPICS_MAX = 16, ARGS_MAX = 12, LIMIT_S = 28 };

#define PATIENCE_NS (5 * NS_PER_S)         /* for anything that takes milliseconds, */
#define REPLAY_PATIENCE_NS (60 * NS_PER_S) /* and seconds */
#define RUN_NS (16 * NS_PER_S)
#define LOOK_NS (200 * NS_PER_US) /* between two looks at a condition */

enum child_state { IDLE, RUNNING, DONE, KILLED };

enum child_id {
	TABLE,
	BOOK,
	BOOK_2,
	SLOW,
	COLLECTOR,
	COLLECTOR_2,
	FLOW,
	REPLAY,
	SUMMARY,
	STAGE,
	CHILDREN
};

static struct child {
	const char *args[ARGS_MAX];
	enum child_state state;
	pid_t pid;
	int pidfd;
} children[CHILDREN] = {
	[TABLE] = { { "table", "-n", "table" } },
	[BOOK] = { { "book", "-n", "book" } },
	[BOOK_2] = { { "book", "-n", "book-2" } },
	[SLOW] = { { "slow", "-n", "slow", "-d", "200" } },
	[COLLECTOR] = { { "collector", "-n", "collector", "-w", "1", "-r", "10" } },
	[COLLECTOR_2] = { { "collector", "-n", "collector-2", "-w", "1", "-r", "20", TOPIC_PROC } },
	[FLOW] = { { "flow", "-n", "flow", "-w", "2", "-r", "200000", "-s", "42" } },
	[REPLAY] = { { "replay", "-n", "replay" } },
	[STAGE] = { { "stage", "-n", "stage" } },
	[SUMMARY] = { { "summary", "-n", "summary" } },
};

static const char *child_name(const struct child *child)
{
	return child->args[2];
}

static struct conductor {
	char dir[PATH_MAX]; /* of the programs */
	shmq_bus *bus;
	char topics[TOPICS_MAX][SHMQ_NAME_MAX + 1]; /* all but its own */
	size_t topic_count;
	shmq_pub *events;
	uint64_t events_sent;
	int64_t started_ns;
	uint64_t orders_past; /* when the replay began */
} self;

static int64_t now_ns(void)
{
	return demo_clock_ns(CLOCK_MONOTONIC);
}

static double ms_since(int64_t then_ns)
{
	return (now_ns() - then_ns) / 1e6;
}

/* ---- giving up --------------------------------------------------------- */

/* Leave nothing behind: neither children nor the supervisor. */
static void clean_up(void)
{
	struct shmq_bus_info info = { 0 };

	for (size_t i = 0; i < CHILDREN; i++)
		if (children[i].state == RUNNING) {
			kill(children[i].pid, SIGKILL);
			waitpid(children[i].pid, NULL, 0);
		}
	if (!self.bus && shmq_bus_open(DEMO_BUS, NULL, &self.bus) != 0)
		return;
	shmq_bus_get_info(self.bus, &info);
	if (shmq_bus_stop(self.bus, SHMQ_FORCE) == 0 || info.parent_pid <= 0)
		return;
	kill(info.parent_pid, SIGKILL);
	if (info.daemon_pid > 0)
		kill(info.daemon_pid, SIGKILL);
}

_Noreturn static void fail(int error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void fail(int error, const char *format, ...)
{
	const char *more = self.bus && error ? shmq_bus_error(self.bus) : "";
	va_list args;

	printf("\ndemo: failed: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	if (error)
		printf(": %s", shmq_strerror(error));
	if (*more)
		printf(" (%s)", more);
	printf("\n");
	fflush(stdout);
	clean_up();
	exit(1);
}

/* ---- children ---------------------------------------------------------- */

static void start(enum child_id id)
{
	struct child *child = &children[id];
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", self.dir, child->args[0]);
	fflush(stdout);
	child->pid = fork();
	if (child->pid < 0)
		fail(-errno, "starting %s", child->args[0]);
	if (child->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(path, (char **)child->args);
		_exit(127);
	}
	child->pidfd = pidfd_open(child->pid, 0);
	if (child->pidfd < 0)
		fail(-errno, "watching %s", child->args[0]);
	child->state = RUNNING;
}

static void collect(struct child *child, enum child_state as)
{
	int status;

	waitpid(child->pid, &status, 0);
	close(child->pidfd);
	child->state = as;
	if (as == KILLED && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	if (as == DONE && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	if (WIFSIGNALED(status))
		fail(0, "%s (pid %d) died of signal %d", child_name(child), child->pid,
		     WTERMSIG(status));
	fail(0, "%s (pid %d) exited with %d%s", child_name(child), child->pid, WEXITSTATUS(status),
	     as == KILLED ? " before it was killed" : "");
}

/* Nobody may end by itself while the demo runs.  Sleeps until `until_ns`. */
static void watch(int64_t until_ns)
{
	struct pollfd fds[CHILDREN];
	struct child *of[CHILDREN];
	nfds_t n = 0;

	for (size_t i = 0; i < CHILDREN; i++)
		if (children[i].state == RUNNING) {
			fds[n] = (struct pollfd){ .fd = children[i].pidfd, .events = POLLIN };
			of[n++] = &children[i];
		}
	do {
		int64_t left = until_ns - now_ns();
		struct timespec wait = { left / NS_PER_S, left % NS_PER_S };

		if (demo_stopping)
			fail(0, "interrupted, or not done within %d s", LIMIT_S);
		if (left < 0)
			wait = (struct timespec){ 0 };
		if (ppoll(fds, n, &wait, NULL) <= 0)
			continue;
		for (nfds_t i = 0; i < n; i++)
			if (fds[i].revents) {
				collect(of[i], DONE);
				fail(0, "%s (pid %d) ended before its time", child_name(of[i]),
				     of[i]->pid);
			}
	} while (now_ns() < until_ns);
}

/* The end of a child that was asked for, or is due. */
static void await_end(enum child_id id)
{
	struct pollfd fd = { .fd = children[id].pidfd, .events = POLLIN };
	int64_t until = now_ns() + 2 * PATIENCE_NS;

	while (poll(&fd, 1, 100) <= 0) {
		if (demo_stopping)
			fail(0, "interrupted, or not done within %d s", LIMIT_S);
		if (now_ns() > until)
			fail(0, "%s (pid %d) does not end", child_name(&children[id]),
			     children[id].pid);
	}
	collect(&children[id], DONE);
}

static void kill_child(enum child_id id)
{
	kill(children[id].pid, SIGKILL);
	collect(&children[id], KILLED);
}

/* ---- what the bus shows ------------------------------------------------ */

static struct shmq_topic_info topic_info(const char *topic)
{
	struct shmq_topic_info info;
	int error = shmq_topic_get_info(self.bus, topic, &info);

	if (error)
		fail(error, "looking at \"%s\"", topic);
	return info;
}

static struct shmq_bus_info bus_info(void)
{
	struct shmq_bus_info info;
	int error = shmq_bus_get_info(self.bus, &info);

	if (error)
		fail(error, "looking at the bus");
	return info;
}

struct handle {
	const char *topic;
	enum shmq_role role;
	pid_t pid;
	uint64_t count;
};

struct snapshot {
	const char *topic; /* being visited */
	size_t n;
	struct handle handle[HANDLES_MAX];
};

static int add_handle(void *arg, const struct shmq_peer_info *peer)
{
	struct snapshot *shot = arg;

	if (*peer->client_name == '$') /* the supervisor's own: the tailer */
		return 0;
	if (shot->n < HANDLES_MAX)
		shot->handle[shot->n++] =
			(struct handle){ shot->topic, peer->role, peer->pid, peer->count };
	return 0;
}

/* Every handle on every topic but the conductor's own. */
static void take_snapshot(struct snapshot *shot)
{
	shot->n = 0;
	for (size_t i = 0; i < self.topic_count; i++) {
		int error;

		shot->topic = self.topics[i];
		error = shmq_peer_each(self.bus, shot->topic, add_handle, shot);
		if (error)
			fail(error, "looking at the peers of \"%s\"", shot->topic);
	}
}

static const struct handle *find_handle(const struct snapshot *shot, const struct handle *wanted)
{
	for (size_t i = 0; i < shot->n; i++) {
		const struct handle *handle = &shot->handle[i];

		if (handle->topic == wanted->topic && handle->role == wanted->role &&
		    handle->pid == wanted->pid)
			return handle;
	}
	return NULL;
}

static int is_listed(pid_t pid)
{
	struct snapshot shot;

	take_snapshot(&shot);
	for (size_t i = 0; i < shot.n; i++)
		if (shot.handle[i].pid == pid)
			return 1;
	return 0;
}

/* Wait until every handle has counted on from `before`; returns the time. */
static double await_progress(const struct snapshot *before)
{
	int64_t begun = now_ns();
	size_t i = 0;

	while (i < before->n) {
		struct snapshot now;
		const struct handle *handle;

		take_snapshot(&now);
		for (; i < before->n; i++) {
			handle = find_handle(&now, &before->handle[i]);
			if (!handle || handle->count <= before->handle[i].count)
				break;
		}
		if (i == before->n)
			break;
		if (now_ns() > begun + PATIENCE_NS)
			fail(0, "pid %d stands still on \"%s\"", before->handle[i].pid,
			     before->handle[i].topic);
		watch(now_ns() + 25 * LOOK_NS);
	}
	return ms_since(begun);
}

/* The same from now on; says how many handles there are. */
static double everyone_moves_on(size_t *handles)
{
	struct snapshot shot;

	take_snapshot(&shot);
	*handles = shot.n;
	return await_progress(&shot);
}

static double await_unlisted(pid_t pid, int64_t since_ns)
{
	while (is_listed(pid)) {
		if (now_ns() > since_ns + PATIENCE_NS)
			fail(0, "the dead pid %d is still listed on its topic", pid);
		watch(now_ns() + LOOK_NS);
	}
	return ms_since(since_ns);
}

/* ---- events, shown by the table ---------------------------------------- */

static void event(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void event(const char *format, ...)
{
	char text[EVENT_MAX];
	va_list args;
	int error;
	int n = snprintf(text, sizeof(text), "%4.1f s  ", (now_ns() - self.started_ns) / 1e9);

	va_start(args, format);
	n += vsnprintf(text + n, sizeof(text) - n, format, args);
	va_end(args);
	error = shmq_publish(self.events, text,
			     (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
	if (error)
		fail(error, "publishing to \"%s\"", TOPIC_EVENTS);
	self.events_sent++;
}

/* ---- acts -------------------------------------------------------------- */

/* Publishers come up when they have their subscribers, and then count from 0. */
static void all_run(void)
{
	struct snapshot none;
	size_t handles;
	double ms;

	do {
		if (now_ns() > self.started_ns + PATIENCE_NS)
			fail(0, "the programs do not come up");
		watch(now_ns() + 25 * LOOK_NS);
		take_snapshot(&none);
	} while (none.n < HANDLES);
	for (size_t i = 0; i < none.n; i++)
		none.handle[i].count = 0;
	await_progress(&none);
	ms = everyone_moves_on(&handles);
	event("%zu handles of 7 processes move messages (each seen to within %.0f ms)", handles,
	      ms);
}

static void kill_publisher(void)
{
	const struct child *victim = &children[COLLECTOR_2];
	int64_t then = now_ns();
	double gone_ms, moved_ms;
	size_t handles;

	kill_child(COLLECTOR_2);
	gone_ms = await_unlisted(victim->pid, then);
	moved_ms = everyone_moves_on(&handles);
	event("SIGKILL to publisher %s, pid %d, one of two on %s\n"
	      "          off the topic after %.1f ms; all %zu other handles moved on within %.0f ms",
	      child_name(victim), victim->pid, TOPIC_PROC, gone_ms, handles, moved_ms);
}

/* The dead one's cursor stands still.  If it still gated, the flow could go
 * on by the depth of the ring and no further. */
static void kill_subscriber(void)
{
	const struct child *victim = &children[BOOK_2];
	struct shmq_topic_info info = topic_info(TOPIC_ORDERS);
	uint64_t at_death;
	double gone_ms, moved_ms;
	int64_t then = now_ns();
	size_t handles;

	kill_child(BOOK_2);
	at_death = topic_info(TOPIC_ORDERS).head;
	gone_ms = await_unlisted(victim->pid, then);
	moved_ms = everyone_moves_on(&handles);
	while (topic_info(TOPIC_ORDERS).head <= at_death + info.depth) {
		if (now_ns() > then + PATIENCE_NS)
			fail(0, "a dead subscriber holds \"%s\" back", TOPIC_ORDERS);
		watch(now_ns() + 25 * LOOK_NS);
	}
	event("SIGKILL to subscriber %s, pid %d, which gated %s\n"
	      "          off the topic after %.1f ms; all %zu other handles moved on within %.0f ms\n"
	      "          the flow is %llu messages past its death, more than the ring's %llu",
	      child_name(victim), victim->pid, TOPIC_ORDERS, gone_ms, handles, moved_ms,
	      (unsigned long long)(topic_info(TOPIC_ORDERS).head - at_death),
	      (unsigned long long)info.depth);
}

static void await_worker(const struct shmq_bus_info *old, int64_t since_ns)
{
	for (;;) {
		struct shmq_bus_info info = bus_info();

		if (info.daemon_pid > 0 && info.daemon_pid != old->daemon_pid &&
		    info.epoch > old->epoch)
			return;
		if (now_ns() > since_ns + PATIENCE_NS)
			fail(0, "no new control worker came");
		watch(now_ns() + LOOK_NS);
	}
}

static void await_reattach(int count_before, int64_t since_ns)
{
	while (shmq_bus_reattach_count(self.bus) <= count_before ||
	       !shmq_bus_is_attached(self.bus)) {
		if (now_ns() > since_ns + PATIENCE_NS)
			fail(0, "the bus handle did not re-attach");
		watch(now_ns() + LOOK_NS);
	}
}

static void kill_worker(void)
{
	struct shmq_bus_info old = bus_info();
	int reattached = shmq_bus_reattach_count(self.bus);
	uint64_t head = topic_info(TOPIC_ORDERS).head;
	struct shmq_plan plan;
	double away_ms, moved_ms;
	int64_t then = now_ns();
	size_t handles;
	int error;

	kill(old.daemon_pid, SIGKILL);
	await_worker(&old, then);
	away_ms = ms_since(then);
	head = topic_info(TOPIC_ORDERS).head - head;
	await_reattach(reattached, then);
	error = shmq_topic_plan(self.bus, "demo.probe", NULL, &plan);
	if (error)
		fail(error, "asking the new control worker");
	moved_ms = everyone_moves_on(&handles);
	event("SIGKILL to the control worker, pid %d; its successor is pid %d, number %llu\n"
	      "          back after %.1f ms, in which %llu orders were published; it answers requests\n"
	      "          all %zu handles, none of them reopened, moved on within %.0f ms",
	      old.daemon_pid, bus_info().daemon_pid, (unsigned long long)bus_info().epoch, away_ms,
	      (unsigned long long)head, handles, moved_ms);
}

/* The lag of the replay, or all there is while it is not listed. */
static int find_lag(void *arg, const struct shmq_peer_info *peer)
{
	if (peer->pid == children[REPLAY].pid)
		*(uint64_t *)arg = peer->lag;
	return 0;
}

static uint64_t replay_lag(void)
{
	uint64_t lag = UINT64_MAX;
	int error = shmq_peer_each(self.bus, TOPIC_ORDERS, find_lag, &lag);

	if (error)
		fail(error, "looking at the peers of \"%s\"", TOPIC_ORDERS);
	return lag;
}

/* It is live when what it lacks is less than a tenth of a ring. */
static void replay_orders(void)
{
	struct shmq_topic_info info = topic_info(TOPIC_ORDERS);
	int64_t then = now_ns();
	double s;

	self.orders_past = info.head;
	start(REPLAY);
	while (replay_lag() > info.depth / 10) {
		if (now_ns() > then + REPLAY_PATIENCE_NS)
			fail(0, "the replay does not catch up");
		watch(now_ns() + 5 * LOOK_NS);
	}
	s = ms_since(then) / 1e3;
	event("a subscriber comes after %llu orders, of which the ring has the last %llu\n"
	      "          it read them all from the log and was live after %.1f s, %.1f million a second",
	      (unsigned long long)self.orders_past, (unsigned long long)info.depth, s,
	      (double)topic_info(TOPIC_ORDERS).head / 1e6 / s);
}

static const struct {
	int64_t at_ns;
	void (*act)(void);
} acts[] = {
	{ 0, all_run },
	{ 3 * NS_PER_S, kill_publisher },
	{ 7 * NS_PER_S, kill_subscriber },
	{ 10 * NS_PER_S, kill_worker },
	{ 12 * NS_PER_S, replay_orders },
};

/* ---- the whole --------------------------------------------------------- */

static int add_topic(void *arg, const struct shmq_topic_info *topic)
{
	(void)arg;
	if (strcmp(topic->name, TOPIC_EVENTS) != 0 && self.topic_count < TOPICS_MAX)
		snprintf(self.topics[self.topic_count++], sizeof(self.topics[0]), "%s",
			 topic->name);
	return 0;
}

/* The stage starts the bus; with topics on it, it stays. */
static void start_bus(void)
{
	int error;

	start(STAGE);
	await_end(STAGE);
	self.bus = demo_bus_open(SHMQ_START_NEVER);
	error = shmq_topic_each(self.bus, add_topic, NULL);
	if (error)
		fail(error, "listing the topics");
}

static void start_programs(void)
{
	printf("\nRun\n");
	for (enum child_id id = TABLE; id <= FLOW; id++)
		start(id);
	self.started_ns = now_ns();
	self.events = demo_pub_open(self.bus, TOPIC_EVENTS, 1);
}

static void run_acts(void)
{
	for (size_t i = 0; i < COUNT_OF(acts); i++) {
		watch(self.started_ns + acts[i].at_ns);
		acts[i].act();
	}
	watch(self.started_ns + RUN_NS);
}

/* Publishers are asked to stop; subscribers end with the streams. */
static void stop_programs(void)
{
	kill(children[COLLECTOR].pid, SIGTERM);
	kill(children[FLOW].pid, SIGTERM);
	await_end(COLLECTOR);
	await_end(FLOW);
	event("publishers stopped; subscribers read to the end of their streams");
	demo_report_pub(self.bus, self.events, TOPIC_EVENTS, self.events_sent);
	shmq_pub_close(self.events);
	for (enum child_id id = TABLE; id <= SLOW; id++)
		if (children[id].state == RUNNING)
			await_end(id);
}

static void check_replay(void)
{
	uint64_t head = topic_info(TOPIC_ORDERS).head;
	struct demo_report report;

	printf("\nReplay\n");
	await_end(REPLAY);
	if (demo_report_read("replay", &report, 1) != 1)
		fail(0, "replay left no report");
	printf("  all %llu orders, in order and none twice: %llu that were past when it came,\n"
	       "  then %llu as they were published, to the summary of the flow\n",
	       (unsigned long long)report.count, (unsigned long long)self.orders_past,
	       (unsigned long long)(report.count - self.orders_past));
	if (report.first_seq || report.count != head || report.lost)
		fail(0, "the replay is not whole: %llu of %llu orders from seq %llu on",
		     (unsigned long long)report.count, (unsigned long long)head,
		     (unsigned long long)report.first_seq);
}

static void account(void)
{
	static char killed[32];
	int n = 3;

	snprintf(killed, sizeof(killed), "%s=%d", TOPIC_PROC, children[COLLECTOR_2].pid);
	children[SUMMARY].args[n++] = killed;
	children[SUMMARY].args[n++] = "conduct";
	for (enum child_id id = TABLE; id <= FLOW; id++)
		if (children[id].state == DONE)
			children[SUMMARY].args[n++] = child_name(&children[id]);
	start(SUMMARY);
	await_end(SUMMARY);
}

static void remove_topic(const char *topic)
{
	int error = shmq_topic_remove(self.bus, topic, 0);

	if (error)
		fail(error, "removing \"%s\"", topic);
}

/* A supervisor that was started on demand leaves an empty bus by itself after
 * a while.  Asked to stop it does so at once, as nobody else is attached. */
static void stop_bus(void)
{
	pid_t parent = bus_info().parent_pid;
	struct pollfd fd = { .fd = pidfd_open(parent, 0), .events = POLLIN };
	int error;

	if (fd.fd < 0)
		fail(-errno, "watching the supervisor");
	for (size_t i = 0; i < self.topic_count; i++)
		remove_topic(self.topics[i]);
	remove_topic(TOPIC_EVENTS);
	error = shmq_bus_stop(self.bus, 0);
	if (error)
		fail(error, "stopping the bus");
	shmq_bus_close(self.bus);
	self.bus = NULL;
	if (poll(&fd, 1, PATIENCE_NS / NS_PER_MS) == 1)
		return;
	kill(parent, SIGTERM);
	fail(0, "the supervisor (pid %d) does not stop", parent);
}

/* What hangs must not outlive the time a demonstration may take. */
static void limit_time(void)
{
	struct sigaction stop;

	sigaction(SIGTERM, NULL, &stop);
	sigaction(SIGALRM, &stop, NULL);
	alarm(LIMIT_S);
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "conduct" };

	demo_init(argc, argv, &options);
	limit_time();
	snprintf(self.dir, sizeof(self.dir), "%s", dirname(strdupa(argv[0])));
	start_bus();
	start_programs();
	run_acts();
	stop_programs();
	check_replay();
	account();
	stop_bus();
	printf("\ndemo: all checks passed\n");
	return 0;
}
