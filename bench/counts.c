/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char question[] =
	"How many instructions, system calls and cache misses does a message take, to publish\n"
	"and to receive?";

#define BYTES 64
#define DEPTH 1024
#define BATCH 16u      /* messages of a batch, and of a poll */
#define STREAM 262144u /* messages in which cache misses are counted */

static const struct mode {
	const char *name; /* of topic and figures */
	enum shmq_mode mode;
} modes[] = { { "exclusive", SHMQ_EXCLUSIVE }, { "shared", SHMQ_SHARED } };
#define MODES (sizeof(modes) / sizeof(modes[0]))

/* So many are looked at one by one. */
static unsigned messages(void)
{
	return bench.smoke ? 8 : bench.quick ? 16 : BENCH_ROUNDS_MAX;
}

static shmq_pub *open_pub(shmq_bus *bus, const char *topic, enum shmq_wake wake)
{
	struct shmq_pub_options o = { .size = sizeof(o), .wake = wake };
	shmq_pub *pub;

	BENCH_OK(shmq_pub_open(bus, topic, &o, &pub));
	return pub;
}

static shmq_sub *open_sub(shmq_bus *bus, const char *topic, enum shmq_wait wait)
{
	struct shmq_sub_options o = { .size = sizeof(o), .wait = wait };
	shmq_sub *sub;

	BENCH_OK(shmq_sub_open(bus, topic, &o, &sub));
	return sub;
}

static void verify(const struct shmq_msg *msg, uint64_t seq)
{
	char copy[BYTES];

	memcpy(copy, msg->data, msg->len < BYTES ? msg->len : BYTES);
	if (msg->len != BYTES || msg->seq != seq || bench_verify(copy, BYTES, seq))
		bench_fail("message %llu is torn, doubled or out of order",
			   (unsigned long long)seq);
}

static void verify_end(shmq_sub *sub)
{
	struct shmq_msg msg;

	if (shmq_receive(sub, &msg, SHMQ_NOWAIT) != SHMQ_EEMPTY)
		bench_fail("more messages came than were sent");
}

/* ---- a traced process --------------------------------------------------------------- */

/* What is counted stands between two marks, which are signals that only the
 * tracer sees.  Their own part is what stands between two with nothing
 * between them. */
static pid_t self;

static void mark(void)
{
	syscall(SYS_tgkill, self, self, SIGUSR1);
}

static void no_mark(void)
{
}

/* 0 if that cannot be done here. */
static pid_t try_trace(void (*run)(const void *arg), const void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		bench_fail("fork: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		self = getpid();
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(1);
		raise(SIGSTOP);
		run(arg);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		return 0;
	if (!ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD))
		return pid;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return 0;
}

static pid_t trace(void (*run)(const void *arg), const void *arg)
{
	pid_t pid = try_trace(run, arg);

	if (!pid)
		bench_fail("a process cannot be traced");
	return pid;
}

/* Let it go on to its next mark: how many stops that took. */
static unsigned go_to_mark(pid_t pid, enum __ptrace_request how)
{
	unsigned stops = 0;
	int status, sig = 0;

	for (;;) {
		if (ptrace(how, pid, 0, sig) || waitpid(pid, &status, 0) != pid ||
		    !WIFSTOPPED(status))
			bench_fail("a traced process failed");
		sig = WSTOPSIG(status);
		if (sig == SIGUSR1)
			return stops;
		if ((sig & ~0x80) != SIGTRAP)
			continue;
		sig = 0;
		stops++;
	}
}

static void end_trace(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_CONT, pid, 0, 0) || waitpid(pid, &status, 0) != pid || status)
		bench_fail("a traced process failed");
}

static void mark_once(const void *arg)
{
	mark();
}

/* Some machines, and some containers, do not let a process be stepped. */
static int can_step(void)
{
	pid_t pid = try_trace(mark_once, NULL);
	int status, can;

	if (!pid)
		return 0;
	can = !ptrace(PTRACE_SINGLESTEP, pid, 0, 0) && waitpid(pid, &status, 0) == pid &&
	      WIFSTOPPED(status);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return can;
}

/* What the tracer counts, and in how many stops. */
struct quantity {
	const char *name;
	enum __ptrace_request how;
	unsigned stops;
};
static const struct quantity instructions = { "instructions", PTRACE_SINGLESTEP, 1 };
static const struct quantity syscalls = { "syscalls", PTRACE_SYSCALL, 2 };

/* ---- one process that publishes and receives ------------------------------------------ */

enum { NOTHING, PUBLISH, RECEIVE, CLAIM, COMMIT, PUBLISH_BATCH, POLL, CALLS };
#define EXCHANGED (2 + BATCH)

