/* SPDX-License-Identifier: MIT
 *
 * bus: a supervisor of the test's own.
 *
 * It runs the shmqd of this build ($SHMQ_DAEMON, else the one three levels
 * above the test program) in the foreground, on a bus name and in a runtime
 * directory that nobody else has.  $SHMQ_RUNTIME_DIR and $SHMQ_DAEMON are
 * set for the test and its children.  The supervisor's log is shown if the
 * test fails.
 */
#ifndef TEST_BUS_H
#define TEST_BUS_H

#include "shmq.h"

#include <sys/types.h>

/* Start a supervisor and wait until its socket accepts.  Arguments, if any,
 * are further arguments of shmqd.  Returns the process id of the parent:
 *     test_bus_start();
 *     test_bus_start("--some-option", "value"); */
#define test_bus_start(...) \
	test_bus_start_args((const char *const[]){ "", ##__VA_ARGS__, NULL } + 1)
pid_t test_bus_start_args(const char *const *arguments);

/* The same bus name and directory again, after the test has killed what
 * ran there. */
#define test_bus_restart(...) \
	test_bus_restart_args((const char *const[]){ "", ##__VA_ARGS__, NULL } + 1)
pid_t test_bus_restart_args(const char *const *arguments);

/* The same without waiting: it may be killed before it accepts. */
pid_t test_bus_launch(void);

/* SIGKILL for the supervisor's processes in one role, "parent" or a worker's,
 * or with NULL for all of them at the same moment, which is waited for.  How
 * many there were.  What this file started must not have ended by itself. */
int test_bus_kill(const char *role);

/* Wait until those in a role have ended whom it killed last. */
void test_bus_await_killed(void);

/* Another signal for those in one role: how many there were. */
int test_bus_signal(const char *role, int sig);

/* The process in a role, if there is just one; else 0. */
pid_t test_bus_pid(const char *role);

/* Wait until all of it has ended, as it was asked to. */
void test_bus_await_end(void);

/* End the supervisor and remove its directory.  Fails the test if a process
 * of it or a socket is left. */
void test_bus_stop(void);

/* A fresh name and directory without a supervisor, for tests of the start on
 * demand; test_bus_stop() ends what was started there. */
void test_bus_prepare(void);

const char *test_bus_name(void);
const char *test_bus_dir(void);
const char *test_bus_data(void);   /* where its logs are: $SHMQ_DATA_DIR and the name */
const char *test_bus_daemon(void); /* path of shmqd */

/* Whether a line of a log has the text: of the supervisor that test_bus_start()
 * started, or of the file at path. */
int test_bus_log_has(const char *text);
int test_log_has(const char *path, const char *text);

/* Attach to it, or fail the test. */
shmq_bus *test_bus_open(void);

/* Process ids as the bus gives them: the control worker, the parent.  The parent
 * is waited for, where one died and the next is not there yet. */
pid_t test_bus_worker_pid(shmq_bus *bus);
pid_t test_bus_parent_pid(shmq_bus *bus);

/* Whether a client could connect now. */
int test_bus_accepts(void);

#endif
