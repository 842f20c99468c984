/* SPDX-License-Identifier: MIT
 *
 * options: what shmqd was asked on its command line, and how one process
 * of a supervisor starts another with the same options.
 */
#ifndef SHMQ_OPTIONS_H
#define SHMQ_OPTIONS_H

#include <stdint.h>
#include <sys/types.h>

#include "access.h"
#include "config.h"
#include "log.h"
#include "shmq.h"

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_RUNNING = 3 };

enum role {
	ROLE_START = 0, /* what the user runs: becomes the parent */
	ROLE_PARENT,    /* a parent that takes over from a surviving worker */
	ROLE_CONTROL,   /* the control worker */
	ROLE_TAILER,    /* the worker that keeps logs */
	ROLE_TRIAL,     /* another build: can it take over?  (upgrade.h) */
};

struct options {
	enum role role;
	int fd; /* roles but START: one end of a link */
	char bus[SHMQ_BUS_NAME_MAX + 1];
	char dir[108]; /* resolved */
	int foreground, on_demand;
	enum sandbox { SANDBOX_AUTO, SANDBOX_OFF, SANDBOX_REQUIRE } sandbox;
	int is_activated; /* the socket is a service manager's, which stays */
	int64_t linger_ns;
	const char *log;
	const char *program; /* absolute: what an upgrade executes */
	enum log_level level;
	char config_path[4096]; /* of the file, "" if there is to be none */
	enum config_whose config_whose;
	int config_is_named;   /* by --config: then it has to be there */
	struct config *config; /* of the file (START), or in force; NULL none */
	struct {               /* what the command line said, which counts more */
		int level;     /* + 1 */
		int64_t linger_ns;
		unsigned guests;
		const char *data_dir, *log_dirs, *log;
	} said;
	const char *topology;
	const char *data_dir;  /* of logs; NULL is the default */
	const char *log_dirs;  /* others, with ':' between them, or NULL */
	uint64_t first_seq;    /* of new topics: tests start near a wrap */
	struct access *access; /* the rules of --allow and of the configuration */
	char **allow;          /* those of --allow as they were given */
	unsigned allow_count;
	unsigned guests; /* uids besides the owner's that may come; 0 without rules */
};

/* Fill *out.  -1 to go on, or the code to exit with. */
int options_parse(int argc, char **argv, struct options *out);

/* Take what the command line left open from a configuration (NULL: none), which is
 * o's from then on, instead of the one before.  0, or an error and nothing has
 * changed. */
int options_apply(struct options *o, struct config *config);

/* Start this program again in another role, holding `fd`.  Process id or
 * -errno. */
pid_t options_spawn(const struct options *o, enum role role, int fd);

/* The same of what is open as `program`, which may be another build; and to
 * become that instead, by a call that returns only if it fails: -errno. */
pid_t options_spawn_other(const struct options *o, enum role role, int fd, int program);
int options_become_other(const struct options *o, enum role role, int fd, int program);

#endif
