/* SPDX-License-Identifier: MIT
 *
 * log: a topic's log read without its bus.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus.h"
#include "clock.h"
#include "log_identity.h"
#include "log_index.h"
#include "log_reader.h"
#include "log_recover.h"
#include "name.h"

struct shmq_log_reader {
	int dir;
	int has_id;
	struct log_identity id; /* if it is damaged: what the segments say */
	uint32_t partitions;

	struct shmq_log_range range;
	uint32_t at;               /* partition that is read, `partitions`: none is left */
	struct log_reader *reader; /* of it, NULL: not begun */
};

/* ---- where logs are -------------------------------------------------- */

static int data_dir_of(const char *given, char *out, size_t bytes, struct shmq__why *why)
{
	const char *env = secure_getenv("SHMQ_DATA_DIR"), *state = secure_getenv("XDG_STATE_HOME"),
		   *home = secure_getenv("HOME");

	if (!given && env && *env)
		given = env;
	if (given)
		return snprintf(out, bytes, "%s", given);
	if (!geteuid())
		return snprintf(out, bytes, "/var/lib/shmq");
	if (state && *state == '/')
		return snprintf(out, bytes, "%s/shmq", state);
	if (home && *home == '/')
		return snprintf(out, bytes, "%s/.local/state/shmq", home);
	return shmq__fail(why, SHMQ_EOPTION,
			  "there is no HOME to keep logs in: set SHMQ_DATA_DIR or --data-dir");
}

SHMQ_EXPORT int shmq_log_dir(const char *data_dir, const char *bus, const char *topic, char *out,
			     size_t bytes)
{
	struct shmq__why *why = shmq__bus_why();
	int n, error = bus ? shmq__name_check_bus(bus, why) : 0;
	size_t used;

	if (!error && bus && topic)
		error = shmq__name_check_topic(topic, SHMQ__NAME_BUS, why);
	if (error)
		return error;
	n = data_dir_of(data_dir, out, bytes, why);
	if (n < 0)
		return n;
	used = (size_t)n;
	if (used < bytes && bus)
		used += (size_t)snprintf(out + used, bytes - used, "/%s", bus);
	if (used < bytes && bus && topic)
		used += (size_t)snprintf(out + used, bytes - used, "/%s", topic);
	if (used < bytes)
		return 0;
	return shmq__fail(why, SHMQ_EOPTION, "the directory's name is longer than %zu bytes",
			  bytes - 1);
}

/* ---- opening --------------------------------------------------------- */

static int open_partition(const struct shmq_log_reader *log, uint32_t p, struct shmq__why *why)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%u", p);
	fd = openat(log->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0)
		return fd;
	fd = -errno;
	return shmq__fail(why, fd, "opening partition %u: %s", p, shmq_strerror(fd));
}

/* Whose the segments of a partition have to be, NULL: anyone's. */
static const struct log_owner *owner_of(const struct shmq_log_reader *log, uint32_t p,
					struct log_owner *owner)
{
	memcpy(owner->log_id, log->id.log_id, sizeof(owner->log_id));
	owner->partition = p;
	return log->has_id ? owner : NULL;
}

static const struct proto_options *options_of(const struct shmq_log_reader *log)
{
	return (const struct proto_options *)(const void *)log->id.options;
}

