/* SPDX-License-Identifier: MIT
 *
 * death: proof of death, never a timeout, and what is done then.
 *
 * Proof is a readable pidfd; at adoption, a pid that is gone or carries
 * another start time; and that our registry is no longer among the maps of
 * a live process that had it there: it called execve.  Reading maps takes
 * long where there are many, so a process is asked for them only if it hung
 * up without a goodbye or if its memory lies elsewhere than when it said
 * hello.  A child it forked before may hold its connection open.
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
#include "recover.h"

#define FIRST_LOOK_NS UINT64_C(20000000)
#define NEXT_LOOK_NS UINT64_C(1000000000)
#define LOOKS_AT_ONCE 8
/* How long others wait for their turn while a client is taken out. */
#define PART_NS UINT64_C(500000)

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

/* What is left of a client that goes, in the order in which it is taken out.
 * Everyone who might wait for it goes on once its handles are detached; then
 * they are told. */
enum rank { WAITED_FOR, SHARED, ALONE, DETACHED, RANKS };

struct parting {
	TAILQ_ENTRY(parting) link;
	struct control *c;
	struct peer *peer;
	enum shmq_event_kind kind;
	const char *how;
	uint64_t from_ns;
	unsigned voided, topics;
	struct peer_handles handles[RANKS];
	struct conn_later goodbye; /* who waits for the end of it */
};

/* Without memory for another: then all of it is done at once. */
static struct parting spare;

static int is_armed(const struct lay_bell *bell)
{
	struct lay_bell *b = (struct lay_bell *)(uintptr_t)bell;

	return load_relaxed(&b->armed) != load_relaxed(&b->served);
}

static int has_sleepers(const struct registry *r, const struct lay_topic *rec)
{
	const struct lay_partition *part =
		shmq__slabs_at(r->slabs, rec->partition_array, rec->partitions * sizeof(*part));
	const struct lay_bells *bells =
		shmq__slabs_at(r->slabs, part[0].bells, rec->partitions * sizeof(*bells));
	uint32_t p;

	for (p = 0; p < rec->partitions; p++)
		if (is_armed(&bells[p].data) || is_armed(&bells[p].credit))
			return 1;
	return 0;
}

/* By a few looks: it decides nothing but the order. */
static enum rank rank_of(const struct registry *r, const struct handle *h)
{
	unsigned few = 8;
	struct handle *o;

	LIST_FOREACH (o, &h->topic->handles, of_topic)
		if (o->peer != h->peer || !--few)
			return has_sleepers(r, h->topic->rec) ? WAITED_FOR : SHARED;
	return ALONE;
}

static void bury(struct parting *parting)
{
	struct control *c = parting->c;
	struct peer *p = parting->peer;
	struct conn *conn = parting->goodbye.conn;
	int makes_replies;

	if (parting->kind == SHMQ_EVENT_DIED)
		log_info("%s %s: %u claims voided, %u handles closed, in %" PRIu64 " us",
			 conn_peer_text(p), parting->how, parting->voided, parting->topics,
			 (shmq__clock_monotonic_ns() - parting->from_ns) / 1000);
	if (parting->kind == SHMQ_EVENT_DIED)
		events_say(c, SHMQ_SYS_RECOVERY, p, NULL,
			   "%u claims voided, %u handles closed, in %" PRIu64 " us",
			   parting->voided, parting->topics,
			   (shmq__clock_monotonic_ns() - parting->from_ns) / 1000);
	makes_replies = p->makes_replies;
	stall_forget_peer(c, p);
	registry_drop_peer(c->reg, p);
	if (makes_replies)
		reply_look(c);
	TAILQ_REMOVE(&c->partings, parting, link);
	conn_answer_later(&parting->goodbye, 0, NULL, NULL, 0);
	if (conn)
		conn_close(conn);
	if (parting != &spare)
		free(parting);
	control_maybe_idle(c);
}

