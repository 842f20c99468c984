/* SPDX-License-Identifier: MIT */
#include "durable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "log_identity.h"
#include "log_recover.h"
#include "name.h"
#include "tail_ceiling.h"

#define LOCK_TIMEOUT_NS INT64_C(2000000000)
#define LOCK_POLL_MS 10
#define CEILING_DEPTHS 8u
#define CEILING_GAP (UINT64_C(1) << 30)

/* A name that no topic has: what is removed is deleted under it. */
#define REMOVED ".removed."

static int add_dir(struct durable_dirs *dirs, const char *path, size_t bytes, const char *bus)
{
	if (dirs->count == DURABLE_DIRS_MAX)
		return -E2BIG;
	if (snprintf(dirs->dir[dirs->count], PATH_MAX, "%.*s%s", (int)bytes, path, bus) >= PATH_MAX)
		return -ENAMETOOLONG;
	dirs->count++;
	return 0;
}

static int has_dir(const struct durable_dirs *dirs, const char *path)
{
	unsigned i;

	for (i = 0; i < dirs->count; i++)
		if (!strcmp(dirs->dir[i], path))
			return 1;
	return 0;
}

/* Where logs are that were made while other directories were named. */
static void add_links(struct durable_dirs *dirs)
{
	DIR *d = opendir(dirs->dir[0]);
	char target[PATH_MAX];
	struct dirent *e;
	ssize_t n;

	while (d && (e = readdir(d))) {
		if (*e->d_name == '.' || (e->d_type != DT_LNK && e->d_type != DT_UNKNOWN))
			continue;
		n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		if (*target != '/')
			continue;
		*strrchr(target, '/') = 0;
		if (!has_dir(dirs, target) && add_dir(dirs, target, strlen(target), ""))
			log_warn("%s/%s is beyond what is written to: name fewer log directories",
				 dirs->dir[0], e->d_name);
	}
	if (d)
		closedir(d);
}

int durable_find_dirs(const char *bus_dir, size_t bytes, const char *log_dirs,
		      struct durable_dirs *out)
{
	size_t n;
	int error;

	out->count = 0;
	error = add_dir(out, bus_dir, strnlen(bus_dir, bytes), "");
	for (; log_dirs && *log_dirs && !error; log_dirs += n + (log_dirs[n] == ':')) {
		n = strcspn(log_dirs, ":");
		if (n)
			error = add_dir(out, log_dirs, n, strrchr(out->dir[0], '/'));
	}
	if (!error)
		add_links(out);
	return error;
}

int durable_is_log_dir(const char *log_dirs, const char *dir)
{
	size_t n, bytes = strlen(dir);

	for (; log_dirs && *log_dirs; log_dirs += n + (log_dirs[n] == ':')) {
		n = strcspn(log_dirs, ":");
		if (n == bytes && !memcmp(log_dirs, dir, n))
			return 1;
	}
	return 0;
}

int durable_bus_dir(const char *data_dir, const char *bus, char *out, size_t bytes,
		    struct shmq__why *why)
{
	int error = shmq_log_dir(data_dir, bus, NULL, out, bytes);

	return error ? shmq__fail(why, error, "%s", shmq_bus_error(NULL)) : 0;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd))
		error = -errno;
	close(fd);
	return error;
}

/* Make `path` with all that leads there, and make it last.  0 or -errno. */
static int make_dirs(const char *path)
{
	char part[PATH_MAX] = "", parent[PATH_MAX];
	const char *at = path;
	int error = 0;

	if (strlen(path) >= sizeof(part))
		return -ENAMETOOLONG;
	while (!error && *at) {
		memcpy(parent, part, sizeof(parent));
		at += strspn(at, "/");
		at += strcspn(at, "/");
		memcpy(part, path, (size_t)(at - path));
		part[at - path] = 0;
		if (!mkdir(part, 0700))
			error = sync_dir(*parent ? parent : *path == '/' ? "/" : ".");
		else if (errno != EEXIST)
			error = -errno;
	}
	return error;
}

