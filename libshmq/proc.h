/* SPDX-License-Identifier: MIT
 *
 * proc: who a process is, and proof that it is dead.
 */
#ifndef SHMQ_PROC_H
#define SHMQ_PROC_H

#include <stdint.h>
#include <sys/types.h>

struct shmq__proc_id {
	pid_t pid;
	uint64_t start_time; /* ticks after boot, /proc/pid/stat field 22 */
	uint64_t pidns;      /* inode of its pid namespace | of the reader's
				time namespace << 32; 0 unknown */
	uint64_t image;      /* made of where its program and arguments lie: another
				after an execve, but for those who may not know
				and where addresses are not random */
};

/* Identity of process pid as seen from here.  0 or -errno (-ESRCH). */
int shmq__proc_identify(pid_t pid, struct shmq__proc_id *out);

/* 1 only with proof: the process of that pid is gone, is a zombie, or
 * started at another time, and id is of this pid namespace.  0 otherwise,
 * also when nothing can be known. */
int shmq__proc_is_dead(const struct shmq__proc_id *id);

/* User plus system time used so far, in clock ticks; -errno. */
int64_t shmq__proc_cpu_ticks(pid_t pid);

/* pidfd_open(2) with close-on-exec: a descriptor or -errno. */
int shmq__proc_pidfd(pid_t pid);

#endif
