/* SPDX-License-Identifier: MIT
 *
 * probe: static probe points of the provider "shmq", for perf and bpftrace.
 *
 *   publish  ring, seq, bytes   a message was committed
 *   receive  ring, seq, bytes   a message is handed out
 *   sleep    word, count        a thread is about to sleep on count bells
 *   wake     word               sleepers of a bell are about to be woken
 *   recover  topic id, partition, client, voided
 *                               what a dead client left was looked for
 *
 * Each is one nop where nobody traces, and a note in the ELF file that says where
 * its arguments are: those are what is at hand there, so that nothing is computed
 * for it.  Where <sys/sdt.h> is missing there are none.
 */
#ifndef SHMQ_PROBE_H
#define SHMQ_PROBE_H

#if defined(__has_include) && !defined(SHMQ_WEAVE)
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define SHMQ_HAS_PROBES
#endif
#endif

#ifdef SHMQ_HAS_PROBES
#define PROBE1(name, a) DTRACE_PROBE1(shmq, name, a)
#define PROBE2(name, a, b) DTRACE_PROBE2(shmq, name, a, b)
#define PROBE3(name, a, b, c) DTRACE_PROBE3(shmq, name, a, b, c)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(shmq, name, a, b, c, d)
#else
#define PROBE1(name, a) ((void)0)
#define PROBE2(name, a, b) ((void)0)
#define PROBE3(name, a, b, c) ((void)0)
#define PROBE4(name, a, b, c, d) ((void)0)
#endif

#endif