/* One more than the highest partition that has a directory. */
static uint32_t count_partitions(const struct shmq_log_reader *log)
{
	int fd = openat(log->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	uint32_t count = 0;
	struct dirent *e;
	unsigned long n;
	char *end;

	if (!d && fd >= 0)
		close(fd);
	while (d && (e = readdir(d))) {
		n = strtoul(e->d_name, &end, 10);
		if (isdigit((unsigned char)e->d_name[0]) && !*end && n >= count &&
		    n < LAY_PARTITIONS_MAX)
			count = (uint32_t)n + 1;
	}
	if (d)
		closedir(d);
	return count;
}

/* The topic as a segment names it. */
static void take_name(struct shmq_log_reader *log, int dir)
{
	struct log_segment_header h;
	struct log_segment seg;
	unsigned count, i;
	uint64_t *first;

	if (shmq__log_list(dir, &first, &count))
		return;
	for (i = 0; i < count && !*log->id.topic; i++) {
		if (shmq__log_segment_open(dir, first[i], NULL, &seg, NULL))
			continue;
		if (shmq__log_segment_read(&seg, &h, sizeof(h), 0) == (ssize_t)sizeof(h))
			memcpy(log->id.topic, h.topic, sizeof(h.topic) - 1);
		shmq__log_segment_close(&seg);
	}
	free(first);
}

/* The file that says it is damaged: so much the segments know. */
static void identify_by_segments(struct shmq_log_reader *log)
{
	uint32_t p;
	int dir;

	memset(&log->id, 0, sizeof(log->id));
	log->partitions = count_partitions(log);
	for (p = 0; p < log->partitions && !*log->id.topic; p++) {
		dir = open_partition(log, p, NULL);
		if (dir < 0)
			continue;
		take_name(log, dir);
		close(dir);
	}
}

static int open_log(struct shmq_log_reader *log, const char *path, struct shmq__why *why)
{
	int error;

	log->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->dir < 0) {
		error = -errno;
		return shmq__fail(why, error, "opening %.200s: %s", path, shmq_strerror(error));
	}
	error = shmq__log_identify(log->dir, &log->id, why);
	log->has_id = !error;
	if (!error)
		log->partitions = options_of(log)->partitions;
	if (error != SHMQ_ECORRUPT && error != -ENOENT)
		return error;
	identify_by_segments(log);
	if (*log->id.topic)
		return 0;
	return shmq__fail(why, SHMQ_ECORRUPT, "%.200s is not the log of a topic", path);
}

SHMQ_EXPORT int shmq_log_open(const char *dir, shmq_log_reader **out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_log_reader *log = calloc(1, sizeof(*log));
	int error = log ? 0 : -ENOMEM;

	*out = NULL;
	if (!error)
		error = open_log(log, dir, why);
	if (!error)
		error = shmq_log_read(log, NULL);
	if (error) {
		shmq_log_close(log);
		return error;
	}
	*out = log;
	return 0;
}

SHMQ_EXPORT void shmq_log_close(shmq_log_reader *log)
{
	if (!log)
		return;
	shmq__log_reader_close(log->reader);
	if (log->dir >= 0)
		close(log->dir);
	free(log);
}

/* ---- what there is --------------------------------------------------- */

