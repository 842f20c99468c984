/* SPDX-License-Identifier: MIT */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "durable.h"
#include "futex.h"
#include "give.h"
#include "tailer.h"

#define SECOND_NS INT64_C(1000000000)
#define MILLISECOND_NS UINT64_C(1000000)
#define ACK_TIMEOUT_NS (10 * SECOND_NS)
#define LOCK_TIMEOUT_NS (10 * SECOND_NS)
/* For the tailer to come to every topic with a log, before the bus ends. */
#define STOP_WAIT_NS (UINT64_C(10000) * MILLISECOND_NS)
#define STOP_LOOK_NS (5 * MILLISECOND_NS)

/* ---- the door -------------------------------------------------------- */

/* Somebody removed the runtime directory.  Its files are made again, unless another
 * bus has taken the name meanwhile: its lock comes first. */
static void make_door_again(struct control *c)
{
	struct link_msg door = { .kind = LINK_LISTEN }, held = { .kind = LINK_LOCK };
	int lock, sock, error, is_open = c->listen.ready != NULL;

	if (!access(c->files.sock, F_OK) || c->o->is_activated || c->link.fd < 0)
		return;
	if (mkdir(c->o->dir, 0700) && errno != EEXIST)
		return;
	lock = files_lock(c->files.lock, 0);
	if (lock < 0)
		return;
	sock = files_listen(&c->files, c->files.sock,
			    access_has_rules(c->o->access) ? FILES_EVERYBODY : FILES_OWNER);
	if (sock >= 0) {
		error = link_send(c->link.fd, &held, lock);
		if (!error)
			error = link_send(c->link.fd, &door, sock);
		log_warn("%s was removed: made again%s%s", c->files.sock, error ? ": " : "",
			 error ? strerror(-error) : "");
		loop_remove(c->loop, &c->listen);
		dup3(sock, c->listen.fd, O_CLOEXEC);
		close(sock);
		if (is_open)
			loop_add(c->loop, &c->listen, c->listen.fd, EPOLLIN, conn_accept);
	}
	close(lock);
}

/* ---- the end --------------------------------------------------------- */

/* One that has died just now reads nothing, though its handles are still here. */
static int is_tailer(const struct peer *p)
{
	struct pollfd gone = { .fd = death_pidfd(p), .events = POLLIN };

	return !strcmp(p->rec->name, TAILER_NAME) && !(gone.fd >= 0 && poll(&gone, 1, 0));
}

/* Everything with a log is read by the tailer: it holds the rings then, and
 * reads them to their ends. */
static int has_unread_log(const struct control *c)
{
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++) {
		struct topic *t = c->reg->topic[i];
		struct handle *h;
		uint32_t lanes = 0;

		if (!t || t->rec->log <= SHMQ_LOG_NONE ||
		    load_relaxed(&t->rec->state) != LAY_TOPIC_LIVE)
			continue;
		LIST_FOREACH (h, &t->handles, of_topic)
			lanes += is_tailer(h->peer);
		if (lanes < t->rec->partitions)
			return 1;
	}
	return 0;
}

static void stop_again(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, stop_timer);

	control_stop(c, c->stop_by);
}

void control_stop(struct control *c, const char *by)
{
	struct link_msg msg = { .kind = LINK_STOPPING };
	uint64_t now = shmq__clock_monotonic_ns();
	struct shmq__why why = { "" };
	int is_anothers;
	uint32_t i;

	if (c->is_over)
		return;
	if (!c->stop_ns)
		c->stop_ns = now;
	if (has_unread_log(c) && now - c->stop_ns < STOP_WAIT_NS) {
		make_door_again(c); /* for a tailer that comes */
		if (by != c->stop_by)
			snprintf(c->stop_by, sizeof(c->stop_by), "%s", by);
		loop_set_timer(c->loop, &c->stop_timer, now + STOP_LOOK_NS, stop_again);
		return;
	}
	c->is_over = 1;
	is_anothers = files_are_anothers(c->lock_fd, c->files.control);
	log_info("ending the bus, asked by %s: %u topics, %u clients", by,
		 load_relaxed(&c->reg->head->topics_live), c->reg->peer_count);
	/* Nobody is to find the door open and the house empty. */
	if (!c->o->is_activated && !is_anothers)
		unlink(c->files.sock);
	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i] && create_end_topic(c, c->reg->topic[i], NULL, &why))
			log_error("%s; its handles are not told that it ends", why.text);
	registry_announce(c->reg);
	store_release(&c->reg->head->control_pid, 0);
	if (!is_anothers)
		unlink(c->files.control);
	if (c->link.ready)
		link_send(c->link.fd, &msg, -1);
}

