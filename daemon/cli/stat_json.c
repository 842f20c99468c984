/* SPDX-License-Identifier: MIT */
#include "stat.h"

static json_t *json_rate(double rate)
{
	return rate < 0 ? json_null() : json_real(rate);
}

static json_t *json_who(const struct who *who, const struct holder *holder)
{
	json_t *object = json_object();

	json_put_u64(object, "client", (uint64_t)who->client);
	json_put(object, "pid", json_integer(who->pid));
	json_put_text(object, "name", who->name);
	json_put_u64(object, "partition", holder->partition);
	return object;
}

static void put_holder(json_t *object, const struct holder *holder)
{
	json_t *slowest = NULL, *claim = NULL;

	if (holder->slowest.client >= 0) {
		slowest = json_who(&holder->slowest, holder);
		json_put_u64(slowest, "lag", holder->lag);
		json_put(slowest, "holds_back", json_boolean(holder->holds_back));
	}
	if (holder->claimer.client >= 0) {
		claim = json_who(&holder->claimer, holder);
		json_put_u64(claim, "seq", holder->claim_seq);
	}
	json_put(object, "slowest", slowest ? slowest : json_null());
	json_put(object, "claim", claim ? claim : json_null());
}

static json_t *json_summary(const struct shmq_bus_info *bus)
{
	json_t *object = json_object();

	json_put_text(object, "name", bus->name);
	json_put(object, "daemon_pid", json_integer(bus->daemon_pid));
	json_put(object, "parent_pid", json_integer(bus->parent_pid));
	json_put_u64(object, "epoch", bus->epoch);
	json_put_u64(object, "started_ns", bus->started_ns);
	json_put_u64(object, "topics", bus->topics);
	json_put_u64(object, "clients", bus->clients);
	json_put_u64(object, "bytes", bus->bytes);
	json_put_u64(object, "layout_version", bus->layout_version);
	return object;
}

static json_t *json_topics(const struct sample *before, const struct sample *now)
{
	json_t *array = json_array(), *object;
	size_t i;

	for (i = 0; i < now->topics.count; i++) {
		object = topics_json(&now->topics.all[i]);
		json_put(object, "rate", json_rate(stat_listed_rate(before, now, i)));
		put_holder(object, &now->holders[i]);
		json_array_append_new(array, object);
	}
	return array;
}

static json_t *json_disks(const struct sample *before, const struct sample *now)
{
	json_t *array = json_array(), *object;
	size_t i;

	for (i = 0; i < now->disk_count; i++) {
		object = json_object();
		json_put_text(object, "dir", now->disks[i].dir);
		json_put_u64(object, "device", now->disks[i].device);
		json_put_u64(object, "written_bytes", now->disks[i].written_bytes);
		json_put(object, "written_bytes_rate", json_rate(stat_disk_rate(before, now, i)));
		json_array_append_new(array, object);
	}
	return array;
}

json_t *stat_json_bus(const struct sample *before, const struct sample *now)
{
	json_t *object = json_object();

	json_put(object, "bus", json_summary(&now->bus));
	json_put(object, "topics", json_topics(before, now));
	json_put(object, "disks", json_disks(before, now));
	return object;
}

static json_t *json_log(const struct sample *now, uint32_t p)
{
	const struct shmq_partition_info *partition = &now->partitions[p];
	json_t *object;

	if (!stat_has_log(&now->topic))
		return json_null();
	object = json_object();
	json_put_u64(object, "first", partition->log_first);
	json_put_u64(object, "written", partition->log_written);
	json_put_u64(object, "synced", partition->log_synced);
	if (stat_knows_left(partition))
		json_put_u64(object, "disk_left", partition->log_left);
	else
		json_put(object, "disk_left", json_null());
	json_put(object, "disk_low", json_boolean(partition->log_is_low));
	if (partition->log_error)
		json_put_text(object, "error", shmq_strerror(partition->log_error));
	else
		json_put(object, "error", json_null());
	return object;
}

static json_t *json_partitions(const struct sample *before, const struct sample *now)
{
	json_t *array = json_array(), *object;
	uint32_t p;

	for (p = 0; p < now->topic.partitions; p++) {
		object = json_object();
		json_put_u64(object, "partition", p);
		json_put_u64(object, "head", now->partitions[p].head);
		json_put_u64(object, "oldest", now->partitions[p].oldest);
		json_put_u64(object, "voids", now->partitions[p].voids);
		json_put(object, "rate", json_rate(stat_partition_rate(before, now, p)));
		put_holder(object, &now->holders[p]);
		json_put(object, "log", json_log(now, p));
		json_array_append_new(array, object);
	}
	return array;
}

static json_t *json_latency(const struct shmq_peer_info *peer)
{
	json_t *object;

	if (!peer->most_ns)
		return json_null();
	object = json_object();
	json_put_u64(object, "p50_ns", peer->p50_ns);
	json_put_u64(object, "p99_ns", peer->p99_ns);
	json_put_u64(object, "p999_ns", peer->p999_ns);
	json_put_u64(object, "most_ns", peer->most_ns);
	return object;
}

static json_t *json_peer(const struct sample *now, const struct shmq_peer_info *peer)
{
	int publishes = peer->role == SHMQ_ROLE_PUBLISHER;
	json_t *object = json_object();

	json_put_u64(object, "client", peer->client_id);
	json_put(object, "pid", json_integer(peer->pid));
	json_put_u64(object, "uid", peer->uid);
	json_put_text(object, "name", peer->client_name);
	json_put(object, "partition",
		 peer->partition < 0 ? json_null() : json_integer(peer->partition));
	json_put_u64(object, publishes ? "sent" : "received", peer->count);
	json_put_u64(object, "bytes", peer->bytes);
	json_put_u64(object, publishes ? "dropped" : "lost", peer->lost);
	json_put_u64(object, publishes ? "blocked" : "sleeps", peer->waits);
	json_put_u64(object, "wakes", peer->wakes);
	json_put_u64(object, "opened_ns", peer->opened_ns);
	if (publishes) {
		json_put_u64(object, "arena_bytes", peer->arena_bytes);
		json_put(object, "arena_node", topics_json_node(peer->arena_node));
		json_put(object, "waiting", json_boolean(peer->waiting));
		json_put(object, "in_claim", json_boolean(stat_is_in_claim(now, peer->client_id)));
		return object;
	}
	json_put_u64(object, "lag", peer->lag);
	json_put(object, "gating", json_boolean(peer->gating));
	json_put(object, "sleeping", json_boolean(peer->sleeping));
	json_put(object, "evicted", json_boolean(peer->evicted));
	json_put(object, "latency", json_latency(peer));
	return object;
}

static json_t *json_peers(const struct sample *now, enum shmq_role role)
{
	const struct peers *peers = &now->peers;
	json_t *array = json_array();
	size_t i;

	for (i = 0; i < peers->count; i++)
		if (peers->all[i].role == role)
			json_array_append_new(array, json_peer(now, &peers->all[i]));
	return array;
}

json_t *stat_json_topic(const struct sample *before, const struct sample *now)
{
	json_t *object = topics_json(&now->topic);

	json_put(object, "rate", json_rate(stat_topic_rate(before, now)));
	json_put(object, "partition_list", json_partitions(before, now));
	json_put(object, "publisher_list", json_peers(now, SHMQ_ROLE_PUBLISHER));
	json_put(object, "subscriber_list", json_peers(now, SHMQ_ROLE_SUBSCRIBER));
	return object;
}
