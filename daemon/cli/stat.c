/* SPDX-License-Identifier: MIT */
#include "stat.h"

#include <stdlib.h>
#include <unistd.h>

#define SECOND_NS ((int64_t)1000000000)

struct stat {
	struct cli *cli;
	const char *topic; /* NULL: the bus */
	int64_t interval_ns;
	uint64_t count; /* of reports, 0: without end */
	int watch, json;
	int clear; /* each report starts on an empty screen */
};

#define AT(member) OPT_AT(struct stat, member)

static const struct opt options[] = {
	{ "interval", .letter = 'i', .kind = OPT_DURATION, AT(interval_ns), .arg = "TIME", .min = 1,
	  .help = "look twice, that far apart, for the rates\n(1s on a terminal, else no rates)" },
	{ "watch", .letter = 'w', .kind = OPT_SET, AT(watch), .value = 1,
	  .help = "report again after each interval (1s)" },
	{ "count", .letter = 'c', .kind = OPT_COUNT, AT(count), .arg = "N", .min = 1,
	  .help = "with --watch: end after N reports" },
	{ "json", .kind = OPT_SET, AT(json), .value = 1,
	  .help = "print one JSON object per report" },
};

/* ---- sampling -------------------------------------------------------- */

static void sample_clear(struct sample *sample)
{
	topics_clear(&sample->topics);
	peers_clear(&sample->peers);
	free(sample->partitions);
	free(sample->holders);
	free(sample->disks);
	*sample = (struct sample){ 0 };
}

static int keep_partition(void *arg, const struct shmq_partition_info *partition)
{
	struct sample *out = arg;

	/* By now another topic may have the name, and more of them. */
	if (partition->partition >= out->topic.partitions)
		return 0;
	out->partitions[partition->partition] = *partition;
	holder_of(&out->peers, partition, &out->holders[partition->partition]);
	return 0;
}

static int sample_topic(const struct stat *stat, struct sample *out)
{
	shmq_bus *bus = stat->cli->bus;
	int rc = shmq_topic_get_info(bus, stat->topic, &out->topic);
	uint32_t p;

	if (rc < 0)
		return rc;
	out->partitions = cli_alloc(NULL, out->topic.partitions * sizeof(*out->partitions));
	out->holders = cli_alloc(NULL, out->topic.partitions * sizeof(*out->holders));
	for (p = 0; p < out->topic.partitions; p++) {
		out->partitions[p] =
			(struct shmq_partition_info){ .partition = p, .holder = -1, .claimer = -1 };
		holder_of(&out->peers, &out->partitions[p], &out->holders[p]);
	}
	rc = peers_collect(bus, stat->topic, &out->peers);
	return rc == 0 ? shmq_partition_each(bus, stat->topic, keep_partition, out) : rc;
}

static int keep_disk(void *arg, const struct shmq_disk_info *disk)
{
	struct sample *out = arg;

	out->disks = cli_grow(out->disks, out->disk_count, &out->disk_room, sizeof(*out->disks));
	out->disks[out->disk_count++] = *disk;
	return 0;
}

/* A topic that went away, or goes meanwhile, is held by nobody. */
static int sample_topics(const struct stat *stat, struct sample *out)
{
	const struct shmq_partition_info nobody = { .holder = -1, .claimer = -1 };
	int rc = topics_collect(stat->cli->bus, NULL, &out->topics);
	size_t i;

	out->holders = cli_alloc(NULL, out->topics.count * sizeof(*out->holders));
	for (i = 0; i < out->topics.count; i++) {
		holder_of(&out->peers, &nobody, &out->holders[i]);
		if (!out->topics.all[i].ended)
			holder_find(stat->cli->bus, &out->topics.all[i], &out->holders[i]);
	}
	return rc;
}

/* An exit code. */
static int sample_take(const struct stat *stat, struct sample *out)
{
	shmq_bus *bus = stat->cli->bus;
	int rc;

	*out = (struct sample){ .at_ns = cli_now_ns() };
	rc = shmq_bus_get_info(bus, &out->bus);
	if (rc == 0)
		rc = stat->topic ? sample_topic(stat, out) : sample_topics(stat, out);
	if (rc == 0 && !stat->topic)
		rc = shmq_disk_each(stat->cli->bus, keep_disk, out);
	if (rc == 0)
		return CLI_OK;
	return out_fail(stat->cli, rc, stat->topic ? "looking at" : "looking at bus",
			stat->topic ? stat->topic : shmq_bus_name(bus), NULL);
}

/* ---- rates ----------------------------------------------------------- */

static double rate_between(const struct sample *before, const struct sample *now,
			   uint64_t head_before, uint64_t head)
{
	double seconds = (double)(now->at_ns - before->at_ns) / 1e9;

	return seconds > 0 ? (double)(head - head_before) / seconds : -1;
}

static int can_compare(const struct sample *before, const struct sample *now)
{
	return before->at_ns && before->topic.id == now->topic.id;
}