static int open_topic(const char *bus_dir, const char *topic, char path[PATH_MAX])
{
	int fd;

	if (snprintf(path, PATH_MAX, "%s/%s", bus_dir, topic) >= PATH_MAX)
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int durable_lock(int dir, const char *topic, int64_t timeout_ns, struct shmq__why *why)
{
	uint64_t deadline = shmq__clock_deadline(timeout_ns);

	while (flock(dir, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return shmq__fail(why, -errno, "locking the log of \"%s\": %s", topic,
					  shmq_strerror(-errno));
		if (shmq__clock_left(deadline) == 0)
			return shmq__fail(why, SHMQ_EINUSE,
					  "another bus keeps the log of \"%s\" in this data "
					  "directory: give each bus its own --data-dir",
					  topic);
		poll(NULL, 0, LOCK_POLL_MS);
	}
	return 0;
}

/* ---- identity -------------------------------------------------------- */

static uint32_t identity_sum(const struct log_identity *id)
{
	size_t from = offsetof(struct log_identity, log_id);

	return shmq__log_sum(0, (const char *)id + from, sizeof(*id) - from);
}

static int make_identity(const char *topic, const struct proto_options *options,
			 struct log_identity *id)
{
	memset(id, 0, sizeof(*id));
	id->magic = LOG_MAGIC_IDENTITY;
	id->version = LOG_VERSION;
	id->created_ns = shmq__clock_realtime_ns();
	snprintf(id->topic, sizeof(id->topic), "%s", topic);
	memcpy(id->options, options, sizeof(*options));
	if (getrandom(id->log_id, sizeof(id->log_id), 0) != (ssize_t)sizeof(id->log_id))
		return -EIO;
	id->checksum = identity_sum(id);
	return 0;
}

enum age { OLD_LOG, NEW_LOG };

/* ---- partitions ------------------------------------------------------ */

uint64_t durable_ceiling_room(enum shmq_log log, uint64_t depth)
{
	uint64_t depths = CEILING_DEPTHS * depth;

	return log == SHMQ_LOG_BLOCK || depths > CEILING_GAP ? depths : CEILING_GAP;
}

/* Before anybody can be given a seq. */
static int put_ceiling(int dir, const struct log_owner *owner, const struct proto_options *options,
		       uint64_t serial, uint64_t next)
{
	struct tail_io_options how = { .buffer_count = 2,
				       .buffer_bytes = LOG_BLOCK,
				       .kind = TAIL_IO_PLAIN };
	struct tail_ceiling *ceiling;
	struct tail_io *io;
	int error = tail_io_create(&how, &io);

	if (error)
		return error;
	error = tail_ceiling_open(io, dir, owner, serial, &ceiling);
	if (!error) {
		tail_ceiling_set(ceiling,
				 next + durable_ceiling_room((enum shmq_log)options->log,
							     options->depth),
				 TAIL_CEILING_OPEN);
		while (!tail_ceiling_is_idle(ceiling))
			tail_io_reap(io, SHMQ_FOREVER);
		error = tail_ceiling_error(ceiling);
		tail_ceiling_close(ceiling);
	}
	tail_io_destroy(io);
	return error;
}

struct finding {
	const char *topic;
	uint32_t partition;
};

static void found(void *arg, const char *line)
{
	const struct finding *f = arg;

	log_warn("log of \"%s\", partition %u: %s", f->topic, f->partition, line);
}

/* Of a new log nothing is synced yet. */
static int prepare_partition(int dir, const char *path, const struct log_identity *id,
			     const struct proto_options *options, enum age age, uint32_t partition,
			     uint64_t first_seq, uint64_t *next, struct shmq__why *why)
{
	struct finding f = { id->topic, partition };
	struct log_owner owner = { .partition = partition };
	struct log_state state;
	char name[16];
	int fd, error;

	snprintf(name, sizeof(name), "%u", partition);
	if (mkdirat(dir, name, 0700) && errno != EEXIST)
		return -errno;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	memcpy(owner.log_id, id->log_id, sizeof(owner.log_id));
	error = shmq__log_recover(fd, &owner, options->depth, &state, found, &f, why);
	*next = state.has_next || state.resume ? state.resume : first_seq;
	if (!error && age == NEW_LOG)
		error = tail_ceiling_make(fd, &owner,
					  *next + durable_ceiling_room((enum shmq_log)options->log,
								       options->depth));
	else if (!error)
		error = put_ceiling(fd, &owner, options, state.ceiling_serial, *next);
	if (error && !*why->text)
		shmq__fail(why, error, "making the log in %.180s, file %u/ceiling: %s", path,
			   partition, shmq_strerror(error));
	/* Whoever made what is there may have been killed before. */
	if (!error && age == OLD_LOG && fsync(fd))
		error = -errno;
	close(fd);
	return error;
}

/* ---- a new one ------------------------------------------------------- */

static int sync_partition(int dir, uint32_t partition)
{
	char name[32];
	int fd, error = 0;

	snprintf(name, sizeof(name), "%u/ceiling", partition);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fdatasync(fd))
		error = -errno;
	if (fd >= 0)
		close(fd);
	snprintf(name, sizeof(name), "%u", partition);
	fd = error ? -1 : openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (!error && (fd < 0 || fsync(fd)))
		error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

/* All of it is written first and then synced, which where there is a journal is one
 * commit; the next has the name by which it is a log. */
static int settle(const char *bus_dir, int dir, const struct log_identity *id, uint32_t partitions)
{
	int fd = openat(dir, "topic.new",
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600),
	    error;
	uint32_t p;

	if (fd < 0)
		return -errno;
	error = shmq__log_write(fd, id, sizeof(*id));
	if (!error && fsync(fd))
		error = -errno;
	close(fd);
	for (p = 0; !error && p < partitions; p++)
		error = sync_partition(dir, p);
	if (!error)
		error = sync_dir(bus_dir);
	if (!error && (renameat(dir, "topic.new", dir, "topic") || fsync(dir)))
		error = -errno;
	return error;
}

/* Have `path`, where the log is looked for, lead to where it is to be.  What is there
 * already stays where it is. */
static int lead_to(const char *bus_dir, const char *log_dir, const char *topic, const char *path,
		   struct durable_begin *out, struct shmq__why *why)
{
	char target[PATH_MAX], was[PATH_MAX];
	ssize_t n = readlink(path, was, sizeof(was) - 1);
	int error, was_there;

	if (snprintf(target, sizeof(target), "%s%s/%s", log_dir, strrchr(bus_dir, '/'), topic) >=
	    (int)sizeof(target))
		return shmq__fail(why, -ENAMETOOLONG, "the log's directory has too long a name");
	was[n < 0 ? 0 : n] = 0;
	if (!strcmp(target, path) || !strcmp(target, was))
		return 0;
	if (n >= 0 || errno != ENOENT)
		return shmq__fail(why, SHMQ_EEXISTS,
				  "the log of \"%.80s\" is there, in %.180s: create it without a "
				  "log directory, or move that away",
				  topic, n >= 0 ? was : path);
	/* An empty one in the place of one that is not mounted would be filled. */
	if (access(log_dir, F_OK))
		return shmq__fail(why, -errno, "the log directory %.180s: %s: mount it, or make it",
				  log_dir, shmq_strerror(-errno));
	was_there = !access(target, F_OK);
	error = make_dirs(target);
	if (!error)
		error = make_dirs(bus_dir);
	if (!error && symlinkat(target, AT_FDCWD, path))
		error = -errno;
	if (error && !was_there)
		rmdir(target);
	out->is_made = !error && !was_there;
	if (!error)
		error = sync_dir(bus_dir);
	return error ? shmq__fail(why, error, "making the log in %.180s: %s", target,
				  shmq_strerror(error)) :
		       0;
}

/* It leads to what is not there: a disk that is not mounted, or a log that was removed by
 * who died before it had removed this, too. */
static int refuse_link(const char *topic, const char *path, struct shmq__why *why)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return -ENOENT;
	target[n] = 0;
	return shmq__fail(why, -ENOENT,
			  "the log of \"%.80s\" is to be in %.150s, which is not there: mount "
			  "that, or if it was removed, remove %.150s",
			  topic, target, path);
}

/* All below dir, which is closed.  Stops at nothing. */
static void delete_below(int fd)
{
	struct dirent *e;
	DIR *d = fdopendir(fd);

	if (!d) {
		close(fd);
		return;
	}
	while ((e = readdir(d))) {
		int sub;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    !unlinkat(fd, e->d_name, 0))
			continue;
		sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (sub >= 0)
			delete_below(sub);
		unlinkat(fd, e->d_name, AT_REMOVEDIR);
	}
	closedir(d);
}

