/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char question[] =
	"How much memory do a topic and a subscriber take: shared, of the supervisor, of the\n"
	"client?";

static const struct shape {
	const char *name;
	struct shmq_topic_options options;
} shapes[] = {
	{ "smallest", { .depth = 1024, .slot_bytes = 64 } },
	{ "default", { 0 } },
};
static const unsigned counts[] = { 1, 100, 10000 };

static struct shmq_topic_options options_of(const struct shape *shape)
{
	struct shmq_topic_options o = shape->options;

	o.size = sizeof(o);
	return o;
}

static const char *topic_name(unsigned i)
{
	static char name[32];

	snprintf(name, sizeof(name), "topic.%u", i);
	return name;
}

/* ---- what is taken --------------------------------------------------------------- */

struct taken {
	double shared;     /* pages that the bus's memory files have */
	double supervisor; /* both of its processes' own, page tables included */
	double client;     /* the same of this one */
};

/* The value of "field: n kB" in a file of /proc/<pid>. */
static double kib_field(pid_t pid, const char *file, const char *field)
{
	size_t length = strlen(field);
	char line[256];
	double kib = -1;
	FILE *f;

	snprintf(line, sizeof(line), "/proc/%d/%s", (int)pid, file);
	f = fopen(line, "r");
	while (f && kib < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, length) && line[length] == ':')
			kib = strtod(line + length + 1, NULL);
	if (f)
		fclose(f);
	if (kib < 0)
		bench_fail("%s of process %d cannot be read", field, (int)pid);
	return kib;
}

static double private_bytes(pid_t pid)
{
	double pages = kib_field(pid, "smaps_rollup", "Anonymous");

	return 1024 * (pages + kib_field(pid, "status", "VmPTE"));
}

/* A file counts once, however many descriptors of it a process has. */
static double file_bytes(pid_t pid)
{
	char path[300], target[64];
	ino_t *seen = NULL, *more;
	size_t count = 0, i;
	struct dirent *e;
	double sum = 0;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	fds = opendir(path);
	if (!fds)
		bench_fail("%s cannot be read", path);
	while ((e = readdir(fds))) {
		struct stat st;
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, e->d_name);
		n = readlink(path, target, sizeof(target));
		if (n <= 7 || memcmp(target, "/memfd:", 7) || stat(path, &st))
			continue;
		for (i = 0; i < count && seen[i] != st.st_ino; i++)
			;
		if (i < count)
			continue;
		more = realloc(seen, ++count * sizeof(seen[0]));
		if (!more)
			bench_fail("no memory");
		seen = more;
		seen[i] = st.st_ino;
		sum += 512.0 * (double)st.st_blocks;
	}
	closedir(fds);
	free(seen);
	return sum;
}

static struct taken look(shmq_bus *bus)
{
	struct shmq_bus_info info;

	BENCH_OK(shmq_bus_get_info(bus, &info));
	return (struct taken){ file_bytes(info.daemon_pid),
			       private_bytes(info.daemon_pid) + private_bytes(info.parent_pid),
			       private_bytes(getpid()) };
}

static void note(const char *name, const char *stat, double bytes, unsigned n)
{
	bench_note_stat(name, stat, "B", bytes > 0 ? (double)(uint64_t)(bytes / n + 0.5) : 0);
}

/* ---- a bus of so many topics -------------------------------------------------------- */

struct scene {
	const struct shape *shape;
	unsigned topics;
	char bus[64];
};

/* Not more than a quarter of what there is: others live here too. */
static int is_affordable(shmq_bus *bus, const struct scene *s)
{
	struct shmq_topic_options o = options_of(s->shape);
	struct shmq_plan plan;

	BENCH_OK(shmq_topic_plan(bus, topic_name(0), &o, &plan));
	return plan.available_bytes / 4 / (plan.ring_bytes + plan.control_bytes) >= s->topics;
}

static void subscribe_to_all(void *arg)
{
	const struct scene *s = arg;
	shmq_bus *bus = bench_open_named(s->bus);
	struct taken before = look(bus), after;
	shmq_sub *sub;
	unsigned i;

	for (i = 0; i < s->topics; i++)
		BENCH_OK(shmq_sub_open(bus, topic_name(i), NULL, &sub));
	after = look(bus);
	bench_shared->result[0] = after.shared - before.shared;
	bench_shared->result[1] = after.supervisor - before.supervisor;
	bench_shared->result[2] = after.client - before.client;
	shmq_bus_close(bus);
}

static void measure(struct scene *s)
{
	struct bench_proc proc = { subscribe_to_all, s, 0 };
	struct shmq_topic_options o = options_of(s->shape);
	shmq_bus *bus = bench_open_named(s->bus);
	struct taken before, after;
	char figure[64];
	unsigned i;

	snprintf(figure, sizeof(figure), "memory.%s.%u_topics", s->shape->name, s->topics);
	if (!is_affordable(bus, s)) {
		printf("distrust %s so many would take more than a quarter of the memory: not measured\n",
		       figure);
		shmq_bus_close(bus);
		return;
	}
	if (s->topics == 1)
		printf("label %s pools grow by chunks, so one alone takes nothing or a chunk\n",
		       figure);
	before = look(bus);
	for (i = 0; i < s->topics; i++)
		BENCH_OK(shmq_topic_create(bus, topic_name(i), &o, NULL));
	after = look(bus);
	snprintf(figure, sizeof(figure), "memory.%s.%u_topics.topic", s->shape->name, s->topics);
	note(figure, "shared", after.shared - before.shared, s->topics);
	note(figure, "supervisor", after.supervisor - before.supervisor, s->topics);
	bench_run(&proc, 1);
	snprintf(figure, sizeof(figure), "memory.%s.%u_topics.subscriber", s->shape->name,
		 s->topics);
	note(figure, "shared", bench_shared->result[0], s->topics);
	note(figure, "supervisor", bench_shared->result[1], s->topics);
	note(figure, "client", bench_shared->result[2], s->topics);
	BENCH_OK(shmq_bus_stop(bus, SHMQ_FORCE)); /* the next may need the memory */
	shmq_bus_close(bus);
}

/* What is there before the first topic, pools for some included. */
static void measure_empty(void)
{
	double own = private_bytes(getpid());
	shmq_bus *bus = bench_open();
	struct taken empty = look(bus);

	note("memory.empty_bus", "shared", empty.shared, 1);
	note("memory.empty_bus", "supervisor", empty.supervisor, 1);
	note("memory.empty_bus", "client", empty.client - own, 1);
	shmq_bus_close(bus);
}

int main(int argc, char **argv)
{
	unsigned shape, i, n = sizeof(counts) / sizeof(counts[0]);

	bench_init(argc, argv, BENCH_BUS, question);
	measure_empty();
	for (shape = 0; shape < sizeof(shapes) / sizeof(shapes[0]); shape++)
		for (i = 0; i < (bench.smoke ? 2 : n); i++) {
			struct scene s = { .shape = &shapes[shape], .topics = counts[i] };

			snprintf(s.bus, sizeof(s.bus), "%s-%u", s.shape->name, s.topics);
			measure(&s);
		}
	return bench_end();
}