static uint64_t disk_bytes(int dir, uint64_t first)
{
	static const char *const suffixes[] = { "log", "zst", "idx" };
	char name[LOG_NAME_BYTES];
	uint64_t bytes = 0;
	struct stat st;
	size_t i;

	for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		shmq__log_name(first, suffixes[i], name);
		if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
			bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

/* Bytes of the disk that the segment has behind the record at which the scan stands:
 * it was reserved, and never written. */
static uint64_t reserved(const struct log_scan *scan)
{
	uint64_t used = (log_scan_off(scan) + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1), taken;
	struct stat st;

	if (scan->seg.zip || fstat(scan->seg.fd, &st))
		return 0;
	taken = (uint64_t)st.st_blocks * 512;
	return taken > used ? taken - used : 0;
}

/* From the index's last entry of the last good segment on. */
static int find_end(const struct shmq_log_reader *log, int dir, const uint64_t *first,
		    unsigned count, struct shmq_log_partition *out, struct shmq__why *why)
{
	struct log_owner owner;
	struct log_index_entry e;
	struct log_segment seg;
	struct log_record head;
	struct log_scan scan;
	const char *body;
	int rc = SHMQ_ECORRUPT;

	while (count && (rc == SHMQ_ECORRUPT || rc == -ENOENT))
		rc = shmq__log_segment_open(dir, first[--count],
					    owner_of(log, out->partition, &owner), &seg, why);
	if (rc)
		return rc == SHMQ_ECORRUPT || rc == -ENOENT ? 0 : rc;
	shmq__log_index_find(dir, &seg, LOG_BY_TIME, UINT64_MAX, &e);
	rc = shmq__log_scan_init(&scan);
	if (rc) {
		shmq__log_segment_close(&seg);
		return rc;
	}
	out->last_ts_ns = e.max_ts > seg.base_ts ? e.max_ts : seg.base_ts;
	shmq__log_scan_start(&scan, &seg, e.off, e.seq);
	while ((rc = shmq__log_scan_next(&scan, &head, &body)) == 1)
		if (head.kind == LOG_MESSAGE && head.ts > out->last_ts_ns)
			out->last_ts_ns = head.ts;
	out->next = scan.next;
	out->bytes -= reserved(&scan);
	shmq__log_scan_fini(&scan);
	return rc == SHMQ_ECORRUPT ? 0 : rc;
}

static int find_first_ts(const struct shmq_log_reader *log, int dir, struct shmq_log_partition *out,
			 struct shmq__why *why)
{
	struct log_reader *reader;
	struct log_owner owner;
	struct log_record head;
	const char *body;
	int rc = shmq__log_reader_open(dir, owner_of(log, out->partition, &owner), &reader, why);

	if (rc)
		return rc;
	while ((rc = shmq__log_reader_next(reader, NULL, &head, &body, why)) == 1)
		if (head.kind == LOG_MESSAGE)
			break;
	if (rc == 1)
		out->first_ts_ns = head.ts;
	shmq__log_reader_close(reader);
	return rc < 0 && rc != SHMQ_ECORRUPT ? rc : 0;
}

static int describe(const struct shmq_log_reader *log, uint32_t p, struct shmq_log_partition *out,
		    struct shmq__why *why)
{
	int dir = open_partition(log, p, why), error;
	uint64_t *first;
	unsigned count, i;

	memset(out, 0, sizeof(*out));
	out->partition = p;
	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return dir;
	error = shmq__log_list(dir, &first, &count);
	if (!error && count) {
		out->segments = count;
		out->first = out->next = first[0];
		for (i = 0; i < count; i++)
			out->bytes += disk_bytes(dir, first[i]);
		error = find_end(log, dir, first, count, out, why);
		if (!error)
			error = find_first_ts(log, dir, out, why);
	}
	free(first);
	close(dir);
	return error;
}

SHMQ_EXPORT int shmq_log_get_partition(shmq_log_reader *log, uint32_t partition,
				       struct shmq_log_partition *out)
{
	struct shmq__why *why = shmq__bus_why();

	if (partition >= log->partitions)
		return shmq__fail(why, SHMQ_EOPTION, "the log has %u partitions, counted from 0",
				  log->partitions);
	return describe(log, partition, out, why);
}

static void from_wire(const struct proto_options *w, struct shmq_topic_options *o)
{
	*o = (struct shmq_topic_options){
		.size = sizeof(*o),
		.depth = w->depth,
		.slot_bytes = w->slot_bytes,
		.partitions = w->partitions,
		.max_message_bytes = w->max_bytes,
		.mode = (enum shmq_mode)w->mode,
		.policy = (enum shmq_policy)w->policy,
		.stall = (enum shmq_stall)w->stall,
		.wait = (enum shmq_wait)w->wait,
		.pages = (enum shmq_pages)w->pages,
		.lock = (enum shmq_lock)w->lock,
		.node = w->node,
		.flags = w->flags,
		.evict_ns = w->evict_ns,
		.block_timeout_ns = w->block_timeout_ns,
		.log = (enum shmq_log)w->log,
		.sync = (enum shmq_sync)w->sync,
		.sync_ns = w->sync_ns,
		.segment_bytes = w->segment_bytes,
		.retain_bytes = w->retain_bytes,
		.retain_ns = w->retain_ns,
		.tombstone_ns = w->tombstone_ns,
		.compress = (int)w->compress,
	};
}

SHMQ_EXPORT int shmq_log_get_info(shmq_log_reader *log, struct shmq_log_info *out)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_log_partition p;
	uint32_t i;
	int error;

	memset(out, 0, sizeof(*out));
	memcpy(out->topic, log->id.topic, sizeof(out->topic));
	out->created_ns = log->id.created_ns;
	out->is_damaged = !log->has_id;
	out->partitions = log->partitions;
	if (log->has_id)
		from_wire(options_of(log), &out->options);
	for (i = 0; i < log->partitions; i++) {
		error = describe(log, i, &p, why);
		if (error)
			return error;
		out->segments += p.segments;
		out->bytes += p.bytes;
		out->seqs += p.next - p.first;
		if (p.first_ts_ns && (!out->first_ts_ns || p.first_ts_ns < out->first_ts_ns))
			out->first_ts_ns = p.first_ts_ns;
		if (p.last_ts_ns > out->last_ts_ns)
			out->last_ts_ns = p.last_ts_ns;
	}
	return 0;
}