void durable_unmake(const char *bus_dir, const char *topic)
{
	char path[PATH_MAX], target[PATH_MAX];
	int fd = open_topic(bus_dir, topic, path);
	ssize_t n = fd < 0 ? -1 : readlink(path, target, sizeof(target) - 1);

	if (fd < 0)
		return;
	delete_below(fd);
	if (n < 0) {
		rmdir(path);
		return;
	}
	target[n] = 0;
	rmdir(target);
	unlink(path);
}

/* What there is is not written over; its messages can be had all the same. */
static int identify(int dir, const char *topic, const char *path, struct log_identity *id,
		    struct shmq__why *why)
{
	struct shmq__why is;
	int error = shmq__log_identify_of(dir, topic, id, why);

	if (error != SHMQ_ECORRUPT)
		return error;
	is = *why;
	return shmq__fail(why, error,
			  "%.80s: export what the log has, move %.120s away, and import that",
			  is.text, path);
}

int durable_prepare(const char *bus_dir, const char *log_dir, const char *topic,
		    const struct proto_options *options, uint64_t first_seq,
		    struct durable_begin *out, struct shmq__why *why)
{
	const struct proto_options *was;
	struct log_identity id;
	char path[PATH_MAX];
	enum age age = OLD_LOG;
	int dir, error;
	uint32_t p;

