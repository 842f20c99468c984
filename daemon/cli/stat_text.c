/* SPDX-License-Identifier: MIT */
#include "stat.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <time.h>

#define SECOND_NS ((int64_t)1000000000)

static struct units_text rate_text(double rate)
{
	struct units_text none = { "-" };

	return rate < 0 ? none : units_rate(rate);
}

static struct units_text lag_text(const struct shmq_topic_info *topic, const struct holder *holder)
{
	struct units_text none = { "-" };

	return holder_has_lag(topic, holder) ? units_count(holder->lag) : none;
}

/* ---- the bus as text ------------------------------------------------- */

static int64_t up_ns(const struct shmq_bus_info *bus)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec - (int64_t)bus->started_ns;
}

static void print_summary(const struct shmq_bus_info *bus)
{
	printf("bus %s: ", bus->name);
	if (!bus->daemon_pid)
		printf("stopped");
	else if (kill(bus->daemon_pid, 0) && errno == ESRCH)
		printf("supervisor away, clients carry on");
	else
		printf("supervisor pid %d, worker pid %d", (int)bus->parent_pid,
		       (int)bus->daemon_pid);
	printf(", up %s", units_duration(up_ns(bus)).s);
	if (bus->epoch > 1)
		printf(", worker started %" PRIu64 " times", bus->epoch);
	printf("\n%u %s, %u %s, %s shared, layout %u\n", bus->topics,
	       units_plural(bus->topics, "topic", "topics"), bus->clients,
	       units_plural(bus->clients, "client", "clients"), units_size(bus->bytes).s,
	       bus->layout_version);
}

static void add_topic(struct table *table, const struct sample *before, const struct sample *now,
		      size_t i)
{
	const struct shmq_topic_info *topic = &now->topics.all[i];
	const struct holder *holder = &now->holders[i];

	table_add(table, "%s%s", topic->name, topic->ended ? " (removed)" : "");
	table_add(table, "%s", value_word(shape_policies, (int)topic->policy));
	table_add(table, "%s", value_word(shape_modes, (int)topic->mode));
	table_add(table, "%s", units_count(topic->head).s);
	table_add(table, "%s", rate_text(stat_listed_rate(before, now, i)).s);
	table_add(table, "%u", topic->publishers);
	table_add(table, "%u", topic->subscribers);
	table_add(table, "%s", units_count(topic->sleepers).s);
	table_add(table, "%s", lag_text(topic, holder).s);
	table_add(table, "%s", holder_text(holder).s);
}

static void print_disks(const struct sample *before, const struct sample *now)
{
	size_t i;

	for (i = 0; i < now->disk_count; i++) {
		double rate = stat_disk_rate(before, now, i);

		printf("logs in %s: %s written", now->disks[i].dir,
		       units_size(now->disks[i].written_bytes).s);
		if (rate >= 0)
			printf(", %s/s", units_size((uint64_t)rate).s);
		putchar('\n');
	}
}