unsigned control_count_others(const struct control *c, const struct peer *but)
{
	struct peer *p;
	unsigned n = 0;

	LIST_FOREACH (p, &c->reg->peers, link)
		n += p != but && !p->parting && *p->rec->name != '$';
	return n;
}

static int is_idle(const struct control *c)
{
	struct peer *p;
	unsigned own = 0;

	if (c->reg->topic_count > (registry_find(c->reg, EVENTS_TOPIC) != NULL) || c->jobs)
		return 0;
	LIST_FOREACH (p, &c->reg->peers, link) {
		if (*p->rec->name != '$')
			return 0;
		own += p->conn != NULL;
	}
	return c->conn_count == own;
}

static void lingered(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, linger_timer);

	if (is_idle(c))
		control_stop(c, "nobody: it is empty");
}

void control_maybe_idle(struct control *c)
{
	if (!c->o->on_demand || c->is_over)
		return;
	if (is_idle(c))
		loop_set_timer(c->loop, &c->linger_timer,
			       shmq__clock_monotonic_ns() + (uint64_t)c->o->linger_ns, lingered);
	else
		loop_clear_timer(&c->linger_timer);
}

static void signalled(struct source *source, uint32_t events)
{
	struct control *c = loop_container(source, struct control, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo == SIGTERM)
			control_stop(c, "SIGTERM");
}

int control_may(const struct control *c, const struct conn *conn, const char *topic,
		enum access_right right, struct shmq__why *why)
{
	const char *verb = right == ACCESS_CREATE    ? "create" :
			   right == ACCESS_PUBLISH   ? "publish" :
			   right == ACCESS_SUBSCRIBE ? "subscribe" :
						       "administer";

	if (access_rights(c->o->access, &conn->who, topic) & right)
		return 0;
	if (!strcmp(topic, "#"))
		return shmq__fail(why, SHMQ_EACCESS,
				  "uid %u may not %s this bus: ask its owner, uid %u",
				  (unsigned)conn->who.uid, verb, (unsigned)geteuid());
	return shmq__fail(why, SHMQ_EACCESS,
			  "uid %u may not %s \"%s\": ask for a rule that lets it (shmqd --allow)",
			  (unsigned)conn->who.uid, verb, topic);
}

/* ---- waiting for memory ---------------------------------------------- */

void control_await_memory(struct control *c, struct memory_wait *wait,
			  void (*retry)(struct memory_wait *wait))
{
	wait->retry = retry;
	TAILQ_INSERT_TAIL(&c->memory_waits, wait, link);
}

/* Each once: who finds that it is not enough queues again. */
void control_memory_came(void *control)
{
	struct control *c = control;
	struct memory_wait *wait;
	unsigned count = 0;

	loop_wake_idle(c->loop); /* a pool may be trimmed again */
	TAILQ_FOREACH (wait, &c->memory_waits, link)
		count++;
	while (count-- && (wait = TAILQ_FIRST(&c->memory_waits))) {
		TAILQ_REMOVE(&c->memory_waits, wait, link);
		wait->retry(wait);
	}
}

/* ---- the parent ------------------------------------------------------ */

static void parent_gone(struct control *c);

static void reap_new_parent(struct control *c)
{
	if (c->new_parent > 0 && waitpid(c->new_parent, NULL, WNOHANG) == c->new_parent)
		c->new_parent = 0;
}

/* A new parent does not know that there is work for a tailer. */
static void tell_of_logs(struct control *c)
{
	uint32_t i;

	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i] && c->reg->topic[i]->rec->log > SHMQ_LOG_NONE) {
			link_say(c->link.fd, LINK_LOGS);
			return;
		}
}

