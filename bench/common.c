/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <limits.h>
#include <linux/futex.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MAX_S 86400
#define QUICK_ROUNDS_MAX 9
#define START_NS UINT64_C(10000000000)

struct bench bench = { .rounds = 9, .limit_s = 120 };
struct bench_shared *bench_shared;
const struct bench_shared *bench_shared_ro;

static char dir[80]; /* sockets in it have short names and 107 bytes */
static pid_t pids[BENCH_PROCS_MAX];
static unsigned pid_count;
static pid_t main_pid;
static cpu_set_t usable;

static unsigned runs;
static suseconds_t limit_us; /* added to limit_s */
static int is_mutant;        /* a fork whose ring is another */

struct note {
	char name[96], unit[16];
	unsigned n;
	double value[BENCH_ROUNDS_MAX];
};
static struct note *notes;
static unsigned note_count, note_room;

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

static const char *const peers[] = { BENCH_TRANSPORTS, BENCH_STORES };
#define PEERS (sizeof(peers) / sizeof(peers[0]))

static void help(const char *program, const char *question)
{
	unsigned i;

	printf("usage: %s [--quick] [--rounds N] [--peers LIST] [--limit S] [--smoke]\n\n%s\n\n"
	       "  --quick       fewer and shorter rounds, and no peers\n"
	       "  --rounds N    measure N times, 1 to %d (%u; with --quick at most %d)\n"
	       "  --peers LIST  measure these beside shmq: all, none, or names with commas\n"
	       "                between (%s), of",
	       program, question, BENCH_ROUNDS_MAX, bench.rounds, QUICK_ROUNDS_MAX,
	       bench.peers ? bench.peers : "all, with --quick none");
	for (i = 0; i < PEERS; i++)
		printf("%s%s", i % 7 ? " " : "\n                ", peers[i]);
	printf("\n"
	       "  --limit S     one round of one workload fails after S seconds, 1 to %d\n"
	       "                (%u): a message that is lost is waited for\n"
	       "  --smoke       one round of few messages, which only shows that it works\n\n"
	       "Prints lines `figure <name> <value> <unit>`: the median of the rounds, with its\n"
	       "minimum and maximum as <name>.min and <name>.max, and `rounds <name> <value> ...`.\n"
	       "Exit status: 0 all was measured; 1 a message was lost, doubled or torn, or what was\n"
	       "asked for could not be done; 2 bad usage.\n",
	       LIMIT_MAX_S, bench.limit_s);
	exit(0);
}

static void usage(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void usage(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fprintf(stderr, "bench: ");
	vfprintf(stderr, format, ap);
	fprintf(stderr, " (see --help)\n");
	va_end(ap);
	exit(2);
}

/* Is a name in a list with commas between? */
static int is_listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (; *list; list += strcspn(list, ","), list += *list == ',')
		if (strcspn(list, ",") == len && !strncmp(list, name, len))
			return 1;
	return 0;
}

int bench_peer_is_chosen(const char *name)
{
	const char *list = bench.peers ? bench.peers : bench.quick ? "none" : "all";

	return !strcmp(list, "all") || is_listed(list, name);
}

static const char *parse_peers(const char *list)
{
	const char *name = list;
	size_t len, i;

	if (!strcmp(list, "all") || !strcmp(list, "none"))
		return list;
	do {
		len = strcspn(name, ",");
		for (i = 0; i < PEERS; i++)
			if (strlen(peers[i]) == len && !strncmp(peers[i], name, len))
				break;
		if (i == PEERS)
			usage("--peers: there is no peer \"%.*s\"", (int)len, name);
		name += len;
	} while (*name++);
	return list;
}

/* The number that an option was given, from 1 to `most`. */
static unsigned parse_count(const char *option, const char *text, unsigned most)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno && n >= 1 && n <= most)
		return (unsigned)n;
	usage("--%s must be a number from 1 to %u, not \"%s\"", option, most, text);
}

static volatile sig_atomic_t ended_by;

/* Ends a wait(). */
static void on_signal(int sig)
{
	ended_by = sig;
}

