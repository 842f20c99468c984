/* SPDX-License-Identifier: MIT
 *
 * death: proof of death, never a timeout, and what is done then.
 *
 * Proof is a readable pidfd; at adoption, a pid that is gone or carries
 * another start time; and, where a live process hung up without a
 * goodbye, that our registry is no longer among its maps: it called execve.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "proc.h"

#define FIRST_LOOK_NS UINT64_C(20000000)
#define NEXT_LOOK_NS UINT64_C(1000000000)

struct watcher {
	struct source source;
	struct control *c;
	struct peer *peer;
};

/* ---- repair ---------------------------------------------------------- */

static void unwatch(struct control *c, struct peer *p)
{
	struct watcher *w = p->watcher;

	p->watcher = NULL;
	if (!w)
		return;
	loop_remove(c->loop, &w->source);
	close(w->source.fd);
	loop_free(c->loop, w);
}

/* Everyone who might wait for this client goes on after the first loop; the
 * second tells them. */
static unsigned part(struct control *c, struct peer *p, enum shmq_event_kind kind, unsigned *topics)
{
	struct handle *h, *next;
	unsigned voided = 0;

	store_release(&p->rec->state, LAY_CLIENT_DEAD);
	*topics = 0;
	LIST_FOREACH (h, &p->handles, of_peer) {
		voided += open_detach(c, h, OPEN_DIED);
		(*topics)++;
	}
	for (h = LIST_FIRST(&p->handles); h; h = next) {
		next = LIST_NEXT(h, of_peer);
		open_finish(c, h, kind);
	}
	return voided;
}

static void bury(struct control *c, struct peer *p)
{
	struct conn *conn = p->conn;

	stall_forget_peer(c, p);
	unwatch(c, p);
	p->conn = NULL;
	if (conn) {
		conn->peer = NULL;
		conn_close(conn);
	}
	registry_drop_peer(c->reg, p);
	control_maybe_idle(c);
}

void death_of(struct control *c, struct peer *p, const char *how)
{
	uint64_t from = shmq__clock_monotonic_ns();
	unsigned topics, voided = part(c, p, SHMQ_EVENT_DIED, &topics);

	log_info("%s %s: %u claims voided, %u handles closed, in %" PRIu64 " us", conn_peer_text(p),
		 how, voided, topics, (shmq__clock_monotonic_ns() - from) / 1000);
	bury(c, p);
}

void death_leave(struct control *c, struct peer *p)
{
	unsigned topics;

	part(c, p, SHMQ_EVENT_LEFT, &topics);
	bury(c, p);
}

/* ---- watching -------------------------------------------------------- */

static void exited(struct source *source, uint32_t events)
{
	struct watcher *w = loop_container(source, struct watcher, source);

	(void)events;
	death_of(w->c, w->peer, "died");
}

int death_watch(struct control *c, struct peer *p, int pidfd)
{
	struct watcher *w = calloc(1, sizeof(*w));
	int error = w ? loop_add(c->loop, &w->source, pidfd, EPOLLIN, exited) : -ENOMEM;

	if (error) {
		free(w);
		return error;
	}
	w->c = c;
	w->peer = p;
	p->watcher = w;
	return 0;
}

int death_pidfd(const struct peer *p)
{
	const struct watcher *w = p->watcher;

	return w ? w->source.fd : -1;
}

/* ---- exec ------------------------------------------------------------ */

/* 1 or 0, or -1 if it cannot be known. */
static int has_our_map(struct control *c, pid_t pid)
{
	char path[40], *line = NULL;
	size_t size = 0;
	struct stat st;
	int found = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	in = fstat(registry_slab_fd(c->reg, 0), &st) ? NULL : fopen(path, "re");
	if (!in)
		return -1;
	while (!found && getline(&line, &size, in) > 0) {
		unsigned long long inode;
		unsigned major_no, minor_no;

		found = sscanf(line, "%*s %*s %*s %x:%x %llu", &major_no, &minor_no, &inode) == 3 &&
			inode == st.st_ino && major_no == major(st.st_dev) &&
			minor_no == minor(st.st_dev);
	}
	if (ferror(in))
		found = -1;
	free(line);
	fclose(in);
	return found;
}

/* With proof only: what cannot be read proves nothing. */
static int is_proved_dead(const struct peer *p)
{
	struct shmq__proc_id now;
	int error = shmq__proc_identify((pid_t)load_relaxed(&p->rec->pid), &now);

	return error == -ESRCH || (!error && now.start_time != load_relaxed(&p->rec->start_time));
}

/* Of a client that a predecessor recorded: bury or watch it.  Its pid is of
 * this namespace, whatever its own is: a new worker is where the last one
 * was. */
static void check(struct control *c, struct peer *p)
{
	int fd, error;

	if (load_relaxed(&p->rec->state) == LAY_CLIENT_DEAD) {
		death_of(c, p, "had died");
		return;
	}
	fd = is_proved_dead(p) ? -ESRCH : shmq__proc_pidfd((pid_t)load_relaxed(&p->rec->pid));
	/* The number could have changed hands between the two. */
	if (fd == -ESRCH || (fd >= 0 && is_proved_dead(p))) {
		if (fd >= 0)
			close(fd);
		death_of(c, p, "died meanwhile");
		return;
	}
	error = fd < 0 ? fd : death_watch(c, p, fd);
	if (!error)
		return;
	if (fd >= 0)
		close(fd);
	log_error("%s cannot be watched yet: %s", conn_peer_text(p), strerror(-error));
	death_suspect(c);
}

static void look_for_exec(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, exec_timer);
	struct peer *p, *next;
	int away = 0;

	for (p = LIST_FIRST(&c->reg->peers); p; p = next) {
		next = LIST_NEXT(p, link);
		if (!p->watcher) {
			away = 1;
			check(c, p);
			continue;
		}
		if (p->conn)
			continue;
		if (has_our_map(c, (pid_t)load_relaxed(&p->rec->pid)) == 0)
			death_of(c, p,
				 "is no longer attached (it called execve, or closed the bus "
				 "without saying so)");
		else
			away = 1;
	}
	if (away)
		loop_set_timer(c->loop, &c->exec_timer, shmq__clock_monotonic_ns() + NEXT_LOOK_NS,
			       look_for_exec);
}

void death_suspect(struct control *c)
{
	uint64_t due = shmq__clock_monotonic_ns() + FIRST_LOOK_NS;

	if (!c->exec_timer.is_set || due < c->exec_timer.due_ns)
		loop_set_timer(c->loop, &c->exec_timer, due, look_for_exec);
}

/* ---- adoption -------------------------------------------------------- */

void death_check_all(struct control *c)
{
	struct peer *p, *next;

	for (p = LIST_FIRST(&c->reg->peers); p; p = next) {
		next = LIST_NEXT(p, link);
		check(c, p);
	}
	/* Most come back by themselves within milliseconds. */
	if (!LIST_EMPTY(&c->reg->peers))
		loop_set_timer(c->loop, &c->exec_timer, shmq__clock_monotonic_ns() + NEXT_LOOK_NS,
			       look_for_exec);
}