struct job {
	const struct mode *mode;
	const struct quantity *quantity;
};

static uint64_t *stops_of(unsigned message)
{
	return &bench_shared->samples[message * CALLS];
}

static int count_polled(void *polled, const struct shmq_msg *msg)
{
	++*(unsigned *)polled;
	return 0;
}

/* EXCHANGED messages, in the order of the calls above. */
static void exchange(shmq_pub *pub, shmq_sub *sub, uint64_t seq, void (*at)(void))
{
	struct shmq_msg msg, batch[BATCH];
	unsigned k, polled = 0;
	char buf[BYTES];
	void *data;
	ssize_t n;
	int rc;

	at();
	at();

	bench_fill(buf, BYTES, seq);
	at();
	rc = shmq_publish(pub, buf, BYTES);
	at();
	BENCH_OK(rc);

	at();
	rc = shmq_receive(sub, &msg, SHMQ_NOWAIT);
	at();
	BENCH_OK(rc);
	verify(&msg, seq);

	at();
	rc = shmq_claim(pub, BYTES, &data);
	at();
	BENCH_OK(rc);
	bench_fill(buf, BYTES, seq + 1);
	memcpy(data, buf, BYTES);
	at();
	rc = shmq_commit(pub, NULL);
	at();
	BENCH_OK(rc);

	BENCH_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	verify(&msg, seq + 1);

	for (k = 0; k < BATCH; k++)
		batch[k] = (struct shmq_msg){ .data = buf, .len = BYTES };
	at();
	n = shmq_publish_batch(pub, batch, BATCH, 0);
	at();
	BENCH_OK(n);
	at();
	n = shmq_poll(sub, count_polled, &polled, BATCH, SHMQ_NOWAIT);
	at();
	BENCH_OK(n);
	if (polled != BATCH)
		bench_fail("%u of a batch of %u came", polled, BATCH);
}

static void alternate(const void *arg)
{
	const struct job *job = arg;
	struct shmq_bus_options o = { .size = sizeof(o), .serve = SHMQ_SERVE_CALLER };
	uint64_t i, seq = 0;
	struct shmq_topic_info info;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;

	BENCH_OK(shmq_bus_open(bench.bus, &o, &bus));
	pub = open_pub(bus, job->mode->name, SHMQ_WAKE_DIRECT);
	sub = open_sub(bus, job->mode->name, SHMQ_WAIT_ADAPTIVE);
	BENCH_OK(shmq_pub_get_topic(pub, &info));
	seq = info.head;
	for (i = 0; i < DEPTH; i++, seq += EXCHANGED) /* some laps */
		exchange(pub, sub, seq, no_mark);
	for (i = 0; i < messages(); i++, seq += EXCHANGED)
		exchange(pub, sub, seq, mark);
	verify_end(sub);
	shmq_bus_close(bus);
}

static void count_calls(void *arg)
{
	const struct job *job = arg;
	pid_t pid = trace(alternate, job);
	unsigned i, c;

	for (i = 0; i < messages(); i++)
		for (c = 0; c < CALLS; c++) {
			go_to_mark(pid, PTRACE_CONT);
			stops_of(i)[c] = go_to_mark(pid, job->quantity->how);
		}
	end_trace(pid);
}

static void note_calls(const struct job *job)
{
	static const struct {
		const char *name;
		unsigned first, last, messages;
	} figures[] = { { "publish", PUBLISH, PUBLISH, 1 },
			{ "receive", RECEIVE, RECEIVE, 1 },
			{ "claim_commit", CLAIM, COMMIT, 1 },
			{ "batch", PUBLISH_BATCH, PUBLISH_BATCH, BATCH },
			{ "poll", POLL, POLL, BATCH } };
	unsigned i, f, c;
	char figure[64];

	for (f = 0; f < sizeof(figures) / sizeof(figures[0]); f++) {
		snprintf(figure, sizeof(figure), "counts.%s.%s.%s", job->quantity->name,
			 job->mode->name, figures[f].name);
		for (i = 0; i < messages(); i++) {
			const uint64_t *stops = stops_of(i);
			uint64_t own = 0;

			for (c = figures[f].first; c <= figures[f].last; c++)
				own += stops[c] - stops[NOTHING];
			own /= job->quantity->stops * figures[f].messages;
			bench_note(figure, job->quantity->name, (double)own);
		}
	}
}

/* ---- a reader that is asleep ------------------------------------------------------------- */

static const struct wake {
	const char *name; /* of topic and figures */
	enum shmq_wake wake;
} wakes[] = { { "direct", SHMQ_WAKE_DIRECT }, { "deferred", SHMQ_WAKE_DEFERRED } };
#define WAKES (sizeof(wakes) / sizeof(wakes[0]))

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ 0, ms * 1000000 }, NULL);
}