static void watch_signals(void (*handler)(int sig))
{
	static const int sigs[] = { SIGALRM, SIGINT, SIGTERM };
	struct sigaction action = { .sa_handler = handler };
	unsigned i;

	for (i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		sigaction(sigs[i], &action, NULL);
}

static void check_signals(void)
{
	if (ended_by == SIGALRM)
		bench_fail("a message is missing: the run has not ended within %u s",
			   bench.limit_s);
	if (ended_by)
		bench_fail("ended by signal %d", ended_by);
}

/* Supervisors are children of this program once who started them has ended:
 * whoever runs it sees by its times what they used. */
static void reap(void)
{
	int ms;

	for (ms = 0; getpid() == main_pid && ms < 2000; ms++) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0)
			return;
		if (!pid)
			usleep(1000);
	}
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
						 { "smoke", no_argument, NULL, 's' },
						 { "mutants", no_argument, NULL, 'm' },
						 { "limit", required_argument, NULL, 'l' },
						 { "help", no_argument, NULL, 'h' },
						 { 0 } };
	const char *tmp;
	int c;

	main_pid = getpid();
	while ((c = getopt_long(argc, argv, "r:qsl:p:h", options, NULL)) != -1) {
		if (c == 'h')
			help(argv[0], question);
		else if (c == 'q')
			bench.quick = 1;
		else if (c == 'p')
			bench.peers = parse_peers(optarg);
		else if (c == 's')
			bench.quick = bench.smoke = 1;
		else if (c == 'm')
			bench.smoke = bench.mutants = 1;
		else if (c == 'l')
			bench.limit_s = parse_count("limit", optarg, LIMIT_MAX_S);
		else if (c == 'r')
			bench.rounds = parse_count("rounds", optarg, BENCH_ROUNDS_MAX);
		else
			exit(2); /* getopt has said why */
	}
	if (optind < argc)
		usage("what is \"%s\"?", argv[optind]);
	if (bench.quick && bench.rounds > QUICK_ROUNDS_MAX)
		bench.rounds = QUICK_ROUNDS_MAX;
	if (bench.smoke)
		bench.rounds = 1;
	CPU_ZERO(&usable);
	sched_getaffinity(0, sizeof(usable), &usable);
	bench.cpus = CPU_COUNT(&usable);
	calibrate();
	map_shared();
	watch_signals(on_signal);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	atexit(reap); /* after all that is registered later */
	if (need_bus == BENCH_NO_BUS)
		return;
	tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	if (snprintf(dir, sizeof(dir), "%s/shmq-bench-XXXXXX", tmp) >= (int)sizeof(dir)) {
		dir[0] = 0;
		bench_fail("TMPDIR is %s: too long for a socket in it", tmp);
	}
	if (!mkdtemp(dir))
		bench_fail("making %s: %s", dir, strerror(errno));
	setenv("SHMQ_RUNTIME_DIR", dir, 1);
	bench.bus = "bench";
}

static void stop_bus(const char *name)
{
	struct shmq_bus_options o = { .size = sizeof(o) };
	shmq_bus *bus;

	if (!shmq_bus_open(name, &o, &bus)) {
		shmq_bus_stop(bus, SHMQ_FORCE);
		shmq_bus_close(bus);
	}
}

