/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* ---- topics ---------------------------------------------------------- */

struct walk {
	const char *pattern;
	struct topics *topics;
};

/* Names of the bus itself are meant by what begins as they do.  What is a pattern for
 * subscribers means here what it means there. */
static int matches(const char *pattern, const char *name)
{
	if ((*name == '$') != (pattern && *pattern == '$'))
		return 0;
	if (!pattern)
		return 1;
	if (strpbrk(pattern, "*#") && shmq_topic_matches(pattern, name) >= 0)
		return shmq_topic_matches(pattern, name);
	if (strpbrk(pattern, "*?["))
		return fnmatch(pattern, name, 0) == 0;
	return !strncmp(pattern, name, strlen(pattern));
}

static int keep_topic(void *arg, const struct shmq_topic_info *topic)
{
	struct walk *walk = arg;
	struct topics *to = walk->topics;

	if (!matches(walk->pattern, topic->name))
		return 0;
	to->all = cli_grow(to->all, to->count, &to->room, sizeof(*to->all));
	to->all[to->count++] = *topic;
	return 0;
}

static int by_name(const void *left, const void *right)
{
	const struct shmq_topic_info *a = left, *b = right;
	int order = strcmp(a->name, b->name);

	return order ? order : (a->id > b->id) - (a->id < b->id);
}

int topics_collect(shmq_bus *bus, const char *pattern, struct topics *out)
{
	struct walk walk = { .pattern = pattern, .topics = out };
	int rc;

	*out = (struct topics){ 0 };
	rc = shmq_topic_each(bus, keep_topic, &walk);
	if (out->count)
		qsort(out->all, out->count, sizeof(*out->all), by_name);
	return rc;
}

int topics_collect_own(shmq_bus *bus, const char *pattern, struct topics *topics)
{
	struct topics own;
	size_t i;
	int rc;

	if (pattern)
		return 0;
	rc = topics_collect(bus, "$", &own);
	for (i = 0; i < own.count; i++) {
		topics->all =
			cli_grow(topics->all, topics->count, &topics->room, sizeof(*topics->all));
		topics->all[topics->count++] = own.all[i];
	}
	topics_clear(&own);
	if (topics->count)
		qsort(topics->all, topics->count, sizeof(*topics->all), by_name);
	return rc;
}

void topics_clear(struct topics *topics)
{
	free(topics->all);
	*topics = (struct topics){ 0 };
}

json_t *topics_json_node(int node)
{
	if (node == SHMQ_NODE_PUBLISHER)
		return json_string(units_node(node).s);
	return node == SHMQ_NODE_ANY ? json_null() : json_integer(node - 1);
}

static json_t *json_log(const struct shmq_topic_info *topic)
{
	json_t *object;

	if (!topic->log || topic->log == SHMQ_LOG_NONE)
		return json_null();
	object = json_object();
	json_put_text(object, "mode", value_word(shape_logs, (int)topic->log));
	json_put_text(object, "sync", value_word(shape_syncs, (int)topic->sync));
	json_put_u64(object, "sync_ns", (uint64_t)topic->sync_ns);
	json_put_u64(object, "segment_bytes", topic->segment_bytes);
	json_put(object, "retain_bytes",
		 topic->retain_bytes ? json_integer((json_int_t)topic->retain_bytes) : json_null());
	json_put(object, "retain_ns",
		 topic->retain_ns ? json_integer(topic->retain_ns) : json_null());
	json_put(object, "retain_cursors", json_boolean(topic->flags & SHMQ_TOPIC_RETAIN_CURSORS));
	json_put(object, "retain_keys", json_boolean(topic->flags & SHMQ_TOPIC_RETAIN_KEYS));
	json_put(object, "tombstone_ns",
		 topic->tombstone_ns ? json_integer(topic->tombstone_ns) : json_null());
	json_put(object, "compress", topic->compress ? json_integer(topic->compress) : json_null());
	return object;
}

static json_t *json_stats(const struct shmq_topic_stats *stats)
{
	json_t *object = json_object();

	json_put_u64(object, "sent", stats->sent);
	json_put_u64(object, "sent_bytes", stats->sent_bytes);
	json_put_u64(object, "dropped", stats->dropped);
	json_put_u64(object, "blocked", stats->blocked);
	json_put_u64(object, "received", stats->received);
	json_put_u64(object, "received_bytes", stats->received_bytes);
	json_put_u64(object, "lost", stats->lost);
	json_put_u64(object, "sleeps", stats->sleeps);
	json_put_u64(object, "wakes", stats->wakes);
	json_put_u64(object, "evictions", stats->evictions);
	return object;
}

json_t *topics_json(const struct shmq_topic_info *topic)
{
	json_t *object = json_object();

	json_put_text(object, "name", topic->name);
	json_put_u64(object, "id", topic->id);
	json_put_text(object, "mode", value_word(shape_modes, (int)topic->mode));
	json_put_text(object, "policy", value_word(shape_policies, (int)topic->policy));
	json_put_text(object, "stall", value_word(shape_stalls, (int)topic->stall));
	json_put_text(object, "wait", value_word(shape_waits, (int)topic->wait));
	json_put_u64(object, "partitions", topic->partitions);
	json_put_u64(object, "depth", topic->depth);
	json_put_u64(object, "slot_bytes", topic->slot_bytes);
	json_put_u64(object, "inline_bytes", topic->inline_bytes);
	json_put_u64(object, "max_message_bytes", topic->max_message_bytes);
	json_put(object, "tag", json_boolean(topic->flags & SHMQ_TOPIC_TAG));
	json_put(object, "time", json_boolean(topic->flags & SHMQ_TOPIC_TIME));
	json_put(object, "spin_only", json_boolean(topic->flags & SHMQ_TOPIC_SPIN_ONLY));
	json_put(object, "ended", json_boolean(topic->ended));
	json_put_u64(object, "ring_bytes", topic->ring_bytes);
	json_put_u64(object, "arena_bytes", topic->arena_bytes);
	json_put_u64(object, "page_bytes", topic->page_bytes);
	json_put(object, "node_asked", topics_json_node(topic->node_asked));
	json_put(object, "node", topics_json_node(topic->node_actual));
	json_put(object, "locked", json_boolean(topic->locked));
	json_put(object, "log", json_log(topic));
	json_put_u64(object, "publishers", topic->publishers);
	json_put_u64(object, "subscribers", topic->subscribers);
	json_put_u64(object, "sleepers", topic->sleepers);
	json_put_u64(object, "head", topic->head);
	json_put(object, "stats", json_stats(&topic->stats));
	json_put_text(object, "note", topic->note);
	return object;
}

