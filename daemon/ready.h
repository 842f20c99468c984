/* SPDX-License-Identifier: MIT
 *
 * ready: daemonising, such that the command returns when the daemon
 * accepts clients, or says in its own voice why it does not.
 */
#ifndef SHMQ_READY_H
#define SHMQ_READY_H

#include "options.h"

/* Fork.  In the daemon: 0, *fd is where to report, stdio goes to the log.  The
 * process that was started waits for the report and exits with its code.
 * -errno on failure. */
int ready_daemonise(const char *log, int *fd);

/* Report, once; *fd is closed and -1 afterwards.  text is for stderr, or NULL.
 * Without daemonising (*fd < 0) nothing happens. */
void ready_report(int *fd, enum exit_code code, const char *text);

#endif
