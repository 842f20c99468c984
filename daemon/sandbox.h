/* SPDX-License-Identifier: MIT
 *
 * sandbox: system calls that no process of a supervisor makes, and by which
 * one that was taken over would do harm: tracing others and reading their
 * memory, taking descriptors out of them, mounting, other name spaces, code in
 * the kernel, its keys, clock and power.  Whoever calls one is killed
 * (SIGSYS), which its parent names.  The filter is inherited by what a process
 * forks and executes, another build too, so the first process enters it for
 * all of them.
 */
#ifndef SHMQ_SANDBOX_H
#define SHMQ_SANDBOX_H

/* For good, this process and its descendants.  0; -ENOSYS: not on this machine
 * or not in this kernel; or -errno. */
int sandbox_enter(void);

/* By landlock: files are made, written, renamed and removed below these directories
 * alone, each of which may be missing: then what leads there counts.  0; -ENOSYS: not
 * in this kernel, or not so that files can be renamed between directories; or
 * -errno. */
int sandbox_limit_writes(const char *const *directories, unsigned count);

/* Number of calls refused, and each of them. */
unsigned sandbox_count(void);
int sandbox_call(unsigned i);

#endif
