/* SPDX-License-Identifier: MIT
 *
 * cursor: stored cursors from outside, beside a bus that runs or without one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bus.h"
#include "log_cursor.h"
#include "log_identity.h"
#include "log_reader.h"

struct log {
	int dir;
	struct log_identity id;
	uint32_t partitions;
};

static int open_log(struct log *log, const char *path, struct shmq__why *why)
{
	struct proto_options options;
	int error;

	log->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->dir < 0) {
		error = -errno;
		return shmq__fail(why, error, "opening %.200s: %s", path, shmq_strerror(error));
	}
	error = shmq__log_identify(log->dir, &log->id, why);
	if (error) {
		close(log->dir);
		return error;
	}
	memcpy(&options, log->id.options, sizeof(options));
	log->partitions = options.partitions;
	return 0;
}

/* ---- listing --------------------------------------------------------- */

struct listing {
	struct log log;
	int (*visit)(void *arg, const struct shmq_cursor_info *cursor);
	void *arg;
};

static int visit_partition(const struct listing *l, const struct log_cursor_file *f, int error,
			   struct shmq_cursor_info *info)
{
	struct log_cursor c = { 0 };

	if (!error)
		error = shmq__log_cursor_get(f, info->partition, &c, NULL);
	if (error == SHMQ_EEMPTY)
		return 0;
	info->error = error;
	info->seq = c.seq;
	info->stored_ns = c.stored_ns;
	info->is_held = f->fd >= 0 && shmq__log_cursor_is_held(f, info->partition);
	return l->visit(l->arg, info);
}

static int visit_cursor(void *arg, const char *name)
{
	const struct listing *l = arg;
	struct shmq_cursor_info info = { .partition = 0 };
	struct log_cursor_file f;
	int error = shmq__log_cursor_open(l->log.dir, name, l->log.id.log_id, &f, NULL), rc = 0;

	if (error == -ENOENT) /* removed since */
		return 0;
	snprintf(info.name, sizeof(info.name), "%s", name);
	for (; !rc && info.partition < l->log.partitions; info.partition++) {
		rc = visit_partition(l, &f, error, &info);
		if (error) /* of the file as a whole */
			break;
	}
	shmq__log_cursor_close(&f);
	return rc;
}

SHMQ_EXPORT int shmq_cursor_each(const char *dir,
				 int (*visit)(void *arg, const struct shmq_cursor_info *cursor),
				 void *arg)
{
	struct shmq__why *why = shmq__bus_why();
	struct listing l = { .visit = visit, .arg = arg };
	int rc = open_log(&l.log, dir, why);

	if (rc)
		return rc;
	rc = shmq__log_cursor_each(l.log.dir, visit_cursor, &l);
	close(l.log.dir);
	return rc;
}

/* ---- setting --------------------------------------------------------- */

static int find_place(const struct log *log, uint32_t partition,
		      const struct shmq_cursor_place *place, uint64_t *seq, struct shmq__why *why)
{
	struct log_owner owner = { .partition = partition };
	struct log_reader *reader;
	char name[16];
	int dir, error;

	if (place->from == SHMQ_FROM_SEQ) {
		*seq = place->seq;
		return 0;
	}
	snprintf(name, sizeof(name), "%u", partition);
	dir = openat(log->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return shmq__fail(why, -errno, "opening partition %u: %s", partition,
				  shmq_strerror(-errno));
	memcpy(owner.log_id, log->id.log_id, sizeof(owner.log_id));
	error = shmq__log_reader_open(dir, &owner, &reader, why);
	close(dir);
	if (error)
		return error;
	if (place->from != SHMQ_FROM_OLDEST)
		error = shmq__log_reader_seek_time(reader,
						   place->from == SHMQ_FROM_TIME ? place->ts_ns :
										   UINT64_MAX,
						   why);
	*seq = shmq__log_reader_seq(reader);
	shmq__log_reader_close(reader);
	return error;
}

static int set_partition(const struct log *log, const struct log_cursor_file *f, uint32_t partition,
			 const struct shmq_cursor_place *place, struct shmq__why *why)
{
	struct log_cursor last, next;
	uint64_t seq = 0;
	int error = find_place(log, partition, place, &seq, why);

	if (error)
		return error;
	/* What cannot be used is written over. */
	if (shmq__log_cursor_get(f, partition, &last, NULL))
		last = (struct log_cursor){ .partition = partition };
	error = shmq__log_cursor_put(f, &last, seq, &next);
	return error ? shmq__fail(why, error, "storing the cursor \"%.100s\": %s", f->name,
				  shmq_strerror(error)) :
		       0;
}

static int check_place(const struct shmq_cursor_place *p, const struct log *log,
		       struct shmq__why *why)
{
	if ((unsigned)p->from > SHMQ_FROM_TIME)
		return shmq__fail(why, SHMQ_EOPTION, "cursor place: a value is out of range");
	if (p->partition_plus1 < 0 || (uint32_t)p->partition_plus1 > log->partitions)
		return shmq__fail(why, SHMQ_EOPTION, "the log has %u partitions, counted from 0",
				  log->partitions);
	if (p->from == SHMQ_FROM_SEQ && !p->partition_plus1 && log->partitions > 1)
		return shmq__fail(why, SHMQ_EOPTION,
				  "a seq counts in one of the log's %u partitions: choose one",
				  log->partitions);
	return 0;
}

SHMQ_EXPORT int shmq_cursor_set(const char *dir, const char *name,
				const struct shmq_cursor_place *place)
{
	struct shmq__why *why = shmq__bus_why();
	struct log_cursor_file f = { .fd = -1 };
	struct shmq_cursor_place p;
	uint32_t first, count, i;
	struct log log;
	int error = shmq__options_copy(&p, place, sizeof(p), why);

	if (!error)
		error = open_log(&log, dir, why);
	if (error)
		return error;
	first = p.partition_plus1 ? (uint32_t)p.partition_plus1 - 1 : 0;
	count = p.partition_plus1 ? 1 : log.partitions;
	error = check_place(&p, &log, why);
	if (!error)
		error = shmq__log_cursor_hold(log.dir, name, log.id.log_id, first, count, &f, why);
	for (i = 0; i < count && !error; i++)
		error = set_partition(&log, &f, first + i, &p, why);
	if (!error && shmq__log_cursor_sync(&f))
		error = shmq__fail(why, -EIO, "the cursor \"%.100s\" could not be synced", name);
	shmq__log_cursor_close(&f);
	close(log.dir);
	return error;
}

SHMQ_EXPORT int shmq_cursor_remove(const char *dir, const char *name)
{
	struct shmq__why *why = shmq__bus_why();
	struct log log;
	int error = open_log(&log, dir, why);

	if (error)
		return error;
	error = shmq__log_cursor_remove(log.dir, name, why);
	close(log.dir);
	return error;
}