static void publish_to_sleeper(const void *arg)
{
	const struct wake *w = arg;
	struct shmq_topic_info info = { 0 };
	shmq_bus *bus = bench_open();
	shmq_pub *pub = open_pub(bus, w->name, w->wake);
	char buf[BYTES];
	unsigned i;
	int rc;

	mark();
	mark();
	for (i = 0; i < messages(); i++) {
		do {
			sleep_ms(1);
			BENCH_OK(shmq_topic_get_info(bus, w->name, &info));
		} while (!info.sleepers);
		bench_fill(buf, BYTES, i);
		mark();
		rc = shmq_publish(pub, buf, BYTES);
		mark();
		BENCH_OK(rc);
	}
	shmq_bus_close(bus);
}

static void receive_asleep(const void *arg)
{
	const struct wake *w = arg;
	shmq_bus *bus = bench_open();
	shmq_sub *sub = open_sub(bus, w->name, SHMQ_WAIT_SLEEP);
	struct shmq_msg msg;
	unsigned i;
	int rc;

	mark();
	mark();
	for (i = 0; i < messages(); i++) {
		mark();
		rc = shmq_receive(sub, &msg, SHMQ_FOREVER);
		mark();
		BENCH_OK(rc);
		verify(&msg, i);
	}
	verify_end(sub);
	shmq_bus_close(bus);
}

/* The one whose system calls are counted, and the samples they go to. */
struct side {
	void (*run)(const void *arg);
	const struct wake *wake;
	uint64_t *stops;
};

static void count_side(void *arg)
{
	const struct side *s = arg;
	pid_t pid = trace(s->run, s->wake);
	unsigned i;

	for (i = 0; i <= messages(); i++) {
		go_to_mark(pid, PTRACE_CONT);
		s->stops[i] = go_to_mark(pid, syscalls.how);
	}
	end_trace(pid);
}

static void count_sleeping(const struct wake *w)
{
	struct side side[] = { { publish_to_sleeper, w, bench_shared->samples },
			       { receive_asleep, w, bench_shared->samples + 1024 } };
	struct bench_proc proc[] = { { count_side, &side[0], 0 }, { count_side, &side[1], 1 } };
	static const char *const name[] = { "publish", "receive" };
	char figure[64];
	unsigned i, k;

	bench_run(proc, 2);
	for (k = 0; k < 2; k++) {
		snprintf(figure, sizeof(figure), "counts.syscalls.sleeping_reader.%s.%s", w->name,
			 name[k]);
		for (i = 1; i <= messages(); i++)
			bench_note(figure, syscalls.name,
				   (double)(side[k].stops[i] - side[k].stops[0]) / syscalls.stops);
	}
}

/* ---- a process that comes ---------------------------------------------------------------- */

/* The calls of the library's thread are not its own. */
static void come(const void *arg)
{
	struct shmq_bus_options bo = { .size = sizeof(bo) };
	struct shmq_sub_options so = { .size = sizeof(so), .from = SHMQ_FROM_OLDEST };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_sub *sub;

	mark();
	mark();
	mark();
	BENCH_OK(shmq_bus_open(bench.bus, &bo, &bus));
	mark();
	mark();
	BENCH_OK(shmq_sub_open(bus, arg, &so, &sub));
	mark();
	mark();
	BENCH_OK(shmq_receive(sub, &msg, SHMQ_NOWAIT));
	mark();
	shmq_bus_close(bus);
}

static void count_coming(void *arg)
{
	pid_t pid = trace(come, arg);
	uint64_t own = 0, n;
	unsigned i;

	for (i = 0; i < 4; i++) {
		go_to_mark(pid, PTRACE_CONT);
		n = go_to_mark(pid, syscalls.how);
		own = i ? own : n;
		bench_shared->result[i] = (double)(n - own) / syscalls.stops;
	}
	end_trace(pid);
}

static void count_attach(const char *topic)
{
	static const char *const name[] = { NULL, "open_bus", "open_sub", "receive" };
	struct bench_proc proc = { count_coming, (void *)(uintptr_t)topic, 0 };
	unsigned i, k;

	for (k = 0; k < messages(); k += 4) { /* it may look more than once for an answer */
		bench_run(&proc, 1);
		for (i = 1; i < 4; i++)
			bench_note_stat("counts.syscalls.attach", name[i], syscalls.name,
					bench_shared->result[i]);
	}
}

/* ---- cache misses -------------------------------------------------------------------------- */

