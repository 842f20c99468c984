/* SPDX-License-Identifier: MIT
 *
 * The trap flag makes every instruction end in SIGTRAP, and int3 sets and clears it.
 * Shared mappings have no access while a step is traced: whoever faults on one gets it
 * for the one instruction.  All is done by who is traced, in its signal handlers.
 */
#include "trace.h"
#include "common.h"

#include <stdio.h>

#if defined(__x86_64__)

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define LINE 64u
#define PAGE UINT64_C(4096)
#define LINES (1u << 16) /* that can be told apart */
#define REGIONS 256u
#define TRAP_FLAG 0x100
#define WRITES 2 /* in the code of a page fault */

struct region { /* a shared mapping */
	uintptr_t from, to;
	int prot;
	uint64_t off, inode; /* what is behind it: that may be mapped twice */
};
static struct region region[REGIONS];
static unsigned regions;

/* Who has a line: processor 0, 1.  Unseen is like one of an earlier lap: what was
 * written there was read. */
static struct line {
	uint64_t inode, number; /* number is one more */
	unsigned char has[2], is_changed;
} line[LINES];

static struct bench_trace *sum;
static uint64_t own; /* instructions between a begin and an end with nothing between */
static unsigned cpu;
static struct region open_now[4]; /* what of them is, for this instruction */
static unsigned open_count;

static struct line *find_line(uint64_t inode, uint64_t number)
{
	uint64_t at = (number * UINT64_C(0x9e3779b97f4a7c15) ^ inode * 31) >> 20;
	struct line *l;

	for (;; at++) {
		l = &line[at % LINES];
		if (l->number == number + 1 && l->inode == inode)
			return l;
		if (!l->number)
			break;
	}
	*l = (struct line){ .inode = inode, .number = number + 1, .has = { 1, 1 } };
	return l;
}

static void touch(const struct region *r, uintptr_t at, int writes)
{
	struct line *l = find_line(r->inode, (r->off + (at - r->from)) / LINE);

	if (!l->has[cpu] && l->is_changed)
		sum->fetched++;
	else if (writes && l->has[!cpu])
		sum->taken++;
	if (!l->has[cpu])
		l->is_changed = 0;
	l->has[cpu] = 1;
	if (writes) {
		l->has[!cpu] = 0;
		l->is_changed = 1;
	}
}

/* How many bytes an instruction moves at most, as far as it matters: what is moved by
 * vectors may reach into the next line. */
static unsigned bytes_moved(const unsigned char *at)
{
	unsigned vector = 16;

	if (*at == 0xc5 || *at == 0xc4) {
		vector <<= at[*at == 0xc5 ? 1 : 2] >> 2 & 1;
		at += *at == 0xc5 ? 2 : 3;
	} else if (*at == 0x62) {
		vector <<= at[3] >> 5 & 3;
		at += 4;
	} else {
		while (*at == 0x66 || *at == 0xf2 || *at == 0xf3 || (*at & 0xf0) == 0x40)
			at++;
		if (*at++ != 0x0f)
			return 8;
	}
	return memchr("\x10\x11\x28\x29\x2b\x6f\x7f\xd4\xdb\xe7\xeb\xef\xfe", *at, 13) ? vector : 8;
}

static int try_protect(const struct region *r, int prot)
{
	return mprotect((void *)r->from, r->to - r->from, prot);
}

static void protect(const struct region *r, int prot)
{
	if (try_protect(r, prot))
		bench_fail("a mapping cannot be protected: %s", strerror(errno));
}

/* Only the page if that can be had, as of a large mapping it takes long, else all. */
static void give_access(const struct region *r, uintptr_t at)
{
	struct region *open = &open_now[open_count++];

	*open = *r;
	open->from = at & ~(uintptr_t)(PAGE - 1);
	open->to = open->from + PAGE;
	if (!try_protect(open, r->prot))
		return;
	*open = *r;
	protect(open, r->prot);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *c = context;
	uintptr_t at = (uintptr_t)info->si_addr, last;
	int writes = !!(c->uc_mcontext.gregs[REG_ERR] & WRITES);
	unsigned i;

	for (i = 0; i < regions; i++)
		if (at >= region[i].from && at < region[i].to)
			break;
	if (i == regions || !sum || open_count == sizeof(open_now) / sizeof(open_now[0])) {
		signal(SIGSEGV, SIG_DFL);
		return;
	}
	last = at + bytes_moved((const unsigned char *)c->uc_mcontext.gregs[REG_RIP]) - 1;
	touch(&region[i], at, writes);
	if (last / LINE != at / LINE && last < region[i].to)
		touch(&region[i], last, writes);
	give_access(&region[i], at);
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *c = context;

	while (open_count)
		protect(&open_now[--open_count], PROT_NONE);
	if (info->si_code == TRAP_TRACE)
		sum->instructions++;
	else
		c->uc_mcontext.gregs[REG_EFL] ^= TRAP_FLAG;
}