static void link_ready(struct source *source, uint32_t events)
{
	struct control *c = loop_container(source, struct control, link);
	struct link_msg msg;
	int fd, rc;

	(void)events;
	while ((rc = link_recv(source->fd, &msg, &fd, 0)) == 1) {
		if (fd >= 0)
			close(fd);
		if (msg.kind == LINK_STOP)
			control_stop(c, "the parent");
		if (msg.kind == LINK_ACK)
			give_is_held(c, msg.slab);
		if (msg.kind == LINK_PING)
			link_say(c->link.fd, LINK_PONG);
		if (msg.kind == LINK_RELOAD)
			reload_asked(c, msg.slab);
		if (msg.kind != LINK_READY)
			continue;
		give_is_held(c, GIVE_ALL);
		c->parent_tries = 0;
		store_relaxed(&c->reg->head->parent_pid, (uint32_t)msg.pid);
		log_info("parent %d has taken over", msg.pid);
		events_say(c, SHMQ_SYS_RECOVERY, NULL, NULL, "parent %d has taken over", msg.pid);
		tell_of_logs(c);
	}
	if (rc != -EAGAIN)
		parent_gone(c);
}

static int spawn_parent(struct control *c)
{
	int pair[2], error = link_pair(pair);
	pid_t pid;

	if (error)
		return error;
	/* Queued, it outlives us: the new parent has it even if we die now. */
	error = link_give(pair[0], c->listen.fd, c->slab, c->reg->head->nonce, 0);
	pid = error ? error : options_spawn(c->o, ROLE_PARENT, pair[1]);
	close(pair[1]);
	error = pid < 0 ? pid : loop_add(c->loop, &c->link, pair[0], EPOLLIN, link_ready);
	if (error) {
		close(pair[0]);
		return error;
	}
	c->new_parent = pid;
	return 0;
}

static void try_new_parent(struct timer *timer);

/* Parents that end before they have taken over are given time.  How much: ms. */
static unsigned set_parent_timer(struct control *c)
{
	static const unsigned pause_ms[] = { 0, 10, 100, 1000 };
	unsigned last = sizeof(pause_ms) / sizeof(pause_ms[0]) - 1;
	unsigned pause = pause_ms[c->parent_tries < last ? c->parent_tries : last];

	loop_set_timer(c->loop, &c->parent_timer,
		       shmq__clock_monotonic_ns() + pause * MILLISECOND_NS, try_new_parent);
	return pause;
}

static void try_new_parent(struct timer *timer)
{
	struct control *c = loop_container(timer, struct control, parent_timer);
	int error;

	reap_new_parent(c);
	if (c->is_over)
		return;
	error = spawn_parent(c);
	c->parent_tries++;
	if (error)
		log_error("starting a new parent: %s; again in %u ms", strerror(-error),
			  set_parent_timer(c));
}

/* We hold all it held, so a new one can take it from us. */
static void parent_gone(struct control *c)
{
	loop_remove(c->loop, &c->link);
	close(c->link.fd);
	c->link.fd = -1;
	store_relaxed(&c->reg->head->parent_pid, 0);
	if (c->is_over)
		return;
	log_warn("the parent is gone: starting another in %u ms", set_parent_timer(c));
	events_say(c, SHMQ_SYS_DEATH, NULL, NULL, "the parent of the bus died: starting another");
}

static void tell_failure(struct control *c, const char *what, const char *text)
{
	struct link_msg msg = { .kind = LINK_FAILED };

	snprintf(msg.text, sizeof(msg.text), "%s: %.200s", what, text);
	log_error("%s", msg.text);
	if (c->link.fd >= 0)
		link_send(c->link.fd, &msg, -1);
}

/* ---- start ----------------------------------------------------------- */

/* Our predecessors died quickly.  Whatever comes over the link, or its end,
 * is reason to begin at once. */
static void wait_before_start(struct control *c, uint64_t delay_ns)
{
	struct pollfd p = { .fd = c->link.fd, .events = POLLIN };

	if (delay_ns)
		poll(&p, 1, (int)(delay_ns / MILLISECOND_NS));
}