/* A descriptor, or -errno. */
static int open_counter(void)
{
	struct perf_event_attr a = { .type = PERF_TYPE_HARDWARE,
				     .size = sizeof(a),
				     .config = PERF_COUNT_HW_CACHE_MISSES,
				     .exclude_kernel = 1,
				     .exclude_hv = 1 };
	int fd = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static double read_counter(int fd)
{
	uint64_t value;

	if (read(fd, &value, sizeof(value)) != sizeof(value))
		bench_fail("a counter cannot be read");
	return (double)value;
}

static void stream_out(void *arg)
{
	const struct mode *m = arg;
	shmq_bus *bus = bench_open();
	shmq_pub *pub = open_pub(bus, m->name, SHMQ_WAKE_DIRECT);
	int counter = open_counter();
	struct shmq_topic_info info;
	char buf[BYTES];
	double before;
	uint64_t i;

	BENCH_OK(shmq_pub_get_topic(pub, &info));
	BENCH_OK(shmq_pub_wait_subscribers(pub, 1, SHMQ_FOREVER));
	bench_meet(2);
	before = read_counter(counter);
	for (i = 0; i < STREAM; i++) {
		bench_fill(buf, BYTES, info.head + i);
		BENCH_OK(shmq_publish(pub, buf, BYTES));
	}
	bench_shared->result[0] = (read_counter(counter) - before) / STREAM;
	shmq_bus_close(bus);
}

static void stream_in(void *arg)
{
	const struct mode *m = arg;
	shmq_bus *bus = bench_open();
	shmq_sub *sub = open_sub(bus, m->name, SHMQ_WAIT_SPIN);
	int counter = open_counter();
	struct shmq_topic_info info;
	struct shmq_msg msg;
	double before;
	uint64_t i;

	BENCH_OK(shmq_sub_get_topic(sub, &info));
	bench_meet(2);
	before = read_counter(counter);
	for (i = 0; i < STREAM; i++) {
		BENCH_OK(shmq_receive(sub, &msg, SHMQ_FOREVER));
		verify(&msg, info.head + i);
	}
	bench_shared->result[1] = (read_counter(counter) - before) / STREAM;
	verify_end(sub);
	shmq_bus_close(bus);
}

static void count_misses(const struct mode *m)
{
	struct bench_proc proc[] = { { stream_out, (void *)(uintptr_t)m, 0 },
				     { stream_in, (void *)(uintptr_t)m, 1 } };
	char figure[64];

	snprintf(figure, sizeof(figure), "counts.cache_misses.%s", m->name);
	bench_run(proc, 2);
	bench_note_stat(figure, "publish", "misses", bench_shared->result[0]);
	bench_note_stat(figure, "receive", "misses", bench_shared->result[1]);
}

/* ---- all ------------------------------------------------------------------------------------- */

static void create(shmq_bus *bus, const char *topic, enum shmq_mode mode)
{
	struct shmq_topic_options o = {
		.size = sizeof(o), .depth = DEPTH, .mode = mode, .max_message_bytes = BYTES
	};

	BENCH_OK(shmq_topic_create(bus, topic, &o, NULL));
}

static void count_one_by_one(const struct mode *m, const struct quantity *q)
{
	struct job job = { m, q };
	struct bench_proc proc = { count_calls, &job, 0 };

	bench_run(&proc, 1);
	note_calls(&job);
}

int main(int argc, char **argv)
{
	unsigned m, w, r;
	shmq_bus *bus;
	int counter;

	bench_init(argc, argv, BENCH_BUS, question);
	bus = bench_open();
	for (m = 0; m < MODES; m++)
		create(bus, modes[m].name, modes[m].mode);
	for (w = 0; w < WAKES; w++)
		create(bus, wakes[w].name, SHMQ_EXCLUSIVE);
	if (can_step()) {
		for (m = 0; m < MODES; m++)
			count_one_by_one(&modes[m], &instructions);
		for (m = 0; m < MODES; m++)
			count_one_by_one(&modes[m], &syscalls);
		for (w = 0; w < WAKES; w++)
			count_sleeping(&wakes[w]);
		count_attach(modes[0].name); /* where messages lie that were sent */
	} else {
		printf("distrust counts.instructions no process can be traced here: not counted\n"
		       "distrust counts.syscalls no process can be traced here: not counted\n");
	}
	counter = open_counter();
	if (counter < 0)
		printf("distrust counts.cache_misses there is no counter for them: %s\n",
		       strerror(-counter));
	for (r = 0; counter >= 0 && r < bench.rounds; r++)
		for (m = 0; m < MODES; m++)
			count_misses(&modes[m]);
	shmq_bus_close(bus);
	return bench_end();
}
