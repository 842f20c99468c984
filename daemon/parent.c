/* SPDX-License-Identifier: MIT */
#include "parent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "files.h"
#include "gather.h"
#include "link.h"
#include "manifest.h"
#include "privilege.h"
#include "proc.h"
#include "ready.h"
#include "sandbox.h"
#include "service.h"
#include "upgrade.h"

#define MILLISECOND_NS INT64_C(1000000)
#define SECOND_NS INT64_C(1000000000)
#define START_TIMEOUT_NS (5 * SECOND_NS)
#define STOP_TIMEOUT_NS (15 * SECOND_NS) /* more than it waits for a tailer */
#define TAIL_TIMEOUT_NS (60 * SECOND_NS) /* for what is still to be written */
/* What an orphaned worker is given to show that it holds its lock. */
#define SURVIVOR_TIMEOUT_NS (100 * MILLISECOND_NS)
#define START_TRIES 5
/* After that long a worker that has not come to serve hangs. */
#define ADOPT_PATIENCE_NS (uint64_t)(300 * SECOND_NS)

struct worker {
	const char *name;
	enum role role;
	pid_t pid; /* 0 none */
	int fd, link_fd;
	uint64_t spawned_ns; /* when it begins */
	uint64_t delay_ns;   /* how much later than its start that is */
	uint64_t retry_ns;   /* when to try to start one again */
	unsigned quick_deaths;
};

struct parent {
	struct options *o;
	struct files files;
	int lock_fd, listen_fd, signal_fd, ready_fd;
	struct link_slab slab[LINK_SLABS_MAX];
	uint64_t nonce;

	struct worker control, tailer;
	int was_ready; /* some control worker of this bus has served */
	int has_logs;  /* one said that there is something for a tailer */