/* Handlers run on a stack of their own: what is traced may have used what is below
 * its own. */
static void handle(void)
{
	static char stack[64 << 10];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction a = { .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigaltstack(&alternate, NULL);
	sigemptyset(&a.sa_mask);
	a.sa_sigaction = on_trap;
	sigaction(SIGTRAP, &a, NULL);
	a.sa_sigaction = on_fault;
	sigaction(SIGSEGV, &a, NULL);
}

static void protect_all(int traced)
{
	unsigned i;

	for (i = 0; i < regions; i++)
		protect(&region[i], traced ? PROT_NONE : region[i].prot);
}

void bench_trace_on(unsigned processor, struct bench_trace *to)
{
	cpu = processor;
	sum = to;
	protect_all(1);
	__asm__ __volatile__("int3" ::: "memory");
}

void bench_trace_off(void)
{
	__asm__ __volatile__("int3" ::: "memory");
	sum->instructions -= own;
	protect_all(0);
	sum = NULL;
}

static void measure_own(void)
{
	struct bench_trace t = { 0 };

	handle();
	own = 0;
	bench_trace_on(0, &t);
	bench_trace_off();
	own = t.instructions;
}

void bench_trace_begin(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char text[512], perms[8];
	struct region r;

	if (!f)
		bench_fail("/proc/self/maps: %s", strerror(errno));
	regions = 0;
	memset(line, 0, sizeof(line));
	while (fgets(text, sizeof(text), f)) {
		if (sscanf(text, "%lx-%lx %7s %lx %*s %lu", &r.from, &r.to, perms, &r.off,
			   &r.inode) != 5 ||
		    perms[0] != 'r' || perms[3] != 's')
			continue;
		if (regions == REGIONS)
			bench_fail("there are too many mappings to trace");
		r.prot = PROT_READ | (perms[1] == 'w' ? PROT_WRITE : 0);
		region[regions++] = r;
	}
	fclose(f);
	measure_own();
}

static int can_trace(void)
{
	struct bench_trace t = { 0 };
	int status;
	pid_t pid = fork();

	if (!pid) {
		measure_own();
		bench_trace_on(0, &t);
		__asm__ __volatile__("nop\n nop\n nop" ::: "memory");
		bench_trace_off();
		_exit(t.instructions != 3);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

#else

static int can_trace(void)
{
	return 0;
}

void bench_trace_begin(void)
{
}

void bench_trace_on(unsigned processor, struct bench_trace *to)
{
}

void bench_trace_off(void)
{
}

#endif

int bench_trace_can(const char *figures)
{
	int can = can_trace();

	if (!can)
		bench_label(figures, "instructions and lines are not counted: no process can be "
				     "traced here");
	return can;
}

void bench_trace_finish(const struct bench_trace step[BENCH_STEPS], uint64_t messages)
{
	const struct bench_trace *put = &step[BENCH_PUT], *get = &step[BENCH_GET];
	double *result = bench_shared->result, n = (double)messages;

	result[0] = (double)put->instructions / n;
	result[1] = (double)get->instructions / n;
	result[2] = (double)(put->fetched + get->fetched) / n;
	result[3] = (double)(put->taken + get->taken) / n;
}

void bench_trace_note(const char *name, const char *who, void (*run)(void *), const void *arg)
{
	static const char *const figure[][2] = { { "counted.put", "instructions" },
						 { "counted.get", "instructions" },
						 { "counted.fetched", "lines" },
						 { "counted.taken", "lines" } };
	struct bench_proc proc = { run, (void *)(uintptr_t)arg, 0 };
	char whole[96];
	unsigned i;

	bench_run(&proc, 1);
	snprintf(whole, sizeof(whole), "%s%s", name, who);
	for (i = 0; i < sizeof(figure) / sizeof(figure[0]); i++)
		bench_note_stat(whole, figure[i][0], figure[i][1], bench_shared->result[i]);
}
