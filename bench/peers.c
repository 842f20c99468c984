/* SPDX-License-Identifier: MIT
 *
 * A keeper, forked before anything is named, starts the servers and waits
 * for the end of this program and all it forks, however they end: that is
 * the end of a pipe which they hold, and servers do not.  Then it stops the
 * servers and removes what the plugins named; all such names begin with
 * PREFIX and the id of this process.  What a keeper that was killed too has
 * left, the next one removes.
 */
#include "peers.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define PREFIX "shmq-peers-"

static const char *const names[] = { BENCH_TRANSPORTS };
#define NAMES (sizeof(names) / sizeof(names[0]))

static const struct peer *peers[NAMES + 1];
static unsigned peer_count, broken, channel_count;
static char peers_dir[PATH_MAX];
static pid_t parent, keeper;
static int keeper_fd;

static const char *tmp(void)
{
	const char *dir = getenv("TMPDIR");

	return dir ? dir : "/tmp";
}

static void scrub_all(pid_t owner)
{
	bench_scrub(tmp(), PREFIX, owner);
	bench_scrub("/tmp", PREFIX, owner);
	bench_scrub("/dev/shm", PREFIX, owner);
}

/* Say of each peer whether it started, await the end, clean up. */
static void keep(int say_fd, int end_fd)
{
	char up[NAMES] = { 0 }, c;
	unsigned i;

	/* What ends the program by its group leaves the keeper. */
	setpgid(0, 0);
	signal(SIGPIPE, SIG_IGN); /* the program may be gone already */
	close(0);
	close(1);
	scrub_all(parent);
	if (mkdir(peers_dir, 0700))
		fprintf(stderr, "bench: making %s: %s\n", peers_dir, strerror(errno));
	for (i = 0; peers[i]; i++)
		up[i] = !peers[i]->start || !peers[i]->start(peers_dir);
	if (write(say_fd, up, sizeof(up)) == sizeof(up))
		while (read(end_fd, &c, 1) < 0 && errno == EINTR)
			;
	for (i = 0; peers[i]; i++)
		if (up[i] && peers[i]->stop)
			peers[i]->stop();
	scrub_all(parent);
	_exit(0);
}

static void dismiss_keeper(void)
{
	if (getpid() != parent)
		return;
	close(keeper_fd);
	waitpid(keeper, NULL, 0);
}

/* Fork the keeper and drop the peers it could not start. */
static void start_keeper(void)
{
	char up[NAMES] = { 0 };
	int say[2], end[2];
	unsigned i, n = 0;

	if (pipe2(say, O_CLOEXEC) || pipe2(end, O_CLOEXEC))
		bench_fail("pipe: %s", strerror(errno));
	keeper = fork();
	if (keeper < 0)
		bench_fail("fork: %s", strerror(errno));
	if (!keeper) {
		close(say[0]);
		close(end[1]);
		keep(say[1], end[0]);
	}
	close(say[1]);
	close(end[0]);
	keeper_fd = end[1];
	atexit(dismiss_keeper);
	if (read(say[0], up, sizeof(up)) != sizeof(up))
		bench_fail("the servers of the peers did not start");
	close(say[0]);
	for (i = 0; peers[i]; i++) {
		if (up[i]) {
			peers[n++] = peers[i];
			continue;
		}
		printf("absent %s did not start\n", peers[i]->name);
		broken++;
	}
	peers[n] = NULL;
}

static const char *kernel(void)
{
	static struct utsname u;
	static char text[2 * sizeof(u.release)];

	uname(&u);
	snprintf(text, sizeof(text), "%s %s", u.sysname, u.release);
	return text;
}

static void load(const char *dir, const char *name)
{
	const struct peer *peer;
	char path[PATH_MAX + 64];
	void *plugin;

	snprintf(path, sizeof(path), "%s/peers/%s.so", dir, name);
	if (access(path, F_OK)) {
		printf("absent %s not built\n", name);
		broken += bench.peers && strcmp(bench.peers, "all") != 0;
		return;
	}
	plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	peer = plugin ? dlsym(plugin, "bench_peer") : NULL;
	if (peer) {
		printf("peer %s %s\n", name, peer->version ? peer->version() : kernel());
		peers[peer_count++] = peer;
		return;
	}
	printf("absent %s %s\n", name, dlerror());
	broken++;
}

const struct peer *const *bench_peers(void)
{
	char dir[PATH_MAX];
	ssize_t len;
	unsigned i;

	if (parent)
		return peers;
	len = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	if (len < 0)
		bench_fail("finding this program: %s", strerror(errno));
	dir[len] = 0;
	*strrchr(dir, '/') = 0;

	parent = getpid();
	snprintf(peers_dir, sizeof(peers_dir), "%s/" PREFIX "%d", tmp(), (int)parent);
	for (i = 0; i < NAMES; i++)
		if (bench_peer_is_chosen(names[i]))
			load(dir, names[i]);
	if (peer_count)
		start_keeper();
	fflush(stdout);
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

/* What a peer can't, or NULL. */
static const char *unable(const struct peer *p, const struct peer_channel *c, enum peer_use use)
{
	static char text[64];

	if (use == PEER_IN_PLACE && !p->loan)
		return "copies";
	if (c->wait && !(p->waits & c->wait))
		return c->wait == PEER_SPIN ? "cannot poll" : "cannot sleep";
	if (c->bytes > p->max_bytes)
		snprintf(text, sizeof(text), "carries at most %zu KiB at a time",
			 p->max_bytes >> 10);
	else if (c->receivers > p->fan_out)
		snprintf(text, sizeof(text), "has at most %u receivers", p->fan_out);
	else if (c->senders > p->fan_in)
		snprintf(text, sizeof(text), "has at most %u senders", p->fan_in);
	else
		return NULL;
	return text;
}

const char *bench_peer_who(const struct peer *p)
{
	static char who[64];

	snprintf(who, sizeof(who), ".peer.%s", p->name);
	return who;
}

const struct peer *bench_next_peer(const struct peer *after, const char *figures,
				   const struct peer_channel *channel, enum peer_use use)
{
	const struct peer *const *p = bench_peers();
	char missing[96];
	const char *why;

	while (after && *p++ != after)
		;
	for (; *p && (why = unable(*p, channel, use)); p++) {
		snprintf(missing, sizeof(missing), "%s%s", figures, bench_peer_who(*p));
		bench_label(missing, "%s", why);
	}
	return *p;
}

struct peer_end bench_peer_open(const struct peer *p, enum peer_kind kind,
				const struct peer_channel *channel)
{
	struct peer_end e = { .peer = p };
	int spare = (unsigned)bench.cpus > channel->senders + channel->receivers;
	cpu_set_t mine;

	/* Threads of its own run on any processor if some are left, else on
	 * that of their process: taking turns with the other's costs more. */
	sched_getaffinity(0, sizeof(mine), &mine);
	if (spare)
		bench_unpin();
	e.end = kind == PEER_SENDER ? p->open_send(channel) : p->open_recv(channel);
	sched_setaffinity(0, sizeof(mine), &mine);
	if (!e.end)
		bench_fail("%s: opening a channel failed", p->name);
	return e;
}
