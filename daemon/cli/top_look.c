/* SPDX-License-Identifier: MIT */
#include "top.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#define REOPEN_NS INT64_C(1000000000)

static int keep_topic(void *arg, const struct shmq_topic_info *info)
{
	struct top_look *look = arg;

	look->topics =
		cli_grow(look->topics, look->topic_count, &look->topic_room, sizeof(*look->topics));
	look->topics[look->topic_count++] = (struct top_topic){
		.info = *info,
		.holder = { .slowest.client = -1, .claimer.client = -1 },
	};
	return 0;
}

static int by_id(const void *left, const void *right)
{
	const struct top_topic *a = left, *b = right;

	return (a->info.id > b->info.id) - (a->info.id < b->info.id);
}

static int add_log(void *arg, const struct shmq_partition_info *partition)
{
	struct top_topic *topic = arg;

	topic->log_behind += partition->head - partition->log_written;
	topic->log_unsynced += partition->log_written - partition->log_synced;
	topic->log_written += partition->log_written;
	if (partition->log_error)
		topic->log_error = partition->log_error;
	return 0;
}

struct keep {
	struct top_look *look;
	size_t topic;
};

static int keep_peer(void *arg, const struct shmq_peer_info *peer)
{
	struct keep *keep = arg;
	struct top_look *look = keep->look;

	look->peers =
		cli_grow(look->peers, look->peer_count, &look->peer_room, sizeof(*look->peers));
	look->peers[look->peer_count++] = (struct top_peer){ .info = *peer, .topic = keep->topic };
	look->topics[keep->topic].peers++;
	return 0;
}

static int keep_disk(void *arg, const struct shmq_disk_info *disk)
{
	struct top_look *look = arg;

	look->disks =
		cli_grow(look->disks, look->disk_count, &look->disk_room, sizeof(*look->disks));
	look->disks[look->disk_count++] = *disk;
	return 0;
}

/* What goes meanwhile is shown as far as it was seen. */
static void look_into(shmq_bus *bus, struct top_look *look, size_t i)
{
	struct keep keep = { .look = look, .topic = i };
	struct top_topic *topic = &look->topics[i];

	topic->first_peer = look->peer_count;
	if (topic->info.ended)
		return;
	shmq_peer_each(bus, topic->info.name, keep_peer, &keep);
	holder_find(bus, &topic->info, &topic->holder);
	if (topic->info.log > SHMQ_LOG_NONE)
		shmq_partition_each(bus, topic->info.name, add_log, topic);
}

int top_look(shmq_bus *bus, struct top_look *out)
{
	size_t i;
	int rc;

	*out = (struct top_look){ .at_ns = cli_now_ns() };
	rc = shmq_bus_get_info(bus, &out->bus);
	if (rc == 0)
		rc = shmq_topic_each(bus, keep_topic, out);
	if (out->topic_count)
		qsort(out->topics, out->topic_count, sizeof(*out->topics), by_id);
	for (i = 0; rc == 0 && i < out->topic_count; i++)
		look_into(bus, out, i);
	return rc ? rc : shmq_disk_each(bus, keep_disk, out);
}

void top_look_clear(struct top_look *look)
{
	free(look->topics);
	free(look->peers);
	free(look->disks);
	*look = (struct top_look){ 0 };
}

/* While only its supervisor is away a bus is as good as ever.  Nobody serves a client
 * without handles: that it hung up is not noticed. */
int top_find_bus(struct cli *cli)
{
	struct shmq_bus_options how = {
		.size = sizeof(how),
		.start = SHMQ_START_NEVER,
		.runtime_dir = cli->runtime_dir,
		.timeout_ns = REOPEN_NS,
		.client_name = cli->client_name,
	};
	struct shmq_bus_info info;
	shmq_bus *other;
	int rc = shmq_bus_get_info(cli->bus, &info);

	if (rc < 0)
		return rc;
	if (info.daemon_pid && (!kill(info.daemon_pid, 0) || errno != ESRCH))
		return TOP_SERVED;
	rc = shmq_bus_open(shmq_bus_name(cli->bus), &how, &other);
	if (rc < 0)
		return info.daemon_pid ? TOP_AWAY : rc;
	shmq_bus_close(cli->bus);
	cli->bus = other;
	return TOP_OTHER;
}
