/* SPDX-License-Identifier: MIT */
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "registry.h"

#define TRIAL_TIMEOUT_NS INT64_C(5000000000)

static int give_everything(const struct upgrade *u, int sock)
{
	struct link_msg lock = { .kind = LINK_LOCK };
	int error = link_send(sock, &lock, u->lock_fd);

	return error ? error : link_give(sock, u->listen_fd, u->slab, u->nonce, 0);
}

/* ---- in the parent --------------------------------------------------- */

static int hear_verdict(const char *program, int sock, struct shmq__why *why)
{
	struct link_msg msg;
	int fd, rc = link_recv(sock, &msg, &fd, TRIAL_TIMEOUT_NS);

	/* Who ends before it has read all that it was given resets the socket, of which we
	 * hear before what it said. */
	if (rc == 0)
		rc = link_recv(sock, &msg, &fd, 0);
	if (rc == 1 && fd >= 0)
		close(fd);
	if (rc == 1 && msg.kind == LINK_READY)
		return 0;
	if (rc == 1 && msg.kind == LINK_FAILED)
		return shmq__fail(why, SHMQ_EVERSION, "%s refuses: %s", program, msg.text);
	if (rc == -EPROTO && link_version_of(&msg))
		return shmq__fail(
			why, SHMQ_EVERSION,
			"%s speaks version %u of what processes of shmqd say to each "
			"other, and what runs speaks %u: kill all processes of this bus's "
			"shmqd and start the other, which takes it over from its clients",
			program, link_version_of(&msg), LINK_VERSION);
	return shmq__fail(why, SHMQ_EPROTO, "%s does not say whether it can take over: %s", program,
			  rc == 0 ? "it ended" : strerror(rc < 0 ? -rc : EPROTO));
}

static int ask(const struct upgrade *u, int program, struct shmq__why *why)
{
	int pair[2], error = link_pair(pair);
	pid_t pid = 0;

	if (error)
		return shmq__fail(why, error, "asking %s: %s", u->o->program, strerror(-error));
	error = give_everything(u, pair[0]);
	if (!error) {
		pid = options_spawn_other(u->o, ROLE_TRIAL, pair[1], program);
		error = pid < 0 ? pid : 0;
	}
	close(pair[1]);
	if (error)
		shmq__fail(why, error, "asking %s: %s", u->o->program, strerror(-error));
	else
		error = hear_verdict(u->o->program, pair[0], why);
	close(pair[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return error;
}

int upgrade_try(const struct upgrade *u, struct shmq__why *why)
{
	int program = open(u->o->program, O_RDONLY | O_CLOEXEC), error;

	if (program < 0)
		return shmq__fail(why, -errno, "opening %s: %s", u->o->program, strerror(errno));
	error = ask(u, program, why);
	if (!error)
		return program;
	close(program);
	return error;
}

int upgrade_go(const struct upgrade *u, int program)
{
	int pair[2], error = link_pair(pair);

	if (error)
		return error;
	error = give_everything(u, pair[0]);
	close(pair[0]); /* what is queued stays */
	if (!error)
		error = options_become_other(u->o, ROLE_PARENT, pair[1], program);
	close(pair[1]);
	return error;
}

/* ---- in the other build ---------------------------------------------- */

int upgrade_trial(const struct options *o)
{
	struct link_slab slab[LINK_SLABS_MAX];
	struct link_msg start, msg = { .kind = LINK_READY };
	struct shmq__why why = { "" };
	int listen_fd, lock_fd, error;
	unsigned i;

	log_open("trial", o->level);
	for (i = 0; i < LINK_SLABS_MAX; i++)
		slab[i].fd = -1;
	error = link_take(o->fd, &listen_fd, &lock_fd, slab, &start);
	if (error)
		shmq__fail(&why, error, "taking over: %s", strerror(-error));
	else
		error = registry_check(slab[0].fd, start.nonce, &why);
	if (error) {
		msg.kind = LINK_FAILED;
		snprintf(msg.text, sizeof(msg.text), "bus \"%s\": its %.180s", o->bus, why.text);
	}
	link_send(o->fd, &msg, -1);
	return error ? EXIT_FAILED : EXIT_OK;
}
