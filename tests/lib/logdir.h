/* SPDX-License-Identifier: MIT
 *
 * logdir: a topic's log directory, made without a bus, for tests of what
 * reads one.  Segments, indexes and the file that says whose log it is are
 * as a tailer would have left them; damage is the test's to add.
 *
 * Whatever fails here ends the program.
 */
#ifndef LOGDIR_H
#define LOGDIR_H

#include "layout.h"
#include "log_format.h"
#include "log_record.h"
#include "proto.h"
#include "shmq.h"

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct logdir {
	int fd;
	struct log_identity id;
};

/* A partition that is written. */
struct logpart {
	struct logdir *log;
	uint32_t partition;
	int dir, segment, index;
	uint64_t first_seq, seq, max_ts, off, seed;
	uint64_t index_off; /* least offset of what is to be in the index next */
};

static inline void logdir_write(int fd, const void *data, size_t bytes, uint64_t off)
{
	if (pwrite(fd, data, bytes, (off_t)off) != (ssize_t)bytes)
		err(1, "writing a log");
}

static inline int logdir_create(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		err(1, "%s", name);
	return fd;
}

static inline void logdir_open(struct logdir *log, const char *path, const char *topic,
			       uint32_t partitions, uint32_t flags)
{
	struct proto_options options = { .depth = 1024,
					 .slot_bytes = 128,
					 .partitions = partitions,
					 .flags = flags,
					 .mode = SHMQ_SHARED,
					 .policy = SHMQ_BLOCK,
					 .log = SHMQ_LOG_BLOCK,
					 .sync = SHMQ_SYNC_BATCH,
					 .retain_bytes = 4711 };
	size_t from = offsetof(struct log_identity, log_id);
	int fd;

	if (mkdir(path, 0700) || (log->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		err(1, "%s", path);
	log->id = (struct log_identity){ .magic = LOG_MAGIC_IDENTITY,
					 .version = LOG_VERSION,
					 .log_id = "of this test log",
					 .created_ns = 1234567890 };
	snprintf(log->id.topic, sizeof(log->id.topic), "%s", topic);
	memcpy(log->id.options, &options, sizeof(options));
	log->id.checksum = shmq__log_sum(0, (char *)&log->id + from, sizeof(log->id) - from);
	fd = logdir_create(log->fd, "topic");
	logdir_write(fd, &log->id, sizeof(log->id), 0);
	close(fd);
}

static inline void logpart_segment(struct logpart *p)
{
	struct log_segment_header h = { .magic = LOG_MAGIC_SEGMENT,
					.version = LOG_VERSION,
					.seed = p->seq * 7 + 1,
					.first_seq = p->seq,
					.base_ts = p->max_ts,
					.partition = p->partition };
	struct log_index_header x = { .magic = LOG_MAGIC_INDEX,
				      .version = LOG_VERSION,
				      .entry_bytes = sizeof(struct log_index_entry),
				      .seed = h.seed,
				      .first_seq = p->seq };
	char name[64];

	memcpy(h.log_id, p->log->id.log_id, sizeof(h.log_id));
	memcpy(h.topic, p->log->id.topic, sizeof(h.topic));
	h.checksum = shmq__log_sum(0, &h, sizeof(h));
	p->first_seq = p->seq;
	p->seed = h.seed;
	p->off = sizeof(h);
	p->index_off = 0;
	snprintf(name, sizeof(name), "%020" PRIu64 ".log", p->seq);
	p->segment = logdir_create(p->dir, name);
	logdir_write(p->segment, &h, sizeof(h), 0);
	snprintf(name, sizeof(name), "%020" PRIu64 ".idx", p->seq);
	p->index = logdir_create(p->dir, name);
	logdir_write(p->index, &x, sizeof(x), 0);
}

static inline void logpart_open(struct logpart *p, struct logdir *log, uint32_t partition,
				uint64_t first_seq)
{
	char name[16];

	*p = (struct logpart){ .log = log, .partition = partition, .seq = first_seq };
	snprintf(name, sizeof(name), "%u", partition);
	if (mkdirat(log->fd, name, 0700) ||
	    (p->dir = openat(log->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		err(1, "%s", name);
	logpart_segment(p);
}

static inline void logpart_index(struct logpart *p)
{
	struct log_index_entry e = { .seq = p->seq, .max_ts = p->max_ts, .off = p->off };

	if (p->off < p->index_off)
		return;
	e.checksum = shmq__log_sum(p->seed, &e, offsetof(struct log_index_entry, checksum));
	logdir_write(p->index, &e, sizeof(e), (uint64_t)lseek(p->index, 0, SEEK_END));
	p->index_off = p->off + LOG_INDEX_BYTES;
}

static inline void logpart_record(struct logpart *p, struct log_record head,
				  const struct iovec *piece, int count)
{
	static const char zeros[LOG_ALIGN];
	int i;

	logpart_index(p);
	head.seq = p->seq;
	for (i = 0; i < count; i++)
		head.body_bytes += (uint32_t)piece[i].iov_len;
	head.checksum = shmq__log_record_sum(p->seed, &head, piece, count);
	logdir_write(p->segment, &head, sizeof(head), p->off);
	p->off += sizeof(head);
	for (i = 0; i < count; p->off += piece[i++].iov_len)
		logdir_write(p->segment, piece[i].iov_base, piece[i].iov_len, p->off);
	logdir_write(p->segment, zeros, -p->off & (LOG_ALIGN - 1), p->off);
	p->off += -p->off & (LOG_ALIGN - 1);
	p->seq += log_record_count(&head);
	if (head.kind == LOG_MESSAGE && head.ts > p->max_ts)
		p->max_ts = head.ts;
}

/* What is to be in the log of *msg: time, type, tag, key, properties, data. */
static inline void logpart_message(struct logpart *p, const struct shmq_msg *msg)
{
	struct log_record head = {
		.ts = msg->ts_ns, .tag = msg->tag, .type = msg->type, .kind = LOG_MESSAGE
	};
	struct lay_meta meta = { .key_bytes = (uint16_t)msg->key_len,
				 .properties_bytes = (uint16_t)msg->properties_len };
	struct iovec piece[] = { { &meta, sizeof(meta) },
				 { (void *)(uintptr_t)msg->key, msg->key_len },
				 { (void *)(uintptr_t)msg->properties, msg->properties_len },
				 { (void *)(uintptr_t)msg->data, msg->len } };
	int plain = !msg->key_len && !msg->properties_len;

	head.flags = plain ? 0 : SHMQ_MSG_META;
	logpart_record(p, head, plain ? piece + 3 : piece, plain ? 1 : 4);
}

static inline void logpart_skip(struct logpart *p, enum log_kind kind, uint64_t count)
{
	logpart_record(p, (struct log_record){ .tag = count, .kind = (uint8_t)kind }, NULL, 0);
}

static inline void logpart_end_segment(struct logpart *p)
{
	logpart_record(p, (struct log_record){ .kind = LOG_END }, NULL, 0);
	close(p->segment);
	close(p->index);
}

/* End the segment, begin the next. */
static inline void logpart_roll(struct logpart *p)
{
	logpart_end_segment(p);
	logpart_segment(p);
}

static inline void logpart_close(struct logpart *p)
{
	close(p->segment);
	close(p->index);
	close(p->dir);
}

static inline void logdir_close(struct logdir *log)
{
	close(log->fd);
}

#endif
