/* SPDX-License-Identifier: MIT
 *
 * summary: holds what the rings say was sent against what every publisher and
 * every subscriber that survived has counted, and shows the latencies.
 *
 * usage: summary [-n NAME] TOPIC=PID PROGRAM...
 * where PID is the publisher of TOPIC that was killed: it left no account.
 */
#include "common.h"
#include "messages.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 64 };

struct killed {
	char topic[64];
	pid_t pid;
};

static struct demo_report rows[ROWS_MAX];
static size_t row_count;
static int failures;

static void check(int passed, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void check(int passed, const char *format, ...)
{
	va_list args;

	printf("  %-6s  ", passed ? "ok" : "FAILED");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	failures += !passed;
}

/* ---- rows -------------------------------------------------------------- */

static const struct demo_report *find_row(const char *program, const char *topic)
{
	for (size_t i = 0; i < row_count; i++)
		if (strcmp(rows[i].program, program) == 0 && strcmp(rows[i].topic, topic) == 0)
			return &rows[i];
	return NULL;
}

/* What was committed: the ring's head, without the holes recovery made. */
static uint64_t committed(shmq_bus *bus, const char *topic)
{
	struct shmq_partition_info part;
	int error = shmq_topic_get_partition(bus, topic, 0, &part);

	if (error)
		demo_die(bus, error, "looking at \"%s\"", topic);
	return part.head - part.voids;
}

static int adds_up(const struct demo_report *row, uint64_t sent)
{
	return row->count + row->lost == sent && !row->lost_is_bound;
}

static void show_row(const struct demo_report *row, uint64_t sent)
{
	static const double shares[] = { 0.5, 0.99, 0.999 };

	printf("  %-13s %-7s %9llu %9llu %9llu", row->topic, row->program, (unsigned long long)sent,
	       (unsigned long long)row->count, (unsigned long long)row->lost);
	for (size_t i = 0; i < COUNT_OF(shares); i++)
		printf(" %9.1f", histogram_quantile(&row->latency, shares[i]) / 1e3);
	printf(" %9.1f  %s\n", row->latency.max / 1e3, adds_up(row, sent) ? "yes" : "NO");
}

/* What does not add up deserves a closer look: where does it lie? */
static void show_gaps(shmq_bus *bus)
{
	for (size_t i = 0; i < row_count; i++) {
		struct shmq_partition_info part;

		if (rows[i].role != SHMQ_ROLE_SUBSCRIBER ||
		    adds_up(&rows[i], committed(bus, rows[i].topic)))
			continue;
		shmq_topic_get_partition(bus, rows[i].topic, 0, &part);
		printf("  %s read seq %llu to %llu of %s; head is %llu, with %llu voids\n",
		       rows[i].program, (unsigned long long)rows[i].first_seq,
		       (unsigned long long)rows[i].last_seq, rows[i].topic,
		       (unsigned long long)part.head, (unsigned long long)part.voids);
	}
}

static int by_topic(const void *a, const void *b)
{
	const struct demo_report *p = a, *q = b;
	int order = strcmp(p->topic, q->topic);

	return order ? order : strcmp(p->program, q->program);
}

static void show_rows(shmq_bus *bus)
{
	printf("\nMessages, and latency from publish to receive in us\n");
	printf("  %-13s %-7s %9s %9s %9s %9s %9s %9s %9s  %s\n", "topic", "reader", "sent",
	       "received", "lost", "p50", "p99", "p99.9", "max", "adds up");
	qsort(rows, row_count, sizeof(rows[0]), by_topic);
	for (size_t i = 0; i < row_count; i++)
		if (rows[i].role == SHMQ_ROLE_SUBSCRIBER)
			show_row(&rows[i], committed(bus, rows[i].topic));
	show_gaps(bus);
	printf("  (slow dawdles on purpose: its messages waited for it in the ring)\n");
}

/* ---- checks ------------------------------------------------------------ */

/* Subscribers' rows that add up, and the topics they speak for. */
static void check_sums(shmq_bus *bus)
{
	size_t readers = 0, right = 0, topics = 0;
	struct shmq_bus_info info;

	for (size_t i = 0; i < row_count; i++) {
		if (rows[i].role != SHMQ_ROLE_SUBSCRIBER)
			continue;
		readers++;
		right += adds_up(&rows[i], committed(bus, rows[i].topic));
	}
	for (size_t i = 0; i < row_count; i++)
		topics += !i || strcmp(rows[i].topic, rows[i - 1].topic) != 0;
	shmq_bus_get_info(bus, &info);
	check(readers && right == readers && topics == info.topics,
	      "sent = received + reported lost: %zu of %zu subscribers, %zu of %u topics", right,
	      readers, topics, info.topics);
}

/* What publishers counted themselves is what the rings have. */
static void check_publishers(shmq_bus *bus, const struct killed *killed)
{
	size_t publishers = 0, right = 0;

	for (size_t i = 0; i < row_count; i++) {
		if (rows[i].role != SHMQ_ROLE_PUBLISHER ||
		    strcmp(rows[i].topic, killed->topic) == 0)
			continue;
		publishers++;
		right += rows[i].count == committed(bus, rows[i].topic);
	}
	check(publishers && right == publishers,
	      "publishers counted what the rings hold: %zu of %zu topics without a kill", right,
	      publishers);
}

static uint64_t received_from(const struct demo_report *row, pid_t source)
{
	for (size_t i = 0; i < REPORT_SOURCES; i++)
		if (row->source[i].pid == source)
			return row->source[i].count;
	return 0;
}

/* The killed publisher left no account, but each of its messages names it. */
static void check_killed(shmq_bus *bus, const struct killed *killed)
{
	const struct demo_report *reader = find_row("table", killed->topic);
	const struct demo_report *writer = find_row("collector", killed->topic);
	uint64_t sent = committed(bus, killed->topic), living, dead;

	if (!reader || !writer) {
		check(0, "%s has no account", killed->topic);
		return;
	}
	living = received_from(reader, writer->pid);
	dead = received_from(reader, killed->pid);
	check(living == writer->count && dead && living + dead == sent,
	      "%s: %llu committed = %llu by the survivor (who counted %llu) + %llu by the one killed",
	      killed->topic, (unsigned long long)sent, (unsigned long long)living,
	      (unsigned long long)writer->count, (unsigned long long)dead);
}

static void check_losses(void)
{
	const struct demo_report *slow = find_row("slow", TOPIC_TICKS);
	uint64_t lost = 0;

	for (size_t i = 0; i < row_count; i++)
		if (strcmp(rows[i].topic, TOPIC_TICKS) != 0)
			lost += rows[i].lost;
	check(!lost, "nothing was lost on any topic that blocks");
	check(slow && slow->lost,
	      "the slow subscriber of %s was told of %llu messages lost, exactly", TOPIC_TICKS,
	      slow ? (unsigned long long)slow->lost : 0);
}

static void check_book(void)
{
	char there[128] = "no book", here[128] = "no book";
	FILE *flow = demo_file("flow", "book", "r"), *book = demo_file("book", "book", "r");
	int read = flow && book && fgets(there, sizeof(there), flow) &&
		   fgets(here, sizeof(here), book);

	here[strcspn(here, "\n")] = there[strcspn(there, "\n")] = 0;
	check(read && strcmp(here, there) == 0, "the rebuilt order book is the publisher's: %s",
	      here);
	if (flow)
		fclose(flow);
	if (book)
		fclose(book);
}

/* A process has rows for all its handles, and re-attached once for all. */
static void check_reattached(void)
{
	size_t processes = 0, right = 0;

	for (size_t i = 0; i < row_count; i++) {
		size_t first = 0;

		while (rows[first].pid != rows[i].pid)
			first++;
		if (first != i)
			continue;
		processes++;
		right += rows[i].reattached == 1;
	}
	check(processes && right == processes,
	      "after the control worker's death %zu of %zu processes re-attached, none restarted",
	      right, processes);
}

/* ---- all ---------------------------------------------------------------- */

static struct killed parse_killed(const char *text)
{
	struct killed killed = { .pid = 0 };

	if (sscanf(text, "%63[^=]=%d", killed.topic, &killed.pid) != 2)
		demo_die(NULL, 0, "usage: summary TOPIC=PID PROGRAM...");
	return killed;
}

int main(int argc, char **argv)
{
	struct demo_options options = { .name = "summary" };
	int operand = demo_init(argc, argv, &options);
	struct killed killed;
	shmq_bus *bus;

	if (operand >= argc)
		demo_die(NULL, 0, "usage: summary TOPIC=PID PROGRAM...");
	killed = parse_killed(argv[operand++]);
	for (; operand < argc; operand++) {
		size_t n = demo_report_read(argv[operand], rows + row_count, ROWS_MAX - row_count);

		if (!n)
			demo_die(NULL, 0, "%s left no report", argv[operand]);
		row_count += n;
	}
	bus = demo_bus_open(SHMQ_START_NEVER);
	show_rows(bus);
	printf("\nChecks\n");
	check_sums(bus);
	check_publishers(bus, &killed);
	check_killed(bus, &killed);
	check_losses();
	check_book();
	check_reattached();
	shmq_bus_close(bus);
	return failures != 0;
}
