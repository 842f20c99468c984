/* SPDX-License-Identifier: MIT
 *
 * doctor: what of a machine makes a bus slower or smaller than it could be.
 *
 *   doctor         the command: report, JSON, repairs
 *   doctor_host    what /proc and /sys say: memory, nodes, processors, clock
 *   doctor_kernel  what the kernel can, and what this process may
 *   doctor_files   the runtime directory, and what dead buses left there
 *
 * Checks read below `root`, so that tests can give them a machine.
 */
#ifndef SHMQ_DOCTOR_H
#define SHMQ_DOCTOR_H

#include "cli.h"

enum level {
	LEVEL_OK = 0,
	LEVEL_HINT, /* would be better for the fastest; no finding for the exit code */
	LEVEL_WARN, /* costs something */
	LEVEL_BAD,  /* a bus does not work, or not safely */
};

struct finding {
	const char *check;
	enum level level;
	char what[256], costs[192], fix[448];
	/* Where it is safe to do: write `value` into the file `path`, or what `repair` does
	 * in the directory `path`. */
	char path[256], name[64];
	const char *value;
	int (*repair)(const struct finding *); /* 0 or -errno */
	int is_fixed;
};

struct doctor {
	const char *root; /* "" is this machine */
	char runtime[108];
	int is_default; /* nobody named that one */
	struct finding *all;
	size_t count, room;
};

/* One more, whose text follows; it stays valid until the next. */
struct finding *doctor_add(struct doctor *d, const char *check, enum level level,
			   const char *format, ...) __attribute__((format(printf, 4, 5)));
void doctor_costs(struct finding *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
void doctor_fix(struct finding *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* It is safe, and is to write `value` below the root. */
void doctor_write(struct doctor *d, struct finding *f, const char *path, const char *value);

/* The first line of a file below the root, without its end; -1 if there is none. */
int doctor_line(const struct doctor *d, const char *path, char *out, size_t bytes);
int doctor_number(const struct doctor *d, const char *path, uint64_t *out);
/* What stands behind `key` in a file of lines; -1 if it does not. */
int doctor_field(const struct doctor *d, const char *path, const char *key, char *out,
		 size_t bytes);

void doctor_host(struct doctor *d);
void doctor_kernel(struct doctor *d);
void doctor_files(struct doctor *d);

#endif