static struct handle *first_handle(const struct parting *parting, enum rank *rank)
{
	struct handle *h = NULL;

	for (*rank = 0; *rank < RANKS && !h; ++*rank)
		h = LIST_FIRST(&parting->handles[*rank]);
	--*rank;
	return h;
}

static void detach(struct parting *parting, struct handle *h)
{
	parting->voided += open_detach(parting->c, h, OPEN_DIED);
	parting->topics++;
	LIST_REMOVE(h, of_peer);
	LIST_INSERT_HEAD(&parting->handles[DETACHED], h, of_peer);
}

/* 1 while there is more. */
static int part(struct parting *parting, uint64_t until_ns)
{
	struct handle *h;
	enum rank rank;

	while ((h = first_handle(parting, &rank))) {
		if (rank == DETACHED)
			open_finish(parting->c, h, parting->kind);
		else
			detach(parting, h);
		if (shmq__clock_monotonic_ns() >= until_ns)
			return 1;
	}
	return 0;
}

/* The first that still has something in a roster, else the first. */
static struct parting *next_parting(struct control *c)
{
	struct parting *parting;
	enum rank rank;

	TAILQ_FOREACH (parting, &c->partings, link)
		if (first_handle(parting, &rank) && rank < DETACHED)
			return parting;
	return TAILQ_FIRST(&c->partings);
}

static void part_on(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, parting_timer);
	uint64_t until = shmq__clock_monotonic_ns() + PART_NS;
	struct parting *parting;

	while ((parting = next_parting(c)) && !part(parting, until))
		bury(parting);
	if (parting) /* after whatever has happened meanwhile */
		loop_set_timer(c->loop, &c->parting_timer, shmq__clock_monotonic_ns(), part_on);
}

static void part_at_once(struct control *c)
{
	struct parting *parting;

	while ((parting = next_parting(c)))
		if (!part(parting, UINT64_MAX))
			bury(parting);
}

/* Is somebody kept waiting by it for certain?  Only where that is seen at a
 * glance. */
static int sees_claim(struct control *c, const struct handle *h)
{
	struct topic *t = h->topic;
	struct shmq__why why;

	return h->role == SHMQ_ROLE_PUBLISHER && t->rec->mode == SHMQ_SHARED &&
	       registry_is_mapped(c->reg, t) && !registry_attach(c->reg, t, &why) &&
	       shmq__recover_sees_claim(t->attached, h->member);
}

/* Nothing of it is heard any more, and what it holds is given up. */
static struct parting *begin_parting(struct control *c, struct peer *p, enum shmq_event_kind kind)
{
	struct parting *parting = calloc(1, sizeof(*parting));
	struct conn *conn = p->conn;
	struct handle *h;

	store_release(&p->rec->state, LAY_CLIENT_DEAD);
	p->conn = NULL;
	if (conn) {
		conn->peer = NULL;
		conn_close(conn);
	}
	unwatch(c, p);
	watch_forget_peer(c, p);
	if (!parting)
		parting = &spare;
	*parting = (struct parting){
		.c = c, .peer = p, .kind = kind, .from_ns = shmq__clock_monotonic_ns()
	};
	p->parting = parting;
	while ((h = LIST_FIRST(&p->handles))) {
		enum rank rank;

		if (sees_claim(c, h)) {
			detach(parting, h);
			continue;
		}
		rank = rank_of(c->reg, h);
		LIST_REMOVE(h, of_peer);
		LIST_INSERT_HEAD(&parting->handles[rank], h, of_peer);
	}
	TAILQ_INSERT_TAIL(&c->partings, parting, link);
	return parting;
}

/* 1 while there is more. */
static int begin_part(struct parting *parting)
{
	struct control *c = parting->c;

	if (!part(parting, parting == &spare ? UINT64_MAX : parting->from_ns + PART_NS)) {
		bury(parting);
		return 0;
	}
	if (!c->parting_timer.is_set)
		loop_set_timer(c->loop, &c->parting_timer, shmq__clock_monotonic_ns(), part_on);
	return 1;
}

