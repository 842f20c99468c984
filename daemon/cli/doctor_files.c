/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define OWN_DIRECTORY "export SHMQ_RUNTIME_DIR=$HOME/.shmq"

/* ---- repairs ----------------------------------------------------------- */

/* As the last of a bus leaves: the lock goes last, and with it the right to
 * remove the others.  What was found is looked at again, now that nobody else can
 * start it. */
static int remove_bus(const struct finding *f)
{
	static const char *const rest[] = { ".sock", ".back",    ".manifest",
					    ".conf", ".control", ".lock" };
	int dir = runtime_open(f->path), held, rc = 0;
	char name[256];
	size_t i;

	if (dir < 0)
		return dir;
	snprintf(name, sizeof(name), "%s.lock", f->name);
	held = openat(dir, name, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (held < 0)
		rc = -errno;
	else
		close(held);
	held = rc ? rc : runtime_lock(dir, f->name, ".lock", LOCK_EX);
	if (held >= 0 &&
	    (runtime_is_held(dir, f->name, ".control") || runtime_is_mapped(f->path, f->name) ||
	     runtime_is_listened_at(f->path, f->name)))
		rc = -EBUSY;
	for (i = 0; held >= 0 && !rc && i < ARRAY_COUNT(rest); i++) {
		snprintf(name, sizeof(name), "%s%s", f->name, rest[i]);
		unlinkat(dir, name, 0);
	}
	if (held >= 0)
		close(held);
	close(dir);
	return held < 0 ? held : rc;
}

static int remove_file(const struct finding *f)
{
	int dir = runtime_open(f->path), rc;

	if (dir < 0)
		return dir;
	rc = unlinkat(dir, f->name, 0) ? -errno : 0;
	close(dir);
	return rc;
}

static int close_to_others(const struct finding *f)
{
	int dir = runtime_open(f->path), rc;
	struct stat st;

	if (dir < 0)
		return dir;
	rc = fstat(dir, &st) || fchmod(dir, st.st_mode & 07777 & ~(mode_t)(S_IWGRP | S_IWOTH)) ?
		     -errno :
		     0;
	close(dir);
	return rc;
}

/* ---- checks ------------------------------------------------------------ */

static void check_bus(void *arg, const char *bus, enum runtime_state state)
{
	struct doctor *d = arg;
	struct finding *f;

	switch (state) {
	case RUNTIME_AWAITED:
		doctor_add(d, "files", LEVEL_OK, "bus \"%s\" starts when somebody connects", bus);
		return;
	case RUNTIME_ALIVE:
		doctor_add(d, "files", LEVEL_OK, "bus \"%s\" is there", bus);
		return;
	case RUNTIME_HELD:
		f = doctor_add(d, "files", LEVEL_BAD,
			       "bus \"%s\" has no supervisor, and clients go on", bus);
		doctor_costs(f, "who dies is not noticed, and nobody new can attach");
		doctor_fix(f, "shmqd --bus %s --runtime-dir %s &", bus, d->runtime);
		return;
	default:
		f = doctor_add(d, "files", LEVEL_WARN, "bus \"%s\" died and left its files in %s",
			       bus, d->runtime);
		doctor_costs(f, "its next start waits two seconds for clients that are not there");
		doctor_fix(f,
			   "cd %s && rm -f %s.sock %s.back %s.manifest %s.conf %s.control %s.lock",
			   d->runtime, bus, bus, bus, bus, bus, bus);
		snprintf(f->path, sizeof(f->path), "%s", d->runtime);
		snprintf(f->name, sizeof(f->name), "%s", bus);
		f->repair = remove_bus;
	}
}

/* A file that was being written when its process died. */
static void check_scratch(struct doctor *d, const char *name)
{
	char *end;
	long pid = strtol(name + 1, &end, 10);
	struct finding *f;

	if (pid <= 0 || *end || !kill((pid_t)pid, 0) || errno != ESRCH)
		return;
	f = doctor_add(d, "files", LEVEL_WARN, "process %ld died and left %s in %s", pid, name,
		       d->runtime);
	doctor_costs(f, "nothing but its place");
	doctor_fix(f, "rm %s/%s", d->runtime, name);
	snprintf(f->path, sizeof(f->path), "%s", d->runtime);
	snprintf(f->name, sizeof(f->name), "%.63s", name);
	f->repair = remove_file;
}

/* Root made it, where nobody else makes any. */
static int is_of_root(const char *path)
{
	const char *slash = strrchr(path, '/');
	struct stat st;
	char above[256];
	int n = slash ? snprintf(above, sizeof(above), "%.*s/.", (int)(slash - path), path) : -1;

	return n > 0 && (size_t)n < sizeof(above) && !lstat(above, &st) && st.st_uid == 0 &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

/* As the library has it. */
static int is_trusted(const struct doctor *d, const struct stat *st)
{
	return st->st_uid == geteuid() ||
	       (!d->is_default && (geteuid() == 0 || st->st_uid == 0 || is_of_root(d->runtime)));
}

static int check_directory(struct doctor *d)
{
	struct finding *f;
	struct stat st;

	if (lstat(d->runtime, &st)) {
		doctor_add(d, "permissions", LEVEL_OK, "%s is not there yet", d->runtime);
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		f = doctor_add(d, "permissions", LEVEL_BAD, "%s is not a directory", d->runtime);
		doctor_costs(f, "no bus starts, and none is found");
		doctor_fix(f, OWN_DIRECTORY);
		return -1;
	}
	if (!is_trusted(d, &st)) {
		f = doctor_add(d, "permissions", LEVEL_BAD, "%s belongs to uid %u", d->runtime,
			       (unsigned)st.st_uid);
		doctor_costs(f, "no bus starts there, and none is trusted");
		doctor_fix(f, OWN_DIRECTORY);
		return -1;
	}
	if (st.st_mode & (S_IWGRP | S_IWOTH)) {
		f = doctor_add(d, "permissions", LEVEL_BAD, "others may write in %s (mode %03o)",
			       d->runtime, (unsigned)st.st_mode & 0777);
		doctor_costs(f, "the bus is refused, as anybody could pose as its supervisor");
		if (st.st_mode & S_ISVTX) { /* as /tmp, which is meant to be so */
			doctor_fix(f, OWN_DIRECTORY);
			return -1;
		}
		doctor_fix(f, "chmod go-w %s", d->runtime);
		snprintf(f->path, sizeof(f->path), "%s", d->runtime);
		f->repair = close_to_others;
		return 0;
	}
	doctor_add(d, "permissions", LEVEL_OK, "nobody else may write in %s", d->runtime);
	return 0;
}

void doctor_files(struct doctor *d)
{
	struct dirent **entries;
	int count, i;

	if (check_directory(d))
		return;
	count = scandir(d->runtime, &entries, NULL, alphasort);
	for (i = 0; i < count; i++) {
		if (entries[i]->d_name[0] == '.')
			check_scratch(d, entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	runtime_each(d->runtime, check_bus, d);
}