/* ---- reading --------------------------------------------------------- */

SHMQ_EXPORT int shmq_log_read(shmq_log_reader *log, const struct shmq_log_range *range)
{
	struct shmq__why *why = shmq__bus_why();
	struct shmq_log_range r;
	int error = shmq__options_copy(&r, range, sizeof(r), why);

	if (error)
		return error;
	if ((unsigned)r.from > SHMQ_FROM_TIME || (unsigned)r.to > SHMQ_TO_TIME ||
	    (r.flags & ~SHMQ_LOG_TAGGED))
		return shmq__fail(why, SHMQ_EOPTION, "log range: a value is out of range");
	if (r.partition_plus1 < 0 || (uint32_t)r.partition_plus1 > log->partitions)
		return shmq__fail(why, SHMQ_EOPTION, "the log has %u partitions, counted from 0",
				  log->partitions);
	if ((r.from == SHMQ_FROM_SEQ || r.to == SHMQ_TO_SEQ) && !r.partition_plus1 &&
	    log->partitions > 1)
		return shmq__fail(why, SHMQ_EOPTION,
				  "a seq counts in one of the log's %u partitions: choose one",
				  log->partitions);
	log->range = r;
	log->at = r.partition_plus1 ? (uint32_t)r.partition_plus1 - 1 : 0;
	shmq__log_reader_close(log->reader);
	log->reader = NULL;
	return 0;
}

static int begin_partition(struct shmq_log_reader *log, struct shmq__why *why)
{
	int dir = open_partition(log, log->at, why), error;
	struct log_owner owner;

	if (dir < 0)
		return dir;
	error = shmq__log_reader_open(dir, owner_of(log, log->at, &owner), &log->reader, why);
	close(dir);
	if (!error && log->range.from == SHMQ_FROM_SEQ)
		error = shmq__log_reader_seek(log->reader, log->range.seq, why);
	if (!error && log->range.from == SHMQ_FROM_TIME)
		error = shmq__log_reader_seek_time(log->reader, log->range.ts_ns, why);
	return error;
}

static void end_partition(struct shmq_log_reader *log)
{
	shmq__log_reader_close(log->reader);
	log->reader = NULL;
	log->at = log->range.partition_plus1 ? log->partitions : log->at + 1;
}

static int is_wanted(const struct shmq_log_range *r, const struct shmq_msg *msg)
{
	if ((r->flags & SHMQ_LOG_TAGGED) && msg->tag != r->tag)
		return 0;
	return !r->key || (msg->key_len == r->key_len && !memcmp(msg->key, r->key, r->key_len));
}

/* A record of this partition: 0 or an error to hand out; SHMQ_EEMPTY: look at the
 * next; SHMQ_EENDED: it is behind the range. */
static int take_record(struct shmq_log_reader *log, const struct log_record *head, const char *body,
		       struct shmq_msg *msg, struct shmq__why *why)
{
	const struct shmq_log_range *r = &log->range;
	uint64_t count = log_record_count(head);
	struct lay_batch batch;

