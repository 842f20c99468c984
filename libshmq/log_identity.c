/* SPDX-License-Identifier: MIT */
#include "log_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "layout.h"
#include "log_record.h"
#include "name.h"
#include "proto.h"

static uint32_t sum_of(const struct log_identity *id)
{
	size_t from = offsetof(struct log_identity, log_id);

	return shmq__log_sum(0, (const char *)id + from, sizeof(*id) - from);
}

static int check(struct log_identity *id, struct shmq__why *why)
{
	struct proto_options options;

	if (id->magic == __builtin_bswap64(LOG_MAGIC_IDENTITY))
		return shmq__fail(why, SHMQ_EVERSION,
				  "the log was written by a machine of the other byte order");
	if (id->magic != LOG_MAGIC_IDENTITY)
		return shmq__fail(why, SHMQ_ECORRUPT, "its file \"topic\" is not one of shmq");
	if (id->version != LOG_VERSION)
		return shmq__fail(why, SHMQ_EVERSION,
				  "the log has version %u of the format, not %u", id->version,
				  LOG_VERSION);
	memcpy(&options, id->options, sizeof(options));
	if (id->checksum != sum_of(id) || !memchr(id->topic, 0, sizeof(id->topic)) ||
	    shmq__name_check_topic(id->topic, SHMQ__NAME_BUS, NULL) || !options.partitions ||
	    options.partitions > LAY_PARTITIONS_MAX)
		return shmq__fail(why, SHMQ_ECORRUPT, "its file \"topic\" is damaged");
	return 0;
}

int shmq__log_identify(int dir, struct log_identity *out, struct shmq__why *why)
{
	int fd = openat(dir, "topic", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int error = fd < 0 ? -errno : 0;
	ssize_t n = fd < 0 ? 0 : read(fd, out, sizeof(*out));

	if (n < 0)
		error = -errno;
	if (fd >= 0)
		close(fd);
	if (error == -ENOENT)
		return shmq__fail(why, error,
				  "it is not the log of a topic: its file \"topic\" is "
				  "missing");
	if (error)
		return shmq__fail(why, error, "reading its file \"topic\": %s",
				  shmq_strerror(error));
	if (n != (ssize_t)sizeof(*out))
		return shmq__fail(why, SHMQ_ECORRUPT, "its file \"topic\" is not one of shmq");
	return check(out, why);
}

int shmq__log_identify_of(int dir, const char *topic, struct log_identity *out,
			  struct shmq__why *why)
{
	int error = shmq__log_identify(dir, out, why);

	if (!error && strcmp(out->topic, topic) != 0)
		error = shmq__fail(why, SHMQ_ECORRUPT, "it is the log of \"%s\"", out->topic);
	return error;
}
