/* SPDX-License-Identifier: MIT
 *
 * runtime: the directory that buses have their sockets in, and who is behind the
 * files of each.
 */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BUS_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

/* As the library has it: in a shell of su(1) it is that of who typed it. */
static int is_of_another_user(const char *xdg)
{
	struct stat st;

	return !stat(xdg, &st) && st.st_uid != geteuid() && st.st_uid != 0;
}

int runtime_dir(const struct cli *cli, char *out, size_t bytes)
{
	const char *dir = cli->runtime_dir ? cli->runtime_dir : getenv("SHMQ_RUNTIME_DIR");
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	if (dir && dir[0]) {
		snprintf(out, bytes, "%s", dir);
	} else if (xdg && xdg[0] && !is_of_another_user(xdg)) {
		snprintf(out, bytes, "%s/shmq", xdg);
	} else {
		snprintf(out, bytes, "/tmp/shmq-%u", (unsigned)geteuid());
		return 1;
	}
	return 0;
}

int runtime_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* A service manager that listens there starts the bus when somebody connects: so
 * nobody does.  In another network namespace it is not seen. */
int runtime_is_listened_at(const char *dir, const char *bus)
{
	char path[256], line[512];
	FILE *in = fopen("/proc/net/unix", "re");
	unsigned flags;
	int at = 0, found = 0;

	snprintf(path, sizeof(path), "%s/%s.sock", dir, bus);
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

int runtime_lock(int dir, const char *bus, const char *suffix, int how)
{
	char name[256];
	struct stat held, named;
	int fd, rc;

	snprintf(name, sizeof(name), "%s%s", bus, suffix);
	/* What lies there need not be ours: on a pipe an open would wait. */
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
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

int runtime_is_held(int dir, const char *bus, const char *suffix)
{
	int fd = runtime_lock(dir, bus, suffix, LOCK_SH);

	if (fd >= 0)
		close(fd);
	return fd < 0 && fd != -ENOENT;
}

int runtime_is_mapped(const char *dir, const char *bus)
{
	char path[256], line[512], wanted[64], inode[32];
	FILE *in;
	char *manifest = NULL;
	size_t len = 0, i;
	glob_t maps = { 0 };
	int found = 0, denied = 0, fd;
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s.manifest", dir, bus);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	in = fd < 0 ? NULL : fdopen(fd, "r");
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

static enum runtime_state state_of(const char *path, int dir, const char *bus)
{
	char sock[256];

	snprintf(sock, sizeof(sock), "%s/%s.sock", path, bus);
	if (runtime_is_held(dir, bus, ".lock") || runtime_is_held(dir, bus, ".control"))
		return RUNTIME_ALIVE;
	if (runtime_is_listened_at(path, bus))
		return RUNTIME_AWAITED;
	if (answers(sock))
		return RUNTIME_ALIVE;
	return runtime_is_mapped(path, bus) ? RUNTIME_HELD : RUNTIME_STALE;
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

struct each {
	const char *path;
	int dir;
	runtime_visit *visit;
	void *arg;
};

static void visit_entry(const struct each *e, const char *name)
{
	static const char *const suffixes[] = { ".lock", ".sock", ".control", ".manifest",
						".back" };
	const char *dot = strchr(name, '.');
	char bus[SHMQ_BUS_NAME_MAX + 1];
	size_t i;

	if (!dot || dot == name || (size_t)(dot - name) >= sizeof(bus))
		return;
	snprintf(bus, sizeof(bus), "%.*s", (int)(dot - name), name);
	if (bus[strspn(bus, BUS_CHARACTERS)]) /* no bus can have that name */
		return;
	for (i = 0; i < ARRAY_COUNT(suffixes); i++)
		if (!strcmp(dot, suffixes[i]) &&
		    is_first_of(e->dir, bus, dot, suffixes, ARRAY_COUNT(suffixes)))
			e->visit(e->arg, bus, state_of(e->path, e->dir, bus));
}

int runtime_each(const char *path, runtime_visit *visit, void *arg)
{
	struct each e = { path, runtime_open(path), visit, arg };
	struct dirent **entries;
	int count, i;

	if (e.dir < 0)
		return e.dir;
	count = scandir(path, &entries, NULL, alphasort);
	for (i = 0; i < count; i++) {
		visit_entry(&e, entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	close(e.dir);
	return 0;
}