	if (r->to == SHMQ_TO_SEQ && seq_diff(head->seq, r->to_seq) >= 0)
		return SHMQ_EENDED;
	if (r->to == SHMQ_TO_SEQ && seq_diff(head->seq + count, r->to_seq) > 0)
		count = r->to_seq - head->seq;
	msg->partition = (int32_t)log->at;
	if (head->kind == LOG_HOLE)
		return SHMQ_EEMPTY;
	if (head->kind == LOG_GAP) {
		msg->seq = head->seq + count - 1;
		msg->lost = count;
		msg->lost_is_bound = (uint32_t)log_gap_is_bound(head);
		return SHMQ_EOVERRUN;
	}
	if (r->to == SHMQ_TO_TIME && head->ts >= r->to_ts_ns)
		return SHMQ_EENDED;
	if (!shmq__log_decode(head, body, msg, &batch))
		return is_wanted(r, msg) ? 0 : SHMQ_EEMPTY;
	msg->seq = head->seq;
	msg->lost = 1;
	return shmq__fail(why, SHMQ_ECORRUPT,
			  "partition %u, seq %" PRIu64
			  ": key and properties are longer than the record",
			  log->at, head->seq);
}

/* As shmq_log_next(), but SHMQ_EENDED: this partition has. */
static int next_here(struct shmq_log_reader *log, struct shmq_msg *msg, struct shmq__why *why)
{
	struct log_record head;
	const char *body;
	int rc;

	do {
		rc = shmq__log_next_settled(log->reader, log->dir, &head, &body, why);
		if (rc != 1)
			return rc ? rc : SHMQ_EENDED;
		*msg = (struct shmq_msg){ 0 };
		rc = take_record(log, &head, body, msg, why);
	} while (rc == SHMQ_EEMPTY);
	return rc;
}

SHMQ_EXPORT int shmq_log_next(shmq_log_reader *log, struct shmq_msg *msg)
{
	struct shmq__why *why = shmq__bus_why();
	int rc;

	*msg = (struct shmq_msg){ 0 };
	while (log->at < log->partitions) {
		rc = log->reader ? 0 : begin_partition(log, why);
		if (rc) {
			msg->partition = (int32_t)log->at;
			end_partition(log);
			return rc;
		}
		rc = next_here(log, msg, why);
		if (rc == 0 || rc == SHMQ_EOVERRUN || (rc == SHMQ_ECORRUPT && msg->lost))
			return rc;
		msg->partition = (int32_t)log->at;
		end_partition(log);
		if (rc != SHMQ_EENDED)
			return rc;
	}
	return SHMQ_EENDED;
}

/* ---- verifying and repairing ----------------------------------------- */

struct check {
	struct shmq_log_checks how;
	uint32_t partition;
	uint64_t before, of; /* bytes of the partitions before, of all */
};

static void found(void *arg, const char *line)
{
	const struct check *c = arg;

	if (c->how.found)
		c->how.found(c->how.arg, c->partition, line);
}

static int tell_progress(void *arg, uint64_t bytes)
{
	const struct check *c = arg;

	return c->how.progress ? c->how.progress(c->how.arg, c->before + bytes, c->of) : 0;
}

static int take_checks(const struct shmq_log_reader *log, const struct shmq_log_checks *how,
		       struct check *out, struct shmq__why *why)
{
	int error = shmq__options_copy(&out->how, how, sizeof(out->how), why);

	out->before = out->of = 0;
	if (!error &&
	    (out->how.partition_plus1 < 0 || (uint32_t)out->how.partition_plus1 > log->partitions))
		return shmq__fail(why, SHMQ_EOPTION, "the log has %u partitions, counted from 0",
				  log->partitions);
	return error;
}

