/* SPDX-License-Identifier: MIT */
#include "common.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile sig_atomic_t demo_stopping;

static const char *program = "demo";

/* ---- program --------------------------------------------------------- */

static void on_stop(int signal)
{
	(void)signal;
	demo_stopping = 1;
}

/* A number above 0, whatever stands there. */
static unsigned long long number(const char *text)
{
	unsigned long long value = strtoull(text, NULL, 10);

	return value ? value : 1;
}

int demo_init(int argc, char **argv, struct demo_options *options)
{
	const struct sigaction stop = { .sa_handler = on_stop };
	int option;

	while ((option = getopt(argc, argv, "n:w:r:s:d:")) != -1) {
		switch (option) {
		case 'n':
			options->name = optarg;
			break;
		case 'w':
			options->subscribers = number(optarg);
			break;
		case 'r':
			options->rate = number(optarg);
			break;
		case 's':
			options->seed = number(optarg);
			break;
		case 'd':
			options->delay_us = number(optarg);
			break;
		default:
			exit(2);
		}
	}
	program = options->name;
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	alarm(DEMO_WATCHDOG_S);
	return optind;
}

void demo_die(const shmq_bus *bus, int error, const char *format, ...)
{
	const char *more = bus ? shmq_bus_error(bus) : "";
	va_list args;

	fflush(stdout);
	fprintf(stderr, "%s: ", program);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	if (error)
		fprintf(stderr, ": %s", shmq_strerror(error));
	if (*more)
		fprintf(stderr, " (%s)", more);
	fputc('\n', stderr);
	exit(1);
}

shmq_bus *demo_bus_open(enum shmq_start_mode start)
{
	const struct shmq_bus_options options = { .size = sizeof(options),
						  .start = start,
						  .client_name = program };
	shmq_bus *bus = NULL;
	int error = shmq_bus_open(DEMO_BUS, &options, &bus);

	if (error)
		demo_die(NULL, error, "opening bus \"%s\"", DEMO_BUS);
	return bus;
}

shmq_pub *demo_pub_open(shmq_bus *bus, const char *topic, unsigned subscribers)
{
	shmq_pub *pub = NULL;
	int error = shmq_pub_open(bus, topic, NULL, &pub);

	if (error)
		demo_die(bus, error, "publishing to \"%s\"", topic);
	error = shmq_pub_wait_subscribers(pub, subscribers, 10 * NS_PER_S);
	if (error)
		demo_die(bus, error, "waiting for %u subscribers of \"%s\"", subscribers, topic);
	return pub;
}

shmq_sub *demo_sub_open(shmq_bus *bus, const char *topic, enum shmq_from from)
{
	const struct shmq_sub_options options = { .size = sizeof(options),
						  .from = from,
						  .flags = from == SHMQ_FROM_OLDEST ?
								   0 :
								   SHMQ_SUB_END_WITH_PUBLISHERS };
	shmq_sub *sub = NULL;
	int error = shmq_sub_open(bus, topic, &options, &sub);

	if (error)
		demo_die(bus, error, "subscribing to \"%s\"", topic);
	return sub;
}

void demo_publish_all(shmq_bus *bus, shmq_pub *pub, struct shmq_msg *msgs, size_t n)
{
	while (n) {
		ssize_t done = shmq_publish_batch(pub, msgs, n, 0);

		if (done < 0)
			demo_die(bus, done, "publishing");
		msgs += done;
		n -= done;
	}
}

/* ---- time ------------------------------------------------------------ */

int64_t demo_clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

void demo_pace_wait(struct demo_pace *pace)
{
	int64_t now = demo_clock_ns(CLOCK_MONOTONIC);
	struct timespec until;

	pace->next_ns += pace->period_ns;
	if (pace->next_ns < now - 100 * NS_PER_MS)
		pace->next_ns = now;
	until.tv_sec = pace->next_ns / NS_PER_S;
	until.tv_nsec = pace->next_ns % NS_PER_S;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* ---- latency --------------------------------------------------------- */

static size_t bucket_of(uint64_t value)
{
	int exponent;

	if (value < HISTOGRAM_LINEAR)
		return value;
	exponent = 63 - __builtin_clzll(value);
	if (exponent >= HISTOGRAM_TOP)
		return HISTOGRAM_BUCKETS - 1;
	return (exponent - 4) * HISTOGRAM_LINEAR +
	       ((value >> (exponent - 5)) & (HISTOGRAM_LINEAR - 1));
}

/* The largest value that falls into bucket i. */
static uint64_t bucket_top(size_t i)
{
	size_t exponent = i / HISTOGRAM_LINEAR + 4;

	if (i < HISTOGRAM_LINEAR)
		return i;
	return ((HISTOGRAM_LINEAR + i % HISTOGRAM_LINEAR + 1ull) << (exponent - 5)) - 1;
}

void histogram_add(struct histogram *h, int64_t value)
{
	/* CLOCK_REALTIME may be stepped back between publish and receive. */
	uint64_t v = value < 0 ? 0 : value;

	h->count++;
	h->bucket[bucket_of(v)]++;
	if (v > h->max)
		h->max = v;
}

uint64_t histogram_quantile(const struct histogram *h, double share)
{
	uint64_t wanted = h->count * share, seen = 0;

	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen > wanted)
			return bucket_top(i) < h->max ? bucket_top(i) : h->max;
	}
	return h->max;
}