/* Wait until the parent holds the slab as well.  Should it have gone, its
 * successor will get everything. */
static void wait_for_ack(struct control *c)
{
	struct link_msg msg;
	int fd, rc;

	do {
		rc = link_recv(c->link.fd, &msg, &fd, ACK_TIMEOUT_NS);
		if (fd >= 0)
			close(fd);
		if (rc == 1 && msg.kind == LINK_STOP)
			raise(SIGTERM); /* heard once there is something to stop */
	} while (rc == 1 && msg.kind != LINK_ACK);
}

/* Slabs the last worker did not come to make. */
static int make_missing(struct control *c)
{
	struct link_slab wanted[LINK_SLABS_MAX];
	/* Clients that are there do not know of guests that come to be later. */
	unsigned count = registry_slabs_wanted(c->slab[0].fd >= 0 ? 0 : c->o->guests, wanted), i;

	for (i = 0; i < count; i++) {
		struct link_slab *slab = &c->slab[i];

		if (slab->fd >= 0)
			continue;
		*slab = wanted[i];
		slab->fd = registry_make_slab(i, slab);
		if (slab->fd < 0 && slab->page_shift != 12) {
			log_info("no slab of %u KiB pages: %s", 1u << (slab->page_shift - 10),
				 strerror(-slab->fd));
			slab->fd = -1;
			continue;
		}
		if (slab->fd < 0) {
			tell_failure(c, "making a memfd (ulimit -f must be unlimited)",
				     strerror(-slab->fd));
			return SHMQ_ELIMIT;
		}
		if (link_send_slab(c->link.fd, i, slab) == 0)
			wait_for_ack(c);
	}
	return 0;
}

static int open_bus(struct control *c)
{
	struct shmq__why why = { "" };
	int error = place_create(c->o->topology, NULL, &c->place, &why);

	if (!error)
		error = make_missing(c);
	else
		tell_failure(c, "topology", *why.text ? why.text : shmq_strerror(error));
	if (error)
		return error;
	error = registry_open(c->place, c->slab, c->o->bus, &c->reg, &why);
	if (error)
		tell_failure(c, "making the registry",
			     *why.text ? why.text : files_strerror(error));
	/* Where the logs are is settled when the bus begins. */
	if (!error && load_relaxed(&c->reg->head->epoch) && *c->reg->head->data_dir)
		snprintf(c->log_dir, sizeof(c->log_dir), "%s", c->reg->head->data_dir);
	else if (!error && durable_bus_dir(c->o->data_dir, c->o->bus, c->log_dir,
					   sizeof(c->log_dir), &c->log_why))
		*c->log_dir = 0;
	if (!error)
		snprintf(c->reg->head->data_dir, sizeof(c->reg->head->data_dir), "%s", c->log_dir);
	return error;
}

/* Publishers do not fence for those that end or move their topics, if these can
 * make them. */
static void agree_on_fences(struct lay_registry *head)
{
	int error = shmq__membarrier();

	store_relaxed(&head->no_membarrier, error != 0);
	if (error)
		log_warn(
			"membarrier(2) is denied to the supervisor: publishers that open a topic "
			"from now on fence each message, about 7 ns: allow it in the filter of the "
			"service or container");
}

/* Make ours what the last worker had: who is still there first, so that
 * nobody waits for a dead one longer than must be.  The parent is who started us,
 * which getppid() does not say once it is dead. */