/* ---- peers ----------------------------------------------------------- */

static int keep_peer(void *arg, const struct shmq_peer_info *peer)
{
	struct peers *to = arg;

	to->all = cli_grow(to->all, to->count, &to->room, sizeof(*to->all));
	to->all[to->count++] = *peer;
	return 0;
}

static int by_client(const void *left, const void *right)
{
	const struct shmq_peer_info *a = left, *b = right;

	if (a->client_id != b->client_id)
		return a->client_id < b->client_id ? -1 : 1;
	return (a->partition > b->partition) - (a->partition < b->partition);
}

int peers_collect(shmq_bus *bus, const char *topic, struct peers *out)
{
	int rc;

	*out = (struct peers){ 0 };
	rc = shmq_peer_each(bus, topic, keep_peer, out);
	if (out->count)
		qsort(out->all, out->count, sizeof(*out->all), by_client);
	return rc;
}

void peers_clear(struct peers *peers)
{
	free(peers->all);
	*peers = (struct peers){ 0 };
}

/* ---- who holds whom back --------------------------------------------- */

static struct who find_who(const struct peers *peers, enum shmq_role role, int client)
{
	struct who who = { .client = client };
	size_t i;

	for (i = 0; i < peers->count; i++) {
		const struct shmq_peer_info *peer = &peers->all[i];

		if (peer->role != role || (int)peer->client_id != client)
			continue;
		who.pid = peer->pid;
		memcpy(who.name, peer->client_name, sizeof(who.name));
		break;
	}
	return who;
}

void holder_of(const struct peers *peers, const struct shmq_partition_info *partition,
	       struct holder *out)
{
	*out = (struct holder){
		.partition = partition->partition,
		.slowest = find_who(peers, SHMQ_ROLE_SUBSCRIBER, partition->holder),
		.lag = partition->holder_lag,
		.holds_back = partition->holds_back,
		.claimer = find_who(peers, SHMQ_ROLE_PUBLISHER, partition->claimer),
		.claim_seq = partition->claim_seq,
	};
}

static int is_worse(const struct shmq_partition_info *a, const struct shmq_partition_info *b)
{
	if ((a->claimer >= 0) != (b->claimer >= 0))
		return a->claimer >= 0;
	if (a->holds_back != b->holds_back)
		return a->holds_back;
	return a->holder >= 0 && (b->holder < 0 || a->holder_lag > b->holder_lag);
}

struct worst {
	struct shmq_partition_info partition;
	int log_error; /* of any */
};

static int keep_worst(void *arg, const struct shmq_partition_info *partition)
{
	struct worst *worst = arg;

	if (is_worse(partition, &worst->partition))
		worst->partition = *partition;
	if (partition->log_error)
		worst->log_error = partition->log_error;
	return 0;
}

int holder_find(shmq_bus *bus, const struct shmq_topic_info *topic, struct holder *out)
{
	struct worst worst = { .partition = { .holder = -1, .claimer = -1 } };
	struct peers peers = { 0 };
	int rc = shmq_partition_each(bus, topic->name, keep_worst, &worst);

	if (rc == 0 && (worst.partition.holder >= 0 || worst.partition.claimer >= 0))
		rc = peers_collect(bus, topic->name, &peers);
	holder_of(&peers, &worst.partition, out);
	if (topic->log == SHMQ_LOG_BLOCK)
		out->log_error = worst.log_error;
	peers_clear(&peers);
	return rc;
}

int holder_has_lag(const struct shmq_topic_info *topic, const struct holder *holder)
{
	return holder->slowest.client >= 0 || (topic->subscribers && topic->policy != SHMQ_LOSSY);
}

struct units_text who_text(const struct who *who)
{
	struct units_text text;

	if (who->client < 0)
		snprintf(text.s, sizeof(text.s), "-");
	else if (!who->pid)
		snprintf(text.s, sizeof(text.s), "client %d", who->client);
	else
		snprintf(text.s, sizeof(text.s), "%s (pid %d)", who->name, (int)who->pid);
	return text;
}

/* Who waits for a subscriber that stands at a claim waits for the claim.  A log that does
 * not go on may have read all there is, and stop publishers by their arenas. */
struct units_text holder_text(const struct holder *holder)
{
	struct units_text text = { "-" };

	if (holder->claimer.client >= 0)
		snprintf(text.s, sizeof(text.s), "%.72s, in its claim",
			 who_text(&holder->claimer).s);
	else if (holder->holds_back && (!holder->log_error || holder->slowest.name[0] != '$'))
		text = who_text(&holder->slowest);
	else if (holder->log_error)
		snprintf(text.s, sizeof(text.s), "its log: %.72s",
			 shmq_strerror(holder->log_error));
	return text;
}

int topic_is_pattern(const char *topic)
{
	return strpbrk(topic, "*#") != NULL;
}
