/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct bench bench = { .rounds = 9 };
struct bench_shared *bench_shared;
const struct bench_shared *bench_shared_ro;

static char dir[64];
static pid_t pids[BENCH_PROCS_MAX];
static unsigned pid_count;
static pid_t main_pid;

struct note {
	char name[96], unit[16];
	unsigned n;
	double value[BENCH_ROUNDS_MAX];
};
static struct note notes[256];
static unsigned note_count;

void bench_fail(const char *format, ...)
{
	va_list ap;
	unsigned i;

	va_start(ap, format);
	fprintf(stderr, "bench: ");
	vfprintf(stderr, format, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	if (getpid() != main_pid)
		_exit(1);
	for (i = 0; i < pid_count; i++)
		kill(pids[i], SIGKILL);
	bench_end();
	exit(1);
}

uint64_t bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int bench_has_tsc;
double bench_tick_ns = 1;

/* Is the counter invariant, and how long is a tick?  The kernel says the
 * first; 20 ms beside the clock say the second within 10 ppm or so. */
static void calibrate(void)
{
#if defined(__x86_64__)
	uint64_t at, ticks;
	char line[4096];
	FILE *f = fopen("/proc/cpuinfo", "r");

	while (f && !bench_has_tsc && fgets(line, sizeof(line), f))
		bench_has_tsc = !strncmp(line, "flags", 5) && strstr(line, " constant_tsc") &&
				strstr(line, " nonstop_tsc");
	if (f)
		fclose(f);
	if (!bench_has_tsc)
		return;
	at = bench_now();
	ticks = bench_tick();
	while (bench_now() - at < 20000000)
		;
	bench_tick_ns = (double)(bench_now() - at) / (double)(bench_tick() - ticks);
#endif
}

static void help(const char *program, const char *question)
{
	printf("usage: %s [--rounds N] [--quick] [--peers none|NAME,...]\n\n%s\n\n"
	       "Prints lines `figure <name> <value> <unit>`: the median of the rounds, with its\n"
	       "minimum and maximum as <name>.min and <name>.max.  Exit status 1 if a message was\n"
	       "lost, doubled or torn.\n",
	       program, question);
	exit(0);
}

static void map_shared(void)
{
	int fd = memfd_create("shmq-bench", MFD_CLOEXEC);
	size_t bytes = sizeof(*bench_shared);

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		bench_fail("making the shared area: %s", strerror(errno));
	bench_shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	bench_shared_ro = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (bench_shared == MAP_FAILED || bench_shared_ro == MAP_FAILED)
		bench_fail("mapping the shared area: %s", strerror(errno));
	close(fd);
}

void bench_init(int argc, char **argv, enum bench_need need_bus, const char *question)
{
	static const struct option options[] = { { "rounds", required_argument, NULL, 'r' },
						 { "quick", no_argument, NULL, 'q' },
						 { "peers", required_argument, NULL, 'p' },
						 { "help", no_argument, NULL, 'h' },
						 { 0 } };
	cpu_set_t set;
	int c;

	main_pid = getpid();
	while ((c = getopt_long(argc, argv, "r:qp:h", options, NULL)) != -1) {
		if (c == 'h')
			help(argv[0], question);
		else if (c == 'q')
			bench.quick = 1;
		else if (c == 'p')
			bench.peers = optarg;
		else if (c == 'r')
			bench.rounds = (unsigned)atoi(optarg);
		else
			exit(2);
	}
	if (bench.rounds < 1 || bench.rounds > BENCH_ROUNDS_MAX) {
		fprintf(stderr, "bench: rounds must be 1 to %d\n", BENCH_ROUNDS_MAX);
		exit(2);
	}
	if (bench.quick && bench.rounds > 5)
		bench.rounds = 5;
	CPU_ZERO(&set);
	sched_getaffinity(0, sizeof(set), &set);
	bench.cpus = CPU_COUNT(&set);
	calibrate();
	map_shared();
	if (need_bus == BENCH_NO_BUS)
		return;
	snprintf(dir, sizeof(dir), "%s/shmq-bench-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(dir))
		bench_fail("making %s: %s", dir, strerror(errno));
	setenv("SHMQ_RUNTIME_DIR", dir, 1);
	bench.bus = "bench";
}

static void stop_bus(void)
{
	struct shmq_bus_options o = { .size = sizeof(o) };
	char command[128];
	shmq_bus *bus;

	if (!dir[0])
		return;
	if (!shmq_bus_open(bench.bus, &o, &bus)) {
		shmq_bus_stop(bus, SHMQ_FORCE);
		shmq_bus_close(bus);
	}
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	if (system(command))
		fprintf(stderr, "bench: %s is left behind\n", dir);
	dir[0] = 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double bench_median(double *value, unsigned n)
{
	qsort(value, n, sizeof(value[0]), by_value);
	return n % 2 ? value[n / 2] : (value[n / 2 - 1] + value[n / 2]) / 2;
}

int bench_end(void)
{
	unsigned i;

	stop_bus();
	for (i = 0; i < note_count; i++) {
		struct note *n = &notes[i];
		double median = bench_median(n->value, n->n);

		printf("figure %s %.6g %s\n", n->name, median, n->unit);
		printf("figure %s.min %.6g %s\n", n->name, n->value[0], n->unit);
		printf("figure %s.max %.6g %s\n", n->name, n->value[n->n - 1], n->unit);
	}
	fflush(stdout);
	return 0;
}

static struct note *find_note(const char *name)
{
	unsigned i;

	for (i = 0; i < note_count; i++)
		if (!strcmp(notes[i].name, name))
			return &notes[i];
	return NULL;
}

int bench_has(const char *name)
{
	return !!find_note(name);
}

void bench_note(const char *name, const char *unit, double value)
{
	struct note *n = find_note(name);

	if (!n) {
		if (note_count == sizeof(notes) / sizeof(notes[0]))
			bench_fail("too many figures");
		n = &notes[note_count++];
		snprintf(n->name, sizeof(n->name), "%s", name);
		snprintf(n->unit, sizeof(n->unit), "%s", unit);
	}
	if (n->n < BENCH_ROUNDS_MAX)
		n->value[n->n++] = value;
}

void bench_note_stat(const char *name, const char *stat, const char *unit, double value)
{
	char whole[96];

	snprintf(whole, sizeof(whole), "%s.%s", name, stat);
	bench_note(whole, unit, value);
}

void bench_ratio(const char *name, const char *of, const char *to)
{
	struct note *a = find_note(of), *b = find_note(to);
	unsigned i;

	if (!a || !b)
		bench_fail("no figures to compare for %s", name);
	for (i = 0; i < a->n && i < b->n; i++)
		bench_note(name, "ratio", a->value[i] / b->value[i]);
}

void bench_busy(const char *figures, unsigned processes)
{
	if (processes > (unsigned)bench.cpus)
		printf("label %s %u busy processes on %d processors measure the scheduler\n",
		       figures, processes, bench.cpus);
}

static void pin(int cpu)
{
	cpu_set_t set, may;
	int i, k = 0;

	if (cpu < 0)
		return;
	CPU_ZERO(&may);
	sched_getaffinity(0, sizeof(may), &may);
	CPU_ZERO(&set);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &may) && k++ == cpu % bench.cpus)
			CPU_SET(i, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void bench_run(const struct bench_proc *proc, unsigned n)
{
	unsigned i;
	int failed = 0;

	atomic_store(&bench_shared->ready, 0);
	atomic_store(&bench_shared->go, 0);
	atomic_store(&bench_shared->stop, 0);
	memset((void *)bench_shared->word, 0, sizeof(bench_shared->word));
	fflush(stdout);
	for (i = 0; i < n; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			bench_fail("fork: %s", strerror(errno));
		if (pids[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pin(proc[i].cpu);
			proc[i].run(proc[i].arg);
			_exit(0);
		}
		pid_count = i + 1;
	}
	while (n) {
		int status;
		pid_t pid = wait(&status);

		if (pid < 0)
			break;
		for (i = 0; i < pid_count && pids[i] != pid; i++)
			;
		if (i == pid_count)
			continue;
		n--;
		if (status && !failed) {
			failed = 1;
			for (i = 0; i < pid_count; i++)
				if (pids[i] != pid)
					kill(pids[i], SIGKILL);
		}
	}
	pid_count = 0;
	if (failed)
		bench_fail("a process of the run failed");
}

void bench_meet(unsigned n)
{
	if (atomic_fetch_add(&bench_shared->ready, 1) + 1 == n)
		atomic_store(&bench_shared->go, 1);
	while (!atomic_load(&bench_shared->go))
		sched_yield();
}

shmq_bus *bench_open(void)
{
	struct shmq_bus_options o = { .size = sizeof(o), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus;

	BENCH_OK(shmq_bus_open(bench.bus, &o, &bus));
	return bus;
}

static int by_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void bench_sort_samples(void)
{
	qsort(bench_shared->samples, bench_shared->sample_count, sizeof(uint64_t), by_u64);
}

uint64_t bench_quantile(double q)
{
	uint64_t n = bench_shared->sample_count, i = (uint64_t)(q * (double)n);

	return n ? bench_shared->samples[i < n ? i : n - 1] : 0;
}
