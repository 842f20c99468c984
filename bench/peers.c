/* SPDX-License-Identifier: MIT
 *
 * However the program ends, a guard stops the servers and removes what the
 * plugins named: it waits for the end of a pipe whose other end this process
 * and all it forks hold, and servers do not.  All such names begin with PREFIX and the process id.
 * What a guard that was killed too has left, the next one removes.
 */
#include "peers.h"
#include "common.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PREFIX "shmq-peers-"

/* In the order of figures. */
static const char *const names[] = { "iceoryx", "ck",     "boost", "posixmq", "seqpacket",
				     "pipe",    "zeromq", "nng",   "redis" };
#define NAMES (sizeof(names) / sizeof(names[0]))

static const struct peer *peers[NAMES + 1];
static unsigned peer_count, broken, channel_count;
static char peers_dir[PATH_MAX];
static pid_t parent, guard;
static int guard_fd;

static const char *tmp(void)
{
	const char *dir = getenv("TMPDIR");

	return dir ? dir : "/tmp";
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

/* Remove from a directory all that belongs to `owner` or to nobody alive. */
static void scrub(const char *dir, pid_t owner)
{
	DIR *d = opendir(dir);
	const struct dirent *entry;
	char path[PATH_MAX];

	while (d && (entry = readdir(d))) {
		const char *rest = entry->d_name + strlen(PREFIX);
		pid_t pid;

		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		pid = (pid_t)strtol(rest, NULL, 10);
		if (pid != owner && (kill(pid, 0) == 0 || errno != ESRCH))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	}
	if (d)
		closedir(d);
}

static void scrub_all(pid_t owner)
{
	scrub(tmp(), owner);
	scrub("/tmp", owner);
	scrub("/dev/shm", owner);
}

static void be_guard(int fd)
{
	unsigned i;
	char c;

	/* What ends the program by its group leaves the guard. */
	setpgid(0, 0);
	close(0);
	close(1);
	while (read(fd, &c, 1) < 0 && errno == EINTR)
		;
	for (i = 0; i < peer_count; i++)
		if (peers[i]->stop)
			peers[i]->stop();
	scrub_all(parent);
	_exit(0);
}

static void start_guard(void)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC))
		bench_fail("pipe: %s", strerror(errno));
	guard = fork();
	if (guard < 0)
		bench_fail("fork: %s", strerror(errno));
	if (!guard) {
		close(fd[1]);
		be_guard(fd[0]);
	}
	close(fd[0]);
	guard_fd = fd[1];
}

static void dismiss_guard(void)
{
	if (getpid() != parent)
		return;
	close(guard_fd);
	waitpid(guard, NULL, 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		; /* the servers, which it has stopped */
}

/* A name in a list with commas between. */
static int listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (; *list; list += strcspn(list, ","), list += *list == ',')
		if (strcspn(list, ",") == len && !strncmp(list, name, len))
			return 1;
	return 0;
}

static void check_names(const char *list)
{
	char copy[256], *save, *name;
	unsigned i;

	snprintf(copy, sizeof(copy), "%s", list);
	for (name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		for (i = 0; i < NAMES && strcmp(names[i], name) != 0; i++)
			;
		if (i == NAMES)
			bench_fail("there is no peer \"%s\"", name);
	}
}

static void load(const char *dir, const char *name)
{
	const struct peer *peer;
	char path[PATH_MAX + 64];
	void *plugin;

	snprintf(path, sizeof(path), "%s/peers/%s.so", dir, name);
	if (access(path, F_OK)) {
		printf("absent %s not built\n", name);
		return;
	}
	plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	peer = plugin ? dlsym(plugin, "bench_peer") : NULL;
	if (peer && (!peer->start || !peer->start(peers_dir))) {
		peers[peer_count++] = peer;
		return;
	}
	printf("absent %s %s\n", name, peer ? "did not start" : dlerror());
	broken++;
}

const struct peer *const *bench_peers(void)
{
	const char *list = bench.peers;
	char dir[PATH_MAX];
	ssize_t len;
	unsigned i;

	if (parent || (list && !strcmp(list, "none")))
		return peers;
	if (list)
		check_names(list);
	len = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	if (len < 0)
		bench_fail("finding this program: %s", strerror(errno));
	dir[len] = 0;
	*strrchr(dir, '/') = 0;

	parent = getpid();
	scrub_all(parent);
	snprintf(peers_dir, sizeof(peers_dir), "%s/" PREFIX "%d", tmp(), (int)parent);
	if (mkdir(peers_dir, 0700))
		bench_fail("making %s: %s", peers_dir, strerror(errno));
	for (i = 0; i < NAMES; i++)
		if (!list || listed(list, names[i]))
			load(dir, names[i]);
	fflush(stdout);
	start_guard();
	atexit(dismiss_guard);
	return peers;
}

unsigned bench_peers_broken(void)
{
	return broken;
}

struct peer_channel bench_channel(size_t bytes, unsigned senders, unsigned receivers,
				  enum peer_wait wait)
{
	struct peer_channel c = { .dir = peers_dir,
				  .bytes = bytes,
				  .senders = senders,
				  .receivers = receivers,
				  .wait = wait };

	snprintf(c.name, sizeof(c.name), PREFIX "%d-%u", (int)parent, channel_count++);
	return c;
}