/* Look at the index of each segment, or make it anew if that is wanted and needed. */
static int check_indexes(struct check *c, const struct shmq_log_reader *log, int dir, int is_repair,
			 struct shmq_log_verdict *out, struct shmq__why *why)
{
	struct log_owner owner;
	struct log_segment seg;
	char name[LOG_NAME_BYTES], line[128];
	unsigned count, i;
	uint64_t *first;
	int state, error = shmq__log_list(dir, &first, &count);

	for (i = 0; !error && i < count; i++) {
		if (shmq__log_segment_open(dir, first[i], owner_of(log, c->partition, &owner), &seg,
					   NULL))
			continue;
		state = shmq__log_index_check(dir, &seg);
		if (state == SHMQ_EEMPTY || state == SHMQ_ECORRUPT) {
			out->indexes++;
			shmq__log_name(first[i], "idx", name);
			if (is_repair)
				error = shmq__log_index_rebuild(dir, &seg);
			if (error) {
				shmq__fail(why, error, "making %s anew: %s", name,
					   shmq_strerror(error));
				break;
			}
			snprintf(line, sizeof(line), "%s %s%s", name,
				 state == SHMQ_EEMPTY ? "is missing" : "is damaged or incomplete",
				 is_repair ? ": made anew" : ": reading does without");
			found(c, line);
		}
		shmq__log_segment_close(&seg);
	}
	free(first);
	return error;
}

static int verify_partition(struct check *c, const struct shmq_log_reader *log,
			    struct shmq_log_verdict *out, struct shmq__why *why)
{
	int dir = open_partition(log, c->partition, why), error;
	struct log_owner owner;
	struct log_verdict v;

	if (dir == -ENOENT) {
		out->damaged++;
		found(c, "its directory is missing");
		return 0;
	}
	if (dir < 0)
		return dir;
	error = shmq__log_verify(dir, log->dir, owner_of(log, c->partition, &owner), &v, found,
				 tell_progress, c, why);
	out->segments += v.segments;
	out->records += v.records;
	out->bytes += v.bytes;
	out->damaged += v.damaged;
	out->missing += v.missing;
	out->gaps += v.gaps;
	if (!error)
		error = check_indexes(c, log, dir, 0, out, why);
	close(dir);
	return error;
}

/* What is expected to be read, for progress. */
static uint64_t bytes_of(const struct shmq_log_reader *log, uint32_t p)
{
	int dir = open_partition(log, p, NULL);
	uint64_t *first, bytes = 0;
	unsigned count, i;

	if (dir < 0)
		return 0;
	if (!shmq__log_list(dir, &first, &count)) {
		for (i = 0; i < count; i++)
			bytes += disk_bytes(dir, first[i]);
		free(first);
	}
	close(dir);
	return bytes;
}

static int is_chosen(const struct check *c, uint32_t p)
{
	return !c->how.partition_plus1 || (uint32_t)c->how.partition_plus1 == p + 1;
}

SHMQ_EXPORT int shmq_log_verify(shmq_log_reader *log, const struct shmq_log_checks *checks,
				struct shmq_log_verdict *out)
{
	struct shmq__why *why = shmq__bus_why();
	struct check c = { 0 };
	uint32_t p;
	int error = take_checks(log, checks, &c, why);

	memset(out, 0, sizeof(*out));
	for (p = 0; !error && p < log->partitions; p++)
		c.of += is_chosen(&c, p) ? bytes_of(log, p) : 0;
	if (!error && !log->has_id) {
		out->damaged++;
		found(&c, "the file \"topic\" is missing or damaged");
	}
	for (p = 0; !error && p < log->partitions; p++) {
		if (!is_chosen(&c, p))
			continue;
		c.partition = p;
		error = verify_partition(&c, log, out, why);
		c.before = out->bytes;
	}
	return error;
}

/* Whoever ends a bus removes its locks while it holds them, so one that was
 * waited for may be of a file that is gone. */
