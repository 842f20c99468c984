/* SPDX-License-Identifier: MIT */
#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BUS_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

/* ---- who is behind the files of a bus ---------------------------------- */

/* Never by a path that its owner may turn into another meanwhile. */
static int open_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* A service manager that listens there starts the bus when somebody connects: so
 * nobody does.  In another network namespace it is not seen. */
static int is_listened_at(const char *path)
{
	char line[512];
	FILE *in = fopen("/proc/net/unix", "re");
	unsigned flags;
	int at = 0, found = 0;

	while (in && !found && fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = 0;
		at = 0;
		found = sscanf(line, "%*s %*s %*s %x %*s %*s %*s %n", &flags, &at) == 1 && at &&
			flags & 0x10000 && !strcmp(line + at, path);
	}
	if (in)
		fclose(in);
	return found;
}

static int answers(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

	if (sock < 0)
		return 1;
	if (strlen(path) >= sizeof(address.sun_path)) {
		close(sock);
		return 0;
	}
	strcpy(address.sun_path, path);
	rc = connect(sock, (struct sockaddr *)&address, sizeof(address));
	rc = rc == 0 || (errno != ECONNREFUSED && errno != ENOENT);
	close(sock);
	return rc;
}

/* The lock, -ENOENT where there is none, or -EWOULDBLOCK. */
static int lock(int dir, const char *bus, const char *suffix, int how)
{
	char name[256];
	struct stat held, named;
	int fd, rc;

	snprintf(name, sizeof(name), "%s%s", bus, suffix);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	rc = flock(fd, how | LOCK_NB) ? -errno : 0;
	/* Who ends a bus removes its locks: another one may have made its own since. */
	if (!rc && (fstat(fd, &held) || fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) ||
		    held.st_ino != named.st_ino))
		rc = -EWOULDBLOCK;
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

static int is_held(int dir, const char *bus, const char *suffix)
{
	int fd = lock(dir, bus, suffix, LOCK_SH);

	if (fd >= 0)
		close(fd);
	return fd < 0 && fd != -ENOENT;
}

/* Clients that have its memory mapped give it to the next supervisor, which
 * knows it by the manifest: those are not in vain. */
static int is_mapped(const char *dir, const char *bus)
{
	char path[256], line[512], wanted[64], inode[32];
	FILE *in;
	char *manifest = NULL;
	size_t len = 0, i;
	glob_t maps = { 0 };
	int found = 0, denied = 0;
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s.manifest", dir, bus);
	in = fopen(path, "re");
	if (!in)
		return 0;
	if (getdelim(&manifest, &len, 0, in) < 0 || glob("/proc/[0-9]*/maps", 0, NULL, &maps))
		goto out;
	for (i = 0; i < maps.gl_pathc && !found; i++) {
		FILE *of = fopen(maps.gl_pathv[i], "re");

		denied |= !of && errno == EACCES;
		while (of && !found && fgets(line, sizeof(line), of)) {
			if (!strstr(line, "/memfd:shmq-") ||
			    sscanf(line, "%*s %*s %*s %*s %31s", inode) != 1)
				continue;
			snprintf(wanted, sizeof(wanted), " ino %s ", inode);
			found = strstr(manifest, wanted) != NULL;
		}
		if (of)
			fclose(of);
	}
	/* Of those who cannot be seen some may be clients, if others were let in. */
	snprintf(path, sizeof(path), "%s/%s.sock", dir, bus);
	if (denied && !stat(path, &st) && st.st_mode & S_IWOTH)
		found = 1;
out:
	globfree(&maps);
	free(manifest);
	fclose(in);
	return found;
}

enum state { STATE_ALIVE, STATE_AWAITED, STATE_HELD, STATE_STALE };

static enum state state_of(const char *path, int dir, const char *bus)
{
	char sock[256];

	snprintf(sock, sizeof(sock), "%s/%s.sock", path, bus);
	if (is_held(dir, bus, ".lock") || is_held(dir, bus, ".control"))
		return STATE_ALIVE;
	if (is_listened_at(sock))
		return STATE_AWAITED;
	if (answers(sock))
		return STATE_ALIVE;
	return is_mapped(path, bus) ? STATE_HELD : STATE_STALE;
}