void death_of(struct control *c, struct peer *p, const char *how)
{
	struct parting *parting = begin_parting(c, p, SHMQ_EVENT_DIED);

	parting->how = how;
	events_say(c, SHMQ_SYS_DEATH, p, NULL, "%s", how);
	begin_part(parting);
}

static void abandon_goodbye(void *pending)
{
	struct parting *parting = pending;

	parting->goodbye.conn = NULL;
}

void death_forget(struct control *c, struct peer *p)
{
	begin_part(begin_parting(c, p, SHMQ_EVENT_LEFT));
}

int death_leave(struct exchange *x, struct peer *p)
{
	struct parting *parting = begin_parting(x->c, p, SHMQ_EVENT_LEFT);

	if (!begin_part(parting))
		return 0;
	conn_defer(x, &parting->goodbye, parting, abandon_goodbye);
	return CONN_LATER;
}

void death_hurry(struct control *c, struct topic *t)
{
	struct handle *h, *next;

	if (TAILQ_EMPTY(&c->partings))
		return;
	for (h = LIST_FIRST(&t->handles); h; h = next) {
		struct parting *parting = h->peer->parting;

		next = LIST_NEXT(h, of_topic);
		if (!parting)
			continue;
		if (!h->is_detached)
			detach(parting, h);
		open_finish(c, h, parting->kind);
	}
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

/* 1 or 0, or -1 if it cannot be known: of a process whose main thread has
 * ended, for one, there is nothing to be read. */
static int has_our_map(struct control *c, pid_t pid)
{
	char path[40], *line = NULL;
	size_t size = 0;
	struct stat st;
	int found = 0, lines = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	in = fstat(registry_slab_fd(c->reg, 0), &st) ? NULL : fopen(path, "re");
	if (!in)
		return -1;
	for (; !found && getline(&line, &size, in) > 0; lines++) {
		unsigned long long inode;
		unsigned major_no, minor_no;

		found = sscanf(line, "%*s %*s %*s %x:%x %llu", &major_no, &minor_no, &inode) == 3 &&
			inode == st.st_ino && major_no == major(st.st_dev) &&
			minor_no == minor(st.st_dev);
	}
	if (!found && (ferror(in) || !lines))
		found = -1;
	free(line);
	fclose(in);
	return found;
}

/* With proof only: what cannot be read proves nothing, nor does an identity
 * that the last worker did not come to write down. */
static int is_proved_dead(const struct peer *p)
{
	struct shmq__proc_id now;
	int error = shmq__proc_identify((pid_t)load_relaxed(&p->rec->pid), &now);

	return error == -ESRCH || (!error && load_relaxed(&p->rec->pidns) &&
				   now.start_time != load_relaxed(&p->rec->start_time));
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
	if (!error) {
		hello_identify(c, p);
		return;
	}
	if (fd >= 0)
		close(fd);
	log_error("%s cannot be watched yet: %s", conn_peer_text(p), strerror(-error));
	death_suspect(c);
}

static int look_at_maps(struct control *c, struct peer *p)
{
	if (has_our_map(c, (pid_t)load_relaxed(&p->rec->pid)) != 0)
		return 0;
	death_of(c, p,
		 "is no longer attached (it called execve, or closed the bus without saying so)");
	return 1;
}

/* Those without a handle may not have mapped anything yet, and keep nobody
 * waiting. */
int death_look(struct control *c, struct peer *p)
{
	struct shmq__proc_id now;

	if (!p->conn || p->parting || LIST_EMPTY(&p->handles) ||
	    shmq__proc_identify((pid_t)load_relaxed(&p->rec->pid), &now) || now.image == p->image)
		return 0;
	if (look_at_maps(c, p))
		return 1;
	p->image = now.image;
	return 0;
}

/* Look at some more clients; look() says whether that was one.  1 once all
 * have had their turn. */
static int look_on(struct control *c, unsigned *next,
		   int (*look)(struct control *c, struct peer *p))
{
	unsigned count = load_relaxed(&c->reg->head->client_count), left = LOOKS_AT_ONCE;

	for (; *next < count && left; ++*next) {
		struct peer *p = c->reg->peer[*next];

		if (p && !p->parting)
			left -= (unsigned)look(c, p);
	}
	if (*next < count)
		return 0;
	*next = 1;
	return 1;
}

static int look_at_away(struct control *c, struct peer *p)
{
	if (!p->watcher)
		check(c, p);
	else if (!p->conn)
		look_at_maps(c, p);
	else
		return 0;
	return 1;
}

static int look_at_connected(struct control *c, struct peer *p)
{
	if (!p->conn || LIST_EMPTY(&p->handles))
		return 0;
	death_look(c, p);
	return 1;
}

static int is_any_away(const struct control *c)
{
	struct peer *p;

	LIST_FOREACH (p, &c->reg->peers, link)
		if (!p->parting && (!p->watcher || !p->conn))
			return 1;
	return 0;
}

static void look_for_exec(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, exec_timer);
	int is_round = look_on(c, &c->exec_next, look_at_away);
	uint64_t now = shmq__clock_monotonic_ns();

	if (!is_round)
		loop_set_timer(c->loop, &c->exec_timer, now, look_for_exec);
	else if (is_any_away(c))
		loop_set_timer(c->loop, &c->exec_timer, now + NEXT_LOOK_NS, look_for_exec);
}