static void stop_buses(void)
{
	DIR *sockets = dir[0] ? opendir(dir) : NULL;
	char command[128];
	struct dirent *e;

	if (!sockets)
		return;
	while ((e = readdir(sockets))) {
		char *end = strstr(e->d_name, ".sock");

		if (!end || end[5])
			continue;
		*end = 0;
		stop_bus(e->d_name);
	}
	closedir(sockets);
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

/* And leave only the rounds that have a value: how many. */
static unsigned print_rounds(struct note *n)
{
	unsigned i, kept = 0;

	for (i = 0; i < n->n; i++)
		kept += !isnan(n->value[i]);
	if (!kept)
		return n->n = 0;
	printf("rounds %s", n->name);
	for (i = kept = 0; i < n->n; i++) {
		if (isnan(n->value[i])) {
			printf(" -");
			continue;
		}
		printf(" %.6g", n->value[i]);
		n->value[kept++] = n->value[i];
	}
	printf("\n");
	return n->n = kept;
}

int bench_end(void)
{
	unsigned i;

	if (is_mutant)
		_exit(0);
	stop_buses();
	for (i = 0; i < note_count; i++) {
		struct note *n = &notes[i];
		double median;

		if (!print_rounds(n))
			continue;
		median = bench_median(n->value, n->n);
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
		if (note_count == note_room) {
			note_room = 2 * note_room + 64;
			notes = realloc(notes, note_room * sizeof(*notes));
			if (!notes)
				bench_fail("out of memory");
		}
		n = &notes[note_count++];
		n->n = 0;
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

void bench_label(const char *figures, const char *format, ...)
{
	static char **said;
	static size_t count;
	char text[256], *line;
	va_list ap;
	size_t i;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (asprintf(&line, "label %s %s", figures, text) < 0)
		bench_fail("out of memory");
	for (i = 0; i < count && strcmp(said[i], line) != 0; i++)
		;
	if (i < count) {
		free(line);
		return;
	}
	said = realloc(said, (count + 1) * sizeof(*said));
	if (!said)
		bench_fail("out of memory");
	said[count++] = line;
	puts(line);
}

void bench_busy(const char *figures, unsigned processes)
{
	if (processes > (unsigned)bench.cpus)
		printf("distrust %s %u busy processes on %d processors measure the scheduler\n",
		       figures, processes, bench.cpus);
}

void bench_pin(int cpu)
{
	cpu_set_t set;
	int i, k = 0;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &usable) && k++ == cpu % bench.cpus)
			CPU_SET(i, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void bench_unpin(void)
{
	sched_setaffinity(0, sizeof(usable), &usable);
}

static void run(const struct bench_proc *proc, unsigned n)
{
	/* Again and again, for the first may come just before a wait(). */
	const struct itimerval limit = { { 1, 0 }, { bench.limit_s, limit_us } }, none = { 0 };
	unsigned i;
	int failed = 0;

	if (n > BENCH_PROCS_MAX)
		bench_fail("too many processes");
	atomic_store(&bench_shared->ready, 0);
	atomic_store(&bench_shared->go, 0);
	atomic_store(&bench_shared->stop, 0);
	atomic_store(&bench_shared->stage, 0);
	memset((void *)bench_shared->word, 0, sizeof(bench_shared->word));
	fflush(stdout);
	for (i = 0; i < n; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			bench_fail("fork: %s", strerror(errno));
		if (pids[i] == 0) {
			watch_signals(SIG_DFL);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			bench_pin(proc[i].cpu);
			proc[i].run(proc[i].arg);
			_exit(0);
		}
		pid_count = i + 1;
	}
	setitimer(ITIMER_REAL, &limit, NULL);
	while (n) {
		int status;
		pid_t pid = wait(&status);

		check_signals();
		if (pid < 0 && errno != EINTR)
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
	setitimer(ITIMER_REAL, &none, NULL);
	pid_count = 0;
	if (failed)
		bench_fail("a process of the run failed");
}

/* In a fork that goes on from here with another ring.  0 where that went well. */
static int run_mutant(const struct bench_proc *proc, unsigned n, unsigned fate, unsigned limit_ms)
{
	int status;
	pid_t pid;

	atomic_store(&bench_shared->fate, fate);
	atomic_store(&bench_shared->mutated, 0);
	pid = fork();
	if (pid < 0)
		bench_fail("fork: %s", strerror(errno));
	if (!pid) {
		is_mutant = 1;
		bench.limit_s = limit_ms / 1000;
		limit_us = (suseconds_t)(limit_ms % 1000) * 1000;
		run(proc, n);
		return -1; /* to the caller of the run, who may notice it */
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		check_signals();
	return !!status;
}

/* On the ring as it is all went well: now it is another.  Who waits for what was
 * lost waits until the limit, which on a busy machine may come before anything
 * was sent. */
static void run_mutants(const struct bench_proc *proc, unsigned n)
{
	static const char *const what[BENCH_FATES] = { "", "loses", "doubles", "tears" };
	static struct bench_shared *kept;
	unsigned fate, ms;
	int failed;

	if (!kept && !(kept = malloc(sizeof(*kept))))
		bench_fail("out of memory");
	memcpy(kept, bench_shared, sizeof(*kept));
	for (fate = BENCH_KEEP + 1; fate < BENCH_FATES; fate++) {
		for (ms = fate == BENCH_LOSE ? 100 : 1000;; ms *= 4) {
			failed = run_mutant(proc, n, fate, ms);
			if (failed < 0)
				return;
			if (atomic_load(&bench_shared->mutated))
				break;
			if (!failed || ms > 20000)
				bench_fail("run %u sends nothing", runs);
		}
		if (!failed)
			bench_fail("run %u does not notice that its ring %s messages", runs,
				   what[fate]);
	}
	memcpy(bench_shared, kept, sizeof(*kept));
	atomic_store(&bench_shared->fate, BENCH_KEEP);
}

void bench_run(const struct bench_proc *proc, unsigned n)
{
	if (is_mutant) /* and nobody has noticed */
		_exit(0);
	atomic_store(&bench_shared->published, 0);
	bench_shared->run = ++runs;
	run(proc, n);
	if (!atomic_load(&bench_shared->published))
		return;
	printf("published %u\n", runs);
	if (bench.mutants)
		run_mutants(proc, n);
}

void bench_meet(unsigned n)
{
	if (atomic_fetch_add(&bench_shared->ready, 1) + 1 == n)
		atomic_store(&bench_shared->go, 1);
	while (!atomic_load(&bench_shared->go))
		sched_yield();
}

void bench_say_stage(unsigned stage)
{
	atomic_store(&bench_shared->stage, stage);
	syscall(SYS_futex, &bench_shared->stage, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void bench_await_stage(unsigned stage)
{
	unsigned now;

	while ((now = atomic_load(&bench_shared->stage)) < stage)
		syscall(SYS_futex, &bench_shared->stage, FUTEX_WAIT, now, NULL, NULL, 0);
}

uint64_t bench_amount(uint64_t n)
{
	return bench.smoke && n > 256 ? 256 : n;
}

shmq_bus *bench_open_named(const char *name)
{
	struct shmq_bus_options o = { .size = sizeof(o), .start = SHMQ_START_ON_DEMAND };
	shmq_bus *bus;

	BENCH_OK(shmq_bus_open(name, &o, &bus));
	return bus;
}

shmq_bus *bench_open(void)
{
	return bench_open_named(bench.bus);
}

pid_t bench_start_supervisor(const char *bus, int cpu)
{
	const char *program = getenv("SHMQ_DAEMON");
	pid_t pid = fork();

	if (pid < 0)
		bench_fail("fork: %s", strerror(errno));
	if (!pid) {
		setpgid(0, 0);
		watch_signals(SIG_DFL);
		bench_pin(cpu);
		/* Nobody is to wait for the end of our output because of it. */
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execlp(program ? program : "shmqd", "shmqd", "--bus", bus, "--foreground",
		       "--log-level", "error", (char *)NULL);
		bench_fail("starting shmqd: %s", strerror(errno));
	}
	setpgid(pid, pid); /* whichever of the two is first */
	return pid;
}

shmq_bus *bench_open_started_named(const char *name)
{
	struct shmq_bus_options o = { .size = sizeof(o), .start = SHMQ_START_NEVER };
	uint64_t until = bench_now() + START_NS;
	shmq_bus *bus;
	int rc;

	while ((rc = shmq_bus_open(name, &o, &bus)) && bench_now() < until)
		usleep(1000);
	BENCH_OK(rc);
	return bus;
}

shmq_bus *bench_open_started(void)
{
	return bench_open_started_named(bench.bus);
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

double bench_quantile_smooth(double q)
{
	const uint64_t *s = bench_shared->samples;
	uint64_t n = bench_shared->sample_count, v = bench_quantile(q), from, to;
	double low, high;

	for (from = 0; from < n && s[from] < v; from++)
		;
	for (to = from; to < n && s[to] == v; to++)
		;
	if (from == to)
		return (double)v;
	low = from ? (double)(s[from - 1] + v) / 2 : (double)v;
	high = to < n ? (double)(s[to] + v) / 2 : (double)v;
	return low + (high - low) * (q * (double)n - (double)from) / (double)(to - from);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

void bench_scrub(const char *where, const char *prefix, pid_t owner)
{
	DIR *d = opendir(where);
	const struct dirent *entry;
	char path[PATH_MAX];

	while (d && (entry = readdir(d))) {
		const char *rest = entry->d_name + strlen(prefix);
		pid_t pid;

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		pid = (pid_t)strtol(rest, NULL, 10);
		if (pid != owner && (kill(pid, 0) == 0 || errno != ESRCH))
			continue;
		snprintf(path, sizeof(path), "%s/%s", where, entry->d_name);
		nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	}
	if (d)
		closedir(d);
}
