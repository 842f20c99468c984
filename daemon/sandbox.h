/* SPDX-License-Identifier: MIT
 *
 * sandbox: the system calls that a process of a supervisor makes, and no
 * others; and `shmq metrics`, which includes this, too: it knows nothing of shmq.
 *
 *   BUS      parent, control worker, what is tried for an upgrade
 *   TAILER   what it needs once it has its directory and ring: it starts
 *            threads and no process, no program, maps no code, signals nobody
 *   FILES    the child that makes and removes files of logs: no sockets either
 *   MEMORY   the child that makes memory: no calls that change files by name
 *   METRICS  shmq metrics once it listens: it starts threads, asks the bus and answers
 *            who connects; no process, no program, no sockets of the network besides
 *
 * Those between are for who is under the first.
 * Parent and control worker have one list, since each may be the one that
 * starts the other, a filter holds for all that is forked and executed, and
 * none is ever taken off.  So does another build that an upgrade executes go on
 * with the list of the first: of what it calls for besides, nothing is there.
 *
 * Calls that nobody needs and that do harm (tracing others and reading their
 * memory, taking descriptors out of them, mounting, other name spaces, code in
 * the kernel, its keys, clock and power) kill whoever makes one (SIGSYS), which
 * its parent names; others that are on no list fail.
 *
 * As plain BPF and not by libseccomp: all that it would do here is to know the
 * numbers, which the C library's headers do as well, for the machine that is
 * compiled for; and one dependency of what runs as root less.
 */
#ifndef SHMQ_SANDBOX_H
#define SHMQ_SANDBOX_H

enum sandbox_kind { SANDBOX_BUS, SANDBOX_TAILER, SANDBOX_FILES, SANDBOX_MEMORY, SANDBOX_METRICS };

/* For good, this thread, and what it starts.  0; -ENOSYS: not on this machine
 * or not in this kernel; or -errno. */
int sandbox_enter(enum sandbox_kind kind);

/* The same, in a process that called sandbox_let_narrow() or whose parent did;
 * in others nothing. */
int sandbox_narrow(enum sandbox_kind kind);
void sandbox_let_narrow(void);

/* By landlock: files are made, written, renamed and removed below these directories
 * alone, each of which may be missing: then what leads there counts; and read, listed
 * and executed below `readable` alone, or, if that is NULL, anywhere.  0; -ENOSYS: not
 * in this kernel, or not so that files can be renamed between directories; or
 * -errno. */
int sandbox_limit_files(const char *const *directories, unsigned count, const char *readable);

/* Number of calls that kill, and each of them. */
unsigned sandbox_count(void);
int sandbox_call(unsigned i);

#endif
