/* SPDX-License-Identifier: MIT
 *
 * How long do messages take from publish to receive?  Each carries its time,
 * the subscriber counts, and any thread may ask for the percentiles.
 *
 *   cc -o latency latency.c $(pkg-config --cflags --libs shmq)
 *   ./latency
 */
#include <inttypes.h>
#include <shmq.h>
#include <stdio.h>

#define MESSAGES 1000

static int fail(const char *what, int error)
{
	fprintf(stderr, "latency: %s: %s: %s\n", what, shmq_strerror(error), shmq_bus_error(NULL));
	return 1;
}

static int show(void *arg, const struct shmq_latency_bucket *b)
{
	(void)arg;
	fprintf(stderr, "  %8" PRIu64 " to %8" PRIu64 " ns: %" PRIu64 "\n", b->from_ns, b->to_ns,
		b->count);
	return 0;
}

int main(void)
{
	struct shmq_bus_options start = { .size = sizeof(start), .start = SHMQ_START_ON_DEMAND };
	struct shmq_topic_options timed = { .size = sizeof(timed), .flags = SHMQ_TOPIC_TIME };
	struct shmq_latency l;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *pub;
	shmq_sub *sub;
	int error, i;

	error = shmq_bus_open(NULL, &start, &bus);
	if (error)
		return fail("attaching", error);
	error = shmq_topic_create(bus, "latency", &timed, NULL);
	if (!error)
		error = shmq_sub_open(bus, "latency", NULL, &sub);
	if (!error)
		error = shmq_pub_open(bus, "latency", NULL, &pub);
	if (!error)
		error = shmq_sub_latency_start(sub);
	for (i = 0; !error && i < MESSAGES; i++) {
		error = shmq_publish(pub, &i, sizeof(i));
		if (!error)
			error = shmq_receive(sub, &msg, SHMQ_FOREVER);
	}
	if (!error)
		error = shmq_sub_get_latency(sub, &l);
	if (error)
		return fail("measuring", error);
	fprintf(stderr, "p50 %" PRIu64 " ns, p99 %" PRIu64 " ns, longest %" PRIu64 " ns\n",
		l.p50_ns, l.p99_ns, l.most_ns);
	shmq_sub_latency_each(sub, show, NULL);
	printf("%" PRIu64 " of %d messages measured, percentiles in order: %s\n", l.count, MESSAGES,
	       l.p50_ns <= l.p99_ns && l.p99_ns <= l.p999_ns && l.p999_ns <= l.most_ns ? "yes" :
											 "no");
	shmq_topic_remove(bus, "latency", SHMQ_FORCE);
	shmq_bus_close(bus);
	return 0;
}