void stat_print_bus(const struct sample *before, const struct sample *now)
{
	static const char *const heads[] = {
		"TOPIC", "POLICY", "MODE",    ">HEAD", ">RATE",
		">PUBS", ">SUBS",  ">ASLEEP", ">LAG",  "HELD BACK BY",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	print_summary(&now->bus);
	print_disks(before, now);
	if (!now->topics.count)
		return;
	putchar('\n');
	for (i = 0; i < now->topics.count; i++)
		add_topic(&table, before, now, i);
	table_print(&table, "");
	table_clear(&table);
}

/* ---- a topic as text ------------------------------------------------- */

static const char *stamps(uint32_t flags)
{
	static const char *const texts[] = { "none", "tag", "time", "tag and time" };

	return texts[(flags & SHMQ_TOPIC_TAG ? 1 : 0) + (flags & SHMQ_TOPIC_TIME ? 2 : 0)];
}

/* What a sync waits for, and what is kept. */
static void print_log(const struct shmq_topic_info *topic)
{
	int has_time = topic->sync == SHMQ_SYNC_INTERVAL || topic->sync == SHMQ_SYNC_BATCH;

	if (!stat_has_log(topic))
		return;
	printf("  log          %s, sync %s", value_word(shape_logs, (int)topic->log),
	       value_word(shape_syncs, (int)topic->sync));
	if (has_time && topic->sync_ns)
		printf(" %s", units_duration(topic->sync_ns).s);
	printf(", segments of %s\n", units_size(topic->segment_bytes).s);
	printf("  kept         ");
	if (topic->retain_bytes)
		printf("%s of each partition", units_size(topic->retain_bytes).s);
	if (topic->retain_ns)
		printf("%s%s", topic->retain_bytes ? ", " : "", units_duration(topic->retain_ns).s);
	printf("%s%s%s", topic->retain_bytes || topic->retain_ns ? "" : "all",
	       topic->flags & SHMQ_TOPIC_RETAIN_CURSORS ? ", and what stored cursors need" : "",
	       topic->flags & SHMQ_TOPIC_RETAIN_KEYS ? ", of each key the last" : "");
	if (topic->compress)
		printf("; compressed, level %d", topic->compress);
	putchar('\n');
}

static void print_stats(const struct shmq_topic_info *topic)
{
	const struct shmq_topic_stats *stats = &topic->stats;

	if (stat_has_log(topic))
		printf("  counted      since the bus started, or the topic was moved\n");
	printf("  sent         %" PRIu64 ", %s, %" PRIu64 " dropped, blocked %" PRIu64 " %s\n",
	       stats->sent, units_size(stats->sent_bytes).s, stats->dropped, stats->blocked,
	       units_plural(stats->blocked, "time", "times"));
	printf("  received     %" PRIu64 ", %s, %" PRIu64 " lost, %" PRIu64 " %s\n",
	       stats->received, units_size(stats->received_bytes).s, stats->lost, stats->evictions,
	       units_plural(stats->evictions, "eviction", "evictions"));
	printf("  sleep        %" PRIu64 " %s, %" PRIu64 " %s\n", stats->sleeps,
	       units_plural(stats->sleeps, "time", "times"), stats->wakes,
	       units_plural(stats->wakes, "wake", "wakes"));
}

static void print_shape(const struct shmq_topic_info *topic, double rate)
{
	printf("topic %s (id %" PRIu64 ")%s\n", topic->name, topic->id,
	       topic->ended ? ", removed" : "");
	printf("  policy       %s, stall %s\n", value_word(shape_policies, (int)topic->policy),
	       value_word(shape_stalls, (int)topic->stall));
	printf("  publishers   %u, %s\n", topic->publishers,
	       value_word(shape_modes, (int)topic->mode));
	printf("  subscribers  %u, %" PRIu64 " asleep, wait %s\n", topic->subscribers,
	       topic->sleepers, value_word(shape_waits, (int)topic->wait));
	printf("  shape        %u %s of %" PRIu64 " slots of %u bytes\n", topic->partitions,
	       units_plural(topic->partitions, "partition", "partitions"), topic->depth,
	       topic->slot_bytes);
	printf("  messages     up to %s, %s inline\n", units_size(topic->max_message_bytes).s,
	       units_size(topic->inline_bytes).s);
	printf("  stamps       %s%s\n", stamps(topic->flags),
	       topic->flags & SHMQ_TOPIC_SPIN_ONLY ? "; spin-only, nobody sleeps" : "");
	printf("  memory       %s, %s pages, node %s (asked %s), %s\n",
	       units_size(topic->ring_bytes).s, units_size(topic->page_bytes).s,
	       topic->node_actual ? units_node(topic->node_actual).s : "mixed",
	       units_node(topic->node_asked).s, topic->locked ? "locked" : "not locked");
	print_log(topic);
	out_notes(topic->note, 13);
	printf("  head         %" PRIu64, topic->head);
	printf(rate < 0 ? "\n" : ", %s\n", units_rate(rate).s);
	print_stats(topic);
}

static void print_partitions(const struct sample *before, const struct sample *now)
{
	static const char *const heads[] = {
		">PARTITION", ">HEAD", ">OLDEST", ">VOIDS", ">RATE", ">LAG", "SLOWEST",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	uint32_t p;

	for (p = 0; p < now->topic.partitions; p++) {
		const struct shmq_partition_info *partition = &now->partitions[p];

		table_add(&table, "%u", p);
		table_add(&table, "%" PRIu64, partition->head);
		table_add(&table, "%" PRIu64, partition->oldest);
		table_add(&table, "%" PRIu64, partition->voids);
		table_add(&table, "%s", rate_text(stat_partition_rate(before, now, p)).s);
		table_add(&table, "%s", lag_text(&now->topic, &now->holders[p]).s);
		table_add(&table, "%s", who_text(&now->holders[p].slowest).s);
	}
	putchar('\n');
	table_print(&table, "  ");
	table_clear(&table);
}

static void print_logs(const struct sample *now)
{
	static const char *const heads[] = {
		">LOG OF", ">FIRST", ">WRITTEN", ">SYNCED", ">BEHIND", ">DISK LEFT", "ERROR",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	uint32_t p;

	if (!stat_has_log(&now->topic))
		return;
	for (p = 0; p < now->topic.partitions; p++) {
		const struct shmq_partition_info *partition = &now->partitions[p];

		table_add(&table, "%u", p);
		table_add(&table, "%" PRIu64, partition->log_first);
		table_add(&table, "%" PRIu64, partition->log_written);
		table_add(&table, "%" PRIu64, partition->log_synced);
		table_add(&table, "%" PRIu64, partition->head - partition->log_written);
		table_add(&table, "%s%s",
			  stat_knows_left(partition) ? units_size(partition->log_left).s : "-",
			  partition->log_is_low ? " low" : "");
		table_add(&table, "%s",
			  partition->log_error ? shmq_strerror(partition->log_error) : "-");
	}
	putchar('\n');
	table_print(&table, "  ");
	table_clear(&table);
}

static void add_peer(struct table *table, const struct shmq_peer_info *peer)
{
	table_add(table, "%u", peer->client_id);
	table_add(table, "%d", (int)peer->pid);
	table_add(table, "%u", (unsigned)peer->uid);
	table_add(table, "%s", peer->client_name);
	if (peer->partition == SHMQ_ANY_PARTITION)
		table_add(table, "all");
	else
		table_add(table, "%d", peer->partition);
	table_add(table, "%" PRIu64, peer->count);
	table_add(table, "%" PRIu64, peer->bytes);
	table_add(table, "%" PRIu64, peer->lost);
}

static const char *publisher_state(const struct sample *now, const struct shmq_peer_info *peer)
{
	if (stat_is_in_claim(now, peer->client_id))
		return "in claim";
	return peer->waiting ? "waiting" : "-";
}

static void print_publishers(const struct sample *now)
{
	static const char *const heads[] = {
		">PUBLISHER", ">PID",   ">UID",     "NAME",  "PARTITION",
		">SENT",      ">BYTES", ">DROPPED", "STATE",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	for (i = 0; i < now->peers.count; i++) {
		const struct shmq_peer_info *peer = &now->peers.all[i];

		if (peer->role != SHMQ_ROLE_PUBLISHER)
			continue;
		add_peer(&table, peer);
		table_add(&table, "%s", publisher_state(now, peer));
	}
	if (table.count) {
		putchar('\n');
		table_print(&table, "  ");
	}
	table_clear(&table);
}

static void print_subscribers(const struct peers *peers)
{
	static const char *const heads[] = {
		">SUBSCRIBER", ">PID",   ">UID",  "NAME", "PARTITION",
		">RECEIVED",   ">BYTES", ">LOST", ">LAG", "STATE",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	for (i = 0; i < peers->count; i++) {
		const struct shmq_peer_info *peer = &peers->all[i];

		if (peer->role != SHMQ_ROLE_SUBSCRIBER)
			continue;
		add_peer(&table, peer);
		table_add(&table, "%" PRIu64, peer->lag);
		table_add(&table, "%s%s%s", peer->gating ? "gating" : "free",
			  peer->sleeping ? ", asleep" : "", peer->evicted ? ", evicted" : "");
	}
	if (table.count) {
		putchar('\n');
		table_print(&table, "  ");
	}
	table_clear(&table);
}

/* Of those who measure. */
static void print_latencies(const struct peers *peers)
{
	static const char *const heads[] = {
		">LATENCY OF", "NAME", ">P50", ">P99", ">P99.9", ">LONGEST",
	};
	struct table table = { .heads = heads, .columns = ARRAY_COUNT(heads) };
	size_t i;

	for (i = 0; i < peers->count; i++) {
		const struct shmq_peer_info *peer = &peers->all[i];

		if (!peer->most_ns)
			continue;
		table_add(&table, "%u", peer->client_id);
		table_add(&table, "%s", peer->client_name);
		table_add(&table, "%s", units_duration((int64_t)peer->p50_ns).s);
		table_add(&table, "%s", units_duration((int64_t)peer->p99_ns).s);
		table_add(&table, "%s", units_duration((int64_t)peer->p999_ns).s);
		table_add(&table, "%s", units_duration((int64_t)peer->most_ns).s);
	}
	if (table.count) {
		putchar('\n');
		table_print(&table, "  ");
	}
	table_clear(&table);
}

static void print_holders(const struct sample *now)
{
	uint32_t p;

	for (p = 0; p < now->topic.partitions; p++) {
		const struct holder *holder = &now->holders[p];

		if (holder->claimer.client >= 0)
			printf("\n  partition %u stands at the claim of client %d, %s: it has not "
			       "committed seq %" PRIu64 "\n",
			       p, holder->claimer.client, who_text(&holder->claimer).s,
			       holder->claim_seq);
		if (holder->holds_back)
			printf("\n  publishers of partition %u are held back by client %d, %s: it is "
			       "%" PRIu64 " messages behind\n",
			       p, holder->slowest.client, who_text(&holder->slowest).s,
			       holder->lag);
	}
}

void stat_print_topic(const struct sample *before, const struct sample *now)
{
	print_shape(&now->topic, stat_topic_rate(before, now));
	print_partitions(before, now);
	print_logs(now);
	print_publishers(now);
	print_subscribers(&now->peers);
	print_latencies(&now->peers);
	print_holders(now);
}
