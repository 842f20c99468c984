/* SPDX-License-Identifier: MIT */
#include "log_identity.h"
#include "helpers.h"
#include "logdir.h"
#include "proto.h"

#include <endian.h>
#include <fcntl.h>

static struct logdir make(void)
{
	char path[PATH_MAX];
	struct logdir log;

	snprintf(path, sizeof(path), "%s/log", test_tmpdir());
	logdir_open(&log, path, "prices", 3, 0);
	return log;
}

/* Write it with these bytes at `off`, its checksum right again if `is_summed`. */
static void damage(struct logdir *log, size_t off, const void *bytes, size_t n, int is_summed)
{
	struct log_identity id = log->id;
	size_t from = offsetof(struct log_identity, log_id);
	int fd = logdir_create(log->fd, "topic");

	memcpy((char *)&id + off, bytes, n);
	if (is_summed)
		id.checksum = shmq__log_sum(0, (char *)&id + from, sizeof(id) - from);
	logdir_write(fd, &id, sizeof(id), 0);
	close(fd);
}

static void refuses(struct logdir *log, int error, const char *text)
{
	struct shmq__why why = { "" };
	struct log_identity id;

	CHECK_ERROR(shmq__log_identify(log->fd, &id, &why), error);
	if (!strstr(why.text, text))
		FAIL("\"%s\" does not say \"%s\"", why.text, text);
}

TEST(an_identity_is_read)
{
	struct logdir log = make();
	struct log_identity id;

	CHECK_OK(shmq__log_identify(log.fd, &id, NULL));
	CHECK_STR(id.topic, "prices");
	CHECK_MEM(&id, &log.id, sizeof(id));
	logdir_close(&log);
}

/* Written by another program: every option is another than the default. */
TEST(the_golden_identity_is_read)
{
	static const uint8_t log_id[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	static const struct proto_options want = {
		.depth = 65536,
		.max_bytes = 1024,
		.evict_ns = 1,
		.block_timeout_ns = 2,
		.slot_bytes = 128,
		.partitions = 4,
		.flags = 3,
		.node = -1,
		.mode = 1,
		.policy = 1,
		.stall = 1,
		.wait = 1,
		.pages = 1,
		.lock = 1,
		.log = 1,
		.sync = 3,
		.sync_ns = 4,
		.segment_bytes = 1 << 20,
		.retain_bytes = 5,
		.retain_ns = 6,
		.tombstone_ns = 7,
		.compress = 8,
	};
	int dir = open("tests/log/golden", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct log_identity id;
	unsigned i;

	CHECK_GE(dir, 0);
	if (__BYTE_ORDER != __LITTLE_ENDIAN)
		SKIP("the golden files are of the other byte order");
	CHECK_OK(shmq__log_identify_of(dir, "prices", &id, NULL));
	CHECK_MEM(id.log_id, log_id, sizeof(log_id));
	CHECK_EQ(id.created_ns, 1234567890);
	CHECK_MEM(id.options, &want, sizeof(want));
	for (i = sizeof(want); i < sizeof(id.options); i++)
		CHECK_EQ(id.options[i], 0);
	close(dir);
}

TEST(an_identity_of_another_topic_is_refused_where_it_has_to_be_that_of_one)
{
	struct logdir log = make();
	struct shmq__why why = { "" };
	struct log_identity id;

	CHECK_OK(shmq__log_identify_of(log.fd, "prices", &id, &why));
	CHECK_ERROR(shmq__log_identify_of(log.fd, "price", &id, &why), SHMQ_ECORRUPT);
	CHECK_STR(why.text, "it is the log of \"prices\"");
	logdir_close(&log);
}

TEST(what_is_no_identity_is_refused)
{
	struct logdir log = make();
	uint64_t swapped = __builtin_bswap64(LOG_MAGIC_IDENTITY);
	struct proto_options options = { .partitions = LAY_PARTITIONS_MAX + 1 };
	uint32_t version = LOG_VERSION + 1;
	char endless[sizeof(log.id.topic)];
	int fd;

	damage(&log, 0, &swapped, sizeof(swapped), 1);
	refuses(&log, SHMQ_EVERSION, "other byte order");
	damage(&log, 0, "x", 1, 1);
	refuses(&log, SHMQ_ECORRUPT, "not one of shmq");
	damage(&log, offsetof(struct log_identity, version), &version, sizeof(version), 1);
	refuses(&log, SHMQ_EVERSION, "version 2");
	damage(&log, offsetof(struct log_identity, topic), "x", 1, 0);
	refuses(&log, SHMQ_ECORRUPT, "damaged");
	damage(&log, offsetof(struct log_identity, topic), "../up", 6, 1);
	refuses(&log, SHMQ_ECORRUPT, "damaged");
	memset(endless, 'x', sizeof(endless));
	damage(&log, offsetof(struct log_identity, topic), endless, sizeof(endless), 1);
	refuses(&log, SHMQ_ECORRUPT, "damaged");
	damage(&log, offsetof(struct log_identity, options), &options, sizeof(options), 1);
	refuses(&log, SHMQ_ECORRUPT, "damaged");
	options.partitions = 0;
	damage(&log, offsetof(struct log_identity, options), &options, sizeof(options), 1);
	refuses(&log, SHMQ_ECORRUPT, "damaged");
	fd = logdir_create(log.fd, "topic");
	logdir_write(fd, &log.id, sizeof(log.id) - 1, 0);
	close(fd);
	refuses(&log, SHMQ_ECORRUPT, "not one of shmq");
	CHECK_OK(unlinkat(log.fd, "topic", 0));
	refuses(&log, -ENOENT, "topic");
	CHECK_OK(mkdirat(log.fd, "topic", 0700));
	refuses(&log, -EISDIR, "topic");
	logdir_close(&log);
}