static int adopt(struct control *c, uint32_t parent)
{
	struct lay_registry *head = c->reg->head;
	struct registry_found found;
	uint64_t epoch = load_relaxed(&head->epoch), from = shmq__clock_monotonic_ns();
	uint32_t i;
	int error;

	store_relaxed(&head->control_pid, (uint32_t)getpid());
	store_relaxed(&head->parent_pid, parent);
	store_relaxed(&head->epoch, epoch + 1);
	agree_on_fences(head);
	error = registry_adopt(c->reg, &found);
	if (error) {
		tell_failure(c, "adopting the bus", shmq_strerror(error));
		return error;
	}
	watch_adopt(c);
	death_check_all(c);
	reply_look(c);
	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i])
			create_reap_topic(c, c->reg->topic[i]);
	orphan_adopt(c);
	registry_give_back(c->reg);
	registry_prepare(c->reg);
	registry_serve(c->reg, c->loop, control_memory_came, c);
	work_on_freed(c->work, control_memory_came, c);
	create_relock_all(c);
	if (epoch)
		log_info(
			"adopted %u topics, %u clients, %u handles, %u arenas; discarded %u unfinished; in "
			"%llu us",
			found.topics, found.clients, found.handles, found.arenas, found.discarded,
			(unsigned long long)((shmq__clock_monotonic_ns() - from) / 1000));
	if (epoch)
		events_say(c, SHMQ_SYS_RECOVERY, NULL, NULL,
			   "a new control worker (pid %d) took over %u topics and %u clients",
			   (int)getpid(), found.topics, found.clients);
	for (i = 0; i < c->reg->topic_capacity; i++)
		if (c->reg->topic[i] && c->reg->topic[i]->rec->log > SHMQ_LOG_NONE)
			events_watch_logs(c);
	return 0;
}

static int watch(struct control *c)
{
	sigset_t set;
	int fd, error;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD); /* ignored, but it ends a wait: a parent of ours died */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGINT, SIG_IGN); /* of the terminal: the parent hears it too */
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN); /* the parent's, but some signal all of a service */
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	error = fd < 0 ? -errno : loop_add(c->loop, &c->signals, fd, EPOLLIN, signalled);
	return error;
}

static int serve(struct control *c)
{
	struct link_msg ready = { .kind = LINK_READY, .nonce = c->reg->head->nonce };
	int error = loop_add(c->loop, &c->link, c->link.fd, EPOLLIN, link_ready);

	/* Who comes finds what was there when the bus went down. */
	if (!error) {
		create_revive(c);
		create_configured(c);
	}
	while (!error && c->reviving && !c->is_over)
		error = loop_once(c->loop);
	if (!error)
		error = loop_add(c->loop, &c->listen, c->listen.fd, EPOLLIN, conn_accept);
	if (error) {
		tell_failure(c, "serving", strerror(-error));
		return EXIT_FAILED;
	}
	make_door_again(c);
	conn_has_spare(c);
	log_info("serving bus \"%s\" at %s", c->o->bus, c->files.sock);
	link_send(c->link.fd, &ready, -1);
	control_maybe_idle(c);
	while (!c->is_over) {
		error = loop_once(c->loop);
		if (error) {
			log_error("waiting for events: %s", strerror(-error));
			return EXIT_FAILED;
		}
	}
	return EXIT_OK;
}

int control_run(struct options *o)
{
	static struct control control;
	struct control *c = &control;
	struct link_msg start;
	unsigned i;
	int error;

	log_open("control", o->level);
	c->o = o;
	c->link.fd = o->fd;
	c->listen.fd = c->spare_fd = -1;
	for (i = 0; i < LINK_SLABS_MAX; i++)
		c->slab[i].fd = -1;
	TAILQ_INIT(&c->conns);
	TAILQ_INIT(&c->memory_waits);
	TAILQ_INIT(&c->partings);
	files_name(&c->files, o->dir, o->bus);
	error = loop_create(&c->loop);
	if (!error)
		error = watch(c);
	if (!error)
		error = link_take(c->link.fd, &c->listen.fd, &c->lock_fd, c->slab, &start);
	if (error) {
		tell_failure(c, "starting", strerror(-error));
		return EXIT_FAILED;
	}
	wait_before_start(c, start.delay_ns);
	c->lock_fd = files_lock(c->files.control, LOCK_TIMEOUT_NS);
	if (c->lock_fd < 0) {
		tell_failure(c, c->files.control, strerror(-c->lock_fd));
		return EXIT_FAILED;
	}
	log_bound(c->files.log);
	error = open_bus(c);
	if (!error)
		error = work_create(c->loop, c->reg, &c->work);
	if (!error)
		error = adopt(c, (uint32_t)start.pid);
	return error ? EXIT_FAILED : serve(c);
}