	/* How often it was asked to take the configuration anew, and which of these
	 * is done. */
	uint32_t reloads, reloaded;
	uint64_t watchdog_due; /* when a service manager is to hear of us, 0 never */
	uint64_t owes_due;     /* and of what it could not take yet */
	int is_pinged;         /* the control worker has not answered */
	int is_served;         /* it has said that it serves */
	int stop;              /* asked to end the bus */
	int ended;             /* the control worker has ended it */
	uint64_t stop_deadline;
	char failure[SHMQ_WHY_BYTES];
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int say_start_failed(struct parent *p, enum exit_code code, const char *text)
{
	log_error("%s", text);
	ready_report(&p->ready_fd, code, text);
	return (int)code;
}

/* ---- workers --------------------------------------------------------- */

static void ask_to_stop(const struct worker *w)
{
	if (w->link_fd >= 0)
		link_say(w->link_fd, LINK_STOP);
}

static void kill_worker(const struct worker *w)
{
	if (w->fd >= 0)
		syscall(SYS_pidfd_send_signal, w->fd, SIGKILL, NULL, 0);
}

/* If a worker dies over it, the next one is asked again. */
static void ask_to_reload(struct parent *p)
{
	struct link_msg msg = { .kind = LINK_RELOAD, .slab = p->reloads };

	if (p->control.link_fd >= 0)
		link_send(p->control.link_fd, &msg, -1);
}

/* What is left to this process of it. */
static void reloaded(struct parent *p, uint32_t which)
{
	struct config *config = NULL;
	int error;

	if (which)
		p->reloaded = which;
	if (p->reloaded == p->reloads)
		service_notify("READY=1");
	error = config_read(p->files.conf, CONFIG_ANYBODYS, &config, NULL, NULL);
	if (error && error != -ENOENT) /* the one before stands */
		return;
	if (options_apply(p->o, config))
		config_free(config);
	else
		log_open("parent", p->o->level);
}

/* ---- the service manager --------------------------------------------- */

static void tell_ready(const struct parent *p)
{
	char words[SHMQ_BUS_NAME_MAX + 256];

	snprintf(words, sizeof(words), "READY=1\nSTATUS=serving bus \"%s\" at %s", p->o->bus,
		 p->files.sock);
	service_notify(words);
}

/* One that takes over thousands of topics answers nothing meanwhile. */
static int is_late(const struct parent *p, uint64_t now)
{
	return p->was_ready && p->control.pid && !p->is_served &&
	       now > p->control.spawned_ns + ADOPT_PATIENCE_NS;
}

/* It is well if the control worker is, or is about to be another one. */
static void feed_watchdog(struct parent *p)
{
	uint64_t now = shmq__clock_monotonic_ns();

	if (!p->watchdog_due || now < p->watchdog_due)
		return;
	p->watchdog_due = now + (uint64_t)service_watchdog_ns() / 2;
	if (p->is_pinged || is_late(p, now)) {
		log_error("the control worker (pid %d) has not answered since the last look: the "
			  "service manager's watchdog is not told that all is well",
			  (int)p->control.pid);
		return;
	}
	service_notify("WATCHDOG=1");
	p->is_pinged =
		p->is_served && p->control.link_fd >= 0 && !link_say(p->control.link_fd, LINK_PING);
}

/* Without it a bus that nobody survives is lost. */
static void write_manifest(const struct parent *p)
{
	int error = files_are_anothers(p->lock_fd, p->files.lock) ?
			    -EBUSY :
			    manifest_write(&p->files, p->o->bus, p->nonce, p->slab);

	if (error)
		log_error("writing %s: %s", p->files.manifest, strerror(-error));
}

static int spawn_worker(struct parent *p, struct worker *w)
{
	int pair[2], error = link_pair(pair), fd;
	pid_t pid;

	if (error)
		return error;
	error = link_give(pair[0], p->listen_fd, p->slab, p->nonce, w->delay_ns);
	pid = error ? error : options_spawn(p->o, w->role, pair[1]);
	close(pair[1]);
	fd = pid < 0 ? pid : shmq__proc_pidfd(pid);
	if (fd < 0) {
		close(pair[0]);
		if (pid > 0) { /* nobody would notice its end */
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
		return fd;
	}
	w->pid = pid;
	w->link_fd = pair[0];
	w->fd = fd;
	if (w == &p->control)
		p->failure[0] = 0;
	w->spawned_ns = shmq__clock_monotonic_ns() + w->delay_ns;
	log_debug("%s worker started, pid %d", w->name, (int)pid);
	if (p->stop && w == &p->control)
		ask_to_stop(w);
	return 0;
}

/* A worker that dies again and again within a second is given time.  The
 * next one is started at once all the same and waits by itself, so that
 * there are always two to hold the descriptors. */
static void choose_delay(struct worker *w)
{
	static const int64_t delay_ns[] = { 0, 10 * MILLISECOND_NS, 100 * MILLISECOND_NS,
					    SECOND_NS };
	uint64_t now = shmq__clock_monotonic_ns();
	unsigned last = sizeof(delay_ns) / sizeof(delay_ns[0]) - 1;

	if (now > w->spawned_ns + (uint64_t)SECOND_NS)
		w->quick_deaths = 0;
	w->delay_ns = (uint64_t)delay_ns[w->quick_deaths < last ? w->quick_deaths : last];
	w->quick_deaths++;
}

static void describe_end(const struct worker *w, char *text, size_t bytes)
{
	int status = 0;

	/* An adopted worker is not our child. */
	if (waitpid(w->pid, &status, WNOHANG) != w->pid)
		snprintf(text, bytes, "ended");
	else if (WIFSIGNALED(status))
		snprintf(text, bytes, "was killed by signal %d%s", WTERMSIG(status),
			 WTERMSIG(status) == SIGSYS ? " (SIGSYS: a call the sandbox refuses)" : "");
	else
		snprintf(text, bytes, "exited with %d", WEXITSTATUS(status));
}

static void worker_message(struct parent *p, const struct link_msg *msg, int fd)
{
	switch (msg->kind) {
	case LINK_SLAB:
		if (fd < 0 || msg->slab >= LINK_SLABS_MAX || p->slab[msg->slab].fd >= 0)
			break;
		p->slab[msg->slab] = link_slab_of(msg, fd);
		service_store(msg->slab, fd);
		fd = -1;
		write_manifest(p);
		link_send(p->control.link_fd,
			  &(struct link_msg){ .kind = LINK_ACK, .slab = msg->slab }, -1);
		break;
	case LINK_LOCK:
	case LINK_LISTEN:
		if (fd < 0)
			break;
		dup3(fd, msg->kind == LINK_LOCK ? p->lock_fd : p->listen_fd, O_CLOEXEC);
		write_manifest(p);
		break;
	case LINK_READY:
		p->nonce = msg->nonce;
		p->was_ready = p->is_served = 1;
		write_manifest(p);
		ready_report(&p->ready_fd, EXIT_OK, NULL);
		tell_ready(p);
		if (p->reloaded != p->reloads)
			ask_to_reload(p);
		break;
	case LINK_RELOADED:
		reloaded(p, msg->slab);
		break;
	case LINK_PONG:
		p->is_pinged = 0;
		break;
	case LINK_LOGS:
		p->has_logs = 1;
		break;
	case LINK_STOPPING:
		p->ended = 1;
		p->stop_deadline = shmq__clock_deadline(TAIL_TIMEOUT_NS);
		ask_to_stop(&p->tailer);
		break;
	case LINK_FAILED:
		snprintf(p->failure, sizeof(p->failure), "%s", msg->text);
		break;
	default:
		break;
	}
	if (fd >= 0)
		close(fd);
}

/* The tailer has nothing to say. */
static void read_link(struct parent *p, struct worker *w)
{
	struct link_msg msg;
	int fd, rc;

	while ((rc = link_recv(w->link_fd, &msg, &fd, 0)) == 1) {
		if (w == &p->control)
			worker_message(p, &msg, fd);
		else if (fd >= 0)
			close(fd);
	}
	/* Its death is what the pidfd says; a worker that closes its link is
	 * out of step and of no use. */
	if (rc == -EAGAIN)
		return;
	close_fd(&w->link_fd);
	if (w->pid && !(p->ended && w == &p->tailer))
		kill_worker(w);
}

static void worker_died(struct parent *p, struct worker *w)
{
	char how[64];

	if (w->link_fd >= 0)
		read_link(p, w);
	describe_end(w, how, sizeof(how));
	close_fd(&w->link_fd);
	close_fd(&w->fd);
	if (w == &p->control)
		p->is_pinged = p->is_served = 0;
	w->retry_ns = w->spawned_ns; /* one that did not come to waiting */
	choose_delay(w);
	if (!p->ended && p->was_ready && !p->stop)
		log_warn("%s worker (pid %d) %s: starting another in %u ms; its clients carry "
			 "on meanwhile",
			 w->name, (int)w->pid, how, (unsigned)(w->delay_ns / MILLISECOND_NS));
	else if (!p->ended)
		log_warn("%s worker (pid %d) %s", w->name, (int)w->pid, how);
	else if (w == &p->tailer && strcmp(how, "exited with 0") != 0)
		log_warn(
			"tailer worker (pid %d) %s while the bus ended: what its logs lack is lost "
			"with the rings",
			(int)w->pid, how);
	w->pid = 0;
}

/* ---- the loop -------------------------------------------------------- */

static void stop(struct parent *p)
{
	if (p->stop && (p->control.fd >= 0 || p->tailer.fd >= 0)) {
		log_warn("asked to stop again: killing the workers");
		kill_worker(&p->control);
		kill_worker(&p->tailer);
		p->ended = 1;
		return;
	}
	p->stop = 1;
	service_notify("STOPPING=1");
	p->stop_deadline = shmq__clock_deadline(STOP_TIMEOUT_NS);
	ask_to_stop(&p->control);
}

/* No instruction of a worker's is a bad one to be killed at. */
static void end_worker(const struct worker *w)
{
	struct pollfd gone = { .fd = w->fd, .events = POLLIN };

	if (w->fd < 0)
		return;
	kill_worker(w);
	while (poll(&gone, 1, -1) <= 0)
		;
	waitpid(w->pid, NULL, WNOHANG); /* if it is our child */
}

static void upgrade(struct parent *p)
{
	struct upgrade u = { p->o, p->listen_fd, p->lock_fd, p->slab, p->nonce };
	struct shmq__why why = { "" };
	int program, error;

	if (p->stop || !p->was_ready) {
		log_warn("SIGUSR2: bus \"%s\" is not served%s", p->o->bus,
			 p->stop ? " much longer" : " yet");
		return;
	}
	program = upgrade_try(&u, &why);
	if (program < 0) {
		log_error("not upgraded, shmqd %s goes on: %s", shmq_version(), why.text);
		return;
	}
	log_info("shmqd %s goes on as %s", shmq_version(), p->o->program);
	if (p->reloaded != p->reloads) /* it stays pending, whoever goes on */
		kill(getpid(), SIGHUP);
	end_worker(&p->control);
	end_worker(&p->tailer);
	error = upgrade_go(&u, program);
	log_error("executing %s: %s: shmqd %s goes on", p->o->program, strerror(-error),
		  shmq_version());
	close(program);
}

static void read_signals(struct parent *p)
{
	struct signalfd_siginfo info;

	while (read(p->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo == SIGUSR2)
			upgrade(p);
		else if (info.ssi_signo == SIGHUP) {
			p->reloads++;
			service_notify("RELOADING=1");
			ask_to_reload(p);
		} else if (info.ssi_signo != SIGCHLD)
			stop(p);
}

/* Whether a worker should run. */
static int is_wanted(const struct parent *p, const struct worker *w)
{
	return w == &p->control ? !p->ended : p->has_logs && p->was_ready && !p->ended;
}

static int poll_timeout(const struct parent *p)
{
	uint64_t due = UINT64_MAX;

	if (!p->control.pid && is_wanted(p, &p->control))
		due = p->control.retry_ns;
	if (!p->tailer.pid && is_wanted(p, &p->tailer) && p->tailer.retry_ns < due)
		due = p->tailer.retry_ns;
	if ((p->stop || p->ended) && p->stop_deadline < due)
		due = p->stop_deadline;
	if (p->watchdog_due && p->watchdog_due < due)
		due = p->watchdog_due;
	if (p->owes_due && p->owes_due < due)
		due = p->owes_due;
	return shmq__clock_left_ms(due);
}

static void wait_and_handle(struct parent *p)
{
	struct pollfd fds[] = {
		{ .fd = p->signal_fd, .events = POLLIN },
		{ .fd = p->control.link_fd, .events = POLLIN },
		{ .fd = p->control.fd, .events = POLLIN },
		{ .fd = p->tailer.link_fd, .events = POLLIN },
		{ .fd = p->tailer.fd, .events = POLLIN },
	};

	if (poll(fds, sizeof(fds) / sizeof(fds[0]), poll_timeout(p)) < 0)
		return;
	if (fds[0].revents)
		read_signals(p);
	if (fds[1].revents)
		read_link(p, &p->control);
	if (fds[2].revents)
		worker_died(p, &p->control);
	if (fds[3].revents)
		read_link(p, &p->tailer);
	if (fds[4].revents)
		worker_died(p, &p->tailer);
}

static void keep_running(struct parent *p, struct worker *w)
{
	int error;

	if (w->pid || !is_wanted(p, w) || shmq__clock_monotonic_ns() < w->retry_ns)
		return;
	error = spawn_worker(p, w);
	if (!error)
		return;
	log_error("starting a %s worker: %s", w->name, strerror(-error));
	w->retry_ns = shmq__clock_deadline(100 * MILLISECOND_NS);
}

/* What did not end in time.  The exit code. */
static int give_up(const struct parent *p)
{
	const struct worker *late = p->ended ? &p->tailer : &p->control;

	log_warn("the %s worker did not end in time: killing it%s", late->name,
		 late == &p->tailer ? "; what its logs lack is lost with the rings" : "");
	kill_worker(late);
	return EXIT_FAILED;
}

/* Keep the workers alive until the bus has ended.  The exit code. */
static int supervise(struct parent *p)
{
	for (;;) {
		if (p->ended && !p->control.pid && !p->tailer.pid)
			return EXIT_OK;
		/* A bus that has lived is not given up: its memory is here. */
		if (!p->control.pid && *p->failure && !p->was_ready)
			return say_start_failed(p, EXIT_FAILED, p->failure);
		if (!p->control.pid && !p->was_ready && p->control.quick_deaths >= START_TRIES)
			return say_start_failed(
				p, EXIT_FAILED,
				"the control worker dies while starting: see the log");
		if ((p->stop || p->ended) && shmq__clock_left(p->stop_deadline) == 0)
			return give_up(p);
		keep_running(p, &p->control);
		keep_running(p, &p->tailer);
		feed_watchdog(p);
		p->owes_due = service_catch_up() ? shmq__clock_deadline(50 * MILLISECOND_NS) : 0;
		wait_and_handle(p);
	}
}

/* ---- becoming the parent --------------------------------------------- */

/* -1: the lock is ours; else the exit code. */
static int take_lock(struct parent *p)
{
	uint64_t deadline = shmq__clock_deadline(START_TIMEOUT_NS);
	char text[SHMQ_ERROR_TEXT_MAX];

	for (;;) {
		p->lock_fd = files_lock(p->files.lock, 0);
		if (p->lock_fd >= 0)
			return -1;
		if (p->lock_fd != -EWOULDBLOCK) {
			snprintf(text, sizeof(text), "locking %s: %s", p->files.lock,
				 files_strerror(p->lock_fd));
			return say_start_failed(p, EXIT_FAILED, text);
		}
		/* It runs, or is starting, or on its way out. */
		if (files_accepts(&p->files) && p->o->on_demand) {
			ready_report(&p->ready_fd, EXIT_OK, NULL);
			return EXIT_OK;
		}
		if (files_accepts(&p->files)) {
			snprintf(text, sizeof(text),
				 "bus \"%s\" is running already (%s is locked): use it, or "
				 "choose another name",
				 p->o->bus, p->files.lock);
			return say_start_failed(p, EXIT_RUNNING, text);
		}
		if (shmq__clock_left(deadline) == 0) {
			snprintf(text, sizeof(text),
				 "the supervisor that holds %s does not accept clients",
				 p->files.lock);
			return say_start_failed(p, EXIT_FAILED, text);
		}
		poll(NULL, 0, 2);
	}
}

/* A worker without a parent is about to start one: leave the bus to it. */
static int yield_to_survivor(struct parent *p)
{
	int fd = files_lock(p->files.control, SURVIVOR_TIMEOUT_NS);
	char text[SHMQ_ERROR_TEXT_MAX];

	if (fd >= 0) {
		close(fd);
		return -1;
	}
	if (fd == -EWOULDBLOCK && p->o->on_demand) {
		ready_report(&p->ready_fd, EXIT_OK, NULL);
		return EXIT_OK;
	}
	snprintf(text, sizeof(text), "bus \"%s\" is running already (%s: %s)", p->o->bus,
		 p->files.control, strerror(-fd));
	return say_start_failed(p, fd == -EWOULDBLOCK ? EXIT_RUNNING : EXIT_FAILED, text);
}

/* Nobody survived, but the clients hold what there was. */
static int bring_back(struct parent *p)
{
	struct shmq__why why = { "" };
	int rc = gather_run(&p->files, p->o, p->signal_fd, p->slab, &p->nonce, &why);

	if (rc == SHMQ_EVERSION)
		return say_start_failed(p, EXIT_FAILED, why.text);
	if (rc != -ECANCELED)
		return -1;
	return say_start_failed(p, EXIT_FAILED, "asked to stop before the bus was served again");
}

/* What it keeps for the next start is what is held now. */
static void renew_store(const struct parent *p)
{
	unsigned i;
	int fd;

	while ((fd = service_next_slab(&i)) >= 0) { /* of a bus that ended in order */
		service_forget(i);
		close(fd);
	}
	for (i = 0; i < LINK_SLABS_MAX; i++)
		if (p->slab[i].fd >= 0)
			service_store(i, p->slab[i].fd);
}

/* -1, or the exit code. */
static int enter_sandbox(struct parent *p)
{
	char text[SHMQ_ERROR_TEXT_MAX];
	int error = p->o->sandbox == SANDBOX_OFF ? 0 : sandbox_enter(SANDBOX_BUS);

	if (!error)
		return -1;
	if (p->o->sandbox != SANDBOX_REQUIRE) {
		log_warn("no filter of system calls here (%s): going on without", strerror(-error));
		return -1;
	}
	snprintf(text, sizeof(text),
		 "filtering system calls: %s: allow seccomp here, or start without "
		 "--sandbox require",
		 strerror(-error));
	return say_start_failed(p, EXIT_FAILED, text);
}

static int begin(struct parent *p)
{
	struct shmq__why why = { "" };
	char text[SHMQ_ERROR_TEXT_MAX];
	int rc = take_lock(p);

	if (rc >= 0)
		return rc;
	rc = enter_sandbox(p);
	if (rc >= 0)
		return rc;
	if (!p->o->foreground && !p->o->log)
		log_follow(p->files.log);
	rc = yield_to_survivor(p);
	if (rc >= 0)
		return rc;
	rc = bring_back(p);
	if (rc >= 0)
		return rc;
	renew_store(p);
	rc = config_put(p->o->config, p->files.conf, p->files.scratch, p->o->config_path);
	if (rc) {
		snprintf(text, sizeof(text), "writing %s: %s", p->files.conf, files_strerror(rc));
		return say_start_failed(p, EXIT_FAILED, text);
	}
	p->listen_fd = service_socket(p->files.sock, &why);
	if (p->listen_fd < -1)
		return say_start_failed(p, EXIT_FAILED, why.text);
	p->o->is_activated = p->listen_fd >= 0;
	if (!p->o->is_activated)
		p->listen_fd = files_listen(&p->files, p->files.sock,
					    access_has_rules(p->o->access) ? FILES_EVERYBODY :
									     FILES_OWNER);
	if (p->listen_fd >= 0)
		return -1;
	snprintf(text, sizeof(text), "listening at %s: %s", p->files.sock,
		 files_strerror(p->listen_fd));
	return say_start_failed(p, EXIT_FAILED, text);
}

/* What this process was before it executed another build. */
static int resume(struct parent *p)
{
	close_fd(&p->control.link_fd);
	write_manifest(p);
	renew_store(p); /* it may lack what came last */
	log_info("bus \"%s\" goes on under shmqd %s", p->o->bus, shmq_version());
	return -1;
}

/* Everything comes from the worker that started us; what it queued outlives
 * it.  The order matters: hold all there is to hold, then wait for the lock,
 * then tell.  It says itself who it is: if it has died, whoever took in what it
 * left is our parent, and may be anybody. */
static int take_over(struct parent *p)
{
	struct link_msg start;
	int error;

	p->control.link_fd = p->o->fd;
	error = link_take(p->control.link_fd, &p->listen_fd, &p->lock_fd, p->slab, &start);
	if (error) {
		log_error("taking over the bus: %s", strerror(-error));
		return EXIT_FAILED;
	}
	p->nonce = start.nonce;
	p->was_ready = p->nonce != 0;
	if (p->lock_fd >= 0)
		return resume(p);
	p->lock_fd = files_lock(p->files.lock, 2 * START_TIMEOUT_NS);
	if (p->lock_fd < 0) {
		log_error("locking %s: %s", p->files.lock, strerror(-p->lock_fd));
		return EXIT_FAILED;
	}
	p->control.spawned_ns = shmq__clock_monotonic_ns();
	p->control.fd = shmq__proc_pidfd(start.pid);
	if (getppid() == start.pid && p->control.fd >= 0) {
		p->control.pid = start.pid;
	} else {
		close_fd(&p->control.fd);
		close_fd(&p->control.link_fd);
	}
	write_manifest(p);
	p->is_served = p->control.pid != 0;
	if (p->control.pid)
		link_say(p->control.link_fd, LINK_READY);
	log_info("took over bus \"%s\" as its parent%s", p->o->bus,
		 p->control.pid ? "" : "; the worker that held it is gone too");
	return -1;
}

static int watch_signals(struct parent *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGHUP);
	signal(SIGINT, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return p->signal_fd < 0 ? -errno : 0;
}

/* The lock goes last: with it goes the right to remove the others. */
static void leave(struct parent *p, int code)
{
	if (files_are_anothers(p->lock_fd, p->files.lock)) {
		log_warn("bus \"%s\" has ended; the files in %s are another's of the name, which "
			 "began when they were removed",
			 p->o->bus, p->o->dir);
		return;
	}
	if (!p->o->is_activated)
		unlink(p->files.sock);
	unlink(p->files.back);
	unlink(p->files.manifest);
	unlink(p->files.conf);
	unlink(p->files.control);
	log_info("bus \"%s\" has ended", p->o->bus);
	if (code == EXIT_OK)
		log_end(p->files.log);
	unlink(p->files.lock);
}

int parent_run(struct options *o, int ready_fd)
{
	struct parent p = { .o = o,
			    .lock_fd = -1,
			    .listen_fd = -1,
			    .signal_fd = -1,
			    .ready_fd = ready_fd,
			    .control = { "control", ROLE_CONTROL, .fd = -1, .link_fd = -1 },
			    .tailer = { "tailer", ROLE_TAILER, .fd = -1, .link_fd = -1 } };
	unsigned i;
	int rc;

	for (i = 0; i < LINK_SLABS_MAX; i++)
		p.slab[i].fd = -1;
	log_open("parent", o->level);
	files_name(&p.files, o->dir, o->bus);
	rc = watch_signals(&p);
	if (rc)
		return say_start_failed(&p, EXIT_FAILED, files_strerror(rc));
	rc = o->role == ROLE_PARENT ? take_over(&p) : begin(&p);
	if (rc >= 0)
		return rc;
	rc = privilege_shed(PRIVILEGE_PARENT);
	if (rc)
		log_warn("giving up privileges: %s: going on with them", strerror(-rc));
	if (service_watchdog_ns())
		p.watchdog_due = shmq__clock_monotonic_ns();
	rc = supervise(&p);
	leave(&p, rc);
	return rc;
}