static void look_at_images(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, image_timer);

	look_on(c, &c->image_next, look_at_connected);
	if (c->reg->peer_count)
		death_watch_image(c);
}

void death_watch_image(struct control *c)
{
	if (!c->image_timer.is_set)
		loop_set_timer(c->loop, &c->image_timer, shmq__clock_monotonic_ns() + NEXT_LOOK_NS,
			       look_at_images);
}

void death_suspect(struct control *c)
{
	uint64_t due = shmq__clock_monotonic_ns() + FIRST_LOOK_NS;

	if (!c->exec_timer.is_set || due < c->exec_timer.due_ns)
		loop_set_timer(c->loop, &c->exec_timer, due, look_for_exec);
}

/* ---- adoption -------------------------------------------------------- */

static uint32_t flags_of(const struct control *c, const struct handle *h)
{
	struct lay_entry *e = shmq__slabs_at(c->reg->slabs, h->member->entry, sizeof(*e));

	return e && load_relaxed(&e->gen) == h->member->entry_gen ? load_relaxed(&e->flags) : 0;
}

/* What it closed while there was no worker.  Whether it left is as good as said: who
 * does not speak the truth in its own page comes back as nobody. */
static int has_left(struct control *c, struct peer *p)
{
	struct handle *h, *next;
	uint32_t flags;

	for (h = LIST_FIRST(&p->handles); h; h = next) {
		next = LIST_NEXT(h, of_peer);
		flags = flags_of(c, h);
		if (flags & LAY_ENTRY_LEFT)
			return 1;
		if (!(flags & LAY_ENTRY_CLOSED))
			continue;
		open_detach(c, h, OPEN_CLOSED);
		open_finish(c, h, SHMQ_EVENT_LEFT);
	}
	return 0;
}

void death_check_all(struct control *c)
{
	struct peer *p, *next;

	for (p = LIST_FIRST(&c->reg->peers); p; p = next) {
		next = LIST_NEXT(p, link);
		if (has_left(c, p))
			death_forget(c, p);
		else
			check(c, p);
	}
	part_at_once(c);
	/* Most come back by themselves within milliseconds. */
	if (!LIST_EMPTY(&c->reg->peers))
		loop_set_timer(c->loop, &c->exec_timer, shmq__clock_monotonic_ns() + NEXT_LOOK_NS,
			       look_for_exec);
}