static int is_still_there(const struct shmq_log_reader *log, int fd)
{
	struct stat held, named;

	return !fstat(fd, &held) && !fstatat(log->dir, "../lock", &named, 0) &&
	       held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

/* The lock of the bus's directory.  A descriptor, and whether it was made for us;
 * or -errno. */
static int lock_bus(const struct shmq_log_reader *log, int *is_ours)
{
	const int flags = O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	int fd, error;

	for (;;) {
		fd = openat(log->dir, "../lock", flags | O_EXCL, 0600);
		*is_ours = fd >= 0;
		if (fd < 0 && errno == EEXIST)
			fd = openat(log->dir, "../lock", flags, 0600);
		if (fd < 0)
			return -errno;
		shmq__log_give(log->dir, fd);
		error = flock(fd, LOCK_EX | LOCK_NB) ? -errno : 0;
		if (!error && is_still_there(log, fd))
			return fd;
		close(fd);
		if (error && error != -EINTR)
			return error;
	}
}

static void unlock_bus(const struct shmq_log_reader *log, int fd, int is_ours)
{
	if (is_ours)
		unlinkat(log->dir, "../lock", 0);
	close(fd);
}

static int repair_partition(struct check *c, const struct shmq_log_reader *log,
			    struct shmq_log_verdict *out, struct shmq__why *why)
{
	int dir = open_partition(log, c->partition, why), error;
	struct log_owner owner;
	struct log_state state;
	const struct proto_options *made = (const struct proto_options *)log->id.options;
	uint64_t *first;
	unsigned count;

	if (dir == -ENOENT) {
		found(c, "its directory is missing: it begins anew");
		return 0;
	}
	if (dir < 0)
		return dir;
	error = shmq__log_recover(dir, owner_of(log, c->partition, &owner), made->depth, &state,
				  found, c, why);
	out->cut_bytes += state.cut_bytes;
	if (!error)
		error = check_indexes(c, log, dir, 1, out, why);
	if (!error)
		error = shmq__log_list(dir, &first, &count);
	if (!error) {
		out->segments += count;
		free(first);
	}
	close(dir);
	return error;
}

static int repair(struct shmq_log_reader *log, struct check *c, struct shmq_log_verdict *out,
		  struct shmq__why *why)
{
	int is_ours, error = 0, lock = lock_bus(log, &is_ours);
	uint32_t p;

	/* The lock of a log on another disk is its own. */
	if (lock >= 0 && flock(log->dir, LOCK_EX | LOCK_NB)) {
		error = -errno;
		unlock_bus(log, lock, is_ours);
		lock = error;
		error = 0;
	}
	if (lock == -EWOULDBLOCK)
		return shmq__fail(why, SHMQ_EINUSE,
				  "a supervisor, or another repair, has the log or the bus's "
				  "directory locked: stop the bus first");
	if (lock < 0)
		return shmq__fail(why, lock, "locking the directory above it: %s",
				  shmq_strerror(lock));
	for (p = 0; !error && p < log->partitions; p++) {
		if (!is_chosen(c, p))
			continue;
		c->partition = p;
		error = repair_partition(c, log, out, why);
		c->before += bytes_of(log, p);
		if (!error)
			error = tell_progress(c, 0);
	}
	unlock_bus(log, lock, is_ours);
	return error;
}

SHMQ_EXPORT int shmq_log_repair(const char *dir, const struct shmq_log_checks *checks,
				struct shmq_log_verdict *out)
{
	struct shmq__why *why;
	struct shmq_log_reader *log;
	struct check c = { 0 };
	int error = shmq_log_open(dir, &log);
	uint32_t p;

	memset(out, 0, sizeof(*out));
	if (error)
		return error;
	why = shmq__bus_why();
	if (!log->has_id)
		error = shmq__fail(
			why, SHMQ_ECORRUPT,
			"its file \"topic\" is missing or damaged, so what belongs to it "
			"is not known: export what there is, and import that");
	if (!error)
		error = take_checks(log, checks, &c, why);
	for (p = 0; !error && p < log->partitions; p++)
		c.of += is_chosen(&c, p) ? bytes_of(log, p) : 0;
	if (!error)
		error = repair(log, &c, out, why);
	shmq_log_close(log);
	return error;
}
