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

/* ---- who is behind the files of a bus ---------------------------------- */

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
static int lock(const char *dir, const char *bus, const char *suffix, int how)
{
	char path[256];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/%s%s", dir, bus, suffix);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	rc = flock(fd, how | LOCK_NB) ? -errno : 0;
	if (!rc)
		return fd;
	close(fd);
	return rc;
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
	int found = 0;

	snprintf(path, sizeof(path), "%s/%s.manifest", dir, bus);
	in = fopen(path, "re");
	if (!in)
		return 0;
	if (getdelim(&manifest, &len, 0, in) < 0 || glob("/proc/[0-9]*/maps", 0, NULL, &maps))
		goto out;
	for (i = 0; i < maps.gl_pathc && !found; i++) {
		FILE *of = fopen(maps.gl_pathv[i], "re");

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
out:
	globfree(&maps);
	free(manifest);
	fclose(in);
	return found;
}

enum state { STATE_ALIVE, STATE_HELD, STATE_STALE };

static enum state state_of(const char *dir, const char *bus)
{
	static const char *const locks[] = { ".lock", ".control" };
	char path[256];
	size_t i;
	int fd;

	snprintf(path, sizeof(path), "%s/%s.sock", dir, bus);
	if (answers(path))
		return STATE_ALIVE;
	for (i = 0; i < ARRAY_COUNT(locks); i++) {
		fd = lock(dir, bus, locks[i], LOCK_SH);
		if (fd < 0 && fd != -ENOENT)
			return STATE_ALIVE;
		if (fd >= 0)
			close(fd);
	}
	return is_mapped(dir, bus) ? STATE_HELD : STATE_STALE;
}

/* ---- repairs ----------------------------------------------------------- */

/* As the last of a bus leaves: the lock goes last, and with it the right to
 * remove the others. */
static int remove_bus(const struct finding *f)
{
	static const char *const rest[] = { ".sock", ".back", ".manifest", ".control" };
	const char *bus = strrchr(f->path, '/') + 1;
	char dir[256], path[512];
	size_t i;
	int held;

	snprintf(dir, sizeof(dir), "%.*s", (int)(bus - f->path - 1), f->path);
	snprintf(path, sizeof(path), "%s.lock", f->path);
	held = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (held < 0)
		return -errno;
	close(held);
	held = lock(dir, bus, ".lock", LOCK_EX);
	if (held < 0)
		return held;
	for (i = 0; i < ARRAY_COUNT(rest); i++) {
		snprintf(path, sizeof(path), "%s%s", f->path, rest[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s.lock", f->path);
	unlink(path);
	close(held);
	return 0;
}

static int remove_file(const struct finding *f)
{
	return unlink(f->path) ? -errno : 0;
}

static int set_mode(const struct finding *f)
{
	return chmod(f->path, f->mode) ? -errno : 0;
}

/* ---- checks ------------------------------------------------------------ */

static void check_bus(struct doctor *d, const char *bus)
{
	struct finding *f;

	switch (state_of(d->runtime, bus)) {
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
		doctor_fix(f, "cd %s && rm -f %s.sock %s.back %s.manifest %s.control %s.lock",
			   d->runtime, bus, bus, bus, bus, bus);
		snprintf(f->path, sizeof(f->path), "%s/%s", d->runtime, bus);
		f->repair = remove_bus;
	}
}

static int is_first_of(const char *dir, const char *bus, const char *suffix,
		       const char *const *suffixes, size_t count)
{
	char path[512];
	size_t i;

	for (i = 0; i < count && strcmp(suffixes[i], suffix) != 0; i++) {
		snprintf(path, sizeof(path), "%s/%s%s", dir, bus, suffixes[i]);
		if (!access(path, F_OK))
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
	snprintf(f->path, sizeof(f->path), "%s/%s", d->runtime, name);
	f->repair = remove_file;
}

static void check_entry(struct doctor *d, const char *name)
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
	for (i = 0; i < ARRAY_COUNT(suffixes); i++)
		if (!strcmp(dot, suffixes[i]) &&
		    is_first_of(d->runtime, bus, dot, suffixes, ARRAY_COUNT(suffixes)))
			check_bus(d, bus);
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
		f->mode = st.st_mode & 07777 & ~(mode_t)(S_IWGRP | S_IWOTH);
		f->repair = set_mode;
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
		check_entry(d, entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}
