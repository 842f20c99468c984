/* SPDX-License-Identifier: MIT */
#include "start.h"
#include "clock.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const int64_t start_pause_min_ns = 1000000000, start_pause_max_ns = 60000000000;

static int can_run(const char *dir, const char *rest, char *out, size_t bytes)
{
	int n = snprintf(out, bytes, "%s%s", dir, rest);

	return n > 0 && (size_t)n < bytes && !access(out, X_OK);
}

/* The shmqd to run: named, or near the library or the program, or on PATH. */
static const char *find_daemon(const struct shmq_bus *bus, char *out, size_t bytes)
{
	static const char *const near[] = { "/shmqd", "/../shmqd", "/../bin/shmqd" };
	const char *env = secure_getenv("SHMQ_DAEMON");
	char dir[2][4096] = { "", "" };
	Dl_info info;
	ssize_t n;
	unsigned d, i;

	if (bus->daemon_path)
		return bus->daemon_path;
	if (env && *env)
		return env;
	if (dladdr((const void *)(uintptr_t)&shmq_bus_open, &info) && info.dli_fname)
		snprintf(dir[0], sizeof(dir[0]), "%s", info.dli_fname);
	n = readlink("/proc/self/exe", dir[1], sizeof(dir[1]) - 1);
	if (n > 0)
		dir[1][n] = 0;
	for (d = 0; d < 2; d++) {
		char *slash = strrchr(dir[d], '/');

		if (!slash)
			continue;
		*slash = 0;
		for (i = 0; i < sizeof(near) / sizeof(near[0]); i++)
			if (can_run(dir[d], near[i], out, bytes))
				return out;
	}
	/* PATH is not gone by in a set-user-ID program, as SHMQ_DAEMON is not. */
	return !getauxval(AT_SECURE)                           ? "shmqd" :
	       can_run("/usr/local/bin", "/shmqd", out, bytes) ? out :
								 "/usr/bin/shmqd";
}

/* Its standard error goes to `said` if that is not -1.  0 or a positive errno. */
static int spawn_daemon(struct shmq_bus *bus, const char *path, int said, pid_t *pid)
{
	char *argv[] = { (char *)(uintptr_t) "shmqd",
			 (char *)(uintptr_t) "--bus",
			 bus->name,
			 (char *)(uintptr_t) "--runtime-dir",
			 bus->dir,
			 (char *)(uintptr_t) "--on-demand",
			 NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int error = posix_spawnattr_init(&attr);

	if (error)
		return error;
	error = posix_spawn_file_actions_init(&actions);
	if (error)
		goto out;
	if (said >= 0)
		error = posix_spawn_file_actions_adddup2(&actions, said, STDERR_FILENO);
	/* The library's thread has all signals blocked. */
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (!error)
		error = posix_spawnp(pid, path, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
out:
	posix_spawnattr_destroy(&attr);
	return error;
}

/* The first line of what it said has the reason: its log may not be there. */
static int explain_failure(const struct shmq_bus *bus, const char *path, int said,
			   struct shmq__why *why)
{
	static const char voice[] = "shmqd: ";
	char text[256], *reason = text;
	ssize_t n = said < 0 ? 0 : read(said, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	if (!strncmp(text, voice, strlen(voice)))
		reason += strlen(voice);
	if (!*reason)
		return shmq__fail(why, SHMQ_ENODAEMON, "%s failed to start: see %s/%s.log", path,
				  bus->dir, bus->name);
	return shmq__fail(why, SHMQ_ENODAEMON, "%s failed to start: %s", path, reason);
}

/* A bus is its directory's owner's: what root left there would keep him out. */
static int is_of_another(const struct shmq_bus *bus, uid_t *owner)
{
	struct stat st;

	if (stat(bus->dir, &st) || st.st_uid == geteuid())
		return 0;
	*owner = st.st_uid;
	return 1;
}

int shmq__start_daemon(struct shmq_bus *bus, struct shmq__why *why)
{
	char found[4096 + 32];
	int status = 0, said[2] = { -1, -1 }, error;
	const char *path;
	uid_t owner;
	pid_t pid;

	if (is_of_another(bus, &owner))
		return shmq__fail(why, SHMQ_ENODAEMON,
				  "%s belongs to uid %u, who has to start it: if it is a service, "
				  "systemctl start shmqd@%s",
				  bus->dir, (unsigned)owner, bus->name);
	path = find_daemon(bus, found, sizeof(found));
	/* Not waited for: a daemon may keep its end. */
	if (pipe2(said, O_CLOEXEC | O_NONBLOCK))
		said[0] = said[1] = -1;
	error = spawn_daemon(bus, path, said[1], &pid);
	if (said[1] >= 0)
		close(said[1]);
	if (error) {
		error = shmq__fail(why, SHMQ_ENODAEMON,
				   "starting %s: %s: install shmqd or set SHMQ_DAEMON", path,
				   strerror(error));
		goto out;
	}
	/* It daemonises: the child returns when the socket accepts. */
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			goto out; /* the program reaps its children itself */
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		error = explain_failure(bus, path, said[0], why);
out:
	if (said[0] >= 0)
		close(said[0]);
	return error;
}

void shmq__start_reap(struct shmq_bus *bus, int patience_ms)
{
	while (bus->starter && waitpid(bus->starter, NULL, WNOHANG) == 0) {
		if (!patience_ms--)
			return;
		poll(NULL, 0, 1);
	}
	bus->starter = 0;
}

static int is_locked(const struct shmq_bus *bus, const char *suffix)
{
	char path[sizeof(bus->path)];
	int fd, is;

	snprintf(path, sizeof(path), "%s/%s.%s", bus->dir, bus->name, suffix);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	is = flock(fd, LOCK_SH | LOCK_NB) != 0;
	close(fd);
	return is;
}

void shmq__start_again(struct shmq_bus *bus)
{
	char found[4096 + 32];
	uint64_t now = shmq__clock_monotonic_ns();
	uid_t owner;

	if (bus->start != SHMQ_START_ON_DEMAND || now < bus->next_start_ns ||
	    is_of_another(bus, &owner))
		return;
	shmq__start_reap(bus, 0);
	if (bus->starter || is_locked(bus, "lock") || is_locked(bus, "control") > 0)
		return;
	if (!bus->start_pause_ns)
		bus->start_pause_ns = start_pause_min_ns;
	bus->next_start_ns = now + (uint64_t)bus->start_pause_ns;
	if (bus->start_pause_ns < start_pause_max_ns)
		bus->start_pause_ns *= 2;
	if (spawn_daemon(bus, find_daemon(bus, found, sizeof(found)), -1, &bus->starter))
		bus->starter = 0;
}