	out->is_made = 0;
	if (snprintf(path, sizeof(path), "%s/%s", bus_dir, topic) >= (int)sizeof(path))
		return shmq__fail(why, -ENAMETOOLONG, "the log's directory has too long a name");
	error = *log_dir ? lead_to(bus_dir, log_dir, topic, path, out, why) : 0;
	if (error)
		return error;
	error = make_dirs(bus_dir);
	if (!error && mkdir(path, 0700))
		error = errno == EEXIST ? 0 : -errno;
	else if (!error)
		out->is_made = 1;
	dir = error ? error : open_topic(bus_dir, topic, path);
	if (dir == -ENOENT)
		refuse_link(topic, path, why);
	if (dir < 0 && *why->text)
		return dir;
	if (dir < 0)
		return shmq__fail(why, dir, "making the log in %.180s: %s", path,
				  shmq_strerror(dir));
	error = durable_lock(dir, topic, LOCK_TIMEOUT_NS, why);
	if (error) {
		close(dir);
		return error;
	}
	if (faccessat(dir, "topic", F_OK, AT_SYMLINK_NOFOLLOW) && errno == ENOENT)
		age = NEW_LOG;
	error = age == NEW_LOG ? make_identity(topic, options, &id) :
				 identify(dir, topic, path, &id, why);
	was = (const struct proto_options *)id.options;
	if (!error && was->partitions != options->partitions)
		error = shmq__fail(why, SHMQ_EEXISTS,
				   "the log of \"%.80s\" is there and has %u partitions, not %u: "
				   "create it with as many, or move %.100s away",
				   topic, was->partitions, options->partitions, path);
	for (p = 0; !error && p < options->partitions; p++)
		error = prepare_partition(dir, path, &id, options, age, p, first_seq, &out->next[p],
					  why);
	if (!error && age == NEW_LOG)
		error = settle(bus_dir, dir, &id, options->partitions);
	else if (!error && fsync(dir))
		error = -errno;
	close(dir);
	if (error && !*why->text)
		return shmq__fail(why, error, "making the log in %.180s: %s", path,
				  shmq_strerror(error));
	return error;
}

/* ---- all of a bus ---------------------------------------------------- */

int durable_each(const char *bus_dir,
		 int (*visit)(void *arg, const char *topic, const struct proto_options *options),
		 void *arg)
{
	struct proto_options options;
	struct log_identity id;
	char path[PATH_MAX];
	struct dirent *e;
	DIR *d = opendir(bus_dir);
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!rc && (e = readdir(d))) {
		struct shmq__why why = { "" };
		int dir, error;

		if (shmq__name_check_topic(e->d_name, SHMQ__NAME_BUS, &why))
			continue;
		dir = open_topic(bus_dir, e->d_name, path);
		if (dir == -ENOTDIR)
			continue;
		error = dir < 0 ? dir : shmq__log_identify_of(dir, e->d_name, &id, &why);
		if (dir >= 0)
			close(dir);
		if (error) {
			log_warn("%s is passed: %s", path,
				 *why.text ? why.text : shmq_strerror(error));
			continue;
		}
		memcpy(&options, id.options, sizeof(options));
		rc = visit(arg, id.topic, &options);
	}
	closedir(d);
	return rc;
}

static int put_away(const char *dir, const char *from)
{
	char to[PATH_MAX];

	if (snprintf(to, sizeof(to), "%s/%s%" PRIu64, dir, REMOVED, shmq__clock_realtime_ns()) >=
	    (int)sizeof(to))
		return -ENAMETOOLONG;
	if (rename(from, to))
		return errno == ENOENT ? 0 : -errno;
	return sync_dir(dir);
}

int durable_remove(const char *bus_dir, const char *topic)
{
	char path[PATH_MAX], target[PATH_MAX], dir[PATH_MAX];
	ssize_t n;
	int error;

	if (snprintf(path, sizeof(path), "%s/%s", bus_dir, topic) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return put_away(bus_dir, path);
	target[n] = 0;
	memcpy(dir, target, (size_t)n + 1);
	if (strrchr(dir, '/'))
		*strrchr(dir, '/') = 0;
	error = put_away(dir, target);
	if (unlink(path) && !error)
		error = -errno;
	return error ? error : sync_dir(bus_dir);
}

void durable_sweep(const char *dir)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d))) {
		int fd;

		if (strncmp(e->d_name, REMOVED, strlen(REMOVED)) != 0)
			continue;
		fd = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0)
			delete_below(fd);
		unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	}
	if (d)
		closedir(d);
}