/* ---- repairs ----------------------------------------------------------- */

/* As the last of a bus leaves: the lock goes last, and with it the right to
 * remove the others.  What was found is looked at again, now that nobody else can
 * start it. */
static int remove_bus(const struct finding *f)
{
	static const char *const rest[] = { ".sock", ".back",    ".manifest",
					    ".conf", ".control", ".lock" };
	int dir = open_dir(f->path), held, rc = 0;
	char name[256];
	size_t i;

	if (dir < 0)
		return dir;
	snprintf(name, sizeof(name), "%s.lock", f->name);
	held = openat(dir, name, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (held < 0)
		rc = -errno;
	else
		close(held);
	held = rc ? rc : lock(dir, f->name, ".lock", LOCK_EX);
	if (held >= 0 && (is_held(dir, f->name, ".control") || is_mapped(f->path, f->name)))
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
	int dir = open_dir(f->path), rc;

	if (dir < 0)
		return dir;
	rc = unlinkat(dir, f->name, 0) ? -errno : 0;
	close(dir);
	return rc;
}

static int close_to_others(const struct finding *f)
{
	int dir = open_dir(f->path), rc;
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

static void check_bus(struct doctor *d, int dir, const char *bus)
{
	struct finding *f;

	switch (state_of(d->runtime, dir, bus)) {
	case STATE_AWAITED:
		doctor_add(d, "files", LEVEL_OK, "bus \"%s\" starts when somebody connects", bus);
		return;
	case STATE_ALIVE:
		doctor_add(d, "files", LEVEL_OK, "bus \"%s\" is there", bus);
		return;
	case STATE_HELD:
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

static int is_first_of(int dir, const char *bus, const char *suffix, const char *const *suffixes,
		       size_t count)
{
	char name[256];
	size_t i;

	for (i = 0; i < count && strcmp(suffixes[i], suffix) != 0; i++) {
		snprintf(name, sizeof(name), "%s%s", bus, suffixes[i]);
		if (!faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
			return 0;
	}
	return 1;
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
	snprintf(f->name, sizeof(f->name), "%s", name);
	f->repair = remove_file;
}

static void check_entry(struct doctor *d, int dir, const char *name)
{
	static const char *const suffixes[] = { ".lock", ".sock", ".control", ".manifest",
						".back" };
	const char *dot = strchr(name, '.');
	char bus[SHMQ_BUS_NAME_MAX + 1];
	size_t i;

	if (dot == name)
		check_scratch(d, name);
	if (!dot || dot == name || (size_t)(dot - name) >= sizeof(bus))
		return;
	snprintf(bus, sizeof(bus), "%.*s", (int)(dot - name), name);
	if (bus[strspn(bus, BUS_CHARACTERS)]) /* no bus can have that name */
		return;
	for (i = 0; i < ARRAY_COUNT(suffixes); i++)
		if (!strcmp(dot, suffixes[i]) &&
		    is_first_of(dir, bus, dot, suffixes, ARRAY_COUNT(suffixes)))
			check_bus(d, dir, bus);
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
		doctor_fix(f, "rm %s", d->runtime);
		return -1;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0) {
		f = doctor_add(d, "permissions", LEVEL_BAD, "%s belongs to uid %u", d->runtime,
			       (unsigned)st.st_uid);
		doctor_costs(f, "no bus starts there, and none is trusted");
		doctor_fix(f, "export SHMQ_RUNTIME_DIR=$HOME/.shmq");
		return -1;
	}
	if (st.st_mode & (S_IWGRP | S_IWOTH)) {
		f = doctor_add(d, "permissions", LEVEL_BAD, "others may write in %s (mode %03o)",
			       d->runtime, (unsigned)st.st_mode & 0777);
		doctor_costs(f, "the bus is refused, as anybody could pose as its supervisor");
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
	int count, i, dir;

	if (check_directory(d))
		return;
	dir = open_dir(d->runtime);
	if (dir < 0)
		return;
	count = scandir(d->runtime, &entries, NULL, alphasort);
	for (i = 0; i < count; i++) {
		check_entry(d, dir, entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	close(dir);
}