/* ---- counting -------------------------------------------------------- */

void demo_count(struct demo_tally *tally, const struct shmq_msg *msg)
{
	if (!tally->received)
		tally->first_seq = msg->seq;
	tally->last_seq = msg->seq;
	tally->received++;
	histogram_add(&tally->latency, demo_clock_ns(CLOCK_REALTIME) - (int64_t)msg->ts_ns);
}

int demo_receive(shmq_bus *bus, shmq_sub *sub, void *buf, size_t capacity, struct shmq_msg *msg,
		 struct demo_tally *tally, int64_t timeout_ns)
{
	for (;;) {
		int error = shmq_receive_copy(sub, buf, capacity, msg, timeout_ns);

		switch (error) {
		case 0:
			demo_count(tally, msg);
			return 0;
		case SHMQ_EOVERRUN:
			tally->lost += msg->lost;
			break;
		case SHMQ_EEMPTY:
		case SHMQ_ETIMEOUT:
		case SHMQ_EENDED:
			return error;
		default:
			demo_die(bus, error, "receiving");
		}
	}
}

FILE *demo_file(const char *name, const char *kind, const char *mode)
{
	const char *dir = getenv("SHMQ_RUNTIME_DIR");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.%s", dir ? dir : ".", name, kind);
	return fopen(path, mode);
}

static void write_report(const struct demo_report *report)
{
	FILE *file = demo_file(program, "report", "a");

	if (!file || fwrite(report, sizeof(*report), 1, file) != 1 || fclose(file))
		demo_die(NULL, -errno, "writing the report");
}

static void name_report(struct demo_report *report, shmq_bus *bus, const char *topic)
{
	snprintf(report->program, sizeof(report->program), "%s", program);
	snprintf(report->topic, sizeof(report->topic), "%s", topic);
	report->pid = getpid();
	report->reattached = shmq_bus_reattach_count(bus);
}

void demo_report_pub(shmq_bus *bus, const shmq_pub *pub, const char *topic, uint64_t sent)
{
	struct demo_report report = { .role = SHMQ_ROLE_PUBLISHER, .count = sent };
	struct shmq_pub_stats stats;

	shmq_pub_get_stats(pub, &stats);
	if (stats.sent != sent || stats.dropped)
		demo_die(NULL, 0, "%s: sent %llu, the library counted %llu and %llu dropped", topic,
			 (unsigned long long)sent, (unsigned long long)stats.sent,
			 (unsigned long long)stats.dropped);
	report.waits = stats.blocked;
	name_report(&report, bus, topic);
	write_report(&report);
}

void demo_report_sub(shmq_bus *bus, const shmq_sub *sub, const char *topic,
		     const struct demo_tally *tally, const struct demo_report *sources)
{
	struct demo_report report = { .role = SHMQ_ROLE_SUBSCRIBER,
				      .count = tally->received,
				      .lost = tally->lost,
				      .first_seq = tally->first_seq,
				      .last_seq = tally->last_seq,
				      .latency = tally->latency };
	struct shmq_sub_stats stats;

	shmq_sub_get_stats(sub, &stats);
	if (stats.received != tally->received || stats.lost != tally->lost)
		demo_die(NULL, 0,
			 "%s: received %llu and lost %llu, the library counted %llu and %llu",
			 topic, (unsigned long long)tally->received,
			 (unsigned long long)tally->lost, (unsigned long long)stats.received,
			 (unsigned long long)stats.lost);
	report.lost_is_bound = stats.lost_is_bound;
	report.waits = stats.sleeps;
	if (sources)
		memcpy(report.source, sources->source, sizeof(report.source));
	name_report(&report, bus, topic);
	write_report(&report);
}

size_t demo_report_read(const char *name, struct demo_report *rows, size_t n)
{
	FILE *file = demo_file(name, "report", "r");
	size_t count;

	if (!file)
		return 0;
	count = fread(rows, sizeof(*rows), n, file);
	fclose(file);
	return count;
}
