/* SPDX-License-Identifier: MIT
 *
 * privilege: what a process of the supervisor may do besides what any process
 * of its uid may.
 *
 *   process      effective                                     permitted
 *   parent       NET_ADMIN                                     as control
 *   control      IPC_LOCK, SYS_NICE, KILL, SYS_PTRACE, NET_ADMIN   the same
 *   tailer       none                                          none
 *   child that makes memory   IPC_LOCK, SYS_NICE               the same
 *
 * IPC_LOCK locks memory beyond the limit, SYS_NICE moves pages that others map
 * too, KILL ends a stalled publisher of another uid, SYS_PTRACE reads in /proc
 * what a client of another uid has mapped, NET_ADMIN gives the sockets between
 * them room for the descriptors of all slabs at once (link.c).  Permitted is what a process that
 * this one executes can have: a worker may be the one that starts the next
 * parent.  Nothing is gained that was not there: a supervisor of an ordinary
 * user has none of them.
 */
#ifndef SHMQ_PRIVILEGE_H
#define SHMQ_PRIVILEGE_H

enum privilege { PRIVILEGE_PARENT, PRIVILEGE_TAILER, PRIVILEGE_CONTROL, PRIVILEGE_MEMORY };

/* For good, this thread and those it starts: before there are others.  What
 * it executes gains nothing either (no_new_privs).  0 or -errno. */
int privilege_shed(enum privilege kept);

#endif
