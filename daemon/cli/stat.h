/* SPDX-License-Identifier: MIT
 *
 * stat: one look at a bus or a topic, and its two ways to print it.
 */
#ifndef SHMQ_CLI_STAT_H
#define SHMQ_CLI_STAT_H

#include "cli.h"

struct sample {
	int64_t at_ns; /* 0: there was no look */
	struct shmq_bus_info bus;
	struct topics topics;                   /* without a topic named */
	struct shmq_topic_info topic;           /* with one */
	struct shmq_partition_info *partitions; /* of it */
	struct holder *holders;                 /* of topics.all, or of partitions */
	struct peers peers;
	struct shmq_disk_info *disks; /* without a topic named */
	size_t disk_count, disk_room;
};

/* Messages per second since `before`, negative if that is not known. */
double stat_topic_rate(const struct sample *before, const struct sample *now);
double stat_partition_rate(const struct sample *before, const struct sample *now, uint32_t p);
/* The same of topics.all[i]; those of `before` are sorted by id. */
double stat_listed_rate(const struct sample *before, const struct sample *now, size_t i);

/* Bytes per second into logs on disks[i]; negative if that is not known. */
double stat_disk_rate(const struct sample *before, const struct sample *now, size_t i);

/* Whether a partition of the topic stands at a claim of that client's. */
int stat_is_in_claim(const struct sample *now, unsigned client);

static inline int stat_has_log(const struct shmq_topic_info *topic)
{
	return topic->log && topic->log != SHMQ_LOG_NONE;
}

/* Once its tailer has looked: of less than a MiB, which is 0, it would say that it is low. */
static inline int stat_knows_left(const struct shmq_partition_info *partition)
{
	return partition->log_left || partition->log_is_low;
}

void stat_print_bus(const struct sample *before, const struct sample *now);
void stat_print_topic(const struct sample *before, const struct sample *now);
json_t *stat_json_bus(const struct sample *before, const struct sample *now);
json_t *stat_json_topic(const struct sample *before, const struct sample *now);

#endif
