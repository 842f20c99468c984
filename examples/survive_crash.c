/* SPDX-License-Identifier: MIT
 *
 * Surviving a crash: a publisher is killed with SIGKILL in full run.  Its
 * subscriber reads everything it had committed, learns of the death, and goes
 * on with the successor, in the same handle and without a gap.
 *
 *   cc -o survive_crash survive_crash.c $(pkg-config --cflags --libs shmq)
 */
#include <shmq.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOPIC "ticks"
#define SECOND 1000000000LL

enum { ENOUGH = 10000, LAST = 1 }; /* LAST: the type of a publisher's last message */

static shmq_bus *bus;

static void must(int error, const char *what)
{
	if (error >= 0)
		return;
	fprintf(stderr, "survive_crash: %s: %s %s\n", what, shmq_strerror(error),
		bus ? shmq_bus_error(bus) : "");
	exit(1);
}

static void open_bus(void)
{
	const struct shmq_bus_options opts = { .size = sizeof(opts),
					       .start = SHMQ_START_ON_DEMAND };

	must(shmq_bus_open(NULL, &opts, &bus), "opening the bus");
}

/* In a child: publish 1, 2, 3 ... up to `count`, or until killed.  What the
 * parent has open belongs to the parent; a child opens a bus of its own. */
static pid_t start_publisher(uint64_t count)
{
	pid_t pid = fork();
	shmq_pub *pub;

	if (pid)
		return pid;
	open_bus();
	must(shmq_pub_open(bus, TOPIC, NULL, &pub), "publishing to " TOPIC);
	for (uint64_t n = 1; n <= count; n++) {
		struct shmq_msg msg = { .data = &n,
					.len = sizeof(n),
					.type = n == count ? LAST : 0 };

		must(shmq_publish_msg(pub, &msg), "publishing");
	}
	shmq_bus_close(bus);
	_exit(0);
}

/* Read on until `count` came, the last one came, or nothing has come for
 * `timeout_ns`.  Every number must follow the one before. */
static uint64_t read_on(shmq_sub *sub, uint64_t from, uint64_t count, int64_t timeout_ns)
{
	struct shmq_msg msg = { 0 };
	uint64_t n = from;

	while (n < count && msg.type != LAST) {
		uint64_t value;
		int error = shmq_receive(sub, &msg, timeout_ns);

		if (error == SHMQ_EEMPTY)
			return n;
		must(error, "receiving");
		memcpy(&value, msg.data, sizeof(value));
		if (value != ++n)
			must(SHMQ_ECORRUPT, "counting");
	}
	return n;
}

/* The event comes when the dead publisher's traces are repaired already. */
static void await_death(pid_t pid)
{
	struct shmq_event event;

	do
		must(shmq_bus_event(bus, &event, 10 * SECOND), "waiting for the event");
	while (event.kind != SHMQ_EVENT_DIED || event.pid != pid);
}

int main(void)
{
	shmq_sub *sub;
	uint64_t before, after;
	pid_t pid;
	int status;

	open_bus();
	must(shmq_topic_create(bus, TOPIC, NULL, NULL), "creating " TOPIC);
	must(shmq_sub_open(bus, TOPIC, NULL, &sub), "subscribing to " TOPIC);

	pid = start_publisher(UINT64_MAX);
	before = read_on(sub, 0, ENOUGH, 10 * SECOND);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	await_death(pid);
	before = read_on(sub, before, UINT64_MAX, SHMQ_NOWAIT);
	printf("publisher killed by signal %d\n", WTERMSIG(status));
	printf("%s messages read without a gap, in it and after its death\n",
	       before >= ENOUGH ? "all its" : "too few");

	pid = start_publisher(ENOUGH);
	after = read_on(sub, 0, UINT64_MAX, 10 * SECOND);
	waitpid(pid, &status, 0);
	printf("its successor took over: %llu of %d messages read in the same handle\n",
	       (unsigned long long)after, ENOUGH);

	shmq_sub_close(sub);
	must(shmq_topic_remove(bus, TOPIC, 0), "removing " TOPIC);
	shmq_bus_close(bus);
	return before < ENOUGH || after != ENOUGH || status != 0;
}