double stat_topic_rate(const struct sample *before, const struct sample *now)
{
	if (!can_compare(before, now))
		return -1;
	return rate_between(before, now, before->topic.head, now->topic.head);
}

double stat_partition_rate(const struct sample *before, const struct sample *now, uint32_t p)
{
	if (!can_compare(before, now))
		return -1;
	return rate_between(before, now, before->partitions[p].head, now->partitions[p].head);
}

static int by_id(const void *left, const void *right)
{
	const struct shmq_topic_info *a = left, *b = right;

	return (a->id > b->id) - (a->id < b->id);
}

/* Topics come and go between two looks, and names come again: ids do not. */
double stat_listed_rate(const struct sample *before, const struct sample *now, size_t i)
{
	const struct shmq_topic_info *topic = &now->topics.all[i], *then = NULL;

	if (before->topics.count)
		then = bsearch(topic, before->topics.all, before->topics.count, sizeof(*topic),
			       by_id);
	return then ? rate_between(before, now, then->head, topic->head) : -1;
}

double stat_disk_rate(const struct sample *before, const struct sample *now, size_t i)
{
	size_t k;

	for (k = 0; k < before->disk_count; k++)
		if (before->disks[k].device == now->disks[i].device)
			return rate_between(before, now, before->disks[k].written_bytes,
					    now->disks[i].written_bytes);
	return -1;
}

int stat_is_in_claim(const struct sample *now, unsigned client)
{
	uint32_t p;

	for (p = 0; p < now->topic.partitions; p++)
		if (now->partitions[p].claimer == (int)client)
			return 1;
	return 0;
}

/* ---- reports --------------------------------------------------------- */

static void report(const struct stat *stat, const struct sample *before, const struct sample *now)
{
	if (stat->clear)
		fputs("\033[H\033[J", stdout);
	if (stat->json)
		json_print(stat->topic ? stat_json_topic(before, now) : stat_json_bus(before, now));
	else if (stat->topic)
		stat_print_topic(before, now);
	else
		stat_print_bus(before, now);
}

/* The end of the interval, unless a signal came first. */
static int wait_for_next(const struct stat *stat, struct sample *before)
{
	if (before->at_ns)
		sig_sleep_until(before->at_ns + stat->interval_ns);
	if (before->topics.count)
		qsort(before->topics.all, before->topics.count, sizeof(*before->topics.all), by_id);
	return !sig_stopped();
}

/* Look, wait, look, report; with --watch again and again, each report
 * against the look before.  An exit code. */
static int look(const struct stat *stat, struct sample *before, struct sample *now)
{
	int code = stat->interval_ns > 0 ? sample_take(stat, before) : CLI_OK;
	uint64_t reports = 0;
	int rc = 0;

	while (code == CLI_OK && wait_for_next(stat, before)) {
		code = sample_take(stat, now);
		if (code != CLI_OK)
			break;
		report(stat, before, now);
		rc = out_flush();
		if (rc < 0)
			return out_broken(rc);
		if (!stat->watch || ++reports == stat->count)
			break;
		sample_clear(before);
		*before = *now;
		*now = (struct sample){ 0 };
	}
	return code;
}

static void choose_interval(struct stat *stat)
{
	int terminal = isatty(STDOUT_FILENO);

	stat->clear = stat->watch && terminal && !stat->json;
	if (!stat->interval_ns && (stat->watch || terminal))
		stat->interval_ns = SECOND_NS;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct stat stat = { .cli = cli };
	struct sample before = { 0 }, now = { 0 };
	const struct opt_group groups[] = {
		{ "Options", options, ARRAY_COUNT(options), &stat },
		{ "Options of all commands", opts_shared, opts_shared_count, cli },
	};
	int rc, first = opts_parse(&cmd_stat, OPTS_PERMUTE, argc, argv, groups,
				   ARRAY_COUNT(groups));

	if (argc - first > 1)
		opts_fail(&cmd_stat, "stat takes one topic, not %d", argc - first);
	if (stat.interval_ns == SHMQ_FOREVER)
		opts_fail(&cmd_stat, "--interval must end");
	if (stat.count && !stat.watch)
		opts_fail(&cmd_stat, "--count needs --watch");
	stat.topic = argv[first];
	choose_interval(&stat);
	rc = cli_open(cli);
	if (rc != CLI_OK)
		return rc;
	sig_catch(NULL);
	rc = look(&stat, &before, &now);
	sample_clear(&before);
	sample_clear(&now);
	return rc;
}

const struct command cmd_stat = {
	"stat",
	"[TOPIC] [OPTION]...",
	"Show the bus, or one topic: rates, peers, lags, who holds whom back",
	"LAG is how many messages the slowest gating subscriber is behind.  It holds\n"
	"publishers back once that is the depth of the ring, or before that when they\n"
	"wait for room in their arena or for a whole batch.\n",
	"shmq stat --watch --interval 2s\n"
	"shmq stat md.trades\n",
	run,
};
