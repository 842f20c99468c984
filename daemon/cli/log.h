/* SPDX-License-Identifier: MIT
 *
 * log: what the commands on logs share.
 */
#ifndef SHMQ_CLI_LOG_H
#define SHMQ_CLI_LOG_H

#include "cli.h"

#include <limits.h>

extern const struct command log_ls, log_dump, log_export, log_verify, log_repair, log_import;
extern const struct command cursor_ls, cursor_set, cursor_rm;

/* Run the command that argv begins with, of those whose names are that of `self`,
 * a blank and a word. */
int log_run_one_of(struct cli *cli, const struct command *self,
		   const struct command *const *members, size_t count, int argc, char **argv);

/* Where logs are looked for. */
struct log_place {
	const char *data_dir;
};
extern const struct opt log_place_options[];
extern const size_t log_place_option_count;

/* The directory that an operand means: itself if it begins with / or a dot, else
 * TOPIC on the bus or BUS/TOPIC.  An exit code, having said what went wrong. */
int log_find(const struct cli *cli, const struct log_place *place, const char *operand,
	     char path[PATH_MAX]);

/* Call for each log of the bus, or, where none is named, of all buses, in order, by the
 * operand that means it, until visit returns other than CLI_OK, which is returned.  Else
 * an exit code, having said what could not be looked at. */
int log_each(const struct cli *cli, const struct log_place *place,
	     int (*visit)(void *arg, const char *name, const char *path), void *arg);

/* Say why a call on the log failed.  An exit code. */
int log_fail(const struct cli *cli, int error, const char *doing, const char *operand);

/* How far it is, on a terminal, now and then; of 0: not known. */
struct log_progress {
	const char *doing, *what;
	int is_on;
	int64_t due_ns;
};
void log_progress_start(struct log_progress *p, const char *doing, const char *what);
void log_progress_show(struct log_progress *p, uint64_t done, uint64_t of);
void log_progress_hide(struct log_progress *p);

#endif
